//! The audit log as the journal writes it: entries in the transaction of what they report.
//!
//! Of many hubs on one store only the one that leads writes the log. The others write what they report beside their own
//! records, in the same transaction and where no other hub writes; the leader moves it into the log.
//!
//! Owns the head of the chain, the Merkle tree and the signing of checkpoints. Every batch that adds entries expects
//! the head it was made for, so that the store itself keeps the chain whole: a batch whose head is another's by then
//! conflicts, and is made anew.

use std::time::Duration;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use tessera_protocol::audit::{
    Act, AuditError, AuditPage, BLOCK_ENTRIES, Checked, Checkpoint, Entry, Seals, SignedCheckpoint,
    signature_text,
};
use tessera_protocol::canonical;
use tessera_protocol::id::{Digest, HubId};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Expect, Family, Key, KeyRange, ReadError, Snapshot};

use crate::backend::unix_ms;
use crate::quic::Identity;
use crate::records::RecordError;

/// Entries between two checkpoints at most.
const CHECKPOINT_ENTRIES: u64 = BLOCK_ENTRIES;
/// Time between two checkpoints at most, while there are entries.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(600);
/// Entries of a page.
pub const PAGE_ENTRIES: u64 = 1_000;

/// A batch with what the audit log says of it.
#[derive(Debug, Default)]
pub struct Deed {
    /// What is written.
    pub batch: Batch,
    /// What is reported.
    pub acts: Vec<Act>,
}

impl From<Batch> for Deed {
    fn from(batch: Batch) -> Deed {
        Deed { batch, acts: Vec::new() }
    }
}

/// Under `act/`: what is to stand in the log, and when it happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// When it happened.
    pub time_ms: UnixMillis,
    /// What happened: an [`Act`], or one of a newer hub.
    pub act: Value,
}

impl Told {
    /// What happened at a time.
    pub fn of(act: &Act, time_ms: UnixMillis) -> Told {
        Told { time_ms, act: serde_json::to_value(act).unwrap_or_default() }
    }

    /// As it lies in the store.
    pub fn bytes(&self) -> Vec<u8> {
        // Our own types have string keys and finite numbers, so they always are JSON.
        serde_json::to_vec(self).expect("stored types are JSON")
    }

    /// What a hub wrote.
    pub fn decode(hub: HubId, value: &[u8]) -> Result<Told, RecordError> {
        let malformed = |_| RecordError::Malformed { what: "report", of: hub.to_string() };
        serde_json::from_slice(value).map_err(malformed)
    }
}

/// How far the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    entries: u64,
    hash: Digest,
}

impl Head {
    const START: Head = Head { entries: 0, hash: Digest([0; 32]) };

    fn bytes(self) -> Vec<u8> {
        [&self.entries.to_be_bytes()[..], &self.hash.0].concat()
    }

    fn read(store: &dyn Snapshot) -> Result<Head, RecordError> {
        let Some(bytes) = store.get(&Key::AuditHead.encode())? else { return Ok(Head::START) };
        let malformed = || RecordError::Malformed { what: "head", of: "the audit log".to_owned() };
        let (entries, hash) = bytes.split_first_chunk().ok_or_else(malformed)?;
        let hash = hash.try_into().map_err(|_| malformed())?;
        Ok(Head { entries: u64::from_be_bytes(*entries), hash: Digest(hash) })
    }
}

/// What lies under [`Key::AuditHead`].
#[cfg(test)]
pub(crate) fn head_bytes(entries: u64, hash: Digest) -> Vec<u8> {
    Head { entries, hash }.bytes()
}

type Tree = MemoryBackedTree<Sha256, [u8; 32]>;

/// The log's writer, on the journal's thread.
pub struct Auditor {
    identity: Identity,
    head: Head,
    /// Leaves of the whole blocks of the head.
    blocks: Vec<Digest>,
    signed_ms: u64,
}

