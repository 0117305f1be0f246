//! What the parameters of the catastrophe workload may be.

use super::Findings;
use crate::spec::{CatastropheParams, Input};

impl Findings {
    pub(super) fn catastrophe(&mut self, _params: &CatastropheParams, _inputs: &[Input]) {}
}
