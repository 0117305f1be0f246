//! The matrix task: what an agent needs to compute any block of a matrix product.
//!
//! Owns the task's shape, its encoding, how a result is cut into blocks and in which order. A planner
//! makes it from a checked specification; agents and the hub read the same cut from it. Computes nothing.
//!
//! A *tile* is a rectangle of the result; a *block* is one k-panel of a tile, and one shard. Blocks are
//! numbered tile by tile, tiles by rows, the panels of a tile in ascending order.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;
use crate::spec::{Dtype, Triangle};

/// What a thread takes of each line of an operand at a time, so that no operand need fit memory. *Units*: bytes.
pub const STRETCH_BYTES: u64 = 15 << 10;

/// A planned matrix product, `C = alpha op(A) op(B) + beta C`, the same for every block of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Task {
    /// Philox4x32-10 key of random operands, derived from the job's seed.
    pub key: [u32; 2],
    /// Whether elements are binary64; else they are binary32.
    pub double: bool,
    /// Rounded to the element type by the kernel.
    pub alpha: f64,
    /// As `alpha`. Zero exactly where there is no `c`.
    pub beta: f64,
    /// *Shape*: m × k once transposed.
    pub a: Operand,
    /// *Shape*: k × n once transposed. For a symmetric update it is `a`, transposed the other way.
    pub b: Operand,
    /// *Shape*: m × n.
    pub c: Option<Operand>,
    /// Which half of the result is computed; nothing for all of it.
    pub half: Option<Half>,
    /// Rows and columns of a tile; tiles at the edges have fewer.
    pub tile: [u64; 2],
    /// Terms of a k-panel; the last has fewer.
    pub k_panel: u64,
}

/// A half of a square result, the diagonal included.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Columns up to the row.
    Lower,
    /// Columns from the row on.
    Upper,
}

impl From<Triangle> for Half {
    fn from(triangle: Triangle) -> Half {
        match triangle {
            Triangle::Lower => Half::Lower,
            Triangle::Upper => Half::Upper,
        }
    }
}

/// One matrix as it lies where it comes from.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Where that is.
    pub source: Source,
    /// Rows there.
    pub rows: u64,
    /// Columns there.
    pub cols: u64,
    /// Whether the product takes its transpose.
    pub transposed: bool,
}

/// Where a matrix comes from.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A `.npy` file by its digest.
    Input {
        /// BLAKE3 of the file.
        blake3: [u8; 32],
        /// Its length.
        bytes: u64,
    },
    /// Entry `(i, j)` from block `i · cols + j` of a Philox stream: `(2k + 1) 2⁻²³ − 1` with `k` the top
    /// 23 bits of the first word.
    Uniform {
        /// The stream.
        stream: u32,
    },
}

/// One shard of a matrix job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Position of its tile.
    pub tile: u64,
    /// Which panel of the tile; panel 0 holds `beta C`.
    pub panel: u64,
    /// Rows of the result.
    pub rows: Range<u64>,
    /// Columns of the result.
    pub cols: Range<u64>,
    /// Terms of the products.
    pub terms: Range<u64>,
}

impl Block {
    /// Elements of its partial.
    pub fn elements(&self) -> u64 {
        (self.rows.end - self.rows.start) * (self.cols.end - self.cols.start)
    }

    /// Fused multiply-adds to compute it, the other half of a tile on the diagonal included.
    pub fn terms_total(&self) -> u64 {
        self.elements() * (self.terms.end - self.terms.start)
    }
}

/// Why bytes are not a matrix task that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Not an archive of this version.
    Malformed,
    /// A side, a tile, a panel or a number of bytes outside the limits.
    Size,
    /// Matrices whose shapes do not fit each other.
    Shape,
    /// A factor that is not finite, or a `beta` without its matrix.
    Number,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskError::Malformed => "the task is not a valid archive of this version",
            TaskError::Size => "a matrix, tile or panel of the task is empty or larger than the limits allow",
            TaskError::Shape => "the matrices of the task do not fit each other",
            TaskError::Number => "a factor of the task is not finite, or beta has no matrix",
        })
    }
}

impl core::error::Error for TaskError {}

impl Operand {
    /// Rows and columns as the product sees them.
    pub fn shape(&self) -> [u64; 2] {
        if self.transposed { [self.cols, self.rows] } else { [self.rows, self.cols] }
    }

    fn check(&self, double: bool) -> Result<(), TaskError> {
        let bytes = u128::from(self.rows) * u128::from(self.cols) * if double { 8 } else { 4 };
        let sides = [self.rows, self.cols].iter().all(|side| (1..=limits::MATRIX_SIDE_MAX).contains(side));
        let file = match self.source {
            Source::Input { bytes: of_file, .. } => {
                (bytes + 10..=bytes + (1 << 16)).contains(&u128::from(of_file))
            }
            Source::Uniform { .. } => true,
        };
        let fits = sides && file && bytes <= u128::from(limits::MATRIX_BYTES_MAX);
        if fits { Ok(()) } else { Err(TaskError::Size) }
    }
}

