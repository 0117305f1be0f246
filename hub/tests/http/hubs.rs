//! Two hubs on one store, as their clients see them: whichever is asked, the one that has it answers.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tessera_hub::ingress::Limits;
use tessera_hub::ingress::backend::{Peer, Place};
use tessera_hub::ingress::keys::ApiKey;
use tessera_protocol::api::{AgentState, HubView, JobState};
use tessera_protocol::id::{AgentId, Digest, HubId, JobId};

use crate::fake::{Hub, agent};
use crate::{PI, pi_named};

const FIRST: HubId = HubId([1; 16]);
const SECOND: HubId = HubId([2; 16]);

/// Two hubs that know of each other, and share a key.
fn pair() -> (Hub, Hub) {
    pair_with(Limits::default())
}

fn pair_with(limits: Limits) -> (Hub, Hub) {
    let key = ApiKey::generate().unwrap();
    let first = Hub::start_with(limits.clone(), key.clone());
    let second = Hub::start_with(limits, key);
    // So that no two jobs have one id.
    second.fake.number_from(100);
    first.fake.beside(vec![peer(&second, SECOND)]);
    second.fake.beside(vec![peer(&first, FIRST)]);
    (first, second)
}

fn peer(hub: &Hub, id: HubId) -> Peer {
    Peer { id, http: hub.server.address().to_string() }
}

/// A job that the second hub has, and that the first one knows to be there.
fn elsewhere(first: &Hub, second: &Hub) -> JobId {
    let job = second.submit(PI);
    first.fake.places(job, Place::At(peer(second, SECOND)));
    job
}

fn states(answer: &Value) -> Vec<(String, String)> {
    let text = |view: &Value, field: &str| view[field].as_str().unwrap().to_owned();
    let jobs = answer["jobs"].as_array().unwrap();
    jobs.iter().map(|view| (text(view, "id"), text(view, "state"))).collect()
}

