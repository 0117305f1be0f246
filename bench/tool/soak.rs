//! A hub under steady work for as long as one likes, while agents come and go all the time.
//!
//! Owns the churn, the samples of what the processes hold, and the verdict: a store that the hub's own check finds fault
//! with, or something that grows and grows, fails the run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_kernels::philox::Schedule;
use tessera_protocol::spec::JobSpec;

use crate::bed::{Bed, FleetArgs, line, run};
use crate::hub::{BenchError, HubArgs, wait_until};
use crate::latency::Latency;
use crate::machine::Held;
use crate::report::{Axis, Better, Line, Plot, Report};
use growth::{Allowed, Growth};

mod growth;

/// Clients: so many jobs can be under way before one is late for want of a client.
const CLIENTS: usize = 64;
/// Shards to each agent, of the jobs that show what the hub does as fast as it can.
const PROBE_SHARDS: u64 = 1_000;
/// Windows in which latencies are shown over time.
const WINDOWS: u32 = 60;
/// The part of the time that is left out of what is said of growth: buffers and pools fill.
const WARM_UP: f64 = 0.25;
/// A shorter run shows how a new hub fills its memory, and no leak. *Units*: minutes.
const JUDGED_FROM: f64 = 5.0;
/// Shortest and longest time that an agent is away. The hub believes for 12 s in one that said nothing.
const AWAY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(20)];
/// Within this all agents are back once nobody leaves any more, and all jobs have ended.
const BACK_MAX: Duration = Duration::from_secs(120);
/// How long finished jobs are kept, so that they do not look like a leak.
const CONFIG: &str = "[retention]\nfinished = \"10s\"\n";
/// What a finished job that is still kept may take of the hub's memory. *Units*: bytes.
const KEPT_JOB_BYTES: f64 = 16_384.0;
const MIB: f64 = 1_048_576.0;

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Soak {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,
    /// Agents that leave, half of them without a word, and come back after up to 20 s
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1.0)]
    churn: f64,
    /// Shards asked for [default: half of what the hub does as fast as it can]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Shards of each job
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    job_shards: u64,
    /// Between two looks at what the processes hold
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    every_s: f64,
}

/// What was so at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    hub: Held,
    load: Held,
    stored: f64,
    kept_jobs: f64,
}

/// Jobs of the open loop.
struct Stream {
    every: Duration,
    until: Duration,
    next: AtomicU64,
    late: AtomicU64,
    /// When each was to be submitted, since the beginning, and how long it took.
    ended: Mutex<Vec<(Duration, Duration)>>,
}

