//! Directories and disks that do not do what is asked: one clear answer each, and nothing half stored.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tessera_storage::format::FormatError;
use tessera_storage::{Batch, Commit, CommitError, Embedded, Engine, KeyRange, OpenError, format};

const DIRECTORY: &str = "TESSERA_TEST_STORE";
const NOBODY: u32 = 65_534;
const SMALL_DISK_BYTES: u64 = 8 << 20;

fn refused(directory: &Path) -> OpenError {
    match Embedded::open(directory) {
        Ok(_) => panic!("{} must not open", directory.display()),
        Err(error) => error,
    }
}

fn put(key: &str, value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

fn is_root() -> bool {
    // SAFETY: `geteuid` has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Holds back other tests that start processes or need their files to be closed. A process that one test starts has for a
/// moment open what any other has open: a file that is still written cannot be run, and one that is removed still takes
/// its room.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one of the ignored tests below in a process of its own, as another user where one is given.
fn run_again(test: &str, directory: &Path, user: Option<u32>) -> bool {
    use std::os::unix::process::CommandExt;
    let _alone = alone();
    // Another user may not reach the build directory, so the program goes where it can be reached.
    let program = directory.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIRECTORY, directory).current_dir("/");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.status().unwrap().success()
}

#[test]
fn a_new_store_is_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/store");
    let _engine = Embedded::open(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("store.redb")), 0o600);
}

#[test]
fn a_second_hub_on_the_same_directory_is_told_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = Embedded::open(directory.path()).unwrap();
    let error = refused(directory.path());
    assert!(matches!(error, OpenError::AlreadyOpen { pid: Some(pid), .. } if pid == std::process::id()));
    let message = error.to_string();
    assert!(message.contains(&format!("in use by process {}", std::process::id())), "{message}");
    drop(first);
    Embedded::open(directory.path()).expect("it opens once the first is gone");
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refused(&path);
        assert!(matches!(error, OpenError::NotADirectory { .. }), "{error:?}");
    }
}

#[test]
fn a_directory_without_permission_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let user = is_root().then_some(NOBODY);
    assert!(run_again("is_denied_the_directory", directory.path(), user));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
#[ignore = "run as another user by the test above"]
fn is_denied_the_directory() {
    let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
    for path in [directory.join("closed"), directory.join("closed/below")] {
        let error = refused(&path);
        assert!(matches!(error, OpenError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains("no permission for"), "{error}");
    }
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let good = {
        let engine = Embedded::open(directory.path()).unwrap();
        assert_eq!(engine.commit(put("t/a", b"1")).unwrap(), Commit::Done);
        drop(engine);
        fs::read(&file).unwrap()
    };
    let wiped_header = [vec![0xa5; 4096], good[4096..].to_vec()].concat();
    let damaged: [&[u8]; 5] = [b"", b"hello", &[7; 100_000], &good[..5000], &wiped_header];
    for bytes in damaged {
        fs::write(&file, bytes).unwrap();
        let error = refused(directory.path());
        assert!(matches!(error, OpenError::Corrupt { .. }), "{} bytes: {error:?}", bytes.len());
        assert!(error.to_string().contains("store.redb is damaged or no store"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "the evidence is kept");
    }
}

#[test]
fn flipped_bytes_never_bring_the_process_down() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let engine = Embedded::open(directory.path()).unwrap();
    for turn in 0..200u32 {
        let _ = engine.commit(put(&format!("t/{turn}"), &[turn as u8; 300])).unwrap();
    }
    drop(engine);
    let good = fs::read(&file).unwrap();
    let mut state = 1u64;
    let (mut noticed, mut harmless) = (0, 0);
    for _ in 0..150 {
        fs::write(&file, &good).unwrap();
        let mut damaged = OpenOptions::new().write(true).open(&file).unwrap();
        for _ in 0..40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            damaged.seek(SeekFrom::Start((state >> 20) % good.len() as u64)).unwrap();
            damaged.write_all(&[(state >> 8) as u8]).unwrap();
        }
        drop(damaged);
        let outcome =
            Embedded::open(directory.path()).map_err(|error| error.to_string()).and_then(|engine| {
                let snapshot = engine.snapshot().map_err(|error| error.to_string())?;
                snapshot.range(&KeyRange::prefix([]), usize::MAX).map_err(|error| error.to_string())?;
                engine.commit(put("t/after", b"1")).map_err(|error| error.to_string())
            });
        if outcome.is_err() { noticed += 1 } else { harmless += 1 }
    }
    println!("{noticed} noticed, {harmless} not");
    assert!(noticed > 0, "forty wrong bytes were never noticed");
}

