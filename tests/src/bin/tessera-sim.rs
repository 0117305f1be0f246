//! The simulator as a program: one seed told line by line, many seeds, planted bugs, or a fleet of great size.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use tessera_tests::policy;
use tessera_tests::sim::campaign::{Record, campaign, caught, judge};
use tessera_tests::sim::minimise::{case, minimise};
use tessera_tests::sim::scale::{computed_s, memory_bytes_max, scale};
use tessera_tests::sim::{Planted, Settings};

/// Whole hubs, agents, links and disks in one thread, every fault drawn from a seed.
#[derive(Debug, Parser)]
#[command(name = "tessera-sim")]
struct Options {
    /// One run, told line by line
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "minutes", "planted"])]
    seed: Option<u64>,
    /// With --seed: only how it ended
    #[arg(long, requires = "seed")]
    quiet: bool,
    /// With --seed: plant this bug, as --planted names it
    #[arg(long, value_name = "BUG", requires = "seed")]
    bug: Option<String>,
    /// Runs from A to B - 1; with --minutes, B may be missing
    #[arg(long, value_name = "A..B", conflicts_with = "planted")]
    seeds: Option<String>,
    /// Stop after so many minutes
    #[arg(long, value_name = "M", conflicts_with = "planted")]
    minutes: Option<f64>,
    /// Threads
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: u64,
    /// A fleet of great size, without faults, in one thread
    #[arg(long, num_args = 2, value_names = ["AGENTS", "SHARDS"], conflicts_with_all = ["seed", "seeds", "minutes", "planted"])]
    scale: Option<Vec<u64>>,
    /// With --scale: one agent in so many is the operator's own, the others are strangers'
    #[arg(long, value_name = "N", requires = "scale", default_value_t = 1)]
    anchors_one_in: u64,
    /// Plant every bug and run until a checker finds it
    #[arg(long)]
    planted: bool,
    /// What each policy of checking lets through, and what it costs, in fleets of honest agents and liars
    #[arg(long, conflicts_with_all = ["seeds", "minutes", "planted", "scale"])]
    policies: bool,
}

/// Seeds in which a planted bug must be found.
const PLANTED_SEEDS: u64 = 5_000;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some([agents, shards]) = options.scale.as_deref() {
        return great(*agents, *shards, options.anchors_one_in);
    }
    if options.policies {
        print!("{}", policy::table(policy::Size::BOOK, options.seed.unwrap_or(1)));
        return ExitCode::SUCCESS;
    }
    match (options.seed, options.planted) {
        (Some(seed), _) => one(seed, &options),
        (None, true) => quietly(planted),
        (None, false) => many(&options),
    }
}

fn great(agents: u64, shards: u64, anchors: u64) -> ExitCode {
    let Some(agents) = u32::try_from(agents).ok().filter(|agents| *agents > 1 && shards > 3) else {
        eprintln!("tessera-sim: --scale wants 2 agents or more and 4 shards or more");
        return ExitCode::from(2);
    };
    match scale(agents, shards, anchors) {
        Ok(run) => {
            println!("{run}");
            if let Some(seconds) = computed_s() {
                println!("computed    {seconds:>10.1} s   on one core");
            }
            let memory = memory_bytes_max().map_or(0.0, |bytes| bytes as f64 / f64::from(1 << 20));
            println!("memory      {memory:>8.0} MiB at most");
            ExitCode::SUCCESS
        }
        Err(how) => {
            println!("FAILS: {how}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let bug = options.bug.as_ref().map(|name| Planted::ALL.iter().find(|bug| format!("{bug:?}") == *name));
    if let Some(None) = bug {
        eprintln!("tessera-sim: no such bug: `tessera-sim --planted` lists them");
        return ExitCode::from(2);
    }
    let settings = Settings { planted: bug.flatten().copied(), aloud: !options.quiet, ..Settings::default() };
    match judge(seed, settings) {
        Ok(report) => {
            println!("seed {seed} holds: {} steps, trace {:016x}", report.steps, report.trace);
            for (what, count) in report.happened {
                println!("  {what:<34} {count:>8}");
            }
            ExitCode::SUCCESS
        }
        Err(how) => {
            println!("seed {seed} FAILS: {how}");
            smaller(seed, Settings { aloud: false, ..settings });
            ExitCode::FAILURE
        }
    }
}

/// Says what of a failing seed's faults it needs.
fn smaller(seed: u64, settings: Settings) {
    std::panic::set_hook(Box::new(|_| {}));
    if let Some((settings, how)) = minimise(seed, settings) {
        println!(
            "it still fails with less: for tests/seeds/failed-once.toml\n\n{}",
            case(seed, settings, &how)
        );
    }
}

/// Assertions are caught and told with their seeds.
fn quietly(act: impl FnOnce() -> ExitCode) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    act()
}

fn many(options: &Options) -> ExitCode {
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let seeds = options.seeds.as_deref().unwrap_or(if until.is_some() { "0.." } else { "0..1000" });
    let Some((Ok(start), end)) = seeds.split_once("..").map(|(start, end)| (start.parse(), end)) else {
        eprintln!("tessera-sim: --seeds wants two numbers, as in 0..5000");
        return ExitCode::from(2);
    };
    let end = match (end, until) {
        ("", Some(_)) => u64::MAX,
        (end, _) => match end.parse() {
            Ok(end) => end,
            Err(_) => {
                eprintln!("tessera-sim: --seeds wants two numbers, as in 0..5000");
                return ExitCode::from(2);
            }
        },
    };
    quietly(|| told(&campaign(start..end, options.threads, until, Settings::default()), start))
}

fn told(record: &Record, start: u64) -> ExitCode {
    println!("seeds from {start}\n{record}");
    for (seed, how) in &record.failed {
        println!("seed {seed} FAILS: {how}\n  see it: tessera-sim --seed {seed}");
    }
    if record.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn planted() -> ExitCode {
    let mut found = 0;
    for bug in Planted::ALL {
        let name = format!("{bug:?}");
        match caught(bug, PLANTED_SEEDS) {
            Some((seed, how)) => {
                found += 1;
                println!("{name:<32} caught by seed {seed:<5} {how}");
            }
            None => println!("{name:<32} NOT caught in {PLANTED_SEEDS} seeds"),
        }
    }
    let all = Planted::ALL.len();
    println!("{found} of {all} planted bugs caught");
    if found == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
