//! Why a command did not do what it was asked, and the exit code that says so.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tessera_client::api::{HubError, HubUrlError};
use tessera_client::compute::ComputeError;
use tessera_client::config::ConfigError;
use tessera_client::local::LocalError;
use tessera_client::render;
use tessera_client::settlement_csv::SettlementCsvError;
use tessera_client::spec_file::SpecFileError;
use tessera_kernels::gemm::GemmError;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::audit::AuditError;
use tessera_protocol::id::JobId;
use tessera_protocol::receipt::{ProofError, ReceiptError, WorkLogError};
use tessera_protocol::spec::SpecError;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The job file is wrong.
    Spec(SpecFileError),
    /// `--shard-size` was given for a job that is not cut by paths.
    ShardSize,
    /// The configuration or key file is wrong.
    Config(ConfigError),
    /// The hub's URL is wrong.
    Url(HubUrlError),
    /// The hub gave no usable answer.
    Hub(HubError),
    /// The local hub and agents did not start, or stopped for good.
    Local(LocalError),
    /// The job ended without a result.
    JobNotDone(Box<JobView>),
    /// A document of the hub is not one that this version can show.
    Document(serde_json::Error),
    /// An output cannot be written.
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An input cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A receipt proves nothing.
    Receipt(ReceiptError),
    /// A shard cannot be proven.
    Proof(ProofError),
    /// A work log cannot be read.
    WorkLog {
        /// Which.
        path: PathBuf,
        /// Why.
        error: WorkLogError,
    },
    /// A log is not what a hub wrote.
    Audit(AuditError),
    /// A settlement does not add up.
    Settlement(SettlementCsvError),
    /// The operating system gives no random bytes.
    Random(getrandom::Error),
    /// A job could not be computed here.
    Compute(ComputeError),
    /// The hub's manifest is not one that this version reads.
    Manifest(SpecError),
    /// This machine has no such path.
    PathUnknown {
        /// As it was named.
        name: String,
        /// Those that it has.
        available: Vec<&'static str>,
    },
    /// A result is further from the product than rounding could bring it.
    QuickLookFailed {
        /// Of which job.
        job: JobId,
        /// Row of the result.
        row: u64,
        /// First column of the tile.
        col: u64,
        /// How far it is off.
        residual: f64,
        /// How far it could be.
        bound: f64,
    },
    /// Checks of a quick look do not hold.
    LookFailed {
        /// Of which job.
        job: JobId,
        /// Which.
        checks: Vec<&'static str>,
    },
    /// A replay gave other bytes than the hub has.
    ReplayDiffers(JobId),
    /// A job that this program contains is wrong: a bug of ours.
    BuiltIn(SpecError),
    /// Two computations of one job gave different bytes.
    KernelsDisagree {
        /// Which job.
        workload: &'static str,
    },
    /// Signals cannot be heard, or a thread not started.
    System(io::Error),
    /// A person stopped a command that was watching this job.
    StoppedWatching {
        /// Which, once it was accepted.
        job: Option<JobId>,
        /// Whether its hub answered when last asked.
        hub_answers: bool,
    },
    /// A person stopped a local run.
    StoppedRun {
        /// Where its data stays, if it does.
        kept: Option<PathBuf>,
    },
}

impl Failure {
    pub(crate) fn gemm(error: GemmError) -> Failure {
        Failure::Compute(ComputeError::Matrix(error.into()))
    }

    /// As the help page lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::JobNotDone(view) if view.state.is_open() => 2,
            Failure::JobNotDone(_) | Failure::Document(_) | Failure::Write { .. } => 1,
            Failure::Compute(ComputeError::Interrupted) => 130,
            Failure::PathUnknown { .. } | Failure::Read { .. } | Failure::WorkLog { .. } => 2,
            Failure::Proof(_) | Failure::Receipt(_) | Failure::Audit(_) | Failure::Settlement(_) => 1,
            Failure::Compute(_) | Failure::BuiltIn(_) | Failure::KernelsDisagree { .. } => 1,
            Failure::Manifest(_) | Failure::ReplayDiffers(_) => 1,
            Failure::QuickLookFailed { .. } | Failure::LookFailed { .. } => 1,
            Failure::Spec(_) | Failure::ShardSize | Failure::Config(_) | Failure::Url(_) => 2,
            Failure::Hub(HubError::NotSendable { .. } | HubError::InputUnreadable { .. }) => 2,
            Failure::Hub(HubError::Refused(problem)) if problem.code == "job_failed" => 1,
            Failure::Hub(HubError::Refused(problem)) if is_about_input(problem.status) => 2,
            Failure::Hub(_) | Failure::Local(_) | Failure::Random(_) | Failure::System(_) => 3,
            Failure::StoppedWatching { .. } | Failure::StoppedRun { .. } => 130,
        }
    }
}

