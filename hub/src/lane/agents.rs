//! Agents at the door: from an open session to one the machine knows, and frames read as events.

use std::collections::BTreeMap;

use bytes::Bytes;
use tessera_hub_core::event::Sent;
use tessera_hub_core::{Event, SessionId as Session, ShardAnswer};
use tessera_protocol::audit::Act;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::spec::{Region, Workload};
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::{
    self, AgentControl, AgentWork, AgentWorkRef, BulkHeader, FrameError, Gpu, Hello, Message, PartialRef,
    Refusal, ShardResultRef,
};
use tessera_protocol::{limits, wire::Held};
use tessera_storage::{Batch, Commit, Key};

use crate::audit::Deed;
use crate::journal::Verdict;
use crate::records::{self, Owner};

/// Where a session stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// Its key is proven; nothing was said yet.
    Opened { key: [u8; 32] },
    /// Its hello is being judged by the store.
    Judged {
        agent: AgentId,
        key: [u8; 32],
        hello: Box<Hello>,
        /// Whose it is, once the store has said so.
        owner: Option<Owner>,
    },
    /// The machine knows it.
    Working,
}

/// What a frame of an agent comes to.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every frame is an event and is stepped at once: a box would cost more"
)]
pub(super) enum Heard {
    /// An event for the machine.
    Event(Event),
    /// A hello to be judged.
    Hello(AgentId),
    /// The agent may not work here.
    Refused(Refusal),
    /// The agent breaks the protocol.
    Broken(Breach),
}

/// How an agent broke the protocol.
#[derive(Clone, Copy, Debug)]
pub(super) enum Breach {
    Frame(FrameError),
    HelloTwice,
    HelloMissing,
    Devices,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Breach::Frame(error) => write!(f, "{error}"),
            Breach::HelloTwice => f.write_str("a second hello in one session"),
            Breach::Devices => f.write_str("a GPU with too long a name or driver"),
            Breach::HelloMissing => f.write_str("a frame before the hello was accepted"),
        }
    }
}

/// The sessions of a lane.
pub(super) type Standings = BTreeMap<Session, Standing>;

pub(super) fn control(standings: &mut Standings, session: Session, frame: &Bytes) -> Heard {
    let message = match AgentControl::read(frame) {
        Ok(message) => message,
        Err(error) => return Heard::Broken(Breach::Frame(error)),
    };
    match (message, standings.get_mut(&session)) {
        (AgentControl::Hello(hello), Some(standing @ Standing::Opened { .. })) => {
            let Standing::Opened { key } = *standing else { return Heard::Broken(Breach::HelloTwice) };
            if !is_valid(&hello) {
                return Heard::Refused(Refusal::HelloInvalid);
            }
            let agent = AgentId::of_key(&key);
            *standing = Standing::Judged { agent, key, hello: Box::new(hello), owner: None };
            Heard::Hello(agent)
        }
        (AgentControl::Hello(_), _) => Heard::Broken(Breach::HelloTwice),
        (AgentControl::Heartbeat { holding }, Some(Standing::Working)) => {
            Heard::Event(heartbeat(session, holding))
        }
        (AgentControl::Leaving, Some(Standing::Working)) => Heard::Event(Event::AgentLeaving { session }),
        (AgentControl::Devices(gpus), Some(Standing::Working)) => match gpus.iter().all(is_device) {
            true => Heard::Event(Event::DevicesOffered { session, gpus }),
            false => Heard::Broken(Breach::Devices),
        },
        (AgentControl::Heartbeat { .. } | AgentControl::Leaving | AgentControl::Devices(_), _) => {
            Heard::Broken(Breach::HelloMissing)
        }
    }
}

fn is_device(gpu: &Gpu) -> bool {
    [&gpu.name, &gpu.driver].iter().all(|text| is_short(text))
}

