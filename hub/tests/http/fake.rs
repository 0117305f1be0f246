//! A hub in memory behind the real HTTP API: it keeps jobs, and tests move them along.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tessera_hub::ingress::backend::*;
use tessera_hub::ingress::keys::{ApiKey, KeyHash};
use tessera_hub::ingress::{Backend, Limits, ServerHandle, Views, serve};
use tessera_hub::inputs::quota::{Quotas, Reservation};
use tessera_hub::inputs::{self, Piece, Presence, Unfinished, Upload, UploadRefused, Uploads};
use tessera_hub_core::Charges;
use tessera_protocol::api::*;
use tessera_protocol::audit::AuditPage;
use tessera_protocol::credits::*;
use tessera_protocol::explain::{AgentExplained, JobExplained};
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::spec::{FieldError, SpecError};
use tessera_protocol::unit::{ComputeUnits, UnixMillis};
use tessera_storage::{Engine, Memory};
use tokio::sync::{mpsc, watch};

use crate::client::{Answer, Connection, head};

/// Open jobs of one project that the fake allows.
pub(crate) const OPEN_JOBS_MAX: usize = 3;
/// Tokens that the fake allows.
pub(crate) const TOKENS_MAX: u64 = 2;
/// A part of a result file, as the fake reads it.
pub(crate) const PART_BYTES: usize = 1 << 20;
/// What the fake calls the file of a finished job.
pub(crate) const OUTPUT_NAME: &str = "c.npy";
/// A seed for which the fake has no plan.
pub(crate) const SEED_WITHOUT_PLAN: u64 = 666;

/// A project that may not keep much.
pub(crate) const SMALL_PROJECT: &str = "small";
/// What it may keep. *Units*: bytes.
pub(crate) const SMALL_PROJECT_BYTES: u64 = 100;

/// The hub in memory.
pub(crate) struct Fake {
    pub(crate) views: Views,
    pub(crate) key: ApiKey,
    /// What is wrong with it.
    pub(crate) outage: Mutex<Option<Outage>>,
    /// How long it thinks before it answers a submission.
    pub(crate) pause: Mutex<Duration>,
    /// From this piece of an upload on, the store fails.
    pub(crate) pieces_stored_max: Mutex<Option<u64>>,
    /// Parts of result files that clients had room for.
    pub(crate) parts_given: Arc<AtomicU64>,
    results: Mutex<BTreeMap<JobId, Arc<[u8]>>>,
    files: Mutex<BTreeMap<JobId, Arc<[u8]>>>,
    uploads: Uploads,
    quotas: Quotas,
    pieces: Mutex<BTreeMap<(Digest, u64), Vec<u8>>>,
    unfinished: Mutex<BTreeMap<Digest, Unfinished>>,
    /// Pieces that were hashed again, of uploads that went on from where another was cut off.
    pub(crate) pieces_hashed: AtomicU64,
    inputs: Mutex<BTreeMap<Digest, u64>>,
    idempotent: Mutex<BTreeMap<IdempotencyKey, (Digest, JobId)>>,
    /// A job that it has forgotten by policy.
    pub(crate) pruned: Mutex<Option<JobId>>,
    jobs: AtomicU64,
    tokens: AtomicU64,
    /// The other hubs on its store, if it is one of many.
    peers: Mutex<Option<Vec<Peer>>>,
    /// Where jobs are that are not here.
    places: Mutex<BTreeMap<JobId, Place>>,
    leader: Mutex<Place>,
    worker: Mutex<Place>,
    asked_where: AtomicU64,
    settled: AtomicU64,
    /// A key that another hub made.
    late_key: Mutex<Option<KeyHash>>,
}

/// As the fake's store has no files at its start.
fn quotas() -> Quotas {
    let limits = inputs::quota::Limits {
        projects: BTreeMap::from([(SMALL_PROJECT.to_owned(), Some(SMALL_PROJECT_BYTES))]),
        default: None,
    };
    Quotas::recover(&*Memory::default().snapshot().unwrap(), limits).unwrap()
}

