//! Jobs and what belongs to them: manifest, progress, result, tiles, idempotency keys.

use tessera_hub_core::NewJob;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::product::Output;
use tessera_storage::{Family, Key, KeyRange, ReadError, Snapshot};

use super::{Advice, Report, files};
use crate::ops::{label, pages};
use crate::output;
use crate::records::{self, RecordError, StoredJob};
use crate::retention::{self, Stone};

/// Families whose keys begin with the id of a job.
const OF_JOBS: [Family; 7] = [
    Family::Manifests,
    Family::Progress,
    Family::Results,
    Family::Tiles,
    Family::Bills,
    Family::TilePays,
    Family::PayPages,
];

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Jobs.range(), |entry| {
        let Ok((key @ Key::Job(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        match report.take(key, records::decode_job(id, &entry.value), Advice::Restore)? {
            Some(stored) => job(store, id, &stored, report),
            None => Ok(()),
        }
    })?;
    for family in OF_JOBS {
        without_job(store, family, report)?;
    }
    pages::each(store, Family::Idempotency.range(), |entry| {
        let name = label::of_bytes(&entry.key);
        let Some((id, manifest)) = records::read_idempotency(&entry.value) else {
            report.find(name, "it names no job", Advice::Restore);
            return Ok(());
        };
        match records::read_view(store, id) {
            Ok(Some(view)) if view.manifest_digest == manifest => {}
            Ok(Some(_)) => report.find(name, format!("{id} computes something else"), Advice::Restore),
            // Whoever prunes the next job removes what is left of keys.
            Ok(None) if stone(store, id, report)?.is_some() => {}
            Ok(None) => report.find(name, format!("{id} is not here"), Advice::Restore),
            Err(RecordError::Read(error)) => return Err(error),
            // Found where the jobs are looked at.
            Err(_) => {}
        }
        Ok(())
    })
}

/// What stands for a job, if it was pruned.
pub(super) fn stone(
    store: &dyn Snapshot,
    id: JobId,
    report: &mut Report,
) -> Result<Option<Stone>, ReadError> {
    Ok(report.take(Key::Pruned(id), retention::stone(store, id), Advice::Restore)?.flatten())
}

/// Records of jobs that are not here, but for the bills of those that were pruned.
fn without_job(store: &dyn Snapshot, family: Family, report: &mut Report) -> Result<(), ReadError> {
    let mut rest = family.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        let id = entry.key[family.prefix().len()..].first_chunk().copied().map(JobId);
        let Some(id) = id else {
            rest.start = pages::after(&entry.key);
            continue;
        };
        if store.get(&Key::Job(id).encode())?.is_none() {
            let name = label::of_bytes(&entry.key);
            match stone(store, id, report)? {
                // The hub goes on with what is left.
                Some(stone) if stone.rest || family == Family::Bills => {}
                Some(_) => report.find(name, format!("{id} was pruned, and this is left"), Advice::Restore),
                None => report.find(name, format!("{id} is not here"), Advice::Restore),
            }
        }
        rest.start = KeyRange::prefix([family.prefix(), &id.0].concat()).end;
    }
    Ok(())
}

fn job(store: &dyn Snapshot, id: JobId, stored: &StoredJob, report: &mut Report) -> Result<(), ReadError> {
    let view = &stored.view;
    if stone(store, id, report)?.is_some() {
        report.find(label::of(Key::Job(id)), "it was pruned, and is here", Advice::Restore);
    }
    if view.id != id {
        report.find(label::of(Key::Job(id)), format!("it is the record of {}", view.id), Advice::Restore);
    }
    let manifest = records::read_manifest(store, id);
    let manifest = report.take(Key::Manifest(id), manifest, Advice::Restore)?;
    if manifest.is_some_and(|manifest| manifest.digest() != view.manifest_digest) {
        report.find(label::of(Key::Manifest(id)), "it is not the one that its job names", Advice::Restore);
    }
    match view.state {
        JobState::Done => done(store, view, report)?,
        JobState::Queued | JobState::Running => open(store, id, stored, report)?,
        JobState::Failed | JobState::Cancelled => {}
    }
    if view.state != JobState::Done && records::read_result(store, id).is_ok_and(|result| result.is_some()) {
        report.find(label::of(Key::Result(id)), "its job has not ended with one", Advice::Restore);
    }
    Ok(())
}

