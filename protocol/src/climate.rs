//! The climate tasks: what an agent needs to run any unit of any stage of a principal component analysis.
//!
//! Owns the stages' tasks and heads, their encoding, and where the values of a field lie in its files. A
//! planner makes the tasks from a checked specification and the heads of earlier stages. Computes nothing.
//!
//! The field is a matrix of *samples* (times of all files, one file after the other) by *cells* (places of
//! the grid in the order of the file). A *panel* is [`PANEL_CELLS`] consecutive cells. The stages:
//!
//! | stage | a unit is | head | files |
//! |---|---|---|---|
//! | `survey` | all | [`Survey`] | `coordinates`, `latitude`, values of compressed inputs |
//! | `cells` | a panel | [`Cells`] | `cells`: mean and factor of each cell |
//! | `gram` | a tile of the matrix of products | | `tiles` |
//! | `eigen` | all | [`Eigen`] | `vectors` |
//! | `modes` | a panel | [`Modes`] | `eofs`: so many loadings of each mode |
//! | `project` | [`BLOCK_SAMPLES`] samples | | `scores`: so many of each sample |
//! | `finish` | all | [`Finish`] | what the client gets |
//!
//! Numbers in files between stages are little-endian doubles.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;
use crate::spec::ScalingName;

mod slab;

pub use slab::{Element, Slab, Unpack};

/// Cells of a panel; the last has fewer. Part of what is computed: chains of products end with a panel.
pub const PANEL_CELLS: u64 = 1_024;
/// Samples of a panel where products are summed over samples.
pub const PANEL_SAMPLES: u64 = 1_024;
/// Samples of a block that is projected; the last has fewer. Never changes a result.
pub const BLOCK_SAMPLES: u64 = 64;

/// A file of bytes by its digest: an input of the job or the product of an earlier shard.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// BLAKE3 of the bytes.
    pub blake3: [u8; 32],
    /// How many.
    pub bytes: u64,
}

/// An input and how the job calls it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As in the job.
    pub name: String,
    /// Its bytes.
    pub source: Source,
}

/// One stage of an analysis, the same for every unit of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Task {
    /// Finds the field in its files.
    Survey(SurveyTask),
    /// Means, standard deviations, weights and missing cells.
    Cells(CellsTask),
    /// Products of samples, or of cells where those are fewer.
    Gram(GramTask),
    /// The leading eigenvalues and vectors of the products.
    Eigen(EigenTask),
    /// The loadings of a panel of cells.
    Modes(ModesTask),
    /// The scores of samples, from their values and the loadings.
    Project(ProjectTask),
    /// Signs, scalings and files.
    Finish(FinishTask),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SurveyTask {
    /// One after the other.
    pub field: Vec<Named>,
    /// Files to project, of the same grid.
    pub new: Vec<Named>,
    /// The variable; nothing for the only one that fits.
    pub variable: Option<String>,
    /// What its units must be, if that matters.
    pub units: Option<String>,
    pub weights: Weights,
}

/// What cells are multiplied by.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Weights {
    /// One.
    None,
    /// The square root of the cosine of the latitude, zero beyond the poles.
    SqrtCosLatitude,
    /// A `.npy` of the grid's shape.
    Given(Named),
}

/// The field's matrix.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Field {
    /// One file after the other.
    pub pieces: Vec<Piece>,
    pub cells: u64,
}

/// The samples of one file.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Piece {
    pub source: Source,
    pub slab: Slab,
}

/// What every later stage knows of a field and its cells.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Anomalies {
    pub field: Field,
    /// Products of the `cells` stage, in order.
    pub cells: Vec<Source>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct CellsTask {
    pub field: Field,
    /// Product of the survey.
    pub survey: Source,
    /// Of the grid; zeros stand for a file that is none.
    pub weights: CellWeights,
    pub center: bool,
    pub standardise: bool,
}

/// As [`Weights`], once the survey has looked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum CellWeights {
    None,
    /// From the survey's `latitude`.
    SqrtCosLatitude,
    Given(Piece),
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GramTask {
    pub anomalies: Anomalies,
    pub of: Side,
    /// Samples or cells of the matrix.
    pub side: u64,
    /// Rows and columns of a tile; never changes a result.
    pub tile: u64,
}

