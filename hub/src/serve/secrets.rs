//! What a store holds for the hub itself, or for all hubs on it: its key, and what follows from that.
//!
//! Owns what a start writes before anything else: keys where there are none, and the token that the start prints.

use tessera_protocol::audit::Act;
use tessera_protocol::id::{Digest, HubId};
use tessera_protocol::token::EnrolmentToken;
use tessera_storage::{Batch, Commit, Engine, Expect, Family, Key, ReadError, Snapshot};

use super::{ServeError, add_key, random};
use crate::audit::{Auditor, Deed, Reports};
use crate::backend::token_deed;
use crate::ingress::keys::ApiKey;
use crate::quic::Identity;
use crate::records::{self, Owner, RecordError};

/// Times that a start tries again because another hub starts on the same store.
const ATTEMPTS: usize = 20;
/// The bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// What the store holds for the hub itself.
pub(super) struct Secrets {
    pub(super) identity: Identity,
    pub(super) sampling_key: [u8; 32],
    pub(super) first_api_key: Option<ApiKey>,
    pub(super) token: EnrolmentToken,
    pub(super) reports: Reports,
}

/// Reads what is there and makes the rest. `me`: which of many hubs on the store this is.
pub(super) fn read_or_make(store: &dyn Engine, me: Option<HubId>) -> Result<Secrets, ServeError> {
    let mut found = Vec::new();
    for _ in 0..ATTEMPTS {
        let snapshot = store.snapshot().map_err(|error| ServeError::Read(error.into()))?;
        let (secrets, batch) = make(&*snapshot, me)?;
        match store.commit(batch).map_err(ServeError::Write)? {
            Commit::Done => return Ok(secrets),
            // Another hub was first: what it made is read.
            Commit::Conflict { key, .. } => found = key,
        }
    }
    let of = String::from_utf8_lossy(&found).into_owned();
    Err(ServeError::Read(RecordError::Malformed { what: "token", of }))
}

fn make(snapshot: &dyn Snapshot, me: Option<HubId>) -> Result<(Secrets, Batch), ServeError> {
    let failed = |error: ReadError| ServeError::Read(error.into());
    let mut batch = Batch::new();
    let identity = match snapshot.get(&Key::HubIdentity.encode()).map_err(failed)? {
        Some(pkcs8) => Identity::from_pkcs8(&pkcs8).map_err(ServeError::Identity)?,
        None => {
            let identity = Identity::generate().map_err(ServeError::Identity)?;
            batch.expect_absent(Key::HubIdentity).put(Key::HubIdentity, identity.pkcs8());
            identity
        }
    };
    let sampling = snapshot.get(&Key::HubSampling.encode()).map_err(failed)?;
    let sampling_key = match sampling.and_then(|bytes| bytes.try_into().ok()) {
        Some(key) => key,
        None => {
            let key = random()?;
            batch.put(Key::HubSampling, key);
            key
        }
    };
    let any = snapshot.range(&Family::ApiKeys.range(), 1).map_err(failed)?;
    let first_api_key = if any.is_empty() { Some(add_key(&mut batch)?) } else { None };
    let token = EnrolmentToken { hub_key: identity.public_key().0, secret: random()? };
    put_token(snapshot, &mut batch, Digest::of(&token.secret), me)?;
    let Deed { batch: made, mut acts } = token_deed(&token.secret, &Owner(None));
    batch.append(made);
    if let Some(key) = &first_api_key {
        acts.push(Act::ApiKeyMade { key: Digest(key.hash().0) });
    }
    let mut reports = match me {
        Some(me) => Reports::beside(identity.clone(), me),
        None => Auditor::resume(identity.clone(), snapshot).map_err(ServeError::Read)?.into(),
    };
    reports.write(&mut batch, &acts, &[]);
    Ok((Secrets { identity, sampling_key, first_api_key, token, reports }, batch))
}

/// Says which tokens starts have printed. Those that nobody used must not stay valid for ever: they go with the next
/// start that finds no other hub.
fn put_token(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    token: Digest,
    me: Option<HubId>,
) -> Result<(), ServeError> {
    let failed = |error: ReadError| ServeError::Read(error.into());
    let found = snapshot.get(&Key::HubStartToken.encode()).map_err(failed)?;
    let expected = found.clone().map_or(Expect::Absent, Expect::Equals);
    batch.expect(Key::HubStartToken, expected);
    let fences = snapshot.range(&Family::Fences.range(), usize::MAX).map_err(failed)?;
    let others = me.is_some_and(|me| fences.iter().any(|fence| fence.key != Key::Fence(me).encode()));
    let mut printed = Vec::new();
    for earlier in found.unwrap_or_default().chunks_exact(DIGEST_BYTES) {
        let Ok(digest) = earlier.try_into().map(Digest) else { continue };
        if snapshot.get(&Key::Token(digest).encode()).map_err(failed)?.as_deref()
            != Some(records::TOKEN_UNSPENT)
        {
            continue;
        }
        match others {
            true => printed.extend(digest.0),
            false => {
                batch.expect_equals(Key::Token(digest), records::TOKEN_UNSPENT);
                batch.delete(Key::Token(digest));
            }
        }
    }
    printed.extend(token.0);
    batch.put(Key::HubStartToken, printed);
    Ok(())
}
