//! Why an agent ends other than by being asked to. Each text says what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tessera_protocol::address::HubAddress;
use tessera_protocol::limits;
use tessera_protocol::wire::Refusal;

use crate::home::HomeError;
use crate::tls::HubKey;

/// Why an agent does not run, or runs no longer.
#[derive(Debug)]
pub enum AgentError {
    /// None or too many slots.
    Slots {
        /// What was asked for.
        slots: u16,
    },
    /// No hub, or more than [`limits::HUBS_MAX`].
    Hubs {
        /// How many were given.
        hubs: usize,
    },
    /// A name longer than [`limits::NAME_BYTES_MAX`].
    NameTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The data directory cannot be used.
    Home(HomeError),
    /// Neither a token nor an earlier session says which key the hub has.
    HubKeyMissing {
        /// The data directory.
        data: PathBuf,
    },
    /// The token is for another hub than the one this agent belongs to.
    TokenOfAnotherHub {
        /// The key kept in the data directory.
        pinned: HubKey,
        /// The key in the token.
        token: HubKey,
        /// Where the pinned key is kept.
        pin_file: PathBuf,
    },
    /// Whoever answers at the hub's address has another key than the pinned one.
    HubKeyDiffered {
        /// Where it answered.
        hub: HubAddress,
        /// The key the agent insists on.
        pinned: HubKey,
        /// The key that was shown.
        found: HubKey,
    },
    /// The hub refused the agent, and asking again would not help.
    Refused {
        /// Which hub.
        hub: HubAddress,
        /// Why.
        refusal: Refusal,
    },
    /// The hub's name has no address, nor has that of any other hub.
    HostUnknown {
        /// The name that was given first.
        hub: HubAddress,
        /// What the resolver said.
        source: io::Error,
    },
    /// The identity does not work with TLS.
    Tls(rustls::Error),
    /// The operating system gave no thread, no event loop or no file.
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl AgentError {
    /// The exit code of the program: 3 when the hub turned the agent away, 4 when it is not the pinned
    /// hub, else 1. Wrong usage is 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            AgentError::Refused { .. } => 3,
            AgentError::HubKeyDiffered { .. } | AgentError::TokenOfAnotherHub { .. } => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentError::Slots { slots } => write!(f, "{slots} slots: 1 to {} are allowed", limits::SLOTS_MAX),
            AgentError::Hubs { hubs } => write!(f, "{hubs} hubs: 1 to {} are allowed", limits::HUBS_MAX),
            AgentError::NameTooLong { bytes } => {
                write!(f, "a name of {bytes} bytes: at most {} are allowed", limits::NAME_BYTES_MAX)
            }
            AgentError::Home(error) => error.fmt(f),
            AgentError::HubKeyMissing { data } => write!(
                f,
                "no hub is known in {}: enrol once with --token TOKEN, which the hub's operator makes with `tessera agent token`",
                data.display()
            ),
            AgentError::TokenOfAnotherHub { pinned, token, pin_file } => write!(
                f,
                "the token is for the hub with key {token}, but this agent belongs to the hub with key {pinned}: \
                 use another --data directory for another hub, or remove {} if the hub has a new key",
                pin_file.display()
            ),
            AgentError::HubKeyDiffered { hub, pinned, found } => write!(
                f,
                "{hub} shows the key {found}, but the agent insists on {pinned}: check the address; \
                 if the hub has a new key, enrol again with a new token and an empty --data directory"
            ),
            AgentError::Refused { hub, refusal } => write!(f, "{hub} refused this agent: {refusal}"),
            AgentError::HostUnknown { hub, source } => write!(f, "no address for {hub}: {source}"),
            AgentError::Tls(source) => write!(f, "TLS does not take the agent's identity: {source}"),
            AgentError::System { what, source } => write!(f, "the operating system gave no {what}: {source}"),
        }
    }
}

impl std::error::Error for AgentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AgentError::Home(error) => Some(error),
            AgentError::HostUnknown { source, .. } | AgentError::System { source, .. } => Some(source),
            AgentError::Tls(source) => Some(source),
            _ => None,
        }
    }
}

impl From<HomeError> for AgentError {
    fn from(error: HomeError) -> AgentError {
        AgentError::Home(error)
    }
}
