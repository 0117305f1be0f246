//! Trouble of one kind in some runs: a shard that kills whoever computes it, one that always fails, an agent that
//! takes for ever or fails at everything. The agents then belong to several providers, most to one.

use tessera_agent_core::{Outcome, ShardWork};
use tessera_hub_core::{Account, SessionId};
use tessera_protocol::api::{JobFailure, JobView};
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::unit::Tick;
use tessera_protocol::wire::ShardFailure;

use super::{Due, World};
use crate::sim::checker::Violation;
use crate::sim::random::Random;
use crate::sim::swarm::{Fault, Settings, Swarm};
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
    /// An agent that fails at everything.
    Broken,
}

/// Agents of such a run: three are the operator's, one is of a small provider, all others of a large one.
const AGENTS: u8 = 8;
const ANCHORS: [usize; 3] = [0, 2, 7];
/// Who never finishes, or fails at everything.
const USELESS: usize = 3;
/// From this one on no fault of the run concerns them: one of the small provider, one of the operator's own.
const STEADY: usize = 6;
/// Agents that a poisoned shard may take down while a hub lives: three, up to eight anchors where others are lost too, what was in flight besides.
const KILLED_MAX: u64 = 20;
/// How long after its rest an agent is said to work again. *Units*: milliseconds.
const LATE_MS: u64 = 5_000;
/// Agents that crash, are stopped or cut off so often live for half a minute: what they are given is lost with them several
/// times in a row. *Units*: per mille of seconds.
const OFTEN: u64 = 35;
/// Longer than a run. *Units*: milliseconds.
const FOR_EVER_MS: u64 = 900_000;

impl Trouble {
    /// With chance of its own, so that runs without trouble are what they were. Such runs are so calm that an agent
    /// is hardly ever lost to a shard by chance, several times.
    pub(super) fn draw(seed: u64, settings: &Settings, swarm: &mut Swarm) -> Option<Trouble> {
        let drawn = Random::new(seed ^ 0x7472_6f75_626c_6500).below(20);
        let all = [Trouble::Poison, Trouble::Failing, Trouble::Straggler, Trouble::Broken];
        let fits = swarm.liar.is_none() && settings.agents_max >= AGENTS && !settings.lacks(Fault::Trouble);
        let trouble = all.get(drawn as usize).copied().filter(|_| fits)?;
        swarm.agents = AGENTS;
        (swarm.clumsy, swarm.copier) = (None, false);
        (swarm.agent_crash, swarm.freeze) = (swarm.agent_crash.min(10), swarm.freeze.min(10));
        (swarm.delay_ms, swarm.sloppy) = (swarm.delay_ms.min(300), swarm.sloppy.min(10));
        (swarm.partition, swarm.loss, swarm.jump) = (0, swarm.loss.min(10), 0);
        if trouble == Trouble::Broken {
            (swarm.lanes, swarm.old) = (1, false);
        }
        if trouble == Trouble::Failing {
            (swarm.hub_crash, swarm.sync_fails, swarm.sloppy) = (0, 0, 0);
        }
        Some(trouble)
    }
}

impl World {
    /// The agents belong to three providers, and one job is submitted more.
    pub(super) fn add_trouble(&mut self) {
        let Some(trouble) = self.trouble else { return };
        for (number, agent) in self.agents.iter_mut().enumerate() {
            agent.account = match number {
                _ if ANCHORS.contains(&number) => Account::operator(),
                STEADY => Account::of_provider(ProviderId::of_name("small")),
                _ => Account::of_provider(ProviderId::of_name("large")),
            };
        }
        match trouble {
            Trouble::Straggler => self.agents[USELESS].pace_ms = FOR_EVER_MS,
            Trouble::Broken => {}
            Trouble::Poison | Trouble::Failing => {
                let at = 8_000 + self.random.below(10_000);
                self.client(at, Due::Submit { number: TROUBLE });
            }
        }
    }

    /// Whether the faults of the run pass an agent by: there is always another provider to turn to.
    pub(super) fn is_steady(&self, agent: usize) -> bool {
        self.trouble.is_some() && agent >= STEADY
    }

