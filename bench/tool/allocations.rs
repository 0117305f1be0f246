//! The allocator that a hub uses, with a count of what each thread asks of it.
//!
//! Owns the counts. They are the thread's own, so that counting costs no shared cache line and other threads do not
//! show in a measurement.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

/// Counts and hands on.
pub(crate) struct Counting;

fn count(bytes: usize) {
    // A thread that is ending has no counts any more, and nobody who reads them.
    let _ = COUNT.try_with(|counted| counted.set(counted.get() + 1));
    let _ = BYTES.try_with(|counted| counted.set(counted.get() + bytes as u64));
}

fn count_free(bytes: usize) {
    let _ = FREED.try_with(|counted| counted.set(counted.get() + bytes as u64));
}

// SAFETY: every call is handed on as it came, to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        count_free(layout.size());
        unsafe { MiMalloc.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_free(layout.size());
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

/// What this thread has asked for since it began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allocations {
    /// How often, reallocations included.
    pub(crate) count: u64,
    /// *Units*: bytes.
    pub(crate) bytes: u64,
    /// What it gave back. *Units*: bytes.
    pub(crate) freed: u64,
}

impl Allocations {
    pub(crate) fn so_far() -> Allocations {
        Allocations { count: COUNT.get(), bytes: BYTES.get(), freed: FREED.get() }
    }

    pub(crate) fn since(earlier: Allocations) -> Allocations {
        let now = Allocations::so_far();
        now - earlier
    }
}

impl std::ops::Sub for Allocations {
    type Output = Allocations;

    fn sub(self, earlier: Allocations) -> Allocations {
        let Allocations { count, bytes, freed } = earlier;
        Allocations { count: self.count - count, bytes: self.bytes - bytes, freed: self.freed - freed }
    }
}

impl std::ops::AddAssign for Allocations {
    fn add_assign(&mut self, more: Allocations) {
        self.count += more.count;
        self.bytes += more.bytes;
        self.freed += more.freed;
    }
}

impl Allocations {
    /// What is held of it. *Units*: bytes.
    pub(crate) fn live(self) -> f64 {
        self.bytes as f64 - self.freed as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_allocates_is_counted_and_what_others_do_is_not() {
        let before = Allocations::so_far();
        let kept = std::hint::black_box(vec![0u8; 1000]);
        let after = Allocations::since(before);
        assert_eq!((after.count, after.bytes), (1, 1000));
        drop(kept);
        let allocate = || drop(std::hint::black_box(vec![0u8; 1 << 20]));
        let before = Allocations::so_far();
        std::thread::scope(|scope| drop(scope.spawn(allocate).join()));
        assert!(Allocations::since(before).bytes < 1 << 20, "the megabyte was another thread's");
    }
}
