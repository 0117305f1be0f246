// Losses of storms on a device: one block of threads blows one event over 256 points.
//
// Owns the device twins of kernels/src/catastrophe/{wind,damage,losses}.rs. A thread keeps the strongest wind of its
// point over all nodes, makes a loss of it, and the block adds its losses to the event's exact sums; an event's
// largest wind and its count are integers. So neither blocks nor their order can change a bit.

#include "exact.cuh"

#define EARTH_RADIUS_M 6371008.8
#define CENTRE_M 1.0

// A storm's wind field at one moment; what each number is, the Rust type says.
struct Node {
    double centre[3];
    double east[2];
    double north[3];
    double radius;
    double exponent;
    double strength;
    double half_coriolis;
    double reduction;
    double contained;
    double motion[2];
    double turn;
};

// A block's points lie within so many chords of the unit sphere of a middle.
struct Ball {
    double middle[3];
    double radius;
};

// A class: Emanuel's function where it has no knots, else lines between them.
struct Curve {
    double threshold;
    double span;
    u32 first;
    u32 knots;
};

struct Knot {
    double wind;
    double share;
};

// An event's sums before and after deductibles and limits, the bits of its largest wind, and points with a loss.
struct Event {
    u64 digits[2 * DIGITS];
    u64 wind;
    u64 points;
};

INLINE double profile(const Node &node, double distance) {
    double power = exp_core(node.exponent * log_core(node.radius / distance));
    double capped = power < 700.0 ? power : 700.0;
    double turning = node.half_coriolis * distance;
    double under_root = __fma_rn(node.strength * power, exp_core(-capped), turning * turning);
    return node.reduction * (sqrt(under_root) - turning);
}

INLINE double arc(double sine, double square) {
    const double C[6] = {1.0 / 6.0,        3.0 / 40.0,       15.0 / 336.0,
                         105.0 / 3456.0,   945.0 / 42240.0,  10395.0 / 599040.0};
    return __fma_rn(sine * square, horner<6>(square, C), sine);
}

// The square of the wind at a point. Where no wind reaches, the Rust code computes with zeros so that its vector lanes
// stay together: its result there is 0, or NaN should the profile at the reach be infinite. Neither is more than what
// a point has, so that nothing is computed here.
INLINE double squared(const Node &node, double reach, double x, double y, double z) {
    double up = __fma_rn(node.centre[2], z, __fma_rn(node.centre[1], y, node.centre[0] * x));
    double east = __fma_rn(node.east[1], y, node.east[0] * x);
    double north = __fma_rn(node.north[2], z, __fma_rn(node.north[1], y, node.north[0] * x));
    double square = __fma_rn(east, east, north * north);
    double sine = sqrt(square);
    double distance = EARTH_RADIUS_M * arc(sine, square);
    if (!(up > 0.0 && distance <= reach && distance > CENTRE_M)) {
        return 0.0;
    }
    double ratio = node.radius / distance;
    double share = ratio < 1.0 ? ratio : 1.0;
    double scale = 1.0 / sine;
    double around = node.turn * __fma_rn(-node.contained, share, profile(node, distance));
    double to_east = __fma_rn(-around, north * scale, node.motion[0] * share);
    double to_north = __fma_rn(around, east * scale, node.motion[1] * share);
    return __fma_rn(to_east, to_east, to_north * to_north);
}

// Whether a ball may hold a point within reach. Where not, every point in it would be given 0.
INLINE bool near(const Node &node, const Ball &ball, double reach) {
    double x = node.centre[0] - ball.middle[0], y = node.centre[1] - ball.middle[1], z = node.centre[2] - ball.middle[2];
    double chord = sqrt(__fma_rn(x, x, __fma_rn(y, y, z * z)));
    return chord <= reach / EARTH_RADIUS_M + ball.radius + 1e-9;
}

