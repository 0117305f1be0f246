//! The job specification: what a client asks for, one schema for TOML and JSON.
//!
//! Owns its fields, their defaults and what each may be. A [`JobSpec`] has parsed; a [`Manifest`] has
//! been checked field by field and names a computation by its digest.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::id::Digest;

mod check;
mod contract;

pub use contract::{ContractKind, ContractSpec, MonitoringSpec};

/// A job as its client wrote it, defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// What people call the job.
    pub name: String,
    /// Who shares quota and cache.
    #[serde(default = "default_project")]
    pub project: String,
    /// Which kernels compute it.
    pub workload: Workload,
    /// Picks the random numbers; equal seeds give equal bytes.
    #[serde(default)]
    pub seed: u64,
    /// What the workload computes.
    pub params: MonteCarloParams,
    /// Files the parameters were made from, by digest.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// How much of the work is done twice.
    #[serde(default)]
    pub verify: VerifyClass,
    /// Which lane of the queue it waits in.
    #[serde(default)]
    pub priority: Priority,
    /// Where it must stop.
    #[serde(default)]
    pub limits: JobLimits,
}

/// The kernels a job can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Paths of random numbers, summed exactly.
    MonteCarlo,
}

impl Workload {
    /// The name an agent's kernel goes by.
    pub fn kernel(self) -> &'static str {
        match self {
            Workload::MonteCarlo => "monte_carlo",
        }
    }
}

/// Parameters of the Monte Carlo workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonteCarloParams {
    /// What a path is.
    pub model: ModelName,
    /// How many paths.
    pub paths: u64,
    /// Paths to a shard; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<u64>,
    /// The contracts to price; only for `gbm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub book: Vec<ContractSpec>,
}

/// The models of the Monte Carlo workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// The area of a quarter circle.
    Pi,
    /// A book under geometric Brownian motion.
    Gbm,
}

/// A file that parameters were made from: provenance, part of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What the job calls it.
    pub name: String,
    /// BLAKE3 of its bytes.
    pub blake3: Digest,
    /// Its length.
    pub bytes: u64,
}

/// How much of a job's work is done twice, by different agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyClass {
    /// One shard in twenty.
    #[default]
    Standard,
    /// One shard in ten.
    Strict,
    /// Every shard.
    Exact,
}

/// Which jobs go first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A person waits: before every batch job.
    Interactive,
    /// Fairly among the others.
    #[default]
    Batch,
}

/// Where a job must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// Most compute units it may cost; refused at submission when the plan costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_cap: Option<u64>,
    /// Seconds from acceptance after which it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// Attempts at a failing shard after the first.
    #[serde(default = "default_retries")]
    pub retries: u32,
}

impl Default for JobLimits {
    fn default() -> JobLimits {
        JobLimits { cost_cap: None, deadline_s: None, retries: default_retries() }
    }
}

fn default_project() -> String {
    "default".to_owned()
}

fn default_retries() -> u32 {
    4
}

/// One field that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, as in `params.book[3].volatility`.
    pub field: String,
    /// What it held; empty when it is missing.
    pub value: String,
    /// What it may hold.
    pub allowed: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}: {}", self.field, self.allowed),
            value => write!(f, "{} = {value}: {}", self.field, self.allowed),
        }
    }
}

/// Why a specification cannot become a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// At least one, in the order of the document; capped at [`SpecError::FIELDS_MAX`].
    pub fields: Vec<FieldError>,
}

impl SpecError {
    /// So that a book with ten thousand wrong rows stays readable.
    pub const FIELDS_MAX: usize = 20;
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, field) in self.fields.iter().enumerate() {
            let separator = if position > 0 { "\n" } else { "" };
            write!(f, "{separator}{field}")?;
        }
        Ok(())
    }
}

impl core::error::Error for SpecError {}

/// A checked specification with its digest: the computation a job is.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    spec: JobSpec,
    digest: Digest,
}

impl Manifest {
    /// The specification, every field within its limits.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// BLAKE3 of [`Manifest::bytes`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The canonical form. *Source*: RFC 8785.
    pub fn bytes(&self) -> Vec<u8> {
        canonical::to_vec(&self.spec).unwrap_or_default()
    }

    /// A manifest read back from where it was stored after its check: today's limits may be other ones,
    /// and what was promised stays promised.
    pub fn recovered(spec: JobSpec) -> Result<Manifest, SpecError> {
        let bytes = canonical::to_vec(&spec).map_err(|error| one_error("(document)", &error.to_string()))?;
        Ok(Manifest { spec, digest: Digest::of(&bytes) })
    }

    /// The same computation over another number of paths.
    pub fn with_paths(&self, paths: u64) -> Result<Manifest, SpecError> {
        let mut spec = self.spec.clone();
        spec.params.paths = paths;
        spec.check()
    }
}

impl JobSpec {
    /// Reads JSON, naming the field that is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<JobSpec, SpecError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let spec = Self::deserialize_named(&mut deserializer)?;
        deserializer.end().map_err(|error| one_error("(document)", &error.to_string()))?;
        Ok(spec)
    }

    /// Reads any serde document, naming the field that is wrong.
    pub fn deserialize_named<'de, D>(deserializer: D) -> Result<JobSpec, SpecError>
    where
        D: serde::Deserializer<'de>,
        D::Error: fmt::Display,
    {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "(document)" } else { path.as_str() };
            one_error(field, &format!("{}", error.inner()))
        })
    }

    /// Checks every field; the errors name each one that is wrong.
    pub fn check(self) -> Result<Manifest, SpecError> {
        let fields = check::fields(&self);
        if !fields.is_empty() {
            return Err(SpecError { fields });
        }
        Manifest::recovered(self)
    }
}

fn one_error(field: &str, allowed: &str) -> SpecError {
    SpecError {
        fields: alloc::vec![FieldError {
            field: field.to_owned(),
            value: String::new(),
            allowed: allowed.to_owned()
        }],
    }
}
