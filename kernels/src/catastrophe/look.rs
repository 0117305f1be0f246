//! A quick look at a finished catastrophe job: whether its tables fit its catalogue, its portfolio and each other.
//!
//! Owns what is checked. It reads the job's files, computes a handful of events again and draws the years again from
//! the event-loss table; it does not compute the losses of all events, which is what a job costs.

use bytes::Bytes;
use tessera_protocol::catastrophe::{
    FileName, Finish, FinishHead, LOSS_BYTES, LOSSES, Model, Summary, Survey, SurveyHead, Task,
};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::id::Digest;
use tessera_protocol::product::{File, Product};

use super::tracks::{self, Track};
use super::{Find, KernelError, run};
use crate::isa::Isa;
use crate::look::{Chooser, Look};

/// Events with a loss that are computed again, and events of any kind.
const EVENTS_HIT: usize = 4;
const EVENTS_ANY: usize = 2;

/// Names of the checks.
const SURVEY: &str = "portfolio and catalogue";
const TABLE: &str = "event-loss table";
const BOUNDS: &str = "losses within the values insured";
const AVERAGE: &str = "average annual loss";
const DEVIATION: &str = "standard deviation of the annual loss";
const COUNTS: &str = "events with a loss and the largest";
const EVENTS: &str = "events computed again";
const MONOTONE: &str = "exceedance curves fall";
const CURVES: &str = "exceedance curves drawn again";
const PERIODS: &str = "return periods";
const FILES: &str = "tables and pictures made again";

/// A finished job.
pub struct Given<'a> {
    /// From files to losses.
    pub model: &'a Model,
    /// Years drawn.
    pub years: u32,
    /// *Units*: years.
    pub return_periods: &'a [f64],
    /// What the result says of the inputs. Its `event_cost` is not looked at.
    pub inputs: &'a Survey,
    /// What the result says of the losses.
    pub summary: &'a Summary,
    /// The job's outputs by their names.
    pub outputs: &'a dyn Fn(&str) -> Option<Bytes>,
}

/// An event of the table.
struct Row {
    event: u64,
    storm: String,
    name: String,
    sample: u32,
    rate: f64,
    gross: f64,
    ground_up: f64,
    wind: f64,
    points: u64,
}

/// Looks at a job's tables. `files` finds the job's input files by digest.
///
/// *Errors*: those of the kernel, of which none is about the outputs.
pub fn look(
    given: &Given<'_>,
    files: &Find<'_>,
    isa: Isa,
    chooser: &Chooser,
    cancelled: &dyn Fn() -> bool,
) -> Result<Look, KernelError> {
    let mut look = Look::default();
    let job = Job { given, files, isa, cancelled };
    let Some(survey) = job.survey(&mut look)? else { return Ok(look) };
    let rows = match (given.outputs)("event_losses.csv").as_deref().map(read) {
        Some(Ok(rows)) => rows,
        Some(Err(wrong)) => {
            look.check(TABLE, false, wrong, "event_losses.csv as this job writes it");
            return Ok(look);
        }
        None => {
            look.check(TABLE, false, "no event_losses.csv", "one");
            return Ok(look);
        }
    };
    if !job.events(&survey, &rows, &mut look)? {
        // What follows reads the table as that of all events.
        return Ok(look);
    }
    let losses = bounds(&rows, &survey, given.model.wind.least, &mut look);
    job.annual(&rows, &mut look);
    job.again(&survey, &rows, chooser, &mut look)?;
    match losses {
        true => job.finish(&survey, &rows, &mut look)?,
        false => look.leave_out(CURVES, "the table's losses are none"),
    }
    Ok(look)
}

struct Job<'a> {
    given: &'a Given<'a>,
    files: &'a Find<'a>,
    isa: Isa,
    cancelled: &'a dyn Fn() -> bool,
}

