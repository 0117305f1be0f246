//! The published OpenAPI document against what is really served and read.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tessera_hub::ingress::backend::Peer;
use tessera_hub::ingress::{Code, Limits};
use tessera_protocol::api::*;
use tessera_protocol::id::{AgentId, Digest, HubId, JobId, ProviderId};
use tessera_protocol::spec::{FieldError, JobSpec, Workload};
use tessera_protocol::unit::UnixMillis;

use crate::fake::{Hub, OUTPUT_NAME, agent};
use crate::{PI, full_spec};

fn published() -> Value {
    Hub::start(Limits::default()).get("/openapi.json").json()
}

fn schema<'a>(document: &'a Value, name: &str) -> &'a Value {
    let schema = &document["components"]["schemas"][name];
    assert!(schema.is_object(), "no schema {name}");
    schema
}

/// The part of JSON Schema that the document uses; anything else in it fails here.
fn judge(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).ok_or(format!("no {path}"))?,
        None => schema,
    };
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = choices.iter().filter(|choice| judge(document, choice, value, at).is_ok()).count();
        return if fits == 1 { Ok(()) } else { Err(format!("{at}: {value} fits {fits} of oneOf")) };
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{at}: {value} is not in {}", schema["enum"]));
    }
    let wrong = || Err(format!("{at}: {value} is not a {}", schema["type"]));
    match schema["type"].as_str() {
        Some("null") if value.is_null() => Ok(()),
        Some("string") if value.is_string() => Ok(()),
        Some("number") if value.is_number() => Ok(()),
        Some("boolean") if value.is_boolean() => Ok(()),
        Some("integer") => match value.as_u64() {
            Some(value) if schema["minimum"].as_u64().is_none_or(|minimum| value >= minimum) => Ok(()),
            _ => wrong(),
        },
        Some("array") => {
            let Some(items) = value.as_array() else { return wrong() };
            items.iter().try_for_each(|item| judge(document, &schema["items"], item, &format!("{at}[]")))
        }
        Some("object") => {
            let Some(fields) = value.as_object() else { return wrong() };
            for name in schema["required"].as_array().into_iter().flatten() {
                if !fields.contains_key(name.as_str().unwrap()) {
                    return Err(format!("{at}: {name} is missing"));
                }
            }
            for (name, field) in fields {
                // A map from names holds values of one kind.
                let of_map = schema.get("additionalProperties").filter(|kind| kind.is_object());
                let Some(property) = schema["properties"].get(name).or(of_map) else {
                    return Err(format!("{at}: {name} is not published"));
                };
                judge(document, property, field, &format!("{at}.{name}"))?;
            }
            Ok(())
        }
        _ => wrong(),
    }
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// `full` shows every field of the type, `least` those that are always there.
fn compare(document: &Value, name: &str, full: &Value, least: &Value) {
    let schema = schema(document, name);
    for sample in [full, least] {
        judge(document, schema, sample, name).unwrap();
    }
    assert_eq!(names(&schema["properties"]), names(full), "fields of {name}");
    let required: BTreeSet<&str> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(required, names(least), "required fields of {name}");
}

