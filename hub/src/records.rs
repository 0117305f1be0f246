//! How records lie in the store: which keys a record writes, in which bytes, and how they read back.
//!
//! Owns the encodings and their versions. Knows nothing of threads, lanes or when a commit happens.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tessera_hub_core::message::Proof;
use tessera_hub_core::ranges::Ranges;
use tessera_hub_core::record::{Base, Kept, Unchecked, refuted_by};
use tessera_hub_core::standing::{Change, StandingRecord};
use tessera_hub_core::{Account, Bill, Charges, NewJob, Outcome, Progress, Record};
use tessera_planners::{Plan, Round};
use tessera_protocol::api::{AgentState, AgentView, JobState, JobView, Standing};
use tessera_protocol::audit::Act;
use tessera_protocol::credits::{Earned, OPERATOR, ProviderName};
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::matrix::Task;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{ShardIndex, ShardRange};
use tessera_protocol::wire::Hello;
use tessera_storage::{Batch, Entry, Family, Key, ReadError, Snapshot, tiles_of};

use crate::audit::Deed;
use crate::inputs::wanted::{self, Role};
use crate::retention;

/// Version of every encoding below; a reader refuses others.
const VERSION: u8 = 1;
/// Stands where a tile's position does, for the task that says how the tiles of a done job are cut.
pub(crate) const CUT: u64 = u64::MAX;
/// Marks a token that no agent has used and that enrols one of the operator's own.
pub const TOKEN_UNSPENT: &[u8] = &[VERSION, 0];
/// Before a provider's name: a token that no agent has used and that enrols one of that provider's.
const TOKEN_UNSPENT_OF: [u8; 2] = [VERSION, 2];

/// Under `job/`: all of a job but what may be large.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredJob {
    version: u8,
    pub(crate) view: JobView,
    first: u64,
    idempotency_key: Option<String>,
}

/// Under `agent/`: what an agent said when it enrolled.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAgent {
    version: u8,
    pub(crate) public_key: Digest,
    name: String,
    slots: u16,
    isa: String,
    arch: String,
    memory_bytes: u64,
    agent_version: String,
    /// Who owns it; absent, the operator, whose agents were the only ones once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) provider: Option<ProviderName>,
}

/// Under `provider/`.
#[derive(Serialize, Deserialize)]
struct StoredProvider {
    version: u8,
    name: ProviderName,
}

/// Under `progress/`, before the bytes of the tallies.
#[derive(Serialize, Deserialize)]
struct StoredProgress {
    version: u8,
    view: JobView,
    /// The plan whose indices `done` counts; absent where the job is done.
    plan: Option<Digest>,
    /// Start and end of each range of shards that are done.
    done: Vec<(u64, u64)>,
    /// The round that the plan is of.
    #[serde(default)]
    round: Option<Round>,
    /// Lengths of the tallies of complete passes, which lie before the running one.
    #[serde(default)]
    earlier: Vec<usize>,
    /// The products of the shards of the stage that are done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    products: Vec<(u64, ProductRef)>,
}

mod bills;
mod hubs;

pub use hubs::{HubAt, hubs, owner_of_job, put_owner};
pub(crate) use hubs::{decode_hub_at, decode_owner};

pub(crate) use bills::{decode_earning, decode_provider, decode_removal, decode_settled, each_line};
pub use bills::{
    earnings_of, lines_of, provider_names, put_removal, read_bill, read_settlement, read_unchecked,
    removals_of, settled_of, settlement_batch, settlements,
};

/// Why the store's bytes are not the records they should be.
#[derive(Debug)]
pub enum RecordError {
    /// The engine could not read.
    Read(ReadError),
    /// A value does not decode: damaged, or written by a newer hub.
    Malformed {
        /// Which value.
        what: &'static str,
        /// Whose.
        of: String,
    },
    /// Another record that this one needs is not there.
    Missing {
        /// Which value.
        what: &'static str,
        /// Whose.
        of: String,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Read(error) => write!(f, "{error}"),
            RecordError::Malformed { what, of } => write!(
                f,
                "the {what} of {of} cannot be read: it is damaged, or a newer hub wrote it; update this hub or restore a backup"
            ),
            RecordError::Missing { what, of } => {
                write!(f, "the {what} of {of} is missing from the store; restore a backup")
            }
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Read(error) => Some(error),
            RecordError::Malformed { .. } | RecordError::Missing { .. } => None,
        }
    }
}

