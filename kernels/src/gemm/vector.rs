//! The vector registers a micro-kernel is written for: a few lanes that load, store and fuse.
//!
//! Owns the instructions. Lanes never mix, and the fused operation rounds once in each of them, so that
//! a wider register computes the same bits.

use super::Element;

/// A register of [`Self::LANES`] elements.
///
/// # Safety
/// Its functions may be called only where the instruction set it belongs to was detected. Every one is
/// inlined, so the caller's target features are theirs.
pub(super) unsafe trait Vector: Copy {
    type Element: Element;
    const LANES: usize;
    /// # Safety
    /// As of the trait.
    unsafe fn splat(value: Self::Element) -> Self;
    /// # Safety
    /// As of the trait; `LANES` elements can be read, at any alignment.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// # Safety
    /// As of the trait; `LANES` elements can be written, at any alignment.
    unsafe fn store(self, to: *mut Self::Element);
    /// `a * b + self`, rounded once.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn fused(self, a: Self, b: Self) -> Self;
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector {
    ($type:ty, $element:ty, $lanes:literal, $splat:path, $load:path, $store:path,
     |$sum:ident, $a:ident, $b:ident| $fused:expr) => {
        // SAFETY: each function is one instruction of the set the register belongs to.
        unsafe impl Vector for $type {
            type Element = $element;
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                // SAFETY: promised by the caller, as below.
                unsafe { $splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: as above.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                // SAFETY: as above.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn fused(self, $a: Self, $b: Self) -> Self {
                let $sum = self;
                // SAFETY: as above.
                unsafe { $fused }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    vector!(__m512d, f64, 8, _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd, |sum, a, b| {
        _mm512_fmadd_pd(a, b, sum)
    });
    vector!(__m512, f32, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, |sum, a, b| {
        _mm512_fmadd_ps(a, b, sum)
    });
    vector!(__m256d, f64, 4, _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd, |sum, a, b| {
        _mm256_fmadd_pd(a, b, sum)
    });
    vector!(__m256, f32, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, |sum, a, b| {
        _mm256_fmadd_ps(a, b, sum)
    });
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::Vector;

    // Every aarch64 has these, so they are its plain kernel.
    vector!(float64x2_t, f64, 2, vdupq_n_f64, vld1q_f64, vst1q_f64, |sum, a, b| vfmaq_f64(sum, a, b));
    vector!(float32x4_t, f32, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, |sum, a, b| vfmaq_f32(sum, a, b));
}

#[cfg(not(target_arch = "aarch64"))]
macro_rules! scalar {
    ($element:ty) => {
        // SAFETY: needs no instruction set; reads and writes the one element the caller vouches for.
        unsafe impl Vector for $element {
            type Element = $element;
            const LANES: usize = 1;
            #[inline(always)]
            unsafe fn splat(value: $element) -> Self {
                value
            }
            #[inline(always)]
            unsafe fn load(from: *const $element) -> Self {
                // SAFETY: promised by the caller.
                unsafe { from.read() }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $element) {
                // SAFETY: promised by the caller.
                unsafe { to.write(self) }
            }
            #[inline(always)]
            unsafe fn fused(self, a: Self, b: Self) -> Self {
                a.mul_add(b, self)
            }
        }
    };
}
#[cfg(not(target_arch = "aarch64"))]
scalar!(f64);
#[cfg(not(target_arch = "aarch64"))]
scalar!(f32);
