//! Matrices of random entries: a pure function of key and stream.
//!
//! Owns which word of which Philox block an entry is. Keeps nothing.

use std::ops::Range;

use crate::gemm::Element;
use crate::philox::Schedule;

/// Entries between two questions whether to stop: about a millisecond.
const STRIDE: u64 = 1 << 18;

/// Entry `i` of a matrix: `(2k + 1) 2⁻²³ − 1`, with `k` the top 23 bits of the first word of block `i`.
/// Uniform in (−1, 1), symmetric about zero; binary32 holds every one exactly.
fn entry(schedule: &Schedule, stream: u32, block: u64) -> f32 {
    let [first, _] = schedule.block(block, 0, stream);
    let k = (first as u32) >> 9;
    // An odd number of at most 24 bits, then a power of two: both steps are exact.
    (2 * k as i32 + 1 - (1 << 23)) as f32 / (1u32 << 23) as f32
}

/// Appends the entries of these blocks; nothing comes back when told to stop.
pub(super) fn uniform<T: Element + From<f32>>(
    key: [u32; 2],
    stream: u32,
    blocks: Range<u64>,
    entries: &mut Vec<T>,
    cancelled: &dyn Fn() -> bool,
) -> Option<()> {
    let schedule = Schedule::new(key);
    let mut first = blocks.start;
    while first < blocks.end {
        if cancelled() {
            return None;
        }
        let end = blocks.end.min(first + STRIDE);
        entries.extend((first..end).map(|block| T::from(entry(&schedule, stream, block))));
        first = end;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_fill_the_open_interval_evenly_and_are_the_same_in_both_types() {
        fn of<T: Element + From<f32>>(stream: u32, blocks: Range<u64>) -> Vec<T> {
            let mut entries = Vec::new();
            uniform([1, 2], stream, blocks, &mut entries, &|| false).expect("not cancelled");
            entries
        }
        let doubles: Vec<f64> = of(7, 0..100_000);
        let singles: Vec<f32> = of(7, 0..100_000);
        assert_eq!(doubles[500..700], of::<f64>(7, 500..700), "a part is made without what is before it");
        assert!(doubles.iter().zip(&singles).all(|(double, single)| *double == f64::from(*single)));
        assert!(doubles.iter().all(|entry| entry.abs() < 1.0 && *entry != 0.0));
        let mean = doubles.iter().sum::<f64>() / 1e5;
        let square = doubles.iter().map(|entry| entry * entry).sum::<f64>() / 1e5;
        // Four standard errors of each.
        assert!(mean.abs() < 4.0 * 0.577 / 316.0, "{mean}");
        assert!((square - 1.0 / 3.0).abs() < 4.0 * 0.298 / 316.0, "{square}");
        assert_ne!(doubles[..9], of::<f64>(8, 0..9));
        assert!(uniform::<f64>([1, 2], 7, 0..9, &mut Vec::new(), &|| true).is_none());
    }
}
