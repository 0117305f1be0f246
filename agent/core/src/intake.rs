//! The intake: jobs and their tasks, shards that wait for a slot, everything in flight.
//!
//! Owns what the hub has said and the agent has not answered. A frame that says too much is refused
//! whole, so nothing here grows beyond the credit, [`JOBS_MAX`] and [`TASK_BYTES_MAX`].

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::{Assignment, ShardFailure};

use crate::attempt::Attempt;
use crate::effect::ShardWork;
use crate::violation::Violation;

/// The kernels an agent has.
pub const KERNELS: [&str; 1] = ["monte_carlo"];

/// Most jobs known at once: every one in flight could be of another job. One more is a violation.
pub(crate) const JOBS_MAX: usize = limits::BATCH_ITEMS_MAX;
/// Most bytes of tasks kept at once: eight of the largest. One more byte is a violation.
pub(crate) const TASK_BYTES_MAX: usize = 8 * limits::BULK_BYTES_MAX;

/// An attempt that is answered with a failure.
pub(crate) type Unable = (Attempt, ShardFailure);

/// A task, or why there is none, with what it costs to keep.
#[derive(Clone, Debug)]
struct Prepared {
    task: Result<Arc<Task>, ShardFailure>,
    bytes: usize,
}

impl Prepared {
    /// Whatever the task says, no kernel here runs it.
    const UNKNOWN: Prepared = Prepared { task: Err(ShardFailure::KernelUnknown), bytes: 0 };
}

#[derive(Debug)]
enum Job {
    /// Its task is on the way; its shards wait here.
    Awaiting(Vec<Queued>),
    Prepared(Prepared),
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    attempt: Attempt,
    first: u64,
    count: u64,
}

/// Jobs, queue and flight.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    jobs: BTreeMap<JobId, Job>,
    /// Tasks that overtook the announcement of their job: their streams are not ordered.
    early: BTreeMap<JobId, Prepared>,
    /// Announcements whose task has not come although the job was forgotten: it is dropped when it comes.
    unclaimed: BTreeSet<JobId>,
    task_bytes: usize,
    /// Shards whose job has its task, in order of arrival. Never longer than the credit.
    ready: VecDeque<Queued>,
    /// Assigned and not answered. Never more than the credit.
    in_flight: BTreeSet<Attempt>,
}

impl Intake {
    /// A job is announced, with its task or without.
    pub(crate) fn announce(
        &mut self,
        job: JobId,
        kernel: &str,
        task: Option<&[u8]>,
    ) -> Result<(), Violation> {
        if self.jobs.contains_key(&job) {
            return Err(Violation::JobTwice { job });
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err(Violation::TooManyJobs);
        }
        let prepared = match (task, self.early.remove(&job)) {
            (Some(_), Some(_)) => return Err(Violation::TaskTwice { job }),
            (Some(task), None) => Some(self.prepare(task)?),
            (None, early) => early,
        };
        let known = KERNELS.contains(&kernel);
        let announced = match prepared {
            Some(prepared) if known => Job::Prepared(prepared),
            Some(prepared) => {
                self.task_bytes -= prepared.bytes;
                Job::Prepared(Prepared::UNKNOWN)
            }
            None if known => Job::Awaiting(Vec::new()),
            None => {
                self.expect_unclaimed(job);
                Job::Prepared(Prepared::UNKNOWN)
            }
        };
        self.jobs.insert(job, announced);
        Ok(())
    }

    /// A task has come on its own stream; the shards that waited for it and cannot run are returned.
    pub(crate) fn task_arrived(&mut self, job: JobId, task: &[u8]) -> Result<Vec<Unable>, Violation> {
        match self.jobs.get(&job) {
            Some(Job::Awaiting(_)) => {}
            _ if self.unclaimed.remove(&job) => return Ok(Vec::new()),
            Some(Job::Prepared(_)) => return Err(Violation::TaskTwice { job }),
            None if self.early.contains_key(&job) => return Err(Violation::TaskTwice { job }),
            None if self.early.len() >= JOBS_MAX => return Err(Violation::TooManyJobs),
            None => {
                let prepared = self.prepare(task)?;
                self.early.insert(job, prepared);
                return Ok(Vec::new());
            }
        }
        let prepared = self.prepare(task)?;
        let failure = prepared.task.as_ref().err().copied();
        let Some(Job::Awaiting(waiting)) = self.jobs.insert(job, Job::Prepared(prepared)) else {
            unreachable!("the job was awaiting its task");
        };
        Ok(match failure {
            None => {
                self.ready.extend(waiting);
                Vec::new()
            }
            Some(failure) => {
                waiting.iter().for_each(|queued| self.answered(queued.attempt));
                waiting.iter().map(|queued| (queued.attempt, failure)).collect()
            }
        })
    }

