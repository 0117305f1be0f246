//! How fast a device is, beside NVIDIA's libraries on the same device in the same run.
//!
//! Owns the timings: medians of several runs after one that is not counted.

use std::time::Instant;

use serde_json::json;
use tessera_cuda::backend::{Argument, Backend, Launch, Program, Stream};
use tessera_cuda::{CudaError, Device};
use tessera_kernels::gemm::{Product, View};
use tessera_kernels::isa::Isa;
use tessera_protocol::monte_carlo::{Payoff, Task};

use crate::libraries::{Cublas, Curand, wait};
use crate::storms::seasons;
use crate::workloads::{PI, book, contract, every_payoff};

/// One line of the table.
pub(crate) struct Speed {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Speed {
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({ "name": self.name, "value": self.value, "unit": self.unit })
    }
}

/// Median seconds of five runs.
fn seconds(mut run: impl FnMut() -> Result<(), CudaError>) -> Result<f64, CudaError> {
    run()?;
    let mut times = [0.0; 5];
    for time in &mut times {
        let start = Instant::now();
        run()?;
        *time = start.elapsed().as_secs_f64();
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[2])
}

pub(crate) fn all(device: &mut Device) -> Result<Vec<Speed>, CudaError> {
    let mut speeds = Vec::new();
    for n in [2048, 4096] {
        products(device, n, &mut speeds)?;
    }
    whole_products(device, 4096, &mut speeds)?;
    monte_carlo(device, &mut speeds)?;
    storms(device, &mut speeds)?;
    Ok(speeds)
}

/// Operands that are on the device already: kernel against kernel.
fn products(device: &mut Device, n: usize, speeds: &mut Vec<Speed>) -> Result<(), CudaError> {
    let cublas = Cublas::new();
    let mut backend = device.backend(None)?;
    let operations = 2.0 * (n * n * n) as f64 / 1e9;
    for (name, kernel, bytes, edge) in [("f64", "gemm_f64", 8, 64), ("f32", "gemm_f32", 4, 128)] {
        let addresses = [
            backend.allocate(n * n * bytes)?,
            backend.allocate(n * n * bytes)?,
            backend.allocate(n * n * bytes)?,
        ];
        // Ones: the clock of some devices falls with the number of bits that change, for both contestants alike.
        let ones: Vec<u8> =
            if bytes == 8 { 1.0f64.to_le_bytes().repeat(n * n) } else { 1.0f32.to_le_bytes().repeat(n * n) };
        for address in &addresses[..2] {
            backend.upload(Stream::First, *address, &ones)?;
        }
        let mut arguments = addresses.map(Argument::Address).to_vec();
        let n32 = n as u32;
        arguments.extend([n32, 1, n32, 1, n32, n32, n32, 0].map(Argument::U32));
        let blocks = [n32.div_ceil(edge); 2];
        let time = seconds(|| {
            let launch =
                Launch { program: Program::Gemm, kernel, blocks, threads: 256, arguments: &arguments };
            backend.launch(Stream::First, &launch)?;
            backend.synchronize(Stream::First)
        })?;
        speeds.push(Speed {
            name: format!("product {name} {n}, ours"),
            value: operations / time,
            unit: "GFLOP/s",
        });
        if let Some(cublas) = &cublas {
            let time = seconds(|| {
                let started = if bytes == 8 { cublas.f64(n, addresses) } else { cublas.f32(n, addresses) };
                finished("cuBLAS", started)
            })?;
            let name = format!("product {name} {n}, cuBLAS, pedantic math");
            speeds.push(Speed { name, value: operations / time, unit: "GFLOP/s" });
        }
        addresses.into_iter().for_each(|address| backend.free(address));
    }
    Ok(())
}

fn finished(doing: &'static str, started: bool) -> Result<(), CudaError> {
    if started && wait() { Ok(()) } else { Err(CudaError::Driver { doing, name: "it failed".to_owned() }) }
}

