//! The stitcher: verified blocks of a matrix in, finished tiles out.
//!
//! Adds the panels of a tile in ascending order, whatever order they came in, and holds a tile until it
//! is durable. Moves and adds elements; it may not multiply any.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_planners::Fold;
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::Tick;

use crate::planted::{Planted, Planting};
use crate::write::Write;

/// Bytes of finished tiles on their way to the store above which no new shards are granted.
pub const UNWRITTEN_BYTES_MAX: usize = 256 << 20;

/// A finished tile that is not durable.
#[derive(Clone, Debug)]
struct Finished {
    bytes: Arc<[u8]>,
    write: Write,
}

/// The tiles of one job.
#[derive(Clone, Debug)]
pub struct Stitcher {
    task: Arc<Task>,
    folding: BTreeMap<u64, Fold>,
    unwritten: BTreeMap<u64, Finished>,
    unwritten_bytes: usize,
    /// Of panels that are not in a finished tile.
    folding_bytes: usize,
    pub(crate) planting: Planting,
}

/// A sum of panels left the finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

impl Stitcher {
    /// Nothing is in, or only whole tiles that are durable.
    pub fn new(task: Arc<Task>) -> Stitcher {
        Stitcher {
            task,
            folding: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            unwritten_bytes: 0,
            folding_bytes: 0,
            planting: Planting::default(),
        }
    }

    /// Adds a block. The caller counts each once and has checked its length.
    pub fn absorb(&mut self, index: u64, bytes: Vec<u8>) -> Result<(), NotFinite> {
        let (tile, panel) = (index / self.task.panels(), index % self.task.panels());
        let (panels, dtype) = (self.task.panels(), self.task.dtype());
        let fold = self.folding.entry(tile).or_default();
        let panel = if self.planting.is(Planted::FoldAsTheyCome) { fold.next() } else { panel };
        let before = fold.bytes();
        let whole = fold.absorb(panel, bytes, panels, dtype).map_err(|_| NotFinite)?;
        self.folding_bytes = self.folding_bytes + fold.bytes() - before;
        if let Some(tile_bytes) = whole {
            self.folding.remove(&tile);
            self.unwritten_bytes += tile_bytes.len();
            self.unwritten.insert(tile, Finished { bytes: tile_bytes.into(), write: Write::Idle });
        }
        Ok(())
    }

    /// The tiles that are to be written now.
    pub fn to_write(&mut self, now: Tick) -> Vec<(u64, Arc<[u8]>)> {
        let due = self.unwritten.iter_mut().filter(|(_, finished)| finished.write.may_start(now));
        due.map(|(tile, finished)| {
            finished.write = Write::Under;
            (*tile, finished.bytes.clone())
        })
        .collect()
    }

    /// A write of a tile succeeded or failed.
    pub fn written(&mut self, tile: u64, succeeded: bool, now: Tick) {
        let succeeded = succeeded || self.planting.is(Planted::BelieveRefusedTiles);
        if succeeded && let Some(finished) = self.unwritten.remove(&tile) {
            self.unwritten_bytes -= finished.bytes.len();
        } else if let Some(finished) = self.unwritten.get_mut(&tile) {
            finished.write = Write::Failed(now);
        }
    }

    /// Whether every tile that is finished is durable.
    pub fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Whether the store refused a tile.
    pub fn is_refused(&self) -> bool {
        self.unwritten.values().any(|finished| finished.write.is_refused())
    }

    /// Whether so much waits for the store that nothing should be added.
    pub fn is_full(&self) -> bool {
        self.unwritten_bytes >= UNWRITTEN_BYTES_MAX
    }

    /// Whether panels that wait for earlier ones take so much that only those should be added.
    pub fn is_crowded(&self) -> bool {
        self.folding_bytes >= UNWRITTEN_BYTES_MAX
    }

    /// What it cuts.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use tessera_protocol::matrix::{Operand, Source};

    fn task(panels: u64) -> Arc<Task> {
        let uniform =
            |rows, cols| Operand { source: Source::Uniform { stream: 0 }, rows, cols, transposed: false };
        Arc::new(Task {
            key: [0; 2],
            double: true,
            alpha: 1.0,
            beta: 0.0,
            a: uniform(2, panels),
            b: uniform(panels, 1),
            c: None,
            half: None,
            tile: [1, 1],
            k_panel: 1,
        })
    }

    #[test]
    fn panels_are_added_in_ascending_order_whatever_order_they_came_in() {
        // Added in another order, the large ones swallow the one.
        let panels = [1e16, -1e16, 1.0];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut stitcher = Stitcher::new(task(3));
            for (place, panel) in order.into_iter().enumerate() {
                assert!(stitcher.to_write(Tick(0)).is_empty(), "{place} panels are no tile");
                let value: f64 = panels[panel as usize];
                stitcher.absorb(3 + panel, value.to_le_bytes().to_vec()).unwrap();
            }
            assert_eq!(stitcher.to_write(Tick(0)), vec![(1, Arc::from(1.0f64.to_le_bytes()))]);
        }
    }

    #[test]
    fn a_tile_stays_until_it_is_durable_and_a_refused_one_is_offered_again_later() {
        let mut stitcher = Stitcher::new(task(1));
        stitcher.absorb(0, 2.0f64.to_le_bytes().to_vec()).unwrap();
        assert_eq!(stitcher.to_write(Tick(0)).len(), 1);
        assert!(stitcher.to_write(Tick(0)).is_empty() && !stitcher.is_written());
        stitcher.written(0, false, Tick(0));
        assert!(stitcher.to_write(Tick(1)).is_empty() && stitcher.is_refused());
        assert_eq!(stitcher.to_write(Tick(crate::write::RETRY_MS)).len(), 1);
        stitcher.written(0, true, Tick(0));
        assert!(stitcher.is_written());
    }

    #[test]
    fn a_sum_that_leaves_the_finite_numbers_is_an_error() {
        let mut stitcher = Stitcher::new(task(2));
        stitcher.absorb(0, f64::MAX.to_le_bytes().to_vec()).unwrap();
        assert_eq!(stitcher.absorb(1, f64::MAX.to_le_bytes().to_vec()), Err(NotFinite));
    }
}