impl From<ReadError> for RecordError {
    fn from(error: ReadError) -> RecordError {
        RecordError::Read(error)
    }
}

// --- writing --------------------------------------------------------------------------------------

/// The batch that makes a record durable, and what the audit log says of it.
pub fn deed_of(record: &Record) -> Deed {
    Deed { batch: batch_of(record), acts: acts_of(record) }
}

fn acts_of(record: &Record) -> Vec<Act> {
    match record {
        Record::JobAccepted { job, view: _ } => vec![Act::JobAccepted {
            job: job.id,
            project: job.manifest.spec().project.clone(),
            manifest: job.manifest.digest(),
            held: Bill::open(job.manifest.spec().verify, &job.plan).charges().held,
        }],
        Record::JobProgressed { .. } | Record::TileReduced { .. } => Vec::new(),
        Record::StandingsChanged { agents: _, changes, proofs, at: _ } => {
            let changed = |change: &Change| Act::StandingChanged { agent: change.agent, standing: change.to };
            proofs.iter().map(disputed).chain(changes.iter().map(changed)).collect()
        }
        Record::Disputed(proof) => vec![disputed(proof)],
        Record::Recalled { job, agent, recalled } => {
            let (shards, tainted) = (recalled.shards, recalled.tainted);
            vec![Act::Recalled { job: *job, agent: *agent, shards, tainted }]
        }
        Record::JobEnded { job, view, outcome: _, bill, unchecked: _ } => vec![
            Act::JobEnded { job: *job, state: view.state, digest: view.digest },
            Act::BillClosed {
                job: *job,
                held: bill.held,
                paid: bill.paid.values().map(Earned::amount).sum(),
                hub: bill.hub,
                refunded: bill.refunded,
            },
        ],
    }
}

fn disputed((job, evidence): &Proof) -> Act {
    let answers: Vec<serde_json::Value> = evidence
        .answers
        .iter()
        .map(|(agent, account, digest)| {
            let mut said =
                serde_json::json!({"agent": agent, "provider": account.provider, "digest": digest});
            if let Some((_, oddity)) = evidence.oddities.iter().find(|(whose, _)| whose == agent) {
                said["odd"] = oddity.to_string().into();
            }
            said
        })
        .collect();
    let evidence_said = serde_json::json!({"answers": answers, "believed": evidence.believed});
    Act::Disputed { job: *job, shard: evidence.index.0, evidence: evidence_said }
}

