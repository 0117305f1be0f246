//! The machine of one lane. Only `step` matches on events; the rooms it calls decide, and never call
//! each other.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::unit::{LaneIndex, Tick, UnixMillis};

use crate::archive::Archive;
use crate::counts::Counts;
use crate::effect::{Outbox, Waited};
use crate::fleet::{Fleet, Strength};
use crate::home::{self, Home, Judge};
use crate::message::{FailureCause, Judgement, Loss, Proof};
use crate::planted::{Planted, Planting};
use crate::record::KeptPanel;
use crate::retries::{RetryBudget, Setback};
use crate::scheduler::{Scheduler, Sharing};
use crate::standing::{self, Change, Registry, StandingRecord, registry_lane};
use crate::verifier::Verifier;
use crate::{Answer, BatchId, Drain, Effect, Event, LaneMessage, NewJob, Progress, Record, RequestId};
use crate::{admission, home_lane};

mod writing;

use writing::Writing;

/// How often progress is made durable: what a crash costs at most. *Units*: milliseconds.
pub const CHECKPOINT_MS: u64 = 500;
/// How often clients see progress. *Units*: milliseconds.
pub const PUBLISH_MS: u64 = 100;
/// How often operators see what agents hold: each of thousands is a view of its own. *Units*: milliseconds.
pub const PUBLISH_AGENTS_MS: u64 = 1_000;
/// How often leases and deadlines are looked at, and failed writes tried again. *Units*: milliseconds.
pub const WATCH_MS: u64 = 1_000;

/// What a lane is told at its birth.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which lane.
    pub lane: LaneIndex,
    /// How many there are.
    pub lanes: u16,
    /// The hub's secret for choosing what is checked.
    pub sampling_key: [u8; 32],
    /// Unix time of tick zero.
    pub unix_origin: UnixMillis,
}

/// One hub core's machine.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    now: Tick,
    verifier: Verifier,
    fleet: Fleet,
    homes: BTreeMap<JobId, Home>,
    /// Homes that something happened to: what timers look at, however many jobs just wait.
    attention: BTreeSet<JobId>,
    /// Homes with finished tiles or products that are not durable.
    stitching: BTreeSet<JobId>,
    /// Homes whose end is decided and not written.
    ending: BTreeSet<JobId>,
    /// What numbers may take of memory here. *Units*: bytes.
    room_bytes: usize,
    /// What those of all homes take.
    held_bytes: usize,
    /// Homes that were to grant shards and had no memory for them.
    cramped: BTreeSet<JobId>,
    scheduler: Scheduler,
    /// Of the jobs whose home this is.
    budget: RetryBudget,
    /// Of the providers whose registry is here.
    registry: Registry,
    /// Of standings, since they were last written.
    changes: Vec<Change>,
    /// Of those proven wrong, since standings were last written.
    proofs: Vec<Proof>,
    /// Agents that were on record as proven wrong when the hub started.
    distrusted: BTreeSet<AgentId>,
    archive: Archive,
    writing: BTreeMap<BatchId, Writing>,
    batches: u64,
    checkpointed: Tick,
    published: Tick,
    agents_published: Tick,
    watched: Tick,
    /// Whether answers came since the last step that settled.
    unsettled: bool,
    stopping: bool,
    planting: Planting,
    /// Of the jobs whose home this is.
    counts: Counts,
    out: Outbox,
}

