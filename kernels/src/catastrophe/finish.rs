//! The last stage: event-loss table, curves, summary and pictures, from the losses of all events.
//!
//! Owns how tables are made of losses. Files of tables and pictures are written in their own rooms.

use tessera_protocol::catastrophe::{Finish, FinishHead, LOSS_BYTES, LOSSES, Largest, ReturnPeriod, Summary};
use tessera_protocol::exact::{ExactSum, sample_variance};
use tessera_protocol::product::{File, Product, ProductView};

use super::exceedance::{self, curve_ranks, descending};
use super::fault::{Fault, Role};
use super::losses::{Loss, footprint};
use super::pictures;
use super::tables::{self, Column, Values};
use super::years::{self, RATE_MAX, Years};
use super::{Find, KernelError, Prepared, storm};
use crate::isa::Isa;
use crate::philox::Schedule;

pub(super) fn run(
    task: &Finish,
    inputs: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let prepared = Prepared::read(&task.model, inputs)?;
    let tracks = &prepared.catalogue.tracks;
    if tracks.len() != task.storms as usize {
        return Err(KernelError::Input(Fault::of(Role::Tracks, "not the storms that the survey found")));
    }
    let losses = gather(task, inputs)?;
    let rates: Vec<f64> = tracks.iter().map(|track| track.annual_rate).collect();
    if rates.iter().sum::<f64>() > RATE_MAX {
        let what =
            format!("its storms come more than {RATE_MAX} times a year together: give a smaller annual_rate");
        let head = FinishHead::Fault(Fault::of(Role::Tracks, what).to_string()).encode();
        return Ok(Product { head, files: Vec::new() });
    }
    let gross: Vec<f64> = losses.iter().map(|loss| loss.gross).collect();
    let years =
        years::draw(task.model.key, task.years, &rates, &gross, cancelled).ok_or(KernelError::Cancelled)?;
    let events = Events { task, prepared: &prepared, losses: &losses };
    let (summary, curves) = events.summary(&years);
    let elt = events.table();
    let mut files = vec![
        file("event_losses.csv", tables::csv(&elt)?),
        file("event_losses.parquet", tables::parquet(&elt)?),
    ];
    let curve = curve_table(&curves);
    files.push(file("exceedance.csv", tables::csv(&curve)?));
    files.push(file("exceedance.parquet", tables::parquet(&curve)?));
    files.push(file("return_periods.csv", tables::csv(&period_table(&summary.return_periods))?));
    files.push(file("exceedance.svg", pictures::exceedance(&curves.largest, &curves.total)?.into_bytes()));
    if let Some(event) = events.largest() {
        let (track, sample) = events.of(event);
        let schedule = Schedule::new(task.model.key);
        let nodes = storm::nodes(&task.model, &schedule, &prepared.land, track, sample);
        let mut winds = vec![0.0; prepared.points.len()];
        footprint(isa, &task.model, &nodes, &prepared, &mut winds);
        let title = format!("{} ({}), sample {sample}: largest winds, m/s", track.name, track.id);
        let picture = pictures::footprint(&title, &prepared.exposure.places, &winds, &nodes)?;
        files.push(file("footprint.svg", picture.into_bytes()));
    }
    Ok(Product { head: FinishHead::Found(summary).encode(), files })
}

fn file(name: &str, bytes: Vec<u8>) -> File {
    File { name: name.into(), bytes }
}

/// The losses of all events, in their order.
fn gather(task: &Finish, inputs: &Find<'_>) -> Result<Vec<Loss>, KernelError> {
    let events = task.storms as usize * task.model.samples as usize;
    let mut losses = Vec::with_capacity(events);
    for part in &task.parts {
        let wrong = || KernelError::Part { blake3: part.blake3 };
        let bytes = inputs(&part.blake3).ok_or(KernelError::InputMissing { blake3: part.blake3 })?;
        let view = ProductView::decode(&bytes).map_err(|_| wrong())?;
        let rows = view.file(LOSSES).ok_or_else(wrong)?;
        let (rows, rest) = rows.as_chunks::<LOSS_BYTES>();
        if !rest.is_empty() || losses.len() + rows.len() > events {
            return Err(wrong());
        }
        for row in rows {
            losses.push(Loss::read(row).ok_or_else(wrong)?);
        }
    }
    if losses.len() == events { Ok(losses) } else { Err(KernelError::Task) }
}

/// Losses of years from the largest down.
struct Curves {
    largest: Vec<f64>,
    total: Vec<f64>,
}

/// All events with what they are of.
struct Events<'a> {
    task: &'a Finish,
    prepared: &'a Prepared,
    losses: &'a [Loss],
}

