//! The routes of credits: bills, receipts, statements, settlements, the audit log.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tessera_protocol::credits::SettlementRequest;

use super::body;
use super::problem::{Code, Refusal};
use super::routes::{Shared, fresh, has_body, job_id, path_text};

pub(super) async fn bill(
    axum::extract::State(door): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let bill = door.answer(door.backend.bill(job_id(&path_text(id)?)?)).await?;
    Ok(fresh(StatusCode::OK, bill))
}

pub(super) async fn receipt(
    axum::extract::State(door): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let bytes = door.answer(door.backend.receipt(job_id(&path_text(id)?)?, None)).await?;
    Ok(signed(bytes))
}

pub(super) async fn provider_receipt(
    axum::extract::State(door): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refusal> {
    let (id, provider) = path_text(path)?;
    let bytes = door.answer(door.backend.receipt(job_id(&id)?, Some(provider))).await?;
    Ok(signed(bytes))
}

/// The very bytes: a receipt that is written anew proves nothing.
fn signed(bytes: Vec<u8>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (kind, bytes).into_response()
}

pub(super) async fn providers(axum::extract::State(door): Shared) -> Result<Response, Refusal> {
    Ok(fresh(StatusCode::OK, door.answer(door.backend.providers()).await?))
}

pub(super) async fn statement(
    axum::extract::State(door): Shared,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    Ok(fresh(StatusCode::OK, door.answer(door.backend.statement(path_text(name)?)).await?))
}

pub(super) async fn settle(
    axum::extract::State(door): Shared,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let wanted = match has_body(&body) {
        false => SettlementRequest::default(),
        true => body::document(&body::read(&door.bodies, &door.limits, &head.headers, body).await?.bytes)?,
    };
    Ok(fresh(StatusCode::CREATED, door.answer(door.backend.settle(wanted)).await?))
}

pub(super) async fn settlement(
    axum::extract::State(door): Shared,
    number: Result<Path<u64>, PathRejection>,
) -> Result<Response, Refusal> {
    Ok(fresh(StatusCode::OK, door.answer(door.backend.settlement(path_text(number)?)).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    #[serde(default)]
    from: u64,
}

pub(super) async fn audit(
    axum::extract::State(door): Shared,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(AuditQuery { from }) =
        query.map_err(|error| Refusal::new(Code::QueryInvalid, error.body_text()))?;
    Ok(fresh(StatusCode::OK, door.answer(door.backend.audit(from)).await?))
}
