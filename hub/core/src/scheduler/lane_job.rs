//! A job as a lane runs it: what was granted and is not assigned, and what was answered.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::unit::{ComputeUnits, LaneIndex, ShardIndex, Tick};

use super::errands::Errands;
use super::fair::{Deadline, FlowId};
use super::in_hands::InHands;
use super::need::{Need, NeedNo};
use super::roster::{AgentNo, Group};
use super::score::Pace;
use super::speculation::Times;
use crate::effect::Outbox;
use crate::message::{Claims, LaneMessage, Work};
use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;

/// Whether this lane waits for its job's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// The home may have more; it stands in `unasked`.
    Unasked,
    /// A request is out for this many.
    Asked(u64),
    /// The home has nothing now and will say when that changes.
    Dry,
    /// Nobody here has the kernel, or comes to an end: nothing is asked for before somebody does.
    Unable,
}

/// Before its deadline a job goes first for at least so long. *Units*: milliseconds.
const URGENT_MS: u64 = 30_000;

/// A job as this lane runs it.
#[derive(Debug)]
pub(super) struct LaneJob {
    pub(super) work: Arc<Work>,
    pub(super) need: NeedNo,
    pub(super) flow: FlowId,
    pub(super) pending: Ranges,
    pub(super) errands: Errands,
    pub(super) supply: Supply,
    /// Whether it stands among the jobs with errands.
    pub(super) in_rota: bool,
    /// What agents here compute now.
    pub(super) in_hands: InHands,
    /// Agents that were told of it, and those of them that know its pass.
    pub(super) told: Group<AgentNo>,
    pub(super) told_pass: Group<AgentNo>,
    /// When it last got shards, or an agent here took or answered one.
    pub(super) stirred: Tick,
    pub(super) claims: Vec<Claims>,
    pub(super) attempts: u64,
    /// How fast agents here answer its shards.
    pub(super) pace: Pace,
    /// What of its round was handed out here.
    pub(super) served: u128,
    /// Nearly all of the round is done.
    pub(super) tail: bool,
    /// How long its attempts took here.
    pub(super) times: Times,
    /// Shards for which a second attempt was asked for, and who had the first.
    pub(super) slow: BTreeMap<ShardIndex, AgentNo>,
}

impl LaneJob {
    pub(super) fn new(work: Arc<Work>, need: NeedNo, flow: FlowId) -> LaneJob {
        LaneJob {
            work,
            need,
            flow,
            pending: Ranges::default(),
            errands: Errands::default(),
            supply: Supply::Unasked,
            in_rota: false,
            in_hands: InHands::default(),
            told: Group::default(),
            told_pass: Group::default(),
            stirred: Tick(0),
            claims: Vec::new(),
            attempts: 0,
            pace: Pace::default(),
            served: 0,
            tail: false,
            times: Times::default(),
            slow: BTreeMap::new(),
        }
    }

    /// Another round, or another stage with needs of its own.
    pub(super) fn renew(&mut self, work: Arc<Work>, need: NeedNo) {
        self.need = need;
        if self.work.plan.pass() != work.plan.pass() {
            self.told_pass.clear();
        }
        self.work = work;
        self.served = 0;
        self.tail = false;
        self.slow.clear();
    }

    /// What its next shard costs.
    pub(super) fn next_cost(&self) -> ComputeUnits {
        self.pending
            .first()
            .and_then(|index| self.work.plan.shard(index))
            .map(|shard| shard.cost)
            .unwrap_or_default()
    }

    /// Its deadline, and when it becomes urgent: twice the time that what is left takes the whole lane before, and
    /// a while more.
    pub(super) fn deadline(&self, credit: u64) -> Option<Deadline> {
        let at = self.work.deadline?;
        let left = u128::from(self.work.plan.cost().0).saturating_sub(self.served);
        let takes = self.pace.ms(left).unwrap_or(0) * 2 / u128::from(credit.max(1));
        let before = u64::try_from(takes).unwrap_or(u64::MAX).saturating_add(URGENT_MS);
        Some(Deadline { at, urgent_from: Tick(at.0.saturating_sub(before)) })
    }

    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty() || !self.errands.is_empty()
    }

    /// Gives back to the home what waits here for an agent; says how many shards were pending.
    pub(super) fn release(&mut self, job: JobId, lane: LaneIndex, out: &mut Outbox) -> u64 {
        let pending = self.pending.count();
        if pending > 0 {
            let ranges = self.pending.take_all();
            out.tell(self.work.home, LaneMessage::ShardsReturned { job, ranges });
        }
        for mut errand in self.errands.drain() {
            errand.tried.push(lane);
            out.tell(self.work.home, LaneMessage::ErrandReturned { job, errand });
        }
        pending
    }

    /// An agent is here no more.
    pub(super) fn forget(&mut self, agent: AgentNo) {
        self.told.remove(agent);
        self.told_pass.remove(agent);
    }

    pub(super) fn queue(&self) -> usize {
        self.work.priority as usize
    }
}

/// What a job's shards take.
pub(super) fn need_of(work: &Work, planting: Planting) -> Need {
    let need = Need::of(work);
    match planting.is(Planted::IgnoreRegions) {
        true => Need { regions: Arc::default(), ..need },
        false => need,
    }
}
