//! What every request passes: its number, its key, its place in the log and in the counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::Instrument;

use super::Backend;
use super::body::BodyMemory;
use super::keys::ApiKey;
use super::limits::Limits;
use super::metrics::{Counts, Gauges};
use super::problem::{Code, Refusal};
use super::signed::is_opened_by_signature;

/// What the requests of one listener share.
pub(super) struct Door {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) limits: Arc<Limits>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) bodies: BodyMemory,
    counts: Counts,
    metrics_open: bool,
    requests: AtomicU64,
    run: u32,
}

/// Names a request in the log and in `X-Request-Id`. Unique within the listener's life; the first
/// half tells lives apart.
#[derive(Clone, Copy)]
struct RequestId {
    run: u32,
    number: u64,
}

impl Door {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        limits: Limits,
        stopping: watch::Receiver<bool>,
        metrics_open: bool,
    ) -> Door {
        let mut run = [0; 4];
        // It only tells logs apart: without entropy every life is number zero.
        let _ = getrandom::fill(&mut run);
        Door {
            backend,
            stopping,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            bodies: BodyMemory::new(&limits),
            limits: Arc::new(limits),
            counts: Counts::default(),
            metrics_open,
            requests: AtomicU64::new(0),
            run: u32::from_be_bytes(run),
        }
    }

    /// The metrics of the hub and of its HTTP API.
    pub(super) fn metrics(&self) -> String {
        let gauges = Gauges {
            connections: self.limits.connections_max - self.connections.available_permits(),
            streams: self.limits.streams_max - self.streams.available_permits(),
        };
        let mut text = self.backend.metrics();
        self.counts.render(&gauges, &mut text);
        text
    }

    /// Waits for the hub, but not for ever.
    pub(super) async fn answer<T, E>(&self, reply: impl Future<Output = Result<T, E>>) -> Result<T, Refusal>
    where
        Refusal: From<E>,
    {
        match tokio::time::timeout(self.limits.answer_time_max, reply).await {
            Ok(answer) => Ok(answer?),
            Err(_) => {
                let detail = format!("no answer within {} s", self.limits.answer_time_max.as_secs_f32());
                Err(Refusal::new(Code::AnswerTimeout, detail))
            }
        }
    }

    /// A place for one more event stream.
    pub(super) fn stream_place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(Code::StreamsFull, format!("{} event streams are open", self.limits.streams_max))
        })
    }

    async fn check_key(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(Refusal::new(Code::KeyMissing, "there is no Authorization header"));
        };
        let Some((scheme, key)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return Err(Refusal::new(Code::KeyMissing, "the Authorization header is not `Bearer KEY`"));
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::new(Code::KeyMissing, "the Authorization header is not `Bearer KEY`"));
        }
        match ApiKey::parse(key.trim()) {
            None => Err(Refusal::new(Code::KeyWrong, "this is not the text of an API key")),
            Some(key) if self.backend.key_is_valid(&key.hash()) => Ok(()),
            // Another hub on the store may have made it since.
            Some(key) if self.backend.find_key(key.hash()).await => Ok(()),
            Some(_) => Err(Refusal::new(Code::KeyWrong, "this hub does not know the key")),
        }
    }
}

/// Jobs, agents and tokens need a key wherever the listener is; metrics do unless they are open.
fn needs_key(path: &str, metrics_open: bool) -> bool {
    (path.starts_with("/v1/") && !is_opened_by_signature(path)) || (path == "/metrics" && !metrics_open)
}

/// The middleware around every route, known or not.
pub(super) async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let id = RequestId { run: door.run, number: door.requests.fetch_add(1, Ordering::Relaxed) };
    let started = Instant::now();
    let route =
        request.extensions().get::<MatchedPath>().map_or("(none)".into(), |path| path.as_str().to_owned());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", %id, %method, path);
    let checked = match needs_key(&path, door.metrics_open) {
        true => door.check_key(request.headers()).await,
        false => Ok(()),
    };
    let mut response = match checked {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(refusal) => refusal.into_response(),
    };
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert("x-request-id", value);
    }
    let (status, took) = (response.status(), started.elapsed());
    span.in_scope(|| tracing::info!(status = status.as_u16(), took_us = took.as_micros() as u64, "answered"));
    door.counts.record(&route, &method, status, took);
    response
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:08x}{:08x}", self.run, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::needs_key;

    #[test]
    fn metrics_need_a_key_where_strangers_can_ask() {
        assert!(needs_key("/metrics", false) && !needs_key("/metrics", true));
        assert!(needs_key("/v1/jobs", true) && needs_key("/v1/jobs:plan", true));
        assert!(!needs_key("/healthz", false) && !needs_key("/openapi.json", false));
    }
}
