//! Parameters of the video workload.

use serde::{Deserialize, Serialize};

/// What the video workload computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoParams {}
