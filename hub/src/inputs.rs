//! Input files and products: which of them are here, and how an upload becomes one.
//!
//! Owns the records of blobs; their bytes lie in the [store of blobs](crate::blobs). A file counts as here only after
//! every piece is durable and its digest was found right. What came of an upload that was cut off is kept for a while,
//! so that the next one goes on from there; what was uploaded wrongly is removed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::{INPUT_PIECE_BYTES, MATRIX_BYTES_MAX};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Entry, Family, Key, ReadError, Snapshot, pieces_of, pieces_within};

use crate::blobs::{BlobError, Blobs, Name};
use crate::records::RecordError;

pub mod older;
pub mod quota;
pub mod wanted;

/// Largest input file. *Units*: bytes. The largest matrix fits with its header.
pub const INPUT_BYTES_MAX: u64 = 16 << 30;
const _: () = assert!(MATRIX_BYTES_MAX + (1 << 16) <= INPUT_BYTES_MAX);
/// Uploads at once; each holds a piece in memory.
pub const UPLOADS_MAX: usize = 16;
/// How long the pieces of an upload that was cut off are kept after the last of them came.
pub const UNFINISHED_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Pieces that one batch removes.
const REMOVED_PIECES_MAX: usize = 16;
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

/// A piece whose bytes are durable in the store of blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its position.
    pub number: u64,
    /// How long it is. *Units*: bytes.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub blake3: Digest,
}

/// A blob that is here whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// How long it is. *Units*: bytes.
    pub bytes: u64,
    /// When somebody last said that it is wanted, or little before.
    pub used: UnixMillis,
}

impl Whole {
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.bytes.to_be_bytes());
        bytes[8..].copy_from_slice(&self.used.0.to_be_bytes());
        bytes
    }

    fn decode(blob: Digest, value: &[u8]) -> Result<Whole, RecordError> {
        match value.as_chunks().0 {
            [bytes, used] if value.len() == 16 => {
                Ok(Whole { bytes: u64::from_be_bytes(*bytes), used: UnixMillis(u64::from_be_bytes(*used)) })
            }
            _ => Err(RecordError::Malformed { what: "record", of: format!("input {blob}") }),
        }
    }
}

/// Why the bytes of an input cannot be read or removed.
#[derive(Debug)]
pub enum InputError {
    /// Its record cannot be read.
    Record(RecordError),
    /// The store of blobs failed, or what it holds is damaged.
    Blob(BlobError),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputError::Record(error) => error.fmt(f),
            InputError::Blob(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InputError::Record(error) => Some(error),
            InputError::Blob(error) => Some(error),
        }
    }
}

impl From<RecordError> for InputError {
    fn from(error: RecordError) -> InputError {
        InputError::Record(error)
    }
}

impl From<ReadError> for InputError {
    fn from(error: ReadError) -> InputError {
        InputError::Record(error.into())
    }
}

impl From<BlobError> for InputError {
    fn from(error: BlobError) -> InputError {
        InputError::Blob(error)
    }
}

/// The record of an input that is here whole.
pub fn whole(store: &dyn Snapshot, input: Digest) -> Result<Option<Whole>, RecordError> {
    let value = store.get(&Key::Input(input).encode())?;
    value.map(|value| Whole::decode(input, &value)).transpose()
}

