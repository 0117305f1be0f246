//! `tessera-bench` as an operator runs it, with few agents: that every scenario ends, and that its report says what it
//! should. How fast anything was is no matter here.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn tool(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tessera-bench")).args(arguments).output();
    output.expect("the program starts")
}

/// Runs a scenario that must succeed; answers its report.
fn report(folder: &Path, name: &str, arguments: &[&str]) -> Value {
    let path = folder.join(name);
    let file = path.to_str().expect("a folder with a plain name");
    let output = tool(&[arguments, &["--json", file]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&std::fs::read(&path).expect("the report")).expect("JSON")
}

fn median(report: &Value, part: &str, name: &str) -> f64 {
    report[part][name]["median"].as_f64().unwrap_or_else(|| panic!("no {part} {name} in {report}"))
}

const END_TO_END: [&str; 9] =
    ["end-to-end", "--agents", "6", "--in-flight", "4", "--shards", "600", "--cold", "--rounds"];

#[test]
fn end_to_end_reports_every_shard_and_two_reports_compare() {
    let folder = tempfile::tempdir().unwrap();
    let before = report(folder.path(), "before.json", &[&END_TO_END[..], &["3"]].concat());
    assert!(before["shards_per_second"].as_f64().unwrap() > 0.0);
    assert!(median(&before, "metrics", "attempts per shard") >= 1.0);
    assert!(median(&before, "cpu", "hub per shard") > 0.0);
    assert!(median(&before, "memory", "hub per idle agent") > 0.0);
    assert_eq!(before["percentiles"]["job: end to end"]["count"], 3);
    assert_eq!(before["settings"]["agents"], "6");
    assert!(before["settings"]["commits"].as_str().unwrap().starts_with("synced"));
    assert!(before["percentiles"]["hub: turn of a lane"]["max"].as_f64().unwrap() < 60e6);
    for name in ["job submitted to first agent told", "job submitted to durable end"] {
        assert_eq!(before["percentiles"][format!("hub: {name}")]["count"], 3, "{name}");
    }
    for name in [
        "turn of a lane",
        "answers in to shards out",
        "batch written to durable",
        "shard answered to verified",
        "shard verified to durable",
    ] {
        assert!(before["percentiles"][format!("hub: {name}")]["count"].as_u64().unwrap() >= 3, "{name}");
    }
    let page = folder.path().join("page.html");
    let more = ["1", "--jobs", "3", "--result-bytes", "20000", "--html", page.to_str().unwrap()];
    let after = report(folder.path(), "after.json", &[&END_TO_END[..], &more].concat());
    assert_eq!(after["percentiles"]["job: end to end"]["count"], 3);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    let files = ["before.json", "after.json"].map(|name| folder.path().join(name));
    let compared = tool(&["compare", files[0].to_str().unwrap(), files[1].to_str().unwrap()]);
    let said = String::from_utf8_lossy(&compared.stdout);
    assert!(compared.status.success() && said.contains("shards_per_second"), "{said}");
    assert!(said.contains("too few rounds") && said.contains("not the same: other jobs: 1 and 3"), "{said}");
}

#[test]
fn lanes_are_compared_each_with_what_it_did_itself() {
    let folder = tempfile::tempdir().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let core = allowed.split(['-', ',']).next().unwrap();
    let lanes = ["1", "--lanes", "1,2", "--hub-cores", core, "--answers-per-frame", "2"];
    let report = report(folder.path(), "lanes.json", &[&END_TO_END[..], &lanes].concat());
    let of = |name: &str| median(&report, "metrics", &format!("lanes 2: {name}"));
    assert_eq!(of("lane 0: agents") + of("lane 1: agents"), 6.0);
    assert!((of("lane 0: part of attempts") + of("lane 1: part of attempts") - 100.0).abs() < 1e-6);
    assert!(median(&report, "metrics", "lanes 1: results per frame") <= 2.0);
    assert!(median(&report, "cpu", "lanes 1: hub per shard") > 0.0);
    assert_eq!(report["settings"]["hub_cores"], format!("[{core}]"));
    assert_eq!(report["plots"][0]["lines"][0]["points"].as_array().unwrap().len(), 2);
    let output = tool(&["handshake-storm", "--agents", "1", "--lanes", "1,2"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("one number of --lanes"), "{output:?}");
}

#[test]
fn one_agent_holds_as_much_as_the_protocol_lets_it() {
    let folder = tempfile::tempdir().unwrap();
    let one = ["end-to-end", "--agents", "1", "--in-flight", "4096", "--shards", "20000", "--rounds", "1"];
    let alone = report(folder.path(), "one.json", &one);
    assert_eq!(median(&alone, "metrics", "in flight granted an agent"), 4096.0);
    assert!(median(&alone, "metrics", "results per frame") > 256.0);
    assert!(!tool(&["end-to-end", "--in-flight", "4097"]).status.success());
}

#[test]
fn an_open_loop_times_every_job_from_when_it_was_to_be_submitted() {
    let folder = tempfile::tempdir().unwrap();
    let open = ["1", "--rate", "2000", "--job-shards", "60", "--think-ms", "5"];
    let report = report(folder.path(), "open.json", &[&END_TO_END[..], &open].concat());
    let whole = &report["percentiles"]["job: end to end"];
    assert_eq!(whole["count"], 10);
    // A shard takes five milliseconds, so does a job.
    assert!(whole["p50"].as_f64().unwrap() >= 5_000.0, "{whole}");
}

#[test]
fn a_hub_that_is_killed_gets_its_agents_and_its_job_back() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--agents", "5", "--in-flight", "2", "--rounds", "1"];
    let storm = report(folder.path(), "storm.json", &[&["handshake-storm"], &few[..]].concat());
    assert_eq!(storm["percentiles"]["storm: wish to welcome"]["count"], 5);
    let job = ["--open-shards", "3000", "--cold", "--think-ms", "1"];
    let recovery = report(folder.path(), "recovery.json", &[&["recovery"], &few[..], &job].concat());
    assert!(median(&recovery, "metrics", "3000 open shards: start to listening") > 0.0);
}

#[test]
fn a_soak_ends_with_a_clean_store_and_every_agent_back() {
    let folder = tempfile::tempdir().unwrap();
    let few =
        ["soak", "--agents", "12", "--in-flight", "4", "--cold", "--minutes", "0.1", "--every-s", "0.2"];
    let churn = ["--churn", "5", "--rate", "500", "--job-shards", "50"];
    let report = report(folder.path(), "soak.json", &[&few[..], &churn].concat());
    for name in
        ["agents that said goodbye", "agents that fell silent", "p99 of a job, last quarter of the time"]
    {
        assert!(median(&report, "metrics", name) > 0.0, "{name}");
    }
    assert!(report["metrics"]["hub: threads, a minute"]["median"].is_number());
    assert!(report["percentiles"]["job: end to end"]["count"].as_u64().unwrap() >= 40);
    let notes = report["notes"].to_string();
    assert!(notes.contains("store clean") && notes.contains("not judged"), "{notes}");
}

#[test]
fn interactive_jobs_are_timed_alone_and_beside_batch() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = ["--jobs", "4", "--rate", "20", "--job-shards", "8", "--batch-shards", "2000", "--cold"];
    let few = ["--agents", "5", "--in-flight", "4", "--think-ms", "1", "--rounds", "1"];
    let report = report(folder.path(), "mixed.json", &[&["mixed"], &few[..], &jobs].concat());
    for name in ["interactive job alone", "interactive job beside batch"] {
        assert_eq!(report["percentiles"][name]["count"], 4);
    }
}

