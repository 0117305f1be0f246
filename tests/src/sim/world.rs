//! The world of a run: lanes, agents, links and store on one clock, and the faults between them.

mod agents;
mod clients;
mod disk;
mod hub;
mod keeper;
pub(super) mod regions;
mod trouble;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use tessera_agent_core::Event as AgentEvent;
use tessera_hub_core::lane::Lane;
use tessera_hub_core::{BatchId, Effect, Event, Payment, Record, RequestId, home_lane};
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::{ShardIndex, Tick};

use super::agent::{Agent, Answers, Kind, PLAIN_LIES_MAX};
use super::checker::{self, Lies, Violation};
use super::model::Model;
use super::random::Random;
use super::store::Store;
use super::swarm::{Settings, Swarm};
use super::trace::Trace;
use super::workload::Workload;
use keeper::{Keeper, Place};
use trouble::Trouble;
use weather::Weather;

/// When every job must have ended. *Units*: simulated milliseconds.
const END_MS: u64 = 600_000;
/// How often it is looked whether anything is left to happen. *Units*: simulated milliseconds.
const LOOK_MS: u64 = 1_000;
/// A run ends after so many looks at which every job had ended: what was late may come until then.
const QUIET_LOOKS: u64 = 8;
/// Steps after which a run counts as stuck in a loop.
const STEPS_MAX: u64 = 2_000_000;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Names every event of the run: equal runs have equal traces.
    pub trace: u64,
    /// Steps of all lanes.
    pub steps: u64,
    /// What happened how often, by name.
    pub happened: BTreeMap<&'static str, u64>,
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
    /// A panel reaches the keeper.
    Keep {
        life: u64,
        lane: u16,
        place: Place,
        panel: u64,
        bytes: Arc<[u8]>,
        paid: Vec<Payment>,
    },
    /// A whole tile goes from the keeper to the store.
    Finish {
        life: u64,
        lane: u16,
        batch: BatchId,
        place: Place,
        earned: Vec<Payment>,
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
    /// A shard is about to crash its agent.
    AgentDies {
        agent: usize,
        life: u64,
    },
    /// The shard that it computes kills an agent's process.
    Killed {
        agent: usize,
        life: u64,
    },
    /// Nothing has come through a session for too long.
    SessionIdle {
        agent: usize,
        session: u64,
    },
    Trouble,
    HubDies {
        life: u64,
    },
    Heal,
    Look,
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
    /// When each lane is looked at next.
    armed: Vec<u64>,
    links: BTreeMap<(u64, u64), u64>,
    weather: Weather,
    agents: Vec<Agent>,
    answers: Answers,
    sessions: u64,
    store: Store,
    keeper: Keeper,
    submitted: BTreeMap<u64, JobId>,
    trouble: Option<Trouble>,
    /// Whose agents tried the shard that always fails, in order.
    tried: Vec<ProviderId>,
    /// Agents that a shard took down while this hub lives.
    killed: u64,
    /// Agents that rest, as the hub says, until when by its ticks.
    resting: BTreeMap<AgentId, u64>,
    /// Acts of clients to come.
    clients: u64,
    /// Looks in a row at which every job had ended.
    quiet: u64,
    model: Model,
    trace: Trace,
    report: Report,
}