impl Job<'_> {
    /// What is in the files, where the result says the same.
    fn survey(&self, look: &mut Look) -> Result<Option<Survey>, KernelError> {
        let task = Task::Survey(self.given.model.clone());
        let product = run(&task, 0, 1, self.files, self.isa, self.cancelled)?;
        let words = |survey: &Survey| {
            format!(
                "{} storms of {} to {}, {} a year; {} rows worth {}",
                survey.storms,
                survey.years[0],
                survey.years[1],
                survey.annual_rate,
                survey.points,
                survey.value
            )
        };
        let stated = words(self.given.inputs);
        let found = match SurveyHead::decode(&product.head) {
            Some(SurveyHead::Found(found)) => found,
            Some(SurveyHead::Fault(fault)) => {
                look.check(SURVEY, false, stated, fault);
                return Ok(None);
            }
            None => return Err(KernelError::Task),
        };
        let same = *self.given.inputs == Survey { event_cost: self.given.inputs.event_cost, ..found.clone() };
        look.check(SURVEY, same, stated, words(&found));
        Ok(Some(found))
    }

    /// Whether the rows are events of the catalogue, with their names and rates.
    fn events(&self, survey: &Survey, rows: &[Row], look: &mut Look) -> Result<bool, KernelError> {
        let model = self.given.model;
        let (storms, samples) = (u64::from(survey.storms), u64::from(model.samples));
        let missing = || KernelError::InputMissing { blake3: model.tracks.file.blake3 };
        let bytes = (self.files)(&model.tracks.file.blake3).ok_or_else(missing)?;
        let catalogue = tracks::read(&model.tracks, &bytes).map_err(KernelError::Input)?;
        let right = |row: &Row, track: &Track| {
            (&row.storm, &row.name) == (&track.id, &track.name)
                && u64::from(row.sample) == row.event % samples
                && row.rate.to_bits() == (track.annual_rate / f64::from(model.samples)).to_bits()
        };
        let of = |row: &Row| catalogue.tracks.get((row.event / samples) as usize);
        let wrong = rows.iter().find(|row| !of(row).is_some_and(|track| right(row, track)));
        let unordered = rows.windows(2).find(|pair| pair[0].event >= pair[1].event).map(|pair| &pair[1]);
        let stated = self.given.summary.events;
        let found = match (wrong, unordered) {
            (Some(row), _) => format!(
                "event {}: storm {}, sample {}, {} a year",
                row.event, row.storm, row.sample, row.rate
            ),
            (None, Some(row)) => format!("event {} after a later one", row.event),
            (None, None) => format!("{stated} events, {} of them hit the portfolio", rows.len()),
        };
        let holds = wrong.is_none() && unordered.is_none() && stated == storms * samples;
        let expected = format!(
            "{} events: {samples} samples of each of {storms} storms, with its id and rate",
            storms * samples
        );
        look.check(TABLE, holds, found, expected);
        Ok(holds)
    }

    /// Sums of rates and losses, exactly, as the last stage makes them.
    fn annual(&self, rows: &[Row], look: &mut Look) {
        let summary = self.given.summary;
        let expected = |of: &dyn Fn(&Row) -> f64| {
            let mut sum = ExactSum::new();
            // Events that are not in the table have no loss, and add zero.
            rows.iter().for_each(|row| sum.add(row.rate * of(row)).unwrap_or_default());
            sum.to_f64()
        };
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let (average, ground_up) = (expected(&|row| row.gross), expected(&|row| row.ground_up));
        let holds =
            same(summary.average_annual_loss, average) && same(summary.average_annual_ground_up, ground_up);
        let words = |gross: f64, ground_up: f64| format!("{gross}, ground-up {ground_up}");
        let found = words(summary.average_annual_loss, summary.average_annual_ground_up);
        look.check(AVERAGE, holds, found, words(average, ground_up));
        let deviation = expected(&|row| row.gross * row.gross).sqrt();
        let holds = same(summary.standard_deviation, deviation);
        look.check(DEVIATION, holds, summary.standard_deviation, deviation);
        let with_loss = rows.iter().filter(|row| row.gross > 0.0).count() as u64;
        let mut largest: Option<&Row> = None;
        for row in rows {
            if row.gross > largest.map_or(0.0, |largest| largest.gross) {
                largest = Some(row);
            }
        }
        let words = |events: u64, largest: Option<(&str, u32, f64, f64)>| match largest {
            Some((storm, sample, loss, wind)) => {
                format!("{events}; {storm}, sample {sample}: {loss}, {wind} m/s")
            }
            None => format!("{events}"),
        };
        let of_row = largest.map(|row| (row.storm.as_str(), row.sample, row.gross, row.wind));
        let stated = summary.largest.as_ref();
        let stated = stated.map(|event| (event.storm.as_str(), event.sample, event.loss, event.wind_ms));
        let (found, expected) = (words(summary.events_with_loss, stated), words(with_loss, of_row));
        look.check(COUNTS, found == expected, found, expected);
    }

    /// A few events from their tracks, compared by bits.
    fn again(
        &self,
        survey: &Survey,
        rows: &[Row],
        chooser: &Chooser,
        look: &mut Look,
    ) -> Result<(), KernelError> {
        let hit = chooser.some(0, EVENTS_HIT, rows.len() as u64);
        let mut events: Vec<u64> = hit.into_iter().map(|at| rows[at as usize].event).collect();
        let all = u64::from(survey.storms) * u64::from(self.given.model.samples);
        events.extend(chooser.some(1, EVENTS_ANY, all));
        events.sort_unstable();
        events.dedup();
        let task = Task::Losses { model: self.given.model.clone(), storms: survey.storms };
        let mut differs = None;
        for event in &events {
            let product = run(&task, *event, 1, self.files, self.isa, self.cancelled)?;
            let computed = product.files.first().map_or(&[][..], |file| &file.bytes);
            let row = rows.binary_search_by_key(event, |row| row.event).ok().map(|at| &rows[at]);
            if row.map_or_else(|| is_unhurt(computed), |row| losses(row) == computed) {
                continue;
            }
            let stated = row.map_or_else(|| "no loss".to_owned(), |row| shown(&losses(row)));
            differs = Some((format!("event {event}: {stated}"), shown(computed)));
            break;
        }
        let names: Vec<String> = events.iter().map(u64::to_string).collect();
        let same = format!("events {} as in the table", names.join(", "));
        match differs {
            None => look.check(EVENTS, true, &same, &same),
            Some((found, expected)) => look.check(EVENTS, false, found, expected),
        }
        Ok(())
    }

    /// Years, curves, tables and pictures from the table of losses, by the stage that made them.
    fn finish(&self, survey: &Survey, rows: &[Row], look: &mut Look) -> Result<(), KernelError> {
        let part = losses_of_all(rows, u64::from(survey.storms) * u64::from(self.given.model.samples))?;
        let name = FileName { blake3: Digest::of(&part).0, bytes: part.len() as u64 };
        let task = Task::Finish(Finish {
            model: self.given.model.clone(),
            storms: survey.storms,
            parts: vec![name],
            years: self.given.years,
            return_periods: self.given.return_periods.to_vec(),
        });
        let files = |blake3: &[u8; 32]| {
            if *blake3 == name.blake3 { Some(part.clone()) } else { (self.files)(blake3) }
        };
        let made = run(&task, 0, 1, &files, self.isa, self.cancelled)?;
        let expected = match FinishHead::decode(&made.head) {
            Some(FinishHead::Found(summary)) => summary,
            Some(FinishHead::Fault(fault)) => {
                look.check(CURVES, false, "a result", fault);
                return Ok(());
            }
            None => return Err(KernelError::Task),
        };
        let summary = self.given.summary;
        let curve = (self.given.outputs)("exceedance.csv").unwrap_or_default();
        falls(&curve, look);
        let drawn = |summary: &Summary| {
            format!(
                "{} years with a mean of {} ± {}",
                summary.years, summary.simulated_average, summary.simulated_standard_error
            )
        };
        let other = self.others(&made, |name| name.starts_with("exceedance."));
        let same = drawn(summary) == drawn(&expected) && other.is_none();
        let found = other.map_or_else(|| drawn(summary), |name| format!("another {name}"));
        look.check(CURVES, same, found, drawn(&expected));
        let other = self.others(&made, |name| name == "return_periods.csv");
        let same = summary.return_periods == expected.return_periods && other.is_none();
        let found =
            if same { "as drawn again" } else { "other losses in the document or return_periods.csv" };
        let periods: Vec<String> = self.given.return_periods.iter().map(f64::to_string).collect();
        look.check(PERIODS, same, found, format!("the losses of {} years", periods.join(", ")));
        let other =
            self.others(&made, |name| !name.starts_with("exceedance.") && name != "return_periods.csv");
        let found = other.map_or_else(|| "the same bytes".to_owned(), |name| format!("another {name}"));
        let names: Vec<&str> = made.files.iter().map(|file| file.name.as_str()).collect();
        look.check(FILES, other.is_none(), found, names.join(", "));
        Ok(())
    }

    /// The first of the files made again that the job gives otherwise.
    fn others<'b>(&self, made: &'b Product, which: impl Fn(&str) -> bool) -> Option<&'b str> {
        let mut files = made.files.iter().filter(|file| which(&file.name));
        let differs =
            |file: &&File| (self.given.outputs)(&file.name).is_none_or(|given| *given != *file.bytes);
        files.find(differs).map(|file| file.name.as_str())
    }
}

