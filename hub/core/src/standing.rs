//! How far each agent is trusted, and what judgements do to it.
//!
//! Owns the records of the agents whose provider belongs to this lane. Judges nothing itself: it is told what
//! a check or a settled dispute has shown, and says whose standing changes. Sends and stores nothing.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, ProviderId};
use tessera_protocol::unit::{LaneIndex, Tick};

use crate::Account;

/// Checks an agent must agree in to leave quarantine, and again to leave probation. A liar of one shard in ten
/// passes twenty once in eight times, and forty once in seventy; an honest agent of 5,000 shards pays 0.8 %.
pub const PROMOTION_AGREED: u32 = 20;
/// Checks a sandboxed agent must agree in to be on probation again, and an agent of a suspect provider to leave
/// quarantine: a liar of one shard in fifty passes once in seven times.
pub const RECOVERY_AGREED: u32 = 100;
/// How often an agent is proven wrong until it is removed. Memory fails in honest machines too, but seldom twice.
pub const WRONG_MAX: u32 = 2;
/// Checks a trusted agent must agree in until it was proven wrong once less: at one check in 25 shards, more
/// than 10,000 shards, in which one lie is less than any class allows.
pub const FORGIVEN_AGREED: u32 = 500;
/// A provider is suspect when at least one in so many of its agents is on record as proven wrong. Machines of
/// one owner run one program: a lie by one of a few speaks for all, a broken machine among hundreds does not.
pub const SUSPECT_ONE_IN: u32 = 20;
/// The time in which ejections are counted. *Units*: milliseconds.
pub const EJECTION_WINDOW_MS: u64 = 600_000;
/// At most one in so many agents is ejected within the window: more at once is a bad build or a bad kernel.
pub const EJECTED_ONE_IN: u32 = 10;
/// Ejections within the window that are never held back, however small the fleet.
pub const EJECTIONS_ALWAYS: u32 = 4;

/// The lane that keeps the records of a provider's agents.
pub fn registry_lane(provider: ProviderId, lanes: u16) -> LaneIndex {
    let [.., a, b, c, d] = provider.0;
    LaneIndex((u32::from_le_bytes([a, b, c, d]) % u32::from(lanes.max(1))) as u16)
}

/// What was shown about an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its answer and that of an independent agent are the same; said of both.
    Agreed,
    /// An anchor, or agents independent of it and of each other, showed that its answer is wrong.
    ProvenWrong,
    /// The kernel gives different answers on honest machines: nobody's fault.
    KernelFault,
}

/// A standing that became another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub agent: AgentId,
    /// What it was.
    pub from: Standing,
    /// What it is.
    pub to: Standing,
    /// Why.
    pub reason: Reason,
}

/// Why a standing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It agreed in as many checks as it takes.
    Agreed,
    /// It was proven wrong.
    ProvenWrong,
    /// It was proven wrong as often as it takes to be removed.
    ProvenWrongAgain,
    /// Another agent of its provider was proven wrong.
    ProviderProvenWrong,
    /// It was proven wrong when too many were: it is checked, and not ejected.
    TooManyEjected,
}

/// More agents were proven wrong at once than chance and liars explain; someone must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Ejections within the window.
    pub ejected: u32,
    /// Ejections that it permits.
    pub permitted: u32,
}

/// What follows from a judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Standings that changed. *Order*: the agent judged, then others of its provider by id.
    pub changes: Vec<Change>,
    /// Raised once a window.
    pub alarm: Option<Alarm>,
}

/// What is kept of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRecord {
    /// Whose.
    pub agent: AgentId,
    /// Who owns it.
    pub provider: ProviderId,
    /// Whether it is the operator's own.
    pub anchor: bool,
    /// How far it is trusted.
    pub standing: Standing,
    /// Checks it agreed in since its standing, or the next number, last changed.
    pub agreed: u32,
    /// How often it was proven wrong and not forgiven.
    pub wrong: u32,
}

