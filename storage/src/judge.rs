//! Judging a batch and applying it, the same in every engine that runs in this process.
//!
//! Owns the order: conditions first, then writes as added. It may not touch a file: an engine lends
//! it a [`Tree`] inside a transaction of its own.

use crate::batch::{Batch, Write};
use crate::engine::{Commit, KeyRange};

/// An ordered map inside an open transaction.
pub(crate) trait Tree {
    /// What the engine's library says when it fails.
    type Error;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;
    fn remove(&mut self, key: &[u8]) -> Result<(), Self::Error>;
    fn remove_range(&mut self, range: &KeyRange) -> Result<(), Self::Error>;
}

/// Applies `batch` to `tree` if its conditions hold. On an error the transaction must be dropped.
pub(crate) fn judge<T: Tree>(tree: &mut T, batch: &Batch) -> Result<Commit, T::Error> {
    for condition in batch.conditions() {
        let found = tree.get(&condition.key)?;
        if !condition.expect.holds(found.as_deref()) {
            return Ok(Commit::Conflict { key: condition.key.clone(), found });
        }
    }
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => tree.put(key, value)?,
            Write::Delete { key } => tree.remove(key)?,
            Write::DeleteRange { range } => tree.remove_range(range)?,
            Write::Add { key, amount } => {
                let sum = number(&tree.get(key)?.unwrap_or_default()).wrapping_add(*amount);
                tree.put(key, &sum.to_le_bytes())?;
            }
        }
    }
    Ok(Commit::Done)
}

/// The number that [`Write::Add`] sees in a value.
fn number(value: &[u8]) -> u64 {
    let mut bytes = [0; size_of::<u64>()];
    for (byte, stored) in bytes.iter_mut().zip(value) {
        *byte = *stored;
    }
    u64::from_le_bytes(bytes)
}
