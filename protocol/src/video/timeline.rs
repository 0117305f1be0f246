//! When each frame of a source is shown, and which of them a range of output frames is made from.

use alloc::vec::Vec;
use core::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use super::{FRAMES_MAX, is_clock};

/// When each frame of a source is shown.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// Seconds of a tick, as a fraction.
    pub time_base: [u32; 2],
    /// Of each frame, strictly ascending. *Units*: ticks.
    pub pts: Vec<i64>,
    /// When the last frame ends. *Units*: ticks.
    pub end: i64,
}

/// The frames of a source that a range of output frames is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Time stamp of the first. *Units*: ticks of the source.
    pub start: i64,
    /// The time stamp before which all of them lie; nothing where the source ends with them.
    pub end: Option<i64>,
    /// How many.
    pub frames: u64,
}

/// A time line that no source can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineError;

impl fmt::Display for TimelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time stamps of the survey do not read as its kernel writes them")
    }
}

impl core::error::Error for TimelineError {}

/// `a · b / c` to the nearest whole number, halves away from zero. *Source*: `av_rescale_rnd`, by which the
/// encoder's own rounding goes.
pub(crate) fn rescale(a: i64, b: u64, c: u64) -> i64 {
    let (product, c) = (i128::from(a) * i128::from(b), i128::from(c.max(1)));
    let rounded = (product.abs() + c / 2) / c;
    let signed = if product < 0 { -rounded } else { rounded };
    // Time stamps that far from zero are refused when they are read.
    i64::try_from(signed).unwrap_or(i64::MAX)
}

impl Timeline {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back is in order.
    pub fn decode(bytes: &[u8]) -> Result<Timeline, TimelineError> {
        let timeline =
            rkyv::from_bytes::<Timeline, rkyv::rancor::Failure>(bytes).map_err(|_| TimelineError)?;
        if timeline.is_sound() { Ok(timeline) } else { Err(TimelineError) }
    }

    /// Whether its frames follow each other.
    pub fn is_sound(&self) -> bool {
        let bounded = |pts: &i64| pts.unsigned_abs() < 1 << 52;
        is_clock(self.time_base)
            && !self.pts.is_empty()
            && self.pts.len() as u64 <= FRAMES_MAX
            && self.pts.iter().chain([&self.end]).all(bounded)
            && self.pts.iter().zip(self.pts.iter().skip(1).chain([&self.end])).all(|(a, b)| a < b)
    }

    /// When the first frame is shown. *Units*: ticks.
    pub fn origin(&self) -> i64 {
        self.pts.first().copied().unwrap_or_default()
    }

    /// Where a time stamp lies among frames that come at a rate from the first frame on.
    fn slot(&self, pts: i64, [above, below]: [u32; 2]) -> i64 {
        let [tick, second] = self.time_base.map(u64::from);
        rescale(pts - self.origin(), tick * u64::from(above), second * u64::from(below))
    }

    /// Frames of the output, at the source's own times or at a rate.
    pub fn frames(&self, rate: Option<[u32; 2]>) -> u64 {
        match rate {
            None => self.pts.len() as u64,
            Some(rate) => self.slot(self.end, rate).max(1).unsigned_abs(),
        }
    }

    /// What output frames `first .. first + count` are made from; nothing where there are no such frames.
    ///
    /// At a rate, output frame k shows the last source frame whose slot is k or earlier. The first source
    /// frame after the range is part of the cut then: it says how long the one before is shown.
    pub fn cut(&self, rate: Option<[u32; 2]>, first: u64, count: u64) -> Option<Cut> {
        let end = first.checked_add(count)?;
        if count == 0 || end > self.frames(rate) {
            return None;
        }
        let (from, to) = match rate {
            None => (first as usize, end as usize),
            Some(rate) => {
                let [first, end] = [i64::try_from(first).ok()?, i64::try_from(end).ok()?];
                let from = self.pts.partition_point(|pts| self.slot(*pts, rate) <= first) - 1;
                let after = self.pts.partition_point(|pts| self.slot(*pts, rate) < end);
                (from, (after + 1).min(self.pts.len()))
            }
        };
        let start = *self.pts.get(from)?;
        Some(Cut { start, end: self.pts.get(to).copied(), frames: to.checked_sub(from)? as u64 })
    }

    /// Whether the last frames of a range at a rate repeat the source's last frame.
    pub fn needs_padding(&self, rate: [u32; 2], first: u64, count: u64) -> bool {
        let last = self.pts.last().map_or(0, |pts| self.slot(*pts, rate));
        i64::try_from(first + count).is_ok_and(|end| last < end)
    }

    /// Time stamps of output frames, counted from the first frame of the output. *Units*: `ticks` to a tick
    /// of the output's clock.
    pub fn output_pts(&self, rate: Option<[u32; 2]>, first: u64, count: u64, ticks: u32) -> Vec<i64> {
        (first..first + count)
            .map_while(|frame| match rate {
                None => self.pts.get(frame as usize).map(|pts| (pts - self.origin()) * i64::from(ticks)),
                Some(_) => Some(frame as i64 * i64::from(ticks)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn every(step: i64, frames: i64) -> Timeline {
        let pts = (0..frames).map(|frame| 1_000 + frame * step).collect();
        Timeline { time_base: [1, 25_000], pts, end: 1_000 + frames * step }
    }

    #[test]
    fn a_time_line_reads_back_and_one_out_of_order_is_refused() {
        let right = every(1_000, 10);
        assert_eq!(Timeline::decode(&right.encode()), Ok(right.clone()));
        let twice = Timeline { pts: vec![0, 0], ..right.clone() };
        let early = Timeline { end: 10_000, ..right.clone() };
        let none = Timeline { pts: vec![], ..right.clone() };
        let still = Timeline { time_base: [0, 1], ..right };
        for wrong in [twice, early, none, still] {
            assert_eq!(Timeline::decode(&wrong.encode()), Err(TimelineError));
        }
    }

    #[test]
    fn the_segments_of_a_source_hold_every_frame_once() {
        let line = every(1_000, 25);
        let mut frames = 0;
        let mut next = Some(line.origin());
        for first in (0..25).step_by(10) {
            let cut = line.cut(None, first, (25 - first).min(10)).unwrap();
            assert_eq!(Some(cut.start), next);
            (frames, next) = (frames + cut.frames, cut.end);
        }
        assert_eq!((frames, next), (25, None));
        assert_eq!(line.cut(None, 20, 6), None);
    }

    #[test]
    fn at_another_rate_each_output_frame_shows_the_last_source_frame_that_has_begun() {
        // Twice as many frames: each is shown twice.
        let line = every(1_000, 25);
        let rate = Some([50, 1]);
        assert_eq!(line.frames(rate), 50);
        let cut = line.cut(rate, 10, 10).unwrap();
        // Frames 5 to 9 and the one that ends them.
        assert_eq!(cut, Cut { start: 6_000, end: Some(12_000), frames: 6 });
        assert!(!line.needs_padding([50, 1], 38, 10));
        assert!(line.needs_padding([50, 1], 40, 10));
        // Half as many.
        assert_eq!(line.frames(Some([25, 2])), 13);
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_halves_away_from_zero() {
        assert_eq!([rescale(5, 1, 2), rescale(-5, 1, 2), rescale(4, 1, 3)], [3, -3, 1]);
    }
}