impl Task {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back fits together and keeps every limit.
    pub fn decode(bytes: &[u8]) -> Result<Task, TaskError> {
        let task =
            rkyv::from_bytes::<Task, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        task.check()?;
        Ok(task)
    }

    /// Whether it fits together and keeps every limit.
    pub fn check(&self) -> Result<(), TaskError> {
        for operand in [&self.a, &self.b].into_iter().chain(&self.c) {
            operand.check(self.double)?;
        }
        let [m, k] = self.a.shape();
        let [k_of_b, n] = self.b.shape();
        let square = self.half.is_none() || (m == n && self.tile[0] == self.tile[1]);
        if k != k_of_b || !square || self.c.as_ref().is_some_and(|c| c.shape() != [m, n]) {
            return Err(TaskError::Shape);
        }
        let tile = self.tile.iter().all(|side| (1..=limits::TILE_SIDE_MAX).contains(side));
        let result = u128::from(m) * u128::from(n) * u128::from(self.element_bytes());
        let blocks = || u128::from(self.tile_count()) * u128::from(self.panels());
        if !tile
            || self.k_panel == 0
            || blocks() > u128::from(limits::SHARDS_MAX)
            || result > u128::from(limits::MATRIX_BYTES_MAX)
        {
            return Err(TaskError::Size);
        }
        let finite = self.alpha.is_finite() && self.beta.is_finite();
        let addend = self.c.is_some() == (self.beta != 0.0);
        if finite && addend { Ok(()) } else { Err(TaskError::Number) }
    }

    /// `[m, n, k]`.
    pub fn shape(&self) -> [u64; 3] {
        let ([m, k], [_, n]) = (self.a.shape(), self.b.shape());
        [m, n, k]
    }

    /// The element type.
    pub fn dtype(&self) -> Dtype {
        if self.double { Dtype::F64 } else { Dtype::F32 }
    }

    /// *Units*: bytes.
    pub fn element_bytes(&self) -> u64 {
        self.dtype().bytes()
    }

    /// The elements of all operands, each matrix once. *Units*: bytes.
    pub fn operand_bytes(&self) -> u64 {
        let operands = || [Some(&self.a), Some(&self.b), self.c.as_ref()].into_iter().flatten();
        let is_first = |position: usize, source: Source| {
            operands().take(position).all(|earlier| earlier.source != source)
        };
        let each = operands().enumerate().filter(|(position, operand)| is_first(*position, operand.source));
        // A checked task's matrices are within the limits.
        each.map(|(_, operand)| operand.rows * operand.cols * self.element_bytes()).sum()
    }

    /// What one thread needs in memory for a block, whatever the operands are: a stretch of both, the tile, the
    /// addend's, and the partial. *Units*: bytes.
    pub fn block_bytes(&self) -> u64 {
        let [m, n, k] = self.shape();
        let (rows, cols, terms) = (self.tile[0].min(m), self.tile[1].min(n), self.k_panel.min(k));
        let tile = rows * cols * self.element_bytes();
        let stretch = STRETCH_BYTES.min(terms * self.element_bytes());
        (rows + cols) * stretch + tile * if self.c.is_some() { 3 } else { 2 }
    }

    /// The input files it reads, each once.
    pub fn inputs(&self) -> Vec<([u8; 32], u64)> {
        let mut all = Vec::new();
        for operand in [&self.a, &self.b].into_iter().chain(&self.c) {
            if let Source::Input { blake3, bytes } = operand.source
                && !all.contains(&(blake3, bytes))
            {
                all.push((blake3, bytes));
            }
        }
        all
    }

    /// Tiles down and across.
    pub fn tiles(&self) -> [u64; 2] {
        let [m, n, _] = self.shape();
        [m.div_ceil(self.tile[0]), n.div_ceil(self.tile[1])]
    }

    /// Tiles that are computed.
    pub fn tile_count(&self) -> u64 {
        let [down, across] = self.tiles();
        if self.half.is_some() { down * (down + 1) / 2 } else { down * across }
    }

    /// Panels of every tile.
    pub fn panels(&self) -> u64 {
        self.shape()[2].div_ceil(self.k_panel)
    }

    /// Blocks of the whole result.
    pub fn blocks(&self) -> u64 {
        self.tile_count() * self.panels()
    }

    /// The tiles of a row of tiles, left to right: their positions and which columns of tiles they are in.
    pub fn tiles_of_row(&self, row: u64) -> (Range<u64>, Range<u64>) {
        let [down, across] = self.tiles();
        match self.half {
            None => (row * across..(row + 1) * across, 0..across),
            Some(Half::Lower) => {
                let first = row * (row + 1) / 2;
                (first..first + row + 1, 0..row + 1)
            }
            Some(Half::Upper) => {
                // Rows above hold `down`, `down − 1`, … tiles.
                let first = row * down - row * row.saturating_sub(1) / 2;
                (first..first + (down - row), row..down)
            }
        }
    }

