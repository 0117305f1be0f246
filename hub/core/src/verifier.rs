//! The verifier: claims in, rulings out. Holds what is provisional, asks for second answers, settles
//! disputes; never schedules, never reduces.
//!
//! 1. Answers of one agent wait in a batch, provisional.
//! 2. The batch closes: its digests are committed to by one hash over all, and only then the hub's secret and
//!    that root choose which of them are checked. No agent can know before it has answered.
//! 3. A checked answer is in [`Doubt`] until another agent has answered. What they agree on is believed, and
//!    releases the batch. When they differ, one of the operator's own agents decides, where there is one.
//! 4. Whoever is proven wrong loses all its answers that are not released.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU64;

use tessera_planners::Part;
use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{LaneIndex, ShardIndex, Tick};

use crate::Account;
use crate::message::{Claim, Device, Errand};
use crate::planted::{Planted, Planting};
use crate::sampling::{self, EVERY, Rate, Sampler};
use crate::shard_map::ShardMap;
use crate::triage::Oddity;

mod batch;
mod doubt;
mod known;

use batch::Batch;
pub use doubt::Doubt;
use doubt::is_anchors;
use known::Known;

/// A value that the verifier has accepted. Nothing else makes one, and the reducer takes nothing else.
#[derive(Debug)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// What was accepted.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Verified<Vec<Partial>> {
    /// What was accepted.
    pub fn partials(&self) -> &[Partial] {
        &self.0
    }
}

/// The partial of one shard, decoded.
#[derive(Debug)]
pub struct Partial {
    /// The shard.
    pub index: ShardIndex,
    /// Of its bytes.
    pub digest: Digest,
    /// What it takes of memory, and at least how long it was encoded. *Units*: bytes.
    pub bytes: usize,
    /// What it holds.
    pub content: Content,
}

/// What a partial holds, in little room.
#[derive(Debug)]
pub enum Content {
    /// A tally of one count and nothing else.
    Count {
        /// How many samples were taken.
        samples: u64,
        /// The count.
        count: u64,
    },
    /// Anything.
    Part(Box<Part>),
}

impl Content {
    /// The tally, if it is one.
    pub fn into_tally(self) -> Option<Tally> {
        match self {
            Content::Count { samples, count } => {
                Some(Tally { samples, counts: vec![count], ..Tally::default() })
            }
            Content::Part(part) => match *part {
                Part::Tally(tally) => Some(tally.into()),
                Part::Block(_) | Part::Product(..) => None,
            },
        }
    }
}

impl From<Part> for Content {
    fn from(part: Part) -> Content {
        match part {
            Part::Tally(Tally { samples, sums, counts, bins }) if sums.is_empty() && bins.is_empty() => {
                match counts[..] {
                    [count] => Content::Count { samples, count },
                    _ => Content::Part(Box::new(Part::Tally(Tally { samples, sums, counts, bins }))),
                }
            }
            part => Content::Part(Box::new(part)),
        }
    }
}

