//! Real hubs side by side on one store, and what their customers find after one of them was killed or stood still.
//!
//! Owns the store that they share: one in this process, behind a socket, where a cluster would be. May start and end
//! only processes of its own.

use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tessera_client::api;
use tessera_hub_core::standing::StandingRecord;
use tessera_protocol::api::{AgentState, Standing};
use tessera_protocol::credits::ProviderName;
use tessera_protocol::id::HubId;
use tessera_storage::{Batch, Commit, Engine, Family, Key, Memory, standin};

use crate::crash::books;
use crate::crash::customer::{Promised, key};
use crate::crash::jobs::{self, Known};
use crate::crash::programs::{self, Agent, Hub, Place};
use crate::crash::{Failure, Report};

mod any;

pub use any::{Seen, any_hub};

/// Jobs that each hub is given.
const JOBS: u64 = 4;
/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than the lease of a hub.
const STILL: Duration = Duration::from_secs(17);

/// What befalls one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// `kill -9` of the one that leads.
    KillTheLeader,
    /// The other stands still for longer than its lease, and goes on.
    PauseTheOther,
}

/// What came of it.
#[derive(Debug)]
pub struct Found {
    /// What does not hold.
    pub report: Report,
    /// Open jobs that the hub had when it fell silent.
    pub orphaned: usize,
    /// Until each of them was another's.
    pub replaced: Duration,
    /// How the process of the hub ended.
    pub ended: ExitStatus,
}

impl Found {
    /// The exit code, of a process that was not killed.
    pub fn exit_code(&self) -> Option<i32> {
        self.ended.signal().is_none().then(|| self.ended.code()).flatten()
    }
}

/// Where two hubs and what they share lie.
struct Scene {
    folder: PathBuf,
    store: Arc<dyn Engine>,
}

impl Scene {
    fn new(folder: &Path, store: Memory) -> Result<Scene, Failure> {
        let store: Arc<dyn Engine> = Arc::new(store);
        let listener = UnixListener::bind(folder.join("store")).map_err(Failure::System)?;
        let served = store.clone();
        thread::spawn(move || standin::serve(&listener, &served));
        Ok(Scene { folder: folder.to_owned(), store })
    }

    fn config(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.folder.display();
        let text = format!(
            "data = \"{folder}/{name}\"\nstore = \"fdb:{folder}/store\"\nblobs = \"file://{folder}/blobs\"\n"
        );
        let path = self.folder.join(name).with_extension("toml");
        std::fs::write(&path, text).map_err(Failure::System)?;
        Ok(path)
    }

    fn hub(&self, name: &str) -> Result<Hub, Failure> {
        let config = Some(self.config(name)?);
        Hub::start(Place { data: self.folder.join(name), config, environment: Vec::new() })
    }

    fn agent(&self, name: &str, hub: &Hub) -> Result<Agent, Failure> {
        Agent::start(&hub.quic, self.folder.join(name), hub.token.clone())
    }

    /// How many open jobs are a hub's.
    fn jobs_of(&self, hub: HubId) -> Result<usize, Failure> {
        let said = |error: &dyn std::fmt::Display| Failure::Said(error.to_string());
        let store = self.store.snapshot().map_err(|error| said(&error))?;
        let owners = store.range(&Family::Owners.range(), usize::MAX).map_err(|error| said(&error))?;
        Ok(owners.iter().filter(|entry| entry.value == hub.0).count())
    }

    /// Whether the log has all that was reported.
    fn is_told(&self) -> Result<bool, Failure> {
        let rest = self.store.snapshot().and_then(|store| store.range(&Family::Acts.range(), 1));
        rest.map(|rest| rest.is_empty()).map_err(|error| Failure::Said(error.to_string()))
    }

    /// Checks the whole store, and says whether that could be done.
    fn check(&self, name: &str, report: &mut Report) -> Result<bool, Failure> {
        let config = self.config(name)?;
        match programs::check(&["--config".as_ref(), config.as_os_str()]) {
            Err(Failure::Said(said)) => {
                report.wrong.push(said);
                Ok(true)
            }
            checked => checked,
        }
    }

    fn has(&self, key: Key<'_>) -> Result<bool, Failure> {
        let found = self.store.snapshot().and_then(|store| store.get(&key.encode()));
        found.map(|found| found.is_some()).map_err(|error| Failure::Said(error.to_string()))
    }
}

/// Waits until something holds, and says how long that took.
fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failure>) -> Result<Duration, Failure> {
    let started = Instant::now();
    while !holds()? {
        if started.elapsed() > PATIENCE {
            return Err(Failure::Said(format!("{what}: not within {PATIENCE:?}")));
        }
        thread::sleep(PAUSE);
    }
    Ok(started.elapsed())
}

fn submit(hub: &api::Hub, known: &[Known], first: u64, promised: &mut Vec<Promised>) -> Result<(), Failure> {
    for number in first..first + JOBS {
        let which = number as usize % known.len();
        let view = hub.submit(&known[which].spec, &key(number));
        let id = view.map_err(|error| Failure::Said(error.to_string()))?.id;
        promised.push(Promised { id, known: which, number });
    }
    Ok(())
}

