//! The life of a job through the API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tessera_hub::ingress::Limits;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::Digest;

use crate::fake::{Hub, agent};
use crate::{PI, pi_named};

#[test]
fn a_job_is_submitted_shown_and_its_result_fetched_byte_for_byte() {
    let hub = Hub::start(Limits::default());
    let answer = hub.post("/v1/jobs", PI);
    assert_eq!(answer.status, 201);
    let view: JobView = serde_json::from_slice(&answer.body).unwrap();
    let path = format!("/v1/jobs/{}", view.id);
    assert_eq!(answer.header("location"), Some(path.as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(hub.get(&path).json(), answer.json());

    let early = hub.get(&format!("{path}/result"));
    assert_eq!((early.status, early.code().as_str()), (409, "job_not_done"));
    assert!(early.json()["detail"].as_str().unwrap().contains("queued"));

    let result = b"{\"pi\" :  3.14}\n";
    hub.fake.finish(view.id, result);
    let answer = hub.get(&format!("{path}/result"));
    assert_eq!((answer.status, answer.body.as_slice()), (200, result.as_slice()));
    let digest = Digest::of(result).to_string();
    assert_eq!(answer.header("tessera-digest"), Some(digest.as_str()));
    assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
    assert_eq!(hub.get(&path).json()["digest"], json!(digest));

    let known = format!("\"other\", W/\"{digest}\"");
    let again = hub.get_with(&format!("{path}/result"), &[("if-none-match", &known)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[test]
fn a_repeated_idempotency_key_answers_the_first_job_and_refuses_another_specification() {
    let hub = Hub::start(Limits::default());
    let headers = [("content-type", "application/json"), ("idempotency-key", "order-1")];
    let first = hub.post_with("/v1/jobs", &headers, PI);
    assert_eq!(first.status, 201);
    let again = hub.post_with("/v1/jobs", &headers, &format!("  {PI} "));
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(again.header("location"), first.header("location"));
    let other = hub.post_with("/v1/jobs", &headers, &pi_named("pi", 2_000));
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_key_reused"));
    assert_eq!(hub.get("/v1/jobs").json()["jobs"].as_array().unwrap().len(), 1);
}

#[test]
fn jobs_are_listed_newest_first_and_by_state_project_and_number() {
    let hub = Hub::start(Limits::default());
    let ids: Vec<Value> =
        (0..3).map(|number| json!(hub.submit(&pi_named(&format!("pi-{number}"), 10)))).collect();
    hub.fake.change(serde_json::from_value(ids[1].clone()).unwrap(), |view| view.state = JobState::Running);
    let listed = |query: &str| -> Vec<Value> {
        let answer = hub.get(&format!("/v1/jobs{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect()
    };
    assert_eq!(listed(""), [ids[2].clone(), ids[1].clone(), ids[0].clone()]);
    assert_eq!(listed("?limit=2"), [ids[2].clone(), ids[1].clone()]);
    assert_eq!(listed("?state=running"), [ids[1].clone()]);
    assert_eq!(listed("?project=default&state=queued&limit=1"), [ids[2].clone()]);
    assert!(listed("?project=other").is_empty());
}

#[test]
fn a_job_is_cancelled_once_and_cancelling_it_again_is_no_error() {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    for path in [format!("/v1/jobs/{id}:cancel"), format!("/v1/jobs/{id}%3Acancel")] {
        let answer = hub.post_with(&path, &[], "");
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("cancelled")));
    }
}

#[test]
fn a_done_job_is_extended_into_a_new_one() {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    hub.fake.finish(id, b"{}");
    let answer = hub.post(&format!("/v1/jobs/{id}:extend"), r#"{"paths":5000}"#);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!((&answer.json()["extends"], &answer.json()["paths"]), (&json!(id), &json!(5000)));
    let wrong = hub.post(&format!("/v1/jobs/{id}:extend"), r#"{"paths":5000,"pathz":1}"#);
    assert_eq!((wrong.status, wrong.code().as_str()), (422, "spec_invalid"));
}

#[test]
fn a_plan_is_quoted_and_no_job_is_made() {
    let hub = Hub::start(Limits::default());
    let answer = hub.post("/v1/jobs:plan", PI);
    assert_eq!((answer.status, &answer.json()["cost"]), (200, &json!(1000)));
    assert!(hub.get("/v1/jobs").json()["jobs"].as_array().unwrap().is_empty());
}

#[test]
fn agents_are_listed_and_tokens_issued() {
    let hub = Hub::start(Limits::default());
    hub.fake.views.publish_agent(agent(2));
    hub.fake.views.publish_agent(agent(1));
    let answer = hub.get("/v1/agents");
    let names: Vec<Value> =
        answer.json()["agents"].as_array().unwrap().iter().map(|agent| agent["name"].clone()).collect();
    assert_eq!(names, [json!("agent-1"), json!("agent-2")]);
    let token = hub.post_with("/v1/agent-tokens", &[], "");
    assert_eq!((token.status, &token.json()["hub"]), (201, &json!("127.0.0.1:7000")));
    assert_eq!(token.header("cache-control"), Some("no-store"));
    assert_eq!(token.json()["provider"], json!("operator"));
    assert_eq!(hub.post("/v1/agent-tokens", r#"{"provider":"acme"}"#).json()["provider"], json!("acme"));
    for wrong in [r#"{"provider":"operator"}"#, r#"{"provider":"a b"}"#, r#"{"provider":7}"#] {
        let refused = hub.post("/v1/agent-tokens", wrong);
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("spec_invalid")), "{wrong}");
        assert_eq!(refused.json()["errors"][0]["field"], json!("provider"));
    }
}

#[test]
fn metrics_join_those_of_the_hub_and_those_of_its_requests() {
    let hub = Hub::start(Limits::default());
    hub.submit(PI);
    hub.get("/no/such/path");
    let text = String::from_utf8(hub.get("/metrics").body).unwrap();
    for line in [
        "tessera_jobs_open 1\n",
        "tessera_http_requests_total{route=\"/v1/jobs\",method=\"POST\",status=\"201\"} 1\n",
        "tessera_http_requests_total{route=\"(none)\",method=\"GET\",status=\"404\"} 1\n",
        "tessera_http_request_seconds_bucket{route=\"/v1/jobs\",le=\"+Inf\"} 1\n",
        "tessera_http_request_seconds_count{route=\"/v1/jobs\"} 1\n",
        "tessera_http_event_streams 0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// The events of a stream until it ends: their ids and views, and the comments in between.
fn read_events(
    hub: &Hub,
    id: tessera_protocol::id::JobId,
    mut each: impl FnMut(u64),
) -> (Vec<(u64, JobView)>, usize) {
    let mut connection = hub.connect();
    connection.send(&hub.head("GET", &format!("/v1/jobs/{id}/events"), &[], None));
    let head = connection.read_head();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let (mut text, mut events, mut comments) = (String::new(), Vec::new(), 0);
    while let Some(chunk) = connection.read_chunk() {
        text += std::str::from_utf8(&chunk).unwrap();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            match field("data: ") {
                None => comments += usize::from(event.starts_with(':')),
                Some(data) => {
                    assert_eq!(field("event: "), Some("job"));
                    let number = field("id: ").unwrap().parse().unwrap();
                    events.push((number, serde_json::from_str(data).unwrap()));
                    each(number);
                }
            }
            text = rest.to_owned();
        }
    }
    (events, comments)
}

#[test]
fn events_start_with_the_present_state_and_end_with_the_job() {
    let hub = Hub::start(Limits { keep_alive_gap: Duration::from_millis(150), ..Limits::default() });
    let id = hub.submit(PI);
    let fake = hub.fake.clone();
    let (events, comments) = read_events(&hub, id, |number| match number {
        1 => fake.change(id, |view| view.state = JobState::Running),
        2 => {
            let fake = fake.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(600));
                fake.finish(id, b"{}");
            });
        }
        _ => {}
    });
    let states: Vec<(u64, JobState)> = events.iter().map(|(number, view)| (*number, view.state)).collect();
    assert_eq!(states, [(1, JobState::Queued), (2, JobState::Running), (3, JobState::Done)]);
    assert!(comments >= 2, "a quiet stream was kept alive {comments} times");
    let (events, _) = read_events(&hub, id, |_| {});
    assert_eq!(events.len(), 1, "an ended job has one event, its end");
}

#[test]
fn an_end_does_not_wait_for_the_gap_between_events() {
    let hub = Hub::start(Limits { event_gap: Duration::from_secs(3_600), ..Limits::default() });
    let id = hub.submit(PI);
    let (events, _) = read_events(&hub, id, |number| {
        if number == 1 {
            hub.fake.finish(id, b"{}");
        }
    });
    let states: Vec<JobState> = events.iter().map(|(_, view)| view.state).collect();
    assert_eq!(states, [JobState::Queued, JobState::Done]);
}

#[test]
fn a_thousand_changes_a_second_become_ten_events() {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    let fake = hub.fake.clone();
    let started = Instant::now();
    let feeder = std::thread::spawn(move || {
        for attempts in 1..=1_000 {
            fake.change(id, |view| view.attempts = attempts);
            std::thread::sleep(Duration::from_millis(1));
        }
        fake.finish(id, b"{}");
    });
    let (events, _) = read_events(&hub, id, |_| {});
    let most = started.elapsed().as_millis() / 100 + 2;
    feeder.join().unwrap();
    assert!((5..=most).contains(&(events.len() as u128)), "{} events, at most {most}", events.len());
    assert!(events.is_sorted_by_key(|(number, view)| (*number, view.attempts)));
    let last = &events.last().unwrap().1;
    assert_eq!((last.state, last.attempts), (JobState::Done, 1_000));
}

#[test]
fn a_watcher_who_did_not_read_gets_the_latest_state_and_no_backlog() {
    let limits = Limits { event_gap: Duration::from_micros(100), ..Limits::default() };
    let hub = Hub::start(limits);
    let id = hub.submit(PI);
    let mut connection = hub.connect();
    connection.send(&hub.head("GET", &format!("/v1/jobs/{id}/events"), &[], None));
    connection.read_head();
    let filler = "x".repeat(256 << 10);
    for attempts in 1..=400 {
        hub.fake.change(id, |view| {
            view.attempts = attempts;
            view.waiting = Some(filler.clone());
        });
        std::thread::sleep(Duration::from_millis(4));
    }
    hub.fake.finish(id, b"{}");
    let (mut text, mut events) = (String::new(), 0);
    while let Some(chunk) = connection.read_chunk() {
        events += usize::from(chunk.windows(10).any(|window| window == b"event: job"));
        text = String::from_utf8(chunk).unwrap();
    }
    assert!(events < 100, "{events} of 402 states were kept for a reader who was away");
    assert!(text.contains("\"state\":\"done\""), "the last event is the end");
}
