//! Many hubs on one store: they pause, die, lose the store and come back, and every job is one hub's at a time, and so
//! is the lead.
//!
//! The store here is a few maps, changed by one commit at a time; the hubs' own part is the product's
//! [`Steward`]. A job is a number that its owner counts up, from what it last knew: two owners would be seen at once. The lead
//! is to write a log, which is such a number too.

use std::cmp::Reverse;
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use tessera_hub_core::Planted;
use tessera_hub_core::ownership::{LOOK_MS, News, Order, Seen, Steward};
use tessera_protocol::id::HubId;
use tessera_protocol::unit::Tick;

use super::random::Random;

/// Faults begin no later. *Units*: simulated milliseconds, as all below.
const TROUBLE_MS: u64 = 90_000;
/// By then every job is done, however it went before.
const END_MS: u64 = 240_000;
/// How long a dead hub's jobs may be nobody's, where a healthy one is there.
const REPLACED_MS: u64 = 15_000;
/// Steps of a job.
const STEPS: u64 = 60;
/// New jobs are accepted until then.
const ACCEPTED_MS: u64 = 80_000;
/// One in so many thousand times that a hub runs it accepts a job.
const ACCEPTED_PER_MILLE: u64 = 4;
/// And so often the one that leads writes a line of the log.
const TOLD_PER_MILLE: u64 = 200;
/// Jobs that one commit takes over; the next look finds those that are left.
const ADOPTED_MAX: usize = 3;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discord {
    /// A step of a job was counted that its owner had counted otherwise.
    CountedTwice {
        /// The job.
        job: u64,
    },
    /// A hub wrote the log while another led.
    TwoLead,
    /// A hub that was never in trouble lost its jobs.
    HealthyHubFenced,
    /// Jobs of a dead hub, or the lead, were nobody's for too long.
    NotReplaced {
        /// *Units*: milliseconds.
        after_ms: u64,
    },
    /// A hub whose fence is down goes on.
    ServesOn,
    /// A job was not done in the end.
    Stuck {
        /// The job.
        job: u64,
    },
}

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// Commits that were refused since the hub's fence was down.
    pub fenced_off: u64,
    /// Jobs that changed hands.
    pub adopted: u64,
    /// Hubs that died.
    pub died: u64,
    /// Times that a hub began to lead.
    pub led: u64,
    /// Jobs that were nobody's and found a hub.
    pub orphans: u64,
    /// Jobs that were accepted while hubs came and went.
    pub accepted: u64,
    /// Hubs that came back from a pause to a fence that was down.
    pub came_back: u64,
}

/// What a hub asks of the store.
#[derive(Clone, Debug)]
enum Asked {
    Renew(u64),
    Look,
    Fence(HubId, u64),
    Adopt(HubId),
    Forget(HubId),
    /// One step of a job, from what the hub knows.
    Step(u64, u64),
    /// How far a job is, after a commit of which nobody knows how it went.
    Read(u64),
    /// The lead, where nobody has it.
    Claim,
    /// Jobs that are nobody's.
    TakeOrphans,
    /// One line of the log, from what the hub knows.
    Tell(u64),
    /// How long the log is.
    ReadLog,
    /// A new job.
    Accept(u64),
}

#[derive(Clone, Debug)]
enum Event {
    /// A hub's process runs.
    Wake(usize),
    /// A commit reaches the store.
    Arrive(usize, Asked, bool),
    /// An answer reaches a hub.
    Answer(usize, Answer),
    Pause(usize, u64),
    CutOff(usize, u64),
    Die(usize),
    Start,
}

#[derive(Clone, Debug)]
enum Answer {
    Steward(News),
    /// Jobs that are this hub's now, and how far each is.
    Taken(HubId, Option<Vec<(u64, u64)>>),
    Stepped(u64, Option<u64>),
    /// It is not there: it was never accepted.
    Refused(u64),
    /// Every hub, and which leads.
    Looked(Vec<Seen>, Option<HubId>),
    Leads,
    Orphans(Option<Vec<(u64, u64)>>),
    Told(Option<u64>),
    Nothing,
    Fenced,
}

struct Entry {
    beat: u64,
    up: bool,
}

struct Hub {
    id: HubId,
    steward: Steward,
    jobs: BTreeMap<u64, u64>,
    leads: bool,
    /// Whether it has looked for jobs that are nobody's, since it leads.
    looked_for_orphans: bool,
    /// How long the log is, as far as it knows, while it asks for nothing.
    log: Option<u64>,
    waiting: BTreeSet<u64>,
    paused_until: u64,
    cut_off_until: u64,
    dead: Option<u64>,
    /// Open jobs that it then had.
    left: usize,
    /// When its fence was taken down.
    down_at: Option<u64>,
    stopped: bool,
    troubled: bool,
    /// Renewals in a row that were lost on their way.
    unlucky: u32,
    mail: Vec<Answer>,
}

