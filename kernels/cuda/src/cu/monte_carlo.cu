// Monte Carlo on a device: points for pi, and books of contracts along the paths of their drivers.
//
// Owns the device twins of kernels/src/monte_carlo. A batch is simulated (payoffs and deltas to memory), then tallied
// (exact sums, histograms), then valued as a book. Lanes are in the order of the Rust kernel's blocks: the even paths of
// consecutive counters, then the odd ones; nothing that is tallied depends on it.

#include "exact.cuh"

// One date of a driver.
struct Step {
    double root_dt;
    u32 step;
    u32 stream;
    u32 first_visit;
    u32 visits;
};

// One contract looking at one date: S = spot exp(volatility W + drift).
struct Visit {
    double spot;
    double volatility;
    double drift;
    u32 contract;
    u32 action;
};

enum Action { FIX_FIRST, FIX, WATCH_FIRST, WATCH, SETTLE };

enum Style { EUROPEAN, ASIAN, DIGITAL, WATCHED, BRIDGED };

// One contract's constants; what a, b and c are depends on the style.
struct Terms {
    double quantity;
    double discount;
    double bins_per_unit;
    double sign;
    double strike;
    double pathwise;
    double a;
    double b;
    double c;
    u32 style;
    u32 state;
};

struct Outcome {
    double payoff;
    double delta;
};

INLINE Outcome vanilla(const Terms &terms, double level) {
    double gain = terms.sign * (level - terms.strike);
    Outcome nothing = {0.0, 0.0}, outcome = {gain, terms.pathwise * level};
    return gain > 0.0 ? outcome : nothing;
}

// *Source* of every delta: kernels/src/monte_carlo/contract.rs.
INLINE Outcome settle(const Terms &terms, const Visit &visit, double w, const double *state, u64 lanes) {
    if (terms.style == ASIAN) {
        return vanilla(terms, *state * terms.a);
    }
    double exponent = __fma_rn(visit.volatility, w, visit.drift);
    double level = visit.spot * exponential(exponent);
    Outcome outcome = vanilla(terms, level);
    if (terms.style == DIGITAL) {
        outcome.payoff = terms.sign * (level - terms.strike) > 0.0 ? terms.a : 0.0;
        outcome.delta = outcome.payoff * (w * terms.b);
    } else if (terms.style == WATCHED) {
        outcome.payoff = state[0] > 0.0 ? outcome.payoff : 0.0;
        outcome.delta = outcome.payoff * (state[lanes] * terms.b);
    } else if (terms.style == BRIDGED) {
        double height = terms.a + exponent > 0.0 ? terms.a + exponent : 0.0;
        double argument = -(terms.b * terms.a) * height;
        double knocked = exponential(argument > -600.0 ? argument : -600.0);
        double weight = 1.0 - knocked;
        double weight_slope = height > 0.0 ? knocked * (terms.b * (terms.a + height)) : 0.0;
        double gain = outcome.payoff, slope = outcome.delta;
        outcome.payoff = gain * weight;
        outcome.delta = slope * weight + gain * weight_slope * terms.c;
    }
    return outcome;
}

// A look before expiry: a fixing or a barrier.
INLINE void look_at(const Terms &terms, const Visit &visit, double w, double *state, u64 lanes) {
    double exponent = __fma_rn(visit.volatility, w, visit.drift);
    if (terms.style == ASIAN) {
        double before = visit.action == FIX_FIRST ? 0.0 : *state;
        *state = __fma_rn(exponential(exponent), visit.spot, before);
        return;
    }
    double alive = state[0];
    if (visit.action == WATCH_FIRST) {
        state[lanes] = w;
        alive = 1.0;
    }
    state[0] = exponent > terms.a ? alive : 0.0;
}

