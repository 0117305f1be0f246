//! Input files in the store: pieces under the digest of the whole, and a record once all are there.
//!
//! Owns how an upload becomes an input. A file counts as here only after its digest was found right. What came of
//! an upload that was cut off is kept for a while, so that the next one goes on from there; what was uploaded
//! wrongly is removed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Entry, Family, Key, Snapshot, pieces_of, pieces_within};

use crate::records::RecordError;

/// Largest input file. *Units*: bytes. A job may allow less: a matrix has at most
/// [`MATRIX_BYTES_MAX`](tessera_protocol::limits::MATRIX_BYTES_MAX).
pub const INPUT_BYTES_MAX: u64 = 16 << 30;
/// Uploads at once; each holds a piece in memory.
pub const UPLOADS_MAX: usize = 16;
/// How long the pieces of an upload that was cut off are kept after the last of them came.
pub const UNFINISHED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Pieces that one batch removes: 64 MiB, for which nobody else waits long.
const REMOVED_PIECES_MAX: u64 = 16;
/// Records of uploads read at a time.
const PAGE_ENTRIES: usize = 64;

/// What of an input is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing that an upload could go on from.
    Absent,
    /// The beginning.
    Part(Unfinished),
    /// All of it. *Units*: bytes.
    Whole(u64),
}

impl Presence {
    /// How much of it is here, and need not be sent again. *Units*: bytes.
    pub fn received(self) -> u64 {
        match self {
            Presence::Absent => 0,
            Presence::Part(unfinished) => unfinished.received,
            Presence::Whole(bytes) => bytes,
        }
    }
}

/// An upload that is under way or was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Whole pieces that are here. *Units*: bytes; a multiple of [`INPUT_PIECE_BYTES`], less than `declared`.
    pub received: u64,
    /// How long the file is said to be. *Units*: bytes.
    pub declared: u64,
    /// When the last piece came.
    pub last: UnixMillis,
}

impl Unfinished {
    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.received, self.declared, self.last.0]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    fn decode(input: Digest, value: &[u8]) -> Result<Unfinished, RecordError> {
        let numbers: Vec<u64> = value.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
        match numbers[..] {
            [received, declared, last]
                if value.len() == 24 && received < declared && received.is_multiple_of(INPUT_PIECE_BYTES) =>
            {
                Ok(Unfinished { received, declared, last: UnixMillis(last) })
            }
            _ => Err(RecordError::Malformed { what: "record", of: format!("the upload of {input}") }),
        }
    }
}

/// A piece of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its position.
    pub number: u64,
    /// What it holds: [`INPUT_PIECE_BYTES`], unless it is the last.
    pub bytes: Vec<u8>,
    /// How long the whole file is said to be. *Units*: bytes.
    pub declared: u64,
}

/// The length of an input that is here whole.
pub fn length(store: &dyn Snapshot, input: Digest) -> Result<Option<u64>, RecordError> {
    let Some(value) = store.get(&Key::Input(input).encode())? else { return Ok(None) };
    let malformed = || RecordError::Malformed { what: "record", of: format!("input {input}") };
    Ok(Some(u64::from_be_bytes(value.as_slice().try_into().map_err(|_| malformed())?)))
}

/// What of an input is here.
pub fn presence(store: &dyn Snapshot, input: Digest) -> Result<Presence, RecordError> {
    if let Some(bytes) = length(store, input)? {
        return Ok(Presence::Whole(bytes));
    }
    match store.get(&Key::Upload(input).encode())? {
        None => Ok(Presence::Absent),
        Some(value) => Ok(Presence::Part(Unfinished::decode(input, &value)?)),
    }
}

/// The piece that starts at an offset; nothing where the input is not here whole or has no such piece.
pub fn piece(store: &dyn Snapshot, input: Digest, offset: u64) -> Result<Option<Vec<u8>>, RecordError> {
    if length(store, input)?.is_none() {
        return Ok(None);
    }
    uploaded_piece(store, input, offset / INPUT_PIECE_BYTES)
}

/// A piece as it was uploaded, whether the input is here whole or not.
pub fn uploaded_piece(
    store: &dyn Snapshot,
    input: Digest,
    piece: u64,
) -> Result<Option<Vec<u8>>, RecordError> {
    Ok(store.get_chunked(&Key::Piece { input, piece }.encode())?)
}

/// The batch that stores a piece.
pub fn piece_batch(input: Digest, piece: u64, bytes: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put_chunked(&Key::Piece { input, piece }.encode(), bytes);
    batch
}

