//! Reading a store in a cluster at one moment.
//!
//! Owns [`Moment`]. A moment is a version of the cluster: each read is a transaction of its own at that version,
//! so that the timeout of each begins with it and nothing read is kept by the client library. FoundationDB
//! forgets a version after 5 s; then reads say [`ReadError::Expired`].

use super::cluster::Connection;
use super::fate::TRANSACTION_TOO_OLD;
use crate::batch::check_key;
use crate::engine::{Entry, KeyRange, ReadError, Snapshot};
use ::foundationdb::options::StreamingMode;
use ::foundationdb::{FdbError, KeySelector, RangeOption, Transaction};
use std::sync::Arc;
use std::time::Duration;

/// How long one read may take. *Source*: ours: a little more than FoundationDB keeps a version.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(6);

/// Attempts at a read that the cluster puts off, as it does while a machine of it is replaced.
const ATTEMPTS: u32 = 5;
/// Pause between them.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// A store as it was at one version of the cluster.
pub(super) struct Moment {
    connection: Arc<Connection>,
    version: i64,
}

impl Moment {
    /// The store as it is now: every commit that was acknowledged to anybody shows in it.
    pub(super) fn now(connection: Arc<Connection>) -> Result<Moment, ReadError> {
        let mut transaction =
            connection.transaction(READ_LIMIT).map_err(|error| failed(&connection, error))?;
        loop {
            match connection.wait(transaction.get_read_version(), READ_LIMIT) {
                Ok(version) => return Ok(Moment { connection, version }),
                Err(error) if connection.is_retryable(error) => {
                    let again = connection.wait(transaction.on_error(error), READ_LIMIT);
                    transaction = again.map_err(|error| failed(&connection, error))?;
                }
                Err(error) => return Err(failed(&connection, error)),
            }
        }
    }

    /// Reads at the moment's version, again when the cluster asks for patience.
    fn read<T>(&self, read: impl Fn(&Transaction) -> Result<T, FdbError>) -> Result<T, ReadError> {
        let connection = &*self.connection;
        let mut attempt = 1;
        loop {
            let transaction =
                connection.transaction(READ_LIMIT).map_err(|error| failed(connection, error))?;
            transaction.set_read_version(self.version);
            match read(&transaction) {
                Ok(found) => return Ok(found),
                Err(error) if error.code() == TRANSACTION_TOO_OLD => return Err(ReadError::Expired),
                Err(error) if attempt < ATTEMPTS && connection.is_retryable(error) => {
                    attempt += 1;
                    std::thread::sleep(ATTEMPT_PAUSE);
                }
                Err(error) => return Err(failed(connection, error)),
            }
        }
    }
}

fn failed(connection: &Connection, error: FdbError) -> ReadError {
    ReadError::Cluster(connection.trouble(error))
}

impl Snapshot for Moment {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        check_key(key)?;
        let key = self.connection.layout().key(key);
        self.read(|transaction| {
            let found = self.connection.wait(transaction.get(&key, true), READ_LIMIT)?;
            Ok(found.map(|value| value.to_vec()))
        })
    }

    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        range.check()?;
        // To FoundationDB a limit of zero is none.
        if limit == 0 || range.start == range.end {
            return Ok(Vec::new());
        }
        let within = self.connection.layout().range(range);
        self.read(|transaction| {
            let mut entries = entries(&self.connection, transaction, &within, limit)?;
            for entry in &mut entries {
                entry.key = self.connection.layout().own(&entry.key);
            }
            Ok(entries)
        })
    }
}

/// The first `limit` entries of a range of the cluster, page by page. *Shape*: `limit` is not zero.
pub(super) fn entries(
    connection: &Connection,
    transaction: &Transaction,
    range: &KeyRange,
    limit: usize,
) -> Result<Vec<Entry>, FdbError> {
    let mut entries: Vec<Entry> = Vec::new();
    for page in 1.. {
        let begin = match entries.last() {
            Some(last) => KeySelector::first_greater_than(&*last.key),
            None => KeySelector::first_greater_or_equal(&*range.start),
        };
        let end = KeySelector::first_greater_or_equal(&*range.end);
        let option = RangeOption {
            limit: Some(limit - entries.len()),
            // As much of the rest as one answer of the cluster holds.
            mode: StreamingMode::WantAll,
            ..RangeOption::from((begin, end))
        };
        let found = connection.wait(transaction.get_range(&option, page, true), READ_LIMIT)?;
        entries.extend(
            found.iter().map(|found| Entry { key: found.key().to_vec(), value: found.value().to_vec() }),
        );
        if !found.more() || entries.len() >= limit {
            break;
        }
    }
    Ok(entries)
}
