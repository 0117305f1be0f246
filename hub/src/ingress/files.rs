//! Files over HTTP: inputs coming in, piece by piece, and outputs going out. Neither is ever whole in memory.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::backend::{Outage, OutputFile};
use super::door::Door;
use super::problem::{Code, Refusal};
use crate::inputs::{INPUT_BYTES_MAX, UPLOADS_MAX, UploadRefused};

/// Takes an input in: 200 when it was here, 201 when it is now.
///
/// It goes on when its client has gone, until it has removed what came of the file.
pub(super) async fn take(door: Arc<Door>, input: Digest, body: Body) -> Response {
    let mut rest_is_unread = !body.is_end_stream();
    let taking = async move { take_whole(&door, input, body).await };
    let taken = match tokio::spawn(taking.in_current_span()).await {
        Ok(taken) => taken,
        Err(_) => Err(Outage::Unavailable.into()),
    };
    rest_is_unread &= !matches!(taken, Ok(StatusCode::CREATED));
    let mut response = taken.into_response();
    if rest_is_unread {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn take_whole(door: &Door, input: Digest, body: Body) -> Result<StatusCode, Refusal> {
    if door.answer(door.backend.input(input)).await?.is_some() {
        return Ok(StatusCode::OK);
    }
    let length = body.size_hint().exact();
    let Some(declared) = length.filter(|bytes| (1..=INPUT_BYTES_MAX).contains(bytes)) else {
        let said = length.map_or("there is no Content-Length".to_owned(), |bytes| format!("{bytes} bytes"));
        return Err(Refusal::new(Code::InputLength, format!("{said}: from 1 to {INPUT_BYTES_MAX}")));
    };
    let _place = door.backend.begin_upload(input).map_err(|refused| match refused {
        UploadRefused::Busy => Refusal::new(Code::InputBusy, format!("{input} is on its way already")),
        UploadRefused::Full => {
            Refusal::new(Code::UploadsFull, format!("{UPLOADS_MAX} uploads are under way"))
        }
    })?;
    // It may have come between the look and the place; from here on nobody else brings it.
    if door.answer(door.backend.input(input)).await?.is_some() {
        return Ok(StatusCode::OK);
    }
    let received = receive(door, input, declared, body).await;
    if received.is_ok() {
        door.answer(door.backend.end_upload(input, Some(declared))).await?;
        return Ok(StatusCode::CREATED);
    }
    // What cannot be removed now is overwritten by the next upload of the same file, or removed at the
    // next start.
    let _ = door.backend.end_upload(input, None).await;
    received.map(|()| StatusCode::CREATED)
}

async fn receive(door: &Door, input: Digest, declared: u64, mut body: Body) -> Result<(), Refusal> {
    let (mut hasher, mut received) = (blake3::Hasher::new(), 0);
    let mut pieces = 0;
    let mut rest = Bytes::new();
    loop {
        let piece = next_piece(door, &mut body, &mut rest).await?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
        received += piece.len() as u64;
        door.answer(door.backend.put_piece(input, pieces, piece)).await?;
        pieces += 1;
    }
    let found = Digest(*hasher.finalize().as_bytes());
    match (received == declared, found == input) {
        (false, _) => Err(Refusal::new(Code::BodyMalformed, format!("{received} of {declared} bytes came"))),
        (true, false) => Err(Refusal::new(Code::InputDiffers, format!("the body's BLAKE3 is {found}"))),
        (true, true) => Ok(()),
    }
}

/// The next piece of a body, shorter only at its end; `rest` is what came with the piece before.
async fn next_piece(door: &Door, body: &mut Body, rest: &mut Bytes) -> Result<Vec<u8>, Refusal> {
    let limits = &door.limits;
    let deadline = Instant::now() + limits.piece_time_max;
    let mut piece = Vec::new();
    loop {
        let room = INPUT_PIECE_BYTES as usize - piece.len();
        piece.extend_from_slice(&rest.split_to(room.min(rest.len())));
        if piece.len() as u64 == INPUT_PIECE_BYTES {
            return Ok(piece);
        }
        let patience = deadline.min(Instant::now() + limits.body_time_max);
        let frame = timeout_at(patience, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        let frame = frame.await.map_err(|_| {
            let (idle, whole) = (limits.body_time_max.as_secs_f32(), limits.piece_time_max.as_secs_f32());
            let detail =
                format!("nothing came for {idle} s, or less than {INPUT_PIECE_BYTES} bytes within {whole} s");
            Refusal::new(Code::BodyTimeout, detail)
        })?;
        match frame {
            None => return Ok(piece),
            Some(Err(error)) => return Err(Refusal::new(Code::BodyMalformed, error.to_string())),
            Some(Ok(frame)) => *rest = frame.into_data().unwrap_or_default(),
        }
    }
}

/// Whether an input is here.
pub(super) async fn look(door: &Door, input: Digest) -> Result<Response, Refusal> {
    match door.answer(door.backend.input(input)).await? {
        Some(bytes) => Ok([("tessera-input-bytes", bytes.to_string())].into_response()),
        None => Err(Refusal::new(Code::InputUnknown, format!("there is no input {input}"))),
    }
}

/// Sends an input file.
pub(super) async fn give_input(door: &Door, input: Digest) -> Result<Response, Refusal> {
    match door.answer(door.backend.input_file(input)).await? {
        Some(file) => {
            Ok(([("tessera-input-bytes", file.bytes.to_string())], give(file, false)).into_response())
        }
        None => Err(Refusal::new(Code::InputUnknown, format!("there is no input {input}"))),
    }
}

/// Sends a file, unless the client has it.
pub(super) fn give(output: OutputFile, has_it: bool) -> Response {
    let OutputFile { bytes, digest, pieces } = output;
    let described = [
        (header::ETAG, format!("\"{digest}\"")),
        (header::HeaderName::from_static("tessera-digest"), digest.to_string()),
        (header::CACHE_CONTROL, "private, immutable".to_owned()),
    ];
    if has_it {
        return (StatusCode::NOT_MODIFIED, described).into_response();
    }
    let file = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    (described, file, Body::new(Pieces(pieces))).into_response()
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
