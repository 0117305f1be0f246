//! `hub check`, `hub backup`, `hub restore` and `hub migrate` as an operator calls them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tessera_protocol::id::{Digest, JobId};
use tessera_storage::{Batch, Commit, Embedded, Engine, Family, Key};

/// A hub of its own process.
struct Hub {
    process: Child,
    /// Where clients reach it.
    http: String,
    /// What it announced.
    said: Value,
}

impl Hub {
    fn start(data: &Path) -> Hub {
        Hub::start_as(Command::new(env!("CARGO_BIN_EXE_hub")), data, "error")
    }

    /// Starts it by a command that takes its arguments.
    fn start_as(mut command: Command, data: &Path, log: &str) -> Hub {
        let any = "127.0.0.1:0";
        let mut process = command
            .args(["serve", "--json", "--lanes", "1", "--http", any, "--quic", any, "--log", log, "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        Hub { process, http: said["http"].as_str().unwrap().to_owned(), said }
    }
}

impl Hub {
    /// The body of a successful answer.
    fn get(&self, path: &str, key: &str) -> Vec<u8> {
        let (status, body) = self.ask("GET", path, key, "");
        assert_eq!(status, "200", "{}", body.escape_ascii());
        body
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\
             content-type: application/json\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let body = answer.split_off(at + 4);
        (String::from_utf8_lossy(&answer["HTTP/1.1 ".len()..][..3]).into_owned(), body)
    }
}

impl Drop for Hub {
    /// As a power cut does.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hub(args: &[&str], data: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_hub")).args(args).arg("--data").arg(data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    output
}

/// Exit code, and what was said.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let (code, said) = said(output);
    assert_eq!(code, Some(0), "{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn files(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), std::fs::read(path).unwrap_or_default());
    let mut all: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| read(entry.unwrap().path())).collect();
    all.sort();
    all
}

#[test]
fn a_hub_is_backed_up_while_it_runs_and_what_is_restored_is_checked_and_started() {
    let folder = TempDir::new().unwrap();
    let (data, file, again) =
        (folder.path().join("hub"), folder.path().join("hub.backup"), folder.path().join("again"));
    let running = Hub::start(&data);
    let in_use = hub(&["check"], &data);
    let (code, why) = said(&in_use);
    assert_eq!(code, Some(2), "{why}");
    assert!(
        why.contains(&format!("a hub runs on {} (process {})", data.display(), running.process.id())),
        "{why}"
    );
    let done = succeeds(&hub(&["backup", text(&file)], &data));
    assert!(done.contains("entries") && done.contains("BLAKE3"), "{done}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(running);
    succeeds(&hub(&["restore", text(&file)], &again));
    let report = succeeds(&hub(&["check"], &again));
    assert!(report.contains("\nkey          1\n"), "the first API key: {report}");
    assert!(report.ends_with("clean: every digest, reference and balance is right\n"), "{report}");
    drop(Hub::start(&again));
    succeeds(&hub(&["check"], &again));
    let onto = hub(&["restore", text(&file)], &again);
    assert_eq!(onto.status.code(), Some(1), "{onto:?}");
}

#[test]
fn a_check_of_a_killed_hub_changes_no_byte_and_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("hub");
    drop(Hub::start(&data));
    let before = files(&data);
    succeeds(&hub(&["check"], &data));
    assert!(files(&data) == before, "a check only reads");
    let store = Embedded::open(&data).unwrap();
    let entry = store.snapshot().unwrap().range(&Family::Audit.range(), 1).unwrap().remove(0);
    let mut batch = Batch::new();
    batch.put(entry.key, String::from_utf8(entry.value).unwrap().replace("operator", "somebody"));
    batch.put(Key::Job(JobId([1; 16])), "{}");
    assert_eq!(store.commit(batch).unwrap(), Commit::Done);
    drop(store);
    let (code, text) = said(&hub(&["check"], &data));
    assert_eq!(code, Some(1), "{text}");
    for expected in ["finding: the audit log: ", "finding: job/job_01010101", "to do: ", "2 findings"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let output = hub(&["check", "--json"], &data);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["clean"].as_bool(), report["findings"].as_array().unwrap().len()), (Some(false), 2));
    assert_eq!(report["findings"][0]["advice"], "restore");
    let families = report["families"].as_array().unwrap();
    assert!(families.contains(&serde_json::json!({"family": "job", "values": 1})), "{families:?}");
}

#[test]
fn a_hub_that_runs_writes_where_older_moments_of_its_store_lay() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path());
    let key = hub.said["api_key"].as_str().unwrap();
    for _ in 0..300 {
        assert_eq!(hub.ask("POST", "/v1/agent-tokens", key, "").0, "201");
    }
    // The tokens and what the log says of them are 0.1 MB; all that was ever written is 8 MB.
    let bytes = std::fs::metadata(data.path().join("store.redb")).unwrap().len();
    assert!(bytes < 2 << 20, "{bytes} bytes: something holds a moment of the store");
}

#[test]
fn a_command_without_a_store_says_so_and_makes_none() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (folder.path().join("nothing"), folder.path().join("b"));
    for args in [&["check"][..], &["backup", text(&file)], &["migrate", "--to", text(&file)]] {
        let (code, why) = said(&hub(args, &data));
        assert!(code != Some(0) && why.contains("no hub keeps its data in"), "{why}");
    }
    let (code, why) = said(&hub(&["restore", text(&file)], &data));
    assert!(code == Some(1) && why.contains("b: "), "{why}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_store_is_moved_to_another_directory_and_both_are_clean() {
    let folder = TempDir::new().unwrap();
    let (data, target) = (folder.path().join("hub"), folder.path().join("new"));
    drop(Hub::start(&data));
    let before = files(&data);
    let moved = succeeds(&hub(&["migrate", "--to", text(&target)], &data));
    assert!(moved.contains("the same on both sides"), "{moved}");
    assert!(files(&data) == before, "the old store is as it was");
    succeeds(&hub(&["check"], &target));
    drop(Hub::start(&target));
    // The build of these tests has no engine for clusters.
    let (code, why) = said(&hub(&["migrate", "--to", "fdb:/fdb.cluster"], &data));
    assert!(code == Some(1) && why.contains("--features foundationdb"), "{why}");
}

