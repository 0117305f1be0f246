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

mod catastrophe;
mod check;
mod climate;
mod contract;
mod matrix;
mod monte_carlo;
mod requirements;
mod staged;
mod video;

pub use catastrophe::*;
pub use climate::*;
pub use contract::{BasketPart, ContractKind, ContractSpec, ExerciseSpec, MonitoringSpec};
pub use matrix::{Dtype, GemmParams, MatrixSpec, RandomEntries, SyrkParams, Triangle};
pub use monte_carlo::{
    CorrelationSpec, HestonSpec, ModelName, MonteCarloParams, Quantiles, SchemeName, StopSpec, UnderlyingSpec,
};
pub use requirements::{ParseRegionError, Region, Requirements};
pub use staged::StagedParams;
pub use video::*;

/// A job as its client wrote it, defaults filled in.
///
/// `P` is what it is read with: one workload's parameters. Everything else speaks of [`Params`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec<P = Params> {
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
    pub params: P,
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
    /// What agents must be to compute it; any that can when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Requirements>,
}

/// The kernels a job can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Paths of random numbers, summed exactly.
    MonteCarlo,
    /// A general matrix product.
    Gemm,
    /// A symmetric rank-k update.
    Syrk,
    /// Empirical orthogonal functions of a climate field.
    ClimatePca,
    /// Losses of a portfolio under tropical cyclones.
    Catastrophe,
    /// Encoding of a video.
    Video,
}

impl Workload {
    /// The name an agent's kernel goes by.
    pub fn kernel(self) -> &'static str {
        match self {
            Workload::MonteCarlo => "monte_carlo",
            Workload::Gemm => "gemm",
            Workload::Syrk => "syrk",
            Workload::ClimatePca => "climate_pca",
            Workload::Catastrophe => "catastrophe",
            Workload::Video => "video",
        }
    }
}

/// The parameters of one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Params {
    /// Of [`Workload::MonteCarlo`].
    MonteCarlo(MonteCarloParams),
    /// Of [`Workload::Gemm`].
    Gemm(GemmParams),
    /// Of [`Workload::Syrk`].
    Syrk(SyrkParams),
    /// Of a workload whose jobs go through stages.
    Staged(StagedParams),
}

impl Params {
    /// The workload they are of.
    pub fn workload(&self) -> Workload {
        match self {
            Params::MonteCarlo(_) => Workload::MonteCarlo,
            Params::Gemm(_) => Workload::Gemm,
            Params::Syrk(_) => Workload::Syrk,
            Params::Staged(params) => params.workload(),
        }
    }

    fn climate(params: ClimateParams) -> Params {
        Params::Staged(StagedParams::Climate(params))
    }

    fn catastrophe(params: CatastropheParams) -> Params {
        Params::Staged(StagedParams::Catastrophe(params))
    }

    fn video(params: VideoParams) -> Params {
        Params::Staged(StagedParams::Video(params))
    }

    /// Those of a Monte Carlo job.
    pub fn monte_carlo(&self) -> Option<&MonteCarloParams> {
        match self {
            Params::MonteCarlo(params) => Some(params),
            Params::Gemm(_) | Params::Syrk(_) | Params::Staged(_) => None,
        }
    }

    /// Paths of a Monte Carlo job; zero for workloads that have none.
    pub fn paths(&self) -> u64 {
        self.monte_carlo().map_or(0, |params| params.paths)
    }
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
    /// The least is checked: at most one delivered shard in a thousand is wrong.
    #[default]
    Standard,
    /// Newcomers are looked at more closely: at most one in ten thousand.
    Strict,
    /// Every shard is computed twice.
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

/// The project of jobs that name none.
pub const DEFAULT_PROJECT: &str = "default";

/// Whether a project may be called this.
pub fn is_project(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= crate::limits::NAME_BYTES_MAX && name.chars().all(fits)
}

fn default_project() -> String {
    DEFAULT_PROJECT.to_owned()
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

    /// One field that is missing, or is wrong whatever it holds.
    pub fn of(field: &str, allowed: impl fmt::Display) -> SpecError {
        SpecError {
            fields: alloc::vec![FieldError {
                field: field.to_owned(),
                value: String::new(),
                allowed: allowed.to_string(),
            }],
        }
    }
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
        let bytes = canonical::to_vec(&spec).map_err(|error| SpecError::of("(document)", error))?;
        Ok(Manifest { spec, digest: Digest::of(&bytes) })
    }

