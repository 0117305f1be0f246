//! The `survey` stage: where the field lies in its files, and whether they fit each other.
//!
//! Owns what a file must be to be analysed, and the words where it is not.

use std::fmt;
use std::sync::Arc;

use tessera_protocol::climate::{
    Coordinate, Coordinates, Found, Head, Named, Slab, Survey, SurveyTask, TaskError, Weights,
};
use tessera_protocol::limits;
use tessera_protocol::product::{File, Product};

use super::values::{self, Find};
use super::{KernelError, files, finding, netcdf, npy};
use crate::runs::{Unreadable, Watched, some_of};

/// Names and lengths of the dimensions of a grid.
pub(super) type Grid = Vec<(String, u64)>;

/// Coordinates of two files that differ by no more than this part are the same.
const COORDINATE_TOLERANCE: f64 = 1e-6;

/// The field in one file.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) variable: String,
    pub(super) units: Option<String>,
    pub(super) grid: Grid,
    pub(super) slab: Slab,
    /// Of each cell, where it is known and asked for.
    pub(super) latitude: Option<Vec<f64>>,
    pub(super) coordinates: Vec<Coordinate>,
    pub(super) time: Option<Coordinate>,
    /// The values, where they do not lie in the file as they are; the slab is then of these.
    pub(super) unpacked: Option<Vec<u8>>,
}

/// Why files cannot be analysed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SurveyError {
    /// Neither NetCDF nor `.npy`.
    Format {
        file: String,
    },
    /// More values in NetCDF-4 files than a survey unpacks.
    Unpacked {
        file: String,
        bytes: u64,
        most: u64,
    },
    /// A header that is not what its format says.
    Damaged {
        file: String,
        reason: String,
    },
    /// A header that names bytes which the file has not.
    CutShort {
        file: String,
        bytes: u64,
    },
    NoVariable {
        file: String,
        variable: String,
        has: Vec<String>,
    },
    NoField {
        file: String,
        has: Vec<String>,
    },
    SeveralFields {
        file: String,
        has: Vec<String>,
    },
    Shape {
        file: String,
        variable: String,
        what: &'static str,
    },
    Units {
        file: String,
        variable: String,
        found: String,
        expected: String,
    },
    /// A coordinate variable whose values cannot be used.
    Coordinate {
        file: String,
        variable: String,
    },
    /// A `.npy` that is no field or no weights.
    Array {
        file: String,
        reason: String,
    },
    TooLarge {
        file: String,
        what: &'static str,
        most: u64,
    },
    TooFew,
    OtherGrid {
        file: String,
        found: String,
        first: String,
        expected: String,
    },
    OtherCoordinate {
        file: String,
        first: String,
        coordinate: String,
    },
    OtherUnits {
        file: String,
        found: String,
        first: String,
        expected: String,
    },
    NoLatitude {
        file: String,
    },
    /// Not of the file but of this machine: no answer.
    Unreadable(Unreadable),
}

impl From<Unreadable> for SurveyError {
    fn from(error: Unreadable) -> SurveyError {
        SurveyError::Unreadable(error)
    }
}