impl Fake {
    fn new(key: ApiKey) -> Fake {
        Fake {
            views: Views::default(),
            key,
            outage: Mutex::default(),
            pause: Mutex::default(),
            pieces_stored_max: Mutex::default(),
            parts_given: Arc::default(),
            results: Mutex::default(),
            files: Mutex::default(),
            uploads: Uploads::default(),
            quotas: quotas(),
            pieces: Mutex::default(),
            unfinished: Mutex::default(),
            pieces_hashed: AtomicU64::new(0),
            inputs: Mutex::default(),
            idempotent: Mutex::default(),
            pruned: Mutex::default(),
            jobs: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
            peers: Mutex::default(),
            places: Mutex::default(),
            leader: Mutex::new(Place::Here),
            worker: Mutex::new(Place::Here),
            asked_where: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            late_key: Mutex::default(),
        }
    }

    /// Serves beside others from now on.
    pub(crate) fn beside(&self, peers: Vec<Peer>) {
        *self.peers.lock().unwrap() = Some(peers);
    }

    /// Says where a job is.
    pub(crate) fn places(&self, job: JobId, place: Place) {
        self.places.lock().unwrap().insert(job, place);
    }

    /// Says which hub leads.
    pub(crate) fn led_by(&self, place: Place) {
        *self.leader.lock().unwrap() = place;
    }

    /// Says which hub has agents.
    pub(crate) fn worked_by(&self, place: Place) {
        *self.worker.lock().unwrap() = place;
    }

    /// Another hub makes a key.
    pub(crate) fn made_elsewhere(&self, key: KeyHash) {
        *self.late_key.lock().unwrap() = Some(key);
    }

    /// Numbers jobs from here on.
    pub(crate) fn number_from(&self, number: u64) {
        self.jobs.store(number, Ordering::Relaxed);
    }

    /// How often it was asked where a job is.
    pub(crate) fn asked_where(&self) -> u64 {
        self.asked_where.load(Ordering::Relaxed)
    }

    /// How many settlements it made.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Changes what is shown of a job.
    pub(crate) fn change(&self, job: JobId, change: impl FnOnce(&mut JobView)) {
        let mut view = JobView::clone(&self.views.job(job).unwrap());
        change(&mut view);
        self.views.publish_job(view);
    }

    pub(crate) fn finish(&self, job: JobId, result: &[u8]) {
        self.results.lock().unwrap().insert(job, result.into());
        self.change(job, |view| {
            view.state = JobState::Done;
            view.shards_done = view.shards;
            view.digest = Some(Digest::of(result));
            view.ended_ms = Some(UnixMillis(view.created_ms.0 + 5));
        });
    }

    /// Finishes a job whose result is a file.
    pub(crate) fn finish_with_file(&self, job: JobId, file: &[u8]) {
        self.files.lock().unwrap().insert(job, file.into());
        self.finish(job, b"{}");
    }

    /// The bytes of an input that is here whole.
    pub(crate) fn input_bytes(&self, input: Digest) -> Option<Vec<u8>> {
        let bytes = *self.inputs.lock().unwrap().get(&input)?;
        let pieces = self.pieces.lock().unwrap();
        let all: Vec<u8> =
            pieces.range((input, 0)..=(input, u64::MAX)).flat_map(|(_, piece)| piece).copied().collect();
        assert_eq!(all.len() as u64, bytes, "the length that was kept");
        Some(all)
    }

    /// Pieces of an input that are here, whole or not.
    pub(crate) fn pieces_kept(&self, input: Digest) -> usize {
        self.pieces.lock().unwrap().range((input, 0)..=(input, u64::MAX)).count()
    }

    /// Uploads that have a place.
    pub(crate) fn uploads(&self) -> usize {
        self.uploads.count()
    }

    fn up(&self) -> Result<(), Outage> {
        self.outage.lock().unwrap().map_or(Ok(()), Err)
    }

    fn find(&self, job: JobId) -> Result<Arc<JobView>, LookupError> {
        self.up().map_err(LookupError::Outage)?;
        match *self.pruned.lock().unwrap() {
            Some(pruned) if pruned == job => Err(LookupError::Pruned(job, UnixMillis(1_000))),
            _ => self.views.job(job).ok_or(LookupError::Unknown(job)),
        }
    }

