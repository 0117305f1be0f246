//! A simulated agent: computes a toy kernel, at its own speed, honestly or not.

use std::collections::{BTreeMap, BTreeSet};

use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::tally::Tally;
use tessera_protocol::wire::{Assignment, Held, Hello};

/// One agent over all its sessions.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) lane: u16,
    pub(super) session: Option<u64>,
    /// Answers wrongly, each shard its own way.
    pub(super) liar: bool,
    /// Stopped computing and talking, with its session left open.
    pub(super) frozen: bool,
    /// *Units*: milliseconds to a shard.
    pub(super) pace_ms: u64,
    pub(super) told: BTreeSet<JobId>,
    pub(super) holding: BTreeMap<(JobId, u64), Assignment>,
}

impl Agent {
    pub(super) fn new(number: u8, lane: u16, liar: bool, pace_ms: u64) -> Agent {
        Agent {
            id: AgentId::of_key(&[number; 32]),
            lane,
            session: None,
            liar,
            frozen: false,
            pace_ms,
            told: BTreeSet::new(),
            holding: BTreeMap::new(),
        }
    }

    pub(super) fn forget_session(&mut self) {
        self.session = None;
        self.told.clear();
        self.holding.clear();
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.holding
            .iter()
            .map(|((job, index), assignment)| Held { job: job.0, index: *index, epoch: assignment.epoch })
            .collect()
    }

    pub(super) fn answer(&self, assignment: &Assignment) -> Vec<u8> {
        let mut tally = toy_kernel(assignment.first, assignment.count);
        if self.liar {
            let inside = &mut tally.counts[0];
            *inside = if *inside == 0 { 1 } else { *inside - 1 };
        }
        tally.encode()
    }
}

pub(super) fn hello(slots: u16) -> Hello {
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
