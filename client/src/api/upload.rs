//! Input files on their way to a hub: what it has already is not sent again, and an upload that was cut off goes
//! on from there, in the same call or in the next.
//!
//! Owns when an upload is tried again and from which byte. The hub owns what it has of a file, and compares the
//! whole with its digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tessera_protocol::id::Digest;
use tessera_protocol::spec::Input;
use ureq::http::{Method, StatusCode};

use super::{CALL_TIMEOUT, Hub, HubError, ReplyProblem};

/// Slowest upload that is waited for. *Units*: bytes a second. A hub takes no slower one.
const UPLOAD_RATE_MIN: u64 = 34_000;
/// Slowest hub, when it reads what it has of a file to hash it. *Units*: bytes a second.
const HASH_RATE_MIN: u64 = 20_000_000;
/// How often an upload is tried again when nothing more arrived since the last time.
const TRIES_MAX: u32 = 6;
/// Pause before the first of them; it doubles each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a hub is asked for a file that somebody else is sending it.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// How long such a file may get no longer: a hub gives an uploader that is silent two minutes for a piece.
const BUSY_MAX: Duration = Duration::from_secs(150);
/// The header in which a hub says how much of a file it has.
const RECEIVED: &str = "tessera-input-received";
/// The header that tells a hub towards which project's quota a file counts.
const PROJECT: &str = "tessera-project";

/// What happens to a file on its way.
#[derive(Debug)]
pub enum UploadNews<'a> {
    /// The hub has it already.
    Here,
    /// It is being sent from this byte on; the hub has those before.
    From(u64),
    /// So many of its bytes have left this machine, now or before. After the last the hub compares the digest.
    Sent(u64),
    /// Another upload of the same file is under way, and so many bytes of it have arrived.
    Busy(u64),
    /// The upload was cut off, and is tried again in a moment.
    Again(&'a HubError),
}

/// What of a file a hub has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Whole,
    /// So many bytes of its beginning.
    Part(u64),
}

/// What is done about an upload that failed.
enum Remedy {
    /// It goes on from where the hub says.
    GoOn,
    /// It goes on after a pause.
    TryAgain,
    /// Somebody else sends the file, or the hub has not noticed yet that this upload was cut off.
    Wait,
    /// Nothing helps.
    GiveUp,
}

