//! The runner: one thread a slot, each computing one shard at a time.
//!
//! Owns the threads. A kernel that panics fails its shard, not its
//! slot. Decides nothing: what runs where and what stops is the machine's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tessera_agent_core::{Outcome, ShardWork, SlotIndex};
use tessera_cuda::DeviceInfo;
use tessera_kernels::isa::Isa;
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::wire::ShardFailure;

use crate::executor::{Executor, Studio};
use crate::program::{Program, Trouble};
use crate::work_log::WorkLog;

/// What a slot's thread is handed.
struct Order {
    work: ShardWork,
    program: Arc<Program>,
    cancelled: Arc<AtomicBool>,
}

struct Slot {
    /// Holds one order at most: the machine starts a shard only in an idle slot.
    orders: SyncSender<Order>,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// The threads of all slots. Dropping it stops what runs and waits for the threads.
pub(crate) struct Runner {
    slots: Vec<Slot>,
}

impl Runner {
    /// Starts `slots` threads, and one more for each device. `report` is called on them, and may block;
    /// when it answers `false` nobody listens any more and the thread ends.
    pub(crate) fn start<R>(
        slots: u16,
        devices: &[DeviceInfo],
        isa: Isa,
        (studio, log): (Option<Arc<Studio>>, Option<WorkLog>),
        report: R,
    ) -> io::Result<Runner>
    where
        R: Fn(SlotIndex, Outcome) -> bool + Clone + Send + 'static,
    {
        let start = |index: u16| {
            let (sender, orders) = sync_channel(1);
            let (report, studio, log) = (report.clone(), studio.clone(), log.clone());
            let device = index.checked_sub(slots).and_then(|place| devices.get(usize::from(place)).cloned());
            let thread = std::thread::Builder::new().name(format!("slot {index}")).spawn(move || {
                let mut executor = Executor::new(isa, device.as_ref(), studio);
                work(&orders, &mut executor, log.as_ref(), |outcome| report(SlotIndex(index), outcome));
            })?;
            Ok(Slot { orders: sender, cancelled: Arc::default(), thread })
        };
        let slots = (0..slots_with(slots, devices)).map(start).collect::<io::Result<_>>()?;
        Ok(Runner { slots })
    }

    /// Computes a shard in an idle slot.
    pub(crate) fn begin(&mut self, slot: SlotIndex, work: ShardWork, program: Arc<Program>) {
        let slot = &mut self.slots[usize::from(slot.0)];
        let cancelled = Arc::<AtomicBool>::default();
        slot.cancelled = cancelled.clone();
        let handed = slot.orders.try_send(Order { work, program, cancelled });
        assert!(handed.is_ok(), "an idle slot takes an order");
    }

