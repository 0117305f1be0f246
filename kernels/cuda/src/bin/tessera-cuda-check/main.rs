//! Whether this machine's GPU gives the processor's bits, and how fast it is.
//!
//! Compares every workload's digest with the processor's, then times products against cuBLAS and Monte Carlo against
//! cuRAND where those libraries are found, and storms against one core. `--quick` compares a thousandth of the paths and
//! small portfolios. Ends with 0 if all digests agree, 1 if one differs or something failed, 3 with one line if there is
//! no GPU to use.

mod compare;
mod libraries;
mod measure;
mod storms;
mod workloads;

use std::process::ExitCode;

use serde_json::json;
use tessera_cuda::{CudaError, Device, DeviceInfo, discover};

const USAGE: &str = "usage: tessera-cuda-check [--json] [--no-timing] [--quick]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) =
        arguments.iter().find(|argument| !["--json", "--no-timing", "--quick"].contains(&argument.as_str()))
    {
        eprintln!("unknown argument {unknown}\n{USAGE}");
        return ExitCode::from(2);
    }
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let devices = match discover() {
        Ok(devices) => devices,
        Err(none) => {
            eprintln!("{none}");
            return ExitCode::from(3);
        }
    };
    let mut good = true;
    for info in &devices {
        match check(info, asked("--quick"), asked("--json"), !asked("--no-timing")) {
            Ok(all_agree) => good &= all_agree,
            Err(error) => {
                eprintln!("{}: {error}", info.name);
                good = false;
            }
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reports on one device; returns whether all digests agree.
fn check(info: &DeviceInfo, quick: bool, as_json: bool, timing: bool) -> Result<bool, CudaError> {
    let mut device = Device::open(info)?;
    let digests = compare::all(&mut device, quick)?;
    let speeds = if timing { measure::all(&mut device)? } else { Vec::new() };
    let agree = digests.iter().all(compare::Digests::agree);
    if as_json {
        let report = json!({
            "device": {
                "name": info.name,
                "memory_bytes": info.memory_bytes,
                "compute_capability": format!("{}.{}", info.compute_capability.0, info.compute_capability.1),
                "driver": format!("{}.{}", info.driver.0, info.driver.1),
            },
            "agree": agree,
            "digests": digests.iter().map(compare::Digests::json).collect::<Vec<_>>(),
            "speeds": speeds.iter().map(measure::Speed::json).collect::<Vec<_>>(),
        });
        println!("{report}");
        return Ok(agree);
    }
    println!(
        "{}: {} MiB, compute capability {}.{}, driver for CUDA {}.{}",
        info.name,
        info.memory_bytes >> 20,
        info.compute_capability.0,
        info.compute_capability.1,
        info.driver.0,
        info.driver.1
    );
    for digests in &digests {
        let verdict = if digests.agree() { "same" } else { "DIFFERENT" };
        println!("  {verdict:<9} {:<34} {}", digests.name, digests.processor);
    }
    for speed in &speeds {
        println!("  {:<46} {:>12.1} {}", speed.name, speed.value, speed.unit);
    }
    println!("{}", if agree { "all digests agree" } else { "DIGESTS DIFFER: do not use this device" });
    Ok(agree)
}
