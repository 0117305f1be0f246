//! Catastrophe jobs from their specification to their result document: every stage planned, cut into shards and
//! computed here, in several sizes and orders.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tessera_kernels::catastrophe;
use tessera_kernels::isa::Isa;
use tessera_planners::{Next, Part, Plan, StageError, next_stage};
use tessera_protocol::catastrophe::Task;
use tessera_protocol::id::Digest;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::unit::ShardIndex;

type Store = BTreeMap<Digest, Bytes>;

const TRACKS: &str = "storm,time,lat,lon,central_pressure_hpa,max_wind_kn\n\
    A,1990-08-01T00:00,25.0,-79.0,940,120\nA,1990-08-01T12:00,26.0,-82.0,950,110\n\
    B,1994-09-01T00:00,24.0,-81.0,970,80\nB,1994-09-01T12:00,27.0,-80.5,975,75\n";

fn exposure() -> String {
    let row = |n: u32| {
        format!("{},{},{}\n", 25.0 + f64::from(n % 20) * 0.1, -81.0 + f64::from(n / 20) * 0.1, 1000 * n)
    };
    (0..200).map(row).fold("lat,lon,value\n".into(), |text, row| text + &row)
}

/// A job over two files, and the files.
fn job(tracks: &str, exposure: &str, shard_size: Option<u64>) -> (Manifest, Store) {
    let mut store = Store::new();
    let mut input = |name: &str, text: &str| {
        let blake3 = Digest::of(text.as_bytes());
        store.insert(blake3, Bytes::copy_from_slice(text.as_bytes()));
        json!({ "name": name, "blake3": blake3, "bytes": text.len() })
    };
    let inputs = [input("tracks.csv", tracks), input("houses.csv", exposure)];
    let mut params = json!({
        "tracks": { "input": "tracks.csv", "format": "csv" }, "exposure": "houses.csv",
        "samples": 8, "years": 2000, "return_periods": [5, 50, 500]
    });
    if let Some(size) = shard_size {
        params["shard_size"] = json!(size);
    }
    let job =
        json!({ "name": "cat", "workload": "catastrophe", "seed": 3, "params": params, "inputs": inputs });
    let manifest =
        JobSpec::from_value(&job).and_then(JobSpec::check).unwrap_or_else(|error| panic!("{error}"));
    (manifest, store)
}

/// Computes a stage's shards, the last first; each sees only the files that its plan names.
fn stage(manifest: &Manifest, plan: &Plan, store: &mut Store) -> Vec<ProductRef> {
    let task = Task::decode(plan.task()).expect("planners write tasks");
    let allowed = plan.inputs();
    assert!(allowed.iter().all(|(digest, bytes)| store[digest].len() as u64 == *bytes));
    let mut products = BTreeMap::new();
    for index in (plan.indices().start..plan.indices().end).rev().map(ShardIndex) {
        let shard = plan.shard(index).expect("a shard of the plan");
        let find = |digest: &[u8; 32]| {
            let digest = Digest(*digest);
            allowed.iter().any(|(name, _)| *name == digest).then(|| store[&digest].clone())
        };
        let product = catastrophe::run(&task, shard.first, shard.count, &find, Isa::detect(), &|| false)
            .unwrap_or_else(|error| panic!("{error}"));
        let encoded = product.encode().expect("a product within its limits");
        let blake3 = Digest::of(&encoded);
        let Some(Part::Product(reference, _)) = plan.read_partial(manifest, index, blake3, &encoded) else {
            panic!("the plan reads its kernel's products")
        };
        store.insert(reference.blake3, encoded.into());
        products.insert(index.0, reference);
    }
    products.into_values().collect()
}

fn result(manifest: &Manifest, store: &mut Store) -> Result<Vec<u8>, StageError> {
    let mut plan = Plan::new(manifest, 0).expect("the job can be planned");
    let mut names = Vec::new();
    loop {
        names.push(plan.stage().expect("it is a stage"));
        let products = stage(manifest, &plan, store);
        match next_stage(manifest, &plan, products)? {
            Next::Round(next) => plan = *next,
            Next::Finished(document) => {
                assert_eq!(names, ["survey", "losses", "finish"]);
                return Ok(document);
            }
        }
    }
}

