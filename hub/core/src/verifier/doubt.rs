//! A shard that more than one agent answers, until it is clear what is true.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, Digest, ProviderId};

use super::{Answer, BatchNumber, Court, Evidence, Party};
use crate::message::{Errand, Who};
use crate::planted::Planted;

/// Answers after which nothing is guessed any more.
const ANSWERS_MAX: usize = 5;

/// Answers to one shard, first to last; no two by one agent.
#[derive(Debug)]
pub struct Doubt {
    answers: Vec<Answer>,
    /// The batch that waits for it.
    batch: Option<BatchNumber>,
    /// None of the operator's agents can answer.
    anchorless: bool,
    /// Whether it is checked only because the first answer looked odd.
    triaged: bool,
}

/// What the answers so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Settled(Digest),
    Open { differs: bool },
    Fault,
}

impl Doubt {
    pub(super) fn new(first: Answer, batch: Option<BatchNumber>) -> Doubt {
        Doubt { answers: alloc::vec![first], batch, anchorless: false, triaged: false }
    }

    pub(super) fn triaged(self, triaged: bool) -> Doubt {
        Doubt { triaged, ..self }
    }

    pub(super) fn is_triaged(&self) -> bool {
        self.triaged
    }

    pub(super) fn push(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    /// Whether an agent is among those who answered.
    pub fn has_answered(&self, agent: AgentId) -> bool {
        self.answers.iter().any(|answer| answer.party.agent == agent)
    }

    /// An agent was proven wrong elsewhere: its answer cannot stand alone any more.
    pub(super) fn distrust(&mut self, agent: AgentId) {
        for answer in self.answers.iter_mut().filter(|answer| answer.party.agent == agent) {
            answer.party.standing = answer.party.standing.min(Standing::Sandboxed);
        }
    }

    /// These batches are no more.
    pub(super) fn unlink(&mut self, batches: &[BatchNumber]) {
        self.batch = self.batch.filter(|batch| !batches.contains(batch));
    }

    pub(super) fn batch(&self) -> Option<BatchNumber> {
        self.batch
    }

    pub(super) fn bytes(&self) -> usize {
        self.answers.iter().map(|answer| answer.partial.bytes).sum()
    }

    /// Who answered.
    pub fn agents(&self) -> Vec<AgentId> {
        self.answers.iter().map(|answer| answer.party.agent).collect()
    }

    fn parties(&self) -> impl Iterator<Item = Party> + '_ {
        self.answers.iter().map(|answer| answer.party)
    }

    fn is_disputed(&self) -> bool {
        self.answers.iter().any(|answer| answer.partial.digest != self.answers[0].partial.digest)
    }

    /// Whether its only answer may stand without another.
    pub(super) fn is_waivable(&self) -> bool {
        matches!(self.answers.as_slice(), [only] if !is_newcomer(only.party))
    }

    pub(super) fn give_up_on_anchors(&mut self) {
        self.anchorless = true;
    }

    pub(super) fn verdict(&self, court: &Court<'_>) -> Verdict {
        let disputed = self.is_disputed();
        if disputed && court.planting.is(Planted::BelieveTheSecond) {
            return Verdict::Settled(self.answers[1].partial.digest);
        }
        let decides = |answer: &Answer| {
            let same = || self.answers.iter().filter(|other| other.partial.digest == answer.partial.digest);
            let vouched = same().any(|other| vouch(answer.party, other.party));
            let anchored = !disputed || !self.wants_anchor(court) || same().any(is_anchors);
            vouched && anchored
        };
        if let Some(answer) = self.answers.iter().find(|answer| decides(answer)) {
            return Verdict::Settled(answer.partial.digest);
        }
        let different: BTreeSet<Digest> = self.answers.iter().map(|answer| answer.partial.digest).collect();
        let anchors: BTreeSet<Digest> = self
            .answers
            .iter()
            .filter(|answer| is_anchors(answer))
            .map(|answer| answer.partial.digest)
            .collect();
        match anchors.len() >= 2 && different.len() >= 3 || self.answers.len() >= ANSWERS_MAX {
            true => Verdict::Fault,
            false => Verdict::Open { differs: disputed },
        }
    }

    /// Whether a dispute waits for the word of one of the operator's agents.
    fn wants_anchor(&self, court: &Court<'_>) -> bool {
        !self.anchorless && court.anchors > 0
    }

    /// Who is to answer next.
    pub fn errand(&self, court: &Court<'_>) -> Errand {
        let disputed = self.is_disputed();
        let answered = self.answers.iter().filter(|answer| is_anchors(answer)).count();
        let strangers = self.parties().filter(|party| !party.account.anchor);
        let providers: BTreeSet<ProviderId> = strangers.map(|party| party.account.provider).collect();
        let independent_of: Vec<ProviderId> = providers.into_iter().collect();
        let who = match disputed && self.wants_anchor(court) {
            true if answered == 0 => Who::Anchor,
            // Whoever agrees with the operator's own settles it, were it a newcomer.
            true => Who::Others { not_of: independent_of },
            false => {
                let trusted = disputed || self.parties().any(is_newcomer);
                Who::Checker { independent_of, trusted }
            }
        };
        // A machine that is wrong is most likely wrong in the same way as one of its kind.
        let unlike = self.answers[0].device.clone();
        Errand { who, unlike, ..Errand::new(self.answers[0].partial.index, self.agents()) }
    }

    pub(super) fn evidence(&self, believed: Option<Digest>) -> Evidence {
        let said = |answer: &Answer| (answer.party.agent, answer.party.account, answer.partial.digest);
        let answers = self.answers.iter().map(said).collect();
        let looked = |answer: &Answer| Some((answer.party.agent, answer.oddity.as_deref()?.clone()));
        let oddities = self.answers.iter().filter_map(looked).collect();
        Evidence { index: self.answers[0].partial.index, answers, believed, oddities }
    }

    /// Those who said what is believed, and those who did not.
    pub(super) fn into_parts(self, believed: Digest) -> (Vec<Answer>, Vec<Answer>) {
        self.answers.into_iter().partition(|answer| answer.partial.digest == believed)
    }

    pub(super) fn into_first(self) -> Option<Answer> {
        self.answers.into_iter().next()
    }
}

/// Whether two agents that say the same make it true: of different owners unless the operator owns both, and
/// not both new.
fn vouch(one: Party, other: Party) -> bool {
    let strangers = one.account.provider != other.account.provider || one.account.anchor;
    let trusted = |party: Party| party.standing == Standing::Trusted;
    let old = |party: Party| !is_newcomer(party);
    one.agent != other.agent && strangers && (old(one) && old(other) || trusted(one) || trusted(other))
}

fn is_newcomer(party: Party) -> bool {
    party.standing <= Standing::Quarantine
}

pub(super) fn is_anchors(answer: &Answer) -> bool {
    answer.party.account.anchor && !is_newcomer(answer.party)
}
