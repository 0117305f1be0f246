//! The reducer: verified partials in, exact tallies or finished tiles out. Arrival order cannot show.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tessera_planners::{Part, Plan};
use tessera_protocol::tally::{Tally, TallyError};
use tessera_protocol::unit::ShardRange;

use crate::ranges::Ranges;
use crate::stitcher::Stitcher;
use crate::verifier::{Partial, Verified};

/// What of a job is reduced.
#[derive(Clone, Debug, Default)]
pub struct Reducer {
    done: Ranges,
    /// Of the passes that are complete.
    earlier: Vec<Arc<Tally>>,
    tally: Option<Arc<Tally>>,
    stitcher: Option<Stitcher>,
}

/// Why verified partials do not reduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceError {
    /// Two tallies do not merge.
    Tally(TallyError),
    /// A sum of panels left the finite numbers.
    NotFinite,
    /// A partial of another workload; a bug of ours.
    Kind,
}

impl fmt::Display for ReduceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: String = match self {
            ReduceError::Tally(error) => error.to_string(),
            ReduceError::NotFinite => "an element of the result is too large for its type".to_string(),
            ReduceError::Kind => "a partial is of another workload than its job".to_string(),
        };
        f.write_str(&words)
    }
}

impl core::error::Error for ReduceError {}

impl Reducer {
    /// Continues from what is reduced already: shards, the tallies of complete passes, the running one.
    pub fn resume(plan: &Plan, done: Ranges, earlier: Vec<Arc<Tally>>, tally: Option<Arc<Tally>>) -> Reducer {
        let stitcher = plan.matrix().map(|task| Stitcher::new(task.clone()));
        Reducer { done, earlier, tally, stitcher }
    }

    /// Adds a partial.
    ///
    /// *Panics*: when its shard is in already; the caller counts each shard once.
    pub fn absorb(&mut self, partial: Verified<Partial>) -> Result<(), ReduceError> {
        let Partial { index, part } = partial.into_inner();
        match (part, &mut self.stitcher) {
            (Part::Tally(tally), None) => match &mut self.tally {
                None => self.tally = Some(Arc::new(tally)),
                // Clones only while a checkpoint of the same tally is on its way to the store.
                Some(mine) => Arc::make_mut(mine).merge(&tally).map_err(ReduceError::Tally)?,
            },
            (Part::Block(bytes), Some(stitcher)) => {
                stitcher.absorb(index.0, bytes).map_err(|_| ReduceError::NotFinite)?;
            }
            (Part::Tally(_), Some(_)) | (Part::Block(_), None) => return Err(ReduceError::Kind),
        }
        self.done.insert(ShardRange::one(index));
        Ok(())
    }

    /// The pass is complete: what comes now adds up to another tally.
    pub fn begin_pass(&mut self) {
        self.earlier.extend(self.tally.take());
    }

    /// The shards that are in.
    pub fn done(&self) -> &Ranges {
        &self.done
    }

    /// What the shards of this pass add up to; nothing before the first.
    pub fn tally(&self) -> Option<&Arc<Tally>> {
        self.tally.as_ref()
    }

    /// Of the passes that are complete.
    pub fn earlier(&self) -> &[Arc<Tally>] {
        &self.earlier
    }

    /// The tallies of all passes so far.
    pub fn tallies(&self) -> impl Iterator<Item = &Arc<Tally>> {
        self.earlier.iter().chain(&self.tally)
    }

    /// The tiles of a matrix job.
    pub fn stitcher(&self) -> Option<&Stitcher> {
        self.stitcher.as_ref()
    }

    /// The tiles of a matrix job.
    pub fn stitcher_mut(&mut self) -> Option<&mut Stitcher> {
        self.stitcher.as_mut()
    }
}
