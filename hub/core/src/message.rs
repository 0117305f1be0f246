//! What lanes say to each other. Delivered in order between any two lanes, never lost while both run.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use tessera_planners::Plan;
use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::spec::{Priority, Requirements};
use tessera_protocol::unit::{LaneIndex, ShardIndex, ShardRange, Tick};
use tessera_protocol::wire::ShardFailure;

use crate::Account;
use crate::fleet::Strength;
use crate::verifier::{Evidence, Party};

/// A message from one lane to another, or to itself.
#[derive(Clone, Debug, PartialEq)]
pub enum LaneMessage {
    /// Home → all: a job has shards to give.
    JobOpened {
        /// The job.
        job: JobId,
        /// What a lane needs to run them.
        work: Arc<Work>,
    },
    /// Lane → home: agents here could take this many shards.
    RangeWanted {
        /// The job.
        job: JobId,
        /// How many.
        count: u64,
    },
    /// Home → lane: these are yours; an empty range says there is nothing now.
    RangeGranted {
        /// The job.
        job: JobId,
        /// Which.
        range: ShardRange,
    },
    /// Home → lane: there is something again.
    WorkAppeared {
        /// The job.
        job: JobId,
    },
    /// Home → lane: run this one shard on an agent of your choice among those allowed.
    ErrandGranted {
        /// The job.
        job: JobId,
        /// What to run.
        errand: Errand,
    },
    /// Lane → home: no agent here may run it.
    ErrandReturned {
        /// The job.
        job: JobId,
        /// What was to run.
        errand: Errand,
    },
    /// Lane → home: nobody here is left to run these.
    ShardsReturned {
        /// The job.
        job: JobId,
        /// Which.
        ranges: Vec<ShardRange>,
    },
    /// Lane → home: agents say these are the partials.
    Claimed {
        /// The job.
        job: JobId,
        /// Attempts started since the last such message.
        attempts: u64,
        /// The partials, by agent.
        claims: Vec<Claims>,
    },
    /// Lane → home: an attempt ended without a partial.
    AttemptFailed {
        /// The job.
        job: JobId,
        /// By whom.
        agent: AgentId,
        /// Whom that agent belongs to.
        account: Account,
        /// Which shard, and who may try it next.
        errand: Errand,
        /// Why.
        cause: FailureCause,
    },
    /// Lane → home: an attempt takes far longer than others; a second one may be made.
    SpareWanted {
        /// The job.
        job: JobId,
        /// The second attempt.
        errand: Errand,
    },
    /// Home → lane: give this agent, when it is free, a shard that is final, to see what it answers.
    ProbeWanted {
        /// The job.
        job: JobId,
        /// The shard.
        index: ShardIndex,
        /// The agent.
        agent: AgentId,
    },
    /// Home → lane: the shard for which it wanted a second attempt is done.
    SpareSettled {
        /// The job.
        job: JobId,
        /// The shard.
        index: ShardIndex,
    },
    /// Home → all: nearly all shards of the job's round are done.
    TailBegan {
        /// The job.
        job: JobId,
    },
    /// Home → all: what this agent failed at then passed elsewhere.
    AgentFaulted {
        /// The agent.
        agent: AgentId,
        /// When it failed.
        at: Tick,
    },
    /// Home → all: this agent was proven wrong; what it answered and is not final does not count.
    AgentRefuted {
        /// Which.
        agent: AgentId,
    },
    /// Home → registry: what checks said of agents.
    Judged {
        /// What, in order.
        judgements: Vec<Judgement>,
    },
    /// Lane → registry: an agent has a session here.
    AgentArrived {
        /// Which.
        agent: AgentId,
        /// Whom it belongs to.
        account: Account,
    },
    /// Registry → all: how far an agent is trusted from here on.
    StandingChanged {
        /// Which.
        agent: AgentId,
        /// How far.
        standing: Standing,
    },
    /// Home → all: stop and forget.
    JobClosed {
        /// The job.
        job: JobId,
    },
    /// Lane → all: how many agents take work here.
    LaneStanding(Strength),
    /// Lane → all: this agent has a session here now; an older one elsewhere is dead.
    AgentMoved {
        /// The agent.
        agent: AgentId,
    },
}

/// What a check said of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The agent.
    pub agent: AgentId,
    /// Whom it belongs to.
    pub account: Account,
    /// What proves it wrong; nothing where it was right.
    pub proof: Option<Proof>,
}

/// A job, and what agents said about one of its shards.
pub type Proof = (JobId, Evidence);

impl Judgement {
    /// What a check said of who answered.
    pub fn new(party: Party, proof: Option<Proof>) -> Judgement {
        Judgement { agent: party.agent, account: party.account, proof }
    }
}

