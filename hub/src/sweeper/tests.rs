//! The sweeper over stores that end, or to which somebody else writes.

use super::*;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tessera_protocol::api::JobState;
use tessera_protocol::id::JobId;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_storage::{Commit, CommitError, Family, Memory, ReadError, Snapshot};

use crate::blobs::{Blobs, Name, Place};
use crate::inputs::quota::Quotas;
use crate::inputs::wanted::Role;
use crate::inputs::{Presence, Stored, Uploads, piece_batch, upload_batch, whole_batch};
use crate::{records, retention};

fn shelf() -> Shelf {
    let blobs = Blobs::open(&Place::Memory).unwrap();
    Shelf { blobs, uploads: Uploads::default(), quotas: Quotas::default() }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const JOB: JobId = JobId([6; 16]);

fn put(blobs: &Blobs, input: Digest, number: u64) -> Stored {
    let blake3 = blobs.put(Name { blob: input, piece: number }, vec![1; 10].into()).unwrap();
    Stored { number, bytes: INPUT_PIECE_BYTES, blake3 }
}

fn part(blobs: &Blobs, input: Digest, number: u64, last: u64) -> Batch {
    upload_batch(input, &put(blobs, input, number), 100 * INPUT_PIECE_BYTES, UnixMillis(last))
}

#[test]
fn what_may_be_gone_on_with_is_kept_and_what_is_old_or_has_no_record_is_removed() {
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    let shelf = shelf();
    let blobs = &shelf.blobs;
    let [whole, orphan, fresh, old, busy] = [1, 2, 3, 4, 5].map(|number| Digest([number; 32]));
    let now = unix_ms();
    let long_ago = now - UNFINISHED_KEPT.as_millis() as u64;
    let mut batches = vec![
        piece_batch(whole, &put(blobs, whole, 0)),
        whole_batch(whole, 1, UnixMillis(now)),
        piece_batch(orphan, &put(blobs, orphan, 3)),
    ];
    batches.extend([part(blobs, fresh, 0, long_ago + 60_000), part(blobs, busy, 0, long_ago)]);
    // More than one batch removes.
    batches.extend((0..20).map(|number| part(blobs, old, number, long_ago)));
    for batch in batches {
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }
    let (journal, journal_thread) = Journal::start(engine.clone()).unwrap();
    let _place = shelf.uploads.begin(busy).unwrap();
    let (sweeper, thread) = Sweeper::start(
        engine.clone(),
        journal.clone(),
        (shelf.clone(), Arc::default()),
        Retention { blobs: DAY, finished: Policy::default() },
        false,
    )
    .unwrap();
    let kept = || {
        let snapshot = engine.snapshot().unwrap();
        let mut objects = Vec::new();
        blobs
            .list(|name, _| {
                objects.push(name.blob);
                true
            })
            .unwrap();
        [whole, orphan, fresh, old, busy].map(|input| {
            let has_pieces = !snapshot.range(&tessera_storage::pieces_of(input), 1).unwrap().is_empty();
            let received = inputs::presence(&*snapshot, input).unwrap().received();
            (has_pieces || objects.contains(&input), received)
        })
    };
    let expected = [(true, 1), (false, 0), (true, INPUT_PIECE_BYTES), (false, 0), (true, INPUT_PIECE_BYTES)];
    let started = Instant::now();
    while kept() != expected {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", kept());
        std::thread::sleep(Duration::from_millis(5));
    }
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(inputs::presence(&*snapshot, old).unwrap(), Presence::Absent);
    assert_eq!(snapshot.range(&Family::Uploads.range(), 9).unwrap().len(), 2);
    drop(sweeper);
    thread.join().unwrap();
    journal.stop();
    journal_thread.join().unwrap();
}

/// A store whose disk fails for ever after some commits: to whoever uses it, as if the hub were killed there.
#[derive(Default)]
struct Cut {
    store: Memory,
    commits_left: AtomicUsize,
    /// What somebody else writes just before the first of them.
    meanwhile: Mutex<Option<Batch>>,
}

impl Engine for Cut {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.store.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        if let Some(batch) = self.meanwhile.lock().unwrap().take() {
            assert_eq!(self.store.commit(batch).unwrap(), Commit::Done);
        }
        let one = |batch| {
            let left = |left: usize| left.checked_sub(1);
            match self.commits_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
                Ok(_) => self.store.commit(batch),
                Err(_) => Err(CommitError::Interrupted),
            }
        };
        batches.into_iter().map(one).collect()
    }
}

