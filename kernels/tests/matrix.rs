//! Blocks of planned products against the definition, element by element.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::npy::Reader;
use tessera_kernels::matrix::{Given, KernelError, Prepared};
use tessera_kernels::runs::{Runs, Unreadable};
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

fn none(_: &[u8; 32], _: u64) -> Option<Given> {
    None
}

fn prepared(task: &Task) -> Prepared {
    assert_eq!(task.check(), Ok(()));
    Prepared::new(Arc::new(task.clone()), &none, u64::MAX).expect("operands")
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
        Prepared::new(Arc::new(task.clone()), &|_, _| Some(matrix.clone().into()), u64::MAX)
    };
    let run = |name| with(name, &task).expect("operands").run(Isa::detect(), 0, &|| false).expect("a block");
    assert_eq!(run("c.npy"), run("fortran.npy"));
    assert_eq!(run("c.npy").len(), 2 * 5 * 8);
    let refused = |name, task: &Task| with(name, task).expect_err("another matrix").to_string();
    assert_eq!(refused("f4.npy", &task), "the input of a is 2 x 3 f32 where the job says 2 x 3 f64");
    let taller = Task { a: Operand { source, rows: 3, cols: 3, transposed: false }, ..task.clone() };
    assert_eq!(refused("c.npy", &taller), "the input of a is 2 x 3 f64 where the job says 3 x 3 f64");
    let missing = Prepared::new(Arc::new(task), &none, u64::MAX).expect_err("no input");
    assert_eq!(missing, KernelError::InputMissing { operand: "a" });
}

#[test]
fn a_block_stops_when_told_to() {
    let task = product(64, 64, 64, true);
    assert_eq!(prepared(&task).run(Isa::detect(), 0, &|| true), Err(KernelError::Cancelled));
}

/// A file of which every run that is read is counted, in which one byte may have gone bad.
#[derive(Debug)]
struct OnDisk {
    bytes: Vec<u8>,
    read: AtomicU64,
    longest: AtomicU64,
    damaged_at: Option<u64>,
}

impl OnDisk {
    fn new(bytes: Vec<u8>) -> OnDisk {
        OnDisk { bytes, read: AtomicU64::new(0), longest: AtomicU64::new(0), damaged_at: None }
    }
}

impl Runs for OnDisk {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let end = offset + into.len() as u64;
        if self.damaged_at.is_some_and(|at| (offset..end).contains(&at)) {
            return Err(Unreadable);
        }
        self.read.fetch_add(into.len() as u64, Ordering::Relaxed);
        self.longest.fetch_max(into.len() as u64, Ordering::Relaxed);
        into.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }
}

/// A `.npy` of numbers of both signs, no two alike.
fn npy<T: Copy, const N: usize>(
    [rows, cols]: [usize; 2],
    fortran: bool,
    descr: &str,
    number: impl Fn(u64) -> T,
    bytes: fn(T) -> [u8; N],
) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({rows}, {cols}), }}");
    let unpadded = 10 + text.len() + 1;
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    text.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((text.len() as u16).to_le_bytes());
    file.extend(text.as_bytes());
    let lines = if fortran { [cols, rows] } else { [rows, cols] };
    for line in 0..lines[0] {
        for along in 0..lines[1] {
            let [row, col] = if fortran { [along, line] } else { [line, along] };
            file.extend(bytes(number((row * cols + col) as u64)));
        }
    }
    file
}

fn mixed(place: u64) -> f64 {
    let bits = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    bits as f64 / f64::from(1 << 23) - 1.0
}

fn doubles(shape: [usize; 2], fortran: bool) -> Vec<u8> {
    npy(shape, fortran, "<f8", mixed, f64::to_le_bytes)
}

fn input(file: &[u8], number: u8, rows: u64, cols: u64) -> Operand {
    let source = Source::Input { blake3: [number; 32], bytes: file.len() as u64 };
    Operand { source, rows, cols, transposed: false }
}

fn in_memory(file: &[u8]) -> Given {
    let mut reader = Reader::keeping(file.len() as u64);
    reader.push(file).expect("a matrix");
    Arc::new(reader.matrix().expect("a matrix")).into()
}

/// More terms than a stretch has, and not a multiple of it.
const DEEP: usize = 5_000;

#[test]
fn files_of_which_runs_are_read_give_the_bytes_of_matrices_in_memory_whatever_is_kept() {
    let (m, n) = (70, 50);
    for (fortran_a, fortran_b, transposed) in
        [(false, false, false), (true, false, true), (false, true, true), (true, true, false)]
    {
        let shape = |rows, cols| if transposed { [cols, rows] } else { [rows, cols] };
        let (shape_a, shape_b) = (shape(m, DEEP), shape(DEEP, n));
        let files = [doubles(shape_a, fortran_a), doubles(shape_b, fortran_b), doubles([m, n], fortran_a)];
        let operand = |at: usize, [rows, cols]: [usize; 2], transposed| Operand {
            transposed,
            ..input(&files[at], at as u8, rows as u64, cols as u64)
        };
        let task = Task {
            a: operand(0, shape_a, transposed),
            b: operand(1, shape_b, transposed),
            c: Some(operand(2, [m, n], false)),
            tile: [32, 24],
            k_panel: 4_000,
            ..product(1, 1, 1, true)
        };
        assert_eq!(task.check(), Ok(()));
        let task = Arc::new(task);
        let of_memory = Prepared::new(task.clone(), &|at, _| Some(in_memory(&files[at[0] as usize])), 0)
            .expect("operands");
        for panel_bytes_max in [0, 600_000, u64::MAX] {
            let on_disk = files.clone().map(|file| Arc::new(OnDisk::new(file)));
            let find = |at: &[u8; 32], _| Some(Given::File(on_disk[at[0] as usize].clone()));
            let of_files = Prepared::new(task.clone(), &find, panel_bytes_max).expect("operands");
            for index in 0..task.blocks() {
                let expected = of_memory.run(Isa::PLAIN, index, &|| false).expect("a block");
                assert!(of_files.run(Isa::detect(), index, &|| false) == Ok(expected), "block {index}");
            }
            // What is in memory at a time is a figure of the tile and the cap.
            let most = task.block_bytes() + panel_bytes_max.min(task.operand_bytes());
            assert!(of_files.held().most() <= most, "{} of {most}", of_files.held().most());
        }
    }
}

