//! Planning the climate workload: stages from the specification and the heads of the stages before.
//!
//! Owns which stage comes next, how it is cut, what it costs, and the result document. The products' files
//! are agents' business.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use tessera_protocol::climate::{
    Anomalies, BLOCK_SAMPLES, CellWeights, CellsTask, Eigen, EigenTask, Field, FinishTask, Found, GramTask,
    Head, ModesTask, Named, PANEL_CELLS, Peak, Piece, ProjectTask, Scaling, Side, Source, Survey, SurveyTask,
    Task, Weights,
};
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{ClimateParams, FileFormat, Input, JobSpec, WeightsSpec};

use crate::staged::{Stage, StageError, Step};

mod document;

/// Stages in order; the two that project are left out where there is nothing to project.
const SURVEY: usize = 0;
const CELLS: usize = 1;
const GRAM: usize = 2;
const EIGEN: usize = 3;
const MODES: usize = 4;

/// EOFs that are farther from orthonormal were not computed as they must be.
const ORTHONORMALITY_ERROR_MAX: f64 = 1e-3;
/// Leading eigenvalues may exceed the sum of all by this part, which is rounding.
const TRACE_SLACK: f64 = 1e-9;

/// Compute units that a shard is meant to cost: a third of a second of one core.
const SHARD_COST: u64 = 20_000_000;
/// Longest file of a shard's product, where one unit is not longer. *Units*: bytes.
const SHARD_BYTES_MAX: u64 = 16 << 20;
/// Fused multiply-adds of matrix products to one compute unit.
const TERMS_PER_UNIT: u64 = 128;
/// Values that are read and converted to one compute unit.
const VALUES_PER_UNIT: u64 = 4;
/// Rows of a tile at most: with the panel of a second one it fits a core's cache.
const TILE_MAX: u64 = 256;
/// Fewest rows of a tile: below it reading costs more than computing.
const TILE_MIN: u64 = 16;

pub(crate) fn step(
    spec: &JobSpec,
    params: &ClimateParams,
    done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    if done.is_empty() {
        return stage(params, "survey", Task::Survey(survey(spec, params)?), survey_cost(spec), 1);
    }
    Progress::read(spec, params, done)?.step()
}

/// What the stages so far have found.
struct Progress<'a> {
    params: &'a ClimateParams,
    done: &'a [Vec<ProductRef>],
    survey: Survey,
    field: Field,
    new: Option<Field>,
    weights: CellWeights,
}

