//! The default engine: one directory on a local disk, crash-safe, nothing to install.
//!
//! Owns how a directory becomes a store and says why it does not. It may not touch what is inside
//! the `redb` file: the [`store`] does, so that a test can put another disk under it.
//!
//! A commit that returned `Ok` has been synced to the disk. A failure of the disk closes the file;
//! the next operation opens it again, so the engine resumes by itself when the cause is gone.

mod directory;
mod fault;
mod open_error;
mod readonly;
pub mod store;

pub use open_error::OpenError;
pub use readonly::ReadOnly;

use crate::batch::Batch;
use crate::engine::{Commit, CommitError, Engine, ReadError, Snapshot};
use crate::format;
use crate::format::FormatError;
use directory::Directory;
use fault::guarded;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use store::{Store, builder, initialise};

/// A store in a directory of its own. One process at a time may have it open.
pub struct Embedded(Store<Directory>);

impl Embedded {
    /// Whether a store lies in `directory`, or may, where this user must not look; opens and changes nothing.
    pub fn exists(directory: &Path) -> bool {
        match std::fs::metadata(directory.join(directory::STORE)) {
            Ok(found) => found.is_file(),
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Opens the store in `directory`, or makes one there, readable by this user alone.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn open(directory: &Path) -> Result<Embedded, OpenError> {
        let store = Embedded::open_unclaimed(directory)?;
        let file = store.0.medium().store_path();
        match format::claim(&store) {
            Ok(()) => Ok(store),
            Err(FormatError::Commit(CommitError::DiskFull(source))) => {
                Err(OpenError::DiskFull { path: file, source })
            }
            Err(FormatError::Commit(CommitError::Denied(source))) => {
                Err(OpenError::Denied { path: file, source })
            }
            Err(
                FormatError::Commit(CommitError::Corrupt(source))
                | FormatError::Read(ReadError::Corrupt(source)),
            ) => Err(OpenError::Corrupt { file, source }),
            Err(source) => Err(OpenError::Format { file, source }),
        }
    }

    /// Opens the store in `directory` whatever its format, or makes an empty one of none there: to be filled from
    /// another.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn open_unclaimed(directory: &Path) -> Result<Embedded, OpenError> {
        let directory = Directory::lock(directory)?;
        if !directory.holds_store()? {
            // A store appears under its name only once it is complete, so that a crash in the
            // middle of its making leaves nothing that looks like a damaged one.
            let file = directory.create_draft()?;
            guarded(|| initialise(&builder().create_file(file)?))
                .map_err(|fault| directory.explain(fault))?;
            directory.publish_draft()?;
        }
        let database = store::open(&directory).map_err(|fault| directory.explain(fault))?;
        Ok(Embedded(Store::holding(database, directory)))
    }

    /// The directory the store lies in.
    pub fn directory(&self) -> &Path {
        self.0.medium().path()
    }
}

impl Engine for Embedded {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn stored_bytes(&self) -> Option<u64> {
        // Its length may count what was never written.
        std::fs::metadata(self.0.medium().store_path()).ok().map(|file| file.blocks() * 512)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.0.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        self.0.commit_all(batches)
    }
}
