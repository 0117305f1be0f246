//! The scheduler alone: one lane's machine, given answers and asked for what follows, without a network or a disk.
//!
//! An assign-and-complete is one answer of an agent taken in (decoded, verified at the job's class, reduced) and one
//! shard assigned in its place. Timed is the machine's step with its timers and effects; what carries them out is not.
//! Where jobs live at another lane than agents, as most do in a hub of many, the two parts are timed apart: placing
//! and taking in at one, verifying and reducing at the other.

use std::collections::VecDeque;
use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use tessera_hub_core::event::Sent;
use tessera_hub_core::standing::StandingRecord;
use tessera_hub_core::{Account, Config, Effect, Event, Lane, NewJob, RequestId, SessionId, ShardAnswer};
use tessera_planners::Plan;
use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::limits::CREDIT_PER_SLOT;
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex, Tick, UnixMillis};
use tessera_protocol::wire::Hello;

use crate::allocations::Allocations;
use crate::bed::line;
use crate::fleet::{Answers, computed_ns};
use crate::hub::BenchError;
use crate::latency::Latency;
use crate::report::{Axis, Better, Line, Plot, Report};
use threads::Counter;

mod threads;

const AGENTS_PER_PROVIDER: u64 = 20;
const ANCHORS_ONE_IN: u64 = 10;
/// When the simulated hub was started.
const UNIX_ORIGIN: UnixMillis = UnixMillis(1_763_000_000_000);
/// Of the shards of a machine so many in a thousand are answered before and so many at most in all while it is timed:
/// the ends of jobs are another question.
const BEFORE: u64 = 100;
const AT_MOST: u64 = 600;
/// Shards that are counted in instructions: each costs a hundred times what it costs untold.
const COUNTED: u64 = 20_000;

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Agents of the lane
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    agents: u64,
    /// Shards that each agent may hold
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// Answers that come together
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Agents whose answers come in one turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Projects that share the lane
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    projects: u64,
    /// Open jobs
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Open shards of all jobs
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    open_shards: u64,
    /// Shards that are timed in each round
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    timed: u64,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Machines of other lanes at once, each on a thread and a core, up to so many
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Leave out the two parts on two lanes, and how the time grows with the number of open shards
    #[arg(long)]
    no_sweep: bool,
    /// Count instructions too; needs valgrind
    #[arg(long)]
    instructions: bool,
}

/// What a part of a round came to.
#[derive(Default)]
struct Timed {
    shards: u64,
    took: Duration,
    /// Of it, on a core: what other programs on the machine do not add to. *Units*: nanoseconds.
    computed_ns: u64,
    each: Latency,
    allocated: Allocations,
    steps: u64,
    /// What the machine held. *Units*: bytes.
    live_bytes: f64,
}

impl Timed {
    /// Time on a core for each shard, less what reading that clock takes.
    fn ns(&self) -> f64 {
        let reading = self.steps as f64 * processor_clock_read_ns();
        (self.computed_ns as f64 - reading).max(0.0) / self.shards as f64
    }
}

/// The machine has nothing for agents to do while shards are open.
#[derive(Debug)]
struct Stalled {
    shards: u64,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no agent holds a shard after {} answers: ask for more open shards, or fewer agents",
            self.shards
        )
    }
}

impl std::error::Error for Stalled {}

