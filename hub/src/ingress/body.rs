//! How a request body becomes a document: bounded in size, time and memory, then read as JSON.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use serde::de::{DeserializeOwned, IgnoredAny};
use tessera_protocol::limits::BODY_BYTES_MAX;
use tessera_protocol::spec::{self, JobSpec, Manifest};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::limits::Limits;
use super::problem::{Code, Refusal};

/// One permit of the body memory. *Units*: bytes.
const SHARE_BYTES: usize = 4 << 10;

/// The memory that large bodies share, [`Limits::bodies_bytes_max`] in all. When it is full, bodies
/// wait in line for as long as a body may take.
pub(super) struct BodyMemory(Semaphore);

impl BodyMemory {
    pub(super) fn new(limits: &Limits) -> BodyMemory {
        // Less than one largest body would never admit one.
        BodyMemory(Semaphore::new(limits.bodies_bytes_max.max(BODY_BYTES_MAX).div_ceil(SHARE_BYTES)))
    }
}

/// The bytes of a body, with its share of the memory for as long as they are held.
pub(super) struct HeldBody<'a> {
    pub(super) bytes: Vec<u8>,
    _share: Option<SemaphorePermit<'a>>,
}

/// Reads a body that must be declared as JSON.
pub(super) async fn read<'a>(
    memory: &'a BodyMemory,
    limits: &Limits,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<HeldBody<'a>, Refusal> {
    check_content_type(headers)?;
    let declared = body.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let bytes_max = declared.map_or(BODY_BYTES_MAX, |bytes| bytes as usize);
    let deadline = Instant::now() + limits.body_time_max;
    let share = match bytes_max {
        small if small <= limits.small_body_bytes_max => None,
        large => Some(reserve(memory, large, deadline).await?),
    };
    let mut bytes = Vec::new();
    loop {
        let frame = timeout_at(deadline, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
        let frame = frame.await.map_err(|_| {
            let detail = format!("{} bytes came within {} s", bytes.len(), limits.body_time_max.as_secs());
            Refusal::new(Code::BodyTimeout, detail)
        })?;
        match frame {
            None => return Ok(HeldBody { bytes, _share: share }),
            Some(Err(error)) => return Err(Refusal::new(Code::BodyMalformed, error.to_string())),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > bytes_max {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

async fn reserve(
    memory: &BodyMemory,
    bytes: usize,
    deadline: Instant,
) -> Result<SemaphorePermit<'_>, Refusal> {
    let shares = bytes.div_ceil(SHARE_BYTES) as u32;
    match timeout_at(deadline, memory.0.acquire_many(shares)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => {
            Err(Refusal::new(Code::HubUnavailable, "other clients are sending too many large bodies"))
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("(not text)"));
    let essence = value.and_then(|value| value.split(';').next()).map_or("", str::trim);
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = match value {
        Some(value) => format!("Content-Type is `{value}`"),
        None => "there is no Content-Type".to_owned(),
    };
    Err(Refusal::new(Code::ContentTypeUnsupported, detail))
}

fn too_large() -> Refusal {
    Refusal::new(Code::BodyTooLarge, format!("the body is larger than {BODY_BYTES_MAX} bytes"))
}

/// Reads a job specification and checks every field.
pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, Refusal> {
    check_syntax(bytes)?;
    JobSpec::from_json(bytes).and_then(JobSpec::check).map_err(Refusal::spec)
}

/// Reads any other document, naming the field that is wrong.
pub(super) fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    check_syntax(bytes)?;
    spec::read(&mut serde_json::Deserializer::from_slice(bytes)).map_err(Refusal::spec)
}

/// Tells a document that is not JSON from one whose fields are wrong.
fn check_syntax(bytes: &[u8]) -> Result<(), Refusal> {
    let malformed = |detail: String| Refusal::new(Code::JsonMalformed, detail);
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(format!("not UTF-8: {error}")))?;
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| malformed(error.to_string()))
}
