//! The program as a person or a script meets it: exit codes, messages, what is on which stream. The hub is a
//! few lines of `std::net`; hub and agent programs for `run` are shell scripts around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tessera_protocol::id::{Digest, JobId};

const RESULT: &str = r#"{"ci95":[3.1411,3.1443],"inside":785675,"model":"pi","paths":1000000,"pi":3.1427,"standard_error":0.00164,"workload":"monte_carlo"}"#;
const PI: &str = "name = \"pi\"\nworkload = \"monte_carlo\"\n[params]\nmodel = \"pi\"\npaths = 1000000\n";
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn job() -> JobId {
    JobId::new(1, [2; 10])
}

fn view(state: &str, done: u64) -> String {
    let (digest, ended, failure) = match state {
        "done" => (format!("\"{}\"", Digest::of(RESULT.as_bytes())), "1500", "null"),
        "failed" => ("null".to_owned(), "1500", r#"{"reason":"deadline_passed","deadline_s":1}"#),
        _ => ("null".to_owned(), "null", "null"),
    };
    format!(
        r#"{{"id":"{}","name":"pi","project":"default","state":"{state}","manifest_digest":"{}","verify":"standard","priority":"batch","created_ms":1000,"ended_ms":{ended},"paths":1000000,"extends":null,"cost":2000000,"shards":4,"shards_done":{done},"attempts":{done},"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[{done}],"digest":{digest},"failure":{failure},"waiting":null}}"#,
        job(),
        Digest::of(b"manifest"),
    )
}

/// How the job of a fake hub ends.
#[derive(Clone, Copy)]
enum Ending {
    Done,
    Failed,
    Never,
    /// As never, and the stream of events ends.
    Running,
}

/// A hub that knows one job and one key. Gives its address.
fn fake_hub(ending: Ending) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap(), ending));
        }
    });
    address
}

fn answer(mut stream: TcpStream, ending: Ending) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap() == 0 {
            return;
        }
        let last = head.trim_end().rsplit('\n').next().unwrap_or("").to_lowercase();
        if let Some(text) = last.strip_prefix("content-length: ") {
            length = text.parse().unwrap();
        }
    }
    lines.read_exact(&mut vec![0; length]).unwrap();
    let target = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let path = format!("/v1/jobs/{}", job());
    let last = match ending {
        Ending::Done => view("done", 4),
        Ending::Failed => view("failed", 1),
        Ending::Never | Ending::Running => view("running", 1),
    };
    let (status, body) = match target.as_str() {
        _ if !head.contains("Bearer tsk_test") && !head.contains("bearer tsk_test") => (401, String::new()),
        "POST /v1/jobs" => (201, view("queued", 0)),
        "POST /v1/agent-tokens" => (201, r#"{"token":"tsr1second","hub":"127.0.0.1:8"}"#.to_owned()),
        target if target == format!("GET {path}") => (200, last),
        target if target == format!("GET {path}/result") => (200, RESULT.to_owned()),
        target if target == format!("GET {path}/events") => {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            write!(stream, "{head}event: job\ndata: {}\n\nevent: job\ndata: {last}\n\n", view("running", 1)).unwrap();
            if matches!(ending, Ending::Never) {
                std::thread::sleep(PATIENCE);
            }
            return;
        }
        _ => (
            404,
            r#"{"type":"t","title":"t","status":404,"code":"unknown_job","detail":"no such job","hint":"list them"}"#.to_owned(),
        ),
    };
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}", body.len());
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
}

