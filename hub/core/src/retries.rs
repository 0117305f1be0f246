//! A job's attempts that came to nothing: who tries next, and when a shard is given up.
//!
//! Decides and remembers; places nothing. One lives with each job on its home lane, and does not survive the
//! hub: a job that is recovered starts with a clean sheet.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use tessera_protocol::id::{AgentId, ProviderId};
use tessera_protocol::unit::{ShardIndex, Tick};

use crate::Account;
use crate::fleet::Fleet;
use crate::message::{Errand, FailureCause, Who};
use crate::planted::{Planted, Planting};

/// Losses that make a shard suspect, when they are of [`LOSS_PROVIDERS_MIN`] providers.
pub const LOSSES_MAX: usize = 3;
/// Providers whose agents must have been lost: one provider's machines may all be bad.
pub const LOSS_PROVIDERS_MIN: usize = 2;
/// Losses that make a shard suspect when only one provider has agents to lose.
pub const LOSSES_ALONE_MAX: usize = 32;
/// Runs by the operator's own agents that must come to nothing: the first one can have been lost by chance.
pub const ANCHOR_RUNS: u32 = 2;
/// More of them for each time that an agent of the fleet was lost meanwhile, on average: where agents are lost all
/// the time, so are those that run a healthy shard.
const ANCHOR_RUNS_PER_LOSS: u64 = 3;
/// But never more: a job all of whose shards kill loses the whole fleet again and again.
pub const ANCHOR_RUNS_MAX: u32 = 8;
/// How long a suspect shard waits for one of the operator's own agents. *Units*: milliseconds.
pub const ANCHOR_WAIT_MS: u64 = 600_000;
/// How long agents take to come back after a restart of the hub. *Units*: milliseconds.
const RETURN_MS: u64 = 30_000;
/// Setbacks of one shard that are remembered.
const SETBACKS_MAX: usize = 2 * LOSSES_ALONE_MAX;

/// An attempt that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setback {
    /// Whose it was.
    pub agent: AgentId,
    /// Whom that agent belongs to.
    pub account: Account,
    /// Why.
    pub cause: FailureCause,
    /// When the home heard of it.
    pub at: Tick,
}

impl Setback {
    fn is_loss(&self) -> bool {
        matches!(self.cause, FailureCause::Lost(_))
    }
}

/// What becomes of a shard after a setback.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is tried again when its turn comes, or another attempt is live.
    Again,
    /// It failed more often than its client allows.
    GivenUp {
        /// How often.
        attempts: u32,
    },
    /// It takes agents down with it.
    Poisoned(Vec<Setback>),
}

/// What went wrong with the shards of a job that are not done.
#[derive(Debug)]
pub struct Retries {
    allowed: u32,
    shards: BTreeMap<ShardIndex, Trouble>,
    /// What is to be tried again as soon as the budget allows.
    queue: VecDeque<Errand>,
    /// Until when a shard waits for other agents than the one that failed at it, though none is there.
    patient_until: Tick,
    pub(crate) planting: Planting,
}

#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    setbacks: Vec<Setback>,
    /// Since when it waits for one of the operator's own agents, or runs there.
    suspect: Option<Tick>,
    /// Agents that the fleet had lost before this shard's first loss.
    fleet_lost: Option<u64>,
    /// How many of the operator's own agents were lost to it, or failed, since.
    anchor_runs: u32,
}

impl Retries {
    /// None so far; `allowed` is how many failures of a shard are made up for.
    pub fn new(allowed: u32) -> Retries {
        Retries {
            allowed,
            shards: BTreeMap::new(),
            queue: VecDeque::new(),
            patient_until: Tick(0),
            planting: Planting::default(),
        }
    }

    /// After a restart of the hub, agents take a while to come back.
    pub fn be_patient(&mut self, now: Tick) {
        self.patient_until = now.after_ms(RETURN_MS);
    }

    /// Whether other agents than those here may soon be.
    pub fn is_patient(&self, now: Tick) -> bool {
        now < self.patient_until
    }

