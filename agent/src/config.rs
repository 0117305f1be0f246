//! What an agent is told at its start.

use std::path::PathBuf;

use tessera_kernels::isa::Isa;
use tessera_protocol::address::HubAddress;
use tessera_protocol::spec::Region;
use tessera_protocol::token::EnrolmentToken;

use crate::devices::GpuChoice;

/// Everything an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP addresses of the hub, or of the hubs that serve side by side. *Order*: the first is tried first. At least
    /// one and at most [`limits::HUBS_MAX`](tessera_protocol::limits::HUBS_MAX).
    pub hubs: Vec<HubAddress>,
    /// Needed until the hub has taken the agent once.
    pub token: Option<EnrolmentToken>,
    /// Where its identity and the hub's key are kept; one agent a directory.
    pub data: PathBuf,
    /// What input files may take of the disk under it; nothing for as much as half of the memory. *Units*: bytes.
    pub cache_bytes_max: Option<u64>,
    /// The memory of this machine that is the agent's; nothing for all of it. *Units*: bytes.
    pub memory_bytes: Option<u64>,
    /// How many shards its processors compute at once; each GPU computes one more.
    pub slots: u16,
    /// Which GPUs it uses.
    pub gpus: GpuChoice,
    /// A name for people.
    pub name: String,
    /// Where it is: jobs may ask for a region.
    pub region: Option<Region>,
    /// The instruction set its kernels use.
    pub isa: Isa,
    /// Where it adds a line for each shard it computed, to prove later what the hub accepted.
    pub work_log: Option<PathBuf>,
}
