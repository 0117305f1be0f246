//! The keeper: verified panels of tiles into the arena and whole tiles out of it, on a thread that may wait for the disk.
//!
//! Owns when the arena is made durable and how many tiles are on their way to the store at once. Lanes hand over panels
//! and go on; what became of them comes back through their mailboxes. It may not know what a job is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_hub_core::Payment;
use tessera_hub_core::record::KeptPanel;
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::matrix::Task;
use tessera_protocol::receipt::Service;
use tessera_protocol::unit::{ComputeUnits, ShardIndex};
use tessera_vmem::{Arena, ArenaError, Files, Folds, KeepError, OpenError, Panel};

use crate::audit::Deed;
use crate::journal::{Journal, Verdict};

/// Panels and tiles that may wait; the next is given back to its lane.
const QUEUE_MAX: usize = 1_024;
/// How often what is kept is made durable: what a crash costs at most, while that takes a fifth of the time or less.
const CHECKPOINT: Duration = Duration::from_millis(500);
/// So many times as long as a checkpoint took nothing is made durable: the disk has other work.
const REST: u32 = 4;
/// How long nothing is looked at while there is nothing to make durable.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a full journal is left alone.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// Hubs of one machine that keep their state in a cluster and share a directory.
const HUBS_MAX: u32 = 16;

/// What memory numbers may take, by what they are there for. *Units*: bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Sums of tiles, and panels that came before their turn.
    pub arena: usize,
    /// Blocks that agents bring and that were not judged or kept, on each lane.
    pub lane: usize,
    /// Whole tiles on their way to the store.
    pub written: usize,
}

impl Shares {
    /// Divides what numbers may take: a half to the arena, a quarter to lanes, a sixteenth to tiles that are written,
    /// of each of which the journal and the store hold copies. The rest is for what is added at the moment.
    pub fn of(vmem_bytes: u64, lanes: u16) -> Shares {
        let all = usize::try_from(vmem_bytes).unwrap_or(usize::MAX);
        Shares { arena: all / 2, lane: all / 4 / usize::from(lanes.max(1)), written: all / 16 }
    }
}

/// A panel that is to be kept.
#[derive(Debug)]
pub struct Keep {
    /// Which.
    pub job: JobId,
    /// How the result is cut.
    pub task: Arc<Task>,
    /// The plan that the tile is of.
    pub plan: Digest,
    /// The tile's position.
    pub tile: u64,
    /// Which panel.
    pub panel: u64,
    /// Its elements.
    pub bytes: Arc<[u8]>,
    /// Who is paid for it.
    pub paid: Vec<Payment>,
}

/// A whole tile that is to be written.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Which.
    pub job: JobId,
    /// How the result is cut.
    pub task: Arc<Task>,
    /// The tile's position.
    pub tile: u64,
}

type Make = Box<dyn FnOnce(Arc<[u8]>) -> Deed + Send>;
type Kept = Box<dyn FnOnce(Result<(), KeepError>) + Send>;
type Written = Box<dyn FnOnce(Result<Verdict, KeepError>) + Send>;

/// What a lane asks for.
enum Order {
    Keep(Keep, Kept),
    Finish(Finish, Make, Written),
    Forget(JobId),
    Stop,
}

/// An order that has not been taken.
pub struct Refused(Box<Order>);

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Refused")
    }
}

/// The way to the keeper, from any thread.
#[derive(Clone, Debug)]
pub struct Keeper {
    orders: SyncSender<Box<Order>>,
    gauges: Arc<Gauges>,
}

/// What the keeper holds, for whoever watches the hub. *Units*: bytes.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Of blocks, in memory and in the file.
    pub kept: AtomicU64,
    /// Of blocks in memory.
    pub resident: AtomicU64,
    /// Most that was in memory.
    pub peak: AtomicU64,
    /// Times that what is kept was made durable.
    pub checkpoints: AtomicU64,
}

