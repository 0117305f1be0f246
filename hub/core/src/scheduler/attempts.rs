//! What an agent holds: attempts at shards, as runs of those that it was given together.
//!
//! An agent is given shards of a job in a row. What is true of one is true of the others until something befalls it
//! alone; then it becomes a run of its own. So sixteen attempts take the memory of two.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::unit::{ComputeUnits, Epoch, ShardIndex, Tick};

use crate::message::Errand;
use crate::page::bits;
use crate::planted::{Planted, Planting};

/// How a peer names an attempt.
pub(super) type AttemptName = (JobId, ShardIndex, Epoch);

/// One try at one shard by one agent.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) epoch: Epoch,
    pub(super) index: ShardIndex,
    pub(super) terms: Terms,
}

/// What is true of an attempt besides its name.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) job: JobId,
    pub(super) lease_until: Tick,
    /// However often it is renewed.
    pub(super) lease_max: Tick,
    pub(super) assigned: Tick,
    pub(super) cost: ComputeUnits,
    /// What befell it and not those that it was given with.
    pub(super) own: Option<Box<Own>>,
}

/// What is true of one attempt alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    pub(super) spared: Spared,
    pub(super) errand: Option<Errand>,
    pub(super) answer: Answered,
}

impl Terms {
    /// Whether its lease has run out.
    pub(super) fn is_over(&self, now: Tick, planting: Planting) -> bool {
        self.lease_until < now && !planting.is(Planted::KeepLapsedLeases)
    }

    pub(super) fn spared(&self) -> Spared {
        self.own.as_ref().map_or(Spared::No, |own| own.spared)
    }

    /// Why it was made; nothing where it is the shard's first.
    pub(super) fn errand(&self) -> Option<&Errand> {
        self.own.as_ref()?.errand.as_ref()
    }

    /// The same, of one that is over.
    pub(super) fn into_errand(self) -> Option<Errand> {
        self.own?.errand
    }

    /// To change what is true of it alone.
    pub(super) fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    /// Whether it was made beside a slow one.
    pub(super) fn is_spare(&self) -> bool {
        self.errand().is_some_and(|errand| errand.spare)
    }

    fn is_as(&self, other: &Terms) -> bool {
        let of = |terms: &Terms| (terms.job, terms.lease_until, terms.lease_max, terms.assigned, terms.cost);
        self.own.is_none() && other.own.is_none() && of(self) == of(other)
    }
}

/// Whether a second attempt was asked for beside this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spared {
    #[default]
    No,
    /// At that moment, the last time.
    Asked(Tick),
    /// The shard is done: none is needed any more.
    Settled,
}

/// The two halves of a large answer, in whichever order they come.
#[derive(Clone, Debug, Default)]
pub(super) enum Answered {
    #[default]
    Nothing,
    Announced(Digest),
    Delivered(Bytes),
}

/// The attempts of one agent, no two at one shard. *Order*: by epoch, which is as they were made.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    runs: VecDeque<Run>,
    count: usize,
}

/// Where an attempt is: of which run, and which of it.
type Place = (usize, u64);

/// Attempts whose epochs and shards follow each other, on the same terms.
#[derive(Debug)]
struct Run {
    /// Of the first that there ever was.
    epoch: Epoch,
    index: ShardIndex,
    /// Which of the 64 from there on are held.
    held: u64,
    terms: Terms,
}

impl Run {
    /// The epoch of the first that is held.
    fn front(&self) -> Epoch {
        Epoch(self.epoch.0 + u64::from(self.held.trailing_zeros()))
    }

    fn bit_of(&self, epoch: Epoch) -> Option<u64> {
        epoch.0.checked_sub(self.epoch.0).filter(|bit| *bit < 64 && self.held >> bit & 1 == 1)
    }

    /// Which attempt of the run is at a shard.
    fn bit_at(&self, job: JobId, index: ShardIndex) -> Option<u64> {
        let bit = index.0.checked_sub(self.index.0).filter(|_| self.terms.job == job);
        bit.filter(|bit| *bit < 64 && self.held >> bit & 1 == 1)
    }

    fn nth(&self, bit: u64) -> (Epoch, ShardIndex) {
        (Epoch(self.epoch.0 + bit), ShardIndex(self.index.0 + bit))
    }

