//! Files over HTTP: inputs coming in, piece by piece, and outputs going out. Neither is ever whole in memory.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::backend::OutputFile;
use super::door::Door;
use super::problem::{Code, Refusal};
use crate::inputs::{INPUT_BYTES_MAX, UploadRefused};

/// Takes an input in: 200 when it was here, 201 when it is now.
pub(super) async fn take(door: &Door, input: Digest, body: Body) -> Result<Response, Refusal> {
    if door.answer(door.backend.input(input)).await?.is_some() {
        return Ok(StatusCode::OK.into_response());
    }
    let declared = body.size_hint().exact().filter(|bytes| (1..=INPUT_BYTES_MAX).contains(bytes));
    let Some(declared) = declared else {
        return Err(Refusal::new(Code::InputLength, format!("a length from 1 to {INPUT_BYTES_MAX} bytes")));
    };
    let _place = door.backend.begin_upload(input).map_err(|refused| match refused {
        UploadRefused::Busy => Refusal::new(Code::InputBusy, format!("{input} is on its way already")),
        UploadRefused::Full => Refusal::new(Code::UploadsFull, "other clients are uploading"),
    })?;
    match receive(door, input, declared, body).await {
        Ok(()) => {
            door.answer(door.backend.end_upload(input, Some(declared))).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Err(refusal) => {
            // What cannot be removed now is overwritten by the next upload of the same file.
            let _ = door.backend.end_upload(input, None).await;
            Err(refusal)
        }
    }
}

async fn receive(door: &Door, input: Digest, declared: u64, mut body: Body) -> Result<(), Refusal> {
    let (mut hasher, mut piece, mut pieces) = (blake3::Hasher::new(), Vec::new(), 0);
    let mut store = async |piece: Vec<u8>, hasher: &mut blake3::Hasher| {
        hasher.update(&piece);
        pieces += 1;
        door.answer(door.backend.put_piece(input, pieces - 1, piece)).await
    };
    let mut received = 0;
    loop {
        let frame = timeout(door.limits.body_time_max, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
        let frame = frame.await.map_err(|_| {
            let detail = format!("nothing came for {} s", door.limits.body_time_max.as_secs());
            Refusal::new(Code::BodyTimeout, detail)
        })?;
        let mut data = match frame {
            None => break,
            Some(Err(error)) => return Err(Refusal::new(Code::BodyMalformed, error.to_string())),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        received += data.len() as u64;
        while !data.is_empty() {
            let room = INPUT_PIECE_BYTES as usize - piece.len();
            piece.extend_from_slice(&data.split_to(room.min(data.len())));
            if piece.len() as u64 == INPUT_PIECE_BYTES {
                store(std::mem::take(&mut piece), &mut hasher).await?;
            }
        }
    }
    if !piece.is_empty() {
        store(piece, &mut hasher).await?;
    }
    let found = Digest(*hasher.finalize().as_bytes());
    match (received == declared, found == input) {
        (false, _) => Err(Refusal::new(Code::BodyMalformed, format!("{received} of {declared} bytes came"))),
        (true, false) => Err(Refusal::new(Code::InputDiffers, format!("the body's BLAKE3 is {found}"))),
        (true, true) => Ok(()),
    }
}

/// Whether an input is here.
pub(super) async fn look(door: &Door, input: Digest) -> Result<Response, Refusal> {
    match door.answer(door.backend.input(input)).await? {
        Some(bytes) => Ok([("tessera-input-bytes", bytes.to_string())].into_response()),
        None => Err(Refusal::new(Code::InputUnknown, format!("there is no input {input}"))),
    }
}

/// Sends a result file.
pub(super) fn give(output: OutputFile) -> Response {
    let OutputFile { bytes, digest, pieces } = output;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
        (header::HeaderName::from_static("tessera-digest"), digest.to_string()),
        (header::CACHE_CONTROL, "private, immutable".to_owned()),
    ];
    (headers, Body::new(Pieces(pieces))).into_response()
}

/// A body that is read as fast as its client takes it.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
