//! The innermost loop: a tile of accumulators held in registers while `k` runs over packed panels.
//!
//! Owns the tile shapes and nothing else: one ascending chain of fused operations per element, whatever
//! the shape. It may not pad `k`, and reads and writes only what its caller vouches for.

use super::Element;
use super::vector::Vector;

/// A compiled micro-kernel and the panels it wants.
#[derive(Clone, Copy)]
pub struct Microkernel<T> {
    /// Rows of a tile: the width of a packed panel of `A`.
    pub(super) rows: usize,
    /// Lanes of one register, a power of two: a shift where a division would take as long as ten steps.
    pub(super) lanes_log2: u32,
    /// Columns of a tile: the width of a packed panel of `B`.
    pub(super) cols: usize,
    pub(super) run: unsafe fn(Step<T>),
}

impl<T> Microkernel<T> {
    pub(super) fn lanes(&self) -> usize {
        1 << self.lanes_log2
    }
}

/// One call of a micro-kernel.
#[derive(Clone, Copy)]
pub(super) struct Step<T> {
    /// How many `k`, at least one.
    pub(super) depth: usize,
    /// `depth × rows` elements.
    pub(super) a: *const T,
    /// `depth × cols` elements.
    pub(super) b: *const T,
    /// The accumulators: `rows` rows of `vectors × lanes` elements.
    pub(super) out: *mut T,
    /// From one row of `out` to the next.
    pub(super) stride: usize,
    /// How many registers of each row are computed, from one to `cols / lanes`.
    pub(super) vectors: usize,
    /// Go on from what is in `out` rather than from zero.
    pub(super) resume: bool,
}

/// # Safety
/// `V`'s instruction set was detected, and the step's pointers are good for what its fields say.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize>(
    step: Step<V::Element>,
    cols: usize,
) {
    let Step { depth, mut a, mut b, out, stride, resume, .. } = step;
    // SAFETY: all within the panels and the rows that the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let place = out.add(row * stride + vector * V::LANES);
                if resume {
                    *sum = V::load(place);
                }
                // The tile to the right comes next: its accumulators are fetched while this one computes.
                prefetch::<true, _>(place.wrapping_add(VECTORS * V::LANES));
            }
        }
        for _ in 0..depth / UNROLLED {
            for _ in 0..UNROLLED {
                fuse::<V, ROWS, VECTORS>(&mut sums, a, b, ROWS * depth);
                a = a.add(ROWS);
                b = b.add(cols);
            }
        }
        for _ in 0..depth % UNROLLED {
            fuse::<V, ROWS, VECTORS>(&mut sums, a, b, ROWS * depth);
            a = a.add(ROWS);
            b = b.add(cols);
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                sum.store(out.add(row * stride + vector * V::LANES));
            }
        }
    }
}

const UNROLLED: usize = 4;

/// # Safety
/// As of [`tile`]: one `k` of both panels can be read. `next` elements on lies the next panel of `A`.
#[inline(always)]
unsafe fn fuse<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const V::Element,
    b: *const V::Element,
    next: usize,
) {
    // SAFETY: promised by the caller; a prefetch may point anywhere.
    unsafe {
        let mut columns = [V::splat(V::Element::ZERO); VECTORS];
        for (vector, column) in columns.iter_mut().enumerate() {
            *column = V::load(b.add(vector * V::LANES));
            if (vector * size_of::<V>()).is_multiple_of(LINE_BYTES) {
                prefetch::<true, _>(b.wrapping_add(AHEAD * VECTORS * V::LANES + vector * V::LANES));
            }
        }
        // The next panel of A is still in the last cache when its turn comes.
        prefetch::<false, _>(a.wrapping_add(next));
        for (row, sums) in sums.iter_mut().enumerate() {
            let element = V::splat(*a.add(row));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = sum.fused(element, column);
            }
        }
    }
}

/// How many `k` ahead the panel of `B` is fetched from the second-level cache.
const AHEAD: usize = 8;
const LINE_BYTES: usize = 64;

/// Brings a line near: to the first-level cache, or to the second if it is needed later.
#[inline(always)]
fn prefetch<const FIRST_LEVEL: bool, T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is in every x86-64, and a prefetch may point anywhere.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if FIRST_LEVEL {
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(place.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// A [`Microkernel`] of these registers, rows and registers a row, compiled for the features given.
macro_rules! microkernel {
    ($(#[$features:meta])* $vector:ty, $element:ty, $rows:literal, [$($vectors:literal),*]) => {{
        const LANES: usize = <$vector as Vector>::LANES;
        const COLS: usize = LANES * [$($vectors),*].len();
        /// # Safety
        /// The features were detected, and the step's pointers are good for what its fields say.
        $(#[$features])*
        unsafe fn run(step: Step<$element>) {
            match step.vectors {
                // SAFETY: as of this function.
                $($vectors => unsafe { $crate::gemm::microkernel::tile::<$vector, $rows, $vectors>(step, COLS) },)*
                _ => unreachable!("a tile has no so many registers"),
            }
        }
        Microkernel { rows: $rows, lanes_log2: LANES.ilog2(), cols: COLS, run }
    }};
}
pub(super) use microkernel;