/// Which products are summed.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Those of samples, over cells.
    Samples,
    /// Those of cells that are not missing, over samples.
    Cells,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct EigenTask {
    /// Of the field, at least two.
    pub samples: u64,
    pub side: u64,
    pub tile: u64,
    /// Products of the `gram` stage, in order.
    pub tiles: Vec<Source>,
    /// Most that are kept.
    pub modes: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ModesTask {
    pub anomalies: Anomalies,
    pub of: Side,
    /// Product of the `eigen` stage.
    pub eigen: Source,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ProjectTask {
    /// What is projected, with the cells of the field.
    pub anomalies: Anomalies,
    /// Products of the `modes` stage, in order.
    pub eofs: Vec<Source>,
    pub modes: u64,
    /// Whether these are other samples than the field's, of which no stage has looked at the missing cells.
    pub new: bool,
    /// Product of the survey.
    pub survey: Source,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct FinishTask {
    pub survey: Source,
    pub cells: Vec<Source>,
    pub eigen: Source,
    pub eofs: Vec<Source>,
    /// Products of the `project` stage of the field itself, in order; none where its scores are known from
    /// the eigenvectors.
    pub scores: Vec<Source>,
    /// Products of the `project` stage of other files, in order.
    pub projected: Vec<Source>,
    pub of: Side,
    /// The variable's name and units.
    pub variable: String,
    pub units: Option<String>,
    /// Name and length of the dimensions of the grid.
    pub grid: Vec<(String, u64)>,
    /// Samples of each file.
    pub samples: Vec<u64>,
    /// Samples of each file that is projected.
    pub new_samples: Vec<u64>,
    pub modes: u64,
    /// As [`Modes::peaks`], of all cells: a mode whose peak is negative changes its sign.
    pub peaks: Vec<Peak>,
    pub eigenvalues: Vec<f64>,
    pub total_variance: f64,
    pub scalings: Vec<Scaling>,
    /// Modes that are added up again, from one.
    pub reconstruct: Vec<u64>,
    pub netcdf: bool,
    pub npy: bool,
}

/// How EOFs and scores are scaled.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scaling {
    /// EOFs of length one, scores whose variance is the eigenvalue.
    Unscaled,
    /// Divided by the square root of the eigenvalue.
    Divided,
    /// Multiplied by it.
    Multiplied,
}

impl From<ScalingName> for Scaling {
    fn from(name: ScalingName) -> Scaling {
        match name {
            ScalingName::Unscaled => Scaling::Unscaled,
            ScalingName::Divided => Scaling::Divided,
            ScalingName::Multiplied => Scaling::Multiplied,
        }
    }
}

/// What a shard tells the planner.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Head {
    /// The inputs cannot be analysed: what is wrong and what to do.
    Refused(String),
    Survey(Survey),
    Cells(Cells),
    Eigen(Eigen),
    Modes(Modes),
    Finish(Finish),
    /// Nothing but its files.
    Files,
}

/// What the field is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Survey {
    pub variable: String,
    pub units: Option<String>,
    /// Name and length of the dimensions of the grid.
    pub grid: Vec<(String, u64)>,
    /// In the order of the files.
    pub field: Vec<Found>,
    pub new: Vec<Found>,
    pub weights: Option<Slab>,
}

/// Where the values of one file are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Found {
    pub slab: Slab,
    /// The survey's file that holds the values, where they do not lie in the input as they are: the slab is
    /// then of this file.
    pub unpacked: Option<String>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Cells that have values.
    pub present: u64,
    /// Of them, those whose value never changes.
    pub constant: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Eigen {
    /// Variances of the modes that are kept, and of the next one where there is one; descending.
    pub eigenvalues: Vec<f64>,
    /// The sum of all.
    pub total_variance: f64,
    /// Modes that have a variance above rounding, and at most as many as were asked for.
    pub modes: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Modes {
    /// For each mode, the largest of the shard's loadings.
    pub peaks: Vec<Peak>,
}

/// The loading of largest magnitude; of equal ones, that of the lowest cell.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    pub loading: f64,
    pub cell: u64,
}

