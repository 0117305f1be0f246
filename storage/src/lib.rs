//! Ordered keys and bytes, kept: one small transaction interface, and the engines behind it.
//!
//! Owns the [`Engine`] interface, its limits, the [keys](keyspace) of the product and the engines
//! [`Memory`], [`Embedded`] and [FoundationDB](mod@foundationdb). It may not know what a job or a shard is, nor look inside a value:
//! whoever owns a record encodes it.
//!
//! Engines block while the disk works: call them from a thread of their own, never from a lane.
//! Many small promises become one wait for the disk through [`Engine::commit_all`].
// Only the start of FoundationDB's client library needs it, and says why.
#![cfg_attr(not(feature = "foundationdb"), forbid(unsafe_code))]
#![deny(unsafe_code)]

pub mod batch;
pub mod chunked;
pub mod conformance;
pub mod embedded;
pub mod engine;
pub mod fenced;
pub mod format;
pub mod foundationdb;
mod judge;
pub mod keyspace;
pub mod limits;
pub mod memory;
mod renewed;
#[cfg(feature = "standin")]
pub mod standin;

pub use batch::{Batch, Condition, Expect, LimitError, Quoted, Write};
pub use embedded::{Embedded, OpenError, ReadOnly};
pub use engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};
pub use fenced::Fenced;
pub use format::FormatError;
pub use keyspace::{
    Family, Key, blobs_of, extensions_of, of_provider, owners_of, pay_pages_of, pieces_of, pieces_within,
    refs_of, tile_pays_of, tiles_of,
};
pub use memory::Memory;
pub use renewed::Renewed;
