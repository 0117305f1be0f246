//! Every way the API says no: the codes, and how each refusal looks on the wire.
//!
//! Owns status, title and hint of every code, and which backend error takes which. A code never
//! changes its meaning; `problems.golden` is the reviewed list. *Source*: RFC 9457.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tessera_protocol::api::Problem;
use tessera_protocol::spec::{FieldError, SpecError};

use super::backend::{
    AgentLookupError, CancelError, ClaimError, ExtendError, LookupError, Outage, PlanError, ReceiptError,
    ResultError, SettleError, StatementError, SubmitError, TokenError,
};

/// A kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The body is not JSON.
    JsonMalformed,
    /// The body does not arrive as HTTP says it does.
    BodyMalformed,
    /// A query parameter is unknown or has no such value.
    QueryInvalid,
    /// The job id in the path is none.
    IdInvalid,
    /// The Idempotency-Key header has not the shape of a key.
    IdempotencyKeyInvalid,
    /// No API key came along.
    KeyMissing,
    /// The API key is not in force.
    KeyWrong,
    /// Nothing lives at this path.
    RouteUnknown,
    /// There is no such job.
    JobUnknown,
    /// No agent of this id is connected.
    AgentUnknown,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The body took too long.
    BodyTimeout,
    /// The key made another job before.
    IdempotencyKeyReused,
    /// The job has no result yet.
    JobNotDone,
    /// The job ended before.
    JobEnded,
    /// The job's result is no file.
    OutputNone,
    /// The digest in the path is none.
    DigestInvalid,
    /// The input is not here.
    InputUnknown,
    /// Somebody else is uploading the same input.
    InputBusy,
    /// The body has another digest than the path.
    InputDiffers,
    /// An upload without a length, or of nothing.
    InputLength,
    /// An upload of a file larger than any input may be.
    InputTooLarge,
    /// The files of a project would be more than it may keep.
    BlobsFull,
    /// A signed URL is not signed by this hub, or for something else.
    UrlInvalid,
    /// A signed URL is too old.
    UrlExpired,
    /// A Range lies behind the end of a file.
    RangeUnsatisfiable,
    /// The header that names a project does not.
    ProjectInvalid,
    /// The Content-Range of an upload is not the end of a file.
    RangeInvalid,
    /// An upload goes on from where the file does not.
    InputOffset,
    /// Too many uploads are under way.
    UploadsFull,
    /// The job ended long ago and was pruned.
    JobPruned,
    /// The job failed and has no result.
    JobFailed,
    /// The job was cancelled and has no result.
    JobCancelled,
    /// There is no such provider, or it did nothing for the job.
    ProviderUnknown,
    /// There is no such settlement.
    SettlementUnknown,
    /// No provider has anything due.
    NothingDue,
    /// The body is larger than any job may be.
    BodyTooLarge,
    /// The body is not declared to be JSON.
    ContentTypeUnsupported,
    /// Fields are wrong.
    SpecInvalid,
    /// The job would cost more than its client allows.
    CostCapExceeded,
    /// An extension must add paths.
    PathsNotMore,
    /// The project has as many open jobs as it may.
    OpenJobsFull,
    /// Too many unused enrolment tokens are about.
    TokensFull,
    /// The hub is stopping.
    Draining,
    /// The store fails.
    StoreFailing,
    /// The disk is full.
    StoreFull,
    /// A part of the hub does not answer, or is overloaded.
    HubUnavailable,
    /// Too many event streams are open.
    StreamsFull,
    /// The hub that must answer is gone or cannot be reached.
    OwnerUnreachable,
    /// The hub did not answer in time.
    AnswerTimeout,
}

/// What a [`Code`] always says.
pub(super) struct Row {
    pub(super) word: &'static str,
    pub(super) status: StatusCode,
    /// *Units*: seconds.
    pub(super) retry_after_s: Option<u32>,
    pub(super) title: &'static str,
    pub(super) hint: &'static str,
}

