//! A real hub as a child process: started where it is told to run, asked over its API, watched from outside, killed.
//!
//! Owns the process and its folder. Every number it gives is the hub's own or the system's, never the load's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tessera_client::api::{self, HubError};
use tessera_hub::quic::{Identity, IdentityError, PublicKey};
use tessera_protocol::credits::ProviderName;
use tessera_protocol::token::EnrolmentToken;

use crate::fleet::Member;
use crate::machine::{self, Held, Usage};

/// How long a hub may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens asked for at once: the journal commits them together.
const ASKING: usize = 16;
/// In the hub's folder: its store, and its configuration file.
const DATA: &str = "data";
const CONFIG: &str = "hub.toml";
/// Of what a check found, so much is told.
const FINDINGS_SHOWN: usize = 3;
/// Agents of one provider.
const AGENTS_PER_PROVIDER: usize = 20;

/// Where a hub runs, and which.
#[derive(Args, Clone, Debug)]
pub(crate) struct HubArgs {
    /// The hub's program [default: `hub` beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) hub: Option<PathBuf>,
    /// Where the hub's folder is made and removed again: its disk is part of what is measured [default: the system's
    /// folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Lanes of the hub; end-to-end measures each of several, as in 1,2
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1])]
    pub(crate) lanes: Vec<u16>,
    /// Cores of the hub, as in 0,2 [default: as many of the first cores as the hub has lanes]
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub(crate) hub_cores: Vec<usize>,
    /// Cores of the load [default: those that the hub does not have]
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    pub(crate) load_cores: Vec<usize>,
    /// One agent in so many is the operator's own, whose answers settle disputes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) anchors_one_in: u32,
    /// What its configuration file says.
    #[arg(skip)]
    pub(crate) config: String,
}

impl HubArgs {
    /// *Errors*: several were asked for, of a scenario that measures one hub.
    pub(crate) fn lanes(&self) -> Result<u16, BenchError> {
        match self.lanes[..] {
            [lanes] => Ok(lanes),
            _ => Err(BenchError::Wrong("this scenario takes one number of --lanes".to_owned())),
        }
    }

    /// Cores of the hub, and of the load.
    fn cores(&self, lanes: u16) -> (Vec<usize>, Vec<usize>) {
        let (hub, rest) = HubArgs::cores_of(&self.hub_cores, lanes);
        (hub, if self.load_cores.is_empty() { rest } else { self.load_cores.clone() })
    }

    /// Those that were asked for, or as many of the first as there are lanes; and the others.
    pub(crate) fn cores_of(asked: &[usize], lanes: u16) -> (Vec<usize>, Vec<usize>) {
        let all = machine::cores();
        let hub = match asked.is_empty() {
            true => all.iter().copied().take(lanes.into()).collect(),
            false => asked.to_vec(),
        };
        let rest: Vec<usize> = all.iter().copied().filter(|core| !hub.contains(core)).collect();
        // On a machine with one core they share it.
        (hub, if rest.is_empty() { all.to_vec() } else { rest })
    }

    fn program(&self) -> Result<PathBuf, BenchError> {
        match &self.hub {
            Some(path) if path.is_file() => return Ok(path.clone()),
            Some(path) => return Err(BenchError::NotThere(path.clone())),
            None => {}
        }
        let this = std::env::current_exe().map_err(BenchError::System)?;
        let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("hub"));
        beside.into_iter().find(|path| path.is_file()).ok_or(BenchError::NoHub)
    }
}

