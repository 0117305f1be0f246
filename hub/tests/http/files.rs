//! Input files coming in and result files going out, as clients see it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tessera_hub::ingress::Limits;
use tessera_hub::inputs::{INPUT_BYTES_MAX, UPLOADS_MAX};
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;

use crate::PI;
use crate::client::{Connection, head};
use crate::codes::Seen;
use crate::fake::{Hub, PART_BYTES};

/// A file of so many bytes, its digest and where it lives.
fn file(bytes: usize) -> (Vec<u8>, Digest, String) {
    let file: Vec<u8> = (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16) as u8).collect();
    let digest = Digest::of(&file);
    let path = format!("/v1/inputs/{digest}");
    (file, digest, path)
}

/// Waits until something is so, since a hub notices a closed connection when it notices it.
#[track_caller]
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn begin(hub: &Hub, path: &str, length: usize, first: &[u8]) -> Connection {
    let mut connection = hub.connect();
    connection.send(&hub.head("PUT", path, &[], Some(length)));
    connection.send_bytes(first);
    connection
}

/// Every code that has to do with files.
pub(crate) fn wrong_files(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(1_000);
    for wrong in ["12", &"0".repeat(63), &"G".repeat(64), &digest.to_string().to_uppercase()] {
        seen.expect(hub.get(&format!("/v1/inputs/{wrong}")), 400, "digest_invalid");
        seen.expect(hub.put(&format!("/v1/inputs/{wrong}"), &bytes), 400, "digest_invalid");
    }
    seen.expect(hub.get(&path), 404, "input_unknown");
    seen.expect(hub.put(&path, &bytes[1..]), 422, "input_differs");
    seen.expect(hub.put(&path, b""), 400, "input_length");
    let mut connection = begin(&hub, &path, INPUT_BYTES_MAX as usize + 1, b"");
    seen.expect(connection.read_answer(), 400, "input_length");
    let mut connection = hub.connect();
    connection.send(&hub.head("PUT", &path, &[("transfer-encoding", "chunked")], None));
    connection.send("4\r\nbody\r\n0\r\n\r\n");
    let answer = connection.read_answer();
    assert!(answer.json()["detail"].as_str().unwrap().contains("Content-Length"), "{answer:?}");
    seen.expect(answer, 400, "input_length");

    let first = begin(&hub, &path, 1_000, &bytes[..1]);
    soon("the first upload has its place", || hub.fake.uploads() == 1);
    let answer = hub.put(&path, &bytes);
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("5"), Some("close")));
    seen.expect(answer, 409, "input_busy");
    let others: Vec<Connection> = (1..UPLOADS_MAX)
        .map(|number| begin(&hub, &format!("/v1/inputs/{}", Digest([number as u8; 32])), 10, b"x"))
        .collect();
    soon("all places are taken", || hub.fake.uploads() == UPLOADS_MAX);
    let (seventeenth, _, other_path) = file(7);
    seen.expect(hub.put(&other_path, &seventeenth), 503, "uploads_full");
    drop((first, others));
    soon("places are given back", || hub.fake.uploads() == 0);
    assert_eq!(hub.put(&other_path, &seventeenth).status, 201);

    let id = hub.submit(PI);
    seen.expect(hub.get(&format!("/v1/jobs/{id}/output")), 409, "job_not_done");
    hub.fake.finish(id, b"{}");
    seen.expect(hub.get(&format!("/v1/jobs/{id}/output")), 404, "output_none");
    let nobody = "job_00000000000000000000000000000000";
    seen.expect(hub.get(&format!("/v1/jobs/{nobody}/output")), 404, "job_unknown");

    for method in ["PUT", "GET"] {
        let mut connection = hub.connect();
        connection.send(&(head(method, &path, &[], Some(4)) + "body"));
        seen.expect(connection.read_answer(), 401, "key_missing");
    }
}

