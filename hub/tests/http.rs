//! The HTTP API over real sockets, with a hub in memory behind it.

#[path = "http/client.rs"]
mod client;
#[path = "http/codes.rs"]
mod codes;
#[path = "http/explain.rs"]
mod explain;
#[path = "http/fake.rs"]
mod fake;
#[path = "http/files.rs"]
mod files;
#[path = "http/hubs.rs"]
mod hubs;
#[path = "http/jobs.rs"]
mod jobs;
#[path = "http/load.rs"]
mod load;
#[path = "http/schema.rs"]
mod schema;

use serde_json::json;
use tessera_protocol::spec::JobSpec;

/// The smallest job.
const PI: &str = r#"{"name":"pi","workload":"monte_carlo","params":{"model":"pi","paths":1000}}"#;

/// A π job.
fn pi_spec(name: &str, paths: u64) -> JobSpec {
    JobSpec::from_json(pi_named(name, paths).as_bytes()).unwrap()
}

/// A π job as its document.
fn pi_named(name: &str, paths: u64) -> String {
    json!({"name": name, "workload": "monte_carlo", "params": {"model": "pi", "paths": paths}}).to_string()
}

/// A document with every field that a specification may have.
fn full_spec() -> String {
    json!({
        "name": "book", "project": "desk", "workload": "monte_carlo", "seed": 7,
        "params": {
            "model": "gbm", "paths": 1000, "shard_size": 100,
            "book": [{
                "id": "c1", "underlying": "ACME", "kind": "down_and_out_call", "spot": 100.0, "strike": 105.0,
                "rate": 0.03, "dividend": 0.01, "volatility": 0.2, "expiry": 1.0, "quantity": -2.0,
                "fixings": [0.5, 1.0], "barrier": 80.0, "monitoring": "continuous", "payout": 1.0,
                "basket": [{"underlying": "BETA", "weight": 0.5}], "exercise": 12,
            }],
            "stop": {"standard_error": 0.5, "relative": true, "min_paths": 500}, "quantiles": "exact",
            "antithetic": true, "control_variate": true, "greeks": true,
            "underlyings": {"BETA": {"spot": 90.0, "volatility": 0.3, "dividend": 0.01}},
            "correlations": [{"a": "ACME", "b": "BETA", "rho": 0.5}],
            "heston": {"ACME": {"v0": 0.04, "kappa": 1.5, "theta": 0.04, "xi": 0.5, "rho": -0.7}},
            "scheme": "qe", "steps_per_year": 52, "training_paths": 4096,
        },
        "inputs": [{"name": "book.csv", "blake3": "00".repeat(32), "bytes": 10}],
        "verify": "strict", "priority": "interactive",
        "limits": {"cost_cap": 100000, "deadline_s": 60, "retries": 2},
        "requirements": {"gpu": true, "gpu_memory_bytes": 8_589_934_592_u64, "gpu_models": ["H100"], "regions": ["eu-north"]},
    })
    .to_string()
}
