//! The stitcher: verified blocks of a matrix in, orders to keep panels and to write tiles out.
//!
//! Holds a tile of one panel until it is durable, and a panel of several until it is kept outside, where panels are
//! added in ascending order whatever order they came in. Moves blocks and counts them; it may not look into any.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::matrix::Task;
use tessera_protocol::unit::Tick;

use crate::planted::{Planted, Planting};
use crate::write::Write;

/// Bytes of tiles and panels on their way out above which no new shards are granted.
pub const UNWRITTEN_BYTES_MAX: usize = 256 << 20;
/// Tiles of which some panels are kept and others are not here, above which only what was granted first is: a
/// checkpoint names each of them.
pub const OPEN_TILES_MAX: usize = 1 << 14;

/// A block on its way out.
#[derive(Clone, Debug)]
struct Waiting {
    bytes: Arc<[u8]>,
    write: Write,
}

/// A tile all of whose panels are kept, and that is not durable.
#[derive(Clone, Copy, Debug)]
struct Whole {
    write: Write,
    /// Whether it was said to be lost while it was on its way to the store: what the store says of it is what counts.
    doubted: bool,
}

/// The tiles of one job.
#[derive(Clone, Debug)]
pub struct Stitcher {
    task: Arc<Task>,
    /// Tiles of one panel that are not durable.
    unwritten: BTreeMap<u64, Waiting>,
    /// Panels of tiles of several that are not kept.
    unkept: BTreeMap<(u64, u64), Waiting>,
    /// How many panels of a tile are kept, where not all are.
    open: BTreeMap<u64, u64>,
    whole: BTreeMap<u64, Whole>,
    bytes: usize,
    pub(crate) planting: Planting,
}

impl Stitcher {
    /// Nothing is in, or only whole tiles that are durable.
    pub fn new(task: Arc<Task>) -> Stitcher {
        Stitcher {
            task,
            unwritten: BTreeMap::new(),
            unkept: BTreeMap::new(),
            open: BTreeMap::new(),
            whole: BTreeMap::new(),
            bytes: 0,
            planting: Planting::default(),
        }
    }

    /// Adds a block. The caller counts each once and has checked its length.
    pub fn absorb(&mut self, index: u64, bytes: Vec<u8>) {
        let (tile, panel) = (index / self.task.panels(), index % self.task.panels());
        self.bytes += bytes.len();
        let waiting = Waiting { bytes: bytes.into(), write: Write::Idle };
        if self.task.panels() == 1 {
            self.unwritten.insert(tile, waiting);
            return;
        }
        let came = || {
            let kept = self.open.get(&tile).copied().unwrap_or(0);
            kept + self.unkept.range((tile, 0)..(tile + 1, 0)).count() as u64
        };
        let panel = if self.planting.is(Planted::FoldAsTheyCome) { came() } else { panel };
        self.unkept.insert((tile, panel), waiting);
    }

    /// A panel was kept before the hub started.
    pub fn recover(&mut self, index: u64) {
        self.count(index / self.task.panels());
    }

    fn count(&mut self, tile: u64) {
        let kept = self.open.entry(tile).or_default();
        *kept += 1;
        if *kept == self.task.panels() {
            self.open.remove(&tile);
            self.whole.insert(tile, Whole { write: Write::Idle, doubted: false });
        }
    }

    /// The tiles of one panel that are to be written now.
    pub fn to_write(&mut self, now: Tick) -> Vec<(u64, Arc<[u8]>)> {
        due(&mut self.unwritten, now)
    }

    /// The panels that are to be kept now, by tile and position.
    pub fn to_keep(&mut self, now: Tick) -> Vec<((u64, u64), Arc<[u8]>)> {
        due(&mut self.unkept, now)
    }

    /// The tiles of several panels that are to be written now.
    pub fn to_finish(&mut self, now: Tick) -> Vec<u64> {
        let due = self.whole.iter_mut().filter(|(_, whole)| whole.write.may_start(now));
        due.map(|(tile, whole)| {
            whole.write = Write::Under;
            *tile
        })
        .collect()
    }

    /// A panel is kept, or could not be now.
    pub fn kept(&mut self, tile: u64, panel: u64, kept: bool, now: Tick) {
        let Some(waiting) = self.unkept.get_mut(&(tile, panel)) else { return };
        if kept {
            self.bytes -= waiting.bytes.len();
            self.unkept.remove(&(tile, panel));
            self.count(tile);
        } else {
            waiting.write = Write::Failed(now);
        }
    }

    /// What was kept of a tile is gone, and with it goes the rest, unless it had reached the store, or is on its way
    /// there: then the store has the last word. *Returns* whether the tile is to be computed again.
    pub fn lost(&mut self, tile: u64) -> bool {
        // 1. The tile is on its way to the store when something says that it is lost.
        // 2. Computed again by others, its panels are kept, and it is on its way once more.
        // 3. The first write succeeds after all, and pays those that computed it first.
        if let Some(whole) = self.whole.get_mut(&tile)
            && whole.write == Write::Under
        {
            whole.doubted = true;
            return false;
        }
        let here: BTreeSet<(u64, u64)> =
            self.unkept.range((tile, 0)..(tile + 1, 0)).map(|(place, _)| *place).collect();
        for place in &here {
            self.bytes -= self.unkept.remove(place).map_or(0, |waiting| waiting.bytes.len());
        }
        let was_open = self.open.remove(&tile).is_some() | self.whole.remove(&tile).is_some();
        was_open || !here.is_empty()
    }

