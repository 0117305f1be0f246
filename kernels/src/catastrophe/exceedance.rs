//! How often a loss is exceeded: order statistics of years drawn, their bounds, and the exact curve of an event table.
//!
//! Owns ranks. A rank counts from the largest, from one: the loss of rank `k` of `n` years has return period `n / k`.

use tessera_protocol::catastrophe::Bounded;

use crate::elementary::log1p;

/// What the bounds leave out on either side: together they hold the quantile in 95 % of all cases.
const TAIL: f64 = 0.025;
/// Ranks of a curve that are all shown; beyond, they grow by a fiftieth.
const DENSE: usize = 100;

/// Losses from the largest down.
pub(super) fn descending(mut losses: Vec<f64>) -> Vec<f64> {
    losses.sort_unstable_by(|a, b| b.total_cmp(a));
    losses
}

/// The loss of a return period with its bounds. `losses` descend, one a year.
///
/// The number of years beyond the true quantile is binomial, so that order statistics bound it whatever the losses'
/// law. *Source*: David and Nagaraja, Order Statistics (2003), section 7.1.
pub(super) fn at(losses: &[f64], years: f64) -> Bounded {
    let count = losses.len();
    let rank = (count as f64 / years) as usize;
    let (high, low) = ranks(count, 1.0 / years);
    Bounded {
        loss: losses.get(rank.max(1) - 1).copied().unwrap_or_default(),
        low: low.and_then(|rank| losses.get(rank - 1)).copied().unwrap_or_default(),
        high: high.and_then(|rank| losses.get(rank - 1)).copied(),
    }
}

/// Ranks of the upper and the lower bound; nothing where no rank is far enough out.
fn ranks(count: usize, probability: f64) -> (Option<usize>, Option<usize>) {
    // Binomial weights from the most likely number outwards, as far as they matter, not yet divided by their sum.
    let odds = probability / (1.0 - probability);
    let mode = ((count as f64 + 1.0) * probability) as usize;
    let mode = mode.min(count);
    let mut up = vec![1.0];
    for number in mode..count {
        let weight = up[up.len() - 1] * odds * ((count - number) as f64 / (number + 1) as f64);
        if weight < 1e-20 {
            break;
        }
        up.push(weight);
    }
    let mut down = Vec::new();
    let mut weight = 1.0;
    for number in (1..=mode).rev() {
        weight *= number as f64 / ((count - number + 1) as f64 * odds);
        if weight < 1e-20 {
            break;
        }
        down.push(weight);
    }
    let first = mode - down.len();
    let weights: Vec<f64> = down.into_iter().rev().chain(up).collect();
    let sum: f64 = weights.iter().sum();
    // The loss of rank j lies above the quantile unless fewer than j years do.
    let (mut high, mut low, mut below) = (None, None, 0.0);
    for (number, weight) in (first..).zip(weights) {
        // Here `below` is the probability of fewer than `number` years.
        if number > 0 && below <= TAIL * sum {
            high = Some(number);
        }
        below += weight;
        if low.is_none() && below >= (1.0 - TAIL) * sum {
            low = Some(number + 1).filter(|rank| *rank <= count);
        }
    }
    (high, low)
}

/// Ranks of a curve's points.
pub(super) fn curve_ranks(count: usize) -> Vec<usize> {
    let mut ranks: Vec<usize> = (1..=count.min(DENSE)).collect();
    let mut next = DENSE + DENSE / 50;
    while next < count {
        ranks.push(next);
        next += next / 50;
    }
    ranks
}

/// The loss that the largest event of a year exceeds once in so many years, from rates and losses alone: the events
/// beyond it come, together, `−ln(1 − 1/T)` times a year.
///
/// `events` are rates and losses, by descending losses.
pub(super) fn exact(events: &[(f64, f64)], years: f64) -> f64 {
    let wanted = -log1p(-1.0 / years);
    let mut rate = 0.0;
    for (of_event, loss) in events {
        rate += of_event;
        if rate >= wanted {
            return *loss;
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_bounds_are_those_of_the_binomial_law() {
        // Of 1,000 years, at most 3 lie beyond with probability 0.0101, 4 with 0.0287, 16 with 0.9736, 17 with 0.9862:
        // the upper bound is the 4th largest and the lower one the 18th.
        assert_eq!(ranks(1000, 0.01), (Some(4), Some(18)));
        // Ten years say nothing about the thousand-year loss from above: 0.999^10 = 0.990.
        assert_eq!(ranks(10, 0.001), (None, Some(1)));
        // Ten tosses: at most 1 with 0.0107, 2 with 0.0547, 7 with 0.9453, 8 with 0.9893.
        assert_eq!(ranks(10, 0.5), (Some(2), Some(9)));
    }

    #[test]
    fn bounds_hold_the_quantile_in_about_95_of_100_cases() {
        let schedule = crate::philox::Schedule::new([1, 2]);
        let mut held = 0;
        for trial in 0..400u32 {
            let years = (0..500u64)
                .map(|year| (schedule.block(year, trial, 3)[0] >> 11) as f64 / (1u64 << 53) as f64);
            let Bounded { low, high, .. } = at(&descending(years.collect()), 50.0);
            held += u32::from(low <= 0.98 && high.is_some_and(|high| high >= 0.98));
        }
        assert!((370..=398).contains(&held), "{held} of 400");
    }

    #[test]
    fn the_exact_curve_is_the_law_of_the_largest_of_poisson_events() {
        // Beyond 5 come events at 0.01 a year, beyond 1 at 0.11: 1 − exp(−0.01) = 1 / 100.5, 1 − exp(−0.11) = 1 / 9.6.
        let events = [(0.004, 9.0), (0.006, 7.0), (0.1, 5.0)];
        assert_eq!(
            [150.0, 100.6, 100.4, 9.7, 9.5].map(|years| exact(&events, years)),
            [7.0, 7.0, 5.0, 5.0, 0.0]
        );
    }

    #[test]
    fn a_curve_has_every_extreme_year_and_a_few_hundred_others() {
        let ranks = curve_ranks(100_000);
        assert_eq!(ranks[..100], (1..=100).collect::<Vec<_>>());
        assert!(
            ranks.windows(2).all(|pair| pair[0] < pair[1])
                && ranks.len() < 500
                && ranks[ranks.len() - 1] < 100_000
        );
        assert_eq!(curve_ranks(3), [1, 2, 3]);
    }
}
