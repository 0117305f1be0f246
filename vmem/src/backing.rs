//! Where blocks lie that are not in memory: a file for their bytes, and an index that is replaced whole.
//!
//! Positioned reads and writes, not a mapping: the decision of 2026-11-22 says why.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file of bytes and an index beside it.
pub trait Backing {
    /// Fills `into` with the bytes from `offset` on.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes bytes, which are durable after the next [`Backing::sync`].
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Waits until all that was written is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Replaces the index and waits until that is durable. *Errors*: the index is the old or the new one.
    fn publish(&mut self, index: &[u8]) -> io::Result<()>;
    /// The index; nothing where there was never one.
    fn index(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Gives up what lies from here on.
    fn truncate(&mut self, end: u64) -> io::Result<()>;
}

/// Two files in a directory of their own, used by one process.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    blocks: File,
}

/// Why there is no place for blocks.
#[derive(Debug)]
pub enum OpenError {
    /// The directory or a file of it cannot be used.
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    InUse {
        /// The directory.
        directory: PathBuf,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { directory, source } => {
                write!(f, "cannot keep sums of tiles in {}: {source}", directory.display())
            }
            OpenError::InUse { directory } => {
                write!(f, "{} is in use: another hub runs with this data directory", directory.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Io { source, .. } => Some(source),
            OpenError::InUse { .. } => None,
        }
    }
}

impl Files {
    /// Opens the directory, made when missing, for this process alone.
    pub fn open(directory: &Path) -> Result<Files, OpenError> {
        let io = |source| OpenError::Io { directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let blocks = options.open(directory.join("blocks")).map_err(io)?;
        match blocks.try_lock() {
            Ok(()) => Ok(Files { directory: directory.to_owned(), blocks }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: directory.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }
}

impl Backing for Files {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.blocks.read_exact_at(into, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.blocks.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.blocks.sync_data()
    }

    fn publish(&mut self, index: &[u8]) -> io::Result<()> {
        let (new, path) = (self.directory.join("index.new"), self.directory.join("index"));
        let file = File::create(&new)?;
        file.write_all_at(index, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.directory)?.sync_all()
    }

    fn index(&mut self) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.directory.join("index")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn truncate(&mut self, end: u64) -> io::Result<()> {
        match self.blocks.metadata()?.len() > end {
            true => self.blocks.set_len(end),
            false => Ok(()),
        }
    }
}

/// Bytes in memory that end with the process: for tests and simulated hubs.
#[derive(Clone, Debug, Default)]
pub struct Volatile {
    bytes: Vec<u8>,
    index: Option<Vec<u8>>,
}

impl Backing for Volatile {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset as usize + into.len();
        let bytes = self.bytes.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn publish(&mut self, index: &[u8]) -> io::Result<()> {
        self.index = Some(index.to_vec());
        Ok(())
    }

    fn index(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.index.clone())
    }

    fn truncate(&mut self, end: u64) -> io::Result<()> {
        self.bytes.truncate(end as usize);
        Ok(())
    }
}