impl Partial {
    /// What a claim says of its shard, of which this was read.
    pub fn new(claim: &Claim, part: Part) -> Partial {
        let Claim { index, digest, .. } = *claim;
        let held = if let Part::Tally(tally) = &part { tally.memory_bytes() } else { 0 };
        Partial { index, digest, bytes: held.max(claim.partial.len()), content: part.into() }
    }
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party {
    /// The agent.
    pub agent: AgentId,
    /// Whom it belongs to.
    pub account: Account,
    /// How far it was trusted when it answered.
    pub standing: Standing,
    /// The lane that holds its session.
    pub lane: LaneIndex,
}

impl Party {
    /// How much of its answers is checked: a machine of the operator's that was proven wrong is a stranger's.
    fn rate(self, class: VerifyClass) -> Rate {
        let anchor = self.account.anchor && self.standing > Standing::Sandboxed;
        sampling::rate(self.standing, anchor, class)
    }
}

/// What an agent says about a shard.
#[derive(Debug)]
pub struct Answer {
    party: Party,
    device: Option<Device>,
    partial: Partial,
    oddity: Option<Box<Oddity>>,
    /// When it came.
    at: Tick,
}

impl Answer {
    /// An agent's, with what is odd about it, as a look says.
    pub fn new(
        (party, device): (Party, &Device),
        partial: Partial,
        oddity: Option<Box<Oddity>>,
        at: Tick,
    ) -> Answer {
        Answer { party, device: Some(device.clone()), partial, oddity, at }
    }
}

/// What the verifier decides about a job's answers.
#[derive(Debug)]
pub enum Ruling {
    /// Final: reduce and pay for them.
    Release {
        /// What they are: one where others gave it too.
        partials: Verified<Vec<Partial>>,
        /// Whose answers they are.
        by: Party,
        /// Who else gave it, and is paid for a check.
        checkers: Vec<Party>,
        /// When the first of them was answered.
        since: Tick,
    },
    /// Ask for another answer.
    Check(Errand),
    /// Give this agent a shard again that is final, without its knowing.
    Probe(Party, ShardIndex),
    /// Its answer to such a shard was right, and is paid for as a check.
    Probed {
        /// Who gave it.
        party: Party,
        /// The shard.
        index: ShardIndex,
        /// What it said.
        digest: Digest,
    },
    /// Answers differ.
    Mismatch(ShardIndex),
    /// This agent was right in a check.
    Upheld(Party),
    /// This agent was wrong, and another one proved it.
    Refuted {
        /// Which.
        party: Party,
        /// All who answered, and what.
        evidence: Evidence,
    },
    /// These answers of an agent do not count any more: the shards are to be computed again.
    Recall(AgentId, Vec<ShardIndex>),
    /// Agents that have no reason to be wrong differ: the kernel does not give the same bytes everywhere.
    KernelFault(Evidence),
}

/// What agents said about a shard in dispute.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The shard.
    pub index: ShardIndex,
    /// Who said what, first to last.
    pub answers: Vec<(AgentId, Account, Digest)>,
    /// What was believed; nothing where nothing was.
    pub believed: Option<Digest>,
    /// Whose answers looked odd, and why. It settled nothing.
    pub oddities: Vec<(AgentId, Oddity)>,
}

/// Of a hundred shards of a job, so many are checked because they look odd and turn out to be right: work of which
/// looks know too little may look odd all the time.
const ODD_PERCENT: u64 = 2;
/// The same of a job however short.
const ODD_CHECKS_MIN: u64 = 4;

/// Chooses what is checked with a key that agents cannot know.
#[derive(Debug)]
pub struct Verifier {
    sampler: Sampler,
    pub(crate) planting: Planting,
}

impl Verifier {
    /// A verifier with the hub's secret sampling key.
    pub fn new(key: [u8; 32]) -> Verifier {
        Verifier { sampler: Sampler::new(key), planting: Planting::default() }
    }

    /// What decisions about a job depend on now.
    pub fn court(&self, job: JobId, class: VerifyClass, anchors: u32, now: Tick) -> Court<'_> {
        let (sampler, planting) = (&self.sampler, self.planting);
        Court { sampler, job, class, anchors, now, shards: 0, probes: true, planting }
    }
}

/// What a decision depends on besides the answers.
#[derive(Clone, Copy, Debug)]
pub struct Court<'a> {
    /// Chooses what is checked.
    pub sampler: &'a Sampler,
    /// The job.
    pub job: JobId,
    /// Its class.
    pub class: VerifyClass,
    /// How many of the operator's agents are connected.
    pub anchors: u32,
    /// Now.
    pub now: Tick,
    /// How many shards the job has so far.
    pub shards: u64,
    /// Whether final shards may be given again.
    pub probes: bool,
    pub(crate) planting: Planting,
}