/// What a lane needs to run a job's shards.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The cut and the task.
    pub plan: Plan,
    /// Which queue.
    pub priority: Priority,
    /// The lane that owns the job.
    pub home: LaneIndex,
    /// The longest partial it can have. *Units*: bytes.
    pub partial_bytes_max: usize,
    /// Whose turn it is is decided among projects.
    pub project: Arc<str>,
    /// The project's share of a lane against that of others, at least one: what it pays may raise it.
    pub weight: u32,
    /// When it must be done.
    pub deadline: Option<Tick>,
    /// What its agents must be besides.
    pub requirements: Requirements,
}

/// What an answer was computed on: two answers from different ones share fewer causes of error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Instruction set of the kernels.
    pub isa: Arc<str>,
    /// Whether some shards are computed on a GPU.
    pub gpu: bool,
}

/// One shard to be run on an agent that is not among some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errand {
    /// The shard.
    pub index: ShardIndex,
    /// Agents that must not run it: they answered already, or failed.
    pub avoid: Vec<AgentId>,
    /// Who may run it besides.
    pub who: Who,
    /// What it should not run on if there is a choice: what the claim that it checks was computed on.
    pub unlike: Option<Device>,
    /// Lanes that had nobody for it.
    pub tried: Vec<LaneIndex>,
    /// Whether another attempt is live, so that nothing is lost when this one is.
    pub spare: bool,
    /// Whether a lane that had nobody has somebody who is busy: nothing may be given up.
    pub busy: bool,
}

/// Who may run an errand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Any agent that takes work.
    #[default]
    Anyone,
    /// Any agent that takes work and is of none of these providers; if there is none, anyone.
    Others {
        /// Those that were tried.
        not_of: Vec<ProviderId>,
    },
    /// Whoever is past quarantine and of none of these providers, the operator's own agents always.
    Checker {
        /// Those whose claims it checks.
        independent_of: Vec<ProviderId>,
        /// Whether it must be trusted, since the claim is a newcomer's.
        trusted: bool,
    },
    /// One of the operator's own agents.
    Anchor,
}

impl Who {
    /// Whether an agent may.
    pub fn permits(&self, account: Account, standing: Standing) -> bool {
        let excluded: &[ProviderId] = match self {
            Who::Others { not_of } => not_of,
            Who::Checker { independent_of, .. } if !account.anchor => independent_of,
            Who::Anyone | Who::Checker { .. } | Who::Anchor => &[],
        };
        self.suits(account.anchor, standing) && !excluded.contains(&account.provider)
    }

    /// Whether agents that stand so may, whichever provider they are of. `anchor`: the operator's own.
    pub fn suits(&self, anchor: bool, standing: Standing) -> bool {
        match self {
            Who::Anyone | Who::Others { .. } => standing > Standing::Removed,
            Who::Checker { .. } if anchor => standing > Standing::Sandboxed,
            Who::Checker { trusted: true, .. } => standing >= Standing::Trusted,
            Who::Checker { trusted: false, .. } => standing >= Standing::Probation,
            Who::Anchor => anchor && standing > Standing::Sandboxed,
        }
    }
}

impl Errand {
    /// An errand that no lane was asked for yet.
    pub fn new(index: ShardIndex, avoid: Vec<AgentId>) -> Errand {
        Errand { index, avoid, who: Who::Anyone, unlike: None, tried: Vec::new(), spare: false, busy: false }
    }

    /// Whether an agent may run it.
    pub fn permits(&self, agent: AgentId, account: Account, standing: Standing) -> bool {
        !self.avoid.contains(&agent) && self.who.permits(account, standing)
    }
}

/// What one agent claims at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who computed it.
    pub agent: AgentId,
    /// Whom that agent belongs to.
    pub account: Account,
    /// How far it was trusted when it answered.
    pub standing: Standing,
    /// What it computes on.
    pub device: Device,
    /// Its partials, in the order in which they came.
    pub partials: Vec<Claim>,
}

/// A partial as an agent claims it to be; nothing is believed yet but that the bytes have this digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The shard.
    pub index: ShardIndex,
    /// Whether it is of a second attempt beside a slow one.
    pub spare: bool,
    /// BLAKE3 of the bytes, computed by the hub.
    pub digest: Digest,
    /// The bytes. They may keep all of what they came in alive.
    pub partial: Bytes,
}

/// Why an attempt ended without a partial that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The agent said so.
    Reported(ShardFailure),
    /// The bytes do not have the digest that came with them.
    DigestMismatch,
    /// The bytes are not a partial of this shard.
    NotAPartial,
    /// The agent was lost while it may have been computing.
    Lost(Loss),
}

/// How an agent was lost to a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its session ended.
    Gone,
    /// Nothing was heard of it for a lease.
    Silent,
    /// It computed for longer than any agent may.
    Overran,
}
