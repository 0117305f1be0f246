//! A block of a planned matrix product on a device: the bytes that the processor's kernel gives.

use tessera_kernels::gemm::{Triangle, View};
use tessera_kernels::matrix::{BlockTerms, Prepared, Terms, to_bytes};

use crate::backend::Backend;
use crate::error::CudaError;
use crate::gemm::{Element, Matrix, Product, gemm};

/// Computes the block at a position of a prepared task.
///
/// *Errors*: those of [`gemm`], and [`CudaError::Shape`] past the last block.
pub fn block<B: Backend>(
    backend: &mut B,
    prepared: &Prepared,
    block: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, CudaError> {
    let none = |_| CudaError::Shape { operand: "the block" };
    match prepared.block(block).map_err(none)? {
        BlockTerms::F32(terms) => of_type(backend, &terms, cancelled),
        BlockTerms::F64(terms) => of_type(backend, &terms, cancelled),
    }
}

fn of_type<T: Element + tessera_kernels::gemm::Element, B: Backend>(
    backend: &mut B,
    terms: &Terms<'_, T>,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, CudaError> {
    let (rows, cols) = (terms.product.rows(), terms.product.cols());
    let (alpha, a, b) = terms.product.factors();
    let addend = match terms.product.addend() {
        Some((beta, c)) => Some((beta, matrix(c)?)),
        None => None,
    };
    let product = Product { alpha, a: matrix(a)?, b: matrix(b)?, addend };
    let mut out = vec![T::default(); rows * cols];
    gemm(backend, &product, terms.k.clone(), &mut out, cancelled)?;
    for (row, line) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        let outside = match terms.half {
            None => 0..0,
            Some(Triangle::Lower) => (row + 1).min(cols)..cols,
            Some(Triangle::Upper) => 0..row.min(cols),
        };
        line[outside].fill(T::default());
    }
    Ok(to_bytes(&out))
}

fn matrix<'a, T: Element + tessera_kernels::gemm::Element>(
    view: View<'a, T>,
) -> Result<Matrix<'a, T>, CudaError> {
    Matrix::new(view.data(), [view.rows(), view.cols()], view.strides())
}
