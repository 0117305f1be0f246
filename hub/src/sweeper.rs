//! The sweeper: one thread that removes what came of uploads which nobody has gone on with, blobs that nobody wants,
//! and finished jobs that are due.
//!
//! Owns when it looks. What is left over is the business of [`inputs`]; it touches nothing that
//! is being uploaded or stored.

mod finished;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_protocol::id::Digest;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Engine, Key};

use crate::backend::unix_ms;
use crate::config::Retention;
use crate::ingress::Views;
use crate::inputs::wanted::{self, Step};
use crate::inputs::{self, InputError, UNFINISHED_KEPT};
use crate::journal::Journal;
use crate::products::Shelf;
use crate::records::RecordError;
use crate::retention::Policy;

/// How often it looks. An upload is kept for a day, so minutes more are nothing; and what looked abandoned twice, so far
/// apart, nobody is storing.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
/// The least time between two looks for finished jobs, which come as often as the shortest time that one is kept.
const FINISHED_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How often it looks at every object of the store of blobs, which may be many and far away.
const LIST_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Objects without a record that one listing finds.
const ORPHANS_MAX: usize = 1_024;

/// Ends the sweeper when it is dropped.
#[derive(Debug)]
pub struct Sweeper {
    _ending: SyncSender<()>,
}

impl Sweeper {
    /// Starts its thread, which looks at once for what the last hub left, and then now and then.
    pub fn start(
        store: Arc<dyn Engine>,
        journal: Journal,
        (shelf, views): (Shelf, Arc<Views>),
        retention: Retention,
        shared: bool,
    ) -> std::io::Result<(Sweeper, JoinHandle<()>)> {
        let (ending, ended) = sync_channel(0);
        let Retention { blobs: grace, finished } = retention;
        let (seen, is_clear) = Default::default();
        let sweep = Sweep { store, journal, shelf, views, grace, finished, ended, shared, seen, is_clear };
        let thread = std::thread::Builder::new().name("tessera-sweeper".into()).spawn(move || sweep.run())?;
        Ok((Sweeper { _ending: ending }, thread))
    }
}

struct Sweep {
    store: Arc<dyn Engine>,
    journal: Journal,
    shelf: Shelf,
    views: Arc<Views>,
    /// How long a blob that no job refers to is kept.
    grace: Duration,
    /// How long finished jobs are.
    finished: Policy,
    ended: Receiver<()>,
    /// Whether other hubs use the store and the blobs.
    shared: bool,
    /// What looked abandoned at the last look, where others may be storing it.
    seen: RefCell<BTreeSet<Digest>>,
    /// Whether the last look left nothing of pruned jobs.
    is_clear: Cell<bool>,
}

