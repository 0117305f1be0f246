//! The interface every engine offers: consistent snapshots, conditional commits, group commit.
//!
//! Owns the traits [`Engine`] and [`Snapshot`] and their errors. It may not touch a file: the
//! engines do.

use crate::batch::{Batch, LimitError, Quoted};
use crate::{chunked, limits};
use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A store of ordered keys. Many threads may use it at once; commits happen one after another.
pub trait Engine: Send + Sync {
    /// What to call this engine in messages.
    fn name(&self) -> &'static str;

    /// What the store takes of the disk, where the engine can tell. *Units*: bytes.
    fn stored_bytes(&self) -> Option<u64> {
        None
    }

    /// The store as it is now; later commits do not show in it.
    ///
    /// *Errors*: see [`ReadError`].
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError>;

    /// Judges and applies many independent batches with one wait for the disk.
    ///
    /// Each batch is all or nothing by itself, sees what the batches before it did, and a conflict
    /// or a broken limit in one does not touch the others. When an outcome is `Ok`, it is durable.
    ///
    /// *Shape*: one outcome for each batch. *Order*: that of `batches`.
    ///
    /// *Errors*: see [`CommitError`]; one that is not about a limit befalls every batch that is not
    /// durable yet.
    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>>;

    /// Judges and applies one batch; when it returns `Ok`, the outcome is durable.
    ///
    /// *Errors*: see [`CommitError`].
    fn commit(&self, batch: Batch) -> Result<Commit, CommitError> {
        let mut outcomes = self.commit_all(vec![batch]);
        assert_eq!(outcomes.len(), 1, "{} gives one outcome for each batch", self.name());
        outcomes.remove(0)
    }
}

/// The store at one moment.
pub trait Snapshot: Send {
    /// The value under `key`.
    ///
    /// *Errors*: see [`ReadError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// The first `limit` entries of `range`. *Order*: ascending by key.
    ///
    /// *Errors*: see [`ReadError`].
    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError>;

    /// The value that [`Batch::put_chunked`] put under `key`.
    ///
    /// *Errors*: [`ReadError::TornValue`] if chunks are missing or too many; see [`ReadError`].
    fn get_chunked(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        chunked::join(key, &self.range(&chunked::range_of(key), usize::MAX)?)
    }

    /// The bytes `part` of the value that [`Batch::put_chunked`] put under `key`, read without the rest of it.
    /// *Shape*: `part` is not empty and lies within the value.
    ///
    /// *Errors*: [`ReadError::TornValue`] if the value ends before `part` does; see [`ReadError`].
    fn get_chunked_part(&self, key: &[u8], part: Range<u64>) -> Result<Option<Vec<u8>>, ReadError> {
        let chunks = self.range(&chunked::range_of_part(key, &part), usize::MAX)?;
        chunked::join_part(key, &chunks, &part)
    }

    /// Shows every entry of `range` to `visit`, holding few in memory. *Order*: ascending by key.
    ///
    /// *Errors*: see [`ReadError`]; entries before the error have been shown.
    fn walk(&self, range: &KeyRange, visit: &mut dyn FnMut(Entry)) -> Result<(), ReadError> {
        let mut rest = range.clone();
        loop {
            let page = self.range(&rest, limits::WALK_PAGE_ENTRIES)?;
            let full = page.len() == limits::WALK_PAGE_ENTRIES;
            if let (true, Some(last)) = (full, page.last()) {
                rest.start.clone_from(&last.key);
                rest.start.push(0);
            }
            page.into_iter().for_each(&mut *visit);
            if !full {
                return Ok(());
            }
        }
    }
}

/// A key and what is under it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values hold secrets of the hub: their length is all a log may see.
        write!(f, "{} = {} bytes", Quoted(&self.key), self.value.len())
    }
}

/// Keys from `start` up to but without `end`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that belongs.
    pub start: Vec<u8>,
    /// The first key after the range.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// Keys from `start` up to but without `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> KeyRange {
        KeyRange { start: start.into(), end: end.into() }
    }

    /// Every key that starts with `prefix`; with an empty one, every key there may be.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> KeyRange {
        let start = prefix.into();
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < limits::RESERVED_FIRST_BYTE {
                end.push(last + 1);
                break;
            }
        }
        if end.is_empty() {
            end.push(limits::RESERVED_FIRST_BYTE);
        }
        KeyRange { start, end }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && *key < *self.end
    }

    /// Whether the range can be read or deleted.
    ///
    /// *Errors*: see [`LimitError`].
    pub fn check(&self) -> Result<(), LimitError> {
        for bound in [&self.start, &self.end] {
            if bound.len() > limits::KEY_BYTES_MAX {
                return Err(LimitError::key_too_long(bound));
            }
        }
        if self.start > self.end {
            return Err(LimitError::InvertedRange { start: self.start.clone(), end: self.end.clone() });
        }
        if *self.end > [limits::RESERVED_FIRST_BYTE][..] {
            return Err(LimitError::ReservedKey { key: self.end.clone() });
        }
        Ok(())
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Quoted(&self.start), Quoted(&self.end))
    }
}

