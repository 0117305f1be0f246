//! Parameters of the matrix workloads.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The type of a matrix's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl Dtype {
    /// *Units*: bytes to an element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 => 8,
        }
    }

    /// `f32` or `f64`.
    pub fn word(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
        }
    }
}

/// A general matrix product, `C = alpha op(A) op(B) + beta C`, where `op` transposes or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GemmParams {
    /// Of every matrix, and of the arithmetic.
    pub dtype: Dtype,
    /// Rounded to `dtype`.
    #[serde(default = "one")]
    pub alpha: f64,
    /// Rounded to `dtype`. Where it is zero, `c` is not given and not read.
    #[serde(default)]
    pub beta: f64,
    /// *Shape*: m × k once transposed.
    pub a: MatrixSpec,
    /// *Shape*: k × n once transposed.
    pub b: MatrixSpec,
    /// *Shape*: m × n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<MatrixSpec>,
    /// Whether op(A) is Aᵀ.
    #[serde(default)]
    pub transpose_a: bool,
    /// Whether op(B) is Bᵀ.
    #[serde(default)]
    pub transpose_b: bool,
    /// Rows and columns of a shard's tile; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<[u64; 2]>,
    /// Splits k into panels of this many terms, computed apart and added in ascending order. Part of what
    /// is computed: other panels round otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k_panel: Option<u64>,
}

/// A symmetric rank-k update, `C = alpha A Aᵀ + beta C` or, transposed, `C = alpha Aᵀ A + beta C`, of
/// which one triangle is computed; the other one is zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyrkParams {
    /// Of every matrix, and of the arithmetic.
    pub dtype: Dtype,
    /// Rounded to `dtype`.
    #[serde(default = "one")]
    pub alpha: f64,
    /// Rounded to `dtype`. Where it is zero, `c` is not given and not read.
    #[serde(default)]
    pub beta: f64,
    /// *Shape*: n × k once transposed.
    pub a: MatrixSpec,
    /// *Shape*: n × n, of which the triangle is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<MatrixSpec>,
    /// Whether Aᵀ A is computed.
    #[serde(default)]
    pub transpose: bool,
    /// Which half of C.
    #[serde(default)]
    pub triangle: Triangle,
    /// Rows, and as many columns, of a shard's tile. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<u64>,
    /// As for [`GemmParams::k_panel`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k_panel: Option<u64>,
}

/// A half of a square matrix, the diagonal included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Triangle {
    /// Columns up to the row.
    #[default]
    Lower,
    /// Columns from the row on.
    Upper,
}

/// Where a matrix comes from, and its shape as it lies there: exactly one of `input` and `random`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixSpec {
    /// The name of an entry of the job's inputs, a `.npy` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Made from the job's seed instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomEntries>,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
}

/// How random entries are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RandomEntries {
    /// Uniformly in (−1, 1), on a grid of 2⁻²³ so that both types hold them exactly.
    Uniform,
}

fn one() -> f64 {
    1.0
}
