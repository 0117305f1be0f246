//! What lies in the store of the hubs that share it: where each is reached, and whose each open job is.

use serde::{Deserialize, Serialize};
use tessera_hub_core::Record;
use tessera_protocol::id::{HubId, JobId};
use tessera_storage::{Batch, Family, Key, Snapshot};

use super::{RecordError, json};

/// Under `hub-at/`: where a hub is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubAt {
    /// By clients and other hubs: `HOST:PORT`.
    pub http: String,
    /// By agents: `HOST:PORT`.
    pub quic: String,
}

impl HubAt {
    /// As it lies in the store.
    pub fn bytes(&self) -> Vec<u8> {
        json(self)
    }
}

/// Adds to the batch of a record what it says of whose its job is.
pub fn put_owner(batch: &mut Batch, record: &Record, me: HubId) {
    match record {
        Record::JobAccepted { job, .. } => {
            batch.put(Key::Owner(job.id), me.0);
        }
        Record::JobEnded { job, .. } => {
            batch.delete(Key::Owner(*job));
        }
        _ => {}
    }
}

/// Where a hub is reached.
pub(crate) fn decode_hub_at(hub: HubId, value: &[u8]) -> Result<HubAt, RecordError> {
    let malformed = |_| RecordError::Malformed { what: "address", of: hub.to_string() };
    serde_json::from_slice(value).map_err(malformed)
}

/// Which hub a value under `owner/` names.
pub(crate) fn decode_owner(job: JobId, value: &[u8]) -> Result<HubId, RecordError> {
    let malformed = |_| RecordError::Malformed { what: "owner", of: job.to_string() };
    value.try_into().map(HubId).map_err(malformed)
}

/// The hubs that may write to the store now, and where each is reached. *Order*: by id.
pub fn hubs(store: &dyn Snapshot) -> Result<Vec<(HubId, HubAt)>, RecordError> {
    let mut hubs = Vec::new();
    for entry in store.range(&Family::HubAts.range(), usize::MAX)? {
        let Ok((Key::HubAt(hub), _)) = Key::decode(&entry.key) else { continue };
        if store.get(&Key::Fence(hub).encode())?.is_some() {
            hubs.push((hub, decode_hub_at(hub, &entry.value)?));
        }
    }
    Ok(hubs)
}

/// Whose an open job is; nothing of a job that ended, or of a store that one hub has for itself.
pub fn owner_of_job(store: &dyn Snapshot, job: JobId) -> Result<Option<HubId>, RecordError> {
    let owner = store.get(&Key::Owner(job).encode())?;
    owner.map(|value| decode_owner(job, &value)).transpose()
}
