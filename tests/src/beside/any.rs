//! A client and an agent that know one hub of two, and what they can do through it.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tessera_client::api::{IdempotencyKey, News, follow};
use tessera_protocol::api::{AgentState, JobState};

use super::{Failure, PATIENCE, Scene, jobs, until};

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Hubs that each of the two lists, and how many of them lead.
    pub hubs: [(usize, usize); 2],
    /// Agents that are connected, as the hub without any lists them.
    pub agents_shown: usize,
    /// Whether a job that was submitted to a hub without agents ended with the reference bytes, watched from there.
    pub job_ended: bool,
    /// States of it on the way.
    pub states: usize,
    /// Whether another submitted after the hub with the agent was killed did, too.
    pub job_ended_after: bool,
}

fn said(error: impl std::fmt::Display) -> Failure {
    Failure::Said(error.to_string())
}

/// Two hubs, an agent at the second, a client that knows the first; then the second is killed.
pub fn any_hub(folder: &Path) -> Result<Seen, Failure> {
    let scene = Scene::new(folder)?;
    let known = jobs::long(7)?;
    let (first, second) = (scene.hub("first")?, scene.hub("second")?);
    let _agent = scene.agent("agent", &second)?;
    let mut second = second.known_by(&first.api_key);
    let (api, beside) = (first.api()?, second.api()?);
    let connected = || -> Result<usize, Failure> {
        let agents = api.agents().map_err(said)?.agents;
        Ok(agents.iter().filter(|agent| agent.state == AgentState::Connected).count())
    };
    until("the first hub shows the agent of the second", || Ok(connected()? == 1))?;
    let agents_shown = connected()?;
    let listed = |api: &tessera_client::api::Hub| -> Result<(usize, usize), Failure> {
        let hubs = api.hubs().map_err(said)?.hubs;
        Ok((hubs.len(), hubs.iter().filter(|hub| hub.leader).count()))
    };
    let hubs = [listed(&api)?, listed(&beside)?];
    // Until the second has said how many agents it has.
    thread::sleep(Duration::from_secs(3));

    let mut states = 0;
    let run = |key: &str, states: &mut usize| -> Result<bool, Failure> {
        let job = api.submit(&known[0].spec, &IdempotencyKey::chosen(key)).map_err(said)?;
        let last = follow(&api, job.id, |news| *states += usize::from(matches!(news, News::Job(_))));
        let last = last.map_err(said)?;
        Ok(last.state == JobState::Done && last.digest == Some(known[0].digest))
    };
    let job_ended = run("before", &mut states)?;
    second.kill()?;
    until("the agent works for the first hub", || {
        let agents = api.agents().map_err(said)?;
        let here = agents.agents.iter().any(|agent| agent.state == AgentState::Connected);
        Ok(here && agents.hubs_silent.is_empty())
    })?;
    let client = api.with_patience(PATIENCE);
    let again = client.submit(&known[1].spec, &IdempotencyKey::chosen("after")).map_err(said)?;
    let last = follow(&client, again.id, |_| {}).map_err(said)?;
    let job_ended_after = last.state == JobState::Done && last.digest == Some(known[1].digest);
    Ok(Seen { hubs, agents_shown, job_ended, states, job_ended_after })
}
