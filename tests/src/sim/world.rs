//! The world of a run: lanes, agents, links and store on one clock, and the faults between them.

mod agents;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use tessera_agent_core::Event as AgentEvent;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::record::Base;
use tessera_hub_core::{
    Answer, BatchId, Effect, Event, LaneMessage, NewJob, Outcome, Planted, Record, RequestId, home_lane,
};
use tessera_planners::Plan;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::unit::{LaneIndex, Tick, UnixMillis};

use super::agent::{Agent, Kind};
use super::checker::{self, Violation};
use super::random::Random;
use super::store::{Commit, Store};

/// When faults stop and the world heals. *Units*: simulated milliseconds.
const FAULTS_UNTIL_MS: u64 = 60_000;
/// When every job must have ended.
const END_MS: u64 = 600_000;
/// Steps after which a run counts as stuck in a loop.
const STEPS_MAX: u64 = 2_000_000;

/// What a run is made of besides its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// A bug to plant in the hub, which the checkers must find.
    pub planted: Option<Planted>,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Names every event of the run: equal runs have equal traces.
    pub trace: Digest,
    /// Steps of all lanes.
    pub steps: u64,
    /// Times the hub crashed.
    pub crashes: u64,
    /// Jobs that ended with a result.
    pub done: u64,
}

/// Fault rates of one seed, each drawn on its own so that runs differ in kind and not only in luck.
#[derive(Clone, Debug)]
struct Swarm {
    lanes: u16,
    agents: u8,
    liar: bool,
    clumsy: Option<Kind>,
    drop: u64,
    duplicate: u64,
    delay_ms: u64,
    agent_crash: u64,
    freeze: u64,
    hub_crash: u64,
    commit_fails: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Due {
    Hub {
        life: u64,
        lane: u16,
        event: Event,
    },
    Timer {
        life: u64,
        lane: u16,
    },
    Commit {
        life: u64,
        lane: u16,
        batch: BatchId,
        record: Box<Record>,
    },
    /// Something reaches an agent's process, over the session it names if any.
    Agent {
        agent: usize,
        life: u64,
        session: Option<u64>,
        event: Box<AgentEvent>,
    },
    AgentTimer {
        agent: usize,
        life: u64,
    },
    AgentTrouble,
    HubTrouble,
    Heal,
    Submit {
        number: u64,
    },
    Extend {
        number: u64,
    },
    Cancel {
        number: u64,
    },
}

struct World {
    random: Random,
    swarm: Swarm,
    settings: Settings,
    now: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    things: BTreeMap<u64, Due>,
    made: u64,
    life: u64,
    lanes: Vec<Lane>,
    links: BTreeMap<(u64, u64), u64>,
    agents: Vec<Agent>,
    sessions: u64,
    store: Store,
    submitted: BTreeMap<u64, JobId>,
    trace: Vec<u8>,
    report: Report,
}

/// Runs a seed to its end, or to the first broken promise.
///
/// *Panics*: where the hub itself asserts.
pub fn run(seed: u64, settings: Settings) -> Result<Report, Violation> {
    let mut world = World::new(seed, settings);
    world.populate();
    while let Some(Reverse((at, number))) = world.due.pop() {
        if at > END_MS {
            break;
        }
        assert!(world.report.steps < STEPS_MAX, "seed {seed} does not come to rest");
        world.now = at;
        let due = world.things.remove(&number).expect("every number in the queue has its thing");
        world.happen(due)?;
    }
    checker::ended(&world.store)?;
    world.report.done = world.store.jobs.len() as u64;
    world.report.trace = Digest::of(&world.trace);
    Ok(world.report)
}

impl World {
    fn new(seed: u64, settings: Settings) -> World {
        let mut random = Random::new(seed);
        let rate = |random: &mut Random, most: u64| if random.chance(500) { random.below(most) } else { 0 };
        let swarm = Swarm {
            lanes: 1 + random.below(3) as u16,
            agents: 1 + random.below(6) as u8,
            liar: random.chance(300),
            clumsy: [None, None, Some(Kind::Garbler), Some(Kind::Failer)][random.below(4) as usize],
            drop: rate(&mut random, 100),
            duplicate: rate(&mut random, 200),
            delay_ms: 1 + rate(&mut random, 3000),
            agent_crash: rate(&mut random, 300),
            freeze: rate(&mut random, 100),
            hub_crash: rate(&mut random, 200),
            commit_fails: rate(&mut random, 300),
        };
        let report = Report { trace: Digest([0; 32]), steps: 0, crashes: 0, done: 0 };
        let mut world = World {
            random,
            swarm,
            settings,
            now: 0,
            due: BinaryHeap::new(),
            things: BTreeMap::new(),
            made: 0,
            life: 0,
            lanes: Vec::new(),
            links: BTreeMap::new(),
            agents: Vec::new(),
            sessions: 0,
            store: Store::default(),
            submitted: BTreeMap::new(),
            trace: Vec::new(),
            report,
        };
        world.start_hub();
        world
    }

