//! A job's task as its kernel reads it.
//!
//! Owns which kernels there are and what each needs in memory before a shard can start.

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
    /// How it is kept.
    pub form: Form,
}

/// How an input is kept for the kernels that read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// As a matrix in memory.
    Matrix,
    /// As the file that it is.
    File,
}

/// What a task needs in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Operands {
    /// The files, in the order in which the task numbers them.
    pub(crate) files: Vec<InputFile>,
    /// Of operands that are made and not sent.
    pub(crate) made_bytes: u64,
}

impl Operands {
    /// Memory for all of them. Elements take no more than the file they are in.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().fold(self.made_bytes, |sum, file| sum.saturating_add(file.bytes))
    }
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
        let (inputs, form) = match self {
            Task::MonteCarlo(_) => return Vec::new(),
            Task::Matrix(task) => {
                let inputs = task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes));
                (inputs.collect(), Form::Matrix)
            }
            Task::Staged(task) => (task.inputs(), Form::File),
        };
        inputs.into_iter().map(|(blake3, bytes)| InputFile { blake3, bytes, form }).collect()
    }

    pub(crate) fn operands(&self) -> Operands {
        let task = match self {
            Task::MonteCarlo(_) => return Operands::default(),
            Task::Staged(_) => return Operands { files: self.files(), made_bytes: 0 },
            Task::Matrix(task) => task,
        };
        Operands { files: self.files(), made_bytes: task.made_bytes() }
    }
}

/// Why the shards of a job cannot be computed here, in words for the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its matrices take more memory than there is for them.
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
                "its files and matrices take {bytes} bytes, and this agent keeps at most {bytes_max}: half of its memory"
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
