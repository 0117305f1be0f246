//! What the hub looks at, from real kernels: honest shards of every kind of book and product do not look odd.

use serde_json::{Value, json};
use tessera_hub_core::triage::{Oddity, Triage};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::{Part, Plan};
use tessera_protocol::id::Digest;
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::ShardIndex;

fn planned(workload: &str, params: &Value) -> (Manifest, Plan) {
    let job = json!({ "name": "test", "workload": workload, "seed": 5, "params": params });
    let spec = JobSpec::from_json(&serde_json::to_vec(&job).expect("it is JSON"));
    let manifest = spec.and_then(JobSpec::check).unwrap_or_else(|error| panic!("{error}"));
    let plan = Plan::new(&manifest, 0).expect("the job can be planned");
    (manifest, plan)
}

/// Computes the shards of a job one after the other and looks at each beside those before it.
fn oddities(workload: &str, params: &Value) -> Vec<Oddity> {
    let (manifest, plan) = planned(workload, params);
    let (mut triage, mut pool, mut odd) = (Triage::default(), None::<Tally>, Vec::new());
    let sampled =
        (workload == "monte_carlo").then(|| Task::decode(plan.task()).expect("planners write tasks"));
    let prepared = sampled.map(|task| monte_carlo::Prepared::new(&task).expect("the task runs"));
    let product = plan
        .matrix()
        .map(|task| tessera_kernels::matrix::Prepared::new(task.clone(), &|_, _| None, u64::MAX));
    let product = product.map(|prepared| prepared.expect("the task runs"));
    for index in (plan.indices().start..plan.indices().end).map(ShardIndex) {
        let shard = plan.shard(index).expect("a shard of the plan");
        let bytes = match (&prepared, &product) {
            (Some(job), _) => {
                let tally = job.run(Isa::detect(), shard.first, shard.count, &|| false);
                tally.expect("the kernel runs").encode()
            }
            (_, Some(job)) => job.run(Isa::detect(), shard.first, &|| false).expect("the kernel runs"),
            _ => panic!("the workload is sampled or a product"),
        };
        let part = plan.read_partial(&manifest, index, Digest::of(&bytes), &bytes);
        let part = part.expect("the partial fits its job");
        odd.extend(triage.look(&manifest, &plan, index, &part, pool.as_ref()));
        triage.released(&part);
        if let Part::Tally(tally) = part {
            match &mut pool {
                Some(pool) => pool.merge(&tally).expect("tallies of one job"),
                None => pool = Some(tally.into()),
            }
        }
    }
    odd
}

fn contract(id: &str, kind: &str, more: Value) -> Value {
    let mut contract = json!({ "id": id, "underlying": "U", "kind": kind, "spot": 100.0, "strike": 105.0, "rate": 0.03,
        "volatility": 0.3, "expiry": 1.0 });
    let fields = contract.as_object_mut().expect("it is an object");
    fields.extend(more.as_object().expect("it is an object").clone());
    contract
}

#[test]
fn honest_samples_of_every_kind_of_book_do_not_look_odd() {
    let plain = json!([
        contract("call", "european_call", json!({ "quantity": -3.0 })),
        contract("put", "european_put", json!({ "quantity": 1e6 })),
        contract("asian", "asian_call", json!({ "fixings": [0.25, 0.5, 1.0] })),
        // Far out of the money: most shards have none that pays, and some have one.
        contract("far", "european_call", json!({ "strike": 300.0, "quantity": 1e4 })),
        contract("digital", "digital_put", json!({ "strike": 40.0, "payout": 1e6 })),
        contract("barrier", "down_and_out_call", json!({ "barrier": 80.0, "monitoring": "continuous" })),
    ]);
    let american = json!([contract("put", "american_put", json!({ "exercise": 4 }))]);
    let heston = json!({ "model": "heston", "paths": 40_000, "shard_size": 512, "steps_per_year": 8, "antithetic": true,
        "book": [{ "id": "h", "underlying": "X", "kind": "european_call", "spot": 100.0, "strike": 100.0, "rate": 0.01,
                   "expiry": 1.0 }],
        "heston": { "X": { "v0": 0.04, "kappa": 1.5, "theta": 0.04, "xi": 0.6, "rho": -0.7 } } });
    let jobs = [
        json!({ "model": "pi", "paths": 200_000, "shard_size": 500 }),
        json!({ "model": "gbm", "paths": 200_000, "shard_size": 500, "book": plain }),
        json!({ "model": "gbm", "paths": 100_000, "shard_size": 500, "book": plain, "antithetic": true, "greeks": true,
                "control_variate": true }),
        json!({ "model": "gbm", "paths": 50_000, "shard_size": 1000, "book": american }),
        heston,
    ];
    for params in jobs {
        let odd = oddities("monte_carlo", &params);
        assert!(odd.is_empty(), "{params}: {odd:?}");
    }
}

#[test]
fn honest_blocks_of_products_do_not_look_odd() {
    let random = |rows, cols| json!({ "random": "uniform", "rows": rows, "cols": cols });
    for dtype in ["f32", "f64"] {
        let gemm = json!({ "dtype": dtype, "a": random(70, 500), "b": random(500, 90), "tile": [16, 32], "k_panel": 60,
                           "alpha": -2.5, "beta": 0.5, "c": random(70, 90) });
        assert_eq!(oddities("gemm", &gemm), [], "{gemm}");
        for (triangle, alpha) in [("lower", 1.0), ("upper", -1e-3)] {
            let syrk = json!({ "dtype": dtype, "a": random(90, 700), "tile": 32, "k_panel": 300, "triangle": triangle,
                               "alpha": alpha });
            assert_eq!(oddities("syrk", &syrk), [], "{syrk}");
        }
    }
}
