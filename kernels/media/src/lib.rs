//! The video kernel: units of a video job, computed by FFmpeg as a child process.
//!
//! Owns every command line and what its output means. It may run child processes and touch the scratch
//! directory that it is given, which no other kernel may; it may not touch the network, and neither may its
//! children. What it returns depends on the task, the inputs and the encoder's build alone.
//!
//! A source comes from a stranger: whatever is wrong with it is either a finding, which is the same on every
//! agent, or an error of this one attempt.

use std::fmt;
use std::path::{Path, PathBuf};

use tessera_protocol::product::Product;
use tessera_protocol::video::{Task, TaskError};

mod audio;
mod child;
mod confine;
mod decode;
mod encoder;
mod finish;
mod inspect;
pub mod look;
mod quality;
mod room;
mod segment;
mod subtitle;
mod survey;

pub use confine::{Confinement, Limits};
pub use encoder::{Encoder, FindError};

use room::Room;

/// Why an attempt at a unit failed; another one may do better.
#[derive(Debug)]
pub enum MediaError {
    /// The task cannot be run.
    Task(TaskError),
    /// The task has no such units.
    Units,
    /// An input is not there, or is not what its task says.
    Input {
        /// Its digest.
        blake3: [u8; 32],
    },
    /// The caller does not want it any more.
    Cancelled,
    /// The child was stopped because it took more than its limits, or crashed.
    Killed {
        /// By which signal.
        signal: i32,
    },
    /// The child ended with an error that does not come from the source.
    Failed {
        /// The end of what it said.
        said: String,
    },
    /// The child said something that cannot be understood.
    Output {
        /// What was being read.
        what: &'static str,
    },
    /// What was made is not what the task asks for; a fault of the encoder's build or of ours.
    Check {
        /// What differs.
        what: String,
    },
    /// The system refused something.
    Io(std::io::Error),
}

impl fmt::Display for MediaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MediaError::Task(error) => error.fmt(f),
            MediaError::Units => f.write_str("the task has no such units"),
            MediaError::Input { blake3 } => {
                f.write_str("an input is missing or is not what the task says: ")?;
                blake3[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            MediaError::Cancelled => f.write_str("cancelled"),
            MediaError::Killed { signal } => {
                write!(f, "the encoder was ended by signal {signal}: it crashed or took more than its limits")
            }
            MediaError::Failed { said } => write!(f, "the encoder failed: {said}"),
            MediaError::Output { what } => write!(f, "the encoder's report of {what} cannot be understood"),
            MediaError::Check { what } => write!(f, "the encoder made something else: {what}"),
            MediaError::Io(error) => write!(f, "the scratch directory or a child process: {error}"),
        }
    }
}

impl std::error::Error for MediaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MediaError::Task(error) => Some(error),
            MediaError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<std::io::Error> for MediaError {
    fn from(error: std::io::Error) -> MediaError {
        MediaError::Io(error)
    }
}

/// What a unit may use.
pub(crate) struct Setting<'a> {
    pub(crate) encoder: &'a Encoder,
    /// Where the bytes of a digest lie.
    pub(crate) inputs: &'a dyn Fn(&[u8; 32]) -> Option<PathBuf>,
    /// Where scratch directories are made.
    pub(crate) scratch: &'a Path,
    /// Told of frames done, and of how many there are.
    pub(crate) progress: &'a dyn Fn(u64, u64),
    pub(crate) cancelled: &'a dyn Fn() -> bool,
}

/// Computes unit `first` of a task; `count` is 1.
///
/// `inputs` says where the bytes of a digest lie; products lie there encoded. Nothing is left in `scratch`
/// afterwards, whatever happens. `progress` is told of frames done, and of how many there are. `cancelled` is
/// asked about twenty times a second.
#[expect(clippy::too_many_arguments, reason = "an agent has each of them at hand, and nothing else")]
pub fn run(
    task: &Task,
    first: u64,
    count: u64,
    inputs: &dyn Fn(&[u8; 32]) -> Option<PathBuf>,
    encoder: &Encoder,
    scratch: &Path,
    progress: &dyn Fn(u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<Product, MediaError> {
    task.check().map_err(MediaError::Task)?;
    // Units of a video job are long: a shard is one of them, so that a product is that of one unit.
    if count != 1 || first >= task.units() {
        return Err(MediaError::Units);
    }
    let setting = Setting { encoder, inputs, scratch, progress, cancelled };
    let room = Room::new(&setting)?;
    match task {
        Task::Survey(task) => survey::run(&room, task),
        Task::Probe(task) => quality::run(&room, task, first),
        Task::Encode(task) => segment::run(&room, task, first),
        Task::Finish(task) => finish::run(&room, task, first),
    }
}
