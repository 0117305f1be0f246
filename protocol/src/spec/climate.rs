//! Parameters of the climate workload.

use serde::{Deserialize, Serialize};

/// What the climate workload computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClimateParams {}
