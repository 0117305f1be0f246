//! Signed URLs: one file, one method, for a while, without an API key.
//!
//! Owns what is signed and what is said to whoever brings something else. The hub signs with a key that nobody else
//! has and keeps no list: a URL is good until it expires, on every hub of the same identity. What becomes of the
//! request then is the business of [`files`](super::files) and [`upload`](super::upload).

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use ring::hmac;
use serde::{Deserialize, Serialize};
use tessera_protocol::api::{SignRequest, SignedMethod, SignedUrl};
use tessera_protocol::id::{Digest, parse_hex, write_hex};
use tessera_protocol::spec::{DEFAULT_PROJECT, FieldError, SpecError, is_project};
use tessera_protocol::unit::UnixMillis;

use super::body;
use super::door::Door;
use super::files;
use super::problem::{Code, Refusal};
use super::routes::{Shared, digest, fresh, path_text};
use super::upload::{self, Permit};
use crate::backend::unix_ms;
use crate::inputs::Presence;

/// How long a URL is good unless its maker says otherwise. *Units*: seconds.
const EXPIRES_DEFAULT_S: u64 = 3_600;
/// How long one may be. *Units*: seconds.
const EXPIRES_MAX_S: u64 = 7 * 24 * 3_600;
/// Longest name of a holder. *Units*: bytes.
const HOLDER_BYTES_MAX: usize = 128;
/// What the key of signatures is derived for, so that it is of no other use.
const PURPOSE: &str = "tessera 2026-11-22 signatures of URLs of blobs";
/// The first line of what is signed.
const VERSION: &str = "tessera-blob-url-1";

/// What a URL says after its `?`. *Shape*: no value needs escaping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signed {
    method: SignedMethod,
    blob: Digest,
    length: u64,
    project: String,
    holder: String,
    expires_ms: u64,
    signature: String,
}

impl Signed {
    /// What is signed: each field on a line of its own, none of which can hold a line's end.
    fn message(&self) -> String {
        let Signed { method, blob, length, project, holder, expires_ms, signature: _ } = self;
        let method = method_of(*method);
        format!("{VERSION}\n{method}\n/v1/blobs/{blob}\n{length}\n{blob}\n{project}\n{holder}\n{expires_ms}")
    }

    fn url(&self) -> String {
        let Signed { method, blob, length, project, holder, expires_ms, signature } = self;
        let method = word(*method);
        format!(
            "/v1/blobs/{blob}?method={method}&blob={blob}&length={length}&project={project}&holder={holder}\
             &expires_ms={expires_ms}&signature={signature}"
        )
    }

    /// Whether this request is what was signed.
    fn check(
        &self,
        secret: &[u8; 32],
        method: &Method,
        path: Digest,
        now: UnixMillis,
    ) -> Result<(), Refusal> {
        let signature: Option<[u8; 32]> = parse_hex(&self.signature);
        let is_ours = is_name(&self.holder)
            && is_project(&self.project)
            && signature.is_some_and(|signature| {
                hmac::verify(&key(secret), self.message().as_bytes(), &signature).is_ok()
            });
        let refuse = |detail: String| Err(Refusal::new(Code::UrlInvalid, detail));
        if !is_ours {
            return refuse("the signature is not this hub's for these fields".to_owned());
        }
        let allowed = method_of(self.method);
        if method.as_str() != allowed && !(allowed == "GET" && method == Method::HEAD) {
            return refuse(format!("the URL was signed for {allowed}, and this is a {method}"));
        }
        if path != self.blob {
            return refuse(format!("the URL was signed for {}, and this is {path}", self.blob));
        }
        if self.expires_ms <= now.0 {
            let late_s = (now.0 - self.expires_ms) / 1_000;
            return Err(Refusal::new(Code::UrlExpired, format!("the URL expired {late_s} s ago")));
        }
        Ok(())
    }
}

