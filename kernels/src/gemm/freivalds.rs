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

use std::ops::Range;

use super::blocked::{self, Block, Out, Region};
use super::{Element, GemmError, Product, Stretch, Triangle, View};
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
        /// Of the product; the wrong element lies in it.
        row: usize,
        /// The first column of the group in which it lies.
        col: usize,
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

/// A product of which rows can be checked: `B` is folded into groups of columns once, for all of them.
#[derive(Debug)]
pub struct Check<'a, T> {
    isa: Isa,
    product: Product<'a, T>,
    panels: f64,
    signs: Signs,
    groups: Vec<Range<usize>>,
    /// `B x` and `|B| |x|`.
    folded: Sums,
}

/// Rows of a result from which some are to be checked.
#[derive(Clone, Debug)]
pub struct Band<'a, T> {
    /// Which row of the product comes first.
    pub first: usize,
    /// Columns that are given, whole strips of them.
    pub cols: Range<usize>,
    /// The elements by rows.
    pub elements: &'a [T],
    /// The half that was computed where the columns cross the diagonal; the other one's elements, in these
    /// rows, are taken to be their mirror.
    pub half: Option<Triangle>,
}

impl<'a, T: Element> Check<'a, T> {
    /// For a product computed in so many panels, multiplying by these vectors. Groups end where a strip of so
    /// many columns does. Costs about `(rounds + 1) × k·n` operations.
    ///
    /// *Errors*: [`GemmError::Shape`] if the product is deeper than [`DEPTH_MAX`],
    /// [`GemmError::FloatingPointMode`], [`GemmError::Cancelled`].
    pub fn new(
        isa: Isa,
        product: Product<'a, T>,
        panels: usize,
        strip: usize,
        vectors: Vectors,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, GemmError> {
        let [rows, cols, depth] = [product.rows(), product.cols(), product.depth()];
        if depth > DEPTH_MAX || panels > DEPTH_MAX {
            let (expected, found) = ([rows, DEPTH_MAX], [rows, depth]);
            return Err(GemmError::Shape { operand: "A of a checked product", expected, found });
        }
        if !floating_point_is_standard() {
            return Err(GemmError::FloatingPointMode);
        }
        let signs = Signs::new(vectors, cols);
        let groups: Vec<Range<usize>> = cut(0..cols, strip).flat_map(|strip| cut(strip, GROUP)).collect();
        let mut folded = Sums::default();
        let mut lines = Vec::new();
        for some in cut(0..depth, LINES) {
            if cancelled() {
                return Err(GemmError::Cancelled);
            }
            widen(&product.b.tile(some, 0..cols)?, &mut lines);
            fold(isa, &lines, &signs, &groups, 0, &mut folded);
        }
        Ok(Check { isa, product, panels: panels as f64, signs, groups, folded })
    }

    /// Checks these rows of the product, which lie in the band.
    ///
    /// Costs about `(rounds + 1) × (m·n + m·k·n/GROUP)` operations.
    ///
    /// *Errors*: [`GemmError::Shape`] if the band is not of this product, [`GemmError::NotFinite`] if an
    /// element of it is; [`GemmError::Cancelled`]; [`GemmError::FloatingPointMode`].
    pub fn rows(
        &self,
        band: &Band<'_, T>,
        rows: Range<usize>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Verdict, GemmError> {
        if !floating_point_is_standard() {
            return Err(GemmError::FloatingPointMode);
        }
        let groups = self.groups_of(band, &rows)?;
        if groups.is_empty() {
            return Ok(Verdict::Consistent);
        }
        for some in cut(rows, LINES) {
            if let Some(verdict) = self.verdict(band, some, groups.clone(), cancelled)? {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Consistent)
    }

    /// Which groups the band's columns are, after looking whether it is one of this product.
    fn groups_of(&self, band: &Band<'_, T>, rows: &Range<usize>) -> Result<Range<usize>, GemmError> {
        let (all, width) = (self.product.cols(), band.cols.len());
        let Some(height) = band.elements.len().checked_div(width) else {
            return Ok(0..0);
        };
        let found = [height, width];
        let groups = self.groups.partition_point(|group| group.start < band.cols.start)
            ..self.groups.partition_point(|group| group.end <= band.cols.end);
        let starts = |col: usize| col == all || self.groups.iter().any(|group| group.start == col);
        let inside = band.first <= rows.start && rows.end <= band.first + height;
        let square = band.half.is_none() || self.product.rows() == all;
        if !inside
            || rows.end > self.product.rows()
            || height * width != band.elements.len()
            || band.cols.end > all
            || !(starts(band.cols.start) && starts(band.cols.end))
            || !square
        {
            let expected = [rows.len(), all];
            return Err(GemmError::Shape { operand: "a band of the result", expected, found });
        }
        super::all_finite(band.elements, width)?;
        Ok(groups)
    }

    fn verdict(
        &self,
        band: &Band<'_, T>,
        rows: Range<usize>,
        groups: Range<usize>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Verdict>, GemmError> {
        let (product, rounds) = (&self.product, self.signs.0.len());
        let lanes = groups.start * rounds..groups.end * rounds;
        let mut a = Vec::new();
        widen(&product.a.tile(rows.clone(), 0..product.depth())?, &mut a);
        let signed = self.times(&a, rows.len(), &self.folded.signed, lanes.clone(), cancelled)?;
        a.iter_mut().for_each(|element| *element = element.abs());
        let absolute = self.times(&a, rows.len(), &self.folded.absolute, groups.clone(), cancelled)?;

        let (mut found, mut addend) = (Sums::default(), Sums::default());
        let width = band.cols.len();
        let given = View::row_major(band.elements, band.elements.len() / width, width)?;
        let lines = self::lines(band, &rows, &given, [band.first, band.cols.start])?;
        let (isa, signs, of) = (self.isa, &self.signs, &self.groups[groups.clone()]);
        fold(isa, &lines, signs, of, band.cols.start, &mut found);
        let mut beta = 0.0;
        if let Some((factor, c)) = product.addend {
            beta = factor.widened();
            let lines = self::lines(band, &rows, &c, [0, 0])?;
            fold(isa, &lines, signs, of, band.cols.start, &mut addend);
        }
        let alpha = product.alpha.widened();
        for (at, row) in rows.enumerate() {
            let weights = &a[at * product.depth()..][..product.depth()];
            let a_absolute = weights.iter().fold(0.0, |sum, weight| sum + weight * SCALE);
            for lane in 0..lanes.len() {
                let (group, place) = (at * groups.len() + lane / rounds, at * lanes.len() + lane);
                let of_c = |sums: &[f64], place| sums.get(place).copied().unwrap_or_default();
                let residual =
                    found.signed[place] - alpha * signed[place] - beta * of_c(&addend.signed, place);
                let terms = [alpha.abs() * absolute[group], beta.abs() * of_c(&addend.absolute, group)];
                let bound = self.bound(found.absolute[group], terms, [alpha.abs(), beta.abs()], a_absolute);
                // Where the bound leaves the range of f64, rounding can explain everything.
                if bound.is_finite() && (residual.is_nan() || residual.abs() > bound) {
                    let (residual, bound) = (residual / SCALE, bound / SCALE);
                    let col = of[lane / rounds].start;
                    return Ok(Some(Verdict::Inconsistent { row, col, residual, bound }));
                }
            }
        }
        Ok(None)
    }

    /// So many rows by some columns of a folded `B`, as any product. What leaves the range stays.
    fn times(
        &self,
        a: &[f64],
        rows: usize,
        folded: &[f64],
        lanes: Range<usize>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<f64>, GemmError> {
        let depth = self.product.depth();
        let all = folded.len().checked_div(depth).unwrap_or(lanes.end);
        let b = View::row_major(folded, depth, all)?.tile(0..depth, lanes)?;
        let product = Product::new(1.0, View::row_major(a, rows, depth)?, b)?;
        let mut out = vec![0.0; rows * b.cols()];
        let whole = Out::new(&mut out, rows, b.cols());
        let block = Block {
            isa: self.isa,
            product,
            k: 0..depth,
            region: Region::All,
            stretch: Stretch::WHOLE,
            out: whole,
        };
        blocked::compute(block, cancelled)?;
        Ok(out)
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

/// All is scaled down by this, so that no sum of the check overflows where the product does not: a power
/// of two changes nothing but numbers that come near the subnormal ones, for which the bound makes room.
/// Products of the chain are at most twice the largest number, and fewer than `2^30` are added.
const SCALE: f64 = f64::from_bits((1023 - 90) << 52);

/// The vectors: a sign for each round and column.
#[derive(Debug)]
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
#[derive(Debug, Default)]
struct Sums {
    /// For each line, group and round.
    signed: Vec<f64>,
    /// For each line and group, of absolute values.
    absolute: Vec<f64>,
}

for_each_isa! {
    /// Appends the sums of lines that start at the column `first`.
    fn fold(
        lines: &[f64], signs: &Signs, groups: &[Range<usize>], first: usize, sums: &mut Sums,
    ) = fold_body;
}

#[inline(always)]
fn fold_body(lines: &[f64], signs: &Signs, groups: &[Range<usize>], first: usize, sums: &mut Sums) {
    let Some(end) = groups.last().map(|group| group.end) else { return };
    for line in lines.chunks_exact(end - first) {
        for group in groups {
            let values = &line[group.start - first..group.end - first];
            for signs in &signs.0 {
                sums.signed.push(weighed(values, &signs[group.start..group.end]));
            }
            sums.absolute.push(absolute(values));
        }
    }
}

/// Sums that are added up side by side, of an order that no instruction set changes.
const PARTS: usize = 16;

#[inline(always)]
fn weighed(values: &[f64], weights: &[f64]) -> f64 {
    let mut parts = [0.0; PARTS];
    let (values, weights) = (values.chunks(PARTS), weights.chunks(PARTS));
    for (values, weights) in values.zip(weights) {
        for ((part, value), weight) in parts.iter_mut().zip(values).zip(weights) {
            *part += value * weight;
        }
    }
    parts.iter().fold(0.0, |sum, part| sum + part)
}

#[inline(always)]
fn absolute(values: &[f64]) -> f64 {
    let mut parts = [0.0; PARTS];
    for values in values.chunks(PARTS) {
        for (part, value) in parts.iter_mut().zip(values) {
            *part += value.abs() * SCALE;
        }
    }
    parts.iter().fold(0.0, |sum, part| sum + part)
}

/// Numbers of the band's columns by rows, of a view that starts at this row and column of the product; mirrored
/// where the half was not computed.
fn lines<T: Element>(
    band: &Band<'_, T>,
    rows: &Range<usize>,
    view: &View<'_, T>,
    [top, left]: [usize; 2],
) -> Result<Vec<f64>, GemmError> {
    let mut lines = Vec::new();
    let (first, width) = (band.cols.start, band.cols.len());
    widen(&view.tile(rows.start - top..rows.end - top, first - left..band.cols.end - left)?, &mut lines);
    for (row, line) in rows.clone().zip(lines.chunks_exact_mut(width)) {
        let mirrored = match band.half {
            Some(Triangle::Lower) => row + 1 - first..width,
            Some(Triangle::Upper) => 0..row - first,
            None => 0..0,
        };
        for at in mirrored {
            line[at] = view.at(first + at - top, row - left).widened();
        }
    }
    Ok(lines)
}

/// Lines or rows worked on together: a few megabytes of the deepest.
const LINES: usize = 96;

/// Parts of at most so many.
fn cut(all: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.step_by(if most == 0 { 1 } else { most })
        .map(move |start| start..if end - start < most { end } else { start + most })
}

/// A view's numbers by rows, read in the order in which they lie.
fn widen<T: Element>(view: &View<'_, T>, out: &mut Vec<f64>) {
    let (rows, cols) = (view.rows(), view.cols());
    out.clear();
    out.resize(rows * cols, 0.0);
    if out.is_empty() {
        return;
    }
    if view.row_stride() == 1 {
        for col in 0..cols {
            for (row, value) in view.from(0, col)[..rows].iter().enumerate() {
                out[row * cols + col] = value.widened();
            }
        }
    } else if view.col_stride() == 1 {
        for (row, line) in out.chunks_exact_mut(cols).enumerate() {
            line.iter_mut().zip(view.from(row, 0)).for_each(|(out, value)| *out = value.widened());
        }
    } else {
        let places = (0..rows).flat_map(|row| (0..cols).map(move |col| [row, col]));
        out.iter_mut().zip(places).for_each(|(out, [row, col])| *out = view.at(row, col).widened());
    }
}

/// The relative error of so many operations. *Source*: Higham, lemma 3.1.
fn gamma(operations: f64, unit_roundoff: f64) -> f64 {
    operations * unit_roundoff / (1.0 - operations * unit_roundoff)
}
