//! Storms as they were recorded: which are taken, and what a file leaves out.
//!
//! Owns recorded tracks in the model's units and the estimates for missing numbers. How a file is written, its
//! reader says; what becomes of a track, the storm's room.

use std::collections::BTreeSet;

use chrono::{Datelike, NaiveDateTime};
use tessera_protocol::catastrophe::Tracks;

use super::fault::{Fault, Role};
use super::{hurdat2, track_csv};
use crate::elementary::{exp, pow};

/// *Units*: m/s in a knot.
pub(super) const KNOT_MS: f64 = 1852.0 / 3600.0;
/// *Units*: km in a nautical mile.
pub(super) const NAUTICAL_MILE_KM: f64 = 1.852;
/// A storm that a file says moves faster than this between two points has a wrong sign or date. *Units*: km/h.
const SPEED_KMH_MAX: f64 = 300.0;
/// *Units*: km in a degree of latitude, for that check alone.
const DEGREE_KM: f64 = 111.2;
/// Longest life of a storm: the longest was 36 days. *Units*: minutes.
const LIFE_MAX: f64 = 100.0 * 24.0 * 60.0;
/// Longest id or name. *Units*: bytes. The tables of the most events then fit one product.
const ID_BYTES_MAX: usize = 24;
/// Storms of one job: HURDAT2 has 2,000.
const STORMS_MAX: usize = 100_000;

/// A storm as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Its id in the file.
    pub id: String,
    /// Its name there, or its id.
    pub name: String,
    /// How often it happens. *Units*: a year.
    pub annual_rate: f64,
    /// *Order*: by time, at least two.
    pub fixes: Vec<Fix>,
}

/// Where a storm was and how strong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fix {
    /// From an origin of its own. *Units*: minutes.
    pub minutes: f64,
    /// *Units*: degrees north.
    pub lat: f64,
    /// Continued across the date line, so that neighbours are at most 180° apart. *Units*: degrees east.
    pub lon: f64,
    /// Pressure around the storm less that in its centre, at least a thousandth. *Units*: hPa.
    pub deficit: f64,
    /// Strongest one-minute wind at 10 m. *Units*: m/s.
    pub wind: f64,
    /// Where it blows. *Units*: km.
    pub radius: f64,
}

/// One line of a file of tracks, in its words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) line: u64,
    pub(super) time: NaiveDateTime,
    pub(super) lat: f64,
    pub(super) lon: f64,
    /// *Units*: hPa.
    pub(super) centre: Option<f64>,
    /// *Units*: hPa.
    pub(super) environment: Option<f64>,
    /// In the file's convention. *Units*: m/s.
    pub(super) wind: Option<f64>,
    /// *Units*: km.
    pub(super) radius: Option<f64>,
}

/// One storm of a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recorded {
    pub(super) id: String,
    pub(super) name: String,
    /// Where it begins.
    pub(super) line: u64,
    pub(super) annual_rate: Option<f64>,
    pub(super) records: Vec<Record>,
}

/// The storms of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// In the order of the file.
    pub tracks: Vec<Track>,
    /// First and last year.
    pub years: [i32; 2],
}

/// Reads a file and takes the storms that were asked for.
pub fn read(spec: &Tracks, bytes: &[u8]) -> Result<Catalogue, Fault> {
    let mut storms = if spec.csv { track_csv::read(bytes)? } else { hurdat2::read(bytes)? };
    let year = |storm: &Recorded| storm.records.first().map_or(0, |record| record.time.year());
    let found = storms.iter().map(year);
    let years = match (spec.years, found.clone().min(), found.max()) {
        (Some(years), _, _) => years,
        (None, Some(first), Some(last)) => [first, last],
        _ => return Err(Fault::of(Role::Tracks, "holds no storm")),
    };
    for wanted in &spec.storms {
        if !storms.iter().any(|storm| storm.id == *wanted) {
            return Err(Fault::of(Role::Tracks, format!("holds no storm {wanted:?}")));
        }
    }
    let named: BTreeSet<&str> = spec.storms.iter().map(String::as_str).collect();
    storms.retain(|storm| {
        (years[0]..=years[1]).contains(&year(storm))
            && (named.is_empty() || named.contains(storm.id.as_str()))
    });
    if storms.is_empty() || storms.len() > STORMS_MAX {
        let what = format!(
            "{} storms of the years {} to {} are taken: must be 1 to {STORMS_MAX}",
            storms.len(),
            years[0],
            years[1]
        );
        return Err(Fault::of(Role::Tracks, what));
    }
    let once = 1.0 / f64::from(years[1] - years[0] + 1);
    let tracks = storms.into_iter().map(|storm| track(spec, storm, once)).collect::<Result<_, _>>()?;
    Ok(Catalogue { tracks, years })
}

