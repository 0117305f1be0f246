//! A store in a cluster, as an engine.
//!
//! Owns [`Cluster`] and its [`Connection`]: how the store is opened, waited for and closed. It may not touch a
//! key: `reading` and `writing` do.

use super::fate::{MarkerLost, NO_ANSWER, Trouble};
use super::network::Network;
use super::open_error::OpenError;
use super::place::{Layout, Place};
use super::reading::Moment;
use super::wait::wait;
use super::writing::Writer;
use crate::batch::Batch;
use crate::engine::{Cause, Commit, CommitError, Engine, ReadError, Snapshot};
use crate::format;
use ::foundationdb::options::TransactionOption;
use ::foundationdb::{Database, FdbError, FdbResult, Transaction};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Times that FoundationDB itself tries a transaction again.
const RETRIES_MAX: i32 = 100;
/// Longest pause between two of them. *Units*: milliseconds.
const RETRY_PAUSE_MS_MAX: i32 = 500;
/// What a wait may last beyond the timeout that FoundationDB keeps itself, before its client library counts as
/// dead.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

/// A store in a FoundationDB cluster.
pub struct Cluster {
    connection: Arc<Connection>,
    writer: Mutex<Writer>,
}

impl Cluster {
    /// Opens the store at `place`, or makes one there.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn open(place: &Place) -> Result<Cluster, OpenError> {
        let connection = Arc::new(Connection::open(place)?);
        let commit = |source| OpenError::Commit { place: place.clone(), source };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| OpenError::Entropy { source: Arc::new(error) })?;
        let writer = Writer::register(&connection, random).map_err(commit)?;
        let cluster = Cluster { connection, writer: Mutex::new(writer) };
        format::claim(&cluster).map_err(|source| OpenError::Format { place: place.clone(), source })?;
        cluster.writer().sweep(&cluster.connection).map_err(commit)?;
        Ok(cluster)
    }

    /// Removes all that belongs to the store at `place`, whatever it is, and cannot be undone.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn erase(place: &Place) -> Result<(), OpenError> {
        let connection = Connection::open(place)?;
        super::writing::clear(&connection, &place.everything())
            .map_err(|source| OpenError::Commit { place: place.clone(), source })
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A writer that panicked has noted what it left open before it waited.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("place", &self.connection.place).finish_non_exhaustive()
    }
}

impl Engine for Cluster {
    fn name(&self) -> &'static str {
        "foundationdb"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        // What is read back after a failed commit must not change afterwards.
        if self.connection.is_open_ended() {
            self.writer().settle(&self.connection).map_err(|error| match error {
                CommitError::Cluster(cause) => ReadError::Cluster(cause),
                _ => ReadError::Interrupted,
            })?;
        }
        Ok(Box::new(Moment::now(self.connection.clone())?))
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        self.writer().commit_all(&self.connection, &batches)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        writer.leave(&self.connection);
    }
}

/// The way to a cluster, and to one store in it.
pub(super) struct Connection {
    /// Dropped before the network, which all that is FoundationDB's needs.
    database: Database,
    place: Place,
    layout: Layout,
    /// Whether a commit's outcome is not known yet.
    open_ended: AtomicBool,
    _network: Network,
}

impl Connection {
    fn open(place: &Place) -> Result<Connection, OpenError> {
        let path = place.cluster_file();
        if let Err(error) = std::fs::read(path) {
            return Err(OpenError::ClusterFile { path: path.to_owned(), source: Arc::new(error) });
        }
        let network = Network::start()?;
        let database = Database::from_path(place.cluster_file_text())
            .map_err(|error| OpenError::Library { source: Arc::new(error) })?;
        let (place, layout) = (place.clone(), place.layout());
        let open_ended = AtomicBool::new(false);
        Ok(Connection { database, place, layout, open_ended, _network: network })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn is_open_ended(&self) -> bool {
        self.open_ended.load(Ordering::Acquire)
    }

    pub(super) fn set_open_ended(&self, open_ended: bool) {
        self.open_ended.store(open_ended, Ordering::Release);
    }

    /// A transaction that ends within `limit` from now, its retries included.
    pub(super) fn transaction(&self, limit: Duration) -> FdbResult<Transaction> {
        let transaction = self.database.create_trx()?;
        // To FoundationDB a timeout of zero is none.
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
        transaction.set_option(TransactionOption::Timeout(limit_ms))?;
        transaction.set_option(TransactionOption::RetryLimit(RETRIES_MAX))?;
        transaction.set_option(TransactionOption::MaxRetryDelay(RETRY_PAUSE_MS_MAX))?;
        Ok(transaction)
    }

    /// Waits for what FoundationDB ends itself within `limit`; if it does not, its client library is dead.
    pub(super) fn wait<T>(
        &self,
        future: impl Future<Output = FdbResult<T>>,
        limit: Duration,
    ) -> FdbResult<T> {
        self.answer(future, limit).unwrap_or(Err(FdbError::from_code(NO_ANSWER)))
    }

    /// The same for what says more than a code; `None` when the client library is dead.
    pub(super) fn answer<T>(&self, future: impl Future<Output = T>, limit: Duration) -> Option<T> {
        wait(future, limit + ANSWER_MARGIN)
    }

    /// Whether the cluster itself says that another attempt may go well.
    pub(super) fn is_retryable(&self, error: FdbError) -> bool {
        error.code() != NO_ANSWER && error.is_retryable()
    }

    /// What it means to an operator that the writer's marker is gone.
    pub(super) fn marker_lost(&self) -> MarkerLost {
        MarkerLost { cluster_file: self.place.cluster_file_text().to_owned() }
    }

    /// What `error` means to an operator.
    pub(super) fn trouble(&self, error: FdbError) -> Cause {
        let code = error.code();
        let said = if code == NO_ANSWER { "no answer" } else { error.message() };
        let cluster_file = self.place.cluster_file_text().to_owned();
        Arc::new(Trouble { cluster_file, code, said })
    }
}