#[derive(Debug, Default)]
struct Provider {
    agents: BTreeSet<AgentId>,
    /// How many of them are on record as proven wrong.
    wrong: u32,
}

impl Provider {
    fn is_suspect(&self) -> bool {
        self.wrong > 0 && self.wrong.saturating_mul(SUSPECT_ONE_IN) as usize >= self.agents.len()
    }
}

/// The records of one lane.
#[derive(Debug, Default)]
pub struct Registry {
    agents: BTreeMap<AgentId, StandingRecord>,
    providers: BTreeMap<ProviderId, Provider>,
    unsaved: BTreeSet<AgentId>,
    /// When agents were ejected. Not kept across a restart, which at worst permits a window's worth again.
    ejections: VecDeque<Tick>,
    alarmed: Option<Tick>,
}

impl Registry {
    /// The registry that had these records.
    pub fn restore(records: impl IntoIterator<Item = StandingRecord>) -> Registry {
        let mut registry = Registry::default();
        for record in records {
            registry.put(record);
        }
        registry
    }

    /// An agent took up a session. Where it stands: the operator's own are trusted, others begin in quarantine.
    pub fn arrived(&mut self, agent: AgentId, account: Account) -> Standing {
        if let Some(record) = self.agents.get(&agent)
            && (record.provider, record.anchor) == (account.provider, account.anchor)
        {
            return record.standing;
        }
        let new = if account.anchor { Standing::Trusted } else { Standing::Quarantine };
        let known = self.agents.get(&agent);
        let record = StandingRecord {
            agent,
            provider: account.provider,
            anchor: account.anchor,
            // A name enrolled again elsewhere takes its record along, and nothing better.
            standing: known.map_or(new, |record| record.standing.min(new)),
            agreed: 0,
            wrong: known.map_or(0, |record| record.wrong),
        };
        self.put(record);
        self.unsaved.insert(agent);
        record.standing
    }

    /// Where an agent stands; nothing for one that belongs to another lane or never came.
    pub fn standing(&self, agent: AgentId) -> Option<Standing> {
        self.agents.get(&agent).map(|record| record.standing)
    }

    /// What is on record about an agent.
    pub fn record(&self, agent: AgentId) -> Option<&StandingRecord> {
        self.agents.get(&agent)
    }

    /// Takes a judgement in. `fleet` is how many agents take work, counting those whose ejections are
    /// judged here: with several lanes, this lane's part.
    pub fn judge(
        &mut self,
        agent: AgentId,
        account: Account,
        judgement: Judgement,
        fleet: u32,
        now: Tick,
    ) -> Ruling {
        self.arrived(agent, account);
        match judgement {
            Judgement::KernelFault => Ruling::default(),
            Judgement::Agreed => Ruling { changes: self.agreed(agent).into_iter().collect(), alarm: None },
            Judgement::ProvenWrong => self.proven_wrong(agent, fleet, now),
        }
    }

    /// Records that changed since the last call, as they are now. *Order*: by agent.
    pub fn take_unsaved(&mut self) -> Vec<StandingRecord> {
        let unsaved = core::mem::take(&mut self.unsaved);
        unsaved.iter().filter_map(|agent| self.agents.get(agent).copied()).collect()
    }

    /// Whether [`Registry::take_unsaved`] has something to say.
    pub fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    fn agreed(&mut self, agent: AgentId) -> Option<Change> {
        let mut record = *self.agents.get(&agent)?;
        let suspect = self.providers.get(&record.provider).is_some_and(Provider::is_suspect);
        record.agreed = record.agreed.saturating_add(1);
        let (needed, next) = match record.standing {
            Standing::Removed => return None,
            Standing::Sandboxed => (RECOVERY_AGREED, Standing::Probation),
            Standing::Quarantine if suspect => (RECOVERY_AGREED, Standing::Probation),
            Standing::Quarantine => (PROMOTION_AGREED, Standing::Probation),
            Standing::Probation => (PROMOTION_AGREED, Standing::Trusted),
            Standing::Trusted => (FORGIVEN_AGREED, Standing::Trusted),
        };
        let from = record.standing;
        if record.agreed >= needed {
            record.agreed = 0;
            record.standing = next;
            if from == Standing::Trusted {
                record.wrong = record.wrong.saturating_sub(1);
            }
        }
        self.put(record);
        self.unsaved.insert(agent);
        (record.standing != from).then_some(Change {
            agent,
            from,
            to: record.standing,
            reason: Reason::Agreed,
        })
    }

