//! Exact sums against a naive reference: a big integer kept as base-2^32 digits.

use super::*;
use alloc::vec;

/// SplitMix64, so that a failing case is a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Any finite double, all exponents alike, with zeros and subnormals.
    fn double(&mut self) -> f64 {
        loop {
            let value = f64::from_bits(self.next());
            if value.is_finite() {
                return value;
            }
        }
    }

    /// Doubles of a few binary orders, so that they cancel and carry.
    fn near(&mut self) -> f64 {
        let bits = self.next();
        f64::from_bits(bits & 0x800f_ffff_ffff_ffff | (1020 + self.next() % 8) << 52)
    }
}

/// Signed base-2^32 digits in units of 2^-1074, carried only at the end: schoolbook, nothing shared.
struct Naive {
    digits: [i128; 80],
}

impl Naive {
    fn new() -> Self {
        Naive { digits: [0; 80] }
    }

    fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let biased = (bits >> 52 & 0x7ff) as usize;
        let mantissa = if biased == 0 { bits & FRACTION } else { bits & FRACTION | 1 << 52 };
        let position = biased.max(1) - 1;
        let shifted = u128::from(mantissa) << (position % 32);
        let sign = if value < 0.0 { -1 } else { 1 };
        for part in 0..3 {
            self.digits[position / 32 + part] += sign * (shifted >> (32 * part) & 0xffff_ffff) as i128;
        }
    }

    /// The nearest double, found bit by bit.
    fn value(&self) -> f64 {
        let mut digits = self.digits;
        let carry = |digits: &mut [i128; 80]| {
            for i in 0..79 {
                let over = digits[i] >> 32;
                digits[i] -= over << 32;
                digits[i + 1] += over;
            }
        };
        carry(&mut digits);
        let negative = digits[79] < 0;
        if negative {
            digits.iter_mut().for_each(|digit| *digit = -*digit);
            carry(&mut digits);
        }
        let bit = |at: i32| at >= 0 && digits[at as usize / 32] >> (at % 32) & 1 == 1;
        let Some(top) = (0..80 * 32).rev().find(|at| bit(*at)) else {
            return 0.0;
        };
        let lowest = (top - 52).max(0);
        let mut mantissa = (lowest..=top).rev().fold(0u64, |mantissa, at| mantissa << 1 | u64::from(bit(at)));
        let half = bit(lowest - 1);
        let more = (0..(lowest - 1).max(0)).any(bit);
        if half && (more || mantissa & 1 == 1) {
            mantissa += 1;
        }
        // mantissa · 2^(lowest - 1074), assembled by repeated exact doubling.
        let mut value = f64::from_bits(mantissa & (IMPLICIT * 4 - 1));
        if mantissa >= IMPLICIT {
            value = mantissa as f64 * f64::from_bits(1);
        }
        for _ in 0..lowest {
            value *= 2.0;
        }
        if negative { -value } else { value }
    }
}

fn sum_of(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    for value in values {
        sum.add(*value).unwrap();
    }
    sum
}

fn encoded(sum: &ExactSum) -> Vec<u8> {
    let mut bytes = Vec::new();
    sum.encode(&mut bytes);
    bytes
}

#[test]
fn sums_agree_with_schoolbook_arithmetic_over_all_exponents() {
    let mut random = Random(1);
    for case in 0..2_000 {
        let count = 1 + random.next() as usize % 40;
        let values: Vec<f64> =
            (0..count).map(|_| if case % 2 == 0 { random.double() } else { random.near() }).collect();
        let mut naive = Naive::new();
        values.iter().for_each(|value| naive.add(*value));
        let sum = sum_of(&values);
        assert_eq!(sum.to_f64().to_bits(), naive.value().to_bits(), "case {case}: {values:?}");
        let negated: Vec<f64> = values.iter().map(|value| -value).collect();
        assert_eq!(sum_of(&negated).to_f64(), -sum.to_f64(), "case {case}");
    }
}

#[test]
fn a_single_double_comes_back_bit_for_bit() {
    let mut random = Random(2);
    let edges =
        [f64::MAX, f64::MIN, f64::MIN_POSITIVE, f64::from_bits(1), f64::from_bits(FRACTION), 1.0, -1.5];
    for value in edges.into_iter().chain((0..20_000).map(|_| random.double())) {
        assert_eq!(sum_of(&[value]).to_f64().to_bits(), (value + 0.0).to_bits());
        assert!(sum_of(&[value, -value]).is_zero());
    }
}

#[test]
fn order_and_grouping_change_no_bit() {
    let mut random = Random(3);
    let values: Vec<f64> =
        (0..300).map(|i| if i % 3 == 0 { random.double() } else { random.near() }).collect();
    let whole = sum_of(&values);
    for _ in 0..50 {
        let mut shuffled = values.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, random.next() as usize % (i + 1));
        }
        let (cut, second) = (random.next() as usize % 150, 150 + random.next() as usize % 150);
        let [a, b, c] = [&shuffled[..cut], &shuffled[cut..second], &shuffled[second..]].map(sum_of);
        let mut left = a.clone();
        left.merge(&b);
        left.merge(&c);
        let mut right = c;
        let mut inner = b;
        inner.merge(&a);
        right.merge(&inner);
        assert_eq!(left, whole);
        assert_eq!(encoded(&right), encoded(&whole));
    }
}

