//! Why a store in a cluster could not be opened, and what to do about it.

use super::place::Place;
use crate::engine::{Cause, CommitError};
use crate::format::FormatError;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Why a cluster gives no store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// This build has no engine for clusters.
    NotBuiltIn {
        /// The store.
        place: Place,
    },
    /// The cluster's file cannot be read.
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Cause,
    },
    /// The client library of this machine is too old.
    OldLibrary {
        /// The newest interface it has.
        found: i32,
        /// The one it needs.
        needed: i32,
    },
    /// The client library did not start, or does not take the cluster's file.
    Library {
        /// What it said.
        source: Cause,
    },
    /// The client library was stopped in this process, and it starts only once.
    Stopped,
    /// The system gives no random bytes.
    Entropy {
        /// What it said.
        source: Cause,
    },
    /// The cluster did not take the first write.
    Commit {
        /// The store.
        place: Place,
        /// Why.
        source: CommitError,
    },
    /// The store is there, but not one this build can use.
    Format {
        /// The store.
        place: Place,
        /// What it is instead.
        source: FormatError,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotBuiltIn { place } => write!(
                f,
                "cannot open {place}: this hub was built without FoundationDB; build it with `cargo build \
                 --release -p tessera-hub --features foundationdb`, on a machine with FoundationDB's client \
                 library (package foundationdb-clients)"
            ),
            OpenError::ClusterFile { path, source } => write!(
                f,
                "cannot open the store: the cluster file {} cannot be read ({source}); copy it from a machine \
                 of the cluster, where it is /etc/foundationdb/fdb.cluster",
                path.display()
            ),
            OpenError::OldLibrary { found, needed } => write!(
                f,
                "cannot open the store: FoundationDB's client library has the interface {found} and this hub \
                 needs {needed}; install foundationdb-clients 7.3 or newer"
            ),
            OpenError::Library { source } => {
                write!(f, "cannot open the store: FoundationDB's client library says: {source}")
            }
            OpenError::Stopped => f.write_str(
                "cannot open the store: FoundationDB's client library was stopped and starts only once in a \
                 process; keep one store open, or the library's `Network`",
            ),
            OpenError::Entropy { source } => {
                write!(f, "cannot open the store: the system gives no random bytes: {source}")
            }
            OpenError::Commit { place, source } => write!(f, "cannot open {place}: {source}"),
            OpenError::Format { place, source } => write!(f, "cannot open {place}: {source}"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::ClusterFile { source, .. }
            | OpenError::Library { source }
            | OpenError::Entropy { source } => Some(&**source),
            OpenError::Commit { source, .. } => Some(source),
            OpenError::Format { source, .. } => Some(source),
            OpenError::NotBuiltIn { .. } | OpenError::OldLibrary { .. } | OpenError::Stopped => None,
        }
    }
}
