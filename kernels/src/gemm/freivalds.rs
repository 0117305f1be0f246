//! Freivalds' check: whether a tile is the product it claims to be, for much less than the product.
//!
//! Owns random ±1 vectors `x` and the comparison of `C x` with `alpha * A (B x) + beta * C0 x` within
//! what rounding can explain. It recomputes no element.
//!
//! *What it sees.* An honest result always passes: the bound is that of any order of summation, and
//! holds for the check's own rounding and for subnormals. One wrong element is caught in the first round
//! if its error exceeds twice the bound. The bound is about `k · u · Σ|A||B|` over the element's row and a
//! group of [`GROUP`] columns, and twice that in `f64`, where the check rounds as much as the product did.
//! For a product of random signs 2048 deep an error is seen from 6e-9 of the element in `f64`, from 1.5
//! times the element in `f32`. Errors in several elements of a row and a group cancel for at most half of
//! the vectors, so `rounds` rounds miss them with a probability of at most `2^-rounds`; the key must be
//! one that whoever computed the tile could not know.
//!
//! *What it cannot see.* Errors below the bound: a wrong last bit, another order of summation, a fused
//! operation that was not. Only computing again compares bits.
//!
//! *Source*: Freivalds, "Probabilistic machines can use less running time", IFIP 1977; the bound is
//! Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.5.

use super::{Element, GemmError, Product};
use crate::isa::{Isa, floating_point_is_standard, for_each_isa};
use crate::philox::Schedule;

/// Columns that share a vector: fewer would see smaller errors and cost more, `m·k` operations each group.
pub const GROUP: usize = 128;

/// Beyond this depth the rounding of `f32` could explain anything.
pub const DEPTH_MAX: usize = 1 << 22;

/// What the check found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Every residual is within what rounding can explain.
    Consistent,
    /// No honest computation gives this tile.
    Inconsistent {
        /// Of the tile; the wrong element lies in it.
        row: usize,
        /// How far `C x` is from where it should be.
        residual: f64,
        /// How far rounding could have brought it.
        bound: f64,
    },
}

/// Which random vectors are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// They depend on it alone.
    pub key: [u32; 2],
    /// How many for each group of columns: this many halve the chance of errors that cancel.
    pub rounds: u32,
}

/// Checks a row-major tile computed in so many panels, multiplying by these vectors.
///
/// Costs about `(rounds + 1) × (k·n + m·n + m·k·n/GROUP)` operations.
///
/// *Errors*: [`GemmError::Shape`] if the tile has another shape than the product, or the product is deeper
/// than [`DEPTH_MAX`]; [`GemmError::NotFinite`] if an element of the tile is; [`GemmError::Cancelled`];
/// [`GemmError::FloatingPointMode`].
pub fn check<T: Element>(
    isa: Isa,
    product: &Product<'_, T>,
    tile: &[T],
    panels: usize,
    vectors: Vectors,
    cancelled: &dyn Fn() -> bool,
) -> Result<Verdict, GemmError> {
    let [rows, cols, depth] = [product.rows(), product.cols(), product.depth()];
    if rows.checked_mul(cols) != Some(tile.len()) {
        let (expected, found) = ([rows, cols], [1, tile.len()]);
        return Err(GemmError::Shape { operand: "the tile", expected, found });
    }
    if depth > DEPTH_MAX || panels > DEPTH_MAX {
        let (expected, found) = ([rows, DEPTH_MAX], [rows, depth]);
        return Err(GemmError::Shape { operand: "A of a checked product", expected, found });
    }
    if !floating_point_is_standard() {
        return Err(GemmError::FloatingPointMode);
    }
    if tile.iter().any(|value| !value.finite()) {
        return Err(super::not_finite(tile, cols));
    }
    if cols == 0 {
        return Ok(Verdict::Consistent);
    }
    let signs = Signs::new(vectors, cols);
    let mut folded = Sums::default();
    for k in 0..depth {
        let line: Vec<f64> = (0..cols).map(|col| product.b.at(k, col).widened()).collect();
        folded.push(&signs, &line);
    }
    let judge = Judge { isa, product, tile, panels: panels as f64, signs, folded };
    for row in 0..rows {
        if cancelled() {
            return Err(GemmError::Cancelled);
        }
        if let Some(verdict) = judge.verdict(row) {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Consistent)
}

/// All is scaled down by this, so that no sum of the check overflows where the product does not: a power
/// of two changes nothing but numbers that come near the subnormal ones, for which the bound makes room.
/// Products of the chain are at most twice the largest number, and fewer than `2^30` are added.
const SCALE: f64 = f64::from_bits((1023 - 90) << 52);

/// The vectors: a sign for each round and column.
struct Signs(Vec<Vec<f64>>);

impl Signs {
    fn new(Vectors { key, rounds }: Vectors, cols: usize) -> Self {
        let schedule = Schedule::new(key);
        // 128 fair signs of a counter.
        let sign = |round: u32, col: usize| {
            let words = schedule.block((col / 128) as u64, round, STREAM);
            if words[col / 64 % 2] >> (col % 64) & 1 == 0 { SCALE } else { -SCALE }
        };
        Signs((0..rounds).map(|round| (0..cols).map(|col| sign(round, col)).collect()).collect())
    }
}

/// Keeps the vectors apart from whatever else is drawn with the same key: "Frei".
const STREAM: u32 = 0x4672_6569;

/// Lines folded into groups, scaled: a few numbers for each line.
#[derive(Default)]
struct Sums {
    /// For each line, round and group.
    signed: Vec<f64>,
    /// For each line and group, of absolute values.
    absolute: Vec<f64>,
}

impl Sums {
    fn push(&mut self, signs: &Signs, line: &[f64]) {
        for signs in &signs.0 {
            for (line, signs) in line.chunks(GROUP).zip(signs.chunks(GROUP)) {
                self.signed.push(line.iter().zip(signs).fold(0.0, |sum, (value, sign)| sum + value * sign));
            }
        }
        let absolute =
            line.chunks(GROUP).map(|line| line.iter().fold(0.0, |sum, value| sum + value.abs() * SCALE));
        self.absolute.extend(absolute);
    }
}

for_each_isa! {
    /// Adds a line's weights times lines of `sums.len()` numbers.
    fn weigh(weights: &[f64], lines: &[f64], sums: &mut [f64]) = weigh_body;
}

#[inline(always)]
fn weigh_body(weights: &[f64], lines: &[f64], sums: &mut [f64]) {
    for (weight, line) in weights.iter().zip(lines.chunks_exact(sums.len())) {
        for (sum, value) in sums.iter_mut().zip(line) {
            *sum += weight * value;
        }
    }
}

struct Judge<'a, T> {
    isa: Isa,
    product: &'a Product<'a, T>,
    tile: &'a [T],
    panels: f64,
    signs: Signs,
    /// `B x` and `|B| |x|`.
    folded: Sums,
}