    /// Agents, jobs and troubles. Three honest agents outnumber a liar, whose jobs are checked whole.
    fn populate(&mut self) {
        let agents = if self.swarm.liar { self.swarm.agents.max(5) } else { self.swarm.agents };
        for number in 0..agents {
            let kind = match number {
                0 if self.swarm.liar => Kind::Liar,
                1 => self.swarm.clumsy.unwrap_or(Kind::Honest),
                _ => Kind::Honest,
            };
            let pace = 1 + self.random.below(400);
            self.agents.push(Agent::new(number, kind, pace));
            let at = self.random.below(2_000);
            self.reach_agent(at, usize::from(number), None, AgentEvent::Started);
        }
        for number in 0..1 + self.random.below(4) {
            let at = self.random.below(20_000);
            self.at(at, Due::Submit { number });
            if self.random.chance(200) {
                let at = at + self.random.below(5_000);
                self.at(at, Due::Submit { number });
            }
            if self.random.chance(100) {
                let at = at + self.random.below(30_000);
                self.at(at, Due::Cancel { number });
            }
            if self.random.chance(300) {
                let at = at + 20_000 + self.random.below(60_000);
                self.at(at, Due::Extend { number });
            }
        }
        self.at(FAULTS_UNTIL_MS, Due::Heal);
        for at in (0..FAULTS_UNTIL_MS).step_by(1_000) {
            self.at(at, Due::AgentTrouble);
            self.at(at + 500, Due::HubTrouble);
        }
    }

    fn at(&mut self, at: u64, due: Due) {
        self.made += 1;
        self.due.push(Reverse((at, self.made)));
        self.things.insert(self.made, due);
    }

    fn faulty(&self) -> bool {
        self.now < FAULTS_UNTIL_MS
    }

    /// A moment after a link's delay, never before what the same link carried earlier.
    fn in_order(&mut self, from: u64, to: u64) -> u64 {
        let delay = self.random.below(self.swarm.delay_ms / 10 + 2);
        let last = self.links.entry((from, to)).or_default();
        *last = (*last).max(self.now + delay);
        *last
    }

    fn any_order(&mut self) -> u64 {
        self.now + self.random.below(self.swarm.delay_ms)
    }

    // --- the hub --------------------------------------------------------------------------------

    fn start_hub(&mut self) {
        self.lanes = (0..self.swarm.lanes)
            .map(|lane| {
                let mut made = Lane::new(Config {
                    lane: LaneIndex(lane),
                    lanes: self.swarm.lanes,
                    sampling_key: [7; 32],
                    unix_origin: UnixMillis(1_763_000_000_000),
                });
                made.plant(self.settings.planted);
                made
            })
            .collect();
        self.links.clear();
        let open: Vec<Event> = self
            .store
            .jobs
            .values()
            .filter(|stored| stored.end.is_none())
            .map(|stored| Event::JobRecovered {
                job: stored.job.clone(),
                progress: stored.progress.clone().map(Box::new),
            })
            .collect();
        for event in open {
            let Event::JobRecovered { job, .. } = &event else {
                continue;
            };
            let lane = home_lane(job.id, self.swarm.lanes).0;
            let life = self.life;
            let now = self.now;
            self.at(now, Due::Hub { life, lane, event });
        }
    }

    fn crash_hub(&mut self) {
        self.life += 1;
        self.report.crashes += 1;
        self.start_hub();
        for agent in 0..self.agents.len() {
            if self.agents[agent].session.is_some() {
                let at = self.any_order();
                self.lose_session(at, agent);
            }
        }
    }

    fn step(&mut self, lane: u16, event: Event) -> Result<(), Violation> {
        self.report.steps += 1;
        self.trace.extend(format!("{} {lane} {event:?}\n", self.now).into_bytes());
        let machine = &mut self.lanes[usize::from(lane)];
        let effects: Vec<Effect> = machine.step(Tick(self.now), event).collect();
        machine.invariants();
        if let Some(at) = machine.next_timer() {
            let (life, at) = (self.life, at.0.max(self.now + 1));
            self.at(at, Due::Timer { life, lane });
        }
        effects.into_iter().try_for_each(|effect| self.carry_out(lane, effect))
    }

