//! Planning the catastrophe workload: survey, losses, finish.
//!
//! Owns the stages' tasks and the result document. What is in a file it knows from the survey alone.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::catastrophe::{
    DecayOf, FileName, Finish, FinishHead, LOSS_BYTES, LOSSES, Model, Perturbation, Summary, Survey,
    SurveyHead, Task, Tracks, Vulnerability, Wind,
};
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::product::{Output, ProductRef, ProductView};
use tessera_protocol::spec::{CatastropheParams, JobSpec};

use crate::monte_carlo::philox_key;
use crate::staged::{Stage, StageError, Step};

/// What a shard of losses should cost: about a second of one core, for it reads the job's files first. *Units*:
/// compute units.
const SHARD_COST: u64 = 1 << 26;
/// A job of fewer shards than this would leave agents idle at its end.
const SHARDS_WANTED: u64 = 64;
/// What reading the files costs. *Units*: compute units to a byte.
const READ_COST_PER_BYTE: u64 = 2;
/// What drawing one storm of one year costs, and sorting the year. *Units*: compute units.
const DRAW_COST: u64 = 8;

/// Files that the result gives its client, with their media types. A footprint is there if any event has a loss.
const OUTPUTS: [(&str, &str); 7] = [
    ("event_losses.csv", "text/csv"),
    ("event_losses.parquet", "application/vnd.apache.parquet"),
    ("exceedance.csv", "text/csv"),
    ("exceedance.parquet", "application/vnd.apache.parquet"),
    ("return_periods.csv", "text/csv"),
    ("exceedance.svg", "image/svg+xml"),
    ("footprint.svg", "image/svg+xml"),
];

pub(crate) fn step(
    spec: &JobSpec,
    params: &CatastropheParams,
    done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    let model = model(spec, params)
        .ok_or_else(|| StageError::Input("a file that the parameters name is no input".to_string()))?;
    let reading = model_bytes(&model) * READ_COST_PER_BYTE;
    let [surveyed, rest @ ..] = done else {
        return Ok(Step::Stage(stage("survey", &Task::Survey(model), 1, reading.max(1))));
    };
    let survey = match surveyed.first().and_then(|product| SurveyHead::decode(&product.head)) {
        Some(SurveyHead::Found(survey)) => survey,
        Some(SurveyHead::Fault(fault)) => return Err(StageError::Input(fault)),
        None => return Err(StageError::Head { stage: 0 }),
    };
    let storms = survey.storms;
    let [losses, rest @ ..] = rest else {
        let task = Task::Losses { model, storms };
        let size = params.shard_size.unwrap_or_else(|| shard_size(task.events(), survey.event_cost));
        return Ok(Step::Stage(stage("losses", &task, size, survey.event_cost.max(1))));
    };
    let [finished, ..] = rest else {
        let parts = losses.iter().map(|product| FileName { blake3: product.blake3.0, bytes: product.bytes });
        let task = Task::Finish(Finish {
            model,
            storms,
            parts: parts.collect(),
            years: params.years,
            return_periods: params.return_periods.clone(),
        });
        // Storms a year are few, or the last stage refuses them.
        let draws = (u64::from(params.years) as f64 * (1.0 + survey.annual_rate.min(1e3))) as u64;
        return Ok(Step::Stage(stage("finish", &task, 1, reading + draws * DRAW_COST)));
    };
    match finished.first().map(|product| (product, FinishHead::decode(&product.head))) {
        Some((product, Some(FinishHead::Found(summary)))) => result(&survey, &summary, product),
        Some((_, Some(FinishHead::Fault(fault)))) => Err(StageError::Input(fault)),
        _ => Err(StageError::Head { stage: 2 }),
    }
}

/// Whether a product has the losses of so many events: numbers that are finite and not below zero.
pub(crate) fn fits(stage: &str, events: u64, product: &ProductView<'_>) -> bool {
    if stage != "losses" {
        return true;
    }
    let Some(losses) = product.file(LOSSES) else { return false };
    let (rows, rest) = losses.as_chunks::<LOSS_BYTES>();
    let is_loss = |row: &[u8; LOSS_BYTES]| {
        let [gross, ground_up, wind, _points] = *row.as_chunks::<8>().0 else { return false };
        [gross, ground_up, wind]
            .map(f64::from_le_bytes)
            .iter()
            .all(|number| number.is_finite() && *number >= 0.0)
    };
    rest.is_empty() && rows.len() as u64 == events && rows.iter().all(is_loss)
}

fn stage(name: &'static str, task: &Task, shard_units: u64, unit_cost: u64) -> Stage {
    let inputs = task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect();
    Stage { name, task: task.encode(), inputs, units: task.units(), shard_units, unit_cost }
}

/// Events to a shard where the client named none.
fn shard_size(events: u64, event_cost: u64) -> u64 {
    let by_cost = SHARD_COST / event_cost.max(1);
    let by_count = events.div_ceil(SHARDS_WANTED);
    by_cost.min(by_count).max(events.div_ceil(limits::STAGE_SHARDS_MAX)).max(1)
}

fn model(spec: &JobSpec, params: &CatastropheParams) -> Option<Model> {
    let file = |name: &str| {
        let input = spec.inputs.iter().find(|input| input.name == name)?;
        Some(FileName { blake3: input.blake3.0, bytes: input.bytes })
    };
    let vulnerability = match &params.curves {
        Some(name) => Vulnerability::Curves(file(name)?),
        None => {
            Vulnerability::Emanuel { threshold: params.emanuel.threshold_ms, half: params.emanuel.half_ms }
        }
    };
    let mask = match &params.land.mask {
        Some(name) => Some(file(name)?),
        None => None,
    };
    let spread = &params.perturbation;
    Some(Model {
        key: philox_key(spec.seed),
        samples: params.samples,
        tracks: Tracks::of(&params.tracks, file(&params.tracks.input)?),
        exposure: file(&params.exposure)?,
        vulnerability,
        perturbation: Perturbation {
            position_km: spread.position_km,
            intensity: spread.intensity,
            radius: spread.radius,
        },
        wind: Wind::of(&params.wind),
        decay: DecayOf::from(params.land.decay),
        mask,
    })
}

fn model_bytes(model: &Model) -> u64 {
    Task::Survey(model.clone()).inputs().iter().map(|(_, bytes)| bytes).sum()
}

#[derive(Serialize)]
struct CatastropheResult<'a> {
    workload: &'static str,
    inputs: &'a Survey,
    #[serde(flatten)]
    summary: &'a Summary,
    outputs: Vec<Output>,
}

fn result(survey: &Survey, summary: &Summary, product: &ProductRef) -> Result<Step, StageError> {
    let outputs = OUTPUTS.iter().filter_map(|(name, media_type)| product.output(name, media_type)).collect();
    let result = CatastropheResult { workload: "catastrophe", inputs: survey, summary, outputs };
    canonical::to_vec(&result).map(Step::Finished).map_err(|_| StageError::Head { stage: 2 })
}
