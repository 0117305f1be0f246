//! What an agent's shell is told to do: orders, in the imperative.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use tessera_protocol::address::HubAddress;
use tessera_protocol::id::JobId;
use tessera_protocol::wire::{AgentControl, AgentWork, BulkHeader, Refusal};

use crate::attempt::{Attempt, SlotIndex};
use crate::task::{InputFile, Task, Unusable};
use crate::violation::Violation;

/// Numbers fetches, so that what is said of a former one is known as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchSerial(pub u64);

/// One order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Connect to a hub; answer with `HubReached`, `ConnectFailed` or `HubKeyDiffered`.
    Connect {
        /// Where it is.
        hub: HubAddress,
    },
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
    /// Drop what was kept for the shards of a job: none of them starts any more, or not before its operands
    /// are there again.
    DropJob {
        /// The job.
        job: JobId,
    },
    /// Take a piece of an input; answer with `PieceStored` or `InputRejected`. The piece at offset 0 is the
    /// first of a fetch, the others follow in order.
    StorePiece {
        /// Of which fetch.
        fetch: FetchSerial,
        /// Of which file.
        input: InputFile,
        /// Where the piece starts.
        offset: u64,
        /// The piece.
        piece: Vec<u8>,
    },
    /// Drop an input, or the part of it that came.
    DropInput {
        /// Which file.
        input: InputFile,
    },
    /// Tell the provider that the shards of a job cannot be computed here.
    AnnounceUnusable {
        /// The job.
        job: JobId,
        /// Why.
        reason: Unusable,
    },
    /// Keep the hub's key for later starts: the hub has taken this agent.
    RememberHub,
    /// Keep where hubs are for later starts, instead of what was kept before.
    RememberHubs {
        /// At most [`HUBS_MAX`](tessera_protocol::limits::HUBS_MAX).
        hubs: Vec<HubAddress>,
    },
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
    /// First sample; of a matrix job its block.
    pub first: u64,
    /// Number of samples; with `first` at most `u64::MAX`.
    pub count: u64,
    /// The task of its job.
    pub task: Arc<Task>,
    /// What to do with the samples besides; empty for the pass that every job starts with.
    pub pass: Arc<[u8]>,
}

/// Why the agent closes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The agent leaves; all it held is sent, or its time is up.
    Left,
    /// The hub is stopping and the agent holds nothing more.
    Drained,
    /// The hub sent the agent to another, and the agent holds nothing more.
    Moved,
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
            Closing::Moved => f.write_str("another hub has fewer agents"),
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