    fn accept(&self, submission: &Submission) -> Result<Submitted, SubmitError> {
        self.up().map_err(SubmitError::Outage)?;
        let spec = submission.spec.spec();
        let mut idempotent = self.idempotent.lock().unwrap();
        if let Some((digest, first)) = submission.idempotency_key.as_ref().and_then(|key| idempotent.get(key))
        {
            return match *digest == submission.spec.digest() {
                true => Ok(Submitted { view: self.views.job(*first).unwrap(), replayed: true }),
                false => Err(SubmitError::KeyReused { first: *first }),
            };
        }
        if spec.seed == SEED_WITHOUT_PLAN {
            return Err(SubmitError::NotPlannable(no_plan()));
        }
        let cost = ComputeUnits(spec.params.paths());
        if let Some(cap) = spec.limits.cost_cap.filter(|cap| *cap < cost.0) {
            return Err(SubmitError::CostCapExceeded { cost, cap: ComputeUnits(cap) });
        }
        let open = JobFilter { limit: usize::MAX, project: Some(spec.project.clone()), state: None };
        if self.views.jobs(&open).iter().filter(|view| view.state.is_open()).count() >= OPEN_JOBS_MAX {
            return Err(SubmitError::OpenJobsFull { project: spec.project.clone(), max: OPEN_JOBS_MAX });
        }
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let view = queued(number, submission);
        if let Some(key) = &submission.idempotency_key {
            idempotent.insert(key.clone(), (submission.spec.digest(), view.id));
        }
        self.views.publish_job(view.clone());
        Ok(Submitted { view: Arc::new(view), replayed: false })
    }
}

fn queued(number: u64, submission: &Submission) -> JobView {
    let spec = submission.spec.spec();
    JobView {
        id: JobId::new(1_763_000_000_000 + number, [7; 10]),
        name: spec.name.clone(),
        project: spec.project.clone(),
        state: JobState::Queued,
        manifest_digest: submission.spec.digest(),
        verify: spec.verify,
        priority: spec.priority,
        created_ms: UnixMillis(1_763_000_000_000 + number),
        ended_ms: None,
        paths: spec.params.paths(),
        extends: submission.extends,
        cost: ComputeUnits(spec.params.paths()),
        shards: 8,
        shards_done: 0,
        attempts: 0,
        checks: 0,
        mismatches: 0,
        checks_skipped: 0,
        provisional: 0,
        recalled: 0,
        tainted: 0,
        lanes: vec![0, 0],
        digest: None,
        failure: None,
        waiting: Some("no agent is connected".into()),
    }
}

fn no_plan() -> SpecError {
    let field = FieldError { field: "seed".into(), value: "666".into(), allowed: "not this one".into() };
    SpecError { fields: vec![field] }
}