/// The batch that makes a record durable.
pub fn batch_of(record: &Record) -> Batch {
    let mut batch = Batch::new();
    match record {
        Record::JobAccepted { job, view } => {
            let id = job.id;
            batch.expect_absent(Key::Job(id));
            if let Some(key) = &job.idempotency_key {
                let project = &job.manifest.spec().project;
                let key = Key::Idempotency { project, key: key.as_bytes() };
                batch.expect_absent(key).put(key, idempotency_value(id, job.manifest.digest()));
            }
            batch.put(Key::Job(id), stored_job(job.plan.first(), job.idempotency_key.clone(), view));
            batch.put_chunked(&Key::Manifest(id).encode(), &job.manifest.bytes());
            if let Some(base) = &job.base {
                retention::put_extension(&mut batch, base.job, id);
            }
            for (input, _) in job.plan.inputs() {
                wanted::put_reference(&mut batch, id, input, Role::Input);
            }
            let bill = Bill::open(job.manifest.spec().verify, &job.plan);
            bills::put(&mut batch, id, bill.charges(), None);
        }
        Record::JobProgressed { job, progress } => {
            batch.put_chunked(&Key::Progress(*job).encode(), &progress_bytes(progress));
            bills::put(&mut batch, *job, &progress.bill, None);
        }
        Record::TileReduced { job, plan, tile, bytes, earned } => {
            let value = [&plan.0, &bytes[..]].concat();
            batch.put_chunked(&Key::Tile { job: *job, tile: *tile }.encode(), &value);
            bills::put_tile(&mut batch, (*job, *plan), *tile, earned);
        }
        // What was said, and what came of it, is in the audit log alone.
        Record::Disputed(_) | Record::Recalled { .. } => {}
        Record::StandingsChanged { agents, changes, proofs, at } => {
            for (agent, provider) in proofs.iter().flat_map(refuted_by) {
                batch.put(Key::Trace(agent), provider.0);
            }
            for record in agents {
                batch.put(Key::Standing(record.agent), standing_bytes(record));
            }
            for change in changes.iter().filter(|change| change.to == Standing::Removed) {
                let provider = agents.iter().find(|record| record.agent == change.agent);
                if let Some(record) = provider {
                    bills::put_removal(&mut batch, record.provider, record.agent, *at);
                }
            }
        }
        Record::JobEnded { job, view, outcome, bill, unchecked } => {
            bills::end(&mut batch, *job, view, (bill, unchecked));
            if let Some(parent) = view.extends {
                batch.delete(Key::Extension { parent, child: *job });
            }
            // A view's first sample and key were written at acceptance and are not needed again.
            batch.put(Key::Job(*job), stored_job(0, None, view));
            match outcome {
                Outcome::Done { result, kept } => {
                    batch.put_chunked(&Key::Result(*job).encode(), result);
                    let progress = Key::Progress(*job).encode();
                    match kept {
                        Kept::Tally(tally) => batch.put_chunked(&progress, &ended_bytes(view, tally)),
                        Kept::Products => batch.delete_chunked(&progress),
                        Kept::Tiles(task) => {
                            batch.delete_chunked(&progress);
                            batch.put_chunked(&Key::Tile { job: *job, tile: CUT }.encode(), &task.encode())
                        }
                    };
                }
                Outcome::Failed | Outcome::Cancelled => {
                    batch.delete_chunked(&Key::Progress(*job).encode());
                    batch.delete_range(tiles_of(*job));
                }
            }
        }
    }
    batch
}

/// The batch that tells of a job that ended that more of its result is tainted than was known.
/// `found` is its record until then.
pub fn taint_batch(found: Vec<u8>, view: &JobView, bill: &Charges, unchecked: &Unchecked) -> Batch {
    let mut batch = Batch::new();
    batch.expect_equals(Key::Job(view.id), found).put(Key::Job(view.id), stored_job(0, None, view));
    bills::put(&mut batch, view.id, bill, Some(unchecked));
    batch
}

/// The batch that says that all jobs tell of an agent that was proven wrong.
pub fn traced_batch(agent: AgentId) -> Batch {
    let mut batch = Batch::new();
    batch.delete(Key::Trace(agent));
    batch
}

/// Agents that were proven wrong while jobs that ended before may not tell of it.
pub fn traces(store: &dyn Snapshot) -> Result<Vec<(AgentId, ProviderId)>, RecordError> {
    let trace = |entry: Entry| {
        let malformed = || RecordError::Malformed { what: "trace", of: "an agent".to_owned() };
        let Ok((Key::Trace(agent), _)) = Key::decode(&entry.key) else { return Err(malformed()) };
        Ok((agent, ProviderId(entry.value.try_into().map_err(|_| malformed())?)))
    };
    entries(store, Family::Traces)?.into_iter().map(trace).collect()
}

/// The key that shows whether a record's batch happened, and the bytes it then holds.
pub fn proof_of(batch: &Batch) -> Option<(Vec<u8>, Vec<u8>)> {
    batch.writes().iter().find_map(|write| match write {
        tessera_storage::Write::Put { key, value } => Some((key.clone(), value.clone())),
        _ => None,
    })
}

fn idempotency_value(job: JobId, manifest: Digest) -> Vec<u8> {
    [&[VERSION][..], &job.0, &manifest.0].concat()
}

/// Reads what lies under an idempotency key.
pub fn read_idempotency(value: &[u8]) -> Option<(JobId, Digest)> {
    let (version, rest) = value.split_first()?;
    let (job, manifest) = rest.split_first_chunk()?;
    (*version == VERSION).then_some((JobId(*job), Digest(manifest.try_into().ok()?)))
}

