//! The climate kernel on its own: products that are no products, inputs that are not there or larger than any memory,
//! a stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tessera_kernels::climate::{KernelError, run};
use tessera_kernels::isa::Isa;
use tessera_kernels::runs::{Files, Runs, Unreadable};
use tessera_protocol::climate::{
    Anomalies, CellWeights, CellsTask, EigenTask, Element, Field, GramTask, ModesTask, Named, Piece,
    ProjectTask, Side, Slab, Source, SurveyTask, Task, Unpack, Weights,
};
use tessera_protocol::id::Digest;
use tessera_protocol::product::{File, Product};

const SAMPLES: u64 = 6;
const CELLS: u64 = 10;

fn source(bytes: &[u8]) -> Source {
    Source { blake3: Digest::of(bytes).0, bytes: bytes.len() as u64 }
}

fn values() -> Vec<u8> {
    (0..SAMPLES * CELLS).flat_map(|at| ((at * 37 % 11) as f64).to_le_bytes()).collect()
}

fn field(bytes: &[u8]) -> Field {
    let slab = Slab {
        offset: 0,
        counts: [1, SAMPLES],
        strides: [0, 8 * CELLS],
        element: Element::F64,
        big_endian: false,
        unpack: Unpack::plain(),
    };
    Field { pieces: vec![Piece { source: source(bytes), slab }], cells: CELLS }
}

/// Every stage that reads a product, reading this one.
fn tasks(product: Source) -> Vec<Task> {
    let anomalies = Anomalies { field: field(&values()), cells: vec![product] };
    let of = Side::Samples;
    vec![
        Task::Gram(GramTask { anomalies: anomalies.clone(), of, side: SAMPLES, tile: 4 }),
        Task::Eigen(EigenTask { samples: SAMPLES, side: SAMPLES, tile: 4, tiles: vec![product], modes: 2 }),
        Task::Modes(ModesTask { anomalies: anomalies.clone(), of, eigen: product }),
        Task::Project(ProjectTask { anomalies, eofs: vec![product], modes: 2, new: true, survey: product }),
    ]
}

fn cells_task() -> Task {
    let bytes = values();
    Task::Cells(CellsTask {
        field: field(&bytes),
        survey: source(&bytes),
        weights: CellWeights::None,
        center: true,
        standardise: false,
    })
}

#[test]
fn a_product_that_no_kernel_wrote_is_an_error_and_not_a_panic() {
    let file = |name: &str, bytes: usize| File { name: name.into(), bytes: vec![1; bytes] };
    let encoded = |files: Vec<File>| Product { head: Vec::new(), files }.encode().expect("a product");
    let numbers = |name: &str, count: usize| encoded(vec![file(name, 8 * count)]);
    let wrong = [
        b"no product".to_vec(),
        encoded(Vec::new()),
        encoded(vec![
            file("cells", 3),
            file("tiles", 3),
            file("singular", 8),
            file("vectors", 9),
            file("eofs", 4),
        ]),
        numbers("cells", 2 * CELLS as usize + 2),
        numbers("tiles", 1),
        numbers("tiles", 1_000),
        numbers("eofs", 2 * CELLS as usize + 1),
    ];
    for product in wrong {
        let product = Bytes::from(product);
        for task in tasks(source(&product)) {
            let values = Bytes::from(values());
            let find = |digest: &[u8; 32]| {
                [&values, &product].into_iter().find(|bytes| Digest::of(bytes).0 == *digest).cloned()
            };
            let found = run(&task, 0, 1, &find, Isa::detect(), &|| false);
            assert_eq!(found, Err(KernelError::Product), "{task:?}");
        }
    }
}

#[test]
fn an_input_that_is_not_there_or_of_another_length_is_missing() {
    let none = |_: &[u8; 32]| None;
    let short = |_: &[u8; 32]| Some(Bytes::from_static(b"short"));
    for task in tasks(source(b"")).into_iter().chain([cells_task()]) {
        assert_eq!(run(&task, 0, 1, &none, Isa::detect(), &|| false), Err(KernelError::InputMissing));
        assert_eq!(run(&task, 0, 1, &short, Isa::detect(), &|| false), Err(KernelError::InputMissing));
    }
}

#[test]
fn units_that_a_stage_has_not_are_refused_and_a_stop_is_heard() {
    let task = cells_task();
    let values = Bytes::from(values());
    let find = |_: &[u8; 32]| Some(values.clone());
    for (first, count) in [(0, 0), (0, 2), (1, 1), (u64::MAX, 1), (1, u64::MAX)] {
        let found = run(&task, first, count, &find, Isa::detect(), &|| false);
        assert_eq!(found, Err(KernelError::Task), "{first}, {count}");
    }
    assert_eq!(run(&task, 0, 1, &find, Isa::detect(), &|| true), Err(KernelError::Cancelled));
    assert!(run(&task, 0, 1, &find, Isa::detect(), &|| false).is_ok());
}

