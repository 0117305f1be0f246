//! `hub check`, `hub backup`, `hub restore` and `hub migrate` as an operator calls them.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tessera_storage::{Batch, Commit, Embedded, Engine, Family, Key};

/// A hub of its own process.
struct Hub(Child);

impl Hub {
    fn start(data: &Path) -> Hub {
        let any = "127.0.0.1:0";
        let mut process = Command::new(env!("CARGO_BIN_EXE_hub"))
            .args([
                "serve", "--json", "--lanes", "1", "--http", any, "--quic", any, "--log", "error", "--data",
            ])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("hub_key"), "{said}");
        Hub(process)
    }
}

impl Drop for Hub {
    /// As a power cut does.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
    assert!(why.contains(&format!("a hub runs on {} (process {})", data.display(), running.0.id())), "{why}");
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
    batch.put(Key::Job(tessera_protocol::id::JobId([1; 16])), "{}");
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
    assert_eq!(report["families"][2], serde_json::json!({"family": "job", "values": 1}));
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
    let (code, why) = said(&hub(&["migrate", "--to", "fdb:fdb.cluster"], &data));
    assert!(code == Some(1) && why.contains("no engine for fdb:fdb.cluster"), "{why}");
}
