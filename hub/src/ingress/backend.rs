//! What the HTTP API asks of the hub behind it: one trait, with one error enum per operation.
//!
//! Owns the vocabulary between ingress and the rest of the hub. Nothing of HTTP gets in here, and
//! nothing here touches a lane or a store: whoever implements [`Backend`] does.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use blake3::Hasher;
use bytes::Bytes;
use tessera_protocol::api::{AgentView, HubList, JobState, JobView, PlanQuote, TokenIssued};
use tessera_protocol::audit::AuditPage;
use tessera_protocol::credits::{
    JobBill, ProviderList, ProviderName, Settlement, SettlementRequest, Statement,
};
use tessera_protocol::explain::{AgentExplained, JobExplained};
use tessera_protocol::id::{AgentId, Digest, HubId, JobId};
use tessera_protocol::spec::Manifest;
use tokio::sync::{mpsc, watch};

use super::keys::KeyHash;
use crate::inputs::quota::Reservation;
use crate::inputs::{Piece, Presence, Upload, UploadRefused};

mod errors;

pub use errors::{
    AgentLookupError, CancelError, ClaimError, ExtendError, LookupError, Outage, PlanError, ReceiptError,
    ResultError, SettleError, StatementError, SubmitError, TokenError,
};

/// An answer that comes later.
///
/// Dropping it gives up the answer and not the operation: what was asked may still happen, and a
/// client that asks again with the same Idempotency-Key learns which.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The hub as its HTTP API sees it.
///
/// Every method is called on the one ingress thread and must return, or yield, without blocking it.
/// The methods that are not a [`Reply`] answer from memory.
pub trait Backend: Send + Sync + 'static {
    /// Accepts a job; its answer means that the job is durable.
    fn submit(&self, submission: Submission) -> Reply<'_, Result<Submitted, SubmitError>>;

    /// Stops a job. Cancelling a cancelled job answers its view again.
    fn cancel(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, CancelError>>;

    /// Continues a finished job over more paths, as a new job.
    fn extend(&self, extension: Extension) -> Reply<'_, Result<Submitted, ExtendError>>;

    /// Says what a job would take, and changes nothing.
    fn plan(&self, manifest: Manifest) -> Reply<'_, Result<PlanQuote, PlanError>>;

    /// One job, however old.
    fn job(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, LookupError>>;

    /// The jobs that match. *Order*: newest first, at most [`JobFilter::limit`] of them.
    fn jobs(&self, filter: JobFilter) -> Reply<'_, Result<Vec<Arc<JobView>>, Outage>>;

    /// Why a job waits, where its shards went and what each agent lacks for it: what every lane says of it now.
    fn explain_job(&self, job: JobId) -> Reply<'_, Result<JobExplained, LookupError>>;

    /// What a connected agent is thought of.
    fn explain_agent(&self, agent: AgentId) -> Reply<'_, Result<AgentExplained, AgentLookupError>>;

    /// Follows one job: the present view, then each change until it ended or the hub stops
    /// publishing.
    fn watch(&self, job: JobId) -> Reply<'_, Result<watch::Receiver<Arc<JobView>>, LookupError>>;

    /// The result document of a finished job, byte for byte.
    fn result(&self, job: JobId) -> Reply<'_, Result<JobResult, ResultError>>;

    /// A file of a finished job, read as it is asked for: the one that a matrix job's result is, or the one
    /// that a result document gives this name.
    fn output(&self, job: JobId, name: Option<String>) -> Reply<'_, Result<OutputFile, ResultError>>;

    /// What a job computes, in canonical form.
    fn manifest(&self, job: JobId) -> Reply<'_, Result<JobResult, LookupError>>;

    /// An input file or a part of it that lies within, if it is here whole, read as it is asked for.
    fn input_file(
        &self,
        input: Digest,
        part: Option<Range<u64>>,
    ) -> Reply<'_, Result<Option<OutputFile>, Outage>>;

    /// The secret from which the key is derived that signs URLs. It tells nobody but this hub.
    fn url_secret(&self) -> [u8; 32];

    /// What of an input file is here.
    fn input(&self, input: Digest) -> Reply<'_, Result<Presence, Outage>>;

    /// Says that a project wants an input file of this length, which counts towards what the project may keep.
    fn claim_input(
        &self,
        input: Digest,
        project: String,
        declared: u64,
    ) -> Reply<'_, Result<Claim, ClaimError>>;

    /// Begins to take an input file in.
    fn begin_upload(&self, input: Digest) -> Result<Upload, UploadRefused>;

    /// Takes one piece in; its answer means that it is durable. *Order*: ascending, from zero or from where the
    /// last upload of the file was cut off.
    fn put_piece(&self, input: Digest, piece: Piece) -> Reply<'_, Result<(), Outage>>;

    /// Hashes a piece that was taken in, behind those that the hasher knows; nothing where there is no such piece.
    fn hash_piece(
        &self,
        input: Digest,
        piece: u64,
        hasher: Hasher,
    ) -> Reply<'_, Result<Option<Hasher>, Outage>>;

    /// Makes a file of this length usable, which counts towards its project from then on, or removes what came of it;
    /// its answer means that it is durable.
    fn end_upload(&self, input: Digest, whole: Option<(u64, Reservation)>) -> Reply<'_, Result<(), Outage>>;

    /// Every enrolled agent. *Order*: by id.
    fn agents(&self) -> Vec<Arc<AgentView>>;

    /// Makes a single-use enrolment token for an agent of a provider, or for one of the operator's own; its answer
    /// means that the token is durable.
    fn issue_token(&self, provider: Option<ProviderName>) -> Reply<'_, Result<TokenIssued, TokenError>>;

    /// What a job cost so far, and who was paid.
    fn bill(&self, job: JobId) -> Reply<'_, Result<JobBill, LookupError>>;

    /// The signed receipt of a job that ended: for its client, or for the provider of this name. Its very bytes.
    fn receipt(&self, job: JobId, provider: Option<String>) -> Reply<'_, Result<Vec<u8>, ReceiptError>>;

    /// Every provider. *Order*: by name.
    fn providers(&self) -> Reply<'_, Result<ProviderList, Outage>>;

    /// What a provider earned, job by job.
    fn statement(&self, provider: String) -> Reply<'_, Result<Statement, StatementError>>;

    /// Pays what is due; its answer means that the settlement is durable.
    fn settle(&self, request: SettlementRequest) -> Reply<'_, Result<Settlement, SettleError>>;

    /// A settlement as it was made.
    fn settlement(&self, number: u64) -> Reply<'_, Result<Settlement, SettleError>>;

    /// A part of the audit log, from this entry on.
    fn audit(&self, from: u64) -> Reply<'_, Result<AuditPage, Outage>>;

    /// Whether an API key with this hash is in force, as far as this hub knows.
    fn key_is_valid(&self, hash: &KeyHash) -> bool;

    /// Looks for an API key that this hub does not know among those of all hubs on its store.
    fn find_key(&self, hash: KeyHash) -> Reply<'_, bool>;

    /// Whether others serve from the same store. Where not, nothing is asked of which hub has what.
    fn is_one_of_many(&self) -> bool;

    /// Which hub answers what is asked about a job: the one that has it while it is open, and any when it has ended or
    /// there is none.
    fn place_of(&self, job: JobId) -> Reply<'_, Result<Place, Outage>>;

    /// Which hub a new job is for: one that has agents.
    fn worker(&self) -> Place;

    /// Which hub does what one at a time must do.
    fn leader(&self) -> Place;

    /// The other hubs on the store. *Order*: by id.
    fn peers(&self) -> Vec<Peer>;

    /// All hubs on the store, this one included. *Order*: by id.
    fn hubs(&self) -> HubList;

    /// How the hub does.
    fn health(&self) -> Health;

    /// The hub's own metrics in the Prometheus text format, each line ended; ingress adds its own.
    fn metrics(&self) -> String;
}

/// Another hub on the same store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub id: HubId,
    /// Where its HTTP API is, as `HOST:PORT`.
    pub http: String,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this hub, or wherever it is asked for.
    Here,
    /// At another.
    At(Peer),
    /// At a hub that is gone, if at any; another takes over within seconds.
    Gone(Option<HubId>),
}

