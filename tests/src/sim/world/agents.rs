//! The agents' side of the world: their processes, their links, and what becomes of their effects.

use tessera_agent_core::{Closing, Effect as AgentEffect, Event as AgentEvent, Random as AgentRandom};
use tessera_hub_core::event::Sent;
use tessera_hub_core::{Event, SessionId, ShardAnswer};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::unit::{Epoch, ShardIndex, Tick};
use tessera_protocol::wire::{AgentControl, AgentWork, BulkHeader, Partial, ShardResult};

use super::weather::Way;
use super::{Due, World};
use crate::sim::agent::Computed;

/// The hub's ends of an agent's streams.
const CONTROL: u64 = 2_000;
const WORK: u64 = 2_001;
/// An attempt to connect that takes longer is given up. *Units*: milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;

impl World {
    pub(super) fn agent_of(&self, session: u64) -> Option<usize> {
        self.agents.iter().position(|agent| agent.session == Some(session))
    }

    pub(super) fn reach_agent(&mut self, at: u64, agent: usize, session: Option<u64>, event: AgentEvent) {
        let life = self.agents[agent].life;
        self.at(at, Due::Agent { agent, life, session, event: Box::new(event) });
    }

    /// Over the session's ordered streams.
    pub(super) fn tell_agent(&mut self, session: SessionId, event: AgentEvent) {
        if let Some(agent) = self.agent_of(session.0) {
            let at = self.on_stream(agent, Way::ToAgent, CONTROL, session.0 + 10_000);
            self.reach_agent(at, agent, Some(session.0), event);
        }
    }

    /// Tells an agent of a job, whose task may travel on a stream of its own.
    pub(super) fn announce(
        &mut self,
        session: SessionId,
        job: JobId,
        kernel: &str,
        task: &[u8],
        ordered: bool,
    ) {
        let (kernel, bulk) = (kernel.to_owned(), !ordered && self.random.chance(300));
        let inline = (!bulk).then(|| task.to_vec());
        self.tell_agent(session, AgentEvent::JobAnnounced { job, kernel, task: inline });
        if bulk {
            self.tell_agent_apart(session, AgentEvent::TaskArrived { job, task: task.to_vec() });
        }
    }

    /// Over a stream of its own. The agent reads nothing before its welcome, which went ahead of this.
    pub(super) fn tell_agent_apart(&mut self, session: SessionId, event: AgentEvent) {
        if let Some(agent) = self.agent_of(session.0) {
            let welcomed = self.on_stream(agent, Way::ToAgent, CONTROL, session.0 + 10_000);
            let at = self.apart(agent, Way::ToAgent).max(welcomed);
            self.reach_agent(at, agent, Some(session.0), event);
        }
    }

    pub(super) fn reach_hub(&mut self, at: u64, agent: usize, event: Event) {
        self.reach_lane(at, self.agents[agent].lane, event);
    }

    /// The agent hears of the end of its session; what was under way on it never arrives.
    pub(super) fn lose_session(&mut self, at: u64, agent: usize) {
        let random = AgentRandom(self.random.draw());
        self.agents[agent].session = None;
        self.thaw(agent);
        self.reach_agent(at, agent, None, AgentEvent::SessionLost { random });
    }

    /// A stopped process runs again: first it takes in what had reached it.
    pub(super) fn thaw(&mut self, agent: usize) {
        let Some(held) = self.agents[agent].frozen.take() else { return };
        held.into_iter().for_each(|event| self.step_agent(agent, event));
        self.arm_agent(agent);
    }

    pub(super) fn step_agent(&mut self, agent: usize, event: AgentEvent) {
        if let Some(held) = &mut self.agents[agent].frozen {
            return held.push(event);
        }
        self.trace.agent(self.now, agent, &event);
        let who = &mut self.agents[agent];
        let effects: Vec<AgentEffect> = who.machine.step(Tick(self.now), event).collect();
        who.machine.invariants();
        self.arm_agent(agent);
        effects.into_iter().for_each(|effect| self.do_for_agent(agent, effect));
    }

    /// Looks at an agent again when it wants to.
    fn arm_agent(&mut self, agent: usize) {
        let who = &mut self.agents[agent];
        let Some(at) = who.machine.next_timer().map(|at| at.0.max(self.now + 1)) else { return };
        if at < who.armed {
            who.armed = at;
            let life = who.life;
            self.at(at, Due::AgentTimer { agent, life });
        }
    }

