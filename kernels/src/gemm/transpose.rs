//! Squares transposed in registers: a packed panel wants `k` after `k` where the matrix has rows.
//!
//! Owns moves only: nothing is computed, so nothing can change.

use std::arch::x86_64::*;

/// Writes lines that lie `stride` apart side by side, `width` apart: 4 lines, `depth` elements of each.
///
/// # Safety
/// AVX2 was detected; `depth` is a multiple of 4; both ends hold what is read and written.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn four_lines(from: *const f64, stride: usize, to: *mut f64, width: usize, depth: usize) {
    for k in (0..depth).step_by(4) {
        // SAFETY: promised by the caller.
        let line = |line: usize| unsafe { _mm256_loadu_pd(from.add(line * stride + k)) };
        let lines = [line(0), line(1), line(2), line(3)];
        let even = [_mm256_unpacklo_pd(lines[0], lines[1]), _mm256_unpacklo_pd(lines[2], lines[3])];
        let odd = [_mm256_unpackhi_pd(lines[0], lines[1]), _mm256_unpackhi_pd(lines[2], lines[3])];
        let columns = [
            _mm256_permute2f128_pd::<0x20>(even[0], even[1]),
            _mm256_permute2f128_pd::<0x20>(odd[0], odd[1]),
            _mm256_permute2f128_pd::<0x31>(even[0], even[1]),
            _mm256_permute2f128_pd::<0x31>(odd[0], odd[1]),
        ];
        for (offset, column) in columns.into_iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { _mm256_storeu_pd(to.add((k + offset) * width), column) };
        }
    }
}

/// As [`four_lines`], 4 lines of the narrower type.
///
/// # Safety
/// As of [`four_lines`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn four_narrow_lines(
    from: *const f32,
    stride: usize,
    to: *mut f32,
    width: usize,
    depth: usize,
) {
    for k in (0..depth).step_by(4) {
        // SAFETY: promised by the caller.
        let line = |line: usize| unsafe { _mm_loadu_ps(from.add(line * stride + k)) };
        let mut square = [line(0), line(1), line(2), line(3)];
        let [a, b, c, d] = &mut square;
        _MM_TRANSPOSE4_PS(a, b, c, d);
        for (offset, column) in square.into_iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { _mm_storeu_ps(to.add((k + offset) * width), column) };
        }
    }
}
