//! The agents of a lane by what they can do: who is free and able, the best first.
//!
//! Agents alike in kernels, memory, device, region and standing form a class, of which there are a handful in a fleet of
//! thousands. A question looks at classes, best agent first, and within one at a few agents; it walks no list of
//! agents. Owns no agent and decides nothing about jobs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};

use tessera_protocol::api::Standing;
use tessera_protocol::id::{AgentId, ProviderId};
use tessera_protocol::wire::Gpu;

use super::agent::Agent;
use super::need::{Memory, Need, NeedNo, Needs};
use super::roster::{AgentNo, Agents, Group};
use crate::Account;
use crate::message::{Device, Errand, Who};

/// What agents that do not say how much memory they have keep of a job. *Units*: bytes.
const OPERAND_BYTES_UNKNOWN: u64 = 1 << 30;
/// Agents of one class that are looked at for the best before any that may is taken.
const LOOKED_AT: usize = 8;

/// What the agents of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Capability {
    kernels: Vec<String>,
    memory: Memory,
    standing: Standing,
    anchor: bool,
    device: Device,
    /// Its GPUs: how they are called, in lower case, and their memory.
    gpus: Vec<(String, Memory)>,
    region: String,
}

impl Capability {
    fn of(agent: &Agent) -> Capability {
        let mut kernels = agent.hello.kernels.clone();
        kernels.sort_unstable();
        kernels.dedup();
        Capability {
            kernels,
            memory: Memory::of(operand_bytes_max(agent)),
            standing: agent.standing,
            anchor: agent.account.anchor,
            device: agent.device.clone(),
            gpus: gpus(agent),
            region: agent.hello.region.clone(),
        }
    }

    fn meets(&self, need: &Need) -> bool {
        self.memory >= need.memory
            && (need.gpu == Memory::default()
                || self.gpus.iter().any(|(name, memory)| *memory >= need.gpu && need.names(name)))
            && need.allows(&self.region)
            && self.kernels.binary_search_by(|kernel| (**kernel).cmp(&*need.kernel)).is_ok()
    }

    /// Whether the class has agents that `who` lets run a shard, whichever provider they are of.
    fn suits(&self, who: &Who) -> bool {
        who.suits(self.anchor, self.standing)
    }
}

/// The most that an agent keeps of a job's files and matrices. *Units*: bytes.
pub(super) fn operand_bytes_max(agent: &Agent) -> u64 {
    match agent.hello.memory_bytes {
        0 => OPERAND_BYTES_UNKNOWN,
        bytes => bytes / 2,
    }
}

/// The memory of an agent's largest GPU whose name, in lower case, is asked for; zero where it has none. *Units*: bytes.
pub(super) fn gpu_bytes_max(agent: &Agent, asked: impl Fn(&str) -> bool) -> u64 {
    let asked_for = agent.gpus.iter().filter(|gpu| asked(&gpu.name.to_ascii_lowercase()));
    // One whose driver does not say how much memory it has is a GPU all the same.
    asked_for.map(|gpu| gpu.memory_bytes.max(1)).max().unwrap_or(0)
}

/// What an agent's GPUs are called, in lower case, and their memory. *Order*: by name.
pub(super) fn gpus(agent: &Agent) -> Vec<(String, Memory)> {
    let of = |gpu: &Gpu| (gpu.name.to_ascii_lowercase(), Memory::of(gpu.memory_bytes.max(1)));
    let mut gpus: Vec<_> = agent.gpus.iter().map(of).collect();
    gpus.sort_unstable();
    gpus.dedup();
    gpus
}

/// Names a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClassId(u32);

/// An agent's place among those that are free. *Order*: the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// Whether its slots are busy: a slot that idles anywhere goes before a place to wait at the best.
    pub(super) queued: bool,
    pub(super) bucket: u8,
    /// *Units*: per mille of its credit.
    pub(super) load: u32,
}

impl Rank {
    /// Whether nothing but how full they are speaks for another.
    pub(super) fn is_level_with(self, other: Rank) -> bool {
        self.bucket <= other.bucket || !self.queued && other.queued
    }

    fn of(agent: &Agent) -> Option<Rank> {
        agent.has_credit().then(|| Rank::with(agent, 0))
    }

