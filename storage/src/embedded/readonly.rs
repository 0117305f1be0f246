//! A store looked at and not changed: what a check and a backup of a stopped hub read.
//!
//! Owns the promise that nothing reaches the file. `redb` writes when it opens a file, and repairs one
//! whose process was killed; here those writes go to memory and are forgotten. May not touch the
//! directory: not even the process id in its lock is written.

use super::directory::Directory;
use super::fault::{Fault, guarded};
use super::open_error::OpenError;
use super::store::{ENTRIES, Moment, builder, close};
use crate::engine::{ReadError, Snapshot};
use redb::{Database, ReadableDatabase, StorageBackend};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// The grain in which what was written is remembered. *Units*: bytes; `redb` writes whole pages of it.
const BLOCK_BYTES: usize = 4_096;

/// An embedded store that is read and not written. No process may have it open for writing meanwhile.
pub struct ReadOnly {
    database: Option<Database>,
    /// Holds the lock, so it is dropped after the database.
    _directory: Directory,
}

impl ReadOnly {
    /// Opens the store in `directory`, whatever its format.
    ///
    /// *Errors*: see [`OpenError`]; [`OpenError::AlreadyOpen`] while a hub runs on it.
    pub fn open(directory: &Path) -> Result<ReadOnly, OpenError> {
        let directory = Directory::look(directory)?;
        let path = directory.store_path();
        let open = || {
            let file = File::open(&path).map_err(redb::Error::Io)?;
            let bytes = file.metadata().map_err(redb::Error::Io)?.len();
            if bytes == 0 {
                // `redb` would make a new store of it.
                return Err(redb::Error::Io(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
            let kept = Kept { file, written: RwLock::new(Written { bytes, blocks: BTreeMap::new() }) };
            Ok(builder().create_with_backend(kept)?)
        };
        let database = guarded(open).map_err(|fault| directory.explain(fault))?;
        Ok(ReadOnly { database: Some(database), _directory: directory })
    }

    /// Reads every page of the file and compares it with its checksum.
    ///
    /// *Errors*: [`ReadError::Corrupt`] when one does not hold what was written; see [`ReadError`].
    pub fn verify_pages(&mut self) -> Result<(), ReadError> {
        let database = self.database.as_mut().ok_or(ReadError::Interrupted)?;
        let whole = guarded(|| Ok(database.check_integrity()?))?;
        match whole {
            true => Ok(()),
            false => {
                let damaged = redb::Error::Corrupted("pages do not match their checksums".to_owned());
                Err(Fault::from(damaged).into())
            }
        }
    }

    /// What is in it.
    ///
    /// *Errors*: see [`ReadError`].
    pub fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        let database = self.database.as_ref().ok_or(ReadError::Interrupted)?;
        let table = guarded(|| Ok(database.begin_read()?.open_table(ENTRIES)?))?;
        Ok(Box::new(Moment { table }))
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        close(self.database.take());
    }
}

/// A file, and what was to be written to it.
struct Kept {
    file: File,
    written: RwLock<Written>,
}

struct Written {
    /// How long the file would be.
    bytes: u64,
    /// By their number in the file.
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that is only read")
    }
}

impl Kept {
    /// What the file holds from `offset` on; zeros behind its end, where it was lengthened.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            match self.file.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out[filled..].fill(0);
        Ok(())
    }
}

/// The blocks that the bytes from `offset` on touch: number, and where in it and in the bytes they begin and how
/// many they are.
fn touched(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK_BYTES as u64) as usize;
        let bytes = (BLOCK_BYTES - within).min(length - done);
        let from = done;
        done += bytes;
        Some((at / BLOCK_BYTES as u64, within, from, bytes))
    })
}

