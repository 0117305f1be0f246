//! One hub from start to stop: opens the store, joins others that share it, recovers, starts the threads, announces,
//! waits for a signal, drains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tessera_hub_core::lane::Config as MachineConfig;
use tessera_hub_core::record::KeptPanel;
use tessera_hub_core::{Event, home_lane};
use tessera_protocol::audit::Act;
use tessera_protocol::id::{Digest, HubId, JobId};
use tessera_protocol::token::agent_command;
use tessera_protocol::unit::{LaneIndex, UnixMillis};
use tessera_storage::{Batch, Commit, CommitError, Embedded, Engine, Key, OpenError, Renewed, foundationdb};

use crate::advertise::Unreachable;
use crate::audit::Auditor;
use crate::backend::{Hub, unix_ms};
use crate::blobs::{self, Blobs};
use crate::clients::Clients;
use crate::cluster;
use crate::config::HubConfig;
use crate::duties::{self, Means};
use crate::ingress::keys::{ApiKey, KeyHash};
use crate::ingress::{self, ServerHandle, Views};
use crate::inputs::Uploads;
use crate::inputs::older::{self, MoveError};
use crate::inputs::quota::Quotas;
use crate::journal::Journal;
use crate::keeper::{self, Chest, Keeper, Shares};
use crate::lane::{Handler, HandlerConfig, Input, Known, LaneCounters};
use crate::ops::control::Control;
use crate::peers::{Lookout, Peers};
use crate::products::Shelf;
use crate::quic::{Identity, IdentityError, LaneSockets, SteeringError, SteeringPreference};
use crate::reader::Reader;
use crate::records::{self, RecordError, Recovered};
use crate::runtime::{LaneConfig, LaneError, Lanes, SpawnError, spawn_lanes};
use crate::steward::{self, Duty, JoinError, Seat};
use crate::sweeper::Sweeper;
use crate::tracer;

mod alone;
mod secrets;

use secrets::Secrets;

/// Why a hub did not start or did not end well.
#[derive(Debug)]
pub enum ServeError {
    /// There is no store to add a key to.
    NoStore {
        /// Where it was looked for.
        data: PathBuf,
    },
    /// The store cannot be opened.
    Open(OpenError),
    /// There is no place for blobs.
    Blobs(blobs::OpenError),
    /// The pieces of files of an older store cannot be moved.
    Move(MoveError),
    /// Other hubs on the store could not reach this one.
    Unreachable(Unreachable),
    /// This hub cannot take part among those on its store.
    Join(JoinError),
    /// The store in a cluster cannot be opened.
    OpenCluster(foundationdb::OpenError),
    /// Hubs write to the store's audit log so often that nothing else gets in.
    AuditBusy,
    /// The store cannot be read.
    Read(RecordError),
    /// The store cannot be written.
    Write(CommitError),
    /// What is kept of unfinished tiles is not to be had.
    Keeper(keeper::StartError),
    /// The hub's own key is unusable, or none could be made.
    Identity(IdentityError),
    /// The system gives no random bytes.
    Entropy(getrandom::Error),
    /// The address of the API cannot be used.
    Http {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The address for agents cannot be used.
    Quic {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: SteeringError,
    },
    /// A thread cannot start.
    Thread(std::io::Error),
    /// The lanes cannot start.
    Lanes(SpawnError),
    /// A lane ended by itself.
    Lane(LaneError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::NoStore { data } => write!(
                f,
                "no hub keeps its data in {}: name its directory with --data or its file with --config",
                data.display()
            ),
            ServeError::Open(error) => write!(f, "{error}"),
            ServeError::Blobs(error) => write!(f, "{error}"),
            ServeError::Move(error) => write!(f, "{error}"),
            ServeError::Unreachable(error) => write!(f, "{error}"),
            ServeError::Join(error) => write!(f, "{error}"),
            ServeError::OpenCluster(error) => write!(f, "{error}"),
            ServeError::AuditBusy => f.write_str(
                "the audit log of the store changes all the time: stop the hub that uses it, or try again",
            ),
            ServeError::Read(error) => write!(f, "{error}"),
            ServeError::Write(error) => write!(f, "{error}"),
            ServeError::Keeper(error) => write!(f, "{error}"),
            ServeError::Identity(error) => write!(f, "the hub's key: {error}"),
            ServeError::Entropy(error) => write!(f, "the system gives no random bytes: {error}"),
            ServeError::Http { address, source } => write!(
                f,
                "cannot listen for clients on {address}: {source}; choose another address with --http HOST:PORT"
            ),
            ServeError::Quic { address, source } => write!(
                f,
                "cannot listen for agents on {address}: {source}; choose another address with --quic HOST:PORT"
            ),
            ServeError::Thread(error) => write!(f, "cannot start a thread: {error}"),
            ServeError::Lanes(error) => write!(f, "{error}"),
            ServeError::Lane(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            ServeError::NoStore { .. } | ServeError::AuditBusy => return None,
            ServeError::Open(error) => error,
            ServeError::Blobs(error) => error,
            ServeError::Move(error) => error,
            ServeError::Unreachable(error) => error,
            ServeError::Join(error) => error,
            ServeError::OpenCluster(error) => error,
            ServeError::Read(error) => error,
            ServeError::Write(error) => error,
            ServeError::Keeper(error) => error,
            ServeError::Identity(error) => error,
            ServeError::Entropy(error) => error,
            ServeError::Http { source, .. } | ServeError::Thread(source) => source,
            ServeError::Quic { source, .. } => source,
            ServeError::Lanes(error) => error,
            ServeError::Lane(error) => error,
        })
    }
}

