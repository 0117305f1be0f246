//! Input files coming in over HTTP, piece by piece: never whole in memory, and an upload that was cut off goes on
//! from the pieces that are here.
//!
//! Owns what a client may send of a file and when the file counts as here. What is kept of it, and how long, is
//! the business of [`inputs`](crate::inputs).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use blake3::Hasher;
use bytes::Bytes;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::spec::{DEFAULT_PROJECT, is_project};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use super::backend::{Claim, Outage};
use super::door::Door;
use super::problem::{Code, Refusal};
use crate::inputs::{INPUT_BYTES_MAX, Piece, Presence, UPLOADS_MAX, UploadRefused};

/// The header that says how much of a file is here. *Units*: bytes.
pub(super) const RECEIVED: &str = "tessera-input-received";
/// The header that says towards which project's quota a file counts.
const PROJECT: &str = "tessera-project";

/// The part of a file that a request brings: from a byte to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    /// The first byte; the client says that those before are here.
    from: u64,
    /// How long the whole file is. *Units*: bytes.
    declared: u64,
    /// Whether the client knows what is here; otherwise it starts anew.
    goes_on: bool,
}

/// What a request may upload.
#[derive(Debug)]
pub(super) struct Permit {
    /// Towards whose quota it counts.
    pub(super) project: String,
    /// How long the file must be, where that was signed. *Units*: bytes.
    pub(super) bytes: Option<u64>,
}

/// An upload that was refused, and how much of the file is here where that helps.
struct Refused {
    refusal: Refusal,
    received: Option<u64>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, received: None }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.refusal.into_response();
        if let Some(received) = self.received {
            response.headers_mut().insert(RECEIVED, HeaderValue::from(received));
        }
        response
    }
}

