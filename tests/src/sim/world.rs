//! The world of a run: lanes, agents, links and store on one clock, and the faults between them.

mod agents;
mod clients;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use tessera_agent_core::Event as AgentEvent;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::standing::{StandingRecord, registry_lane};
use tessera_hub_core::{BatchId, Effect, Event, LaneMessage, Planted, Record, RequestId, home_lane};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::{LaneIndex, ShardIndex, Tick, UnixMillis};

use super::agent::{Agent, Kind};
use super::checker::{self, Violation};
use super::random::Random;
use super::store::{Commit, Store};
use super::workload::{self, Workload};

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
    /// Matrices read from the store.
    pub assembled: u64,
    /// Jobs that went beyond their first round.
    pub went_on: u64,
    /// Pieces of inputs that reached agents.
    pub pieces: u64,
    /// Products that were stored.
    pub products: u64,
}

/// Fault rates of one seed, each drawn on its own so that runs differ in kind and not only in luck.
#[derive(Clone, Debug)]
struct Swarm {
    lanes: u16,
    agents: u8,
    liar: bool,
    clumsy: Option<Kind>,
    /// Whether some agents know no matrices.
    old: bool,
    drop: u64,
    duplicate: u64,
    delay_ms: u64,
    agent_crash: u64,
    freeze: u64,
    hub_crash: u64,
    commit_fails: u64,
    disk_ms: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Due {
    Hub {
        life: u64,
        lane: u16,
        event: Box<Event>,
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
    /// The tiles of a matrix have been read, or could not be.
    Assembled {
        life: u64,
        lane: u16,
        job: JobId,
        task: Arc<Task>,
    },
    /// A product has been written, or could not be.
    Product {
        life: u64,
        lane: u16,
        job: JobId,
        index: ShardIndex,
        bytes: Arc<[u8]>,
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
    workload: Workload,
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
    let ended = || world.store.jobs.values();
    world.report.done = ended().filter(|stored| stored.is_done()).count() as u64;
    world.report.went_on = ended().filter(|stored| stored.went_on()).count() as u64;
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
            old: random.chance(300),
            drop: rate(&mut random, 100),
            duplicate: rate(&mut random, 200),
            delay_ms: 1 + rate(&mut random, 3000),
            agent_crash: rate(&mut random, 300),
            freeze: rate(&mut random, 100),
            hub_crash: rate(&mut random, 200),
            commit_fails: rate(&mut random, 300),
            disk_ms: 1 + rate(&mut random, 2000),
        };
        let workload = Workload::new(&mut random, swarm.liar, !swarm.liar && swarm.agents == 1);
        let report = Report {
            trace: Digest([0; 32]),
            steps: 0,
            crashes: 0,
            done: 0,
            assembled: 0,
            went_on: 0,
            pieces: 0,
            products: 0,
        };
        let mut world = World {
            random,
            swarm,
            workload,
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
            // Those before have every kernel, and suffice for every check.
            let is_old = self.swarm.old && number >= if self.swarm.liar { 4 } else { 2 };
            self.agents.push(Agent::new(number, kind, pace, is_old));
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

    /// When the store has done what a lane asks of it: in the order it was asked.
    fn written_at(&mut self, lane: u16) -> u64 {
        let slow = self.random.below(self.swarm.disk_ms);
        let at = self.in_order(1_000 + u64::from(lane), 999) + slow;
        self.links.insert((1_000 + u64::from(lane), 999), at);
        at
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
                progress: stored.recovered().map(Box::new),
            })
            .collect();
        for lane in 0..self.swarm.lanes {
            let is_here =
                |record: &&StandingRecord| registry_lane(record.provider, self.swarm.lanes).0 == lane;
            let agents = self.store.standings.values().filter(is_here).copied().collect();
            let (life, now) = (self.life, self.now);
            self.at(now, Due::Hub { life, lane, event: Event::StandingsRecovered { agents }.into() });
        }
        for event in open {
            let Event::JobRecovered { job, .. } = &event else {
                continue;
            };
            let lane = home_lane(job.id, self.swarm.lanes).0;
            let life = self.life;
            let now = self.now;
            self.at(now, Due::Hub { life, lane, event: event.into() });
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
                let at = self.written_at(lane);
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
            Effect::SendJob { session, job, kernel, task, ordered } => {
                self.announce(session, job, &kernel, &task, ordered);
            }
            Effect::SendPass { session, job, pass } => {
                self.tell_agent(session, AgentEvent::PassSet { job, pass: pass.to_vec() });
            }
            Effect::SendInput { session, job, input, blake3, offset } => {
                let piece = match self.store.products.get(&blake3) {
                    Some(product) => workload::cut(product.to_vec(), offset),
                    None => workload::piece(&self.store.jobs[&job].job, blake3, offset),
                };
                self.tell_agent_apart(session, AgentEvent::PieceArrived { job, input, offset, piece });
            }
            Effect::Assemble { job, task } => {
                checker::whole(&self.store, job, &task)?;
                let at = self.any_order() + self.random.below(self.swarm.disk_ms);
                self.at(at, Due::Assembled { life, lane, job, task });
            }
            Effect::StoreProduct { job, index, blake3, bytes } => {
                assert_eq!(Digest::of(&bytes), blake3, "a product has another digest");
                let at = self.any_order() + self.random.below(self.swarm.disk_ms);
                self.at(at, Due::Product { life, lane, job, index, bytes });
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
            Effect::PublishAgent { .. }
            | Effect::PublishAgentAway { .. }
            | Effect::ReportStanding { .. }
            | Effect::RaiseAlarm { .. } => {}
        }
        Ok(())
    }

    fn tell(&mut self, at: u64, from: u16, to: u16, message: LaneMessage) {
        let event = Event::LaneSpoke { from: LaneIndex(from), message };
        let life = self.life;
        self.at(at, Due::Hub { life, lane: to, event: event.into() });
    }

    // --- what happens ---------------------------------------------------------------------------

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::Hub { life, lane, event } if life == self.life => self.step(lane, *event)?,
            Due::Timer { life, lane } if life == self.life => {
                let wanted = self.lanes[usize::from(lane)].next_timer();
                if wanted.is_some_and(|at| at.0 <= self.now) {
                    self.step(lane, Event::TimePassed)?;
                }
            }
            Due::Commit { life, lane, batch, record } if life == self.life => {
                self.commit(lane, batch, *record)?;
            }
            Due::Assembled { life, lane, job, task } if life == self.life => {
                self.assembled(lane, job, &task);
            }
            Due::Product { life, lane, job, index, bytes } if life == self.life => {
                self.product_written(lane, job, index, bytes);
            }
            Due::Hub { .. }
            | Due::Timer { .. }
            | Due::Commit { .. }
            | Due::Assembled { .. }
            | Due::Product { .. } => {}
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
                    self.at(
                        now,
                        Due::Hub { life, lane, event: Event::CancelRequested { request, job }.into() },
                    );
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
            let of = match &record {
                Record::JobProgressed { job, .. } => Some(*job),
                _ => None,
            };
            match self.store.commit(record) {
                Commit::Done => {
                    of.map_or(Ok(()), |job| checker::products(&self.store, job))?;
                    Event::Committed { batch }
                }
                Commit::Conflict { existing, manifest } => Event::Conflicted { batch, existing, manifest },
            }
        };
        // The answer of the store can be lost in a crash, as any can; while the hub lives it is not.
        let at = self.in_order(999, 1_000 + u64::from(lane));
        let life = self.life;
        self.at(at, Due::Hub { life, lane, event: event.into() });
        Ok(())
    }

    fn product_written(&mut self, lane: u16, job: JobId, index: ShardIndex, bytes: Arc<[u8]>) {
        let stored = !(self.faulty() && self.random.chance(self.swarm.commit_fails));
        if stored {
            self.report.products += 1;
            self.store.products.insert(Digest::of(&bytes), bytes);
        }
        let (at, life) = (self.any_order(), self.life);
        self.at(at, Due::Hub { life, lane, event: Event::ProductStored { job, index, stored }.into() });
    }

    /// A store that could not be read says so; tiles it has do not go away.
    fn assembled(&mut self, lane: u16, job: JobId, task: &Task) {
        let fails = self.faulty() && self.random.chance(self.swarm.commit_fails);
        let file = self.store.jobs.get(&job).filter(|_| !fails).and_then(|stored| stored.assembled(task));
        self.report.assembled += u64::from(file.is_some());
        let output = file.map(|file| (Digest::of(&file), file.len() as u64));
        let (at, life) = (self.any_order(), self.life);
        self.at(at, Due::Hub { life, lane, event: Event::Assembled { job, output }.into() });
    }
}
