//! `tessera kernels bench`: how fast each kernel is on each path of this machine, on one thread.
//!
//! A kernel's share of the peak compares the fused multiply-adds that its formula needs with those that a loop of
//! nothing else does in the same run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;
use tessera_client::render;
use tessera_kernels::elementary::normals_from_uniforms;
use tessera_kernels::gemm::{Product, View, gemm};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{Detail, run_with};
use tessera_kernels::peak;
use tessera_planners::Plan;
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::spec::JobSpec;

use crate::cli::{Failure, show};

/// A measurement is repeated until it has taken this long and at least [`RUNS_MIN`] times.
const TIME_MIN: Duration = Duration::from_millis(400);
const RUNS_MIN: usize = 5;
/// Multiply-adds of the numerator and the denominator of the normal's rational core.
const NORMAL_MULTIPLY_ADDS: f64 = 20.0;

#[derive(Serialize)]
struct Bench {
    machine: Machine,
    kernels: Vec<Speed>,
}

#[derive(Serialize)]
struct Machine {
    arch: &'static str,
    paths: Vec<&'static str>,
}

#[derive(Serialize)]
struct Speed {
    kernel: &'static str,
    path: &'static str,
    /// Median.
    per_second: f64,
    unit: &'static str,
    /// Fused multiply-adds a second of the formula over those of the peak loop; where the formula's are counted.
    share_of_peak: Option<f64>,
    runs: usize,
}

/// Measures and prints.
pub(in crate::cli) fn bench(json: bool) -> Result<(), Failure> {
    let mut kernels = Vec::new();
    for isa in Isa::available() {
        if !json {
            eprintln!("measuring {isa}");
        }
        of_path(isa, &mut kernels)?;
    }
    let paths = Isa::available().into_iter().map(Isa::name).collect();
    let bench = Bench { machine: Machine { arch: std::env::consts::ARCH, paths }, kernels };
    show(json, &bench, || table(&bench))
}

fn of_path(isa: Isa, kernels: &mut Vec<Speed>) -> Result<(), Failure> {
    const ROUNDS: usize = 1 << 20;
    let mut add = |kernel, (per_second, runs), unit, share_of_peak| {
        kernels.push(Speed { kernel, path: isa.name(), per_second, unit, share_of_peak, runs });
    };
    let rounds = if isa == Isa::PLAIN { ROUNDS >> 6 } else { ROUNDS };
    let mut done = 0;
    let f64_peak = rate(|| {
        let (count, sum) = peak::fused_multiply_adds_f64(isa, rounds);
        done = count;
        black_box(sum);
    });
    let f64_peak = (f64_peak.0 * done as f64, f64_peak.1);
    add("fused multiply-adds, f64", f64_peak, "FMA/s", Some(1.0));
    let f32_peak = rate(|| {
        let (count, sum) = peak::fused_multiply_adds_f32(isa, rounds);
        done = count;
        black_box(sum);
    });
    let f32_peak = (f32_peak.0 * done as f64, f32_peak.1);
    add("fused multiply-adds, f32", f32_peak, "FMA/s", Some(1.0));

    let side = if isa == Isa::PLAIN { 128 } else { 1024 };
    let multiply_adds = (side * side * side) as f64;
    let double = product::<f64>(isa, side)?;
    add(
        "gemm f64",
        (double.0 * multiply_adds, double.1),
        "FMA/s",
        Some(double.0 * multiply_adds / f64_peak.0),
    );
    let single = product::<f32>(isa, side)?;
    add(
        "gemm f32",
        (single.0 * multiply_adds, single.1),
        "FMA/s",
        Some(single.0 * multiply_adds / f32_peak.0),
    );

    let count = if isa == Isa::PLAIN { 1 << 14 } else { 1 << 18 };
    let uniforms: Vec<f64> = (0..count).map(|at| (2 * at + 1) as f64 / count as f64 - 1.0).collect();
    let mut normals = vec![0.0; count];
    let (speed, runs) = rate(|| normals_from_uniforms(isa, black_box(&uniforms), &mut normals));
    let speed = speed * count as f64;
    add("normals", (speed, runs), "normals/s", Some(speed * NORMAL_MULTIPLY_ADDS / f64_peak.0));

    for (kernel, task, paths) in jobs()? {
        let paths = if isa == Isa::PLAIN { paths / 16 } else { paths };
        let run = || run_with(&task, isa, 0, paths, Detail::Full, &|| false);
        run().map_err(|error| Failure::Compute(tessera_client::compute::ComputeError::Paths(error)))?;
        let (speed, runs) = rate(|| drop(black_box(run())));
        add(kernel, (speed * paths as f64, runs), "paths/s", None);
    }
    Ok(())
}

