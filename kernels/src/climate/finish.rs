//! The `finish` stage: signs, scalings and errors of the modes, what is put together from them, and files.
//!
//! Owns the definitions of what the client reads. Files are written by [`output`].

use tessera_protocol::climate::{Coordinates, Finish, FinishTask, Head, Peak, Scaling, Side};
use tessera_protocol::limits;
use tessera_protocol::product::Product;

use super::anomalies::{self, Cell};
use super::values::Find;
use super::{KernelError, files, modes, output};
use crate::gemm::{self, View};
use crate::isa::Isa;

/// All that goes into files. Missing numbers are not-a-number.
pub(super) struct Results {
    pub(super) coordinates: Coordinates,
    /// Unscaled, mode by mode.
    pub(super) eofs: Vec<f64>,
    /// Unscaled, so many of each sample.
    pub(super) scores: Vec<f64>,
    /// Unscaled, of new samples.
    pub(super) projected: Vec<f64>,
    /// Square roots of the eigenvalues.
    pub(super) deviations: Vec<f64>,
    pub(super) errors: Finish,
    pub(super) cells: Vec<Cell>,
    /// Anomalies in the field's units, sample by sample; empty where none were asked for.
    pub(super) reconstruction: Vec<f64>,
}

pub(super) fn run(
    task: &FinishTask,
    find: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let (modes, cells) = (task.modes as usize, task.cells_of_grid() as usize);
    let coordinates = files::file(&task.survey, "coordinates", find)?;
    let coordinates = Coordinates::decode(&coordinates).map_err(|_| KernelError::Product)?;
    let mut eofs = modes::eofs(&task.eofs, modes, cells, find)?;
    let mut scores = scores(task, find)?;
    let mut projected = files::numbers(&task.projected, "scores", find)?;
    let new = task.new_samples.iter().sum::<u64>() as usize;
    if projected.len() != new * modes {
        return Err(KernelError::Product);
    }
    for (mode, peak) in task.peaks.iter().enumerate() {
        if turns(peak) {
            negate(&mut eofs[mode * cells..(mode + 1) * cells]);
            [&mut scores, &mut projected].into_iter().for_each(|rows| negate_column(rows, modes, mode));
        }
    }
    let cells = anomalies::cells(&task.cells, cells as u64, find)?;
    let present: Vec<f64> =
        eofs.iter().map(|loading| if loading.is_nan() { 0.0 } else { *loading }).collect();
    let errors = errors(task, &present, isa, cancelled)?;
    let reconstruction = match task.reconstruct.is_empty() {
        true => Vec::new(),
        false => reconstruct(task, &present, &scores, &cells, isa, cancelled)?,
    };
    let deviations = task.eigenvalues.iter().take(modes).map(|value| value.sqrt()).collect();
    let results = Results { coordinates, eofs, scores, projected, deviations, errors, cells, reconstruction };
    let files = output::files(task, &results)?;
    Ok(Product { head: Head::Finish(results.errors).encode(), files })
}

/// Whether a mode changes its sign, so that its largest loading is positive.
fn turns(peak: &Peak) -> bool {
    peak.loading < 0.0
}

fn negate(numbers: &mut [f64]) {
    // A missing one keeps its bits.
    numbers.iter_mut().filter(|number| !number.is_nan()).for_each(|number| *number = -*number);
}

fn negate_column(rows: &mut [f64], width: usize, column: usize) {
    rows.iter_mut().skip(column).step_by(width).for_each(|number| *number = -*number);
}

/// So many scores of each sample.
fn scores(task: &FinishTask, find: &Find<'_>) -> Result<Vec<f64>, KernelError> {
    let (modes, samples) = (task.modes as usize, task.samples.iter().sum::<u64>() as usize);
    let scores = match task.of {
        Side::Cells => files::numbers(&task.scores, "scores", find)?,
        Side::Samples => {
            let singular = files::numbers_of(&task.eigen, "singular", find)?;
            let vectors = files::numbers_of(&task.eigen, "vectors", find)?;
            if singular.len() != modes || vectors.len() != modes * samples {
                return Err(KernelError::Product);
            }
            let score = |sample: usize, mode: usize| vectors[mode * samples + sample] * singular[mode];
            (0..samples).flat_map(|sample| (0..modes).map(move |mode| score(sample, mode))).collect()
        }
    };
    if scores.len() == samples * modes { Ok(scores) } else { Err(KernelError::Product) }
}

