//! Trouble of one kind in some runs: a shard that kills whoever computes it, one that always fails, an agent that
//! takes for ever. The agents then belong to several providers, most to one.

use tessera_agent_core::{Event as AgentEvent, Outcome, ShardWork};
use tessera_hub_core::Account;
use tessera_protocol::api::{JobFailure, JobView};
use tessera_protocol::id::{AgentId, ProviderId};
use tessera_protocol::wire::ShardFailure;

use super::{Due, World};
use crate::sim::agent::{Agent, Kind};
use crate::sim::checker::Violation;
use crate::sim::workload::TROUBLE;

/// What gives trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The first shard of one job kills the agent.
    Poison,
    /// The first shard of one job fails everywhere.
    Failing,
    /// An agent that says it is alive, and finishes nothing before the run is over.
    Straggler,
}

/// Agents of such a run: one is of a small provider, one the operator's, all others of a large provider.
const AGENTS: u8 = 8;
const SMALL: usize = 6;
const ANCHOR: usize = 7;
/// Agents that a poisoned shard may take down while the hub lives: three, an anchor, a few spares.
const KILLED_MAX: u64 = 8;
/// Longer than a run. *Units*: milliseconds.
const FOR_EVER_MS: u64 = 900_000;

impl World {
    pub(super) fn add_trouble(&mut self) {
        let trouble = match self.random.below(12) {
            0 => Trouble::Poison,
            1 => Trouble::Failing,
            2 => Trouble::Straggler,
            _ => return,
        };
        self.trouble = Some(trouble);
        // So calm that an agent is hardly ever lost to a shard by chance, several times.
        let swarm = &mut self.swarm;
        (swarm.agent_crash, swarm.freeze) = (swarm.agent_crash.min(10), swarm.freeze.min(10));
        (swarm.delay_ms, swarm.drop) = (swarm.delay_ms.min(300), swarm.drop.min(10));
        if trouble == Trouble::Failing {
            swarm.hub_crash = 0;
        }
        for number in self.agents.len() as u8..AGENTS {
            let pace = 1 + self.random.below(400);
            self.agents.push(Agent::new(number, Kind::Honest, pace, false));
            self.reach_agent(0, usize::from(number), None, AgentEvent::Started);
        }
        match trouble {
            Trouble::Straggler => self.agents[2].pace_ms = FOR_EVER_MS,
            Trouble::Poison | Trouble::Failing => {
                let at = 8_000 + self.random.below(10_000);
                self.at(at, Due::Submit { number: TROUBLE });
            }
        }
    }

    pub(super) fn account(&self, agent: usize) -> Account {
        match agent {
            _ if self.trouble.is_none() => Account::operator(),
            ANCHOR => Account::operator(),
            SMALL => Account::of_provider(ProviderId::of_name("small")),
            _ => Account::of_provider(ProviderId::of_name("large")),
        }
    }

    /// Whether the faults of the run pass an agent by: there is always another provider to turn to.
    pub(super) fn is_steady(&self, agent: usize) -> bool {
        self.trouble.is_some() && agent >= SMALL
    }

    /// What becomes of a shard that gives trouble; nothing of an ordinary one. No outcome: it kills.
    pub(super) fn troubled(&mut self, agent: usize, work: &ShardWork) -> Option<Option<Outcome>> {
        let stored = self.store.jobs.get(&work.attempt.job)?;
        let is_first = work.first == 0 && stored.job.manifest.spec().name == "trouble";
        match self.trouble.filter(|_| is_first)? {
            Trouble::Poison => {
                let (life, at) = (self.agents[agent].life, self.now + self.agents[agent].pace_ms);
                self.at(at, Due::Killed { agent, life });
                Some(None)
            }
            Trouble::Failing => {
                let provider = self.account(agent).provider;
                self.tried.insert(provider);
                Some(Some(Outcome::Failed(ShardFailure::KernelFailed)))
            }
            Trouble::Straggler => None,
        }
    }

    pub(super) fn killed(&mut self, agent: usize, life: u64) -> Result<(), Violation> {
        if self.agents[agent].life == life {
            self.report.killed += 1;
            self.crash_agent(agent);
        }
        match self.report.killed > KILLED_MAX * (1 + self.report.crashes) {
            true => Err(Violation::PoisonSpread(self.report.killed)),
            false => Ok(()),
        }
    }

    /// A job that cannot be computed fails with the evidence, and not before all was tried.
    pub(super) fn failed_rightly(&self, view: &JobView) -> bool {
        let operator = Account::operator().provider;
        match (&view.failure, self.trouble) {
            (Some(JobFailure::ShardPoisoned { losses, .. }), Some(Trouble::Poison)) => {
                let Some((last, before)) = losses.split_last() else { return false };
                let other = |provider| before.iter().any(|loss| loss.provider != provider);
                // Another shard on the same agents each time is blamed with it: nobody can tell them apart.
                before.len() >= 3 && other(before[0].provider) && last.provider == operator
            }
            (Some(JobFailure::ShardFailed { shard: 0, attempts, .. }), Some(Trouble::Failing)) => {
                view.name == "trouble" && *attempts == 5 && self.tried.len() >= 2
            }
            _ => false,
        }
    }

    /// An agent of which the hub says that it rests is said not to, soon after its rest is over.
    pub(super) fn rests(&mut self, agent: AgentId, until_ms: Option<u64>) {
        match until_ms {
            Some(until) => {
                let earlier = self.resting.insert(agent, until.saturating_sub(super::ORIGIN_MS));
                self.report.rests += u64::from(earlier.is_none());
            }
            None => _ = self.resting.remove(&agent),
        }
    }

    pub(super) fn all_are_back(&self) -> Result<(), Violation> {
        let late = self.resting.iter().find(|(_, until)| **until + 5_000 < self.now);
        late.map_or(Ok(()), |(agent, _)| Err(Violation::RestsTooLong(*agent)))
    }
}
