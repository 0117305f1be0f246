//! The result document of a job as tables.

use serde::Deserialize;

use super::estimates::{Control, Greeks, PartDelta, estimates};
use super::number::{aligned, decimals, fixed, grouped};
use super::{Style, WIDTH, lines, shortened, table};

/// Most cells of a payoff histogram.
const SPARK_CELLS: usize = 8;
/// Columns of the picture of a book's profit and loss.
const BOX_CELLS: usize = 60;
/// Most characters of a contract's name.
const ID_CHARS: usize = 16;

#[derive(Deserialize)]
#[serde(tag = "model", rename_all = "snake_case")]
enum Document {
    Pi(PiResult),
    Gbm(BookResult),
    Heston(BookResult),
}

#[derive(Deserialize)]
struct PiResult {
    paths: u64,
    inside: u64,
    pi: Option<f64>,
    standard_error: Option<f64>,
    ci95: [Option<f64>; 2],
}

#[derive(Deserialize)]
struct BookResult {
    paths: u64,
    #[serde(default)]
    antithetic: bool,
    contracts: Vec<ContractResult>,
    book: BookValue,
}

#[derive(Deserialize)]
struct ContractResult {
    id: String,
    kind: String,
    quantity: Option<f64>,
    price: Option<f64>,
    standard_error: Option<f64>,
    ci95: [Option<f64>; 2],
    delta: Option<f64>,
    delta_standard_error: Option<f64>,
    #[serde(default)]
    deltas: Vec<PartDelta>,
    control: Option<Control>,
    greeks: Option<Greeks>,
    histogram: Histogram,
}

#[derive(Deserialize)]
struct Histogram {
    bins: Vec<u64>,
    overflow: u64,
}

#[derive(Deserialize)]
struct BookValue {
    value: Option<f64>,
    standard_error: Option<f64>,
    ci95: [Option<f64>; 2],
    pnl: ProfitAndLoss,
}

#[derive(Deserialize)]
struct ProfitAndLoss {
    var95: Option<f64>,
    es95: Option<f64>,
    var99: Option<f64>,
    es99: Option<f64>,
    quantiles: Vec<Quantile>,
}

#[derive(Deserialize)]
struct Quantile {
    p: f64,
    value: Option<f64>,
}

/// A result document as text.
///
/// *Errors*: it is not a document of a model that this client knows.
pub fn result(document: &[u8], style: Style) -> Result<String, serde_json::Error> {
    if let Some(matrix) = super::MatrixResult::read(document) {
        return Ok(matrix.text(style, None));
    }
    Ok(match serde_json::from_slice(document)? {
        Document::Pi(result) => pi(&result, style),
        Document::Gbm(result) | Document::Heston(result) => {
            let rows = &result.contracts;
            let parts = [contracts(&result, style), controls(rows), greeks(rows), deltas(rows)];
            parts.concat() + "\n" + &book(&result, style)
        }
    })
}

fn pi(result: &PiResult, style: Style) -> String {
    let places = decimals(result.pi.unwrap_or(f64::NAN), result.standard_error);
    let [low, high] = result.ci95.map(|bound| fixed(bound, places));
    format!(
        "{}\n  {} ± {}    95 % interval {low} … {high}\n  {} of {} points fell inside the quarter circle\n",
        style.heading("π"),
        fixed(result.pi, places),
        fixed(result.standard_error, places),
        grouped(result.inside),
        grouped(result.paths),
    )
}

fn contracts(result: &BookResult, style: Style) -> String {
    let title = format!(
        "{} on {}{}",
        counted(result.contracts.len() as u64, "contract"),
        counted(result.paths, "path"),
        if result.antithetic { " in opposite pairs" } else { "" }
    );
    // The picture can be missed first, then points that stand under each other.
    let layouts = [(true, true), (true, false), (false, false)];
    let pages = layouts.map(|(align, picture)| contract_table(&result.contracts, align, picture));
    let fits = |page: &&String| page.lines().all(|line| line.chars().count() <= WIDTH);
    let page = pages.iter().find(fits).unwrap_or(&pages[2]);
    format!("{}\n{page}", style.heading(&title))
}

