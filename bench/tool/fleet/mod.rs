//! Thousands of simulated agents in one thread: real QUIC, real frames, no kernels.
//!
//! Owns their sessions, and the thread that drives them. What they are asked goes in as commands, what they saw comes
//! out as [`Measures`]. A turn is: receive, timers, answers, send, and only then sleep.

mod agent;
mod answers;
mod measures;
mod network;
mod port;
mod tls;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use tessera_hub::quic::PublicKey;

pub(crate) use agent::Member;
pub(crate) use answers::Answers;
pub(crate) use measures::Measures;
pub(crate) use network::{Carried, Impairment};
pub(crate) use port::Traffic;

use agent::{Agent, Habits, Standing};
use network::Network;
use port::Port;
use tls::Tls;

/// Agents of one socket.
const AGENTS_PER_PORT: usize = 64;
/// Least sockets to each lane of the hub, where there are as many agents: a first packet finds its lane by where it comes
/// from, so that agents of few sockets would be agents of few lanes.
const PORTS_PER_LANE: usize = 16;
/// What the system may keep of a socket while its thread is elsewhere. *Units*: bytes.
const SOCKET_BYTES: usize = 4 << 20;
/// Most sockets of a fleet; further agents share them.
const PORTS_MAX: usize = 256;
/// Longest sleep: commands are looked at so often.
const SLEEP_MAX: Duration = Duration::from_millis(2);
/// Batches taken from one socket before the next has its turn.
const BATCHES_PER_TURN: usize = 4;
/// Sessions begun in one turn, so that those that are there go on meanwhile.
const CONNECTS_PER_TURN: usize = 16;

/// What a fleet is.
pub(crate) struct Settings {
    pub(crate) hub: SocketAddr,
    pub(crate) hub_key: PublicKey,
    pub(crate) members: Vec<Member>,
    /// Shards that each agent may hold.
    pub(crate) in_flight: u32,
    /// How long an agent takes for a shard, whatever else it holds.
    pub(crate) think: Duration,
    /// Most answers of one frame.
    pub(crate) answers_per_frame: usize,
    pub(crate) answers: Answers,
    /// To jobs of a book, where those of the circle have the others.
    pub(crate) bulk: Option<Answers>,
    /// Cores of its thread.
    pub(crate) cores: Vec<usize>,
    /// Lanes of the hub.
    pub(crate) lanes: u16,
    /// What lies between agents and hub.
    pub(crate) network: Impairment,
}

/// What is true of a fleet now.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) welcomed: AtomicU64,
    pub(crate) answered: AtomicU64,
}

enum Command {
    /// Connects the agents that have no session.
    Connect {
        again: bool,
    },
    /// From now on begins a session again where one is lost, or not.
    Again(bool),
    /// Ends all sessions, without a word: as machines do that lose their power.
    Vanish,
    /// Ends one agent's session, with a word or as a machine that loses its power; it does not come back by itself.
    Leave {
        member: u32,
        goodbye: bool,
    },
    /// Lets one that left come back.
    Join(u32),
    /// What was measured, without the jobs of before from now on where they are not kept.
    Take {
        give: Sender<Measures>,
        keep_jobs: bool,
    },
    Stop,
}

/// The way to a fleet's thread. It ends with this.
pub(crate) struct Fleet {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    pub(crate) board: Arc<Board>,
    // Dropped last: agents that end are heard.
    network: Option<Network>,
}

impl Fleet {
    /// Starts the thread; nobody connects yet.
    ///
    /// *Errors*: there are no sockets.
    pub(crate) fn start(settings: Settings) -> io::Result<Fleet> {
        let least = match settings.lanes {
            0 | 1 => 1,
            lanes => settings.members.len().clamp(1, PORTS_PER_LANE * usize::from(lanes)),
        };
        let ports = settings.members.len().div_ceil(AGENTS_PER_PORT).max(least).min(PORTS_MAX);
        let (network, ways) = match settings.network.is_none() {
            true => (None, vec![settings.hub; ports]),
            false => {
                let cores = settings.cores.clone();
                let (network, ways) = Network::start(settings.network, settings.hub, ports, cores)?;
                (Some(network), ways)
            }
        };
        let ports = ways.into_iter().map(Port::open).collect::<io::Result<Vec<_>>>()?;
        let (commands, orders) = channel();
        let board = Arc::new(Board::default());
        let (seen, cores) = (board.clone(), settings.cores.clone());
        let thread = std::thread::Builder::new().name("fleet".into()).spawn(move || {
            crate::machine::pin(&cores);
            Driver::new(settings, ports, seen).run(&orders);
        })?;
        Ok(Fleet { commands, thread: Some(thread), board, network })
    }

