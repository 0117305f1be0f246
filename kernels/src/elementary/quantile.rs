//! The inverse of the normal distribution function, for a probability given as a double.
//!
//! Between a quarter and three quarters it is odd in `q = p − ½`, which is exact. In the tails, with
//! `w = √(−2 log t)` of the tail's probability `t`, it is close to `w`, and is computed as
//! `z(w₀) + z'(w₀) v + v² R(v)` with `v = w − w₀` in five pieces, of which the first, down to half a percent,
//! is the core's. *Source of the pieces' variable*: M. Wichura, "Algorithm AS 241", Applied Statistics 37, 1988.

use super::double::{Double, product, sum};
use super::log_double::{log_double, raise};
use super::polynomial;
use super::slice::elementary;

const ROOT_TWO_PI: Double = Double { high: 2.5066282746310007, low: -1.8328579980459167e-16 };
/// `(z/q − √2π) / q²` in powers of `q²`, for `|q| ≤ ¼`: Chebyshev, error 6.52e-18 of `z`
/// (`fit/elementary.py`, quantile).
const CENTRE: [f64; 14] = [
    2.6249349909537365,
    5.772533538611929,
    15.66760896308352,
    47.03578756225454,
    149.829779623123,
    496.2757848995748,
    1689.6860701414778,
    5883.897198460694,
    20368.935144848198,
    84241.12221781882,
    84186.98082086274,
    3235056.875165768,
    -13570631.480766173,
    80105915.39614901,
];

/// `z` of `w` around a middle that subtracts exactly. `rest` is `R`: Chebyshev, error at most 3.69e-18 of `z`.
struct Piece {
    middle: f64,
    value: Double,
    slope: Double,
    rest: [f64; 20],
}

/// For `w` from 1.665 to 3.25.
const NEAR: Piece = Piece {
    middle: 2.4375,
    value: Double { high: 1.632688626255778, low: 1.0302484065640927e-16 },
    slope: Double { high: 1.1877305758879049, low: -5.355597121744914e-17 },
    rest: [
        -0.052289474822483084,
        0.01571791804097488,
        -0.0049571804913056934,
        0.001621344156872256,
        -0.0005463051026378991,
        0.0001886961586643505,
        -6.653266382489418e-05,
        2.3860722589367863e-05,
        -8.677588900250357e-06,
        3.192436205515742e-06,
        -1.1858330768216515e-06,
        4.439964200164417e-07,
        -1.6725613192881977e-07,
        6.352807268211344e-08,
        -2.4543791098358463e-08,
        9.252967689778876e-09,
        -3.1084967966584827e-09,
        1.3234768025387621e-09,
        -8.561465279987375e-10,
        2.8809691969208605e-10,
    ],
};
/// To 5.
const TO_FIVE: Piece = Piece {
    middle: 4.125,
    value: Double { high: 3.5376074039488064, low: -1.2647575732111784e-16 },
    slope: Double { high: 1.089288929632987, low: 6.536221533176301e-17 },
    rest: [
        -0.015848704630767294,
        0.002994569861840179,
        -0.0005862910114136298,
        0.00011761369280888973,
        -2.404276411779976e-05,
        4.993092096606715e-06,
        -1.051380563223461e-06,
        2.2413216678869883e-07,
        -4.83098290377021e-08,
        1.0515458111777299e-08,
        -2.308817708774821e-09,
        5.108160908971629e-10,
        -1.1377100744479823e-10,
        2.5488999354232993e-11,
        -5.745504324626618e-12,
        1.2997334489952701e-12,
        -2.8899289481552754e-13,
        6.585533944492079e-14,
        -1.8872220879675053e-14,
        4.332304527826423e-15,
    ],
};
/// To 9.
const TO_NINE: Piece = Piece {
    middle: 7.0,
    value: Double { high: 6.58400329439997, low: 4.4372349597692653e-16 },
    slope: Double { high: 1.0401847822328678, low: 4.482323323902717e-17 },
    rest: [
        -0.004453459680090171,
        0.0005211938549785927,
        -6.285935144303804e-05,
        7.729789064952883e-06,
        -9.63743627607057e-07,
        1.214369655431943e-07,
        -1.543411055021284e-08,
        1.9761086428161495e-09,
        -2.546707080569309e-10,
        3.301679691957304e-11,
        -4.3042135515062086e-12,
        5.640154308162626e-13,
        -7.424061501977888e-14,
        9.819960774161076e-15,
        -1.3134600085321616e-15,
        1.7518675524850737e-16,
        -2.1532430440087117e-17,
        2.888946306673276e-18,
        -6.146064447090832e-19,
        8.319239240406981e-20,
    ],
};
/// To 18.
const TO_EIGHTEEN: Piece = Piece {
    middle: 13.5,
    value: Double { high: 13.23762598194447, low: 6.202408938277586e-16 },
    slope: Double { high: 1.0140974829449623, low: -8.764458393115958e-17 },
    rest: [
        -0.0008532299159888395,
        5.410059001990605e-05,
        -3.5194146546155894e-06,
        2.3275322846098106e-07,
        -1.557210571068925e-08,
        1.0508463067695738e-09,
        -7.138922521851494e-11,
        4.875862394066721e-12,
        -3.3449069031993577e-13,
        2.3031982275772236e-14,
        -1.5910945401510678e-15,
        1.1021855131382021e-16,
        -7.643043611869161e-18,
        5.319846942229752e-19,
        -3.788780423922647e-20,
        2.6485552286886152e-21,
        -1.5268802807417821e-22,
        1.0694326162752926e-23,
        -1.512651655624938e-24,
        1.0663650401031458e-25,
    ],
};
/// To 38.7, past the smallest double.
const TO_THE_END: Piece = Piece {
    middle: 28.25,
    value: Double { high: 28.098943642999, low: -1.192266269045849e-15 },
    slope: Double { high: 1.0041073290638958, low: 2.1232075771254224e-17 },
    rest: [
        -0.0001237657787966111,
        3.879045909851382e-06,
        -1.2421186362080086e-07,
        4.0324362112446356e-09,
        -1.321800392439796e-10,
        4.364109069831542e-12,
        -1.4489855316395334e-13,
        4.832719028380634e-15,
        -1.6178124345228948e-16,
        5.432776661558163e-18,
        -1.8295739593901498e-19,
        6.1733078429766796e-21,
        -2.079661713745311e-22,
        7.058694121178511e-24,
        -2.4971901033576563e-25,
        8.354957960578735e-27,
        -2.0268754522821495e-28,
        7.539670437111193e-30,
        -6.161745161376926e-31,
        1.9700712763865852e-32,
    ],
};

