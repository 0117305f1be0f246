//! What a lane's driver calls: every input becomes one step of the machine, every effect one act.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tessera_hub_core::effect::{CloseReason as MachineReason, Wait, Waited};
use tessera_hub_core::event::PanelFate;
use tessera_hub_core::lane::Config;
use tessera_hub_core::scheduler::Sharing;
use tessera_hub_core::standing::StandingRecord;
use tessera_hub_core::{
    BatchId, Counts, Effect, Event, Lane, LaneMessage, Payment, Record, SessionId as Session,
};
use tessera_protocol::id::{Digest, HubId, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::{LaneIndex, ShardIndex, Tick};
use tessera_protocol::wire::{self, BulkHeader, HubControl, Refusal};
use tessera_storage::Commit;
use tessera_vmem::KeepError;

use super::agents::{self, Standing, Standings};
use super::frames::Frames;
use super::known::{self, Known};
use super::pieces::{Piece, Pieces, TooMany};
use super::times::{Jobs, LaneTimes};
use crate::audit::Deed;
use crate::clients::{Clients, ToClients};
use crate::inputs::{self, InputError};
use crate::journal::{Failed, Journal, Refused, Verdict};
use crate::keeper::{self, Finish, Keep, Keeper};
use crate::output;
use crate::products::{self, Shelf};
use crate::quic::{self, CloseCode, SessionEvent, SessionId, Sessions};
use crate::reader::{Length, Read, Reader};
use crate::records::{self, RecordError};
use crate::runtime::{LaneHandler, Mailbox, Mailboxes, PushError};
use crate::tracer::{News, Tell};

mod door;

/// How long a stopping lane waits for shards in flight.
const DRAIN_IN_FLIGHT_MAX: Duration = Duration::from_secs(5);
/// How long a stopping lane waits for its last writes.
const DRAIN_WRITES_MAX: Duration = Duration::from_secs(10);
/// Effects of a step whose memory is kept for the next. Few steps have more: those in which a whole fleet hears of
/// something.
const EFFECTS_KEPT_MAX: usize = 1_024;
/// How soon what a full queue gave back is offered again.
const RETRY: Duration = Duration::from_millis(1);

/// What other threads and lanes send a lane.
#[derive(Debug)]
pub enum Input {
    /// An event for the machine.
    Event(Box<Event>),
    /// The store judged an agent that is known already, or is not.
    Known {
        /// The session that waits.
        session: u64,
        /// What the store says.
        verdict: Verdict,
    },
    /// The reader read a piece of an input, or could not.
    Piece {
        /// Which.
        piece: Piece,
        /// Its header and bytes, as they are sent.
        payload: Option<Bytes>,
    },
    /// The hubs that serve from the store have changed: where agents find them, this one included.
    Hubs(Arc<[String]>),
    /// Another hub has fewer agents than this one.
    Spare {
        /// How many of this lane's are to go there.
        agents: usize,
        /// Where it is.
        to: Arc<str>,
    },
    /// Every lane that has to know was told how far an agent is trusted.
    StandingTold {
        /// The session that waits.
        session: u64,
        /// Whether that could be found out.
        known: bool,
    },
    /// The store judged an enrolment.
    Enrolled {
        /// The session that waits.
        session: u64,
        /// What the store says.
        verdict: Verdict,
    },
}

/// What a lane's shell is made of.
#[derive(Clone, Debug)]
pub struct HandlerConfig {
    /// The machine's.
    pub machine: Config,
    /// Which of the hubs on its store this is; nothing where it has the store for itself.
    pub hub: Option<HubId>,
    /// What those may have changed, for all lanes.
    pub known: Known,
    /// What projects may have.
    pub sharing: Sharing,
    /// What numbers may take of memory. *Units*: bytes.
    pub room_bytes: usize,
    /// The instant of tick zero.
    pub origin: Instant,
}

/// What one lane counts for its operator.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Steps of the machine.
    pub steps: AtomicU64,
    /// Shards handed to agents.
    pub assigned: AtomicU64,
    /// Results that came back.
    pub results: AtomicU64,
    /// Sessions that were turned away.
    pub refused: AtomicU64,
    /// Agents with a live session.
    pub agents: AtomicU64,
    /// What happened to attempts and answers.
    pub counts: Mutex<Counts>,
    /// What its sessions' packets came to.
    pub packets: Mutex<quic::Counters>,
    /// How long things take.
    pub times: LaneTimes,
}