    /// What it would be if the agent held so many more.
    pub(super) fn with(agent: &Agent, more: u64) -> Rank {
        Rank {
            queued: agent.held() + more >= u64::from(agent.hello.slots.max(1)),
            bucket: agent.score.bucket(agent.standing),
            load: agent.load_with(more),
        }
    }
}

/// Where an agent sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    class: ClassId,
    standing: Standing,
    /// Which of its offers of GPUs it sits by.
    offer: u32,
    rank: Option<Rank>,
}

#[derive(Debug, Default)]
struct Class {
    /// Needs that it meets.
    able: Group<NeedNo>,
    free: BTreeSet<(Rank, AgentNo)>,
    free_by_provider: BTreeSet<(ProviderId, Rank, AgentNo)>,
    members: BTreeSet<(ProviderId, AgentNo)>,
}

/// Agents that take work, by class.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    needs: Needs,
    made: u32,
    ids: BTreeMap<Arc<Capability>, ClassId>,
    classes: BTreeMap<ClassId, (Arc<Capability>, Class)>,
    /// Classes with somebody free, by the best of each.
    fronts: BTreeSet<(Rank, ClassId)>,
    free: usize,
}

impl Fleet {
    // --- what is needed -------------------------------------------------------------------------

    /// A job needs this.
    pub(super) fn need(&mut self, need: Need) -> NeedNo {
        let (number, is_new) = self.needs.join(need);
        if is_new {
            for (capability, class) in self.classes.values_mut() {
                match capability.meets(self.needs.get(number)) {
                    true => _ = class.able.insert(number),
                    false => class.able.remove(number),
                }
            }
        }
        number
    }

    /// A job needs it no longer.
    pub(super) fn need_no_more(&mut self, need: NeedNo) {
        self.needs.leave(need);
    }

    /// What a job needs that has this need.
    ///
    /// *Panics*: when none has.
    pub(super) fn needed(&self, need: NeedNo) -> &Need {
        self.needs.get(need)
    }

    // --- who is here ----------------------------------------------------------------------------

    /// An agent came, or what it holds, has shown or may do is another than before.
    pub(super) fn settle(&mut self, number: AgentNo, agent: &mut Agent) {
        if !agent.takes_work() {
            return self.leave(number, agent);
        }
        let (standing, offer, rank) = (agent.standing, agent.offer, Rank::of(agent));
        if let Some(seat) = agent.seat {
            if seat.standing == standing && seat.offer == offer {
                if seat.rank != rank {
                    self.rank(number, agent.account.provider, seat.class, (seat.rank, rank));
                    agent.seat = Some(Seat { rank, ..seat });
                }
                return;
            }
            self.leave(number, agent);
        }
        agent.device.gpu = !agent.gpus.is_empty();
        let class = self.class_of(agent);
        if let Some((_, class)) = self.classes.get_mut(&class) {
            class.members.insert((agent.account.provider, number));
        }
        self.rank(number, agent.account.provider, class, (None, rank));
        agent.seat = Some(Seat { class, standing, offer, rank });
    }

    /// An agent takes nothing more.
    pub(super) fn leave(&mut self, number: AgentNo, agent: &mut Agent) {
        let Some(seat) = agent.seat.take() else { return };
        self.rank(number, agent.account.provider, seat.class, (seat.rank, None));
        let Some((_, class)) = self.classes.get_mut(&seat.class) else { return };
        class.members.remove(&(agent.account.provider, number));
        if class.members.is_empty()
            && let Some((capability, _)) = self.classes.remove(&seat.class)
        {
            self.ids.remove(&capability);
        }
    }

    fn class_of(&mut self, agent: &Agent) -> ClassId {
        let capability = Capability::of(agent);
        if let Some(id) = self.ids.get(&capability) {
            return *id;
        }
        self.made += 1;
        let (id, capability) = (ClassId(self.made), Arc::new(capability));
        self.ids.insert(capability.clone(), id);
        let mut class = Class::default();
        let met = self.needs.iter().filter(|(_, need)| capability.meets(need));
        met.for_each(|(need, _)| _ = class.able.insert(need));
        self.classes.insert(id, (capability, class));
        id
    }