/// A job to accept.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What to compute.
    pub spec: Manifest,
    /// Makes a repeated submission answer the first job; kept with the job in one transaction.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The finished job whose paths it continues. `POST /v1/jobs` leaves it empty.
    pub extends: Option<JobId>,
}

/// More paths for a finished job.
#[derive(Clone, Debug)]
pub struct Extension {
    /// The finished job.
    pub job: JobId,
    /// All paths afterwards, those of the finished job included.
    pub paths: u64,
    /// As in [`Submission::idempotency_key`].
    pub idempotency_key: Option<IdempotencyKey>,
}

/// What a client names a request by, so that it can repeat it.
///
/// *Shape*: 1 to [`limits::IDEMPOTENCY_KEY_BYTES_MAX`] printable ASCII characters.
///
/// [`limits::IDEMPOTENCY_KEY_BYTES_MAX`]: tessera_protocol::limits::IDEMPOTENCY_KEY_BYTES_MAX
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key, or `None` when the text has not its shape.
    pub fn parse(text: &str) -> Option<IdempotencyKey> {
        let max = tessera_protocol::limits::IDEMPOTENCY_KEY_BYTES_MAX;
        let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        (printable && (1..=max).contains(&text.len())).then(|| IdempotencyKey(text.to_owned()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A job that is durable now.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job.
    pub view: Arc<JobView>,
    /// Whether it was there before, under the same Idempotency-Key.
    pub replayed: bool,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those of this project.
    pub project: Option<String>,
    /// Most to list.
    pub limit: usize,
}

/// A document of a job.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// Its bytes, a JSON document.
    pub bytes: Arc<[u8]>,
    /// Their BLAKE3 digest.
    pub digest: Digest,
}

/// A file that is sent.
#[derive(Debug)]
pub struct OutputFile {
    /// The length of what is sent. *Units*: bytes.
    pub bytes: u64,
    /// BLAKE3 of the whole.
    pub digest: Digest,
    /// Its bytes in order; ends early when the store cannot be read.
    pub pieces: mpsc::Receiver<Bytes>,
}

/// What a project that wants an input file gets.
#[derive(Debug)]
pub enum Claim {
    /// The file is here, and counts towards the project.
    Here,
    /// The file must be uploaded; there is room for it.
    Wanted(Reservation),
}

/// How the hub does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes work.
    Ok,
    /// It does not take requests now.
    Out(Outage),
}