    /// What becomes of a shard that gives trouble; nothing of an ordinary one. No outcome: it kills.
    pub(super) fn troubled(&mut self, agent: usize, work: &ShardWork) -> Option<Option<Outcome>> {
        let stored = self.store.jobs.get(&work.attempt.job)?;
        if self.trouble == Some(Trouble::Broken) && agent == USELESS {
            return Some(Some(Outcome::Failed(ShardFailure::KernelFailed)));
        }
        let is_first = work.first == 0 && stored.job.manifest.spec().name == "trouble";
        match self.trouble.filter(|_| is_first)? {
            Trouble::Poison => {
                let (life, at) = (self.agents[agent].life, self.now + self.agents[agent].pace_ms);
                self.at(at, Due::Killed { agent, life });
                Some(None)
            }
            Trouble::Failing => Some(Some(Outcome::Failed(ShardFailure::KernelFailed))),
            Trouble::Straggler | Trouble::Broken => None,
        }
    }

    /// The hub gives a shard to an agent, which may be stopped and never hear of it.
    pub(super) fn given(&mut self, session: SessionId, job: JobId, first: u64) {
        let name = self.store.jobs.get(&job).map(|stored| stored.job.manifest.spec().name.as_str());
        if self.trouble == Some(Trouble::Failing) && (first, name) == (0, Some("trouble")) {
            // Whoever has a new session since is nobody in particular.
            let agent = self.agent_of(session.0).map(|agent| self.agents[agent].account.provider);
            self.tried.push(agent.unwrap_or(ProviderId([0; 16])));
        }
    }

    pub(super) fn killed(&mut self, agent: usize, life: u64) -> Result<(), Violation> {
        if self.agents[agent].life == life {
            self.note("agents killed by a shard");
            self.killed += 1;
            self.trace.fault(self.now, || format!("a shard kills agent {agent}"));
            self.crash_agent(agent);
        }
        match self.killed > KILLED_MAX {
            true => Err(Violation::PoisonSpread(self.killed)),
            false => Ok(()),
        }
    }

    /// A job that cannot be computed fails with the evidence, and not before all was tried.
    pub(super) fn failed_rightly(&self, view: &JobView) -> bool {
        let operator = Account::operator().provider;
        match (&view.failure, self.trouble) {
            (Some(JobFailure::ShardPoisoned { losses, .. }), trouble) => {
                // Another shard on the same agents each time is blamed with it, and so can a healthy one be where
                // agents live for seconds, the operator's own too: nobody can tell them apart.
                let failing = trouble == Some(Trouble::Failing) && view.name == "trouble";
                let crashing = trouble.is_none()
                    && self.swarm.agent_crash + self.swarm.freeze + self.swarm.partition > OFTEN;
                let is_possible = trouble == Some(Trouble::Poison) || failing || crashing;
                let anchors = losses.iter().filter(|loss| loss.provider == operator).count();
                let ends_there = losses.last().is_some_and(|last| last.provider == operator);
                is_possible && losses.len() >= 5 && anchors >= 2 && anchors < losses.len() && ends_there
            }
            (Some(JobFailure::ShardFailed { shard: 0, attempts, .. }), Some(Trouble::Failing)) => {
                let elsewhere = self.tried.get(1).is_some_and(|second| *second != self.tried[0]);
                view.name == "trouble" && *attempts == 5 && elsewhere
            }
            _ => false,
        }
    }

    /// An agent of which the hub says that it rests is said not to, soon after its rest is over.
    pub(super) fn rests(&mut self, agent: AgentId, until_ms: Option<u64>) {
        let Some(until) = until_ms else {
            self.resting.remove(&agent);
            return;
        };
        let tick = until.saturating_sub(self.weather.clock.unix_origin().0);
        if self.resting.insert(agent, tick).is_none() {
            self.note("rests of agents");
        }
    }

    pub(super) fn all_are_back(&self) -> Result<(), Violation> {
        let over = |tick: u64| self.weather.clock.moment(Tick(tick)) + LATE_MS < self.now;
        let late = self.resting.iter().find(|(_, tick)| over(**tick));
        late.map_or(Ok(()), |(agent, _)| Err(Violation::RestsTooLong(*agent)))
    }
}