/// From the host's memory to the host's memory, as an agent computes.
fn whole_products(device: &mut Device, n: usize, speeds: &mut Vec<Speed>) -> Result<(), CudaError> {
    let ones = vec![1.0f64; n * n];
    let matrix = View::row_major(&ones, n, n)?;
    let product = Product::new(1.0, matrix, matrix)?;
    let mut out = vec![0.0; n * n];
    let time = seconds(|| device.gemm(&product, 0..n, &mut out, &|| false))?;
    let value = 2.0 * (n * n * n) as f64 / 1e9 / time;
    speeds.push(Speed { name: format!("product f64 {n}, ours, with copies"), value, unit: "GFLOP/s" });
    Ok(())
}

fn monte_carlo(device: &mut Device, speeds: &mut Vec<Speed>) -> Result<(), CudaError> {
    let call = book(&[&[1.0]], vec![contract(0, 0, Payoff::EuropeanCall)]);
    for (name, task, paths) in
        [("pi", &PI, 1u64 << 32), ("one call", &call, 1 << 28), ("every payoff", &every_payoff(), 1 << 24)]
    {
        let time = seconds(|| device.monte_carlo(task, 0, paths, &|| false).map(|_| ()))?;
        let value = paths as f64 / time / 1e6;
        speeds.push(Speed { name: format!("{name}, ours, exact sums and bins"), value, unit: "M paths/s" });
        speeds.push(on_processor(name, task, paths >> 8)?);
    }
    if let Some(curand) = Curand::new() {
        speeds.push(with_curand(device, &curand)?);
    }
    Ok(())
}

/// From files to losses, as an agent computes them: reading and making nodes are the processor's on both sides.
fn storms(device: &mut Device, speeds: &mut Vec<Speed>) -> Result<(), CudaError> {
    for (name, season) in seasons(100_000, 2048) {
        let find = |blake3: &[u8; 32]| season.find(blake3);
        let mut rate = |on: &str, events: u64, run: &mut dyn FnMut(u64) -> Result<(), CudaError>| {
            let value = events as f64 / seconds(|| run(events))?;
            let name = format!("{name}, 100000 rows, {on}");
            speeds.push(Speed { name, value, unit: "events/s" });
            Ok::<_, CudaError>(())
        };
        rate("ours", 2048, &mut |events| {
            device.catastrophe(&season.task, 0, events, &find, &|| false).map(|_| ())
        })?;
        rate("one processor core", 16, &mut |events| {
            let run = tessera_kernels::catastrophe::run;
            Ok(run(&season.task, 0, events, &find, Isa::detect(), &|| false).map(|_| ())?)
        })?;
    }
    Ok(())
}

fn on_processor(name: &str, task: &Task, paths: u64) -> Result<Speed, CudaError> {
    let isa = Isa::detect();
    let time =
        seconds(|| Ok(tessera_kernels::monte_carlo::run(task, isa, 0, paths, &|| false).map(|_| ())?))?;
    Ok(Speed {
        name: format!("{name}, one processor core"),
        value: paths as f64 / time / 1e6,
        unit: "M paths/s",
    })
}

/// The usual way: normals to memory, then CUDA's `exp` and floating-point atomics, for price and error only.
fn with_curand(device: &mut Device, curand: &Curand) -> Result<Speed, CudaError> {
    const PATHS: usize = 1 << 26;
    let mut backend = device.backend(Some(Program::Baseline))?;
    let (normals, sums) = (backend.allocate(8 * PATHS)?, backend.allocate(16)?);
    let mut arguments = [normals, sums].map(Argument::Address).to_vec();
    arguments.push(Argument::U64(PATHS as u64));
    arguments.extend([100.0, 103.0, 0.02, 0.2, 0.95].map(Argument::F64));
    let time = seconds(|| {
        finished("cuRAND", curand.normals(normals, PATHS))?;
        let launch = Launch {
            program: Program::Baseline,
            kernel: "price_call",
            blocks: [4096, 1],
            threads: 256,
            arguments: &arguments,
        };
        backend.launch(Stream::First, &launch)?;
        backend.synchronize(Stream::First)
    })?;
    backend.free(normals);
    backend.free(sums);
    let value = PATHS as f64 / time / 1e6;
    Ok(Speed { name: "one call, cuRAND, price and error only".to_owned(), value, unit: "M paths/s" })
}
