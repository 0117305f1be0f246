//! Input files coming in and result files going out, as clients see it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tessera_hub::ingress::Limits;
use tessera_hub::inputs::{INPUT_BYTES_MAX, UPLOADS_MAX};
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;

use crate::PI;
use crate::client::{Answer, Connection, head};
use crate::codes::Seen;
use crate::fake::{Hub, PART_BYTES, SMALL_PROJECT, SMALL_PROJECT_BYTES};

const PIECE: usize = INPUT_PIECE_BYTES as usize;

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

/// Goes on with an upload.
fn put_range(hub: &Hub, path: &str, range: &str, bytes: &[u8]) -> Answer {
    let mut connection = hub.connect();
    connection.send(&hub.head("PUT", path, &[("content-range", range)], Some(bytes.len())));
    connection.send_bytes(bytes);
    connection.read_answer()
}

/// The range from a byte to the end of a file.
fn from(byte: usize, file: &[u8]) -> String {
    format!("bytes {byte}-{}/{}", file.len() - 1, file.len())
}

/// How much of a file a hub says that it has, and whether that is all.
fn received(hub: &Hub, path: &str) -> (u16, usize) {
    let mut connection = hub.connect();
    connection.send(&hub.head("HEAD", path, &[], None));
    let answer = connection.read_head();
    (answer.status, answer.header("tessera-input-received").unwrap().parse().unwrap())
}

/// Sends the beginning of a file, and cuts the connection when the hub has its whole pieces.
fn cut_off(hub: &Hub, path: &str, digest: Digest, file: &[u8], sent: usize) {
    let connection = begin(hub, path, file.len(), &file[..sent]);
    soon("the whole pieces are stored", || hub.fake.pieces_kept(digest) == sent / PIECE);
    drop(connection);
    soon("its place is free", || hub.fake.uploads() == 0);
}

