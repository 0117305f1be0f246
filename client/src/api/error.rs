//! What can go wrong between a client and its hub, each with what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tessera_protocol::api::Problem;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::HUBS_MAX;

/// *Source*: RFC 9110, section 15.6.4.
const SERVICE_UNAVAILABLE: u16 = 503;

/// A text that is not the URL of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubUrlError {
    /// It asks for TLS, which hubs do not speak yet.
    Https {
        /// What was given.
        url: String,
    },
    /// It is not `http://HOST:PORT`.
    NotHttp {
        /// What was given.
        url: String,
    },
    /// More than [`HUBS_MAX`] of them.
    TooMany {
        /// How many were given.
        hubs: usize,
    },
}

impl fmt::Display for HubUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HubUrlError::Https { url } => write!(
                f,
                "hub URL {url:?}: a hub speaks plain http on a loopback or private network, not https; write http://, \
                 or reach a distant hub through a tunnel"
            ),
            HubUrlError::NotHttp { url } => {
                write!(f, "hub URL {url:?}: must be http://HOST:PORT, as in http://127.0.0.1:7840")
            }
            HubUrlError::TooMany { hubs } => write!(f, "{hubs} hub URLs: name at most {HUBS_MAX}"),
        }
    }
}

impl std::error::Error for HubUrlError {}

/// Why a call to a hub gave no answer that can be used.
#[derive(Debug)]
pub enum HubError {
    /// Nothing listens there.
    NoHub {
        /// Where.
        url: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The URL's host has no address.
    NoSuchHost {
        /// Where.
        url: String,
    },
    /// The connection failed or ended before the answer did.
    Dropped {
        /// Where.
        url: String,
        /// What happened.
        source: ureq::Error,
    },
    /// The hub does not know the API key.
    WrongKey {
        /// Where.
        url: String,
        /// Whether any key was sent.
        given: bool,
    },
    /// The hub understood and said no.
    Refused(Box<Problem>),
    /// What answered is no hub of a version this client knows.
    BadReply {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        problem: ReplyProblem,
    },
    /// The result's bytes are not those that the job's digest names.
    WrongDigest {
        /// Of which job.
        job: JobId,
        /// What the job says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A file that was to be uploaded cannot be read any more.
    InputUnreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The request cannot be written, as when a key holds a control character.
    NotSendable {
        /// What is wrong with it.
        source: ureq::http::Error,
    },
}

/// What is wrong with a reply.
#[derive(Debug)]
pub enum ReplyProblem {
    /// A status that says nothing more.
    Status(u16),
    /// Not the document that was asked for.
    NotTheDocument(serde_json::Error),
    /// Larger than any document of a hub.
    TooLarge,
    /// A token of another provider than the one asked for.
    OtherProvider,
}

impl fmt::Display for ReplyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyProblem::Status(status) => write!(f, "status {status} and no explanation"),
            ReplyProblem::NotTheDocument(error) => write!(f, "not the expected document: {error}"),
            ReplyProblem::TooLarge => f.write_str("more bytes than any document of a hub has"),
            ReplyProblem::OtherProvider => f.write_str(
                "a token of the operator's own: this hub is older than providers; update it first",
            ),
        }
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HubError::NoHub { url, .. } => write!(
                f,
                "no hub listens at {url}\nhint: start one with `hub serve`, or name another with --hub URL or \
                 TESSERA_HUB; `tessera run FILE` needs none"
            ),
            HubError::NoSuchHost { url } => {
                let uri: Option<ureq::http::Uri> = url.parse().ok();
                let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or(url);
                write!(
                    f,
                    "cannot find the host {host}\nhint: check --hub, TESSERA_HUB or the configuration file"
                )
            }
            HubError::Dropped { url, source } => {
                write!(
                    f,
                    "the connection to the hub at {url} was lost: {source}\nhint: is the hub still running?"
                )
            }
            HubError::WrongKey { url, given } => {
                let what = match given {
                    true => "does not know this API key",
                    false => "wants an API key and none was given",
                };
                write!(
                    f,
                    "the hub at {url} {what}\nhint: `hub serve` prints the key once, when it first starts on a data \
                     directory; pass it with --api-key-file FILE, TESSERA_API_KEY, or `api_key` in the configuration file"
                )
            }
            HubError::Refused(problem) => {
                write!(f, "{}", problem.detail)?;
                for error in &problem.errors {
                    write!(f, "\n  {error}")?;
                }
                match hint(problem) {
                    "" => Ok(()),
                    hint => write!(f, "\nhint: {hint}"),
                }
            }
            HubError::BadReply { url, problem } => {
                write!(f, "{url} answered with {problem}\nhint: is this a Tessera hub, and of this version?")
            }
            HubError::WrongDigest { job, expected, found } => write!(
                f,
                "the result of {job} arrived with digest {found}, but the job says {expected}\nhint: fetch it again; if \
                 it stays so, the hub's storage is damaged"
            ),
            HubError::InputUnreadable { path, source } => {
                write!(
                    f,
                    "cannot read {}: {source}\nhint: it was there when the job was read",
                    path.display()
                )
            }
            HubError::NotSendable { source } => write!(
                f,
                "the request cannot be sent: {source}\nhint: an API key or idempotency key may hold visible ASCII only"
            ),
        }
    }
}

