//! `tessera run`: a hub and agents of this machine for the time of one job.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tessera_client::api::IdempotencyKey;
use tessera_client::local::{Local, LocalError, LocalPlan, Member, Notice, Programs};
use tessera_client::render::{MatrixResult, StagedResult};
use tessera_media::Encoder;
use tessera_protocol::api::{AgentList, AgentState};
use tessera_protocol::spec::Params;

use super::args::Run;
use super::attend::{self, Happening, attend};
use super::matrices::{save, save_all};
use super::uploads::{UploadDisplay, upload};
use super::{Failure, Progress, Setting, load, report, write_file};

/// How long the job waits for agents that were just started.
const AGENTS_PATIENCE: Duration = Duration::from_secs(5);
const AGENTS_POLL: Duration = Duration::from_millis(10);

pub(super) fn run(command: &Run) -> Result<(), Failure> {
    // Its agents are of this machine.
    let encoder = |opus: bool| {
        let encoder = Encoder::find().ok()?;
        Some(if opus { encoder.opus_build() } else { encoder.build() })
    };
    let (spec, files) = load(&command.file, command.shard_size, &encoder)?;
    let is_folder = matches!(spec.params, Params::Staged(_));
    let output = command.output.clone().or_else(|| is_folder.then(|| folder_of(&command.file)));
    if let Some(path) = &output {
        takes_result(path, &spec.params).map_err(|source| Failure::Write { path: path.clone(), source })?;
    }
    let programs = Programs::in_folder(&program_folder()?)?;
    let key = IdempotencyKey::random()?;
    let interrupted = attend::interrupts()?;
    let temporary = match &command.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("tessera-run-").tempdir().map_err(Failure::System)?),
    };
    let kept = command.data.clone();
    let data = match (&kept, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => PathBuf::new(),
    };
    let plan = LocalPlan {
        programs,
        data,
        agents: command.agents,
        lanes: command.lanes,
        slots: command.slots.unwrap_or_else(|| share_of_processors(command.agents)),
    };

    let stopped = |failure| match failure {
        Failure::StoppedWatching { .. } | Failure::Local(LocalError::Interrupted) => {
            Failure::StoppedRun { kept: kept.clone() }
        }
        other => other,
    };
    let (happenings, inbox) = attend::channel();
    let notices = happenings.clone();
    let local = Local::start(plan, Arc::clone(&interrupted), move |notice| {
        // Nobody listens any more when the command is ending.
        let _ = notices.send(Happening::Notice(notice));
    });
    let local = local.map_err(|error| stopped(error.into()))?;

    let mut progress = Progress::new();
    progress.uploads = UploadDisplay::new(command.json);
    let mut pids = Pids { expected: usize::from(command.agents) + 1, known: Vec::new() };
    let mut lost = 0;
    let mut on_notice = |notice: Notice| match notice {
        Notice::GaveUp { member, error } => {
            lost += u16::from(member != Member::Hub);
            match member == Member::Hub || lost == command.agents {
                true => Err(Failure::Local(error)),
                false => Ok(()),
            }
        }
        Notice::Started { .. } | Notice::Died { .. } => Ok(()),
    };
    pids.announce(&inbox, &mut on_notice)?;
    await_agents(local.hub(), command.agents, &interrupted);
    let since = Instant::now();
    let teller = happenings.clone();
    let begin = move |hub: &tessera_client::api::Hub| {
        // Nobody listens any more when the command was interrupted.
        upload(hub, &spec.project, &files, &|step| drop(teller.send(Happening::Uploaded(step))))?;
        hub.submit(&spec, &key)
    };
    let finished =
        attend(local.hub(), begin, happenings, &inbox, &interrupted, &mut progress, &mut on_notice);
    progress.finish();
    if interrupted.load(Ordering::Relaxed) {
        eprintln!("stopping the hub and the agents");
    }
    let finished = finished.map_err(stopped)?;
    let elapsed_ms = since.elapsed().as_millis() as u64;
    let mut written = None;
    if let Some(document) = &finished.document {
        let (hub, id) = (local.hub(), finished.view.id);
        if let Some(path) = &output {
            if let Some(result) = StagedResult::read(document) {
                save_all(hub, id, &result, path)?;
                written = Some(path);
            } else if let Some(result) = MatrixResult::read(document) {
                save(hub, id, &result.output, path)?;
            } else {
                write_file(path, document)?;
            }
        }
    }
    drop(local);

    let setting = Setting { agents: command.agents, lanes: command.lanes, elapsed_ms };
    report(&finished, command.json, Some(&setting))?;
    if let Some(folder) = written {
        eprintln!("files written to {}", folder.display());
    }
    Ok(())
}

