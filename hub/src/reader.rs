//! The reader: does for lanes what takes the store too long to do on them, on three threads, so that a piece
//! of an input, for which agents wait, is never behind the minutes that a large result may take.
//!
//! Owns the order of reads and nothing else. A lane hands over what to do with a snapshot and goes on;
//! the work reports back through the lane's mailbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tessera_storage::{Engine, ReadError, Snapshot};

/// Reads of one kind that may wait; the next is given back to its lane.
const QUEUE_MAX: usize = 1_024;

/// What is done with a snapshot.
type Work = Box<dyn FnOnce(Result<Box<dyn Snapshot>, ReadError>) + Send>;

/// How long a read takes, which says with whom it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A piece of an input: a few megabytes.
    Piece,
    /// All tiles of a result: up to a gigabyte.
    Whole,
    /// A product is stored, which waits for the disk.
    Product,
}

/// What is read, and what becomes of it.
pub struct Read {
    length: Length,
    work: Work,
}

impl Read {
    /// A read that has not been offered yet.
    pub fn new(
        length: Length,
        work: impl FnOnce(Result<Box<dyn Snapshot>, ReadError>) + Send + 'static,
    ) -> Read {
        Read { length, work: Box::new(work) }
    }
}

impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The way to the reader, from any thread.
#[derive(Clone, Debug)]
pub struct Reader {
    pieces: Queue,
    wholes: Queue,
    products: Queue,
    stopping: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Queue {
    reads: SyncSender<Option<Work>>,
    done: Arc<AtomicU64>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Reader {
    /// Starts the threads.
    pub fn start(engine: Arc<dyn Engine>) -> std::io::Result<(Reader, Vec<JoinHandle<()>>)> {
        let stopping = Arc::new(AtomicBool::new(false));
        let (pieces, first) = Queue::start("tessera-pieces", engine.clone(), stopping.clone())?;
        let (wholes, second) = Queue::start("tessera-results", engine.clone(), stopping.clone())?;
        let (products, third) = Queue::start("tessera-product", engine, stopping.clone())?;
        Ok((Reader { pieces, wholes, products, stopping }, vec![first, second, third]))
    }

    /// Queues a read.
    ///
    /// *Errors*: the queue is full; the read comes back.
    pub fn offer(&self, read: Read) -> Result<(), Read> {
        let Read { length, work } = read;
        let queue = match length {
            Length::Piece => &self.pieces,
            Length::Whole => &self.wholes,
            Length::Product => &self.products,
        };
        match queue.reads.try_send(Some(work)) {
            Err(TrySendError::Full(Some(work))) => Err(Read { length, work }),
            // A stopped reader has nobody left to report to.
            Ok(()) | Err(TrySendError::Full(None) | TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Ends the threads after the reads that are under way; what waits is dropped, since its lanes have
    /// ended.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for queue in [&self.pieces, &self.wholes, &self.products] {
            // An error says that it has ended already.
            let _ = queue.reads.send(None);
        }
    }

    /// Reads done since the start: of pieces, and of whole results.
    pub fn counts(&self) -> (u64, u64) {
        (self.pieces.done.load(Ordering::Relaxed), self.wholes.done.load(Ordering::Relaxed))
    }
}

impl Queue {
    fn start(
        name: &str,
        engine: Arc<dyn Engine>,
        stopping: Arc<AtomicBool>,
    ) -> std::io::Result<(Queue, JoinHandle<()>)> {
        let (reads, inbox) = sync_channel(QUEUE_MAX);
        let done = Arc::new(AtomicU64::new(0));
        let counter = done.clone();
        let run = move || run(&*engine, &inbox, &stopping, &counter);
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        Ok((Queue { reads, done }, thread))
    }
}

fn run(engine: &dyn Engine, inbox: &Receiver<Option<Work>>, stopping: &AtomicBool, done: &AtomicU64) {
    while let Ok(Some(work)) = inbox.recv() {
        if !stopping.load(Ordering::Relaxed) {
            work(engine.snapshot());
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;
    use tessera_storage::Memory;

    #[test]
    fn a_piece_is_read_while_a_whole_result_is_and_what_waits_at_the_stop_is_dropped() {
        let (reader, threads) = Reader::start(Arc::new(Memory::default())).unwrap();
        let (finish, wait) = channel::<()>();
        let (say, heard) = channel();
        let (long, behind, piece) = (say.clone(), say.clone(), say);
        let long = Read::new(Length::Whole, move |_| {
            long.send("long").unwrap();
            wait.recv().unwrap();
        });
        reader.offer(long).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok("long"));
        reader.offer(Read::new(Length::Whole, move |_| behind.send("behind").unwrap())).unwrap();
        reader.offer(Read::new(Length::Piece, move |_| piece.send("piece").unwrap())).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok("piece"));
        let stopping = reader.clone();
        let stop = std::thread::spawn(move || stopping.stop());
        while !reader.stopping.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        finish.send(()).unwrap();
        stop.join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(heard.recv().is_err(), "nobody is left to hear of a result that was not begun");
    }

    #[test]
    fn a_full_queue_gives_the_read_back() {
        let (reader, _threads) = Reader::start(Arc::new(Memory::default())).unwrap();
        let (finish, wait) = channel::<()>();
        let blocks = Read::new(Length::Piece, move |_| assert!(wait.recv().is_err(), "the test is over"));
        reader.offer(blocks).unwrap();
        let refused = (0..QUEUE_MAX + 1).filter_map(|_| reader.offer(Read::new(Length::Piece, |_| {})).err());
        assert!(
            (1..=2).contains(&refused.count()),
            "one more than fit, or two while the first is on its way"
        );
        drop(finish);
    }
}
