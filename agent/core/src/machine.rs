//! The machine: the one place that matches on events.
//!
//! Owns the phases of the connection and the order in which the rooms (intake, slots, outbox) are asked.
//! Decides what happens next; does none of it.

#[cfg(test)]
mod input_tests;
mod phase;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;

use alloc::collections::{VecDeque, vec_deque};
use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::limits;
use tessera_protocol::unit::Tick;
use tessera_protocol::wire::{
    AgentControl, AgentWork, BulkHeader, Gpu, Hello, Refusal, ShardFailure, Welcome,
};

use crate::attempt::SlotIndex;
use crate::backoff::Backoff;
use crate::effect::{Closing, Effect, Exit};
use crate::event::{Event, Outcome, Random};
use crate::hubs::{Hubs, Next};
use crate::inputs::{Claim, Inputs};
use crate::intake::{Intake, Unable};
use crate::outbox::{Finished, Outbox};
use crate::pulse::Pulse;
use crate::slots::Slots;
use crate::task::{InputFile, KERNELS, UnusableJob};
use crate::violation::Violation;
use phase::{Phase, Working};

/// How long a hub may take to answer a hello. *Units*: milliseconds; as long as the hub gives itself.
const WELCOME_MS_MAX: u64 = 10_000;
/// A session that lasted this long resets the backoff. *Units*: milliseconds; longer than a hub that
/// welcomes and drops its agents needs to do so.
const LASTING_MS: u64 = 10_000;
/// How long shards in flight may take when the agent leaves. *Units*: milliseconds; within what service
/// managers wait before they kill.
const LEAVE_MS_MAX: u64 = 10_000;
/// How long the last frames get to arrive before the session is closed: several round trips and one
/// retransmission. A hub that closes first makes it shorter. *Units*: milliseconds.
const LINGER_MS: u64 = 300;
/// Shortest time between heartbeats, whatever the hub asks. *Units*: milliseconds.
const HEARTBEAT_MS_MIN: u64 = 100;
/// Memory for matrices where the system does not tell how much there is. *Units*: bytes.
const OPERAND_BYTES_UNKNOWN: u64 = 1 << 30;
/// Room of a partial's header in [`limits::BULK_BYTES_MAX`]. *Units*: bytes.
const BULK_HEADER_BYTES_MAX: usize = 256;

/// Who an agent is and what it offers; what its hello says.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The id of its key.
    pub agent: AgentId,
    /// What it says of itself. Its `kernels` are filled in here; half of its memory is for what kernels hold. Where
    /// the files on its disk may take more, it offers twice that.
    pub hello: Hello,
    /// The GPUs that compute some of its shards.
    pub gpus: Vec<Gpu>,
    /// What files may take of the disk. *Units*: bytes.
    pub cache_bytes_max: u64,
    /// For whom it may work.
    pub hubs: Hubs,
}

/// What operands may take of the memory of a machine that has so much, and files of its disk unless the provider says
/// otherwise. *Units*: bytes.
pub fn operand_bytes_max(memory_bytes: u64) -> u64 {
    match memory_bytes {
        0 => OPERAND_BYTES_UNKNOWN,
        memory_bytes => memory_bytes / 2,
    }
}

/// The agent.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    phase: Phase,
    /// Set once the provider has asked the program to end: when it ends at the latest.
    leave_by: Option<Tick>,
    backoff: Backoff,
    pulse: Pulse,
    intake: Intake,
    inputs: Inputs,
    slots: Slots,
    outbox: Outbox,
    /// Empty between steps.
    effects: VecDeque<Effect>,
    now: Tick,
}

/// The effects of one step, in order. It borrows the machine: they must be taken before the next step.
#[must_use = "effects that are not carried out are lost"]
#[derive(Debug)]
pub struct Drain<'a>(vec_deque::Drain<'a, Effect>);

impl Iterator for Drain<'_> {
    type Item = Effect;
    fn next(&mut self) -> Option<Effect> {
        self.0.next()
    }
}