#[test]
fn ties_go_to_even_and_the_last_crumb_decides() {
    let ulp = f64::EPSILON;
    assert_eq!(sum_of(&[1.0, ulp / 2.0]).to_f64(), 1.0);
    assert_eq!(sum_of(&[1.0 + ulp, ulp / 2.0]).to_f64(), 1.0 + 2.0 * ulp);
    assert_eq!(sum_of(&[1.0, ulp / 2.0, f64::from_bits(1)]).to_f64(), 1.0 + ulp);
    assert_eq!(sum_of(&[1.0, -ulp / 4.0, -f64::from_bits(1)]).to_f64(), 1.0 - ulp / 2.0);
    assert_eq!(sum_of(&[f64::MAX, f64::MAX]).to_f64(), f64::INFINITY);
    assert_eq!(sum_of(&[f64::MAX, f64::MAX, -f64::MAX]).to_f64(), f64::MAX);
    // Half of the last place of the largest double rounds up to infinity; a crumb less does not.
    let half = f64::from_bits((970 + 1023) << 52);
    assert_eq!(sum_of(&[f64::MAX, half]).to_f64(), f64::INFINITY);
    assert_eq!(sum_of(&[f64::MAX, half, -1.0]).to_f64(), f64::MAX);
}

#[test]
fn what_is_not_finite_is_refused_and_changes_nothing() {
    let mut sum = sum_of(&[2.5]);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(sum.add(value), Err(NotFinite));
    }
    assert_eq!(sum.to_f64(), 2.5);
}

#[test]
fn integers_times_powers_add_like_the_doubles_they_stand_for() {
    let mut random = Random(4);
    for _ in 0..5_000 {
        let integer = (random.next() as i64 >> (random.next() % 60)) as i128;
        let exponent = (random.next() % 1_900) as i32 - 1_000;
        let mut sum = sum_of(&[random.double()]);
        let mut by_parts = sum.clone();
        sum.add_scaled(integer << 40, exponent);
        for _ in 0..4 {
            by_parts.add_scaled(integer << 39, exponent - 1);
        }
        assert_eq!(sum, by_parts);
    }
    let mut extremes = ExactSum::new();
    extremes.add_scaled(i128::MIN, EXPONENT_MAX);
    extremes.add_scaled(i128::MAX, EXPONENT_MAX);
    extremes.add_scaled(1, EXPONENT_MAX);
    assert!(extremes.is_zero());
}

