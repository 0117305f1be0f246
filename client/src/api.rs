//! A hub's HTTP API, one method a call.
//!
//! Owns requests, retries and what goes wrong with them. Blocking; one [`Hub`] may be used by many threads.
//! Every call is safe to repeat: those that make something carry an idempotency key, and a connection that
//! drops is tried again with the same key.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tessera_protocol::api::{
    AgentList, ExtendRequest, HubList, JobList, JobView, PlanQuote, Problem, TokenIssued, TokenRequest,
};
use tessera_protocol::audit::AuditPage;
use tessera_protocol::credits::{
    JobBill, ProviderList, ProviderName, Settlement, SettlementRequest, Statement,
};
use tessera_protocol::explain::{AgentExplained, JobExplained};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::limits::HUBS_MAX;
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::UnixMillis;
use ureq::http::{Method, Request, Response, StatusCode};

mod error;
mod events;
mod upload;

pub use error::{HubError, HubUrlError, ReplyProblem};
pub use events::{JobEvents, News, follow};
pub use upload::UploadNews;

/// Largest reply that is read. *Units*: bytes. A result of 10,000 contracts is about 10 MB.
const REPLY_BYTES_MAX: u64 = 64 << 20;
/// How long connecting to a hub may take. A hub on the same network answers within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take, except watching. A hub commits a job within a second when healthy.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a call is repeated after a connection that was open has dropped.
const DROPPED_RETRIES: u32 = 3;
/// How an error of the standard library begins when a name has no address. It has no kind of its own.
const LOOKUP_FAILED: &str = "failed to lookup address information";
/// Pause before the first repetition; it doubles each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Names one wish to create something, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A key that nobody else has.
    ///
    /// *Errors*: the operating system gives no random bytes.
    pub fn random() -> Result<IdempotencyKey, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(IdempotencyKey(format!("tessera-{:032x}", u128::from_be_bytes(bytes))))
    }

    /// A key that the caller chose.
    pub fn chosen(text: &str) -> IdempotencyKey {
        IdempotencyKey(text.to_owned())
    }
}

/// A hub at a URL, or the hubs on one store: where one is gone or takes nothing, the next is asked.
#[derive(Clone, Debug)]
pub struct Hub {
    urls: Arc<[String]>,
    /// Which of them is asked; shared by all copies.
    at: Arc<AtomicUsize>,
    key: Option<String>,
    patience: Duration,
    agent: ureq::Agent,
}

