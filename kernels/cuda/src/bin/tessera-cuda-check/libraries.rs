//! cuBLAS and cuRAND, where they are found.
//!
//! Owns the few functions that are timed against, loaded at run time. They use the context that is current on this
//! thread, which is our device's.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use libloading::Library;

/// Column-major, no transposes.
const NO_TRANSPOSE: c_int = 0;
/// `CUBLAS_PEDANTIC_MATH`: the prescribed precision throughout, so no TF32.
const PEDANTIC_MATH: c_int = 2;
/// `CURAND_RNG_PSEUDO_PHILOX4_32_10`.
const PHILOX: c_int = 161;

/// Loads the first of the names that there is.
fn library(names: &[&str]) -> Option<Library> {
    // SAFETY: NVIDIA's libraries, whose initialisers only set up themselves.
    names.iter().find_map(|name| unsafe { Library::new(*name) }.ok())
}

/// A cuBLAS handle; leaked with its library, since the program ends soon.
pub(crate) struct Cublas {
    library: Library,
    handle: *mut c_void,
}

impl Cublas {
    /// None where it is not found or does not start.
    pub(crate) fn new() -> Option<Cublas> {
        let library = library(&["libcublas.so.13", "libcublas.so.12", "libcublas.so"])?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: signatures from cublas_api.h.
        let started = unsafe {
            let create: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut c_void) -> c_int> =
                library.get(b"cublasCreate_v2").ok()?;
            let mode: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_void, c_int) -> c_int> =
                library.get(b"cublasSetMathMode").ok()?;
            create(&raw mut handle) == 0 && mode(handle, PEDANTIC_MATH) == 0
        };
        started.then_some(Cublas { library, handle })
    }

    /// `C = A B` of `n × n` doubles at device addresses. Returns whether it was started.
    pub(crate) fn f64(&self, n: usize, [a, b, c]: [u64; 3]) -> bool {
        self.gemm::<f64>(b"cublasDgemm_v2", n, [a, b, c], [1.0, 0.0])
    }

    /// The same of floats.
    pub(crate) fn f32(&self, n: usize, [a, b, c]: [u64; 3]) -> bool {
        self.gemm::<f32>(b"cublasSgemm_v2", n, [a, b, c], [1.0, 0.0])
    }

    fn gemm<T>(&self, name: &[u8], n: usize, [a, b, c]: [u64; 3], [alpha, beta]: [T; 2]) -> bool {
        type Gemm<T> = unsafe extern "C" fn(
            *mut c_void,
            c_int,
            c_int,
            c_int,
            c_int,
            c_int,
            *const T,
            u64,
            c_int,
            u64,
            c_int,
            *const T,
            u64,
            c_int,
        ) -> c_int;
        let n = n as c_int;
        // SAFETY: signature from cublas_api.h, device pointers being addresses; the factors are read before it returns.
        unsafe {
            let Ok(gemm) = self.library.get::<Gemm<T>>(name) else { return false };
            let (none, factors) = (NO_TRANSPOSE, [&raw const alpha, &raw const beta]);
            gemm(self.handle, none, none, n, n, n, factors[0], a, n, b, n, factors[1], c, n) == 0
        }
    }
}

/// A cuRAND generator of Philox numbers.
pub(crate) struct Curand {
    library: Library,
    generator: *mut c_void,
}

impl Curand {
    /// None where it is not found or does not start.
    pub(crate) fn new() -> Option<Curand> {
        let library = library(&["libcurand.so.10", "libcurand.so"])?;
        let mut generator = std::ptr::null_mut();
        // SAFETY: signatures from curand.h.
        let started = unsafe {
            let create: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int> =
                library.get(b"curandCreateGenerator").ok()?;
            let seed: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_void, c_ulonglong) -> c_int> =
                library.get(b"curandSetPseudoRandomGeneratorSeed").ok()?;
            create(&raw mut generator, PHILOX) == 0 && seed(generator, 7) == 0
        };
        started.then_some(Curand { library, generator })
    }

    /// Fills memory with normal doubles. Returns whether it was started.
    pub(crate) fn normals(&self, address: u64, count: usize) -> bool {
        type Normals = unsafe extern "C" fn(*mut c_void, u64, usize, f64, f64) -> c_int;
        // SAFETY: signature from curand.h, the device pointer being an address of so many doubles.
        unsafe {
            let Ok(normals) = self.library.get::<Normals>(b"curandGenerateNormalDouble") else {
                return false;
            };
            normals(self.generator, address, count, 0.0, 1.0) == 0
        }
    }
}

/// Waits for all work of the context, whoever asked for it. Returns whether it went well.
pub(crate) fn wait() -> bool {
    let Some(driver) = library(&["libcuda.so.1", "libcuda.so"]) else { return false };
    // SAFETY: signature from cuda.h.
    unsafe {
        driver
            .get::<unsafe extern "C" fn() -> c_uint>(b"cuCtxSynchronize")
            .is_ok_and(|synchronize| synchronize() == 0)
    }
}