/// Why something could not be measured.
#[derive(Debug)]
pub(crate) enum BenchError {
    /// No hub's program was named, and none lies beside this one.
    NoHub,
    /// The program that was named is none.
    NotThere(PathBuf),
    System(io::Error),
    /// The hub ended instead of starting.
    NotStarted {
        said: String,
    },
    Refused(HubError),
    Identity(IdentityError),
    /// Something did not happen in time.
    Slow {
        what: String,
        after: Duration,
    },
    /// What was measured is not what it should be.
    Wrong(String),
    Settings(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::NoHub => f.write_str("there is no `hub` beside this program: build it with `cargo build --release -p tessera-hub`, or name one with --hub PATH"),
            BenchError::NotThere(path) => write!(f, "--hub {}: there is no such program", path.display()),
            BenchError::System(source) => write!(f, "the system refuses: {source}"),
            BenchError::NotStarted { said } => write!(f, "the hub does not start: {said}"),
            BenchError::Refused(source) => write!(f, "{source}"),
            BenchError::Identity(source) => write!(f, "no keys for agents: {source}"),
            BenchError::Slow { what, after } => write!(f, "{what}, after {} s", after.as_secs()),
            BenchError::Wrong(what) => write!(f, "not measured, as the counts do not fit: {what}"),
            BenchError::Settings(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<io::Error> for BenchError {
    fn from(source: io::Error) -> BenchError {
        BenchError::System(source)
    }
}

impl From<HubError> for BenchError {
    fn from(source: HubError) -> BenchError {
        BenchError::Refused(source)
    }
}

/// A hub on loopback; killed when dropped, and its folder removed.
pub(crate) struct Hub {
    child: Child,
    program: PathBuf,
    folder: TempDir,
    cores: (Vec<usize>, Vec<usize>),
    lanes: u16,
    http: String,
    pub(crate) quic: SocketAddr,
    api_key: String,
}

impl Hub {
    pub(crate) fn start(args: &HubArgs) -> Result<Hub, BenchError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("tessera-bench-");
        let folder = match &args.folder {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        let (program, lanes) = (args.program()?, args.lanes()?);
        let cores = args.cores(lanes);
        std::fs::write(folder.path().join(CONFIG), &args.config)?;
        let place = Place { program: &program, folder: folder.path(), cores: &cores, lanes };
        let (child, said) = place.spawn("127.0.0.1:0", "127.0.0.1:0")?;
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let quic = text("quic").parse().map_err(|_| BenchError::NotStarted { said: said.to_string() })?;
        Ok(Hub { child, http: text("http"), quic, api_key: text("api_key"), lanes, program, folder, cores })
    }

    /// Kills it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) -> Result<(), BenchError> {
        let place = Place {
            program: &self.program,
            folder: self.folder.path(),
            cores: &self.cores,
            lanes: self.lanes,
        };
        (self.child, _) = place.spawn(&self.http, &self.quic.to_string())?;
        Ok(())
    }

    /// The program that it runs.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The kind of file system that its folder lies in.
    pub(crate) fn file_system(&self) -> String {
        machine::file_system_of(self.folder.path())
    }

    /// Cores of the hub, and of the load.
    pub(crate) fn cores(&self) -> (&[usize], &[usize]) {
        (&self.cores.0, &self.cores.1)
    }

    pub(crate) fn lanes(&self) -> u16 {
        self.lanes
    }

    /// The cores that its threads may use, as the system says.
    pub(crate) fn cores_allowed(&self) -> Vec<usize> {
        machine::cores_of(self.child.id())
    }

    pub(crate) fn api(&self) -> Result<api::Hub, BenchError> {
        let url = format!("http://{}", self.http);
        api::Hub::new(&url, Some(&self.api_key)).map_err(|error| BenchError::Settings(error.into()))
    }

    /// Asks it to stop and waits until it has; then has its program check the store.
    pub(crate) fn stop_and_check(&mut self) -> Result<Checked, BenchError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| BenchError::Wrong("the hub has no process".to_owned()))?;
        kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        let mut ended = None;
        wait_until("the hub does not stop", PATIENCE, || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        if let Some(ended) = ended.filter(|ended| !ended.success()) {
            return Err(BenchError::Wrong(format!("the hub ended with {ended}")));
        }
        let output = Command::new(&self.program)
            .arg("check")
            .arg("--data")
            .arg(self.folder.path().join(DATA))
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        let mut says: Vec<&str> =
            lines.iter().filter(|line| line.starts_with("finding")).take(FINDINGS_SHOWN).copied().collect();
        says.extend(lines.last());
        Ok(Checked { clean: output.status.success(), says: says.join("; ") })
    }

    pub(crate) fn held(&self) -> Held {
        Held::of(self.child.id())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// What it has written to its folder. *Units*: bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        fn of(folder: &Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let size = |entry: std::fs::DirEntry| match entry.metadata() {
                Ok(about) if about.is_dir() => of(&entry.path()),
                Ok(about) => about.len(),
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        of(&self.folder.path().join(DATA))
    }

    /// What it counts about itself; the values of a name's labels are added up, and each stands under its own too.
    pub(crate) fn metrics(&self) -> Result<BTreeMap<String, f64>, BenchError> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let mut metrics = BTreeMap::new();
        for line in answer.lines().filter(|line| line.starts_with("tessera_")) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if let Some((plain, _)) = name.split_once('{') {
                *metrics.entry(plain.to_owned()).or_default() += value;
            }
            metrics.insert(name.to_owned(), value);
        }
        Ok(metrics)
    }

    /// Members for a fleet, each with a token of its own, and the key that they pin.
    pub(crate) fn members(
        &self,
        count: usize,
        anchors_one_in: u32,
    ) -> Result<(Vec<Member>, PublicKey), BenchError> {
        let api = self.api()?;
        let next = AtomicUsize::new(0);
        let ask = || -> Result<Vec<(usize, EnrolmentToken)>, BenchError> {
            let mut tokens = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(tokens);
                }
                let provider = (!number.is_multiple_of(anchors_one_in as usize))
                    .then(|| format!("provider-{}", number / AGENTS_PER_PROVIDER));
                let provider: Option<ProviderName> = provider.and_then(|name| name.parse().ok());
                let issued = api.issue_agent_token(provider.as_ref())?;
                let token = issued.token.parse();
                tokens.push((number, token.map_err(|_| BenchError::Wrong("a token is none".to_owned()))?));
            }
        };
        let tokens = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..ASKING.min(count)).map(|_| scope.spawn(ask)).collect();
            let answers = asking.into_iter().map(|thread| thread.join().expect("asking does not panic"));
            answers.collect::<Result<Vec<_>, _>>()
        })?;
        let mut tokens: Vec<_> = tokens.into_iter().flatten().collect();
        tokens.sort_by_key(|(number, _)| *number);
        let hub_key = tokens.first().map(|(_, token)| PublicKey(token.hub_key));
        let hub_key = hub_key.ok_or_else(|| BenchError::Wrong("there are no agents".to_owned()))?;
        let member = |(_, token): (usize, EnrolmentToken)| {
            let identity = Identity::generate().map_err(BenchError::Identity)?;
            Ok(Member { identity, secret: Some(token.secret) })
        };
        Ok((tokens.into_iter().map(member).collect::<Result<_, BenchError>>()?, hub_key))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It has ended already, or cannot be ended.
        let _ = self.kill();
    }
}

