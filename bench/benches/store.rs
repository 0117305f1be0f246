//! The embedded store under what a hub writes: how fast completions become durable, what a commit takes, what a
//! shard takes on disk, and how long a hub with open shards needs to serve again after a crash.
//!
//! A program of its own and not one of `criterion`'s: percentiles and sizes are what it tells. Writes below the
//! current directory, so that the disk is the one you mean and not memory. One part runs where it is named:
//! `cargo bench -p tessera-bench --bench store -- commits`, `size` or `restart`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tessera_bench::one_call;
use tessera_hub::records;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::ranges::Ranges;
use tessera_hub_core::{Bill, Event, NewJob, Payment, Progress, Record, RequestId};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::Plan;
use tessera_protocol::api::JobView;
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::receipt::Service;
use tessera_protocol::spec::JobSpec;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{ComputeUnits, LaneIndex, ShardIndex, ShardRange, Tick, UnixMillis};
use tessera_storage::{Batch, Commit, Embedded, Engine};

/// Agents that a job's shards are spread over, of 8 providers.
const AGENTS: u64 = 64;
/// Shards in flight: what lies between done ones in a record of progress.
const IN_FLIGHT: u64 = 200;
const SHARD_PATHS: u64 = 100;

struct Job {
    new: Arc<NewJob>,
    view: JobView,
}

fn lane() -> Lane {
    Lane::new(Config { lane: LaneIndex(0), lanes: 1, sampling_key: [7; 32], unix_origin: UnixMillis(0) })
}

/// A job as a lane accepts it.
fn job(number: u64, spec: &str) -> Job {
    let manifest = JobSpec::from_json(spec.as_bytes()).and_then(JobSpec::check).expect("a right job");
    let plan = Plan::new(&manifest, 0).expect("a plan");
    let mut random = [0; 10];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let (id, created) = (JobId::new(1, random), UnixMillis(1));
    let new = Arc::new(NewJob { id, manifest, plan, created, base: None, idempotency_key: None });
    let mut machine = lane();
    let effects: Vec<_> =
        machine.step(Tick(0), Event::JobSubmitted { request: RequestId(0), job: new.clone() }).collect();
    let view = effects.into_iter().find_map(|effect| match effect {
        tessera_hub_core::Effect::Persist { record: Record::JobAccepted { view, .. }, .. } => Some(view),
        _ => None,
    });
    Job { new, view: *view.expect("the job is accepted") }
}

fn book(number: u64, shards: u64) -> Job {
    let paths = shards * SHARD_PATHS;
    let spec = format!(
        r#"{{"name":"book","project":"p{}","workload":"monte_carlo","seed":{number},"params":{{"model":"gbm",
            "paths":{paths},"shard_size":{SHARD_PATHS},"book":[{{"id":"call","kind":"european_call",
            "underlying":"ACME","spot":100,"strike":105,"rate":0.04,"volatility":0.2,"expiry":1.0}}]}}}}"#,
        number / 1_000
    );
    job(number, &spec)
}

/// Square tiles of 16 in one panel.
fn product(tiles: u64) -> Job {
    let rows = 16 * tiles.min(1_000);
    let cols = 16 * tiles.div_ceil(1_000);
    let spec = format!(
        r#"{{"name":"product","workload":"gemm","params":{{"dtype":"f32","tile":[16,16],"k_panel":32,
            "a":{{"random":"uniform","rows":{rows},"cols":32}},"b":{{"random":"uniform","rows":32,"cols":{cols}}}}}}}"#
    );
    job(0, &spec)
}

fn tally() -> Arc<Tally> {
    let run = monte_carlo::run(&one_call(), Isa::detect(), 0, SHARD_PATHS, &|| false);
    Arc::new(run.expect("the kernel runs"))
}

fn accepted(job: &Job) -> Batch {
    records::batch_of(&Record::JobAccepted { job: job.new.clone(), view: Box::new(job.view.clone()) })
}

fn payment(index: u64) -> Payment {
    let agent = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % AGENTS;
    Payment {
        provider: ProviderId::of_name(&format!("provider {}", agent % 8)),
        agent: AgentId::of_key(&[agent as u8; 32]),
        service: Service::Shard,
        index: ShardIndex(index),
        digest: Digest([index as u8; 32]),
        cost: ComputeUnits(SHARD_PATHS),
    }
}

