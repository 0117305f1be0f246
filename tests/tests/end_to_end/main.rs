//! The promise, with the real programs over real QUIC on loopback: the same bytes, whatever happens.

mod credits;
mod liars;
mod matrices;
mod programs;
mod proof;
mod refusals;
mod rounds;
mod stages;
mod uploads;
mod video;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::{Next, Plan};
use tessera_protocol::id::Digest;
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::spec::Manifest;

use programs::{Agent, Hub, Run, examples, kill_one, run, until};

/// The example book over other paths, as a job file of its own.
fn book(folder: &TempDir, paths: u64, verify: &str) -> PathBuf {
    let csv = examples().join("book.csv");
    let text = format!(
        "name = \"book\"\nworkload = \"monte_carlo\"\nseed = 7\nverify = \"{verify}\"\n\
         [params]\nmodel = \"gbm\"\npaths = {paths}\nshard_size = 20000\nbook = {csv:?}\n"
    );
    let path = folder.path().join("book.toml");
    std::fs::write(&path, text).expect("the folder is ours");
    path
}

/// What the job must give, computed here without any hub: one call of the kernel.
fn reference(job: &Path) -> String {
    let spec = tessera_client::spec_file::load(job).expect("the test's job is right");
    let manifest: Manifest = spec.check().expect("the test's job is right");
    let plan = Plan::new(&manifest, 0).expect("the test's job can be planned");
    let task = Task::decode(plan.task()).expect("planners write tasks");
    let tally = monte_carlo::run(&task, Isa::detect(), 0, plan.end(), &|| false).expect("the kernel runs");
    match tessera_planners::next(&manifest, &plan, &[&tally]).expect("whole") {
        Next::Finished(document) => Digest::of(&document).to_string(),
        Next::Round(_) => panic!("one round is all"),
    }
}

fn shard_sum(job: &Value) -> u64 {
    job["lanes"].as_array().expect("lanes").iter().filter_map(Value::as_u64).sum()
}

#[test]
fn the_book_has_one_digest_for_any_agents_lanes_and_shard_size() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, 200_000, "standard");
    let expected = reference(&job);
    for (agents, lanes, shard_size) in
        [("1", "1", "20000"), ("2", "1", "7777"), ("7", "2", "1000"), ("2", "2", "200000")]
    {
        let args = ["--agents", agents, "--lanes", lanes, "--shard-size", shard_size];
        let document = run(&job, &args, None);
        assert_eq!(document["digest"], expected.as_str(), "{args:?}");
        let job = &document["job"];
        assert_eq!(job["shards"], job["shards_done"]);
        assert_eq!(shard_sum(job), job["shards"].as_u64().unwrap());
        let checked = job["checks"].as_u64().unwrap() + job["checks_skipped"].as_u64().unwrap();
        assert!((1..=job["shards"].as_u64().unwrap()).contains(&checked), "every job is checked: {job}");
    }
}

#[test]
fn a_hub_that_is_killed_before_its_agent_has_enrolled_gives_it_a_token_again() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, 100_000, "standard");
    let expected = reference(&job);
    let run = Run::start(&job, &["--agents", "1"]);
    kill_one(&run.children, "hub");
    assert_eq!(run.finish()["digest"], expected.as_str());
}

#[test]
fn killing_agents_and_the_hub_in_the_middle_changes_no_byte() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, 2_000_000, "standard");
    let expected = reference(&job);
    for victim in ["agent", "hub"] {
        let kill = |children: &[(String, u32)]| kill_one(children, victim);
        let document = run(&job, &["--agents", "3"], Some(&kill));
        assert!(document["job"]["attempts"].as_u64() > document["job"]["shards"].as_u64(), "{document}");
        assert_eq!(document["digest"], expected.as_str(), "after the death of the {victim}");
    }
}

#[test]
fn a_job_interrupted_by_the_death_of_its_hub_goes_on_from_what_was_done() {
    let folder = TempDir::new().unwrap();
    let job = book(&folder, 2_000_000, "strict");
    let expected = reference(&job);
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let _agents: Vec<Agent> =
        (0..3).map(|number| hub.agent(&folder.path().join(format!("agent-{number}")))).collect();
    let id = hub.json(&["submit", job.to_str().unwrap()])["id"].as_str().expect("an id").to_owned();
    let done = |hub: &Hub| hub.json(&["job", "show", &id])["shards_done"].as_u64().unwrap();
    until("a part of the job is done", || (done(&hub) >= 15).then_some(()));
    std::thread::sleep(Duration::from_millis(600));
    hub.crash_and_restart();
    assert!(done(&hub) > 0, "progress survives the crash");
    let view = until("the job has ended", || {
        let view = hub.json(&["job", "show", &id]);
        (view["state"] == "done").then_some(view)
    });
    assert_eq!(view["digest"], expected.as_str());
    hub.crash_and_restart();
    let view = hub.json(&["job", "show", &id]);
    assert_eq!(view["digest"], expected.as_str(), "results survive a restart");
    let output = hub.tessera(&["job", "result", &id, "--output", "-"]);
    assert_eq!(Digest::of(&output.stdout).to_string(), expected);
}

