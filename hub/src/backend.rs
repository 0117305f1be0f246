//! The hub behind its HTTP API: requests become events for home lanes, reads come from the views and
//! the store.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use blake3::Hasher;
use tessera_hub_core::record::Base;
use tessera_hub_core::{Answer, Event, NewJob, RequestId, admission, home_lane};
use tessera_planners::Plan;
use tessera_protocol::api::{AgentView, HubList, JobState, JobView, PlanQuote, TokenIssued};
use tessera_protocol::audit::{Act, AuditPage};
use tessera_protocol::credits::{
    JobBill, Microcredits, ProviderList, ProviderName, Settlement, SettlementRequest, Statement,
    class_percent, price,
};
use tessera_protocol::explain::{AgentExplained, JobExplained};
use tessera_protocol::id::{AgentId, Digest, HubId, JobId};
use tessera_protocol::limits;
use tessera_protocol::spec::{FieldError, Manifest, SpecError};
use tessera_protocol::token::EnrolmentToken;
use tessera_protocol::unit::{ComputeUnits, LaneIndex, UnixMillis};
use tessera_storage::{Batch, Commit, Engine, Key, Snapshot};
use tokio::sync::{oneshot, watch};

use crate::audit::Deed;
use crate::blobs::{BlobError, Blobs};
use crate::clients::Clients;
use crate::ingress::Views;
use crate::ingress::backend::{
    AgentLookupError, Backend, CancelError, Claim, ClaimError, ExtendError, Extension, Health, JobFilter,
    JobResult, LookupError, Outage, OutputFile, Peer, Place, PlanError, ReceiptError, Reply, ResultError,
    SettleError, StatementError, Submission, SubmitError, Submitted, TokenError,
};
use crate::ingress::keys::KeyHash;
use crate::inputs::quota::{Quotas, Reservation};
use crate::inputs::{self, Piece, Presence, Upload, UploadRefused, Uploads, wanted};
use crate::journal::{Journal, StoreState, Verdict};
use crate::keeper::Keeper;
use crate::lane::{Input, LaneCounters};
use crate::peers::Peers;
use crate::quic::Identity;
use crate::reader::Reader;
use crate::records::{self, Owner, RecordError};
use crate::retention;
use crate::runtime::Mailboxes;

mod files;
mod metrics;

pub(crate) use files::Outputs;
use files::outage_of;

/// What the HTTP API reaches of the hub.
pub struct Hub {
    pub(crate) lanes: Mailboxes<Input>,
    pub(crate) journal: Journal,
    pub(crate) reader: Reader,
    pub(crate) blobs: Blobs,
    pub(crate) uploads: Uploads,
    pub(crate) quotas: Quotas,
    /// How long a blob that no job refers to is kept.
    pub(crate) grace: Duration,
    pub(crate) keeper: Keeper,
    /// Stored since the start. *Units*: bytes.
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) clients: Clients,
    pub(crate) views: Arc<Views>,
    pub(crate) store: Arc<dyn Engine>,
    pub(crate) counters: Vec<Arc<LaneCounters>>,
    pub(crate) api_keys: RwLock<BTreeSet<KeyHash>>,
    /// Which of the hubs on its store it is; nothing where it has the store for itself.
    pub(crate) me: Option<HubId>,
    /// The others of them.
    pub(crate) peers: Option<Arc<Peers>>,
    pub(crate) hub_key: [u8; 32],
    /// Signs receipts and checkpoints.
    pub(crate) identity: Identity,
    /// Who makes a settlement.
    pub(crate) settling: tokio::sync::Mutex<()>,
    pub(crate) quic: SocketAddr,
    pub(crate) draining: AtomicBool,
}

