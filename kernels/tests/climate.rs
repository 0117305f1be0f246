//! The climate kernel on its own: products that are no products, inputs that are not there, a stop.

use bytes::Bytes;
use tessera_kernels::climate::{KernelError, run};
use tessera_kernels::isa::Isa;
use tessera_protocol::climate::{
    Anomalies, CellWeights, CellsTask, EigenTask, Element, Field, GramTask, ModesTask, Piece, ProjectTask,
    Side, Slab, Source, Task, Unpack,
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
