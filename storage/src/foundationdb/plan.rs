//! Which batches share a transaction, and how each is judged before anything is written.
//!
//! Owns the weighing and the judging. It may not touch a cluster: the engine reads what conditions
//! look at, asks here, and writes what is done.

use crate::batch::{Batch, LimitError};
use crate::engine::{Commit, KeyRange};
use crate::judge::{Tree, judge};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::{Bound, Range};

/// What the cluster counts for an operation of a batch beyond [`limits::OPERATION_OVERHEAD_BYTES`].
/// *Units*: bytes. *Source*: ours: room for the fields that FoundationDB 7.4 adds to a mutation.
const OPERATION_MARGIN_BYTES: usize = 32;

/// What the engine adds to each transaction: its marker, and that marker's conflict ranges. *Units*: bytes.
const MARKER_BYTES: usize = 1_024;

/// What `batch` weighs in a cluster where `start_bytes` stand before each key. *Units*: bytes. An upper bound.
///
/// *Errors*: the first limit the batch breaks.
pub(super) fn weigh(batch: &Batch, start_bytes: usize) -> Result<usize, LimitError> {
    batch.check()?;
    let operations = batch.conditions().len() + batch.writes().len();
    // A range has two keys, and each of them counts as often as that of a put at most.
    let each = 6 * start_bytes + OPERATION_MARGIN_BYTES;
    let weight_bytes = batch.weight_bytes() + operations * each + MARKER_BYTES;
    if weight_bytes > limits::BATCH_BYTES_MAX {
        return Err(LimitError::BatchTooHeavy { weight_bytes });
    }
    Ok(weight_bytes)
}

/// Which neighbours share a transaction: as many as stay within [`limits::SHARED_TRANSACTION_BYTES_MAX`]
/// together, and at least one. *Order*: that of `weights`.
pub(super) fn share(weights: &[usize]) -> Vec<Range<usize>> {
    let mut shared: Vec<Range<usize>> = Vec::new();
    let mut room = 0;
    for (index, weight) in weights.iter().enumerate() {
        match shared.last_mut() {
            Some(last) if *weight <= room => {
                last.end += 1;
                room -= weight;
            }
            _ => {
                shared.push(index..index + 1);
                room = limits::SHARED_TRANSACTION_BYTES_MAX.saturating_sub(*weight);
            }
        }
    }
    shared
}

/// The keys that the conditions of `batches` look at.
pub(super) fn looked_at<'a>(batches: &[&'a Batch]) -> BTreeSet<&'a [u8]> {
    batches.iter().flat_map(|batch| batch.conditions()).map(|condition| &*condition.key).collect()
}

