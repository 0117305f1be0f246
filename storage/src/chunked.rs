//! Values longer than an engine takes, split over several keys and joined again.
//!
//! Owns the layout: under `key ‖ n` (n a big-endian `u32`) lies chunk `n`; chunk 0 starts with the
//! length of the whole value as a big-endian `u64`. No other key may extend `key`. It sits above the
//! engines and may not touch one.

use crate::engine::{Entry, KeyRange, ReadError};
use crate::limits::CHUNK_BYTES;

/// Length of the number at the end of a chunk's key. *Units*: bytes.
pub const CHUNK_INDEX_BYTES: usize = size_of::<u32>();

const LENGTH_BYTES: usize = size_of::<u64>();

/// The key of chunk `index` of the value under `key`.
pub fn chunk_key(key: &[u8], index: u32) -> Vec<u8> {
    [key, &index.to_be_bytes()].concat()
}

/// Where all the chunks of the value under `key` lie.
pub fn range_of(key: &[u8]) -> KeyRange {
    KeyRange::new(chunk_key(key, 0), chunk_key(key, u32::MAX))
}

/// The chunks of `value`. *Order*: ascending. *Shape*: at least one, so that empty is not absent.
pub(crate) fn split(key: &[u8], value: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let (first, rest) = value.split_at(value.len().min(CHUNK_BYTES));
    let head = [&(value.len() as u64).to_be_bytes(), first].concat();
    let chunks = std::iter::once(head).chain(rest.chunks(CHUNK_BYTES).map(<[u8]>::to_vec));
    (0..).zip(chunks).map(move |(index, chunk)| (chunk_key(key, index), chunk))
}

/// The value that `chunks`, read from [`range_of`] `key`, make up.
pub(crate) fn join(key: &[u8], chunks: &[Entry]) -> Result<Option<Vec<u8>>, ReadError> {
    let Some((first, rest)) = chunks.split_first() else {
        return Ok(None);
    };
    let total_bytes = chunks.iter().map(|chunk| chunk.value.len() as u64).sum::<u64>();
    let found_bytes = total_bytes.saturating_sub(LENGTH_BYTES as u64);
    let torn = |stated_bytes| ReadError::TornValue { key: key.to_vec(), stated_bytes, found_bytes };
    let (length, head) = first.value.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| torn(0))?;
    let stated_bytes = u64::from_be_bytes(*length);
    let in_sequence = (0..).zip(chunks).all(|(index, chunk)| chunk.key == chunk_key(key, index));
    if !in_sequence || stated_bytes != found_bytes {
        return Err(torn(stated_bytes));
    }
    let mut value = head.to_vec();
    rest.iter().for_each(|chunk| value.extend_from_slice(&chunk.value));
    Ok(Some(value))
}
