//! Requests that another hub on the same store must answer, and questions that all of them are asked.
//!
//! Owns the way from hub to hub: one HTTP/1 connection a request, made with the client's own key and streamed both
//! ways. What a hub sent goes no further, so that nothing goes in circles. It may not touch the store: it asks the
//! backend where things are.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tessera_protocol::id::{HubId, JobId};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::backend::{Peer, Place};
use super::door::Door;
use super::problem::{Code, Refusal};

/// Says that a hub sent a request.
const FORWARDED: HeaderName = HeaderName::from_static("tessera-forwarded");
/// How long connecting to another hub may take: they are near each other.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long another hub may take to say what it has of a list.
const ASK_TIME_MAX: Duration = Duration::from_secs(3);
/// How long the hub that takes files in may be silent over one: it hashes what it has of 16 GiB at 20 MB/s.
const HASH_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Largest such answer. *Units*: bytes. Ten thousand agents take about 6 MB.
const ASKED_BYTES_MAX: usize = 64 << 20;
/// Headers that concern one connection. *Source*: RFC 9110, section 7.6.1; `expect` was answered by this hub.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The middleware that lets another hub answer what is that hub's. Costs a hub that has its store to itself nothing.
pub(super) async fn route(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if !door.backend.is_one_of_many() {
        return next.run(request).await;
    }
    let whose = whose(request.method(), request.uri().path());
    let place = match whose {
        Whose::Owners(job) => door.answer(door.backend.place_of(job)).await,
        Whose::Leaders => Ok(door.backend.leader()),
        Whose::Anyones => Ok(Place::Here),
        Whose::Workers => return hand_over(&door, request, next).await,
    };
    let answer = match place {
        Ok(Place::Here) if is_extension(&request) => return hand_over(&door, request, next).await,
        Ok(Place::Here) => return next.run(request).await,
        Ok(Place::At(peer)) if is_forwarded(request.headers()) => Err(Refusal::new(
            Code::OwnerUnreachable,
            format!("a hub sent this here, but {} has it: it has just moved", peer.id),
        )),
        Ok(Place::At(peer)) => match connect(&peer).await {
            Ok(stream) => pass_on(&door, &peer, stream, request).await,
            Err(error) => Err(unreachable(&peer, &error)),
        },
        Ok(Place::Gone(None)) => {
            Err(Refusal::new(Code::OwnerUnreachable, "no hub does this at the moment: another takes over"))
        }
        Ok(Place::Gone(Some(hub))) => Err(Refusal::new(
            Code::OwnerUnreachable,
            format!("{hub} has the job and is gone: another hub takes it over"),
        )),
        Err(refusal) => Err(refusal),
    };
    answer.unwrap_or_else(Refusal::into_response)
}

/// Gives a new job to a hub that has agents. Where that one does not answer the job waits here for agents to come.
async fn hand_over(door: &Arc<Door>, request: Request, next: Next) -> Response {
    if let Place::At(peer) = door.backend.worker()
        && !is_forwarded(request.headers())
        && let Ok(stream) = connect(&peer).await
    {
        let answer = pass_on(door, &peer, stream, request).await;
        return answer.unwrap_or_else(Refusal::into_response);
    }
    next.run(request).await
}

/// Whether a finished job is to be continued, as a new one.
fn is_extension(request: &Request) -> bool {
    *request.method() == Method::POST && request.uri().path().ends_with(":extend")
}

/// Which hub can answer.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    /// The one that has the job, while it is open.
    Owners(JobId),
    /// The one that leads.
    Leaders,
    /// One that has agents.
    Workers,
    Anyones,
}

fn whose(method: &Method, path: &str) -> Whose {
    // Two hubs that took one file in at once would each write over what the other has checked.
    let is_upload =
        *method == Method::PUT && (path.starts_with("/v1/inputs/") || path.starts_with("/v1/blobs/"));
    if is_upload || (*method == Method::POST && path == "/v1/settlements") {
        return Whose::Leaders;
    }
    if *method == Method::POST && path == "/v1/jobs" {
        return Whose::Workers;
    }
    let job = path.strip_prefix("/v1/jobs/").and_then(|rest| rest.split(['/', ':']).next());
    // What is no id is refused here.
    job.and_then(|text| text.parse().ok()).map_or(Whose::Anyones, Whose::Owners)
}

/// Whether a hub sent a request.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}

