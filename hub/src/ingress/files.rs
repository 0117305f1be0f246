//! Files going out over HTTP, inputs and outputs, a piece at a time: none is ever whole in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tessera_protocol::id::Digest;
use tokio::sync::mpsc;

use super::backend::OutputFile;
use super::door::Door;
use super::problem::{Code, Refusal};
use super::upload::RECEIVED;
use crate::inputs::Presence;

/// Whether an input is here, and how much of it.
pub(super) async fn look(door: &Door, input: Digest) -> Result<Response, Refusal> {
    let presence = door.answer(door.backend.input(input)).await?;
    let received = [(RECEIVED, presence.received().to_string())];
    Ok(match presence {
        Presence::Whole(bytes) => (received, [("tessera-input-bytes", bytes.to_string())]).into_response(),
        Presence::Part(_) | Presence::Absent => {
            (received, Refusal::new(Code::InputUnknown, format!("there is no input {input}"))).into_response()
        }
    })
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
