//! `hub migrate`: the store of a stopped hub, entry for entry in another engine.
//!
//! Knows which engines there are; the copying is [`Filling`]'s.

use std::fmt;
use std::path::{Path, PathBuf};

use blake3::Hash;
use tessera_storage::{Embedded, Engine, KeyRange, OpenError, ReadError};

use super::backup::{RestoreError, require_empty};
use super::copy::{self, FillError, Filling};
use super::pages::after;
use super::source::{self, SourceError};

/// Entries read at once. *Source*: ours: at most 6.4 MB in memory.
const PAGE_ENTRIES: usize = 64;
/// What the name of a FoundationDB cluster begins with.
const FOUNDATIONDB: &str = "fdb:";

/// Why a store was not moved.
#[derive(Debug)]
pub enum MigrateError {
    /// There is none to move.
    Source(SourceError),
    /// It cannot be read.
    Read(ReadError),
    /// The target's engine is not in this build.
    NoEngine {
        /// What was asked for.
        target: String,
    },
    /// There is something in the target's directory.
    Directory(RestoreError),
    /// No store can be made there.
    Open(OpenError),
    /// The target cannot be filled.
    Fill {
        /// What was asked for.
        target: String,
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
            MigrateError::NoEngine { target } => write!(
                f,
                "this build has no engine for {target}: name a directory, or use a build with that engine"
            ),
            MigrateError::Directory(error) => write!(f, "{error}"),
            MigrateError::Open(error) => write!(f, "{error}"),
            MigrateError::Fill { target, source } => {
                write!(
                    f,
                    "cannot move the store to {target}: {source}. The store it was to come from is as it was"
                )
            }
            MigrateError::Changed { copied, found } => write!(
                f,
                "{copied} entries were copied and the source has {found} or others: its disk fails, or something else writes to it; run `hub check`"
            ),
        }
    }
}

impl std::error::Error for MigrateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MigrateError::Source(error) => Some(error),
            MigrateError::Read(error) => Some(error),
            MigrateError::Directory(error) => Some(error),
            MigrateError::Open(error) => Some(error),
            MigrateError::Fill { source, .. } => Some(source),
            MigrateError::NoEngine { .. } | MigrateError::Changed { .. } => None,
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

/// Copies the store in a directory into an empty one, which becomes a store only at the end.
pub fn migrate(data: &Path, target: &str) -> Result<Moved, MigrateError> {
    let store = source::open(data).map_err(MigrateError::Source)?;
    let engine = open_target(target)?;
    let snapshot = store.snapshot().map_err(MigrateError::Read)?;
    let fill = |source| MigrateError::Fill { target: target.to_owned(), source };
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

fn open_target(target: &str) -> Result<Box<dyn Engine>, MigrateError> {
    if target.starts_with(FOUNDATIONDB) {
        return Err(MigrateError::NoEngine { target: target.to_owned() });
    }
    let directory = PathBuf::from(target);
    require_empty(&directory).map_err(MigrateError::Directory)?;
    Ok(Box::new(Embedded::open_unclaimed(&directory).map_err(MigrateError::Open)?))
}
