//! The routes: what each path reads from a request, asks of the hub and answers.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router, middleware};
use serde::Serialize;
use tessera_protocol::api::{ExtendRequest, PlanQuote, TokenRequest};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::spec::Manifest;

use super::accounts;
use super::backend::{Extension, Health, IdempotencyKey, JobResult, Outage, Submission, Submitted};
use super::body;
use super::door::{self, Door};
use super::events::{self, Feed};
use super::files;
use super::forward;
use super::merged;
use super::problem::{Code, Refusal};
use super::signed;
use super::upload::{self, Permit};

/// The API as it is served, written by hand; `tests` compare it with the types.
const OPENAPI: &str = include_str!("openapi.json");

pub(super) type Shared = State<Arc<Door>>;

/// Every route behind the door.
pub(super) fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .route("/v1/jobs", get(merged::jobs).post(submit))
        .route("/v1/jobs:plan", post(plan))
        .route("/v1/jobs/{id}", get(show).post(act))
        .route("/v1/jobs/{id}/result", get(result))
        .route("/v1/jobs/{id}/output", get(output))
        .route("/v1/jobs/{id}/outputs/{name}", get(named_output))
        .route("/v1/jobs/{id}/events", get(watch))
        .route("/v1/inputs/{blake3}", put(put_input).get(get_input).head(show_input))
        .route("/v1/blobs/{blake3}", put(signed::serve).get(signed::serve).head(signed::serve))
        .route("/v1/blobs/{blake3}/sign", post(signed::make))
        .route("/v1/jobs/{id}/manifest", get(manifest))
        .route("/v1/jobs/{id}/bill", get(accounts::bill))
        .route("/v1/jobs/{id}/receipt", get(accounts::receipt))
        .route("/v1/jobs/{id}/receipts/{name}", get(accounts::provider_receipt))
        .route("/v1/providers", get(accounts::providers))
        .route("/v1/providers/{name}/statement", get(accounts::statement))
        .route("/v1/settlements", post(accounts::settle))
        .route("/v1/settlements/{number}", get(accounts::settlement))
        .route("/v1/audit", get(accounts::audit))
        .route("/v1/jobs/{id}/explain", get(explain_job))
        .route("/v1/hubs", get(merged::hubs))
        .route("/v1/agents", get(merged::agents))
        .route("/v1/agents/{id}/explain", get(merged::explain_agent))
        .route("/v1/agent-tokens", post(issue_token))
        .fallback(route_unknown)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(door.clone(), forward::route))
        .layer(middleware::from_fn_with_state(door.clone(), door::pass))
        .with_state(door)
}

async fn index() -> impl IntoResponse {
    #[derive(Serialize)]
    struct Index {
        name: &'static str,
        version: &'static str,
        openapi: &'static str,
        health: &'static str,
    }
    let version = env!("CARGO_PKG_VERSION");
    Json(Index { name: "tessera hub", version, openapi: "/openapi.json", health: "/healthz" })
}

async fn health(State(door): Shared) -> Result<impl IntoResponse, Refusal> {
    #[derive(Serialize)]
    struct Healthy {
        status: &'static str,
    }
    match door.backend.health() {
        Health::Out(outage) => Err(outage.into()),
        Health::Ok if *door.stopping.borrow() => Err(Outage::Draining.into()),
        Health::Ok => Ok(([(header::CACHE_CONTROL, "no-store")], Json(Healthy { status: "ok" }))),
    }
}

async fn metrics(State(door): Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], door.metrics())
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn submit(State(door): Shared, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let idempotency_key = idempotency_key(&head.headers)?;
    let spec = read_manifest(&door, &head.headers, body).await?;
    let submission = Submission { spec, idempotency_key, extends: None };
    Ok(submitted(door.answer(door.backend.submit(submission)).await?))
}

async fn plan(State(door): Shared, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let manifest = read_manifest(&door, &head.headers, body).await?;
    let quote: PlanQuote = door.answer(door.backend.plan(manifest)).await?;
    Ok(fresh(StatusCode::OK, quote))
}

async fn show(State(door): Shared, id: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let id = path_text(id)?;
    if let Some((_, "cancel" | "extend")) = id.split_once(':') {
        return Err(Refusal::new(Code::MethodNotAllowed, "actions are for POST").allowing("POST"));
    }
    let view = door.answer(door.backend.job(job_id(&id)?)).await?;
    Ok(fresh(StatusCode::OK, &*view))
}

/// `POST /v1/jobs/{id}:ACTION`; the router cannot match a suffix, so it is cut here.
async fn act(
    State(door): Shared,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let text = path_text(id)?;
    let Some((id, action)) = text.split_once(':') else {
        let refusal = Refusal::new(Code::MethodNotAllowed, "a job is shown by GET");
        return Err(refusal.allowing("GET, HEAD"));
    };
    match action {
        "cancel" => {
            let view = door.answer(door.backend.cancel(job_id(id)?)).await?;
            Ok(fresh(StatusCode::OK, &*view))
        }
        "extend" => extend(&door, job_id(id)?, request).await,
        other => Err(Refusal::new(Code::RouteUnknown, format!("a job has no action `{other}`"))),
    }
}

async fn extend(door: &Door, job: JobId, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let idempotency_key = idempotency_key(&head.headers)?;
    let held = body::read(&door.bodies, &door.limits, &head.headers, body).await?;
    let ExtendRequest { paths } = body::document(&held.bytes)?;
    let extension = Extension { job, paths, idempotency_key };
    Ok(submitted(door.answer(door.backend.extend(extension)).await?))
}