    fn carry_out(&mut self, lane: u16, effect: Effect) -> Result<(), Violation> {
        let life = self.life;
        match effect {
            Effect::Persist { batch, record } => {
                let at = self.in_order(1_000 + u64::from(lane), 999);
                self.at(at, Due::Commit { life, lane, batch, record: Box::new(record) });
            }
            Effect::Answer { request, answer } => self.answered(request, answer)?,
            Effect::TellLane { lane: to, message } => {
                let at = self.in_order(u64::from(lane), u64::from(to.0));
                self.tell(at, lane, to.0, message);
            }
            Effect::Welcome { session, welcome } => {
                self.tell_agent(session, AgentEvent::Welcomed(welcome));
            }
            Effect::SendJob { session, job, kernel, task } => {
                let (kernel, bulk) = (kernel.to_owned(), self.random.chance(300));
                let inline = (!bulk).then(|| task.to_vec());
                self.tell_agent(session, AgentEvent::JobAnnounced { job, kernel, task: inline });
                if let Some(agent) = self.agent_of(session.0).filter(|_| bulk) {
                    // The agent reads nothing else before its welcome, which went ahead of this.
                    let at = self.any_order().max(self.in_order(2_000, session.0 + 10_000));
                    let event = AgentEvent::TaskArrived { job, task: task.to_vec() };
                    self.reach_agent(at, agent, Some(session.0), event);
                }
            }
            Effect::Assign { session, job, assignment } => {
                let lost = self.faulty() && self.random.chance(self.swarm.drop);
                if !lost {
                    let items = vec![assignment];
                    self.tell_agent(session, AgentEvent::ShardsAssigned { job, items });
                }
            }
            Effect::Forget { session, job } => self.tell_agent(session, AgentEvent::JobForgotten { job }),
            Effect::TellDraining { session } => self.tell_agent(session, AgentEvent::HubDrained),
            Effect::CloseSession { session, .. } => {
                if let Some(agent) = self.agent_of(session.0) {
                    let at = self.any_order();
                    self.lose_session(at, agent);
                }
            }
            Effect::PublishJob { view } => checker::shown(&self.store, &view)?,
            Effect::PublishAgent { .. } | Effect::PublishAgentAway { .. } => {}
        }
        Ok(())
    }

    fn tell(&mut self, at: u64, from: u16, to: u16, message: LaneMessage) {
        let event = Event::LaneSpoke { from: LaneIndex(from), message };
        let life = self.life;
        self.at(at, Due::Hub { life, lane: to, event });
    }

    fn answered(&mut self, request: RequestId, answer: Answer) -> Result<(), Violation> {
        match answer {
            Answer::Accepted(view) => {
                checker::heard_of(&self.store, view.id)?;
                let earlier = self.submitted.insert(request.0, view.id);
                match earlier {
                    Some(earlier) if earlier != view.id => return Err(Violation::SubmittedTwice(view.id)),
                    Some(_) | None => {}
                }
            }
            Answer::Replayed { job, .. } => {
                checker::heard_of(&self.store, job)?;
                self.submitted.insert(request.0, job);
            }
            Answer::Cancelled(view) => checker::shown(&self.store, &view)?,
            Answer::StoreFailing => {
                // What a client does: it tries again with the same key.
                let at = self.now + 1_000;
                match request.0 {
                    number @ 0..100 => self.at(at, Due::Submit { number }),
                    number @ 100..1_000 => self.at(at, Due::Extend { number: number - 100 }),
                    _ => {}
                }
            }
            Answer::Refused(_) | Answer::NotOpen | Answer::Stopping => {}
        }
        Ok(())
    }