/// One lane's shell.
pub struct Handler {
    machine: Lane,
    lane: LaneIndex,
    hub: Option<HubId>,
    /// What other hubs may have changed.
    known: Known,
    origin: Instant,
    standings: Standings,
    /// What the providers of agents that were here are called: from their ids as text.
    providers: BTreeMap<String, String>,
    /// Of the step being carried out; kept for its room.
    effects: Vec<Effect>,
    /// Those that are timed.
    jobs: Jobs,
    /// Whether answers came in this turn, and whether shards were assigned.
    turn: (bool, bool),
    frames: Frames,
    journal: Journal,
    tracer: Tell,
    reader: Reader,
    shelf: Shelf,
    keeper: Keeper,
    clients: Clients,
    peers: Mailboxes<Input>,
    me: Mailbox<Input>,
    counters: Arc<LaneCounters>,
    /// What full queues gave back, each in order.
    to_journal: VecDeque<Refused>,
    to_reader: VecDeque<Read>,
    to_keeper: VecDeque<keeper::Refused>,
    pieces: Pieces,
    to_lanes: BTreeMap<u16, VecDeque<Input>>,
    to_clients: VecDeque<ToClients>,
    /// Agents that were told why they may not work, and when their sessions end at the latest.
    refused: VecDeque<(Instant, Session, Refusal)>,
    /// Since when, and how many refusals the audit log was told of.
    refusals_told: (Instant, u32),
    stopping_since: Option<Instant>,
    /// As last shown to whoever watches the hub.
    counted: Counts,
}

impl Handler {
    /// A lane's shell around a new machine.
    pub fn new(
        config: HandlerConfig,
        (journal, tracer): (Journal, Tell),
        (reader, shelf, keeper): (Reader, Shelf, Keeper),
        clients: Clients,
        peers: Mailboxes<Input>,
        counters: Arc<LaneCounters>,
    ) -> Handler {
        let lane = config.machine.lane;
        let mut machine = Lane::new(config.machine);
        machine.share(config.sharing);
        machine.limit_numbers(config.room_bytes);
        Handler {
            machine,
            lane,
            hub: config.hub,
            known: config.known,
            origin: config.origin,
            standings: Standings::new(),
            providers: BTreeMap::new(),
            effects: Vec::new(),
            jobs: Jobs::default(),
            turn: (false, false),
            frames: Frames::default(),
            journal,
            tracer,
            reader,
            shelf,
            keeper,
            clients,
            me: peers.get(lane),
            peers,
            counters,
            to_journal: VecDeque::new(),
            to_reader: VecDeque::new(),
            to_keeper: VecDeque::new(),
            pieces: Pieces::default(),
            to_lanes: BTreeMap::new(),
            to_clients: VecDeque::new(),
            refused: VecDeque::new(),
            refusals_told: (config.origin, 0),
            stopping_since: None,
            counted: Counts::default(),
        }
    }