/// Sweeps as a hub that starts does, over a store that takes so many commits.
fn sweep(engine: &Arc<Cut>, commits: usize, shelf: &Shelf, is_ending: bool, look: impl Fn(&Sweep)) {
    engine.commits_left.store(commits, Ordering::Relaxed);
    let (journal, journal_thread) = Journal::start(engine.clone()).unwrap();
    let (ending, ended) = sync_channel(0);
    let store: Arc<dyn Engine> = engine.clone();
    let sweep = Sweep {
        store,
        journal: journal.clone(),
        shelf: shelf.clone(),
        views: Arc::default(),
        grace: DAY,
        finished: Policy { default: Some(DAY), ..Policy::default() },
        ended,
        shared: false,
        seen: RefCell::default(),
        is_clear: Cell::default(),
    };
    let kept = (!is_ending).then_some(ending);
    look(&sweep);
    drop(kept);
    journal.stop();
    journal_thread.join().unwrap();
}

fn sweep_once(engine: &Arc<Cut>, commits: usize, shelf: &Shelf, is_ending: bool, now: UnixMillis) {
    sweep(engine, commits, shelf, is_ending, |sweep| {
        sweep.abandoned().unwrap();
        sweep.unwanted(now).unwrap();
    });
}

fn finished_job(number: u8) -> JobId {
    JobId::new(5, [number; 10])
}

/// More finished jobs than one group takes, each with records beside it; the first has most.
fn finished_jobs(engine: &Memory, numbers: Range<u8>) {
    for number in numbers {
        let job = finished_job(number);
        let mut batch = Batch::new();
        batch.put(Key::Job(job), records::test_job(job, JobState::Done));
        for whole in [Key::Manifest(job), Key::Result(job), Key::Bill(job)] {
            batch.put_chunked(&whole.encode(), &[1; 100]);
        }
        for tile in 0..if number == 0 { 400 } else { 2 } {
            batch.put_chunked(&Key::Tile { job, tile }.encode(), &[1; 10]);
        }
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }
}

/// How many values there are of what goes with a job.
fn left(engine: &Cut) -> usize {
    let snapshot = engine.snapshot().unwrap();
    let count = |family: Family| snapshot.range(&family.range(), usize::MAX).unwrap().len();
    [Family::Jobs, Family::Manifests, Family::Results, Family::Tiles].into_iter().map(count).sum()
}

#[test]
fn finished_jobs_go_in_groups_and_wherever_the_hub_was_killed_the_next_one_goes_on() {
    let now = UnixMillis(6 + DAY.as_millis() as u64);
    let commits = |cut: usize| {
        let engine = Arc::new(Cut::default());
        finished_jobs(&engine.store, 0..40);
        sweep(&engine, cut, &shelf(), false, |sweep| sweep.finished(now).unwrap());
        let made = cut - engine.commits_left.load(Ordering::Relaxed);
        if made < cut {
            assert_eq!(left(&engine), 0);
        }
        sweep(&engine, usize::MAX, &shelf(), false, |sweep| {
            sweep.finished(now).unwrap();
            assert_eq!(left(&engine), 0, "cut after {cut}");
            assert!(sweep.is_clear.get(), "cut after {cut}");
            // What it remembers does not keep later jobs from going.
            let before = engine.commits_left.load(Ordering::Relaxed);
            sweep.finished(now).unwrap();
            assert_eq!(engine.commits_left.load(Ordering::Relaxed), before, "there is nothing to do");
            finished_jobs(&engine.store, 50..52);
            sweep.finished(now).unwrap();
            assert_eq!(left(&engine), 0);
        });
        made
    };
    let whole = commits(usize::MAX);
    assert!(whole > 3 * 40, "a prune, and at least two parts for each job: {whole}");
    (0..whole).step_by(7).for_each(|cut| assert_eq!(commits(cut), cut));
}

