//! Files going out over HTTP, inputs and outputs, a piece at a time: none is ever whole in memory.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
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

/// Sends an input file, or the part of it that a client asks for.
pub(super) async fn give_input(door: &Door, input: Digest, headers: &HeaderMap) -> Result<Response, Refusal> {
    let unknown = || Refusal::new(Code::InputUnknown, format!("there is no input {input}"));
    let Presence::Whole(bytes) = door.answer(door.backend.input(input)).await? else { return Err(unknown()) };
    let length =
        [("tessera-input-bytes", bytes.to_string()), (header::ACCEPT_RANGES.as_str(), "bytes".into())];
    let part = match part(headers, input, bytes) {
        Asked::Whole => None,
        Asked::Part(part) => Some(part),
        Asked::Beyond => {
            let refusal = Refusal::new(Code::RangeUnsatisfiable, format!("the file has {bytes} bytes"));
            return Ok(([(header::CONTENT_RANGE, format!("bytes */{bytes}"))], refusal).into_response());
        }
    };
    let file = door.answer(door.backend.input_file(input, part.clone())).await?.ok_or_else(unknown)?;
    let mut response = (length, give(file, false)).into_response();
    if let Some(part) = part
        && let Ok(range) =
            HeaderValue::try_from(format!("bytes {}-{}/{bytes}", part.start, part.end.saturating_sub(1)))
    {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    Ok(response)
}

/// What a client asks for of a file.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    /// A part behind its end.
    Beyond,
}

/// Reads one range of bytes. Several, or what is none, ask for the whole, as they may. *Source*: RFC 9110,
/// sections 13.1.5 and 14.2.
fn part(headers: &HeaderMap, input: Digest, bytes: u64) -> Asked {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|tag| tag != format!("\"{input}\"")) {
        return Asked::Whole;
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else { return Asked::Whole };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let part = match (number(first), number(last)) {
        (None, Some(tail)) if first.is_empty() => bytes.saturating_sub(tail)..bytes,
        (Some(first), None) if last.is_empty() => first..bytes,
        (Some(first), Some(last)) if first <= last => first..bytes.min(last.saturating_add(1)),
        _ => return Asked::Whole,
    };
    if part.is_empty() { Asked::Beyond } else { Asked::Part(part) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str, if_range: Option<&str>) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(tag).unwrap());
        }
        part(&headers, Digest([7; 32]), 1_000)
    }

    #[test]
    fn one_range_is_given_and_whatever_else_is_asked_for_is_the_whole() {
        let parts = [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=990-", 990..1_000),
            ("bytes=-10", 990..1_000),
            ("bytes=-5000", 0..1_000),
            ("bytes=999-18446744073709551615", 999..1_000),
        ];
        for (range, part) in parts {
            assert_eq!(asked(range, None), Asked::Part(part), "{range}");
        }
        for range in ["bytes=1000-", "bytes=5000-6000", "bytes=-0"] {
            assert_eq!(asked(range, None), Asked::Beyond, "{range}");
        }
        for range in [
            "bytes=0-1,3-4",
            "bytes=5-4",
            "bytes=-",
            "lines=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(asked(range, None), Asked::Whole, "{range}");
        }
        let tag = format!("\"{}\"", Digest([7; 32]));
        assert_eq!(asked("bytes=0-0", Some(&tag)), Asked::Part(0..1));
        assert_eq!(asked("bytes=0-0", Some("\"other\"")), Asked::Whole);
    }
}
