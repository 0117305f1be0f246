//! Two reports side by side: what changed by more than the rounds of each differ among themselves.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

use crate::html;
use crate::report::{Better, Metric, Report, number};

/// What is to be thought of a number that became another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// It is another, and nobody said which is better.
    Other,
    /// The rounds of one reach into those of the other.
    Noise,
    /// With fewer than three rounds on a side nobody knows the noise.
    Unknown,
}

impl Verdict {
    fn of(before: &Metric, after: &Metric) -> Verdict {
        if before.rounds.len() < 3 || after.rounds.len() < 3 {
            return Verdict::Unknown;
        }
        if before.min <= after.max && after.min <= before.max {
            return Verdict::Noise;
        }
        match (after.better, after.median > before.median) {
            (Better::Neither, _) => Verdict::Other,
            (Better::More, true) | (Better::Less, false) => Verdict::Better,
            _ => Verdict::Worse,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Other => "other",
            Verdict::Noise => "within noise",
            Verdict::Unknown => "too few rounds",
        }
    }
}

/// One number of both reports.
struct Pair {
    name: String,
    before: Metric,
    after: Metric,
    verdict: Verdict,
}

impl Pair {
    fn ratio(&self) -> String {
        match self.before.median == 0.0 {
            true => "–".to_owned(),
            false => format!("{:.2}", self.after.median / self.before.median),
        }
    }
}

/// Two reports, number by number.
pub(crate) struct Comparison {
    pairs: Vec<Pair>,
    warnings: Vec<String>,
}

impl Comparison {
    pub(crate) fn of(before: &Report, after: &Report) -> Comparison {
        let mut pairs = Vec::new();
        for (name, old) in before.numbers() {
            let Some((_, new)) = after.numbers().find(|(other, _)| *other == name) else { continue };
            pairs.push(Pair {
                name,
                before: old.clone(),
                after: new.clone(),
                verdict: Verdict::of(old, new),
            });
        }
        let mut warnings = Vec::new();
        let mut warn = |what: &str, old: &dyn fmt::Display, new: &dyn fmt::Display| {
            let (old, new) = (old.to_string(), new.to_string());
            if old != new {
                warnings.push(format!("{what}: {old} and {new}"));
            }
        };
        warn("other scenarios", &before.scenario, &after.scenario);
        warn("other processors", &before.machine.processor, &after.machine.processor);
        warn("other numbers of cores", &before.machine.cores, &after.machine.cores);
        warn("other builds", &build(before), &build(after));
        for (name, old) in before.settings.iter().filter(|(name, _)| *name != "hub_program") {
            warn(&format!("other {name}"), old, after.settings.get(name).unwrap_or(&"nothing".to_owned()));
        }
        Comparison { pairs, warnings }
    }

    /// As a page.
    pub(crate) fn page(&self, before: &Report, after: &Report) -> String {
        html::comparison(before, after, &self.rows(), &self.warnings)
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let show = |metric: &Metric| {
            let noise = if metric.rounds.len() > 1 {
                format!(" ± {:.0} %", 100.0 * metric.noise())
            } else {
                String::new()
            };
            format!("{}{noise}", number(metric.median, &metric.unit))
        };
        let row = |pair: &Pair| {
            let better = match pair.after.better {
                Better::More => "more",
                Better::Less => "less",
                Better::Neither => "",
            };
            let verdict = pair.verdict.word().to_owned();
            [
                pair.name.clone(),
                show(&pair.before),
                show(&pair.after),
                pair.ratio(),
                better.to_owned(),
                verdict,
            ]
        };
        self.pairs.iter().map(row).collect()
    }
}

fn build(report: &Report) -> &'static str {
    if report.release { "release" } else { "debug" }
}

/// Heads of the columns of a comparison.
pub(crate) const COLUMNS: [&str; 6] = ["", "before", "after", "ratio", "better is", ""];

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(COLUMNS).add_rows(self.rows());
        for column in 1..4 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        write!(f, "{table}")?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nnot the same: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rates: &[f64]) -> Report {
        let mut report = Report::new("made up");
        rates.iter().for_each(|rate| report.rate(*rate));
        report
    }

    #[test]
    fn only_what_the_rounds_do_not_explain_is_called_better_or_worse() {
        let verdict = |before: &[f64], after: &[f64]| {
            Comparison::of(&report(before), &report(after)).pairs.first().map(|pair| pair.verdict)
        };
        let before = [100.0, 105.0, 95.0];
        assert_eq!(verdict(&before, &[110.0, 104.0, 111.0]), Some(Verdict::Noise));
        assert_eq!(verdict(&before, &[110.0, 106.0, 111.0]), Some(Verdict::Better));
        assert_eq!(verdict(&before, &[90.0, 80.0, 91.0]), Some(Verdict::Worse));
        assert_eq!(verdict(&before, &[900.0]), Some(Verdict::Unknown));
    }

    #[test]
    fn a_comparison_says_the_ratio_and_what_was_not_the_same() {
        let mut after = report(&[200.0, 201.0, 199.0]);
        after.set("agents", 5);
        let mut before = report(&[100.0, 101.0, 99.0]);
        before.set("agents", 4);
        let text = Comparison::of(&before, &after).to_string();
        assert!(text.contains("2.00") && text.contains("not the same: other agents: 4 and 5"), "{text}");
    }
}