#[test]
fn a_job_gives_the_same_numbers_and_files_in_any_size_of_shards() {
    let (manifest, mut store) = job(TRACKS, &exposure(), None);
    let document = result(&manifest, &mut store).unwrap_or_else(|error| panic!("{error}"));
    let whole: Value = serde_json::from_slice(&document).expect("results are JSON");
    assert!(whole["average_annual_loss"].as_f64().is_some_and(|loss| loss > 0.0), "{whole}");
    assert_eq!(whole["inputs"]["storms"], json!(2));
    assert_eq!(whole["inputs"]["years"], json!([1990, 1994]));
    let names: Vec<&str> = whole["outputs"]
        .as_array()
        .expect("outputs")
        .iter()
        .filter_map(|output| output["name"].as_str())
        .collect();
    assert_eq!(names.len(), 7, "{names:?}");
    for output in whole["outputs"].as_array().expect("outputs") {
        // Every output lies where the document says, and is what it says.
        let part = &output["parts"][0];
        let digest: Digest = serde_json::from_value(part["product"].clone()).expect("a digest");
        let at = |name: &str| part[name].as_u64().expect("a number") as usize;
        let bytes = &store[&digest][at("offset")..][..at("bytes")];
        assert_eq!(json!(Digest::of(bytes)), output["blake3"]);
    }
    for size in [1, 3, 100] {
        let (manifest, mut store) = job(TRACKS, &exposure(), Some(size));
        assert_eq!(
            result(&manifest, &mut store).unwrap_or_else(|error| panic!("{error}")),
            document,
            "{size}"
        );
    }
}

#[test]
fn the_example_has_a_loss_that_its_drawn_years_agree_with() {
    // The parameters of examples/catastrophe.toml, with fewer samples and years.
    let read = |name: &str| {
        let path = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let files = ["catastrophe_tracks.txt", "catastrophe_exposure.csv", "catastrophe_curves.csv"];
    let mut store = Store::new();
    let inputs: Vec<Value> = files
        .iter()
        .map(|name| {
            let text = read(name);
            let blake3 = Digest::of(text.as_bytes());
            let bytes = text.len();
            store.insert(blake3, text.into());
            json!({ "name": name, "blake3": blake3, "bytes": bytes })
        })
        .collect();
    let job = json!({
        "name": "example", "workload": "catastrophe", "seed": 20251121, "inputs": inputs,
        "params": {
            "tracks": { "input": files[0], "annual_rate": 0.03 }, "exposure": files[1], "curves": files[2],
            "samples": 40, "years": 20_000, "return_periods": [50, 100, 500],
            "perturbation": { "position_km": 60, "intensity": 0.12, "radius": 0.25 }
        }
    });
    let manifest =
        JobSpec::from_value(&job).and_then(JobSpec::check).unwrap_or_else(|error| panic!("{error}"));
    let document = result(&manifest, &mut store).unwrap_or_else(|error| panic!("{error}"));
    let result: Value = serde_json::from_slice(&document).expect("results are JSON");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    let value = number(&result["inputs"]["value"]);
    assert!((0.0..0.1 * value).contains(&number(&result["average_annual_loss"])), "{result}");
    let (drawn, error) = (number(&result["simulated_average"]), number(&result["simulated_standard_error"]));
    assert!((drawn - number(&result["average_annual_loss"])).abs() < 4.0 * error, "{drawn} ± {error}");
}

#[test]
fn what_is_wrong_with_a_file_ends_the_job_in_the_survey_s_words() {
    let (manifest, mut store) = job(TRACKS, "lat,lon,value\n99,0,1\n", None);
    let Err(error) = result(&manifest, &mut store) else { panic!("a house beyond the pole") };
    assert_eq!(
        error,
        StageError::Input("the exposure file, line 2: lat = 99: must be from -90 to 90".into())
    );
}

#[test]
fn a_wrong_parameter_is_named() {
    let (manifest, _) = job(TRACKS, &exposure(), None);
    let base = serde_json::to_value(manifest.spec()).expect("a specification is JSON");
    let fault = |change: &dyn Fn(&mut Value)| {
        let mut job = base.clone();
        change(&mut job);
        match JobSpec::from_value(&job).and_then(JobSpec::check) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let cases: [(&str, &dyn Fn(&mut Value)); 9] = [
        ("params.tracks.input = \"x\": must be the name of an entry of `inputs`", &|job| {
            job["params"]["tracks"]["input"] = json!("x")
        }),
        ("params.samples = 0: must be from 1 to 200000", &|job| job["params"]["samples"] = json!(0)),
        ("params.return_periods[2] = 5000: must be above 50 and at most the years drawn, 2000", &|job| {
            job["params"]["return_periods"][2] = json!(5000)
        }),
        ("params.return_periods[1] = 5: must be above 5", &|job| {
            job["params"]["return_periods"][1] = json!(5)
        }),
        ("params.emanuel.half_ms = 20: must be above the threshold, 25.7", &|job| {
            job["params"]["emanuel"]["half_ms"] = json!(20)
        }),
        ("params.wind.reach_km = 5000: must be from 1 to 1000", &|job| {
            job["params"]["wind"]["reach_km"] = json!(5000)
        }),
        ("params.tracks.years = [2000, 1990]: must be a first and a last year", &|job| {
            job["params"]["tracks"]["years"] = json!([2000, 1990])
        }),
        ("params.wind.holland_b: unknown variant `holland_1066`", &|job| {
            job["params"]["wind"]["holland_b"] = json!("holland_1066")
        }),
        ("params.storms: unknown field `storms`", &|job| job["params"]["storms"] = json!([])),
    ];
    for (expected, change) in cases {
        let found = fault(change);
        assert!(found.starts_with(expected), "{found}\nexpected: {expected}");
    }
}
