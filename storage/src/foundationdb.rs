//! The engine for a hub that has outgrown one machine's disk: a store in a FoundationDB cluster.
//!
//! Owns what is FoundationDB's alone: the client library, the layout of keys in the cluster, transactions
//! and their errors. It may not judge a batch otherwise than the other engines: `judge` does.
//!
//! The engine itself is there only when the feature `foundationdb` is built in; addresses can be read, and
//! [`open`] says what to do, without.
//!
//! Batches that are committed together share transactions of about a megabyte. What their conditions look at
//! is read first, all at once, and conflicts with other hubs' writes; the writes themselves conflict with
//! nothing. A commit whose outcome FoundationDB does not know is decided by a marker, as `fate` says, so that
//! nothing happens twice. Every wait has an end.

#[cfg(feature = "foundationdb")]
mod cluster;
#[cfg(any(test, feature = "foundationdb"))]
mod fate;
#[cfg(feature = "foundationdb")]
mod network;
mod open_error;
mod place;
#[cfg(any(test, feature = "foundationdb"))]
mod plan;
#[cfg(feature = "foundationdb")]
mod reading;
#[cfg(any(test, feature = "foundationdb"))]
mod wait;
#[cfg(feature = "foundationdb")]
mod writing;

#[cfg(feature = "foundationdb")]
pub use cluster::Cluster;
#[cfg(feature = "foundationdb")]
pub use network::Network;
pub use open_error::OpenError;
pub use place::{NAME_DEFAULT, Place, PlaceError};

use crate::engine::Engine;
use std::sync::Arc;

/// Opens the store at `place`, or makes one there.
///
/// *Errors*: see [`OpenError`]; without the feature always [`OpenError::NotBuiltIn`].
pub fn open(place: &Place) -> Result<Arc<dyn Engine>, OpenError> {
    #[cfg(feature = "foundationdb")]
    return Ok(Arc::new(Cluster::open(place)?));
    #[cfg(not(feature = "foundationdb"))]
    Err(OpenError::NotBuiltIn { place: place.clone() })
}

#[cfg(all(test, not(feature = "foundationdb")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_engine_says_how_to_build_it_in() {
        let place: Place = "fdb:/etc/foundationdb/fdb.cluster".parse().unwrap();
        let Err(error) = open(&place) else { panic!("there is no engine to open it with") };
        let said = error.to_string();
        assert!(
            said.contains("fdb:/etc/foundationdb/fdb.cluster") && said.contains("--features foundationdb"),
            "{said}"
        );
    }
}