/// Why the keeper cannot start.
#[derive(Debug)]
pub enum StartError {
    /// There is no place for blocks.
    Open(OpenError),
    /// The blocks that are there cannot be read.
    Read(ArenaError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Open(error) => write!(f, "{error}"),
            StartError::Read(error) => write!(f, "sums of tiles cannot be read back: {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Open(error) => Some(error),
            StartError::Read(error) => Some(error),
        }
    }
}

/// What is kept, before the thread starts.
#[derive(Debug)]
pub struct Chest {
    folds: Folds<Files>,
}

impl Chest {
    /// Opens what the last hub with this directory kept. `shared`: other hubs of this machine may use it too.
    pub fn open(data: &Path, shared: bool, shares: Shares) -> Result<Chest, StartError> {
        let directory = |number: u32| match number {
            0 => data.join("vmem"),
            number => data.join(format!("vmem-{number}")),
        };
        let files = files(directory, if shared { HUBS_MAX } else { 1 }).map_err(StartError::Open)?;
        let arena = Arena::open(files, shares.arena).map_err(StartError::Read)?;
        if arena.discarded() > 0 {
            tracing::warn!(
                blocks = arena.discarded(),
                "some sums of tiles are not whole: they are computed again"
            );
        }
        Ok(Chest { folds: Folds::new(arena) })
    }

    /// The panels that are kept of open jobs, where `task_of` knows the cut and which tiles are done. The rest goes.
    pub fn panels(
        &mut self,
        task_of: impl Fn(JobId) -> Option<Arc<Task>>,
        is_done: impl Fn(JobId, ShardIndex) -> bool,
    ) -> BTreeMap<JobId, Vec<KeptPanel>> {
        let mut panels: BTreeMap<JobId, Vec<KeptPanel>> = BTreeMap::new();
        for found in self.folds.found() {
            let Some(task) = task_of(found.job) else {
                self.folds.forget_job(found.job);
                continue;
            };
            let index = ShardIndex(found.tile.saturating_mul(task.panels()).saturating_add(found.panel));
            if is_done(found.job, index) {
                self.folds.forget_tile(found.job, found.tile);
                continue;
            }
            let panel = KeptPanel { plan: found.plan, index, paid: payments(&found.note) };
            panels.entry(found.job).or_default().push(panel);
        }
        panels
    }
}

fn files(directory: impl Fn(u32) -> PathBuf, hubs_max: u32) -> Result<Files, OpenError> {
    let mut opened = Files::open(&directory(0));
    for number in 1..hubs_max {
        match opened {
            Err(OpenError::InUse { .. }) => opened = Files::open(&directory(number)),
            opened => return opened,
        }
    }
    opened
}

/// A payment as it lies in a panel's note.
type Row = (ProviderId, AgentId, Service, u64, Digest, u64);

fn note(paid: &[Payment]) -> Vec<u8> {
    let row = |Payment { provider, agent, service, index, digest, cost }: &Payment| -> Row {
        (*provider, *agent, *service, index.0, *digest, cost.0)
    };
    serde_json::to_vec(&paid.iter().map(row).collect::<Vec<_>>()).expect("ids and numbers are JSON")
}

/// Nothing where the note is not one of this version: then the panel is computed again.
fn payments(note: &[u8]) -> Vec<Payment> {
    let rows: Vec<Row> = serde_json::from_slice(note).unwrap_or_default();
    let payment = |(provider, agent, service, index, digest, cost): Row| Payment {
        provider,
        agent,
        service,
        index: ShardIndex(index),
        digest,
        cost: ComputeUnits(cost),
    };
    rows.into_iter().map(payment).collect()
}

impl Keeper {
    /// Starts the thread.
    pub fn start(
        chest: Chest,
        journal: Journal,
        shares: Shares,
    ) -> std::io::Result<(Keeper, JoinHandle<()>)> {
        let (orders, inbox) = sync_channel(QUEUE_MAX);
        let gauges = Arc::new(Gauges::default());
        let mut desk = Desk {
            folds: chest.folds,
            journal,
            out: Arc::default(),
            written_bytes_max: shares.written,
            gauges: gauges.clone(),
            failing: false,
        };
        let thread =
            std::thread::Builder::new().name("tessera-keeper".into()).spawn(move || desk.run(&inbox))?;
        Ok((Keeper { orders, gauges }, thread))
    }

