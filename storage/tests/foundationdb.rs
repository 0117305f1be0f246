//! The FoundationDB engine against the one suite and against what clusters do, on the cluster that
//! `FDB_CLUSTER_FILE` names. `scripts/test-foundationdb` runs it.
//!
//! A program of its own: the client library starts once in a process and must be stopped at its end. Every
//! store lies under a random name, and is erased before and after.
//!
//! Arguments choose scenes by a part of their names. `TESSERA_FDB_RESTART` is a shell command that restarts the
//! cluster's servers; without it that scene is left out, and says so.

use std::cell::Cell;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tessera_storage::foundationdb::{Cluster, Network, OpenError, Place};
use tessera_storage::{
    Batch, Commit, CommitError, Engine, KeyRange, Memory, ReadError, Renewed, Snapshot, conformance, limits,
};

/// What a scene works with.
struct Stage {
    cluster_file: String,
    /// Before the name of every store.
    name: String,
}

type Scene = (&'static str, fn(&Stage));

const SCENES: [Scene; 9] = [
    ("conforms", conforms),
    ("keeps what it was given", keeps_what_it_was_given),
    ("does what the engine in memory does", does_what_memory_does),
    ("a group heavier than a transaction is judged in order", a_heavy_group_is_judged_in_order),
    ("of claims from several hubs one wins", one_of_many_hubs_wins),
    ("additions from several hubs do not conflict and all count", additions_all_count),
    ("a snapshot that is too old says so, and a renewed one reads on", an_old_snapshot_says_so),
    ("a cluster that cannot be reached is named, and nothing hangs", an_unreachable_cluster_is_named),
    ("what is acknowledged happened once while the servers restart", restarts_lose_and_double_nothing),
];

fn main() -> ExitCode {
    let Ok(cluster_file) = std::env::var("FDB_CLUSTER_FILE") else {
        eprintln!("FDB_CLUSTER_FILE names no cluster: set it to the path of a cluster file");
        return ExitCode::FAILURE;
    };
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut random = [0; 6];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let stage = Stage { cluster_file, name: format!("tessera-test-{hex}") };
    // Held to the end, so that scenes may close their stores.
    let network = Network::start().expect("the client library starts");
    for (name, scene) in SCENES {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(&**part)) {
            let started = Instant::now();
            println!("scene: {name}");
            scene(&stage);
            println!("scene: {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
        }
    }
    drop(network);
    println!("foundationdb: all scenes passed");
    ExitCode::SUCCESS
}

impl Stage {
    fn place(&self, store: &str) -> Place {
        Place::new(&self.cluster_file, &format!("{}-{store}", self.name)).expect("a name of a store")
    }

    /// Runs `scene` on a store that is empty before and gone afterwards.
    fn with(&self, store: &str, scene: impl FnOnce(&Place)) {
        let place = self.place(store);
        Cluster::erase(&place).expect("what was there is erased");
        scene(&place);
        Cluster::erase(&place).expect("the store is erased");
    }
}

fn open(place: &Place) -> Cluster {
    Cluster::open(place).expect("the store opens")
}

fn batch_of(fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new();
    fill(&mut batch);
    batch
}

/// Reads again when the snapshot has expired, as the client library makes up now and then when it is told to.
fn get(engine: &dyn Engine, key: &str) -> Option<Vec<u8>> {
    Renewed::new(engine).get(key.as_bytes()).expect("a read")
}

fn number(engine: &dyn Engine, key: &str) -> u64 {
    get(engine, key).map_or(0, |value| u64::from_le_bytes(value.try_into().expect("eight bytes")))
}

fn conforms(stage: &Stage) {
    let opened = Cell::new(0);
    conformance::run(&|| {
        opened.set(opened.get() + 1);
        let place = stage.place(&format!("suite-{}", opened.get()));
        Cluster::erase(&place).expect("what was there is erased");
        Box::new(open(&place))
    });
    for store in 1..=opened.get() {
        Cluster::erase(&stage.place(&format!("suite-{store}"))).expect("the store is erased");
    }
}

fn keeps_what_it_was_given(stage: &Stage) {
    stage.with("reopened", |place| conformance::survives_reopening(&|| Box::new(open(place))));
}

/// A small generator, so that a failure says a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn key(&mut self) -> Vec<u8> {
        let tail: Vec<u8> = (0..self.below(3)).map(|_| b'a' + self.below(3) as u8).collect();
        [b"t/".to_vec(), tail].concat()
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..self.below(6) {
            let key = self.key();
            let value = vec![self.below(2) as u8; self.below(12) as usize];
            match self.below(8) {
                0 => batch.expect_absent(key),
                1 => batch.expect_exists(key),
                2 => batch.expect_equals(key, value),
                3 => batch.delete(key),
                4 => batch.add(key, self.below(u64::MAX)),
                5 => {
                    let other = self.key();
                    batch.delete_range(KeyRange::new(key.clone().min(other.clone()), key.max(other)))
                }
                _ => batch.put(key, value),
            };
        }
        batch
    }
}

