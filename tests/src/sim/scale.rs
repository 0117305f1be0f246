//! A fleet of great size in one thread: the real lanes, and agents that are a few numbers each.
//!
//! There are no faults of disks and links here, only agents that come and go; what is measured is what the lanes
//! cost. The result is checked all the same.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tessera_hub_core::event::Sent;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::record::Kept;
use tessera_hub_core::{
    Account, Effect, Event, NewJob, Outcome, Record, RequestId, SessionId, ShardAnswer, home_lane,
};
use tessera_planners::Plan;
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::limits;
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, Tick, UnixMillis};
use tessera_protocol::wire::{Assignment, Held, Hello};

use super::random::Random;

const LANES: u16 = 4;
const JOBS: u64 = 4;
/// Paths of a shard.
const SHARD_PATHS: u64 = 10;
const SLOTS: u16 = 4;
/// Agents of one provider.
const AGENTS_PER_PROVIDER: u64 = 20;
/// An agent takes between this and three times as long for what it holds. *Units*: milliseconds.
const PACE_MS: u64 = 5_000;
/// All agents have come after this. *Units*: milliseconds.
const ARRIVAL_MS: u64 = 20_000;
/// Of a thousand times that an agent answers, it goes away so often instead.
const GOES_AWAY: u64 = 1;
/// When everything must have ended. *Units*: simulated milliseconds.
const END_MS: u64 = 10 * 3_600_000;

/// What a run came to.
#[derive(Debug)]
pub struct Scale {
    /// Agents.
    pub agents: u64,
    /// Shards of all jobs.
    pub shards: u64,
    /// Attempts, checks included.
    pub answered: u64,
    /// Steps of all lanes.
    pub steps: u64,
    /// Sessions that ended and came back.
    pub returned: u64,
    /// *Units*: simulated milliseconds.
    pub simulated_ms: u64,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(f, "agents      {:>12}   {} sessions ended and came back", self.agents, self.returned)?;
        writeln!(f, "shards      {:>12}   {:.0} a second", self.shards, self.shards as f64 / seconds)?;
        writeln!(f, "answers     {:>12}", self.answered)?;
        writeln!(f, "steps       {:>12}   {:.0} a second", self.steps, self.steps as f64 / seconds)?;
        write!(f, "time        {seconds:>10.1} s   {:.1} s simulated", self.simulated_ms as f64 / 1e3)
    }
}

/// An agent: what it holds, and who it is by its number.
#[derive(Debug, Default)]
struct Agent {
    session: u64,
    held: Vec<(u8, u64, u64)>,
    busy: bool,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    Arrives(u32),
    Answers(u32, u64),
    Heartbeat(u32, u64),
    Lane(u16),
}

struct World {
    random: Random,
    /// One agent in so many is the operator's own.
    anchors: u64,
    now: u64,
    lanes: Vec<Lane>,
    armed: Vec<u64>,
    agents: Vec<Agent>,
    /// Agents by session.
    sessions: Vec<u32>,
    /// What is to happen, moment by moment, and in each in the order it was foreseen.
    due: BTreeMap<u64, VecDeque<Due>>,
    /// What lanes hear at this moment, in order.
    mail: VecDeque<(u16, Event)>,
    jobs: Vec<(JobId, Manifest)>,
    ended: u64,
    /// What agents can say, by how many paths of a shard are inside.
    answers: Vec<Bytes>,
    report: Scale,
}

/// Runs agents and shards of a few jobs to the end. One agent in `anchors` is the operator's own.
///
/// *Errors*: what is wrong with a result, in words. *Panics*: where the hub itself asserts.
pub fn scale(agents: u32, shards: u64, anchors: u64) -> Result<Scale, String> {
    let started = Instant::now();
    let mut world = World::new(agents, shards, anchors.max(1));
    world.submit(shards);
    world.deliver()?;
    while world.ended < JOBS {
        let Some((at, due)) = world.next_due() else {
            return Err("nothing is left to happen, and jobs have not ended".to_owned());
        };
        if at > END_MS {
            return Err(format!("{} of {JOBS} jobs have ended in time", world.ended));
        }
        world.now = at;
        world.happen(due);
        world.deliver()?;
    }
    world.lanes.iter().for_each(Lane::invariants);
    (world.report.took, world.report.simulated_ms) = (started.elapsed(), world.now);
    Ok(world.report)
}

/// How many paths of a shard are inside.
fn inside(index: u64) -> u64 {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 7
}