async fn result(
    State(door): Shared,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let id = job_id(&path_text(id)?)?;
    let JobResult { bytes, digest } = door.answer(door.backend.result(id)).await?;
    let has_it = has(&headers, digest);
    let (digest, tag) = (digest.to_string(), format!("\"{digest}\""));
    let described = [
        (header::ETAG, tag),
        (header::HeaderName::from_static("tessera-digest"), digest),
        (header::CACHE_CONTROL, "private, immutable".to_owned()),
    ];
    Ok(match has_it {
        true => (StatusCode::NOT_MODIFIED, described).into_response(),
        false => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (described, kind, bytes::Bytes::from_owner(bytes)).into_response()
        }
    })
}

/// Whether the client holds the bytes of a digest already.
fn has(headers: &HeaderMap, digest: Digest) -> bool {
    let tag = format!("\"{digest}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
}

async fn output(
    State(door): Shared,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let id = job_id(&path_text(id)?)?;
    let output = door.answer(door.backend.output(id, None)).await?;
    let has_it = has(&headers, output.digest);
    Ok(files::give(output, has_it))
}

async fn named_output(
    State(door): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (id, name) = path_text(path)?;
    let output = door.answer(door.backend.output(job_id(&id)?, Some(name))).await?;
    let has_it = has(&headers, output.digest);
    Ok(files::give(output, has_it))
}

async fn put_input(
    State(door): Shared,
    input: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let permit = Permit { project: upload::project(&head.headers)?, bytes: None };
    Ok(upload::take(door, digest(&path_text(input)?)?, permit, head.headers, body).await)
}

async fn get_input(
    State(door): Shared,
    input: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    files::give_input(&door, digest(&path_text(input)?)?, &headers).await
}

async fn manifest(State(door): Shared, id: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let JobResult { bytes, digest } = door.answer(door.backend.manifest(job_id(&path_text(id)?)?)).await?;
    let described = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::HeaderName::from_static("tessera-digest"), digest.to_string()),
        (header::CACHE_CONTROL, "private, immutable".to_owned()),
    ];
    Ok((described, bytes::Bytes::from_owner(bytes)).into_response())
}

async fn show_input(
    State(door): Shared,
    input: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    files::look(&door, digest(&path_text(input)?)?).await
}

async fn watch(State(door): Shared, id: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let id = job_id(&path_text(id)?)?;
    let place = door.stream_place()?;
    let job = door.answer(door.backend.watch(id)).await?;
    let (stopping, limits) = (door.stopping.clone(), door.limits.clone());
    Ok(events::respond(Feed { job, stopping, limits, _place: place }))
}

async fn explain_job(
    State(door): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let explained = door.answer(door.backend.explain_job(job_id(&path_text(id)?)?)).await?;
    Ok(fresh(StatusCode::OK, explained))
}

async fn issue_token(State(door): Shared, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let TokenRequest { provider } = match has_body(&body) {
        false => TokenRequest::default(),
        true => body::document(&body::read(&door.bodies, &door.limits, &head.headers, body).await?.bytes)?,
    };
    let token = door.answer(door.backend.issue_token(provider)).await?;
    Ok(fresh(StatusCode::CREATED, token))
}

/// Whether anything may come: no body says the same as an empty document.
pub(super) fn has_body(body: &axum::body::Body) -> bool {
    body.size_hint().exact() != Some(0)
}

async fn route_unknown(request: Request) -> Refusal {
    Refusal::new(Code::RouteUnknown, format!("there is nothing at {}", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Refusal {
    let detail = format!("{} is not for {}", request.method(), request.uri().path());
    Refusal::new(Code::MethodNotAllowed, detail)
}

async fn read_manifest(
    door: &Door,
    headers: &HeaderMap,
    body: axum::body::Body,
) -> Result<Manifest, Refusal> {
    let held = body::read(&door.bodies, &door.limits, headers, body).await?;
    if held.bytes.len() <= door.limits.small_body_bytes_max {
        return body::manifest(&held.bytes);
    }
    // Megabytes of JSON take tens of milliseconds, in which nobody else would be served.
    let mut held = held;
    let bytes = std::mem::take(&mut held.bytes);
    match tokio::task::spawn_blocking(move || body::manifest(&bytes)).await {
        Ok(manifest) => manifest,
        Err(_) => Err(Outage::Unavailable.into()),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().ok().and_then(IdempotencyKey::parse);
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key)),
        (None, _) => Err(Refusal::new(Code::IdempotencyKeyInvalid, "the Idempotency-Key header is no key")),
        (Some(_), Some(_)) => {
            Err(Refusal::new(Code::IdempotencyKeyInvalid, "there are several Idempotency-Keys"))
        }
    }
}

pub(super) fn path_text<T>(id: Result<Path<T>, PathRejection>) -> Result<T, Refusal> {
    id.map(|Path(id)| id).map_err(|error| Refusal::new(Code::IdInvalid, error.body_text()))
}

pub(super) fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error| Refusal::new(Code::DigestInvalid, format!("`{text}` is {error}")))
}

pub(super) fn job_id(text: &str) -> Result<JobId, Refusal> {
    text.parse().map_err(|error| Refusal::new(Code::IdInvalid, format!("`{text}` is {error}")))
}

fn submitted(Submitted { view, replayed }: Submitted) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let location = HeaderValue::try_from(format!("/v1/jobs/{}", view.id));
    let mut response = fresh(status, &*view);
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A JSON answer that is true now and must not be kept.
pub(super) fn fresh(status: StatusCode, document: impl Serialize) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
