//! The committed PTX gives the bits of the Rust kernels, run by the interpreter.

mod support;

use support::*;
use tessera_cuda::backend::Program;
use tessera_cuda::gemm::gemm;
use tessera_cuda::interpreter::{Module, PtxError};
use tessera_cuda::{CudaError, Emulator, catastrophe, monte_carlo};
use tessera_kernels::catastrophe::KernelError;
use tessera_kernels::gemm::{GemmError, Product, View};
use tessera_protocol::catastrophe::Task;

/// Instructions that no input reaches: the end that stands behind every kernel's last return; the wide exponential where
/// a barrier's argument was held to −600; and the sign of payoffs, squares and losses, which have none.
const OUT_OF_REACH: [(&str, usize); 10] = [
    ("count_points", 1),
    ("finish_f32", 1),
    ("finish_f64", 1),
    ("gemm_f32", 3),
    ("gemm_f64", 1),
    ("simulate", 49),
    ("tally_contracts", 48),
    ("tally_events", 35),
    ("tally_values", 15),
    ("value_book", 1),
];

#[test]
fn every_instruction_that_can_be_reached_is_compared_with_the_processor() {
    let mut emulator = Emulator::new().unwrap();
    assert_same_tallies(&mut emulator, 2_000);
    assert_same_seasons(&mut emulator, 300, 2);
    assert_same_products::<f64, _>(&mut emulator);
    assert_same_products::<f32, _>(&mut emulator);
    let unreached = emulator.unreached();
    assert_eq!(unreached.len(), OUT_OF_REACH.len());
    for ((name, unreached), (expected_name, expected)) in unreached.into_iter().zip(OUT_OF_REACH) {
        assert_eq!((name, unreached.len()), (expected_name, expected), "{unreached:?}");
    }
}

#[test]
fn the_memory_that_batches_are_cut_by_changes_no_bit() {
    // Room for the bins and a few hundred paths.
    for extra in [2_200_000, 4_000_000] {
        let mut emulator = Emulator::new().unwrap().with_scratch_bytes((128 << 20) + extra);
        assert_same_tally(&mut emulator, "every payoff", &every_payoff(), 4_711, 3_000);
        assert_same_tally(&mut emulator, "overflowing", &overflowing(), 4_711, 3_000);
    }
    // Room for the portfolio and the nodes of one event or a few.
    for scratch_bytes in [60_000, 120_000] {
        let mut emulator = Emulator::new().unwrap().with_scratch_bytes(scratch_bytes);
        assert_same_seasons(&mut emulator, 40, 5);
    }
}

#[test]
fn the_order_of_threads_and_blocks_changes_no_bit() {
    let mut emulator = Emulator::new().unwrap().turned_around();
    assert_same_tallies(&mut emulator, 500);
    assert_same_seasons(&mut emulator, 300, 1);
    assert_same_products::<f32, _>(&mut emulator);
}

#[test]
fn products_of_doubles_have_the_bits_of_their_definition() {
    assert_same_products::<f64, _>(&mut Emulator::new().unwrap());
}

#[test]
fn products_of_floats_have_the_bits_of_their_definition() {
    assert_same_products::<f32, _>(&mut Emulator::new().unwrap());
}

#[test]
fn what_cannot_be_computed_is_a_clear_error() {
    let mut emulator = Emulator::new().unwrap();
    let call = every_payoff();
    assert_eq!(monte_carlo(&mut emulator, &call, 0, 100, &|| true), Err(CudaError::Cancelled));
    assert_eq!(monte_carlo(&mut emulator, &PI, 0, 100, &|| true), Err(CudaError::Cancelled));
    let mut small = Emulator::new().unwrap().with_scratch_bytes(1 << 20);
    let Err(CudaError::Memory { bytes }) = monte_carlo(&mut small, &call, 0, 100, &|| false) else {
        panic!("a book fits nowhere");
    };
    assert!(bytes > 128 << 20);
    let infinite = [1.0, 2.0, f64::MAX, 4.0];
    let a = View::row_major(&infinite, 2, 2).unwrap();
    let product = Product::new(1.0, a, a).unwrap();
    let mut out = [0.0; 4];
    let result = gemm(&mut emulator, &product, 0..2, &mut out, &|| false);
    assert_eq!(result, Err(GemmError::NotFinite { row: 0, col: 0 }.into()));
    let result = gemm(&mut emulator, &product, 0..2, &mut out[1..], &|| false);
    let (expected, found) = ([2, 2], [1, 3]);
    assert_eq!(result, Err(GemmError::Shape { operand: "the output", expected, found }.into()));
    assert_eq!(gemm(&mut emulator, &product, 0..2, &mut out, &|| true), Err(CudaError::Cancelled));
}

