//! What a result says of one estimate: its value, its standard error and how it was made.

use serde::Serialize;
use tessera_protocol::exact::{ExactSum, sample_variance};
use tessera_protocol::monte_carlo::{GREEKS, SumsLayout};
use tessera_protocol::spec::{ContractKind, ContractSpec, ModelName, MonitoringSpec};

use crate::FinishError;

/// Half the width of a 95 % interval in standard errors: the normal quantile at 0.975.
const Z_95: f64 = 1.959_963_984_540_054;

const PATHWISE: &str = "pathwise";
const LIKELIHOOD_RATIO: &str = "likelihood_ratio";
const MIXED: &str = "likelihood_ratio_pathwise";

/// The derivative by an underlying's spot.
#[derive(Serialize)]
pub(super) struct Delta {
    delta: f64,
    delta_standard_error: f64,
    delta_method: &'static str,
}

/// A price whose noise a control has been taken off.
#[derive(Serialize)]
pub(super) struct Control {
    method: &'static str,
    beta: f64,
    price: f64,
    standard_error: f64,
    ci95: [f64; 2],
}

/// Derivatives besides delta: by the spot twice, by the volatility, by the rate, by the time that passes.
#[derive(Serialize)]
pub(super) struct Greeks {
    gamma: Option<Greek>,
    vega: Option<Greek>,
    rho: Option<Greek>,
    theta: Option<Greek>,
}

#[derive(Serialize)]
struct Greek {
    value: f64,
    standard_error: f64,
    method: &'static str,
}

impl Delta {
    pub(super) fn new(
        contract: &ContractSpec,
        samples: u64,
        sums: &[ExactSum],
    ) -> Result<Delta, FinishError> {
        let (delta, delta_standard_error) = mean_and_error(samples, sums)?;
        let delta_method = match contract.kind {
            ContractKind::DownAndOutCall | ContractKind::DownAndOutPut => match contract.monitoring {
                Some(MonitoringSpec::Dates(_)) => LIKELIHOOD_RATIO,
                Some(MonitoringSpec::Continuous) | None => PATHWISE,
            },
            ContractKind::DigitalCall | ContractKind::DigitalPut => LIKELIHOOD_RATIO,
            _ => PATHWISE,
        };
        Ok(Delta { delta, delta_standard_error, delta_method })
    }
}

impl Control {
    /// `controls` are `Σc, Σc², Σxc` of the control less its mean, `price` is `Σx, Σx²`.
    pub(super) fn new(
        model: ModelName,
        contract: &ContractSpec,
        samples: u64,
        price: &[ExactSum],
        controls: &[ExactSum],
    ) -> Result<Control, FinishError> {
        let count = samples as f64;
        let (plain, _) = mean_and_error(samples, price)?;
        let (mean, _) = mean_and_error(samples, controls)?;
        let (mut beta, mut standard_error) = (0.0, f64::NAN);
        if samples > 2 {
            let of_price = sample_variance(samples, &price[0], &price[1]);
            let of_control = sample_variance(samples, &controls[0], &controls[1]);
            // The control's mean is near zero, so nothing cancels.
            let covariance = (controls[2].to_f64() - count * plain * mean) / (count - 1.0);
            beta = if of_control > 0.0 { covariance / of_control } else { 0.0 };
            let rest = of_price - beta * covariance;
            let rest = if rest > 0.0 { rest } else { 0.0 };
            // Two parameters were fitted.
            standard_error = libm::sqrt(rest * (count - 1.0) / (count - 2.0) / count);
        }
        let price = plain - beta * mean;
        if !price.is_finite() || (samples > 2 && !standard_error.is_finite()) {
            return Err(FinishError::NotFinite);
        }
        let method = match contract.kind {
            ContractKind::AsianCall | ContractKind::AsianPut if model == ModelName::Heston => {
                "arithmetic_average"
            }
            ContractKind::AsianCall | ContractKind::AsianPut => "geometric_average",
            ContractKind::BasketCall | ContractKind::BasketPut => "discounted_basket",
            ContractKind::AmericanCall | ContractKind::AmericanPut => "stopped_underlying",
            _ => "discounted_underlying",
        };
        Ok(Control { method, beta, price, standard_error, ci95: interval(price, standard_error) })
    }
}

impl Greeks {
    /// None where none are tallied.
    pub(super) fn new(
        model: ModelName,
        contract: &ContractSpec,
        samples: u64,
        position: usize,
        layout: &SumsLayout,
        sums: &[ExactSum],
    ) -> Result<Option<Greeks>, FinishError> {
        let methods = methods(model, contract);
        let greek = |nth: usize| -> Result<Option<Greek>, FinishError> {
            let (Some(range), Some(method)) = (layout.greek(position, nth), methods[nth]) else {
                return Ok(None);
            };
            let (value, standard_error) = mean_and_error(samples, &sums[range])?;
            Ok(Some(Greek { value, standard_error, method }))
        };
        if layout.greek(position, 0).is_none() {
            return Ok(None);
        }
        Ok(Some(Greeks { gamma: greek(0)?, vega: greek(1)?, rho: greek(2)?, theta: greek(3)? }))
    }
}

/// How gamma, vega, rho and theta of a contract are estimated; nothing where they are not.
fn methods(model: ModelName, contract: &ContractSpec) -> [Option<&'static str>; GREEKS] {
    let brownian = |method| (model == ModelName::Gbm).then_some(method);
    match contract.kind {
        ContractKind::EuropeanCall
        | ContractKind::EuropeanPut
        | ContractKind::AsianCall
        | ContractKind::AsianPut => [Some(MIXED), brownian(PATHWISE), Some(PATHWISE), brownian(PATHWISE)],
        ContractKind::DigitalCall | ContractKind::DigitalPut => {
            let score = Some(LIKELIHOOD_RATIO);
            [score, brownian(LIKELIHOOD_RATIO), score, brownian(LIKELIHOOD_RATIO)]
        }
        ContractKind::DownAndOutCall | ContractKind::DownAndOutPut => {
            let score = brownian(LIKELIHOOD_RATIO);
            [Some(LIKELIHOOD_RATIO), score, score, score]
        }
        ContractKind::BasketCall | ContractKind::BasketPut => [None, None, Some(PATHWISE), None],
        ContractKind::AmericanCall | ContractKind::AmericanPut => {
            [None, Some(PATHWISE), Some(PATHWISE), None]
        }
    }
}

/// The mean, and its standard error: undefined (written `null`) for a single sample. `sums` are of the
/// samples and of their squares.
pub(super) fn mean_and_error(samples: u64, sums: &[ExactSum]) -> Result<(f64, f64), FinishError> {
    let count = samples as f64;
    let mean = sums[0].to_f64() / count;
    if samples < 2 {
        return if mean.is_finite() { Ok((mean, f64::NAN)) } else { Err(FinishError::NotFinite) };
    }
    let standard_error = libm::sqrt(sample_variance(samples, &sums[0], &sums[1]) / count);
    let finite = mean.is_finite() && standard_error.is_finite();
    if finite { Ok((mean, standard_error)) } else { Err(FinishError::NotFinite) }
}

pub(super) fn interval(mean: f64, standard_error: f64) -> [f64; 2] {
    [mean - Z_95 * standard_error, mean + Z_95 * standard_error]
}
