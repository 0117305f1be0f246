//! The result document of a climate job.

use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::climate::{Eigen, Finish, Side, Survey};
use tessera_protocol::product::{Output, ProductRef};
use tessera_protocol::spec::ClimateParams;

/// What it is made from.
pub(super) struct Facts<'a> {
    pub(super) params: &'a ClimateParams,
    pub(super) survey: &'a Survey,
    pub(super) eigen: &'a Eigen,
    pub(super) found: &'a Finish,
    /// Of the last stage.
    pub(super) product: &'a ProductRef,
    pub(super) of: Side,
    pub(super) samples: u64,
    pub(super) cells: u64,
    pub(super) present: u64,
    pub(super) constant: u64,
    pub(super) new_samples: u64,
}

#[derive(Serialize)]
struct Document<'a> {
    workload: &'static str,
    variable: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<&'a str>,
    files: u64,
    samples: u64,
    grid: Vec<Dimension<'a>>,
    cells: u64,
    cells_missing: u64,
    cells_constant: u64,
    #[serde(skip_serializing_if = "is_zero")]
    samples_projected: u64,
    /// `samples` or `cells`: whichever were fewer.
    products_of: &'static str,
    modes_asked: u64,
    total_variance: f64,
    modes: Vec<Mode>,
    /// How far the EOFs are from orthonormal.
    orthonormality_error: f64,
    outputs: Vec<Output>,
}

#[derive(Serialize)]
struct Dimension<'a> {
    name: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct Mode {
    mode: u64,
    eigenvalue: f64,
    variance_fraction: f64,
    north_error: f64,
    /// Whether the next mode lies within the error of this one.
    near_degenerate: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Facts<'_> {
    /// Canonical JSON; nothing where numbers or files are missing that the last stage writes.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let found = self.found;
        let modes = self.eigen.modes as usize;
        let mode = |at: usize| {
            Some(Mode {
                mode: at as u64 + 1,
                eigenvalue: *self.eigen.eigenvalues.get(at)?,
                variance_fraction: *found.variance_fractions.get(at)?,
                north_error: *found.north_errors.get(at)?,
                near_degenerate: *found.near_degenerate.get(at)?,
            })
        };
        let output = |file: &tessera_protocol::product::FileRef| {
            let media_type = match file.name.ends_with(".nc") {
                true => "application/x-netcdf",
                false => "application/octet-stream",
            };
            self.product.output(&file.name, media_type)
        };
        let document = Document {
            workload: "climate_pca",
            variable: &self.survey.variable,
            units: self.survey.units.as_deref(),
            files: self.params.field.len() as u64,
            samples: self.samples,
            grid: self.survey.grid.iter().map(|(name, size)| Dimension { name, size: *size }).collect(),
            cells: self.cells,
            cells_missing: self.cells.checked_sub(self.present)?,
            cells_constant: self.constant,
            samples_projected: self.new_samples,
            products_of: if self.of == Side::Samples { "samples" } else { "cells" },
            modes_asked: self.params.modes,
            total_variance: self.eigen.total_variance,
            modes: (0..modes).map(mode).collect::<Option<_>>()?,
            orthonormality_error: found.orthonormality_error,
            outputs: self.product.files.iter().map(output).collect::<Option<_>>()?,
        };
        canonical::to_vec(&document).ok()
    }
}
