//! The CUDA sources, compiled as C++ for this processor, give the bits of the Rust kernels.

mod support;

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use support::*;
use tessera_cuda::backend::{Backend, Launch, Stream};
use tessera_cuda::{CudaError, catastrophe, monte_carlo};
use tessera_kernels::isa::Isa;
use tessera_protocol::monte_carlo::{Monitoring, Payoff};
use tessera_protocol::product::Product;

type LaunchFunction = unsafe extern "C" fn(*const c_char, *const c_uint, c_uint, *mut *mut c_void) -> c_int;

/// The sources as a library, which runs one launch at a time: its shared memory is static.
struct Host {
    library: libloading::Library,
    buffers: Vec<Vec<u64>>,
}

static LAUNCHING: Mutex<()> = Mutex::new(());

impl Host {
    /// Compiles with one more flag or two. Each test has a library of its own.
    fn new(name: &str, flags: &[&str]) -> Host {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.so", std::process::id()));
        let status = Command::new("g++")
            .args(["-std=c++20", "-O2", "-Wno-unknown-pragmas", "-shared", "-fPIC"])
            .args(flags)
            .arg("-I")
            .arg(folder.join("src/cu"))
            .arg("-o")
            .args([library.as_path(), &folder.join("tests/host/kernels.cpp")])
            .status()
            .expect("g++ runs");
        assert!(status.success(), "g++ compiles the sources");
        // SAFETY: the library was just made of our sources and runs nothing when it is loaded.
        let loaded = unsafe { libloading::Library::new(&library) }.expect("the library loads");
        std::fs::remove_file(&library).expect("a loaded library needs no name");
        Host { library: loaded, buffers: Vec::new() }
    }
}

impl Backend for Host {
    fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError> {
        let buffer = vec![0u64; bytes.div_ceil(8)];
        let address = buffer.as_ptr() as u64;
        self.buffers.push(buffer);
        Ok(address)
    }

    fn free(&mut self, address: u64) {
        self.buffers.retain(|buffer| buffer.as_ptr() as u64 != address);
    }

    fn upload(&mut self, _: Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: the address came from `allocate`, and so many bytes were asked for.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&mut self, _: Stream, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn clear(&mut self, _: Stream, at: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    fn launch(&mut self, _: Stream, launch: &Launch<'_>) -> Result<(), CudaError> {
        let _alone = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
        let name = CString::new(launch.kernel).expect("a name");
        let mut values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits().0).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        // SAFETY: the library has this function; it reads what the pointers point to, lowest bytes first, as
        // many arguments as the kernel has, which the interpreter's tests count.
        let found = unsafe {
            let function: libloading::Symbol<'_, LaunchFunction> =
                self.library.get(b"launch").expect("launch");
            function(name.as_ptr(), launch.blocks.as_ptr(), launch.threads, pointers.as_mut_ptr())
        };
        assert_eq!(found, 1, "a kernel {}", launch.kernel);
        Ok(())
    }

    fn synchronize(&mut self, _: Stream) -> Result<(), CudaError> {
        Ok(())
    }

    fn follow(&mut self, _: Stream, _: Stream) -> Result<(), CudaError> {
        Ok(())
    }

    fn scratch_bytes(&self) -> usize {
        512 << 20
    }
}

const AS_WRITTEN: [&str; 1] = ["-ffp-contract=off"];

#[test]
fn every_workload_has_the_processors_bytes() {
    let mut host = Host::new("tallies", &AS_WRITTEN);
    assert_same_tallies(&mut host, 4_000);
    assert_same_tally(&mut host, "two batches of every payoff", &every_payoff(), 1, 300_000);
}

#[test]
fn products_have_the_bits_of_their_definition() {
    let mut host = Host::new("products", &AS_WRITTEN);
    assert_same_products::<f64, _>(&mut host);
    assert_same_products::<f32, _>(&mut host);
}

#[test]
fn every_storm_has_the_processors_losses() {
    let mut host = Host::new("losses", &AS_WRITTEN);
    // Two blocks and a part of a third.
    assert_same_seasons(&mut host, 600, 9);
}

#[test]
fn the_example_portfolio_has_the_processors_losses() {
    let mut host = Host::new("example", &AS_WRITTEN);
    assert_same_losses(&mut host, "the example", &example(), (0, 60));
}

/// That of `examples/catastrophe.toml`.
fn example() -> Season {
    let tracks = include_str!("../../../examples/catastrophe_tracks.txt");
    let exposure = include_str!("../../../examples/catastrophe_exposure.csv");
    let curves = include_str!("../../../examples/catastrophe_curves.csv");
    Season::new(tracks, 1, exposure).curves(curves).with(|model| {
        model.samples = 500;
        model.tracks.csv = false;
        model.tracks.annual_rate = Some(0.03);
    })
}

#[test]
fn a_compiler_that_contracts_would_be_noticed() {
    #[cfg(target_arch = "x86_64")]
    if !is_x86_feature_detected!("fma") {
        println!("this processor has no fused multiply-add to contract to");
        return;
    }
    let flags: &[&str] =
        if cfg!(target_arch = "x86_64") { &["-ffp-contract=fast", "-mfma"] } else { &["-ffp-contract=fast"] };
    let mut host = Host::new("contracted", flags);
    let barrier = Payoff::DownAndOutCall { barrier: 90.0, monitoring: Monitoring::Continuous };
    let task = book(&[&[1.0]], vec![contract(0, 0, barrier)]);
    let expected = tessera_kernels::monte_carlo::run(&task, Isa::detect(), 0, 2_000, &|| false).unwrap();
    let contracted = monte_carlo(&mut host, &task, 0, 2_000, &|| false).unwrap();
    assert_ne!(expected.encode(), contracted.encode());
}

#[test]
fn a_multiplication_that_is_not_fused_would_be_noticed_in_every_model() {
    // A compiler finds nothing to contract in the storms' kernel, so that the other way round is taken here.
    let mut host = Host::new("unfused", &["-ffp-contract=off", "-DUNFUSED"]);
    for (what, season) in &seasons(100, 1) {
        let losses = |bytes: &Product| bytes.files[0].bytes.clone();
        let find = |blake3: &[u8; 32]| season.find(blake3);
        let expected =
            tessera_kernels::catastrophe::run(&season.task, 0, 4, &find, Isa::detect(), &|| false).unwrap();
        let unfused = catastrophe(&mut host, &season.task, (0, 4), &find, &|| false).unwrap();
        assert_ne!(losses(&expected), losses(&unfused), "{what}");
    }
}
