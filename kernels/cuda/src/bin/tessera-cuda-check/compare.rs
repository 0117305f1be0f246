//! The same work on device and processor.
//!
//! Owns the digests and what they are of: a tally's canonical bytes or the error's words, a product's elements, the
//! losses of events.

use serde_json::json;
use tessera_cuda::{CudaError, Device};
use tessera_kernels::gemm::{Product, View, gemm};
use tessera_kernels::isa::Isa;
use tessera_protocol::monte_carlo::{Payoff, Task};

use crate::storms::{self, seasons};
use crate::workloads::{
    PI, book, contract, every_payoff, noise, overflowing, overflowing_book, spread, wild,
};

/// One workload's two digests.
pub(crate) struct Digests {
    pub(crate) name: String,
    pub(crate) processor: String,
    pub(crate) device: String,
}

impl Digests {
    /// Whether both are the same.
    pub(crate) fn agree(&self) -> bool {
        self.processor == self.device
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({ "name": self.name, "processor": self.processor, "device": self.device })
    }
}

/// Every workload, with enough paths and elements to fill a large device, or with a thousandth of the paths.
pub(crate) fn all(device: &mut Device, quick: bool) -> Result<Vec<Digests>, CudaError> {
    let call = book(&[&[1.0]], vec![contract(0, 0, Payoff::EuropeanCall)]);
    let mut digests = Vec::new();
    for (name, task, first, paths) in [
        ("pi", &PI, (1 << 32) - 12_345, 67_000_001),
        ("one call", &call, 3, 20_000_001),
        ("every payoff", &every_payoff(), 4_711, 2_000_000),
        ("wild", &wild(), 5, 1_000_000),
        ("spread", &spread(), 1, 1_000_000),
        ("overflowing", &overflowing(), 0, 1_000_000),
        ("overflowing book", &overflowing_book(), 0, 1_000_000),
    ] {
        digests.push(tally(device, name, task, first, if quick { paths / 1000 } else { paths })?);
    }
    // The first two are cut along k and into tiles.
    let shapes = [[40, 9001, 50], [4200, 5, 70], [129, 333, 65], [1100, 1001, 900]];
    for shape in shapes.into_iter().take(if quick { 3 } else { 4 }) {
        digests.push(product_f64(device, shape)?);
        digests.push(product_f32(device, shape)?);
    }
    // Several blocks of points; then one block, and so many events that both streams take several batches.
    let ([rows, samples], [few, many]) =
        if quick { ([600, 5], [40, 300]) } else { ([50_000, 100], [40, 20_000]) };
    for (name, season) in seasons(rows, samples).into_iter().chain(seasons(few, many).into_iter().take(1)) {
        digests.push(losses(device, name, &season)?);
    }
    Ok(digests)
}

fn tally(device: &mut Device, name: &str, task: &Task, first: u64, paths: u64) -> Result<Digests, CudaError> {
    let expected = tessera_kernels::monte_carlo::run(task, Isa::detect(), first, paths, &|| false);
    let found = device.monte_carlo(task, first, paths, &|| false);
    let processor = expected.map_or_else(|error| error.to_string().into_bytes(), |tally| tally.encode());
    let device = match found {
        Ok(tally) => tally.encode(),
        Err(CudaError::Kernel(error)) => error.to_string().into_bytes(),
        Err(error) => return Err(error),
    };
    Ok(Digests {
        name: format!("{name}, {paths} paths"),
        processor: digest(&processor),
        device: digest(&device),
    })
}

fn losses(device: &mut Device, name: &str, season: &storms::Season) -> Result<Digests, CudaError> {
    let (task, find) = (&season.task, |blake3: &[u8; 32]| season.find(blake3));
    let events = task.units();
    let expected = tessera_kernels::catastrophe::run(task, 0, events, &find, Isa::detect(), &|| false)?;
    let found = device.catastrophe(task, 0, events, &find, &|| false)?;
    let bytes = |product: &tessera_protocol::product::Product| digest(&product.files[0].bytes);
    Ok(Digests {
        name: format!("{name}, {events} events"),
        processor: bytes(&expected),
        device: bytes(&found),
    })
}

/// Short enough for a table, long enough to tell.
fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

macro_rules! product {
    ($name:ident, $type:ident) => {
        /// A product with addend on both.
        fn $name(device: &mut Device, [rows, depth, cols]: [usize; 3]) -> Result<Digests, CudaError> {
            let numbers = |seed: usize, count: usize| -> Vec<$type> {
                (0..count).map(|i| noise(seed + i) as $type).collect()
            };
            let (a, b, c) =
                (numbers(0, rows * depth), numbers(1 << 20, depth * cols), numbers(1 << 21, rows * cols));
            let (alpha, beta): ($type, $type) = (-0.3, 1.7);
            let (a, b) = (View::row_major(&a, rows, depth)?, View::column_major(&b, depth, cols)?);
            let product = Product::new(alpha, a, b)?.adding(beta, View::row_major(&c, rows, cols)?)?;
            let mut found = vec![0.0; rows * cols];
            device.gemm(&product, 0..depth, &mut found, &|| false)?;
            let mut expected = vec![0.0; rows * cols];
            gemm(Isa::detect(), &product, 0..depth, &mut expected, &|| false)?;
            let bytes = |values: &[$type]| -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            };
            let name = format!("product {}, {rows}x{depth}x{cols}", stringify!($type));
            Ok(Digests { name, processor: digest(&bytes(&expected)), device: digest(&bytes(&found)) })
        }
    };
}
product!(product_f64, f64);
product!(product_f32, f32);
