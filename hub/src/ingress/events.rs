//! Server-sent events of one job: its present state, then its changes, until it ended.
//!
//! Owns the pace and the text of a stream. It reads one watch channel and keeps no backlog: a slow
//! client misses states in between and gets the latest as soon as it reads again, apart from what
//! its socket already holds. *Source*: WHATWG HTML, section 9.2.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use tessera_protocol::api::JobView;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::limits::Limits;

/// A stream's source.
pub(super) struct Feed {
    pub(super) job: watch::Receiver<Arc<JobView>>,
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) limits: Arc<Limits>,
    /// Its place among the streams, given back with the stream.
    pub(super) _place: OwnedSemaphorePermit,
}

struct State {
    feed: Feed,
    sent: u64,
    last: Option<(Instant, Arc<JobView>)>,
}

type Step = Option<(Bytes, State)>;

/// A body whose next piece is made when the connection has room for it, and not before.
struct EventBody {
    next: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
}

/// The stream as a response.
pub(super) fn respond(feed: Feed) -> Response {
    let state = State { feed, sent: 0, last: None };
    let body = EventBody { next: Some(Box::pin(state.step())) };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Else nginx collects the stream before it passes it on.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::new(body)).into_response()
}

impl HttpBody for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = self.next.as_mut() else {
            return Poll::Ready(None);
        };
        let step = ready!(next.as_mut().poll(cx));
        let (bytes, rest) = match step {
            Some((bytes, state)) => (Some(bytes), Some(state.step())),
            None => (None, None),
        };
        self.next = rest.map(|step| Box::pin(step) as _);
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl State {
    /// The next piece of the stream and what follows it; `None` at its end.
    async fn step(mut self) -> Step {
        let Some((sent_at, last)) = self.last.clone() else {
            let view = self.feed.job.borrow_and_update().clone();
            return Some(self.event(view));
        };
        if !last.state.is_open() {
            return None;
        }
        let mut stopping = self.feed.stopping.clone();
        let stopped = stopping.wait_for(|stopping| *stopping);
        tokio::select! {
            _ = stopped => None,
            step = self.change(sent_at, last) => step,
        }
    }

    async fn change(mut self, sent_at: Instant, last: Arc<JobView>) -> Step {
        // An end is told at once; of all else the latest, when the gap is over.
        let ended = self.feed.job.wait_for(|view| !view.state.is_open());
        let _ = timeout_at(sent_at + self.feed.limits.event_gap, ended).await;
        let mut view = self.feed.job.borrow_and_update().clone();
        if Arc::ptr_eq(&view, &last) {
            match timeout(self.feed.limits.keep_alive_gap, self.feed.job.changed()).await {
                Err(_) => return Some((Bytes::from_static(b": still here\n\n"), self)),
                // Nobody publishes this job any more.
                Ok(Err(_)) => return None,
                Ok(Ok(())) => view = self.feed.job.borrow_and_update().clone(),
            }
        }
        Some(self.event(view))
    }

    fn event(mut self, view: Arc<JobView>) -> (Bytes, State) {
        self.sent += 1;
        let data = serde_json::to_string(&*view).unwrap_or_default();
        let mut text = String::with_capacity(data.len() + 64);
        if self.sent == 1 {
            // Says how soon a browser comes back. Units: milliseconds.
            text.push_str("retry: 2000\n");
        }
        // Writing into a String cannot fail.
        let _ = write!(text, "event: job\nid: {}\ndata: {data}\n\n", self.sent);
        self.last = Some((Instant::now(), view));
        (Bytes::from(text), self)
    }
}
