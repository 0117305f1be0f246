//! Stores into files and back, and everything that can be in the way.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::ops::control::Control;
use crate::ops::copy::{self, FillError};
use crate::ops::migrate::{MigrateError, migrate};
use tempfile::TempDir;
use tessera_storage::format::claim;
use tessera_storage::{Batch, Commit, CommitError, Engine, Memory};

/// A store with entries of many sizes, and its directory.
fn store(folder: &TempDir, name: &str) -> PathBuf {
    let data = folder.path().join(name);
    let engine = Embedded::open(&data).unwrap();
    for number in 0..40_u32 {
        let mut batch = Batch::new();
        batch.put(format!("t/{number}"), vec![number as u8; 2_000 * number as usize]);
        batch.put_chunked(format!("u/{number}").as_bytes(), &[number as u8; 70_000]);
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }
    data
}

fn content(data: &Path) -> (u64, blake3::Hash) {
    copy::sum(&*source::open(data).unwrap().snapshot().unwrap()).unwrap()
}

fn listed(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_restores_to_the_same_entries_and_only_its_owner_may_read_it() {
    let folder = TempDir::new().unwrap();
    let (data, file, again) = (store(&folder, "hub"), folder.path().join("b"), folder.path().join("again"));
    let written = backup(&data, &file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(written.bytes, fs::metadata(&file).unwrap().len());
    assert_eq!(restore(&file, &again).unwrap(), written);
    assert_eq!(content(&again), content(&data));
    drop(Embedded::open(&again).unwrap());
    let second = backup(&again, &file).unwrap();
    assert_eq!(second.entries, written.entries, "it took the place of the first");
    assert_eq!(listed(folder.path()), ["again", "b", "hub"], "nothing is left beside it");
}

#[test]
fn a_hub_that_runs_gives_a_backup_of_one_moment_through_its_socket() {
    let folder = TempDir::new().unwrap();
    // A socket's name may have 107 bytes.
    let (data, file) = (store(&folder, &"long".repeat(40)), folder.path().join("b"));
    let before = content(&data);
    let engine: Arc<dyn Engine> = Arc::new(Embedded::open(&data).unwrap());
    let unasked = backup(&data, &file).unwrap_err();
    assert!(matches!(unasked, BackupError::Running { .. }), "{unasked}");
    let control = Control::start(engine.clone(), &data).unwrap();
    backup(&data, &file).unwrap();
    let mut batch = Batch::new();
    batch.put("t/later", "x");
    assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    drop(control);
    assert!(!data.join("control").exists(), "the socket went with it");
    drop(engine);
    restore(&file, &folder.path().join("again")).unwrap();
    assert_eq!(content(&folder.path().join("again")), before);
}

#[test]
fn a_hub_that_stops_in_the_middle_of_a_backup_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let data = store(&folder, "hub");
    let engine: Arc<dyn Engine> = Arc::new(Embedded::open(&data).unwrap());
    let control = Control::start(engine, &data).unwrap();
    let mut asked = control::ask(&data).unwrap();
    let mut first = [0; 100];
    asked.read_exact(&mut first).unwrap();
    let stopping = std::thread::spawn(move || drop(control));
    // More than a socket holds is on its way, so the hub waits for its reader and then sees that it is to stop.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let rest = save(&folder.path().join("b"), |to| {
        let all = first.chain(asked);
        io::copy(&mut { all }, to).unwrap();
        Ok(())
    });
    stopping.join().unwrap();
    let error = rest.unwrap_err();
    assert!(error.to_string().starts_with("the hub ended the backup behind block"), "{error}");
    assert_eq!(listed(folder.path()), ["hub"]);
}

