//! Many seeds at once, and what came of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Planted, Report, Settings, fairness, hubs, run};

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Record {
    /// Seeds run.
    pub seeds: u64,
    /// Steps of all lanes in all of them.
    pub steps: u64,
    /// What happened how often, by name.
    pub happened: BTreeMap<&'static str, u64>,
    /// Seeds that failed, and how.
    pub failed: Vec<(u64, String)>,
    /// How long it took.
    pub took: Duration,
}

/// Runs a seed.
///
/// *Errors*: the broken promise, or what the hub asserted, in words.
pub fn judge(seed: u64, settings: Settings) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, settings))) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(violation)) => Err(format!("{violation:?}")),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("an assertion failed: {}", said.unwrap_or("it said nothing")))
        }
    }
}

/// Runs seeds in ascending order on some threads, until they are through, some have failed, or time is up.
pub fn campaign(seeds: Range<u64>, threads: u64, until: Option<Instant>, settings: Settings) -> Record {
    let (started, next, total) = (Instant::now(), AtomicU64::new(seeds.start), Mutex::new(Record::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let record = one_thread(&next, seeds.end, until, settings);
                let mut total = total.lock().expect("no thread panics while it adds up");
                total.add(record);
            });
        }
    });
    let mut total = total.into_inner().expect("no thread panics while it adds up");
    total.failed.sort_unstable();
    total.took = started.elapsed();
    total
}

/// Failures after which a thread stops: they are hardly all different.
const FAILED_MAX: usize = 10;

fn one_thread(next: &AtomicU64, end: u64, until: Option<Instant>, settings: Settings) -> Record {
    let mut record = Record::default();
    while until.is_none_or(|until| Instant::now() < until) && record.failed.len() < FAILED_MAX {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        record.seeds += 1;
        match judge(seed, settings) {
            Ok(report) => {
                record.steps += report.steps;
                for (what, count) in report.happened {
                    *record.happened.entry(what).or_default() += count;
                }
            }
            Err(how) => record.failed.push((seed, how)),
        }
    }
    record
}

impl Record {
    fn add(&mut self, other: Record) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.failed.extend(other.failed);
        for (what, count) in other.happened {
            *self.happened.entry(what).or_default() += count;
        }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rate = self.seeds as f64 / seconds.max(1e-9);
        writeln!(f, "seeds       {:>12}   {rate:.0} a second, {seconds:.0} s in all", self.seeds)?;
        writeln!(f, "steps       {:>12}", self.steps)?;
        for (what, count) in &self.happened {
            writeln!(f, "  {what:<34} {count:>12}")?;
        }
        write!(f, "violations  {:>12}", self.failed.len())
    }
}

/// The first seed below `end` that finds a planted bug, and what it says.
pub fn caught(bug: Planted, end: u64) -> Option<(u64, String)> {
    let found = |seed| match bug {
        Planted::ChargeNobody
        | Planted::IgnoreWeights
        | Planted::StarveBatch
        | Planted::IgnoreDeadlines
        | Planted::ForgetQuotas => {
            let ran = catch_unwind(|| fairness::run(seed, Some(bug)));
            match ran {
                Ok(Ok(_)) => None,
                Ok(Err(unfair)) => Some(format!("{unfair:?}")),
                Err(_) => Some("an assertion of the hub".to_owned()),
            }
        }
        Planted::AdoptUnfenced
        | Planted::JudgeThroughOutages
        | Planted::ForgetFailedAdoptions
        | Planted::ServeBehindTheFence
        | Planted::LeadUnasked
        | Planted::ForgetOrphans
        | Planted::AcceptForNobody => hubs::run(seed, Some(bug)).err().map(|discord| format!("{discord:?}")),
        _ => judge(seed, Settings::default().planting(bug)).err(),
    };
    (0..end).find_map(|seed| Some((seed, found(seed)?)))
}
