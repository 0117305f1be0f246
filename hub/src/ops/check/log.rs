//! The audit log: its chain, its checkpoints and its head.

use tessera_protocol::id::Digest;
use tessera_storage::{Family, Key, ReadError, Snapshot};

use super::{Advice, Report};
use crate::audit::{self, LogError};
use crate::ops::label;
use crate::quic::Identity;
use crate::records::RecordError;

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let pkcs8 = store.get(&Key::HubIdentity.encode())?;
    let Some(identity) = pkcs8.and_then(|pkcs8| Identity::from_pkcs8(&pkcs8).ok()) else {
        // A key that cannot be read is a finding of its own.
        if let Some(entry) = store.range(&Family::Audit.range(), 1)?.pop() {
            let says = "the hub's key, by which its log is checked, is not here";
            report.find(label::of_bytes(&entry.key), says, Advice::Log);
        }
        return Ok(());
    };
    match audit::check(store, Digest(identity.public_key().0)) {
        Ok(_) => Ok(()),
        Err(LogError::Read(RecordError::Read(error))) => Err(error),
        Err(error) => {
            report.find("the audit log", error.to_string(), Advice::Log);
            Ok(())
        }
    }
}
