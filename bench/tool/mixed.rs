//! Small jobs that a person waits for, alone and beside batch jobs that take all there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_protocol::spec::Priority;

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
        let mut bed = Bed::make(&self.hub, &self.fleet, &mut report)?;
        for round in 1..=self.rounds {
            let alone = self.interactive(&mut bed, &format!("alone {round} of {}", self.rounds))?;
            report.latency("interactive job alone", &alone);
            self.beside_batch(&mut bed, round, &mut report)?;
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

    fn beside_batch(&self, bed: &mut Bed, round: u32, report: &mut Report) -> Result<(), BenchError> {
        let names: Vec<String> = (0..self.projects).map(|project| format!("batch-{project}")).collect();
        // Enough of them that none runs out, made beforehand since each is another.
        let mut specs = Vec::new();
        for name in &names {
            let mut of_project = Vec::new();
            for _ in 0..1_000 {
                let mut spec = bed.job("batch", self.batch_shards);
                spec.project = name.clone();
                of_project.push(spec);
            }
            specs.push(of_project);
        }
        let (api, answers, done) = (bed.hub.api()?, bed.answers.clone(), AtomicBool::new(false));
        let finished = |project: &str| -> Result<u64, BenchError> {
            let jobs = api.jobs()?.jobs;
            Ok(jobs.iter().filter(|job| job.project == project).map(|job| job.shards_done).sum())
        };
        std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for of_project in &specs {
                let (api, answers, done) = (&api, &answers, &done);
                clients.push(scope.spawn(move || {
                    for spec in of_project {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        run(api, answers, spec, Instant::now(), |_| {})?;
                    }
                    Ok::<_, BenchError>(())
                }));
            }
            std::thread::sleep(Duration::from_secs(1));
            let before = names.iter().map(|name| finished(name)).collect::<Result<Vec<_>, _>>()?;
            let began = Instant::now();
            let beside = self.interactive(bed, &format!("beside batch {round} of {}", self.rounds));
            let seconds = began.elapsed().as_secs_f64();
            let after = names.iter().map(|name| finished(name)).collect::<Result<Vec<_>, _>>();
            done.store(true, Ordering::Relaxed);
            let (beside, after) = (beside?, after?);
            report.latency("interactive job beside batch", &beside);
            let grown: Vec<f64> = before
                .iter()
                .zip(&after)
                .map(|(before, after)| after.saturating_sub(*before) as f64)
                .collect();
            let (least, most) = grown.iter().fold((f64::MAX, 0f64), |(a, b), n| (a.min(*n), b.max(*n)));
            report.rate(grown.iter().sum::<f64>() / seconds);
            report.metric(
                "least project's part of the greatest's",
                "%",
                Better::More,
                100.0 * least / most.max(1.0),
            );
            clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
        })
    }
}
