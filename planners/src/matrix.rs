//! Planning and finishing matrix jobs.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::matrix::{Block, Half, Operand, Source, Task};
use tessera_protocol::spec::{Dtype, Input, JobSpec, MatrixSpec, Params};

use crate::FinishError;
use crate::monte_carlo::philox_key;

mod file;

pub use file::{TileMisfit, npy_band, npy_band_lines, npy_bytes, npy_header, npy_lines};

/// Side of a tile where the client named none: a shard of it with k = 2048 takes a core about 10 ms.
const TILE_SIDE: u64 = 512;
/// Fused multiply-adds to one compute unit, so that a unit takes a core about as long as in other workloads.
const TERMS_PER_UNIT: u64 = 128;
/// Philox streams of the operands; Monte Carlo's drivers count up from zero.
const STREAMS: [u32; 3] = [0xffff_ff00, 0xffff_ff01, 0xffff_ff02];

/// What every agent needs to compute any block of the job's result; nothing where the parameters do not
/// fit together, which no checked manifest's do.
pub(crate) fn task(spec: &JobSpec) -> Option<Task> {
    let operand = |matrix: &MatrixSpec, transposed: bool, stream: u32| {
        Some(Operand {
            source: source(matrix, &spec.inputs, stream)?,
            rows: matrix.rows,
            cols: matrix.cols,
            transposed,
        })
    };
    let key = philox_key(spec.seed);
    let task = match &spec.params {
        Params::MonteCarlo(_) | Params::Staged(_) => return None,
        Params::Gemm(params) => {
            let a = operand(&params.a, params.transpose_a, STREAMS[0])?;
            let b = operand(&params.b, params.transpose_b, STREAMS[1])?;
            let c = addend(params.beta, params.c.as_ref(), &operand)?;
            let ([m, k], [_, n]) = (a.shape(), b.shape());
            Task {
                key,
                double: params.dtype == Dtype::F64,
                alpha: params.alpha,
                beta: params.beta,
                a,
                b,
                c,
                half: None,
                tile: params.tile.unwrap_or([side(m), side(n)]),
                k_panel: params.k_panel.unwrap_or(k).min(k),
            }
        }
        Params::Syrk(params) => {
            let a = operand(&params.a, params.transpose, STREAMS[0])?;
            let b = Operand { transposed: !params.transpose, ..a.clone() };
            let c = addend(params.beta, params.c.as_ref(), &operand)?;
            let [n, k] = a.shape();
            let tile = params.tile.unwrap_or(side(n));
            Task {
                key,
                double: params.dtype == Dtype::F64,
                alpha: params.alpha,
                beta: params.beta,
                a,
                b,
                c,
                half: Some(Half::from(params.triangle)),
                tile: [tile, tile],
                k_panel: params.k_panel.unwrap_or(k).min(k),
            }
        }
    };
    task.check().is_ok().then_some(task)
}

/// `Some(None)` where there is none to add.
fn addend(
    beta: f64,
    c: Option<&MatrixSpec>,
    operand: &dyn Fn(&MatrixSpec, bool, u32) -> Option<Operand>,
) -> Option<Option<Operand>> {
    match c {
        Some(c) if beta != 0.0 => operand(c, false, STREAMS[2]).map(Some),
        Some(_) | None => Some(None),
    }
}

fn source(matrix: &MatrixSpec, inputs: &[Input], stream: u32) -> Option<Source> {
    match (&matrix.input, matrix.random) {
        (Some(name), None) => {
            let input = inputs.iter().find(|input| input.name == *name)?;
            Some(Source::Input { blake3: input.blake3.0, bytes: input.bytes })
        }
        (None, Some(_)) => Some(Source::Uniform { stream }),
        _ => None,
    }
}

/// Small results are cut so that several agents can share them.
fn side(length: u64) -> u64 {
    length.div_ceil(4).next_power_of_two().clamp(limits::TILE_SIDE_MIN, TILE_SIDE)
}

pub(crate) fn block_cost(block: &Block) -> u64 {
    units(block.terms_total())
}