    /// An order to keep a panel; `then` hears what became of it.
    pub fn keep(keep: Keep, then: impl FnOnce(Result<(), KeepError>) + Send + 'static) -> Refused {
        Refused(Box::new(Order::Keep(keep, Box::new(then))))
    }

    /// An order to write a whole tile by the record that `make` makes of it; `then` hears how that went.
    pub fn finish(
        finish: Finish,
        make: impl FnOnce(Arc<[u8]>) -> Deed + Send + 'static,
        then: impl FnOnce(Result<Verdict, KeepError>) + Send + 'static,
    ) -> Refused {
        Refused(Box::new(Order::Finish(finish, Box::new(make), Box::new(then))))
    }

    /// An order to forget a job that ended.
    pub fn forget(job: JobId) -> Refused {
        Refused(Box::new(Order::Forget(job)))
    }

    /// Queues an order.
    ///
    /// *Errors*: the queue is full; the order comes back.
    pub fn offer(&self, refused: Refused) -> Result<(), Refused> {
        match self.orders.try_send(refused.0) {
            Err(TrySendError::Full(order)) => Err(Refused(order)),
            // A stopped keeper has nobody left to report to.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// What it holds.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Ends the thread after everything queued before, with what is kept durable.
    pub fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.orders.send(Box::new(Order::Stop));
    }
}

/// Tiles at the journal.
#[derive(Debug, Default)]
struct Out {
    state: Mutex<OutState>,
    fewer: Condvar,
}

#[derive(Debug, Default)]
struct OutState {
    bytes: usize,
    /// Durable, and wanted here no more.
    durable: Vec<(JobId, u64)>,
}

impl Out {
    /// Waits until so much more may go to the journal.
    fn begin(&self, bytes: usize, max: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_too_much = |state: &mut OutState| state.bytes > 0 && state.bytes + bytes > max;
        let mut state = self.fewer.wait_while(state, is_too_much).unwrap_or_else(PoisonError::into_inner);
        state.bytes += bytes;
    }

    fn end(&self, bytes: usize, durable: Option<(JobId, u64)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes -= bytes;
        state.durable.extend(durable);
        self.fewer.notify_all();
    }

    fn is_empty(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes == 0 && state.durable.is_empty()
    }

    fn take_durable(&self) -> Vec<(JobId, u64)> {
        std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).durable)
    }
}

/// What the thread works at.
struct Desk {
    folds: Folds<Files>,
    journal: Journal,
    out: Arc<Out>,
    written_bytes_max: usize,
    gauges: Arc<Gauges>,
    failing: bool,
}

impl Desk {
    fn run(&mut self, inbox: &Receiver<Box<Order>>) {
        let mut due = Instant::now() + CHECKPOINT;
        loop {
            let wait = if self.is_idle() { IDLE } else { due.saturating_duration_since(Instant::now()) };
            let order = match inbox.recv_timeout(wait) {
                Ok(order) if matches!(*order, Order::Stop) => break,
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(order) => Some(*order),
                Err(RecvTimeoutError::Timeout) => None,
            };
            self.forget_durable();
            if let Some(order) = order {
                self.carry_out(order);
            }
            let now = Instant::now();
            if now >= due {
                self.checkpoint();
                due = Instant::now() + CHECKPOINT.max(now.elapsed() * REST);
            }
            self.show();
        }
        self.forget_durable();
        self.checkpoint();
    }

    fn is_idle(&self) -> bool {
        !self.folds.arena().is_changed() && self.out.is_empty()
    }

