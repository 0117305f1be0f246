// Exact sums: doubles added as integers, so that neither order nor grouping changes a bit.
//
// Owns the block's 128-bit window and the digits in global memory. A superaccumulator is DIGITS signed 64-bit integers,
// digit j in units of 2^(32 j - 1074); at most 2^31 additions, each below 2^32, may fall on one before the host empties it.
#pragma once

#include "random.cuh"

#define DIGITS 68
#define THREADS 256
// Bits that a window reaches below the exponent of its largest value. With 53 bits of significand, one bit that a square
// may exceed twice its root's exponent by, and 4096 values, a sum stays below 2^127.
#define WINDOW 60
#define SEGMENT 4096

// A two's complement integer of 128 bits.
struct Wide {
    u64 low;
    u64 high;
};

INLINE void add_wide(Wide &sum, Wide addend) {
    sum.low += addend.low;
    sum.high += addend.high + (sum.low < addend.low ? 1 : 0);
}

// The exponent field that counts: subnormal numbers have that of the smallest normal one.
INLINE u32 exponent_field(double x) {
    u32 field = (u32)(to_bits(x) >> 52) & 0x7ff;
    return field == 0 ? 1 : field;
}

// The significand with its sign, in units of two to the exponent field less 1075, shifted up.
INLINE Wide significand(double x, u32 shift) {
    u64 bits = to_bits(x);
    u64 whole = (bits & 0xfffffffffffffull) | (((bits >> 52) & 0x7ff) == 0 ? 0 : 1ull << 52);
    Wide wide = {whole << shift, (whole >> 1) >> (63 - shift)};
    if (bits >> 63) {
        wide.high = ~wide.high + (wide.low == 0 ? 1 : 0);
        wide.low = ~wide.low + 1;
    }
    return wide;
}

INLINE void add_digit(u64 *digit, u64 addend) {
    if (addend != 0) {
        atomicAdd(digit, addend);
    }
}

// Adds an integer in units of 2^(position - 1074) to a superaccumulator.
INLINE void add_digits(u64 *digits, u32 position, Wide wide) {
    u32 shift = position % 32;
    u64 low = wide.low << shift;
    u64 middle = wide.high << shift | (wide.low >> 1) >> (63 - shift);
    long long high = ((long long)wide.high >> 1) >> (63 - shift);
    digits += position / 32;
    add_digit(digits, low & 0xffffffffu);
    add_digit(digits + 1, low >> 32);
    add_digit(digits + 2, middle & 0xffffffffu);
    add_digit(digits + 3, middle >> 32);
    add_digit(digits + 4, (u64)high);
}

// Adds a value to a thread's window, whose unit has this exponent field, or past it where it lies below.
INLINE void accumulate(Wide &sum, double value, u32 bottom, u64 *digits) {
    u32 field = exponent_field(value);
    if (field >= bottom) {
        add_wide(sum, significand(value, field - bottom));
    } else if (value != 0.0) {
        add_digits(digits, field - 1, significand(value, 0));
    }
}

INLINE u32 window_bottom(u32 top) { return top > WINDOW + 1 ? top - WINDOW : 1; }

// Raises the block's largest exponent field, and the flag where the value or its square is no number to sum. Such a
// value makes the whole sum useless, so that it does no harm that it is added.
INLINE void look(double value, u32 *top, u32 *not_finite) {
    u32 field = exponent_field(value);
    if (field == 0x7ff || exponent_field(value * value) == 0x7ff) {
        *not_finite = 1;
    } else if (field > *top) {
        atomicMax(top, field);
    }
}

// The exponent field that no square exceeds, given that of the largest root.
INLINE u32 square_top(u32 top) { return 2 * top > 1024 ? 2 * top - 1022 : 1; }

// Adds up the windows of all threads and empties them into superaccumulators that lie side by side.
template <int SUMS>
INLINE void empty_windows(Wide (*shared)[THREADS], const Wide (&sums)[SUMS], const u32 (&bottoms)[SUMS], u64 *digits) {
    u32 thread = threadIdx.x;
#pragma unroll
    for (int sum = 0; sum < SUMS; ++sum) {
        shared[sum][thread] = sums[sum];
    }
    __syncthreads();
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half) {
#pragma unroll
            for (int sum = 0; sum < SUMS; ++sum) {
                Wide total = shared[sum][thread];
                add_wide(total, shared[sum][thread + half]);
                shared[sum][thread] = total;
            }
        }
        __syncthreads();
    }
    if (thread == 0) {
#pragma unroll
        for (int sum = 0; sum < SUMS; ++sum) {
            add_digits(digits + sum * DIGITS, bottoms[sum] - 1, shared[sum][0]);
        }
    }
}
