//! The index: which blocks are whole in the file, in bytes.
//!
//! `TSVM`, a version byte, the entries, and BLAKE3 of all before. An index that is not exactly that is none.

use crate::space::Slot;

const MAGIC: &[u8; 5] = b"TSVM\x01";
const DIGEST_BYTES: usize = 32;

/// One whole block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) note: Vec<u8>,
    pub(crate) slot: Slot,
    pub(crate) digest: [u8; DIGEST_BYTES],
}

pub(crate) fn encode<'a>(
    entries: impl Iterator<Item = (&'a [u8], &'a [u8], Slot, [u8; DIGEST_BYTES])>,
) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (key, note, slot, digest) in entries {
        for part in [key, note] {
            // Keys are dozens of bytes, and notes at most some megabytes.
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        }
        bytes.extend(slot.offset.to_le_bytes());
        bytes.extend(slot.bytes.to_le_bytes());
        bytes.extend(digest);
    }
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

/// The entries; nothing where the bytes are no index of this version.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
    if blake3::hash(body).as_bytes() != digest {
        return None;
    }
    let (mut rest, mut entries) = (body.strip_prefix(MAGIC)?, Vec::new());
    while !rest.is_empty() {
        let key = part(&mut rest)?.to_vec();
        let note = part(&mut rest)?.to_vec();
        let (offset, length) = (number(&mut rest)?, number(&mut rest)?);
        let (digest, after) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        offset.checked_add(length)?;
        rest = after;
        entries.push(Entry { key, note, slot: Slot { offset, bytes: length }, digest: *digest });
    }
    Some(entries)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(part)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_reads_back_and_a_damaged_one_is_none() {
        let slot = Slot { offset: 8, bytes: 16 };
        let bytes = encode([(&b"key"[..], &b"note"[..], slot, [9; 32])].into_iter());
        let golden = b"TSVM\x01\x03\0\0\0key\x04\0\0\0note\x08\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0";
        assert_eq!(&bytes[..golden.len()], golden, "an index of version 1 keeps its bytes");
        let entry = Entry { key: b"key".to_vec(), note: b"note".to_vec(), slot, digest: [9; 32] };
        assert_eq!(decode(&bytes), Some(vec![entry]));
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {position}");
            assert_eq!(decode(&bytes[..position]), None, "cut at {position}");
        }
    }
}
