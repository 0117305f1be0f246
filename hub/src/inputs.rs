//! Input files in the store: pieces under the digest of the whole, and a record once all are there.
//!
//! Owns how an upload becomes an input. A file counts as here only after its digest was found right;
//! what was uploaded wrongly is removed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tessera_protocol::id::Digest;
use tessera_protocol::limits::{INPUT_PIECE_BYTES, MATRIX_BYTES_MAX};
use tessera_storage::{Batch, Family, Key, Snapshot, pieces_of};

use crate::records::RecordError;

/// Largest input file: the largest matrix and the longest header. *Units*: bytes.
pub const INPUT_BYTES_MAX: u64 = MATRIX_BYTES_MAX + (1 << 16);
/// Uploads at once; each holds a piece in memory.
pub const UPLOADS_MAX: usize = 16;

/// The length of an input that is here whole.
pub fn length(store: &dyn Snapshot, input: Digest) -> Result<Option<u64>, RecordError> {
    let Some(value) = store.get(&Key::Input(input).encode())? else { return Ok(None) };
    let malformed = || RecordError::Malformed { what: "record", of: format!("input {input}") };
    Ok(Some(u64::from_be_bytes(value.as_slice().try_into().map_err(|_| malformed())?)))
}

/// The piece that starts at an offset; nothing where the input is not here whole or has no such piece.
pub fn piece(store: &dyn Snapshot, input: Digest, offset: u64) -> Result<Option<Vec<u8>>, RecordError> {
    if length(store, input)?.is_none() {
        return Ok(None);
    }
    let piece = offset / INPUT_PIECE_BYTES;
    Ok(store.get_chunked(&Key::Piece { input, piece }.encode())?)
}

/// The batch that stores a piece.
pub fn piece_batch(input: Digest, piece: u64, bytes: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put_chunked(&Key::Piece { input, piece }.encode(), bytes);
    batch
}

/// The batch after which the input is here.
pub fn whole_batch(input: Digest, bytes: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Key::Input(input), bytes.to_be_bytes());
    batch
}

/// The batch that removes the pieces of an upload that came to nothing.
pub fn abandon_batch(input: Digest) -> Batch {
    let mut batch = Batch::new();
    batch.delete_range(pieces_of(input));
    batch
}

/// Inputs of which pieces are here and the whole is not: their uploads were cut off with the hub.
///
/// Looks at one key of each input, however many pieces it has.
pub fn abandoned(store: &dyn Snapshot) -> Result<Vec<Digest>, RecordError> {
    let mut found = Vec::new();
    let mut rest = Family::Pieces.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        let Ok((Key::Piece { input, .. }, _)) = Key::decode(&entry.key) else { break };
        if length(store, input)?.is_none() {
            found.push(input);
        }
        rest.start = pieces_of(input).end;
    }
    Ok(found)
}

/// The inputs that are being uploaded: one upload of each at a time, since they share their pieces.
#[derive(Clone, Debug, Default)]
pub struct Uploads(Arc<Mutex<BTreeSet<Digest>>>);

/// One upload's place, given back when dropped.
#[derive(Debug)]
pub struct Upload {
    input: Digest,
    all: Uploads,
}

/// Why an upload cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadRefused {
    /// Somebody else is uploading the same file.
    Busy,
    /// Too many uploads are under way.
    Full,
}

impl Uploads {
    /// Begins an upload.
    pub fn begin(&self, input: Digest) -> Result<Upload, UploadRefused> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() >= UPLOADS_MAX {
            return Err(UploadRefused::Full);
        }
        self.take_place(&mut all, input)
    }

    /// Begins to store a product, however many clients are uploading.
    pub fn begin_product(&self, product: Digest) -> Result<Upload, UploadRefused> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.take_place(&mut all, product)
    }

    fn take_place(&self, all: &mut BTreeSet<Digest>, input: Digest) -> Result<Upload, UploadRefused> {
        match all.insert(input) {
            true => Ok(Upload { input, all: self.clone() }),
            false => Err(UploadRefused::Busy),
        }
    }
}

impl Uploads {
    /// How many are under way.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.remove(&self.input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_storage::{Commit, Engine, Memory};

    fn commit(engine: &Memory, batch: Batch) {
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }

    #[test]
    fn an_input_is_here_only_once_it_is_whole() {
        let (engine, input) = (Memory::default(), Digest([1; 32]));
        let snapshot = || engine.snapshot().unwrap();
        commit(&engine, piece_batch(input, 0, &[7; 10]));
        assert!(piece(&*snapshot(), input, 0).unwrap().is_none());
        commit(&engine, whole_batch(input, 10));
        assert_eq!(length(&*snapshot(), input).unwrap(), Some(10));
        assert_eq!(piece(&*snapshot(), input, 0).unwrap(), Some(vec![7; 10]));
        assert_eq!(piece(&*snapshot(), input, INPUT_PIECE_BYTES).unwrap(), None);
    }

    #[test]
    fn the_largest_piece_fits_one_transaction_of_the_store() {
        let batch = piece_batch(Digest([1; 32]), u64::MAX, &vec![0; INPUT_PIECE_BYTES as usize]);
        batch.check().unwrap();
    }

    #[test]
    fn pieces_of_an_upload_that_was_cut_off_with_the_hub_are_found_and_whole_inputs_are_left_alone() {
        let engine = Memory::default();
        for (number, whole) in [(1, true), (2, false), (3, true), (4, false)] {
            let input = Digest([number; 32]);
            for piece in 0..3 {
                commit(&engine, piece_batch(input, piece, &[number; 100]));
            }
            if whole {
                commit(&engine, whole_batch(input, 300));
            }
        }
        let found = abandoned(&*engine.snapshot().unwrap()).unwrap();
        assert_eq!(found, [Digest([2; 32]), Digest([4; 32])]);
        found.into_iter().for_each(|input| commit(&engine, abandon_batch(input)));
        let snapshot = engine.snapshot().unwrap();
        assert!(abandoned(&*snapshot).unwrap().is_empty());
        assert_eq!(piece(&*snapshot, Digest([3; 32]), 0).unwrap(), Some(vec![3; 100]));
        assert_eq!(snapshot.range(&pieces_of(Digest([2; 32])), 1).unwrap(), []);
    }

    #[test]
    fn a_file_is_uploaded_by_one_client_at_a_time() {
        let uploads = Uploads::default();
        let first = uploads.begin(Digest([1; 32])).unwrap();
        assert_eq!(uploads.begin(Digest([1; 32])).unwrap_err(), UploadRefused::Busy);
        assert!(uploads.begin(Digest([2; 32])).is_ok());
        drop(first);
        assert!(uploads.begin(Digest([1; 32])).is_ok());
    }
}
