//! Every key of the product, on one page.
//!
//! Owns how keys are written and read. A key is its family's name in ASCII, a slash, then ids as raw
//! bytes and numbers big-endian, so that the order of keys means something: job ids sort by age. It
//! may not know what lies under a key. A change here is a new [`FORMAT`](crate::format::FORMAT).
//!
//! | key | under it |
//! |---|---|
//! | `meta/format` | version of this page, big-endian `u32` |
//! | `meta/upgrade` | how far the store is being brought up to a newer version of this page |
//! | `meta/copying` | marks a store that is being filled from another and is none yet |
//! | `hub/identity` | the hub's Ed25519 key |
//! | `hub/start-token` | the digest of the token that the last start printed; where many hubs run, of theirs too |
//! | `hub/sampling` | the key that chooses which results are checked |
//! | `hub/audit-head` | how many entries the audit log has, and the hash of the last |
//! | `hub/active` | which start of a hub leads those that serve side by side |
//! | `entry/` hub id (16) | how often a hub has renewed its lease, big-endian `u64` |
//! | `fence/` hub id (16) | nothing: it stands as long as that hub may commit |
//! | `hub-at/` hub id (16) | where a hub that serves beside others is reached |
//! | `owner/` job id (16) | the hub, of many, whose an open job is: its id (16) |
//! | `act/` hub id (16), number (8) | what a hub that does not lead reports to the audit log, until it stands there |
//! | `job/` job id (16) | the job's record |
//! | `manifest/` job id (16), chunk (4) | what the job computes, chunked |
//! | `progress/` job id (16), chunk (4) | how far it is, chunked |
//! | `result/` job id (16), chunk (4) | what came out, chunked |
//! | `tile/` job id (16), tile (8), chunk (4) | a finished tile of a matrix job's result, chunked |
//! | `input/` digest (32) | a blob that is here whole, an input file or a product: its length, and when it was last used |
//! | `piece/` digest (32), piece (8), chunk (4) | a piece of a blob, chunked; only in stores that are older than blobs |
//! | `blob-piece/` digest (32), piece (8) | the BLAKE3 of a piece of a blob, whose bytes lie in the store of blobs |
//! | `pruned/` job id (16) | a job that is known no more: when it was pruned, and whether anything of it is left |
//! | `extension/` job id (16), job id (16) | that the second job, which is open, goes on from the first; of no job (zeros): how many ever did |
//! | `blob-ref/` digest (32), job id (16) | that the job needs the blob, and what it is to it |
//! | `job-blob/` job id (16), digest (32) | the same, by job |
//! | `blob-owner/` digest (32), project | that the blob counts towards what the project may keep: its length, big-endian `u64` |
//! | `upload/` digest (32) | how far the upload of an input file is that has not ended yet |
//! | `idem/` length of project (2), project, client's key | the job an Idempotency-Key made |
//! | `agent/` agent id (16) | an enrolled agent |
//! | `token/` digest (32) | a single-use enrolment token |
//! | `provider/` provider id (16) | who owns agents and earns credits |
//! | `bill/` job id (16), chunk (4) | what a job cost and who was paid, chunked |
//! | `tile-pay/` job id (16), tile (8), chunk (4) | who is paid for a tile of a matrix job that has not ended, chunked |
//! | `pay-page/` job id (16), page (8), chunk (4) | who is paid for which shards of a job, chunked |
//! | `earning/` provider id (16), time of its end (8), job id (16) | what a provider earned in a job that ended |
//! | `removal/` provider id (16), time (8) | when an agent of a provider was removed |
//! | `settled/` provider id (16), settlement (8) | what a provider was paid by a settlement |
//! | `settlement/` number (8), chunk (4) | a settlement, chunked |
//! | `standing/` agent id (16) | how far an agent is trusted, and why |
//! | `trace/` agent id (16) | whose it is: an agent proven wrong, while jobs that ended before may not tell of it |
//! | `audit/` number (8) | an entry of the audit log |
//! | `checkpoint/` entries (8) | a signed checkpoint of that many entries of the audit log |
//! | `key/` digest (32) | an API key |

use crate::batch::Quoted;
use crate::chunked::CHUNK_INDEX_BYTES;
use std::fmt;
use tessera_protocol::id::{AgentId, Digest, HubId, JobId, ProviderId};

mod family;