#[test]
fn a_store_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let newer = (format::FORMAT + 1).to_be_bytes();
    {
        let engine = Embedded::open(directory.path()).unwrap();
        let _ = engine.commit(put("meta/format", &newer)).unwrap();
    }
    let error = refused(directory.path());
    let found = format::FORMAT + 1;
    assert!(
        matches!(error, OpenError::Format { source: FormatError::Other { found: other }, .. } if other == found)
    );
    assert!(error.to_string().contains("start the newer build"), "{error}");
}

/// Fills the store until it is refused; then nothing half stored may be there, reading goes on, and
/// after `make_room` so does writing.
fn fill_up(directory: &Path, make_room: impl FnOnce()) {
    let engine = Embedded::open(directory).unwrap();
    let fill = |turn: u32| {
        let mut batch = Batch::new();
        batch.put_chunked(format!("t/{turn:06}/").as_bytes(), &[turn as u8; 200_000]).add("t/count", 1);
        engine.commit(batch)
    };
    let (refused_at, error) =
        (0..10_000).find_map(|turn| Some((turn, fill(turn).err()?))).expect("a small disk is full some time");
    assert!(refused_at > 3, "refused at once");
    assert!(matches!(error, CommitError::DiskFull(_)), "{error:?}");
    assert!(error.to_string().contains("the disk under the data directory is full"), "{error}");

    let check = |count: u32| {
        let snapshot = engine.snapshot().expect("a full disk can be read");
        let counted = snapshot.get(b"t/count").unwrap().unwrap();
        assert_eq!(counted, u64::from(count).to_le_bytes());
        for turn in 0..count {
            let value = snapshot.get_chunked(format!("t/{turn:06}/").as_bytes()).unwrap();
            assert!(value == Some(vec![turn as u8; 200_000]), "turn {turn} is lost or torn");
        }
        let next = snapshot.range(&KeyRange::prefix(format!("t/{count:06}/")), 9).unwrap();
        assert_eq!(next, [], "the refused batch is half there");
    };
    check(refused_at);
    let again = fill(refused_at).expect_err("still full");
    assert!(matches!(again, CommitError::DiskFull(_)), "{again:?}");
    check(refused_at);
    make_room();
    assert_eq!(fill(refused_at).expect("there is room again"), Commit::Done);
    check(refused_at + 1);
    drop(engine);
    let engine = Embedded::open(directory).expect("it opens again");
    assert!(engine.snapshot().unwrap().get(b"t/count").unwrap().is_some());
}

/// A disk of its own, gone when this is dropped.
struct SmallDisk {
    path: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        let _alone = alone();
        let size = format!("size={SMALL_DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tessera"]).arg(path).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk { path: path.to_owned(), _alone })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

#[test]
fn a_full_disk_refuses_whole_batches_and_resumes_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        println!("no right to mount a small disk here; the limit on file sizes stands for it below");
        return;
    };
    let ballast = disk.path.join("ballast");
    fs::write(&ballast, vec![0; SMALL_DISK_BYTES as usize / 2]).unwrap();
    fill_up(&disk.path.join("store"), || fs::remove_file(&ballast).unwrap());
}

#[test]
fn the_largest_allowed_file_refuses_whole_batches_and_resumes() {
    let directory = tempfile::tempdir().unwrap();
    assert!(run_again("reaches_the_largest_allowed_file", directory.path(), None));
}

#[test]
#[ignore = "run in a process of its own by the test above, for it limits the whole process"]
fn reaches_the_largest_allowed_file() {
    let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
    let limit = |bytes: u64| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is a valid `rlimit` and outlives the call; `SIG_IGN` is no function of ours.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
    };
    limit(SMALL_DISK_BYTES);
    fill_up(&directory.join("store"), || limit(libc::RLIM_INFINITY));
}

#[test]
fn a_full_disk_at_the_first_start_is_named_and_the_next_start_works() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        println!("no right to mount a small disk here");
        return;
    };
    let ballast = disk.path.join("ballast");
    let _ = fs::write(&ballast, vec![0; SMALL_DISK_BYTES as usize - 16_384]);
    let store = disk.path.join("store");
    let error = refused(&store);
    assert!(matches!(error, OpenError::DiskFull { .. }), "{error:?}");
    fs::remove_file(&ballast).unwrap();
    Embedded::open(&store).expect("a half-made store does not stand in the way");
}
