//! The supervisor's thread: starts, watches, restarts and stops the children.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::{
    HUB_PATIENCE, LocalError, LocalPlan, Member, Notice, READY_TIMEOUT, RESTARTS_MAX, Ready, process,
};
use crate::api::Hub;

/// How often the children are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Pause before a restart, times the number of restarts so far.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Longest ready line. *Units*: bytes.
const READY_BYTES_MAX: u64 = 64 << 10;

/// What others ask of the supervisor.
pub(super) struct Flags {
    /// The owner is done.
    pub(super) stop: Arc<AtomicBool>,
    /// A person is done.
    pub(super) interrupted: Arc<AtomicBool>,
}

impl Flags {
    fn raised(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.interrupted.load(Ordering::Relaxed)
    }
}

/// Runs until stopped. `started` hears once whether the start succeeded.
pub(super) fn run(
    plan: LocalPlan,
    flags: &Flags,
    started: &SyncSender<Result<Hub, LocalError>>,
    on_notice: impl FnMut(Notice),
) {
    let mut fleet = Fleet {
        plan,
        flags,
        on_notice,
        hub: None,
        api: None,
        tokens: BTreeMap::new(),
        children: BTreeMap::new(),
    };
    // The owner waits for this one message; when it has gone, its stop flag is what counts.
    match fleet.start() {
        Ok(hub) => {
            let _ = started.send(Ok(hub));
            fleet.watch();
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
}

struct Running {
    child: Child,
    restarts: u32,
}

struct Fleet<'a, F: FnMut(Notice)> {
    plan: LocalPlan,
    flags: &'a Flags,
    on_notice: F,
    /// What the hub said when it was first ready: a restart takes the same ports.
    hub: Option<Ready>,
    /// Where that hub answers.
    api: Option<Hub>,
    /// The enrolment token of each agent, by its number.
    tokens: BTreeMap<u16, String>,
    children: BTreeMap<Member, Running>,
}

impl<F: FnMut(Notice)> Drop for Fleet<'_, F> {
    fn drop(&mut self) {
        process::stop_all(self.children.values_mut().map(|running| &mut running.child));
    }
}

