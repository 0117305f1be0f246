//! Damage curves of construction classes: the rows of a CSV.

use std::collections::BTreeMap;

use tessera_protocol::catastrophe::Vulnerability;

use super::csv_table::Table;
use super::damage::Curve;
use super::exposure::Exposure;
use super::fault::{Fault, Role};

const KNOWN: [&str; 3] = ["class", "wind_ms", "ratio"];
/// Most rows of all curves together.
const ROWS_MAX: usize = 1 << 16;

/// The curve of every class of a portfolio, in the order of its classes. `file` is what curves are read from.
pub(super) fn of_classes(
    vulnerability: &Vulnerability,
    file: Option<&[u8]>,
    exposure: &Exposure,
) -> Result<Vec<Curve>, Fault> {
    let (Vulnerability::Curves(_), Some(file)) = (vulnerability, file) else {
        let curve = match *vulnerability {
            Vulnerability::Emanuel { threshold, half } => Curve::Emanuel { threshold, half },
            Vulnerability::Curves(_) => return Err(Fault::of(Role::Curves, "is not there")),
        };
        return Ok(vec![curve; exposure.class_names.len()]);
    };
    let curves = read(file)?;
    let of_class = |(name, line): (&String, &u64)| {
        curves.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = curves.keys().map(String::as_str).take(20).collect();
            let what =
                format!("class {name:?} has no damage curve: there are curves of {}", known.join(", "));
            Fault::at(Role::Exposure, *line, what)
        })
    };
    exposure.class_names.iter().zip(&exposure.class_lines).map(of_class).collect()
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, Curve>, Fault> {
    let mut table = Table::open(Role::Curves, bytes, &KNOWN)?;
    let (class, wind, ratio) = (table.needed("class")?, table.needed("wind_ms")?, table.needed("ratio")?);
    let mut curves: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    let mut rows = 0;
    while let Some(row) = table.next() {
        let row = row?;
        rows += 1;
        if rows > ROWS_MAX {
            return Err(row.fault(format!("more than {ROWS_MAX} rows")));
        }
        let name = row.cell(Some(class));
        let (wind, share) = (row.number("wind_ms", wind, 0.0, 500.0)?, row.number("ratio", ratio, 0.0, 1.0)?);
        let (winds, shares) = curves.entry(name.into()).or_default();
        if let (Some(last_wind), Some(last_share)) = (winds.last(), shares.last()) {
            if wind <= *last_wind {
                let what =
                    format!("wind_ms = {wind} of class {name:?}: must be above the row before, {last_wind}");
                return Err(row.fault(what));
            }
            if share < *last_share {
                let what = format!(
                    "ratio = {share} of class {name:?}: must not be below the row before, {last_share}; more wind cannot break less"
                );
                return Err(row.fault(what));
            }
        }
        winds.push(wind);
        shares.push(share);
    }
    if curves.is_empty() {
        return Err(Fault::of(Role::Curves, "holds no row"));
    }
    Ok(curves.into_iter().map(|(name, (winds, shares))| (name, Curve::Points { winds, shares })).collect())
}
