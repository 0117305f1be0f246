//! Latencies as high dynamic range histograms, and the percentiles that a report gives of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency told apart from longer ones. *Units*: nanoseconds (an hour).
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Latencies, each within a thousandth of what it was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency(Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are in order"))
    }
}

impl Latency {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.record_ns(latency.as_nanos().try_into().unwrap_or(u64::MAX), 1);
    }

    pub(crate) fn record_ns(&mut self, ns: u64, times: u64) {
        // What was recorded no times would still be the longest.
        if times > 0 {
            self.0.saturating_record_n(ns.max(1), times);
        }
    }

    pub(crate) fn add(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(self.0.value_at_quantile(quantile));
        Percentiles {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: us(self.0.max()),
        }
    }

    /// The share of latencies up to each of some of them, for a plot. *Order*: ascending.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = self.0.iter_quantiles(2);
        let curve =
            quantiles.map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1e3));
        curve.filter(|(quantile, _)| *quantile < 1.0).collect()
    }
}

/// *Units*: microseconds, but for the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many latencies there were.
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    /// With their names.
    pub(crate) fn named(&self) -> [(&'static str, f64); 5] {
        let Percentiles { count: _, p50, p90, p99, p99_9, max } = *self;
        [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p99_9), ("max", max)]
    }
}

/// A time in the unit that people read it in.
pub(crate) fn us_text(us: f64) -> String {
    match us {
        0.0 => "0 us".to_owned(),
        us if us < 1.0 => format!("{:.0} ns", us * 1e3),
        us if us < 10.0 => format!("{us:.2} us"),
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e4 => format!("{:.2} ms", us / 1e3),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_latencies_have_the_percentiles_that_they_have() {
        let mut latency = Latency::default();
        (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
        let Percentiles { count, p50, p90, p99, max, .. } = latency.percentiles();
        assert_eq!(count, 100);
        for (found, expected) in [(p50, 50e3), (p90, 90e3), (p99, 99e3), (max, 100e3)] {
            assert!((found / expected - 1.0).abs() < 2e-3, "{found} is not {expected}");
        }
    }

    #[test]
    fn a_latency_of_hours_counts_as_the_longest_and_of_nothing_as_the_shortest() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(1 << 20));
        latency.record(Duration::ZERO);
        assert_eq!(latency.count(), 2);
        assert!(latency.percentiles().max >= LONGEST_NS as f64 / 1e3 * 0.999);
    }
}
