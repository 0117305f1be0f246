//! A job on its home lane: which shards are out, in doubt, done; when it is finished.
//!
//! Decides and orders; sends nothing to agents and places nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_planners::{Next, Plan};
use tessera_protocol::api::{JobFailure, JobState, JobView};
use tessera_protocol::id::{AgentId, Digest};
use tessera_protocol::receipt::Service;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{ComputeUnits, LaneIndex, ShardIndex, ShardRange, Tick, UnixMillis};

use crate::Effect;
use crate::counts::Counts;
use crate::effect::Outbox;
use crate::fleet::Fleet;
use crate::ledger::{Bill, Charges, Payment};
use crate::message::{Errand, LaneMessage, Work};
use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;
use crate::record::{Kept, KeptPanel};
use crate::reducer::Reducer;
use crate::retries::Retries;
use crate::triage::{Oddity, Triage};
use crate::verifier::{Content, Docket, Partial, Party, Ruling, Verified, Verifier};
use crate::write::Write;
use crate::{NewJob, Outcome, Progress, RequestId};

mod attempts;
mod ending;
mod explain;
mod stages;
mod tiles;
mod trust;
mod unkept;
mod view;

pub use ending::Ending;
pub use tiles::{FinishedTile, UnkeptPanel};
use unkept::Unkept;

/// Where a home stands.
#[derive(Debug)]
enum Stage {
    /// Shards are handed out and taken in.
    Open,
    /// Decided; the record is on its way to the store, or waits to be tried again.
    Ending { ending: Ending, write: Write },
}

/// Shards waiting for a second answer, whose partials are held, above which nothing new is granted.
pub const DOUBTS_MAX: usize = 1 << 14;
/// Partials that may be held however large they are.
const DOUBTS_MIN: usize = 8;
/// Bytes of partials in doubt above which nothing new is granted, however few they are.
const DOUBT_BYTES_MAX: usize = 256 << 20;
/// Bytes of provisional partials above which nothing new is granted; from half of it on no batch waits for more.
const HELD_BYTES_MAX: usize = 256 << 20;
/// What numbers may take of memory on a lane unless it is told otherwise.
pub const ROOM_BYTES_DEFAULT: usize = 1 << 30;
/// Of so many agents that were paid the next record of a job waits a millisecond: a hundred thousand, ten seconds.
const BILLED_PER_MS: u64 = 10;
/// Provisional partials above which nothing new is granted.
const HELD_MAX: usize = 1 << 18;

#[derive(Clone, Debug, Default)]
struct Counters {
    attempts: u64,
    /// What became of its answers. Retries and spares that won are not written down.
    counts: Counts,
    lanes: Vec<u64>,
}

/// One open job.
#[derive(Debug)]
pub struct Home {
    job: Arc<NewJob>,
    /// Of the round that is being computed.
    plan: Plan,
    /// What the rounds so far cost.
    cost: ComputeUnits,
    stage: Stage,
    /// Not granted to any lane.
    todo: Ranges,
    /// Answered, and not final.
    docket: Docket,
    triage: Triage,
    /// Room for the first answers of an agent while they are taken in.
    first_answers: Vec<(Partial, Option<Box<Oddity>>)>,
    /// Room for what the verifier rules while that is carried out.
    rulings: Vec<Ruling>,
    /// Errands that no connected agent may run.
    stuck: Vec<Errand>,
    reducer: Reducer,
    /// Shards that were released on the word of one agent alone.
    unchecked: BTreeMap<AgentId, u64>,
    /// Agents proven wrong since it was opened here: claims of theirs were on the way, made when they were trusted.
    refuted: BTreeSet<AgentId>,
    bill: Bill,
    retries: Retries,
    /// Whether lanes know that nearly all of the round is done.
    tail: bool,
    /// Shards with a second attempt beside a slow one, and the lane that asked for it.
    spares: BTreeMap<ShardIndex, LaneIndex>,
    /// Shards that became final and were not looked back at.
    fresh: Vec<ShardIndex>,
    starved: BTreeSet<LaneIndex>,
    counters: Counters,
    deadline: Option<Tick>,
    cancelling: Vec<RequestId>,
    /// What of the progress is not durable yet.
    unsaved: bool,
    saving: Write,
    /// When its progress was last given to the store.
    saved: Tick,
    /// Shards of a sum that are final and not in a durable record: when they became so, and how many.
    unkept: Unkept,
    /// Reading the tiles of a matrix in the order of its file.
    assembling: Write,
    /// What numbers may take of memory on its lane. *Units*: bytes.
    room_bytes: usize,
    /// Whether clients do not see how it looks.
    pub(crate) unseen: bool,
    planting: Planting,
}