impl Code {
    /// Every code, by status.
    pub const ALL: [Code; 50] = [
        Code::JsonMalformed,
        Code::BodyMalformed,
        Code::QueryInvalid,
        Code::IdInvalid,
        Code::DigestInvalid,
        Code::IdempotencyKeyInvalid,
        Code::InputLength,
        Code::RangeInvalid,
        Code::ProjectInvalid,
        Code::KeyMissing,
        Code::KeyWrong,
        Code::UrlInvalid,
        Code::UrlExpired,
        Code::RouteUnknown,
        Code::JobUnknown,
        Code::AgentUnknown,
        Code::OutputNone,
        Code::InputUnknown,
        Code::ProviderUnknown,
        Code::SettlementUnknown,
        Code::MethodNotAllowed,
        Code::BodyTimeout,
        Code::IdempotencyKeyReused,
        Code::JobNotDone,
        Code::JobEnded,
        Code::InputBusy,
        Code::InputOffset,
        Code::NothingDue,
        Code::JobPruned,
        Code::JobFailed,
        Code::JobCancelled,
        Code::BodyTooLarge,
        Code::InputTooLarge,
        Code::BlobsFull,
        Code::ContentTypeUnsupported,
        Code::RangeUnsatisfiable,
        Code::SpecInvalid,
        Code::InputDiffers,
        Code::CostCapExceeded,
        Code::PathsNotMore,
        Code::OpenJobsFull,
        Code::TokensFull,
        Code::Draining,
        Code::StoreFailing,
        Code::HubUnavailable,
        Code::StreamsFull,
        Code::UploadsFull,
        Code::OwnerUnreachable,
        Code::AnswerTimeout,
        Code::StoreFull,
    ];

