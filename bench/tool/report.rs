//! What a run of a scenario came to: numbers of several rounds, percentiles, the machine and the commit.
//!
//! Owns the JSON form and the text on the screen. A number says what it is of, in which unit, and whether more of it
//! is better; a report holds every round's, so that a reader sees the noise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::latency::{Latency, Percentiles, us_text};
use crate::machine::{Machine, commit};

/// Names this form of a report.
const FORM: &str = "tessera-bench/1";
/// Fewest latencies that are drawn.
const CURVE_FROM: u64 = 20;

/// Whether more of a number is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    More,
    Less,
    /// It only describes.
    Neither,
}

/// One number of each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metric {
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// *Order*: as measured.
    pub(crate) rounds: Vec<f64>,
}

impl Metric {
    fn new(unit: &str, better: Better) -> Metric {
        Metric { unit: unit.to_owned(), better, median: 0.0, min: 0.0, max: 0.0, rounds: Vec::new() }
    }

    fn push(&mut self, value: f64) {
        self.rounds.push(value);
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        (self.min, self.max) = (sorted[0], sorted[sorted.len() - 1]);
        self.median = median(&sorted);
    }

    /// Half of what lies between the smallest and the largest, as a part of the median.
    pub(crate) fn noise(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / 2.0 / self.median.abs() }
    }
}

/// Of sorted numbers.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

pub(crate) type Metrics = BTreeMap<String, Metric>;

/// Lines to draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) logarithmic: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Everything that a scenario measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) form: String,
    pub(crate) scenario: String,
    pub(crate) commit: String,
    /// Of a build with optimisation.
    pub(crate) release: bool,
    pub(crate) machine: Machine,
    pub(crate) settings: BTreeMap<String, String>,
    /// The median of the rounds, where the scenario has such a rate.
    pub(crate) shards_per_second: Option<f64>,
    pub(crate) metrics: Metrics,
    pub(crate) cpu: Metrics,
    pub(crate) memory: Metrics,
    /// Of all rounds together. *Units*: microseconds.
    pub(crate) percentiles: BTreeMap<String, Percentiles>,
    pub(crate) plots: Vec<Plot>,
    /// What was compared with an independent count, and what a reader must know.
    pub(crate) notes: Vec<String>,
    /// What makes the run a failure.
    #[serde(default)]
    pub(crate) failures: Vec<String>,
    #[serde(skip)]
    latencies: BTreeMap<String, Latency>,
}