/// Runs a seed to its end, or to the first broken promise: faults first, in which nothing wrong may happen, then a
/// world without faults, in which every job must end.
///
/// *Panics*: where the hub itself asserts.
pub fn run(seed: u64, settings: Settings) -> Result<Report, Violation> {
    let mut world = World::new(seed, settings);
    world.populate();
    world.add_regions(seed);
    while let Some(Reverse((at, number))) = world.due.pop() {
        if at > END_MS || world.quiet >= QUIET_LOOKS {
            break;
        }
        assert!(world.report.steps < STEPS_MAX, "seed {seed} does not come to rest");
        world.now = at;
        let due = world.things.remove(&number).expect("every number in the queue has its thing");
        world.happen(due)?;
    }
    // Who always lies, alone and as a stranger, is never trusted, so that nothing of it may get through.
    let trusted = world.swarm.liar != Some(Kind::Liar) || world.swarm.coalition || world.swarm.flawed;
    let liars = |job| {
        let lied = world.agents.iter().filter(|agent| trusted && agent.lied.contains(&job));
        lied.map(|agent| agent.id).collect()
    };
    let plain = |job| {
        let of_job = world.agents.iter().filter_map(|agent| agent.lies.get(&job));
        let [plain, hidden] =
            of_job.fold([0, 0], |[plain, hidden], lies| [plain + lies.plain, hidden + lies.hidden]);
        !world.swarm.coalition && hidden == 0 && (1..=PLAIN_LIES_MAX).contains(&plain)
    };
    let found_out = |store: &Store, job| {
        let bases = std::iter::successors(Some(job), |job| {
            store.jobs.get(job)?.job.base.as_ref().map(|base| base.job)
        });
        let of: Vec<JobId> = bases.collect();
        let mut lied = world.agents.iter().filter(|agent| of.iter().any(|job| agent.lied.contains(job)));
        let proven = |agent: &Agent| store.standings.get(&agent.id).is_some_and(|record| record.proven);
        !world.swarm.coalition && lied.all(proven)
    };
    let hub_died = world.report.happened.contains_key("hub crashes");
    let lies = Lies { liars: &liars, plain: &plain, found_out: &found_out, hub_died };
    let ended = checker::ended(&world.store, &lies, |view| world.failed_rightly(view));
    if let Err(Violation::Unfinished(job)) = ended {
        world.explain(job);
    }
    ended?;
    world.all_are_back()?;
    world.model.ended(&world.store)?;
    let shown: u64 = world.agents.iter().flat_map(|agent| agent.lies.values()).map(|lies| lies.plain).sum();
    *world.report.happened.entry("lies that anyone sees").or_default() += shown;
    let jobs = world.store.jobs.len();
    world.trace.check(world.now, || format!("{jobs} jobs ended as they must, with a fault-free run's bytes"));
    for stored in world.store.jobs.values() {
        let note = &mut world.report.happened;
        *note.entry("jobs done").or_default() += u64::from(stored.is_done());
        *note.entry("jobs that rightly failed").or_default() += u64::from(stored.has_failed());
        *note.entry("jobs of several rounds").or_default() += u64::from(stored.went_on());
    }
    world.report.trace = world.trace.sum();
    Ok(world.report)
}

impl World {
    /// Has the trace say what the lanes know of a job.
    fn explain(&mut self, job: JobId) {
        for (lane, machine) in self.lanes.iter_mut().enumerate() {
            let asked = Event::JobExplanationRequested { request: RequestId(0), job };
            let answers: Vec<Effect> = machine.step(Tick(self.now), asked).collect();
            let said = answers.iter().filter(|effect| matches!(effect, Effect::Answer { .. }));
            said.for_each(|said| self.trace.check(self.now, || format!("lane {lane}: {said:?}")));
        }
    }

    fn new(seed: u64, settings: Settings) -> World {
        let mut random = Random::new(seed);
        let mut swarm = Swarm::draw(&mut random, &settings);
        let trouble = Trouble::draw(seed, &settings, &mut swarm);
        let workload = Workload::new(&mut random, swarm.liar.is_some() && swarm.careful, swarm.agents == 1);
        let mut world = World {
            random,
            workload,
            settings,
            now: 0,
            due: BinaryHeap::new(),
            things: BTreeMap::new(),
            made: 0,
            life: 0,
            lanes: Vec::new(),
            armed: vec![u64::MAX; usize::from(swarm.lanes)],
            links: BTreeMap::new(),
            weather: Weather::new(swarm.lanes),
            swarm,
            agents: Vec::new(),
            answers: Answers::default(),
            sessions: 0,
            store: Store::default(),
            keeper: Keeper::new(),
            submitted: BTreeMap::new(),
            trouble,
            tried: Vec::new(),
            killed: 0,
            resting: BTreeMap::new(),
            clients: 0,
            quiet: 0,
            model: Model::default(),
            trace: Trace::new(settings.aloud),
            report: Report { trace: 0, steps: 0, happened: BTreeMap::new() },
        };
        let drawn = format!("{:?}, trouble: {:?}", world.swarm, world.trouble);
        world.trace.check(0, || format!("seed {seed}: {drawn}"));
        world.start_hub();
        world
    }