    /// An attempt came to nothing. `answered` are those who answered the shard before.
    pub fn set_back(
        &mut self,
        mut errand: Errand,
        setback: Setback,
        answered: Vec<AgentId>,
        fleet: &Fleet,
    ) -> Decision {
        if self.planting.is(Planted::ForgetLosses) && setback.is_loss() {
            self.queue.push_back(errand);
            return Decision::Again;
        }
        let trouble = self.shards.entry(errand.index).or_default();
        if trouble.setbacks.len() < SETBACKS_MAX {
            trouble.setbacks.push(setback);
        }
        if setback.is_loss() {
            trouble.fleet_lost.get_or_insert(fleet.lost().saturating_sub(1));
        }
        if trouble.suspect.is_some() && errand.who == Who::Anchor {
            trouble.anchor_runs += 1;
            if trouble.anchor_runs >= trouble.anchor_runs_needed(fleet) {
                return Decision::Poisoned(trouble.setbacks.clone());
            }
        }
        if errand.spare {
            return Decision::Again;
        }
        if !setback.is_loss() {
            trouble.failures += 1;
            if trouble.failures > self.allowed && !self.planting.is(Planted::RetryForEver) {
                return Decision::GivenUp { attempts: trouble.failures };
            }
        }
        errand.spare = false;
        errand.tried.clear();
        if trouble.is_suspect() {
            if self.planting.is(Planted::PoisonWithoutAnchor) {
                return Decision::Poisoned(trouble.setbacks.clone());
            }
            trouble.suspect.get_or_insert(setback.at);
            (errand.who, errand.avoid) = (Who::Anchor, answered);
            errand.avoid.push(setback.agent);
        } else if matches!(errand.who, Who::Anyone | Who::Others { .. }) {
            errand.who = match trouble.providers().as_slice() {
                [only] if !self.planting.is(Planted::RetryBesideTheFailed) => {
                    Who::Others { not_of: alloc::vec![*only] }
                }
                _ => Who::Anyone,
            };
        }
        self.queue.push_back(errand);
        Decision::Again
    }

    /// What is to be tried again now.
    pub fn next(&mut self, budget: &mut RetryBudget, now: Tick) -> Option<Errand> {
        if self.queue.is_empty() || !budget.spend(now) {
            return None;
        }
        self.queue.pop_front()
    }

    /// Whether attempts at shards that are not done came to nothing.
    pub fn has_troubles(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Forgets the troubles of a shard that is done; says whose they were.
    pub fn passed(&mut self, index: ShardIndex) -> Vec<Setback> {
        self.shards.remove(&index).map(|trouble| trouble.setbacks).unwrap_or_default()
    }

    /// Whether only one of the operator's own agents may run a shard.
    pub fn awaits_anchor(&self, index: ShardIndex) -> bool {
        self.shards.get(&index).is_some_and(|trouble| trouble.suspect.is_some())
    }

    /// Whether one of `stuck`, for which no agent of the operator's is there, has waited too long.
    pub fn overdue(&self, stuck: &[Errand], now: Tick) -> Option<(ShardIndex, Vec<Setback>)> {
        stuck.iter().find_map(|errand| {
            let trouble = self.shards.get(&errand.index)?;
            let since = trouble.suspect?;
            (since.after_ms(ANCHOR_WAIT_MS) <= now).then(|| (errand.index, trouble.setbacks.clone()))
        })
    }

    /// Whether something waits that only time brings about.
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || self.shards.values().any(|trouble| trouble.suspect.is_some())
    }

    /// What is waited for, in words.
    pub fn waiting(&self) -> Option<String> {
        let suspect = self.shards.iter().find(|(_, trouble)| trouble.suspect.is_some());
        if let Some((index, trouble)) = suspect {
            let (losses, providers) = (trouble.losses().count(), trouble.providers().len());
            return Some(format!(
                "shard {} was lost with {losses} agents of {providers} providers: one of the operator's own \
                 agents is to run it; without one the job fails after {} minutes",
                index.0,
                ANCHOR_WAIT_MS / 60_000
            ));
        }
        let count = self.queue.len();
        (count > 0).then(|| {
            format!(
                "{count} shards wait to be tried again: so many attempts fail that the hub spaces them out"
            )
        })
    }
}

impl Trouble {
    fn losses(&self) -> impl Iterator<Item = &Setback> {
        self.setbacks.iter().filter(|setback| setback.is_loss())
    }

