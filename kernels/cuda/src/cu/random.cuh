// Philox4x32-10 and the elementary functions, bit for bit those of the Rust crate tessera-kernels.
//
// Owns the device twins of kernels/src/philox.rs and kernels/src/elementary. Only correctly rounded operations
// (+ - * / and explicit fused multiply-adds), integers and bit casts; no function of the CUDA math library.
// Compiled with --fmad=false: a product and a sum stay two roundings unless __fma_rn says otherwise.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

#define INLINE static __device__ __forceinline__

INLINE double from_bits(u64 bits) { return __longlong_as_double((long long)bits); }
INLINE u64 to_bits(double x) { return (u64)__double_as_longlong(x); }

struct Pair {
    u64 even;
    u64 odd;
};

// The two 64-bit outputs of a counter, those of the even and the odd path.
INLINE Pair philox(u32 key_0, u32 key_1, u64 block, u32 step, u32 stream) {
    u32 a = (u32)block, b = (u32)(block >> 32), c = step, d = stream;
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u64 p = (u64)a * 0xd2511f53u;
        u64 q = (u64)c * 0xcd9e8d57u;
        a = (u32)(q >> 32) ^ b ^ key_0;
        b = (u32)q;
        c = (u32)(p >> 32) ^ d ^ key_1;
        d = (u32)p;
        key_0 += 0x9e3779b9u;
        key_1 += 0xbb67ae85u;
    }
    Pair pair = {(u64)b << 32 | a, (u64)d << 32 | c};
    return pair;
}

// 2u - 1 for the uniform u of 64 random bits, exactly.
INLINE double symmetric_uniform(u64 bits) {
    return from_bits(bits >> 12 | 0x4000000000000000ull) - 3.0 + 2.220446049250313e-16;
}

// c[0] + c[1] x + ... in K chains (two or four) that take every K-th coefficient.
template <int K, int N>
INLINE double polynomial(double x, const double (&c)[N]) {
    double square = x * x;
    double stride = K == 2 ? square : square * square;
    double sums[K];
#pragma unroll
    for (int chain = 0; chain < K; ++chain) {
        sums[chain] = c[N - K + chain];
    }
#pragma unroll
    for (int next = N - K - 1; next >= 0; --next) {
        int chain = (next + K - (N - K) % K) % K;
        sums[chain] = __fma_rn(sums[chain], stride, c[next]);
    }
    double low = __fma_rn(sums[(1 + K - N % K) % K], x, sums[(K - N % K) % K]);
    if (K == 2) {
        return low;
    }
    double high = __fma_rn(sums[(3 + K - N % K) % K], x, sums[(2 + K - N % K) % K]);
    return __fma_rn(high, square, low);
}

// c[0] + c[1] x + ... in one chain.
template <int N>
INLINE double horner(double x, const double (&c)[N]) {
    double sum = c[N - 1];
#pragma unroll
    for (int next = N - 2; next >= 0; --next) {
        sum = __fma_rn(sum, x, c[next]);
    }
    return sum;
}

#define LN_2_HIGH from_bits(0x3fe62e42fee00000ull)
#define LN_2_LOW 1.9082149292705877e-10

