//! The two types of number a matrix may hold.
//!
//! Owns what differs between them: constants, which micro-kernel an instruction set has, and the last
//! step of an element. The arithmetic is of the type throughout: an `f32` is never widened.

use std::mem::MaybeUninit;

use super::View;
use super::microkernel::{Microkernel, Step, microkernel};
use super::packing::{SIDE, pack};
#[cfg(target_arch = "x86_64")]
use super::transpose::{four_lines, four_narrow_lines};
use super::vector::Vector;
use crate::isa::{Isa, Level, for_each_isa};

/// `f32` or `f64`.
pub trait Element: sealed::Sealed + Copy + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Half the distance from one to the next number: the largest relative error of an operation.
    const UNIT_ROUNDOFF: f64;
    /// The smallest positive number: more than the error of an operation whose result is subnormal.
    const SMALLEST: f64;
    /// Neither infinite nor NaN.
    fn finite(self) -> bool;
    /// The same number; exact.
    fn widened(self) -> f64;
    /// Appends its bytes, little-endian.
    fn put(self, bytes: &mut Vec<u8>);
}

pub(super) mod sealed {
    use super::{Isa, MaybeUninit, Microkernel, View};

    /// What the blocked loops need of a type.
    pub trait Sealed: Sized {
        fn microkernel(isa: Isa) -> Microkernel<Self>;

        /// As [`packing::pack`](super::super::packing::pack).
        fn pack(isa: Isa, slots: &mut [MaybeUninit<Self>], source: View<'_, Self>, width: usize);

        /// Writes [`SIDE`](super::super::packing::SIDE) lines, `stride` apart, side by side, `width` apart;
        /// `depth` is a multiple of it. Or says that this instruction set has no better way than one by one.
        fn transpose(
            isa: Isa,
            lines: &[Self],
            stride: usize,
            columns: &mut [MaybeUninit<Self>],
            width: usize,
            depth: usize,
        ) -> bool;

        /// Makes results of accumulators: `alpha * acc`, or `fma(alpha, acc, beta * c)` with the addend
        /// `(beta, c, stride of c)`. Says whether all are finite.
        fn finish(isa: Isa, row: &mut [Self], alpha: Self, addend: Option<(Self, &[Self], usize)>) -> bool;
    }
}

macro_rules! element {
    ($type:ident, smallest $smallest:expr, transpose $transpose:path,
     plain $plain:tt, neon $neon:tt, avx2 $avx2:tt, avx512 $avx512:tt) => {
        impl Element for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const UNIT_ROUNDOFF: f64 = $type::EPSILON as f64 / 2.0;
            const SMALLEST: f64 = $smallest;
            fn finite(self) -> bool {
                self.is_finite()
            }
            fn widened(self) -> f64 {
                self.into()
            }
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl sealed::Sealed for $type {
            fn microkernel(isa: Isa) -> Microkernel<$type> {
                match isa.0 {
                    #[cfg(target_arch = "aarch64")]
                    Level::Plain => microkernel! $neon,
                    #[cfg(not(target_arch = "aarch64"))]
                    Level::Plain => microkernel! $plain,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => microkernel! $avx2,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => microkernel! $avx512,
                }
            }

            fn pack(isa: Isa, slots: &mut [MaybeUninit<$type>], source: View<'_, $type>, width: usize) {
                for_each_isa! {
                    fn dispatch(
                        again: Isa, slots: &mut [MaybeUninit<$type>], source: View<'_, $type>, width: usize,
                    ) = pack::<$type>;
                }
                dispatch(isa, isa, slots, source, width);
            }

            fn transpose(
                isa: Isa,
                lines: &[$type],
                stride: usize,
                columns: &mut [MaybeUninit<$type>],
                width: usize,
                depth: usize,
            ) -> bool {
                assert!(depth.is_multiple_of(SIDE) && depth > 0);
                assert!(lines.len() >= (SIDE - 1) * stride + depth);
                assert!(columns.len() >= (depth - 1) * width + SIDE);
                match isa.0 {
                    Level::Plain => false,
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 | Level::Avx512 => {
                        // SAFETY: AVX2 was detected and the lengths were checked; writes do not read.
                        unsafe { $transpose(lines.as_ptr(), stride, columns.as_mut_ptr().cast(), width, depth) };
                        true
                    }
                }
            }

            fn finish(
                isa: Isa,
                row: &mut [$type],
                alpha: $type,
                addend: Option<($type, &[$type], usize)>,
            ) -> bool {
                #[inline(always)]
                fn body(row: &mut [$type], alpha: $type, addend: Option<($type, &[$type], usize)>) -> bool {
                    match addend {
                        // One times a number is that number.
                        None if alpha == 1.0 => {}
                        None => row.iter_mut().for_each(|value| *value *= alpha),
                        Some((beta, c, 1)) => {
                            for (value, c) in row.iter_mut().zip(c) {
                                *value = alpha.mul_add(*value, beta * c);
                            }
                        }
                        Some((beta, c, stride)) => {
                            for (col, value) in row.iter_mut().enumerate() {
                                *value = alpha.mul_add(*value, beta * c[col * stride]);
                            }
                        }
                    }
                    row.iter().fold(true, |finite, value| finite & (value.abs() <= $type::MAX))
                }
                for_each_isa! {
                    fn dispatch(
                        row: &mut [$type], alpha: $type, addend: Option<($type, &[$type], usize)>,
                    ) -> bool = body;
                }
                dispatch(isa, row, alpha, addend)
            }
        }
    };
}

// Shapes: as many accumulators as there are registers, less those for a row of B and an element of A; and
// so wide that loads (one of A a row, one of B a register) stay below one for each two fused operations.
element! {
    f64, smallest f64::from_bits(1), transpose four_lines,
    plain { f64, f64, 4, [1, 2, 3, 4] },
    neon { std::arch::aarch64::float64x2_t, f64, 6, [1, 2, 3, 4] },
    avx2 { #[target_feature(enable = "avx2,fma")] std::arch::x86_64::__m256d, f64, 6, [1, 2] },
    avx512 { #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")] std::arch::x86_64::__m512d, f64, 8, [1, 2, 3] }
}
element! {
    f32, smallest f32::from_bits(1) as f64, transpose four_narrow_lines,
    plain { f32, f32, 4, [1, 2, 3, 4] },
    neon { std::arch::aarch64::float32x4_t, f32, 6, [1, 2, 3, 4] },
    avx2 { #[target_feature(enable = "avx2,fma")] std::arch::x86_64::__m256, f32, 6, [1, 2] },
    avx512 { #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")] std::arch::x86_64::__m512, f32, 8, [1, 2, 3] }
}