    /// What went through the bad network, where there is one.
    pub(crate) fn carried(&self) -> Option<&Carried> {
        self.network.as_ref().map(|network| &*network.carried)
    }

    fn command(&self, command: Command) {
        // A fleet that has ended has panicked, and says so when it is joined.
        let _ = self.commands.send(command);
    }

    /// Connects all agents that have no session, and from now on again when one is lost if `again` says so.
    pub(crate) fn connect(&self, again: bool) {
        self.command(Command::Connect { again });
    }

    /// From now on begins a session again where one is lost, or not.
    pub(crate) fn again(&self, again: bool) {
        self.command(Command::Again(again));
    }

    /// Ends all sessions; the hub is not told.
    pub(crate) fn vanish(&self) {
        self.command(Command::Vanish);
    }

    /// What it has measured since it was last asked.
    ///
    /// *Panics*: where the fleet's thread has.
    pub(crate) fn take(&self) -> Measures {
        self.taken(true)
    }

    /// The same, and forgets all jobs.
    pub(crate) fn take_all(&self) -> Measures {
        self.taken(false)
    }

    fn taken(&self, keep_jobs: bool) -> Measures {
        let (give, taken) = channel();
        self.command(Command::Take { give, keep_jobs });
        taken.recv().expect("the fleet's thread lives")
    }

    /// Ends an agent's session, and tells the hub or not.
    pub(crate) fn leave(&self, member: u32, goodbye: bool) {
        self.command(Command::Leave { member, goodbye });
    }

    /// Lets an agent that left come back.
    pub(crate) fn join(&self, member: u32) {
        self.command(Command::Join(member));
    }

