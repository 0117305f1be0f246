//! The `modes` and `project` stages: loadings of cells and scores of samples.
//!
//! Owns both directions of the projection. A loading is one ascending chain over the samples; a score is
//! summed over panels of cells as a product of samples is.

use std::ops::Range;

use tessera_protocol::climate::{
    BLOCK_SAMPLES, Head, Modes, ModesTask, PANEL_CELLS, Peak, ProjectTask, Side, Source,
};
use tessera_protocol::product::{File, Product};

use super::anomalies::{Hole, Matrix, NoBlock};
use super::finding::{Finding, Place};
use super::sum::Sum;
use super::values::Find;
use super::{KernelError, files, gram};
use crate::gemm::{self, View};
use crate::isa::Isa;

pub(super) fn run(
    task: &ModesTask,
    units: Range<u64>,
    find: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let matrix = Matrix::open(&task.anomalies, find)?;
    let singular = files::numbers_of(&task.eigen, "singular", find)?;
    let vectors = files::numbers_of(&task.eigen, "vectors", find)?;
    let side = match task.of {
        Side::Samples => matrix.samples().count() as usize,
        Side::Cells => gram::present(&matrix).len(),
    };
    if singular.is_empty() || vectors.len() != singular.len() * side {
        return Err(KernelError::Product);
    }
    let cells = units.start * PANEL_CELLS..(units.end * PANEL_CELLS).min(task.anomalies.field.cells);
    let width = (cells.end - cells.start) as usize;
    let mut loadings = vec![0.0; singular.len() * width];
    match task.of {
        Side::Samples => {
            let u = View::row_major(&vectors, singular.len(), side)?;
            for panel in panels(&cells) {
                let columns = (panel.start - cells.start) as usize..(panel.end - cells.start) as usize;
                let eofs = project_panel(&matrix, u, &singular, panel, isa, cancelled)?;
                copy_columns(&eofs, columns, &mut loadings, width);
            }
        }
        Side::Cells => place(&matrix, &vectors, side, &cells, &mut loadings),
    }
    let peaks = loadings.chunks_exact(width).map(|mode| peak(mode, cells.start)).collect();
    let file = File { name: "eofs".into(), bytes: files::to_bytes(loadings) };
    Ok(Product { head: Head::Modes(Modes { peaks }).encode(), files: vec![file] })
}

fn panels(cells: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = cells.end;
    (cells.start..end).step_by(PANEL_CELLS as usize).map(move |start| start..(start + PANEL_CELLS).min(end))
}

