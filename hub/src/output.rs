//! The file that a matrix job's result is, read from the tiles in the store.
//!
//! Owns in which parts it is read, so that neither a wide matrix nor a client that stops reading costs
//! memory. What the file's bytes are is the planners' business; of jobs' states and of HTTP it knows
//! nothing.

use std::ops::Range;

use tessera_planners::{npy_band_lines, npy_header, npy_lines};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_storage::{Key, Snapshot};

use crate::records::{RecordError, TILE_HEAD_BYTES};

/// Most of a part, or one row of the result if that is more; a row is at most 1 MiB. *Units*: bytes.
const PART_BYTES_MAX: u64 = 2 << 20;

/// What is read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the file opens with.
    Header,
    /// Rows of the result within one row of tiles.
    Lines {
        /// The row of tiles.
        row: u64,
        /// Counted from its first.
        lines: Range<u64>,
    },
}

/// The parts of the file. *Order*: that of its bytes.
pub fn parts(task: &Task) -> impl Iterator<Item = Part> + '_ {
    let at_once = (PART_BYTES_MAX / (task.shape()[1] * task.element_bytes())).max(1);
    let lines = move |row: u64| {
        let height = npy_band_lines(task, row);
        (0..height)
            .step_by(at_once as usize)
            .map(move |start| Part::Lines { row, lines: start..(start + at_once).min(height) })
    };
    std::iter::once(Part::Header).chain((0..task.tiles()[0]).flat_map(lines))
}

/// The bytes of one part.
pub fn read(store: &dyn Snapshot, job: JobId, task: &Task, part: &Part) -> Result<Vec<u8>, RecordError> {
    let [rows, cols, _] = task.shape();
    match part {
        Part::Header => Ok(npy_header(rows, cols, task.dtype())),
        Part::Lines { row, lines } => {
            let tiles = task.tiles_of_row(*row).0.map(|tile| elements(store, job, task, tile, lines));
            let tiles = tiles.collect::<Result<Vec<_>, _>>()?;
            npy_lines(task, *row, lines.clone(), tiles).map_err(|_| malformed(job))
        }
    }
}

/// BLAKE3 and length of the file.
pub fn digest(store: &dyn Snapshot, job: JobId, task: &Task) -> Result<(Digest, u64), RecordError> {
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
    for part in parts(task) {
        let part = read(store, job, task, &part)?;
        hasher.update(&part);
        bytes += part.len() as u64;
    }
    Ok((Digest(*hasher.finalize().as_bytes()), bytes))
}

/// The elements of some rows of a tile.
fn elements(
    store: &dyn Snapshot,
    job: JobId,
    task: &Task,
    tile: u64,
    lines: &Range<u64>,
) -> Result<Vec<u8>, RecordError> {
    let block = task.block(tile * task.panels()).ok_or_else(|| malformed(job))?;
    let line_bytes = (block.cols.end - block.cols.start) * task.element_bytes();
    let at = |line: u64| TILE_HEAD_BYTES + line * line_bytes;
    let part = store.get_chunked_part(&Key::Tile { job, tile }.encode(), at(lines.start)..at(lines.end))?;
    part.ok_or(RecordError::Missing { what: "tile", of: job.to_string() })
}

