//! The intake: jobs and their tasks, shards that wait for a slot, everything in flight.
//!
//! Owns what the hub has said and the agent has not answered. A frame that says too much is refused
//! whole, so nothing here grows beyond the credit, [`JOBS_MAX`] and [`TASK_BYTES_MAX`].

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;
use tessera_protocol::limits;
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::{Assignment, ShardFailure};

use crate::attempt::Attempt;
use crate::effect::ShardWork;
use crate::task::{Kernel, Operands, Task};
use crate::violation::Violation;

/// Most jobs known at once: every one in flight could be of another job. One more is a violation.
pub(crate) const JOBS_MAX: usize = limits::BATCH_ITEMS_MAX;
/// Most bytes of tasks and passes kept at once: eight of the largest tasks. One more byte is a violation.
pub(crate) const TASK_BYTES_MAX: usize = 8 * limits::BULK_BYTES_MAX;

/// An attempt that is answered with a failure.
pub(crate) type Unable = (Attempt, ShardFailure);

/// A task with what it costs to keep and what it needs.
#[derive(Clone, Debug)]
struct Prepared {
    task: Arc<Task>,
    operands: Arc<Operands>,
    bytes: usize,
}

#[derive(Debug)]
enum Stage {
    /// Its task is on the way; its shards wait here.
    Awaiting {
        kernel: Kernel,
        waiting: Vec<Queued>,
    },
    /// Its operands are not all in memory; its shards wait here.
    Gathering {
        prepared: Prepared,
        waiting: Vec<Queued>,
    },
    Ready(Prepared),
    /// No shard of it can run here.
    Unable(ShardFailure),
}

#[derive(Debug)]
struct Job {
    stage: Stage,
    /// Of the shards assigned from here on.
    pass: Arc<[u8]>,
    /// Whether a shard has started since the shell last dropped what it keeps for the job.
    begun: bool,
}

#[derive(Clone, Debug)]
struct Queued {
    attempt: Attempt,
    first: u64,
    count: u64,
    pass: Arc<[u8]>,
}

/// Jobs, queue and flight.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    jobs: BTreeMap<JobId, Job>,
    /// Tasks that overtook the announcement of their job: their streams are not ordered.
    early: BTreeMap<JobId, Vec<u8>>,
    /// Announcements whose task has not come although the job was forgotten: it is dropped when it comes.
    unclaimed: BTreeSet<JobId>,
    task_bytes: usize,
    /// Jobs that have shards and not their operands, in the order in which the first shards came.
    wanting: VecDeque<JobId>,
    /// Shards whose job has all it needs, in order of arrival. Never longer than the credit.
    ready: VecDeque<Queued>,
    /// Assigned and not answered. Never more than the credit.
    in_flight: BTreeSet<Attempt>,
}

impl Intake {
    /// A job is announced, with its task or without, for one of the kernels offered.
    pub(crate) fn announce(
        &mut self,
        job: JobId,
        (kernel, offered): (&str, &[String]),
        task: Option<&[u8]>,
    ) -> Result<(), Violation> {
        if self.jobs.contains_key(&job) {
            return Err(Violation::JobTwice { job });
        }
        if self.jobs.len() >= JOBS_MAX {
            return Err(Violation::TooManyJobs);
        }
        let early = self.early.remove(&job);
        if let Some(early) = &early {
            self.task_bytes -= early.len();
        }
        let task = match (task, &early) {
            (Some(_), Some(_)) => return Err(Violation::TaskTwice { job }),
            (task, early) => task.or(early.as_deref()),
        };
        let stage = match (Kernel::named(kernel, offered), task) {
            (Some(kernel), Some(task)) => self.prepare(kernel, task, Vec::new())?,
            (Some(kernel), None) => Stage::Awaiting { kernel, waiting: Vec::new() },
            (None, task) => {
                if task.is_none() {
                    self.expect_unclaimed(job);
                }
                Stage::Unable(ShardFailure::KernelUnknown)
            }
        };
        self.jobs.insert(job, Job { stage, pass: Arc::new([]), begun: false });
        Ok(())
    }

    /// A task has come on its own stream; the shards that waited for it and cannot run are returned.
    pub(crate) fn task_arrived(&mut self, job: JobId, task: &[u8]) -> Result<Vec<Unable>, Violation> {
        match self.jobs.get(&job).map(|job| &job.stage) {
            Some(Stage::Awaiting { .. }) => {}
            _ if self.unclaimed.remove(&job) => return Ok(Vec::new()),
            Some(_) => return Err(Violation::TaskTwice { job }),
            None if self.early.contains_key(&job) => return Err(Violation::TaskTwice { job }),
            None if self.early.len() >= JOBS_MAX => return Err(Violation::TooManyJobs),
            None => {
                self.keep(task.len())?;
                self.early.insert(job, task.to_vec());
                return Ok(Vec::new());
            }
        }
        let Some(Stage::Awaiting { kernel, waiting }) = self.take_stage(job) else {
            unreachable!("the job was awaiting its task");
        };
        let attempts: Vec<Attempt> = waiting.iter().map(|queued| queued.attempt).collect();
        let stage = self.prepare(kernel, task, waiting)?;
        let unable = match &stage {
            Stage::Unable(failure) => attempts.into_iter().map(|attempt| (attempt, *failure)).collect(),
            Stage::Gathering { waiting, .. } if !waiting.is_empty() => {
                self.wanting.push_back(job);
                Vec::new()
            }
            _ => Vec::new(),
        };
        unable.iter().for_each(|(attempt, _)| self.answered(*attempt));
        self.set_stage(job, stage);
        Ok(unable)
    }

