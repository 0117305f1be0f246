//! The middle stage: the losses of a range of events.
//!
//! *Shape* of the product's file: for each event gross loss, ground-up loss and largest wind as doubles, and how many
//! points had a loss as a 64-bit integer, all little-endian.

use std::ops::Range;

use tessera_protocol::catastrophe::{LOSS_BYTES, LOSSES, Model};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::product::{File, Product};

use super::damage::{Curve, paid};
use super::exposure::Exposure;
use super::fault::{Fault, Role};
use super::storm;
use super::wind::{Node, Points, strongest_squared};
use super::{Find, KernelError, Prepared};
use crate::isa::Isa;
use crate::philox::Schedule;

/// What one event does to a portfolio.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// After deductibles and limits.
    pub gross: f64,
    /// Before.
    pub ground_up: f64,
    /// At any point of the portfolio. *Units*: m/s.
    pub wind: f64,
    /// Points with a ground-up loss.
    pub points: u64,
}

impl Loss {
    fn write(&self, out: &mut Vec<u8>) {
        for number in [self.gross, self.ground_up, self.wind] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.points.to_le_bytes());
    }

    /// Reads one back; nothing where a number is none.
    pub(super) fn read(bytes: &[u8; LOSS_BYTES]) -> Option<Loss> {
        let [gross, ground_up, wind, points] = *bytes.as_chunks::<8>().0 else { return None };
        let [gross, ground_up, wind] = [gross, ground_up, wind].map(f64::from_le_bytes);
        let sane = [gross, ground_up, wind].iter().all(|number| number.is_finite() && *number >= 0.0);
        sane.then_some(Loss { gross, ground_up, wind, points: u64::from_le_bytes(points) })
    }
}

pub(super) fn run(
    model: &Model,
    storms: u32,
    events: Range<u64>,
    inputs: &Find<'_>,
    isa: Isa,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let season = Season::read(model, storms, inputs)?;
    let mut winds = vec![0.0; season.points().len()];
    let mut losses = Vec::with_capacity((events.end - events.start) as usize);
    for event in events {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        footprint(isa, model, &season.nodes(event), &season.prepared, &mut winds);
        losses.push(loss(model, &season.prepared, &winds));
    }
    Ok(product(&losses))
}

/// A job's events and what they blow over, for whoever computes their losses.
pub struct Season<'a> {
    model: &'a Model,
    prepared: Prepared,
    schedule: Schedule,
}

impl<'a> Season<'a> {
    /// Reads a job's files. *Errors*: those of [`super::run`].
    pub fn read(model: &'a Model, storms: u32, inputs: &Find<'_>) -> Result<Season<'a>, KernelError> {
        let prepared = Prepared::read(model, inputs)?;
        if prepared.catalogue.tracks.len() != storms as usize {
            return Err(KernelError::Input(Fault::of(Role::Tracks, "not the storms that the survey found")));
        }
        Ok(Season { model, prepared, schedule: Schedule::new(model.key) })
    }

    /// What is computed.
    pub fn model(&self) -> &Model {
        self.model
    }

    /// The portfolio's places.
    pub fn points(&self) -> &Points {
        &self.prepared.points
    }

    /// What stands there.
    pub fn exposure(&self) -> &Exposure {
        &self.prepared.exposure
    }

    /// Of each class.
    pub fn curves(&self) -> &[Curve] {
        &self.prepared.curves
    }

    /// The wind field of an event, moment by moment.
    ///
    /// *Panics*: past the job's last event.
    pub fn nodes(&self, event: u64) -> Vec<Node> {
        let samples = u64::from(self.model.samples);
        let track = &self.prepared.catalogue.tracks[(event / samples) as usize];
        storm::nodes(self.model, &self.schedule, &self.prepared.land, track, (event % samples) as u32)
    }
}

/// The product of a range of events from their losses.
pub fn product(losses: &[Loss]) -> Product {
    let mut bytes = Vec::with_capacity(losses.len() * LOSS_BYTES);
    losses.iter().for_each(|loss| loss.write(&mut bytes));
    Product { head: Vec::new(), files: vec![File { name: LOSSES.into(), bytes }] }
}

/// The strongest wind of a storm at every point; zero where it is below the least that counts. *Units*: m/s.
pub(super) fn footprint(isa: Isa, model: &Model, nodes: &[Node], prepared: &Prepared, winds: &mut [f64]) {
    strongest_squared(isa, nodes, model.wind.reach_km * 1000.0, &prepared.points, winds);
    for wind in winds {
        let speed = wind.sqrt();
        *wind = if speed < model.wind.least { 0.0 } else { speed };
    }
}

fn loss(model: &Model, prepared: &Prepared, winds: &[f64]) -> Loss {
    let exposure = &prepared.exposure;
    let (mut gross, mut ground_up) = (ExactSum::new(), ExactSum::new());
    let mut loss = Loss::default();
    for (point, wind) in winds.iter().enumerate().filter(|(_, wind)| **wind > 0.0) {
        loss.wind = if *wind > loss.wind { *wind } else { loss.wind };
        let share = prepared.curves[exposure.classes[point] as usize].share(wind * model.wind.gust_factor);
        let lost = exposure.values[point] * share;
        if lost > 0.0 {
            loss.points += 1;
            // Values are finite, shares at most one.
            ground_up.add(lost).unwrap_or_default();
            gross.add(paid(lost, exposure.deductibles[point], exposure.limits[point])).unwrap_or_default();
        }
    }
    Loss { gross: gross.to_f64(), ground_up: ground_up.to_f64(), ..loss }
}