impl Machine {
    /// An agent that has not begun. It computes `hello.slots` shards at once, with [`KERNELS`] and those that
    /// `hello` names besides. `kept` are the files that it has from before, the one that was used longest ago first, and
    /// there must be room for them.
    pub fn new(mut identity: Identity, kept: Vec<InputFile>) -> Machine {
        let more = core::mem::take(&mut identity.hello.kernels);
        identity.hello.kernels = KERNELS.iter().map(ToString::to_string).chain(more).collect();
        let operand_bytes_max = operand_bytes_max(identity.hello.memory_bytes);
        // A hub gives jobs to agents that say they have twice the memory of the job's files; these lie on the disk.
        if identity.cache_bytes_max > operand_bytes_max {
            identity.hello.memory_bytes = identity.cache_bytes_max.saturating_mul(2);
        }
        Machine {
            pulse: Pulse::new(identity.agent),
            inputs: Inputs::new(operand_bytes_max, identity.cache_bytes_max, kept),
            slots: Slots::new(identity.hello.slots),
            identity,
            phase: Phase::Fresh,
            leave_by: None,
            backoff: Backoff::default(),
            intake: Intake::default(),
            outbox: Outbox::default(),
            effects: VecDeque::new(),
            now: Tick(0),
        }
    }

    /// Takes one fact and says what to do. *Order*: `now` never goes back.
    pub fn step(&mut self, now: Tick, event: Event) -> Drain<'_> {
        assert!(now >= self.now, "the clock went back from {:?} to {now:?}", self.now);
        assert!(self.effects.is_empty());
        self.now = now;
        match event {
            Event::Started => self.begin(),
            Event::HubReached => self.greet(),
            Event::ConnectFailed { random } | Event::SessionLost { random } => self.wait(random, None),
            Event::HubKeyDiffered { found, random } => self.wait(random, Some(found)),
            Event::Welcomed(welcome) => self.welcomed(welcome),
            Event::Refused(refusal) => self.refused(refusal),
            Event::HubDrained => self.hub_drained(),
            Event::HubMoved { to } => self.hub_moved(&to),
            Event::HubsTold { addresses } => self.working(|machine, _| {
                if let Some(hubs) = machine.identity.hubs.tell(&addresses) {
                    machine.effects.push_back(Effect::RememberHubs { hubs: hubs.to_vec() });
                }
                Ok(())
            }),
            Event::JobAnnounced { job, kernel, task } => {
                self.working(|machine, _| {
                    let offered = &machine.identity.hello.kernels;
                    machine.intake.announce(job, (&kernel, offered), task.as_deref())
                });
            }
            Event::TaskArrived { job, task } => self.working(|machine, _| {
                let unable = machine.intake.task_arrived(job, &task)?;
                machine.fail(unable);
                Ok(())
            }),
            Event::ShardsAssigned { job, items } => self.working(|machine, credit| {
                let unable = machine.intake.assign(job, &items, credit)?;
                machine.fail(unable);
                Ok(())
            }),
            Event::PassSet { job, pass } => self.working(|machine, _| machine.intake.set_pass(job, pass)),
            Event::PieceArrived { job, input, offset, piece } => self.working(|machine, _| {
                machine.effects.extend(machine.inputs.piece_arrived(job, input, offset, piece)?);
                Ok(())
            }),
            Event::InputUnavailable { job, input } => self.working(|machine, _| {
                let unusable = machine.inputs.unavailable(job, input)?;
                machine.give_up(unusable);
                Ok(())
            }),
            Event::PieceStored { fetch } => self.effects.extend(self.inputs.piece_stored(now, fetch)),
            Event::InputRejected { fetch } => {
                for job in self.inputs.rejected(fetch) {
                    self.fail_job(job);
                }
            }
            Event::JobForgotten { job } => self.working(|machine, _| {
                machine.forget(job);
                Ok(())
            }),
            Event::ShardEnded { slot, outcome } => self.shard_ended(slot, outcome),
            Event::ProtocolBroken(violation) => self.protocol_broken(violation),
            Event::StopRequested => self.stop_requested(),
            Event::TimePassed => {}
        }
        self.settle();
        Drain(self.effects.drain(..))
    }

    /// When `TimePassed` is wanted next; `None` when only other events matter.
    pub fn next_timer(&self) -> Option<Tick> {
        let leave_by = self.leave_by.filter(|_| matches!(self.phase, Phase::Working(_)));
        let timers = [self.phase.next_timer(), self.outbox.leave_at(), self.inputs.late_at(), leave_by];
        timers.into_iter().flatten().min()
    }

    /// Panics when the rooms disagree: for tests and simulation, after every step.
    pub fn invariants(&self) {
        self.slots.invariants();
        assert!(self.effects.is_empty());
        self.inputs.invariants();
        self.intake.invariants(self.slots.running().chain(self.outbox.attempts()), self.inputs.rooms());
        assert!(!(self.slots.any_idle() && self.intake.any_ready()), "a slot is idle while a shard waits");
        assert!(
            !(self.slots.any_idle() && self.outbox.leave_at().is_some()),
            "a result waits beside an idle slot"
        );
        match &self.phase {
            Phase::Working(working) => assert!(self.intake.in_flight().len() <= working.credit as usize),
            _ => {
                assert!(self.intake.in_flight().is_empty(), "shards in flight without a session");
                assert_eq!(self.inputs.rooms().count(), 0, "room for a job without a session");
            }
        }
    }

    fn begin(&mut self) {
        if let Phase::Fresh = self.phase {
            self.connect();
        }
    }

    fn connect(&mut self) {
        self.phase = Phase::Connecting;
        let hub = self.identity.hubs.current().clone();
        self.effects.push_back(Effect::Connect { hub });
    }

    fn greet(&mut self) {
        if let Phase::Connecting = self.phase {
            self.phase = Phase::Greeting { until: self.now.after_ms(WELCOME_MS_MAX) };
            self.effects.push_back(Effect::SendControl(AgentControl::Hello(self.identity.hello.clone())));
        }
    }

    /// The session is gone, or none came: everything of it is cancelled and forgotten, another follows later. `stranger`
    /// is the key of one that is not the hub: with other hubs to try it is as one that does not answer.
    fn wait(&mut self, random: Random, stranger: Option<[u8; 32]>) {
        self.pulse.stir(random);
        if let Phase::Working(working) = &self.phase
            && working.since.after_ms(LASTING_MS) <= self.now
        {
            self.backoff.reset();
        }
        self.drop_work();
        match self.phase {
            Phase::Fresh | Phase::Waiting { .. } | Phase::Ended => {}
            _ if self.leave_by.is_some() => self.exit(Exit::Stopped),
            _ => {
                let next = self.identity.hubs.failed(stranger.is_some(), random);
                let delay_ms = match (next, stranger) {
                    (Next::Again { only_strangers: true }, Some(found)) => {
                        return self.exit(Exit::HubKeyDiffered { found });
                    }
                    (Next::Other, _) => Backoff::jitter_ms(random),
                    (Next::Again { .. }, _) => self.backoff.next_ms(random),
                };
                self.phase = Phase::Waiting { until: self.now.after_ms(delay_ms) };
                self.effects.push_back(Effect::AnnounceRetry { delay_ms });
            }
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        let named = AgentId(welcome.agent);
        match self.phase {
            Phase::Greeting { .. } => {}
            Phase::Working(_) => return self.close(Closing::Violated(Violation::OutOfTurn)),
            _ => return,
        }
        if named != self.identity.agent {
            return self.close(Closing::Violated(Violation::WelcomeOfAnother { named }));
        }
        if welcome.credit as usize > limits::BATCH_ITEMS_MAX {
            let credit = welcome.credit;
            return self.close(Closing::Violated(Violation::CreditTooLarge { credit }));
        }
        let heartbeat_ms = welcome.heartbeat_ms.max(HEARTBEAT_MS_MIN);
        self.phase = Phase::Working(Working {
            credit: welcome.credit,
            heartbeat_ms,
            heartbeat_at: self.now.after_ms(self.pulse.next_ms(heartbeat_ms)),
            since: self.now,
            ending: None,
            linger_until: None,
        });
        self.identity.hubs.took();
        // The hub knows the key from now on, and a secret is not sent twice.
        self.identity.hello.token = None;
        if !self.identity.gpus.is_empty() {
            let devices = AgentControl::Devices(self.identity.gpus.clone());
            self.effects.push_back(Effect::SendControl(devices));
        }
        self.effects.push_back(Effect::RememberHub);
    }

    fn refused(&mut self, refusal: Refusal) {
        match self.phase {
            Phase::Greeting { .. } | Phase::Working(_) if refusal.is_passing() => {
                self.close(Closing::Refused(refusal));
            }
            Phase::Greeting { .. } | Phase::Working(_) => self.exit(Exit::Refused(refusal)),
            _ => {}
        }
    }

    fn hub_drained(&mut self) {
        match &mut self.phase {
            Phase::Working(working) => working.ending = Some(Closing::Drained),
            Phase::Greeting { .. } => self.close(Closing::Drained),
            _ => {}
        }
    }

    /// As a hub that stops, but for this agent alone: the hub must know that it is to give it nothing more.
    fn hub_moved(&mut self, to: &str) {
        match &mut self.phase {
            Phase::Working(working) if working.ending.is_none() && self.leave_by.is_none() => {
                working.ending = Some(Closing::Moved);
                self.identity.hubs.prefer(to);
                self.effects.push_back(Effect::SendControl(AgentControl::Leaving));
            }
            Phase::Greeting { .. } => self.close(Closing::Violated(Violation::OutOfTurn)),
            _ => {}
        }
    }

    /// Does what only a welcomed session allows; a violation closes the session.
    fn working(&mut self, act: impl FnOnce(&mut Machine, u32) -> Result<(), Violation>) {
        let outcome = match &self.phase {
            Phase::Working(working) => {
                let credit = working.credit;
                act(self, credit)
            }
            Phase::Greeting { .. } => Err(Violation::OutOfTurn),
            _ => Ok(()),
        };
        if let Err(violation) = outcome {
            self.close(Closing::Violated(violation));
        }
    }

    fn protocol_broken(&mut self, violation: Violation) {
        if let Phase::Greeting { .. } | Phase::Working(_) = self.phase {
            self.close(Closing::Violated(violation));
        }
    }

    fn fail(&mut self, unable: impl IntoIterator<Item = Unable>) {
        for (attempt, failure) in unable {
            let (index, epoch) = (attempt.index.0, attempt.epoch.0);
            let failed = AgentWork::Failed { job: attempt.job.0, index, epoch, failure };
            self.effects.push_back(Effect::SendWork(failed));
        }
    }

    fn forget(&mut self, job: JobId) {
        let kept = self.intake.forget(job);
        self.outbox.forget(job);
        let told = self.slots.cancel(Some(job));
        self.effects.extend(told.into_iter().map(|slot| Effect::CancelShard { slot }));
        if kept {
            self.effects.push_back(Effect::DropJob { job });
        }
        self.effects.extend(self.inputs.let_go(self.now, job));
    }

    /// A job's operands cannot be had, for a reason that the provider has not been told.
    fn give_up(&mut self, unusable: Option<UnusableJob>) {
        if let Some((job, reason)) = unusable {
            self.effects.push_back(Effect::AnnounceUnusable { job, reason });
            self.fail_job(job);
        }
    }

    fn fail_job(&mut self, job: JobId) {
        let unable = self.intake.give_up(job, ShardFailure::InputUnusable);
        self.fail(unable);
        self.effects.extend(self.inputs.let_go(self.now, job));
    }

    /// Gives jobs whose shards wait the room for their operands, and lets those start that have them all.
    /// Where there is no room for one, none after it is given any.
    fn gather(&mut self) {
        let late = self.inputs.late(self.now);
        self.give_up(late);
        let mut room = true;
        for (job, operands) in self.intake.wanting() {
            if let Err(reason) = self.inputs.check(&operands) {
                self.give_up(Some((job, reason)));
                continue;
            }
            if !room && !self.inputs.rooms().any(|with_room| with_room == job) {
                continue;
            }
            let mut evicted = Vec::new();
            let intake = &self.intake;
            let idle = |job| intake.is_idle(job);
            let (claim, effects) = self.inputs.claim(self.now, job, &operands, &idle, &mut evicted);
            for evicted in evicted {
                if self.intake.scattered(evicted) {
                    self.effects.push_back(Effect::DropJob { job: evicted });
                }
            }
            self.effects.extend(effects);
            match claim {
                Claim::Ready => self.intake.gathered(job),
                Claim::Gathering => {}
                Claim::NoRoom => room = false,
            }
        }
    }

    fn shard_ended(&mut self, slot: SlotIndex, outcome: Outcome) {
        let Some(attempt) = self.slots.end(slot) else { return };
        let failure = match outcome {
            Outcome::Done { partial, digest, kernel_us }
                if partial.len() <= limits::BULK_BYTES_MAX - BULK_HEADER_BYTES_MAX =>
            {
                return self.outbox.put(self.now, Finished { attempt, digest, kernel_us, partial });
            }
            // No stream carries it, or it stopped without having been told to.
            Outcome::Done { .. } | Outcome::Stopped => ShardFailure::KernelFailed,
            Outcome::Failed(failure) => failure,
        };
        self.intake.answered(attempt);
        self.fail([(attempt, failure)]);
    }

    fn stop_requested(&mut self) {
        match self.phase {
            Phase::Ended => {}
            _ if self.leave_by.is_some() => self.exit(Exit::Stopped),
            Phase::Working(_) => {
                self.leave_by = Some(self.now.after_ms(LEAVE_MS_MAX));
                self.effects.push_back(Effect::SendControl(AgentControl::Leaving));
            }
            _ => self.exit(Exit::Stopped),
        }
    }

    /// What follows from the state and the time, whichever event came: shards start before anything is
    /// sent, so that no slot waits for a send.
    fn settle(&mut self) {
        self.start_shards();
        if self.outbox.leave_at().is_some() && (self.slots.any_idle() || self.outbox.is_due(self.now)) {
            self.flush();
            // What was answered may have been all that held the room another job waits for.
            self.start_shards();
        }
        match &self.phase {
            Phase::Waiting { until } if *until <= self.now => self.connect(),
            Phase::Greeting { until } if *until <= self.now => self.close(Closing::NoWelcome),
            Phase::Working(_) => self.keep_session(),
            _ => {}
        }
    }

    fn start_shards(&mut self) {
        self.gather();
        while self.slots.any_idle() {
            let Some(work) = self.intake.next() else { break };
            let Some(slot) = self.slots.start(work.attempt) else { unreachable!("a slot is idle") };
            self.effects.push_back(Effect::StartShard { slot, work });
        }
    }

    fn flush(&mut self) {
        let leaving: Vec<_> = self.outbox.attempts().collect();
        leaving.into_iter().for_each(|attempt| self.intake.answered(attempt));
        self.effects.extend(self.outbox.take());
    }

    fn keep_session(&mut self) {
        let Phase::Working(working) = &mut self.phase else { return };
        if working.heartbeat_at <= self.now {
            working.heartbeat_at = self.now.after_ms(self.pulse.next_ms(working.heartbeat_ms));
            let holding = self.intake.in_flight().iter().map(|attempt| attempt.held()).collect();
            self.effects.push_back(Effect::SendControl(AgentControl::Heartbeat { holding }));
        }
        let leaving = self.leave_by.is_some();
        let idle = self.intake.in_flight().is_empty();
        working.linger_until = match working.linger_until {
            _ if !(idle && (leaving || working.ending.is_some())) => None,
            None => Some(self.now.after_ms(LINGER_MS)),
            until => until,
        };
        let ending = working.ending.unwrap_or(Closing::Drained);
        let lingered = working.linger_until.is_some_and(|until| until <= self.now);
        if self.leave_by.is_some_and(|leave_by| leave_by <= self.now) || (leaving && lingered) {
            self.exit(Exit::Stopped);
        } else if lingered {
            self.close(ending);
        }
    }

    fn drop_work(&mut self) {
        let told = self.slots.cancel(None);
        self.effects.extend(told.into_iter().map(|slot| Effect::CancelShard { slot }));
        self.effects.extend(self.intake.begun().map(|job| Effect::DropJob { job }));
        self.effects.extend(self.inputs.session_over());
        self.intake = Intake::default();
        self.outbox = Outbox::default();
    }

    fn close(&mut self, reason: Closing) {
        if let Phase::Working(working) = &self.phase
            && working.since.after_ms(LASTING_MS) <= self.now
        {
            self.backoff.reset();
        }
        self.drop_work();
        self.phase = Phase::Closing;
        self.effects.push_back(Effect::CloseSession { reason });
    }

    fn exit(&mut self, reason: Exit) {
        let closing = match reason {
            Exit::Refused(refusal) => Closing::Refused(refusal),
            Exit::Stopped | Exit::HubKeyDiffered { .. } => Closing::Left,
        };
        self.drop_work();
        if matches!(self.phase, Phase::Greeting { .. } | Phase::Working(_)) {
            self.effects.push_back(Effect::CloseSession { reason: closing });
        }
        self.phase = Phase::Ended;
        self.leave_by = None;
        self.effects.push_back(Effect::Exit { reason });
    }
}

/// A payload's header fits the room kept for it.
const _: () = assert!(core::mem::size_of::<BulkHeader>() < BULK_HEADER_BYTES_MAX);
