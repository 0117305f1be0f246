//! What is to be done, as a lane orders it. Imperatives, carried out by the shell in order.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::{AgentView, JobView};
use tessera_protocol::explain::{AgentExplained, HomeExplained, LaneExplained};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::matrix;
use tessera_protocol::unit::{LaneIndex, ShardIndex, Tick};
use tessera_protocol::wire::{Assignment, Welcome};

use crate::admission::AdmissionError;
use crate::ledger::Payment;
use crate::message::Judgement;
use crate::record::Recalled;
use crate::standing::{Alarm, Change, registry_lane};
use crate::verifier::Evidence;
use crate::{BatchId, LaneMessage, Record, RequestId, SessionId};

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write a record; answer with `Committed`, `Conflicted` or `CommitFailed`.
    Persist {
        /// Names it.
        batch: BatchId,
        /// What to write.
        record: Record,
    },
    /// Tell a waiting client.
    Answer {
        /// Which.
        request: RequestId,
        /// What.
        answer: Answer,
    },
    /// Give a message to a lane's machine.
    TellLane {
        /// Which.
        lane: LaneIndex,
        /// What.
        message: LaneMessage,
    },
    /// Tell an agent the terms of its session.
    Welcome {
        /// Its session.
        session: SessionId,
        /// The terms.
        welcome: Welcome,
    },
    /// Tell an agent what a job's shards are made of.
    SendJob {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// Which kernel.
        kernel: Arc<str>,
        /// The kernel's task.
        task: Arc<[u8]>,
        /// Whether another task of the same job may follow, which must not overtake this one.
        ordered: bool,
    },
    /// Tell an agent what is done with the samples of a job's shards from here on.
    SendPass {
        /// Its session.
        session: SessionId,
        /// The job, of which it was told.
        job: JobId,
        /// The kernel's pass.
        pass: Arc<[u8]>,
    },
    /// Send an agent a piece of an input of a job it was told of, or tell it that there is none.
    SendInput {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The input's position in the task.
        input: u32,
        /// BLAKE3 of the whole input.
        blake3: Digest,
        /// Where the piece starts.
        offset: u64,
    },
    /// Read the tiles of a job whose tiles are all durable, in the order of its result file, and answer
    /// with `Assembled`.
    Assemble {
        /// The job.
        job: JobId,
        /// How the result is cut.
        task: Arc<matrix::Task>,
    },
    /// Keep a panel of a tile, added to those before it; answer with `PanelKept` or `TileLost`.
    KeepPanel {
        /// The job.
        job: JobId,
        /// How the result is cut.
        task: Arc<matrix::Task>,
        /// The plan that the tile is of.
        plan: Digest,
        /// The tile's position.
        tile: u64,
        /// Which panel.
        panel: u64,
        /// Its elements by rows, little-endian.
        bytes: Arc<[u8]>,
        /// Who is paid for it once the tile is durable.
        paid: Vec<Payment>,
    },
    /// Write a tile all of whose panels are kept, as a `TileReduced` record; answer with `Committed` or
    /// `CommitFailed`, and with `TileLost` besides where there is no such tile.
    PersistTile {
        /// Names it.
        batch: BatchId,
        /// The job.
        job: JobId,
        /// How the result is cut.
        task: Arc<matrix::Task>,
        /// The plan that the tile is of.
        plan: Digest,
        /// The tile's position.
        tile: u64,
        /// Who is paid for its shards.
        earned: Vec<Payment>,
    },
    /// Forget the panels that are kept for a job that ended.
    ForgetPanels {
        /// The job.
        job: JobId,
    },
    /// Store a product under its digest; answer with `ProductStored`.
    StoreProduct {
        /// The job.
        job: JobId,
        /// The shard whose product it is.
        index: ShardIndex,
        /// BLAKE3 of the bytes.
        blake3: Digest,
        /// The product's encoding.
        bytes: Arc<[u8]>,
    },
    /// Give an agent shards of a job it was told of.
    Assign {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
        /// The attempts.
        items: Vec<Assignment>,
    },
    /// Tell an agent to drop a job.
    Forget {
        /// Its session.
        session: SessionId,
        /// The job.
        job: JobId,
    },
    /// Tell an agent that the hub is stopping.
    TellDraining {
        /// Its session.
        session: SessionId,
    },
    /// End a session.
    CloseSession {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Show clients how a job looks now.
    PublishJob {
        /// The job.
        view: Box<JobView>,
    },
    /// Show operators how an agent looks now.
    PublishAgent {
        /// The agent.
        view: Box<AgentView>,
    },
    /// Tell operators that an agent is trusted more or less than before.
    ReportStanding {
        /// Which, and why.
        change: Change,
    },
    /// Tell operators that more agents were proven wrong at once than chance and liars explain.
    RaiseAlarm {
        /// How many.
        alarm: Alarm,
    },
    /// Show operators that an agent has no session here.
    PublishAgentAway {
        /// Which.
        agent: AgentId,
    },
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The job is durable.
    Accepted(Box<JobView>),
    /// The idempotency key made this job before.
    Replayed {
        /// That job.
        job: JobId,
        /// Its manifest's digest.
        manifest: Digest,
    },
    /// The job cannot be.
    Refused(AdmissionError),
    /// The job is stopped, durably, or had ended already.
    Cancelled(Box<JobView>),
    /// No open job of this id lives here.
    NotOpen,
    /// A job as this lane sees it: what its home says, where that is here, and what the agents here do for it.
    JobExplained(Option<HomeExplained>, Option<Box<LaneExplained>>),
    /// An agent whose session is here.
    AgentExplained(Option<Box<AgentExplained>>),
    /// The store does not take writes; nothing was kept.
    StoreFailing,
    /// The hub is stopping.
    Stopping,
}

