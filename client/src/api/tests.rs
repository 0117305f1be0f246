//! The client against a hub that is a few lines of `std::net`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;
use tessera_protocol::api::JobState;
use tessera_protocol::limits::IDEMPOTENCY_KEY_BYTES_MAX;

/// What a request was: its first line, its headers in lower case, its body.
type Seen = Arc<Mutex<Vec<(String, Vec<String>, String)>>>;

/// Answers one connection after another with the given bytes; an empty answer drops the connection.
fn hub_that_answers(answers: Vec<String>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            log.lock().unwrap().push(read_request(&stream));
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, seen)
}

fn read_request(stream: &TcpStream) -> (String, Vec<String>, String) {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let first = line.trim().to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        lines.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        headers.push(line.trim().to_lowercase());
    }
    let length = headers
        .iter()
        .find_map(|header| header.strip_prefix("content-length: "))
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    (first, headers, String::from_utf8(body).unwrap())
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn json(status: &str, body: &str) -> String {
    answer(status, "application/json", body)
}

fn view(state: &str, done: u64) -> String {
    let digest = match state {
        "done" => format!("\"{}\"", Digest::of(b"{}")),
        _ => "null".to_owned(),
    };
    format!(
        r#"{{"id":"{}","name":"pi","project":"default","state":"{state}","manifest_digest":"{}","verify":"standard","priority":"batch","created_ms":1,"ended_ms":null,"paths":1000,"extends":null,"cost":2000,"shards":4,"shards_done":{done},"attempts":{done},"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[{done}],"digest":{digest},"failure":null,"waiting":null,"added_later":1}}"#,
        id(),
        Digest::of(b"manifest"),
    )
}

fn id() -> JobId {
    JobId::new(1, [2; 10])
}

fn spec() -> JobSpec {
    JobSpec::from_json(br#"{"name":"pi","workload":"monte_carlo","params":{"model":"pi","paths":1000}}"#)
        .unwrap()
}

#[test]
fn where_nothing_listens_the_message_says_how_to_start_a_hub() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Hub::new(&url, Some("k")).unwrap().jobs().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no hub listens at {url}\nhint: start one with `hub serve`, or name another with --hub URL or TESSERA_HUB; \
             `tessera run FILE` needs none"
        )
    );
    let error = follow(&Hub::new(&url, None).unwrap(), id(), |_| {}).unwrap_err();
    assert!(matches!(error, HubError::NoHub { .. }), "{error}");
}

#[test]
fn a_key_the_hub_does_not_know_is_explained_by_where_keys_come_from() {
    let problem =
        r#"{"type":"about:blank","title":"t","status":401,"code":"unauthorized","detail":"d","hint":"h"}"#;
    let unauthorized = answer("401 Unauthorized", "application/problem+json", problem);
    let (url, seen) = hub_that_answers(vec![unauthorized.clone(), unauthorized]);
    let message = Hub::new(&url, Some("tsk_wrong")).unwrap().jobs().unwrap_err().to_string();
    assert!(
        message
            .starts_with(&format!("the hub at {url} does not know this API key\nhint: `hub serve` prints")),
        "{message}"
    );
    let message = Hub::new(&url, None).unwrap().jobs().unwrap_err().to_string();
    assert!(message.contains("wants an API key and none was given"), "{message}");
    let seen = seen.lock().unwrap();
    assert!(seen[0].1.contains(&"authorization: bearer tsk_wrong".to_owned()));
    assert!(!seen[1].1.iter().any(|header| header.starts_with("authorization")));
}

#[test]
fn a_problem_is_shown_with_its_fields_and_its_hint() {
    let problem = r#"{"type":"/problems/invalid_spec","title":"Invalid","status":422,"code":"invalid_spec","detail":"the job was refused","hint":"correct the fields","errors":[{"field":"params.paths","value":"0","allowed":"must be from 1"}]}"#;
    let (url, _) = hub_that_answers(vec![answer("422 Unprocessable", "application/problem+json", problem)]);
    let error = Hub::new(&url, Some("k")).unwrap().plan(&spec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the job was refused\n  params.paths = 0: must be from 1\nhint: correct the fields"
    );
    assert!(matches!(error, HubError::Refused(problem) if problem.code == "invalid_spec"));
}

