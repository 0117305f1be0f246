//! Shards from a client's submission to a durable result, through a real hub and thousands of agents that compute
//! nothing.
//!
//! Closed loop: jobs of so many shards at once, as fast as the hub goes. Open loop: small jobs at a given rate, each
//! timed from when it was to be submitted, whether or not the hub was ready for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_protocol::spec::JobSpec;

use crate::bed::{Bed, FleetArgs, Look, Ran, line, run};
use crate::fleet::Measures;
use crate::hub::{BenchError, HubArgs};
use crate::latency::Latency;
use crate::report::{Axis, Better, Line, Plot, Report};

/// Clients of the open loop: so many jobs can be under way before one is late for want of a client. It still counts
/// from when it was to be submitted.
const CLIENTS: usize = 64;
/// How often the screen is brought up to date.
const LOOK: Duration = Duration::from_millis(100);
/// What the hub times itself.
const HUB_TIMES: [(&str, &str); 7] = [
    ("hub: turn of a lane", "tessera_turn_seconds"),
    ("hub: answers in to shards out", "tessera_dispatch_seconds"),
    ("hub: batch written to durable", "tessera_commit_seconds"),
    ("hub: shard answered to verified", "tessera_verify_seconds"),
    ("hub: shard verified to durable", "tessera_keep_seconds"),
    ("hub: job submitted to first agent told", "tessera_queue_seconds"),
    ("hub: job submitted to durable end", "tessera_job_seconds"),
];
/// What may be on its way between two counts of the same attempts.
const ON_THE_WAY: f64 = 0.01;

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndToEnd {
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) fleet: FleetArgs,
    /// Shards of a round
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) shards: u64,
    /// Jobs that they belong to
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) jobs: u64,
    /// Open loop: so many shards a second are asked for, whatever the hub does
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
    /// Shards of each job of the open loop
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) job_shards: u64,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