impl Settings {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("scheduler");
        self.world().into_iter().for_each(|(name, value)| report.set(name, value));
        report.set("timed", self.timed);
        report.set("threads", self.threads);
        for round in 1..=self.rounds {
            let [timed, _] = self.time(&format!("round {round} of {}", self.rounds), 1)?;
            report.rate(1e9 / timed.ns());
            report.metric("assign and complete", "ns", Better::Less, timed.ns());
            report.latency("assign and complete", &timed.each);
            let each = |value: u64| value as f64 / timed.shards as f64;
            report.metric(
                "by the clock on the wall",
                "ns",
                Better::Less,
                timed.took.as_nanos() as f64 * each(1),
            );
            report.metric("allocations per shard", "", Better::Less, each(timed.allocated.count));
            report.metric("allocated per shard", "B", Better::Less, each(timed.allocated.bytes));
            report.metric("shards per turn", "", Better::Neither, timed.shards as f64 / timed.steps as f64);
            report.memory("machine", timed.live_bytes);
            report.memory("machine per agent", timed.live_bytes / self.agents as f64);
            if !self.no_sweep {
                let [agents, homes] = self.time(&format!("two lanes, round {round}"), 2)?;
                report.metric("assign and complete, jobs at another lane", "ns", Better::Less, agents.ns());
                report.metric("verify and reduce, agents at another lane", "ns", Better::Less, homes.ns());
                for (what, timed) in [("placing", &agents), ("verifying", &homes)] {
                    let count = timed.allocated.count as f64 / timed.shards as f64;
                    report.metric(&format!("allocations per shard, {what} alone"), "", Better::Less, count);
                }
                self.sweep(&mut report)?;
            }
            if self.threads > 1 {
                self.scale(&mut report)?;
            }
        }
        report.metric("clock read", "ns", Better::Neither, clock_read_ns());
        if self.instructions {
            self.count_instructions(&mut report)?;
        }
        report.note("\"assign and complete\" is time on a core, less what reading that clock takes; its percentiles are by the clock on the wall, and know what else the machine did.".to_owned());
        Ok(report.close())
    }

    /// What is in it.
    fn world(&self) -> [(&'static str, u64); 7] {
        [
            ("agents", self.agents),
            ("in_flight", self.in_flight),
            ("batch", self.batch),
            ("frames", self.frames),
            ("projects", self.projects),
            ("jobs", self.jobs),
            ("open_shards", self.open_shards),
        ]
    }

    /// The same few agents and jobs with more and more open shards.
    fn sweep(&self, report: &mut Report) -> Result<(), BenchError> {
        let mut points = Vec::new();
        for open_shards in [1_000, 10_000, 100_000, 1_000_000] {
            let few = Settings {
                agents: 20,
                in_flight: 8,
                batch: 4,
                projects: 2,
                jobs: 4,
                open_shards,
                timed: self.timed / 3,
                ..self.clone()
            };
            let [timed, _] = few.time(&format!("{open_shards} open shards"), 1)?;
            report.metric(&format!("{open_shards} open shards, 20 agents"), "ns", Better::Less, timed.ns());
            report.memory(&format!("machine, {open_shards} open shards"), timed.live_bytes);
            points.push((open_shards as f64, timed.ns()));
        }
        let line = Line { name: "round 1".to_owned(), points };
        let title = "Assign and complete, 20 agents";
        match report.plots.iter_mut().find(|plot| plot.title == title) {
            Some(plot) => plot.lines.push(Line { name: format!("round {}", plot.lines.len() + 1), ..line }),
            None => report.plots.push(Plot {
                title: title.to_owned(),
                x: Axis { name: "open shards".to_owned(), logarithmic: true },
                y: Axis { name: "nanoseconds".to_owned(), logarithmic: false },
                lines: vec![line],
            }),
        }
        Ok(())
    }

    /// Times machines of one lane or of two, one after the other, until enough shards were timed. Answers what the
    /// first lane took, which has the agents, and what the second took, if jobs live there.
    fn time(&self, what: &str, lanes: u16) -> Result<[Timed; 2], BenchError> {
        self.time_counting(&line(self.timed, what), lanes, None)
    }

    fn time_counting(
        &self,
        bar: &ProgressBar,
        lanes: u16,
        counter: Option<&Counter>,
    ) -> Result<[Timed; 2], BenchError> {
        let mut timed = <[Timed; 2]>::default();
        while timed[0].shards < self.timed {
            let mut world = World::new(self, lanes);
            world.counter = counter.cloned();
            let share = |of: u64| (self.open_shards * of / 1_000).max(1);
            world.answer(share(BEFORE).min(self.timed), None)?;
            let count = share(AT_MOST - BEFORE).min(self.timed - timed[0].shards);
            world.answer(count, Some(&mut timed))?;
            timed[0].live_bytes = world.live_bytes();
            world.lanes.iter().for_each(Lane::invariants);
            bar.set_position(timed[0].shards);
        }
        bar.finish_and_clear();
        Ok(timed)
    }

    /// Runs this program again under callgrind, which counts what [`counted_step`] executes.
    fn count_instructions(&self, report: &mut Report) -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let (counts, json) = (folder.path().join("counts"), folder.path().join("report.json"));
        let mut command = Command::new("valgrind");
        command
            .args(["-q", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_step*"])
            .arg(format!("--callgrind-out-file={}", counts.display()))
            .arg(std::env::current_exe()?)
            .args(["scheduler", "--no-sweep", "--rounds", "1", "--timed", &COUNTED.to_string(), "--json"])
            .arg(&json);
        for (name, number) in self.world() {
            command.args([format!("--{}", name.replace('_', "-")), number.to_string()]);
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                report.note("Instructions were not counted: there is no valgrind.".to_owned());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let text = std::fs::read_to_string(&counts).unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok());
        match total.filter(|total| output.status.success() && *total > 0.0) {
            Some(total) => {
                report.metric("instructions per shard", "", Better::Less, total / COUNTED as f64);
                Ok(())
            }
            None => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(BenchError::Wrong(format!("callgrind counted nothing ({}): {said}", output.status)))
            }
        }
    }
}

