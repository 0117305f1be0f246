//! Parameters of the climate workload.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The empirical orthogonal functions of a field: its principal components over samples and cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClimateParams {
    /// Names of entries of the job's inputs: NetCDF-3 files or `.npy` files, all of one grid. The samples of
    /// one file follow those of the one before: members of an ensemble, or years.
    pub field: Vec<String>,
    /// The variable; the only one over time and a grid when absent. Not for `.npy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// What the variable's units must be; whatever they are when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<String>,
    /// How many leading modes. Fewer come back where fewer have a variance.
    #[serde(default = "ten")]
    pub modes: u64,
    /// Whether the mean over all samples is subtracted from every cell.
    #[serde(default = "yes")]
    pub center: bool,
    /// Whether every cell is divided by its standard deviation over all samples.
    #[serde(default)]
    pub standardise: bool,
    /// What cells are multiplied by.
    #[serde(default)]
    pub weights: WeightsSpec,
    /// How EOFs and scores are scaled; each adds its own variables to the output.
    #[serde(default = "all_scalings")]
    pub scalings: Vec<ScalingName>,
    /// Modes, from one, from which the anomalies are put together again; none when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reconstruct: Vec<u64>,
    /// Names of inputs of the same grid that are projected onto the modes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub project: Vec<String>,
    /// In which formats the output is written.
    #[serde(default = "netcdf")]
    pub formats: Vec<FileFormat>,
    /// Units of a stage to a shard; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<u64>,
}

/// What cells are multiplied by, so that they count by the area they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsSpec {
    /// Nothing.
    #[default]
    None,
    /// The square root of the cosine of their latitude.
    SqrtCosLat,
    /// The numbers of a `.npy` input of the grid's shape.
    Input(String),
}

/// One of the usual scalings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingName {
    /// EOFs of length one, and scores whose variance is the eigenvalue.
    Unscaled,
    /// Divided by the square root of the eigenvalue.
    Divided,
    /// Multiplied by the square root of the eigenvalue.
    Multiplied,
}

/// A format of output files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// NetCDF-3, with coordinates.
    Netcdf,
    /// One `.npy` of each variable.
    Npy,
}

fn ten() -> u64 {
    10
}

fn yes() -> bool {
    true
}

fn all_scalings() -> Vec<ScalingName> {
    alloc::vec![ScalingName::Unscaled, ScalingName::Divided, ScalingName::Multiplied]
}

fn netcdf() -> Vec<FileFormat> {
    alloc::vec![FileFormat::Netcdf]
}
