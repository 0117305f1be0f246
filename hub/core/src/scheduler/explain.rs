//! Why things are as they are: computed from the lane's state when somebody asks, and from the last placements.
//!
//! Changes nothing. Only the ring is written while work is placed; it has a fixed size.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::explain::{
    AgentExplained, AgentFit, Candidate, JobFit, Lack, LaneExplained, PlacementExplained, ProjectInLine,
    Reason,
};
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::unit::{ShardRange, Tick, UnixMillis};

use super::Scheduler;
use super::agent::{Agent, rest_of};
use super::errands::Asked;
use super::fair::{Fair, Flow};
use super::fleet::{Fleet, gpu_bytes_max, operand_bytes_max};
use super::lane_job::{LaneJob, Supply};
use super::need::{Memory, Need, NeedNo};
use super::roster::{AgentNo, Agents, JobNo};
use crate::message::Who;

/// Placements that a lane remembers, and of one moment: a lane that makes tens in a millisecond remembers some of many
/// moments, and does not look around for each.
const PLACEMENTS_MAX: usize = 64;
const OF_A_MOMENT_MAX: usize = 4;
/// Agents that are remembered of a placement, the one that got it included.
const CANDIDATES_MAX: usize = 4;
/// Projects, agents and jobs that one explanation lists of each.
const LISTED_MAX: usize = 16;

/// Now, and the Unix time of tick zero.
type Clock = (Tick, UnixMillis);

/// One placement as it was decided: shards in a row that one agent got at once.
#[derive(Clone, Copy, Debug)]
struct Placement {
    at: Tick,
    job: JobId,
    range: ShardRange,
    errand: Option<Asked>,
    candidates: u32,
    ranked: [Option<Candidate>; CANDIDATES_MAX],
}

/// The last placements of a lane.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Once full, `next` is the oldest.
    placements: Vec<Placement>,
    next: usize,
}

impl Ring {
    /// Remembers a placement just before it changes what its agent holds.
    pub(super) fn record(
        &mut self,
        at: Tick,
        (job, range): (JobId, ShardRange),
        winner: AgentNo,
        who: Option<&Who>,
        need: NeedNo,
        (fleet, agents): (&Fleet, &Agents),
    ) {
        // Time does not go back: if this one is of the moment, all later ones are.
        let before = self.placements.get((self.next + PLACEMENTS_MAX - OF_A_MOMENT_MAX) % PLACEMENTS_MAX);
        if before.is_some_and(|before| before.at == at) {
            return;
        }
        let mut ranked = [None; CANDIDATES_MAX];
        let others = fleet.ranked(need, who.unwrap_or(&Who::Anyone)).filter(|number| *number != winner);
        let first = core::iter::once(winner).chain(others);
        let known = first.filter_map(|number| Some(candidate(agents.id(number)?, agents.at(number)?)));
        for (slot, candidate) in ranked.iter_mut().zip(known) {
            *slot = Some(candidate);
        }
        let candidates = fleet.count(need).1 as u32;
        let placement = Placement { at, job, range, errand: who.map(Asked::of), candidates, ranked };
        if self.placements.len() < PLACEMENTS_MAX {
            self.placements.reserve_exact(PLACEMENTS_MAX - self.placements.len());
            self.placements.push(placement);
        } else if let Some(oldest) = self.placements.get_mut(self.next) {
            *oldest = placement;
        }
        self.next = (self.next + 1) % PLACEMENTS_MAX;
    }

    /// Those that fit, the latest first.
    fn explained(&self, now: Tick, fits: impl Fn(&Placement) -> bool) -> Vec<PlacementExplained> {
        let split = self.next.min(self.placements.len());
        let (new, old) = self.placements.split_at(split);
        let latest_first = new.iter().rev().chain(old.iter().rev());
        let explained =
            latest_first.filter(|placement| fits(placement)).map(|placement| PlacementExplained {
                ago_ms: now.0.saturating_sub(placement.at.0),
                job: placement.job,
                shard: placement.range.start,
                shards: placement.range.count(),
                errand: placement.errand.map(|asked| in_words(asked).to_string()),
                candidates: u64::from(placement.candidates),
                ranked: placement.ranked.iter().flatten().copied().collect(),
            });
        explained.collect()
    }
}

fn candidate(id: AgentId, agent: &Agent) -> Candidate {
    Candidate {
        agent: id,
        queued: agent.held() >= u64::from(agent.hello.slots.max(1)),
        bucket: agent.score.bucket(agent.standing),
        load: agent.load(),
        score: agent.score.parts(agent.standing),
    }
}