impl Hub {
    /// The hub at `url`, which is `http://HOST:PORT` or several of them with commas between, with the API key if there
    /// is one. Connects to nothing.
    pub fn new(url: &str, key: Option<&str>) -> Result<Hub, HubUrlError> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("tessera/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Hub {
            urls: checked_urls(url)?,
            at: Arc::default(),
            key: key.map(str::to_owned),
            patience: Duration::ZERO,
            agent: config.new_agent(),
        })
    }

    /// The same hub, waited for when it does not listen: a supervised hub comes back.
    pub fn with_patience(self, patience: Duration) -> Hub {
        Hub { patience, ..self }
    }

    /// Where it is; of several, where the one is that is asked now.
    pub fn url(&self) -> &str {
        &self.urls[self.at.load(Ordering::Relaxed) % self.urls.len()]
    }

    /// Submits a job. The same key and specification give the same job.
    pub fn submit(&self, spec: &JobSpec, key: &IdempotencyKey) -> Result<JobView, HubError> {
        self.post("/v1/jobs", spec, Some(key))
    }

    /// What a job would take.
    pub fn plan(&self, spec: &JobSpec) -> Result<PlanQuote, HubError> {
        self.post("/v1/jobs:plan", spec, None)
    }

    /// The newest jobs.
    pub fn jobs(&self) -> Result<JobList, HubError> {
        self.get("/v1/jobs")
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<JobView, HubError> {
        self.get(&format!("/v1/jobs/{id}"))
    }

    /// The result document of a finished job, compared with its digest.
    pub fn result(&self, job: &JobView) -> Result<Vec<u8>, HubError> {
        let path = format!("/v1/jobs/{}/result", job.id);
        let reply = self.call(&path, || self.send(Method::GET, &path, &[], None))?;
        let found = Digest::of(&reply);
        match job.digest {
            Some(expected) if expected != found => {
                Err(HubError::WrongDigest { job: job.id, expected, found })
            }
            _ => Ok(reply),
        }
    }

    /// What a job computes, in canonical form, compared with its digest.
    pub fn manifest(&self, job: &JobView) -> Result<Vec<u8>, HubError> {
        let path = format!("/v1/jobs/{}/manifest", job.id);
        let reply = self.call(&path, || self.send(Method::GET, &path, &[], None))?;
        let (expected, found) = (job.manifest_digest, Digest::of(&reply));
        if found == expected {
            Ok(reply)
        } else {
            Err(HubError::WrongDigest { job: job.id, expected, found })
        }
    }

    /// An input file, as it comes; nothing of it is compared.
    pub fn input(&self, blake3: Digest) -> Result<impl Read + use<>, HubError> {
        self.stream(&format!("/v1/inputs/{blake3}"))
    }

    /// The file that is the result of a finished matrix job, as it comes; nothing of it is compared.
    pub fn output(&self, id: JobId) -> Result<impl Read + use<>, HubError> {
        self.stream(&format!("/v1/jobs/{id}/output"))
    }

    /// A file that a job's result document names, as it comes.
    pub fn named_output(&self, id: JobId, name: &str) -> Result<impl Read + use<>, HubError> {
        self.stream(&format!("/v1/jobs/{id}/outputs/{name}"))
    }

    fn stream(&self, path: &str) -> Result<impl Read + use<>, HubError> {
        self.anywhere(|| self.open(path))
    }

    /// The body of a successful answer, as it comes.
    fn open(&self, path: &str) -> Result<ureq::BodyReader<'static>, HubError> {
        let request = self.request(Method::GET, path, None)?;
        let request = request.body(()).map_err(|source| self.unreachable(source.into()))?;
        let request =
            self.agent.configure_request(request).timeout_per_read(Some(events::SILENCE_MAX)).build();
        let response = self.agent.run(request).map_err(|source| self.unreachable(source))?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().into_reader()),
            status => Err(self.refusal(path, status, &self.body(path, response)?)),
        }
    }

    /// What a connection that ended is called.
    pub fn dropped(&self, source: io::Error) -> HubError {
        HubError::Dropped { url: self.url().to_owned(), source: ureq::Error::Io(source) }
    }

    /// Stops a job.
    pub fn cancel(&self, id: JobId) -> Result<JobView, HubError> {
        self.post_bytes(&format!("/v1/jobs/{id}:cancel"), &[], None)
    }

    /// Continues a finished job to `paths` paths in all, as a new job.
    pub fn extend(&self, id: JobId, paths: u64, key: &IdempotencyKey) -> Result<JobView, HubError> {
        self.post(&format!("/v1/jobs/{id}:extend"), &ExtendRequest { paths }, Some(key))
    }

    /// What a job cost so far, and who was paid.
    pub fn bill(&self, id: JobId) -> Result<JobBill, HubError> {
        self.get(&format!("/v1/jobs/{id}/bill"))
    }

    /// The signed receipt of a job that ended, for its client or for a provider: its very bytes.
    pub fn receipt(&self, id: JobId, provider: Option<&str>) -> Result<Vec<u8>, HubError> {
        let path = match provider {
            None => format!("/v1/jobs/{id}/receipt"),
            Some(provider) => format!("/v1/jobs/{id}/receipts/{provider}"),
        };
        self.call(&path, || self.send(Method::GET, &path, &[], None))
    }

    /// Every provider and its credits.
    pub fn providers(&self) -> Result<ProviderList, HubError> {
        self.get("/v1/providers")
    }

    /// What a provider earned, job by job.
    pub fn statement(&self, provider: &str) -> Result<Statement, HubError> {
        self.get(&format!("/v1/providers/{provider}/statement"))
    }

    /// Pays what is due for jobs that ended before then, or for all. When the answer is lost, what it paid is paid:
    /// the settlement can be [fetched](Hub::settlement).
    pub fn settle(&self, until: Option<UnixMillis>) -> Result<Settlement, HubError> {
        self.post("/v1/settlements", &SettlementRequest { until_ms: until }, None)
    }

    /// A settlement as it was made.
    pub fn settlement(&self, number: u64) -> Result<Settlement, HubError> {
        self.get(&format!("/v1/settlements/{number}"))
    }

    /// A part of the audit log, from this entry on.
    pub fn audit(&self, from: u64) -> Result<AuditPage, HubError> {
        self.get(&format!("/v1/audit?from={from}"))
    }

    /// Why a job stands where it stands.
    pub fn explain_job(&self, id: JobId) -> Result<JobExplained, HubError> {
        self.get(&format!("/v1/jobs/{id}/explain"))
    }

    /// What a connected agent is thought of.
    pub fn explain_agent(&self, id: AgentId) -> Result<AgentExplained, HubError> {
        self.get(&format!("/v1/agents/{id}/explain"))
    }

    /// The enrolled agents.
    pub fn agents(&self) -> Result<AgentList, HubError> {
        self.get("/v1/agents")
    }

    /// A new single-use enrolment token, for an agent of a provider or for one of the operator's own.
    ///
    /// *Errors*: also [`ReplyProblem::OtherProvider`], of a hub that knows no providers: the agent that such a token
    /// enrols would be the operator's.
    pub fn issue_agent_token(&self, provider: Option<&ProviderName>) -> Result<TokenIssued, HubError> {
        let path = "/v1/agent-tokens";
        let Some(provider) = provider else { return self.post_bytes(path, &[], None) };
        let issued: TokenIssued =
            self.post(path, &TokenRequest { provider: Some(provider.clone()) }, None)?;
        match issued.provider == provider.as_str() {
            true => Ok(issued),
            false => Err(HubError::BadReply { url: self.url_of(path), problem: ReplyProblem::OtherProvider }),
        }
    }

    /// The hubs that serve from the store of the one that answers.
    pub fn hubs(&self) -> Result<HubList, HubError> {
        self.get("/v1/hubs")
    }

    /// Asks nothing but whether it is there.
    pub fn health(&self) -> Result<(), HubError> {
        self.call("/healthz", || self.send(Method::GET, "/healthz", &[], None)).map(drop)
    }

    /// What happens to a job, from now on. The stream ends with a state that is final, or when the
    /// connection drops; [`follow`] survives that.
    pub fn events(&self, id: JobId) -> Result<JobEvents, HubError> {
        let path = format!("/v1/jobs/{id}/events");
        Ok(JobEvents::new(self, &path, self.stream(&path)?))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, HubError> {
        let reply = self.call(path, || self.send(Method::GET, path, &[], None))?;
        self.document(path, &reply)
    }

    fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        key: Option<&IdempotencyKey>,
    ) -> Result<T, HubError> {
        let bytes = serde_json::to_vec(body).map_err(|source| HubError::BadReply {
            url: self.url_of(path),
            problem: ReplyProblem::NotTheDocument(source),
        })?;
        self.post_bytes(path, &bytes, key)
    }

    fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &[u8],
        key: Option<&IdempotencyKey>,
    ) -> Result<T, HubError> {
        let reply = self.call(path, || self.send(Method::POST, path, body, key))?;
        self.document(path, &reply)
    }

    /// Sends until a hub has answered that it did what it was asked.
    fn call(
        &self,
        path: &str,
        send: impl Fn() -> Result<(StatusCode, Vec<u8>), HubError>,
    ) -> Result<Vec<u8>, HubError> {
        self.repeat(|| match send()? {
            (status, reply) if status.is_success() => Ok(reply),
            (status, reply) => Err(self.refusal(path, status, &reply)),
        })
    }

    /// Asks until a hub has answered: a refused connection is tried again while patience lasts, a dropped one a
    /// few times.
    fn repeat<T>(&self, ask: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        let since = Instant::now();
        let ask = || self.anywhere(&ask);
        let mut pause = PAUSE_MIN;
        let mut dropped = 0;
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let is_dropped = matches!(error, HubError::Dropped { .. });
            dropped += u32::from(is_dropped);
            let soon = is_dropped && dropped <= DROPPED_RETRIES;
            let again = soon || error.is_passing() && since.elapsed() < self.patience;
            if !again {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks each hub once, until one does not say that another should be asked.
    fn anywhere<T>(&self, ask: impl Fn() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut left = self.urls.len();
        loop {
            let at = self.at.load(Ordering::Relaxed);
            let error = match ask() {
                Err(error) if self.urls.len() > 1 && error.is_of_one_hub() => error,
                answer => return answer,
            };
            self.pass_on(at);
            left -= 1;
            match error {
                _ if left > 0 => {}
                HubError::NoHub { source, .. } => {
                    return Err(HubError::NoHub { url: self.urls.join(" or "), source });
                }
                error => return Err(error),
            }
        }
    }

    /// The hub at this place is asked no more for now, unless another call has found so first.
    fn pass_on(&self, at: usize) {
        let next = (at + 1) % self.urls.len();
        // Where it fails, another call has passed on.
        let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
        key: Option<&IdempotencyKey>,
    ) -> Result<(StatusCode, Vec<u8>), HubError> {
        let posts = method == Method::POST;
        let request = self.request(method, path, key)?;
        let response = match posts {
            true => {
                let request = request.header("Content-Type", "application/json");
                let request = request.body(body).map_err(|source| self.unreachable(source.into()))?;
                let request =
                    self.agent.configure_request(request).timeout_global(Some(CALL_TIMEOUT)).build();
                self.agent.run(request)
            }
            false => {
                let request = request.body(()).map_err(|source| self.unreachable(source.into()))?;
                let request =
                    self.agent.configure_request(request).timeout_global(Some(CALL_TIMEOUT)).build();
                self.agent.run(request)
            }
        }
        .map_err(|source| self.unreachable(source))?;
        let status = response.status();
        Ok((status, self.body(path, response)?))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<ureq::http::request::Builder, HubError> {
        let mut request = Request::builder().method(method).uri(self.url_of(path));
        if let Some(api_key) = &self.key {
            request = request.header("Authorization", format!("Bearer {api_key}"));
        }
        if let Some(IdempotencyKey(key)) = key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(request)
    }

    fn body(&self, path: &str, response: Response<ureq::Body>) -> Result<Vec<u8>, HubError> {
        let mut bytes = Vec::new();
        response.into_body().into_reader().take(REPLY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(
            |source| HubError::Dropped { url: self.url().to_owned(), source: ureq::Error::Io(source) },
        )?;
        if bytes.len() as u64 > REPLY_BYTES_MAX {
            return Err(HubError::BadReply { url: self.url_of(path), problem: ReplyProblem::TooLarge });
        }
        Ok(bytes)
    }

    fn document<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, HubError> {
        serde_json::from_slice(bytes).map_err(|source| HubError::BadReply {
            url: self.url_of(path),
            problem: ReplyProblem::NotTheDocument(source),
        })
    }

    fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url())
    }

    fn refusal(&self, path: &str, status: StatusCode, body: &[u8]) -> HubError {
        let problem = serde_json::from_slice::<Problem>(body).ok();
        match (status, problem) {
            (StatusCode::UNAUTHORIZED, _) => {
                HubError::WrongKey { url: self.url().to_owned(), given: self.key.is_some() }
            }
            (_, Some(problem)) => HubError::Refused(Box::new(problem)),
            (status, None) => {
                HubError::BadReply { url: self.url_of(path), problem: ReplyProblem::Status(status.as_u16()) }
            }
        }
    }

    fn unreachable(&self, source: ureq::Error) -> HubError {
        let url = self.url().to_owned();
        match source {
            ureq::Error::HostNotFound => HubError::NoSuchHost { url },
            ureq::Error::Io(source) if source.to_string().starts_with(LOOKUP_FAILED) => {
                HubError::NoSuchHost { url }
            }
            ureq::Error::Io(source) if source.kind() == std::io::ErrorKind::ConnectionRefused => {
                HubError::NoHub { url, source }
            }
            ureq::Error::Http(source) => HubError::NotSendable { source },
            source => HubError::Dropped { url, source },
        }
    }
}

fn checked_urls(urls: &str) -> Result<Arc<[String]>, HubUrlError> {
    let mut checked: Vec<String> = Vec::new();
    for url in urls.split(',') {
        let url = checked_url(url.trim())?;
        if !checked.contains(&url) {
            checked.push(url);
        }
    }
    match checked.len() {
        ..=HUBS_MAX => Ok(checked.into()),
        hubs => Err(HubUrlError::TooMany { hubs }),
    }
}

fn checked_url(url: &str) -> Result<String, HubUrlError> {
    let trimmed = url.trim_end_matches('/');
    if trimmed.starts_with("https://") {
        return Err(HubUrlError::Https { url: url.to_owned() });
    }
    let parsed: Option<ureq::http::Uri> = trimmed.parse().ok();
    let plain = parsed.as_ref().is_some_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    });
    match plain {
        true => Ok(trimmed.to_owned()),
        false => Err(HubUrlError::NotHttp { url: url.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