INLINE double share_lost(const Curve &curve, const Knot *knots, double wind) {
    if (curve.knots == 0) {
        double above = wind - curve.threshold;
        double x = above > 0.0 ? above / curve.span : 0.0;
        double cube = x * x * x;
        return cube / (1.0 + cube);
    }
    knots += curve.first;
    // How many knots are not above the wind.
    u32 next = 0, end = curve.knots;
    while (next < end) {
        u32 middle = (next + end) / 2;
        if (knots[middle].wind <= wind) {
            next = middle + 1;
        } else {
            end = middle;
        }
    }
    if (next == 0) {
        return 0.0;
    }
    double low = knots[next - 1].share, at = knots[next - 1].wind;
    if (next == curve.knots) {
        return low;
    }
    return __fma_rn((wind - at) / (knots[next].wind - at), knots[next].share - low, low);
}

INLINE double paid(double loss, double deductible, double limit) {
    double above = loss - deductible;
    above = above > 0.0 ? above : 0.0;
    return above < limit ? above : limit;
}

// Block (x, y) blows the nodes firsts[y]..firsts[y + 1] over points 256 x and those that follow. `sites` holds six
// columns of so many points: coordinates, value, deductible, limit.
extern "C" __global__ void __launch_bounds__(THREADS)
tally_events(const Node *nodes, const u32 *firsts, const Ball *balls, const double *sites, const u32 *classes,
             const Curve *curves, const Knot *knots, Event *events, double reach, double least, double gust_factor, u32 points) {
    __shared__ Wide windows[2][THREADS];
    __shared__ u64 strongest_bits;
    __shared__ u32 tops[2];
    __shared__ u32 hits;
    __shared__ u32 close[THREADS];
    u32 thread = threadIdx.x, point = blockIdx.x * THREADS + thread;
    bool stands = point < points;
    double strongest = 0.0, x = 0.0, y = 0.0, z = 0.0;
    if (stands) {
        x = sites[point];
        y = sites[points + point];
        z = sites[2 * points + point];
    }
    if (thread == 0) {
        strongest_bits = 0;
        tops[0] = tops[1] = 1;
        hits = 0;
    }
    __syncthreads();
    u32 end = firsts[blockIdx.y + 1];
#pragma unroll 1
    for (u32 first = firsts[blockIdx.y]; first < end; first += THREADS) {
        u32 some = end - first < THREADS ? end - first : THREADS;
        close[thread] = thread < some && near(nodes[first + thread], balls[blockIdx.x], reach) ? 1 : 0;
        __syncthreads();
#pragma unroll 1
        for (u32 at = 0; stands && at < some; ++at) {
            if (close[at]) {
                double wind = squared(nodes[first + at], reach, x, y, z);
                strongest = wind > strongest ? wind : strongest;
            }
        }
        __syncthreads();
    }
    double wind = sqrt(strongest), lost = 0.0, gross = 0.0;
    if (wind > 0.0 && !(wind < least)) {
        atomicMax(&strongest_bits, to_bits(wind));
        double share = share_lost(curves[classes[point]], knots, wind * gust_factor);
        lost = sites[3 * points + point] * share;
        if (lost > 0.0) {
            gross = paid(lost, sites[4 * points + point], sites[5 * points + point]);
            atomicMax(&tops[0], exponent_field(lost));
            atomicMax(&tops[1], exponent_field(gross));
            atomicAdd(&hits, 1u);
        } else {
            lost = 0.0;
        }
    }
    __syncthreads();
    Event *event = &events[blockIdx.y];
    if (thread == 0 && strongest_bits != 0) {
        atomicMax(&event->wind, strongest_bits);
    }
    if (hits == 0) {
        return;
    }
    u32 bottoms[2] = {window_bottom(tops[0]), window_bottom(tops[1])};
    Wide sums[2] = {{0, 0}, {0, 0}};
    accumulate(sums[0], lost, bottoms[0], event->digits);
    accumulate(sums[1], gross, bottoms[1], event->digits + DIGITS);
    empty_windows<2>(windows, sums, bottoms, event->digits);
    if (thread == 0) {
        atomicAdd(&event->points, (u64)hits);
    }
}
