//! Matrix products on a device: the bits of the processor's, whatever the tiles and chunks.
//!
//! Owns the cutting of a product into tiles that fit the device and of `k` into chunks. One stream computes while the
//! other brings the next chunk and takes the last tile's result away. An element is
//! `acc = +0; acc = fma(a, b, acc)` for ascending `k`, then `fma(alpha, acc, beta * c)` where `C` is added and
//! `alpha * acc` where it is not; a chunk goes on where the one before stored `acc`, which changes nothing.

use std::ops::Range;

use tessera_kernels::gemm::{Element, Product, View, all_finite};

use crate::backend::{Argument, Backend, Launch, Program, Scope, Stream};
use crate::error::CudaError;

/// `f32` or `f64`, and what differs between them on a device.
pub trait DeviceElement: Element {
    /// Rows and columns of a block's tile, as in `cu/gemm.cu`.
    const EDGE: usize;
    /// Computes accumulators.
    const KERNEL: &'static str;
    /// Makes results of them.
    const FINISH: &'static str;
    /// For a kernel.
    fn argument(self) -> Argument;
    /// From little-endian bytes.
    fn take(bytes: &[u8]) -> impl Iterator<Item = Self>;
}

macro_rules! element {
    ($type:ident, $variant:ident, $edge:literal, $kernel:literal, $finish:literal) => {
        impl DeviceElement for $type {
            const EDGE: usize = $edge;
            const KERNEL: &'static str = $kernel;
            const FINISH: &'static str = $finish;
            fn argument(self) -> Argument {
                Argument::$variant(self)
            }
            fn take(bytes: &[u8]) -> impl Iterator<Item = Self> {
                bytes.as_chunks().0.iter().map(|bytes| $type::from_le_bytes(*bytes))
            }
        }
    };
}
element!(f32, F32, 128, "gemm_f32", "finish_f32");
element!(f64, F64, 64, "gemm_f64", "finish_f64");

/// Bytes of these rows and columns, and the strides they have there: columns one after another where they were.
fn pack<T: Element>(
    view: &View<'_, T>,
    rows: Range<usize>,
    cols: Range<usize>,
    bytes: &mut Vec<u8>,
) -> [u32; 2] {
    bytes.clear();
    let strides = view.strides();
    let by_columns = strides[0] == 1 && strides[1] != 1;
    let (outer, inner) = if by_columns { (cols.clone(), rows.clone()) } else { (rows.clone(), cols.clone()) };
    let [outer_stride, inner_stride] = if by_columns { [strides[1], strides[0]] } else { strides };
    bytes.reserve(outer.len() * inner.len() * size_of::<T>());
    for line in outer {
        let first = line * outer_stride + inner.start * inner_stride;
        if inner_stride == 1 {
            view.data()[first..first + inner.len()].iter().for_each(|value| value.put(bytes));
        } else {
            (0..inner.len()).for_each(|at| view.data()[first + at * inner_stride].put(bytes));
        }
    }
    if by_columns { [1, rows.len() as u32] } else { [cols.len() as u32, 1] }
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
/// *Errors*: as [`tessera_kernels::gemm::gemm`], in [`CudaError::Matrix`], and those of the device.
pub fn gemm<T: DeviceElement, B: Backend>(
    backend: &mut B,
    product: &Product<'_, T>,
    k: Range<usize>,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), CudaError> {
    let shape = [product.rows(), product.cols()];
    let cut = Cut::for_memory(backend.scratch_bytes(), size_of::<T>(), shape)?;
    gemm_cut(backend, product, k, cut, out, cancelled)
}

/// [`gemm`] with a choice of tiles and chunks.
pub fn gemm_cut<T: DeviceElement, B: Backend>(
    backend: &mut B,
    product: &Product<'_, T>,
    k: Range<usize>,
    cut: Cut,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), CudaError> {
    product.takes(&k, out.len())?;
    let [rows, cols] = [product.rows(), product.cols()];
    if rows == 0 || cols == 0 {
        return Ok(());
    }
    let mut scope = Scope::new(backend);
    let [tall, wide] = [rows, cols].map(|all| all.clamp(1, cut.tile));
    let deep = k.len().clamp(1, cut.depth);
    let mut chunk = || {
        Ok::<_, CudaError>([
            scope.allocate(tall * deep * size_of::<T>())?,
            scope.allocate(deep * wide * size_of::<T>())?,
        ])
    };
    let chunks = [chunk()?, chunk()?];
    let tile_bytes = tall * wide * size_of::<T>();
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
    Ok(all_finite(out, cols)?)
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

impl<T: DeviceElement> Work<'_, T> {
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
            backend.clear(Stream::First, result, elements * size_of::<T>())?;
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
        let (_, a, b) = self.product.factors();
        let a_strides = pack(&a, tile.rows.clone(), start..end, &mut self.bytes);
        backend.upload(Stream::Second, place[0], &self.bytes)?;
        let b_strides = pack(&b, start..end, tile.cols.clone(), &mut self.bytes);
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
        let addend = self.product.addend().filter(|_| self.k.start == 0);
        let mut beta = T::ZERO;
        if let Some((factor, c)) = addend {
            beta = factor;
            self.bytes.clear();
            for row in tile.rows.clone() {
                tile.cols.clone().for_each(|col| c.at(row, col).put(&mut self.bytes));
            }
            backend.upload(Stream::First, self.addend, &self.bytes)?;
        }
        let arguments = [
            Argument::Address(result),
            Argument::Address(self.addend),
            self.product.factors().0.argument(),
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

impl<T: DeviceElement> Output<'_, T> {
    /// Brings the waiting tile back, if there is one, and puts it in its place.
    fn settle<B: Backend>(&mut self, backend: &mut B) -> Result<(), CudaError> {
        let Some((tile, result)) = self.waiting.take() else { return Ok(()) };
        let mut bytes = vec![0; tile.rows.len() * tile.cols.len() * size_of::<T>()];
        backend.download(Stream::Second, result, &mut bytes)?;
        for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(tile.cols.len() * size_of::<T>())) {
            let line = &mut self.out[row * self.cols..][tile.cols.clone()];
            line.iter_mut().zip(T::take(bytes)).for_each(|(out, value)| *out = value);
        }
        Ok(())
    }
}
