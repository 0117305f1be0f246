//! What many hubs left in a store that one hub has for itself now: a copy of a cluster's, or a backup of one.
//!
//! Owns its removal, before anything else is done: what they reported goes into the audit log first. A store that was
//! never shared costs a look at a few keys.

use tessera_storage::{Batch, Commit, Engine, Family, Key};

use super::ServeError;
use crate::audit::{self, Reports};
use crate::records::RecordError;

/// Where hubs that share a store write what is of no use to one alone.
const SHARED: [Family; 4] = [Family::Entries, Family::Fences, Family::HubAts, Family::Owners];
/// Acts that one commit moves.
const MOVED_MAX: usize = 256;

/// Makes the store one hub's.
pub(super) fn settle(store: &dyn Engine, reports: &mut Reports) -> Result<(), ServeError> {
    let read = |error: RecordError| ServeError::Read(error);
    let snapshot = || store.snapshot().map_err(|error| read(error.into()));
    loop {
        let (mut batch, told) = audit::reported(&*snapshot()?, MOVED_MAX).map_err(read)?;
        if told.is_empty() {
            break;
        }
        reports.write(&mut batch, &[], &told);
        commit(store, batch)?;
    }
    let left = snapshot()?;
    let mut batch = Batch::new();
    for family in SHARED {
        if !left.range(&family.range(), 1).map_err(|error| read(error.into()))?.is_empty() {
            batch.delete_range(family.range());
        }
    }
    if left.get(&Key::HubActive.encode()).map_err(|error| read(error.into()))?.is_some() {
        batch.delete(Key::HubActive);
    }
    if batch.is_empty() { Ok(()) } else { commit(store, batch) }
}

fn commit(store: &dyn Engine, batch: Batch) -> Result<(), ServeError> {
    match store.commit(batch).map_err(ServeError::Write)? {
        Commit::Done => Ok(()),
        // Nothing else writes to it.
        Commit::Conflict { .. } => Err(ServeError::AuditBusy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Auditor, Told};
    use crate::quic::Identity;
    use crate::records::HubAt;
    use tessera_protocol::audit::Act;
    use tessera_protocol::id::{Digest, HubId, JobId};
    use tessera_protocol::unit::UnixMillis;
    use tessera_storage::{KeyRange, Memory};

    #[test]
    fn a_copy_of_a_shared_store_becomes_one_hubs_and_its_log_tells_of_everything() {
        let (store, hub, identity) = (Memory::default(), HubId([1; 16]), Identity::generate().unwrap());
        let at = HubAt { http: "a.lab:1".into(), quic: "a.lab:2".into() };
        let mut batch = Batch::new();
        batch.put(Key::Entry(hub), [0; 8]).put(Key::Fence(hub), []).put(Key::HubAt(hub), at.bytes());
        batch.put(Key::HubActive, hub.0).put(Key::Owner(JobId([2; 16])), hub.0);
        for number in 0..MOVED_MAX as u64 + 1 {
            let act = Act::ApiKeyMade { key: Digest([number as u8; 32]) };
            batch.put(Key::Act { hub, number }, Told::of(&act, UnixMillis(number)).bytes());
        }
        assert_eq!(store.commit(batch).unwrap(), Commit::Done);
        let auditor = Auditor::resume(identity.clone(), &*store.snapshot().unwrap()).unwrap();
        settle(&store, &mut auditor.into()).unwrap();
        let snapshot = store.snapshot().unwrap();
        for family in SHARED.into_iter().chain([Family::Acts]) {
            assert_eq!(snapshot.range(&family.range(), 9).unwrap(), [], "{family:?}");
        }
        let log = audit::check(&*snapshot, Digest(identity.public_key().0)).unwrap();
        assert_eq!(log.entries, MOVED_MAX as u64 + 1);
        let before = snapshot.range(&KeyRange::prefix([]), usize::MAX).unwrap();
        let auditor = Auditor::resume(identity, &*snapshot).unwrap();
        settle(&store, &mut auditor.into()).unwrap();
        let after = store.snapshot().unwrap().range(&KeyRange::prefix([]), usize::MAX).unwrap();
        assert_eq!(before, after, "there is nothing more to do");
    }
}