/// What lies under the keys that conditions look at, as the batches of a transaction change it.
#[derive(Debug, Default)]
pub(super) struct Draft {
    seen: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Draft {
    /// Begins with what the cluster holds.
    pub(super) fn new(found: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) -> Draft {
        Draft { seen: found.into_iter().collect() }
    }

    /// Judges the next batch. If it is done, its writes belong into the transaction, in their order.
    ///
    /// *Panics*: if a condition looks at a key that was not read.
    pub(super) fn judge(&mut self, batch: &Batch) -> Commit {
        let read = |condition: &crate::Condition| self.seen.contains_key(&condition.key);
        assert!(batch.conditions().iter().all(read), "what a condition looks at is read first");
        let Ok(commit) = judge(self, batch);
        commit
    }
}

/// Keys at which no condition looks are not kept: nobody asks for them, and an addition to one is the
/// cluster's own.
impl Tree for Draft {
    type Error = Infallible;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.seen.get(key).cloned().flatten())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        if let Some(seen) = self.seen.get_mut(key) {
            *seen = Some(value.to_vec());
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Infallible> {
        if let Some(seen) = self.seen.get_mut(key) {
            *seen = None;
        }
        Ok(())
    }

    fn remove_range(&mut self, range: &KeyRange) -> Result<(), Infallible> {
        let within = (Bound::Included(&*range.start), Bound::Excluded(&*range.end));
        self.seen.range_mut::<[u8], _>(within).for_each(|(_, seen)| *seen = None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitError, Engine, Memory, Write};

    #[test]
    fn neighbours_share_a_transaction_up_to_a_megabyte() {
        let full = limits::SHARED_TRANSACTION_BYTES_MAX;
        assert_eq!(share(&[]), []);
        assert_eq!(share(&[1, 2, 3, full]), [0..3, 3..4]);
        assert_eq!(share(&[full, 1]), [0..1, 1..2]);
        assert_eq!(share(&[1, full - 1, 1]), [0..2, 2..3]);
        assert_eq!(share(&[1, 9 * full, 1, 1]), [0..1, 1..2, 2..4], "a heavy batch is alone");
    }

    #[test]
    fn what_weighs_too_much_only_with_its_prefix_is_refused_before_it_is_sent() {
        let mut batch = Batch::new();
        for _ in 0..120_000 {
            batch.add("t/n", 1);
        }
        assert_eq!(batch.check(), Ok(()));
        let error = weigh(&batch, limits::PREFIX_BYTES_MAX).unwrap_err();
        assert!(matches!(error, LimitError::BatchTooHeavy { weight_bytes } if weight_bytes > 30_000_000));
        let mut long = Batch::new();
        long.put(vec![b'k'; limits::KEY_BYTES_MAX + 1], "");
        assert!(matches!(weigh(&long, 1), Err(LimitError::KeyTooLong { .. })));
    }

    #[test]
    fn a_weight_is_more_than_the_cluster_counts() {
        // Keys and values written, the range it conflicts with, and FoundationDB's structures for both.
        let (key, value, start) = (b"job/0123456789abcdef", vec![0; 300], 8);
        let mut batch = Batch::new();
        batch.put(key, value.clone());
        let counted = (start + key.len()) + value.len() + 40 + 2 * (start + key.len()) + 1 + 24;
        assert!(weigh(&batch, start).unwrap() - MARKER_BYTES >= counted);
        let mut batch = Batch::new();
        batch.delete_range(KeyRange::new("job/0", "job/1"));
        let counted = 4 * (start + "job/0".len()) + 40 + 24;
        assert!(weigh(&batch, start).unwrap() - MARKER_BYTES >= counted);
    }

    /// Judges a group as the engine does, with a map for the cluster.
    fn judged(engine: &Memory, group: &[Batch]) -> Vec<Commit> {
        let batches: Vec<&Batch> = group.iter().collect();
        let snapshot = engine.snapshot().unwrap();
        let found = |key: &[u8]| (key.to_vec(), snapshot.get(key).unwrap());
        let mut draft = Draft::new(looked_at(&batches).into_iter().map(found));
        batches.into_iter().map(|batch| draft.judge(batch)).collect()
    }

    fn batch_of(fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
        let mut batch = Batch::new();
        fill(&mut batch);
        batch
    }

    #[test]
    fn batches_see_what_those_before_them_in_the_transaction_did() {
        let engine = Memory::new();
        let groups = [
            vec![batch_of(|batch| batch.put("t/a", "1").put("t/b", [1, 1]).put("t/long", [0xff; 12]))],
            vec![
                batch_of(|batch| batch.expect_equals("t/a", "1").put("t/a", "2").add("t/b", 1)),
                batch_of(|batch| batch.expect_equals("t/a", "1").put("t/no", "1")),
                batch_of(|batch| batch.expect_absent("t/no").expect_equals("t/a", "2").delete("t/a")),
                batch_of(|batch| batch.expect_equals("t/b", 0x0102u64.to_le_bytes()).add("t/new", 5)),
                batch_of(|batch| batch.expect_equals("t/new", 5u64.to_le_bytes()).add("t/long", 1)),
                batch_of(|batch| batch.expect_equals("t/long", [0; 8]).expect_exists("t/a")),
                batch_of(|batch| batch.put("t/a", "3").delete_range(KeyRange::prefix("t/"))),
                batch_of(|batch| batch.expect_absent("t/a").expect_absent("t/b").put("t/end", "1")),
            ],
        ];
        for group in groups {
            let expected = |outcome: Result<Commit, CommitError>| outcome.unwrap();
            let judged = judged(&engine, &group);
            let memory: Vec<Commit> = engine.commit_all(group).into_iter().map(expected).collect();
            assert_eq!(judged, memory);
        }
        assert!(engine.snapshot().unwrap().get(b"t/end").unwrap().is_some(), "the groups did what they say");
    }

    #[test]
    fn only_conditions_are_read() {
        let mut batch = Batch::new();
        batch.put("t/blind", "1").add("t/count", 1).expect_absent("t/seen");
        assert_eq!(looked_at(&[&batch]).into_iter().collect::<Vec<_>>(), [b"t/seen"]);
        assert!(matches!(batch.writes()[1], Write::Add { .. }));
    }
}
