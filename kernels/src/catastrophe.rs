//! The catastrophe kernel: losses of a portfolio under tropical cyclones, stage by stage.
//!
//! Owns what each stage returns: a survey's head, the losses of a range of events, and the tables, curves and
//! pictures of the end. What a wind is, [`wind`] says; what a storm's sample is, its room.
//!
//! A shard reads the job's files again instead of a digest of them: reading is milliseconds beside its events, and
//! one reader judges every file.

mod csv_table;
mod curves;
pub mod damage;
mod exceedance;
pub mod exposure;
pub mod fault;
mod finish;
mod hurdat2;
pub mod land;
pub mod look;
pub mod losses;
mod outline;
mod pictures;
mod storm;
mod survey;
mod tables;
mod track_csv;
pub mod tracks;
pub mod wind;
mod years;

use std::fmt;

use bytes::Bytes;
use tessera_protocol::catastrophe::{FileName, Model, Task, Vulnerability};
use tessera_protocol::product::Product;

use crate::isa::Isa;
use damage::Curve;
use exposure::Exposure;
use fault::Fault;
use land::Land;
use tracks::Catalogue;
use wind::Points;

pub use storm::{holland_1980, holland_2008};

/// Why a shard gave no product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The caller asked to stop.
    Cancelled,
    /// The task has no such units.
    Task,
    /// An input that the task names was not given.
    InputMissing {
        /// Its digest.
        blake3: [u8; 32],
    },
    /// The job's inputs are not those that its survey passed.
    Input(Fault),
    /// A product of an earlier stage is not of its shape.
    Part {
        /// Its digest.
        blake3: [u8; 32],
    },
    /// A table could not be written, or the result is longer than a product may be.
    Output(&'static str),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, digest: &[u8; 32]| tessera_protocol::id::write_hex(f, digest);
        match self {
            KernelError::Cancelled => f.write_str("the computation was cancelled"),
            KernelError::Task => f.write_str("the task has no such units"),
            KernelError::InputMissing { blake3 } => {
                f.write_str("an input of the task is not there: ")?;
                hex(f, blake3)
            }
            KernelError::Input(fault) => fault.fmt(f),
            KernelError::Part { blake3 } => {
                f.write_str("a product of the losses is not of its shape: ")?;
                hex(f, blake3)
            }
            KernelError::Output(what) => write!(f, "cannot write {what}"),
        }
    }
}

impl std::error::Error for KernelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            KernelError::Input(fault) => Some(fault),
            _ => None,
        }
    }
}

/// Finds an input or an earlier product by its digest.
pub type Find<'a> = dyn Fn(&[u8; 32]) -> Option<Bytes> + 'a;

/// Computes the units `first .. first + count` of a stage. `cancelled` is asked before each storm or event.
///
/// *Errors*: see [`KernelError`]. What is wrong with a file is no error of the survey but its answer.
pub fn run(
    task: &Task,
    first: u64,
    count: u64,
    inputs: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    if count == 0 || first.checked_add(count).is_none_or(|end| end > task.units()) {
        return Err(KernelError::Task);
    }
    match task {
        Task::Survey(model) => survey::run(model, inputs, cancelled),
        Task::Losses { model, storms } => {
            losses::run(model, *storms, first..first + count, inputs, isa, cancelled)
        }
        Task::Finish(task) => finish::run(task, inputs, isa, cancelled),
    }
}

/// A job's files, read.
struct Prepared {
    catalogue: Catalogue,
    exposure: Exposure,
    points: Points,
    /// Of each class.
    curves: Vec<Curve>,
    land: Land,
}

/// Why they cannot be.
enum PrepareError {
    Fault(Fault),
    Kernel(KernelError),
}

impl From<Fault> for PrepareError {
    fn from(fault: Fault) -> PrepareError {
        PrepareError::Fault(fault)
    }
}

impl From<PrepareError> for KernelError {
    fn from(error: PrepareError) -> KernelError {
        match error {
            PrepareError::Fault(fault) => KernelError::Input(fault),
            PrepareError::Kernel(error) => error,
        }
    }
}

impl Prepared {
    fn read(model: &Model, inputs: &Find<'_>) -> Result<Prepared, PrepareError> {
        let find = |file: FileName| {
            inputs(&file.blake3)
                .ok_or(PrepareError::Kernel(KernelError::InputMissing { blake3: file.blake3 }))
        };
        let catalogue = tracks::read(&model.tracks, &find(model.tracks.file)?)?;
        let exposure = exposure::read(&find(model.exposure)?)?;
        let curves = match model.vulnerability {
            Vulnerability::Curves(file) => Some(find(file)?),
            Vulnerability::Emanuel { .. } => None,
        };
        let curves = curves::of_classes(&model.vulnerability, curves.as_deref(), &exposure)?;
        let land = match model.mask {
            Some(file) => land::read(&find(file)?)?,
            None => Land::Outline,
        };
        let points = Points::new(exposure.places.iter().copied());
        Ok(Prepared { catalogue, exposure, points, curves, land })
    }
}
