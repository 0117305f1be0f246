//! A quick look at a finished analysis: whether its modes are those of its field.
//!
//! Owns what is checked, and how far rounding may have brought an honest result: each bound is a multiple of the
//! field's total variance over the mode's, since that is how errors of the products reach a mode. Reads the field
//! three times, where an analysis multiplies every sample with every other.

use std::collections::BTreeMap;

use bytes::Bytes;
use tessera_protocol::climate::{Anomalies, CellsTask, Head, PANEL_CELLS, Scaling, Source};
use tessera_protocol::id::Digest;

use super::anomalies::{Cell, Matrix};
use super::finish::scaled;
use super::values::Find;
use super::{KernelError, cells};
use crate::look::{Chooser, Look};
use arrays::{Arrays, Modes, Sizes};
use passes::{First, dot};

mod arrays;
mod passes;

/// Names of the checks.
const ARRAYS: &str = "arrays of the output";
const EIGENVALUES: &str = "eigenvalues descend and none is negative";
const FRACTIONS: &str = "explained variance";
const NORTH: &str = "North's errors and near-degenerate modes";
const CELLS: &str = "means and factors of cells";
const TOTAL: &str = "total variance of the field";
const MODES: &str = "number of modes";
const ORTHONORMAL: &str = "EOFs are orthonormal";
const SIGNS: &str = "largest loading of each EOF is positive";
const UNCORRELATED: &str = "PCs are uncorrelated with the eigenvalues as variances";
const SCALINGS: &str = "scalings are of one set of modes";
const PROJECTED: &str = "PCs are the anomalies projected onto the EOFs";
const CHOSEN: &str = "PCs of chosen samples";
const REGRESSED: &str = "EOFs are the anomalies regressed onto the PCs";
const LARGEST: &str = "no larger mode is left out";
const RECONSTRUCTED: &str = "reconstruction of chosen samples";
const NEW: &str = "projection of new samples";

/// Half the distance from one to the next double.
const ROUNDING: f64 = f64::EPSILON / 2.0;
/// How many roundings of the total variance reach a product of modes, for each term of a panel and each row of the
/// decomposed matrix. Of fields of up to 210 samples or cells the largest error was a 1,000th of that.
const ROUNDINGS: f64 = 8.0;
/// A mode of less than this part of the first one's variance is rounding, and left out: 2⁻⁴⁰.
const RELATIVE_VARIANCE_MIN: f64 = f64::from_bits((1023 - 40) << 52);
/// Planners refuse EOFs that are farther from orthonormal.
const ORTHONORMALITY_ERROR_MAX: f64 = 1e-3;
/// Leading eigenvalues may exceed the sum of all by this part.
const TRACE_SLACK: f64 = 1e-9;
/// Variances outside have products that underflow or overflow.
const VARIANCES: std::ops::RangeInclusive<f64> = 1e-200..=1e200;

/// A finished analysis.
pub struct Given<'a> {
    /// The field with its weights, from a survey made again.
    pub task: &'a CellsTask,
    /// Modes asked for.
    pub modes: u64,
    /// Scalings asked for.
    pub scalings: &'a [Scaling],
    /// Modes that are added up, from one.
    pub reconstruct: &'a [u64],
    /// Whether new samples are projected.
    pub projects: bool,
    /// What the result says.
    pub stated: &'a Stated,
    /// The job's outputs by their names.
    pub outputs: &'a BTreeMap<String, Bytes>,
}

/// The numbers of a result document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stated {
    /// Of all modes.
    pub total_variance: f64,
    /// Of each mode, as the next three.
    pub eigenvalues: Vec<f64>,
    /// Parts of the total variance.
    pub variance_fractions: Vec<f64>,
    /// Sampling errors.
    pub north_errors: Vec<f64>,
    /// Whether the next mode lies within the error.
    pub near_degenerate: Vec<bool>,
    /// How far the EOFs are from orthonormal.
    pub orthonormality_error: f64,
}

