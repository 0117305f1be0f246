//! The store that a command works on: which, and opened to be read or to be filled.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use tessera_storage::foundationdb::{self, Place, PlaceError};
use tessera_storage::{Embedded, Engine, OpenError, ReadError, ReadOnly, Renewed, Snapshot};

use crate::cluster;
use crate::config::HubConfig;

/// What the address of a cluster begins with.
const CLUSTER: &str = "fdb:";

/// Where a store lies.
#[derive(Clone, Debug)]
pub enum Location {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// In a FoundationDB cluster.
    Cluster(Place),
}

impl Location {
    /// Where the settings say that it is.
    pub fn of(config: &HubConfig) -> Location {
        match &config.cluster {
            Some(place) => Location::Cluster(place.clone()),
            None => Location::Directory(config.data.clone()),
        }
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Location {
        Location::Directory(path.to_owned())
    }
}

impl FromStr for Location {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Location, PlaceError> {
        match text.starts_with(CLUSTER) {
            true => text.parse().map(Location::Cluster),
            false => Ok(Location::Directory(text.into())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => write!(f, "{}", path.display()),
            Location::Cluster(place) => write!(f, "{place}"),
        }
    }
}

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
    /// The cluster that it lies in cannot be opened.
    Cluster(foundationdb::OpenError),
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
            SourceError::Cluster(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SourceError::Open(error) => Some(error),
            SourceError::Cluster(error) => Some(error),
            SourceError::NoStore { .. } | SourceError::InUse { .. } => None,
        }
    }
}

/// A store that is read.
pub enum Source {
    /// A directory, to which nothing is written.
    Directory(ReadOnly),
    /// A cluster. Whether hubs run on it nobody can tell: they must not.
    Cluster(Arc<dyn Engine>),
}

impl Source {
    /// What is in it; of a cluster, read in many moments.
    pub fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, ReadError> {
        match self {
            Source::Directory(store) => store.snapshot(),
            Source::Cluster(engine) => Ok(Box::new(Renewed::new(&**engine))),
        }
    }

    /// Compares what the engine itself can compare: a directory's pages with their checksums.
    pub fn verify_pages(&mut self) -> Result<(), ReadError> {
        match self {
            Source::Directory(store) => store.verify_pages(),
            Source::Cluster(_) => Ok(()),
        }
    }
}

/// Opens a store to be read.
pub fn open(location: &Location) -> Result<Source, SourceError> {
    let data = match location {
        Location::Directory(data) => data,
        Location::Cluster(place) => {
            return cluster::open_unclaimed(place).map(Source::Cluster).map_err(SourceError::Cluster);
        }
    };
    if !Embedded::exists(data) {
        return Err(SourceError::NoStore { data: data.clone() });
    }
    ReadOnly::open(data).map(Source::Directory).map_err(|error| match error {
        OpenError::AlreadyOpen { directory: data, pid } => SourceError::InUse { data, pid },
        error => SourceError::Open(error),
    })
}
