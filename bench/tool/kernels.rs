//! What one core computes: the Monte Carlo kernels on each instruction set of this machine.

use std::time::{Duration, Instant};

use clap::Args;
use tessera_bench::one_call;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::Prepared;
use tessera_protocol::monte_carlo::{Model, Task};

use crate::bed::line;
use crate::hub::BenchError;
use crate::report::{Better, Report};

/// Paths of one run of a kernel.
const PATHS: u64 = 1 << 18;

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Kernels {
    /// How long each kernel runs in a round
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    each_ms: u64,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

impl Kernels {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("kernels");
        report.set("each_ms", self.each_ms);
        let wrong = |error| BenchError::Wrong(format!("a kernel fails: {error:?}"));
        let tasks = [("pi", Task { key: [1, 2], model: Model::Pi }), ("a call, in full", one_call())];
        let prepared =
            tasks.iter().map(|(name, task)| Ok((*name, Prepared::new(task)?))).collect::<Result<Vec<_>, _>>();
        let prepared = prepared.map_err(wrong)?;
        for round in 1..=self.rounds {
            let bar = line(
                (Isa::available().len() * prepared.len()) as u64,
                &format!("round {round} of {}", self.rounds),
            );
            for (name, kernel) in &prepared {
                let mut first = None;
                for isa in Isa::available() {
                    let (began, mut paths) = (Instant::now(), 0);
                    while began.elapsed() < Duration::from_millis(self.each_ms) {
                        // The same paths each time, so that all instruction sets can be compared byte for byte.
                        let tally = kernel.run(isa, 0, PATHS, &|| false).map_err(wrong)?;
                        paths += PATHS;
                        if *first.get_or_insert_with(|| tally.encode()) != tally.encode() {
                            return Err(BenchError::Wrong(format!(
                                "{name} on {} gives other bytes",
                                isa.name()
                            )));
                        }
                    }
                    let rate = paths as f64 / began.elapsed().as_secs_f64();
                    report.metric(&format!("{name}: {}", isa.name()), "paths/s", Better::More, rate);
                    bar.inc(1);
                }
            }
            bar.finish_and_clear();
        }
        report.note("All instruction sets gave the same bytes.".to_owned());
        Ok(report.close())
    }
}
