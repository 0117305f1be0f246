//! The version of the key space, written into every store and checked before it is used.
//!
//! Owns the records under [`Key::Format`], [`Key::Upgrade`] and [`Key::Copying`], and in which order an older store
//! becomes one of this format. It works on any engine, and what a value means is the business of who brings the
//! [`Step`]s.

mod copying;
mod upgrade;

pub use copying::{CopyError, begin_copy, end_copy};
pub use upgrade::{Rewrite, Step, StepError};

use crate::batch::Batch;
use crate::engine::{Commit, CommitError, Engine, KeyRange, ReadError, Snapshot};
use crate::keyspace::Key;
use std::error::Error;
use std::fmt;

/// The version of [`keyspace`](crate::keyspace) this build reads and writes.
pub const FORMAT: u32 = 2;

/// What makes a store of this format from one of each format before, oldest first.
pub const STEPS: &[Step] = &[
    // Pieces of files lie in a store of blobs, where the hub that opens it moves them: this store cannot.
    Step { to: 2, ranges: Vec::new, chunked: false, rewrite: |_, _| Ok(Rewrite::Keep) },
];

/// Writes the version into an empty store, or checks the one that is there and brings an older store up to it.
///
/// *Errors*: see [`FormatError`].
pub fn claim(engine: &dyn Engine) -> Result<(), FormatError> {
    claim_as(engine, FORMAT, STEPS)
}

/// The same for another format and the steps that lead to it, oldest first.
///
/// *Errors*: see [`FormatError`].
pub fn claim_as(engine: &dyn Engine, format: u32, steps: &[Step]) -> Result<(), FormatError> {
    let snapshot = engine.snapshot().map_err(FormatError::Read)?;
    if let Some(found) = snapshot.get(&Key::Format.encode()).map_err(FormatError::Read)? {
        return upgrade::upgrade(engine, number(&found)?, format, steps);
    }
    if let Some(first) = snapshot.range(&KeyRange::prefix([]), 1).map_err(FormatError::Read)?.pop() {
        let copying = snapshot.get(&Key::Copying.encode()).map_err(FormatError::Read)?.is_some();
        return Err(if copying {
            FormatError::Incomplete
        } else {
            FormatError::NotAStore { key: first.key }
        });
    }
    let mut batch = Batch::new();
    batch.expect_absent(Key::Format.encode()).put(Key::Format.encode(), format.to_be_bytes());
    match engine.commit(batch).map_err(FormatError::Commit)? {
        Commit::Done => Ok(()),
        // Another hub was first on a shared store.
        Commit::Conflict { found, .. } => match number(&found.unwrap_or_default())? {
            found if found == format => Ok(()),
            found => Err(FormatError::Other { found }),
        },
    }
}

/// The version that a store has.
///
/// *Errors*: see [`FormatError`].
pub fn of(store: &dyn Snapshot) -> Result<u32, FormatError> {
    match store.get(&Key::Format.encode()).map_err(FormatError::Read)? {
        Some(found) => number(&found),
        None if store.get(&Key::Copying.encode()).map_err(FormatError::Read)?.is_some() => {
            Err(FormatError::Incomplete)
        }
        None => Err(FormatError::NotAStore { key: Key::Format.encode() }),
    }
}

fn number(found: &[u8]) -> Result<u32, FormatError> {
    let number = found.try_into().map_err(|_| FormatError::NotAStore { key: Key::Format.encode() })?;
    Ok(u32::from_be_bytes(number))
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
    NotAStore {
        /// A key that is there, or that is not as it should be.
        key: Vec<u8>,
    },
    /// A restore or a migration into it was cut off.
    Incomplete,
    /// The version could not be read.
    Read(ReadError),
    /// The version could not be written.
    Commit(CommitError),
    /// A value of an older store cannot be brought up to this version.
    Step(StepError),
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
                    "the store has format {found}, which this build does not know; start an older build"
                )
            }
            FormatError::NotAStore { .. } => f.write_str(
                "the store holds something else than a hub's state; choose another data directory",
            ),
            FormatError::Incomplete => f.write_str(
                "a restore or migration into this store was cut off and it holds a part; run that again",
            ),
            FormatError::Read(error) => write!(f, "cannot tell the store's format: {error}"),
            FormatError::Commit(error) => write!(f, "cannot write the store's format: {error}"),
            FormatError::Step(error) => write!(f, "{error}"),
        }
    }
}

impl Error for FormatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            FormatError::Read(error) => Some(error),
            FormatError::Commit(error) => Some(error),
            FormatError::Step(error) => Some(error),
            FormatError::Other { .. } | FormatError::NotAStore { .. } | FormatError::Incomplete => None,
        }
    }
}
