//! A quick look at a catastrophe job: its result document and tables.

use serde::Deserialize;
use tessera_kernels::catastrophe::look::{self, Given};
use tessera_kernels::look::Look;
use tessera_protocol::catastrophe::{Summary, Survey, Task as Stage};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::CatastropheParams;
use tessera_protocol::staged::Task;

use super::super::ComputeError;
use super::staged::{Desk, stopped};

#[derive(Deserialize)]
struct Document {
    inputs: Survey,
    #[serde(flatten)]
    summary: Summary,
}

pub(super) fn look(desk: &Desk<'_>, params: &CatastropheParams) -> Result<Look, ComputeError> {
    let (Document { inputs, summary }, outputs) = match desk.document() {
        Ok(read) => read,
        Err(look) => return Ok(look),
    };
    let plan = desk.plan()?;
    let Some(Task::Catastrophe(Stage::Survey(model))) = Task::decode(plan.kernel(), plan.task()) else {
        return Err(ComputeError::Task);
    };
    let files = desk.inputs(&plan)?;
    let outputs = desk.outputs(&outputs)?;
    let given = Given {
        model: &model,
        years: params.years,
        return_periods: &params.return_periods,
        inputs: &inputs,
        summary: &summary,
        outputs: &|name| outputs.get(name).cloned(),
    };
    let find = |blake3: &[u8; 32]| files.get(&Digest(*blake3)).cloned();
    look::look(&given, &find, desk.isa, &desk.chooser, desk.cancelled).map_err(stopped)
}
