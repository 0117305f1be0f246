//! How long things take in a lane: histograms that anybody may read while it goes on.
//!
//! Recorded once a turn, a batch or a job; what shards wait for, once for all that waited as long. Owns the buckets and
//! the jobs that are being timed; knows no machine.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tessera_hub_core::RequestId;
use tessera_hub_core::effect::Answer;
use tessera_protocol::id::JobId;

/// Doublings from a microsecond: to half a minute, and with the last bound to three quarters of one.
const DOUBLINGS: usize = 26;
/// Bounds of buckets: each power of two of microseconds, and the middle between two.
const BOUNDS: usize = 2 * DOUBLINGS;
/// Jobs timed at once; further ones are not.
const JOBS_MAX: usize = 65_536;

/// Upper bounds of the buckets. *Units*: nanoseconds. *Order*: ascending.
const BOUNDS_NS: [u64; BOUNDS] = {
    let mut bounds = [0; BOUNDS];
    let mut at = 0;
    while at < BOUNDS {
        let power = 1_000 << (at / 2);
        bounds[at] = if at.is_multiple_of(2) { power } else { power / 2 * 3 };
        at += 1;
    }
    bounds
};

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    /// Those up to each bound and above the one before, and those beyond the last.
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; BOUNDS + 1], sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        self.record_all(took, 1);
    }

    /// So many took so long.
    pub(crate) fn record_all(&self, took: Duration, times: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(times), Ordering::Relaxed);
    }

    /// How often it took at most so many seconds, for each bound; then how often in all, and all seconds together.
    pub(crate) fn up_to(&self) -> (impl Iterator<Item = (f64, u64)>, u64, f64) {
        let mut sum = 0;
        let counts = self.counts.each_ref().map(|count| {
            sum += count.load(Ordering::Relaxed);
            sum
        });
        let bounds = BOUNDS_NS.into_iter().zip(counts).map(|(bound, count)| (bound as f64 / 1e9, count));
        (bounds, counts[BOUNDS], self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9)
    }
}

/// How long things take in one lane.
#[derive(Debug, Default)]
pub struct LaneTimes {
    /// A turn in which something happened.
    pub turn: Histogram,
    /// From the beginning of a turn in which answers came until the shards assigned in it were given to the socket.
    pub dispatch: Histogram,
    /// From when the machine wrote a batch until it was durable.
    pub commit: Histogram,
    /// From a shard's answer, or the first of its batch, until the verifier let it pass. In whole milliseconds.
    pub verify: Histogram,
    /// From then until a durable record says that the shard is done; of sums alone. In whole milliseconds.
    pub keep: Histogram,
    /// From a job's submission until the first agent of its home lane was told of it.
    pub queue: Histogram,
    /// From a job's submission until its end was durable.
    pub job: Histogram,
}

/// Jobs that have not ended, and those that are asked for. Those of before a restart are not among them.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    asked: BTreeMap<RequestId, Instant>,
    open: BTreeMap<JobId, Timed>,
}

#[derive(Debug)]
struct Timed {
    submitted: Instant,
    /// No agent has been told of it.
    waits: bool,
}

impl Jobs {
    pub(super) fn submitted(&mut self, request: RequestId, now: Instant) {
        if self.asked.len() + self.open.len() < JOBS_MAX {
            self.asked.insert(request, now);
        }
    }

    pub(super) fn answered(&mut self, request: RequestId, answer: &Answer) {
        if let (Some(submitted), Answer::Accepted(view)) = (self.asked.remove(&request), answer) {
            self.open.insert(view.id, Timed { submitted, waits: true });
        }
    }

    pub(super) fn told(&mut self, job: JobId, now: Instant, times: &LaneTimes) {
        if let Some(timed) = self.open.get_mut(&job)
            && std::mem::take(&mut timed.waits)
        {
            times.queue.record(now.saturating_duration_since(timed.submitted));
        }
    }

    pub(super) fn ended(&mut self, job: JobId, now: Instant, times: &LaneTimes) {
        if let Some(timed) = self.open.remove(&job) {
            times.job.record(now.saturating_duration_since(timed.submitted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_up_to_the_first_bound_that_it_does_not_exceed() {
        assert!(BOUNDS_NS.is_sorted_by(|a, b| a < b));
        let histogram = Histogram::default();
        for us in [0, 1, 2, 3, 100, 10_000_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let (bounds, all, seconds) = histogram.up_to();
        let counts: BTreeMap<u64, u64> =
            bounds.map(|(bound, count)| ((bound * 1e6).round() as u64, count)).collect();
        assert_eq!((counts[&1], counts[&2], counts[&3], counts[&4]), (2, 3, 4, 4));
        assert_eq!((counts[&96], counts[&128]), (4, 5));
        assert_eq!(all, 6, "an hour is beyond the last bound and counts");
        assert!((seconds - 10_000.000_106).abs() < 1e-6, "{seconds}");
    }

    #[test]
    fn a_job_waits_once_and_ends_once() {
        let (mut jobs, times, job, began) =
            (Jobs::default(), LaneTimes::default(), JobId([1; 16]), Instant::now());
        jobs.submitted(RequestId(1), began);
        jobs.submitted(RequestId(2), began);
        jobs.answered(RequestId(2), &Answer::Stopping);
        assert!(jobs.asked.len() == 1 && jobs.open.is_empty());
        jobs.open.insert(job, Timed { submitted: began, waits: true });
        for later in [5, 7] {
            jobs.told(job, began + Duration::from_millis(later), &times);
        }
        for later in [10, 20] {
            jobs.ended(job, began + Duration::from_millis(later), &times);
        }
        let of = |histogram: &Histogram| {
            let (_, all, seconds) = histogram.up_to();
            (all, (seconds * 1e3).round())
        };
        assert_eq!((of(&times.queue), of(&times.job)), ((1, 5.0), (1, 10.0)));
    }
}