impl World {
    fn new(agents: u32, shards: u64, anchors: u64) -> World {
        let lane = |lane| {
            let (lane, unix_origin) = (LaneIndex(lane), UnixMillis(1_763_000_000_000));
            Lane::new(Config { lane, lanes: LANES, sampling_key: [7; 32], unix_origin })
        };
        let answer = |inside| {
            let tally = Tally { samples: SHARD_PATHS, counts: vec![inside], ..Tally::default() }.encode();
            tally.into()
        };
        let mut world = World {
            random: Random::new(1),
            anchors,
            now: 0,
            lanes: (0..LANES).map(lane).collect(),
            armed: vec![u64::MAX; usize::from(LANES)],
            agents: Vec::new(),
            sessions: Vec::new(),
            due: BTreeMap::new(),
            mail: VecDeque::new(),
            jobs: Vec::new(),
            ended: 0,
            answers: (0..8).map(answer).collect(),
            report: Scale {
                agents: u64::from(agents),
                shards,
                answered: 0,
                steps: 0,
                returned: 0,
                simulated_ms: 0,
                took: Duration::ZERO,
            },
        };
        for agent in 0..agents {
            world.agents.push(Agent::default());
            let at = world.random.below(ARRIVAL_MS);
            world.at(at, Due::Arrives(agent));
        }
        world
    }

