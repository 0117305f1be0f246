//! Who of many hubs on one store owns which jobs: leases, fences and the taking over of jobs.
//!
//! Each start of a hub has an entry in the store: a *beat* that it raises every [`RENEW_MS`], and a *fence* that every
//! one of its commits requires to be up. Whoever sees a beat stand still for [`LAPSE_MS`] takes that fence down, on the
//! condition that the beat is still the same: from then on nothing of the hub that fell behind can become durable,
//! however long it was paused and whatever of it is still on the way. Only then are its jobs taken over, each by a
//! commit that requires the old owner to be the owner, so that one hub gets it. Nobody's clock is compared with anybody
//! else's.
//!
//! Owns when to renew, look, fence, adopt and stop. It may not touch a store or a job: the shell carries out its
//! [`Order`]s and says what came of them. One of a kind is under way at a time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_protocol::id::HubId;
use tessera_protocol::unit::Tick;

use crate::planted::{Planted, Planting};

/// How often a hub raises its beat. *Units*: milliseconds.
pub const RENEW_MS: u64 = 3_000;
/// How long another's beat may stand still. *Units*: milliseconds.
pub const LAPSE_MS: u64 = 10_000;
/// How often a hub looks at the others. *Units*: milliseconds.
pub const LOOK_MS: u64 = 1_000;

/// A hub as its entry in the store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub hub: HubId,
    /// How often it has renewed its lease.
    pub beat: u64,
    /// Whether its fence is down.
    pub fenced: bool,
    /// Whether jobs, or the lead, are still its. *Shape*: need not be known while its fence stands.
    pub has_jobs: bool,
}

/// What the shell tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Time passed.
    Time,
    /// Every hub that has an entry, this one too.
    Looked(Vec<Seen>),
    /// The store could not be read.
    LookFailed,
    /// The beat is durable.
    Renewed,
    /// It is not, or nobody knows.
    RenewFailed,
    /// A commit of this hub's found its fence down.
    FenceFound,
    /// The fence of another is down, by whomever.
    FenceDown(HubId),
    /// It could not be taken down, or it is not known, or its beat has moved.
    FenceStands(HubId),
    /// All jobs that it could get of another, or of itself, are open here.
    Adopted(HubId),
    /// Not all are, or nobody knows.
    AdoptFailed(HubId),
}

/// What the shell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write this beat. Requires: this hub's fence is up.
    Renew {
        /// The next.
        beat: u64,
    },
    /// Read the entries of all hubs.
    Look,
    /// Take down a hub's fence. Requires: its beat is still this one.
    Fence {
        /// Whose.
        hub: HubId,
        /// Which was seen to stand still.
        beat: u64,
    },
    /// Make the jobs of a hub this one's. Requires: its fence is down, this hub's is up, each job is still its. Then
    /// open every job that is this hub's in the store and not open here.
    Adopt {
        /// Whose.
        hub: HubId,
    },
    /// Remove the entry of a hub without fence and jobs.
    Forget {
        /// Whose.
        hub: HubId,
    },
    /// Promise nothing more and end: others own what this hub owned.
    Stop,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    beat: u64,
    /// When this beat was first seen, by the steady clock.
    since: u64,
    /// Whether an order about it is under way.
    busy: bool,
}

/// One hub's part.
#[derive(Debug)]
pub struct Steward {
    me: HubId,
    beat: u64,
    renewing: bool,
    /// When the last renewal succeeded, and what the steady clock showed then.
    renewed: Tick,
    steady: u64,
    renew_at: Tick,
    looking: bool,
    look_at: Tick,
    others: BTreeMap<HubId, Watched>,
    /// Jobs may be this hub's in the store without its knowing.
    unsure: bool,
    stopped: bool,
    planting: Planting,
}

impl Steward {
    /// Of a hub whose entry with beat zero is durable since `now`.
    pub fn new(me: HubId, now: Tick) -> Steward {
        Steward {
            me,
            beat: 0,
            renewing: false,
            renewed: now,
            steady: 0,
            renew_at: now.after_ms(RENEW_MS),
            looking: false,
            look_at: now,
            others: BTreeMap::new(),
            unsure: false,
            stopped: false,
            planting: Planting::default(),
        }
    }

    /// With a bug.
    #[cfg(feature = "planted")]
    pub fn plant(&mut self, bug: Option<Planted>) {
        self.planting = Planting::new(bug);
    }

    /// When it wants to hear [`News::Time`] at the latest.
    pub fn next_timer(&self) -> Tick {
        let renew = if self.renewing { Tick(u64::MAX) } else { self.renew_at };
        let look = if self.looking { Tick(u64::MAX) } else { self.look_at };
        renew.min(look)
    }

