//! Small jobs that a person waits for, alone and beside batch jobs that take all there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_protocol::spec::{JobSpec, Priority};

use crate::bed::{Bed, FleetArgs, line, run};
use crate::hub::{BenchError, HubArgs};
use crate::latency::Latency;
use crate::report::{Better, Report};

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Mixed {
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Interactive jobs of each part
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Interactive jobs a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 10.0)]
    rate: f64,
    /// Shards of each interactive job
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    job_shards: u64,
    /// Shards of each batch job; another one is submitted as long as there is something to measure
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    batch_shards: u64,
    /// Measures beside bulk too: batch jobs with results of about so many bytes each, and tasks of about as many
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    bulk_bytes: usize,
    /// Shards of each job with such results
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    bulk_shards: u64,
    /// Projects with batch jobs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    projects: u64,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

impl Mixed {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("mixed");
        report.set("jobs", self.jobs);
        report.set("rate", self.rate);
        report.set("job_shards", self.job_shards);
        report.set("batch_shards", self.batch_shards);
        report.set("projects", self.projects);
        let fleet = FleetArgs { bulk_bytes: self.bulk_bytes, ..self.fleet.clone() };
        let mut bed = Bed::make(&self.hub, &fleet, &mut report)?;
        if let Some(bulk) = &bed.bulk {
            report.set("bulk_bytes", bulk.bytes());
            report.set("bulk_shards", self.bulk_shards);
        }
        for round in 1..=self.rounds {
            let alone = self.interactive(&mut bed, &format!("alone {round} of {}", self.rounds))?;
            report.latency("interactive job alone", &alone);
            let batch = Beside { name: "batch", bulk: false, shards: self.batch_shards };
            self.beside(&mut bed, batch, round, &mut report)?;
            if self.bulk_bytes > 0 {
                let bulk = Beside { name: "bulk", bulk: true, shards: self.bulk_shards };
                self.beside(&mut bed, bulk, round, &mut report)?;
            }
        }
        report.note("Interactive jobs are timed from when they were to be submitted. Batch rates are what the jobs' own counts of finished shards grew by while interactive jobs ran.".to_owned());
        Ok(report.close())
    }

    /// Jobs at a steady pace, each timed from when it was to begin until its result is durable.
    fn interactive(&self, bed: &mut Bed, what: &str) -> Result<Latency, BenchError> {
        let every = Duration::from_secs_f64(1.0 / self.rate);
        let mut specs = Vec::new();
        for _ in 0..self.jobs {
            let mut spec = bed.job("interactive", self.job_shards);
            (spec.priority, spec.project) = (Priority::Interactive, "people".to_owned());
            specs.push(spec);
        }
        let (began, bar) = (Instant::now(), line(self.jobs.into(), what));
        let (api, answers) = (bed.hub.api()?, &bed.answers);
        let ran = std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for (number, spec) in specs.iter().enumerate() {
                let intended = began + every * number as u32;
                std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                let (api, bar) = (&api, &bar);
                clients.push(scope.spawn(move || {
                    let ran = run(api, answers, spec, intended, |_| {});
                    bar.inc(1);
                    ran
                }));
            }
            let ran = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
            ran.collect::<Result<Vec<_>, _>>()
        })?;
        bar.finish_and_clear();
        let mut latency = Latency::default();
        ran.iter().for_each(|ran| latency.record(ran.ended - ran.intended));
        Ok(latency)
    }

    fn beside(&self, bed: &mut Bed, what: Beside, round: u32, report: &mut Report) -> Result<(), BenchError> {
        let projects: Vec<String> =
            (0..self.projects).map(|project| format!("{}-{project}", what.name)).collect();
        // Enough of them that none runs out, made beforehand since each is another.
        let mut specs = Vec::new();
        for project in &projects {
            let mut of_project = Vec::new();
            for _ in 0..1_000 {
                let spec = match what.bulk {
                    true => bed.bulk_job(what.name, what.shards),
                    false => Some(bed.job(what.name, what.shards)),
                };
                of_project.extend(spec.map(|spec| JobSpec { project: project.clone(), ..spec }));
            }
            specs.push(of_project);
        }
        let answers = bed.bulk.clone().filter(|_| what.bulk).unwrap_or_else(|| bed.answers.clone());
        let (api, done) = (bed.hub.api()?, AtomicBool::new(false));
        let finished = |project: &str| -> Result<u64, BenchError> {
            let jobs = api.jobs()?.jobs;
            Ok(jobs.iter().filter(|job| job.project == project).map(|job| job.shards_done).sum())
        };
        let all_began = Instant::now();
        std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for of_project in &specs {
                let (api, answers, done) = (&api, &answers, &done);
                clients.push(scope.spawn(move || {
                    let mut whole = 0;
                    for spec in of_project {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        whole += run(api, answers, spec, Instant::now(), |_| {})?.view.shards;
                    }
                    Ok::<_, BenchError>(whole)
                }));
            }
            std::thread::sleep(Duration::from_secs(1));
            let before = projects.iter().map(|name| finished(name)).collect::<Result<Vec<_>, _>>()?;
            let began = Instant::now();
            let title = format!("beside {} {round} of {}", what.name, self.rounds);
            let beside = self.interactive(bed, &title);
            let seconds = began.elapsed().as_secs_f64();
            let after = projects.iter().map(|name| finished(name)).collect::<Result<Vec<_>, _>>();
            done.store(true, Ordering::Relaxed);
            let (beside, after) = (beside?, after?);
            report.latency(&format!("interactive job beside {}", what.name), &beside);
            let grown: Vec<f64> = before
                .iter()
                .zip(&after)
                .map(|(before, after)| after.saturating_sub(*before) as f64)
                .collect();
            let (least, most) = grown.iter().fold((f64::MAX, 0f64), |(a, b), n| (a.min(*n), b.max(*n)));
            let part = format!("{}: least project's part of the greatest's", what.name);
            report.metric(&part, "%", Better::More, 100.0 * least / most.max(1.0));
            let ended = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
            let whole = ended.sum::<Result<u64, _>>()?;
            if what.bulk {
                // Their shards are few and long: whole jobs, to the last one's end.
                let rate = whole as f64 / all_began.elapsed().as_secs_f64();
                report.metric("bulk results", "B/s", Better::More, rate * answers.bytes() as f64);
            } else {
                report.rate(grown.iter().sum::<f64>() / seconds);
            }
            Ok(())
        })
    }
}

/// What interactive jobs run beside.
#[derive(Clone, Copy)]
struct Beside {
    name: &'static str,
    bulk: bool,
    shards: u64,
}
