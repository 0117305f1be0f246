//! The audit log: entries chained by hashes, and checkpoints that the hub signs.
//!
//! Owns what an entry says, which bytes it has and how a log is checked. It may not touch a key or a file: who checks
//! a log brings what verifies a signature and what makes a Merkle root.
//!
//! A log is text, one JSON document (RFC 8785) a line. An entry names the BLAKE3 of the line before it; the first
//! names 32 zeros. A checkpoint stands behind the entry that it covers last. The last entries of whole blocks of
//! [`BLOCK_ENTRIES`] are the leaves of a Merkle tree (RFC 6962, SHA-256), whose root a checkpoint signs with the hash
//! of its last entry.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{JobState, Standing};
use crate::canonical;
use crate::credits::Microcredits;
use crate::id::{AgentId, Digest, JobId};
use crate::unit::UnixMillis;

/// Entries of a block, whose last one is a leaf of the tree.
pub const BLOCK_ENTRIES: u64 = 256;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Act {
    /// A token was made that enrols an agent of this provider.
    TokenMade {
        /// BLAKE3 of its secret.
        token: Digest,
        /// Whose agent it enrols.
        provider: String,
    },
    /// An agent enrolled.
    AgentEnrolled {
        /// Which.
        agent: AgentId,
        /// Whose it is.
        provider: String,
        /// BLAKE3 of the secret of the token that it spent.
        token: Digest,
    },
    /// An agent was turned away.
    AgentRefused {
        /// Which.
        agent: AgentId,
        /// Why.
        reason: String,
    },
    /// An API key was made.
    ApiKeyMade {
        /// BLAKE3 of its secret.
        key: Digest,
    },
    /// A job was accepted, and its first round's price held.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Who pays.
        project: String,
        /// Names the computation.
        manifest: Digest,
        /// Project to escrow.
        held: Microcredits,
    },
    /// A job ended.
    JobEnded {
        /// The job.
        job: JobId,
        /// How.
        state: JobState,
        /// BLAKE3 of the result document.
        digest: Option<Digest>,
    },
    /// The bill of a job was closed.
    BillClosed {
        /// The job.
        job: JobId,
        /// Project to escrow, all in all.
        held: Microcredits,
        /// Escrow to providers, and hub to providers for checks.
        paid: Microcredits,
        /// What the hub kept.
        hub: Microcredits,
        /// Escrow to project.
        refunded: Microcredits,
    },
    /// A job was forgotten by the hub's retention policy: its result, manifest and detail of payments are gone. What was
    /// earned in it, what was settled and this log stay.
    JobPruned {
        /// The job.
        job: JobId,
        /// Whose it was.
        project: String,
        /// When it had ended.
        ended_ms: UnixMillis,
    },
    /// Providers were paid.
    Settled {
        /// The settlement.
        number: u64,
        /// All in all.
        total: Microcredits,
        /// Who was paid.
        providers: Vec<(String, Microcredits)>,
    },
    /// The hub trusts an agent more or less.
    StandingChanged {
        /// Which.
        agent: AgentId,
        /// How far now.
        standing: Standing,
    },
    /// Agents said different things about a shard.
    Disputed {
        /// Its job.
        job: JobId,
        /// Which.
        shard: u64,
        /// What was said and what was believed, as the hub keeps it. An answer that looked odd has in `odd`, in words,
        /// what was; hubs before that never say it.
        evidence: Value,
    },
    /// An agent was proven wrong, and a job that had not ended had answers of it.
    Recalled {
        /// The job.
        job: JobId,
        /// Whose.
        agent: AgentId,
        /// Shards that are computed again.
        shards: u64,
        /// Shards of the result that it alone answered.
        tainted: u64,
    },
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts entries from zero.
    pub number: u64,
    /// When it was written.
    pub time_ms: UnixMillis,
    /// BLAKE3 of the line before; of the first entry, 32 zeros.
    pub previous: Digest,
    /// What happened: an [`Act`], or one of a newer hub.
    pub act: Value,
}

/// What the hub says of the log's first entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// How many.
    pub entries: u64,
    /// BLAKE3 of the last one's line.
    pub head: Digest,
    /// Root of the Merkle tree over the last entries of whole blocks. *Source*: RFC 6962, section 2.1, with SHA-256.
    pub root: Digest,
    /// When it was signed.
    pub time_ms: UnixMillis,
}

/// A checkpoint with the hub's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    /// The hub's Ed25519 key.
    pub hub_key: Digest,
    /// Ed25519 over the canonical form of the checkpoint, behind [`CHECKPOINT_CONTEXT`]. *Shape*: 128 hex digits.
    pub signature: String,
}

/// What stands before a checkpoint where it is signed, so that no other signature of the hub passes for one.
pub const CHECKPOINT_CONTEXT: &[u8] = b"tessera audit checkpoint 1\0";

/// A part of the log. `GET /v1/audit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The lines, entries and checkpoints in order, without line ends.
    pub lines: Vec<String>,
    /// Entries of the whole log.
    pub entries: u64,
    /// The entry to ask for next; nothing at the end of the log.
    pub next: Option<u64>,
}

impl Checkpoint {
    /// What is signed.
    pub fn message(&self) -> Vec<u8> {
        // Numbers of entries and milliseconds stay below 2^53.
        [CHECKPOINT_CONTEXT, &canonical::to_vec(self).unwrap_or_default()].concat()
    }
}

impl Entry {
    /// Its line.
    pub fn line(&self) -> Vec<u8> {
        canonical::to_vec(self).unwrap_or_default()
    }
}