pub use family::*;

/// A key of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The store's format version.
    Format,
    /// How far an upgrade of the store is.
    Upgrade,
    /// That the store is being filled from another.
    Copying,
    /// The hub's identity.
    HubIdentity,
    /// The hub's sampling key.
    HubSampling,
    /// Which token the last start printed.
    HubStartToken,
    /// Which start of a hub leads, where many serve.
    HubActive,
    /// How often a hub has renewed its lease.
    Entry(HubId),
    /// Stands as long as a hub may commit.
    Fence(HubId),
    /// Where a hub that serves beside others is reached.
    HubAt(HubId),
    /// Which hub, of many, owns an open job.
    Owner(JobId),
    /// What a hub that does not lead reports to the audit log.
    Act {
        /// The hub.
        hub: HubId,
        /// Its how manieth.
        number: u64,
    },
    /// A job's record.
    Job(JobId),
    /// What a job computes. Chunked.
    Manifest(JobId),
    /// A job's progress. Chunked.
    Progress(JobId),
    /// A job's result. Chunked.
    Result(JobId),
    /// A tile of a matrix job's result. Chunked.
    Tile {
        /// The job.
        job: JobId,
        /// The tile's position.
        tile: u64,
    },
    /// An input file that is here whole.
    Input(Digest),
    /// A piece of an input file, as stores have them that are older than blobs. Chunked.
    Piece {
        /// The file.
        input: Digest,
        /// The piece's position.
        piece: u64,
    },
    /// A piece of a blob.
    BlobPiece {
        /// The blob.
        blob: Digest,
        /// The piece's position.
        piece: u64,
    },
    /// A job that is known no more.
    Pruned(JobId),
    /// That an open job goes on from another, or, of no job, how many ever did.
    Extension {
        /// The job that ended.
        parent: JobId,
        /// The open one; zeros for the count.
        child: JobId,
    },
    /// That a job needs a blob.
    BlobRef {
        /// The blob.
        blob: Digest,
        /// The job.
        job: JobId,
    },
    /// The same, by job.
    JobBlob {
        /// The job.
        job: JobId,
        /// The blob.
        blob: Digest,
    },
    /// That a blob counts towards what a project may keep.
    BlobOwner {
        /// The blob.
        blob: Digest,
        /// The project.
        project: &'a str,
    },
    /// How far an upload is that has not ended yet.
    Upload(Digest),
    /// What a client's Idempotency-Key made.
    Idempotency {
        /// The project whose key it is.
        project: &'a str,
        /// The key as the client sent it.
        key: &'a [u8],
    },
    /// An enrolled agent.
    Agent(AgentId),
    /// An enrolment token, by its digest.
    Token(Digest),
    /// Who owns agents and earns credits.
    Provider(ProviderId),
    /// How many entries the audit log has, and the hash of the last.
    AuditHead,
    /// What a job cost and who was paid. Chunked.
    Bill(JobId),
    /// Who is paid for a tile of a matrix job that has not ended. Chunked.
    TilePay {
        /// The job.
        job: JobId,
        /// The tile's position.
        tile: u64,
    },
    /// Who is paid for which shards of a job. Chunked.
    PayPage {
        /// The job.
        job: JobId,
        /// The page.
        page: u64,
    },
    /// What a provider earned in a job that ended.
    Earning {
        /// Who earned it.
        provider: ProviderId,
        /// When the job ended. *Units*: Unix milliseconds.
        ended_ms: u64,
        /// The job.
        job: JobId,
    },
    /// When an agent of a provider was removed.
    Removal {
        /// Whose agent.
        provider: ProviderId,
        /// When. *Units*: Unix milliseconds.
        at_ms: u64,
    },
    /// What a provider was paid by a settlement.
    Settled {
        /// Who was paid.
        provider: ProviderId,
        /// The settlement.
        settlement: u64,
    },
    /// A settlement. Chunked.
    Settlement(u64),
    /// How far an agent is trusted, and why.
    Standing(AgentId),
    /// An agent proven wrong, while jobs that ended before may not tell of it.
    Trace(AgentId),
    /// An entry of the audit log.
    Audit(u64),
    /// A signed checkpoint of so many entries of the audit log.
    Checkpoint(u64),
    /// An API key, by its digest.
    ApiKey(Digest),
}