    /// Runs of the operator's own agents that must come to nothing.
    fn anchor_runs_needed(&self, fleet: &Fleet) -> u32 {
        let meanwhile = fleet.lost().saturating_sub(self.fleet_lost.unwrap_or_default());
        let others = meanwhile.saturating_sub(self.losses().count() as u64);
        let more = (others * ANCHOR_RUNS_PER_LOSS).div_ceil(u64::from(fleet.total().max(1)));
        ANCHOR_RUNS.saturating_add(more.try_into().unwrap_or(u32::MAX)).min(ANCHOR_RUNS_MAX)
    }

    /// Of all setbacks, each once.
    fn providers(&self) -> Vec<ProviderId> {
        let mut providers: Vec<_> = self.setbacks.iter().map(|setback| setback.account.provider).collect();
        providers.sort_unstable();
        providers.dedup();
        providers
    }

    fn is_suspect(&self) -> bool {
        let mut lost: Vec<_> = self.losses().map(|setback| setback.account.provider).collect();
        let losses = lost.len();
        lost.sort_unstable();
        lost.dedup();
        self.suspect.is_some()
            || (losses >= LOSSES_MAX && lost.len() >= LOSS_PROVIDERS_MIN)
            || losses >= LOSSES_ALONE_MAX
    }
}

/// How many retries the jobs of one lane may make: a tenth of their attempts, and some at any time, so that a
/// fleet that fails at everything is not kept busy with failing.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    /// *Units*: thousandths of a retry.
    milli: u64,
    refilled: Tick,
}

/// What attempts earn. *Units*: thousandths of a retry for each.
const EARNED_MILLI: u64 = 100;
/// What time earns. *Units*: thousandths of a retry for each millisecond: twenty retries a second.
const REFILLED_MILLI_PER_MS: u64 = 20;
/// Most that is saved up. *Units*: thousandths of a retry.
const SAVED_MILLI_MAX: u64 = 200_000;

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { milli: SAVED_MILLI_MAX, refilled: Tick(0) }
    }
}

impl RetryBudget {
    /// So many attempts were made.
    pub fn earn(&mut self, attempts: u64) {
        self.milli = self.milli.saturating_add(attempts.saturating_mul(EARNED_MILLI)).min(SAVED_MILLI_MAX);
    }

