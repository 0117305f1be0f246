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
/// Checks an agent that was proven wrong, or one of a suspect provider, must agree in on probation until it is
/// trusted: who sleeps until it is trusted again has done so much honest work for each new lie.
pub const REGAINED_AGREED: u32 = 400;
/// Checks it must then agree in until it was proven wrong once less: about 25,000 shards, so that the dozen lies
/// that one who begins again gets through are fewer than any class allows.
pub const FORGIVEN_AGREED: u32 = 2_000;
/// A provider is suspect when at least one in so many of its agents is on record as proven wrong. Machines of
/// one owner run one program: a lie by one of a few speaks for all, a broken machine among hundreds does not.
pub const SUSPECT_ONE_IN: u32 = 20;
/// So many agents of a suspect provider proven wrong, and the others are ejected with them.
pub const SUSPECT_AGENTS_MAX: u32 = 2;
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
    /// Whether it was proven wrong since it was last trusted, though too many were for it to be held against it.
    #[serde(default)]
    pub proven: bool,
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
            proven: known.is_some_and(|record| record.proven),
        };
        self.put(record);
        self.unsaved.insert(agent);
        record.standing
    }

    /// The store says this of an agent, which another hub may have judged: says where it stands if that is news.
    /// `settled`: what this registry said of it last is durable, unless it is unsaved.
    ///
    /// What the store says is newer, and counts. Where this registry knows something that the store does not say yet,
    /// or where the store says something worse, the worse of the two counts: nobody gets rid of a proof by moving.
    pub fn learn(&mut self, stored: StandingRecord, settled: bool) -> Option<Standing> {
        let Some(known) = self.agents.get(&stored.agent).copied() else {
            self.put(stored);
            return Some(stored.standing);
        };
        let settled = settled && !self.unsaved.contains(&stored.agent);
        let record = match settled {
            true => stored,
            false => StandingRecord {
                standing: known.standing.min(stored.standing),
                agreed: known.agreed.min(stored.agreed),
                wrong: known.wrong.max(stored.wrong),
                proven: known.proven || stored.proven,
                ..stored
            },
        };
        if record != stored {
            self.unsaved.insert(record.agent);
        }
        self.put(record);
        (record.standing != known.standing).then_some(record.standing)
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
        if record.standing == Standing::Trusted && record.wrong == 0 && !record.proven {
            // It has nothing to gain.
            return None;
        }
        let suspect = self.providers.get(&record.provider).is_some_and(Provider::is_suspect);
        record.agreed = record.agreed.saturating_add(1);
        let blemished = suspect || record.wrong > 0;
        let (needed, next) = match record.standing {
            Standing::Removed => return None,
            Standing::Sandboxed => (RECOVERY_AGREED, Standing::Probation),
            Standing::Quarantine if blemished => (RECOVERY_AGREED, Standing::Probation),
            Standing::Quarantine => (PROMOTION_AGREED, Standing::Probation),
            Standing::Probation if blemished => (REGAINED_AGREED, Standing::Trusted),
            Standing::Probation => (PROMOTION_AGREED, Standing::Trusted),
            Standing::Trusted => (FORGIVEN_AGREED, Standing::Trusted),
        };
        let from = record.standing;
        if record.agreed >= needed {
            record.agreed = 0;
            record.standing = next;
            record.proven &= next != Standing::Trusted;
            record.wrong -= u32::from(from == Standing::Trusted && record.wrong > 0);
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
        (record.agreed, record.proven) = (0, true);
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
            self.demote_others(agent, record.provider, fleet, now, &mut ruling.changes);
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

    fn demote_others(
        &mut self,
        agent: AgentId,
        provider: ProviderId,
        fleet: u32,
        now: Tick,
        changes: &mut Vec<Change>,
    ) {
        let Some(owner) = self.providers.get(&provider) else { return };
        let most = match (owner.is_suspect(), owner.wrong >= SUSPECT_AGENTS_MAX) {
            (false, _) => Standing::Probation,
            (true, false) => Standing::Quarantine,
            (true, true) => Standing::Sandboxed,
        };
        let others: Vec<AgentId> = owner.agents.iter().filter(|other| **other != agent).copied().collect();
        for other in others {
            let Some(mut record) = self.agents.get(&other).copied() else { continue };
            let from = record.standing;
            if from < most {
                continue;
            }
            let held = most == Standing::Sandboxed && self.eject(from, fleet, now).is_err();
            // Also who is there already begins to count anew: what it agreed in was before the lie was known.
            record.agreed = 0;
            record.standing = if held { from.min(Standing::Quarantine) } else { most };
            self.put(record);
            self.unsaved.insert(other);
            if from != record.standing {
                let reason = Reason::ProviderProvenWrong;
                changes.push(Change { agent: other, from, to: record.standing, reason });
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

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;
    use Judgement::{Agreed, KernelFault, ProvenWrong};
    use Standing::{Probation, Quarantine, Removed, Sandboxed, Trusted};

    const FLEET: u32 = 400;

    fn agent(number: u16) -> AgentId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        AgentId(id)
    }

    fn of(provider: &str) -> Account {
        Account::of_provider(ProviderId::of_name(provider))
    }

    /// The agents of one provider, in quarantine.
    fn provider(agents: u16) -> Registry {
        let mut registry = Registry::default();
        (0..agents).for_each(|number| {
            registry.arrived(agent(number), of("acme"));
        });
        registry
    }

    /// What became of the agent after it was judged so often.
    fn judge(registry: &mut Registry, number: u16, judgement: Judgement, times: u32) -> Standing {
        for _ in 0..times {
            registry.judge(agent(number), of("acme"), judgement, FLEET, Tick(0));
        }
        registry.standing(agent(number)).expect("it arrived")
    }

    #[test]
    fn an_agent_that_agrees_is_on_probation_after_twenty_checks_and_trusted_after_twenty_more() {
        let mut registry = provider(1);
        assert_eq!(judge(&mut registry, 0, Agreed, 19), Quarantine);
        assert_eq!(judge(&mut registry, 0, Agreed, 1), Probation);
        assert_eq!(judge(&mut registry, 0, Agreed, 19), Probation);
        assert_eq!(judge(&mut registry, 0, Agreed, 1), Trusted);
        assert_eq!(judge(&mut registry, 0, Agreed, 1_000), Trusted);
    }

    #[test]
    fn one_proof_sandboxes_a_second_removes_and_nothing_brings_it_back() {
        let mut registry = provider(1);
        judge(&mut registry, 0, Agreed, 40);
        assert_eq!(judge(&mut registry, 0, ProvenWrong, 1), Sandboxed);
        assert_eq!(judge(&mut registry, 0, Agreed, 99), Sandboxed);
        assert_eq!(judge(&mut registry, 0, Agreed, 1), Probation);
        assert_eq!(judge(&mut registry, 0, ProvenWrong, 1), Removed);
        assert_eq!(judge(&mut registry, 0, Agreed, 10_000), Removed);
        assert_eq!(registry.arrived(agent(0), of("acme")), Removed, "not a new session either");
    }

    #[test]
    fn who_was_proven_wrong_on_another_hub_is_so_on_this_one_and_a_proof_that_is_not_durable_yet_stays() {
        let mut registry = provider(2);
        judge(&mut registry, 0, Agreed, 40);
        let mine = *registry.record(agent(0)).expect("it arrived");
        assert_eq!(mine.standing, Trusted);
        registry.take_unsaved();
        let theirs = StandingRecord { standing: Sandboxed, wrong: 1, proven: true, agreed: 0, ..mine };
        assert_eq!(registry.learn(theirs, true), Some(Sandboxed));
        assert_eq!(registry.record(agent(0)), Some(&theirs));
        assert!(!registry.is_unsaved(), "the store says so already");
        // It has made up for it there since.
        let later = StandingRecord { standing: Probation, ..theirs };
        assert_eq!(registry.learn(later, true), Some(Probation));
        // A second proof here, which the store does not know yet.
        assert_eq!(judge(&mut registry, 0, ProvenWrong, 1), Removed);
        assert_eq!(registry.learn(later, true), None);
        assert_eq!(
            registry.record(agent(0)).map(|record| (record.standing, record.wrong)),
            Some((Removed, 2))
        );
        assert!(registry.is_unsaved());
        registry.take_unsaved();
        assert_eq!(registry.learn(later, false), None, "nor while it is on its way");
        let stranger = StandingRecord { agent: agent(9), ..theirs };
        assert_eq!(registry.learn(stranger, true), Some(Sandboxed));
    }

    #[test]
    fn who_slept_until_it_was_trusted_does_not_get_there_again_in_forty_checks() {
        let mut registry = provider(1);
        judge(&mut registry, 0, Agreed, 40);
        judge(&mut registry, 0, ProvenWrong, 1);
        assert_eq!(judge(&mut registry, 0, Agreed, RECOVERY_AGREED + REGAINED_AGREED - 1), Probation);
        assert_eq!(judge(&mut registry, 0, Agreed, 1), Trusted);
        assert_eq!(judge(&mut registry, 0, ProvenWrong, 1), Removed, "it had its second chance");
    }

    #[test]
    fn a_proof_is_forgiven_after_thousands_of_checks() {
        let mut registry = provider(1);
        judge(&mut registry, 0, ProvenWrong, 1);
        let checks = RECOVERY_AGREED + REGAINED_AGREED + FORGIVEN_AGREED;
        assert_eq!(judge(&mut registry, 0, Agreed, checks - 1), Trusted);
        assert_eq!(registry.record(agent(0)).map(|record| record.wrong), Some(1));
        judge(&mut registry, 0, Agreed, 1);
        assert_eq!(judge(&mut registry, 0, ProvenWrong, 1), Sandboxed);
    }

    #[test]
    fn a_kernel_that_disagrees_with_itself_is_nobodys_fault() {
        let mut registry = provider(2);
        judge(&mut registry, 0, Agreed, 25);
        let before = *registry.record(agent(0)).expect("it arrived");
        assert_eq!(judge(&mut registry, 0, KernelFault, 50), Probation);
        assert_eq!(registry.record(agent(0)), Some(&before));
    }

    #[test]
    fn a_lie_of_one_of_a_few_puts_the_others_of_its_provider_in_quarantine_and_a_second_ejects_them() {
        let mut registry = provider(5);
        registry.arrived(agent(9), of("someone else"));
        (0..5).for_each(|number| assert_eq!(judge(&mut registry, number, Agreed, 40), Trusted));
        judge(&mut registry, 2, ProvenWrong, 1);
        let standings =
            |registry: &Registry| [0, 1, 2, 3, 4, 9].map(|n| registry.standing(agent(n)).expect("there"));
        let [q, s] = [Quarantine, Sandboxed];
        assert_eq!(standings(&registry), [q, q, s, q, q, q]);
        assert_eq!(
            judge(&mut registry, 0, Agreed, RECOVERY_AGREED - 1),
            Quarantine,
            "twenty are not enough now"
        );
        judge(&mut registry, 4, ProvenWrong, 1);
        assert_eq!(standings(&registry), [s, s, s, s, s, q], "the other provider's agent is as it was");
    }

    #[test]
    fn one_broken_machine_of_a_hundred_puts_the_others_on_probation_only() {
        let mut registry = provider(100);
        (0..100).for_each(|number| assert_eq!(judge(&mut registry, number, Agreed, 40), Trusted));
        let ruling = registry.judge(agent(7), of("acme"), ProvenWrong, FLEET, Tick(0));
        assert_eq!(ruling.changes.len(), 100);
        assert!(ruling.changes[1..].iter().all(|change| (change.from, change.to) == (Trusted, Probation)));
        assert!(ruling.changes[1..].iter().all(|change| change.reason == Reason::ProviderProvenWrong));
        assert_eq!(judge(&mut registry, 8, Agreed, PROMOTION_AGREED), Trusted);
    }

    #[test]
    fn of_a_fleet_at_most_a_tenth_is_ejected_in_ten_minutes_and_the_rest_is_checked() {
        let mut registry = Registry::default();
        let owner = |number: u16| of(&format!("provider {number}"));
        let mut alarms = 0;
        for number in 0..100 {
            let ruling = registry.judge(agent(number), owner(number), ProvenWrong, FLEET, Tick(1_000));
            alarms += u32::from(ruling.alarm.is_some());
            let expected = if number < 40 { Sandboxed } else { Quarantine };
            assert_eq!(registry.standing(agent(number)), Some(expected), "agent {number}");
        }
        assert_eq!(alarms, 1, "raised once, not sixty times");
        let record = registry.record(agent(70)).expect("it was judged");
        assert_eq!(record.wrong, 0, "what was held back is on nobody's record");
        let at = |registry: &mut Registry, ms| {
            registry.judge(agent(70), owner(70), ProvenWrong, FLEET, Tick(ms));
            registry.standing(agent(70))
        };
        assert_eq!(at(&mut registry, 1_000 + EJECTION_WINDOW_MS - 1), Some(Quarantine));
        assert_eq!(at(&mut registry, 1_000 + EJECTION_WINDOW_MS), Some(Sandboxed));
    }

    #[test]
    fn a_fleet_of_a_dozen_can_still_eject_its_liars() {
        let mut registry = Registry::default();
        for number in 0..5 {
            let owner = of(&format!("provider {number}"));
            let ruling = registry.judge(agent(number), owner, ProvenWrong, 12, Tick(0));
            assert_eq!(ruling.alarm.is_some(), number == 4);
        }
        let ejected = (0..5).filter(|number| registry.standing(agent(*number)) == Some(Sandboxed)).count();
        assert_eq!(ejected, EJECTIONS_ALWAYS as usize);
    }

    #[test]
    fn the_operators_own_are_trusted_at_once_and_one_that_breaks_does_not_discredit_the_others() {
        let mut registry = Registry::default();
        for number in 0..3 {
            assert_eq!(registry.arrived(agent(number), Account::operator()), Trusted);
        }
        let ruling = registry.judge(agent(0), Account::operator(), ProvenWrong, FLEET, Tick(0));
        assert_eq!(ruling.changes.len(), 1);
        assert_eq!(registry.standing(agent(1)), Some(Trusted));
    }

    #[test]
    fn an_agent_enrolled_again_under_another_name_takes_its_record_along() {
        let mut registry = provider(2);
        judge(&mut registry, 0, Agreed, 40);
        judge(&mut registry, 0, ProvenWrong, 1);
        assert_eq!(registry.arrived(agent(0), of("fresh start")), Sandboxed);
        assert_eq!(registry.record(agent(0)).map(|record| record.wrong), Some(1));
        assert_eq!(
            judge(&mut registry, 1, Agreed, PROMOTION_AGREED),
            Probation,
            "its old provider is rid of it"
        );
        assert_eq!(
            registry.arrived(agent(1), Account::operator()),
            Probation,
            "nobody is promoted by a token"
        );
    }

    #[test]
    fn a_registry_restored_from_what_it_saved_rules_as_before() {
        let mut registry = provider(5);
        (0..5).for_each(|number| {
            judge(&mut registry, number, Agreed, 25 + u32::from(number));
        });
        judge(&mut registry, 3, ProvenWrong, 1);
        let mut saved: BTreeMap<AgentId, StandingRecord> = BTreeMap::new();
        saved.extend(registry.take_unsaved().into_iter().map(|record| (record.agent, record)));
        assert!(registry.take_unsaved().is_empty(), "saved once");
        judge(&mut registry, 1, Agreed, 30);
        assert_eq!(registry.take_unsaved().len(), 1, "only who was judged since");
        let mut restored = Registry::restore(saved.into_values());
        judge(&mut restored, 1, Agreed, 30);
        for number in 0..5 {
            assert_eq!(restored.record(agent(number)), registry.record(agent(number)));
        }
        assert_eq!(judge(&mut restored, 4, ProvenWrong, 1), Sandboxed);
        assert_eq!(restored.standing(agent(0)), Some(Sandboxed), "it knows that this is the second");
    }

    #[test]
    fn every_standing_becomes_what_the_table_says() {
        let mut table = String::new();
        for standing in [Quarantine, Probation, Trusted, Sandboxed, Removed] {
            for wrong in 0..WRONG_MAX {
                let record = |number| StandingRecord {
                    agent: agent(number),
                    provider: ProviderId::of_name("acme"),
                    anchor: false,
                    standing,
                    agreed: 0,
                    wrong,
                    proven: wrong > 0,
                };
                let mut agreeing = Registry::restore([record(0)]);
                let mut checks = 0;
                let after = loop {
                    checks += 1;
                    match agreeing.judge(agent(0), of("acme"), Agreed, FLEET, Tick(0)).changes.first() {
                        Some(change) => break format!("{} after {checks}", change.to.word()),
                        None if checks > 5_000 => break String::from("-"),
                        None => {}
                    }
                };
                let mut lying = Registry::restore([record(0)]);
                let proven = judge(&mut lying, 0, ProvenWrong, 1).word();
                table += &format!("{:<10} {wrong} {after:<19} {proven}\n", standing.word());
            }
        }
        assert_eq!(table, TABLE, "standing, times proven wrong, agreeing makes it, proven wrong makes it");
    }

    const TABLE: &str = "\
quarantine 0 probation after 20  sandboxed
quarantine 1 probation after 100 removed
probation  0 trusted after 20    sandboxed
probation  1 trusted after 400   removed
trusted    0 -                   sandboxed
trusted    1 -                   removed
sandboxed  0 probation after 100 sandboxed
sandboxed  1 probation after 100 removed
removed    0 -                   removed
removed    1 -                   removed
";

    #[test]
    fn a_provider_has_one_lane_whoever_asks() {
        let lanes: BTreeSet<LaneIndex> =
            (0..64).map(|n| registry_lane(ProviderId::of_name(&format!("{n}")), 4)).collect();
        assert_eq!(lanes, (0..4).map(LaneIndex).collect());
        assert_eq!(registry_lane(ProviderId::of_name("acme"), 1), LaneIndex(0));
    }
}