fn in_words(asked: Asked) -> &'static str {
    match asked {
        Asked::Anyone => "an agent that has not tried it",
        Asked::Checker => {
            "an agent of another provider that is past quarantine, or one of the operator's own"
        }
        Asked::TrustedChecker => "a trusted agent of another provider, or one of the operator's own",
        Asked::Anchor => "one of the operator's own agents",
    }
}

/// Who may run an errand, in words.
pub(crate) fn who_in_words(who: &Who) -> String {
    in_words(Asked::of(who)).to_string()
}

impl Scheduler {
    /// A job as this lane sees it; nothing once it is closed here.
    pub fn explain_job(&self, id: JobId, now: Tick) -> Option<LaneExplained> {
        let number = self.jobs.number(&id)?;
        let job = self.jobs.at(number)?;
        let fair = &self.fair[job.queue()];
        let flow = fair.flow(job.flow)?;
        let (able, free) = self.fleet.count(job.need);
        Some(LaneExplained {
            lane: self.lane.0,
            reasons: self.reasons(number, job, flow),
            priority: job.work.priority,
            project: flow.project.to_string(),
            weight: flow.weight,
            pending: job.pending.count(),
            errands: job.errands.len() as u64,
            in_flight: job.in_hands.attempts(),
            kernel: self.fleet.needed(job.need).kernel.to_string(),
            memory_bytes: job.work.plan.operand_bytes(),
            able: able as u64,
            free: free as u64,
            line: line(fair),
            agents: self.fits(job, (now, self.unix_origin)),
            placements: self.ring.explained(now, |placement| placement.job == id),
        })
    }

    /// What holds a job's shards up here, the strongest first.
    fn reasons(&self, number: JobNo, job: &LaneJob, flow: &Flow) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let (able, free) = self.fleet.count(job.need);
        let need = self.fleet.needed(job.need);
        let working = || self.agents.values().filter(|agent| !agent.leaving);
        if self.stopping {
            reasons.push(Reason::Stopping);
        }
        let has_kernel = |agent: &Agent| agent.hello.kernels.iter().any(|kernel| **kernel == *need.kernel);
        if able == 0 {
            reasons.push(if working().next().is_none() {
                Reason::NoAgents
            } else {
                match working().filter(|a| has_kernel(a)).map(operand_bytes_max).max() {
                    None => Reason::KernelMissing { kernel: need.kernel.to_string() },
                    Some(bytes_max) if Memory::of(bytes_max) < need.memory => {
                        Reason::MemoryMissing { bytes: job.work.plan.operand_bytes(), bytes_max }
                    }
                    Some(_) => Reason::RequirementsUnmet { requirements: job.work.requirements.clone() },
                }
            });
        }
        if let Some(errand) = job.errands.first() {
            let who = who_in_words(&errand.who);
            reasons.push(Reason::ErrandsWait { errands: job.errands.len() as u64, who });
        }
        if job.pending.is_empty() {
            if able > 0 && job.errands.is_empty() && job.in_hands.attempts() == 0 && job.supply == Supply::Dry
            {
                reasons.push(Reason::NothingGranted);
            }
            return reasons;
        }
        if let Some(max) = flow.in_flight_max.filter(|_| flow.is_capped()) {
            reasons.push(Reason::QuotaReached { in_flight: flow.in_flight, max });
        }
        if able > 0 && free == 0 {
            reasons.push(Reason::AllBusy { able: able as u64 });
        }
        let fair = &self.fair[job.queue()];
        if job.queue() > 0 && self.fair[0].line().next().is_some() {
            reasons.push(Reason::InteractiveFirst);
        }
        let projects = fair.line().take_while(|other| other.tag < flow.tag).count() as u64;
        if projects > 0 {
            reasons.push(Reason::OthersAhead { projects });
        }
        if let Some((jobs, _)) = fair.ahead_of(number).filter(|(jobs, _)| *jobs > 0) {
            reasons.push(Reason::JobsAhead { jobs: jobs as u64 });
        }
        reasons
    }

    /// Agents against what a job needs: those that lack something that does not pass first.
    fn fits(&self, job: &LaneJob, clock: Clock) -> Vec<AgentFit> {
        let passing = |lack: &Lack| matches!(lack, Lack::Full | Lack::Resting { .. });
        let need = self.fleet.needed(job.need);
        let mut fits: Vec<AgentFit> =
            self.agents.iter().map(|(_, id, agent)| fit(id, agent, need, clock)).collect();
        fits.sort_by_key(|fit| (fit.lacks.iter().all(passing), fit.lacks.is_empty(), fit.agent));
        fits.truncate(LISTED_MAX);
        fits
    }

    /// An agent whose session is here, as this lane sees it.
    pub fn explain_agent(&self, id: AgentId, now: Tick) -> Option<AgentExplained> {
        let agent = self.agents.get(&id)?;
        let clock = (now, self.unix_origin);
        let mut waiting: Vec<_> = self.jobs.iter().filter(|(.., job)| job.has_work()).collect();
        waiting.sort_unstable_by_key(|(_, id, _)| *id);
        waiting.truncate(LISTED_MAX);
        Some(AgentExplained {
            agent: id,
            name: agent.hello.name.clone(),
            lane: self.lane.0,
            standing: agent.standing,
            score: agent.score.parts(agent.standing),
            bucket: agent.score.bucket(agent.standing),
            answer_ms: agent.score.answer_ms,
            units_per_ms: agent.score.pace.units_per_ms(),
            held: [agent.held(), agent.allowed()],
            rest: rest_of(agent, self.unix_origin),
            jobs: waiting
                .iter()
                .map(|(_, job, of)| JobFit {
                    job: *job,
                    lacks: lacks(agent, self.fleet.needed(of.need), clock),
                })
                .collect(),
            placements: self.ring.explained(now, |placement| {
                placement.ranked.iter().flatten().any(|candidate| candidate.agent == id)
            }),
        })
    }
}

