//! Agents and jobs of a lane: found by their ids, and without a search by small numbers while they are here.
//!
//! What is done for each frame goes by numbers; ids are what the world outside knows.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::marker::PhantomData;

use slab::Slab;
use tessera_protocol::id::{AgentId, JobId};

use crate::page::{PAGE, bits};

/// Names a place in a roster, which another gets once its owner is gone.
pub(super) trait Number: Copy + Debug + Ord {
    fn new(at: usize) -> Self;
    fn at(self) -> usize;
}

/// An agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AgentNo(u32);

impl AgentNo {
    /// Behind all there are.
    pub(super) const LAST: AgentNo = AgentNo(u32::MAX);
}

impl Number for AgentNo {
    fn new(at: usize) -> AgentNo {
        AgentNo(at as u32)
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// A job's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobNo(u32);

impl Number for JobNo {
    fn new(at: usize) -> JobNo {
        JobNo(at as u32)
    }

    fn at(self) -> usize {
        self.0 as usize
    }
}

pub(super) type Agents = Roster<AgentId, AgentNo, super::Agent>;
pub(super) type Jobs = Roster<JobId, JobNo, super::LaneJob>;

/// Who is here. *Order*: of all iteration, by id; places that are free are not looked at, of which there may be many.
#[derive(Debug)]
pub(super) struct Roster<K, N, T> {
    numbers: BTreeMap<K, N>,
    members: Slab<(K, T)>,
}

impl<K, N, T> Default for Roster<K, N, T> {
    fn default() -> Roster<K, N, T> {
        Roster { numbers: BTreeMap::new(), members: Slab::new() }
    }
}

impl<K: Copy + Debug + Ord, N: Number, T> Roster<K, N, T> {
    /// One comes that is not here.
    ///
    /// *Panics*: when it is.
    pub(super) fn insert(&mut self, id: K, member: T) -> N {
        let number = N::new(self.members.insert((id, member)));
        let before = self.numbers.insert(id, number);
        assert!(before.is_none(), "{id:?} is here already");
        number
    }

    pub(super) fn remove(&mut self, id: &K) -> Option<(N, T)> {
        let number = self.numbers.remove(id)?;
        let (_, member) = self.members.try_remove(number.at())?;
        Some((number, member))
    }

    pub(super) fn number(&self, id: &K) -> Option<N> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, id: &K) -> Option<&T> {
        self.at(self.number(id)?)
    }

    pub(super) fn get_mut(&mut self, id: &K) -> Option<&mut T> {
        self.at_mut(self.number(id)?)
    }

    pub(super) fn at(&self, number: N) -> Option<&T> {
        self.members.get(number.at()).map(|(_, member)| member)
    }

    pub(super) fn at_mut(&mut self, number: N) -> Option<&mut T> {
        self.members.get_mut(number.at()).map(|(_, member)| member)
    }

    pub(super) fn id(&self, number: N) -> Option<K> {
        self.members.get(number.at()).map(|(id, _)| *id)
    }

    pub(super) fn entry(&mut self, number: N) -> Option<(K, &mut T)> {
        self.members.get_mut(number.at()).map(|(id, member)| (*id, member))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (N, K, &T)> + Clone {
        let member = |(id, number): (&K, &N)| Some((*number, *id, self.at(*number)?));
        self.numbers.iter().filter_map(member)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.iter().map(|(.., member)| member)
    }

    pub(super) fn for_each_mut(&mut self, mut change: impl FnMut(N, K, &mut T)) {
        for (id, number) in &self.numbers {
            if let Some((_, member)) = self.members.get_mut(number.at()) {
                change(*number, *id, member);
            }
        }
    }
}

/// Something about some of a roster's members.
#[derive(Debug)]
pub(super) struct Notes<N, T> {
    notes: Vec<Option<T>>,
    count: usize,
    of: PhantomData<N>,
}

impl<N, T> Default for Notes<N, T> {
    fn default() -> Notes<N, T> {
        Notes { notes: Vec::new(), count: 0, of: PhantomData }
    }
}

impl<N: Number, T> Notes<N, T> {
    pub(super) fn get(&self, number: N) -> Option<&T> {
        self.notes.get(number.at())?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: N) -> Option<&mut T> {
        self.notes.get_mut(number.at())?.as_mut()
    }

    pub(super) fn insert(&mut self, number: N, note: T) -> Option<T> {
        if self.notes.len() <= number.at() {
            self.notes.resize_with(number.at() + 1, || None);
        }
        let before = self.notes[number.at()].replace(note);
        self.count += usize::from(before.is_none());
        before
    }

    pub(super) fn remove(&mut self, number: N) -> Option<T> {
        let note = self.notes.get_mut(number.at())?.take();
        self.count -= usize::from(note.is_some());
        note
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.notes.iter().flatten()
    }
}

/// Some of a roster's members, a bit each.
#[derive(Debug)]
pub(super) struct Group<N> {
    pages: Vec<u64>,
    of: PhantomData<N>,
}

impl<N> Default for Group<N> {
    fn default() -> Group<N> {
        Group { pages: Vec::new(), of: PhantomData }
    }
}

impl<N: Number> Group<N> {
    fn place(number: N) -> (usize, u64) {
        let at = number.at() as u64;
        ((at / PAGE) as usize, 1 << (at % PAGE))
    }

    pub(super) fn contains(&self, number: N) -> bool {
        let (page, bit) = Self::place(number);
        self.pages.get(page).is_some_and(|held| held & bit != 0)
    }

    /// *Returns* whether it was not among them.
    pub(super) fn insert(&mut self, number: N) -> bool {
        let (page, bit) = Self::place(number);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, 0);
        }
        let is_new = self.pages[page] & bit == 0;
        self.pages[page] |= bit;
        is_new
    }

