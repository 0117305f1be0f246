//! What a lane's sessions report and answer: ids, facts, reasons, refusals.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::PublicKey;

/// One session of one lane; never used again after the session has closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(super) serial: u32,
    pub(super) slot: u32,
}

impl SessionId {
    /// Its name as one number, for who does not know sessions.
    pub fn to_bits(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.slot)
    }

    /// Its place among the sessions of its lane, which are counted from zero; another's once it has closed.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// The session of such a number; one that never was is like one that has closed.
    pub fn from_bits(bits: u64) -> SessionId {
        SessionId { serial: (bits >> 32) as u32, slot: bits as u32 }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.serial)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that happened to a session. *Order*: `Opened` first, `Closed` last and exactly once,
/// frames of one stream as they were sent.
///
/// The bytes of frames are slices of received packets: copy what is kept beyond the turn, or a small
/// frame keeps 64 KiB alive.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// A handshake has completed; the key is proven, not yet judged.
    Opened {
        /// The new session.
        session: SessionId,
        /// The agent's key.
        key: PublicKey,
        /// Where it is now; it may move.
        remote: SocketAddr,
    },
    /// A frame body has arrived on the control stream.
    Control {
        /// Its session.
        session: SessionId,
        /// The body, its length prefix removed; never empty.
        frame: Bytes,
    },
    /// A frame body has arrived on the work stream.
    Work {
        /// Its session.
        session: SessionId,
        /// The body, its length prefix removed; never empty.
        frame: Bytes,
    },
    /// A bulk stream has arrived whole.
    Bulk {
        /// Its session.
        session: SessionId,
        /// All of the stream, its header included; never empty. Owned: safe to keep.
        bytes: Bytes,
    },
    /// The session has ended, whoever ended it.
    Closed {
        /// The session that was.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
}

impl SessionEvent {
    /// The session it happened to.
    pub fn session(&self) -> SessionId {
        match self {
            SessionEvent::Opened { session, .. }
            | SessionEvent::Control { session, .. }
            | SessionEvent::Work { session, .. }
            | SessionEvent::Bulk { session, .. }
            | SessionEvent::Closed { session, .. } => *session,
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The hub closed it, by [`Sessions::close`] or for a broken limit.
    ///
    /// [`Sessions::close`]: super::Sessions::close
    Hub {
        /// The code the agent is sent.
        code: CloseCode,
        /// The words the agent is sent.
        reason: String,
    },
    /// The agent closed it.
    Agent {
        /// The code it sent.
        code: u64,
        /// The words it sent.
        reason: String,
    },
    /// Nothing was heard for the idle time.
    Silent,
    /// The agent has forgotten the session, usually because it restarted.
    Reset,
    /// QUIC or TLS was broken by one side.
    Transport {
        /// The error as QUIC tells it.
        reason: String,
    },
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Hub { code, reason } => write!(f, "closed by the hub (code {}): {reason}", code.0),
            CloseReason::Agent { code, reason } => write!(f, "closed by the agent (code {code}): {reason}"),
            CloseReason::Silent => f.write_str("nothing heard for the idle time"),
            CloseReason::Reset => f.write_str("the agent has forgotten the session"),
            CloseReason::Transport { reason } => write!(f, "transport error: {reason}"),
        }
    }
}

/// The application error code that tells an agent why its session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u32);

impl CloseCode {
    /// All is said; nothing went wrong.
    pub const DONE: CloseCode = CloseCode(0);
    /// The hub is stopping; come back later.
    pub const STOPPING: CloseCode = CloseCode(1);
    /// The streams were not used as the protocol says.
    pub const PROTOCOL: CloseCode = CloseCode(2);
    /// A frame or bulk stream is larger than allowed.
    pub const TOO_LARGE: CloseCode = CloseCode(3);
    /// The session holds more unfinished bytes at the hub than allowed.
    pub const TOO_MUCH: CloseCode = CloseCode(4);
    /// The hub did not get to accept the session in time, or the agent did not ask.
    pub const TOO_LATE: CloseCode = CloseCode(5);
    /// The agent may not work here.
    pub const REFUSED: CloseCode = CloseCode(6);
    /// The same agent has opened a newer session.
    pub const REPLACED: CloseCode = CloseCode(7);
}

/// Why something could not be sent. Nothing of it has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The session has ended.
    Closed,
    /// The work stream opens with [`Sessions::accept`], which has not happened.
    ///
    /// [`Sessions::accept`]: super::Sessions::accept
    NotAccepted,
    /// It is empty or larger than its stream allows; it can never be sent.
    Size {
        /// What was offered.
        bytes: usize,
        /// What its stream allows.
        bytes_max: usize,
    },
    /// The session's queue is full: keep it and offer it again in a later turn.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed => f.write_str("the session has ended"),
            SendError::NotAccepted => f.write_str("the session has not been accepted yet"),
            SendError::Size { bytes, bytes_max } => {
                write!(f, "{bytes} bytes cannot be sent: 1 to {bytes_max} are allowed")
            }
            SendError::Full => f.write_str("the session's queue is full: offer it again later"),
        }
    }
}

impl std::error::Error for SendError {}

/// Why a session could not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The session has ended.
    Closed,
    /// It was accepted before.
    Twice,
    /// The agent allows the hub no work stream; the session has been closed.
    NoWorkStream,
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AcceptError::Closed => "the session has ended",
            AcceptError::Twice => "the session was accepted before",
            AcceptError::NoWorkStream => "the agent allows the hub no work stream",
        })
    }
}

impl std::error::Error for AcceptError {}