impl Court<'_> {
    /// Checks that looks may cost the job, beside those that proved an agent wrong.
    fn odd_checks_max(&self) -> u64 {
        (self.shards * ODD_PERCENT / 100).max(ODD_CHECKS_MIN)
    }
}

/// Where the answers to a shard wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a batch of its agent. Of no number zero: a place takes a word.
    Batch(BatchNumber),
    /// Among those to a shard in doubt.
    Doubt,
}
const _: () = assert!(size_of::<Place>() == 8, "a page of places is eight lines of a cache");

/// How many batches of the job were opened before a batch, and one.
type BatchNumber = NonZeroU64;

/// The answers of one job that are not final.
#[derive(Debug, Default)]
pub struct Docket {
    /// By number, in the order in which they were opened.
    batches: BTreeMap<BatchNumber, Batch>,
    /// Those that are not closed, by their agent.
    open: BTreeMap<AgentId, BatchNumber>,
    /// When batches were opened, the oldest first; some of them are closed by now.
    opened: VecDeque<(Tick, BatchNumber)>,
    doubts: BTreeMap<ShardIndex, Doubt>,
    known: Known,
    places: ShardMap<Place>,
    batches_ever: u64,
    /// Of all partials held.
    bytes: usize,
    /// Checks of answers that looked odd, but for those that proved their agent wrong.
    odd_checks: u64,
}

impl Docket {
    /// Shards whose answers are not final.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a batch waits to be closed.
    pub fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Of all partials held. *Units*: bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shards that wait for another answer.
    pub fn doubts(&self) -> usize {
        self.doubts.len()
    }

    /// The answers to a shard in doubt.
    pub fn doubt(&self, index: ShardIndex) -> Option<&Doubt> {
        self.doubts.get(&index)
    }

    /// Whether an answer to the shard is held.
    pub fn holds(&self, index: ShardIndex) -> bool {
        self.places.contains(index)
    }

    /// Every shard whose answer is held.
    pub fn indices(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.places.iter().map(|(index, _)| index)
    }

    /// Takes an answer in.
    pub fn answer(&mut self, answer: Answer, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let (index, party) = (answer.partial.index, answer.party);
        match self.places.get(index) {
            None => {
                let Answer { party, device, partial, oddity, .. } = answer;
                self.hold((party, device.as_ref()), &mut vec![(partial, oddity)], court, rulings);
            }
            Some(Place::Doubt) => {
                if let Some(doubt) = self.doubts.get_mut(&index)
                    && !doubt.has_answered(party.agent)
                {
                    self.bytes += answer.partial.bytes;
                    doubt.push(answer);
                    self.rule(index, court, rulings);
                }
            }
            Some(Place::Batch(id)) => {
                let batch = self.batches.get_mut(&id);
                let Some(first) = batch.and_then(|batch| batch.take(index, party.agent)) else {
                    return;
                };
                self.drop_if_empty(id);
                self.bytes += answer.partial.bytes;
                let mut doubt = Doubt::new(first, None);
                doubt.push(answer);
                self.places.insert(index, Place::Doubt);
                self.doubts.insert(index, doubt);
                self.rule(index, court, rulings);
            }
        }
    }

    /// Takes first answers of one agent in, with what is odd about them. What it holds an answer to already is
    /// passed over.
    pub fn hold(
        &mut self,
        by: (Party, Option<&Device>),
        answers: &mut Vec<(Partial, Option<Box<Oddity>>)>,
        court: &Court<'_>,
        rulings: &mut Vec<Ruling>,
    ) {
        let most = if by.0.rate(court.class) >= EVERY { 1 } else { sampling::BATCH_SHARDS };
        let mut answers = answers.drain(..);
        while answers.len() > 0 {
            let id = self.open_batch(by, court, rulings);
            let Some(batch) = self.batches.get_mut(&id) else { return };
            batch.reserve(answers.len(), most);
            while batch.len() < most
                && let Some((partial, oddity)) = answers.next()
            {
                match self.places.insert(partial.index, Place::Batch(id)) {
                    None => {
                        self.bytes += partial.bytes;
                        batch.push(partial, oddity);
                    }
                    Some(before) => _ = self.places.insert(partial.index, before),
                }
            }
            if batch.len() >= most {
                self.close(id, false, court, rulings);
            } else {
                self.drop_if_empty(id);
            }
        }
    }

