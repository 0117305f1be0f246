//! Whether what a process holds grows for ever. Owns the arithmetic; knows no process.

/// Fewest points that say anything.
const POINTS_MIN: usize = 16;

/// How numbers went over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    /// The median of the slopes between all pairs of points (Theil and Sen), which a few odd points do not move.
    pub(super) slope: f64,
    /// Medians of the four quarters of the time.
    pub(super) quarters: [f64; 4],
}

/// By how much something may be more at the end than at the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Of what it was.
    pub(super) part: f64,
    pub(super) least: f64,
}

impl Allowed {
    pub(super) fn of(self, first: f64) -> f64 {
        (self.part * first.abs()).max(self.least)
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    crate::report::median(&numbers)
}

impl Growth {
    /// *Order*: of the points, by time. Nothing where there are too few.
    pub(super) fn of(points: &[(f64, f64)]) -> Option<Growth> {
        if points.len() < POINTS_MIN {
            return None;
        }
        let mut slopes = Vec::new();
        for (at, (x0, y0)) in points.iter().enumerate() {
            slopes.extend(points[at + 1..].iter().filter(|(x, _)| x > x0).map(|(x, y)| (y - y0) / (x - x0)));
        }
        let quarter = |number: usize| {
            let part = &points[number * points.len() / 4..(number + 1) * points.len() / 4];
            median(part.iter().map(|(_, y)| *y).collect())
        };
        Some(Growth { slope: median(slopes), quarters: std::array::from_fn(quarter) })
    }

    /// It grew in every quarter, and by more than is allowed in all: what fills up once, or goes up and down, does not.
    pub(super) fn is_leak(&self, allowed: Allowed) -> bool {
        let [first, .., last] = self.quarters;
        self.quarters.is_sorted_by(|a, b| a < b) && last - first > allowed.of(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(of: impl Fn(f64) -> f64) -> Growth {
        let noise = |at: u32| f64::from(at.wrapping_mul(2_654_435_761) % 1_000) / 100.0;
        let points: Vec<_> = (0..200).map(|at| (f64::from(at), of(f64::from(at)) + noise(at))).collect();
        Growth::of(&points).unwrap()
    }

    #[test]
    fn what_grows_steadily_leaks_and_what_fills_up_or_swings_does_not() {
        let allowed = Allowed { part: 0.1, least: 50.0 };
        let leak = growth(|at| 1_000.0 + 2.0 * at);
        assert!((leak.slope - 2.0).abs() < 0.1, "{leak:?}");
        assert!(leak.is_leak(allowed));
        assert!(!growth(|at| 1_000.0 + 0.3 * at).is_leak(allowed), "it is less than a tenth");
        assert!(!growth(|at| 1_000.0 + 400.0 * (at / 20.0).min(1.0)).is_leak(allowed), "it fills up once");
        assert!(!growth(|at| 1_000.0 + 300.0 * (at % 60.0) / 60.0).is_leak(allowed), "it swings");
        assert!(!growth(|at| 1_000.0 - 3.0 * at).is_leak(allowed));
    }

    #[test]
    fn a_few_points_say_nothing() {
        assert_eq!(Growth::of(&[(0.0, 1.0); POINTS_MIN - 1]), None);
    }
}
