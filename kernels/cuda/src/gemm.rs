//! Matrix products on a device: the bits of the processor's, whatever the tiles and chunks.
//!
//! Owns the cutting of a product into tiles that fit the device and of `k` into chunks. One stream computes while the
//! other brings the next chunk and takes the last tile's result away. An element is
//! `acc = +0; acc = fma(a, b, acc)` for ascending `k`, then `fma(alpha, acc, beta * c)` where `C` is added and
//! `alpha * acc` where it is not; a chunk goes on where the one before stored `acc`, which changes nothing.

use std::ops::Range;

use crate::backend::{Argument, Backend, Launch, Program, Scope, Stream};
use crate::error::CudaError;

/// `rows × cols` elements of a slice, `row_stride` and `col_stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a, T: Element> Matrix<'a, T> {
    /// Element `(i, j)` is `data[i * strides[0] + j * strides[1]]`.
    ///
    /// *Errors*: [`CudaError::Shape`] if that reaches past the data.
    pub fn new(data: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Result<Self, CudaError> {
        let elements = || {
            if shape.contains(&0) {
                return Some(0);
            }
            let rows = (shape[0] - 1).checked_mul(strides[0])?;
            (shape[1] - 1).checked_mul(strides[1])?.checked_add(rows)?.checked_add(1)
        };
        if elements().is_none_or(|elements| elements > data.len()) {
            return Err(CudaError::Shape { operand: "a view of its data" });
        }
        Ok(Matrix { data, shape, strides })
    }

    /// Rows one after another.
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self, CudaError> {
        Matrix::new(data, [rows, cols], [cols, 1])
    }

    /// Rows as columns.
    pub fn transposed(self) -> Self {
        let ([rows, cols], [row_stride, col_stride]) = (self.shape, self.strides);
        Matrix { shape: [cols, rows], strides: [col_stride, row_stride], ..self }
    }

    /// Bytes of these rows and columns, and the strides they have there: columns one after another where they were.
    fn pack(&self, rows: Range<usize>, cols: Range<usize>, bytes: &mut Vec<u8>) -> [u32; 2] {
        bytes.clear();
        let by_columns = self.strides[0] == 1 && self.strides[1] != 1;
        let (outer, inner) =
            if by_columns { (cols.clone(), rows.clone()) } else { (rows.clone(), cols.clone()) };
        let [outer_stride, inner_stride] =
            if by_columns { [self.strides[1], self.strides[0]] } else { self.strides };
        bytes.reserve(outer.len() * inner.len() * T::BYTES);
        for line in outer {
            let first = line * outer_stride + inner.start * inner_stride;
            if inner_stride == 1 {
                self.data[first..first + inner.len()].iter().for_each(|value| value.put(bytes));
            } else {
                (0..inner.len()).for_each(|at| self.data[first + at * inner_stride].put(bytes));
            }
        }
        if by_columns { [1, rows.len() as u32] } else { [cols.len() as u32, 1] }
    }
}

/// What is computed: `alpha * A * B + beta * C`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, T> {
    /// Factor of the product.
    pub alpha: T,
    /// Left.
    pub a: Matrix<'a, T>,
    /// Right.
    pub b: Matrix<'a, T>,
    /// `beta` and `C`, which is not read where `beta` is zero.
    pub addend: Option<(T, Matrix<'a, T>)>,
}

/// `f32` or `f64`.
pub trait Element: sealed::Sealed + Copy + PartialEq + Default + 'static {}

impl Element for f32 {}
impl Element for f64 {}

mod sealed {
    use super::Argument;

    /// What differs between the types.
    pub trait Sealed: Sized {
        const BYTES: usize;
        /// Rows and columns of a block's tile, as in `cu/gemm.cu`.
        const EDGE: usize;
        const KERNEL: &'static str;
        const FINISH: &'static str;
        fn argument(self) -> Argument;
        fn put(self, bytes: &mut Vec<u8>);
        fn take(bytes: &[u8]) -> impl Iterator<Item = Self>;
        fn finite(self) -> bool;
    }

