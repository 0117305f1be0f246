//! What stands where: the rows of an exposure CSV.

use std::collections::BTreeMap;

use super::csv_table::Table;
use super::fault::{Fault, Role};

/// Most rows: a million of about 250 bytes are the longest file.
const POINTS_MAX: usize = 1 << 20;
/// Most construction classes.
const CLASSES_MAX: usize = 1 << 12;
/// Largest sum of money. Above it cents are lost in a double.
const MONEY_MAX: f64 = 1e15;
const KNOWN: [&str; 7] = ["id", "lat", "lon", "value", "class", "deductible", "limit"];

/// Rows by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    /// Latitude and longitude. *Units*: degrees.
    pub places: Vec<[f64; 2]>,
    /// Sums insured. *Units*: money, as all that follow.
    pub values: Vec<f64>,
    /// What the insured bears.
    pub deductibles: Vec<f64>,
    /// The most that is paid; infinite where there is none.
    pub limits: Vec<f64>,
    /// Positions in [`Exposure::class_names`].
    pub classes: Vec<u32>,
    /// In the order of the file.
    pub class_names: Vec<String>,
    /// The line where each class first is.
    pub class_lines: Vec<u64>,
}

/// Reads a file.
pub fn read(bytes: &[u8]) -> Result<Exposure, Fault> {
    let mut table = Table::open(Role::Exposure, bytes, &KNOWN)?;
    let (lat, lon, value) = (table.needed("lat")?, table.needed("lon")?, table.needed("value")?);
    let class = table.column("class");
    let (deductible, limit) = (table.column("deductible"), table.column("limit"));
    let mut exposure = Exposure::default();
    let mut known: BTreeMap<String, u32> = BTreeMap::new();
    while let Some(row) = table.next() {
        let row = row?;
        if exposure.places.len() == POINTS_MAX {
            return Err(
                row.fault(format!("more than {POINTS_MAX} rows: split the portfolio into several jobs"))
            );
        }
        exposure.places.push([row.number("lat", lat, -90.0, 90.0)?, row.number("lon", lon, -180.0, 360.0)?]);
        exposure.values.push(row.number("value", value, 0.0, MONEY_MAX)?);
        let deductible = row.number_or_none("deductible", deductible, 0.0, MONEY_MAX)?;
        exposure.deductibles.push(deductible.unwrap_or(0.0));
        let limit = row.number_or_none("limit", limit, 0.0, MONEY_MAX)?;
        exposure.limits.push(limit.unwrap_or(f64::INFINITY));
        let name = row.cell(class);
        let class = match known.get(name) {
            Some(class) => *class,
            None if known.len() == CLASSES_MAX => {
                return Err(row.fault(format!("more than {CLASSES_MAX} construction classes")));
            }
            None => {
                let class = known.len() as u32;
                known.insert(name.into(), class);
                exposure.class_names.push(name.into());
                exposure.class_lines.push(row.line);
                class
            }
        };
        exposure.classes.push(class);
    }
    if exposure.places.is_empty() {
        return Err(Fault::of(Role::Exposure, "holds no row"));
    }
    Ok(exposure)
}
