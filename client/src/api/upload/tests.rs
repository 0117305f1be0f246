//! Uploads to a hub that is a few lines of `std::net` and cuts connections where it is told to.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// What a hub does with one request.
#[derive(Clone, Copy)]
enum Act {
    /// Answers HEAD: whether the file is there, and how much of it.
    Has(u16, u64),
    /// Takes the body of a PUT, so many bytes of it at most, and drops the connection when more are to come.
    Take(usize),
    /// Answers a PUT before its body comes.
    Refuse(u16, &'static str),
    /// Answers `/healthz`.
    Health(u16, &'static str),
}

/// First line and range of each request, and the body bytes that were taken.
type Seen = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

fn hub_that(acts: Vec<Act>) -> (Hub, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = Hub::new(&format!("http://{}", listener.local_addr().unwrap()), Some("k")).unwrap();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for act in acts {
            let (stream, _) = listener.accept().unwrap();
            let request = serve(&stream, act);
            log.lock().unwrap().push(request);
        }
    });
    (hub, seen)
}

/// The requests, once there are so many: a hub has answered before it writes down what it was asked.
fn requests(seen: &Seen, count: usize) -> Vec<(String, String, Vec<u8>)> {
    let started = Instant::now();
    while seen.lock().unwrap().len() < count {
        assert!(started.elapsed() < Duration::from_secs(10), "fewer than {count} requests");
        std::thread::sleep(Duration::from_millis(5));
    }
    seen.lock().unwrap().clone()
}

fn serve(mut stream: &TcpStream, act: Act) -> (String, String, Vec<u8>) {
    let mut lines = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = head.iter().find_map(|line| Some(line.to_lowercase().strip_prefix(name)?.to_owned()));
        found.unwrap_or_default()
    };
    let mut taken = Vec::new();
    match act {
        Act::Has(status, received) => {
            write!(stream, "HTTP/1.1 {status} X\r\n{RECEIVED}: {received}\r\nconnection: close\r\n\r\n")
                .unwrap();
        }
        Act::Take(most) => {
            assert_eq!(header("expect: "), "100-continue", "{head:?}");
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let length: usize = header("content-length: ").parse().unwrap();
            lines.take(length.min(most) as u64).read_to_end(&mut taken).unwrap();
            if length <= most {
                stream
                    .write_all(b"HTTP/1.1 201 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    .unwrap();
            }
        }
        Act::Refuse(status, code) | Act::Health(status, code) => {
            let problem = format!(
                r#"{{"type":"t","title":"t","status":{status},"code":"{code}","detail":"it is {code}","hint":"h"}}"#
            );
            let length = problem.len();
            write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{problem}"
            )
            .unwrap();
        }
    }
    (head[0].trim_end_matches(" HTTP/1.1").to_owned(), header("content-range: "), taken)
}

const BYTES: usize = 3 << 20;

