//! The matrix kernel: any block of a planned product to its bytes.
//!
//! Owns how a block is taken from operands that may be larger than memory. What an element is, [`gemm`] says; where
//! operands lie and what of them is in memory, the rooms beside this say.
//!
//! *Memory*: a block is computed in stretches of its terms, [`STRETCH_BYTES`] of each line of both operands.
//! Accumulators rest in the tile between two stretches, which is exact, so no bit depends on them. A thread needs
//! [`Task::block_bytes`], whatever the operands are; rectangles that were used are kept for the next block within the cap of
//! [`Prepared::new`].
//!
//! *Shape* of a partial: the block's elements by rows, little-endian, in the task's type. Of a block on
//! the diagonal of a symmetric update, those outside the half are +0.

mod lying;
pub mod npy;
mod panels;
mod random;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tessera_protocol::matrix::{Block, Half, Operand, STRETCH_BYTES, Source, Task};
use tessera_protocol::spec::Dtype;

use crate::gemm::{self, Element, GemmError, Product, Stretch, Triangle};
use crate::isa::Isa;
use crate::pages::advise_large;
pub use lying::Given;
use lying::{Lying, Rectangle, Stored};
pub use panels::Held;
use panels::{Panel, Panels};

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
    /// An input is no matrix of a job.
    NotMatrix {
        /// Which.
        operand: &'static str,
        /// What its file says.
        reason: String,
    },
    /// An entry of an input is NaN or infinite.
    NotFinite {
        /// Of which.
        operand: &'static str,
        /// From zero, as the matrix lies.
        row: u64,
        /// As `row`.
        col: u64,
    },
    /// An input cannot be read here.
    Unreadable {
        /// Which.
        operand: &'static str,
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
            KernelError::NotMatrix { operand, reason } => write!(f, "the input of {operand}: {reason}"),
            KernelError::NotFinite { operand, row, col } => {
                write!(
                    f,
                    "the input of {operand}: entry [{row}, {col}] is NaN or infinite: every entry must be finite"
                )
            }
            KernelError::Unreadable { operand } => {
                write!(f, "the input of {operand}: {}", crate::runs::Unreadable)
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
pub type Find<'a> = dyn Fn(&[u8; 32], u64) -> Option<Given> + 'a;

/// A task and where its operands lie: what every block of it needs.
#[derive(Clone, Debug)]
pub struct Prepared {
    task: Arc<Task>,
    operands: Operands,
}

#[derive(Clone, Debug)]
enum Operands {
    F32(Arc<OfType<f32>>),
    F64(Arc<OfType<f64>>),
}

impl Prepared {
    /// Finds the operands: inputs by `input`; random ones are made when they are needed. Of inputs that are files the
    /// header is read. Up to `panel_bytes_max` of them are kept in memory for the blocks that follow.
    ///
    /// *Errors*: [`KernelError::InputMissing`], [`KernelError::Input`], [`KernelError::NotMatrix`],
    /// [`KernelError::Unreadable`].
    pub fn new(task: Arc<Task>, input: &Find<'_>, panel_bytes_max: u64) -> Result<Prepared, KernelError> {
        let operands = match task.double {
            true => Operands::F64(Arc::new(OfType::find(&task, input, panel_bytes_max)?)),
            false => Operands::F32(Arc::new(OfType::find(&task, input, panel_bytes_max)?)),
        };
        Ok(Prepared { task, operands })
    }

    /// The task.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// What is and was in memory of operands that are not given there.
    pub fn held(&self) -> &Held {
        match &self.operands {
            Operands::F32(of) => of.panels.held(),
            Operands::F64(of) => of.panels.held(),
        }
    }

    /// Computes the block at a position. `cancelled` is asked every few milliseconds.
    ///
    /// *Errors*: [`KernelError::Task`] past the last block, [`KernelError::Gemm`], [`KernelError::NotFinite`],
    /// [`KernelError::Unreadable`], [`KernelError::Cancelled`].
    pub fn run(&self, isa: Isa, block: u64, cancelled: &dyn Fn() -> bool) -> Result<Vec<u8>, KernelError> {
        let block = self.task.block(block).ok_or(KernelError::Task)?;
        match &self.operands {
            Operands::F32(of) => of.run(&self.task, &block, isa, cancelled),
            Operands::F64(of) => of.run(&self.task, &block, isa, cancelled),
        }
    }

    /// What the block at a position is made of: all terms of it in memory, for a device that cuts them itself.
    ///
    /// *Errors*: as [`Prepared::run`].
    pub fn load(&self, block: u64, cancelled: &dyn Fn() -> bool) -> Result<Loaded<'_>, KernelError> {
        self.load_of(self.task.block(block).ok_or(KernelError::Task)?, cancelled)
    }

    /// What the whole result is made of, as one block: all operands in memory.
    ///
    /// *Errors*: as [`Prepared::run`].
    pub fn load_whole(&self, cancelled: &dyn Fn() -> bool) -> Result<Loaded<'_>, KernelError> {
        let [rows, cols, terms] = self.task.shape();
        self.load_of(Block { tile: 0, panel: 0, rows: 0..rows, cols: 0..cols, terms: 0..terms }, cancelled)
    }

    fn load_of(&self, block: Block, cancelled: &dyn Fn() -> bool) -> Result<Loaded<'_>, KernelError> {
        let terms = whole(&block.terms);
        let pieces = match &self.operands {
            Operands::F32(of) => {
                LoadedPieces::F32(of, of.pieces(&self.task, &block, terms, true, cancelled)?)
            }
            Operands::F64(of) => {
                LoadedPieces::F64(of, of.pieces(&self.task, &block, terms, true, cancelled)?)
            }
        };
        Ok(Loaded { task: &self.task, block, pieces })
    }
}

