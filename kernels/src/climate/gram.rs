//! The `gram` and `eigen` stages: products of samples or cells, and their leading eigenvectors.
//!
//! Owns how an element is summed: over one panel after another, each an ascending chain of fused
//! multiply-adds from +0, the panels' sums added with their errors kept. Tiles and shards change no bit.

use std::ops::Range;

use tessera_protocol::climate::{Eigen, EigenTask, GramTask, Head, PANEL_CELLS, PANEL_SAMPLES, Side};
use tessera_protocol::product::{File, Product};

use super::anomalies::Matrix;
use super::finding::Finding;
use super::sum::Sum;
use super::symmetric::{self, EigenError};
use super::values::Find;
use super::{KernelError, files};
use crate::gemm::{self, View};
use crate::isa::Isa;

/// A mode whose variance is below this part of the first one's is none: products of anomalies have their
/// digits relative to the largest, so that about four digits of its loadings would be left. It is 2⁻⁴⁰.
const RELATIVE_VARIANCE_MIN: f64 = f64::from_bits((1023 - 40) << 52);

pub(super) fn run(
    task: &GramTask,
    units: Range<u64>,
    find: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let matrix = Matrix::open(&task.anomalies, find)?;
    let places: Vec<u64> = match task.of {
        Side::Samples => Vec::new(),
        Side::Cells => present(&matrix),
    };
    if task.of == Side::Cells && places.len() as u64 != task.side {
        return Err(KernelError::Product);
    }
    let tiles = Tiles { matrix: &matrix, places: &places, isa, cancelled };
    let mut bytes = Vec::new();
    for unit in units {
        let [rows, cols] = tile(task.side, task.tile, unit);
        bytes.extend(files::to_bytes(tiles.tile(rows, cols)?.iter().map(Sum::value)));
    }
    let file = File { name: "tiles".into(), bytes };
    Ok(Product { head: Head::Files.encode(), files: vec![file] })
}

/// The cells that are not missing.
pub(super) fn present(matrix: &Matrix) -> Vec<u64> {
    let cells = matrix.cells().iter().enumerate();
    cells.filter(|(_, cell)| !cell.is_missing()).map(|(place, _)| place as u64).collect()
}

/// Rows and columns of a tile: those on and below the diagonal, row by row.
fn tile(side: u64, tile: u64, unit: u64) -> [Range<u64>; 2] {
    // The last row of tiles that begins at or before this one; there are at most 2^12.
    let row = (0..side.div_ceil(tile)).take_while(|row| row * (row + 1) / 2 <= unit).last().unwrap_or(0);
    let col = unit - row * (row + 1) / 2;
    [row, col].map(|position| position * tile..((position + 1) * tile).min(side))
}

struct Tiles<'a> {
    matrix: &'a Matrix,
    /// Cells whose products are summed; empty where samples' are.
    places: &'a [u64],
    isa: Isa,
    cancelled: &'a dyn Fn() -> bool,
}

impl Tiles<'_> {
    fn tile(&self, rows: Range<u64>, cols: Range<u64>) -> Result<Vec<Sum>, KernelError> {
        let [height, width] = [&rows, &cols].map(|range| (range.end - range.start) as usize);
        let mut sums = vec![Sum::default(); height * width];
        let mut out = vec![0.0; height * width];
        let (mut a, mut b, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        let of_samples = self.places.is_empty();
        let (depth, step) = match of_samples {
            true => (self.matrix.samples().cells(), PANEL_CELLS),
            false => (self.matrix.samples().count(), PANEL_SAMPLES),
        };
        for start in (0..depth).step_by(step as usize) {
            let panel = start..(start + step).min(depth);
            let terms = (panel.end - panel.start) as usize;
            let (view_a, view_b);
            if of_samples {
                self.matrix.block(rows.clone(), panel.clone(), &mut a)?;
                view_a = View::row_major(&a, height, terms)?;
                view_b = match rows == cols {
                    true => view_a,
                    false => {
                        self.matrix.block(cols.clone(), panel, &mut b)?;
                        View::row_major(&b, width, terms)?
                    }
                };
            } else {
                let places = |range: &Range<u64>| &self.places[range.start as usize..range.end as usize];
                self.matrix.gathered(panel.clone(), places(&rows), &mut buffer, &mut a)?;
                self.matrix.gathered(panel, places(&cols), &mut buffer, &mut b)?;
                view_a = View::column_major(&a, height, terms)?;
                view_b = View::column_major(&b, width, terms)?;
            }
            let product = gemm::Product::new(1.0, view_a, view_b.transposed())?;
            gemm::gemm(self.isa, &product, 0..terms, &mut out, self.cancelled)?;
            sums.iter_mut().zip(&out).for_each(|(sum, panel)| sum.add(*panel));
        }
        Ok(sums)
    }
}

