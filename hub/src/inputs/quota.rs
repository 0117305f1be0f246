//! How many bytes of blobs each project keeps here, and how many it may.
//!
//! Owns the sums. A blob counts in full towards every project that uploaded it or had a job accepted that reads it,
//! however many of them share the one copy, from then until the blob itself goes. Products count towards nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tessera_storage::{Family, Key, Snapshot};

use crate::records::RecordError;

/// What projects may keep. *Units*: bytes; nothing is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of projects that are not named.
    pub default: Option<u64>,
    /// Of those that are.
    pub projects: BTreeMap<String, Option<u64>>,
}

impl Limits {
    fn of(&self, project: &str) -> Option<u64> {
        self.projects.get(project).copied().unwrap_or(self.default)
    }
}

/// What projects keep, and may.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    limits: Arc<Limits>,
    used: Arc<Mutex<BTreeMap<String, u64>>>,
}

/// Bytes that count towards a project: for good once they are [kept](Reservation::keep), else until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    quotas: Quotas,
    project: String,
    bytes: u64,
}

/// A project may not keep so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which project.
    pub project: String,
    /// What it keeps, uploads under way included. *Units*: bytes.
    pub used: u64,
    /// What it may keep. *Units*: bytes.
    pub max: u64,
    /// What was to be added. *Units*: bytes.
    pub asked: u64,
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Full { project, used, max, asked } = self;
        write!(
            f,
            "project `{project}` keeps {used} bytes of files here and may keep {max}: {asked} more do not fit"
        )
    }
}

impl Quotas {
    /// With what the store says that projects keep.
    pub fn recover(store: &dyn Snapshot, limits: Limits) -> Result<Quotas, RecordError> {
        let mut used = BTreeMap::new();
        store.walk(&Family::BlobOwners.range(), &mut |entry| {
            if let (Ok((Key::BlobOwner { project, .. }, _)), Ok(bytes)) =
                (Key::decode(&entry.key), <[u8; 8]>::try_from(entry.value.as_slice()))
            {
                *used.entry(project.to_owned()).or_default() += u64::from_be_bytes(bytes);
            }
        })?;
        Ok(Quotas { limits: Arc::new(limits), used: Arc::new(Mutex::new(used)) })
    }

    /// Counts bytes towards a project, if they fit.
    pub fn reserve(&self, project: &str, bytes: u64) -> Result<Reservation, Full> {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.get(project).copied().unwrap_or(0);
        match self.limits.of(project) {
            Some(max) if used.saturating_add(bytes) > max => {
                Err(Full { project: project.to_owned(), used, max, asked: bytes })
            }
            _ => {
                all.insert(project.to_owned(), used.saturating_add(bytes));
                Ok(Reservation { quotas: self.clone(), project: project.to_owned(), bytes })
            }
        }
    }

    /// A blob went that counted towards a project.
    pub fn give_back(&self, project: &str, bytes: u64) {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = all.get_mut(project) {
            *used = used.saturating_sub(bytes);
        }
    }

    /// What each project keeps.
    pub fn used(&self) -> BTreeMap<String, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Reservation {
    /// Whose bytes they are.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The store says now that they count.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quotas.give_back(&self.project, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::id::Digest;
    use tessera_storage::{Batch, Commit, Engine, Memory};

    fn quotas(engine: &Memory) -> Quotas {
        let projects = BTreeMap::from([("risk".to_owned(), Some(100)), ("lab".to_owned(), None)]);
        let limits = Limits { default: Some(10), projects };
        Quotas::recover(&*engine.snapshot().unwrap(), limits).unwrap()
    }

    #[test]
    fn a_project_may_keep_what_it_is_given_and_uploads_under_way_count() {
        let quotas = quotas(&Memory::default());
        let first = quotas.reserve("risk", 60).unwrap();
        let full = quotas.reserve("risk", 41).unwrap_err();
        assert_eq!(full, Full { project: "risk".into(), used: 60, max: 100, asked: 41 });
        drop(first);
        quotas.reserve("risk", 100).unwrap().keep();
        assert!(quotas.reserve("risk", 1).is_err());
        quotas.give_back("risk", 30);
        quotas.reserve("risk", 30).unwrap();
        assert!(quotas.reserve("other", 11).is_err(), "the default is for those that are not named");
        quotas.reserve("lab", 1 << 60).unwrap();
    }

    #[test]
    fn what_a_project_keeps_is_known_after_a_restart() {
        let engine = Memory::default();
        let mut batch = Batch::new();
        for (blob, project, bytes) in [(1, "risk", 60_u64), (2, "risk", 30), (1, "other", 10)] {
            batch.put(Key::BlobOwner { blob: Digest([blob; 32]), project }, bytes.to_be_bytes());
        }
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        let quotas = quotas(&engine);
        assert!(quotas.reserve("risk", 11).is_err() && quotas.reserve("risk", 10).is_ok());
        assert!(quotas.reserve("other", 1).is_err());
    }
}
