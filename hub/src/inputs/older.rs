//! Stores that are older than blobs: their pieces are moved out of the key-value store before a hub works with them,
//! and their jobs refer to what they need.
//!
//! Owns that one step. It may be cut off anywhere and done again: a piece is removed where it was in the transaction
//! that tells of its object, and the records of inputs, by which such a store is known, are written last.

use std::collections::BTreeMap;
use std::fmt;

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Commit, CommitError, Engine, Family, Key, ReadError, Snapshot};

use super::wanted::{self, Role};
use super::{Stored, Whole, piece_batch};
use crate::backend::Outputs;
use crate::blobs::{BlobError, Blobs, Name};
use crate::records::{self, RecordError};
use crate::retention;

/// Why pieces could not be moved.
#[derive(Debug)]
pub enum MoveError {
    /// The store cannot be read.
    Read(ReadError),
    /// The store cannot be written.
    Write(CommitError),
    /// A job's records cannot be read.
    Job(RecordError),
    /// The store of blobs does not take them.
    Blob(BlobError),
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moving pieces of files from an older store to blobs: ")?;
        match self {
            MoveError::Read(error) => error.fmt(f),
            MoveError::Write(error) => error.fmt(f),
            MoveError::Job(error) => error.fmt(f),
            MoveError::Blob(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MoveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MoveError::Read(error) => Some(error),
            MoveError::Write(error) => Some(error),
            MoveError::Job(error) => Some(error),
            MoveError::Blob(error) => Some(error),
        }
    }
}

impl From<ReadError> for MoveError {
    fn from(error: ReadError) -> MoveError {
        MoveError::Read(error)
    }
}

/// Moves every piece of an older store, and gives inputs the record that they have now. Says how many pieces there
/// were. A store that is not older is not written.
pub fn move_pieces(engine: &dyn Engine, blobs: &Blobs, now: UnixMillis) -> Result<u64, MoveError> {
    let commit = |batch: Batch| match engine.commit(batch).map_err(MoveError::Write)? {
        Commit::Done | Commit::Conflict { .. } => Ok::<(), MoveError>(()),
    };
    let mut moved = 0;
    while let Some(batch) = move_one(&*engine.snapshot()?, blobs)? {
        commit(batch)?;
        moved += 1;
    }
    let snapshot = engine.snapshot()?;
    let mut short = Vec::new();
    snapshot.walk(&Family::Inputs.range(), &mut |entry| {
        // Only the length, as it was once.
        if let Ok(bytes) = <[u8; 8]>::try_from(entry.value.as_slice()) {
            short.push((entry.key, u64::from_be_bytes(bytes)));
        }
    })?;
    if !short.is_empty() {
        refer(engine, &commit)?;
    }
    for (key, bytes) in short {
        let mut batch = Batch::new();
        batch.put(key, Whole { bytes, used: now }.encode());
        commit(batch)?;
    }
    Ok(moved)
}

/// Lets every job refer to the blobs that it reads and made.
fn refer(engine: &dyn Engine, commit: &dyn Fn(Batch) -> Result<(), MoveError>) -> Result<(), MoveError> {
    let snapshot = engine.snapshot()?;
    let mut jobs = Vec::new();
    snapshot.walk(&Family::Jobs.range(), &mut |entry| {
        if let Ok((Key::Job(job), _)) = Key::decode(&entry.key) {
            jobs.push(job);
        }
    })?;
    for job in jobs {
        let mut batch = Batch::new();
        if let Some(view) = records::read_view(&*snapshot, job).map_err(MoveError::Job)?
            && let (Some(parent), true) = (view.extends, view.state.is_open())
        {
            retention::put_extension(&mut batch, parent, job);
        }
        for (blob, role) in needs(&*snapshot, job).map_err(MoveError::Job)? {
            wanted::put_reference(&mut batch, job, blob, role);
        }
        if !batch.is_empty() {
            commit(batch)?;
        }
    }
    Ok(())
}

/// The blobs that a job reads, and those that its shards made.
fn needs(store: &dyn Snapshot, job: JobId) -> Result<BTreeMap<Digest, Role>, RecordError> {
    let manifest = records::read_manifest(store, job)?;
    let mut needs: BTreeMap<_, _> =
        manifest.spec().inputs.iter().map(|input| (input.blake3, Role::Input)).collect();
    let progress = records::read_progress(store, job)?;
    let made = progress.iter().flat_map(|progress| progress.products.values()).map(|product| product.blake3);
    let result = records::read_result(store, job)?.unwrap_or_default();
    let result: Outputs = serde_json::from_slice(&result).unwrap_or_default();
    let parts = result.outputs.iter().flat_map(|output| &output.parts).map(|part| part.product);
    for product in made.chain(parts) {
        needs.entry(product).or_insert(Role::Product);
    }
    Ok(needs)
}

/// Copies the first piece that lies in the store, and gives the batch that removes it there.
fn move_one(store: &dyn Snapshot, blobs: &Blobs) -> Result<Option<Batch>, MoveError> {
    let Some(first) = store.range(&Family::Pieces.range(), 1)?.pop() else { return Ok(None) };
    let Ok((key @ Key::Piece { input, piece }, _)) = Key::decode(&first.key) else { return Ok(None) };
    let key = key.encode();
    let bytes = store.get_chunked(&key)?.unwrap_or_default();
    let length = bytes.len() as u64;
    let blake3 = blobs.put(Name { blob: input, piece }, bytes.into()).map_err(MoveError::Blob)?;
    let mut batch = piece_batch(input, &Stored { number: piece, bytes: length, blake3 });
    batch.delete_chunked(&key);
    Ok(Some(batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Place;
    use crate::inputs;
    use tessera_protocol::limits::INPUT_PIECE_BYTES;
    use tessera_storage::Memory;

    #[test]
    fn the_inputs_of_an_older_store_are_read_from_blobs_once_it_was_moved() {
        let engine = Memory::default();
        let commit = |batch| assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
        let [whole, part] = [1, 2].map(|number| Digest([number; 32]));
        let piece = |number: u8| vec![number; 200_000];
        for (input, pieces) in [(whole, 0..2), (part, 0..1)] {
            for number in pieces {
                let mut batch = Batch::new();
                batch.put_chunked(&Key::Piece { input, piece: number }.encode(), &piece(number as u8));
                commit(batch);
            }
        }
        let mut batch = Batch::new();
        let length = INPUT_PIECE_BYTES + 200_000;
        batch.put(Key::Input(whole), length.to_be_bytes());
        commit(batch);
        let blobs = Blobs::open(&Place::Memory).unwrap();
        assert_eq!(move_pieces(&engine, &blobs, UnixMillis(7)).unwrap(), 3);
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(snapshot.range(&Family::Pieces.range(), 1).unwrap(), []);
        assert_eq!(inputs::length(&*snapshot, whole).unwrap(), Some(length));
        for number in 0..2 {
            let read = inputs::piece(&*snapshot, &blobs, whole, number * INPUT_PIECE_BYTES).unwrap();
            assert!(read.unwrap() == piece(number as u8));
        }
        assert_eq!(inputs::abandoned(&*snapshot).unwrap(), [part], "half a file is none, as before");
        assert_eq!(move_pieces(&engine, &blobs, UnixMillis(8)).unwrap(), 0);
        assert_eq!(inputs::whole(&*engine.snapshot().unwrap(), whole).unwrap().unwrap().used, UnixMillis(7));
    }
}
