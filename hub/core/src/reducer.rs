//! The reducer: verified partials in, one exact tally out. Arrival order cannot show.

use alloc::sync::Arc;

use tessera_protocol::tally::{Tally, TallyError};
use tessera_protocol::unit::ShardRange;

use crate::ranges::Ranges;
use crate::verifier::{Partial, Verified};

/// What of a job is reduced.
#[derive(Clone, Debug, Default)]
pub struct Reducer {
    done: Ranges,
    tally: Option<Arc<Tally>>,
}

impl Reducer {
    /// Continues from what is reduced already.
    pub fn resume(done: Ranges, tally: Option<Arc<Tally>>) -> Reducer {
        Reducer { done, tally }
    }

    /// Adds a partial.
    ///
    /// *Panics*: when its shard is in already; the caller counts each shard once.
    pub fn absorb(&mut self, partial: Verified<Partial>) -> Result<(), TallyError> {
        let Partial { index, tally } = partial.into_inner();
        match &mut self.tally {
            None => self.tally = Some(Arc::new(tally)),
            // Clones only while a checkpoint of the same tally is on its way to the store.
            Some(mine) => Arc::make_mut(mine).merge(&tally)?,
        }
        self.done.insert(ShardRange::one(index));
        Ok(())
    }

    /// The shards that are in.
    pub fn done(&self) -> &Ranges {
        &self.done
    }

    /// What they add up to; nothing before the first.
    pub fn tally(&self) -> Option<&Arc<Tally>> {
        self.tally.as_ref()
    }
}