#[test]
fn what_a_bad_network_loses_is_sent_again_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let bad = ["1", "--loss", "5", "--delay-ms", "3", "--jitter-ms", "2"];
    let report = report(folder.path(), "bad.json", &[&END_TO_END[..], &bad].concat());
    let lost = median(&report, "metrics", "datagrams lost");
    assert!(lost > 0.0 && lost < 20.0, "{lost}");
    // Three milliseconds there and three back.
    assert!(report["percentiles"]["refill of an agent"]["p50"].as_f64().unwrap() >= 6_000.0);
    assert!(!tool(&["end-to-end", "--loss", "100"]).status.success());
}

#[test]
fn interactive_jobs_are_timed_beside_long_results_too() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = ["--jobs", "4", "--rate", "20", "--job-shards", "8", "--batch-shards", "2000", "--cold"];
    let bulk = [
        "--agents",
        "5",
        "--in-flight",
        "4",
        "--rounds",
        "1",
        "--bulk-bytes",
        "40000",
        "--bulk-shards",
        "50",
    ];
    let report = report(folder.path(), "bulk.json", &[&["mixed"], &jobs[..], &bulk].concat());
    for name in ["alone", "beside batch", "beside bulk"] {
        assert_eq!(report["percentiles"][format!("interactive job {name}")]["count"], 4);
    }
    assert!(median(&report, "metrics", "bulk results") > 0.0);
}

#[test]
fn the_parts_are_measured_without_a_hub() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--agents", "30", "--projects", "3", "--jobs", "6", "--open-shards", "6000", "--timed", "900"];
    let lane = report(
        folder.path(),
        "lane.json",
        &[&["scheduler", "--no-sweep", "--rounds", "1"], &few[..]].concat(),
    );
    assert!(median(&lane, "metrics", "assign and complete") > 0.0);
    let more = ["scheduler", "--no-sweep", "--rounds", "1", "--threads", "2"];
    let threads = report(folder.path(), "threads.json", &[&more[..], &few[..]].concat());
    for name in ["assign and complete", "with counters in one cache line"] {
        assert!(median(&threads, "metrics", &format!("threads 2: {name}")) > 0.0);
    }
    let frames = ["transport", "--agents", "5", "--in-flight", "2", "--seconds", "1", "--rounds", "1"];
    let frames = report(folder.path(), "frames.json", &frames);
    assert!(median(&frames, "cpu", "lane per shard") > 0.0);
    let kernels = report(folder.path(), "kernels.json", &["kernels", "--each-ms", "1", "--rounds", "1"]);
    assert!(median(&kernels, "metrics", "pi: plain") > 0.0);
}

#[test]
fn a_hub_that_is_not_there_is_said_to_be_missing() {
    let output = tool(&["end-to-end", "--agents", "1", "--hub", "/nowhere/hub"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/hub"), "{output:?}");
}