    pub(super) fn agent_timer(&mut self, agent: usize, life: u64) {
        let who = &mut self.agents[agent];
        if who.life != life {
            return;
        }
        who.armed = u64::MAX;
        let due = who.machine.next_timer().is_some_and(|at| at.0 <= self.now);
        match who.frozen {
            None if due => self.step_agent(agent, AgentEvent::TimePassed),
            None => self.arm_agent(agent),
            // It is looked at again once it runs.
            Some(_) => {}
        }
    }

    pub(super) fn do_for_agent(&mut self, agent: usize, effect: AgentEffect) {
        match effect {
            AgentEffect::Connect { .. } => {
                self.sessions += 1;
                let lane = self.random.below(u64::from(self.swarm.lanes)) as u16;
                (self.agents[agent].session, self.agents[agent].lane) = (Some(self.sessions), lane);
                let session = Some(self.sessions);
                let at = self.apart(agent, Way::ToAgent).max(self.weather.closed(agent, Way::ToHub));
                if at > self.now + CONNECT_MS_MAX {
                    let (at, random) = (self.now + CONNECT_MS_MAX, AgentRandom(self.random.draw()));
                    return self.reach_agent(at, agent, session, AgentEvent::ConnectFailed { random });
                }
                self.reach_agent(at, agent, session, AgentEvent::HubReached);
            }
            AgentEffect::SendControl(message) => self.control(agent, message),
            AgentEffect::SendWork(work) => self.answer(agent, work),
            AgentEffect::SendBulk { header: BulkHeader::Partial { job, index, epoch }, payload } => {
                let (job, index, epoch) = (JobId(job), ShardIndex(index), Epoch(epoch));
                let event =
                    |session| Event::PartialArrived { session, job, index, epoch, partial: payload.into() };
                if !self.is_sloppy(Some(agent)) {
                    self.send(agent, None, event);
                }
            }
            AgentEffect::SendBulk { header: BulkHeader::Task { .. } | BulkHeader::Input { .. }, .. } => {
                panic!("agents send partials");
            }
            AgentEffect::StorePiece { fetch, input, offset, piece } => {
                self.agents[agent].store(input, offset, &piece);
                self.note("pieces of inputs");
                let at = self.now + self.random.below(self.swarm.disk_ms);
                self.reach_agent(at, agent, None, AgentEvent::PieceStored { fetch });
            }
            AgentEffect::DropInput { input } => self.agents[agent].drop_input(input),
            AgentEffect::StartShard { slot, work } => {
                let at = self.now + self.agents[agent].pace_ms;
                let done = match self.troubled(agent, &work) {
                    None => self.agents[agent].compute(&work, &mut self.answers),
                    Some(Some(outcome)) => Computed::Ends(outcome),
                    Some(None) => return,
                };
                match done {
                    Computed::Ends(outcome) => {
                        self.reach_agent(at, agent, None, AgentEvent::ShardEnded { slot, outcome });
                    }
                    Computed::Stalls(outcome) => {
                        self.note("shards that stalled");
                        let at = at.max(self.swarm.faults_ms);
                        self.reach_agent(at, agent, None, AgentEvent::ShardEnded { slot, outcome });
                    }
                    Computed::Crashes => {
                        self.note("agents that a shard crashed");
                        let life = self.agents[agent].life;
                        self.at(at, Due::AgentDies { agent, life });
                    }
                }
            }
            AgentEffect::CloseSession { reason } => {
                assert!(!matches!(reason, Closing::Violated(_)), "the hub broke the protocol: {reason}");
                self.hang_up(agent);
                let now = self.now;
                self.lose_session(now, agent);
            }
            // A cancelled shard still ends when its time has come.
            AgentEffect::CancelShard { .. }
            | AgentEffect::DropJob { .. }
            | AgentEffect::AnnounceUnusable { .. }
            | AgentEffect::RememberHub
            | AgentEffect::RememberHubs { .. }
            | AgentEffect::AnnounceRetry { .. } => {}
            AgentEffect::Exit { reason } => panic!("nobody asked the agent to end: {reason:?}"),
        }
    }

