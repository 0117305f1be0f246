//! How far a job is, on standard error: a bar on a terminal, now and then a line elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tessera_client::render::grouped;
use tessera_protocol::api::{JobState, JobView};

use super::uploads::UploadDisplay;

/// Least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// A line is written this long after the last one even when little has changed.
const LINE_PATIENCE: Duration = Duration::from_secs(30);

/// Shows progress.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Lines,
    /// Of the files that leave before the job does: lines, unless it is replaced.
    pub(super) uploads: UploadDisplay,
}

/// Decides which changes deserve a line: the first, every new state or reason to wait; then each tenth of the
/// shards done or attempted, at most one a second; and half a minute of silence.
#[derive(Default)]
struct Lines {
    last: Option<Line>,
}

/// What the last line told, and when.
struct Line {
    at: Instant,
    done_tenths: u64,
    attempted_tenths: u64,
    state: JobState,
    waiting: Option<String>,
}

impl Lines {
    fn deserves(&mut self, view: &JobView, now: Instant) -> bool {
        let tenths = |shards: u64| shards.saturating_mul(10).checked_div(view.shards).unwrap_or(0);
        let (done_tenths, attempted_tenths) = (tenths(view.shards_done), tenths(view.attempts));
        let deserves = self.last.as_ref().is_none_or(|last| {
            let waited = now.saturating_duration_since(last.at);
            let more = done_tenths > last.done_tenths || attempted_tenths > last.attempted_tenths;
            last.state != view.state
                || last.waiting != view.waiting
                || waited >= LINE_PATIENCE
                || waited >= LINE_INTERVAL && more
        });
        if deserves {
            let (state, waiting) = (view.state, view.waiting.clone());
            self.last = Some(Line { at: now, done_tenths, attempted_tenths, state, waiting });
        }
        deserves
    }
}

impl Progress {
    /// Progress of one job, nothing of which is known yet.
    pub(crate) fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {elapsed}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"))
        });
        Progress { bar, lines: Lines::default(), uploads: UploadDisplay::new(true) }
    }

    /// Shows where the job stands.
    pub(crate) fn update(&mut self, view: &JobView) {
        let said = sentence(view);
        match &self.bar {
            Some(bar) => {
                bar.set_length(view.shards.max(1));
                bar.set_position(view.shards_done);
                bar.set_message(said);
            }
            None if self.lines.deserves(view, Instant::now()) => eprintln!("{said}"),
            None => {}
        }
    }

    /// Shows how many of the shards of a local computation are done; on a terminal only.
    pub(crate) fn counted(&mut self, done: u64, shards: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(shards.max(1));
            bar.set_position(done);
        }
    }

    /// Says something beside the progress.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        self.uploads.clear();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Attempts are told while they are ahead of the shards done: work that waits to be confirmed.
fn sentence(view: &JobView) -> String {
    let mut text = format!("{} of {} shards done", grouped(view.shards_done), grouped(view.shards));
    if view.state.is_open() && view.attempts > view.shards_done {
        text += &format!(", {} attempts made", grouped(view.attempts));
    }
    match (&view.waiting, view.state) {
        (Some(waiting), _) => text += &format!(", waiting: {waiting}"),
        (None, JobState::Queued) => text += ", queued",
        (None, JobState::Failed) => text += ", failed",
        (None, JobState::Cancelled) => text += ", cancelled",
        (None, JobState::Running | JobState::Done) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(done: u64) -> JobView {
        let text = format!(
            r#"{{"id":"job_019a7b8c9d0e0102030405060708090a","name":"n","project":"p","state":"running",
            "manifest_digest":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","verify":"standard",
            "priority":"batch","created_ms":0,"ended_ms":null,"paths":1,"extends":null,"cost":1,"shards":1000,
            "shards_done":{done},"attempts":0,"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[],"digest":null,
            "failure":null,"waiting":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_log_gets_a_line_for_each_tenth_and_never_two_in_a_second() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut lines = Lines::default();
        assert!(lines.deserves(&view(0), at(0)));
        assert!(!lines.deserves(&view(500), at(900)), "too soon");
        assert!(lines.deserves(&view(510), at(1_000)));
        assert!(!lines.deserves(&view(590), at(5_000)), "less than a tenth more");
        assert!(lines.deserves(&view(591), at(31_000)), "half a minute of silence");
        assert!(lines.deserves(&view(600), at(32_000)));
        assert_eq!(sentence(&view(12)), "12 of 1,000 shards done");
    }

    #[test]
    fn a_new_state_or_reason_to_wait_is_told_at_once_and_unconfirmed_work_is_seen() {
        let start = Instant::now();
        let mut lines = Lines::default();
        let queued = JobView { state: JobState::Queued, ..view(0) };
        assert!(lines.deserves(&queued, start));
        assert!(lines.deserves(&view(0), start), "it runs");
        let waiting = JobView { waiting: Some("no agent is connected".to_owned()), ..view(0) };
        assert!(lines.deserves(&waiting, start));
        assert!(!lines.deserves(&waiting, start));
        assert!(lines.deserves(&view(0), start), "it waits no more");
        let computed = JobView { attempts: 990, ..view(0) };
        assert!(lines.deserves(&computed, start + LINE_INTERVAL));
        assert_eq!(sentence(&computed), "0 of 1,000 shards done, 990 attempts made");
        assert_eq!(sentence(&waiting), "0 of 1,000 shards done, waiting: no agent is connected");
    }
}
