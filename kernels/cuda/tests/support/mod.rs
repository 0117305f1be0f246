//! Workloads and the processor's answers, for every backend.
//!
//! Owns what is compared. A backend passes when each of these gives the bytes that the Rust kernel gives.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use tessera_cuda::backend::Backend;
use tessera_cuda::gemm::{Cut, DeviceElement, gemm_cut};
use tessera_cuda::{CudaError, catastrophe, monte_carlo};
use tessera_kernels::gemm::{Product, View};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::KernelError;
use tessera_protocol::catastrophe::LOSS_BYTES;
use tessera_protocol::monte_carlo::{Payoff, Task};

#[path = "../../src/bin/tessera-cuda-check/workloads.rs"]
mod workloads;

#[path = "../../src/bin/tessera-cuda-check/storms.rs"]
mod storms;

pub(crate) use storms::*;
pub(crate) use workloads::*;

/// Panics unless the backend's tally, or error, is that of the processor's kernel.
pub fn assert_same_tally<B: Backend>(backend: &mut B, what: &str, task: &Task, first: u64, paths: u64) {
    let expected = tessera_kernels::monte_carlo::run(task, Isa::detect(), first, paths, &|| false);
    let found = monte_carlo(backend, task, first, paths, &|| false);
    match (expected, found) {
        (Ok(expected), Ok(found)) => {
            assert_eq!(expected.counts, found.counts, "counts of {what}");
            assert_eq!(expected.bins, found.bins, "bins of {what}");
            for (position, (expected, found)) in expected.sums.iter().zip(&found.sums).enumerate() {
                assert_eq!(expected, found, "sum {position} of {what}");
            }
            assert_eq!(expected.encode(), found.encode(), "{what}, {paths} paths from {first}");
        }
        (Err(expected), Err(found)) => assert_eq!(expected.to_string(), found.to_string(), "{what}"),
        (expected, found) => panic!("{what}: the processor says {expected:?}, the device {found:?}"),
    }
}

/// Paths of [`book`] whose first number of the first driver lies in the tail of the normal distribution: an even and an odd one.
const TAIL_PATHS: [u64; 2] = [73_512_488, 1_936_505];

/// The whole set of Monte Carlo workloads, as many paths as are cheap.
pub fn assert_same_tallies<B: Backend>(backend: &mut B, paths: u64) {
    for (first, paths) in [(0, 20 * paths), (12_345, 1), ((1 << 32) - 100, paths)] {
        assert_same_tally(backend, "pi", &PI, first, paths);
    }
    let call = book(&[&[1.0]], vec![contract(0, 0, Payoff::EuropeanCall)]);
    for (first, paths) in
        [(0, paths), (1, 1), (1, 2), (8, 0), ((1 << 33) - 77, paths / 2), (u64::MAX - 300, 300)]
    {
        assert_same_tally(backend, "one call", &call, first, paths);
    }
    assert_same_tally(backend, "every payoff", &every_payoff(), 4_711, paths);
    assert_same_tally(backend, "wild", &wild(), 3, paths);
    assert_same_tally(backend, "spread", &spread(), 3, paths);
    assert_same_tally(backend, "an overflowing book", &overflowing_book(), 0, paths);
    // Normal numbers from the tail are rare: these paths have one.
    for path in TAIL_PATHS {
        assert_same_tally(backend, "a tail", &call, path, 1);
    }
    assert_same_tally(backend, "overflowing", &overflowing(), 0, paths);
    let overflow = monte_carlo(backend, &overflowing(), 0, paths, &|| false);
    assert!(
        matches!(overflow, Err(CudaError::Kernel(KernelError::NotFinite { contract: 1 }))),
        "{overflow:?}"
    );
    assert_same_tally(backend, "a range too far", &PI, u64::MAX, 2);
    let nowhere = book(&[&[1.0]], vec![contract(0, 7, Payoff::EuropeanCall)]);
    assert_same_tally(backend, "an expiry that is not there", &nowhere, 0, 10);
}

/// Panics unless the backend's losses are, event by event, those of the processor's kernel; returns them as it does.
pub fn assert_same_losses<B: Backend>(
    backend: &mut B,
    what: &str,
    season: &Season,
    (first, count): (u64, u64),
) -> Vec<u8> {
    let find = |blake3: &[u8; 32]| season.find(blake3);
    let run = tessera_kernels::catastrophe::run;
    let expected = run(&season.task, first, count, &find, Isa::detect(), &|| false).expect("losses");
    let found = catastrophe(backend, &season.task, (first, count), &find, &|| false).expect("losses");
    assert_eq!((found.head.len(), found.files.len()), (0, 1));
    let (expected, found) = (&expected.files[0], &found.files[0]);
    assert_eq!((&expected.name, expected.bytes.len()), (&found.name, found.bytes.len()));
    let rows = |bytes: &[u8]| -> Vec<[u8; LOSS_BYTES]> { bytes.as_chunks().0.to_vec() };
    for (event, (expected, found)) in rows(&expected.bytes).iter().zip(rows(&found.bytes)).enumerate() {
        let words = |row: &[u8; LOSS_BYTES]| {
            let [gross, ground_up, wind, points] = [0, 1, 2, 3].map(|word| row.as_chunks::<8>().0[word]);
            let [gross, ground_up, wind] = [gross, ground_up, wind].map(f64::from_le_bytes);
            (gross, ground_up, wind, u64::from_le_bytes(points))
        };
        let event = first + event as u64;
        assert_eq!(words(expected), words(&found), "event {event} of {what}");
        assert_eq!(*expected, found, "event {event} of {what}");
    }
    found.bytes.clone()
}

