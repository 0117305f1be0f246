//! One contract of a book, as a client writes it: flat, so that a CSV row and a JSON object are the same.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A contract on one underlying. Times are years from now, rates continuously compounded per year.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractSpec {
    /// The name its results carry; unique in the book.
    pub id: String,
    /// Contracts on the same underlying see the same paths. Baskets have none of their own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub underlying: String,
    /// What it pays.
    pub kind: ContractKind,
    /// Price of the underlying now; absent for baskets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spot: f64,
    /// Strike.
    pub strike: f64,
    /// Risk-free rate.
    pub rate: f64,
    /// Dividend yield.
    #[serde(default)]
    pub dividend: f64,
    /// Volatility per square root of a year; absent for baskets and under `heston`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volatility: f64,
    /// Years to expiry.
    pub expiry: f64,
    /// How many are held; negative when sold.
    #[serde(default = "one")]
    pub quantity: f64,
    /// Dates of an Asian average.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixings: Vec<f64>,
    /// Level of a down-and-out barrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<f64>,
    /// When the barrier is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<MonitoringSpec>,
    /// What a digital pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout: Option<f64>,
    /// What a basket holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub basket: Vec<BasketPart>,
    /// When an American contract may be exercised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exercise: Option<ExerciseSpec>,
}

fn one() -> f64 {
    1.0
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// One underlying of a basket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasketPart {
    /// Its name in the job's `underlyings`.
    pub underlying: String,
    /// How much of it; negative for the other leg of a spread.
    pub weight: f64,
}

/// The kinds of contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractKind {
    /// `max(S - K, 0)` at expiry.
    EuropeanCall,
    /// `max(K - S, 0)` at expiry.
    EuropeanPut,
    /// `max(A - K, 0)`, `A` the arithmetic mean over the fixings.
    AsianCall,
    /// `max(K - A, 0)`.
    AsianPut,
    /// A call that dies at or below the barrier.
    DownAndOutCall,
    /// A put that dies at or below the barrier.
    DownAndOutPut,
    /// A payout when `S > K`.
    DigitalCall,
    /// A payout when `S < K`.
    DigitalPut,
    /// `max(B - K, 0)`, `B` the weighted sum of the basket's prices at expiry.
    BasketCall,
    /// `max(K - B, 0)`.
    BasketPut,
    /// A call that may be exercised on several dates.
    AmericanCall,
    /// A put that may be exercised on several dates.
    AmericanPut,
}

impl ContractKind {
    /// On several underlyings.
    pub fn is_basket(self) -> bool {
        matches!(self, ContractKind::BasketCall | ContractKind::BasketPut)
    }

    /// Exercised when its holder likes.
    pub fn is_american(self) -> bool {
        matches!(self, ContractKind::AmericanCall | ContractKind::AmericanPut)
    }
}

/// When an American contract may be exercised: so many dates at equal distances up to the expiry, or these
/// dates and the expiry.
#[derive(Clone, Debug, PartialEq)]
pub enum ExerciseSpec {
    /// `expiry · k / count` for `k` from one to the count.
    Count(u32),
    /// On these dates and at expiry.
    Dates(Vec<f64>),
}

impl ContractSpec {
    /// Every date on which an American contract may be exercised, the expiry last; none for others.
    pub fn exercise_dates(&self) -> Vec<f64> {
        match &self.exercise {
            None => Vec::new(),
            Some(ExerciseSpec::Count(count)) => (1..=*count)
                .map(|nth| {
                    if nth == *count { self.expiry } else { self.expiry * f64::from(nth) / f64::from(*count) }
                })
                .collect(),
            Some(ExerciseSpec::Dates(dates)) => {
                let before = dates.iter().copied().filter(|date| *date < self.expiry);
                before.chain([self.expiry]).collect()
            }
        }
    }

    /// Every date on which the contract looks at its underlying, the expiry last.
    pub fn dates(&self) -> Vec<f64> {
        let monitored: &[f64] = match &self.monitoring {
            Some(MonitoringSpec::Dates(dates)) => dates,
            Some(MonitoringSpec::Continuous) | None => &[],
        };
        let looks = self.fixings.iter().chain(monitored).copied().chain(self.exercise_dates());
        looks.filter(|date| *date != self.expiry).chain([self.expiry]).collect()
    }

    /// The underlyings it looks at.
    pub fn underlyings(&self) -> impl Iterator<Item = &str> {
        let own = (!self.kind.is_basket()).then_some(self.underlying.as_str());
        own.into_iter().chain(self.basket.iter().map(|part| part.underlying.as_str()))
    }
}

impl Serialize for ExerciseSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ExerciseSpec::Count(count) => count.serialize(serializer),
            ExerciseSpec::Dates(dates) => dates.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ExerciseSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ExerciseSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of dates or a list of dates in years")
            }
            fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<ExerciseSpec, E> {
                let wrong = |_| E::invalid_value(serde::de::Unexpected::Unsigned(count), &self);
                u32::try_from(count).map(ExerciseSpec::Count).map_err(wrong)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<ExerciseSpec, A::Error> {
                let mut dates = Vec::new();
                while let Some(date) = items.next_element()? {
                    dates.push(date);
                }
                Ok(ExerciseSpec::Dates(dates))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// When a barrier is looked at: the word `continuous`, or dates in years.
#[derive(Clone, Debug, PartialEq)]
pub enum MonitoringSpec {
    /// Always.
    Continuous,
    /// On these dates.
    Dates(Vec<f64>),
}

impl Serialize for MonitoringSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            MonitoringSpec::Continuous => serializer.serialize_str("continuous"),
            MonitoringSpec::Dates(dates) => dates.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MonitoringSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = MonitoringSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"continuous\" or a list of dates in years")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MonitoringSpec, E> {
                match text {
                    "continuous" => Ok(MonitoringSpec::Continuous),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<MonitoringSpec, A::Error> {
                let mut dates = Vec::new();
                while let Some(date) = items.next_element()? {
                    dates.push(date);
                }
                Ok(MonitoringSpec::Dates(dates))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