/// Statuses with which a hub says that the request is wrong, rather than the moment or the key.
fn is_about_input(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 409 | 410 | 411 | 413 | 415 | 422)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Spec(error) => error.fmt(f),
            Failure::Config(error) => error.fmt(f),
            Failure::Url(error) => error.fmt(f),
            Failure::ShardSize => f.write_str(
                "--shard-size counts paths, and a matrix job has none\nhint: `params.tile` in the job file says how many rows \
                 and columns a shard has",
            ),
            Failure::Hub(error) => error.fmt(f),
            Failure::Local(error) => error.fmt(f),
            Failure::JobNotDone(view) => match view.state {
                JobState::Cancelled => write!(f, "{} was cancelled", view.id),
                state if state.is_open() => {
                    write!(f, "{} is {}\nhint: `tessera job watch {}` waits for its end", view.id, state.word(), view.id)
                }
                _ => match &view.failure {
                    Some(failure) => write!(f, "{} failed: {}", view.id, render::failure(failure)),
                    None => write!(f, "{} failed", view.id),
                },
            },
            Failure::Document(error) => {
                write!(f, "this version cannot show the document: {error}\nhint: --json prints it as it is")
            }
            Failure::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            Failure::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Failure::Receipt(error) => error.fmt(f),
            Failure::Proof(error) => error.fmt(f),
            Failure::WorkLog { path, error } => write!(f, "{}: {error}", path.display()),
            Failure::Audit(error) => error.fmt(f),
            Failure::Settlement(error) => {
                write!(f, "the hub's settlement is kept and no table was written: {error}")
            }
            Failure::Compute(error) => error.fmt(f),
            Failure::Manifest(error) => write!(f, "the hub's manifest is not one that this version reads: {error}"),
            Failure::PathUnknown { name, available } => {
                write!(f, "--path {name}: this machine has {}", available.join(", "))
            }
            Failure::QuickLookFailed { job, row, col, residual, bound } => write!(
                f,
                "{job} is not the product: row {row}, in the tile that starts at column {col}, is off by {residual:.3e} where rounding \
                 explains {bound:.3e}"
            ),
            Failure::LookFailed { job, checks } => write!(
                f,
                "{job} is not what an honest computation gives: {}\nhint: `tessera job replay {job}` computes it again and compares \
                 the bytes",
                checks.join("; ")
            ),
            Failure::ReplayDiffers(job) => write!(
                f,
                "{job} has other bytes here than at the hub\nhint: replay it with --path plain, and on another machine; one of the two computed it wrongly"
            ),
            Failure::BuiltIn(error) => write!(f, "a job of this program is wrong: {error}"),
            Failure::KernelsDisagree { workload } => write!(
                f,
                "two computations of `{workload}` gave different bytes: please report this with the output of --json"
            ),
            Failure::Random(error) => write!(f, "the operating system gives no random bytes: {error}"),
            Failure::System(error) => write!(f, "the operating system refuses: {error}"),
            Failure::StoppedWatching { job: None, .. } => {
                f.write_str("interrupted before the job was accepted")
            }
            Failure::StoppedWatching { job: Some(id), hub_answers: false } => write!(
                f,
                "stopped watching; the hub does not answer, and {id} goes on when the hub does\nhint: `tessera job watch {id}` \
                 watches it again then"
            ),
            Failure::StoppedWatching { job: Some(id), hub_answers: true } => write!(
                f,
                "stopped watching; {id} goes on\nhint: `tessera job watch {id}` watches it again, `tessera job cancel {id}` \
                 stops it"
            ),
            Failure::StoppedRun { kept: None } => {
                f.write_str("interrupted; hub and agents are stopped, nothing is kept")
            }
            Failure::StoppedRun { kept: Some(data) } => {
                write!(f, "interrupted; hub and agents are stopped, their data stays in {}", data.display())
            }
        }
    }
}

macro_rules! from {
    ($($error:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::$variant(error)
            }
        })+
    };
}

from! {
    SpecFileError => Spec,
    ConfigError => Config,
    HubUrlError => Url,
    ComputeError => Compute,
    HubError => Hub,
    LocalError => Local,
    serde_json::Error => Document,
    getrandom::Error => Random,
}