#[test]
fn a_submission_whose_connection_drops_is_sent_again_with_the_same_key() {
    let (url, seen) = hub_that_answers(vec![String::new(), json("201 Created", &view("queued", 0))]);
    let hub = Hub::new(&url, Some("k")).unwrap();
    let job = hub.submit(&spec(), &IdempotencyKey::random().unwrap()).unwrap();
    assert_eq!((job.id, job.state), (id(), JobState::Queued));
    let seen = seen.lock().unwrap();
    let key = |position: usize| {
        let headers: &Vec<String> = &seen[position].1;
        headers.iter().find(|header| header.starts_with("idempotency-key: ")).cloned().unwrap()
    };
    assert_eq!(seen[0].0, "POST /v1/jobs HTTP/1.1");
    assert_eq!(key(0), key(1));
    assert!(key(0).len() < IDEMPOTENCY_KEY_BYTES_MAX);
    assert_ne!(IdempotencyKey::random().unwrap(), IdempotencyKey::random().unwrap());
    assert_eq!(JobSpec::from_json(seen[1].2.as_bytes()).unwrap(), spec());
}

#[test]
fn what_is_refused_after_a_dropped_connection_is_not_asked_for_again() {
    let problem =
        r#"{"type":"about:blank","title":"t","status":404,"code":"job_not_found","detail":"d","hint":"h"}"#;
    let unknown = answer("404 Not Found", "application/problem+json", problem);
    let (url, seen) = hub_that_answers(vec![String::new(), unknown.clone(), unknown]);
    let error = Hub::new(&url, Some("k")).unwrap().job(id()).unwrap_err();
    assert!(matches!(error, HubError::Refused(problem) if problem.status == 404));
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[test]
fn a_result_with_another_digest_is_refused() {
    let (url, _) = hub_that_answers(vec![json("200 OK", "{}"), json("200 OK", "{ }")]);
    let hub = Hub::new(&url, Some("k")).unwrap();
    let job: JobView = serde_json::from_str(&view("done", 4)).unwrap();
    assert_eq!(hub.result(&job).unwrap(), b"{}");
    assert!(matches!(hub.result(&job), Err(HubError::WrongDigest { .. })));
}

#[test]
fn a_watcher_sees_every_change_and_survives_a_dropped_stream() {
    let stream = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
    };
    let first = format!(": hello\n\nevent: other\ndata: 1\n\nevent: job\ndata: {}\n\n", view("running", 1));
    let second =
        format!("event:job\r\ndata:{}\r\n\r\nevent: job\ndata: {}\n\n", view("running", 3), view("done", 4));
    let (url, seen) = hub_that_answers(vec![
        stream(&first),
        json("200 OK", &view("running", 2)),
        String::new(),
        stream(&second),
    ]);
    let mut states = Vec::new();
    let last = follow(&Hub::new(&url, Some("k")).unwrap(), id(), |news| match news {
        News::Job(view) => states.push(view.shards_done),
        News::HubAway | News::HubBack => panic!("one dropped connection is no absence"),
    })
    .unwrap();
    assert_eq!(last.state, JobState::Done);
    assert_eq!(states, [1, 2, 3, 4]);
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[test]
fn what_is_not_a_hub_is_said_to_be_none() {
    let (url, _) =
        hub_that_answers(vec![answer("200 OK", "text/html", "<html>"), answer("302 Found", "text/html", "")]);
    let hub = Hub::new(&url, Some("k")).unwrap();
    let message = hub.jobs().unwrap_err().to_string();
    assert!(message.contains("answered with not the expected document"), "{message}");
    let message = hub.jobs().unwrap_err().to_string();
    assert!(message.contains("answered with status 302"), "{message}");
}

#[test]
fn only_plain_http_urls_without_a_path_name_a_hub() {
    for right in ["http://127.0.0.1:7840", "http://hub.local:80/", "http://[::1]:7840"] {
        assert!(Hub::new(right, None).is_ok(), "{right}");
    }
    assert!(matches!(Hub::new("https://hub", None), Err(HubUrlError::Https { .. })));
    for wrong in ["127.0.0.1:7840", "ftp://hub", "http://", "http://hub/path", "hub", ""] {
        assert!(matches!(Hub::new(wrong, None), Err(HubUrlError::NotHttp { .. })), "{wrong}");
    }
    let hub = Hub::new("http://127.0.0.1:1", Some("bad\nkey")).unwrap();
    assert!(matches!(hub.jobs(), Err(HubError::NotSendable { .. })));
}

#[test]
fn a_follower_is_told_once_that_the_hub_is_away_and_once_that_it_is_back() {
    let stream = |body: &str| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
    let (url, _) = hub_that_answers(vec![stream(&format!("event: job\ndata: {}\n\n", view("running", 1)))]);
    let address = url.trim_start_matches("http://").to_owned();
    let mut heard = Vec::new();
    let mut since = None;
    let last = follow(&Hub::new(&url, Some("k")).unwrap(), id(), |news| match news {
        News::Job(view) => {
            heard.push(view.shards_done.to_string());
            since.get_or_insert_with(Instant::now);
        }
        News::HubAway => {
            assert!(since.unwrap().elapsed() < Duration::from_secs(2));
            heard.push("away".to_owned());
            let (address, answer) =
                (address.clone(), stream(&format!("event: job\ndata: {}\n\n", view("done", 4))));
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(700));
                let (stream, _) = TcpListener::bind(address).unwrap().accept().unwrap();
                read_request(&stream);
                (&stream).write_all(answer.as_bytes()).unwrap();
            });
        }
        News::HubBack => heard.push("back".to_owned()),
    })
    .unwrap();
    assert_eq!(last.state, JobState::Done);
    assert_eq!(heard, ["1", "away", "back", "4"]);
}

