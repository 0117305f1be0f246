//! Which instruction set a kernel runs on, chosen at run time; the bits do not depend on it.
//!
//! Owns detection, dispatch and the check of the floating-point mode. A loop is written once, inlined
//! into one function per instruction set, and vectorised there by the compiler. It may not change what
//! is computed: every operation is correctly rounded and lanes never mix.

use std::fmt;

/// An instruction set this machine has: a value exists only where it was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(pub(crate) Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// What every machine of this architecture has. Slow on x86-64, where it lacks fused multiply-add.
    pub const PLAIN: Isa = Isa(Level::Plain);

    /// All this machine has, the fastest last.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut, reason = "only x86-64 adds to it")]
        let mut all = vec![Isa::PLAIN];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                all.push(Isa(Level::Avx2));
            }
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                all.push(Isa(Level::Avx512));
            }
        }
        all
    }

    /// The fastest this machine has.
    pub fn detect() -> Isa {
        Self::available().into_iter().next_back().unwrap_or(Isa::PLAIN)
    }

    /// `plain`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Aligned to cache lines, so that no vector straddles two: a straddling load costs two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Aligned<T>(pub(crate) T);

/// Makes a function that runs an `#[inline(always)]` body compiled for the instruction set given first.
macro_rules! for_each_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)? = $body:path;) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $type),*) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $output)? {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $output)? {
                $body($($arg),*)
            }
            match isa.0 {
                $crate::isa::Level::Plain => $body($($arg),*),
                // SAFETY: an `Isa` above plain is made only after its features were detected.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use for_each_isa;

/// Whether this thread rounds to nearest and keeps subnormals, as every kernel assumes.
///
/// A library loaded into the process (one built with fast-math) can change it behind our back.
pub fn floating_point_is_standard() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Rounding control, flush to zero, denormals are zero. Source: Intel SDM volume 1, 10.2.3.
        const NON_STANDARD: u32 = 0b11 << 13 | 1 << 15 | 1 << 6;
        let mut mxcsr = 0u32;
        // SAFETY: stores the control register into four bytes that we own.
        unsafe {
            core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags))
        };
        mxcsr & NON_STANDARD == 0
    }
    #[cfg(target_arch = "aarch64")]
    {
        // Rounding mode, flush to zero. Source: Arm ARM, FPCR.
        const NON_STANDARD: u64 = 0b11 << 22 | 1 << 24;
        let fpcr: u64;
        // SAFETY: reads a control register.
        unsafe { core::arch::asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags)) };
        fpcr & NON_STANDARD == 0
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        // No register to read: see whether a subnormal survives and a tie goes to even.
        let tiny = std::hint::black_box(f64::MIN_POSITIVE) * 0.5;
        let tie = std::hint::black_box(1.0) + f64::EPSILON / 2.0;
        tiny != 0.0 && tie == 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_thread_has_the_standard_mode() {
        assert!(floating_point_is_standard());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn flushing_subnormals_or_rounding_up_is_noticed() {
        for bits in [1 << 15, 1 << 6, 0b10 << 13] {
            let mut saved = 0u32;
            // SAFETY: the register is put back before anything else computes.
            let standard = unsafe {
                core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut saved);
                let changed = saved | bits;
                core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const changed);
                let standard = floating_point_is_standard();
                core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const saved);
                standard
            };
            assert!(!standard, "bits {bits:#x} went unnoticed");
        }
    }
}
