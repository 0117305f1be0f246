//! FoundationDB's client library, once a process.
//!
//! Owns its start and its end. The library can be started once in a process and must be stopped before the
//! process ends: whoever needs it holds a [`Network`], and the last one that is dropped stops it for good.

use super::open_error::OpenError;
use ::foundationdb::api::{FdbApiBuilder, NetworkAutoStop, get_max_api_version};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The oldest interface of the client library that will do. *Source*: the one whose header the build uses; a
/// newer library offers it too, and an older one refuses the header.
const API_VERSION: i32 = 730;

/// The running client library. Stores hold it too; whoever opens several after one another keeps one.
#[derive(Clone)]
pub struct Network {
    _running: Arc<NetworkAutoStop>,
}

enum Past {
    NeverStarted,
    Started(Weak<NetworkAutoStop>),
}

static PAST: Mutex<Past> = Mutex::new(Past::NeverStarted);

impl Network {
    /// The client library, started unless it runs.
    ///
    /// *Errors*: [`OpenError::OldLibrary`], [`OpenError::Library`], [`OpenError::Stopped`].
    pub fn start() -> Result<Network, OpenError> {
        let mut past = PAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Past::Started(running) = &*past {
            let _running = running.upgrade().ok_or(OpenError::Stopped)?;
            return Ok(Network { _running });
        }
        let library = get_max_api_version();
        if library < API_VERSION {
            return Err(OpenError::OldLibrary { found: library, needed: API_VERSION });
        }
        // Before the attempt: the crate panics at a second one, even if the first has failed.
        *past = Past::Started(Weak::new());
        let said = |error: ::foundationdb::FdbError| OpenError::Library { source: Arc::new(error) };
        let builder = FdbApiBuilder::default().set_runtime_version(API_VERSION).build().map_err(said)?;
        let running = Arc::new(boot(builder).map_err(said)?);
        *past = Past::Started(Arc::downgrade(&running));
        Ok(Network { _running: running })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

#[allow(unsafe_code)]
fn boot(builder: ::foundationdb::api::NetworkBuilder) -> ::foundationdb::FdbResult<NetworkAutoStop> {
    // SAFETY: the guard must be dropped before the process ends. Every store and every snapshot holds it by
    // way of its `Network`, no static does, and a hub drops its store after its threads have ended. A process
    // that ends without dropping them (`exit` at a second signal) ends at once, as by a crash.
    unsafe { builder.boot() }
}
