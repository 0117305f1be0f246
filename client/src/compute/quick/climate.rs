//! A quick look at a climate analysis: its result document and files.

use serde::Deserialize;
use tessera_kernels::climate::look::{self, Given, Stated};
use tessera_kernels::look::Look;
use tessera_protocol::climate::{Scaling, Task as Stage};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::ClimateParams;
use tessera_protocol::staged::Task;

use super::super::ComputeError;
use super::staged::{Desk, stopped};

/// Of a field that no survey passes.
const SURVEY: &str = "survey of the field";

#[derive(Deserialize)]
struct Document {
    total_variance: f64,
    modes: Vec<Mode>,
    orthonormality_error: f64,
}

#[derive(Deserialize)]
struct Mode {
    eigenvalue: f64,
    variance_fraction: f64,
    north_error: f64,
    near_degenerate: bool,
}

pub(super) fn look(desk: &Desk<'_>, params: &ClimateParams) -> Result<Look, ComputeError> {
    let (document, outputs): (Document, _) = match desk.document() {
        Ok(read) => read,
        Err(look) => return Ok(look),
    };
    let plan = desk.plan()?;
    let mut files = desk.inputs(&plan)?;
    let task = match desk.after_survey(&plan, &mut files)? {
        Ok(Task::Climate(Stage::Cells(task))) => task,
        Ok(_) => return Err(ComputeError::Task),
        Err(what) => {
            let mut look = Look::default();
            look.check(SURVEY, false, "a result", what);
            return Ok(look);
        }
    };
    let numbers = |of: fn(&Mode) -> f64| document.modes.iter().map(of).collect();
    let stated = Stated {
        total_variance: document.total_variance,
        eigenvalues: numbers(|mode| mode.eigenvalue),
        variance_fractions: numbers(|mode| mode.variance_fraction),
        north_errors: numbers(|mode| mode.north_error),
        near_degenerate: document.modes.iter().map(|mode| mode.near_degenerate).collect(),
        orthonormality_error: document.orthonormality_error,
    };
    let given = Given {
        task: &task,
        modes: params.modes,
        scalings: &params.scalings.iter().copied().map(Scaling::from).collect::<Vec<_>>(),
        reconstruct: &params.reconstruct,
        projects: !params.project.is_empty(),
        stated: &stated,
        outputs: &desk.outputs(&outputs)?,
    };
    let find = |blake3: &[u8; 32]| files.get(&Digest(*blake3)).cloned();
    look::look(&given, &find, &desk.chooser, desk.cancelled).map_err(stopped)
}
