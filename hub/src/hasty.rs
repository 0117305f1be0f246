//! A store that says "done" before it is, so that tests can see whether they would notice. Only with the
//! feature `hasty`, which no release has, and only where the environment asks for it.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use tessera_storage::{Batch, Commit, CommitError, Engine, ReadError, Snapshot};

/// How long commits take that are acknowledged at once. *Units*: milliseconds.
const ASKED_BY: &str = "TESSERA_TEST_ACKNOWLEDGE_EARLY_MS";

/// The store itself, or a hasty one over it.
pub(crate) fn wrapped(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    let delay_ms = std::env::var(ASKED_BY).ok().and_then(|text| text.parse().ok());
    let Some(delay_ms) = delay_ms else { return engine };
    let (late, waiting) = channel::<Vec<Batch>>();
    let store = engine.clone();
    // Ends with the process, in the middle of whatever it still has: that is the bug.
    thread::spawn(move || {
        for batches in waiting {
            thread::sleep(Duration::from_millis(delay_ms));
            drop(store.commit_all(batches));
        }
    });
    Arc::new(Hasty { engine, late })
}

struct Hasty {
    engine: Arc<dyn Engine>,
    late: Sender<Vec<Batch>>,
}

impl Engine for Hasty {
    fn name(&self) -> &'static str {
        "hasty"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.engine.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let outcomes = batches.iter().map(|_| Ok(Commit::Done)).collect();
        // Nobody hears it once the process ends.
        let _ = self.late.send(batches);
        outcomes
    }
}