async fn pass_on(
    door: &Arc<Door>,
    peer: &Peer,
    stream: TcpStream,
    mut request: Request,
) -> Result<Response, Refusal> {
    let is_stream = request.uri().path().ends_with("/events");
    let place = match is_stream {
        true => Some(door.stream_place()?),
        false => None,
    };
    prepare(&mut request, peer);
    // A little longer than that hub gives itself, so that it is the one that says what took so long.
    let time_max = match *request.method() {
        Method::PUT => HASH_TIME_MAX,
        _ => door.limits.answer_time_max + door.limits.answer_time_max / 4,
    };
    let sent = Arc::<AtomicU64>::default();
    let request = request.map(|body| Body::new(Counted { body, sent: sent.clone() }));
    let answer = match while_sending(&sent, time_max, send(stream, request)).await {
        Some(answer) => answer.map_err(|error| unreachable(peer, &error))?,
        None => {
            let detail = format!("{peer} did not answer within {} s", time_max.as_secs_f32());
            return Err(Refusal::new(Code::AnswerTimeout, detail));
        }
    };
    let (mut head, body) = answer.into_parts();
    drop_hop_by_hop(&mut head.headers);
    let mut stopping = door.stopping.clone();
    let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
    let relay = Relay {
        body,
        silence_max: door.limits.stall_time_max,
        silence: Box::pin(sleep(door.limits.stall_time_max)),
        stopped: is_stream.then(|| Box::pin(stopped) as _),
        _place: place,
    };
    Ok(Response::from_parts(head, Body::new(relay)))
}

/// What comes of a request; nothing once none of it has left for so long, and no answer has come.
async fn while_sending<T>(
    sent: &AtomicU64,
    time_max: Duration,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let before = sent.load(Ordering::Relaxed);
        match timeout(time_max, &mut answer).await {
            Ok(answer) => return Some(answer),
            Err(_) if sent.load(Ordering::Relaxed) > before => {}
            Err(_) => return None,
        }
    }
}

fn unreachable(peer: &Peer, error: &SendError) -> Refusal {
    Refusal::new(Code::OwnerUnreachable, format!("{peer} must answer this, and does not: {error}"))
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.id, self.http)
    }
}

/// Why another hub has not answered.
#[derive(Debug)]
enum SendError {
    Connect(io::Error),
    Late,
    Lost(hyper::Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Connect(error) => write!(f, "{error}"),
            SendError::Late => write!(f, "no connection within {} s", CONNECT_TIME_MAX.as_secs()),
            SendError::Lost(error) => write!(f, "{error}"),
        }
    }
}