    fn forget_durable(&mut self) {
        for (job, tile) in self.out.take_durable() {
            self.folds.forget_tile(job, tile);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Keep(Keep { job, task, plan, tile, panel, bytes, paid }, then) => {
                let of = Panel { job, plan, tile, panel, dtype: task.dtype(), note: note(&paid) };
                let kept = self.folds.keep(&of, &bytes);
                drop(bytes);
                self.told(kept.as_ref().err());
                then(kept);
            }
            Order::Finish(finish, make, then) => self.finish(&finish, make, then),
            Order::Forget(job) => self.folds.forget_job(job),
            Order::Stop => {}
        }
    }

    fn finish(&mut self, finish: &Finish, make: Make, then: Written) {
        let Finish { job, task, tile } = finish;
        let block = task.block(tile * task.panels());
        let bytes = block.map_or(0, |block| block.elements() * task.element_bytes()) as usize;
        self.out.begin(bytes, self.written_bytes_max);
        let elements = match self.folds.tile(*job, *tile, (task.panels(), task.dtype())) {
            Ok(elements) => elements,
            Err(error) => {
                self.out.end(bytes, None);
                self.told(Some(&error));
                return then(Err(error));
            }
        };
        let (out, place) = (self.out.clone(), (*job, *tile));
        let mut request = Journal::request(
            move || make(elements.into()),
            move |verdict| {
                let is_durable = matches!(&verdict, Verdict::Judged(_));
                out.end(bytes, is_durable.then_some(place));
                then(Ok(verdict));
            },
        );
        // The journal outlives the keeper.
        while let Err(refused) = self.journal.retry(request) {
            request = refused;
            std::thread::sleep(FULL_PAUSE);
        }
    }

