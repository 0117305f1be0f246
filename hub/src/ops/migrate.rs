//! `hub migrate`: the store of a stopped hub, entry for entry in another engine.
//!
//! Knows nothing of engines: the copying is [`Filling`]'s.

use std::fmt;

use blake3::Hash;
use tessera_storage::{KeyRange, ReadError};

use super::copy::{self, FillError, Filling};
use super::pages::after;
use super::source::{self, Location, SourceError};
use super::target::{self, TargetError};

/// Entries read at once. *Source*: ours: at most 6.4 MB in memory.
const PAGE_ENTRIES: usize = 64;

/// Why a store was not moved.
#[derive(Debug)]
pub enum MigrateError {
    /// There is none to move.
    Source(SourceError),
    /// It cannot be read.
    Read(ReadError),
    /// There is no place for it.
    Target(TargetError),
    /// The target cannot be filled.
    Fill {
        /// Where.
        to: Location,
        /// Why.
        source: FillError,
    },
    /// The source changed meanwhile.
    Changed {
        /// Entries that were copied.
        copied: u64,
        /// Entries that it has.
        found: u64,
    },
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrateError::Source(error) => write!(f, "{error}"),
            MigrateError::Read(error) => write!(f, "{error}"),
            MigrateError::Target(error) => write!(f, "{error}"),
            MigrateError::Fill { to, source } => {
                write!(
                    f,
                    "cannot move the store to {to}: {source}. The store it was to come from is as it was"
                )
            }
            MigrateError::Changed { copied, found } => write!(
                f,
                "{copied} entries were copied and the source has {found} or others: a hub runs on it, or its disk fails; stop the hub and run `hub check`"
            ),
        }
    }
}

impl std::error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MigrateError::Source(error) => Some(error),
            MigrateError::Read(error) => Some(error),
            MigrateError::Target(error) => Some(error),
            MigrateError::Fill { source, .. } => Some(source),
            MigrateError::Changed { .. } => None,
        }
    }
}

/// What was moved, the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Entries, but for that of the format.
    pub entries: u64,
    /// Over their keys and values in order.
    pub digest: Hash,
}

/// Copies a store into an empty one, which becomes a store only at the end.
pub fn migrate(from: &Location, to: &Location) -> Result<Moved, MigrateError> {
    let store = source::open(from).map_err(MigrateError::Source)?;
    let engine = target::open(to).map_err(MigrateError::Target)?;
    let snapshot = store.snapshot().map_err(MigrateError::Read)?;
    let fill = |source| MigrateError::Fill { to: to.clone(), source };
    let mut filling = Filling::begin(&*engine).map_err(fill)?;
    let mut rest = KeyRange::prefix([]);
    loop {
        let page = snapshot.range(&rest, PAGE_ENTRIES).map_err(MigrateError::Read)?;
        let Some(last) = page.last() else { break };
        rest.start = after(&last.key);
        page.into_iter().try_for_each(|entry| filling.put(entry)).map_err(fill)?;
    }
    // The source once more from its file, before the target, which is compared with what was put, becomes a store.
    let found = copy::sum(&*store.snapshot().map_err(MigrateError::Read)?).map_err(MigrateError::Read)?;
    let copied = filling.written();
    if found != copied {
        return Err(MigrateError::Changed { copied: copied.0, found: found.0 });
    }
    let (entries, digest) = filling.end().map_err(fill)?;
    Ok(Moved { entries, digest })
}
