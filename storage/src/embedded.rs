//! The default engine: one directory on a local disk, crash-safe, nothing to install.
//!
//! Owns the `redb` file inside the directory and turns what `redb` says into the errors of the
//! interface. It may not judge a batch: `judge` does.
//!
//! A commit that returned `Ok` has been synced to the disk. A failure of the disk closes the file;
//! the next operation opens it again, so the engine resumes by itself when the cause is gone.

mod directory;
mod fault;
mod open_error;
mod readonly;

pub use open_error::OpenError;
pub use readonly::ReadOnly;

use crate::batch::{Batch, check_key};
use crate::engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};
use crate::format::FormatError;
use crate::judge::{Tree, judge};
use crate::{format, limits};
use directory::Directory;
use fault::{Fault, guarded};
use redb::{AccessGuard, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// All keys lie in one table, so that the order of the interface is the order of the file.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// A store in a directory of its own. One process at a time may have it open.
pub struct Embedded {
    /// `None` after a failure, until the next operation opens the file again.
    database: RwLock<Option<Database>>,
    /// Holds the lock, so it is dropped after the database.
    directory: Directory,
}

impl Embedded {
    /// Whether a store lies in `directory`; opens and changes nothing.
    pub fn exists(directory: &Path) -> bool {
        directory.join(directory::STORE).is_file()
    }

    /// Opens the store in `directory`, or makes one there, readable by this user alone.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn open(directory: &Path) -> Result<Embedded, OpenError> {
        let embedded = Embedded::open_unclaimed(directory)?;
        let file = embedded.directory.store_path();
        match format::claim(&embedded) {
            Ok(()) => Ok(embedded),
            Err(FormatError::Commit(CommitError::DiskFull(source))) => {
                Err(OpenError::DiskFull { path: file, source })
            }
            Err(FormatError::Commit(CommitError::Denied(source))) => {
                Err(OpenError::Denied { path: file, source })
            }
            Err(
                FormatError::Commit(CommitError::Corrupt(source))
                | FormatError::Read(ReadError::Corrupt(source)),
            ) => Err(OpenError::Corrupt { file, source }),
            Err(source) => Err(OpenError::Format { file, source }),
        }
    }

    /// Opens the store in `directory` whatever its format, or makes an empty one of none there: to be filled from
    /// another.
    ///
    /// *Errors*: see [`OpenError`].
    pub fn open_unclaimed(directory: &Path) -> Result<Embedded, OpenError> {
        let directory = Directory::lock(directory)?;
        if !directory.holds_store()? {
            // A store appears under its name only once it is complete, so that a crash in the
            // middle of its making leaves nothing that looks like a damaged one.
            let file = directory.create_draft()?;
            guarded(|| initialise(&builder().create_file(file)?))
                .map_err(|fault| directory.explain(fault))?;
            directory.publish_draft()?;
        }
        let file = directory.store_path();
        let database = open_file(&file).map_err(|fault| directory.explain(fault))?;
        Ok(Embedded { database: RwLock::new(Some(database)), directory })
    }

    /// The directory the store lies in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
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
            *database = Some(open_file(&self.directory.store_path())?);
        }
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        close(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Closes a database that may be damaged. What was acknowledged is on the disk already, so there is
/// nobody left to tell about a failure.
fn close(database: Option<Database>) {
    let _ = guarded(|| {
        drop(database);
        Ok(())
    });
}

fn open_file(path: &Path) -> Result<Database, Fault> {
    guarded(|| Ok(builder().open(path)?))
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(limits::EMBEDDED_CACHE_BYTES);
    builder
}

/// Makes the table, so that reading never meets a store without it.
fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    Ok(transaction.commit()?)
}

impl Engine for Embedded {
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
struct Moment {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
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
