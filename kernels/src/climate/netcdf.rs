//! NetCDF files: which variable is the field, which of its dimensions are samples and which cells.
//!
//! Owns what is recognised by the CF conventions. A library reads the headers; of a classic file never more
//! than [`HEADER_BYTES_MAX`], and its values are read where they lie. Those of NetCDF-4, which is HDF5, are
//! in compressed pieces: the library takes them out, as many as the survey has room for.
//!
//! *Source*: The NetCDF Classic Format Specification; CF conventions 1.11, chapters 3 to 5, 8.1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hdf5_reader::error::Error as ReadError;
use netcdf_reader::classic::{data, header};
use netcdf_reader::{NcAttrValue, NcFile, NcFormat, NcType, NcVariable, Storage, StorageBuffer};
use tessera_protocol::climate::{Coordinate, Element, Slab, Unpack};
use tessera_protocol::limits;

use super::survey::{Described, Grid, SurveyError, checked};
use super::values;
use crate::runs::{Runs, some_of};

/// Most of a file in which its header must end. Real ones have a few kilobytes.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Longest name of a dimension. *Source*: `NC_MAX_NAME` of the C library.
const NAME_BYTES_MAX: u32 = 256;
/// Most dimensions. *Source*: `NC_MAX_DIMS` of the C library.
const DIMENSIONS_MAX: u32 = 1_024;
/// Longest text of an attribute that the output repeats. *Units*: bytes.
const ATTRIBUTE_BYTES_MAX: usize = 256;
/// Most coordinate variables that messages and output repeat, and most numbers of all of them: a file could
/// name the same bytes as often as it likes.
const COORDINATES_MAX: usize = 8;
const COORDINATE_NUMBERS_MAX: u64 = 2 * limits::CLIMATE_CELLS_MAX;
/// Most numbers of an output: its arrays and the coordinates that it repeats.
const OUTPUT_NUMBERS_MAX: u64 = limits::CLIMATE_OUTPUT_BYTES_MAX / 8 + 2 * COORDINATE_NUMBERS_MAX;
/// Most of a NetCDF-4 file that the library asks for at once: a piece of values, as long as all that a survey unpacks,
/// badly compressed.
const RANGE_BYTES_MAX: u64 = 2 * limits::CLIMATE_UNPACKED_BYTES_MAX;
/// What stands for a missing value where a file says nothing. *Source*: `NC_FILL_FLOAT`, and so on.
const FILL_F32: f64 = 9.969_209_968_386_869e36;

/// What a dimension is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Time,
    Member,
    Latitude,
    Longitude,
    Other,
}

/// What is asked of a file.
pub(super) struct Asked<'a> {
    pub(super) variable: Option<&'a str>,
    /// What the variable's units must be.
    pub(super) units: Option<&'a str>,
    /// Whether latitudes are needed.
    pub(super) latitude: bool,
    /// How much there is room for of values that have to be unpacked.
    pub(super) unpacked_bytes_max: u64,
}

/// An open file.
struct Dataset<'a> {
    file: &'a str,
    variables: Vec<NcVariable>,
    values: Values,
}

/// How its values are had.
enum Values {
    Classic { runs: Arc<dyn Runs>, record_stride: u64 },
    Hdf5(Box<NcFile>),
}

/// The field of a file.
pub(super) fn describe<R: Runs + 'static>(
    file: &str,
    runs: &Arc<R>,
    asked: &Asked<'_>,
) -> Result<Described, SurveyError> {
    let magic = some_of(&**runs, 0, 4)?;
    let dataset = match () {
        () if magic.starts_with(b"CDF") => Dataset::classic(file, runs.clone())?,
        () if magic.starts_with(b"\x89HDF") => Dataset::hdf5(file, runs.clone())?,
        () => return Err(SurveyError::Format { file: file.into() }),
    };
    let variable = dataset.choose(asked.variable)?;
    let units_found = text(variable, "units").map(str::to_owned);
    if let Some(expected) = asked.units
        && units_found.as_deref() != Some(expected)
    {
        return Err(SurveyError::Units {
            file: file.into(),
            variable: variable.name.clone(),
            found: units_found.unwrap_or_default(),
            expected: expected.into(),
        });
    }
    dataset.describe(variable, units_found, asked)
}

