//! The documents of the HTTP API, shared by hub and clients.
//!
//! Times are Unix milliseconds. Unknown fields are ignored by readers, so that a newer hub can say more.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use crate::credits::{Microcredits, OPERATOR, ProviderName};
use crate::id::{AgentId, Digest, HubId, JobId, ProviderId};
use crate::spec::{FieldError, Priority, VerifyClass};
use crate::unit::{ComputeUnits, UnixMillis};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted and durable; none of its shards is out.
    Queued,
    /// Shards are out.
    Running,
    /// Its result is durable.
    Done,
    /// It cannot be finished; [`JobView::failure`] says why.
    Failed,
    /// Its client stopped it.
    Cancelled,
}

impl JobState {
    /// The word it goes by in documents and on screens.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether it will change again.
    pub fn is_open(self) -> bool {
        matches!(self, JobState::Queued | JobState::Running)
    }
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum JobFailure {
    /// A shard failed on every attempt it was allowed.
    ShardFailed {
        /// Which shard.
        shard: u64,
        /// How many attempts were made.
        attempts: u32,
        /// What the last agent said.
        cause: String,
    },
    /// A shard lost the agents that computed it, one of the operator's own among them, or none came to try.
    ShardPoisoned {
        /// Which shard.
        shard: u64,
        /// Who was lost or failed over it, first to last.
        losses: Vec<LossView>,
    },
    /// It was still open when its deadline came.
    DeadlinePassed {
        /// The limit it had.
        deadline_s: u64,
    },
    /// Agents with no reason to be wrong disagreed about a shard: the kernel does not give the same bytes on every
    /// machine. Nobody is punished for it.
    KernelFault {
        /// Which shard.
        shard: u64,
    },
    /// What its agents found in a stage does not let it go on.
    StageFailed {
        /// Which stage.
        stage: String,
        /// What was found, and what to do.
        cause: String,
    },
    /// The partials do not reduce to a result.
    NotReducible {
        /// Why.
        cause: String,
    },
}

/// One attempt at a shard that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossView {
    /// Who computed it.
    pub agent: AgentId,
    /// Whom that agent belongs to.
    pub provider: ProviderId,
    /// What became of it, in words.
    pub how: String,
}

/// A job as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What people call it.
    pub name: String,
    /// Whose it is.
    pub project: String,
    /// Where it stands.
    pub state: JobState,
    /// Names the computation.
    pub manifest_digest: Digest,
    /// How much is done twice.
    pub verify: VerifyClass,
    /// Which queue it waits in.
    pub priority: Priority,
    /// When it was accepted.
    pub created_ms: UnixMillis,
    /// When it ended.
    pub ended_ms: Option<UnixMillis>,
    /// Samples it covers, those of the job it extends included.
    pub paths: u64,
    /// The job whose paths it continues.
    pub extends: Option<JobId>,
    /// What it costs.
    pub cost: ComputeUnits,
    /// Shards of its plan.
    pub shards: u64,
    /// Shards verified and reduced.
    pub shards_done: u64,
    /// Attempts handed to agents, since this hub started for jobs that it recovered.
    pub attempts: u64,
    /// Shards whose second answer agreed.
    pub checks: u64,
    /// Shards on which two agents disagreed.
    pub mismatches: u64,
    /// Shards that were sampled for a check while no second agent was there to make it.
    pub checks_skipped: u64,
    /// Shards that are answered and wait for the check of their batch.
    #[serde(default)]
    pub provisional: u64,
    /// Answers that were thrown away since their agent was proven wrong elsewhere.
    #[serde(default)]
    pub recalled: u64,
    /// Final shards that rest on the word of an agent that was later proven wrong.
    #[serde(default)]
    pub tainted: u64,
    /// Shards reduced by each lane, by lane index.
    pub lanes: Vec<u64>,
    /// BLAKE3 of the result document, once done.
    pub digest: Option<Digest>,
    /// Why it failed.
    pub failure: Option<JobFailure>,
    /// What it waits for, in words, while it waits.
    pub waiting: Option<String>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<JobView>,
    /// Hubs beside the one that was asked which did not answer: open jobs of theirs may be missing or be shown as they
    /// were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hubs_silent: Vec<HubId>,
}

/// What a job would take, without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanQuote {
    /// Names the computation.
    pub manifest_digest: Digest,
    /// Names the cut into shards.
    pub plan_digest: Digest,
    /// Samples.
    pub paths: u64,
    /// Samples to a shard; the last may hold fewer.
    pub shard_size: u64,
    /// Shards.
    pub shards: u64,
    /// What it costs, checks not counted.
    pub cost: ComputeUnits,
    /// Of a job that goes through stages, the first: shards and cost are its own, since it decides those of the rest.
    #[serde(default)]
    pub stage: Option<String>,
    /// What a compute unit costs in the job's class. *Units*: hundredths of a microcredit.
    #[serde(default)]
    pub percent: Option<u64>,
    /// What the job costs.
    #[serde(default)]
    pub price: Option<Microcredits>,
}

/// Where an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It has a live session.
    Connected,
    /// It finishes what it has and takes nothing new.
    Leaving,
    /// It is enrolled and away.
    Away,
}

