//! Numbers in the products of earlier stages: little-endian doubles.

use tessera_protocol::climate::Source;
use tessera_protocol::product::ProductView;

use super::KernelError;
use super::values::{Find, fetch};

/// A file of a product.
pub(super) fn file(product: &Source, name: &str, find: &Find<'_>) -> Result<bytes::Bytes, KernelError> {
    let bytes = bytes::Bytes::from(fetch(find, product)?);
    let view = ProductView::decode(&bytes).map_err(|_| KernelError::Product)?;
    let file = view.file(name).ok_or(KernelError::Product)?;
    Ok(bytes.slice_ref(file))
}

/// The numbers of the files of that name, one product after the other.
pub(super) fn numbers(products: &[Source], name: &str, find: &Find<'_>) -> Result<Vec<f64>, KernelError> {
    let mut all = Vec::new();
    for product in products {
        all.extend(from_bytes(&file(product, name, find)?)?);
    }
    Ok(all)
}

/// As [`numbers`], of one product.
pub(super) fn numbers_of(product: &Source, name: &str, find: &Find<'_>) -> Result<Vec<f64>, KernelError> {
    numbers(std::slice::from_ref(product), name, find)
}

fn from_bytes(bytes: &[u8]) -> Result<impl Iterator<Item = f64> + '_, KernelError> {
    let (numbers, []) = bytes.as_chunks() else { return Err(KernelError::Product) };
    Ok(numbers.iter().map(|number| f64::from_le_bytes(*number)))
}

/// A file's bytes from its numbers.
pub(super) fn to_bytes(numbers: impl IntoIterator<Item = f64>) -> Vec<u8> {
    numbers.into_iter().flat_map(f64::to_le_bytes).collect()
}