#[test]
fn a_job_from_which_another_goes_on_at_the_last_moment_stays_until_that_has_ended() {
    let now = UnixMillis(6 + DAY.as_millis() as u64);
    let engine = Arc::new(Cut::default());
    finished_jobs(&engine.store, 0..40);
    let (parent, child) = (finished_job(7), JobId::new(6, [99; 10]));
    let mut extend = Batch::new();
    retention::put_extension(&mut extend, parent, child);
    *engine.meanwhile.lock().unwrap() = Some(extend);
    let jobs = || engine.snapshot().unwrap().range(&Family::Jobs.range(), 99).unwrap();
    sweep(&engine, usize::MAX, &shelf(), false, |sweep| {
        for look in 0..2 {
            sweep.finished(now).unwrap();
            let left: Vec<_> = jobs().into_iter().map(|entry| entry.key).collect();
            assert_eq!(left, [Key::Job(parent).encode()], "look {look}");
        }
        let mut ended = Batch::new();
        ended.delete(Key::Extension { parent, child });
        assert_eq!(engine.store.commit(ended).unwrap(), Commit::Done);
        sweep.finished(now).unwrap();
        assert_eq!(jobs(), []);
    });
}

#[test]
fn it_looks_as_often_as_the_shortest_time_says_within_bounds() {
    let every = |default| look_interval(&Policy { default, ..Policy::default() });
    let second = Duration::from_secs(1);
    assert_eq!([every(None), every(Some(DAY))], [600 * second; 2]);
    assert_eq!([every(Some(second)), every(Some(40 * second))], [10 * second, 40 * second]);
}

/// Blobs that are here, each of which can be read whole.
fn readable(engine: &dyn Engine, blobs: &Blobs) -> Vec<Digest> {
    let snapshot = engine.snapshot().unwrap();
    let entries = snapshot.range(&Family::Inputs.range(), 99).unwrap();
    let here = entries.iter().map(|entry| match Key::decode(&entry.key) {
        Ok((Key::Input(blob), _)) => blob,
        other => panic!("{other:?}"),
    });
    let here: Vec<Digest> = here.collect();
    for blob in &here {
        let bytes = inputs::length(&*snapshot, *blob).unwrap().unwrap();
        for offset in (0..bytes).step_by(INPUT_PIECE_BYTES as usize) {
            let piece = inputs::piece(&*snapshot, blobs, *blob, offset).unwrap();
            assert!(piece.is_some(), "the piece at {offset} of {blob}, whose record is here");
        }
    }
    here
}

