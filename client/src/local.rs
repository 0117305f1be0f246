//! A hub and its agents as child processes on this machine, for `tessera run`.
//!
//! One supervisor thread starts every child, looks whether each still lives, and starts again what died:
//! the same data directory, the same ports. It must be that thread which starts them, since the kernel ends
//! a child when the thread that started it ends (`process::spawn`). Children die with their parent, however
//! the parent ends.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;

use crate::api::{Hub, HubError, HubUrlError};

mod process;
mod supervisor;

/// How often one child is started again before the supervisor gives up on it.
pub const RESTARTS_MAX: u32 = 5;
/// How long a hub may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a hub that restarts is waited for by calls.
const HUB_PATIENCE: Duration = Duration::from_secs(60);

/// The programs that are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Program of the hub.
    pub hub: PathBuf,
    /// Program of an agent.
    pub agent: PathBuf,
}

impl Programs {
    /// The programs in a folder.
    ///
    /// *Errors*: one of them is not there.
    pub fn in_folder(folder: &Path) -> Result<Programs, LocalError> {
        let find = |name: &'static str| {
            let path = folder.join(name);
            match path.is_file() {
                true => Ok(path),
                false => Err(LocalError::NoProgram { name, folder: folder.to_owned() }),
            }
        };
        Ok(Programs { hub: find("hub")?, agent: find("agent")? })
    }
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlan {
    /// Which programs.
    pub programs: Programs,
    /// Where hub and agents keep what they know; made when it is not there.
    pub data: PathBuf,
    /// Agents.
    pub agents: u16,
    /// Lanes of the hub.
    pub lanes: u16,
    /// Shards that each agent computes at once.
    pub slots: u16,
}

/// One child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// The hub.
    Hub,
    /// An agent, counted from one.
    Agent(u16),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Hub => f.write_str("hub"),
            Member::Agent(number) => write!(f, "agent-{number}"),
        }
    }
}

/// What happened to a child.
#[derive(Debug)]
pub enum Notice {
    /// It runs.
    Started {
        /// Which.
        member: Member,
        /// Its process id.
        pid: u32,
        /// Whether it ran before.
        again: bool,
    },
    /// It ended although nobody asked it to.
    Died {
        /// Which.
        member: Member,
        /// The process id it had.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
    /// It died too often, or cannot be started, and stays away.
    GaveUp {
        /// Which.
        member: Member,
        /// Why.
        error: LocalError,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Started { member, pid, again } => {
                write!(f, "{member} {} (pid {pid})", if *again { "runs again" } else { "runs" })
            }
            Notice::Died { member, pid, status } => {
                write!(f, "{member} (pid {pid}) ended unexpectedly, {status}; starting it again")
            }
            Notice::GaveUp { member, error } => write!(f, "{member} stays away: {error}"),
        }
    }
}

/// Why there is no local hub, or no longer one.
#[derive(Debug)]
pub enum LocalError {
    /// A program is not where it should be.
    NoProgram {
        /// Which.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A folder or file of the data directory cannot be written.
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system does not start a program.
    NotStarted {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A child ended before it was of use, or too often.
    Ended {
        /// Which.
        member: Member,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        log: String,
    },
    /// A child runs and says nothing.
    Silent {
        /// The last lines it wrote.
        log: String,
    },
    /// The hub's first line is not what it should be.
    NotReady {
        /// What is wrong with it.
        source: serde_json::Error,
        /// The line.
        line: String,
    },
    /// The data directory's hub was first started by someone else, who has its key.
    NoKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The hub gives no tokens to its agents.
    NoToken {
        /// Why.
        source: Box<HubError>,
    },
    /// The address that the hub printed is none.
    BadAddress {
        /// Why.
        source: HubUrlError,
    },
    /// Somebody asked to stop while it was starting.
    Interrupted,
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalError::NoProgram { name, folder } => write!(
                f,
                "no program `{name}` in {}\nhint: build it with `cargo build --release --bins`, or name its folder in \
                 TESSERA_BIN_DIR",
                folder.display()
            ),
            LocalError::Data { path, source } => write!(f, "cannot write {}: {source}", path.display()),
            LocalError::NotStarted { program, source } => {
                write!(f, "cannot start {}: {source}", program.display())
            }
            LocalError::Ended { member, status, log } => {
                let article = if *member == Member::Hub { "the " } else { "" };
                write!(f, "{article}{member} ended, {status}{}", indented(log))
            }
            LocalError::Silent { log } => write!(
                f,
                "the hub did not say within {} s that it is ready{}",
                READY_TIMEOUT.as_secs(),
                indented(log)
            ),
            LocalError::NotReady { source, line } => write!(
                f,
                "the hub's first line is not what this version expects: {source}: {line:?}\nhint: are `tessera` and `hub` \
                 of the same build?"
            ),
            LocalError::NoKey { path } => write!(
                f,
                "this data directory has a hub already, and its API key is not in {}\nhint: put it there, or choose \
                 another --data",
                path.display()
            ),
            LocalError::NoToken { source } => write!(f, "cannot enrol agents: {source}"),
            LocalError::BadAddress { source } => source.fmt(f),
            LocalError::Interrupted => f.write_str("interrupted while starting"),
        }
    }
}

fn indented(log: &str) -> String {
    log.lines().map(|line| format!("\n  {line}")).collect()
}

impl std::error::Error for LocalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LocalError::Data { source, .. } | LocalError::NotStarted { source, .. } => Some(source),
            LocalError::NotReady { source, .. } => Some(source),
            LocalError::NoToken { source } => Some(source),
            LocalError::BadAddress { source } => Some(source),
            _ => None,
        }
    }
}

/// The line a hub prints when it listens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Ready {
    http: String,
    quic: String,
    api_key: Option<String>,
    agent_token: String,
}

/// A running hub with its agents. Dropping it stops them all.
#[derive(Debug)]
pub struct Local {
    hub: Hub,
    stop: Arc<AtomicBool>,
    supervisor: Option<JoinHandle<()>>,
}

impl Local {
    /// Starts hub and agents, and returns when the hub listens and every agent's process runs.
    ///
    /// `on_notice` is called from the supervisor's thread. Setting `interrupted` ends the start early.
    pub fn start(
        plan: LocalPlan,
        interrupted: Arc<AtomicBool>,
        on_notice: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Local, LocalError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (started, outcome) = mpsc::sync_channel(1);
        let flags = supervisor::Flags { stop: Arc::clone(&stop), interrupted };
        let supervisor = std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || supervisor::run(plan, &flags, &started, on_notice))
            .map_err(|source| LocalError::NotStarted {
                program: PathBuf::from("the supervisor's thread"),
                source,
            })?;
        // A supervisor that ends without a word has panicked; its children are gone with it.
        let hub = outcome.recv().unwrap_or(Err(LocalError::Interrupted))?;
        Ok(Local { hub, stop, supervisor: Some(supervisor) })
    }

    /// The hub, with patience for its restarts.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(supervisor) = self.supervisor.take() {
            // A supervisor that panicked has left no children behind.
            let _ = supervisor.join();
        }
    }
}

#[cfg(test)]
mod tests;
