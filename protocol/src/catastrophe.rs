//! The catastrophe task: what an agent needs to run any shard of any of its stages.
//!
//! Owns the stages' tasks, their encoding, and the heads that planners read. A planner makes a task from a checked
//! specification. Computes nothing.
//!
//! Events are numbered storm by storm in the order of the file: event `storm · samples + sample`.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;
use crate::spec::{Averaging, Decay, HollandB, TrackFormat};

/// Most events of one job: its tables then fit one product.
pub const EVENTS_MAX: u64 = 200_000;
/// Most years drawn for the curves. Their losses are sorted in memory.
pub const YEARS_MAX: u32 = 1_000_000;
/// Most return periods that a result names.
pub const RETURN_PERIODS_MAX: usize = 64;
/// Most storms chosen by their ids.
pub const STORMS_NAMED_MAX: usize = 4_096;
/// Longest input file. *Units*: bytes. HURDAT2 is 7 MB; a million risks are about 60 MB.
pub const FILE_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one event in a product of losses: gross, ground-up, largest wind, points hit.
pub const LOSS_BYTES: usize = 32;
/// The name of the file of losses in its product.
pub const LOSSES: &str = "losses";

/// One stage of a job.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Task {
    /// One unit: everything is read and checked.
    Survey(Model),
    /// A unit is an event.
    Losses {
        /// What is computed.
        model: Model,
        /// Storms that the survey found.
        storms: u32,
    },
    /// One unit: tables, curves and pictures.
    Finish(Finish),
}

/// The last stage's task.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Finish {
    /// What is computed.
    pub model: Model,
    /// Storms that the survey found.
    pub storms: u32,
    /// The products of the losses, in the order of their events.
    pub parts: Vec<FileName>,
    /// Years drawn.
    pub years: u32,
    /// *Order*: ascending. *Units*: years.
    pub return_periods: Vec<f64>,
}

/// A file or product by its digest.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    /// BLAKE3 of its bytes.
    pub blake3: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// From files to the losses of events.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Model {
    /// Philox4x32-10 key, derived from the job's seed.
    pub key: [u32; 2],
    /// Tracks made of each storm.
    pub samples: u32,
    /// The storms.
    pub tracks: Tracks,
    /// The portfolio.
    pub exposure: FileName,
    /// Damage by wind.
    pub vulnerability: Vulnerability,
    /// How samples differ.
    pub perturbation: Perturbation,
    /// The wind field.
    pub wind: Wind,
    /// Which tracks decay over land.
    pub decay: DecayOf,
    /// Where land is; the shipped outline when absent.
    pub mask: Option<FileName>,
}

/// Where storms come from.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Tracks {
    /// The file.
    pub file: FileName,
    /// Whether it is a CSV; else it is HURDAT2.
    pub csv: bool,
    /// First and last year taken.
    pub years: Option<[i32; 2]>,
    /// Ids taken; all when empty.
    pub storms: Vec<String>,
    /// Rate of every storm. *Units*: a year.
    pub annual_rate: Option<f64>,
    /// Where the file gives no pressure around a storm. *Units*: hPa.
    pub environment_hpa: f64,
    /// Multiplies the file's winds.
    pub to_one_minute: f64,
}

/// Damage by wind.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub enum Vulnerability {
    /// One function for every class. *Units*: m/s.
    Emanuel {
        /// Nothing breaks below.
        threshold: f64,
        /// Half is lost.
        half: f64,
    },
    /// A file of curves by class.
    Curves(FileName),
}

/// Standard deviations.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Perturbation {
    /// *Units*: km.
    pub position_km: f64,
    /// Of the logarithm of the winds' factor.
    pub intensity: f64,
    /// Of the logarithm of the radii's factor.
    pub radius: f64,
}

/// The wind field.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Wind {
    /// Whether B is Holland's of 2008; else it is of 1980.
    pub holland_2008: bool,
    /// Whether the storm's motion is added.
    pub asymmetry: bool,
    /// *Units*: km.
    pub reach_km: f64,
    /// *Units*: m/s.
    pub least: f64,
    /// *Units*: minutes.
    pub step_minutes: f64,
    /// From one-minute mean to what damage takes.
    pub gust_factor: f64,
    /// Wind at 10 m to wind of the gradient level.
    pub gradient_to_surface: f64,
    /// *Units*: kg/m³.
    pub air_density: f64,
}

/// Which tracks decay over land.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecayOf {
    /// None.
    None,
    /// Perturbed ones.
    Perturbed,
    /// All.
    All,
}