/// Why the hub ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The same agent opened a newer one.
    Superseded,
    /// Nothing was heard for a lease.
    Silent,
    /// It delivered more partials than it announced.
    Flooding,
    /// It asked for a piece of an input that its job does not have.
    InputUnknown,
    /// Its answers were proven wrong: it gets no work here.
    Removed,
}

/// The effects of one step, in order. Borrows the machine: a second step before they are taken does
/// not compile.
#[must_use = "effects that are not carried out are promises broken"]
#[derive(Debug)]
pub struct Drain<'a> {
    effects: &'a mut VecDeque<Effect>,
}

impl<'a> Drain<'a> {
    pub(crate) fn new(effects: &'a mut VecDeque<Effect>) -> Drain<'a> {
        Drain { effects }
    }
}

impl Iterator for Drain<'_> {
    type Item = Effect;
    fn next(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

/// What answers wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// From an answer, or the first of its batch, until the verifier let it pass.
    Verified,
    /// From then until it was durable that it is done.
    Kept,
}

/// So many shards waited for something so long. *Units*: milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// For what.
    pub wait: Wait,
    /// How long.
    pub ms: u64,
    /// How many shards.
    pub shards: u64,
}

/// Where rooms put their orders during a step.
#[derive(Debug)]
pub struct Outbox {
    lane: LaneIndex,
    lanes: u16,
    effects: VecDeque<Effect>,
    to_self: VecDeque<LaneMessage>,
    disputes: Vec<(JobId, Evidence)>,
    recalls: BTreeMap<(JobId, AgentId), Recalled>,
    waits: Vec<Waited>,
}

impl Outbox {
    pub(crate) fn new(lane: LaneIndex, lanes: u16) -> Outbox {
        let (effects, to_self) = (VecDeque::new(), VecDeque::new());
        let (disputes, recalls, waits) = (Vec::new(), BTreeMap::new(), Vec::new());
        Outbox { lane, lanes, effects, to_self, disputes, recalls, waits }
    }

    pub(crate) fn effects(&mut self) -> &mut VecDeque<Effect> {
        &mut self.effects
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// To another lane through the shell; to this one within the step.
    pub(crate) fn tell(&mut self, lane: LaneIndex, message: LaneMessage) {
        if lane == self.lane {
            self.to_self.push_back(message);
        } else {
            self.effects.push_back(Effect::TellLane { lane, message });
        }
    }

    pub(crate) fn tell_all(&mut self, message: &LaneMessage) {
        for lane in 0..self.lanes {
            self.tell(LaneIndex(lane), message.clone());
        }
    }

    /// To the lanes that keep the standing of these agents' providers.
    pub(crate) fn judge(&mut self, judgements: Vec<Judgement>) {
        let mut by_lane: BTreeMap<LaneIndex, Vec<Judgement>> = BTreeMap::new();
        for judgement in judgements {
            let lane = registry_lane(judgement.account.provider, self.lanes);
            by_lane.entry(lane).or_default().push(judgement);
        }
        for (lane, judgements) in by_lane {
            self.tell(lane, LaneMessage::Judged { judgements });
        }
    }

    /// Evidence that is to be kept.
    pub(crate) fn dispute(&mut self, job: JobId, evidence: Evidence) {
        self.disputes.push((job, evidence));
    }

    pub(crate) fn take_disputes(&mut self) -> Vec<(JobId, Evidence)> {
        core::mem::take(&mut self.disputes)
    }

    /// What an agent that was proven wrong answered for a job counts no more, or is in its result for good.
    pub(crate) fn recall(&mut self, job: JobId, agent: AgentId, recalled: Recalled) {
        let sum = self.recalls.entry((job, agent)).or_default();
        sum.shards += recalled.shards;
        sum.tainted += recalled.tainted;
    }

    pub(crate) fn take_recalls(&mut self) -> BTreeMap<(JobId, AgentId), Recalled> {
        core::mem::take(&mut self.recalls)
    }

    /// Shards waited until now. Forgotten with the next step.
    pub(crate) fn waited(&mut self, wait: Wait, since: Tick, now: Tick, shards: u64) {
        let ms = now.0.saturating_sub(since.0);
        match self.waits.last_mut() {
            Some(last) if (last.wait, last.ms) == (wait, ms) => last.shards += shards,
            _ => self.waits.push(Waited { wait, ms, shards }),
        }
    }

    pub(crate) fn waits(&self) -> &[Waited] {
        &self.waits
    }

    pub(crate) fn forget_waits(&mut self) {
        self.waits.clear();
    }

    pub(crate) fn take_own(&mut self) -> Option<LaneMessage> {
        self.to_self.pop_front()
    }

    pub(crate) fn has_own(&self) -> bool {
        !self.to_self.is_empty()
    }

    pub(crate) fn all_lanes(&self) -> Vec<LaneIndex> {
        (0..self.lanes).map(LaneIndex).collect()
    }
}
