//! Where a write stands that must succeed in the end.

use tessera_protocol::unit::Tick;

/// How long a refused write waits. *Units*: milliseconds.
pub const RETRY_MS: u64 = 1_000;

/// Where a write stands that must succeed in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// Nothing is to be written, or nothing was tried.
    Idle,
    /// On its way to the store.
    Under,
    /// The store refused it then.
    Failed(Tick),
}

impl Write {
    /// Whether it may be tried now: a full disk does not empty within a turn.
    pub(crate) fn may_start(self, now: Tick) -> bool {
        match self {
            Write::Idle => true,
            Write::Under => false,
            Write::Failed(at) => now >= at.after_ms(RETRY_MS),
        }
    }

    pub(crate) fn ended(succeeded: bool, now: Tick) -> Write {
        if succeeded { Write::Idle } else { Write::Failed(now) }
    }

    pub(crate) fn is_refused(self) -> bool {
        matches!(self, Write::Failed(_))
    }
}
