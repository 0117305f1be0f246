//! The loops around the micro-kernel: which packed panels meet in which cache.
//!
//! Owns blocking and edges. Accumulators rest in the output between blocks of `k`, which is exact, so no
//! block size can change a bit. *Source*: Goto, van de Geijn, "Anatomy of high-performance matrix
//! multiplication", TOMS 2008, with the roles of `A` and `B` exchanged, as our rows lie along vectors.

use std::marker::PhantomData;
use std::ops::Range;

use tessera_protocol::matrix::STRETCH_BYTES;

use super::microkernel::{LINE_BYTES, Microkernel, Next, Step};
use super::packing::Buffer;
use super::{Element, GemmError, Product, Stretch, Triangle};
use crate::isa::{Isa, floating_point_is_standard};

/// Bytes of one row of a packed panel of `A`: eight rows are half of a first-level cache of 32 KiB.
const DEPTH_BYTES: usize = 3072;
/// Whole blocks, so that a panel in stretches is packed as one is.
const _: () = assert!((STRETCH_BYTES as usize).is_multiple_of(DEPTH_BYTES));
/// Bytes of the packed block of `B`, which `A` and accumulators pass through: half of a second-level cache of 1 MiB.
const INNER_BYTES: usize = 524288;
/// Rows of the packed block of `A`: 6 MiB, a share of the last cache; more rows pack `B` less often.
const OUTER_ROWS: usize = 3072;

/// A row-major matrix that is written.
pub(super) struct Out<'a, T> {
    first: *mut T,
    stride: usize,
    rows: usize,
    cols: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T: Element> Out<'a, T> {
    pub(super) fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols));
        Out { first: data.as_mut_ptr(), stride: cols, rows, cols, borrow: PhantomData }
    }

    /// A place to fetch from, which may lie outside.
    fn near(&self, row: usize, col: usize) -> *const T {
        self.first.wrapping_add(row * self.stride + col)
    }

    fn row(&mut self, row: usize, cols: Range<usize>) -> &mut [T] {
        assert!(row < self.rows && cols.start <= cols.end && cols.end <= self.cols);
        // SAFETY: inside the part that this borrows exclusively.
        unsafe {
            let first = self.first.add(row * self.stride + cols.start);
            std::slice::from_raw_parts_mut(first, cols.len())
        }
    }
}

/// Which elements are wanted. The others become zero.
#[derive(Clone, Copy)]
pub(super) enum Region {
    All,
    /// Those of a triangle.
    Of(Triangle),
}

impl Region {
    /// The columns wanted of a row, of so many.
    fn columns(self, row: usize, cols: usize) -> Range<usize> {
        let clamp = |col: usize| if col < cols { col } else { cols };
        match self {
            Region::All => 0..cols,
            Region::Of(Triangle::Lower) => 0..clamp(row + 1),
            Region::Of(Triangle::Upper) => clamp(row)..cols,
        }
    }

    /// Whether a block holds an element that is wanted.
    fn meets(self, rows: Range<usize>, cols: Range<usize>) -> bool {
        let longest = match self {
            Region::All => return true,
            Region::Of(Triangle::Lower) => rows.end - 1,
            Region::Of(Triangle::Upper) => rows.start,
        };
        let wanted = self.columns(longest, cols.end);
        wanted.start < cols.end && wanted.end > cols.start
    }
}

/// A panel of a product, and where it goes.
pub(super) struct Block<'a, T> {
    pub(super) isa: Isa,
    pub(super) product: Product<'a, T>,
    pub(super) k: Range<usize>,
    pub(super) region: Region,
    pub(super) stretch: Stretch,
    pub(super) out: Out<'a, T>,
}

/// Says whether all results are finite.
pub(super) fn compute<T: Element>(
    block: Block<'_, T>,
    cancelled: &dyn Fn() -> bool,
) -> Result<bool, GemmError> {
    if !floating_point_is_standard() {
        return Err(GemmError::FloatingPointMode);
    }
    if block.out.rows == 0 || block.out.cols == 0 {
        return Ok(true);
    }
    let isa = block.isa;
    let kernel = T::microkernel(isa);
    let depth_max = even_share(block.k.len(), DEPTH_BYTES / size_of::<T>(), 1);
    let rows_max = even_share(block.out.rows, OUTER_ROWS, kernel.rows);
    let cols_max = even_share(block.out.cols, INNER_BYTES / size_of::<T>() / depth_max, kernel.cols);
    let mut work = Work {
        packed_a: Buffer::new(rows_max * depth_max),
        packed_b: Buffer::new(cols_max * depth_max),
        edge: Buffer::new(kernel.rows * kernel.cols),
        finite: true,
        kernel,
        block,
    };
    for rows in shares(0..work.block.out.rows, rows_max) {
        if work.block.k.is_empty() {
            work.start_from_zero(rows.clone());
        }
        for k in shares(work.block.k.clone(), depth_max) {
            let a = work.block.product.a.tile(rows.clone(), k.clone())?;
            T::pack(
                isa,
                work.packed_a.slots(rows.len().next_multiple_of(kernel.rows) * k.len()),
                a,
                kernel.rows,
            );
            for cols in shares(0..work.block.out.cols, cols_max) {
                let b = work.block.product.b.tile(k.clone(), cols.clone())?.transposed();
                T::pack(
                    isa,
                    work.packed_b.slots(cols.len().next_multiple_of(kernel.cols) * k.len()),
                    b,
                    kernel.cols,
                );
                work.meet(rows.clone(), k.clone(), cols, cancelled)?;
            }
        }
    }
    Ok(work.finite)
}