fn contract_table(contracts: &[ContractResult], align: bool, picture: bool) -> String {
    let column = |of: &dyn Fn(&ContractResult) -> String| -> Vec<String> {
        let cells: Vec<String> = contracts.iter().map(of).collect();
        if align { aligned(&cells) } else { cells }
    };
    let held =
        column(&|contract| contract.quantity.map_or_else(|| "n/a".to_owned(), |held| format!("{held}")));
    let prices = column(&|contract| fixed(contract.price, price_decimals(contract)));
    let errors = column(&|contract| fixed(contract.standard_error, price_decimals(contract)));
    let deltas = column(&|contract| fixed(contract.delta, delta_decimals(contract)));
    let delta_errors = column(&|contract| fixed(contract.delta_standard_error, delta_decimals(contract)));
    let mut header = vec!["contract", "kind", "held", "price ± s.e.", "95 % interval", "delta ± s.e."];
    if picture {
        header.push("payoff");
    }
    let rows = contracts.iter().enumerate().map(|(row, contract)| {
        let mut cells = vec![
            shortened(&contract.id, ID_CHARS),
            kind(&contract.kind),
            held[row].clone(),
            format!("{} ± {}", prices[row], errors[row]),
            interval(contract),
            match contract.deltas.is_empty() {
                true => format!("{} ± {}", deltas[row], delta_errors[row]),
                false => "by underlying".to_owned(),
            },
        ];
        if picture {
            cells.push(sparkline(&contract.histogram));
        }
        cells
    });
    lines(&table(&header, 2, rows.collect()))
}

/// Prices with a control, where there are any.
fn controls(contracts: &[ContractResult]) -> String {
    let rows = contracts.iter().filter_map(|contract| {
        let control = contract.control.as_ref()?;
        let places = decimals(control.price.unwrap_or(f64::NAN), control.standard_error);
        let [low, high] = control.ci95.map(|bound| fixed(bound, places));
        Some(vec![
            shortened(&contract.id, ID_CHARS),
            control.method.replace('_', " "),
            estimates(control.price, control.standard_error),
            format!("{low} … {high}"),
        ])
    });
    section(&["contract", "control", "price ± s.e.", "95 % interval"], 2, rows.collect())
}

/// Greeks besides delta, where there are any.
fn greeks(contracts: &[ContractResult]) -> String {
    let rows = contracts.iter().filter_map(|contract| {
        let greeks = contract.greeks.as_ref()?;
        let name = shortened(&contract.id, ID_CHARS);
        Some(std::iter::once(name).chain(greeks.cells()).collect())
    });
    section(&["contract", "gamma ± s.e.", "vega ± s.e.", "rho ± s.e.", "theta ± s.e."], 1, rows.collect())
}

/// Deltas of baskets by their underlyings, where there are any.
fn deltas(contracts: &[ContractResult]) -> String {
    let parts =
        contracts.iter().flat_map(|contract| contract.deltas.iter().map(move |part| (contract, part)));
    let rows = parts.map(|(contract, part)| {
        vec![
            shortened(&contract.id, ID_CHARS),
            shortened(&part.underlying, ID_CHARS),
            estimates(part.delta, part.delta_standard_error),
        ]
    });
    section(&["contract", "underlying", "delta ± s.e."], 2, rows.collect())
}

/// A table below another; nothing where it has no rows.
fn section(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{}", lines(&table(header, left, rows))) }
}

fn price_decimals(contract: &ContractResult) -> usize {
    decimals(contract.price.unwrap_or(f64::NAN), contract.standard_error)
}

fn delta_decimals(contract: &ContractResult) -> usize {
    decimals(contract.delta.unwrap_or(f64::NAN), contract.delta_standard_error)
}

fn interval(contract: &ContractResult) -> String {
    let places = price_decimals(contract);
    let [low, high] = contract.ci95.map(|bound| fixed(bound, places));
    format!("{low} … {high}")
}

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn kind(kind: &str) -> String {
    match kind {
        "down_and_out_call" => "down-out call".to_owned(),
        "down_and_out_put" => "down-out put".to_owned(),
        other => shortened(&other.replace('_', " "), 13),
    }
}

