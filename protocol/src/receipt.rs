//! Receipts: what a hub signs about a job that ended, for its client and for each provider.
//!
//! Owns what a receipt says, which bytes it has and how it is checked. It may not touch a key: who checks a receipt
//! brings what verifies a signature.
//!
//! A provider's receipt signs every shard it was paid for by the root of a tree, whose leaves are [`Line`]s, whose
//! leaves are shards. The lines stand beside what is signed, so that one shard can be proven without them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::JobState;
use crate::audit::signature_bytes;
use crate::canonical;
use crate::credits::{Earned, Microcredits};
use crate::id::{AgentId, Digest, JobId};
use crate::spec::VerifyClass;
use crate::unit::UnixMillis;

mod lines;
mod work_log;

pub use lines::{Line, LineError, Lines, ProofError, SHARDS_MAX, Service, ShardProof, match_lines, prove};
pub use work_log::{WorkLog, WorkLogError, work_line};

/// What stands before a receipt where it is signed, so that no other signature of the hub passes for one.
pub const RECEIPT_CONTEXT: &[u8] = b"tessera receipt 1\0";

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Receipt {
    /// For the client of a job.
    Job(JobReceipt),
    /// For a provider whose agents worked on a job.
    Provider(ProviderReceipt),
}

/// What a client got and paid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReceipt {
    /// The job.
    pub job: JobId,
    /// Who paid.
    pub project: String,
    /// How it ended.
    pub state: JobState,
    /// Names the computation.
    pub manifest: Digest,
    /// Names the cut into shards, of the last round.
    pub plan: Digest,
    /// BLAKE3 of the result document; nothing without one.
    pub result: Option<Digest>,
    /// How much was to be done twice.
    pub verify: VerifyClass,
    /// Shards whose second answer agreed.
    pub checks: u64,
    /// Shards on which agents disagreed.
    pub mismatches: u64,
    /// Shards of the result that agents gave alone who were proven wrong later.
    pub tainted: u64,
    /// When it was accepted.
    pub created_ms: UnixMillis,
    /// When it ended.
    pub ended_ms: Option<UnixMillis>,
    /// Shards in the result.
    pub shards: u64,
    /// Their compute units.
    pub units: Microcredits,
    /// What the client pays for a unit. *Units*: hundredths of a microcredit.
    pub percent: u64,
    /// What was held.
    pub held: Microcredits,
    /// What the client paid.
    pub charged: Microcredits,
    /// What went back.
    pub refunded: Microcredits,
    /// Who worked on it, by name.
    pub providers: Vec<ProviderShare>,
}

/// What a provider did for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderShare {
    /// Its name.
    pub provider: String,
    /// What it did.
    #[serde(flatten)]
    pub earned: Earned,
    /// What it was paid.
    pub amount: Microcredits,
}

/// What a provider's agents did for a job, and earned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReceipt {
    /// The job.
    pub job: JobId,
    /// Names the computation.
    pub manifest: Digest,
    /// Names the cut into shards, of the last round.
    pub plan: Digest,
    /// Whose.
    pub provider: String,
    /// When the job ended.
    pub ended_ms: Option<UnixMillis>,
    /// Each agent, by id.
    pub agents: Vec<AgentShare>,
    /// Microcredits a unit.
    pub rate: u64,
    /// What is credited.
    pub amount: Microcredits,
    /// The shards themselves; nothing of a job that is older than lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Lines>,
}

/// What an agent did for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentShare {
    /// Which.
    pub agent: AgentId,
    /// What it did.
    #[serde(flatten)]
    pub earned: Earned,
    /// What that is worth.
    pub amount: Microcredits,
}

/// A receipt with the hub's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReceipt {
    /// What is signed.
    pub receipt: Receipt,
    /// The hub's Ed25519 key.
    pub hub_key: Digest,
    /// Ed25519 over the canonical form of the receipt, behind [`RECEIPT_CONTEXT`]. *Shape*: 128 hex digits.
    pub signature: String,
    /// The lines of a provider's receipt, all or none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    /// One shard of a provider's receipt, proven without the lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardProof>,
}