/// The numbers of every variable of a classic file that has some, as many as an output may have.
pub(super) fn numbers(file: &str, bytes: &Bytes) -> Result<BTreeMap<String, Vec<f64>>, SurveyError> {
    let dataset = Dataset::classic(file, Arc::new(bytes.clone()))?;
    let (mut all, mut room) = (BTreeMap::new(), OUTPUT_NUMBERS_MAX);
    for variable in &dataset.variables {
        if let Some(numbers) = dataset.numbers(variable, room) {
            room -= numbers.len() as u64;
            all.insert(variable.name.clone(), numbers);
        }
    }
    Ok(all)
}

/// A file as the library reads HDF5: by ranges.
struct Stored(Arc<dyn Runs>);

impl Storage for Stored {
    fn len(&self) -> u64 {
        self.0.bytes()
    }

    /// As of bytes in memory, to the words of the error: they are part of an answer.
    fn read_range(&self, offset: u64, len: usize) -> Result<StorageBuffer, ReadError> {
        let needed = len as u64;
        let end = offset.checked_add(needed).ok_or(ReadError::OffsetOutOfBounds(offset))?;
        if end > self.len() {
            let available = self.len().saturating_sub(offset);
            return Err(ReadError::UnexpectedEof { offset, needed, available });
        }
        if needed > RANGE_BYTES_MAX {
            return Err(ReadError::Other(format!(
                "a part of {needed} bytes is larger than any that is read at once"
            )));
        }
        let bytes =
            some_of(&*self.0, offset, needed).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(StorageBuffer::from_vec(bytes))
    }
}

