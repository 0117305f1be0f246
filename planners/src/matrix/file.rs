//! The file that a matrix job's result is: a `.npy` header, then the elements by rows.
//!
//! Owns the file's bytes, which are a function of the elements alone: another cut into tiles gives the
//! same. Whoever holds the tiles brings them; nothing here knows where they lie.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use tessera_protocol::matrix::Task;
use tessera_protocol::spec::Dtype;

/// Bytes of the format's magic, version and header length.
const PREAMBLE_BYTES: usize = 10;
/// The header is padded so that elements start at a multiple of this. *Source*: NumPy enhancement
/// proposal 1, and what `numpy.save` writes.
const ALIGNMENT: usize = 64;

/// The header of a C-ordered little-endian matrix, byte for byte as `numpy.save` writes it.
pub fn npy_header(rows: u64, cols: u64, dtype: Dtype) -> Vec<u8> {
    let descr = match dtype {
        Dtype::F32 => "<f4",
        Dtype::F64 => "<f8",
    };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let unpadded = PREAMBLE_BYTES + text.len() + 1;
    text.extend(core::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    // Two numbers of at most 20 digits: far below 2^16.
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The length of the file. *Units*: bytes.
pub fn npy_bytes(task: &Task) -> u64 {
    let [rows, cols, _] = task.shape();
    npy_header(rows, cols, task.dtype()).len() as u64 + rows * cols * task.element_bytes()
}

/// A tile that has not as many bytes as its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileMisfit;

/// The elements of one row of tiles, by rows; what no tile covers is zero. `tiles` are the elements of
/// [`Task::tiles_of_row`], left to right.
pub fn npy_band(
    task: &Task,
    row: u64,
    tiles: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<Vec<u8>, TileMisfit> {
    npy_lines(task, row, 0..npy_band_lines(task, row), tiles)
}

/// Rows of the result in one row of tiles.
pub fn npy_band_lines(task: &Task, row: u64) -> u64 {
    task.tile[0].min(task.shape()[0] - row * task.tile[0])
}

/// Some of the rows of [`npy_band`], counted from its first: `tiles` are the elements of these rows only.
pub fn npy_lines(
    task: &Task,
    row: u64,
    lines: Range<u64>,
    tiles: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<Vec<u8>, TileMisfit> {
    let element = task.element_bytes();
    let row_bytes = (task.shape()[1] * element) as usize;
    let height = lines.end.checked_sub(lines.start).ok_or(TileMisfit)?;
    let mut bytes = alloc::vec![0; height as usize * row_bytes];
    for (tile, elements) in task.tiles_of_row(row).0.zip(tiles) {
        let block = task.block(tile * task.panels()).ok_or(TileMisfit)?;
        let elements = elements.as_ref();
        let width = ((block.cols.end - block.cols.start) * element) as usize;
        if elements.len() != height as usize * width {
            return Err(TileMisfit);
        }
        let left = (block.cols.start * element) as usize;
        for (line, elements) in bytes.chunks_exact_mut(row_bytes).zip(elements.chunks_exact(width)) {
            line[left..left + width].copy_from_slice(elements);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_numpy_writes() {
        let header = npy_header(3, 4, Dtype::F64);
        assert_eq!(header.len(), 128);
        let text = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }";
        assert!(header.starts_with(text) && header.ends_with(b" \n"));
        assert_eq!(npy_header(1 << 17, 1 << 17, Dtype::F32).len() % 64, 0);
    }
}