/// Every code that has to do with files.
/// Has a URL made.
fn signed(hub: &Hub, digest: Digest, document: &Value) -> String {
    let answer = hub.post(&format!("/v1/blobs/{digest}/sign"), &document.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["url"].as_str().unwrap().to_owned()
}

/// A request without an API key.
fn open(hub: &Hub, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut connection = hub.connect();
    let length = (method == "PUT").then_some(body.len());
    connection.send(&head(method, url, headers, length));
    connection.send_bytes(body);
    if method == "HEAD" { connection.read_head() } else { connection.read_answer() }
}

#[test]
fn a_signed_url_brings_a_file_in_and_out_without_a_key() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(PIECE + 1_000);
    let put = signed(&hub, digest, &json!({"method": "put", "length": bytes.len(), "holder": "acme"}));
    assert_eq!(open(&hub, "PUT", &put, &[], &bytes).status, 201);
    assert_eq!(open(&hub, "PUT", &put, &[], &bytes).status, 200);
    let get = signed(&hub, digest, &json!({"method": "get", "holder": "acme", "expires_s": 60}));
    let answer = open(&hub, "GET", &get, &[], b"");
    assert!(answer.status == 200 && answer.body == bytes);
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    let length = bytes.len().to_string();
    let looked = open(&hub, "HEAD", &get, &[], b"");
    assert_eq!((looked.status, looked.header("tessera-input-bytes")), (200, Some(length.as_str())));
    let part = open(&hub, "GET", &get, &[("range", "bytes=5-9")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &bytes[5..10]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 5-9/{length}").as_str()));
    let tail = hub.get_with(&path, &[("range", "bytes=-3")]);
    assert_eq!((tail.status, &tail.body[..]), (206, &bytes[bytes.len() - 3..]), "with a key it is the same");
}

/// URLs that are not good for what is asked of them.
fn wrong_urls(seen: &mut Seen) {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(1_000);
    let (_, other, _) = file(1_001);
    let sign = format!("/v1/blobs/{digest}/sign");
    let get = json!({"method": "get", "holder": "acme"});
    seen.expect(hub.post(&sign, &get.to_string()), 404, "input_unknown");
    seen.expect(open(&hub, "POST", &sign, &[], b""), 401, "key_missing");
    assert_eq!(hub.put(&path, &bytes).status, 201);
    for wrong in [
        json!({"method": "get", "holder": "a b"}),
        json!({"method": "get", "holder": ""}),
        json!({"method": "get", "holder": "a", "length": 999}),
        json!({"method": "get", "holder": "a", "expires_s": 0}),
        json!({"method": "get", "holder": "a", "expires_s": 604_801}),
        json!({"method": "put", "holder": "a"}),
        json!({"method": "put", "holder": "a", "length": 1, "project": "No"}),
    ] {
        seen.expect(hub.post(&sign, &wrong.to_string()), 422, "spec_invalid");
    }
    let url = signed(&hub, digest, &json!({"method": "get", "holder": "acme", "expires_s": 1}));
    let elsewhere = url.replacen(&digest.to_string(), &other.to_string(), 1);
    let forged = url.replace("holder=acme", "holder=evil");
    let cut = url.split('&').next().unwrap();
    for (method, url, words) in [
        ("PUT", url.as_str(), "signed for GET, and this is a PUT"),
        ("GET", &elsewhere, "signed for"),
        ("GET", &forged, "not this hub's"),
        ("GET", cut, "not all there"),
        ("GET", &format!("/v1/blobs/{digest}"), "not all there"),
    ] {
        let problem = seen.expect(open(&hub, method, url, &[], b""), 403, "url_invalid");
        assert!(problem.detail.contains(words), "{words} in {}", problem.detail);
    }
    let behind = open(&hub, "GET", &url, &[("range", "bytes=1000-")], b"");
    assert_eq!(behind.header("content-range"), Some("bytes */1000"));
    seen.expect(behind, 416, "range_unsatisfiable");
    let put = signed(&hub, other, &json!({"method": "put", "length": 1_001, "holder": "acme"}));
    let shorter = seen.expect(open(&hub, "PUT", &put, &[], &bytes), 403, "url_invalid");
    assert!(shorter.detail.contains("signed for a file of 1001 bytes"), "{}", shorter.detail);
    std::thread::sleep(Duration::from_millis(1_050));
    let expired = seen.expect(open(&hub, "GET", &url, &[], b""), 403, "url_expired");
    assert!(expired.detail.contains("expired"), "{}", expired.detail);
}

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
    let too_large = seen.expect(connection.read_answer(), 413, "input_too_large");
    assert!(too_large.detail.contains(&INPUT_BYTES_MAX.to_string()), "{}", too_large.detail);
    let largest = INPUT_BYTES_MAX;
    for range in [
        "bytes 0-999/999",
        "bytes 0-998/1000",
        "bytes 1-999/1000",
        "bytes 1000-999/1000",
        "bytes */1000",
        "bytes 0-999/*",
        "lines 0-999/1000",
        "bytes 0-999",
        "bytes -0-999/1000",
        "",
        "bytes 18446744073709551615-18446744073709551615/18446744073709551615",
        "bytes 18446744073709550616-18446744073709551615/18446744073709551616",
    ] {
        let answer = put_range(&hub, &path, range, &bytes);
        assert_eq!(answer.header("connection"), Some("close"), "{range}");
        seen.expect(answer, 400, "range_invalid");
    }
    let range = format!("bytes {}-{}/{}", largest - 999, largest, largest + 1);
    seen.expect(put_range(&hub, &path, &range, &bytes), 413, "input_too_large");
    let answer =
        put_range(&hub, &path, &format!("bytes {}-{}/{}", largest - 1_000, largest - 1, largest), &bytes);
    assert_eq!(answer.header("tessera-input-received"), Some("0"));
    seen.expect(answer, 409, "input_offset");
    let put_for = |project: &str| {
        let mut connection = hub.connect();
        connection.send(&hub.head("PUT", &path, &[("tessera-project", project)], Some(bytes.len())));
        connection.read_answer()
    };
    for wrong in ["", "No Spaces", "é", &"p".repeat(129)] {
        seen.expect(put_for(wrong), 400, "project_invalid");
    }
    let full = seen.expect(put_for(SMALL_PROJECT), 413, "blobs_full");
    for said in [SMALL_PROJECT, "1000", &SMALL_PROJECT_BYTES.to_string()] {
        assert!(full.detail.contains(said), "{said} in {}", full.detail);
    }
    wrong_urls(seen);
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
fn an_upload_that_is_cut_off_is_no_file_and_goes_on_from_its_whole_pieces() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(3 * PIECE + 1_000);
    assert_eq!(received(&hub, &path), (404, 0));
    cut_off(&hub, &path, digest, &bytes, PIECE + 500);
    assert_eq!((received(&hub, &path), hub.get(&path).status), ((404, PIECE), 404));
    let mut half_closed = hub.connect();
    let rest = &bytes[PIECE..2 * PIECE + 77];
    half_closed.send(&hub.head(
        "PUT",
        &path,
        &[("content-range", &from(PIECE, &bytes))],
        Some(bytes.len() - PIECE),
    ));
    half_closed.send_bytes(rest);
    soon("the second piece is stored", || hub.fake.pieces_kept(digest) == 2);
    half_closed.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    soon("its place is free", || hub.fake.uploads() == 0);
    assert_eq!(received(&hub, &path), (404, 2 * PIECE));
    let answer = put_range(&hub, &path, &from(2 * PIECE, &bytes), &bytes[2 * PIECE..]);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes));
    assert_eq!(received(&hub, &path), (200, bytes.len()));
    assert_eq!(hub.fake.pieces_hashed.load(Ordering::Relaxed), 4, "all of it as it lies there");
    assert_eq!(put_range(&hub, &path, &from(2 * PIECE, &bytes), &bytes[2 * PIECE..]).status, 200);
}

