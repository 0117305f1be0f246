//! What hubs that share a store write for each other: where they are, what they report, and whose
//! each open job is.

use tessera_storage::{Family, Key, ReadError, Snapshot};

use super::{Advice, Report};
use crate::audit::Told;
use crate::ops::{label, pages};
use crate::records::{self, RecordError};

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::HubAts.range(), |entry| {
        let Ok((key @ Key::HubAt(hub), _)) = Key::decode(&entry.key) else { return Ok(()) };
        report.take(key, records::decode_hub_at(hub, &entry.value), Advice::Restore)?;
        Ok(())
    })?;
    pages::each(store, Family::Acts.range(), |entry| {
        let Ok((key @ Key::Act { hub, .. }, _)) = Key::decode(&entry.key) else { return Ok(()) };
        report.take(key, Told::decode(hub, &entry.value), Advice::Log)?;
        Ok(())
    })?;
    pages::each(store, Family::Owners.range(), |entry| {
        let Ok((key @ Key::Owner(job), _)) = Key::decode(&entry.key) else { return Ok(()) };
        report.take(key, records::decode_owner(job, &entry.value), Advice::Restore)?;
        match records::read_view(store, job) {
            Ok(Some(view)) if view.state.is_open() => {}
            Ok(Some(_)) => report.find(label::of(key), "its job has ended and is nobody's", Advice::Restore),
            Ok(None) => report.find(label::of(key), format!("{job} is not here"), Advice::Restore),
            Err(RecordError::Read(error)) => return Err(error),
            // Found where the jobs are looked at.
            Err(_) => {}
        }
        Ok(())
    })
}