#[test]
fn a_hub_killed_anywhere_in_a_removal_leaves_whole_blobs_or_what_the_next_one_removes() {
    let now = UnixMillis(unix_ms());
    let old = UnixMillis(now.0 - DAY.as_millis() as u64);
    let [unwanted, needed, young] = [1, 2, 3].map(|number| Digest([number; 32]));
    let mut states = BTreeSet::new();
    for (commits, is_ending) in (0..8).flat_map(|commits| [(commits, false), (commits, true)]) {
        let engine = Arc::new(Cut { commits_left: AtomicUsize::new(999), ..Cut::default() });
        let blobs = Blobs::open(&Place::Memory).unwrap();
        let shelf = Shelf { blobs: blobs.clone(), ..shelf() };
        for (blob, used) in [(unwanted, old), (needed, old), (young, now)] {
            let pieces = (0..20).map(|number| piece_batch(blob, &put(&blobs, blob, number)));
            let whole = whole_batch(blob, 20 * INPUT_PIECE_BYTES, used);
            for batch in pieces.chain([whole]) {
                assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
            }
        }
        let job = crate::records::test_job(JOB, JobState::Done);
        let mut batch = Batch::new();
        batch.put(Key::Job(JOB), job);
        wanted::put_reference(&mut batch, JOB, needed, Role::Input);
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);

        sweep_once(&engine, commits, &shelf, is_ending, now);
        let here = readable(&*engine, &blobs);
        assert!(here.contains(&needed) && here.contains(&young), "{commits} commits: {here:?}");
        let mut objects = 0;
        blobs
            .list(|name, _| {
                objects += usize::from(name.blob == unwanted);
                true
            })
            .unwrap();
        states.insert((here.contains(&unwanted), objects));

        sweep_once(&engine, 999, &shelf, false, now);
        assert_eq!(readable(&*engine, &blobs), [needed, young]);
        let mut kept = BTreeSet::new();
        blobs
            .list(|name, _| {
                kept.insert(name.blob);
                true
            })
            .unwrap();
        assert_eq!(kept, BTreeSet::from([needed, young]), "{commits} commits");
        let pieces = tessera_storage::pieces_of(unwanted);
        assert_eq!(engine.snapshot().unwrap().range(&pieces, 1).unwrap(), []);
    }
    assert!(states.len() >= 3, "the cuts fell in different places: {states:?}");
}

#[test]
fn a_blob_goes_once_the_last_job_that_counts_is_gone_and_not_if_it_is_used_at_the_last_moment() {
    let engine = Arc::new(Cut { commits_left: AtomicUsize::new(999), ..Cut::default() });
    let shelf = shelf();
    let now = UnixMillis(unix_ms());
    let (input, product) = (Digest([1; 32]), Digest([2; 32]));
    let commit = |batch| assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    for (blob, role) in [(input, Role::Input), (product, Role::Product)] {
        commit(piece_batch(blob, &put(&shelf.blobs, blob, 0)));
        let mut batch = whole_batch(blob, 10, UnixMillis(0));
        wanted::put_reference(&mut batch, JOB, blob, role);
        commit(batch);
    }
    let of_state = |state| {
        let mut batch = Batch::new();
        batch.put(Key::Job(JOB), crate::records::test_job(JOB, state));
        batch
    };
    let sweep = || {
        sweep_once(&engine, 999, &shelf, false, now);
        readable(&*engine, &shelf.blobs)
    };
    for state in [JobState::Queued, JobState::Running, JobState::Done] {
        commit(of_state(state));
        assert_eq!(sweep(), [input, product], "{state:?}");
    }
    commit(of_state(JobState::Failed));
    assert_eq!(sweep(), [input], "what a failed job made is of no use");
    let mut gone = Batch::new();
    gone.delete(Key::Job(JOB));
    commit(gone);
    let snapshot = engine.snapshot().unwrap();
    let Step::Remove { batch: removal, .. } = wanted::step(&*snapshot, input, now, DAY).unwrap() else {
        panic!("nobody wants it")
    };
    let found = inputs::whole(&*snapshot, input).unwrap().unwrap();
    commit(wanted::use_batch(input, found, now, DAY).unwrap());
    assert!(matches!(engine.commit(removal).unwrap(), Commit::Conflict { .. }));
    assert_eq!(sweep(), [input], "it is wanted for another grace period");
    let found = inputs::whole(&*engine.snapshot().unwrap(), input).unwrap().unwrap();
    assert!(wanted::use_batch(input, found, now, DAY).is_none(), "a use is not written twice a moment");
    let later = UnixMillis(now.0 + DAY.as_millis() as u64);
    sweep_once(&engine, 999, &shelf, false, later);
    assert_eq!(readable(&*engine, &shelf.blobs), []);
}