impl Home {
    /// Opens a job, from the start or from where its record says it was.
    pub fn open(job: Arc<NewJob>, progress: Option<Progress>, now: Tick, unix_origin: UnixMillis) -> Home {
        Home::open_planted(job, progress, (now, unix_origin), Planting::default())
    }

    pub(crate) fn open_planted(
        job: Arc<NewJob>,
        progress: Option<Progress>,
        (now, unix_origin): (Tick, UnixMillis),
        planting: Planting,
    ) -> Home {
        let limit_ms = job.manifest.spec().limits.deadline_s.map(|seconds| seconds.saturating_mul(1000));
        let deadline = limit_ms
            .map(|limit| Tick((job.created.0.saturating_add(limit)).saturating_sub(unix_origin.0)).max(now));
        let recovered = progress.and_then(|progress| {
            if planting.is(Planted::RecoverTheFirstRound) {
                return Some((progress, job.plan.clone()));
            }
            let plan = job.plan.at_round(&job.manifest, progress.round.clone()).ok()?;
            (plan.digest() == progress.plan).then_some((progress, plan))
        });
        let mut counters = Counters::default();
        let (plan, cost, todo, reducer, bill) = match recovered {
            Some((progress, plan)) => {
                let mut todo = Ranges::of(ShardRange { start: 0, end: plan.indices().end });
                progress.done.iter().for_each(|range| todo.remove(range));
                let view = progress.view;
                let counts = Counts {
                    checks: view.checks,
                    checks_skipped: view.checks_skipped,
                    mismatches: view.mismatches,
                    recalled: view.recalled,
                    tainted: view.tainted,
                    ..Counts::default()
                };
                counters = Counters { attempts: view.attempts, counts, lanes: view.lanes };
                let bill = Bill::resume(progress.bill, &plan);
                let reducer = match plan.stage() {
                    None => Reducer::resume(&plan, progress.done, progress.earlier, progress.tally),
                    Some(_) => Reducer::resume_stage(progress.done, progress.products),
                };
                (plan, view.cost, todo, reducer, bill)
            }
            None => {
                let base = job.base.as_ref().filter(|_| !planting.is(Planted::ForgetTheBase));
                counters.counts.tainted = base.map_or(0, |base| base.tainted);
                let base = base.map(|base| Arc::new(base.tally.clone()));
                let reducer = Reducer::resume(&job.plan, Ranges::default(), Vec::new(), base);
                let bill = Bill::open(job.manifest.spec().verify, &job.plan);
                (job.plan.clone(), job.plan.cost(), Ranges::of(job.plan.indices()), reducer, bill)
            }
        };
        let retries = Retries::new(job.manifest.spec().limits.retries);
        // Which of what records paid was checked is not written down: at worst more counts as tainted than is.
        let unchecked =
            bill.charges().paid.iter().map(|((_, agent), earned)| (*agent, earned.shards)).collect();
        Home {
            job,
            plan,
            cost,
            stage: Stage::Open,
            todo,
            docket: Docket::default(),
            triage: Triage::default(),
            first_answers: Vec::new(),
            rulings: Vec::new(),
            stuck: Vec::new(),
            reducer,
            unchecked,
            refuted: BTreeSet::new(),
            bill,
            retries,
            tail: false,
            spares: BTreeMap::new(),
            fresh: Vec::new(),
            starved: BTreeSet::new(),
            counters,
            deadline,
            cancelling: Vec::new(),
            unsaved: false,
            saving: Write::Idle,
            saved: now,
            unkept: Unkept::default(),
            assembling: Write::Idle,
            room_bytes: ROOM_BYTES_DEFAULT,
            unseen: true,
            planting: Planting::default(),
        }
    }

