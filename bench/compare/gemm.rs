//! Square products in both types: ours on each instruction set, OpenBLAS, faer, matrixmultiply.

use std::cell::RefCell;
use std::path::PathBuf;

use tessera_kernels::gemm::{Element, Product, View, gemm};
use tessera_kernels::isa::Isa;
use tessera_kernels::pages::advise_large;
use tessera_kernels::philox::Schedule;

use crate::contest::{Contestant, Outcome, Report, hold, timed};
use crate::openblas::{self, OpenBlas};

/// As fast as it can be here.
const OPENBLAS: &str = "OpenBLAS";
/// Made to believe in a core without AVX-512, for our AVX2.
const HASWELL: &str = "OpenBLAS as Haswell";

/// # Safety
/// No other thread runs, and the library is an OpenBLAS.
pub(crate) unsafe fn run(sizes: &[usize], asked: Option<PathBuf>, rounds: u32) -> Report {
    let mut notes = Vec::new();
    let mut blas = Vec::new();
    match openblas::find(asked) {
        None => notes.push("OpenBLAS is missing: run bench/compare/setup or give --openblas".to_owned()),
        Some(path) => {
            let haswell = cfg!(target_arch = "x86_64").then_some((HASWELL, Some("Haswell")));
            for (name, core) in std::iter::once((OPENBLAS, None)).chain(haswell) {
                // SAFETY: promised by the caller.
                match unsafe { OpenBlas::load(&path, core) } {
                    Ok(loaded) => {
                        notes.push(format!("{name} runs kernels for {}", loaded.core));
                        blas.push((name, loaded));
                    }
                    Err(error) => notes.push(error),
                }
            }
        }
    }
    let mut outcomes = Vec::new();
    for &side in sizes {
        outcomes.push(contest::<f64>(side, rounds, &blas));
        outcomes.push(contest::<f32>(side, rounds, &blas));
    }
    Report { outcomes, notes }
}

/// A type that all libraries multiply.
trait Number: Element {
    const NAME: &'static str;
    fn from_signed(value: i64) -> Self;
    fn openblas(library: &OpenBlas, side: usize, a: &[Self], b: &[Self], c: &mut [Self]);
    fn faer(side: usize, a: &[Self], b: &[Self], c: &mut [Self]);
    fn matrixmultiply(side: usize, a: &[Self], b: &[Self], c: &mut [Self]);
}

macro_rules! number {
    ($type:ident, $cblas:ident, $matrixmultiply:path) => {
        impl Number for $type {
            const NAME: &'static str = stringify!($type);
            fn from_signed(value: i64) -> Self {
                value as $type / (1u64 << 63) as $type
            }
            fn openblas(library: &OpenBlas, side: usize, a: &[Self], b: &[Self], c: &mut [Self]) {
                library.$cblas(side, a, b, c);
            }
            fn faer(side: usize, a: &[Self], b: &[Self], c: &mut [Self]) {
                use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
                let a = MatRef::from_row_major_slice(a, side, side);
                let b = MatRef::from_row_major_slice(b, side, side);
                let c = MatMut::from_row_major_slice_mut(c, side, side);
                matmul(c, Accum::Replace, a, b, 1.0, Par::Seq);
            }
            fn matrixmultiply(side: usize, a: &[Self], b: &[Self], c: &mut [Self]) {
                assert!([a.len(), b.len(), c.len()] == [side * side; 3]);
                let (n, row) = (side, side as isize);
                // SAFETY: the lengths were checked.
                unsafe {
                    $matrixmultiply(
                        n,
                        n,
                        n,
                        1.0,
                        a.as_ptr(),
                        row,
                        1,
                        b.as_ptr(),
                        row,
                        1,
                        0.0,
                        c.as_mut_ptr(),
                        row,
                        1,
                    );
                }
            }
        }
    };
}
number!(f64, dgemm, matrixmultiply::dgemm);
number!(f32, sgemm, matrixmultiply::sgemm);

fn contest<T: Number>(side: usize, rounds: u32, blas: &[(&str, OpenBlas)]) -> Outcome {
    let schedule = Schedule::new([3, side as u32]);
    let matrix = |stream: u32| -> Vec<T> {
        let mut entries = Vec::with_capacity(side * side);
        // As numpy and our own jobs do with theirs; it is everybody's memory here.
        advise_large(entries.spare_capacity_mut());
        entries.extend(
            (0..side * side).map(|place| T::from_signed(schedule.block(place as u64, 0, stream)[0] as i64)),
        );
        entries
    };
    let (a, b) = (matrix(0), matrix(1));
    let out = vec![T::ZERO; side * side];
    advise_large(&out);
    let out = RefCell::new(out);
    let turn = |isa: Isa| {
        let (a, b) = (View::row_major(&a, side, side), View::row_major(&b, side, side));
        let product = Product::new(T::ONE, a.expect("square"), b.expect("square")).expect("square");
        gemm(isa, &product, 0..side, &mut out.borrow_mut(), &|| false).expect("small numbers");
    };
    let amount = 2.0 * (side as f64).powi(3) * 1e-9;
    turn(Isa::detect());
    let expected = out.borrow().clone();
    let mut contestants: Vec<Contestant<'_>> = Vec::new();
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::PLAIN || cfg!(target_arch = "aarch64"))
    {
        let reference = if isa.name() == "avx2" { HASWELL } else { OPENBLAS };
        contestants.push(Contestant {
            name: format!("tessera {isa}"),
            reference,
            amount,
            turn: Box::new(move || timed(|| turn(isa))),
        });
    }
    let (a, b, out) = (&a, &b, &out);
    for (name, library) in blas {
        let turn = move || T::openblas(library, side, a, b, &mut out.borrow_mut());
        contestants.push(theirs(name, amount, turn));
    }
    let turn = move || T::faer(side, a, b, &mut out.borrow_mut());
    contestants.push(theirs("faer", amount, turn));
    let turn = move || T::matrixmultiply(side, a, b, &mut out.borrow_mut());
    contestants.push(theirs("matrixmultiply", amount, turn));
    for Contestant { name, turn, .. } in &mut contestants {
        out.borrow_mut().fill(T::ZERO);
        turn();
        let far = out.borrow().iter().zip(&expected).any(|(found, expected)| {
            (found.widened() - expected.widened()).abs() > side as f64 * T::UNIT_ROUNDOFF * side as f64
        });
        assert!(!far, "{name} computes another product");
    }
    hold(format!("{} {side}", T::NAME), "GFLOP/s", rounds, contestants)
}

/// Someone else, as a part of OpenBLAS as fast as it can be.
fn theirs<'a>(name: &str, amount: f64, mut turn: impl FnMut() + 'a) -> Contestant<'a> {
    Contestant {
        name: name.to_owned(),
        reference: OPENBLAS,
        amount,
        turn: Box::new(move || timed(&mut turn)),
    }
}
