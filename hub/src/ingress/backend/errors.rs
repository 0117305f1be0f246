//! Why the hub does not do what it was asked: one enum per operation, and the words for it.

use std::fmt;

use tessera_protocol::api::{JobFailure, JobState};
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::spec::SpecError;
use tessera_protocol::unit::{ComputeUnits, UnixMillis};

use crate::inputs::quota::Full;

/// Why a project cannot have an input file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It may not keep so much.
    Full(Full),
    /// The hub as a whole cannot do it.
    Outage(Outage),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClaimError::Full(full) => full.fmt(f),
            ClaimError::Outage(outage) => outage.fmt(f),
        }
    }
}

impl std::error::Error for ClaimError {}

/// Why the hub as a whole cannot do what it was asked; never the fault of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It finishes what it has and is about to stop.
    Draining,
    /// Its store refuses to write or read.
    StoreFailing,
    /// The disk under its store is full.
    StoreFull,
    /// The disk under its store is read-only, or its files may not be written.
    StoreReadOnly,
    /// A part of it that the answer needs has stopped or is overloaded.
    Unavailable,
}

/// Why a job was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The same Idempotency-Key came before with another manifest.
    KeyReused {
        /// The job it made.
        first: JobId,
    },
    /// The project has as many open jobs as it may.
    OpenJobsFull {
        /// Whose quota.
        project: String,
        /// The quota.
        max: usize,
    },
    /// The files that it reads do not fit into what its project may keep.
    BlobsFull(Full),
    /// The plan costs more than the client allowed.
    CostCapExceeded {
        /// What it costs.
        cost: ComputeUnits,
        /// What was allowed.
        cap: ComputeUnits,
    },
    /// Every field is allowed, and still there is no plan.
    NotPlannable(SpecError),
    /// The hub cannot.
    Outage(Outage),
}

/// Why a job was not cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelError {
    /// There is no such job.
    Unknown(JobId),
    /// It was pruned then.
    Pruned(JobId, UnixMillis),
    /// It ended before.
    Ended {
        /// The job.
        job: JobId,
        /// How.
        state: JobState,
    },
    /// The hub cannot.
    Outage(Outage),
}

/// Why a job was not extended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtendError {
    /// There is no such job.
    Unknown(JobId),
    /// It was pruned then.
    Pruned(JobId, UnixMillis),
    /// Only a done job has paths to continue.
    NotDone {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// It has as many paths as were asked for.
    NotMorePaths {
        /// The job.
        job: JobId,
        /// What it has.
        has: u64,
        /// What was asked.
        asked: u64,
    },
    /// The job that would continue it was not accepted.
    Submit(SubmitError),
}

/// Why there is no quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Every field is allowed, and still there is no plan.
    NotPlannable(SpecError),
    /// The hub cannot.
    Outage(Outage),
}

/// Why a job cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// There is no such job.
    Unknown(JobId),
    /// It was pruned then.
    Pruned(JobId, UnixMillis),
    /// The hub cannot.
    Outage(Outage),
}

/// Why an agent cannot be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentLookupError {
    /// No agent of this id is connected.
    NotConnected(AgentId),
    /// The hub cannot.
    Outage(Outage),
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultError {
    /// There is no such job.
    Unknown(JobId),
    /// It was pruned then.
    Pruned(JobId, UnixMillis),
    /// Not yet.
    NotDone {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// Never: the job failed.
    Failed {
        /// The job.
        job: JobId,
        /// Why it failed, where that is known.
        failure: Option<JobFailure>,
    },
    /// Never: the job was cancelled.
    Cancelled(JobId),
    /// Its result is a document and no file.
    NoFile(JobId),
    /// The result names no such file.
    NoOutput {
        /// The job.
        job: JobId,
        /// What was asked for.
        name: String,
    },
    /// The hub cannot.
    Outage(Outage),
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// As many unused tokens are about as may be.
    UnusedTokensFull {
        /// The limit.
        max: usize,
    },
    /// The hub cannot.
    Outage(Outage),
}

/// Why there is no receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    /// The job is not there, or the hub cannot say.
    Lookup(LookupError),
    /// It has not ended.
    Open {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// No agent of this provider worked on it.
    NoShare {
        /// The job.
        job: JobId,
        /// The provider.
        provider: String,
    },
}

/// Why there is no statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementError {
    /// No token was ever made for such a provider.
    Unknown(String),
    /// The hub cannot.
    Outage(Outage),
}

