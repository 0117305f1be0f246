//! A store filled with the entries of another or of a backup.
//!
//! Owns the batches, and the comparison at the end. The store's format is written last, so that what was cut off is
//! never taken for a store.

use std::fmt;

use blake3::{Hash, Hasher};
use tessera_storage::format::{self, CopyError};
use tessera_storage::{Batch, Commit, CommitError, Engine, Entry, Key, KeyRange, ReadError, Snapshot};

/// What a batch may weigh before it is committed. *Units*: bytes. *Source*: FoundationDB advises less than 1 MB; the
/// heaviest entry weighs 0.13 MB.
const BATCH_BYTES: usize = 800_000;

/// Why a store could not be filled.
#[derive(Debug)]
pub enum FillError {
    /// It is not empty, or cannot be read or written.
    Copy(CopyError),
    /// An entry of the source says nothing of its format.
    NoFormat,
    /// It holds other entries than were written.
    Different {
        /// Entries that were written.
        written: u64,
        /// Entries that it holds.
        found: u64,
    },
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FillError::Copy(error) => write!(f, "{error}"),
            FillError::NoFormat => f.write_str("what is copied names no format: it is no hub's store"),
            FillError::Different { written, found } => write!(
                f,
                "{written} entries were written, and {found} or others are there: something else writes to it, or the disk fails; nothing was published"
            ),
        }
    }
}

impl std::error::Error for FillError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FillError::Copy(error) => Some(error),
            FillError::NoFormat | FillError::Different { .. } => None,
        }
    }
}

impl From<CopyError> for FillError {
    fn from(error: CopyError) -> FillError {
        FillError::Copy(error)
    }
}

impl From<ReadError> for FillError {
    fn from(error: ReadError) -> FillError {
        FillError::Copy(CopyError::Read(error))
    }
}

impl From<CommitError> for FillError {
    fn from(error: CommitError) -> FillError {
        FillError::Copy(CopyError::Commit(error))
    }
}

/// A store that is being filled.
pub struct Filling<'a> {
    engine: &'a dyn Engine,
    batch: Batch,
    sum: Sum,
    format: Option<u32>,
}

impl<'a> Filling<'a> {
    /// Begins with an empty store, or with one whose filling was cut off.
    pub fn begin(engine: &'a dyn Engine) -> Result<Filling<'a>, FillError> {
        format::begin_copy(engine)?;
        Ok(Filling { engine, batch: Batch::new(), sum: Sum::default(), format: None })
    }

    /// Adds an entry. *Order*: ascending by key.
    pub fn put(&mut self, entry: Entry) -> Result<(), FillError> {
        if entry.key == Key::Format.encode() {
            self.format = entry.value.try_into().ok().map(u32::from_be_bytes);
            return Ok(());
        }
        self.sum.add(&entry);
        self.batch.put(entry.key, entry.value);
        if self.batch.weight_bytes() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// What was put so far: how many entries, and a digest of them.
    pub fn written(&self) -> (u64, Hash) {
        self.sum.end()
    }

    /// Compares what is there with what was put, and makes a store of it. Gives how many entries it has, and a digest
    /// of them.
    pub fn end(mut self) -> Result<(u64, Hash), FillError> {
        self.flush()?;
        let format = self.format.ok_or(FillError::NoFormat)?;
        let written = self.sum.end();
        let found = sum(&*self.engine.snapshot()?)?;
        if written != found {
            return Err(FillError::Different { written: written.0, found: found.0 });
        }
        format::end_copy(self.engine, format)?;
        Ok(written)
    }

    fn flush(&mut self) -> Result<(), FillError> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        match self.engine.commit(batch)? {
            // Without a condition there is no conflict.
            Commit::Done | Commit::Conflict { .. } => Ok(()),
        }
    }
}

/// How many entries a store has but for those of its format, and a digest of them.
pub fn sum(store: &dyn Snapshot) -> Result<(u64, Hash), ReadError> {
    let mut sum = Sum::default();
    store.walk(&KeyRange::prefix([]), &mut |entry| {
        if entry.key != Key::Format.encode() && entry.key != Key::Copying.encode() {
            sum.add(&entry);
        }
    })?;
    Ok(sum.end())
}

#[derive(Default)]
struct Sum {
    entries: u64,
    hasher: Hasher,
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        for part in [&entry.key, &entry.value] {
            self.hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
    }

    fn end(&self) -> (u64, Hash) {
        (self.entries, self.hasher.finalize())
    }
}