/// What a hub says when it is ready.
#[derive(Debug, Serialize)]
struct Announcement {
    http: SocketAddr,
    quic: SocketAddr,
    hub_key: Digest,
    /// Which of many on one store.
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<HubId>,
    api_key: Option<String>,
    agent_token: String,
    data: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    lanes: u16,
}

/// What one hub at a time does on a store.
enum Chores {
    /// This hub has the store for itself.
    Always(Sweeper),
    /// It serves beside others, and may come to lead them.
    WhenLeading(Sender<Duty>, JoinHandle<()>),
}

impl Chores {
    /// Before the journal stops: they wait there for batches that they gave.
    fn end(self) {
        match self {
            Chores::Always(sweeper) => drop(sweeper),
            Chores::WhenLeading(duties, thread) => {
                // An error says that it has ended already.
                let _ = duties.send(Duty::End);
                if thread.join().is_err() {
                    tracing::error!("the thread of the hub's duties panicked");
                }
            }
        }
    }
}

/// A hub's place among others, and the way of what follows from it.
struct Place {
    seat: Seat,
    duties: Sender<Duty>,
    inbox: Receiver<Duty>,
}

/// A hub whose threads run.
struct Running {
    hub: Arc<Hub>,
    lanes: Lanes<Input>,
    http: ServerHandle,
    chores: Chores,
    /// Where others serve from the same store.
    lookout: Option<Lookout>,
    keeper: (Keeper, JoinHandle<()>),
    threads: Vec<JoinHandle<()>>,
}

/// Runs a hub until a signal stops it.
pub fn serve(config: &HubConfig) -> Result<(), ServeError> {
    // The store first: whoever starts a second hub by mistake is told of the first one, not of its port.
    let store = open(config)?;
    let blobs = Blobs::open(&config.blobs).map_err(ServeError::Blobs)?;
    let refused = |source| ServeError::Http { address: config.http, source };
    let http = TcpListener::bind(config.http).map_err(refused)?;
    let sockets = LaneSockets::open(config.quic, config.lanes, SteeringPreference::default())
        .map_err(|source| ServeError::Quic { address: config.quic, source })?;
    // A directory is one hub's by its lock. In a cluster there may be others, who are told where this one is.
    let (store, place) = match config.cluster {
        Some(_) => {
            let bound = http.local_addr().map_err(refused)?;
            let at =
                config.advertise.reached_at(bound, sockets.address()).map_err(ServeError::Unreachable)?;
            let (duties, inbox) = channel();
            let joined = steward::join(store, &at, duties.clone(), taken_over);
            let (store, seat) = joined.map_err(ServeError::Join)?;
            (store, Some(Place { seat, duties, inbox }))
        }
        None => (store, None),
    };
    let moved = older::move_pieces(&*store, &blobs, UnixMillis(unix_ms())).map_err(ServeError::Move)?;
    if moved > 0 {
        tracing::info!(pieces = moved, blobs = %config.blobs, "files of an older store were moved to blobs");
    }
    let (me, seat, duties) = match place {
        Some(Place { seat, duties, inbox }) => (Some(seat.hub()), Some(seat), Some((duties, inbox))),
        None => (None, None, None),
    };
    let mut secrets = secrets::read_or_make(&*store, me)?;
    if me.is_none() {
        alone::settle(&*store, &mut secrets.reports)?;
    }
    let recovered = recover(&*store, me.is_some()).map_err(ServeError::Read)?;
    let first_key = secrets.first_api_key.as_ref().map(ApiKey::reveal);
    let token = secrets.token.to_string();
    let control = control(&store, config);
    let quotas = Quotas::recover(&Renewed::new(&*store), config.quotas.clone()).map_err(ServeError::Read)?;
    let shelf = Shelf { blobs, uploads: Uploads::default(), quotas };
    let running = start(config, http, sockets, (store, shelf), secrets, recovered, (me, duties))?;
    announce(config, &running, first_key, token);
    let outcome = wait(running);
    drop(control);
    if let Some(seat) = seat {
        seat.leave();
    }
    outcome
}

