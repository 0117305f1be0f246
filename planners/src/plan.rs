//! The plan of a job's round: how its work is cut into shards, and what each costs.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::matrix;
use tessera_protocol::product::{ProductRef, ProductView};
use tessera_protocol::spec::{Manifest, MonteCarloParams, Params};
use tessera_protocol::tally::{PackedTally, Shape, Tally, TallyError};
use tessera_protocol::unit::{ComputeUnits, ShardIndex, ShardRange};

use crate::round::{Pass, Round};
use crate::staged::{self, Stage, StageError, Step};
use crate::{matrix as matrix_plan, monte_carlo};

/// One round of a job cut into shards. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    kernel: Arc<str>,
    task: Arc<[u8]>,
    task_digest: Digest,
    pass: Arc<[u8]>,
    round: Round,
    cut: Cut,
    cost: ComputeUnits,
    manifest_digest: Digest,
    digest: Digest,
}

/// From an index to a shard.
#[derive(Clone, Debug, PartialEq)]
enum Cut {
    /// Samples of the round, so many to a shard.
    Samples { shard_size: u64, unit_cost: u64 },
    /// Blocks of a matrix product.
    Blocks(Arc<matrix::Task>),
    /// Units of a stage, so many to a shard.
    Units { name: &'static str, shard_units: u64, unit_cost: u64, inputs: Arc<[(Digest, u64)]> },
}

impl Cut {
    /// The samples of a round, and what they cost.
    fn samples(
        params: &MonteCarloParams,
        round: &Round,
        unit_cost: u64,
    ) -> Result<(Cut, ComputeUnits), PlanError> {
        let samples = round.end.saturating_sub(round.first);
        let cost = samples.checked_mul(unit_cost).ok_or(PlanError::CostOverflow)?;
        let shard_size = params.shard_size.unwrap_or_else(|| monte_carlo::shard_size(samples, unit_cost));
        Ok((Cut::Samples { shard_size, unit_cost }, ComputeUnits(cost)))
    }
}

/// One unit of work: samples `first .. first + count` of the job, or block `first` of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Position in the job; the rounds of a job continue each other's numbers.
    pub index: ShardIndex,
    /// First sample: the shard's offset into the random numbers of the seed. Of a matrix job, its block.
    pub first: u64,
    /// Number of samples, at least one; of a matrix job, one.
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
    /// A job that stops by itself decides how many paths it takes; one that adds to it may not have a stop.
    StopsByItself,
    /// The parameters do not make a task: the manifest was not checked, or today's limits are other ones.
    NoTask,
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
            PlanError::StopsByItself => f.write_str(
                "params.stop: must be absent where paths are added to those that are computed already",
            ),
            PlanError::NoTask => f.write_str("the job's parameters lie outside what this version computes"),
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
    #[serde(skip_serializing_if = "is_zero")]
    round: u32,
    #[serde(skip_serializing_if = "is_zero")]
    shards_before: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<Digest>,
}

fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

impl Plan {
    /// Plans the first round of a job's paths from `first` on: zero for a whole job, the finished paths
    /// to extend one by exactly what is missing.
    pub fn new(manifest: &Manifest, first: u64) -> Result<Plan, PlanError> {
        let round = match &manifest.spec().params {
            Params::MonteCarlo(params) if first >= params.paths => {
                return Err(PlanError::NothingToAdd { have: first, want: params.paths });
            }
            Params::MonteCarlo(params) if first > 0 && params.stop.is_some() => {
                return Err(PlanError::StopsByItself);
            }
            Params::MonteCarlo(params) => monte_carlo::first_round(params, first),
            Params::Gemm(_) | Params::Syrk(_) => Round::default(),
            Params::Staged(_) => Round { pass: Pass::Stage(Vec::new()), ..Round::default() },
        };
        Plan::of_round(manifest, round)
    }

