//! Files on their way in and out: pieces of uploads, results as `.npy`, and parts of blobs.
//!
//! Owns how they are read and sent, a piece at a time. Which jobs need them is the business of
//! [`inputs`](crate::inputs).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::matrix::Task;
use tessera_protocol::product::{Output, OutputPart};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Commit, Engine};
use tokio::sync::mpsc;

use super::{Hub, unix_ms};
use crate::blobs::{BlobError, Blobs, Name};
use crate::ingress::backend::{Claim, ClaimError, Outage, OutputFile, ResultError};
use crate::inputs::quota::Reservation;
use crate::inputs::{self, InputError, Piece, Stored, wanted};
use crate::output;
use crate::records;

impl Hub {
    /// Says that a project wants a file: from then on it is kept for a grace period at least.
    pub(super) async fn claim(
        &self,
        input: Digest,
        project: &str,
        declared: u64,
    ) -> Result<Claim, ClaimError> {
        loop {
            let name = project.to_owned();
            let read = self.read(move |store| {
                Ok((inputs::whole(store, input)?, wanted::is_owned(store, input, &name)?))
            });
            let (found, owned) = read.await.map_err(ClaimError::Outage)?;
            let now = UnixMillis(unix_ms());
            let (room, batch) = match found {
                None => {
                    let room = self.quotas.reserve(project, declared).map_err(ClaimError::Full)?;
                    return Ok(Claim::Wanted(room));
                }
                Some(found) if owned => match wanted::use_batch(input, found, now, self.grace) {
                    Some(batch) => (None, batch),
                    None => return Ok(Claim::Here),
                },
                Some(found) => {
                    let room = self.quotas.reserve(project, found.bytes).map_err(ClaimError::Full)?;
                    (Some(room), wanted::owner_batch(input, project, found, now))
                }
            };
            if let Commit::Done = self.judge(batch).await.map_err(ClaimError::Outage)? {
                room.into_iter().for_each(Reservation::keep);
                return Ok(Claim::Here);
            }
            // It has gone, or another request of the project was first: what is it now?
        }
    }

    /// Stores a piece of an upload, and then what tells of it.
    pub(super) async fn store_piece(&self, input: Digest, piece: Piece) -> Result<(), Outage> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Outage::Draining);
        }
        let Piece { number, bytes, declared } = piece;
        let length = bytes.len() as u64;
        let put = self.blobs.begin_put(Name { blob: input, piece: number }, bytes.into()).await;
        let blake3 = put.map_err(|error| outage_of(&error))?;
        let stored = Stored { number, bytes: length, blake3 };
        self.store(inputs::upload_batch(input, &stored, declared, UnixMillis(unix_ms()))).await?;
        self.uploaded_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    /// Removes what came of an upload.
    pub(super) async fn remove_upload(&self, input: Digest) -> Result<(), Outage> {
        loop {
            let (store, blobs) = (self.store.clone(), self.blobs.clone());
            let step = move || inputs::removal_batch(&*store.snapshot()?, &blobs, input);
            match tokio::task::spawn_blocking(step).await {
                Ok(Ok(Some(batch))) => self.store(batch).await?,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => {
                    tracing::error!(%error, %input, "what came of an upload cannot be removed now");
                    return Err(Outage::StoreFailing);
                }
                Err(_) => return Err(Outage::Unavailable),
            }
        }
    }

    pub(super) async fn file(&self, job: JobId) -> Result<OutputFile, ResultError> {
        let document = self.document(job).await?;
        let cut = self.read(move |store| records::read_cut(store, job)).await;
        let Some(task) = cut.map_err(ResultError::Outage)?.map(Arc::new) else {
            return Err(ResultError::NoFile(job));
        };
        let document: serde_json::Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let digest = document["output"]["blake3"].as_str().and_then(|text| text.parse().ok());
        let digest = digest.ok_or(ResultError::Outage(Outage::StoreFailing))?;
        let bytes = tessera_planners::npy_bytes(&task);
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(send_file(self.store.clone(), job, task, sender));
        Ok(OutputFile { bytes, digest, pieces })
    }

    pub(super) async fn named_file(&self, job: JobId, name: String) -> Result<OutputFile, ResultError> {
        let document = self.document(job).await?;
        let document: Outputs = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let found = document.outputs.into_iter().find(|output| output.name == name);
        let Some(output) = found else { return Err(ResultError::NoOutput { job, name }) };
        let (sender, pieces) = mpsc::channel(1);
        tokio::spawn(send_parts(self.shelf(), output.parts, sender));
        Ok(OutputFile { bytes: output.bytes, digest: output.blake3, pieces })
    }

    pub(super) async fn input_pieces(
        &self,
        input: Digest,
        part: Option<Range<u64>>,
    ) -> Result<Option<OutputFile>, Outage> {
        let Some(length) = self.read(move |store| inputs::length(store, input)).await? else {
            return Ok(None);
        };
        let part = part.unwrap_or(0..length);
        let (offset, bytes) = (part.start, part.end.min(length).saturating_sub(part.start));
        let (sender, pieces) = mpsc::channel(1);
        let whole = OutputPart { product: input, product_bytes: length, offset, bytes };
        tokio::spawn(send_parts(self.shelf(), vec![whole], sender));
        Ok(Some(OutputFile { bytes, digest: input, pieces }))
    }

    /// What reading pieces takes.
    pub(super) fn shelf(&self) -> Pieces {
        Pieces { store: self.store.clone(), blobs: self.blobs.clone() }
    }
}