/// What a lane writes when so many shards are done, of which `fresh` no record has yet.
fn progressed(job: &Job, tally: &Arc<Tally>, done: &Ranges, fresh: &[u64], page: u64) -> Batch {
    let mut bill = Bill::open(job.new.manifest.spec().verify, &job.new.plan).charges().clone();
    let payments: Vec<Payment> = fresh.iter().map(|index| payment(*index)).collect();
    if !payments.is_empty() {
        bill.paid = tessera_hub_core::ledger::earnings(&payments);
        (bill.pages, bill.fresh) = (page + 1, BTreeMap::from([(page, payments)]));
    }
    let progress = Progress {
        done: done.clone(),
        tally: Some(tally.clone()),
        earlier: Vec::new(),
        view: JobView { shards_done: done.count(), ..job.view.clone() },
        plan: job.new.plan.digest(),
        round: job.new.plan.round().clone(),
        products: BTreeMap::new(),
        bill,
    };
    records::batch_of(&Record::JobProgressed { job: job.new.id, progress: Box::new(progress) })
}

/// Shards in the order in which a fleet ends them: nearly, but not quite, ascending.
fn completions(shards: u64) -> impl Iterator<Item = u64> {
    (0..shards).step_by(IN_FLIGHT as usize).flat_map(move |start| {
        let end = shards.min(start + IN_FLIGHT);
        (start..end).step_by(2).chain((start + 1..end).step_by(2))
    })
}

fn commit(engine: &dyn Engine, batches: Vec<Batch>) -> Duration {
    let started = Instant::now();
    let outcomes = engine.commit_all(batches);
    let took = started.elapsed();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Commit::Done))), "{outcomes:?}");
    took
}

fn folder() -> TempDir {
    TempDir::with_prefix_in("store-bench-", ".").expect("the current directory can be written")
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3
}

fn line(what: &str, each: u64, mut took: Vec<Duration>, elapsed: Duration) {
    took.sort_unstable();
    let rate = (each * took.len() as u64) as f64 / elapsed.as_secs_f64();
    let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
    println!("{what:<44} {rate:>10.0} a second   commit p50 {p50:>7.2} ms   p99 {p99:>7.2} ms");
}

/// How fast promises become durable.
fn commits() {
    let tally = tally();
    for (window, rounds) in [(1, 400), (100, 400), (1_000, 400), (10_000, 100)] {
        let folder = folder();
        let engine = Embedded::open(folder.path()).expect("a store");
        let job = book(0, window * rounds);
        commit(&engine, vec![accepted(&job)]);
        let order: Vec<u64> = completions(window * rounds).collect();
        let (mut done, mut took) = (Ranges::default(), Vec::new());
        let started = Instant::now();
        for (page, fresh) in (0..).zip(order.chunks(window as usize)) {
            fresh.iter().for_each(|index| done.insert(ShardRange { start: *index, end: *index + 1 }));
            took.push(commit(&engine, vec![progressed(&job, &tally, &done, fresh, page)]));
        }
        line(&format!("completions, {window} to a record"), window, took, started.elapsed());
    }
    for group in [1, 16, 128] {
        let folder = folder();
        let engine = Embedded::open(folder.path()).expect("a store");
        let rounds = if group == 128 { 100 } else { 400 };
        let mut took = Vec::new();
        let mut elapsed = Duration::ZERO;
        for round in 0..rounds {
            let jobs: Vec<Job> = (0..group).map(|number| book(round * group + number, 20)).collect();
            let started = Instant::now();
            took.push(commit(&engine, jobs.iter().map(accepted).collect()));
            elapsed += started.elapsed();
        }
        line(&format!("jobs accepted, {group} to a commit"), group, took, elapsed);
    }
}

/// What a million shards take on disk.
fn size() {
    const SHARDS: u64 = 1_000_000;
    const WINDOW: usize = 1_000;
    let folder = folder();
    let engine = Embedded::open(folder.path()).expect("a store");
    let (tally, job) = (tally(), book(0, SHARDS));
    commit(&engine, vec![accepted(&job)]);
    let order: Vec<u64> = completions(SHARDS).collect();
    let mut done = Ranges::default();
    let started = Instant::now();
    for (page, fresh) in (0..).zip(order.chunks(WINDOW)) {
        fresh.iter().for_each(|index| done.insert(ShardRange { start: *index, end: *index + 1 }));
        commit(&engine, vec![progressed(&job, &tally, &done, fresh, page)]);
    }
    let elapsed = started.elapsed();
    let mut kept = 0;
    let snapshot = engine.snapshot().expect("readable");
    let everything = tessera_storage::KeyRange::prefix([]);
    snapshot.walk(&everything, &mut |entry| kept += entry.key.len() + entry.value.len()).expect("readable");
    drop(snapshot);
    drop(engine);
    let file = file_bytes(folder.path());
    println!(
        "{SHARDS} shards, {WINDOW} to a record: {:.0} a second; keys and values {kept} bytes, {:.2} a shard; file \
         {file} bytes, {:.2} a shard",
        SHARDS as f64 / elapsed.as_secs_f64(),
        kept as f64 / SHARDS as f64,
        file as f64 / SHARDS as f64
    );
}