#[test]
fn the_published_schemas_name_the_fields_that_are_served() {
    let document = published();
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    hub.fake.finish(id, b"{}");
    hub.fake.change(id, |view| {
        view.extends = Some(JobId::new(1, [1; 10]));
        view.ended_ms = Some(UnixMillis(9));
    });
    let view = hub.get(&format!("/v1/jobs/{id}")).json();
    compare(&document, "JobView", &view, &view);
    let with_silent = |list: &Value| {
        let mut full = list.clone();
        full["hubs_silent"] = json!([HubId([1; 16])]);
        full
    };
    let jobs = hub.get("/v1/jobs").json();
    compare(&document, "JobList", &with_silent(&jobs), &json!({"jobs": []}));
    hub.fake.views.publish_agent(agent(1));
    let agents = hub.get("/v1/agents").json();
    let mut least = agents["agents"][0].clone();
    least
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !["region", "gpus", "kernels", "rest"].contains(&field.as_str()));
    compare(&document, "AgentView", &agents["agents"][0], &least);
    let gpu = &agents["agents"][0]["gpus"][0];
    compare(&document, "GpuView", gpu, gpu);
    compare(&document, "AgentList", &with_silent(&agents), &agents);
    hub.fake.beside(vec![Peer { id: HubId([2; 16]), http: "10.0.0.2:7840".into() }]);
    let hubs = hub.get("/v1/hubs").json();
    compare(&document, "HubList", &hubs, &hubs);
    compare(&document, "HubView", &hubs["hubs"][0], &hubs["hubs"][0]);
    hub.fake.beside(Vec::new());
    for (name, value) in [
        ("PlanQuote", hub.post("/v1/jobs:plan", PI).json()),
        ("TokenIssued", hub.post("/v1/agent-tokens", "").json()),
        ("Health", hub.get("/healthz").json()),
        ("Index", hub.get("/").json()),
        ("ExtendRequest", serde_json::to_value(ExtendRequest { paths: 5 }).unwrap()),
    ] {
        compare(&document, name, &value, &value);
    }
    let bill = hub.get(&format!("/v1/jobs/{id}/bill")).json();
    let (providers, audit) = (hub.get("/v1/providers").json(), hub.get("/v1/audit?from=4").json());
    let settlement = hub.post("/v1/settlements", "").json();
    let statement = hub.get(&format!("/v1/providers/{OUTPUT_NAME}/statement")).json();
    for (name, value) in [
        ("JobBill", &bill),
        ("BillLine", &bill["paid"][0]),
        ("Posting", &bill["postings"][0]),
        ("ProviderList", &providers),
        ("ProviderView", &providers["providers"][0]),
        ("Statement", &statement),
        ("StatementLine", &statement["lines"][0]),
        ("Totals", &statement["totals"]),
        ("Settlement", &settlement),
        ("AuditPage", &audit),
    ] {
        compare(&document, name, value, value);
    }
    compare(&document, "SettlementRequest", &json!({"until_ms": 5}), &json!({}));
    let of_acme = serde_json::to_value(TokenRequest { provider: "acme".parse().ok() }).unwrap();
    compare(&document, "TokenRequest", &of_acme, &json!({}));
    for (name, value) in crate::explain::documents() {
        let mut least = value.clone();
        least.as_object_mut().unwrap().remove("rest");
        compare(&document, name, &value, &least);
    }
    let field = FieldError { field: "seed".into(), value: "x".into(), allowed: "a number".into() };
    let field = serde_json::to_value(field).unwrap();
    compare(&document, "FieldError", &field, &field);
    let problem = hub.post("/v1/jobs", "{}").json();
    compare(&document, "Problem", &problem, &hub.get("/nowhere").json());
    let (agent, provider) = (AgentId([1; 16]), ProviderId::of_name("p"));
    let loss = LossView { agent, provider, how: "why".into() };
    for failure in [
        JobFailure::ShardFailed { shard: 1, attempts: 2, cause: "why".into() },
        JobFailure::ShardPoisoned { shard: 1, losses: vec![loss] },
        JobFailure::DeadlinePassed { deadline_s: 3 },
        JobFailure::KernelFault { shard: 4 },
        JobFailure::StageFailed { stage: "survey".into(), cause: "why".into() },
        JobFailure::NotReducible { cause: "why".into() },
    ] {
        let failure = serde_json::to_value(failure).unwrap();
        judge(&document, schema(&document, "JobFailure"), &failure, "JobFailure").unwrap();
    }
    judge(&document, schema(&document, "Digest"), &json!(Digest::of(b"")), "Digest").unwrap();
}