#[test]
fn every_sum_reads_back_from_its_bytes() {
    let mut random = Random(5);
    for _ in 0..2_000 {
        let values: Vec<f64> = (0..random.next() % 6).map(|_| random.double()).collect();
        let sum = sum_of(&values);
        let mut bytes = encoded(&sum);
        assert!(bytes.len() <= ENCODED_BYTES_MAX);
        bytes.extend([7, 8]);
        let (back, rest) = ExactSum::decode(&bytes).unwrap();
        assert_eq!((back, rest), (sum, &[7u8, 8][..]));
    }
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let one = encoded(&sum_of(&[1.0]));
    assert_eq!(one.len(), 3 + 8);
    for cut in 0..one.len() {
        assert_eq!(ExactSum::decode(&one[..cut]), Err(DecodeSumError::CutShort));
    }
    assert_eq!(ExactSum::decode(&[1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeSumError::NotCanonical));
    assert_eq!(ExactSum::decode(&[3, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeSumError::OutOfRange));
    assert_eq!(ExactSum::decode(&[1, 35, 1, 1, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeSumError::OutOfRange));
    assert_eq!(ExactSum::decode(&[1, 34, 1, 0, 0, 0, 0, 0, 0, 0, 0x80]), Err(DecodeSumError::OutOfRange));
    assert!(ExactSum::decode(&[2, 34, 1, 0, 0, 0, 0, 0, 0, 0, 0x80]).is_ok());
}

#[test]
fn random_bytes_never_panic_and_what_decodes_encodes_to_the_same_bytes() {
    let mut random = Random(6);
    let mut read = 0;
    for _ in 0..100_000 {
        let length = random.next() as usize % 60;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        for (at, bound) in [(0, 3), (1, 37), (2, 6)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte %= bound;
            }
        }
        if let Ok((sum, rest)) = ExactSum::decode(&bytes) {
            read += 1;
            assert_eq!(encoded(&sum), bytes[..bytes.len() - rest.len()]);
            let mut doubled = sum.clone();
            doubled.merge(&sum);
            let _ = (doubled.to_f64(), encoded(&doubled), sample_variance(3, &doubled, &sum));
        }
    }
    assert!(read > 10_000, "only {read} of the cases were readable");
}

/// Sums of very different sizes and both signs, some of them zero.
fn many(random: &mut Random) -> Vec<ExactSum> {
    (0..200)
        .map(|_| {
            let terms: Vec<f64> = (0..random.next() % 4).map(|_| random.double()).collect();
            sum_of(&terms)
        })
        .collect()
}

fn add_value(sum: &mut ExactSum, value: &Value) {
    sum.add_limbs(value.negative, value.first, value.limbs().iter().copied());
}

#[test]
fn packed_sums_add_up_and_look_as_accumulators_do() {
    let mut random = Random(7);
    let (into, sums) = (many(&mut random), many(&mut random));
    let mut bytes = Vec::new();
    sums.iter().for_each(|sum| sum.encode(&mut bytes));
    let length = bytes.len();
    bytes.extend([9, 9]);
    let (packed, rest) = PackedSums::decode(&bytes, sums.len()).unwrap();
    assert_eq!((packed.len(), rest), (sums.len(), &[9, 9][..]));
    assert!(packed.memory_bytes() < length + 5 * sums.len(), "{}", packed.memory_bytes());
    let doubles: Vec<u64> = packed.to_f64s().map(f64::to_bits).collect();
    let mut added = into.clone();
    packed.add_to(&mut added);
    for (position, (sum, into)) in sums.iter().zip(into).enumerate() {
        let value = packed.value(position);
        assert_eq!([value.to_f64().to_bits(), doubles[position]], [sum.to_f64().to_bits(); 2]);
        assert_eq!(&ExactSum::from(value), sum);
        let (mut one, mut other) = (into.clone(), into);
        one.merge(sum);
        add_value(&mut other, &value);
        assert_eq!([&other, &added[position]], [&one, &one], "{sum:?}");
        // And back to where carries and borrows run through all limbs.
        let mut minus = ExactSum::new();
        add_value(&mut minus, &Value { negative: !value.negative, ..value });
        one.merge(&minus);
        add_value(&mut other, &minus.value());
        assert_eq!(one, other, "{minus:?}");
    }
    for cut in 0..length {
        assert!(PackedSums::decode(&bytes[..cut], sums.len()).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_carry_runs_through_all_limbs_that_are_full() {
    for (from, by) in [(-1.0, 1e-300), (1.0, -1e-300), (-1e-300, 1e-300), (-1e-300, 1.0), (1e-300, -1.0)] {
        let (mut sum, mut same) = (sum_of(&[from]), sum_of(&[from]));
        sum.add(by).unwrap();
        add_value(&mut same, &sum_of(&[by]).value());
        assert_eq!(sum, same);
    }
}

fn squares(values: &[f64]) -> ExactSum {
    sum_of(&values.iter().map(|value| value * value).collect::<Vec<_>>())
}

#[test]
fn the_variance_of_whole_numbers_is_exact() {
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    assert_eq!(sample_variance(8, &sum_of(&values), &squares(&values)), 6.0);
    let negated = values.map(|value| -value);
    assert_eq!(sample_variance(8, &sum_of(&negated), &squares(&negated)), 6.0);
}

#[test]
fn the_variance_survives_a_mean_ten_million_times_the_deviation() {
    let values: Vec<f64> = (0..1000).map(|i| 1_048_576.0 + f64::from(i % 2) / 8.0).collect();
    let expected = (1000.0 / 999.0) / 256.0;
    let variance = sample_variance(1000, &sum_of(&values), &squares(&values));
    assert!((variance / expected - 1.0).abs() < 1e-15, "{variance} against {expected}");
}

#[test]
fn the_variance_of_extreme_scales_neither_overflows_nor_vanishes_on_the_way() {
    for scale in [1e150, 1e-150] {
        let values = vec![1.0 * scale, 3.0 * scale];
        let variance = sample_variance(2, &sum_of(&values), &squares(&values));
        let (expected, tolerance) = (2.0 * scale * scale, 1e-14);
        assert!((variance / expected - 1.0).abs() < tolerance, "{variance:e} against {expected:e}");
    }
    assert_eq!(sample_variance(4, &sum_of(&[0.0]), &ExactSum::new()), 0.0);
    assert!(sample_variance(1, &sum_of(&[1.0]), &squares(&[1.0])).is_nan());
    // Squares rounded down can leave less than nothing.
    let alike = [0.1, 0.1, 0.1];
    assert!(sample_variance(3, &sum_of(&alike), &squares(&alike)) >= 0.0);
}

#[test]
fn a_double_added_many_times_at_once_is_as_if_one_by_one() {
    for value in [0.1, -3.7e300, 5e-324, -0.0] {
        let (mut at_once, mut one_by_one) = (ExactSum::new(), ExactSum::new());
        at_once.add_times(value, 1000).unwrap();
        (0..1000).for_each(|_| one_by_one.add(value).unwrap());
        assert_eq!(at_once, one_by_one, "{value}");
    }
    let mut sum = ExactSum::new();
    sum.add_times(f64::MAX, u64::MAX).unwrap();
    sum.add_times(-f64::MAX, u64::MAX).unwrap();
    assert!(sum.is_zero() && sum.add_times(f64::NAN, 0).is_err());
}