/// *Source*: North, Bell, Cahalan and Moeng (1982), Monthly Weather Review 110, 699: the sampling error of
/// an eigenvalue is that times √(2/N), and modes closer than it are mixed.
fn errors(
    task: &FinishTask,
    eofs: &[f64],
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Finish, KernelError> {
    let modes = task.modes as usize;
    let samples = task.samples.iter().sum::<u64>() as f64;
    let values = &task.eigenvalues;
    let north_errors: Vec<f64> = values[..modes].iter().map(|value| value * (2.0 / samples).sqrt()).collect();
    let close =
        |mode: usize| values.get(mode + 1).is_some_and(|next| values[mode] - next <= north_errors[mode]);
    Ok(Finish {
        variance_fractions: values[..modes].iter().map(|value| value / task.total_variance).collect(),
        near_degenerate: (0..modes).map(close).collect(),
        orthonormality_error: orthonormality_error(eofs, modes, isa, cancelled)?,
        north_errors,
    })
}

fn orthonormality_error(
    eofs: &[f64],
    modes: usize,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<f64, KernelError> {
    let cells = eofs.len() / modes;
    let view = View::row_major(eofs, modes, cells)?;
    let mut products = vec![0.0; modes * modes];
    gemm::gemm(isa, &gemm::Product::gram(1.0, view)?, 0..cells, &mut products, cancelled)?;
    let expected = |place: usize| if place / modes == place % modes { 1.0 } else { 0.0 };
    let errors = products.iter().enumerate().map(|(place, product)| (product - expected(place)).abs());
    Ok(errors.fold(0.0, |most, error| if error > most { error } else { most }))
}

/// The anomalies that some modes make, in the field's own units: factors are taken back.
fn reconstruct(
    task: &FinishTask,
    eofs: &[f64],
    scores: &[f64],
    cells: &[Cell],
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<f64>, KernelError> {
    let (modes, width) = (task.modes as usize, cells.len());
    let samples = scores.len() / modes;
    let chosen: Vec<usize> = task.reconstruct.iter().map(|mode| *mode as usize - 1).collect();
    if (samples * width * 8) as u64 > limits::CLIMATE_OUTPUT_BYTES_MAX {
        return Err(KernelError::Task);
    }
    let of_modes: Vec<f64> =
        chosen.iter().flat_map(|mode| &eofs[mode * width..(mode + 1) * width]).copied().collect();
    let of_samples: Vec<f64> =
        scores.chunks_exact(modes).flat_map(|row| chosen.iter().map(|mode| row[*mode])).collect();
    let a = View::row_major(&of_samples, samples, chosen.len())?;
    let b = View::row_major(&of_modes, chosen.len(), width)?;
    let mut all = vec![0.0; samples * width];
    gemm::gemm(isa, &gemm::Product::new(1.0, a, b)?, 0..chosen.len(), &mut all, cancelled)?;
    for row in all.chunks_exact_mut(width) {
        for (value, cell) in row.iter_mut().zip(cells) {
            // A cell without weight takes no part, and nothing is known of it.
            *value = if cell.factor == 0.0 { f64::NAN } else { *value / cell.factor };
        }
    }
    Ok(all)
}

/// Numbers of a mode in a scaling.
pub(super) fn scaled(number: f64, deviation: f64, scaling: Scaling) -> f64 {
    match scaling {
        _ if number.is_nan() => f64::NAN,
        Scaling::Unscaled => number,
        Scaling::Divided => number / deviation,
        Scaling::Multiplied => number * deviation,
    }
}
