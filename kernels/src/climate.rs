//! The climate kernel: any unit of any stage of a principal component analysis to its product.
//!
//! Owns which stage runs what. A *survey* looks into the files, *cells* centres and weights, *gram* sums
//! products, *eigen* decomposes them, *modes* and *project* find loadings and scores, *finish* writes what
//! the client gets. What a stage finds wrong with the data is a product too, so that it is verified like
//! any answer; errors are for broken tasks and missing inputs.
//!
//! What a shard holds does not grow with the field: of its files runs of at most a panel of cells of one sample, of
//! earlier products those that its stage reads, whole.

mod anomalies;
mod cells;
mod files;
mod finding;
mod finish;
mod gram;
pub mod look;
mod modes;
mod netcdf;
mod npy;
mod output;
mod sum;
mod survey;
mod symmetric;
mod values;

use std::fmt;

use tessera_protocol::climate::Task;
use tessera_protocol::product::Product;

use crate::gemm::GemmError;
use crate::isa::{self, Isa};
use crate::runs::Unreadable;
use anomalies::NoBlock;
use finding::Finding;
pub use values::Find;

/// Why a shard gave no product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The caller asked to stop.
    Cancelled,
    /// The task has no such units, or does not fit together.
    Task,
    /// A file that the task names was not given, or has another length.
    InputMissing,
    /// A file cannot be read.
    Unreadable(Unreadable),
    /// A product of an earlier stage is not what its kernel writes.
    Product,
    /// A product of matrices cannot be computed.
    Gemm(GemmError),
    /// The output cannot be written.
    Output,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Cancelled => f.write_str("the computation was cancelled"),
            KernelError::Task => f.write_str("the task has no such units, or does not fit together"),
            KernelError::InputMissing => {
                f.write_str("a file that the task names is not there or has another length")
            }
            KernelError::Unreadable(error) => error.fmt(f),
            KernelError::Product => {
                f.write_str("a product of an earlier stage is not what its kernel writes")
            }
            KernelError::Gemm(error) => error.fmt(f),
            KernelError::Output => f.write_str("the output exceeds what its format holds"),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KernelError::Gemm(error) => Some(error),
            KernelError::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<GemmError> for KernelError {
    fn from(error: GemmError) -> KernelError {
        match error {
            GemmError::Cancelled => KernelError::Cancelled,
            error => KernelError::Gemm(error),
        }
    }
}

impl From<Unreadable> for KernelError {
    fn from(error: Unreadable) -> KernelError {
        KernelError::Unreadable(error)
    }
}

impl From<NoBlock> for KernelError {
    /// Of the field itself: its cells were looked at, so the products of their stage are not this field's.
    fn from(error: NoBlock) -> KernelError {
        match error {
            NoBlock::Hole(_) => KernelError::Product,
            NoBlock::Unreadable(error) => error.into(),
        }
    }
}

/// Runs units `first .. first + count` of a stage.
///
/// `inputs` finds files by digest; of those of the field only the runs that the units need are read. `cancelled` is asked every few milliseconds, except while the output is
/// written.
///
/// *Errors*: those of [`KernelError`]. What is wrong with the data is a product whose head says so.
pub fn run(
    task: &Task,
    first: u64,
    count: u64,
    inputs: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    if !isa::floating_point_is_standard() {
        return Err(KernelError::Gemm(GemmError::FloatingPointMode));
    }
    task.check().map_err(|_| KernelError::Task)?;
    let end = first.checked_add(count).filter(|end| count > 0 && *end <= task.units());
    let units = first..end.ok_or(KernelError::Task)?;
    let product = match task {
        Task::Survey(task) => survey::run(task, inputs),
        Task::Cells(task) => cells::run(task, units, inputs, cancelled),
        Task::Gram(task) => gram::run(task, units, inputs, isa, cancelled),
        Task::Eigen(task) => gram::eigen(task, inputs, isa, cancelled),
        Task::Modes(task) => modes::run(task, units, inputs, isa, cancelled),
        Task::Project(task) => modes::project(task, units, inputs, isa, cancelled),
        Task::Finish(task) => finish::run(task, inputs, isa, cancelled),
    };
    match product {
        Err(KernelError::Gemm(GemmError::NotFinite { .. })) => Ok(Finding::Overflow.product()),
        product => product,
    }
}