/// The batch that stores a piece of an upload, and how far the upload is. The last piece does not count as
/// received before the digest was found right: an upload that is cut off then sends it again.
pub fn upload_batch(input: Digest, piece: &Piece, now: UnixMillis) -> Batch {
    let before = piece.number * INPUT_PIECE_BYTES;
    let after = before + piece.bytes.len() as u64;
    let received = if after < piece.declared { after } else { before };
    let unfinished = Unfinished { received, declared: piece.declared, last: now };
    let mut batch = Batch::new();
    // It comes first: its time tells this batch from all others, where it is to be found out what became of it.
    batch.put(Key::Upload(input), unfinished.encode());
    batch.append(piece_batch(input, piece.number, &piece.bytes));
    batch
}

/// The batch after which the input is here.
pub fn whole_batch(input: Digest, bytes: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Key::Input(input), bytes.to_be_bytes()).delete(Key::Upload(input));
    // An upload that said the file was longer may have left some behind its end.
    batch.delete_range(pieces_within(input, bytes.div_ceil(INPUT_PIECE_BYTES)..u64::MAX));
    batch
}

/// The next batch that removes what came of an upload; nothing once all of it is gone.
///
/// A file of gigabytes is removed by many batches, between which others are served. The record goes first, so
/// that nobody goes on from pieces that are half gone.
pub fn removal_batch(store: &dyn Snapshot, input: Digest) -> Result<Option<Batch>, RecordError> {
    let mut batch = Batch::new();
    if store.get(&Key::Upload(input).encode())?.is_some() {
        batch.delete(Key::Upload(input));
    }
    if let Some(entry) = store.range(&pieces_of(input), 1)?.pop()
        && let Ok((Key::Piece { piece, .. }, _)) = Key::decode(&entry.key)
    {
        batch.delete_range(pieces_within(input, piece..piece + REMOVED_PIECES_MAX));
    }
    Ok((!batch.is_empty()).then_some(batch))
}

/// Inputs of which pieces are here, but neither the whole nor a record of an upload: products that were being
/// stored when the hub was killed, and uploads whose removal was cut off.
///
/// Looks at one key of each input, however many pieces it has.
pub fn abandoned(store: &dyn Snapshot) -> Result<Vec<Digest>, RecordError> {
    let mut found = Vec::new();
    let mut rest = Family::Pieces.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        let Ok((Key::Piece { input, .. }, _)) = Key::decode(&entry.key) else { break };
        if is_abandoned(store, input)? {
            found.push(input);
        }
        rest.start = pieces_of(input).end;
    }
    Ok(found)
}

/// Whether nobody will go on with what is here of an input.
pub fn is_abandoned(store: &dyn Snapshot, input: Digest) -> Result<bool, RecordError> {
    Ok(length(store, input)?.is_none() && store.get(&Key::Upload(input).encode())?.is_none())
}

/// Uploads of which nothing has come for [`UNFINISHED_KEPT`].
pub fn stale(store: &dyn Snapshot, now: UnixMillis) -> Result<Vec<Digest>, RecordError> {
    let mut found = Vec::new();
    let mut rest = Family::Uploads.range();
    loop {
        let page = store.range(&rest, PAGE_ENTRIES)?;
        let Some(Entry { key: last, .. }) = page.last() else { return Ok(found) };
        rest.start = [&last[..], &[0]].concat();
        for Entry { key, value } in page {
            let Ok((Key::Upload(input), _)) = Key::decode(&key) else { continue };
            if is_old(input, &value, now) {
                found.push(input);
            }
        }
    }
}

/// Whether an input is not here whole and nothing of it has come for [`UNFINISHED_KEPT`].
pub fn is_stale(store: &dyn Snapshot, input: Digest, now: UnixMillis) -> Result<bool, RecordError> {
    let value = store.get(&Key::Upload(input).encode())?;
    Ok(length(store, input)?.is_none() && value.is_some_and(|value| is_old(input, &value, now)))
}

