//! One lane under more demand than it can meet, from many projects: whether each gets its share, in time.
//!
//! The world is small and without faults: what it judges is whose turn it was. Its arithmetic is its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use tessera_hub_core::event::Sent;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::scheduler::{Share, Sharing};
use tessera_hub_core::{Account, Effect, Event, NewJob, Planted, RequestId, SessionId, ShardAnswer};
use tessera_planners::Plan;
use tessera_protocol::api::JobState;
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::monte_carlo::{Model, Task};
use tessera_protocol::spec::{JobSpec, Priority};
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, Tick, UnixMillis};
use tessera_protocol::wire::{Assignment, Hello};

use super::random::Random;
use super::toy;

/// How long demand is more than the lane can meet. *Units*: simulated milliseconds.
const WINDOW_MS: u64 = 26_000;
/// What the job with a deadline has. *Units*: seconds.
const DEADLINE_S: u64 = 20;
/// Of so many compute units at least one is for batch jobs.
const BATCH_ONE_IN: u64 = 8;

/// What was unfair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfair {
    /// A project with work got nothing while others got more than its weight explains.
    Waited {
        /// Which.
        project: String,
        /// What others got in between. *Units*: compute units.
        others: u64,
        /// What they may have got.
        bound: u64,
    },
    /// Two projects that always had work got other shares than their weights say.
    Share {
        /// What each got for its weight.
        got: [(String, u64); 2],
        /// How far that may be apart.
        tolerance: u64,
    },
    /// Batch jobs got less than their part beside interactive ones.
    Batch {
        /// What they got.
        got: u64,
        /// What they should have got at least.
        least: u64,
    },
    /// A job that could have met its deadline did not.
    DeadlineMissed,
    /// A project had more in flight than it may.
    Quota {
        /// Which.
        project: String,
        /// What it had.
        in_flight: u64,
        /// What it may have.
        max: u64,
    },
}

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Attempts that were handed out.
    pub assigned: u64,
    /// Whether a job had a deadline to meet, and met it.
    pub met_deadline: bool,
    /// Whether batch jobs stood beside interactive ones.
    pub mixed: bool,
    /// Projects that ran into their quota.
    pub capped: u64,
}

/// A project and what it got.
#[derive(Debug)]
struct Project {
    name: String,
    weight: u64,
    quota: Option<u64>,
    priority: Priority,
    /// Compute units handed out, checks included.
    got: u64,
    in_flight: u64,
    /// What others of its priority got since it last got something, and what that may be.
    others: u64,
}

struct Worker {
    agent: AgentId,
    /// *Units*: compute units a millisecond and slot.
    speed: u64,
    slots: usize,
    running: usize,
    waiting: VecDeque<(JobId, Assignment)>,
}

struct Market {
    random: Random,
    lane: Lane,
    now: u64,
    made: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    answers: BTreeMap<u64, (usize, JobId, Assignment)>,
    workers: Vec<Worker>,
    projects: Vec<Project>,
    jobs: BTreeMap<JobId, (usize, Plan)>,
    tasks: BTreeMap<JobId, Task>,
    ended: BTreeMap<JobId, JobState>,
    capped: BTreeSet<usize>,
    cost_max: u64,
    assigned: u64,
}

/// Runs a seed, and says what was unfair first.
pub fn run(seed: u64, planted: Option<Planted>) -> Result<Shared, Unfair> {
    let mut market = Market::new(seed, planted);
    let mixed = market.random.chance(300);
    let wants_deadline = !mixed && market.random.chance(600);
    market.open_projects(mixed);
    market.admit_agents();
    let tight = wants_deadline.then(|| market.open_tight());
    let everyone: Vec<usize> = (0..market.projects.len()).collect();
    for project in everyone {
        for _ in 0..1 + market.random.below(3) {
            let shard_size = 40 + market.random.below(200);
            market.submit(project, 900_000_000, shard_size, None);
        }
    }
    market.work()?;
    market.judge(mixed)?;
    if let Some(tight) = tight {
        let met = market.ended.get(&tight) == Some(&JobState::Done);
        met.then_some(()).ok_or(Unfair::DeadlineMissed)?;
    }
    Ok(Shared {
        assigned: market.assigned,
        met_deadline: tight.is_some(),
        mixed,
        capped: market.capped.len() as u64,
    })
}

