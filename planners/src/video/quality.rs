//! The search for the largest CRF whose samples still reach a quality.
//!
//! Each round measures a few CRFs at once, so that agents have work, and leaves a quarter of the range. What
//! is chosen has been measured itself; nothing is interpolated.

use alloc::vec::Vec;

use tessera_protocol::spec::{QualitySpec, VideoParams};
use tessera_protocol::video::{Metric, Probed, SAMPLE_FRAMES_MAX, VideoCodec, crf_range};

/// CRFs that one round measures.
const PER_ROUND: u32 = 3;

/// What was measured at one CRF.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tried {
    pub(super) crf: u32,
    /// *Units*: millionths.
    pub(super) score: u64,
    /// Of its samples.
    pub(super) bytes: u64,
}

/// A search that goes on until the best CRF is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Search {
    metric: Metric,
    /// *Units*: millionths.
    target: u64,
    best: u32,
    /// One past the largest CRF known to reach the target.
    low: u32,
    /// The smallest CRF known not to, or one past the largest allowed.
    high: u32,
    pub(super) tried: Vec<Tried>,
}

impl Search {
    pub(super) fn new(quality: &QualitySpec, codec: VideoCodec) -> Search {
        let [best, worst] = crf_range(quality, codec);
        // At most 100 millions; a target between two millionths is reached by the upper one.
        let scaled = quality.target * 1e6;
        let whole = scaled as u64;
        let target = if whole as f64 == scaled { whole } else { whole + 1 };
        Search { metric: quality.metric, target, best, low: best, high: worst + 1, tried: Vec::new() }
    }

    pub(super) fn metric(&self) -> Metric {
        self.metric
    }

    /// What to measure next, ascending; nothing when the search is over.
    pub(super) fn crfs(&self) -> Option<Vec<u32>> {
        let left = self.high.checked_sub(self.low).filter(|left| *left > 0)?;
        let count = left.min(PER_ROUND);
        Some((1..=count).map(|point| self.low + (left + 1) * point / (count + 1) - 1).collect())
    }

    /// Takes the probes of a round, sample by sample; nothing where they are not of such a round.
    pub(super) fn absorb(&mut self, crfs: &[u32], probes: &[Probed]) -> Option<()> {
        if probes.is_empty() || !probes.len().is_multiple_of(crfs.len()) {
            return None;
        }
        let mut failed = false;
        for (position, crf) in crfs.iter().enumerate() {
            let of_crf = || probes.iter().skip(position).step_by(crfs.len());
            let frames: u64 = of_crf().map(|probe| u64::from(probe.frames)).sum();
            let sum = of_crf().try_fold(0_u64, |sum, probe| sum.checked_add(probe.score_sum))?;
            let score = sum.checked_div(frames)?;
            let bytes = of_crf().try_fold(0_u64, |sum, probe| sum.checked_add(probe.bytes))?;
            self.tried.push(Tried { crf: *crf, score, bytes });
            // Quality falls as CRF rises; where it does not, the first that fails ends the range.
            match (score >= self.target, failed) {
                (true, false) => self.low = crf + 1,
                (false, false) => (self.high, failed) = (*crf, true),
                (_, true) => {}
            }
        }
        Some(())
    }

    /// The CRF to encode with once the search is over; the best allowed where none reaches the target.
    pub(super) fn chosen(&self) -> u32 {
        self.low.saturating_sub(1).max(self.best)
    }

    /// What was measured at the chosen CRF.
    pub(super) fn measured(&self) -> Option<&Tried> {
        self.tried.iter().find(|tried| tried.crf == self.chosen())
    }

    /// Whether the chosen CRF reaches the target.
    pub(super) fn reached(&self) -> bool {
        self.measured().is_some_and(|tried| tried.score >= self.target)
    }
}

/// First frame and number of frames of each sample: segments evenly spread, the beginning of each.
pub(super) fn samples(params: &VideoParams, frames: u64) -> Vec<[u64; 2]> {
    let size = u64::from(params.frames_of_segment());
    let segments = frames.div_ceil(size);
    let wanted = params.quality.as_ref().map_or(0, |quality| u64::from(quality.samples)).min(segments);
    let sample = |position: u64| {
        // The middle of each of so many equal stretches.
        let first = (segments * (2 * position + 1) / (2 * wanted)) * size;
        [first, (frames - first).min(size).min(u64::from(SAMPLE_FRAMES_MAX))]
    };
    (0..wanted).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where quality is a function of CRF.
    fn search(target: f64, score: impl Fn(u32) -> u64) -> (Search, usize) {
        let quality = QualitySpec { metric: Metric::Ssim, target, samples: 2, crf_min: None, crf_max: None };
        let mut search = Search::new(&quality, VideoCodec::H264);
        let mut rounds = 0;
        while let Some(crfs) = search.crfs() {
            assert!(crfs.is_sorted_by(|a, b| a < b));
            let probe = |crf: &u32| Probed { score_sum: 10 * score(*crf), frames: 10, bytes: 100 };
            let probes: Vec<Probed> = (0..2).flat_map(|_| crfs.iter().map(probe)).collect();
            search.absorb(&crfs, &probes).unwrap();
            rounds += 1;
        }
        (search, rounds)
    }

    #[test]
    fn the_largest_crf_that_reaches_the_target_is_found_wherever_it_lies() {
        for best in 12..=40 {
            let (search, rounds) = search(0.95, |crf| if crf <= best { 950_000 } else { 949_999 });
            assert_eq!((search.chosen(), search.reached()), (best, true));
            assert!(rounds <= 3, "{rounds} rounds");
        }
    }

    #[test]
    fn a_target_out_of_reach_gives_the_best_quality_allowed_and_says_so() {
        let (search, _) = search(0.999, |crf| 990_000 - u64::from(crf));
        assert_eq!((search.chosen(), search.reached()), (12, false));
        assert_eq!(search.measured().map(|tried| tried.crf), Some(12));
    }

    #[test]
    fn probes_that_are_not_of_the_round_are_refused() {
        let quality =
            QualitySpec { metric: Metric::Vmaf, target: 95.0, samples: 1, crf_min: None, crf_max: None };
        let mut search = Search::new(&quality, VideoCodec::Av1);
        let none = Probed { score_sum: 0, frames: 0, bytes: 0 };
        assert_eq!(search.absorb(&[20, 30], &[]), None);
        assert_eq!(search.absorb(&[20, 30], &[none]), None);
        assert_eq!(search.absorb(&[20], &[none]), None);
    }
}
