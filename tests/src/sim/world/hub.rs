//! The hub's side of the world: its lives, its steps, and what becomes of its effects.

use std::sync::Arc;

use tessera_agent_core::Event as AgentEvent;
use tessera_hub_core::lane::{Config, Lane};
use tessera_hub_core::{Answer, Effect, Event, LaneMessage, home_lane};
use tessera_protocol::id::Digest;
use tessera_protocol::unit::LaneIndex;

use super::{Due, Place, World};
use crate::sim::checker::{self, Violation};
use crate::sim::workload;

impl World {
    pub(super) fn start_hub(&mut self) {
        self.weather.clock.start(self.now);
        self.lanes = (0..self.swarm.lanes)
            .map(|lane| {
                let mut made = Lane::new(Config {
                    lane: LaneIndex(lane),
                    lanes: self.swarm.lanes,
                    sampling_key: [7; 32],
                    unix_origin: self.weather.clock.unix_origin(),
                });
                made.plant(self.settings.planted);
                made
            })
            .collect();
        self.armed.fill(u64::MAX);
        self.links.clear();
        self.resting.clear();
        self.killed = 0;
        let mut panels = self.panels();
        let open: Vec<Event> = self
            .store
            .jobs
            .values()
            .filter(|stored| stored.end.is_none())
            .map(|stored| Event::JobRecovered {
                job: stored.job.clone(),
                progress: stored.recovered().map(Box::new),
                panels: panels.remove(&stored.job.id).unwrap_or_default(),
            })
            .collect();
        let standings: Arc<[_]> = self.store.standings.values().copied().collect();
        for lane in 0..self.swarm.lanes {
            let event = Event::StandingsRecovered { agents: standings.clone() };
            let (life, now) = (self.life, self.now);
            self.at(now, Due::Hub { life, lane, event: event.into() });
        }
        for event in open {
            let Event::JobRecovered { job, .. } = &event else {
                continue;
            };
            let lane = home_lane(job.id, self.swarm.lanes).0;
            let (life, now) = (self.life, self.now);
            self.at(now, Due::Hub { life, lane, event: event.into() });
        }
    }

    /// The process dies and another one starts from what is on disk.
    pub(super) fn crash_hub(&mut self) -> Result<(), Violation> {
        self.note("hub crashes");
        self.trace.fault(self.now, || "the hub dies".to_owned());
        self.settle_disk()?;
        self.life += 1;
        self.keeper.die();
        self.start_hub();
        for agent in 0..self.agents.len() {
            if self.agents[agent].session.is_some() {
                let at = self.any_order();
                self.lose_session(at, agent);
            }
        }
        Ok(())
    }

    pub(super) fn timer(&mut self, lane: u16) -> Result<(), Violation> {
        self.armed[usize::from(lane)] = u64::MAX;
        let wanted = self.lanes[usize::from(lane)].next_timer();
        match wanted {
            Some(at) if at <= self.weather.clock.tick(self.now) => self.step(lane, Event::TimePassed),
            Some(_) | None => {
                self.arm(lane);
                Ok(())
            }
        }
    }

    /// Looks at a lane again when it wants to.
    pub(super) fn arm(&mut self, lane: u16) {
        let Some(tick) = self.lanes[usize::from(lane)].next_timer() else { return };
        let at = self.weather.clock.moment(tick).max(self.now + 1).max(self.weather.stalled(lane));
        if at < self.armed[usize::from(lane)] {
            self.armed[usize::from(lane)] = at;
            self.at(at, Due::Timer { life: self.life, lane });
        }
    }

    pub(super) fn step(&mut self, lane: u16, event: Event) -> Result<(), Violation> {
        self.report.steps += 1;
        self.trace.lane(self.now, lane, &event);
        self.model.event(&event);
        let tick = self.weather.clock.tick(self.now);
        let machine = &mut self.lanes[usize::from(lane)];
        let effects: Vec<Effect> = machine.step(tick, event).collect();
        machine.invariants();
        self.arm(lane);
        effects.into_iter().try_for_each(|effect| self.carry_out(lane, effect))
    }

    /// Something that a lane hears from outside.
    pub(super) fn reach_lane(&mut self, at: u64, lane: u16, event: Event) {
        let (life, at) = (self.life, at.max(self.weather.stalled(lane)));
        self.at(at, Due::Hub { life, lane, event: event.into() });
    }