/// The length of an input that is here whole.
pub fn length(store: &dyn Snapshot, input: Digest) -> Result<Option<u64>, RecordError> {
    Ok(whole(store, input)?.map(|whole| whole.bytes))
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

/// The object of the piece that starts at an offset, and what must be in it; nothing where the input is not here
/// whole or has no such piece.
pub fn piece_name(
    store: &dyn Snapshot,
    input: Digest,
    offset: u64,
) -> Result<Option<(Name, Digest)>, RecordError> {
    match whole(store, input)? {
        Some(whole) if offset < whole.bytes => uploaded_piece(store, input, offset / INPUT_PIECE_BYTES),
        Some(_) | None => Ok(None),
    }
}

/// The object of a piece as it was uploaded, whether the input is here whole or not.
pub fn uploaded_piece(
    store: &dyn Snapshot,
    input: Digest,
    piece: u64,
) -> Result<Option<(Name, Digest)>, RecordError> {
    let Some(value) = store.get(&Key::BlobPiece { blob: input, piece }.encode())? else { return Ok(None) };
    let malformed = |_| RecordError::Malformed { what: "record of a piece", of: format!("input {input}") };
    let blake3 = Digest(value.as_slice().try_into().map_err(malformed)?);
    Ok(Some((Name { blob: input, piece }, blake3)))
}

/// The piece that starts at an offset; nothing where the input is not here whole or has no such piece. Waits for the
/// store of blobs.
pub fn piece(
    store: &dyn Snapshot,
    blobs: &Blobs,
    input: Digest,
    offset: u64,
) -> Result<Option<Bytes>, InputError> {
    match piece_name(store, input, offset)? {
        Some((name, blake3)) => Ok(blobs.get(name, blake3)?),
        None => Ok(None),
    }
}

/// The batch that tells of a piece that is durable.
pub fn piece_batch(input: Digest, piece: &Stored) -> Batch {
    let mut batch = Batch::new();
    batch.put(Key::BlobPiece { blob: input, piece: piece.number }, piece.blake3.0);
    batch
}

/// The batch that tells of a piece of an upload that is durable, and how far the upload is. The last piece does not
/// count as received before the digest was found right: an upload that is cut off then sends it again.
pub fn upload_batch(input: Digest, piece: &Stored, declared: u64, now: UnixMillis) -> Batch {
    let before = piece.number * INPUT_PIECE_BYTES;
    let after = before + piece.bytes;
    let received = if after < declared { after } else { before };
    let unfinished = Unfinished { received, declared, last: now };
    let mut batch = Batch::new();
    // It comes first: its time tells this batch from all others, where it is to be found out what became of it.
    batch.put(Key::Upload(input), unfinished.encode());
    batch.append(piece_batch(input, piece));
    batch
}

/// The batch after which the input is here.
pub fn whole_batch(input: Digest, bytes: u64, now: UnixMillis) -> Batch {
    let mut batch = Batch::new();
    batch.put(Key::Input(input), Whole { bytes, used: now }.encode()).delete(Key::Upload(input));
    // An upload that said the file was longer may have left some behind its end; their objects are found by looking.
    batch.delete_range(pieces_within(input, bytes.div_ceil(INPUT_PIECE_BYTES)..u64::MAX));
    batch
}

/// Takes the next step in removing what came of an upload, and gives the batch that tells of it; nothing once all of
/// it is gone. Waits for the store of blobs.
///
/// A file of gigabytes is removed by many batches, between which others are served. The record goes first, so
/// that nobody goes on from pieces that are half gone; the objects go before the records that name them, so that none
/// is forgotten.
pub fn removal_batch(
    store: &dyn Snapshot,
    blobs: &Blobs,
    input: Digest,
) -> Result<Option<Batch>, InputError> {
    let mut batch = Batch::new();
    if store.get(&Key::Upload(input).encode())?.is_some() {
        batch.delete(Key::Upload(input));
        return Ok(Some(batch));
    }
    for entry in store.range(&pieces_of(input), REMOVED_PIECES_MAX)? {
        if let Ok((Key::BlobPiece { piece, .. }, _)) = Key::decode(&entry.key) {
            blobs.remove(Name { blob: input, piece })?;
        }
        batch.delete(entry.key);
    }
    Ok((!batch.is_empty()).then_some(batch))
}

/// Inputs of which pieces are here, but neither the whole nor a record of an upload: products that were being
/// stored when the hub was killed, and uploads whose removal was cut off.
///
/// Looks at one key of each input, however many pieces it has.
pub fn abandoned(store: &dyn Snapshot) -> Result<Vec<Digest>, RecordError> {
    let mut found = Vec::new();
    let mut rest = Family::BlobPieces.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        let Ok((Key::BlobPiece { blob, .. }, _)) = Key::decode(&entry.key) else { break };
        if is_abandoned(store, blob)? {
            found.push(blob);
        }
        rest.start = pieces_of(blob).end;
    }
    Ok(found)
}

