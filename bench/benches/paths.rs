//! Paths per second of one core: a European call under geometric Brownian motion, one step.
//!
//! Measures the kernel on every instruction set of this machine, tallying prices only (exact `Σx`, `Σx²`)
//! and in full (delta, histogram, book), against the loop one would write first, in the same run.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tessera_bench::one_call;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{Detail, run_with};

const PATHS: u64 = 1 << 20;
/// Plain x86-64 calls a function for each fused multiply-add: fewer paths say as much.
const PATHS_PLAIN: u64 = 1 << 16;

/// Xorshift, polar method, the platform's libm, one running sum.
fn naive(paths: u64) -> [f64; 2] {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut symmetric = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 * (2.0 / (1u64 << 53) as f64) - 1.0
    };
    let (spot, strike, rate, volatility, expiry) = black_box((100.0f64, 100.0f64, 0.05f64, 0.2f64, 1.0f64));
    let drift = (rate - 0.5 * volatility * volatility) * expiry;
    let deviation = volatility * expiry.sqrt();
    let discount = (-rate * expiry).exp();
    let mut sums = [0.0; 2];
    for _ in 0..paths / 2 {
        let (x, y, square) = loop {
            let (x, y) = (symmetric(), symmetric());
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                break (x, y, square);
            }
        };
        let radius = (-2.0 * square.ln() / square).sqrt();
        for normal in [x * radius, y * radius] {
            let payoff = discount * (spot * (drift + deviation * normal).exp() - strike).max(0.0);
            sums[0] += payoff;
            sums[1] += payoff * payoff;
        }
    }
    sums
}

fn paths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gbm european paths");
    group
        .sample_size(15)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    group.throughput(Throughput::Elements(PATHS));
    group.bench_function("naive scalar loop", |bencher| bencher.iter(|| naive(PATHS)));
    let task = one_call();
    for isa in Isa::available() {
        let paths = if isa == Isa::PLAIN { PATHS_PLAIN } else { PATHS };
        group.throughput(Throughput::Elements(paths));
        for (detail, name) in [(Detail::Prices, "exact price sums"), (Detail::Full, "full tally")] {
            group.bench_function(format!("{isa}, {name}"), |bencher| {
                bencher.iter(|| run_with(black_box(&task), isa, 0, paths, detail, &|| false));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
