//! The file that a matrix job's result is, read from the tiles in the store.
//!
//! Owns the order in which tiles are read. What the file's bytes are is the planners' business; of jobs'
//! states and of HTTP it knows nothing.

use tessera_planners::{npy_band, npy_header};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_storage::{Key, Snapshot};

use crate::records::{RecordError, tile_of};

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
        let tiles = task.tiles_of_row(row).0.map(|tile| elements(store, job, tile));
        let tiles = tiles.collect::<Result<Vec<_>, _>>()?;
        let band = npy_band(task, row, tiles).map_err(|_| malformed(job))?;
        if !sink(band) {
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

fn elements(store: &dyn Snapshot, job: JobId, tile: u64) -> Result<Vec<u8>, RecordError> {
    let value = store.get_chunked(&Key::Tile { job, tile }.encode())?;
    let value = value.ok_or(RecordError::Missing { what: "tile", of: job.to_string() })?;
    let (_, elements) = tile_of(&value).ok_or_else(|| malformed(job))?;
    Ok(elements.to_vec())
}

fn malformed(job: JobId) -> RecordError {
    RecordError::Malformed { what: "tile", of: job.to_string() }
}
