//! What other hubs on the store have written of how far agents are trusted.
//!
//! Owns what this hub last knew under `standing/`: who writes there requires that it is still so, and learns from what
//! is there instead. So nobody writes down a proof of another hub's by mistake. It may not judge anybody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tessera_hub_core::standing::StandingRecord;
use tessera_protocol::id::AgentId;
use tessera_storage::{Batch, Expect, Key};

use crate::records;

/// What was last seen of each agent. All lanes share it, and the journal's thread uses it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<BTreeMap<AgentId, Expect>>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Expect>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a batch that writes these records that nobody else has written them since.
    pub(super) fn require(&self, batch: &mut Batch, agents: &[StandingRecord]) {
        let known = self.lock();
        for record in agents {
            if let Some(expect) = known.get(&record.agent) {
                batch.expect(Key::Standing(record.agent), expect.clone());
            }
        }
    }

    /// These records are durable.
    pub(super) fn wrote(&self, agents: &[StandingRecord]) {
        let mut known = self.lock();
        for record in agents {
            known.insert(record.agent, Expect::Equals(records::standing_bytes(record)));
        }
    }

    /// This was found under an agent's key.
    pub(super) fn found(&self, agent: AgentId, found: Option<&[u8]>) {
        let expect = found.map_or(Expect::Absent, |found| Expect::Equals(found.to_vec()));
        self.lock().insert(agent, expect);
    }
}

/// The batch that finds out how far an agent is trusted: it changes nothing, and conflicts with the record.
pub(super) fn look_up(agent: AgentId) -> Batch {
    let mut batch = Batch::new();
    batch.expect_absent(Key::Standing(agent));
    batch
}

/// The agent whose record a batch conflicted with.
pub(super) fn agent_of(key: &[u8]) -> Option<AgentId> {
    match Key::decode(key) {
        Ok((Key::Standing(agent), _)) => Some(agent),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_hub_core::Record;
    use tessera_protocol::api::Standing;
    use tessera_protocol::id::ProviderId;
    use tessera_protocol::unit::UnixMillis;
    use tessera_storage::{Commit, Engine, Memory};

    const AGENT: AgentId = AgentId([1; 16]);

    fn standing(standing: Standing, wrong: u32) -> StandingRecord {
        let (provider, proven) = (ProviderId([2; 16]), wrong > 0);
        StandingRecord { agent: AGENT, provider, anchor: false, standing, agreed: 3, wrong, proven }
    }

    /// What a hub writes when it has judged an agent.
    fn judged(store: &Memory, known: &Known, record: StandingRecord) -> Commit {
        let agents = vec![record];
        let (changes, proofs, at) = (Vec::new(), Vec::new(), UnixMillis(1));
        let changed = Record::StandingsChanged { agents: agents.clone(), changes, proofs, at };
        let mut batch = records::batch_of(&changed);
        known.require(&mut batch, &agents);
        let commit = store.commit(batch).unwrap();
        if commit == Commit::Done {
            known.wrote(&agents);
        }
        commit
    }

    /// The agent says hello.
    fn hello(store: &Memory, known: &Known) -> Option<StandingRecord> {
        let found = match store.commit(look_up(AGENT)).unwrap() {
            Commit::Done => None,
            Commit::Conflict { found, .. } => found,
        };
        known.found(AGENT, found.as_deref());
        found.map(|found| records::decode_standing(&found).unwrap())
    }

    #[test]
    fn a_proof_by_the_hub_that_an_agent_left_is_not_written_over_by_the_one_that_it_came_to() {
        let (store, first, second) = (Memory::default(), Known::default(), Known::default());
        assert_eq!(hello(&store, &first), None);
        let trusted = standing(Standing::Trusted, 0);
        assert_eq!(judged(&store, &first, trusted), Commit::Done);
        assert_eq!(hello(&store, &second), Some(trusted), "it takes its standing along");
        // What it answered at the first is found out to be a lie only now.
        let proven = standing(Standing::Sandboxed, 1);
        assert_eq!(judged(&store, &first, proven), Commit::Done);
        let better = StandingRecord { agreed: 4, ..trusted };
        let Commit::Conflict { key, found } = judged(&store, &second, better) else {
            panic!("the proof was written over")
        };
        assert_eq!(agent_of(&key), Some(AGENT));
        let found = found.expect("the record is there");
        assert_eq!(records::decode_standing(&found).unwrap(), proven, "and so the second hub learns of it");
        second.found(AGENT, Some(&found));
        assert_eq!(judged(&store, &second, proven), Commit::Done);
        assert_eq!(hello(&store, &first), Some(proven), "also when it comes back");
    }
}