/// Products of two square matrices a second.
fn product<T: tessera_kernels::gemm::Element + From<f32>>(
    isa: Isa,
    side: usize,
) -> Result<(f64, usize), Failure> {
    let entries: Vec<T> = (0..side * side).map(|at| T::from((at * 7919 % 1021) as f32 / 1021.0)).collect();
    let view = View::row_major(&entries, side, side).map_err(Failure::gemm)?;
    let product = Product::new(T::from(1.0), view, view).map_err(Failure::gemm)?;
    let mut out = vec![T::from(0.0); side * side];
    gemm(isa, &product, 0..side, &mut out, &|| false).map_err(Failure::gemm)?;
    Ok(rate(|| {
        // It succeeded above.
        let _ = gemm(isa, &product, 0..side, &mut out, &|| false);
        black_box(&out);
    }))
}

/// The Monte Carlo tasks that are timed, with how many paths make a run.
fn jobs() -> Result<Vec<(&'static str, Task, u64)>, Failure> {
    let text =
        |params: &str| format!(r#"{{"name":"bench","workload":"monte_carlo","seed":1,"params":{params}}}"#);
    let option = r#"{"id":"c","underlying":"A","kind":"european_call","spot":100,"strike":100,"rate":0.05,"volatility":0.2,"expiry":1}"#;
    let asian = r#"{"id":"a","underlying":"A","kind":"asian_call","fixings":[0.25,0.5,0.75,1],"spot":100,"strike":100,"rate":0.05,"volatility":0.2,"expiry":1}"#;
    let all = [
        ("pi", r#"{"model":"pi","paths":1000}"#.to_owned(), 1 << 22),
        ("gbm, one European", format!(r#"{{"model":"gbm","paths":1000,"book":[{option}]}}"#), 1 << 20),
        (
            "gbm, one Asian of four fixings",
            format!(r#"{{"model":"gbm","paths":1000,"book":[{asian}]}}"#),
            1 << 18,
        ),
    ];
    all.into_iter()
        .map(|(kernel, params, paths)| {
            let manifest = JobSpec::from_json(text(&params).as_bytes()).and_then(JobSpec::check);
            let plan = Plan::new(&manifest.map_err(Failure::BuiltIn)?, 0);
            let task = plan.ok().and_then(|plan| Task::decode(plan.task()).ok());
            let unusable = tessera_client::compute::ComputeError::Task;
            Ok((kernel, task.ok_or(Failure::Compute(unusable))?, paths))
        })
        .collect()
}

/// How often a second something happens: the median over the runs, and how many there were.
fn rate(mut run: impl FnMut()) -> (f64, usize) {
    let begun = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < RUNS_MIN || begun.elapsed() < TIME_MIN {
        let run_begun = Instant::now();
        run();
        seconds.push(run_begun.elapsed().as_secs_f64());
    }
    seconds.sort_unstable_by(f64::total_cmp);
    (1.0 / seconds[seconds.len() / 2].max(1e-9), seconds.len())
}

fn table(bench: &Bench) -> String {
    let rows = bench.kernels.iter().map(|speed| {
        let share =
            speed.share_of_peak.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
        vec![
            speed.kernel.to_owned(),
            speed.path.to_owned(),
            render::rate(speed.per_second, speed.unit),
            share,
        ]
    });
    let mut text = render::columns(&["kernel", "path", "one thread", "of peak"], 2, rows.collect());
    text += "\nMedians. The peak is what a loop of fused multiply-adds alone does in the same run; plain x86-64 has no such instruction.\n";
    text
}
