//! A matrix's tiles on their home lane: on their way to the store, and from there into the result's file.
//!
//! Writes nothing itself; what is owed for a tile goes with it.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::JobFailure;
use tessera_protocol::id::Digest;
use tessera_protocol::unit::{ShardRange, Tick};

use super::{Home, Judge};
use crate::effect::Outbox;
use crate::ledger::Payment;
use crate::record::Kept;
use crate::write::Write;

/// A tile of a matrix that is to be written.
#[derive(Clone, Debug)]
pub struct FinishedTile {
    /// Its position.
    pub tile: u64,
    /// Its elements.
    pub bytes: Arc<[u8]>,
    /// Who is paid for its shards.
    pub earned: Vec<Payment>,
}

impl Home {
    /// The tiles were read in the order of the result's file, or could not be.
    pub fn assembled(&mut self, output: Option<(Digest, u64)>, judge: &Judge<'_>) {
        self.assembling = Write::ended(output.is_some(), judge.now);
        self.unseen = true;
        let Some((digest, bytes)) = output.filter(|_| !self.is_ending()) else { return };
        match tessera_planners::finish_matrix(&self.plan, digest, bytes) {
            Ok(document) => {
                let tiles = self.plan.matrix().map(|task| Kept::Tiles(task.clone()));
                self.finish(document, tiles, judge);
            }
            Err(error) => self.fail(JobFailure::NotReducible { cause: error.to_string() }, judge),
        }
    }

    /// Finished tiles that are to be written now with who is paid for them, and the plan they are of.
    pub fn tiles_to_write(&mut self, now: Tick) -> Option<(Digest, Vec<FinishedTile>)> {
        // Written after the end of a cancelled job, a tile would stay for ever.
        if self.is_ending() {
            return None;
        }
        let tiles = self.reducer.stitcher_mut()?.to_write(now);
        let earned = |tile| self.bill.owed_in(self.shards_of(tile));
        let finished = |(tile, bytes)| FinishedTile { tile, bytes, earned: earned(tile) };
        let tiles: Vec<FinishedTile> = tiles.into_iter().map(finished).collect();
        (!tiles.is_empty()).then(|| (self.plan.digest(), tiles))
    }

    fn shards_of(&self, tile: u64) -> ShardRange {
        let panels = self.plan.matrix().map_or(0, |task| task.panels());
        ShardRange { start: tile * panels, end: (tile + 1) * panels }
    }

    /// A write of a tile succeeded or failed.
    pub fn tile_written(&mut self, tile: u64, succeeded: bool, judge: &Judge<'_>, out: &mut Outbox) {
        if let Some(stitcher) = self.reducer.stitcher_mut() {
            let was_full = stitcher.is_full();
            stitcher.written(tile, succeeded, judge.now);
            if was_full && !stitcher.is_full() {
                self.wake(out);
            }
        }
        if succeeded {
            self.bill.tile_written(self.shards_of(tile));
        }
        self.unseen = true;
        self.go_on_if_complete(judge, out);
    }
}