impl<'a> Key<'a> {
    /// The family the key belongs to.
    pub const fn family(&self) -> Family {
        match self {
            Key::Format | Key::Upgrade | Key::Copying => Family::Meta,
            Key::HubIdentity | Key::HubSampling | Key::HubStartToken | Key::AuditHead => Family::Hub,
            Key::HubActive => Family::Hub,
            Key::Entry(_) => Family::Entries,
            Key::Fence(_) => Family::Fences,
            Key::HubAt(_) => Family::HubAts,
            Key::Owner(_) => Family::Owners,
            Key::Act { .. } => Family::Acts,
            Key::Job(_) => Family::Jobs,
            Key::Manifest(_) => Family::Manifests,
            Key::Progress(_) => Family::Progress,
            Key::Result(_) => Family::Results,
            Key::Tile { .. } => Family::Tiles,
            Key::Input(_) => Family::Inputs,
            Key::Piece { .. } => Family::Pieces,
            Key::BlobPiece { .. } => Family::BlobPieces,
            Key::Pruned(_) => Family::Pruned,
            Key::Extension { .. } => Family::Extensions,
            Key::BlobRef { .. } => Family::BlobRefs,
            Key::JobBlob { .. } => Family::JobBlobs,
            Key::BlobOwner { .. } => Family::BlobOwners,
            Key::Upload(_) => Family::Uploads,
            Key::Idempotency { .. } => Family::Idempotency,
            Key::Agent(_) => Family::Agents,
            Key::Token(_) => Family::Tokens,
            Key::Provider(_) => Family::Providers,
            Key::Bill(_) => Family::Bills,
            Key::TilePay { .. } => Family::TilePays,
            Key::PayPage { .. } => Family::PayPages,
            Key::Earning { .. } => Family::Earnings,
            Key::Removal { .. } => Family::Removals,
            Key::Settled { .. } => Family::Settled,
            Key::Settlement(_) => Family::Settlements,
            Key::Standing(_) => Family::Standings,
            Key::Trace(_) => Family::Traces,
            Key::Audit(_) => Family::Audit,
            Key::Checkpoint(_) => Family::Checkpoints,
            Key::ApiKey(_) => Family::ApiKeys,
        }
    }

    /// Whether its value is put and read in [chunks](crate::chunked).
    pub const fn is_chunked(&self) -> bool {
        matches!(
            self,
            Key::Manifest(_)
                | Key::Progress(_)
                | Key::Result(_)
                | Key::Tile { .. }
                | Key::Piece { .. }
                | Key::Bill(_)
                | Key::TilePay { .. }
                | Key::PayPage { .. }
                | Key::Settlement(_)
        )
    }

