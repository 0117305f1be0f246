//! Two real hubs on one store, of which the client knows one and the agent works for the other.

use tempfile::TempDir;
use tessera_tests::beside::any_hub;

#[test]
fn a_client_that_knows_one_hub_has_the_agent_of_another_work_for_it_and_the_agent_comes_when_that_one_dies() {
    let folder = TempDir::new().expect("a folder");
    let seen = any_hub(folder.path()).expect("the run comes to an end");
    println!("{seen:?}");
    assert_eq!(seen.hubs, [(2, 1), (2, 1)], "both list both, and that one leads");
    assert_eq!(seen.agents_shown, 1);
    assert!(seen.job_ended, "the job went where the agent is and ended with the reference bytes");
    assert!(seen.states > 2, "its changes came through a hub that does not have it: {}", seen.states);
    assert!(seen.job_ended_after, "the agent found the hub that is left");
}