/// How far the hub trusts an agent, and so how much of its work is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Proven wrong again and again: it gets no work.
    Removed,
    /// Proven wrong: it gets little work, and all of it is checked.
    Sandboxed,
    /// New: all of its work is checked.
    Quarantine,
    /// Right so far: a tenth is checked.
    Probation,
    /// Right for long: the least is checked.
    Trusted,
}

impl Standing {
    /// The word it goes by in documents and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Removed => "removed",
            Standing::Sandboxed => "sandboxed",
            Standing::Quarantine => "quarantine",
            Standing::Probation => "probation",
            Standing::Trusted => "trusted",
        }
    }
}

/// An agent as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// A name for people.
    pub name: String,
    /// Where it stands.
    pub state: AgentState,
    /// The lane that holds its session.
    pub lane: Option<u16>,
    /// Version of its program.
    pub version: String,
    /// Shards it computes at once.
    pub slots: u16,
    /// Instruction set of its kernels.
    pub isa: String,
    /// Processor architecture.
    pub arch: String,
    /// Memory it offers. *Units*: bytes.
    pub memory_bytes: u64,
    /// Where it is, as its owner says while it is connected; empty where nothing was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// GPUs that compute some of its shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuView>,
    /// The kernels it offers while it is connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<String>,
    /// Shards in flight.
    pub in_flight: u32,
    /// Shards it finished, since this hub started.
    pub completed: u64,
    /// Shards on which another agent contradicted it and was believed.
    pub mismatches: u64,
    /// Who owns it and earns its credits, by name.
    #[serde(default = "operator")]
    pub provider: String,
    /// Whether it is the operator's own, whose answers settle disputes.
    #[serde(default = "yes")]
    pub anchor: bool,
    /// How far the hub trusts it; absent where the hub does not say.
    #[serde(default)]
    pub standing: Option<Standing>,
    /// Why it gets no work for a while, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestView>,
}

/// A while without work for an agent that failed where others did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestView {
    /// When it gets work again by itself.
    pub until_ms: UnixMillis,
    /// Why, in words.
    pub because: String,
}

/// Whose agents are that say nothing of a provider: a former hub knew the operator's only.
fn operator() -> String {
    OPERATOR.to_owned()
}

fn yes() -> bool {
    true
}

/// A GPU of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuView {
    /// As its driver calls it.
    pub name: String,
    /// Its memory. *Units*: bytes.
    pub memory_bytes: u64,
    /// Major and minor, as in `9.0`.
    pub compute_capability: String,
    /// The CUDA version that its driver speaks.
    pub driver: String,
}

/// The agents of a hub, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// The agents.
    pub agents: Vec<AgentView>,
    /// Hubs beside the one that was asked which did not answer: agents that work for them are shown as away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hubs_silent: Vec<HubId>,
}

/// A hub that serves from a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubView {
    /// Made when it started.
    pub id: HubId,
    /// Where clients and other hubs reach it, as `HOST:PORT`.
    pub http: String,
    /// Where agents reach it, as `HOST:PORT`.
    pub quic: String,
    /// Whether it does what one hub at a time must do, as paying settlements.
    pub leader: bool,
    /// Whether it is the one that answers.
    pub here: bool,
    /// How long the one that answers has not seen it renew its lease. *Units*: milliseconds.
    pub silent_ms: u64,
}

/// The hubs that serve from one store, by id; none where a hub has its store to itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubList {
    /// The hubs.
    pub hubs: Vec<HubView>,
}

/// What a signed URL is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignedMethod {
    /// Download the file, or parts of it.
    Get,
    /// Upload it.
    Put,
}

/// Body of `POST /v1/blobs/{blake3}/sign`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// What the URL is to be good for.
    pub method: SignedMethod,
    /// Who is to have it: signed and logged.
    pub holder: String,
    /// The length of the file; must be said for an upload. *Units*: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Towards which project's quota an upload counts; absent, `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// How long it is to be good; absent, an hour. *Units*: seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

/// A URL that needs no API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUrl {
    /// Path and query, at the hub that made it.
    pub url: String,
    /// When it ends.
    pub expires_ms: UnixMillis,
}

/// Body of `POST /v1/agent-tokens`; nothing at all says the same as an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Who owns the agent that it enrols; absent, the operator, whose agents are believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
}

/// A new single-use enrolment token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIssued {
    /// What the provider passes as `--token`: the hub's key and the secret in one word.
    pub token: String,
    /// Where the agent connects, as `HOST:PORT`.
    pub hub: String,
    /// Who owns the agent that it enrols. A hub that knows no providers says nothing and enrols the operator's own.
    #[serde(default = "operator")]
    pub provider: String,
}

/// Body of `POST /v1/jobs/{id}:extend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendRequest {
    /// All paths afterwards, those of the finished job included.
    pub paths: u64,
}

/// An error as `application/problem+json`. *Source*: RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The kind as a word that never changes.
    pub code: String,
    /// What happened this time.
    pub detail: String,
    /// What to do next.
    pub hint: String,
    /// The fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}
