//! Which blobs are wanted, and how those go that nobody wants.
//!
//! Owns references of jobs to blobs and the time of their last use. A blob goes when no job refers to it and nobody
//! has used it for the grace period: its record first, and then its pieces as those of an upload that was cut off, so
//! that a hub that is killed anywhere leaves either a blob that is here or pieces that the next one removes. Works on
//! records; it neither commits nor waits.

use std::time::Duration;

use tessera_protocol::api::JobState;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Entry, Family, Key, Snapshot, owners_of, refs_of};

use super::{PAGE_ENTRIES, Whole, whole};
use crate::records::{self, RecordError};

/// How long a blob that no job refers to is kept after its last use, unless the operator says otherwise.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A use is written when a tenth of the grace period has passed since the last one that was.
const USES_PER_GRACE: u64 = 10;
/// References looked at to find one that counts. More that count for nothing are removed first.
const REFS_LOOKED_AT: usize = 256;

/// What a blob is to a job that refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A file that it reads: needed as long as the job is known.
    Input,
    /// What one of its shards made: needed unless the job failed or was cancelled.
    Product,
}

impl Role {
    fn encode(self) -> [u8; 1] {
        match self {
            Role::Input => [1],
            Role::Product => [2],
        }
    }
}

/// Adds to a batch that a job refers to a blob.
pub fn put_reference(batch: &mut Batch, job: JobId, blob: Digest, role: Role) {
    batch.put(Key::BlobRef { blob, job }, role.encode()).put(Key::JobBlob { job, blob }, role.encode());
}

/// Adds to a batch that a job refers to a blob no more.
pub fn delete_reference(batch: &mut Batch, job: JobId, blob: Digest) {
    batch.delete(Key::BlobRef { blob, job }).delete(Key::JobBlob { job, blob });
}

/// The batch that says that a blob is used now; nothing where that was said a moment ago. It conflicts where the blob
/// has gone meanwhile.
pub fn use_batch(blob: Digest, found: Whole, now: UnixMillis, grace: Duration) -> Option<Batch> {
    let moment = millis(grace) / USES_PER_GRACE;
    (now.0.saturating_sub(found.used.0) >= moment).then(|| {
        let mut batch = Batch::new();
        batch.expect_exists(Key::Input(blob)).put(Key::Input(blob), Whole { used: now, ..found }.encode());
        batch
    })
}

/// The batch by which a job refers to a product that is here already. It conflicts where that has gone meanwhile.
pub fn product_batch(job: JobId, product: Digest, found: Whole, now: UnixMillis) -> Batch {
    let mut batch = Batch::new();
    batch.expect_exists(Key::Input(product)).put(Key::Input(product), Whole { used: now, ..found }.encode());
    put_reference(&mut batch, job, product, Role::Product);
    batch
}

/// A page of the blobs that are here.
#[derive(Debug, Default)]
pub struct Page {
    /// Those that nobody used for the grace period. Whether a job refers to them is not looked at yet.
    pub idle: Vec<Digest>,
    /// Where the next page begins, if there is one.
    pub next: Option<Vec<u8>>,
}

/// The page of blobs that begins at a key, or the first.
pub fn page(
    store: &dyn Snapshot,
    from: Option<Vec<u8>>,
    now: UnixMillis,
    grace: Duration,
) -> Result<Page, RecordError> {
    let mut range = Family::Inputs.range();
    if let Some(from) = from {
        range.start = from;
    }
    let entries = store.range(&range, PAGE_ENTRIES)?;
    let last = entries.last().filter(|_| entries.len() == PAGE_ENTRIES);
    let mut page = Page { next: last.map(|entry| [&entry.key[..], &[0]].concat()), idle: Vec::new() };
    for Entry { key, value } in entries {
        let Ok((Key::Input(blob), _)) = Key::decode(&key) else { continue };
        if is_idle(Whole::decode(blob, &value)?, now, grace) {
            page.idle.push(blob);
        }
    }
    Ok(page)
}

fn is_idle(found: Whole, now: UnixMillis, grace: Duration) -> bool {
    now.0.saturating_sub(found.used.0) >= millis(grace)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is to be done about a blob that nobody used for the grace period.
#[derive(Debug)]
pub enum Step {
    /// Nothing: a job needs it, or somebody used it.
    Keep,
    /// Commit this, and look again: references that count for nothing are removed.
    Unrefer(Batch),
    /// The blob may go.
    Remove {
        /// Commit this: afterwards the blob is not here, and its pieces are to be removed.
        batch: Batch,
        /// Towards which projects it counts until then, and with how many bytes.
        owners: Vec<(String, u64)>,
    },
}

/// Looks whether a blob may go. The batch conflicts where somebody used the blob meanwhile, as whoever is about to
/// refer to it does first.
pub fn step(
    store: &dyn Snapshot,
    blob: Digest,
    now: UnixMillis,
    grace: Duration,
) -> Result<Step, RecordError> {
    let Some(found) = whole(store, blob)?.filter(|found| is_idle(*found, now, grace)) else {
        return Ok(Step::Keep);
    };
    let mut batch = Batch::new();
    let references = store.range(&refs_of(blob), REFS_LOOKED_AT)?;
    let more = references.len() == REFS_LOOKED_AT;
    for Entry { key, value } in references {
        let Ok((Key::BlobRef { job, .. }, _)) = Key::decode(&key) else { continue };
        if counts(store, job, &value)? {
            return Ok(Step::Keep);
        }
        delete_reference(&mut batch, job, blob);
    }
    if more {
        return Ok(Step::Unrefer(batch));
    }
    batch.expect_equals(Key::Input(blob), found.encode());
    batch.delete(Key::Input(blob)).delete_range(owners_of(blob));
    let mut owners = Vec::new();
    store.walk(&owners_of(blob), &mut |entry| {
        if let Ok((Key::BlobOwner { project, .. }, _)) = Key::decode(&entry.key) {
            owners.push((project.to_owned(), found.bytes));
        }
    })?;
    Ok(Step::Remove { batch, owners })
}

/// Whether a blob counts towards a project.
pub fn is_owned(store: &dyn Snapshot, blob: Digest, project: &str) -> Result<bool, RecordError> {
    Ok(store.get(&Key::BlobOwner { blob, project }.encode())?.is_some())
}

/// Adds to a batch that a blob counts towards a project.
pub fn put_owner(batch: &mut Batch, blob: Digest, project: &str, bytes: u64) {
    batch.put(Key::BlobOwner { blob, project }, bytes.to_be_bytes());
}

/// The batch by which a blob that is here counts towards a further project. It conflicts where it does already, or
/// the blob has gone meanwhile.
pub fn owner_batch(blob: Digest, project: &str, found: Whole, now: UnixMillis) -> Batch {
    let mut batch = Batch::new();
    batch.expect_exists(Key::Input(blob)).expect_absent(Key::BlobOwner { blob, project });
    batch.put(Key::Input(blob), Whole { used: now, ..found }.encode());
    put_owner(&mut batch, blob, project, found.bytes);
    batch
}

/// Whether a reference keeps its blob.
fn counts(store: &dyn Snapshot, job: JobId, role: &[u8]) -> Result<bool, RecordError> {
    let state = records::read_view(store, job)?.map(|view| view.state);
    Ok(match state {
        None => false,
        Some(JobState::Failed | JobState::Cancelled) => role != Role::Product.encode(),
        Some(JobState::Queued | JobState::Running | JobState::Done) => true,
    })
}
