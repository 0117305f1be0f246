//! Parameters of the catastrophe workload.

use serde::{Deserialize, Serialize};

/// What the catastrophe workload computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatastropheParams {}
