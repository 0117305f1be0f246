//! One session: finding the hub, the handshake, the streams.
//!
//! Owns the tasks that read; turns bytes into events. Nothing but the control stream is read before the
//! hub's welcome, no more than the protocol's limits are ever held, and what breaks the protocol becomes
//! an event like any other.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, ReadError, ReadExactError,
    ReadToEndError, RecvStream, SendStream, WriteError,
};
use tessera_agent_core::{Event, Violation};
use tessera_protocol::address::HubAddress;
use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::wire::{self, BulkHeader, HubControl, HubWork, Message};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::outgoing::{Full, Outgoing};
use crate::tls::{HubKey, PinnedHub};

/// The name TLS asks for; the hub's key is what counts.
const SERVER_NAME: &str = "tessera-hub";
/// How long one address may take to answer: a few retransmissions of the first packet.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(8);
/// Head start of an address before the next is tried beside it. *Source*: RFC 8305, section 5.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Most bytes of large partials that wait for the hub: two of the largest. *Units*: bytes.
const BULK_QUEUE_BYTES_MAX: usize = 2 * limits::BULK_BYTES_MAX;

const CONTROL_PRIORITY: i32 = 2;
const WORK_PRIORITY: i32 = 1;
const BULK_PRIORITY: i32 = -1;

/// Numbers sessions, so that what a former one still says is known as such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionSerial(pub(crate) u64);

/// What a session's task tells the shell.
#[derive(Debug)]
pub(crate) enum Said {
    /// The handshake is done and the control stream open.
    Reached(Link),
    /// Something arrived.
    Event(Event),
    /// There is no session, or no longer.
    Over(Trouble),
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum Trouble {
    NoAddress(io::Error),
    Socket(io::Error),
    Connect(ConnectError),
    NoAnswer,
    OtherKey(HubKey),
    Lost(ConnectionError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoAddress(error) => write!(f, "the hub's name has no address: {error}"),
            Trouble::Socket(error) => write!(f, "no UDP socket: {error}"),
            Trouble::Connect(error) => write!(f, "cannot connect: {error}"),
            Trouble::NoAnswer => f.write_str("the hub does not answer"),
            Trouble::OtherKey(key) => write!(f, "the hub shows another key: {key}"),
            Trouble::Lost(ConnectionError::TimedOut) => f.write_str("nothing heard of the hub"),
            Trouble::Lost(ConnectionError::Reset) => f.write_str("the hub has restarted"),
            Trouble::Lost(ConnectionError::ApplicationClosed(close)) => {
                write!(
                    f,
                    "the hub closed the session: {}",
                    String::from_utf8_lossy(&close.reason).escape_debug()
                )
            }
            Trouble::Lost(error) => write!(f, "the session broke: {error}"),
        }
    }
}

/// What connecting needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) hub: HubAddress,
    pub(crate) client: ClientConfig,
    pub(crate) pinned: Arc<PinnedHub>,
}

/// The sending side of a session.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    connection: Connection,
    pub(crate) control: Arc<Outgoing>,
    pub(crate) work: Arc<Outgoing>,
    bulk_bytes: Arc<AtomicUsize>,
}

impl Link {
    /// Sends a payload on a stream of its own, as soon as the hub allows one.
    pub(crate) fn send_bulk(&self, header: &BulkHeader, payload: &[u8]) -> Result<(), Full> {
        let bytes = wire::bulk(header, payload);
        let waiting = self.bulk_bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting + bytes.len() > BULK_QUEUE_BYTES_MAX {
            return Err(Full);
        }
        self.bulk_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let (connection, bulk_bytes) = (self.connection.clone(), self.bulk_bytes.clone());
        tokio::spawn(async move {
            // A hub that stops the stream has forgotten the job; a lost session is reported by its readers.
            let _ = write_bulk(&connection, &bytes).await;
            bulk_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        });
        Ok(())
    }

    /// Says goodbye.
    pub(crate) fn close(&self, code: u32, words: &str) {
        self.connection.close(code.into(), words.as_bytes());
    }

    /// Waits until the goodbye is sent, or `time_max` has passed.
    pub(crate) async fn closed(&self, time_max: Duration) {
        // Past the time the hub learns of it by itself.
        let _ = tokio::time::timeout(time_max, self.endpoint.wait_idle()).await;
    }
}

