//! The engine that forgets: a map in memory, for tests and simulation.
//!
//! Owns one ordered map. It may not touch a file. A commit while a snapshot is alive copies the map,
//! so it is no engine for a hub with much state.

use crate::batch::{Batch, check_key};
use crate::engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};
use crate::format;
use crate::judge::{Tree, judge};
use std::collections::{BTreeMap, Bound};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A store that lives as long as this value.
pub struct Memory {
    map: Mutex<Arc<Map>>,
}

impl Memory {
    /// A store that holds nothing but its [format version](mod@format).
    pub fn new() -> Memory {
        let memory = Memory::unclaimed();
        if let Err(error) = format::claim(&memory) {
            unreachable!("an empty map takes the format version: {error}");
        }
        memory
    }

    /// A store that holds nothing at all, to be filled from another.
    pub fn unclaimed() -> Memory {
        Memory { map: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Map>> {
        // Nothing between lock and unlock can panic half-way through a batch.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Engine for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        Ok(Box::new(Frozen(self.lock().clone())))
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let mut map = self.lock();
        let mut outcome = |batch: &Batch| {
            batch.check()?;
            let Ok(commit) = judge(&mut map, batch);
            Ok(commit)
        };
        batches.iter().map(&mut outcome).collect()
    }
}

struct Frozen(Arc<Map>);

impl Snapshot for Frozen {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        check_key(key)?;
        Ok(self.0.get(key).map(|value| value.to_vec()))
    }

    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        range.check()?;
        let within = self.0.range::<[u8], _>(bounds(range));
        Ok(within
            .take(limit)
            .map(|(key, value)| Entry { key: key.to_vec(), value: value.to_vec() })
            .collect())
    }
}

fn bounds(range: &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(&range.start), Bound::Excluded(&range.end))
}

impl Tree for MutexGuard<'_, Arc<Map>> {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(Map::get(self, key).map(|value| value.to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        Arc::make_mut(self).insert(key.into(), value.into());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Infallible> {
        Arc::make_mut(self).remove(key);
        Ok(())
    }

    fn remove_range(&mut self, range: &KeyRange) -> Result<(), Infallible> {
        let map = Arc::make_mut(self);
        let doomed: Vec<_> = map.range::<[u8], _>(bounds(range)).map(|(key, _)| key.clone()).collect();
        for key in doomed {
            map.remove(&key);
        }
        Ok(())
    }
}