impl Events<'_> {
    /// The storm and the sample of an event.
    fn of(&self, event: usize) -> (&super::tracks::Track, u32) {
        let samples = self.task.model.samples as usize;
        (&self.prepared.catalogue.tracks[event / samples], (event % samples) as u32)
    }

    /// *Units*: a year.
    fn rate(&self, event: usize) -> f64 {
        self.of(event).0.annual_rate / f64::from(self.task.model.samples)
    }

    /// The event with the largest loss, the first of equals; nothing where none has one.
    fn largest(&self) -> Option<usize> {
        let mut found: Option<usize> = None;
        for (event, loss) in self.losses.iter().enumerate() {
            if loss.gross > found.map_or(0.0, |found| self.losses[found].gross) {
                found = Some(event);
            }
        }
        found
    }

    /// The sum over all events of the rate times something.
    fn expected(&self, of: impl Fn(&Loss) -> f64) -> f64 {
        let mut sum = ExactSum::new();
        for (event, loss) in self.losses.iter().enumerate() {
            // Losses are finite; were a square not, it would count for nothing.
            sum.add(self.rate(event) * of(loss)).unwrap_or_default();
        }
        sum.to_f64()
    }

    fn summary(&self, years: &Years) -> (Summary, Curves) {
        let curves =
            Curves { largest: descending(years.largest.clone()), total: descending(years.total.clone()) };
        let (mut sum, mut squares) = (ExactSum::new(), ExactSum::new());
        for total in &years.total {
            sum.add(*total).unwrap_or_default();
            squares.add(total * total).unwrap_or_default();
        }
        let drawn = years.total.len() as f64;
        let variance = sample_variance(years.total.len() as u64, &sum, &squares);
        let mut by_loss: Vec<(f64, f64)> =
            self.losses.iter().enumerate().map(|(event, loss)| (self.rate(event), loss.gross)).collect();
        by_loss.sort_by(|a, b| b.1.total_cmp(&a.1));
        let period = |years: &f64| ReturnPeriod {
            years: *years,
            occurrence: exceedance::at(&curves.largest, *years),
            occurrence_exact: exceedance::exact(&by_loss, *years),
            aggregate: exceedance::at(&curves.total, *years),
        };
        let largest = self.largest().map(|event| {
            let (track, sample) = self.of(event);
            let loss = &self.losses[event];
            Largest {
                storm: track.id.clone(),
                name: track.name.clone(),
                sample,
                loss: loss.gross,
                wind_ms: loss.wind,
            }
        });
        let summary = Summary {
            events: self.losses.len() as u64,
            events_with_loss: self.losses.iter().filter(|loss| loss.gross > 0.0).count() as u64,
            average_annual_loss: self.expected(|loss| loss.gross),
            standard_deviation: self.expected(|loss| loss.gross * loss.gross).sqrt(),
            average_annual_ground_up: self.expected(|loss| loss.ground_up),
            years: self.task.years,
            simulated_average: sum.to_f64() / drawn,
            // Of one year no spread is known.
            simulated_standard_error: if drawn > 1.0 { (variance / drawn).sqrt() } else { 0.0 },
            largest,
            return_periods: self.task.return_periods.iter().map(period).collect(),
        };
        (summary, curves)
    }

    /// Events with a ground-up loss, in their order.
    fn table(&self) -> Vec<Column> {
        let hit: Vec<usize> =
            (0..self.losses.len()).filter(|event| self.losses[*event].ground_up > 0.0).collect();
        let texts = |of: fn(&super::tracks::Track) -> &String| {
            Values::Texts(hit.iter().map(|event| of(self.of(*event).0).clone()).collect())
        };
        let integers =
            |of: &dyn Fn(usize) -> i64| Values::Integers(hit.iter().map(|event| of(*event)).collect());
        let numbers =
            |of: &dyn Fn(usize) -> f64| Values::Numbers(hit.iter().map(|event| of(*event)).collect());
        vec![
            Column { name: "event", values: integers(&|event| event as i64) },
            Column { name: "storm", values: texts(|track| &track.id) },
            Column { name: "name", values: texts(|track| &track.name) },
            Column { name: "sample", values: integers(&|event| self.of(event).1.into()) },
            Column { name: "annual_rate", values: numbers(&|event| self.rate(event)) },
            Column { name: "loss", values: numbers(&|event| self.losses[event].gross) },
            Column { name: "ground_up_loss", values: numbers(&|event| self.losses[event].ground_up) },
            Column { name: "max_wind_ms", values: numbers(&|event| self.losses[event].wind) },
            Column { name: "points_hit", values: integers(&|event| self.losses[event].points as i64) },
        ]
    }
}

fn curve_table(curves: &Curves) -> Vec<Column> {
    let count = curves.largest.len();
    let ranks = curve_ranks(count);
    let numbers = |of: &dyn Fn(usize) -> f64| Values::Numbers(ranks.iter().map(|rank| of(*rank)).collect());
    vec![
        Column { name: "return_period_years", values: numbers(&|rank| count as f64 / rank as f64) },
        Column { name: "exceedance_probability", values: numbers(&|rank| rank as f64 / count as f64) },
        Column { name: "occurrence_loss", values: numbers(&|rank| curves.largest[rank - 1]) },
        Column { name: "aggregate_loss", values: numbers(&|rank| curves.total[rank - 1]) },
    ]
}

fn period_table(periods: &[ReturnPeriod]) -> Vec<Column> {
    let numbers = |of: &dyn Fn(&ReturnPeriod) -> f64| Values::Numbers(periods.iter().map(of).collect());
    let known = |of: &dyn Fn(&ReturnPeriod) -> Option<f64>| Values::Known(periods.iter().map(of).collect());
    vec![
        Column { name: "return_period_years", values: numbers(&|period| period.years) },
        Column { name: "occurrence_loss", values: numbers(&|period| period.occurrence.loss) },
        Column { name: "occurrence_low", values: numbers(&|period| period.occurrence.low) },
        Column { name: "occurrence_high", values: known(&|period| period.occurrence.high) },
        Column { name: "occurrence_exact", values: numbers(&|period| period.occurrence_exact) },
        Column { name: "aggregate_loss", values: numbers(&|period| period.aggregate.loss) },
        Column { name: "aggregate_low", values: numbers(&|period| period.aggregate.low) },
        Column { name: "aggregate_high", values: known(&|period| period.aggregate.high) },
    ]
}
