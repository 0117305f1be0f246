//! A job's task as its kernel reads it.
//!
//! Owns which kernels there are and what each needs on the disk and in memory before a shard can start.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix;
use tessera_protocol::wire::ShardFailure;
use tessera_protocol::{monte_carlo, staged};

/// The kernels every agent has. What it can run besides depends on the programs of its machine.
pub const KERNELS: [&str; 5] = ["monte_carlo", "gemm", "syrk", "climate_pca", "catastrophe"];

/// A kernel that an agent offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    MonteCarlo,
    Gemm,
    Syrk,
    /// Of jobs that go through stages, by its name.
    Staged(String),
}

impl Kernel {
    /// The kernel of a name, if it is among those offered.
    pub(crate) fn named(name: &str, offered: &[String]) -> Option<Kernel> {
        let known = offered.iter().find(|offered| *offered == name)?;
        Some(match known.as_str() {
            "monte_carlo" => Kernel::MonteCarlo,
            "gemm" => Kernel::Gemm,
            "syrk" => Kernel::Syrk,
            name => Kernel::Staged(name.to_owned()),
        })
    }
}

/// What every shard of a job needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Paths of random numbers.
    MonteCarlo(monte_carlo::Task),
    /// Blocks of a product of matrices.
    Matrix(matrix::Task),
    /// Units of a stage.
    Staged(staged::Task),
}

/// A file that tasks read, the same in whichever job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputFile {
    /// BLAKE3 of its bytes.
    pub blake3: Digest,
    /// Its length.
    pub bytes: u64,
}

/// What a task needs on the disk and in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operands {
    /// The files, which lie on the disk, in the order in which the task numbers them.
    pub(crate) files: Vec<InputFile>,
    /// Memory without which no shard can be computed. *Units*: bytes.
    pub(crate) least_bytes: u64,
    /// Memory beyond which more is of no use. *Units*: bytes.
    pub(crate) most_bytes: u64,
}

impl Operands {
    /// What they take of the disk. *Units*: bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Whether shards can start without room for anything.
    pub(crate) fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.most_bytes == 0
    }

    /// What they get of so much memory. *Units*: bytes.
    pub(crate) fn room(&self, bytes_max: u64) -> u64 {
        self.most_bytes.min(panel_bytes_max(bytes_max)).max(self.least_bytes)
    }
}

/// What the matrices of one job may take of memory for all: half, so that two jobs have room. *Units*: bytes.
pub fn panel_bytes_max(operand_bytes_max: u64) -> u64 {
    operand_bytes_max / 2
}

impl Task {
    pub(crate) fn decode(kernel: &Kernel, bytes: &[u8]) -> Result<Task, ShardFailure> {
        let invalid = ShardFailure::TaskInvalid;
        if *kernel == Kernel::MonteCarlo {
            return monte_carlo::Task::decode(bytes).map(Task::MonteCarlo).map_err(|_| invalid);
        }
        if let Kernel::Staged(name) = kernel {
            return staged::Task::decode(name, bytes).map(Task::Staged).ok_or(invalid);
        }
        let task = matrix::Task::decode(bytes).map_err(|_| invalid)?;
        let fits = task.half.is_some() == (*kernel == Kernel::Syrk);
        if fits { Ok(Task::Matrix(task)) } else { Err(invalid) }
    }

    /// The files that it reads, in the order in which it numbers them.
    pub fn files(&self) -> Vec<InputFile> {
        let inputs = match self {
            Task::MonteCarlo(_) => return Vec::new(),
            Task::Matrix(task) => {
                task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect()
            }
            Task::Staged(task) => task.inputs(),
        };
        inputs.into_iter().map(|(blake3, bytes)| InputFile { blake3, bytes }).collect()
    }

    pub(crate) fn operands(&self) -> Operands {
        let on_disk = Operands { files: self.files(), ..Operands::default() };
        match self {
            Task::MonteCarlo(_) => Operands::default(),
            // Its kernel parses whole tables; those of the others read runs of their files.
            Task::Staged(staged::Task::Catastrophe(_)) => {
                let bytes = on_disk.file_bytes();
                Operands { least_bytes: bytes, most_bytes: bytes, ..on_disk }
            }
            Task::Staged(_) => on_disk,
            Task::Matrix(task) => {
                Operands { least_bytes: task.block_bytes(), most_bytes: task.operand_bytes(), ..on_disk }
            }
        }
    }
}

/// Why the shards of a job cannot be computed here, in words for the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// What its kernel needs of memory is more than there is.
    TooLarge {
        /// What they take.
        bytes: u64,
        /// What there is.
        bytes_max: u64,
    },
    /// Its files take more of the disk than the provider gives for them.
    CacheTooSmall {
        /// What they take.
        bytes: u64,
        /// What there is.
        bytes_max: u64,
    },
    /// The hub said that it cannot send an input.
    Unavailable {
        /// Which.
        input: InputFile,
    },
    /// A piece of an input did not come in time.
    Late {
        /// Which.
        input: InputFile,
    },
}

impl core::fmt::Display for Unusable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Unusable::TooLarge { bytes, bytes_max } => write!(
                f,
                "its kernel needs {bytes} bytes of memory, and this agent gives at most {bytes_max}: half of its memory"
            ),
            Unusable::CacheTooSmall { bytes, bytes_max } => write!(
                f,
                "its files take {bytes} bytes, and this agent's cache keeps at most {bytes_max}: --cache-bytes"
            ),
            Unusable::Unavailable { input } => {
                write!(f, "the hub cannot send the input {}", input.blake3)
            }
            Unusable::Late { input } => {
                write!(f, "the hub did not send the input {} in time", input.blake3)
            }
        }
    }
}

/// A job and why it cannot be computed here.
pub(crate) type UnusableJob = (JobId, Unusable);
