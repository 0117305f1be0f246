//! How long finished jobs are kept, and how they go.
//!
//! Owns the policy, and what of a job goes when it is pruned: its record first, in one transaction with a stone that
//! says so and with an entry of the audit log, and then all that lay beside it, a part at a time. A hub that is killed
//! in between goes on from the stone. What providers earned, what was settled, the bill's sums and the audit log stay.
//! Works on records; it neither commits nor waits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tessera_protocol::api::JobView;
use tessera_protocol::audit::Act;
use tessera_protocol::id::JobId;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{
    Batch, Entry, Expect, Family, Key, Snapshot, blobs_of, extensions_of, pay_pages_of, tiles_of,
};

use crate::audit::Deed;
use crate::inputs::wanted;
use crate::records::{self, RecordError};

const VERSION: u8 = 1;
/// Jobs, stones or keys looked at at a time.
const PAGE_ENTRIES: usize = 64;
/// Chunks of tiles and of pages of payments that one commit removes: 16 MB at most, for which others wait.
pub(crate) const CHUNKS_MAX: usize = 256;
/// Stands in an extension's key where the count does.
const NOBODY: JobId = JobId([0; 16]);

/// How long finished jobs are kept. Nothing is for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of projects that are not named.
    pub default: Option<Duration>,
    /// Of those that are.
    pub projects: BTreeMap<String, Option<Duration>>,
}

impl Policy {
    fn of(&self, project: &str) -> Option<Duration> {
        self.projects.get(project).copied().unwrap_or(self.default)
    }

    /// The shortest time that a job of any project is kept; nothing where all are kept for ever.
    pub fn shortest(&self) -> Option<Duration> {
        self.projects.values().chain([&self.default]).flatten().min().copied()
    }

    fn is_due(&self, view: &JobView, now: UnixMillis) -> bool {
        match (self.of(&view.project), view.ended_ms) {
            (Some(kept), Some(ended)) if !view.state.is_open() => {
                u128::from(now.0.saturating_sub(ended.0)) >= kept.as_millis()
            }
            _ => false,
        }
    }
}

/// Under `pruned/`: what stands for a job that was pruned.
#[derive(Serialize, Deserialize)]
pub struct Stone {
    version: u8,
    /// When it was pruned.
    pub at_ms: UnixMillis,
    project: String,
    /// Whether something of the job is left.
    pub rest: bool,
    /// When the job ended; older stones do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<UnixMillis>,
}

impl Stone {
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a stone is JSON")
    }

    /// Reads the stone of a job.
    pub fn decode(job: JobId, value: &[u8]) -> Result<Stone, RecordError> {
        let stone = serde_json::from_slice(value).ok().filter(|stone: &Stone| stone.version == VERSION);
        stone.ok_or_else(|| RecordError::Malformed { what: "stone", of: job.to_string() })
    }
}

/// What is left of a job that was pruned then.
#[cfg(test)]
pub(crate) fn stone_bytes(at_ms: UnixMillis, project: &str) -> Vec<u8> {
    let ended_ms = Some(UnixMillis(14));
    Stone { version: VERSION, at_ms, project: project.to_owned(), rest: true, ended_ms }.encode()
}

/// What stands for a job, if it was pruned.
pub fn stone(store: &dyn Snapshot, job: JobId) -> Result<Option<Stone>, RecordError> {
    let value = store.get(&Key::Pruned(job).encode())?;
    value.map(|value| Stone::decode(job, &value)).transpose()
}

/// When a job was pruned.
pub fn pruned_at(store: &dyn Snapshot, job: JobId) -> Result<Option<UnixMillis>, RecordError> {
    Ok(stone(store, job)?.map(|stone| stone.at_ms))
}

/// Adds to the batch that accepts a job that it goes on from another, which is not pruned until it ended: what it has
/// is read again at a restart. The batch conflicts where the other was pruned before.
pub fn put_extension(batch: &mut Batch, parent: JobId, child: JobId) {
    batch.expect_exists(Key::Job(parent));
    batch.put(Key::Extension { parent, child }, [VERSION]);
    // Whoever is about to prune the parent finds that another came.
    batch.add(Key::Extension { parent, child: NOBODY }, 1);
}

/// Finished jobs that are due, on one page of those that may be.
#[derive(Debug, Default)]
pub struct Page {
    /// Those that are.
    pub due: Vec<JobId>,
    /// Where the next page begins, if there is one.
    pub next: Option<Vec<u8>>,
}