impl Market {
    fn new(seed: u64, planted: Option<Planted>) -> Market {
        let mut lane = Lane::new(Config {
            lane: LaneIndex(0),
            lanes: 1,
            sampling_key: [7; 32],
            unix_origin: UnixMillis(1_763_000_000_000),
        });
        lane.plant(planted);
        Market {
            random: Random::new(seed),
            lane,
            now: 0,
            made: 0,
            due: BinaryHeap::new(),
            answers: BTreeMap::new(),
            workers: Vec::new(),
            projects: Vec::new(),
            jobs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ended: BTreeMap::new(),
            capped: BTreeSet::new(),
            cost_max: 0,
            assigned: 0,
        }
    }

    fn open_projects(&mut self, mixed: bool) {
        let mut sharing = Sharing::default();
        for number in 0..2 + self.random.below(6) {
            let name = format!("project-{number}");
            let weight = 1 + self.random.below(4);
            let quota = (number > 1 && self.random.chance(300)).then(|| 1 + self.random.below(2));
            let interactive = mixed && number % 2 == 0;
            let priority = if interactive { Priority::Interactive } else { Priority::Batch };
            let share = Share { weight: weight as u32, in_flight_max: quota };
            sharing.projects.insert(name.clone(), share);
            let project = Project { name, weight, quota, priority, got: 0, in_flight: 0, others: 0 };
            self.projects.push(project);
        }
        self.lane.share(sharing);
    }

    /// So many slots that quotas leave most of them to others.
    fn admit_agents(&mut self) {
        for number in 0..3 + self.random.below(4) as u8 {
            let (slots, speed) = (1 + self.random.below(3) as u16, 1 + self.random.below(3));
            let agent = AgentId::of_key(&[number; 32]);
            let worker = Worker { agent, speed, slots: slots.into(), running: 0, waiting: VecDeque::new() };
            self.workers.push(worker);
            let hello = Hello {
                token: None,
                name: format!("agent {number}"),
                version: "0".to_owned(),
                slots,
                isa: "plain".to_owned(),
                arch: "none".to_owned(),
                memory_bytes: 1 << 30,
                kernels: vec!["monte_carlo".to_owned()],
                region: String::new(),
            };
            let (session, account) = (SessionId(u64::from(number)), Account::operator());
            let agent = self.workers[usize::from(number)].agent;
            let admitted = self.step(Event::AgentAdmitted { session, agent, account, hello: hello.into() });
            admitted.expect("nothing is handed out before there are jobs");
        }
    }

    /// A project of one job with a deadline among four without: in turn it would get a fifth of the project's share,
    /// and it needs half.
    fn open_tight(&mut self) -> JobId {
        let speed: u64 = self.workers.iter().map(|worker| worker.speed * worker.slots as u64).sum();
        let weights: u64 = self.projects.iter().map(|project| project.weight).sum();
        let project = &mut self.projects[0];
        project.quota = None;
        let share = speed * project.weight / weights * DEADLINE_S * 1000;
        for _ in 0..4 {
            self.submit(0, 900_000_000, 100, None);
        }
        // A path of this model costs so many units.
        let unit = self.jobs.values().next().and_then(|(_, plan)| plan.shard(ShardIndex(0)));
        let unit = unit.map_or(1, |shard| shard.cost.0 / shard.count);
        self.submit(0, (share / 2 / unit).max(100), 100, Some(DEADLINE_S))
    }