/// Reads a result's file as its client takes it, a part at a time, so that slow clients hold no thread and
/// little memory. Each part has a snapshot of its own: nothing changes the tiles of a finished job, and a
/// snapshot that is kept makes the store grow.
async fn send_file(store: Arc<dyn Engine>, job: JobId, task: Arc<Task>, sender: mpsc::Sender<Bytes>) {
    for part in output::parts(&task) {
        // The client has gone when there is no place any more.
        let Ok(place) = sender.reserve().await else { return };
        let (store, task) = (store.clone(), task.clone());
        let read = tokio::task::spawn_blocking(move || output::read(&*store.snapshot()?, job, &task, &part));
        match read.await {
            Ok(Ok(bytes)) => place.send(bytes.into()),
            Ok(Err(error)) => return tracing::error!(%error, %job, "a result cannot be read"),
            Err(_) => return,
        }
    }
}

/// Reads pieces of blobs.
pub(super) struct Pieces {
    store: Arc<dyn Engine>,
    blobs: Blobs,
}

impl Pieces {
    /// The piece that starts at an offset; nothing where it cannot be read, which is logged.
    async fn read(&self, blob: Digest, offset: u64) -> Option<Bytes> {
        let store = self.store.clone();
        let named = tokio::task::spawn_blocking(move || {
            inputs::piece_name(&*store.snapshot()?, blob, offset).map_err(InputError::from)
        });
        let read = match named.await.ok()? {
            Ok(Some((name, blake3))) => self.blobs.begin_get(name, blake3).await.map_err(InputError::from),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match read {
            Ok(Some(piece)) => return Some(piece),
            Ok(None) => tracing::error!(%blob, offset, "a piece of a blob is not in the store"),
            Err(error) => tracing::error!(%error, %blob, offset, "a piece of a blob cannot be read"),
        }
        None
    }
}

/// Sends parts of blobs as the client takes them, so that slow clients hold no thread and little memory. Ends early
/// where a piece is missing or damaged.
async fn send_parts(pieces: Pieces, parts: Vec<OutputPart>, sender: mpsc::Sender<Bytes>) {
    for OutputPart { product, offset, bytes, .. } in parts {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            // The client has gone when there is no place any more.
            let Ok(place) = sender.reserve().await else { return };
            let start = at % INPUT_PIECE_BYTES;
            let from = at - start;
            let Some(piece) = pieces.read(product, from).await else { return };
            let stop = (end - from).min(piece.len() as u64);
            if stop <= start {
                return tracing::error!(%product, "a blob is shorter than was said");
            }
            place.send(piece.slice(start as usize..stop as usize));
            at = from + stop;
        }
    }
}

/// What clients are told of a failure of the store of blobs, which is logged.
pub(super) fn outage_of(error: &BlobError) -> Outage {
    tracing::error!(%error, "a piece cannot be stored or read");
    match error {
        BlobError::Full(_) => Outage::StoreFull,
        BlobError::Failing(_) | BlobError::Damaged(_) => Outage::StoreFailing,
    }
}

/// What of a result document says which files there are.
#[derive(Default, serde::Deserialize)]
pub(crate) struct Outputs {
    #[serde(default)]
    pub(crate) outputs: Vec<Output>,
}
