//! Estimates that a result has only when it was asked for: controls, Greeks, deltas by underlying.

use serde::Deserialize;

use super::number::{decimals, fixed};

/// The delta of a basket by one of its underlyings.
#[derive(Deserialize)]
pub(super) struct PartDelta {
    pub(super) underlying: String,
    pub(super) delta: Option<f64>,
    pub(super) delta_standard_error: Option<f64>,
}

/// A price less the noise that a control explains.
#[derive(Deserialize)]
pub(super) struct Control {
    pub(super) method: String,
    pub(super) price: Option<f64>,
    pub(super) standard_error: Option<f64>,
    pub(super) ci95: [Option<f64>; 2],
}

/// Derivatives besides delta; those without an estimator are empty.
#[derive(Deserialize)]
pub(super) struct Greeks {
    gamma: Option<Estimate>,
    vega: Option<Estimate>,
    rho: Option<Estimate>,
    theta: Option<Estimate>,
}

#[derive(Deserialize)]
struct Estimate {
    value: Option<f64>,
    standard_error: Option<f64>,
}

impl Greeks {
    /// Gamma, vega, rho and theta, a dash for what is not there.
    pub(super) fn cells(&self) -> [String; 4] {
        [&self.gamma, &self.vega, &self.rho, &self.theta].map(|greek| match greek {
            Some(greek) => estimates(greek.value, greek.standard_error),
            None => "–".to_owned(),
        })
    }
}

/// A value and its standard error, rounded by the error.
pub(super) fn estimates(value: Option<f64>, standard_error: Option<f64>) -> String {
    let places = decimals(value.unwrap_or(f64::NAN), standard_error);
    format!("{} ± {}", fixed(value, places), fixed(standard_error, places))
}
