//! One `redb` file and the engine over it, whatever the file lies on.
//!
//! Owns the open database: opens it, closes it after a failure and opens it again. It may not know a
//! path: a [`Medium`] does. It may not judge a batch: `judge` does.

use super::fault::{Fault, guarded};
use crate::batch::{Batch, check_key};
use crate::engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};
use crate::judge::{Tree, judge};
use crate::limits;
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition};
use std::sync::{PoisonError, RwLock};

/// All keys lie in one table, so that the order of the interface is the order of the file.
pub(super) const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// What a store's file lies on: a directory, or in a test a disk that fails when it is told to.
pub trait Medium: Send + Sync {
    /// Opens the file that is there; `builder` has the settings of the store.
    ///
    /// *Errors*: what `redb` or the system says.
    fn open(&self, builder: &redb::Builder) -> Result<Database, redb::Error>;

    /// Makes later reads come from the disk and not from what the system remembers of the file.
    ///
    /// Called after a failure and before the file is opened again: after a sync that failed, the
    /// system may show what was written although the disk does not have it and never will.
    ///
    /// *Errors*: what the system says.
    fn forget(&self) -> Result<(), redb::Error>;
}

/// A store over a medium. A commit that returned `Ok` has been synced to it.
pub struct Store<M: Medium> {
    /// `None` after a failure, until the next operation opens the file again.
    database: RwLock<Option<Database>>,
    /// It may hold a lock, so it is dropped after the database.
    medium: M,
}

impl<M: Medium> Store<M> {
    /// Opens the store that lies on `medium`; [`initialise`] made it once.
    ///
    /// *Errors*: as of a read: nothing was asked to change yet.
    pub fn open(medium: M) -> Result<Store<M>, ReadError> {
        Ok(Store::holding(open(&medium)?, medium))
    }

    /// A store of which the database is open already.
    pub(super) fn holding(database: Database, medium: M) -> Store<M> {
        Store { database: RwLock::new(Some(database)), medium }
    }

    /// What the store lies on.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Runs `work` on the open database and closes it if it failed.
    fn run<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Fault> {
        self.reopen_if_closed()?;
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = &*database else {
            // Another thread's failure closed it since.
            return Err(Fault::Interrupted);
        };
        let outcome = guarded(|| work(open));
        drop(database);
        // `redb` refuses all work after a failed write until the file is opened again.
        if outcome.is_err() {
            close(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
        }
        outcome
    }

    fn reopen_if_closed(&self) -> Result<(), Fault> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            guarded(|| self.medium.forget())?;
            *database = Some(open(&self.medium)?);
        }
        Ok(())
    }
}

impl<M: Medium> Drop for Store<M> {
    fn drop(&mut self) {
        close(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Closes a database that may be damaged. What was acknowledged is on the disk already, so there is
/// nobody left to tell about a failure.
pub(super) fn close(database: Option<Database>) {
    let _ = guarded(|| {
        drop(database);
        Ok(())
    });
}

/// Opens the database that lies on `medium`.
pub(super) fn open(medium: &impl Medium) -> Result<Database, Fault> {
    guarded(|| medium.open(&builder()))
}

/// The settings with which every store is made and opened.
pub fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(limits::EMBEDDED_CACHE_BYTES);
    builder
}

/// Makes an empty store in a new database, so that reading never meets one without its table.
///
/// *Errors*: what `redb` or the system says.
pub fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    Ok(transaction.commit()?)
}

impl<M: Medium> Engine for Store<M> {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        let table = self.run(|database| Ok(database.begin_read()?.open_table(ENTRIES)?))?;
        Ok(Box::new(Moment { table }))
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let checked: Vec<_> = batches.iter().map(Batch::check).collect();
        if checked.iter().all(Result::is_err) {
            return checked
                .into_iter()
                .map(|limit| limit.map(|()| Commit::Done).map_err(Into::into))
                .collect();
        }
        let fit = || batches.iter().zip(&checked).filter(|(_, limit)| limit.is_ok()).map(|(batch, _)| batch);
        let outcome = self.run(|database| commit_fitting(database, fit()));
        let mut commits = match outcome {
            Ok(commits) => commits.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(fault) => fit().map(|_| Err(CommitError::from(fault.clone()))).collect(),
        }
        .into_iter();
        let outcome = |limit: Result<(), _>| match limit {
            Err(limit) => Err(CommitError::Limit(limit)),
            Ok(()) => commits.next().unwrap_or(Err(CommitError::Interrupted)),
        };
        checked.into_iter().map(outcome).collect()
    }
}

/// Judges batches that are within the limits in one durable transaction.
fn commit_fitting<'a>(
    database: &Database,
    batches: impl Iterator<Item = &'a Batch>,
) -> Result<Vec<Commit>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut commits = Vec::new();
    let mut written = false;
    {
        let mut table = transaction.open_table(ENTRIES)?;
        for batch in batches {
            let commit = judge(&mut table, batch)?;
            written |= commit == Commit::Done && !batch.writes().is_empty();
            commits.push(commit);
        }
    }
    // Durability is `redb`'s default, `Immediate`: the file is synced before `commit` returns.
    if written {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(commits)
}

impl Tree for Table<'_, &'static [u8], &'static [u8]> {
    type Error = redb::Error;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(ReadableTable::get(self, key)?.map(|value| value.value().to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
        self.insert(key, value)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        Table::remove(self, key)?;
        Ok(())
    }

    fn remove_range(&mut self, range: &KeyRange) -> Result<(), redb::Error> {
        Ok(self.retain_in(&*range.start..&*range.end, |_, _| false)?)
    }
}

/// One moment of the file: `redb` keeps its pages until this is dropped.
pub(super) struct Moment {
    pub(super) table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Snapshot for Moment {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        check_key(key)?;
        Ok(guarded(|| Ok(self.table.get(key)?.map(|value| value.value().to_vec())))?)
    }

    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        range.check()?;
        let entry = |(key, value): (AccessGuard<'_, _>, AccessGuard<'_, _>)| Entry {
            key: <AccessGuard<'_, &[u8]>>::value(&key).to_vec(),
            value: <AccessGuard<'_, &[u8]>>::value(&value).to_vec(),
        };
        let read = || {
            let within = self.table.range(&*range.start..&*range.end)?.take(limit);
            within.map(|found| Ok(entry(found?))).collect()
        };
        Ok(guarded(read)?)
    }
}
