//! The matrix kernel: any block of a planned product to its bytes.
//!
//! Owns the operands of a job in memory, where they come from and how a block is taken from them. What an
//! element is, [`gemm`] says.
//!
//! *Shape* of a partial: the block's elements by rows, little-endian, in the task's type. Of a block on
//! the diagonal of a symmetric update, those outside the half are +0.

pub mod npy;
mod random;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tessera_protocol::matrix::{Block, Half, Operand, Source, Task};
use tessera_protocol::spec::Dtype;

use crate::gemm::{self, Element, GemmError, Product, Triangle, View};
use crate::isa::Isa;
use crate::pages::advise_large;

/// A matrix in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Matrix {
    /// Of binary32.
    F32(Dense<f32>),
    /// Of binary64.
    F64(Dense<f64>),
}

/// Elements by rows or by columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense<T> {
    elements: Vec<T>,
    shape: [usize; 2],
    fortran: bool,
}

impl<T> Dense<T> {
    fn new(elements: Vec<T>, shape: [usize; 2], fortran: bool) -> Dense<T> {
        assert_eq!(elements.len(), shape[0] * shape[1]);
        Dense { elements, shape, fortran }
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

impl Matrix {
    /// Of its elements.
    pub fn dtype(&self) -> Dtype {
        match self {
            Matrix::F32(_) => Dtype::F32,
            Matrix::F64(_) => Dtype::F64,
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [u64; 2] {
        let (Matrix::F32(Dense { shape, .. }) | Matrix::F64(Dense { shape, .. })) = self;
        shape.map(|side| side as u64)
    }

    fn f32(&self) -> Result<View<'_, f32>, KernelError> {
        match self {
            Matrix::F32(dense) => Ok(dense.view()?),
            Matrix::F64(_) => Err(KernelError::Task),
        }
    }

    fn f64(&self) -> Result<View<'_, f64>, KernelError> {
        match self {
            Matrix::F64(dense) => Ok(dense.view()?),
            Matrix::F32(_) => Err(KernelError::Task),
        }
    }
}

/// Why there are no operands, or a block gave no partial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The caller asked to stop.
    Cancelled,
    /// The task has no such block, or does not fit together.
    Task,
    /// An input that the task names was not given.
    InputMissing {
        /// Which.
        operand: &'static str,
    },
    /// An input is not the matrix that the task says.
    Input {
        /// Which.
        operand: &'static str,
        /// What the task says.
        expected: (Dtype, [u64; 2]),
        /// What it is.
        found: (Dtype, [u64; 2]),
    },
    /// The product cannot be computed.
    Gemm(GemmError),
}

impl From<GemmError> for KernelError {
    fn from(error: GemmError) -> KernelError {
        match error {
            GemmError::Cancelled => KernelError::Cancelled,
            error => KernelError::Gemm(error),
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Cancelled => f.write_str("the computation was cancelled"),
            KernelError::Task => f.write_str("the task has no such block, or its matrices do not fit"),
            KernelError::InputMissing { operand } => write!(f, "the input of {operand} is not there"),
            KernelError::Input { operand, expected, found } => {
                let words =
                    |(dtype, [rows, cols]): &(Dtype, [u64; 2])| format!("{rows} x {cols} {}", dtype.word());
                write!(f, "the input of {operand} is {} where the job says {}", words(found), words(expected))
            }
            KernelError::Gemm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KernelError::Gemm(error) => Some(error),
            _ => None,
        }
    }
}

/// Finds an input by its digest and length.
pub type Find<'a> = dyn Fn(&[u8; 32], u64) -> Option<Arc<Matrix>> + 'a;

/// A task with its operands in memory: what every block of it needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    task: Arc<Task>,
    a: Arc<Matrix>,
    b: Arc<Matrix>,
    c: Option<Arc<Matrix>>,
}

impl Prepared {
    /// Gathers the operands: inputs by `input`; random ones are made. `cancelled` is asked every
    /// few milliseconds.
    ///
    /// *Errors*: [`KernelError::InputMissing`], [`KernelError::Input`], [`KernelError::Cancelled`].
    pub fn new(
        task: Arc<Task>,
        input: &Find<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Prepared, KernelError> {
        let gather = |name, operand| self::gather(&task, name, operand, input, cancelled);
        let a = gather("a", &task.a)?;
        // A symmetric update's second operand is its first one, and is so in memory.
        let b = match task.a.source == task.b.source {
            true => a.clone(),
            false => gather("b", &task.b)?,
        };
        let c = task.c.as_ref().map(|operand| gather("c", operand)).transpose()?;
        Ok(Prepared { task, a, b, c })
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Computes the block at a position. `cancelled` is asked every few milliseconds.
    ///
    /// *Errors*: [`KernelError::Task`] past the last block, [`KernelError::Gemm`],
    /// [`KernelError::Cancelled`].
    pub fn run(&self, isa: Isa, block: u64, cancelled: &dyn Fn() -> bool) -> Result<Vec<u8>, KernelError> {
        match self.block(block)? {
            BlockTerms::F32(terms) => terms.run(isa, cancelled),
            BlockTerms::F64(terms) => terms.run(isa, cancelled),
        }
    }

    /// What the block at a position is made of.
    ///
    /// *Errors*: [`KernelError::Task`] past the last block.
    pub fn block(&self, block: u64) -> Result<BlockTerms<'_>, KernelError> {
        self.of(&self.task.block(block).ok_or(KernelError::Task)?)
    }

    /// What the whole result is made of, as one block.
    ///
    /// *Errors*: [`KernelError::Task`] if its matrices do not fit together.
    pub fn whole(&self) -> Result<BlockTerms<'_>, KernelError> {
        let [rows, cols, terms] = self.task.shape();
        self.of(&Block { tile: 0, panel: 0, rows: 0..rows, cols: 0..cols, terms: 0..terms })
    }

