//! The reader: one thread that reads for lanes what is too large to read on them.
//!
//! Owns the order of reads and nothing else. A lane hands over what to do with a snapshot and goes on;
//! the work reports back through the lane's mailbox.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tessera_storage::{Engine, ReadError, Snapshot};

/// Reads that may wait; the next is given back to its lane.
const QUEUE_MAX: usize = 1_024;

/// What is read, and what becomes of it.
pub type Read = Box<dyn FnOnce(Result<Box<dyn Snapshot>, ReadError>) + Send>;

/// The way to the reader, from any thread.
#[derive(Clone)]
pub struct Reader {
    reads: SyncSender<Option<Read>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Starts the thread.
    pub fn start(engine: Arc<dyn Engine>) -> std::io::Result<(Reader, JoinHandle<()>)> {
        let (reads, inbox) = sync_channel::<Option<Read>>(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("tessera-reader".into()).spawn(move || {
            while let Ok(Some(read)) = inbox.recv() {
                read(engine.snapshot());
            }
        })?;
        Ok((Reader { reads }, thread))
    }

    /// Queues a read.
    ///
    /// *Errors*: the queue is full or the reader has stopped; the read comes back.
    pub fn offer(&self, read: Read) -> Result<(), Read> {
        match self.reads.try_send(Some(read)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Some(read)) | TrySendError::Disconnected(Some(read))) => Err(read),
            Err(TrySendError::Full(None) | TrySendError::Disconnected(None)) => Ok(()),
        }
    }

    /// Ends the thread after everything queued before.
    pub fn stop(&self) {
        // An error says that it has ended already.
        let _ = self.reads.send(None);
    }
}