/// What all blocks cost together, without listing them: a job may have a billion. Below 2^53: a side is at
/// most 2^17.
pub(crate) fn cost(task: &Task) -> u64 {
    let [m, n, k] = task.shape();
    let [down, across] = task.tiles();
    let (whole, last) = (task.tile, [m - (down - 1) * task.tile[0], n - (across - 1) * task.tile[1]]);
    // Tiles by height and width: all but those of the last row and column are whole. A half, whose tiles are square,
    // has those of one edge only; which one does not change what they cost.
    let tiles = match task.half {
        None => [
            ((down - 1) * (across - 1), whole),
            (down - 1, [whole[0], last[1]]),
            (across - 1, [last[0], whole[1]]),
            (1, last),
        ],
        Some(_) => [(down * (down - 1) / 2, whole), (down - 1, [last[0], whole[1]]), (0, whole), (1, last)],
    };
    let panels = [(task.panels() - 1, task.k_panel), (1, k - (task.panels() - 1) * task.k_panel)];
    let mut cost = 0;
    for (tiles, [height, width]) in tiles {
        for (panels, terms) in panels {
            if tiles * panels > 0 {
                cost += tiles * panels * units(height * width * terms);
            }
        }
    }
    cost
}

fn units(terms_total: u64) -> u64 {
    terms_total.div_ceil(TERMS_PER_UNIT)
}

/// Whether no element is infinite or undefined.
pub(crate) fn all_finite(bytes: &[u8], dtype: Dtype) -> bool {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().all(|element| f32::from_le_bytes(*element).is_finite()),
        Dtype::F64 => bytes.as_chunks().0.iter().all(|element| f64::from_le_bytes(*element).is_finite()),
    }
}

/// Whether a tile on the diagonal of a symmetric update has zeros outside of the half that is computed, and on the
/// diagonal numbers of the sign that sums of squares have, unless something is added to them. Of any other block
/// nothing is known.
pub(crate) fn is_half(bytes: &[u8], task: &Task, block: &Block) -> bool {
    let Some(half) = task.half.filter(|_| block.rows == block.cols) else { return true };
    let (side, width) = ((block.cols.end - block.cols.start) as usize, task.element_bytes() as usize);
    let added = task.c.is_some() && block.panel == 0;
    bytes.chunks_exact(width).enumerate().all(|(position, element)| {
        let (row, col) = (position / side, position % side);
        // The highest bit of the last byte is the sign, whatever the width.
        let is_negative = element.last().is_some_and(|byte| byte >> 7 == 1);
        let is_zero = element.iter().all(|byte| *byte == 0);
        match half {
            _ if row == col => added || is_zero || is_negative == (task.alpha < 0.0),
            Half::Lower => col < row || is_zero,
            Half::Upper => col > row || is_zero,
        }
    })
}

#[derive(Serialize)]
struct MatrixResult<'a> {
    workload: &'a str,
    dtype: Dtype,
    shape: [u64; 2],
    terms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    triangle: Option<&'static str>,
    output: Output,
}

/// The file that holds the result.
#[derive(Serialize)]
struct Output {
    name: String,
    blake3: Digest,
    bytes: u64,
}

pub(crate) fn finish(kernel: &str, task: &Task, output: Digest, bytes: u64) -> Result<Vec<u8>, FinishError> {
    let [m, n, k] = task.shape();
    let triangle = task.half.map(|half| if half == Half::Lower { "lower" } else { "upper" });
    let output = Output { name: "c.npy".into(), blake3: output, bytes };
    let result =
        MatrixResult { workload: kernel, dtype: task.dtype(), shape: [m, n], terms: k, triangle, output };
    canonical::to_vec(&result).map_err(|_| FinishError::NotCanonical)
}

/// A sum of panels that is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumNotFinite;

/// Adds a panel of a tile to the sum of those before it, element by element, each rounded once.
///
/// *Shape*: both hold the tile's elements by rows, little-endian.
pub fn add_panel(sum: &mut [u8], panel: &[u8], dtype: Dtype) -> Result<(), SumNotFinite> {
    assert_eq!(sum.len(), panel.len(), "panels of one tile are of one size");
    let mut finite = true;
    match dtype {
        Dtype::F32 => {
            for (sum, panel) in sum.as_chunks_mut().0.iter_mut().zip(panel.as_chunks().0) {
                let total = f32::from_le_bytes(*sum) + f32::from_le_bytes(*panel);
                finite &= total.is_finite();
                *sum = total.to_le_bytes();
            }
        }
        Dtype::F64 => {
            for (sum, panel) in sum.as_chunks_mut().0.iter_mut().zip(panel.as_chunks().0) {
                let total = f64::from_le_bytes(*sum) + f64::from_le_bytes(*panel);
                finite &= total.is_finite();
                *sum = total.to_le_bytes();
            }
        }
    }
    if finite { Ok(()) } else { Err(SumNotFinite) }
}

