//! Bad input and a bad world: one clear message, an exit code, and nothing half done.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::programs::{Hub, program, until};

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn serve(data: &Path, extra: &[&str]) -> Output {
    Command::new(program("hub"))
        .args(["serve", "--log", "error", "--data"])
        .arg(data)
        .args(["--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"])
        .args(extra)
        .stdin(Stdio::null())
        .output()
        .expect("the hub starts")
}

/// A request with a body of `length` bytes, of which at most `sent` are sent.
fn post(hub: &Hub, key: &str, length: usize, sent: usize) -> String {
    let mut stream = TcpStream::connect(&hub.http).expect("the hub listens");
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("writable");
    // The hub may answer and close before it has read everything.
    let _ = stream.write_all(&vec![b' '; sent]);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn wrong_job_files_are_refused_by_name_before_anything_starts() {
    let folder = TempDir::new().unwrap();
    let csv =
        "id,underlying,kind,spot,strike,rate,dividend,volatility,expiry\nc,u,european_call,100,100,0.05,0,";
    std::fs::write(folder.path().join("book.csv"), format!("{csv}-0.2,1\n")).unwrap();
    let job = |params: &str| format!("name = \"n\"\nworkload = \"monte_carlo\"\n[params]\n{params}\n");
    let cases = [
        ("name = ".to_owned(), "line 1"),
        (job("model = \"pi\"\npaths = 0"), "params.paths = 0: must be from 1"),
        (job("model = \"pi\"\npaths = 9\nspeed = 1"), "unknown field `speed`"),
        (
            job("model = \"gbm\"\npaths = 9\nbook = \"book.csv\""),
            "column volatility: \"-0.2\": must be greater than 0",
        ),
        (job("model = \"gbm\"\npaths = 9\nbook = \"none.csv\""), "none.csv"),
    ];
    for (content, expected) in cases {
        let path = folder.path().join("job.toml");
        std::fs::write(&path, &content).unwrap();
        for command in ["run", "submit"] {
            let output = Command::new(program("tessera"))
                .args([command, path.to_str().unwrap()])
                .env("TESSERA_HUB", "http://127.0.0.1:9")
                .env("TESSERA_API_KEY", "tsk_00")
                .output()
                .expect("tessera runs");
            let said = text(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(expected), "{expected:?} in {said}");
            assert!(!said.contains("process ids"), "nothing starts: {said}");
        }
    }
}

#[test]
fn a_hub_that_cannot_start_says_why_and_what_to_do() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let quic = taken_udp.local_addr().unwrap().to_string();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data = folder.path().join("data");
    let running = Hub::start(&folder.path().join("running"), 1);
    let config = folder.path().join("hub.toml");
    std::fs::write(&config, "lanes = 1\nlane = 2\n").unwrap();
    let cases: [(&Path, Vec<&str>, &str); 5] = [
        (&data, vec!["--http", &http], "cannot listen for clients"),
        (&data, vec!["--quic", &quic], "cannot listen for agents"),
        (&file, vec![], "file"),
        (&folder.path().join("running"), vec![], "another"),
        (&data, vec!["--config", config.to_str().unwrap()], "unknown field `lane`"),
    ];
    for (data, extra, expected) in cases {
        let output = Command::new(program("hub"))
            .args(["serve", "--log", "error", "--data"])
            .arg(data)
            .args(if extra.contains(&"--http") { vec![] } else { vec!["--http", "127.0.0.1:0"] })
            .args(if extra.contains(&"--quic") { vec![] } else { vec!["--quic", "127.0.0.1:0"] })
            .args(&extra)
            .output()
            .expect("the hub starts");
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(expected), "{expected:?} in {said}");
        assert_eq!(said.trim().lines().filter(|line| line.starts_with("hub: ")).count(), 1, "{said}");
    }
    drop(running);
}

#[test]
fn requests_that_cannot_be_are_answered_and_leave_no_job() {
    let folder = TempDir::new().unwrap();
    let hub = Hub::start(&folder.path().join("hub"), 1);
    let answers = [
        (post(&hub, &hub.api_key, 100 << 20, 1 << 20), "413", "body_too_large"),
        (post(&hub, "tsk_0000", 2, 2), "401", "key_"),
        (post(&hub, &hub.api_key, 10, 10), "400", "hint"),
    ];
    for (answer, status, word) in answers {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(word) && answer.contains("application/problem+json"), "{answer}");
    }
    let unknown = hub.tessera(&["job", "show", "job_00000000000000000000000000000000"]);
    assert!(!unknown.status.success() && text(&unknown).contains("no job"), "{unknown:?}");
    assert_eq!(hub.json(&["job", "list"])["jobs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_full_disk_stops_new_work_with_a_reason_and_passes_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    let mount = folder.path().join("disk");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
        .arg(&mount)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        return println!("not allowed to mount a small disk: not tested");
    }
    let unmount = Unmount(&mount);
    let hub = Hub::start(&mount.join("hub"), 1);
    let filler = mount.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let job = folder.path().join("job.toml");
    // Each job's name takes room, so that the store must grow.
    let content = "name = \"n\"\nworkload = \"monte_carlo\"\n[params]\nmodel = \"pi\"\npaths = 9\n";
    std::fs::write(&job, content).unwrap();
    let submit = || hub.tessera(&["submit", job.to_str().unwrap()]);
    let refused = until("the disk is full for the store too", || {
        let output = submit();
        (!output.status.success()).then_some(output)
    });
    assert!(text(&refused).contains("store"), "{}", text(&refused));
    let jobs = hub.json(&["job", "list"])["jobs"].as_array().map(Vec::len);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    until("the store writes again", || submit().status.success().then_some(()));
    assert_eq!(hub.json(&["job", "list"])["jobs"].as_array().map(Vec::len), jobs.map(|jobs| jobs + 1));
    drop(hub);
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_directory_without_permission_is_named() {
    let folder = TempDir::new().unwrap();
    let output = serve(Path::new("/proc/tessera"), &[]);
    assert!(!output.status.success());
    assert!(text(&output).contains("/proc/tessera"), "{}", text(&output));
    drop(folder);
}

#[test]
fn an_agent_with_a_spent_token_is_told_so_and_ends() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let token = hub.token();
    let agent = super::Agent::start(&hub.quic, &folder.path().join("first"), &token);
    until("the first agent is connected", || (hub.connected().len() == 1).then_some(()));
    let output = Command::new(program("agent"))
        .args(["--hub", &hub.quic, "--token", &token, "--data"])
        .arg(folder.path().join("second"))
        .output()
        .expect("the agent starts");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("each works once"), "{}", text(&output));
    drop(agent);
}

#[test]
fn a_token_that_a_start_printed_is_void_after_the_next_start() {
    let folder = TempDir::new().unwrap();
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let old = hub.token();
    hub.crash_and_restart();
    let output = Command::new(program("agent"))
        .args(["--hub", &hub.quic, "--token", &old, "--data"])
        .arg(folder.path().join("agent"))
        .output()
        .expect("the agent starts");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("did not issue this token"), "{}", text(&output));
}
