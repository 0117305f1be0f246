//! From wind to loss: what share of a value breaks, and what of it is paid.
//!
//! Owns damage functions and policy terms of one point. It may not know storms or sums.

/// Which share of a value is lost at a wind.
#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    /// `x³ / (1 + x³)` with `x = (v − threshold) / (half − threshold)`. *Units*: m/s.
    ///
    /// *Source*: Emanuel (2011), Weather, Climate, and Society 3, 261–268, equations 1 and 2.
    Emanuel {
        /// Nothing breaks below.
        threshold: f64,
        /// Half is lost.
        half: f64,
    },
    /// Straight lines between points; nothing below the first, the last share above the last.
    Points {
        /// *Order*: ascending. *Units*: m/s.
        winds: Vec<f64>,
        /// *Order*: not descending, from 0 to 1.
        shares: Vec<f64>,
    },
}

impl Curve {
    /// The share lost, from 0 to 1.
    pub fn share(&self, wind: f64) -> f64 {
        match self {
            Curve::Emanuel { threshold, half } => emanuel(wind, *threshold, *half),
            Curve::Points { winds, shares } => between(wind, winds, shares),
        }
    }
}

#[inline(always)]
fn emanuel(wind: f64, threshold: f64, half: f64) -> f64 {
    let above = wind - threshold;
    let x = if above > 0.0 { above / (half - threshold) } else { 0.0 };
    let cube = x * x * x;
    cube / (1.0 + cube)
}

fn between(wind: f64, winds: &[f64], shares: &[f64]) -> f64 {
    // The first point above the wind.
    let next = winds.partition_point(|at| *at <= wind);
    if next == 0 {
        return 0.0;
    }
    let (low, at) = (shares[next - 1], winds[next - 1]);
    match (winds.get(next), shares.get(next)) {
        (Some(end), Some(high)) => ((wind - at) / (end - at)).mul_add(high - low, low),
        _ => low,
    }
}

/// What is paid of a loss: what exceeds the deductible, up to the limit.
#[inline(always)]
pub fn paid(loss: f64, deductible: f64, limit: f64) -> f64 {
    let above = loss - deductible;
    let above = if above > 0.0 { above } else { 0.0 };
    if above < limit { above } else { limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_zero_below_its_first_point_straight_between_and_flat_above() {
        let curve = Curve::Points { winds: vec![20.0, 40.0, 60.0], shares: vec![0.1, 0.2, 0.8] };
        let at = [0.0, 19.9, 20.0, 30.0, 40.0, 50.0, 60.0, 90.0].map(|wind| curve.share(wind));
        let expected = [0.0, 0.0, 0.1, 0.15, 0.2, 0.5, 0.8, 0.8];
        assert!(at.iter().zip(expected).all(|(at, expected)| (at - expected).abs() < 1e-15), "{at:?}");
    }

    #[test]
    fn half_is_lost_at_the_wind_that_is_named_for_it() {
        let curve = Curve::Emanuel { threshold: 25.7, half: 74.7 };
        assert_eq!([0.0, 25.7, 74.7].map(|wind| curve.share(wind)), [0.0, 0.0, 0.5]);
    }

    #[test]
    fn what_is_paid_lies_between_the_deductible_and_the_limit() {
        assert_eq!(
            [0.0, 10.0, 15.0, 30.0, 99.0].map(|loss| paid(loss, 10.0, 20.0)),
            [0.0, 0.0, 5.0, 20.0, 20.0]
        );
        assert_eq!(paid(5.0, 0.0, f64::INFINITY), 5.0);
    }
}