impl EndToEnd {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        match self.hub.lanes[..] {
            [_] => self.of_one_hub(),
            _ => self.sweep(),
        }
    }

    /// A hub with each number of lanes after the other.
    fn sweep(&self) -> Result<Report, BenchError> {
        let mut sweep = Report::new("end-to-end, lanes");
        let (mut rates, mut used) = (Vec::new(), Vec::new());
        for lanes in &self.hub.lanes {
            let mut one = self.clone();
            one.hub.lanes = vec![*lanes];
            let report = one.of_one_hub()?;
            rates.push((f64::from(*lanes), report.shards_per_second.unwrap_or_default()));
            used.push((f64::from(*lanes), report.cpu["hub per shard"].median));
            sweep.absorb(&format!("lanes {lanes}"), report);
        }
        let plot = |title: &str, unit: &str, points| Plot {
            title: title.to_owned(),
            x: Axis { name: "lanes".to_owned(), logarithmic: false },
            y: Axis { name: unit.to_owned(), logarithmic: false },
            lines: vec![Line { name: title.to_owned(), points }],
        };
        sweep.plots.push(plot("Shards a second", "a second", rates));
        sweep.plots.push(plot("Time of the hub on cores, each shard", "microseconds", used));
        Ok(sweep.close())
    }

    fn of_one_hub(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("end-to-end");
        report.set("shards", self.shards);
        match self.rate {
            None => report.set("jobs", self.jobs),
            Some(rate) => {
                report.set("rate", rate);
                report.set("job_shards", self.job_shards);
            }
        }
        let mut bed = Bed::make(&self.hub, &self.fleet, &mut report)?;
        idle(&bed, &mut report)?;
        for round in 1..=self.rounds {
            match self.rate {
                None => self.closed(&mut bed, round, &mut report)?,
                Some(rate) => self.open(&mut bed, rate, round, &mut report)?,
            }
        }
        report.note("Every job's shards were all counted by the hub; results of short answers were compared with the sum that they must give.".to_owned());
        Ok(report.close())
    }

    fn closed(&self, bed: &mut Bed, round: u32, report: &mut Report) -> Result<(), BenchError> {
        let shards = |job: u64| self.shards / self.jobs + u64::from(job < self.shards % self.jobs);
        let specs: Vec<JobSpec> = (0..self.jobs)
            .map(shards)
            .filter(|shards| *shards > 0)
            .map(|shards| bed.job("bench", shards))
            .collect();
        bed.fleet.take();
        let before = bed.look()?;
        let began = Instant::now();
        let ran = with_progress(bed, self.shards, &format!("round {round} of {}", self.rounds), || {
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    specs.iter().map(|spec| scope.spawn(|| bed.run(spec, began, |_| {}))).collect();
                let ran = running.into_iter().map(|job| job.join().expect("a client does not panic"));
                ran.collect::<Result<Vec<_>, _>>()
            })
        })?;
        let seconds = ran.iter().map(|ran| ran.ended).max().map_or(0.0, |end| (end - began).as_secs_f64());
        let after = bed.look()?;
        let measures = bed.fleet.take();
        report.rate(self.shards as f64 / seconds);
        report.latency("refill of an agent", &measures.refill);
        self.account(&before, &after, &measures, &ran, report)
    }

    fn open(&self, bed: &mut Bed, rate: f64, round: u32, report: &mut Report) -> Result<(), BenchError> {
        let jobs = self.shards.div_ceil(self.job_shards);
        let every = Duration::from_secs_f64(self.job_shards as f64 / rate);
        let specs: Vec<JobSpec> = (0..jobs).map(|_| bed.job("bench", self.job_shards)).collect();
        bed.fleet.take();
        let before = bed.look()?;
        let began = Instant::now();
        let (next, late) = (AtomicU64::new(0), AtomicU64::new(0));
        let ran = Mutex::new(Vec::new());
        let client = || -> Result<(), BenchError> {
            let api = bed.hub.api()?;
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let Some(spec) = specs.get(job as usize) else { return Ok(()) };
                let intended = began + every * job as u32;
                match intended.checked_duration_since(Instant::now()) {
                    Some(wait) => std::thread::sleep(wait),
                    None => drop(late.fetch_add(1, Ordering::Relaxed)),
                }
                let one = run(&api, &bed.answers, spec, intended, |_| {})?;
                ran.lock().expect("no client panics").push(one);
            }
        };
        let what = format!("round {round} of {}", self.rounds);
        with_progress(bed, jobs * self.job_shards, &what, || {
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
                clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
            })
        })?;
        let after = bed.look()?;
        let measures = bed.fleet.take();
        let ran = ran.into_inner().expect("no client panicked");
        let seconds = ran.iter().map(|ran| ran.ended).max().map_or(0.0, |end| (end - began).as_secs_f64());
        let done: u64 = ran.iter().map(|ran| ran.view.shards).sum();
        report.rate(done as f64 / seconds);
        report.metric("jobs submitted late", "", Better::Less, late.load(Ordering::Relaxed) as f64);
        self.account(&before, &after, &measures, &ran, report)
    }

    /// Notes what a round took, after comparing what the load saw with what the hub counted.
    fn account(
        &self,
        before: &Look,
        after: &Look,
        measures: &Measures,
        ran: &[Ran],
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let shards: u64 = ran.iter().map(|ran| ran.view.shards_done).sum();
        let assigned = after.counted_since(before, "tessera_shards_assigned_total");
        if (assigned - measures.assigned as f64).abs() > ON_THE_WAY * assigned {
            let said = measures.assigned;
            return Err(BenchError::Wrong(format!("the hub counts {assigned} attempts, the agents {said}")));
        }
        if measures.answered < shards || measures.malformed > 0 || measures.lost_sessions() > 0 {
            return Err(BenchError::Wrong(format!(
                "{} answers to {shards} shards, {} frames that are none, sessions lost: {:?}",
                measures.answered, measures.malformed, measures.lost
            )));
        }
        report.note(
            "The hub's count of attempts and the agents' own agreed within 1 %, and no session was lost."
                .to_owned(),
        );
        self.note_lanes(before, after, report)?;
        let each = |value: f64| value / shards as f64;
        after.note_use(before, shards as f64, "shard", report);
        report.cpu("load per shard", each(measures.computed_ns as f64 / 1e3));
        report.metric("attempts per shard", "", Better::Less, each(measures.answered as f64));
        report.metric(
            "results per frame",
            "",
            Better::More,
            measures.answered as f64 / measures.frames.max(1) as f64,
        );
        report.metric(
            "shards per frame to an agent",
            "",
            Better::More,
            measures.assigned as f64 / measures.frames_assigned.max(1) as f64,
        );
        report.metric("in flight granted an agent", "", Better::Neither, measures.credit.into());
        let checks = after.counted_since(before, "tessera_checks_total");
        report.metric("checks per shard", "", Better::Neither, each(checks));
        report.metric("to the hub per shard", "B", Better::Less, each(measures.traffic.sent_bytes as f64));
        report.metric(
            "from the hub per shard",
            "B",
            Better::Less,
            each(measures.traffic.received_bytes as f64),
        );
        let datagrams = measures.traffic.sent_datagrams + measures.traffic.received_datagrams;
        report.metric("datagrams per shard", "", Better::Less, each(datagrams as f64));
        let commits = after.counted_since(before, "tessera_store_commits_total");
        report.metric("commits per 1000 shards", "", Better::Neither, 1e3 * each(commits));
        let syncs = after.counted_since(before, "tessera_store_groups_total");
        report.metric("waits for the disk", "", Better::Neither, syncs);
        let [mut commit, mut queue, mut finish, mut whole] =
            [const { None::<Latency> }; 4].map(|_| Latency::default());
        for Ran { id, intended, accepted, ended, .. } in ran {
            commit.record(*accepted - *intended);
            whole.record(*ended - *intended);
            let Some(seen) = measures.jobs.get(id) else { continue };
            queue.record(seen.first_assigned.saturating_duration_since(*intended));
            if let Some(last) = seen.last_answered {
                finish.record(ended.saturating_duration_since(last));
            }
        }
        for (name, histogram) in HUB_TIMES {
            report.latency(name, &after.timed_since(before, histogram));
        }
        report.latency("job: submission to durable acceptance", &commit);
        report.latency("job: submission to first shard at an agent", &queue);
        report.latency("job: last answer to durable result", &finish);
        report.latency("job: end to end", &whole);
        Ok(())
    }

    /// How the work was spread over lanes, and what each paid for its own.
    fn note_lanes(&self, before: &Look, after: &Look, report: &mut Report) -> Result<(), BenchError> {
        let lanes = self.hub.lanes()?;
        let all = after.counted_since(before, "tessera_shards_assigned_total");
        for lane in (0..lanes).filter(|_| lanes > 1) {
            let assigned =
                after.counted_since(before, &format!("tessera_shards_assigned_total{{lane=\"{lane}\"}}"));
            let agents = after.metrics.get(&format!("tessera_agents_connected{{lane=\"{lane}\"}}"));
            let name = |what: &str| format!("lane {lane}: {what}");
            report.metric(&name("agents"), "", Better::Neither, agents.copied().unwrap_or_default());
            report.metric(&name("part of attempts"), "%", Better::Neither, 100.0 * assigned / all);
            let ns = after.ns_of_thread_since(before, &format!("lane-{lane}"));
            if assigned > 0.0 {
                report.cpu(&name("each of its attempts"), ns / 1e3 / assigned);
            }
        }
        Ok(())
    }
}

/// What the hub does while nothing is asked of it.
fn idle(bed: &Bed, report: &mut Report) -> Result<(), BenchError> {
    const IDLE: Duration = Duration::from_secs(3);
    let (before, began) = (bed.hub.usage(), Instant::now());
    std::thread::sleep(IDLE);
    let used: u64 = bed.hub.usage().ns_since(&before).values().sum();
    let part = 100.0 * used as f64 / began.elapsed().as_nanos() as f64;
    report.metric("hub idle", "% of a core", Better::Less, part);
    Ok(())
}

/// Shows how many answers there are while something goes on.
fn with_progress<T>(bed: &Bed, total: u64, what: &str, act: impl FnOnce() -> T) -> T {
    let bar = line(total, what);
    let done = std::sync::atomic::AtomicBool::new(false);
    let board = bed.fleet.board.clone();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bar.set_position(board.answered.load(Ordering::Relaxed).min(total));
                std::thread::sleep(LOOK);
            }
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        result
    });
    bar.finish_and_clear();
    result
}