    macro_rules! element {
        ($type:ident, $variant:ident, $edge:literal, $kernel:literal, $finish:literal) => {
            impl Sealed for $type {
                const BYTES: usize = size_of::<$type>();
                const EDGE: usize = $edge;
                const KERNEL: &'static str = $kernel;
                const FINISH: &'static str = $finish;
                fn argument(self) -> Argument {
                    Argument::$variant(self)
                }
                fn put(self, bytes: &mut Vec<u8>) {
                    bytes.extend_from_slice(&self.to_le_bytes());
                }
                fn take(bytes: &[u8]) -> impl Iterator<Item = Self> {
                    bytes.as_chunks().0.iter().map(|bytes| $type::from_le_bytes(*bytes))
                }
                fn finite(self) -> bool {
                    self.is_finite()
                }
            }
        };
    }
    element!(f32, F32, 128, "gemm_f32", "finish_f32");
    element!(f64, F64, 64, "gemm_f64", "finish_f64");
}

/// How a product is cut for a device. No choice changes a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Most rows and columns of a tile.
    pub tile: usize,
    /// Most steps of `k` in a chunk.
    pub depth: usize,
}

impl Cut {
    /// Tiles that keep the largest device busy and still fit three times into a small one's memory.
    const TILE: usize = 4096;
    /// Fused multiply-adds of one launch: milliseconds.
    const LAUNCH_WORK: usize = 1 << 34;
    const DEPTH_MAX: usize = 4096;

    fn for_memory(scratch_bytes: usize, bytes: usize, [rows, cols]: [usize; 2]) -> Result<Cut, CudaError> {
        let mut tile = Cut::TILE;
        // Two results, C, and two chunks of both operands.
        let needed = |tile: usize, depth: usize| bytes * (3 * tile * tile + 4 * tile * depth);
        while needed(tile, 256) > scratch_bytes && tile > 128 {
            tile /= 2;
        }
        if needed(tile, 256) > scratch_bytes {
            return Err(CudaError::Memory { bytes: needed(tile, 256) });
        }
        let elements = rows.clamp(1, tile) * cols.clamp(1, tile);
        let mut depth = (Cut::LAUNCH_WORK / elements).clamp(256, Cut::DEPTH_MAX);
        while needed(tile, depth) > scratch_bytes && depth > 256 {
            depth /= 2;
        }
        Ok(Cut { tile, depth })
    }
}

/// Computes one panel of a product, columns `k` of `A` by rows `k` of `B`, into a row-major output. `C` is added by the
/// panel that starts at 0.
///
/// *Errors*: [`CudaError::NotFinite`] if an element is NaN or infinite; the output then holds nothing of use.
pub fn gemm<T: Element, B: Backend>(
    backend: &mut B,
    product: &Product<'_, T>,
    k: Range<usize>,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), CudaError> {
    let shape = [product.a.shape[0], product.b.shape[1]];
    let cut = Cut::for_memory(backend.scratch_bytes(), T::BYTES, shape)?;
    gemm_cut(backend, product, k, cut, out, cancelled)
}