impl Sweep {
    fn run(&self) {
        if !self.shared {
            self.report(self.abandoned());
        }
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
        let (mut looked, mut listed) = (None, None);
        loop {
            let now = UnixMillis(unix_ms());
            self.report(self.finished(now).map_err(InputError::from));
            if is_due(looked, LOOK_INTERVAL) {
                if self.shared {
                    self.report(self.long_abandoned());
                }
                self.report(self.stale(now));
                self.report(self.unwanted(now));
                looked = Some(Instant::now());
            }
            if is_due(listed, LIST_INTERVAL) {
                self.report(self.orphans(now));
                listed = Some(Instant::now());
            }
            match self.ended.recv_timeout(look_interval(&self.finished)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn report(&self, swept: Result<(), InputError>) {
        if let Err(error) = swept {
            tracing::error!(%error, "what is left over cannot be removed; it is looked for again later");
        }
    }

    /// Removes pieces that no input and no upload tells of. Only a start looks for them: it takes a look at every
    /// input.
    fn abandoned(&self) -> Result<(), InputError> {
        for input in inputs::abandoned(&*self.store.snapshot()?)? {
            // It may have been brought since, or is being brought.
            let Ok(_place) = self.shelf.uploads.begin_removal(input) else { continue };
            if inputs::is_abandoned(&*self.store.snapshot()?, input)? {
                tracing::info!(%input, "removing pieces of a file that is not here");
                self.remove(input)?;
            }
        }
        Ok(())
    }

    /// As [`Sweep::abandoned`], of what was so already at the last look: until then another hub may have been storing
    /// it, whose places this one does not see.
    fn long_abandoned(&self) -> Result<(), InputError> {
        let found = inputs::abandoned(&*self.store.snapshot()?)?;
        let seen = self.seen.replace(found.iter().copied().collect());
        for input in found.into_iter().filter(|input| seen.contains(input)) {
            let Ok(_place) = self.shelf.uploads.begin_removal(input) else { continue };
            if inputs::is_abandoned(&*self.store.snapshot()?, input)? {
                tracing::info!(%input, "removing pieces of a file that is not here");
                self.remove(input)?;
            }
        }
        Ok(())
    }

    fn stale(&self, now: UnixMillis) -> Result<(), InputError> {
        for input in inputs::stale(&*self.store.snapshot()?, now)? {
            let Ok(_place) = self.shelf.uploads.begin_removal(input) else { continue };
            if inputs::is_stale(&*self.store.snapshot()?, input, now)? {
                tracing::info!(%input, "removing what came of an upload that nobody has gone on with");
                self.give_up(input)?;
            }
        }
        Ok(())
    }

    /// Removes blobs that no job refers to and nobody used for the grace period.
    fn unwanted(&self, now: UnixMillis) -> Result<(), InputError> {
        let mut from = None;
        loop {
            let page = wanted::page(&*self.store.snapshot()?, from, now, self.grace)?;
            for blob in page.idle {
                self.remove_unwanted(blob, now)?;
                if self.is_ending() {
                    return Ok(());
                }
            }
            if page.next.is_none() {
                return Ok(());
            }
            from = page.next;
        }
    }

    fn remove_unwanted(&self, blob: Digest, now: UnixMillis) -> Result<(), InputError> {
        let Ok(_place) = self.shelf.uploads.begin_removal(blob) else { return Ok(()) };
        loop {
            match wanted::step(&*self.store.snapshot()?, blob, now, self.grace)? {
                Step::Keep => return Ok(()),
                Step::Unrefer(batch) => {
                    if !self.journal.commit_and_wait(move || batch) {
                        return Ok(());
                    }
                }
                Step::Remove { batch, owners } => {
                    // It conflicts where somebody used the blob at the last moment.
                    if self.journal.commit_and_wait(move || batch) {
                        tracing::info!(%blob, "removing a file that no job needs");
                        for (project, bytes) in owners {
                            self.shelf.quotas.give_back(&project, bytes);
                        }
                        self.give_up(blob)?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Removes objects that nothing tells of, and files that were begun.
    fn orphans(&self, now: UnixMillis) -> Result<(), InputError> {
        match self.shelf.blobs.remove_begun(UNFINISHED_KEPT) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed files that a hub which was killed had begun"),
            Err(error) => tracing::warn!(%error, "files that were begun cannot be removed"),
        }
        loop {
            let found = inputs::orphans(&*self.store.snapshot()?, &self.shelf.blobs, now, ORPHANS_MAX)?;
            let mut removed = 0;
            for name in &found {
                // Somebody is bringing the file: what is here of it may be told of now.
                let Ok(_place) = self.shelf.uploads.begin_removal(name.blob) else { continue };
                let told = inputs::uploaded_piece(&*self.store.snapshot()?, name.blob, name.piece)?;
                if told.is_none() {
                    self.shelf.blobs.remove(*name)?;
                    removed += 1;
                }
                if self.is_ending() {
                    return Ok(());
                }
            }
            if removed > 0 {
                tracing::info!(removed, "removed pieces that nothing told of");
            }
            if found.len() < ORPHANS_MAX || removed == 0 {
                return Ok(());
            }
        }
    }

    /// Removes what is left of a file that nobody tells of any more; where others may be bringing it anew, later.
    fn give_up(&self, input: Digest) -> Result<(), InputError> {
        if !self.shared {
            return self.remove(input);
        }
        if let Some(upload) =
            self.store.snapshot()?.get(&Key::Upload(input).encode()).map_err(RecordError::from)?
        {
            let mut batch = Batch::new();
            batch.expect_equals(Key::Upload(input), upload).delete(Key::Upload(input));
            self.journal.commit_and_wait(move || batch);
        }
        Ok(())
    }

    fn remove(&self, input: Digest) -> Result<(), InputError> {
        while let Some(batch) = inputs::removal_batch(&*self.store.snapshot()?, &self.shelf.blobs, input)? {
            if self.is_ending() || !self.journal.commit_and_wait(move || batch) {
                // The next look or the next start goes on.
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_ending(&self) -> bool {
        matches!(self.ended.try_recv(), Err(TryRecvError::Disconnected))
    }
}

fn look_interval(finished: &Policy) -> Duration {
    finished.shortest().unwrap_or(LOOK_INTERVAL).clamp(FINISHED_INTERVAL_MIN, LOOK_INTERVAL)
}

#[cfg(test)]
#[path = "sweeper/tests.rs"]
mod tests;