    /// Takes one retry, if there is one.
    pub fn spend(&mut self, now: Tick) -> bool {
        let passed = now.0.saturating_sub(self.refilled.0);
        self.refilled = now;
        let refill = passed.saturating_mul(REFILLED_MILLI_PER_MS);
        self.milli = self.milli.saturating_add(refill).min(SAVED_MILLI_MAX);
        let enough = self.milli >= 1_000;
        if enough {
            self.milli -= 1_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use tessera_protocol::unit::LaneIndex;

    use super::*;
    use crate::fleet::Strength;
    use crate::message::Loss;

    fn setback(agent: u8, provider: &str, cause: FailureCause) -> Setback {
        let account = Account { provider: ProviderId::of_name(provider), anchor: provider == "operator" };
        Setback { agent: AgentId([agent; 16]), account, cause, at: Tick(5) }
    }

    fn lost(agent: u8, provider: &str) -> Setback {
        setback(agent, provider, FailureCause::Lost(Loss::Gone))
    }

    fn calm() -> Fleet {
        Fleet::new(1)
    }

    fn errand() -> Errand {
        Errand::new(ShardIndex(7), Vec::new())
    }

    fn again(retries: &mut Retries, setback: Setback) -> Errand {
        assert_eq!(retries.set_back(errand(), setback, Vec::new(), &calm()), Decision::Again);
        retries.next(&mut RetryBudget::default(), Tick(5)).expect("it is tried again")
    }

    /// Of a shard that was lost with three agents of two providers.
    fn suspecting() -> Retries {
        let mut retries = Retries::new(4);
        for (agent, provider) in [(1, "a"), (2, "b"), (3, "a")] {
            again(&mut retries, lost(agent, provider));
        }
        retries
    }

    #[test]
    fn after_one_provider_another_is_asked() {
        let mut retries = Retries::new(4);
        let garbled = |agent, provider| setback(agent, provider, FailureCause::NotAPartial);
        let first = again(&mut retries, garbled(1, "a"));
        assert_eq!(first.who, Who::Others { not_of: alloc::vec![ProviderId::of_name("a")] });
        let same = again(&mut retries, garbled(2, "a"));
        assert_eq!(same.who, first.who, "as long as nobody else has tried");
        assert_eq!(again(&mut retries, garbled(3, "b")).who, Who::Anyone);
        again(&mut retries, garbled(1, "a"));
        let last = retries.set_back(errand(), garbled(4, "b"), Vec::new(), &calm());
        assert_eq!(last, Decision::GivenUp { attempts: 5 });
    }

    #[test]
    fn three_losses_of_two_providers_need_an_anchor_and_the_loss_of_two_is_the_end() {
        let mut retries = Retries::new(4);
        again(&mut retries, lost(1, "a"));
        again(&mut retries, lost(2, "a"));
        assert_eq!(
            again(&mut retries, lost(2, "a")).who,
            Who::Others { not_of: alloc::vec![ProviderId::of_name("a")] }
        );
        assert_eq!(again(&mut retries, lost(3, "b")).who, Who::Anchor);
        assert!(retries.waiting().is_some_and(|text| text.contains("4 agents of 2 providers")));
        let anchors = |agent| (Errand { who: Who::Anchor, ..errand() }, lost(agent, "operator"));
        let (first, loss) = anchors(4);
        assert_eq!(
            retries.set_back(first, loss, Vec::new(), &calm()),
            Decision::Again,
            "it can have been chance"
        );
        let (second, loss) = anchors(5);
        let Decision::Poisoned(losses) = retries.set_back(second, loss, Vec::new(), &calm()) else {
            panic!("two anchors were lost too");
        };
        assert_eq!(losses.len(), 6);
    }

    #[test]
    fn where_agents_are_lost_all_the_time_a_shard_is_not_blamed_for_two_anchors() {
        let mut retries = suspecting();
        let runs_lost = |retries: &mut Retries, lost_elsewhere: u64| {
            let mut fleet = Fleet::new(1);
            for runs in 1.. {
                let lost_so_far = 3 + lost_elsewhere + runs;
                fleet.set(LaneIndex(0), Strength { agents: 10, anchors: 2, lost: lost_so_far });
                let errand = Errand { who: Who::Anchor, ..errand() };
                let decision = retries.set_back(errand, lost(4, "operator"), Vec::new(), &fleet);
                if decision != Decision::Again {
                    return runs;
                }
            }
            0
        };
        assert_eq!(runs_lost(&mut retries, 10), 5, "each of ten agents was lost once meanwhile");
        let mut retries = suspecting();
        assert_eq!(runs_lost(&mut retries, 1_000_000), u64::from(ANCHOR_RUNS_MAX), "but not for ever");
    }

    #[test]
    fn a_suspect_shard_that_no_anchor_runs_is_given_up_after_ten_minutes() {
        let retries = suspecting();
        assert!(retries.overdue(&[errand()], Tick(5 + ANCHOR_WAIT_MS - 1)).is_none());
        assert!(retries.overdue(&[], Tick(5 + ANCHOR_WAIT_MS)).is_none(), "an anchor runs it");
        assert!(retries.overdue(&[errand()], Tick(5 + ANCHOR_WAIT_MS)).is_some());
    }

    #[test]
    fn a_lost_spare_is_not_repeated_and_a_shard_that_passes_names_who_failed() {
        let mut retries = Retries::new(4);
        let spare = Errand { spare: true, ..errand() };
        assert_eq!(retries.set_back(spare, lost(1, "a"), Vec::new(), &calm()), Decision::Again);
        assert!(!retries.is_waiting());
        assert!(retries.passed(ShardIndex(6)).is_empty());
        assert_eq!(retries.passed(ShardIndex(7)).len(), 1);
        assert!(retries.passed(ShardIndex(7)).is_empty(), "once");
    }

    #[test]
    fn retries_are_a_tenth_of_the_attempts_and_twenty_a_second() {
        let mut budget = RetryBudget::default();
        let spent = |budget: &mut RetryBudget, now| (0..1_000).filter(|_| budget.spend(Tick(now))).count();
        assert_eq!(spent(&mut budget, 0), 200);
        assert_eq!(spent(&mut budget, 1_000), 20);
        budget.earn(500);
        assert_eq!(spent(&mut budget, 1_000), 50);
    }
}
