//! A quick look at a catastrophe job: its result document and tables.

use serde::Deserialize;
use tessera_kernels::catastrophe::look::{self, Given};
use tessera_kernels::look::Look;
use tessera_protocol::catastrophe::{Bounded, Largest, ReturnPeriod, Summary, Survey, Task as Stage};
use tessera_protocol::id::Digest;
use tessera_protocol::spec::CatastropheParams;
use tessera_protocol::staged::Task;

use super::super::ComputeError;
use super::staged::{Desk, Exact, stopped};

#[derive(Deserialize)]
struct Document {
    inputs: Inputs,
    events: u64,
    events_with_loss: u64,
    average_annual_loss: Exact,
    standard_deviation: Exact,
    average_annual_ground_up: Exact,
    years: u32,
    simulated_average: Exact,
    simulated_standard_error: Exact,
    largest: Option<Event>,
    return_periods: Vec<Row>,
}

#[derive(Deserialize)]
struct Inputs {
    storms: u32,
    storms_in_reach: u32,
    years: [i32; 2],
    annual_rate: Exact,
    points: u32,
    classes: u32,
    value: Exact,
    bounds: [Exact; 4],
}

#[derive(Deserialize)]
struct Event {
    storm: String,
    name: String,
    sample: u32,
    loss: Exact,
    wind_ms: Exact,
}

#[derive(Deserialize)]
struct Row {
    return_period_years: Exact,
    occurrence_loss: Exact,
    occurrence_low: Exact,
    occurrence_high: Option<Exact>,
    occurrence_exact: Exact,
    aggregate_loss: Exact,
    aggregate_low: Exact,
    aggregate_high: Option<Exact>,
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
            annual_rate: annual_rate.0,
            points,
            classes,
            value: value.0,
            bounds: bounds.map(|bound| bound.0),
            event_cost: 0,
        };
        let period = |row: &Row| ReturnPeriod {
            years: row.return_period_years.0,
            occurrence: Bounded {
                loss: row.occurrence_loss.0,
                low: row.occurrence_low.0,
                high: row.occurrence_high.map(|high| high.0),
            },
            occurrence_exact: row.occurrence_exact.0,
            aggregate: Bounded {
                loss: row.aggregate_loss.0,
                low: row.aggregate_low.0,
                high: row.aggregate_high.map(|high| high.0),
            },
        };
        let summary = Summary {
            events: self.events,
            events_with_loss: self.events_with_loss,
            average_annual_loss: self.average_annual_loss.0,
            standard_deviation: self.standard_deviation.0,
            average_annual_ground_up: self.average_annual_ground_up.0,
            years: self.years,
            simulated_average: self.simulated_average.0,
            simulated_standard_error: self.simulated_standard_error.0,
            largest: self.largest.map(|Event { storm, name, sample, loss, wind_ms }| Largest {
                storm,
                name,
                sample,
                loss: loss.0,
                wind_ms: wind_ms.0,
            }),
            return_periods: self.return_periods.iter().map(period).collect(),
        };
        (survey, summary)
    }
}