impl fmt::Display for SurveyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SurveyError::Format { file } => write!(
                f,
                "{file}: neither a NetCDF nor a .npy file; convert Zarr with xarray's \
                 to_netcdf(format=\"NETCDF3_64BIT\")"
            ),
            SurveyError::Unpacked { file, bytes, most } => write!(
                f,
                "{file}: its values are {bytes} bytes that have to be unpacked, {most} at most are; convert it with \
                 `nccopy -k nc6 {file} new.nc`, whose values are read where they lie"
            ),
            SurveyError::Damaged { file, reason } => {
                write!(f, "{file}: its header is not that of a NetCDF file: {reason}")
            }
            SurveyError::CutShort { file, bytes } => write!(
                f,
                "{file}: cut short: it has {bytes} bytes, and its header speaks of more; copy it again"
            ),
            SurveyError::NoVariable { file, variable, has } => {
                write!(f, "{file}: has no variable {variable:?}; it has {}", list(has))
            }
            SurveyError::NoField { file, has } => write!(
                f,
                "{file}: has no variable over time and a grid; it has {}, and `params.variable` names one",
                list(has)
            ),
            SurveyError::SeveralFields { file, has } => write!(
                f,
                "{file}: has several variables over time and a grid: {}; name one in `params.variable`",
                list(has)
            ),
            SurveyError::Shape { file, variable, what } => write!(f, "{file}: {variable}: {what}"),
            SurveyError::Units { file, variable, found, expected } => {
                write!(f, "{file}: {variable} has units {found:?} where {expected} is needed")
            }
            SurveyError::Coordinate { file, variable } => write!(
                f,
                "{file}: the coordinate {variable} has values that it cannot have, or has not all of them"
            ),
            SurveyError::Array { file, reason } => write!(f, "{file}: {reason}"),
            SurveyError::TooLarge { file, what, most } => {
                write!(f, "{file}: too many {what}: at most {most} are analysed; take a part, or averages")
            }
            SurveyError::TooFew => {
                f.write_str("the field has one sample: modes of variance need two or more")
            }
            SurveyError::OtherGrid { file, found, first, expected } => {
                write!(
                    f,
                    "{file}: its grid is {found}, but that of {first} is {expected}: they must be the same"
                )
            }
            SurveyError::OtherCoordinate { file, first, coordinate } => {
                write!(f, "{file}: its {coordinate} differs from that of {first}: they must be of one grid")
            }
            SurveyError::OtherUnits { file, found, first, expected } => write!(
                f,
                "{file}: its units are {found:?}, but those of {first} are {expected:?}: they must be the same"
            ),
            SurveyError::NoLatitude { file } => {
                write!(f, "{file}: has no latitude to weight by; give `params.weights` as a .npy, or `none`")
            }
            SurveyError::Unreadable(error) => error.fmt(f),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A slab whose bytes are there.
pub(super) fn checked(slab: Slab, file: &str, bytes: u64, cells: u64) -> Result<Slab, SurveyError> {
    match slab.check(bytes, cells) {
        Ok(()) => Ok(slab),
        Err(TaskError::Place) => Err(SurveyError::CutShort { file: file.into(), bytes }),
        Err(TaskError::Size | TaskError::Malformed) => Err(SurveyError::TooLarge {
            file: file.into(),
            what: "samples",
            most: limits::CLIMATE_SAMPLES_MAX,
        }),
    }
}

pub(super) fn run(task: &SurveyTask, find: &Find<'_>) -> Result<Product, KernelError> {
    let open = task.field.iter().chain(&task.new).map(|named| watch(named, find));
    let open = open.collect::<Result<Vec<_>, KernelError>>()?;
    let weights = match &task.weights {
        Weights::Given(named) => Some(watch(named, find)?),
        Weights::None | Weights::SqrtCosLatitude => None,
    };
    let found = survey(task, &open, weights.as_ref());
    // What a library says of a file that could not be read is nothing that other agents would find.
    open.iter().chain(&weights).try_for_each(|(_, runs)| runs.check())?;
    Ok(found.unwrap_or_else(|error| finding::refusal(&error.to_string())))
}

/// A file with the name that the client gave it.
type Open<'a> = (&'a Named, Arc<Watched>);

fn watch<'a>(named: &'a Named, find: &Find<'_>) -> Result<Open<'a>, KernelError> {
    Ok((named, Arc::new(Watched::new(values::open(find, &named.source)?))))
}