/// Where the centre ends: below, subtracting a half may round.
const QUARTER: f64 = 0.25;
/// Tails down to this are the core's: `w` is 3.249.
const CORE_TAIL: f64 = 0.0051;

elementary! {
    /// The normal quantile: the `z` below which a standard normal number lies with probability `p`.
    /// Largest error measured 0.61 ulp.
    ///
    /// Zero gives minus infinity, one infinity, what lies outside them NaN.
    quantile, quantile_slice(p) = core, rare
}

#[inline(always)]
fn core(p: f64) -> f64 {
    let (centre, tail) = (p - 0.5, tail_of(p));
    let far = at(&NEAR, root(log_double(tail, 0.0))).copysign(centre);
    let value = if tail >= QUARTER { near_middle(centre) } else { far };
    if tail >= CORE_TAIL { value } else { f64::NAN }
}

#[inline(always)]
fn rare(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let side = p - 0.5;
    let tail = tail_of(p);
    if tail == 0.0 {
        return f64::INFINITY.copysign(side);
    }
    let (raised, shift) = raise(tail);
    let w = root(log_double(raised, shift));
    let piece = match w.high {
        ..3.25 => &NEAR,
        ..5.0 => &TO_FIVE,
        ..9.0 => &TO_NINE,
        ..18.0 => &TO_EIGHTEEN,
        _ => &TO_THE_END,
    };
    at(piece, w).copysign(side)
}

/// The smaller of `p` and `1 − p`, exact.
#[inline(always)]
fn tail_of(p: f64) -> f64 {
    if p > 0.5 { 1.0 - p } else { p }
}

#[inline(always)]
fn near_middle(q: f64) -> f64 {
    let square = q * q;
    let lead = product(q, ROOT_TWO_PI.high);
    let low = q.mul_add(ROOT_TWO_PI.low, lead.low);
    lead.high + (q * square).mul_add(polynomial::<2, 14>(square, &CENTRE), low)
}

/// `√(−2 log)`.
#[inline(always)]
fn root(log: Double) -> Double {
    let square = Double { high: -2.0 * log.high, low: -2.0 * log.low };
    let high = square.high.sqrt();
    Double { high, low: ((-high).mul_add(high, square.high) + square.low) * (0.5 / high) }
}

#[inline(always)]
fn at(piece: &Piece, w: Double) -> f64 {
    let v = w.high - piece.middle;
    let lead = product(piece.slope.high, v);
    let total = sum(piece.value.high, lead.high);
    let slope = (2.0 * piece.rest[0]).mul_add(v, piece.slope.high);
    let low = v.mul_add(piece.slope.low, lead.low + piece.value.low) + slope * w.low;
    total.high + (total.low + (v * v).mul_add(polynomial::<2, 20>(v, &piece.rest), low))
}