/// Looks at an analysis. `files` finds the job's input files and the survey's product by digest.
///
/// *Errors*: those of the kernel, of which none is about the outputs.
pub fn look(
    given: &Given<'_>,
    files: &Find<'_>,
    chooser: &Chooser,
    cancelled: &dyn Fn() -> bool,
) -> Result<Look, KernelError> {
    let mut look = Look::default();
    let stated = given.stated;
    let modes = stated.eigenvalues.len();
    let lists = [stated.variance_fractions.len(), stated.north_errors.len(), stated.near_degenerate.len()];
    let (samples, cells) = (given.task.field.samples() as usize, given.task.field.cells as usize);
    let sizes = Sizes { modes, samples, cells };
    let arrays = match arrays::read(given.outputs, sizes, given.scalings, !given.reconstruct.is_empty()) {
        _ if modes == 0 || lists != [modes; 3] => Err(format!("{modes} modes with {lists:?} numbers")),
        arrays => arrays,
    };
    let expected = format!("{modes} modes of {samples} samples and {cells} cells, the same in every file");
    let arrays = match arrays {
        Ok(arrays) => arrays,
        Err(what) => {
            look.check(ARRAYS, false, what, expected);
            return Ok(look);
        }
    };
    look.check(ARRAYS, true, &expected, &expected);
    if !numbers(stated, &arrays, samples, &mut look) {
        // Every bound below is one of variances.
        return Ok(look);
    }
    let Some(matrix) = matrix(given.task, &arrays, files, &mut look, cancelled)? else { return Ok(look) };
    let first = passes::first(&matrix, chooser, cancelled)?;
    let deviations: Vec<f64> = stated.eigenvalues.iter().map(|value| value.sqrt()).collect();
    let Some(scaling) = given.scalings.iter().min() else { return Ok(look) };
    let found = Found {
        given,
        modes: Modes::of(&arrays, *scaling, sizes, &deviations),
        touched: if *scaling == Scaling::Unscaled { 0.0 } else { 8.0 * ROUNDING },
        freedom: samples as f64 - 1.0,
        deviations,
        matrix: &matrix,
        first: &first,
    };
    if !found.variances(&mut look) {
        return Ok(look);
    }
    found.eofs(&mut look);
    found.pcs(&mut look);
    found.scalings(&arrays, *scaling, &mut look);
    found.projections(&mut look);
    found.regressions(&mut look);
    found.largest(&mut look, cancelled)?;
    found.reconstruction(&arrays, &mut look);
    if given.projects {
        look.leave_out(NEW, "the files projected are not read");
    }
    Ok(look)
}

/// Checks among the numbers of the document.
fn numbers(stated: &Stated, arrays: &Arrays, samples: usize, look: &mut Look) -> bool {
    let Stated { total_variance: total, eigenvalues: values, .. } = stated;
    let list = |name: &str| arrays.get(name).map_or(&[][..], Vec::as_slice);
    let sound = values.iter().all(|value| value.is_finite() && *value > 0.0)
        && values.is_sorted_by(|a, b| a >= b)
        && arrays::alike(values, list("eigenvalues"));
    let found = values.iter().map(|value| format!("{value:.4e}")).collect::<Vec<_>>().join(", ");
    look.check(EIGENVALUES, sound, found, "positive, descending, the same in document and files");
    let fractions: Vec<f64> = values.iter().map(|value| value / total).collect();
    let sum: f64 = fractions.iter().sum();
    let whole = arrays::alike(&fractions, &stated.variance_fractions)
        && arrays::alike(&fractions, list("variance_fractions"))
        && sum <= 1.0 + TRACE_SLACK;
    let found = stated.variance_fractions.iter().sum::<f64>();
    look.check(FRACTIONS, whole, format!("together {found}"), format!("{sum} of {total}, at most 1"));
    let errors: Vec<f64> = values.iter().map(|value| value * (2.0 / samples as f64).sqrt()).collect();
    let flags: Vec<f64> = stated.near_degenerate.iter().map(|flag| f64::from(*flag)).collect();
    // Of the last mode, the next eigenvalue is not in the document.
    let close = |mode: usize| values[mode] - values[mode + 1] <= errors[mode];
    let right = arrays::alike(&errors, &stated.north_errors)
        && arrays::alike(&errors, list("north_errors"))
        && arrays::alike(&flags, list("near_degenerate"))
        && (0..values.len() - 1).all(|mode| close(mode) == stated.near_degenerate[mode]);
    let found = if right { "follow from the eigenvalues" } else { "other errors, or other flags" };
    look.check(NORTH, right, found, format!("eigenvalue times the square root of 2/{samples}"));
    sound && whole
}

