//! What a stage can find wrong with a client's data, in words.
//!
//! Owns the messages. A finding is an answer like any other: every agent finds the same, and a planner ends
//! the job with its words.

use std::fmt;

use tessera_protocol::climate::{Coordinate, Coordinates, Head, Source};
use tessera_protocol::product::Product;

use super::values::Find;
use super::{KernelError, files};

/// Longest message. *Units*: characters.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// A value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) cell: u64,
    /// Position of the file.
    pub(super) file: usize,
    /// Position within the file.
    pub(super) sample: u64,
}

/// What is wrong with values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// A cell has values at some times only.
    PartlyMissing {
        /// The first that is missing.
        place: Place,
        missing: u64,
        samples: u64,
    },
    /// A cell that the modes need is missing in what is projected onto them.
    MissingInNew(Place),
    Infinite(Place),
    /// The mean or factor of a cell is beyond the largest double.
    TooLarge {
        cell: u64,
    },
    /// A weight that is negative, infinite or none.
    Weight {
        cell: u64,
    },
    /// A product of anomalies is beyond the largest double.
    Overflow,
    /// No cell has a value that changes.
    NoVariance,
    /// The eigenvalues were not found.
    NotConverged,
}

impl Finding {
    /// As a product whose head says it.
    pub(super) fn product(&self) -> Product {
        refusal(&Told { finding: self, coordinates: None }.to_string())
    }

    /// As [`Finding::product`], with the coordinates that the survey found.
    pub(super) fn product_with(&self, survey: &Source, find: &Find<'_>) -> Result<Product, KernelError> {
        let coordinates = files::file(survey, "coordinates", find)?;
        let coordinates = Coordinates::decode(&coordinates).map_err(|_| KernelError::Product)?;
        Ok(refusal(&Told { finding: self, coordinates: Some(&coordinates) }.to_string()))
    }
}

/// A finding and what is known of where.
struct Told<'a> {
    finding: &'a Finding,
    coordinates: Option<&'a Coordinates>,
}

impl Told<'_> {
    fn cell(&self, cell: u64) -> String {
        self.coordinates.map(|coordinates| coordinates_of(coordinates, cell)).unwrap_or_default()
    }

    fn time(&self, place: &Place, new: bool) -> String {
        let times = self.coordinates.map(|all| if new { &all.new_times } else { &all.times });
        let time = times.and_then(|times| times.get(place.file)?.as_ref());
        let which = if new { "projected file" } else { "file" };
        let position = format!("sample {} of {which} {}", place.sample + 1, place.file + 1);
        match time.and_then(|time| Some((time, time.values.get(place.sample as usize)?))) {
            Some((time, value)) => format!("{position} ({} = {value} {})", time.name, units(time)),
            None => position,
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finding {
            Finding::PartlyMissing { place, missing, samples } => write!(
                f,
                "cell {}{} is missing in {missing} of {samples} samples, first in {}: a cell must have all its \
                 values or none; fill them or mask the cell",
                place.cell,
                self.cell(place.cell),
                self.time(place, false)
            ),
            Finding::MissingInNew(place) => write!(
                f,
                "cell {}{} is missing in {}, but the modes have a loading there: fill it before projecting",
                place.cell,
                self.cell(place.cell),
                self.time(place, true)
            ),
            Finding::Infinite(place) => write!(
                f,
                "cell {}{} is infinite in {}: mark it as missing or mend it",
                place.cell,
                self.cell(place.cell),
                self.time(place, false)
            ),
            Finding::TooLarge { cell } => {
                write!(f, "the values of cell {cell}{} are too large: change their units", self.cell(*cell))
            }
            Finding::Weight { cell } => write!(
                f,
                "the weight of cell {cell}{} is negative or not a number: weights are zero or more",
                self.cell(*cell)
            ),
            Finding::Overflow => {
                f.write_str("products of the field's anomalies are too large: change its units")
            }
            Finding::NoVariance => {
                f.write_str("the field has no variance: every cell is the same in all samples")
            }
            Finding::NotConverged => {
                f.write_str("the eigenvalues of the field did not converge: look for extreme values in it")
            }
        }
    }
}

/// A product whose head says why there is nothing else.
pub(super) fn refusal(message: &str) -> Product {
    let message = message.chars().take(MESSAGE_CHARS_MAX).collect();
    Product { head: Head::Refused(message).encode(), files: Vec::new() }
}

fn units(coordinate: &Coordinate) -> &str {
    let units = coordinate.attributes.iter().find(|(name, _)| name == "units");
    units.map_or("", |(_, units)| units.as_str())
}

/// ` (latitude 42.5 degrees_north, longitude 10 degrees_east)`, as far as coordinates are known.
fn coordinates_of(coordinates: &Coordinates, cell: u64) -> String {
    let mut left = cell;
    let mut words = Vec::new();
    // Dimensions with their coordinate variables, the last one fastest; others over the whole grid.
    for coordinate in coordinates.grid.iter().rev() {
        let length = coordinate.values.len() as u64;
        let at = match coordinate.dimensions.len() {
            1 if length > 0 => {
                let at = left % length;
                left /= length;
                at
            }
            _ => cell,
        };
        if let Some(value) = coordinate.values.get(at as usize) {
            words.push(format!("{} {value} {}", coordinate.name, units(coordinate)).trim_end().to_owned());
        }
    }
    words.reverse();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}
