//! The store of many hubs, opened by its address.
//!
//! Owns which engine an address means: FoundationDB's, or, in builds for tests alone, a stand-in behind a socket where
//! the file of the cluster should be.

use std::sync::Arc;

use tessera_storage::Engine;
use tessera_storage::foundationdb::{self, OpenError, Place};

/// Opens the store at `place`, or makes one there.
pub fn open(place: &Place) -> Result<Arc<dyn Engine>, OpenError> {
    #[cfg(feature = "standin")]
    if let Some(engine) = stand_in(place) {
        return Ok(engine);
    }
    foundationdb::open(place)
}

/// Opens what is at `place` whatever its format: to be read, or to be filled from another store.
pub fn open_unclaimed(place: &Place) -> Result<Arc<dyn Engine>, OpenError> {
    #[cfg(feature = "standin")]
    if let Some(engine) = stand_in(place) {
        return Ok(engine);
    }
    foundationdb::open_unclaimed(place)
}

#[cfg(feature = "standin")]
fn stand_in(place: &Place) -> Option<Arc<dyn Engine>> {
    use std::os::unix::fs::FileTypeExt;

    let found = std::fs::metadata(place.cluster_file()).ok()?;
    let engine = tessera_storage::standin::StandIn::new(place.cluster_file());
    found.file_type().is_socket().then(|| Arc::new(engine) as Arc<dyn Engine>)
}