impl Hub {
    /// Runs a question to the store on a thread where waiting for a disk stops nobody.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Snapshot) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T, Outage> {
        // A cluster is asked already for the moment to read at.
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || ask(&*store.snapshot()?)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(%error, "a record cannot be read");
                Err(Outage::StoreFailing)
            }
            Err(_) => Err(Outage::Unavailable),
        }
    }

    /// Gives a home lane an event and waits for its answer.
    async fn ask(&self, job: JobId, event: impl FnOnce(RequestId) -> Event) -> Result<Answer, Outage> {
        let answer = self.ask_lane(home_lane(job, self.lanes.lanes()), event)?;
        answer.await.map_err(|_| Outage::Unavailable)
    }

    /// Gives a lane an event, waiting while its mailbox is full.
    pub(crate) fn tell_lane(&self, lane: LaneIndex, event: Event) {
        self.lanes.get(lane).push(Input::Event(Box::new(event)));
    }

    /// Gives any lane an event that it will answer.
    pub(crate) fn ask_lane(
        &self,
        lane: LaneIndex,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<oneshot::Receiver<Answer>, Outage> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Outage::Draining);
        }
        let (request, answer) = self.clients.waiting().register();
        let input = Input::Event(Box::new(event(request)));
        if self.lanes.try_push(lane, input).is_err() {
            self.clients.waiting().withdraw(request);
            return Err(Outage::Unavailable);
        }
        Ok(answer)
    }

    async fn accept(
        &self,
        manifest: Manifest,
        base: Option<Base>,
        idempotency_key: Option<String>,
    ) -> Result<Submitted, SubmitError> {
        let project = manifest.spec().project.clone();
        let first = match &base {
            Some(base) => base.tally.samples,
            None => 0,
        };
        let (manifest, plan) = planned(manifest, first).await.map_err(SubmitError::Outage)?;
        let plan = plan.map_err(SubmitError::NotPlannable)?;
        self.check_inputs(&manifest, &plan).await?;
        if self.views.open_jobs(&project) >= limits::OPEN_JOBS_PER_PROJECT_MAX {
            return Err(SubmitError::OpenJobsFull { project, max: limits::OPEN_JOBS_PER_PROJECT_MAX });
        }
        let created = UnixMillis(unix_ms());
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|_| SubmitError::Outage(Outage::Unavailable))?;
        let id = JobId::new(created.0, random);
        let digest = manifest.digest();
        let job = Arc::new(NewJob { id, manifest, plan, created, base, idempotency_key });
        let answer = self.ask(id, |request| Event::JobSubmitted { request, job }).await;
        match answer.map_err(SubmitError::Outage)? {
            Answer::Accepted(view) => Ok(Submitted { view: Arc::new(*view), replayed: false }),
            Answer::Replayed { job, manifest } if manifest == digest => match self.view(job).await {
                Ok(view) => Ok(Submitted { view, replayed: true }),
                Err(LookupError::Outage(outage)) => Err(SubmitError::Outage(outage)),
                Err(LookupError::Unknown(_) | LookupError::Pruned(..)) => {
                    Err(SubmitError::Outage(Outage::StoreFailing))
                }
            },
            Answer::Replayed { job, .. } => Err(SubmitError::KeyReused { first: job }),
            Answer::Refused(admission::AdmissionError::CostCap { cost, cap }) => {
                Err(SubmitError::CostCapExceeded { cost: ComputeUnits(cost), cap: ComputeUnits(cap) })
            }
            Answer::Refused(error @ admission::AdmissionError::TooLarge) => {
                Err(SubmitError::NotPlannable(SpecError::of("params.book", error)))
            }
            Answer::StoreFailing => Err(SubmitError::Outage(self.store_outage())),
            Answer::Stopping => Err(SubmitError::Outage(Outage::Draining)),
            Answer::Cancelled(_) | Answer::NotOpen | Answer::JobExplained(..) | Answer::AgentExplained(_) => {
                Err(SubmitError::Outage(Outage::Unavailable))
            }
        }
    }

    /// Every file that the plan reads must be here before the job is, and counts towards its project.
    async fn check_inputs(&self, manifest: &Manifest, plan: &Plan) -> Result<(), SubmitError> {
        let wanted = plan.inputs();
        if wanted.is_empty() {
            return Ok(());
        }
        let asked = wanted.clone();
        let found = self.read(move |store| {
            asked.iter().map(|(input, _)| inputs::length(store, *input)).collect::<Result<Vec<_>, _>>()
        });
        let found = found.await.map_err(SubmitError::Outage)?;
        let mut fields = Vec::new();
        for ((input, bytes), found) in wanted.into_iter().zip(found) {
            let declared = manifest.spec().inputs.iter().position(|declared| declared.blake3 == input);
            let field = format!("inputs[{}]", declared.unwrap_or_default());
            let here = match found {
                Some(found) if found == bytes => self.claim(input, &manifest.spec().project, bytes).await,
                Some(found) => {
                    fields.push(FieldError {
                        field: field + ".bytes",
                        value: bytes.to_string(),
                        allowed: format!("the file of this digest has {found} bytes"),
                    });
                    continue;
                }
                None => self.claim(input, &manifest.spec().project, 0).await,
            };
            match here {
                Ok(Claim::Here) => {}
                Ok(Claim::Wanted(_)) => fields.push(FieldError {
                    field: field + ".blake3",
                    value: input.to_string(),
                    allowed: "the file is not here: upload it with `PUT /v1/inputs/{blake3}`, as `tessera submit` does"
                        .to_owned(),
                }),
                Err(ClaimError::Full(full)) => return Err(SubmitError::BlobsFull(full)),
                Err(ClaimError::Outage(outage)) => return Err(SubmitError::Outage(outage)),
            }
        }
        if fields.is_empty() { Ok(()) } else { Err(SubmitError::NotPlannable(SpecError { fields })) }
    }

    /// Waits until a batch is durable.
    pub(crate) async fn store(&self, deed: impl Into<Deed>) -> Result<(), Outage> {
        match self.judge(deed).await? {
            Commit::Done => Ok(()),
            Commit::Conflict { .. } => Err(Outage::StoreFailing),
        }
    }

    /// Waits until a batch is durable, or was found to conflict.
    pub(crate) async fn judge(&self, deed: impl Into<Deed>) -> Result<Commit, Outage> {
        let deed = deed.into();
        let (sender, verdict) = oneshot::channel();
        let request = Journal::request(move || deed, |verdict| drop(sender.send(verdict)));
        self.journal.retry(request).map_err(|_| Outage::Unavailable)?;
        match verdict.await {
            Ok(Verdict::Judged(judged)) => Ok(judged),
            Ok(Verdict::Failed(_)) => Err(self.store_outage()),
            Err(_) => Err(Outage::Unavailable),
        }
    }

    /// What clients are told of a commit that failed.
    fn store_outage(&self) -> Outage {
        match self.journal.store_state() {
            StoreState::Full => Outage::StoreFull,
            StoreState::ReadOnly => Outage::StoreReadOnly,
            // It may have recovered since.
            StoreState::Ok | StoreState::Failing => Outage::StoreFailing,
        }
    }

    async fn form(&self, job: JobId) -> Result<JobResult, LookupError> {
        self.view(job).await?;
        let manifest = self.read(move |store| records::read_manifest(store, job)).await;
        let manifest = manifest.map_err(LookupError::Outage)?;
        Ok(JobResult { bytes: manifest.bytes().into(), digest: manifest.digest() })
    }

    pub(crate) async fn view(&self, job: JobId) -> Result<Arc<JobView>, LookupError> {
        if let Some(view) = self.views.job(job) {
            return Ok(view);
        }
        let stored =
            self.read(move |store| Ok((records::read_view(store, job)?, retention::pruned_at(store, job)?)));
        match stored.await.map_err(LookupError::Outage)? {
            (Some(view), _) => Ok(Arc::new(view)),
            (None, Some(at)) => Err(LookupError::Pruned(job, at)),
            (None, None) => Err(LookupError::Unknown(job)),
        }
    }

    async fn stop_job(&self, job: JobId) -> Result<Arc<JobView>, CancelError> {
        let view = self.view(job).await.map_err(|error| match error {
            LookupError::Unknown(job) => CancelError::Unknown(job),
            LookupError::Pruned(job, at) => CancelError::Pruned(job, at),
            LookupError::Outage(outage) => CancelError::Outage(outage),
        })?;
        if !view.state.is_open() {
            return cancelled(view);
        }
        let answer = self.ask(job, |request| Event::CancelRequested { request, job }).await;
        match answer.map_err(CancelError::Outage)? {
            Answer::Cancelled(view) => cancelled(Arc::new(*view)),
            // It ended between the look and the event.
            Answer::NotOpen => match self.view(job).await {
                Ok(view) => cancelled(view),
                Err(_) => Err(CancelError::Outage(Outage::Unavailable)),
            },
            Answer::StoreFailing => Err(CancelError::Outage(self.store_outage())),
            Answer::Stopping => Err(CancelError::Outage(Outage::Draining)),
            Answer::Accepted(_)
            | Answer::Replayed { .. }
            | Answer::Refused(_)
            | Answer::JobExplained(..)
            | Answer::AgentExplained(_) => Err(CancelError::Outage(Outage::Unavailable)),
        }
    }

    async fn continue_job(&self, extension: Extension) -> Result<Submitted, ExtendError> {
        let Extension { job, paths, idempotency_key } = extension;
        let out = |outage| ExtendError::Submit(SubmitError::Outage(outage));
        let view = self.view(job).await.map_err(|error| match error {
            LookupError::Unknown(job) => ExtendError::Unknown(job),
            LookupError::Pruned(job, at) => ExtendError::Pruned(job, at),
            LookupError::Outage(outage) => out(outage),
        })?;
        if view.state != JobState::Done {
            return Err(ExtendError::NotDone { job, state: view.state });
        }
        if paths <= view.paths {
            return Err(ExtendError::NotMorePaths { job, has: view.paths, asked: paths });
        }
        let read = move |store: &dyn Snapshot| {
            Ok((records::read_manifest(store, job)?, records::read_progress(store, job)?))
        };
        let (manifest, progress) = self.read(read).await.map_err(out)?;
        let manifest = manifest
            .with_paths(paths)
            .map_err(|error| ExtendError::Submit(SubmitError::NotPlannable(error)))?;
        let Some(tally) = progress.and_then(|progress| progress.tally) else {
            return Err(out(Outage::StoreFailing));
        };
        let base = Base { job, tally: Arc::unwrap_or_clone(tally), tainted: view.tainted };
        let key = idempotency_key.map(|key| key.as_str().to_owned());
        self.accept(manifest, Some(base), key).await.map_err(ExtendError::Submit)
    }

    async fn document(&self, job: JobId) -> Result<JobResult, ResultError> {
        let view = self.view(job).await.map_err(|error| match error {
            LookupError::Unknown(job) => ResultError::Unknown(job),
            LookupError::Pruned(job, at) => ResultError::Pruned(job, at),
            LookupError::Outage(outage) => ResultError::Outage(outage),
        })?;
        match view.state {
            JobState::Queued | JobState::Running => Err(ResultError::NotDone { job, state: view.state }),
            JobState::Failed => Err(ResultError::Failed { job, failure: view.failure.clone() }),
            JobState::Cancelled => Err(ResultError::Cancelled(job)),
            JobState::Done => {
                let bytes = self.read(move |store| records::read_result(store, job)).await;
                let bytes = bytes.map_err(ResultError::Outage)?;
                let bytes = bytes.ok_or(ResultError::Outage(Outage::StoreFailing))?;
                let digest = Digest::of(&bytes);
                if view.digest != Some(digest) {
                    tracing::error!(%job, %digest, "the stored result has another digest than its job");
                    return Err(ResultError::Outage(Outage::StoreFailing));
                }
                Ok(JobResult { bytes: bytes.into(), digest })
            }
        }
    }

    /// Makes a single-use token and its record.
    async fn new_token(&self, provider: Option<ProviderName>) -> Result<TokenIssued, TokenError> {
        let out = TokenError::Outage;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| out(Outage::Unavailable))?;
        let owner = Owner(provider);
        self.store(token_deed(&secret, &owner)).await.map_err(out)?;
        let token = EnrolmentToken { hub_key: self.hub_key, secret }.to_string();
        let hub = match &self.peers {
            Some(peers) => peers.agent_addresses().join(","),
            None => self.quic.to_string(),
        };
        Ok(TokenIssued { token, hub, provider: owner.name().to_owned() })
    }

    /// Where a job is, where others serve from the same store.
    async fn find_job(&self, peers: &Peers, job: JobId) -> Result<Place, Outage> {
        let shown = self.views.job(job);
        if shown.as_ref().is_some_and(|view| !view.state.is_open()) {
            return Ok(Place::Here);
        }
        let look = move |store: &dyn Snapshot| {
            let owner = records::owner_of_job(store, job)?;
            // What another hub had when this one started may have ended since.
            let ended = match (owner, &shown) {
                (None, Some(_)) => records::read_view(store, job)?.filter(|view| !view.state.is_open()),
                _ => None,
            };
            Ok((owner, ended))
        };
        let (owner, ended) = self.read(look).await?;
        ended.into_iter().for_each(|view| self.views.publish_job(view));
        Ok(owner.map_or(Place::Here, |owner| peers.place_of(owner)))
    }

    /// Whether another hub has made a key since this one started.
    async fn look_for_key(&self, hash: KeyHash) -> bool {
        let Some(peers) = &self.peers else { return false };
        if !peers.may_look_for(hash, Instant::now()) {
            return false;
        }
        let key = Key::ApiKey(Digest(hash.0)).encode();
        let found = self.read(move |store| Ok(store.get(&key)?.is_some())).await.unwrap_or(false);
        if found && let Ok(mut keys) = self.api_keys.write() {
            keys.insert(hash);
        }
        found
    }
}

