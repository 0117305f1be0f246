//! A real hub that is killed again and again under load, and what its customers find afterwards.
//!
//! Owns the choice of moments, drawn from a seed; the moments themselves are the machine's, so a run is
//! not a function of its seed. May start and end only processes of its own.

pub(crate) mod books;
pub(crate) mod customer;
pub(crate) mod jobs;
pub(crate) mod programs;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tessera_protocol::id::JobId;

use crate::sim::Random;
use customer::Desk;
use programs::{Agent, Hub, Place};

const AGENTS: u64 = 2;
/// A hub that has announced itself lives so long at most. *Units*: milliseconds.
const LIFE_MS_MAX: u64 = 500;
/// One life in so many is longer, so that more of the work is done.
const LONG_LIFE_ONE_IN: u64 = 25;
const LONG_LIFE_MS: u64 = 3_000;
/// An agent is killed in one cycle of so many, and all are before a long life. One that is killed comes back
/// at once; one that only lost its hub waits longer each time, as it should.
const AGENT_ONE_IN: u64 = 3;
/// Cycles between two lines of progress.
const TELL_EVERY: u64 = 25;

/// How often, and from which seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Deaths of the hub.
    pub cycles: u64,
    /// Chooses the moments and the jobs.
    pub seed: u64,
    /// Asks the hub to acknowledge so many milliseconds before it commits; needs its feature `hasty`.
    pub early_ms: Option<u64>,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Deaths of the hub.
    pub cycles: u64,
    /// Deaths of agents.
    pub agent_deaths: u64,
    /// Acknowledged jobs.
    pub jobs: u64,
    /// Acknowledged jobs that are not there or do not end, each said in a sentence.
    pub lost: Vec<String>,
    /// Whatever else does not hold, each said in a sentence.
    pub wrong: Vec<String>,
    /// How long the cycles took.
    pub elapsed: Duration,
    /// Whether the store was checked as a whole at the end.
    pub checked: bool,
}

impl Report {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.wrong.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { cycles, jobs, lost, wrong, .. } = self;
        write!(f, "{cycles} cycles, {jobs} jobs, {} lost, {} wrong", lost.len(), wrong.len())
    }
}

/// Why a run came to no end.
#[derive(Debug)]
pub enum Failure {
    /// A program is not there.
    NotBuilt {
        /// Which.
        program: String,
    },
    /// The operating system refused something.
    System(io::Error),
    /// A hub ended before it announced itself.
    Silent,
    /// The hub does not know a job that it acknowledged.
    Lost {
        /// Which.
        job: JobId,
        /// What it said instead.
        said: String,
    },
    /// The hub lives, and takes no jobs.
    Refusing {
        /// What it says.
        said: String,
    },
    /// Something was said that should not be.
    Said(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotBuilt { program } => {
                write!(f, "there is no {program} beside this program: build the workspace first")
            }
            Failure::System(error) => error.fmt(f),
            Failure::Silent => f.write_str("the hub ended before it announced itself"),
            Failure::Lost { job, said } => write!(f, "job {job} was acknowledged and is lost: {said}"),
            Failure::Refusing { said } => write!(f, "the hub lives and takes no jobs: {said}"),
            Failure::Said(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::System(error) => Some(error),
            _ => None,
        }
    }
}

/// Kills a hub `cycles` times under load, then lets all end and looks at everything.
///
/// *Errors*: the run came to no end; what it found wrong is in the report.
pub fn run(settings: &Settings, folder: &Path, tell: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let known = Arc::new(jobs::known(settings.seed)?);
    let early = settings.early_ms.map(|ms| ("TESSERA_TEST_ACKNOWLEDGE_EARLY_MS".to_owned(), ms.to_string()));
    let place = Place { data: folder.join("hub"), config: None, environment: early.into_iter().collect() };
    let mut hub = Hub::start(place)?;
    let api = hub.api()?;
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let token = api.issue_agent_token(None).map_err(|error| Failure::Said(error.to_string()))?;
        agents.push(Agent::start(&hub.quic, folder.join(format!("agent-{number}")), token.token)?);
    }
    let desk = Arc::new(Desk::default());
    let customer = {
        let (api, known, desk) = (api.clone(), known.clone(), desk.clone());
        let random = Random::new(!settings.seed);
        thread::spawn(move || {
            let outcome = customer::serve(&api, &known, &desk, random);
            // One that gave up found something: there is no need to go on.
            desk.closed.store(true, Ordering::Relaxed);
            outcome
        })
    };
    let mut report = Report::default();
    let outcome = cycles(settings, (&mut hub, &mut agents), &desk, &mut report, tell);
    desk.closed.store(true, Ordering::Relaxed);
    let promised = customer.join().unwrap_or_else(|_| Err(Failure::Said("the customer panicked".to_owned())));
    outcome?;
    let promised = match promised {
        Ok(promised) => promised,
        Err(Failure::Lost { job, said }) => {
            report.jobs = desk.promised.load(Ordering::Relaxed);
            report.lost.push(format!("job {job}: {said}"));
            return Ok(report);
        }
        Err(failure @ Failure::Refusing { .. }) => {
            report.jobs = desk.promised.load(Ordering::Relaxed);
            report.lost.push(failure.to_string());
            return Ok(report);
        }
        Err(failure) => return Err(failure),
    };
    report.jobs = promised.len() as u64;
    tell("all quiet; waiting for what is open");
    // One that waits for its next attempt would only cost time now.
    agents.iter_mut().try_for_each(Agent::crash_and_restart)?;
    books::audit(&api, &known, &promised, &mut report)?;
    drop(agents);
    match hub.stop_and_check() {
        Ok(checked) => report.checked = checked,
        Err(Failure::Said(said)) => report.wrong.push(said),
        Err(failure) => return Err(failure),
    }
    Ok(report)
}

fn cycles(
    settings: &Settings,
    (hub, agents): (&mut Hub, &mut [Agent]),
    desk: &Desk,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let mut random = Random::new(settings.seed);
    let started = Instant::now();
    for cycle in 1..=settings.cycles {
        if desk.closed.load(Ordering::Relaxed) {
            break;
        }
        let long = random.below(LONG_LIFE_ONE_IN) == 0;
        let life_ms = if long { LONG_LIFE_MS } else { random.below(LIFE_MS_MAX) };
        let victim = random.below(AGENT_ONE_IN * AGENTS) as usize;
        for (_, agent) in agents.iter_mut().enumerate().filter(|(number, _)| long || *number == victim) {
            agent.crash_and_restart()?;
            report.agent_deaths += 1;
        }
        thread::sleep(Duration::from_millis(life_ms));
        hub.kill()?;
        hub.start_again()?;
        report.cycles = cycle;
        report.elapsed = started.elapsed();
        if cycle.is_multiple_of(TELL_EVERY) || cycle == settings.cycles {
            let (promised, done) = (desk.promised.load(Ordering::Relaxed), desk.done.load(Ordering::Relaxed));
            let rate = cycle as f64 / report.elapsed.as_secs_f64();
            tell(&format!(
                "{cycle} cycles, {rate:.1} a second; {promised} jobs acknowledged, {done} seen done"
            ));
        }
    }
    Ok(())
}
