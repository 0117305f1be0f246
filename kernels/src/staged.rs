//! Units of a stage to its product, encoded.
//!
//! Owns which kernel runs which task, and what their errors have in common. A video is no business of this
//! crate: its kernel runs other programs.

use std::fmt;

use tessera_protocol::product::Product;
use tessera_protocol::staged::Task;

use crate::isa::Isa;
use crate::runs::Files;
use crate::{catastrophe, climate};

/// Why there is no product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageError {
    /// The caller asked to stop.
    Cancelled,
    /// No kernel of this crate runs the task.
    Elsewhere,
    /// A kernel stopped, in its words.
    Kernel(String),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::Cancelled => f.write_str("the computation was cancelled"),
            StageError::Elsewhere => f.write_str("no kernel here runs such a task"),
            StageError::Kernel(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for StageError {}

impl From<climate::KernelError> for StageError {
    fn from(error: climate::KernelError) -> StageError {
        match error {
            climate::KernelError::Cancelled => StageError::Cancelled,
            error => StageError::Kernel(error.to_string()),
        }
    }
}

impl From<catastrophe::KernelError> for StageError {
    fn from(error: catastrophe::KernelError) -> StageError {
        match error {
            catastrophe::KernelError::Cancelled => StageError::Cancelled,
            error => StageError::Kernel(error.to_string()),
        }
    }
}

/// Runs units `first .. first + count` of a task.
///
/// `inputs` finds files and earlier products by digest. `cancelled` is asked every few milliseconds.
pub fn run(
    task: &Task,
    (first, count): (u64, u64),
    inputs: &dyn Files,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, StageError> {
    let product = match task {
        Task::Climate(task) => climate::run(task, first, count, inputs, isa, cancelled)?,
        Task::Catastrophe(task) => {
            let whole = |blake3: &[u8; 32]| inputs.whole(blake3);
            catastrophe::run(task, first, count, &whole, isa, cancelled)?
        }
        Task::Video(_) => return Err(StageError::Elsewhere),
    };
    encoded(&product)
}

/// The encoding of a product.
///
/// *Errors*: it is larger than a product may be.
pub fn encoded(product: &Product) -> Result<Vec<u8>, StageError> {
    product.encode().map_err(|error| StageError::Kernel(format!("{error}: take fewer units to a shard")))
}