impl Soak {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let churns = self.churn.is_finite() && self.churn >= 0.0;
        if !(positive(self.minutes) && positive(self.every_s) && churns) {
            return Err(BenchError::Wrong(
                "--minutes and --every-s are more than 0, --churn not less".to_owned(),
            ));
        }
        let mut report = Report::new("soak");
        report.set("minutes", self.minutes);
        report.set("churn", self.churn);
        report.set("job_shards", self.job_shards);
        let hub = HubArgs { config: CONFIG.to_owned(), ..self.hub.clone() };
        let mut bed = Bed::make(&hub, &self.fleet, &mut report)?;
        let rate = match self.rate {
            Some(rate) if positive(rate) => rate,
            Some(rate) => return Err(BenchError::Wrong(format!("--rate {rate}"))),
            None => half_of_what_it_does(&mut bed, self.job_shards)?,
        };
        report.set("rate", rate.round());
        bed.fleet.again(true);
        bed.fleet.take_all();
        let stream = Stream {
            every: Duration::from_secs_f64(self.job_shards as f64 / rate),
            until: Duration::from_secs_f64(self.minutes * 60.0),
            next: AtomicU64::new(0),
            late: AtomicU64::new(0),
            ended: Mutex::new(Vec::new()),
        };
        let before = bed.look()?;
        let began = Instant::now();
        let (samples, left) = self.go_on(&bed, &stream, began)?;
        let seconds = began.elapsed().as_secs_f64();
        wait_until("not all agents came back", BACK_MAX, || {
            Ok(bed.hub.metrics()?["tessera_agents_connected"] == bed.agents as f64)
        })?;
        let after = bed.look()?;
        let ended = stream.ended.into_inner().expect("no client panicked");
        let shards = ended.len() as u64 * self.job_shards;
        report.rate(shards as f64 / seconds);
        after.note_use(&before, shards as f64, "shard", &mut report);
        report.metric("jobs submitted late", "", Better::Less, stream.late.into_inner() as f64);
        for (name, what) in [
            ("attempts lost with their agent", "tessera_attempts_lost_total"),
            ("retries", "tessera_retries_total"),
            ("second attempts", "tessera_spares_total"),
        ] {
            report.metric(name, "", Better::Neither, after.counted_since(&before, what));
        }
        for (name, count) in ["agents that said goodbye", "agents that fell silent"].into_iter().zip(left) {
            report.metric(name, "", Better::Neither, count as f64);
        }
        latencies(&ended, stream.until, &mut report);
        judge(&samples, &mut report);
        let check = bed.end_and_check()?;
        match check.clean {
            true => report
                .note("The hub's own check found its store clean: digests, references, balances.".to_owned()),
            false => report.fail(format!("the store is not clean: {}", check.says)),
        }
        report.note("Every job's shards were all counted; results of short answers were compared with the sum that they must give. At the end the hub counted every agent once.".to_owned());
        Ok(report.close())
    }

    /// Jobs, churn and looks at once, until the time is over and every job has ended. Answers what was seen, and how many
    /// agents left with and without a word.
    fn go_on(
        &self,
        bed: &Bed,
        stream: &Stream,
        began: Instant,
    ) -> Result<(Vec<Sample>, [u64; 2]), BenchError> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| self.client(bed, stream, began))).collect();
            let churning = scope.spawn(|| self.churn(bed, &over));
            let samples = self.look_on(bed, stream.until, began);
            // Agents still come and go until the last job has ended.
            let ended = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
            let ended = ended.collect::<Result<Vec<()>, _>>();
            over.store(true, Ordering::Relaxed);
            let left = churning.join().expect("the churn does not panic");
            ended?;
            Ok((samples?, left))
        })
    }

    fn client(&self, bed: &Bed, stream: &Stream, began: Instant) -> Result<(), BenchError> {
        let api = bed.hub.api()?;
        loop {
            let job = stream.next.fetch_add(1, Ordering::Relaxed);
            let at = Duration::from_secs_f64(stream.every.as_secs_f64() * job as f64);
            if at >= stream.until {
                return Ok(());
            }
            match (began + at).checked_duration_since(Instant::now()) {
                Some(wait) => std::thread::sleep(wait),
                None => drop(stream.late.fetch_add(1, Ordering::Relaxed)),
            }
            // Beyond the seeds of the jobs that the bed has made.
            let spec = bed.answers.job("soak", self.job_shards, (1 << 32) + job);
            let ran = run(&api, &bed.answers, &spec, began + at, |_| {})?;
            stream.ended.lock().expect("no client panics").push((at, ran.ended - ran.intended));
        }
    }

    /// Lets agents leave at a steady pace and come back after a while, until it is over; then all come back.
    fn churn(&self, bed: &Bed, over: &AtomicBool) -> [u64; 2] {
        let (choices, began) = (Schedule::new([0x50a4, 0]), Instant::now());
        let mut away: Vec<(Instant, u32)> = Vec::new();
        let (mut event, mut left) = (0, [0; 2]);
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            let (back, still) = away.iter().partition(|(back, _)| *back <= now);
            away = still;
            let back: Vec<(Instant, u32)> = back;
            back.iter().for_each(|(_, member)| bed.fleet.join(*member));
            while (event as f64) < self.churn * began.elapsed().as_secs_f64() {
                let [who, how] = choices.block(event, 0, 0);
                event += 1;
                let member = (who % bed.agents) as u32;
                if away.iter().any(|(_, of)| *of == member) {
                    continue;
                }
                let goodbye = how & 1 == 0;
                left[usize::from(!goodbye)] += 1;
                bed.fleet.leave(member, goodbye);
                let part = (how >> 11) as f64 / (1u64 << 53) as f64;
                away.push((now + AWAY[0] + (AWAY[1] - AWAY[0]).mul_f64(part), member));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        away.iter().for_each(|(_, member)| bed.fleet.join(*member));
        left
    }

    /// Looks at both processes every few seconds.
    fn look_on(&self, bed: &Bed, until: Duration, began: Instant) -> Result<Vec<Sample>, BenchError> {
        let bar = line(until.as_secs(), "seconds");
        let mut samples = Vec::new();
        while began.elapsed() < until {
            let next = Duration::from_secs_f64(self.every_s * (samples.len() + 1) as f64).min(until);
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            bar.set_position(began.elapsed().as_secs());
            // What the fleet keeps for reports would grow with the jobs.
            bed.fleet.take_all();
            let metrics = bed.hub.metrics()?;
            samples.push(Sample {
                minutes: began.elapsed().as_secs_f64() / 60.0,
                hub: bed.hub.held(),
                load: Held::of(std::process::id()),
                stored: bed.hub.stored_bytes() as f64,
                kept_jobs: metrics.get("tessera_jobs").copied().unwrap_or_default(),
            });
        }
        bar.finish_and_clear();
        Ok(samples)
    }
}