#[test]
fn agents_sit_on_every_lane_and_one_job_runs_on_all_of_them() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let mut agents = Vec::new();
    // Which lane an agent lands on is the kernel's hash of its address.
    let lanes = until("both lanes have agents", || {
        let number = agents.len();
        assert!(number < 32, "32 agents landed on one lane");
        agents.push(hub.agent(&folder.path().join(format!("agent-{number}"))));
        let mut lanes: Vec<u64> = hub.connected().iter().filter_map(|agent| agent["lane"].as_u64()).collect();
        lanes.sort_unstable();
        lanes.dedup();
        (lanes.len() == 2).then_some(lanes)
    });
    assert_eq!(lanes, [0, 1]);
    let job = book(&folder, 1_000_000, "exact");
    let document = hub.json(&["submit", job.to_str().unwrap(), "--wait"]);
    assert_eq!(document["digest"], reference(&job).as_str());
    let by_lane = document["job"]["lanes"].as_array().expect("lanes").clone();
    assert!(by_lane.len() == 2 && by_lane.iter().all(|shards| shards.as_u64() > Some(0)), "{by_lane:?}");
    assert_eq!(document["job"]["checks"], document["job"]["shards"], "exact checks every shard");
}

#[test]
fn an_extended_job_computes_only_what_is_new_and_equals_a_straight_run() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let _agent = hub.agent(&folder.path().join("agent"));
    let job = book(&folder, 110_000, "standard");
    let first = hub.json(&["submit", job.to_str().unwrap(), "--wait"]);
    let id = first["job"]["id"].as_str().expect("an id");
    let longer = hub.json(&["job", "extend", id, "--paths", "250000", "--wait"]);
    assert_eq!(longer["job"]["shards"], 7, "140,000 new paths in shards of 20,000");
    assert_eq!(longer["job"]["extends"], id);
    assert_eq!(longer["digest"], reference(&book(&folder, 250_000, "standard")).as_str());
    let twice = hub.tessera(&["job", "extend", id, "--paths", "110000"]);
    assert_eq!(twice.status.code(), Some(2), "{}", String::from_utf8_lossy(&twice.stderr));
}

#[test]
fn a_stopped_hub_drains_and_its_agents_come_back_without_a_token() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("hub");
    let mut hub = Hub::start(&data, 1);
    let _agent = hub.agent(&folder.path().join("agent"));
    hub.crash_and_restart();
    until("the agent is back", || (hub.connected().len() == 1).then_some(()));
    assert_eq!(hub.stop(), Some(0));
}

#[test]
fn a_cancelled_job_stops_and_stays_stopped() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let job = book(&folder, 1_000_000, "standard");
    let id = hub.json(&["submit", job.to_str().unwrap()])["id"].as_str().expect("an id").to_owned();
    assert_eq!(hub.json(&["job", "cancel", &id])["state"], "cancelled");
    hub.crash_and_restart();
    assert_eq!(hub.json(&["job", "show", &id])["state"], "cancelled");
    let result = hub.tessera(&["job", "result", &id]);
    assert!(!result.status.success());
    assert!(String::from_utf8_lossy(&result.stderr).contains("cancelled"), "{result:?}");
}

#[test]
fn the_same_idempotency_key_makes_one_job() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let job = book(&folder, 1_000, "standard");
    let submit = |hub: &Hub| {
        let view = hub.json(&["submit", job.to_str().unwrap(), "--idempotency-key", "once"]);
        view["id"].as_str().expect("an id").to_owned()
    };
    let first = submit(&hub);
    assert_eq!(submit(&hub), first);
    hub.crash_and_restart();
    assert_eq!(submit(&hub), first);
    book(&folder, 2_000, "standard");
    let other = hub.tessera(&["submit", job.to_str().unwrap(), "--idempotency-key", "once"]);
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("Idempotency"), "{other:?}");
}
