//! What the hub writes down: the records that recovery replays.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_planners::{Plan, Round};
use tessera_protocol::api::JobView;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::Manifest;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{ShardIndex, UnixMillis};

use crate::ledger::{Charges, Earnings};
use crate::message::Proof;
use crate::ranges::Ranges;
use crate::standing::{Change, StandingRecord};

/// A job as it enters the machine: parsed, checked, planned and named.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// What it computes.
    pub manifest: Manifest,
    /// How it is cut.
    pub plan: Plan,
    /// When it was submitted.
    pub created: UnixMillis,
    /// The job it extends, and the tally of that job's paths.
    pub base: Option<Base>,
    /// The client's key that makes a retry harmless; scoped to the project.
    pub idempotency_key: Option<String>,
}

/// What an extended job starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Base {
    /// The finished job.
    pub job: JobId,
    /// The tally of all its paths.
    pub tally: Tally,
}

/// What of a job is verified and reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// The shards.
    pub done: Ranges,
    /// What those of the pass add up to, the base included; nothing where results are tiles.
    pub tally: Option<Arc<Tally>>,
    /// The tallies of complete passes.
    pub earlier: Vec<Arc<Tally>>,
    /// Counters of the view at that moment.
    pub view: JobView,
    /// The plan that the last shards are of.
    pub plan: Digest,
    /// The round it plans.
    pub round: Round,
    /// The products of its shards that are done; empty where results are tallies or tiles.
    pub products: BTreeMap<ShardIndex, ProductRef>,
    /// What was paid for those shards and no others.
    pub bill: Charges,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a result.
    Done {
        /// The result document.
        result: Arc<[u8]>,
        /// What it was made from.
        kept: Kept,
    },
    /// Without one; the view says why.
    Failed,
    /// Stopped by its client.
    Cancelled,
}

/// What a result was made from, and is kept beside it.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// The tally of its samples, for extension.
    Tally(Arc<Tally>),
    /// The cut of its tiles, which lie in the store.
    Tiles(Arc<matrix::Task>),
    /// Products, which lie in the store under the digests that the result names.
    Products,
}

/// One durable fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A job is promised to its client.
    JobAccepted {
        /// The job.
        job: Arc<NewJob>,
        /// How it looks at acceptance.
        view: Box<JobView>,
    },
    /// Some of its shards need not be computed again.
    JobProgressed {
        /// The job.
        job: JobId,
        /// What is done.
        progress: Box<Progress>,
    },
    /// A tile of its result is finished.
    TileReduced {
        /// The job.
        job: JobId,
        /// The plan that the tile is of.
        plan: Digest,
        /// The tile's position.
        tile: u64,
        /// Its elements by rows, little-endian.
        bytes: Arc<[u8]>,
        /// Who is paid for its shards.
        earned: Earnings,
    },
    /// It ended; nothing about it changes any more.
    JobEnded {
        /// The job.
        job: JobId,
        /// How it looks from now on.
        view: Box<JobView>,
        /// What came out.
        outcome: Outcome,
        /// What it cost, and who was paid.
        bill: Box<Charges>,
    },
    /// Agents said different things about a shard, and nothing could be believed.
    Disputed(Proof),
    /// How far agents are trusted, and why.
    StandingsChanged {
        /// Those that changed.
        agents: Vec<StandingRecord>,
        /// Which of them are trusted more or less than before, and why.
        changes: Vec<Change>,
        /// What proved some of them wrong.
        proofs: Vec<Proof>,
        /// When.
        at: UnixMillis,
    },
}