    fn tick(&self, now: Instant) -> Tick {
        Tick(u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX))
    }

    fn step(&mut self, now: Instant, event: Event, io: &mut Sessions) {
        self.counters.steps.fetch_add(1, Ordering::Relaxed);
        let tick = self.tick(now);
        let mut effects = std::mem::take(&mut self.effects);
        effects.extend(self.machine.step(tick, event));
        for Waited { wait, ms, shards } in self.machine.waits() {
            let histogram = match wait {
                Wait::Verified => &self.counters.times.verify,
                Wait::Kept => &self.counters.times.keep,
            };
            histogram.record_all(Duration::from_millis(*ms), *shards);
        }
        effects.drain(..).for_each(|effect| self.carry_out(now, effect, io));
        effects.shrink_to(EFFECTS_KEPT_MAX);
        self.effects = effects;
        let counts = self.machine.counts();
        if counts != self.counted {
            self.counted = counts;
            *self.counters.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        }
    }

    fn carry_out(&mut self, now: Instant, effect: Effect, io: &mut Sessions) {
        match effect {
            Effect::Persist { batch, record } => self.persist(batch, record),
            Effect::Answer { request, answer } => {
                self.jobs.answered(request, &answer);
                self.tell_clients(ToClients::Answer { request, answer });
            }
            Effect::TellLane { lane, message } => self.tell_lane(lane, message),
            Effect::Welcome { session, welcome } => {
                self.counters.agents.fetch_add(1, Ordering::Relaxed);
                self.frames.welcome(session, welcome);
            }
            Effect::SendJob { session, job, kernel, task, ordered } => {
                self.jobs.told(job, now, &self.counters.times);
                self.frames.job(session, job, &kernel, &task, ordered);
            }
            Effect::SendPass { session, job, pass } => self.frames.pass(session, job, &pass),
            Effect::SendInput { session, job, input, blake3, offset } => {
                self.send_piece(session, Piece { job, input, blake3, offset }, io);
            }
            Effect::Assemble { job, task } => self.assemble(job, task),
            Effect::KeepPanel { job, task, plan, tile, panel, bytes, paid } => {
                self.keep_panel(Keep { job, task, plan, tile, panel, bytes, paid });
            }
            Effect::PersistTile { batch, job, task, plan, tile, earned } => {
                self.persist_tile(batch, Finish { job, task, tile }, plan, earned);
            }
            Effect::ForgetPanels { job } => self.tell_keeper(Keeper::forget(job)),
            Effect::StoreProduct { job, index, blake3, bytes } => {
                self.store_product(job, index, blake3, bytes)
            }
            Effect::Assign { session, job, items } => {
                self.counters.assigned.fetch_add(items.len() as u64, Ordering::Relaxed);
                self.turn.1 = true;
                self.frames.assign(session, job, items);
            }
            Effect::Forget { session, job } => self.frames.forget(session, job),
            Effect::TellDraining { session } => self.frames.control(session, &HubControl::Draining),
            Effect::CloseSession { session, reason } => {
                let (code, words) = match reason {
                    MachineReason::Superseded => (CloseCode::REPLACED, "the agent opened a newer session"),
                    MachineReason::Flooding => {
                        (CloseCode::TOO_MUCH, "more partials delivered than announced")
                    }
                    MachineReason::InputUnknown => {
                        (CloseCode::PROTOCOL, "a piece of an input that its job does not have")
                    }
                    MachineReason::Removed => return self.farewell(now, session, Refusal::Removed),
                    MachineReason::Silent => (CloseCode::TOO_LATE, "no heartbeat for a lease"),
                };
                io.close(SessionId::from_bits(session.0), code, words);
            }
            Effect::ReportStanding { change } => {
                let (agent, from, to) = (change.agent, change.from.word(), change.to.word());
                match change.to > change.from {
                    true => {
                        tracing::info!(%agent, from, to, reason = ?change.reason, "an agent is trusted more")
                    }
                    false => {
                        tracing::warn!(%agent, from, to, reason = ?change.reason, "an agent is trusted less")
                    }
                }
            }
            Effect::RaiseAlarm { alarm } => tracing::error!(
                ejected = alarm.ejected,
                permitted = alarm.permitted,
                "more agents are proven wrong at once than chance explains: look for a bad build or kernel; no more are ejected now"
            ),
            Effect::PublishJob { view } => {
                if !view.state.is_open() {
                    self.jobs.ended(view.id, now, &self.counters.times);
                    tracing::info!(job = %view.id, state = ?view.state, digest = ?view.digest, shards = view.shards,
                        attempts = view.attempts, checks = view.checks, "job ended");
                }
                self.tell_clients(ToClients::Job(view));
            }
            Effect::PublishAgent { mut view } => {
                if let Some(name) = self.providers.get(&view.provider) {
                    view.provider.clone_from(name);
                }
                self.tell_clients(ToClients::Agent(view));
            }
            Effect::PublishAgentAway { agent } => {
                self.counters.agents.fetch_sub(1, Ordering::Relaxed);
                tracing::info!(%agent, lane = self.lane.0, "agent left");
                self.tell_clients(ToClients::Away { agent, lane: self.lane });
            }
        }
    }

    // --- out ------------------------------------------------------------------------------------

    fn persist(&mut self, batch: BatchId, record: Record) {
        let news = News::of(&record);
        let Some(hub) = self.hub else {
            return self.persist_as((batch, news), move || records::deed_of(&record), |_| None);
        };
        let agents = match &record {
            Record::StandingsChanged { agents, .. } => agents.clone(),
            _ => Vec::new(),
        };
        let (known, told) = (self.known.clone(), self.known.clone());
        let changed = agents.clone();
        let make = move || {
            let mut deed = records::deed_of(&record);
            records::put_owner(&mut deed.batch, &record, hub);
            known.require(&mut deed.batch, &changed);
            deed
        };
        let learn = move |verdict: &Verdict| match verdict {
            Verdict::Judged(Commit::Done) => {
                told.wrote(&agents);
                None
            }
            Verdict::Judged(Commit::Conflict { key, found }) => {
                let agent = known::agent_of(key)?;
                told.found(agent, found.as_deref());
                records::decode_standing(found.as_deref()?).ok()
            }
            Verdict::Failed(_) => None,
        };
        self.persist_as((batch, news), make, learn);
    }

    /// `learn`: what another hub has written meanwhile. The machine tries again, with what it learned.
    fn persist_as(
        &mut self,
        (batch, news): (BatchId, Option<News>),
        make: impl FnOnce() -> Deed + Send + 'static,
        learn: impl FnOnce(&Verdict) -> Option<StandingRecord> + Send + 'static,
    ) {
        let (me, peers, tracer) = (self.me.clone(), self.peers.clone(), self.tracer.clone());
        let (counters, written) = (Arc::clone(&self.counters), Instant::now());
        self.write(make, move |verdict| {
            counters.times.commit.record(written.elapsed());
            if let Some(record) = learn(&verdict) {
                tell_standing(&peers, record);
            }
            if let (Some(news), Verdict::Judged(Commit::Done)) = (news, &verdict) {
                // It ends after the lanes do; what it does not hear it reads at its next start.
                let _ = tracer.send(news);
            }
            me.push(Input::Event(Box::new(event_of(batch, verdict))));
        });
    }

    /// Records reach the journal in the order in which the machine wrote them: behind one that waits, all
    /// wait.
    fn write(
        &mut self,
        make: impl FnOnce() -> Deed + Send + 'static,
        then: impl FnOnce(Verdict) + Send + 'static,
    ) {
        let request = Journal::request(make, then);
        let refused =
            if self.to_journal.is_empty() { self.journal.retry(request).err() } else { Some(request) };
        self.to_journal.extend(refused);
    }

    fn send_piece(&mut self, session: Session, piece: Piece, io: &mut Sessions) {
        match self.pieces.ask(session, piece) {
            Ok(()) => self.read_pieces(),
            Err(TooMany) => {
                tracing::warn!(session = session.0, "an agent asks for pieces that it does not wait for");
                let words = "more pieces of inputs asked for than may be on their way";
                io.close(SessionId::from_bits(session.0), CloseCode::TOO_MUCH, words);
            }
        }
    }

    fn read_pieces(&mut self) {
        while let Some(piece) = self.pieces.next() {
            let (me, blobs) = (self.me.clone(), self.shelf.blobs.clone());
            self.read(Read::new(Length::Piece, move |store| {
                let Piece { job, input, blake3, offset } = piece;
                let bytes = store
                    .map_err(InputError::from)
                    .and_then(|store| inputs::piece(&*store, &blobs, blake3, offset));
                let bytes = bytes.unwrap_or_else(|error| {
                    tracing::error!(%error, input = %blake3, "an input cannot be read");
                    None
                });
                let header = BulkHeader::Input { job: job.0, input, offset };
                let payload = bytes.map(|bytes| wire::bulk(&header, &bytes).into());
                me.push(Input::Piece { piece, payload });
            }));
        }
    }

    fn assemble(&mut self, job: JobId, task: Arc<Task>) {
        let me = self.me.clone();
        self.read(Read::new(Length::Whole, move |store| {
            let output =
                store.map_err(RecordError::from).and_then(|store| output::digest(&*store, job, &task));
            let output = output.inspect_err(|error| tracing::error!(%error, "a result cannot be read")).ok();
            me.push(Input::Event(Box::new(Event::Assembled { job, output })));
        }));
    }

    fn store_product(&mut self, job: JobId, index: ShardIndex, blake3: Digest, bytes: Arc<[u8]>) {
        let (me, journal, shelf) = (self.me.clone(), self.journal.clone(), self.shelf.clone());
        self.read(Read::new(Length::Product, move |store| {
            let stored = products::store(store, &journal, &shelf, (job, blake3), &bytes);
            me.push(Input::Event(Box::new(Event::ProductStored { job, index, stored })));
        }));
    }

    fn keep_panel(&mut self, keep: Keep) {
        let (me, job, tile, panel) = (self.me.clone(), keep.job, keep.tile, keep.panel);
        self.tell_keeper(Keeper::keep(keep, move |kept| {
            let fate = match kept {
                Ok(()) => PanelFate::Kept,
                Err(KeepError::NotFinite) => PanelFate::NotFinite,
                Err(KeepError::Arena(_)) => PanelFate::Refused,
                Err(KeepError::Lost) => {
                    return me.push(Input::Event(Box::new(Event::TileLost { job, tile })));
                }
            };
            me.push(Input::Event(Box::new(Event::PanelKept { job, tile, panel, fate })));
        }));
    }

    fn persist_tile(&mut self, batch: BatchId, finish: Finish, plan: Digest, earned: Vec<Payment>) {
        let (me, job, tile) = (self.me.clone(), finish.job, finish.tile);
        let make = move |bytes| records::deed_of(&Record::TileReduced { job, plan, tile, bytes, earned });
        self.tell_keeper(Keeper::finish(finish, make, move |written| {
            let (event, besides) = match written {
                Ok(verdict) => (event_of(batch, verdict), None),
                Err(error) => {
                    let fate = PanelFate::NotFinite;
                    let besides = match error {
                        KeepError::NotFinite => Some(Event::PanelKept { job, tile, panel: 0, fate }),
                        KeepError::Lost => Some(Event::TileLost { job, tile }),
                        KeepError::Arena(_) => None,
                    };
                    (Event::CommitFailed { batch, too_large: false }, besides)
                }
            };
            for event in std::iter::once(event).chain(besides) {
                me.push(Input::Event(Box::new(event)));
            }
        }));
    }

    /// Orders reach the keeper as the machine gave them: behind one that waits, all wait.
    fn tell_keeper(&mut self, order: keeper::Refused) {
        let refused = if self.to_keeper.is_empty() { self.keeper.offer(order).err() } else { Some(order) };
        self.to_keeper.extend(refused);
    }

    fn read(&mut self, read: Read) {
        let refused = if self.to_reader.is_empty() { self.reader.offer(read).err() } else { Some(read) };
        self.to_reader.extend(refused);
    }

    fn tell_lane(&mut self, lane: LaneIndex, message: LaneMessage) {
        let input = Input::Event(Box::new(Event::LaneSpoke { from: self.lane, message }));
        match self.to_lanes.get_mut(&lane.0) {
            Some(queue) => queue.push_back(input),
            None => {
                if let Err(PushError::Full(input)) = self.peers.try_push(lane, input) {
                    self.to_lanes.entry(lane.0).or_default().push_back(input);
                }
            }
        }
    }

    fn tell_clients(&mut self, message: ToClients) {
        if !self.to_clients.is_empty() {
            return self.to_clients.push_back(message);
        }
        self.to_clients.extend(self.clients.tell(message).err());
    }

    /// Offers again what full queues gave back.
    fn retry(&mut self) {
        while let Some(refused) = self.to_journal.pop_front() {
            if let Err(refused) = self.journal.retry(refused) {
                self.to_journal.push_front(refused);
                break;
            }
        }
        while let Some(read) = self.to_reader.pop_front() {
            if let Err(read) = self.reader.offer(read) {
                self.to_reader.push_front(read);
                break;
            }
        }
        while let Some(order) = self.to_keeper.pop_front() {
            if let Err(order) = self.keeper.offer(order) {
                self.to_keeper.push_front(order);
                break;
            }
        }
        let peers = &self.peers;
        self.to_lanes.retain(|lane, queue| {
            while let Some(input) = queue.pop_front() {
                if let Err(PushError::Full(input)) = peers.try_push(LaneIndex(*lane), input) {
                    queue.push_front(input);
                    return true;
                }
            }
            false
        });
        while let Some(message) = self.to_clients.pop_front() {
            if let Err(message) = self.clients.tell(message) {
                self.to_clients.push_front(message);
                break;
            }
        }
    }
}

