//! Shards whose answer is known, given again to agents that cannot tell.
//!
//! A coalition can vouch for its own lies where the hub happens to ask one of it to check another. Nobody is asked
//! here: what an agent answers is held against what one of the operator's own and another agent agreed on.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use tessera_protocol::id::{AgentId, Digest};
use tessera_protocol::unit::ShardIndex;

use super::{Answer, Evidence, Party, is_anchors};
use crate::Account;

/// Shards of a job that are remembered. The latest: an agent that keeps what it computed knows older ones rather.
const KNOWN_MAX: usize = 64;

/// What is known about some final shards of a job.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: VecDeque<Fact>,
    /// Who was given one again, and has not answered.
    asked: BTreeSet<(ShardIndex, AgentId)>,
}

#[derive(Debug)]
struct Fact {
    index: ShardIndex,
    digest: Digest,
    /// Who said so.
    said: Vec<(AgentId, Account, Digest)>,
    /// Who said so or was asked since.
    used: BTreeSet<AgentId>,
}

impl Known {
    /// These agents agreed on a shard.
    pub(super) fn learn(&mut self, right: &[Answer]) {
        let [first, _, ..] = right else { return };
        if !right.iter().any(is_anchors) {
            return;
        }
        let said: Vec<_> = right
            .iter()
            .map(|answer| (answer.party.agent, answer.party.account, answer.partial.digest))
            .collect();
        let used = said.iter().map(|(agent, ..)| *agent).collect();
        self.facts.push_back(Fact { index: first.partial.index, digest: first.partial.digest, said, used });
        if self.facts.len() > KNOWN_MAX
            && let Some(old) = self.facts.pop_front()
        {
            self.asked.retain(|(index, _)| *index != old.index);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// A shard for an agent that has not seen it, if there is one. `lot` is a number that no agent can foresee.
    pub(super) fn draw(&mut self, agent: AgentId, lot: u64) -> Option<ShardIndex> {
        let all = self.facts.len();
        let mut from_lot = (0..all).map(|at| ((lot % all as u64) as usize + at) % all);
        let position = from_lot.find(|at| !self.facts[*at].used.contains(&agent))?;
        let fact = &mut self.facts[position];
        fact.used.insert(agent);
        self.asked.insert((fact.index, agent));
        Some(fact.index)
    }

    /// Whether an agent was given a final shard again.
    pub(super) fn is_asked(&self, index: ShardIndex, agent: AgentId) -> bool {
        self.asked.contains(&(index, agent))
    }

    /// What an answer to such a shard is worth: evidence where it is wrong.
    pub(super) fn judge(&mut self, answer: &Answer) -> Option<Result<Party, Evidence>> {
        let party = answer.party;
        if !self.asked.remove(&(answer.partial.index, party.agent)) {
            return None;
        }
        let fact = self.facts.iter().find(|fact| fact.index == answer.partial.index)?;
        if fact.digest == answer.partial.digest {
            return Some(Ok(party));
        }
        let mut answers = fact.said.clone();
        answers.push((party.agent, party.account, answer.partial.digest));
        let oddities =
            answer.oddity.as_deref().map(|oddity| (party.agent, oddity.clone())).into_iter().collect();
        Some(Err(Evidence { index: answer.partial.index, answers, believed: Some(fact.digest), oddities }))
    }

    /// The job goes on to a round of which nothing is known.
    pub(super) fn forget(&mut self) {
        *self = Known::default();
    }
}