// The logarithm of a positive normal number.
INLINE double log_core(double x) {
    const double R[7] = {0.666666666666667,   0.39999999999899444, 0.2857142862600327,
                         0.22222211130259878, 0.18182889455674947, 0.15331710618210773,
                         0.14616585424888623};
    u64 raised = to_bits(x) + (0x3ff0000000000000ull - 0x3fe6a09e667f3bcdull);
    double k = from_bits(raised >> 52 | 0x4330000000000000ull) - (4503599627370496.0 + 1023.0);
    double f = from_bits((raised & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull) - 1.0;
    double s = f / (2.0 + f);
    // The Rust code adds its shift, a zero here: k is never -0, so nothing is left out.
    double z = s * s;
    double half_square = 0.5 * f * f;
    double correction = __fma_rn(polynomial<2, 7>(z, R), z, half_square);
    double rest = __fma_rn(s, correction, k * LN_2_LOW);
    return __fma_rn(k, LN_2_HIGH, f - (half_square - rest));
}

// exp(r) for |r| <= ln 2 / 2.
INLINE double exp_mantissa(double r) {
    const double Q[10] = {0.5000000000000001,     0.16666666666666669,    0.04166666666662413,
                          0.008333333333330062,   0.0013888888917213717,  0.00019841269863053618,
                          2.4801521295954376e-05, 2.7557268459997064e-06, 2.7620088445409746e-07,
                          2.510038549551032e-08};
    return 1.0 + __fma_rn(r * r, polynomial<2, 10>(r, Q), r);
}

#define EXP_ROUNDER 6755399441055744.0

// An exponential's argument taken apart: the rest r and k + EXP_ROUNDER.
struct Reduced {
    double r;
    double rounded;
};

INLINE Reduced exp_reduce(double x) {
    double rounded = __fma_rn(x, 1.4426950408889634, EXP_ROUNDER);
    double k = rounded - EXP_ROUNDER;
    Reduced reduced = {__fma_rn(k, -LN_2_LOW, __fma_rn(k, -LN_2_HIGH, x)), rounded};
    return reduced;
}

// The exponential for |x| <= 700.
INLINE double exp_core(double x) {
    Reduced reduced = exp_reduce(x);
    return from_bits(to_bits(exp_mantissa(reduced.r)) + (to_bits(reduced.rounded) << 52));
}

INLINE double power_of_two(long long exponent) { return from_bits((u64)(exponent + 1023) << 52); }

// The exponential of any double. Where the result and its factors stay normal there is no other way than the first.
INLINE double exponential(double x) {
    Reduced reduced = exp_reduce(x);
    double mantissa = exp_mantissa(reduced.r);
    if (fabs(x) <= 700.0) {
        return from_bits(to_bits(mantissa) + (to_bits(reduced.rounded) << 52));
    }
    if (x > 709.782712893384) {
        return from_bits(0x7ff0000000000000ull);
    }
    if (x < -745.1332191019412) {
        return 0.0;
    }
    if (!(x == x)) {
        return x;
    }
    long long whole = (long long)(to_bits(reduced.rounded) - to_bits(EXP_ROUNDER));
    long long half = whole / 2;
    return mantissa * power_of_two(half) * power_of_two(whole - half);
}

// The centre of the inverse normal distribution function, in w - 2.875.
INLINE double normal_centre(double x, double w) {
    const double EVEN[12] = {2.253196081755608,       -0.007645292795792293,   0.00028647477625447075,
                             -3.0421839087231357e-06, -2.368693765675641e-08,  1.6046191640034644e-09,
                             -3.062618899471159e-11,  1.6528977857872227e-13,  7.551567535567848e-15,
                             -2.6234740232578065e-16, 4.2285358396412284e-18,  -3.1261845237464004e-20};
    const double ODD[11] = {0.3436881236457856,      -0.0013231766968723043,  -1.5917476263466744e-05,
                            6.651561312141438e-07,   -9.72237200208764e-09,   -3.071455319272861e-12,
                            3.671773651560777e-12,   -9.20982756826723e-14,   1.0167438100001973e-15,
                            3.2318703902511817e-18,  -1.990202022912004e-19};
    double odd = polynomial<4, 11>(w * w, ODD);
    return x * __fma_rn(odd, w, polynomial<4, 12>(w * w, EVEN));
}

INLINE double normal_shoulder(double t) {
    const double SHOULDER[20] = {
        4.272450697734557,       1.4206356142660976,      0.008679037712914584,   -0.006285984914327267,
        0.004352858302479141,    -0.0029345904377888225,  0.0015693379889006997,  -0.0005034659307871953,
        -3.277225335757491e-05,  0.0001418971177646066,   -7.754145448302043e-05, 1.2616900109062066e-05,
        9.448640230797028e-06,   -7.43658710584114e-06,   1.9738782723200355e-06, 4.1870102003727935e-07,
        -6.050812287551963e-07,  1.9618071899767486e-07,  3.943876890503747e-08,  -3.3372185624484026e-08};
    return polynomial<4, 20>(t, SHOULDER);
}

INLINE double normal_tail(double t) {
    const double TAIL[18] = {
        6.858803409112111,      1.4287806194832808,      -0.0001961787413757286, -0.00030409851168747515,
        0.0001074735518964714,  -2.7834228388899323e-05, 6.400815603534211e-06,  -1.404346977183464e-06,
        3.238753238108464e-07,  -9.556849328180397e-08,  4.1192755106908225e-08, -2.1516628766770028e-08,
        1.0803764078707621e-08, -4.972190315826616e-09,  2.1117059499832e-09,    -5.821318224799271e-10,
        -3.3271452936809486e-11, 5.184606577058944e-11};
    return polynomial<4, 18>(t, TAIL);
}

// The normal number of a uniform u, given as x = 2u - 1.
INLINE double normal(double x) {
    const double ABOVE_EVEN[5] = {2.0631199837263723, 781.9097490647558, 15531.06828463635,
                                  22718.3650995382, 1024.5302831577028};
    const double ABOVE_ODD[5] = {64.14776310595059, 4773.22417182919, 26680.52690383847,
                                 8401.449674749047, 18.187363468819584};
    const double BELOW[10] = {1.0,               32.8358971274331,  427.54835798824274, 2831.161125000357,
                              10205.545126659612, 20014.59200786849, 20355.54476819394,  9694.189864422025,
                              1772.60422165683,  77.84094536345364};
    if (fabs(x) < from_bits(0x3fee666600000000ull)) {
        double r = __fma_rn(-x, x, 0.9025);
        double above = __fma_rn(horner<5>(r * r, ABOVE_ODD), r, horner<5>(r * r, ABOVE_EVEN));
        return x * above / polynomial<2, 10>(r, BELOW);
    }
    double w = -log_core(__fma_rn(-x, x, 1.0));
    if (fabs(x) < 0.9984073413209111) {
        return normal_centre(x, w - 2.875);
    }
    double root = sqrt(w);
    return x * (w < 16.0 ? normal_shoulder(root - 3.1875) : normal_tail(root - 5.0));
}