fn is_short(text: &str) -> bool {
    text.len() <= limits::NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

fn heartbeat(session: Session, holding: Vec<Held>) -> Event {
    Event::HeartbeatArrived { session, holding }
}

pub(super) fn work(session: Session, frame: &Bytes) -> Heard {
    match AgentWork::read_in_place(frame) {
        Ok(AgentWorkRef::Results { job, items }) => {
            let answers = items.map(|result| answer(frame, result)).collect();
            Heard::Event(Event::ResultsArrived { session, job: JobId(job), answers })
        }
        Ok(AgentWorkRef::Failed { job, index, epoch, failure }) => {
            let (index, epoch) = (ShardIndex(index), Epoch(epoch));
            Heard::Event(Event::ShardFailed { session, job: JobId(job), index, epoch, failure })
        }
        Ok(AgentWorkRef::Fetch { job, input, offset }) => {
            Heard::Event(Event::InputWanted { session, job: JobId(job), input, offset })
        }
        Err(error) => Heard::Broken(Breach::Frame(error)),
    }
}

pub(super) fn bulk(session: Session, bytes: &Bytes) -> Heard {
    match wire::read_bulk(bytes) {
        Ok((BulkHeader::Partial { job, index, epoch }, payload)) => {
            let (index, epoch, partial) = (ShardIndex(index), Epoch(epoch), bytes.slice_ref(payload));
            Heard::Event(Event::PartialArrived { session, job: JobId(job), index, epoch, partial })
        }
        Ok((BulkHeader::Task { .. } | BulkHeader::Input { .. }, _)) => {
            Heard::Broken(Breach::Frame(FrameError::Malformed))
        }
        Err(error) => Heard::Broken(Breach::Frame(error)),
    }
}

fn answer(frame: &Bytes, result: ShardResultRef<'_>) -> ShardAnswer {
    let ShardResultRef { index, epoch, partial, kernel_us: _ } = result;
    let partial = match partial {
        PartialRef::Here(partial) => Sent::Here(frame.slice_ref(partial)),
        PartialRef::Elsewhere(digest) => Sent::Elsewhere(Digest(*digest)),
    };
    ShardAnswer { index: ShardIndex(index), epoch: Epoch(epoch), partial }
}

fn is_valid(hello: &Hello) -> bool {
    let texts = [&hello.name, &hello.version, &hello.isa, &hello.arch];
    (1..=limits::SLOTS_MAX).contains(&hello.slots)
        && texts.iter().all(|text| is_short(text))
        && (hello.region.is_empty() || hello.region.parse::<Region>().is_ok())
        && hello.kernels.len() <= limits::INPUTS_MAX
        && hello.kernels.iter().all(|kernel| is_short(kernel))
        // An agent that can run nothing would only hold shards up.
        && hello.kernels.iter().any(|kernel| kernel == Workload::MonteCarlo.kernel())
}

/// The batch that finds out who an agent is: it changes nothing, and what it conflicts with is the agent's
/// record, or the token that it brings.
pub(super) fn look_up(agent: AgentId, token: Option<&[u8; 32]>) -> Batch {
    let mut batch = Batch::new();
    batch.expect_absent(Key::Agent(agent));
    if let Some(secret) = token {
        batch.expect_absent(Key::Token(Digest::of(secret)));
    }
    batch
}

/// What the store knows of an agent at the door.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is enrolled.
    Enrolled(Owner),
    /// It is not, and its token may be spent.
    Token(Owner),
    /// It may not work here.
    Refused(Refusal),
}

/// What the store's verdict on [`look_up`] means.
pub(super) fn found(verdict: &Verdict, agent: AgentId, token: Option<&[u8; 32]>) -> Found {
    let (key, value) = match verdict {
        Verdict::Failed(_) => return Found::Refused(Refusal::StoreUnavailable),
        Verdict::Judged(Commit::Done) if token.is_some() => return Found::Refused(Refusal::TokenUnknown),
        Verdict::Judged(Commit::Done) => return Found::Refused(Refusal::TokenMissing),
        Verdict::Judged(Commit::Conflict { key, found }) => (key, found.as_deref().unwrap_or_default()),
    };
    if *key == Key::Agent(agent).encode() {
        // A record that this hub cannot read is not the operator's: nobody becomes an anchor by damage.
        let owner = records::owner_of_agent(value).map(Found::Enrolled);
        return owner.unwrap_or(Found::Refused(Refusal::StoreUnavailable));
    }
    match records::owner_of_token(value) {
        Some(owner) => Found::Token(owner),
        None => Found::Refused(Refusal::TokenSpent),
    }
}

/// The batch that enrols an agent and spends its token, in one transaction.
pub(super) fn enrol(
    agent: AgentId,
    key: [u8; 32],
    hello: &Hello,
    (secret, owner): (&[u8; 32], &Owner),
) -> Deed {
    let token = Key::Token(Digest::of(secret));
    let provider = owner.0.as_ref();
    let mut batch = Batch::new();
    batch
        .expect_equals(token, records::token_unspent(provider))
        .put(token, records::token_spent_by(agent))
        .put(Key::Agent(agent), records::agent_bytes(key, hello, provider));
    let (provider, token) = (owner.name().to_owned(), Digest::of(secret));
    Deed { batch, acts: vec![Act::AgentEnrolled { agent, provider, token }] }
}

