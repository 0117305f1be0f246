//! Two passes over the field, in place of the matrix of its products.
//!
//! Owns what is summed over all samples and cells: total variance, the field multiplied by random signs from either
//! side, and the anomalies of chosen samples. A signed sum over all samples must agree with the same sum of PCs, one
//! over all cells with the same sum of EOFs: an error anywhere shows, unless it cancels.

use super::super::KernelError;
use super::super::anomalies::Matrix;
use super::super::sum::Sum;
use super::arrays::Modes;
use crate::look::Chooser;

/// Random signs for either side: errors that cancel are missed with a probability of 2⁻³, a single one never.
pub(super) const ROUNDS: usize = 3;
/// Samples whose PCs are computed again.
const CHOSEN: usize = 4;
/// Terms of a plain chain of additions.
const CHAIN: usize = 1_024;

/// Philox streams of the rounds.
const OF_SAMPLES: u32 = 16;
const OF_CELLS: u32 = 32;

/// What the first pass found.
pub(super) struct First {
    /// Sum of the squares of all anomalies.
    pub(super) squares: f64,
    /// For each round, the signed sum over samples of each cell.
    pub(super) over_samples: Vec<Vec<f64>>,
    /// For each round, the signed sum over cells of each sample.
    pub(super) over_cells: Vec<Vec<f64>>,
    /// Signs of samples, then those of cells, by rounds. Cells that are missing have none.
    pub(super) sample_signs: Vec<Vec<f64>>,
    pub(super) cell_signs: Vec<Vec<f64>>,
    /// Chosen samples with all their anomalies.
    pub(super) chosen: Vec<(usize, Vec<f64>)>,
}

pub(super) fn first(
    matrix: &Matrix,
    chooser: &Chooser,
    cancelled: &dyn Fn() -> bool,
) -> Result<First, KernelError> {
    let (samples, cells) = (matrix.samples().count() as usize, matrix.cells().len());
    let signs = |stream: u32, count: usize| -> Vec<f64> {
        (0..count as u64).map(|at| chooser.sign(stream, at)).collect()
    };
    let of_cells = |round: usize| {
        let signs = signs(OF_CELLS + round as u32, cells).into_iter().zip(matrix.cells());
        signs.map(|(sign, cell)| if cell.is_missing() { 0.0 } else { sign }).collect()
    };
    let mut found = First {
        squares: 0.0,
        over_samples: vec![vec![0.0; cells]; ROUNDS],
        over_cells: vec![Vec::new(); ROUNDS],
        sample_signs: (0..ROUNDS).map(|round| signs(OF_SAMPLES + round as u32, samples)).collect(),
        cell_signs: (0..ROUNDS).map(of_cells).collect(),
        chosen: Vec::new(),
    };
    let chosen = chooser.some(0, CHOSEN, samples as u64);
    let mut squares = Sum::default();
    each_sample(matrix, cancelled, &mut |sample, row| {
        squares.add(dot(row, row));
        for round in 0..ROUNDS {
            let sign = found.sample_signs[round][sample];
            let sums = found.over_samples[round].iter_mut().zip(row);
            sums.for_each(|(sum, anomaly)| *sum += sign * anomaly);
            found.over_cells[round].push(dot(&found.cell_signs[round], row));
        }
        if chosen.contains(&(sample as u64)) {
            found.chosen.push((sample, row.to_vec()));
        }
    })?;
    found.squares = squares.value();
    Ok(found)
}

/// How much variance the field has along something that no mode has a part in: the Rayleigh quotients of what is left
/// of the signed sums over cells, with how small each is beside the field.
pub(super) fn left_over(
    matrix: &Matrix,
    first: &First,
    modes: &Modes,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<Remainder>, KernelError> {
    let mut left: Vec<Vec<f64>> = first.over_cells.clone();
    for (left, signs) in left.iter_mut().zip(&first.cell_signs) {
        let along: Vec<f64> = (0..modes.sizes.modes).map(|mode| dot(modes.eof(mode), signs)).collect();
        for (sample, left) in left.iter_mut().enumerate() {
            *left -= dot(modes.scores(sample), &along);
        }
    }
    let mut back = vec![vec![0.0; modes.sizes.cells]; left.len()];
    each_sample(matrix, cancelled, &mut |sample, row| {
        for (back, left) in back.iter_mut().zip(&left) {
            let times = left[sample];
            back.iter_mut().zip(row).for_each(|(back, anomaly)| *back += times * anomaly);
        }
    })?;
    let all = left.iter().zip(&back).zip(&first.cell_signs);
    Ok(all
        .map(|((left, back), signs)| {
            let square = dot(left, left);
            let present = dot(signs, signs);
            Remainder {
                quotient: if square > 0.0 { dot(back, back) / square } else { 0.0 },
                // How far rounding is blown up: the field's size over that of what is left.
                inflation: if square > 0.0 {
                    (first.squares * present / square).sqrt()
                } else {
                    f64::INFINITY
                },
            }
        })
        .collect())
}

/// What is left of one signed sum.
pub(super) struct Remainder {
    pub(super) quotient: f64,
    pub(super) inflation: f64,
}

fn each_sample(
    matrix: &Matrix,
    cancelled: &dyn Fn() -> bool,
    each: &mut dyn FnMut(usize, &[f64]),
) -> Result<(), KernelError> {
    let (mut row, cells) = (Vec::new(), matrix.cells().len() as u64);
    for sample in 0..matrix.samples().count() {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        matrix.block(sample..sample + 1, 0..cells, &mut row)?;
        each(sample as usize, &row);
    }
    Ok(())
}

/// A sum of products: eight chains over each thousand terms, the thousands with the errors of their additions.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = Sum::default();
    for (a, b) in a.chunks(CHAIN).zip(b.chunks(CHAIN)) {
        let (eights_a, rest_a) = a.as_chunks::<8>();
        let (eights_b, rest_b) = b.as_chunks::<8>();
        let mut lanes = [0.0; 8];
        for (a, b) in eights_a.iter().zip(eights_b) {
            for lane in 0..8 {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
        sum.add(lanes.iter().sum::<f64>() + rest);
    }
    sum.value()
}
