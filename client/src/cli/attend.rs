//! Attending a job: one thread talks to the hub, the command's thread listens to it, to the supervisor and
//! to signals, so that Ctrl-C is heard whatever the hub does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use tessera_client::api::{Hub, HubError, News, follow};
use tessera_client::local::Notice;
use tessera_protocol::api::{JobState, JobView};

use super::uploads::UploadStep;
use super::{Failure, Progress};

/// Happenings that may wait to be looked at; when there are more, who has news waits. Above the largest number
/// of children, whose starts are told before anyone looks.
const INBOX_MAX: usize = 1_024;
/// How soon a signal is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the command's thread hears.
pub(crate) enum Happening {
    /// A job stands somewhere new.
    Changed(Box<JobView>),
    /// The hub stopped answering, or answers again.
    HubAnswers(bool),
    /// A file of the job is on its way.
    Uploaded(UploadStep),
    /// Something happened to a child process.
    Notice(Notice),
    /// The job has ended, or cannot be followed.
    Ended(Box<Result<Finished, HubError>>),
}

/// A job at its end.
pub(crate) struct Finished {
    /// Its last state.
    pub(crate) view: JobView,
    /// Its result document, when it is done.
    pub(crate) document: Option<Vec<u8>>,
}

/// Where happenings are told and heard.
pub(crate) fn channel() -> (SyncSender<Happening>, Receiver<Happening>) {
    sync_channel(INBOX_MAX)
}

/// Raises a flag at Ctrl-C or SIGTERM. Repeats change nothing: stopping takes at most a few seconds, and must
/// not be cut short while children or a temporary folder are left.
pub(crate) fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(Failure::System)?;
    }
    Ok(flag)
}

/// Begins a job and follows it to its end. `on_notice` may end the attendance.
pub(crate) fn attend(
    hub: &Hub,
    begin: impl FnOnce(&Hub) -> Result<JobView, HubError> + Send + 'static,
    happenings: SyncSender<Happening>,
    inbox: &Receiver<Happening>,
    interrupted: &AtomicBool,
    progress: &mut Progress,
    on_notice: &mut dyn FnMut(Notice) -> Result<(), Failure>,
) -> Result<Finished, Failure> {
    let hub = hub.clone();
    let talk = move || {
        let outcome = conversation(&hub, begin, &happenings);
        // Nobody listens any more when the command was interrupted.
        let _ = happenings.send(Happening::Ended(Box::new(outcome)));
    };
    std::thread::Builder::new().spawn(talk).map_err(Failure::System)?;
    let (mut job, mut hub_answers) = (None, true);
    loop {
        match inbox.recv_timeout(LOOK_INTERVAL) {
            Ok(Happening::Changed(view)) => {
                progress.update(&view);
                job = Some(view.id);
            }
            Ok(Happening::HubAnswers(answers)) => {
                hub_answers = answers;
                progress.say(match answers {
                    true => "the hub answers again",
                    false => "the hub does not answer; trying again",
                });
            }
            Ok(Happening::Uploaded(step)) => progress.uploads.show(&step),
            Ok(Happening::Notice(notice)) => {
                progress.say(&notice.to_string());
                on_notice(notice)?;
            }
            Ok(Happening::Ended(outcome)) => {
                progress.finish();
                return Ok((*outcome)?);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        if interrupted.load(Ordering::Relaxed) {
            progress.finish();
            return Err(Failure::StoppedWatching { job, hub_answers });
        }
    }
}

fn conversation(
    hub: &Hub,
    begin: impl FnOnce(&Hub) -> Result<JobView, HubError>,
    happenings: &SyncSender<Happening>,
) -> Result<Finished, HubError> {
    let tell = |news: News<'_>| {
        let happening = match news {
            News::Job(view) => Happening::Changed(Box::new(view.clone())),
            News::HubAway => Happening::HubAnswers(false),
            News::HubBack => Happening::HubAnswers(true),
        };
        // Nobody listens any more when the command was interrupted.
        let _ = happenings.send(happening);
    };
    let mut view = begin(hub)?;
    tell(News::Job(&view));
    if view.state.is_open() {
        view = follow(hub, view.id, tell)?;
    }
    let document = match view.state {
        JobState::Done => Some(hub.result(&view)?),
        _ => None,
    };
    Ok(Finished { view, document })
}