    /// Goes on when every shard of the round is reduced: to the next round, or to the end.
    pub fn go_on_if_complete(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        if self.is_ending() || self.reducer.done().count() != self.plan.indices().end {
            return;
        }
        match (self.reducer.stitcher(), self.reducer.gatherer()) {
            (_, Some(gatherer)) => {
                if gatherer.is_stored() || self.planting.is(Planted::BeginStageEarly) {
                    self.next_stage(judge, out);
                }
            }
            (None, None) => self.next_round(judge, out),
            (Some(stitcher), None)
                if (stitcher.is_written() || self.planting.is(Planted::AssembleEarly))
                    && self.assembling.may_start(judge.now) =>
            {
                self.assembling = Write::Under;
                out.push(Effect::Assemble { job: self.job.id, task: stitcher.task().clone() });
            }
            (Some(_), None) => {}
        }
    }

    /// Gives the shards of another round to the lanes.
    fn begin(&mut self, plan: Plan, judge: &Judge<'_>, out: &mut Outbox) {
        self.todo.insert(plan.indices());
        self.cost.0 = self.cost.0.saturating_add(plan.cost().0);
        self.bill.round(&plan);
        self.plan = plan;
        self.docket.forget_known();
        self.starved.clear();
        self.tail = false;
        (self.unsaved, self.unseen) = (true, true);
        if let Some(cap) = self.job.manifest.spec().limits.cost_cap.filter(|cap| self.cost.0 > *cap) {
            let stage = self.plan.stage().unwrap_or_default().to_string();
            let cause =
                format!("with it the job costs {} compute units, and its cost_cap is {cap}", self.cost.0);
            return self.fail(JobFailure::StageFailed { stage, cause }, judge);
        }
        let work = self.work(judge.lane);
        out.tell_all(&LaneMessage::JobOpened { job: self.job.id, work });
    }

    fn next_round(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        let tallies: Vec<&Tally> = self.reducer.tallies().map(|tally| &**tally).collect();
        match tessera_planners::next(&self.job.manifest, &self.plan, &tallies) {
            Ok(Next::Finished(document)) => {
                let tally = self.reducer.tallies().next().cloned().map(Kept::Tally);
                self.finish(document, tally, judge);
            }
            Ok(Next::Round(plan)) => {
                let same_pass = plan.round().pass == self.plan.round().pass;
                if !same_pass {
                    self.reducer.begin_pass();
                }
                self.begin(*plan, judge, out);
            }
            Err(error) => self.fail(JobFailure::NotReducible { cause: error.to_string() }, judge),
        }
    }

    fn finish(&mut self, document: Vec<u8>, kept: Option<Kept>, judge: &Judge<'_>) {
        // A complete round has a tally, and a plan of tiles a task.
        let Some(kept) = kept else { return };
        let digest = Some(Digest::of(&document));
        let view = JobView { digest, ..self.ended_view(JobState::Done, judge) };
        self.end(Outcome::Done { result: document.into(), kept }, view);
    }

    /// Whether tiles or products are finished and not durable.
    pub fn has_unwritten_parts(&self) -> bool {
        self.reducer.stitcher().is_some_and(|stitcher| !stitcher.is_written())
            || self.reducer.gatherer().is_some_and(|gatherer| !gatherer.is_stored())
    }

    pub(crate) fn plant(&mut self, planting: Planting) {
        self.planting = planting;
        self.retries.planting = planting;
        self.bill.planting = planting;
        if let Some(stitcher) = self.reducer.stitcher_mut() {
            stitcher.planting = planting;
        }
        if planting.is(Planted::ForgetProgress) {
            self.todo = Ranges::of(self.plan.indices());
            let (done, earlier) = (self.reducer.done().clone(), self.reducer.earlier().to_vec());
            let mut before = done;
            before.remove(self.plan.indices());
            self.reducer = Reducer::resume(&self.plan, before, earlier, self.reducer.tally().cloned());
        }
    }

    /// What is held and paid so far, as far as it is durable.
    pub fn charges(&self) -> &Charges {
        self.bill.charges()
    }

