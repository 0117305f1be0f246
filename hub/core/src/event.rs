//! What happened, as a lane hears of it. Facts in the past tense; who has read this file and
//! `effect.rs` has read the product.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::unit::{Epoch, LaneIndex, ShardIndex};
use tessera_protocol::wire::{Gpu, Held, Hello, ShardFailure};

use crate::record::KeptPanel;
use crate::standing::StandingRecord;
use crate::{Account, BatchId, LaneMessage, NewJob, Progress, RequestId, SessionId};

/// A fact.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants a job; its home is this lane.
    JobSubmitted {
        /// Who waits for the answer.
        request: RequestId,
        /// The job.
        job: Arc<NewJob>,
    },
    /// A client wants a job stopped; its home is this lane.
    CancelRequested {
        /// Who waits for the answer.
        request: RequestId,
        /// The job.
        job: JobId,
    },
    /// Somebody wants to know why a job waits or where it runs, as this lane sees it.
    JobExplanationRequested {
        /// Who waits for the answer.
        request: RequestId,
        /// The job.
        job: JobId,
    },
    /// Somebody wants to know what is thought of an agent, as this lane sees it.
    AgentExplanationRequested {
        /// Who waits for the answer.
        request: RequestId,
        /// The agent.
        agent: AgentId,
    },
    /// A record was read back after a restart; its job's home is this lane.
    JobRecovered {
        /// The job.
        job: Arc<NewJob>,
        /// What of it is done.
        progress: Option<Box<Progress>>,
        /// Panels of tiles that are not done.
        panels: Vec<KeptPanel>,
    },
    /// Standings were read back after a restart. *Order*: before the jobs.
    StandingsRecovered {
        /// Those of all lanes.
        agents: Arc<[StandingRecord]>,
    },
    /// Another hub may have judged an agent that comes to this one: what the store says of it. *Order*: before it is
    /// admitted. Every lane hears it.
    StandingRead {
        /// As the store has it.
        record: StandingRecord,
    },
    /// A batch is on disk.
    Committed {
        /// Which.
        batch: BatchId,
    },
    /// A batch was refused because its idempotency key made a job before.
    Conflicted {
        /// Which.
        batch: BatchId,
        /// That job.
        existing: JobId,
        /// Its manifest's digest.
        manifest: Digest,
    },
    /// A batch could not be written; nothing of it is on disk.
    CommitFailed {
        /// Which.
        batch: BatchId,
        /// Whether it breaks a limit of the store, so that trying again is in vain.
        too_large: bool,
    },
    /// The hub judged an agent's key: it may work.
    AgentAdmitted {
        /// Its session.
        session: SessionId,
        /// Who it is.
        agent: AgentId,
        /// Whom it belongs to.
        account: Account,
        /// What it offers.
        hello: Box<Hello>,
    },
    /// An agent computes some of its shards on these.
    DevicesOffered {
        /// Its session.
        session: SessionId,
        /// The GPUs.
        gpus: Vec<Gpu>,
    },
    /// An agent said it is alive and what it holds.
    HeartbeatArrived {
        /// Its session.
        session: SessionId,
        /// The attempts whose leases it renews.
        holding: Vec<Held>,
    },
    /// An agent will finish what it has and take nothing more.
    AgentLeaving {
        /// Its session.
        session: SessionId,
    },
    /// A session is over.
    SessionClosed {
        /// Which.
        session: SessionId,
    },
    /// An agent finished shards.
    ResultsArrived {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The shards.
        answers: Vec<ShardAnswer>,
    },
    /// A partial came on a stream of its own.
    PartialArrived {
        /// The session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The shard.
        index: ShardIndex,
        /// The attempt.
        epoch: Epoch,
        /// The bytes.
        partial: Bytes,
    },
    /// An agent wants a piece of an input of a job.
    InputWanted {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The input's position in the task.
        input: u32,
        /// Where the piece starts.
        offset: u64,
    },
    /// The tiles of a job were read in the order of its result file.
    Assembled {
        /// The job.
        job: JobId,
        /// BLAKE3 and length of that file; nothing when the store could not be read.
        output: Option<(Digest, u64)>,
    },
    /// A panel of a tile is kept, or cannot be.
    PanelKept {
        /// The job.
        job: JobId,
        /// The tile's position.
        tile: u64,
        /// Which panel.
        panel: u64,
        /// What became of it.
        fate: PanelFate,
    },
    /// What was kept of a tile is gone.
    TileLost {
        /// The job.
        job: JobId,
        /// The tile's position.
        tile: u64,
    },
    /// A product is durable under its digest, or could not be stored.
    ProductStored {
        /// The job.
        job: JobId,
        /// The shard whose product it is.
        index: ShardIndex,
        /// Whether it is there.
        stored: bool,
    },
    /// An agent could not compute a shard.
    ShardFailed {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The shard.
        index: ShardIndex,
        /// The attempt.
        epoch: Epoch,
        /// Why.
        failure: ShardFailure,
    },
    /// Another lane, or this one, said something.
    LaneSpoke {
        /// Which lane.
        from: LaneIndex,
        /// What.
        message: LaneMessage,
    },
    /// Time went by; a timer may be due.
    TimePassed,
    /// The hub is to stop.
    StopRequested,
}

/// What became of a panel that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelFate {
    /// It is in, and durable at the next checkpoint.
    Kept,
    /// The sum with it left the finite numbers.
    NotFinite,
    /// The disk takes nothing now.
    Refused,
}

/// One finished shard as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardAnswer {
    /// The shard.
    pub index: ShardIndex,
    /// The attempt.
    pub epoch: Epoch,
    /// Its partial.
    pub partial: Sent,
}

/// How the partial of a finished shard is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// With the word that the shard is finished.
    Here(Bytes),
    /// On a stream of its own. What the agent says its digest is.
    Elsewhere(Digest),
}
