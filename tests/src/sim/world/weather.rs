//! What goes wrong between the hub, its agents, its disk and its clock, and for how long.

use std::collections::BTreeMap;

use tessera_protocol::unit::{Tick, UnixMillis};

use super::{Due, World};
use crate::sim::checker::Violation;

/// The store's end of a link.
pub(super) const DISK: u64 = 999;
/// A session through which nothing comes for so long is over. *Units*: milliseconds.
const IDLE_MS: u64 = 12_000;
/// The longest that agents are cut off. *Units*: milliseconds.
const PARTITION_MS_MAX: u64 = 45_000;
/// The longest that something stands still. *Units*: milliseconds.
const CLOG_MS_MAX: u64 = 5_000;
/// The longest that a disk is full. *Units*: milliseconds.
const FULL_MS_MAX: u64 = 15_000;
/// How far a clock jumps at most. *Units*: milliseconds.
const JUMP_MS_MAX: u64 = 90_000;
/// How long a lost packet is missed before it is sent again, the first time. *Units*: milliseconds.
const RESEND_MS: u64 = 200;
/// Unix time as the world begins.
const UNIX_START_MS: u64 = 1_763_000_000_000;

/// The way a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    ToAgent,
    ToHub,
}

/// The hub's clocks: ticks never go back, the wall clock may.
#[derive(Debug, Default)]
pub(super) struct Clock {
    born: u64,
    /// How far the ticks of this life are ahead.
    ahead: u64,
    wall_ms: u64,
    origin: u64,
}

impl Clock {
    pub(super) fn start(&mut self, now: u64) {
        (self.born, self.ahead) = (now, 0);
        self.origin = self.wall(now).0;
    }

    pub(super) fn tick(&self, now: u64) -> Tick {
        Tick(now - self.born + self.ahead)
    }

    /// When a tick is.
    pub(super) fn moment(&self, tick: Tick) -> u64 {
        (tick.0 + self.born).saturating_sub(self.ahead)
    }

    pub(super) fn unix_origin(&self) -> UnixMillis {
        UnixMillis(self.origin)
    }

    pub(super) fn wall(&self, now: u64) -> UnixMillis {
        UnixMillis(UNIX_START_MS + now + self.wall_ms)
    }
}

/// What is out of order, and until when.
#[derive(Debug)]
pub(super) struct Weather {
    pub(super) clock: Clock,
    /// Until when nothing comes through to an agent, or from it.
    closed: BTreeMap<(usize, Way), u64>,
    stalled: Vec<u64>,
    pub(super) disk_stalled_until: u64,
    pub(super) disk_full_until: u64,
    /// The next commit fails, and nobody knows how.
    pub(super) sync_fails: bool,
    /// It has; the hub is about to stop.
    pub(super) sync_failed: bool,
}

impl Weather {
    pub(super) fn new(lanes: u16) -> Weather {
        Weather {
            clock: Clock::default(),
            closed: BTreeMap::new(),
            stalled: vec![0; usize::from(lanes)],
            disk_stalled_until: 0,
            disk_full_until: 0,
            sync_fails: false,
            sync_failed: false,
        }
    }

    /// Until when a lane does nothing.
    pub(super) fn stalled(&self, lane: u16) -> u64 {
        self.stalled[usize::from(lane)]
    }

    /// Until when nothing gets through.
    pub(super) fn closed(&self, agent: usize, way: Way) -> u64 {
        self.closed.get(&(agent, way)).copied().unwrap_or_default()
    }

    fn close(&mut self, agent: usize, way: Way, until: u64) {
        let closed = self.closed.entry((agent, way)).or_default();
        *closed = until.max(*closed);
    }
}

impl World {
    /// A moment after a link's delay, never before what the same link carried earlier.
    pub(super) fn in_order(&mut self, from: u64, to: u64) -> u64 {
        let delay = self.random.below(self.swarm.delay_ms / 10 + 2);
        let last = self.links.entry((from, to)).or_default();
        *last = (*last).max(self.now + delay);
        *last
    }

    /// The same on a stream between an agent and the hub: what is lost is sent again, and what follows waits.
    pub(super) fn on_stream(&mut self, agent: usize, way: Way, from: u64, to: u64) -> u64 {
        let at = (self.in_order(from, to) + self.resent()).max(self.weather.closed(agent, way));
        self.links.insert((from, to), at);
        at
    }

    /// On a stream of its own.
    pub(super) fn apart(&mut self, agent: usize, way: Way) -> u64 {
        (self.any_order() + self.resent()).max(self.weather.closed(agent, way))
    }

    pub(super) fn any_order(&mut self) -> u64 {
        self.now + self.random.below(self.swarm.delay_ms)
    }

    /// How much later a message comes because packets of it were lost.
    fn resent(&mut self) -> u64 {
        let (mut later, mut wait) = (0, RESEND_MS);
        while self.faulty() && self.random.chance(self.swarm.loss) && wait < IDLE_MS {
            self.note("packets sent again");
            later += wait;
            wait *= 2;
        }
        later
    }

    // --- troubles -------------------------------------------------------------------------------