    /// The open batch of an agent. One that began when it was another party is closed first.
    fn open_batch(
        &mut self,
        (party, device): (Party, Option<&Device>),
        court: &Court<'_>,
        rulings: &mut Vec<Ruling>,
    ) -> BatchNumber {
        if let Some(id) = self.open.get(&party.agent).copied()
            && let Some(batch) = self.batches.get_mut(&id)
        {
            if batch.is_of(party, device) {
                return id;
            }
            // Answers are checked as their agent stood when it stood lowest.
            batch.lower(party.standing);
            self.close(id, false, court, rulings);
        }
        let id = NonZeroU64::MIN.saturating_add(self.batches_ever);
        self.batches_ever += 1;
        self.opened.push_back((court.now, id));
        self.open.insert(party.agent, id);
        self.batches.insert(id, Batch::new(party, device.cloned(), court.now));
        id
    }

    /// Closes batches that are old, or all. `at_least_one`: something of these must be checked.
    pub fn close_due(
        &mut self,
        all: bool,
        mut at_least_one: bool,
        court: &Court<'_>,
        rulings: &mut Vec<Ruling>,
    ) {
        let is_old = |opened: &Tick| court.now >= opened.after_ms(batch::AGE_MS_MAX);
        while let Some((_, id)) = self.opened.front().copied().filter(|(at, _)| all || is_old(at)) {
            self.opened.pop_front();
            if self.batches.get(&id).is_some_and(|batch| self.open.get(&batch.agent()) == Some(&id)) {
                self.close(id, at_least_one, court, rulings);
                at_least_one = false;
            }
        }
    }

    fn close(&mut self, id: BatchNumber, at_least_one: bool, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let Some(mut batch) = self.batches.remove(&id) else { return };
        self.open.remove(&batch.agent());
        let mut chosen = batch.chosen(at_least_one, court);
        let odd = batch.odd(&chosen, court).filter(|_| self.odd_checks < court.odd_checks_max());
        let odd_index = odd.map(|position| batch.add(position, &mut chosen));
        self.odd_checks += u64::from(odd.is_some());
        self.probe(&batch, id, court, rulings);
        let link = (batch.len() > chosen.len()).then_some(id);
        for answer in batch.split_off(&chosen) {
            let index = answer.partial.index;
            let doubt = Doubt::new(answer, link).triaged(odd_index == Some(index));
            rulings.push(Ruling::Check(doubt.errand(court)));
            self.places.insert(index, Place::Doubt);
            self.doubts.insert(index, doubt);
        }
        if chosen.is_empty() || court.planting.is(Planted::ReleaseBeforeCheck) {
            self.release(batch, rulings);
        } else if link.is_some() {
            self.batches.insert(id, batch);
        }
    }

    /// Now and then an agent of whose work only samples are checked is given a shard whose answer is known.
    fn probe(&mut self, batch: &Batch, id: BatchNumber, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let party = batch.party();
        if !court.probes || self.known.is_empty() || batch.rate(court.class) >= EVERY {
            return;
        }
        let (chance, lot) = court.sampler.lot(court.job, id.get());
        if sampling::is_probed(batch.len(), chance)
            && let Some(index) = self.known.draw(party.agent, lot)
        {
            rulings.push(Ruling::Probe(party, index));
        }
    }

    /// Whether a final shard was given to an agent again, so that its answer counts for something.
    pub fn is_probed(&self, index: ShardIndex, agent: AgentId) -> bool {
        self.known.is_asked(index, agent)
    }

