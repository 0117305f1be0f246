//! From an older format to this one: value by value, in batches, each value once.
//!
//! Owns the cursor under [`Key::Upgrade`]. A batch that rewrites values moves it, so a process that is killed goes on
//! at its next start behind the last value that was rewritten, and no rewrite need bear being done twice.

use super::FormatError;
use crate::batch::{Batch, Quoted};
use crate::chunked::CHUNK_INDEX_BYTES;
use crate::engine::{Commit, Engine, KeyRange, ReadError, Snapshot};
use crate::keyspace::Key;
use crate::renewed::Renewed;
use std::error::Error;
use std::fmt;

/// What a batch may weigh before it is committed. *Units*: bytes. *Source*: FoundationDB advises less than 1 MB; a
/// batch goes above it only by its last value.
const BATCH_BYTES: usize = 512 << 10;
/// Entries read at once.
const PAGE_ENTRIES: usize = 64;

/// What becomes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// It stays.
    Keep,
    /// Another is under the key.
    Value(Vec<u8>),
    /// It lies under another key, which no range of the step holds.
    Move {
        /// Which; of a chunked value without the chunk's number.
        key: Vec<u8>,
        /// What is under it.
        value: Vec<u8>,
    },
    /// It is not needed any more.
    Remove,
}

/// What makes a store of one format from one of the format before.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The format that it makes.
    pub to: u32,
    /// Where the values lie that change. *Order*: ascending, none touching another.
    pub ranges: fn() -> Vec<KeyRange>,
    /// Whether those are put in [chunks](crate::chunked).
    pub chunked: bool,
    /// What becomes of a value, or why it is none of the format before.
    pub rewrite: fn(key: &[u8], value: &[u8]) -> Result<Rewrite, &'static str>,
}

/// Why a value cannot be brought up to a newer format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// The format that was being made.
    pub to: u32,
    /// Which value.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub says: &'static str,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the store cannot be brought up to format {}: {} {}; start the build that wrote it, or restore a backup",
            self.to,
            Quoted(&self.key),
            self.says
        )
    }
}

impl Error for StepError {}

/// Brings a store of format `found` up to `format`.
pub(super) fn upgrade(
    engine: &dyn Engine,
    found: u32,
    format: u32,
    steps: &[Step],
) -> Result<(), FormatError> {
    let mut at = found;
    while at != format {
        let next = at.checked_add(1).filter(|next| *next <= format);
        let step = steps.iter().find(|step| Some(step.to) == next).ok_or(FormatError::Other { found })?;
        apply(engine, at, step)?;
        at = step.to;
    }
    Ok(())
}

/// One step, from where it was cut off.
fn apply(engine: &dyn Engine, from: u32, step: &Step) -> Result<(), FormatError> {
    // Of many moments where an engine forgets: what lies ahead of the cursor only this changes.
    let snapshot = Renewed::new(engine);
    let cursor = snapshot.get(&Key::Upgrade.encode()).map_err(FormatError::Read)?;
    // The cursor names the format that is being made; that of a step that ended is gone with it.
    let done = cursor.as_deref().and_then(|cursor| cursor.strip_prefix(&step.to.to_be_bytes()));
    let mut work = Work { engine, from, step, batch: Batch::new(), expected: cursor.clone() };
    for range in (step.ranges)() {
        let rest = match done {
            Some(done) if *done >= *range.end => continue,
            Some(done) if *done > *range.start => KeyRange::new(done, range.end),
            _ => range,
        };
        work.rewrite(&snapshot, rest)?;
    }
    let mut last = std::mem::take(&mut work.batch);
    last.put(Key::Format, step.to.to_be_bytes()).delete(Key::Upgrade);
    work.commit(last)
}

struct Work<'a> {
    engine: &'a dyn Engine,
    from: u32,
    step: &'a Step,
    batch: Batch,
    /// The cursor as it lies in the store.
    expected: Option<Vec<u8>>,
}

