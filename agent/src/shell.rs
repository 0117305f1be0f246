//! The shell: carries events to the machine and its effects away from it.
//!
//! Owns the clock, the current session, the slots' threads and what the provider is told. Every event,
//! from whichever task or thread, comes through one of two bounded queues; when one is full its sender
//! waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tessera_agent_core::{
    Closing, Effect, Event, Exit, Hubs, Identity, Machine, Outcome, Random, SlotIndex, operand_bytes_max,
    panel_bytes_max,
};
use tessera_cuda::DeviceInfo;
use tessera_protocol::address::HubAddress;
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::unit::Tick;
use tessera_protocol::wire::{Hello, Welcome};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cache::Cache;
use crate::config::Config;
use crate::devices;
use crate::error::AgentError;
use crate::executor::Studio;
use crate::home::Home;
use crate::host;
use crate::inputs::{Inputs, Looked};
use crate::outgoing::Full;
use crate::program::Program;
use crate::runner::{Runner, slots_with};
use crate::session::{self, Link, Said, SessionSerial, Target, Teller, Trouble};
use crate::studio;
use crate::tls::{self, HubKey};
use crate::work_log::WorkLog;

/// Events that wait for the machine; a step takes microseconds.
const INPUTS_MAX: usize = 256;
/// Pieces that were looked at and wait for the machine, which orders one at a time.
const LOOKED_MAX: usize = 4;
/// How long the last packet may take to leave.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// What the agent closes a session with when all is said.
const CLOSE_DONE: u32 = 0;
/// What it closes a session with when the hub broke the protocol.
const CLOSE_PROTOCOL: u32 = 2;

/// Runs one agent to its end.
pub(crate) async fn run(
    config: Config,
    home: Home,
    hub_key: HubKey,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let hubs = Hubs::new(config.hubs.clone(), home.hubs()?).ok_or(AgentError::Hubs { hubs: 0 })?;
    let hub = hubs.current().clone();
    any_known(&config.hubs).await?;
    let (client, pinned) = tls::client(&home, hub_key).map_err(AgentError::Tls)?;
    let (inputs, mut said) = mpsc::channel(INPUTS_MAX);
    let (reports, mut ended) = mpsc::channel(INPUTS_MAX);
    let (lookers, mut looked) = mpsc::channel(LOOKED_MAX);
    let report = move |slot: SlotIndex, outcome: Outcome| reports.blocking_send((slot, outcome)).is_ok();
    let devices = devices::choose(&config.gpus);
    let studio = studio::open(&config.data).map(Arc::new);
    let log = config.work_log.as_deref().map(WorkLog::open).transpose();
    let log = log.map_err(|source| AgentError::System { what: "file for the work log", source })?;
    let runner = Runner::start(config.slots, &devices, config.isa, (studio.clone(), log), report)
        .map_err(|source| AgentError::System { what: "thread for a slot", source })?;
    let identity = identity(&config, &devices, studio.as_deref(), (home.agent(), hubs));
    let (cache, kept) = Cache::open(&config.data, identity.cache_bytes_max)
        .map_err(|source| AgentError::System { what: "folder for inputs", source })?;
    let names = kept.iter().map(|(name, _)| *name).collect();
    let stored = Inputs::new(cache, kept);
    let panel_bytes_max = panel_bytes_max(operand_bytes_max(identity.hello.memory_bytes));
    let mut machine = Machine::new(identity, names);
    let target = Target { hub, client, pinned };
    let mut hands = Hands {
        target,
        home,
        hub_key,
        inputs,
        runner,
        programs: BTreeMap::new(),
        stored,
        panel_bytes_max,
        lookers,
        serial: SessionSerial::default(),
        session: None,
        link: None,
        pending: Some(Event::Started),
        reported: None,
        trouble: None,
        exit: None,
    };
    let begun = Instant::now();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut stopping = false;
    let exit = loop {
        let event = match hands.pending.take() {
            Some(event) => event,
            None => tokio::select! {
                biased;
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    tracing::info!("stopping: finishing what is in flight");
                    Event::StopRequested
                }
                Some((slot, outcome)) = ended.recv() => Event::ShardEnded { slot, outcome },
                Some(seen) = looked.recv() => hands.stored.looked(seen),
                Some((serial, said)) = said.recv() => match hands.heard(serial, said) {
                    Some(event) => event,
                    None => continue,
                },
                () = sleep_until(begun, machine.next_timer()) => Event::TimePassed,
            },
        };
        let now = Tick(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        for effect in machine.step(now, event) {
            hands.carry_out(effect);
        }
        if let Some(exit) = hands.exit.take() {
            break exit;
        }
    };
    // Threads that report must find nobody listening before the runner waits for them.
    drop(ended);
    hands.goodbye().await;
    hands.outcome(exit)
}