    /// The key's bytes.
    ///
    /// *Panics*: if a project's name is longer than 65,535 bytes; the door allows far less.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.family().prefix().to_vec();
        match self {
            Key::Format => bytes.extend(b"format"),
            Key::Upgrade => bytes.extend(b"upgrade"),
            Key::Copying => bytes.extend(b"copying"),
            Key::HubIdentity => bytes.extend(b"identity"),
            Key::HubSampling => bytes.extend(b"sampling"),
            Key::HubStartToken => bytes.extend(b"start-token"),
            Key::HubActive => bytes.extend(b"active"),
            Key::Entry(id) | Key::Fence(id) | Key::HubAt(id) => bytes.extend(id.0),
            Key::Act { hub, number } => {
                bytes.extend(hub.0);
                bytes.extend(number.to_be_bytes());
            }
            Key::AuditHead => bytes.extend(b"audit-head"),
            Key::Job(id) | Key::Manifest(id) | Key::Progress(id) | Key::Result(id) | Key::Bill(id) => {
                bytes.extend(id.0);
            }
            Key::Owner(id) => bytes.extend(id.0),
            Key::Settlement(number) | Key::Audit(number) | Key::Checkpoint(number) => {
                bytes.extend(number.to_be_bytes());
            }
            Key::Earning { provider, ended_ms, job } => {
                bytes.extend(provider.0);
                bytes.extend(ended_ms.to_be_bytes());
                bytes.extend(job.0);
            }
            Key::Removal { provider, at_ms: number } | Key::Settled { provider, settlement: number } => {
                bytes.extend(provider.0);
                bytes.extend(number.to_be_bytes());
            }
            Key::Idempotency { project, key } => {
                let Ok(length) = u16::try_from(project.len()) else {
                    panic!("a project's name has {} bytes", project.len());
                };
                // The length keeps (`a`, `bc`) and (`ab`, `c`) apart, whatever bytes they hold.
                bytes.extend(length.to_be_bytes());
                bytes.extend(project.as_bytes());
                bytes.extend(*key);
            }
            Key::Agent(id) | Key::Standing(id) | Key::Trace(id) => bytes.extend(id.0),
            Key::Provider(id) => bytes.extend(id.0),
            Key::Tile { job, tile } | Key::TilePay { job, tile } | Key::PayPage { job, page: tile } => {
                bytes.extend(job.0);
                bytes.extend(tile.to_be_bytes());
            }
            Key::Piece { input, piece } | Key::BlobPiece { blob: input, piece } => {
                bytes.extend(input.0);
                bytes.extend(piece.to_be_bytes());
            }
            Key::Pruned(job) => bytes.extend(job.0),
            Key::Extension { parent, child } => {
                bytes.extend(parent.0);
                bytes.extend(child.0);
            }
            Key::BlobRef { blob, job } => {
                bytes.extend(blob.0);
                bytes.extend(job.0);
            }
            Key::JobBlob { job, blob } => {
                bytes.extend(job.0);
                bytes.extend(blob.0);
            }
            Key::BlobOwner { blob, project } => {
                bytes.extend(blob.0);
                bytes.extend(project.as_bytes());
            }
            Key::Token(digest) | Key::ApiKey(digest) | Key::Input(digest) | Key::Upload(digest) => {
                bytes.extend(digest.0);
            }
        }
        bytes
    }

    /// Reads a key as it lies in a store, and which chunk it is where its family is chunked.
    ///
    /// *Errors*: [`KeyError`] for bytes that no [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &'a [u8]) -> Result<(Key<'a>, Option<u32>), KeyError> {
        let refused = || KeyError { bytes: bytes.to_vec() };
        let (family, rest) = Family::ALL
            .iter()
            .find_map(|family| Some((*family, bytes.strip_prefix(family.prefix())?)))
            .ok_or_else(refused)?;
        let key = match family {
            Family::Meta => match rest {
                b"format" => Some(Key::Format),
                b"upgrade" => Some(Key::Upgrade),
                b"copying" => Some(Key::Copying),
                _ => None,
            },
            Family::Hub => match rest {
                b"identity" => Some(Key::HubIdentity),
                b"sampling" => Some(Key::HubSampling),
                b"start-token" => Some(Key::HubStartToken),
                b"active" => Some(Key::HubActive),
                b"audit-head" => Some(Key::AuditHead),
                _ => None,
            },
            Family::Entries => array(rest).map(|id| Key::Entry(HubId(id))),
            Family::Fences => array(rest).map(|id| Key::Fence(HubId(id))),
            Family::HubAts => array(rest).map(|id| Key::HubAt(HubId(id))),
            Family::Owners => array(rest).map(|id| Key::Owner(JobId(id))),
            Family::Acts => rest.split_first_chunk().and_then(|(hub, number)| {
                Some(Key::Act { hub: HubId(*hub), number: u64::from_be_bytes(array(number)?) })
            }),
            Family::Jobs => array(rest).map(|id| Key::Job(JobId(id))),
            Family::Agents => array(rest).map(|id| Key::Agent(AgentId(id))),
            Family::Standings => array(rest).map(|id| Key::Standing(AgentId(id))),
            Family::Traces => array(rest).map(|id| Key::Trace(AgentId(id))),
            Family::Audit => array(rest).map(|number| Key::Audit(u64::from_be_bytes(number))),
            Family::Checkpoints => array(rest).map(|number| Key::Checkpoint(u64::from_be_bytes(number))),
            Family::Earnings => earning(rest),
            Family::Removals => {
                of_provider_at(rest).map(|(provider, at_ms)| Key::Removal { provider, at_ms })
            }
            Family::Settled => {
                of_provider_at(rest).map(|(provider, settlement)| Key::Settled { provider, settlement })
            }
            Family::Settlements => {
                let (number, chunk) = rest.split_last_chunk::<CHUNK_INDEX_BYTES>().ok_or_else(refused)?;
                let number = u64::from_be_bytes(array(number).ok_or_else(refused)?);
                return Ok((Key::Settlement(number), Some(u32::from_be_bytes(*chunk))));
            }
            Family::Tokens => array(rest).map(|digest| Key::Token(Digest(digest))),
            Family::Providers => array(rest).map(|id| Key::Provider(ProviderId(id))),
            Family::ApiKeys => array(rest).map(|digest| Key::ApiKey(Digest(digest))),
            Family::BlobPieces | Family::BlobRefs | Family::BlobOwners => of_blob(family, rest),
            Family::Pruned => array(rest).map(|id| Key::Pruned(JobId(id))),
            Family::Extensions => rest.split_first_chunk().and_then(|(parent, child)| {
                Some(Key::Extension { parent: JobId(*parent), child: JobId(array(child)?) })
            }),
            Family::JobBlobs => rest
                .split_first_chunk()
                .and_then(|(job, blob)| Some(Key::JobBlob { job: JobId(*job), blob: Digest(array(blob)?) })),
            Family::Inputs => array(rest).map(|digest| Key::Input(Digest(digest))),
            Family::Uploads => array(rest).map(|digest| Key::Upload(Digest(digest))),
            Family::Tiles | Family::TilePays | Family::PayPages | Family::Pieces => {
                let (of, chunk) = rest.split_last_chunk::<CHUNK_INDEX_BYTES>().ok_or_else(refused)?;
                let (of, position) = of.split_last_chunk().ok_or_else(refused)?;
                let position = u64::from_be_bytes(*position);
                let key = match family {
                    Family::Tiles => array(of).map(|job| Key::Tile { job: JobId(job), tile: position }),
                    Family::TilePays => array(of).map(|job| Key::TilePay { job: JobId(job), tile: position }),
                    Family::PayPages => array(of).map(|job| Key::PayPage { job: JobId(job), page: position }),
                    _ => array(of).map(|input| Key::Piece { input: Digest(input), piece: position }),
                };
                return key.map(|key| (key, Some(u32::from_be_bytes(*chunk)))).ok_or_else(refused);
            }
            Family::Idempotency => idempotency(rest),
            Family::Manifests | Family::Progress | Family::Results | Family::Bills => {
                let (id, chunk) = rest.split_last_chunk::<CHUNK_INDEX_BYTES>().ok_or_else(refused)?;
                let id = JobId(array(id).ok_or_else(refused)?);
                let key = match family {
                    Family::Manifests => Key::Manifest(id),
                    Family::Progress => Key::Progress(id),
                    Family::Bills => Key::Bill(id),
                    _ => Key::Result(id),
                };
                return Ok((key, Some(u32::from_be_bytes(*chunk))));
            }
        };
        key.map(|key| (key, None)).ok_or_else(refused)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn of_provider_at(rest: &[u8]) -> Option<(ProviderId, u64)> {
    let (provider, number) = rest.split_first_chunk()?;
    Some((ProviderId(*provider), u64::from_be_bytes(array(number)?)))
}