fn key(secret: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &blake3::derive_key(PURPOSE, secret))
}

fn method_of(method: SignedMethod) -> &'static str {
    match method {
        SignedMethod::Get => "GET",
        SignedMethod::Put => "PUT",
    }
}

fn word(method: SignedMethod) -> &'static str {
    match method {
        SignedMethod::Get => "get",
        SignedMethod::Put => "put",
    }
}

/// Whether somebody may be called this in a URL.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= HOLDER_BYTES_MAX && name.chars().all(fits)
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_hex(f, self.0)
    }
}

fn sign(secret: &[u8; 32], mut signed: Signed) -> Signed {
    signed.signature = Hex(hmac::sign(&key(secret), signed.message().as_bytes()).as_ref()).to_string();
    signed
}

fn wrong(field: &str, value: impl ToString, allowed: String) -> Refusal {
    let field = FieldError { field: field.to_owned(), value: value.to_string(), allowed };
    Refusal::spec(SpecError { fields: vec![field] })
}

/// `POST /v1/blobs/{blake3}/sign`, with an API key.
pub(super) async fn make(
    State(door): Shared,
    blob: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let blob = digest(&path_text(blob)?)?;
    let (head, body) = request.into_parts();
    let held = body::read(&door.bodies, &door.limits, &head.headers, body).await?;
    let asked: SignRequest = body::document(&held.bytes)?;
    let expires_s = asked.expires_s.unwrap_or(EXPIRES_DEFAULT_S);
    if !(1..=EXPIRES_MAX_S).contains(&expires_s) {
        return Err(wrong("expires_s", expires_s, format!("1 to {EXPIRES_MAX_S}")));
    }
    let project = asked.project.unwrap_or_else(|| DEFAULT_PROJECT.to_owned());
    if !is_project(&project) {
        return Err(wrong("project", project, "lower-case letters, digits, `-` and `_`".to_owned()));
    }
    if !is_name(&asked.holder) {
        let allowed = format!("1 to {HOLDER_BYTES_MAX} letters, digits, `-`, `_` and `.`");
        return Err(wrong("holder", asked.holder, allowed));
    }
    let presence = door.answer(door.backend.input(blob)).await?;
    let length = match (asked.method, presence, asked.length) {
        (SignedMethod::Get, Presence::Whole(bytes), None) => bytes,
        (SignedMethod::Get, Presence::Whole(bytes), Some(asked)) if asked == bytes => bytes,
        (SignedMethod::Get, Presence::Whole(bytes), Some(asked)) => {
            return Err(wrong("length", asked, format!("the file has {bytes} bytes")));
        }
        (SignedMethod::Get, _, _) => {
            return Err(Refusal::new(Code::InputUnknown, format!("there is no input {blob}")));
        }
        (SignedMethod::Put, _, Some(bytes)) => bytes,
        (SignedMethod::Put, _, None) => {
            return Err(wrong("length", "", "how many bytes will be uploaded".to_owned()));
        }
    };
    let expires_ms = unix_ms() + expires_s * 1_000;
    let (method, holder, signature) = (asked.method, asked.holder, String::new());
    let signed = Signed { method, blob, length, project, holder, expires_ms, signature };
    let signed = sign(&door.backend.url_secret(), signed);
    tracing::info!(%blob, method = word(method), holder = %signed.holder, expires_s, "a URL was signed");
    let document = SignedUrl { url: signed.url(), expires_ms: UnixMillis(expires_ms) };
    Ok(fresh(StatusCode::CREATED, document))
}