fn stored_job(first: u64, idempotency_key: Option<String>, view: &JobView) -> Vec<u8> {
    json(&StoredJob { version: VERSION, view: view.clone(), first, idempotency_key })
}

fn progress_bytes(progress: &Progress) -> Vec<u8> {
    let done = progress.done.iter().map(|range| (range.start, range.end)).collect();
    let earlier: Vec<Vec<u8>> = progress.earlier.iter().map(|tally| tally.encode()).collect();
    let head = json(&StoredProgress {
        version: VERSION,
        view: progress.view.clone(),
        plan: Some(progress.plan),
        done,
        round: Some(progress.round.clone()),
        earlier: earlier.iter().map(Vec::len).collect(),
        products: progress.products.iter().map(|(index, product)| (index.0, product.clone())).collect(),
    });
    let running = progress.tally.as_ref().map(|tally| tally.encode()).unwrap_or_default();
    headed(&head, &[earlier.concat(), running].concat())
}

fn ended_bytes(view: &JobView, tally: &Tally) -> Vec<u8> {
    let head = json(&StoredProgress {
        version: VERSION,
        view: view.clone(),
        plan: None,
        done: vec![(0, view.shards)],
        round: None,
        earlier: Vec::new(),
        products: Vec::new(),
    });
    headed(&head, &tally.encode())
}

fn headed(head: &[u8], tallies: &[u8]) -> Vec<u8> {
    [&(head.len() as u32).to_be_bytes()[..], head, tallies].concat()
}

/// What lies under a tile's key before its elements: the digest of the plan that it is of.
pub const TILE_HEAD_BYTES: u64 = 32;

/// Our own types have string keys and finite numbers, so they always are JSON.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("stored types are JSON")
}

/// The record of an agent that enrols, of this provider or of the operator's own.
pub fn agent_bytes(public_key: [u8; 32], hello: &Hello, provider: Option<&ProviderName>) -> Vec<u8> {
    json(&StoredAgent {
        version: VERSION,
        public_key: Digest(public_key),
        name: hello.name.clone(),
        slots: hello.slots,
        isa: hello.isa.clone(),
        arch: hello.arch.clone(),
        memory_bytes: hello.memory_bytes,
        agent_version: hello.version.clone(),
        provider: provider.cloned(),
    })
}

/// Who owns an agent, by its record; nothing where the record cannot be read.
pub fn owner_of_agent(record: &[u8]) -> Option<Owner> {
    let stored: StoredAgent = serde_json::from_slice(record).ok()?;
    Some(Owner(stored.provider))
}

/// Who owns an agent: a provider, or the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub Option<ProviderName>);

impl Owner {
    /// As the machine knows it.
    pub fn account(&self) -> Account {
        match &self.0 {
            Some(provider) => Account::of_provider(provider.id()),
            None => Account::operator(),
        }
    }

    /// As people know it.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or(OPERATOR, ProviderName::as_str)
    }
}

/// What a token holds that no agent has used.
pub fn token_unspent(provider: Option<&ProviderName>) -> Vec<u8> {
    match provider {
        None => TOKEN_UNSPENT.to_vec(),
        Some(provider) => [&TOKEN_UNSPENT_OF, provider.as_str().as_bytes()].concat(),
    }
}

/// Whose agent a token enrols; nothing where it is spent.
pub fn owner_of_token(value: &[u8]) -> Option<Owner> {
    if value == TOKEN_UNSPENT {
        return Some(Owner(None));
    }
    let name = std::str::from_utf8(value.strip_prefix(&TOKEN_UNSPENT_OF)?).ok()?;
    Some(Owner(Some(name.parse().ok()?)))
}

/// The record of a provider.
pub fn provider_bytes(name: &ProviderName) -> Vec<u8> {
    json(&StoredProvider { version: VERSION, name: name.clone() })
}

/// What a spent token holds.
pub fn token_spent_by(agent: AgentId) -> Vec<u8> {
    [&[VERSION, 1][..], &agent.0].concat()
}