// Walks dates first_step..end_step of all drivers, one counter (two paths) a thread. The Brownian motion waits in
// `motions` between launches. One lane array holds 2 * counters numbers.
extern "C" __global__ void __launch_bounds__(THREADS, 3)
simulate(const Step *steps, const Visit *visits, const Terms *terms, double *motions, double *states, double *payoffs,
         double *deltas, u64 first_counter, u32 counters, u32 first_step, u32 end_step, u32 key_0, u32 key_1) {
    u32 counter = blockIdx.x * blockDim.x + threadIdx.x;
    if (counter >= counters) {
        return;
    }
    u64 lanes = 2 * (u64)counters;
    double w[2] = {motions[counter], motions[counters + counter]};
    for (u32 at = first_step; at < end_step; ++at) {
        const Step step = steps[at];
        Pair bits = philox(key_0, key_1, first_counter + counter, step.step, step.stream);
        double z[2] = {normal(symmetric_uniform(bits.even)), normal(symmetric_uniform(bits.odd))};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            w[half] = step.step == 0 ? step.root_dt * z[half] : __fma_rn(step.root_dt, z[half], w[half]);
        }
        for (u32 place = step.first_visit; place < step.first_visit + step.visits; ++place) {
            const Visit visit = visits[place];
            const Terms &contract = terms[visit.contract];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                u64 lane = half * (u64)counters + counter;
                double *state = states + contract.state * lanes + lane;
                if (visit.action == SETTLE) {
                    Outcome outcome = settle(contract, visit, w[half], state, lanes);
                    payoffs[visit.contract * lanes + lane] = outcome.payoff;
                    deltas[visit.contract * lanes + lane] = outcome.delta;
                } else {
                    look_at(contract, visit, w[half], state, lanes);
                }
            }
        }
    }
    motions[counter] = w[0];
    motions[counters + counter] = w[1];
}

// The bin of a payoff: exactly zero, 64 linear ones, everything above.
INLINE u32 payoff_bin(double payoff, double bins_per_unit) {
    double scaled = payoff * bins_per_unit;
    scaled = scaled < 64.0 ? scaled : 64.0;
    double shifted = scaled + 4503599627370496.0;
    u32 above = shifted - 4503599627370496.0 > scaled ? 1 : 0;
    return (u32)to_bits(shifted) - above + (payoff > 0.0 ? 1 : 0);
}

#define PAYOFF_BINS 66

// Tallies lanes first..end of contract first_contract + blockIdx.y: sums of x, x^2, d, d^2, and counts.
extern "C" __global__ void __launch_bounds__(THREADS)
tally_contracts(const Terms *terms, const double *payoffs, const double *deltas, u64 *digits, u64 *counts,
                u32 *not_finite, u64 lanes, u32 first, u32 end, u32 first_contract) {
    __shared__ Wide windows[4][THREADS];
    __shared__ u32 bins[PAYOFF_BINS];
    __shared__ u32 tops[2];
    u32 contract = first_contract + blockIdx.y, thread = threadIdx.x;
    double discount = terms[contract].discount, bins_per_unit = terms[contract].bins_per_unit;
    payoffs += contract * lanes;
    deltas += contract * lanes;
    digits += (u64)contract * 4 * DIGITS;
    u32 start = first + blockIdx.x * SEGMENT;
    u32 stop = end - start < SEGMENT ? end : start + SEGMENT;
    if (thread < PAYOFF_BINS) {
        bins[thread] = 0;
    }
    if (thread < 2) {
        tops[thread] = 1;
    }
    __syncthreads();
#pragma unroll 1
    for (u32 lane = start + thread; lane < stop; lane += THREADS) {
        double payoff = payoffs[lane];
        look(discount * payoff, &tops[0], not_finite);
        look(deltas[lane], &tops[1], not_finite);
        // A payoff that is no number leaves the range of bins; its tally is thrown away.
        u32 bin = payoff_bin(payoff, bins_per_unit);
        atomicAdd(&bins[bin < PAYOFF_BINS ? bin : 0], 1u);
    }
    __syncthreads();
    u32 bottoms[4] = {window_bottom(tops[0]), window_bottom(square_top(tops[0])), window_bottom(tops[1]),
                      window_bottom(square_top(tops[1]))};
    Wide sums[4] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
#pragma unroll 1
    for (u32 lane = start + thread; lane < stop; lane += THREADS) {
        double x = discount * payoffs[lane], delta = deltas[lane];
        accumulate(sums[0], x, bottoms[0], digits);
        accumulate(sums[1], x * x, bottoms[1], digits + DIGITS);
        accumulate(sums[2], delta, bottoms[2], digits + 2 * DIGITS);
        accumulate(sums[3], delta * delta, bottoms[3], digits + 3 * DIGITS);
    }
    empty_windows<4>(windows, sums, bottoms, digits);
    if (thread < PAYOFF_BINS && bins[thread] != 0) {
        atomicAdd(&counts[(u64)contract * PAYOFF_BINS + thread], (u64)bins[thread]);
    }
}

