//! Whether the store takes writes: what an operator sees in `/healthz`, in the metrics and once in the log.
//!
//! Owns the word on it and when it changes. A disk that is full still takes small writes now and then, so the store
//! counts as well again only once it took as much at once as it refused. Commits nothing itself.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tessera_protocol::id::Digest;
use tessera_storage::{Batch, CommitError, Key};

/// The largest probe. *Units*: bytes; a batch of the store takes 10 MB.
const PROBE_BYTES_MAX: usize = 8 << 20;

/// How the store takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StoreState {
    /// As it should.
    Ok = 0,
    /// Not, since its disk or quota is full.
    Full = 1,
    /// Not, since its disk is read-only or its files may not be written.
    ReadOnly = 2,
    /// Not, for another reason, which the log says.
    Failing = 3,
}

impl StoreState {
    /// Every state.
    pub const ALL: [StoreState; 4] =
        [StoreState::Ok, StoreState::Full, StoreState::ReadOnly, StoreState::Failing];

    /// Its name in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            StoreState::Ok => "ok",
            StoreState::Full => "full",
            StoreState::ReadOnly => "read_only",
            StoreState::Failing => "failing",
        }
    }

    fn of(error: &CommitError) -> StoreState {
        match error {
            CommitError::DiskFull(_) => StoreState::Full,
            CommitError::Denied(_) => StoreState::ReadOnly,
            _ => StoreState::Failing,
        }
    }
}

/// The store's health. The journal's thread changes it, all may ask.
#[derive(Debug)]
pub(super) struct Health {
    state: AtomicU8,
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    /// The heaviest batch that was refused. *Units*: bytes.
    refused: usize,
}

impl Default for Health {
    fn default() -> Health {
        Health { state: AtomicU8::new(StoreState::Ok as u8), trouble: Mutex::new(None) }
    }
}

impl Health {
    pub(super) fn state(&self) -> StoreState {
        let word = self.state.load(Ordering::Relaxed);
        StoreState::ALL.into_iter().find(|state| *state as u8 == word).unwrap_or(StoreState::Failing)
    }

    /// A batch of this weight is on disk.
    pub(super) fn took(&self, weight_bytes: usize) {
        if self.state() == StoreState::Ok {
            return;
        }
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_some_and(|trouble| weight_bytes < trouble.refused.min(PROBE_BYTES_MAX)) {
            return;
        }
        let seconds = trouble.take().map_or(0.0, |trouble| trouble.since.elapsed().as_secs_f64());
        self.state.store(StoreState::Ok as u8, Ordering::Relaxed);
        tracing::info!("the store takes writes again, after {seconds:.1} s");
    }

    /// A batch of this weight is not on disk.
    pub(super) fn refused(&self, error: &CommitError, weight_bytes: usize) {
        let (before, now) = (self.state(), StoreState::of(error));
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let known = trouble.get_or_insert(Trouble { since: Instant::now(), refused: 0 });
        known.refused = known.refused.max(weight_bytes);
        // A store that closed its file says only that for a while: it does not take the place of why it did.
        let says_more = now != StoreState::Failing || before == StoreState::Ok;
        if before != now && says_more {
            self.state.store(now as u8, Ordering::Relaxed);
            tracing::error!(%error, "the store refuses writes: nothing new is accepted until it takes them again");
        }
    }

    /// What shows whether the store would take again what it refused, and what removes it. It lies where pieces of
    /// files do, of one that cannot be: what a hub that is killed leaves of it, its next start removes.
    pub(super) fn probe(&self) -> (Batch, Batch) {
        let trouble = *self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = trouble.map_or(0, |trouble| trouble.refused).min(PROBE_BYTES_MAX);
        let key = Key::Piece { input: Digest([0; 32]), piece: 0 }.encode();
        let (mut write, mut remove) = (Batch::new(), Batch::new());
        write.put_chunked(&key, &vec![0; bytes]);
        remove.delete_chunked(&key);
        (write, remove)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn full() -> CommitError {
        CommitError::DiskFull(Arc::new(std::io::Error::from(std::io::ErrorKind::StorageFull)))
    }

    #[test]
    fn a_full_disk_that_takes_small_writes_is_still_full() {
        let health = Health::default();
        health.refused(&full(), 5_000_000);
        health.refused(&full(), 100);
        health.took(100);
        assert_eq!(health.state(), StoreState::Full);
        let (probe, _) = health.probe();
        assert!(probe.weight_bytes() >= 5_000_000);
        probe.check().unwrap();
        health.took(probe.weight_bytes());
        assert_eq!(health.state(), StoreState::Ok);
        health.refused(&full(), 9_900_000);
        let (probe, _) = health.probe();
        probe.check().unwrap();
        health.took(probe.weight_bytes());
        assert_eq!(health.state(), StoreState::Ok, "what one batch holds is enough");
    }

    #[test]
    fn why_the_store_refuses_is_not_forgotten_when_it_only_says_that_it_does() {
        let health = Health::default();
        let denied =
            CommitError::Denied(Arc::new(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem)));
        health.refused(&CommitError::Interrupted, 1);
        assert_eq!(health.state(), StoreState::Failing);
        health.refused(&denied, 1);
        health.refused(&CommitError::Interrupted, 1);
        assert_eq!(health.state(), StoreState::ReadOnly);
        health.refused(&full(), 1);
        assert_eq!(health.state(), StoreState::Full, "another cause is told");
    }
}