impl StorageBackend for Kept {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.read().unwrap_or_else(PoisonError::into_inner).bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.read().unwrap_or_else(PoisonError::into_inner);
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.bytes) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.read_file(offset, out)?;
        for (block, within, from, bytes) in touched(offset, out.len()) {
            if let Some(held) = written.blocks.get(&block) {
                out[from..from + bytes].copy_from_slice(&held[within..within + bytes]);
            }
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        let end = bytes.div_ceil(BLOCK_BYTES as u64);
        written.blocks.retain(|block, _| *block < end);
        written.bytes = bytes;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.write().unwrap_or_else(PoisonError::into_inner);
        for (block, within, from, bytes) in touched(offset, data.len()) {
            let held = match written.blocks.entry(block) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => {
                    let mut held = Box::new([0; BLOCK_BYTES]);
                    self.read_file(block * BLOCK_BYTES as u64, &mut held[..])?;
                    place.insert(held)
                }
            };
            held[within..within + bytes].copy_from_slice(&data[from..from + bytes]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Commit, Embedded, Engine, KeyRange};

    #[test]
    fn bytes_that_were_written_are_read_back_and_the_file_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        let file = File::open(&path).unwrap();
        let kept = Kept { file, written: RwLock::new(Written { bytes: 10_000, blocks: BTreeMap::new() }) };
        kept.write(4_000, &[2; 5_000]).unwrap();
        kept.set_len(12_000).unwrap();
        let mut found = vec![9; 12_000];
        kept.read(0, &mut found).unwrap();
        assert_eq!(found, [vec![1; 4_000], vec![2; 5_000], vec![1; 1_000], vec![0; 2_000]].concat());
        assert!(kept.read(11_999, &mut [0; 2]).is_err(), "behind the end");
        assert_eq!(std::fs::read(&path).unwrap(), vec![1; 10_000]);
    }

    #[test]
    fn a_store_that_was_read_is_byte_for_byte_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let commit = |number: u32| {
            let mut batch = Batch::new();
            batch.put(format!("t/{number}"), vec![7; 50_000]);
            batch
        };
        let engine = Embedded::open(directory.path()).unwrap();
        for number in 0..20 {
            assert_eq!(engine.commit(commit(number)).unwrap(), Commit::Done);
        }
        let in_use = ReadOnly::open(directory.path()).map(drop).unwrap_err();
        assert!(matches!(in_use, OpenError::AlreadyOpen { pid: Some(_), .. }), "{in_use:?}");
        // As a kill leaves it: copied while it is open.
        let killed = tempfile::tempdir().unwrap();
        std::fs::copy(directory.path().join("store.redb"), killed.path().join("store.redb")).unwrap();
        drop(engine);
        for path in [directory.path(), killed.path()] {
            let listed = |path: &Path| {
                let mut all: Vec<_> = std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .map(|path| (path.clone(), std::fs::read(path).unwrap()))
                    .collect();
                all.sort();
                all
            };
            let before = listed(path);
            {
                let mut store = ReadOnly::open(path).unwrap();
                store.verify_pages().unwrap();
                let entries = store.snapshot().unwrap().range(&KeyRange::prefix("t/"), 99).unwrap();
                assert_eq!(entries.len(), 20);
            }
            assert!(listed(path) == before, "{} was changed", path.display());
        }
    }

    #[test]
    fn a_page_that_rotted_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        {
            let engine = Embedded::open(directory.path()).unwrap();
            let mut batch = Batch::new();
            batch.put("t/value", vec![7; 50_000]);
            assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        }
        let path = directory.path().join("store.redb");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(30_000).position(|window| window.iter().all(|byte| *byte == 7)).unwrap();
        bytes[at + 10_000] = 8;
        std::fs::write(&path, bytes).unwrap();
        let outcome = ReadOnly::open(directory.path()).map(|mut store| store.verify_pages());
        assert!(
            matches!(outcome, Err(OpenError::Corrupt { .. }) | Ok(Err(ReadError::Corrupt(_)))),
            "a byte of a value is another"
        );
    }
}
