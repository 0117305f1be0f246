//! Where a matrix lies, and rectangles of it brought into memory.
//!
//! Owns which bytes of a file a rectangle is, and that no entry of one is infinite or undefined. A file is never
//! read as a whole, and a random matrix never made as one.

use std::ops::Range;
use std::sync::Arc;

use tessera_protocol::matrix::Operand;

use super::npy::{self, Header};
use super::{Dense, KernelError, Matrix, random};
use crate::gemm::{Element, GemmError, View};
use crate::pages::advise_large;
use crate::runs::{Runs, Unreadable, some_of};

/// Read at once. *Units*: bytes.
const RUN_BYTES: usize = 1 << 20;

/// An input as whoever has it gives it to the kernel.
#[derive(Clone, Debug)]
pub enum Given {
    /// In memory, as a whole.
    Memory(Arc<Matrix>),
    /// A `.npy` file of which rectangles are read.
    File(Arc<dyn Runs>),
}

impl From<Arc<Matrix>> for Given {
    fn from(matrix: Arc<Matrix>) -> Given {
        Given::Memory(matrix)
    }
}

/// A type of elements as files and memory hold it.
pub(super) trait Stored: Element + From<f32> {
    /// The elements of a matrix of this type.
    fn dense(matrix: &Matrix) -> Option<&Dense<Self>>;

    /// A number rounded to this type.
    fn rounded(number: f64) -> Self;

    /// Appends what little-endian bytes say, up to the first that is not finite: its position then.
    fn take(bytes: &[u8], elements: &mut Vec<Self>) -> Option<usize>;
}

macro_rules! stored {
    ($type:ident, $variant:ident) => {
        impl Stored for $type {
            fn dense(matrix: &Matrix) -> Option<&Dense<$type>> {
                match matrix {
                    Matrix::$variant(dense) => Some(dense),
                    _ => None,
                }
            }

            fn rounded(number: f64) -> $type {
                number as $type
            }

            fn take(bytes: &[u8], elements: &mut Vec<$type>) -> Option<usize> {
                let begin = elements.len();
                elements.extend(bytes.as_chunks().0.iter().map(|bytes| $type::from_le_bytes(*bytes)));
                let all_finite = |finite, element: &$type| finite & element.is_finite();
                match elements[begin..].iter().fold(true, all_finite) {
                    true => None,
                    false => elements[begin..].iter().position(|element| !element.is_finite()),
                }
            }
        }
    };
}
stored!(f32, F32);
stored!(f64, F64);

/// Rows and columns of a matrix as it lies, not as the product takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rectangle {
    pub(super) rows: (usize, usize),
    pub(super) cols: (usize, usize),
}

impl Rectangle {
    /// Of rows and columns as the product sees them.
    pub(super) fn of(rows: &Range<usize>, cols: &Range<usize>, transposed: bool) -> Rectangle {
        let (rows, cols) = if transposed { (cols, rows) } else { (rows, cols) };
        Rectangle { rows: (rows.start, rows.end), cols: (cols.start, cols.end) }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        [self.rows.1 - self.rows.0, self.cols.1 - self.cols.0]
    }

    pub(super) fn rows(&self) -> Range<usize> {
        self.rows.0..self.rows.1
    }

    pub(super) fn cols(&self) -> Range<usize> {
        self.cols.0..self.cols.1
    }
}

/// One matrix of a task.
#[derive(Clone, Debug)]
pub(super) enum Lying {
    Memory(Arc<Matrix>),
    File { runs: Arc<dyn Runs>, header: Header, begin: u64 },
    Made { key: [u32; 2], stream: u32, cols: u64 },
}

impl Lying {
    /// An input, if it is the matrix that the task says.
    pub(super) fn given(
        given: Given,
        operand: &'static str,
        as_told: &Operand,
        double: bool,
    ) -> Result<Lying, KernelError> {
        let lying = match given {
            Given::Memory(matrix) => Lying::Memory(matrix),
            Given::File(runs) => {
                let unreadable = |Unreadable| KernelError::Unreadable { operand };
                let first = some_of(&*runs, 0, npy::HEADER_BYTES_MAX as u64).map_err(unreadable)?;
                let (header, begin) = npy::begin_of(&first, runs.bytes())
                    .map_err(|error| KernelError::NotMatrix { operand, reason: error.to_string() })?;
                Lying::File { runs, header, begin }
            }
        };
        let found = match &lying {
            Lying::Memory(matrix) => (matrix.dtype(), matrix.shape()),
            Lying::File { header, .. } => (header.dtype, [header.rows, header.cols]),
            Lying::Made { .. } => return Ok(lying),
        };
        let expected = (super::dtype(double), [as_told.rows, as_told.cols]);
        if found == expected { Ok(lying) } else { Err(KernelError::Input { operand, expected, found }) }
    }