impl Backend for Fake {
    fn submit(&self, submission: Submission) -> Reply<'_, Result<Submitted, SubmitError>> {
        let pause = *self.pause.lock().unwrap();
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            self.accept(&submission)
        })
    }

    fn cancel(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, CancelError>> {
        Box::pin(async move {
            let view = self.find(job).map_err(|error| match error {
                LookupError::Unknown(job) => CancelError::Unknown(job),
                LookupError::Pruned(job, at) => CancelError::Pruned(job, at),
                LookupError::Outage(outage) => CancelError::Outage(outage),
            })?;
            match view.state {
                state @ (JobState::Done | JobState::Failed) => return Err(CancelError::Ended { job, state }),
                JobState::Queued | JobState::Running | JobState::Cancelled => {}
            }
            self.change(job, |view| view.state = JobState::Cancelled);
            Ok(self.views.job(job).unwrap())
        })
    }

    fn extend(&self, extension: Extension) -> Reply<'_, Result<Submitted, ExtendError>> {
        Box::pin(async move {
            let Extension { job, paths: asked, idempotency_key } = extension;
            let view = self.views.job(job).ok_or(ExtendError::Unknown(job))?;
            if view.state != JobState::Done {
                return Err(ExtendError::NotDone { job, state: view.state });
            }
            if asked <= view.paths {
                return Err(ExtendError::NotMorePaths { job, has: view.paths, asked });
            }
            let spec = crate::pi_spec("extended", asked).check().unwrap();
            let submission = Submission { spec, idempotency_key, extends: Some(job) };
            self.accept(&submission).map_err(ExtendError::Submit)
        })
    }

    fn plan(&self, manifest: tessera_protocol::spec::Manifest) -> Reply<'_, Result<PlanQuote, PlanError>> {
        Box::pin(async move {
            self.up().map_err(PlanError::Outage)?;
            let spec = manifest.spec();
            if spec.seed == SEED_WITHOUT_PLAN {
                return Err(PlanError::NotPlannable(no_plan()));
            }
            Ok(PlanQuote {
                manifest_digest: manifest.digest(),
                plan_digest: Digest::of(b"plan"),
                paths: spec.params.paths(),
                shard_size: 1_000,
                shards: spec.params.paths().div_ceil(1_000),
                cost: ComputeUnits(spec.params.paths()),
                stage: None,
                percent: Some(110),
                price: Some(Microcredits(2 * i128::from(spec.params.paths()))),
            })
        })
    }

    fn job(&self, job: JobId) -> Reply<'_, Result<Arc<JobView>, LookupError>> {
        Box::pin(async move { self.find(job) })
    }

    fn explain_job(&self, job: JobId) -> Reply<'_, Result<JobExplained, LookupError>> {
        Box::pin(async move { self.find(job).map(|_| crate::explain::job(job)) })
    }

    fn explain_agent(&self, agent: AgentId) -> Reply<'_, Result<AgentExplained, AgentLookupError>> {
        Box::pin(async move {
            self.up().map_err(AgentLookupError::Outage)?;
            let known = self.views.agent(agent).ok_or(AgentLookupError::NotConnected(agent))?;
            Ok(crate::explain::agent(known.id))
        })
    }

    fn jobs(&self, filter: JobFilter) -> Reply<'_, Result<Vec<Arc<JobView>>, Outage>> {
        Box::pin(async move { self.up().map(|()| self.views.jobs(&filter)) })
    }

    fn watch(&self, job: JobId) -> Reply<'_, Result<watch::Receiver<Arc<JobView>>, LookupError>> {
        Box::pin(async move { self.views.watch(job).ok_or(LookupError::Unknown(job)) })
    }

    fn result(&self, job: JobId) -> Reply<'_, Result<JobResult, ResultError>> {
        Box::pin(async move {
            let view = self.views.job(job).ok_or(ResultError::Unknown(job))?;
            match view.state {
                state @ (JobState::Queued | JobState::Running) => Err(ResultError::NotDone { job, state }),
                JobState::Failed => Err(ResultError::Failed { job, failure: view.failure.clone() }),
                JobState::Cancelled => Err(ResultError::Cancelled(job)),
                JobState::Done => {
                    let bytes = self.results.lock().unwrap()[&job].clone();
                    Ok(JobResult { digest: Digest::of(&bytes), bytes })
                }
            }
        })
    }

    fn output(&self, job: JobId, name: Option<String>) -> Reply<'_, Result<OutputFile, ResultError>> {
        Box::pin(async move {
            self.result(job).await?;
            if let Some(name) = name.filter(|name| name != OUTPUT_NAME) {
                return Err(ResultError::NoOutput { job, name });
            }
            let file = self.files.lock().unwrap().get(&job).cloned().ok_or(ResultError::NoFile(job))?;
            let (bytes, digest) = (file.len() as u64, Digest::of(&file));
            let (sender, pieces) = mpsc::channel(1);
            let given = self.parts_given.clone();
            tokio::spawn(async move {
                for part in file.chunks(PART_BYTES) {
                    let Ok(place) = sender.reserve().await else { return };
                    given.fetch_add(1, Ordering::Relaxed);
                    place.send(part.to_vec().into());
                }
            });
            Ok(OutputFile { bytes, digest, pieces })
        })
    }

    fn manifest(&self, job: JobId) -> Reply<'_, Result<JobResult, LookupError>> {
        Box::pin(async move {
            self.find(job)?;
            let bytes: Arc<[u8]> = b"{}"[..].into();
            Ok(JobResult { digest: Digest::of(&bytes), bytes })
        })
    }

    fn url_secret(&self) -> [u8; 32] {
        [9; 32]
    }

    fn input_file(
        &self,
        input: Digest,
        part: Option<Range<u64>>,
    ) -> Reply<'_, Result<Option<OutputFile>, Outage>> {
        Box::pin(async move {
            self.up()?;
            let Some(mut file) = self.input_bytes(input) else { return Ok(None) };
            if let Some(part) = part {
                file = file[part.start as usize..part.end as usize].to_vec();
            }
            let bytes = file.len() as u64;
            let (sender, pieces) = mpsc::channel(1);
            tokio::spawn(async move { sender.send(file.into()).await });
            Ok(Some(OutputFile { bytes, digest: input, pieces }))
        })
    }

    fn input(&self, input: Digest) -> Reply<'_, Result<Presence, Outage>> {
        Box::pin(async move {
            self.up()?;
            let unfinished = || self.unfinished.lock().unwrap().get(&input).copied();
            Ok(match self.inputs.lock().unwrap().get(&input) {
                Some(bytes) => Presence::Whole(*bytes),
                None => unfinished().map_or(Presence::Absent, Presence::Part),
            })
        })
    }

    fn claim_input(
        &self,
        input: Digest,
        project: String,
        declared: u64,
    ) -> Reply<'_, Result<Claim, ClaimError>> {
        Box::pin(async move {
            self.up().map_err(ClaimError::Outage)?;
            if self.inputs.lock().unwrap().contains_key(&input) {
                return Ok(Claim::Here);
            }
            self.quotas.reserve(&project, declared).map(Claim::Wanted).map_err(ClaimError::Full)
        })
    }

    fn begin_upload(&self, input: Digest) -> Result<Upload, UploadRefused> {
        self.uploads.begin(input)
    }

    fn put_piece(&self, input: Digest, piece: Piece) -> Reply<'_, Result<(), Outage>> {
        Box::pin(async move {
            if self.pieces_stored_max.lock().unwrap().is_some_and(|max| piece.number >= max) {
                return Err(Outage::StoreFull);
            }
            let Piece { number, bytes, declared } = piece;
            let whole_pieces =
                number + u64::from(number * INPUT_PIECE_BYTES + (bytes.len() as u64) < declared);
            let received = whole_pieces * INPUT_PIECE_BYTES;
            self.pieces.lock().unwrap().insert((input, number), bytes);
            let unfinished = Unfinished { received, declared, last: UnixMillis(0) };
            self.unfinished.lock().unwrap().insert(input, unfinished);
            Ok(())
        })
    }

    fn hash_piece(
        &self,
        input: Digest,
        piece: u64,
        mut hasher: blake3::Hasher,
    ) -> Reply<'_, Result<Option<blake3::Hasher>, Outage>> {
        Box::pin(async move {
            self.pieces_hashed.fetch_add(1, Ordering::Relaxed);
            let pieces = self.pieces.lock().unwrap();
            let Some(bytes) = pieces.get(&(input, piece)) else { return Ok(None) };
            hasher.update(bytes);
            Ok(Some(hasher))
        })
    }

    fn end_upload(&self, input: Digest, whole: Option<(u64, Reservation)>) -> Reply<'_, Result<(), Outage>> {
        Box::pin(async move {
            // As in a hub, it takes a moment until it is durable.
            tokio::task::yield_now().await;
            self.unfinished.lock().unwrap().remove(&input);
            match whole {
                Some((bytes, room)) => {
                    room.keep();
                    self.inputs.lock().unwrap().insert(input, bytes);
                }
                None => self.pieces.lock().unwrap().retain(|(of, _), _| *of != input),
            }
            Ok(())
        })
    }

    fn agents(&self) -> Vec<Arc<AgentView>> {
        self.views.agents()
    }

    fn issue_token(&self, provider: Option<ProviderName>) -> Reply<'_, Result<TokenIssued, TokenError>> {
        Box::pin(async move {
            self.up().map_err(TokenError::Outage)?;
            if self.tokens.fetch_add(1, Ordering::Relaxed) >= TOKENS_MAX {
                return Err(TokenError::UnusedTokensFull { max: TOKENS_MAX as usize });
            }
            let provider = provider.map_or(OPERATOR.to_owned(), |name| name.to_string());
            Ok(TokenIssued { token: "hubkey.secret".into(), hub: "127.0.0.1:7000".into(), provider })
        })
    }

    fn bill(&self, job: JobId) -> Reply<'_, Result<JobBill, LookupError>> {
        Box::pin(async move {
            let view = self.find(job)?;
            let mut charges = Charges::planned(view.verify, Digest([1; 32]), view.cost);
            let earned =
                Earned { shards: 1, units: Microcredits(1), checks: 0, check_units: Microcredits(0) };
            charges.paid.insert((ProviderId::of_name("acme"), AgentId([1; 16])), earned);
            let names = BTreeMap::from([(ProviderId::of_name("acme"), "acme".to_owned())]);
            Ok(tessera_hub::accounts::bill(&view, &charges, &names))
        })
    }

    fn receipt(&self, job: JobId, provider: Option<String>) -> Reply<'_, Result<Vec<u8>, ReceiptError>> {
        Box::pin(async move {
            let view = self.find(job).map_err(ReceiptError::Lookup)?;
            if view.state.is_open() {
                return Err(ReceiptError::Open { job, state: view.state });
            }
            match provider {
                Some(provider) if provider != OUTPUT_NAME => Err(ReceiptError::NoShare { job, provider }),
                _ => Ok(b"{}".to_vec()),
            }
        })
    }

    fn providers(&self) -> Reply<'_, Result<ProviderList, Outage>> {
        Box::pin(async move {
            self.up()?;
            let (id, name) = (ProviderId::of_name("acme"), "acme".to_owned());
            let standing = Some(Standing::Trusted);
            let view = ProviderView { id, name, agents: 2, standing, totals: totals() };
            Ok(ProviderList { providers: vec![view] })
        })
    }

    fn statement(&self, provider: String) -> Reply<'_, Result<Statement, StatementError>> {
        Box::pin(async move {
            self.up().map_err(StatementError::Outage)?;
            match provider.as_str() {
                OUTPUT_NAME => Ok(statement()),
                _ => Err(StatementError::Unknown(provider)),
            }
        })
    }

    fn settle(&self, request: SettlementRequest) -> Reply<'_, Result<Settlement, SettleError>> {
        Box::pin(async move {
            self.up().map_err(SettleError::Outage)?;
            match request.until_ms {
                Some(UnixMillis(0)) => Err(SettleError::NothingDue),
                _ => {
                    self.settled.fetch_add(1, Ordering::Relaxed);
                    Ok(settlement())
                }
            }
        })
    }

    fn settlement(&self, number: u64) -> Reply<'_, Result<Settlement, SettleError>> {
        Box::pin(async move {
            match number {
                1 => Ok(settlement()),
                _ => Err(SettleError::Unknown(number)),
            }
        })
    }

    fn audit(&self, from: u64) -> Reply<'_, Result<AuditPage, Outage>> {
        Box::pin(async move {
            self.up()?;
            Ok(AuditPage { lines: vec!["{}".to_owned()], entries: from + 1, next: None })
        })
    }

    fn key_is_valid(&self, hash: &KeyHash) -> bool {
        *hash == self.key.hash()
    }

    fn find_key(&self, hash: KeyHash) -> Reply<'_, bool> {
        Box::pin(async move { *self.late_key.lock().unwrap() == Some(hash) })
    }

    fn is_one_of_many(&self) -> bool {
        self.peers.lock().unwrap().is_some()
    }

    fn place_of(&self, job: JobId) -> Reply<'_, Result<Place, Outage>> {
        self.asked_where.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(self.places.lock().unwrap().get(&job).cloned().unwrap_or(Place::Here)) })
    }

    fn worker(&self) -> Place {
        self.worker.lock().unwrap().clone()
    }

    fn leader(&self) -> Place {
        self.leader.lock().unwrap().clone()
    }

    fn peers(&self) -> Vec<Peer> {
        self.peers.lock().unwrap().clone().unwrap_or_default()
    }

    fn hubs(&self) -> HubList {
        let view = |peer: Peer| HubView {
            id: peer.id,
            http: peer.http,
            quic: "10.0.0.2:7843".into(),
            leader: true,
            here: false,
            silent_ms: 12,
        };
        HubList { hubs: self.peers().into_iter().map(view).collect() }
    }

    fn health(&self) -> Health {
        self.up().map_or_else(Health::Out, |()| Health::Ok)
    }

    fn metrics(&self) -> String {
        "# TYPE tessera_jobs_open gauge\ntessera_jobs_open 1\n".into()
    }
}