/// A block's part of the operands, in memory.
#[derive(Debug)]
pub struct Loaded<'a> {
    task: &'a Task,
    block: Block,
    pieces: LoadedPieces<'a>,
}

#[derive(Debug)]
enum LoadedPieces<'a> {
    F32(&'a OfType<f32>, Pieces<f32>),
    F64(&'a OfType<f64>, Pieces<f64>),
}

impl Loaded<'_> {
    /// What the block is made of.
    ///
    /// *Errors*: [`KernelError::Task`] if its matrices do not fit together.
    pub fn terms(&self) -> Result<BlockTerms<'_>, KernelError> {
        let half = half(self.task, &self.block);
        Ok(match &self.pieces {
            LoadedPieces::F32(of, pieces) => {
                let product = of.product(self.task, pieces)?;
                BlockTerms::F32(Terms { k: 0..product.depth(), product, half })
            }
            LoadedPieces::F64(of, pieces) => {
                let product = of.product(self.task, pieces)?;
                BlockTerms::F64(Terms { k: 0..product.depth(), product, half })
            }
        })
    }
}

/// The operands of a task by the type of their elements.
#[derive(Debug)]
struct OfType<T> {
    /// Each matrix once: a symmetric update's second operand is its first one.
    matrices: Vec<Lying>,
    /// Which of them each operand is.
    a: usize,
    b: usize,
    c: Option<usize>,
    panels: Panels<T>,
}

/// Rectangles of the operands for some terms of a block.
#[derive(Debug)]
struct Pieces<T> {
    a: Piece<T>,
    b: Piece<T>,
    c: Option<Piece<T>>,
}

#[derive(Debug)]
struct Piece<T> {
    matrix: usize,
    rectangle: Rectangle,
    panel: Arc<Panel<T>>,
}

impl<T: Stored> OfType<T> {
    fn find(task: &Task, input: &Find<'_>, panel_bytes_max: u64) -> Result<OfType<T>, KernelError> {
        let (mut sources, mut matrices) = (Vec::new(), Vec::new());
        let mut place = |name, operand: &Operand| {
            if let Some(place) = sources.iter().position(|source| *source == operand.source) {
                return Ok::<_, KernelError>(place);
            }
            let lying = match operand.source {
                Source::Input { blake3, bytes } => {
                    let given = input(&blake3, bytes).ok_or(KernelError::InputMissing { operand: name })?;
                    Lying::given(given, name, operand, task.double)?
                }
                Source::Uniform { stream } => Lying::Made { key: task.key, stream, cols: operand.cols },
            };
            sources.push(operand.source);
            matrices.push(lying);
            Ok(matrices.len() - 1)
        };
        let (a, b) = (place("a", &task.a)?, place("b", &task.b)?);
        let c = task.c.as_ref().map(|operand| place("c", operand)).transpose()?;
        Ok(OfType { matrices, a, b, c, panels: Panels::new(panel_bytes_max) })
    }

