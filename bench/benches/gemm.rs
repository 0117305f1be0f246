//! Products of square matrices on one core, in every type and on every instruction set of this machine.
//!
//! An element is one multiplication and one addition: criterion's elements per second are FLOP/s. Beside them, where
//! it pays, Freivalds' check of the product, which says how much less it costs than computing again.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tessera_kernels::gemm::freivalds::{Band, Check, Vectors, Verdict};
use tessera_kernels::gemm::{Element, Product, View, gemm};
use tessera_kernels::isa::Isa;

const SIDE: usize = 1024;
/// Plain x86-64 calls a function for each fused multiply-add: a smaller product says as much.
const SIDE_PLAIN: usize = 128;
/// From here on products are checked.
const SIDE_CHECKED: usize = 2048;

fn measure<T: Element>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    isa: Isa,
    name: &str,
    side: usize,
    one: fn(usize) -> T,
) {
    let data: Vec<T> = (0..side * side).map(one).collect();
    let view = View::row_major(&data, side, side).expect("as many elements as that");
    let product = Product::new(T::ONE, view, view).expect("square");
    let mut out = vec![T::ZERO; side * side];
    group.throughput(Throughput::Elements(2 * (side as u64).pow(3)));
    group.bench_function(format!("{name} {isa} {side}"), |bencher| {
        bencher.iter(|| gemm(isa, black_box(&product), 0..side, &mut out, &|| false).expect("finite"));
    });
    if side < SIDE_CHECKED {
        return;
    }
    gemm(isa, &product, 0..side, &mut out, &|| false).expect("finite");
    let vectors = Vectors { key: [1, 2], rounds: 3 };
    let band = Band { first: 0, cols: 0..side, elements: &out, half: None };
    group.bench_function(format!("{name} {isa} {side} checked"), |bencher| {
        bencher.iter(|| {
            let check = Check::new(isa, black_box(product), 1, side, vectors, &|| false).expect("standard");
            let verdict = check.rows(&band, 0..side, &|| false).expect("finite");
            assert_eq!(verdict, Verdict::Consistent);
        });
    });
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gemm");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    for isa in Isa::available() {
        let sides: &[usize] = if isa == Isa::PLAIN { &[SIDE_PLAIN] } else { &[SIDE, SIDE_CHECKED] };
        for side in sides {
            measure(&mut group, isa, "f64", *side, |place| (place % 1009) as f64 - 504.0);
            measure(&mut group, isa, "f32", *side, |place| (place % 1009) as f32 - 504.0);
        }
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
