//! A report as one page: tables and plots drawn as SVG, without a script and without anything from elsewhere.

use std::fmt::{Display, Write as _};
use std::path::Path;

use crate::compare::COLUMNS;
use crate::latency::us_text;
use crate::report::{Axis, Metrics, Plot, Report, ReportError, number};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}.quiet{color:#57606a}\
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1.2rem 0}.tile{border:1px solid #d0d7de;border-radius:8px;padding:.7rem 1rem;min-width:9rem}\
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}\
table{border-collapse:collapse;width:100%}th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #d8dee4;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}th{font-weight:600;color:#57606a}\
td.better{color:#116329}td.worse{color:#a40e26}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#57606a}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.quiet,th,text{color:#9198a1;fill:#9198a1}.tile,th,td{border-color:#30363d}td.better{color:#3fb950}td.worse{color:#f85149}}";
/// Of the lines of a plot, told apart without their hue too: by the words at their ends.
const COLOURS: [&str; 6] = ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#6e7781"];

/// *Units*: of the drawing.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
const LEGEND_LINE: f64 = 18.0;

pub(crate) fn write(path: &Path, page: &str) -> Result<(), ReportError> {
    std::fs::write(path, page).map_err(|source| ReportError::Write { path: path.into(), source })
}

/// Text that is no markup.
fn text(of: impl Display) -> String {
    of.to_string().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head><body>\n{body}</body></html>\n",
        text(title)
    )
}

/// A report's page.
pub(crate) fn page(report: &Report) -> String {
    let mut body = head(report);
    tiles(&mut body, report);
    report.plots.iter().for_each(|of| body.push_str(&plot(of)));
    if !report.percentiles.is_empty() {
        body.push_str("<h2>Latencies</h2><table><tr><th></th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>");
        for (name, of) in &report.percentiles {
            let _ = write!(body, "<tr><td>{}</td><td>{}</td>", text(name), of.count);
            for (_, us) in of.named() {
                let _ = write!(body, "<td>{}</td>", us_text(us));
            }
            body.push_str("</tr>\n");
        }
        body.push_str("</table>");
    }
    for (title, metrics) in
        [("Counts", &report.metrics), ("Processor time", &report.cpu), ("Memory", &report.memory)]
    {
        table(&mut body, title, metrics);
    }
    let settings = report.settings.iter().map(|(name, value)| format!("{} {}", text(name), text(value)));
    let _ = write!(body, "<h2>Settings</h2><p>{}</p>", settings.collect::<Vec<_>>().join(" · "));
    for note in &report.notes {
        let _ = write!(body, "<p class=\"quiet\">{}</p>", text(note));
    }
    document(&format!("Tessera: {}", report.scenario), &body)
}

fn head(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "<h1>{}</h1><p class=\"quiet\">Commit {}, {} build · {}, {} cores, {} · load {:.1} before, {:.1} after</p>\n",
        text(&report.scenario),
        text(&report.commit),
        if report.release { "release" } else { "debug" },
        text(&machine.processor),
        machine.cores,
        number(machine.memory_bytes as f64, "B"),
        machine.load[0],
        machine.load[1]
    )
}

/// What is looked for first.
fn tiles(body: &mut String, report: &Report) {
    let mut tiles = Vec::new();
    if let Some(rate) = report.shards_per_second {
        tiles.push((number(rate, ""), "shards a second"));
    }
    let of =
        |metrics: &Metrics, name: &str| metrics.get(name).map(|metric| number(metric.median, &metric.unit));
    tiles.extend(of(&report.cpu, "hub per shard").map(|value| (value, "of the hub's core a shard")));
    tiles.extend(
        of(&report.memory, "hub per idle agent").map(|value| (value, "of the hub's memory an idle agent")),
    );
    tiles.extend(of(&report.metrics, "allocations per shard").map(|value| (value, "allocations a shard")));
    body.push_str("<div class=\"tiles\">");
    for (value, what) in tiles {
        let _ = write!(body, "<div class=\"tile\"><b>{}</b>{}</div>", text(value), text(what));
    }
    body.push_str("</div>\n");
}

