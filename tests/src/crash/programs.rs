//! The real programs as children: started, killed as a power switch does it, started again where they were.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tessera_client::api;

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
pub(super) struct Place {
    pub(super) data: PathBuf,
    /// Variables of its environment.
    pub(super) environment: Vec<(String, String)>,
}

/// A hub on loopback; killed when dropped.
pub(super) struct Hub {
    child: Child,
    place: Place,
    http: String,
    pub(super) quic: String,
    api_key: String,
}

impl Hub {
    pub(super) fn start(place: Place) -> Result<Hub, Failure> {
        let (child, said) = spawn(&place, "127.0.0.1:0", "127.0.0.1:0")?;
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        Ok(Hub { child, http: text("http"), quic: text("quic"), api_key: text("api_key"), place })
    }

    /// Kills it in the middle of whatever it does.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        end(&mut self.child)
    }

    /// Starts it again where it was.
    pub(super) fn start_again(&mut self) -> Result<(), Failure> {
        (self.child, _) = spawn(&self.place, &self.http, &self.quic)?;
        Ok(())
    }

    /// Its API.
    pub(super) fn api(&self) -> Result<api::Hub, Failure> {
        let url = format!("http://{}", self.http);
        api::Hub::new(&url, Some(&self.api_key)).map_err(|error| Failure::Said(error.to_string()))
    }

    /// Stops it as an operator does, and checks its store where this build of it can.
    pub(super) fn stop_and_check(mut self) -> Result<bool, Failure> {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(&pid).status().map_err(Failure::System)?;
        let started = Instant::now();
        while self.child.try_wait().map_err(Failure::System)?.is_none() {
            if started.elapsed() > STOP_MAX {
                return Err(Failure::Said("the hub does not stop".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        check(&self.place.data)
    }
}

/// Whether `hub check` was there and found nothing.
fn check(data: &Path) -> Result<bool, Failure> {
    let hub = program("hub")?;
    let known = Command::new(&hub).args(["check", "--help"]).output().map_err(Failure::System)?;
    if !known.status.success() {
        return Ok(false);
    }
    let output = Command::new(&hub).args(["check", "--data"]).arg(data).output().map_err(Failure::System)?;
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
        .args(["serve", "--json", "--log", "warn", "--lanes", "1", "--http", http, "--quic", quic, "--data"])
        .arg(&place.data)
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
pub(super) struct Agent {
    child: Child,
    hub: String,
    data: PathBuf,
    token: String,
}

impl Agent {
    pub(super) fn start(hub: &str, data: PathBuf, token: String) -> Result<Agent, Failure> {
        let child = spawn_agent(hub, &data, &token)?;
        Ok(Agent { child, hub: hub.to_owned(), data, token })
    }

    /// Kills it and starts it again where it was: it needs no new token.
    pub(super) fn crash_and_restart(&mut self) -> Result<(), Failure> {
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
