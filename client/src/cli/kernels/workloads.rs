//! The jobs that `tessera kernels matrix` computes in every way.
//!
//! Small, since one of the ways is an interpreter, and together they touch every kernel.

use serde_json::{Value, json};
use tessera_protocol::spec::{JobSpec, Manifest, SpecError};

/// A job and the three sizes of shard that it is cut into.
pub(super) struct Workload {
    pub(super) name: &'static str,
    spec: Value,
    sizes: [Value; 3],
}

impl Workload {
    /// The job with one of its sizes, and what that size is called.
    pub(super) fn sized(&self, size: usize) -> Result<(Manifest, String), SpecError> {
        let mut spec = self.spec.clone();
        let (field, size) = match spec["workload"].as_str() {
            Some("monte_carlo") => ("shard_size", &self.sizes[size]),
            _ => ("tile", &self.sizes[size]),
        };
        spec["params"][field] = size.clone();
        let words = match size {
            Value::Array(sides) => sides.iter().map(Value::to_string).collect::<Vec<_>>().join("x"),
            size => size.to_string(),
        };
        Ok((JobSpec::from_value(&spec)?.check()?, words))
    }
}

fn paths(name: &'static str, params: Value) -> Workload {
    let spec = json!({ "name": name, "workload": "monte_carlo", "seed": 20_261_121, "params": params });
    Workload { name, spec, sizes: [json!(500), json!(1_024), json!(4_000)] }
}

fn product(name: &'static str, workload: &str, params: Value, sizes: [Value; 3]) -> Workload {
    let spec = json!({ "name": name, "workload": workload, "seed": 20_261_121, "params": params });
    Workload { name, spec, sizes }
}

/// All of them.
pub(super) fn all() -> Vec<Workload> {
    let option = |id: &str, kind: &str, more: Value| {
        let mut option = json!({ "id": id, "underlying": "ACME", "kind": kind, "spot": 100, "strike": 105,
            "rate": 0.05, "dividend": 0.01, "volatility": 0.2, "expiry": 1 });
        for (field, value) in more.as_object().into_iter().flatten() {
            option[field] = value.clone();
        }
        option
    };
    let book = json!([
        option("call", "european_call", json!({})),
        option("put", "european_put", json!({ "underlying": "BETA", "quantity": -2 })),
        option("asian", "asian_call", json!({ "fixings": [0.25, 0.5, 0.75, 1.0] })),
        option("asian put", "asian_put", json!({ "fixings": [0.5, 1.0] })),
        option("digital", "digital_call", json!({ "payout": 10 })),
        option("digital put", "digital_put", json!({ "payout": 10, "underlying": "BETA" })),
        option("watched", "down_and_out_call", json!({ "barrier": 90, "monitoring": [0.25, 0.5, 1.0] })),
        option("bridged", "down_and_out_put", json!({ "barrier": 80, "monitoring": "continuous" })),
    ]);
    let uniform = |rows: u64, cols: u64| json!({ "random": "uniform", "rows": rows, "cols": cols });
    let tiles = [json!([16, 16]), json!([48, 32]), json!([128, 128])];
    vec![
        paths("pi", json!({ "model": "pi", "paths": 10_000 })),
        paths("options, geometric Brownian motion", json!({ "model": "gbm", "paths": 4_000, "book": book })),
        product(
            "gemm f64",
            "gemm",
            json!({ "dtype": "f64", "a": uniform(67, 53), "b": uniform(53, 71) }),
            tiles.clone(),
        ),
        product(
            "gemm f32, transposed, panels, alpha and beta",
            "gemm",
            json!({ "dtype": "f32", "alpha": 1.25, "beta": -0.5, "a": uniform(60, 65), "b": uniform(70, 60),
                "c": uniform(65, 70), "transpose_a": true, "transpose_b": true, "k_panel": 17 }),
            tiles,
        ),
        product(
            "syrk f64, lower",
            "syrk",
            json!({ "dtype": "f64", "a": uniform(75, 40), "k_panel": 16 }),
            [json!(16), json!(32), json!(128)],
        ),
    ]
}