/// Of `all`, the parts of at most `most` that are about equal, as a multiple of `step`.
fn even_share(all: usize, most: usize, step: usize) -> usize {
    let most = if most < step { step } else { most / step * step };
    let share = all.div_ceil(all.div_ceil(most).saturating_sub(1) + 1);
    (if share == 0 { 1 } else { share }).next_multiple_of(step)
}

/// Written without a division, of which one for each tile would be felt.
fn shares(all: Range<usize>, share: usize) -> impl Iterator<Item = Range<usize>> {
    let mut next = all.start;
    std::iter::from_fn(move || {
        let start = next;
        next = if all.end - start < share { all.end } else { start + share };
        (start < all.end).then_some(start..next)
    })
}

struct Work<'a, T> {
    block: Block<'a, T>,
    kernel: Microkernel<T>,
    packed_a: Buffer<T>,
    packed_b: Buffer<T>,
    /// Where a tile that reaches over the edge is computed.
    edge: Buffer<T>,
    finite: bool,
}

impl<T: Element> Work<'_, T> {
    /// All packed rows by all packed columns, a panel of rows at a time: it stays in the first-level cache
    /// while the columns' panels stream from the second.
    fn meet(
        &mut self,
        rows: Range<usize>,
        k: Range<usize>,
        cols: Range<usize>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), GemmError> {
        let last = k.end == self.block.k.end && self.block.stretch.last;
        let panel = self.kernel.rows * k.len();
        // Each strip fetches its part of the next panel of A, which is still in the last cache.
        let part_lines =
            (panel * size_of::<T>()).div_ceil(LINE_BYTES).div_ceil(cols.len().div_ceil(self.kernel.cols));
        for band in shares(rows.clone(), self.kernel.rows) {
            if cancelled() {
                return Err(GemmError::Cancelled);
            }
            let a = (band.start - rows.start) * k.len();
            let mut next_a = self.packed_a.as_ptr().wrapping_add(a + panel);
            for strip in shares(cols.clone(), self.kernel.cols) {
                if self.block.region.meets(band.clone(), strip.clone()) {
                    let b = (strip.start - cols.start) * k.len();
                    let [row, col] =
                        if strip.end < cols.end { [band.start, strip.end] } else { [band.end, cols.start] };
                    let next = Next { out: self.block.out.near(row, col), a: next_a, a_lines: part_lines };
                    self.tile(band.clone(), strip, k.clone(), [a, b], next);
                }
                next_a = next_a.wrapping_add(part_lines * (LINE_BYTES / size_of::<T>()));
            }
            if last {
                self.finish(band, cols.clone());
            }
        }
        Ok(())
    }

    /// One tile, with its panels at these places.
    fn tile(
        &mut self,
        rows: Range<usize>,
        cols: Range<usize>,
        k: Range<usize>,
        [a, b]: [usize; 2],
        next: Next<T>,
    ) {
        let kernel = self.kernel;
        let resume = k.start != self.block.k.start || self.block.stretch.resume;
        let whole = rows.len() == kernel.rows && cols.len() & (kernel.lanes() - 1) == 0;
        let stride = if whole { self.block.out.stride } else { kernel.cols };
        let edge = self.edge.slots(kernel.rows * kernel.cols);
        if !whole {
            edge.fill(std::mem::MaybeUninit::new(T::ZERO));
            for row in 0..if resume { rows.len() } else { 0 } {
                let saved = self.block.out.row(rows.start + row, cols.clone());
                for (slot, value) in edge[row * kernel.cols..].iter_mut().zip(saved) {
                    slot.write(*value);
                }
            }
        }
        let out = if whole {
            self.block.out.row(rows.start, cols.clone()).as_mut_ptr()
        } else {
            edge.as_mut_ptr().cast()
        };
        // SAFETY: both panels were packed with this depth and these widths; `out` is a whole tile inside the
        // output, of as many registers as its columns fill, or a tile of the edge buffer, which is as large.
        unsafe {
            (kernel.run)(Step {
                depth: k.len(),
                a: self.packed_a.as_ptr().add(a),
                b: self.packed_b.as_ptr().add(b),
                out,
                stride,
                vectors: (cols.len() + kernel.lanes() - 1) >> kernel.lanes_log2,
                resume,
                next,
            });
        }
        if !whole {
            for row in 0..rows.len() {
                let results = self.block.out.row(rows.start + row, cols.clone());
                for (value, slot) in results.iter_mut().zip(&edge[row * kernel.cols..]) {
                    // SAFETY: filled with zeros above.
                    *value = unsafe { slot.assume_init() };
                }
            }
        }
    }

    fn start_from_zero(&mut self, rows: Range<usize>) {
        let cols = self.block.out.cols;
        for row in rows.clone() {
            self.block.out.row(row, 0..cols).fill(T::ZERO);
        }
        self.finish(rows, 0..cols);
    }

    /// Makes results of accumulators.
    fn finish(&mut self, rows: Range<usize>, cols: Range<usize>) {
        let Block { isa, product, k, region, out, .. } = &mut self.block;
        for row in rows {
            let wanted = region.columns(row, out.cols);
            let first = if wanted.start > cols.start { wanted.start } else { cols.start };
            let end = if wanted.end < cols.end { wanted.end } else { cols.end };
            if first >= end {
                out.row(row, cols.clone()).fill(T::ZERO);
                continue;
            }
            let addend = product.addend.filter(|_| k.start == 0);
            let addend = addend.map(|(beta, c)| (beta, c.from(row, first), c.col_stride()));
            self.finite &= T::finish(*isa, out.row(row, first..end), product.alpha, addend);
            out.row(row, cols.start..first).fill(T::ZERO);
            out.row(row, end..cols.end).fill(T::ZERO);
        }
    }
}