/// A tile of which not all panels are in: they are added in ascending order, whatever order they came in.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// The sum of the panels before `next`.
    sum: Vec<u8>,
    next: u64,
    /// Panels that came before their turn.
    early: BTreeMap<u64, Vec<u8>>,
}

impl Fold {
    /// Takes a panel; each comes once. Gives the tile when all `panels` are in.
    pub fn absorb(
        &mut self,
        panel: u64,
        bytes: Vec<u8>,
        panels: u64,
        dtype: Dtype,
    ) -> Result<Option<Vec<u8>>, SumNotFinite> {
        self.early.insert(panel, bytes);
        while let Some(bytes) = self.early.remove(&self.next) {
            match self.next {
                0 => self.sum = bytes,
                _ => add_panel(&mut self.sum, &bytes, dtype)?,
            }
            self.next += 1;
        }
        Ok((self.next == panels).then(|| core::mem::take(&mut self.sum)))
    }

    /// What it holds. *Units*: bytes.
    pub fn bytes(&self) -> usize {
        self.sum.len() + self.early.values().map(Vec::len).sum::<usize>()
    }

    /// The panel that would be added next.
    pub fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_product_is_that_of_its_blocks() {
        let uniform =
            |rows, cols| Operand { source: Source::Uniform { stream: 0 }, rows, cols, transposed: false };
        for (m, n, k) in [(1, 1, 1), (16, 16, 16), (40, 70, 33), (70, 40, 100), (48, 48, 48), (33, 33, 17)] {
            for (half, tile) in [
                (None, [16, 32]),
                (None, [32, 16]),
                (None, [1_024, 16]),
                (Some(Half::Lower), [16, 16]),
                (Some(Half::Upper), [32, 32]),
            ] {
                for k_panel in [16, 20, 1_000] {
                    let (n, b) = if half.is_some() { (m, uniform(k, m)) } else { (n, uniform(k, n)) };
                    let task = Task {
                        key: [0; 2],
                        double: true,
                        alpha: 1.0,
                        beta: 0.0,
                        a: uniform(m, k),
                        b,
                        c: None,
                        half,
                        tile,
                        k_panel,
                    };
                    let blocks = (0..task.blocks()).map(|index| task.block(index).unwrap());
                    let listed: u64 = blocks.map(|block| block_cost(&block)).sum();
                    assert_eq!(cost(&task), listed, "{m} × {n} × {k}, {half:?}, {tile:?}, {k_panel}");
                }
            }
        }
    }

    #[test]
    fn a_product_of_forty_thousand_squared_is_cut_into_blocks_that_small_agents_compute() {
        use alloc::format;
        let matrix = r#"{"random":"uniform","rows":40000,"cols":40000}"#;
        let text = format!(
            r#"{{"name":"p","workload":"gemm","params":{{"dtype":"f64","a":{matrix},"b":{matrix}}}}}"#
        );
        let manifest = JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap();
        let plan = crate::Plan::new(&manifest, 0).unwrap();
        let task = plan.matrix().unwrap();
        assert_eq!((task.tile, task.panels(), plan.shards()), ([512, 512], 1, 79 * 79));
        // 40,000³ fused multiply-adds.
        assert_eq!(cost(task), 64_000_000_000_000 / TERMS_PER_UNIT);
        assert_eq!(npy_bytes(task), 12_800_000_128);
        // Operands of 25.6 GB, of which a thread holds two stretches, a tile and its partial.
        assert_eq!(task.operand_bytes(), 25_600_000_000);
        assert_eq!(task.block_bytes(), 2 * 512 * 15_360 + 2 * (2 << 20));
        assert_eq!(plan.operand_bytes(), task.block_bytes());
        let last = task.block(plan.shards() - 1).unwrap();
        assert_eq!((last.rows, last.cols, last.terms), (39_936..40_000, 39_936..40_000, 0..40_000));
    }
}