impl<'a> Progress<'a> {
    fn read(
        spec: &'a JobSpec,
        params: &'a ClimateParams,
        done: &'a [Vec<ProductRef>],
    ) -> Result<Progress<'a>, StageError> {
        for (stage, products) in done.iter().enumerate() {
            refusal(stage, products)?;
        }
        let survey = match heads(done, SURVEY)?.pop() {
            Some(Head::Survey(survey)) => survey,
            _ => return Err(StageError::Head { stage: SURVEY }),
        };
        let cells = survey.grid.iter().try_fold(1u64, |cells, (_, size)| cells.checked_mul(*size));
        let cells = cells.filter(|cells| *cells <= limits::CLIMATE_CELLS_MAX);
        let cells = cells.ok_or(StageError::Head { stage: SURVEY })?;
        let product = done[SURVEY].first().ok_or(StageError::Head { stage: SURVEY })?;
        let field = field(&spec.inputs, &params.field, &survey.field, cells, product)?;
        let new = match params.project.is_empty() {
            true => None,
            false => Some(self::field(&spec.inputs, &params.project, &survey.new, cells, product)?),
        };
        let weights = match (&params.weights, &survey.weights) {
            (WeightsSpec::None, None) => CellWeights::None,
            (WeightsSpec::SqrtCosLat, None) => CellWeights::SqrtCosLatitude,
            (WeightsSpec::Input(name), Some(slab)) => {
                CellWeights::Given(Piece { source: input(&spec.inputs, name)?.source, slab: slab.clone() })
            }
            _ => return Err(StageError::Head { stage: SURVEY }),
        };
        Ok(Progress { params, done, survey, field, new, weights })
    }

    fn step(&self) -> Result<Step, StageError> {
        let (next, values) = (self.done.len(), self.field.cells * self.field.samples());
        match next {
            CELLS => {
                let cells = CellsTask {
                    field: self.field.clone(),
                    survey: self.product(SURVEY)?,
                    weights: self.weights.clone(),
                    center: self.params.center,
                    standardise: self.params.standardise,
                };
                let passes = if self.params.standardise { 2 } else { 1 };
                let cost = passes * values / VALUES_PER_UNIT;
                stage(self.params, "cells", Task::Cells(cells), cost, 16 * PANEL_CELLS)
            }
            GRAM => {
                let (of, side) = self.side()?;
                let tile = tile(side);
                let gram = GramTask { anomalies: self.anomalies(&self.field)?, of, side, tile };
                let depth = values / side.max(1);
                // Each tile reads its rows and its columns.
                let read = values * side.div_ceil(tile) / VALUES_PER_UNIT;
                let cost = side * side / 2 * depth / TERMS_PER_UNIT + read;
                stage(self.params, "gram", Task::Gram(gram), cost, 8 * tile * tile)
            }
            EIGEN => {
                let (_, side) = self.side()?;
                let modes = self.params.modes.min(side).min(self.field.samples());
                let tiles = self.products(GRAM);
                let eigen = EigenTask { samples: self.field.samples(), side, tile: tile(side), tiles, modes };
                // About ten operations for each element of each column, most of them in vectors.
                stage(self.params, "eigen", Task::Eigen(eigen), side * side * side / 8, 1)
            }
            MODES => {
                let (of, _) = self.side()?;
                let eigen = self.eigen()?;
                self.output_fits(eigen.modes)?;
                let modes =
                    ModesTask { anomalies: self.anomalies(&self.field)?, of, eigen: self.product(EIGEN)? };
                let cost = values / VALUES_PER_UNIT + values * eigen.modes / TERMS_PER_UNIT;
                stage(self.params, "modes", Task::Modes(modes), cost, 8 * PANEL_CELLS * eigen.modes)
            }
            _ => self.after_modes(),
        }
    }

    /// Scores of the field, where products of cells were decomposed; then those of new samples; then files.
    fn after_modes(&self) -> Result<Step, StageError> {
        let (of, _) = self.side()?;
        let own = (of == Side::Cells).then_some((&self.field, false));
        let projections = own.into_iter().chain(self.new.iter().map(|new| (new, true)));
        let projections: Vec<(&Field, bool)> = projections.collect();
        let finish = MODES + 1 + projections.len();
        match self.done.len() {
            next if next < finish => {
                let (field, new) = projections[next - MODES - 1];
                let modes = self.eigen()?.modes;
                let project = ProjectTask {
                    anomalies: self.anomalies(field)?,
                    eofs: self.products(MODES),
                    modes,
                    new,
                    survey: self.product(SURVEY)?,
                };
                let values = field.cells * field.samples();
                let cost = values / VALUES_PER_UNIT + values * modes / TERMS_PER_UNIT;
                let name = if new { "project" } else { "scores" };
                stage(self.params, name, Task::Project(project), cost, 8 * BLOCK_SAMPLES * modes)
            }
            next if next == finish => {
                let task = self.finish_task(of)?;
                let numbers = output_bytes(&task) / 8;
                stage(self.params, "finish", Task::Finish(task), 8 * numbers, 1)
            }
            next if next == finish + 1 => self.finished(of, finish),
            _ => Err(StageError::Head { stage: finish + 1 }),
        }
    }

    fn finished(&self, of: Side, finish: usize) -> Result<Step, StageError> {
        let found = match heads(self.done, finish)?.pop() {
            Some(Head::Finish(found)) if found.orthonormality_error <= ORTHONORMALITY_ERROR_MAX => found,
            _ => return Err(StageError::Head { stage: finish }),
        };
        let (present, constant) = self.cells()?;
        let product = self.done[finish].first().ok_or(StageError::Head { stage: finish })?;
        let document = document::Facts {
            params: self.params,
            survey: &self.survey,
            eigen: &self.eigen()?,
            found: &found,
            product,
            of,
            samples: self.field.samples(),
            cells: self.field.cells,
            present,
            constant,
            new_samples: self.new.as_ref().map_or(0, Field::samples),
        };
        document.bytes().map(Step::Finished).ok_or(StageError::Head { stage: finish })
    }

    fn finish_task(&self, of: Side) -> Result<FinishTask, StageError> {
        let eigen = self.eigen()?;
        let params = self.params;
        let stage_of_scores = MODES + 1;
        let (scores, stage_of_new) = match of {
            Side::Cells => (self.products(stage_of_scores), stage_of_scores + 1),
            Side::Samples => (Vec::new(), stage_of_scores),
        };
        let samples = |field: &Field| field.pieces.iter().map(|piece| piece.slab.samples()).collect();
        let mut reconstruct = params.reconstruct.clone();
        if let Some(mode) = reconstruct.iter().find(|mode| **mode > eigen.modes) {
            return Err(StageError::Input(format!(
                "params.reconstruct names mode {mode}, but the field has {} modes of variance",
                eigen.modes
            )));
        }
        reconstruct.sort_unstable();
        let mut scalings: Vec<Scaling> = params.scalings.iter().copied().map(Scaling::from).collect();
        scalings.sort_unstable();
        Ok(FinishTask {
            survey: self.product(SURVEY)?,
            cells: self.products(CELLS),
            eigen: self.product(EIGEN)?,
            eofs: self.products(MODES),
            scores,
            projected: if self.new.is_some() { self.products(stage_of_new) } else { Vec::new() },
            of,
            variable: self.survey.variable.clone(),
            units: self.survey.units.clone(),
            grid: self.survey.grid.clone(),
            samples: samples(&self.field),
            new_samples: self.new.as_ref().map(samples).unwrap_or_default(),
            modes: eigen.modes,
            peaks: self.peaks(eigen.modes)?,
            eigenvalues: eigen.eigenvalues,
            total_variance: eigen.total_variance,
            scalings,
            reconstruct,
            netcdf: params.formats.contains(&FileFormat::Netcdf),
            npy: params.formats.contains(&FileFormat::Npy),
        })
    }

    /// Whether the output fits a product, before the modes are computed.
    fn output_fits(&self, modes: u64) -> Result<(), StageError> {
        let maps = modes * self.params.scalings.len() as u64 + 2;
        let rebuilt = if self.params.reconstruct.is_empty() { 0 } else { self.field.samples() };
        let rows = self.field.samples() + self.new.as_ref().map_or(0, Field::samples);
        let numbers = self.field.cells * (maps + rebuilt) + rows * modes * self.params.scalings.len() as u64;
        let bytes = 8 * numbers * self.params.formats.len() as u64;
        if bytes <= limits::CLIMATE_OUTPUT_BYTES_MAX {
            return Ok(());
        }
        Err(StageError::Size(format!(
            "its output would have {bytes} bytes, at most {} are written: ask for fewer modes or scalings, one \
             format, or no reconstruction",
            limits::CLIMATE_OUTPUT_BYTES_MAX
        )))
    }

    /// For each mode, the loading that decides its sign.
    fn peaks(&self, modes: u64) -> Result<Vec<Peak>, StageError> {
        let mut peaks: Vec<Peak> = Vec::new();
        for head in heads(self.done, MODES)? {
            let Head::Modes(found) = head else { return Err(StageError::Head { stage: MODES }) };
            if found.peaks.len() as u64 != modes {
                return Err(StageError::Head { stage: MODES });
            }
            peaks = match peaks.is_empty() {
                true => found.peaks,
                // Shards are in the order of cells: of equal loadings the earlier stays.
                false => peaks.iter().zip(found.peaks).map(|(peak, later)| peak.or(later)).collect(),
            };
        }
        Ok(peaks)
    }

    /// Cells that have values, and how many of them never change.
    fn cells(&self) -> Result<(u64, u64), StageError> {
        let (mut present, mut constant) = (0, 0);
        for head in heads(self.done, CELLS)? {
            let Head::Cells(found) = head else { return Err(StageError::Head { stage: CELLS }) };
            present += found.present.min(limits::CLIMATE_CELLS_MAX);
            constant += found.constant.min(limits::CLIMATE_CELLS_MAX);
        }
        Ok((present, constant))
    }

    /// Which products are summed: those of samples or of cells, whichever are fewer.
    fn side(&self) -> Result<(Side, u64), StageError> {
        let (samples, (present, _)) = (self.field.samples(), self.cells()?);
        if present == 0 {
            return Err(StageError::Input("every cell of the field is missing in all samples".to_string()));
        }
        let (of, side) = if samples <= present { (Side::Samples, samples) } else { (Side::Cells, present) };
        if side > limits::CLIMATE_SIDE_MAX {
            return Err(StageError::Size(format!(
                "the field has {samples} samples and {present} cells: one of them must be at most {}; average \
                 over time, or take a coarser grid",
                limits::CLIMATE_SIDE_MAX
            )));
        }
        Ok((of, side))
    }

    fn eigen(&self) -> Result<Eigen, StageError> {
        match heads(self.done, EIGEN)?.pop() {
            Some(Head::Eigen(eigen)) if is_decomposition(&eigen, self.params.modes) => Ok(eigen),
            _ => Err(StageError::Head { stage: EIGEN }),
        }
    }

    fn anomalies(&self, field: &Field) -> Result<Anomalies, StageError> {
        Ok(Anomalies { field: field.clone(), cells: self.products(CELLS) })
    }

    fn products(&self, stage: usize) -> Vec<Source> {
        self.done.get(stage).map(|products| products.iter().map(source).collect()).unwrap_or_default()
    }

    /// Of a stage of one unit.
    fn product(&self, stage: usize) -> Result<Source, StageError> {
        self.products(stage).first().copied().ok_or(StageError::Head { stage })
    }
}