fn line(fair: &Fair) -> Vec<ProjectInLine> {
    let ahead = |flow: &Flow| Fair::units(flow.tag.saturating_sub(fair.virtual_now()));
    let projects = fair.line().take(LISTED_MAX).map(|flow| ProjectInLine {
        project: flow.project.to_string(),
        weight: flow.weight,
        ahead: ahead(flow),
        in_flight: flow.in_flight,
    });
    projects.collect()
}

fn fit(id: AgentId, agent: &Agent, need: &Need, clock: Clock) -> AgentFit {
    AgentFit {
        agent: id,
        name: agent.hello.name.clone(),
        score: agent.score.parts(agent.standing),
        held: [agent.held(), agent.allowed()],
        lacks: lacks(agent, need, clock),
    }
}

fn lacks(agent: &Agent, need: &Need, (now, origin): Clock) -> Vec<Lack> {
    let (bytes_max, region) = (operand_bytes_max(agent), &agent.hello.region);
    let [gpu_bytes, any_gpu] = [gpu_bytes_max(agent, |gpu| need.names(gpu)), gpu_bytes_max(agent, |_| true)];
    let others = || agent.gpus.iter().map(|gpu| gpu.name.clone()).collect();
    let gpu_lack = match gpu_bytes == 0 && any_gpu > 0 {
        true => Lack::GpuModel { names: others() },
        false => Lack::Gpu { bytes_max: gpu_bytes },
    };
    let lacks = [
        (!agent.hello.kernels.iter().any(|kernel| **kernel == *need.kernel)).then_some(Lack::Kernel),
        (Memory::of(bytes_max) < need.memory).then_some(Lack::Memory { bytes_max }),
        (Memory::of(gpu_bytes) < need.gpu).then_some(gpu_lack),
        (!need.allows(region)).then(|| Lack::Region { region: region.clone() }),
        (agent.standing == Standing::Removed).then_some(Lack::Removed),
        agent.leaving.then_some(Lack::Leaving),
        agent.resting_until.map(|until| Lack::Resting {
            until_ms: UnixMillis(origin.0.saturating_add(until.0)),
            left_ms: until.0.saturating_sub(now.0),
        }),
        (agent.held() >= agent.allowed()).then_some(Lack::Full),
    ];
    lacks.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::*;

    #[test]
    fn of_one_moment_the_first_few_placements_are_remembered_and_of_all_the_latest() {
        let (mut ring, mut fleet, agents) = (Ring::default(), Fleet::default(), Agents::default());
        let (kernel, memory, gpu) = ("k".into(), Memory::default(), Memory::default());
        let need = fleet.need(Need { kernel, memory, gpu, models: Arc::default(), regions: Arc::default() });
        for moment in 0..100 {
            for start in 0..10 {
                let range = ShardRange { start, end: start + 1 };
                let placed = (JobId([1; 16]), range);
                ring.record(Tick(moment), placed, AgentNo::LAST, None, need, (&fleet, &agents));
            }
        }
        let found = ring.explained(Tick(99), |_| true);
        let expected = (84..100).rev().flat_map(|moment| (0..4).rev().map(move |start| (99 - moment, start)));
        let found: Vec<(u64, u64)> = found.iter().map(|placed| (placed.ago_ms, placed.shard)).collect();
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}