impl From<Decay> for DecayOf {
    fn from(decay: Decay) -> DecayOf {
        match decay {
            Decay::Off => DecayOf::None,
            Decay::Perturbed => DecayOf::Perturbed,
            Decay::All => DecayOf::All,
        }
    }
}

impl Wind {
    /// Of a specification.
    pub fn of(spec: &crate::spec::WindSpec) -> Wind {
        Wind {
            holland_2008: spec.holland_b == HollandB::Holland2008,
            asymmetry: spec.asymmetry,
            reach_km: spec.reach_km,
            least: spec.least_ms,
            step_minutes: spec.step_minutes,
            gust_factor: spec.gust_factor,
            gradient_to_surface: spec.gradient_to_surface,
            air_density: spec.air_density,
        }
    }
}

impl Tracks {
    /// Of a specification and the file that it names.
    pub fn of(spec: &crate::spec::TracksSpec, file: FileName) -> Tracks {
        let to_one_minute = match spec.averaging {
            Averaging::OneMinute => 1.0,
            Averaging::TenMinutes => 1.0 / spec.ten_to_one_minute,
        };
        Tracks {
            file,
            csv: spec.format == TrackFormat::Csv,
            years: spec.years,
            storms: spec.storms.clone(),
            annual_rate: spec.annual_rate,
            environment_hpa: spec.environment_hpa,
            to_one_minute,
        }
    }
}

/// Why bytes are not a catastrophe task that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Not an archive of this version.
    Malformed,
    /// A number of storms, samples, years or parts outside the limits.
    Size,
    /// A number outside its range.
    Number,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskError::Malformed => "the task is not a valid archive of this version",
            TaskError::Size => "the task has more events, years or parts than the limits allow, or none",
            TaskError::Number => "a number of the task lies outside its range",
        })
    }
}

impl core::error::Error for TaskError {}

impl Model {
    fn check(&self) -> Result<(), TaskError> {
        let inside = |value: f64, least: f64, most: f64| (least..=most).contains(&value);
        let (wind, tracks, spread) = (&self.wind, &self.tracks, &self.perturbation);
        let vulnerability = match self.vulnerability {
            Vulnerability::Emanuel { threshold, half } => inside(threshold, 0.0, 200.0) && half > threshold,
            Vulnerability::Curves(_) => true,
        };
        let right = vulnerability
            && inside(wind.reach_km, 1.0, 1000.0)
            && inside(wind.least, 0.0, 200.0)
            && inside(wind.step_minutes, 1.0, 1440.0)
            && inside(wind.gust_factor, 0.5, 3.0)
            && inside(wind.gradient_to_surface, 0.1, 1.0)
            && inside(wind.air_density, 0.5, 2.0)
            && inside(tracks.environment_hpa, 900.0, 1100.0)
            && inside(tracks.to_one_minute, 1.0, 2.0)
            && tracks.annual_rate.is_none_or(|rate| rate > 0.0 && rate <= 100.0)
            && inside(spread.position_km, 0.0, 1000.0)
            && inside(spread.intensity, 0.0, 1.0)
            && inside(spread.radius, 0.0, 1.0);
        if !(1..=EVENTS_MAX).contains(&self.samples.into()) {
            return Err(TaskError::Size);
        }
        if right { Ok(()) } else { Err(TaskError::Number) }
    }

    fn inputs(&self) -> Vec<([u8; 32], u64)> {
        let curves = match self.vulnerability {
            Vulnerability::Curves(file) => Some(file),
            Vulnerability::Emanuel { .. } => None,
        };
        let files = [Some(self.tracks.file), Some(self.exposure), curves, self.mask];
        let mut all = Vec::new();
        for file in files.into_iter().flatten() {
            if !all.contains(&(file.blake3, file.bytes)) {
                all.push((file.blake3, file.bytes));
            }
        }
        all
    }
}

impl Task {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back keeps every limit.
    pub fn decode(bytes: &[u8]) -> Result<Task, TaskError> {
        let task =
            rkyv::from_bytes::<Task, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        task.check()?;
        Ok(task)
    }

    /// Whether it keeps every limit.
    pub fn check(&self) -> Result<(), TaskError> {
        self.model().check()?;
        let events = self.events();
        let right = match self {
            Task::Survey(_) => true,
            Task::Losses { .. } => (1..=EVENTS_MAX).contains(&events),
            Task::Finish(finish) => {
                (1..=EVENTS_MAX).contains(&events)
                    && (1..=limits::STAGE_SHARDS_MAX).contains(&(finish.parts.len() as u64))
                    && (1..=YEARS_MAX).contains(&finish.years)
                    && (1..=RETURN_PERIODS_MAX).contains(&finish.return_periods.len())
                    && finish
                        .return_periods
                        .iter()
                        .all(|period| *period > 1.0 && *period <= finish.years.into())
            }
        };
        if right { Ok(()) } else { Err(TaskError::Size) }
    }