/// Whether these can be the leading variances of a field: in order, and no more than all.
fn is_decomposition(eigen: &Eigen, modes_max: u64) -> bool {
    let values = &eigen.eigenvalues;
    let sum: f64 = values.iter().sum();
    (1..=modes_max).contains(&eigen.modes)
        && (eigen.modes..=eigen.modes + 1).contains(&(values.len() as u64))
        && values.is_sorted_by(|a, b| a >= b)
        && values.iter().all(|value| value.is_finite() && *value >= 0.0)
        && eigen.total_variance.is_finite()
        && sum <= eigen.total_variance * (1.0 + TRACE_SLACK)
}

fn source(product: &ProductRef) -> Source {
    Source { blake3: product.blake3.0, bytes: product.bytes }
}

/// Small matrices are cut so that several agents can share them.
fn tile(side: u64) -> u64 {
    side.div_ceil(8).next_power_of_two().clamp(TILE_MIN, TILE_MAX)
}

/// What the files of the last product have in numbers. *Units*: bytes.
fn output_bytes(task: &FinishTask) -> u64 {
    let maps = task.modes * task.scalings.len() as u64 + 2;
    let rebuilt = if task.reconstruct.is_empty() { 0 } else { task.samples.iter().sum() };
    8 * task.cells_of_grid() * (maps + rebuilt)
}

