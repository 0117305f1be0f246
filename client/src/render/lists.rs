//! Jobs, agents and quotes as text.

use tessera_protocol::api::{
    AgentList, AgentState, HubList, JobFailure, JobList, JobView, LossView, PlanQuote, Standing, TokenIssued,
};
use tessera_protocol::credits::OPERATOR;
use tessera_protocol::id::HubId;
use tessera_protocol::token::agent_command;

use super::accounts::{credits, rate};
use super::number::{duration, grouped};
use super::{Style, facts, lines, shortened, table};

const NAME_CHARS: usize = 24;

/// Jobs, newest first as the hub lists them. `now_ms` is for ages. *Units*: Unix milliseconds.
pub fn jobs(list: &JobList, now_ms: u64) -> String {
    if list.jobs.is_empty() && list.hubs_silent.is_empty() {
        return "no jobs yet; `tessera submit FILE` makes one\n".to_owned();
    }
    let rows = list.jobs.iter().map(|job| {
        vec![
            job.id.to_string(),
            shortened(&job.name, NAME_CHARS),
            job.state.word().to_owned(),
            format!("{}/{}", job.shards_done, job.shards),
            if job.paths > 0 { grouped(job.paths) } else { "–".to_owned() },
            duration(now_ms.saturating_sub(job.created_ms.0)),
        ]
    });
    let shown = lines(&table(&["job", "name", "state", "shards", "paths", "age"], 3, rows.collect()));
    shown + &silent(&list.hubs_silent, "jobs that are open there may be missing")
}

/// The agents of a hub.
pub fn agents(list: &AgentList) -> String {
    if list.agents.is_empty() && list.hubs_silent.is_empty() {
        return "no agents yet; `tessera agent token` makes a token with which one enrols\n".to_owned();
    }
    let rows = list.agents.iter().map(|agent| {
        vec![
            agent.id.to_string(),
            shortened(&agent.name, 10),
            shortened(&agent.provider, 10),
            agent.standing.map_or("–", Standing::word).to_owned(),
            match agent.state {
                AgentState::Connected => "connected".to_owned(),
                AgentState::Leaving => "leaving".to_owned(),
                AgentState::Away => "away".to_owned(),
            },
            // What it holds besides waits there for a slot.
            format!("{} of {}", agent.in_flight.min(agent.slots.into()), agent.slots),
            grouped(agent.completed),
        ]
    });
    let header = ["agent", "name", "provider", "standing", "state", "busy", "done"];
    let shown = lines(&table(&header, 5, rows.collect()));
    shown + &silent(&list.hubs_silent, "agents that work there show as away")
}

/// What a list lacks because hubs did not answer.
fn silent(hubs: &[HubId], so: &str) -> String {
    hubs.iter().map(|hub| format!("{hub} does not answer: {so}\n")).collect()
}

/// The hubs that share a store.
pub fn hubs(list: &HubList) -> String {
    if list.hubs.is_empty() {
        return "one hub, which has its store to itself\n".to_owned();
    }
    let rows = list.hubs.iter().map(|hub| {
        let seen = match hub.silent_ms {
            _ if hub.here => "answers".to_owned(),
            silent_ms => format!("{} ago", duration(silent_ms)),
        };
        let role = if hub.leader { "leads" } else { "serves" };
        vec![hub.id.to_string(), role.to_owned(), seen, shortened(&hub.http, 40), shortened(&hub.quic, 40)]
    });
    lines(&table(&["hub", "role", "seen", "clients", "agents"], 5, rows.collect()))
}

/// What to do with a token, and whose agent it enrols.
pub fn token(issued: &TokenIssued) -> String {
    let owner = match issued.provider.as_str() {
        OPERATOR => {
            "your own: the hub believes it when others disagree (--provider NAME for a stranger's)".to_owned()
        }
        provider => format!("{}'s: it earns that provider's credits", shortened(provider, 64)),
    };
    format!(
        "A token enrols one agent, once. This one is {owner}.\nOn the machine that computes:\n\n{}",
        agent_command(&issued.hub, &issued.token)
    )
}

/// One job with everything that a client may want to know.
pub fn job(view: &JobView, style: Style) -> String {
    let mut known = vec![
        ("job", view.id.to_string()),
        ("project", shortened(&view.project, 60)),
        ("state", state_in_words(view)),
    ];
    if let Some(waiting) = &view.waiting {
        known.push(("waiting", shortened(waiting, usize::MAX)));
    }
    if view.paths > 0 {
        known.push(("paths", grouped(view.paths)));
    }
    if let Some(earlier) = view.extends {
        known.push(("extends", earlier.to_string()));
    }
    known.push(("manifest", view.manifest_digest.to_string()));
    if let Some(digest) = view.digest {
        known.push(("digest", digest.to_string()));
    }
    known.extend(work(view));
    format!("{}\n{}", style.heading(&shortened(&view.name, 90)), facts(&known))
}

