//! The elementary functions with their forms, and arguments that cover each one's domain and its hard parts.

use super::Random;
use std::f64::consts::FRAC_PI_2;
use tessera_kernels::elementary as e;
use tessera_kernels::isa::Isa;

/// What a function of one argument has, or one of two.
#[derive(Clone, Copy)]
pub(crate) enum Form<One, Two> {
    One(One),
    Two(Two),
}

/// An elementary function.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) scalar: Form<fn(f64) -> f64, fn(f64, f64) -> f64>,
    pub(crate) slice: Form<fn(Isa, &[f64], &mut [f64]), fn(Isa, &[f64], &[f64], &mut [f64])>,
    /// The arguments of a numbered point; the second is zero for a function of one argument.
    pub(crate) arguments: fn(&mut Random, u32) -> (f64, f64),
}

#[rustfmt::skip]
pub(crate) const FUNCTIONS: [Function; 13] = [
    Function { name: "log", scalar: Form::One(e::log), slice: Form::One(e::log_slice), arguments: for_log },
    Function { name: "exp", scalar: Form::One(e::exp), slice: Form::One(e::exp_slice), arguments: for_exp },
    Function { name: "expm1", scalar: Form::One(e::expm1), slice: Form::One(e::expm1_slice), arguments: for_exp },
    Function { name: "log1p", scalar: Form::One(e::log1p), slice: Form::One(e::log1p_slice), arguments: for_log1p },
    Function { name: "sin", scalar: Form::One(e::sin), slice: Form::One(e::sin_slice), arguments: for_angle },
    Function { name: "cos", scalar: Form::One(e::cos), slice: Form::One(e::cos_slice), arguments: for_angle },
    Function { name: "tan", scalar: Form::One(e::tan), slice: Form::One(e::tan_slice), arguments: for_angle },
    Function { name: "atan", scalar: Form::One(e::atan), slice: Form::One(e::atan_slice), arguments: for_atan },
    Function { name: "atan2", scalar: Form::Two(e::atan2), slice: Form::Two(e::atan2_slice), arguments: for_atan2 },
    Function { name: "pow", scalar: Form::Two(e::pow), slice: Form::Two(e::pow_slice), arguments: for_pow },
    Function { name: "erf", scalar: Form::One(e::erf), slice: Form::One(e::erf_slice), arguments: for_erf },
    Function { name: "erfc", scalar: Form::One(e::erfc), slice: Form::One(e::erfc_slice), arguments: for_erfc },
    Function { name: "quantile", scalar: Form::One(e::quantile), slice: Form::One(e::quantile_slice), arguments: for_quantile },
];

/// Arguments and values where a function's formula, sign or rounding changes.
pub(crate) const SPECIAL: [f64; 34] = [
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    0.25,
    0.75,
    0.0051,
    f64::MIN_POSITIVE,
    f64::from_bits(1),
    f64::from_bits((1 << 52) - 1),
    f64::MAX,
    f64::INFINITY,
    f64::NAN,
    f64::EPSILON,
    1.0 - f64::EPSILON / 2.0,
    1.0 + f64::EPSILON,
    6.5,
    26.0,
    26.543,
    27.226,
    27.3,
    700.0,
    708.4,
    709.782712893384,
    709.7827128933841,
    745.1332191019411,
    745.1332191019412,
    1_073_741_824.0,
    4_503_599_627_370_497.0,
    9_007_199_254_740_993.0,
    // The double nearest to a multiple of π/2: 6381956970095103 · 2^797.
    5.319372648326541e255,
];

/// Any bits: every exponent and sign, subnormals, now and then an infinity or NaN.
fn any(random: &mut Random) -> f64 {
    f64::from_bits(random.next())
}

/// Between −1 and 1.
fn symmetric(random: &mut Random) -> f64 {
    random.unit() * 2.0 - 1.0
}