async fn write_bulk(connection: &Connection, bytes: &[u8]) -> Result<(), WriteError> {
    let mut stream = connection.open_uni().await?;
    set_priority(&stream, BULK_PRIORITY);
    stream.write_all(bytes).await?;
    // Fails only on a stream that is over already.
    let _ = stream.finish();
    Ok(())
}

fn set_priority(stream: &SendStream, priority: i32) {
    // Fails only on a stream that is over, whose next write says so.
    let _ = stream.set_priority(priority);
}

/// Where events of a session go. When the shell is slow, readers wait, and QUIC makes the hub wait.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) serial: SessionSerial,
    pub(crate) inputs: mpsc::Sender<(SessionSerial, Said)>,
}

impl Teller {
    async fn say(&self, said: Said) {
        // Nobody listens once the program ends.
        let _ = self.inputs.send((self.serial, said)).await;
    }

    async fn broken(&self, violation: Violation) {
        self.say(Said::Event(Event::ProtocolBroken(violation))).await;
    }
}

/// All addresses of the hub.
pub(crate) async fn resolve(hub: &HubAddress) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((hub.host.as_str(), hub.port)).await?.take(ADDRESSES_MAX).collect();
    match found.is_empty() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok(found),
    }
}

/// Connects, says so, and reads until the session is over. Dropping it gives up.
pub(crate) async fn converse(target: Target, teller: Teller) {
    let trouble = match reach(&target).await {
        Ok((endpoint, connection)) => hold(endpoint, connection, &teller).await,
        Err(trouble) => trouble,
    };
    teller.say(Said::Over(trouble)).await;
}

/// The first address that completes a handshake.
async fn reach(target: &Target) -> Result<(Endpoint, Connection), Trouble> {
    let addresses = resolve(&target.hub).await.map_err(Trouble::NoAddress)?;
    let mut attempts = JoinSet::new();
    for (position, address) in (0u32..).zip(addresses) {
        let client = target.client.clone();
        attempts.spawn(async move {
            tokio::time::sleep(ADDRESS_HEAD_START * position).await;
            handshake(address, client).await
        });
    }
    let mut trouble = Trouble::NoAnswer;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(error)) => trouble = error,
            Err(_) => {}
        }
    }
    Err(target.pinned.take_other().map_or(trouble, Trouble::OtherKey))
}

async fn handshake(address: SocketAddr, client: ClientConfig) -> Result<(Endpoint, Connection), Trouble> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::client(any).map_err(Trouble::Socket)?;
    let connecting = endpoint.connect_with(client, address, SERVER_NAME).map_err(Trouble::Connect)?;
    match tokio::time::timeout(HANDSHAKE_TIME_MAX, connecting).await {
        Ok(connection) => Ok((endpoint, connection.map_err(Trouble::Lost)?)),
        Err(_) => Err(Trouble::NoAnswer),
    }
}

async fn hold(endpoint: Endpoint, connection: Connection, teller: &Teller) -> Trouble {
    let (mut control_out, control_in) = match connection.open_bi().await {
        Ok(streams) => streams,
        Err(error) => return Trouble::Lost(error),
    };
    set_priority(&control_out, CONTROL_PRIORITY);
    let (control, work) = (Arc::<Outgoing>::default(), Arc::<Outgoing>::default());
    let link = Link {
        endpoint,
        connection: connection.clone(),
        control: control.clone(),
        work: work.clone(),
        bulk_bytes: Arc::default(),
    };
    teller.say(Said::Reached(link)).await;
    let welcomed = Notify::new();
    let conversation = async {
        tokio::join!(
            async {
                let error = control.write_to(&mut control_out).await;
                report_write(&error, teller).await;
            },
            read_control(control_in, &welcomed, teller),
            async {
                welcomed.notified().await;
                tokio::join!(work_stream(&connection, &work, teller), bulk_streams(&connection, teller));
            }
        )
    };
    tokio::select! {
        biased;
        _ = conversation => Trouble::Lost(connection.closed().await),
        error = connection.closed() => Trouble::Lost(error),
    }
}

async fn report_write(error: &WriteError, teller: &Teller) {
    if let WriteError::Stopped(_) = error {
        teller.broken(Violation::Stream).await;
    }
}

