//! How strong the hub's lanes are, as one of them last heard. Knows no agent.

use alloc::vec::Vec;

use tessera_protocol::unit::LaneIndex;

/// How many agents one lane has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strength {
    /// Agents that take work.
    pub agents: u32,
    /// How many of them are the operator's own.
    pub anchors: u32,
    /// Agents lost so far: gone or silent without a word.
    pub lost: u64,
}

/// The strength of each lane.
#[derive(Clone, Debug)]
pub struct Fleet {
    lanes: Vec<Strength>,
}

impl Fleet {
    /// Lanes that nothing was heard of.
    pub fn new(lanes: u16) -> Fleet {
        Fleet { lanes: alloc::vec![Strength::default(); usize::from(lanes)] }
    }

    /// A lane says how strong it is.
    pub fn set(&mut self, lane: LaneIndex, strength: Strength) {
        if let Some(known) = self.lanes.get_mut(lane.as_usize()) {
            *known = strength;
        }
    }

    /// Whether agents of a lane take work.
    pub fn works(&self, lane: LaneIndex) -> bool {
        self.lanes.get(lane.as_usize()).is_some_and(|lane| lane.agents > 0)
    }

    /// Agents of all lanes.
    pub fn total(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.agents).sum()
    }

    /// The operator's agents of all lanes.
    pub fn anchors(&self) -> u32 {
        self.lanes.iter().map(|lane| lane.anchors).sum()
    }

    /// Agents that were lost so far. It grows.
    pub fn lost(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.lost).sum()
    }
}
