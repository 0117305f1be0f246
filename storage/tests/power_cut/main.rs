//! The embedded engine on a disk that loses what was not synced, tears it, and fails.
//!
//! Each seed is a store's life: groups of batches, a trouble at an operation of the disk drawn from the
//! seed, the store opened again, and so on. After each, all that was acknowledged is there, every other
//! batch is there wholly or not at all, and none without those before it.

mod disk;
mod history;

use std::sync::{Mutex, PoisonError};
use std::thread;

use disk::{Defect, Dice, Disk, Trouble};
use history::{Broken, History, group};
use tessera_storage::embedded::store::Store;
use tessera_storage::{Batch, Commit, CommitError, Engine, ReadError, Snapshot};

/// More where `TESSERA_POWER_CUT_SEEDS` says so.
const SEEDS: u64 = 200;
/// Enough to meet each defect many times.
const DEFECT_SEEDS: u64 = 60;
const LIVES: u64 = 4;
const GROUPS_MAX: u64 = 12;
/// An operation of the disk within a life; a commit is about ten.
const OPERATIONS: u64 = 150;
/// Enough for a store to be open again after any trouble but a defect.
const ATTEMPTS: usize = 8;

fn seeds() -> u64 {
    let named = std::env::var("TESSERA_POWER_CUT_SEEDS").ok();
    named.map_or(SEEDS, |text| text.parse().expect("TESSERA_POWER_CUT_SEEDS is a number"))
}

/// What stands between the test and the store.
#[derive(Clone, Copy)]
enum Judge {
    /// Nothing.
    Honest,
    /// One that says "done" before it has committed.
    Hasty,
}

/// Says "done" and commits with the next group.
struct Hasty {
    engine: Store<Disk>,
    waiting: Mutex<Vec<Batch>>,
}

impl Engine for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.engine.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::replace(&mut *waiting, batches.clone());
        if self.engine.commit_all(earlier).iter().any(Result::is_err) {
            return batches.iter().map(|_| Err(CommitError::Interrupted)).collect();
        }
        batches.iter().map(|_| Ok(Commit::Done)).collect()
    }
}

fn open(disk: &Disk, judge: Judge) -> Result<Box<dyn Engine>, ReadError> {
    let engine = Store::open(disk.clone())?;
    Ok(match judge {
        Judge::Honest => Box::new(engine),
        Judge::Hasty => Box::new(Hasty { engine, waiting: Mutex::default() }),
    })
}

/// Runs one seed: lives that end in a power cut, with `troubles` in the middle of them.
fn live(new: &Disk, seed: u64, troubles: &[Trouble], defect: Defect, judge: Judge) -> Result<u64, Broken> {
    let mut dice = Dice::new(seed);
    let disk = new.copy(defect, Dice::new(!seed));
    let mut history = History::new();
    let mut struck = 0;
    for _ in 0..LIVES {
        let trouble = troubles[dice.below(troubles.len() as u64) as usize];
        disk.arm(1 + dice.below(OPERATIONS), trouble);
        // The trouble may come as early as here; then nothing was asked. If it has not come by the end,
        // the cut finds a store that was closed in good order.
        if let Ok(engine) = open(&disk, judge) {
            work(&*engine, &mut history, &mut dice, trouble)?;
        }
        struck += u64::from(disk.has_struck());
        disk.cut_power();
        // A second cut in the middle of the recovery from the first.
        if dice.below(3) == 0 {
            disk.arm(1 + dice.below(40), Trouble::Cut);
            drop(open(&disk, judge));
            disk.cut_power();
        }
        let engine = open(&disk, judge).map_err(Broken::Unreadable)?;
        history.check(&*engine)?;
    }
    Ok(struck)
}

/// Commits groups; where one is refused, reads back what came of it, as a hub does, and goes on.
fn work(engine: &dyn Engine, history: &mut History, dice: &mut Dice, trouble: Trouble) -> Result<(), Broken> {
    for _ in 0..dice.below(GROUPS_MAX) {
        if history.commit(engine, group(dice))? {
            continue;
        }
        if trouble == Trouble::Cut {
            return Ok(());
        }
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            outcome = history.check(engine);
            if !matches!(outcome, Err(Broken::Unreadable(_))) {
                break;
            }
        }
        outcome?;
    }
    Ok(())
}

/// Runs so many seeds on a few threads; answers how many troubles struck, and the seeds that broke.
fn run(seeds: u64, troubles: &[Trouble], defect: Defect, judge: Judge) -> (u64, Vec<(u64, Broken)>) {
    let new = Disk::with_store();
    let threads = 4;
    let part = |first: u64| {
        let (mut struck, mut broken) = (0, Vec::new());
        for seed in (first..seeds).step_by(threads as usize) {
            match live(&new, seed, troubles, defect, judge) {
                Ok(more) => struck += more,
                Err(error) => broken.push((seed, error)),
            }
        }
        (struck, broken)
    };
    thread::scope(|scope| {
        let part = &part;
        let running: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        let parts = running.into_iter().map(|thread| thread.join().expect("a part of the seeds"));
        parts.fold((0, Vec::new()), |(struck, mut all), (more, broken)| {
            all.extend(broken);
            (struck + more, all)
        })
    })
}

fn assert_survived(troubles: &[Trouble]) {
    let (struck, broken) = run(seeds(), troubles, Defect::None, Judge::Honest);
    println!("{} seeds, {struck} troubles struck, {} broken", seeds(), broken.len());
    assert!(struck > seeds(), "the troubles hardly ever came: {struck}");
    let said: Vec<String> = broken.iter().map(|(seed, error)| format!("seed {seed}: {error}")).collect();
    assert!(broken.is_empty(), "{} of {} seeds broke\n{}", broken.len(), seeds(), said.join("\n"));
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_and_the_rest_is_whole_or_absent() {
    assert_survived(&[Trouble::Cut]);
}

#[test]
fn what_was_acknowledged_survives_failing_reads_writes_and_syncs_before_a_power_cut() {
    assert_survived(&[Trouble::Eio, Trouble::SyncFails, Trouble::ShortRead, Trouble::Full]);
}

#[test]
fn a_disk_whose_sync_does_nothing_is_caught() {
    let (_, broken) = run(DEFECT_SEEDS, &[Trouble::Cut], Defect::SyncsNothing, Judge::Honest);
    println!("{} of {} seeds", broken.len(), DEFECT_SEEDS);
    assert!(broken.len() as u64 > DEFECT_SEEDS / 2, "{} of {} seeds", broken.len(), DEFECT_SEEDS);
}

#[test]
fn an_acknowledgement_before_the_commit_is_caught() {
    let (_, broken) = run(DEFECT_SEEDS, &[Trouble::Cut], Defect::None, Judge::Hasty);
    let lost = |error: &Broken| matches!(error, Broken::Wrong { .. } | Broken::Misjudged { .. });
    println!("{} of {} seeds", broken.len(), DEFECT_SEEDS);
    let caught = broken.iter().filter(|(_, error)| lost(error)).count() as u64;
    assert!(caught > DEFECT_SEEDS / 2, "{caught} of {} seeds", DEFECT_SEEDS);
}

#[test]
fn trusting_what_memory_shows_after_a_failed_sync_is_caught() {
    let (_, broken) = run(DEFECT_SEEDS, &[Trouble::SyncFails], Defect::ForgetsNothing, Judge::Honest);
    println!("{} of {} seeds", broken.len(), DEFECT_SEEDS);
    assert!(!broken.is_empty(), "the system's memory was believed and nothing came of it");
}