/// The `eigen` stage.
pub(super) fn eigen(
    task: &EigenTask,
    find: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let mut matrix = assemble(task, find)?;
    let side = task.side as usize;
    let mut trace = Sum::default();
    matrix.iter().step_by(side + 1).for_each(|element| trace.add(*element));
    let wanted = (task.modes as usize + 1).min(side);
    let found = match symmetric::leading(isa, &mut matrix, side, wanted, cancelled) {
        Ok(found) => found,
        Err(EigenError::Cancelled) => return Err(KernelError::Cancelled),
        Err(EigenError::NotConverged) => return Ok(Finding::NotConverged.product()),
    };
    let least = found.values[0] * RELATIVE_VARIANCE_MIN;
    if found.values[0] <= 0.0 {
        return Ok(Finding::NoVariance.product());
    }
    let modes = found.values.iter().take(task.modes as usize).take_while(|value| **value > least).count();
    let freedom = (task.samples - 1) as f64;
    // What rounding left of a mode that is none is no variance.
    let variance = |value: &f64| if *value > least { *value / freedom } else { 0.0 };
    let head = Eigen {
        eigenvalues: found.values.iter().take(modes + 1).map(variance).collect(),
        total_variance: trace.value() / freedom,
        modes: modes as u64,
    };
    let singular = found.values[..modes].iter().map(|value| value.sqrt());
    let vectors = found.vectors[..modes * side].iter().copied();
    let files = vec![
        File { name: "singular".into(), bytes: files::to_bytes(singular) },
        File { name: "vectors".into(), bytes: files::to_bytes(vectors) },
    ];
    Ok(Product { head: Head::Eigen(head).encode(), files })
}

/// The lower triangle from its tiles.
fn assemble(task: &EigenTask, find: &Find<'_>) -> Result<Vec<f64>, KernelError> {
    let side = task.side as usize;
    let down = task.side.div_ceil(task.tile);
    let mut matrix = vec![0.0; side * side];
    let mut unit = 0;
    for product in &task.tiles {
        let numbers = files::numbers_of(product, "tiles", find)?;
        let mut rest = numbers.as_slice();
        while !rest.is_empty() {
            if unit == down * (down + 1) / 2 {
                return Err(KernelError::Product);
            }
            let [rows, cols] = tile(task.side, task.tile, unit);
            let width = (cols.end - cols.start) as usize;
            for row in rows {
                let (line, others) = rest.split_at_checked(width).ok_or(KernelError::Product)?;
                matrix[row as usize * side + cols.start as usize..][..width].copy_from_slice(line);
                rest = others;
            }
            unit += 1;
        }
    }
    if unit == down * (down + 1) / 2 { Ok(matrix) } else { Err(KernelError::Product) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_lower_triangle_once() {
        let mut seen = vec![0; 100];
        for unit in 0..6 {
            let [rows, cols] = tile(10, 4, unit);
            rows.for_each(|row| cols.clone().for_each(|col| seen[(row * 10 + col) as usize] += 1));
        }
        for (place, count) in seen.iter().enumerate() {
            assert!(*count <= 1 && (*count == 1 || place % 10 > place / 10), "{place}");
        }
    }
}
