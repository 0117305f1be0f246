//! Copies of pieces of a matrix in the order in which the micro-kernel reads them.
//!
//! Owns the packed panels: `width` rows of `A` (or columns of `B`) side by side, `k` after `k`. What a
//! last panel lacks in width is filled with zeros, whose results are dropped; `k` is never padded, as
//! adding a zero to −0 would change it.

use std::mem::MaybeUninit;

use super::{Element, View};
use crate::isa::Isa;
use crate::pages::advise_large;

/// One cache line: panels start on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory for packed panels, written before it is read.
pub(super) struct Buffer<T> {
    lines: Vec<MaybeUninit<Line>>,
    elements: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(super) fn new(elements: usize) -> Self {
        let count = (elements * size_of::<T>()).div_ceil(size_of::<Line>());
        let mut lines = Vec::with_capacity(count);
        advise_large(lines.spare_capacity_mut());
        // SAFETY: the capacity is there, and lines that may be uninitialised need no initialising.
        unsafe { lines.set_len(count) };
        Buffer { lines, elements, kind: std::marker::PhantomData }
    }

    /// The first `elements` of them.
    pub(super) fn slots(&mut self, elements: usize) -> &mut [MaybeUninit<T>] {
        assert!(elements <= self.elements);
        // SAFETY: the lines hold so many elements, are aligned for them, and are borrowed for as long.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), elements) }
    }

    pub(super) fn as_ptr(&self) -> *const T {
        self.lines.as_ptr().cast()
    }
}

/// Packs all of a view whose rows are the lanes and whose columns are `k`.
///
/// *Shape*: `slots` holds `rows.next_multiple_of(width) × cols`: panel after panel.
#[inline(always)]
pub(super) fn pack<T: Element>(isa: Isa, slots: &mut [MaybeUninit<T>], source: View<'_, T>, width: usize) {
    let depth = source.cols();
    if source.row_stride() == 1 {
        return copy(slots, source, width);
    }
    for (panel, slots) in slots.chunks_exact_mut(width * depth).enumerate() {
        let first = panel * width;
        let lanes = if source.rows() - first < width { source.rows() - first } else { width };
        if lanes < width {
            slots.fill(MaybeUninit::new(T::ZERO));
        }
        let (from, lane_stride, depth_stride) =
            (source.from(first, 0), source.row_stride(), source.col_stride());
        if depth_stride == 1 {
            transpose(isa, slots, from, lane_stride, [lanes, width, depth]);
        } else {
            for (k, slots) in slots.chunks_exact_mut(width).enumerate() {
                for (lane, slot) in slots[..lanes].iter_mut().enumerate() {
                    slot.write(from[lane * lane_stride + k * depth_stride]);
                }
            }
        }
    }
}

/// Lanes lie side by side in the source. A whole line of it is read before the next, as memory likes it.
#[inline(always)]
fn copy<T: Element>(slots: &mut [MaybeUninit<T>], source: View<'_, T>, width: usize) {
    let panel_elements = width * source.cols();
    for k in 0..source.cols() {
        let line = &source.from(0, k)[..source.rows()];
        let (whole, rest) = line.split_at(line.len() / width * width);
        for (panel, values) in whole.chunks_exact(width).enumerate() {
            let slots = &mut slots[panel * panel_elements + k * width..][..width];
            for (slot, value) in slots.iter_mut().zip(values) {
                slot.write(*value);
            }
        }
        if !rest.is_empty() {
            let slots = &mut slots[whole.len() * source.cols() + k * width..][..width];
            slots.fill(MaybeUninit::new(T::ZERO));
            for (slot, value) in slots.iter_mut().zip(rest) {
                slot.write(*value);
            }
        }
    }
}

/// Lanes lie along the source's lines, `stride` apart.
#[inline(always)]
fn transpose<T: Element>(
    isa: Isa,
    slots: &mut [MaybeUninit<T>],
    from: &[T],
    stride: usize,
    [lanes, width, depth]: [usize; 3],
) {
    let squares = depth / SIDE * SIDE;
    for first in (0..lanes).step_by(SIDE) {
        let last = if lanes - first < SIDE { lanes } else { first + SIDE };
        let mut done = 0;
        if last - first == SIDE && squares > 0 {
            let lines = &from[first * stride..][..(SIDE - 1) * stride + squares];
            let columns = &mut slots[first..][..(squares - 1) * width + SIDE];
            if T::transpose(isa, lines, stride, columns, width, squares) {
                done = squares;
            }
        }
        for k in done..depth {
            for lane in first..last {
                slots[k * width + lane].write(from[lane * stride + k]);
            }
        }
    }
}

/// Side of the squares that are transposed in registers.
pub(super) const SIDE: usize = 4;
