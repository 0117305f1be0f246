//! Every problem code, reached over a socket.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::time::Duration;

use tessera_hub::ingress::backend::{Outage, Place};
use tessera_hub::ingress::keys::ApiKey;
use tessera_hub::ingress::{Code, Limits};
use tessera_protocol::api::{JobFailure, JobState, Problem};

use crate::client::{Answer, head};
use crate::fake::{Hub, SEED_WITHOUT_PLAN, TOKENS_MAX};
use crate::{PI, full_spec, pi_named};

const JSON: (&str, &str) = ("content-type", "application/json");
const NOBODY: &str = "job_00000000000000000000000000000000";

/// Which codes were seen.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<String, u16>);

impl Seen {
    #[track_caller]
    pub(crate) fn expect(&mut self, answer: Answer, status: u16, code: &str) -> Problem {
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
        self.0.insert(code.to_owned(), status);
        serde_json::from_slice(&answer.body).unwrap()
    }
}

#[test]
fn every_problem_code_is_reached_and_says_what_to_do() {
    let mut seen = Seen::default();
    wrong_requests(&mut seen);
    wrong_keys(&mut seen);
    wrong_bodies(&mut seen);
    wrong_jobs(&mut seen);
    full_and_out(&mut seen);
    elsewhere(&mut seen);
    slow(&mut seen);
    crate::files::wrong_files(&mut seen);
    let all: BTreeMap<String, u16> =
        Code::ALL.iter().map(|code| (code.word().to_owned(), code.status())).collect();
    assert_eq!(seen.0, all);
}

fn wrong_requests(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    seen.expect(hub.get("/nowhere"), 404, "route_unknown");
    seen.expect(hub.get("/v1/nowhere"), 404, "route_unknown");
    seen.expect(hub.post(&format!("/v1/jobs/{NOBODY}:explode"), ""), 404, "route_unknown");
    for (answer, allow) in [
        (hub.post("/v1/agents", ""), "GET,HEAD"),
        (hub.get("/v1/jobs:plan"), "POST"),
        (hub.get(&format!("/v1/jobs/{NOBODY}:cancel")), "POST"),
        (hub.post(&format!("/v1/jobs/{NOBODY}"), ""), "GET, HEAD"),
    ] {
        assert_eq!(answer.header("allow"), Some(allow), "{answer:?}");
        seen.expect(answer, 405, "method_not_allowed");
    }
    for query in ["limit=0", "limit=1001", "limit=ten", "state=lost", "colour=red"] {
        seen.expect(hub.get(&format!("/v1/jobs?{query}")), 400, "query_invalid");
    }
    for id in ["1", "job_12", &NOBODY.to_uppercase(), "%ff"] {
        seen.expect(hub.get(&format!("/v1/jobs/{id}")), 400, "id_invalid");
    }
    let too_long = "k".repeat(256);
    for key in ["", "b\u{e4}r", too_long.as_str()] {
        let answer = hub.post_with("/v1/jobs", &[JSON, ("idempotency-key", key)], PI);
        seen.expect(answer, 400, "idempotency_key_invalid");
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    seen.expect(hub.post_with("/v1/jobs", &twice, PI), 400, "idempotency_key_invalid");
}

fn wrong_keys(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let mut connection = hub.connect();
        connection.send(&head("GET", path, headers, None));
        connection.read_answer()
    };
    for path in ["/v1/jobs", "/v1/agents", "/v1/nowhere", &format!("/v1/jobs/{NOBODY}/events")] {
        let answer = ask(path, &[]);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
        seen.expect(answer, 401, "key_missing");
    }
    seen.expect(ask("/v1/jobs", &[("authorization", "Basic dHNrOg==")]), 401, "key_missing");
    let other = format!("Bearer {}", ApiKey::generate().unwrap().reveal());
    let near = format!("Bearer {}", &hub.fake.key.reveal()[..67]);
    for wrong in [other, near] {
        let answer = ask("/v1/jobs", &[("authorization", &wrong)]);
        assert!(answer.header("www-authenticate").is_some());
        seen.expect(answer, 401, "key_wrong");
    }
    let right = format!("bearer {}", hub.fake.key.reveal());
    assert_eq!(ask("/v1/jobs", &[("authorization", &right)]).status, 200, "the scheme has no case");
    for open in ["/", "/healthz", "/openapi.json", "/metrics"] {
        assert_eq!(ask(open, &[]).status, 200, "{open} needs no key on loopback");
    }
}

