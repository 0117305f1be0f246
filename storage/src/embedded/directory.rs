//! The directory of an embedded store: who may enter, who is in, and which file is the store.
//!
//! Owns three names: `store.redb`, `store.redb.draft` while a store is being made, and `lock`. It
//! may not touch what is inside the store.

use super::fault::{Fault, is_denied, is_full};
use super::open_error::OpenError;
use super::store::Medium;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const STORE: &str = "store.redb";
const DRAFT: &str = "store.redb.draft";
const LOCK: &str = "lock";

/// Only the owner may enter: the store holds the hub's secrets.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The longest decimal process id. *Units*: bytes.
const PID_BYTES_MAX: u64 = 10;

/// How long a lock may be in the way before somebody is taken to use it.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A directory that no other process may use while this value lives.
pub(super) struct Directory {
    path: PathBuf,
    /// The lock ends when this is closed, by a drop or by the end of the process, however it comes.
    _lock: Option<File>,
}

impl Directory {
    /// Makes the directory if it is missing and takes its lock.
    pub(super) fn lock(path: &Path) -> Result<Directory, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        match made {
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) => {
                return Err(OpenError::NotADirectory { path: path.to_owned() });
            }
            made => made.map_err(|error| explain_io(path, error))?,
        }
        let lock_path = path.join(LOCK);
        let mut lock = private(&lock_path, false).map_err(|error| explain_io(&lock_path, error))?;
        take(path, &mut lock, File::try_lock)?;
        write_pid(&mut lock).map_err(|error| explain_io(&lock_path, error))?;
        Ok(Directory { path: path.to_owned(), _lock: Some(lock) })
    }

    /// Takes the lock of a directory that is only looked at, with others who look. Writes nothing.
    pub(super) fn look(path: &Path) -> Result<Directory, OpenError> {
        let lock_path = path.join(LOCK);
        let lock = match File::open(&lock_path) {
            Ok(mut lock) => {
                take(path, &mut lock, File::try_lock_shared)?;
                Some(lock)
            }
            // A store that was copied here without it: no hub has been started on it.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(explain_io(&lock_path, error)),
        };
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    pub(super) fn holds_store(&self) -> Result<bool, OpenError> {
        let path = self.store_path();
        path.try_exists().map_err(|error| explain_io(&path, error))
    }

    /// An empty file to make a store in; what a crash left of an earlier one is gone.
    pub(super) fn create_draft(&self) -> Result<File, OpenError> {
        let path = self.path.join(DRAFT);
        private(&path, true).map_err(|error| explain_io(&path, error))
    }

    /// Gives the finished draft the store's name, durably.
    pub(super) fn publish_draft(&self) -> Result<(), OpenError> {
        let store = self.store_path();
        let publish = || {
            fs::rename(self.path.join(DRAFT), &store)?;
            File::open(&self.path)?.sync_all()?;
            // The directory's own name must survive a power cut as well. Its parent may be another
            // user's, whom we cannot sync for.
            match self.path.canonicalize()?.parent().map(File::open) {
                Some(Ok(parent)) => parent.sync_all(),
                Some(Err(_)) | None => Ok(()),
            }
        };
        publish().map_err(|error| explain_io(&store, error))
    }

    /// Says what a failure to open the store means.
    pub(super) fn explain(&self, fault: Fault) -> OpenError {
        let path = self.store_path();
        match fault {
            Fault::DiskFull(source) => OpenError::DiskFull { path, source },
            Fault::Denied(source) => OpenError::Denied { path, source },
            Fault::Corrupt(source) => OpenError::Corrupt { file: path, source },
            Fault::Io(source) => OpenError::Io { path, source },
            Fault::Interrupted => OpenError::Io { path, source: Arc::new(redb::Error::PreviousIo) },
        }
    }
}

impl Medium for Directory {
    fn open(&self, builder: &redb::Builder) -> Result<redb::Database, redb::Error> {
        Ok(builder.open(self.store_path())?)
    }

    fn forget(&self) -> Result<(), redb::Error> {
        #[cfg(target_os = "linux")]
        {
            let file = File::open(self.store_path())?;
            // Drops the pages that the system takes for written: those of a failed sync are among them.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(io::Error::from)?;
        }
        Ok(())
    }
}

/// Takes a lock in one way or the other, or says who has it.
fn take(
    path: &Path,
    lock: &mut File,
    attempt: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<(), OpenError> {
    let started = Instant::now();
    while let Err(refused) = attempt(lock) {
        match refused {
            // A process that was just killed, or a child just forked, holds the lock a moment longer.
            TryLockError::WouldBlock if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            TryLockError::WouldBlock => {
                let pid = read_pid(lock);
                return Err(OpenError::AlreadyOpen { directory: path.to_owned(), pid });
            }
            TryLockError::Error(error) => return Err(explain_io(&path.join(LOCK), error)),
        }
    }
    Ok(())
}

fn explain_io(path: &Path, error: io::Error) -> OpenError {
    let path = path.to_owned();
    if is_denied(&error) {
        OpenError::Denied { path, source: Arc::new(error) }
    } else if is_full(&error) {
        OpenError::DiskFull { path, source: Arc::new(error) }
    } else {
        OpenError::Io { path, source: Arc::new(error) }
    }
}

/// Opens or makes a file that only this user may read.
fn private(path: &Path, emptied: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(emptied).mode(FILE_MODE).open(path)
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(std::process::id().to_string().as_bytes())
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    // Who only looks leaves the id of the last hub there.
    text.parse().ok().filter(|pid: &u32| Path::new("/proc").join(pid.to_string()).exists())
}
