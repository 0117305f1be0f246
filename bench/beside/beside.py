"""What people use instead of a hub, on the same cores in the same run as tessera-bench.

Each contender gets the same number of tasks that do nothing; its server has the first core, its workers and the client
have the others, as tessera-bench places a hub and its load. Everybody has a turn in each round, beginning with another one
each time, and a ratio is the median of the ratios within rounds. A contender that is not installed is left out and named.

    bench/beside/setup
    target/beside/venv/bin/python bench/beside/beside.py --tessera target/release/tessera-bench

What each keeps through a loss of power is not the same, and printed with its rate.
"""

import argparse
import asyncio
import contextlib
import json
import pathlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = CORES[:1], CORES[1:] or CORES


FOLDER = pathlib.Path(__file__).resolve().parents[2] / "target" / "beside"
LIBRARIES = FOLDER / "system" / "usr" / "lib"


# Nothing leaves this machine, and nobody is told that something was measured.
HOST = "127.0.0.1"
# A folder whose disk is memory.
MEMORY = "/dev/shm"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


class Missing(Exception):
    """It is not here; says how to get it."""


def pinned(cores):
    return lambda: os.sched_setaffinity(0, cores)


def program(name):
    """What setup fetched, or the system has; and the environment that it runs in."""
    for folder in (FOLDER / "venv" / "bin", FOLDER / "system" / "usr" / "bin"):
        if (folder / name).is_file():
            libraries = os.pathsep.join(str(path) for path in LIBRARIES.glob("*-linux-gnu"))
            return str(folder / name), {**os.environ, "LD_LIBRARY_PATH": libraries}
    found = shutil.which(name)
    if found is None:
        raise Missing(f"there is no {name}: run bench/beside/setup, or install it")
    return found, dict(os.environ)


def until(what, is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.01)
    return found


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def dask(tasks):
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        where = os.path.join(folder, "scheduler.json")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        server = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard"]
        place = ["--scheduler-file", where, "--host", HOST]
        server = subprocess.Popen(
            [*server, "--port", "0", "--no-dashboard", *place], preexec_fn=pinned(SERVER), **quiet
        )
        worker = subprocess.Popen([*worker, *place], preexec_fn=pinned(LOAD), **quiet)
        try:
            os.sched_setaffinity(0, LOAD)
            with Client(scheduler_file=where, timeout=60) as client:
                client.wait_for_workers(1, timeout=60)
                client.gather(client.map(abs, range(100), pure=False))
                began = time.perf_counter()
                found = client.gather(client.map(abs, range(tasks), pure=False))
                seconds = time.perf_counter() - began
            assert len(found) == tasks
            return seconds
        finally:
            os.sched_setaffinity(0, CORES)
            end(worker)
            end(server)


def same(number):
    return number


def ray(tasks):
    import logging

    import ray

    # Ray starts its own servers, on all cores.
    ray.init(
        num_cpus=len(CORES),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address=HOST,
    )
    try:
        nothing = ray.remote(same)
        ray.get([nothing.remote(1) for _ in range(100)])
        began = time.perf_counter()
        found = ray.get([nothing.remote(number) for number in range(tasks)])
        seconds = time.perf_counter() - began
        assert len(found) == tasks
        return seconds
    finally:
        ray.shutdown()


def redis_server(folder):
    path, environment = program("redis-server")
    where = os.path.join(folder, "redis.sock")
    durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = [path, "--port", "0", "--unixsocket", where, "--dir", folder, *durable]
    server = subprocess.Popen(command, preexec_fn=pinned(SERVER), env=environment, stdout=subprocess.DEVNULL)
    until("redis-server does not start", lambda: os.path.exists(where))
    return server, where


def redis_lists(tasks, batch):
    """A task is pushed, moved to a list of those under way, and its result pushed as it is removed from there."""
    import redis

    with tempfile.TemporaryDirectory() as folder:
        server, where = redis_server(folder)
        try:
            os.sched_setaffinity(0, LOAD)
            client = redis.Redis(unix_socket_path=where)
            began = time.perf_counter()
            for first in range(0, tasks, batch):
                numbers = range(first, min(first + batch, tasks))
                pipe = client.pipeline(transaction=False)
                for number in numbers:
                    pipe.lpush("todo", number)
                pipe.execute()
                pipe = client.pipeline(transaction=False)
                for _ in numbers:
                    pipe.lmove("todo", "doing", "RIGHT", "LEFT")
                taken = pipe.execute()
                pipe = client.pipeline(transaction=False)
                for number in taken:
                    pipe.lrem("doing", 1, number)
                    pipe.lpush("done", number)
                pipe.execute()
            seconds = time.perf_counter() - began
            assert client.llen("done") == tasks
            return seconds
        finally:
            os.sched_setaffinity(0, CORES)
            end(server)


