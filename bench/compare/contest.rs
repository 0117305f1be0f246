//! A contest: everyone does the same task in turns, and the median turn counts.
//!
//! Owns the clock and the report. Time is that of the thread on a core, so that other work on the machine
//! costs nobody a turn.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// Someone who does the task once when called.
pub(crate) struct Contestant<'a> {
    pub(crate) name: String,
    pub(crate) turn: Box<dyn FnMut() + 'a>,
}

/// What a contest found.
pub(crate) struct Outcome {
    pub(crate) task: String,
    /// What one unit of speed is.
    pub(crate) unit: &'static str,
    /// Names with their median speeds, and medians of their speeds over the reference's in the same round.
    pub(crate) speeds: Vec<(String, f64, Option<f64>)>,
}

/// Seconds this thread has computed.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes into a structure of ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "this system has no clock for a thread's time");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// `amount` is what one turn does, in the unit times seconds.
pub(crate) fn hold(
    task: String,
    unit: &'static str,
    amount: f64,
    rounds: u32,
    reference: &str,
    mut contestants: Vec<Contestant<'_>>,
) -> Outcome {
    let mut seconds = vec![Vec::new(); contestants.len()];
    // The first round warms caches, pages and clock up.
    for round in 0..=rounds {
        for (contestant, seconds) in contestants.iter_mut().zip(&mut seconds) {
            let start = thread_seconds();
            (contestant.turn)();
            let turn = thread_seconds() - start;
            if round > 0 {
                seconds.push(turn);
            }
        }
    }
    let reference = contestants.iter().position(|contestant| contestant.name == reference);
    let speeds = contestants.into_iter().enumerate().map(|(index, contestant)| {
        let ratio = reference.map(|reference| {
            let pairs = seconds[reference].iter().zip(&seconds[index]);
            median(&mut pairs.map(|(reference, own)| reference / own).collect::<Vec<_>>())
        });
        (contestant.name, amount / median(&mut seconds[index].clone()), ratio)
    });
    Outcome { task, unit, speeds: speeds.collect() }
}

/// All contests of a run.
pub(crate) struct Report {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) reference: String,
    /// What could not take part, and what else the reader should know.
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn to_json(&self) -> String {
        let outcomes: Vec<Value> = self
            .outcomes
            .iter()
            .map(|outcome| {
                let speeds: Vec<Value> = outcome
                    .speeds
                    .iter()
                    .map(|(name, speed, ratio)| json!({ "name": name, "speed": speed, "ratio": ratio }))
                    .collect();
                json!({ "task": outcome.task, "unit": outcome.unit, "contestants": speeds })
            })
            .collect();
        let report = json!({ "contests": outcomes, "reference": self.reference, "notes": self.notes });
        format!("{report:#}")
    }

    pub(crate) fn to_table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let ratio = format!("of {}", self.reference);
        table.set_header(["task", "contestant", "speed", "unit", &ratio]);
        for outcome in &self.outcomes {
            for (name, speed, ratio) in &outcome.speeds {
                let ratio = ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
                let speed = format!("{speed:.1}");
                table.add_row([outcome.task.as_str(), name, &speed, outcome.unit, &ratio]);
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
