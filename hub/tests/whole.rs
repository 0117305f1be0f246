//! The `hub` binary with its real store behind the HTTP API: files of matrix jobs, and what a kill leaves.

#[allow(dead_code, reason = "the tests of the transport need more of it")]
mod agent;
#[allow(dead_code, reason = "the tests of the HTTP API need more of it")]
#[path = "http/client.rs"]
mod client;
#[path = "whole/pieces.rs"]
mod pieces;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Answer, Connection, head};
use serde_json::{Value, json};
use tessera_hub::blobs::{Blobs, Name, Place};
use tessera_hub::{inputs, output, records};
use tessera_hub_core::record::Kept;
use tessera_hub_core::{NewJob, Outcome, Record};
use tessera_planners::Plan;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::spec::JobSpec;
use tessera_protocol::token::EnrolmentToken;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Commit, Embedded, Engine, Family};

/// A hub of its own process.
struct Hub {
    process: Child,
    address: SocketAddr,
    /// Where agents connect.
    quic: SocketAddr,
    /// For one agent.
    token: EnrolmentToken,
    bearer: String,
}

impl Hub {
    /// Starts a hub; its key is the one it announces at its first start.
    fn start(data: &Path, bearer: Option<String>) -> Hub {
        Hub::start_as(Command::new(env!("CARGO_BIN_EXE_hub")), data, bearer)
    }

    /// Starts it by a command that takes its arguments.
    fn start_as(command: Command, data: &Path, bearer: Option<String>) -> Hub {
        Hub::spawn(command, data, bearer, &[])
    }

    /// Starts it with settings of a configuration file.
    fn start_with(data: &Path, bearer: Option<String>, settings: &str) -> Hub {
        let file = data.with_extension("toml");
        std::fs::write(&file, settings).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_hub"));
        Hub::spawn(command, data, bearer, &["--config", file.to_str().unwrap()])
    }

    fn spawn(mut command: Command, data: &Path, bearer: Option<String>, more: &[&str]) -> Hub {
        let any = "127.0.0.1:0";
        let mut process = command
            .args([
                "serve", "--json", "--lanes", "1", "--http", any, "--quic", any, "--log", "error", "--data",
            ])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        let first = said["api_key"].as_str().map(|key| format!("Bearer {key}"));
        let text = |field: &str| said[field].as_str().unwrap();
        let address = text("http").parse().unwrap();
        let (quic, token) = (text("quic").parse().unwrap(), text("agent_token").parse().unwrap());
        Hub { process, address, quic, token, bearer: bearer.or(first).unwrap() }
    }

    fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<usize>) -> Connection {
        let mut connection = Connection::open(self.address);
        let all = [&[("authorization", self.bearer.as_str())], headers].concat();
        connection.send(&head(method, path, &all, body));
        connection
    }

    fn get(&self, path: &str) -> Answer {
        self.begin("GET", path, &[], None).read_answer()
    }

    fn put(&self, path: &str, body: &[u8]) -> Answer {
        let mut connection = self.begin("PUT", path, &[], Some(body.len()));
        connection.send_bytes(body);
        connection.read_answer()
    }

    fn submit(&self, spec: &Value) -> Answer {
        let text = spec.to_string();
        let json = [("content-type", "application/json")];
        let mut connection = self.begin("POST", "/v1/jobs", &json, Some(text.len()));
        connection.send(&text);
        connection.read_answer()
    }

    /// As a power cut does.
    fn kill(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.bearer.clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A `.npy` file of 16 × 16 doubles that nothing looks into.
fn file(number: u8) -> (Vec<u8>, Digest, String) {
    let bytes = vec![number; 128 + 16 * 16 * 8];
    let digest = Digest::of(&bytes);
    let path = format!("/v1/inputs/{digest}");
    (bytes, digest, path)
}

fn product_of_files(a: Digest, b: Digest, bytes_of_a: u64) -> Value {
    let operand = |name: &str| json!({"input": name, "rows": 16, "cols": 16});
    json!({
        "name": "p", "workload": "gemm",
        "params": {"dtype": "f64", "a": operand("a.npy"), "b": operand("b.npy")},
        "inputs": [
            {"name": "a.npy", "blake3": a, "bytes": bytes_of_a},
            {"name": "b.npy", "blake3": b, "bytes": 2_176},
        ],
    })
}

#[test]
fn a_job_is_refused_until_its_files_are_here_as_it_says_and_files_survive_the_hub() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let ((bytes_a, a, path_a), (bytes_b, b, path_b)) = (file(1), file(2));
    let fields = |answer: &Answer| -> Vec<String> {
        assert_eq!((answer.status, answer.code().as_str()), (422, "spec_invalid"), "{answer:?}");
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    };
    let spec = product_of_files(a, b, 2_176);
    assert_eq!(fields(&hub.submit(&spec)), ["inputs[0].blake3", "inputs[1].blake3"]);
    assert_eq!(hub.put(&path_a, &bytes_a).status, 201);
    assert_eq!(fields(&hub.submit(&spec)), ["inputs[1].blake3"]);
    assert_eq!(hub.put(&path_b, &bytes_b).status, 201);
    let other_length = hub.submit(&product_of_files(a, b, 2_175));
    assert_eq!(fields(&other_length), ["inputs[0].bytes"]);
    assert!(other_length.json()["detail"].as_str().unwrap().contains("2176"), "{other_length:?}");
    let bearer = hub.kill();

    let hub = Hub::start(data.path(), Some(bearer));
    assert_eq!(hub.get(&path_a).header("tessera-input-bytes"), Some("2176"));
    assert_eq!(hub.put(&path_b, &bytes_b).status, 200);
    let answer = hub.submit(&spec);
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(hub.get(&format!("/v1/jobs/{id}/output")).code(), "job_not_done");
    let metrics = String::from_utf8(hub.get("/metrics").body).unwrap();
    for line in
        ["tessera_uploads 0\n", "tessera_upload_bytes_total 0\n", "method=\"PUT\",status=\"200\"} 1\n"]
    {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

/// Waits until so many bytes of uploads are stored, since a hub stores them when it has them.
fn until_stored(hub: &Hub, bytes: u64) {
    let started = Instant::now();
    let line = format!("tessera_upload_bytes_total {bytes}\n");
    while !String::from_utf8(hub.get("/metrics").body).unwrap().contains(&line) {
        assert!(started.elapsed() < Duration::from_secs(20), "{bytes} bytes are stored");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How much of a file a hub says that it has.
fn received(hub: &Hub, path: &str) -> u64 {
    let answer = hub.begin("HEAD", path, &[], None).read_head();
    answer.header("tessera-input-received").unwrap().parse().unwrap()
}

fn put_from(hub: &Hub, path: &str, file: &[u8], from: u64) -> Answer {
    let (rest, range) = (&file[from as usize..], format!("bytes {from}-{}/{}", file.len() - 1, file.len()));
    let mut connection = hub.begin("PUT", path, &[("content-range", &range)], Some(rest.len()));
    connection.send_bytes(rest);
    connection.read_answer()
}

/// A file of pieces that differ.
fn large_file(bytes: u64) -> (Vec<u8>, String) {
    let file: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let path = format!("/v1/inputs/{}", Digest::of(&file));
    (file, path)
}

#[test]
fn a_hub_that_is_killed_in_the_middle_of_an_upload_goes_on_from_its_whole_pieces() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let (whole, _, whole_path) = file(1);
    assert_eq!(hub.put(&whole_path, &whole).status, 201);
    let (bytes, path) = large_file(3 * INPUT_PIECE_BYTES + 1_000);
    let mut connection = hub.begin("PUT", &path, &[], Some(bytes.len()));
    connection.send_bytes(&bytes[..2 * INPUT_PIECE_BYTES as usize + 500]);
    until_stored(&hub, whole.len() as u64 + 2 * INPUT_PIECE_BYTES);
    let bearer = hub.kill();

    let hub = Hub::start(data.path(), Some(bearer));
    assert_eq!((hub.get(&path).status, hub.get(&whole_path).status), (404, 200), "half a file is no file");
    assert_eq!(received(&hub, &path), 2 * INPUT_PIECE_BYTES);
    assert_eq!(put_from(&hub, &path, &bytes, INPUT_PIECE_BYTES).code(), "input_offset");
    let answer = put_from(&hub, &path, &bytes, 2 * INPUT_PIECE_BYTES);
    assert_eq!(answer.status, 201, "{answer:?}");
    until_stored(&hub, INPUT_PIECE_BYTES + 1_000);
    let bearer = hub.kill();
    let hub = Hub::start(data.path(), Some(bearer));
    assert!(hub.get(&path).body == bytes, "the file is there whole");
}

#[test]
fn pieces_that_no_input_and_no_upload_tells_of_are_removed_by_the_next_hub() {
    let data = tempfile::tempdir().unwrap();
    let bearer = Hub::start(data.path(), None).kill();
    let name = Name { blob: Digest([3; 32]), piece: 0 };
    let blobs = Blobs::open(&Place::Directory(data.path().join("blobs"))).unwrap();
    let blake3 = blobs.put(name, vec![1; 200_000].into()).unwrap();
    let store = Embedded::open(data.path()).unwrap();
    let piece = inputs::Stored { number: 0, bytes: 200_000, blake3 };
    assert_eq!(store.commit(inputs::piece_batch(name.blob, &piece)).unwrap(), Commit::Done);
    drop(store);
    let started = Instant::now();
    let mut bearer = Some(bearer);
    loop {
        let hub = Hub::start(data.path(), bearer.take());
        std::thread::sleep(Duration::from_millis(50));
        bearer = Some(hub.kill());
        let store = Embedded::open(data.path()).unwrap();
        if store.snapshot().unwrap().range(&Family::BlobPieces.range(), 1).unwrap().is_empty() {
            assert_eq!(blobs.get(name, blake3).unwrap(), None);
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "they are still there");
    }
}

#[test]
fn a_disk_that_fills_up_is_told_and_the_upload_goes_on_once_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let (bytes, path) = large_file(3 * INPUT_PIECE_BYTES);
    let mut connection = hub.begin("PUT", &path, &[], Some(bytes.len()));
    connection.send_bytes(&bytes[..INPUT_PIECE_BYTES as usize + 500]);
    until_stored(&hub, INPUT_PIECE_BYTES);
    let bearer = hub.kill();
    // Files of this hub may have 3 MiB, in units of 512 bytes; that is how a full disk looks to it.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 6144; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hub")]);
    let hub = Hub::start_as(limited, data.path(), Some(bearer));
    let answer = put_from(&hub, &path, &bytes, INPUT_PIECE_BYTES);
    assert_eq!((answer.status, answer.code().as_str()), (507, "store_full"), "{answer:?}");
    assert_eq!(received(&hub, &path), INPUT_PIECE_BYTES);
    let bearer = hub.kill();

    let hub = Hub::start(data.path(), Some(bearer));
    assert_eq!(received(&hub, &path), INPUT_PIECE_BYTES);
    assert_eq!(put_from(&hub, &path, &bytes, INPUT_PIECE_BYTES).status, 201);
    assert!(hub.get(&path).body == bytes);
}

#[test]
fn a_file_that_was_damaged_on_disk_is_not_sent_as_if_it_were_good() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let (bytes, path) = large_file(INPUT_PIECE_BYTES + 1_000);
    assert_eq!(hub.put(&path, &bytes).status, 201);
    let piece = data.path().join("blobs").join(Name { blob: Digest::of(&bytes), piece: 1 }.to_string());
    let mut changed = std::fs::read(&piece).unwrap();
    changed[500] ^= 1;
    std::fs::write(&piece, changed).unwrap();
    let mut connection = hub.begin("GET", &path, &[], None);
    assert_eq!(connection.read_head().status, 200);
    let mut body = Vec::new();
    connection.stream.read_to_end(&mut body).unwrap();
    assert!(body == bytes[..INPUT_PIECE_BYTES as usize], "the damaged piece is not sent");
    let metrics = String::from_utf8(hub.get("/metrics").body).unwrap();
    assert!(metrics.contains("tessera_blob_pieces_damaged_total 1\n"), "{metrics}");
}

#[test]
fn a_file_that_no_job_needs_is_removed_after_its_time_and_one_that_a_job_needs_stays() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join("hub");
    let settings = "[retention]\nblobs = \"1s\"\n";
    let hub = Hub::start_with(&data, None, "[retention]\nblobs = \"1day\"\n");
    let ((bytes_a, a, path_a), (bytes_b, b, path_b)) = (file(1), file(2));
    let (unwanted, _, path) = file(3);
    for (path, bytes) in [(&path_a, &bytes_a), (&path_b, &bytes_b), (&path, &unwanted)] {
        assert_eq!(hub.put(path, bytes).status, 201);
    }
    assert_eq!(hub.submit(&product_of_files(a, b, 2_176)).status, 201);
    std::thread::sleep(Duration::from_millis(1_100));
    let bearer = hub.kill();

    let hub = Hub::start_with(&data, Some(bearer), settings);
    let started = Instant::now();
    // Its head alone: bytes that are on their way when it goes would be cut off.
    while hub.begin("HEAD", &path, &[], None).read_head().status == 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (path, bytes) in [(&path_a, &bytes_a), (&path_b, &bytes_b)] {
        assert!(hub.get(path).body == *bytes, "a queued job reads it");
    }
    // Its record goes first: until its pieces have gone too it is busy.
    let answer = loop {
        let answer = hub.put(&path, &unwanted);
        if answer.status != 409 || started.elapsed() > Duration::from_secs(20) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(answer.status, 201, "it may come again: {answer:?}");
}

#[test]
fn a_project_keeps_no_more_than_it_may_and_shares_count_in_full() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join("hub");
    let settings = "[projects.risk]\nblob_bytes_max = 3000\n";
    let hub = Hub::start_with(&data, None, settings);
    let ((bytes_a, a, path_a), (bytes_b, b, path_b)) = (file(1), file(2));
    let put = |hub: &Hub, project: &str, path: &str, bytes: &[u8]| {
        let mut connection = hub.begin("PUT", path, &[("tessera-project", project)], Some(bytes.len()));
        connection.send_bytes(bytes);
        connection.read_answer()
    };
    assert_eq!(put(&hub, "risk", &path_a, &bytes_a).status, 201);
    assert_eq!(put(&hub, "risk", &path_a, &bytes_a).status, 200, "it counts once");
    let answer = put(&hub, "risk", &path_b, &bytes_b);
    assert_eq!((answer.status, answer.code().as_str()), (413, "blobs_full"), "{answer:?}");
    assert_eq!(put(&hub, "other", &path_b, &bytes_b).status, 201);
    let bearer = hub.kill();

    let hub = Hub::start_with(&data, Some(bearer), settings);
    let mut spec = product_of_files(a, b, 2_176);
    spec["project"] = json!("risk");
    let answer = hub.submit(&spec);
    assert_eq!((answer.status, answer.code().as_str()), (413, "blobs_full"), "{answer:?}");
    spec["project"] = json!("other");
    assert_eq!(hub.submit(&spec).status, 201);
    let metrics = String::from_utf8(hub.get("/metrics").body).unwrap();
    for line in ["{project=\"risk\"} 2176\n", "{project=\"other\"} 4352\n"] {
        assert!(metrics.contains(&format!("tessera_project_blob_bytes{line}")), "{line} in {metrics}");
    }
}