/// A record that cannot be read is no use to anybody, however new.
fn is_old(input: Digest, value: &[u8], now: UnixMillis) -> bool {
    Unfinished::decode(input, value).map_or(true, |unfinished| {
        u128::from(now.0.saturating_sub(unfinished.last.0)) >= UNFINISHED_KEPT.as_millis()
    })
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

    /// Begins to remove what is here of an input, however many clients are uploading.
    pub fn begin_removal(&self, input: Digest) -> Result<Upload, UploadRefused> {
        self.begin_product(input)
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

    fn part(number: u64, bytes: usize, declared: u64) -> Piece {
        Piece { number, bytes: vec![number as u8; bytes], declared }
    }

    #[test]
    fn the_largest_piece_fits_one_transaction_of_the_store() {
        let piece = part(1, INPUT_PIECE_BYTES as usize, INPUT_BYTES_MAX);
        upload_batch(Digest([1; 32]), &piece, UnixMillis(u64::MAX)).check().unwrap();
    }

    #[test]
    fn an_upload_goes_on_behind_the_whole_pieces_that_are_here_and_its_last_is_sent_again() {
        let (engine, input) = (Memory::default(), Digest([1; 32]));
        let presence = || presence(&*engine.snapshot().unwrap(), input).unwrap();
        let declared = 2 * INPUT_PIECE_BYTES + 5;
        assert_eq!(presence(), Presence::Absent);
        let mut expected = 0;
        for (number, bytes) in [(0, INPUT_PIECE_BYTES), (1, INPUT_PIECE_BYTES), (2, 5)] {
            commit(&engine, upload_batch(input, &part(number, bytes as usize, declared), UnixMillis(number)));
            expected += if bytes == INPUT_PIECE_BYTES { bytes } else { 0 };
            let unfinished = Unfinished { received: expected, declared, last: UnixMillis(number) };
            assert_eq!(presence(), Presence::Part(unfinished));
            assert!(
                piece(&*engine.snapshot().unwrap(), input, 0).unwrap().is_none(),
                "half a file is no file"
            );
        }
        commit(&engine, whole_batch(input, declared));
        assert_eq!(presence(), Presence::Whole(declared));
        assert_eq!(engine.snapshot().unwrap().range(&Family::Uploads.range(), 1).unwrap(), []);
    }

    #[test]
    fn a_file_that_came_after_a_longer_one_of_its_name_has_nothing_behind_its_end() {
        let (engine, input) = (Memory::default(), Digest([1; 32]));
        for number in 0..3 {
            let piece = part(number, INPUT_PIECE_BYTES as usize, 9 * INPUT_PIECE_BYTES);
            commit(&engine, upload_batch(input, &piece, UnixMillis(1)));
        }
        commit(&engine, upload_batch(input, &part(0, 10, 10), UnixMillis(2)));
        commit(&engine, whole_batch(input, 10));
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(piece(&*snapshot, input, 0).unwrap(), Some(vec![0; 10]));
        assert_eq!(snapshot.range(&pieces_of(input), 9).unwrap().len(), 1);
    }

    #[test]
    fn uploads_lapse_a_day_after_their_last_piece_however_many_there_are() {
        let engine = Memory::default();
        let day = UNFINISHED_KEPT.as_millis() as u64;
        let input = |number: u64| Digest::of(&number.to_be_bytes());
        for number in 0..150 {
            let last = UnixMillis(number % 2 * 1_000);
            commit(&engine, upload_batch(input(number), &part(0, 1, 1), last));
        }
        let stale = |now| stale(&*engine.snapshot().unwrap(), UnixMillis(now)).unwrap();
        assert!(stale(day - 1).is_empty());
        let mut even: Vec<Digest> = (0..150).step_by(2).map(input).collect();
        even.sort_unstable();
        assert_eq!(stale(day), even);
        assert_eq!(stale(day + 1_000).len(), 150);
        assert!(stale(0).is_empty(), "a clock that was set back removes nothing");
        let mut garbled = Batch::new();
        garbled.put(Key::Upload(input(1)), [1; 7]);
        commit(&engine, garbled);
        assert_eq!(stale(0), [input(1)]);
    }

    #[test]
    fn pieces_without_a_record_are_found_whole_and_unfinished_inputs_are_not() {
        let engine = Memory::default();
        for number in 1..=4 {
            let input = Digest([number; 32]);
            for piece in 0..3 {
                commit(&engine, piece_batch(input, piece, &[number; 100]));
            }
        }
        commit(&engine, whole_batch(Digest([1; 32]), 2 * INPUT_PIECE_BYTES + 1));
        commit(&engine, upload_batch(Digest([3; 32]), &part(0, 5, 5), UnixMillis(0)));
        let found = abandoned(&*engine.snapshot().unwrap()).unwrap();
        assert_eq!(found, [Digest([2; 32]), Digest([4; 32])]);
        for input in found {
            while let Some(batch) = removal_batch(&*engine.snapshot().unwrap(), input).unwrap() {
                commit(&engine, batch);
            }
        }
        let snapshot = engine.snapshot().unwrap();
        assert!(abandoned(&*snapshot).unwrap().is_empty());
        assert_eq!(piece(&*snapshot, Digest([1; 32]), 0).unwrap(), Some(vec![1; 100]));
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