    /// The block at a position, or nothing past the last.
    pub fn block(&self, index: u64) -> Option<Block> {
        if index >= self.blocks() {
            return None;
        }
        let (tile, panel) = (index / self.panels(), index % self.panels());
        let [down, across] = self.tiles();
        let [row, col] = match self.half {
            None => [tile / across, tile % across],
            Some(_) => {
                // The last row of tiles that begins at or before this one.
                let (mut low, mut high) = (0, down - 1);
                while low < high {
                    let middle = (low + high).div_ceil(2);
                    match self.tiles_of_row(middle).0.start <= tile {
                        true => low = middle,
                        false => high = middle - 1,
                    }
                }
                let (tiles, cols) = self.tiles_of_row(low);
                [low, cols.start + (tile - tiles.start)]
            }
        };
        let [m, n, k] = self.shape();
        let cut = |position: u64, size: u64, end: u64| position * size..((position + 1) * size).min(end);
        Some(Block {
            tile,
            panel,
            rows: cut(row, self.tile[0], m),
            cols: cut(col, self.tile[1], n),
            terms: panel * self.k_panel..panel.saturating_add(1).saturating_mul(self.k_panel).min(k),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn uniform(stream: u32, rows: u64, cols: u64) -> Operand {
        Operand { source: Source::Uniform { stream }, rows, cols, transposed: false }
    }

    fn gemm(m: u64, n: u64, k: u64, tile: [u64; 2], k_panel: u64) -> Task {
        Task {
            key: [1, 2],
            double: true,
            alpha: 1.0,
            beta: 0.0,
            a: uniform(0, m, k),
            b: uniform(1, k, n),
            c: None,
            half: None,
            tile,
            k_panel,
        }
    }

    fn syrk(n: u64, k: u64, tile: u64, half: Half) -> Task {
        let a = uniform(0, n, k);
        let b = Operand { transposed: true, ..a.clone() };
        Task { a, b, half: Some(half), ..gemm(n, n, k, [tile, tile], k) }
    }

    #[test]
    fn the_blocks_of_a_product_cover_every_term_of_every_element_once() {
        for task in [gemm(5, 7, 9, [2, 3], 4), gemm(4, 4, 4, [4, 4], 100), gemm(1, 1, 1, [8, 8], 1)] {
            assert_eq!(task.check(), Ok(()));
            let [m, n, k] = task.shape();
            let mut seen = vec![0; (m * n * k) as usize];
            for index in 0..task.blocks() {
                let block = task.block(index).unwrap();
                for i in block.rows.clone() {
                    for j in block.cols.clone() {
                        block.terms.clone().for_each(|t| seen[((i * n + j) * k + t) as usize] += 1);
                    }
                }
            }
            assert!(seen.iter().all(|times| *times == 1));
            assert_eq!(task.block(task.blocks()), None);
        }
    }

    #[test]
    fn the_tiles_of_a_half_cover_the_triangle_and_their_rows_say_where_they_are() {
        for half in [Half::Lower, Half::Upper] {
            for n in 1..12 {
                let task = syrk(n, 3, 2, half);
                assert_eq!(task.check(), Ok(()));
                let mut next = 0;
                for row in 0..task.tiles()[0] {
                    let (tiles, cols) = task.tiles_of_row(row);
                    assert_eq!(tiles.start, next);
                    for (tile, col) in tiles.clone().zip(cols.clone()) {
                        let block = task.block(tile * task.panels()).unwrap();
                        assert_eq!(
                            (block.tile, block.rows.start, block.cols.start),
                            (tile, row * 2, col * 2)
                        );
                        assert!(if half == Half::Lower { col <= row } else { col >= row });
                    }
                    assert_eq!(tiles.end - tiles.start, cols.end - cols.start);
                    next = tiles.end;
                }
                assert_eq!(next, task.tile_count());
            }
        }
    }

    #[test]
    fn a_task_reads_back_and_one_that_does_not_fit_together_is_refused() {
        let right = gemm(5, 7, 9, [2, 3], 4);
        assert_eq!(Task::decode(&right.encode()), Ok(right.clone()));
        let wrong = [
            (Task { b: uniform(1, 8, 7), ..right.clone() }, TaskError::Shape),
            (Task { half: Some(Half::Lower), ..right.clone() }, TaskError::Shape),
            (Task { tile: [0, 3], ..right.clone() }, TaskError::Size),
            (Task { k_panel: 0, ..right.clone() }, TaskError::Size),
            (Task { a: uniform(0, 1 << 17, 1 << 17), ..right.clone() }, TaskError::Size),
            (Task { alpha: f64::NAN, ..right.clone() }, TaskError::Number),
            (Task { beta: 1.0, ..right.clone() }, TaskError::Number),
        ];
        for (task, error) in wrong {
            assert_eq!(Task::decode(&task.encode()), Err(error));
        }
        let bytes = right.encode();
        (0..bytes.len()).for_each(|cut| assert!(Task::decode(&bytes[..cut]).is_err()));
    }
}