impl Backend for Hub {
    fn submit(&self, submission: Submission) -> Reply<'_, Result<Submitted, SubmitError>> {
        let key = submission.idempotency_key.map(|key| key.as_str().to_owned());
        Box::pin(self.accept(submission.spec, None, key))
    }

    fn cancel(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, CancelError>> {
        Box::pin(self.stop_job(job))
    }

    fn extend(&self, extension: Extension) -> Reply<'_, Result<Submitted, ExtendError>> {
        Box::pin(self.continue_job(extension))
    }

    fn plan(&self, manifest: Manifest) -> Reply<'_, Result<PlanQuote, PlanError>> {
        Box::pin(async move {
            let (manifest, plan) = planned(manifest, 0).await.map_err(PlanError::Outage)?;
            let plan = plan.map_err(PlanError::NotPlannable)?;
            let (cost, verify) = (plan.cost_max(&manifest).unwrap_or(plan.cost()), manifest.spec().verify);
            Ok(PlanQuote {
                manifest_digest: manifest.digest(),
                plan_digest: plan.digest(),
                paths: manifest.spec().params.paths(),
                shard_size: plan.shard_size(),
                shards: plan.shards(),
                cost,
                stage: plan.stage().map(str::to_owned),
                percent: Some(class_percent(verify)),
                price: Some(price(Microcredits(i128::from(cost.0)), verify)),
            })
        })
    }

    fn job(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, LookupError>> {
        Box::pin(self.view(job))
    }

    fn explain_job(&self, job: JobId) -> Reply<'_, Result<JobExplained, LookupError>> {
        Box::pin(self.job_explained(job))
    }

    fn explain_agent(&self, agent: AgentId) -> Reply<'_, Result<AgentExplained, AgentLookupError>> {
        Box::pin(self.agent_explained(agent))
    }

    fn jobs(&self, filter: JobFilter) -> Reply<'_, Result<Vec<Arc<JobView>>, Outage>> {
        Box::pin(async move { Ok(self.views.jobs(&filter)) })
    }

    fn watch(&self, job: JobId) -> Reply<'_, Result<watch::Receiver<Arc<JobView>>, LookupError>> {
        Box::pin(async move {
            match self.views.watch(job) {
                Some(receiver) => Ok(receiver),
                // An old job: its last view, from a sender that is gone.
                None => self.view(job).await.map(|view| watch::Sender::new(view).subscribe()),
            }
        })
    }

    fn result(&self, job: JobId) -> Reply<'_, Result<JobResult, ResultError>> {
        Box::pin(self.document(job))
    }

    fn output(&self, job: JobId, name: Option<String>) -> Reply<'_, Result<OutputFile, ResultError>> {
        match name {
            None => Box::pin(self.file(job)),
            Some(name) => Box::pin(self.named_file(job, name)),
        }
    }

    fn manifest(&self, job: JobId) -> Reply<'_, Result<JobResult, LookupError>> {
        Box::pin(self.form(job))
    }

    fn input_file(
        &self,
        input: Digest,
        part: Option<Range<u64>>,
    ) -> Reply<'_, Result<Option<OutputFile>, Outage>> {
        Box::pin(self.input_pieces(input, part))
    }

    fn url_secret(&self) -> [u8; 32] {
        // The document holds the private key, and nobody else has it.
        *blake3::hash(self.identity.pkcs8()).as_bytes()
    }

    fn input(&self, input: Digest) -> Reply<'_, Result<Presence, Outage>> {
        Box::pin(self.read(move |store| inputs::presence(store, input)))
    }

    fn claim_input(
        &self,
        input: Digest,
        project: String,
        declared: u64,
    ) -> Reply<'_, Result<Claim, ClaimError>> {
        Box::pin(async move { self.claim(input, &project, declared).await })
    }

    fn begin_upload(&self, input: Digest) -> Result<Upload, UploadRefused> {
        self.uploads.begin(input)
    }

    fn put_piece(&self, input: Digest, piece: Piece) -> Reply<'_, Result<(), Outage>> {
        Box::pin(self.store_piece(input, piece))
    }

    fn hash_piece(
        &self,
        input: Digest,
        piece: u64,
        mut hasher: Hasher,
    ) -> Reply<'_, Result<Option<Hasher>, Outage>> {
        Box::pin(async move {
            let named = self.read(move |store| inputs::uploaded_piece(store, input, piece)).await?;
            let Some((name, blake3)) = named else { return Ok(None) };
            let bytes = match self.blobs.begin_get(name, blake3).await {
                Ok(Some(bytes)) => bytes,
                // The file is found to be another one then, and sent again.
                Ok(None) | Err(BlobError::Damaged(_)) => return Ok(None),
                Err(error) => return Err(outage_of(&error)),
            };
            let hashed = tokio::task::spawn_blocking(move || {
                hasher.update(&bytes);
                hasher
            });
            Ok(Some(hashed.await.map_err(|_| Outage::Unavailable)?))
        })
    }

    fn end_upload(&self, input: Digest, whole: Option<(u64, Reservation)>) -> Reply<'_, Result<(), Outage>> {
        Box::pin(async move {
            let Some((bytes, room)) = whole else { return self.remove_upload(input).await };
            let mut batch = inputs::whole_batch(input, bytes, UnixMillis(unix_ms()));
            wanted::put_owner(&mut batch, input, room.project(), bytes);
            self.store(batch).await?;
            room.keep();
            Ok(())
        })
    }

    fn agents(&self) -> Vec<Arc<AgentView>> {
        self.views.agents()
    }

    fn issue_token(&self, provider: Option<ProviderName>) -> Reply<'_, Result<TokenIssued, TokenError>> {
        Box::pin(self.new_token(provider))
    }

    fn bill(&self, job: JobId) -> Reply<'_, Result<JobBill, LookupError>> {
        Box::pin(self.job_bill(job))
    }

    fn receipt(&self, job: JobId, provider: Option<String>) -> Reply<'_, Result<Vec<u8>, ReceiptError>> {
        Box::pin(self.sign_receipt(job, provider))
    }

    fn providers(&self) -> Reply<'_, Result<ProviderList, Outage>> {
        Box::pin(self.list_providers())
    }

    fn statement(&self, provider: String) -> Reply<'_, Result<Statement, StatementError>> {
        Box::pin(self.provider_statement(provider))
    }

    fn settle(&self, request: SettlementRequest) -> Reply<'_, Result<Settlement, SettleError>> {
        Box::pin(self.make_settlement(request))
    }

    fn settlement(&self, number: u64) -> Reply<'_, Result<Settlement, SettleError>> {
        Box::pin(self.find_settlement(number))
    }

    fn audit(&self, from: u64) -> Reply<'_, Result<AuditPage, Outage>> {
        Box::pin(self.audit_page(from))
    }

    fn key_is_valid(&self, hash: &KeyHash) -> bool {
        self.api_keys.read().is_ok_and(|keys| keys.contains(hash))
    }

    fn find_key(&self, hash: KeyHash) -> Reply<'_, bool> {
        Box::pin(self.look_for_key(hash))
    }

    fn is_one_of_many(&self) -> bool {
        self.peers.is_some()
    }

    fn place_of(&self, job: JobId) -> Reply<'_, Result<Place, Outage>> {
        Box::pin(async move {
            match &self.peers {
                Some(peers) => self.find_job(peers, job).await,
                None => Ok(Place::Here),
            }
        })
    }

    fn worker(&self) -> Place {
        self.peers.as_ref().map_or(Place::Here, |peers| peers.worker())
    }

    fn leader(&self) -> Place {
        self.peers.as_ref().map_or(Place::Here, |peers| peers.leader())
    }

    fn peers(&self) -> Vec<Peer> {
        self.peers.as_ref().map_or(Vec::new(), |peers| peers.others())
    }

    fn hubs(&self) -> HubList {
        self.peers.as_ref().map_or(HubList { hubs: Vec::new() }, |peers| peers.list())
    }

    fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) {
            return Health::Out(Outage::Draining);
        }
        match self.journal.store_state() {
            StoreState::Ok => Health::Ok,
            StoreState::Full | StoreState::ReadOnly | StoreState::Failing => Health::Out(self.store_outage()),
        }
    }

    fn metrics(&self) -> String {
        metrics::of(self)
    }
}

