//! A quick look at a matrix product: Freivalds' vectors instead of the product.
//!
//! Owns the walk over a result file, tile by tile. It sees errors that rounding cannot explain, for a small part
//! of what the product cost; only computing again compares bits.

use std::io::Read;
use std::sync::Arc;

use tessera_kernels::gemm::freivalds::{Vectors, Verdict, check};
use tessera_kernels::gemm::{Element, Triangle};
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::{self, BlockTerms, Prepared, Terms};
use tessera_planners::{Plan, npy_header};
use tessera_protocol::matrix::Task;
use tessera_protocol::spec::Manifest;

use super::{ComputeError, FindInput, operands};

/// From this many rows, columns and terms on the look is much cheaper than the product.
pub const SIDE_MIN: u64 = 2_048;

/// What a quick look found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// The job has no matrix, or one so small that computing it again is as cheap.
    NotWorthIt,
    /// All tiles are consistent with the product.
    Consistent {
        /// How many.
        tiles: u64,
    },
    /// No honest computation gives this row.
    Wrong {
        /// Of the result.
        row: u64,
        /// First column of the tile.
        col: u64,
        /// How far the row is from where it should be.
        residual: f64,
        /// How far rounding could have brought it.
        bound: f64,
    },
    /// The file is no result of this job.
    NotTheFile,
}

/// Looks at a matrix job's result file. The vectors' key must be one that nobody could know who computed it.
pub fn look(
    manifest: &Manifest,
    isa: Isa,
    input: &FindInput<'_>,
    file: &mut dyn Read,
    vectors: Vectors,
    cancelled: &dyn Fn() -> bool,
) -> Result<Look, ComputeError> {
    let plan = Plan::new(manifest, 0).map_err(ComputeError::Plan)?;
    let Some(task) = plan.matrix().cloned().filter(|task| task.shape().iter().all(|side| *side >= SIDE_MIN))
    else {
        return Ok(Look::NotWorthIt);
    };
    let prepared = operands(&task, input, cancelled)?;
    let [rows, cols, _] = task.shape();
    let expected = npy_header(rows, cols, task.dtype());
    let mut header = vec![0; expected.len()];
    if file.read_exact(&mut header).is_err() || header != expected {
        return Ok(Look::NotTheFile);
    }
    for row in 0..task.tiles()[0] {
        let height = task.tile[0].min(rows - row * task.tile[0]);
        let mut band = vec![0; (height * cols * task.element_bytes()) as usize];
        if file.read_exact(&mut band).is_err() {
            return Ok(Look::NotTheFile);
        }
        for tile in task.tiles_of_row(row).0 {
            if let Some(wrong) = look_at_tile(&prepared, &task, tile, &band, isa, vectors, cancelled)? {
                return Ok(wrong);
            }
        }
    }
    Ok(Look::Consistent { tiles: task.tile_count() })
}

fn look_at_tile(
    prepared: &Prepared,
    task: &Arc<Task>,
    tile: u64,
    band: &[u8],
    isa: Isa,
    vectors: Vectors,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Look>, ComputeError> {
    let block = task.block(tile * task.panels()).ok_or(ComputeError::Task)?;
    let [_, cols, _] = task.shape();
    let cut = |range: &std::ops::Range<u64>| {
        (range.start * task.element_bytes()) as usize..(range.end * task.element_bytes()) as usize
    };
    let lines = band.chunks_exact((cols * task.element_bytes()) as usize).map(|line| &line[cut(&block.cols)]);
    let panels = task.panels() as usize;
    let verdict = match prepared.block(tile * task.panels()).map_err(ComputeError::Matrix)? {
        BlockTerms::F32(terms) => {
            let elements = lines.flat_map(|line| line.as_chunks().0).map(|bytes| f32::from_le_bytes(*bytes));
            judge(isa, &terms, elements.collect(), panels, vectors, cancelled)
        }
        BlockTerms::F64(terms) => {
            let elements = lines.flat_map(|line| line.as_chunks().0).map(|bytes| f64::from_le_bytes(*bytes));
            judge(isa, &terms, elements.collect(), panels, vectors, cancelled)
        }
    };
    Ok(match verdict.map_err(|error| ComputeError::Matrix(matrix::KernelError::from(error)))? {
        Verdict::Consistent => None,
        Verdict::Inconsistent { row, residual, bound } => {
            Some(Look::Wrong { row: block.rows.start + row as u64, col: block.cols.start, residual, bound })
        }
    })
}

fn judge<T: Element>(
    isa: Isa,
    terms: &Terms<'_, T>,
    mut elements: Vec<T>,
    panels: usize,
    vectors: Vectors,
    cancelled: &dyn Fn() -> bool,
) -> Result<Verdict, tessera_kernels::gemm::GemmError> {
    // A tile on the diagonal is symmetric; the half that was not computed is the other one's mirror.
    let side = terms.product.cols();
    for at in 0..elements.len() {
        let (row, col) = (at / side, at % side);
        let mirrored = match terms.half {
            Some(Triangle::Lower) => col > row,
            Some(Triangle::Upper) => col < row,
            None => false,
        };
        if mirrored {
            elements[at] = elements[col * side + row];
        }
    }
    check(isa, &terms.product, &elements, panels, vectors, cancelled)
}