impl Receipt {
    /// What is signed.
    ///
    /// *Errors*: a number of it is beyond 2^53 - 1.
    pub fn message(&self) -> Result<Vec<u8>, canonical::CanonicalError> {
        Ok([RECEIPT_CONTEXT, &canonical::to_vec(self)?].concat())
    }
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptError {
    /// The bytes are no receipt in its one form.
    Malformed,
    /// It is of another hub.
    OtherHub {
        /// The key it names.
        found: Digest,
    },
    /// The signature is not that of the key that it names.
    BadSignature,
    /// It is signed, and its sums do not add up.
    DoesNotAdd,
    /// It is signed, and the lines or the shard beside it are not what is signed.
    Lines(LineError),
}

impl fmt::Display for ReceiptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReceiptError::Malformed => f.write_str(
                "this is no receipt as a hub writes it: it was changed, or written anew by another program; fetch it again",
            ),
            ReceiptError::OtherHub { found } => {
                write!(f, "this receipt is of another hub, with key {found}: compare with --hub-key")
            }
            ReceiptError::BadSignature => {
                f.write_str("the signature is not the hub's: the receipt was changed, or another wrote it")
            }
            ReceiptError::DoesNotAdd => f.write_str(
                "the hub signed sums that do not add up: keep the receipt, it proves the hub's mistake",
            ),
            ReceiptError::Lines(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ReceiptError {}

/// Reads a receipt and checks everything that can be checked without a hub: its form, the hub's key where that is
/// known, the signature and the sums. `verifies` says whether an Ed25519 signature of a message is by a key.
pub fn check(
    bytes: &[u8],
    hub_key: Option<Digest>,
    verifies: impl Fn(&Digest, &[u8], &[u8]) -> bool,
) -> Result<SignedReceipt, ReceiptError> {
    let malformed = |_| ReceiptError::Malformed;
    // A newer hub may say more than this program reads: what is signed is the text, and not what is read of it.
    let document: Value = serde_json::from_slice(bytes).map_err(malformed)?;
    if canonical::to_vec(&document).map_err(|_| ReceiptError::Malformed)? != bytes {
        return Err(ReceiptError::Malformed);
    }
    let signed: SignedReceipt = serde_json::from_value(document.clone()).map_err(malformed)?;
    if hub_key.is_some_and(|known| known != signed.hub_key) {
        return Err(ReceiptError::OtherHub { found: signed.hub_key });
    }
    let known = ["receipt", "hub_key", "signature", "lines", "shard"];
    let has_more =
        document.as_object().is_none_or(|fields| !fields.keys().all(|key| known.contains(&key.as_str())));
    let receipt = canonical::to_vec(&document["receipt"]).map_err(|_| ReceiptError::Malformed)?;
    let signature = signature_bytes(&signed.signature).ok_or(ReceiptError::BadSignature)?;
    let message = [RECEIPT_CONTEXT, &receipt].concat();
    if has_more || !verifies(&signed.hub_key, &message, &signature) {
        return Err(ReceiptError::BadSignature);
    }
    if !adds_up(&signed.receipt) {
        return Err(ReceiptError::DoesNotAdd);
    }
    lines::check(&signed, &document).map_err(ReceiptError::Lines)?;
    Ok(signed)
}

fn adds_up(receipt: &Receipt) -> bool {
    match receipt {
        Receipt::Job(job) => {
            let shards: u64 = job.providers.iter().map(|share| share.earned.shards).sum();
            let units: Microcredits = job.providers.iter().map(|share| share.earned.units).sum();
            let worth = job.providers.iter().all(|share| share.amount == share.earned.amount());
            let price = crate::credits::price(job.units, job.verify);
            let sums = (shards, units, job.charged) == (job.shards, job.units, price);
            sums && worth && job.held == job.charged + job.refunded
        }
        Receipt::Provider(of) => {
            let worth = of.agents.iter().all(|share| share.amount == share.earned.amount());
            let amount: Microcredits = of.agents.iter().map(|share| share.amount).sum();
            worth && amount == of.amount
        }
    }
}
