//! Why a job waits, where its shards went, and what an agent is thought of: the documents of the `explain` routes.
//!
//! Each lane speaks for itself; a document holds what every lane said. Unknown fields are ignored by readers.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::api::{RestView, Standing};
use crate::id::{AgentId, JobId};
use crate::spec::{Priority, Requirements};
use crate::unit::UnixMillis;

/// What makes an agent's score. *Units*: points, more are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreParts {
    /// Pace from assignment to answer against what is typical of the same jobs; latency is in it. At most 400.
    pub speed: u16,
    /// Attempts that came back of all it was given. At most 300.
    pub completion: u16,
    /// Less for each failure since its last answer. At most 100.
    pub failures: u16,
    /// How far it is trusted. At most 200.
    pub standing: u16,
}

impl ScoreParts {
    /// The best there is.
    pub const POINTS_MAX: u16 = 1_000;

    /// All of them.
    pub fn points(&self) -> u16 {
        self.speed + self.completion + self.failures + self.standing
    }
}

/// Why a job stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExplained {
    /// The job.
    pub job: JobId,
    /// The first thing to know, in words.
    pub summary: String,
    /// What its home says; nothing once it has ended.
    pub home: Option<HomeExplained>,
    /// What each lane says. *Order*: by lane.
    pub lanes: Vec<LaneExplained>,
}

/// What a job's home lane knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeExplained {
    /// The lane.
    pub lane: u16,
    /// Shards that no lane has.
    pub shards_todo: u64,
    /// Checks and retries that no connected agent may run, and what each wants.
    pub stuck: Vec<ErrandExplained>,
    /// How many there are, those not listed included.
    pub stuck_count: u64,
}

/// One shard that may not run anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrandExplained {
    /// The shard.
    pub shard: u64,
    /// Who may run it, in words.
    pub who: String,
    /// Agents that must not: they answered it already, or failed.
    pub avoid: Vec<AgentId>,
}

/// A job as one lane sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneExplained {
    /// The lane.
    pub lane: u16,
    /// What holds its shards up here. *Order*: the strongest first; empty when nothing does.
    pub reasons: Vec<Reason>,
    /// Which queue.
    pub priority: Priority,
    /// Whose turn it is decided among projects.
    pub project: String,
    /// The project's weight.
    pub weight: u32,
    /// Shards here that wait for an agent.
    pub pending: u64,
    /// Checks and retries here that wait for an agent.
    pub errands: u64,
    /// Its attempts in flight.
    pub in_flight: u64,
    /// What an agent needs for it.
    pub kernel: String,
    /// Memory it takes for files and matrices. *Units*: bytes.
    pub memory_bytes: u64,
    /// Agents here that meet all it needs, busy ones included.
    pub able: u64,
    /// Of those, with a place free.
    pub free: u64,
    /// Projects with shards that wait here, the next first; at most 16.
    pub line: Vec<ProjectInLine>,
    /// Agents here and what each lacks for it; at most 16, those that lack something first.
    pub agents: Vec<AgentFit>,
    /// Its placements that are remembered, the latest first.
    pub placements: Vec<PlacementExplained>,
}

/// What holds a job's shards up on a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// No agent takes work here.
    NoAgents,
    /// No agent here has the kernel.
    KernelMissing {
        /// Which.
        kernel: String,
    },
    /// Agents have the kernel and not the memory.
    MemoryMissing {
        /// What it takes.
        bytes: u64,
        /// The most that one here keeps.
        bytes_max: u64,
    },
    /// Agents have the kernel and the memory, and none is what the job asks for besides.
    RequirementsUnmet {
        /// What it asks for.
        requirements: Requirements,
    },
    /// Every agent that could has as much as it may hold.
    AllBusy {
        /// How many could.
        able: u64,
    },
    /// The project has as much in flight as it may.
    QuotaReached {
        /// In flight.
        in_flight: u64,
        /// What it may.
        max: u64,
    },
    /// Other projects go first: they have had less for their weight.
    OthersAhead {
        /// How many.
        projects: u64,
    },
    /// Other jobs of the project go first.
    JobsAhead {
        /// How many.
        jobs: u64,
    },
    /// Jobs for which a person waits go first, and leave batch jobs one part in eight.
    InteractiveFirst,
    /// Checks and retries wait for an agent that may run them.
    ErrandsWait {
        /// How many.
        errands: u64,
        /// Who may run the first of them, in words.
        who: String,
    },
    /// The home has given this lane nothing more to do.
    NothingGranted,
    /// The hub is stopping: nothing more is handed out.
    Stopping,
}

/// A project with shards that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectInLine {
    /// Its name.
    pub project: String,
    /// Its weight.
    pub weight: u32,
    /// How far it is ahead of the shard handed out last; the least goes first. *Units*: compute units of a project
    /// of weight one.
    pub ahead: u64,
    /// Attempts in flight.
    pub in_flight: u64,
}