/// The batch that makes a token usable once, and its provider known.
pub fn token_deed(secret: &[u8; 32], owner: &Owner) -> Deed {
    let mut batch = Batch::new();
    let key = Key::Token(Digest::of(secret));
    batch.expect_absent(key).put(key, records::token_unspent(owner.0.as_ref()));
    if let Some(provider) = &owner.0 {
        batch.put(Key::Provider(provider.id()), records::provider_bytes(provider));
    }
    let act = Act::TokenMade { token: Digest::of(secret), provider: owner.name().to_owned() };
    Deed { batch, acts: vec![act] }
}

/// Wall-clock time. *Units*: Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Plans on a thread where a large book stops nobody.
async fn planned(manifest: Manifest, first: u64) -> Result<(Manifest, Result<Plan, SpecError>), Outage> {
    let plan = move || {
        let plan = Plan::new(&manifest, first).map_err(|error| SpecError::of("params.paths", error));
        (manifest, plan)
    };
    tokio::task::spawn_blocking(plan).await.map_err(|_| Outage::Unavailable)
}

fn cancelled(view: Arc<JobView>) -> Result<Arc<JobView>, CancelError> {
    match view.state {
        JobState::Cancelled => Ok(view),
        state => Err(CancelError::Ended { job: view.id, state }),
    }
}
