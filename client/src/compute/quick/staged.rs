//! Quick looks at jobs that went through stages: their inputs and outputs fetched, their survey made again.
//!
//! Owns what is fetched and what a result document says. What is checked, kernels say.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use serde::Deserialize;
use tessera_kernels::isa::Isa;
use tessera_kernels::look::{Chooser, Look};
use tessera_kernels::staged;
use tessera_planners::{Next, Plan, StageError, next_stage};
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Output, ProductView};
use tessera_protocol::spec::{Manifest, Params, StagedParams};
use tessera_protocol::staged::Task;

use super::super::ComputeError;
use super::{catastrophe, climate, video};

/// Of a document that is none of its workload.
const DOCUMENT: &str = "result document";

/// Where a finished job's files come from. Each is as long as its name says and has its digest.
pub trait Finished {
    /// Copies an input file.
    fn input(&self, blake3: Digest, to: &mut dyn Write) -> Result<(), ComputeError>;

    /// Copies a file that the job gave.
    fn output(&self, output: &Output, to: &mut dyn Write) -> Result<(), ComputeError>;
}

/// Looks at a finished job of stages. The key must be one that nobody could know who computed it. Nothing for jobs
/// without stages.
pub fn look_at_stages(
    manifest: &Manifest,
    document: &[u8],
    files: &dyn Finished,
    isa: Isa,
    key: [u32; 2],
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<Look>, ComputeError> {
    let Params::Staged(params) = &manifest.spec().params else { return Ok(None) };
    let desk = Desk { manifest, document, files, isa, chooser: Chooser::new(key), cancelled };
    let look = match params {
        StagedParams::Climate(params) => climate::look(&desk, params),
        StagedParams::Catastrophe(params) => catastrophe::look(&desk, params),
        StagedParams::Video(_) => video::look(&desk),
    };
    look.map(Some)
}

/// All that a look needs.
pub(super) struct Desk<'a> {
    pub(super) manifest: &'a Manifest,
    document: &'a [u8],
    pub(super) files: &'a dyn Finished,
    pub(super) isa: Isa,
    pub(super) chooser: Chooser,
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

#[derive(Deserialize)]
struct Outputs {
    outputs: Vec<Output>,
}

impl<'a> Desk<'a> {
    /// The document with its outputs, or a look that says what is wrong with it.
    pub(super) fn document<T: Deserialize<'a>>(&self) -> Result<(T, Vec<Output>), Look> {
        let read = |error: serde_json::Error| {
            let mut look = Look::default();
            look.check(DOCUMENT, false, error, "one of this workload");
            look
        };
        let Outputs { outputs } = serde_json::from_slice(self.document).map_err(read)?;
        Ok((serde_json::from_slice(self.document).map_err(read)?, outputs))
    }

    /// The outputs in memory, by their names; workloads that use it have small ones.
    pub(super) fn outputs(&self, outputs: &[Output]) -> Result<BTreeMap<String, Bytes>, ComputeError> {
        let fetch = |output: &Output| {
            let mut bytes = Vec::new();
            self.files.output(output, &mut bytes)?;
            Ok((output.name.clone(), bytes.into()))
        };
        outputs.iter().map(fetch).collect()
    }

    /// The plan of the first stage.
    pub(super) fn plan(&self) -> Result<Plan, ComputeError> {
        Plan::new(self.manifest, 0).map_err(ComputeError::Plan)
    }

    /// The files that a plan reads, in memory.
    pub(super) fn inputs(&self, plan: &Plan) -> Result<BTreeMap<Digest, Bytes>, ComputeError> {
        let fetch = |(blake3, _): (Digest, u64)| {
            let mut bytes = Vec::new();
            self.files.input(blake3, &mut bytes)?;
            Ok((blake3, bytes.into()))
        };
        plan.inputs().into_iter().map(fetch).collect()
    }

    /// The task after a survey that is computed here; its product is added to the files. In words, what the survey
    /// found wrong.
    pub(super) fn after_survey(
        &self,
        plan: &Plan,
        files: &mut BTreeMap<Digest, Bytes>,
    ) -> Result<Result<Task, String>, ComputeError> {
        let task = Task::decode(plan.kernel(), plan.task()).ok_or(ComputeError::Task)?;
        let find = |blake3: &[u8; 32]| files.get(&Digest(*blake3)).cloned();
        let bytes = staged::run(&task, (0, 1), &find, self.isa, self.cancelled).map_err(stopped)?;
        files.insert(Digest::of(&bytes), bytes.clone().into());
        planned(self.manifest, plan, &bytes)
    }
}

/// The task that follows a survey's product, or what the survey found wrong.
pub(super) fn planned(
    manifest: &Manifest,
    plan: &Plan,
    product: &[u8],
) -> Result<Result<Task, String>, ComputeError> {
    let view = ProductView::decode(product).map_err(|_| ComputeError::Task)?;
    match next_stage(manifest, plan, vec![view.reference(Digest::of(product))]) {
        Ok(Next::Round(next)) => Task::decode(next.kernel(), next.task()).map(Ok).ok_or(ComputeError::Task),
        Ok(Next::Finished(_)) => Err(ComputeError::Task),
        Err(StageError::Input(what)) => Ok(Err(what)),
        Err(error) => Err(ComputeError::StageFailed(error)),
    }
}

/// What a kernel's end is called here.
pub(super) fn stopped(error: impl Into<staged::StageError>) -> ComputeError {
    match error.into() {
        staged::StageError::Cancelled => ComputeError::Interrupted,
        error => ComputeError::Stage(error),
    }
}