impl LaneHandler for Handler {
    type Message = Input;

    fn message(&mut self, now: Instant, message: Input, io: &mut Sessions) {
        match message {
            Input::Event(event) => {
                if let Event::JobSubmitted { request, .. } = &*event {
                    self.jobs.submitted(*request, now);
                }
                if let (Event::StandingsRecovered { agents }, Some(_)) = (&*event, self.hub) {
                    self.known.wrote(agents);
                }
                self.step(now, *event, io);
            }
            Input::Known { session, verdict } => self.known(now, Session(session), &verdict, io),
            Input::StandingTold { session, known: true } => self.admit(now, Session(session), io),
            Input::StandingTold { session, known: false } => {
                self.refuse(now, Session(session), Refusal::StoreUnavailable);
            }
            Input::Enrolled { session, verdict } => self.enrolled(now, Session(session), &verdict, io),
            Input::Hubs(hubs) => self.frames.tell_hubs(hubs),
            Input::Spare { agents, to } => self.frames.spare(agents, &to),
            Input::Piece { piece, payload } => {
                for session in self.pieces.read(&piece) {
                    self.frames.piece(session, &piece, payload.clone());
                }
                self.read_pieces();
            }
        }
    }

    fn session_event(&mut self, now: Instant, event: SessionEvent, io: &mut Sessions) {
        let session = Session(event.session().to_bits());
        match event {
            SessionEvent::Opened { key, .. } => {
                self.standings.insert(session, Standing::Opened { key: key.0 });
            }
            SessionEvent::Control { frame, .. } => {
                let heard = agents::control(&mut self.standings, session, &frame);
                self.heard(now, session, heard, io);
            }
            SessionEvent::Work { frame, .. } => {
                self.counters.results.fetch_add(1, Ordering::Relaxed);
                self.turn.0 = true;
                self.heard(now, session, agents::work(session, &frame), io);
            }
            SessionEvent::Bulk { bytes, .. } => {
                self.heard(now, session, agents::bulk(session, &bytes), io);
            }
            SessionEvent::Closed { reason, .. } => {
                self.frames.drop_session(session);
                self.pieces.drop_session(session);
                if let Some(Standing::Working) = self.standings.remove(&session) {
                    tracing::debug!(session = session.0, %reason, "session closed");
                    self.step(now, Event::SessionClosed { session }, io);
                }
            }
        }
    }