    /// What is computed, the same for every stage of a job.
    pub fn model(&self) -> &Model {
        match self {
            Task::Survey(model) | Task::Losses { model, .. } => model,
            Task::Finish(finish) => &finish.model,
        }
    }

    /// Events of the job; none before its survey.
    pub fn events(&self) -> u64 {
        let storms = match self {
            Task::Survey(_) => 0,
            Task::Losses { storms, .. } => *storms,
            Task::Finish(finish) => finish.storms,
        };
        u64::from(storms) * u64::from(self.model().samples)
    }

    /// Units that it can be cut into.
    pub fn units(&self) -> u64 {
        match self {
            Task::Losses { .. } => self.events(),
            Task::Survey(_) | Task::Finish(_) => 1,
        }
    }

    /// The inputs and products it reads, each once, inputs first.
    pub fn inputs(&self) -> Vec<([u8; 32], u64)> {
        let mut all = self.model().inputs();
        if let Task::Finish(finish) = self {
            // Products of different events are equal when nothing is hit by any of them.
            let mut parts: Vec<_> = finish.parts.iter().map(|part| (part.blake3, part.bytes)).collect();
            parts.sort_unstable();
            parts.dedup();
            all.extend(parts);
        }
        all
    }
}

/// The head of the survey's product.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum SurveyHead {
    /// What is wrong with the inputs, in words for the client.
    Fault(String),
    /// What is in them.
    Found(Survey),
}

/// What is in a job's inputs.
#[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
pub struct Survey {
    /// Storms taken.
    pub storms: u32,
    /// Of them, those that come within reach of the portfolio.
    pub storms_in_reach: u32,
    /// First and last year of the catalogue.
    pub years: [i32; 2],
    /// Storms a year, all together.
    pub annual_rate: f64,
    /// Rows of the portfolio.
    pub points: u32,
    /// Construction classes.
    pub classes: u32,
    /// Sum of the values. *Units*: the portfolio's currency.
    pub value: f64,
    /// South, north, west, east. *Units*: degrees.
    pub bounds: [f64; 4],
    /// What one event costs, in the mean. *Units*: compute units.
    #[serde(skip)]
    pub event_cost: u64,
}

/// The head of the last product.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum FinishHead {
    /// What cannot be computed from the inputs, in words for the client.
    Fault(String),
    /// The results.
    Found(Summary),
}

/// What a job found.
#[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
pub struct Summary {
    /// Storms times samples.
    pub events: u64,
    /// Those with a loss.
    pub events_with_loss: u64,
    /// The mean loss of a year: rates times losses. *Units*: the portfolio's currency, as all losses.
    pub average_annual_loss: f64,
    /// Standard deviation of the loss of a year, by the compound Poisson law.
    pub standard_deviation: f64,
    /// As the first, before deductibles and limits.
    pub average_annual_ground_up: f64,
    /// Years drawn.
    pub years: u32,
    /// Mean of the years drawn.
    pub simulated_average: f64,
    /// Of that mean.
    pub simulated_standard_error: f64,
    /// The largest event; nothing where none has a loss.
    pub largest: Option<Largest>,
    /// In the order of the job's list.
    pub return_periods: Vec<ReturnPeriod>,
}

/// The event with the largest loss, the first of equals.
#[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
pub struct Largest {
    /// Id in the file of tracks.
    pub storm: String,
    /// Its name there.
    pub name: String,
    /// Zero for the recorded track.
    pub sample: u32,
    /// Its loss.
    pub loss: f64,
    /// Largest wind at any point of the portfolio. *Units*: m/s.
    pub wind_ms: f64,
}

/// Losses that are exceeded once in so many years, in the mean. In a result document it is a row of
/// `return_periods.csv`.
#[derive(Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
#[serde(from = "ReturnPeriodRow", into = "ReturnPeriodRow")]
pub struct ReturnPeriod {
    /// *Units*: years.
    pub years: f64,
    /// Largest loss of one event in a year, from the years drawn.
    pub occurrence: Bounded,
    /// The same from rates and losses, without drawing.
    pub occurrence_exact: f64,
    /// All losses of a year.
    pub aggregate: Bounded,
}

/// An order statistic with bounds that hold the quantile in 95 % of all cases.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    /// The estimate.
    pub loss: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound; nothing where too few years were drawn for one.
    pub high: Option<f64>,
}

