//! Correlation matrices: whether one is positive definite, and its triangular factor.
//!
//! Owns the factorisation `C = L D Lᵀ`, which takes no square root: `core` has none. What a row stands for
//! is not known here.

use alloc::vec;
use alloc::vec::Vec;

/// Smallest pivot: below it a matrix of rounded correlations may as well be singular.
pub const PIVOT_MIN: f64 = 1e-10;

/// A symmetric matrix with ones on its diagonal.
#[derive(Clone, Debug, PartialEq)]
pub struct Correlations {
    size: usize,
    /// By rows, the lower triangle and its diagonal.
    entries: Vec<f64>,
}

/// The unit lower triangle `L` and the pivots `D` of a positive definite matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Factored {
    /// `L` below its diagonal, by rows, with ones on it.
    pub lower: Vec<f64>,
    /// `D`, all at least [`PIVOT_MIN`].
    pub pivots: Vec<f64>,
}

/// A leading minor that is not positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotPositiveDefinite {
    /// The row with which the matrix stops being positive definite; those before it are fine.
    pub row: usize,
    /// What is left of the row's one.
    pub pivot: f64,
}

/// Position of an element of a lower triangle stored by rows; `column <= row`.
pub const fn triangle(row: usize, column: usize) -> usize {
    row * (row + 1) / 2 + column
}

impl Correlations {
    /// The identity.
    pub fn none(size: usize) -> Correlations {
        let mut entries = vec![0.0; triangle(size, 0)];
        for row in 0..size {
            entries[triangle(row, row)] = 1.0;
        }
        Correlations { size, entries }
    }

    /// Sets an element and its mirror image. *Panics*: outside the matrix.
    pub fn set(&mut self, a: usize, b: usize, rho: f64) {
        self.entries[triangle(a.max(b), a.min(b))] = rho;
    }

    /// *Order*: rows, then columns, then terms, ascending; part of the bits.
    pub fn factor(&self) -> Result<Factored, NotPositiveDefinite> {
        let mut lower = self.entries.clone();
        let mut pivots: Vec<f64> = Vec::with_capacity(self.size);
        for row in 0..self.size {
            // First `L D`, which saves a division to each term.
            for column in 0..row {
                let mut rest = lower[triangle(row, column)];
                for term in 0..column {
                    rest -= lower[triangle(row, term)] * lower[triangle(column, term)];
                }
                lower[triangle(row, column)] = rest;
            }
            let mut pivot = lower[triangle(row, row)];
            for (column, divisor) in pivots.iter().enumerate() {
                let scaled = lower[triangle(row, column)];
                lower[triangle(row, column)] = scaled / divisor;
                pivot -= scaled * lower[triangle(row, column)];
            }
            // Written so that a NaN fails.
            if !(pivot >= PIVOT_MIN && pivot.is_finite()) {
                return Err(NotPositiveDefinite { row, pivot });
            }
            lower[triangle(row, row)] = 1.0;
            pivots.push(pivot);
        }
        Ok(Factored { lower, pivots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factors_multiply_to_the_matrix() {
        let mut matrix = Correlations::none(4);
        for (a, b, rho) in [(0, 1, 0.5), (2, 0, -0.25), (1, 2, 0.3), (3, 2, 0.8)] {
            matrix.set(a, b, rho);
        }
        let Factored { lower, pivots } = matrix.factor().unwrap();
        for row in 0..4 {
            for column in 0..=row {
                let product: f64 = (0..=column)
                    .map(|term| lower[triangle(row, term)] * pivots[term] * lower[triangle(column, term)])
                    .sum();
                let expected = matrix.entries[triangle(row, column)];
                assert!((product - expected).abs() < 1e-15, "{row} {column}: {product} for {expected}");
            }
        }
    }

    #[test]
    fn the_first_row_that_contradicts_those_before_it_is_named() {
        let mut matrix = Correlations::none(4);
        for (a, b, rho) in [(1, 2, 0.9), (1, 3, 0.9), (2, 3, -0.9)] {
            matrix.set(a, b, rho);
        }
        assert_eq!(matrix.factor().unwrap_err().row, 3);
        let mut singular = Correlations::none(2);
        singular.set(0, 1, 1.0);
        assert_eq!(singular.factor(), Err(NotPositiveDefinite { row: 1, pivot: 0.0 }));
        singular.set(0, 1, f64::NAN);
        assert_eq!(singular.factor().unwrap_err().row, 1);
    }
}