    fn turn_end(&mut self, now: Instant, io: &mut Sessions) -> Option<Instant> {
        self.retry();
        if self.machine.next_timer().is_some_and(|due| due <= self.tick(now)) {
            self.step(now, Event::TimePassed, io);
        }
        self.close_refused(now, io);
        *self.counters.packets.lock().unwrap_or_else(PoisonError::into_inner) = io.counters();
        for session in self.frames.send(io) {
            io.close(
                SessionId::from_bits(session.0),
                CloseCode::TOO_MUCH,
                "the agent does not read its frames",
            );
        }
        let farewell = self.refused.front().map(|(due, ..)| *due);
        let timer = self.machine.next_timer().map(|due| self.origin + Duration::from_millis(due.0));
        let stuck = !self.to_journal.is_empty()
            || !self.to_reader.is_empty()
            || !self.to_keeper.is_empty()
            || !self.to_lanes.is_empty()
            || !self.to_clients.is_empty()
            || self.frames.is_waiting();
        let retry = stuck.then(|| now + RETRY);
        [timer, retry, farewell].into_iter().flatten().min()
    }

    fn turn_over(&mut self, began: Instant, sent: Instant) {
        let (took, times) = (sent.saturating_duration_since(began), &self.counters.times);
        times.turn.record(took);
        if std::mem::take(&mut self.turn) == (true, true) {
            times.dispatch.record(took);
        }
    }