    /// Later shards of a job are computed with this pass.
    pub(crate) fn set_pass(&mut self, job: JobId, pass: Vec<u8>) -> Result<(), Violation> {
        let known = self.jobs.get_mut(&job).ok_or(Violation::JobUnknown { job })?;
        let bytes = self.task_bytes - known.pass.len() + pass.len();
        if bytes > TASK_BYTES_MAX {
            return Err(Violation::TooManyJobs);
        }
        self.task_bytes = bytes;
        known.pass = pass.into();
        Ok(())
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
            if let Stage::Unable(failure) = known.stage {
                unable.push((attempt, failure));
                continue;
            }
            if !self.in_flight.insert(attempt) {
                return Err(Violation::AttemptTwice { attempt });
            }
            let pass = known.pass.clone();
            let queued = Queued { attempt, first: item.first, count: item.count, pass };
            match &mut known.stage {
                Stage::Awaiting { waiting, .. } => waiting.push(queued),
                Stage::Gathering { waiting, .. } => {
                    if waiting.is_empty() {
                        self.wanting.push_back(job);
                    }
                    waiting.push(queued);
                }
                Stage::Ready(_) | Stage::Unable(_) => self.ready.push_back(queued),
            }
        }
        Ok(unable)
    }

    /// Jobs that have shards and not their operands, and what those are, in order.
    pub(crate) fn wanting(&self) -> Vec<(JobId, Arc<Operands>)> {
        let operands = |job: &JobId| match &self.jobs.get(job)?.stage {
            Stage::Gathering { prepared, .. } => Some((*job, prepared.operands.clone())),
            _ => None,
        };
        self.wanting.iter().filter_map(operands).collect()
    }

    /// The operands of a job are in memory: its shards may start.
    pub(crate) fn gathered(&mut self, job: JobId) {
        if let Some(Stage::Gathering { prepared, waiting }) = self.take_stage(job) {
            self.set_stage(job, Stage::Ready(prepared));
            self.ready.extend(waiting);
        }
        self.wanting.retain(|wanting| *wanting != job);
    }

    /// The operands of a job without shards in flight are no more; says whether the shell keeps anything
    /// for it.
    pub(crate) fn scattered(&mut self, job: JobId) -> bool {
        if let Some(Stage::Ready(prepared)) = self.take_stage(job) {
            self.set_stage(job, Stage::Gathering { prepared, waiting: Vec::new() });
        }
        self.jobs.get_mut(&job).is_some_and(|job| core::mem::take(&mut job.begun))
    }

    /// No shard of a job can run here any more; those that wait are returned.
    pub(crate) fn give_up(&mut self, job: JobId, failure: ShardFailure) -> Vec<Unable> {
        let Some(Stage::Gathering { prepared, waiting }) = self.take_stage(job) else {
            unreachable!("only what waits for its operands can lack them");
        };
        self.task_bytes -= prepared.bytes;
        self.wanting.retain(|wanting| *wanting != job);
        waiting.iter().for_each(|queued| self.answered(queued.attempt));
        self.set_stage(job, Stage::Unable(failure));
        waiting.iter().map(|queued| (queued.attempt, failure)).collect()
    }

    /// Whether none of a job's shards is in flight.
    pub(crate) fn is_idle(&self, job: JobId) -> bool {
        let first = Attempt { job, index: ShardIndex(0), epoch: Epoch(0) };
        self.in_flight.range(first..).next().is_none_or(|attempt| attempt.job != job)
    }

    /// Whether a shard could start.
    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next shard to start. It stays in flight.
    pub(crate) fn next(&mut self) -> Option<ShardWork> {
        let Queued { attempt, first, count, pass } = self.ready.pop_front()?;
        let Some(Job { stage: Stage::Ready(prepared), begun, .. }) = self.jobs.get_mut(&attempt.job) else {
            unreachable!("only shards of jobs with all they need are ready");
        };
        *begun = true;
        Some(ShardWork { attempt, first, count, task: prepared.task.clone(), pass })
    }

    /// The hub has been told what became of an attempt.
    pub(crate) fn answered(&mut self, attempt: Attempt) {
        let was = self.in_flight.remove(&attempt);
        assert!(was, "an attempt is answered once");
    }

    /// Drops a job, its task and its shards, and says whether the shell keeps anything for it. One that is
    /// not known is none to drop.
    pub(crate) fn forget(&mut self, job: JobId) -> bool {
        let dropped = self.jobs.remove(&job);
        if let Some(dropped) = &dropped {
            self.task_bytes -= dropped.pass.len();
            match &dropped.stage {
                Stage::Awaiting { .. } => self.expect_unclaimed(job),
                Stage::Gathering { prepared, .. } | Stage::Ready(prepared) => {
                    self.task_bytes -= prepared.bytes;
                }
                Stage::Unable(_) => {}
            }
        }
        self.wanting.retain(|wanting| *wanting != job);
        self.ready.retain(|queued| queued.attempt.job != job);
        self.in_flight.retain(|attempt| attempt.job != job);
        dropped.is_some_and(|job| job.begun)
    }

    /// The jobs for which the shell keeps something.
    pub(crate) fn begun(&self) -> impl Iterator<Item = JobId> {
        self.jobs.iter().filter(|(_, job)| job.begun).map(|(id, _)| *id)
    }

    /// How many shards are in flight.
    pub(crate) fn in_flight(&self) -> &BTreeSet<Attempt> {
        &self.in_flight
    }

    /// Reads a task once for all its shards; those that wait can start when it needs no operands.
    fn prepare(&mut self, kernel: Kernel, task: &[u8], waiting: Vec<Queued>) -> Result<Stage, Violation> {
        let bytes = task.len();
        self.keep(bytes)?;
        Ok(match Task::decode(&kernel, task) {
            Ok(task) => {
                let operands = Arc::new(task.operands());
                let prepared = Prepared { task: Arc::new(task), operands, bytes };
                if !prepared.operands.is_nothing() {
                    Stage::Gathering { prepared, waiting }
                } else {
                    self.ready.extend(waiting);
                    Stage::Ready(prepared)
                }
            }
            Err(failure) => {
                self.task_bytes -= bytes;
                Stage::Unable(failure)
            }
        })
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Violation> {
        if self.task_bytes + bytes > TASK_BYTES_MAX {
            return Err(Violation::TooManyJobs);
        }
        self.task_bytes += bytes;
        Ok(())
    }

    /// Takes a job's stage, to be put back or replaced before anyone looks.
    fn take_stage(&mut self, job: JobId) -> Option<Stage> {
        let known = self.jobs.get_mut(&job)?;
        Some(core::mem::replace(&mut known.stage, Stage::Unable(ShardFailure::TaskInvalid)))
    }

    fn set_stage(&mut self, job: JobId, stage: Stage) {
        if let Some(known) = self.jobs.get_mut(&job) {
            known.stage = stage;
        }
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
    /// that run or wait in the outbox; `rooms` the jobs whose operands have room.
    pub(crate) fn invariants(
        &self,
        elsewhere: impl Iterator<Item = Attempt>,
        mut rooms: impl Iterator<Item = JobId>,
    ) {
        let waiting = self.jobs.values().flat_map(|job| match &job.stage {
            Stage::Awaiting { waiting, .. } | Stage::Gathering { waiting, .. } => waiting.as_slice(),
            Stage::Ready(_) | Stage::Unable(_) => &[],
        });
        let mut found: Vec<Attempt> =
            self.ready.iter().chain(waiting).map(|queued| queued.attempt).chain(elsewhere).collect();
        found.sort_unstable();
        assert!(found.iter().eq(self.in_flight.iter()), "{found:?} are in flight, not {:?}", self.in_flight);
        assert!(self.in_flight.iter().all(|attempt| self.jobs.contains_key(&attempt.job)));
        let bytes_of = |job: &Job| match &job.stage {
            Stage::Gathering { prepared, .. } | Stage::Ready(prepared) => prepared.bytes + job.pass.len(),
            Stage::Awaiting { .. } | Stage::Unable(_) => job.pass.len(),
        };
        let early: usize = self.early.values().map(Vec::len).sum();
        assert_eq!(self.jobs.values().map(bytes_of).sum::<usize>() + early, self.task_bytes);
        for (id, job) in &self.jobs {
            let wants = matches!(&job.stage, Stage::Gathering { waiting, .. } if !waiting.is_empty());
            assert_eq!(self.wanting.iter().filter(|wanting| *wanting == id).count(), usize::from(wants));
            assert!(!job.begun || matches!(job.stage, Stage::Ready(_)), "{id} is kept and cannot start");
        }
        assert!(self.wanting.iter().all(|job| self.jobs.contains_key(job)));
        let needs_room = |job: JobId| match &self.jobs.get(&job)?.stage {
            Stage::Gathering { prepared, .. } | Stage::Ready(prepared) => {
                Some(!prepared.operands.is_nothing())
            }
            _ => None,
        };
        assert!(rooms.all(|job| needs_room(job) == Some(true)), "room is held by a job that needs none");
    }
}
