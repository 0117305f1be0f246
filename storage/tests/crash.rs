//! A process that is killed while it commits: what it was told is done is there, and nothing is half there.
//!
//! The test runs itself again as the process to be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tessera_storage::{Batch, Commit, Embedded, Engine, KeyRange};

const DIRECTORY: &str = "TESSERA_TEST_STORE";
const CYCLES: u64 = 24;
const VALUES: u64 = 3;
const VALUE_BYTES: usize = 150_000;

/// Turn `turn`: two counters, two keys of its own, a large value that it rewrites, and a batch of the
/// same group that must conflict.
fn turn_group(turn: u64) -> Vec<Batch> {
    let mut whole = Batch::new();
    whole.expect_absent(key("a", turn)).put(key("a", turn), turn.to_le_bytes()).add("t/count", 1);
    whole.put_chunked(format!("t/large/{}", turn % VALUES).as_bytes(), &large(turn));
    whole.put(key("b", turn), turn.to_le_bytes());
    let mut refused = Batch::new();
    refused.expect_absent(key("a", turn)).put("t/refused", "");
    let mut second = Batch::new();
    second.expect_exists(key("b", turn)).add("t/second", 1);
    vec![whole, refused, second]
}

fn key(family: &str, turn: u64) -> Vec<u8> {
    [b"t/", family.as_bytes(), b"/", &turn.to_be_bytes()].concat()
}

fn large(turn: u64) -> Vec<u8> {
    turn.to_le_bytes().repeat(VALUE_BYTES / 8)
}

fn number(engine: &dyn Engine, key: &str) -> u64 {
    let value = engine.snapshot().unwrap().get(key.as_bytes()).unwrap();
    value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

/// Not a test of its own: the process that is killed. Says `ack N` when turn N is durable.
#[test]
#[ignore = "the process that the other test kills"]
fn commits_until_it_is_killed() {
    let directory = std::env::var(DIRECTORY).expect("run by the other test");
    let engine = Embedded::open(Path::new(&directory)).unwrap();
    for turn in number(&engine, "t/count").. {
        let outcomes = engine.commit_all(turn_group(turn));
        assert!(matches!(outcomes[0], Ok(Commit::Done)), "{outcomes:?}");
        assert!(matches!(outcomes[1], Ok(Commit::Conflict { .. })), "{outcomes:?}");
        assert!(matches!(outcomes[2], Ok(Commit::Done)), "{outcomes:?}");
        println!("ack {turn}");
    }
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commits_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The last turn that was acknowledged before the process was killed after `delay`.
fn run_and_kill(directory: &Path, delay: Duration) -> Option<u64> {
    let mut child = start(directory);
    let stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.filter_map(|line| line.rsplit_once("ack ")?.1.parse().ok()).last()
    });
    thread::sleep(delay);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), None, "the process ended by itself: {status}");
    reader.join().unwrap()
}

fn check(engine: &dyn Engine, acknowledged: Option<u64>) -> u64 {
    let count = number(engine, "t/count");
    assert!(acknowledged.is_none_or(|last| last < count), "turn {acknowledged:?} is lost, {count} are there");
    assert_eq!(number(engine, "t/second"), count, "a group is half there");
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(snapshot.get(b"t/refused").unwrap(), None);
    for family in ["a", "b"] {
        let mut turns = Vec::new();
        let range = KeyRange::prefix(format!("t/{family}/"));
        snapshot.walk(&range, &mut |entry| turns.push((entry.key, entry.value))).unwrap();
        let expected: Vec<_> =
            (0..count).map(|turn| (key(family, turn), turn.to_le_bytes().to_vec())).collect();
        assert_eq!(turns, expected, "keys {family} of {count} turns");
    }
    for turn in count.saturating_sub(VALUES)..count {
        let value = snapshot.get_chunked(format!("t/large/{}", turn % VALUES).as_bytes()).unwrap();
        assert!(value == Some(large(turn)), "the large value of turn {turn} is torn");
    }
    count
}

#[test]
fn what_was_acknowledged_before_kill_9_is_there_afterwards_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = 0;
    // From a kill before the store exists to kills among many commits; spread by a small hash.
    for cycle in 0..CYCLES {
        let delay = Duration::from_micros(cycle * 10_000 + cycle.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 7_919);
        let acknowledged = run_and_kill(directory.path(), delay);
        let engine = Embedded::open(directory.path()).expect("a store survives kill -9");
        let count = check(&engine, acknowledged);
        assert!(count >= seen, "{} turns vanished", seen - count);
        seen = count;
    }
    println!("{seen} turns in {CYCLES} cycles");
    assert!(seen > CYCLES, "the process was killed before it did anything: {seen} turns");
}

#[test]
fn a_store_that_dies_while_it_is_made_is_made_again() {
    // A fresh directory each time: the kill falls between the first system calls of `open`.
    for step in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let acknowledged = run_and_kill(directory.path(), Duration::from_micros(1_000 + step * 400));
        let engine = Embedded::open(directory.path()).expect("a half-made store does not stand in the way");
        check(&engine, acknowledged);
    }
}