impl<'a> Dataset<'a> {
    fn classic(file: &'a str, runs: Arc<dyn Runs>) -> Result<Dataset<'a>, SurveyError> {
        let begin = some_of(&*runs, 0, HEADER_BYTES_MAX as u64)?;
        let format = match begin.get(3) {
            Some(1) => NcFormat::Classic,
            Some(2) => NcFormat::Offset64,
            Some(5) => NcFormat::Cdf5,
            _ => return Err(SurveyError::Format { file: file.into() }),
        };
        let damaged = |reason: String| SurveyError::Damaged { file: file.into(), reason };
        names_are_short(&begin, format)
            .ok_or_else(|| damaged("its dimensions are not as the format has them".into()))?;
        let mut header = header::parse_header(&begin, format).map_err(|error| damaged(error.to_string()))?;
        let record_stride =
            data::compute_record_stride(&header.variables).map_err(|error| damaged(error.to_string()))?;
        if format != NcFormat::Cdf5 && begin.get(4..8) == Some(&[0xff; 4]) {
            header.records(runs.bytes(), record_stride);
        }
        Ok(Dataset { file, variables: header.variables, values: Values::Classic { runs, record_stride } })
    }

    fn hdf5(file: &'a str, runs: Arc<dyn Runs>) -> Result<Dataset<'a>, SurveyError> {
        let damaged = |error: netcdf_reader::Error| SurveyError::Damaged {
            file: file.into(),
            reason: error.to_string(),
        };
        let open = NcFile::from_storage(Arc::new(Stored(runs))).map_err(damaged)?;
        let variables = open.variables().map_err(damaged)?.to_vec();
        Ok(Dataset { file, variables, values: Values::Hdf5(Box::new(open)) })
    }

    fn variable(&self, name: &str) -> Option<&NcVariable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    /// The variable that was asked for, or the only one that can be meant.
    fn choose(&self, name: Option<&str>) -> Result<&NcVariable, SurveyError> {
        if let Some(name) = name {
            return self.variable(name).ok_or_else(|| SurveyError::NoVariable {
                file: self.file.into(),
                variable: name.into(),
                has: self.names(|_| true),
            });
        }
        let bounds: BTreeSet<&str> = self
            .variables
            .iter()
            .flat_map(|variable| [text(variable, "bounds"), text(variable, "climatology")])
            .flatten()
            .collect();
        let is_field = |variable: &NcVariable| {
            element(&variable.dtype).is_some()
                && !bounds.contains(variable.name.as_str())
                && self.axes(variable).contains(&Axis::Time)
                && self.axes(variable).len() >= 2
        };
        let mut fields = self.variables.iter().filter(|variable| is_field(variable));
        match (fields.next(), fields.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(SurveyError::NoField { file: self.file.into(), has: self.names(|_| true) }),
            (Some(_), Some(_)) => {
                Err(SurveyError::SeveralFields { file: self.file.into(), has: self.names(is_field) })
            }
        }
    }

    fn names(&self, wanted: impl Fn(&NcVariable) -> bool) -> Vec<String> {
        let all = self.variables.iter().filter(|variable| wanted(variable));
        all.map(|variable| variable.name.clone()).take(20).collect()
    }

    fn axes(&self, variable: &NcVariable) -> Vec<Axis> {
        let axes = variable.dimensions.iter().map(|dimension| self.axis(&dimension.name));
        axes.collect()
    }

    fn axis(&self, dimension: &str) -> Axis {
        let coordinate = self.variable(dimension).filter(|variable| variable.dimensions.len() == 1);
        let by_attributes = coordinate.and_then(axis_of);
        by_attributes.unwrap_or(match dimension.to_ascii_lowercase().as_str() {
            "time" | "t" => Axis::Time,
            "member" | "ensemble" | "realization" | "number" => Axis::Member,
            "lat" | "latitude" => Axis::Latitude,
            "lon" | "longitude" => Axis::Longitude,
            _ => Axis::Other,
        })
    }

    fn describe(
        &self,
        variable: &NcVariable,
        units: Option<String>,
        asked: &Asked<'_>,
    ) -> Result<Described, SurveyError> {
        let name = || variable.name.clone();
        let shape_error = |what| SurveyError::Shape { file: self.file.into(), variable: name(), what };
        let element =
            element(&variable.dtype).ok_or_else(|| shape_error("its values are no numbers that are read"))?;
        let axes = self.axes(variable);
        let is_sample = |axis: &Axis| matches!(axis, Axis::Time | Axis::Member);
        if axes.iter().filter(|axis| **axis == Axis::Time).count() != 1 {
            return Err(shape_error("it has no dimension of time, by its units, standard name or axis"));
        }
        let classic = matches!(self.values, Values::Classic { .. });
        if classic && variable.dimensions.iter().skip(1).any(|dimension| dimension.is_unlimited) {
            return Err(shape_error("its unlimited dimension is not the first"));
        }
        if variable.dimensions.iter().any(|dimension| dimension.size == 0) {
            return Err(shape_error("one of its dimensions is empty"));
        }
        // Dimensions of length one, a single level, are no part of the grid.
        let kept: Vec<usize> =
            (0..axes.len()).filter(|at| is_sample(&axes[*at]) || variable.dimensions[*at].size > 1).collect();
        let samples = kept.iter().take_while(|at| is_sample(&axes[**at])).count();
        let (of_samples, of_grid) = kept.split_at(samples);
        if of_grid.is_empty() || of_samples.len() > 2 || of_grid.iter().any(|at| is_sample(&axes[*at])) {
            return Err(shape_error(
                "its dimensions must be time, or member and time, and then those of a grid",
            ));
        }
        let sizes = |at: &usize| variable.dimensions[*at].size;
        let grid: Grid =
            of_grid.iter().map(|at| (variable.dimensions[*at].name.clone(), sizes(at))).collect();
        let cells = grid.iter().try_fold(1u64, |cells, (_, size)| cells.checked_mul(*size));
        let cells = cells.filter(|cells| *cells <= limits::CLIMATE_CELLS_MAX).ok_or_else(|| {
            SurveyError::TooLarge { file: self.file.into(), what: "cells", most: limits::CLIMATE_CELLS_MAX }
        })?;
        let counts: Vec<u64> = of_samples.iter().map(sizes).collect();
        // Records lie apart; within one, as in a variable without records, all is dense.
        let records = variable.is_record_var && of_samples.first() == Some(&0);
        let (slab, unpacked) = match &self.values {
            Values::Classic { runs, record_stride } => {
                let slab = slab(variable, element, counts, cells, records.then_some(*record_stride));
                (checked(slab, self.file, runs.bytes(), cells)?, None)
            }
            Values::Hdf5(open) => {
                let (slab, values) = self.unpacked(open, variable, element, counts, cells, asked)?;
                (slab, Some(values))
            }
        };
        let dimensions: Vec<String> = grid.iter().map(|(name, _)| name.clone()).collect();
        let time = axes.iter().position(|axis| *axis == Axis::Time).map(|at| &variable.dimensions[at]);
        Ok(Described {
            variable: name(),
            units,
            latitude: if asked.latitude { self.latitudes(variable, &grid)? } else { None },
            coordinates: self.coordinates(variable, &dimensions)?,
            time: match time {
                Some(dimension) => self.coordinate_of_time(&dimension.name, dimension.size)?,
                None => None,
            },
            grid,
            slab,
            unpacked,
        })
    }

    /// The values of a field as the library takes them out, still packed in the sense of the conventions.
    fn unpacked(
        &self,
        open: &NcFile,
        variable: &NcVariable,
        element: Element,
        counts: Vec<u64>,
        cells: u64,
        asked: &Asked<'_>,
    ) -> Result<(Slab, Vec<u8>), SurveyError> {
        // Wide enough for every number of the file's type.
        let stored = match element {
            Element::F32 | Element::I8 | Element::U8 | Element::I16 | Element::U16 => Element::F32,
            _ => Element::F64,
        };
        let count = counts.iter().try_fold(cells, |count, more| count.checked_mul(*more)).unwrap_or(u64::MAX);
        let bytes = count.saturating_mul(stored.bytes());
        if bytes > asked.unpacked_bytes_max {
            let most = asked.unpacked_bytes_max;
            return Err(SurveyError::Unpacked { file: self.file.into(), bytes, most });
        }
        let numbers = open.read_variable_as_f64(&variable.name).map_err(|error| SurveyError::Damaged {
            file: self.file.into(),
            reason: format!("{}: {error}", variable.name),
        })?;
        let values: Vec<u8> = match stored {
            Element::F32 => numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect(),
            _ => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        };
        let found = slab(variable, stored, counts, cells, None);
        let unpack = unpack_rule(variable, element);
        let slab = checked(
            Slab { offset: 0, big_endian: false, unpack, ..found },
            self.file,
            values.len() as u64,
            cells,
        )?;
        Ok((slab, values))
    }

    /// Numbers of a small variable, all of them.
    fn numbers(&self, variable: &NcVariable, most: u64) -> Option<Vec<f64>> {
        let element = element(&variable.dtype)?;
        let count = variable.dimensions.iter().try_fold(1u64, |count, one| count.checked_mul(one.size))?;
        if count == 0 || count > most {
            return None;
        }
        let (runs, record_stride) = match &self.values {
            Values::Classic { runs, record_stride } => (runs, *record_stride),
            Values::Hdf5(open) => {
                let numbers = open.read_variable_as_f64(&variable.name).ok()?;
                return (numbers.len() as u64 == count).then(|| numbers.into_iter().collect());
            }
        };
        let (records, within) = match variable.is_record_var {
            true => (variable.dimensions.first()?.size, count / variable.dimensions.first()?.size.max(1)),
            false => (1, count),
        };
        let slab =
            slab(variable, element, vec![records], within, variable.is_record_var.then_some(record_stride));
        slab.check(runs.bytes(), within).ok()?;
        let mut all = vec![0.0; count as usize];
        let mut run = vec![0; (within * element.bytes()) as usize];
        for (record, row) in all.chunks_exact_mut(within as usize).enumerate() {
            runs.read(slab.sample(record as u64), &mut run).ok()?;
            values::unpack(&slab, &run, row);
        }
        Some(all)
    }

    /// The latitude of each cell, where it is known.
    fn latitudes(&self, variable: &NcVariable, grid: &Grid) -> Result<Option<Vec<f64>>, SurveyError> {
        let auxiliary = text(variable, "coordinates").unwrap_or_default().split_ascii_whitespace();
        let names = grid.iter().map(|(name, _)| name.as_str()).chain(auxiliary);
        let candidates = names.filter_map(|name| self.variable(name));
        let mut latitudes = candidates.filter(|variable| self.is_latitude(variable));
        let Some(latitude) = latitudes.next() else { return Ok(None) };
        let damaged = || SurveyError::Coordinate { file: self.file.into(), variable: latitude.name.clone() };
        let units = text(latitude, "units").unwrap_or_default();
        if !is_degrees_north(units) {
            return Err(SurveyError::Units {
                file: self.file.into(),
                variable: latitude.name.clone(),
                found: units.into(),
                expected: "degrees_north".into(),
            });
        }
        let numbers = self.numbers(latitude, limits::CLIMATE_CELLS_MAX).ok_or_else(damaged)?;
        // A little more than a pole is rounding; anything beyond is in other units.
        if numbers.iter().any(|latitude| latitude.is_nan() || latitude.abs() > 90.001) {
            return Err(damaged());
        }
        let dimensions: Vec<&str> = latitude.dimensions.iter().map(|one| one.name.as_str()).collect();
        spread(&numbers, &dimensions, grid).map(Some).ok_or_else(damaged)
    }

    fn is_latitude(&self, variable: &NcVariable) -> bool {
        axis_of(variable) == Some(Axis::Latitude)
            || (variable.dimensions.len() == 1 && self.axis(&variable.name) == Axis::Latitude)
    }

    /// Coordinate variables of the grid that messages and output repeat.
    fn coordinates(
        &self,
        variable: &NcVariable,
        dimensions: &[String],
    ) -> Result<Vec<Coordinate>, SurveyError> {
        let auxiliary = text(variable, "coordinates").unwrap_or_default().split_ascii_whitespace();
        let names: Vec<&str> = dimensions.iter().map(String::as_str).chain(auxiliary).collect();
        let (mut all, mut room): (Vec<Coordinate>, u64) = (Vec::new(), COORDINATE_NUMBERS_MAX);
        for name in names {
            if all.len() == COORDINATES_MAX {
                break;
            }
            let Some(coordinate) = self.variable(name) else { continue };
            let of: Vec<String> = coordinate.dimensions.iter().map(|one| one.name.clone()).collect();
            let fits = !of.is_empty() && of.iter().all(|one| dimensions.contains(one));
            if !fits
                || all.iter().any(|one| one.name == coordinate.name)
                || element(&coordinate.dtype).is_none()
            {
                continue;
            }
            let most = room.min(limits::CLIMATE_CELLS_MAX);
            let coordinate = self.coordinate(coordinate, of, most)?;
            room -= coordinate.values.len() as u64;
            all.push(coordinate);
        }
        Ok(all)
    }

    fn coordinate_of_time(&self, dimension: &str, length: u64) -> Result<Option<Coordinate>, SurveyError> {
        let Some(time) = self.variable(dimension) else { return Ok(None) };
        if time.dimensions.len() != 1 || element(&time.dtype).is_none() {
            return Ok(None);
        }
        let units = text(time, "units").unwrap_or_default();
        if !units.contains(" since ") {
            return Err(SurveyError::Units {
                file: self.file.into(),
                variable: time.name.clone(),
                found: units.into(),
                expected: "a unit of time since a date, as in `days since 1900-01-01`".into(),
            });
        }
        self.coordinate(time, vec![dimension.to_owned()], length).map(Some)
    }

    fn coordinate(
        &self,
        variable: &NcVariable,
        dimensions: Vec<String>,
        most: u64,
    ) -> Result<Coordinate, SurveyError> {
        let damaged = || SurveyError::Coordinate { file: self.file.into(), variable: variable.name.clone() };
        let values = self.numbers(variable, most).ok_or_else(damaged)?;
        let names = ["units", "standard_name", "long_name", "axis", "calendar", "positive"];
        let attributes = names.iter().filter_map(|name| {
            let text = text(variable, name).filter(|text| text.len() <= ATTRIBUTE_BYTES_MAX)?;
            Some(((*name).to_owned(), text.to_owned()))
        });
        Ok(Coordinate { name: variable.name.clone(), dimensions, attributes: attributes.collect(), values })
    }
}

/// Where values lie in a classic file, or dense ones anywhere.
fn slab(
    variable: &NcVariable,
    element: Element,
    mut counts: Vec<u64>,
    cells: u64,
    record_stride: Option<u64>,
) -> Slab {
    let sample = cells.saturating_mul(element.bytes());
    if counts.len() == 1 {
        counts.insert(0, 1);
    }
    let [outer, inner] = [counts[0], counts[1]];
    let dense = inner.saturating_mul(sample);
    let strides = match (record_stride, outer) {
        (None, _) => [dense, sample],
        (Some(record), 1) => [0, record],
        (Some(record), _) => [record, sample],
    };
    let unpack = unpack_rule(variable, element);
    Slab { offset: variable.data_offset, counts: [outer, inner], strides, element, big_endian: true, unpack }
}

/// The number of records of a file that was written as a stream.
trait Records {
    fn records(&mut self, file_bytes: u64, record_stride: u64);
}

impl Records for header::ClassicHeader {
    fn records(&mut self, file_bytes: u64, record_stride: u64) {
        let of_records = self.variables.iter().filter(|variable| variable.is_record_var);
        let begin = of_records.map(|variable| variable.data_offset).min().unwrap_or(file_bytes);
        let count = file_bytes.saturating_sub(begin).checked_div(record_stride).unwrap_or(0);
        for variable in &mut self.variables {
            let unlimited = variable.dimensions.iter_mut().filter(|dimension| dimension.is_unlimited);
            unlimited.for_each(|dimension| dimension.size = count);
        }
    }
}

/// Whether no dimension has a name so long that copies of it, one for each use, would fill the memory.
fn names_are_short(bytes: &[u8], format: NcFormat) -> Option<()> {
    let wide = format == NcFormat::Cdf5;
    let mut rest = bytes.get(4..)?;
    let count = |rest: &mut &[u8]| -> Option<u32> {
        if wide {
            let (number, others) = rest.split_first_chunk()?;
            *rest = others;
            return u32::try_from(u64::from_be_bytes(*number)).ok();
        }
        let (number, others) = rest.split_first_chunk()?;
        *rest = others;
        Some(u32::from_be_bytes(*number))
    };
    // The number of records is no count of what follows, and may be all ones.
    rest = rest.get(if wide { 8.. } else { 4.. })?;
    rest = rest.get(4..)?;
    let dimensions = count(&mut rest)?;
    if dimensions > DIMENSIONS_MAX {
        return None;
    }
    for _ in 0..dimensions {
        let length = count(&mut rest).filter(|length| *length <= NAME_BYTES_MAX)?;
        rest = rest.get(length.next_multiple_of(4) as usize..)?;
        count(&mut rest)?;
    }
    Some(())
}

fn element(dtype: &NcType) -> Option<Element> {
    Some(match dtype {
        NcType::Byte => Element::I8,
        NcType::UByte => Element::U8,
        NcType::Short => Element::I16,
        NcType::UShort => Element::U16,
        NcType::Int => Element::I32,
        NcType::UInt => Element::U32,
        NcType::Int64 => Element::I64,
        NcType::Float => Element::F32,
        NcType::Double => Element::F64,
        _ => return None,
    })
}

fn text<'a>(variable: &'a NcVariable, name: &str) -> Option<&'a str> {
    match &variable.attribute(name)?.value {
        NcAttrValue::Chars(text) => Some(text.trim()),
        NcAttrValue::Strings(texts) => texts.first().map(|text| text.trim()),
        _ => None,
    }
}

