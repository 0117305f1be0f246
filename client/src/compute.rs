//! A whole job computed by this process: no hub, no agents, the same bytes.
//!
//! Owns the order in which shards are computed and merged here; that it cannot show is what `tessera kernels
//! matrix` demonstrates. Plans and merges with the same functions as a hub, computes with the same kernels as
//! an agent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tessera_cuda::{CudaError, Emulator};
use tessera_kernels::isa::Isa;
use tessera_kernels::{matrix, monte_carlo, staged};
use tessera_planners::{
    FinishError, Fold, Next, Plan, PlanError, StageError, TileMisfit, finish_matrix, next, npy_band,
    npy_header,
};
use tessera_protocol::id::Digest;
use tessera_protocol::matrix::Task as MatrixTask;
use tessera_protocol::monte_carlo::{Refine, Task as PathsTask};
use tessera_protocol::spec::Manifest;
use tessera_protocol::tally::{Tally, TallyError};
use tessera_protocol::unit::ShardIndex;

mod quick;
mod stages;

pub use quick::{Finished, Look, SIDE_MIN, look, look_at_stages};

/// What computes a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// This processor with one of its instruction sets.
    Processor(Isa),
    /// The PTX that GPUs load, in the interpreter.
    Ptx,
}

impl Path {
    /// Every path that this machine can take.
    pub fn available() -> Vec<Path> {
        Isa::available().into_iter().map(Path::Processor).chain([Path::Ptx]).collect()
    }

    /// `plain`, `avx2`, `avx512` or `ptx`.
    pub fn name(self) -> &'static str {
        match self {
            Path::Processor(isa) => isa.name(),
            Path::Ptx => "ptx",
        }
    }
}