impl std::fmt::Debug for Auditor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auditor").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Auditor {
    /// Goes on from what the store holds.
    pub fn resume(identity: Identity, store: &dyn Snapshot) -> Result<Auditor, RecordError> {
        let mut auditor = Auditor { identity, head: Head::START, blocks: Vec::new(), signed_ms: 0 };
        auditor.read_head(store)?;
        Ok(auditor)
    }

    /// Finds out where the log is after a commit that may or may not have happened.
    pub fn read_head(&mut self, store: &dyn Snapshot) -> Result<(), RecordError> {
        self.head = Head::read(store)?;
        self.blocks.truncate((self.head.entries / BLOCK_ENTRIES) as usize);
        let more = blocks(store, self.blocks.len() as u64, self.head)?;
        self.blocks.extend(more);
        Ok(())
    }

    /// Adds entries to the batch that does what they report. When it conflicts at [`Key::AuditHead`], the head was
    /// another by then: [`Auditor::read_head`], and write it again.
    pub fn write(&mut self, batch: &mut Batch, acts: &[Act]) {
        let now = UnixMillis(unix_ms());
        let told: Vec<Told> = acts.iter().map(|act| Told::of(act, now)).collect();
        self.write_told(batch, &told);
    }

    /// As [`Auditor::write`], of what happened earlier.
    fn write_told(&mut self, batch: &mut Batch, told: &[Told]) {
        if told.is_empty() {
            return;
        }
        let expect = match self.head {
            Head::START => Expect::Absent,
            head => Expect::Equals(head.bytes()),
        };
        batch.expect(Key::AuditHead, expect);
        let now = unix_ms();
        for Told { time_ms, act } in told {
            let entry = Entry {
                number: self.head.entries,
                time_ms: *time_ms,
                previous: self.head.hash,
                act: act.clone(),
            };
            let line = entry.line();
            self.head = Head { entries: entry.number + 1, hash: Digest::of(&line) };
            batch.put(Key::Audit(entry.number), line);
            if self.head.entries.is_multiple_of(BLOCK_ENTRIES) {
                self.blocks.push(self.head.hash);
            }
            let due = now.saturating_sub(self.signed_ms) >= CHECKPOINT_PAUSE.as_millis() as u64;
            if due || self.head.entries.is_multiple_of(CHECKPOINT_ENTRIES) {
                self.signed_ms = now;
                let signed = sign(&self.identity, self.head, &self.blocks, now);
                batch.put(Key::Checkpoint(self.head.entries), line_of(&signed));
            }
        }
        batch.put(Key::AuditHead, self.head.bytes());
    }
}

/// How what a hub reports reaches the log.
#[derive(Debug)]
pub enum Reports {
    /// It writes the log itself.
    Log(Auditor),
    /// Another hub leads, and moves there what this one writes beside its records.
    Beside(Beside),
}

/// What a hub that does not lead has reported.
#[derive(Debug)]
pub struct Beside {
    identity: Identity,
    hub: HubId,
    next: u64,
}

impl From<Auditor> for Reports {
    fn from(auditor: Auditor) -> Reports {
        Reports::Log(auditor)
    }
}

impl Reports {
    /// Of a hub that has just begun to serve beside others.
    pub fn beside(identity: Identity, hub: HubId) -> Reports {
        Reports::Beside(Beside { identity, hub, next: 0 })
    }

    /// From now on this hub writes the log.
    pub fn lead(&mut self, store: &dyn Snapshot) -> Result<(), RecordError> {
        if let Reports::Beside(Beside { identity, .. }) = self {
            *self = Reports::Log(Auditor::resume(identity.clone(), store)?);
        }
        Ok(())
    }

    /// See [`Auditor::read_head`].
    pub fn read_head(&mut self, store: &dyn Snapshot) -> Result<(), RecordError> {
        match self {
            Reports::Log(auditor) => auditor.read_head(store),
            // A number is used once, whatever became of it.
            Reports::Beside(_) => Ok(()),
        }
    }

    /// Adds to a batch what it does, and what was reported earlier and is moved by it.
    pub fn write(&mut self, batch: &mut Batch, acts: &[Act], moved: &[Told]) {
        if acts.is_empty() && moved.is_empty() {
            return;
        }
        let now = UnixMillis(unix_ms());
        let told: Vec<Told> = acts.iter().map(|act| Told::of(act, now)).collect();
        match self {
            Reports::Log(auditor) => {
                auditor.write_told(batch, &[moved, &told].concat());
            }
            Reports::Beside(Beside { hub, next, .. }) => {
                for told in moved.iter().chain(&told) {
                    batch.put(Key::Act { hub: *hub, number: *next }, told.bytes());
                    *next += 1;
                }
            }
        }
    }
}

/// What hubs reported and the log does not say yet, at most so many acts: a batch that removes it where it lies, and
/// what is to be added to the log with it. *Order*: of each hub, as it reported.
pub fn reported(store: &dyn Snapshot, max: usize) -> Result<(Batch, Vec<Told>), RecordError> {
    let (mut batch, mut told) = (Batch::new(), Vec::new());
    for entry in store.range(&Family::Acts.range(), max)? {
        let Ok((Key::Act { hub, .. }, _)) = Key::decode(&entry.key) else { continue };
        told.push(Told::decode(hub, &entry.value)?);
        batch.expect_exists(entry.key.clone()).delete(entry.key);
    }
    Ok((batch, told))
}

fn line_of(signed: &SignedCheckpoint) -> Vec<u8> {
    canonical::to_vec(signed).unwrap_or_default()
}

fn sign(identity: &Identity, head: Head, blocks: &[Digest], now: u64) -> SignedCheckpoint {
    let mut tree = Tree::new();
    blocks.iter().for_each(|block| tree.push(block.0));
    let (root, time_ms) = (root_of(&tree), UnixMillis(now));
    let checkpoint = Checkpoint { entries: head.entries, head: head.hash, root, time_ms };
    let signature = signature_text(&identity.sign(&checkpoint.message()));
    SignedCheckpoint { checkpoint, hub_key: Digest(identity.public_key().0), signature }
}