struct World {
    random: Random,
    now: u64,
    made: u64,
    due: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    entries: BTreeMap<HubId, Entry>,
    owners: BTreeMap<u64, HubId>,
    progress: BTreeMap<u64, u64>,
    leader: Option<HubId>,
    log: u64,
    /// The number of the next job.
    next: u64,
    hubs: Vec<Hub>,
    slow_store: bool,
    planted: Option<Planted>,
    together: Together,
}

/// Runs a seed, and says what went wrong first.
pub fn run(seed: u64, planted: Option<Planted>) -> Result<Together, Discord> {
    let mut world = World::new(seed, planted);
    while let Some(Reverse((at, number))) = world.due.pop() {
        if at > END_MS {
            break;
        }
        world.now = at;
        let event = world.events.remove(&number).expect("every number in the queue has its event");
        world.happen(event)?;
    }
    match world.progress.iter().find(|(_, done)| **done < STEPS) {
        Some((job, _)) => Err(Discord::Stuck { job: *job }),
        None => Ok(world.together),
    }
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> World {
        let mut random = Random::new(seed);
        let slow_store = random.chance(200);
        let mut world = World {
            random,
            now: 0,
            made: 0,
            due: BinaryHeap::new(),
            events: BTreeMap::new(),
            entries: BTreeMap::new(),
            owners: BTreeMap::new(),
            progress: BTreeMap::new(),
            leader: None,
            log: 0,
            next: 1_000,
            hubs: Vec::new(),
            slow_store,
            planted,
            together: Together::default(),
        };
        let hubs = 2 + world.random.below(3);
        (0..hubs).for_each(|_| world.start());
        for job in 0..1 + world.random.below(12) {
            world.progress.insert(job, 0);
            // A store that one hub had for itself.
            if world.random.chance(150) {
                continue;
            }
            let owner = world.random.below(hubs) as usize;
            world.owners.insert(job, world.hubs[owner].id);
            world.hubs[owner].jobs.insert(job, 0);
        }
        for hub in 0..hubs as usize {
            world.draw_trouble(hub);
        }
        world
    }

    /// One hub at least has none; hubs that start later have none either.
    fn draw_trouble(&mut self, hub: usize) {
        let at = self.random.below(TROUBLE_MS);
        let length = 500 + self.random.below(40_000);
        match self.random.below(6) {
            _ if hub == 0 => {}
            0 | 1 => self.at(at, Event::Pause(hub, length)),
            2 => self.at(at, Event::CutOff(hub, length)),
            3 | 4 => {
                self.at(at, Event::Die(hub));
                if self.random.chance(500) {
                    let later = 200 + self.random.below(20_000);
                    self.at(at + later, Event::Start);
                }
            }
            _ => {}
        }
        // An outage of the store is one of every hub's.
        if hub == 0 && self.random.chance(200) {
            for hub in 0..self.hubs.len() {
                self.at(at, Event::CutOff(hub, length));
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.made += 1;
        self.due.push(Reverse((at, self.made)));
        self.events.insert(self.made, event);
    }

    fn start(&mut self) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.random.draw().to_be_bytes());
        let id = HubId(bytes);
        let mut steward = Steward::new(id, Tick(self.now));
        steward.plant(self.planted);
        self.entries.insert(id, Entry { beat: 0, up: true });
        self.hubs.push(Hub {
            id,
            steward,
            jobs: BTreeMap::new(),
            leads: false,
            looked_for_orphans: false,
            log: None,
            waiting: BTreeSet::new(),
            paused_until: 0,
            cut_off_until: 0,
            dead: None,
            left: 0,
            down_at: None,
            stopped: false,
            troubled: false,
            unlucky: 0,
            mail: Vec::new(),
        });
        self.at(self.now, Event::Wake(self.hubs.len() - 1));
    }

    fn happen(&mut self, event: Event) -> Result<(), Discord> {
        match event {
            Event::Wake(hub) => self.wake(hub)?,
            Event::Arrive(hub, asked, heard) => {
                let answer = self.commit(hub, asked)?;
                if heard {
                    let delay = self.delay();
                    self.at(self.now + delay, Event::Answer(hub, answer));
                }
            }
            Event::Answer(hub, answer) => {
                self.hubs[hub].mail.push(answer);
                self.hear(hub)?;
            }
            Event::Pause(hub, length) => {
                self.hubs[hub].paused_until = self.now + length;
                self.hubs[hub].troubled = true;
            }
            Event::CutOff(hub, length) => {
                self.hubs[hub].cut_off_until = self.now + length;
                // What all suffer together is nobody's own trouble.
                self.hubs[hub].troubled |= hub != 0 && !self.all_cut_off();
            }
            Event::Die(hub) => {
                self.hubs[hub].dead = Some(self.now);
                self.hubs[hub].left = self.open_jobs_of(self.hubs[hub].id).count();
                self.together.died += 1;
            }
            Event::Start => self.start(),
        }
        Ok(())
    }

    fn all_cut_off(&self) -> bool {
        self.hubs.iter().all(|hub| hub.cut_off_until > self.now)
    }

    fn delay(&mut self) -> u64 {
        let most = if self.slow_store { 800 } else { 20 };
        1 + self.random.below(most)
    }

    fn runs(&self, hub: usize) -> bool {
        let hub = &self.hubs[hub];
        hub.dead.is_none() && !hub.stopped && hub.paused_until <= self.now
    }

    fn wake(&mut self, hub: usize) -> Result<(), Discord> {
        if self.hubs[hub].dead.is_some() || self.hubs[hub].stopped {
            return Ok(());
        }
        if self.runs(hub) {
            self.hear(hub)?;
            self.tell(hub, News::Time);
            self.work(hub);
            self.is_told(hub)?;
        }
        let next = self.now + 100 + self.random.below(100);
        self.at(next, Event::Wake(hub));
        self.replaced()
    }

    /// What came while it was paused is read when it goes on.
    fn hear(&mut self, hub: usize) -> Result<(), Discord> {
        if !self.runs(hub) {
            return Ok(());
        }
        for answer in std::mem::take(&mut self.hubs[hub].mail) {
            match answer {
                Answer::Steward(news) => self.tell(hub, news),
                Answer::Taken(of, None) => self.tell(hub, News::AdoptFailed(of)),
                Answer::Taken(of, Some(jobs)) => {
                    for (job, done) in jobs {
                        self.hubs[hub].jobs.entry(job).or_insert(done);
                    }
                    self.tell(hub, News::Adopted(of));
                }
                Answer::Stepped(job, Some(done)) => {
                    self.hubs[hub].waiting.remove(&job);
                    self.hubs[hub].jobs.insert(job, done);
                }
                Answer::Stepped(job, None) => self.ask(hub, Asked::Read(job)),
                Answer::Refused(job) => drop(self.hubs[hub].waiting.remove(&job)),
                Answer::Looked(seen, leader) => {
                    let me = self.hubs[hub].id;
                    if leader == Some(me) {
                        self.lead(hub);
                    } else if leader.is_none() || self.planted == Some(Planted::LeadUnasked) {
                        self.ask(hub, Asked::Claim);
                    }
                    self.tell(hub, News::Looked(seen));
                }
                Answer::Leads => self.lead(hub),
                Answer::Orphans(None) => self.hubs[hub].looked_for_orphans = false,
                Answer::Orphans(Some(jobs)) => {
                    for (job, done) in jobs {
                        self.hubs[hub].jobs.entry(job).or_insert(done);
                    }
                }
                Answer::Told(Some(length)) => self.hubs[hub].log = Some(length),
                Answer::Told(None) => self.ask(hub, Asked::ReadLog),
                Answer::Nothing => {}
                Answer::Fenced => self.tell(hub, News::FenceFound),
            }
        }
        Ok(())
    }

    fn tell(&mut self, hub: usize, news: News) {
        for order in self.hubs[hub].steward.step(Tick(self.now), news) {
            match order {
                Order::Renew { beat } => self.ask(hub, Asked::Renew(beat)),
                Order::Look => self.ask(hub, Asked::Look),
                Order::Fence { hub: other, beat } => self.ask(hub, Asked::Fence(other, beat)),
                Order::Adopt { hub: other } => self.ask(hub, Asked::Adopt(other)),
                Order::Forget { hub: other } => self.ask(hub, Asked::Forget(other)),
                Order::Stop => {
                    self.hubs[hub].stopped = true;
                    self.together.came_back += u64::from(self.hubs[hub].troubled);
                }
            }
        }
    }

    fn lead(&mut self, hub: usize) {
        if !self.hubs[hub].leads {
            self.hubs[hub].leads = true;
            self.together.led += 1;
            self.ask(hub, Asked::ReadLog);
        }
    }

    /// Steps of its jobs and of the log, each once it knows of the last, and now and then a new job.
    fn work(&mut self, hub: usize) {
        if self.hubs[hub].leads && !self.hubs[hub].looked_for_orphans {
            self.hubs[hub].looked_for_orphans = true;
            if self.planted != Some(Planted::ForgetOrphans) {
                self.ask(hub, Asked::TakeOrphans);
            }
        }
        if self.hubs[hub].log.is_some()
            && self.random.chance(TOLD_PER_MILLE)
            && let Some(length) = self.hubs[hub].log.take()
        {
            self.ask(hub, Asked::Tell(length));
        }
        if self.now < ACCEPTED_MS && self.random.chance(ACCEPTED_PER_MILLE) {
            let job = self.next;
            self.next += 1;
            self.hubs[hub].waiting.insert(job);
            self.ask(hub, Asked::Accept(job));
        }
        let free: Vec<(u64, u64)> = self.hubs[hub]
            .jobs
            .iter()
            .filter(|(job, done)| **done < STEPS && !self.hubs[hub].waiting.contains(job))
            .map(|(job, done)| (*job, *done))
            .collect();
        for (job, done) in free {
            self.hubs[hub].waiting.insert(job);
            self.ask(hub, Asked::Step(job, done));
        }
    }

    /// A commit may be lost on its way, or its answer on the way back: then the hub hears that it failed.
    fn ask(&mut self, hub: usize, asked: Asked) {
        let cut_off = self.hubs[hub].cut_off_until > self.now;
        let (delay, fate) = (self.delay(), self.random.below(100));
        let lost = cut_off || fate < 2;
        let heard = !lost && fate >= 4;
        if let Asked::Renew(_) = asked {
            let together = self.all_cut_off();
            let of = &mut self.hubs[hub];
            of.unlucky = if lost { of.unlucky + 1 } else { 0 };
            of.troubled |= of.unlucky > 1 && !together;
        }
        if !lost {
            self.at(self.now + delay, Event::Arrive(hub, asked.clone(), heard));
        }
        if !heard {
            let failed = match asked {
                Asked::Renew(_) => Answer::Steward(News::RenewFailed),
                Asked::Look => Answer::Steward(News::LookFailed),
                Asked::Fence(other, _) => Answer::Steward(News::FenceStands(other)),
                Asked::Adopt(other) => Answer::Taken(other, None),
                Asked::Forget(_) | Asked::Claim => return,
                Asked::TakeOrphans => Answer::Orphans(None),
                Asked::Tell(_) | Asked::ReadLog => Answer::Told(None),
                Asked::Step(job, _) | Asked::Read(job) | Asked::Accept(job) => Answer::Stepped(job, None),
            };
            let patience = 1_000 + self.random.below(1_000);
            self.at(self.now + patience, Event::Answer(hub, failed));
        }
    }

    /// One commit, all or nothing.
    fn commit(&mut self, hub: usize, asked: Asked) -> Result<Answer, Discord> {
        let me = self.hubs[hub].id;
        let up = self.entries.get(&me).is_some_and(|entry| entry.up);
        Ok(match asked {
            Asked::Look => Answer::Looked(self.look(), self.leader),
            Asked::Read(job) => match self.progress.get(&job) {
                Some(done) => Answer::Stepped(job, Some(*done)),
                None => Answer::Refused(job),
            },
            Asked::ReadLog => Answer::Told(Some(self.log)),
            _ if !up => {
                self.together.fenced_off += 1;
                Answer::Fenced
            }
            Asked::Renew(beat) => {
                self.entries.get_mut(&me).expect("its fence is up").beat = beat;
                Answer::Steward(News::Renewed)
            }
            Asked::Fence(other, beat) => self.fence(other, beat)?,
            Asked::Adopt(other) => Answer::Taken(other, Some(self.adopt(me, other))),
            Asked::Forget(other) => {
                if !self.has_jobs(other) && self.entries.get(&other).is_some_and(|entry| !entry.up) {
                    self.entries.remove(&other);
                }
                Answer::Steward(News::Time)
            }
            Asked::Claim => {
                if self.leader.is_none() || self.planted == Some(Planted::LeadUnasked) {
                    self.leader = Some(me);
                }
                if self.leader == Some(me) { Answer::Leads } else { Answer::Nothing }
            }
            Asked::TakeOrphans => Answer::Orphans(Some(self.take_orphans(me))),
            Asked::Tell(from) => {
                if self.leader != Some(me) || self.log != from {
                    return Err(Discord::TwoLead);
                }
                self.log += 1;
                Answer::Told(Some(self.log))
            }
            Asked::Accept(job) => {
                self.progress.insert(job, 0);
                if self.planted != Some(Planted::AcceptForNobody) {
                    self.owners.insert(job, me);
                }
                self.together.accepted += 1;
                Answer::Stepped(job, Some(0))
            }
            Asked::Step(job, from) => {
                if self.progress[&job] != from {
                    return Err(Discord::CountedTwice { job });
                }
                self.progress.insert(job, from + 1);
                Answer::Stepped(job, Some(from + 1))
            }
        })
    }

    /// Whether jobs, or the lead, are a hub's.
    fn has_jobs(&self, id: HubId) -> bool {
        self.leader == Some(id) || self.open_jobs_of(id).next().is_some()
    }

    fn open_jobs_of(&self, id: HubId) -> impl Iterator<Item = u64> {
        let open = move |(job, owner): &(&u64, &HubId)| **owner == id && self.progress[job] < STEPS;
        self.owners.iter().filter(open).map(|(job, _)| *job)
    }

    fn take_orphans(&mut self, me: HubId) -> Vec<(u64, u64)> {
        for job in self.progress.keys() {
            if let Slot::Vacant(slot) = self.owners.entry(*job) {
                slot.insert(me);
                self.together.orphans += 1;
            }
        }
        self.jobs_of(me)
    }

    fn jobs_of(&self, me: HubId) -> Vec<(u64, u64)> {
        let mine = self.owners.iter().filter(|(_, owner)| **owner == me);
        mine.map(|(job, _)| (*job, self.progress[job])).collect()
    }

    fn look(&self) -> Vec<Seen> {
        let seen = |(id, entry): (&HubId, &Entry)| Seen {
            hub: *id,
            beat: entry.beat,
            fenced: !entry.up,
            has_jobs: self.has_jobs(*id),
        };
        self.entries.iter().map(seen).collect()
    }

    fn fence(&mut self, other: HubId, beat: u64) -> Result<Answer, Discord> {
        let troubled = self.hubs.iter().any(|hub| hub.id == other && (hub.troubled || hub.dead.is_some()));
        match self.entries.get_mut(&other) {
            Some(entry) if entry.up && entry.beat == beat => {
                entry.up = false;
                self.hubs
                    .iter_mut()
                    .filter(|hub| hub.id == other)
                    .for_each(|hub| hub.down_at = Some(self.now));
                if !troubled {
                    return Err(Discord::HealthyHubFenced);
                }
                Ok(Answer::Steward(News::FenceDown(other)))
            }
            Some(entry) if entry.up => Ok(Answer::Steward(News::FenceStands(other))),
            _ => Ok(Answer::Steward(News::FenceDown(other))),
        }
    }

    fn adopt(&mut self, me: HubId, other: HubId) -> Vec<(u64, u64)> {
        let down = self.entries.get(&other).is_none_or(|entry| !entry.up);
        let theirs: Vec<u64> = self.open_jobs_of(other).take(ADOPTED_MAX).collect();
        if me != other && down && self.leader == Some(other) {
            self.leader = Some(me);
        }
        if me != other && (down || self.planted == Some(Planted::AdoptUnfenced)) {
            for job in theirs {
                self.owners.insert(job, me);
                self.together.adopted += 1;
            }
        }
        self.jobs_of(me)
    }

    /// A hub that runs, reaches the store and whose fence has long been down must have heard of it.
    fn is_told(&self, hub: usize) -> Result<(), Discord> {
        let hub = &self.hubs[hub];
        let told_by = |down_at: u64| hub.paused_until.max(hub.cut_off_until).max(down_at) + 10_000;
        match hub.down_at {
            Some(down_at) if self.now > told_by(down_at) => Err(Discord::ServesOn),
            _ => Ok(()),
        }
    }

    /// Jobs of the dead are somebody's in time, where the store answers and somebody is well.
    fn replaced(&self) -> Result<(), Discord> {
        if self.slow_store || self.hubs[0].cut_off_until > 0 {
            return Ok(());
        }
        if self.leader.is_none() && self.now > REPLACED_MS {
            return Err(Discord::NotReplaced { after_ms: self.now });
        }
        for dead in self.hubs.iter() {
            let Some(since) = dead.dead else { continue };
            let after_ms = self.now - since;
            let orphaned = self.has_jobs(dead.id);
            // A commit in a hundred is lost, and is tried again; and those of many jobs are taken over one after another.
            let looks = (dead.left / ADOPTED_MAX) as u64;
            if orphaned && after_ms > REPLACED_MS + 8_000 + 2 * LOOK_MS * looks {
                return Err(Discord::NotReplaced { after_ms });
            }
        }
        Ok(())
    }
}