    fn proven_wrong(&mut self, agent: AgentId, fleet: u32, now: Tick) -> Ruling {
        let mut ruling = Ruling::default();
        let Some(mut record) = self.agents.get(&agent).copied() else { return ruling };
        let from = record.standing;
        if from == Standing::Removed {
            return ruling;
        }
        record.agreed = 0;
        let again = record.wrong + 1 >= WRONG_MAX;
        let (to, reason) = match again {
            true => (Standing::Removed, Reason::ProvenWrongAgain),
            false => (Standing::Sandboxed, Reason::ProvenWrong),
        };
        match self.eject(from, fleet, now) {
            Ok(()) => {
                record.standing = to;
                record.wrong += 1;
            }
            // What hits so many at once is hardly their doing: it goes on nobody's record.
            Err(alarm) => {
                record.standing = from.min(Standing::Quarantine);
                if self.alarmed.is_none_or(|at| now >= at.after_ms(EJECTION_WINDOW_MS)) {
                    self.alarmed = Some(now);
                    ruling.alarm = Some(alarm);
                }
            }
        }
        let held = record.standing != to;
        let reason = if held { Reason::TooManyEjected } else { reason };
        self.put(record);
        self.unsaved.insert(agent);
        if record.standing != from {
            ruling.changes.push(Change { agent, from, to: record.standing, reason });
        }
        if !held && !record.anchor {
            self.demote_others(agent, record.provider, &mut ruling.changes);
        }
        ruling
    }

    /// Counts an ejection, unless there are too many. One that is out already is not ejected again.
    fn eject(&mut self, from: Standing, fleet: u32, now: Tick) -> Result<(), Alarm> {
        while self.ejections.front().is_some_and(|at| now >= at.after_ms(EJECTION_WINDOW_MS)) {
            self.ejections.pop_front();
        }
        let permitted = EJECTIONS_ALWAYS.max(fleet / EJECTED_ONE_IN);
        if from == Standing::Sandboxed {
            return Ok(());
        }
        if self.ejections.len() >= permitted as usize {
            return Err(Alarm { ejected: self.ejections.len() as u32, permitted });
        }
        self.ejections.push_back(now);
        Ok(())
    }

    fn demote_others(&mut self, agent: AgentId, provider: ProviderId, changes: &mut Vec<Change>) {
        let Some(owner) = self.providers.get(&provider) else { return };
        let most = if owner.is_suspect() { Standing::Quarantine } else { Standing::Probation };
        for other in owner.agents.iter().filter(|other| **other != agent) {
            let Some(record) = self.agents.get_mut(other) else { continue };
            let from = record.standing;
            if from < most {
                continue;
            }
            // Also who is there already begins to count anew: what it agreed in was before the lie was known.
            record.agreed = 0;
            record.standing = most;
            self.unsaved.insert(*other);
            if from != most {
                let reason = Reason::ProviderProvenWrong;
                changes.push(Change { agent: *other, from, to: most, reason });
            }
        }
    }

    /// Replaces a record, and keeps the provider's count right.
    fn put(&mut self, record: StandingRecord) {
        if let Some(old) = self.agents.insert(record.agent, record)
            && let Some(provider) = self.providers.get_mut(&old.provider)
        {
            provider.agents.remove(&record.agent);
            provider.wrong -= u32::from(old.wrong > 0);
        }
        let provider = self.providers.entry(record.provider).or_default();
        provider.agents.insert(record.agent);
        provider.wrong += u32::from(record.wrong > 0);
    }
}