    fn submit(&mut self, project: usize, paths: u64, shard_size: u64, deadline_s: Option<u64>) -> JobId {
        let Project { name, priority, .. } = &self.projects[project];
        let priority = if *priority == Priority::Interactive { "interactive" } else { "batch" };
        let limits = deadline_s.map_or(String::new(), |seconds| format!(r#""deadline_s":{seconds}"#));
        let text = format!(
            r#"{{"name":"job","workload":"monte_carlo","project":"{name}","priority":"{priority}",
                "params":{{"model":"pi","paths":{paths},"shard_size":{shard_size}}},"limits":{{{limits}}}}}"#
        );
        let manifest = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check).expect("a right job");
        let plan = Plan::new(&manifest, 0).expect("a plan");
        let cost = plan.shard(ShardIndex(0)).map_or(0, |shard| shard.cost.0);
        self.cost_max = self.cost_max.max(cost);
        let mut random = [0; 10];
        random.fill_with(|| self.random.below(256) as u8);
        let (id, created) = (JobId::new(self.now, random), UnixMillis(1_763_000_000_000 + self.now));
        self.jobs.insert(id, (project, plan.clone()));
        let job = NewJob { id, manifest, plan, created, base: None, idempotency_key: None };
        let event = Event::JobSubmitted { request: RequestId(0), job: Arc::new(job) };
        self.step(event).expect("nobody waits yet");
        id
    }

    /// Agents answer for the length of the window; who has nothing to do takes the time as it passes.
    fn work(&mut self) -> Result<(), Unfair> {
        // The first round of hand-outs came to projects as they opened.
        self.projects.iter_mut().for_each(|project| (project.got, project.others) = (0, 0));
        let mut tick = 0;
        while self.now < WINDOW_MS {
            let next = self.due.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            if tick <= next {
                self.now = tick;
                tick += 100;
                self.step(Event::TimePassed)?;
                continue;
            }
            let Some(Reverse((at, number))) = self.due.pop() else { continue };
            self.now = at;
            let (worker, job, item) = self.answers.remove(&number).expect("each has its answer");
            self.answer(worker, job, item)?;
        }
        Ok(())
    }

    fn answer(&mut self, worker: usize, job: JobId, item: Assignment) -> Result<(), Unfair> {
        self.workers[worker].running -= 1;
        let Some((project, _)) = self.jobs.get(&job) else { return Ok(()) };
        self.projects[*project].in_flight -= 1;
        if !self.ended.contains_key(&job) {
            let task = self.tasks.entry(job).or_insert_with(|| Task { key: [0, 0], model: Model::Pi });
            let partial = toy::tally(task, &[], item.first, item.count).encode();
            let (index, epoch) = (ShardIndex(item.index), Epoch(item.epoch));
            let answers = vec![ShardAnswer { index, epoch, partial: Sent::Here(partial.into()) }];
            let session = SessionId(worker as u64);
            self.step(Event::ResultsArrived { session, job, answers })?;
        }
        self.start(worker);
        Ok(())
    }

    fn start(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        while worker.running < worker.slots
            && let Some((job, item)) = worker.waiting.pop_front()
        {
            worker.running += 1;
            self.made += 1;
            let cost = self.jobs[&job].1.shard(ShardIndex(item.index)).map_or(1, |shard| shard.cost.0);
            self.due.push(Reverse((self.now + (cost / worker.speed).max(1), self.made)));
            self.answers.insert(self.made, (number, job, item));
        }
    }

    fn step(&mut self, event: Event) -> Result<(), Unfair> {
        let mut events = VecDeque::from([event, Event::TimePassed]);
        while let Some(event) = events.pop_front() {
            let effects: Vec<Effect> = self.lane.step(Tick(self.now), event).collect();
            if self.made.is_multiple_of(32) {
                self.lane.invariants();
            }
            for effect in effects {
                match effect {
                    Effect::Persist { batch, .. } => events.push_back(Event::Committed { batch }),
                    Effect::Assign { session, job, items } => {
                        items.into_iter().try_for_each(|item| self.handed_out(session, job, item))?;
                    }
                    Effect::Forget { session, job } => self.forget(session, job),
                    Effect::PublishJob { view } if !view.state.is_open() => {
                        self.ended.insert(view.id, view.state);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What waits at an agent is dropped; what runs comes back and is not wanted any more.
    fn forget(&mut self, session: SessionId, job: JobId) {
        let waiting = &mut self.workers[session.0 as usize].waiting;
        let before = waiting.len();
        waiting.retain(|(of, _)| *of != job);
        let dropped = (before - waiting.len()) as u64;
        self.projects[self.jobs[&job].0].in_flight -= dropped;
    }

    fn handed_out(&mut self, session: SessionId, job: JobId, item: Assignment) -> Result<(), Unfair> {
        self.assigned += 1;
        let worker = session.0 as usize;
        self.workers[worker].waiting.push_back((job, item));
        let (number, plan) = &self.jobs[&job];
        let (number, cost) = (*number, plan.shard(ShardIndex(item.index)).map_or(0, |shard| shard.cost.0));
        self.start(worker);
        let priority = self.projects[number].priority;
        let project = &mut self.projects[number];
        (project.got, project.others) = (project.got + cost, 0);
        project.in_flight += 1;
        if let Some(max) = project.quota {
            // Checks and retries are not held back; with agents of the operator few shards are checked.
            if project.in_flight > max + QUOTA_CHECKS {
                let (project, in_flight) = (project.name.clone(), project.in_flight);
                return Err(Unfair::Quota { project, in_flight, max });
            }
            if project.in_flight >= max {
                self.capped.insert(number);
            }
        }
        let cost_max = self.cost_max;
        let weights: u64 = self.projects.iter().map(|project| project.weight).sum();
        let count = self.projects.len() as u64;
        for (other, project) in self.projects.iter_mut().enumerate() {
            if other == number || project.quota.is_some() || project.priority > priority {
                continue;
            }
            project.others += cost;
            let bound = wait_bound(weights, project.weight, count, cost_max);
            if project.others > bound && self.now > 0 {
                let (project, others) = (project.name.clone(), project.others);
                return Err(Unfair::Waited { project, others, bound });
            }
        }
        Ok(())
    }

    /// Shares of projects that always had work, and of batch beside interactive jobs.
    fn judge(&self, mixed: bool) -> Result<(), Unfair> {
        let steady = || self.projects.iter().filter(|project| project.quota.is_none());
        for one in steady() {
            for other in steady().filter(|other| other.priority == one.priority) {
                let got = [one.got / one.weight, other.got / other.weight];
                // Each may be a shard ahead, have another in flight and one under check.
                let tolerance = 4 * self.cost_max + got[0].max(got[1]) / 20;
                if got[0].abs_diff(got[1]) > tolerance {
                    let got = [(one.name.clone(), got[0]), (other.name.clone(), got[1])];
                    return Err(Unfair::Share { got, tolerance });
                }
            }
        }
        let got_by = |priority| {
            self.projects
                .iter()
                .filter(move |project| project.priority == priority)
                .map(|project| project.got)
        };
        let batch: u64 = got_by(Priority::Batch).sum();
        let all = batch + got_by(Priority::Interactive).sum::<u64>();
        let steady_batch = steady().any(|project| project.priority == Priority::Batch);
        let least = (all / BATCH_ONE_IN * 9 / 10).saturating_sub(4 * self.cost_max);
        if mixed && steady_batch && batch < least {
            return Err(Unfair::Batch { got: batch, least });
        }
        Ok(())
    }
}

/// Attempts beyond its quota that a project may have for checks.
const QUOTA_CHECKS: u64 = 3;

/// What others may get between two shards of a project: while it waits for one, each other gets what its weight says
/// and is at most two shards off. Checks that it got out of turn, a few at a time, it has waited for afterwards.
fn wait_bound(weights: u64, weight: u64, count: u64, cost_max: u64) -> u64 {
    (1 + CHECKS_AT_ONCE) * cost_max * weights.div_ceil(weight) + 3 * count * cost_max
}

/// Checks of one project that are handed out without its turn between them.
const CHECKS_AT_ONCE: u64 = 3;