/// How a batch was judged.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// Every condition held; every write is durable.
    Done,
    /// A condition did not hold; nothing of the batch happened.
    Conflict {
        /// The key of the first condition that did not hold.
        key: Vec<u8>,
        /// What is under that key instead.
        found: Option<Vec<u8>>,
    },
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Commit::Done => f.write_str("Done"),
            Commit::Conflict { key, found: None } => write!(f, "Conflict: nothing under {}", Quoted(key)),
            Commit::Conflict { key, found: Some(value) } => {
                write!(f, "Conflict: {} other bytes under {}", value.len(), Quoted(key))
            }
        }
    }
}

/// What an engine's own library said.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a read gave no answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The question breaks a limit: a bug of the caller.
    Limit(LimitError),
    /// An earlier failure closed the store under this snapshot. It reopens by itself.
    Interrupted,
    /// The snapshot is older than the store keeps what was: FoundationDB forgets after 5 s.
    Expired,
    /// The cluster under the store does not answer as it should.
    Cluster(Cause),
    /// The chunks under `key` do not make up the length they state.
    TornValue {
        /// The key of the chunked value.
        key: Vec<u8>,
        /// The stated length, in bytes.
        stated_bytes: u64,
        /// The length found, in bytes.
        found_bytes: u64,
    },
    /// The store's file is damaged.
    Corrupt(Cause),
    /// The disk did not do what was asked.
    Io(Cause),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Limit(limit) => write!(f, "cannot read: {limit}"),
            ReadError::Interrupted => {
                f.write_str("cannot read: an earlier failure closed the store; take a new snapshot")
            }
            ReadError::Expired => f.write_str(
                "cannot read: the snapshot is older than the store remembers; take a new snapshot",
            ),
            ReadError::Cluster(cause) => write!(f, "cannot read: {cause}"),
            ReadError::TornValue { key, stated_bytes, found_bytes } => write!(
                f,
                "cannot read {}: its chunks hold {found_bytes} bytes where {stated_bytes} were stored; \
                 restore the store from a backup",
                Quoted(key)
            ),
            ReadError::Corrupt(cause) => {
                write!(f, "cannot read: the store is damaged ({cause}); restore it from a backup")
            }
            ReadError::Io(cause) => {
                write!(f, "cannot read: {cause}; check the disk under the data directory")
            }
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ReadError::Limit(limit) => Some(limit),
            ReadError::Cluster(cause) | ReadError::Corrupt(cause) | ReadError::Io(cause) => Some(&**cause),
            ReadError::Interrupted | ReadError::Expired | ReadError::TornValue { .. } => None,
        }
    }
}

/// Why a commit was not acknowledged.
///
/// After `Limit`, nothing happened. After any other, whether the batch happened is unknown until it
/// is read back, for the failure may have come between the write and the answer: repeat only a
/// batch whose conditions make the repetition harmless.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CommitError {
    /// The batch breaks a limit: a bug of the caller. Nothing happened.
    Limit(LimitError),
    /// The disk, the quota or the largest allowed file is full. The engine resumes by itself when
    /// there is room.
    DiskFull(Cause),
    /// The disk has become read-only or the file may not be written.
    Denied(Cause),
    /// An earlier failure closed the store under this commit. It reopens by itself.
    Interrupted,
    /// The cluster under the store does not answer as it should.
    Cluster(Cause),
    /// Another process took over what this one may write. Nothing happened, and nothing will again.
    Fenced,
    /// The store's file is damaged.
    Corrupt(Cause),
    /// The disk did not do what was asked.
    Io(Cause),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::Limit(limit) => write!(f, "cannot commit: {limit}"),
            CommitError::DiskFull(cause) => write!(
                f,
                "cannot commit: the disk under the data directory is full ({cause}); make room, the store \
                 resumes by itself"
            ),
            CommitError::Denied(cause) => write!(
                f,
                "cannot commit: the data directory cannot be written ({cause}); make it writable, the store \
                 resumes by itself"
            ),
            CommitError::Interrupted => {
                f.write_str("cannot commit: an earlier failure closed the store; read back and try again")
            }
            CommitError::Cluster(cause) => write!(f, "cannot commit: {cause}"),
            CommitError::Fenced => f.write_str(
                "cannot commit: another hub has taken over, as this one did not renew its lease in time",
            ),
            CommitError::Corrupt(cause) => {
                write!(f, "cannot commit: the store is damaged ({cause}); restore it from a backup")
            }
            CommitError::Io(cause) => {
                write!(f, "cannot commit: {cause}; check the disk under the data directory")
            }
        }
    }
}

impl Error for CommitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CommitError::Limit(limit) => Some(limit),
            CommitError::DiskFull(cause)
            | CommitError::Denied(cause)
            | CommitError::Cluster(cause)
            | CommitError::Corrupt(cause)
            | CommitError::Io(cause) => Some(&**cause),
            CommitError::Interrupted | CommitError::Fenced => None,
        }
    }
}

impl From<LimitError> for ReadError {
    fn from(limit: LimitError) -> ReadError {
        ReadError::Limit(limit)
    }
}

impl From<LimitError> for CommitError {
    fn from(limit: LimitError) -> CommitError {
        CommitError::Limit(limit)
    }
}
