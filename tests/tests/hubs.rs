//! Two real hubs on one store: one falls silent, and the other goes on with its jobs.

use std::time::Duration;

use tempfile::TempDir;
use tessera_protocol::api::Standing;
use tessera_tests::beside::{Blow, Found, migrate, move_removed_agent, run};

/// Fifteen seconds, and what a busy machine adds.
const REPLACED_MAX: Duration = Duration::from_secs(25);

fn befallen(blow: Blow) -> Found {
    let folder = TempDir::new().expect("a folder");
    let found = run(blow, folder.path()).expect("the run comes to an end");
    println!(
        "{blow:?}: {} in {:?}, {} open jobs changed hands",
        found.report, found.replaced, found.orphaned
    );
    assert!(found.report.is_clean(), "{:?} {:?}", found.report.lost, found.report.wrong);
    assert!(found.report.checked, "the store is checked as a whole");
    assert!(found.orphaned > 0, "the hub had nothing to do when it fell silent");
    assert!(found.replaced < REPLACED_MAX, "{:?}", found.replaced);
    found
}

#[test]
fn the_jobs_of_a_hub_that_is_killed_end_on_another_with_the_reference_bytes_and_it_leads() {
    let found = befallen(Blow::KillTheLeader);
    assert_eq!(found.exit_code(), None);
}

#[test]
fn a_hub_that_stood_still_for_longer_than_its_lease_finds_itself_fenced_and_nothing_is_counted_twice() {
    let found = befallen(Blow::PauseTheOther);
    assert_eq!(found.exit_code(), Some(1));
}

#[test]
fn open_jobs_of_a_store_that_one_hub_had_for_itself_end_where_many_share_it() {
    let folder = TempDir::new().expect("a folder");
    let report = migrate(folder.path()).expect("the run comes to an end");
    assert!(report.is_clean() && report.checked, "{:?} {:?}", report.lost, report.wrong);
}

#[test]
fn an_agent_that_was_removed_does_not_get_back_in_at_another_hub() {
    let folder = TempDir::new().expect("a folder");
    assert_eq!(move_removed_agent(folder.path()).expect("the run comes to an end"), Some(Standing::Removed));
}