/// The whole set of catastrophe models, whole and in parts.
pub fn assert_same_seasons<B: Backend>(backend: &mut B, rows: u32, samples: u32) {
    for (what, season) in seasons(rows, samples) {
        let events = season.task.units();
        let whole = assert_same_losses(backend, what, &season, (0, events));
        let rows = whole.as_chunks::<LOSS_BYTES>().0;
        let hit = rows.iter().filter(|row| row[..8] != [0; 8]).count();
        assert!((1..rows.len()).contains(&hit), "{what}: {hit} of {events} events have a loss");
        let last = assert_same_losses(backend, what, &season, (events - 1, 1));
        assert!(whole.ends_with(&last));
    }
}

/// The definition of a product's element, in the type's own arithmetic.
pub trait Reference: DeviceElement {
    fn of(value: f64) -> Self;
    fn fused(self, b: Self, c: Self) -> Self;
    fn times(self, b: Self) -> Self;
    fn same_bits(self, other: Self) -> bool;
}

macro_rules! reference {
    ($type:ident) => {
        impl Reference for $type {
            fn of(value: f64) -> Self {
                value as $type
            }
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            fn times(self, b: Self) -> Self {
                self * b
            }
            fn same_bits(self, other: Self) -> bool {
                self.to_bits() == other.to_bits()
            }
        }
    };
}
reference!(f32);
reference!(f64);

/// A product whose operands lie as the flags say, against its definition.
pub fn assert_same_product<T: Reference, B: Backend>(
    backend: &mut B,
    [rows, depth, cols]: [usize; 3],
    [a_by_columns, b_by_columns]: [bool; 2],
    [alpha, beta]: [f64; 2],
    cut: Cut,
) {
    let numbers = |seed: usize, count: usize| -> Vec<T> {
        // Some zeros of either sign: padding with them would show.
        (0..count).map(|i| if i % 7 == 3 { T::of(-0.0) } else { T::of(noise(seed + i)) }).collect()
    };
    let (a, b, c) = (numbers(0, rows * depth), numbers(70_000, depth * cols), numbers(90_000, rows * cols));
    let matrix = |data, [rows, cols]: [usize; 2], by_columns| {
        View::new(data, [rows, cols], if by_columns { [1, rows] } else { [cols, 1] }).expect("a matrix")
    };
    let (alpha, beta) = (T::of(alpha), T::of(beta));
    let (left, right) = (matrix(&a, [rows, depth], a_by_columns), matrix(&b, [depth, cols], b_by_columns));
    let product = Product::new(alpha, left, right).expect("factors that fit");
    let product = product.adding(beta, matrix(&c, [rows, cols], a_by_columns)).expect("a C that fits");
    for k in [0..depth, depth / 3..depth] {
        let mut found = vec![T::of(f64::NAN); rows * cols];
        gemm_cut(backend, &product, k.clone(), cut, &mut found, &|| false).expect("a product");
        for (place, found) in found.iter().enumerate() {
            let (row, col) = (place / cols, place % cols);
            let a_at = |k| if a_by_columns { a[k * rows + row] } else { a[row * depth + k] };
            let b_at = |k| if b_by_columns { b[col * depth + k] } else { b[k * cols + col] };
            let acc = k.clone().fold(T::of(0.0), |acc, k| a_at(k).fused(b_at(k), acc));
            let c = if a_by_columns { c[col * rows + row] } else { c[place] };
            let adds = k.start == 0 && beta != T::of(0.0);
            let expected = if adds { alpha.fused(acc, beta.times(c)) } else { alpha.times(acc) };
            assert!(
                found.same_bits(expected),
                "({row}, {col}) of {rows}x{depth}x{cols}, k {k:?}, {cut:?}: {found:?} for {expected:?}"
            );
        }
    }
}

/// The whole set of products: edges, layouts, factors, tiles and chunks.
pub fn assert_same_products<T: Reference, B: Backend>(backend: &mut B) {
    let whole = Cut { tile: 4096, depth: 4096 };
    assert_same_product::<T, B>(backend, [100, 97, 101], [false, false], [1.0, 0.0], whole);
    assert_same_product::<T, B>(backend, [130, 19, 66], [true, true], [-0.3, 1.7], whole);
    let deep = Cut { tile: 4096, depth: 11 };
    assert_same_product::<T, B>(backend, [129, 25, 130], [false, false], [0.5, 0.0], deep);
    let small = Cut { tile: 48, depth: 5 };
    assert_same_product::<T, B>(backend, [50, 23, 97], [false, true], [2.0, -1.0], small);
    for shape in [[1, 1, 1], [1, 40, 1], [3, 0, 2], [0, 4, 4], [65, 8, 1], [1, 9, 129]] {
        assert_same_product::<T, B>(backend, shape, [true, false], [1.0, 0.5], whole);
    }
}