impl Peak {
    /// The one that decides a sign.
    pub fn or(self, later: Peak) -> Peak {
        if later.loading.abs() > self.loading.abs() { later } else { self }
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Finish {
    pub variance_fractions: Vec<f64>,
    /// Sampling errors of the eigenvalues.
    pub north_errors: Vec<f64>,
    /// Whether the next mode lies within the error of this one.
    pub near_degenerate: Vec<bool>,
    /// Largest difference of a product of two EOFs from what orthonormal ones have.
    pub orthonormality_error: f64,
}

/// The survey's file `coordinates`: what the output repeats and messages speak of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Coordinates {
    /// Over dimensions of the grid.
    pub grid: Vec<Coordinate>,
    /// Of each file of the field; nothing where it has none.
    pub times: Vec<Option<Coordinate>>,
    /// Of each file that is projected.
    pub new_times: Vec<Option<Coordinate>>,
}

/// A coordinate variable.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Coordinate {
    pub name: String,
    /// Their names, in order.
    pub dimensions: Vec<String>,
    /// Those that are text.
    pub attributes: Vec<(String, String)>,
    pub values: Vec<f64>,
}

impl Coordinates {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside.
    pub fn decode(bytes: &[u8]) -> Result<Coordinates, TaskError> {
        rkyv::from_bytes::<Coordinates, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)
    }
}

/// Why bytes are not a task or head of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Not an archive of this version.
    Malformed,
    /// A count, a shape or a number of bytes outside the limits.
    Size,
    /// A place in a file that it has not.
    Place,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskError::Malformed => "the task is not a valid archive of this version",
            TaskError::Size => "a part of the task is empty or larger than the limits allow",
            TaskError::Place => "the task names places of a file that it has not",
        })
    }
}

impl core::error::Error for TaskError {}

impl Head {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside.
    pub fn decode(bytes: &[u8]) -> Result<Head, TaskError> {
        if bytes.len() > limits::HEAD_BYTES_MAX {
            return Err(TaskError::Size);
        }
        rkyv::from_bytes::<Head, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)
    }
}

impl Field {
    /// Of all files.
    pub fn samples(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.slab.samples()).sum()
    }

    fn check(&self) -> Result<(), TaskError> {
        if !(1..=limits::CLIMATE_CELLS_MAX).contains(&self.cells)
            || !(1..=limits::INPUTS_MAX).contains(&self.pieces.len())
        {
            return Err(TaskError::Size);
        }
        for piece in &self.pieces {
            piece.slab.check(piece.source.bytes, self.cells)?;
        }
        let samples = self.pieces.iter().map(|piece| u128::from(piece.slab.samples())).sum::<u128>();
        if samples > u128::from(limits::CLIMATE_SAMPLES_MAX) { Err(TaskError::Size) } else { Ok(()) }
    }

    fn sources<'a>(&'a self) -> impl Iterator<Item = Source> + 'a {
        self.pieces.iter().map(|piece| piece.source)
    }
}

impl Task {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back keeps every limit, and every place in a file that it names
    /// is there.
    pub fn decode(bytes: &[u8]) -> Result<Task, TaskError> {
        let task =
            rkyv::from_bytes::<Task, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        task.check()?;
        Ok(task)
    }

    /// Whether it keeps every limit and its places are there.
    pub fn check(&self) -> Result<(), TaskError> {
        let within = |value: u64, most: u64| {
            if (1..=most).contains(&value) { Ok(()) } else { Err(TaskError::Size) }
        };
        let shards = |sources: &[Source]| within(sources.len() as u64, limits::STAGE_SHARDS_MAX);
        match self {
            Task::Survey(task) => {
                within(task.field.len() as u64, limits::INPUTS_MAX as u64)?;
                within(task.new.len() as u64 + 1, limits::INPUTS_MAX as u64)
            }
            Task::Cells(task) => {
                task.field.check()?;
                within(task.field.samples(), limits::CLIMATE_SAMPLES_MAX)?;
                match &task.weights {
                    CellWeights::Given(piece) => piece.slab.check(piece.source.bytes, task.field.cells),
                    CellWeights::None | CellWeights::SqrtCosLatitude => Ok(()),
                }
            }
            Task::Gram(task) => {
                task.anomalies.check()?;
                within(task.side, limits::CLIMATE_SIDE_MAX)?;
                within(task.tile, limits::TILE_SIDE_MAX)?;
                let side = match task.of {
                    Side::Samples => task.anomalies.field.samples(),
                    Side::Cells => task.side,
                };
                if side == task.side { Ok(()) } else { Err(TaskError::Size) }
            }
            Task::Eigen(task) => {
                within(task.samples.saturating_sub(1), limits::CLIMATE_SAMPLES_MAX)?;
                within(task.side, limits::CLIMATE_SIDE_MAX)?;
                within(task.tile, limits::TILE_SIDE_MAX)?;
                within(task.modes, limits::CLIMATE_MODES_MAX.min(task.side))?;
                shards(&task.tiles)
            }
            Task::Modes(task) => task.anomalies.check(),
            Task::Project(task) => {
                task.anomalies.check()?;
                within(task.modes, limits::CLIMATE_MODES_MAX)?;
                shards(&task.eofs)
            }
            Task::Finish(task) => task.check(),
        }
    }