/// Cuts a stage's units so that a shard costs about [`SHARD_COST`], unless the client said how, and its product
/// is no longer than one may be.
fn stage(
    params: &ClimateParams,
    name: &'static str,
    task: Task,
    cost: u64,
    unit_bytes: u64,
) -> Result<Step, StageError> {
    // What an agent would refuse was in a head that no kernel writes.
    task.check().map_err(|_| StageError::Head { stage: SURVEY })?;
    let units = task.units();
    let unit_cost = cost.div_ceil(units.max(1)).max(1);
    let fewest = units.div_ceil(limits::STAGE_SHARDS_MAX).max(1);
    let most = (SHARD_BYTES_MAX / unit_bytes.max(1)).clamp(fewest, units.max(fewest));
    let shard_units = params.shard_size.unwrap_or(SHARD_COST / unit_cost).clamp(fewest, most);
    let inputs = task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect();
    Ok(Step::Stage(Stage { name, task: task.encode(), inputs, units, shard_units, unit_cost }))
}

fn survey(spec: &JobSpec, params: &ClimateParams) -> Result<SurveyTask, StageError> {
    let all = |names: &[String]| names.iter().map(|name| input(&spec.inputs, name)).collect::<Result<_, _>>();
    Ok(SurveyTask {
        field: all(&params.field)?,
        new: all(&params.project)?,
        variable: params.variable.clone(),
        units: params.units.clone(),
        weights: match &params.weights {
            WeightsSpec::None => Weights::None,
            WeightsSpec::SqrtCosLat => Weights::SqrtCosLatitude,
            WeightsSpec::Input(name) => Weights::Given(input(&spec.inputs, name)?),
        },
    })
}

