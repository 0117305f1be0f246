//! Files that kernels read where they lie, run by run.
//!
//! Owns what a kernel may ask of a file, so that what it holds is bounded by the runs it asks for and not by
//! the file. Opens nothing: whoever has the bytes, in memory or on a disk, says how a run is read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

/// A file whose runs can be read, from any thread.
///
/// It never changes: two reads of a run give the same bytes, or an error.
pub trait Runs: fmt::Debug + Send + Sync {
    /// How long it is.
    fn bytes(&self) -> u64;

    /// Fills `into` with the bytes from `offset` on.
    ///
    /// *Errors*: there are not so many bytes, or they cannot be had, or are not what they were.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable>;
}

/// Bytes that cannot be had: of this machine, not of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file cannot be read any more, or was damaged since it was stored")
    }
}

impl std::error::Error for Unreadable {}

impl Runs for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let begin = usize::try_from(offset).map_err(|_| Unreadable)?;
        let end = begin.checked_add(into.len()).ok_or(Unreadable)?;
        into.copy_from_slice(self.get(begin..end).ok_or(Unreadable)?);
        Ok(())
    }
}

/// The bytes from `offset` on, as many as `bytes` but not past the end.
pub fn some_of(runs: &dyn Runs, offset: u64, bytes: u64) -> Result<Vec<u8>, Unreadable> {
    let there = bytes.min(runs.bytes().saturating_sub(offset));
    let mut all = vec![0; usize::try_from(there).map_err(|_| Unreadable)?];
    if !all.is_empty() {
        runs.read(offset, &mut all)?;
    }
    Ok(all)
}

/// Finds files by their digest.
///
/// A closure that gives bytes in memory is one.
pub trait Files {
    /// A file to read runs of; nothing where it is not here.
    fn open(&self, blake3: &[u8; 32]) -> Option<Arc<dyn Runs>>;

    /// All of a file, in memory; nothing where it is not here or cannot be read. For kernels that parse the
    /// whole of it: whoever has the files may keep it for the next shard.
    fn whole(&self, blake3: &[u8; 32]) -> Option<Bytes>;
}

impl<F: Fn(&[u8; 32]) -> Option<Bytes>> Files for F {
    fn open(&self, blake3: &[u8; 32]) -> Option<Arc<dyn Runs>> {
        Some(Arc::new(self(blake3)?))
    }

    fn whole(&self, blake3: &[u8; 32]) -> Option<Bytes> {
        self(blake3)
    }
}

/// A file that remembers whether a run of it could not be read, for readers that make something else of it.
#[derive(Debug)]
pub(crate) struct Watched {
    runs: Arc<dyn Runs>,
    failed: AtomicBool,
}

impl Watched {
    pub(crate) fn new(runs: Arc<dyn Runs>) -> Watched {
        Watched { runs, failed: AtomicBool::new(false) }
    }

    /// Whether all that was asked for came.
    pub(crate) fn check(&self) -> Result<(), Unreadable> {
        if self.failed.load(Ordering::Relaxed) { Err(Unreadable) } else { Ok(()) }
    }
}

impl Runs for Watched {
    fn bytes(&self) -> u64 {
        self.runs.bytes()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        self.runs.read(offset, into).inspect_err(|Unreadable| self.failed.store(true, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_bytes_in_memory_are_theirs_and_none_reaches_past_the_end() {
        let bytes = Bytes::from_static(b"0123456789");
        let mut run = [0; 4];
        bytes.read(6, &mut run).expect("inside");
        assert_eq!(&run, b"6789");
        assert_eq!(bytes.read(7, &mut run), Err(Unreadable));
        assert_eq!(bytes.read(u64::MAX, &mut run), Err(Unreadable));
        assert_eq!(some_of(&bytes, 8, 100), Ok(b"89".to_vec()));
        assert_eq!(some_of(&bytes, 11, 100), Ok(Vec::new()));
    }
}
