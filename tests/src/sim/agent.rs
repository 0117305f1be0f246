//! A simulated agent: the real machine of the agent around a toy kernel, honest or not.

use tessera_agent_core::{Event, Identity, Machine, Outcome, ShardWork};
use tessera_protocol::id::{AgentId, Digest};
use tessera_protocol::tally::Tally;
use tessera_protocol::wire::{Hello, ShardFailure};

/// How an agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Honest,
    /// Wrongly, always, and for each shard the same.
    Liar,
    /// With bytes that are no partial, one time in three.
    Garbler,
    /// That it failed, one time in three.
    Failer,
}

/// One agent over all its sessions and processes.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) machine: Machine,
    /// Counts its processes; what belongs to an earlier one is dropped.
    pub(super) life: u64,
    pub(super) lane: u16,
    pub(super) session: Option<u64>,
    kind: Kind,
    /// What it could not take in while it was stopped; `None` while it runs.
    pub(super) frozen: Option<Vec<Event>>,
    /// *Units*: milliseconds to a shard.
    pub(super) pace_ms: u64,
    slots: u16,
}

impl Agent {
    pub(super) fn new(number: u8, kind: Kind, pace_ms: u64) -> Agent {
        let (id, slots) = (AgentId::of_key(&[number; 32]), 1 + u16::from(number % 3));
        let machine = machine(id, slots);
        Agent { id, machine, life: 0, lane: 0, session: None, kind, frozen: None, pace_ms, slots }
    }

    /// The process dies; the next one knows nothing.
    pub(super) fn restart(&mut self) {
        self.life += 1;
        self.machine = machine(self.id, self.slots);
        self.session = None;
        self.frozen = None;
    }

    pub(super) fn hello(&self) -> Hello {
        hello(self.slots)
    }

    pub(super) fn compute(&self, work: &ShardWork) -> Outcome {
        let mut tally = toy_kernel(work.first, work.count);
        let unlucky = (work.first ^ work.attempt.epoch.0).is_multiple_of(3);
        if self.kind == Kind::Failer && unlucky {
            return Outcome::Failed(ShardFailure::KernelFailed);
        }
        if self.kind == Kind::Liar {
            let inside = &mut tally.counts[0];
            *inside = if *inside == 0 { 1 } else { *inside - 1 };
        }
        let partial = if self.kind == Kind::Garbler && unlucky { vec![1, 2, 3] } else { tally.encode() };
        let digest = Digest::of(&partial);
        Outcome::Done { partial, digest, kernel_us: 1 }
    }
}

fn machine(id: AgentId, slots: u16) -> Machine {
    Machine::new(Identity { agent: id, hello: hello(slots) })
}

fn hello(slots: u16) -> Hello {
    Hello {
        token: None,
        name: "simulated".to_owned(),
        version: "0".to_owned(),
        slots,
        isa: "plain".to_owned(),
        arch: "none".to_owned(),
        memory_bytes: 0,
        kernels: vec!["monte_carlo".to_owned()],
    }
}

/// Counts samples whose mixed number is odd: additive over any cut of a range.
pub(super) fn toy_kernel(first: u64, count: u64) -> Tally {
    let inside = (first..first + count)
        .filter(|sample| {
            let mixed = (sample ^ (sample >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 40) & 1 == 1
        })
        .count();
    Tally { samples: count, counts: vec![inside as u64], ..Tally::default() }
}
