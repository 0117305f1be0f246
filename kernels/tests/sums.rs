//! Fast exact sums against the accumulator fed value by value, on values chosen to miss the windows.

#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

mod support;

use support::Random;
use tessera_kernels::isa::Isa;
use tessera_kernels::sums::{BLOCK_VALUES_MAX, Moments, Windowed};
use tessera_protocol::exact::ExactSum;

fn one_by_one(values: impl Iterator<Item = f64>) -> ExactSum {
    let mut sum = ExactSum::new();
    values.for_each(|value| sum.add(value).unwrap());
    sum
}

/// A double whose exponent lies in a range, of either sign.
fn double(random: &mut Random, exponents: std::ops::Range<i32>) -> f64 {
    let span = (exponents.end - exponents.start) as u64;
    let exponent = (exponents.start + (random.next() % span) as i32 + 1023) as u64;
    f64::from_bits(random.next() & 0x800f_ffff_ffff_ffff | exponent << 52)
}

#[test]
fn block_sums_equal_sums_one_by_one_whatever_the_scales() {
    let mut random = Random::new(41);
    for isa in Isa::available() {
        for case in 0..300 {
            let (mut values, mut moments, mut windowed) =
                (Vec::new(), Moments::default(), Windowed::default());
            for _ in 0..8 {
                let length = random.next() as usize % if case % 10 == 0 { BLOCK_VALUES_MAX + 1 } else { 300 };
                let centre = (random.next() % 900) as i32 - 450;
                let spread = [1, 3, 20, 60][random.next() as usize % 4];
                let block: Vec<f64> = (0..length)
                    .map(|_| match random.next() % 40 {
                        0 => 0.0,
                        1 => -0.0,
                        2 if case % 7 == 0 => double(&mut random, -1022..500),
                        _ if case % 3 == 0 => double(&mut random, -30..10),
                        _ => double(&mut random, centre..centre + spread),
                    })
                    .collect();
                moments.add(isa, &block).unwrap();
                windowed.add(isa, &block).unwrap();
                values.extend(block);
            }
            let [sum, squares] = moments.into_sums();
            assert_eq!(sum, one_by_one(values.iter().copied()), "case {case} on {isa}");
            assert_eq!(
                squares,
                one_by_one(values.iter().map(|value| value * value)),
                "squares of case {case} on {isa}"
            );
            assert_eq!(windowed.into_sum(), sum);
        }
    }
}

#[test]
fn values_at_the_very_edge_of_a_window_are_summed_exactly() {
    for isa in Isa::available() {
        for exponent in [-300, -3, 0, 40] {
            let edge = 2f64.powi(exponent);
            let mut windowed = Windowed::default();
            let mut values = Vec::new();
            // The window is set by the first block; the next ones creep over its upper edge and lower end.
            for step in 0..20 {
                let top = edge * 2f64.powi(step);
                let block = [
                    top,
                    -top,
                    top * (1.0 - f64::EPSILON / 2.0),
                    top * 2f64.powi(-51),
                    top * 2f64.powi(-103) * 1.5,
                    -top * 2f64.powi(-104),
                ];
                windowed.add(isa, &block).unwrap();
                values.extend(block);
            }
            assert_eq!(windowed.into_sum(), one_by_one(values.into_iter()));
        }
    }
}

#[test]
fn what_is_not_finite_is_an_error_wherever_it_stands() {
    for isa in Isa::available() {
        for (position, bad) in [(0, f64::NAN), (17, f64::INFINITY), (99, f64::NEG_INFINITY), (50, 1e200)] {
            let mut moments = Moments::default();
            moments.add(isa, &[1.0; 100]).unwrap();
            let mut block = [1.0; 100];
            block[position] = bad;
            assert!(moments.add(isa, &block).is_err(), "{bad} at {position} on {isa}");
        }
    }
}