    /// The same computation over another number of paths: exactly so many, whatever made it stop before.
    pub fn with_paths(&self, paths: u64) -> Result<Manifest, SpecError> {
        let mut spec = self.spec.clone();
        match &mut spec.params {
            Params::MonteCarlo(params) => {
                params.paths = paths;
                params.stop = None;
            }
            Params::Gemm(_) | Params::Syrk(_) | Params::Staged(_) => {
                let allowed = "only Monte Carlo jobs have paths and can be extended";
                return Err(SpecError::of("params.paths", allowed));
            }
        }
        spec.check()
    }
}

/// What must be known of a document before the rest can be read.
#[derive(Deserialize)]
struct Named {
    workload: Workload,
}

impl JobSpec {
    /// Reads JSON, naming the field that is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<JobSpec, SpecError> {
        let whole = |deserializer: &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>| {
            deserializer.end().map_err(|error| SpecError::of("(document)", error))
        };
        let begin = || serde_json::Deserializer::from_slice(bytes);
        let mut deserializer = begin();
        let Named { workload } = read(&mut deserializer)?;
        whole(&mut deserializer)?;
        match workload {
            Workload::MonteCarlo => read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::MonteCarlo)),
            Workload::Gemm => read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::Gemm)),
            Workload::Syrk => read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::Syrk)),
            Workload::ClimatePca => read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::climate)),
            Workload::Catastrophe => {
                read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::catastrophe))
            }
            Workload::Video => read(&mut begin()).map(|spec: JobSpec<_>| spec.with(Params::video)),
        }
    }

    /// Reads a JSON value, naming the field that is wrong.
    pub fn from_value(value: &serde_json::Value) -> Result<JobSpec, SpecError> {
        let Named { workload } = read(value)?;
        match workload {
            Workload::MonteCarlo => read(value).map(|spec: JobSpec<_>| spec.with(Params::MonteCarlo)),
            Workload::Gemm => read(value).map(|spec: JobSpec<_>| spec.with(Params::Gemm)),
            Workload::Syrk => read(value).map(|spec: JobSpec<_>| spec.with(Params::Syrk)),
            Workload::ClimatePca => read(value).map(|spec: JobSpec<_>| spec.with(Params::climate)),
            Workload::Catastrophe => read(value).map(|spec: JobSpec<_>| spec.with(Params::catastrophe)),
            Workload::Video => read(value).map(|spec: JobSpec<_>| spec.with(Params::video)),
        }
    }

    /// The kernel that its shards need, as agents offer it.
    pub fn kernel(&self) -> String {
        match &self.params {
            Params::Staged(StagedParams::Video(params)) => params.kernel(),
            _ => self.workload.kernel().to_owned(),
        }
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

impl<P> JobSpec<P> {
    fn with(self, params: impl FnOnce(P) -> Params) -> JobSpec {
        let JobSpec { name, project, workload, seed, inputs, verify, priority, limits, requirements, .. } =
            self;
        let params = params(self.params);
        JobSpec { name, project, workload, seed, params, inputs, verify, priority, limits, requirements }
    }
}

/// Reads any serde document, naming the field that is wrong.
/// Reads a document, naming the field that is wrong.
pub fn read<'de, T, D>(deserializer: D) -> Result<T, SpecError>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
    D::Error: fmt::Display,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "(document)" } else { path.as_str() };
        SpecError::of(field, in_words(&error.inner().to_string()))
    })
}

/// The parser's message with what people call a type.
fn in_words(message: &str) -> String {
    ["u64", "u32", "u16", "u8"]
        .iter()
        .fold(message.replace("expected f64", "expected a number"), |said, name| {
            said.replace(&format!("expected {name}"), "expected a whole number from 0 on")
        })
}