/// What one reading of the clock costs.
fn clock_read_ns() -> f64 {
    const READS: u32 = 100_000;
    let began = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    began.elapsed().as_nanos() as f64 / f64::from(READS)
}

/// The least that two readings of the clock of this thread's time on a core add to what lies between them.
fn processor_clock_read_ns() -> f64 {
    (0..1_000)
        .map(|_| {
            let before = computed_ns();
            computed_ns() - before
        })
        .min()
        .unwrap_or_default() as f64
}

/// What an agent holds of a job. *Order*: as it came.
type Held = Vec<(JobId, u64, u64)>;

/// A lane with its agents and jobs, or one with agents and one with jobs.
struct World {
    lanes: Vec<Lane>,
    /// What is to happen at which of them.
    inbox: VecDeque<(usize, Event)>,
    began: Instant,
    /// By session.
    agents: Vec<Held>,
    /// In which order they answer, which is another than that in which they came, and whose turn it is.
    order: Vec<usize>,
    turn: usize,
    batch: usize,
    frames: u64,
    answers: Answers,
    effects: Vec<Effect>,
    /// Where its thread counts, beside others.
    counter: Option<Counter>,
    /// Answers that it has not counted.
    uncounted: u64,
    /// When all but the machine was there.
    before: Allocations,
}

/// One step of the machine, and its effects. Apart from the others so that a tool can find it by its name.
#[inline(never)]
fn counted_step(lane: &mut Lane, now: Tick, event: Event, effects: &mut Vec<Effect>) {
    effects.extend(lane.step(now, event));
}

fn provider(agent: u64) -> Account {
    match agent.is_multiple_of(ANCHORS_ONE_IN) {
        true => Account::operator(),
        false => {
            Account::of_provider(ProviderId::of_name(&format!("provider {}", agent / AGENTS_PER_PROVIDER)))
        }
    }
}

fn agent_id(agent: u64) -> AgentId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&agent.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AgentId(id)
}