async fn connect(peer: &Peer) -> Result<TcpStream, SendError> {
    let stream = match timeout(CONNECT_TIME_MAX, TcpStream::connect(peer.http.as_str())).await {
        Ok(stream) => stream.map_err(SendError::Connect)?,
        Err(_) => return Err(SendError::Late),
    };
    // Small questions must not wait for an acknowledgement. Failing costs only latency.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// The head of another hub's answer, and its body as it comes.
async fn send(stream: TcpStream, request: Request) -> Result<hyper::Response<Incoming>, SendError> {
    let (mut sender, connection) =
        http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(SendError::Lost)?;
    // Ends with the answer's body, or when that is dropped; what breaks it is told there.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(SendError::Lost)
}

/// Makes a client's request one of this hub's to another.
fn prepare(request: &mut Request, peer: &Peer) {
    drop_hop_by_hop(request.headers_mut());
    let headers = request.headers_mut();
    headers.remove(header::EXPECT);
    headers.insert(FORWARDED, HeaderValue::from_static("1"));
    if let Ok(host) = HeaderValue::try_from(peer.http.as_str()) {
        headers.insert(header::HOST, host);
    }
    // A client may have named a whole URL, which is for proxies.
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    *request.version_mut() = Version::HTTP_11;
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The body of a client's request, of which it is counted what has left.
struct Counted {
    body: Body,
    sent: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of another hub's answer.
struct Relay {
    body: Incoming,
    silence_max: Duration,
    silence: Pin<Box<Sleep>>,
    /// For a body that has no end while this hub runs.
    stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Relay {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.stopped.as_mut().is_some_and(|stopped| stopped.as_mut().poll(cx).is_ready()) {
            self.stopped = None;
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let again = Instant::now() + self.silence_max;
            self.silence.as_mut().reset(again);
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        self.silence.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the other hubs say to the same question.
pub(super) struct Answers<T> {
    /// *Order*: by hub.
    pub(super) said: Vec<T>,
    /// Those that did not answer, or with a problem other than that there is no such thing. *Order*: by hub.
    pub(super) silent: Vec<HubId>,
}

/// Asks every other hub what this one was asked; nobody, where a hub asks.
pub(super) async fn ask_all<T: DeserializeOwned>(door: &Door, headers: &HeaderMap, uri: &Uri) -> Answers<T> {
    let peers = if is_forwarded(headers) { Vec::new() } else { door.backend.peers() };
    let mut asking = JoinSet::new();
    for peer in peers.iter().cloned() {
        let (authorization, uri) = (headers.get(header::AUTHORIZATION).cloned(), uri.clone());
        asking.spawn(async move {
            let answer = timeout(ASK_TIME_MAX, ask(&peer, uri, authorization)).await;
            (peer.id, answer.unwrap_or(Asked::Silent))
        });
    }
    let mut answers: Vec<(HubId, Asked)> = asking.join_all().await;
    answers.sort_unstable_by_key(|(hub, _)| *hub);
    let mut all = Answers { said: Vec::new(), silent: Vec::new() };
    for (hub, answer) in answers {
        match answer {
            Asked::Nothing => {}
            Asked::Silent => all.silent.push(hub),
            Asked::Said(bytes) => match serde_json::from_slice(&bytes) {
                Ok(said) => all.said.push(said),
                Err(error) => {
                    tracing::warn!(%hub, %error, "a hub answers in another form than this one");
                    all.silent.push(hub);
                }
            },
        }
    }
    all
}

/// What another hub says to a question.
enum Asked {
    Said(Bytes),
    /// It has no such thing.
    Nothing,
    Silent,
}

async fn ask(peer: &Peer, uri: Uri, authorization: Option<HeaderValue>) -> Asked {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
    }
    prepare(&mut request, peer);
    let answer = match connect(peer).await {
        Ok(stream) => send(stream, request).await,
        Err(error) => Err(error),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%peer, %error, "a hub does not answer");
            return Asked::Silent;
        }
    };
    match answer.status() {
        StatusCode::OK => {
            let bytes = axum::body::to_bytes(Body::new(answer.into_body()), ASKED_BYTES_MAX).await;
            bytes.map_or(Asked::Silent, Asked::Said)
        }
        StatusCode::NOT_FOUND => Asked::Nothing,
        _ => Asked::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_job_is_its_owners_settling_is_the_leaders_and_a_new_job_is_for_who_has_agents() {
        let job: JobId = "job_000102030405060708090a0b0c0d0e0f".parse().unwrap();
        for path in ["", "/events", "/explain", "/outputs/a.mkv", ":cancel", ":extend", "/receipts/acme"] {
            let path = format!("/v1/jobs/{job}{path}");
            assert_eq!(whose(&Method::GET, &path), Whose::Owners(job), "{path}");
        }
        for path in ["/v1/jobs", "/v1/jobs:plan", "/v1/jobs/12", "/v1/agents", "/v1/settlements", "/healthz"]
        {
            assert_eq!(whose(&Method::GET, path), Whose::Anyones, "{path}");
        }
        assert_eq!(whose(&Method::POST, "/v1/settlements"), Whose::Leaders);
        assert_eq!(whose(&Method::POST, "/v1/jobs"), Whose::Workers);
        assert_eq!(whose(&Method::PUT, "/v1/inputs/00"), Whose::Leaders);
        assert_eq!(whose(&Method::HEAD, "/v1/inputs/00"), Whose::Anyones);
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it_and_the_clients_key_goes_along() {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("http://elsewhere:1/v1/jobs/1?a=b");
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("authorization", "Bearer k"),
            ("idempotency-key", "i"),
            ("host", "first"),
        ] {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        prepare(&mut request, &Peer { id: HubId([1; 16]), http: "second:2".to_owned() });
        assert_eq!(request.uri().to_string(), "/v1/jobs/1?a=b");
        let mut left: Vec<(&str, &str)> =
            request.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let kept = [
            ("authorization", "Bearer k"),
            ("host", "second:2"),
            ("idempotency-key", "i"),
            ("tessera-forwarded", "1"),
        ];
        assert_eq!(left, kept);
    }
}
