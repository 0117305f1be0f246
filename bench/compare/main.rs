//! Our kernels and other people's libraries on the same core, in the same run, in turns.
//!
//! Owns what is measured and how it is told. `bench/compare/setup` fetches the libraries that are not
//! Rust's; what is missing is left out of the table and named.

mod contest;
mod gemm;
mod machine;
mod openblas;
mod paths;
mod reference;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures Tessera's kernels beside other libraries.
#[derive(Parser)]
#[command(name = "compare")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    /// How often each contestant runs; the median counts.
    #[arg(long, global = true, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(Subcommand)]
enum Part {
    /// Products of square matrices, one thread.
    Gemm {
        /// Rows and columns.
        #[arg(long, value_delimiter = ',', default_values_t = [1024, 2048])]
        sizes: Vec<usize>,
        /// The OpenBLAS to compare with; else numpy's of `bench/compare/setup`, else the system's.
        #[arg(long)]
        openblas: Option<PathBuf>,
    },
    /// Normal numbers and the paths of a European call, one thread, beside numpy and QuantLib.
    Paths,
}

fn main() {
    let arguments = Arguments::parse();
    let before = machine::load();
    let mut report = match arguments.part {
        // SAFETY: no thread was started yet.
        Part::Gemm { sizes, openblas } => unsafe { gemm::run(&sizes, openblas, arguments.rounds) },
        Part::Paths => paths::run(arguments.rounds),
    };
    if let (Some(processor), Some(before), Some(after)) = (machine::processor(), before, machine::load()) {
        report.notes.push(format!("{processor}; load {before} before, {after} after"));
    }
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        println!("{}", report.to_table());
    }
}