    fn names(&self) -> impl Iterator<Item = (Epoch, ShardIndex)> + '_ {
        bits(self.held).map(|bit| self.nth(bit))
    }

    /// Some of it.
    fn part(&self, held: u64) -> Run {
        Run { epoch: self.epoch, index: self.index, held, terms: self.terms.clone() }
    }
}

/// The bits that are set, in stretches of those that are among `some` and those that are not. *Order*: ascending.
fn stretches(held: u64, some: u64) -> Vec<(u64, bool)> {
    let mut stretches: Vec<(u64, bool)> = Vec::new();
    for bit in bits(held) {
        let is_some = some >> bit & 1 == 1;
        match stretches.last_mut() {
            Some((stretch, is)) if *is == is_some => *stretch |= 1 << bit,
            _ => stretches.push((1 << bit, is_some)),
        }
    }
    stretches
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Epoch, ShardIndex, &Terms)> {
        self.runs.iter().flat_map(|run| run.names().map(|(epoch, index)| (epoch, index, &run.terms)))
    }

    /// What was given together and is not over, and at which shards that is.
    pub(super) fn by_terms(&self) -> impl Iterator<Item = (&Terms, impl Iterator<Item = ShardIndex> + '_)> {
        self.runs.iter().map(|run| (&run.terms, run.names().map(|(_, index)| index)))
    }

    /// Adds the latest.
    pub(super) fn push(&mut self, Attempt { epoch, index, terms }: Attempt) {
        self.count += 1;
        if let Some(last) = self.runs.back_mut() {
            let after = epoch.0.saturating_sub(last.epoch.0);
            assert!(after >= 64 || last.held >> after == 0, "an older attempt than the last");
            if after < 64 && last.index.0.checked_add(after) == Some(index.0) && last.terms.is_as(&terms) {
                last.held |= 1 << after;
                return;
            }
        }
        self.runs.push_back(Run { epoch, index, held: 1, terms });
    }

    /// Which run an attempt is of, and which of it.
    fn place(&self, epoch: Epoch) -> Option<Place> {
        // Most come back in the order in which they went out.
        if let Some(bit) = self.runs.front()?.bit_of(epoch) {
            return Some((0, bit));
        }
        let run = self.runs.partition_point(|run| run.front() <= epoch).checked_sub(1)?;
        self.runs[run].bit_of(epoch).map(|bit| (run, bit))
    }

    fn place_named(&self, (job, index, epoch): AttemptName) -> Option<Place> {
        self.place(epoch).filter(|(run, bit)| self.runs[*run].bit_at(job, index) == Some(*bit))
    }

    /// The terms of the one that a peer names, if there is such a one.
    pub(super) fn get(&self, name: AttemptName) -> Option<&Terms> {
        self.place_named(name).map(|(run, _)| &self.runs[run].terms)
    }

    /// The same, to change them for it alone.
    pub(super) fn get_mut(&mut self, name: AttemptName) -> Option<&mut Terms> {
        let place = self.place_named(name)?;
        Some(self.apart(place))
    }

    /// Whether one is at a shard. Looks at all runs.
    pub(super) fn is_at(&self, job: JobId, index: ShardIndex) -> bool {
        self.runs.iter().any(|run| run.bit_at(job, index).is_some())
    }

    /// The terms of the one at a shard, to change them for it alone. Looks at all runs.
    pub(super) fn at(&mut self, job: JobId, index: ShardIndex) -> Option<&mut Terms> {
        let mut runs = self.runs.iter().enumerate();
        let place = runs.find_map(|(run, of)| Some((run, of.bit_at(job, index)?)))?;
        Some(self.apart(place))
    }

    /// Changes the terms of those that a peer names. *Returns* the names of which there is none.
    pub(super) fn change_named(
        &mut self,
        names: impl Iterator<Item = AttemptName>,
        change: impl Fn(&mut Terms),
    ) -> Vec<AttemptName> {
        let (mut named, mut unknown) = (BTreeMap::<usize, u64>::new(), Vec::new());
        for name in names {
            match self.place_named(name) {
                Some((run, bit)) => *named.entry(run).or_default() |= 1 << bit,
                None => unknown.push(name),
            }
        }
        for (at, mut run) in core::mem::take(&mut self.runs).into_iter().enumerate() {
            match named.get(&at) {
                None => self.runs.push_back(run),
                Some(some) if *some == run.held => {
                    change(&mut run.terms);
                    self.runs.push_back(run);
                }
                Some(some) => {
                    self.runs.extend(stretches(run.held, *some).into_iter().map(|(held, is_named)| {
                        let mut part = run.part(held);
                        if is_named {
                            change(&mut part.terms);
                        }
                        part
                    }))
                }
            }
        }
        unknown
    }

    /// Makes a run of one attempt, between those before it and those after it.
    fn apart(&mut self, (at, bit): Place) -> &mut Terms {
        let run = &mut self.runs[at];
        let (one, below) = (1 << bit, (1 << bit) - 1);
        let (before, after) = (run.held & below, run.held & !below & !one);
        run.held = one;
        let [before, after] = [before, after].map(|held| (held != 0).then(|| run.part(held)));
        if let Some(after) = after {
            self.runs.insert(at + 1, after);
        }
        let at = at + usize::from(before.is_some());
        if let Some(before) = before {
            self.runs.insert(at - 1, before);
        }
        &mut self.runs[at].terms
    }

    pub(super) fn take(&mut self, epoch: Epoch) -> Option<Attempt> {
        let (at, bit) = self.place(epoch)?;
        self.count -= 1;
        let run = &mut self.runs[at];
        run.held &= !(1 << bit);
        let (epoch, index) = run.nth(bit);
        let terms = if run.held == 0 { self.runs.remove(at)?.terms } else { run.terms.clone() };
        Some(Attempt { epoch, index, terms })
    }

    /// Takes all at a job's shards. *Returns* the shards.
    pub(super) fn forget(&mut self, job: JobId) -> Vec<ShardIndex> {
        let mut forgotten = Vec::new();
        self.runs.retain(|run| {
            let is_kept = run.terms.job != job;
            if !is_kept {
                forgotten.extend(run.names().map(|(_, index)| index));
            }
            is_kept
        });
        self.count -= forgotten.len();
        forgotten
    }

    /// Takes all.
    pub(super) fn drain(&mut self) -> Vec<Attempt> {
        let mut all = Vec::with_capacity(core::mem::take(&mut self.count));
        for run in self.runs.drain(..) {
            let attempt = |(epoch, index)| Attempt { epoch, index, terms: run.terms.clone() };
            all.extend(run.names().map(attempt));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOBS: [JobId; 2] = [JobId([1; 16]), JobId([2; 16])];

    fn terms(job: JobId, assigned: u64) -> Terms {
        Terms {
            job,
            lease_until: Tick(assigned + 10),
            lease_max: Tick(assigned + 100),
            assigned: Tick(assigned),
            cost: ComputeUnits(1),
            own: None,
        }
    }

    /// A small generator of its own, so that the failing case is its seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    /// What it holds, in words that do not know of runs.
    fn told(attempts: &Attempts) -> Vec<(AttemptName, Tick, Spared)> {
        let tell = |(epoch, index, terms): (Epoch, ShardIndex, &Terms)| {
            ((terms.job, index, epoch), terms.lease_until, terms.spared())
        };
        attempts.iter().map(tell).collect()
    }

    #[test]
    fn runs_hold_what_a_list_of_attempts_holds() {
        for seed in 0..300 {
            let (mut attempts, mut known, mut state) = (Attempts::default(), Vec::new(), seed);
            let (mut epoch, mut index) = (0, 0);
            for step in 0..300 {
                let any = |known: &Vec<(AttemptName, Tick, Spared)>, state: &mut u64| {
                    known.get(next(state) as usize % known.len().max(1)).map(|(name, ..)| *name)
                };
                match next(&mut state) % 7 {
                    0 | 1 => {
                        // Now and then a gap, as where another agent got an epoch or holds a shard.
                        epoch += 1 + u64::from(next(&mut state).is_multiple_of(9));
                        index += u64::from(next(&mut state).is_multiple_of(9));
                        let terms = terms(JOBS[next(&mut state) as usize % 8 / 7], step / 40);
                        for _ in 0..=next(&mut state) % 9 {
                            (epoch, index) = (epoch + 1, index + 1);
                            let name = (terms.job, ShardIndex(index), Epoch(epoch));
                            known.push((name, terms.lease_until, Spared::No));
                            let (index, epoch, terms) = (name.1, name.2, terms.clone());
                            attempts.push(Attempt { epoch, index, terms });
                        }
                    }
                    2 | 3 => {
                        let Some(name) = any(&known, &mut state) else { continue };
                        known.retain(|(of, ..)| *of != name);
                        let taken = attempts.take(name.2).expect("it is there");
                        assert_eq!((taken.terms.job, taken.index, taken.epoch), name, "seed {seed}");
                        assert!(attempts.get(name).is_none() && attempts.take(name.2).is_none());
                    }
                    4 => {
                        let Some(name) = any(&known, &mut state) else { continue };
                        let terms = match step % 2 {
                            0 => attempts.get_mut(name),
                            _ => attempts.at(name.0, name.1),
                        };
                        terms.expect("it is there").own().spared = Spared::Settled;
                        known.iter_mut().find(|(of, ..)| *of == name).expect("it is known").2 =
                            Spared::Settled;
                    }
                    5 => {
                        let some: Vec<AttemptName> = (0..6).filter_map(|_| any(&known, &mut state)).collect();
                        let all = known.iter().map(|(name, ..)| *name).filter(|_| step % 3 == 0);
                        let stranger = (JOBS[0], ShardIndex(index), Epoch(epoch + 1));
                        let names: Vec<_> = some.into_iter().chain(all).collect();
                        let given = names.iter().copied().chain([stranger]);
                        let unknown = attempts.change_named(given, |terms| terms.lease_until = Tick(step));
                        assert_eq!(unknown, [stranger], "seed {seed}");
                        known
                            .iter_mut()
                            .filter(|(of, ..)| names.contains(of))
                            .for_each(|of| of.1 = Tick(step));
                    }
                    _ if step % 50 == 0 => {
                        let gone: Vec<_> = known.iter().filter(|(of, ..)| of.0 == JOBS[1]).collect();
                        let gone: Vec<ShardIndex> = gone.into_iter().map(|(of, ..)| of.1).collect();
                        assert_eq!(attempts.forget(JOBS[1]), gone, "seed {seed}");
                        known.retain(|(of, ..)| of.0 != JOBS[1]);
                    }
                    _ => {
                        let Some(name) = any(&known, &mut state) else { continue };
                        assert!(attempts.is_at(name.0, name.1) && attempts.get(name).is_some());
                        let elsewhere = (name.0, ShardIndex(name.1.0 + 1_000), name.2);
                        assert!(
                            attempts.get(elsewhere).is_none() && !attempts.is_at(elsewhere.0, elsewhere.1)
                        );
                    }
                }
                assert_eq!((told(&attempts), attempts.len()), (known.clone(), known.len()), "seed {seed}");
            }
            let drained = attempts.drain();
            let names = drained.iter().map(|attempt| (attempt.terms.job, attempt.index, attempt.epoch));
            assert!(names.eq(known.iter().map(|(name, ..)| *name)) && attempts.len() == 0, "seed {seed}");
        }
    }

    #[test]
    fn shards_in_a_row_are_one_run_until_something_befalls_one() {
        let mut attempts = Attempts::default();
        let give = |attempts: &mut Attempts, numbers: core::ops::Range<u64>| {
            for number in numbers {
                let (epoch, index) = (Epoch(number), ShardIndex(number + 7));
                attempts.push(Attempt { epoch, index, terms: terms(JOBS[0], 0) });
            }
        };
        give(&mut attempts, 1..65);
        assert_eq!(attempts.runs.len(), 1);
        give(&mut attempts, 65..66);
        assert_eq!(attempts.runs.len(), 2, "a run has 64 attempts at most");
        let names: Vec<AttemptName> = told(&attempts).into_iter().map(|(name, ..)| name).collect();
        attempts.change_named(names.iter().copied(), |terms| terms.lease_until = Tick(50));
        assert_eq!(attempts.runs.len(), 2, "a heartbeat that names all of them keeps them together");
        attempts.change_named(names[20..64].iter().copied(), |terms| terms.lease_until = Tick(60));
        assert_eq!(attempts.runs.len(), 3, "those that it names stay together, and so do the others");
        attempts.get_mut(names[10]).expect("it is there").own().spared = Spared::Settled;
        assert_eq!(attempts.runs.len(), 5);
        (1..65).for_each(|epoch| drop(attempts.take(Epoch(epoch))));
        assert_eq!((attempts.runs.len(), attempts.len()), (1, 1));
    }
}