/// In which order the shards of a round are begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are numbered.
    Ascending,
    /// The last one first.
    Descending,
    /// Mixed up, always in the same way.
    Shuffled,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 3] = [Order::Ascending, Order::Descending, Order::Shuffled];

    /// `ascending`, `descending` or `shuffled`.
    pub fn name(self) -> &'static str {
        match self {
            Order::Ascending => "ascending",
            Order::Descending => "descending",
            Order::Shuffled => "shuffled",
        }
    }

    /// Which of `shards` comes at a position.
    fn at(self, position: u64, shards: u64) -> u64 {
        match self {
            Order::Ascending => position,
            Order::Descending => shards - 1 - position,
            Order::Shuffled => {
                // A stride that shares no divisor with the count visits each once.
                let coprime = |stride: &u64| gcd(*stride, shards) == 1;
                let stride = (shards * 5 / 8 + 1..).find(coprime).unwrap_or(1);
                (u128::from(position) * u128::from(stride) % u128::from(shards)) as u64
            }
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How a job is computed here. None of it can show in the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// On what.
    pub path: Path,
    /// Threads that each take shards, as agents do.
    pub agents: usize,
    /// In which order.
    pub order: Order,
}

/// Finds the matrix in an input file.
pub type FindInput<'a> = dyn Fn(Digest) -> Result<Arc<matrix::Matrix>, ComputeError> + Sync + 'a;

/// Where the input files of a job come from.
pub trait Inputs: Sync {
    /// A file as a matrix.
    fn matrix(&self, input: Digest) -> Result<Arc<matrix::Matrix>, ComputeError>;

    /// A file as it is.
    fn file(&self, input: Digest) -> Result<Bytes, ComputeError>;
}

/// Of jobs that have none.
#[derive(Clone, Copy, Debug)]
pub struct NoInputs;

impl NoInputs {
    fn refuse<T>(input: Digest) -> Result<T, ComputeError> {
        Err(ComputeError::Input { input, cause: "the job was to have no inputs".to_owned() })
    }
}

impl Inputs for NoInputs {
    fn matrix(&self, input: Digest) -> Result<Arc<matrix::Matrix>, ComputeError> {
        NoInputs::refuse(input)
    }

    fn file(&self, input: Digest) -> Result<Bytes, ComputeError> {
        NoInputs::refuse(input)
    }
}

/// Hears of progress: shards done and shards known.
pub type OnProgress<'a> = dyn Fn(u64, u64) + Sync + 'a;

/// Why a job gave no result.
#[derive(Debug)]
pub enum ComputeError {
    /// There is no plan.
    Plan(PlanError),
    /// The plan's task is not one that this version computes.
    Task,
    /// The Monte Carlo kernel stopped.
    Paths(monte_carlo::KernelError),
    /// The matrix kernel stopped.
    Matrix(matrix::KernelError),
    /// The device, or its emulation, stopped.
    Device(CudaError),
    /// The path has no kernel for this job.
    Unsupported {
        /// What it lacks.
        what: String,
    },
    /// An input file is not what the job says.
    Input {
        /// Which.
        input: Digest,
        /// Why.
        cause: String,
    },
    /// A file that the job gave cannot be had, or is another one.
    Output {
        /// Which.
        name: String,
        /// Why.
        cause: String,
    },
    /// A kernel of a stage stopped.
    Stage(staged::StageError),
    /// What was found in a stage does not let the job go on.
    StageFailed(StageError),
    /// Two tallies do not merge.
    Tally(TallyError),
    /// The tallies are no result.
    Finish(FinishError),
    /// A sum of panels left the finite numbers.
    NotFinite,
    /// Somebody asked to stop.
    Interrupted,
}

impl fmt::Display for ComputeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComputeError::Plan(error) => error.fmt(f),
            ComputeError::Task => f.write_str("the plan's task is of another version"),
            ComputeError::Paths(error) => error.fmt(f),
            ComputeError::Matrix(error) => error.fmt(f),
            ComputeError::Device(error) => error.fmt(f),
            ComputeError::Unsupported { what } => write!(f, "this path has no kernel for {what}"),
            ComputeError::Input { input, cause } => write!(f, "input {input}: {cause}"),
            ComputeError::Output { name, cause } => write!(f, "output {name}: {cause}"),
            ComputeError::Stage(error) => error.fmt(f),
            ComputeError::StageFailed(error) => error.fmt(f),
            ComputeError::Tally(error) => error.fmt(f),
            ComputeError::Finish(error) => error.fmt(f),
            ComputeError::NotFinite => f.write_str("an element of the result is too large for its type"),
            ComputeError::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for ComputeError {}

impl From<TileMisfit> for ComputeError {
    fn from(TileMisfit: TileMisfit) -> ComputeError {
        ComputeError::Task
    }
}

/// Computes a job to its result document, and gives the bytes of its result file, where it has one, to
/// `file` piece by piece.
pub fn compute(
    manifest: &Manifest,
    setting: &Setting,
    inputs: &dyn Inputs,
    file: &mut dyn FnMut(&[u8]),
    progress: &OnProgress<'_>,
    stop: &AtomicBool,
) -> Result<Vec<u8>, ComputeError> {
    let run = Run { setting, progress, stop };
    let mut plan = Plan::new(manifest, 0).map_err(ComputeError::Plan)?;
    if let Some(task) = plan.matrix().cloned() {
        return run.matrix(&plan, &task, &|input| inputs.matrix(input), file);
    }
    if plan.stage().is_some() {
        return run.stages(manifest, plan, inputs);
    }
    let mut passes: Vec<Tally> = Vec::new();
    let mut running: Option<Tally> = None;
    loop {
        let round = run.paths(&plan)?;
        let tally = match running.take() {
            None => round,
            Some(mut tally) => {
                tally.merge(&round).map_err(ComputeError::Tally)?;
                tally
            }
        };
        let tallies: Vec<&Tally> = passes.iter().chain([&tally]).collect();
        match next(manifest, &plan, &tallies).map_err(ComputeError::Finish)? {
            Next::Finished(document) => return Ok(document),
            Next::Round(following) if following.round().pass == plan.round().pass => {
                (plan, running) = (*following, Some(tally));
            }
            Next::Round(following) => {
                passes.push(tally);
                plan = *following;
            }
        }
    }
}

/// What of random matrices is kept in memory for all threads. *Units*: bytes.
const PANEL_BYTES_MAX: u64 = 1 << 30;

/// A matrix task with its operands: inputs in memory, random matrices made block by block.
fn operands(task: &Arc<MatrixTask>, input: &FindInput<'_>) -> Result<matrix::Prepared, ComputeError> {
    let mut inputs = BTreeMap::new();
    for (blake3, _) in task.inputs() {
        inputs.insert(blake3, input(Digest(blake3))?);
    }
    let find = |blake3: &[u8; 32], _| inputs.get(blake3).cloned().map(matrix::Given::from);
    matrix::Prepared::new(task.clone(), &find, PANEL_BYTES_MAX).map_err(ComputeError::Matrix)
}

/// What one thread computes with.
enum Means {
    Processor(Isa),
    Ptx(Emulator),
}

impl Means {
    fn of(path: Path) -> Result<Means, ComputeError> {
        match path {
            Path::Processor(isa) => Ok(Means::Processor(isa)),
            Path::Ptx => Emulator::new().map(Means::Ptx).map_err(|error| ComputeError::Device(error.into())),
        }
    }
}

struct Run<'a> {
    setting: &'a Setting,
    progress: &'a OnProgress<'a>,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    fn paths(&self, plan: &Plan) -> Result<Tally, ComputeError> {
        let task = PathsTask::decode(plan.task()).map_err(|_| ComputeError::Task)?;
        let refine = Refine::of_pass(plan.pass()).map_err(|_| ComputeError::Task)?;
        let prepared = monte_carlo::Prepared::new(&task).map_err(ComputeError::Paths)?;
        let merged: Mutex<Option<Tally>> = Mutex::new(None);
        self.each_shard(plan, |means, index| {
            let shard = plan.shard(index).ok_or(ComputeError::Task)?;
            let cancelled = || self.stop.load(Ordering::Relaxed);
            let (first, count) = (shard.first, shard.count);
            let tally = match means {
                Means::Processor(isa) => prepared
                    .run_pass(refine.as_ref(), *isa, first, count, &cancelled)
                    .map_err(ComputeError::Paths)?,
                Means::Ptx(_) if refine.is_some() => {
                    return Err(ComputeError::Unsupported { what: "exact quantiles".to_owned() });
                }
                Means::Ptx(emulator) => tessera_cuda::monte_carlo(emulator, &task, first, count, &cancelled)?,
            };
            let mut merged = merged.lock().map_err(|_| ComputeError::Task)?;
            match &mut *merged {
                None => *merged = Some(tally),
                Some(merged) => merged.merge(&tally).map_err(ComputeError::Tally)?,
            }
            Ok(())
        })?;
        merged.into_inner().ok().flatten().ok_or(ComputeError::Task)
    }

    fn matrix(
        &self,
        plan: &Plan,
        task: &Arc<MatrixTask>,
        input: &FindInput<'_>,
        file: &mut dyn FnMut(&[u8]),
    ) -> Result<Vec<u8>, ComputeError> {
        let cancelled = || self.stop.load(Ordering::Relaxed);
        let prepared = operands(task, input)?;
        let stitched: Mutex<(BTreeMap<u64, Fold>, BTreeMap<u64, Vec<u8>>)> = Mutex::default();
        self.each_shard(plan, |means, index| {
            let bytes = match means {
                Means::Processor(isa) => {
                    prepared.run(*isa, index.0, &cancelled).map_err(ComputeError::Matrix)?
                }
                Means::Ptx(emulator) => tessera_cuda::block(emulator, &prepared, index.0, &cancelled)?,
            };
            let (tile, panel) = (index.0 / task.panels(), index.0 % task.panels());
            let mut stitched = stitched.lock().map_err(|_| ComputeError::Task)?;
            let (folding, tiles) = &mut *stitched;
            let fold = folding.entry(tile).or_default();
            let whole = fold.absorb(panel, bytes, task.panels(), task.dtype());
            if let Some(whole) = whole.map_err(|_| ComputeError::NotFinite)? {
                folding.remove(&tile);
                tiles.insert(tile, whole);
            }
            Ok(())
        })?;
        let (_, tiles) = stitched.into_inner().map_err(|_| ComputeError::Task)?;
        let [rows, cols, _] = task.shape();
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let mut give = |piece: &[u8]| {
            hasher.update(piece);
            bytes += piece.len() as u64;
            file(piece);
        };
        give(&npy_header(rows, cols, task.dtype()));
        for row in 0..task.tiles()[0] {
            let of_row = task.tiles_of_row(row).0.map(|tile| tiles.get(&tile).map_or(&[][..], Vec::as_slice));
            give(&npy_band(task, row, of_row)?);
        }
        let digest = Digest(*hasher.finalize().as_bytes());
        finish_matrix(plan, digest, bytes).map_err(ComputeError::Finish)
    }

    /// Computes every shard of a plan on as many threads as there are agents; each takes the next one.
    fn each_shard(
        &self,
        plan: &Plan,
        shard: impl Fn(&mut Means, ShardIndex) -> Result<(), ComputeError> + Sync,
    ) -> Result<(), ComputeError> {
        let (shards, first) = (plan.shards(), plan.indices().start);
        let (begun, done) = (AtomicU64::new(0), AtomicU64::new(first));
        let work = || {
            let mut means = Means::of(self.setting.path)?;
            loop {
                let position = begun.fetch_add(1, Ordering::Relaxed);
                if position >= shards {
                    return Ok(());
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(ComputeError::Interrupted);
                }
                let index = first + self.setting.order.at(position, shards);
                shard(&mut means, ShardIndex(index))
                    .inspect_err(|_| begun.store(shards, Ordering::Relaxed))?;
                (self.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, first + shards);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.setting.agents.max(1)).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(ComputeError::Task)));
            ended.collect()
        })
    }
}

