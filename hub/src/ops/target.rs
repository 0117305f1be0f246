//! A place for a store that is to be filled: empty, or with what an attempt that was cut off left.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tessera_storage::{Embedded, Engine, OpenError, foundationdb};

use super::source::Location;
use crate::cluster;

/// What may lie in a directory that is filled: what an attempt that was cut off leaves.
const LEFT: [&str; 3] = ["lock", "store.redb", "store.redb.draft"];

/// Why there is no place for a store.
#[derive(Debug)]
pub enum TargetError {
    /// There is something in the directory.
    NotEmpty {
        /// Which.
        data: PathBuf,
        /// What.
        found: PathBuf,
    },
    /// The directory cannot be read.
    Directory {
        /// Which.
        data: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No store can be made in the directory.
    Open(OpenError),
    /// No store can be made in the cluster.
    Cluster(foundationdb::OpenError),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::NotEmpty { data, found } => write!(
                f,
                "{} is not empty (there is {}): name a new directory",
                data.display(),
                found.display()
            ),
            TargetError::Directory { data, source } => {
                write!(f, "cannot look into {}: {source}", data.display())
            }
            TargetError::Open(error) => write!(f, "{error}"),
            TargetError::Cluster(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TargetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TargetError::NotEmpty { .. } => None,
            TargetError::Directory { source, .. } => Some(source),
            TargetError::Open(error) => Some(error),
            TargetError::Cluster(error) => Some(error),
        }
    }
}

/// Opens what is to become a store. Whether it is one already is found out when it is filled.
pub fn open(location: &Location) -> Result<Arc<dyn Engine>, TargetError> {
    match location {
        Location::Cluster(place) => cluster::open_unclaimed(place).map_err(TargetError::Cluster),
        Location::Directory(data) => {
            require_empty(data)?;
            Ok(Arc::new(Embedded::open_unclaimed(data).map_err(TargetError::Open)?))
        }
    }
}

fn require_empty(data: &Path) -> Result<(), TargetError> {
    let wrong = |source| TargetError::Directory { data: data.to_owned(), source };
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(wrong(error)),
    };
    for entry in entries {
        let found = entry.map_err(wrong)?.path();
        if !LEFT.iter().any(|left| found.ends_with(left)) {
            return Err(TargetError::NotEmpty { data: data.to_owned(), found });
        }
    }
    Ok(())
}