fn totals() -> Totals {
    let amounts = [1000, 0, 100, 400, 500].map(Microcredits);
    let [gross, forfeited, held, settled, payable] = amounts;
    Totals { gross, forfeited, held, settled, payable }
}

fn statement() -> Statement {
    let earned = Earned { shards: 9, units: Microcredits(900), checks: 1, check_units: Microcredits(100) };
    let (job, ended_ms, totals) = (JobId::new(5, [7; 10]), UnixMillis(9), totals());
    let line = StatementLine { job, ended_ms, earned, rate: 1, totals };
    Statement { provider: "acme".to_owned(), lines: vec![line], totals }
}

fn settlement() -> Settlement {
    let (made_ms, until_ms, total) = (UnixMillis(20), UnixMillis(10), Microcredits(500));
    Settlement { number: 1, made_ms, until_ms, total, statements: vec![statement()] }
}

/// An agent to show.
pub(crate) fn agent(number: u8) -> AgentView {
    AgentView {
        id: AgentId([number; 16]),
        name: format!("agent-{number}"),
        state: AgentState::Connected,
        lane: Some(1),
        version: "0.1.0".into(),
        slots: 4,
        isa: "avx2".into(),
        arch: "x86_64".into(),
        memory_bytes: 1 << 33,
        region: "eu-north".into(),
        gpus: vec![GpuView {
            name: "NVIDIA H100".into(),
            memory_bytes: 80 << 30,
            compute_capability: "9.0".into(),
            driver: "12.4".into(),
        }],
        kernels: vec!["monte_carlo".into(), "video:0123456789abcdef".into()],
        in_flight: 2,
        completed: 10,
        mismatches: 0,
        provider: "acme".into(),
        anchor: false,
        standing: Some(Standing::Probation),
        rest: Some(RestView { until_ms: UnixMillis(1_763_000_000_000), because: "it failed".into() }),
    }
}