/// A folder with a job file, and programs `hub` and `agent` that do nothing but stay.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(http: &str) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let ready = format!(
            r#"{{"http":"{http}","quic":"127.0.0.1:8","api_key":"tsk_test","agent_token":"tsr1first","data":"d","lanes":1}}"#
        );
        let stay = "exec sleep 1000";
        std::fs::write(folder.path().join("job.toml"), PI).unwrap();
        for (name, script) in [
            ("hub", format!("#!/bin/sh\necho '{ready}'\n{stay}\n")),
            ("agent", format!("#!/bin/sh\n{stay}\n")),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Stage { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tessera(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", self.folder.path())
            .env("TESSERA_BIN_DIR", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn output(&self, args: &[&str]) -> Outcome {
        Outcome::of(&self.tessera(args).output().unwrap())
    }

    /// Files and folders that a run left behind.
    fn left_behind(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tessera-run-"))
            .count()
    }
}

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(output: &Output) -> Outcome {
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}

/// Reads a child's standard error until it has named its children; gives their process ids.
fn children_of(tessera: &mut Child) -> Vec<u32> {
    let mut lines = BufReader::new(tessera.stderr.take().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("process ids: ")).unwrap();
    // The rest is read too, so that the program never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
    line.trim_start_matches("process ids: ")
        .split(", ")
        .map(|child| child.split(' ').next_back().unwrap().parse().unwrap())
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_gone(pid: &u32) -> bool {
    // An orphan that nobody has reaped yet is a zombie.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn send(signal: i32, to: u32) {
    // SAFETY: a plain system call on a child that this test started.
    assert_eq!(unsafe { libc::kill(to as libc::pid_t, signal) }, 0);
}

#[test]
fn a_run_prints_its_result_and_leaves_nothing_behind() {
    let stage = Stage::new(&fake_hub(Ending::Done));
    let outcome = stage.output(&["run", "job.toml", "--agents", "2", "--output", "result.json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("π\n  3.1427 ± 0.0016"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains(&format!("digest    {}\n", Digest::of(RESULT.as_bytes()))),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stderr.starts_with("process ids: hub "), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(", agent-1 ") && outcome.stderr.contains(", agent-2 "),
        "{}",
        outcome.stderr
    );
    assert_eq!(std::fs::read_to_string(stage.path("result.json")).unwrap(), RESULT);
    assert_eq!(stage.left_behind(), 0);
}

#[test]
fn a_run_whose_result_nobody_could_keep_does_not_begin() {
    let stage = Stage::new(&fake_hub(Ending::Done));
    std::fs::create_dir(stage.path("folder")).unwrap();
    std::fs::write(stage.path("climate.outputs"), "").unwrap();
    let climate = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/climate.toml");
    let cases = [
        ("job.toml", Some("missing/result.json"), "No such file"),
        ("job.toml", Some("folder"), "is a directory"),
        (climate, Some("job.toml/outputs"), "Not a directory"),
        (climate, None, "Not a directory"),
    ];
    for (job, output, why) in cases {
        let named = output.map_or(vec![], |output| vec!["--output", output]);
        let outcome = stage.output(&[&["run", job][..], &named].concat());
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let path = output.unwrap_or("climate.outputs");
        assert!(outcome.stderr.contains(path) && outcome.stderr.contains(why), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("process ids"), "{}", outcome.stderr);
    }
}

#[test]
fn a_run_as_json_is_one_document_that_holds_the_bytes_its_digest_names() {
    let stage = Stage::new(&fake_hub(Ending::Done));
    let outcome = stage.output(&["run", "job.toml", "--agents", "1", "--json", "--data", "kept"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(document["digest"], Digest::of(RESULT.as_bytes()).to_string());
    assert_eq!((&document["agents"], &document["lanes"]), (&1.into(), &1.into()));
    assert_eq!(document["job"]["state"], "done");
    assert!(document["elapsed_ms"].is_u64());
    assert!(outcome.stdout.contains(&format!("\"result\":{RESULT}")), "{}", outcome.stdout);
    assert!(stage.path("kept/hub.log").exists());
}

#[test]
fn a_job_that_fails_is_exit_code_one_in_every_form() {
    let stage = Stage::new(&fake_hub(Ending::Failed));
    let outcome = stage.output(&["run", "job.toml"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("failed after 0.50 s: its deadline of 1 s passed"), "{}", outcome.stdout);
    let reason = format!("tessera: {} failed: its deadline of 1 s passed\n", job());
    assert!(outcome.stderr.ends_with(&reason), "{}", outcome.stderr);
    let outcome = stage.output(&["run", "job.toml", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(document["digest"].is_null() && document["result"].is_null());
}

#[test]
fn ctrl_c_stops_the_children_and_says_so() {
    let stage = Stage::new(&fake_hub(Ending::Never));
    let mut tessera = stage.tessera(&["run", "job.toml"]).spawn().unwrap();
    let children = children_of(&mut tessera);
    assert_eq!(children.len(), 3);
    assert!(!children.iter().any(is_gone));
    send(libc::SIGINT, tessera.id());
    assert_eq!(tessera.wait().unwrap().code(), Some(130));
    assert!(children.iter().all(is_gone));
    assert_eq!(stage.left_behind(), 0);
}

#[test]
fn impatient_ctrl_c_leaves_no_child_and_no_folder_behind() {
    let stage = Stage::new(&fake_hub(Ending::Never));
    // A hub that takes a second to stop.
    let hub = std::fs::read_to_string(stage.path("hub")).unwrap();
    let slow = "trap 'sleep 1; exit 0' TERM\nwhile :; do sleep 0.05; done\n";
    std::fs::write(stage.path("hub"), hub.replace("exec sleep 1000\n", slow)).unwrap();
    let mut tessera = stage.tessera(&["run", "job.toml"]).spawn().unwrap();
    let children = children_of(&mut tessera);
    for _ in 0..4 {
        send(libc::SIGINT, tessera.id());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(tessera.wait().unwrap().code(), Some(130));
    assert!(children.iter().all(is_gone));
    assert_eq!(stage.left_behind(), 0);
}

#[test]
fn children_die_with_a_parent_that_is_killed_hard() {
    let stage = Stage::new(&fake_hub(Ending::Never));
    let mut tessera = stage.tessera(&["run", "job.toml"]).spawn().unwrap();
    let children = children_of(&mut tessera);
    send(libc::SIGKILL, tessera.id());
    tessera.wait().unwrap();
    until("the end of the children", || children.iter().all(is_gone));
}

#[test]
fn a_submission_can_be_waited_for_and_a_watcher_can_stop() {
    let address = fake_hub(Ending::Done);
    let stage = Stage::new(&address);
    let url = format!("http://{address}");
    std::fs::write(stage.path("key"), "tsk_test\n").unwrap();
    let hub = ["--hub", url.as_str(), "--api-key-file", "key"];
    let outcome = stage.output(&[&["submit", "job.toml", "--wait"], &hub[..]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("π\n"), "{}", outcome.stdout);
    let id = job().to_string();
    let outcome = stage.output(&[&["job", "result", id.as_str(), "--output", "-"], &hub[..]].concat());
    assert_eq!(outcome.stdout, RESULT);

    let address = fake_hub(Ending::Never);
    let url = format!("http://{address}");
    let mut watcher =
        stage.tessera(&["job", "watch", &id, "--hub", &url, "--api-key", "tsk_test"]).spawn().unwrap();
    let mut stderr = BufReader::new(watcher.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "1 of 4 shards done\n");
    send(libc::SIGINT, watcher.id());
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(watcher.wait().unwrap().code(), Some(130));
    assert!(said.contains(&format!("tessera: stopped watching; {id} goes on\n")), "{said}");
}

#[test]
fn a_watcher_of_a_hub_that_goes_away_says_so_and_does_not_promise_that_the_job_goes_on() {
    // A hub that answers twice, with the job and with a stream that ends, and is gone.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hub = std::thread::spawn(move || {
        for _ in 0..2 {
            answer(listener.accept().unwrap().0, Ending::Running);
        }
    });
    let stage = Stage::new(&address);
    let (id, url) = (job().to_string(), format!("http://{address}"));
    let mut watcher =
        stage.tessera(&["job", "watch", &id, "--hub", &url, "--api-key", "tsk_test"]).spawn().unwrap();
    hub.join().unwrap();
    let gone = Instant::now();
    let mut stderr = BufReader::new(watcher.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("the hub does not answer; trying again\n") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    assert!(gone.elapsed() < Duration::from_secs(2));
    send(libc::SIGINT, watcher.id());
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(watcher.wait().unwrap().code(), Some(130));
    assert_eq!(said.matches("trying again").count(), 1, "{said}");
    assert!(
        said.contains(&format!("the hub does not answer, and {id} goes on when the hub does\n")),
        "{said}"
    );
}

#[test]
fn wrong_input_is_exit_code_two_and_a_hub_that_is_away_is_three() {
    let address = fake_hub(Ending::Done);
    let stage = Stage::new(&address);
    let url = format!("http://{address}");
    std::fs::write(stage.path("zero.toml"), PI.replace("1000000", "0")).unwrap();
    let unknown = JobId::new(9, [9; 10]).to_string();
    let hub = ["--hub", url.as_str(), "--api-key", "tsk_test"];
    let cases: [(&[&str], i32, &str); 8] = [
        (&["run", "job.toml", "--hub", &url], 2, "error: --hub belongs after a command that talks to a hub"),
        (
            &["run", "zero.toml"],
            2,
            "tessera: zero.toml line 5, column 1: params.paths = 0: must be from 1 to 1000000000000000\n",
        ),
        (
            &["run", "none.toml"],
            2,
            "tessera: cannot read none.toml: No such file or directory (os error 2)\n",
        ),
        (
            &["job", "show", &unknown, hub[0], hub[1], hub[2], hub[3]],
            2,
            "tessera: no such job\nhint: list them\n",
        ),
        (
            &["job", "list", "--hub", "https://h"],
            2,
            "tessera: hub URL \"https://h\": a hub speaks plain http",
        ),
        (
            &["job", "list", "--hub", "http://127.0.0.1:1"],
            3,
            "tessera: no hub listens at http://127.0.0.1:1\nhint: start one",
        ),
        (
            &["job", "list", "--hub", &url, "--api-key", "wrong"],
            3,
            &format!("tessera: the hub at {url} does not know this API key\n"),
        ),
        (&["frobnicate"], 2, "error: unrecognized subcommand 'frobnicate'"),
    ];
    for (args, code, message) in cases {
        let outcome = stage.output(args);
        assert_eq!(outcome.code, Some(code), "{args:?}: {}", outcome.stderr);
        assert!(outcome.stderr.starts_with(message), "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
}

#[test]
fn the_hub_and_key_come_from_a_file_when_nothing_else_names_them() {
    let address = fake_hub(Ending::Done);
    let stage = Stage::new(&address);
    std::fs::create_dir_all(stage.path("config/tessera")).unwrap();
    let config = format!("hub = \"http://{address}\"\napi_key = \"tsk_test\"\n");
    std::fs::write(stage.path("config/tessera/config.toml"), config).unwrap();
    let id = job().to_string();
    let with = |variables: &[(&str, &str)]| {
        let mut command = stage.tessera(&["job", "show", &id]);
        command.env("XDG_CONFIG_HOME", stage.path("config")).envs(variables.iter().copied());
        Outcome::of(&command.output().unwrap())
    };
    let outcome = with(&[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("pi\njob       job_"), "{}", outcome.stdout);
    assert_eq!(with(&[("TESSERA_API_KEY", "wrong")]).code, Some(3));
    assert_eq!(with(&[("TESSERA_HUB", "http://127.0.0.1:1")]).code, Some(3));
}

#[test]
fn the_examples_are_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let folder = tempfile::tempdir().unwrap();
    // The clip is the reader's own.
    std::fs::write(folder.path().join("clip.mp4"), b"film").unwrap();
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut jobs = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let encoder = |_| Some("0123456789abcdef".to_owned());
            tessera_client::spec_file::load_with_files(&path, &encoder)
                .unwrap_or_else(|error| panic!("{error}"));
            jobs += 1;
        }
    }
    assert!(jobs >= 8, "{jobs} jobs");
}
