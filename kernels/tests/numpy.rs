//! Agreement with numpy: matrices that it wrote, and products that it computed.
//!
//! `reference/numpy_gemm.py` made the files, with numpy 2.4.6 and its OpenBLAS.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tessera_kernels::gemm::{Element, View};
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::npy::Reader;
use tessera_kernels::matrix::{BlockTerms, Given, Matrix, Prepared};
use tessera_protocol::matrix::{Half, Operand, Source, Task};

const ROWS: usize = 13;
const DEPTH: usize = 37;
const COLS: usize = 11;

/// Numpy's file as an input of a job: its matrix, found by its digest.
struct Input {
    operand: Operand,
    matrix: Arc<Matrix>,
    fortran: bool,
}

fn input(name: &str) -> Input {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/numpy").join(name);
    let bytes = std::fs::read(path).expect("a file");
    let mut reader = Reader::keeping(bytes.len() as u64);
    bytes.chunks(100).for_each(|piece| reader.push(piece).expect(name));
    let header = reader.header().expect("all of it came");
    let source = Source::Input { blake3: blake3::hash(&bytes).into(), bytes: bytes.len() as u64 };
    let operand = Operand { source, rows: header.rows, cols: header.cols, transposed: false };
    Input { operand, matrix: Arc::new(reader.matrix().expect(name)), fortran: header.fortran }
}

/// `A * B` of two files, or `A * Aᵀ` of one.
fn prepared(double: bool, a: &Input, b: Option<&Input>, half: Option<Half>) -> Prepared {
    let transpose = || Operand { transposed: true, ..a.operand.clone() };
    let task = Task {
        key: [0, 0],
        double,
        alpha: 1.0,
        beta: 0.0,
        a: a.operand.clone(),
        b: b.map_or_else(transpose, |b| b.operand.clone()),
        c: None,
        half,
        tile: [64, 64],
        k_panel: 64,
    };
    assert_eq!(task.check(), Ok(()));
    let named = |input: &Input| match input.operand.source {
        Source::Input { blake3, .. } => (blake3, input.matrix.clone()),
        Source::Uniform { .. } => unreachable!("it is a file"),
    };
    let inputs: HashMap<_, _> = [Some(a), b].into_iter().flatten().map(named).collect();
    let find = |digest: &[u8; 32], _| inputs.get(digest).cloned().map(Given::from);
    Prepared::new(Arc::new(task), &find, u64::MAX).expect("operands")
}

/// The entries of a file by rows, as the kernels see them.
fn entries(double: bool, input: &Input) -> Vec<f64> {
    fn by_rows<T: Element>(view: View<'_, T>) -> Vec<f64> {
        let places = (0..view.rows()).flat_map(|row| (0..view.cols()).map(move |col| (row, col)));
        places.map(|(row, col)| view.at(row, col).widened()).collect()
    }
    let prepared = prepared(double, input, None, None);
    let loaded = prepared.load(0, &|| false).expect("a block");
    match loaded.terms().expect("a block") {
        BlockTerms::F32(terms) => by_rows(terms.product.factors().1),
        BlockTerms::F64(terms) => by_rows(terms.product.factors().1),
    }
}

fn result(double: bool, prepared: &Prepared, isa: Isa) -> Vec<f64> {
    let bytes = prepared.run(isa, 0, &|| false).expect("a product");
    if double {
        bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    } else {
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect()
    }
}

const TYPES: [(&str, bool); 2] = [("f32", false), ("f64", true)];

#[test]
fn matrices_that_numpy_wrote_in_c_and_fortran_order_are_read_entry_by_entry() {
    for (name, double) in TYPES {
        let files = [("a", [ROWS, DEPTH], 911, false), ("b", [DEPTH, COLS], 1327, true)];
        for (letter, [rows, cols], multiplier, fortran) in files {
            let input = input(&format!("{letter}_{name}.npy"));
            let shape = (input.matrix.shape(), input.fortran);
            assert_eq!(shape, ([rows as u64, cols as u64], fortran), "{letter}_{name}");
            let numbers = (0..rows * cols).map(|place| (place * multiplier % 2017) as f64 - 1008.0);
            let expected: Vec<f64> = match double {
                true => numbers.map(|number| number / 97.0).collect(),
                false => numbers.map(|number| f64::from(number as f32 / 97.0)).collect(),
            };
            assert_eq!(entries(double, &input), expected, "{letter}_{name}");
        }
    }
}

/// Both lie within `γ_k Σ|a||b|` of the true element, so within twice that of each other.
fn assert_agree(ours: &[f64], theirs: &[f64], absolute: &[f64], unit_roundoff: f64, what: &str) {
    assert_eq!((ours.len(), theirs.len()), (absolute.len(), absolute.len()), "{what}");
    let k = DEPTH as f64 * unit_roundoff;
    let gamma = k / (1.0 - k);
    for (place, ((ours, theirs), absolute)) in ours.iter().zip(theirs).zip(absolute).enumerate() {
        assert!((ours - theirs).abs() <= 2.0 * gamma * absolute, "{what}, {place}: {ours} and {theirs}");
    }
}

/// `Σ|a||b|` of each element.
fn absolute(a: &[f64], b: impl Fn(usize, usize) -> f64, cols: usize) -> Vec<f64> {
    let element = |i: usize, j: usize| (0..DEPTH).map(|k| (a[i * DEPTH + k] * b(k, j)).abs()).sum();
    (0..ROWS).flat_map(|i| (0..cols).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect()
}

#[test]
fn products_lie_as_close_to_those_of_numpy_as_rounding_allows() {
    for (name, double) in TYPES {
        let unit_roundoff = if double { f64::UNIT_ROUNDOFF } else { f32::UNIT_ROUNDOFF };
        let [a, b, ab, aat] = ["a", "b", "ab", "aat"].map(|letters| input(&format!("{letters}_{name}.npy")));
        let [a_entries, b_entries] = [&a, &b].map(|input| entries(double, input));
        let absolute_ab = absolute(&a_entries, |k, j| b_entries[k * COLS + j], COLS);
        let absolute_aat = absolute(&a_entries, |k, j| a_entries[j * DEPTH + k], ROWS);
        let (ab, aat) = (entries(double, &ab), entries(double, &aat));
        let product = prepared(double, &a, Some(&b), None);
        let gram = prepared(double, &a, None, Some(Half::Lower));
        for isa in Isa::available() {
            let what = format!("{name} on {isa}");
            assert_agree(&result(double, &product, isa), &ab, &absolute_ab, unit_roundoff, &what);
            let half = result(double, &gram, isa);
            for (place, value) in half.iter().enumerate().filter(|(place, _)| place % ROWS > place / ROWS) {
                assert_eq!(value.to_bits(), 0, "{what}: {place} lies above the diagonal");
            }
            let mirrored: Vec<f64> = (0..ROWS * ROWS)
                .map(|place| (place / ROWS, place % ROWS))
                .map(|(row, col)| if col > row { half[col * ROWS + row] } else { half[row * ROWS + col] })
                .collect();
            assert_agree(&mirrored, &aat, &absolute_aat, unit_roundoff, &what);
        }
    }
}
