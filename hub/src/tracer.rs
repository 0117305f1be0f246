//! The tracer: one thread that tells of results which ended before whoever answered them was proven wrong.
//!
//! Of many hubs on one store the one that leads looks through what ended; the others look at their own jobs that extend
//! another, at their end.
//!
//! Owns the taint of jobs that ended; their homes own that of open ones. The store remembers which agents it has not
//! dealt with, so a hub that stops in between goes on at its next start. It takes nothing back: a result stays as it
//! was given to its client, who is told what it rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tessera_hub_core::Record;
use tessera_hub_core::record::refuted_by;
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::audit::Act;
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_storage::Engine;

use crate::audit::Deed;
use crate::ingress::Views;
use crate::journal::Journal;
use crate::records::{self, RecordError};

/// How long after an agent was proven wrong it looks again: a job may have ended on a lane that had not heard of it.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Times that it tells of a job which others tell of at the same time.
const ATTEMPTS: usize = 3;

/// What it hears of records that became durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These agents were proven wrong.
    Proven(Vec<(AgentId, ProviderId)>),
    /// A job ended that extends another.
    Extended(JobId),
    /// This hub leads: it deals with every agent proven wrong, whichever hub it was proven on.
    Leads,
}

impl News {
    /// What a record says that concerns it.
    pub fn of(record: &Record) -> Option<News> {
        match record {
            Record::StandingsChanged { proofs, .. } => {
                let agents: BTreeSet<_> = proofs.iter().flat_map(refuted_by).collect();
                (!agents.is_empty()).then(|| News::Proven(agents.into_iter().collect()))
            }
            Record::JobEnded { job, view, .. } => view.extends.map(|_| News::Extended(*job)),
            _ => None,
        }
    }
}

/// Tells the tracer, from any thread; the tracer ends when the last of them is dropped.
pub type Tell = Sender<News>;

/// Starts its thread, which first deals with what the last hub left. `shared`: once it is told that it leads, and then
/// also with what other hubs leave in the store.
pub fn start(
    store: Arc<dyn Engine>,
    journal: Journal,
    views: Arc<Views>,
    shared: bool,
) -> std::io::Result<(Tell, JoinHandle<()>)> {
    let (tell, news) = channel();
    let tracer = Tracer { store, journal, views, shared };
    let thread =
        std::thread::Builder::new().name("tessera-tracer".into()).spawn(move || tracer.run(&news))?;
    if !shared {
        // It has just begun to listen.
        let _ = tell.send(News::Leads);
    }
    Ok((tell, thread))
}

struct Tracer {
    store: Arc<dyn Engine>,
    journal: Journal,
    views: Arc<Views>,
    /// Whether other hubs write to the store.
    shared: bool,
}