/// The anomalies, where means and factors are those of the output.
fn matrix(
    task: &CellsTask,
    arrays: &Arrays,
    files: &Find<'_>,
    look: &mut Look,
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Matrix>, KernelError> {
    let panels = task.field.cells.div_ceil(PANEL_CELLS);
    let product = cells::run(task, 0..panels, files, cancelled)?;
    if let Ok(Head::Refused(words)) = Head::decode(&product.head) {
        look.check(CELLS, false, "a result", words);
        return Ok(None);
    }
    let bytes = Bytes::from(product.encode().map_err(|_| KernelError::Output)?);
    let source = Source { blake3: Digest::of(&bytes).0, bytes: bytes.len() as u64 };
    let find =
        |blake3: &[u8; 32]| if *blake3 == source.blake3 { Some(bytes.clone()) } else { files.whole(blake3) };
    let matrix = Matrix::open(&Anomalies { field: task.field.clone(), cells: vec![source] }, &find)?;
    let list = |name: &str| arrays.get(name).map_or(&[][..], Vec::as_slice);
    let factor = |cell: &Cell| if cell.is_missing() { f64::NAN } else { cell.factor };
    let expected = matrix.cells().iter().map(|cell| [cell.mean, factor(cell)]);
    let found = list("mean").iter().zip(list("factor")).map(|(mean, factor)| [*mean, *factor]);
    let differs =
        found.zip(expected).enumerate().find(|(_, (found, expected))| !arrays::alike(found, expected));
    match differs {
        None => {
            let missing = matrix.cells().iter().filter(|cell| cell.is_missing()).count();
            let same = format!("the same bits for {} cells, {missing} missing", matrix.cells().len());
            look.check(CELLS, true, &same, &same);
        }
        Some((cell, ([mean, factor], [mean_here, factor_here]))) => look.check(
            CELLS,
            false,
            format!("cell {cell}: mean {mean}, factor {factor}"),
            format!("mean {mean_here}, factor {factor_here}"),
        ),
    }
    Ok(Some(matrix))
}

/// The largest of some errors beside what rounding explains.
struct Worst {
    share: f64,
    found: String,
    expected: String,
}

impl Worst {
    const NONE: Worst = Worst { share: 0.0, found: String::new(), expected: String::new() };

    fn observe(&mut self, error: f64, bound: f64, what: impl Fn() -> String) {
        let share = if error.is_nan() { f64::INFINITY } else { error / bound };
        if self.found.is_empty() || share > self.share {
            *self = Worst {
                share,
                found: format!("{}: off by {error:.1e}", what()),
                expected: format!("at most {bound:.1e}, which rounding explains"),
            };
        }
    }

    fn tell(self, name: &'static str, look: &mut Look) {
        look.check(name, self.share <= 1.0, self.found, self.expected);
    }
}

/// Modes beside their field.
struct Found<'a> {
    given: &'a Given<'a>,
    modes: Modes,
    /// What taking a scaling back may have cost.
    touched: f64,
    /// Samples less one.
    freedom: f64,
    /// Square roots of the eigenvalues.
    deviations: Vec<f64>,
    matrix: &'a Matrix,
    first: &'a First,
}

