//! What the hub writes down: the records that recovery replays.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_planners::{Plan, Round};
use tessera_protocol::api::JobView;
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::matrix;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::Manifest;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{ShardIndex, UnixMillis};

use crate::ledger::{Charges, Payment};
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
    /// Its shards that rest on the word of an agent proven wrong: so does all that begins with them.
    pub tainted: u64,
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

/// A panel of a tile that was kept outside of the store when the hub stopped, while others of the tile were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPanel {
    /// The plan that the shard is of.
    pub plan: Digest,
    /// Its shard.
    pub index: ShardIndex,
    /// Who is paid for it once the tile is durable.
    pub paid: Vec<Payment>,
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

/// What became of an agent's answers to a job when the agent was proven wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Shards that are computed again.
    pub shards: u64,
    /// Shards of the result that it alone answered, and that cannot be taken out.
    pub tainted: u64,
}

/// What of a job's result nobody checked: kept, as whoever answered it may be proven wrong long after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unchecked {
    /// Tainted shards of the job it extends that are counted in its own.
    pub inherited: u64,
    /// Shards that rest on the word of one agent alone, by that agent.
    pub alone: BTreeMap<AgentId, u64>,
}

impl Unchecked {
    /// Takes out what proves to be tainted: shards that rest on one of the `proven` wrong, and what more of the job
    /// it extends is. *Shape*: agents and their shards, which the audit log is told; then all tainted shards to add.
    pub fn taint(&mut self, base: u64, proven: impl Fn(&AgentId) -> bool) -> (Vec<(AgentId, u64)>, u64) {
        let mut theirs = Vec::new();
        self.alone.retain(|agent, shards| {
            let is_proven = proven(agent);
            theirs.extend(is_proven.then_some((*agent, *shards)));
            !is_proven
        });
        let more = base.saturating_sub(self.inherited);
        self.inherited += more;
        let sum = theirs.iter().map(|(_, shards)| shards).sum::<u64>() + more;
        (theirs, sum)
    }
}

/// Who said something else than what is believed.
pub fn refuted_by((_, evidence): &Proof) -> impl Iterator<Item = (AgentId, ProviderId)> {
    let wrong = evidence.answers.iter().filter(|(.., digest)| Some(*digest) != evidence.believed);
    wrong.map(|(agent, account, _)| (*agent, account.provider))
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
        earned: Vec<Payment>,
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
        /// What of its result nobody checked.
        unchecked: Unchecked,
    },
    /// Agents said different things about a shard, and nothing could be believed.
    Disputed(Proof),
    /// An agent was proven wrong, and a job had answers of it.
    Recalled {
        /// The job.
        job: JobId,
        /// The agent.
        agent: AgentId,
        /// What became of them.
        recalled: Recalled,
    },
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
