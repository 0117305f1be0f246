//! Reading for longer than an engine keeps one moment.
//!
//! Owns [`Renewed`]. It works on any engine.

use crate::engine::{Engine, Entry, KeyRange, ReadError, Snapshot};
use std::sync::{Mutex, PoisonError};

/// The store as it was a moment ago: a new snapshot takes the place of one that has expired.
///
/// What is read is *not* of one moment. It is for a reader whom that does not harm: one that runs before
/// anything else writes, or looks again before it acts.
pub struct Renewed<'a> {
    engine: &'a dyn Engine,
    /// `None` until the first read.
    current: Mutex<Option<Box<dyn Snapshot>>>,
}

impl<'a> Renewed<'a> {
    /// Reads from `engine` until dropped.
    pub fn new(engine: &'a dyn Engine) -> Renewed<'a> {
        Renewed { engine, current: Mutex::new(None) }
    }

    fn read<T>(&self, read: impl Fn(&dyn Snapshot) -> Result<T, ReadError>) -> Result<T, ReadError> {
        // A panic of a read leaves the snapshot as it was.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*current {
            match read(&**snapshot) {
                Err(ReadError::Expired) => {}
                outcome => return outcome,
            }
        }
        let fresh = self.engine.snapshot()?;
        let outcome = read(&*fresh);
        *current = Some(fresh);
        outcome
    }
}

impl Snapshot for Renewed<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(|snapshot| snapshot.get(key))
    }

    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.read(|snapshot| snapshot.range(range, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Commit, CommitError, Memory};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// An engine whose snapshots expire after two reads.
    struct Forgetful(Memory);

    struct Brief(Box<dyn Snapshot>, AtomicU32);

    impl Engine for Forgetful {
        fn name(&self) -> &'static str {
            "forgetful"
        }

        fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
            Ok(Box::new(Brief(self.0.snapshot()?, AtomicU32::new(0))))
        }

        fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
            self.0.commit_all(batches)
        }
    }

    impl Brief {
        fn live(&self) -> Result<&dyn Snapshot, ReadError> {
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Ok(&*self.0),
                _ => Err(ReadError::Expired),
            }
        }
    }

    impl Snapshot for Brief {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
            self.live()?.get(key)
        }

        fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
            self.live()?.range(range, limit)
        }
    }

    #[test]
    fn a_long_walk_outlives_the_snapshots_it_reads() {
        let engine = Forgetful(Memory::new());
        let mut batch = Batch::new();
        for index in 0..1_000 {
            batch.put(format!("t/{index:05}"), "");
        }
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        let walked = |store: &dyn Snapshot| {
            let mut keys = Vec::new();
            store.walk(&KeyRange::prefix("t/"), &mut |entry| keys.push(entry.key)).map(|()| keys)
        };
        assert!(matches!(walked(&*engine.snapshot().unwrap()), Err(ReadError::Expired)));
        let keys = walked(&Renewed::new(&engine)).unwrap();
        let expected: Vec<_> = (0..1_000).map(|index| format!("t/{index:05}").into_bytes()).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn another_error_than_age_is_told() {
        let engine = Memory::new();
        let error = Renewed::new(&engine).get(&[0xff]).unwrap_err();
        assert!(matches!(error, ReadError::Limit(_)), "{error}");
    }
}
