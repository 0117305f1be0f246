//! What the parameters of the video workload may be.

use super::Findings;
use crate::spec::{Input, VideoParams};

impl Findings {
    pub(super) fn video(&mut self, _params: &VideoParams, _inputs: &[Input]) {}
}
