//! What an agent's shell is told to do: orders, in the imperative.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tessera_protocol::monte_carlo::Task;
use tessera_protocol::wire::{AgentControl, AgentWork, BulkHeader, Refusal};

use crate::attempt::{Attempt, SlotIndex};
use crate::violation::Violation;

/// One order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Connect to the hub; answer with `HubReached`, `ConnectFailed` or `HubKeyDiffered`.
    Connect,
    /// Send on the control stream.
    SendControl(AgentControl),
    /// Send on the work stream.
    SendWork(AgentWork),
    /// Send a payload on a stream of its own.
    SendBulk {
        /// What it belongs to.
        header: BulkHeader,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Compute a shard; answer with `ShardEnded`.
    StartShard {
        /// Where; idle until now.
        slot: SlotIndex,
        /// What.
        work: ShardWork,
    },
    /// Make a slot stop; its `ShardEnded` still comes.
    CancelShard {
        /// The slot.
        slot: SlotIndex,
    },
    /// Keep the hub's key for later starts: the hub has taken this agent.
    RememberHub,
    /// Tell the provider that the next attempt comes after a while.
    AnnounceRetry {
        /// *Units*: milliseconds.
        delay_ms: u64,
    },
    /// Close the session, answer with `SessionLost` and let no other event of that session through.
    CloseSession {
        /// Why.
        reason: Closing,
    },
    /// End the program; nothing follows.
    Exit {
        /// Why.
        reason: Exit,
    },
}

/// A shard to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardWork {
    /// The attempt.
    pub attempt: Attempt,
    /// First sample.
    pub first: u64,
    /// Number of samples; with `first` at most `u64::MAX`.
    pub count: u64,
    /// The task of its job.
    pub task: Arc<Task>,
}

/// Why the agent closes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The agent leaves; all it held is sent, or its time is up.
    Left,
    /// The hub is stopping and the agent holds nothing more.
    Drained,
    /// The hub refused the agent.
    Refused(Refusal),
    /// The hub did not answer the hello in time.
    NoWelcome,
    /// The hub broke the protocol.
    Violated(Violation),
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closing::Left => f.write_str("the agent leaves"),
            Closing::Drained => f.write_str("the hub is stopping"),
            Closing::Refused(refusal) => refusal.fmt(f),
            Closing::NoWelcome => f.write_str("the hub did not answer the agent's hello"),
            Closing::Violated(violation) => violation.fmt(f),
        }
    }
}

/// Why the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The provider asked for it.
    Stopped,
    /// The hub refused the agent, and asking again would not help.
    Refused(Refusal),
    /// Whoever answers is not the pinned hub.
    HubKeyDiffered {
        /// The key it showed.
        found: [u8; 32],
    },
}
