//! Every key is one of ours, and every value of many chunks is whole. Walks the whole store once.

use tessera_storage::chunked::CHUNK_INDEX_BYTES;
use tessera_storage::{Entry, Family, Key, KeyRange, ReadError, Snapshot};

use super::{Advice, Count, Report, family_name};
use crate::ops::{label, pages};

/// A chunked value of which some chunks were seen.
struct Chunked {
    /// Without the chunk's number.
    key: Vec<u8>,
    next: u32,
    stated: u64,
    found: u64,
    broken: bool,
}

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let mut counts = [0; Family::ALL.len()];
    let mut open: Option<Chunked> = None;
    pages::each(store, KeyRange::prefix([]), |entry| {
        let (key, chunk) = match Key::decode(&entry.key) {
            Ok(decoded) => decoded,
            Err(error) => {
                report.find(label::of_bytes(&entry.key), error.to_string(), Advice::Foreign);
                return Ok(());
            }
        };
        let counted = Family::ALL.iter().position(|family| *family == key.family());
        let count = counted.map(|at| &mut counts[at]);
        match chunk {
            None => count.into_iter().for_each(|count| *count += 1),
            Some(chunk) => {
                if add(&mut open, &entry, chunk, report) {
                    count.into_iter().for_each(|count| *count += 1);
                }
            }
        }
        Ok(())
    })?;
    end(open, report);
    let named = Family::ALL.iter().zip(counts);
    report.families = named.map(|(family, values)| Count { family: family_name(*family), values }).collect();
    Ok(())
}

/// Adds a chunk to the value it belongs to; says whether that is a new one.
fn add(open: &mut Option<Chunked>, entry: &Entry, chunk: u32, report: &mut Report) -> bool {
    let key = &entry.key[..entry.key.len() - CHUNK_INDEX_BYTES];
    if let Some(value) = open.as_mut().filter(|value| value.key == key) {
        value.broken |= chunk != value.next;
        value.next = chunk.saturating_add(1);
        value.found += entry.value.len() as u64;
        return false;
    }
    end(open.take(), report);
    let head = entry.value.split_first_chunk().filter(|_| chunk == 0);
    let (stated, found) =
        head.map_or((0, 0), |(length, rest)| (u64::from_be_bytes(*length), rest.len() as u64));
    let (key, next, broken) = (key.to_vec(), chunk.saturating_add(1), head.is_none());
    *open = Some(Chunked { key, next, stated, found, broken });
    true
}

fn end(open: Option<Chunked>, report: &mut Report) {
    let Some(Chunked { key, stated, found, broken, .. }) = open else { return };
    if broken || stated != found {
        let name = Key::decode(&[&key[..], &[0; CHUNK_INDEX_BYTES]].concat())
            .map_or_else(|_| label::of_bytes(&key), |(key, _)| label::of(key));
        let says = match broken {
            true => "a chunk of it is missing".to_owned(),
            false => format!("its chunks hold {found} bytes where {stated} were stored"),
        };
        report.find(name, says, Advice::Restore);
    }
}