/// Lets two hubs work side by side, each with an agent and jobs of its own, and one of them fall silent.
pub fn run(blow: Blow, folder: &Path) -> Result<Found, Failure> {
    let scene = Scene::new(folder, Memory::new())?;
    let known = jobs::long(7)?;
    let (first, second) = (scene.hub("first")?, scene.hub("second")?);
    let agents = [scene.agent("agent-1", &first)?, scene.agent("agent-2", &second)?];
    // Only the first start made a key.
    let second = second.known_by(&first.api_key);
    let (mut victim, other) = match blow {
        Blow::KillTheLeader => (first, second),
        Blow::PauseTheOther => (second, first),
    };
    let (theirs, api) = (victim.api()?, other.api()?);
    // A job goes to a hub that has agents: each is to have its own.
    until("both hubs have an agent", || {
        let seen = api.agents().map_err(|error| Failure::Said(error.to_string()))?;
        Ok(seen.agents.iter().filter(|agent| agent.state == AgentState::Connected).count() == 2)
    })?;
    let mut promised = Vec::new();
    submit(&api, &known, 0, &mut promised)?;
    submit(&theirs, &known, JOBS, &mut promised)?;
    let begun = promised.last().map(|job| job.id);
    until("the hub's agent begins", || {
        let seen = begun.map(|job| theirs.job(job)).transpose();
        Ok(seen.is_ok_and(|view| view.is_some_and(|view| view.shards_done > 0)))
    })?;

    let hub = victim.id()?;
    match blow {
        Blow::KillTheLeader => victim.kill()?,
        Blow::PauseTheOther => victim.signal("STOP")?,
    }
    let (silent, orphaned) = (Instant::now(), scene.jobs_of(hub)?);
    until("its fence goes down", || Ok(!scene.has(Key::Fence(hub))?))?;
    until("its jobs are another's", || Ok(scene.jobs_of(hub)? == 0))?;
    let replaced = silent.elapsed();
    if blow == Blow::PauseTheOther {
        thread::sleep(STILL.saturating_sub(silent.elapsed()));
        victim.signal("CONT")?;
    }
    let ended = victim.wait(PATIENCE)?;

    let mut report = Report { jobs: promised.len() as u64, ..Report::default() };
    books::settle_all(&api, &known, &promised, &mut report)?;
    // What the silent hub reported waits for the other to move it into the log.
    until("all that was reported is in the log", || scene.is_told())?;
    books::log(&api, &promised, &mut report)?;
    drop(agents);
    other.stop()?;
    report.checked = scene.check("second", &mut report)?;
    Ok(Found { report, orphaned, replaced, ended })
}

/// Copies the store of a hub that had it for itself to where many may share it, with open jobs, and lets a hub go on
/// there.
pub fn migrate(folder: &Path) -> Result<Report, Failure> {
    let (known, mut promised) = (jobs::long(7)?, Vec::new());
    let alone = Hub::start(Place { data: folder.join("alone"), config: None, environment: Vec::new() })?;
    submit(&alone.api()?, &known, 0, &mut promised)?;
    let (api_key, data) = (alone.api_key.clone(), folder.join("alone"));
    alone.stop()?;
    let scene = Scene::new(folder, Memory::unclaimed())?;
    let to = format!("fdb:{}", folder.join("store").display());
    programs::hub(&["migrate".as_ref(), "--to".as_ref(), to.as_ref(), "--data".as_ref(), data.as_os_str()])?;
    let first = scene.hub("first")?.known_by(&api_key);
    let agent = scene.agent("agent", &first)?;
    let mut report = Report { jobs: promised.len() as u64, ..Report::default() };
    let api = first.api()?;
    books::settle_all(&api, &known, &promised, &mut report)?;
    until("all that was reported is in the log", || scene.is_told())?;
    books::log(&api, &promised, &mut report)?;
    drop(agent);
    first.stop()?;
    report.checked = scene.check("first", &mut report)?;
    Ok(report)
}

/// Lets an agent that worked at one hub say hello to another after its standing was written as that of one removed:
/// gives how far the other trusts it.
pub fn move_removed_agent(folder: &Path) -> Result<Option<Standing>, Failure> {
    let scene = Scene::new(folder, Memory::new())?;
    let (first, second) = (scene.hub("first")?, scene.hub("second")?);
    let second = second.known_by(&first.api_key);
    let provider: ProviderName = "acme".parse().map_err(|_| Failure::Said("no name".to_owned()))?;
    let said = |error: api::HubError| Failure::Said(error.to_string());
    let (from, to) = (first.api()?, second.api()?);
    let token = from.issue_agent_token(Some(&provider)).map_err(said)?.token;
    let data = scene.folder.join("agent");
    let seen = |hub: &api::Hub| {
        let agents = hub.agents().map_err(said)?.agents;
        Ok(agents.into_iter().find(|agent| agent.provider == provider.as_str()))
    };
    let agent = Agent::start(&first.quic, data.clone(), token.clone())?;
    until("the agent comes", || Ok(seen(&from)?.is_some()))?;
    let Some(id) = seen(&from)?.map(|agent| agent.id) else { return Ok(None) };
    until("the hub has written how far it trusts it", || scene.has(Key::Standing(id)))?;
    drop(agent);
    let removed = StandingRecord {
        agent: id,
        provider: provider.id(),
        anchor: false,
        standing: Standing::Removed,
        agreed: 0,
        wrong: 2,
        proven: true,
    };
    let mut batch = Batch::new();
    batch.put(Key::Standing(id), serde_json::to_vec(&removed).unwrap_or_default());
    let written = scene.store.commit(batch).map_err(|error| Failure::Said(error.to_string()))?;
    assert_eq!(written, Commit::Done, "nothing was required");
    let _agent = Agent::start(&second.quic, data, token)?;
    until("the agent comes to the other hub", || {
        Ok(seen(&to)?.is_some_and(|agent| agent.standing == Some(Standing::Removed)))
    })?;
    Ok(seen(&to)?.and_then(|agent| agent.standing))
}
