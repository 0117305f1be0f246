//! A quick look at a catastrophe job: its result document and tables.

use serde::Deserialize;
use tessera_kernels::catastrophe::look::{self, Given};
use tessera_kernels::look::Look;
use tessera_protocol::catastrophe::{Bounded, Largest, ReturnPeriod, Summary, Survey, Task as Stage};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::CatastropheParams;
use tessera_protocol::staged::Task;

use super::super::ComputeError;
use super::staged::{Desk, stopped};

#[derive(Deserialize)]
struct Document {
    inputs: Inputs,
    events: u64,
    events_with_loss: u64,
    average_annual_loss: f64,
    standard_deviation: f64,
    average_annual_ground_up: f64,
    years: u32,
    simulated_average: f64,
    simulated_standard_error: f64,
    largest: Option<Event>,
    return_periods: Vec<Row>,
}

#[derive(Deserialize)]
struct Inputs {
    storms: u32,
    storms_in_reach: u32,
    years: [i32; 2],
    annual_rate: f64,
    points: u32,
    classes: u32,
    value: f64,
    bounds: [f64; 4],
}

#[derive(Deserialize)]
struct Event {
    storm: String,
    name: String,
    sample: u32,
    loss: f64,
    wind_ms: f64,
}

#[derive(Deserialize)]
struct Row {
    return_period_years: f64,
    occurrence_loss: f64,
    occurrence_low: f64,
    occurrence_high: Option<f64>,
    occurrence_exact: f64,
    aggregate_loss: f64,
    aggregate_low: f64,
    aggregate_high: Option<f64>,
}

pub(super) fn look(desk: &Desk<'_>, params: &CatastropheParams) -> Result<Look, ComputeError> {
    let (document, outputs): (Document, _) = match desk.document() {
        Ok(read) => read,
        Err(look) => return Ok(look),
    };
    let plan = desk.plan()?;
    let Some(Task::Catastrophe(Stage::Survey(model))) = Task::decode(plan.kernel(), plan.task()) else {
        return Err(ComputeError::Task);
    };
    let files = desk.inputs(&plan)?;
    let outputs = desk.outputs(&outputs)?;
    let (inputs, summary) = document.into_heads();
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

impl Document {
    /// What the first and the last stage said.
    fn into_heads(self) -> (Survey, Summary) {
        let Inputs { storms, storms_in_reach, years, annual_rate, points, classes, value, bounds } =
            self.inputs;
        // What an event costs is not in the document.
        let survey = Survey {
            storms,
            storms_in_reach,
            years,
            annual_rate,
            points,
            classes,
            value,
            bounds,
            event_cost: 0,
        };
        let period = |row: &Row| ReturnPeriod {
            years: row.return_period_years,
            occurrence: Bounded {
                loss: row.occurrence_loss,
                low: row.occurrence_low,
                high: row.occurrence_high,
            },
            occurrence_exact: row.occurrence_exact,
            aggregate: Bounded { loss: row.aggregate_loss, low: row.aggregate_low, high: row.aggregate_high },
        };
        let summary = Summary {
            events: self.events,
            events_with_loss: self.events_with_loss,
            average_annual_loss: self.average_annual_loss,
            standard_deviation: self.standard_deviation,
            average_annual_ground_up: self.average_annual_ground_up,
            years: self.years,
            simulated_average: self.simulated_average,
            simulated_standard_error: self.simulated_standard_error,
            largest: self.largest.map(|Event { storm, name, sample, loss, wind_ms }| Largest {
                storm,
                name,
                sample,
                loss,
                wind_ms,
            }),
            return_periods: self.return_periods.iter().map(period).collect(),
        };
        (survey, summary)
    }
}