    /// Takes in an answer to a shard that is final.
    pub fn probed(&mut self, answer: &Answer, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let (index, digest) = (answer.partial.index, answer.partial.digest);
        match self.known.judge(answer) {
            None => {}
            Some(Ok(party)) => {
                rulings.extend([Ruling::Upheld(party), Ruling::Probed { party, index, digest }]);
            }
            Some(Err(evidence)) => {
                rulings.push(Ruling::Mismatch(index));
                rulings.push(Ruling::Refuted { party: answer.party, evidence });
                self.recall(answer.party.agent, court, rulings);
            }
        }
    }

    /// The job goes on to another round: what was known is of the last one.
    pub fn forget_known(&mut self) {
        self.known.forget();
    }

    /// Looks whether the answers to a shard in doubt settle it.
    fn rule(&mut self, index: ShardIndex, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let Some(doubt) = self.doubts.get(&index) else { return };
        match doubt.verdict(court) {
            doubt::Verdict::Settled(believed) => self.settle(index, believed, court, rulings),
            doubt::Verdict::Fault => rulings.push(Ruling::KernelFault(doubt.evidence(None))),
            doubt::Verdict::Open { differs } => {
                let errand = doubt.errand(court);
                if differs {
                    rulings.push(Ruling::Mismatch(index));
                }
                rulings.push(Ruling::Check(errand));
            }
        }
    }

    fn settle(&mut self, index: ShardIndex, believed: Digest, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        let Some(doubt) = self.doubts.remove(&index) else { return };
        self.places.remove(index);
        self.bytes -= doubt.bytes();
        let (evidence, batch) = (doubt.evidence(Some(believed)), doubt.batch());
        let triaged = doubt.is_triaged();
        let (right, wrong): (Vec<Answer>, Vec<Answer>) = doubt.into_parts(believed);
        self.known.learn(&right);
        let first_is_right = evidence.answers.first().is_some_and(|(.., digest)| *digest == believed);
        let mut right = right.into_iter();
        let Some(first) = right.next() else { return };
        self.odd_checks -= u64::from(triaged && !first_is_right);
        let checkers: Vec<Party> = right.map(|answer| answer.party).collect();
        rulings.extend(core::iter::once(&first.party).chain(&checkers).copied().map(Ruling::Upheld));
        // Before the release, which may be the job's last: its end must say what it rests on.
        for answer in wrong {
            let party = answer.party;
            rulings.push(Ruling::Refuted { party, evidence: evidence.clone() });
            self.recall(party.agent, court, rulings);
        }
        rulings.push(release(first, checkers));
        if first_is_right && let Some(id) = batch {
            self.checked(id, rulings);
        }
    }

    /// One of a batch's checks agreed.
    fn checked(&mut self, id: BatchNumber, rulings: &mut Vec<Ruling>) {
        let is_final = |batch: &mut Batch| {
            batch.checked();
            batch.is_final()
        };
        if self.batches.get_mut(&id).is_some_and(is_final)
            && let Some(batch) = self.batches.remove(&id)
        {
            self.release(batch, rulings);
        }
    }

    fn release(&mut self, batch: Batch, rulings: &mut Vec<Ruling>) {
        let (by, since) = (batch.party(), batch.since());
        let partials = self.forget(batch);
        rulings.push(Ruling::Release { partials: Verified(partials), by, checkers: Vec::new(), since });
    }

    /// Holds the answers of a batch no more.
    fn forget(&mut self, batch: Batch) -> Vec<Partial> {
        self.bytes -= batch.bytes();
        let partials = batch.into_partials();
        for partial in &partials {
            self.places.remove(partial.index);
        }
        partials
    }