    /// Plans a round, as it was planned when the job reached it.
    pub fn of_round(manifest: &Manifest, round: Round) -> Result<Plan, PlanError> {
        let spec = manifest.spec();
        let (round, task, cut, cost) = match &spec.params {
            Params::MonteCarlo(params) => {
                let task = monte_carlo::task(spec.seed, params);
                let (cut, cost) = Cut::samples(params, &round, monte_carlo::unit_cost(&task))?;
                (round, task.encode(), cut, cost)
            }
            Params::Gemm(_) | Params::Syrk(_) => {
                let task = matrix_plan::task(spec).ok_or(PlanError::NoTask)?;
                let cost = ComputeUnits(matrix_plan::cost(&task));
                let round = Round { end: task.blocks(), ..round };
                (round, task.encode(), Cut::Blocks(Arc::new(task)), cost)
            }
            Params::Staged(params) => {
                let Pass::Stage(done) = &round.pass else { return Err(PlanError::NoTask) };
                match staged::step(spec, params, done) {
                    Ok(Step::Stage(stage)) => return Ok(Plan::of_stage(manifest, round, stage)),
                    Ok(Step::Finished(_)) | Err(_) => return Err(PlanError::NoTask),
                }
            }
        };
        let plan = Plan {
            kernel: spec.kernel().into(),
            task_digest: Digest::of(&task),
            task: task.into(),
            pass: monte_carlo::pass_bytes(&round.pass).into(),
            round,
            cut,
            cost,
            manifest_digest: manifest.digest(),
            digest: Digest([0; 32]),
        };
        Ok(plan.named())
    }

    fn of_stage(manifest: &Manifest, round: Round, stage: Stage) -> Plan {
        let Stage { name, task, inputs, units, shard_units, unit_cost } = stage;
        let plan = Plan {
            kernel: manifest.spec().kernel().into(),
            task_digest: Digest::of(&task),
            task: task.into(),
            pass: Arc::default(),
            round: Round { first: 0, end: units, ..round },
            cut: Cut::Units { name, shard_units, unit_cost, inputs: inputs.into() },
            cost: ComputeUnits(units * unit_cost),
            manifest_digest: manifest.digest(),
            digest: Digest([0; 32]),
        };
        plan.named()
    }

    /// Another round of the same manifest, equal to [`Plan::of_round`]'s, without making the task again.
    pub fn at_round(&self, manifest: &Manifest, round: Round) -> Result<Plan, PlanError> {
        let (params, unit_cost) = match (&manifest.spec().params, &self.cut) {
            (Params::MonteCarlo(params), Cut::Samples { unit_cost, .. }) => (params, unit_cost),
            (Params::Staged(_), _) => return Plan::of_round(manifest, round),
            _ => return Ok(self.clone()),
        };
        let (cut, cost) = Cut::samples(params, &round, *unit_cost)?;
        let pass = monte_carlo::pass_bytes(&round.pass).into();
        Ok(Plan { pass, round, cut, cost, ..self.clone() }.named())
    }

    /// The most that the paths of a job from this first round on can cost in all its rounds, checks not
    /// counted.
    pub fn cost_max(&self, manifest: &Manifest) -> Result<ComputeUnits, PlanError> {
        match (&manifest.spec().params, &self.cut) {
            (Params::MonteCarlo(params), Cut::Samples { unit_cost, .. }) => {
                monte_carlo::samples_max(params, self.round.first)
                    .and_then(|samples| samples.checked_mul(*unit_cost))
                    .map(ComputeUnits)
                    .ok_or(PlanError::CostOverflow)
            }
            _ => Ok(self.cost),
        }
    }

    /// With the digest of what it says.
    fn named(self) -> Plan {
        let digest = Digest::of(&self.canonical_form());
        Plan { digest, ..self }
    }

    fn canonical_form(&self) -> Vec<u8> {
        let unit_cost = match &self.cut {
            Cut::Samples { unit_cost, .. } | Cut::Units { unit_cost, .. } => *unit_cost,
            Cut::Blocks(_) => 0,
        };
        let form = PlanForm {
            manifest: self.manifest_digest,
            kernel: &self.kernel,
            task: self.task_digest,
            first: self.round.first,
            end: self.round.end,
            shard_size: self.shard_size(),
            unit_cost,
            round: self.round.number,
            shards_before: self.round.shards_before,
            pass: (!self.pass.is_empty()).then(|| Digest::of(&self.pass)),
        };
        // Every number is below 2^53 by the limits on paths, contracts and matrices.
        canonical::to_vec(&form).unwrap_or_default()
    }

    /// The shard at an index, or `None` for one that is not of this round.
    pub fn shard(&self, index: ShardIndex) -> Option<Shard> {
        let offset = index.0.checked_sub(self.round.shards_before)?;
        match &self.cut {
            Cut::Samples { shard_size, unit_cost }
            | Cut::Units { shard_units: shard_size, unit_cost, .. } => {
                let first = self.round.first.checked_add(offset.checked_mul(*shard_size)?)?;
                let count = self.round.end.checked_sub(first).filter(|left| *left > 0)?.min(*shard_size);
                Some(Shard { index, first, count, cost: ComputeUnits(count * unit_cost) })
            }
            Cut::Blocks(task) => {
                let block = task.block(offset)?;
                Some(Shard {
                    index,
                    first: offset,
                    count: 1,
                    cost: ComputeUnits(matrix_plan::block_cost(&block)),
                })
            }
        }
    }