/// An agent against what a job needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFit {
    /// The agent.
    pub agent: AgentId,
    /// What people call it.
    pub name: String,
    /// Its score.
    pub score: ScoreParts,
    /// Shards it holds, and may hold.
    pub held: [u64; 2],
    /// What it lacks; empty when it is able and free.
    pub lacks: Vec<Lack>,
}

/// One requirement that an agent fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "lack")]
pub enum Lack {
    /// It does not have the kernel.
    Kernel,
    /// It keeps too few bytes.
    Memory {
        /// What it keeps at most. *Units*: bytes.
        bytes_max: u64,
    },
    /// It has no GPU, or none with the memory.
    Gpu {
        /// The memory of its largest; zero where it has none. *Units*: bytes.
        bytes_max: u64,
    },
    /// It has GPUs, and none that the job names.
    GpuModel {
        /// What its GPUs are called.
        names: Vec<String>,
    },
    /// It is in none of the regions that the job names.
    Region {
        /// Where it is; empty where it does not say.
        region: String,
    },
    /// It was proven wrong again and again.
    Removed,
    /// It finishes what it has and takes nothing new.
    Leaving,
    /// It failed at what passed elsewhere, and gets no work for a while.
    Resting {
        /// When it gets work again by itself.
        until_ms: UnixMillis,
        /// How long that is still. *Units*: milliseconds.
        left_ms: u64,
    },
    /// It holds as much as it may.
    Full,
}

/// How attempts made at once found their agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementExplained {
    /// How long ago. *Units*: milliseconds.
    pub ago_ms: u64,
    /// The job.
    pub job: JobId,
    /// The shard, or the first of them.
    pub shard: u64,
    /// How many in a row.
    pub shards: u64,
    /// Who may run it besides, in words; nothing for a shard's first attempt.
    pub errand: Option<String>,
    /// How many agents were able and free.
    pub candidates: u64,
    /// The one that got it, then those behind it; at most four.
    pub ranked: Vec<Candidate>,
}

/// An agent that could have a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The agent.
    pub agent: AgentId,
    /// Whether all its slots were busy, so that the shard had to wait there.
    pub queued: bool,
    /// Its score in the steps that count. *Order*: the best is zero.
    pub bucket: u8,
    /// How full it was. *Units*: per mille.
    pub load: u32,
    /// Its score.
    pub score: ScoreParts,
}

/// What the hub thinks of an agent, by the lane that holds its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentExplained {
    /// The agent.
    pub agent: AgentId,
    /// What people call it.
    pub name: String,
    /// The lane.
    pub lane: u16,
    /// How far it is trusted.
    pub standing: Standing,
    /// Its score.
    pub score: ScoreParts,
    /// Its score in the steps that count. *Order*: the best is zero.
    pub bucket: u8,
    /// From assignment to answer, of late. *Units*: milliseconds.
    pub answer_ms: u64,
    /// Of late. *Units*: compute units a millisecond.
    pub units_per_ms: u64,
    /// Shards it holds, and may hold.
    pub held: [u64; 2],
    /// Until when it rests, and why; nothing for one that gets work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestView>,
    /// Jobs here that have shards waiting, and what it lacks for each; at most 16.
    pub jobs: Vec<JobFit>,
    /// Its placements that are remembered, the latest first.
    pub placements: Vec<PlacementExplained>,
}

/// A waiting job against an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFit {
    /// The job.
    pub job: JobId,
    /// What the agent lacks for it; empty when it is able and free.
    pub lacks: Vec<Lack>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoAgents => f.write_str("no agent takes work"),
            Reason::KernelMissing { kernel } => write!(f, "no agent has the kernel {kernel}"),
            Reason::MemoryMissing { bytes, bytes_max } => write!(
                f,
                "its files and matrices take {bytes} bytes, and no agent that has the kernel keeps more than {bytes_max}"
            ),
            Reason::RequirementsUnmet { requirements } => {
                write!(f, "no agent that has the kernel and the memory has {requirements}")
            }
            Reason::AllBusy { able } => write!(f, "all {able} agents that could run it are full"),
            Reason::QuotaReached { in_flight, max } => {
                write!(f, "its project has {in_flight} shards at agents and may have {max}")
            }
            Reason::OthersAhead { projects } => {
                write!(f, "{projects} other projects go first: they have had less for their weight")
            }
            Reason::JobsAhead { jobs } => write!(f, "{jobs} jobs of the same project go first"),
            Reason::InteractiveFirst => {
                f.write_str("interactive jobs go first, and leave batch jobs one part in eight")
            }
            Reason::ErrandsWait { errands, who } => write!(f, "{errands} checks or retries wait for {who}"),
            Reason::NothingGranted => f.write_str("all of its shards are elsewhere"),
            Reason::Stopping => f.write_str("the hub is stopping"),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Kernel => f.write_str("does not have the kernel"),
            Lack::Memory { bytes_max } => write!(f, "keeps at most {bytes_max} bytes"),
            Lack::Gpu { bytes_max: 0 } => f.write_str("has no GPU"),
            Lack::GpuModel { names } => write!(f, "has no such GPU but {}", names.join(", ")),
            Lack::Gpu { bytes_max } => write!(f, "has no GPU of more than {bytes_max} bytes"),
            Lack::Region { region } if region.is_empty() => f.write_str("does not say its region"),
            Lack::Region { region } => write!(f, "is in {region}"),
            Lack::Removed => f.write_str("is removed"),
            Lack::Leaving => f.write_str("is leaving"),
            Lack::Resting { left_ms, .. } => write!(f, "rests for another {} s", left_ms.div_ceil(1_000)),
            Lack::Full => f.write_str("is full"),
        }
    }
}

