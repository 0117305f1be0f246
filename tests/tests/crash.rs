//! The real hub, killed again and again under load: a short run of what `tessera-crash` does for long.

use tempfile::TempDir;
use tessera_tests::crash::{Report, Settings, run};

fn crashed(settings: &Settings) -> Report {
    let folder = TempDir::new().expect("a folder");
    run(settings, folder.path(), &mut |line| println!("{line}")).expect("the run comes to an end")
}

#[test]
fn every_acknowledged_job_ends_with_the_reference_bytes_although_the_hub_is_killed_twenty_times() {
    let report = crashed(&Settings { cycles: 20, seed: 1, early_ms: None });
    println!("{report}");
    assert!(report.is_clean(), "{:?} {:?}", report.lost, report.wrong);
    assert!(report.jobs > 20, "hardly anything was asked of it: {report}");
}

#[test]
fn a_hub_that_acknowledges_before_it_commits_is_caught() {
    let report = crashed(&Settings { cycles: 20, seed: 1, early_ms: Some(200) });
    println!("{report}");
    assert!(!report.lost.is_empty(), "nothing was lost: {report}");
}