impl Tracer {
    fn run(&self, news: &Receiver<News>) {
        // Agents to look at once more before they are done with, and when.
        let mut again: BTreeMap<AgentId, (ProviderId, Instant)> = BTreeMap::new();
        let mut leads = false;
        loop {
            let now = Instant::now();
            let next = again.values().map(|(_, at)| at.saturating_duration_since(now)).min();
            let idle = if leads && self.shared { LOOK_AGAIN } else { LOOK_AGAIN * 120 };
            match news.recv_timeout(next.unwrap_or(idle).min(idle)) {
                Ok(News::Leads) => {
                    leads = true;
                    report(self.resume(&mut again));
                }
                // The store names them, and the hub that leads looks there.
                Ok(News::Proven(_)) if !leads => {}
                Ok(News::Proven(agents)) => {
                    report(self.trace(&agents));
                    let at = Instant::now() + LOOK_AGAIN;
                    again.extend(agents.into_iter().map(|(agent, provider)| (agent, (provider, at))));
                }
                Ok(News::Extended(job)) => report(self.tell(job, &BTreeSet::new()).map(drop)),
                Err(RecvTimeoutError::Timeout) => {
                    self.look_again(&mut again);
                    if leads && self.shared {
                        report(self.hear_of_others(&mut again));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What a hub that stopped may have left half done.
    fn resume(&self, again: &mut BTreeMap<AgentId, (ProviderId, Instant)>) -> Result<(), RecordError> {
        let left = records::traces(&*self.store.snapshot()?)?;
        self.trace(&left)?;
        self.extensions()?;
        let now = Instant::now();
        again.extend(left.into_iter().map(|(agent, provider)| (agent, (provider, now))));
        Ok(())
    }

    /// Agents that were proven wrong on other hubs since the last look.
    fn hear_of_others(
        &self,
        again: &mut BTreeMap<AgentId, (ProviderId, Instant)>,
    ) -> Result<(), RecordError> {
        let mut found = records::traces(&*self.store.snapshot()?)?;
        found.retain(|(agent, _)| !again.contains_key(agent));
        self.trace(&found)?;
        let at = Instant::now() + LOOK_AGAIN;
        again.extend(found.into_iter().map(|(agent, provider)| (agent, (provider, at))));
        Ok(())
    }

    fn look_again(&self, again: &mut BTreeMap<AgentId, (ProviderId, Instant)>) {
        let now = Instant::now();
        let mut due = Vec::new();
        again.retain(|agent, (provider, at)| {
            let is_due = *at <= now;
            due.extend(is_due.then_some((*agent, *provider)));
            !is_due
        });
        if let Err(error) = self.trace(&due) {
            // The store still names them: the next start looks again.
            return report(Err(error));
        }
        for (agent, _) in due {
            self.journal.commit_and_wait(move || records::traced_batch(agent));
        }
    }

    /// Every job that ended and paid one of these agents, then those that extend one.
    fn trace(&self, agents: &[(AgentId, ProviderId)]) -> Result<(), RecordError> {
        let proven: BTreeSet<AgentId> = agents.iter().map(|(agent, _)| *agent).collect();
        let providers: BTreeSet<ProviderId> = agents.iter().map(|(_, provider)| *provider).collect();
        let mut jobs = BTreeSet::new();
        for provider in providers {
            let earned = records::earnings_of(&*self.store.snapshot()?, provider)?;
            jobs.extend(earned.into_iter().map(|(_, job, _)| job));
        }
        let mut any = false;
        for job in jobs {
            any |= self.tell(job, &proven)?;
        }
        if any { self.extensions() } else { Ok(()) }
    }

    /// Jobs that extend one that may have been tainted since. *Order*: by age, as they hand it on.
    fn extensions(&self) -> Result<(), RecordError> {
        for job in records::extensions(&*self.store.snapshot()?)? {
            self.tell(job, &BTreeSet::new())?;
        }
        Ok(())
    }

    /// Tells of one job, and says whether there was anything to tell.
    fn tell(&self, job: JobId, proven: &BTreeSet<AgentId>) -> Result<bool, RecordError> {
        let mut any = false;
        // Another hub may tell of it at this moment: then there may be less to tell, and what that one told is kept.
        for _ in 0..ATTEMPTS {
            match self.offer(job, proven)? {
                Some(true) => return Ok(true),
                Some(false) => any = true,
                None => break,
            }
        }
        Ok(any)
    }

    /// Whether what there was to tell is written; nothing where there was nothing.
    fn offer(&self, job: JobId, proven: &BTreeSet<AgentId>) -> Result<Option<bool>, RecordError> {
        let store = self.store.snapshot()?;
        let record = records::read_record(&*store, job)?;
        let Some((record, mut view)) = record.filter(|(_, view)| view.state == JobState::Done) else {
            return Ok(None);
        };
        let base = view.extends.map(|base| records::read_view(&*store, base)).transpose()?.flatten();
        let base = base.map_or(0, |base| base.tainted);
        let mut unchecked = records::read_unchecked(&*store, job)?;
        let (theirs, more) = unchecked.taint(base, |agent| proven.contains(agent));
        let Some(bill) = records::read_bill(&*store, job)?.filter(|_| more > 0) else { return Ok(None) };
        view.tainted += more;
        tracing::warn!(%job, shards = more, "a result that was given out rests on the word of an agent proven wrong");
        let said = |(agent, tainted): (AgentId, u64)| Act::Recalled { job, agent, shards: 0, tainted };
        let deed = Deed {
            batch: records::taint_batch(record, &view, &bill, &unchecked),
            acts: theirs.into_iter().map(said).collect(),
        };
        let written = self.journal.commit_and_wait(move || deed);
        if written {
            self.show(view);
        }
        Ok(Some(written))
    }

    /// Older jobs than the views keep are read from the store.
    fn show(&self, view: JobView) {
        if self.views.job(view.id).is_some() {
            self.views.publish_job(view);
        }
    }
}

fn report(traced: Result<(), RecordError>) {
    if let Err(error) = traced {
        tracing::error!(%error, "which results rest on an agent proven wrong cannot be read; the next start looks again");
    }
}

#[cfg(test)]
#[path = "tracer/tests.rs"]
mod tests;
