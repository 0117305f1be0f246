//! Files that go to the hub before their job: a bar on a terminal, a line for each file elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tessera_client::api::{Hub, HubError, UploadNews};
use tessera_client::render::grouped;
use tessera_client::spec_file::LocalInput;

/// Least time between two steps of a bar.
const STEP_INTERVAL: Duration = Duration::from_millis(100);

/// What a person may be told about a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UploadStep {
    /// It begins to leave, or goes on.
    Begins(String),
    /// How far it is.
    Moves {
        /// The file and what is done with it.
        what: String,
        /// How many of its bytes have left.
        sent: u64,
        /// How long it is.
        bytes: u64,
    },
    /// It is at the hub now.
    Ends(String),
    /// Something else.
    Says(String),
}

/// Sends the files that the hub has not, saying how far it is.
pub(super) fn upload(
    hub: &Hub,
    project: &str,
    files: &[LocalInput],
    tell: &dyn Fn(UploadStep),
) -> Result<(), HubError> {
    for file in files {
        let (name, bytes) = (&file.input.name, file.input.bytes);
        let size = grouped(bytes);
        let (last, waits, was_here) = (Cell::new(None::<Instant>), Cell::new(false), Cell::new(false));
        let moves = |sent: u64, what: String| {
            let is_due = last.get().is_none_or(|at| at.elapsed() >= STEP_INTERVAL);
            if is_due || sent == bytes {
                last.set(Some(Instant::now()));
                tell(UploadStep::Moves { what, sent, bytes });
            }
        };
        hub.upload(project, &file.input, &file.path, &|news| match news {
            UploadNews::Here => {
                was_here.set(true);
                tell(UploadStep::Says(format!("{name} is at the hub already ({size} bytes)")));
            }
            UploadNews::From(0) => tell(UploadStep::Begins(format!("uploading {name} ({size} bytes)"))),
            UploadNews::From(byte) => tell(UploadStep::Begins(format!(
                "uploading {name} ({size} bytes, {} of them are at the hub already)",
                grouped(byte)
            ))),
            UploadNews::Sent(sent) if sent == bytes => {
                moves(sent, format!("{name}: the hub compares its digest"))
            }
            UploadNews::Sent(sent) => moves(sent, name.clone()),
            UploadNews::Busy(received) => {
                if !waits.replace(true) {
                    tell(UploadStep::Says(format!("{name}: waiting for another upload of it to end")));
                }
                moves(received, format!("{name}: another upload of it is under way"));
            }
            UploadNews::Again(error) => {
                let said = error.to_string();
                let why = said.lines().next().unwrap_or_default();
                tell(UploadStep::Says(format!("{name}: {why}; trying again")));
            }
        })?;
        if !was_here.get() {
            tell(UploadStep::Ends(format!("uploaded {name} ({size} bytes)")));
        }
    }
    Ok(())
}

/// Shows uploads on standard error.
pub(crate) struct UploadDisplay {
    has_bars: bool,
    bar: Option<ProgressBar>,
}

impl UploadDisplay {
    /// Bars where there is a terminal, unless what is printed is for a program.
    pub(crate) fn new(json: bool) -> UploadDisplay {
        UploadDisplay { has_bars: !json && std::io::stderr().is_terminal(), bar: None }
    }

    /// Shows what happened. Without a bar a file has one line, and what goes wrong with it others.
    pub(crate) fn show(&mut self, step: &UploadStep) {
        match step {
            UploadStep::Begins(line) if !self.has_bars => eprintln!("{line}"),
            UploadStep::Begins(_) => {}
            UploadStep::Moves { what, sent, bytes } if self.has_bars => {
                let bar = self.bar.get_or_insert_with(|| bar(*bytes, *sent));
                bar.set_message(what.clone());
                bar.set_position(*sent);
            }
            UploadStep::Moves { .. } => {}
            UploadStep::Ends(line) => {
                self.clear();
                if self.has_bars {
                    eprintln!("{line}");
                }
            }
            UploadStep::Says(line) => match &self.bar {
                Some(bar) => bar.suspend(|| eprintln!("{line}")),
                None => eprintln!("{line}"),
            },
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(bytes: u64, sent: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
    let style = "{bar:40} {percent:>3} %  {msg}  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bar.with_style(style.progress_chars("━╸─")).with_position(sent);
    // What was there before says nothing about the speed now.
    bar.reset_eta();
    bar
}