/// Puts a finished product of 2,048 × 2,048 doubles into a store; gives its file.
fn finished_product(data: &Path) -> (JobId, Vec<u8>) {
    let matrix = json!({"random": "uniform", "rows": 2_048, "cols": 2_048});
    let spec = json!({
        "name": "p", "workload": "gemm",
        "params": {"dtype": "f64", "a": matrix, "b": matrix, "tile": [1_024, 1_024]},
    });
    let manifest = JobSpec::from_json(spec.to_string().as_bytes()).unwrap().check().unwrap();
    let plan = Plan::new(&manifest, 0).unwrap();
    let task = plan.matrix().unwrap().clone();
    let id = JobId::new(5, [1; 10]);
    let store = Embedded::open(data).unwrap();
    let commit = |record: &Record| assert_eq!(store.commit(records::batch_of(record)).unwrap(), Commit::Done);
    for tile in 0..task.tile_count() {
        let element = |at: u32| f64::from(at + (tile as u32 + 1) * 10_000_000).to_le_bytes();
        let bytes: Vec<u8> = (0..1 << 20).flat_map(element).collect();
        commit(&Record::TileReduced {
            job: id,
            plan: plan.digest(),
            tile,
            bytes: bytes.into(),
            earned: Default::default(),
        });
    }
    let snapshot = store.snapshot().unwrap();
    let file: Vec<u8> =
        output::parts(&task).flat_map(|part| output::read(&*snapshot, id, &task, &part).unwrap()).collect();
    let (digest, bytes) = output::digest(&*snapshot, id, &task).unwrap();
    let document = tessera_planners::finish_matrix(&plan, digest, bytes).unwrap();
    let spec = manifest.spec();
    let view = JobView {
        id,
        name: spec.name.clone(),
        project: spec.project.clone(),
        state: JobState::Queued,
        manifest_digest: manifest.digest(),
        verify: spec.verify,
        priority: spec.priority,
        created_ms: UnixMillis(5),
        ended_ms: None,
        paths: 0,
        extends: None,
        cost: plan.cost(),
        shards: plan.shards(),
        shards_done: 0,
        attempts: 0,
        checks: 0,
        mismatches: 0,
        checks_skipped: 0,
        provisional: 0,
        recalled: 0,
        tainted: 0,
        lanes: vec![0],
        digest: None,
        failure: None,
        waiting: None,
    };
    let created = UnixMillis(5);
    let ended_ms = Some(UnixMillis(6));
    let job_task = plan.matrix().unwrap().clone();
    let bill = tessera_hub_core::Bill::open(view.verify, &plan).close();
    let job = Arc::new(NewJob {
        id,
        manifest,
        plan,
        created,
        base: None,
        idempotency_key: Some("once".to_owned()),
    });
    commit(&Record::JobAccepted { job, view: Box::new(view.clone()) });
    let view = JobView { state: JobState::Done, ended_ms, digest: Some(Digest::of(&document)), ..view };
    let outcome = Outcome::Done { result: document.into(), kept: Kept::Tiles(job_task) };
    let (view, bill, unchecked) = (Box::new(view), Box::new(bill), Default::default());
    commit(&Record::JobEnded { job: id, view, outcome, bill, unchecked });
    (id, file)
}

