//! Whether a job may be: limits and price, before anything is promised.

use core::fmt;

use serde::{Deserialize, Serialize};
use tessera_planners::Plan;
use tessera_protocol::spec::Manifest;

/// Why a job is refused although its specification is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionError {
    /// The plan costs more than the client allows.
    CostCap {
        /// What it costs.
        cost: u64,
        /// What the client allows.
        cap: u64,
    },
    /// Its manifest is larger than one transaction of the store.
    TooLarge,
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdmissionError::CostCap { cost, cap } => write!(
                f,
                "the plan costs {cost} compute units, limits.cost_cap allows {cap}: raise the cap or ask for fewer paths"
            ),
            AdmissionError::TooLarge => f.write_str(
                "the specification is larger than one transaction of the store: price the book in several jobs",
            ),
        }
    }
}

impl core::error::Error for AdmissionError {}

/// Judges a job against its manifest's limits, by the most that all its rounds can cost.
pub fn admit(manifest: &Manifest, plan: &Plan) -> Result<(), AdmissionError> {
    match manifest.spec().limits.cost_cap {
        Some(cap) => {
            let most = plan.cost_max(manifest).map_or(u64::MAX, |cost| cost.0);
            if most > cap { Err(AdmissionError::CostCap { cost: most, cap }) } else { Ok(()) }
        }
        None => Ok(()),
    }
}