impl Lane {
    /// A lane without jobs or agents.
    pub fn new(config: Config) -> Lane {
        Lane {
            now: Tick(0),
            verifier: Verifier::new(config.sampling_key),
            fleet: Fleet::new(config.lanes),
            homes: BTreeMap::new(),
            attention: BTreeSet::new(),
            stitching: BTreeSet::new(),
            ending: BTreeSet::new(),
            room_bytes: home::ROOM_BYTES_DEFAULT,
            held_bytes: 0,
            cramped: BTreeSet::new(),
            scheduler: Scheduler::new(config.lane, config.unix_origin),
            budget: RetryBudget::default(),
            registry: Registry::default(),
            changes: Vec::new(),
            proofs: Vec::new(),
            distrusted: BTreeSet::new(),
            archive: Archive::new(),
            writing: BTreeMap::new(),
            batches: 0,
            checkpointed: Tick(0),
            published: Tick(0),
            agents_published: Tick(0),
            watched: Tick(0),
            unsettled: false,
            stopping: false,
            planting: Planting::default(),
            counts: Counts::default(),
            out: Outbox::new(config.lane, config.lanes),
            config,
        }
    }

    /// Sets what projects may have, before the first event.
    pub fn share(&mut self, sharing: Sharing) {
        self.scheduler.share(sharing);
    }

    /// Sets what the numbers of all jobs may take of memory here, before the first event. *Units*: bytes.
    pub fn limit_numbers(&mut self, room_bytes: usize) {
        self.room_bytes = room_bytes;
    }

