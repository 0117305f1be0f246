//! Clients that are too large, too slow or too many, and a hub that stops while it is used.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tessera_hub::ingress::Limits;

use crate::client::head;
use crate::fake::Hub;
use crate::{PI, full_spec, pi_named};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Most memory this process ever held. *Units*: bytes.
fn memory_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Writes `bytes` of body, as a client does that reads only once it has written.
fn pour(mut stream: &TcpStream, bytes: usize, chunked: bool) {
    let piece = vec![b' '; 1 << 20];
    for _ in 0..bytes / piece.len() {
        let framed =
            if chunked { [b"100000\r\n".as_slice(), &piece, b"\r\n"].concat() } else { piece.clone() };
        stream.write_all(&framed).expect("the hub swallows what it refused");
    }
}

#[test]
fn a_body_of_100_mb_is_refused_at_once_and_never_held() {
    let hub = Hub::start(Limits { linger_time_max: Duration::from_secs(20), ..Limits::default() });
    let before = memory_peak();
    let started = Instant::now();
    let mut connection = hub.connect();
    connection.send(&hub.head("POST", "/v1/jobs", &[JSON], Some(100 << 20)));
    assert_eq!(connection.read_answer().code(), "body_too_large");
    assert!(started.elapsed() < Duration::from_secs(1), "a declared length is judged before the body comes");
    // A client that writes everything before it reads still learns why.
    let declared = hub.head("POST", "/v1/jobs", &[JSON], Some(100 << 20));
    let chunked = hub.head("POST", "/v1/jobs", &[JSON, ("transfer-encoding", "chunked")], None);
    for (head, is_chunked) in [(declared, false), (chunked, true)] {
        let mut connection = hub.connect();
        connection.send(&head);
        pour(connection.stream.get_ref(), 100 << 20, is_chunked);
        assert_eq!(connection.read_answer().code(), "body_too_large");
    }
    let grown = memory_peak().saturating_sub(before);
    // Other tests share the process and hold some 60 MB together.
    assert!(grown < 96 << 20, "memory grew by {grown} bytes");
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends_100_mb() {
    let hub = Hub::start(Limits::default());
    let mut connection = hub.connect();
    connection.send(&hub.head("POST", "/v1/jobs", &[JSON, ("expect", "100-continue")], Some(100 << 20)));
    assert_eq!(connection.read_answer().status, 413);
    let mut connection = hub.connect();
    connection.send(&hub.head("POST", "/v1/jobs", &[JSON, ("expect", "100-continue")], Some(PI.len())));
    assert_eq!(connection.read_head().status, 100);
    connection.send(PI);
    assert_eq!(connection.read_answer().status, 201);
}

#[test]
fn the_largest_allowed_body_is_read() {
    let hub = Hub::start(Limits::default());
    let spec = full_spec().replace("\"fixings\":[0.5,1.0],", "").replace("\"payout\":1.0,", "");
    let body = spec.clone() + &" ".repeat((8 << 20) - spec.len());
    let answer = hub.post("/v1/jobs:plan", &body);
    let small = hub.post("/v1/jobs:plan", &spec);
    assert_eq!((answer.status, answer.body), (small.status, small.body));
}

#[test]
fn slow_clients_hold_up_nobody_else_and_are_dropped() {
    let limits = Limits { head_time_max: Duration::from_millis(700), ..Limits::default() };
    let hub = Hub::start(limits);
    let mut half_heads: Vec<_> = (0..100).map(|_| hub.connect()).collect();
    half_heads.iter_mut().for_each(|connection| connection.send("GET /healthz HTTP/1.1\r\nhost:"));
    let mut half_bodies: Vec<_> = (0..20).map(|_| hub.connect()).collect();
    for connection in &mut half_bodies {
        connection.send(&(hub.head("POST", "/v1/jobs", &[JSON], Some(4 << 20)) + &PI[..20]));
    }
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(hub.get("/healthz").status, 200);
        assert_eq!(hub.post("/v1/jobs:plan", PI).status, 200);
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
    assert!(half_heads.iter_mut().all(|connection| connection.is_closed()), "half a head is not waited for");
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_dropped() {
    let limits = Limits { stall_time_max: Duration::from_millis(300), ..Limits::default() };
    let hub = Hub::start(limits);
    let id = hub.submit(PI);
    hub.fake.finish(id, &vec![b'1'; 16 << 20]);
    let mut connection = hub.connect();
    connection.send(&hub.head("GET", &format!("/v1/jobs/{id}/result"), &[], None));
    connection.read_head();
    std::thread::sleep(Duration::from_millis(1_500));
    let mut rest = Vec::new();
    let read = connection.stream.read_to_end(&mut rest);
    assert!(read.is_err() || rest.len() < 16 << 20, "{} bytes came after all", rest.len());

    let mut patient = hub.connect();
    patient.send(&hub.head("GET", &format!("/v1/jobs/{id}/result"), &[], None));
    assert_eq!(patient.read_answer().body.len(), 16 << 20, "who reads gets it all");
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let hub = Hub::start(Limits { connections_max: 2, ..Limits::default() });
    let mut first = hub.connect();
    let mut second = hub.connect();
    for connection in [&mut first, &mut second] {
        connection.send(&head("GET", "/healthz", &[], None));
        assert_eq!(connection.read_answer().status, 200);
    }
    let mut third = hub.connect();
    third.send(&head("GET", "/healthz", &[], None));
    third.stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let waits = third.stream.read(&mut [0]).unwrap_err().kind();
    assert!(matches!(waits, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waits:?}");
    drop(first);
    third.stream.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(third.read_answer().status, 200);
}

#[test]
fn one_connection_carries_many_requests() {
    let hub = Hub::start(Limits::default());
    let mut connection = hub.connect();
    for round in 0..50 {
        let body = pi_named("pi", 1_000 + round);
        connection.send(&(hub.head("POST", "/v1/jobs:plan", &[JSON], Some(body.len())) + &body));
        assert_eq!(connection.read_answer().json()["paths"], serde_json::json!(1_000 + round));
        connection.send(&hub.head("GET", "/v1/nowhere", &[], None));
        assert_eq!(connection.read_answer().status, 404);
    }
}

#[test]
fn what_is_not_http_gets_an_answer_and_no_harm_is_done() {
    let hub = Hub::start(Limits::default());
    let too_large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
    for (text, status) in [("\x16\x03\x01 hello\r\n\r\n", 400), (too_large.as_str(), 431)] {
        let mut connection = hub.connect();
        // The hub may stop reading before all of it is written.
        let _ = connection.stream.get_mut().write_all(text.as_bytes());
        assert_eq!(connection.read_head().status, status);
    }
    assert_eq!(hub.get("/healthz").status, 200);
}

#[test]
fn stopping_finishes_running_requests_ends_streams_and_refuses_new_connections() {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    let address = hub.server.address();
    let mut watcher = hub.connect();
    watcher.send(&hub.head("GET", &format!("/v1/jobs/{id}/events"), &[], None));
    watcher.read_head();
    let mut idle = hub.connect();
    idle.send(&head("GET", "/healthz", &[], None));
    assert_eq!(idle.read_answer().status, 200);
    *hub.fake.pause.lock().unwrap() = Duration::from_millis(400);
    let mut running = hub.connect();
    running.send(&(hub.head("POST", "/v1/jobs", &[JSON], Some(PI.len())) + PI));
    std::thread::sleep(Duration::from_millis(100));

    let started = Instant::now();
    hub.server.stop();
    while watcher.read_chunk().is_some() {}
    assert!(idle.is_closed());
    assert!(started.elapsed() < Duration::from_millis(250), "streams and idle connections end at once");
    assert_eq!(running.read_answer().status, 201, "a running request is answered");
    hub.server.join();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let hub = Hub::start(Limits { grace_time_max: Duration::from_millis(300), ..Limits::default() });
    *hub.fake.pause.lock().unwrap() = Duration::from_secs(60);
    let mut running = hub.connect();
    running.send(&(hub.head("POST", "/v1/jobs", &[JSON], Some(PI.len())) + PI));
    std::thread::sleep(Duration::from_millis(100));
    let started = Instant::now();
    hub.server.join();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(running.is_closed());
}