    /// The word clients match on.
    pub fn word(self) -> &'static str {
        self.row().word
    }

    /// The HTTP status it comes with.
    pub fn status(self) -> u16 {
        self.row().status.as_u16()
    }

    #[rustfmt::skip]
    pub(super) fn row(self) -> Row {
        use StatusCode as S;
        let (word, status, retry_after_s, title, hint) = match self {
            Code::JsonMalformed => ("json_malformed", S::BAD_REQUEST, None,
                "The body is not JSON",
                "Correct the document at the line and column given; TOML must be converted first, as `tessera submit` does."),
            Code::BodyMalformed => ("body_malformed", S::BAD_REQUEST, None,
                "The body did not arrive whole",
                "Send the request again; if it repeats, look at the proxy or client in between."),
            Code::QueryInvalid => ("query_invalid", S::BAD_REQUEST, None,
                "A query parameter is wrong",
                "Use `state` (queued, running, done, failed, cancelled), `project` and `limit` (1 to 1000)."),
            Code::IdInvalid => ("id_invalid", S::BAD_REQUEST, None,
                "This is not a job id",
                "A job id is `job_` and 32 lower-case hex digits; `GET /v1/jobs` lists them."),
            Code::IdempotencyKeyInvalid => ("idempotency_key_invalid", S::BAD_REQUEST, None,
                "The Idempotency-Key is malformed",
                "Send one header of 1 to 255 printable ASCII characters, for example a UUID."),
            Code::KeyMissing => ("key_missing", S::UNAUTHORIZED, None,
                "An API key is needed",
                "Send `Authorization: Bearer tsk_...`; the hub wrote its first key when it first started."),
            Code::KeyWrong => ("key_wrong", S::UNAUTHORIZED, None,
                "The API key is not valid here",
                "Check that the key is whole (`tsk_` and 64 hex digits), belongs to this hub and was not revoked."),
            Code::RouteUnknown => ("route_unknown", S::NOT_FOUND, None,
                "Nothing lives at this path",
                "`GET /openapi.json` lists every path."),
            Code::JobUnknown => ("job_unknown", S::NOT_FOUND, None,
                "There is no such job",
                "`GET /v1/jobs` lists the jobs of this hub."),
            Code::AgentUnknown => ("agent_unknown", S::NOT_FOUND, None,
                "No agent of this id is connected",
                "`GET /v1/agents` lists the agents of this hub, and which of them are connected."),
            Code::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, None,
                "This path knows other methods",
                "Use a method of the `Allow` header; `GET /openapi.json` says what each does."),
            Code::BodyTimeout => ("body_timeout", S::REQUEST_TIMEOUT, None,
                "The body took too long to arrive",
                "Send the request again over a faster connection."),
            Code::IdempotencyKeyReused => ("idempotency_key_reused", S::CONFLICT, None,
                "This Idempotency-Key belongs to another job",
                "Take a new key for a new job, or send the same specification to get the first job back."),
            Code::JobNotDone => ("job_not_done", S::CONFLICT, None,
                "The job is not done",
                "Follow `GET /v1/jobs/{id}/events` until its state is `done`."),
            Code::JobEnded => ("job_ended", S::CONFLICT, None,
                "The job ended before",
                "There is nothing to cancel; `GET /v1/jobs/{id}` says how it ended."),
            Code::OutputNone => ("output_none", S::NOT_FOUND, None,
                "The job has no such file",
                "Take `GET /v1/jobs/{id}/result`; its `outputs` name the files, and only a matrix job has one without a name."),
            Code::DigestInvalid => ("digest_invalid", S::BAD_REQUEST, None,
                "This is not a BLAKE3 digest",
                "An input is named by the BLAKE3 of its bytes: 64 lower-case hex digits, as `b3sum` prints them."),
            Code::ProviderUnknown => ("provider_unknown", S::NOT_FOUND, None,
                "There is no such provider here",
                "`GET /v1/providers` lists the providers, and a job's bill those that worked on it."),
            Code::SettlementUnknown => ("settlement_unknown", S::NOT_FOUND, None,
                "There is no such settlement",
                "Settlements are counted from one; `POST /v1/settlements` makes the next."),
            Code::NothingDue => ("nothing_due", S::CONFLICT, None,
                "No provider has credits that are due",
                "Jobs are paid for when they end, and a provider's last 40 payments wait; `GET /v1/providers` says how much."),
            Code::InputUnknown => ("input_unknown", S::NOT_FOUND, None,
                "There is no such input file",
                "Upload it with `PUT /v1/inputs/{blake3}`, as `tessera submit` does."),
            Code::InputBusy => ("input_busy", S::CONFLICT, Some(5),
                "Another client is uploading this file",
                "Ask `HEAD /v1/inputs/{blake3}` every few seconds until it answers 200, or send it again."),
            Code::InputDiffers => ("input_differs", S::UNPROCESSABLE_ENTITY, None,
                "The body has another digest than the path",
                "The file changed on its way or after its digest was taken, and nothing was kept: take the digest again and send it again, from its start."),
            Code::InputLength => ("input_length", S::BAD_REQUEST, None,
                "The length of the file is missing or zero",
                "Send the file with a Content-Length and not chunked."),
            Code::InputTooLarge => ("input_too_large", S::PAYLOAD_TOO_LARGE, None,
                "The file is too large",
                "An input file may have 16 GiB: split it over several files."),
            Code::UrlInvalid => ("url_invalid", S::FORBIDDEN, None,
                "The signed URL is not good for this",
                "Use it as it was made, or have another one made with `POST /v1/blobs/{blake3}/sign`."),
            Code::UrlExpired => ("url_expired", S::FORBIDDEN, None,
                "The signed URL has expired",
                "Have another one made with `POST /v1/blobs/{blake3}/sign`."),
            Code::RangeUnsatisfiable => ("range_unsatisfiable", S::RANGE_NOT_SATISFIABLE, None,
                "The Range lies behind the end of the file",
                "`Content-Range` says how long the file is."),
            Code::BlobsFull => ("blobs_full", S::PAYLOAD_TOO_LARGE, None,
                "The project's files would be more than it may keep",
                "A file is removed some days after the last job that reads it; ask the hub's operator for more under `[projects.NAME] blob_bytes_max`."),
            Code::ProjectInvalid => ("project_invalid", S::BAD_REQUEST, None,
                "The Tessera-Project header is no project",
                "Name the project of the jobs that read the file, in lower-case letters, digits, `-` and `_`, or leave the header out for `default`."),
            Code::RangeInvalid => ("range_invalid", S::BAD_REQUEST, None,
                "The Content-Range is not the end of a file",
                "Send `Content-Range: bytes N-M/T` with N bytes here before, M the file's last byte and T its length, and a Content-Length of T - N."),
            Code::InputOffset => ("input_offset", S::CONFLICT, None,
                "The upload goes on from another byte",
                "Go on from the byte that `Tessera-Input-Received` says, as `HEAD /v1/inputs/{blake3}` does, or send the whole file without a Content-Range."),
            Code::UploadsFull => ("uploads_full", S::SERVICE_UNAVAILABLE, Some(5),
                "Too many files are being uploaded",
                "Send it again in a few seconds; 16 are taken at once."),
            Code::JobPruned => ("job_pruned", S::GONE, None,
                "The job ended long ago and was pruned",
                "What was earned and settled stays; submit the job again to have its result, which has the same bytes."),
            Code::JobFailed => ("job_failed", S::GONE, None,
                "The job failed and has no result",
                "`GET /v1/jobs/{id}` says why under `failure`; submit it again once that is mended."),
            Code::JobCancelled => ("job_cancelled", S::GONE, None,
                "The job was cancelled and has no result",
                "Submit it again to compute it."),
            Code::BodyTooLarge => ("body_too_large", S::PAYLOAD_TOO_LARGE, None,
                "The body is too large",
                "A body may have 8 MiB: split the book over several jobs, and send matrices as input files."),
            Code::ContentTypeUnsupported => ("content_type_unsupported", S::UNSUPPORTED_MEDIA_TYPE, None,
                "The body must be JSON",
                "Send `Content-Type: application/json`."),
            Code::SpecInvalid => ("spec_invalid", S::UNPROCESSABLE_ENTITY, None,
                "Fields of the document are wrong",
                "Correct each field under `errors`; it says what the field held and what it may hold."),
            Code::CostCapExceeded => ("cost_cap_exceeded", S::UNPROCESSABLE_ENTITY, None,
                "The job costs more than its cap",
                "Raise `limits.cost_cap`, or ask for fewer paths; `POST /v1/jobs:plan` quotes the cost."),
            Code::PathsNotMore => ("paths_not_more", S::UNPROCESSABLE_ENTITY, None,
                "An extension must add paths",
                "`paths` counts all paths afterwards: give more than the job has."),
            Code::OpenJobsFull => ("open_jobs_full", S::TOO_MANY_REQUESTS, Some(30),
                "The project has too many open jobs",
                "Wait for a job to end, or cancel one."),
            Code::TokensFull => ("tokens_full", S::TOO_MANY_REQUESTS, Some(60),
                "Too many enrolment tokens are unused",
                "Use the tokens that were issued, or wait for them to lapse."),
            Code::Draining => ("draining", S::SERVICE_UNAVAILABLE, Some(10),
                "The hub is stopping",
                "Try again when it is back; with an Idempotency-Key nothing is done twice."),
            Code::StoreFailing => ("store_failing", S::SERVICE_UNAVAILABLE, Some(10),
                "The hub cannot read or write its data",
                "Its operator should look at the disk and the hub's log; nothing was half stored."),
            Code::StoreFull => ("store_full", S::INSUFFICIENT_STORAGE, Some(60),
                "The hub's disk is full",
                "Its operator should make room: then submit again. What came of an upload is kept for a day, and the next one goes on from there."),
            Code::HubUnavailable => ("hub_unavailable", S::SERVICE_UNAVAILABLE, Some(2),
                "The hub is overloaded or partly down",
                "Try again; if it lasts, its operator should look at the hub's log."),
            Code::StreamsFull => ("streams_full", S::SERVICE_UNAVAILABLE, Some(5),
                "Too many event streams are open",
                "Ask `GET /v1/jobs/{id}` from time to time instead, or try again."),
            Code::OwnerUnreachable => ("owner_unreachable", S::SERVICE_UNAVAILABLE, Some(5),
                "The hub that must answer this cannot be reached",
                "Try again in a few seconds: when a hub is gone, another takes its jobs within 15 s. With an Idempotency-Key nothing is done twice."),
            Code::AnswerTimeout => ("answer_timeout", S::GATEWAY_TIMEOUT, Some(2),
                "The hub did not answer in time",
                "Send it again with the same Idempotency-Key: what was asked may have happened."),
        };
        Row { word, status, retry_after_s, title, hint }
    }
}

