//! A number as the unevaluated sum of two doubles: about 106 bits.
//!
//! Owns the error-free transformations that the functions round their last sum with. It may not decide
//! anything: every operation here is exact or says how far it is off.
//! *Source*: T. Dekker, "A floating-point technique for extending the available precision", 1971;
//! D. Knuth, TAOCP volume 2, 4.2.2.

/// `high + low`, the second no more than an ulp or so of the first.
#[derive(Clone, Copy)]
pub(super) struct Double {
    pub(super) high: f64,
    pub(super) low: f64,
}

/// `a + b`, exact.
#[inline(always)]
pub(super) fn sum(a: f64, b: f64) -> Double {
    let high = a + b;
    let virtual_b = high - a;
    Double { high, low: (a - (high - virtual_b)) + (b - virtual_b) }
}

/// `large + small`, exact when `large` is zero or not the smaller in size.
#[inline(always)]
pub(super) fn ordered_sum(large: f64, small: f64) -> Double {
    let high = large + small;
    Double { high, low: small - (high - large) }
}

/// `a b`, exact unless the low half is subnormal.
#[inline(always)]
pub(super) fn product(a: f64, b: f64) -> Double {
    let high = a * b;
    Double { high, low: a.mul_add(b, -high) }
}

impl Double {
    /// Rounded to one double.
    #[inline(always)]
    pub(super) fn value(self) -> f64 {
        self.high + self.low
    }

    /// The product, off by about 2⁻¹⁰⁴ of it.
    #[inline(always)]
    pub(super) fn times(self, other: Double) -> Double {
        let Double { high, low } = product(self.high, other.high);
        Double { high, low: self.low.mul_add(other.high, self.high.mul_add(other.low, low)) }
    }

    /// `self / other`, off by about 2⁻¹⁰³ of it, given `inverse` close to `1 / other.high`.
    #[inline(always)]
    pub(super) fn over(self, other: Double, inverse: f64) -> Double {
        let high = self.high * inverse;
        let rest = (-high).mul_add(other.high, self.high) + (-high).mul_add(other.low, self.low);
        Double { high, low: rest * inverse }
    }

    /// With the sign of `sign` for a positive number; turned round for a negative one.
    #[inline(always)]
    pub(super) fn times_sign_of(self, sign: f64) -> Double {
        let bit = sign.to_bits() & 1 << 63;
        let flip = |x: f64| f64::from_bits(x.to_bits() ^ bit);
        Double { high: flip(self.high), low: flip(self.low) }
    }
}