    pub(super) fn remove(&mut self, number: N) {
        let (page, bit) = Self::place(number);
        if let Some(held) = self.pages.get_mut(page) {
            *held &= !bit;
        }
    }

    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = N> + '_ {
        let pages = self.pages.iter().enumerate();
        pages.flat_map(|(page, held)| bits(*held).map(move |bit| N::new(page * PAGE as usize + bit as usize)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_number_is_one_members_until_it_goes_and_anothers_afterwards() {
        let mut roster = Roster::<u64, AgentNo, &str>::default();
        let (first, second) = (roster.insert(7, "first"), roster.insert(5, "second"));
        assert_eq!(
            (roster.number(&5), roster.id(second), roster.at(second)),
            (Some(second), Some(5), Some(&"second"))
        );
        assert_eq!(roster.remove(&7), Some((first, "first")));
        assert!(roster.at(first).is_none() && roster.get(&7).is_none() && roster.remove(&7).is_none());
        assert_eq!(roster.insert(9, "third"), first);
        assert_eq!(
            roster.iter().map(|(_, id, member)| (id, *member)).collect::<Vec<_>>(),
            [(5, "second"), (9, "third")]
        );
    }

    #[test]
    #[should_panic(expected = "7 is here already")]
    fn who_comes_twice_is_a_bug_that_stops() {
        let mut roster = Roster::<u64, AgentNo, ()>::default();
        roster.insert(7, ());
        roster.insert(7, ());
    }

    #[test]
    fn notes_and_groups_hold_what_maps_and_sets_hold() {
        let (mut notes, mut map) = (Notes::<JobNo, u32>::default(), BTreeMap::new());
        let (mut group, mut set) = (Group::<JobNo>::default(), BTreeSet::new());
        let mut state = 1u32;
        for step in 0..2_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = JobNo(state >> 16 & 255);
            match state >> 28 {
                0..8 => {
                    assert_eq!(notes.insert(number, step), map.insert(number, step));
                    assert_eq!(group.insert(number), set.insert(number));
                }
                _ => {
                    assert_eq!(notes.remove(number), map.remove(&number));
                    group.remove(number);
                    set.remove(&number);
                }
            }
            assert_eq!((notes.len(), notes.get(number)), (map.len(), map.get(&number)));
            assert_eq!(group.contains(number), set.contains(&number));
        }
        assert!(notes.values().eq(map.values()) && group.iter().eq(set.iter().copied()));
        group.clear();
        assert_eq!(group.iter().next(), None);
    }
}