    fn run(
        &self,
        task: &Task,
        block: &Block,
        isa: Isa,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, KernelError> {
        let (half, terms) = (half(task, block), whole(&block.terms));
        let mut out = vec![T::ZERO; block.elements() as usize];
        advise_large(&out);
        let step = STRETCH_BYTES as usize / size_of::<T>();
        for start in terms.clone().step_by(step) {
            let end = terms.end.min(start + step);
            let stretch = Stretch { resume: start != terms.start, last: end == terms.end };
            let pieces = self.pieces(task, block, start..end, stretch.last, cancelled)?;
            let product = self.product(task, &pieces)?;
            gemm::stretch(isa, &product, half, stretch, &mut out, cancelled)?;
        }
        Ok(to_bytes(&out))
    }

    /// Some terms of a block, with the addend where it has one and they are its last.
    fn pieces(
        &self,
        task: &Task,
        block: &Block,
        terms: Range<usize>,
        last: bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Pieces<T>, KernelError> {
        let (rows, cols) = (whole(&block.rows), whole(&block.cols));
        let a = self.piece("a", self.a, Rectangle::of(&rows, &terms, task.a.transposed), cancelled)?;
        let of_b = Rectangle::of(&terms, &cols, task.b.transposed);
        // Of a tile on the diagonal of a symmetric update both are the same elements in the same place.
        let b = match (self.b, of_b) == (a.matrix, a.rectangle) {
            true => Piece { panel: a.panel.clone(), ..a },
            false => self.piece("b", self.b, of_b, cancelled)?,
        };
        let c = match (self.c, &task.c) {
            (Some(matrix), Some(operand)) if block.panel == 0 && last => {
                Some(self.piece("c", matrix, Rectangle::of(&rows, &cols, operand.transposed), cancelled)?)
            }
            _ => None,
        };
        Ok(Pieces { a, b, c })
    }

    fn piece(
        &self,
        operand: &'static str,
        matrix: usize,
        rectangle: Rectangle,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Piece<T>, KernelError> {
        let lying = &self.matrices[matrix];
        let panel = match lying {
            Lying::Memory(_) => self.panels.none(),
            _ => self.panels.get((matrix, rectangle), || lying.bring(operand, rectangle, cancelled))?,
        };
        Ok(Piece { matrix, rectangle, panel })
    }

    fn product<'a>(&'a self, task: &Task, pieces: &'a Pieces<T>) -> Result<Product<'a, T>, KernelError> {
        let view = |piece: &'a Piece<T>, operand: &Operand| {
            let view = self.matrices[piece.matrix].view(piece.rectangle, &piece.panel.elements)?;
            Ok::<_, KernelError>(if operand.transposed { view.transposed() } else { view })
        };
        let (a, b) = (view(&pieces.a, &task.a)?, view(&pieces.b, &task.b)?);
        let product = Product::new(T::rounded(task.alpha), a, b)?;
        match (&pieces.c, &task.c) {
            (Some(c), Some(operand)) => Ok(product.adding(T::rounded(task.beta), view(c, operand)?)?),
            _ => Ok(product),
        }
    }
}

/// The half that is computed of a block on the diagonal.
fn half(task: &Task, block: &Block) -> Option<Triangle> {
    match task.half.filter(|_| block.rows == block.cols)? {
        Half::Lower => Some(Triangle::Lower),
        Half::Upper => Some(Triangle::Upper),
    }
}

/// Positions of a checked task: sides are at most 2^17.
fn whole(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}

fn dtype(double: bool) -> Dtype {
    if double { Dtype::F64 } else { Dtype::F32 }
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

/// A block's partial from its elements.
pub fn to_bytes<T: Element>(elements: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(elements));
    elements.iter().for_each(|element| element.put(&mut bytes));
    bytes
}