impl From<CudaError> for ComputeError {
    fn from(error: CudaError) -> ComputeError {
        match error {
            CudaError::Unsupported { what } => ComputeError::Unsupported { what: what.to_owned() },
            error => ComputeError::Device(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_kernels::gemm::freivalds::Vectors;
    use tessera_protocol::spec::JobSpec;

    fn product(side: u64, half: bool) -> Manifest {
        let uniform = format!(r#"{{"random":"uniform","rows":{side},"cols":{side}}}"#);
        let (workload, more) = match half {
            true => ("syrk", r#""tile":700,"k_panel":1500"#.to_owned()),
            false => ("gemm", format!(r#""b":{uniform},"tile":[700,900]"#)),
        };
        let text = format!(
            r#"{{"name":"p","workload":"{workload}","params":{{"dtype":"f64","a":{uniform},{more}}}}}"#
        );
        JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap()
    }

    #[test]
    fn a_quick_look_passes_an_honest_product_and_finds_a_wrong_element() {
        let none = |_| Err(ComputeError::Task);
        let setting = Setting { path: Path::Processor(Isa::detect()), agents: 2, order: Order::Ascending };
        let stop = AtomicBool::new(false);
        for half in [false, true] {
            let manifest = product(SIDE_MIN, half);
            let mut file = Vec::new();
            let mut keep = |piece: &[u8]| file.extend_from_slice(piece);
            compute(&manifest, &setting, &NoInputs, &mut keep, &|_, _| {}, &stop).unwrap();
            let vectors = Vectors { key: [3, 4], rounds: 2 };
            let looked = |file: &[u8]| {
                look(&manifest, Isa::detect(), &none, &mut &file[..], vectors, 2, &|| false).unwrap()
            };
            assert!(matches!(looked(&file), Look::Consistent { .. }));
            // Row 1,999, column 17, in the middle of its bits.
            let at = file.len() - 8 * ((SIDE_MIN - 1_999) * SIDE_MIN - 17) as usize;
            let mut wrong = file.clone();
            wrong[at + 5] ^= 0x10;
            assert!(matches!(looked(&wrong), Look::Wrong { row: 1_999, .. }), "{:?}", looked(&wrong));
            assert_eq!(looked(&file[..file.len() - 1]), Look::NotTheFile);
            assert_eq!(looked(b"no matrix"), Look::NotTheFile);
        }
        let small = product(100, false);
        let vectors = Vectors { key: [3, 4], rounds: 2 };
        let look = look(&small, Isa::detect(), &none, &mut &b""[..], vectors, 2, &|| false).unwrap();
        assert_eq!(look, Look::NotWorthIt);
    }

    #[test]
    fn every_order_begins_each_shard_once() {
        for shards in [1, 2, 3, 7, 8, 64, 1000] {
            for order in Order::ALL {
                let mut seen: Vec<u64> = (0..shards).map(|position| order.at(position, shards)).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..shards), "{order:?} of {shards}");
            }
        }
    }
}
