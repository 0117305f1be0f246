//! The `cells` stage: which cells are missing, the mean of the others, and the factor of each.
//!
//! Owns what is subtracted from a cell's values and what they are multiplied by. Sums are compensated, in
//! the order of the samples, and a panel sees all of them: no sharding splits a sum.

use tessera_protocol::climate::{CellWeights, Cells, CellsTask, Head, PANEL_CELLS, Piece};
use tessera_protocol::product::{File, Product};

use super::anomalies::Cell;
use super::finding::{Finding, Place};
use super::sum::Sum;
use super::values::{Find, Samples, read_all};
use super::{KernelError, files};
use crate::elementary;

/// Degrees to radians: π/180, rounded once.
const RADIANS: f64 = std::f64::consts::PI / 180.0;

/// What is gathered of the cells of a panel in one pass over the samples.
struct Pass {
    sums: Vec<Sum>,
    missing: Vec<u64>,
    first_missing: Vec<u64>,
    first: Vec<f64>,
    changes: Vec<bool>,
}

pub(super) fn run(
    task: &CellsTask,
    units: std::ops::Range<u64>,
    find: &Find<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let samples = Samples::open(&task.field, find)?;
    let cells = units.start * PANEL_CELLS..(units.end * PANEL_CELLS).min(task.field.cells);
    let weights = match weights(task, cells.clone(), find)? {
        Ok(weights) => weights,
        Err(finding) => return finding.product_with(&task.survey, find),
    };
    let (mut out, mut head) = (Vec::new(), Cells { present: 0, constant: 0 });
    for panel in units {
        let first = panel * PANEL_CELLS;
        let count = ((panel + 1) * PANEL_CELLS).min(task.field.cells) - first;
        let panel_weights = &weights[(first - cells.start) as usize..][..count as usize];
        match of_panel(task, &samples, first, panel_weights, &mut head, cancelled)? {
            Ok(panel) => out.extend(panel.iter().flat_map(|cell| [cell.mean, cell.factor])),
            Err(finding) => return finding.product_with(&task.survey, find),
        }
    }
    let file = File { name: "cells".into(), bytes: files::to_bytes(out) };
    Ok(Product { head: Head::Cells(head).encode(), files: vec![file] })
}

fn of_panel(
    task: &CellsTask,
    samples: &Samples,
    first: u64,
    weights: &[f64],
    head: &mut Cells,
    cancelled: &dyn Fn() -> bool,
) -> Result<Result<Vec<Cell>, Finding>, KernelError> {
    let pass = match first_pass(samples, first, weights.len(), cancelled)? {
        Ok(pass) => pass,
        Err(finding) => return Ok(Err(finding)),
    };
    if let Some(finding) = pass.partly_missing(samples, first) {
        return Ok(Err(finding));
    }
    let count = samples.count() as f64;
    let means: Vec<f64> = (0..weights.len())
        .map(|cell| match (pass.missing[cell] > 0, task.center) {
            (true, _) => f64::NAN,
            (false, false) => 0.0,
            // The mean of equal values is exactly theirs: the quotient might be off by its rounding.
            (false, true) if !pass.changes[cell] => pass.first[cell],
            (false, true) => pass.sums[cell].quotient(count),
        })
        .collect();
    let deviations = match task.standardise {
        true => Some(deviations(task, samples, first, &means, &pass, cancelled)?),
        false => None,
    };
    let cells = means.iter().enumerate().map(|(cell, mean)| {
        if mean.is_nan() {
            return Cell::MISSING;
        }
        head.present += 1;
        head.constant += u64::from(!pass.changes[cell]);
        let factor = match &deviations {
            Some(deviations) if pass.changes[cell] => weights[cell] / deviations[cell],
            _ => weights[cell],
        };
        Cell { mean: *mean, factor }
    });
    let cells: Vec<Cell> = cells.collect();
    let finite = |cell: &Cell| cell.is_missing() || (cell.mean.is_finite() && cell.factor.is_finite());
    match cells.iter().position(|cell| !finite(cell)) {
        Some(cell) => Ok(Err(Finding::TooLarge { cell: first + cell as u64 })),
        None => Ok(Ok(cells)),
    }
}