    /// What lanes need to run it.
    pub fn work(&self, home: LaneIndex) -> Arc<Work> {
        Arc::new(Work {
            plan: self.plan.clone(),
            priority: self.job.manifest.spec().priority,
            home,
            partial_bytes_max: self.plan.partial_bytes_max(&self.job.manifest),
            project: self.job.manifest.spec().project.as_str().into(),
            weight: 1,
            deadline: self.deadline,
            requirements: self.job.manifest.spec().requirements.clone().unwrap_or_default(),
        })
    }

    /// Goes on from panels that were kept when the hub stopped, within so much memory.
    pub fn furnish(&mut self, panels: Vec<KeptPanel>, room_bytes: usize) {
        self.room_bytes = room_bytes;
        self.recover_panels(panels);
    }

    /// Bytes of numbers that it holds, or that agents were told to compute and send: of tallies, those in doubt.
    pub fn held_bytes(&self) -> usize {
        let parts = self.reducer.gatherer().map_or(0, |gatherer| gatherer.bytes());
        let stitched = self.reducer.stitcher().map_or(0, |stitcher| {
            let settled = self.todo.count() + self.reducer.done().count() + self.docket.len() as u64;
            let out = self.plan.indices().end.saturating_sub(settled);
            stitcher.bytes() + out as usize * self.block_bytes()
        });
        self.docket.bytes() + parts + stitched
    }

    /// Of the largest block of a matrix. *Units*: bytes.
    fn block_bytes(&self) -> usize {
        self.plan.partial_bytes_max(&self.job.manifest).max(1)
    }

    /// How many shards may be granted while numbers take so much of the lane's memory.
    fn fitting(&self, held_bytes: usize) -> u64 {
        let free = self.room_bytes.saturating_sub(held_bytes);
        if self.reducer.stitcher().is_some() {
            // One always fits where the job has none: what others hold may be stuck, and it may be larger than the room.
            return ((free / self.block_bytes()) as u64).max(u64::from(self.held_bytes() == 0));
        }
        let is_alone = self.held_bytes() == 0;
        if self.reducer.gatherer().is_some() && free == 0 && !is_alone { 0 } else { u64::MAX }
    }

    /// A lane asks for shards while all jobs here hold so much. Near the end of a job each lane gets a share, so that
    /// none hoards. *Returns* whether there were some and no memory for them.
    pub fn wanted(
        &mut self,
        (lane, count): (LaneIndex, u64),
        held_bytes: usize,
        out: &mut Outbox,
        lanes: u16,
    ) -> bool {
        let fitting = self.fitting(held_bytes);
        let count = count.min(fitting);
        let share = if lanes > 1 { self.todo.count().div_ceil(2 * u64::from(lanes)) } else { count };
        let range = match self.stage {
            // Panels that wait for an earlier one take memory until it comes: it is among the first to do.
            Stage::Open if self.waits_for_a_panel() => self.todo.take_first(fitting.min(1)),
            Stage::Open if !self.is_full() => self.todo.take_first(count.min(share)),
            Stage::Open | Stage::Ending { .. } => ShardRange::default(),
        };
        if range.is_empty() {
            self.starved.insert(lane);
        }
        self.unseen = true;
        out.tell(lane, LaneMessage::RangeGranted { job: self.job.id, range });
        fitting == 0 && !self.todo.is_empty()
    }

    /// There is memory again.
    pub fn room_made(&mut self, out: &mut Outbox) {
        self.wake(out);
    }

    fn waits_for_a_panel(&self) -> bool {
        self.reducer.stitcher().is_some_and(|stitcher| stitcher.is_crowded())
    }

    /// Whether so much is held that nothing new is granted.
    fn is_full(&self) -> bool {
        let tiles = self.reducer.stitcher().is_some_and(|stitcher| stitcher.is_full());
        let products = self.reducer.gatherer().is_some_and(|gatherer| gatherer.is_full());
        let held = self.docket.bytes() >= HELD_BYTES_MAX || self.docket.len() >= HELD_MAX;
        tiles || products || held || self.bill.is_full() || self.docket.doubts() >= self.doubts_max()
    }

    /// Partials that may be held for a second answer.
    fn doubts_max(&self) -> usize {
        let partial = self.plan.partial_bytes_max(&self.job.manifest).max(1);
        (DOUBT_BYTES_MAX / partial).clamp(DOUBTS_MIN, DOUBTS_MAX)
    }