impl<T: Element> Judge<'_, T> {
    fn verdict(&self, row: usize) -> Option<Verdict> {
        let product = self.product;
        let (cols, groups, rounds) = (product.cols(), product.cols().div_ceil(GROUP), self.signs.0.len());
        if rounds == 0 {
            return None;
        }
        let mut weights: Vec<f64> = (0..product.depth()).map(|k| product.a.at(row, k).widened()).collect();
        let mut ab = Sums { signed: vec![0.0; groups * rounds], absolute: vec![0.0; groups] };
        weigh(self.isa, &weights, &self.folded.signed, &mut ab.signed);
        weights.iter_mut().for_each(|weight| *weight = weight.abs());
        weigh(self.isa, &weights, &self.folded.absolute, &mut ab.absolute);
        let a_absolute = weights.iter().fold(0.0, |sum, weight| sum + weight * SCALE);

        let (mut found, mut addend) = (Sums::default(), Sums::default());
        let tile: Vec<f64> = self.tile[row * cols..][..cols].iter().map(|value| value.widened()).collect();
        found.push(&self.signs, &tile);
        let mut beta = 0.0;
        let mut line = vec![0.0; cols];
        if let Some((factor, c)) = product.addend {
            beta = factor.widened();
            line = (0..cols).map(|col| c.at(row, col).widened()).collect();
        }
        addend.push(&self.signs, &line);
        let alpha = product.alpha.widened();

        for lane in 0..groups * rounds {
            let residual = found.signed[lane] - alpha * ab.signed[lane] - beta * addend.signed[lane];
            let group = lane % groups;
            let terms = [alpha.abs() * ab.absolute[group], beta.abs() * addend.absolute[group]];
            let bound = self.bound(found.absolute[group], terms, [alpha.abs(), beta.abs()], a_absolute);
            // Where the bound leaves the range of f64, rounding can explain everything.
            if bound.is_finite() && (residual.is_nan() || residual.abs() > bound) {
                let (residual, bound) = (residual / SCALE, bound / SCALE);
                return Some(Verdict::Inconsistent { row, residual, bound });
            }
        }
        None
    }

    /// What rounding can explain: that of the tile, in its type, and that of the check.
    fn bound(&self, found: f64, [ab, addend]: [f64; 2], [alpha, beta]: [f64; 2], a_absolute: f64) -> f64 {
        let (depth, group, panels) = (self.product.depth() as f64, GROUP as f64, self.panels);
        // An element: its chain, alpha, the addition of beta * C, those of panels.
        let honest = gamma(depth + panels + 3.0, T::UNIT_ROUNDOFF) * (ab + addend);
        // The check: sums over a group, over k, and the last few operations.
        let own = gamma(depth + group + 8.0, f64::UNIT_ROUNDOFF) * (ab + addend + found);
        // Where results are subnormal an operation is off by half of the smallest number instead: those of
        // an element (the chain's are then multiplied by alpha), and the check's, some multiplied by A.
        let chain = (depth + 1.0) * (alpha + 1.0) + panels + 3.0;
        let element = group * chain * SCALE * T::SMALLEST;
        let folding = (group + 1.0) * alpha * (a_absolute * (f64::SMALLEST / SCALE));
        let rest = (depth + group + 8.0) * (alpha + beta + 8.0) * f64::SMALLEST;
        // The bound was rounded as well, by far less than a hundredth.
        1.01 * (honest + own) + 2.0 * (element + folding + rest)
    }
}

/// The relative error of so many operations. *Source*: Higham, lemma 3.1.
fn gamma(operations: f64, unit_roundoff: f64) -> f64 {
    operations * unit_roundoff / (1.0 - operations * unit_roundoff)
}
