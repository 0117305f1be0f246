//! Rectangles of operands in memory: those that were used last, within a cap.
//!
//! Owns what is kept and what goes. Rectangles in use stay where they are whatever the cap, so that what is held is
//! at most the cap and, for each block under way, what that block uses; [`Held`] counts it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::lying::Rectangle;

/// How much is in memory. *Units*: bytes.
#[derive(Debug, Default)]
pub struct Held {
    now: AtomicU64,
    most: AtomicU64,
}

impl Held {
    /// The most there ever was at a time.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.most.fetch_max(now, Ordering::Relaxed);
    }
}

/// Elements of a rectangle, counted as long as somebody has them.
#[derive(Debug)]
pub(super) struct Panel<T> {
    pub(super) elements: Vec<T>,
    held: Arc<Held>,
}

impl<T> Panel<T> {
    fn bytes(&self) -> u64 {
        size_of_val(self.elements.as_slice()) as u64
    }
}

impl<T> Drop for Panel<T> {
    fn drop(&mut self) {
        self.held.now.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

/// Which rectangle of which matrix.
pub(super) type Key = (usize, Rectangle);

#[derive(Debug)]
struct Kept<T> {
    panel: Arc<Panel<T>>,
    used: u64,
}

#[derive(Debug)]
struct Shelf<T> {
    kept: BTreeMap<Key, Kept<T>>,
    /// Keys by when they were used last.
    order: BTreeMap<u64, Key>,
    bytes: u64,
    /// Counts uses.
    clock: u64,
}

/// The rectangles of one task, shared by all threads that compute it.
#[derive(Debug)]
pub(super) struct Panels<T> {
    bytes_max: u64,
    shelf: Mutex<Shelf<T>>,
    held: Arc<Held>,
}

impl<T> Panels<T> {
    pub(super) fn new(bytes_max: u64) -> Panels<T> {
        let shelf = Shelf { kept: BTreeMap::new(), order: BTreeMap::new(), bytes: 0, clock: 0 };
        Panels { bytes_max, shelf: Mutex::new(shelf), held: Arc::default() }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Of a matrix that is in memory anyway.
    pub(super) fn none(&self) -> Arc<Panel<T>> {
        Arc::new(Panel { elements: Vec::new(), held: self.held.clone() })
    }

    /// A rectangle that is kept, or that is brought now. Two threads that want the same at once bring it twice.
    pub(super) fn get<E>(
        &self,
        key: Key,
        bring: impl FnOnce() -> Result<Vec<T>, E>,
    ) -> Result<Arc<Panel<T>>, E> {
        // A thread that panicked while it held the lock was between two of the steps below, of which each leaves
        // at worst a rectangle that is kept longer.
        let shelf = || self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panel) = shelf().find(key) {
            return Ok(panel);
        }
        let elements = bring()?;
        let panel = Panel { elements, held: self.held.clone() };
        self.held.add(panel.bytes());
        let panel = Arc::new(panel);
        if panel.bytes() <= self.bytes_max {
            shelf().keep(key, panel.clone(), self.bytes_max);
        }
        Ok(panel)
    }
}

impl<T> Shelf<T> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn find(&mut self, key: Key) -> Option<Arc<Panel<T>>> {
        let now = self.tick();
        let kept = self.kept.get_mut(&key)?;
        self.order.remove(&kept.used);
        self.order.insert(now, key);
        kept.used = now;
        Some(kept.panel.clone())
    }

    fn keep(&mut self, key: Key, panel: Arc<Panel<T>>, bytes_max: u64) {
        let used = self.tick();
        self.bytes += panel.bytes();
        if let Some(twice) = self.kept.insert(key, Kept { panel, used }) {
            self.bytes -= twice.panel.bytes();
            self.order.remove(&twice.used);
        }
        self.order.insert(used, key);
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.panel.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn key(at: usize) -> Key {
        (at, Rectangle { rows: (0, 1), cols: (0, 10) })
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_what_is_in_use_is_counted_until_it_is_let_go() {
        let panels: Panels<f64> = Panels::new(160);
        let brought = Mutex::new(Vec::new());
        let get = |at: usize| {
            let bring = || {
                brought.lock().expect("no panic").push(at);
                Ok::<_, Infallible>(vec![at as f64; 10])
            };
            let Ok(panel) = panels.get(key(at), bring);
            assert_eq!(panel.elements, [at as f64; 10]);
            panel
        };
        [1, 2, 1].into_iter().for_each(|at| drop(get(at)));
        let third = get(3);
        get(1);
        get(2);
        assert_eq!(*brought.lock().expect("no panic"), [1, 2, 3, 2], "the second left for the third");
        // Ten doubles each: two kept, and the third while it was both new and kept.
        assert_eq!(panels.held().most(), 240);
        get(1);
        assert_eq!(panels.held().now.load(Ordering::Relaxed), 240, "the third left, but is in use");
        drop(third);
        assert_eq!(panels.held().now.load(Ordering::Relaxed), 160);
    }

    #[test]
    fn what_is_larger_than_the_cap_is_not_kept() {
        let panels: Panels<f32> = Panels::new(39);
        let Ok(panel) = panels.get(key(0), || Ok::<_, Infallible>(vec![0.5; 10]));
        assert_eq!(panels.held().now.load(Ordering::Relaxed), 40);
        drop(panel);
        assert_eq!(panels.held().now.load(Ordering::Relaxed), 0);
    }
}