/// Reads what the hub that was here before has left.
fn recover(store: &dyn Engine, beside_others: bool) -> Result<Recovered, RecordError> {
    // Nothing else writes yet to what is read, so it does no harm that a long recovery is not of one moment. It ends
    // here: as long as a moment is held, the file only grows.
    let whole = Renewed::new(store);
    if beside_others { records::recover_beside(&whole) } else { records::recover(&whole) }
}

/// Nothing that this hub says can be kept any more.
fn taken_over() {
    eprintln!(
        "hub: others have taken over the jobs of this hub, as it did not renew its lease; start it again to serve beside them"
    );
    std::process::exit(1);
}

/// A hub without its socket still works for everybody else.
fn control(store: &Arc<dyn Engine>, config: &HubConfig) -> Option<Control> {
    // Who may reach a cluster backs it up with its own tools, at one moment for all that is in it.
    if config.cluster.is_some() {
        return None;
    }
    let started = Control::start(store.clone(), &config.data);
    started
        .inspect_err(|error| {
            tracing::warn!(%error, "no control socket: `hub backup` works only while this hub is stopped");
        })
        .ok()
}

/// Opens the store that the settings name, or makes one there.
fn open(config: &HubConfig) -> Result<Arc<dyn Engine>, ServeError> {
    match &config.cluster {
        Some(place) => cluster::open(place).map_err(ServeError::OpenCluster),
        None => Ok(Arc::new(Embedded::open(&config.data).map_err(ServeError::Open)?)),
    }
}

