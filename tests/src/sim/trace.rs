//! What happened in a run: a sum that names it, and lines for people when they are wanted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;

use tessera_agent_core::Event as AgentEvent;
use tessera_hub_core::event::Sent;
use tessera_hub_core::{Effect, Event};
use tessera_protocol::id::Digest;

/// The record of a run. Two runs with equal sums went through the same events at the same moments.
#[derive(Debug)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    aloud: bool,
}

impl Trace {
    pub(super) fn new(aloud: bool) -> Trace {
        Trace { hasher: DefaultHasher::new(), aloud }
    }

    pub(super) fn sum(&self) -> u64 {
        self.hasher.finish()
    }

    /// A lane hears of something.
    pub(super) fn lane(&mut self, now: u64, lane: u16, event: &Event) {
        (now, lane, discriminant(event)).hash(&mut self.hasher);
        match event {
            Event::ResultsArrived { session, answers, .. } => {
                session.hash(&mut self.hasher);
                for answer in answers {
                    (answer.index, answer.epoch, &digest(&answer.partial).0[..8]).hash(&mut self.hasher);
                }
            }
            Event::LaneSpoke { from, message } => {
                (from.0, discriminant(message)).hash(&mut self.hasher);
            }
            _ => {}
        }
        if self.aloud && !matches!(event, Event::TimePassed) {
            line(now, &format!("lane {lane}"), &words(event));
        }
    }

    /// A lane orders something.
    pub(super) fn effect(&mut self, now: u64, lane: u16, effect: &Effect) {
        discriminant(effect).hash(&mut self.hasher);
        let shown = matches!(
            effect,
            Effect::Persist { .. }
                | Effect::Answer { .. }
                | Effect::CloseSession { .. }
                | Effect::Assemble { .. }
                | Effect::StoreProduct { .. }
        );
        if self.aloud && shown {
            line(now, &format!("lane {lane}"), &format!("  orders {}", short(effect)));
        }
    }

    /// An agent hears of something.
    pub(super) fn agent(&mut self, now: u64, agent: usize, event: &AgentEvent) {
        (now, agent, discriminant(event)).hash(&mut self.hasher);
        if self.aloud && !matches!(event, AgentEvent::TimePassed) {
            line(now, &format!("agent {agent}"), &agent_words(event));
        }
    }

    /// The world does something to them.
    pub(super) fn fault(&mut self, now: u64, what: impl FnOnce() -> String) {
        now.hash(&mut self.hasher);
        if self.aloud {
            line(now, "FAULT", &what());
        }
    }

    /// A checker looked, and what it saw.
    pub(super) fn check(&self, now: u64, what: impl FnOnce() -> String) {
        if self.aloud {
            line(now, "check", &what());
        }
    }
}

fn line(now: u64, who: &str, what: &str) {
    println!("{:>5}.{:03}  {who:<8} {what}", now / 1000, now % 1000);
}

fn words(event: &Event) -> String {
    match event {
        Event::JobSubmitted { request, job } => {
            format!("client {} wants {} ({})", request.0, job.id, job.manifest.spec().name)
        }
        Event::CancelRequested { job, .. } => format!("client wants {job} stopped"),
        Event::JobRecovered { job, progress, panels } => {
            let done = progress.as_ref().map_or(0, |progress| progress.done.count());
            format!("{} is recovered with {done} shards done and {} kept", job.id, panels.len())
        }
        Event::Committed { batch } => format!("batch {} is on disk", batch.0),
        Event::CommitFailed { batch, .. } => format!("batch {} could not be written", batch.0),
        Event::AgentAdmitted { session, account, .. } => {
            let who = if account.anchor { "an anchor" } else { "an agent" };
            format!("session {}: {who} is admitted", session.0)
        }
        Event::HeartbeatArrived { session, holding } => {
            format!("session {}: heartbeat, holds {}", session.0, holding.len())
        }
        Event::SessionClosed { session } => format!("session {} is over", session.0),
        Event::ResultsArrived { session, job, answers } => {
            let answers: Vec<String> = answers
                .iter()
                .map(|a| format!("{}#{} {}", a.index.0, a.epoch.0, start(&digest(&a.partial).to_string())))
                .collect();
            format!("session {}: results of {job}: {}", session.0, answers.join(", "))
        }
        Event::PartialArrived { session, job, index, epoch, partial } => {
            format!("session {}: partial {}#{} of {job}, {} B", session.0, index.0, epoch.0, partial.len())
        }
        Event::LaneSpoke { from, message } => format!("lane {} says {}", from.0, short(message)),
        other => short(other),
    }
}

fn agent_words(event: &AgentEvent) -> String {
    match event {
        AgentEvent::ShardsAssigned { job, items } => {
            let items: Vec<String> =
                items.iter().map(|item| format!("{}#{}", item.index, item.epoch)).collect();
            format!("gets {} of {job}", items.join(", "))
        }
        AgentEvent::JobAnnounced { job, kernel, .. } => format!("hears of {job}, a job of {kernel}"),
        AgentEvent::JobForgotten { job } => format!("is to forget {job}"),
        AgentEvent::ShardEnded { .. } => "ends a shard".to_owned(),
        other => short(other),
    }
}

fn digest(partial: &Sent) -> Digest {
    match partial {
        Sent::Here(bytes) => Digest::of(bytes),
        Sent::Elsewhere(digest) => *digest,
    }
}

fn start(text: &str) -> &str {
    text.get(..8).unwrap_or(text)
}

/// The beginning of what a value says of itself: of most that is all one wants to know.
fn short(value: &impl std::fmt::Debug) -> String {
    const CHARS_MAX: usize = 120;
    let mut said = Limited { text: String::new(), left: CHARS_MAX };
    // It stops writing where the line is full, which is no error of the value.
    if std::fmt::Write::write_fmt(&mut said, format_args!("{value:?}")).is_err() {
        said.text.push('…');
    }
    said.text
}

struct Limited {
    text: String,
    left: usize,
}

impl std::fmt::Write for Limited {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        for char in piece.chars() {
            self.left = self.left.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(char);
        }
        Ok(())
    }
}