/// Why a report cannot be had.
#[derive(Debug)]
pub(crate) enum ReportError {
    Read { path: PathBuf, source: std::io::Error },
    Write { path: PathBuf, source: std::io::Error },
    NotAReport { path: PathBuf, source: serde_json::Error },
    OtherForm { path: PathBuf, found: String },
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReportError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            ReportError::Write { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            ReportError::NotAReport { path, source } => {
                write!(f, "{} is not a report of --json: {source}", path.display())
            }
            ReportError::OtherForm { path, found } => {
                write!(
                    f,
                    "{} has the form {found:?}, this program reads {FORM:?}: measure again",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for ReportError {}

impl Report {
    pub(crate) fn new(scenario: &str) -> Report {
        Report {
            form: FORM.to_owned(),
            scenario: scenario.to_owned(),
            commit: commit(),
            release: !cfg!(debug_assertions),
            machine: Machine::here(),
            settings: BTreeMap::new(),
            shards_per_second: None,
            metrics: Metrics::new(),
            cpu: Metrics::new(),
            memory: Metrics::new(),
            percentiles: BTreeMap::new(),
            plots: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            latencies: BTreeMap::new(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Shards of this round.
    pub(crate) fn rate(&mut self, shards_per_second: f64) {
        self.metric("shards_per_second", "/s", Better::More, shards_per_second);
        self.shards_per_second = Some(self.metrics["shards_per_second"].median);
    }

    pub(crate) fn metric(&mut self, name: &str, unit: &str, better: Better, value: f64) {
        self.metrics.entry(name.to_owned()).or_insert_with(|| Metric::new(unit, better)).push(value);
    }

    /// Time on a core. *Units*: microseconds for each of what the name says.
    pub(crate) fn cpu(&mut self, name: &str, us: f64) {
        self.cpu.entry(name.to_owned()).or_insert_with(|| Metric::new("us", Better::Less)).push(us);
    }

    pub(crate) fn memory(&mut self, name: &str, bytes: f64) {
        self.memory.entry(name.to_owned()).or_insert_with(|| Metric::new("B", Better::Less)).push(bytes);
    }

    pub(crate) fn latency(&mut self, name: &str, latency: &Latency) {
        if latency.count() == 0 {
            return;
        }
        let all = self.latencies.entry(name.to_owned()).or_default();
        all.add(latency);
        self.percentiles.insert(name.to_owned(), all.percentiles());
        for (quantile, us) in latency.percentiles().named() {
            self.metric(&format!("latency.{name}.{quantile}"), "us", Better::Less, us);
        }
    }

    /// Takes in all of another report, under names that begin with what it is of.
    pub(crate) fn absorb(&mut self, of: &str, other: Report) {
        let named = |name: String| match name.strip_prefix("latency.") {
            Some(name) => format!("latency.{of}: {name}"),
            None => format!("{of}: {name}"),
        };
        self.metrics.extend(other.metrics.into_iter().map(|(name, metric)| (named(name), metric)));
        self.cpu.extend(other.cpu.into_iter().map(|(name, metric)| (named(name), metric)));
        self.memory.extend(other.memory.into_iter().map(|(name, metric)| (named(name), metric)));
        self.percentiles.extend(other.percentiles.into_iter().map(|(name, these)| (named(name), these)));
        for (name, value) in other.settings {
            let differs = self.settings.insert(name.clone(), value.clone()).filter(|before| *before != value);
            if let Some(before) = differs {
                self.settings.insert(name, format!("{before}; {value}"));
            }
        }
        other.notes.into_iter().for_each(|note| self.note(named(note)));
        self.failures.extend(other.failures.into_iter().map(named));
    }

    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// What was measured must not be: the program ends with a failure, after its report.
    pub(crate) fn fail(&mut self, why: String) {
        self.failures.push(why);
    }

    /// Nothing more is measured.
    pub(crate) fn close(mut self) -> Report {
        self.machine = self.machine.afterwards();
        // A curve through a few latencies would show what was not measured.
        let many = |latency: &Latency| latency.count() >= CURVE_FROM;
        if self.latencies.values().any(many) {
            let line = |(name, latency): (&String, &Latency)| {
                let points = latency.curve().into_iter().map(|(quantile, us)| (1.0 / (1.0 - quantile), us));
                Line { name: name.clone(), points: points.collect() }
            };
            let lines = self.latencies.iter().filter(|(_, latency)| many(latency)).map(line).collect();
            self.plots.push(Plot {
                title: "Latency: one in so many takes longer".to_owned(),
                x: Axis { name: "one in".to_owned(), logarithmic: true },
                y: Axis { name: "microseconds".to_owned(), logarithmic: true },
                lines,
            });
        }
        self
    }

    /// All numbers, with names that say which part they are of.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = (String, &Metric)> {
        let part = |part: &'static str, metrics| {
            let named = move |(name, metric): (&String, _)| (format!("{part}{name}"), metric);
            Metrics::iter(metrics).map(named)
        };
        part("", &self.metrics).chain(part("cpu.", &self.cpu)).chain(part("memory.", &self.memory))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), ReportError> {
        let text = serde_json::to_string_pretty(self).expect("a report has only texts for keys");
        std::fs::write(path, text + "\n").map_err(|source| ReportError::Write { path: path.into(), source })
    }

    pub(crate) fn read(path: &Path) -> Result<Report, ReportError> {
        let bytes = std::fs::read(path).map_err(|source| ReportError::Read { path: path.into(), source })?;
        let not = |source| ReportError::NotAReport { path: path.into(), source };
        let report: Report = serde_json::from_slice(&bytes).map_err(not)?;
        match report.form == FORM {
            true => Ok(report),
            false => Err(ReportError::OtherForm { path: path.into(), found: report.form }),
        }
    }
}

/// A number that people can read.
pub(crate) fn number(value: f64, unit: &str) -> String {
    match unit {
        "us" => return us_text(value),
        "ns" => return us_text(value / 1e3),
        _ => {}
    }
    let (value, prefix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    let gap = if prefix.is_empty() && unit.starts_with('/') { "" } else { " " };
    format!("{value:.digits$}{gap}{prefix}{unit}").trim_end().to_owned()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, load, .. } = &self.machine;
        writeln!(
            f,
            "{} · commit {} · {}",
            self.scenario,
            self.commit,
            if self.release { "release" } else { "debug" }
        )?;
        writeln!(f, "{processor}, {cores} cores, load {:.1} before, {:.1} after", load[0], load[1])?;
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(f, "{}\n", settings.join(", "))?;
        for (name, metric) in self.numbers().filter(|(name, _)| !name.starts_with("latency.")) {
            let noise = match metric.rounds.len() {
                0 | 1 => String::new(),
                rounds => format!("± {:.0} % of {rounds}", 100.0 * metric.noise()),
            };
            writeln!(f, "{name:<44} {:>14}  {noise}", number(metric.median, &metric.unit))?;
        }
        if !self.percentiles.is_empty() {
            let head = ["latency", "count", "p50", "p90", "p99", "p99.9", "max"];
            writeln!(
                f,
                "\n{:<24} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
                head[0], head[1], head[2], head[3], head[4], head[5], head[6]
            )?;
            for (name, of) in &self.percentiles {
                write!(f, "{name:<24} {:>10}", of.count)?;
                of.named().iter().try_for_each(|(_, us)| write!(f, " {:>10}", us_text(*us)))?;
                writeln!(f)?;
            }
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))?;
        self.failures.iter().try_for_each(|failure| write!(f, "\nFAILED: {failure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_report_reads_back_with_median_and_noise_of_its_rounds() {
        let mut report = Report::new("made up");
        [100.0, 120.0, 90.0].into_iter().for_each(|rate| report.rate(rate));
        let mut latency = Latency::default();
        latency.record(Duration::from_micros(7));
        report.latency("dispatch", &latency);
        let report = report.close();
        assert_eq!(report.shards_per_second, Some(100.0));
        assert!((report.metrics["shards_per_second"].noise() - 0.15).abs() < 1e-12);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        report.write(&path).unwrap();
        let read = Report::read(&path).unwrap();
        assert_eq!(read.metrics, report.metrics);
        assert_eq!(read.percentiles["dispatch"].count, 1);
        assert!(report.to_string().contains("shards_per_second"), "{report}");
    }

    #[test]
    fn a_file_that_is_no_report_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.json");
        std::fs::write(&path, "{}").unwrap();
        let error = Report::read(&path).unwrap_err().to_string();
        assert!(error.contains("b.json is not a report"), "{error}");
    }
}