fn start(
    config: &HubConfig,
    http: TcpListener,
    sockets: LaneSockets,
    (store, shelf): (Arc<dyn Engine>, Shelf),
    secrets: Secrets,
    recovered: Recovered,
    (me, duties): (Option<HubId>, Option<(Sender<Duty>, Receiver<Duty>)>),
) -> Result<Running, ServeError> {
    let shares = Shares::of(config.vmem_bytes, config.lanes);
    let mut chest =
        Chest::open(&config.data, config.cluster.is_some(), shares).map_err(ServeError::Keeper)?;
    let panels = kept(&mut chest, &recovered);
    let views = Arc::new(Views::default());
    let written = store.clone();
    #[cfg(feature = "hasty")]
    let written = crate::hasty::wrapped(written);
    let (journal, journal_thread) =
        Journal::start_audited(written, secrets.reports).map_err(ServeError::Thread)?;
    let (keeper, keeper_thread) =
        Keeper::start(chest, journal.clone(), shares).map_err(ServeError::Thread)?;
    let (reader, reader_threads) = Reader::start(store.clone()).map_err(ServeError::Thread)?;
    let (clients, clients_thread) = Clients::start(views.clone()).map_err(ServeError::Thread)?;
    let (tracer, tracer_thread) = tracer::start(store.clone(), journal.clone(), views.clone(), me.is_some())
        .map_err(ServeError::Thread)?;
    // Dropped with the duties: the tracer ends when nobody can tell it anything.
    let leads = tracer.clone();
    let counters: Vec<Arc<LaneCounters>> = (0..config.lanes).map(|_| Arc::default()).collect();
    let quic = sockets.address();
    tracing::info!(steering = ?sockets.steering(), lanes = config.lanes, "lanes open");
    let unix_origin = UnixMillis(unix_ms());
    let origin = Instant::now();
    let known = Known::default();
    let make_handler = {
        let (journal, reader, shelf) = (journal.clone(), reader.clone(), shelf.clone());
        let (clients, counters, keeper) = (clients.clone(), counters.clone(), keeper.clone());
        let (lanes, sampling_key, sharing) = (config.lanes, secrets.sampling_key, config.sharing.clone());
        move |lane: LaneIndex, peers| {
            let machine = MachineConfig { lane, lanes, sampling_key, unix_origin };
            let config = HandlerConfig {
                machine,
                hub: me,
                known: known.clone(),
                sharing: sharing.clone(),
                room_bytes: shares.lane,
                origin,
            };
            let counters = counters[lane.as_usize()].clone();
            let store = (reader.clone(), shelf.clone(), keeper.clone());
            Handler::new(config, (journal.clone(), tracer.clone()), store, clients.clone(), peers, counters)
        }
    };
    let lanes = spawn_lanes(LaneConfig::default(), sockets, &secrets.identity, make_handler)
        .map_err(ServeError::Lanes)?;
    let api_keys = recovered.api_keys.iter().map(|digest| KeyHash(digest.0)).collect::<BTreeSet<_>>();
    let (peers, lookout) = match me {
        Some(me) => {
            let (peers, lookout) =
                Peers::start(me, store.clone(), views.clone(), lanes.mailboxes(), counters.clone())
                    .map_err(ServeError::Thread)?;
            (Some(peers), Some(lookout))
        }
        None => (None, None),
    };
    let hub = Arc::new(Hub {
        lanes: lanes.mailboxes(),
        journal,
        reader,
        blobs: shelf.blobs.clone(),
        uploads: shelf.uploads.clone(),
        quotas: shelf.quotas.clone(),
        grace: config.retention.blobs,
        keeper: keeper.clone(),
        uploaded_bytes: AtomicU64::new(0),
        clients,
        views,
        store,
        counters,
        api_keys: RwLock::new(api_keys),
        me,
        peers,
        hub_key: secrets.identity.public_key().0,
        identity: secrets.identity.clone(),
        settling: tokio::sync::Mutex::default(),
        quic,
        draining: AtomicBool::new(false),
    });
    resume(&hub, recovered, panels);
    let mut threads = vec![tracer_thread, journal_thread, clients_thread];
    threads.extend(reader_threads);
    let retention = config.retention.clone();
    let chores = match (me, duties) {
        (Some(me), Some((duties, inbox))) => {
            let means = Means { me, shelf, retention, tracer: leads };
            Chores::WhenLeading(duties, duties::start(hub.clone(), means, inbox).map_err(ServeError::Thread)?)
        }
        _ => {
            // After the views are there from which it takes what it prunes.
            let views = (shelf, hub.views.clone());
            let (sweeper, thread) =
                Sweeper::start(hub.store.clone(), hub.journal.clone(), views, retention, false)
                    .map_err(ServeError::Thread)?;
            threads.push(thread);
            Chores::Always(sweeper)
        }
    };
    let http = ingress::serve(http, hub.clone(), ingress::Limits::default()).map_err(ServeError::Thread)?;
    Ok(Running { hub, lanes, http, chores, lookout, keeper: (keeper, keeper_thread), threads })
}

/// What is kept of the tiles of open jobs.
fn kept(chest: &mut Chest, recovered: &Recovered) -> BTreeMap<JobId, Vec<KeptPanel>> {
    let open: BTreeMap<JobId, _> = recovered.open.iter().map(|(job, of)| (job.id, (job, of))).collect();
    let task_of = |job| open.get(&job).and_then(|(job, _)| job.plan.matrix().cloned());
    let is_done = |job, index| {
        let progress = open.get(&job).and_then(|(_, progress)| progress.as_ref());
        progress.is_some_and(|progress| progress.done.contains(index))
    };
    let panels = chest.panels(task_of, is_done);
    let count: usize = panels.values().map(Vec::len).sum();
    if count > 0 {
        tracing::info!(panels = count, "panels of unfinished tiles recovered");
    }
    panels
}

/// Gives views and open jobs back to whom they belong.
fn resume(hub: &Hub, recovered: Recovered, mut panels: BTreeMap<JobId, Vec<KeptPanel>>) {
    recovered.views.into_iter().for_each(|view| hub.views.publish_job(view));
    recovered.agents.into_values().for_each(|view| hub.views.publish_agent(view));
    if !recovered.open.is_empty() {
        tracing::info!(jobs = recovered.open.len(), "open jobs recovered");
    }
    let lanes = hub.lanes.lanes();
    let standings: Arc<[_]> = recovered.standings.into();
    for lane in (0..lanes).map(LaneIndex) {
        hub.tell_lane(lane, Event::StandingsRecovered { agents: standings.clone() });
    }
    for (job, progress) in recovered.open {
        let lane = home_lane(job.id, lanes);
        let panels = panels.remove(&job.id).unwrap_or_default();
        hub.tell_lane(lane, Event::JobRecovered { job, progress: progress.map(Box::new), panels });
    }
}