/// Half the rate of such jobs, some seconds' worth of them, of which several are always open. *Units*: shards a second.
fn half_of_what_it_does(bed: &mut Bed, job_shards: u64) -> Result<f64, BenchError> {
    let jobs = (bed.agents * PROBE_SHARDS).div_ceil(job_shards);
    let specs: Vec<JobSpec> = (0..jobs).map(|_| bed.job("as fast as it can", job_shards)).collect();
    let (bed, began) = (&*bed, Instant::now());
    std::thread::scope(|scope| {
        let client = |specs: &[JobSpec]| {
            specs.iter().try_for_each(|spec| bed.run(spec, Instant::now(), |_| {}).map(drop))
        };
        let parts = specs.chunks(specs.len().div_ceil(CLIENTS));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || client(part))).collect();
        running.into_iter().try_for_each(|job| job.join().expect("a client does not panic"))
    })?;
    Ok((jobs * job_shards) as f64 / began.elapsed().as_secs_f64() / 2.0)
}

fn latencies(ended: &[(Duration, Duration)], until: Duration, report: &mut Report) {
    let mut windows = vec![Latency::default(); WINDOWS as usize];
    let mut all = Latency::default();
    for (at, took) in ended {
        let window = (at.as_secs_f64() / until.as_secs_f64() * f64::from(WINDOWS)) as usize;
        windows[window.min(WINDOWS as usize - 1)].record(*took);
        all.record(*took);
    }
    report.latency("job: end to end", &all);
    let minutes = |window: usize| window as f64 / f64::from(WINDOWS) * until.as_secs_f64() / 60.0;
    let some = windows.iter().enumerate().filter(|(_, window)| window.count() > 0);
    let p99s: Vec<(f64, f64)> = some.map(|(at, window)| (minutes(at), window.percentiles().p99)).collect();
    for (name, part) in [("first", &p99s[..p99s.len().div_ceil(4)]), ("last", &p99s[p99s.len() * 3 / 4..])] {
        let mut sorted: Vec<f64> = part.iter().map(|(_, p99)| *p99).collect();
        sorted.sort_by(f64::total_cmp);
        let median = crate::report::median(&sorted);
        report.metric(&format!("p99 of a job, {name} quarter of the time"), "us", Better::Less, median);
    }
    let lines = vec![Line { name: "p99".to_owned(), points: p99s }];
    report.plots.push(plot("A job from end to end, 99 of 100", "microseconds", lines));
}

fn plot(title: &str, unit: &str, lines: Vec<Line>) -> Plot {
    let axis = |name: &str| Axis { name: name.to_owned(), logarithmic: false };
    Plot { title: title.to_owned(), x: axis("minutes"), y: axis(unit), lines }
}

