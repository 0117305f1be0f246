//! The sweeper: one thread that removes what came of uploads which nobody has gone on with.
//!
//! Owns when it looks. What is left over is the business of [`inputs`]; it touches nothing that
//! is being uploaded or stored.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_protocol::id::Digest;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::Engine;

use crate::backend::unix_ms;
use crate::inputs::{self, InputError, UNFINISHED_KEPT};
use crate::journal::Journal;
use crate::products::Shelf;

/// How often it looks. An upload is kept for a day, so minutes more are nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);
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
        shelf: Shelf,
    ) -> std::io::Result<(Sweeper, JoinHandle<()>)> {
        let (ending, ended) = sync_channel(0);
        let sweep = Sweep { store, journal, shelf, ended };
        let thread = std::thread::Builder::new().name("tessera-sweeper".into()).spawn(move || sweep.run())?;
        Ok((Sweeper { _ending: ending }, thread))
    }
}

struct Sweep {
    store: Arc<dyn Engine>,
    journal: Journal,
    shelf: Shelf,
    ended: Receiver<()>,
}

impl Sweep {
    fn run(&self) {
        self.report(self.abandoned());
        let mut listed: Option<Instant> = None;
        loop {
            let now = UnixMillis(unix_ms());
            self.report(self.stale(now));
            if listed.is_none_or(|listed| listed.elapsed() >= LIST_INTERVAL) {
                self.report(self.orphans(now));
                listed = Some(Instant::now());
            }
            match self.ended.recv_timeout(LOOK_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn report(&self, swept: Result<(), InputError>) {
        if let Err(error) = swept {
            tracing::error!(%error, "what uploads left over cannot be removed; it is looked for again later");
        }
    }

    /// Removes pieces that no input and no upload tells of. Only a start looks for them: it takes a look at every
    /// input.
    fn abandoned(&self) -> Result<(), InputError> {
        for input in inputs::abandoned(&*self.store.snapshot()?)? {
            // It may have been brought since, or is being brought.
            let Ok(_place) = self.shelf.uploads.begin_removal(input) else { continue };
            if inputs::is_abandoned(&*self.store.snapshot()?, input)? {
                self.remove(input)?;
            }
        }
        Ok(())
    }

    fn stale(&self, now: UnixMillis) -> Result<(), InputError> {
        for input in inputs::stale(&*self.store.snapshot()?, now)? {
            let Ok(_place) = self.shelf.uploads.begin_removal(input) else { continue };
            if inputs::is_stale(&*self.store.snapshot()?, input, now)? {
                self.remove(input)?;
            }
        }
        Ok(())
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

    fn remove(&self, input: Digest) -> Result<(), InputError> {
        tracing::info!(%input, "removing what came of an upload that nobody has gone on with");
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

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::limits::INPUT_PIECE_BYTES;
    use tessera_storage::{Batch, Commit, Family, Memory};

    use crate::blobs::{Blobs, Name, Place};
    use crate::inputs::{Presence, Stored, Uploads, piece_batch, upload_batch, whole_batch};

    fn put(blobs: &Blobs, input: Digest, number: u64) -> Stored {
        let blake3 = blobs.put(Name { blob: input, piece: number }, vec![1; 10].into()).unwrap();
        Stored { number, bytes: INPUT_PIECE_BYTES, blake3 }
    }

    fn part(blobs: &Blobs, input: Digest, number: u64, last: u64) -> Batch {
        upload_batch(input, &put(blobs, input, number), 100 * INPUT_PIECE_BYTES, UnixMillis(last))
    }

    #[test]
    fn what_may_be_gone_on_with_is_kept_and_what_is_old_or_has_no_record_is_removed() {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let shelf = Shelf { blobs: Blobs::open(&Place::Memory).unwrap(), uploads: Uploads::default() };
        let blobs = &shelf.blobs;
        let [whole, orphan, fresh, old, busy] = [1, 2, 3, 4, 5].map(|number| Digest([number; 32]));
        let now = unix_ms();
        let long_ago = now - UNFINISHED_KEPT.as_millis() as u64;
        let mut batches = vec![
            piece_batch(whole, &put(blobs, whole, 0)),
            whole_batch(whole, 1, UnixMillis(0)),
            piece_batch(orphan, &put(blobs, orphan, 3)),
        ];
        batches.extend([part(blobs, fresh, 0, long_ago + 60_000), part(blobs, busy, 0, long_ago)]);
        // More than one batch removes.
        batches.extend((0..20).map(|number| part(blobs, old, number, long_ago)));
        for batch in batches {
            assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        }
        let (journal, journal_thread) = Journal::start(engine.clone()).unwrap();
        let _place = shelf.uploads.begin(busy).unwrap();
        let (sweeper, thread) = Sweeper::start(engine.clone(), journal.clone(), shelf.clone()).unwrap();
        let kept = || {
            let snapshot = engine.snapshot().unwrap();
            let mut objects = Vec::new();
            blobs
                .list(|name, _| {
                    objects.push(name.blob);
                    true
                })
                .unwrap();
            [whole, orphan, fresh, old, busy].map(|input| {
                let has_pieces = !snapshot.range(&tessera_storage::pieces_of(input), 1).unwrap().is_empty();
                let received = inputs::presence(&*snapshot, input).unwrap().received();
                (has_pieces || objects.contains(&input), received)
            })
        };
        let expected =
            [(true, 1), (false, 0), (true, INPUT_PIECE_BYTES), (false, 0), (true, INPUT_PIECE_BYTES)];
        let started = Instant::now();
        while kept() != expected {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", kept());
            std::thread::sleep(Duration::from_millis(5));
        }
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(inputs::presence(&*snapshot, old).unwrap(), Presence::Absent);
        assert_eq!(snapshot.range(&Family::Uploads.range(), 9).unwrap().len(), 2);
        drop(sweeper);
        thread.join().unwrap();
        journal.stop();
        journal_thread.join().unwrap();
    }
}
