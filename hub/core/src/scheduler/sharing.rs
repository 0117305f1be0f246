//! What projects may have of a lane, as the operator says.

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::message::Work;

/// What one project may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its part against those of the other projects that have work, at least one.
    pub weight: u32,
    /// Attempts it may have in flight on one lane at each priority, checks and retries not held back.
    pub in_flight_max: Option<u64>,
}

impl Default for Share {
    fn default() -> Share {
        Share { weight: 1, in_flight_max: None }
    }
}

/// What each project may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Of a project that is not named.
    pub default: Share,
    /// Of those that are, by name.
    pub projects: BTreeMap<String, Share>,
}

impl Sharing {
    /// Weight and quota of a job's project: what it pays multiplies what the operator gives.
    pub(super) fn of(&self, work: &Work) -> (u32, Option<u64>) {
        let share = self.projects.get(&*work.project).unwrap_or(&self.default);
        (share.weight.max(1).saturating_mul(work.weight.max(1)), share.in_flight_max)
    }
}
