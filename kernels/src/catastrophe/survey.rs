//! The first stage: reads every file of a job, says what is wrong with it, or what is in it and what it costs.

use tessera_protocol::catastrophe::{EVENTS_MAX, Model, Survey, SurveyHead};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::product::Product;

use super::fault::{Fault, Role};
use super::storm;
use super::{Find, KernelError, PrepareError, Prepared};
use crate::philox::Schedule;

/// Deviations of a perturbed position within which a storm counts as in reach.
const DEVIATIONS: f64 = 4.0;
/// What making a node costs. *Units*: compute units.
const NODE_COST: u64 = 12;

pub(super) fn run(
    model: &Model,
    inputs: &Find<'_>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, KernelError> {
    let head = match Prepared::read(model, inputs).and_then(|prepared| survey(model, &prepared, cancelled)) {
        Ok(found) => SurveyHead::Found(found),
        Err(PrepareError::Fault(fault)) => SurveyHead::Fault(fault.to_string()),
        Err(PrepareError::Kernel(error)) => return Err(error),
    };
    Ok(Product { head: head.encode(), files: Vec::new() })
}

fn survey(model: &Model, prepared: &Prepared, cancelled: &dyn Fn() -> bool) -> Result<Survey, PrepareError> {
    let Prepared { catalogue, exposure, points, land, .. } = prepared;
    let storms = catalogue.tracks.len() as u64;
    if storms * u64::from(model.samples) > EVENTS_MAX {
        let what = format!(
            "{storms} storms of {} samples: at most {EVENTS_MAX} events are computed in one job; take fewer samples, or years",
            model.samples
        );
        return Err(Fault::of(Role::Tracks, what).into());
    }
    let schedule = Schedule::new(model.key);
    let reach = 1000.0 * DEVIATIONS.mul_add(model.perturbation.position_km, model.wind.reach_km);
    let (mut in_reach, mut cost) = (0u32, 0u64);
    for track in &catalogue.tracks {
        if cancelled() {
            return Err(PrepareError::Kernel(KernelError::Cancelled));
        }
        let nodes = storm::nodes(model, &schedule, land, track, 0);
        let near = nodes.iter().filter(|node| points.may_reach(node.centre, reach)).count() as u64;
        in_reach += u32::from(near > 0);
        cost += NODE_COST * nodes.len() as u64 + (near + 1) * points.len() as u64;
    }
    if in_reach == 0 {
        let what = format!(
            "no row lies within {} km of any track: check the signs of latitudes and longitudes, west and south are negative",
            reach / 1000.0
        );
        return Err(Fault::of(Role::Exposure, what).into());
    }
    let mut value = ExactSum::new();
    // The reader takes finite values only.
    exposure.values.iter().for_each(|of_row| value.add(*of_row).unwrap_or_default());
    let mut rate = ExactSum::new();
    catalogue.tracks.iter().for_each(|track| rate.add(track.annual_rate).unwrap_or_default());
    Ok(Survey {
        storms: storms as u32,
        storms_in_reach: in_reach,
        years: catalogue.years,
        annual_rate: rate.to_f64(),
        points: points.len() as u32,
        classes: exposure.class_names.len() as u32,
        value: value.to_f64(),
        bounds: bounds(&exposure.places),
        event_cost: cost.div_ceil(storms),
    })
}

/// South, north, west, east.
fn bounds(places: &[[f64; 2]]) -> [f64; 4] {
    places.iter().fold([90.0, -90.0, 360.0, -180.0], |[south, north, west, east], [lat, lon]| {
        let less = |a: f64, b: f64| if a < b { a } else { b };
        let more = |a: f64, b: f64| if a > b { a } else { b };
        [less(south, *lat), more(north, *lat), less(west, *lon), more(east, *lon)]
    })
}