/// Reads a part of the log from an entry on. At its end stands a checkpoint of this moment.
pub fn page(identity: &Identity, store: &dyn Snapshot, from: u64) -> Result<AuditPage, RecordError> {
    let head = Head::read(store)?;
    let end = head.entries.min(from.saturating_add(PAGE_ENTRIES));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let mut lines = Vec::new();
    let mut sealed = 0;
    for number in from..end {
        lines.push(text(entry(store, number)?));
        if let Some(checkpoint) = store.get(&Key::Checkpoint(number + 1).encode())? {
            lines.push(text(checkpoint));
            sealed = number + 1;
        }
    }
    if end == head.entries && sealed < end {
        lines.push(text(line_of(&sign(identity, head, &blocks(store, 0, head)?, unix_ms()))));
    }
    let next = (end < head.entries).then_some(end);
    Ok(AuditPage { lines, entries: head.entries, next })
}

/// The last entries of whole blocks, from one on.
fn blocks(store: &dyn Snapshot, from: u64, head: Head) -> Result<Vec<Digest>, RecordError> {
    let last = |block: u64| Ok(Digest::of(&entry(store, (block + 1) * BLOCK_ENTRIES - 1)?));
    (from..head.entries / BLOCK_ENTRIES).map(last).collect()
}

fn entry(store: &dyn Snapshot, number: u64) -> Result<Vec<u8>, RecordError> {
    let missing = || RecordError::Missing { what: "entry", of: format!("audit log at {number}") };
    store.get(&Key::Audit(number).encode())?.ok_or_else(missing)
}

/// Why a log in a store is not what its hub wrote.
#[derive(Debug)]
pub(crate) enum LogError {
    /// It cannot be read.
    Read(RecordError),
    /// An entry or a checkpoint is another.
    Broken(AuditError),
    /// The head names other entries than there are.
    OtherHead {
        /// How many there are.
        found: u64,
        /// How many the head names.
        named: u64,
    },
    /// A checkpoint is of more entries than there are.
    Ahead {
        /// Of how many.
        entries: u64,
    },
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogError::Read(error) => write!(f, "{error}"),
            LogError::Broken(error) => write!(f, "{error}"),
            LogError::OtherHead { found, named } => write!(
                f,
                "the log has {found} entries, and its head names {named} or another last one: entries were removed, added or changed"
            ),
            LogError::Ahead { entries } => {
                write!(
                    f,
                    "a checkpoint is of {entries} entries, and there are not so many: the end was cut off"
                )
            }
        }
    }
}

impl From<ReadError> for LogError {
    fn from(error: ReadError) -> LogError {
        LogError::Read(error.into())
    }
}

/// Checks the chain of the whole log, and every checkpoint by the hub's key. The entries behind the last checkpoint
/// are signed by nobody yet: the head in the store stands for them.
pub(crate) fn check(store: &dyn Snapshot, hub_key: Digest) -> Result<Checked, LogError> {
    let (mut checked, mut seals) = (Checked::new(Some(hub_key)), Ring(Tree::new()));
    let mut rest = Family::Audit.range();
    loop {
        let page = store.range(&rest, PAGE_ENTRIES as usize)?;
        let Some(last) = page.last() else { break };
        rest.start = [&last.key[..], &[0]].concat();
        for entry in page {
            let number = checked.entries + 1;
            checked.line(&entry.value, number, &mut seals).map_err(LogError::Broken)?;
            if let Some(line) = store.get(&Key::Checkpoint(checked.entries).encode())? {
                checked.line(&line, number, &mut seals).map_err(LogError::Broken)?;
            }
        }
    }
    let head = Head::read(store).map_err(LogError::Read)?;
    if (head.entries, head.hash) != (checked.entries, checked.head) {
        return Err(LogError::OtherHead { found: checked.entries, named: head.entries });
    }
    let behind =
        KeyRange::new(Key::Checkpoint(checked.entries + 1).encode(), Family::Checkpoints.range().end);
    match store.range(&behind, 1)?.pop().map(|entry| entry.key) {
        Some(key) => match Key::decode(&key) {
            Ok((Key::Checkpoint(entries), _)) => Err(LogError::Ahead { entries }),
            _ => Ok(checked),
        },
        None => Ok(checked),
    }
}

struct Ring(Tree);

impl Seals for Ring {
    fn verifies(&self, key: &Digest, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
    }

    fn push(&mut self, leaf: &Digest) {
        self.0.push(leaf.0);
    }

    fn root(&self) -> Digest {
        root_of(&self.0)
    }
}

fn root_of(tree: &Tree) -> Digest {
    let mut root = [0; 32];
    root.copy_from_slice(tree.root().as_bytes());
    Digest(root)
}

#[cfg(test)]
#[path = "audit/tests.rs"]
mod tests;
