//! Machines of several lanes at once, each on a thread and a core of its own, as in a hub.
//!
//! They share nothing but the processor, its memory and the allocator: whatever a shard costs more than alone is those.
//! Each thread also counts its shards, once in a cache line of its own and once in one that all write to, so that a report
//! shows what counters in the wrong place would cost on this machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use indicatif::ProgressBar;

use super::{Settings, Timed};
use crate::hub::BenchError;
use crate::machine::{cores, pin};
use crate::report::{Axis, Better, Line as Drawn, Plot, Report};

/// Counters of one cache line.
const COUNTERS: usize = 8;

/// What a processor moves between cores as a whole, whoever needs which part of it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; COUNTERS]);

/// Where a thread counts.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    lines: Arc<[Line]>,
    line: usize,
    at: usize,
}

impl Counter {
    /// Counts a step and its shards one by one, as a lane does.
    pub(super) fn count(&self, shards: u64) {
        for _ in 0..=shards {
            self.lines[self.line].0[self.at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where the counters of threads lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Two lines to each, since some processors fetch lines in pairs.
    Apart,
    Together,
}

impl Layout {
    fn counters(self, threads: usize) -> Vec<Counter> {
        let lines: Arc<[Line]> = (0..2 * threads).map(|_| Line::default()).collect();
        let place = |thread: usize| match self {
            Layout::Apart => (2 * thread, 0),
            Layout::Together => (thread / COUNTERS, thread % COUNTERS),
        };
        (0..threads).map(place).map(|(line, at)| Counter { lines: lines.clone(), line, at }).collect()
    }
}

impl Settings {
    /// So many machines at once, from one to as many threads as were asked for.
    pub(super) fn scale(&self, report: &mut Report) -> Result<(), BenchError> {
        let mut points = Vec::new();
        let mut counts: Vec<u16> =
            std::iter::successors(Some(1), |n| Some(n * 2)).take_while(|n| *n < self.threads).collect();
        counts.push(self.threads);
        let alone = self.together(1, Layout::Apart)?;
        for threads in counts {
            let apart = match threads {
                1 => alone,
                _ => self.together(threads, Layout::Apart)?,
            };
            let name = |what: &str| format!("threads {threads}: {what}");
            report.metric(&name("assign and complete"), "ns", Better::Less, apart.ns);
            report.metric(&name("slower than alone"), "%", Better::Less, 100.0 * (apart.ns / alone.ns - 1.0));
            report.metric(&name("a second, all"), "/s", Better::More, apart.per_second);
            if threads > 1 {
                let together = self.together(threads, Layout::Together)?;
                report.metric(&name("with counters in one cache line"), "ns", Better::Less, together.ns);
            }
            points.push((f64::from(threads), apart.per_second));
        }
        if usize::from(self.threads) > cores().len() {
            report.note(format!(
                "{} threads share {} cores: more of them than cores shows nothing of scaling.",
                self.threads,
                cores().len()
            ));
        }
        let line =
            |plot: &Plot| Drawn { name: format!("round {}", plot.lines.len() + 1), points: points.clone() };
        let title = "Machines at once";
        match report.plots.iter_mut().find(|plot| plot.title == title) {
            Some(plot) => plot.lines.push(line(plot)),
            None => {
                let axis = |name: &str| Axis { name: name.to_owned(), logarithmic: false };
                let mut plot = Plot {
                    title: title.to_owned(),
                    x: axis("threads"),
                    y: axis("shards a second of core time"),
                    lines: Vec::new(),
                };
                plot.lines.push(line(&plot));
                report.plots.push(plot);
            }
        }
        Ok(())
    }

    fn together(&self, threads: u16, layout: Layout) -> Result<Together, BenchError> {
        let counters = layout.counters(threads.into());
        let begin = Barrier::new(threads.into());
        let timed = std::thread::scope(|scope| {
            let run = |(thread, counter): (usize, Counter)| {
                let (begin, cores) = (&begin, cores());
                scope.spawn(move || {
                    pin(&[cores[thread % cores.len()]]);
                    begin.wait();
                    let timed = self.time_counting(&ProgressBar::hidden(), 1, Some(&counter));
                    assert!(
                        timed.is_err()
                            || counter.lines[counter.line].0[counter.at].load(Ordering::Relaxed)
                                >= self.timed
                    );
                    timed.map(|[timed, _]| timed)
                })
            };
            let threads: Vec<_> = counters.into_iter().enumerate().map(run).collect();
            let ended = threads.into_iter().map(|thread| thread.join().expect("a machine does not panic"));
            ended.collect::<Result<Vec<Timed>, _>>()
        })?;
        let count = timed.len() as f64;
        let ns = timed.iter().map(Timed::ns).sum::<f64>() / count;
        Ok(Together { ns, per_second: timed.iter().map(|timed| 1e9 / timed.ns()).sum() })
    }
}

/// What several machines came to.
#[derive(Clone, Copy, Debug)]
struct Together {
    /// Time on a core for each shard.
    ns: f64,
    /// Shards of all, if each thread has a core.
    per_second: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_lie_in_one_line_or_each_in_its_own() {
        let line = |counter: &Counter| &raw const counter.lines[counter.line] as usize / 64;
        for (layout, distinct) in [(Layout::Apart, 3), (Layout::Together, 1)] {
            let counters = layout.counters(3);
            counters.iter().for_each(|counter| counter.count(4));
            let mut lines: Vec<_> = counters.iter().map(line).collect();
            lines.dedup();
            assert_eq!(lines.len(), distinct, "{layout:?}");
            let counted =
                |counter: &Counter| counter.lines[counter.line].0[counter.at].load(Ordering::Relaxed);
            assert!(counters.iter().all(|counter| counted(counter) == 5));
        }
    }
}
