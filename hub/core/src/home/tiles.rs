//! A matrix's tiles on their home lane: on their way to the store, and from there into the result's file.
//!
//! Writes nothing itself; what is owed for a tile goes with it.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::JobFailure;
use tessera_protocol::id::Digest;
use tessera_protocol::matrix::Task;
use tessera_protocol::receipt::Service;
use tessera_protocol::unit::{ShardIndex, ShardRange, Tick};

use super::{Home, Judge};
use crate::effect::Outbox;
use crate::event::PanelFate;
use crate::ledger::Payment;
use crate::planted::Planted;
use crate::record::{Kept, KeptPanel};
use crate::reducer::ReduceError;
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

/// A panel of a tile that is to be kept.
#[derive(Clone, Debug)]
pub struct UnkeptPanel {
    /// The tile's position.
    pub tile: u64,
    /// Which panel of it.
    pub panel: u64,
    /// Its elements.
    pub bytes: Arc<[u8]>,
    /// Who is paid for it.
    pub paid: Vec<Payment>,
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

    /// Panels that are to be kept now, each with who is paid for it.
    pub fn panels_to_keep(&mut self, now: Tick) -> Vec<UnkeptPanel> {
        if self.is_ending() {
            return Vec::new();
        }
        let Some(stitcher) = self.reducer.stitcher_mut() else { return Vec::new() };
        let (panels, due) = (stitcher.task().panels(), stitcher.to_keep(now));
        let unkept = |((tile, panel), bytes)| {
            let index = ShardIndex(tile * panels + panel);
            UnkeptPanel { tile, panel, bytes, paid: self.bill.owed_in(ShardRange::one(index)) }
        };
        due.into_iter().map(unkept).collect()
    }

    /// Tiles all of whose panels are kept and that are to be written now, with who is paid for them.
    pub fn tiles_to_finish(&mut self, now: Tick) -> Vec<(u64, Vec<Payment>)> {
        if self.is_ending() {
            return Vec::new();
        }
        let Some(stitcher) = self.reducer.stitcher_mut() else { return Vec::new() };
        let due = stitcher.to_finish(now);
        due.into_iter().map(|tile| (tile, self.bill.owed_in(self.shards_of(tile)))).collect()
    }

    /// How the tiles are cut, and by which plan.
    pub fn cut(&self) -> Option<(Arc<Task>, Digest)> {
        Some((self.plan.matrix()?.clone(), self.plan.digest()))
    }

    /// Goes on from panels that were kept when the hub stopped. What is not to be done any more, or is paid otherwise
    /// than once, is as if it had not been.
    pub(super) fn recover_panels(&mut self, panels: Vec<KeptPanel>) {
        for KeptPanel { plan, index, paid } in panels {
            let (shards, checks): (Vec<&Payment>, Vec<&Payment>) =
                paid.iter().partition(|payment| payment.service == Service::Shard);
            let is_of_it = paid.iter().all(|payment| payment.index == index);
            let wanted = plan == self.plan.digest() && self.todo.contains(index);
            if let [by] = shards[..]
                && self.reducer.stitcher().is_some()
                && wanted
                && is_of_it
            {
                self.todo.remove(ShardRange::one(index));
                self.reducer.recover_panel(index);
                if checks.is_empty() {
                    *self.unchecked.entry(by.agent).or_default() += 1;
                }
                paid.into_iter().for_each(|payment| self.bill.owe(payment));
            }
        }
    }

    /// A panel is kept, or cannot be.
    pub fn panel_kept(
        &mut self,
        (tile, panel): (u64, u64),
        fate: PanelFate,
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) {
        if self.is_ending() {
            return;
        }
        if let PanelFate::NotFinite = fate {
            let cause = ReduceError::NotFinite.to_string();
            return self.fail(JobFailure::NotReducible { cause }, judge);
        }
        if let Some(stitcher) = self.reducer.stitcher_mut() {
            stitcher.kept(tile, panel, fate == PanelFate::Kept, judge.now);
        }
        self.wake(out);
        self.unseen = true;
        self.go_on_if_complete(judge, out);
    }

    /// What was kept of a tile is gone: its shards are computed and paid again.
    pub fn tile_lost(&mut self, tile: u64, out: &mut Outbox) {
        if self.is_ending() || self.planting.is(Planted::WaitForTheLost) {
            return;
        }
        let shards = self.shards_of(tile);
        if !self.reducer.stitcher_mut().is_some_and(|stitcher| stitcher.lost(tile)) {
            return;
        }
        for index in self.reducer.undo(shards) {
            self.todo.insert(ShardRange::one(index));
        }
        self.bill.disown(shards);
        (self.unsaved, self.unseen) = (true, true);
        self.wake(out);
    }

    fn shards_of(&self, tile: u64) -> ShardRange {
        let panels = self.plan.matrix().map_or(0, |task| task.panels());
        ShardRange { start: tile * panels, end: (tile + 1) * panels }
    }

    /// A write of a tile succeeded or failed.
    pub fn tile_written(&mut self, tile: u64, succeeded: bool, judge: &Judge<'_>, out: &mut Outbox) {
        let stitcher = self.reducer.stitcher_mut();
        if stitcher.is_some_and(|stitcher| stitcher.written(tile, succeeded, judge.now)) {
            self.tile_lost(tile, out);
        }
        self.wake(out);
        if succeeded {
            self.bill.tile_written(self.shards_of(tile));
        }
        self.unseen = true;
        self.go_on_if_complete(judge, out);
    }
}