async def jetstream_tasks(url, tasks, batch):
    """A task is stored, pulled, its result stored, and only then acknowledged, which removes it."""
    import nats
    from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

    connection = await nats.connect(url)
    stream = connection.jetstream()
    kept = {"storage": StorageType.FILE, "num_replicas": 1}
    await stream.add_stream(
        StreamConfig(name="TODO", subjects=["todo"], retention=RetentionPolicy.WORK_QUEUE, **kept)
    )
    await stream.add_stream(StreamConfig(name="DONE", subjects=["done"], **kept))
    worker = await stream.pull_subscribe("todo", durable="worker", config=ConsumerConfig(max_ack_pending=2 * batch))
    began = time.perf_counter()
    for first in range(0, tasks, batch):
        numbers = range(first, min(first + batch, tasks))
        await asyncio.gather(*[stream.publish("todo", b"%d" % number) for number in numbers])
        left = len(numbers)
        while left:
            taken = await worker.fetch(left, timeout=30)
            await asyncio.gather(*[stream.publish("done", task.data) for task in taken])
            for task in taken:
                await task.ack()
            left -= len(taken)
    await connection.flush()
    seconds = time.perf_counter() - began
    done = (await stream.stream_info("DONE")).state.messages
    assert done == tasks, f"{done} of {tasks} results"
    await connection.close()
    return seconds


def jetstream(tasks, sync, batch=256):
    import nats  # noqa: F401: where it is missing, no server is started

    path, environment = program("nats-server")
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "host": HOST,
            "port": -1,
            "ports_file_dir": folder,
            "jetstream": {"store_dir": os.path.join(folder, "store"), "sync_interval": sync},
        }
        where = os.path.join(folder, "server.conf")
        with open(where, "w") as file:
            json.dump(settings, file)
        log = os.path.join(folder, "log")
        command = [path, "--config", where, "--log", log]
        server = subprocess.Popen(command, preexec_fn=pinned(SERVER), env=environment)
        try:

            def ports():
                if server.poll() is not None:
                    raise RuntimeError(f"nats-server ended: {pathlib.Path(log).read_text()[-500:]}")
                for found in pathlib.Path(folder).glob("*.ports"):
                    text = found.read_text()
                    return json.loads(text)["nats"][0] if text else None

            url = until("nats-server does not start", ports)
            os.sched_setaffinity(0, LOAD)
            return asyncio.run(jetstream_tasks(url, tasks, batch))
        finally:
            os.sched_setaffinity(0, CORES)
            end(server)


