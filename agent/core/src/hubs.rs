//! The hubs that an agent may work for, and whose turn it is.
//!
//! Owns the list: what the provider gave, which stays, and what the hub told, which each telling replaces. All of them
//! share one store and one key, so whichever takes the agent will do. It may not know how to connect to one.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use tessera_protocol::address::HubAddress;
use tessera_protocol::limits::HUBS_MAX;

use crate::event::Random;

/// Where hubs are. *Shape*: at least one, at most twice [`HUBS_MAX`].
#[derive(Clone, Debug)]
pub struct Hubs {
    given: Vec<HubAddress>,
    told: Vec<HubAddress>,
    current: HubAddress,
    /// Whose turn is next, whoever else has had none.
    next: Option<HubAddress>,
    /// Those whose turn has not come since a hub last took the agent, or since all had one.
    untried: VecDeque<HubAddress>,
    /// Whether all that had a turn since then showed another key.
    only_strangers: bool,
}

/// What there is to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another has not had its turn yet.
    Other,
    /// All had one.
    Again {
        /// Whether every one of them showed another key.
        only_strangers: bool,
    },
}

impl Hubs {
    /// The hubs that the provider gave, in the order in which they are first tried, and those of which a hub told at an
    /// earlier time. What is more than [`HUBS_MAX`] of either is dropped; `None` where the provider gave none.
    pub fn new(given: Vec<HubAddress>, told: Vec<HubAddress>) -> Option<Hubs> {
        let (given, told) = (first_of(given), first_of(told));
        let current = given.first()?.clone();
        let mut hubs =
            Hubs { given, told, current, next: None, untried: VecDeque::new(), only_strangers: true };
        hubs.begin_round();
        hubs.untried.retain(|hub| *hub != hubs.current);
        Some(hubs)
    }

    /// Whose turn it is.
    pub fn current(&self) -> &HubAddress {
        &self.current
    }

    /// The hub whose turn it is has taken the agent: when it is gone, each of the others comes before it.
    pub(crate) fn took(&mut self) {
        self.begin_round();
        let current = &self.current;
        self.untried.retain(|hub| hub != current);
    }

    /// No session came of the current one, or no longer: the turn passes on, to any of those that had none, so that the
    /// agents of a hub that is gone do not all go to the same.
    pub(crate) fn failed(&mut self, stranger: bool, random: Random) -> Next {
        self.only_strangers &= stranger;
        let only_strangers = self.only_strangers;
        if let Some(next) = self.next.take() {
            self.untried.retain(|hub| *hub != next);
            self.current = next;
            return Next::Other;
        }
        let (next, mut untried) = match self.untried.is_empty() {
            false => (Next::Other, core::mem::take(&mut self.untried)),
            true => {
                self.begin_round();
                (Next::Again { only_strangers }, core::mem::take(&mut self.untried))
            }
        };
        // The low half: the high one is the jitter of the wait.
        let place = (random.0 as u32 as u64 * untried.len() as u64) >> 32;
        if let Some(hub) = untried.remove(place as usize) {
            self.current = hub;
        }
        self.untried = untried;
        next
    }

    /// The turn passes to this one when the session ends, if it is one of those that are known.
    pub(crate) fn prefer(&mut self, address: &str) {
        let known = |hub: &HubAddress| self.given.contains(hub) || self.told.contains(hub);
        self.next = address.parse().ok().filter(known);
    }

    /// Takes what a hub told, and says whether it is news. What is not an address, or one too many, is left out.
    pub(crate) fn tell(&mut self, addresses: &[String]) -> Option<&[HubAddress]> {
        let told = first_of(addresses.iter().filter_map(|text| text.parse().ok()));
        if told == self.told {
            return None;
        }
        self.told = told;
        self.took();
        Some(&self.told)
    }

    fn begin_round(&mut self) {
        let mut all: VecDeque<HubAddress> = self.given.iter().cloned().collect();
        all.extend(self.told.iter().filter(|hub| !self.given.contains(hub)).cloned());
        (self.untried, self.only_strangers) = (all, true);
    }
}