/// Why there is no settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleError {
    /// No provider has anything due.
    NothingDue,
    /// There is none of this number.
    Unknown(u64),
    /// The hub cannot.
    Outage(Outage),
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiptError::Lookup(error) => write!(f, "{error}"),
            ReceiptError::Open { job, state } => write!(f, "{job} is {}", state.word()),
            ReceiptError::NoShare { job, provider } => {
                write!(f, "no agent of {provider:?} did anything that is in the result of {job}")
            }
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatementError::Unknown(provider) => write!(f, "there is no provider {provider:?}"),
            StatementError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettleError::NothingDue => f.write_str("no provider has credits that are due"),
            SettleError::Unknown(number) => write!(f, "there is no settlement {number}"),
            SettleError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outage::Draining => "the hub is stopping and takes nothing new",
            Outage::StoreFailing => "the hub's store does not read or write",
            Outage::StoreFull => "the disk of the hub's store is full",
            Outage::StoreReadOnly => "the hub's store cannot be written: its disk is read-only or denies it",
            Outage::Unavailable => "a part of the hub does not answer",
        })
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::KeyReused { first } => {
                write!(f, "this Idempotency-Key made {first}, from another specification")
            }
            SubmitError::OpenJobsFull { project, max } => {
                write!(f, "project `{project}` has {max} open jobs, which is all it may have")
            }
            SubmitError::BlobsFull(full) => write!(f, "{full}"),
            SubmitError::CostCapExceeded { cost, cap } => {
                write!(f, "the job costs {} compute units, its cap is {}", cost.0, cap.0)
            }
            SubmitError::NotPlannable(error) => write!(f, "{error}"),
            SubmitError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for CancelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CancelError::Pruned(job, at) => pruned(f, *job, *at),
            CancelError::Unknown(job) => write!(f, "there is no job {job}"),
            CancelError::Ended { job, state } => write!(f, "{job} is {}", state.word()),
            CancelError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for ExtendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtendError::Pruned(job, at) => pruned(f, *job, *at),
            ExtendError::Unknown(job) => write!(f, "there is no job {job}"),
            ExtendError::NotDone { job, state } => write!(f, "{job} is {}", state.word()),
            ExtendError::NotMorePaths { job, has, asked } => {
                write!(f, "{job} has {has} paths already, {asked} are not more")
            }
            ExtendError::Submit(error) => write!(f, "{error}"),
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NotPlannable(error) => write!(f, "{error}"),
            PlanError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

fn pruned(f: &mut fmt::Formatter<'_>, job: JobId, at: UnixMillis) -> fmt::Result {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.0);
    write!(f, "job {job} was pruned at {}", humantime::format_rfc3339_seconds(time))
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LookupError::Pruned(job, at) => pruned(f, *job, *at),
            LookupError::Unknown(job) => write!(f, "there is no job {job}"),
            LookupError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for AgentLookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentLookupError::NotConnected(agent) => write!(f, "{agent} is not connected"),
            AgentLookupError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for ResultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResultError::Pruned(job, at) => pruned(f, *job, *at),
            ResultError::Unknown(job) => write!(f, "there is no job {job}"),
            ResultError::NotDone { job, state } => write!(f, "{job} is {}", state.word()),
            ResultError::Failed { job, failure: None } => write!(f, "{job} failed"),
            ResultError::Failed { job, failure: Some(failure) } => {
                write!(f, "{job} failed: {}", because(failure))
            }
            ResultError::Cancelled(job) => write!(f, "{job} was cancelled"),
            ResultError::NoOutput { job, name } => write!(f, "the result of {job} has no output {name:?}"),
            ResultError::NoFile(job) => write!(f, "the result of {job} is a document and no file"),
            ResultError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::UnusedTokensFull { max } => {
                write!(f, "{max} unused tokens are about, which is all there may be")
            }
            TokenError::Outage(outage) => write!(f, "{outage}"),
        }
    }
}

impl std::error::Error for Outage {}
impl std::error::Error for SubmitError {}
impl std::error::Error for CancelError {}
impl std::error::Error for ExtendError {}
impl std::error::Error for PlanError {}
impl std::error::Error for LookupError {}
impl std::error::Error for AgentLookupError {}
impl std::error::Error for ResultError {}
impl std::error::Error for TokenError {}
impl std::error::Error for ReceiptError {}
impl std::error::Error for StatementError {}
impl std::error::Error for SettleError {}

fn because(failure: &JobFailure) -> String {
    match failure {
        JobFailure::ShardFailed { shard, attempts, cause } => {
            format!("shard {shard} failed {attempts} times, the last time with: {cause}")
        }
        JobFailure::ShardPoisoned { shard, losses } => format!(
            "shard {shard} came to nothing with {} agents, of the operator's own too: run that shard on one \
             machine of yours to see why",
            losses.len()
        ),
        JobFailure::DeadlinePassed { deadline_s } => {
            format!("it was still open {deadline_s} s after it was accepted")
        }
        JobFailure::KernelFault { shard } => format!(
            "agents with no reason to be wrong disagree about shard {shard}: the kernel does not give the same bytes on every machine"
        ),
        JobFailure::StageFailed { stage, cause } => format!("its stage `{stage}`: {cause}"),
        JobFailure::NotReducible { cause } => {
            format!("its partials do not reduce to a result: {cause}")
        }
    }
}
