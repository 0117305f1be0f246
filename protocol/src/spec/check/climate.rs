//! What the parameters of the climate workload may be.

use super::Findings;
use crate::spec::{ClimateParams, Input};

impl Findings {
    pub(super) fn climate(&mut self, _params: &ClimateParams, _inputs: &[Input]) {}
}
