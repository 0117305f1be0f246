//! The real programs as children: started, killed as a power switch does it, started again where they were.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tessera_client::api;
use tessera_protocol::id::HubId;

use super::Failure;

/// How long a hub that was told to stop may take.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A program of the same build as this one: beside it, or above it where this one is a test.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let this = std::env::current_exe().map_err(Failure::System)?;
    let folders = this.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Failure::NotBuilt { program: name.to_owned() })
}

/// What a hub is started with.
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    /// A file that says where its store is, in a folder of which `data` is a part.
    pub(crate) config: Option<PathBuf>,
    /// Variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// A hub on loopback; killed when dropped.
pub(crate) struct Hub {
    child: Child,
    place: Place,
    http: String,
    pub(crate) quic: String,
    pub(crate) api_key: String,
    /// Enrols an agent of the operator's own.
    pub(crate) token: String,
    /// Which of many on one store it is.
    hub: Option<HubId>,
}

impl Hub {
    pub(crate) fn start(place: Place) -> Result<Hub, Failure> {
        let (child, said) = spawn(&place, "127.0.0.1:0", "127.0.0.1:0")?;
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let (http, quic, api_key) = (text("http"), text("quic"), text("api_key"));
        let (token, hub) = (text("agent_token"), text("hub").parse().ok());
        Ok(Hub { child, http, quic, api_key, token, hub, place })
    }

    /// The hub, asked with a key that another on its store made.
    pub(crate) fn known_by(mut self, api_key: &str) -> Hub {
        self.api_key = api_key.to_owned();
        self
    }

    /// Which of many on one store it is.
    pub(crate) fn id(&self) -> Result<HubId, Failure> {
        self.hub.ok_or_else(|| Failure::Said("the hub does not say which of many it is".to_owned()))
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Failure> {
        let pid = self.child.id().to_string();
        let sent =
            Command::new("kill").args([&format!("-{name}"), &pid]).status().map_err(Failure::System)?;
        if sent.success() { Ok(()) } else { Err(Failure::Said(format!("no signal {name} for {pid}"))) }
    }

    /// Waits until its process ends.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().map_err(Failure::System)? {
                return Ok(status);
            }
            if started.elapsed() > patience {
                return Err(Failure::Said("the hub does not stop".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.signal("TERM")?;
        self.wait(STOP_MAX).map(drop)
    }

    /// Kills it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        end(&mut self.child)
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) -> Result<(), Failure> {
        (self.child, _) = spawn(&self.place, &self.http, &self.quic)?;
        Ok(())
    }

    /// Its API.
    pub(crate) fn api(&self) -> Result<api::Hub, Failure> {
        let url = format!("http://{}", self.http);
        api::Hub::new(&url, Some(&self.api_key)).map_err(|error| Failure::Said(error.to_string()))
    }

    /// Stops it as an operator does, and checks its store where this build of it can.
    pub(crate) fn stop_and_check(self) -> Result<bool, Failure> {
        let data = self.place.data.clone();
        self.stop()?;
        check(&["--data".as_ref(), data.as_os_str()])
    }
}

/// Runs a command of the hub to its end.
pub(crate) fn hub(arguments: &[&OsStr]) -> Result<(), Failure> {
    let output = Command::new(program("hub")?).args(arguments).output().map_err(Failure::System)?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(Failure::Said(said())) }
}

/// Whether `hub check` was there and found nothing.
pub(crate) fn check(place: &[&OsStr]) -> Result<bool, Failure> {
    let hub = program("hub")?;
    let known = Command::new(&hub).args(["check", "--help"]).output().map_err(Failure::System)?;
    if !known.status.success() {
        return Ok(false);
    }
    let output = Command::new(&hub).arg("check").args(place).output().map_err(Failure::System)?;
    if output.status.success() {
        return Ok(true);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Failure::Said(format!("hub check: {}", String::from_utf8_lossy(&said))))
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = end(&mut self.child);
    }
}

fn spawn(place: &Place, http: &str, quic: &str) -> Result<(Child, Value), Failure> {
    let log = File::options().create(true).append(true).open(place.data.with_extension("log"));
    let mut child = Command::new(program("hub")?)
        .args(["serve", "--json", "--log", "warn", "--lanes", "1", "--http", http, "--quic", quic])
        .args(match &place.config {
            Some(config) => ["--config".as_ref(), config.as_os_str()],
            None => ["--data".as_ref(), place.data.as_os_str()],
        })
        .envs(place.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.map_err(Failure::System)?)
        .spawn()
        .map_err(Failure::System)?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or(Failure::Silent)?;
    BufReader::new(stdout).read_line(&mut line).map_err(Failure::System)?;
    match serde_json::from_str(&line) {
        Ok(said) => Ok((child, said)),
        Err(_) => {
            let _ = end(&mut child);
            let log = std::fs::read_to_string(place.data.with_extension("log")).unwrap_or_default();
            let last = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
            Err(Failure::Said(format!("the hub does not start: {line}{last}")))
        }
    }
}

/// `kill -9`.
fn end(child: &mut Child) -> Result<(), Failure> {
    child.kill().map_err(Failure::System)?;
    child.wait().map_err(Failure::System)?;
    Ok(())
}

/// An agent with one slot; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    hub: String,
    data: PathBuf,
    token: String,
}

impl Agent {
    pub(crate) fn start(hub: &str, data: PathBuf, token: String) -> Result<Agent, Failure> {
        let child = spawn_agent(hub, &data, &token)?;
        Ok(Agent { child, hub: hub.to_owned(), data, token })
    }

    /// Kills it and starts it again where it was: it needs no new token.
    pub(crate) fn crash_and_restart(&mut self) -> Result<(), Failure> {
        end(&mut self.child)?;
        self.child = spawn_agent(&self.hub, &self.data, &self.token)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = end(&mut self.child);
    }
}

fn spawn_agent(hub: &str, data: &Path, token: &str) -> Result<Child, Failure> {
    Command::new(program("agent")?)
        .args(["--hub", hub, "--token", token, "--slots", "1", "--name", "agent", "--gpus", "none", "--data"])
        .arg(data)
        // It would try out a video encoder before it connects, which takes longer than most lives here.
        .env("PATH", data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Failure::System)
}