fn file_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    files.map(|entry| entry.metadata().expect("a file").len()).sum()
}

/// Fills a store; the shape of what a crash leaves open. Nothing is paid in it: recovery compares no pages.
type Fill = fn(&dyn Engine, u64);

fn fill_one_job(engine: &dyn Engine, shards: u64) {
    let job = book(0, shards);
    commit(engine, vec![accepted(&job)]);
    let done = half_done(shards);
    commit(engine, vec![progressed(&job, &tally(), &done, &[], 0)]);
}

fn fill_many_jobs(engine: &dyn Engine, shards: u64) {
    let tally = tally();
    for start in (0..shards / 1_000).step_by(100) {
        let jobs: Vec<Job> =
            (start..(start + 100).min(shards / 1_000)).map(|number| book(number, 1_000)).collect();
        commit(engine, jobs.iter().map(accepted).collect());
        let done = half_done(1_000);
        commit(engine, jobs.iter().map(|job| progressed(job, &tally, &done, &[], 0)).collect());
    }
}

fn half_done(shards: u64) -> Ranges {
    let mut done = Ranges::of(ShardRange { start: 0, end: shards / 2 });
    let holes = shards / 2..(shards / 2 + IN_FLIGHT).min(shards);
    holes.step_by(2).for_each(|index| done.insert(ShardRange { start: index, end: index + 1 }));
    done
}

/// One tile in ten is there.
fn fill_product(engine: &dyn Engine, tiles: u64) {
    let job = product(tiles);
    commit(engine, vec![accepted(&job)]);
    let plan = job.new.plan.digest();
    let finished: Vec<u64> = (0..tiles).step_by(10).collect();
    for part in finished.chunks(1_000) {
        let batch = |tile: &u64| {
            let (bytes, earned): (Arc<[u8]>, _) = ([7; 16 * 16 * 4].into(), vec![payment(*tile)]);
            records::batch_of(&Record::TileReduced { job: job.new.id, plan, tile: *tile, bytes, earned })
        };
        commit(engine, part.iter().map(batch).collect());
    }
}

/// How long a hub takes from its start to machines that know every open shard.
fn restart() {
    let shapes: [(&str, u64, Fill); 3] = [
        ("one job, half done", 1_000, fill_one_job),
        ("jobs of 1,000 shards, half done", 1_000, fill_many_jobs),
        ("one product, a tenth of its tiles done", 1_000, fill_product),
    ];
    for (shape, smallest, fill) in shapes {
        for shards in [smallest, 10 * smallest, 100 * smallest, 1_000 * smallest] {
            let (running, crashed) = (folder(), folder());
            let engine = Embedded::open(running.path()).expect("a store");
            fill(&engine, shards);
            // As a kill leaves it: copied while it is open.
            let name = "store.redb";
            std::fs::copy(running.path().join(name), crashed.path().join(name)).expect("copied");
            drop(engine);
            serve_again(shape, shards, crashed.path());
        }
    }
}

fn serve_again(shape: &str, shards: u64, folder: &Path) {
    let started = Instant::now();
    let engine = Embedded::open(folder).expect("it opens after a crash");
    let opened = started.elapsed();
    let recovered = records::recover(&*engine.snapshot().expect("readable")).expect("recovered");
    let read = started.elapsed();
    let jobs = recovered.open.len();
    let mut machine = lane();
    for (job, progress) in recovered.open {
        let event = Event::JobRecovered { job, progress: progress.map(Box::new), panels: Vec::new() };
        machine.step(Tick(0), event).for_each(drop);
    }
    let total = started.elapsed();
    println!(
        "{shards:>9} shards, {shape}: {:.3} s ({jobs} jobs; open {:.3}, records {:.3}, machine {:.3}; file {:.1} MB)",
        total.as_secs_f64(),
        opened.as_secs_f64(),
        (read - opened).as_secs_f64(),
        (total - read).as_secs_f64(),
        file_bytes(folder) as f64 / 1e6
    );
}

fn main() {
    // `cargo bench` adds an argument of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, fn()); 3] = [("commits", commits), ("size", size), ("restart", restart)];
    for (name, part) in parts {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}
