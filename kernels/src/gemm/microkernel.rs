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
    /// What is fetched ahead.
    pub(super) next: Next<T>,
}

/// What the caches should hold when the steps after this one begin: fetched ahead, never read or written, so
/// that these may point anywhere.
#[derive(Clone, Copy)]
pub(super) struct Next<T> {
    /// The next tile's accumulators.
    pub(super) out: *const T,
    /// A part of the next panel of `A`, and how many lines it is.
    pub(super) a: *const T,
    pub(super) a_lines: usize,
}

/// # Safety
/// `V`'s instruction set was detected, and the step's pointers are good for what its fields say.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const ROWS: usize, const VECTORS: usize>(
    step: Step<V::Element>,
    cols: usize,
) {
    let Step { depth, mut a, mut b, out, stride, resume, next, .. } = step;
    // SAFETY: all within the panels and the rows that the caller vouches for.
    unsafe {
        let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (vector, sum) in sums.iter_mut().enumerate() {
                let place = out.add(row * stride + vector * V::LANES);
                if resume {
                    *sum = V::load(place);
                }
            }
        }
        // One line each few steps: more at once would keep the lines of B waiting that come from near.
        let lines = (VECTORS * size_of::<V>()).div_ceil(LINE_BYTES);
        let mut rounds = depth / UNROLLED;
        let a_lines = if next.a_lines + ROWS * lines < rounds {
            next.a_lines
        } else {
            rounds.saturating_sub(ROWS * lines)
        };
        rounds -= a_lines;
        for line in 0..a_lines {
            prefetch::<false, _>(next.a.cast::<u8>().wrapping_add(line * LINE_BYTES));
            (a, b) = steps::<V, ROWS, VECTORS>(&mut sums, UNROLLED, [a, b], cols);
        }
        if rounds >= ROWS * lines {
            rounds -= ROWS * lines;
            for row in 0..ROWS {
                for line in 0..lines {
                    prefetch::<true, _>(
                        next.out.wrapping_add(row * stride).cast::<u8>().wrapping_add(line * LINE_BYTES),
                    );
                    (a, b) = steps::<V, ROWS, VECTORS>(&mut sums, UNROLLED, [a, b], cols);
                }
            }
        }
        for _ in 0..rounds {
            (a, b) = steps::<V, ROWS, VECTORS>(&mut sums, UNROLLED, [a, b], cols);
        }
        steps::<V, ROWS, VECTORS>(&mut sums, depth % UNROLLED, [a, b], cols);
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                sum.store(out.add(row * stride + vector * V::LANES));
            }
        }
    }
}

const UNROLLED: usize = 4;

/// So many `k`; returns where both panels go on.
///
/// # Safety
/// As of [`tile`]: so many `k` of both panels can be read.
#[inline(always)]
unsafe fn steps<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    count: usize,
    [mut a, mut b]: [*const V::Element; 2],
    cols: usize,
) -> (*const V::Element, *const V::Element) {
    for _ in 0..count {
        // SAFETY: promised by the caller.
        unsafe {
            fuse::<V, ROWS, VECTORS>(sums, a, b);
            a = a.add(ROWS);
            b = b.add(cols);
        }
    }
    (a, b)
}

/// # Safety
/// As of [`tile`]: one `k` of both panels can be read.
#[inline(always)]
unsafe fn fuse<V: Vector, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; ROWS],
    a: *const V::Element,
    b: *const V::Element,
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
pub(super) const LINE_BYTES: usize = 64;

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
