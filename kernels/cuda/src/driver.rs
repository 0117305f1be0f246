//! A real device, through NVIDIA's driver.
//!
//! Owns the one place that calls the driver: context, modules, streams, memory. Copies go through pinned memory of its
//! own, two halves for each stream, so that they run beside kernels and the caller's bytes are free at once. Memory that
//! a computation gave back is kept for the next.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::backend::{Backend, Launch, Program, Stream};
use crate::error::CudaError;

/// One half of a stream's pinned memory. *Units*: bytes.
const STAGED_BYTES: usize = 8 << 20;

/// A device's context and everything in it.
pub(crate) struct Driver {
    device: sys::CUdevice,
    context: sys::CUcontext,
    modules: Vec<sys::CUmodule>,
    functions: HashMap<String, sys::CUfunction>,
    lanes: [Lane; 2],
    /// Bytes of each address that is in use or kept.
    sizes: HashMap<u64, usize>,
    /// Addresses that were given back, by size.
    kept: HashMap<usize, Vec<u64>>,
    scratch_bytes: usize,
}

/// One stream and its pinned memory.
struct Lane {
    stream: sys::CUstream,
    /// Marks a place in this stream that the other waits for.
    mark: sys::CUevent,
    halves: [Half; 2],
    /// The half that is used next.
    next: usize,
}

struct Half {
    bytes: *mut u8,
    /// After the last copy from or to it.
    done: sys::CUevent,
}

// SAFETY: the driver's handles may be used by any thread to which the context is current; `enter` makes it so before a
// computation, and `&mut` keeps it to one thread at a time.
unsafe impl Send for Driver {}

fn doing<T>(doing: &'static str, result: Result<T, DriverError>) -> Result<T, CudaError> {
    result.map_err(|error| CudaError::Driver { doing, name: error_name(error) })
}

/// What the driver calls an error.
pub(crate) fn error_name(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{:?}", error.0), |name| name.to_string_lossy().into_owned())
}

impl Driver {
    /// Makes the context and loads the shipped PTX. The driver must be there.
    pub(crate) fn open(ordinal: u32, memory_bytes: u64) -> Result<Driver, CudaError> {
        doing("to start", result::init())?;
        let device = doing("the device", result::device::get(ordinal as i32))?;
        // SAFETY: the device is one that the driver named.
        let context = doing("a context", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the context was just retained.
        doing("a context", unsafe { result::ctx::set_current(context) })?;
        let lanes = [Lane::new()?, Lane::new()?];
        // A quarter leaves room for others on the device; no launch gets faster with more than 4 GiB.
        let quarter = (memory_bytes / 4) as usize;
        let scratch_bytes = if quarter < 4 << 30 { quarter } else { 4 << 30 };
        let mut driver = Driver {
            device,
            context,
            modules: Vec::new(),
            functions: HashMap::new(),
            lanes,
            sizes: HashMap::new(),
            kept: HashMap::new(),
            scratch_bytes,
        };
        for program in Program::ALL {
            driver.load(program)?;
        }
        Ok(driver)
    }

    /// Makes a program's kernels known.
    pub(crate) fn load(&mut self, program: Program) -> Result<(), CudaError> {
        let text = CString::new(program.ptx()).unwrap_or_default();
        // SAFETY: the image is PTX that ends in a zero.
        let module = doing("our PTX", unsafe { result::module::load_data(text.as_ptr().cast()) })?;
        self.modules.push(module);
        for name in program.kernels() {
            let symbol = CString::new(name).unwrap_or_default();
            // SAFETY: the module was just loaded, and stays so until the driver is dropped.
            let function = doing("a kernel", unsafe { result::module::get_function(module, symbol) })?;
            self.functions.insert(name.to_owned(), function);
        }
        Ok(())
    }

    /// Makes the context this thread's. Comes before everything else on a thread.
    pub(crate) fn enter(&mut self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as this value.
        doing("the context", unsafe { result::ctx::set_current(self.context) })
    }
}

impl Lane {
    fn new() -> Result<Lane, CudaError> {
        let event = || doing("an event", result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
        let half = || {
            // SAFETY: the context is current; the memory is freed with the driver.
            let bytes = doing("pinned memory", unsafe { result::malloc_host(STAGED_BYTES, 0) })?;
            Ok::<_, CudaError>(Half { bytes: bytes.cast(), done: event()? })
        };
        Ok(Lane {
            stream: doing("a stream", result::stream::create(result::stream::StreamKind::NonBlocking))?,
            mark: event()?,
            halves: [half()?, half()?],
            next: 0,
        })
    }

    /// The half whose turn it is, once nothing is copied from or to it.
    fn half(&mut self) -> Result<&Half, CudaError> {
        let half = &self.halves[self.next];
        self.next = 1 - self.next;
        // SAFETY: the event lives as long as the lane. One that was never recorded is done.
        doing("an event", unsafe { result::event::synchronize(half.done) })?;
        Ok(half)
    }
}

/// Copies what has arrived in a half.
fn take(half: (*const u8, sys::CUevent), bytes: &mut [u8]) -> Result<(), CudaError> {
    // SAFETY: the event lives; after it the half holds as many bytes as were asked for, which is at most all of it.
    unsafe {
        doing("a copy from the device", result::event::synchronize(half.1))?;
        std::ptr::copy_nonoverlapping(half.0, bytes.as_mut_ptr(), bytes.len());
    }
    Ok(())
}

impl Backend for Driver {
    fn allocate(&mut self, bytes: usize) -> Result<u64, CudaError> {
        let address = match self.kept.get_mut(&bytes).and_then(Vec::pop) {
            Some(address) => address,
            None => {
                // SAFETY: the context is current; the memory is freed with the driver.
                let address = unsafe { result::malloc_sync(bytes) }.or_else(|_| {
                    self.release_kept();
                    // SAFETY: as above.
                    unsafe { result::malloc_sync(bytes) }
                });
                let address = address.map_err(|error| match error.0 {
                    sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::Memory { bytes },
                    _ => CudaError::Driver { doing: "memory", name: error_name(error) },
                })?;
                self.sizes.insert(address, bytes);
                address
            }
        };
        self.clear(Stream::First, address, bytes)?;
        self.follow(Stream::Second, Stream::First)?;
        Ok(address)
    }