@contextlib.contextmanager
def silence():
    """Also of what is no Python."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for before, stream in zip(kept, (1, 2)):
            os.dup2(before, stream)
            os.close(before)
        os.close(nowhere)


def hyperqueue_wheel(tasks):
    """Its server and its worker are threads of this process, and a task is a program that is started."""
    from hyperqueue import Job, LocalCluster
    from hyperqueue.cluster import WorkerConfig

    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        raise Missing(f"its worker goes to {name}, which is {address} and not the loopback: say so in /etc/hosts")
    with tempfile.TemporaryDirectory() as folder, silence():
        try:
            os.sched_setaffinity(0, SERVER)
            with LocalCluster(folder) as cluster:
                os.sched_setaffinity(0, LOAD)
                cluster.start_worker(WorkerConfig(cores=len(LOAD)))
                job = Job()
                for _ in range(tasks):
                    job.program(["/bin/true"], stdout=None, stderr=None)
                client = cluster.client()
                began = time.perf_counter()
                client.wait_for_jobs([client.submit(job)])
                return time.perf_counter() - began
        finally:
            os.sched_setaffinity(0, CORES)


def hyperqueue(path, tasks):
    """Its program, with a journal; workers that start nothing where it was built with them."""
    with tempfile.TemporaryDirectory() as folder:
        hq = [path, "--server-dir", os.path.join(folder, "server")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        journal = ["--journal", os.path.join(folder, "journal")]
        help_text = subprocess.run([path, "worker", "start", "--help"], capture_output=True, text=True).stdout
        zero = ["--zero-worker"] if "--zero-worker" in help_text else []
        server = subprocess.Popen([*hq, "server", "start", "--host", HOST, *journal], preexec_fn=pinned(SERVER), **quiet)
        worker = None
        try:
            answers = lambda: subprocess.run([*hq, "server", "info"], **quiet).returncode == 0  # noqa: E731
            until("the server of HyperQueue does not start", answers)
            start = [*hq, "worker", "start", "--cpus", str(len(LOAD)), *zero]
            worker = subprocess.Popen(start, preexec_fn=pinned(LOAD), **quiet)
            submit = [*hq, "submit", "--array", f"1-{tasks}", "--stdout", "none", "--stderr", "none", "--wait"]
            began = time.perf_counter()
            subprocess.run([*submit, "--", "/bin/true"], check=True, preexec_fn=pinned(LOAD), **quiet)
            return time.perf_counter() - began
        finally:
            if worker is not None:
                end(worker)
            end(server)


def tessera(program, hub, tasks, agents, *more):
    with tempfile.TemporaryDirectory() as folder:
        where = os.path.join(folder, "report.json")
        command = [program, "end-to-end", "--agents", str(agents), "--shards", str(tasks), "--rounds", "1"]
        command += [*more, *(["--hub", hub] if hub else [])]
        subprocess.run([*command, "--json", where], check=True, stdout=subprocess.DEVNULL)
        with open(where) as file:
            return tasks / json.load(file)["shards_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", metavar="PATH", help="the program tessera-bench, to measure a hub too")
    parser.add_argument("--hub", metavar="PATH", help="the hub's program, where it does not lie beside that")
    parser.add_argument("--hyperqueue", metavar="PATH", help="the program hq, which the package from PyPI has not")
    parser.add_argument("--agents", type=int, default=200, help="agents of the hub")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="WORD", action="append", help="contenders whose names hold it")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    tasks = arguments.tasks
    contenders = {
        "Dask distributed": ("in memory", lambda: dask(tasks)),
        "Ray": ("in memory; its servers on all cores", lambda: ray(tasks)),
        "Redis lists, one by one": ("file synced every second", lambda: redis_lists(tasks, 1)),
        "Redis lists, 256 at once": ("file synced every second", lambda: redis_lists(tasks, 256)),
        "JetStream, synced": ("file synced before each acknowledgement", lambda: jetstream(tasks, "always")),
        "JetStream, every second": ("file synced every second", lambda: jetstream(tasks, "1s")),
        "JetStream, as it comes": ("file synced every two minutes", lambda: jetstream(tasks, "2m")),
        "HyperQueue, from PyPI": ("in memory; each task starts a program", lambda: hyperqueue_wheel(tasks)),
    }
    if arguments.hyperqueue:
        kept = "journal; each task starts a program, but with zero workers"
        contenders["HyperQueue"] = (kept, lambda: hyperqueue(arguments.hyperqueue, tasks))
    if arguments.only:
        named = lambda name: any(word.lower() in name.lower() for word in arguments.only)  # noqa: E731
        contenders = {name: of for name, of in contenders.items() if named(name)}
    if arguments.tessera:
        run_hub = lambda: tessera(arguments.tessera, arguments.hub, tasks, arguments.agents)  # noqa: E731
        contenders["Tessera"] = ("each commit synced before it counts", run_hub)
        in_memory = ("--folder", MEMORY)
        if os.path.isdir(MEMORY):
            run_there = lambda: tessera(arguments.tessera, arguments.hub, tasks, arguments.agents, *in_memory)  # noqa: E731
            contenders["Tessera, in memory"] = ("nothing: its folder is in memory", run_there)
    rounds, absent = [], {}
    for number in range(arguments.rounds):
        names = [name for name in contenders if name not in absent]
        first = number % max(1, len(names))
        found = {}
        for name in names[first:] + names[:first]:
            print(f"round {number + 1}: {name}", file=sys.stderr)
            try:
                found[name] = tasks / contenders[name][1]()
            except (ImportError, Missing) as error:
                absent[name] = f"{error}; bench/beside/setup fetches it" if isinstance(error, ImportError) else str(error)
            except Exception as error:  # noqa: BLE001: one that fails must not cost the others' numbers
                absent[name] = f"it failed: {type(error).__name__}: {error}"
        rounds.append(found)
    print(f"{tasks} tasks that do nothing, {arguments.rounds} rounds, server on {SERVER}, load on {LOAD}; tasks a second")
    for name, (kept, _) in contenders.items():
        if name in absent:
            continue
        rates = [found[name] for found in rounds]
        ratios = [found["Tessera"] / found[name] for found in rounds if "Tessera" in found and name != "Tessera"]
        ratio = f"   Tessera {statistics.median(ratios):8.1f} times that" if ratios else " " * 28
        print(f"{name:<26} {statistics.median(rates):>9.0f}   {min(rates):.0f} to {max(rates):.0f}{ratio}   {kept}")
    for name, why in absent.items():
        print(f"{name:<26} not measured: {why}")
    if arguments.json:
        kept = {name: kept for name, (kept, _) in contenders.items()}
        with open(arguments.json, "w") as file:
            json.dump({"tasks": tasks, "tasks_per_second": rounds, "kept": kept, "absent": absent}, file, indent=2)


if __name__ == "__main__":
    main()
