//! Input files and products: every byte of them is that of their digest.

use std::ops::Range;

use blake3::Hasher;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::product::Output;
use tessera_storage::{Family, Key, ReadError, Snapshot};

use super::{Advice, Report};
use crate::inputs::{self, InputError, Presence};
use crate::ops::{label, pages};

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Inputs.range(), |entry| {
        let Ok((key @ Key::Input(input), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let length = report.take(key, inputs::length(store, input), Advice::Restore)?;
        if let Some(length) = length {
            let found = part(store, (key, input), 0..length.unwrap_or(0), &mut Hasher::new(), report)?;
            if found.is_some_and(|found| found != input) {
                report.find(label::of(key), "its bytes are not those of its digest", Advice::Restore);
            }
        }
        Ok(())
    })?;
    pages::each(store, Family::Uploads.range(), |entry| {
        let Ok((key @ Key::Upload(input), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let presence = report.take(key, inputs::presence(store, input), Advice::Restore)?;
        let Some(Presence::Part(unfinished)) = presence else { return Ok(()) };
        for piece in 0..unfinished.received / INPUT_PIECE_BYTES {
            if report.take(key, inputs::uploaded_piece(store, input, piece), Advice::Restore)? == Some(None) {
                let says = format!("piece {piece} came, and is not here");
                report.find(label::of(key), says, Advice::Restore);
            }
        }
        Ok(())
    })?;
    left_over(store, report)
}

/// Hashes a part of a file that is here, and gives the digest of all that was hashed; nothing where something of it
/// is not where it should be, which is then a finding.
fn part(
    store: &dyn Snapshot,
    (who, file): (Key<'_>, Digest),
    bytes: Range<u64>,
    hasher: &mut Hasher,
    report: &mut Report,
) -> Result<Option<Digest>, ReadError> {
    let mut at = bytes.start;
    while at < bytes.end {
        let start = at % INPUT_PIECE_BYTES;
        let found = match report.blobs.clone() {
            Some(blobs) => inputs::piece(store, &blobs, file, at - start),
            None => Ok(None),
        };
        let piece = match found {
            Ok(Some(piece)) if piece.len() as u64 > start => piece,
            Ok(_) => {
                let says = format!("what lies at byte {} of {file} is missing", at - start);
                let is_told = inputs::piece_name(store, file, at - start).is_ok_and(|name| name.is_some());
                report.find(label::of(who), says, if is_told { Advice::Blobs } else { Advice::Restore });
                return Ok(None);
            }
            Err(InputError::Record(error)) => {
                report.take(who, Err::<(), _>(error), Advice::Restore)?;
                return Ok(None);
            }
            Err(InputError::Blob(error)) => {
                report.find(label::of(who), error.to_string(), Advice::Restore);
                return Ok(None);
            }
        };
        let stop = (start + (bytes.end - at)).min(piece.len() as u64);
        hasher.update(&piece[start as usize..stop as usize]);
        at += stop - start;
    }
    Ok(Some(Digest(*hasher.finalize().as_bytes())))
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
    for of in &output.parts {
        wants(store, who, of.product, of.product_bytes, report)?;
        let bytes = of.offset..of.offset.saturating_add(of.bytes);
        if part(store, (who, of.product), bytes, &mut hasher, report)?.is_none() {
            return Ok(());
        }
    }
    if hasher.count() != output.bytes || *hasher.finalize().as_bytes() != output.blake3.0 {
        let says = format!("the bytes of {} are not those of its digest", output.name);
        report.find(label::of(who), says, Advice::Restore);
    }
    Ok(())
}

fn left_over(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let mut count = 0_u64;
    let mut rest = Family::BlobPieces.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        rest.start = pages::after(&entry.key);
        let Ok((key @ Key::BlobPiece { blob: input, .. }, _)) = Key::decode(&entry.key) else { continue };
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
