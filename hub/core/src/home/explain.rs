//! What a home knows about why its job stands where it stands.

use alloc::vec::Vec;

use tessera_protocol::explain::{ErrandExplained, HomeExplained};
use tessera_protocol::unit::LaneIndex;

use super::Home;
use crate::scheduler::who_in_words;

/// Stuck errands that an explanation lists.
const LISTED_MAX: usize = 16;

impl Home {
    /// What is to do, and what nobody may do.
    pub fn explain(&self, lane: LaneIndex) -> HomeExplained {
        let listed = self.stuck.iter().take(LISTED_MAX).map(|errand| ErrandExplained {
            shard: errand.index.0,
            who: who_in_words(&errand.who),
            avoid: errand.avoid.clone(),
        });
        HomeExplained {
            lane: lane.0,
            shards_todo: self.todo.count(),
            stuck: listed.collect::<Vec<_>>(),
            stuck_count: self.stuck.len() as u64,
        }
    }
}
