//! Committing to a store in a cluster, each batch once whatever the cluster answers.
//!
//! Owns [`Writer`]: its marker, its transactions, and what is done when a commit's outcome is not known. It may
//! not judge a batch nor read what an error means: `plan` and `fate` do.

use super::cluster::Connection;
use super::fate::{After, Fate, Marker, NO_ANSWER, TRANSACTION_TIMED_OUT, after, fate};
use super::plan::{Draft, looked_at, share, weigh};
use super::reading::entries;
use crate::batch::{Batch, Write};
use crate::engine::{Commit, CommitError, KeyRange};
use ::foundationdb::options::{ConflictRangeType, MutationType};
use ::foundationdb::{FdbError, Transaction};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a transaction may take with all its attempts. *Source*: ours: FoundationDB gives up a single attempt
/// after 5 s, and a replaced machine is made up for in about as long.
const COMMIT_LIMIT: Duration = Duration::from_secs(8);
/// How long finding out what became of a commit may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How long a store that is closed waits for its marker to be removed.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// Abandoned markers that one opening removes.
const SWEPT_MAX: usize = 1_000;

/// The only one that writes by way of a connection, one transaction after another.
pub(super) struct Writer {
    marker: Vec<u8>,
    number: u64,
    /// The transaction whose outcome is not known.
    open: Option<u64>,
}

/// How a transaction went.
enum Went {
    /// It is durable, or had nothing to write; its batches were judged like this.
    Judged(Vec<Commit>),
    /// It did not happen, and may go better.
    Again,
}

impl Writer {
    /// Puts the first number into the marker of a writer called `id`, so that it is there from now on.
    pub(super) fn register(connection: &Connection, id: [u8; 16]) -> Result<Writer, CommitError> {
        let marker = connection.layout().marker(&id);
        repeatable(connection, COMMIT_LIMIT, |transaction, version| {
            transaction.set(&marker, &Marker { number: 1, version }.encode());
            Ok(())
        })?;
        Ok(Writer { marker, number: 1, open: None })
    }

    /// Removes the markers of writers that have been gone for long.
    pub(super) fn sweep(&mut self, connection: &Connection) -> Result<(), CommitError> {
        let markers = connection.layout().markers();
        repeatable(connection, COMMIT_LIMIT, |transaction, version| {
            for found in entries(connection, transaction, &markers, SWEPT_MAX)? {
                if Marker::decode(&found.value).is_none_or(|marker| marker.is_abandoned(version)) {
                    // A writer that comes back right now keeps its marker.
                    conflict(transaction, &found.key)?;
                    transaction.clear(&found.key);
                }
            }
            Ok(())
        })
    }

    /// Removes the writer's marker, if nothing hangs on it. Nobody is left to tell about a failure, and whoever
    /// opens the store in ten days sweeps.
    pub(super) fn leave(&mut self, connection: &Connection) {
        if self.open.is_none() {
            let clear = |transaction: &Transaction, _| {
                transaction.clear(&self.marker);
                Ok(())
            };
            let _ = repeatable(connection, LEAVE_LIMIT, clear);
        }
    }

    /// Judges and applies batches, as many as may to one transaction.
    pub(super) fn commit_all(
        &mut self,
        connection: &Connection,
        batches: &[Batch],
    ) -> Vec<Result<Commit, CommitError>> {
        let start_bytes = connection.layout().start_bytes();
        let checked: Vec<_> = batches.iter().map(|batch| weigh(batch, start_bytes)).collect();
        let within = || {
            batches.iter().zip(&checked).filter_map(|(batch, weight)| Some((batch, *weight.as_ref().ok()?)))
        };
        let (fit, weights): (Vec<&Batch>, Vec<usize>) = within().unzip();
        let mut outcomes: Vec<Result<Commit, CommitError>> = Vec::new();
        for shared in share(&weights) {
            match self.commit_shared(connection, &fit[shared]) {
                Ok(commits) => outcomes.extend(commits.into_iter().map(Ok)),
                // Those that follow must see what this one did, so they are not tried.
                Err(error) => {
                    outcomes.resize_with(fit.len(), || Err(error.clone()));
                    break;
                }
            }
        }
        assert_eq!(outcomes.len(), fit.len(), "one outcome for each batch within the limits");
        let mut outcomes = outcomes.into_iter();
        let outcome = |checked: Result<usize, _>| match checked {
            Ok(_) => outcomes.next().unwrap_or(Err(CommitError::Interrupted)),
            Err(limit) => Err(CommitError::Limit(limit)),
        };
        checked.into_iter().map(outcome).collect()
    }

