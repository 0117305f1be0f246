//! The middle stage: the losses of a range of events.
//!
//! *Shape* of the product's file: for each event gross loss, ground-up loss and largest wind as doubles, and how many
//! points had a loss as a 64-bit integer, all little-endian.

use std::ops::Range;

use tessera_protocol::catastrophe::{LOSS_BYTES, LOSSES, Model};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::product::{File, Product};

use super::damage::paid;
use super::fault::{Fault, Role};
use super::storm;
use super::wind::{Node, strongest_squared};
use super::{Find, KernelError, Prepared};
use crate::isa::Isa;
use crate::philox::Schedule;

/// What one event does to a portfolio.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    /// After deductibles and limits.
    pub(super) gross: f64,
    /// Before.
    pub(super) ground_up: f64,
    /// At any point of the portfolio. *Units*: m/s.
    pub(super) wind: f64,
    /// Points with a ground-up loss.
    pub(super) points: u64,
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
    let prepared = Prepared::read(model, inputs)?;
    if prepared.catalogue.tracks.len() != storms as usize {
        return Err(KernelError::Input(Fault::of(Role::Tracks, "not the storms that the survey found")));
    }
    let schedule = Schedule::new(model.key);
    let mut winds = vec![0.0; prepared.points.len()];
    let mut bytes = Vec::with_capacity((events.end - events.start) as usize * LOSS_BYTES);
    for event in events {
        if cancelled() {
            return Err(KernelError::Cancelled);
        }
        let track = &prepared.catalogue.tracks[(event / u64::from(model.samples)) as usize];
        let sample = (event % u64::from(model.samples)) as u32;
        let nodes = storm::nodes(model, &schedule, &prepared.land, track, sample);
        footprint(isa, model, &nodes, &prepared, &mut winds);
        loss(model, &prepared, &winds).write(&mut bytes);
    }
    Ok(Product { head: Vec::new(), files: vec![File { name: LOSSES.into(), bytes }] })
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