impl<F: FnMut(Notice)> Fleet<'_, F> {
    fn start(&mut self) -> Result<Hub, LocalError> {
        let data = self.plan.data.clone();
        std::fs::create_dir_all(&data).map_err(|source| LocalError::Data { path: data, source })?;
        let child = self.spawn_hub()?;
        self.note_started(Member::Hub, child, 0);
        let Some(ready) = self.hub.clone() else {
            return Err(LocalError::Interrupted);
        };
        let key = self.key(ready.api_key.as_deref())?;
        let hub = Hub::new(&format!("http://{}", ready.http), Some(&key))
            .map_err(|source| LocalError::BadAddress { source })?;
        self.api = Some(hub.clone());
        for number in 1..=self.plan.agents {
            let token = match number {
                1 => ready.agent_token.clone(),
                _ => {
                    let issued = hub.issue_agent_token(None);
                    issued.map_err(|source| LocalError::NoToken { source: Box::new(source) })?.token
                }
            };
            self.tokens.insert(number, token);
            let child = self.spawn_agent(number)?;
            self.note_started(Member::Agent(number), child, 0);
        }
        // Only now: while it starts, a person who wants to stop need not wait for a hub that is gone.
        Ok(hub.with_patience(HUB_PATIENCE))
    }

    fn watch(&mut self) {
        while !self.flags.raised() {
            let members: Vec<Member> = self.children.keys().copied().collect();
            for member in members {
                self.look_at(member);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn look_at(&mut self, member: Member) {
        let Some(running) = self.children.get_mut(&member) else { return };
        let Ok(Some(status)) = running.child.try_wait() else { return };
        let (pid, restarts) = (running.child.id(), running.restarts);
        self.children.remove(&member);
        if restarts >= RESTARTS_MAX {
            let error = self.ended(member, status);
            return (self.on_notice)(Notice::GaveUp { member, error });
        }
        (self.on_notice)(Notice::Died { member, pid, status });
        self.start_again(member, restarts);
    }

    fn start_again(&mut self, member: Member, restarts_before: u32) {
        for restarts in restarts_before + 1..=RESTARTS_MAX {
            self.pause(RESTART_PAUSE * (restarts - 1));
            let child = match member {
                Member::Hub => self.spawn_hub(),
                Member::Agent(number) => {
                    self.renew_token(number);
                    self.spawn_agent(number)
                }
            };
            match child {
                Ok(child) => return self.note_started(member, child, restarts),
                Err(LocalError::Interrupted) => return,
                // What it held may not be free yet: its port, the lock on its data.
                Err(LocalError::Ended { .. }) if restarts < RESTARTS_MAX => {}
                Err(error) => return (self.on_notice)(Notice::GaveUp { member, error }),
            }
        }
    }

    fn pause(&self, how_long: Duration) {
        let since = Instant::now();
        while since.elapsed() < how_long && !self.flags.raised() {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn note_started(&mut self, member: Member, child: Child, restarts: u32) {
        let pid = child.id();
        self.children.insert(member, Running { child, restarts });
        (self.on_notice)(Notice::Started { member, pid, again: restarts > 0 });
    }

    fn log_of(&self, member: Member) -> PathBuf {
        self.plan.data.join(format!("{member}.log"))
    }

    fn ended(&self, member: Member, status: std::process::ExitStatus) -> LocalError {
        LocalError::Ended { member, status, log: process::log_tail(&self.log_of(member)) }
    }

    /// Starts the hub and waits until it listens: on ports of the kernel's choice the first time, on the same
    /// ones afterwards.
    fn spawn_hub(&mut self) -> Result<Child, LocalError> {
        let (http, quic) = match &self.hub {
            Some(ready) => (ready.http.as_str(), ready.quic.as_str()),
            None => ("127.0.0.1:0", "127.0.0.1:0"),
        };
        let mut command = Command::new(&self.plan.programs.hub);
        command.arg("serve").arg("--data").arg(self.plan.data.join("hub"));
        command.args(["--lanes", &self.plan.lanes.to_string(), "--http", http, "--quic", quic, "--json"]);
        let log = self.log_of(Member::Hub);
        let child = process::spawn(&mut command, &log, Stdio::piped());
        let mut child = child
            .map_err(|source| LocalError::NotStarted { program: self.plan.programs.hub.clone(), source })?;
        match self.ready(&mut child) {
            Ok(ready) => {
                self.hub.get_or_insert(ready);
                Ok(child)
            }
            Err(error) => {
                process::stop_all(std::iter::once(&mut child));
                Err(error)
            }
        }
    }

    fn ready(&self, hub: &mut Child) -> Result<Ready, LocalError> {
        let (sender, lines) = mpsc::sync_channel(1);
        if let Some(stdout) = hub.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = Vec::new();
                let read = (&mut stdout).take(READY_BYTES_MAX).read_until(b'\n', &mut line);
                if read.is_ok() && sender.send(line).is_ok() {
                    // The pipe is read to its end, so that a hub that says more never blocks on it.
                    let _ = std::io::copy(&mut stdout, &mut std::io::sink());
                }
            });
        }
        let since = Instant::now();
        let mut status = None;
        while since.elapsed() < READY_TIMEOUT {
            if self.flags.raised() {
                return Err(LocalError::Interrupted);
            }
            match lines.recv_timeout(LOOK_INTERVAL) {
                Ok(line) if !line.is_empty() => {
                    return serde_json::from_slice(&line).map_err(|source| LocalError::NotReady {
                        source,
                        line: String::from_utf8_lossy(&line).into_owned(),
                    });
                }
                // The pipe has ended: the hub is ending, and how is known in a moment.
                Ok(_) | Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_INTERVAL),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = status {
                return Err(self.ended(Member::Hub, status));
            }
            // Looked at once more after it ended: its last line may still be on the way.
            status = hub.try_wait().unwrap_or_default();
        }
        Err(LocalError::Silent { log: process::log_tail(&self.log_of(Member::Hub)) })
    }

    /// A hub that was killed before an agent enrolled does not know that agent's token any more.
    fn renew_token(&mut self, number: u16) {
        // Where the hub does not answer, the old one may still do, or the next start finds it back.
        if let Some(Ok(issued)) = self.api.as_ref().map(|hub| hub.issue_agent_token(None)) {
            self.tokens.insert(number, issued.token);
        }
    }

    fn spawn_agent(&mut self, number: u16) -> Result<Child, LocalError> {
        let member = Member::Agent(number);
        let hub = self.hub.as_ref().map(|ready| ready.quic.as_str()).unwrap_or_default();
        let token = self.tokens.get(&number).map(String::as_str).unwrap_or_default();
        let mut command = Command::new(&self.plan.programs.agent);
        command.args(["--hub", hub, "--token", token, "--name", &member.to_string()]);
        command.args(["--slots", &self.plan.slots.to_string()]);
        command.arg("--data").arg(self.plan.data.join(member.to_string()));
        let child = process::spawn(&mut command, &self.log_of(member), Stdio::null());
        child.map_err(|source| LocalError::NotStarted { program: self.plan.programs.agent.clone(), source })
    }

    /// The hub's API key: told on the first start of a data directory, and kept beside it for the next.
    fn key(&self, told: Option<&str>) -> Result<String, LocalError> {
        let path = self.plan.data.join("api-key");
        match told {
            Some(key) => {
                write_secret(&path, key).map_err(|source| LocalError::Data { path, source })?;
                Ok(key.to_owned())
            }
            None => crate::config::key_in(&path).map_err(|_| LocalError::NoKey { path }),
        }
    }
}

fn write_secret(path: &Path, secret: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    writeln!(file, "{secret}")
}