/// What a hub's check found in its store.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) clean: bool,
    pub(crate) says: String,
}

struct Place<'a> {
    program: &'a Path,
    folder: &'a Path,
    cores: &'a (Vec<usize>, Vec<usize>),
    lanes: u16,
}

impl Place<'_> {
    fn spawn(&self, http: &str, quic: &str) -> Result<(Child, Value), BenchError> {
        let path = self.folder.join("hub.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let lanes = self.lanes.to_string();
        // What this thread may use, its children may.
        let pinned = machine::pin(&self.cores.0);
        let child = Command::new(self.program)
            .args([
                "serve", "--json", "--log", "warn", "--lanes", &lanes, "--http", http, "--quic", quic,
                "--data",
            ])
            .arg(self.folder.join(DATA))
            .arg("--config")
            .arg(self.folder.join(CONFIG))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let pinned = pinned && machine::pin(&self.cores.1);
        let mut child = child?;
        if !pinned {
            child.kill()?;
            child.wait()?;
            let (hub, load) = self.cores;
            return Err(BenchError::Wrong(format!(
                "this system does not give the cores {hub:?} and {load:?}"
            )));
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(said) => Ok((child, said)),
            Err(_) => {
                child.kill()?;
                child.wait()?;
                let log = std::fs::read_to_string(path).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                Err(BenchError::NotStarted { said: format!("{line}{}", last.join("; ")) })
            }
        }
    }
}

/// Looks again and again until something is so.
pub(crate) fn wait_until(
    what: &str,
    patience: Duration,
    mut is_so: impl FnMut() -> Result<bool, BenchError>,
) -> Result<Duration, BenchError> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > patience {
            return Err(BenchError::Slow { what: what.to_owned(), after: patience });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(began.elapsed())
}
