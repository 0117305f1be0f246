//! OpenBLAS, loaded at run time, once for each kind of core it is to believe in.
//!
//! Owns finding it, its symbols' names and its C interface. It is never linked, so a build needs none.

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

const ROW_MAJOR: i32 = 101;
const NO_TRANSPOSE: i32 = 111;

/// The arguments of `cblas_?gemm`; the integer type depends on how the library was built.
type Gemm<T, I> = unsafe extern "C" fn(i32, i32, i32, I, I, I, T, *const T, I, *const T, I, T, *mut T, I);

enum Function<T> {
    Wide(Gemm<T, i64>),
    Narrow(Gemm<T, i32>),
}

/// One loaded copy.
pub(crate) struct OpenBlas {
    dgemm: Function<f64>,
    sgemm: Function<f32>,
    /// The kind of core it chose.
    pub(crate) core: String,
    /// The functions above lie in it.
    _library: Library,
    _copy: tempfile::TempDir,
}

/// The one asked for, numpy's of the setup script, or the system's.
pub(crate) fn find(asked: Option<PathBuf>) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let lib = root.join("target/compare/venv/lib");
    let pythons = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let bundled = pythons.flat_map(|python| {
        let libs = python.path().join("site-packages/numpy.libs");
        std::fs::read_dir(libs).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    let openblas =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("openblas"));
    let system = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|triple| PathBuf::from(format!("/usr/lib/{triple}/libopenblas.so.0")));
    asked.into_iter().chain(bundled.filter(openblas)).chain(system).find(|path| path.exists())
}

impl OpenBlas {
    /// Loads a private copy, so that several can believe in different cores.
    ///
    /// # Safety
    /// No other thread runs: the environment is changed. The file is an OpenBLAS.
    pub(crate) unsafe fn load(path: &Path, core: Option<&str>) -> Result<OpenBlas, String> {
        let tell = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let copy = tempfile::tempdir().map_err(|error| tell(&error))?;
        let file = copy.path().join("libopenblas.so");
        std::fs::copy(path, &file).map_err(|error| tell(&error))?;
        // SAFETY: promised by the caller.
        unsafe {
            // Its Fortran runtime lies beside the original: loading that first makes it known.
            let original = Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map_err(|error| tell(&error))?;
            std::env::set_var("OPENBLAS_NUM_THREADS", "1");
            match core {
                Some(core) => std::env::set_var("OPENBLAS_CORETYPE", core),
                None => std::env::remove_var("OPENBLAS_CORETYPE"),
            }
            let library = Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL).map_err(|error| tell(&error))?;
            std::mem::forget(original);
            let missing = || tell(&"has no cblas_dgemm under a name we know");
            let core_name =
                library.get::<unsafe extern "C" fn() -> *const std::ffi::c_char>(b"gotoblas_corename");
            let core = match core_name {
                Ok(name) => std::ffi::CStr::from_ptr(name()).to_string_lossy().into_owned(),
                Err(_) => "unknown core".to_owned(),
            };
            Ok(OpenBlas {
                dgemm: function(&library, "dgemm").ok_or_else(missing)?,
                sgemm: function(&library, "sgemm").ok_or_else(missing)?,
                core,
                _library: library,
                _copy: copy,
            })
        }
    }

    /// `C = A * B`, all square and row-major.
    pub(crate) fn dgemm(&self, side: usize, a: &[f64], b: &[f64], c: &mut [f64]) {
        self.dgemm.call(1.0, 0.0, side, a, b, c);
    }

    /// `C = A * B`, all square and row-major.
    pub(crate) fn sgemm(&self, side: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
        self.sgemm.call(1.0, 0.0, side, a, b, c);
    }
}

/// # Safety
/// A symbol of such a name has the signature of the C interface.
unsafe fn function<T>(library: &Library, name: &str) -> Option<Function<T>> {
    // SAFETY: promised by the caller; names that end in 64_ take 64-bit integers.
    unsafe {
        for wide in [format!("scipy_cblas_{name}64_"), format!("cblas_{name}64_")] {
            if let Ok(symbol) = library.get::<Gemm<T, i64>>(wide.as_bytes()) {
                return Some(Function::Wide(*symbol));
            }
        }
        for narrow in [format!("scipy_cblas_{name}"), format!("cblas_{name}")] {
            if let Ok(symbol) = library.get::<Gemm<T, i32>>(narrow.as_bytes()) {
                return Some(Function::Narrow(*symbol));
            }
        }
    }
    None
}

impl<T: Copy> Function<T> {
    fn call(&self, one: T, zero: T, side: usize, a: &[T], b: &[T], c: &mut [T]) {
        assert!([a.len(), b.len(), c.len()] == [side * side; 3]);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        let no = NO_TRANSPOSE;
        // SAFETY: the lengths were checked.
        unsafe {
            match self {
                Function::Wide(gemm) => {
                    let n = side as i64;
                    gemm(ROW_MAJOR, no, no, n, n, n, one, a, n, b, n, zero, c, n);
                }
                Function::Narrow(gemm) => {
                    let n = i32::try_from(side).expect("a side that fits in an int");
                    gemm(ROW_MAJOR, no, no, n, n, n, one, a, n, b, n, zero, c, n);
                }
            }
        }
    }
}
