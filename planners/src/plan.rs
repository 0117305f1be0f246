//! The plan of a job: how its samples are cut into shards, and what each costs.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::id::Digest;
use tessera_protocol::spec::{Manifest, Workload};
use tessera_protocol::tally::{Shape, Tally, TallyError};
use tessera_protocol::unit::{ComputeUnits, ShardIndex};

use crate::monte_carlo;

/// A job cut into shards. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    kernel: &'static str,
    task: Arc<[u8]>,
    first: u64,
    end: u64,
    shard_size: u64,
    unit_cost: u64,
    cost: ComputeUnits,
    manifest_digest: Digest,
    digest: Digest,
}

/// One unit of work: samples `first .. first + count` of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Position in the plan.
    pub index: ShardIndex,
    /// First sample: the shard's offset into the random numbers of the seed.
    pub first: u64,
    /// Number of samples, at least one.
    pub count: u64,
    /// What it costs.
    pub cost: ComputeUnits,
}

/// Why a job cannot be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The whole job costs more than 2^64 - 1 units.
    CostOverflow,
    /// The paths to continue from are not fewer than all paths.
    NothingToAdd {
        /// Paths that exist.
        have: u64,
        /// Paths asked for.
        want: u64,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::CostOverflow => f.write_str(
                "the job costs more than 2^64 - 1 compute units: ask for fewer paths or a smaller book",
            ),
            PlanError::NothingToAdd { have, want } => {
                write!(f, "paths = {want}: must be more than the {have} that are computed already")
            }
        }
    }
}

impl core::error::Error for PlanError {}

#[derive(Serialize)]
struct PlanForm<'a> {
    manifest: Digest,
    kernel: &'a str,
    task: Digest,
    first: u64,
    end: u64,
    shard_size: u64,
    unit_cost: u64,
}

impl Plan {
    /// Plans the paths of a job from `first` on: zero for a whole job, the finished paths to extend one.
    pub fn new(manifest: &Manifest, first: u64) -> Result<Plan, PlanError> {
        let params = &manifest.spec().params;
        if first >= params.paths {
            return Err(PlanError::NothingToAdd { have: first, want: params.paths });
        }
        let Workload::MonteCarlo = manifest.spec().workload;
        let task = monte_carlo::task(manifest.spec());
        let unit_cost = monte_carlo::unit_cost(&task);
        let samples = params.paths - first;
        let cost = samples.checked_mul(unit_cost).map(ComputeUnits).ok_or(PlanError::CostOverflow)?;
        let shard_size = params.shard_size.unwrap_or_else(|| monte_carlo::shard_size(samples, unit_cost));
        let task: Arc<[u8]> = task.encode().into();
        let mut plan = Plan {
            kernel: manifest.spec().workload.kernel(),
            task,
            first,
            end: params.paths,
            shard_size,
            unit_cost,
            cost,
            manifest_digest: manifest.digest(),
            digest: Digest([0; 32]),
        };
        plan.digest = Digest::of(&plan.canonical_form());
        Ok(plan)
    }

    fn canonical_form(&self) -> Vec<u8> {
        let form = PlanForm {
            manifest: self.manifest_digest,
            kernel: self.kernel,
            task: Digest::of(&self.task),
            first: self.first,
            end: self.end,
            shard_size: self.shard_size,
            unit_cost: self.unit_cost,
        };
        // Every number is below 2^53 by the limits on paths and contracts.
        canonical::to_vec(&form).unwrap_or_default()
    }

    /// The shard at an index, or `None` past the last.
    pub fn shard(&self, index: ShardIndex) -> Option<Shard> {
        let offset = index.0.checked_mul(self.shard_size)?;
        let first = self.first.checked_add(offset).filter(|first| *first < self.end)?;
        let count = self.shard_size.min(self.end - first);
        Some(Shard { index, first, count, cost: ComputeUnits(count * self.unit_cost) })
    }

    /// Number of shards, at least one.
    pub fn shards(&self) -> u64 {
        (self.end - self.first).div_ceil(self.shard_size)
    }

    /// What all shards cost, checks not counted.
    pub fn cost(&self) -> ComputeUnits {
        self.cost
    }

    /// Samples to a shard; the last may hold fewer.
    pub fn shard_size(&self) -> u64 {
        self.shard_size
    }

    /// First sample of the plan.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the last sample of the plan.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What one sample costs.
    pub fn unit_cost(&self) -> ComputeUnits {
        ComputeUnits(self.unit_cost)
    }

    /// Names the cut: manifest, task, range, shard size and cost.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The kernel that runs its shards.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// What every agent needs besides a range of samples.
    pub fn task(&self) -> &Arc<[u8]> {
        &self.task
    }
}

/// Why a reduced tally is not a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishError {
    /// It does not cover the job's samples.
    Samples {
        /// Samples it holds.
        found: u64,
        /// Samples of the job.
        wanted: u64,
    },
    /// It has another shape than its workload's.
    Shape(TallyError),
    /// A sum or its spread left the finite numbers.
    NotFinite,
    /// A value that no canonical document can hold.
    NotCanonical,
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FinishError::Samples { found, wanted } => {
                write!(f, "the reduced tally holds {found} samples, the job has {wanted}")
            }
            FinishError::Shape(error) => f.write_str(&error.to_string()),
            FinishError::NotFinite => f.write_str("a mean or standard error of the result is not finite"),
            FinishError::NotCanonical => f.write_str("the result holds a number that no document can carry"),
        }
    }
}

impl core::error::Error for FinishError {}

/// The result document of a job: canonical JSON, a function of manifest and tally alone.
pub fn finish(manifest: &Manifest, tally: &Tally) -> Result<Vec<u8>, FinishError> {
    let Workload::MonteCarlo = manifest.spec().workload;
    monte_carlo::finish(manifest.spec(), tally)
}

/// What a partial of the manifest's workload holds.
pub fn shape(manifest: &Manifest) -> Shape {
    let Workload::MonteCarlo = manifest.spec().workload;
    monte_carlo::shape(manifest.spec())
}

/// Whether a tally of the right shape can be one of `count` samples of the manifest's workload.
pub fn fits(manifest: &Manifest, count: u64, tally: &Tally) -> bool {
    let Workload::MonteCarlo = manifest.spec().workload;
    tally.samples == count && monte_carlo::fits(manifest.spec(), tally)
}
