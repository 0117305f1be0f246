//! How many fused multiply-adds a core can do: what the speed of a kernel is measured against.
//!
//! Owns loops that do nothing else. Their results mean nothing; the caller has the clock.

use crate::isa::{Isa, Level};

/// Independent chains of vectors: two units with a latency of four have eight under way.
const CHAINS: usize = 12;

/// Does `rounds` steps of independent chains of fused multiply-adds in binary64 and says how many
/// multiply-adds that were. The sum keeps the compiler from leaving them out.
pub fn fused_multiply_adds_f64(isa: Isa, rounds: usize) -> (u64, f64) {
    match isa.0 {
        Level::Plain => scalar_f64(rounds),
        // SAFETY: an `Isa` above plain is made only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2_f64(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512_f64(rounds) },
    }
}

/// The same in binary32.
pub fn fused_multiply_adds_f32(isa: Isa, rounds: usize) -> (u64, f32) {
    match isa.0 {
        Level::Plain => scalar_f32(rounds),
        // SAFETY: an `Isa` above plain is made only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2_f32(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512_f32(rounds) },
    }
}

/// After each step a chain is 0.999999 x + 0.000001, so it stays at one.
const STEP: (f64, f64) = (0.999_999, 1e-6);

macro_rules! scalar {
    ($name:ident, $type:ty) => {
        /// As wide as a vector of the architecture, which the compiler may use.
        fn $name(rounds: usize) -> (u64, $type) {
            let mut chains = [1.0; 4 * CHAINS];
            let (factor, addend) = std::hint::black_box((STEP.0 as $type, STEP.1 as $type));
            for _ in 0..rounds {
                for chain in &mut chains {
                    *chain = <$type>::mul_add(*chain, factor, addend);
                }
            }
            ((chains.len() * rounds) as u64, chains.iter().sum())
        }
    };
}
scalar!(scalar_f64, f64);
scalar!(scalar_f32, f32);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_set1_pd, _mm256_set1_ps, _mm256_storeu_pd, _mm256_storeu_ps,
        _mm512_fmadd_pd, _mm512_fmadd_ps, _mm512_set1_pd, _mm512_set1_ps, _mm512_storeu_pd, _mm512_storeu_ps,
    };

    use super::{CHAINS, STEP};

    macro_rules! vectors {
        ($name:ident, $features:literal, $type:ty, $lanes:literal, $set:ident, $fma:ident, $store:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(rounds: usize) -> (u64, $type) {
                let (factor, addend) = std::hint::black_box((STEP.0 as $type, STEP.1 as $type));
                let (factor, addend) = ($set(factor), $set(addend));
                let mut chains = [$set(1.0); CHAINS];
                for _ in 0..rounds {
                    for chain in &mut chains {
                        *chain = $fma(*chain, factor, addend);
                    }
                }
                let mut lanes = [[0.0; $lanes]; CHAINS];
                for (lanes, chain) in lanes.iter_mut().zip(chains) {
                    // SAFETY: the array has as many lanes as the vector.
                    unsafe { $store(lanes.as_mut_ptr(), chain) };
                }
                (($lanes * CHAINS * rounds) as u64, lanes.iter().flatten().sum())
            }
        };
    }
    vectors!(avx2_f64, "avx2,fma", f64, 4, _mm256_set1_pd, _mm256_fmadd_pd, _mm256_storeu_pd);
    vectors!(avx2_f32, "avx2,fma", f32, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps);
    vectors!(avx512_f64, "avx512f", f64, 8, _mm512_set1_pd, _mm512_fmadd_pd, _mm512_storeu_pd);
    vectors!(avx512_f32, "avx512f", f32, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_do_what_they_say_they_did() {
        for isa in Isa::available() {
            let (done, sum) = fused_multiply_adds_f64(isa, 3);
            let chains = done as f64 / 3.0;
            assert!((sum / chains - 1.0).abs() < 1e-9, "{isa}: {sum} over {chains} chains");
            let (done, sum) = fused_multiply_adds_f32(isa, 3);
            assert!((f64::from(sum) / (done as f64 / 3.0) - 1.0).abs() < 1e-4, "{isa}");
        }
    }
}