    fn rank(
        &mut self,
        number: AgentNo,
        provider: ProviderId,
        of: ClassId,
        (before, after): (Option<Rank>, Option<Rank>),
    ) {
        let Some((_, class)) = self.classes.get_mut(&of) else { return };
        let front = class.free.first().map(|(rank, _)| *rank);
        if let Some(rank) = before {
            class.free.remove(&(rank, number));
            class.free_by_provider.remove(&(provider, rank, number));
            self.free -= 1;
        }
        if let Some(rank) = after {
            class.free.insert((rank, number));
            class.free_by_provider.insert((provider, rank, number));
            self.free += 1;
        }
        let now = class.free.first().map(|(rank, _)| *rank);
        if front != now {
            front.map(|rank| self.fronts.remove(&(rank, of)));
            now.map(|rank| self.fronts.insert((rank, of)));
        }
    }

    // --- who could --------------------------------------------------------------------------------

    /// Whether nobody has a place free.
    pub(super) fn is_full(&self) -> bool {
        self.free == 0
    }

    /// The best agent that is free and able, and the rank of the next best.
    pub(super) fn first(&self, need: NeedNo) -> Option<(AgentNo, Option<Rank>)> {
        let mut classes = self.free_classes(need, &Who::Anyone).map(|(_, class)| class.free.iter());
        let mut best = classes.next()?;
        let (_, number) = best.next()?;
        let rivals = best.next().into_iter().chain(classes.next().and_then(|mut class| class.next()));
        Some((*number, rivals.map(|(rank, _)| *rank).min()))
    }

    /// Whether somebody is free of the kind that an errand for `who` asks for.
    pub(super) fn has_free(&self, need: NeedNo, who: &Who) -> bool {
        self.free_classes(need, who).next().is_some()
    }

    /// A free and able agent that may run an errand and does not compute its shard already: on another device than the claim's if there is one, the best of
    /// those that are looked at.
    pub(super) fn best_for(
        &self,
        need: NeedNo,
        errand: &Errand,
        agents: &Agents,
        is_holder: impl Fn(AgentNo) -> bool,
    ) -> Option<AgentNo> {
        let unlike = |capability: &Capability| errand.unlike.as_ref().is_none_or(|d| *d != capability.device);
        let find = |other: bool| {
            let mut classes =
                self.free_classes(need, &errand.who).filter(|(capability, _)| unlike(capability) == other);
            classes.find_map(|(capability, class)| class.free_for(errand, capability, agents, &is_holder))
        };
        find(true).or_else(|| errand.unlike.as_ref().and_then(|_| find(false)))
    }

    /// Whether any agent that takes work could run an errand, now or later.
    pub(super) fn has_for(
        &self,
        need: NeedNo,
        errand: &Errand,
        agents: &Agents,
        is_holder: impl Fn(AgentNo) -> bool,
    ) -> bool {
        self.classes.values().any(|(capability, class)| {
            let suits = class.able.contains(need) && capability.suits(&errand.who);
            suits && class.has_for(errand, capability, agents, &is_holder)
        })
    }

    /// Whether any agent that takes work could run shards of a job, now or later.
    pub(super) fn has(&self, need: NeedNo) -> bool {
        self.able(need).next().is_some()
    }

    /// How many agents could run shards of a job, and how many of them are free.
    pub(super) fn count(&self, need: NeedNo) -> (usize, usize) {
        self.able(need)
            .fold((0, 0), |(able, free), class| (able + class.members.len(), free + class.free.len()))
    }

    fn able(&self, need: NeedNo) -> impl Iterator<Item = &Class> {
        let is_able = move |(capability, class): &&(Arc<Capability>, Class)| {
            class.able.contains(need) && capability.suits(&Who::Anyone)
        };
        self.classes.values().filter(is_able).map(|(_, class)| class)
    }

    /// Free agents that could run shards of a job, the best class first.
    pub(super) fn ranked<'a>(&'a self, need: NeedNo, who: &'a Who) -> impl Iterator<Item = AgentNo> + 'a {
        self.free_classes(need, who).flat_map(|(_, class)| class.free.iter().map(|(_, number)| *number))
    }

