//! Years drawn from an event table: how many storms each has, which, and what they cost together.
//!
//! Owns the order of draws. Year `y` is a function of the key, `y` and the table alone.

use crate::elementary::exp;
use crate::philox::Schedule;

/// Philox stream of years.
const STREAM: u32 = 0xcafe_0002;
/// Most storms a year in the mean: the exponential of minus it is still a normal number.
pub(super) const RATE_MAX: f64 = 500.0;
/// Years between two questions whether to stop.
const STRIDE: u32 = 1 << 12;

/// Losses of years, each list in the order of the years.
pub(super) struct Years {
    /// Of the largest event of each.
    pub(super) largest: Vec<f64>,
    /// Of all events of each.
    pub(super) total: Vec<f64>,
}

/// Draws years. Storms come as Poisson events of the given rates; each sample of a storm is as likely as the other.
/// `losses` are those of all events, storm by storm. Nothing when told to stop.
pub(super) fn draw(
    key: [u32; 2],
    years: u32,
    rates: &[f64],
    losses: &[f64],
    cancelled: &dyn Fn() -> bool,
) -> Option<Years> {
    let schedule = Schedule::new(key);
    let samples = losses.len() / rates.len();
    let mut sum = 0.0;
    let up_to: Vec<f64> = rates
        .iter()
        .map(|rate| {
            sum += rate;
            sum
        })
        .collect();
    let none = exp(-sum);
    let mut drawn = Years { largest: Vec::new(), total: Vec::new() };
    for year in 0..years {
        if year % STRIDE == 0 && cancelled() {
            return None;
        }
        let [first, _] = schedule.block(year.into(), 0, STREAM);
        let (mut largest, mut total) = (0.0, 0.0);
        for occurrence in 0..poisson(uniform(first), sum, none) {
            let [which, sample] = schedule.block(year.into(), 1 + occurrence, STREAM).map(uniform);
            // Rounding may lead past the last.
            let storm = up_to.partition_point(|sum_to| *sum_to <= which * sum).min(rates.len() - 1);
            let sample = ((sample * samples as f64) as usize).min(samples - 1);
            let loss = losses[storm * samples + sample];
            largest = if loss > largest { loss } else { largest };
            total += loss;
        }
        drawn.largest.push(largest);
        drawn.total.push(total);
    }
    Some(drawn)
}

/// `(k + ½) 2⁻⁵²` with `k` the top 52 bits: exact, never zero or one.
fn uniform(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) * (f64::EPSILON)
}

/// The smallest count whose cumulative probability is above `uniform`; `none` is that of zero.
fn poisson(uniform: f64, mean: f64, none: f64) -> u32 {
    let (mut count, mut probability, mut cumulative) = (0u32, none, none);
    // Far above the mean probabilities vanish before the sum reaches the last uniforms.
    while cumulative <= uniform && (probability > 0.0 || f64::from(count) < mean) {
        count += 1;
        probability *= mean / f64::from(count);
        cumulative += probability;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_storms_have_the_mean_and_the_variance_of_their_law() {
        for mean in [0.1, 3.0, 40.0, 400.0] {
            let schedule = Schedule::new([3, 4]);
            let counts: Vec<f64> = (0..40_000u64)
                .map(|year| f64::from(poisson(uniform(schedule.block(year, 0, 9)[0]), mean, exp(-mean))))
                .collect();
            let n = counts.len() as f64;
            let average = counts.iter().sum::<f64>() / n;
            let variance = counts.iter().map(|count| (count - average) * (count - average)).sum::<f64>() / n;
            // Five standard errors; the variance's is about mean · √(2 / n) and more where the mean is small.
            assert!((average - mean).abs() < 5.0 * (mean / n).sqrt(), "{mean}: {average}");
            assert!(
                (variance - mean).abs() < 5.0 * ((2.0 * mean * mean + mean) / n).sqrt(),
                "{mean}: {variance}"
            );
        }
    }

    #[test]
    fn storms_and_samples_come_as_often_as_their_rates_say() {
        // Three storms of two samples; losses name the event.
        let (rates, losses) = ([0.5, 0.0, 1.5], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let years = draw([5, 6], 50_000, &rates, &losses, &|| false).expect("not cancelled");
        let mean = years.total.iter().sum::<f64>() / 50_000.0;
        let expected = 0.5 * 1.5 + 1.5 * 5.5;
        let deviation = (0.5 * 2.5 + 1.5 * 30.5f64).sqrt();
        assert!((mean - expected).abs() < 5.0 * deviation / 50_000f64.sqrt(), "{mean} for {expected}");
        assert!(years.largest.iter().all(|loss| [0.0, 1.0, 2.0, 5.0, 6.0].contains(loss)));
        assert!(draw([5, 6], 1, &rates, &losses, &|| true).is_none());
        // The first years of many are the years of few.
        let fewer = draw([5, 6], 100, &rates, &losses, &|| false).expect("not cancelled");
        assert_eq!(fewer.total, years.total[..100]);
    }

    #[test]
    fn the_means_of_many_seeds_scatter_as_their_standard_error_says() {
        let (rates, losses) = ([0.02, 0.01], [0.0, 3.0, 40.0, 5.0, 16.0, 1.0]);
        let expected = 0.02 * (43.0 / 3.0) + 0.01 * (22.0 / 3.0);
        let variance = 0.02 * (1609.0 / 3.0) + 0.01 * (282.0 / 3.0);
        let scores: Vec<f64> = (0..100)
            .map(|seed| {
                let years = draw([seed, 1], 4_000, &rates, &losses, &|| false).expect("not cancelled");
                (years.total.iter().sum::<f64>() / 4_000.0 - expected) / (variance / 4_000.0f64).sqrt()
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / 100.0;
        let square = scores.iter().map(|score| score * score).sum::<f64>() / 100.0;
        assert!(mean.abs() < 0.4 && (0.5..1.6).contains(&square), "{mean}, {square}");
    }
}
