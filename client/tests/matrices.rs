//! Jobs of matrices as a person or a script meets them, on a hub that is a few lines of `std::net`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use tessera_protocol::id::{Digest, JobId};

const OUTPUT: &[u8] = b"\x93NUMPY and then a product";

fn document() -> String {
    format!(
        r#"{{"dtype":"f64","output":{{"blake3":"{}","bytes":{},"name":"c.npy"}},"shape":[2,4],"terms":3,"workload":"gemm"}}"#,
        Digest::of(OUTPUT),
        OUTPUT.len()
    )
}

fn job() -> JobId {
    JobId::new(1, [2; 10])
}

fn view(state: &str) -> String {
    format!(
        r#"{{"id":"{}","name":"product","project":"default","state":"{state}","manifest_digest":"{}","verify":"standard","priority":"batch","created_ms":1000,"ended_ms":1500,"paths":0,"extends":null,"cost":20,"shards":1,"shards_done":1,"attempts":1,"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[1],"digest":"{}","failure":null,"waiting":null}}"#,
        job(),
        Digest::of(b"manifest"),
        Digest::of(document().as_bytes()),
    )
}

/// What the hub was sent: method and path, and the body.
type Log = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

struct Hub {
    url: String,
    log: Log,
}

/// A hub that knows one finished job, and the files that it is given. It sends `output` as the result.
fn hub(output: &'static [u8]) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut files = BTreeMap::new();
        for stream in listener.incoming() {
            answer(&stream.unwrap(), &seen, &mut files, output);
        }
    });
    Hub { url, log }
}

