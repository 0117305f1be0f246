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
    /// Contracts on the same underlying see the same paths.
    pub underlying: String,
    /// What it pays.
    pub kind: ContractKind,
    /// Price of the underlying now.
    pub spot: f64,
    /// Strike.
    pub strike: f64,
    /// Risk-free rate.
    pub rate: f64,
    /// Dividend yield.
    #[serde(default)]
    pub dividend: f64,
    /// Volatility per square root of a year.
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
}

fn one() -> f64 {
    1.0
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