/// How often a contract paid how much, among the paths on which it paid: from nothing to the largest payoff
/// that was counted.
fn sparkline(histogram: &Histogram) -> String {
    let paid: Vec<u64> = match histogram.overflow {
        0 => {
            let length = histogram.bins.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
            histogram.bins[..length].to_vec()
        }
        overflow => histogram.bins.iter().copied().chain([overflow]).collect(),
    };
    // Bins shared out as evenly as can be; the height of a cell is the mean of its bins.
    let cells = SPARK_CELLS.min(paid.len());
    let heights: Vec<u64> = (0..cells)
        .map(|cell| {
            let bins = &paid[cell * paid.len() / cells..(cell + 1) * paid.len() / cells];
            bins.iter().sum::<u64>().div_ceil(bins.len() as u64)
        })
        .collect();
    let most = heights.iter().copied().max().unwrap_or(0).max(1);
    let bar = |height: &u64| match (u128::from(*height) * 8).div_ceil(u128::from(most)) {
        0 => ' ',
        eighths => char::from_u32(0x2580 + eighths as u32).unwrap_or('█'),
    };
    let drawn: String = heights.iter().map(bar).collect();
    format!("{drawn:<SPARK_CELLS$}")
}

fn book(result: &BookResult, style: Style) -> String {
    let book = &result.book;
    let places = decimals(book.value.unwrap_or(f64::NAN), book.standard_error);
    let show = |value: Option<f64>| fixed(value, places);
    let pnl = &book.pnl;
    let risk = aligned(&[pnl.var95, pnl.es95, pnl.var99, pnl.es99].map(show));
    let mut text = format!(
        "{}\n  value  {} ± {}    95 % interval {} … {}\n\n",
        style.heading("Book, in the currency of its prices"),
        show(book.value),
        show(book.standard_error),
        show(book.ci95[0]),
        show(book.ci95[1]),
    );
    let width = risk[0].chars().count().max(5);
    text +=
        &format!("  {:<38}  {:>width$}  {:>width$}\n", "discounted loss against the mean", "95 %", "99 %");
    text += &format!("  {:<38}  {:>width$}  {:>width$}\n", "value at risk", risk[0], risk[2].trim_end());
    text += &format!("  {:<38}  {:>width$}  {:>width$}\n", "expected shortfall", risk[1], risk[3].trim_end());
    if pnl.quantiles.is_empty() {
        return text;
    }
    let values: Vec<String> = pnl.quantiles.iter().map(|quantile| show(quantile.value)).collect();
    let names: Vec<String> =
        pnl.quantiles.iter().map(|quantile| format!("{} %", (quantile.p * 1000.0).round() / 10.0)).collect();
    let width = values.iter().chain(&names).map(|text| text.chars().count()).max().unwrap_or(0);
    let row = |cells: &[String]| cells.iter().map(|cell| format!("  {cell:>width$}")).collect::<String>();
    text += &format!("\n  profit and loss, quantiles\n{}\n{}\n", row(&names), row(&values));
    if let Some(picture) = box_plot(&pnl.quantiles) {
        text += &format!("  {picture}\n");
    }
    text
}

/// The quantiles to scale: whiskers to the outermost, a box around the middle half, a bar at the median.
fn box_plot(quantiles: &[Quantile]) -> Option<String> {
    let at = |p: f64| quantiles.iter().find(|quantile| quantile.p == p)?.value;
    let (low, high) = (quantiles.first()?.value?, quantiles.last()?.value?);
    if high <= low {
        return None;
    }
    let cell = |value: f64| (((value - low) / (high - low)) * (BOX_CELLS - 1) as f64).round() as usize;
    let (left, middle, right) = (cell(at(0.25)?), cell(at(0.5)?), cell(at(0.75)?));
    let draw = |position: usize| match position {
        p if p == middle => '┃',
        p if (left..=right).contains(&p) => '█',
        0 => '├',
        p if p == BOX_CELLS - 1 => '┤',
        _ => '─',
    };
    Some((0..BOX_CELLS).map(draw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payoff_picture_shows_what_was_counted_and_always_takes_eight_cells() {
        let picture = |bins: &[u64], overflow: u64| {
            let mut all = [0; 64];
            all[..bins.len()].copy_from_slice(bins);
            sparkline(&Histogram { bins: all.to_vec(), overflow })
        };
        assert_eq!(picture(&[], 0), "        ");
        assert_eq!(picture(&[800, 400, 100], 0), "█▄▁     ");
        assert_eq!(picture(&[80; 40], 0), "████████");
        assert_eq!(picture(&[0; 64], 9), "       █");
        assert_eq!(picture(&[u64::MAX / 64; 64], 0), "████████");
    }
}
