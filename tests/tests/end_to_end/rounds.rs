//! Jobs whose later shards depend on what the earlier ones gave: the same bytes all the same.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::programs::{Agent, Hub, examples, run, until};

fn book(folder: &TempDir, params: &str) -> PathBuf {
    let csv = examples().join("book.csv");
    let text = format!(
        "name = \"book\"\nworkload = \"monte_carlo\"\nseed = 7\n[params]\nmodel = \"gbm\"\nbook = {csv:?}\n{params}\n"
    );
    let path = folder.path().join("book.toml");
    std::fs::write(&path, text).expect("the folder is ours");
    path
}

#[test]
fn a_job_that_may_stop_early_stops_at_the_same_path_for_any_agents_and_shard_size() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, "paths = 4000000\nstop = { standard_error = 12.0 }");
    let documents: Vec<Value> = [("1", "5000"), ("3", "30000"), ("2", "999")]
        .iter()
        .map(|(agents, size)| run(&job, &["--agents", agents, "--shard-size", size], None))
        .collect();
    for document in &documents {
        assert_eq!(document["digest"], documents[0]["digest"]);
        let paths = document["result"]["paths"].as_u64().unwrap();
        assert!(paths < 4_000_000, "it stopped before the end, at {paths}");
        assert!(document["result"]["book"]["standard_error"].as_f64().unwrap() <= 12.0);
    }
}

#[test]
fn exact_quantiles_survive_a_crash_of_the_hub_and_a_replay() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, "paths = 300000\nshard_size = 3000\nquantiles = \"exact\"");
    let expected = run(&job, &["--agents", "2"], None);
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let _agents: Vec<Agent> =
        (0..2).map(|number| hub.agent(&folder.path().join(format!("agent-{number}")))).collect();
    let id = hub.json(&["submit", job.to_str().unwrap()])["id"].as_str().expect("an id").to_owned();
    let view = |hub: &Hub| hub.json(&["job", "show", &id]);
    // A hundred shards sample; what comes after them refines.
    until("the second round has begun", || (view(&hub)["shards_done"].as_u64() > Some(110)).then_some(()));
    hub.crash_and_restart();
    let done = until("the job has ended", || Some(view(&hub)).filter(|view| view["state"] == "done"));
    assert_eq!(done["digest"], expected["digest"]);
    let replayed = hub.json(&["job", "replay", &id]);
    assert_eq!((&replayed["same"], &replayed["digest"]), (&Value::Bool(true), &expected["digest"]));
}
