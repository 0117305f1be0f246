//! Kills a real hub under load as often as it is told, and says what was lost: nothing, if all is well.

use std::process::ExitCode;

use clap::Parser;
use tessera_tests::crash::{Settings, run};

/// A real hub, real agents and a customer; the hub is killed at random moments and starts again.
#[derive(Debug, Parser)]
#[command(name = "tessera-crash")]
struct Options {
    /// How often the hub is killed
    #[arg(long, value_name = "N", default_value_t = 100)]
    cycles: u64,
    /// Chooses the moments and the jobs
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Plant a bug: the hub acknowledges so many milliseconds before it commits; needs a hub built with its feature `hasty`
    #[arg(long, value_name = "MS")]
    early_ms: Option<u64>,
    /// Keep the hub's and the agents' folders
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let Options { cycles, seed, early_ms, keep } = Options::parse();
    let folder = match tempfile::Builder::new().prefix("tessera-crash-").disable_cleanup(keep).tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("tessera-crash: no folder to work in: {error}");
            return ExitCode::from(2);
        }
    };
    if keep {
        println!("folder {}", folder.path().display());
    }
    match run(&Settings { cycles, seed, early_ms }, folder.path(), &mut |line| println!("{line}")) {
        Ok(report) => {
            report.lost.iter().chain(&report.wrong).for_each(|line| println!("{line}"));
            println!(
                "{:.1} cycles a second, {} agents killed, {}",
                report.cycles as f64 / report.elapsed.as_secs_f64(),
                report.agent_deaths,
                if report.checked { "hub check is clean" } else { "hub check was not run" }
            );
            println!("{report}");
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("tessera-crash: {failure}");
            ExitCode::from(2)
        }
    }
}
