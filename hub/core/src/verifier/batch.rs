//! Answers of one agent to shards of one job that are checked together.

use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::AgentId;
use tessera_protocol::unit::{ShardIndex, Tick};

use super::{Answer, Court, Party};
use crate::planted::Planted;
use crate::sampling::{Commitment, EVERY, Rate};

/// How long an answer waits for more of its agent: what is provisional is lost with the hub. *Units*: milliseconds.
pub(super) const AGE_MS_MAX: u64 = 2_000;

/// Answers of one agent.
#[derive(Debug)]
pub(super) struct Batch {
    party: Party,
    opened: Tick,
    answers: Vec<Answer>,
    /// Checks that have not agreed yet, once it is closed.
    checks: usize,
}

impl Batch {
    pub(super) fn new(party: Party, now: Tick) -> Batch {
        Batch { party, opened: now, answers: Vec::new(), checks: 0 }
    }

    pub(super) fn push(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// Its agent is trusted less than when it began: so are its answers.
    pub(super) fn lower(&mut self, standing: Standing) {
        self.party.standing = self.party.standing.min(standing);
    }

    pub(super) fn party(&self) -> Party {
        self.party
    }

    pub(super) fn agent(&self) -> AgentId {
        self.party.agent
    }

    pub(super) fn standing(&self) -> Standing {
        self.party.standing
    }

    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.answers.iter().map(|answer| answer.bytes).sum()
    }

    pub(super) fn opened(&self) -> Tick {
        self.opened
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.answers.iter().map(|answer| answer.index)
    }

    /// Positions that are checked, descending: chosen by the hub's secret and by what the agent committed to.
    pub(super) fn chosen(&self, at_least_one: bool, court: &Court<'_>) -> Vec<usize> {
        let results: Vec<_> = self.answers.iter().map(|answer| (answer.index, answer.digest)).collect();
        let commitment = Commitment::to(court.job, self.party.agent, &results);
        let rate = self.party.rate(court.class);
        let mut chosen = court.sampler.choose(&commitment, rate);
        if chosen.is_empty() && at_least_one {
            chosen = court.sampler.choose(&commitment, Rate(EVERY.0.div_ceil(self.len() as u32)));
        }
        if court.planting.is(Planted::NeverSample) {
            chosen.clear();
        }
        chosen.reverse();
        chosen
    }

    /// The first answer that looks odd, unless one that does is chosen already: what speaks against an answer speaks
    /// against its batch, and a lie that is found takes the whole of it.
    pub(super) fn odd(&self, chosen: &[usize], court: &Court<'_>) -> Option<usize> {
        let is_odd = |position: &usize| self.answers[*position].oddity.is_some();
        let first = (0..self.len()).find(is_odd);
        first.filter(|_| !chosen.iter().any(is_odd) && !court.planting.is(Planted::IgnoreOddities))
    }

    /// Adds a position to those that are checked, and says of which shard it is.
    pub(super) fn add(&self, position: usize, chosen: &mut Vec<usize>) -> ShardIndex {
        let at = chosen.partition_point(|other| *other > position);
        chosen.insert(at, position);
        self.answers[position].index
    }

    /// Takes the answers that are checked. *Order*: positions descend.
    pub(super) fn split_off(&mut self, chosen: &[usize]) -> Vec<Answer> {
        self.checks = chosen.len();
        chosen.iter().map(|position| self.answers.swap_remove(*position)).collect()
    }

    /// Takes the answer to one shard, unless it is this agent's own.
    pub(super) fn take(&mut self, index: ShardIndex, not: AgentId) -> Option<Answer> {
        let position = self.answers.iter().position(|answer| answer.index == index)?;
        (self.party.agent != not).then(|| self.answers.swap_remove(position))
    }

    pub(super) fn checked(&mut self) {
        self.checks = self.checks.saturating_sub(1);
    }

    /// Whether nothing speaks against its answers any more.
    pub(super) fn is_final(&self) -> bool {
        self.checks == 0
    }

    pub(super) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }
}