    fn stopping(&mut self, now: Instant, io: &mut Sessions) -> bool {
        let since = match self.stopping_since {
            Some(since) => since,
            None => {
                self.stopping_since = Some(now);
                self.step(now, Event::StopRequested, io);
                now
            }
        };
        let waited = now.saturating_duration_since(since);
        self.machine.is_drained()
            || (waited >= DRAIN_IN_FLIGHT_MAX && !self.machine.is_writing())
            || waited >= DRAIN_WRITES_MAX
    }
}

fn event_of(batch: BatchId, verdict: Verdict) -> Event {
    match verdict {
        Verdict::Judged(Commit::Done) => Event::Committed { batch },
        Verdict::Judged(Commit::Conflict { found, .. }) => {
            let existing: Option<(JobId, _)> = found.as_deref().and_then(records::read_idempotency);
            match existing {
                Some((existing, manifest)) => Event::Conflicted { batch, existing, manifest },
                None => Event::CommitFailed { batch, too_large: false },
            }
        }
        Verdict::Failed(failed) => Event::CommitFailed { batch, too_large: failed == Failed::TooLarge },
    }
}

/// Tells all lanes what the store says of an agent.
pub(crate) fn tell_standing(lanes: &Mailboxes<Input>, record: StandingRecord) {
    for lane in (0..lanes.lanes()).map(LaneIndex) {
        lanes.get(lane).push(Input::Event(Box::new(Event::StandingRead { record })));
    }
}