/// Whether a result of such a job can be written there: after the job, what it computed would be lost.
fn takes_result(path: &Path, params: &Params) -> io::Result<()> {
    let or_here = |at: &Path| if at == Path::new("") { PathBuf::from(".") } else { at.to_owned() };
    // A matrix takes the place of what is there; a document is written into it.
    let is_matrix = matches!(params, Params::Gemm(_) | Params::Syrk(_));
    let folder = if matches!(params, Params::Staged(_)) {
        path.ancestors().map(or_here).find(|at| at.exists())
    } else if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    } else if path == Path::new("-") || path.exists() && !path.is_file() {
        return Ok(());
    } else if path.is_file() && !is_matrix {
        return OpenOptions::new().append(true).open(path).map(drop);
    } else {
        path.parent().map(or_here)
    };
    tempfile::tempfile_in(folder.unwrap_or_else(|| ".".into())).map(drop)
}

/// Where the files of a job go whose user named no folder: beside nothing that is there, in the current one.
fn folder_of(file: &Path) -> PathBuf {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    PathBuf::from(stem + ".outputs")
}

/// Waits a little until all agents are connected, so that the first shards find somebody to check them. A
/// job without agents waits by itself, so giving up is no error.
fn await_agents(hub: &tessera_client::api::Hub, wanted: u16, interrupted: &AtomicBool) {
    // Its own patience would keep a person waiting who wants to stop.
    let hub = hub.clone().with_patience(Duration::ZERO);
    let started = Instant::now();
    while started.elapsed() < AGENTS_PATIENCE && !interrupted.load(Ordering::Relaxed) {
        let connected =
            |list: AgentList| list.agents.iter().filter(|agent| agent.state == AgentState::Connected).count();
        if hub.agents().is_ok_and(|list| connected(list) >= usize::from(wanted)) {
            return;
        }
        std::thread::sleep(AGENTS_POLL);
    }
}

/// The folder of this program, where its siblings are, unless the environment names another.
fn program_folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = std::env::var_os("TESSERA_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let program = std::env::current_exe().map_err(Failure::System)?;
    Ok(program.parent().map(PathBuf::from).unwrap_or_default())
}

/// Processors for each agent, at least one.
fn share_of_processors(agents: u16) -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / usize::from(agents)).clamp(1, usize::from(u16::MAX)) as u16
}

/// The process ids of the children, said in one line once all run.
struct Pids {
    expected: usize,
    known: Vec<String>,
}

impl Pids {
    /// The supervisor told of every start before it reported success, so the notices are there.
    fn announce(
        &mut self,
        inbox: &std::sync::mpsc::Receiver<Happening>,
        on_notice: &mut dyn FnMut(Notice) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        while self.known.len() < self.expected {
            match inbox.try_recv() {
                Ok(Happening::Notice(Notice::Started { member, pid, .. })) => {
                    self.known.push(format!("{member} {pid}"))
                }
                Ok(Happening::Notice(notice)) => {
                    eprintln!("{notice}");
                    on_notice(notice)?;
                }
                Ok(
                    Happening::Changed(_)
                    | Happening::HubAnswers(_)
                    | Happening::Uploaded(_)
                    | Happening::Ended(_),
                )
                | Err(_) => break,
            }
        }
        eprintln!("process ids: {}", self.known.join(", "));
        Ok(())
    }
}