    /// Agents, jobs and troubles. Where somebody lies, every job is checked whole: what must hold then holds surely.
    fn populate(&mut self) {
        let lies = self.swarm.liar.is_some();
        let agents = if lies { self.swarm.agents.max(5) } else { self.swarm.agents };
        for number in 0..agents {
            let kind = match number {
                0 if self.swarm.coalition => Kind::Colluder,
                0 => self.swarm.liar.unwrap_or(Kind::Honest),
                1 => self.swarm.clumsy.unwrap_or(Kind::Honest),
                3 if self.swarm.copier => Kind::Copier,
                4 if self.swarm.coalition => Kind::Colluder,
                _ => Kind::Honest,
            };
            let pace = 1 + self.random.below(400);
            // Two of the operator's own agents are always there, honest and with every kernel: they check each
            // other, and a newcomer's answers until somebody else is trusted.
            let anchor = match lies {
                true => [2, 3].contains(&number) || (number == 0 && self.swarm.flawed),
                false => agents < 3 || [0, 2].contains(&number),
            };
            let is_old = self.swarm.old && !anchor && number > 3;
            let provider = (!anchor).then(|| self.random.below(u64::from(self.swarm.providers)));
            self.agents.push(Agent::new(number, kind, provider, pace, is_old));
            let at = self.random.below(2_000);
            self.reach_agent(at, usize::from(number), None, AgentEvent::Started);
        }
        for number in 0..(1 + self.random.below(4)).min(self.settings.jobs_max) {
            let at = self.random.below(20_000);
            self.client(at, Due::Submit { number });
            let acts = [
                (200, self.random.below(5_000), Due::Submit { number }),
                (100, self.random.below(30_000), Due::Cancel { number }),
                (300, 5_000 + self.random.below(40_000), Due::Extend { number }),
            ];
            for (chance, later, act) in acts {
                if self.random.chance(chance) && self.swarm.fickle {
                    self.client(at + later, act);
                }
            }
        }
        self.add_trouble();
        let faults = self.swarm.faults_ms;
        self.at(faults, Due::Heal);
        (0..faults).step_by(1_000).for_each(|at| self.at(at, Due::Trouble));
        self.at(LOOK_MS, Due::Look);
    }

    fn at(&mut self, at: u64, due: Due) {
        self.made += 1;
        self.due.push(Reverse((at, self.made)));
        self.things.insert(self.made, due);
    }

    fn client(&mut self, at: u64, act: Due) {
        self.clients += 1;
        self.at(at, act);
    }

    fn note(&mut self, what: &'static str) {
        *self.report.happened.entry(what).or_default() += 1;
    }

    fn faulty(&self) -> bool {
        self.now < self.swarm.faults_ms
    }

    // --- what happens ---------------------------------------------------------------------------

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::Hub { life, lane, event } if life == self.life => self.step(lane, *event)?,
            Due::Timer { life, lane } if life == self.life => self.timer(lane)?,
            Due::Commit { life, lane, batch, record } if life == self.life => {
                self.commit(lane, batch, *record)?;
            }
            Due::Assembled { life, lane, job, task } if life == self.life => {
                self.assembled(lane, job, &task);
            }
            Due::Product { life, lane, job, index, bytes } if life == self.life => {
                self.product_written(lane, job, index, bytes);
            }
            Due::Keep { life, lane, place, panel, bytes, paid } if life == self.life => {
                self.keep(lane, &place, panel, &bytes, paid);
            }
            Due::Finish { life, lane, batch, place, earned } if life == self.life => {
                self.finish(lane, batch, &place, earned)?;
            }
            Due::HubDies { life } if life == self.life => self.crash_hub()?,
            Due::Hub { .. }
            | Due::Timer { .. }
            | Due::Commit { .. }
            | Due::Assembled { .. }
            | Due::Product { .. }
            | Due::Keep { .. }
            | Due::Finish { .. }
            | Due::HubDies { .. } => {}
            Due::Agent { agent, life, session, event } => {
                let who = &self.agents[agent];
                if who.life == life && (session.is_none() || who.session == session) {
                    self.step_agent(agent, *event);
                }
            }
            Due::AgentTimer { agent, life } => self.agent_timer(agent, life),
            Due::AgentDies { agent, life } => self.agent_dies(agent, life),
            Due::Killed { agent, life } => self.killed(agent, life)?,
            Due::SessionIdle { agent, session } => self.session_idle(agent, session),
            Due::Trouble => self.trouble()?,
            Due::Heal => {
                self.heal();
                (0..self.agents.len()).for_each(|agent| self.thaw(agent));
            }
            Due::Look => {
                let ended = self.store.jobs.values().all(|stored| stored.end.is_some());
                let idle = ended && self.clients == 0 && !self.lanes.iter().any(Lane::is_writing);
                self.quiet = if idle { self.quiet + 1 } else { 0 };
                self.at(self.now + LOOK_MS, Due::Look);
            }
            Due::Submit { number } => self.submit(number),
            Due::Extend { number } => self.extend(number),
            Due::Cancel { number } => self.cancel(number),
        }
        Ok(())
    }

    fn cancel(&mut self, number: u64) {
        self.clients -= 1;
        if let Some(job) = self.submitted.get(&number).copied() {
            let request = RequestId(1_000 + number);
            let lane = home_lane(job, self.swarm.lanes).0;
            self.reach_lane(self.now, lane, Event::CancelRequested { request, job });
        }
    }
}
