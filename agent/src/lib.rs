//! The provider's side: one agent that connects to a hub and computes shards for it.
//!
//! Owns the shell around [`tessera_agent_core`]: sockets, files, threads, the clock. It decides nothing:
//! every decision is the machine's.
#![forbid(unsafe_code)]

mod cache;
mod config;
mod devices;
mod error;
mod executor;
mod home;
mod host;
mod inputs;
mod leaves;
#[cfg(feature = "liar")]
mod lie;
mod outgoing;
mod program;
mod runner;
mod session;
mod shell;
mod studio;
mod tls;
mod work_log;

use std::future::Future;

use tessera_protocol::id::AgentId;
use tessera_protocol::limits;

pub use config::Config;
pub use devices::{GpuChoice, ParseGpuChoiceError};
pub use error::AgentError;
pub use home::HomeError;
pub use host::{host_name, slots_available};
pub use tessera_protocol::address::{HubAddress, ParseHubAddressError};
pub use tls::HubKey;

use home::Home;

/// An agent whose data directory is open and whose hub is known; it has not connected yet.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    home: Home,
    hub_key: HubKey,
}

impl Agent {
    /// Checks the configuration, opens the data directory and makes the identity if there is none.
    pub fn open(config: Config) -> Result<Agent, AgentError> {
        if config.slots == 0 || config.slots > limits::SLOTS_MAX {
            return Err(AgentError::Slots { slots: config.slots });
        }
        if config.hubs.is_empty() || config.hubs.len() > limits::HUBS_MAX {
            return Err(AgentError::Hubs { hubs: config.hubs.len() });
        }
        if config.name.len() > limits::NAME_BYTES_MAX {
            return Err(AgentError::NameTooLong { bytes: config.name.len() });
        }
        let home = Home::open(&config.data)?;
        let hub_key = match (home.pinned()?, config.token.map(|token| HubKey(token.hub_key))) {
            (Some(pinned), Some(token)) if pinned != token => {
                return Err(AgentError::TokenOfAnotherHub { pinned, token, pin_file: home.pin_file() });
            }
            (Some(pinned), _) => pinned,
            (None, Some(token)) => token,
            (None, None) => return Err(AgentError::HubKeyMissing { data: config.data }),
        };
        Ok(Agent { config, home, hub_key })
    }

    /// The id by which the hub knows this agent.
    pub fn id(&self) -> AgentId {
        self.home.agent()
    }

    /// The hub's key, as lower-case hex: what the agent insists on.
    pub fn hub_key(&self) -> String {
        self.hub_key.to_string()
    }

    /// What it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Works until `shutdown` is ready, then leaves: tells the hub, finishes what is in flight within
    /// ten seconds. Blocks the calling thread, which must not be inside an asynchronous runtime.
    pub fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| AgentError::System { what: "an event loop", source })?;
        runtime.block_on(shell::run(self.config, self.home, self.hub_key, shutdown))
    }
}

/// [`Agent::open`], then [`Agent::run`].
pub fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    Agent::open(config)?.run(shutdown)
}