    /// How many units the stage has.
    pub fn units(&self) -> u64 {
        match self {
            Task::Survey(_) | Task::Eigen(_) | Task::Finish(_) => 1,
            Task::Cells(task) => task.field.cells.div_ceil(PANEL_CELLS),
            Task::Gram(task) => {
                let down = task.side.div_ceil(task.tile);
                down * (down + 1) / 2
            }
            Task::Modes(task) => task.anomalies.field.cells.div_ceil(PANEL_CELLS),
            Task::Project(task) => task.anomalies.field.samples().div_ceil(BLOCK_SAMPLES),
        }
    }

    /// The files it reads, each once: inputs of the job and products of earlier stages.
    pub fn inputs(&self) -> Vec<([u8; 32], u64)> {
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        let mut add = |source: Source| {
            let entry = (source.blake3, source.bytes);
            if seen.insert(entry) {
                all.push(entry);
            }
        };
        match self {
            Task::Survey(task) => {
                task.field.iter().chain(&task.new).for_each(|named| add(named.source));
                if let Weights::Given(named) = &task.weights {
                    add(named.source);
                }
            }
            Task::Cells(task) => {
                task.field.sources().for_each(&mut add);
                add(task.survey);
                if let CellWeights::Given(piece) = &task.weights {
                    add(piece.source);
                }
            }
            Task::Gram(task) => task.anomalies.sources().for_each(add),
            Task::Eigen(task) => task.tiles.iter().copied().for_each(add),
            Task::Modes(task) => {
                task.anomalies.sources().for_each(&mut add);
                add(task.eigen);
            }
            Task::Project(task) => {
                task.anomalies.sources().chain(task.eofs.iter().copied()).for_each(&mut add);
                add(task.survey);
            }
            Task::Finish(task) => {
                add(task.survey);
                add(task.eigen);
                let products = task.cells.iter().chain(&task.eofs).chain(&task.scores);
                products.chain(&task.projected).copied().for_each(add);
            }
        }
        all
    }
}

impl Anomalies {
    fn check(&self) -> Result<(), TaskError> {
        self.field.check()?;
        let shards = 1..=limits::STAGE_SHARDS_MAX as usize;
        if shards.contains(&self.cells.len()) { Ok(()) } else { Err(TaskError::Size) }
    }

    fn sources<'a>(&'a self) -> impl Iterator<Item = Source> + 'a {
        self.field.sources().chain(self.cells.iter().copied())
    }
}

impl FinishTask {
    /// Cells of the grid.
    pub fn cells_of_grid(&self) -> u64 {
        self.grid.iter().map(|(_, size)| size).product()
    }

    fn check(&self) -> Result<(), TaskError> {
        let cells = self.grid.iter().try_fold(1u64, |cells, (_, size)| cells.checked_mul(*size));
        let count = |samples: &[u64]| samples.iter().map(|count| u128::from(*count)).sum::<u128>();
        let samples = u128::from(limits::CLIMATE_SAMPLES_MAX);
        let fits = cells.is_some_and(|cells| (1..=limits::CLIMATE_CELLS_MAX).contains(&cells))
            && (2..=samples).contains(&count(&self.samples))
            && count(&self.new_samples) <= samples
            && (1..=limits::CLIMATE_MODES_MAX).contains(&self.modes)
            && self.peaks.len() as u64 == self.modes
            && (self.modes..=self.modes + 1).contains(&(self.eigenvalues.len() as u64))
            && self.reconstruct.iter().all(|mode| (1..=self.modes).contains(mode));
        if fits { Ok(()) } else { Err(TaskError::Size) }
    }
}

#[cfg(test)]
mod tests;
