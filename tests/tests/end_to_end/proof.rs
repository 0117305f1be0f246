//! Every kernel, every way: one digest a job.

use std::collections::BTreeSet;
use std::process::Command;

use super::programs::{json_of, program};

#[test]
fn every_way_of_computing_a_job_gives_the_same_bytes() {
    let output = Command::new(program("tessera")).args(["kernels", "matrix", "--json"]).output();
    let matrix = json_of(&output.expect("tessera runs"));
    let workloads = matrix["workloads"].as_array().expect("workloads");
    assert!(workloads.len() >= 7, "{} jobs", workloads.len());
    for workload in workloads {
        let cells = workload["cells"].as_array().expect("cells");
        let words = |field: &str| -> BTreeSet<String> {
            cells.iter().map(|cell| cell[field].to_string().replace('"', "")).collect()
        };
        let name = &workload["name"];
        assert_eq!(words("digest").len(), 1, "{name}");
        assert!(words("path").contains("plain"), "{name}");
        assert_eq!(words("agents"), BTreeSet::from(["1", "3", "8"].map(str::to_owned)), "{name}");
        assert_eq!(words("order").len(), 3, "{name}");
        // A segment of a video is a shard.
        assert_eq!(words("shard_size").len(), if name == "video" { 1 } else { 3 }, "{name}");
    }
    let by_device = |workload: &&serde_json::Value| {
        workload["cells"].as_array().is_some_and(|cells| cells.iter().any(|cell| cell["path"] == "ptx"))
    };
    assert!(workloads.iter().filter(by_device).count() >= 7, "what GPUs load is among the ways");
    let digests: BTreeSet<String> =
        workloads.iter().map(|workload| workload["cells"][0]["digest"].to_string()).collect();
    assert_eq!(digests.len(), workloads.len(), "no two jobs are one");
}