    fn submit(&mut self, shards: u64) {
        for number in 0..JOBS {
            let paths = (shards / JOBS + u64::from(number < shards % JOBS)) * SHARD_PATHS;
            let text = format!(
                r#"{{"name":"job {number}","workload":"monte_carlo","seed":{number},
                    "params":{{"model":"pi","paths":{paths},"shard_size":{SHARD_PATHS}}}}}"#
            );
            let manifest = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check);
            let manifest = manifest.unwrap_or_else(|error| panic!("the job is right: {error}"));
            let plan = Plan::new(&manifest, 0).expect("the job can be planned");
            let mut random = [0; 10];
            random[2] = number as u8;
            let (id, created) = (JobId::new(0, random), UnixMillis(1_763_000_000_000));
            self.jobs.push((id, manifest.clone()));
            let job = Arc::new(NewJob { id, manifest, plan, created, base: None, idempotency_key: None });
            let event = Event::JobSubmitted { request: RequestId(number), job };
            self.mail.push_back((home_lane(id, LANES).0, event));
        }
    }

    fn at(&mut self, at: u64, due: Due) {
        self.due.entry(at).or_default().push_back(due);
    }

    fn next_due(&mut self) -> Option<(u64, Due)> {
        let mut moment = self.due.first_entry()?;
        let (at, due) = (*moment.key(), moment.get_mut().pop_front()?);
        if moment.get().is_empty() {
            moment.remove();
        }
        Some((at, due))
    }

    fn lane_of(agent: u32) -> u16 {
        (agent % u32::from(LANES)) as u16
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrives(agent) => self.arrive(agent),
            Due::Answers(agent, session) if self.agents[agent as usize].session == session => {
                if self.random.chance(GOES_AWAY) { self.go_away(agent) } else { self.answer(agent) }
            }
            Due::Heartbeat(agent, session) if self.agents[agent as usize].session == session => {
                let who = &self.agents[agent as usize];
                let holding = who.held.iter().map(|(job, index, epoch)| Held {
                    job: self.jobs[usize::from(*job)].0.0,
                    index: *index,
                    epoch: *epoch,
                });
                let (session, holding) = (SessionId(session), holding.collect());
                self.mail.push_back((World::lane_of(agent), Event::HeartbeatArrived { session, holding }));
                self.at(self.now + limits::HEARTBEAT_MS, Due::Heartbeat(agent, session.0));
            }
            Due::Answers(..) | Due::Heartbeat(..) => {}
            // An alarm that an earlier one took the place of: otherwise each would set another one for ever.
            Due::Lane(lane) if self.armed[usize::from(lane)] != self.now => {}
            Due::Lane(lane) => {
                self.armed[usize::from(lane)] = u64::MAX;
                match self.lanes[usize::from(lane)].next_timer() {
                    Some(at) if at.0 <= self.now => self.mail.push_back((lane, Event::TimePassed)),
                    _ => self.arm(lane),
                }
            }
        }
    }

    fn arrive(&mut self, agent: u32) {
        self.sessions.push(agent);
        let session = self.sessions.len() as u64;
        let who = &mut self.agents[agent as usize];
        (who.session, who.busy) = (session, false);
        let mut id = [0; 16];
        id[..4].copy_from_slice(&agent.to_be_bytes());
        let provider = u64::from(agent) / AGENTS_PER_PROVIDER;
        let account = match u64::from(agent).is_multiple_of(self.anchors) {
            true => Account::operator(),
            false => Account::of_provider(ProviderId::of_name(&format!("provider {provider}"))),
        };
        let hello = Hello {
            token: None,
            name: "simulated".to_owned(),
            version: "0".to_owned(),
            slots: SLOTS,
            isa: "plain".to_owned(),
            arch: "none".to_owned(),
            memory_bytes: 1 << 30,
            kernels: vec!["monte_carlo".to_owned()],
            region: String::new(),
        };
        let (agent_id, hello) = (AgentId(id), Box::new(hello));
        let event = Event::AgentAdmitted { session: SessionId(session), agent: agent_id, account, hello };
        self.mail.push_back((World::lane_of(agent), event));
        self.at(self.now + limits::HEARTBEAT_MS, Due::Heartbeat(agent, session));
    }

    fn go_away(&mut self, agent: u32) {
        let who = &mut self.agents[agent as usize];
        let session = SessionId(std::mem::take(&mut who.session));
        who.held.clear();
        self.report.returned += 1;
        self.mail.push_back((World::lane_of(agent), Event::SessionClosed { session }));
        self.at(self.now + PACE_MS, Due::Arrives(agent));
    }

    /// All that it holds, job by job.
    fn answer(&mut self, agent: u32) {
        let who = &mut self.agents[agent as usize];
        let session = SessionId(who.session);
        who.busy = false;
        let mut held = std::mem::take(&mut who.held);
        self.report.answered += held.len() as u64;
        held.sort_unstable_by_key(|(job, ..)| *job);
        for items in held.chunk_by(|a, b| a.0 == b.0) {
            let job = self.jobs[usize::from(items[0].0)].0;
            let answers = items.iter().map(|(_, index, epoch)| {
                let partial = &self.answers[inside(*index) as usize];
                let (index, epoch) = (ShardIndex(*index), Epoch(*epoch));
                ShardAnswer { index, epoch, partial: Sent::Here(partial.clone()) }
            });
            let event = Event::ResultsArrived { session, job, answers: answers.collect() };
            self.mail.push_back((World::lane_of(agent), event));
        }
    }

    fn assigned(&mut self, session: SessionId, job: JobId, assignment: &Assignment) {
        let agent = self.sessions[session.0 as usize - 1];
        let who = &mut self.agents[agent as usize];
        if who.session != session.0 {
            return;
        }
        let job = self.jobs.iter().position(|(id, _)| *id == job).expect("only these jobs were submitted");
        who.held.push((job as u8, assignment.index, assignment.epoch));
        if !who.busy {
            who.busy = true;
            let at = self.now + PACE_MS + self.random.below(2 * PACE_MS);
            self.at(at, Due::Answers(agent, session.0));
        }
    }

    fn arm(&mut self, lane: u16) {
        let Some(at) = self.lanes[usize::from(lane)].next_timer() else { return };
        let at = at.0.max(self.now + 1);
        if at < self.armed[usize::from(lane)] {
            self.armed[usize::from(lane)] = at;
            self.at(at, Due::Lane(lane));
        }
    }

    /// Lets lanes take in what there is for them, and what follows from it, until nothing is left of this moment.
    fn deliver(&mut self) -> Result<(), String> {
        let mut effects = Vec::new();
        while let Some((lane, event)) = self.mail.pop_front() {
            self.report.steps += 1;
            effects.extend(self.lanes[usize::from(lane)].step(Tick(self.now), event));
            self.arm(lane);
            for effect in effects.drain(..) {
                self.carry_out(lane, effect)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, lane: u16, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Persist { batch, record } => {
                if let Record::JobEnded { job, outcome, .. } = &record {
                    self.judge(*job, outcome)?;
                    self.ended += 1;
                }
                self.mail.push_back((lane, Event::Committed { batch }));
            }
            Effect::TellLane { lane: to, message } => {
                self.mail.push_back((to.0, Event::LaneSpoke { from: LaneIndex(lane), message }));
            }
            Effect::Assign { session, job, items } => {
                items.iter().for_each(|assignment| self.assigned(session, job, assignment));
            }
            _ => {}
        }
        Ok(())
    }

    /// The sum of what the shards hold, each counted once.
    fn judge(&self, job: JobId, outcome: &Outcome) -> Result<(), String> {
        let Some((_, manifest)) = self.jobs.iter().find(|(id, _)| *id == job) else {
            return Err(format!("nobody asked for {job}"));
        };
        let Outcome::Done { kept: Kept::Tally(tally), .. } = outcome else {
            return Err(format!("{job} has no tally: {outcome:?}"));
        };
        let paths = manifest.spec().params.paths();
        let all: u64 = (0..paths / SHARD_PATHS).map(inside).sum();
        match tally.samples == paths && tally.counts == [all] {
            true => Ok(()),
            false => Err(format!(
                "{job} counts {} of {} paths, not {all} of {paths}",
                tally.counts[0], tally.samples
            )),
        }
    }
}

/// How long this process has computed. *Units*: seconds; nothing where the system does not say.
pub fn computed_s() -> Option<f64> {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// The most memory this process has held. *Units*: bytes; nothing where the system does not say.
pub fn memory_bytes_max() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