#[test]
fn a_storm_that_cannot_be_computed_is_a_clear_error() {
    let mut emulator = Emulator::new().unwrap();
    let (_, season) = seasons(40, 2).swap_remove(0);
    let find = |blake3: &[u8; 32]| season.find(blake3);
    let mut run = |task: &Task, units| catastrophe(&mut emulator, task, units, &find, &|| false);
    let Task::Losses { model, .. } = &season.task else { panic!("losses") };
    let survey = run(&Task::Survey(model.clone()), (0, 1));
    assert!(matches!(survey, Err(CudaError::Unsupported { .. })), "{survey:?}");
    for units in [(0, 0), (0, 9), (8, 1), (u64::MAX, 2)] {
        assert_eq!(run(&season.task, units), Err(CudaError::Catastrophe(KernelError::Task)), "{units:?}");
    }
    let other = Task::Losses { model: model.clone(), storms: 3 };
    let Err(CudaError::Catastrophe(KernelError::Input(fault))) = run(&other, (0, 1)) else {
        panic!("another catalogue passes");
    };
    assert!(fault.to_string().contains("not the storms"), "{fault}");
    let missing = catastrophe(&mut emulator, &season.task, (0, 1), &|_| None, &|| false);
    let named = KernelError::InputMissing { blake3: model.tracks.file.blake3 };
    assert_eq!(missing, Err(CudaError::Catastrophe(named)));
    let stopped = catastrophe(&mut emulator, &season.task, (0, 8), &find, &|| true);
    assert_eq!(stopped, Err(CudaError::Cancelled));
    for scratch_bytes in [1_000, 22_000] {
        let mut small = Emulator::new().unwrap().with_scratch_bytes(scratch_bytes);
        let result = catastrophe(&mut small, &season.task, (0, 8), &find, &|| false);
        assert!(matches!(result, Err(CudaError::Memory { bytes }) if bytes > 1_000), "{result:?}");
    }
}

/// A kernel around one statement.
fn kernel(statement: &str) -> String {
    format!(
        ".version 8.2\n.target sm_80\n.visible .entry k(\n.param .u64 k_param_0\n)\n{{\n.reg .f64 %fd<4>;\n\t{statement}\n\tret;\n}}\n"
    )
}

#[test]
fn arithmetic_that_is_not_rounded_once_to_nearest_is_refused() {
    assert!(Module::parse(&kernel("fma.rn.f64 %fd1, %fd2, %fd3, %fd1;")).is_ok());
    for statement in [
        "mul.f64 %fd1, %fd2, %fd3;",
        "add.f64 %fd1, %fd2, %fd3;",
        "sub.f32 %f1, %f2, %f3;",
        "mad.f64 %fd1, %fd2, %fd3, %fd1;",
        "fma.rz.f64 %fd1, %fd2, %fd3, %fd1;",
        "fma.approx.f32 %f1, %f2, %f3, %f1;",
        "fma.rn.ftz.f32 %f1, %f2, %f3, %f1;",
        "mul.rn.ftz.f32 %f1, %f2, %f3;",
        "div.full.f32 %f1, %f2, %f3;",
        "div.approx.f32 %f1, %f2, %f3;",
        "sqrt.approx.ftz.f64 %fd1, %fd2;",
        "ex2.approx.f32 %f1, %f2;",
        "max.ftz.f32 %f1, %f2, %f3;",
        "red.global.add.f64 [%rd1], %fd1;",
        "atom.shared.add.f32 %f1, [%rd1], %f2;",
    ] {
        let result = Module::parse(&kernel(statement));
        assert!(matches!(result, Err(PtxError::NotReproducible { .. })), "{statement}: {result:?}");
    }
    let result = Module::parse(&kernel("shfl.sync.down.b32 %r1, %r2, 1, 31, -1;"));
    assert!(matches!(result, Err(PtxError::Unknown { .. })));
}

#[test]
fn one_contracted_instruction_in_the_committed_ptx_would_be_refused() {
    for program in Program::ALL {
        let ptx = program.ptx();
        assert!(Module::parse(ptx).is_ok());
        let contracted = ptx.replacen("mul.rn.f64", "mul.f64", 1);
        assert_ne!(contracted, ptx);
        assert!(matches!(Module::parse(&contracted), Err(PtxError::NotReproducible { .. })));
    }
}
