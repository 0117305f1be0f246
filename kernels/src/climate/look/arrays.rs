//! The numbers of a job's output files, by the names of their variables.
//!
//! Owns which arrays an output must have and how long they are. Files come from strangers: whatever is wrong with
//! them is said in words.

use std::collections::BTreeMap;

use bytes::Bytes;
use tessera_protocol::climate::Scaling;

use super::super::finish::scaled;
use super::super::{netcdf, npy};

/// Numbers by variable; missing ones are not-a-number.
pub(super) type Arrays = BTreeMap<String, Vec<f64>>;

/// What arrays run over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) modes: usize,
    pub(super) samples: usize,
    pub(super) cells: usize,
}

/// The names of EOFs and PCs in a scaling.
pub(super) fn names(scaling: Scaling) -> [&'static str; 2] {
    match scaling {
        Scaling::Unscaled => ["eofs", "pcs"],
        Scaling::Divided => ["eofs_divided", "pcs_divided"],
        Scaling::Multiplied => ["eofs_multiplied", "pcs_multiplied"],
    }
}

/// Reads every output. Both formats hold the same numbers.
pub(super) fn read(
    outputs: &BTreeMap<String, Bytes>,
    sizes: Sizes,
    scalings: &[Scaling],
    reconstructed: bool,
) -> Result<Arrays, String> {
    let mut found: Option<Arrays> = None;
    if let Some(bytes) = outputs.get("eof.nc") {
        found = Some(netcdf::numbers("eof.nc", bytes).map_err(|error| error.to_string())?);
    }
    let mut rows = Arrays::new();
    for (name, bytes) in outputs {
        if let Some(variable) = name.strip_suffix(".npy") {
            let numbers = npy::numbers(name, bytes).map_err(|error| error.to_string())?;
            rows.insert(variable.to_owned(), numbers);
        }
    }
    let needed = needed(sizes, scalings, reconstructed);
    for arrays in found.iter().chain((!rows.is_empty()).then_some(&rows)) {
        for (name, length) in &needed {
            match arrays.get(*name).map(Vec::len) {
                Some(found) if found == *length => {}
                Some(found) => return Err(format!("{name} has {found} numbers, not {length}")),
                None => return Err(format!("there is no {name}")),
            }
        }
    }
    let Some(found) = found else {
        return if rows.is_empty() { Err("no file".to_owned()) } else { Ok(rows) };
    };
    let other =
        rows.iter().find(|(name, numbers)| !found.get(*name).is_some_and(|same| alike(same, numbers)));
    match other {
        None => Ok(found),
        Some((name, _)) => Err(format!("{name}.npy has other numbers than eof.nc")),
    }
}

/// Each array with its length.
fn needed(sizes: Sizes, scalings: &[Scaling], reconstructed: bool) -> Vec<(&'static str, usize)> {
    let Sizes { modes, samples, cells } = sizes;
    let mut needed = vec![("mean", cells), ("factor", cells)];
    for name in ["eigenvalues", "variance_fractions", "north_errors", "near_degenerate"] {
        needed.push((name, modes));
    }
    for scaling in scalings {
        let [eofs, pcs] = names(*scaling);
        needed.extend([(eofs, modes * cells), (pcs, samples * modes)]);
    }
    if reconstructed {
        needed.push(("reconstruction", samples * cells));
    }
    needed
}

/// Whether all bits are the same, but for those of what is missing.
pub(super) fn alike(a: &[f64], b: &[f64]) -> bool {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// EOFs and PCs of length and variance as they were found.
pub(super) struct Modes {
    pub(super) sizes: Sizes,
    /// Mode by mode; zero where a cell is missing.
    pub(super) eofs: Vec<f64>,
    /// Sample by sample.
    pub(super) pcs: Vec<f64>,
    /// Which cells are missing in every EOF; nothing where the EOFs do not agree on it.
    pub(super) missing: Option<Vec<bool>>,
}

impl Modes {
    /// From the arrays of one scaling, which rounding may have touched twice.
    pub(super) fn of(arrays: &Arrays, scaling: Scaling, sizes: Sizes, deviations: &[f64]) -> Modes {
        let back = match scaling {
            Scaling::Unscaled => Scaling::Unscaled,
            Scaling::Divided => Scaling::Multiplied,
            Scaling::Multiplied => Scaling::Divided,
        };
        let [eofs, pcs] = names(scaling).map(|name| arrays.get(name).map_or(&[][..], Vec::as_slice));
        let mut rows = eofs.chunks_exact(sizes.cells.max(1));
        let holes = |row: &[f64]| row.iter().map(|loading| loading.is_nan()).collect::<Vec<_>>();
        let first = rows.next().map(holes).unwrap_or_default();
        let missing = rows.all(|row| holes(row) == first).then_some(first);
        let loading = |(at, loading): (usize, &f64)| match loading.is_nan() {
            true => 0.0,
            false => scaled(*loading, deviations[at / sizes.cells], back),
        };
        let score = |(at, score): (usize, &f64)| scaled(*score, deviations[at % sizes.modes], back);
        Modes {
            sizes,
            eofs: eofs.iter().enumerate().map(loading).collect(),
            pcs: pcs.iter().enumerate().map(score).collect(),
            missing,
        }
    }

    /// The loadings of a mode.
    pub(super) fn eof(&self, mode: usize) -> &[f64] {
        &self.eofs[mode * self.sizes.cells..][..self.sizes.cells]
    }

    /// The scores of a sample.
    pub(super) fn scores(&self, sample: usize) -> &[f64] {
        &self.pcs[sample * self.sizes.modes..][..self.sizes.modes]
    }

    /// The scores of a mode.
    pub(super) fn pc(&self, mode: usize) -> Vec<f64> {
        self.pcs.iter().skip(mode).step_by(self.sizes.modes).copied().collect()
    }
}
