//! Products on their way into the store, each under its digest like an input, piece by piece.
//!
//! Owns the order of their writes: a product counts as here only once every piece is durable. Works on a
//! thread of its own and waits there for the disk and the journal, so no lane does.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{ReadError, Snapshot};

use crate::backend::unix_ms;
use crate::blobs::{Blobs, Name};
use crate::inputs::quota::Quotas;
use crate::inputs::wanted::{self, Role};
use crate::inputs::{self, Stored, Uploads};
use crate::journal::Journal;
use crate::records::RecordError;

/// Where products go.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Their bytes.
    pub blobs: Blobs,
    /// Who else is bringing some.
    pub uploads: Uploads,
    /// What projects may bring.
    pub quotas: Quotas,
}

/// The product's bytes, of which pieces are parts without a copy.
struct Whole(Arc<[u8]>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Stores a product of a job, which refers to it from then on, and says whether it is there.
pub fn store(
    snapshot: Result<Box<dyn Snapshot>, ReadError>,
    journal: &Journal,
    shelf: &Shelf,
    (job, product): (JobId, Digest),
    bytes: &Arc<[u8]>,
) -> bool {
    let now = UnixMillis(unix_ms());
    let is_here = snapshot.map_err(RecordError::from).and_then(|store| inputs::whole(&*store, product));
    match is_here {
        // Where it goes at this very moment, the machine asks again.
        Ok(Some(found)) => {
            return journal.commit_and_wait(move || wanted::product_batch(job, product, found, now));
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, %product, "whether a product is here cannot be read");
            return false;
        }
    }
    // A client that uploads these very bytes may give up and remove their pieces.
    let Ok(_place) = shelf.uploads.begin_product(product) else { return false };
    let whole = Bytes::from_owner(Whole(bytes.clone()));
    for (number, range) in ranges(whole.len()).enumerate() {
        let (number, length) = (number as u64, (range.end - range.start) as u64);
        let put = shelf.blobs.put(Name { blob: product, piece: number }, whole.slice(range));
        let blake3 = match put {
            Ok(blake3) => blake3,
            Err(error) => {
                tracing::error!(%error, %product, "a product cannot be stored");
                return false;
            }
        };
        let stored = Stored { number, bytes: length, blake3 };
        if !journal.commit_and_wait(move || inputs::piece_batch(product, &stored)) {
            return false;
        }
    }
    let length = bytes.len() as u64;
    journal.commit_and_wait(move || {
        let mut batch = inputs::whole_batch(product, length, UnixMillis(unix_ms()));
        wanted::put_reference(&mut batch, job, product, Role::Product);
        batch
    })
}

/// Where the pieces of so many bytes lie in them.
fn ranges(bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let step = INPUT_PIECE_BYTES as usize;
    (0..bytes).step_by(step).map(move |start| start..bytes.min(start + step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Place;
    use tessera_storage::{Engine, Key, Memory};

    const JOB: JobId = JobId([7; 16]);

    #[test]
    fn a_product_of_several_pieces_is_here_once_it_is_whole() {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let (journal, thread) = Journal::start(engine.clone()).unwrap();
        let bytes: Arc<[u8]> =
            (0..INPUT_PIECE_BYTES as usize + 10).map(|position| (position % 251) as u8).collect();
        let blobs = Blobs::open(&Place::Memory).unwrap();
        let shelf = Shelf { blobs, uploads: Uploads::default(), quotas: Quotas::default() };
        let product = Digest::of(&bytes);
        let place = shelf.uploads.begin(product).unwrap();
        assert!(
            !store(engine.snapshot(), &journal, &shelf, (JOB, product), &bytes),
            "a client is uploading it"
        );
        drop(place);
        assert!(store(engine.snapshot(), &journal, &shelf, (JOB, product), &bytes));
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(inputs::length(&*snapshot, product).unwrap(), Some(bytes.len() as u64));
        let read = |offset| inputs::piece(&*snapshot, &shelf.blobs, product, offset).unwrap().unwrap();
        assert_eq!([read(0), read(INPUT_PIECE_BYTES)].concat(), bytes[..]);
        let before = journal.counts().0;
        let other = JobId([8; 16]);
        assert!(store(engine.snapshot(), &journal, &shelf, (other, product), &bytes));
        assert_eq!(journal.counts().0, before + 1, "no piece is written twice");
        for job in [JOB, other] {
            let reference = Key::BlobRef { blob: product, job }.encode();
            assert!(engine.snapshot().unwrap().get(&reference).unwrap().is_some(), "{job} refers to it");
        }
        journal.stop();
        thread.join().unwrap();
    }
}