impl World {
    fn new(settings: &Settings, lanes: u16) -> World {
        let lane = |lane: u16| {
            let lane = LaneIndex(lane);
            Lane::new(Config { lane, lanes, sampling_key: [7; 32], unix_origin: UNIX_ORIGIN })
        };
        let answers = Answers::of_size(0).expect("the shortest answers always are");
        let mut world = World {
            lanes: (0..lanes).map(lane).collect(),
            inbox: VecDeque::new(),
            began: Instant::now(),
            agents: (0..settings.agents)
                .map(|_| Vec::with_capacity(2 * settings.in_flight as usize))
                .collect(),
            order: (0..settings.agents as usize).collect(),
            turn: 0,
            batch: settings.batch as usize,
            frames: settings.frames,
            answers,
            effects: Vec::with_capacity(1 << 16),
            counter: None,
            uncounted: 0,
            before: Allocations::default(),
        };
        world.order.sort_unstable_by_key(|agent| agent_id(*agent as u64));
        world.before = Allocations::so_far();
        let trusted = (0..settings.agents).map(|agent| {
            let Account { provider, anchor } = provider(agent);
            let agent = agent_id(agent);
            StandingRecord {
                agent,
                provider,
                anchor,
                standing: Standing::Trusted,
                agreed: 0,
                wrong: 0,
                proven: false,
            }
        });
        let trusted: Arc<[StandingRecord]> = trusted.collect();
        for lane in 0..world.lanes.len() {
            world.happen(lane, Event::StandingsRecovered { agents: trusted.clone() });
        }
        let slots = settings.in_flight.div_ceil(CREDIT_PER_SLOT.into()) as u16;
        for agent in 0..settings.agents {
            let hello = Box::new(hello(slots));
            let (session, id) = (SessionId(agent), agent_id(agent));
            world.happen(0, Event::AgentAdmitted { session, agent: id, account: provider(agent), hello });
        }
        for job in 0..settings.jobs {
            let shards =
                settings.open_shards / settings.jobs + u64::from(job < settings.open_shards % settings.jobs);
            if shards > 0 {
                world.submit(job, shards, &format!("project-{}", job % settings.projects));
            }
        }
        world
    }

