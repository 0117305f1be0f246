//! Runs of the simulator: many seeds hold, a seed repeats itself, planted bugs are found.

use std::collections::BTreeMap;

use tessera_tests::sim::campaign::{Record, campaign, caught, judge};
use tessera_tests::sim::minimise::{case, cases, minimise};
use tessera_tests::sim::{Fault, Planted, Settings, fairness, hubs, run};

/// Seeds that once failed. They stay.
const FAILED_ONCE: &str = include_str!("../seeds/failed-once.toml");
/// Seeds of one run unless the environment asks for more.
const SEEDS: u64 = 5_000;
/// Seeds in which a planted bug must be found.
const PLANTED_SEEDS: u64 = 5_000;

fn seeds() -> u64 {
    std::env::var("TESSERA_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn every_seed_ends_with_the_bytes_of_a_fault_free_run() {
    let record: Record = campaign(0..seeds(), 2, None, Settings::default());
    println!("{record}");
    let [first, ..] = &record.failed[..] else {
        return means_something(&record.happened);
    };
    panic!("seed {}: {}; `tessera-sim --seed {}` shows it", first.0, first.1, first.0);
}

fn means_something(happened: &BTreeMap<&'static str, u64>) {
    let often = [
        "hub crashes",
        "matrices read",
        "jobs of several rounds",
        "pieces of inputs",
        "products",
        "partitions",
        "clogs",
        "packets sent again",
        "messages sent twice",
        "clock jumps",
    ];
    for what in often {
        let count = happened.get(what).copied().unwrap_or_default();
        assert!(count > seeds() / 4, "too few {what} for the run to mean something: {count}");
    }
    for (what, one_in) in
        [("agents killed by a shard", 100), ("jobs that rightly failed", 100), ("rests of agents", 500)]
    {
        let count = happened.get(what).copied().unwrap_or_default();
        assert!(count > seeds() / one_in, "too few {what} for the run to mean something: {count}");
    }
    let sometimes = ["failed syncs", "failed syncs that wrote", "batches written as the hub died"];
    for what in sometimes.into_iter().chain(["writes to a full disk", "sessions that fell idle"]) {
        let count = happened.get(what).copied().unwrap_or_default();
        assert!(count > seeds() / 100, "too few {what} for the run to mean something: {count}");
    }
}

#[test]
fn a_seed_that_failed_once_holds() {
    for (seed, settings) in cases(FAILED_ONCE).expect("the committed cases can be read") {
        let judged = judge(seed, settings);
        assert!(judged.is_ok(), "seed {seed} fails again: {judged:?}");
    }
}

#[test]
fn a_seed_repeats_itself_event_for_event() {
    for seed in [3, 17, 99] {
        assert_eq!(run(seed, Settings::default()), run(seed, Settings::default()), "seed {seed}");
    }
    assert_ne!(run(3, Settings::default()).map(|r| r.trace), run(4, Settings::default()).map(|r| r.trace));
}

#[test]
fn projects_that_want_more_than_there_is_get_what_their_weights_say_and_none_waits_long() {
    let mut happened = [0; 3];
    for seed in 0..seeds() / 20 {
        match fairness::run(seed, None) {
            Ok(shared) => {
                let counts = [u64::from(shared.met_deadline), u64::from(shared.mixed), shared.capped];
                happened.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            Err(unfair) => panic!("seed {seed}: {unfair:?}"),
        }
    }
    println!("deadlines met, runs with both priorities, projects at their quota: {happened:?}");
    for count in happened {
        assert!(count > seeds() / 200, "each must happen to mean something: {happened:?}");
    }
}

#[test]
fn of_many_hubs_on_one_store_each_job_has_one_and_those_of_the_dead_find_another() {
    let mut happened = [0; 7];
    for seed in 0..seeds() {
        match hubs::run(seed, None) {
            Ok(together) => {
                let hubs = [together.fenced_off, together.died, together.came_back, together.led];
                let jobs = [together.adopted, together.orphans, together.accepted];
                let counts = hubs.into_iter().chain(jobs);
                happened.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
            Err(discord) => panic!("seed {seed}: {discord:?}"),
        }
    }
    println!("commits fenced off, hubs that died, that came back to a fence, that led: {:?}", &happened[..4]);
    println!("jobs adopted, that were nobody's, that were accepted: {:?}", &happened[4..]);
    for count in happened {
        assert!(count > seeds() / 20, "each must happen to mean something: {happened:?}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Planted::ALL {
        let found = caught(bug, PLANTED_SEEDS);
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} went unnoticed for {PLANTED_SEEDS} seeds");
    }
}

#[test]
fn a_failing_seed_is_made_small_and_still_fails_as_it_is_written_down() {
    let bug = Planted::DropRefusedEndings;
    let (seed, _) = caught(bug, PLANTED_SEEDS).expect("the bug is found");
    let whole = Settings::default().planting(bug);
    let (small, how) = minimise(seed, whole).expect("it fails");
    assert!(!small.lacks(Fault::CommitFails) || !small.lacks(Fault::FullDisk), "{small:?}");
    assert!(Fault::ALL.iter().filter(|(fault, _)| small.lacks(*fault)).count() > 10, "{small:?}");
    let read = cases(&case(seed, small, &how)).expect("what is written can be read");
    let [(of, settings)] = read[..] else { panic!("one case was written: {read:?}") };
    assert_eq!((of, settings.planting(bug)), (seed, small));
}