fn does_what_memory_does(stage: &Stage) {
    stage.with("model", |place| {
        let (cluster, memory) = (open(place), Memory::new());
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let group: Vec<Batch> = (0..1 + dice.below(6)).map(|_| dice.batch()).collect();
            let outcomes = |engine: &dyn Engine| -> Vec<Commit> {
                engine.commit_all(group.clone()).into_iter().map(|outcome| outcome.expect("judged")).collect()
            };
            assert_eq!(outcomes(&cluster), outcomes(&memory), "seed {seed}: {group:?}");
            let all = |engine: &dyn Engine| {
                engine
                    .snapshot()
                    .expect("a snapshot")
                    .range(&KeyRange::prefix("t/"), usize::MAX)
                    .expect("a range")
            };
            assert_eq!(all(&cluster), all(&memory), "seed {seed}: {group:?}");
        }
    });
}

fn a_heavy_group_is_judged_in_order(stage: &Stage) {
    stage.with("heavy", |place| {
        let cluster = open(place);
        let value = vec![7; limits::VALUE_BYTES_MAX];
        // 64 values of 100 kB, each put only if the one before it is there; and one batch near the limit alone.
        let mut group: Vec<Batch> = vec![batch_of(|batch| batch.put("t/00", ""))];
        for index in 1..=64 {
            let (before, key) = (format!("t/{:02}", index - 1), format!("t/{index:02}"));
            group.push(batch_of(|batch| batch.expect_exists(before).put(key, value.clone())));
        }
        let mut heaviest = Batch::new();
        heaviest.expect_exists("t/64");
        while heaviest.weight_bytes() < limits::BATCH_BYTES_MAX - 2 * limits::VALUE_BYTES_MAX {
            heaviest.put(format!("u/{:03}", heaviest.writes().len()), value.clone());
        }
        let puts = heaviest.writes().len();
        group.push(heaviest);
        for outcome in cluster.commit_all(group) {
            assert_eq!(outcome.expect("judged"), Commit::Done);
        }
        let snapshot = cluster.snapshot().expect("a snapshot");
        let found = snapshot.range(&KeyRange::prefix("t/"), usize::MAX).expect("a range of 6 MB");
        assert_eq!(found.len(), 65);
        assert!(found[1..].iter().all(|entry| entry.value == value));
        assert_eq!(snapshot.range(&KeyRange::prefix("u/"), 70).expect("a part").len(), 70);
        let mut walked = 0;
        snapshot.walk(&KeyRange::prefix("u/"), &mut |_| walked += 1).expect("a walk");
        assert_eq!(walked, puts);
    });
}

/// Hubs that share a store in the scenes below.
const HUBS: u64 = 3;

fn one_of_many_hubs_wins(stage: &Stage) {
    const ROUNDS: u64 = 50;
    stage.with("claims", |place| {
        let hubs: Vec<Cluster> = (0..HUBS).map(|_| open(place)).collect();
        let won: u64 = thread::scope(|scope| {
            let claim = |hub: &Cluster| {
                let claimed = |round: &u64| {
                    let key = format!("t/{round}");
                    let batch = batch_of(|batch| batch.expect_absent(&*key).put(&*key, "").add("t/wins", 1));
                    hub.commit(batch).expect("a claim is judged") == Commit::Done
                };
                (0..ROUNDS).filter(claimed).count() as u64
            };
            let threads: Vec<_> = hubs.iter().map(|hub| scope.spawn(move || claim(hub))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a hub ends")).sum()
        });
        assert_eq!(won, ROUNDS);
        assert_eq!(number(&hubs[0], "t/wins"), ROUNDS);
    });
}

fn additions_all_count(stage: &Stage) {
    const ADDITIONS: u64 = 100;
    stage.with("additions", |place| {
        let hubs: Vec<Cluster> = (0..HUBS).map(|_| open(place)).collect();
        thread::scope(|scope| {
            for hub in &hubs {
                scope.spawn(move || {
                    for _ in 0..ADDITIONS {
                        let batch = batch_of(|batch| batch.add("t/count", 1));
                        assert_eq!(hub.commit(batch).expect("an addition"), Commit::Done);
                    }
                });
            }
        });
        assert_eq!(number(&hubs[0], "t/count"), HUBS * ADDITIONS);
    });
}

fn an_old_snapshot_says_so(stage: &Stage) {
    stage.with("old", |place| {
        let cluster = open(place);
        assert_eq!(cluster.commit(batch_of(|batch| batch.put("t/a", "1"))).expect("a put"), Commit::Done);
        let (old, renewed) = (cluster.snapshot().expect("a snapshot"), Renewed::new(&cluster));
        let read = |store: &dyn Snapshot| store.get(b"t/a");
        assert_eq!(read(&*old).expect("while it is young").as_deref(), Some(&b"1"[..]));
        assert_eq!(read(&renewed).expect("while it is young").as_deref(), Some(&b"1"[..]));
        let deadline = Instant::now() + Duration::from_secs(60);
        // The cluster forgets a version some time after 5 s, when it has newer ones.
        let error = loop {
            match read(&*old) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&b"1"[..])),
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "a snapshot stays readable for a minute");
            assert_eq!(cluster.commit(batch_of(|batch| batch.add("t/n", 1))).expect("newer"), Commit::Done);
            thread::sleep(Duration::from_millis(500));
        };
        assert!(matches!(error, ReadError::Expired), "{error:?}");
        assert_eq!(read(&renewed).expect("a new snapshot").as_deref(), Some(&b"1"[..]));
    });
}