/// A field of doubles that nobody could hold in memory: what is read of it is made, and counted.
#[derive(Debug, Default)]
struct Endless {
    bytes: u64,
    read: AtomicU64,
    longest: AtomicU64,
}

impl Runs for Endless {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let bytes = into.len() as u64;
        assert!(offset + bytes <= self.bytes && (offset | bytes).is_multiple_of(8));
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.longest.fetch_max(bytes, Ordering::Relaxed);
        for (at, number) in (offset / 8..).zip(into.as_chunks_mut().0) {
            *number = ((at % 1_009) as f64).to_le_bytes();
        }
        Ok(())
    }
}

const ENDLESS: Source = Source { blake3: [1; 32], bytes: 8 * 4_096 * (1 << 18) };

/// That field, and products in memory.
struct OnDisk {
    field: Arc<Endless>,
    products: Vec<Bytes>,
}

impl Files for OnDisk {
    fn open(&self, blake3: &[u8; 32]) -> Option<Arc<dyn Runs>> {
        if *blake3 == ENDLESS.blake3 {
            return Some(self.field.clone());
        }
        let product = self.products.iter().find(|product| Digest::of(product).0 == *blake3)?;
        Some(Arc::new(product.clone()))
    }

    fn whole(&self, _: &[u8; 32]) -> Option<Bytes> {
        panic!("no stage of an analysis parses a whole file");
    }
}

#[test]
fn a_shard_reads_the_runs_of_its_units_of_a_field_larger_than_memory_a_panel_at_a_time() {
    let cells = 1 << 18;
    let slab = Slab {
        offset: 0,
        counts: [1, 4_096],
        strides: [0, 8 * cells],
        element: Element::F64,
        big_endian: false,
        unpack: Unpack::plain(),
    };
    let field = Field { pieces: vec![Piece { source: ENDLESS, slab }], cells };
    let numbers = (0..cells).flat_map(|_| [504.0, 1.0]).flat_map(f64::to_le_bytes).collect();
    let file = File { name: "cells".into(), bytes: numbers };
    let means = Bytes::from(Product { head: Vec::new(), files: vec![file] }.encode().expect("a product"));
    let survey = source(b"");
    let of_cells = CellsTask {
        field: field.clone(),
        survey,
        weights: CellWeights::None,
        center: true,
        standardise: false,
    };
    let anomalies = Anomalies { field, cells: vec![source(&means)] };
    let of_tiles = GramTask { anomalies, of: Side::Samples, side: 4_096, tile: 4 };
    // A panel of cells of all samples; a tile off the diagonal, of twice four samples and all cells.
    let expected =
        [(Task::Cells(of_cells), 100, 8 * 1_024 * 4_096), (Task::Gram(of_tiles), 1, 8 * 8 * cells)];
    for (task, unit, bytes) in expected {
        let on_disk = Arc::new(Endless { bytes: ENDLESS.bytes, ..Endless::default() });
        let files = OnDisk { field: on_disk.clone(), products: vec![means.clone()] };
        run(&task, unit, 1, &files, Isa::detect(), &|| false).expect("a product");
        assert_eq!(on_disk.read.load(Ordering::Relaxed), bytes);
        assert_eq!(on_disk.longest.load(Ordering::Relaxed), 8 * 1_024);
    }
}

/// A file of which the first bytes can be read and then no more.
#[derive(Debug)]
struct Failing(&'static [u8]);

impl Runs for Failing {
    fn bytes(&self) -> u64 {
        1_000_000
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let begin = self.0.get(offset as usize..offset as usize + into.len()).ok_or(Unreadable)?;
        into.copy_from_slice(begin);
        Ok(())
    }
}

struct OnBadDisk(&'static [u8]);

impl Files for OnBadDisk {
    fn open(&self, _: &[u8; 32]) -> Option<Arc<dyn Runs>> {
        Some(Arc::new(Failing(self.0)))
    }

    fn whole(&self, _: &[u8; 32]) -> Option<Bytes> {
        None
    }
}

#[test]
fn a_disk_that_fails_is_no_answer_about_the_field() {
    let file = Source { blake3: [2; 32], bytes: 1_000_000 };
    let survey = SurveyTask {
        field: vec![Named { name: "field.nc".into(), source: file }],
        new: Vec::new(),
        variable: None,
        units: None,
        weights: Weights::None,
    };
    let unreadable = Err(KernelError::Unreadable(Unreadable));
    for begin in [&b"\x93NUMPY"[..], b"CDF\x01", b"\x89HDF\r\n\x1a\n", b""] {
        let files = OnBadDisk(begin);
        let found = run(&Task::Survey(survey.clone()), 0, 1, &files, Isa::detect(), &|| false);
        assert_eq!(found, unreadable, "{begin:?}");
    }
    let mut cells = cells_task();
    let Task::Cells(task) = &mut cells else { panic!("it is of cells") };
    task.field.pieces[0].source = file;
    assert_eq!(run(&cells, 0, 1, &OnBadDisk(b""), Isa::detect(), &|| false), unreadable);
}
