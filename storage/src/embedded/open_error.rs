//! Why a store could not be opened, and what to do about it.

use crate::engine::Cause;
use crate::format::FormatError;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Why a directory gives no store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// This user may not make, read or write it.
    Denied {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Cause,
    },
    /// There is something else than a directory at this path.
    NotADirectory {
        /// What was to be the directory.
        path: PathBuf,
    },
    /// Another hub has it open.
    AlreadyOpen {
        /// The directory.
        directory: PathBuf,
        /// The other hub's process, where it could be read.
        pid: Option<u32>,
    },
    /// The disk, the quota or the largest allowed file is full.
    DiskFull {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Cause,
    },
    /// The store's file is damaged or is no store.
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What was found.
        source: Cause,
    },
    /// The store is whole, but not one this build can use.
    Format {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        source: FormatError,
    },
    /// The disk did not do what was asked.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Cause,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Denied { path, source } => write!(
                f,
                "cannot open the store: no permission for {} ({source}); change its owner or choose another \
                 data directory",
                path.display()
            ),
            OpenError::NotADirectory { path } => write!(
                f,
                "cannot open the store: {} is not a directory; choose another data directory",
                path.display()
            ),
            OpenError::AlreadyOpen { directory, pid: Some(pid) } => write!(
                f,
                "cannot open the store: {} is in use by process {pid}; stop it or choose another data directory",
                directory.display()
            ),
            OpenError::AlreadyOpen { directory, pid: None } => write!(
                f,
                "cannot open the store: {} is in use by another process; stop it or choose another data directory",
                directory.display()
            ),
            OpenError::DiskFull { path, source } => write!(
                f,
                "cannot open the store: the disk is full at {} ({source}); make room and start again",
                path.display()
            ),
            OpenError::Corrupt { file, source } => write!(
                f,
                "cannot open the store: {} is damaged or no store ({source}); restore it from a backup",
                file.display()
            ),
            OpenError::Format { file, source } => {
                write!(f, "cannot open the store {}: {source}", file.display())
            }
            OpenError::Io { path, source } => {
                write!(f, "cannot open the store: {}: {source}; check the disk", path.display())
            }
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::Denied { source, .. }
            | OpenError::DiskFull { source, .. }
            | OpenError::Corrupt { source, .. }
            | OpenError::Io { source, .. } => Some(&**source),
            OpenError::Format { source, .. } => Some(source),
            OpenError::NotADirectory { .. } | OpenError::AlreadyOpen { .. } => None,
        }
    }
}