    /// Number of shards of this round, at least one.
    pub fn shards(&self) -> u64 {
        match &self.cut {
            Cut::Samples { shard_size, .. } | Cut::Units { shard_units: shard_size, .. } => {
                (self.round.end - self.round.first).div_ceil(*shard_size)
            }
            Cut::Blocks(task) => task.blocks(),
        }
    }

    /// The indices of this round's shards.
    pub fn indices(&self) -> ShardRange {
        let start = self.round.shards_before;
        ShardRange { start, end: start + self.shards() }
    }

    /// What the shards of this round cost, checks not counted.
    pub fn cost(&self) -> ComputeUnits {
        self.cost
    }

    /// Samples to a shard; the last may hold fewer. Of a matrix job, the elements of a tile.
    pub fn shard_size(&self) -> u64 {
        match &self.cut {
            Cut::Samples { shard_size, .. } | Cut::Units { shard_units: shard_size, .. } => *shard_size,
            Cut::Blocks(task) => task.tile[0] * task.tile[1],
        }
    }

    /// Which part of the job it is.
    pub fn round(&self) -> &Round {
        &self.round
    }

    /// First sample of the plan.
    pub fn first(&self) -> u64 {
        self.round.first
    }

    /// One past the last sample of the plan.
    pub fn end(&self) -> u64 {
        self.round.end
    }

    /// Names the cut: manifest, task, range, shard size and cost.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The kernel that runs its shards.
    pub fn kernel(&self) -> &Arc<str> {
        &self.kernel
    }

    /// What every agent needs besides a range of samples.
    pub fn task(&self) -> &Arc<[u8]> {
        &self.task
    }

    /// Of the task.
    pub fn task_digest(&self) -> Digest {
        self.task_digest
    }

    /// What every agent needs besides the task for the pass that the round is part of; empty for the first.
    pub fn pass(&self) -> &Arc<[u8]> {
        &self.pass
    }

    /// The matrix product that it cuts; nothing for samples.
    pub fn matrix(&self) -> Option<&Arc<matrix::Task>> {
        match &self.cut {
            Cut::Samples { .. } | Cut::Units { .. } => None,
            Cut::Blocks(task) => Some(task),
        }
    }

    /// The name of the stage that it cuts; nothing for a job without stages.
    pub fn stage(&self) -> Option<&'static str> {
        match &self.cut {
            Cut::Units { name, .. } => Some(name),
            Cut::Samples { .. } | Cut::Blocks(_) => None,
        }
    }

    /// The files that the task reads, by digest and length, in the order in which it numbers them.
    pub fn inputs(&self) -> Vec<(Digest, u64)> {
        match &self.cut {
            Cut::Samples { .. } => Vec::new(),
            Cut::Blocks(task) => {
                task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect()
            }
            Cut::Units { inputs, .. } => inputs.to_vec(),
        }
    }

    /// Room that an agent needs: on its disk for the files that the task reads, in memory for a block of a product, whichever
    /// is more. What an agent offers is for either.
    /// *Units*: bytes.
    pub fn operand_bytes(&self) -> u64 {
        let files = || self.inputs().iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        match &self.cut {
            Cut::Samples { .. } => 0,
            Cut::Units { .. } => files(),
            Cut::Blocks(task) => files().max(task.block_bytes()),
        }
    }

    /// The longest partial that one of its shards can have. *Units*: bytes.
    pub fn partial_bytes_max(&self, manifest: &Manifest) -> usize {
        match &self.cut {
            Cut::Samples { .. } => shape(manifest, &self.round.pass).encoded_bytes_max(),
            Cut::Blocks(task) => (task.tile[0] * task.tile[1] * task.element_bytes()) as usize,
            Cut::Units { .. } => limits::PRODUCT_BYTES_MAX,
        }
    }

    /// Reads the partial of one of its shards from outside; nothing where it cannot be one.
    /// `blake3` is of the bytes, as the caller has found.
    pub fn read_partial(
        &self,
        manifest: &Manifest,
        index: ShardIndex,
        blake3: Digest,
        bytes: &[u8],
    ) -> Option<Part> {
        let shard = self.shard(index)?;
        match &self.cut {
            Cut::Samples { .. } => {
                let tally = PackedTally::read(bytes, &shape(manifest, &self.round.pass)).ok()?;
                let fits = tally.samples == shard.count && fits(manifest, &self.round.pass, &tally);
                fits.then_some(Part::Tally(tally))
            }
            Cut::Blocks(task) => {
                let block = task.block(shard.first)?;
                let whole = bytes.len() as u64 == block.elements() * task.element_bytes();
                let fits = whole
                    && matrix_plan::all_finite(bytes, task.dtype())
                    && matrix_plan::is_half(bytes, task, &block);
                fits.then(|| Part::Block(bytes.into()))
            }
            Cut::Units { name, .. } => {
                let product = ProductView::decode(bytes).ok()?;
                let fits = staged::fits(manifest.spec(), name, shard.count, &product);
                fits.then(|| Part::Product(product.reference(blake3), bytes.into()))
            }
        }
    }
}