    /// Judges and applies batches in one transaction.
    fn commit_shared(
        &mut self,
        connection: &Connection,
        batches: &[&Batch],
    ) -> Result<Vec<Commit>, CommitError> {
        self.settle(connection)?;
        let deadline = Instant::now() + COMMIT_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(connection, FdbError::from_code(TRANSACTION_TIMED_OUT)));
            }
            if let Went::Judged(commits) = self.commit_within(connection, batches, left)? {
                return Ok(commits);
            }
        }
    }

    /// Tries one transaction until it is committed, fails for good, or must be made anew.
    fn commit_within(
        &mut self,
        connection: &Connection,
        batches: &[&Batch],
        limit: Duration,
    ) -> Result<Went, CommitError> {
        let mut transaction = connection.transaction(limit).map_err(|error| failed(connection, error))?;
        loop {
            let number = self.next();
            let commits = match self.write(connection, &transaction, batches, number) {
                Ok((commits, 0)) => return Ok(Went::Judged(commits)),
                Ok((commits, _)) => commits,
                Err(error) => {
                    transaction = again(connection, transaction, error, limit)?;
                    continue;
                }
            };
            // Noted before the wait: whatever happens from here on, this is found out first.
            self.leave_open(connection, number);
            let Some(answer) = connection.answer(transaction.commit(), limit) else {
                return self.ask(
                    connection,
                    number,
                    commits,
                    FdbError::from_code(NO_ANSWER),
                    After::AskAndGiveUp,
                );
            };
            let Err(refusal) = answer else {
                self.close(connection);
                return Ok(Went::Judged(commits));
            };
            let error: FdbError = *refusal;
            match after(error.code(), error.is_retryable_not_committed()) {
                After::Again => {
                    self.close(connection);
                    let ready = connection.wait(refusal.on_error(), limit);
                    transaction = ready.map_err(|error| failed(connection, error))?;
                }
                After::GiveUp => {
                    self.close(connection);
                    return Err(failed(connection, error));
                }
                asking => return self.ask(connection, number, commits, error, asking),
            }
        }
    }

    /// Finds out what became of a commit that failed with `error`.
    fn ask(
        &mut self,
        connection: &Connection,
        number: u64,
        commits: Vec<Commit>,
        error: FdbError,
        then: After,
    ) -> Result<Went, CommitError> {
        match self.decide(connection, number)? {
            true => Ok(Went::Judged(commits)),
            false if then == After::AskAndGoOn => Ok(Went::Again),
            false => Err(failed(connection, error)),
        }
    }

    /// Finds out what became of a commit that was left open, if one was.
    ///
    /// *Errors*: it cannot be found out now, so nothing may be read or written.
    pub(super) fn settle(&mut self, connection: &Connection) -> Result<(), CommitError> {
        match self.open {
            Some(number) => self.decide(connection, number).map(drop),
            None => Ok(()),
        }
    }

    /// Whether the writer's transaction `number` is durable. If not, it never will be.
    fn decide(&mut self, connection: &Connection, number: u64) -> Result<bool, CommitError> {
        let above = self.next();
        let marker = &self.marker;
        let decided = repeatable(connection, SETTLE_LIMIT, |transaction, version| {
            let found = connection.wait(transaction.get(marker, false), SETTLE_LIMIT)?;
            let fate = fate(found.as_deref(), number);
            if fate == Fate::Open {
                transaction.set(marker, &Marker { number: above, version }.encode());
            }
            Ok(fate)
        })?;
        self.close(connection);
        match decided {
            Fate::Committed => Ok(true),
            // What was open is dead once the number above it is committed.
            Fate::Dead | Fate::Open => Ok(false),
            Fate::Lost => Err(CommitError::Cluster(Arc::new(connection.marker_lost()))),
        }
    }

    /// Judges batches and writes what is done into a transaction that is not committed yet. Gives how many writes
    /// there are.
    fn write(
        &self,
        connection: &Connection,
        transaction: &Transaction,
        batches: &[&Batch],
        number: u64,
    ) -> Result<(Vec<Commit>, usize), FdbError> {
        let layout = connection.layout();
        // All questions are under way before the first answer is waited for.
        let version = transaction.get_read_version();
        let asked: Vec<_> = looked_at(batches)
            .into_iter()
            .map(|key| (key.to_vec(), transaction.get(&layout.key(key), false)))
            .collect();
        let version = connection.wait(version, COMMIT_LIMIT)?;
        let mut found = Vec::with_capacity(asked.len());
        for (key, answer) in asked {
            let value = connection.wait(answer, COMMIT_LIMIT)?;
            found.push((key, value.map(|value| value.to_vec())));
        }
        // Before it is written, for FoundationDB leaves out of a conflict what the transaction itself has written.
        conflict(transaction, &self.marker)?;
        let mut draft = Draft::new(found);
        let mut writes = 0;
        let mut commits = Vec::with_capacity(batches.len());
        for batch in batches {
            let commit = draft.judge(batch);
            if commit == Commit::Done {
                batch.writes().iter().for_each(|write| apply(connection, transaction, write));
                writes += batch.writes().len();
            }
            commits.push(commit);
        }
        transaction.set(&self.marker, &Marker { number, version: version as u64 }.encode());
        Ok((commits, writes))
    }

    /// A number that no transaction of the writer had.
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn leave_open(&mut self, connection: &Connection, number: u64) {
        self.open = Some(number);
        connection.set_open_ended(true);
    }

    fn close(&mut self, connection: &Connection) {
        self.open = None;
        connection.set_open_ended(false);
    }
}