impl Hub {
    /// Gives the hub a file for the jobs of a project, unless it has it; `tell` hears how far it is. The hub compares
    /// the bytes with the digest.
    ///
    /// *Errors*: the last one, when nothing more arrives after a few tries.
    pub fn upload(
        &self,
        project: &str,
        input: &Input,
        path: &Path,
        tell: &dyn Fn(UploadNews<'_>),
    ) -> Result<(), HubError> {
        let mut received = match self.presence(input.blake3)? {
            Presence::Whole => {
                tell(UploadNews::Here);
                return Ok(());
            }
            Presence::Part(received) => received,
        };
        let (mut tries, mut waits_since) = (0, None::<Instant>);
        loop {
            if waits_since.is_none() {
                tell(UploadNews::From(received));
            }
            let at = self.at.load(Ordering::Relaxed);
            let Err(error) = self.send_rest(project, (input, path), received, tell) else { return Ok(()) };
            let error = self.reason(error);
            match remedy(&error) {
                Remedy::GiveUp => return Err(error),
                Remedy::Wait if waits_since.get_or_insert_with(Instant::now).elapsed() > busy_max(input) => {
                    return Err(error);
                }
                Remedy::Wait => {
                    tell(UploadNews::Busy(received));
                    std::thread::sleep(BUSY_PAUSE);
                }
                Remedy::GoOn | Remedy::TryAgain if tries == TRIES_MAX => return Err(error),
                Remedy::GoOn => (tries, waits_since) = (tries + 1, None),
                Remedy::TryAgain => {
                    tell(UploadNews::Again(&error));
                    // What arrived at one hub of a store is there for all of them.
                    self.pass_on(at);
                    std::thread::sleep((PAUSE_MIN * 2u32.pow(tries)).min(PAUSE_MAX));
                    (tries, waits_since) = (tries + 1, None);
                }
            }
            match self.presence(input.blake3) {
                Ok(Presence::Whole) => return Ok(()),
                Ok(Presence::Part(now)) => {
                    if now > received {
                        (tries, waits_since) = (0, waits_since.map(|_| Instant::now()));
                    }
                    received = now;
                }
                // A hub that is starting again says what it has when it is asked the next time.
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the hub has of a file.
    fn presence(&self, blake3: Digest) -> Result<Presence, HubError> {
        let path = target(blake3);
        let request = self.request(Method::HEAD, &path, None)?;
        let request = request.body(()).map_err(|source| self.unreachable(source.into()))?;
        self.repeat(|| {
            let request = self.agent.configure_request(request.clone());
            let request = request.timeout_global(Some(CALL_TIMEOUT)).build();
            let response = self.agent.run(request).map_err(|source| self.unreachable(source))?;
            let (status, received) = (response.status(), response.headers().get(RECEIVED).cloned());
            let body = self.body(&path, response)?;
            match status {
                StatusCode::OK => Ok(Presence::Whole),
                StatusCode::NOT_FOUND => {
                    let received = received.and_then(|received| received.to_str().ok()?.parse().ok());
                    Ok(Presence::Part(received.unwrap_or(0)))
                }
                status => Err(self.refusal(&path, status, &body)),
            }
        })
    }

    /// Sends a file from a byte on.
    fn send_rest(
        &self,
        project: &str,
        (input, path): (&Input, &Path),
        from: u64,
        tell: &dyn Fn(UploadNews<'_>),
    ) -> Result<(), HubError> {
        let unreadable = |source| HubError::InputUnreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        file.seek(SeekFrom::Start(from)).map_err(unreadable)?;
        let mut leaving = Leaving { file, sent: from, bytes: input.bytes, failed: None, tell };
        let (target, rest) = (target(input.blake3), input.bytes.saturating_sub(from));
        let request = self.request(Method::PUT, &target, None)?.header("Content-Length", rest);
        let request = request.header("Content-Type", "application/octet-stream").header(PROJECT, project);
        // What the hub does not take need not be sent.
        let mut request = request.header("Expect", "100-continue");
        if from > 0 {
            let range = format!("bytes {from}-{}/{}", input.bytes.saturating_sub(1), input.bytes);
            request = request.header("Content-Range", range);
        }
        let request = request
            .body(ureq::SendBody::from_reader(&mut leaving))
            .map_err(|source| self.unreachable(source.into()))?;
        let sending = CALL_TIMEOUT + Duration::from_secs(rest / UPLOAD_RATE_MIN);
        let request = self.agent.configure_request(request).timeout_send_body(Some(sending));
        let request = request.timeout_recv_response(Some(CALL_TIMEOUT + hashing(input))).build();
        let outcome = self.agent.run(request);
        if let Some(source) = leaving.failed {
            return Err(unreadable(source));
        }
        let response = outcome.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        let body = self.body(&target, response)?;
        if status.is_success() { Ok(()) } else { Err(self.refusal(&target, status, &body)) }
    }

    /// Why a connection was lost, in the hub's words where it has some: while a body is on its way its answer
    /// is not seen.
    fn reason(&self, error: HubError) -> HubError {
        if !matches!(error, HubError::Dropped { .. }) {
            return error;
        }
        let path = "/healthz";
        match self.send(Method::GET, path, &[], None) {
            Ok((status, body)) if !status.is_success() => match self.refusal(path, status, &body) {
                refused @ HubError::Refused(_) => refused,
                _ => error,
            },
            _ => error,
        }
    }
}

fn target(blake3: Digest) -> String {
    format!("/v1/inputs/{blake3}")
}

/// How long a hub may take to hash a file that it has.
fn hashing(input: &Input) -> Duration {
    Duration::from_secs(input.bytes / HASH_RATE_MIN)
}

fn busy_max(input: &Input) -> Duration {
    BUSY_MAX + hashing(input)
}

fn remedy(error: &HubError) -> Remedy {
    match error {
        HubError::Refused(problem) => match problem.code.as_str() {
            "input_offset" => Remedy::GoOn,
            "input_busy" | "uploads_full" => Remedy::Wait,
            // The hub closes the connection of an upload that stands still or breaks off.
            "body_timeout" | "body_malformed" | "answer_timeout" => Remedy::TryAgain,
            _ if error.is_passing() => Remedy::TryAgain,
            _ => Remedy::GiveUp,
        },
        HubError::BadReply { problem: ReplyProblem::Status(502..=504), .. } => Remedy::TryAgain,
        _ if error.is_passing() => Remedy::TryAgain,
        _ => Remedy::GiveUp,
    }
}

/// The rest of a file on its way out.
struct Leaving<'a> {
    file: File,
    sent: u64,
    /// How long the file was when it was looked at.
    bytes: u64,
    /// Why it cannot be read any more.
    failed: Option<io::Error>,
    tell: &'a dyn Fn(UploadNews<'_>),
}

impl Read for Leaving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.bytes.saturating_sub(self.sent))
            .map_or(buffer.len(), |left| left.min(buffer.len()));
        let error = loop {
            match self.file.read(&mut buffer[..room]) {
                // A file that has become shorter would be waited for without end.
                Ok(0) if room > 0 => {
                    break io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter");
                }
                Ok(read) => {
                    self.sent += read as u64;
                    (self.tell)(UploadNews::Sent(self.sent));
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let kind = error.kind();
        self.failed = Some(error);
        Err(kind.into())
    }
}

#[cfg(test)]
mod tests;
