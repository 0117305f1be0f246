//! Blocks of planned products against the definition, element by element.

use std::path::Path;
use std::sync::Arc;

use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::npy::Reader;
use tessera_kernels::matrix::{KernelError, Matrix, Prepared};
use tessera_protocol::matrix::{Half, Operand, Source, Task};

fn uniform(stream: u32, rows: u64, cols: u64, transposed: bool) -> Operand {
    Operand { source: Source::Uniform { stream }, rows, cols, transposed }
}

fn product(m: u64, n: u64, k: u64, double: bool) -> Task {
    Task {
        key: [3, 4],
        double,
        alpha: 1.25,
        beta: -0.5,
        a: uniform(1, m, k, false),
        b: uniform(2, n, k, true),
        c: Some(uniform(3, m, n, false)),
        half: None,
        tile: [16, 24],
        k_panel: 20,
    }
}

fn none(_: &[u8; 32], _: u64) -> Option<Arc<Matrix>> {
    None
}

fn prepared(task: &Task) -> Prepared {
    assert_eq!(task.check(), Ok(()));
    Prepared::new(Arc::new(task.clone()), &none, &|| false).expect("operands")
}

/// Entry of a random operand as the product sees it, from the definition of random matrices.
fn entry(task: &Task, operand: &Operand, row: u64, col: u64) -> f64 {
    let Source::Uniform { stream } = operand.source else { panic!("a random operand") };
    let [row, col] = if operand.transposed { [col, row] } else { [row, col] };
    let schedule = tessera_kernels::philox::Schedule::new(task.key);
    let [first, _] = schedule.block(row * operand.cols + col, 0, stream);
    let k = (first as u32) >> 9;
    (2.0 * f64::from(k) + 1.0) / 8_388_608.0 - 1.0
}

/// The block's bytes by the definition, one element at a time.
fn by_definition(task: &Task, index: u64) -> Vec<u8> {
    let block = task.block(index).expect("a block");
    let mut bytes = Vec::new();
    for i in block.rows.clone() {
        for j in block.cols.clone() {
            let outside = match task.half {
                None => false,
                Some(Half::Lower) => j > i,
                Some(Half::Upper) => j < i,
            };
            let terms = block.terms.clone().map(|k| [entry(task, &task.a, i, k), entry(task, &task.b, k, j)]);
            let addend = task.c.as_ref().filter(|_| block.panel == 0).map(|c| entry(task, c, i, j));
            if task.double {
                let sum = terms.fold(0.0, |sum, [a, b]| a.mul_add(b, sum));
                let value = match addend {
                    Some(c) => task.alpha.mul_add(sum, task.beta * c),
                    None => task.alpha * sum,
                };
                bytes.extend((if outside { 0.0 } else { value }).to_le_bytes());
            } else {
                let sum = terms.fold(0.0f32, |sum, [a, b]| (a as f32).mul_add(b as f32, sum));
                let [alpha, beta] = [task.alpha as f32, task.beta as f32];
                let value = match addend {
                    Some(c) => alpha.mul_add(sum, beta * c as f32),
                    None => alpha * sum,
                };
                bytes.extend((if outside { 0.0f32 } else { value }).to_le_bytes());
            }
        }
    }
    bytes
}

#[test]
fn every_block_of_a_product_is_what_the_definition_says_on_every_instruction_set() {
    let upside_down = |task: Task| Task {
        a: uniform(1, task.a.cols, task.a.rows, true),
        b: uniform(2, task.b.cols, task.b.rows, false),
        ..task
    };
    let plain = product(37, 50, 45, true);
    for task in [
        plain.clone(),
        product(37, 50, 45, false),
        upside_down(plain.clone()),
        Task { beta: 0.0, c: None, k_panel: 45, ..plain },
    ] {
        let prepared = prepared(&task);
        for index in 0..task.blocks() {
            let expected = by_definition(&task, index);
            for isa in Isa::available() {
                assert!(prepared.run(isa, index, &|| false) == Ok(expected.clone()), "block {index}, {isa}");
            }
        }
        assert_eq!(prepared.run(Isa::PLAIN, task.blocks(), &|| false), Err(KernelError::Task));
    }
}

#[test]
fn blocks_on_the_diagonal_of_a_symmetric_update_hold_one_half_and_zeros() {
    for half in [Half::Lower, Half::Upper] {
        for transposed in [false, true] {
            let a = if transposed { uniform(1, 21, 40, true) } else { uniform(1, 40, 21, false) };
            let b = Operand { transposed: !transposed, ..a.clone() };
            let c = Some(uniform(3, 40, 40, false));
            let task =
                Task { a, b, c, half: Some(half), tile: [16, 16], k_panel: 20, ..product(1, 1, 1, true) };
            let prepared = prepared(&task);
            for index in 0..task.blocks() {
                let expected = by_definition(&task, index);
                assert!(prepared.run(Isa::detect(), index, &|| false) == Ok(expected), "block {index}");
            }
        }
    }
}

#[test]
fn inputs_in_c_and_fortran_order_give_the_same_bytes_and_others_are_refused() {
    let load = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npy").join(name);
        let bytes = std::fs::read(path).expect("a file");
        let mut reader = Reader::keeping(bytes.len() as u64);
        reader.push(&bytes).expect("a matrix");
        Arc::new(reader.matrix().expect("a matrix"))
    };
    let source = Source::Input { blake3: [7; 32], bytes: 176 };
    let task = Task {
        a: Operand { source, rows: 2, cols: 3, transposed: false },
        b: uniform(2, 3, 5, false),
        beta: 0.0,
        c: None,
        ..product(1, 1, 1, true)
    };
    let with = |name: &str, task: &Task| {
        let matrix = load(name);
        Prepared::new(Arc::new(task.clone()), &|_, _| Some(matrix.clone()), &|| false)
    };
    let run = |name| with(name, &task).expect("operands").run(Isa::detect(), 0, &|| false).expect("a block");
    assert_eq!(run("c.npy"), run("fortran.npy"));
    assert_eq!(run("c.npy").len(), 2 * 5 * 8);
    let refused = |name, task: &Task| with(name, task).expect_err("another matrix").to_string();
    assert_eq!(refused("f4.npy", &task), "the input of a is 2 x 3 f32 where the job says 2 x 3 f64");
    let taller = Task { a: Operand { source, rows: 3, cols: 3, transposed: false }, ..task.clone() };
    assert_eq!(refused("c.npy", &taller), "the input of a is 2 x 3 f64 where the job says 3 x 3 f64");
    let missing = Prepared::new(Arc::new(task), &none, &|| false).expect_err("no input");
    assert_eq!(missing, KernelError::InputMissing { operand: "a" });
}

#[test]
fn a_block_stops_when_told_to() {
    let task = product(64, 64, 64, true);
    assert!(matches!(Prepared::new(Arc::new(task.clone()), &none, &|| true), Err(KernelError::Cancelled)));
    assert_eq!(prepared(&task).run(Isa::detect(), 0, &|| true), Err(KernelError::Cancelled));
}