async fn read_control(mut stream: RecvStream, welcomed: &Notify, teller: &Teller) {
    let mut body = Vec::new();
    while let Some(message) =
        next_frame(&mut stream, &mut body, limits::CONTROL_FRAME_BYTES_MAX, teller).await
    {
        let event = match message {
            HubControl::Welcome(welcome) => {
                welcomed.notify_one();
                Event::Welcomed(welcome)
            }
            HubControl::Refused { reason } => Event::Refused(reason),
            HubControl::Draining => Event::HubDrained,
            HubControl::Hubs { addresses } => Event::HubsTold { addresses },
            HubControl::Move { to } => Event::HubMoved { to },
        };
        teller.say(Said::Event(event)).await;
    }
}

async fn work_stream(connection: &Connection, work: &Outgoing, teller: &Teller) {
    let Ok((mut work_out, mut work_in)) = connection.accept_bi().await else { return };
    set_priority(&work_out, WORK_PRIORITY);
    let write = async {
        let error = work.write_to(&mut work_out).await;
        report_write(&error, teller).await;
    };
    let read = async {
        let mut body = Vec::new();
        while let Some(message) =
            next_frame(&mut work_in, &mut body, limits::WORK_FRAME_BYTES_MAX, teller).await
        {
            teller.say(Said::Event(work_event(message))).await;
        }
    };
    tokio::join!(write, read);
}

fn work_event(message: HubWork) -> Event {
    match message {
        HubWork::Job { job, kernel, task } => Event::JobAnnounced { job: JobId(job), kernel, task },
        HubWork::Assign { job, items } => Event::ShardsAssigned { job: JobId(job), items },
        HubWork::Forget { job } => Event::JobForgotten { job: JobId(job) },
        HubWork::Pass { job, pass } => Event::PassSet { job: JobId(job), pass },
        HubWork::InputUnavailable { job, input } => Event::InputUnavailable { job: JobId(job), input },
    }
}

/// The next message; `None` when there is none to come, and what was wrong has been told.
async fn next_frame<M: Message>(
    stream: &mut RecvStream,
    body: &mut Vec<u8>,
    bytes_max: usize,
    teller: &Teller,
) -> Option<M> {
    let violation = match read_frame(stream, body, bytes_max).await {
        Ok(()) => match M::read(body) {
            Ok(message) => return Some(message),
            Err(error) => Violation::Frame(error),
        },
        Err(Some(violation)) => violation,
        Err(None) => return None,
    };
    teller.broken(violation).await;
    None
}

/// Reads one frame's body. The error is `None` when the whole session is over.
async fn read_frame(
    stream: &mut RecvStream,
    body: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), Option<Violation>> {
    let ended = |error| match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(_)) => None,
        ReadExactError::FinishedEarly(_) | ReadExactError::ReadError(_) => Some(Violation::Stream),
    };
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(ended)?;
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if bytes == 0 || bytes > bytes_max {
        return Err(Some(Violation::FrameSize { bytes, bytes_max }));
    }
    body.clear();
    body.resize(bytes, 0);
    stream.read_exact(body).await.map_err(ended)
}

/// Reads payloads, several at once: QUIC lets the hub open no more than a few.
async fn bulk_streams(connection: &Connection, teller: &Teller) {
    while let Ok(stream) = connection.accept_uni().await {
        let teller = teller.clone();
        tokio::spawn(async move {
            match read_bulk(stream).await {
                Ok(event) => teller.say(Said::Event(event)).await,
                Err(Some(violation)) => teller.broken(violation).await,
                Err(None) => {}
            }
        });
    }
}

/// Reads a whole payload. The error is `None` when the whole session is over.
async fn read_bulk(mut stream: RecvStream) -> Result<Event, Option<Violation>> {
    let bytes = stream.read_to_end(limits::BULK_BYTES_MAX).await.map_err(|error| match error {
        ReadToEndError::TooLong => Some(Violation::BulkTooLarge),
        ReadToEndError::Read(ReadError::ConnectionLost(_)) => None,
        ReadToEndError::Read(_) => Some(Violation::BulkBroken),
    })?;
    match wire::read_bulk(&bytes) {
        Ok((BulkHeader::Task { job }, task)) => {
            Ok(Event::TaskArrived { job: JobId(job), task: task.to_vec() })
        }
        Ok((BulkHeader::Input { job, input, offset }, piece)) => {
            Ok(Event::PieceArrived { job: JobId(job), input, offset, piece: piece.to_vec() })
        }
        Ok((BulkHeader::Partial { .. }, _)) => Err(Some(Violation::BulkMisdirected)),
        Err(error) => Err(Some(Violation::Frame(error))),
    }
}