/// Takes an input in: 200 when it was here, 201 when it is now.
///
/// It goes on when its client has gone, until it has stored what came of the file, or removed what is wrong.
pub(super) async fn take(
    door: Arc<Door>,
    input: Digest,
    permit: Permit,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut rest_is_unread = !body.is_end_stream();
    let taking = async move { take_rest(&door, input, permit, &headers, body).await };
    let taken = match tokio::spawn(taking.in_current_span()).await {
        Ok(taken) => taken,
        Err(_) => Err(Refusal::from(Outage::Unavailable).into()),
    };
    rest_is_unread &= !matches!(taken, Ok(StatusCode::CREATED));
    let mut response = taken.into_response();
    if rest_is_unread {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn take_rest(
    door: &Door,
    input: Digest,
    Permit { project, bytes }: Permit,
    headers: &HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    let claim = |bytes| door.answer(door.backend.claim_input(input, project.clone(), bytes));
    if let Presence::Whole(bytes) = door.answer(door.backend.input(input)).await?
        && let Claim::Here = claim(bytes).await?
    {
        return Ok(StatusCode::OK);
    }
    let rest = rest(headers, body.size_hint().exact())?;
    if let Some(bytes) = bytes.filter(|bytes| *bytes != rest.declared) {
        let detail =
            format!("the URL was signed for a file of {bytes} bytes, and this has {}", rest.declared);
        return Err(Refusal::new(Code::UrlInvalid, detail).into());
    }
    let room = match claim(rest.declared).await? {
        Claim::Here => return Ok(StatusCode::OK),
        Claim::Wanted(room) => room,
    };
    let _place = door.backend.begin_upload(input).map_err(|refused| match refused {
        UploadRefused::Busy => Refusal::new(Code::InputBusy, format!("{input} is on its way already")),
        UploadRefused::Full => {
            Refusal::new(Code::UploadsFull, format!("{UPLOADS_MAX} uploads are under way"))
        }
    })?;
    // It may have come between the look and the place; from here on nobody else brings it.
    let presence = door.answer(door.backend.input(input)).await?;
    if let Presence::Whole(bytes) = presence {
        drop(room);
        if let Claim::Here = claim(bytes).await? {
            return Ok(StatusCode::OK);
        }
        return Err(Refusal::new(Code::InputBusy, format!("{input} was here a moment ago")).into());
    }
    check_offset(presence, rest)?;
    let found = receive(door, input, rest, body).await?;
    if found == (input, rest.declared) {
        door.answer(door.backend.end_upload(input, Some((rest.declared, room)))).await?;
        return Ok(StatusCode::CREATED);
    }
    // What cannot be removed now is overwritten by the next upload of the same file, or removed at the next
    // start. A file of gigabytes takes longer than other answers may.
    let _ = door.backend.end_upload(input, None).await;
    Err(Refusal::new(Code::InputDiffers, format!("the BLAKE3 of the {} bytes is {}", found.1, found.0))
        .into())
}

/// The project that a request is for.
pub(super) fn project(headers: &HeaderMap) -> Result<String, Refusal> {
    let Some(value) = headers.get(PROJECT) else { return Ok(DEFAULT_PROJECT.to_owned()) };
    let named = value.to_str().ok().filter(|name| is_project(name));
    named.map(str::to_owned).ok_or_else(|| {
        let said = String::from_utf8_lossy(value.as_bytes());
        Refusal::new(Code::ProjectInvalid, format!("`{PROJECT}: {said}` names no project"))
    })
}

/// What a request says that it brings.
fn rest(headers: &HeaderMap, content_length: Option<u64>) -> Result<Rest, Refusal> {
    let Some(length) = content_length.filter(|bytes| *bytes > 0) else {
        let said = content_length.map_or("there is no Content-Length", |_| "the body is empty");
        return Err(Refusal::new(Code::InputLength, said));
    };
    let range = headers.get(header::CONTENT_RANGE);
    let rest = match range {
        None => Some(Rest { from: 0, declared: length, goes_on: false }),
        Some(range) => range
            .to_str()
            .ok()
            .and_then(parse_range)
            .filter(|rest| rest.from.checked_add(length) == Some(rest.declared)),
    };
    let Some(rest) = rest else {
        let range = range.map(|range| String::from_utf8_lossy(range.as_bytes())).unwrap_or_default();
        let detail =
            format!("`Content-Range: {range}` is not the end of a file, {length} bytes of which follow");
        return Err(Refusal::new(Code::RangeInvalid, detail));
    };
    if rest.declared > INPUT_BYTES_MAX {
        let detail = format!("the file has {} bytes, and an input at most {INPUT_BYTES_MAX}", rest.declared);
        return Err(Refusal::new(Code::InputTooLarge, detail));
    }
    Ok(rest)
}

/// Reads `bytes N-M/T` where M is the last byte of T. *Source*: RFC 9110, section 14.4.
fn parse_range(text: &str) -> Option<Rest> {
    let (unit, range) = text.split_once(' ')?;
    let (range, declared) = range.split_once('/')?;
    let (from, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (from, last, declared): (u64, u64, u64) = (number(from)?, number(last)?, number(declared)?);
    let is_end = unit.eq_ignore_ascii_case("bytes") && from <= last && last.checked_add(1) == Some(declared);
    is_end.then_some(Rest { from, declared, goes_on: true })
}

/// Whether a request goes on from where the file does.
fn check_offset(presence: Presence, rest: Rest) -> Result<(), Refused> {
    let received = presence.received();
    let refuse =
        |detail| Err(Refused { refusal: Refusal::new(Code::InputOffset, detail), received: Some(received) });
    match presence {
        _ if !rest.goes_on => Ok(()),
        _ if rest.from != received => refuse(format!(
            "{received} bytes of the file are here, and the request goes on from {}",
            rest.from
        )),
        Presence::Part(unfinished) if rest.from > 0 && unfinished.declared != rest.declared => {
            refuse(format!(
                "the file was said to have {} bytes and now {}: one digest has one length",
                unfinished.declared, rest.declared
            ))
        }
        Presence::Absent | Presence::Part(_) | Presence::Whole(_) => Ok(()),
    }
}

/// Stores the pieces that come; says the digest and length of the whole file as it lies here then.
async fn receive(door: &Door, input: Digest, part: Rest, mut body: Body) -> Result<(Digest, u64), Refusal> {
    let (mut hasher, mut received) = (Hasher::new(), part.from);
    let mut number = part.from / INPUT_PIECE_BYTES;
    let mut rest = Bytes::new();
    loop {
        let bytes = next_piece(door, &mut body, &mut rest).await?;
        if bytes.is_empty() {
            break;
        }
        let whole_or_last =
            received + bytes.len() as u64 == part.declared || bytes.len() as u64 == INPUT_PIECE_BYTES;
        received += bytes.len() as u64;
        if !whole_or_last {
            break;
        }
        if part.from == 0 {
            hasher.update(&bytes);
        }
        let piece = Piece { number, bytes, declared: part.declared };
        door.answer(door.backend.put_piece(input, piece)).await?;
        number += 1;
    }
    if received != part.declared {
        let detail = format!("{received} of {} bytes came", part.declared);
        return Err(Refusal::new(Code::BodyMalformed, detail));
    }
    if part.from > 0 {
        hasher = hash_stored(door, input, number).await?;
    }
    Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()))
}

/// Hashes a file of so many pieces as it lies here, each off the thread that serves others. Ends early where a
/// piece is missing, so that the digest is another.
async fn hash_stored(door: &Door, input: Digest, pieces: u64) -> Result<Hasher, Refusal> {
    let mut hasher = Hasher::new();
    for piece in 0..pieces {
        match door.answer(door.backend.hash_piece(input, piece, hasher.clone())).await? {
            Some(further) => hasher = further,
            None => break,
        }
    }
    Ok(hasher)
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
