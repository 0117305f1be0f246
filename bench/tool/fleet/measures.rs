//! What a fleet counts and times. Owns no agent.

use std::collections::BTreeMap;
use std::time::Instant;

use quinn_proto::ConnectionError;
use tessera_protocol::id::JobId;

use super::port::Traffic;
use crate::latency::Latency;

/// When a job's first shard came to an agent, and when the last answer to one was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) first_assigned: Instant,
    pub(crate) last_answered: Option<Instant>,
    pub(crate) assigned: u64,
    pub(crate) answered: u64,
}

/// Since a fleet was last asked, but for the jobs, which are all that it ever saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures {
    /// From an answer until the next shard has come in its place.
    pub(crate) refill: Latency,
    /// From when an agent was to connect until the hub's welcome, however many sessions it took.
    pub(crate) welcome: Latency,
    pub(crate) jobs: BTreeMap<JobId, Seen>,
    pub(crate) assigned: u64,
    pub(crate) answered: u64,
    /// Frames of answers.
    pub(crate) frames: u64,
    /// Frames of shards.
    pub(crate) frames_assigned: u64,
    /// Most shards in flight that the hub ever granted one of these agents.
    pub(crate) credit: u32,
    /// Shards that an agent held of a job that ended.
    pub(crate) forgotten: u64,
    pub(crate) refused: u64,
    pub(crate) malformed: u64,
    /// Sessions that ended, by why.
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) traffic: Traffic,
    /// Time of the fleet's thread on a core. *Units*: nanoseconds.
    pub(crate) computed_ns: u64,
}

impl Measures {
    pub(super) fn assigned(&mut self, job: JobId, count: u64, now: Instant) {
        self.assigned += count;
        self.frames_assigned += 1;
        let fresh = Seen { first_assigned: now, last_answered: None, assigned: 0, answered: 0 };
        self.jobs.entry(job).or_insert(fresh).assigned += count;
    }

    pub(super) fn answered(&mut self, job: JobId, count: u64, now: Instant) {
        self.answered += count;
        self.frames += 1;
        if let Some(seen) = self.jobs.get_mut(&job) {
            (seen.last_answered, seen.answered) = (Some(now), seen.answered + count);
        }
    }

    pub(super) fn lost(&mut self, reason: &ConnectionError) {
        *self.lost.entry(reason.to_string()).or_default() += 1;
    }

    /// Sessions that ended.
    pub(crate) fn lost_sessions(&self) -> u64 {
        self.lost.values().sum()
    }
}