impl Work<'_> {
    /// The values of a range, of which none behind the last that was rewritten is read.
    fn rewrite(&mut self, store: &dyn Snapshot, mut rest: KeyRange) -> Result<(), FormatError> {
        loop {
            let page = store.range(&rest, PAGE_ENTRIES).map_err(FormatError::Read)?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                if *entry.key < *rest.start {
                    // A further chunk of the value before.
                    continue;
                }
                let (key, value, end) = match self.step.chunked {
                    false => {
                        let end = [&entry.key[..], &[0]].concat();
                        (entry.key, entry.value, end)
                    }
                    true => whole(store, &entry.key).map_err(FormatError::Read)?,
                };
                self.value(&key, &value)?;
                rest.start = end;
                if self.batch.weight_bytes() >= BATCH_BYTES {
                    self.advance(&rest.start)?;
                }
            }
        }
    }

    fn value(&mut self, key: &[u8], value: &[u8]) -> Result<(), FormatError> {
        let to = self.step.to;
        let wrong = |says| FormatError::Step(StepError { to, key: key.to_vec(), says });
        let remove = |batch: &mut Batch| match self.step.chunked {
            true => {
                batch.delete_chunked(key);
            }
            false => {
                batch.delete(key);
            }
        };
        let put = |batch: &mut Batch, key: &[u8], value: Vec<u8>| match self.step.chunked {
            true => {
                batch.put_chunked(key, &value);
            }
            false => {
                batch.put(key, value);
            }
        };
        match (self.step.rewrite)(key, value).map_err(wrong)? {
            Rewrite::Keep => {}
            Rewrite::Value(value) => put(&mut self.batch, key, value),
            Rewrite::Move { key: new, value } => {
                remove(&mut self.batch);
                put(&mut self.batch, &new, value);
            }
            Rewrite::Remove => remove(&mut self.batch),
        }
        Ok(())
    }

    /// Commits what was rewritten with the cursor behind it.
    fn advance(&mut self, next: &[u8]) -> Result<(), FormatError> {
        let cursor = [&self.step.to.to_be_bytes()[..], next].concat();
        let mut batch = std::mem::take(&mut self.batch);
        batch.put(Key::Upgrade, cursor.clone());
        self.commit(batch)?;
        self.expected = Some(cursor);
        Ok(())
    }

    /// Nobody else may have moved the cursor: hubs that share a store start one after the other.
    fn commit(&self, mut batch: Batch) -> Result<(), FormatError> {
        batch.expect_equals(Key::Format, self.from.to_be_bytes());
        match &self.expected {
            Some(cursor) => batch.expect_equals(Key::Upgrade, cursor.clone()),
            None => batch.expect_absent(Key::Upgrade),
        };
        match self.engine.commit(batch).map_err(FormatError::Commit)? {
            Commit::Done => Ok(()),
            Commit::Conflict { .. } => Err(FormatError::Read(ReadError::Interrupted)),
        }
    }
}

