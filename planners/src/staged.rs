//! Staged jobs: jobs that look into their data before they are cut, and whose reductions are work for
//! agents.
//!
//! Owns the sequence of stages and what a workload's planner says of each. A stage depends on the products
//! of the complete stages before it and on nothing else, so that it can be planned again after a restart.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::product::{ProductRef, ProductView};
use tessera_protocol::spec::{JobSpec, Params, StagedParams};

/// What comes after some complete stages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Another stage.
    Stage(Stage),
    /// Nothing: this is the result document, canonical JSON.
    Finished(Vec<u8>),
}

/// A task and units of work cut into shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// What people call it: `survey`, `finish`.
    pub(crate) name: &'static str,
    /// What every agent needs to run any shard of it.
    pub(crate) task: Vec<u8>,
    /// The job's inputs and earlier products that the task reads, in the order in which it numbers them.
    pub(crate) inputs: Vec<(Digest, u64)>,
    /// How many units, at least one.
    pub(crate) units: u64,
    /// Units to a shard; the last may hold fewer. Never changes a result.
    pub(crate) shard_units: u64,
    /// *Units*: compute units to a unit.
    pub(crate) unit_cost: u64,
}

/// Why a job cannot go on after its stages so far, in words for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageError {
    /// What an agent found in the job's inputs.
    Input(String),
    /// A head that its own kernel did not write; a bug of ours, or a lie that nobody checked.
    Head {
        /// Of which stage.
        stage: usize,
    },
    /// More shards, or shards that cost more, than limits allow.
    Size(String),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::Input(found) => f.write_str(found),
            StageError::Head { stage } => {
                write!(
                    f,
                    "the results of stage {stage} do not read as its kernel writes them: submit the job again"
                )
            }
            StageError::Size(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for StageError {}

/// The stage that follows `done`, or the end.
pub(crate) fn step(
    spec: &JobSpec,
    params: &StagedParams,
    done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    let step = match params {
        StagedParams::Climate(params) => crate::climate::step(spec, params, done),
        StagedParams::Catastrophe(params) => crate::catastrophe::step(spec, params, done),
        StagedParams::Video(params) => crate::video::step(spec, params, done),
    }?;
    if let Step::Stage(stage) = &step {
        stage.check(done.len())?;
    }
    Ok(step)
}

/// Whether a product can be one of so many units of a stage; what a planner cannot tell, it lets pass.
pub(crate) fn fits(spec: &JobSpec, stage: &str, units: u64, product: &ProductView<'_>) -> bool {
    match &spec.params {
        Params::Staged(StagedParams::Catastrophe(_)) => crate::catastrophe::fits(stage, units, product),
        _ => true,
    }
}

impl Stage {
    fn check(&self, before: usize) -> Result<(), StageError> {
        let (units, shard) = (self.units, self.shard_units);
        let shards = if shard == 0 { 0 } else { units.div_ceil(shard) };
        if !(1..=limits::STAGE_SHARDS_MAX).contains(&shards) {
            let most = limits::STAGE_SHARDS_MAX;
            let what = alloc::format!(
                "its {} stage would be {shards} shards: at most {most} are allowed",
                self.name
            );
            return Err(StageError::Size(what));
        }
        let dear = units.checked_mul(self.unit_cost).is_none_or(|cost| cost > limits::SEED_MAX);
        if self.task.len() > limits::STAGE_TASK_BYTES_MAX {
            let (bytes, most) = (self.task.len(), limits::STAGE_TASK_BYTES_MAX);
            let what = alloc::format!(
                "the task of its {} stage would have {bytes} bytes, more than {most}: give it fewer files or larger shards",
                self.name
            );
            return Err(StageError::Size(what));
        }
        if dear || before >= limits::STAGES_MAX {
            return Err(StageError::Size("it costs more compute units than any job may".to_string()));
        }
        Ok(())
    }
}