fn file() -> (tempfile::NamedTempFile, Input, Vec<u8>) {
    let bytes: Vec<u8> = (0..BYTES as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let input = Input { name: "a".into(), blake3: Digest::of(&bytes), bytes: BYTES as u64 };
    (file, input, bytes)
}

/// Uploads, and gives what was told but for the bytes that left one by one.
fn upload(hub: &Hub, file: &tempfile::NamedTempFile, input: &Input) -> (Result<(), HubError>, Vec<String>) {
    let told = RefCell::new(Vec::new());
    let outcome = hub.upload("default", input, file.path(), &|news| match news {
        UploadNews::Sent(sent) if sent < input.bytes => {}
        UploadNews::Again(_) => told.borrow_mut().push("Again".to_owned()),
        news => told.borrow_mut().push(format!("{news:?}")),
    });
    (outcome, told.into_inner())
}

#[test]
fn an_upload_whose_connection_is_cut_half_way_goes_on_from_what_arrived() {
    let (file, input, bytes) = file();
    let (first, second) = (BYTES / 2, BYTES / 4);
    let (hub, seen) = hub_that(vec![
        Act::Has(404, 0),
        Act::Take(first),
        Act::Health(200, "none"),
        Act::Has(404, first as u64),
        Act::Take(second),
        Act::Health(200, "none"),
        Act::Has(404, (first + second) as u64),
        Act::Take(usize::MAX),
    ]);
    let (outcome, told) = upload(&hub, &file, &input);
    outcome.unwrap();
    let froms = [0, first, first + second];
    let expected = [
        "From(0)".to_owned(),
        "Again".to_owned(),
        format!("From({})", froms[1]),
        "Again".to_owned(),
        format!("From({})", froms[2]),
        format!("Sent({BYTES})"),
    ];
    // A small rest may have left before it was noticed that the connection is gone.
    let told: Vec<String> = {
        let ends = told.len() - 1;
        let all = format!("Sent({BYTES})");
        told.into_iter()
            .enumerate()
            .filter(|(at, line)| *at == ends || *line != all)
            .map(|(_, line)| line)
            .collect()
    };
    assert_eq!(told, expected);
    let seen = requests(&seen, 8);
    let puts: Vec<_> = seen.iter().filter(|(line, ..)| line.starts_with("PUT")).collect();
    let ranges = |at: usize| match froms[at] {
        0 => String::new(),
        from => format!("bytes {from}-{}/{BYTES}", BYTES - 1),
    };
    for (at, (line, range, _)) in puts.iter().enumerate() {
        assert_eq!((line, range), (&format!("PUT /v1/inputs/{}", input.blake3), &ranges(at)));
    }
    let arrived: Vec<u8> = puts.iter().flat_map(|(_, _, taken)| taken).copied().collect();
    assert!(arrived == bytes, "each byte arrived once");
}

#[test]
fn what_the_hub_has_is_not_sent_and_what_it_has_of_it_neither() {
    let (file, input, bytes) = file();
    let (hub, _) = hub_that(vec![Act::Has(200, BYTES as u64)]);
    let (outcome, told) = upload(&hub, &file, &input);
    outcome.unwrap();
    assert_eq!(told, ["Here"]);
    let (hub, seen) = hub_that(vec![Act::Has(404, 1 << 20), Act::Take(usize::MAX)]);
    upload(&hub, &file, &input).0.unwrap();
    assert!(requests(&seen, 2)[1].2 == bytes[1 << 20..], "an earlier run sent the rest");
}

#[test]
fn a_file_that_another_client_is_sending_is_waited_for() {
    let (file, input, _) = file();
    let (hub, _) = hub_that(vec![
        Act::Has(404, 0),
        Act::Refuse(409, "input_busy"),
        Act::Has(404, 1 << 20),
        Act::Refuse(409, "input_busy"),
        Act::Has(200, BYTES as u64),
    ]);
    let (outcome, told) = upload(&hub, &file, &input);
    outcome.unwrap();
    assert_eq!(told, ["From(0)", "Busy(0)", "Busy(1048576)"]);
}

#[test]
fn a_hub_that_says_another_byte_is_believed() {
    let (file, input, bytes) = file();
    let (hub, seen) = hub_that(vec![
        Act::Has(404, 1 << 20),
        Act::Refuse(409, "input_offset"),
        Act::Has(404, 2 << 20),
        Act::Take(usize::MAX),
    ]);
    upload(&hub, &file, &input).0.unwrap();
    assert!(requests(&seen, 4)[3].2 == bytes[2 << 20..]);
}

#[test]
fn a_full_disk_is_told_in_the_hubs_words_though_its_answer_was_not_seen() {
    let (file, input, _) = file();
    let (hub, _) = hub_that(vec![Act::Has(404, 0), Act::Take(1_000), Act::Health(507, "store_full")]);
    let error = upload(&hub, &file, &input).0.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("it is store_full\nhint: its operator should make room"), "{said}");
    let (hub, _) = hub_that(vec![Act::Has(404, 0), Act::Refuse(413, "input_too_large")]);
    let error = upload(&hub, &file, &input).0.unwrap_err();
    assert!(error.to_string().starts_with("it is input_too_large"), "{error}");
}

#[test]
fn a_file_that_has_become_shorter_is_no_lost_connection() {
    let (file, input, _) = file();
    file.as_file().set_len(1_000).unwrap();
    let (hub, _) = hub_that(vec![Act::Has(404, 0), Act::Take(usize::MAX)]);
    let error = upload(&hub, &file, &input).0.unwrap_err();
    assert!(matches!(error, HubError::InputUnreadable { .. }), "{error}");
    assert!(error.to_string().contains("it has become shorter"), "{error}");
}

#[test]
fn an_upload_that_gets_nowhere_is_given_up() {
    let (file, input, _) = file();
    let turn = [Act::Refuse(409, "input_offset"), Act::Has(404, 0)];
    let acts = std::iter::once(Act::Has(404, 0)).chain(turn.into_iter().cycle().take(40)).collect();
    let (hub, seen) = hub_that(acts);
    let error = upload(&hub, &file, &input).0.unwrap_err();
    assert!(matches!(error, HubError::Refused(problem) if problem.code == "input_offset"));
    let expected = 2 + 2 * TRIES_MAX as usize;
    assert_eq!(requests(&seen, expected).len(), expected);
}