#[test]
fn whatever_is_asked_about_an_open_job_its_own_hub_answers() {
    let (first, second) = pair();
    let job = elsewhere(&first, &second);
    let path = format!("/v1/jobs/{job}");
    let answer = first.get(&path);
    assert_eq!((answer.status, answer.json()), (200, second.get(&path).json()));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(first.get(&format!("{path}/explain")).json()["job"], json!(job));
    let early = first.get(&format!("{path}/result"));
    assert_eq!((early.status, early.code().as_str()), (409, "job_not_done"));
    assert_eq!(first.post(&format!("{path}:cancel"), "").json()["state"], "cancelled");
    assert_eq!(second.fake.views.job(job).unwrap().state, JobState::Cancelled);

    let job = elsewhere(&first, &second);
    let file: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    second.fake.finish_with_file(job, &file);
    let given = first.get(&format!("/v1/jobs/{job}/output"));
    assert!(given.body == file, "every byte, in order");
    assert_eq!(given.header("content-length"), Some("3000000"));
    let named = [("content-type", "application/json"), ("idempotency-key", "more")];
    let more = format!("/v1/jobs/{job}:extend");
    let extended = first.post_with(&more, &named, r#"{"paths":5000}"#);
    assert_eq!((extended.status, &extended.json()["extends"]), (201, &json!(job)));
    let again = second.post_with(&more, &named, r#"{"paths":5000}"#);
    assert_eq!((again.status, again.json()), (200, extended.json()), "the key went along");
}

#[test]
fn the_events_of_another_hubs_job_come_as_they_happen_and_end_when_this_hub_stops() {
    let (first, second) = pair();
    let job = elsewhere(&first, &second);
    let watch = || {
        let mut watcher = first.connect();
        watcher.send(&first.head("GET", &format!("/v1/jobs/{job}/events"), &[], None));
        let head = watcher.read_head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        watcher
    };
    let (mut watcher, mut other) = (watch(), watch());
    let text = |chunk: Option<Vec<u8>>| String::from_utf8(chunk.expect("an event")).unwrap();
    assert!(text(watcher.read_chunk()).contains("\"queued\""));
    second.fake.change(job, |view| view.state = JobState::Running);
    assert!(text(watcher.read_chunk()).contains("\"running\""), "while the job is still open");
    second.fake.finish(job, b"{}");
    assert!(text(watcher.read_chunk()).contains("\"done\""));
    assert_eq!(watcher.read_chunk(), None);

    while other.read_chunk().is_some() {}
    let job = elsewhere(&first, &second);
    let mut open = first.connect();
    open.send(&first.head("GET", &format!("/v1/jobs/{job}/events"), &[], None));
    open.read_head();
    assert!(open.read_chunk().is_some());
    let stopped = Instant::now();
    first.server.stop();
    while open.read_chunk().is_some() {}
    assert!(stopped.elapsed() < Duration::from_secs(3), "a stream elsewhere does not keep this hub");
}

#[test]
fn event_streams_of_other_hubs_jobs_have_their_limit_too() {
    let (first, second) = pair_with(Limits { streams_max: 1, ..Limits::default() });
    let job = elsewhere(&first, &second);
    let events = format!("/v1/jobs/{job}/events");
    let mut watcher = first.connect();
    watcher.send(&first.head("GET", &events, &[], None));
    assert_eq!(watcher.read_head().status, 200);
    assert_eq!(first.get(&events).code(), "streams_full");
}

#[test]
fn an_owner_that_is_gone_or_cannot_be_reached_is_named_and_the_client_is_told_to_come_back() {
    let (first, second) = pair();
    let job = elsewhere(&first, &second);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for place in [Place::Gone(Some(SECOND)), Place::At(Peer { id: SECOND, http: free })] {
        first.fake.places(job, place);
        let answer = first.get(&format!("/v1/jobs/{job}"));
        assert_eq!((answer.status, answer.code().as_str()), (503, "owner_unreachable"));
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(answer.json()["detail"].as_str().unwrap().contains(&SECOND.to_string()), "{answer:?}");
    }
}

#[test]
fn an_owner_that_takes_the_question_and_says_nothing_is_not_waited_for_without_end() {
    let short = Duration::from_millis(100);
    let limits = Limits { answer_time_max: short, body_time_max: short, ..Limits::default() };
    let first = Hub::start(limits);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_peer = Peer { id: SECOND, http: silent.local_addr().unwrap().to_string() };
    first.fake.beside(vec![silent_peer.clone()]);
    let job = first.submit(PI);
    first.fake.places(job, Place::At(silent_peer));
    let asked = Instant::now();
    let answer = first.get(&format!("/v1/jobs/{job}"));
    assert_eq!((answer.status, answer.code().as_str()), (504, "answer_timeout"));
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[test]
fn two_hubs_that_each_take_the_other_for_the_owner_do_not_ask_in_circles() {
    let (first, second) = pair();
    let job = elsewhere(&first, &second);
    second.fake.places(job, Place::At(peer(&first, FIRST)));
    let answer = first.get(&format!("/v1/jobs/{job}"));
    assert_eq!((answer.status, answer.code().as_str()), (503, "owner_unreachable"));
    assert_eq!(first.fake.asked_where() + second.fake.asked_where(), 2);
}

#[test]
fn lists_are_of_all_hubs_and_say_which_of_them_did_not_answer() {
    let (first, second) = pair();
    let (mine, theirs) = (first.submit(PI), second.submit(&pi_named("theirs", 7)));
    let (early, late) = (agent(1), agent(2));
    first.fake.views.publish_agent(early.clone());
    second.fake.views.publish_agent(late.clone());
    let mut gone = late.clone();
    (gone.state, gone.in_flight) = (AgentState::Away, 0);
    first.fake.views.publish_agent(gone);
    // What this hub was shown of another's job is old news.
    first.fake.views.publish_job((*second.fake.views.job(theirs).unwrap()).clone());
    second.fake.finish(theirs, b"{}");
    for hub in [&first, &second] {
        let list = hub.get("/v1/jobs").json();
        let expected = [(theirs.to_string(), "done".to_owned()), (mine.to_string(), "queued".to_owned())];
        assert_eq!((states(&list), list.get("hubs_silent")), (expected.to_vec(), None));
        assert_eq!(states(&hub.get("/v1/jobs?limit=1").json()).len(), 1);
        let agents = hub.get("/v1/agents").json();
        let states: Vec<&Value> =
            agents["agents"].as_array().unwrap().iter().map(|view| &view["state"]).collect();
        assert_eq!(states, ["connected", "connected"]);
    }

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    first.fake.beside(vec![Peer { id: SECOND, http: free }]);
    for path in ["/v1/jobs", "/v1/agents"] {
        assert_eq!(first.get(path).json()["hubs_silent"], json!([SECOND]), "{path}");
    }
}

#[test]
fn a_file_is_taken_in_by_the_hub_that_leads_whichever_is_given_it() {
    let (first, second) = pair();
    first.fake.led_by(Place::At(peer(&second, SECOND)));
    let file: Vec<u8> = (0..6_000_000_u32).map(|number| (number >> 3) as u8).collect();
    let digest = Digest::of(&file);
    let path = format!("/v1/inputs/{digest}");
    assert_eq!(first.put(&path, &file).status, 201);
    assert!(second.fake.input_bytes(digest).is_some_and(|kept| kept == file), "every byte, in order");
    assert_eq!(first.fake.input_bytes(digest), None);
    let wrong = first.put(&format!("/v1/inputs/{}", Digest::of(b"other")), b"one");
    assert_eq!(wrong.code(), "input_differs");
    first.fake.led_by(Place::Gone(None));
    assert_eq!(first.put(&path, &file).code(), "owner_unreachable");
}

#[test]
fn an_agent_is_explained_by_the_hub_that_it_works_for() {
    let (first, second) = pair();
    second.fake.views.publish_agent(agent(1));
    let path = |number: u8| format!("/v1/agents/{}/explain", AgentId([number; 16]));
    assert_eq!(first.get(&path(1)).json(), second.get(&path(1)).json());
    assert_eq!(first.get(&path(9)).code(), "agent_unknown");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    first.fake.beside(vec![Peer { id: SECOND, http: free }]);
    assert_eq!(first.get(&path(9)).code(), "owner_unreachable", "it may be connected there");
}

#[test]
fn a_new_job_is_for_a_hub_that_has_agents_and_waits_here_where_that_one_does_not_answer() {
    let (first, second) = pair();
    first.fake.worked_by(Place::At(peer(&second, SECOND)));
    second.fake.worked_by(Place::At(peer(&first, FIRST)));
    let named = [("content-type", "application/json"), ("idempotency-key", "order-1")];
    let submitted = first.post_with("/v1/jobs", &named, PI);
    assert_eq!(submitted.status, 201);
    let job: JobId = submitted.json()["id"].as_str().unwrap().parse().unwrap();
    assert!(second.fake.views.job(job).is_some(), "and it went no further");
    assert_eq!(first.post_with("/v1/jobs", &named, PI).json(), submitted.json());
    second.fake.finish(job, b"{}");
    first.fake.places(job, Place::Here);
    assert_eq!(first.post(&format!("/v1/jobs/{job}:extend"), r#"{"paths":5000}"#).status, 201);
    assert_eq!(first.fake.views.open_jobs("default"), 0);

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    first.fake.worked_by(Place::At(Peer { id: SECOND, http: free }));
    assert!(first.fake.views.job(first.submit(PI)).is_some());
}

#[test]
fn settlements_are_made_by_the_hub_that_leads() {
    let (first, second) = pair();
    first.fake.led_by(Place::At(peer(&second, SECOND)));
    assert_eq!(first.post("/v1/settlements", "").status, 201);
    assert_eq!((first.fake.settled(), second.fake.settled()), (0, 1));
    first.fake.led_by(Place::Gone(None));
    let answer = first.post("/v1/settlements", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "owner_unreachable"));
    assert_eq!(first.get("/v1/settlements/1").status, 200, "what was settled anyone shows");
}

#[test]
fn a_key_that_another_hub_made_is_found_and_a_wrong_one_still_is_not() {
    let hub = Hub::start(Limits::default());
    let made = ApiKey::generate().unwrap();
    let bearer = format!("Bearer {}", made.reveal());
    let ask = || {
        let mut connection = hub.connect();
        connection.send(&crate::client::head("GET", "/v1/jobs", &[("authorization", &bearer)], None));
        connection.read_answer()
    };
    assert_eq!(ask().code(), "key_wrong");
    hub.fake.made_elsewhere(made.hash());
    assert_eq!(ask().status, 200);
}

#[test]
fn the_hubs_are_listed_and_one_that_is_alone_is_never_asked_where_anything_is() {
    let hub = Hub::start(Limits::default());
    let job = hub.submit(PI);
    hub.fake.places(job, Place::Gone(Some(SECOND)));
    assert_eq!(hub.get(&format!("/v1/jobs/{job}")).status, 200);
    assert_eq!((hub.fake.asked_where(), hub.get("/v1/hubs").json()), (0, json!({"hubs": []})));
    let (first, second) = pair();
    let listed: Vec<HubView> = serde_json::from_value(first.get("/v1/hubs").json()["hubs"].clone()).unwrap();
    assert_eq!(
        listed.iter().map(|hub| hub.http.clone()).collect::<Vec<_>>(),
        [second.server.address().to_string()]
    );
}
