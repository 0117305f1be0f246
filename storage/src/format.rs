//! The version of the key space, written into every store and checked before it is used.
//!
//! Owns the record under [`Key::Format`]. It works on any engine and may not touch another key.

use crate::batch::Batch;
use crate::engine::{Commit, CommitError, Engine, KeyRange, ReadError};
use crate::keyspace::Key;
use std::error::Error;
use std::fmt;

/// The version of [`keyspace`](crate::keyspace) this build reads and writes.
pub const FORMAT: u32 = 1;

/// Writes the version into an empty store, or checks the one that is there.
///
/// *Errors*: see [`FormatError`].
pub fn claim(engine: &dyn Engine) -> Result<(), FormatError> {
    let snapshot = engine.snapshot().map_err(FormatError::Read)?;
    if let Some(found) = snapshot.get(&Key::Format.encode()).map_err(FormatError::Read)? {
        return agree(&found);
    }
    if !snapshot.range(&KeyRange::prefix([]), 1).map_err(FormatError::Read)?.is_empty() {
        return Err(FormatError::NotAStore);
    }
    let mut batch = Batch::new();
    batch.expect_absent(Key::Format.encode()).put(Key::Format.encode(), FORMAT.to_be_bytes());
    match engine.commit(batch).map_err(FormatError::Commit)? {
        Commit::Done => Ok(()),
        // Another hub was first on a shared store.
        Commit::Conflict { found, .. } => agree(&found.unwrap_or_default()),
    }
}

fn agree(found: &[u8]) -> Result<(), FormatError> {
    match <[u8; 4]>::try_from(found).map(u32::from_be_bytes) {
        Ok(FORMAT) => Ok(()),
        Ok(found) => Err(FormatError::Other { found }),
        Err(_) => Err(FormatError::NotAStore),
    }
}

/// Why a store cannot be used as it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FormatError {
    /// A build with another key space wrote it.
    Other {
        /// The version found.
        found: u32,
    },
    /// It holds keys, but no version of ours.
    NotAStore,
    /// The version could not be read.
    Read(ReadError),
    /// The version could not be written.
    Commit(CommitError),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Other { found } if *found > FORMAT => write!(
                f,
                "the store has format {found}, this build knows up to {FORMAT}; start the newer build that wrote it"
            ),
            FormatError::Other { found } => {
                write!(
                    f,
                    "the store has format {found}, this build knows only {FORMAT}; start an older build"
                )
            }
            FormatError::NotAStore => f.write_str(
                "the store holds something else than a hub's state; choose another data directory",
            ),
            FormatError::Read(error) => write!(f, "cannot tell the store's format: {error}"),
            FormatError::Commit(error) => write!(f, "cannot write the store's format: {error}"),
        }
    }
}

impl Error for FormatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            FormatError::Read(error) => Some(error),
            FormatError::Commit(error) => Some(error),
            FormatError::Other { .. } | FormatError::NotAStore => None,
        }
    }
}
