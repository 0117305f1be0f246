//! Server-sent events of a job, and following one to its end across dropped connections.
//!
//! *Source*: the event stream format of the HTML standard, section 9.2.6, of which a hub sends `event` and
//! `data` fields and comments.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use tessera_protocol::api::JobView;
use tessera_protocol::id::JobId;

use super::{Hub, HubError, PAUSE_MAX, PAUSE_MIN, ReplyProblem};

/// How long a stream may say nothing before the job is asked for again. *Order*: well above the pace of
/// keep-alive comments.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest line of a stream. *Units*: bytes. A job view is below 2 KiB, with a thousand lanes below 32 KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How long a watcher looks for a hub that went away, when the hub itself was not given more patience.
const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// The changes of a job, newest state each time.
pub struct JobEvents {
    url: String,
    path: String,
    lines: BufReader<Box<dyn Read + Send>>,
}

impl JobEvents {
    pub(super) fn new(hub: &Hub, path: &str, body: impl Read + Send + 'static) -> JobEvents {
        JobEvents { url: hub.url().to_owned(), path: path.to_owned(), lines: BufReader::new(Box::new(body)) }
    }

    /// One line without its end, or nothing at the end of the stream.
    fn line(&mut self) -> Result<Option<String>, HubError> {
        let mut bytes = Vec::new();
        let read = (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        let read = read
            .map_err(|source| HubError::Dropped { url: self.url.clone(), source: ureq::Error::Io(source) })?;
        if read as u64 == LINE_BYTES_MAX {
            return Err(HubError::BadReply {
                url: format!("{}{}", self.url, self.path),
                problem: ReplyProblem::TooLarge,
            });
        }
        let text = String::from_utf8_lossy(&bytes);
        Ok((read > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned()))
    }

    fn event(&mut self) -> Result<Option<JobView>, HubError> {
        let (mut name, mut data) = (String::new(), String::new());
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if name == "job" && !data.is_empty() {
                    let view = serde_json::from_str(&data).map_err(|source| HubError::BadReply {
                        url: format!("{}{}", self.url, self.path),
                        problem: ReplyProblem::NotTheDocument(source),
                    })?;
                    return Ok(Some(view));
                }
                (name, data) = (String::new(), String::new());
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line.as_str(), ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "data" => data.push_str(value),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Iterator for JobEvents {
    type Item = Result<JobView, HubError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.event().transpose()
    }
}

/// What a follower of a job hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// The job stands here now.
    Job(&'a JobView),
    /// The hub does not answer any more; it is looked for.
    HubAway,
    /// The hub answers again, after [`News::HubAway`].
    HubBack,
}

/// Follows a job to its final state, telling `tell` each state on the way, the final one included. A hub that
/// goes away is looked for again for half a minute, or for as long as its patience says.
pub fn follow(hub: &Hub, id: JobId, tell: impl FnMut(News<'_>)) -> Result<JobView, HubError> {
    let patience = hub.patience.max(ABSENCE_MAX);
    // The patience is kept here, where an absence is told of, and not in each call.
    let impatient = hub.clone().with_patience(Duration::ZERO);
    let mut watch = Watch { tell, seen: Instant::now(), once: false, failures: 0, away: false };
    let mut pause = PAUSE_MIN;
    loop {
        match watch.connection(&impatient, id) {
            Ok(Some(last)) => return Ok(last),
            Ok(None) => {}
            // The very first call tells whether there is a hub at all.
            Err(error @ HubError::NoHub { .. }) if !watch.once && hub.patience.is_zero() => {
                return Err(error);
            }
            Err(error) if watch.may_pass(&error) && watch.seen.elapsed() < patience => watch.failed(&error),
            Err(error) => return Err(error),
        }
        pause = match watch.seen.elapsed() < PAUSE_MAX {
            true => PAUSE_MIN,
            false => (pause * 2).min(PAUSE_MAX),
        };
        std::thread::sleep(pause);
    }
}

/// What is known of a hub while one of its jobs is followed.
struct Watch<F: FnMut(News<'_>)> {
    tell: F,
    /// When the hub last said something.
    seen: Instant,
    /// Whether it ever did.
    once: bool,
    /// Connections that failed since.
    failures: u32,
    /// Whether its absence was told.
    away: bool,
}

impl<F: FnMut(News<'_>)> Watch<F> {
    /// One connection's worth of changes; nothing when it ended before the job did.
    fn connection(&mut self, hub: &Hub, id: JobId) -> Result<Option<JobView>, HubError> {
        let events = hub.events(id)?;
        self.heard();
        for view in events {
            let view = view?;
            self.heard();
            (self.tell)(News::Job(&view));
            if !view.state.is_open() {
                return Ok(Some(view));
            }
        }
        // The stream ended without a final state: the hub may have stopped between the two.
        let view = hub.job(id)?;
        self.heard();
        (self.tell)(News::Job(&view));
        Ok((!view.state.is_open()).then_some(view))
    }

    fn heard(&mut self) {
        self.seen = Instant::now();
        self.once = true;
        self.failures = 0;
        if std::mem::take(&mut self.away) {
            (self.tell)(News::HubBack);
        }
    }

    /// A name that was found before is found again when the network is back.
    fn may_pass(&self, error: &HubError) -> bool {
        error.is_passing() || self.once && matches!(error, HubError::NoSuchHost { .. })
    }

    /// One connection that drops is no absence: the next one often succeeds at once. Nor is a refusal, which
    /// is an answer.
    fn failed(&mut self, error: &HubError) {
        self.failures += 1;
        let absent = match error {
            HubError::NoHub { .. } | HubError::NoSuchHost { .. } => true,
            HubError::Refused(_) => false,
            _ => self.failures > 1,
        };
        if absent && !self.away {
            self.away = true;
            (self.tell)(News::HubAway);
        }
    }
}