    fn free(&mut self, address: u64) {
        if let Some(bytes) = self.sizes.get(&address) {
            self.kept.entry(*bytes).or_default().push(address);
        }
    }

    fn upload(&mut self, stream: Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
        let lane = &mut self.lanes[stream as usize];
        let queue = lane.stream;
        let mut to = to;
        for chunk in bytes.chunks(STAGED_BYTES) {
            let half = lane.half()?;
            // SAFETY: nothing uses the half, which holds a chunk; it is left alone until its event. The address is
            // of our memory, of which the caller has asked for so many bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), half.bytes, chunk.len());
                let staged = std::slice::from_raw_parts(half.bytes, chunk.len());
                doing("a copy to the device", result::memcpy_htod_async(to, staged, queue))?;
                doing("an event", result::event::record(half.done, queue))?;
            }
            to += chunk.len() as u64;
        }
        Ok(())
    }

    fn download(&mut self, stream: Stream, from: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        let lane = &mut self.lanes[stream as usize];
        let queue = lane.stream;
        let mut from = from;
        let mut waiting: Option<((*const u8, sys::CUevent), &mut [u8])> = None;
        for chunk in bytes.chunks_mut(STAGED_BYTES) {
            let half = lane.half()?;
            // SAFETY: nothing uses the half, which holds a chunk; it is read after its event. The address as above.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(half.bytes, chunk.len());
                doing("a copy from the device", result::memcpy_dtoh_async(staged, from, queue))?;
                doing("an event", result::event::record(half.done, queue))?;
            }
            from += chunk.len() as u64;
            // This chunk is on its way while the one before is taken.
            if let Some((before, bytes)) = waiting.replace(((half.bytes, half.done), chunk)) {
                take(before, bytes)?;
            }
        }
        match waiting {
            Some((last, bytes)) => take(last, bytes),
            None => Ok(()),
        }
    }

    fn clear(&mut self, stream: Stream, at: u64, bytes: usize) -> Result<(), CudaError> {
        // SAFETY: the address is of our memory, of which the caller has asked for so many bytes.
        doing("to clear memory", unsafe {
            result::memset_d8_async(at, 0, bytes, self.lanes[stream as usize].stream)
        })
    }

    fn launch(&mut self, stream: Stream, launch: &Launch<'_>) -> Result<(), CudaError> {
        let function = self.functions.get(launch.kernel).ok_or_else(|| CudaError::Driver {
            doing: "a kernel",
            name: format!("{} is not in our PTX", launch.kernel),
        })?;
        let mut values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits().0).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let (blocks, threads) = ((launch.blocks[0], launch.blocks[1], 1), (launch.threads, 1, 1));
        let queue = self.lanes[stream as usize].stream;
        // SAFETY: the arguments are those of the kernel, which the interpreter's tests hold the callers to; their
        // lowest bytes come first, and the driver copies them before it returns.
        doing("a launch", unsafe {
            result::launch_kernel(*function, blocks, threads, 0, queue, &mut pointers)
        })
    }

    fn synchronize(&mut self, stream: Stream) -> Result<(), CudaError> {
        // SAFETY: the stream lives as long as this value.
        doing("to compute", unsafe { result::stream::synchronize(self.lanes[stream as usize].stream) })
    }

    fn follow(&mut self, stream: Stream, other: Stream) -> Result<(), CudaError> {
        let (mark, first) = (self.lanes[other as usize].mark, self.lanes[other as usize].stream);
        let queue = self.lanes[stream as usize].stream;
        // SAFETY: streams and event live as long as this value. A wait takes the event as it is when it is asked for,
        // so that recording it again later does not move it.
        unsafe {
            doing("an event", result::event::record(mark, first))?;
            doing(
                "to wait",
                result::stream::wait_event(queue, mark, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT),
            )
        }
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}

impl Driver {
    /// Gives memory that nobody uses back to the device.
    fn release_kept(&mut self) {
        for address in self.kept.drain().flat_map(|(_, addresses)| addresses) {
            self.sizes.remove(&address);
            // SAFETY: the address came from the driver and was given back by its user. What fails here is the
            // device's end, which the next call reports.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        self.release_kept();
        // SAFETY: everything here was made by this value and is used by nobody after it. What fails here is the
        // device's end.
        unsafe {
            for address in self.sizes.keys() {
                let _ = result::free_sync(*address);
            }
            for lane in &self.lanes {
                let _ = result::stream::synchronize(lane.stream);
                for half in &lane.halves {
                    let _ = result::free_host(half.bytes.cast());
                    let _ = result::event::destroy(half.done);
                }
                let _ = result::event::destroy(lane.mark);
                let _ = result::stream::destroy(lane.stream);
            }
            for module in &self.modules {
                let _ = result::module::unload(*module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