// The book's value on each lane: quantity times discounted payoff in the order of the book, one rounding a contract.
extern "C" __global__ void value_book(const Terms *terms, const double *payoffs, double *values, u64 lanes, u32 contracts) {
    u64 lane = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (lane >= lanes) {
        return;
    }
    double value = 0.0;
    for (u32 contract = 0; contract < contracts; ++contract) {
        value = __fma_rn(terms[contract].quantity, terms[contract].discount * payoffs[contract * lanes + lane], value);
    }
    values[lane] = value;
}

#define CACHED_BINS 1024
#define NO_BIN 0xffffffffu

// The bin of the relative grid of protocol::bins.
INLINE u32 value_bin(double value) {
    const u32 ZERO_BIN = 1u << 23, DISTANCE_MAX = (0x7ffu << 12) - 1;
    u64 magnitude = to_bits(value) & 0x7fffffffffffffffull;
    u32 rounded = (u32)((magnitude + (1ull << 39)) >> 40);
    u32 distance = rounded > DISTANCE_MAX ? DISTANCE_MAX : rounded;
    return value < 0.0 ? ZERO_BIN - distance : ZERO_BIN + distance;
}

INLINE void count_bin(u64 *bins, u32 *pages, u32 bin, u64 count) {
    atomicAdd(&bins[bin], count);
    pages[bin >> 12] = 1;
}

// Tallies the book's values of lanes first..end: sums of v and v^2, and counts in bins of v less the anchor. A block
// counts in a cache of its own first, since many paths have the same value where all contracts end worthless.
extern "C" __global__ void __launch_bounds__(THREADS)
tally_values(const double *values, u64 *digits, u64 *bins, u32 *pages, u32 *not_finite, double anchor, u32 first, u32 end) {
    __shared__ Wide windows[2][THREADS];
    __shared__ u32 cached[CACHED_BINS];
    __shared__ u32 cached_counts[CACHED_BINS];
    __shared__ u32 top;
    u32 thread = threadIdx.x;
    u32 start = first + blockIdx.x * SEGMENT;
    u32 stop = end - start < SEGMENT ? end : start + SEGMENT;
    for (u32 slot = thread; slot < CACHED_BINS; slot += THREADS) {
        cached[slot] = NO_BIN;
        cached_counts[slot] = 0;
    }
    if (thread == 0) {
        top = 1;
    }
    __syncthreads();
#pragma unroll 1
    for (u32 lane = start + thread; lane < stop; lane += THREADS) {
        double value = values[lane];
        look(value, &top, not_finite);
        u32 bin = value_bin(value - anchor);
        u32 slot = bin * 2654435761u >> 22;
        u32 holder = atomicCAS(&cached[slot], NO_BIN, bin);
        if (holder == NO_BIN || holder == bin) {
            atomicAdd(&cached_counts[slot], 1u);
        } else {
            count_bin(bins, pages, bin, 1);
        }
    }
    __syncthreads();
    u32 bottoms[2] = {window_bottom(top), window_bottom(square_top(top))};
    Wide sums[2] = {{0, 0}, {0, 0}};
#pragma unroll 1
    for (u32 lane = start + thread; lane < stop; lane += THREADS) {
        double value = values[lane];
        accumulate(sums[0], value, bottoms[0], digits);
        accumulate(sums[1], value * value, bottoms[1], digits + DIGITS);
    }
    empty_windows<2>(windows, sums, bottoms, digits);
    for (u32 slot = thread; slot < CACHED_BINS; slot += THREADS) {
        if (cached_counts[slot] != 0) {
            count_bin(bins, pages, cached[slot], cached_counts[slot]);
        }
    }
}

// Counts points first..first + points strictly inside the quarter circle; one point takes one whole counter.
extern "C" __global__ void __launch_bounds__(THREADS)
count_points(u64 *inside, u64 first, u64 points, u32 key_0, u32 key_1) {
    __shared__ u32 block_inside;
    if (threadIdx.x == 0) {
        block_inside = 0;
    }
    __syncthreads();
    u32 found = 0;
    u64 all = (u64)gridDim.x * blockDim.x;
    for (u64 point = (u64)blockIdx.x * blockDim.x + threadIdx.x; point < points; point += all) {
        Pair bits = philox(key_0, key_1, first + point, 0, 0);
        double x = 0.5 * symmetric_uniform(bits.even) + 0.5;
        double y = 0.5 * symmetric_uniform(bits.odd) + 0.5;
        found += x * x + y * y < 1.0 ? 1 : 0;
    }
    if (found != 0) {
        atomicAdd(&block_inside, found);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(inside, (u64)block_inside);
    }
}