#[test]
fn the_published_job_specification_is_the_one_that_is_read() {
    let document = published();
    let full: Value = serde_json::from_str(&full_spec()).unwrap();
    let read = JobSpec::from_json(full_spec().as_bytes()).unwrap();
    let full_again = serde_json::to_value(&read).unwrap();
    assert_eq!(names(&full_again), names(&full), "the sample shows every field");
    let least: Value = serde_json::from_str(PI).unwrap();
    compare(&document, "JobSpec", &full, &least);
    compare(&document, "MonteCarloParams", &full["params"], &least["params"]);
    compare(&document, "Input", &full["inputs"][0], &full["inputs"][0]);
    compare(&document, "JobLimits", &full["limits"], &json!({}));
    compare(&document, "Requirements", &full["requirements"], &json!({}));
    let contract = &full["params"]["book"][0];
    let mut bare = contract.clone();
    let optional = [
        "underlying",
        "spot",
        "volatility",
        "dividend",
        "quantity",
        "fixings",
        "barrier",
        "monitoring",
        "payout",
        "basket",
        "exercise",
    ];
    for optional in optional {
        bare.as_object_mut().unwrap().remove(optional);
    }
    compare(&document, "ContractSpec", contract, &bare);
    // Each field that is not required can really be left out, and each that is cannot.
    for (name, pointer) in [
        ("JobSpec", ""),
        ("MonteCarloParams", "/params"),
        ("ContractSpec", "/params/book/0"),
        ("BasketPart", "/params/book/0/basket/0"),
        ("StopSpec", "/params/stop"),
        ("UnderlyingSpec", "/params/underlyings/BETA"),
        ("CorrelationSpec", "/params/correlations/0"),
        ("HestonSpec", "/params/heston/ACME"),
        ("Input", "/inputs/0"),
        ("JobLimits", "/limits"),
        ("Requirements", "/requirements"),
    ] {
        let required = schema(&document, name)["required"].as_array().unwrap();
        assert_eq!(schema(&document, name)["additionalProperties"], json!(false), "{name}");
        for field in names(&schema(&document, name)["properties"]) {
            let mut less = full.clone();
            less.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(field);
            let reads = JobSpec::from_json(less.to_string().as_bytes()).is_ok();
            assert_eq!(reads, !required.contains(&json!(field)), "{name}.{field} left out");
        }
    }
}

/// A matrix job with every field that its parameters may have.
fn full_product(workload: &str) -> Value {
    let file = json!({"input": "c.npy", "rows": 64, "cols": 64});
    let random = json!({"random": "uniform", "rows": 64, "cols": 64});
    let params = match workload {
        "gemm" => json!({
            "dtype": "f64", "alpha": 2.0, "beta": 0.5, "a": random, "b": random, "c": file,
            "transpose_a": true, "transpose_b": true, "tile": [16, 32], "k_panel": 16,
        }),
        _ => json!({
            "dtype": "f32", "alpha": 2.0, "beta": 0.5, "a": random, "c": file,
            "transpose": true, "triangle": "upper", "tile": 16, "k_panel": 16,
        }),
    };
    let elements = if workload == "gemm" { 64 * 64 * 8 } else { 64 * 64 * 4 };
    json!({
        "name": "product", "workload": workload, "params": params,
        "inputs": [{"name": "c.npy", "blake3": "11".repeat(32), "bytes": elements + 128}],
    })
}

#[test]
fn the_published_parameters_of_products_are_those_that_are_read() {
    let document = published();
    for (workload, name, most_least) in [("gemm", "GemmParams", 3), ("syrk", "SyrkParams", 2)] {
        let full = full_product(workload);
        judge(&document, schema(&document, "JobSpec"), &full, "JobSpec").unwrap();
        JobSpec::from_json(full.to_string().as_bytes()).unwrap().check().unwrap();
        let schema = schema(&document, name);
        let required = schema["required"].as_array().unwrap();
        assert_eq!((required.len(), &schema["additionalProperties"]), (most_least, &json!(false)));
        let mut least = full["params"].clone();
        least.as_object_mut().unwrap().retain(|field, _| required.contains(&json!(field)));
        compare(&document, name, &full["params"], &least);
        for field in names(&schema["properties"]) {
            let mut less = full.clone();
            less["params"].as_object_mut().unwrap().remove(field);
            let reads = JobSpec::from_json(less.to_string().as_bytes()).is_ok();
            assert_eq!(reads, !required.contains(&json!(field)), "{name}.{field} left out");
        }
    }
    let (file, random) = (&full_product("gemm")["params"]["c"], &full_product("gemm")["params"]["a"]);
    let properties = names(&schema(&document, "MatrixSpec")["properties"]);
    assert_eq!(properties, names(file).union(&names(random)).copied().collect());
    for other in ["monte_carlo", "syrk"] {
        let mut mixed = full_product("gemm");
        mixed["workload"] = json!(other);
        assert!(JobSpec::from_json(mixed.to_string().as_bytes()).is_err(), "{other} has other parameters");
    }
}

