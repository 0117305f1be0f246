//! How far the elementary functions are from the truth: CORE-MATH's correctly rounded functions.
//!
//! The bounds are those of the book's page on elementary functions, and a test holds the two together. This
//! file is left out on ARM, where building CORE-MATH under an emulator takes minutes: the bits are the same.

#![cfg(not(target_arch = "aarch64"))]
#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

mod support;

use support::Random;
use support::arguments::{FUNCTIONS, Form};
use tessera_kernels::elementary::{NORMAL_BOUND, inverse_normal, quantile};

/// Arguments tried per function.
const POINTS: u32 = 1_000_000;

/// CORE-MATH's function, and by how many doubles ours may differ from it, in how many cases of a thousand.
struct Reference {
    name: &'static str,
    truth: Form<fn(f64) -> f64, fn(f64, f64) -> f64>,
    units: u64,
    differing_per_mille: u32,
}

#[rustfmt::skip]
const REFERENCES: [Reference; 12] = {
    const fn one(name: &'static str, truth: fn(f64) -> f64, differing_per_mille: u32) -> Reference {
        Reference { name, truth: Form::One(truth), units: 1, differing_per_mille }
    }
    const fn two(name: &'static str, truth: fn(f64, f64) -> f64, differing_per_mille: u32) -> Reference {
        Reference { name, truth: Form::Two(truth), units: 1, differing_per_mille }
    }
    [
        one("log", core_math::log, 40),
        one("exp", core_math::exp, 80),
        one("expm1", core_math::expm1, 15),
        one("log1p", core_math::log1p, 40),
        one("sin", core_math::sin, 20),
        one("cos", core_math::cos, 20),
        one("tan", core_math::tan, 25),
        one("atan", core_math::atan, 5),
        two("atan2", core_math::atan2, 5),
        two("pow", core_math::pow, 20),
        one("erf", core_math::erf, 5),
        one("erfc", core_math::erfc, 30),
    ]
};

/// How far a quantile may be from the truth, what the check itself is off included.
const QUANTILE_UNITS: f64 = 1.5;

/// How many doubles lie between the two, none for two NaNs.
fn units_apart(ours: f64, truth: f64) -> u64 {
    if ours.is_nan() || truth.is_nan() {
        return if ours.is_nan() && truth.is_nan() { 0 } else { u64::MAX };
    }
    let ordered = |x: f64| x.to_bits() as i64 ^ (x.to_bits() as i64 >> 63 & i64::MAX);
    // The two zeros are neighbours here: a wrong sign of zero counts.
    ordered(ours).abs_diff(ordered(truth))
}

#[test]
fn every_function_is_within_its_bound_of_the_correctly_rounded_result() {
    for reference in &REFERENCES {
        let function = FUNCTIONS.iter().find(|function| function.name == reference.name).expect("listed");
        let mut random = Random::new(41);
        let (mut worst, mut differing) = (0, 0u32);
        for point in 0..POINTS {
            let (x, y) = (function.arguments)(&mut random, point);
            let apart = match (&function.scalar, &reference.truth) {
                (Form::One(ours), Form::One(truth)) => units_apart(ours(x), truth(x)),
                (Form::Two(ours), Form::Two(truth)) => units_apart(ours(x, y), truth(x, y)),
                _ => panic!("{} takes another number of arguments", reference.name),
            };
            assert!(apart <= reference.units, "{}({x:e}, {y:e}) is {apart} units off", reference.name);
            worst = worst.max(apart);
            differing += u32::from(apart > 0);
        }
        println!(
            "{}: {worst} units at most from the correctly rounded, {:.2} % not equal to it",
            reference.name,
            100.0 * f64::from(differing) / f64::from(POINTS)
        );
        assert!(
            differing <= POINTS / 1000 * reference.differing_per_mille,
            "{}: {differing} of {POINTS} results are not correctly rounded",
            reference.name
        );
    }
}

#[test]
fn the_book_states_the_bounds_that_are_asserted() {
    let page = include_str!("../../docs/src/elementary-functions.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.len(), FUNCTIONS.len(), "a row for each function");
    for reference in &REFERENCES {
        let row = rows.iter().find(|row| row[0] == format!("`{}`", reference.name)).expect("a row");
        let share = format!("{} %", f64::from(reference.differing_per_mille) / 10.0);
        assert_eq!((row[3], row[4]), (reference.units.to_string().as_str(), share.as_str()), "{}", row[0]);
    }
    assert!(page.contains(&format!("a quantile is within {QUANTILE_UNITS} ulp")));
}

/// Relative error of `z` as the quantile of a negative-side probability, by one Newton step on CORE-MATH's erf
/// or erfc: `below` is the probability of less than `z`, `to_middle` that of what lies between it and zero.
fn quantile_error(z: f64, below: f64, to_middle: f64) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, PI};
    let argument = z * FRAC_1_SQRT_2;
    let (off, slope) = if to_middle < 0.25 {
        (core_math::erf(-argument) - 2.0 * to_middle, (2.0 / PI).sqrt())
    } else {
        (2.0 * below - core_math::erfc(-argument), (2.0 / PI).sqrt())
    };
    // The rounding of the argument, to first order.
    let lost = (-z).mul_add(FRAC_1_SQRT_2, argument) - z * -4.833_646_656_726_457e-17;
    (off / (slope * core_math::exp(-0.5 * z * z)) + lost / FRAC_1_SQRT_2) / z
}

/// Relative error of the normal number of `bits`.
fn normal_error(bits: u64) -> f64 {
    // 2u - 1, exact, on the negative side.
    let x = (2 * (bits >> 12) + 1) as f64 * 2f64.powi(-52) - 1.0;
    let sign = if x > 0.0 { 1.0 } else { -1.0 };
    quantile_error(-sign * inverse_normal(bits), (1.0 - x.abs()) / 2.0, x.abs() / 2.0)
}

#[test]
fn quantiles_are_within_a_unit_of_the_last_place_and_what_the_check_is_off() {
    let arguments = FUNCTIONS.iter().find(|function| function.name == "quantile").expect("listed").arguments;
    let mut random = Random::new(42);
    let (mut worst, mut tried) = (0.0f64, 0u32);
    for point in 0..POINTS {
        let (p, _) = arguments(&mut random, point);
        // CORE-MATH's erfc is subnormal below, and so too coarse to judge by.
        if !(1e-300..1.0).contains(&p) || p == 0.5 {
            continue;
        }
        let z = quantile(p);
        let below = if p > 0.5 { 1.0 - p } else { p };
        let error = quantile_error(-z.abs(), below, (p - 0.5).abs()).abs();
        // The Newton step itself is off by half a unit of erfc's last place, which weighs up to 1.5 here.
        let units = error * z.abs() / (z.abs().next_up() - z.abs());
        assert!(units <= QUANTILE_UNITS, "quantile({p:e}) = {z} is {units} units off");
        (worst, tried) = (worst.max(units), tried + 1);
    }
    println!("quantile: {worst:.2} units at most from the truth, of {tried} arguments");
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