fn apply(connection: &Connection, transaction: &Transaction, write: &Write) {
    let layout = connection.layout();
    match write {
        Write::Put { key, value } => transaction.set(&layout.key(key), value),
        Write::Delete { key } => transaction.clear(&layout.key(key)),
        Write::DeleteRange { range } => {
            let KeyRange { start, end } = layout.range(range);
            transaction.clear_range(&start, &end);
        }
        // The cluster adds as `Write::Add` says, without a read and so without a conflict.
        Write::Add { key, amount } => {
            transaction.atomic_op(&layout.key(key), &amount.to_le_bytes(), MutationType::Add);
        }
    }
}

/// Lets the transaction conflict with whoever else writes `key`.
fn conflict(transaction: &Transaction, key: &[u8]) -> Result<(), FdbError> {
    let after = [key, &[0]].concat();
    transaction.add_conflict_range(key, &after, ConflictRangeType::Read)
}

/// Removes a range of the cluster.
pub(super) fn clear(connection: &Connection, range: &KeyRange) -> Result<(), CommitError> {
    repeatable(connection, COMMIT_LIMIT, |transaction, _| {
        transaction.clear_range(&range.start, &range.end);
        Ok(())
    })
}

/// Commits what does no harm when it happens twice; `make` is given the version that the transaction reads.
fn repeatable<T>(
    connection: &Connection,
    limit: Duration,
    make: impl Fn(&Transaction, u64) -> Result<T, FdbError>,
) -> Result<T, CommitError> {
    let mut transaction = connection.transaction(limit).map_err(|error| failed(connection, error))?;
    loop {
        let made = connection
            .wait(transaction.get_read_version(), limit)
            .and_then(|version| make(&transaction, version as u64));
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                transaction = again(connection, transaction, error, limit)?;
                continue;
            }
        };
        match connection.answer(transaction.commit(), limit) {
            None => return Err(failed(connection, FdbError::from_code(NO_ANSWER))),
            Some(Ok(_)) => return Ok(made),
            Some(Err(refusal)) if connection.is_retryable(*refusal) => {
                let ready = connection.wait(refusal.on_error(), limit);
                transaction = ready.map_err(|error| failed(connection, error))?;
            }
            Some(Err(refusal)) => return Err(failed(connection, *refusal)),
        }
    }
}

/// The transaction, empty and after the pause that FoundationDB asks for; or why there is no other attempt.
fn again(
    connection: &Connection,
    transaction: Transaction,
    error: FdbError,
    limit: Duration,
) -> Result<Transaction, CommitError> {
    if !connection.is_retryable(error) {
        return Err(failed(connection, error));
    }
    connection.wait(transaction.on_error(error), limit).map_err(|error| failed(connection, error))
}

fn failed(connection: &Connection, error: FdbError) -> CommitError {
    CommitError::Cluster(connection.trouble(error))
}