fn track(spec: &Tracks, storm: Recorded, once: f64) -> Result<Track, Fault> {
    let Recorded { id, name, line, annual_rate, records } = storm;
    if id.len() > ID_BYTES_MAX || name.len() > ID_BYTES_MAX {
        let what = format!("storm {id:?}, {name:?}: ids and names have at most {ID_BYTES_MAX} bytes");
        return Err(Fault::at(Role::Tracks, line, what));
    }
    let annual_rate = spec.annual_rate.or(annual_rate).unwrap_or(once);
    let mut fixes: Vec<Fix> = Vec::with_capacity(records.len());
    let start = records.first().map(|record| record.time).unwrap_or_default();
    for record in &records {
        // Where the wind is not known, the track goes straight on to the next point.
        let Some(wind) = record.wind else { continue };
        let minutes = (record.time - start).num_minutes() as f64;
        let mut fix = fix(spec, record, wind, minutes);
        if minutes > LIFE_MAX {
            let what = format!("storm {id} would be more than 100 days old: check times");
            return Err(Fault::at(Role::Tracks, record.line, what));
        }
        if let Some(last) = fixes.last() {
            if fix.minutes <= last.minutes {
                return Err(Fault::at(
                    Role::Tracks,
                    record.line,
                    format!("storm {id} is not later here than at its point before"),
                ));
            }
            fix.lon = last.lon + turned(fix.lon - last.lon);
            let (north, east) = (fix.lat - last.lat, fix.lon - last.lon);
            let km = DEGREE_KM * (north * north + east * east).sqrt();
            if km > SPEED_KMH_MAX * (fix.minutes - last.minutes) / 60.0 {
                let what = format!(
                    "storm {id} would have moved {} km since its point before: check signs and times",
                    km.floor()
                );
                return Err(Fault::at(Role::Tracks, record.line, what));
            }
        }
        fixes.push(fix);
    }
    if fixes.len() < 2 {
        let what = format!(
            "storm {id} has {} with a wind: a track needs two; add points, or leave it out by `tracks.storms` or `tracks.years`",
            if fixes.is_empty() { "no point" } else { "one point" }
        );
        return Err(Fault::at(Role::Tracks, line, what));
    }
    Ok(Track { id, name, annual_rate, fixes })
}

fn fix(spec: &Tracks, record: &Record, wind: f64, minutes: f64) -> Fix {
    let wind = wind * spec.to_one_minute;
    let environment = record.environment.unwrap_or(spec.environment_hpa);
    let deficit = record.centre.map_or_else(|| deficit_of(wind), |centre| environment - centre);
    Fix {
        minutes,
        lat: record.lat,
        lon: record.lon,
        deficit: if deficit > 1e-3 { deficit } else { 1e-3 },
        wind,
        radius: record.radius.unwrap_or_else(|| radius_of(wind, record.lat)),
    }
}

/// Degrees of longitude as the shorter way around.
fn turned(degrees: f64) -> f64 {
    if degrees > 180.0 {
        degrees - 360.0
    } else if degrees < -180.0 {
        degrees + 360.0
    } else {
        degrees
    }
}

/// The pressure deficit of a storm of which only the wind is known. *Units*: hPa, m/s.
///
/// *Source*: Atkinson and Holliday (1977), Monthly Weather Review 105, 421–427: `V = 6.7 Δp^0.644` in knots.
fn deficit_of(wind: f64) -> f64 {
    pow(wind / KNOT_MS / 6.7, 1.0 / 0.644)
}

/// The radius of the strongest wind where it was not recorded. *Units*: km, m/s, degrees.
///
/// *Source*: Willoughby, Darling and Rahn (2006), Monthly Weather Review 134, 1102–1120, equation 7a, with the wind
/// at flight level as the surface wind over 0.9.
fn radius_of(wind: f64, lat: f64) -> f64 {
    46.4 * exp((-0.0155 * (wind / 0.9)) + 0.0169 * lat.abs())
}