/// `GET`, `HEAD` and `PUT /v1/blobs/{blake3}`, with a signature.
pub(super) async fn serve(
    State(door): Shared,
    blob: Result<Path<String>, PathRejection>,
    query: Result<Query<Signed>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let blob = digest(&path_text(blob)?)?;
    let Query(signed) = query.map_err(|error| {
        let detail = format!("the fields of a signed URL are not all there: {}", error.body_text());
        Refusal::new(Code::UrlInvalid, detail)
    })?;
    signed.check(&door.backend.url_secret(), request.method(), blob, UnixMillis(unix_ms()))?;
    tracing::info!(holder = %signed.holder, "a signed URL is used");
    let (head, body) = request.into_parts();
    match (signed.method, head.method) {
        (SignedMethod::Get, Method::HEAD) => files::look(&door, blob).await,
        (SignedMethod::Get, _) => files::give_input(&door, blob, &head.headers).await,
        (SignedMethod::Put, _) => {
            let permit = Permit { project: signed.project, bytes: Some(signed.length) };
            Ok(upload::take(Arc::<Door>::clone(&door), blob, permit, head.headers, body)
                .await
                .into_response())
        }
    }
}

/// Whether a path is of those that a signature opens instead of an API key.
pub(super) fn is_opened_by_signature(path: &str) -> bool {
    path.strip_prefix("/v1/blobs/").is_some_and(|rest| !rest.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [3; 32];

    fn signed() -> Signed {
        let (method, blob, length) = (SignedMethod::Get, Digest([7; 32]), 10);
        let (project, holder, expires_ms) = ("risk".to_owned(), "acme.1".to_owned(), 1_000);
        sign(&SECRET, Signed { method, blob, length, project, holder, expires_ms, signature: String::new() })
    }

    fn refusal(signed: &Signed, method: Method, path: Digest, now: u64) -> String {
        match signed.check(&SECRET, &method, path, UnixMillis(now)) {
            Ok(()) => "good".to_owned(),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn a_url_is_good_for_what_was_signed_and_says_what_else_was_asked_of_it() {
        let (url, blob) = (signed(), Digest([7; 32]));
        assert_eq!(refusal(&url, Method::GET, blob, 999), "good");
        assert_eq!(refusal(&url, Method::HEAD, blob, 999), "good");
        let said = [
            (refusal(&url, Method::PUT, blob, 999), "signed for GET, and this is a PUT"),
            (refusal(&url, Method::GET, Digest([8; 32]), 999), "this is 0808"),
            (refusal(&url, Method::GET, blob, 5_000), "expired 4 s ago"),
            (refusal(&url, Method::GET, blob, 1_000), "expired 0 s ago"),
        ];
        for (said, expected) in said {
            assert!(said.contains(expected), "{expected} in {said}");
        }
    }

    #[test]
    fn no_field_of_a_url_can_be_changed() {
        let good = signed();
        let changed = [
            Signed { method: SignedMethod::Put, ..good.clone() },
            Signed { blob: Digest([8; 32]), ..good.clone() },
            Signed { length: 11, ..good.clone() },
            Signed { project: "other".into(), ..good.clone() },
            Signed { holder: "acme.2".into(), ..good.clone() },
            Signed { holder: "acme.1\n1000".into(), ..good.clone() },
            Signed { expires_ms: 2_000, ..good.clone() },
            Signed { signature: "0".repeat(64), ..good.clone() },
            Signed { signature: good.signature[2..].to_owned(), ..good.clone() },
            Signed { signature: String::new(), ..good.clone() },
        ];
        for url in changed {
            let said = refusal(&url, Method::GET, url.blob, 999);
            assert!(said.contains("not this hub's"), "{url:?}: {said}");
        }
        let other = good.check(&[4; 32], &Method::GET, good.blob, UnixMillis(1));
        assert!(other.is_err(), "another hub's secret");
    }

    #[test]
    fn a_signature_opens_one_path_and_no_other() {
        assert!(is_opened_by_signature("/v1/blobs/00"));
        for path in ["/v1/blobs/00/sign", "/v1/blobs", "/v1/jobs", "/v1/inputs/00", "/v1/blobs/../jobs"] {
            assert!(!is_opened_by_signature(path), "{path}");
        }
    }
}