    // --- what happens ---------------------------------------------------------------------------

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::Hub { life, lane, event } if life == self.life => self.step(lane, event)?,
            Due::Timer { life, lane } if life == self.life => {
                let wanted = self.lanes[usize::from(lane)].next_timer();
                if wanted.is_some_and(|at| at.0 <= self.now) {
                    self.step(lane, Event::TimePassed)?;
                }
            }
            Due::Commit { life, lane, batch, record } if life == self.life => {
                self.commit(lane, batch, *record)?;
            }
            Due::Hub { .. } | Due::Timer { .. } | Due::Commit { .. } => {}
            Due::Agent { agent, life, session, event } => {
                let who = &self.agents[agent];
                if who.life == life && (session.is_none() || who.session == session) {
                    self.step_agent(agent, *event);
                }
            }
            Due::AgentTimer { agent, life } => {
                let who = &self.agents[agent];
                let wanted = who.machine.next_timer().is_some_and(|at| at.0 <= self.now);
                if who.life == life && wanted && who.frozen.is_none() {
                    self.step_agent(agent, AgentEvent::TimePassed);
                }
            }
            Due::AgentTrouble => self.agent_trouble(),
            Due::HubTrouble => {
                if self.random.chance(self.swarm.hub_crash) {
                    self.crash_hub();
                }
            }
            Due::Heal => (0..self.agents.len()).for_each(|agent| self.thaw(agent)),
            Due::Submit { number } => self.submit(number),
            Due::Extend { number } => self.extend(number),
            Due::Cancel { number } => {
                if let Some(job) = self.submitted.get(&number).copied() {
                    let request = RequestId(1_000 + number);
                    let (life, now) = (self.life, self.now);
                    let lane = home_lane(job, self.swarm.lanes).0;
                    self.at(now, Due::Hub { life, lane, event: Event::CancelRequested { request, job } });
                }
            }
        }
        Ok(())
    }

    fn agent_trouble(&mut self) {
        for agent in 0..self.agents.len() {
            if self.random.chance(self.swarm.agent_crash) {
                self.crash_agent(agent);
            } else if self.random.chance(self.swarm.freeze) && self.agents[agent].session.is_some() {
                self.agents[agent].frozen.get_or_insert_default();
            }
        }
    }

    fn commit(&mut self, lane: u16, batch: BatchId, record: Record) -> Result<(), Violation> {
        let event = if self.faulty() && self.random.chance(self.swarm.commit_fails) {
            Event::CommitFailed { batch, too_large: false }
        } else {
            match self.store.commit(record) {
                Commit::Done => Event::Committed { batch },
                Commit::Conflict { existing, manifest } => Event::Conflicted { batch, existing, manifest },
            }
        };
        // The answer of the store can be lost in a crash, as any can; while the hub lives it is not.
        let at = self.in_order(999, 1_000 + u64::from(lane));
        let life = self.life;
        self.at(at, Due::Hub { life, lane, event });
        Ok(())
    }

    /// Each job's client uses one idempotency key and its own job id per try, as the real one does.
    fn submit(&mut self, number: u64) {
        let mut random = Random::new(number ^ 0xabcd);
        let paths = 1 + random.below(3_000);
        let shard_size = 1 + random.below(200);
        let verify =
            if self.swarm.liar { "exact" } else { ["standard", "strict", "exact"][(number % 3) as usize] };
        let verify = if self.agents.len() == 1 && verify == "exact" { "strict" } else { verify };
        let retries = 16;
        let text = format!(
            r#"{{"name":"job {number}","workload":"monte_carlo","seed":{number},"verify":"{verify}",
                "params":{{"model":"pi","paths":{paths},"shard_size":{shard_size}}},"limits":{{"retries":{retries}}}}}"#
        );
        let manifest: Manifest = JobSpec::from_json(text.as_bytes())
            .and_then(JobSpec::check)
            .expect("the workload writes right specifications");
        self.enter(number, manifest, None, format!("key {number}"));
    }

    /// Continues a job that is done, as a client would who asks for more paths.
    fn extend(&mut self, number: u64) {
        let Some(stored) = self.submitted.get(&number).and_then(|job| self.store.jobs.get(job)) else {
            return;
        };
        let Some((_, Outcome::Done { tally, .. })) = &stored.end else { return };
        let base = Base { job: stored.job.id, tally: (**tally).clone() };
        let paths = stored.job.manifest.spec().params.paths() + 500;
        let manifest = stored.job.manifest.with_paths(paths).expect("500 more paths are allowed");
        self.enter(100 + number, manifest, Some(base), format!("extension {number}"));
    }

    fn enter(&mut self, number: u64, manifest: Manifest, base: Option<Base>, key: String) {
        let first = base.as_ref().map_or(0, |base| base.tally.samples);
        let plan = Plan::new(&manifest, first).expect("the workload's jobs can be planned");
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.random.draw().to_le_bytes());
        let job = NewJob {
            id: JobId::new(self.now, bytes),
            manifest,
            plan,
            created: UnixMillis(1_763_000_000_000 + self.now),
            base,
            idempotency_key: Some(key),
        };
        let (life, now) = (self.life, self.now);
        let lane = home_lane(job.id, self.swarm.lanes).0;
        let event = Event::JobSubmitted { request: RequestId(number), job: Arc::new(job) };
        self.at(now, Due::Hub { life, lane, event });
    }
}
