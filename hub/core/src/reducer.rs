//! The reducer: verified partials in, exact tallies, finished tiles or products out. Arrival order cannot show.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tessera_planners::{Part, Plan};
use tessera_protocol::id::Digest;
use tessera_protocol::product::ProductRef;
use tessera_protocol::tally::{Tally, TallyError};
use tessera_protocol::unit::{ShardIndex, ShardRange};

use crate::gatherer::Gatherer;
use crate::ranges::Ranges;
use crate::stitcher::Stitcher;
use crate::verifier::{Content, Partial, Verified};

/// What of a job is reduced.
#[derive(Clone, Debug, Default)]
pub struct Reducer {
    done: Ranges,
    /// Of the passes that are complete.
    earlier: Vec<Arc<Tally>>,
    tally: Option<Arc<Tally>>,
    stitcher: Option<Stitcher>,
    gatherer: Option<Gatherer>,
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
        let gatherer = plan.stage().map(|_| Gatherer::default());
        Reducer { done, earlier, tally, stitcher, gatherer }
    }

    /// The same for a stage, of which these products are durable.
    pub fn resume_stage(done: Ranges, products: BTreeMap<ShardIndex, ProductRef>) -> Reducer {
        Reducer { done, gatherer: Some(Gatherer::resume(products)), ..Reducer::default() }
    }

    /// Adds partials, and says of each that it is in; those after one that does not reduce are not.
    ///
    /// *Panics*: when a shard is in already; the caller counts each shard once.
    pub fn absorb(
        &mut self,
        partials: Verified<Vec<Partial>>,
        mut is_in: impl FnMut(ShardIndex, Digest),
    ) -> Result<(), ReduceError> {
        let mut partials = partials.into_inner().into_iter();
        if self.stitcher.is_none()
            && self.gatherer.is_none()
            && self.tally.is_none()
            && let Some(Partial { index, digest, content, .. }) = partials.next()
        {
            self.tally = Some(Arc::new(content.into_tally().ok_or(ReduceError::Kind)?));
            self.done.insert(ShardRange::one(index));
            is_in(index, digest);
        }
        // Clones only while a checkpoint of the same tally is on its way to the store.
        let mut tally = self.tally.as_mut().map(Arc::make_mut);
        for Partial { index, digest, content, .. } in partials {
            match (content, &mut tally) {
                (Content::Count { samples, count }, Some(tally)) => {
                    tally.merge_count(samples, count).map_err(ReduceError::Tally)?;
                }
                (Content::Count { .. }, None) => return Err(ReduceError::Kind),
                (Content::Part(part), tally) => {
                    match (*part, tally, &mut self.stitcher, &mut self.gatherer) {
                        (Part::Tally(more), Some(tally), ..) => {
                            tally.merge(&more).map_err(ReduceError::Tally)?
                        }
                        (Part::Block(bytes), None, Some(stitcher), None) => stitcher.absorb(index.0, bytes),
                        (Part::Product(product, bytes), None, None, Some(gatherer)) => {
                            gatherer.absorb(index, product, bytes);
                        }
                        (Part::Tally(_) | Part::Block(_) | Part::Product(..), ..) => {
                            return Err(ReduceError::Kind);
                        }
                    }
                }
            }
            self.done.insert(ShardRange::one(index));
            is_in(index, digest);
        }
        Ok(())
    }

    /// A panel of a tile was kept before the hub started.
    pub fn recover_panel(&mut self, index: ShardIndex) {
        if let Some(stitcher) = &mut self.stitcher {
            stitcher.recover(index.0);
            self.done.insert(ShardRange::one(index));
        }
    }

    /// What was in of these shards is lost. *Returns* those that were.
    pub fn undo(&mut self, range: ShardRange) -> Vec<ShardIndex> {
        let was_done = (range.start..range.end).map(ShardIndex).filter(|index| self.done.contains(*index));
        let lost: Vec<ShardIndex> = was_done.collect();
        lost.iter().for_each(|index| self.done.remove(ShardRange::one(*index)));
        lost
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

    /// The products of a stage.
    pub fn gatherer(&self) -> Option<&Gatherer> {
        self.gatherer.as_ref()
    }

    /// The products of a stage.
    pub fn gatherer_mut(&mut self) -> Option<&mut Gatherer> {
        self.gatherer.as_mut()
    }

    /// The tiles of a matrix job.
    pub fn stitcher_mut(&mut self) -> Option<&mut Stitcher> {
        self.stitcher.as_mut()
    }
}