#[test]
fn an_upload_may_go_on_only_from_what_is_here_and_is_told_where_that_is() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * PIECE + 10);
    cut_off(&hub, &path, digest, &bytes, PIECE);
    for wrong in [0, 1, PIECE - 1, PIECE + 1, 2 * PIECE] {
        // Nothing of the body is sent.
        let mut connection = hub.connect();
        let range = from(wrong, &bytes);
        let asks_first = [("content-range", range.as_str()), ("expect", "100-continue")];
        connection.send(&hub.head("PUT", &path, &asks_first, Some(bytes.len() - wrong)));
        let answer = connection.read_answer();
        assert_eq!((answer.status, answer.code().as_str()), (409, "input_offset"), "from {wrong}");
        assert_eq!(answer.header("tessera-input-received"), Some(PIECE.to_string().as_str()));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("{PIECE} bytes of the file are here")), "{detail}");
    }
    let longer = format!("bytes {PIECE}-{}/{}", bytes.len(), bytes.len() + 1);
    let answer = put_range(&hub, &path, &longer, &[&bytes[PIECE..], b"x"].concat());
    assert_eq!(answer.code(), "input_offset");
    assert!(answer.json()["detail"].as_str().unwrap().contains("one digest has one length"), "{answer:?}");
    assert_eq!(received(&hub, &path), (404, PIECE), "a refusal takes nothing away");
    assert_eq!(put_range(&hub, &path, &from(PIECE, &bytes), &bytes[PIECE..]).status, 201);
}

#[test]
fn an_upload_without_a_range_starts_anew_whatever_is_here() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * PIECE + 10);
    let garbage = vec![9; 3 * PIECE];
    cut_off(&hub, &path, digest, &garbage, 2 * PIECE);
    assert_eq!(hub.put(&path, &bytes).status, 201);
    assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes));
    assert_eq!(hub.fake.pieces_hashed.load(Ordering::Relaxed), 0, "it was hashed on its way");
}

#[test]
fn a_wrong_beginning_is_found_at_the_end_and_nothing_is_kept() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * PIECE);
    let mut wrong = bytes.clone();
    wrong[5] ^= 1;
    cut_off(&hub, &path, digest, &wrong, PIECE + 1);
    let answer = put_range(&hub, &path, &from(PIECE, &bytes), &bytes[PIECE..]);
    assert_eq!((answer.status, answer.code().as_str()), (422, "input_differs"));
    assert!(answer.json()["detail"].as_str().unwrap().contains(&Digest::of(&wrong).to_string()));
    assert_eq!((hub.fake.pieces_kept(digest), received(&hub, &path)), (0, (404, 0)));
    assert_eq!(put_range(&hub, &path, &from(0, &bytes), &bytes).status, 201);
}

#[test]
fn of_two_clients_with_one_file_the_second_waits_and_may_go_on_where_the_first_stopped() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * PIECE + 10);
    let first = begin(&hub, &path, bytes.len(), &bytes[..PIECE]);
    soon("the first piece is stored", || hub.fake.pieces_kept(digest) == 1);
    assert_eq!(received(&hub, &path), (404, PIECE), "while it comes");
    let answer = put_range(&hub, &path, &from(PIECE, &bytes), &bytes[PIECE..]);
    assert_eq!((answer.status, answer.code().as_str()), (409, "input_busy"));
    drop(first);
    soon("its place is free", || hub.fake.uploads() == 0);
    assert_eq!(put_range(&hub, &path, &from(PIECE, &bytes), &bytes[PIECE..]).status, 201);
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
fn a_full_disk_is_told_and_the_upload_goes_on_once_there_is_room() {
    let hub = Hub::start(Limits::default());
    let (bytes, digest, path) = file(2 * PIECE + 1);
    *hub.fake.pieces_stored_max.lock().unwrap() = Some(1);
    let answer = hub.put(&path, &bytes);
    assert_eq!((answer.status, answer.code().as_str()), (507, "store_full"));
    assert_eq!((hub.get(&path).status, received(&hub, &path)), (404, (404, PIECE)));
    *hub.fake.pieces_stored_max.lock().unwrap() = None;
    assert_eq!(put_range(&hub, &path, &from(PIECE, &bytes), &bytes[PIECE..]).status, 201);
    assert!(hub.fake.input_bytes(digest).is_some_and(|kept| kept == bytes));
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