/// A request refused, with what happened this time.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into(), errors: Vec::new(), allow: None }
    }

    /// Names the methods of the path, where the router does not know them.
    pub(super) fn allowing(self, methods: &'static str) -> Refusal {
        Refusal { allow: Some(methods), ..self }
    }

    pub(super) fn spec(error: SpecError) -> Refusal {
        let detail = match error.fields.as_slice() {
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
            [] => String::new(),
        };
        Refusal { errors: error.fields, ..Refusal::new(Code::SpecInvalid, detail) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let row = self.code.row();
        let problem = Problem {
            kind: format!("urn:tessera:problem:{}", row.word),
            title: row.title.to_owned(),
            status: row.status.as_u16(),
            code: row.word.to_owned(),
            detail: self.detail,
            hint: row.hint.to_owned(),
            errors: self.errors,
        };
        let mut response = (row.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.code {
            Code::KeyMissing | Code::KeyWrong => {
                headers
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tessera\""));
            }
            // The rest of the body is still on its way: the connection is of no more use.
            Code::BodyTooLarge | Code::BodyTimeout | Code::BodyMalformed => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(seconds) = row.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Outage> for Refusal {
    fn from(outage: Outage) -> Refusal {
        let code = match outage {
            Outage::Draining => Code::Draining,
            Outage::StoreFailing | Outage::StoreReadOnly => Code::StoreFailing,
            Outage::StoreFull => Code::StoreFull,
            Outage::Unavailable => Code::HubUnavailable,
        };
        Refusal::new(code, outage.to_string())
    }
}

impl From<ClaimError> for Refusal {
    fn from(error: ClaimError) -> Refusal {
        match error {
            ClaimError::Full(full) => Refusal::new(Code::BlobsFull, full.to_string()),
            ClaimError::Outage(outage) => outage.into(),
        }
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Refusal {
        let code = match error {
            SubmitError::NotPlannable(error) => return Refusal::spec(error),
            SubmitError::Outage(outage) => return outage.into(),
            SubmitError::KeyReused { .. } => Code::IdempotencyKeyReused,
            SubmitError::OpenJobsFull { .. } => Code::OpenJobsFull,
            SubmitError::BlobsFull(_) => Code::BlobsFull,
            SubmitError::CostCapExceeded { .. } => Code::CostCapExceeded,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<CancelError> for Refusal {
    fn from(error: CancelError) -> Refusal {
        let code = match error {
            CancelError::Outage(outage) => return outage.into(),
            CancelError::Unknown(_) => Code::JobUnknown,
            CancelError::Pruned(..) => Code::JobPruned,
            CancelError::Ended { .. } => Code::JobEnded,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<ExtendError> for Refusal {
    fn from(error: ExtendError) -> Refusal {
        let code = match error {
            ExtendError::Submit(error) => return error.into(),
            ExtendError::Unknown(_) => Code::JobUnknown,
            ExtendError::Pruned(..) => Code::JobPruned,
            ExtendError::NotDone { .. } => Code::JobNotDone,
            ExtendError::NotMorePaths { .. } => Code::PathsNotMore,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<PlanError> for Refusal {
    fn from(error: PlanError) -> Refusal {
        match error {
            PlanError::NotPlannable(error) => Refusal::spec(error),
            PlanError::Outage(outage) => outage.into(),
        }
    }
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Refusal {
        match error {
            LookupError::Unknown(_) => Refusal::new(Code::JobUnknown, error.to_string()),
            LookupError::Pruned(..) => Refusal::new(Code::JobPruned, error.to_string()),
            LookupError::Outage(outage) => outage.into(),
        }
    }
}

impl From<AgentLookupError> for Refusal {
    fn from(error: AgentLookupError) -> Refusal {
        match error {
            AgentLookupError::NotConnected(_) => Refusal::new(Code::AgentUnknown, error.to_string()),
            AgentLookupError::Outage(outage) => outage.into(),
        }
    }
}

impl From<ResultError> for Refusal {
    fn from(error: ResultError) -> Refusal {
        let code = match error {
            ResultError::Outage(outage) => return outage.into(),
            ResultError::Unknown(_) => Code::JobUnknown,
            ResultError::Pruned(..) => Code::JobPruned,
            ResultError::NotDone { .. } => Code::JobNotDone,
            ResultError::Failed { .. } => Code::JobFailed,
            ResultError::Cancelled(_) => Code::JobCancelled,
            ResultError::NoFile(_) | ResultError::NoOutput { .. } => Code::OutputNone,
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<ReceiptError> for Refusal {
    fn from(error: ReceiptError) -> Refusal {
        match error {
            ReceiptError::Lookup(error) => error.into(),
            ReceiptError::Open { .. } => Refusal::new(Code::JobNotDone, error.to_string()),
            ReceiptError::NoShare { .. } => Refusal::new(Code::ProviderUnknown, error.to_string()),
        }
    }
}

impl From<StatementError> for Refusal {
    fn from(error: StatementError) -> Refusal {
        match error {
            StatementError::Unknown(_) => Refusal::new(Code::ProviderUnknown, error.to_string()),
            StatementError::Outage(outage) => outage.into(),
        }
    }
}

impl From<SettleError> for Refusal {
    fn from(error: SettleError) -> Refusal {
        match error {
            SettleError::NothingDue => Refusal::new(Code::NothingDue, error.to_string()),
            SettleError::Unknown(_) => Refusal::new(Code::SettlementUnknown, error.to_string()),
            SettleError::Outage(outage) => outage.into(),
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Refusal {
        match error {
            TokenError::UnusedTokensFull { .. } => Refusal::new(Code::TokensFull, error.to_string()),
            TokenError::Outage(outage) => outage.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn the_codes_are_those_that_were_reviewed() {
        let mut list = String::new();
        for code in Code::ALL {
            let Row { word, status, retry_after_s, title, hint } = code.row();
            write!(list, "{} {word}", status.as_u16()).unwrap();
            if let Some(seconds) = retry_after_s {
                write!(list, " (Retry-After {seconds})").unwrap();
            }
            writeln!(list, "\n    {title}.\n    {hint}").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ingress/problems.golden");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &list).unwrap();
        }
        let reviewed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(list, reviewed, "run again with UPDATE_GOLDEN=1 and review the difference");
    }

    #[test]
    fn no_code_is_listed_twice_or_out_of_order() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.windows(2).all(|pair| pair[0].status() <= pair[1].status()));
        assert_eq!(Code::ALL.len(), Code::AnswerTimeout as usize + 1, "the last variant of the enum");
    }
}
