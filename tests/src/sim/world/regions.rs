//! Two regions in some runs: agents say where they are, and some jobs may only run in one of them.
//!
//! Drawn with chance of its own, so that runs without regions are what they were. Each region that a job names has two
//! of the operator's own agents, which can check each other: every job can end.

use tessera_hub_core::{Account, SessionId};
use tessera_protocol::id::JobId;

use super::World;
use crate::sim::checker::Violation;
use crate::sim::random::Random;

/// Where agents are.
pub(in crate::sim) const NORTH: &str = "north";
pub(in crate::sim) const SOUTH: &str = "south";
/// With so many agents, four of them the operator's own, jobs may ask for either region.
const AGENTS: usize = 4;

/// Where the jobs of a run may ask to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Regions {
    /// The agents do not say where they are, and no job asks.
    None,
    /// All of the operator's own agents are in the north, where some jobs must be.
    North,
    /// Jobs may have to be in either.
    Both,
}

impl World {
    /// Puts the agents into regions, in every third run. Among few agents, or where a shard gives trouble, it could be
    /// that nobody is left to compute it.
    pub(super) fn add_regions(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ 0x7265_6769_6f6e_7300);
        let fits = self.trouble.is_none() && self.agents.len() > 2;
        if !random.chance(333) || !fits {
            return;
        }
        let both = self.swarm.liar.is_none() && self.agents.len() >= AGENTS;
        for (number, agent) in self.agents.iter_mut().enumerate() {
            if both && number < AGENTS {
                agent.account = Account::operator();
            }
            let is_north = match both {
                true => number.is_multiple_of(2),
                false => agent.account.anchor || random.chance(500),
            };
            agent.region = if is_north { NORTH } else { SOUTH };
        }
        self.workload.regions = if both { Regions::Both } else { Regions::North };
        self.note("runs with regions");
    }

    /// A shard is given to an agent: one in a region that the job allows.
    pub(super) fn given_there(&mut self, session: SessionId, job: JobId) -> Result<(), Violation> {
        let Some(requirements) =
            self.store.jobs.get(&job).and_then(|stored| stored.job.manifest.spec().requirements.as_ref())
        else {
            return Ok(());
        };
        // Whoever has a new session since was somewhere when it had that one: it does not move.
        let Some(agent) = self.agent_of(session.0).map(|agent| &self.agents[agent]) else { return Ok(()) };
        let is_there = requirements.regions().iter().any(|region| region.as_str() == agent.region);
        let id = agent.id;
        self.note("shards of jobs with a region");
        if is_there { Ok(()) } else { Err(Violation::OutOfRegion(job, id)) }
    }
}
