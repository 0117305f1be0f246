//! The slots: which attempt computes where.
//!
//! Owns the state of every slot and nothing of what an attempt is for.

use alloc::vec;
use alloc::vec::Vec;

use tessera_protocol::id::JobId;

use crate::attempt::{Attempt, SlotIndex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Idle,
    Running(Attempt),
    /// Told to stop, has not yet.
    Stopping,
}

/// All slots of the agent.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// The idle ones; the last is used next, so that few slots do little work.
    idle: Vec<SlotIndex>,
}

impl Slots {
    /// `count` idle slots.
    pub(crate) fn new(count: u16) -> Slots {
        Slots { slots: vec![Slot::Idle; usize::from(count)], idle: (0..count).rev().map(SlotIndex).collect() }
    }

    /// Whether a slot has nothing to do.
    pub(crate) fn any_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Takes an idle slot for `attempt`.
    pub(crate) fn start(&mut self, attempt: Attempt) -> Option<SlotIndex> {
        let slot = self.idle.pop()?;
        self.slots[usize::from(slot.0)] = Slot::Running(attempt);
        Some(slot)
    }

    /// The slot is idle again; the attempt, unless it had been cancelled.
    pub(crate) fn end(&mut self, slot: SlotIndex) -> Option<Attempt> {
        let state = core::mem::replace(&mut self.slots[usize::from(slot.0)], Slot::Idle);
        assert_ne!(state, Slot::Idle, "slot {} ended what it had not begun", slot.0);
        self.idle.push(slot);
        match state {
            Slot::Running(attempt) => Some(attempt),
            Slot::Idle | Slot::Stopping => None,
        }
    }

    /// The slots that computed `job` (any job when `None`) and must be told to stop.
    pub(crate) fn cancel(&mut self, job: Option<JobId>) -> Vec<SlotIndex> {
        let mut told = Vec::new();
        for (index, slot) in (0u16..).zip(&mut self.slots) {
            if let Slot::Running(attempt) = *slot
                && job.is_none_or(|job| job == attempt.job)
            {
                *slot = Slot::Stopping;
                told.push(SlotIndex(index));
            }
        }
        told
    }

    /// The attempts that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = Attempt> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Running(attempt) => Some(*attempt),
            Slot::Idle | Slot::Stopping => None,
        })
    }

    /// Panics when the idle list and the slots disagree.
    pub(crate) fn invariants(&self) {
        let idle = self.slots.iter().filter(|slot| **slot == Slot::Idle).count();
        assert_eq!(idle, self.idle.len());
        assert!(self.idle.iter().all(|slot| self.slots[usize::from(slot.0)] == Slot::Idle));
    }
}
