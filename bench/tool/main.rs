//! What a hub carries, and how fast: scenarios that an operator can run before trusting it.
//!
//! Owns the command line. A scenario gives a report; it is shown, and written as JSON and as a page where that is asked
//! for. Each number is compared with an independent count where there is one, and no report is given when they differ.

mod allocations;
mod bed;
mod compare;
mod end_to_end;
mod fleet;
mod html;
mod hub;
mod kernels;
mod latency;
mod machine;
mod mixed;
mod recovery;
mod report;
mod scheduler;
mod soak;
mod storm;
mod transport;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::Report;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Measures what a Tessera hub carries.
#[derive(Debug, Parser)]
#[command(name = "tessera-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Write the report as a page with plots
    #[arg(long, value_name = "FILE", global = true)]
    html: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The scheduler alone: assigning and completing shards in one lane's machine, without a network
    Scheduler(scheduler::Settings),
    /// A real hub process and simulated agents over QUIC, from submission to a durable result
    EndToEnd(Box<end_to_end::EndToEnd>),
    /// Everybody connects at once, also after the hub was killed
    HandshakeStorm(Box<storm::Storm>),
    /// How long a hub takes to be back at work after kill -9, with many shards open
    Recovery(Box<recovery::Recovery>),
    /// Steady work for a long time while agents come and go: fails where something leaks or the store is damaged
    Soak(Box<soak::Soak>),
    /// Frames alone: a lane's QUIC with nothing behind it
    Transport(transport::Transport),
    /// Interactive jobs alone and beside batch jobs that take all there is
    Mixed(Box<mixed::Mixed>),
    /// What one core computes, on each instruction set
    Kernels(kernels::Kernels),
    /// Two reports of --json side by side, with ratios and what noise explains
    Compare {
        /// What to compare with
        before: PathBuf,
        /// What to look at
        after: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tessera-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints it; whoever reads no further has what it wanted.
fn say(text: &impl std::fmt::Display) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let report = match &arguments.command {
        Command::Scheduler(settings) => settings.measure()?,
        Command::EndToEnd(settings) => settings.measure()?,
        Command::HandshakeStorm(settings) => settings.measure()?,
        Command::Recovery(settings) => settings.measure()?,
        Command::Soak(settings) => settings.measure()?,
        Command::Transport(settings) => settings.measure()?,
        Command::Mixed(settings) => settings.measure()?,
        Command::Kernels(settings) => settings.measure()?,
        Command::Compare { before, after } => {
            let (before, after) = (Report::read(before)?, Report::read(after)?);
            let comparison = compare::Comparison::of(&before, &after);
            say(&comparison)?;
            if let Some(path) = &arguments.html {
                html::write(path, &comparison.page(&before, &after))?;
            }
            return Ok(());
        }
    };
    say(&report)?;
    if let Some(path) = &arguments.json {
        report.write(path)?;
    }
    if let Some(path) = &arguments.html {
        html::write(path, &html::page(&report))?;
    }
    match report.failures.is_empty() {
        true => Ok(()),
        false => Err(report.failures.join("; ").into()),
    }
}