fn survey(task: &SurveyTask, open: &[Open<'_>], weights: Option<&Open<'_>>) -> Result<Product, SurveyError> {
    let needs_latitude = task.weights == Weights::SqrtCosLatitude;
    let describe = |position: usize, (named, runs): &Open<'_>, room: u64| {
        let latitude = needs_latitude && position == 0;
        match some_of(&**runs, 0, npy::MAGIC.len() as u64)?.starts_with(npy::MAGIC) {
            true => npy::describe(&named.name, &**runs),
            false => {
                let asked = netcdf::Asked {
                    variable: task.variable.as_deref(),
                    units: task.units.as_deref(),
                    latitude,
                    unpacked_bytes_max: room,
                };
                netcdf::describe(&named.name, runs, &asked)
            }
        }
    };
    let (mut all, mut found, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let mut room = limits::CLIMATE_UNPACKED_BYTES_MAX;
    for (position, file) in open.iter().enumerate() {
        let mut described = describe(position, file, room)?;
        let unpacked = described.unpacked.take().map(|bytes| {
            room -= bytes.len() as u64;
            let name = format!("values-{position}");
            files.push(File { name: name.clone(), bytes });
            name
        });
        found.push(Found { slab: described.slab.clone(), unpacked });
        if let Some((first, _)) = all.first() {
            same_grid(first, &open[0].0.name, &described, &file.0.name)?;
        }
        all.push((described, &file.0.name));
    }
    let new = all.split_off(task.field.len());
    let found_new = found.split_off(task.field.len());
    let Some((first, first_name)) = all.first() else { return Err(SurveyError::TooFew) };
    let cells = first.grid.iter().map(|(_, size)| size).product();
    if all.iter().map(|(one, _)| one.slab.samples()).sum::<u64>() < 2 {
        return Err(SurveyError::TooFew);
    }
    few_enough(&all, first_name)?;
    few_enough(&new, first_name)?;
    let weights = match weights {
        Some((named, runs)) => Some(npy::weights(&named.name, &**runs, &first.grid, cells)?),
        None => None,
    };
    if needs_latitude && first.latitude.is_none() {
        return Err(SurveyError::NoLatitude { file: (*first_name).clone() });
    }
    let head = Survey {
        variable: first.variable.clone(),
        units: first.units.clone(),
        grid: first.grid.clone(),
        field: found,
        new: found_new,
        weights,
    };
    let times = |files: &[(Described, &String)]| files.iter().map(|(one, _)| one.time.clone()).collect();
    let coordinates =
        Coordinates { grid: first.coordinates.clone(), times: times(&all), new_times: times(&new) };
    files.push(File { name: "coordinates".into(), bytes: coordinates.encode() });
    if let Some(latitude) = &first.latitude {
        files.push(File { name: "latitude".into(), bytes: files::to_bytes(latitude.iter().copied()) });
    }
    Ok(Product { head: Head::Survey(head).encode(), files })
}

fn few_enough(all: &[(Described, &String)], first_name: &str) -> Result<(), SurveyError> {
    let samples = all.iter().map(|(one, _)| one.slab.samples()).sum::<u64>();
    let most = limits::CLIMATE_SAMPLES_MAX;
    match samples > most {
        true => Err(SurveyError::TooLarge { file: first_name.to_owned(), what: "samples", most }),
        false => Ok(()),
    }
}

fn same_grid(first: &Described, first_name: &str, other: &Described, name: &str) -> Result<(), SurveyError> {
    let sizes = |grid: &Grid| grid.iter().map(|(_, size)| *size).collect::<Vec<_>>();
    if sizes(&first.grid) != sizes(&other.grid) {
        return Err(SurveyError::OtherGrid {
            file: name.into(),
            found: words(&other.grid),
            first: first_name.into(),
            expected: words(&first.grid),
        });
    }
    for coordinate in &other.coordinates {
        let same = |one: &&Coordinate| one.name == coordinate.name;
        let Some(expected) = first.coordinates.iter().find(same) else { continue };
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= COORDINATE_TOLERANCE * (1.0 + a.abs());
        let equal = coordinate.values.len() == expected.values.len()
            && coordinate.values.iter().zip(&expected.values).all(close);
        if !equal {
            return Err(SurveyError::OtherCoordinate {
                file: name.into(),
                first: first_name.into(),
                coordinate: coordinate.name.clone(),
            });
        }
    }
    match (&first.units, &other.units) {
        (Some(expected), Some(found)) if expected != found => Err(SurveyError::OtherUnits {
            file: name.into(),
            found: found.clone(),
            first: first_name.into(),
            expected: expected.clone(),
        }),
        _ => Ok(()),
    }
}

/// `lat 29 x lon 49`.
fn words(grid: &Grid) -> String {
    let words: Vec<String> = grid.iter().map(|(name, size)| format!("{name} {size}")).collect();
    words.join(" x ")
}
