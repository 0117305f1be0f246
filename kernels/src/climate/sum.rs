//! A sum that carries the rounding of its additions along: twice the digits of a double.
//!
//! *Source*: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B (the exact error of an addition);
//! Ogita, Rump and Oishi (2005), algorithm Sum2.

/// A compensated sum. Its bits depend on the order of additions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    #[inline(always)]
    pub(super) fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.high, value);
        self.high = sum;
        self.low += error;
    }

    pub(super) fn value(&self) -> f64 {
        self.high + self.low
    }

    /// The sum divided by a count.
    pub(super) fn quotient(&self, count: f64) -> f64 {
        self.value() / count
    }
}

/// The rounded sum and what rounding took from it.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    let of_a = sum - of_b;
    (sum, (a - of_a) + (b - of_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plain_sum_loses_is_kept() {
        let mut sum = Sum::default();
        [1e16, 1.0, 1.0, -1e16, 0.5].into_iter().for_each(|value| sum.add(value));
        assert_eq!(sum.value(), 2.5);
    }
}
