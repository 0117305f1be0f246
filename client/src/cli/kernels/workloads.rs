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
    let basket = json!([
        { "id": "basket", "kind": "basket_call", "strike": 95, "rate": 0.04, "expiry": 1,
            "basket": [{ "underlying": "ACME", "weight": 0.5 }, { "underlying": "BETA", "weight": 0.5 }] },
        { "id": "spread", "kind": "basket_put", "strike": 5, "rate": 0.04, "expiry": 0.5,
            "basket": [{ "underlying": "ACME", "weight": 1 }, { "underlying": "BETA", "weight": -1 }] },
    ]);
    let american = option("american", "american_put", json!({ "exercise": 8 }));
    let heston = |scheme: &str| {
        let mut book = json!([
            option("call", "european_call", json!({})),
            option("asian", "asian_put", json!({ "fixings": [0.5, 1.0] })),
        ]);
        for option in book.as_array_mut().into_iter().flatten() {
            option.as_object_mut().and_then(|option| option.remove("volatility"));
        }
        let variance = json!({ "v0": 0.04, "kappa": 1.5, "theta": 0.05, "xi": 0.5, "rho": -0.7 });
        json!({ "model": "heston", "paths": 4_000, "book": book, "heston": { "ACME": variance }, "scheme": scheme,
            "steps_per_year": 12 })
    };
    let uniform = |rows: u64, cols: u64| json!({ "random": "uniform", "rows": rows, "cols": cols });
    let tiles = [json!([16, 16]), json!([48, 32]), json!([128, 128])];
    vec![
        paths("pi", json!({ "model": "pi", "paths": 10_000 })),
        paths("options, geometric Brownian motion", json!({ "model": "gbm", "paths": 4_000, "book": book })),
        paths(
            "options, exact quantiles",
            json!({ "model": "gbm", "paths": 4_000, "book": book, "quantiles": "exact" }),
        ),
        paths(
            "options, stopped early",
            json!({ "model": "gbm", "paths": 200_000, "book": book,
                "stop": { "standard_error": 0.15, "min_paths": 4_096 } }),
        ),
        paths(
            "options, antithetic, controlled, with Greeks",
            json!({ "model": "gbm", "paths": 4_000, "antithetic": true, "control_variate": true, "greeks": true,
                "book": book }),
        ),
        paths(
            "basket of correlated underlyings",
            json!({ "model": "gbm", "paths": 4_000, "book": basket,
                "underlyings": { "ACME": { "spot": 100, "volatility": 0.2 },
                    "BETA": { "spot": 90, "volatility": 0.3, "dividend": 0.01 } },
                "correlations": [{ "a": "ACME", "b": "BETA", "rho": 0.6 }] }),
        ),
        paths("Heston, quadratic-exponential", heston("qe")),
        paths("Heston, full truncation", heston("full_truncation")),
        paths(
            "American put",
            json!({ "model": "gbm", "paths": 4_000, "training_paths": 2_048, "book": [american] }),
        ),
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
