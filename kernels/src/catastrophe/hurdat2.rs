//! NOAA's HURDAT2: lines of comma-separated fields, a header before each storm.
//!
//! *Source*: Landsea and Beven, "The revised Atlantic hurricane database (HURDAT2)", National Hurricane Center.

use chrono::NaiveDateTime;

use super::csv_table::number;
use super::fault::{Fault, Role, text};
use super::tracks::{KNOT_MS, NAUTICAL_MILE_KM, Record, Recorded};

/// Most points of one storm: a month of hours, and more than any had.
const POINTS_MAX: usize = 10_000;

pub(super) fn read(bytes: &[u8]) -> Result<Vec<Recorded>, Fault> {
    let mut storms = Vec::new();
    let mut lines = (1..).zip(text(Role::Tracks, bytes)?.lines()).filter(|(_, line)| !line.trim().is_empty());
    while let Some((line, header)) = lines.next() {
        let mut fields = header.split(',').map(str::trim);
        let (id, name, count) = (fields.next(), fields.next(), fields.next());
        let (Some(id), Some(name), Some(Ok(count))) = (id, name, count.map(str::parse::<usize>)) else {
            return Err(wrong(line, "not the header of a storm: HURDAT2 has `AL041992, ANDREW, 66,` here"));
        };
        if id.is_empty() || !(1..=POINTS_MAX).contains(&count) {
            return Err(wrong(line, &format!("storm {id:?} with {count} points: must be 1 to {POINTS_MAX}")));
        }
        let mut records = Vec::with_capacity(count);
        for number in 0..count {
            let Some((line, fields)) = lines.next() else {
                let what = format!(
                    "the file ends after {number} of the {count} points of storm {id}: it was cut short"
                );
                return Err(wrong(line, &what));
            };
            records.push(record(line, fields)?);
        }
        storms.push(Recorded { id: id.into(), name: name.into(), line, annual_rate: None, records });
    }
    Ok(storms)
}

fn wrong(line: u64, what: &str) -> Fault {
    Fault::at(Role::Tracks, line, what)
}

/// Fields, from zero: date, time, kind of entry, status, latitude, longitude, wind in knots, pressure in hPa, twelve
/// radii of winds, the radius of the strongest wind in nautical miles (since 2021).
fn record(line: u64, text: &str) -> Result<Record, Fault> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    if fields.len() < 8 {
        return Err(wrong(
            line,
            "not a point of a storm: HURDAT2 has at least eight fields, from date to pressure",
        ));
    }
    let moment = format!("{} {}", fields[0], fields[1]);
    let time = NaiveDateTime::parse_from_str(&moment, "%Y%m%d %H%M")
        .map_err(|_| wrong(line, &format!("{moment:?} is no date and time as 19920824, 0905")))?;
    let lat = degrees(fields[4], 'N', 'S', 90.0)
        .ok_or_else(|| wrong(line, &format!("{:?} is no latitude as 25.5N", fields[4])))?;
    let lon = degrees(fields[5], 'E', 'W', 360.0)
        .ok_or_else(|| wrong(line, &format!("{:?} is no longitude as 80.3W", fields[5])))?;
    let known =
        |position: usize, name: &str, most: f64| match fields.get(position).copied().unwrap_or_default() {
            "" | "-99" | "-999" => Ok(None),
            field => match number(field, 0.0, most) {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(
                    line,
                    &format!("{name} {field:?}: must be from 0 to {most}, or -99 or -999 where unknown"),
                )),
            },
        };
    Ok(Record {
        line,
        time,
        lat,
        lon,
        wind: known(6, "wind", 250.0)?.map(|knots| knots * KNOT_MS),
        centre: known(7, "pressure", 1100.0)?,
        environment: None,
        radius: known(20, "radius", 300.0)?
            .filter(|miles| *miles > 0.0)
            .map(|miles| miles * NAUTICAL_MILE_KM),
    })
}

/// `25.5N` and the like.
fn degrees(field: &str, plus: char, minus: char, most: f64) -> Option<f64> {
    let (digits, sign) = match field.strip_suffix(plus) {
        Some(digits) => (digits, 1.0),
        None => (field.strip_suffix(minus)?, -1.0),
    };
    number(digits.trim(), 0.0, most).map(|degrees| sign * degrees)
}