fn axis_of(variable: &NcVariable) -> Option<Axis> {
    let units = text(variable, "units").unwrap_or_default();
    match (text(variable, "standard_name"), text(variable, "axis")) {
        (Some("latitude"), _) => Some(Axis::Latitude),
        (Some("longitude"), _) => Some(Axis::Longitude),
        (Some("time"), _) | (_, Some("T" | "t")) => Some(Axis::Time),
        (Some("realization"), _) | (_, Some("E" | "e")) => Some(Axis::Member),
        _ if units.contains(" since ") => Some(Axis::Time),
        _ if is_degrees_north(units) => Some(Axis::Latitude),
        _ if is_degrees_east(units) => Some(Axis::Longitude),
        (_, Some(_)) => Some(Axis::Other),
        _ => None,
    }
}

/// *Source*: CF conventions, 4.1.
fn is_degrees_north(units: &str) -> bool {
    matches!(units, "degrees_north" | "degree_north" | "degree_N" | "degrees_N" | "degreeN" | "degreesN")
}

/// *Source*: CF conventions, 4.2.
fn is_degrees_east(units: &str) -> bool {
    matches!(units, "degrees_east" | "degree_east" | "degree_E" | "degrees_E" | "degreeE" | "degreesE")
}

/// Numbers over some of the grid's dimensions, for each of its cells.
fn spread(numbers: &[f64], dimensions: &[&str], grid: &Grid) -> Option<Vec<f64>> {
    let mut strides = vec![0usize; grid.len()];
    let mut stride = 1;
    for dimension in dimensions.iter().rev() {
        let at = grid.iter().position(|(name, _)| name == dimension)?;
        strides[at] = stride;
        stride *= grid[at].1 as usize;
    }
    if stride != numbers.len() {
        return None;
    }
    let cells: u64 = grid.iter().map(|(_, size)| size).product();
    let cell = |cell: u64| {
        let (mut left, mut place) = (cell, 0);
        for ((_, size), stride) in grid.iter().zip(&strides).rev() {
            place += (left % size) as usize * stride;
            left /= size;
        }
        numbers[place]
    };
    Some((0..cells).map(cell).collect())
}