/// The first [`HUBS_MAX`], each once.
fn first_of(hubs: impl IntoIterator<Item = HubAddress>) -> Vec<HubAddress> {
    let mut first: Vec<HubAddress> = Vec::new();
    for hub in hubs {
        if first.len() < HUBS_MAX && !first.contains(&hub) {
            first.push(hub);
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    fn at(port: u16) -> HubAddress {
        HubAddress { host: "h".to_string(), port }
    }

    fn ports(hubs: &mut Hubs, turns: usize) -> Vec<u16> {
        (0..turns)
            .map(|_| {
                hubs.failed(false, Random(0));
                hubs.current().port
            })
            .collect()
    }

    #[test]
    fn one_hub_alone_is_tried_again_and_again_and_each_time_is_a_round() {
        let mut hubs = Hubs::new(vec![at(1)], Vec::new()).expect("a hub");
        for _ in 0..3 {
            assert_eq!(hubs.failed(false, Random(u64::MAX)), Next::Again { only_strangers: false });
            assert_eq!(hubs.current(), &at(1));
        }
    }

    #[test]
    fn every_hub_has_a_turn_before_any_has_a_second_and_the_one_that_is_gone_comes_last() {
        let mut hubs = Hubs::new(vec![at(1), at(2)], vec![at(3), at(1)]).expect("hubs");
        assert_eq!(hubs.current(), &at(1));
        assert_eq!(ports(&mut hubs, 2).into_iter().collect::<BTreeSet<_>>(), [2, 3].into());
        hubs.took();
        let last = hubs.current().port;
        assert!(!ports(&mut hubs, 2).contains(&last), "the others come first");
        assert_eq!(hubs.failed(false, Random(0)), Next::Again { only_strangers: false });
        let tried = (hubs.current().port, ports(&mut hubs, 2));
        let tried = tried.1.into_iter().chain([tried.0]).collect::<BTreeSet<_>>();
        assert_eq!(tried, [1, 2, 3].into(), "the one that was gone has its turn again");
    }

    #[test]
    fn the_agents_of_a_hub_that_is_gone_spread_over_the_others() {
        let goes_to = |random| {
            let mut hubs = Hubs::new(vec![at(1)], vec![at(2), at(3), at(4)]).expect("hubs");
            hubs.took();
            hubs.failed(false, Random(random));
            hubs.current().port
        };
        let quarter = u64::from(u32::MAX / 4);
        assert_eq!([0, 2 * quarter, 3 * quarter].map(goes_to), [2, 3, 4]);
    }

    #[test]
    fn a_hub_can_send_an_agent_only_where_it_knows_a_hub_to_be() {
        let mut hubs = Hubs::new(vec![at(1)], vec![at(2), at(3), at(4)]).expect("hubs");
        hubs.took();
        hubs.prefer("h:3");
        assert_eq!((hubs.failed(false, Random(0)), hubs.current()), (Next::Other, &at(3)));
        hubs.took();
        hubs.prefer("elsewhere:3");
        hubs.failed(false, Random(0));
        assert_eq!(hubs.current(), &at(1));
    }

    #[test]
    fn a_list_is_bounded_and_what_is_no_address_is_left_out() {
        let mut hubs = Hubs::new(vec![at(1)], Vec::new()).expect("a hub");
        let mut told: Vec<String> = (10..60).map(|port| format!("h:{port}")).collect();
        told.insert(0, "http://h:1".to_string());
        told.insert(1, "h:10".to_string());
        let taken: Vec<u16> = hubs.tell(&told).expect("news").iter().map(|hub| hub.port).collect();
        assert_eq!(taken, (10..26).collect::<Vec<u16>>());
        assert_eq!(hubs.tell(&told), None, "the same again is no news");
        assert_eq!(ports(&mut hubs, 40).into_iter().collect::<BTreeSet<_>>().len(), 17);
        assert!(Hubs::new(Vec::new(), vec![at(1)]).is_none());
    }

    #[test]
    fn all_are_strangers_only_when_each_of_a_round_was() {
        let mut hubs = Hubs::new(vec![at(1), at(2)], Vec::new()).expect("hubs");
        assert_eq!(hubs.failed(true, Random(0)), Next::Other);
        assert_eq!(hubs.failed(false, Random(0)), Next::Again { only_strangers: false });
        assert_eq!(hubs.failed(true, Random(0)), Next::Other);
        assert_eq!(hubs.failed(true, Random(0)), Next::Again { only_strangers: true });
    }
}