    fn checkpoint(&mut self) {
        if !self.folds.arena().is_changed() {
            return;
        }
        match self.folds.arena_mut().checkpoint() {
            Ok(()) => {
                self.failing = false;
                self.gauges.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.told(Some(&KeepError::Arena(error))),
        }
    }

    /// Says once that the disk fails, until it does not.
    fn told(&mut self, error: Option<&KeepError>) {
        match error {
            None => self.failing = false,
            Some(KeepError::Arena(error)) if !std::mem::replace(&mut self.failing, true) => {
                tracing::error!(%error, "sums of tiles cannot be kept");
            }
            Some(KeepError::Arena(_) | KeepError::NotFinite) => {}
            Some(error @ KeepError::Lost) => {
                tracing::error!(%error, "the disk changed what was written to it")
            }
        }
    }

    fn show(&self) {
        let (arena, gauges) = (self.folds.arena(), &self.gauges);
        gauges.resident.store(arena.resident_bytes() as u64, Ordering::Relaxed);
        gauges.peak.store(arena.peak_bytes() as u64, Ordering::Relaxed);
        gauges.kept.store(arena.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use tessera_protocol::matrix::{Operand, Source};
    use tessera_storage::{Batch, Memory};

    const JOB: JobId = JobId([7; 16]);
    const SHARES: Shares = Shares { arena: 1 << 20, lane: 1 << 20, written: 1 << 20 };

    fn task() -> Arc<Task> {
        let uniform =
            |rows, cols| Operand { source: Source::Uniform { stream: 0 }, rows, cols, transposed: false };
        Arc::new(Task {
            key: [0; 2],
            double: true,
            alpha: 1.0,
            beta: 0.0,
            a: uniform(2, 2),
            b: uniform(2, 1),
            c: None,
            half: None,
            tile: [1, 1],
            k_panel: 1,
        })
    }

    fn payment(index: u64) -> Payment {
        Payment {
            provider: ProviderId([3; 16]),
            agent: AgentId([4; 16]),
            service: Service::Shard,
            index: ShardIndex(index),
            digest: Digest([5; 32]),
            cost: ComputeUnits(6),
        }
    }

    fn keep(keeper: &Keeper, tile: u64, panel: u64, value: f64) -> Result<(), KeepError> {
        let (say, heard) = channel();
        let paid = vec![payment(tile * 2 + panel)];
        let bytes = value.to_le_bytes()[..].into();
        let keep = Keep { job: JOB, task: task(), plan: Digest([1; 32]), tile, panel, bytes, paid };
        keeper.offer(Keeper::keep(keep, move |kept| say.send(kept).unwrap())).unwrap();
        heard.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn started(data: &Path) -> (Keeper, Journal, Vec<JoinHandle<()>>, Vec<KeptPanel>) {
        let (journal, first) = Journal::start(Arc::new(Memory::default())).unwrap();
        let mut chest = Chest::open(data, false, SHARES).unwrap();
        let mut panels = chest.panels(|job| (job == JOB).then(task), |_, _| false);
        let (keeper, second) = Keeper::start(chest, journal.clone(), SHARES).unwrap();
        (keeper, journal, vec![second, first], panels.remove(&JOB).unwrap_or_default())
    }

    fn stop(keeper: &Keeper, journal: &Journal, threads: Vec<JoinHandle<()>>) {
        keeper.stop();
        let mut threads = threads.into_iter();
        threads.next().unwrap().join().unwrap();
        journal.stop();
        threads.for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_restart_finds_the_panels_with_who_is_paid_and_a_written_tile_is_kept_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, journal, threads, found) = started(directory.path());
        assert!(found.is_empty());
        keep(&keeper, 0, 1, 2.0).unwrap();
        keep(&keeper, 1, 0, 5.0).unwrap();
        stop(&keeper, &journal, threads);

        let (keeper, journal, threads, found) = started(directory.path());
        let plan = Digest([1; 32]);
        let panel = |index| KeptPanel { plan, index: ShardIndex(index), paid: vec![payment(index)] };
        assert_eq!(found, [panel(1), panel(2)]);
        keep(&keeper, 0, 0, 1.0).unwrap();
        let (say, heard) = channel();
        let told = say.clone();
        let make = move |bytes: Arc<[u8]>| {
            say.send(f64::from_le_bytes(bytes[..].try_into().unwrap())).unwrap();
            let mut batch = Batch::new();
            batch.put(tessera_storage::Key::Job(JOB), vec![1]);
            Deed { batch, acts: Vec::new() }
        };
        let finish = Finish { job: JOB, task: task(), tile: 0 };
        let order = Keeper::finish(finish, make, move |written| {
            assert!(matches!(written, Ok(Verdict::Judged(_))));
            told.send(0.0).unwrap();
        });
        keeper.offer(order).unwrap();
        assert_eq!(heard.iter().collect::<Vec<_>>(), [3.0, 0.0]);
        stop(&keeper, &journal, threads);

        let (keeper, journal, threads, found) = started(directory.path());
        assert_eq!(found, [panel(2)], "the tile in the store is the store's");
        keeper.offer(Keeper::forget(JOB)).unwrap();
        stop(&keeper, &journal, threads);
        let (keeper, journal, threads, found) = started(directory.path());
        assert!(found.is_empty(), "a job that ended leaves nothing");
        stop(&keeper, &journal, threads);
    }

    #[test]
    fn a_tile_that_is_not_whole_is_lost_and_never_written() {
        let directory = tempfile::tempdir().unwrap();
        let (keeper, journal, threads, _) = started(directory.path());
        keep(&keeper, 0, 0, 1.0).unwrap();
        let (say, heard) = channel();
        let finish = Finish { job: JOB, task: task(), tile: 0 };
        let order = Keeper::finish(
            finish,
            |_| unreachable!("half a sum"),
            move |written| {
                say.send(matches!(written, Err(KeepError::Lost))).unwrap();
            },
        );
        keeper.offer(order).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(true));
        stop(&keeper, &journal, threads);
    }

    #[test]
    fn sums_have_one_hub() {
        let directory = tempfile::tempdir().unwrap();
        let first = Chest::open(directory.path(), false, SHARES).unwrap();
        assert!(matches!(
            Chest::open(directory.path(), false, SHARES),
            Err(StartError::Open(OpenError::InUse { .. }))
        ));
        Chest::open(directory.path(), true, SHARES).unwrap();
        drop(first);
    }
}