/// Who spent a token; nothing where it is not spent.
pub(crate) fn spender_of_token(value: &[u8]) -> Option<AgentId> {
    let agent = value.strip_prefix(&[VERSION, 1])?;
    Some(AgentId(agent.try_into().ok()?))
}

// --- reading --------------------------------------------------------------------------------------

/// All that a hub needs to know at its start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every job, oldest first.
    pub views: Vec<JobView>,
    /// Open jobs with what of them is done.
    pub open: Vec<(Arc<NewJob>, Option<Progress>)>,
    /// Every enrolled agent.
    pub agents: BTreeMap<AgentId, AgentView>,
    /// How far agents are trusted.
    pub standings: Vec<StandingRecord>,
    /// Digests of the API keys in force.
    pub api_keys: Vec<Digest>,
}

/// Reads everything back.
pub fn recover(store: &dyn Snapshot) -> Result<Recovered, RecordError> {
    recover_where(store, |_| true)
}

/// Reads back what a hub beside others needs: no open job, for each is some hub's, and changes meanwhile.
pub fn recover_beside(store: &dyn Snapshot) -> Result<Recovered, RecordError> {
    recover_where(store, |view| !view.state.is_open())
}

fn recover_where(
    store: &dyn Snapshot,
    concerns: impl Fn(&JobView) -> bool,
) -> Result<Recovered, RecordError> {
    let mut recovered = Recovered::default();
    for entry in entries(store, Family::Jobs)? {
        let Ok((Key::Job(id), _)) = Key::decode(&entry.key) else { continue };
        let stored = decode_job(id, &entry.value)?;
        if !concerns(&stored.view) {
            continue;
        }
        if !stored.view.state.is_open() {
            recovered.views.push(stored.view);
            continue;
        }
        let (job, progress) = open_job(store, &stored)?;
        recovered.views.push(progress.as_ref().map_or(stored.view, |progress| progress.view.clone()));
        recovered.open.push((job, progress));
    }
    for entry in entries(store, Family::Agents)? {
        let Ok((Key::Agent(id), _)) = Key::decode(&entry.key) else { continue };
        recovered.agents.insert(id, away(id, decode_agent(id, &entry.value)?));
    }
    for entry in entries(store, Family::Standings)? {
        let record = decode_standing(&entry.value)?;
        if let Some(view) = recovered.agents.get_mut(&record.agent) {
            view.standing = Some(record.standing);
        }
        recovered.standings.push(record);
    }
    for entry in entries(store, Family::ApiKeys)? {
        if let Ok((Key::ApiKey(digest), _)) = Key::decode(&entry.key) {
            recovered.api_keys.push(digest);
        }
    }
    Ok(recovered)
}

fn entries(store: &dyn Snapshot, family: Family) -> Result<Vec<Entry>, ReadError> {
    let mut all = Vec::new();
    store.walk(&family.range(), &mut |entry| all.push(entry))?;
    Ok(all)
}

/// The record of an agent.
pub(crate) fn decode_agent(id: AgentId, value: &[u8]) -> Result<StoredAgent, RecordError> {
    serde_json::from_slice::<StoredAgent>(value)
        .ok()
        .filter(|stored| stored.version == VERSION)
        .ok_or_else(|| RecordError::Malformed { what: "record", of: id.to_string() })
}

/// How far an agent is trusted.
pub(crate) fn decode_standing(value: &[u8]) -> Result<StandingRecord, RecordError> {
    let malformed = |_| RecordError::Malformed { what: "standing", of: "an agent".to_owned() };
    serde_json::from_slice(value).map_err(malformed)
}

/// As it lies under `standing/`.
pub(crate) fn standing_bytes(record: &StandingRecord) -> Vec<u8> {
    json(record)
}

/// The record of a job.
pub(crate) fn decode_job(id: JobId, value: &[u8]) -> Result<StoredJob, RecordError> {
    serde_json::from_slice::<StoredJob>(value)
        .ok()
        .filter(|stored| stored.version == VERSION)
        .ok_or_else(|| RecordError::Malformed { what: "record", of: id.to_string() })
}

