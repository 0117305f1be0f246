//! A lane with agents here and there, and a job that only some of them may run.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use tessera_planners::Plan;
use tessera_protocol::explain::{JobExplained, LaneExplained};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, Tick, UnixMillis};
use tessera_protocol::wire::{Gpu, Hello};

use crate::event::Sent;
use crate::lane::{Config, Lane};
use crate::{Account, Answer, Effect, Event, NewJob, RequestId, SessionId, ShardAnswer};

struct World {
    lane: Lane,
    now: u64,
    job: JobId,
    /// Who was given a shard, by session.
    given: Vec<u64>,
    /// The last attempt.
    attempt: Option<(ShardIndex, Epoch)>,
    waiting: Option<String>,
    explained: Option<LaneExplained>,
}

impl World {
    /// A hub to which a job was submitted, and its agents' regions: their sessions are numbered from zero.
    fn new(requirements: &str, regions: &[&str]) -> World {
        let config = Config {
            lane: LaneIndex(0),
            lanes: 1,
            sampling_key: [7; 32],
            unix_origin: UnixMillis(1_763_000_000_000),
        };
        let (lane, job) = (Lane::new(config), JobId::new(1, [1; 10]));
        let mut world =
            World { lane, now: 1, job, given: Vec::new(), attempt: None, waiting: None, explained: None };
        for (number, region) in regions.iter().enumerate() {
            let number = number as u64;
            let hello = Hello {
                token: None,
                name: "agent".to_string(),
                version: "0".to_string(),
                slots: 1,
                isa: "plain".to_string(),
                arch: "none".to_string(),
                memory_bytes: 1 << 30,
                kernels: Vec::from(["monte_carlo".to_string()]),
                region: region.to_string(),
            };
            let (session, agent) = (SessionId(number), AgentId::of_key(&[number as u8; 32]));
            let (account, hello) = (Account::operator(), Box::new(hello));
            world.step(Event::AgentAdmitted { session, agent, account, hello });
        }
        world.submit(job, requirements);
        world
    }

    fn submit(&mut self, id: JobId, requirements: &str) {
        let text = alloc::format!(
            r#"{{"name":"job","workload":"monte_carlo","params":{{"model":"pi","paths":10,"shard_size":10}},
                "requirements":{requirements}}}"#
        );
        let manifest = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check).unwrap();
        let (plan, created) = (Plan::new(&manifest, 0).unwrap(), UnixMillis(1_763_000_000_000));
        let job = NewJob { id, manifest, plan, created, base: None, idempotency_key: None };
        self.step(Event::JobSubmitted { request: RequestId(0), job: Arc::new(job) });
    }

    fn step(&mut self, event: Event) {
        let mut events = Vec::from([event]);
        while let Some(event) = events.pop() {
            for effect in self.lane.step(Tick(self.now), event) {
                match effect {
                    Effect::Persist { batch, .. } => events.push(Event::Committed { batch }),
                    Effect::Assign { session, items, .. } => {
                        self.given.push(session.0);
                        self.attempt = items.last().map(|item| (ShardIndex(item.index), Epoch(item.epoch)));
                    }
                    Effect::PublishJob { view } => self.waiting = view.waiting,
                    Effect::TellLane { message, .. } => {
                        events.push(Event::LaneSpoke { from: LaneIndex(0), message });
                    }
                    Effect::Answer { answer: Answer::JobExplained(_, lane), .. } => {
                        self.explained = lane.map(|lane| *lane);
                    }
                    _ => {}
                }
            }
            self.lane.invariants();
        }
    }

    fn offers(&mut self, session: u64, memory_bytes: u64) {
        self.offers_called(session, "a GPU", memory_bytes);
    }

    fn offers_called(&mut self, session: u64, name: &str, memory_bytes: u64) {
        let (name, driver) = (name.to_string(), "12.4".to_string());
        let gpus = Vec::from([Gpu { name, memory_bytes, compute_capability: [9, 0], driver }]);
        self.step(Event::DevicesOffered { session: SessionId(session), gpus });
    }

    /// The first line of `tessera job explain`, and what each agent lacks.
    fn said(&mut self) -> (String, Vec<String>) {
        self.step(Event::JobExplanationRequested { request: RequestId(1), job: self.job });
        let lane = self.explained.take().unwrap();
        let mut lacks: Vec<String> =
            lane.agents.iter().flat_map(|fit| fit.lacks.iter().map(ToString::to_string)).collect();
        lacks.sort_unstable();
        let home = self.lane_home();
        (JobExplained::new(self.job, Some(home), Vec::from([lane])).summary, lacks)
    }

    fn lane_home(&self) -> tessera_protocol::explain::HomeExplained {
        let (stuck, stuck_count) = (Vec::new(), 0);
        tessera_protocol::explain::HomeExplained { lane: 0, shards_todo: 1, stuck, stuck_count }
    }
}

