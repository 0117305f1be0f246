//! Tracks as a CSV whose header names columns and units.

use chrono::NaiveDateTime;

use super::csv_table::{Row, Table};
use super::fault::{Fault, Role};
use super::tracks::{KNOT_MS, NAUTICAL_MILE_KM, Record, Recorded};

const KNOWN: [&str; 12] = [
    "storm",
    "name",
    "time",
    "lat",
    "lon",
    "central_pressure_hpa",
    "environmental_pressure_hpa",
    "max_wind_kn",
    "max_wind_ms",
    "radius_max_wind_nm",
    "radius_max_wind_km",
    "annual_rate",
];

struct Columns {
    storm: usize,
    name: Option<usize>,
    time: usize,
    lat: usize,
    lon: usize,
    centre: Option<usize>,
    environment: Option<usize>,
    wind: Measured,
    radius: Option<Measured>,
    rate: Option<usize>,
}

/// A column and the unit in its name.
struct Measured {
    name: &'static str,
    column: usize,
    unit: f64,
}

/// The one of two columns that is there.
fn measured(table: &Table<'_>, names: [&'static str; 2], unit: f64) -> Result<Option<Measured>, Fault> {
    match names.map(|name| table.column(name)) {
        [Some(_), Some(_)] => {
            Err(Fault::at(Role::Tracks, 1, format!("has both {} and {}", names[0], names[1])))
        }
        [Some(column), None] => Ok(Some(Measured { name: names[0], column, unit })),
        [None, Some(column)] => Ok(Some(Measured { name: names[1], column, unit: 1.0 })),
        [None, None] => Ok(None),
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Recorded>, Fault> {
    let mut table = Table::open(Role::Tracks, bytes, &KNOWN)?;
    let wind = measured(&table, ["max_wind_kn", "max_wind_ms"], KNOT_MS)?;
    let columns = Columns {
        storm: table.needed("storm")?,
        name: table.column("name"),
        time: table.needed("time")?,
        lat: table.needed("lat")?,
        lon: table.needed("lon")?,
        centre: table.column("central_pressure_hpa"),
        environment: table.column("environmental_pressure_hpa"),
        wind: wind.ok_or_else(|| Fault::at(Role::Tracks, 1, "has neither max_wind_kn nor max_wind_ms"))?,
        radius: measured(&table, ["radius_max_wind_nm", "radius_max_wind_km"], NAUTICAL_MILE_KM)?,
        rate: table.column("annual_rate"),
    };
    let mut storms: Vec<Recorded> = Vec::new();
    let mut ended: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
    while let Some(row) = table.next() {
        let row = row?;
        let id = row.cell(Some(columns.storm));
        if id.is_empty() {
            return Err(row.fault("storm is empty"));
        }
        let rate = row.number_or_none("annual_rate", columns.rate, 1e-12, 100.0)?;
        if storms.last().is_none_or(|storm| storm.id != id) {
            if let Some(before) = storms.last() {
                ended.insert(before.id.clone());
            }
            if ended.contains(id) {
                return Err(
                    row.fault(format!("storm {id} began further up: keep the rows of a storm together"))
                );
            }
            let name = row.cell(columns.name);
            let name = if name.is_empty() { id } else { name }.to_string();
            storms.push(Recorded {
                id: id.into(),
                name,
                line: row.line,
                annual_rate: rate,
                records: Vec::new(),
            });
        }
        if let Some(storm) = storms.last_mut() {
            if rate != storm.annual_rate {
                return Err(row.fault(format!("annual_rate of storm {id} differs from its first row's")));
            }
            storm.records.push(record(&row, &columns)?);
        }
    }
    Ok(storms)
}

fn record(row: &Row, columns: &Columns) -> Result<Record, Fault> {
    let Measured { name, column, unit } = &columns.wind;
    let wind = row.number_or_none(name, Some(*column), 0.0, 250.0)?.map(|wind| wind * unit);
    let radius = match &columns.radius {
        Some(Measured { name, column, unit }) => row
            .number_or_none(name, Some(*column), 0.0, 500.0)?
            .filter(|radius| *radius > 0.0)
            .map(|radius| radius * unit),
        None => None,
    };
    Ok(Record {
        line: row.line,
        time: time(row, row.cell(Some(columns.time)))?,
        lat: row.number("lat", columns.lat, -90.0, 90.0)?,
        lon: row.number("lon", columns.lon, -180.0, 360.0)?,
        centre: row.number_or_none("central_pressure_hpa", columns.centre, 800.0, 1100.0)?,
        environment: row.number_or_none("environmental_pressure_hpa", columns.environment, 900.0, 1100.0)?,
        wind,
        radius,
    })
}

fn time(row: &Row, cell: &str) -> Result<NaiveDateTime, Fault> {
    let plain = cell.strip_suffix('Z').unwrap_or(cell);
    ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(plain, format).ok())
        .ok_or_else(|| row.fault(format!("time = {cell:?}: must be as 1992-08-24T09:05, in UTC")))
}
