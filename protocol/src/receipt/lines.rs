//! The shards of a provider's receipt: lines of them, and the proof of one.
//!
//! Owns the two trees. Keeps no digest of a shard: who has the digests of a line shows that they are those that the
//! hub accepted.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Receipt, SignedReceipt};
use crate::canonical;
use crate::credits::{Earned, Microcredits};
use crate::id::{AgentId, Digest};
use crate::merkle;

/// Shards of a line at most: a proof of one needs the digests of all of them.
pub const SHARDS_MAX: usize = 64;

/// What an agent is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// A partial that is in the result.
    Shard,
    /// A second answer that was of use.
    Check,
}

/// All lines of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// Root of the [tree](merkle) over their canonical forms, in their order.
    pub root: Digest,
}

/// Answers of one agent that were paid together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Whose.
    pub agent: AgentId,
    /// What they were.
    pub service: Service,
    /// To which shards: the start and end of each range. *Order*: ascending.
    pub shards: Vec<(u64, u64)>,
    /// Compute units of each.
    pub units_each: Microcredits,
    /// Root of the [tree](merkle) over the shards' leaves, by index.
    pub root: Digest,
}

/// One shard, and the way from it to what is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardProof {
    /// The shard.
    pub index: u64,
    /// BLAKE3 of the partial that the hub accepted.
    pub digest: Digest,
    /// From the shard to its line.
    pub to_line: Vec<Digest>,
    /// The line.
    pub line: Line,
    /// Its position.
    pub position: u64,
    /// From the line to the receipt.
    pub to_receipt: Vec<Digest>,
}

/// Why what stands beside a signed receipt is not what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// The lines are others than those that are signed.
    OtherLines,
    /// The lines are those that are signed, and are not what the receipt sums up.
    DoNotAdd,
    /// The shard is not in the line that is signed, or not with this digest.
    NotProven {
        /// Which.
        index: u64,
    },
    /// The receipt is of no shards: it is a client's, or of a job older than lines.
    NoLines,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::OtherLines => f.write_str("the lines are not those that the hub signed: one was changed, added or removed"),
            LineError::DoNotAdd => f.write_str(
                "the hub signed lines that are not the shards it counts: keep the receipt, it proves the hub's mistake",
            ),
            LineError::NotProven { index } => {
                write!(f, "the hub signed no shard {index} with this digest: the proof was changed")
            }
            LineError::NoLines => f.write_str("the signed receipt has no shards, and here are some: they were added"),
        }
    }
}

impl core::error::Error for LineError {}

/// Why a shard cannot be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofError {
    /// The receipt has no line of that shard.
    NotPaid {
        /// Which.
        index: u64,
    },
    /// A digest of its line is not known.
    DigestMissing {
        /// The shard that it is of.
        index: u64,
    },
    /// The hub accepted others than these digests.
    OtherDigests {
        /// The shard that was to be proven.
        index: u64,
    },
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProofError::NotPaid { index } => write!(
                f,
                "the receipt has no line with shard {index}: another provider was paid for it, or the file has no lines; fetch it again"
            ),
            ProofError::DigestMissing { index } => write!(
                f,
                "the proof needs the digest of shard {index} too, which was paid in the same line: give the work log of the agent that computed it"
            ),
            ProofError::OtherDigests { index } => write!(
                f,
                "the hub accepted other digests in the line of shard {index} than the work log has: an agent gave other bytes than it logged, or the log is of another job"
            ),
        }
    }
}

impl core::error::Error for ProofError {}

/// The leaf that a shard is in its line.
pub(super) fn leaf(index: u64, digest: &Digest) -> Digest {
    merkle::leaf(&[&index.to_le_bytes(), &digest.0])
}

impl Line {
    /// The line of these answers.
    ///
    /// *Panics*: when there are none, or when they are not in ascending order.
    pub fn of(agent: AgentId, service: Service, units_each: Microcredits, answers: &[(u64, Digest)]) -> Line {
        let mut shards: Vec<(u64, u64)> = Vec::new();
        for (index, _) in answers {
            match shards.last_mut() {
                Some((_, end)) if *end == *index => *end += 1,
                Some((_, end)) if *end > *index => panic!("shard {index} is not behind the one before"),
                _ => shards.push((*index, index + 1)),
            }
        }
        let leaves = answers.iter().map(|(index, digest)| leaf(*index, digest));
        let Some(root) = merkle::root(leaves) else { panic!("a line of nothing") };
        Line { agent, service, shards, units_each, root }
    }

    /// How many shards it has; nothing where its ranges are none or overlap.
    pub fn count(&self) -> Option<u64> {
        let ascending = self.shards.windows(2).all(|pair| pair[0].1 < pair[1].0);
        let sum = |sum: u64, (start, end): &(u64, u64)| {
            sum.checked_add(end.checked_sub(*start).filter(|n| *n > 0)?)
        };
        self.shards.iter().try_fold(0, sum).filter(|count| ascending && *count > 0)
    }

    /// The position of a shard among its shards.
    fn position(&self, index: u64) -> Option<u64> {
        let mut before = 0;
        for (start, end) in &self.shards {
            if (*start..*end).contains(&index) {
                return Some(before + (index - start));
            }
            before += end.saturating_sub(*start);
        }
        None
    }

    /// What was done.
    fn earned(&self) -> Option<Earned> {
        let count = self.count()?;
        let units = Microcredits(self.units_each.0.checked_mul(i128::from(count))?);
        Some(match self.service {
            Service::Shard => Earned { shards: count, units, ..Earned::default() },
            Service::Check => Earned { checks: count, check_units: units, ..Earned::default() },
        })
    }

    fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.shards.iter().flat_map(|(start, end)| *start..*end)
    }

    /// The leaves of its shards, by what is known of their digests.
    fn leaves(&self, digest: &impl Fn(u64) -> Option<Digest>) -> Result<Vec<Digest>, ProofError> {
        let of = |index| {
            digest(index).map(|digest| leaf(index, &digest)).ok_or(ProofError::DigestMissing { index })
        };
        self.indices().map(of).collect()
    }
}

fn line_leaf(line: &impl Serialize) -> Option<Digest> {
    Some(merkle::leaf(&[&canonical::to_vec(line).ok()?]))
}

impl Lines {
    /// What is signed of these lines; nothing of none.
    pub fn of(lines: &[Line]) -> Option<Lines> {
        let leaves: Option<Vec<Digest>> = lines.iter().map(line_leaf).collect();
        Some(Lines { count: lines.len() as u64, root: merkle::root(leaves?)? })
    }
}

/// Whether the lines and the shard beside a receipt are what it signs. A line of a newer hub may say more than is
/// read of it, so that its text counts.
pub(super) fn check(signed: &SignedReceipt, document: &Value) -> Result<(), LineError> {
    let beside = !signed.lines.is_empty() || signed.shard.is_some();
    let of = match &signed.receipt {
        Receipt::Provider(of) if beside => of,
        Receipt::Job(_) if beside => return Err(LineError::NoLines),
        Receipt::Provider(_) | Receipt::Job(_) => return Ok(()),
    };
    let stated = of.lines.ok_or(LineError::NoLines)?;
    if !signed.lines.is_empty() {
        let texts = document["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        let leaves: Option<Vec<Digest>> = texts.iter().map(line_leaf).collect();
        let root = leaves.and_then(merkle::root);
        if (texts.len() as u64, root) != (stated.count, Some(stated.root)) {
            return Err(LineError::OtherLines);
        }
        let mut sums: BTreeMap<AgentId, Earned> = BTreeMap::new();
        for line in &signed.lines {
            sums.entry(line.agent).or_default().add(&line.earned().ok_or(LineError::DoNotAdd)?);
        }
        let counted: BTreeMap<AgentId, Earned> =
            of.agents.iter().map(|share| (share.agent, share.earned)).collect();
        if sums != counted || has_a_shard_twice(&signed.lines) {
            return Err(LineError::DoNotAdd);
        }
    }
    match &signed.shard {
        Some(proof) => is_proven(proof, &document["shard"]["line"], stated),
        None => Ok(()),
    }
}

/// No shard is paid twice; who checked one may have computed none.
fn has_a_shard_twice(lines: &[Line]) -> bool {
    let of_work = |line: &&Line| line.service == Service::Shard;
    let mut ranges: Vec<(u64, u64)> =
        lines.iter().filter(of_work).flat_map(|line| line.shards.clone()).collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| pair[0].1 > pair[1].0)
}

fn is_proven(proof: &ShardProof, line: &Value, stated: Lines) -> Result<(), LineError> {
    let not_proven = LineError::NotProven { index: proof.index };
    let count = proof.line.count().ok_or(not_proven)?;
    let position = proof.line.position(proof.index).ok_or(not_proven)?;
    let shard = leaf(proof.index, &proof.digest);
    let root = merkle::climb(shard, position, count, &proof.to_line);
    let line = line_leaf(line).ok_or(not_proven)?;
    let whole = merkle::climb(line, proof.position, stated.count, &proof.to_receipt);
    match root == Some(proof.line.root) && whole == Some(stated.root) {
        true => Ok(()),
        false => Err(not_proven),
    }
}

/// How many lines are of the digests that are known, and of how many a digest is missing. *Errors*: the first line
/// of which the hub accepted other digests.
pub fn match_lines(
    signed: &SignedReceipt,
    digest: impl Fn(u64) -> Option<Digest>,
) -> Result<(u64, u64), ProofError> {
    let (mut same, mut unknown) = (0, 0);
    for line in &signed.lines {
        match line.leaves(&digest).map(merkle::root) {
            Ok(root) if root == Some(line.root) => same += 1,
            Ok(_) => {
                return Err(ProofError::OtherDigests {
                    index: line.shards.first().map_or(0, |first| first.0),
                });
            }
            Err(_) => unknown += 1,
        }
    }
    Ok((same, unknown))
}

/// The receipt with the proof of one shard in place of its lines.
pub fn prove(
    signed: &SignedReceipt,
    index: u64,
    digest: impl Fn(u64) -> Option<Digest>,
) -> Result<SignedReceipt, ProofError> {
    // A shard that the provider both computed and checked is proven as computed.
    let has = |service| {
        signed.lines.iter().position(|line| line.service == service && line.position(index).is_some())
    };
    let position =
        has(Service::Shard).or_else(|| has(Service::Check)).ok_or(ProofError::NotPaid { index })?;
    let line = &signed.lines[position];
    let leaves = line.leaves(&digest)?;
    let other = ProofError::OtherDigests { index };
    if merkle::root(leaves.clone()) != Some(line.root) {
        return Err(other);
    }
    let of_lines: Vec<Digest> = signed.lines.iter().filter_map(line_leaf).collect();
    let shard = ShardProof {
        index,
        digest: digest(index).ok_or(ProofError::DigestMissing { index })?,
        to_line: line.position(index).and_then(|at| merkle::path(leaves, at as usize)).ok_or(other)?,
        line: line.clone(),
        position: position as u64,
        to_receipt: merkle::path(of_lines, position).ok_or(other)?,
    };
    Ok(SignedReceipt { lines: Vec::new(), shard: Some(shard), ..signed.clone() })
}