/// Zero, insured, lost: in this order for every event.
fn bounds(rows: &[Row], survey: &Survey, least_wind: f64, look: &mut Look) -> bool {
    // Sums are exact and shares at most one, so that rounding cannot turn an order around.
    let right = |row: &&Row| {
        0.0 <= row.gross
            && row.gross <= row.ground_up
            && row.ground_up > 0.0
            && row.ground_up <= survey.value
            && (1..=u64::from(survey.points)).contains(&row.points)
            && row.wind.is_finite()
            && row.wind >= least_wind
    };
    let expected = format!("0 ≤ loss ≤ ground-up loss ≤ {}, 1 to {} rows hit", survey.value, survey.points);
    let wrong = rows.iter().find(|row| !right(row));
    match wrong {
        None => look.check(BOUNDS, true, format!("{} events are", rows.len()), expected),
        Some(row) => {
            let found = format!(
                "event {}: loss {}, ground-up {}, {} rows, {} m/s",
                row.event, row.gross, row.ground_up, row.points, row.wind
            );
            look.check(BOUNDS, false, found, expected);
        }
    }
    wrong.is_none()
}

/// Whether a curve's losses fall with its return periods, and no year costs less than its largest event.
fn falls(curve: &[u8], look: &mut Look) {
    let mut points: Vec<[f64; 4]> = Vec::new();
    let mut reader = csv::Reader::from_reader(curve);
    let read: Result<(), String> = reader.records().try_for_each(|record| {
        let record = record.map_err(|error| error.to_string())?;
        let numbers: Vec<f64> = record.iter().filter_map(|cell| cell.parse().ok()).collect();
        points.push(numbers.try_into().map_err(|_| format!("line {}", points.len() + 2))?);
        Ok(())
    });
    let expected = "losses that never rise as return periods fall, no year below its largest event";
    if let Err(what) = read {
        return look.check(MONOTONE, false, format!("exceedance.csv cannot be read: {what}"), expected);
    }
    let fall = |pair: &[[f64; 4]]| {
        pair[0][0] > pair[1][0]
            && pair[0][1] < pair[1][1]
            && pair[0][2] >= pair[1][2]
            && pair[0][3] >= pair[1][3]
    };
    let rises = points.windows(2).find(|pair| !fall(pair)).map(|pair| pair[1]);
    let below = points.iter().find(|[_, _, largest, total]| *largest > *total || *largest < 0.0).copied();
    match rises.or(below) {
        None if points.is_empty() => look.check(MONOTONE, false, "no points", expected),
        None => look.check(MONOTONE, true, format!("{} points do", points.len()), expected),
        Some([years, _, largest, total]) => {
            look.check(MONOTONE, false, format!("{years} years: {largest} and {total}"), expected);
        }
    }
}

