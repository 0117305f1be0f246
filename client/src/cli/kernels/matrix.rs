//! `tessera kernels matrix`: every kernel by every way of this machine, cut and ordered in every way, and
//! one digest for each job.

use std::sync::atomic::AtomicBool;

use serde::Serialize;
use tessera_client::compute::{ComputeError, Order, Path, Setting, compute};
use tessera_client::render;
use tessera_kernels::isa::Isa;
use tessera_protocol::id::Digest;

use super::workloads::{self, Workload};
use crate::cli::{Failure, show};

/// Threads that share a job, as agents would.
const AGENTS: [usize; 3] = [1, 3, 8];

#[derive(Serialize)]
struct Matrix {
    workloads: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// Whether every cell has the same digest.
    agrees: bool,
    /// Paths that have no kernel for this job.
    without_kernel: Vec<&'static str>,
    cells: Vec<Computed>,
}

#[derive(Serialize)]
struct Computed {
    path: &'static str,
    agents: usize,
    shard_size: String,
    order: &'static str,
    digest: Digest,
}

/// Computes the matrix, prints it, and fails when two cells of a job differ.
pub(in crate::cli) fn matrix(json: bool) -> Result<(), Failure> {
    let rows = workloads::all().iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let matrix = Matrix { workloads: rows };
    show(json, &matrix, || table(&matrix))?;
    match matrix.workloads.iter().find(|row| !row.agrees) {
        Some(row) => Err(Failure::KernelsDisagree { workload: row.name }),
        None => Ok(()),
    }
}

fn row(workload: &Workload) -> Result<Row, Failure> {
    let mut row = Row { name: workload.name, agrees: true, without_kernel: Vec::new(), cells: Vec::new() };
    for path in Path::available() {
        // The interpreter is slow: it takes each number of agents, size and order once.
        let all = |place: usize| matches!(path, Path::Processor(_)) || place == 0;
        for (size, agents) in (0..3).flat_map(|size| AGENTS.map(|agents| (size, agents))) {
            for order in Order::ALL {
                // Another program encodes a video, by its own instruction set, a segment to a shard.
                let elsewhere = workload.is_video() && (size > 0 || path != Path::Processor(Isa::PLAIN));
                let place = (size + agents + order as usize) % 3 + usize::from(agents == 8 && size == 0);
                if row.without_kernel.contains(&path.name()) || !all(place) || elsewhere {
                    continue;
                }
                match cell(workload, path, agents, size, order) {
                    Ok(cell) => row.cells.push(cell),
                    Err(Failure::Compute(ComputeError::Unsupported { .. })) => {
                        row.without_kernel.push(path.name());
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
    row.agrees = row.cells.windows(2).all(|pair| pair[0].digest == pair[1].digest);
    Ok(row)
}

fn cell(
    workload: &Workload,
    path: Path,
    agents: usize,
    size: usize,
    order: Order,
) -> Result<Computed, Failure> {
    let (manifest, shard_size) = workload.sized(size).map_err(Failure::BuiltIn)?;
    let setting = Setting { path, agents, order };
    let document =
        compute(&manifest, &setting, &workload.files, &mut |_| {}, &|_, _| {}, &AtomicBool::new(false))?;
    let digest = Digest::of(&document);
    Ok(Computed { path: path.name(), agents, shard_size, order: order.name(), digest })
}

fn table(matrix: &Matrix) -> String {
    let rows = matrix.workloads.iter().map(|row| {
        let mut paths: Vec<&str> = row.cells.iter().map(|cell| cell.path).collect();
        paths.dedup();
        let without = match row.without_kernel.as_slice() {
            [] => String::new(),
            paths => format!(" (not {})", paths.join(", ")),
        };
        let digest = match (row.agrees, row.cells.first()) {
            (true, Some(cell)) => cell.digest.to_string()[..16].to_owned(),
            (true, None) => "nothing computed".to_owned(),
            (false, _) => "DIFFERENT".to_owned(),
        };
        vec![row.name.to_owned(), paths.join(" ") + &without, digest, row.cells.len().to_string()]
    });
    let cells: usize = matrix.workloads.iter().map(|row| row.cells.len()).sum();
    let table = render::columns(&["job", "computed by", "digest", "times"], 3, rows.collect());
    format!("{table}\n{cells} computations by 1, 3 and 8 threads, in three shard sizes and three orders\n")
}
