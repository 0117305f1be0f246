//! An agent with a live session on a lane, and what it holds.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::api::{AgentState, AgentView, GpuView, RestView, Standing};
use tessera_protocol::id::AgentId;
use tessera_protocol::unit::{LaneIndex, Tick, UnixMillis};
use tessera_protocol::wire::{Gpu, Hello};

use super::attempts::{AttemptName, Attempts};
use super::fleet::Seat;
use super::score::Score;
use crate::message::Device;
use crate::{Account, SessionId};

/// An agent with a live session on this lane.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) session: SessionId,
    pub(super) account: Account,
    /// As its registry last said.
    pub(super) standing: Standing,
    pub(super) hello: Box<Hello>,
    pub(super) gpus: Vec<Gpu>,
    /// How often it said which.
    pub(super) offer: u32,
    pub(super) credit: u32,
    pub(super) leaving: bool,
    pub(super) heard: Tick,
    pub(super) attempts: Attempts,
    /// Attempts whose lease ran out and that it may hold or get all the same, and since when: they take credit until it
    /// answers them or, a while later, sends a heartbeat that does not name them.
    pub(super) lapsed: BTreeMap<AttemptName, Tick>,
    pub(super) completed: u64,
    pub(super) mismatches: u64,
    pub(super) device: Device,
    /// What it has shown.
    pub(super) score: Score,
    /// Where the fleet has it; nothing once it takes no more work.
    pub(super) seat: Option<Seat>,
    /// It gets no work before then, since it failed where others did not.
    pub(super) resting_until: Option<Tick>,
    /// Whether something of it changed since it was last shown.
    pub(super) unseen: bool,
}

impl Agent {
    /// Whether it gets work as soon as it has credit.
    pub(super) fn takes_work(&self) -> bool {
        !self.leaving && self.resting_until.is_none()
    }

    /// How full it is. *Units*: per mille of its credit.
    pub(super) fn load(&self) -> u32 {
        self.load_with(0)
    }

    /// The same if it held so many more.
    pub(super) fn load_with(&self, more: u64) -> u32 {
        ((self.held() + more) * 1000 / u64::from(self.credit)) as u32
    }

    pub(super) fn has_credit(&self) -> bool {
        self.takes_work() && self.held() < self.allowed()
    }

    /// Attempts it may hold: one at a time where it was proven wrong.
    pub(super) fn allowed(&self) -> u64 {
        if self.standing == Standing::Sandboxed { 1 } else { u64::from(self.credit) }
    }

    pub(super) fn held(&self) -> u64 {
        (self.attempts.len() + self.lapsed.len()) as u64
    }
}

/// Until when an agent rests, and why.
pub(super) fn rest_of(agent: &Agent, origin: UnixMillis) -> Option<RestView> {
    agent.resting_until.map(|until| RestView {
        until_ms: UnixMillis(origin.0.saturating_add(until.0)),
        because: "its attempts came to nothing at shards that passed elsewhere".to_string(),
    })
}

pub(super) fn view_of(lane: LaneIndex, id: AgentId, agent: &Agent, origin: UnixMillis) -> AgentView {
    AgentView {
        id,
        name: agent.hello.name.clone(),
        state: if agent.leaving { AgentState::Leaving } else { AgentState::Connected },
        lane: Some(lane.0),
        version: agent.hello.version.clone(),
        slots: agent.hello.slots,
        isa: agent.hello.isa.clone(),
        arch: agent.hello.arch.clone(),
        memory_bytes: agent.hello.memory_bytes,
        region: agent.hello.region.clone(),
        gpus: agent.gpus.iter().map(gpu_view).collect(),
        kernels: agent.hello.kernels.clone(),
        in_flight: agent.attempts.len() as u32,
        completed: agent.completed,
        mismatches: agent.mismatches,
        // Its name is the shell's to know.
        provider: agent.account.provider.to_string(),
        anchor: agent.account.anchor,
        standing: Some(agent.standing),
        rest: rest_of(agent, origin),
    }
}

fn gpu_view(gpu: &Gpu) -> GpuView {
    let [major, minor] = gpu.compute_capability;
    GpuView {
        name: gpu.name.clone(),
        memory_bytes: gpu.memory_bytes,
        compute_capability: alloc::format!("{major}.{minor}"),
        driver: gpu.driver.clone(),
    }
}