fn wrong_bodies(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    for kind in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/toml")]] {
        seen.expect(hub.post_with("/v1/jobs", kind, PI), 415, "content_type_unsupported");
    }
    let malformed = seen.expect(hub.post("/v1/jobs", "{\n  \"name\": pi\n}"), 400, "json_malformed");
    assert!(malformed.detail.contains("line 2 column 11"), "{}", malformed.detail);
    for text in ["", "{", "{} {}", "name = \"pi\"", &"[".repeat(1 << 20)] {
        seen.expect(hub.post("/v1/jobs", text), 400, "json_malformed");
    }
    let unknown = seen.expect(hub.post("/v1/jobs", &PI.replace("paths", "pathz")), 422, "spec_invalid");
    assert!(unknown.errors[0].field.starts_with("params"), "{unknown:?}");
    let zero = seen.expect(hub.post("/v1/jobs:plan", &pi_named("pi", 0)), 422, "spec_invalid");
    assert_eq!((zero.errors[0].field.as_str(), zero.errors[0].value.as_str()), ("params.paths", "0"));
    let negative = full_spec().replace("\"volatility\":0.2", "\"volatility\":-0.2");
    let negative = seen.expect(hub.post("/v1/jobs", &negative), 422, "spec_invalid");
    assert!(negative.errors.iter().any(|error| error.field == "params.book[0].volatility"), "{negative:?}");

    let mut connection = hub.connect();
    let chunked = [JSON, ("transfer-encoding", "chunked")];
    connection.send(&(hub.head("POST", "/v1/jobs", &chunked, None) + "5\r\n{\"nam\r\nnot a size\r\n"));
    seen.expect(connection.read_answer(), 400, "body_malformed");

    let mut connection = hub.connect();
    connection.send(&hub.head("POST", "/v1/jobs", &[JSON], Some((8 << 20) + 1)));
    let answer = connection.read_answer();
    assert_eq!(answer.header("connection"), Some("close"));
    seen.expect(answer, 413, "body_too_large");
    connection.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    assert!(connection.is_closed());
    assert!(hub.get("/v1/jobs").json()["jobs"].as_array().unwrap().is_empty(), "nothing was accepted");
}