#[test]
fn nothing_but_a_backup_is_ever_overwritten() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (store(&folder, "hub"), folder.path().join("notes"));
    fs::write(&file, "dear diary").unwrap();
    assert!(matches!(backup(&data, &file), Err(BackupError::Occupied { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"dear diary");
    assert!(matches!(backup(&data, folder.path()), Err(BackupError::Occupied { .. })));
    let nowhere = backup(&data, &folder.path().join("none/b")).unwrap_err();
    assert!(nowhere.to_string().contains("none/b"), "{nowhere}");
    let missing = backup(&folder.path().join("other"), &file).unwrap_err();
    assert!(missing.to_string().contains("no hub keeps its data"), "{missing}");
}

#[test]
fn a_backup_that_was_altered_or_cut_off_makes_no_store() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (store(&folder, "hub"), folder.path().join("b"));
    backup(&data, &file).unwrap();
    let whole = fs::read(&file).unwrap();
    let mut altered = whole.clone();
    altered[2_000_000] ^= 1;
    let again = folder.path().join("again");
    for (bytes, says) in [
        (altered, "block 1 was altered"),
        (whole[..whole.len() - 1].to_vec(), "cut off behind block"),
        (b"PK".to_vec(), "no backup of a hub"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = restore(&file, &again).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!again.exists());
    }
}

#[test]
fn a_backup_is_restored_only_where_nothing_is() {
    let folder = TempDir::new().unwrap();
    let (data, file) = (store(&folder, "hub"), folder.path().join("b"));
    backup(&data, &file).unwrap();
    let before = content(&data);
    let error = restore(&file, &data).unwrap_err();
    assert!(error.to_string().contains("there is something in it already"), "{error}");
    assert_eq!(content(&data), before);
    let other = folder.path().join("home");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter"), "x").unwrap();
    assert!(matches!(restore(&file, &other), Err(RestoreError::NotEmpty { .. })));
    assert_eq!(listed(&other), ["letter"]);
}

/// An engine whose process is killed after some commits.
struct Mortal<'a>(&'a dyn Engine, AtomicU64);

impl Engine for Mortal<'_> {
    fn name(&self) -> &'static str {
        "mortal"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.0.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        match self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => self.0.commit_all(batches),
            Err(_) => vec![Err(CommitError::Io(Arc::new(io::Error::other("killed"))))],
        }
    }
}

fn fill(engine: &dyn Engine, from: &dyn Snapshot) -> Result<(u64, blake3::Hash), FillError> {
    let mut filling = Filling::begin(engine)?;
    for entry in from.range(&KeyRange::prefix([]), usize::MAX)? {
        filling.put(entry)?;
    }
    filling.end()
}

#[test]
fn a_migration_killed_at_any_commit_is_no_store_and_is_started_again() {
    let folder = TempDir::new().unwrap();
    let data = store(&folder, "hub");
    let opened = source::open(&data).unwrap();
    let source = opened.snapshot().unwrap();
    let mut whole = 0;
    for lives in 0.. {
        let target = Memory::unclaimed();
        if fill(&Mortal(&target, AtomicU64::new(lives)), &*source).is_ok() {
            break;
        }
        whole = lives;
        if lives > 0 {
            assert!(matches!(claim(&target), Err(FormatError::Incomplete)), "{lives}");
        }
        let again = fill(&target, &*source);
        assert_eq!(again.unwrap_or_else(|error| panic!("{lives}: {error}")), copy::sum(&*source).unwrap());
        claim(&target).unwrap();
    }
    assert!(whole > 3, "one batch was all");
}

#[test]
fn a_store_is_moved_whole_and_the_old_one_stays() {
    let folder = TempDir::new().unwrap();
    let (data, target) = (store(&folder, "hub"), folder.path().join("new"));
    let moved = migrate(&data, target.to_str().unwrap()).unwrap();
    assert_eq!((moved.entries, moved.digest), content(&target));
    assert_eq!(content(&target), content(&data));
    drop(Embedded::open(&target).unwrap());
    let again = migrate(&data, target.to_str().unwrap()).unwrap_err();
    assert!(again.to_string().contains("name an empty one"), "{again}");
    assert!(matches!(migrate(&data, "fdb:fdb.cluster"), Err(MigrateError::NoEngine { .. })));
}