    fn free_classes<'a>(
        &'a self,
        need: NeedNo,
        who: &'a Who,
    ) -> impl Iterator<Item = (&'a Capability, &'a Class)> {
        let classes = self.fronts.iter().filter_map(|(_, id)| self.classes.get(id));
        classes
            .filter(move |(capability, class)| class.able.contains(need) && capability.suits(who))
            .map(|(capability, class)| (&**capability, class))
    }

    /// Every agent sits where it should.
    ///
    /// *Panics*: when one does not.
    pub(super) fn check_invariants<'a>(&self, agents: impl Iterator<Item = (AgentNo, AgentId, &'a Agent)>) {
        let (mut members, mut free) = (0, 0);
        for (number, id, agent) in agents {
            let Some(seat) = agent.seat else {
                assert!(!agent.takes_work(), "{id} has no seat");
                continue;
            };
            assert_eq!(seat.rank, Rank::of(agent), "{id} is ranked as it was");
            assert_eq!((seat.standing, seat.offer), (agent.standing, agent.offer), "{id}");
            let (capability, class) = &self.classes[&seat.class];
            assert_eq!(capability.gpus, gpus(agent), "{id}");
            let is_right = |(number, need)| class.able.contains(number) == capability.meets(need);
            assert!(self.needs.iter().all(is_right), "{id}");
            assert!(class.members.contains(&(agent.account.provider, number)), "{id}");
            if let Some(rank) = seat.rank {
                assert!(class.free.contains(&(rank, number)), "{id}");
                assert!(class.free_by_provider.contains(&(agent.account.provider, rank, number)), "{id}");
                free += 1;
            }
            members += 1;
        }
        assert_eq!(self.free, free);
        let classes = || self.classes.values().map(|(_, class)| class);
        assert_eq!(classes().map(|class| class.members.len()).sum::<usize>(), members);
        assert_eq!(classes().map(|class| class.free.len()).sum::<usize>(), free);
        assert_eq!(classes().map(|class| class.free_by_provider.len()).sum::<usize>(), free);
        assert_eq!(classes().filter(|class| !class.free.is_empty()).count(), self.fronts.len());
    }
}

impl Class {
    /// An agent that is free and may run an errand.
    fn free_for(
        &self,
        errand: &Errand,
        capability: &Capability,
        agents: &Agents,
        is_holder: &impl Fn(AgentNo) -> bool,
    ) -> Option<AgentNo> {
        let may = |number: &AgentNo| may(errand, capability, agents, *number) && !is_holder(*number);
        let mut first = self.free.iter().take(LOOKED_AT).map(|(_, number)| number);
        if let Some(number) = first.find(|number| may(number)) {
            return Some(*number);
        }
        let mut at = self.free_by_provider.first()?;
        loop {
            let (provider, rank, number) = *at;
            let next = match excludes(errand, capability, provider) {
                true => (provider, RANK_LAST, AgentNo::LAST),
                false if may(&number) => return Some(number),
                false => (provider, rank, number),
            };
            at = self.free_by_provider.range((Excluded(next), Unbounded)).next()?;
        }
    }

    /// Whether a member, free or not, may run an errand.
    fn has_for(
        &self,
        errand: &Errand,
        capability: &Capability,
        agents: &Agents,
        is_holder: &impl Fn(AgentNo) -> bool,
    ) -> bool {
        let mut at = self.members.first();
        while let Some((provider, number)) = at.copied() {
            let next = match excludes(errand, capability, provider) {
                true => (provider, AgentNo::LAST),
                false if may(errand, capability, agents, number) && !is_holder(number) => return true,
                false => (provider, number),
            };
            at = self.members.range((Excluded(next), Unbounded)).next();
        }
        false
    }
}

/// Behind every rank there is.
const RANK_LAST: Rank = Rank { queued: true, bucket: u8::MAX, load: u32::MAX };

fn may(errand: &Errand, capability: &Capability, agents: &Agents, number: AgentNo) -> bool {
    let (Some(id), Some(agent)) = (agents.id(number), agents.at(number)) else { return false };
    errand.permits(id, agent.account, capability.standing)
}

/// Whether none of a provider's agents may.
fn excludes(errand: &Errand, capability: &Capability, provider: ProviderId) -> bool {
    !errand.who.permits(Account { provider, anchor: capability.anchor }, capability.standing)
}
