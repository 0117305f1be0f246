"""What people use instead of a hub, on the same cores in the same run as tessera-bench.

Each contender gets the same number of tasks that do nothing; its server has the first core, its workers and the client
have the others, as tessera-bench places a hub and its load. A contender that is not installed is left out and named.

    python bench/beside/beside.py --tessera target/release/tessera-bench

Dask distributed and Ray come from PyPI, the Redis server and its client from the system and PyPI.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = CORES[:1], CORES[1:] or CORES


def pinned(cores):
    return lambda: os.sched_setaffinity(0, cores)


def dask(tasks):
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        where = os.path.join(folder, "scheduler.json")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
        server = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-dashboard"]
        place = ["--scheduler-file", where]
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
            for process in (worker, server):
                process.terminate()
                process.wait()


def same(number):
    return number


def ray(tasks):
    import logging

    import ray

    # Ray starts its own servers, on all cores.
    ray.init(num_cpus=len(CORES), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
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
    program = shutil.which("redis-server")
    if program is None:
        raise ImportError("there is no redis-server")
    where = os.path.join(folder, "redis.sock")
    durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = [program, "--port", "0", "--unixsocket", where, "--dir", folder, *durable]
    server = subprocess.Popen(command, preexec_fn=pinned(SERVER), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not os.path.exists(where):
        if time.monotonic() > deadline:
            raise RuntimeError("redis-server does not start")
        time.sleep(0.01)
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
            server.terminate()
            server.wait()


def tessera(program, tasks, agents):
    with tempfile.TemporaryDirectory() as folder:
        where = os.path.join(folder, "report.json")
        command = [program, "end-to-end", "--agents", str(agents), "--shards", str(tasks), "--rounds", "1"]
        subprocess.run([*command, "--json", where], check=True, stdout=subprocess.DEVNULL)
        with open(where) as file:
            return tasks / json.load(file)["shards_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", metavar="PATH", help="the program tessera-bench, to measure a hub too")
    parser.add_argument("--agents", type=int, default=200, help="agents of the hub")
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    tasks = arguments.tasks
    contenders = {
        "Dask distributed": lambda: dask(tasks),
        "Ray": lambda: ray(tasks),
        "Redis lists, one by one": lambda: redis_lists(tasks, 1),
        "Redis lists, 256 at once": lambda: redis_lists(tasks, 256),
    }
    if arguments.tessera:
        contenders["Tessera"] = lambda: tessera(arguments.tessera, tasks, arguments.agents)
    rates, absent = {}, {}
    for _ in range(arguments.rounds):
        for name, run in contenders.items():
            if name in absent:
                continue
            try:
                rates.setdefault(name, []).append(tasks / run())
            except ImportError as error:
                absent[name] = str(error)
                rates.pop(name, None)
    best = statistics.median(rates["Tessera"]) if "Tessera" in rates else None
    print(f"{tasks} tasks that do nothing, {arguments.rounds} rounds, tasks a second")
    for name, found in rates.items():
        median = statistics.median(found)
        ratio = f"   Tessera is {best / median:.1f} times that" if best and name != "Tessera" else ""
        print(f"{name:<26} {median:>10.0f}   {min(found):.0f} to {max(found):.0f}{ratio}")
    for name, why in absent.items():
        print(f"{name:<26} not measured: {why}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"tasks": tasks, "tasks_per_second": rates, "absent": absent}, file, indent=2)


if __name__ == "__main__":
    main()