    /// A lane gives shards back.
    pub fn returned(&mut self, ranges: &[ShardRange], out: &mut Outbox) {
        if let Stage::Open = self.stage {
            ranges.iter().for_each(|range| self.put_back(*range));
            self.wake(out);
        }
    }

    /// A lane has nobody for an errand.
    pub fn errand_returned(&mut self, errand: Errand, judge: &Judge<'_>, out: &mut Outbox) {
        if !self.planting.is(Planted::DropReturnedErrands) {
            self.place(errand, judge, out);
        }
    }

    /// Agents came or went: errands nobody could run may find somebody now.
    pub fn fleet_changed(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        self.unseen = true;
        self.place_stuck(judge, out);
    }

    fn place_stuck(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        for mut errand in core::mem::take(&mut self.stuck) {
            if core::mem::take(&mut errand.busy) {
                errand.tried.clear();
            }
            self.place(errand, judge, out);
        }
    }

    /// Lane by lane from one that depends on the shard, so that checks spread.
    fn place(&mut self, errand: Errand, judge: &Judge<'_>, out: &mut Outbox) {
        if self.is_ending() || self.is_settled(errand.index) {
            return;
        }
        let lanes = out.all_lanes();
        let start = (errand.index.0 % lanes.len() as u64) as usize;
        let willing = lanes[start..]
            .iter()
            .chain(&lanes[..start])
            .copied()
            .find(|lane| !errand.tried.contains(lane) && judge.fleet.works(*lane));
        let lone = judge.fleet.total() <= 1 && self.docket.doubt(errand.index).is_some();
        match willing {
            Some(lane) if !lone => out.tell(lane, LaneMessage::ErrandGranted { job: self.job.id, errand }),
            Some(_) | None => self.unplaceable(errand, judge, out),
        }
    }

    fn wake(&mut self, out: &mut Outbox) {
        if self.planting.is(Planted::LetLanesStarve) {
            return;
        }
        for lane in core::mem::take(&mut self.starved) {
            out.tell(lane, LaneMessage::WorkAppeared { job: self.job.id });
        }
    }

    fn absorb(
        &mut self,
        by: Party,
        partials: Verified<Vec<Partial>>,
        checkers: &[Party],
        judge: &Judge<'_>,
        out: &mut Outbox,
    ) {
        if self.reducer.stitcher().is_none() && self.reducer.gatherer().is_none() {
            self.unkept.add(judge.now, partials.partials().len() as u64);
        }
        let lane = by.lane.as_usize();
        if self.counters.lanes.len() <= lane {
            self.counters.lanes.resize(lane + 1, 0);
        }
        (self.unsaved, self.unseen) = (true, true);
        for partial in partials.partials() {
            if let Content::Part(part) = &partial.content {
                self.triage.released(part);
            }
        }
        let reduced = self.reducer.absorb(partials, |index, digest| {
            for checker in checkers {
                self.bill.owe(payment(&self.plan, *checker, Service::Check, (index, digest)));
            }
            self.bill.owe(payment(&self.plan, by, Service::Shard, (index, digest)));
            self.fresh.push(index);
            self.counters.lanes[lane] += 1;
        });
        if let Err(error) = reduced {
            return self.fail(JobFailure::NotReducible { cause: error.to_string() }, judge);
        }
        if !self.todo.is_empty() && !self.is_full() {
            self.wake(out);
        }
        self.go_on_if_complete(judge, out);
    }

    /// Time went by.
    pub fn time_passed(&mut self, judge: &Judge<'_>, out: &mut Outbox) {
        if self.deadline.is_some_and(|deadline| deadline <= judge.now) && matches!(self.stage, Stage::Open) {
            let deadline_s = self.job.manifest.spec().limits.deadline_s.unwrap_or_default();
            self.fail(JobFailure::DeadlinePassed { deadline_s }, judge);
        }
        self.give_up_on_anchors(judge);
        // A fleet's change wakes stuck errands, but one can be missed:
        // 1. The errand comes back from lane 1, which has nobody for it, and goes to lane 0.
        // 2. An agent joins lane 1; nothing is stuck, so nothing is woken.
        // 3. The errand comes back from lane 0 and is stuck.
        if !self.planting.is(Planted::WakeStuckErrandsOnChangeOnly) {
            self.place_stuck(judge, out);
        }
        self.close_batches(judge, out);
        if self.assembling.is_refused() {
            self.go_on_if_complete(judge, out);
        }
    }