/// [`gemm`] with a choice of tiles and chunks.
pub fn gemm_cut<T: Element, B: Backend>(
    backend: &mut B,
    product: &Product<'_, T>,
    k: Range<usize>,
    cut: Cut,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), CudaError> {
    let [rows, cols] = check(product, &k, out.len())?;
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let mut scope = Scope::new(backend);
    let [tall, wide] = [rows, cols].map(|all| all.clamp(1, cut.tile));
    let deep = k.len().clamp(1, cut.depth);
    let mut chunk = || {
        Ok::<_, CudaError>([scope.allocate(tall * deep * T::BYTES)?, scope.allocate(deep * wide * T::BYTES)?])
    };
    let chunks = [chunk()?, chunk()?];
    let tile_bytes = tall * wide * T::BYTES;
    let results = [scope.allocate(tile_bytes)?, scope.allocate(tile_bytes)?];
    let addend = scope.allocate(tile_bytes)?;
    let mut work =
        Work { product, k, depth: cut.depth, chunks, results, addend, bytes: Vec::new(), brought: 0 };
    let mut output = Output { out, cols, waiting: None };
    let starts =
        (0..rows).step_by(cut.tile).flat_map(|row| (0..cols).step_by(cut.tile).map(move |col| [row, col]));
    for (number, [row, col]) in starts.enumerate() {
        let tile =
            Tile { rows: row..(row + cut.tile).clamp(0, rows), cols: col..(col + cut.tile).clamp(0, cols) };
        let result = work.results[number % 2];
        work.tile(scope.backend, &tile, result, &mut output, cancelled)?;
        output.waiting = Some((tile, result));
    }
    output.settle(scope.backend)?;
    match out.iter().position(|value| !value.finite()) {
        Some(place) => Err(CudaError::NotFinite { row: place / cols, col: place % cols }),
        None => Ok(()),
    }
}

fn check<T: Element>(
    product: &Product<'_, T>,
    k: &Range<usize>,
    elements: usize,
) -> Result<[usize; 2], CudaError> {
    let ([rows, depth], [b_rows, cols]) = (product.a.shape, product.b.shape);
    let operand = if b_rows != depth {
        "B"
    } else if product.addend.is_some_and(|(_, c)| c.shape != [rows, cols]) {
        "C"
    } else if k.start > k.end || k.end > depth || (k.is_empty() && depth != 0) {
        "the panel"
    } else if rows.checked_mul(cols) != Some(elements) {
        "the output"
    } else {
        return Ok([rows, cols]);
    };
    Err(CudaError::Shape { operand })
}

/// A piece of the result.
#[derive(Clone, Debug)]
struct Tile {
    rows: Range<usize>,
    cols: Range<usize>,
}

/// What all tiles share.
struct Work<'a, T> {
    product: &'a Product<'a, T>,
    k: Range<usize>,
    depth: usize,
    /// Two places for a chunk of both operands.
    chunks: [[u64; 2]; 2],
    results: [u64; 2],
    addend: u64,
    bytes: Vec<u8>,
    /// Chunks brought so far, of all tiles.
    brought: usize,
}

/// A chunk on its way to the device.
struct Chunk {
    place: [u64; 2],
    a_strides: [u32; 2],
    b_strides: [u32; 2],
    depth: u32,
}

