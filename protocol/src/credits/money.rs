//! Amounts and prices, to the microcredit.

use alloc::string::String;
use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::spec::VerifyClass;

/// What a provider earns for a compute unit. *Units*: microcredits.
pub const RATE: i128 = 1;

/// A sum of millionths of a credit, or of compute units at one microcredit each. In documents a decimal string:
/// it can be larger than the integers that every reader of JSON carries exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microcredits(pub i128);

/// A text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMicrocreditsError;

impl fmt::Display for ParseMicrocreditsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an amount: expected a decimal integer without leading zeros, as in \"1250000\"")
    }
}

impl core::error::Error for ParseMicrocreditsError {}

impl fmt::Display for Microcredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Microcredits {
    type Err = ParseMicrocreditsError;
    fn from_str(text: &str) -> Result<Microcredits, ParseMicrocreditsError> {
        let amount: i128 = text.parse().map_err(|_| ParseMicrocreditsError)?;
        // One amount has one text, so that signed documents have one form.
        match alloc::format!("{amount}") == text {
            true => Ok(Microcredits(amount)),
            false => Err(ParseMicrocreditsError),
        }
    }
}

impl Serialize for Microcredits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Microcredits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Microcredits, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Add for Microcredits {
    type Output = Microcredits;
    fn add(self, other: Microcredits) -> Microcredits {
        Microcredits(self.0 + other.0)
    }
}

impl Sub for Microcredits {
    type Output = Microcredits;
    fn sub(self, other: Microcredits) -> Microcredits {
        Microcredits(self.0 - other.0)
    }
}

impl Neg for Microcredits {
    type Output = Microcredits;
    fn neg(self) -> Microcredits {
        Microcredits(-self.0)
    }
}

impl AddAssign for Microcredits {
    fn add_assign(&mut self, other: Microcredits) {
        self.0 += other.0;
    }
}

impl SubAssign for Microcredits {
    fn sub_assign(&mut self, other: Microcredits) {
        self.0 -= other.0;
    }
}

impl Sum for Microcredits {
    fn sum<I: Iterator<Item = Microcredits>>(amounts: I) -> Microcredits {
        amounts.fold(Microcredits(0), Microcredits::add)
    }
}

/// What a client pays for a compute unit. *Units*: hundredths of a microcredit.
pub fn class_percent(class: VerifyClass) -> u64 {
    match class {
        VerifyClass::Standard => 110,
        VerifyClass::Strict => 120,
        VerifyClass::Exact => 210,
    }
}

/// What a client pays for so many units, rounded up to the microcredit.
pub fn price(units: Microcredits, class: VerifyClass) -> Microcredits {
    let hundredths = units.0 * i128::from(class_percent(class));
    Microcredits(hundredths.div_euclid(100) + i128::from(hundredths.rem_euclid(100) > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_price_is_the_units_times_the_factor_of_the_class_rounded_up() {
        let prices = |units: i128| {
            [VerifyClass::Standard, VerifyClass::Strict, VerifyClass::Exact]
                .map(|class| price(Microcredits(units), class).0)
        };
        assert_eq!(prices(0), [0, 0, 0]);
        assert_eq!(prices(1), [2, 2, 3]);
        assert_eq!(prices(1_000), [1_100, 1_200, 2_100]);
        assert_eq!(prices(i128::from(u64::MAX))[2], (i128::from(u64::MAX) * 210 + 99) / 100);
    }

    #[test]
    fn an_amount_reads_back_and_has_one_text() {
        for amount in [0, 7, -7, i128::from(u64::MAX) * 2] {
            assert_eq!(Microcredits(amount).to_string().parse(), Ok(Microcredits(amount)));
        }
        for wrong in ["", "+1", "01", "-0", "1.0", " 1"] {
            assert_eq!(wrong.parse::<Microcredits>(), Err(ParseMicrocreditsError), "{wrong}");
        }
    }
}
