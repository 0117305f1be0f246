//! The keeper's side of the world: the real sums of panels over a disk that loses what no checkpoint saw.

use std::collections::BTreeMap;
use std::sync::Arc;

use tessera_hub_core::event::PanelFate;
use tessera_hub_core::record::KeptPanel;
use tessera_hub_core::{BatchId, Event, Payment, Record};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::ShardIndex;
use tessera_vmem::{Arena, Folds, KeepError, Panel, Volatile};

use super::World;
use crate::sim::checker::Violation;

/// Memory for blocks: few of a run's largest matrix fit. *Units*: bytes.
const RESIDENT_BYTES_MAX: usize = 8 << 10;

/// A panel on its way to the keeper, or a tile on its way out.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) job: JobId,
    pub(super) task: Arc<Task>,
    pub(super) plan: Digest,
    pub(super) tile: u64,
}

/// What the keeper of the hub that lives holds, and what is left when it dies.
#[derive(Debug)]
pub(super) struct Keeper {
    folds: Folds<Volatile>,
    durable: Volatile,
    /// By the numbers that panels are noted with.
    paid: Vec<Vec<Payment>>,
}

fn folds(of: Volatile) -> Folds<Volatile> {
    Folds::new(Arena::open(of, RESIDENT_BYTES_MAX).expect("a disk in memory can be read"))
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        Keeper { folds: folds(Volatile::default()), durable: Volatile::default(), paid: Vec::new() }
    }

    /// The hub dies: what the last checkpoint saw is left.
    pub(super) fn die(&mut self) {
        self.folds = folds(self.durable.clone());
    }

    fn checkpoint(&mut self) {
        self.folds.arena_mut().checkpoint().expect("a disk in memory takes everything");
        self.durable = self.folds.arena_mut().backing_mut().clone();
    }

    pub(super) fn forget(&mut self, job: JobId) {
        self.folds.forget_job(job);
    }
}

impl World {
    /// The panels of open jobs that a hub finds when it starts.
    pub(super) fn panels(&mut self) -> BTreeMap<JobId, Vec<KeptPanel>> {
        let mut panels: BTreeMap<JobId, Vec<KeptPanel>> = BTreeMap::new();
        for found in self.keeper.folds.found() {
            let stored = self.store.jobs.get(&found.job).filter(|stored| stored.end.is_none());
            let task = stored.and_then(|stored| stored.job.plan.matrix());
            let Some((stored, task)) = stored.zip(task) else {
                self.keeper.folds.forget_job(found.job);
                continue;
            };
            if stored.has_tile(found.plan, found.tile) {
                self.keeper.folds.forget_tile(found.job, found.tile);
                continue;
            }
            let number = u64::from_le_bytes(found.note[..].try_into().expect("a note is a number"));
            let index = ShardIndex(found.tile * task.panels() + found.panel);
            let panel =
                KeptPanel { plan: found.plan, index, paid: self.keeper.paid[number as usize].clone() };
            panels.entry(found.job).or_default().push(panel);
            self.note("panels that a new hub goes on from");
        }
        panels
    }

    /// A panel reaches the keeper, who may find its disk full or the tile damaged.
    pub(super) fn keep(&mut self, lane: u16, place: &Place, panel: u64, bytes: &[u8], paid: Vec<Payment>) {
        let Place { job, tile, .. } = *place;
        let event = if self.write_fails() {
            Event::PanelKept { job, tile, panel, fate: PanelFate::Refused }
        } else if self.faulty() && self.random.chance(self.swarm.commit_fails / 4) {
            self.note("tiles that the disk lost");
            self.keeper.folds.forget_tile(job, tile);
            Event::TileLost { job, tile }
        } else {
            let note = (self.keeper.paid.len() as u64).to_le_bytes().to_vec();
            self.keeper.paid.push(paid);
            let dtype = place.task.dtype();
            let kept =
                self.keeper.folds.keep(&Panel { job, plan: place.plan, tile, panel, dtype, note }, bytes);
            match kept {
                Ok(()) => Event::PanelKept { job, tile, panel, fate: PanelFate::Kept },
                Err(KeepError::NotFinite) => {
                    Event::PanelKept { job, tile, panel, fate: PanelFate::NotFinite }
                }
                Err(error) => panic!("{job}, tile {tile}: {error}"),
            }
        };
        if self.random.chance(300) {
            self.keeper.checkpoint();
        }
        let at = self.any_order();
        self.reach_lane(at, lane, event);
    }

    /// A whole tile goes to the store.
    pub(super) fn finish(
        &mut self,
        lane: u16,
        batch: BatchId,
        place: &Place,
        earned: Vec<Payment>,
    ) -> Result<(), Violation> {
        let Place { job, ref task, plan, tile } = *place;
        match self.keeper.folds.tile(job, tile, (task.panels(), task.dtype())) {
            Ok(elements) => {
                let bytes = elements.into();
                self.commit(lane, batch, Record::TileReduced { job, plan, tile, bytes, earned })?;
                if self.store.jobs.get(&job).is_some_and(|stored| stored.has_tile(plan, tile)) {
                    self.keeper.folds.forget_tile(job, tile);
                }
            }
            Err(error) => {
                assert!(matches!(error, KeepError::Lost), "{job}, tile {tile}: {error}");
                let at = self.any_order();
                self.reach_lane(at, lane, Event::CommitFailed { batch, too_large: false });
                self.reach_lane(at, lane, Event::TileLost { job, tile });
            }
        }
        Ok(())
    }
}