    /// Agents with a welcome.
    pub(crate) fn welcomed(&self) -> u64 {
        self.board.welcomed.load(Ordering::Relaxed)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

struct Driver {
    settings: Settings,
    habits: Habits,
    tls: Tls,
    ports: Vec<Port>,
    /// By member.
    agents: Vec<Option<Box<Agent>>>,
    /// Members by the handle of their connection, port by port.
    handles: Vec<Vec<u32>>,
    timers: BinaryHeap<Reverse<(Instant, u32)>>,
    touched: VecDeque<u32>,
    /// When members begin a session.
    beginning: BTreeSet<(Instant, u32)>,
    /// Since when each member has wanted a welcome.
    wanting: Vec<Option<Instant>>,
    /// Members that left and do not come back before they are told to.
    away: Vec<bool>,
    again: bool,
    board: Arc<Board>,
    measures: Measures,
    welcomed: u64,
    buffer: Vec<u8>,
    reported: (Traffic, u64),
}

impl Driver {
    fn new(settings: Settings, ports: Vec<Port>, board: Arc<Board>) -> Driver {
        Driver {
            habits: Habits {
                in_flight: settings.in_flight,
                think: settings.think,
                answers_per_frame: settings.answers_per_frame,
            },
            tls: Tls::new(settings.hub_key),
            agents: settings.members.iter().map(|_| None).collect(),
            wanting: vec![None; settings.members.len()],
            away: vec![false; settings.members.len()],
            handles: ports.iter().map(|_| Vec::new()).collect(),
            ports,
            settings,
            timers: BinaryHeap::new(),
            touched: VecDeque::new(),
            beginning: BTreeSet::new(),
            again: false,
            board,
            measures: Measures::default(),
            welcomed: 0,
            buffer: Vec::new(),
            reported: (Traffic::default(), computed_ns()),
        }
    }

    fn run(mut self, orders: &Receiver<Command>) {
        loop {
            match orders.try_recv() {
                Ok(Command::Connect { again }) => {
                    self.again = again;
                    let now = Instant::now();
                    let idle = (0..self.agents.len()).filter(|&member| self.agents[member].is_none());
                    self.beginning = idle.map(|member| (now, member as u32)).collect();
                    for (_, member) in &self.beginning {
                        self.wanting[*member as usize] = Some(now);
                    }
                }
                Ok(Command::Again(again)) => self.again = again,
                Ok(Command::Vanish) => self.vanish(),
                Ok(Command::Leave { member, goodbye }) => self.leave(member, goodbye),
                Ok(Command::Join(member)) => self.join(member),
                Ok(Command::Take { give, keep_jobs }) => {
                    let measures = self.take(keep_jobs);
                    // Whoever asked has gone.
                    let _ = give.send(measures);
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.receive();
        let now = Instant::now();
        self.begin_sessions(now);
        self.on_timers(now);
        for _ in 0..self.touched.len() {
            let Some(member) = self.touched.pop_front() else { break };
            self.serve(member as usize, now);
        }
        self.board.welcomed.store(self.welcomed, Ordering::Relaxed);
        self.board.answered.store(self.measures.answered, Ordering::Relaxed);
    }

    /// Sleeps until a socket has something or a timer is due, then takes what there is.
    fn receive(&mut self) {
        let now = Instant::now();
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        let next = next.into_iter().chain(self.beginning.first().map(|(at, _)| *at)).min();
        let wait = match self.touched.is_empty() {
            true => next.map_or(SLEEP_MAX, |at| at.saturating_duration_since(now)).min(SLEEP_MAX),
            false => Duration::ZERO,
        };
        let mut waiting: Vec<PollFd<'_>> =
            self.ports.iter().map(|port| PollFd::new(port.socket(), PollFlags::IN)).collect();
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        // An interrupted wait is a short one.
        let _ = poll(&mut waiting, Some(&wait));
        let ready: Vec<bool> = waiting.iter().map(|port| !port.revents().is_empty()).collect();
        let now = Instant::now();
        let Driver { ports, handles, agents, touched, .. } = self;
        for (at, port) in ports.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
            for _ in 0..BATCHES_PER_TURN {
                let more = port.receive(now, |handle, event| {
                    let member = handles[at].get(handle.0).copied().unwrap_or(u32::MAX);
                    if let Some(agent) = agents.get_mut(member as usize).and_then(Option::as_deref_mut) {
                        agent.connection.handle_event(event);
                        if !std::mem::replace(&mut agent.touched, true) {
                            touched.push_back(member);
                        }
                    }
                });
                if !more.unwrap_or(false) {
                    break;
                }
            }
        }
    }

    fn begin_sessions(&mut self, now: Instant) {
        for _ in 0..CONNECTS_PER_TURN {
            match self.beginning.first() {
                Some(&(at, member)) if at <= now => {
                    self.beginning.pop_first();
                    self.connect(member, now);
                }
                _ => break,
            }
        }
    }

    fn connect(&mut self, member: u32, now: Instant) {
        let at = member as usize % self.ports.len();
        let config = self.tls.client(&self.settings.members[member as usize].identity);
        let Ok((handle, connection)) = self.ports[at].connect(now, config) else {
            // A hub's address that cannot be connected to is told before a fleet starts.
            return;
        };
        let handles = &mut self.handles[at];
        handles.resize(handles.len().max(handle.0 + 1), u32::MAX);
        handles[handle.0] = member;
        self.agents[member as usize] = Some(Box::new(Agent::new(at, handle, connection)));
        self.touch(member);
    }

    fn touch(&mut self, member: u32) {
        if let Some(agent) = self.agents[member as usize].as_deref_mut()
            && !std::mem::replace(&mut agent.touched, true)
        {
            self.touched.push_back(member);
        }
    }

    fn on_timers(&mut self, now: Instant) {
        while let Some(&Reverse((at, member))) = self.timers.peek().filter(|Reverse((at, _))| *at <= now) {
            self.timers.pop();
            let Some(agent) = self.agents[member as usize].as_deref_mut() else { continue };
            if agent.armed == Some(at) {
                agent.armed = None;
            }
            if agent.connection.poll_timeout().is_some_and(|due| due <= now) {
                agent.connection.handle_timeout(now);
            }
            self.touch(member);
        }
    }

    /// Lets an agent hear, answer and send, and sets its next timer.
    fn serve(&mut self, member: usize, now: Instant) {
        let Some(agent) = self.agents[member].as_deref_mut() else { return };
        agent.touched = false;
        let before = agent.standing;
        agent.poll(now, &self.settings.members[member], self.habits, &mut self.measures);
        agent.answer(
            now,
            self.habits,
            (&self.settings.answers, self.settings.bulk.as_ref()),
            &mut self.measures,
        );
        if agent.heartbeat.is_some_and(|due| due <= now) {
            agent.beat(now);
        }
        agent.flush();
        let gone = agent.has_left();
        if agent.refused.is_some() && !agent.connection.is_closed() {
            agent.connection.close(now, 0u32.into(), Default::default());
        }
        let port = &mut self.ports[agent.port];
        let sent = port.unblock() && port.transmit(now, &mut agent.connection, &mut self.buffer);
        match (before, agent.standing) {
            (Standing::Connecting, Standing::Welcomed) => {
                self.welcomed += 1;
                if let Some(since) = self.wanting[member].take() {
                    self.measures.welcome.record(now.saturating_duration_since(since));
                }
                // It is enrolled from here on.
                self.settings.members[member].secret = None;
            }
            (Standing::Welcomed, Standing::Over) => self.welcomed -= 1,
            _ => {}
        }
        if !port.relay(agent.handle, &mut agent.connection) || agent.standing == Standing::Over || gone {
            return self.end(member, now);
        }
        let due = [agent.connection.poll_timeout(), agent.next_done(self.habits), agent.heartbeat];
        if let Some(due) = due.into_iter().flatten().min()
            && agent.armed.is_none_or(|armed| due < armed)
        {
            agent.armed = Some(due);
            self.timers.push(Reverse((due, member as u32)));
        }
        if !sent {
            self.touch(member as u32);
        }
    }

    /// A session is over; where it is wanted, another one begins within a second.
    fn end(&mut self, member: usize, now: Instant) {
        let Some(mut agent) = self.agents[member].take() else { return };
        if agent.standing == Standing::Welcomed {
            self.welcomed -= 1;
        }
        agent.connection.close(now, 0u32.into(), Default::default());
        let port = &mut self.ports[agent.port];
        port.transmit(now, &mut agent.connection, &mut self.buffer);
        self.forget(agent);
        if self.away[member] {
            return;
        }
        self.wanting[member].get_or_insert(now);
        if self.again {
            let spread = Duration::from_millis((member as u64).wrapping_mul(0x9e37_79b9) % 1_000);
            self.beginning.insert((now + spread, member as u32));
        }
    }

    /// Gives a connection's handle back to its endpoint, which waits for no goodbyes here.
    fn forget(&mut self, mut agent: Box<Agent>) {
        self.handles[agent.port][agent.handle.0] = u32::MAX;
        let port = &mut self.ports[agent.port];
        if port.relay(agent.handle, &mut agent.connection) {
            port.drop_connection(agent.handle);
        }
    }

    fn vanish(&mut self) {
        self.again = false;
        self.beginning.clear();
        for member in 0..self.agents.len() {
            if let Some(agent) = self.agents[member].take() {
                self.forget(agent);
            }
        }
        self.touched.clear();
        self.timers.clear();
        self.welcomed = 0;
    }

    fn leave(&mut self, member: u32, goodbye: bool) {
        let now = Instant::now();
        self.away[member as usize] = true;
        self.beginning.retain(|(_, of)| *of != member);
        match (self.agents[member as usize].as_deref_mut(), goodbye) {
            (Some(agent), true) if agent.standing == Standing::Welcomed => {
                agent.leave();
                self.touch(member);
            }
            (Some(_), true) => self.end(member as usize, now),
            (Some(agent), false) => {
                self.welcomed -= u64::from(agent.standing == Standing::Welcomed);
                if let Some(agent) = self.agents[member as usize].take() {
                    self.forget(agent);
                }
            }
            (None, _) => {}
        }
    }

    fn join(&mut self, member: u32) {
        if std::mem::take(&mut self.away[member as usize]) {
            let now = Instant::now();
            self.wanting[member as usize] = Some(now);
            // One that still says goodbye begins when it has.
            if self.agents[member as usize].is_none() {
                self.beginning.insert((now, member));
            }
        }
    }

    fn take(&mut self, keep_jobs: bool) -> Measures {
        let mut measures = std::mem::take(&mut self.measures);
        let mut traffic = Traffic::default();
        for Port { traffic: of, .. } in &self.ports {
            traffic = traffic + *of;
        }
        let computed = computed_ns();
        measures.traffic = traffic - self.reported.0;
        measures.computed_ns = computed - self.reported.1;
        self.reported = (traffic, computed);
        // How long agents had nothing to do in between is no part of what is measured next.
        self.agents.iter_mut().flatten().for_each(|agent| agent.forget_rooms());
        self.measures.credit = measures.credit;
        for (job, seen) in measures.jobs.iter().filter(|_| keep_jobs) {
            self.measures.jobs.insert(*job, *seen);
        }
        measures
    }
}

/// Time of this thread on a core. *Units*: nanoseconds.
pub(crate) fn computed_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
