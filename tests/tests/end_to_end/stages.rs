//! Jobs that go through stages, with the real programs: files in, files out, the same bytes whatever happens.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tessera_protocol::id::Digest;

use super::programs::{Agent, Hub, examples, kill_one, run, until};

/// An example as a job file of its own, with other parameters.
fn example(folder: &TempDir, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    for entry in std::fs::read_dir(examples()).expect("examples") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, folder.path().join(path.file_name().expect("a name")))
            .expect("the folder is ours");
    }
    let path = folder.path().join(name);
    let text = std::fs::read_to_string(&path).expect("an example");
    std::fs::write(&path, change(text)).expect("the folder is ours");
    path
}

/// With so many units to a shard.
fn cut(text: String, shard_size: u64) -> String {
    text.replacen("[params]", &format!("[params]\nshard_size = {shard_size}"), 1)
}

/// The files of a result lie in a folder, as the document names them.
fn assert_files(document: &Value, folder: &Path) {
    let outputs = document["result"]["outputs"].as_array().expect("the result has files");
    assert!(!outputs.is_empty());
    for output in outputs {
        let bytes = std::fs::read(folder.join(output["name"].as_str().expect("a name"))).expect("a file");
        assert_eq!(Digest::of(&bytes).to_string(), output["blake3"].as_str().expect("a digest"), "{output}");
    }
}

fn one_digest(name: &str, sizes: [u64; 3]) -> String {
    let folder = TempDir::new().unwrap();
    let mut digests = Vec::new();
    for ((agents, lanes), size) in [("1", "1"), ("3", "1"), ("2", "2")].into_iter().zip(sizes) {
        let job = example(&folder, name, |text| cut(text, size));
        let output = folder.path().join(format!("output-{size}"));
        let args = ["--agents", agents, "--lanes", lanes, "--output", output.to_str().unwrap()];
        let document = run(&job, &args, None);
        assert_files(&document, &output);
        digests.push(document["result"].to_string());
    }
    // The manifest names the shard size, so documents are compared without the job.
    digests.dedup_by(|a, b| outputs_of(a) == outputs_of(b));
    assert_eq!(digests.len(), 1, "{name}: {digests:#?}");
    digests.remove(0)
}

/// Names and digests of the files of a result.
fn outputs_of(result: &str) -> Vec<(String, String)> {
    let result: Value = serde_json::from_str(result).expect("JSON");
    let outputs = result["outputs"].as_array().expect("files").iter();
    outputs.map(|output| (output["name"].to_string(), output["blake3"].to_string())).collect()
}

#[test]
fn a_climate_analysis_has_one_digest_for_any_agents_lanes_and_shard_size() {
    one_digest("climate.toml", [1, 2, 1_000]);
}

#[test]
fn a_catastrophe_model_has_one_digest_for_any_agents_lanes_and_shard_size() {
    one_digest("catastrophe.toml", [7, 40, 1_000]);
}

#[test]
fn killing_agents_and_the_hub_in_the_middle_of_a_stage_changes_no_byte() {
    let folder = TempDir::new().unwrap();
    let job = example(&folder, "catastrophe.toml", |text| cut(text, 5));
    let expected = run(&job, &["--agents", "2"], None);
    for victim in ["agent", "hub"] {
        let kill = |children: &[(String, u32)]| kill_one(children, victim);
        let document = run(&job, &["--agents", "3"], Some(&kill));
        assert_eq!(document["digest"], expected["digest"], "after the death of the {victim}");
    }
}

#[test]
fn a_hub_that_is_killed_between_stages_goes_on_and_its_files_are_there_afterwards() {
    let folder = TempDir::new().unwrap();
    let job = example(&folder, "catastrophe.toml", |text| cut(text, 3));
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let _agents: Vec<Agent> =
        (0..2).map(|number| hub.agent(&folder.path().join(format!("agent-{number}")))).collect();
    let id = hub.json(&["submit", job.to_str().unwrap()])["id"].as_str().expect("an id").to_owned();
    let view = |hub: &Hub| hub.json(&["job", "show", &id]);
    until("the survey and some events are done", || {
        (view(&hub)["shards_done"].as_u64() >= Some(4)).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_millis(700));
    hub.crash_and_restart();
    assert!(view(&hub)["shards_done"].as_u64() > Some(0), "products survive the crash");
    let done = until("the job has ended", || Some(view(&hub)).filter(|view| view["state"] != "running"));
    assert_eq!(done["state"], "done", "{done}");
    hub.crash_and_restart();
    let output = folder.path().join("files");
    let result = hub.json(&["job", "result", &id, "--output", output.to_str().unwrap()]);
    assert_files(&serde_json::json!({ "result": result }), &output);
    let replayed = hub.json(&["job", "replay", &id]);
    assert_eq!((&replayed["same"], &replayed["digest"]), (&Value::Bool(true), &done["digest"]));
}

#[test]
fn what_is_wrong_with_an_input_is_told_in_one_line() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("short.nc"), b"CDF\x01\x00\x00").unwrap();
    let text = "name = \"broken\"\nworkload = \"climate_pca\"\ninputs = [{ name = \"field\", file = \"short.nc\" }]\n\
                [params]\nfield = [\"field\"]\n";
    let job = folder.path().join("broken.toml");
    std::fs::write(&job, text).unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let _agent = hub.agent(&folder.path().join("agent"));
    let output = hub.tessera(&["submit", job.to_str().unwrap(), "--wait"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("its stage `survey`:") && said.contains("short.nc") || said.contains("field"),
        "{said}"
    );
}
