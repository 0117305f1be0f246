//! Shards, or whatever else has a number, in pages of a machine word: a bit for each, so that those that are near each
//! other are found together.

use tessera_protocol::unit::ShardRange;

/// Indices of a page: one for each bit of its word.
pub(crate) const PAGE: u64 = u64::BITS as u64;

/// The bits that are set. *Order*: ascending.
pub(crate) fn bits(mut left: u64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        let bit = left.trailing_zeros();
        left &= left.checked_sub(1)?;
        Some(u64::from(bit))
    })
}

/// The bits of a page that lie in a range, which touches it.
pub(crate) fn mask(page: u64, range: ShardRange) -> u64 {
    let below = |end: u64| match end.saturating_sub(page * PAGE) {
        bits @ 0..PAGE => (1 << bits) - 1,
        _ => u64::MAX,
    };
    below(range.end) & !below(range.start)
}
