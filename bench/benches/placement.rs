//! Placements per second of one lane: a job of each project opens, and every agent of the lane is filled.
//!
//! Measures the whole step, granting included: with 1,000 and 10,000 agents, of 1 and 100 projects, where every agent
//! has the kernel and where one in a hundred has, the others being free beside it.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::{Account, Effect, Event, NewJob, RequestId, SessionId};
use tessera_planners::Plan;
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::{LaneIndex, Tick, UnixMillis};
use tessera_protocol::wire::Hello;

/// A lane with agents, and jobs that are written but not committed.
fn lane(agents: u32, one_in: u32, projects: u32) -> (Lane, Vec<Event>) {
    let (lane, lanes, unix_origin) = (LaneIndex(0), 1, UnixMillis(0));
    let mut machine = Lane::new(Config { lane, lanes, sampling_key: [7; 32], unix_origin });
    for number in 0..agents {
        let kernels = ["monte_carlo", "gemm"];
        let kernels = &kernels[..if number % one_in == 0 { 2 } else { 1 }];
        let hello = Hello {
            token: None,
            name: format!("agent {number}"),
            version: "0".to_owned(),
            slots: 1,
            isa: "plain".to_owned(),
            arch: "none".to_owned(),
            memory_bytes: 1 << 34,
            kernels: kernels.iter().map(ToString::to_string).collect(),
            region: String::new(),
        };
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let event = Event::AgentAdmitted {
            session: SessionId(u64::from(number)),
            agent: AgentId::of_key(&key),
            account: Account::of_provider(ProviderId::of_name(&format!("provider {}", number % 20))),
            hello: hello.into(),
        };
        machine.step(Tick(0), event).for_each(drop);
    }
    let mut commits = Vec::new();
    for number in 0..projects {
        let text = format!(
            r#"{{"name":"job","project":"p{number}","workload":"gemm","params":{{"tile":64,"k_panel":1024,
                "a":{{"random":"uniform","rows":16384,"cols":1024}},
                "b":{{"random":"uniform","rows":1024,"cols":16384}}}}}}"#
        );
        let spec = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check);
        let manifest = spec.unwrap_or_else(|error| panic!("a right job: {error}"));
        let plan = Plan::new(&manifest, 0).expect("a plan");
        let (id, created) = (JobId::new(1, [number as u8; 10]), UnixMillis(0));
        let job = NewJob { id, manifest, plan, created, base: None, idempotency_key: None };
        let event = Event::JobSubmitted { request: RequestId(0), job: Arc::new(job) };
        commits.extend(machine.step(Tick(0), event).filter_map(|effect| match effect {
            Effect::Persist { batch, .. } => Some(Event::Committed { batch }),
            _ => None,
        }));
    }
    (machine, commits)
}

/// Opens the jobs; says how many shards were handed out.
fn fill(machine: &mut Lane, commits: Vec<Event>) -> u64 {
    let assigned = |effect: Effect| match effect {
        Effect::Assign { items, .. } => items.len() as u64,
        _ => 0,
    };
    commits.into_iter().map(|event| machine.step(Tick(1), event).map(assigned).sum::<u64>()).sum()
}

fn placements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placements");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for (one_in, able) in [(1, "every agent able"), (100, "one in a hundred able")] {
        for agents in [1_000, 10_000] {
            for projects in [1, 100] {
                let (mut machine, commits) = lane(agents, one_in, projects);
                let placed = fill(&mut machine, commits);
                assert_eq!(placed, u64::from(agents.div_ceil(one_in)) * 2, "credit is two for each slot");
                group.throughput(Throughput::Elements(placed));
                group.bench_function(format!("{able}, {agents} agents, {projects} projects"), |bencher| {
                    bencher.iter_batched(
                        || lane(agents, one_in, projects),
                        |(mut machine, commits)| {
                            let placed = fill(&mut machine, commits);
                            (machine, placed)
                        },
                        BatchSize::PerIteration,
                    );
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, placements);
criterion_main!(benches);