/// The page of jobs that begins at a key, or the first. Jobs lie by age, and none that was made within the shortest
/// time of the policy is looked at.
pub fn page(
    store: &dyn Snapshot,
    policy: &Policy,
    from: Option<Vec<u8>>,
    now: UnixMillis,
) -> Result<Page, RecordError> {
    let Some(shortest) = policy.shortest() else { return Ok(Page::default()) };
    let made_before = now.0.saturating_sub(u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX));
    let mut range = Family::Jobs.range();
    range.end = Key::Job(JobId::new(made_before.saturating_add(1), [0; 10])).encode();
    if let Some(from) = from {
        range.start = from;
    }
    if range.start >= range.end {
        return Ok(Page::default());
    }
    let entries = store.range(&range, PAGE_ENTRIES)?;
    let last = entries.last().filter(|_| entries.len() == PAGE_ENTRIES);
    let mut page = Page { next: last.map(|entry| [&entry.key[..], &[0]].concat()), due: Vec::new() };
    for Entry { key, .. } in entries {
        let Ok((Key::Job(job), _)) = Key::decode(&key) else { continue };
        if let Some((_, view)) = records::read_record(store, job)?
            && policy.is_due(&view, now)
        {
            page.due.push(job);
        }
    }
    Ok(page)
}

/// What prunes a job that is due; nothing where it is not, or an open job goes on from it. Conflicts where one came
/// to do so meanwhile.
pub fn prune(
    store: &dyn Snapshot,
    policy: &Policy,
    job: JobId,
    now: UnixMillis,
) -> Result<Option<Deed>, RecordError> {
    let Some((record, view)) = records::read_record(store, job)? else { return Ok(None) };
    let mut count = Expect::Absent;
    for Entry { key, value } in store.range(&extensions_of(job), 2)? {
        match Key::decode(&key) {
            Ok((Key::Extension { child: NOBODY, .. }, _)) => count = Expect::Equals(value),
            _ => return Ok(None),
        }
    }
    if !policy.is_due(&view, now) {
        return Ok(None);
    }
    let counter = Key::Extension { parent: job, child: NOBODY };
    let ended_ms = view.ended_ms.unwrap_or(UnixMillis(0));
    let project = view.project.clone();
    let stone = Stone { version: VERSION, at_ms: now, project, rest: true, ended_ms: Some(ended_ms) };
    let mut batch = Batch::new();
    // It comes first: where it is to be found out what became of the batch, it tells.
    batch.put(Key::Pruned(job), stone.encode());
    batch.expect_equals(Key::Job(job), record).expect(counter, count);
    batch.delete(Key::Job(job)).delete(counter);
    Ok(Some(Deed { batch, acts: vec![Act::JobPruned { job, project: view.project, ended_ms }] }))
}

/// Pruned jobs of which something is left.
pub fn unfinished(store: &dyn Snapshot) -> Result<Vec<JobId>, RecordError> {
    let (mut found, mut failed) = (Vec::new(), None);
    store.walk(&Family::Pruned.range(), &mut |Entry { key, value }| {
        if let Ok((Key::Pruned(job), _)) = Key::decode(&key) {
            match Stone::decode(job, &value) {
                Ok(stone) if stone.rest => found.push(job),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
    })?;
    failed.map_or(Ok(found), Err)
}

/// The batch that removes the next part, up to so many chunks, of what is left of a pruned job; nothing once all of it
/// is gone.
pub fn rest_batch(store: &dyn Snapshot, job: JobId, chunks: usize) -> Result<Option<Batch>, RecordError> {
    let key = Key::Pruned(job);
    let Some(value) = store.get(&key.encode())? else { return Ok(None) };
    let stone = Stone::decode(job, &value)?;
    if !stone.rest {
        return Ok(None);
    }
    let mut batch = Batch::new();
    for Entry { key, .. } in store.range(&blobs_of(job), chunks)? {
        if let Ok((Key::JobBlob { blob, .. }, _)) = Key::decode(&key) {
            wanted::delete_reference(&mut batch, job, blob);
        }
    }
    for range in [tiles_of(job), pay_pages_of(job)] {
        if batch.is_empty() {
            // Their keys alone, not what is under them, would do; an engine gives both.
            for Entry { key, .. } in store.range(&range, chunks)? {
                batch.delete(key);
            }
        }
    }
    if batch.is_empty() {
        for whole in [Key::Manifest(job), Key::Progress(job), Key::Result(job)] {
            batch.delete_chunked(&whole.encode());
        }
        batch.put(key, Stone { rest: false, ..stone }.encode());
    }
    Ok(Some(batch))
}

/// The batch that removes Idempotency-Keys of pruned jobs from the page that begins at a key, and where the next page
/// begins, if there is one.
pub fn keys_batch(
    store: &dyn Snapshot,
    from: Option<Vec<u8>>,
) -> Result<(Batch, Option<Vec<u8>>), RecordError> {
    let mut range = Family::Idempotency.range();
    if let Some(from) = from {
        range.start = from;
    }
    let entries = store.range(&range, PAGE_ENTRIES)?;
    let last = entries.last().filter(|_| entries.len() == PAGE_ENTRIES);
    let next = last.map(|entry| [&entry.key[..], &[0]].concat());
    let mut batch = Batch::new();
    for Entry { key, value } in entries {
        if let Some((job, _)) = records::read_idempotency(&value)
            && pruned_at(store, job)?.is_some()
        {
            batch.delete(key);
        }
    }
    Ok((batch, next))
}

#[cfg(test)]
#[path = "retention/tests.rs"]
mod tests;