/// Reads the table.
fn read(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let header = "event,storm,name,sample,annual_rate,loss,ground_up_loss,max_wind_ms,points_hit".split(',');
    let mut reader = csv::Reader::from_reader(bytes);
    let found = reader.headers().map_err(|error| error.to_string())?;
    if !found.iter().eq(header) {
        return Err("event_losses.csv has other columns".to_owned());
    }
    let row = |record: csv::StringRecord| {
        let number = |at: usize| record.get(at)?.parse::<f64>().ok().filter(|number| number.is_finite());
        Some(Row {
            event: record.get(0)?.parse().ok()?,
            storm: record.get(1)?.to_owned(),
            name: record.get(2)?.to_owned(),
            sample: record.get(3)?.parse().ok()?,
            rate: number(4)?,
            gross: number(5)?,
            ground_up: number(6)?,
            wind: number(7)?,
            points: record.get(8)?.parse().ok()?,
        })
    };
    let mut rows = Vec::new();
    for record in reader.into_records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = rows.len() + 2;
        rows.push(row(record).ok_or_else(|| format!("line {line} of event_losses.csv is no event"))?);
    }
    Ok(rows)
}

/// A row as the stage of losses writes it.
fn losses(row: &Row) -> Vec<u8> {
    let numbers = [row.gross, row.ground_up, row.wind].map(f64::to_bits);
    numbers.into_iter().chain([row.points]).flat_map(u64::to_le_bytes).collect()
}

/// Whether an event hurts nobody; how strong its wind is, the table does not say.
fn is_unhurt(losses: &[u8]) -> bool {
    let (fields, _) = losses.as_chunks::<8>();
    matches!(fields, [gross, ground_up, _, points]
        if f64::from_le_bytes(*gross) == 0.0 && f64::from_le_bytes(*ground_up) == 0.0 && *points == [0; 8])
}

/// In words.
fn shown(losses: &[u8]) -> String {
    match losses.as_chunks::<8>().0 {
        [gross, ground_up, wind, points] => {
            let [gross, ground_up, wind] = [gross, ground_up, wind].map(|bytes| f64::from_le_bytes(*bytes));
            let points = u64::from_le_bytes(*points);
            format!("loss {gross}, ground-up {ground_up}, {wind} m/s, {points} rows")
        }
        _ => "nothing".to_owned(),
    }
}

/// The product of a shard of all events, as far as the table tells: of others it says nothing but that they cost
/// nothing.
fn losses_of_all(rows: &[Row], events: u64) -> Result<Bytes, KernelError> {
    let mut all = vec![0; events as usize * LOSS_BYTES];
    for row in rows {
        all[row.event as usize * LOSS_BYTES..][..LOSS_BYTES].copy_from_slice(&losses(row));
    }
    let product = Product { head: Vec::new(), files: vec![File { name: LOSSES.into(), bytes: all }] };
    product.encode().map(Bytes::from).map_err(|_| KernelError::Output("the losses"))
}