#[test]
fn a_product_many_times_larger_than_what_is_held_reads_each_line_once_where_its_panels_are_kept() {
    let (side, tile) = (640, 64);
    let file = doubles([side, DEEP], false);
    let a = input(&file, 1, side as u64, DEEP as u64);
    let task = Arc::new(Task {
        b: Operand { transposed: true, ..a.clone() },
        a,
        beta: 0.0,
        c: None,
        half: Some(Half::Lower),
        tile: [tile, tile],
        k_panel: DEEP as u64,
        ..product(1, 1, 1, true)
    });
    assert_eq!(task.check(), Ok(()));
    let digest = |prepared: &Prepared| {
        let mut hasher = blake3::Hasher::new();
        for index in 0..task.blocks() {
            hasher.update(&prepared.run(Isa::detect(), index, &|| false).expect("a block"));
        }
        hasher.finalize()
    };
    let read = |panel_bytes_max| {
        let on_disk = Arc::new(OnDisk::new(file.clone()));
        let find = |_: &[u8; 32], _| Some(Given::File(on_disk.clone()));
        let prepared = Prepared::new(task.clone(), &find, panel_bytes_max).expect("operands");
        let digest = digest(&prepared);
        (
            digest,
            prepared.held().most(),
            on_disk.read.load(Ordering::Relaxed),
            on_disk.longest.load(Ordering::Relaxed),
        )
    };
    let operands = file.len() as u64;
    assert!(operands > 25_000_000);
    let (little, held, read_again, longest) = read(0);
    assert!(held <= 2_000_000 && task.block_bytes() <= 2_100_000, "{held} bytes are held");
    assert!(longest <= 1 << 20, "{longest} bytes are read at once");
    assert!(read_again > 5 * operands);
    let (much, held, read_once, _) = read(u64::MAX);
    assert_eq!(little, much);
    assert_eq!(held, task.operand_bytes());
    // Of the header as much as the longest has.
    assert!(read_once <= operands + (1 << 16), "{read_once} of {operands}");
}

#[test]
fn what_is_wrong_with_a_file_is_said_when_it_is_read() {
    let file = doubles([40, 30], true);
    let task = Task {
        a: input(&file, 1, 40, 30),
        b: uniform(2, 30, 20, false),
        beta: 0.0,
        c: None,
        ..product(1, 1, 1, true)
    };
    assert_eq!(task.check(), Ok(()));
    let run = |file: OnDisk, block| {
        let file = Arc::new(file);
        let prepared =
            Prepared::new(Arc::new(task.clone()), &|_, _| Some(Given::File(file.clone())), u64::MAX)?;
        prepared.run(Isa::detect(), block, &|| false).map(|_| ())
    };
    assert_eq!(run(OnDisk::new(file.clone()), 0), Ok(()));
    // Column 21 of row 33: in the last row of tiles, in the second panel.
    let mut infinite = file.clone();
    let at = file.len() - (40 * (30 - 21) - 33) * 8;
    infinite[at..at + 8].copy_from_slice(&f64::INFINITY.to_le_bytes());
    let last = task.blocks() - 1;
    assert_eq!(run(OnDisk::new(infinite.clone()), 0), Ok(()), "it needs other entries");
    let wrong = KernelError::NotFinite { operand: "a", row: 33, col: 21 };
    assert_eq!(run(OnDisk::new(infinite), last), Err(wrong));
    let damaged = OnDisk { damaged_at: Some(at as u64), ..OnDisk::new(file.clone()) };
    assert_eq!(run(damaged, last), Err(KernelError::Unreadable { operand: "a" }));
    for (bytes, words) in [
        (file[..file.len() - 1].to_vec(), "truncated: it has 9727 bytes, and its header says 9728"),
        (b"no matrix".to_vec(), "not a .npy file"),
        (file[..50].to_vec(), "truncated: it ends inside its header"),
    ] {
        let error = run(OnDisk::new(bytes), 0).expect_err("no matrix").to_string();
        assert!(error.starts_with(&format!("the input of a: {words}")), "{error}");
    }
}

#[test]
fn singles_in_files_are_singles() {
    let file = npy([33, 60], false, "<f4", |place| mixed(place) as f32, f32::to_le_bytes);
    let task = Task {
        a: input(&file, 1, 33, 60),
        b: uniform(2, 60, 20, false),
        beta: 0.0,
        c: None,
        ..product(1, 1, 1, false)
    };
    assert_eq!(task.check(), Ok(()));
    let of = |given: Given| {
        let prepared =
            Prepared::new(Arc::new(task.clone()), &|_, _| Some(given.clone()), 0).expect("operands");
        let blocks = (0..task.blocks()).map(|index| prepared.run(Isa::detect(), index, &|| false));
        blocks.collect::<Result<Vec<_>, _>>().expect("blocks")
    };
    assert_eq!(of(Given::File(Arc::new(OnDisk::new(file.clone())))), of(in_memory(&file)));
}