fn table(body: &mut String, title: &str, metrics: &Metrics) {
    let shown: Vec<_> = metrics.iter().filter(|(name, _)| !name.starts_with("latency.")).collect();
    if shown.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<h2>{}</h2><table><tr><th></th><th>median</th><th>least</th><th>most</th><th>rounds</th></tr>",
        text(title)
    );
    for (name, metric) in shown {
        let show = |value: f64| text(number(value, &metric.unit));
        let (median, least, most) = (show(metric.median), show(metric.min), show(metric.max));
        let rounds = metric.rounds.len();
        let _ = writeln!(
            body,
            "<tr><td>{}</td><td>{median}</td><td>{least}</td><td>{most}</td><td>{rounds}</td></tr>",
            text(name)
        );
    }
    body.push_str("</table>");
}

/// A comparison's page.
pub(crate) fn comparison(
    before: &Report,
    after: &Report,
    rows: &[[String; 6]],
    warnings: &[String],
) -> String {
    let mut body = head(after);
    let _ = write!(body, "<p class=\"quiet\">Compared with commit {}.</p>", text(&before.commit));
    body.push_str("<table><tr>");
    for column in COLUMNS {
        let _ = write!(body, "<th>{}</th>", text(column));
    }
    body.push_str("</tr>");
    for row in rows
        .iter()
        .filter(|row| !row[0].starts_with("latency.") || row[0].ends_with(".p50") || row[0].ends_with(".p99"))
    {
        body.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            let class = if at == 5 { format!(" class=\"{}\"", text(cell)) } else { String::new() };
            let _ = write!(body, "<td{class}>{}</td>", text(cell));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table>");
    for warning in warnings {
        let _ = write!(body, "<p class=\"quiet\">Not the same: {}</p>", text(warning));
    }
    document(&format!("Tessera: {} compared", after.scenario), &body)
}

/// Where numbers of an axis lie.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Option<Scale> {
        let usable = values.filter(|value| value.is_finite() && (!axis.logarithmic || *value > 0.0));
        let (mut low, mut high) =
            usable.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        match axis.logarithmic {
            true => (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil())),
            false => (low, high) = (0.0, high.max(f64::MIN_POSITIVE) * 1.1),
        }
        if low >= high {
            high = low * 10.0;
        }
        Some(Scale { low, high, logarithmic: axis.logarithmic, from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.high / self.low).log10().round() as i32;
            return (0..=decades).map(|decade| self.low * 10f64.powi(decade)).collect();
        }
        let step = 10f64.powf((self.high / 4.0).log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|times| times * step).into_iter().find(|step| self.high / step <= 5.0);
        let step = step.unwrap_or(self.high);
        (0..=(self.high / step) as u32).map(|tick| f64::from(tick) * step).collect()
    }
}

fn plot(plot: &Plot) -> String {
    let points = || plot.lines.iter().flat_map(|line| line.points.iter());
    let height = HEIGHT + LEGEND_LINE * plot.lines.len() as f64;
    let x = Scale::new(&plot.x, points().map(|(x, _)| *x), LEFT, WIDTH - RIGHT);
    let y = Scale::new(&plot.y, points().map(|(_, y)| *y), HEIGHT - BOTTOM, TOP);
    let (Some(x), Some(y)) = (x, y) else { return String::new() };
    let mut svg =
        format!("<h2>{}</h2><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">", text(&plot.title));
    for tick in y.ticks() {
        let at = y.at(tick);
        let label = if plot.y.name == "microseconds" { us_text(tick) } else { number(tick, "") };
        let _ = write!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#8c959f\" stroke-opacity=\".25\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            text(label)
        );
    }
    for tick in x.ticks() {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x.at(tick),
            HEIGHT - BOTTOM + 18.0,
            text(number(tick, ""))
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        text(&plot.x.name)
    );
    for (number, line) in plot.lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.at(*a), y.at(*b))).collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        let at = HEIGHT + LEGEND_LINE * number as f64 + 6.0;
        let _ = write!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{at:.1}\">{}</text>",
            at - 6.0,
            LEFT + 22.0,
            text(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;

    #[test]
    fn a_page_holds_the_numbers_and_plots_and_nothing_from_elsewhere() {
        let mut report = Report::new("a <b> & c");
        report.rate(12_345.0);
        let mut latency = Latency::default();
        (1..1_000).for_each(|us| latency.record_ns(us * 1_000, 1));
        report.latency("dispatch", &latency);
        let page = page(&report.close());
        for found in ["a &lt;b&gt; &amp; c", "12.35 k", "<svg", "<polyline", "dispatch"] {
            assert!(page.contains(found), "no {found} in {page}");
        }
        for absent in ["<script", "http:", "https:", "src=", "NaN"] {
            assert!(!page.contains(absent), "{absent} in {page}");
        }
    }
}