/// Headers are short: what it costs is to have the files.
fn survey_cost(spec: &JobSpec) -> u64 {
    1_000_000 + spec.inputs.iter().map(|input| input.bytes / 64).sum::<u64>()
}

fn input(inputs: &[Input], name: &str) -> Result<Named, StageError> {
    let found = inputs.iter().find(|input| input.name == name);
    let found = found.ok_or_else(|| StageError::Input(format!("there is no input {name:?}")))?;
    let source = Source { blake3: found.blake3.0, bytes: found.bytes };
    Ok(Named { name: name.to_string(), source })
}

fn field(
    inputs: &[Input],
    names: &[String],
    found: &[Found],
    cells: u64,
    survey: &ProductRef,
) -> Result<Field, StageError> {
    let head = StageError::Head { stage: SURVEY };
    if names.len() != found.len() {
        return Err(head);
    }
    let mut pieces = Vec::new();
    for (name, Found { slab, unpacked }) in names.iter().zip(found) {
        let mut piece = Piece { source: input(inputs, name)?.source, slab: slab.clone() };
        if let Some(unpacked) = unpacked {
            let file = survey.files.iter().find(|file| file.name == *unpacked).ok_or(head.clone())?;
            piece.slab.check(file.bytes, cells).map_err(|_| head.clone())?;
            piece.slab.offset += file.offset;
            piece.source = source(survey);
        }
        piece.slab.check(piece.source.bytes, cells).map_err(|_| head.clone())?;
        pieces.push(piece);
    }
    Ok(Field { pieces, cells })
}

/// The heads of a stage, in the order of its shards.
fn heads(done: &[Vec<ProductRef>], stage: usize) -> Result<Vec<Head>, StageError> {
    let products = done.get(stage).filter(|products| !products.is_empty());
    let heads = products.ok_or(StageError::Head { stage })?.iter().map(|product| Head::decode(&product.head));
    heads.collect::<Result<_, _>>().map_err(|_| StageError::Head { stage })
}

/// What the first shard that refused the data says: the same for any sharding, since shards are in order.
fn refusal(stage: usize, products: &[ProductRef]) -> Result<(), StageError> {
    for product in products {
        match Head::decode(&product.head) {
            Ok(Head::Refused(message)) => return Err(StageError::Input(message)),
            Ok(_) => {}
            Err(_) => return Err(StageError::Head { stage }),
        }
    }
    Ok(())
}