    /// The progress that is to be written now, if there is any. A bill with many agents is written less often, but
    /// for when the hub stops: all of it is written each time.
    pub fn progress_to_write(&mut self, stopping: bool, judge: &Judge<'_>) -> Option<Progress> {
        let rest_ms = self.bill.charges().paid.len() as u64 / BILLED_PER_MS;
        let is_due = stopping || judge.now >= self.saved.after_ms(rest_ms);
        if !self.unsaved || !is_due || !self.saving.may_start(judge.now) || self.is_ending() {
            return None;
        }
        (self.unsaved, self.saving, self.saved) = (false, Write::Under, judge.now);
        self.unkept.written();
        let (earlier, tally) = (self.reducer.earlier().to_vec(), self.reducer.tally().cloned());
        let (mut done, mut products) = (self.reducer.done().clone(), BTreeMap::new());
        if self.plan.matrix().is_some() {
            // Of a matrix it is the tiles in the store that are done.
            done = Ranges::default();
        } else if let Some(gatherer) = self.reducer.gatherer() {
            (done, products) = (gatherer.done(), gatherer.products().clone());
            done.insert(ShardRange { start: 0, end: self.plan.indices().start });
        }
        let (plan, round) = (self.plan.digest(), self.plan.round().clone());
        let bill = self.bill.when_done(&done);
        Some(Progress { done, tally, earlier, view: self.view(judge), plan, round, products, bill })
    }

    /// A write of its progress succeeded or failed.
    pub fn progress_written(&mut self, succeeded: bool, now: Tick, out: &mut Outbox) {
        let was_full = self.is_full();
        self.saving = Write::ended(succeeded, now);
        if succeeded {
            self.unkept.kept(now, out);
        }
        self.bill.written(succeeded);
        if was_full && !self.is_full() {
            self.wake(out);
        }
        self.unsaved |= !succeeded;
        self.unseen = true;
    }

    /// Whether something is not durable that should be.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved || self.saving == Write::Under || self.is_ending() || self.has_unwritten_parts()
    }

    /// Whether a timer concerns it.
    pub fn is_watched(&self) -> bool {
        let waits = !self.stuck.is_empty() || self.docket.has_open() || self.retries.is_waiting();
        self.deadline.is_some() || waits || self.assembling.is_refused()
    }

    /// Counts attempts that lanes started.
    pub fn attempted(&mut self, attempts: u64) {
        self.counters.attempts += attempts;
    }

    /// Every shard is in exactly one place.
    ///
    /// *Panics*: when not.
    pub fn check_invariants(&self) {
        self.docket.check_invariants();
        for index in self.docket.indices() {
            assert!(!self.reducer.done().contains(index), "{index:?} is final and provisional");
            assert!(!self.todo.contains(index), "{index:?} is provisional and to do");
        }
        for range in self.reducer.done().iter() {
            assert!(!self.todo.overlaps(range), "{range:?} is done and to do");
        }
        let placed = self.todo.count() + self.reducer.done().count() + self.docket.len() as u64;
        assert!(placed <= self.plan.indices().end);
        self.bill.check();
        assert_eq!(
            self.bill.shards(),
            self.reducer.done().count(),
            "shards are done and not paid, or paid and not done"
        );
    }
}

/// What an answer to a shard earns.
fn payment(plan: &Plan, to: Party, service: Service, (index, digest): (ShardIndex, Digest)) -> Payment {
    let Party { agent, account, .. } = to;
    let cost = plan.shard(index).map_or(ComputeUnits(0), |shard| shard.cost);
    Payment { provider: account.provider, agent, service, index, digest, cost }
}

/// What a home needs from its lane to decide.
#[derive(Debug)]
pub struct Judge<'a> {
    /// Judges claims.
    pub verifier: &'a Verifier,
    /// Who could run an errand.
    pub fleet: &'a Fleet,
    /// The lane it lives on.
    pub lane: LaneIndex,
    /// Now.
    pub now: Tick,
    /// Unix time of tick zero.
    pub unix_origin: UnixMillis,
}