/// A name that means nothing at the start is a mistake; later it is an outage.
async fn any_known(hubs: &[HubAddress]) -> Result<(), AgentError> {
    let mut unknown = None;
    for hub in hubs {
        match session::resolve(hub).await {
            Ok(_) => return Ok(()),
            Err(source) => {
                unknown.get_or_insert(AgentError::HostUnknown { hub: hub.clone(), source });
            }
        }
    }
    unknown.map_or(Ok(()), Err)
}

fn identity(
    config: &Config,
    devices: &[DeviceInfo],
    studio: Option<&Studio>,
    (agent, hubs): (AgentId, Hubs),
) -> Identity {
    let memory_bytes = config.memory_bytes.unwrap_or_else(host::memory_bytes);
    let cache_bytes_max = config.cache_bytes_max.unwrap_or_else(|| operand_bytes_max(memory_bytes));
    let hello = Hello {
        token: config.token.map(|token| token.secret),
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: slots_with(config.slots, devices),
        isa: config.isa.name().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        memory_bytes,
        kernels: studio.map(|studio| studio.encoder.kernels()).unwrap_or_default(),
        region: config.region.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let gpus = devices.iter().map(devices::offered).collect();
    Identity { agent, hello, gpus, cache_bytes_max, hubs }
}

async fn sleep_until(begun: Instant, timer: Option<Tick>) {
    match timer.and_then(|tick| begun.checked_add(Duration::from_millis(tick.0))) {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn random() -> Random {
    // Without randomness agents only lose their jitter.
    Random(getrandom::u64().unwrap_or(u64::MAX / 2))
}

/// What the effects act on.
struct Hands {
    target: Target,
    home: Home,
    hub_key: HubKey,
    inputs: mpsc::Sender<(SessionSerial, Said)>,
    runner: Runner,
    /// Of jobs of which a shard has started.
    programs: BTreeMap<JobId, Arc<Program>>,
    stored: Inputs,
    /// What the matrices of one job may take of memory. *Units*: bytes.
    panel_bytes_max: u64,
    lookers: mpsc::Sender<Looked>,
    /// Of the current session; what others say is not heard.
    serial: SessionSerial,
    session: Option<JoinHandle<()>>,
    link: Option<Link>,
    /// A fact that the shell itself made and that comes before all others.
    pending: Option<Event>,
    /// Why there is no session, as the provider was last told.
    reported: Option<String>,
    /// Why there is no session.
    trouble: Option<String>,
    exit: Option<Exit>,
}

impl Hands {
    /// What a session's task said, as an event; `None` when that session is no more.
    fn heard(&mut self, serial: SessionSerial, said: Said) -> Option<Event> {
        if serial != self.serial {
            return None;
        }
        Some(match said {
            Said::Reached(link) => {
                self.link = Some(link);
                Event::HubReached
            }
            Said::Event(event) => {
                if let Event::Welcomed(Welcome { lane, .. }) = event {
                    let hub = &self.target.hub;
                    tracing::info!("connected as {} on lane {lane} of {hub}", self.home.agent());
                    (self.reported, self.trouble) = (None, None);
                }
                event
            }
            Said::Over(trouble) => {
                self.trouble = Some(trouble.to_string());
                let over = self.over(self.link.is_some());
                match trouble {
                    Trouble::OtherKey(found) => Event::HubKeyDiffered { found: found.0, random: random() },
                    _ => over,
                }
            }
        })
    }

    /// The current session is no more.
    fn over(&mut self, reached: bool) -> Event {
        self.serial.0 += 1;
        self.link = None;
        self.session = None;
        match reached {
            true => Event::SessionLost { random: random() },
            false => Event::ConnectFailed { random: random() },
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { hub } => {
                self.target.hub = hub;
                let teller = Teller { serial: self.serial, inputs: self.inputs.clone() };
                self.session = Some(tokio::spawn(session::converse(self.target.clone(), teller)));
            }
            Effect::SendControl(message) => self.send(|link| link.control.push(&message)),
            Effect::SendWork(message) => self.send(|link| link.work.push(&message)),
            Effect::SendBulk { header, payload } => self.send(|link| link.send_bulk(&header, &payload)),
            Effect::StartShard { slot, work } => {
                let stored = &self.stored;
                let of_all = self.panel_bytes_max;
                let program = || Arc::new(Program::new(&work.task, |input| stored.get(input), of_all));
                let program = self.programs.entry(work.attempt.job).or_insert_with(program).clone();
                self.runner.begin(slot, work, program);
            }
            Effect::DropJob { job } => drop(self.programs.remove(&job)),
            Effect::StorePiece { fetch, input, offset, piece } => {
                if let Some(reading) = self.stored.reading(fetch, input, offset) {
                    let lookers = self.lookers.clone();
                    // Nobody listens once the program ends.
                    tokio::task::spawn_blocking(move || lookers.blocking_send(reading.look(&piece)));
                }
            }
            Effect::DropInput { input } => self.stored.drop_input(&input),
            Effect::AnnounceUnusable { job, reason } => {
                tracing::error!(%job, "its shards cannot be computed here: {reason}");
            }
            Effect::CancelShard { slot } => self.runner.cancel(slot),
            Effect::RememberHub => self.remember_hub(),
            Effect::RememberHubs { hubs } => self.remember_hubs(&hubs),
            Effect::AnnounceRetry { delay_ms } => self.announce_retry(delay_ms),
            Effect::CloseSession { reason } => self.close(reason),
            Effect::Exit { reason } => self.exit = Some(reason),
        }
    }

    fn send(&mut self, send: impl FnOnce(&Link) -> Result<(), Full>) {
        if let Some(Err(Full)) = self.link.as_ref().map(send) {
            self.pending = Some(Event::ProtocolBroken(tessera_agent_core::Violation::NotReading));
        }
    }

    fn close(&mut self, reason: Closing) {
        let code = if let Closing::Violated(_) = reason { CLOSE_PROTOCOL } else { CLOSE_DONE };
        if let Some(link) = &self.link {
            link.close(code, &reason.to_string());
        }
        self.trouble = Some(reason.to_string());
        if let Closing::Left = reason {
            return;
        }
        self.pending = Some(self.over(true));
    }

    fn remember_hub(&mut self) {
        let kept = match self.home.pinned() {
            Ok(Some(pinned)) if pinned == self.hub_key => Ok(()),
            _ => self.home.pin(self.hub_key),
        };
        if let Err(error) = kept {
            tracing::error!("{error}; the next start needs --token again");
        }
    }

    fn remember_hubs(&self, hubs: &[HubAddress]) {
        let named: Vec<String> = hubs.iter().map(ToString::to_string).collect();
        tracing::info!("the hub serves beside others; any of these will do: {}", named.join(", "));
        if let Err(error) = self.home.keep_hubs(hubs) {
            tracing::warn!("{error}; the next start knows only of the hubs that it is given");
        }
    }

    /// Says why and when, once for each reason in a row.
    fn announce_retry(&mut self, delay_ms: u64) {
        let trouble = self.trouble.take().unwrap_or_default();
        let (hub, seconds) = (&self.target.hub, Duration::from_millis(delay_ms).as_secs_f64());
        if self.reported.as_ref() == Some(&trouble) {
            tracing::debug!("{hub}: {trouble}; trying again in {seconds:.1} s");
        } else {
            tracing::warn!("{hub}: {trouble}; trying again in {seconds:.1} s, and then until a hub answers");
            self.reported = Some(trouble);
        }
    }

    /// Gives up what is under way and lets the last packet leave.
    async fn goodbye(&mut self) {
        if let Some(link) = self.link.take() {
            link.close(CLOSE_DONE, "");
            link.closed(GOODBYE_TIME_MAX).await;
        }
        if let Some(session) = self.session.take() {
            session.abort();
        }
    }

    fn outcome(&self, exit: Exit) -> Result<(), AgentError> {
        let hub = self.target.hub.clone();
        match exit {
            Exit::Stopped => {
                tracing::info!("stopped");
                Ok(())
            }
            Exit::Refused(refusal) => Err(AgentError::Refused { hub, refusal }),
            Exit::HubKeyDiffered { found } => {
                Err(AgentError::HubKeyDiffered { hub, pinned: self.hub_key, found: HubKey(found) })
            }
        }
    }
}