#[test]
fn a_result_file_is_streamed_and_clients_that_do_not_read_theirs_hold_up_nobody() {
    let data = tempfile::tempdir().unwrap();
    let (id, file) = finished_product(data.path());
    let hub = Hub::start(data.path(), None);
    let path = format!("/v1/jobs/{id}/output");
    let idle: Vec<Connection> = (0..8)
        .map(|_| {
            let mut connection = hub.begin("GET", &path, &[], None);
            assert_eq!(connection.read_head().status, 200);
            connection
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    let document = hub.get(&format!("/v1/jobs/{id}/result"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let answer = hub.get(&path);
    assert!(answer.status == 200 && answer.body == file);
    let digest = Digest::of(&file).to_string();
    assert_eq!(answer.header("tessera-digest"), Some(digest.as_str()));
    let output = &document.json()["output"];
    assert_eq!((&output["blake3"], &output["bytes"]), (&json!(digest), &json!(file.len())));
    drop(idle);
}

#[test]
fn a_job_that_ended_long_ago_is_pruned_by_policy_and_says_so() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().join("hub");
    let bearer = Hub::start(&data, None).kill();
    let (id, _) = finished_product(&data);
    let hub = Hub::start_with(
        &data,
        Some(bearer),
        "[retention]\nfinished = \"40000days\"\n[projects.default]\nweight = 1\n",
    );
    assert_eq!(hub.get(&format!("/v1/jobs/{id}")).status, 200);
    let bearer = hub.kill();

    let hub = Hub::start_with(&data, Some(bearer), "[retention]\nfinished = \"90d\"\n");
    let started = Instant::now();
    while hub.get(&format!("/v1/jobs/{id}")).status == 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "it is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    for path in ["", "/result", "/output", "/manifest", "/bill", "/receipt", "/explain"] {
        let answer = hub.get(&format!("/v1/jobs/{id}{path}"));
        assert_eq!((answer.status, answer.code().as_str()), (410, "job_pruned"), "{path}: {answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("was pruned at 20"), "{answer:?}");
    }
    let log = String::from_utf8(hub.get("/v1/audit").body).unwrap();
    assert!(log.contains("job_pruned") && log.contains(&id.to_string()), "{log}");
    let is_gone = |hub: Hub| {
        let bearer = hub.kill();
        let store = Embedded::open(&data).unwrap();
        let snapshot = store.snapshot().unwrap();
        let left = |family: Family| !snapshot.range(&family.range(), 1).unwrap().is_empty();
        let gone = [Family::Tiles, Family::Results, Family::Manifests, Family::Jobs, Family::Idempotency];
        assert!(left(Family::Bills), "the sums of its bill stay");
        (bearer, !gone.into_iter().any(left))
    };
    let mut hub = hub;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let (bearer, gone) = is_gone(hub);
        if gone {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "its tiles are still there");
        hub = Hub::start_with(&data, Some(bearer), "[retention]\nfinished = \"90d\"\n");
    }
}