fn answer(mut stream: &TcpStream, log: &Log, files: &mut BTreeMap<String, Vec<u8>>, output: &[u8]) {
    let mut lines = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap() == 0 {
            return;
        }
        let last = head.trim_end().rsplit('\n').next().unwrap_or("").to_lowercase();
        assert!(!last.starts_with("transfer-encoding"), "the length of a file is known");
        if let Some(text) = last.strip_prefix("content-length: ") {
            length = text.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    let target = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    log.lock().unwrap().push((target.clone(), body.clone()));
    let path = format!("/v1/jobs/{}", job());
    let (status, reply) = match target.split_once(' ').unwrap() {
        ("HEAD", file) => (if files.contains_key(file) { 200 } else { 404 }, Vec::new()),
        ("PUT", file) => {
            assert!(file.ends_with(&Digest::of(&body).to_string()));
            files.insert(file.to_owned(), body);
            (201, Vec::new())
        }
        ("POST", "/v1/jobs") => (201, view("done").into_bytes()),
        ("POST", "/v1/jobs:plan") => {
            let digest = Digest::of(b"plan");
            let quote = format!(
                r#"{{"manifest_digest":"{digest}","plan_digest":"{digest}","paths":0,"shard_size":8,"shards":1,"cost":1}}"#
            );
            (200, quote.into_bytes())
        }
        ("GET", target) if target == path => (200, view("done").into_bytes()),
        ("GET", target) if target == format!("{path}/result") => (200, document().into_bytes()),
        ("GET", target) if target == format!("{path}/output") => (200, output.to_vec()),
        _ => (404, Vec::new()),
    };
    write!(stream, "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", reply.len())
        .unwrap();
    stream.write_all(&reply).unwrap();
}

fn stage(params: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/npy");
    for name in ["c.npy", "fortran.npy", "nan.npy"] {
        std::fs::copy(fixtures.join(name), folder.path().join(name)).unwrap();
    }
    let text = format!("name = \"product\"\nworkload = \"gemm\"\n[params]\n{params}\n");
    std::fs::write(folder.path().join("job.toml"), text).unwrap();
    folder
}

fn tessera(folder: &Path, hub: &Hub, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera"))
        .args(args)
        .args(["--hub", &hub.url, "--api-key", "k"])
        .current_dir(folder)
        .env_clear()
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const PRODUCT: &str = "a = { input = \"c.npy\" }\nb = { input = \"fortran.npy\" }\ntranspose_b = true";

#[test]
fn inputs_that_the_hub_lacks_are_uploaded_before_the_job_and_never_twice() {
    let (hub, folder) = (hub(OUTPUT), stage(PRODUCT));
    let outcome = tessera(folder.path(), &hub, &["submit", "job.toml"]);
    assert_eq!(outcome.status.code(), Some(0), "{}", text(&outcome.stderr));
    assert_eq!(text(&outcome.stderr), "uploading c.npy (176 bytes)\nuploading fortran.npy (176 bytes)\n");
    let digest = |name: &str| Digest::of(&std::fs::read(folder.path().join(name)).unwrap());
    let methods =
        |log: &Log| -> Vec<String> { log.lock().unwrap().iter().map(|(target, _)| target.clone()).collect() };
    let [c, fortran] = ["c.npy", "fortran.npy"].map(digest);
    assert_eq!(
        methods(&hub.log),
        [
            format!("HEAD /v1/inputs/{c}"),
            format!("PUT /v1/inputs/{c}"),
            format!("HEAD /v1/inputs/{fortran}"),
            format!("PUT /v1/inputs/{fortran}"),
            "POST /v1/jobs".to_owned(),
        ]
    );
    assert_eq!(hub.log.lock().unwrap()[1].1, std::fs::read(folder.path().join("c.npy")).unwrap());
    hub.log.lock().unwrap().clear();
    let outcome = tessera(folder.path(), &hub, &["plan", "job.toml", "--json"]);
    let said = "c.npy is at the hub already (176 bytes)\nfortran.npy is at the hub already (176 bytes)\n";
    assert_eq!((outcome.status.code(), text(&outcome.stderr)), (Some(0), said.to_owned()));
    let asked = [
        format!("HEAD /v1/inputs/{c}"),
        format!("HEAD /v1/inputs/{fortran}"),
        "POST /v1/jobs:plan".to_owned(),
    ];
    assert_eq!(methods(&hub.log), asked);
}

#[test]
fn what_is_wrong_with_a_matrix_job_is_said_before_anything_is_sent() {
    let hub = hub(OUTPUT);
    let wrong = stage("a = { input = \"nan.npy\" }\nb = { input = \"c.npy\" }");
    let outcome = tessera(wrong.path(), &hub, &["submit", "job.toml"]);
    assert_eq!(outcome.status.code(), Some(2));
    let said = "tessera: job.toml line 4, column 7: params.a.input = \"nan.npy\": entry [1, 0] is NaN or infinite: every entry must be finite\n";
    assert_eq!(text(&outcome.stderr), said);
    let right = stage(PRODUCT);
    let outcome = tessera(right.path(), &hub, &["submit", "job.toml", "--shard-size", "100"]);
    assert_eq!(outcome.status.code(), Some(2));
    assert!(
        text(&outcome.stderr).contains("hint: `params.tile` in the job file"),
        "{}",
        text(&outcome.stderr)
    );
    assert!(hub.log.lock().unwrap().is_empty());
}

#[test]
fn the_result_is_told_and_its_file_written_after_its_digest_was_compared() {
    let (hub, folder) = (hub(OUTPUT), stage(PRODUCT));
    let id = job().to_string();
    let outcome = tessera(folder.path(), &hub, &["job", "result", &id]);
    let said = text(&outcome.stdout);
    assert!(said.starts_with("Matrix product\nmatrix  2 x 4 f64\nterms   3 to an element\n"), "{said}");
    assert!(said.contains(&format!("blake3  {}\n", Digest::of(OUTPUT))), "{said}");
    assert!(
        said.ends_with(&format!("hint: `tessera job result {id} --output c.npy` fetches the file\n")),
        "{said}"
    );
    let outcome = tessera(folder.path(), &hub, &["job", "result", &id, "--json"]);
    assert_eq!(text(&outcome.stdout), document());
    let outcome = tessera(folder.path(), &hub, &["job", "result", &id, "--output", "out.npy"]);
    assert!(text(&outcome.stdout).ends_with("written to out.npy\n"), "{}", text(&outcome.stderr));
    assert_eq!(std::fs::read(folder.path().join("out.npy")).unwrap(), OUTPUT);
    let outcome = tessera(folder.path(), &hub, &["job", "result", &id, "--output", "-"]);
    assert_eq!(outcome.stdout, OUTPUT);
    let outcome = tessera(folder.path(), &hub, &["submit", "job.toml", "--wait"]);
    let said = text(&outcome.stdout);
    assert!(said.contains("blake3  ") && !said.contains("GFLOP/s"), "so small a product has no rate: {said}");
}

#[test]
fn a_file_with_another_digest_or_length_leaves_nothing_behind() {
    for wrong in
        [&b"\x93NUMPY and then a produkt"[..], &OUTPUT[1..], b"\x93NUMPY and then a product and more"]
    {
        let (hub, folder) = (hub(wrong), stage(PRODUCT));
        std::fs::write(folder.path().join("out.npy"), "before").unwrap();
        let files = |folder: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let before = files(folder.path()).len();
        let id = job().to_string();
        let outcome = tessera(folder.path(), &hub, &["job", "result", &id, "--output", "out.npy"]);
        assert_eq!(outcome.status.code(), Some(3));
        assert!(text(&outcome.stderr).contains("but the job says"), "{}", text(&outcome.stderr));
        assert_eq!(std::fs::read(folder.path().join("out.npy")).unwrap(), b"before");
        assert_eq!(files(folder.path()).len(), before);
    }
}
