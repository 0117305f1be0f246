//! Typed units, so that no signature carries two bare integers.

use serde::{Deserialize, Serialize};

/// A moment on the hub's monotonic clock. *Units*: milliseconds since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `ms` milliseconds later.
    pub fn after_ms(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }
}

/// Wall-clock time handed in by a shell for display. *Units*: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

/// The price of work, fixed by the plan: one unit is one random draw or one payoff evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ComputeUnits(pub u64);

impl ComputeUnits {
    /// The sum, or `None` past `u64::MAX`.
    pub fn checked_add(self, other: ComputeUnits) -> Option<ComputeUnits> {
        self.0.checked_add(other.0).map(ComputeUnits)
    }
}

/// Position of a shard in its job's plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardIndex(pub u64);

/// How often leases were handed out by a lane: an attempt's fencing number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One hub core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIndex(pub u16);

impl LaneIndex {
    /// As an index into a slice that holds one item a lane.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl core::fmt::Display for LaneIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "lane {}", self.0)
    }
}

/// A half-open range of shard indices of one job. *Order*: `start <= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardRange {
    /// First index.
    pub start: u64,
    /// One past the last index.
    pub end: u64,
}

impl ShardRange {
    /// The range of one index.
    pub fn one(index: ShardIndex) -> ShardRange {
        ShardRange { start: index.0, end: index.0 + 1 }
    }

    /// How many indices it holds.
    pub fn count(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds none.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}