fn first_pass(
    samples: &Samples,
    first: u64,
    width: usize,
    cancelled: &dyn Fn() -> bool,
) -> Result<Result<Pass, Finding>, KernelError> {
    let mut pass = Pass {
        sums: vec![Sum::default(); width],
        missing: vec![0; width],
        first_missing: vec![0; width],
        first: vec![0.0; width],
        changes: vec![false; width],
    };
    let mut row = vec![0.0; width];
    for sample in 0..samples.count() {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        samples.read(sample, first, &mut row)?;
        if sample == 0 {
            pass.first.copy_from_slice(&row);
        }
        for (cell, value) in row.iter().enumerate() {
            if value.is_nan() {
                if pass.missing[cell] == 0 {
                    pass.first_missing[cell] = sample;
                }
                pass.missing[cell] += 1;
            } else if value.is_infinite() {
                let (cell, time) = (first + cell as u64, samples.place(sample));
                return Ok(Err(Finding::Infinite(Place { cell, file: time.0, sample: time.1 })));
            } else {
                pass.sums[cell].add(*value);
                pass.changes[cell] |= *value != pass.first[cell];
            }
        }
    }
    Ok(Ok(pass))
}

impl Pass {
    fn partly_missing(&self, samples: &Samples, first: u64) -> Option<Finding> {
        let count = samples.count();
        let partly = |missing: &u64| (1..count).contains(missing);
        let cell = self.missing.iter().position(partly)?;
        let (file, sample) = samples.place(self.first_missing[cell]);
        let place = Place { cell: first + cell as u64, file, sample };
        Some(Finding::PartlyMissing { place, missing: self.missing[cell], samples: count })
    }
}

/// Standard deviations over the samples, one degree of freedom less than there are.
fn deviations(
    task: &CellsTask,
    samples: &Samples,
    first: u64,
    means: &[f64],
    pass: &Pass,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<f64>, KernelError> {
    let width = means.len();
    let (mut row, mut sums) = (vec![0.0; width], vec![Sum::default(); width]);
    let count = samples.count() as f64;
    // Of what is not centred, too, the deviation is that from the mean.
    let centres: Vec<f64> = match task.center {
        true => means.to_vec(),
        false => pass.sums.iter().map(|sum| sum.quotient(count)).collect(),
    };
    for sample in 0..samples.count() {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        samples.read(sample, first, &mut row)?;
        for ((sum, value), centre) in sums.iter_mut().zip(&row).zip(&centres) {
            let difference = value - centre;
            sum.add(difference * difference);
        }
    }
    Ok(sums.iter().map(|sum| sum.quotient(count - 1.0).sqrt()).collect())
}

/// The weights of cells.
fn weights(
    task: &CellsTask,
    cells: std::ops::Range<u64>,
    find: &Find<'_>,
) -> Result<Result<Vec<f64>, Finding>, KernelError> {
    let range = cells.start as usize..cells.end as usize;
    match &task.weights {
        CellWeights::None => Ok(Ok(vec![1.0; range.len()])),
        CellWeights::SqrtCosLatitude => {
            let latitudes = files::numbers_of(&task.survey, "latitude", find)?;
            let latitudes = latitudes.get(range).ok_or(KernelError::Product)?;
            Ok(Ok(latitudes.iter().map(|latitude| sqrt_cos(*latitude)).collect()))
        }
        CellWeights::Given(piece) => given(piece, task.field.cells, range, find),
    }
}

fn sqrt_cos(latitude: f64) -> f64 {
    let cosine = elementary::cos(latitude * RADIANS);
    if cosine > 0.0 { cosine.sqrt() } else { 0.0 }
}

fn given(
    piece: &Piece,
    count: u64,
    range: std::ops::Range<usize>,
    find: &Find<'_>,
) -> Result<Result<Vec<f64>, Finding>, KernelError> {
    let all = read_all(piece, count, find)?;
    let weights = all.get(range.clone()).ok_or(KernelError::Product)?;
    match weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        Some(cell) => Ok(Err(Finding::Weight { cell: (range.start + cell) as u64 })),
        None => Ok(Ok(weights.to_vec())),
    }
}