fn wrong_jobs(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    for path in ["", "/result", "/events", "/explain"] {
        seen.expect(hub.get(&format!("/v1/jobs/{NOBODY}{path}")), 404, "job_unknown");
    }
    seen.expect(hub.post(&format!("/v1/jobs/{NOBODY}:cancel"), ""), 404, "job_unknown");
    seen.expect(hub.post(&format!("/v1/jobs/{NOBODY}:extend"), "{\"paths\":1}"), 404, "job_unknown");

    let stranger = "agt_00000000000000000000000000000000";
    seen.expect(hub.get(&format!("/v1/agents/{stranger}/explain")), 404, "agent_unknown");
    seen.expect(hub.get("/v1/agents/nobody/explain"), 400, "id_invalid");

    let id = hub.submit(PI);
    seen.expect(hub.get(&format!("/v1/jobs/{id}/result")), 409, "job_not_done");
    seen.expect(hub.post(&format!("/v1/jobs/{id}:extend"), "{\"paths\":5}"), 409, "job_not_done");
    hub.fake.finish(id, b"{}");
    seen.expect(hub.post(&format!("/v1/jobs/{id}:cancel"), ""), 409, "job_ended");
    seen.expect(hub.post(&format!("/v1/jobs/{id}:extend"), "{\"paths\":1000}"), 422, "paths_not_more");

    let id = hub.submit(PI);
    hub.post(&format!("/v1/jobs/{id}:cancel"), "");
    seen.expect(hub.get(&format!("/v1/jobs/{id}/result")), 410, "job_cancelled");

    let id = hub.submit(PI);
    hub.fake.change(id, |view| {
        view.state = JobState::Failed;
        view.failure = Some(JobFailure::DeadlinePassed { deadline_s: 60 });
    });
    let failed = seen.expect(hub.get(&format!("/v1/jobs/{id}/result")), 410, "job_failed");
    assert!(failed.detail.contains("60 s"), "{}", failed.detail);

    *hub.fake.pruned.lock().unwrap() = Some(id);
    let pruned = seen.expect(hub.get(&format!("/v1/jobs/{id}")), 410, "job_pruned");
    assert!(pruned.detail.contains("1970-01-01T00:00:01Z"), "{}", pruned.detail);
    seen.expect(hub.post(&format!("/v1/jobs/{id}:cancel"), ""), 410, "job_pruned");

    let capped = PI.replace("\"params\"", "\"limits\":{\"cost_cap\":5},\"params\"");
    seen.expect(hub.post("/v1/jobs", &capped), 422, "cost_cap_exceeded");
    let without_plan = PI.replace("\"params\"", &format!("\"seed\":{SEED_WITHOUT_PLAN},\"params\""));
    for path in ["/v1/jobs", "/v1/jobs:plan"] {
        seen.expect(hub.post(path, &without_plan), 422, "spec_invalid");
    }
    let job = hub.submit(PI);
    seen.expect(hub.get(&format!("/v1/jobs/{job}/receipt")), 409, "job_not_done");
    hub.fake.finish(job, b"{}");
    seen.expect(hub.get(&format!("/v1/jobs/{job}/receipts/nobody")), 404, "provider_unknown");
    seen.expect(hub.get("/v1/providers/nobody/statement"), 404, "provider_unknown");
    seen.expect(hub.get("/v1/settlements/7"), 404, "settlement_unknown");
    seen.expect(hub.post("/v1/settlements", r#"{"until_ms":0}"#), 409, "nothing_due");
    seen.expect(hub.get("/v1/audit?from=x"), 400, "query_invalid");
    let named = [JSON, ("idempotency-key", "one")];
    assert_eq!(hub.post_with("/v1/jobs", &named, PI).status, 201);
    seen.expect(hub.post_with("/v1/jobs", &named, &pi_named("other", 7)), 409, "idempotency_key_reused");
}

fn full_and_out(seen: &mut Seen) {
    let hub = Hub::start(Limits { streams_max: 1, ..Limits::default() });
    for _ in 0..TOKENS_MAX {
        assert_eq!(hub.post("/v1/agent-tokens", "").status, 201);
    }
    let answer = hub.post("/v1/agent-tokens", "");
    assert_eq!(answer.header("retry-after"), Some("60"));
    seen.expect(answer, 429, "tokens_full");
    let ids: Vec<_> = (0..crate::fake::OPEN_JOBS_MAX).map(|_| hub.submit(PI)).collect();
    let answer = hub.post("/v1/jobs", PI);
    assert_eq!(answer.header("retry-after"), Some("30"));
    seen.expect(answer, 429, "open_jobs_full");

    let events = format!("/v1/jobs/{}/events", ids[0]);
    let mut watcher = hub.connect();
    watcher.send(&hub.head("GET", &events, &[], None));
    assert_eq!(watcher.read_head().status, 200);
    seen.expect(hub.get(&events), 503, "streams_full");
    hub.fake.finish(ids[0], b"{}");
    while watcher.read_chunk().is_some() {}
    assert_eq!(hub.get(&events).status, 200, "the place of an ended stream is free again");

    for (outage, status, code) in [
        (Outage::Draining, 503, "draining"),
        (Outage::StoreFailing, 503, "store_failing"),
        (Outage::StoreReadOnly, 503, "store_failing"),
        (Outage::StoreFull, 507, "store_full"),
        (Outage::Unavailable, 503, "hub_unavailable"),
    ] {
        *hub.fake.outage.lock().unwrap() = Some(outage);
        for answer in [hub.post("/v1/jobs", PI), hub.get("/healthz"), hub.get("/v1/jobs")] {
            assert!(answer.header("retry-after").is_some());
            seen.expect(answer, status, code);
        }
    }
}

fn elsewhere(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    hub.fake.beside(Vec::new());
    hub.fake.places(id, Place::Gone(None));
    seen.expect(hub.get(&format!("/v1/jobs/{id}")), 503, "owner_unreachable");
}

fn slow(seen: &mut Seen) {
    let short = Duration::from_millis(200);
    let hub = Hub::start(Limits { body_time_max: short, answer_time_max: short, ..Limits::default() });
    let mut connection = hub.connect();
    connection.send(&(hub.head("POST", "/v1/jobs", &[JSON], Some(PI.len())) + &PI[..10]));
    seen.expect(connection.read_answer(), 408, "body_timeout");
    *hub.fake.pause.lock().unwrap() = Duration::from_secs(60);
    seen.expect(hub.post("/v1/jobs", PI), 504, "answer_timeout");
}
