//! Values longer than an engine takes, split over several keys and joined again.
//!
//! Owns the layout: under `key ‖ n` (n a big-endian `u32`) lies chunk `n`; chunk 0 starts with the
//! length of the whole value as a big-endian `u64`. No other key may extend `key`. It sits above the
//! engines and may not touch one.

use std::ops::Range;

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

/// Where the chunks lie that hold the bytes `part` of the value under `key`. *Shape*: `part` is not empty.
pub(crate) fn range_of_part(key: &[u8], part: &Range<u64>) -> KeyRange {
    let chunk = |byte: u64| u32::try_from(byte / CHUNK_BYTES as u64).unwrap_or(u32::MAX - 1);
    KeyRange::new(chunk_key(key, chunk(part.start)), chunk_key(key, chunk(part.end - 1) + 1))
}

/// The bytes `part` of the value under `key` from `chunks`, read from [`range_of_part`].
pub(crate) fn join_part(
    key: &[u8],
    chunks: &[Entry],
    part: &Range<u64>,
) -> Result<Option<Vec<u8>>, ReadError> {
    if chunks.is_empty() {
        return Ok(None);
    }
    let first = range_of_part(key, part).start;
    let torn = |found_bytes| ReadError::TornValue { key: key.to_vec(), stated_bytes: part.end, found_bytes };
    let index = part.start / CHUNK_BYTES as u64;
    let in_sequence = (index as u32..).zip(chunks).all(|(index, chunk)| chunk.key == chunk_key(key, index));
    if !in_sequence {
        return Err(torn(0));
    }
    let head_bytes = if first == chunk_key(key, 0) { LENGTH_BYTES } else { 0 };
    let held: Vec<u8> = chunks.iter().flat_map(|chunk| &chunk.value).copied().skip(head_bytes).collect();
    let start = (part.start % CHUNK_BYTES as u64) as usize;
    let found_bytes = part.start - start as u64 + held.len() as u64;
    let bytes = held.get(start..start + (part.end - part.start) as usize).ok_or_else(|| torn(found_bytes))?;
    Ok(Some(bytes.to_vec()))
}