    /// Takes in what happened.
    pub fn step(&mut self, now: Tick, news: News) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.stopped {
            return orders;
        }
        match news {
            News::Time => {}
            News::Renewed => {
                self.steady = self.steady(now);
                (self.renewing, self.renewed, self.renew_at) = (false, now, now.after_ms(RENEW_MS));
            }
            News::RenewFailed => (self.renewing, self.renew_at) = (false, now.after_ms(LOOK_MS)),
            News::Looked(hubs) => {
                (self.looking, self.look_at) = (false, now.after_ms(LOOK_MS));
                self.look(now, &hubs, &mut orders);
            }
            News::LookFailed => (self.looking, self.look_at) = (false, now.after_ms(LOOK_MS)),
            News::FenceFound => self.stop(&mut orders),
            News::FenceDown(hub) => {
                self.free(hub);
                self.look_at = now;
            }
            // If its beat has moved the next look shows it; otherwise it is as silent as before.
            News::FenceStands(hub) | News::Adopted(hub) => self.free(hub),
            News::AdoptFailed(hub) => {
                self.free(hub);
                self.unsure = !self.planting.is(Planted::ForgetFailedAdoptions);
            }
        }
        if !self.stopped {
            self.time(now, &mut orders);
        }
        orders
    }

    fn time(&mut self, now: Tick, orders: &mut Vec<Order>) {
        if !self.renewing && now >= self.renew_at {
            self.renewing = true;
            // One of which nobody knows whether it is durable counts as used.
            self.beat += 1;
            orders.push(Order::Renew { beat: self.beat });
        }
        if !self.looking && now >= self.look_at {
            self.looking = true;
            orders.push(Order::Look);
        }
    }

    /// The clock by which others are judged: it stands still once this hub's own last renewal is [`RENEW_MS`] ago.
    /// Then it is as likely the store that stood still, or this hub. *Units*: milliseconds.
    fn steady(&self, now: Tick) -> u64 {
        match self.planting.is(Planted::JudgeThroughOutages) {
            true => now.0,
            false => self.steady + now.0.saturating_sub(self.renewed.0).min(RENEW_MS),
        }
    }

    fn free(&mut self, hub: HubId) {
        if let Some(watched) = self.others.get_mut(&hub) {
            watched.busy = false;
        }
    }

    fn stop(&mut self, orders: &mut Vec<Order>) {
        if !self.planting.is(Planted::ServeBehindTheFence) {
            self.stopped = true;
            orders.push(Order::Stop);
        }
    }

    fn look(&mut self, now: Tick, hubs: &[Seen], orders: &mut Vec<Order>) {
        let me = self.me;
        let here = hubs.iter().find(|seen| seen.hub == me);
        if here.is_none_or(|seen| seen.fenced) {
            return self.stop(orders);
        }
        self.others.retain(|hub, _| *hub == me || hubs.iter().any(|seen| seen.hub == *hub));
        // It took over jobs and has not heard so.
        if self.unsure && !self.others.get(&me).is_some_and(|own| own.busy) {
            self.unsure = false;
            let own = Watched { beat: 0, since: 0, busy: false };
            self.order_about(me, own, Order::Adopt { hub: me }, orders);
        }
        let now = self.steady(now);
        for seen in hubs.iter().filter(|seen| seen.hub != me) {
            let fresh = Watched { beat: seen.beat, since: now, busy: false };
            let watched = *self
                .others
                .entry(seen.hub)
                .and_modify(|watched| {
                    if watched.beat != seen.beat {
                        (watched.beat, watched.since) = (seen.beat, now)
                    }
                })
                .or_insert(fresh);
            let lapsed = now >= watched.since + LAPSE_MS;
            let down = seen.fenced || lapsed && self.planting.is(Planted::AdoptUnfenced);
            let hub = seen.hub;
            let order = match (down, seen.has_jobs) {
                (true, true) => Order::Adopt { hub },
                (true, false) => Order::Forget { hub },
                (false, _) if lapsed => Order::Fence { hub, beat: seen.beat },
                (false, _) => continue,
            };
            self.order_about(hub, watched, order, orders);
        }
    }

    fn order_about(&mut self, hub: HubId, fresh: Watched, order: Order, orders: &mut Vec<Order>) {
        let watched = self.others.entry(hub).or_insert(fresh);
        if !watched.busy {
            // Nobody hears how the removal of an entry went: it is seen.
            watched.busy = !matches!(order, Order::Forget { .. });
            orders.push(order);
        }
    }
}