fn wait(running: Running) -> Result<(), ServeError> {
    let Running { hub, lanes, http, chores, lookout, keeper: (keeper, keeper_thread), threads } = running;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(ServeError::Thread)?;
    let closer = signals.handle();
    let stopper = lanes.stopper();
    let draining = hub.clone();
    let watcher = std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                // The operator insists; the store is crash-safe.
                std::process::exit(130);
            }
            tracing::info!("stopping: work in flight may finish, a second signal ends at once");
            draining.draining.store(true, Ordering::Relaxed);
            stopper.request_stop();
        }
    });
    let outcome = lanes.join();
    http.join();
    hub.clients.stop();
    hub.reader.stop();
    chores.end();
    drop(lookout);
    // Before the journal too: whole tiles go there.
    keeper.stop();
    let kept = keeper_thread.join();
    hub.journal.stop();
    for thread in threads.into_iter().map(JoinHandle::join).chain([kept]) {
        if thread.is_err() {
            tracing::error!("a thread of the hub panicked");
        }
    }
    closer.close();
    let _ = watcher.join();
    tracing::info!("stopped");
    outcome.map_err(ServeError::Lane)
}

/// Adds an API key to the store of a hub that is not running.
pub fn new_key(config: &HubConfig) -> Result<String, ServeError> {
    if config.cluster.is_none() && !Embedded::exists(&config.data) {
        return Err(ServeError::NoStore { data: config.data.clone() });
    }
    let store = open(config)?;
    for _ in 0..KEY_ATTEMPTS {
        let (key, batch) = key_batch(&*store)?;
        // A hub that runs on the same cluster may have reported something meanwhile.
        if store.commit(batch).map_err(ServeError::Write)? == Commit::Done {
            return Ok(key.reveal());
        }
    }
    Err(ServeError::AuditBusy)
}

/// Times that a key is offered to a store whose audit log changes meanwhile.
const KEY_ATTEMPTS: u32 = 20;

/// A new API key, and the batch that adds it and reports it.
fn key_batch(store: &dyn Engine) -> Result<(ApiKey, Batch), ServeError> {
    let mut batch = Batch::new();
    let key = add_key(&mut batch)?;
    let snapshot = store.snapshot().map_err(|error| ServeError::Read(error.into()))?;
    let pkcs8 = snapshot.get(&Key::HubIdentity.encode()).map_err(|error| ServeError::Read(error.into()))?;
    // A store without an identity is of a hub that never ran: its log begins when it does.
    if let Some(pkcs8) = pkcs8 {
        let identity = Identity::from_pkcs8(&pkcs8).map_err(ServeError::Identity)?;
        let mut auditor = Auditor::resume(identity, &*snapshot).map_err(ServeError::Read)?;
        auditor.write(&mut batch, &[Act::ApiKeyMade { key: Digest(key.hash().0) }]);
    }
    Ok((key, batch))
}

fn add_key(batch: &mut Batch) -> Result<ApiKey, ServeError> {
    let key = ApiKey::from_secret(random()?);
    batch.put(Key::ApiKey(Digest(key.hash().0)), unix_ms().to_be_bytes());
    Ok(key)
}

fn random() -> Result<[u8; 32], ServeError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(ServeError::Entropy)?;
    Ok(bytes)
}

fn announce(config: &HubConfig, running: &Running, api_key: Option<String>, agent_token: String) {
    let said = Announcement {
        http: running.http.address(),
        quic: running.hub.quic,
        hub_key: Digest(running.hub.hub_key),
        hub: running.hub.me,
        api_key,
        agent_token,
        data: config.data.clone(),
        store: config.cluster.as_ref().map(ToString::to_string),
        lanes: config.lanes,
    };
    if config.json {
        println!("{}", serde_json::to_string(&said).expect("an announcement is JSON"));
        return;
    }
    println!("Tessera hub {}", env!("CARGO_PKG_VERSION"));
    println!("  clients   http://{} (API, described at /openapi.json)", said.http);
    println!("  agents    {} (QUIC, {} lanes, key {})", said.quic, said.lanes, said.hub_key);
    if let Some(hub) = said.hub {
        println!("  hub       {hub}, of those that share the store");
    }
    match &said.store {
        Some(store) => println!("  store     {store}"),
        None => println!("  data      {}", said.data.display()),
    }
    if let Some(key) = &said.api_key {
        println!("  API key   {key}");
        println!("            shown this once and kept hashed: export TESSERA_API_KEY with it");
    }
    println!("Connect an agent of your own, whose word settles disputes (the token works once):");
    print!("{}", agent_command(&said.quic.to_string(), &said.agent_token));
    println!("For others' machines `tessera agent token --provider NAME` makes tokens; those are checked.");
}
