//! The devices of this machine, and one of them opened.
//!
//! Owns the search, what makes a device fit, and the clear line where there is none. It may not compute.

use std::fmt;
use std::ops::Range;

use cudarc::driver::{result, sys};
use tessera_kernels::catastrophe::Find;
use tessera_kernels::gemm::Product;
use tessera_kernels::matrix::Prepared;
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::tally::Tally;

use crate::backend::{Backend, Launch, Program, Stream};
use crate::block::block;
use crate::catastrophe::catastrophe;
use crate::driver::{Driver, error_name};
use crate::error::CudaError;
use crate::gemm::{DeviceElement, gemm};
use crate::monte_carlo::monte_carlo;

/// The oldest driver that knows our PTX's version, 8.2. *Units*: as the driver counts, 1000 · major + 10 · minor.
const DRIVER_MIN: i32 = 12_020;
/// The oldest architecture that our PTX is for.
const COMPUTE_CAPABILITY_MIN: (u32, u32) = (8, 0);
/// A quarter must hold a book's bins and batches.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// A device that can run our kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The driver's number for it.
    pub ordinal: u32,
    /// As the driver names it.
    pub name: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// Major and minor.
    pub compute_capability: (u32, u32),
    /// The CUDA version that the driver supports, major and minor.
    pub driver: (u32, u32),
}

/// Why there is no device to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoGpu {
    /// There is no `libcuda`.
    NoDriver,
    /// The driver does not start.
    Broken {
        /// What it calls the reason.
        name: String,
    },
    /// The driver is older than our PTX.
    OldDriver {
        /// Its CUDA version.
        found: (u32, u32),
    },
    /// The driver has no device.
    NoDevice,
    /// The device is older than our PTX.
    OldDevice {
        /// Its name.
        name: String,
        /// Its compute capability.
        found: (u32, u32),
    },
    /// The device has too little memory.
    LittleMemory {
        /// Its name.
        name: String,
        /// All of its memory.
        memory_bytes: u64,
    },
}

impl fmt::Display for NoGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoGpu::NoDriver => {
                f.write_str("no GPU: libcuda was not found; install NVIDIA's driver to use one")?
            }
            NoGpu::Broken { name } => write!(f, "no GPU: NVIDIA's driver does not start ({name})")?,
            NoGpu::OldDriver { found: (major, minor) } => write!(
                f,
                "no GPU: the driver supports CUDA {major}.{minor} and our kernels need {}.{}; update it (R535 or later)",
                DRIVER_MIN / 1000,
                DRIVER_MIN % 1000 / 10
            )?,
            NoGpu::NoDevice => f.write_str("no GPU: NVIDIA's driver finds no device")?,
            NoGpu::OldDevice { name, found: (major, minor) } => write!(
                f,
                "no GPU: {name} has compute capability {major}.{minor} and our kernels need {}.{}",
                COMPUTE_CAPABILITY_MIN.0, COMPUTE_CAPABILITY_MIN.1
            )?,
            NoGpu::LittleMemory { name, memory_bytes } => write!(
                f,
                "no GPU: {name} has {} MiB of memory and our kernels need {}",
                memory_bytes >> 20,
                MEMORY_BYTES_MIN >> 20
            )?,
        }
        f.write_str("; the processor computes everything, with the same bits")
    }
}

impl std::error::Error for NoGpu {}

/// The devices of this machine that can run our kernels, at least one.
///
/// *Errors*: where there is none, the reason, of the first device if there are any.
pub fn discover() -> Result<Vec<DeviceInfo>, NoGpu> {
    // SAFETY: loads NVIDIA's library, whose initialisers are as safe as the driver. Asked first, since everything else
    // panics without it.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoGpu::NoDriver);
    }
    let broken = |error| NoGpu::Broken { name: error_name(error) };
    let mut version = 0;
    // SAFETY: writes one integer; works before the driver is started.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(broken)?;
    let driver = ((version / 1000) as u32, (version % 1000 / 10) as u32);
    if version < DRIVER_MIN {
        return Err(NoGpu::OldDriver { found: driver });
    }
    result::init().map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => NoGpu::NoDevice,
        _ => broken(error),
    })?;
    let count = result::device::get_count().map_err(broken)?;
    let (mut fit, mut unfit) = (Vec::new(), None);
    for ordinal in 0..count {
        match describe(ordinal, driver).map_err(broken)?.fit() {
            Ok(info) => fit.push(info),
            Err(reason) => unfit = unfit.or(Some(reason)),
        }
    }
    if fit.is_empty() { Err(unfit.unwrap_or(NoGpu::NoDevice)) } else { Ok(fit) }
}

