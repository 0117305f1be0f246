//! The matrix that is analysed: values less their cell's mean, times its factor.
//!
//! Owns the cells' means and factors as the `cells` stage left them. Missing cells are zero, so that chains
//! of products pass them unchanged.

use std::ops::Range;

use tessera_protocol::climate::{Anomalies, Source};

use super::values::{Find, Samples};
use super::{KernelError, files};
use crate::runs::Unreadable;

/// Mean and factor of one cell; the mean of a missing one is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) mean: f64,
    pub(super) factor: f64,
}

impl Cell {
    pub(super) const MISSING: Cell = Cell { mean: f64::NAN, factor: 0.0 };

    pub(super) fn is_missing(&self) -> bool {
        self.mean.is_nan()
    }
}

/// A field with its cells.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    samples: Samples,
    cells: Vec<Cell>,
}

/// A value that is missing where its cell is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) sample: u64,
    pub(super) cell: u64,
}

/// Why there is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBlock {
    /// The first value that is missing.
    Hole(Hole),
    Unreadable(Unreadable),
}

impl From<Unreadable> for NoBlock {
    fn from(error: Unreadable) -> NoBlock {
        NoBlock::Unreadable(error)
    }
}

/// The cells of a grid from the products of their stage.
pub(super) fn cells(products: &[Source], count: u64, find: &Find<'_>) -> Result<Vec<Cell>, KernelError> {
    let numbers = files::numbers(products, "cells", find)?;
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(KernelError::Product) };
    if pairs.len() as u64 != count {
        return Err(KernelError::Product);
    }
    Ok(pairs.iter().map(|[mean, factor]| Cell { mean: *mean, factor: *factor }).collect())
}

impl Matrix {
    pub(super) fn open(anomalies: &Anomalies, find: &Find<'_>) -> Result<Matrix, KernelError> {
        let samples = Samples::open(&anomalies.field, find)?;
        let cells = cells(&anomalies.cells, samples.cells(), find)?;
        Ok(Matrix { samples, cells })
    }

    pub(super) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(super) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Rows of so many samples by so many cells.
    ///
    /// *Errors*: the first [`Hole`], or a file that cannot be read.
    pub(super) fn block(
        &self,
        samples: Range<u64>,
        cells: Range<u64>,
        out: &mut Vec<f64>,
    ) -> Result<(), NoBlock> {
        let width = (cells.end - cells.start) as usize;
        let rows = (samples.end - samples.start) as usize;
        // Every element is written below.
        out.resize(rows * width, 0.0);
        if width == 0 {
            return Ok(());
        }
        let of_cells = &self.cells[cells.start as usize..cells.end as usize];
        for (sample, row) in samples.zip(out.chunks_exact_mut(width)) {
            self.samples.read(sample, cells.start, row)?;
            let mut hole = false;
            for (value, cell) in row.iter_mut().zip(of_cells) {
                let anomaly = (*value - cell.mean) * cell.factor;
                hole |= value.is_nan() && !cell.mean.is_nan();
                *value = if cell.mean.is_nan() { 0.0 } else { anomaly };
            }
            if hole {
                let missing = |(value, cell): (&f64, &Cell)| value.is_nan() && !cell.is_missing();
                let at = row.iter().zip(of_cells).position(missing).unwrap_or(0) as u64;
                return Err(NoBlock::Hole(Hole { sample, cell: cells.start + at }));
            }
        }
        Ok(())
    }

    /// As [`Matrix::block`] for cells in any ascending places.
    pub(super) fn gathered(
        &self,
        samples: Range<u64>,
        places: &[u64],
        buffer: &mut Vec<f64>,
        out: &mut Vec<f64>,
    ) -> Result<(), NoBlock> {
        out.clear();
        let (Some(first), Some(last)) = (places.first(), places.last()) else { return Ok(()) };
        // A few cells may lie all over a large grid: one sample of what is between them at a time.
        for sample in samples {
            self.block(sample..sample + 1, *first..last + 1, buffer)?;
            out.extend(places.iter().map(|place| buffer[(place - first) as usize]));
        }
        Ok(())
    }
}