    /// Plants a bug for the simulator to find.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: Option<Planted>) {
        self.planting = Planting::new(bug);
        self.scheduler.plant(self.planting);
        self.verifier.planting = self.planting;
    }

    /// Takes in what happened and orders what is to be done.
    ///
    /// *Order*: `now` never goes back; an earlier moment counts as the latest one seen.
    pub fn step(&mut self, now: Tick, event: Event) -> Drain<'_> {
        self.now = self.now.max(now);
        self.out.forget_waits();
        match event {
            Event::JobSubmitted { request, job } => self.submit(request, job),
            Event::CancelRequested { request, job } => self.cancel(request, job),
            Event::JobExplanationRequested { request, job } => {
                let home = self.homes.get(&job).map(|home| home.explain(self.config.lane));
                let here = self.scheduler.explain_job(job, self.now).map(alloc::boxed::Box::new);
                self.out.push(Effect::Answer { request, answer: Answer::JobExplained(home, here) });
            }
            Event::AgentExplanationRequested { request, agent } => {
                let here = self.scheduler.explain_agent(agent, self.now).map(alloc::boxed::Box::new);
                self.out.push(Effect::Answer { request, answer: Answer::AgentExplained(here) });
            }
            Event::JobRecovered { job, progress, panels } => {
                let id = job.id;
                self.open(job, progress.map(|progress| *progress), panels);
                self.at_home(id, |home, judge, _| home.be_patient(judge.now));
            }
            Event::StandingsRecovered { agents } => self.restore(&agents),
            Event::StandingRead { record } => self.learn(record),
            Event::Committed { batch } => self.committed(batch),
            Event::Conflicted { batch, existing, manifest } => {
                if let Some(Writing::Acceptance { request, .. }) = self.writing.remove(&batch) {
                    let answer = Answer::Replayed { job: existing, manifest };
                    self.out.push(Effect::Answer { request, answer });
                }
            }
            Event::CommitFailed { batch, too_large } => self.commit_failed(batch, too_large),
            Event::AgentAdmitted { session, agent, account, hello } => {
                for lane in self.out.all_lanes() {
                    if lane != self.config.lane {
                        self.out.tell(lane, LaneMessage::AgentMoved { agent });
                    }
                }
                let registry = registry_lane(account.provider, self.config.lanes);
                self.out.tell(registry, LaneMessage::AgentArrived { agent, account });
                self.scheduler.admit(session, (agent, account), hello, self.now, &mut self.out);
                self.scheduler.publish(&mut self.out);
            }
            Event::DevicesOffered { session, gpus } => self.scheduler.devices(session, gpus, &mut self.out),
            Event::HeartbeatArrived { session, holding } => {
                let changed = self.scheduler.heartbeat(session, &holding, self.now);
                // Most of what a great fleet says is this, and nothing follows from it.
                if !changed && self.next_timer().is_none_or(|due| due > self.now) {
                    return Drain::new(self.out.effects());
                }
            }
            Event::AgentLeaving { session } => self.scheduler.leaving(session, &mut self.out),
            Event::SessionClosed { session } => self.scheduler.lose(session, Some(Loss::Gone), &mut self.out),
            Event::ResultsArrived { session, job, answers } => {
                self.scheduler.answered(session, job, answers, self.now, &mut self.out);
                self.unsettled = true;
                return Drain::new(self.out.effects());
            }
            Event::PartialArrived { session, job, index, epoch, partial } => {
                self.scheduler.delivered(session, job, (index, epoch), partial, self.now, &mut self.out);
            }
            Event::InputWanted { session, job, input, offset } => {
                self.scheduler.input_wanted(session, job, input, offset, self.now, &mut self.out);
            }
            Event::Assembled { job, output } => {
                self.at_home(job, |home, judge, _| home.assembled(output, judge));
            }
            Event::PanelKept { job, tile, panel, fate } => {
                self.at_home(job, |home, judge, out| home.panel_kept((tile, panel), fate, judge, out));
            }
            Event::TileLost { job, tile } => self.at_home(job, |home, _, out| home.tile_lost(tile, out)),
            Event::ProductStored { job, index, stored } => {
                self.at_home(job, |home, judge, out| home.product_stored(index, stored, judge, out));
            }
            Event::ShardFailed { session, job, index, epoch, failure } => {
                let cause = FailureCause::Reported(failure);
                self.scheduler.failed(session, job, (index, epoch), cause, self.now, &mut self.out);
            }
            Event::LaneSpoke { from, message } => self.hear(from, message),
            Event::TimePassed => {}
            Event::StopRequested => self.stop(),
        }
        self.settle();
        Drain::new(self.out.effects())
    }

    /// When [`Event::TimePassed`] is wanted next; never while there is nothing to watch. At once after answers, of which
    /// many may come before: what follows from them, but for what an agent did wrong, waits for the next step of
    /// another kind.
    pub fn next_timer(&self) -> Option<Tick> {
        if self.unsettled {
            return Some(self.now);
        }
        let attention = !self.attention.is_empty();
        let unwritten = self.has_unwritten_words();
        let due = [
            attention.then(|| self.published.after_ms(PUBLISH_MS)),
            self.scheduler.has_unseen().then(|| self.agents_published.after_ms(PUBLISH_AGENTS_MS)),
            (attention || unwritten).then(|| self.checkpointed.after_ms(CHECKPOINT_MS)),
            (attention || self.scheduler.has_agents()).then(|| self.watched.after_ms(WATCH_MS)),
        ];
        due.into_iter().flatten().min()
    }

    /// Whether a lane that was told to stop has nothing left in flight or unwritten.
    pub fn is_drained(&self) -> bool {
        self.stopping
            && !self.unsettled
            && self.scheduler.in_flight() == 0
            && self.writing.is_empty()
            && !self.has_unwritten_words()
            && !self.homes.values().any(Home::is_unsaved)
    }

    /// Whether standings, or what they rest on, are not durable.
    fn has_unwritten_words(&self) -> bool {
        self.archive.is_unwritten() || self.registry.is_unsaved() || !self.proofs.is_empty()
    }

    /// Whether a batch is on its way to the store.
    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// What happened to attempts and answers since it started.
    pub fn counts(&self) -> Counts {
        let mut counts = self.scheduler.counts();
        counts += self.counts;
        counts
    }

    /// How long shards waited for what the last step brought about.
    pub fn waits(&self) -> &[Waited] {
        self.out.waits()
    }

    /// Jobs that live here and have not ended.
    pub fn open_jobs(&self) -> usize {
        self.homes.len()
    }

    /// Checks everything that must hold between steps.
    ///
    /// *Panics*: when something does not.
    pub fn invariants(&self) {
        self.scheduler.check_invariants();
        let held: usize = self.homes.values().map(Home::held_bytes).sum();
        assert_eq!(self.held_bytes, held, "bytes of numbers appear or vanish");
        for (id, home) in &self.homes {
            assert_eq!(home_lane(*id, self.config.lanes), self.config.lane, "{id} lives elsewhere");
            home.check_invariants();
            let quiet = !home.unseen && !home.is_unsaved() && !home.is_watched();
            assert!(quiet || self.attention.contains(id), "{id} is overlooked");
        }
    }

    // --- clients --------------------------------------------------------------------------------

    fn submit(&mut self, request: RequestId, job: Arc<NewJob>) {
        if self.stopping {
            return self.out.push(Effect::Answer { request, answer: Answer::Stopping });
        }
        if let Err(error) = admission::admit(&job.manifest, &job.plan) {
            return self.out.push(Effect::Answer { request, answer: Answer::Refused(error) });
        }
        let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
        let view = Home::open_planted(job.clone(), None, (self.now, self.config.unix_origin), self.planting)
            .view(&judge);
        if self.planting.is(Planted::SpeakBeforePersist) {
            let answer = Answer::Accepted(view.clone().into());
            self.out.push(Effect::Answer { request, answer });
        }
        let record = Record::JobAccepted { job: job.clone(), view: view.into() };
        self.persist(Writing::Acceptance { request, job }, record);
    }

    fn cancel(&mut self, request: RequestId, job: JobId) {
        if !self.homes.contains_key(&job) {
            return self.out.push(Effect::Answer { request, answer: Answer::NotOpen });
        }
        if self.planting.is(Planted::StopBeforePersist)
            && let Some(home) = self.homes.get(&job)
        {
            let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
            let view = home.view(&judge);
            let view = JobView { state: JobState::Cancelled, ..view };
            self.out.push(Effect::Answer { request, answer: Answer::Cancelled(view.into()) });
        }
        self.at_home(job, |home, judge, _| home.cancel(request, judge));
    }

    // --- jobs -----------------------------------------------------------------------------------

    /// What was known of agents when the hub stopped.
    fn restore(&mut self, agents: &[StandingRecord]) {
        let is_here =
            |record: &&StandingRecord| registry_lane(record.provider, self.config.lanes) == self.config.lane;
        self.registry = Registry::restore(agents.iter().filter(is_here).copied());
        let distrusted = agents.iter().filter(|record| record.proven);
        self.distrusted = distrusted.map(|record| record.agent).collect();
    }

    /// What another hub thinks of an agent, which may have worked there meanwhile.
    fn learn(&mut self, record: StandingRecord) {
        let agent = record.agent;
        if record.proven && self.distrusted.insert(agent) {
            // Also what it answered here and is not final.
            self.refuted(agent);
        }
        if registry_lane(record.provider, self.config.lanes) != self.config.lane {
            return;
        }
        let settled = !self.archive.is_unwritten();
        if let Some(standing) = self.registry.learn(record, settled) {
            self.out.tell_all(&LaneMessage::StandingChanged { agent, standing });
        }
    }

    fn open(&mut self, job: Arc<NewJob>, progress: Option<Progress>, panels: Vec<KeptPanel>) {
        let id = job.id;
        let mut home = Home::open_planted(job, progress, (self.now, self.config.unix_origin), self.planting);
        home.plant(self.planting);
        home.furnish(panels, self.room_bytes);
        home.distrust(&self.distrusted);
        self.out.tell_all(&LaneMessage::JobOpened { job: id, work: home.work(self.config.lane) });
        self.held_bytes += home.held_bytes();
        self.homes.insert(id, home);
        self.at_home(id, |home, judge, out| home.go_on_if_complete(judge, out));
    }

    /// Lets a home act, and looks after what follows.
    fn at_home(&mut self, job: JobId, act: impl FnOnce(&mut Home, &Judge<'_>, &mut Outbox)) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
        let (before, held_before) = (home.counts(), home.held_bytes());
        act(home, &judge, &mut self.out);
        home.look_back(&judge, &mut self.out);
        home.retry(&mut self.budget, &judge, &mut self.out);
        self.counts += home.counts() - before;
        self.held_bytes = self.held_bytes - held_before + home.held_bytes();
        self.attention.insert(job);
        if home.has_unwritten_parts() {
            self.stitching.insert(job);
        }
        if home.is_ending() {
            self.ending.insert(job);
        }
        self.make_room();
    }

    /// Homes that had no memory for shards ask again once there is.
    fn make_room(&mut self) {
        if self.held_bytes >= self.room_bytes {
            return;
        }
        for job in core::mem::take(&mut self.cramped) {
            if let Some(home) = self.homes.get_mut(&job) {
                home.room_made(&mut self.out);
            }
        }
    }

    fn hear(&mut self, from: LaneIndex, message: LaneMessage) {
        let (out, lanes) = (&mut self.out, self.config.lanes);
        match message {
            LaneMessage::JobOpened { job, work } => self.scheduler.open(job, work, out),
            LaneMessage::JobClosed { job } => self.scheduler.close(job, out),
            LaneMessage::RangeGranted { job, range } => self.scheduler.granted(job, range, out),
            LaneMessage::WorkAppeared { job } => self.scheduler.work_appeared(job),
            LaneMessage::ErrandGranted { job, errand } => self.scheduler.errand(job, errand, out),
            LaneMessage::AgentRefuted { agent } => self.refuted(agent),
            LaneMessage::Judged { judgements } => self.judged(judgements),
            LaneMessage::AgentArrived { agent, account } => {
                let standing = self.registry.arrived(agent, account);
                self.out.tell_all(&LaneMessage::StandingChanged { agent, standing });
            }
            LaneMessage::StandingChanged { agent, standing } => {
                self.scheduler.standing_changed(agent, standing, &mut self.out);
            }
            LaneMessage::AgentMoved { agent } => self.scheduler.supersede(agent, out),
            LaneMessage::RangeWanted { job, count } => {
                let (held, mut cramped) = (self.held_bytes, false);
                self.at_home(job, |home, _, out| cramped = home.wanted((from, count), held, out, lanes));
                if cramped {
                    self.cramped.insert(job);
                }
            }
            LaneMessage::ShardsReturned { job, ranges } => {
                self.at_home(job, |home, _, out| home.returned(&ranges, out));
            }
            LaneMessage::ErrandReturned { job, errand } => {
                self.at_home(job, |home, judge, out| home.errand_returned(errand, judge, out));
            }
            LaneMessage::Claimed { job, attempts, claims } => {
                self.budget.earn(attempts);
                self.at_home(job, |home, judge, out| {
                    home.attempted(attempts);
                    home.claimed(from, claims, judge, out);
                });
            }
            LaneMessage::AttemptFailed { job, agent, account, errand, cause } => {
                let setback = Setback { agent, account, cause, at: self.now };
                self.at_home(job, |home, judge, _| home.failed(errand, setback, judge));
            }
            LaneMessage::SpareWanted { job, errand } => {
                self.at_home(job, |home, judge, out| home.spare_wanted(from, errand, judge, out));
            }
            LaneMessage::ProbeWanted { job, index, agent } => self.scheduler.probe(agent, (job, index)),
            LaneMessage::SpareSettled { job, index } => self.scheduler.spare_settled(job, index),
            LaneMessage::TailBegan { job } => self.scheduler.tail_began(job),
            LaneMessage::AgentFaulted { agent, at } => self.scheduler.faulted(agent, at, self.now),
            LaneMessage::LaneStanding(strength) => self.fleet_changed(from, strength),
        }
    }

    /// Jobs whose home is here forget what the agent answered and is not final.
    fn refuted(&mut self, agent: AgentId) {
        self.scheduler.contradicted(agent);
        for job in self.homes.keys().copied().collect::<Vec<_>>() {
            self.at_home(job, |home, judge, out| home.refuted(agent, judge, out));
        }
    }

    fn judged(&mut self, judgements: Vec<Judgement>) {
        // Each lane's registry may eject its part of the fleet.
        let fleet = self.fleet.total().div_ceil(u32::from(self.config.lanes.max(1)));
        for Judgement { agent, account, proof } in judgements {
            let said = match proof {
                None => standing::Judgement::Agreed,
                Some(_) => standing::Judgement::ProvenWrong,
            };
            // One dispute can prove several wrong.
            self.proofs.extend(proof.filter(|proof| !self.proofs.contains(proof)));
            let ruling = self.registry.judge(agent, account, said, fleet, self.now);
            for change in ruling.changes {
                let (agent, standing) = (change.agent, change.to);
                self.out.tell_all(&LaneMessage::StandingChanged { agent, standing });
                self.out.push(Effect::ReportStanding { change });
                self.changes.push(change);
            }
            if let Some(alarm) = ruling.alarm {
                self.out.push(Effect::RaiseAlarm { alarm });
            }
        }
    }

    /// Jobs that wait for any agent at all show that; those with stuck checks have attention already.
    fn fleet_changed(&mut self, lane: LaneIndex, strength: Strength) {
        let before = self.fleet.total();
        self.fleet.set(lane, strength);
        let deserted = (before == 0) != (self.fleet.total() == 0);
        let concerned: Vec<JobId> = match deserted {
            true => self.homes.keys().copied().collect(),
            false => self.attention.iter().copied().collect(),
        };
        for job in concerned {
            self.at_home(job, |home, judge, out| home.fleet_changed(judge, out));
        }
    }

    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.scheduler.stop(&mut self.out);
        }
    }

    // --- the end of every step ------------------------------------------------------------------

    /// Carries messages to this lane itself until there are none, then looks at the timers.
    fn settle(&mut self) {
        self.unsettled = false;
        self.timers();
        loop {
            while let Some(message) = self.out.take_own() {
                self.hear(self.config.lane, message);
            }
            self.write_parts();
            self.write_endings();
            self.write_archive();
            self.scheduler.place(self.now, &mut self.out);
            self.scheduler.ask(&mut self.out);
            self.scheduler.report(&mut self.out);
            if !self.out.has_own() {
                break;
            }
        }
    }

    fn timers(&mut self) {
        if self.now >= self.watched.after_ms(WATCH_MS) {
            self.watched = self.now;
            self.scheduler.expire(self.now, &mut self.out);
            self.scheduler.speculate(self.now, &mut self.out);
            for job in self.attention.clone() {
                self.at_home(job, |home, judge, out| home.time_passed(judge, out));
            }
        }
        if self.stopping || self.now >= self.checkpointed.after_ms(CHECKPOINT_MS) {
            self.checkpointed = self.now;
            self.checkpoint();
        }
        if self.now >= self.published.after_ms(PUBLISH_MS) {
            self.published = self.now;
            self.publish();
        }
        if self.now >= self.agents_published.after_ms(PUBLISH_AGENTS_MS) {
            self.agents_published = self.now;
            self.scheduler.publish(&mut self.out);
        }
    }

    /// Shows what changed; homes with nothing left to show, write or watch need no attention.
    fn publish(&mut self) {
        let judge = judge(&self.verifier, &self.fleet, &self.config, self.now);
        let (homes, out) = (&mut self.homes, &mut self.out);
        self.attention.retain(|id| {
            let Some(home) = homes.get_mut(id) else { return false };
            if core::mem::take(&mut home.unseen) {
                out.push(Effect::PublishJob { view: home.view(&judge).into() });
            }
            home.is_unsaved() || home.is_watched()
        });
    }
}

fn judge<'a>(verifier: &'a Verifier, fleet: &'a Fleet, config: &Config, now: Tick) -> Judge<'a> {
    Judge { verifier, fleet, lane: config.lane, now, unix_origin: config.unix_origin }
}
