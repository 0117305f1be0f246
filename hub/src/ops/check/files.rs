//! Input files and products: every byte of them is that of their digest.

use blake3::Hasher;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::product::{Output, OutputPart};
use tessera_storage::{Family, Key, ReadError, Snapshot, pieces_within};

use super::{Advice, Report};
use crate::inputs::{self, Presence};
use crate::ops::{label, pages};
use crate::records::RecordError;

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Inputs.range(), |entry| {
        let Ok((key @ Key::Input(input), _)) = Key::decode(&entry.key) else { return Ok(()) };
        match report.take(key, content(store, input), Advice::Restore)? {
            Some(Some((_, found))) if found == input => {}
            Some(Some(_)) => {
                report.find(label::of(key), "its bytes are not those of its digest", Advice::Restore)
            }
            Some(None) => report.find(label::of(key), "a piece of it is missing", Advice::Restore),
            None => {}
        }
        Ok(())
    })?;
    pages::each(store, Family::Uploads.range(), |entry| {
        let Ok((key @ Key::Upload(input), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let presence = report.take(key, inputs::presence(store, input), Advice::Restore)?;
        let Some(Presence::Part(unfinished)) = presence else { return Ok(()) };
        for piece in 0..unfinished.received / INPUT_PIECE_BYTES {
            if store.range(&pieces_within(input, piece..piece + 1), 1)?.is_empty() {
                let says = format!("piece {piece} came, and is not here");
                report.find(label::of(key), says, Advice::Restore);
            }
        }
        Ok(())
    })?;
    left_over(store, report)
}

/// Length and digest of a file as its bytes lie in the store; nothing where one of its pieces is missing or too short.
/// *Errors*: it is not here whole; see [`RecordError`].
fn content(store: &dyn Snapshot, input: Digest) -> Result<Option<(u64, Digest)>, RecordError> {
    let missing = || RecordError::Missing { what: "record", of: format!("input {input}") };
    let length = inputs::length(store, input)?.ok_or_else(missing)?;
    let mut hasher = Hasher::new();
    let mut at = 0;
    // A file of no bytes has no piece, or an empty one.
    while at < length {
        let Some(bytes) = inputs::piece(store, input, at)? else { return Ok(None) };
        if bytes.len() as u64 != INPUT_PIECE_BYTES.min(length - at) {
            return Ok(None);
        }
        hasher.update(&bytes);
        at += bytes.len() as u64;
    }
    Ok(Some((length, Digest(*hasher.finalize().as_bytes()))))
}

/// A file that something needs is here, as long as it should be. Its bytes are looked at with all others.
pub(super) fn wants(
    store: &dyn Snapshot,
    who: Key<'_>,
    file: Digest,
    bytes: u64,
    report: &mut Report,
) -> Result<(), ReadError> {
    let key = Key::Input(file);
    let found = report.take(key, inputs::length(store, file), Advice::Restore)?;
    match found {
        Some(Some(found)) if found == bytes => {}
        Some(Some(found)) => {
            let says = format!("it needs {bytes} bytes of {file}, which has {found}");
            report.find(label::of(who), says, Advice::Restore);
        }
        Some(None) => {
            report.find(label::of(who), format!("it needs {file}, which is not here"), Advice::Restore)
        }
        None => {}
    }
    Ok(())
}

/// A file of a result, put together from the products that it lies in.
pub(super) fn output(
    store: &dyn Snapshot,
    who: Key<'_>,
    output: &Output,
    report: &mut Report,
) -> Result<(), ReadError> {
    let mut hasher = Hasher::new();
    for part in &output.parts {
        wants(store, who, part.product, part.product_bytes, report)?;
        let read = hash_part(store, part, &mut hasher);
        if report.take(who, read, Advice::Restore)? != Some(true) {
            let says = format!("the bytes of {} are not where it says", output.name);
            report.find(label::of(who), says, Advice::Restore);
            return Ok(());
        }
    }
    if hasher.count() != output.bytes || *hasher.finalize().as_bytes() != output.blake3.0 {
        let says = format!("the bytes of {} are not those of its digest", output.name);
        report.find(label::of(who), says, Advice::Restore);
    }
    Ok(())
}

fn hash_part(store: &dyn Snapshot, part: &OutputPart, hasher: &mut Hasher) -> Result<bool, RecordError> {
    let mut at = part.offset;
    let Some(end) = part.offset.checked_add(part.bytes) else { return Ok(false) };
    while at < end {
        let start = at % INPUT_PIECE_BYTES;
        let Some(piece) = inputs::piece(store, part.product, at - start)? else { return Ok(false) };
        let stop = (start + (end - at)).min(piece.len() as u64);
        if stop <= start {
            return Ok(false);
        }
        hasher.update(&piece[start as usize..stop as usize]);
        at += stop - start;
    }
    Ok(true)
}

fn left_over(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let mut count = 0_u64;
    let mut rest = Family::Pieces.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        rest.start = pages::after(&entry.key);
        let Ok((key @ Key::Piece { input, .. }, _)) = Key::decode(&entry.key) else { continue };
        rest.start = tessera_storage::pieces_of(input).end;
        let abandoned = report.take(key, inputs::is_abandoned(store, input), Advice::Restore)?;
        count += u64::from(abandoned == Some(true));
    }
    if count > 0 {
        report.note(format!(
            "{count} files were being stored when the hub was killed; its next start removes what came"
        ));
    }
    Ok(())
}