/// The API over the fake, with a key at hand.
pub(crate) struct Hub {
    pub(crate) fake: Arc<Fake>,
    pub(crate) server: ServerHandle,
    bearer: String,
}

impl Hub {
    pub(crate) fn start(limits: Limits) -> Hub {
        Hub::start_with(limits, ApiKey::generate().unwrap())
    }

    pub(crate) fn start_with(limits: Limits, key: ApiKey) -> Hub {
        let fake = Arc::new(Fake::new(key));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = serve(listener, fake.clone(), limits).unwrap();
        let bearer = format!("Bearer {}", fake.key.reveal());
        Hub { fake, server, bearer }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.server.address())
    }

    /// The head of a request that carries the key.
    pub(crate) fn head(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: Option<usize>,
    ) -> String {
        let mut all = vec![("authorization", self.bearer.as_str())];
        all.extend_from_slice(headers);
        head(method, path, &all, length)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut connection = self.connect();
        connection.send(&self.head("GET", path, headers, None));
        connection.read_answer()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut connection = self.connect();
        connection.send(&(self.head("POST", path, headers, Some(body.len())) + body));
        connection.read_answer()
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.send(&self.head("PUT", path, &[], Some(body.len())));
        connection.send_bytes(body);
        connection.read_answer()
    }

    /// Submits a job that is accepted.
    pub(crate) fn submit(&self, spec: &str) -> JobId {
        let answer = self.post("/v1/jobs", spec);
        assert_eq!(answer.status, 201, "{answer:?}");
        serde_json::from_slice::<JobView>(&answer.body).unwrap().id
    }
}