    /// Makes a slot stop within a few milliseconds.
    pub(crate) fn cancel(&self, slot: SlotIndex) {
        self.slots[usize::from(slot.0)].cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.slots.iter().for_each(|slot| slot.cancelled.store(true, Ordering::Relaxed));
        for Slot { orders, thread, .. } in self.slots.drain(..) {
            drop(orders);
            // A slot's thread catches its kernel's panics; another would be ours and is on stderr already.
            let _ = thread.join();
        }
    }
}

/// Slots with those of the devices.
pub(crate) fn slots_with(slots: u16, devices: &[DeviceInfo]) -> u16 {
    slots.saturating_add(devices.len() as u16).min(limits::SLOTS_MAX)
}

fn work(
    orders: &Receiver<Order>,
    executor: &mut Executor,
    log: Option<&WorkLog>,
    report: impl Fn(Outcome) -> bool,
) {
    while let Ok(Order { work, program, cancelled }) = orders.recv() {
        let stop = || cancelled.load(Ordering::Relaxed);
        let outcome = guarded(&work, || program.run(&work, executor, &stop));
        #[cfg(feature = "liar")]
        let outcome = crate::lie::told(work.attempt.index.0, outcome);
        if let (Some(log), Outcome::Done { digest, .. }) = (log, &outcome) {
            log.computed(&work.attempt, digest);
        }
        // A job that is dropped lets go of what is in memory of its matrices before its slot is idle again.
        drop(program);
        if !report(outcome) {
            return;
        }
    }
}

/// What came of a kernel, whatever it did.
fn guarded(work: &ShardWork, kernel: impl FnOnce() -> Result<Vec<u8>, Trouble>) -> Outcome {
    let begun = Instant::now();
    // The kernel only reads what it shares, so a panic leaves nothing half done.
    let partial = catch_unwind(AssertUnwindSafe(kernel));
    let kernel_us = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
    let shard = work.attempt.index.0;
    match partial {
        Ok(Ok(partial)) => Outcome::Done { digest: Digest::of(&partial), partial, kernel_us },
        Ok(Err(Trouble::Stopped)) => Outcome::Stopped,
        Ok(Err(error)) => {
            tracing::warn!(job = %work.attempt.job, shard, %error, "the kernel failed");
            Outcome::Failed(error.failure())
        }
        Err(_) => {
            tracing::error!(job = %work.attempt.job, shard, "the kernel panicked: please report this");
            Outcome::Failed(ShardFailure::KernelFailed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tessera_agent_core::{Attempt, Task};
    use tessera_kernels::monte_carlo::{self, KernelError};
    use tessera_protocol::id::JobId;
    use tessera_protocol::monte_carlo as task;
    use tessera_protocol::unit::{Epoch, ShardIndex};

    fn points() -> task::Task {
        task::Task { key: [1, 2], model: task::Model::Pi }
    }

    fn program() -> Arc<Program> {
        Arc::new(Program::new(&Task::MonteCarlo(points()), |_| None, 0))
    }

    fn pi(count: u64) -> ShardWork {
        let attempt = Attempt { job: JobId([1; 16]), index: ShardIndex(0), epoch: Epoch(0) };
        let task = Arc::new(Task::MonteCarlo(points()));
        ShardWork { attempt, first: 0, count, task, pass: Arc::new([]) }
    }

    fn one_slot() -> (Runner, mpsc::Receiver<Outcome>) {
        let (sender, outcomes) = mpsc::channel();
        let report = move |_, outcome| sender.send(outcome).is_ok();
        (Runner::start(1, &[], Isa::PLAIN, (None, None), report).expect("a thread"), outcomes)
    }

    #[test]
    fn a_slot_computes_what_the_kernel_computes_and_then_the_next_shard() {
        let (mut runner, outcomes) = one_slot();
        for count in [1_000, 2_000] {
            let work = pi(count);
            let expected =
                monte_carlo::run(&points(), Isa::detect(), 0, count, &|| false).expect("a tally").encode();
            runner.begin(SlotIndex(0), work, program());
            let Ok(Outcome::Done { partial, digest, .. }) = outcomes.recv() else { panic!("no partial") };
            assert_eq!(digest, Digest::of(&expected));
            assert_eq!(partial, expected);
        }
    }

    #[test]
    fn a_cancelled_shard_stops_long_before_its_end() {
        let (mut runner, outcomes) = one_slot();
        runner.begin(SlotIndex(0), pi(1 << 45), program());
        runner.cancel(SlotIndex(0));
        assert_eq!(outcomes.recv_timeout(Duration::from_secs(20)), Ok(Outcome::Stopped));
    }

    #[test]
    fn a_kernel_that_panics_fails_its_shard_only() {
        let outcome = guarded(&pi(1), || panic!("a planted bug"));
        assert_eq!(outcome, Outcome::Failed(ShardFailure::KernelFailed));
        let outcome = guarded(&pi(1), || Err(KernelError::BookNotFinite.into()));
        assert_eq!(outcome, Outcome::Failed(ShardFailure::KernelFailed));
        assert!(matches!(guarded(&pi(1), || Ok(Vec::new())), Outcome::Done { .. }));
    }
    #[test]
    fn a_pass_that_no_kernel_knows_is_refused() {
        let (mut runner, outcomes) = one_slot();
        runner.begin(SlotIndex(0), ShardWork { pass: Arc::new([1]), ..pi(10) }, program());
        assert_eq!(outcomes.recv(), Ok(Outcome::Failed(ShardFailure::TaskInvalid)));
    }
}