fn of_blob(family: Family, rest: &[u8]) -> Option<Key<'_>> {
    let (blob, rest) = rest.split_first_chunk()?;
    let blob = Digest(*blob);
    match family {
        Family::BlobPieces => Some(Key::BlobPiece { blob, piece: u64::from_be_bytes(array(rest)?) }),
        Family::BlobRefs => Some(Key::BlobRef { blob, job: JobId(array(rest)?) }),
        _ => Some(Key::BlobOwner { blob, project: std::str::from_utf8(rest).ok()? }),
    }
}

fn earning(rest: &[u8]) -> Option<Key<'_>> {
    let (of, job) = rest.split_last_chunk()?;
    let (provider, ended_ms) = of_provider_at(of)?;
    Some(Key::Earning { provider, ended_ms, job: JobId(*job) })
}

fn idempotency(rest: &[u8]) -> Option<Key<'_>> {
    let (length, rest) = rest.split_first_chunk()?;
    let (project, key) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some(Key::Idempotency { project: std::str::from_utf8(project).ok()?, key })
}

impl From<Key<'_>> for Vec<u8> {
    fn from(key: Key<'_>) -> Vec<u8> {
        key.encode()
    }
}

/// Bytes that are no key of the product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    bytes: Vec<u8>,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no key of a hub's store", Quoted(&self.bytes))
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests;
