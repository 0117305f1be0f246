//! The files a client gets: NetCDF-3 with coordinates, or `.npy`.
//!
//! Owns names, dimensions and attributes. Libraries write the formats.

use std::borrow::Cow;

use netcdf_writer::{DimensionId, NcAttrValue, NcFileBuilder, NcWriteOptions, NcWriteType};
use npyz::WriterBuilder;
use tessera_protocol::climate::{Coordinate, FinishTask, Scaling};
use tessera_protocol::product::File;

use super::KernelError;
use super::finish::{Results, scaled};

/// What stands for a missing number. *Source*: `NC_FILL_DOUBLE` of the C library.
const FILL: f64 = 9.969_209_968_386_869e36;
/// Names that the output has for itself.
const OWN: [&str; 8] = ["mode", "time", "member", "sample", "new_sample", "mean", "factor", "reconstruction"];

/// One array of the output.
struct Array<'a> {
    name: String,
    about: &'static str,
    units: Option<String>,
    over: Vec<Over>,
    values: Cow<'a, [f64]>,
}

/// What an array runs over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Modes,
    Samples,
    NewSamples,
    Grid,
}

pub(super) fn files(task: &FinishTask, results: &Results) -> Result<Vec<File>, KernelError> {
    let arrays = arrays(task, results);
    let mut files = Vec::new();
    if task.netcdf {
        files.push(File { name: "eof.nc".into(), bytes: netcdf(task, results, &arrays)? });
    }
    if task.npy {
        for array in &arrays {
            files.push(File { name: format!("{}.npy", array.name), bytes: npy(task, array)? });
        }
    }
    Ok(files)
}

fn arrays<'a>(task: &FinishTask, results: &'a Results) -> Vec<Array<'a>> {
    let modes = task.modes as usize;
    let squared = task.units.as_ref().map(|units| format!("({units})^2"));
    let (units, squared) = (task.units.as_ref(), squared.as_ref());
    let flags = results.errors.near_degenerate.iter().map(|close| f64::from(*close)).collect();
    let [means, factors] = [
        results.cells.iter().map(|cell| cell.mean).collect::<Vec<_>>(),
        results.cells.iter().map(|cell| if cell.is_missing() { f64::NAN } else { cell.factor }).collect(),
    ];
    let mut all = vec![
        one(
            "eigenvalues",
            "variances of the modes",
            squared,
            &[Over::Modes],
            task.eigenvalues[..modes].to_vec().into(),
        ),
        one(
            "variance_fractions",
            "parts of the total variance",
            None,
            &[Over::Modes],
            (&results.errors.variance_fractions).into(),
        ),
        one(
            "north_errors",
            "sampling errors of the eigenvalues (North et al. 1982)",
            squared,
            &[Over::Modes],
            (&results.errors.north_errors).into(),
        ),
        one(
            "near_degenerate",
            "1 where the next mode lies within the sampling error",
            None,
            &[Over::Modes],
            Cow::Owned(flags),
        ),
        one("mean", "mean that was subtracted", units, &[Over::Grid], means.into()),
        one("factor", "what anomalies were multiplied by", None, &[Over::Grid], factors.into()),
    ];
    task.scalings.iter().for_each(|scaling| all.extend(in_scaling(modes, results, *scaling)));
    if !results.reconstruction.is_empty() {
        let about = "anomalies put together from chosen modes";
        let over = [Over::Samples, Over::Grid];
        all.push(one("reconstruction", about, units, &over, (&results.reconstruction).into()));
    }
    all
}

fn one<'a>(
    name: &str,
    about: &'static str,
    units: Option<&String>,
    over: &[Over],
    values: Cow<'a, [f64]>,
) -> Array<'a> {
    Array { name: name.to_owned(), about, units: units.cloned(), over: over.to_vec(), values }
}