impl<T: Element> Work<'_, T> {
    /// Asks for everything that one tile needs.
    fn tile<B: Backend>(
        &mut self,
        backend: &mut B,
        tile: &Tile,
        result: u64,
        before: &mut Output<'_, T>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), CudaError> {
        let shape = [tile.rows.len(), tile.cols.len()];
        let elements = shape[0] * shape[1];
        if self.k.is_empty() {
            backend.clear(Stream::First, result, elements * T::BYTES)?;
        }
        let starts: Vec<usize> = self.k.clone().step_by(self.depth).collect();
        let mut next = match starts.first() {
            Some(first) => Some(self.bring(backend, tile, *first)?),
            None => None,
        };
        for (number, _) in starts.iter().enumerate() {
            if cancelled() {
                return Err(CudaError::Cancelled);
            }
            let Some(chunk) = next.take() else { break };
            backend.follow(Stream::First, Stream::Second)?;
            // What is brought next overwrites the chunk before this one, which is computed with by now.
            backend.follow(Stream::Second, Stream::First)?;
            self.launch(backend, shape, result, &chunk, number > 0)?;
            if let Some(start) = starts.get(number + 1) {
                next = Some(self.bring(backend, tile, *start)?);
            }
            // While this tile is computed, the one before it comes back.
            before.settle(backend)?;
        }
        before.settle(backend)?;
        self.finish(backend, tile, result, elements)?;
        backend.follow(Stream::Second, Stream::First)
    }

    /// Uploads both operands' part of one chunk.
    fn bring<B: Backend>(&mut self, backend: &mut B, tile: &Tile, start: usize) -> Result<Chunk, CudaError> {
        let end = (start + self.depth).clamp(start, self.k.end);
        let place = self.chunks[self.brought % 2];
        self.brought += 1;
        let a_strides = self.product.a.pack(tile.rows.clone(), start..end, &mut self.bytes);
        backend.upload(Stream::Second, place[0], &self.bytes)?;
        let b_strides = self.product.b.pack(start..end, tile.cols.clone(), &mut self.bytes);
        backend.upload(Stream::Second, place[1], &self.bytes)?;
        Ok(Chunk { place, a_strides, b_strides, depth: (end - start) as u32 })
    }

    fn launch<B: Backend>(
        &self,
        backend: &mut B,
        [rows, cols]: [usize; 2],
        result: u64,
        chunk: &Chunk,
        resume: bool,
    ) -> Result<(), CudaError> {
        let mut arguments = [chunk.place[0], chunk.place[1], result].map(Argument::Address).to_vec();
        let [[a_row, a_k], [b_k, b_col]] = [chunk.a_strides, chunk.b_strides];
        let numbers = [a_row, a_k, b_k, b_col, rows as u32, cols as u32, chunk.depth, u32::from(resume)];
        arguments.extend(numbers.map(Argument::U32));
        let blocks = [cols.div_ceil(T::EDGE) as u32, rows.div_ceil(T::EDGE) as u32];
        let launch =
            Launch { program: Program::Gemm, kernel: T::KERNEL, blocks, threads: 256, arguments: &arguments };
        backend.launch(Stream::First, &launch)
    }

    fn finish<B: Backend>(
        &mut self,
        backend: &mut B,
        tile: &Tile,
        result: u64,
        elements: usize,
    ) -> Result<(), CudaError> {
        let addend = self.product.addend.filter(|(beta, _)| *beta != T::default() && self.k.start == 0);
        let mut beta = T::default();
        if let Some((factor, c)) = addend {
            beta = factor;
            self.bytes.clear();
            for row in tile.rows.clone() {
                let first = row * c.strides[0];
                tile.cols.clone().for_each(|col| c.data[first + col * c.strides[1]].put(&mut self.bytes));
            }
            backend.upload(Stream::First, self.addend, &self.bytes)?;
        }
        let arguments = [
            Argument::Address(result),
            Argument::Address(self.addend),
            self.product.alpha.argument(),
            beta.argument(),
            Argument::U64(elements as u64),
            Argument::U32(u32::from(addend.is_some())),
        ];
        let blocks = [elements.div_ceil(256) as u32, 1];
        let launch =
            Launch { program: Program::Gemm, kernel: T::FINISH, blocks, threads: 256, arguments: &arguments };
        backend.launch(Stream::First, &launch)
    }
}

/// The whole result, and the tile of it that is still on the device.
struct Output<'a, T> {
    out: &'a mut [T],
    cols: usize,
    waiting: Option<(Tile, u64)>,
}

impl<T: Element> Output<'_, T> {
    /// Brings the waiting tile back, if there is one, and puts it in its place.
    fn settle<B: Backend>(&mut self, backend: &mut B) -> Result<(), CudaError> {
        let Some((tile, result)) = self.waiting.take() else { return Ok(()) };
        let mut bytes = vec![0; tile.rows.len() * tile.cols.len() * T::BYTES];
        backend.download(Stream::Second, result, &mut bytes)?;
        for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(tile.cols.len() * T::BYTES)) {
            let line = &mut self.out[row * self.cols..][tile.cols.clone()];
            line.iter_mut().zip(T::take(bytes)).for_each(|(out, value)| *out = value);
        }
        Ok(())
    }
}