/// What to do next in the words of this program; the hub's own words are for those who speak HTTP to it, and
/// are used where its code is not known here.
fn hint(problem: &Problem) -> &str {
    match problem.code.as_str() {
        "input_differs" => "the file changed while it was uploaded: submit the job again",
        "input_busy" => "try again in a moment: what arrives of the file by then is not sent again",
        "store_full" => {
            "its operator should make room: then try again; what arrived of a file is kept for a day, and the next try goes on from there"
        }
        "job_unknown" => "`tessera job list` lists the jobs of this hub",
        "job_not_done" => "`tessera job watch JOB` follows it until it is done",
        "job_ended" => "there is nothing to cancel; `tessera job show JOB` says how it ended",
        "job_failed" => "`tessera job show JOB` says why; submit it again once that is mended",
        "job_cancelled" => "submit it again to compute it",
        "cost_cap_exceeded" => {
            "raise `limits.cost_cap` in the job file, or ask for fewer paths; `tessera plan FILE` quotes the cost"
        }
        "paths_not_more" => "--paths counts all paths afterwards: give more than the job has",
        "spec_invalid" => "correct each field named above",
        "idempotency_key_reused" => {
            "take another --idempotency-key for a new job, or submit the same file to get the first job back"
        }
        "idempotency_key_invalid" => "--idempotency-key may have 1 to 255 visible ASCII characters",
        "route_unknown" | "method_not_allowed" => "is the hub of the same version as this program?",
        "streams_full" => "try again in a moment; `tessera job show JOB` says how far the job is",
        "answer_timeout" => "what was asked may have happened: look with `tessera job list`, then try again",
        "draining" => "try again when the hub is back",
        _ => &problem.hint,
    }
}

impl HubError {
    /// Whether the same call may succeed a moment later: nobody listens yet, the connection ended, or the hub
    /// says that it is busy, starting or stopping.
    pub fn is_passing(&self) -> bool {
        match self {
            HubError::NoHub { .. } | HubError::Dropped { .. } => true,
            HubError::Refused(problem) => problem.status == SERVICE_UNAVAILABLE,
            _ => false,
        }
    }
}

impl HubError {
    /// Whether another hub on the same store may do what this one did not: nobody listens here or the connection
    /// ended, or the hub says that it is not available.
    pub(super) fn is_of_one_hub(&self) -> bool {
        self.is_passing() || matches!(self, HubError::NoSuchHost { .. })
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HubError::NoHub { source, .. } => Some(source),
            HubError::Dropped { source, .. } => Some(source),
            HubError::NotSendable { source } => Some(source),
            HubError::InputUnreadable { source, .. } => Some(source),
            HubError::BadReply { problem: ReplyProblem::NotTheDocument(source), .. } => Some(source),
            _ => None,
        }
    }
}