/// The columns of `return_periods.csv`.
#[derive(serde::Serialize, serde::Deserialize)]
struct ReturnPeriodRow {
    return_period_years: f64,
    occurrence_loss: f64,
    occurrence_low: f64,
    occurrence_high: Option<f64>,
    occurrence_exact: f64,
    aggregate_loss: f64,
    aggregate_low: f64,
    aggregate_high: Option<f64>,
}

impl From<ReturnPeriod> for ReturnPeriodRow {
    fn from(period: ReturnPeriod) -> ReturnPeriodRow {
        ReturnPeriodRow {
            return_period_years: period.years,
            occurrence_loss: period.occurrence.loss,
            occurrence_low: period.occurrence.low,
            occurrence_high: period.occurrence.high,
            occurrence_exact: period.occurrence_exact,
            aggregate_loss: period.aggregate.loss,
            aggregate_low: period.aggregate.low,
            aggregate_high: period.aggregate.high,
        }
    }
}

impl From<ReturnPeriodRow> for ReturnPeriod {
    fn from(row: ReturnPeriodRow) -> ReturnPeriod {
        let bounded = |loss, low, high| Bounded { loss, low, high };
        ReturnPeriod {
            years: row.return_period_years,
            occurrence: bounded(row.occurrence_loss, row.occurrence_low, row.occurrence_high),
            occurrence_exact: row.occurrence_exact,
            aggregate: bounded(row.aggregate_loss, row.aggregate_low, row.aggregate_high),
        }
    }
}

macro_rules! head {
    ($head:ident) => {
        impl $head {
            /// As a product's head.
            pub fn encode(&self) -> Vec<u8> {
                crate::wire::archive(self)
            }

            /// Reads a head from outside; nothing where it is none.
            pub fn decode(bytes: &[u8]) -> Option<$head> {
                rkyv::from_bytes::<$head, rkyv::rancor::Failure>(bytes).ok()
            }
        }
    };
}
head!(SurveyHead);
head!(FinishHead);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{LandSpec, TracksSpec, WindSpec};
    use alloc::string::ToString;
    use alloc::vec;

    fn finish() -> Finish {
        let file = |byte| FileName { blake3: [byte; 32], bytes: 1 };
        let tracks: TracksSpec = serde_json::from_str("{ \"input\": \"tracks.txt\" }").unwrap();
        let model = Model {
            key: [1, 2],
            samples: 3,
            tracks: Tracks::of(&tracks, file(1)),
            exposure: file(2),
            vulnerability: Vulnerability::Curves(file(3)),
            perturbation: Perturbation { position_km: 30.0, intensity: 0.1, radius: 0.2 },
            wind: Wind::of(&WindSpec::default()),
            decay: LandSpec::default().decay.into(),
            mask: Some(file(4)),
        };
        Finish {
            model,
            storms: 5,
            parts: vec![file(9), file(8), file(9)],
            years: 100,
            return_periods: vec![10.0],
        }
    }

    #[test]
    fn a_task_reads_back_and_names_each_file_once() {
        let model = finish().model;
        for task in [
            Task::Survey(model.clone()),
            Task::Losses { model: model.clone(), storms: 5 },
            Task::Finish(finish()),
        ] {
            let bytes = task.encode();
            assert_eq!(Task::decode(&bytes), Ok(task));
            (0..bytes.len()).for_each(|cut| assert!(Task::decode(&bytes[..cut]).is_err()));
        }
        let inputs: Vec<u8> = Task::Finish(finish()).inputs().iter().map(|(blake3, _)| blake3[0]).collect();
        assert_eq!(inputs, [1, 2, 3, 4, 8, 9]);
        assert_eq!(Task::Losses { model, storms: 5 }.units(), 15);
    }

    #[test]
    fn a_task_beyond_its_limits_is_refused() {
        let right = finish();
        let mut wrong = vec![right.clone(); 6];
        wrong[0].model.samples = 0;
        wrong[1].storms = 1 << 20;
        wrong[2].parts = Vec::new();
        wrong[3].return_periods = vec![101.0];
        wrong[4].model.wind.reach_km = f64::NAN;
        wrong[5].model.perturbation.intensity = 2.0;
        let errors = [
            TaskError::Size,
            TaskError::Size,
            TaskError::Size,
            TaskError::Size,
            TaskError::Number,
            TaskError::Number,
        ];
        for (wrong, error) in wrong.into_iter().zip(errors) {
            assert_eq!(Task::decode(&Task::Finish(wrong).encode()), Err(error));
        }
    }

    #[test]
    fn heads_read_back() {
        let fault = SurveyHead::Fault("the exposure file: holds no row".to_string());
        assert_eq!(SurveyHead::decode(&fault.encode()), Some(fault));
        assert_eq!(SurveyHead::decode(b"no head"), None);
    }
}