#[test]
fn a_file_is_uploaded_whatever_its_length_and_is_there_afterwards() {
    let hub = Hub::start(Limits::default());
    let piece = INPUT_PIECE_BYTES as usize;
    for length in [1, 1_000, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 12_345] {
        let (bytes, digest, path) = file(length);
        let answer = hub.put(&path, &bytes);
        assert_eq!(answer.status, 201, "{length} bytes: {answer:?}");
        assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes), "{length} bytes");
        assert_eq!(hub.fake.pieces_kept(digest), length.div_ceil(piece));
        for method in ["GET", "HEAD"] {
            let mut connection = hub.connect();
            connection.send(&hub.head(method, &path, &[], None));
            let answer = connection.read_head();
            assert_eq!(answer.status, 200, "{method}");
            assert_eq!(answer.header("tessera-input-bytes"), Some(length.to_string().as_str()));
        }
    }
}

#[test]
fn a_file_that_arrives_in_crumbs_is_cut_into_the_same_pieces() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(INPUT_PIECE_BYTES as usize + 77_777);
    let mut connection = begin(&hub, &path, bytes.len(), b"");
    for crumb in bytes.chunks(33_333) {
        connection.send_bytes(crumb);
    }
    assert_eq!(connection.read_answer().status, 201);
    assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes));
}

#[test]
fn a_file_that_is_here_is_not_sent_again() {
    let hub = Hub::start(Limits::default());
    let (bytes, _, path) = file(1_000);
    assert_eq!(hub.put(&path, &bytes).status, 201);
    // Nothing of the body is sent.
    let mut connection = begin(&hub, &path, 1_000, b"");
    let answer = connection.read_answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let mut asks_first = hub.connect();
    asks_first.send(&hub.head("PUT", &path, &[("expect", "100-continue")], Some(1_000)));
    assert_eq!(asks_first.read_answer().status, 200, "before any `100 Continue`");
}

#[test]
fn nothing_is_kept_of_a_file_with_another_digest() {
    let hub = Hub::start(Limits::default());
    let (mut bytes, digest, path) = file(INPUT_PIECE_BYTES as usize + 5);
    bytes[17] ^= 1;
    let answer = hub.put(&path, &bytes);
    assert_eq!((answer.status, answer.code().as_str()), (422, "input_differs"));
    assert!(answer.json()["detail"].as_str().unwrap().contains(&Digest::of(&bytes).to_string()));
    assert_eq!((hub.fake.pieces_kept(digest), hub.get(&path).status), (0, 404));
    bytes[17] ^= 1;
    assert_eq!(hub.put(&path, &bytes).status, 201);
}

#[test]
fn nothing_is_usable_of_an_upload_that_is_cut_off_and_the_next_one_works() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * INPUT_PIECE_BYTES as usize + 1_000);
    for half_closed in [false, true] {
        let sent = INPUT_PIECE_BYTES as usize + 500;
        let mut connection = begin(&hub, &path, bytes.len(), &bytes[..sent]);
        soon("the first piece is stored", || hub.fake.pieces_kept(digest) == 1);
        assert_eq!(hub.get(&path).status, 404, "half a file is no file");
        if half_closed {
            connection.stream.get_mut().shutdown(Shutdown::Write).unwrap();
        } else {
            drop(connection);
        }
        soon("its place is free and its piece is gone", || {
            hub.fake.uploads() == 0 && hub.fake.pieces_kept(digest) == 0
        });
    }
    assert_eq!(hub.put(&path, &bytes).status, 201);
    assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes));
}

