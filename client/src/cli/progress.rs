//! How far a job is, on standard error: a bar on a terminal, now and then a line elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tessera_client::render::grouped;
use tessera_protocol::api::{JobState, JobView};

/// Least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// A line is written this long after the last one even when little has changed.
const LINE_PATIENCE: Duration = Duration::from_secs(30);

/// Shows progress.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Lines,
}

/// Decides which changes deserve a line: the first, then each tenth of the job or half a minute, at most one
/// a second.
#[derive(Default)]
struct Lines {
    last: Option<(Instant, u64)>,
}

impl Lines {
    fn deserves(&mut self, view: &JobView, now: Instant) -> bool {
        let tenth = (view.shards_done.saturating_mul(10)).checked_div(view.shards).unwrap_or(0);
        let deserves = match self.last {
            None => true,
            Some((at, before)) => {
                let waited = now.saturating_duration_since(at);
                waited >= LINE_PATIENCE || (waited >= LINE_INTERVAL && tenth > before)
            }
        };
        if deserves {
            self.last = Some((now, tenth));
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
        Progress { bar, lines: Lines::default() }
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

    /// Says something beside the progress.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn sentence(view: &JobView) -> String {
    let shards = format!("{} of {} shards", grouped(view.shards_done), grouped(view.shards));
    match (&view.waiting, view.state) {
        (Some(waiting), _) => format!("{shards}, waiting: {waiting}"),
        (None, JobState::Queued) => format!("{shards}, queued"),
        (None, _) => shards,
    }
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
        assert_eq!(sentence(&view(12)), "12 of 1,000 shards");
    }
}
