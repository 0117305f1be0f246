//! The checks and retries of one job that wait on a lane, by whom they ask for.
//!
//! Those that ask for the same kind of agent wait together: while every such agent is busy, none of them is looked at
//! in vain. Knows no agent.

use alloc::collections::VecDeque;

use crate::message::{Errand, Who};

/// What an errand asks of who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Anyone,
    Checker,
    TrustedChecker,
    Anchor,
}

impl Asked {
    pub(super) const ALL: [Asked; 4] = [Asked::Anyone, Asked::Checker, Asked::TrustedChecker, Asked::Anchor];

    pub(super) fn of(who: &Who) -> Asked {
        match who {
            Who::Anyone | Who::Others { .. } => Asked::Anyone,
            Who::Checker { trusted: false, .. } => Asked::Checker,
            Who::Checker { trusted: true, .. } => Asked::TrustedChecker,
            Who::Anchor => Asked::Anchor,
        }
    }
}

/// Errands of one job. *Order*: those of a kind in the order they came.
#[derive(Debug, Default)]
pub(super) struct Errands {
    waiting: [VecDeque<Errand>; 4],
}

impl Errands {
    /// Behind the others of its kind.
    pub(super) fn push(&mut self, errand: Errand) {
        self.waiting[Asked::of(&errand.who) as usize].push_back(errand);
    }

    /// The next of a kind.
    pub(super) fn pop(&mut self, asked: Asked) -> Option<Errand> {
        self.waiting[asked as usize].pop_front()
    }

    /// Whom the next of a kind asks for.
    pub(super) fn next_who(&self, asked: Asked) -> Option<&Who> {
        self.waiting[asked as usize].front().map(|errand| &errand.who)
    }

    /// Any of them.
    pub(super) fn first(&self) -> Option<&Errand> {
        self.waiting.iter().find_map(VecDeque::front)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// Takes them all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Errand> + '_ {
        self.waiting.iter_mut().flat_map(|waiting| waiting.drain(..))
    }
}