/// An open job and what of it is done.
///
/// *Panics*: if its bill does not balance.
pub(crate) fn open_job(
    store: &dyn Snapshot,
    stored: &StoredJob,
) -> Result<(Arc<NewJob>, Option<Progress>), RecordError> {
    let id = stored.view.id;
    let manifest = read_manifest(store, id)?;
    let plan = Plan::new(&manifest, stored.first)
        .map_err(|_| RecordError::Malformed { what: "plan", of: id.to_string() })?;
    // Another hub version may cut the same job otherwise: then its shards are other paths, which the
    // machine finds out by the plan's digest.
    let progress = match plan.matrix() {
        // A former version did not write the round of a job in its first one.
        None => read_progress(store, id)?.map(|progress| match progress.plan == plan.digest() {
            true => Progress { round: plan.round().clone(), ..progress },
            false => progress,
        }),
        Some(task) => Some(tiles_done(store, stored, &plan, task)?),
    };
    let base = match stored.view.extends {
        Some(parent) => {
            let missing = || RecordError::Missing { what: "tally", of: parent.to_string() };
            let tally =
                read_progress(store, parent)?.and_then(|progress| progress.tally).ok_or_else(missing)?;
            // The copy of the view beside the tally is as old as the job's end.
            let tainted = read_view(store, parent)?.ok_or_else(missing)?.tainted;
            Some(Base { job: parent, tally: Arc::unwrap_or_clone(tally), tainted })
        }
        None => None,
    };
    let (created, idempotency_key) = (stored.view.created_ms, stored.idempotency_key.clone());
    Ok((Arc::new(NewJob { id, manifest, plan, created, base, idempotency_key }), progress))
}

/// What of a matrix job is done: the blocks of the tiles that are here and of its plan.
fn tiles_done(
    store: &dyn Snapshot,
    stored: &StoredJob,
    plan: &Plan,
    task: &tessera_protocol::matrix::Task,
) -> Result<Progress, RecordError> {
    let id = stored.view.id;
    let (mut done, mut tiles) = (Ranges::default(), Vec::new());
    for tile in bills::paid_tiles(store, id)? {
        let of = store.get_chunked_part(&Key::Tile { job: id, tile }.encode(), 0..TILE_HEAD_BYTES)?;
        if tile < task.tile_count() && of.is_some_and(|of| of == plan.digest().0) {
            done.insert(ShardRange { start: tile * task.panels(), end: (tile + 1) * task.panels() });
            tiles.push(tile);
        }
    }
    let view = read_progress(store, id)?.map_or_else(|| stored.view.clone(), |progress| progress.view);
    let view = JobView { shards_done: done.count(), ..view };
    let bill = bills::of_tiles(store, id, (&view, plan), &tiles)?;
    let (plan, round) = (plan.digest(), plan.round().clone());
    let products = BTreeMap::new();
    Ok(Progress { done, tally: None, earlier: Vec::new(), view, plan, round, products, bill })
}

/// The view of one job, however old.
pub fn read_view(store: &dyn Snapshot, id: JobId) -> Result<Option<JobView>, RecordError> {
    match store.get(&Key::Job(id).encode())? {
        Some(value) => decode_job(id, &value).map(|stored| Some(stored.view)),
        None => Ok(None),
    }
}

/// The record of a job as it lies in the store, and its view.
pub fn read_record(store: &dyn Snapshot, id: JobId) -> Result<Option<(Vec<u8>, JobView)>, RecordError> {
    let Some(value) = store.get(&Key::Job(id).encode())? else { return Ok(None) };
    let view = decode_job(id, &value)?.view;
    Ok(Some((value, view)))
}

/// Done jobs that extend another. *Order*: oldest first.
pub fn extensions(store: &dyn Snapshot) -> Result<Vec<JobId>, RecordError> {
    let (mut found, mut damaged) = (Vec::new(), None);
    store.walk(&Family::Jobs.range(), &mut |entry| {
        let Ok((Key::Job(id), _)) = Key::decode(&entry.key) else { return };
        match decode_job(id, &entry.value) {
            Ok(StoredJob { view, .. }) if view.state == JobState::Done && view.extends.is_some() => {
                found.push(id)
            }
            Ok(_) => {}
            Err(error) => damaged = Some(error),
        }
    })?;
    damaged.map_or(Ok(found), Err)
}