    /// Shards are assigned; those that cannot run are returned and not in flight.
    pub(crate) fn assign(
        &mut self,
        job: JobId,
        items: &[Assignment],
        credit: u32,
    ) -> Result<Vec<Unable>, Violation> {
        if self.in_flight.len() + items.len() > credit as usize {
            return Err(Violation::CreditExceeded { credit });
        }
        let known = self.jobs.get_mut(&job).ok_or(Violation::JobUnknown { job })?;
        let mut unable = Vec::new();
        for item in items {
            let attempt = Attempt { job, index: ShardIndex(item.index), epoch: Epoch(item.epoch) };
            let in_range = (1..=limits::SHARD_PATHS_MAX).contains(&item.count)
                && item.first.checked_add(item.count).is_some();
            if !in_range {
                return Err(Violation::RangeInvalid { attempt });
            }
            if let Job::Prepared(Prepared { task: Err(failure), .. }) = known {
                unable.push((attempt, *failure));
                continue;
            }
            if !self.in_flight.insert(attempt) {
                return Err(Violation::AttemptTwice { attempt });
            }
            let queued = Queued { attempt, first: item.first, count: item.count };
            match known {
                Job::Awaiting(waiting) => waiting.push(queued),
                Job::Prepared(_) => self.ready.push_back(queued),
            }
        }
        Ok(unable)
    }

    /// Whether a shard could start.
    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next shard to start. It stays in flight.
    pub(crate) fn next(&mut self) -> Option<ShardWork> {
        let Queued { attempt, first, count } = self.ready.pop_front()?;
        let Some(Job::Prepared(Prepared { task: Ok(task), .. })) = self.jobs.get(&attempt.job) else {
            unreachable!("only shards of jobs with a task are ready");
        };
        Some(ShardWork { attempt, first, count, task: task.clone() })
    }

    /// The hub has been told what became of an attempt.
    pub(crate) fn answered(&mut self, attempt: Attempt) {
        let was = self.in_flight.remove(&attempt);
        assert!(was, "an attempt is answered once");
    }

    /// Drops a job, its task and its shards. One that is not known is none to drop.
    pub(crate) fn forget(&mut self, job: JobId) {
        match self.jobs.remove(&job) {
            Some(Job::Awaiting(_)) => self.expect_unclaimed(job),
            Some(Job::Prepared(prepared)) => self.task_bytes -= prepared.bytes,
            None => {}
        }
        self.ready.retain(|queued| queued.attempt.job != job);
        self.in_flight.retain(|attempt| attempt.job != job);
    }

    /// How many shards are in flight.
    pub(crate) fn in_flight(&self) -> &BTreeSet<Attempt> {
        &self.in_flight
    }

    /// Reads a task once for all its shards.
    fn prepare(&mut self, task: &[u8]) -> Result<Prepared, Violation> {
        if self.task_bytes + task.len() > TASK_BYTES_MAX {
            return Err(Violation::TooManyJobs);
        }
        Ok(match Task::decode(task) {
            Ok(decoded) => {
                self.task_bytes += task.len();
                Prepared { task: Ok(Arc::new(decoded)), bytes: task.len() }
            }
            Err(_) => Prepared { task: Err(ShardFailure::TaskInvalid), bytes: 0 },
        })
    }

    /// Remembers to drop a task that is still on its way. When too many are remembered the oldest job's
    /// is not: should it come after all, it waits among the early ones until the session ends.
    fn expect_unclaimed(&mut self, job: JobId) {
        if self.unclaimed.len() >= JOBS_MAX {
            self.unclaimed.pop_first();
        }
        self.unclaimed.insert(job);
    }

    /// Panics when the queue, the jobs and the flight disagree. `elsewhere` are the attempts in flight
    /// that run or wait in the outbox.
    pub(crate) fn invariants(&self, elsewhere: impl Iterator<Item = Attempt>) {
        let awaiting = self.jobs.values().flat_map(|job| match job {
            Job::Awaiting(waiting) => waiting.as_slice(),
            Job::Prepared(_) => &[],
        });
        let mut found: Vec<Attempt> =
            self.ready.iter().chain(awaiting).map(|queued| queued.attempt).chain(elsewhere).collect();
        found.sort_unstable();
        assert!(found.iter().eq(self.in_flight.iter()), "{found:?} are in flight, not {:?}", self.in_flight);
        assert!(self.in_flight.iter().all(|attempt| self.jobs.contains_key(&attempt.job)));
        let prepared = self.jobs.values().filter_map(|job| match job {
            Job::Prepared(prepared) => Some(prepared),
            Job::Awaiting(_) => None,
        });
        let bytes: usize = prepared.chain(self.early.values()).map(|prepared| prepared.bytes).sum();
        assert_eq!(bytes, self.task_bytes);
    }
}
