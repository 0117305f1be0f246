//! What can happen to an agent: facts, in the past tense.

use alloc::string::String;
use alloc::vec::Vec;

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::wire::{Assignment, Refusal, ShardFailure, Welcome};

use crate::attempt::SlotIndex;
use crate::effect::FetchSerial;
use crate::violation::Violation;

/// A uniform random number from the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random(pub u64);

/// One fact. *Order*: `Started` first; those about a session between its `HubReached` and `SessionLost`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The program runs.
    Started,
    /// The handshake has completed and the control stream is open.
    HubReached,
    /// No session came of a connection attempt.
    ConnectFailed {
        /// Jitter of the next wait.
        random: Random,
    },
    /// Whoever answered has another key than the pinned one.
    HubKeyDiffered {
        /// The key it showed.
        found: [u8; 32],
        /// Jitter of the next wait, where there are other hubs.
        random: Random,
    },
    /// The hub has judged this agent and takes it.
    Welcomed(Welcome),
    /// The hub turned this agent away.
    Refused(Refusal),
    /// The hub said that it is stopping.
    HubDrained,
    /// The hub said where all hubs are that serve from its store.
    HubsTold {
        /// As it wrote them.
        addresses: Vec<String>,
    },
    /// The hub said that another hub needs the agent more.
    HubMoved {
        /// Where that is, as it wrote it.
        to: String,
    },
    /// A job was announced.
    JobAnnounced {
        /// The job.
        job: JobId,
        /// Which kernel runs it.
        kernel: String,
        /// Its task, or `None` when it comes as [`Event::TaskArrived`], before or after this.
        task: Option<Vec<u8>>,
    },
    /// A task came on a stream of its own.
    TaskArrived {
        /// The job.
        job: JobId,
        /// The task.
        task: Vec<u8>,
    },
    /// What to do with the samples of a job's later shards, besides its task.
    PassSet {
        /// The job.
        job: JobId,
        /// The kernel's pass.
        pass: Vec<u8>,
    },
    /// A piece of an input came on a stream of its own.
    PieceArrived {
        /// The job in whose name it was asked for.
        job: JobId,
        /// The input's position in its task.
        input: u32,
        /// Where the piece starts.
        offset: u64,
        /// The piece.
        piece: Vec<u8>,
    },
    /// The hub cannot send an input.
    InputUnavailable {
        /// The job in whose name it was asked for.
        job: JobId,
        /// The input's position in its task.
        input: u32,
    },
    /// A piece was taken by the shell; when it was the last, its input is of use.
    PieceStored {
        /// Of which fetch.
        fetch: FetchSerial,
    },
    /// The bytes that came are not those of the input, or not a matrix. The provider has been told.
    InputRejected {
        /// Of which fetch.
        fetch: FetchSerial,
    },
    /// Shards were assigned.
    ShardsAssigned {
        /// Their job.
        job: JobId,
        /// The attempts.
        items: Vec<Assignment>,
    },
    /// The hub wants to hear no more of a job.
    JobForgotten {
        /// The job.
        job: JobId,
    },
    /// A slot stopped computing.
    ShardEnded {
        /// The slot.
        slot: SlotIndex,
        /// What came of it.
        outcome: Outcome,
    },
    /// Something arrived that the protocol does not allow.
    ProtocolBroken(Violation),
    /// The session is over, whoever ended it. After `CloseSession` this must follow.
    SessionLost {
        /// Jitter of the next wait.
        random: Random,
    },
    /// The provider asked the program to end.
    StopRequested,
    /// The moment of [`next_timer`](crate::Machine::next_timer) has come.
    TimePassed,
}

/// What came of computing a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A partial.
    Done {
        /// Its bytes.
        partial: Vec<u8>,
        /// Their digest.
        digest: Digest,
        /// Time in the kernel. *Units*: microseconds.
        kernel_us: u32,
    },
    /// The kernel could not.
    Failed(ShardFailure),
    /// It was told to stop.
    Stopped,
}
