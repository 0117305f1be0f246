//! The elementary functions' special values, their scalar and slice forms, and the bits they had when this was
//! written.
//!
//! The committed hashes hold for every instruction set and every architecture: `scripts/test-arm` runs this
//! file for ARM.

mod support;

use support::Random;
use support::arguments::{FUNCTIONS, Form, Function, SPECIAL};
use tessera_kernels::elementary::*;
use tessera_kernels::isa::Isa;

/// Arguments printed per function for a finer measurement.
const PRINTED: u32 = 120_000;

/// Arguments behind a committed hash.
const HASHED: u32 = 60_000;

/// A NaN's payload is not part of the promise.
fn canonical(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

fn scalars(function: &Function, xs: &[f64], ys: &[f64]) -> Vec<u64> {
    let pairs = xs.iter().zip(ys);
    match function.scalar {
        Form::One(scalar) => pairs.map(|(x, _)| canonical(scalar(*x))).collect(),
        Form::Two(scalar) => pairs.map(|(x, y)| canonical(scalar(*x, *y))).collect(),
    }
}

fn slices(function: &Function, isa: Isa, xs: &[f64], ys: &[f64]) -> Vec<u64> {
    let mut out = vec![0.25; xs.len()];
    match function.slice {
        Form::One(slice) => slice(isa, xs, &mut out),
        Form::Two(slice) => slice(isa, xs, ys, &mut out),
    }
    out.into_iter().map(canonical).collect()
}

fn hash(bits: &[u64]) -> String {
    let mut hasher = blake3::Hasher::new();
    for bits in bits {
        hasher.update(&bits.to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_string()
}

#[test]
fn every_function_has_the_committed_bits_in_either_form_on_every_instruction_set() {
    let mut wrong = Vec::new();
    for function in &FUNCTIONS {
        let (_, committed) =
            HASHES.iter().find(|(name, _)| *name == function.name).expect("every function has a hash");
        let mut random = Random::new(51);
        let (xs, ys): (Vec<f64>, Vec<f64>) =
            (0..HASHED).map(|point| (function.arguments)(&mut random, point)).unzip();
        let mut check = |form: &str, bits: Vec<u64>| {
            let found = hash(&bits);
            if found != *committed {
                wrong.push(format!("{} {form}: {found}", function.name));
            }
        };
        check("scalar", scalars(function, &xs, &ys));
        for isa in Isa::available() {
            check(isa.name(), slices(function, isa, &xs, &ys));
        }
    }
    assert!(wrong.is_empty(), "other bits than committed:\n{}", wrong.join("\n"));
}

#[test]
fn a_slice_has_the_scalar_bits_whatever_its_length_and_its_neighbours() {
    let mut random = Random::new(52);
    for function in &FUNCTIONS {
        for length in [0, 1, 2, 7, 8, 9, 255, 256, 257, 511, 513, 1029] {
            // Random bits reach the rare cases, ordinary numbers leave whole blocks without one.
            let strange = random.next() % 3;
            let mut draw = || match strange {
                0 => f64::from_bits(random.next()),
                1 => random.unit(),
                _ => SPECIAL[random.next() as usize % SPECIAL.len()],
            };
            let xs: Vec<f64> = (0..length).map(|_| draw()).collect();
            let ys: Vec<f64> = (0..length).map(|_| draw()).collect();
            let scalars = scalars(function, &xs, &ys);
            for isa in Isa::available() {
                let slices = slices(function, isa, &xs, &ys);
                for i in 0..length {
                    assert_eq!(
                        slices[i], scalars[i],
                        "{}({:e}, {:e}) at {i} of {length} on {isa}",
                        function.name, xs[i], ys[i]
                    );
                }
            }
        }
    }
}

#[test]
fn slices_of_different_lengths_are_refused() {
    for function in &FUNCTIONS {
        let refused = std::panic::catch_unwind(|| match function.slice {
            Form::One(slice) => slice(Isa::PLAIN, &[1.0, 2.0], &mut [0.0]),
            Form::Two(slice) => slice(Isa::PLAIN, &[1.0, 2.0], &[1.0], &mut [0.0, 0.0]),
        });
        assert!(refused.is_err(), "{}", function.name);
    }
}

/// Compares bits, so that signs of zero count; any NaN is as good as another.
fn expect(name: &str, found: f64, expected: f64) {
    assert_eq!(canonical(found), canonical(expected), "{name} gives {found:e}, not {expected:e}");
}

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

#[test]
fn special_values_of_one_argument_are_those_of_ieee_754() {
    type Case = (&'static str, fn(f64) -> f64, &'static [(f64, f64)]);
    let tiny = f64::from_bits(1);
    let cases: [Case; 11] = [
        ("log", log, &[(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN)]),
        ("exp", exp, &[(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e300, INF), (-1e300, 0.0)]),
        ("expm1", expm1, &[(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (710.0, INF), (-800.0, -1.0)]),
        ("log1p", log1p, &[(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN)]),
        ("sin", sin, &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        ("cos", cos, &[(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)]),
        ("tan", tan, &[(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)]),
        ("atan", atan, &[(0.0, 0.0), (-0.0, -0.0), (INF, HALF_PI), (-INF, -HALF_PI), (1e300, HALF_PI)]),
        ("erf", erf, &[(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0)]),
        ("erfc", erfc, &[(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (28.0, 0.0), (-7.0, 2.0)]),
        ("quantile", quantile, &[(0.0, -INF), (-0.0, -INF), (1.0, INF), (0.5, 0.0), (-0.1, NAN), (1.1, NAN)]),
    ];
    for (name, function, pairs) in cases {
        expect(name, function(NAN), NAN);
        for (argument, value) in pairs {
            expect(&format!("{name}({argument:e})"), function(*argument), *value);
        }
    }
    for (name, function) in
        [("expm1", expm1 as fn(f64) -> f64), ("log1p", log1p), ("sin", sin), ("tan", tan), ("atan", atan)]
    {
        for x in [tiny, -tiny, f64::MIN_POSITIVE] {
            expect(&format!("{name}({x:e})"), function(x), x);
        }
    }
    assert_eq!((exp(709.782712893384), exp(709.7827128933841)), (1.797_693_134_862_273_2e308, INF));
    assert_eq!((exp(-745.1332191019411), exp(-745.1332191019412)), (tiny, 0.0));
}

#[test]
fn angles_of_points_are_those_of_annex_f() {
    use std::f64::consts::{FRAC_PI_4, PI};
    let three_quarters = 3.0 * FRAC_PI_4;
    for sign in [1.0, -1.0] {
        let zero = 0.0f64.copysign(sign);
        let cases = [
            (zero, 0.0, zero),
            (zero, -0.0, sign * PI),
            (zero, 2.0, zero),
            (zero, -2.0, sign * PI),
            (zero, INF, zero),
            (zero, -INF, sign * PI),
            (sign, 0.0, sign * HALF_PI),
            (sign, -0.0, sign * HALF_PI),
            (sign, INF, zero),
            (sign, -INF, sign * PI),
            (sign * INF, 2.0, sign * HALF_PI),
            (sign * INF, -2.0, sign * HALF_PI),
            (sign * INF, 0.0, sign * HALF_PI),
            (sign * INF, -0.0, sign * HALF_PI),
            (sign * INF, INF, sign * FRAC_PI_4),
            (sign * INF, -INF, sign * three_quarters),
            (sign, 1.0, sign * FRAC_PI_4),
            (sign, -1.0, sign * three_quarters),
            (sign * 1e-320, 1e-320, sign * FRAC_PI_4),
            (sign * 1e308, -1e308, sign * three_quarters),
            (sign * 1e-300, 1e300, zero),
            (sign * 1e-300, -1e300, sign * PI),
            (sign * 1e300, 1e-300, sign * HALF_PI),
            (sign * 3e-320, 1.0, sign * 3e-320),
            (NAN, sign, NAN),
            (sign, NAN, NAN),
            (NAN, sign * INF, NAN),
            (zero, NAN, NAN),
        ];
        for (y, x, angle) in cases {
            expect(&format!("atan2({y:e}, {x:e})"), atan2(y, x), angle);
        }
    }
}

#[test]
fn powers_are_those_of_annex_f() {
    let tiny = f64::from_bits(1);
    let cases = [
        (0.0, -3.0, INF),
        (-0.0, -3.0, -INF),
        (0.0, -2.0, INF),
        (-0.0, -2.0, INF),
        (-0.0, -2.5, INF),
        (0.0, -INF, INF),
        (-0.0, -INF, INF),
        (0.0, 3.0, 0.0),
        (-0.0, 3.0, -0.0),
        (-0.0, 2.0, 0.0),
        (-0.0, 2.5, 0.0),
        (0.0, INF, 0.0),
        (-0.0, INF, 0.0),
        (-1.0, INF, 1.0),
        (-1.0, -INF, 1.0),
        (1.0, NAN, 1.0),
        (1.0, INF, 1.0),
        (NAN, 0.0, 1.0),
        (NAN, -0.0, 1.0),
        (INF, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        (-2.0, 0.5, NAN),
        (-2.0, 1e-300, NAN),
        (-1.0, 0.5, NAN),
        (0.5, -INF, INF),
        (-0.5, -INF, INF),
        (2.0, -INF, 0.0),
        (-2.0, -INF, 0.0),
        (0.5, INF, 0.0),
        (-0.5, INF, 0.0),
        (2.0, INF, INF),
        (-2.0, INF, INF),
        (-INF, -3.0, -0.0),
        (-INF, -2.0, 0.0),
        (-INF, -2.5, 0.0),
        (-INF, 3.0, -INF),
        (-INF, 2.0, INF),
        (-INF, 2.5, INF),
        (INF, -0.1, 0.0),
        (INF, 0.1, INF),
        (-INF, -INF, 0.0),
        (-INF, INF, INF),
        (NAN, 1.0, NAN),
        (2.0, NAN, NAN),
        (-1.0, NAN, NAN),
        (NAN, INF, NAN),
        (-2.0, 3.0, -8.0),
        (-2.0, 2.0, 4.0),
        (-2.0, -1.0, -0.5),
        (2.0, -1074.0, tiny),
        (2.0, -1075.0, 0.0),
        (-2.0, -1073.0, -2.0 * tiny),
        (-2.0, 1025.0, -INF),
        (-2.0, 1024.0, INF),
        (2.0, 1023.0, 8.98846567431158e307),
        (-1.0, 1e300, 1.0),
        (-1.0, 9_007_199_254_740_991.0, -1.0),
        (-1.5, 9_007_199_254_740_991.0, -INF),
        (1.0 + f64::EPSILON, 1e300, INF),
        (1.0 - f64::EPSILON, 1e300, 0.0),
        (1e300, -1e300, 0.0),
        (0.5, -1e300, INF),
        (tiny, 1.0, tiny),
        (tiny, -1.0, INF),
        (tiny, 0.5, 2.222_758_749_485_077_5e-162),
        (4.0, 0.5, 2.0),
        (10.0, 22.0, 1e22),
        (1e300, tiny, 1.0),
    ];
    for (x, y, power) in cases {
        expect(&format!("pow({x:e}, {y:e})"), pow(x, y), power);
    }
}

#[test]
fn quantiles_reach_into_the_subnormal_numbers_and_are_odd() {
    // *Source*: mpmath 1.3, 60 digits, `findroot` on log(erfc(z/√2)/2).
    let cases = [
        (5e-324, -38.467405617144344),
        (1e-320, -38.26912534303265),
        (2.2250738585072014e-308, -37.5193793471445),
        (1e-300, -37.0470962993612),
        (1e-100, -21.273453560965326),
        (1e-30, -11.464024688443615),
        (1e-16, -8.222082216130435),
        (1e-09, -5.9978070150076865),
        (3e-06, -4.526389321393594),
        (0.001, -3.0902323061678136),
        (0.005, -2.575829303548901),
        (0.0052, -2.5622380757521497),
        (0.02, -2.053748910631823),
        (0.1, -1.2815515655446004),
        (0.24999, -0.6745212191808628),
        (0.25, -0.6744897501960817),
        (0.3, -0.5244005127080408),
        (0.49, -0.025068908258711057),
    ];
    for (p, z) in cases {
        let ulps = (quantile(p) - z).abs() / (z.abs().next_up() - z.abs());
        assert!(ulps <= 1.0, "quantile({p:e}) = {}, not {z}", quantile(p));
    }
    let mut random = Random::new(53);
    for _ in 0..10_000 {
        let p = random.unit();
        expect("the other side", quantile(1.0 - p), -quantile(1.0 - (1.0 - p)));
    }
}

const HALF_PI: f64 = std::f64::consts::FRAC_PI_2;

const HASHES: [(&str, &str); 13] = [
    ("log", "13ee615ed5430940c2d78350b2300a88"),
    ("exp", "479cd5f128b1a07179af48b65d482c0b"),
    ("expm1", "c42ce2c1468ea75fa8058a6799aaa37f"),
    ("log1p", "86b2ea8365c0bfc7a79a8e071e5c9128"),
    ("sin", "9ccc20cdc32d48aa54c5e0825ea98cf4"),
    ("cos", "68a76a0099f7485d26f2f19c399674a8"),
    ("tan", "b971d5b100deeff3cac4da72b5aa9ee4"),
    ("atan", "c115c6b09e8cf07e2c2eb9f8e9d6521e"),
    ("atan2", "94530ea138e477123a393cf2c179ccb4"),
    ("pow", "32f8a6d5df48511d22fd151e17151db2"),
    ("erf", "fb09e68161951b07d531803f6d41b73d"),
    ("erfc", "e15cb7433418dcb4dc3fa0dd340a7134"),
    ("quantile", "aeb452f29fc5248eed8a0786c6e4ced1"),
];

#[test]
#[ignore = "prints what fit/measure.py reads"]
fn arguments_and_results_are_printed() {
    for function in &FUNCTIONS {
        let mut random = Random::new(54);
        for point in 0..PRINTED {
            let (x, y) = (function.arguments)(&mut random, point);
            let value = match function.scalar {
                Form::One(scalar) => scalar(x),
                Form::Two(scalar) => scalar(x, y),
            };
            println!("{} {:x} {:x} {:x}", function.name, x.to_bits(), y.to_bits(), value.to_bits());
        }
    }
}
