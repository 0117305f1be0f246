//! Lists that the hubs on one store make together, and the list of those hubs.
//!
//! Each hub is asked for what it has. Of what two of them show, the view of the one that knows more counts. A hub that
//! does not answer is named, so that nobody takes a part for the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tessera_protocol::api::{AgentList, AgentState, AgentView, JobList, JobState, JobView};
use tessera_protocol::explain::AgentExplained;
use tessera_protocol::id::{AgentId, HubId, JobId};

use super::backend::{AgentLookupError, JobFilter};
use super::forward::{Answers, ask_all};
use super::limits::{LIST_DEFAULT, LIST_MAX};
use super::problem::{Code, Refusal};
use super::routes::{Shared, fresh, path_text};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    state: Option<JobState>,
    project: Option<String>,
    limit: Option<usize>,
}

/// As `api::JobList`, without copying the views.
#[derive(Serialize)]
struct Jobs<'a> {
    jobs: Vec<&'a JobView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hubs_silent: Vec<HubId>,
}

pub(super) async fn jobs(
    State(door): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|error| Refusal::new(Code::QueryInvalid, error.body_text()))?;
    let limit = query.limit.unwrap_or(LIST_DEFAULT);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(Refusal::new(Code::QueryInvalid, format!("limit = {limit}: 1 to {LIST_MAX}")));
    }
    let filter = JobFilter { state: query.state, project: query.project, limit };
    let jobs = door.answer(door.backend.jobs(filter)).await?;
    let Answers { said, silent } = ask_all::<JobList>(&door, &headers, &uri).await;
    let jobs = match said.is_empty() {
        true => jobs,
        false => merge_jobs(jobs, said.into_iter().flat_map(|list| list.jobs), limit),
    };
    Ok(fresh(StatusCode::OK, Jobs { jobs: jobs.iter().map(Arc::as_ref).collect(), hubs_silent: silent }))
}

/// *Order*: newest first.
fn merge_jobs(
    mine: Vec<Arc<JobView>>,
    theirs: impl IntoIterator<Item = JobView>,
    limit: usize,
) -> Vec<Arc<JobView>> {
    let mut all: BTreeMap<JobId, Arc<JobView>> = mine.into_iter().map(|view| (view.id, view)).collect();
    let further = |view: &JobView| (!view.state.is_open(), view.shards_done, view.attempts);
    for view in theirs {
        if all.get(&view.id).is_none_or(|known| further(known) < further(&view)) {
            all.insert(view.id, Arc::new(view));
        }
    }
    all.into_values().rev().take(limit).collect()
}

/// As `api::AgentList`, without copying the views.
#[derive(Serialize)]
struct Agents<'a> {
    agents: Vec<&'a AgentView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hubs_silent: Vec<HubId>,
}

pub(super) async fn agents(State(door): Shared, headers: HeaderMap, uri: Uri) -> Response {
    let agents = door.backend.agents();
    let Answers { said, silent } = ask_all::<AgentList>(&door, &headers, &uri).await;
    let agents = match said.is_empty() {
        true => agents,
        false => merge_agents(agents, said.into_iter().flat_map(|list| list.agents)),
    };
    fresh(StatusCode::OK, Agents { agents: agents.iter().map(Arc::as_ref).collect(), hubs_silent: silent })
}

/// *Order*: by id.
fn merge_agents(
    mine: Vec<Arc<AgentView>>,
    theirs: impl IntoIterator<Item = AgentView>,
) -> Vec<Arc<AgentView>> {
    let mut all: BTreeMap<AgentId, Arc<AgentView>> = mine.into_iter().map(|view| (view.id, view)).collect();
    let nearer = |view: &AgentView| {
        let state = match view.state {
            AgentState::Away => 0,
            AgentState::Leaving => 1,
            AgentState::Connected => 2,
        };
        (state, view.completed)
    };
    for view in theirs {
        if all.get(&view.id).is_none_or(|known| nearer(known) < nearer(&view)) {
            all.insert(view.id, Arc::new(view));
        }
    }
    all.into_values().collect()
}

/// What the hub thinks of an agent that the agent works for.
pub(super) async fn explain_agent(
    State(door): Shared,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refusal> {
    let text = path_text(id)?;
    let agent = text.parse();
    let agent = agent.map_err(|error| Refusal::new(Code::IdInvalid, format!("`{text}` is {error}")))?;
    let here = door.answer(async { Ok::<_, Refusal>(door.backend.explain_agent(agent).await) }).await?;
    if let Err(AgentLookupError::NotConnected(_)) = here {
        let Answers { said, silent } = ask_all::<AgentExplained>(&door, &headers, &uri).await;
        if let Some(explained) = said.into_iter().next() {
            return Ok(fresh(StatusCode::OK, explained));
        }
        if let Some(hub) = silent.first() {
            let detail = format!("{agent} is not connected to this hub, and {hub} does not answer");
            return Err(Refusal::new(Code::OwnerUnreachable, detail));
        }
    }
    Ok(fresh(StatusCode::OK, here?))
}

pub(super) async fn hubs(State(door): Shared) -> Response {
    fresh(StatusCode::OK, door.backend.hubs())
}
