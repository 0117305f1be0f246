//! Keys as an operator reads them: `result/job_0198…` and not raw bytes.

use tessera_storage::{Key, Quoted};

/// The name of the key that lies in a store as these bytes, with its chunk where it is chunked.
pub(super) fn of_bytes(bytes: &[u8]) -> String {
    match Key::decode(bytes) {
        Ok((key, None)) => of(key),
        Ok((key, Some(chunk))) => format!("{} chunk {chunk}", of(key)),
        Err(_) => Quoted(bytes).to_string(),
    }
}

/// The name of a key.
pub(super) fn of(key: Key<'_>) -> String {
    let family = String::from_utf8_lossy(key.family().prefix()).into_owned();
    let rest = match key {
        Key::Format => "format".to_owned(),
        Key::Upgrade => "upgrade".to_owned(),
        Key::Copying => "copying".to_owned(),
        Key::HubIdentity => "identity".to_owned(),
        Key::HubSampling => "sampling".to_owned(),
        Key::HubStartToken => "start-token".to_owned(),
        Key::HubActive => "active".to_owned(),
        Key::Entry(id) | Key::Fence(id) | Key::HubAt(id) => id.to_string(),
        Key::Act { hub, number } => format!("{hub}/{number}"),
        Key::AuditHead => "audit-head".to_owned(),
        Key::Job(id)
        | Key::Owner(id)
        | Key::Pruned(id)
        | Key::Manifest(id)
        | Key::Progress(id)
        | Key::Result(id)
        | Key::Bill(id) => id.to_string(),
        Key::Tile { job, tile } | Key::TilePay { job, tile } => format!("{job}/{tile}"),
        Key::PayPage { job, page } => format!("{job}/{page}"),
        Key::Input(digest) | Key::Upload(digest) | Key::Token(digest) | Key::ApiKey(digest) => {
            digest.to_string()
        }
        Key::BlobRef { blob, job } => format!("{blob}/{job}"),
        Key::JobBlob { job, blob } => format!("{job}/{blob}"),
        Key::BlobOwner { blob, project } => format!("{blob}/{project}"),
        Key::Extension { parent, child } => format!("{parent}/{child}"),
        Key::Piece { input, piece } | Key::BlobPiece { blob: input, piece } => format!("{input}/{piece}"),
        Key::Idempotency { project, key } => format!("{project}/{}", key.escape_ascii()),
        Key::Agent(id) | Key::Standing(id) | Key::Trace(id) => id.to_string(),
        Key::Provider(id) => id.to_string(),
        Key::Earning { provider, ended_ms, job } => format!("{provider}/{ended_ms}/{job}"),
        Key::Removal { provider, at_ms } => format!("{provider}/{at_ms}"),
        Key::Settled { provider, settlement } => format!("{provider}/{settlement}"),
        Key::Settlement(number) | Key::Audit(number) | Key::Checkpoint(number) => number.to_string(),
    };
    family + &rest
}
