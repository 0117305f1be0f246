//! A simulated agent: the real machine of the agent around toy kernels, honest or not.

use std::collections::BTreeMap;

use tessera_agent_core::{Event, Form, Identity, InputFile, Machine, Outcome, ShardWork, Task};
use tessera_protocol::id::{AgentId, Digest};
use tessera_protocol::wire::{Hello, ShardFailure};
use tessera_protocol::{matrix, monte_carlo, staged};

use super::toy;

/// Half of it holds the matrices of the largest job, and of no other besides. *Units*: bytes.
const MEMORY_BYTES_MIN: u64 = 84_000;

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
    /// What it offers: agents of an earlier version have fewer kernels.
    kernels: &'static [&'static str],
    /// What it holds of each input.
    inputs: BTreeMap<InputFile, Vec<u8>>,
}

impl Agent {
    pub(super) fn new(number: u8, kind: Kind, pace_ms: u64, is_old: bool) -> Agent {
        let (id, slots) = (AgentId::of_key(&[number; 32]), 1 + u16::from(number % 3));
        Agent {
            id,
            machine: machine(id, slots),
            life: 0,
            lane: 0,
            session: None,
            kind,
            frozen: None,
            pace_ms,
            slots,
            kernels: if is_old { &["monte_carlo"] } else { &["monte_carlo", "gemm", "syrk", "catastrophe"] },
            inputs: BTreeMap::new(),
        }
    }

    /// The process dies; the next one knows nothing.
    pub(super) fn restart(&mut self) {
        self.life += 1;
        self.machine = machine(self.id, self.slots);
        self.session = None;
        self.frozen = None;
        self.inputs.clear();
    }

    /// Takes a piece of an input. *Order*: ascending, from the start.
    pub(super) fn store(&mut self, input: InputFile, offset: u64, piece: &[u8]) {
        let held = self.inputs.entry(input).or_default();
        if offset == 0 {
            held.clear();
        }
        assert_eq!(held.len() as u64, offset, "a piece is missing");
        held.extend(piece);
    }

    pub(super) fn drop_input(&mut self, input: InputFile) {
        self.inputs.remove(&input);
    }

    pub(super) fn hello(&self) -> Hello {
        let kernels = self.kernels.iter().map(|name| (*name).to_owned()).collect();
        Hello { kernels, ..hello(self.slots) }
    }

    pub(super) fn compute(&self, work: &ShardWork) -> Outcome {
        let epoch = work.attempt.epoch.0;
        let unlucky = (work.first ^ epoch).is_multiple_of(3);
        if self.kind == Kind::Failer && unlucky {
            return Outcome::Failed(ShardFailure::KernelFailed);
        }
        let mut partial = match &*work.task {
            Task::Matrix(task) => self.block(task, work.first),
            Task::MonteCarlo(task) => self.tally(task, work),
            Task::Staged(task) => self.product(task, work),
        };
        if self.kind == Kind::Garbler && unlucky {
            match epoch % 4 {
                0 => partial = vec![1, 2, 3],
                1 => partial.push(0),
                2 => _ = partial.pop(),
                _ => partial.fill(0xff),
            }
        }
        let digest = Digest::of(&partial);
        Outcome::Done { partial, digest, kernel_us: 1 }
    }

    fn tally(&self, task: &monte_carlo::Task, work: &ShardWork) -> Vec<u8> {
        let mut tally = toy::tally(task, &work.pass, work.first, work.count);
        if self.kind == Kind::Liar {
            match (tally.counts.as_mut_slice(), tally.sums.as_mut_slice()) {
                ([inside], _) => *inside = if *inside == 0 { 1 } else { *inside - 1 },
                (_, [sum, ..]) => sum.add(1.0).expect("one more is finite"),
                _ => _ = tally.bins.pop(),
            }
        }
        tally.encode()
    }

    fn input(&self, input: InputFile) -> &[u8] {
        let held = self.inputs.get(&input).filter(|held| held.len() as u64 == input.bytes);
        held.expect("a shard starts once its inputs are there")
    }

    fn product(&self, task: &staged::Task, work: &ShardWork) -> Vec<u8> {
        let input = |(blake3, bytes)| self.input(InputFile { blake3, bytes, form: Form::File });
        let inputs: Vec<&[u8]> = task.inputs().into_iter().map(input).collect();
        toy::product(task, work.first, work.count, &inputs, self.kind == Kind::Liar)
    }

    fn block(&self, task: &matrix::Task, index: u64) -> Vec<u8> {
        for (blake3, bytes) in task.inputs() {
            self.input(InputFile { blake3: Digest(blake3), bytes, form: Form::Matrix });
        }
        let mut block = toy::block(task, index);
        if self.kind == Kind::Liar {
            block[0] ^= 1;
        }
        block
    }
}

fn machine(id: AgentId, slots: u16) -> Machine {
    Machine::new(Identity { agent: id, hello: hello(slots), gpus: Vec::new() }, Vec::new())
}

fn hello(slots: u16) -> Hello {
    Hello {
        token: None,
        name: "simulated".to_owned(),
        version: "0".to_owned(),
        slots,
        isa: "plain".to_owned(),
        arch: "none".to_owned(),
        memory_bytes: MEMORY_BYTES_MIN * (2 + u64::from(slots)) / 2,
        kernels: Vec::new(),
    }
}