fn an_unreachable_cluster_is_named(_: &Stage) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("nowhere.cluster");
    std::fs::write(&file, "nowhere:nowhere@127.0.0.1:1\n").expect("a cluster file");
    let started = Instant::now();
    let place = Place::new(file.to_str().expect("a path in UTF-8"), "lost").expect("a place");
    let error = Cluster::open(&place).expect_err("nobody listens there");
    assert!(matches!(error, OpenError::Commit { source: CommitError::Cluster(_), .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("nowhere.cluster") && said.contains("does not answer"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    let missing = Place::new("/nowhere/fdb.cluster", "lost").expect("a place");
    assert!(matches!(Cluster::open(&missing), Err(OpenError::ClusterFile { .. })));
}

/// A hub that counts up, each step a condition on the one before, while the cluster's servers restart. After an
/// error it reads back, as a hub does, and never finds that what it read changes afterwards.
fn restarts_lose_and_double_nothing(stage: &Stage) {
    let Ok(restart) = std::env::var("TESSERA_FDB_RESTART") else {
        println!("left out: TESSERA_FDB_RESTART names no command that restarts the servers");
        return;
    };
    stage.with("restarts", |place| {
        let (ending, commits, failures) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for hub in 0..HUBS {
                let (ending, commits, failures) = (&ending, &commits, &failures);
                scope.spawn(move || count_up(place, hub, ending, commits, failures));
            }
            for _ in 0..3 {
                thread::sleep(Duration::from_secs(5));
                let status = Command::new("sh").args(["-c", &restart]).status().expect("a shell");
                assert!(status.success(), "{restart}: {status}");
            }
            thread::sleep(Duration::from_secs(20));
            ending.store(true, Ordering::Relaxed);
        });
        let (commits, failures) = (commits.into_inner(), failures.into_inner());
        println!("{commits} commits by {HUBS} hubs over three restarts, {failures} read back after an error");
        assert_eq!(number(&open(place), "t/all"), commits, "every step counts once");
        assert!(commits > 100, "the hubs went on after the restarts");
    });
}

fn count_up(place: &Place, hub: u64, ending: &AtomicBool, commits: &AtomicU64, failures: &AtomicU64) {
    let cluster = open(place);
    let key = format!("t/{hub}");
    let mut reached = 0u64;
    while !ending.load(Ordering::Relaxed) {
        let mut batch = Batch::new();
        match reached {
            0 => batch.expect_absent(&*key),
            _ => batch.expect_equals(&*key, reached.to_le_bytes()),
        };
        batch.put(&*key, (reached + 1).to_le_bytes()).add("t/all", 1);
        match cluster.commit(batch) {
            Ok(commit) => assert_eq!(commit, Commit::Done, "nobody else counts {key}"),
            Err(CommitError::Cluster(cause)) => {
                println!("{key}: {cause}");
                failures.fetch_add(1, Ordering::Relaxed);
                if read_back(&cluster, &key) == reached {
                    continue;
                }
            }
            Err(other) => panic!("{other}"),
        }
        reached += 1;
        commits.fetch_add(1, Ordering::Relaxed);
        assert_eq!(read_back(&cluster, &key), reached, "what is acknowledged or read back stays");
    }
}

/// Reads until the cluster answers again.
fn read_back(cluster: &Cluster, key: &str) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match cluster.snapshot().and_then(|snapshot| snapshot.get(key.as_bytes())) {
            Ok(found) => {
                return found.map_or(0, |value| u64::from_le_bytes(value.try_into().expect("eight bytes")));
            }
            Err(error) => assert!(Instant::now() < deadline, "the cluster stays away: {error}"),
        }
    }
}