#[test]
fn a_host_that_has_no_address_is_named() {
    // No resolver is asked about a label of more than 63 characters.
    let host = format!("{}.invalid", "n".repeat(64));
    let error = Hub::new(&format!("http://{host}:7840"), None).unwrap().jobs().unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot find the host {host}\n")), "{error}");
}

#[test]
fn a_refusal_says_what_to_do_in_words_of_this_program() {
    let problem = r#"{"type":"t","title":"t","status":404,"code":"job_unknown","detail":"there is no such job","hint":"`GET /v1/jobs` lists them"}"#;
    let (url, _) = hub_that_answers(vec![answer("404 Not Found", "application/problem+json", problem)]);
    let error = Hub::new(&url, Some("k")).unwrap().job(id()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no such job\nhint: `tessera job list` lists the jobs of this hub"
    );
}

#[test]
fn of_several_hubs_the_next_is_asked_where_one_is_gone_or_not_available_and_the_same_key_goes_along() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let draining = r#"{"type":"t","title":"t","status":503,"detail":"stops","code":"draining","hint":"h"}"#;
    let (first, first_seen) = hub_that_answers(vec![json("503 Service Unavailable", draining)]);
    let (second, second_seen) =
        hub_that_answers(vec![json("201 Created", &view("queued", 0)), json("200 OK", &view("done", 4))]);
    let hub = Hub::new(&format!("{gone}, {first},{second}/"), None).unwrap();
    hub.submit(&spec(), &IdempotencyKey::chosen("k-1")).unwrap();
    assert_eq!(hub.url(), second, "later calls go where an answer came from");
    hub.clone().job(id()).unwrap();
    let key = |seen: &Seen| {
        seen.lock().unwrap()[0].1.iter().find(|line| line.starts_with("idempotency-key")).cloned()
    };
    assert_eq!(key(&first_seen).as_deref(), Some("idempotency-key: k-1"));
    assert_eq!(key(&second_seen), key(&first_seen));
    assert_eq!(second_seen.lock().unwrap().len(), 2);
}

#[test]
fn what_one_hub_refuses_for_good_no_other_is_asked_and_where_all_are_gone_all_are_named() {
    let unknown = r#"{"type":"t","title":"t","status":404,"detail":"none","code":"job_unknown","hint":"h"}"#;
    let (first, _) = hub_that_answers(vec![json("404 Not Found", unknown)]);
    let (second, seen) = hub_that_answers(vec![json("200 OK", &view("done", 4))]);
    let error = Hub::new(&format!("{first},{second}"), None).unwrap().job(id()).unwrap_err();
    assert!(matches!(error, HubError::Refused(_)), "{error}");
    assert!(seen.lock().unwrap().is_empty());

    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (one, other) = (free(), free());
    let error = Hub::new(&format!("http://{one},http://{other}"), None).unwrap().jobs().unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&one.to_string()) && text.contains(&other.to_string()), "{text}");
}

#[test]
fn a_watched_job_is_followed_at_another_hub_when_the_one_that_told_of_it_is_gone() {
    let event = |view: &str| format!("event: job\nid: 1\ndata: {view}\n\n");
    let (first, _) =
        hub_that_answers(vec![answer("200 OK", "text/event-stream", &event(&view("running", 1)))]);
    let (second, _) = hub_that_answers(vec![
        json("200 OK", &view("running", 1)),
        answer("200 OK", "text/event-stream", &event(&view("done", 4))),
    ]);
    let hub = Hub::new(&format!("{first},{second}"), None).unwrap();
    let mut away = false;
    let last = follow(&hub, id(), |news| away |= news == News::HubAway).unwrap();
    assert_eq!((last.state, away), (JobState::Done, false));
}

#[test]
fn every_one_of_several_urls_is_checked_and_there_is_a_limit() {
    let wrong = Hub::new("http://a:1,ftp://b:2", None).unwrap_err();
    assert_eq!(wrong, HubUrlError::NotHttp { url: "ftp://b:2".to_owned() });
    assert!(matches!(Hub::new("http://a:1,", None), Err(HubUrlError::NotHttp { .. })));
    let many: Vec<String> = (1..=17).map(|port| format!("http://a:{port}")).collect();
    assert_eq!(Hub::new(&many.join(","), None).unwrap_err(), HubUrlError::TooMany { hubs: 17 });
}
