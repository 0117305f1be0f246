//! How a hub can break the protocol. Each one ends the session; the agent comes back with a clean slate.

use core::fmt;

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::wire::FrameError;

use crate::attempt::Attempt;
use crate::intake::{JOBS_MAX, TASK_BYTES_MAX};

/// What the hub did against the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frame that is not one.
    Frame(FrameError),
    /// A frame of no bytes, or more than its stream allows.
    FrameSize {
        /// What the length prefix said.
        bytes: usize,
        /// What the stream allows.
        bytes_max: usize,
    },
    /// A payload larger than [`limits::BULK_BYTES_MAX`].
    BulkTooLarge,
    /// A payload's stream broke off before its end.
    BulkBroken,
    /// A payload that is not for an agent.
    BulkMisdirected,
    /// The control or work stream ended, or a second work stream was opened.
    Stream,
    /// The hub does not take the agent's results: more bytes wait for it than the agent keeps.
    NotReading,
    /// Work before the welcome, or a second welcome.
    OutOfTurn,
    /// The welcome is for another agent.
    WelcomeOfAnother {
        /// Whom it names.
        named: AgentId,
    },
    /// The welcome grants more shards than a heartbeat can name.
    CreditTooLarge {
        /// What it grants.
        credit: u32,
    },
    /// A job announced while it is still known.
    JobTwice {
        /// The job.
        job: JobId,
    },
    /// Shards of a job that was not announced.
    JobUnknown {
        /// The job.
        job: JobId,
    },
    /// More than 4096 jobs, or more than 512 MiB of their tasks.
    TooManyJobs,
    /// A task for a job that has one.
    TaskTwice {
        /// The job.
        job: JobId,
    },
    /// A piece of an input that the agent did not ask for.
    PieceUnasked {
        /// The job it names.
        job: JobId,
        /// The input's position in its task.
        input: u32,
        /// Where it starts.
        offset: u64,
    },
    /// A piece of another length than the protocol says.
    PieceSize {
        /// The job it is for.
        job: JobId,
        /// The input's position in its task.
        input: u32,
        /// What came.
        bytes: u64,
        /// What was asked for.
        expected: u64,
    },
    /// Word of an input that the agent did not ask for.
    InputUnasked {
        /// The job it names.
        job: JobId,
        /// The input's position in its task.
        input: u32,
    },
    /// An attempt the agent already holds.
    AttemptTwice {
        /// The attempt.
        attempt: Attempt,
    },
    /// A shard of no samples, too many, or beyond the last number.
    RangeInvalid {
        /// The attempt.
        attempt: Attempt,
    },
    /// More shards in flight than the welcome granted.
    CreditExceeded {
        /// What it granted.
        credit: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Frame(error) => write!(f, "the hub sent {error}"),
            Violation::FrameSize { bytes, bytes_max } => {
                write!(f, "the hub sent a frame of {bytes} bytes: 1 to {bytes_max} are allowed")
            }
            Violation::BulkTooLarge => {
                write!(f, "the hub sent a payload of more than {} bytes", limits::BULK_BYTES_MAX)
            }
            Violation::BulkBroken => f.write_str("the hub broke off a payload"),
            Violation::BulkMisdirected => f.write_str("the hub sent a payload that only an agent may send"),
            Violation::Stream => f.write_str("the hub ended a stream, or opened one too many"),
            Violation::NotReading => f.write_str("the hub does not take the agent's results"),
            Violation::OutOfTurn => f.write_str("the hub sent work before its welcome, or welcomed twice"),
            Violation::WelcomeOfAnother { named } => {
                write!(f, "the hub welcomed {named}, which is not this agent")
            }
            Violation::CreditTooLarge { credit } => {
                write!(
                    f,
                    "the hub granted {credit} shards in flight: at most {} are allowed",
                    limits::BATCH_ITEMS_MAX
                )
            }
            Violation::JobTwice { job } => write!(f, "the hub announced {job} twice"),
            Violation::JobUnknown { job } => {
                write!(f, "the hub assigned shards of {job}, which it did not announce")
            }
            Violation::TooManyJobs => {
                write!(f, "the hub announced more than {JOBS_MAX} jobs or {TASK_BYTES_MAX} bytes of tasks")
            }
            Violation::TaskTwice { job } => write!(f, "the hub sent the task of {job} twice"),
            Violation::PieceUnasked { job, input, offset } => {
                write!(
                    f,
                    "the hub sent input {input} of {job} from byte {offset} on, which was not asked for"
                )
            }
            Violation::PieceSize { job, input, bytes, expected } => {
                write!(
                    f,
                    "the hub sent {bytes} bytes of input {input} of {job} where {expected} were asked for"
                )
            }
            Violation::InputUnasked { job, input } => {
                write!(f, "the hub spoke of input {input} of {job}, which was not asked for")
            }
            Violation::AttemptTwice { attempt } => {
                write!(f, "the hub assigned shard {} of {} twice in one epoch", attempt.index.0, attempt.job)
            }
            Violation::RangeInvalid { attempt } => write!(
                f,
                "the hub assigned shard {} of {} with no samples or more than {}",
                attempt.index.0,
                attempt.job,
                limits::SHARD_PATHS_MAX
            ),
            Violation::CreditExceeded { credit } => {
                write!(f, "the hub assigned more than the {credit} shards it granted")
            }
        }
    }
}

impl core::error::Error for Violation {}