fn malformed(job: JobId) -> RecordError {
    RecordError::Malformed { what: "tile", of: job.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::batch_of;
    use std::sync::Arc;
    use tessera_hub_core::Record;
    use tessera_protocol::matrix::{Half, Operand, Source};
    use tessera_storage::{Batch, Commit, Engine, Memory};

    const JOB: JobId = JobId([7; 16]);

    fn task(m: u64, n: u64, tile: [u64; 2], double: bool, half: Option<Half>) -> Task {
        let uniform =
            |rows, cols| Operand { source: Source::Uniform { stream: 0 }, rows, cols, transposed: false };
        let task = Task {
            key: [0; 2],
            double,
            alpha: 1.0,
            beta: 0.0,
            a: uniform(m, 4),
            b: uniform(4, n),
            c: None,
            half,
            tile,
            k_panel: 4,
        };
        task.check().unwrap();
        task
    }

    fn commit(engine: &Memory, batch: Batch) {
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }

    /// Bytes that tell every element from every other.
    fn element(double: bool, row: u64, col: u64) -> Vec<u8> {
        let value = row as f64 * 4_096.0 + col as f64;
        if double { value.to_le_bytes().to_vec() } else { (value as f32).to_le_bytes().to_vec() }
    }

    fn is_computed(half: Option<Half>, row: u64, col: u64) -> bool {
        match half {
            None => true,
            Some(Half::Lower) => col <= row,
            Some(Half::Upper) => col >= row,
        }
    }

    /// A store that holds the tiles as agents send them: on a diagonal, the other triangle is zero.
    fn store_of(task: &Task) -> Memory {
        let engine = Memory::default();
        for tile in 0..task.tile_count() {
            let block = task.block(tile * task.panels()).unwrap();
            let mut bytes = Vec::new();
            for row in block.rows.clone() {
                for col in block.cols.clone() {
                    match is_computed(task.half, row, col) {
                        true => bytes.extend(element(task.double, row, col)),
                        false => bytes.extend(vec![0; task.element_bytes() as usize]),
                    }
                }
            }
            let record = Record::TileReduced {
                job: JOB,
                plan: Digest([1; 32]),
                tile,
                bytes: Arc::from(bytes),
                earned: Default::default(),
            };
            commit(&engine, batch_of(&record));
        }
        engine
    }

    fn file(task: &Task) -> Vec<u8> {
        let engine = store_of(task);
        let snapshot = engine.snapshot().unwrap();
        let file: Vec<u8> =
            parts(task).flat_map(|part| read(&*snapshot, JOB, task, &part).unwrap()).collect();
        assert_eq!(digest(&*snapshot, JOB, task).unwrap(), (Digest::of(&file), file.len() as u64));
        assert_eq!(tessera_planners::npy_bytes(task), file.len() as u64);
        file
    }

    /// Element by element, under the header that `numpy.save` of numpy 2.4 writes for every shape and type here.
    fn reference(m: u64, n: u64, double: bool, half: Option<Half>) -> Vec<u8> {
        let descr = if double { "<f8" } else { "<f4" };
        let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({m}, {n}), }}");
        let mut file = b"\x93NUMPY\x01\x00v\x00".to_vec();
        file.extend(format!("{dict:<117}\n").bytes());
        assert_eq!(file.len(), 128);
        for row in 0..m {
            for col in 0..n {
                match is_computed(half, row, col) {
                    true => file.extend(element(double, row, col)),
                    false => file.extend(vec![0; if double { 8 } else { 4 }]),
                }
            }
        }
        file
    }

    #[test]
    fn the_file_of_a_product_is_the_same_whatever_its_tiles() {
        for (m, n) in [(1, 1), (5, 70), (70, 5), (33, 33), (64, 32)] {
            for double in [false, true] {
                let expected = reference(m, n, double, None);
                for tile in [[16, 16], [32, 16], [16, 64], [1_024, 1_024], [1, 7]] {
                    let found = file(&task(m, n, tile, double, None));
                    assert!(found == expected, "{m} × {n} in tiles of {tile:?}, double: {double}");
                }
            }
        }
    }

    #[test]
    fn the_file_of_a_triangle_holds_zeros_in_the_other_half() {
        for n in [1, 16, 33, 70] {
            for (double, half) in [(false, Half::Lower), (true, Half::Lower), (true, Half::Upper)] {
                let expected = reference(n, n, double, Some(half));
                for side in [5, 16, 32, 1_024] {
                    let found = file(&task(n, n, [side, side], double, Some(half)));
                    assert!(found == expected, "{half:?} of {n} in tiles of {side}, double: {double}");
                }
            }
        }
    }

    #[test]
    fn no_part_of_a_wide_result_is_large() {
        let wide = task(1_024, 1 << 17, [1_024, 1_024], true, None);
        let lines: u64 = parts(&wide)
            .map(|part| match part {
                Part::Header => 0,
                Part::Lines { lines, .. } => {
                    let height = lines.end - lines.start;
                    assert!(height * (1 << 20) <= PART_BYTES_MAX);
                    height
                }
            })
            .sum();
        assert_eq!(lines, 1_024);
    }

    #[test]
    fn a_tile_that_is_missing_or_short_is_an_error_and_no_file() {
        let task = task(40, 40, [16, 16], true, None);
        let engine = store_of(&task);
        let cut = Record::TileReduced {
            job: JOB,
            plan: Digest([1; 32]),
            tile: 4,
            bytes: vec![0; 100].into(),
            earned: Default::default(),
        };
        commit(&engine, batch_of(&cut));
        assert!(matches!(digest(&*engine.snapshot().unwrap(), JOB, &task), Err(RecordError::Read(_))));
        let mut batch = Batch::new();
        batch.delete_chunked(&Key::Tile { job: JOB, tile: 4 }.encode());
        commit(&engine, batch);
        let found = digest(&*engine.snapshot().unwrap(), JOB, &task);
        assert!(matches!(found, Err(RecordError::Missing { what: "tile", .. })), "{found:?}");
    }
}