#[test]
fn a_shard_goes_to_the_region_that_its_job_names() {
    let mut world = World::new(r#"{"regions":["eu","us"]}"#, &["", "asia", "us"]);
    assert_eq!(world.given, [2]);
    // The job is shown again in a moment.
    world.now = 2_000;
    world.step(Event::TimePassed);
    assert_eq!(world.waiting, None);
}

#[test]
fn a_job_for_a_region_without_agents_waits_and_says_so() {
    let mut world = World::new(r#"{"regions":["eu"]}"#, &["", "us"]);
    assert!(world.given.is_empty());
    assert_eq!(
        world.waiting.as_deref(),
        Some(
            "no agent is free that has what it requires, a place in eu: `tessera job explain` says what each lacks"
        )
    );
    let (summary, lacks) = world.said();
    assert_eq!(summary, "waits: no agent that has the kernel and the memory has a place in eu");
    assert_eq!(lacks, ["does not say its region", "is in us"]);
}

#[test]
fn a_job_that_needs_a_gpu_waits_for_one_with_the_memory() {
    let mut world = World::new(r#"{"gpu_memory_bytes":16000000000}"#, &["", ""]);
    assert!(world.given.is_empty());
    world.offers(0, 8 << 30);
    assert!(world.given.is_empty(), "it is too small");
    let (summary, lacks) = world.said();
    assert_eq!(
        summary,
        "waits: no agent that has the kernel and the memory has a GPU of at least 16000000000 bytes"
    );
    assert_eq!(lacks, ["has no GPU", "has no GPU of more than 8589934592 bytes"]);
    world.offers(1, 16 << 30);
    assert_eq!(world.given, [1]);
}

#[test]
fn any_gpu_will_do_for_a_job_that_does_not_say_how_large() {
    let mut world = World::new(r#"{"gpu":true}"#, &["", ""]);
    world.offers(1, 0);
    assert_eq!(world.given, [1]);
}

#[test]
fn a_job_that_names_models_of_gpu_waits_for_one_of_them_with_the_memory() {
    let mut world =
        World::new(r#"{"gpu_models":["h100","H200"],"gpu_memory_bytes":16000000000}"#, &["", "", ""]);
    world.offers_called(0, "NVIDIA A100-SXM4-80GB", 80 << 30);
    world.offers_called(1, "NVIDIA H100 MIG 1g.10gb", 10 << 30);
    assert!(world.given.is_empty());
    let (summary, lacks) = world.said();
    assert_eq!(
        summary,
        "waits: no agent that has the kernel and the memory has a GPU called h100 or H200 of at least 16000000000 bytes"
    );
    let expected = [
        "has no GPU",
        "has no GPU of more than 10737418240 bytes",
        "has no such GPU but NVIDIA A100-SXM4-80GB",
    ];
    assert_eq!(lacks, expected);
    world.offers_called(2, "NVIDIA H200", 141 << 30);
    assert_eq!(world.given, [2]);
}

#[test]
fn a_digest_that_does_not_fit_what_was_sent_is_a_failure_whatever_digest_comes_after_it() {
    let mut world = World::new("{}", &["", ""]);
    let (index, epoch) = world.attempt.expect("a shard was given");
    let (session, job) = (SessionId(world.given[0]), world.job);
    let partial = Bytes::from_static(b"a long result");
    let answer = |of: &[u8]| ShardAnswer { index, epoch, partial: Sent::Elsewhere(Digest::of(of)) };
    let answers = Vec::from([answer(b"another result"), answer(&partial)]);
    world.step(Event::PartialArrived { session, job, index, epoch, partial });
    world.step(Event::ResultsArrived { session, job, answers });
    assert_eq!(world.lane.counts().failed, 1);
}

#[test]
fn what_ran_out_takes_its_part_of_the_credit_while_it_may_be_under_way() {
    let mut world = World::new("{}", &[""]);
    [2, 3].into_iter().for_each(|number| world.submit(JobId::new(number, [1; 10]), "{}"));
    assert_eq!(world.given, [0, 0], "it may hold two");
    // It says that it holds nothing, since it has not got them yet.
    let heartbeat_at = |world: &mut World, now| {
        world.now = now;
        world.step(Event::HeartbeatArrived { session: SessionId(0), holding: Vec::new() });
        world.step(Event::TimePassed);
        world.given.len()
    };
    let given = [20_000, 31_000, 32_000, 45_000, 60_000].map(|now| heartbeat_at(&mut world, now));
    assert_eq!(given, [2; 5]);
    assert_eq!(heartbeat_at(&mut world, 62_000), 4, "by now it would have got them");
}
