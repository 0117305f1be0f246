//! What the shards of a job share: its task, and what its kernel makes of it once.
//!
//! Owns the choice of kernel and every call into one. Knows no slots.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tessera_agent_core::{InputFile, ShardWork, Task};
use tessera_kernels::matrix::{self, Given, Prepared};
use tessera_kernels::monte_carlo;
use tessera_protocol::monte_carlo::Refine;
use tessera_protocol::wire::ShardFailure;

use crate::cache::Cached;
use crate::executor::Executor;
use crate::inputs::JobFiles;

/// A job's task with all that its shards need.
pub(crate) struct Program {
    files: JobFiles,
    /// What matrices may take of memory besides what the slots work on. *Units*: bytes.
    panel_bytes_max: u64,
    /// Made by the first shard of paths.
    paths: OnceLock<Result<monte_carlo::Prepared, monte_carlo::KernelError>>,
    /// Made by the first shard while others wait.
    matrices: Mutex<Option<Result<Prepared, matrix::KernelError>>>,
}

/// Why a shard gave no partial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// It was told to stop.
    Stopped,
    /// The kernel knows no such pass.
    Pass,
    MonteCarlo(monte_carlo::KernelError),
    Matrix(matrix::KernelError),
    /// What a kernel of a stage says, in words for the provider.
    Stage(String),
}

impl Trouble {
    /// What the hub is told.
    pub(crate) fn failure(&self) -> ShardFailure {
        match self {
            Trouble::Pass | Trouble::Matrix(matrix::KernelError::Task) => ShardFailure::TaskInvalid,
            Trouble::Matrix(
                matrix::KernelError::Input { .. }
                | matrix::KernelError::InputMissing { .. }
                | matrix::KernelError::NotMatrix { .. }
                | matrix::KernelError::NotFinite { .. },
            ) => ShardFailure::InputUnusable,
            Trouble::Stopped | Trouble::MonteCarlo(_) | Trouble::Matrix(_) | Trouble::Stage(_) => {
                ShardFailure::KernelFailed
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Stopped => f.write_str("the computation was cancelled"),
            Trouble::Pass => f.write_str("the job asks for a pass that this agent does not know: update it"),
            Trouble::MonteCarlo(error) => error.fmt(f),
            Trouble::Matrix(error) => error.fmt(f),
            Trouble::Stage(why) => f.write_str(why),
        }
    }
}

impl From<monte_carlo::KernelError> for Trouble {
    fn from(error: monte_carlo::KernelError) -> Trouble {
        match error {
            monte_carlo::KernelError::Cancelled => Trouble::Stopped,
            error => Trouble::MonteCarlo(error),
        }
    }
}

impl From<matrix::KernelError> for Trouble {
    fn from(error: matrix::KernelError) -> Trouble {
        match error {
            matrix::KernelError::Cancelled => Trouble::Stopped,
            error => Trouble::Matrix(error),
        }
    }
}

impl Program {
    /// With the inputs that the task names. Prepares nothing yet.
    pub(crate) fn new(
        task: &Task,
        input: impl Fn(&InputFile) -> Option<Arc<Cached>>,
        panel_bytes_max: u64,
    ) -> Program {
        let files = JobFiles::new(&task.files(), input);
        Program { files, panel_bytes_max, paths: OnceLock::new(), matrices: Mutex::new(None) }
    }

    /// Computes a shard's partial.
    pub(crate) fn run(
        &self,
        work: &ShardWork,
        executor: &mut Executor,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Trouble> {
        match &*work.task {
            Task::MonteCarlo(task) => {
                let refine = Refine::of_pass(&work.pass).map_err(|_| Trouble::Pass)?;
                let prepared = self.paths.get_or_init(|| monte_carlo::Prepared::new(task));
                let prepared = prepared.as_ref().map_err(|error| *error)?;
                let range = (work.first, work.count);
                Ok(executor.paths(task, prepared, refine.as_ref(), range, stop)?)
            }
            Task::Matrix(_) | Task::Staged(_) if !work.pass.is_empty() => Err(Trouble::Pass),
            Task::Staged(task) => executor.stage(task, (work.first, work.count), &self.files, stop),
            Task::Matrix(task) => Ok(executor.block(&self.matrices(task)?, work.first, stop)?),
        }
    }

    fn matrices(&self, task: &tessera_protocol::matrix::Task) -> Result<Prepared, matrix::KernelError> {
        // A shard that panicked while it held the lock has prepared nothing.
        let mut matrices = self.matrices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*matrices {
            return prepared.clone();
        }
        let find = |blake3: &[u8; 32], bytes| self.files.get(blake3, bytes).map(Given::File);
        let prepared = Prepared::new(Arc::new(task.clone()), &find, self.panel_bytes_max);
        matrices.insert(prepared).clone()
    }
}
