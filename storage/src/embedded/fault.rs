//! What went wrong in `redb`, sorted by what a person can do about it.
//!
//! Owns the sorting. It may not touch a file.

use crate::engine::{Cause, CommitError, ReadError};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A failure of the file under the engine.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    DiskFull(Cause),
    Denied(Cause),
    Corrupt(Cause),
    Interrupted,
    Io(Cause),
}

/// Whether the disk, a quota or the largest allowed file is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Whether this user or a read-only disk stands in the way.
pub(super) fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Does `work` in `redb`, which panics on some damaged pages where it should answer.
///
/// Whoever calls it drops the database after a fault, so nothing half-changed is looked at again.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(Fault::from),
        Err(panic) => Err(Fault::Corrupt(Arc::new(Panicked::new(&*panic)))),
    }
}

/// What `redb` said as it gave up on a damaged page.
#[derive(Debug)]
struct Panicked {
    message: String,
}

impl Panicked {
    fn new(panic: &(dyn Any + Send)) -> Panicked {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Panicked { message: text.unwrap_or("no message").to_owned() }
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a page makes no sense: {}", self.message)
    }
}

impl Error for Panicked {}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(error) if is_full(&error) => Fault::DiskFull(Arc::new(error)),
            redb::Error::Io(error) if is_denied(&error) => Fault::Denied(Arc::new(error)),
            // How `redb` says that the file does not start as one of its own, or ends too early.
            redb::Error::Io(error)
                if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Fault::Corrupt(Arc::new(error))
            }
            redb::Error::Io(error) => Fault::Io(Arc::new(error)),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => Fault::Interrupted,
            damaged @ (redb::Error::Corrupted(_)
            | redb::Error::RepairAborted
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }) => Fault::Corrupt(Arc::new(damaged)),
            other => Fault::Io(Arc::new(other)),
        }
    }
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> ReadError {
        match fault {
            Fault::Interrupted => ReadError::Interrupted,
            Fault::Corrupt(cause) => ReadError::Corrupt(cause),
            Fault::DiskFull(cause) | Fault::Denied(cause) | Fault::Io(cause) => ReadError::Io(cause),
        }
    }
}

impl From<Fault> for CommitError {
    fn from(fault: Fault) -> CommitError {
        match fault {
            Fault::DiskFull(cause) => CommitError::DiskFull(cause),
            Fault::Denied(cause) => CommitError::Denied(cause),
            Fault::Corrupt(cause) => CommitError::Corrupt(cause),
            Fault::Interrupted => CommitError::Interrupted,
            Fault::Io(cause) => CommitError::Io(cause),
        }
    }
}
