//! What a store was asked, and the one check: what is there afterwards is the outcome of a beginning of
//! that, and of no less than was acknowledged.

use std::collections::BTreeMap;
use std::fmt;

use tessera_storage::{Batch, Commit, CommitError, Engine, KeyRange, Memory, ReadError};

use super::disk::Dice;

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys that batches share, so that they meet each other.
const KEYS: u64 = 24;
/// Large values are one page to twenty, and one of two chunks. *Units*: bytes.
const LARGE_BYTES: [usize; 4] = [3_000, 9_000, 20_000, 70_000];

/// Why a store is not what it promised to be.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It cannot be read although the disk is well.
    Unreadable(ReadError),
    /// What is there is the outcome of no beginning of what was asked that has all that was acknowledged.
    Wrong {
        /// How many batches were acknowledged.
        acknowledged: usize,
        /// How many were asked for.
        asked: usize,
        /// After how many of them it looks so, if after any.
        as_after: Option<usize>,
    },
    /// A batch was judged otherwise than on what is there.
    Misjudged {
        /// How it was judged.
        outcome: Commit,
        /// How it should have been.
        expected: Commit,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Unreadable(error) => write!(f, "{error}"),
            Broken::Wrong { acknowledged, asked, as_after: Some(there) } => {
                write!(f, "{acknowledged} of {asked} batches were acknowledged, {there} are there")
            }
            Broken::Wrong { acknowledged, asked, as_after: None } => {
                write!(f, "{acknowledged} of {asked} batches were acknowledged, and there is a mixture")
            }
            Broken::Misjudged { outcome, expected } => {
                write!(f, "judged {outcome:?} instead of {expected:?}")
            }
        }
    }
}

/// What was asked since the contents were last known.
pub(crate) struct History {
    /// What is there after the first so many batches.
    states: Vec<Contents>,
    acknowledged: usize,
    model: Memory,
}

impl History {
    pub(crate) fn new() -> History {
        History { states: vec![Contents::new()], acknowledged: 0, model: Memory::new() }
    }

    /// Commits a group and notes what it comes to; answers whether it was acknowledged.
    pub(crate) fn commit(&mut self, engine: &dyn Engine, group: Vec<Batch>) -> Result<bool, Broken> {
        let mut expected = Vec::new();
        for batch in &group {
            expected.push(self.model.commit(batch.clone()).expect("batches are within the limits"));
            self.states.push(contents(&self.model).expect("memory can be read"));
        }
        for (outcome, expected) in engine.commit_all(group).into_iter().zip(expected) {
            match outcome {
                Ok(outcome) if outcome == expected => self.acknowledged += 1,
                Ok(outcome) => return Err(Broken::Misjudged { outcome, expected }),
                Err(CommitError::Limit(limit)) => panic!("batches are within the limits: {limit}"),
                Err(_) => return Ok(false),
            }
        }
        self.acknowledged = self.states.len() - 1;
        Ok(true)
    }

    /// Reads the store, checks it, and goes on from what is there.
    pub(crate) fn check(&mut self, engine: &dyn Engine) -> Result<(), Broken> {
        let found = contents(engine).map_err(Broken::Unreadable)?;
        let allowed = &self.states[self.acknowledged..];
        if !allowed.contains(&found) {
            let as_after = self.states.iter().position(|state| *state == found);
            let asked = self.states.len() - 1;
            return Err(Broken::Wrong { acknowledged: self.acknowledged, asked, as_after });
        }
        self.model = Memory::new();
        for (key, value) in &found {
            let mut batch = Batch::new();
            batch.put(&key[..], &value[..]);
            assert_eq!(self.model.commit(batch).expect("within the limits"), Commit::Done);
        }
        self.states = vec![found];
        self.acknowledged = 0;
        Ok(())
    }
}

fn contents(engine: &dyn Engine) -> Result<Contents, ReadError> {
    let entries = engine.snapshot()?.range(&KeyRange::prefix("t/"), usize::MAX)?;
    Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

/// One to four batches: small and large values, counters, deletions, and now and then a condition that
/// does not hold.
pub(crate) fn group(dice: &mut Dice) -> Vec<Batch> {
    (0..=dice.below(4)).map(|_| batch(dice)).collect()
}

fn batch(dice: &mut Dice) -> Batch {
    let mut batch = Batch::new();
    let key = |dice: &mut Dice| format!("t/{:02}", dice.below(KEYS));
    if dice.below(3) == 0 {
        match dice.below(2) {
            0 => batch.expect_absent(key(dice)),
            _ => batch.expect_exists(key(dice)),
        };
    }
    // A batch is told from its neighbours by what it counts.
    batch.add("t/count", 1);
    for _ in 0..=dice.below(5) {
        match dice.below(12) {
            0 => batch.delete(key(dice)),
            1 => batch.delete_range(KeyRange::new(key(dice), "t/24")),
            2 => {
                let length = LARGE_BYTES[dice.below(4) as usize];
                let fill = dice.below(256) as u8;
                batch.put_chunked(format!("t/large/{}", dice.below(3)).as_bytes(), &vec![fill; length])
            }
            _ => {
                let length = dice.below(400) as usize;
                let fill = dice.below(256) as u8;
                batch.put(key(dice), vec![fill; length])
            }
        };
    }
    batch
}