/// What it took to finish a job. `agents` is how many were there, where that is known.
pub fn summary(view: &JobView, agents: Option<u64>, elapsed_ms: Option<u64>) -> String {
    let mut known = Vec::new();
    if let Some(digest) = view.digest {
        known.push(("digest", digest.to_string()));
    }
    known.push(("job", format!("{} ({})", view.id, state_in_words(view))));
    known.extend(work(view));
    if let Some(agents) = agents {
        known.push(("agents", grouped(agents)));
    }
    if let Some(ms) = elapsed_ms {
        known.push(("time", format!("{} from submission to result", duration(ms))));
    }
    facts(&known)
}

/// Lanes of which it is said how many shards they did.
const LANES_NAMED_MAX: usize = 8;

fn work(view: &JobView) -> Vec<(&'static str, String)> {
    let mut work = vec![
        ("shards", format!("{} of {} done", grouped(view.shards_done), grouped(view.shards))),
        ("attempts", grouped(view.attempts)),
        ("checks", checks(view)),
    ];
    let busy: Vec<_> = view.lanes.iter().enumerate().filter(|(_, shards)| **shards > 0).collect();
    if !busy.is_empty() {
        let named = |(lane, shards): &(usize, &u64)| format!("{} on lane {lane}", grouped(**shards));
        let each: Vec<String> = busy.iter().take(LANES_NAMED_MAX).map(named).collect();
        let more = if busy.len() > LANES_NAMED_MAX { ", …" } else { "" };
        work.push(("lanes", format!("{} (shards: {}{more})", busy.len(), each.join(", "))));
    }
    work.push(("cost", format!("{} compute units", grouped(view.cost.0))));
    work
}

fn checks(view: &JobView) -> String {
    let mut text = format!("{} shards done twice and equal", grouped(view.checks));
    if view.mismatches > 0 {
        text += &format!(", {} with two answers", grouped(view.mismatches));
    }
    if view.recalled > 0 {
        text += &format!(", {} recalled from agents proven wrong", grouped(view.recalled));
    }
    if view.tainted > 0 {
        text += &format!(", {} TAINTED: the word of agents later proven wrong", grouped(view.tainted));
    }
    if view.checks_skipped > 0 {
        text += &format!(", {} skipped for want of a second agent", grouped(view.checks_skipped));
    }
    text
}

/// What a job would take, and whether a hub would refuse it for costing more than its `cost_cap`.
pub fn quote(quote: &PlanQuote, cost_cap: Option<u64>) -> String {
    let digests = [("manifest", quote.manifest_digest.to_string()), ("plan", quote.plan_digest.to_string())];
    let cost = format!("{} compute units, checks not counted", grouped(quote.cost.0));
    let size = match &quote.stage {
        Some(stage) => vec![
            ("stage", format!("{stage}, the first; it decides shards and cost of the rest")),
            ("shards", grouped(quote.shards)),
        ],
        None => vec![
            ("paths", grouped(quote.paths)),
            ("shards", format!("{} of {} paths", grouped(quote.shards), grouped(quote.shard_size))),
        ],
    };
    let mut text = facts(&[&digests[..], &size, &[("cost", cost)]].concat());
    if let (Some(price), Some(percent)) = (quote.price, quote.percent) {
        // In line with the facts above it.
        text += &format!("price     {} credits at {}\n", credits(price), rate(percent));
    }
    if let Some(cap) = cost_cap.filter(|cap| quote.cost.0 > *cap) {
        text += &format!("over limits.cost_cap = {}: submit would refuse it\n", grouped(cap));
    }
    text
}

fn state_in_words(view: &JobView) -> String {
    let mut text = view.state.word().to_owned();
    if let Some(ended) = view.ended_ms {
        text += &format!(" after {}", duration(ended.0.saturating_sub(view.created_ms.0)));
    }
    if let Some(failure) = &view.failure {
        text += &format!(": {}", self::failure(failure));
    }
    text
}

/// Why a job failed, as a clause.
pub fn failure(failure: &JobFailure) -> String {
    match failure {
        JobFailure::ShardFailed { shard, attempts, cause } => {
            format!("shard {shard} failed {attempts} times, last with: {}", shortened(cause, 200))
        }
        JobFailure::ShardPoisoned { shard, losses } => {
            let loss = |loss: &LossView| format!("{} of {}: {}", loss.agent, loss.provider, loss.how);
            let losses: Vec<String> = losses.iter().map(loss).collect();
            format!("shard {shard} came to nothing wherever it ran ({})", losses.join("; "))
        }
        JobFailure::DeadlinePassed { deadline_s } => format!("its deadline of {deadline_s} s passed"),
        JobFailure::KernelFault { shard } => format!(
            "agents with no reason to be wrong disagree about shard {shard}: the kernel does not give the same bytes on every machine; nobody is charged or punished, report it"
        ),
        JobFailure::StageFailed { stage, cause } => format!("its stage `{stage}`: {cause}"),
        JobFailure::NotReducible { cause } => {
            format!("its shards do not add up to a result: {}", shortened(cause, 200))
        }
    }
}