#[test]
fn the_published_words_are_the_words_of_the_api() {
    let document = published();
    let words = |schema: &Value| -> BTreeSet<String> {
        schema["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let codes = words(&schema(&document, "Problem")["properties"]["code"]);
    assert_eq!(codes, Code::ALL.iter().map(|code| code.word().to_owned()).collect());
    let workloads = [
        Workload::MonteCarlo,
        Workload::Gemm,
        Workload::Syrk,
        Workload::ClimatePca,
        Workload::Catastrophe,
        Workload::Video,
    ];
    let workloads = workloads.iter().map(|workload| workload.kernel().to_owned()).collect();
    assert_eq!(words(&schema(&document, "JobSpec")["properties"]["workload"]), workloads);
    let states = [JobState::Queued, JobState::Running, JobState::Done, JobState::Failed, JobState::Cancelled];
    let states = states.iter().map(|state| json!(state).as_str().unwrap().to_owned()).collect();
    assert_eq!(words(schema(&document, "JobState")), states);
    let away = [AgentState::Connected, AgentState::Leaving, AgentState::Away];
    let away = away.iter().map(|state| json!(state).as_str().unwrap().to_owned()).collect();
    assert_eq!(words(schema(&document, "AgentState")), away);
    let standings = [
        Standing::Removed,
        Standing::Sandboxed,
        Standing::Quarantine,
        Standing::Probation,
        Standing::Trusted,
    ];
    let standings = standings.iter().map(|standing| standing.word().to_owned()).collect();
    assert_eq!(words(schema(&document, "Standing")), standings);
    let explained = json!(crate::explain::job(JobId::new(1, [1; 10])));
    let said = |list: &Value, word: &str| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|one| one[word].as_str().unwrap().to_owned()).collect()
    };
    let lane = &explained["lanes"][0];
    let published = |name: &str, word: &str| words(&schema(&document, name)["properties"][word]);
    assert_eq!(published("Reason", "reason"), said(&lane["reasons"], "reason"));
    assert_eq!(published("Lack", "lack"), said(&lane["agents"][0]["lacks"], "lack"));
    assert_eq!(document["info"]["version"], json!(env!("CARGO_PKG_VERSION")));
    assert_eq!(document["openapi"], json!("3.1.0"));
}

#[test]
fn every_published_path_is_served_and_every_reference_leads_somewhere() {
    let hub = Hub::start(Limits::default());
    let document = published();
    let id = hub.submit(PI);
    hub.fake.finish_with_file(id, b"file");
    let input = Digest::of(b"input");
    assert_eq!(hub.put(&format!("/v1/inputs/{input}"), b"input").status, 201);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in names(methods) {
            let path = path.replace("{id}", &id.to_string()).replace("{blake3}", &input.to_string());
            let path = path.replace("{name}", OUTPUT_NAME).replace("{number}", "1");
            let answer = match method {
                "get" => hub.get(&path),
                "put" => hub.put(&path, b"input"),
                "head" => {
                    let mut connection = hub.connect();
                    connection.send(&hub.head("HEAD", &path, &[], None));
                    connection.read_head()
                }
                _ => hub.post(&path, PI),
            };
            let status = answer.status;
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
            let described = &methods[method]["responses"];
            assert!(
                described.get(status.to_string()).is_some() || status >= 400,
                "{method} {path}: {status}"
            );
        }
    }
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    for path in found {
        assert!(document.pointer(path.trim_start_matches('#')).is_some(), "{path}");
    }
}