/// Says how what the processes hold grows, and fails the run where that looks like a leak.
fn judge(samples: &[Sample], report: &mut Report) {
    type Of = fn(&Sample) -> f64;
    let memory = Allowed { part: 0.1, least: 16.0 * MIB };
    let few = Allowed { part: 0.1, least: 16.0 };
    let whats: [(&str, &str, Of, Option<Allowed>); 7] = [
        ("hub: memory", "B", |at| at.hub.resident as f64, None),
        // What finished jobs take until they are removed is no leak.
        (
            "hub: memory but for finished jobs",
            "B",
            |at| at.hub.resident as f64 - KEPT_JOB_BYTES * at.kept_jobs,
            Some(memory),
        ),
        ("hub: threads", "", |at| at.hub.threads as f64, Some(few)),
        ("hub: open files", "", |at| at.hub.files as f64, Some(few)),
        ("hub: store", "B", |at| at.stored, None),
        ("load: memory", "B", |at| at.load.resident as f64, Some(memory)),
        ("load: open files", "", |at| at.load.files as f64, Some(few)),
    ];
    let over = samples.last().map_or(0.0, |last| last.minutes);
    if over < JUDGED_FROM {
        report.note(format!("Growth is not judged in less than {JUDGED_FROM} minutes."));
    }
    let warm: Vec<&Sample> = samples.iter().filter(|at| at.minutes >= WARM_UP * over).collect();
    for (name, unit, of, allowed) in whats {
        let points: Vec<(f64, f64)> = warm.iter().map(|at| (at.minutes, of(at))).collect();
        let Some(growth) = Growth::of(&points) else {
            report
                .note("Too few samples to say what grows: --minutes is too short for --every-s.".to_owned());
            continue;
        };
        report.metric(&format!("{name}, a minute"), unit, Better::Less, growth.slope);
        if let Some(allowed) = allowed.filter(|allowed| over >= JUDGED_FROM && growth.is_leak(*allowed)) {
            let Growth { quarters, slope } = growth;
            report.fail(format!("{name} grows and grows: {slope:.0} a minute, by quarters of the time {quarters:.0?}; allowed are {:.0}", allowed.of(quarters[0])));
        }
    }
    let line = |name: &str, of: Of| Line {
        name: name.to_owned(),
        points: samples.iter().map(|at| (at.minutes, of(at))).collect(),
    };
    let lines = vec![
        line("hub", |at| at.hub.resident as f64 / MIB),
        line("load", |at| at.load.resident as f64 / MIB),
    ];
    report.plots.push(plot("Memory", "MiB", lines));
    let lines = vec![
        line("hub: threads", |at| at.hub.threads as f64),
        line("hub: open files", |at| at.hub.files as f64),
        line("load: open files", |at| at.load.files as f64),
    ];
    report.plots.push(plot("Threads and open files", "", lines));
    report.plots.push(plot("Finished jobs kept", "jobs", vec![line("jobs", |at| at.kept_jobs)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of so many minutes in which the hub's memory and the jobs it keeps grow.
    fn judged(minutes: u64, bytes_a_minute: u64, jobs_a_minute: u64) -> Report {
        let samples: Vec<Sample> = (0..minutes * 12)
            .map(|at| Sample {
                minutes: (at + 1) as f64 / 12.0,
                hub: Held { resident: (100 << 20) + at * bytes_a_minute / 12, threads: 12, files: 60 },
                load: Held { resident: 50 << 20, threads: 70, files: 90 },
                stored: 1e6 * at as f64,
                kept_jobs: (at * jobs_a_minute / 12) as f64,
            })
            .collect();
        let mut report = Report::new("made up");
        judge(&samples, &mut report);
        report
    }

    #[test]
    fn memory_that_grows_for_long_fails_unless_finished_jobs_take_it() {
        let leak = judged(20, 4 << 20, 0);
        assert_eq!(leak.failures.len(), 1, "{:?}", leak.failures);
        assert!(leak.failures[0].contains("hub: memory"), "{:?}", leak.failures);
        assert!((leak.metrics["hub: memory, a minute"].median / f64::from(4 << 20) - 1.0).abs() < 0.01);
        assert_eq!(judged(20, 4 << 20, 400).failures, [""; 0], "jobs take it");
        assert_eq!(judged(20, 0, 0).failures, [""; 0]);
        assert_eq!(judged(3, 40 << 20, 0).failures, [""; 0], "too short to tell");
    }
}
