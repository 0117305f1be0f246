//! A job's stages on its home lane: products on their way to the store, and what follows from them.
//!
//! Stores nothing itself and looks into no product; planners say what comes next.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_planners::Next;
use tessera_protocol::api::JobFailure;
use tessera_protocol::id::Digest;
use tessera_protocol::unit::{ShardIndex, Tick};

use super::{Home, Judge};
use crate::effect::Outbox;
use crate::gatherer::Gatherer;
use crate::planted::Planted;
use crate::record::Kept;

impl Home {
    /// Goes on when every product of a stage is durable.
    pub(super) fn next_stage(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        let products = self.reducer.gatherer_mut().map(Gatherer::complete).unwrap_or_default();
        match tessera_planners::next_stage(&self.job.manifest, &self.plan, products) {
            Ok(Next::Finished(document)) => self.finish(document, Some(Kept::Products), judge),
            Ok(Next::Round(plan)) => self.begin(*plan, judge, out),
            Err(error) => {
                let stage = self.plan.stage().unwrap_or_default().to_string();
                self.fail(JobFailure::StageFailed { stage, cause: error.to_string() }, judge);
            }
        }
    }

    /// Products that are to be stored now.
    pub fn products_to_store(&mut self, now: Tick) -> Vec<(ShardIndex, Digest, Arc<[u8]>)> {
        self.reducer.gatherer_mut().map(|gatherer| gatherer.to_store(now)).unwrap_or_default()
    }

    /// A product is durable, or the store refused it.
    pub fn product_stored(&mut self, index: ShardIndex, stored: bool, judge: &Judge<'_>, out: &mut Outbox) {
        if let Some(gatherer) = self.reducer.gatherer_mut() {
            let was_full = gatherer.is_full();
            let believed = stored || self.planting.is(Planted::BelieveRefusedProducts);
            gatherer.stored(index, believed, judge.now);
            if was_full && !gatherer.is_full() {
                self.wake(out);
            }
        }
        (self.unsaved, self.unseen) = (true, true);
        self.go_on_if_complete(judge, out);
    }
}
