//! How many fused multiply-adds a core can do: what the speed of a kernel is measured against.
//!
//! Owns loops that do nothing else. Their results mean nothing; the caller has the clock.

use crate::isa::{Isa, Level};

/// Independent chains: enough for two units with a latency of four, few enough for the registers.
#[cfg(target_arch = "x86_64")]
const WIDE_F64: usize = 80;
const NARROW_F64: usize = 40;

/// Does at least `rounds` steps of many independent chains of fused multiply-adds in binary64 and says how
/// many multiply-adds it did. The sum keeps the compiler from leaving them out.
pub fn fused_multiply_adds_f64(isa: Isa, rounds: usize) -> (u64, f64) {
    match isa.0 {
        Level::Plain => (NARROW_F64 as u64 * rounds as u64, narrow_f64(isa, rounds)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (NARROW_F64 as u64 * rounds as u64, narrow_f64(isa, rounds)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (WIDE_F64 as u64 * rounds as u64, wide_f64(isa, rounds)),
    }
}

/// The same in binary32.
pub fn fused_multiply_adds_f32(isa: Isa, rounds: usize) -> (u64, f32) {
    match isa.0 {
        Level::Plain => (2 * NARROW_F64 as u64 * rounds as u64, narrow_f32(isa, rounds)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (2 * NARROW_F64 as u64 * rounds as u64, narrow_f32(isa, rounds)),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (2 * WIDE_F64 as u64 * rounds as u64, wide_f32(isa, rounds)),
    }
}

macro_rules! chains {
    ($name:ident, $body:ident, $type:ty, $count:expr) => {
        crate::isa::for_each_isa! {
            fn $name(rounds: usize) -> $type = $body;
        }

        #[inline(always)]
        fn $body(rounds: usize) -> $type {
            let mut chains = [1.0; $count];
            let (factor, addend) = std::hint::black_box((0.999_999, 1e-6));
            for _ in 0..rounds {
                for chain in &mut chains {
                    *chain = <$type>::mul_add(*chain, factor, addend);
                }
            }
            chains.iter().sum()
        }
    };
}
chains!(narrow_f64, narrow_f64_body, f64, NARROW_F64);
#[cfg(target_arch = "x86_64")]
chains!(wide_f64, wide_f64_body, f64, WIDE_F64);
chains!(narrow_f32, narrow_f32_body, f32, 2 * NARROW_F64);
#[cfg(target_arch = "x86_64")]
chains!(wide_f32, wide_f32_body, f32, 2 * WIDE_F64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_do_what_they_say_they_did() {
        for isa in Isa::available() {
            let (done, sum) = fused_multiply_adds_f64(isa, 3);
            // After each step a chain is 0.999999 x + 0.000001: it stays at one.
            let chains = done as f64 / 3.0;
            assert!((sum / chains - 1.0).abs() < 1e-9, "{isa}: {sum} over {chains} chains");
            let (done, sum) = fused_multiply_adds_f32(isa, 3);
            assert!((f64::from(sum) / (done as f64 / 3.0) - 1.0).abs() < 1e-4, "{isa}");
        }
    }
}