/// EOFs and scores in one scaling.
fn in_scaling(modes: usize, results: &Results, scaling: Scaling) -> Vec<Array<'static>> {
    let mut all = Vec::new();
    let (suffix, about) = match scaling {
        Scaling::Unscaled => ("", ["EOFs of length one", "principal components"]),
        Scaling::Divided => (
            "_divided",
            ["EOFs divided by the square root of the eigenvalue", "principal components of variance one"],
        ),
        Scaling::Multiplied => (
            "_multiplied",
            [
                "EOFs multiplied by the square root of the eigenvalue",
                "principal components multiplied by the square root of the eigenvalue",
            ],
        ),
    };
    let deviation = |mode: usize| results.deviations[mode];
    let cells = results.cells.len();
    let eofs = results.eofs.iter().enumerate();
    let eofs = eofs.map(|(at, loading)| scaled(*loading, deviation(at / cells), scaling)).collect();
    let rows = |scores: &[f64]| -> Vec<f64> {
        let scores = scores.iter().enumerate();
        scores.map(|(at, score)| scaled(*score, deviation(at % modes), scaling)).collect()
    };
    all.push(one(&format!("eofs{suffix}"), about[0], None, &[Over::Modes, Over::Grid], Cow::Owned(eofs)));
    let pcs = rows(&results.scores).into();
    all.push(one(&format!("pcs{suffix}"), about[1], None, &[Over::Samples, Over::Modes], pcs));
    if !results.projected.is_empty() {
        let name = format!("projected{suffix}");
        let values = rows(&results.projected).into();
        all.push(one(&name, "scores of projected samples", None, &[Over::NewSamples, Over::Modes], values));
    }
    all
}

/// Files of equally many samples are members; else all samples are in a row.
fn by_member(samples: &[u64]) -> Option<[u64; 2]> {
    let (first, others) = samples.split_first()?;
    (!others.is_empty() && others.iter().all(|other| other == first))
        .then_some([samples.len() as u64, *first])
}

fn shape(task: &FinishTask, over: &[Over]) -> Vec<u64> {
    let mut shape = Vec::new();
    for over in over {
        match over {
            Over::Modes => shape.push(task.modes),
            Over::NewSamples => shape.push(task.new_samples.iter().sum()),
            Over::Grid => shape.extend(task.grid.iter().map(|(_, size)| size)),
            Over::Samples => match by_member(&task.samples) {
                Some(sizes) => shape.extend(sizes),
                None => shape.push(task.samples.iter().sum()),
            },
        }
    }
    shape
}

fn npy(task: &FinishTask, array: &Array<'_>) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    let mut write = || -> std::io::Result<()> {
        let options = npyz::WriteOptions::new().default_dtype().shape(&shape(task, &array.over));
        let mut writer = options.writer(&mut bytes).begin_nd()?;
        writer.extend(array.values.iter())?;
        writer.finish()
    };
    write().map_err(|_| KernelError::Output)?;
    Ok(bytes)
}

/// A NetCDF file while it is put together.
struct Dataset<'a> {
    task: &'a FinishTask,
    builder: NcFileBuilder,
    modes: DimensionId,
    samples: Vec<DimensionId>,
    new_samples: Option<DimensionId>,
    grid: Vec<DimensionId>,
    grid_names: Vec<String>,
}

impl From<netcdf_writer::Error> for KernelError {
    fn from(_: netcdf_writer::Error) -> KernelError {
        KernelError::Output
    }
}