    /// Once a second while there are faults.
    pub(super) fn trouble(&mut self) -> Result<(), Violation> {
        for agent in 0..self.agents.len() {
            if self.is_steady(agent) {
                continue;
            }
            if self.random.chance(self.swarm.agent_crash) {
                self.note("agent crashes");
                self.trace.fault(self.now, || format!("agent {agent} dies"));
                self.crash_agent(agent);
            } else if self.random.chance(self.swarm.freeze) && self.agents[agent].session.is_some() {
                self.note("agents stopped");
                self.trace.fault(self.now, || format!("agent {agent} is stopped"));
                self.agents[agent].frozen.get_or_insert_default();
                // Its part of the connection stands still with it.
                if let Some(session) = self.agents[agent].session {
                    self.at(self.now + IDLE_MS, Due::SessionIdle { agent, session });
                }
            }
        }
        if self.random.chance(self.swarm.partition) {
            self.partition();
        }
        if self.random.chance(self.swarm.clog) {
            self.clog();
        }
        if self.random.chance(self.swarm.full_disk) {
            let until = self.now + 1_000 + self.random.below(FULL_MS_MAX);
            self.trace.fault(self.now, || format!("the disk is full until {until} ms"));
            self.weather.disk_full_until = until;
        }
        self.weather.sync_fails |= self.random.chance(self.swarm.sync_fails);
        if self.random.chance(self.swarm.jump) {
            self.jump();
        }
        if self.random.chance(self.swarm.hub_crash) {
            self.crash_hub()?;
        }
        Ok(())
    }

    /// Some agents are cut off, in one direction or both.
    fn partition(&mut self) {
        let length = match self.random.chance(500) {
            true => self.random.below(CLOG_MS_MAX),
            false => self.random.below(PARTITION_MS_MAX),
        };
        // Nothing heals later than the faults end.
        let until = (self.now + length).min(self.swarm.faults_ms);
        let ways: &[Way] =
            [&[Way::ToAgent, Way::ToHub][..], &[Way::ToAgent], &[Way::ToHub]][self.random.below(3) as usize];
        let group = self.random.draw();
        let cut: Vec<usize> = (0..self.agents.len()).filter(|agent| group >> agent & 1 == 1).collect();
        self.note("partitions");
        self.trace.fault(self.now, || format!("agents {cut:?} are cut off {ways:?} until {until} ms"));
        for agent in cut {
            ways.iter().for_each(|way| self.weather.close(agent, *way, until));
            if let Some(session) = self.agents[agent].session {
                self.at(self.now + IDLE_MS, Due::SessionIdle { agent, session });
            }
        }
    }

    pub(super) fn session_idle(&mut self, agent: usize, session: u64) {
        let mute = [Way::ToAgent, Way::ToHub].iter().any(|way| self.weather.closed(agent, *way) > self.now);
        let still = mute || self.agents[agent].frozen.is_some();
        if self.agents[agent].session == Some(session) && still {
            self.note("sessions that fell idle");
            self.hang_up(agent);
            let at = self.any_order();
            self.lose_session(at, agent);
        }
    }

    /// Something stands still for some seconds.
    fn clog(&mut self) {
        let until = self.now + self.random.below(CLOG_MS_MAX);
        self.note("clogs");
        let what = self.random.below(3);
        let which = self.random.draw();
        match what {
            0 => {
                let agent = (which % self.agents.len() as u64) as usize;
                self.trace.fault(self.now, || format!("agent {agent}'s link is clogged until {until} ms"));
                self.weather.close(agent, Way::ToAgent, until);
                self.weather.close(agent, Way::ToHub, until);
            }
            1 => {
                let lane = (which % u64::from(self.swarm.lanes)) as usize;
                self.trace.fault(self.now, || format!("lane {lane} stands still until {until} ms"));
                // One that stands still already does not move before its time: what it hears stays in order.
                let stalled = &mut self.weather.stalled[lane];
                *stalled = until.max(*stalled);
            }
            _ => {
                self.trace.fault(self.now, || format!("the disk stands still until {until} ms"));
                self.weather.disk_stalled_until = until.max(self.weather.disk_stalled_until);
            }
        }
    }

    /// The machine slept, or somebody set its clock.
    fn jump(&mut self) {
        let by = self.random.below(JUMP_MS_MAX);
        self.note("clock jumps");
        if self.random.chance(500) {
            self.trace.fault(self.now, || format!("the hub's ticks jump by {by} ms"));
            self.weather.clock.ahead += by;
            (0..self.swarm.lanes).for_each(|lane| self.arm(lane));
        } else {
            self.trace.fault(self.now, || format!("the wall clock is {by} ms ahead from here on"));
            self.weather.clock.wall_ms = by;
        }
    }

    /// Faults are over: whatever is cut off, full or stopped is so no longer.
    pub(super) fn heal(&mut self) {
        self.trace.check(self.now, || "nothing wrong so far; from here on there are no faults".to_owned());
        self.weather.disk_full_until = 0;
        if self.weather.sync_fails {
            self.weather.sync_fails = false;
        }
    }
}
