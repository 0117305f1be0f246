//! The store that a command works on: found, and opened so that nothing in it changes.

use std::fmt;
use std::path::{Path, PathBuf};

use tessera_storage::{Embedded, OpenError, ReadOnly};

/// Why a command has no store to work on.
#[derive(Debug)]
pub enum SourceError {
    /// There is none.
    NoStore {
        /// Where it was looked for.
        data: PathBuf,
    },
    /// A hub runs on it.
    InUse {
        /// Its directory.
        data: PathBuf,
        /// The hub's process, where it could be read.
        pid: Option<u32>,
    },
    /// It cannot be opened.
    Open(OpenError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::NoStore { data } => write!(
                f,
                "no hub keeps its data in {}: name its directory with --data or its file with --config",
                data.display()
            ),
            SourceError::InUse { data, pid } => {
                write!(f, "a hub runs on {}", data.display())?;
                if let Some(pid) = pid {
                    write!(f, " (process {pid})")?;
                }
                f.write_str(
                    ": stop it first, or look at a copy: `hub backup FILE` works while it runs, \
                     and `hub restore FILE --data DIR` makes a store of it",
                )
            }
            SourceError::Open(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SourceError::Open(error) => Some(error),
            SourceError::NoStore { .. } | SourceError::InUse { .. } => None,
        }
    }
}

/// Opens the store in a directory to be read.
pub fn open(data: &Path) -> Result<ReadOnly, SourceError> {
    if !Embedded::exists(data) {
        return Err(SourceError::NoStore { data: data.to_owned() });
    }
    ReadOnly::open(data).map_err(|error| match error {
        OpenError::AlreadyOpen { directory: data, pid } => SourceError::InUse { data, pid },
        error => SourceError::Open(error),
    })
}
