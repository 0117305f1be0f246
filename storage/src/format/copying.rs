//! A store that is being filled with the entries of another: not one that a hub starts on until all are there.
//!
//! Owns the mark under [`Key::Copying`]. It is the first thing written, and goes in the batch that writes the format,
//! which is the last.

use crate::batch::Batch;
use crate::engine::{Commit, CommitError, Engine, KeyRange, ReadError};
use crate::keyspace::Key;
use std::error::Error;
use std::fmt;

/// Keys that one batch removes of what a copy that was cut off left. *Source*: ours: their values weigh nothing.
const REMOVED_MAX: usize = 512;

/// Why a store cannot be filled with the entries of another.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CopyError {
    /// It is a hub's store already, or somebody else's.
    NotEmpty,
    /// It cannot be read.
    Read(ReadError),
    /// It cannot be written.
    Commit(CommitError),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyError::NotEmpty => f.write_str("there is something in it already; name an empty one"),
            CopyError::Read(error) => write!(f, "{error}"),
            CopyError::Commit(error) => write!(f, "{error}"),
        }
    }
}

impl Error for CopyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CopyError::NotEmpty => None,
            CopyError::Read(error) => Some(error),
            CopyError::Commit(error) => Some(error),
        }
    }
}

/// Marks an empty store as one that is being filled. What an earlier attempt that was cut off left goes.
///
/// *Errors*: see [`CopyError`].
pub fn begin_copy(engine: &dyn Engine) -> Result<(), CopyError> {
    let marked = engine.snapshot().and_then(|store| store.get(&Key::Copying.encode()));
    if marked.map_err(CopyError::Read)?.is_none() {
        let empty = engine.snapshot().and_then(|store| store.range(&KeyRange::prefix([]), 1));
        if !empty.map_err(CopyError::Read)?.is_empty() {
            return Err(CopyError::NotEmpty);
        }
        let mut batch = Batch::new();
        batch.expect_absent(Key::Format).put(Key::Copying, []);
        return commit(engine, batch);
    }
    loop {
        let store = engine.snapshot().map_err(CopyError::Read)?;
        let page = store.range(&KeyRange::prefix([]), REMOVED_MAX).map_err(CopyError::Read)?;
        let mut batch = Batch::new();
        batch.expect_exists(Key::Copying);
        let left: Vec<_> = page.into_iter().filter(|entry| entry.key != Key::Copying.encode()).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.into_iter().for_each(|entry| {
            batch.delete(entry.key);
        });
        commit(engine, batch)?;
    }
}

/// Makes a store of what was filled.
///
/// *Errors*: see [`CopyError`].
pub fn end_copy(engine: &dyn Engine, format: u32) -> Result<(), CopyError> {
    let mut batch = Batch::new();
    batch.expect_exists(Key::Copying).expect_absent(Key::Format);
    batch.put(Key::Format, format.to_be_bytes()).delete(Key::Copying);
    commit(engine, batch)
}

fn commit(engine: &dyn Engine, batch: Batch) -> Result<(), CopyError> {
    match engine.commit(batch).map_err(CopyError::Commit)? {
        Commit::Done => Ok(()),
        Commit::Conflict { .. } => Err(CopyError::NotEmpty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FORMAT, claim};
    use crate::{FormatError, Memory};

    #[test]
    fn a_store_is_none_until_its_copy_has_ended_and_a_copy_begins_anew() {
        let engine = Memory::unclaimed();
        begin_copy(&engine).unwrap();
        for number in 0..2_000 {
            let mut batch = Batch::new();
            batch.put(format!("t/{number}"), "x");
            commit(&engine, batch).unwrap();
        }
        assert!(matches!(claim(&engine), Err(FormatError::Incomplete)));
        begin_copy(&engine).unwrap();
        let left = engine.snapshot().unwrap().range(&KeyRange::prefix([]), 9).unwrap();
        assert_eq!(left.len(), 1, "what was cut off is gone");
        end_copy(&engine, FORMAT).unwrap();
        claim(&engine).unwrap();
        assert!(matches!(begin_copy(&engine), Err(CopyError::NotEmpty)));
        let others = Memory::unclaimed();
        let mut batch = Batch::new();
        batch.put("somebody", "else");
        commit(&others, batch).unwrap();
        assert!(matches!(begin_copy(&others), Err(CopyError::NotEmpty)));
    }
}
