//! Numeric mid-state beyond memory: blocks of numbers under a cap on resident bytes, the rest in a file.
//!
//! Owns the [`Arena`] of blocks, where its bytes lie ([`Backing`]) and how the panels of tiles are summed in it
//! ([`Folds`]). It may not know what a job costs nor who is paid: whoever keeps a block leaves a note with it, which
//! comes back after a crash.
//!
//! Everything here waits for a disk: call it from a thread of its own, never from a lane.
#![forbid(unsafe_code)]

mod arena;
mod backing;
mod folds;
mod index;
mod space;

pub use arena::{Arena, ArenaError, Key};
pub use backing::{Backing, Files, OpenError, Volatile};
pub use folds::{Folds, Found, KeepError, Panel};
