//! π by uniform points in the unit square.
//!
//! Owns the smallest workload: how many points fall strictly inside the quarter circle.

use tessera_protocol::tally::Tally;

use super::path::{Blocks, COUNTERS, PATHS, uniforms};
use super::{KernelError, Poll};
use crate::isa::{Isa, for_each_isa};
use crate::philox::Schedule;

/// Point `p` is the two halves of counter `p`: one path takes one whole counter, on stream 0 at step 0.
pub(super) fn run(
    key: [u32; 2],
    isa: Isa,
    blocks: Blocks,
    poll: &mut Poll<'_>,
) -> Result<Tally, KernelError> {
    let schedule = Schedule::new(key);
    let mut coordinates = [0.0; PATHS];
    let samples = blocks.paths();
    let (mut inside, mut next, end) = (0u64, blocks.first_path(), blocks.first_path() + samples);
    while next < end {
        let points = (end - next).min(COUNTERS as u64) as usize;
        let (x, y) = coordinates[..2 * points].split_at_mut(points);
        uniforms(isa, &schedule, next, [0, 0], x, y);
        inside += count_inside(isa, x, y);
        next += points as u64;
        poll.tick(2 * points)?;
    }
    Ok(Tally { samples, counts: vec![inside], ..Tally::default() })
}

for_each_isa! {
    fn count_inside(x: &[f64], y: &[f64]) -> u64 = count_inside_body;
}

#[inline(always)]
fn count_inside_body(x: &[f64], y: &[f64]) -> u64 {
    let mut inside = 0;
    for (x, y) in x.iter().zip(y) {
        // From (-1, 1) back to the unit interval, exactly.
        let (x, y) = (0.5 * x + 0.5, 0.5 * y + 0.5);
        inside += u64::from(x * x + y * y < 1.0);
    }
    inside
}
