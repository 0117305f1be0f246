//! Answers of one agent to shards of one job that are checked together.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::AgentId;
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::{ShardIndex, Tick};

use super::{Answer, Court, Partial, Party};
use crate::message::Device;
use crate::planted::Planted;
use crate::sampling::{Commitment, EVERY, Rate};
use crate::triage::Oddity;

/// How long an answer waits for more of its agent: what is provisional is lost with the hub. *Units*: milliseconds.
pub(super) const AGE_MS_MAX: u64 = 2_000;

/// Answers of one agent.
#[derive(Debug)]
pub(super) struct Batch {
    party: Party,
    /// How far its agent is trusted, if less than when it answered.
    lowest: Standing,
    device: Option<Device>,
    partials: Vec<Partial>,
    /// What is odd about some of them.
    odd: Vec<(ShardIndex, Box<Oddity>)>,
    bytes: usize,
    /// Checks that have not agreed yet, once it is closed.
    checks: usize,
    since: Tick,
}

impl Batch {
    pub(super) fn new(party: Party, device: Option<Device>, now: Tick) -> Batch {
        let (lowest, partials, odd) = (party.standing, Vec::new(), Vec::new());
        Batch { party, lowest, device, partials, odd, bytes: 0, checks: 0, since: now }
    }

    /// When its first answer came.
    pub(super) fn since(&self) -> Tick {
        self.since
    }

    /// Whether it is of this party as it stands.
    pub(super) fn is_of(&self, party: Party, device: Option<&Device>) -> bool {
        self.party == party && self.device.as_ref() == device
    }

    /// Makes room for more answers, for twice as many each time: with many jobs most batches get few.
    pub(super) fn reserve(&mut self, more: usize, most: usize) {
        let (have, room) = (self.partials.len(), self.partials.capacity());
        if have + more > room {
            self.partials.reserve_exact((have + more).max(2 * room).min(most).saturating_sub(have));
        }
    }

    pub(super) fn push(&mut self, partial: Partial, oddity: Option<Box<Oddity>>) {
        self.odd.extend(oddity.map(|oddity| (partial.index, oddity)));
        self.bytes += partial.bytes;
        self.partials.push(partial);
    }

    /// Its agent is trusted less than when it began: so are its answers.
    pub(super) fn lower(&mut self, standing: Standing) {
        self.lowest = self.lowest.min(standing);
    }

    /// Whose answers they are, as it stood when it gave them.
    pub(super) fn party(&self) -> Party {
        self.party
    }

    /// How much of it is checked.
    pub(super) fn rate(&self, class: VerifyClass) -> Rate {
        Party { standing: self.lowest, ..self.party }.rate(class)
    }

    pub(super) fn agent(&self) -> AgentId {
        self.party.agent
    }

    pub(super) fn len(&self) -> usize {
        self.partials.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.partials.iter().map(|partial| partial.index)
    }

    /// Positions that are checked, descending: chosen by the hub's secret and by what the agent committed to.
    pub(super) fn chosen(&self, at_least_one: bool, court: &Court<'_>) -> Vec<usize> {
        let results = self.partials.iter().map(|partial| (partial.index, partial.digest));
        let commitment = Commitment::to(court.job, self.party.agent, results);
        let rate = self.rate(court.class);
        let mut chosen = court.sampler.choose(&commitment, rate);
        if chosen.is_empty() && at_least_one {
            chosen = court.sampler.choose(&commitment, Rate(EVERY.0.div_ceil(self.len() as u32)));
        }
        if court.planting.is(Planted::NeverSample) {
            chosen.clear();
        }
        chosen.reverse();
        chosen
    }

    /// The first answer that looks odd, unless one that does is chosen already: what speaks against an answer speaks
    /// against its batch, and a lie that is found takes the whole of it.
    pub(super) fn odd(&self, chosen: &[usize], court: &Court<'_>) -> Option<usize> {
        if self.odd.is_empty() {
            return None;
        }
        let is_odd = |position: &usize| {
            let index = self.partials[*position].index;
            self.odd.iter().any(|(odd, _)| *odd == index)
        };
        let first = (0..self.len()).find(is_odd);
        first.filter(|_| !chosen.iter().any(is_odd) && !court.planting.is(Planted::IgnoreOddities))
    }

    /// Adds a position to those that are checked, and says of which shard it is.
    pub(super) fn add(&self, position: usize, chosen: &mut Vec<usize>) -> ShardIndex {
        let at = chosen.partition_point(|other| *other > position);
        chosen.insert(at, position);
        self.partials[position].index
    }

    /// Takes the answers that are checked. *Order*: positions descend.
    pub(super) fn split_off(&mut self, chosen: &[usize]) -> Vec<Answer> {
        self.checks = chosen.len();
        chosen.iter().map(|position| self.take_at(*position)).collect()
    }

    /// Takes the answer to one shard, unless it is this agent's own.
    pub(super) fn take(&mut self, index: ShardIndex, not: AgentId) -> Option<Answer> {
        let position = self.partials.iter().position(|partial| partial.index == index)?;
        (self.party.agent != not).then(|| self.take_at(position))
    }

    fn take_at(&mut self, position: usize) -> Answer {
        let partial = self.partials.swap_remove(position);
        self.bytes -= partial.bytes;
        let odd = self.odd.iter().position(|(index, _)| *index == partial.index);
        let oddity = odd.map(|position| self.odd.swap_remove(position).1);
        Answer { party: self.party, device: self.device.clone(), partial, oddity, at: self.since }
    }

    pub(super) fn checked(&mut self) {
        self.checks = self.checks.saturating_sub(1);
    }

    /// Whether nothing speaks against its answers any more.
    pub(super) fn is_final(&self) -> bool {
        self.checks == 0
    }

    pub(super) fn into_partials(self) -> Vec<Partial> {
        self.partials
    }
}