/// Of any size down to `2^-least`, either sign.
fn shrunk(random: &mut Random, least: u64) -> f64 {
    symmetric(random) * 2f64.powi(-((random.next() % least) as i32))
}

/// One of [`SPECIAL`] or a neighbour of it, either sign.
fn special(random: &mut Random) -> f64 {
    let bits = random.next();
    let value = SPECIAL[(bits >> 8) as usize % SPECIAL.len()];
    let value = match bits & 3 {
        0 => value.next_up(),
        1 => value.next_down(),
        _ => value,
    };
    if bits & 4 == 0 { value } else { -value }
}

fn for_log(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 4 {
        0 => any(random).abs(),
        1 => 1.0 + shrunk(random, 53) * 0.5,
        2 => 0.5 + 1.5 * random.unit(),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_exp(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 5 {
        0 => any(random),
        1 => random.unit() * 1456.0 - 746.0,
        2 => symmetric(random) * 2.0,
        3 => shrunk(random, 60),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_log1p(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 5 {
        0 => any(random),
        1 => shrunk(random, 60),
        2 => random.unit() * 4.0 - 1.0,
        3 => random.unit() * 2f64.powi(-((random.next() % 53) as i32)) - 1.0,
        _ => special(random),
    };
    (x, 0.0)
}

fn for_angle(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 6 {
        0 => any(random),
        1 => symmetric(random) * 4.0,
        2 => shrunk(random, 40),
        // Close to multiples of a quarter turn, where the remainder is small.
        3 => (random.next() >> (24 + random.next() % 40)) as f64 * FRAC_PI_2,
        4 => symmetric(random) * 2f64.powi(20 + (random.next() % 1000) as i32),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_atan(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 4 {
        0 => any(random),
        1 => shrunk(random, 40) * 4.0,
        2 => 1.0 / shrunk(random, 62),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_atan2(random: &mut Random, point: u32) -> (f64, f64) {
    match point % 5 {
        0 => (any(random), any(random)),
        1 => (symmetric(random), symmetric(random)),
        2 => {
            // Quotients of any size between coordinates of any size.
            let x = any(random);
            (x * shrunk(random, 125) * 2f64.powi((random.next() % 64) as i32), x)
        }
        3 => (special(random), special(random)),
        _ => {
            let x = symmetric(random);
            (x * (1.0 + shrunk(random, 52)), x)
        }
    }
}

fn for_pow(random: &mut Random, point: u32) -> (f64, f64) {
    match point % 6 {
        0 => (any(random), any(random)),
        1 => (random.unit() * 10.0, symmetric(random) * 20.0),
        2 => {
            // Results over the whole range, subnormal ones and overflow included.
            let x = any(random).abs();
            (x, (random.unit() * 1460.0 - 747.0) / e::log(x))
        }
        3 => {
            let x = 1.0 + shrunk(random, 52) * 0.3;
            (x, (random.unit() * 1460.0 - 747.0) / e::log1p(x - 1.0))
        }
        4 => (symmetric(random) * 30.0, (random.next() % 400) as f64 - 200.0),
        _ => (special(random), special(random)),
    }
}

fn for_erf(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 4 {
        0 => any(random),
        1 => symmetric(random) * 7.0,
        2 => shrunk(random, 60),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_erfc(random: &mut Random, point: u32) -> (f64, f64) {
    let x = match point % 6 {
        0 => any(random),
        1 => symmetric(random) * 7.0,
        2 => random.unit() * 27.5,
        3 => 26.0 + 1.3 * random.unit(),
        4 => shrunk(random, 60),
        _ => special(random),
    };
    (x, 0.0)
}

fn for_quantile(random: &mut Random, point: u32) -> (f64, f64) {
    let p = match point % 5 {
        0 => any(random).abs(),
        1 => random.unit(),
        2 => e::exp(-745.0 * random.unit()),
        3 => 0.5 + 0.5 * shrunk(random, 60),
        _ => special(random),
    };
    (p, 0.0)
}