/// Whether nobody will go on with what is here of an input.
pub fn is_abandoned(store: &dyn Snapshot, input: Digest) -> Result<bool, RecordError> {
    Ok(length(store, input)?.is_none() && store.get(&Key::Upload(input).encode())?.is_none())
}

/// Objects that no record tells of and that were put at least [`UNFINISHED_KEPT`] ago, at most `max` of them: pieces
/// that were put when the hub was killed, and what a longer upload left behind the end of a file. Waits for the store
/// of blobs.
pub fn orphans(
    store: &dyn Snapshot,
    blobs: &Blobs,
    now: UnixMillis,
    max: usize,
) -> Result<Vec<Name>, InputError> {
    let (mut found, mut failed) = (Vec::new(), None);
    blobs.list(|name, put| {
        // Another hub may have put a younger one and be about to tell of it.
        let is_old = u128::from(now.0.saturating_sub(put.0)) >= UNFINISHED_KEPT.as_millis();
        if is_old {
            match uploaded_piece(store, name.blob, name.piece) {
                Ok(Some(_)) => {}
                Ok(None) => found.push(name),
                Err(error) => failed = Some(error),
            }
        }
        found.len() < max && failed.is_none()
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(found),
    }
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
    use crate::blobs::Place;
    use tessera_storage::{Commit, Engine, Memory};

    fn commit(engine: &Memory, batch: Batch) {
        assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
    }

    fn blobs() -> Blobs {
        Blobs::open(&Place::Memory).unwrap()
    }

    /// Puts a piece.
    fn stored(blobs: &Blobs, input: Digest, number: u64, bytes: Vec<u8>) -> Stored {
        let length = bytes.len() as u64;
        let blake3 = blobs.put(Name { blob: input, piece: number }, bytes.into()).unwrap();
        Stored { number, bytes: length, blake3 }
    }

    fn part(number: u64, bytes: u64) -> Stored {
        Stored { number, bytes, blake3: Digest([9; 32]) }
    }

    #[test]
    fn an_input_is_here_only_once_it_is_whole() {
        let (engine, blobs, input) = (Memory::default(), blobs(), Digest([1; 32]));
        let read = |offset| piece(&*engine.snapshot().unwrap(), &blobs, input, offset).unwrap();
        commit(&engine, piece_batch(input, &stored(&blobs, input, 0, vec![7; 10])));
        assert_eq!(read(0), None);
        commit(&engine, whole_batch(input, 10, UnixMillis(5)));
        let found = whole(&*engine.snapshot().unwrap(), input).unwrap();
        assert_eq!(found, Some(Whole { bytes: 10, used: UnixMillis(5) }));
        assert_eq!(read(0).as_deref(), Some(&[7; 10][..]));
        assert_eq!(read(INPUT_PIECE_BYTES), None);
    }

    #[test]
    fn a_piece_that_was_changed_where_it_lies_is_an_error_and_never_served() {
        let (engine, blobs, input) = (Memory::default(), blobs(), Digest([1; 32]));
        commit(&engine, piece_batch(input, &stored(&blobs, input, 0, vec![7; 10])));
        commit(&engine, whole_batch(input, 10, UnixMillis(5)));
        blobs.put(Name { blob: input, piece: 0 }, Bytes::from_static(&[8; 10])).unwrap();
        let error = piece(&*engine.snapshot().unwrap(), &blobs, input, 0).unwrap_err();
        assert!(matches!(error, InputError::Blob(BlobError::Damaged(_))), "{error}");
        assert!(error.to_string().contains(&input.to_string()), "{error}");
    }

    #[test]
    fn an_upload_goes_on_behind_the_whole_pieces_that_are_here_and_its_last_is_sent_again() {
        let (engine, input) = (Memory::default(), Digest([1; 32]));
        let presence = || presence(&*engine.snapshot().unwrap(), input).unwrap();
        let declared = 2 * INPUT_PIECE_BYTES + 5;
        assert_eq!(presence(), Presence::Absent);
        let mut expected = 0;
        for (number, bytes) in [(0, INPUT_PIECE_BYTES), (1, INPUT_PIECE_BYTES), (2, 5)] {
            commit(&engine, upload_batch(input, &part(number, bytes), declared, UnixMillis(number)));
            expected += if bytes == INPUT_PIECE_BYTES { bytes } else { 0 };
            let unfinished = Unfinished { received: expected, declared, last: UnixMillis(number) };
            assert_eq!(presence(), Presence::Part(unfinished));
            assert!(
                piece_name(&*engine.snapshot().unwrap(), input, 0).unwrap().is_none(),
                "half a file is none"
            );
        }
        commit(&engine, whole_batch(input, declared, UnixMillis(3)));
        assert_eq!(presence(), Presence::Whole(declared));
        assert_eq!(engine.snapshot().unwrap().range(&Family::Uploads.range(), 1).unwrap(), []);
    }

    #[test]
    fn a_file_that_came_after_a_longer_one_of_its_name_has_nothing_behind_its_end() {
        let (engine, blobs, input) = (Memory::default(), blobs(), Digest([1; 32]));
        for number in 0..3 {
            let piece = stored(&blobs, input, number, vec![1; 100]);
            commit(&engine, upload_batch(input, &piece, 9 * INPUT_PIECE_BYTES, UnixMillis(1)));
        }
        commit(&engine, upload_batch(input, &stored(&blobs, input, 0, vec![0; 10]), 10, UnixMillis(2)));
        commit(&engine, whole_batch(input, 10, UnixMillis(2)));
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(piece(&*snapshot, &blobs, input, 0).unwrap().as_deref(), Some(&[0; 10][..]));
        assert_eq!(snapshot.range(&pieces_of(input), 9).unwrap().len(), 1);
        let day = UNFINISHED_KEPT.as_millis() as u64;
        let orphans = |now| orphans(&*snapshot, &blobs, now, 9).unwrap();
        assert_eq!(orphans(UnixMillis(crate::backend::unix_ms())), [], "they may be about to be told of");
        let mut found = orphans(UnixMillis(crate::backend::unix_ms() + day));
        found.sort();
        assert_eq!(found, [1, 2].map(|piece| Name { blob: input, piece }));
    }

    #[test]
    fn uploads_lapse_a_day_after_their_last_piece_however_many_there_are() {
        let engine = Memory::default();
        let day = UNFINISHED_KEPT.as_millis() as u64;
        let input = |number: u64| Digest::of(&number.to_be_bytes());
        for number in 0..150 {
            let last = UnixMillis(number % 2 * 1_000);
            commit(&engine, upload_batch(input(number), &part(0, 1), 1, last));
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
        let (engine, blobs) = (Memory::default(), blobs());
        let inputs = [1, 2, 3, 4].map(|number| Digest([number; 32]));
        for input in inputs {
            for number in 0..20 {
                commit(&engine, piece_batch(input, &stored(&blobs, input, number, vec![input.0[0]; 100])));
            }
        }
        commit(&engine, whole_batch(inputs[0], 20 * INPUT_PIECE_BYTES, UnixMillis(0)));
        commit(&engine, upload_batch(inputs[2], &part(0, 5), 5, UnixMillis(0)));
        let found = abandoned(&*engine.snapshot().unwrap()).unwrap();
        assert_eq!(found, [inputs[1], inputs[3]]);
        for input in found {
            while let Some(batch) = removal_batch(&*engine.snapshot().unwrap(), &blobs, input).unwrap() {
                commit(&engine, batch);
            }
        }
        let snapshot = engine.snapshot().unwrap();
        assert!(abandoned(&*snapshot).unwrap().is_empty());
        assert_eq!(piece(&*snapshot, &blobs, inputs[0], 0).unwrap().as_deref(), Some(&[1; 100][..]));
        assert_eq!(snapshot.range(&pieces_of(inputs[1]), 1).unwrap(), []);
        let mut objects = BTreeSet::new();
        blobs.list(|name, _| objects.insert(name)).unwrap();
        let kept: BTreeSet<Digest> = objects.iter().map(|name| name.blob).collect();
        assert_eq!((kept, objects.len()), (BTreeSet::from([inputs[0], inputs[2]]), 40));
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
