//! The rounds of a Monte Carlo job: looks at what is known so far, then passes that look for exact quantiles.
//!
//! Owns where a look happens and what comes after it. Both follow from the manifest and from exact tallies
//! of a prefix of the paths, so no shard size, agent or arrival order can move them.

use serde::Serialize;
use tessera_protocol::spec::{MonteCarloParams, Quantiles, StopSpec};
use tessera_protocol::tally::{Tally, TallyError};

use super::quantiles::{REPLAYS_MAX, Search, search};
use super::result::{estimate, fits};
use crate::{FinishError, Pass, Plan, Round};

/// Paths before the first look, unless the client says otherwise: enough for the standard error of a usual
/// book to be off by well under one part in a hundred.
const FIRST_LOOK: u64 = 1 << 16;
/// Looks happen at multiples of it: even, and a whole number of the kernel's blocks.
const LOOK_STEP: u64 = 4_096;
/// Paths are taken beyond the predicted need, so that a look rarely comes just too early.
const MARGIN: f64 = 1.02;
/// From one look to the next the paths grow at most so many times: an early estimate may be far off.
const GROWTH_MAX: u64 = 16;
/// And they grow at least by one part in so many, so that looks stay few.
const GROWTH_MIN_PARTS: u64 = 10;

/// What made a job stop.
#[derive(Serialize)]
pub(super) struct Stopped {
    /// As it was asked for.
    standard_error: f64,
    #[serde(skip_serializing_if = "is_false")]
    relative: bool,
    /// How often it was looked at, the last time included.
    looks: u32,
    /// Whether it is small enough; if not, all paths were taken.
    reached: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The paths of a job from `first` on, up to the first look if it may stop.
pub(crate) fn first_round(params: &MonteCarloParams, first: u64) -> Round {
    let end = match &params.stop {
        Some(stop) => stop.min_paths.unwrap_or(FIRST_LOOK).next_multiple_of(LOOK_STEP).clamp(1, params.paths),
        None => params.paths,
    };
    Round { first, end, ..Round::default() }
}

/// The most samples that a job's paths from `first` on can take in all its rounds.
pub(crate) fn samples_max(params: &MonteCarloParams, first: u64) -> Option<u64> {
    let replays = match params.quantiles {
        Quantiles::Binned => 0,
        Quantiles::Exact => REPLAYS_MAX,
    };
    params.paths.checked_sub(first)?.checked_add(params.paths.checked_mul(replays)?)
}

/// What remains to be done after a round: nothing, more samples, or another pass over them.
pub(crate) fn next_round(
    params: &MonteCarloParams,
    plan: &Plan,
    tallies: &[&Tally],
) -> Result<Option<Round>, FinishError> {
    let sampled = tallies.first().ok_or(FinishError::Shape(TallyError::Shape))?;
    let paths = plan.end();
    if sampled.samples != paths {
        return Err(FinishError::Samples { found: sampled.samples, wanted: paths });
    }
    if !fits(params, &Pass::Sample, sampled) {
        return Err(FinishError::Shape(TallyError::Shape));
    }
    let after = |first, end, pass| Round {
        number: plan.round().number + 1,
        shards_before: plan.indices().end,
        first,
        end,
        pass,
    };
    if let (Pass::Sample, Some(stop)) = (&plan.round().pass, &params.stop)
        && paths < params.paths
    {
        let (value, error) = estimate(params, sampled)?;
        if !stops(stop, value, error) {
            let end = next_look(paths, error / target(stop, value)).min(params.paths);
            return Ok(Some(after(paths, end, Pass::Sample)));
        }
    }
    if params.quantiles == Quantiles::Binned {
        return Ok(None);
    }
    match search(super::anchor(params), tallies)? {
        Search::Round(refine) => Ok(Some(after(0, paths, Pass::Refine(refine)))),
        Search::Found(_) => Ok(None),
    }
}

/// What a result says of its stop, after the last round.
pub(super) fn stopped(
    params: &MonteCarloParams,
    plan: &Plan,
    tallies: &[&Tally],
    (value, error): (f64, f64),
) -> Option<Stopped> {
    let stop = params.stop.as_ref()?;
    let passes_after_sampling = tallies.len().saturating_sub(1) as u32;
    Some(Stopped {
        standard_error: stop.standard_error,
        relative: stop.relative,
        looks: (plan.round().number + 1).saturating_sub(passes_after_sampling),
        reached: error <= target(stop, value),
    })
}

/// The standard error that is small enough.
fn target(stop: &StopSpec, value: f64) -> f64 {
    if stop.relative { stop.standard_error * value.abs() } else { stop.standard_error }
}

/// A standard error of zero only says that no path differed yet, as when nothing paid: it stops no job.
fn stops(stop: &StopSpec, value: f64, error: f64) -> bool {
    error > 0.0 && error <= target(stop, value)
}

/// Where to look after `paths`, when the standard error is `excess` times what is wanted.
fn next_look(paths: u64, excess: f64) -> u64 {
    let (least, most) = (paths + paths.div_ceil(GROWTH_MIN_PARTS), paths * GROWTH_MAX);
    let need = paths as f64 * excess * excess * MARGIN;
    // Not so for an excess of zero, without bound or undefined, of which nothing follows.
    let predicted = if need > 0.0 && need.is_finite() { need as u64 } else { most };
    predicted.clamp(least, most).next_multiple_of(LOOK_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_where_the_error_should_be_small_enough() {
        assert_eq!(next_look(65_536, 2.0), 270_336, "65536 · 4 · 1.02, up to a multiple of 4096");
        assert_eq!(next_look(65_536, 1.000_001), 73_728, "at least a tenth more");
        assert_eq!(next_look(65_536, 1e9), 1_048_576, "at most sixteen times");
        for nothing_known in [0.0, f64::INFINITY, f64::NAN] {
            assert_eq!(next_look(65_536, nothing_known), 1_048_576);
        }
        assert_eq!(next_look(1, f64::NAN), 4_096);
    }

    #[test]
    fn paths_that_are_all_alike_stop_no_job() {
        let stop = StopSpec { standard_error: 0.01, relative: false, min_paths: None };
        assert!(stops(&stop, 5.0, 0.01) && !stops(&stop, 5.0, 0.010_001));
        assert!(!stops(&stop, 0.0, 0.0) && !stops(&stop, 5.0, f64::NAN));
        let relative = StopSpec { relative: true, ..stop };
        assert!(stops(&relative, -5.0, 0.05) && !stops(&relative, 0.0, 1e-9));
    }
}