/// `uᵀ Y / s` of a panel of cells.
fn project_panel(
    matrix: &Matrix,
    u: View<'_, f64>,
    singular: &[f64],
    panel: Range<u64>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<f64>, KernelError> {
    let width = (panel.end - panel.start) as usize;
    let mut y = Vec::new();
    let of_panel = &matrix.cells()[panel.start as usize..panel.end as usize];
    matrix.block(0..matrix.samples().count(), panel.clone(), &mut y)?;
    let y = View::row_major(&y, u.cols(), width)?;
    let mut eofs = vec![0.0; u.rows() * width];
    gemm::gemm(isa, &gemm::Product::new(1.0, u, y)?, 0..u.cols(), &mut eofs, cancelled)?;
    for (mode, singular) in eofs.chunks_exact_mut(width).zip(singular) {
        for (loading, cell) in mode.iter_mut().zip(of_panel) {
            *loading = if cell.is_missing() { f64::NAN } else { *loading / singular };
        }
    }
    Ok(eofs)
}

fn copy_columns(from: &[f64], columns: Range<usize>, to: &mut [f64], width: usize) {
    for (from, to) in from.chunks_exact(columns.len()).zip(to.chunks_exact_mut(width)) {
        to[columns.clone()].copy_from_slice(from);
    }
}

/// Loadings are the vectors' elements, at the cells that are not missing.
fn place(matrix: &Matrix, vectors: &[f64], side: usize, cells: &Range<u64>, loadings: &mut [f64]) {
    let before = matrix.cells()[..cells.start as usize].iter().filter(|cell| !cell.is_missing()).count();
    let of_range = &matrix.cells()[cells.start as usize..cells.end as usize];
    for (mode, vector) in loadings.chunks_exact_mut(of_range.len()).zip(vectors.chunks_exact(side)) {
        let mut elements = vector[before..].iter();
        for (loading, cell) in mode.iter_mut().zip(of_range) {
            let element = if cell.is_missing() { None } else { elements.next() };
            *loading = element.copied().unwrap_or(f64::NAN);
        }
    }
}

fn peak(mode: &[f64], first_cell: u64) -> Peak {
    let peaks = mode.iter().enumerate().map(|(at, loading)| {
        let loading = if loading.is_nan() { 0.0 } else { *loading };
        Peak { loading, cell: first_cell + at as u64 }
    });
    peaks.reduce(Peak::or).unwrap_or(Peak { loading: 0.0, cell: first_cell })
}

/// The loadings of all cells, mode by mode, from the products of their stage.
pub(super) fn eofs(
    products: &[Source],
    modes: usize,
    cells: usize,
    find: &Find<'_>,
) -> Result<Vec<f64>, KernelError> {
    let mut all = vec![0.0; modes * cells];
    let mut first = 0;
    for product in products {
        let loadings = files::numbers_of(product, "eofs", find)?;
        let width = loadings.len() / modes;
        if width == 0 || loadings.len() % modes != 0 || first + width > cells {
            return Err(KernelError::Product);
        }
        copy_columns(&loadings, first..first + width, &mut all, cells);
        first += width;
    }
    if first == cells { Ok(all) } else { Err(KernelError::Product) }
}

/// The `project` stage.
pub(super) fn project(
    task: &ProjectTask,
    units: Range<u64>,
    find: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let matrix = Matrix::open(&task.anomalies, find)?;
    let (modes, cells) = (task.modes as usize, matrix.cells().len());
    let mut eofs = eofs(&task.eofs, modes, cells, find)?;
    eofs.iter_mut().for_each(|loading| *loading = if loading.is_nan() { 0.0 } else { *loading });
    let eofs = View::row_major(&eofs, modes, cells)?;
    let mut scores = Vec::new();
    for unit in units {
        let samples = unit * BLOCK_SAMPLES..((unit + 1) * BLOCK_SAMPLES).min(matrix.samples().count());
        match block_scores(&matrix, samples, eofs, isa, cancelled)? {
            Ok(block) => scores.extend(block),
            Err(hole) if task.new => {
                let (file, sample) = matrix.samples().place(hole.sample);
                let finding = Finding::MissingInNew(Place { cell: hole.cell, file, sample });
                return finding.product_with(&task.survey, find);
            }
            Err(_) => return Err(KernelError::Product),
        }
    }
    let file = File { name: "scores".into(), bytes: files::to_bytes(scores) };
    Ok(Product { head: Head::Files.encode(), files: vec![file] })
}

/// So many scores of each sample of a block.
fn block_scores(
    matrix: &Matrix,
    samples: Range<u64>,
    eofs: View<'_, f64>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Result<Vec<f64>, Hole>, KernelError> {
    let (rows, modes) = ((samples.end - samples.start) as usize, eofs.rows());
    let mut sums = vec![Sum::default(); rows * modes];
    let (mut y, mut out) = (Vec::new(), vec![0.0; rows * modes]);
    for panel in panels(&(0..matrix.cells().len() as u64)) {
        match matrix.block(samples.clone(), panel.clone(), &mut y) {
            Err(NoBlock::Hole(hole)) => return Ok(Err(hole)),
            block => block?,
        }
        let columns = panel.start as usize..panel.end as usize;
        let y = View::row_major(&y, rows, columns.len())?;
        let product = gemm::Product::new(1.0, y, eofs.tile(0..modes, columns.clone())?.transposed())?;
        gemm::gemm(isa, &product, 0..columns.len(), &mut out, cancelled)?;
        sums.iter_mut().zip(&out).for_each(|(sum, panel)| sum.add(*panel));
    }
    Ok(Ok(sums.iter().map(Sum::value).collect()))
}
