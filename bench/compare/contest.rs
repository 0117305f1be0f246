//! A contest: everyone does the same task in turns, and the median turn counts.
//!
//! Owns the clock and the report. Time is that of the thread on a core, so that other work on the machine
//! costs nobody a turn.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// Someone who does the task, once a turn.
pub(crate) struct Contestant<'a> {
    pub(crate) name: String,
    /// Whose speed in the same round counts as one.
    pub(crate) reference: &'static str,
    /// What one turn does, in the outcome's unit times seconds.
    pub(crate) amount: f64,
    /// Says how many seconds it computed.
    pub(crate) turn: Box<dyn FnMut() -> f64 + 'a>,
}

/// What a contest found.
pub(crate) struct Outcome {
    pub(crate) task: String,
    /// What one unit of speed is.
    pub(crate) unit: &'static str,
    pub(crate) speeds: Vec<Speed>,
}

/// How fast one contestant was.
pub(crate) struct Speed {
    pub(crate) name: String,
    /// The median, in the outcome's unit.
    pub(crate) median: f64,
    /// The median of its speed over the reference's in the same round, if that took part.
    pub(crate) ratio: Option<f64>,
    pub(crate) reference: &'static str,
}

/// Seconds this thread has computed.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes into a structure of ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "this system has no clock for a thread's time");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The seconds this thread computes to do some work.
pub(crate) fn timed(work: impl FnOnce()) -> f64 {
    let start = thread_seconds();
    work();
    thread_seconds() - start
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Lets everyone have so many turns that count, one after the other in each round.
pub(crate) fn hold(
    task: String,
    unit: &'static str,
    rounds: u32,
    mut contestants: Vec<Contestant<'_>>,
) -> Outcome {
    let mut rates = vec![Vec::new(); contestants.len()];
    // The first round warms caches, pages and clock up.
    for round in 0..=rounds {
        for (contestant, rates) in contestants.iter_mut().zip(&mut rates) {
            let rate = contestant.amount / (contestant.turn)();
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let speed = |(index, contestant): (usize, &Contestant<'_>)| {
        let reference = contestants.iter().position(|other| other.name == contestant.reference);
        let ratio = reference.map(|reference| {
            let pairs = rates[reference].iter().zip(&rates[index]);
            median(&mut pairs.map(|(reference, own)| own / reference).collect::<Vec<_>>())
        });
        let median = median(&mut rates[index].clone());
        Speed { name: contestant.name.clone(), median, ratio, reference: contestant.reference }
    };
    let speeds = contestants.iter().enumerate().map(speed).collect();
    Outcome { task, unit, speeds }
}

/// All contests of a run.
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Outcome>,
    /// What could not take part, and what else the reader should know.
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn to_json(&self) -> String {
        let speed = |speed: &Speed| {
            let Speed { name, median, ratio, reference } = speed;
            json!({ "name": name, "speed": median, "ratio": ratio, "reference": reference })
        };
        let outcome = |outcome: &Outcome| {
            let speeds: Vec<Value> = outcome.speeds.iter().map(speed).collect();
            json!({ "task": outcome.task, "unit": outcome.unit, "contestants": speeds })
        };
        let outcomes: Vec<Value> = self.outcomes.iter().map(outcome).collect();
        format!("{:#}", json!({ "contests": outcomes, "notes": self.notes }))
    }

    pub(crate) fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["task", "contestant", "speed", "unit", "ratio", "to"]);
        for outcome in &self.outcomes {
            for Speed { name, median, ratio, reference } in &outcome.speeds {
                let (ratio, reference) = match ratio {
                    Some(ratio) => (format!("{ratio:.2}"), *reference),
                    None => ("–".to_owned(), "–"),
                };
                let median = format!("{median:.1}");
                table.add_row([outcome.task.as_str(), name, &median, outcome.unit, &ratio, reference]);
            }
        }
        for column in [2, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().map(|note| format!("\n{note}")).collect();
        format!("{table}{notes}")
    }
}
