//! The file that a matrix job's result is: a `.npy` header, then the tiles of the store in the order of
//! rows.
//!
//! Owns the file's bytes, which are a function of the elements alone: another cut into tiles gives the
//! same. Reads tiles; knows nothing of jobs' states or of HTTP.

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::spec::Dtype;
use tessera_storage::{Key, Snapshot};

use crate::records::{RecordError, tile_of};

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
    text.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], text.as_bytes()].concat()
}

/// The length of the file. *Units*: bytes.
pub fn file_bytes(task: &Task) -> u64 {
    let [rows, cols, _] = task.shape();
    npy_header(rows, cols, task.dtype()).len() as u64 + rows * cols * task.element_bytes()
}

/// Gives `sink` the file's bytes in order, a row of tiles at a time, until it says that it wants no more.
pub fn read(
    store: &dyn Snapshot,
    job: JobId,
    task: &Task,
    sink: &mut dyn FnMut(Vec<u8>) -> bool,
) -> Result<(), RecordError> {
    let [rows, cols, _] = task.shape();
    if !sink(npy_header(rows, cols, task.dtype())) {
        return Ok(());
    }
    for row in 0..task.tiles()[0] {
        if !sink(band(store, job, task, row)?) {
            break;
        }
    }
    Ok(())
}

/// BLAKE3 and length of the file.
pub fn digest(store: &dyn Snapshot, job: JobId, task: &Task) -> Result<(Digest, u64), RecordError> {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    read(store, job, task, &mut |piece| {
        hasher.update(&piece);
        bytes += piece.len() as u64;
        true
    })?;
    Ok((Digest(*hasher.finalize().as_bytes()), bytes))
}

/// The rows of one row of tiles; what no tile covers is zero.
fn band(store: &dyn Snapshot, job: JobId, task: &Task, row: u64) -> Result<Vec<u8>, RecordError> {
    let [_, cols, _] = task.shape();
    let row_bytes = (cols * task.element_bytes()) as usize;
    let missing = || RecordError::Missing { what: "tile", of: job.to_string() };
    let mut bytes = Vec::new();
    for tile in task.tiles_of_row(row).0 {
        let block = task.block(tile * task.panels()).ok_or_else(missing)?;
        bytes.resize((block.rows.end - block.rows.start) as usize * row_bytes, 0);
        let value = store.get_chunked(&Key::Tile { job, tile }.encode())?.ok_or_else(missing)?;
        let elements = tile_of(&value).ok_or_else(missing)?.1;
        let width = ((block.cols.end - block.cols.start) * task.element_bytes()) as usize;
        let left = (block.cols.start * task.element_bytes()) as usize;
        if elements.len() as u64 != block.elements() * task.element_bytes() {
            return Err(RecordError::Malformed { what: "tile", of: job.to_string() });
        }
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
