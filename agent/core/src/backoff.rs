//! How long to wait before the next connection: exponential with full jitter.
//!
//! Full jitter spreads the agents of a hub that restarts over the whole interval. *Source*: M. Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use crate::event::Random;

/// Upper end of the first wait. *Units*: milliseconds.
const FIRST_MS_MAX: u64 = 250;
/// Upper end of every later wait. *Units*: milliseconds: a hub that comes back has its agents within it.
const WAIT_MS_MAX: u64 = 30_000;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait, uniform between nothing and an upper end that doubles. *Units*: milliseconds.
    pub(crate) fn next_ms(&mut self, random: Random) -> u64 {
        let doubled = 1u64.checked_shl(self.failures).unwrap_or(u64::MAX);
        let end = FIRST_MS_MAX.saturating_mul(doubled).min(WAIT_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        ((u128::from(random.0) * u128::from(end + 1)) >> 64) as u64
    }

    /// A wait before another hub is tried that has not failed. *Units*: milliseconds.
    pub(crate) fn jitter_ms(random: Random) -> u64 {
        Backoff::default().next_ms(random)
    }

    /// A session lasted: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn waits_double_from_a_quarter_second_to_half_a_minute_and_stay_there() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..100).map(|_| backoff.next_ms(Random(u64::MAX))).collect();
        assert_eq!(longest[..9], [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(longest[99], 30_000);
        backoff.reset();
        assert_eq!(backoff.next_ms(Random(u64::MAX)), 250);
        assert_eq!(backoff.next_ms(Random(0)), 0);
        assert_eq!(backoff.next_ms(Random(1 << 63)), 500);
    }
}