    fn answer(&mut self, agent: usize, work: AgentWork) {
        match work {
            AgentWork::Results { job, items } => {
                let answer = |item: ShardResult| ShardAnswer {
                    index: ShardIndex(item.index),
                    epoch: Epoch(item.epoch),
                    partial: match item.partial {
                        Partial::Here(partial) => Sent::Here(partial.into()),
                        Partial::Elsewhere(digest) => Sent::Elsewhere(Digest(*digest)),
                    },
                };
                let answers = items.into_iter().map(answer).collect();
                if !self.is_sloppy(Some(agent)) {
                    let event = |session| Event::ResultsArrived { session, job: JobId(job), answers };
                    self.send(agent, Some(WORK), event);
                }
            }
            AgentWork::Failed { job, index, epoch, failure } => {
                let (job, index, epoch) = (JobId(job), ShardIndex(index), Epoch(epoch));
                if !self.is_sloppy(Some(agent)) {
                    let event = |session| Event::ShardFailed { session, job, index, epoch, failure };
                    self.send(agent, Some(WORK), event);
                }
            }
            // Of a fetch nothing is lost but with its session: the agent asks once.
            AgentWork::Fetch { job, input, offset } => {
                let Some(session) = self.agents[agent].session else { return };
                let at = self.on_stream(agent, Way::ToHub, session + 10_000, WORK);
                let (session, job) = (SessionId(session), JobId(job));
                self.reach_hub(at, agent, Event::InputWanted { session, job, input, offset });
            }
        }
    }

    pub(super) fn control(&mut self, agent: usize, message: AgentControl) {
        let Some(session) = self.agents[agent].session.map(SessionId) else { return };
        match message {
            AgentControl::Hello(_) => {
                let (id, hello) = (self.agents[agent].id, Box::new(self.agents[agent].hello()));
                let at = self.on_stream(agent, Way::ToHub, session.0 + 10_000, CONTROL);
                let account = self.agents[agent].account;
                self.reach_hub(at, agent, Event::AgentAdmitted { session, agent: id, account, hello });
            }
            AgentControl::Heartbeat { .. } if self.faulty() && self.agents[agent].is_mute() => {}
            AgentControl::Heartbeat { holding } => {
                self.send(agent, Some(CONTROL), |session| Event::HeartbeatArrived { session, holding });
            }
            AgentControl::Devices(_) => panic!("no toy kernel runs on a GPU"),
            AgentControl::Leaving => {
                self.send(agent, Some(CONTROL), |session| Event::AgentLeaving { session });
            }
        }
    }

    /// Whether an agent loses a message: not on its link, which carries all or ends, but by its own fault.
    pub(super) fn is_sloppy(&mut self, agent: Option<usize>) -> bool {
        let sloppy = agent.is_some() && self.faulty() && self.random.chance(self.swarm.sloppy);
        if sloppy {
            self.note("messages that agents lost");
        }
        sloppy
    }

    /// To the hub, on one of its ordered streams or on one of its own; now and then twice.
    fn send(&mut self, agent: usize, stream: Option<u64>, event: impl FnOnce(SessionId) -> Event) {
        let Some(session) = self.agents[agent].session else { return };
        let event = event(SessionId(session));
        if self.random.chance(self.swarm.duplicate) {
            self.note("messages sent twice");
            let at = self.apart(agent, Way::ToHub);
            self.reach_hub(at, agent, event.clone());
        }
        let at = match stream {
            Some(stream) => self.on_stream(agent, Way::ToHub, session + 10_000, stream),
            None => self.apart(agent, Way::ToHub),
        };
        self.reach_hub(at, agent, event);
    }

    /// The hub hears of the end of a session.
    pub(super) fn hang_up(&mut self, agent: usize) {
        if let Some(session) = self.agents[agent].session {
            let known = self.links.get(&(session + 10_000, CONTROL)).copied().unwrap_or_default();
            let at = self.any_order().max(known);
            self.reach_hub(at, agent, Event::SessionClosed { session: SessionId(session) });
        }
    }

    pub(super) fn agent_dies(&mut self, agent: usize, life: u64) {
        if self.agents[agent].life == life {
            self.crash_agent(agent);
        }
    }

    pub(super) fn crash_agent(&mut self, agent: usize) {
        self.hang_up(agent);
        self.agents[agent].restart();
        let at = self.now + self.random.below(5_000);
        self.reach_agent(at, agent, None, AgentEvent::Started);
    }
}