fn netcdf(task: &FinishTask, results: &Results, arrays: &[Array<'_>]) -> Result<Vec<u8>, KernelError> {
    let mut dataset = Dataset::new(task)?;
    dataset.coordinates(results)?;
    for array in arrays {
        let mut over = Vec::new();
        for part in &array.over {
            match part {
                Over::Modes => over.push(dataset.modes),
                Over::Samples => over.extend(&dataset.samples),
                Over::NewSamples => over.extend(dataset.new_samples),
                Over::Grid => over.extend(&dataset.grid),
            }
        }
        let mut attributes = vec![("long_name", array.about.to_owned())];
        attributes.extend(array.units.clone().map(|units| ("units", units)));
        if array.over.contains(&Over::Grid) {
            let filled: Vec<f64> =
                array.values.iter().map(|value| if value.is_nan() { FILL } else { *value }).collect();
            dataset.variable(&array.name, &over, &filled, &attributes, true)?;
        } else {
            dataset.variable(&array.name, &over, &array.values, &attributes, false)?;
        }
    }
    // What every reader of NetCDF-3 takes, as large as limits allow files to become.
    Ok(dataset.builder.to_vec(NcWriteOptions::offset64())?.1)
}

impl<'a> Dataset<'a> {
    fn new(task: &'a FinishTask) -> Result<Dataset<'a>, KernelError> {
        let mut builder = NcFileBuilder::new();
        let text = |text: &str| NcAttrValue::Chars(text.to_owned());
        builder.add_attribute("Conventions", text("CF-1.8"))?;
        builder
            .add_attribute("title", text(&format!("Empirical orthogonal functions of {}", task.variable)))?;
        let modes = builder.add_dimension("mode", task.modes)?;
        let samples = match by_member(&task.samples) {
            Some([members, times]) => {
                vec![builder.add_dimension("member", members)?, builder.add_dimension("time", times)?]
            }
            None if task.samples.len() == 1 => vec![builder.add_dimension("time", task.samples[0])?],
            None => vec![builder.add_dimension("sample", task.samples.iter().sum())?],
        };
        let new = task.new_samples.iter().sum::<u64>();
        let new_samples = match new {
            0 => None,
            new => Some(builder.add_dimension("new_sample", new)?),
        };
        let (mut grid, mut grid_names) = (Vec::new(), Vec::<String>::new());
        for (name, size) in &task.grid {
            let name = plain(name, &grid_names);
            grid.push(builder.add_dimension(&name, *size)?);
            grid_names.push(name);
        }
        Ok(Dataset { task, builder, modes, samples, new_samples, grid, grid_names })
    }

    fn coordinates(&mut self, results: &Results) -> Result<(), KernelError> {
        let modes = self.task.modes as i32;
        let numbers: Vec<i32> = (1..=modes).collect();
        let over = [self.modes];
        self.variable("mode", &over, &numbers, &[("long_name", "mode".to_owned())], false)?;
        let times = results.coordinates.times.first().and_then(Option::as_ref);
        let per_file = self.task.samples.first().copied().unwrap_or(0);
        if let (Some(time), Some(over)) = (times, self.samples.last().copied())
            && time.values.len() as u64 == per_file
            && (self.task.samples.len() == 1 || by_member(&self.task.samples).is_some())
        {
            self.coordinate("time", &[over], time)?;
        }
        let mut taken = self.grid_names.clone();
        for coordinate in &results.coordinates.grid {
            let dimension = |name: &String| self.task.grid.iter().position(|(one, _)| one == name);
            let Some(places) = coordinate.dimensions.iter().map(dimension).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let over: Vec<DimensionId> = places.iter().map(|place| self.grid[*place]).collect();
            let of_dimension =
                coordinate.dimensions.len() == 1 && coordinate.dimensions[0] == coordinate.name;
            let name = match (of_dimension, places.first()) {
                (true, Some(place)) => self.grid_names[*place].clone(),
                _ => {
                    let name = plain(&coordinate.name, &taken);
                    taken.push(name.clone());
                    name
                }
            };
            self.coordinate(&name, &over, coordinate)?;
        }
        Ok(())
    }

    fn coordinate(&mut self, name: &str, over: &[DimensionId], from: &Coordinate) -> Result<(), KernelError> {
        let attributes: Vec<(&str, String)> =
            from.attributes.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
        self.variable(name, over, &from.values, &attributes, false)
    }

    fn variable<T: NcWriteType>(
        &mut self,
        name: &str,
        over: &[DimensionId],
        values: &[T],
        attributes: &[(&str, String)],
        filled: bool,
    ) -> Result<(), KernelError> {
        let variable = self.builder.add_variable::<T>(name, over)?;
        for (name, text) in attributes {
            self.builder.add_variable_attribute(variable, *name, NcAttrValue::Chars(text.clone()))?;
        }
        if filled {
            let fill = NcAttrValue::Doubles(vec![FILL]);
            self.builder.add_variable_attribute(variable, "_FillValue", fill)?;
        }
        Ok(self.builder.write_variable(variable, values)?)
    }
}

/// A name that every reader takes and nothing else in the file has.
fn plain(name: &str, taken: &[String]) -> String {
    let kept = name.chars().take(100);
    let mut plain: String =
        kept.map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
        plain.insert_str(0, "d_");
    }
    let own = |name: &str| {
        let begins = [
            "eofs",
            "pcs",
            "projected",
            "eigenvalues",
            "variance_fractions",
            "north_errors",
            "near_degenerate",
        ];
        OWN.contains(&name) || begins.iter().any(|begin| name.starts_with(begin))
    };
    while own(&plain) || taken.contains(&plain) {
        plain.push_str("_grid");
    }
    plain
}
