//! The bounds that the book states for our policy, on a smaller fleet; and that they fail without it.

use tessera_protocol::spec::VerifyClass::{self, Standard, Strict};
use tessera_tests::policy::{Conduct, Measured, Policy, Scenario, Size, Weakness, measure};

/// A quarter of the book's fleet, with agents that live as long: what a liar gets through is a number, not a rate.
const SMALL: Size = Size { providers: 20, anchors: 2, job_shards: 5_000, ..Size::BOOK };
const SEED: u64 = 1;

const STANDARD_PPB: u64 = 1_000_000;
const STRICT_PPB: u64 = 100_000;
const HONEST_EXTRA_PPM: u64 = 50_000;
const EXTRA_PPM: u64 = 100_000;

fn liars(conduct: Conduct) -> Scenario {
    let named = Scenario::ALL.iter().find(|scenario| scenario.conduct == conduct && !scenario.alone);
    *named.expect("the table has it")
}

fn ours(class: VerifyClass, scenario: &Scenario) -> Measured {
    measure(Policy::Ours(class), scenario, SMALL, SEED)
}

/// Whether what was measured is within what the class promises.
fn keeps(class: VerifyClass, measured: &Measured) -> bool {
    let corrupt_ppb = if class == Strict { STRICT_PPB } else { STANDARD_PPB };
    measured.corrupt_ppb() <= corrupt_ppb && measured.extra_ppm() <= EXTRA_PPM
}

#[test]
fn an_honest_fleet_pays_at_most_five_per_cent_and_nobody_is_ejected() {
    for class in [Standard, Strict] {
        let measured = ours(class, &Scenario::ALL[0]);
        assert!(measured.extra_ppm() <= HONEST_EXTRA_PPM, "{class:?}: {measured:?}");
        assert_eq!((measured.corrupt, measured.honest_ejected, measured.honest), (0, 0, 100));
    }
}

#[test]
fn however_often_a_tenth_lies_the_classes_keep_what_they_promise() {
    for conduct in [Conduct::Lie(1_000_000), Conduct::Lie(100_000), Conduct::Lie(20_000)] {
        let measured = ours(Strict, &liars(conduct));
        assert!(keeps(Strict, &measured), "{conduct:?}: {measured:?}");
        assert_eq!(measured.found_after.len(), 10, "each liar is found: {measured:?}");
        assert_eq!(measured.honest_ejected, 0);
    }
    let measured = ours(Standard, &liars(Conduct::Lie(20_000)));
    assert!(keeps(Standard, &measured), "{measured:?}");
}

#[test]
fn sleepers_and_a_coalition_of_a_fifth_get_no_more_through() {
    for conduct in [Conduct::Sleep(100_000), Conduct::Collude(100_000), Conduct::ColludeAsleep(100_000)] {
        let measured = ours(Standard, &liars(conduct));
        assert!(keeps(Standard, &measured), "{conduct:?}: {measured:?}");
        assert_eq!(measured.honest_ejected, 0);
    }
    let measured = ours(Strict, &liars(Conduct::ColludeAsleep(100_000)));
    assert!(keeps(Strict, &measured), "{measured:?}");
}

#[test]
fn what_is_checked_beforehand_by_a_fixed_part_is_not_enough() {
    let lies = liars(Conduct::Lie(100_000));
    for policy in [Policy::Flat(10), Policy::Boinc] {
        let measured = measure(policy, &lies, SMALL, SEED);
        assert!(measured.corrupt_ppb() > 5 * STANDARD_PPB, "{policy}: {measured:?}");
    }
}

/// The controls: the choice and the ejections, taken away, break the promise.
#[test]
fn with_a_choice_that_can_be_foreseen_or_without_ejection_the_promise_is_broken() {
    for weakness in [Weakness::Foreseen, Weakness::NoEjection] {
        let measured =
            measure(Policy::Weakened(Standard, weakness), &liars(Conduct::Lie(100_000)), SMALL, SEED);
        assert!(!keeps(Standard, &measured), "{weakness:?}: {measured:?}");
    }
}

/// What recall is for: an agent that lies in all it has, once it is trusted. Of 32 fleets a sixth more lies get through
/// without it; of one, chance decides.
#[test]
fn recall_takes_back_what_a_sleeper_had_waiting() {
    let all_at_once = Scenario { conduct: Conduct::Sleep(1_000_000), ..liars(Conduct::Sleep(100_000)) };
    let corrupt = |policy| -> u64 {
        (SEED..SEED + 8).map(|seed| measure(policy, &all_at_once, SMALL, seed).corrupt).sum()
    };
    let with = corrupt(Policy::Ours(Standard));
    let without = corrupt(Policy::Weakened(Standard, Weakness::NoRecall));
    assert!(with > 0, "a batch cut short may go unsampled, so some lies do get through");
    assert!(without * 10 > with * 11, "{without} against {with}");
}