fn describe(ordinal: i32, driver: (u32, u32)) -> Result<DeviceInfo, result::DriverError> {
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: the device is one that the driver named.
    let (major, minor, memory) = unsafe {
        let attribute = |which| result::device::get_attribute(device, which);
        (attribute(MAJOR)?, attribute(MINOR)?, result::device::total_mem(device)?)
    };
    Ok(DeviceInfo {
        ordinal: ordinal as u32,
        name: result::device::get_name(device)?,
        memory_bytes: memory as u64,
        compute_capability: (major as u32, minor as u32),
        driver,
    })
}

impl DeviceInfo {
    fn fit(self) -> Result<DeviceInfo, NoGpu> {
        if self.compute_capability < COMPUTE_CAPABILITY_MIN {
            return Err(NoGpu::OldDevice { name: self.name, found: self.compute_capability });
        }
        if self.memory_bytes < MEMORY_BYTES_MIN {
            return Err(NoGpu::LittleMemory { name: self.name, memory_bytes: self.memory_bytes });
        }
        Ok(self)
    }
}

/// A device, opened. One computation at a time; any thread.
pub struct Device {
    info: DeviceInfo,
    driver: Driver,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens a device that [`discover`] found and loads the kernels.
    pub fn open(info: &DeviceInfo) -> Result<Device, CudaError> {
        Ok(Device { info: info.clone(), driver: Driver::open(info.ordinal, info.memory_bytes)? })
    }

    /// What was found.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// As [`crate::monte_carlo`].
    pub fn monte_carlo(
        &mut self,
        task: &Task,
        first_path: u64,
        paths: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Tally, CudaError> {
        self.driver.enter()?;
        monte_carlo(&mut self.driver, task, first_path, paths, cancelled)
    }

    /// As [`crate::gemm::gemm`].
    pub fn gemm<T: DeviceElement>(
        &mut self,
        product: &Product<'_, T>,
        k: Range<usize>,
        out: &mut [T],
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), CudaError> {
        self.driver.enter()?;
        gemm(&mut self.driver, product, k, out, cancelled)
    }

    /// As [`crate::block`].
    pub fn block(
        &mut self,
        prepared: &Prepared,
        index: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, CudaError> {
        self.driver.enter()?;
        block(&mut self.driver, prepared, index, cancelled)
    }

    /// As [`crate::catastrophe`].
    pub fn catastrophe(
        &mut self,
        task: &tessera_protocol::catastrophe::Task,
        first: u64,
        count: u64,
        inputs: &Find<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<tessera_protocol::product::Product, CudaError> {
        self.driver.enter()?;
        catastrophe(&mut self.driver, task, (first, count), inputs, cancelled)
    }

    /// The device as executor of single launches on this thread, for measurements; with kernels besides ours.
    pub fn backend(&mut self, besides: Option<Program>) -> Result<impl Backend, CudaError> {
        self.driver.enter()?;
        if let Some(program) = besides {
            self.driver.load(program)?;
        }
        Ok(Borrowed(&mut self.driver))
    }
}

/// A backend that somebody else owns.
struct Borrowed<'a>(&'a mut Driver);

impl Backend for Borrowed<'_> {
    fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError> {
        self.0.allocate(bytes)
    }

    fn free(&mut self, address: u64) {
        self.0.free(address);
    }

    fn upload(&mut self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.0.upload(stream, to, bytes)
    }

    fn download(&mut self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.0.download(stream, from, bytes)
    }

    fn clear(&mut self, stream: Stream, at: u64, bytes: usize) -> Result<(), CudaError> {
        self.0.clear(stream, at, bytes)
    }

    fn launch(&mut self, stream: Stream, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.0.launch(stream, launch)
    }

    fn synchronize(&mut self, stream: Stream) -> Result<(), CudaError> {
        self.0.synchronize(stream)
    }

    fn follow(&mut self, stream: Stream, other: Stream) -> Result<(), CudaError> {
        self.0.follow(stream, other)
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> DeviceInfo {
        DeviceInfo {
            ordinal: 0,
            name: "a card".to_owned(),
            memory_bytes: 80 << 30,
            compute_capability: (9, 0),
            driver: (12, 4),
        }
    }

    #[test]
    fn old_and_small_devices_are_told_apart_from_fit_ones() {
        assert_eq!(card().fit(), Ok(card()));
        let old = DeviceInfo { compute_capability: (7, 5), ..card() }.fit().unwrap_err().to_string();
        assert!(old.contains("a card") && old.contains("7.5") && old.contains("8.0"), "{old}");
        let small = DeviceInfo { memory_bytes: 512 << 20, ..card() }.fit().unwrap_err().to_string();
        assert!(small.contains("512 MiB") && small.contains("1024"), "{small}");
        assert!(DeviceInfo { compute_capability: (12, 0), ..card() }.fit().is_ok());
    }

    #[test]
    fn looking_for_devices_gives_some_or_one_clear_line_and_never_panics() {
        match discover() {
            Ok(found) => assert!(!found.is_empty()),
            Err(none) => {
                let line = none.to_string();
                assert!(line.starts_with("no GPU: ") && !line.contains('\n'), "{line}");
            }
        }
    }
}
