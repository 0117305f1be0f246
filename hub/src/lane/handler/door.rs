//! Agents at a lane's door: heard, looked up, enrolled, admitted or sent away.
//!
//! Owns what happens between an open session and the machine. What frames and records mean is said by
//! [`agents`](super::super::agents).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tessera_hub_core::{Event, SessionId as Session};
use tessera_protocol::audit::Act;
use tessera_protocol::id::AgentId;
use tessera_protocol::unit::LaneIndex;
use tessera_protocol::wire::{Hello, HubControl, Refusal};
use tessera_storage::{Batch, Commit};

use super::super::agents::{self, Found, Heard, Standing};
use super::super::known;
use super::{Handler, Input, tell_standing};
use crate::audit::Deed;
use crate::journal::Verdict;
use crate::quic::{CloseCode, SessionId, Sessions};
use crate::records::{self, Owner};

/// How long a refused agent may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many refusals of agents a lane reports to the audit log within [`REFUSALS_WINDOW`].
const REFUSALS_TOLD_MAX: u32 = 10;
/// The time in which refusals are counted.
const REFUSALS_WINDOW: Duration = Duration::from_secs(60);

impl Handler {
    pub(super) fn heard(&mut self, now: Instant, session: Session, heard: Heard, io: &mut Sessions) {
        match heard {
            Heard::Event(event) => self.step(now, event, io),
            Heard::Hello(agent) => {
                let me = self.me.clone();
                let token = match self.standings.get(&session) {
                    Some(Standing::Judged { hello, .. }) => hello.token,
                    _ => None,
                };
                self.write(
                    move || agents::look_up(agent, token.as_ref()).into(),
                    move |verdict| {
                        me.push(Input::Known { session: session.0, verdict });
                    },
                );
            }
            Heard::Refused(reason) => self.refuse(now, session, reason),
            Heard::Broken(breach) => {
                tracing::warn!(session = session.0, %breach, "an agent broke the protocol");
                io.close(SessionId::from_bits(session.0), CloseCode::PROTOCOL, &breach.to_string());
            }
        }
    }

    pub(super) fn refuse(&mut self, now: Instant, session: Session, reason: Refusal) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(session = session.0, %reason, "an agent was turned away");
        if let Some(Standing::Judged { agent, .. }) = self.standings.remove(&session) {
            // What it tells is the log's: nobody waits for it. A store that fails is not told that it fails.
            let act = Act::AgentRefused { agent, reason: reason.to_string() };
            if !reason.is_passing() && self.may_tell_of_refusal(now) {
                self.write(move || Deed { batch: Batch::new(), acts: vec![act] }, drop);
            }
        }
        self.farewell(now, session, reason);
    }

    /// Tells an agent that and why it may not work here.
    pub(super) fn farewell(&mut self, now: Instant, session: Session, reason: Refusal) {
        self.frames.control(session, &HubControl::Refused { reason });
        // A close now would overtake the frame. The agent closes when it has read it.
        self.refused.push_back((now + FAREWELL, session, reason));
    }

    /// Whether the audit log is to tell of one more refusal: strangers are refused too, and must not fill the disk.
    fn may_tell_of_refusal(&mut self, now: Instant) -> bool {
        let (since, told) = &mut self.refusals_told;
        if now.saturating_duration_since(*since) >= REFUSALS_WINDOW {
            (*since, *told) = (now, 0);
        }
        *told += 1;
        *told <= REFUSALS_TOLD_MAX
    }

    /// Closes the sessions of refused agents that did not do so themselves.
    pub(super) fn close_refused(&mut self, now: Instant, io: &mut Sessions) {
        while let Some((due, session, reason)) = self.refused.front()
            && *due <= now
        {
            io.close(SessionId::from_bits(session.0), CloseCode::REFUSED, &reason.to_string());
            self.refused.pop_front();
        }
    }

    /// The store knows the agent, or its token must be spent.
    pub(super) fn known(&mut self, now: Instant, session: Session, verdict: &Verdict, io: &mut Sessions) {
        let Some(Standing::Judged { agent, key, hello, owner }) = self.standings.get_mut(&session) else {
            return;
        };
        match (agents::found(verdict, *agent, hello.token.as_ref()), hello.token) {
            (Found::Refused(reason), _) => self.refuse(now, session, reason),
            (Found::Enrolled(found), _) => {
                *owner = Some(found);
                let agent = *agent;
                match self.hub {
                    None => self.admit(now, session, io),
                    Some(_) => self.read_standing(session, agent),
                }
            }
            (Found::Token(_), None) => self.refuse(now, session, Refusal::TokenMissing),
            (Found::Token(found), Some(secret)) => {
                let deed = agents::enrol(*agent, *key, hello, (&secret, &found));
                *owner = Some(found);
                let me = self.me.clone();
                self.write(
                    move || deed,
                    move |verdict| me.push(Input::Enrolled { session: session.0, verdict }),
                );
            }
        }
    }

    /// Asks the store how far other hubs trust an agent, behind all that this hub has given it to write.
    fn read_standing(&mut self, session: Session, agent: AgentId) {
        let (me, peers, known) = (self.me.clone(), self.peers.clone(), self.known.clone());
        self.write(
            move || known::look_up(agent).into(),
            move |verdict| {
                let found = match &verdict {
                    Verdict::Judged(Commit::Done) => Some(None),
                    Verdict::Judged(Commit::Conflict { found, .. }) => Some(found.as_deref()),
                    Verdict::Failed(_) => None,
                };
                if let Some(found) = found {
                    known.found(agent, found);
                    let record = found.and_then(|found| records::decode_standing(found).ok());
                    record.into_iter().for_each(|record| tell_standing(&peers, record));
                }
                let known = found.is_some();
                me.push(Input::StandingTold { session: session.0, known });
            },
        );
    }

    pub(super) fn enrolled(&mut self, now: Instant, session: Session, verdict: &Verdict, io: &mut Sessions) {
        let Some(Standing::Judged { agent, .. }) = self.standings.get(&session) else { return };
        match agents::refusal(verdict, *agent) {
            Some(reason) => self.refuse(now, session, reason),
            None => {
                tracing::info!(%agent, "agent enrolled");
                self.admit(now, session, io);
            }
        }
    }

    pub(super) fn admit(&mut self, now: Instant, session: Session, io: &mut Sessions) {
        if io.accept(SessionId::from_bits(session.0)).is_err() {
            return;
        }
        if let Some(Standing::Judged { agent, hello, owner: Some(owner), .. }) =
            self.standings.insert(session, Standing::Working)
        {
            log_admission(agent, &hello, &owner, self.lane);
            let account = owner.account();
            self.providers.insert(account.provider.to_string(), owner.name().to_owned());
            self.step(now, Event::AgentAdmitted { session, agent, account, hello }, io);
        }
    }
}

fn log_admission(agent: AgentId, hello: &Hello, owner: &Owner, lane: LaneIndex) {
    tracing::info!(%agent, provider = %owner.name(), name = %hello.name, slots = hello.slots, isa = %hello.isa, lane = lane.0, "agent connected");
}
