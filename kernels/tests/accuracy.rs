//! How far the elementary functions are from the truth: CORE-MATH's correctly rounded functions.

#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

mod support;

use support::Random;
use tessera_kernels::elementary::{NORMAL_BOUND, exp, inverse_normal, log};

/// Distance to the correctly rounded result; the distance to the truth is at most half a unit more.
fn units_apart(ours: f64, truth: f64) -> f64 {
    if ours.to_bits() == truth.to_bits() {
        return 0.0;
    }
    (ours.to_bits() as i64 - truth.to_bits() as i64).abs() as f64
}

#[test]
fn log_is_within_a_unit_of_the_last_place_over_its_whole_domain() {
    let mut random = Random::new(1);
    let (mut worst, mut wrong) = (0.0f64, 0u32);
    const POINTS: u32 = 3_000_000;
    for point in 0..POINTS {
        let bits = random.next();
        let x = match point % 3 {
            // Any exponent but that of infinity, subnormals included.
            0 => f64::from_bits(bits % (0x7ff << 52)).max(f64::from_bits(1)),
            1 => f64::from_bits(1022 << 52 | bits >> 11),
            // Close to one, where cancellation would show.
            _ => {
                1.0 + (bits >> 11) as f64
                    * 2f64.powi(-53 - (bits % 30) as i32)
                    * if bits & 64 == 0 { -0.5 } else { 0.5 }
            }
        };
        let apart = units_apart(log(x), core_math::log(x));
        worst = worst.max(apart);
        wrong += u32::from(apart > 0.0);
    }
    println!(
        "log: {worst} units at most from the correctly rounded, {:.2} % not equal to it",
        100.0 * f64::from(wrong) / f64::from(POINTS)
    );
    assert!(worst <= 1.0, "a point is {worst} units off");
    assert!(wrong < POINTS / 6, "{wrong} points are not correctly rounded");
}

#[test]
fn exp_is_within_a_unit_of_the_last_place_over_its_whole_domain() {
    let mut random = Random::new(2);
    let (mut worst, mut wrong) = (0.0f64, 0u32);
    const POINTS: u32 = 3_000_000;
    for point in 0..POINTS {
        let unit = random.unit();
        let x = match point % 3 {
            0 => -745.2 + unit * (709.8 + 745.2),
            1 => unit * 2.0 - 1.0,
            _ => (unit * 2.0 - 1.0) * 2f64.powi(-((random.next() % 60) as i32)),
        };
        let apart = units_apart(exp(x), core_math::exp(x));
        worst = worst.max(apart);
        wrong += u32::from(apart > 0.0);
    }
    println!(
        "exp: {worst} units at most from the correctly rounded, {:.2} % not equal to it",
        100.0 * f64::from(wrong) / f64::from(POINTS)
    );
    assert!(worst <= 1.0, "a point is {worst} units off");
    assert!(wrong < POINTS / 6, "{wrong} points are not correctly rounded");
}

#[test]
fn the_edges_of_log_and_exp_are_those_of_ieee_754() {
    assert_eq!(log(0.0), f64::NEG_INFINITY);
    assert_eq!(log(-0.0), f64::NEG_INFINITY);
    assert_eq!(log(1.0).to_bits(), 0);
    assert_eq!(log(f64::INFINITY), f64::INFINITY);
    assert!(log(-1.0).is_nan() && log(f64::NEG_INFINITY).is_nan() && log(f64::NAN).is_nan());
    assert_eq!(log(f64::from_bits(1)), core_math::log(f64::from_bits(1)));
    assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
    assert_eq!((exp(f64::INFINITY), exp(f64::NEG_INFINITY)), (f64::INFINITY, 0.0));
    assert!(exp(f64::NAN).is_nan());
    for x in [
        709.782712893384,
        709.7827128933841,
        710.0,
        -708.4,
        -745.1332191019411,
        -745.1332191019412,
        -745.2,
        -1e300,
        1e300,
    ] {
        assert!(
            units_apart(exp(x), core_math::exp(x)) <= 1.0,
            "exp({x}) = {:e}, should be {:e}",
            exp(x),
            core_math::exp(x)
        );
    }
}

/// Relative error of the normal number of `bits`, by one Newton step on CORE-MATH's erf or erfc.
fn normal_error(bits: u64) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};
    let z = inverse_normal(bits);
    // 2u - 1, exact, on the negative side.
    let x = (2 * (bits >> 12) + 1) as f64 * 2f64.powi(-52) - 1.0;
    let (negative, sign) = (-x.abs(), if x > 0.0 { 1.0 } else { -1.0 });
    let z = -sign * z;
    let argument = z * FRAC_1_SQRT_2;
    let (off, slope) = if negative > -0.5 {
        (core_math::erf(-argument) - negative.abs(), (2.0 / PI).sqrt())
    } else {
        (1.0 + negative - core_math::erfc(-argument), (2.0 / PI).sqrt())
    };
    // The rounding of the argument, to first order.
    let lost = (-z).mul_add(FRAC_1_SQRT_2, argument) - z * -4.833_646_656_726_457e-17;
    (off / (slope * core_math::exp(-0.5 * z * z)) - lost / FRAC_1_SQRT_2) / z
}

#[test]
fn normal_numbers_are_within_a_few_units_of_the_last_place() {
    let mut random = Random::new(3);
    let mut worst = 0.0f64;
    for point in 0..1_000_000 {
        let bits = random.next();
        let bits = match point % 4 {
            0 | 1 => bits,
            2 => bits >> (bits % 52),
            _ => !(bits >> (bits % 52)),
        };
        let error = normal_error(bits).abs();
        assert!(
            error < 1.1e-15,
            "bits {bits:#x} give {} with a relative error of {error:e}",
            inverse_normal(bits)
        );
        worst = worst.max(error);
    }
    println!("normal: largest relative error {worst:e}");
}

#[test]
fn normal_numbers_are_odd_and_bounded() {
    for bits in [0u64, 1 << 12, 0x1234_5678_9abc_def0, 1 << 63, u64::MAX] {
        assert_eq!(inverse_normal(bits), -inverse_normal(!bits));
        assert!(inverse_normal(bits).abs() <= NORMAL_BOUND);
    }
    assert!((inverse_normal(0) + 8.209_536_151_601_387).abs() < 1e-12, "{}", inverse_normal(0));
}