/// Why a log is not what a hub wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditError {
    /// A line is no entry and no checkpoint in its one form.
    Malformed {
        /// Which, from one.
        line: u64,
    },
    /// An entry has another number than the next.
    OutOfOrder {
        /// Which line.
        line: u64,
        /// The number it should have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// An entry does not name the hash of the one before.
    Broken {
        /// Its number.
        entry: u64,
    },
    /// A checkpoint is of other entries.
    OtherEntries {
        /// How many entries it speaks of.
        entries: u64,
    },
    /// A checkpoint's signature is not that of the hub's key.
    BadSignature {
        /// How many entries it speaks of.
        entries: u64,
    },
    /// A checkpoint is of another hub.
    OtherHub {
        /// The key it names.
        found: Digest,
    },
    /// Nothing signed stands behind the last entries.
    NotSealed {
        /// Entries that a checkpoint covers.
        sealed: u64,
        /// Entries there are.
        entries: u64,
    },
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Malformed { line } => {
                write!(f, "line {line} is no entry and no checkpoint as a hub writes them: it was changed")
            }
            AuditError::OutOfOrder { line, expected, found } => write!(
                f,
                "line {line} is entry {found} where entry {expected} should be: entries were removed, added or moved"
            ),
            AuditError::Broken { entry } => write!(
                f,
                "entry {entry} does not continue the one before it: one of the two was changed or exchanged"
            ),
            AuditError::OtherEntries { entries } => {
                write!(f, "the checkpoint of {entries} entries was signed over other entries than these")
            }
            AuditError::BadSignature { entries } => {
                write!(f, "the checkpoint of {entries} entries does not carry the hub's signature")
            }
            AuditError::OtherHub { found } => {
                write!(f, "a checkpoint is of another hub, with key {found}: compare with --hub-key")
            }
            AuditError::NotSealed { sealed, entries } => write!(
                f,
                "{} entries behind the last checkpoint are not signed: the end was cut off or added to",
                entries - sealed
            ),
        }
    }
}

impl core::error::Error for AuditError {}

/// What a checker brings.
pub trait Seals {
    /// Whether an Ed25519 signature of a message is by this key.
    fn verifies(&self, key: &Digest, message: &[u8], signature: &[u8]) -> bool;
    /// Adds a leaf to the tree.
    fn push(&mut self, leaf: &Digest);
    /// The tree's root.
    fn root(&self) -> Digest;
}

/// Where a log stands that was checked so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Entries.
    pub entries: u64,
    /// Hash of the last.
    pub head: Digest,
    /// Entries that a checkpoint covers.
    pub sealed: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// The hub's key, once it is known.
    pub hub_key: Option<Digest>,
}

impl Checked {
    /// Nothing yet, of the hub with this key or of any.
    pub fn new(hub_key: Option<Digest>) -> Checked {
        Checked { entries: 0, head: Digest([0; 32]), sealed: 0, checkpoints: 0, hub_key }
    }

    /// Checks the next line.
    pub fn line(&mut self, line: &[u8], number: u64, seals: &mut impl Seals) -> Result<(), AuditError> {
        if let Ok(entry) = serde_json::from_slice::<Entry>(line) {
            return self.entry(&entry, line, number, seals);
        }
        let malformed = AuditError::Malformed { line: number };
        let signed: SignedCheckpoint = serde_json::from_slice(line).map_err(|_| malformed.clone())?;
        if canonical::to_vec(&signed).map_err(|_| malformed.clone())? != line {
            return Err(malformed);
        }
        self.checkpoint(&signed, seals)
    }

    fn entry(
        &mut self,
        entry: &Entry,
        line: &[u8],
        number: u64,
        seals: &mut impl Seals,
    ) -> Result<(), AuditError> {
        if entry.line() != line {
            return Err(AuditError::Malformed { line: number });
        }
        if entry.number != self.entries {
            let (expected, found) = (self.entries, entry.number);
            return Err(AuditError::OutOfOrder { line: number, expected, found });
        }
        if entry.previous != self.head {
            return Err(AuditError::Broken { entry: entry.number });
        }
        self.head = Digest::of(line);
        self.entries += 1;
        if self.entries.is_multiple_of(BLOCK_ENTRIES) {
            seals.push(&self.head);
        }
        Ok(())
    }

    fn checkpoint(&mut self, signed: &SignedCheckpoint, seals: &mut impl Seals) -> Result<(), AuditError> {
        let SignedCheckpoint { checkpoint, hub_key, signature } = signed;
        let entries = checkpoint.entries;
        let expected = *self.hub_key.get_or_insert(*hub_key);
        if expected != *hub_key {
            return Err(AuditError::OtherHub { found: *hub_key });
        }
        if (entries, checkpoint.head) != (self.entries, self.head) || checkpoint.root != seals.root() {
            return Err(AuditError::OtherEntries { entries });
        }
        let bytes = signature_bytes(signature).ok_or(AuditError::BadSignature { entries })?;
        if !seals.verifies(hub_key, &checkpoint.message(), &bytes) {
            return Err(AuditError::BadSignature { entries });
        }
        self.sealed = entries;
        self.checkpoints += 1;
        Ok(())
    }

    /// Whether a checkpoint covers everything.
    pub fn end(self) -> Result<Checked, AuditError> {
        match self.sealed == self.entries && self.checkpoints > 0 {
            true => Ok(self),
            false => Err(AuditError::NotSealed { sealed: self.sealed, entries: self.entries }),
        }
    }
}

/// The bytes of a signature written as hex.
pub fn signature_bytes(text: &str) -> Option<[u8; 64]> {
    crate::id::parse_hex(text)
}

/// A signature as hex.
pub fn signature_text(bytes: &[u8]) -> String {
    struct Hex<'a>(&'a [u8]);
    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            crate::id::write_hex(f, self.0)
        }
    }
    Hex(bytes).to_string()
}