impl Found<'_> {
    /// How far products of modes may be off. *Units*: the sum of the squares of all anomalies.
    fn slack(&self) -> f64 {
        let Sizes { samples, cells, .. } = self.modes.sizes;
        // The passes of a look add up samples in plain chains.
        ROUNDING * (ROUNDINGS * (PANEL_CELLS as f64 + samples.min(cells) as f64) + samples as f64)
    }

    /// The length of a mode's PC.
    fn length(&self, mode: usize) -> f64 {
        self.deviations[mode] * self.freedom.sqrt()
    }

    /// How far a PC may be off, all its samples together.
    fn pc_bound(&self, mode: usize) -> f64 {
        (self.slack() + self.touched) * self.first.squares / self.length(mode)
    }

    fn variances(&self, look: &mut Look) -> bool {
        let (stated, values) = (self.given.stated, &self.given.stated.eigenvalues);
        let total = self.first.squares / self.freedom;
        if !VARIANCES.contains(&total) {
            look.leave_out(TOTAL, format!("a variance of {total:e} is too close to where doubles end"));
            return false;
        }
        // All terms are positive, so that only the lengths of chains count.
        let bound = 4.0 * PANEL_CELLS as f64 * ROUNDING * total;
        let holds = (stated.total_variance - total).abs() <= bound;
        look.check(TOTAL, holds, stated.total_variance, format!("{total} ± {bound:.1e}"));
        let Sizes { modes, samples, cells } = self.modes.sizes;
        let present = self.matrix.cells().iter().filter(|cell| !cell.is_missing()).count();
        let most = samples.min(present).min(self.given.modes as usize);
        let left = total - values.iter().sum::<f64>();
        // Fewer only where nothing but rounding is left.
        let none = RELATIVE_VARIANCE_MIN * values[0] * (cells.min(samples) as f64) + self.slack() * total;
        let found = format!("{modes}, which leave {left:.1e} of the variance");
        look.check(MODES, modes == most || modes < most && left <= none, found, most);
        holds
    }

    fn eofs(&self, look: &mut Look) {
        let (modes, mut worst) = (&self.modes, Worst::NONE);
        let Sizes { modes: count, cells, .. } = modes.sizes;
        let rounding = (cells + 4 * PANEL_CELLS as usize) as f64 * ROUNDING + 4.0 * self.touched;
        let stated = self.given.stated.orthonormality_error;
        let holes: Vec<bool> = self.matrix.cells().iter().map(Cell::is_missing).collect();
        if modes.missing.as_ref() != Some(&holes) {
            worst.observe(f64::NAN, 1.0, || "missing cells are not those of the field".to_owned());
        }
        for a in 0..count {
            for b in 0..=a {
                let error = (dot(modes.eof(a), modes.eof(b)) - f64::from(a == b)).abs();
                let explained = self.slack() * self.first.squares / (self.length(a) * self.length(b));
                let most = if stated < explained { stated } else { explained };
                worst.observe(error, most + rounding, || format!("EOFs {} and {}", b + 1, a + 1));
            }
        }
        let least = self.length(count - 1);
        let explained = self.slack() * self.first.squares / (least * least);
        let most = if explained < ORTHONORMALITY_ERROR_MAX { explained } else { ORTHONORMALITY_ERROR_MAX };
        worst.observe(stated, most + rounding, || "the document's orthonormality_error".to_owned());
        worst.tell(ORTHONORMAL, look);
        let turned = (0..count).find(|mode| {
            let ends = modes.eof(*mode).iter().fold([0.0, 0.0], |[least, most], loading| {
                [
                    if *loading < least { *loading } else { least },
                    if *loading > most { *loading } else { most },
                ]
            });
            ends[1] < -ends[0] * (1.0 - self.touched)
        });
        match turned {
            None => look.check(SIGNS, true, format!("in all {count}"), "in all"),
            Some(mode) => look.check(SIGNS, false, format!("not in EOF {}", mode + 1), "in all"),
        }
    }

    fn pcs(&self, look: &mut Look) {
        let (count, mut worst) = (self.modes.sizes.modes, Worst::NONE);
        let columns: Vec<Vec<f64>> = (0..count).map(|mode| self.modes.pc(mode)).collect();
        for a in 0..count {
            for b in 0..=a {
                let lengths = self.length(a) * self.length(b);
                let error = (dot(&columns[a], &columns[b]) / lengths - f64::from(a == b)).abs();
                let bound = self.slack() * self.first.squares / lengths + 4.0 * self.touched;
                worst.observe(error, bound, || match a == b {
                    true => format!("variance of PC {} over its eigenvalue", a + 1),
                    false => format!("correlation of PCs {} and {}", b + 1, a + 1),
                });
            }
        }
        worst.tell(UNCORRELATED, look);
    }

    /// Whether the arrays of other scalings are those of the first.
    fn scalings(&self, arrays: &Arrays, first: Scaling, look: &mut Look) {
        let (mut worst, Sizes { modes, cells, .. }) = (Worst::NONE, self.modes.sizes);
        for scaling in self.given.scalings.iter().filter(|scaling| **scaling != first) {
            let [eofs, pcs] = arrays::names(*scaling);
            let mut compare = |name: &str, found: f64, mode: usize, unscaled: f64| {
                let expected = scaled(unscaled, self.deviations[mode], *scaling);
                let bound = 8.0 * ROUNDING * expected.abs() + f64::MIN_POSITIVE;
                worst.observe((found - expected).abs(), bound, || format!("{name} of mode {}", mode + 1));
            };
            let given = arrays.get(eofs).into_iter().flatten().zip(&self.modes.eofs).enumerate();
            for (at, (found, unscaled)) in given {
                let hole = self.matrix.cells()[at % cells].is_missing() && found.is_nan();
                compare(eofs, if hole { 0.0 } else { *found }, at / cells, *unscaled);
            }
            let given = arrays.get(pcs).into_iter().flatten().zip(&self.modes.pcs).enumerate();
            given.for_each(|(at, (found, unscaled))| compare(pcs, *found, at % modes, *unscaled));
        }
        if !worst.found.is_empty() {
            worst.tell(SCALINGS, look);
        }
    }

    /// PCs of all samples under random signs, and those of a few samples one by one.
    fn projections(&self, look: &mut Look) {
        let (modes, first) = (&self.modes, self.first);
        let (mut worst, mut single) = (Worst::NONE, Worst::NONE);
        for mode in 0..modes.sizes.modes {
            let (pc, bound) = (modes.pc(mode), self.pc_bound(mode));
            let all = (modes.sizes.samples as f64).sqrt() * bound;
            for (signs, sums) in first.sample_signs.iter().zip(&first.over_samples) {
                let error = (dot(signs, &pc) - dot(modes.eof(mode), sums)).abs();
                worst.observe(error, all, || format!("signed sum of PC {}", mode + 1));
            }
            for (sample, anomalies) in &first.chosen {
                let error = (pc[*sample] - dot(modes.eof(mode), anomalies)).abs();
                single.observe(error, bound, || format!("PC {} of sample {sample}", mode + 1));
            }
        }
        worst.tell(PROJECTED, look);
        single.tell(CHOSEN, look);
    }

    /// What makes orthonormal maps the field's own: each is the sum of the samples times their PCs.
    fn regressions(&self, look: &mut Look) {
        let (modes, first, mut worst) = (&self.modes, self.first, Worst::NONE);
        let bound = (self.slack() + self.touched) * first.squares * (modes.sizes.cells as f64).sqrt();
        for mode in 0..modes.sizes.modes {
            let (pc, square) = (modes.pc(mode), self.length(mode) * self.length(mode));
            for (signs, sums) in first.cell_signs.iter().zip(&first.over_cells) {
                let error = (dot(signs, modes.eof(mode)) - dot(sums, &pc) / square).abs();
                worst.observe(error, bound / square, || format!("signed sum of EOF {}", mode + 1));
            }
        }
        worst.tell(REGRESSED, look);
    }

    /// Whatever the modes leave has at most the variance of the last of them, in any direction.
    fn largest(&self, look: &mut Look, cancelled: &dyn Fn() -> bool) -> Result<(), KernelError> {
        let (count, mut worst) = (self.modes.sizes.modes, [0.0; 3]);
        let last = self.given.stated.eigenvalues[count - 1];
        for left in passes::left_over(self.matrix, self.first, &self.modes, cancelled)? {
            let variance = left.quotient / self.freedom;
            let inflation = 1.0 + 4.0 * count as f64 * left.inflation;
            let rounding = (self.slack() + self.touched) * self.first.squares / self.freedom * inflation;
            let share = variance / (last + rounding);
            if share > worst[0] {
                worst = [share, variance, last + rounding];
            }
        }
        let [share, variance, most] = worst;
        let found = format!("a direction beside the modes with variance {variance:.4e}");
        look.check(LARGEST, share <= 1.0, found, format!("at most {most:.4e}, that of the last mode"));
        Ok(())
    }

    fn reconstruction(&self, arrays: &Arrays, look: &mut Look) {
        let (modes, mut worst) = (&self.modes, Worst::NONE);
        let Sizes { cells, .. } = modes.sizes;
        let Some(given) = arrays.get("reconstruction") else { return };
        let chosen: Vec<usize> = self.given.reconstruct.iter().map(|mode| *mode as usize - 1).collect();
        if chosen.iter().any(|mode| *mode >= modes.sizes.modes) {
            worst.observe(f64::NAN, 1.0, || "a mode that the result has not".to_owned());
        }
        let chosen: Vec<usize> = chosen.into_iter().filter(|mode| *mode < modes.sizes.modes).collect();
        for (sample, _) in &self.first.chosen {
            let scores = modes.scores(*sample);
            for (at, cell) in self.matrix.cells().iter().enumerate() {
                let found = given[sample * cells + at];
                if cell.factor == 0.0 {
                    worst.observe(if found.is_nan() { 0.0 } else { f64::NAN }, 1.0, || format!("cell {at}"));
                    continue;
                }
                let terms = chosen.iter().map(|mode| scores[*mode] * modes.eof(*mode)[at]);
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                let roundings = 4.0 * (chosen.len() + 4) as f64 * ROUNDING + 4.0 * self.touched;
                let bound = roundings * size / cell.factor.abs() + f64::MIN_POSITIVE;
                let error = (found - sum / cell.factor).abs();
                worst.observe(error, bound, || format!("sample {sample}, cell {at}"));
            }
        }
        worst.tell(RECONSTRUCTED, look);
    }
}