    /// Whether columns lie one after another.
    pub(super) fn by_columns(&self) -> bool {
        matches!(self, Lying::File { header: Header { fortran: true, .. }, .. })
    }

    /// The elements of a rectangle, line after line as the matrix lies; none where the matrix is in memory.
    pub(super) fn bring<T: Stored>(
        &self,
        operand: &'static str,
        rectangle: Rectangle,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<T>, KernelError> {
        let [rows, cols] = rectangle.shape();
        let mut elements = Vec::with_capacity(rows * cols);
        advise_large(elements.spare_capacity_mut());
        match self {
            Lying::Memory(_) => {}
            Lying::File { runs, header, begin } => {
                let reading = Reading { operand, runs: &**runs, header, begin: *begin, cancelled };
                reading.rectangle(rectangle, &mut elements)?;
            }
            Lying::Made { key, stream, cols } => {
                for row in rectangle.rows() {
                    let first = row as u64 * cols;
                    let of_row = first + rectangle.cols.0 as u64..first + rectangle.cols.1 as u64;
                    random::uniform(*key, *stream, of_row, &mut elements, cancelled)
                        .ok_or(KernelError::Cancelled)?;
                }
            }
        }
        Ok(elements)
    }

    /// A view of a rectangle: of the whole matrix where it is in memory, else of what was brought.
    pub(super) fn view<'a, T: Stored>(
        &'a self,
        rectangle: Rectangle,
        brought: &'a [T],
    ) -> Result<View<'a, T>, KernelError> {
        let [rows, cols] = rectangle.shape();
        let view = match self {
            Lying::Memory(matrix) => {
                let dense = T::dense(matrix).ok_or(KernelError::Task)?;
                dense.view()?.tile(rectangle.rows(), rectangle.cols())?
            }
            _ if self.by_columns() => View::column_major(brought, rows, cols)?,
            _ => View::row_major(brought, rows, cols)?,
        };
        Ok(view)
    }
}

impl<T: Element> Dense<T> {
    fn view(&self) -> Result<View<'_, T>, GemmError> {
        let [rows, cols] = self.shape;
        match self.fortran {
            true => View::column_major(&self.elements, rows, cols),
            false => View::row_major(&self.elements, rows, cols),
        }
    }
}

/// A file and how it is read.
struct Reading<'a> {
    operand: &'static str,
    runs: &'a dyn Runs,
    header: &'a Header,
    begin: u64,
    cancelled: &'a dyn Fn() -> bool,
}

impl Reading<'_> {
    fn rectangle<T: Stored>(&self, rectangle: Rectangle, into: &mut Vec<T>) -> Result<(), KernelError> {
        let Header { rows, cols, fortran, .. } = *self.header;
        let (lines, along) = match fortran {
            true => (rectangle.cols(), rectangle.rows()),
            false => (rectangle.rows(), rectangle.cols()),
        };
        let line = if fortran { rows } else { cols } as usize;
        let mut run = vec![0; RUN_BYTES.min(lines.len() * along.len() * size_of::<T>())];
        if along.len() == line {
            return self.elements(lines.start * line..lines.end * line, &mut run, into);
        }
        for at in lines {
            self.elements(at * line + along.start..at * line + along.end, &mut run, into)?;
        }
        Ok(())
    }

    /// Elements that lie one after another.
    fn elements<T: Stored>(
        &self,
        range: Range<usize>,
        run: &mut [u8],
        into: &mut Vec<T>,
    ) -> Result<(), KernelError> {
        let size = size_of::<T>();
        let most = run.len() / size;
        let mut first = range.start;
        while first < range.end {
            if (self.cancelled)() {
                return Err(KernelError::Cancelled);
            }
            let count = most.min(range.end - first);
            let run = &mut run[..count * size];
            let unreadable = |Unreadable| KernelError::Unreadable { operand: self.operand };
            self.runs.read(self.begin + (first * size) as u64, run).map_err(unreadable)?;
            if let Some(bad) = T::take(run, into) {
                let (row, col) = self.header.place((first + bad) as u64);
                return Err(KernelError::NotFinite { operand: self.operand, row, col });
            }
            first += count;
        }
        Ok(())
    }
}