    fn submit(&mut self, number: u64, shards: u64, project: &str) {
        let mut spec = self.answers.job("bench", shards, number);
        spec.project = project.to_owned();
        let manifest = spec.check().unwrap_or_else(|error| panic!("the job is right: {error}"));
        let plan = Plan::new(&manifest, 0).unwrap_or_else(|error| panic!("the job can be planned: {error}"));
        // What its last eight bytes leave over says where a job lives.
        let (lanes, home) = (self.lanes.len() as u64, self.lanes.len() - 1);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&(number * lanes + home as u64).to_le_bytes());
        let id = JobId::new(0, random);
        let job =
            Arc::new(NewJob { id, manifest, plan, created: UNIX_ORIGIN, base: None, idempotency_key: None });
        self.happen(home, Event::JobSubmitted { request: RequestId(number), job });
    }

    /// Something happens that is not timed.
    fn happen(&mut self, at: usize, event: Event) {
        self.inbox.push_back((at, event));
        self.settle(None);
    }

    /// All that is to happen does, with what follows; times what each lane takes where that is asked for.
    fn settle(&mut self, mut timed: Option<&mut [Timed; 2]>) {
        let mut committed = Vec::new();
        while let Some((at, event)) = self.inbox.pop_front() {
            let mut events = vec![event];
            while self.inbox.front().is_some_and(|(lane, _)| *lane == at) {
                events.extend(self.inbox.pop_front().map(|(_, event)| event));
            }
            let before = Allocations::so_far();
            let computed = computed_ns();
            let began = Instant::now();
            let now = Tick((began - self.began).as_millis() as u64);
            for event in events {
                match timed {
                    Some(_) => counted_step(&mut self.lanes[at], now, event, &mut self.effects),
                    None => self.effects.extend(self.lanes[at].step(now, event)),
                }
            }
            if let Some(timed) = &mut timed {
                if let Some(counter) = &self.counter {
                    counter.count(std::mem::take(&mut self.uncounted));
                }
                let timed = &mut timed[at];
                timed.took += began.elapsed();
                timed.computed_ns += computed_ns() - computed;
                timed.allocated += Allocations::since(before);
                timed.steps += 1;
            }
            self.carry_out(at, &mut committed);
        }
        // The store takes everything at once.
        if !committed.is_empty() {
            self.inbox.extend(committed);
            self.settle(None);
        }
    }

    /// Does what a lane asks for.
    fn carry_out(&mut self, at: usize, committed: &mut Vec<(usize, Event)>) {
        let from = LaneIndex(at as u16);
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Assign { session, job, items } => {
                    let held = items.iter().map(|assignment| (job, assignment.index, assignment.epoch));
                    self.agents[session.0 as usize].extend(held);
                }
                Effect::Persist { batch, .. } => committed.push((at, Event::Committed { batch })),
                Effect::TellLane { lane, message } => {
                    self.inbox.push_back((lane.0.into(), Event::LaneSpoke { from, message }));
                }
                _ => {}
            }
        }
    }

    /// The answers of the next agent that holds something: those to its oldest job.
    fn next_answers(&mut self) -> Option<(SessionId, JobId, Vec<ShardAnswer>)> {
        let count = self.order.len();
        let turn = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(|turn| !self.agents[self.order[*turn]].is_empty())?;
        self.turn = (turn + 1) % count;
        let agent = self.order[turn];
        let held = &mut self.agents[agent];
        let job = held[0].0;
        let (mut answers, most) = (Vec::new(), self.batch);
        let all = &self.answers;
        held.retain(|(of, index, epoch)| {
            let now = *of == job && answers.len() < most;
            if now {
                let answer = all.to(*index);
                let (index, epoch) = (ShardIndex(*index), Epoch(*epoch));
                answers.push(ShardAnswer { index, epoch, partial: Sent::Here(answer.partial.clone()) });
            }
            !now
        });
        Some((SessionId(agent as u64), job, answers))
    }

    /// Answers so many shards, and times what the machine does with them where that is asked for.
    fn answer(&mut self, shards: u64, mut timed: Option<&mut [Timed; 2]>) -> Result<(), BenchError> {
        let mut answered = 0;
        while answered < shards {
            let before = answered;
            for _ in 0..self.frames {
                let Some((session, job, answers)) = self.next_answers() else { break };
                answered += answers.len() as u64;
                self.inbox.push_back((0, Event::ResultsArrived { session, job, answers }));
            }
            let count = answered - before;
            if count == 0 {
                return Err(BenchError::Settings(Box::new(Stalled { shards: answered })));
            }
            self.uncounted = count;
            self.inbox.extend((0..self.lanes.len()).map(|lane| (lane, Event::TimePassed)));
            let took =
                |timed: &Option<&mut [Timed; 2]>| timed.as_ref().map_or(Duration::ZERO, |of| of[0].took);
            let so_far = took(&timed);
            self.settle(timed.as_deref_mut());
            let took = took(&timed) - so_far;
            if let Some(timed) = &mut timed {
                timed[0].each.record_ns(took.as_nanos() as u64 / count, count);
                timed.iter_mut().for_each(|timed| timed.shards += count);
            }
        }
        Ok(())
    }

    /// What was allocated since before the machine was made and is held still; this side allocates nothing then but
    /// answers, which it gives away.
    fn live_bytes(&self) -> f64 {
        Allocations::since(self.before).live()
    }
}

fn hello(slots: u16) -> Hello {
    Hello {
        token: None,
        name: "simulated".to_owned(),
        version: "0".to_owned(),
        slots,
        isa: "plain".to_owned(),
        arch: "none".to_owned(),
        memory_bytes: 1 << 30,
        kernels: vec!["monte_carlo".to_owned()],
        region: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_timed_once_and_the_machine_stays_whole() {
        let settings = Settings {
            agents: 12,
            in_flight: 4,
            batch: 2,
            frames: 1,
            projects: 3,
            jobs: 5,
            open_shards: 1_000,
            timed: 700,
            rounds: 1,
            threads: 1,
            no_sweep: true,
            instructions: false,
        };
        let [timed, _] = settings.time("test", 1).unwrap();
        assert!(timed.shards >= 700 && timed.shards < 720, "{}", timed.shards);
        assert_eq!(timed.each.count(), timed.shards);
        assert!(timed.steps >= timed.shards / 2);
        let [agents, homes] = settings.time("test", 2).unwrap();
        assert!(agents.shards == homes.shards && agents.shards >= 700, "{}", agents.shards);
        assert!(agents.computed_ns > 0 && homes.computed_ns > 0);
    }
}