    /// A write of a tile succeeded or failed. *Returns* whether the tile was lost meanwhile, and is still held here.
    pub fn written(&mut self, tile: u64, succeeded: bool, now: Tick) -> bool {
        let succeeded = succeeded || self.planting.is(Planted::BelieveRefusedTiles);
        let failed = Write::Failed(now);
        if let Some(whole) = self.whole.get_mut(&tile) {
            whole.write = failed;
            let is_lost = whole.doubted && !succeeded;
            if succeeded {
                self.whole.remove(&tile);
            }
            return is_lost;
        }
        if let Some(waiting) = self.unwritten.get_mut(&tile) {
            waiting.write = failed;
            if succeeded {
                self.bytes -= waiting.bytes.len();
                self.unwritten.remove(&tile);
            }
        }
        false
    }

    /// Whether nothing is on its way out.
    pub fn is_written(&self) -> bool {
        self.unwritten.is_empty() && self.unkept.is_empty() && self.whole.is_empty()
    }

    /// Whether a block could not be kept or written when it was last tried.
    pub fn is_refused(&self) -> bool {
        let waiting = self.unwritten.values().chain(self.unkept.values()).map(|waiting| &waiting.write);
        let whole = self.whole.values().map(|whole| &whole.write);
        waiting.chain(whole).any(|write| write.is_refused())
    }

    /// Of blocks on their way out. *Units*: bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether so much waits that nothing should be added.
    pub fn is_full(&self) -> bool {
        self.bytes >= UNWRITTEN_BYTES_MAX
    }

    /// Whether so many tiles wait for panels that only those should be added.
    pub fn is_crowded(&self) -> bool {
        self.open.len() >= OPEN_TILES_MAX
    }

    /// What it cuts.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }
}

fn due<Place: Copy>(waiting: &mut BTreeMap<Place, Waiting>, now: Tick) -> Vec<(Place, Arc<[u8]>)> {
    let due = waiting.iter_mut().filter(|(_, waiting)| waiting.write.may_start(now));
    due.map(|(place, waiting)| {
        waiting.write = Write::Under;
        (*place, waiting.bytes.clone())
    })
    .collect()
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
    fn a_tile_of_several_panels_is_written_once_all_are_kept_whatever_order_they_came_in() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut stitcher = Stitcher::new(task(3));
            for panel in order {
                assert!(stitcher.to_finish(Tick(0)).is_empty());
                stitcher.absorb(3 + panel, vec![1; 8]);
                assert_eq!(stitcher.to_keep(Tick(0)), vec![((1, panel), Arc::from([1; 8]))]);
                assert!(stitcher.to_keep(Tick(0)).is_empty() && !stitcher.is_written());
                stitcher.kept(1, panel, true, Tick(0));
                assert_eq!(stitcher.bytes(), 0, "what is kept outside is not here");
            }
            assert_eq!(stitcher.to_finish(Tick(0)), vec![1]);
            assert!(stitcher.to_finish(Tick(0)).is_empty() && !stitcher.is_written());
            stitcher.written(1, true, Tick(0));
            assert!(stitcher.is_written());
        }
    }

    #[test]
    fn a_panel_that_could_not_be_kept_is_offered_again_later_and_a_lost_tile_never() {
        let mut stitcher = Stitcher::new(task(2));
        stitcher.absorb(0, vec![1; 8]);
        assert_eq!(stitcher.to_keep(Tick(0)).len(), 1);
        stitcher.kept(0, 0, false, Tick(0));
        assert!(stitcher.to_keep(Tick(1)).is_empty());
        assert_eq!(stitcher.to_keep(Tick(crate::write::RETRY_MS)).len(), 1);
        assert!(stitcher.lost(0) && stitcher.is_written() && !stitcher.lost(0));
        stitcher.kept(0, 0, true, Tick(0));
        stitcher.recover(1);
        assert!(stitcher.to_finish(Tick(0)).is_empty(), "one of two panels is in");
    }

    #[test]
    fn of_a_tile_on_its_way_to_the_store_the_store_has_the_last_word() {
        for succeeds in [true, false] {
            let mut stitcher = Stitcher::new(task(2));
            stitcher.recover(0);
            stitcher.recover(1);
            assert_eq!(stitcher.to_finish(Tick(0)), vec![0]);
            assert!(!stitcher.lost(0), "nobody knows yet");
            assert_eq!(stitcher.written(0, succeeds, Tick(0)), !succeeds);
            assert_eq!(stitcher.lost(0), !succeeds);
            assert!(stitcher.is_written());
        }
    }

    #[test]
    fn a_tile_stays_until_it_is_durable_and_a_refused_one_is_offered_again_later() {
        let mut stitcher = Stitcher::new(task(1));
        stitcher.absorb(0, 2.0f64.to_le_bytes().to_vec());
        assert_eq!(stitcher.to_write(Tick(0)).len(), 1);
        assert!(stitcher.to_write(Tick(0)).is_empty() && !stitcher.is_written());
        stitcher.written(0, false, Tick(0));
        assert!(stitcher.to_write(Tick(1)).is_empty() && stitcher.is_refused());
        assert_eq!(stitcher.to_write(Tick(crate::write::RETRY_MS)).len(), 1);
        stitcher.written(0, true, Tick(0));
        assert!(stitcher.is_written());
    }
}
