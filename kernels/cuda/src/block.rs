//! A block of a planned matrix product on a device: the bytes that the processor's kernel gives.

use tessera_kernels::gemm::Triangle;
use tessera_kernels::matrix::{BlockTerms, Prepared, Terms, to_bytes};

use crate::backend::Backend;
use crate::error::CudaError;
use crate::gemm::{DeviceElement, gemm};

/// Computes the block at a position of a prepared task.
///
/// *Errors*: those of [`gemm`], and what the processor's kernel says of a block that is not there.
pub fn block<B: Backend>(
    backend: &mut B,
    prepared: &Prepared,
    block: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, CudaError> {
    let loaded = prepared.load(block, cancelled)?;
    match loaded.terms()? {
        BlockTerms::F32(terms) => of_type(backend, &terms, cancelled),
        BlockTerms::F64(terms) => of_type(backend, &terms, cancelled),
    }
}

fn of_type<T: DeviceElement, B: Backend>(
    backend: &mut B,
    terms: &Terms<'_, T>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, CudaError> {
    let (rows, cols) = (terms.product.rows(), terms.product.cols());
    let mut out = vec![T::ZERO; rows * cols];
    gemm(backend, &terms.product, terms.k.clone(), &mut out, cancelled)?;
    for (row, line) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        let outside = match terms.half {
            None => 0..0,
            Some(Triangle::Lower) => (row + 1).min(cols)..cols,
            Some(Triangle::Upper) => 0..row.min(cols),
        };
        line[outside].fill(T::ZERO);
    }
    Ok(to_bytes(&out))
}
