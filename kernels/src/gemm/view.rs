//! A matrix that somebody else owns, seen through two strides.
//!
//! Owns the proof that no element lies outside the data; transposes, Fortran order, sub-matrices and
//! every n-th row are strides. It copies nothing and may not compute.

use std::ops::Range;

use super::{Element, GemmError};

/// `rows × cols` elements of a slice, `row_stride` and `col_stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Element> View<'a, T> {
    /// Element `(i, j)` is `data[i * row_stride + j * col_stride]`.
    ///
    /// *Errors*: [`GemmError::OutOfBounds`] if that reaches past the data or past `usize`.
    pub fn new(
        data: &'a [T],
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Result<Self, GemmError> {
        let elements = || {
            if rows == 0 || cols == 0 {
                return Some(0);
            }
            let last_row = (rows - 1).checked_mul(row_stride)?;
            (cols - 1).checked_mul(col_stride)?.checked_add(last_row)?.checked_add(1)
        };
        let fits = elements().is_some_and(|elements| elements <= data.len());
        // Both strides of an empty view are unused; the number of elements of a full one need not fit.
        if !fits || rows.checked_mul(cols).is_none() {
            return Err(GemmError::OutOfBounds {
                shape: [rows, cols],
                strides: [row_stride, col_stride],
                elements: data.len(),
            });
        }
        Ok(View { data, rows, cols, row_stride, col_stride })
    }

    /// Rows one after another, as C and numpy's default have them.
    pub fn row_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self, GemmError> {
        View::new(data, [rows, cols], [cols, 1])
    }

    /// Columns one after another, as Fortran has them.
    pub fn column_major(data: &'a [T], rows: usize, cols: usize) -> Result<Self, GemmError> {
        View::new(data, [rows, cols], [1, rows])
    }

    /// What it looks at, from its first element on.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// From row to row and from column to column. *Units*: elements.
    pub fn strides(&self) -> [usize; 2] {
        [self.row_stride, self.col_stride]
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows as columns.
    pub fn transposed(self) -> Self {
        View {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// These rows and columns only.
    ///
    /// *Errors*: [`GemmError::Tile`] if there are not so many.
    pub fn tile(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self, GemmError> {
        let inside = |range: &Range<usize>, all| range.start <= range.end && range.end <= all;
        if !inside(&rows, self.rows) || !inside(&cols, self.cols) {
            return Err(GemmError::Tile { rows, cols, shape: [self.rows, self.cols] });
        }
        let empty = rows.is_empty() || cols.is_empty();
        let first = if empty { 0 } else { rows.start * self.row_stride + cols.start * self.col_stride };
        Ok(View { data: &self.data[first..], rows: rows.len(), cols: cols.len(), ..self })
    }

    /// One element.
    ///
    /// *Panics* if there are not so many rows or columns.
    pub fn at(&self, row: usize, col: usize) -> T {
        assert!(row < self.rows && col < self.cols, "({row}, {col}) of {}x{}", self.rows, self.cols);
        self.data[row * self.row_stride + col * self.col_stride]
    }

    /// Row and column of the first element that is NaN or infinite, row by row.
    pub fn first_not_finite(&self) -> Option<[usize; 2]> {
        (0..self.rows).find_map(|row| {
            let bad = (0..self.cols).position(|col| !self.at(row, col).finite());
            bad.map(|col| [row, col])
        })
    }

    /// Whether both are the same elements in the same places, not merely equal ones.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.data.as_ptr(), self.rows, self.cols, self.row_stride, self.col_stride)
            == (other.data.as_ptr(), other.rows, other.cols, other.row_stride, other.col_stride)
    }

    /// The data from element `(row, col)` on: rows are [`Self::row_stride`] apart and so on.
    pub(super) fn from(&self, row: usize, col: usize) -> &'a [T] {
        assert!(row < self.rows && col < self.cols);
        &self.data[row * self.row_stride + col * self.col_stride..]
    }

    pub(super) fn row_stride(&self) -> usize {
        self.row_stride
    }

    pub(super) fn col_stride(&self) -> usize {
        self.col_stride
    }
}
