//! Families of keys, and the ranges in which the keys of one family, job, blob or provider lie.
//!
//! Owns the names of families. It may not know how a key goes on after its family.

use std::ops::Range;

use tessera_protocol::id::{Digest, JobId, ProviderId};

use super::Key;
use crate::engine::KeyRange;

/// Keys that start alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `meta/`
    Meta,
    /// `hub/`
    Hub,
    /// `entry/`
    Entries,
    /// `fence/`
    Fences,
    /// `hub-at/`
    HubAts,
    /// `owner/`
    Owners,
    /// `act/`
    Acts,
    /// `job/`
    Jobs,
    /// `manifest/`
    Manifests,
    /// `progress/`
    Progress,
    /// `result/`
    Results,
    /// `tile/`
    Tiles,
    /// `input/`
    Inputs,
    /// `piece/`
    Pieces,
    /// `blob-piece/`
    BlobPieces,
    /// `pruned/`
    Pruned,
    /// `extension/`
    Extensions,
    /// `blob-ref/`
    BlobRefs,
    /// `job-blob/`
    JobBlobs,
    /// `blob-owner/`
    BlobOwners,
    /// `upload/`
    Uploads,
    /// `idem/`
    Idempotency,
    /// `agent/`
    Agents,
    /// `token/`
    Tokens,
    /// `provider/`
    Providers,
    /// `bill/`
    Bills,
    /// `tile-pay/`
    TilePays,
    /// `pay-page/`
    PayPages,
    /// `earning/`
    Earnings,
    /// `removal/`
    Removals,
    /// `settled/`
    Settled,
    /// `settlement/`
    Settlements,
    /// `standing/`
    Standings,
    /// `trace/`
    Traces,
    /// `audit/`
    Audit,
    /// `checkpoint/`
    Checkpoints,
    /// `key/`
    ApiKeys,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 37] = [
        Family::Meta,
        Family::Hub,
        Family::Entries,
        Family::Fences,
        Family::HubAts,
        Family::Owners,
        Family::Acts,
        Family::Jobs,
        Family::Manifests,
        Family::Progress,
        Family::Results,
        Family::Tiles,
        Family::Inputs,
        Family::Pieces,
        Family::BlobPieces,
        Family::Pruned,
        Family::Extensions,
        Family::BlobRefs,
        Family::JobBlobs,
        Family::BlobOwners,
        Family::Uploads,
        Family::Idempotency,
        Family::Agents,
        Family::Tokens,
        Family::Providers,
        Family::Bills,
        Family::TilePays,
        Family::PayPages,
        Family::Earnings,
        Family::Removals,
        Family::Settled,
        Family::Settlements,
        Family::Standings,
        Family::Traces,
        Family::Audit,
        Family::Checkpoints,
        Family::ApiKeys,
    ];

    /// How its keys start; no family's prefix starts another's.
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Family::Meta => b"meta/",
            Family::Hub => b"hub/",
            Family::Entries => b"entry/",
            Family::Fences => b"fence/",
            Family::HubAts => b"hub-at/",
            Family::Owners => b"owner/",
            Family::Acts => b"act/",
            Family::Jobs => b"job/",
            Family::Manifests => b"manifest/",
            Family::Progress => b"progress/",
            Family::Results => b"result/",
            Family::Tiles => b"tile/",
            Family::Inputs => b"input/",
            Family::Pieces => b"piece/",
            Family::BlobPieces => b"blob-piece/",
            Family::Pruned => b"pruned/",
            Family::Extensions => b"extension/",
            Family::BlobRefs => b"blob-ref/",
            Family::JobBlobs => b"job-blob/",
            Family::BlobOwners => b"blob-owner/",
            Family::Uploads => b"upload/",
            Family::Idempotency => b"idem/",
            Family::Agents => b"agent/",
            Family::Tokens => b"token/",
            Family::Providers => b"provider/",
            Family::Bills => b"bill/",
            Family::TilePays => b"tile-pay/",
            Family::PayPages => b"pay-page/",
            Family::Earnings => b"earning/",
            Family::Removals => b"removal/",
            Family::Settled => b"settled/",
            Family::Settlements => b"settlement/",
            Family::Standings => b"standing/",
            Family::Traces => b"trace/",
            Family::Audit => b"audit/",
            Family::Checkpoints => b"checkpoint/",
            Family::ApiKeys => b"key/",
        }
    }

    /// Where its keys lie.
    pub fn range(self) -> KeyRange {
        KeyRange::prefix(self.prefix())
    }
}

/// Where the tiles of one job lie.
pub fn tiles_of(job: JobId) -> KeyRange {
    KeyRange::prefix([Family::Tiles.prefix(), &job.0].concat())
}

/// Where the payments for the tiles of one job lie.
pub fn tile_pays_of(job: JobId) -> KeyRange {
    KeyRange::prefix([Family::TilePays.prefix(), &job.0].concat())
}

/// Where the pages of payments of one job lie.
pub fn pay_pages_of(job: JobId) -> KeyRange {
    KeyRange::prefix([Family::PayPages.prefix(), &job.0].concat())
}

/// Where what one provider has lies in a family whose keys begin with its id: earnings, removals, settled.
pub fn of_provider(family: Family, provider: ProviderId) -> KeyRange {
    KeyRange::prefix([family.prefix(), &provider.0].concat())
}

/// Where the pieces of one blob are named.
pub fn pieces_of(blob: Digest) -> KeyRange {
    KeyRange::prefix([Family::BlobPieces.prefix(), &blob.0].concat())
}

/// Where the pieces of one blob are named from one position up to but without another.
pub fn pieces_within(blob: Digest, pieces: Range<u64>) -> KeyRange {
    let key = |piece| Key::BlobPiece { blob, piece }.encode();
    KeyRange::new(key(pieces.start), key(pieces.end))
}

/// Where it lies which jobs go on from one, and how many ever did.
pub fn extensions_of(parent: JobId) -> KeyRange {
    KeyRange::prefix([Family::Extensions.prefix(), &parent.0].concat())
}

/// Where it lies which jobs need one blob.
pub fn refs_of(blob: Digest) -> KeyRange {
    KeyRange::prefix([Family::BlobRefs.prefix(), &blob.0].concat())
}

/// Where it lies which blobs one job needs.
pub fn blobs_of(job: JobId) -> KeyRange {
    KeyRange::prefix([Family::JobBlobs.prefix(), &job.0].concat())
}

/// Where it lies towards which projects one blob counts.
pub fn owners_of(blob: Digest) -> KeyRange {
    KeyRange::prefix([Family::BlobOwners.prefix(), &blob.0].concat())
}

/// Where the Idempotency-Keys of one project lie.
pub fn idempotency_of(project: &str) -> KeyRange {
    KeyRange::prefix(Key::Idempotency { project, key: &[] }.encode())
}