/// What a job computes.
pub fn read_manifest(store: &dyn Snapshot, id: JobId) -> Result<Manifest, RecordError> {
    let of = || id.to_string();
    let bytes = store.get_chunked(&Key::Manifest(id).encode())?;
    let bytes = bytes.ok_or_else(|| RecordError::Missing { what: "manifest", of: of() })?;
    JobSpec::from_json(&bytes)
        .and_then(Manifest::recovered)
        .map_err(|_| RecordError::Malformed { what: "manifest", of: of() })
}

/// The result document of a done job.
pub fn read_result(store: &dyn Snapshot, id: JobId) -> Result<Option<Vec<u8>>, RecordError> {
    Ok(store.get_chunked(&Key::Result(id).encode())?)
}

/// How the result of a done matrix job lies in tiles; nothing where another job's is a document.
pub fn read_cut(store: &dyn Snapshot, id: JobId) -> Result<Option<Task>, RecordError> {
    let bytes = store.get_chunked(&Key::Tile { job: id, tile: CUT }.encode())?;
    Ok(bytes.and_then(|bytes| Task::decode(&bytes).ok()))
}

/// What of a job is done; of a done job, everything.
pub fn read_progress(store: &dyn Snapshot, id: JobId) -> Result<Option<Progress>, RecordError> {
    let Some(bytes) = store.get_chunked(&Key::Progress(id).encode())? else { return Ok(None) };
    let malformed = || RecordError::Malformed { what: "progress", of: id.to_string() };
    let (length, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
    let (head, mut tallies) =
        rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(malformed)?;
    let head: StoredProgress = serde_json::from_slice(head).map_err(|_| malformed())?;
    let ascending = head.done.windows(2).all(|pair| pair[0].1 < pair[1].0);
    if head.version != VERSION || !ascending || head.done.iter().any(|(start, end)| start >= end) {
        return Err(malformed());
    }
    let bill = bills::read_bill(store, id)?;
    let bill = bill.unwrap_or_else(|| {
        Charges::planned(head.view.verify, head.plan.unwrap_or(Digest([0; 32])), head.view.cost)
    });
    let mut done = Ranges::default();
    head.done.iter().for_each(|(start, end)| done.insert(ShardRange { start: *start, end: *end }));
    let decode = |bytes: &[u8]| Tally::decode(bytes).map(Arc::new).map_err(|_| malformed());
    let mut earlier = Vec::new();
    for bytes in head.earlier {
        let (tally, rest) = tallies.split_at_checked(bytes).ok_or_else(malformed)?;
        earlier.push(decode(tally)?);
        tallies = rest;
    }
    let tally = if tallies.is_empty() { None } else { Some(decode(tallies)?) };
    let round = head.round.unwrap_or_else(|| Round { end: head.view.paths, ..Round::default() });
    let plan = head.plan.unwrap_or(Digest([0; 32]));
    let products = head.products.into_iter().map(|(index, product)| (ShardIndex(index), product)).collect();
    Ok(Some(Progress { done, tally, earlier, view: head.view, plan, round, products, bill }))
}

fn away(id: AgentId, stored: StoredAgent) -> AgentView {
    AgentView {
        id,
        name: stored.name,
        state: AgentState::Away,
        lane: None,
        version: stored.agent_version,
        slots: stored.slots,
        isa: stored.isa,
        arch: stored.arch,
        memory_bytes: stored.memory_bytes,
        region: String::new(),
        gpus: Vec::new(),
        kernels: Vec::new(),
        in_flight: 0,
        completed: 0,
        mismatches: 0,
        provider: stored.provider.as_ref().map_or(OPERATOR, ProviderName::as_str).to_owned(),
        anchor: stored.provider.is_none(),
        standing: None,
        rest: None,
    }
}

/// What lies under `job/`, of a job in this state.
#[cfg(test)]
pub(crate) fn test_job(id: JobId, state: tessera_protocol::api::JobState) -> Vec<u8> {
    tests::stored_as(id, state)
}

#[cfg(test)]
#[path = "records/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "records/golden.rs"]
mod golden;