#[test]
fn an_uploader_that_stops_sending_is_cut_off_and_so_is_one_that_sends_a_byte_now_and_then() {
    let limits = Limits {
        body_time_max: Duration::from_millis(300),
        piece_time_max: Duration::from_millis(900),
        ..Limits::default()
    };
    let hub = Hub::start(limits);
    let (bytes, digest, path) = file(1_000);
    let mut silent = begin(&hub, &path, 1_000, &bytes[..10]);
    let answer = silent.read_answer();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
    assert_eq!((hub.fake.uploads(), hub.fake.pieces_kept(digest)), (0, 0));

    let started = Instant::now();
    let mut dripping = begin(&hub, &path, 1_000, &bytes[..1]);
    let mut writer = dripping.stream.get_ref().try_clone().unwrap();
    let drops = std::thread::spawn(move || {
        // It fails when the hub has had enough.
        while writer.write_all(b"x").is_ok() && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(dripping.read_answer().code(), "body_timeout");
    assert!(started.elapsed() >= Duration::from_millis(800), "{:?}", started.elapsed());
    drop(dripping);
    drops.join().unwrap();
    assert_eq!(hub.put(&path, &bytes).status, 201, "its place is free again");
}

#[test]
fn a_store_that_fails_in_the_middle_is_an_outage_and_leaves_nothing_usable() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * INPUT_PIECE_BYTES as usize + 1);
    *hub.fake.pieces_stored_max.lock().unwrap() = Some(1);
    let answer = hub.put(&path, &bytes);
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_failing"));
    assert_eq!((hub.get(&path).status, hub.fake.pieces_kept(digest)), (404, 0));
    *hub.fake.pieces_stored_max.lock().unwrap() = None;
    assert_eq!(hub.put(&path, &bytes).status, 201);
}

#[test]
fn a_result_file_comes_whole_with_its_digest() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, _) = file(3 * PART_BYTES + 17);
    let id = hub.submit(PI);
    hub.fake.finish_with_file(id, &bytes);
    let path = format!("/v1/jobs/{id}/output");
    let answer = hub.get(&path);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(answer.header("tessera-digest"), Some(digest.to_string().as_str()));
    assert!(answer.body == bytes);

    let tag = format!("\"{digest}\"");
    assert_eq!(answer.header("etag"), Some(tag.as_str()));
    let again = hub.get_with(&path, &[("if-none-match", &tag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let mut connection = hub.connect();
    connection.send(&hub.head("HEAD", &path, &[], None));
    let head = connection.read_head();
    assert_eq!(head.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert_eq!(head.header("tessera-digest"), Some(digest.to_string().as_str()));
}

#[test]
fn a_client_that_stops_reading_holds_little_of_a_file_and_is_dropped() {
    let limits = Limits { stall_time_max: Duration::from_millis(500), ..Limits::default() };
    let hub = Hub::start(limits);
    let parts = 24;
    let (bytes, digest, _) = file(parts * PART_BYTES);
    let id = hub.submit(PI);
    hub.fake.finish_with_file(id, &bytes);
    drop(bytes);
    let mut connection = hub.connect();
    connection.send(&hub.head("GET", &format!("/v1/jobs/{id}/output"), &[], None));
    assert_eq!(connection.read_head().status, 200);
    std::thread::sleep(Duration::from_millis(1_500));
    let given = hub.fake.parts_given.load(Ordering::Relaxed);
    // What two sockets hold on loopback is some ten megabytes.
    assert!(given < 16, "{given} MiB of {parts} were read for a client that reads nothing");
    let mut rest = vec![0; PART_BYTES];
    let came = std::iter::from_fn(|| connection.stream.read(&mut rest).ok().filter(|read| *read > 0));
    assert!(came.sum::<usize>() < parts * PART_BYTES, "the rest came after all");

    let mut patient = hub.connect();
    patient.send(&hub.head("GET", &format!("/v1/jobs/{id}/output"), &[], None));
    patient.read_head();
    let mut hasher = blake3::Hasher::new();
    for _ in 0..parts {
        patient.stream.read_exact(&mut rest).unwrap();
        hasher.update(&rest);
    }
    assert_eq!(hasher.finalize().as_bytes(), &digest.0, "who reads gets it all");
}