fn unpack_rule(variable: &NcVariable, element: Element) -> Unpack {
    let numbers = |name: &str| variable.attribute(name).and_then(|attribute| attribute.value.as_f64_vec());
    // Attributes are compared in the variable's type, as the field's tools do.
    let cast = |number: f64| if element == Element::F32 { f64::from(number as f32) } else { number };
    let fill = numbers("_FillValue");
    let mut missing: Vec<f64> = [&fill, &numbers("missing_value")]
        .into_iter()
        .flatten()
        .flatten()
        .map(|number| cast(*number))
        .collect();
    if fill.is_none() {
        missing.extend(default_fill(element));
    }
    missing.retain(|number| !number.is_nan());
    missing.truncate(16);
    let one = |name: &str| numbers(name).and_then(|all| all.first().copied()).map(cast);
    let range = numbers("valid_range").filter(|range| range.len() == 2);
    let [low, high] = match range.as_deref() {
        Some([low, high]) => [Some(cast(*low)), Some(cast(*high))],
        _ => [one("valid_min"), one("valid_max")],
    };
    let (scale, offset) = (one("scale_factor"), one("add_offset"));
    let exact = |name: &str| numbers(name).and_then(|all| all.first().copied());
    Unpack {
        packed: scale.is_some() || offset.is_some(),
        scale: exact("scale_factor").unwrap_or(1.0),
        offset: exact("add_offset").unwrap_or(0.0),
        missing,
        valid: [low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)],
    }
}

/// Bytes have none that is honoured. *Source*: the C library's `netcdf.h`.
fn default_fill(element: Element) -> Option<f64> {
    match element {
        Element::I8 | Element::U8 => None,
        Element::I16 => Some(-32_767.0),
        Element::U16 => Some(65_535.0),
        Element::I32 => Some(-2_147_483_647.0),
        Element::U32 => Some(4_294_967_295.0),
        Element::I64 => Some(-9_223_372_036_854_775_806.0),
        Element::F32 | Element::F64 => Some(FILL_F32),
    }
}