    fn of(&self, block: &Block) -> Result<BlockTerms<'_>, KernelError> {
        if self.task.double {
            let c = self.c.as_ref().map(|c| c.f64()).transpose()?;
            let factors = [self.task.alpha, self.task.beta];
            self.terms(block, factors, self.a.f64()?, self.b.f64()?, c).map(BlockTerms::F64)
        } else {
            let c = self.c.as_ref().map(|c| c.f32()).transpose()?;
            let factors = [self.task.alpha as f32, self.task.beta as f32];
            self.terms(block, factors, self.a.f32()?, self.b.f32()?, c).map(BlockTerms::F32)
        }
    }

    fn terms<'a, T: Element>(
        &self,
        block: &Block,
        [alpha, beta]: [T; 2],
        a: View<'a, T>,
        b: View<'a, T>,
        c: Option<View<'a, T>>,
    ) -> Result<Terms<'a, T>, KernelError> {
        let range = |range: &Range<u64>| range.start as usize..range.end as usize;
        let (rows, cols) = (range(&block.rows), range(&block.cols));
        let a = if self.task.a.transposed { a.transposed() } else { a };
        let b = if self.task.b.transposed { b.transposed() } else { b };
        let mut product = Product::new(alpha, a, b)?;
        if let (Some(c), Some(operand)) = (c, &self.task.c) {
            product = product.adding(beta, if operand.transposed { c.transposed() } else { c })?;
        }
        let half = match self.task.half.filter(|_| rows == cols) {
            Some(Half::Lower) => Some(Triangle::Lower),
            Some(Half::Upper) => Some(Triangle::Upper),
            None => None,
        };
        Ok(Terms { product: product.tile(rows, cols)?, half, k: range(&block.terms) })
    }
}

/// What one block is made of, by the type of its elements.
#[derive(Clone, Debug)]
pub enum BlockTerms<'a> {
    /// Of binary32.
    F32(Terms<'a, f32>),
    /// Of binary64.
    F64(Terms<'a, f64>),
}

/// What one block is made of.
#[derive(Clone, Debug)]
pub struct Terms<'a, T> {
    /// The tile's product.
    pub product: Product<'a, T>,
    /// The half that is computed of a tile on the diagonal; the rest is +0.
    pub half: Option<Triangle>,
    /// The panel.
    pub k: Range<usize>,
}

impl<T: Element> Terms<'_, T> {
    fn run(self, isa: Isa, cancelled: &dyn Fn() -> bool) -> Result<Vec<u8>, KernelError> {
        let mut out = vec![T::ZERO; self.product.rows() * self.product.cols()];
        advise_large(&out);
        match self.half {
            Some(half) => gemm::syrk(isa, &self.product, half, self.k, &mut out, cancelled)?,
            None => gemm::gemm(isa, &self.product, self.k, &mut out, cancelled)?,
        }
        Ok(to_bytes(&out))
    }
}

/// A block's partial from its elements.
pub fn to_bytes<T: Element>(elements: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(elements));
    elements.iter().for_each(|element| element.put(&mut bytes));
    bytes
}

fn gather(
    task: &Task,
    name: &'static str,
    operand: &Operand,
    input: &Find<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Arc<Matrix>, KernelError> {
    match operand.source {
        Source::Input { blake3, bytes } => {
            let matrix = input(&blake3, bytes).ok_or(KernelError::InputMissing { operand: name })?;
            let expected = (task.dtype(), [operand.rows, operand.cols]);
            let found = (matrix.dtype(), matrix.shape());
            if found == expected {
                Ok(matrix)
            } else {
                Err(KernelError::Input { operand: name, expected, found })
            }
        }
        Source::Uniform { stream } => {
            let shape = [operand.rows as usize, operand.cols as usize];
            let count = operand.rows * operand.cols;
            let matrix = match task.double {
                true => random::uniform(task.key, stream, count, cancelled)
                    .map(|entries| Matrix::F64(Dense::new(entries, shape, false))),
                false => random::uniform(task.key, stream, count, cancelled)
                    .map(|entries| Matrix::F32(Dense::new(entries, shape, false))),
            };
            matrix.map(Arc::new).ok_or(KernelError::Cancelled)
        }
    }
}