    fn carry_out(&mut self, lane: u16, effect: Effect) -> Result<(), Violation> {
        self.trace.effect(self.now, lane, &effect);
        let life = self.life;
        match effect {
            Effect::Persist { batch, record } => {
                let at = self.written_at(lane);
                self.at(at, Due::Commit { life, lane, batch, record: Box::new(record) });
            }
            Effect::Answer { request, answer } => {
                if let Answer::Accepted(view) | Answer::Cancelled(view) = &answer {
                    self.model.shown(view)?;
                }
                self.answered(request, answer)?;
            }
            Effect::TellLane { lane: to, message } => self.tell(lane, to.0, message),
            Effect::Welcome { session, welcome } => {
                self.tell_agent(session, AgentEvent::Welcomed(welcome));
            }
            Effect::SendJob { session, job, kernel, task, ordered } => {
                self.announce(session, job, &kernel, &task, ordered);
            }
            Effect::SendPass { session, job, pass } => {
                self.tell_agent(session, AgentEvent::PassSet { job, pass: pass.to_vec() });
            }
            Effect::SendInput { session, job, input, blake3, offset } => {
                let piece = match self.store.products.get(&blake3) {
                    Some(product) => workload::cut(product.to_vec(), offset),
                    None => workload::piece(&self.store.jobs[&job].job, blake3, offset),
                };
                self.tell_agent_apart(session, AgentEvent::PieceArrived { job, input, offset, piece });
            }
            Effect::Assemble { job, task } => {
                checker::whole(&self.store, job, &task)?;
                let at = self.any_order() + self.random.below(self.swarm.disk_ms);
                self.at(at, Due::Assembled { life, lane, job, task });
            }
            Effect::KeepPanel { job, task, plan, tile, panel, bytes, paid } => {
                let place = Place { job, task, plan, tile };
                let at = self.any_order() + self.random.below(self.swarm.disk_ms);
                self.at(at, Due::Keep { life, lane, place, panel, bytes, paid });
            }
            Effect::PersistTile { batch, job, task, plan, tile, earned } => {
                let place = Place { job, task, plan, tile };
                let at = self.written_at(lane);
                self.at(at, Due::Finish { life, lane, batch, place, earned });
            }
            Effect::ForgetPanels { job } => self.keeper.forget(job),
            Effect::StoreProduct { job, index, blake3, bytes } => {
                assert_eq!(Digest::of(&bytes), blake3, "a product has another digest");
                let at = self.any_order() + self.random.below(self.swarm.disk_ms);
                self.at(at, Due::Product { life, lane, job, index, bytes });
            }
            Effect::Assign { session, job, items } => {
                items.iter().for_each(|assignment| self.given(session, job, assignment.first));
                self.given_there(session, job)?;
                if !self.is_sloppy(self.agent_of(session.0)) {
                    self.tell_agent(session, AgentEvent::ShardsAssigned { job, items });
                }
            }
            Effect::Forget { session, job } => self.tell_agent(session, AgentEvent::JobForgotten { job }),
            Effect::TellDraining { session } => self.tell_agent(session, AgentEvent::HubDrained),
            Effect::CloseSession { session, .. } => {
                if let Some(agent) = self.agent_of(session.0) {
                    let at = self.any_order();
                    self.lose_session(at, agent);
                }
            }
            Effect::PublishJob { view } => {
                checker::shown(&self.store, &view)?;
                self.model.shown(&view)?;
            }
            Effect::ReportStanding { change } => {
                self.note("standings that changed");
                self.trace.check(self.now, || format!("{change:?}"));
            }
            Effect::RaiseAlarm { .. } => self.note("alarms"),
            Effect::PublishAgent { view } => self.rests(view.id, view.rest.map(|rest| rest.until_ms.0)),
            Effect::PublishAgentAway { agent } => self.rests(agent, None),
        }
        Ok(())
    }

    fn tell(&mut self, from: u16, to: u16, message: LaneMessage) {
        let at = self.in_order(u64::from(from), u64::from(to));
        self.reach_lane(at, to, Event::LaneSpoke { from: LaneIndex(from), message });
    }
}
