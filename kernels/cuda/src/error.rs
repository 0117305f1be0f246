//! Why a device gave no result.
//!
//! Owns the one error of this crate's computations.

use std::fmt;

use tessera_kernels::catastrophe;
use tessera_kernels::gemm::GemmError;
use tessera_kernels::matrix;
use tessera_kernels::monte_carlo::KernelError;

use crate::interpreter::PtxError;

/// Why a computation on a device gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaError {
    /// There is no kernel for this on a device; the processor's gives the same bits.
    Unsupported {
        /// What there is no kernel for.
        what: &'static str,
    },
    /// The caller asked to stop.
    Cancelled,
    /// What the kernel on the processor says of the same range.
    Kernel(KernelError),
    /// What the kernel on the processor says of the same product.
    Matrix(matrix::KernelError),
    /// What the catastrophe kernel on the processor says of the same files.
    Catastrophe(catastrophe::KernelError),
    /// The device saw numbers that are not finite where the processor saw none: one of them computes wrongly.
    Disagreement,
    /// The device has too little memory.
    Memory {
        /// Needed at least.
        bytes: usize,
    },
    /// The driver refused a call.
    Driver {
        /// What was being done.
        doing: &'static str,
        /// What the driver calls it.
        name: String,
    },
    /// The interpreter refused.
    Ptx(PtxError),
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CudaError::Unsupported { what } => {
                write!(f, "there is no device kernel for {what}: the processor computes it, with the same bits")
            }
            CudaError::Cancelled => f.write_str("the computation was cancelled"),
            CudaError::Kernel(error) => error.fmt(f),
            CudaError::Matrix(error) => error.fmt(f),
            CudaError::Catastrophe(error) => error.fmt(f),
            CudaError::Disagreement => f.write_str(
                "the device met numbers that are not finite where the processor meets none: do not trust this device",
            ),
            CudaError::Memory { bytes } => {
                write!(f, "the device has too little memory: this needs {bytes} bytes; use CPU slots")
            }
            CudaError::Driver { doing, name } => write!(f, "the CUDA driver refused {doing}: {name}"),
            CudaError::Ptx(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CudaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CudaError::Kernel(error) => Some(error),
            CudaError::Matrix(error) => Some(error),
            CudaError::Catastrophe(error) => Some(error),
            CudaError::Ptx(error) => Some(error),
            _ => None,
        }
    }
}

impl From<KernelError> for CudaError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Cancelled => CudaError::Cancelled,
            error => CudaError::Kernel(error),
        }
    }
}

impl From<catastrophe::KernelError> for CudaError {
    fn from(error: catastrophe::KernelError) -> Self {
        match error {
            catastrophe::KernelError::Cancelled => CudaError::Cancelled,
            error => CudaError::Catastrophe(error),
        }
    }
}

impl From<matrix::KernelError> for CudaError {
    fn from(error: matrix::KernelError) -> Self {
        match error {
            matrix::KernelError::Cancelled => CudaError::Cancelled,
            error => CudaError::Matrix(error),
        }
    }
}

impl From<GemmError> for CudaError {
    fn from(error: GemmError) -> Self {
        matrix::KernelError::from(error).into()
    }
}

impl From<PtxError> for CudaError {
    fn from(error: PtxError) -> Self {
        CudaError::Ptx(error)
    }
}