fn open(store: &dyn Snapshot, id: JobId, stored: &StoredJob, report: &mut Report) -> Result<(), ReadError> {
    // What recovers a job stops the hub where its bill does not balance, which is a finding of its own.
    match records::read_bill(store, id) {
        Ok(bill) if bill.as_ref().is_none_or(|bill| bill.imbalance().is_none()) => {}
        Err(RecordError::Read(error)) if !matches!(error, ReadError::TornValue { .. }) => return Err(error),
        Ok(_) | Err(_) => return Ok(()),
    }
    let opened = records::open_job(store, stored);
    let Some((job, progress)) = report.take(Key::Job(id), opened, Advice::Restore)? else { return Ok(()) };
    wanted(store, &job, report)?;
    for product in progress.iter().flat_map(|progress| progress.products.values()) {
        files::wants(store, Key::Progress(id), product.blake3, product.bytes, report)?;
    }
    Ok(())
}

/// The files that an open job reads.
fn wanted(store: &dyn Snapshot, job: &NewJob, report: &mut Report) -> Result<(), ReadError> {
    for (input, bytes) in job.plan.inputs() {
        files::wants(store, Key::Job(job.id), input, bytes, report)?;
    }
    Ok(())
}

/// What of a result document names files.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Document {
    output: Option<TheFile>,
    outputs: Vec<Output>,
}

/// The file of a matrix job.
#[derive(serde::Deserialize)]
struct TheFile {
    blake3: Digest,
}

fn done(store: &dyn Snapshot, view: &JobView, report: &mut Report) -> Result<(), ReadError> {
    let (id, key) = (view.id, Key::Result(view.id));
    let result = records::read_result(store, id);
    let Some(result) = report.take(key, result, Advice::Restore)? else { return Ok(()) };
    let Some(result) = result else {
        report.find(label::of(key), "its job is done, and it is not here", Advice::Restore);
        return Ok(());
    };
    if view.digest != Some(Digest::of(&result)) {
        report.find(label::of(key), "its bytes are not those of the job's digest", Advice::Restore);
        return Ok(());
    }
    let document: Document = serde_json::from_slice(&result).unwrap_or_default();
    if let Some(TheFile { blake3 }) = document.output {
        matrix(store, id, blake3, report)?;
    }
    for output in &document.outputs {
        files::output(store, key, output, report)?;
    }
    let progress = records::read_progress(store, id);
    match report.take(Key::Progress(id), progress, Advice::Restore)?.flatten() {
        Some(progress) if progress.tally.is_none() => {
            let says = "the job is done, and the tally that it could be extended by is not here";
            report.find(label::of(Key::Progress(id)), says, Advice::Restore);
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// The tiles of a done matrix job, put together as a client gets them.
fn matrix(store: &dyn Snapshot, id: JobId, expected: Digest, report: &mut Report) -> Result<(), ReadError> {
    let cut = Key::Tile { job: id, tile: records::CUT };
    let Some(task) = report.take(cut, records::read_cut(store, id), Advice::Restore)? else { return Ok(()) };
    let Some(task) = task else {
        report.find(label::of(cut), "how the tiles of a done job are cut is not here", Advice::Restore);
        return Ok(());
    };
    match report.take(cut, output::digest(store, id, &task), Advice::Restore)? {
        Some((found, _)) if found != expected => {
            let says = "the tiles are not those of the digest in the job's result";
            report.find(label::of(cut), says, Advice::Restore);
        }
        Some(_) | None => {}
    }
    Ok(())
}