/// What the store's verdict on an enrolment means.
pub(super) fn refusal(verdict: &Verdict, agent: AgentId) -> Option<Refusal> {
    match verdict {
        Verdict::Judged(Commit::Done) => None,
        Verdict::Judged(Commit::Conflict { found: None, .. }) => Some(Refusal::TokenUnknown),
        Verdict::Judged(Commit::Conflict { found: Some(found), .. }) => {
            // The agent's own token, spent by it in a session that ended before the answer arrived.
            (*found != records::token_spent_by(agent)).then_some(Refusal::TokenSpent)
        }
        Verdict::Failed(_) => Some(Refusal::StoreUnavailable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::token_deed;
    use tessera_storage::{Engine, Memory};

    const SECRET: [u8; 32] = [7; 32];

    fn hello() -> Hello {
        Hello {
            token: Some(SECRET),
            name: "a".into(),
            version: "0".into(),
            isa: "plain".into(),
            arch: "x86_64".into(),
            slots: 1,
            memory_bytes: 0,
            kernels: vec!["monte_carlo".into()],
            region: String::new(),
        }
    }

    fn ask(store: &Memory, agent: AgentId, token: Option<&[u8; 32]>) -> Found {
        found(&Verdict::Judged(store.commit(look_up(agent, token)).unwrap()), agent, token)
    }

    #[test]
    fn an_agent_belongs_to_the_provider_of_its_token_for_ever() {
        for owner in [Owner("acme".parse().ok()), Owner(None)] {
            let (store, agent) = (Memory::default(), AgentId([1; 16]));
            assert_eq!(ask(&store, agent, None), Found::Refused(Refusal::TokenMissing));
            assert_eq!(ask(&store, agent, Some(&SECRET)), Found::Refused(Refusal::TokenUnknown));
            assert_eq!(store.commit(token_deed(&SECRET, &owner).batch).unwrap(), Commit::Done);
            assert_eq!(ask(&store, agent, Some(&SECRET)), Found::Token(owner.clone()));
            let enrolment = || enrol(agent, [2; 32], &hello(), (&SECRET, &owner));
            let verdict = Verdict::Judged(store.commit(enrolment().batch).unwrap());
            assert_eq!(refusal(&verdict, agent), None);
            for token in [None, Some(&SECRET)] {
                assert_eq!(ask(&store, agent, token), Found::Enrolled(owner.clone()));
            }
            let other = AgentId([9; 16]);
            assert_eq!(ask(&store, other, Some(&SECRET)), Found::Refused(Refusal::TokenSpent));
            let recovered = records::recover(&*store.snapshot().unwrap()).unwrap();
            let view = &recovered.agents[&agent];
            assert_eq!((view.provider.as_str(), view.anchor), (owner.name(), owner.0.is_none()));
        }
    }

    #[test]
    fn an_agent_of_another_version_is_told_which_side_is_older() {
        let session = Session(1);
        let mut standings = Standings::from([(session, Standing::Opened { key: [1; 32] })]);
        let mut frame = Vec::new();
        AgentControl::Hello(hello()).frame(&mut frame);
        let mut body = frame.split_off(size_of::<u32>());
        body[0] = limits::FRAME_VERSION - 1;
        let Heard::Broken(breach) = control(&mut standings, session, &body.into()) else {
            panic!("an older agent is let in")
        };
        assert_eq!(breach.to_string(), "frame version 2, this program speaks 3: update the older side");
    }

    #[test]
    fn a_token_does_not_enrol_for_another_provider_than_it_was_made_for() {
        let store = Memory::default();
        let made = token_deed(&SECRET, &Owner("acme".parse().ok())).batch;
        assert_eq!(store.commit(made).unwrap(), Commit::Done);
        let forged = enrol(AgentId([1; 16]), [2; 32], &hello(), (&SECRET, &Owner(None)));
        assert!(matches!(store.commit(forged.batch).unwrap(), Commit::Conflict { .. }));
    }

    #[test]
    fn a_damaged_record_makes_nobody_an_anchor() {
        let (store, agent) = (Memory::default(), AgentId([1; 16]));
        let mut batch = Batch::new();
        batch.put(Key::Agent(agent), b"{".to_vec());
        assert_eq!(store.commit(batch).unwrap(), Commit::Done);
        assert_eq!(ask(&store, agent, None), Found::Refused(Refusal::StoreUnavailable));
    }
}