    /// Forgets all that an agent answered and that is not final; what is in doubt gets its other answer anyway.
    pub fn recall(&mut self, agent: AgentId, court: &Court<'_>, rulings: &mut Vec<Ruling>) {
        if court.planting.is(Planted::KeepARefutedBatch) {
            return;
        }
        let theirs = self.batches.iter().filter(|(_, batch)| batch.agent() == agent);
        let theirs: Vec<BatchNumber> = theirs.map(|(id, _)| *id).collect();
        for doubt in self.doubts.values_mut() {
            doubt.unlink(&theirs);
            doubt.distrust(agent);
        }
        self.open.remove(&agent);
        let mut recalled = Vec::new();
        for id in theirs {
            if let Some(batch) = self.batches.remove(&id) {
                recalled.extend(self.forget(batch).iter().map(|partial| partial.index));
            }
        }
        if !recalled.is_empty() {
            rulings.push(Ruling::Recall(agent, recalled));
        }
    }

    /// Nobody can give a second answer: accepts the first where the class and its agent's standing allow that.
    pub fn waive(&mut self, index: ShardIndex, court: &Court<'_>, rulings: &mut Vec<Ruling>) -> bool {
        let waivable = |doubt: &Doubt| court.class != VerifyClass::Exact && doubt.is_waivable();
        if !self.doubts.get(&index).is_some_and(waivable) {
            return false;
        }
        let Some(doubt) = self.doubts.remove(&index) else { return false };
        self.places.remove(index);
        self.bytes -= doubt.bytes();
        let batch = doubt.batch();
        self.odd_checks -= u64::from(doubt.is_triaged());
        rulings.extend(doubt.into_first().map(|answer| release(answer, Vec::new())));
        if let Some(id) = batch {
            self.checked(id, rulings);
        }
        true
    }

    /// None of the operator's agents can settle a dispute: others must.
    pub fn without_anchor(&mut self, index: ShardIndex, court: &Court<'_>) -> Option<Errand> {
        let doubt = self.doubts.get_mut(&index)?;
        doubt.give_up_on_anchors();
        Some(doubt.errand(court))
    }

    fn drop_if_empty(&mut self, id: BatchNumber) {
        if let Some(batch) = self.batches.get(&id).filter(|batch| batch.len() == 0) {
            let agent = batch.agent();
            self.batches.remove(&id);
            if self.open.get(&agent) == Some(&id) {
                self.open.remove(&agent);
            }
            self.doubts.values_mut().for_each(|doubt| doubt.unlink(&[id]));
        }
    }

    /// Every answer is in one place, and the bytes are those of the answers.
    ///
    /// *Panics*: when not.
    pub fn check_invariants(&self) {
        let in_batches: usize = self.batches.values().map(Batch::bytes).sum();
        assert_eq!(self.bytes, in_batches + self.doubts.values().map(Doubt::bytes).sum::<usize>());
        let mut placed = 0;
        for (id, batch) in &self.batches {
            assert!(batch.len() > 0, "a batch of nothing");
            let is_open = self.open.get(&batch.agent()) == Some(id);
            assert!(is_open || !batch.is_final(), "a batch waits for nothing");
            for index in batch.indices() {
                assert_eq!(self.places.get(index), Some(Place::Batch(*id)), "{index:?} is elsewhere");
                placed += 1;
            }
        }
        assert!(self.open.values().all(|id| self.batches.contains_key(id)), "what is gone is open");
        assert_eq!(self.places.len(), placed + self.doubts.len());
        let triaged = self.doubts.values().filter(|doubt| doubt.is_triaged()).count();
        assert!(self.odd_checks >= triaged as u64, "checks of odd answers are not counted");
        for (index, doubt) in &self.doubts {
            assert_eq!(self.places.get(*index), Some(Place::Doubt), "{index:?} is in doubt and elsewhere");
            let waits = doubt.batch().is_none_or(|batch| self.batches.contains_key(&batch));
            assert!(waits, "what {index:?} speaks for is final before it is settled");
        }
    }
}

fn release(answer: Answer, checkers: Vec<Party>) -> Ruling {
    let Answer { partial, party: by, at: since, .. } = answer;
    Ruling::Release { partials: Verified(vec![partial]), by, checkers, since }
}

#[cfg(test)]
mod tests;
