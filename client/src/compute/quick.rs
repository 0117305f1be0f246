//! A quick look at a finished job, for a small part of what it cost: of a matrix product Freivalds' vectors here, of jobs
//! with stages what their rooms check.
//!
//! Owns the walk over a matrix file, a row of tiles after another. It sees errors that rounding cannot explain; only
//! computing again compares bits.

use std::io::Read;

use tessera_kernels::gemm::freivalds::{Band, Check, Vectors, Verdict};
use tessera_kernels::gemm::{Element, GemmError, Triangle};
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::{self, BlockTerms, Terms};
use tessera_planners::{Plan, npy_header};
use tessera_protocol::matrix::Task;
use tessera_protocol::spec::Manifest;

use super::{ComputeError, FindInput, operands};

mod catastrophe;
mod climate;
mod staged;
mod video;

pub use staged::{Finished, look_at_stages};

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
        /// First column of the group of them that a vector adds up.
        col: u64,
        /// How far the row is from where it should be.
        residual: f64,
        /// How far rounding could have brought it.
        bound: f64,
    },
    /// The file is no result of this job.
    NotTheFile,
}

/// Looks at a matrix job's result file on so many threads. The vectors' key must be one that nobody could know who computed it.
pub fn look(
    manifest: &Manifest,
    isa: Isa,
    input: &FindInput<'_>,
    file: &mut dyn Read,
    vectors: Vectors,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Look, ComputeError> {
    let plan = Plan::new(manifest, 0).map_err(ComputeError::Plan)?;
    let Some(task) = plan.matrix().cloned().filter(|task| task.shape().iter().all(|side| *side >= SIDE_MIN))
    else {
        return Ok(Look::NotWorthIt);
    };
    let prepared = operands(&task, input)?;
    let [rows, cols, _] = task.shape();
    let expected = npy_header(rows, cols, task.dtype());
    let mut header = vec![0; expected.len()];
    if file.read_exact(&mut header).is_err() || header != expected {
        return Ok(Look::NotTheFile);
    }
    let loaded = prepared.load_whole(cancelled).map_err(ComputeError::Matrix)?;
    let terms = loaded.terms().map_err(ComputeError::Matrix)?;
    let job = Job { task: &task, isa, vectors, threads, cancelled };
    match terms {
        BlockTerms::F32(terms) => job.look(&terms, file, f32::from_le_bytes),
        BlockTerms::F64(terms) => job.look(&terms, file, f64::from_le_bytes),
    }
}

/// How the look is taken.
struct Job<'a> {
    task: &'a Task,
    isa: Isa,
    vectors: Vectors,
    threads: usize,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Job<'_> {
    /// Reads a row of tiles after another, and checks each on all threads.
    fn look<T: Element, const BYTES: usize>(
        &self,
        terms: &Terms<'_, T>,
        file: &mut dyn Read,
        element: fn([u8; BYTES]) -> T,
    ) -> Result<Look, ComputeError> {
        let task = self.task;
        let [rows, cols, _] = task.shape();
        let (panels, strip) = (task.panels() as usize, task.tile[1] as usize);
        let check = Check::new(self.isa, terms.product, panels, strip, self.vectors, self.cancelled)
            .map_err(failed)?;
        for row in 0..task.tiles()[0] {
            let first = row * task.tile[0];
            let height = task.tile[0].min(rows - first);
            let mut bytes = vec![0; (height * cols) as usize * BYTES];
            if file.read_exact(&mut bytes).is_err() {
                return Ok(Look::NotTheFile);
            }
            // Of a symmetric result the other half is not computed.
            let given = match terms.half {
                Some(Triangle::Lower) => 0..(first + height) as usize,
                Some(Triangle::Upper) => first as usize..cols as usize,
                None => 0..cols as usize,
            };
            let lines = bytes.chunks_exact(cols as usize * BYTES);
            let lines = lines.flat_map(|line| &line.as_chunks().0[given.clone()]);
            let elements: Vec<T> = lines.map(|bytes| element(*bytes)).collect();
            let band = Band { first: first as usize, cols: given, elements: &elements, half: terms.half };
            if let Some(wrong) = self.look_at_band(&check, &band, height as usize)? {
                return Ok(wrong);
            }
        }
        Ok(Look::Consistent { tiles: task.tile_count() })
    }

    /// Each thread takes its share of the rows; of what they find, the first row counts.
    fn look_at_band<T: Element>(
        &self,
        check: &Check<'_, T>,
        band: &Band<'_, T>,
        height: usize,
    ) -> Result<Option<Look>, ComputeError> {
        let share = height.div_ceil(self.threads.max(1));
        let verdicts = std::thread::scope(|scope| {
            let starts = (band.first..band.first + height).step_by(share);
            let threads = starts.map(|start| {
                let rows = start..(start + share).min(band.first + height);
                scope.spawn(move || check.rows(band, rows, self.cancelled))
            });
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.collect::<Result<Vec<_>, _>>()
        });
        let verdicts = verdicts.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for verdict in verdicts {
            if let Verdict::Inconsistent { row, col, residual, bound } = verdict.map_err(failed)? {
                return Ok(Some(Look::Wrong { row: row as u64, col: col as u64, residual, bound }));
            }
        }
        Ok(None)
    }
}

fn failed(error: GemmError) -> ComputeError {
    ComputeError::Matrix(matrix::KernelError::from(error))
}
