//! An engine whose every commit requires that a key is there: whoever removes it ends all commits at once.
//!
//! Owns that condition, and the word on its failing. It works on any engine.

use crate::batch::Batch;
use crate::engine::{Commit, CommitError, Engine, ReadError, Snapshot};
use std::sync::Arc;

/// Commits as long as its fence stands; reads as the engine below it.
pub struct Fenced {
    engine: Arc<dyn Engine>,
    fence: Vec<u8>,
    down: Box<dyn Fn() + Send + Sync>,
}

impl Fenced {
    /// Over `engine`, while there is something under `fence`; `down` hears of each commit that found nothing there.
    pub fn new(
        engine: Arc<dyn Engine>,
        fence: impl Into<Vec<u8>>,
        down: impl Fn() + Send + Sync + 'static,
    ) -> Fenced {
        Fenced { engine, fence: fence.into(), down: Box::new(down) }
    }
}

impl Engine for Fenced {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn stored_bytes(&self) -> Option<u64> {
        self.engine.stored_bytes()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.engine.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let guarded = |batch: Batch| {
            // Judged first, so that what else does not hold is not said of a store that is another's.
            let mut guarded = Batch::new();
            guarded.expect_exists(self.fence.clone());
            guarded.append(batch);
            guarded
        };
        let outcomes = self.engine.commit_all(batches.into_iter().map(guarded).collect());
        let told = |outcome: Result<Commit, CommitError>| match outcome {
            Ok(Commit::Conflict { key, .. }) if key == self.fence => Err(CommitError::Fenced),
            outcome => outcome,
        };
        let outcomes: Vec<_> = outcomes.into_iter().map(told).collect();
        if outcomes.iter().any(|outcome| matches!(outcome, Err(CommitError::Fenced))) {
            (self.down)();
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn put(key: &str) -> Batch {
        let mut batch = Batch::new();
        batch.expect_absent(key).put(key, "it");
        batch
    }

    #[test]
    fn what_is_written_behind_the_fence_comes_to_nothing_and_says_so() {
        let engine = Arc::new(Memory::default());
        assert_eq!(engine.commit(put("fence")).unwrap(), Commit::Done);
        let heard = Arc::new(AtomicU32::new(0));
        let fenced = {
            let heard = heard.clone();
            Fenced::new(engine.clone(), "fence", move || {
                heard.fetch_add(1, Ordering::Relaxed);
            })
        };
        assert_eq!(fenced.commit(put("a")).unwrap(), Commit::Done);
        assert!(matches!(fenced.commit(put("a")).unwrap(), Commit::Conflict { key, .. } if key == b"a"));
        let mut down = Batch::new();
        down.delete("fence");
        assert_eq!(engine.commit(down).unwrap(), Commit::Done);
        let outcomes = fenced.commit_all(vec![put("a"), put("b")]);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CommitError::Fenced))), "{outcomes:?}");
        assert_eq!(heard.load(Ordering::Relaxed), 1);
        assert_eq!(engine.snapshot().unwrap().get(b"b").unwrap(), None);
    }
}