/// A backup that the first hub of format 1 made: a Monte Carlo job that is done and one that extends it, a matrix, a
/// climate job of several stages with its input files and products, an open job and a cancelled one, two providers
/// that were paid, and their agents.
const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/format-1.backup");
/// A key of that hub, which is of no use anywhere else.
const KEY_1: &str = "tsk_96b0610272ec5862163631263cbd8ff4047777b99e5e21268aaf66d4e16979a6";
/// Its done jobs, and the digests that their clients were told.
const DONE_1: [(&str, &str); 4] = [
    (
        "job_01a201afeccad19ac652389bcdd2b0b8",
        "7bcc9631249f7d36ef417b701323b5f6013784522db9c8c899b73f61e79636f8",
    ),
    (
        "job_01a201aff4cf48c0f1e4b8a0bc25bba0",
        "dca233d83354642d343fba0b45772ceb9b0186965582c6cfcb43783ef8421f20",
    ),
    (
        "job_01a201aff5eadf5e42407fb514294728",
        "0358169f41929a45464b46ddc5f20fce33ba4b42ef1397a3c31d5e2111c5f642",
    ),
    (
        "job_01a201aff7981f17cb778ccb109bfa79",
        "8b8bb5ebbf11a76842d9acbe0939ce82934e2437c82f2952e4ee049d89862fbb",
    ),
];
const OPEN_1: &str = "job_01a201aff9c6ea44889a73ca068121c5";

#[test]
fn a_store_of_format_1_is_restored_checked_started_on_and_gives_the_results_it_promised() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("hub");
    succeeds(&hub(&["restore", FORMAT_1], &data));
    // A format that this build upgrades is checked once a hub has done so.
    drop(Hub::start(&data));
    let report = succeeds(&hub(&["check"], &data));
    assert!(report.contains("\njob          6\n") && report.contains("\nsettlement   1\n"), "{report}");
    let running = Hub::start(&data);
    for (job, digest) in DONE_1 {
        let result = running.get(&format!("/v1/jobs/{job}/result"), KEY_1);
        assert_eq!(Digest::of(&result).to_string(), digest, "{job}");
    }
    let open: Value = serde_json::from_slice(&running.get(&format!("/v1/jobs/{OPEN_1}"), KEY_1)).unwrap();
    assert!(["queued", "running"].contains(&open["state"].as_str().unwrap()), "{open}");
    assert!(open["shards_done"].as_u64() > Some(0), "what was done of it is not done again: {open}");
    drop(running);
    succeeds(&hub(&["check"], &data));
}

/// A disk of its own, gone when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "tessera"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Asks until the answer is so.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_shows_where_operators_look_once_in_the_log_and_passes_though_nobody_writes() {
    let folder = TempDir::new().unwrap();
    let (mount, log) = (folder.path().join("disk"), folder.path().join("log"));
    std::fs::create_dir(&mount).unwrap();
    let Some(disk) = SmallDisk::mount(&mount) else {
        return println!("not allowed to mount a small disk: not tested");
    };
    let data = mount.join("hub");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command.stderr(std::fs::File::create(&log).unwrap());
    let running = Hub::start_as(command, &data, "info");
    let key = running.said["api_key"].as_str().unwrap().to_owned();
    let job = r#"{"name":"n","workload":"monte_carlo","params":{"model":"pi","paths":9}}"#;
    let submit = || running.ask("POST", "/v1/jobs", &key, job).0;
    let metrics = || String::from_utf8(running.get("/metrics", &key)).unwrap();
    assert_eq!(submit(), "201");
    assert!(metrics().contains("\ntessera_store_state{state=\"ok\"} 1\n"));
    let stored = || -> u64 {
        let line = metrics().lines().find_map(|line| line.strip_prefix("tessera_store_bytes ")?.parse().ok());
        line.expect("the store's size is told")
    };
    assert!((1 << 12..8 << 20).contains(&stored()), "{} bytes on a disk of 8 MB", stored());
    let ballast = mount.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    until("the disk is full for the store too", || (submit() == "507").then_some(()));
    // Work that agents would bring is tried again and again: it is the same trouble still.
    (0..20).for_each(|_| drop(submit()));
    let (status, body) = running.ask("GET", "/healthz", &key, "");
    assert_eq!((status.as_str(), String::from_utf8_lossy(&body).contains("store_full")), ("507", true));
    for line in [
        "tessera_store_state{state=\"ok\"} 0",
        "tessera_store_state{state=\"full\"} 1",
        "tessera_store_failing 1",
    ] {
        assert!(metrics().contains(&format!("\n{line}\n")), "{line}");
    }
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    until("the hub finds by itself that there is room", || {
        (running.ask("GET", "/healthz", &key, "").0 == "200").then_some(())
    });
    assert_eq!(submit(), "201");
    let said = std::fs::read_to_string(&log).unwrap();
    let count = |text: &str| said.matches(text).count();
    assert_eq!((count("the store refuses writes"), count("the store takes writes again")), (1, 1), "{said}");
    assert_eq!(count("ERROR"), 1, "{said}");
    drop(running);
    succeeds(&hub(&["check"], &data));
    drop(disk);
}