impl JobExplained {
    /// Puts together what a job's home and the lanes said.
    pub fn new(job: JobId, home: Option<HomeExplained>, mut lanes: Vec<LaneExplained>) -> JobExplained {
        lanes.sort_by_key(|lane| lane.lane);
        let stuck =
            home.as_ref().and_then(|home| home.stuck.first().map(|errand| (home.stuck_count, errand)));
        let summary = match (&home, stuck) {
            (None, _) => "it has ended: nothing of it waits or runs".to_string(),
            (Some(_), Some((count, errand))) => {
                let first = summary(&lanes);
                format!("{first}; {count} checks or retries find nobody: the first wants {}", errand.who)
            }
            (Some(_), None) => summary(&lanes),
        };
        JobExplained { job, summary, home, lanes }
    }
}

/// The first thing to know about a job, from what its home and its lanes say.
fn summary(lanes: &[LaneExplained]) -> String {
    let sum = |of: fn(&LaneExplained) -> u64| lanes.iter().map(of).sum::<u64>();
    let in_flight = sum(|lane| lane.in_flight);
    let waiting = sum(|lane| lane.pending + lane.errands);
    let first = lanes.iter().flat_map(|lane| &lane.reasons).min_by_key(|reason| weight(reason));
    match (in_flight, waiting, first) {
        (0, _, Some(reason)) => format!("waits: {}", reason),
        (0, 0, None) => "nothing of it waits for an agent".to_string(),
        (0, waiting, None) => format!("{waiting} shards are about to be handed out"),
        (in_flight, 0, _) => format!("runs: {in_flight} shards at agents, none waits"),
        (in_flight, waiting, None) => format!("runs: {in_flight} shards at agents, {waiting} wait"),
        (in_flight, waiting, Some(reason)) => {
            format!("runs: {in_flight} shards at agents, {waiting} wait: {}", reason)
        }
    }
}

/// A lane without an agent says less than one whose agents are busy.
fn weight(reason: &Reason) -> u8 {
    match reason {
        Reason::Stopping => 0,
        Reason::QuotaReached { .. } => 1,
        Reason::AllBusy { .. } => 2,
        Reason::ErrandsWait { .. } => 3,
        Reason::InteractiveFirst => 4,
        Reason::OthersAhead { .. } => 5,
        Reason::JobsAhead { .. } => 6,
        Reason::RequirementsUnmet { .. } => 7,
        Reason::MemoryMissing { .. } => 8,
        Reason::KernelMissing { .. } => 9,
        Reason::NoAgents => 10,
        Reason::NothingGranted => 11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(lane: u16, in_flight: u64, pending: u64, reasons: Vec<Reason>) -> LaneExplained {
        LaneExplained {
            lane,
            reasons,
            priority: Priority::Batch,
            project: "p".to_string(),
            weight: 1,
            pending,
            errands: 0,
            in_flight,
            kernel: "k".to_string(),
            memory_bytes: 0,
            able: 0,
            free: 0,
            line: Vec::new(),
            agents: Vec::new(),
            placements: Vec::new(),
        }
    }

    fn home(stuck: Vec<ErrandExplained>) -> Option<HomeExplained> {
        Some(HomeExplained { lane: 0, shards_todo: 0, stuck_count: stuck.len() as u64, stuck })
    }

    #[test]
    fn the_summary_is_the_reason_that_holds_most_and_a_lane_without_agents_is_not_it() {
        let job = JobId([0; 16]);
        let said = |lanes| JobExplained::new(job, home(Vec::new()), lanes).summary;
        let idle = lane(1, 0, 0, Vec::from([Reason::NoAgents]));
        assert_eq!(said(Vec::from([idle.clone()])), "waits: no agent takes work");
        let busy = lane(0, 3, 2, Vec::from([Reason::AllBusy { able: 3 }]));
        assert_eq!(
            said(Vec::from([idle, busy])),
            "runs: 3 shards at agents, 2 wait: all 3 agents that could run it are full"
        );
        let stuck = ErrandExplained { shard: 7, who: "an anchor".to_string(), avoid: Vec::new() };
        assert_eq!(
            JobExplained::new(job, home(Vec::from([stuck])), Vec::from([lane(0, 1, 0, Vec::new())])).summary,
            "runs: 1 shards at agents, none waits; 1 checks or retries find nobody: the first wants an anchor"
        );
        assert_eq!(
            JobExplained::new(job, None, Vec::new()).summary,
            "it has ended: nothing of it waits or runs"
        );
    }
}