/// What one shard's partial holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Sums and counts of its samples.
    Tally(PackedTally),
    /// The elements of its block, by rows, little-endian.
    Block(Vec<u8>),
    /// A product and its encoding.
    Product(ProductRef, Arc<[u8]>),
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

/// What comes after a round whose shards are all reduced.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing: this is the result document, canonical JSON, a function of manifest and tallies alone.
    Finished(Vec<u8>),
    /// More shards.
    Round(Box<Plan>),
}

/// Goes on after a round of samples. `tallies` are those of the passes so far, the sampling pass first;
/// the last one is of the pass that the round is part of.
pub fn next(manifest: &Manifest, plan: &Plan, tallies: &[&Tally]) -> Result<Next, FinishError> {
    let Params::MonteCarlo(params) = &manifest.spec().params else {
        return Err(FinishError::Shape(TallyError::Shape));
    };
    let after = monte_carlo::next_round(params, plan, tallies)?;
    match after.map(|round| plan.at_round(manifest, round)) {
        Some(Ok(plan)) => Ok(Next::Round(Box::new(plan))),
        // A later round is never dearer than the whole job, which was planned.
        Some(Err(_)) => Err(FinishError::NotCanonical),
        None => monte_carlo::finish(params, plan, tallies).map(Next::Finished),
    }
}

/// Goes on after a stage. `products` are those of its shards, in order.
pub fn next_stage(manifest: &Manifest, plan: &Plan, products: Vec<ProductRef>) -> Result<Next, StageError> {
    let (Params::Staged(params), Pass::Stage(done)) = (&manifest.spec().params, &plan.round.pass) else {
        return Err(StageError::Size("it has no stages".into()));
    };
    let mut done = done.clone();
    done.push(products);
    match staged::step(manifest.spec(), params, &done)? {
        Step::Finished(document) => Ok(Next::Finished(document)),
        Step::Stage(stage) => {
            let number = plan.round.number + 1;
            let shards_before = plan.indices().end;
            let round = Round { number, shards_before, first: 0, end: 0, pass: Pass::Stage(done) };
            Ok(Next::Round(Box::new(Plan::of_stage(manifest, round, stage))))
        }
    }
}

/// The result document of a matrix job, whose result is a file: canonical JSON.
pub fn finish_matrix(plan: &Plan, output: Digest, bytes: u64) -> Result<Vec<u8>, FinishError> {
    let task = plan.matrix().ok_or(FinishError::Shape(TallyError::Shape))?;
    matrix_plan::finish(&plan.kernel, task, output, bytes)
}

/// What a partial of a pass of the manifest's samples holds.
fn shape(manifest: &Manifest, pass: &Pass) -> Shape {
    match &manifest.spec().params {
        Params::MonteCarlo(params) => monte_carlo::shape(params, pass),
        Params::Gemm(_) | Params::Syrk(_) | Params::Staged(_) => Shape { sums: 0, counts: 0, bins_max: 0 },
    }
}

/// Whether a tally of the right shape can be one of a pass of the manifest's samples.
fn fits(manifest: &Manifest, pass: &Pass, tally: &PackedTally) -> bool {
    match &manifest.spec().params {
        Params::MonteCarlo(params) => monte_carlo::fits(params, pass, tally),
        Params::Gemm(_) | Params::Syrk(_) | Params::Staged(_) => false,
    }
}
