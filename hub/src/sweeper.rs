//! The sweeper: one thread that removes what came of uploads which nobody has gone on with.
//!
//! Owns when it looks. What is left over is the business of [`inputs`]; it touches nothing that
//! is being uploaded or stored.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tessera_protocol::id::Digest;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::Engine;

use crate::backend::unix_ms;
use crate::inputs::{self, Uploads};
use crate::journal::Journal;
use crate::records::RecordError;

/// How often it looks. An upload is kept for a day, so minutes more are nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);

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
        uploads: Uploads,
    ) -> std::io::Result<(Sweeper, JoinHandle<()>)> {
        let (ending, ended) = sync_channel(0);
        let sweep = Sweep { store, journal, uploads, ended };
        let thread = std::thread::Builder::new().name("tessera-sweeper".into()).spawn(move || sweep.run())?;
        Ok((Sweeper { _ending: ending }, thread))
    }
}

struct Sweep {
    store: Arc<dyn Engine>,
    journal: Journal,
    uploads: Uploads,
    ended: Receiver<()>,
}

impl Sweep {
    fn run(&self) {
        self.report(self.abandoned());
        loop {
            self.report(self.stale(UnixMillis(unix_ms())));
            match self.ended.recv_timeout(LOOK_INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn report(&self, swept: Result<(), RecordError>) {
        if let Err(error) = swept {
            tracing::error!(%error, "what uploads left over cannot be read; it is looked for again later");
        }
    }

    /// Removes pieces that no record tells of. Only a start looks for them: it takes a look at every input.
    fn abandoned(&self) -> Result<(), RecordError> {
        for input in inputs::abandoned(&*self.store.snapshot()?)? {
            // It may have been brought since, or is being brought.
            let Ok(_place) = self.uploads.begin_removal(input) else { continue };
            if inputs::is_abandoned(&*self.store.snapshot()?, input)? {
                self.remove(input)?;
            }
        }
        Ok(())
    }

    fn stale(&self, now: UnixMillis) -> Result<(), RecordError> {
        for input in inputs::stale(&*self.store.snapshot()?, now)? {
            let Ok(_place) = self.uploads.begin_removal(input) else { continue };
            if inputs::is_stale(&*self.store.snapshot()?, input, now)? {
                self.remove(input)?;
            }
        }
        Ok(())
    }

    fn remove(&self, input: Digest) -> Result<(), RecordError> {
        tracing::info!(%input, "removing what came of an upload that nobody has gone on with");
        while let Some(batch) = inputs::removal_batch(&*self.store.snapshot()?, input)? {
            if self.is_ending() || !self.journal.commit_and_wait(move || batch) {
                // The next look or the next start goes on.
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_ending(&self) -> bool {
        matches!(self.ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::limits::INPUT_PIECE_BYTES;
    use tessera_storage::{Batch, Commit, Family, Memory};

    use crate::inputs::{Piece, Presence, UNFINISHED_KEPT, piece_batch, upload_batch, whole_batch};

    fn part(input: Digest, number: u64, last: u64) -> Batch {
        let bytes = vec![1; INPUT_PIECE_BYTES as usize];
        upload_batch(input, &Piece { number, bytes, declared: 100 * INPUT_PIECE_BYTES }, UnixMillis(last))
    }

    #[test]
    fn what_may_be_gone_on_with_is_kept_and_what_is_old_or_has_no_record_is_removed() {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let [whole, orphan, fresh, old, busy] = [1, 2, 3, 4, 5].map(|number| Digest([number; 32]));
        let now = unix_ms();
        let long_ago = now - UNFINISHED_KEPT.as_millis() as u64;
        let mut batches =
            vec![piece_batch(whole, 0, b"x"), whole_batch(whole, 1), piece_batch(orphan, 3, b"x")];
        batches.extend([part(fresh, 0, long_ago + 60_000), part(busy, 0, long_ago)]);
        // More than one batch removes.
        batches.extend((0..20).map(|number| part(old, number, long_ago)));
        for batch in batches {
            assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        }
        let (journal, journal_thread) = Journal::start(engine.clone()).unwrap();
        let uploads = Uploads::default();
        let _place = uploads.begin(busy).unwrap();
        let (sweeper, thread) = Sweeper::start(engine.clone(), journal.clone(), uploads).unwrap();
        let kept = || {
            let snapshot = engine.snapshot().unwrap();
            [whole, orphan, fresh, old, busy].map(|input| {
                let has_pieces = !snapshot.range(&tessera_storage::pieces_of(input), 1).unwrap().is_empty();
                (has_pieces, inputs::presence(&*snapshot, input).unwrap().received())
            })
        };
        let expected =
            [(true, 1), (false, 0), (true, INPUT_PIECE_BYTES), (false, 0), (true, INPUT_PIECE_BYTES)];
        let started = std::time::Instant::now();
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
