//! Products on their way into the store, each under its digest like an input, piece by piece.
//!
//! Owns the order of their writes: a product counts as here only once every piece is durable. Works on a
//! thread of its own and waits there for the journal, so no lane does.

use std::sync::Arc;

use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_storage::{ReadError, Snapshot};

use crate::inputs::{self, Uploads};
use crate::journal::Journal;
use crate::records::RecordError;

/// Stores a product and says whether it is there.
pub fn store(
    snapshot: Result<Box<dyn Snapshot>, ReadError>,
    journal: &Journal,
    uploads: &Uploads,
    product: Digest,
    bytes: &Arc<[u8]>,
) -> bool {
    let is_here = snapshot.map_err(RecordError::from).and_then(|store| inputs::length(&*store, product));
    match is_here {
        Ok(Some(_)) => return true,
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, %product, "whether a product is here cannot be read");
            return false;
        }
    }
    // A client that uploads these very bytes may give up and remove their pieces.
    let Ok(_place) = uploads.begin_product(product) else { return false };
    for (piece, start) in (0..bytes.len()).step_by(INPUT_PIECE_BYTES as usize).enumerate() {
        let bytes = bytes.clone();
        let made = move || {
            let end = bytes.len().min(start + INPUT_PIECE_BYTES as usize);
            inputs::piece_batch(product, piece as u64, &bytes[start..end])
        };
        if !journal.commit_and_wait(made) {
            return false;
        }
    }
    let length = bytes.len() as u64;
    journal.commit_and_wait(move || inputs::whole_batch(product, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_storage::{Engine, Memory};

    #[test]
    fn a_product_of_several_pieces_is_here_once_it_is_whole() {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let (journal, thread) = Journal::start(engine.clone()).unwrap();
        let bytes: Arc<[u8]> =
            (0..INPUT_PIECE_BYTES as usize + 10).map(|position| (position % 251) as u8).collect();
        let (uploads, product) = (Uploads::default(), Digest::of(&bytes));
        let place = uploads.begin(product).unwrap();
        assert!(!store(engine.snapshot(), &journal, &uploads, product, &bytes), "a client is uploading it");
        drop(place);
        assert!(store(engine.snapshot(), &journal, &uploads, product, &bytes));
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(inputs::length(&*snapshot, product).unwrap(), Some(bytes.len() as u64));
        let read = |offset| inputs::piece(&*snapshot, product, offset).unwrap().unwrap();
        assert_eq!([read(0), read(INPUT_PIECE_BYTES)].concat(), bytes[..]);
        let before = journal.counts().0;
        assert!(store(engine.snapshot(), &journal, &uploads, product, &bytes));
        assert_eq!(journal.counts().0, before, "nothing is written twice");
        journal.stop();
        thread.join().unwrap();
    }
}