/// The chunked value that a chunk belongs to: its key, its bytes, and the first key behind it.
fn whole(store: &dyn Snapshot, chunk: &[u8]) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>), ReadError> {
    let key = chunk[..chunk.len().saturating_sub(CHUNK_INDEX_BYTES)].to_vec();
    let torn = || ReadError::TornValue { key: key.clone(), stated_bytes: 0, found_bytes: 0 };
    let value = store.get_chunked(&key)?.ok_or_else(torn)?;
    let end = [&crate::chunked::range_of(&key).end[..], &[0]].concat();
    Ok((key, value, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use crate::engine::CommitError;
    use crate::format::{claim_as, of};
    use crate::keyspace::Family;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Every agent's record gets an `!` at its end: done twice, it would have two.
    const EXCLAIM: Step = Step {
        to: 2,
        ranges: || vec![Family::Agents.range(), Family::Standings.range()],
        chunked: false,
        rewrite: |_, value| match value.last() {
            Some(b'?') => Err("is in doubt"),
            Some(b'x') => Ok(Rewrite::Remove),
            _ => Ok(Rewrite::Value([value, b"!"].concat())),
        },
    };
    /// Results move below bills, and are doubled.
    const MOVE: Step = Step {
        to: 3,
        ranges: || vec![Family::Results.range()],
        chunked: true,
        rewrite: |key, value| {
            let key = [Family::Bills.prefix(), &key[Family::Results.prefix().len()..]].concat();
            Ok(Rewrite::Move { key, value: value.repeat(2) })
        },
    };

    /// An engine whose process is killed at the n-th commit from now.
    struct Mortal(Memory, AtomicU64);

    impl Engine for Mortal {
        fn name(&self) -> &'static str {
            "mortal"
        }

        fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
            self.0.snapshot()
        }

        fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
            let alive = self.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            match alive {
                Ok(_) => self.0.commit_all(batches),
                Err(_) => vec![Err(CommitError::Io(Arc::new(std::io::Error::other("killed"))))],
            }
        }
    }

    fn commit(engine: &dyn Engine, batch: Batch) {
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }

    fn old(agents: u32) -> Memory {
        let engine = Memory::default();
        let mut first = Batch::new();
        first.put(Key::Format.encode(), 1_u32.to_be_bytes());
        commit(&engine, first);
        for number in 0..agents {
            let mut batch = Batch::new();
            batch.put(format!("agent/{number:08}"), vec![b'a'; 50_000]);
            commit(&engine, batch);
        }
        let mut batch = Batch::new();
        batch.put("standing/1", "s").put("standing/2", "x").put("token/1", "t");
        batch.put_chunked(b"result/1", &[7; 200_000]).put_chunked(b"result/2", b"");
        commit(&engine, batch);
        engine
    }

    fn entries(engine: &dyn Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut all = Vec::new();
        let visit = &mut |entry: crate::Entry| all.push((entry.key, entry.value));
        engine.snapshot().unwrap().walk(&KeyRange::prefix([]), visit).unwrap();
        all
    }

    #[test]
    fn an_old_store_is_brought_up_step_by_step_and_stays_so() {
        let engine = old(40);
        claim_as(&engine, 3, &[EXCLAIM, MOVE]).unwrap();
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(of(&*snapshot).unwrap(), 3);
        for number in 0..40 {
            let value = snapshot.get(format!("agent/{number:08}").as_bytes()).unwrap().unwrap();
            assert_eq!((value.len(), value.last()), (50_001, Some(&b'!')));
        }
        assert_eq!(snapshot.get(b"standing/1").unwrap(), Some(b"s!".to_vec()));
        assert_eq!(snapshot.get(b"standing/2").unwrap(), None);
        assert_eq!(snapshot.get(b"token/1").unwrap(), Some(b"t".to_vec()));
        assert_eq!(snapshot.get_chunked(b"bill/1").unwrap(), Some(vec![7; 400_000]));
        assert_eq!(snapshot.get_chunked(b"bill/2").unwrap(), Some(Vec::new()));
        assert_eq!(snapshot.range(&Family::Results.range(), 9).unwrap(), []);
        assert_eq!(snapshot.get(&Key::Upgrade.encode()).unwrap(), None);
        let before = entries(&engine);
        claim_as(&engine, 3, &[EXCLAIM, MOVE]).unwrap();
        assert!(entries(&engine) == before, "a store of this format is left alone");
    }

    #[test]
    fn killed_at_any_commit_it_goes_on_at_the_next_start_and_rewrites_nothing_twice() {
        let steps = [EXCLAIM, MOVE];
        let expected = old(40);
        claim_as(&expected, 3, &steps).unwrap();
        let expected = entries(&expected);
        for lives in 0..20 {
            let engine = Mortal(old(40), AtomicU64::new(lives));
            let mut deaths = 0;
            while claim_as(&engine, 3, &steps).is_err() {
                deaths += 1;
                engine.1.store(lives.max(1), Ordering::Relaxed);
                assert!(deaths < 50);
            }
            assert!(entries(&engine) == expected, "{lives} commits to each life");
            assert!(deaths > 0 || lives > 3, "{lives}");
        }
    }

    #[test]
    fn a_value_that_is_none_of_the_old_format_stops_it_by_name() {
        let engine = old(1);
        let mut batch = Batch::new();
        batch.put("standing/3", "what?");
        commit(&engine, batch);
        let error = claim_as(&engine, 2, &[EXCLAIM]).unwrap_err();
        assert!(error.to_string().contains("`standing/3` is in doubt"), "{error}");
        assert_eq!(of(&*engine.snapshot().unwrap()).unwrap(), 1, "an older build still reads it");
    }

    #[test]
    fn a_store_too_old_or_too_new_for_the_steps_is_refused_unchanged() {
        let engine = old(1);
        assert!(matches!(claim_as(&engine, 3, &[MOVE]), Err(FormatError::Other { found: 1 })));
        assert!(matches!(claim_as(&engine, 0, &[]), Err(FormatError::Other { found: 1 })));
        assert_eq!(of(&*engine.snapshot().unwrap()).unwrap(), 1);
    }
}
