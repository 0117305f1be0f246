//! Who is in the fleet, and what each answers. Knows no policy.

use tessera_hub_core::Account;
use tessera_protocol::id::{AgentId, Digest, ProviderId};

use super::{Measured, Size};
use crate::sim::Random;

/// What the agents of a provider do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// They compute.
    Honest,
    /// They give a wrong answer of their own in so many cases of a million.
    Lie(u32),
    /// The same, only while they are trusted.
    Sleep(u32),
    /// They give the same wrong answer for the same shards, so many of a million, whoever of them is asked.
    Collude(u32),
    /// The same, each only while it is trusted.
    ColludeAsleep(u32),
}

/// A fleet of strangers.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What the table calls it.
    pub name: &'static str,
    /// What the dishonest do.
    pub conduct: Conduct,
    /// How many of a hundred agents are dishonest.
    pub dishonest_per_cent: u32,
    /// Whether each of the dishonest has a provider of its own; otherwise they are all the agents of theirs.
    pub alone: bool,
    /// Wrong answers of an honest machine whose memory is sound. *Units*: per million shards.
    pub slips_ppm: u32,
    /// One honest machine in so many is broken: a thousandth of its answers is wrong. 0 = none.
    pub broken_one_in: u32,
}

const HONEST: Scenario = Scenario {
    name: "honest",
    conduct: Conduct::Honest,
    dishonest_per_cent: 0,
    alone: false,
    slips_ppm: 0,
    broken_one_in: 0,
};

const fn liars(name: &'static str, dishonest_per_cent: u32, conduct: Conduct) -> Scenario {
    Scenario { name, conduct, dishonest_per_cent, ..HONEST }
}

impl Scenario {
    /// Those of the table.
    pub const ALL: [Scenario; 10] = [
        HONEST,
        Scenario { name: "honest, failing hardware", slips_ppm: 10, broken_one_in: 100, ..HONEST },
        liars("10 % lie in 1", 10, Conduct::Lie(1_000_000)),
        liars("10 % lie in 0.1", 10, Conduct::Lie(100_000)),
        liars("10 % lie in 0.02", 10, Conduct::Lie(20_000)),
        Scenario { alone: true, ..liars("10 % lie in 0.02, each alone", 10, Conduct::Lie(20_000)) },
        liars("10 % sleep, then lie in 0.1", 10, Conduct::Sleep(100_000)),
        Scenario {
            alone: true,
            ..liars("10 % sleep, then lie in 0.02, each alone", 10, Conduct::Sleep(20_000))
        },
        liars("20 % collude in 0.1", 20, Conduct::Collude(100_000)),
        liars("20 % collude in 0.1 once trusted", 20, Conduct::ColludeAsleep(100_000)),
    ];
}

/// A shard of a job.
pub(super) type Shard = (u32, u32);

/// An answer: nothing when it is right, otherwise what is said instead.
pub(super) type Answer = u32;
pub(super) const RIGHT: Answer = 0;
const THE_COALITION: Answer = u32::MAX;

/// An agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) account: Account,
    conduct: Conduct,
    slips_ppm: u32,
    /// Shards it has computed.
    pub(super) computed: u32,
    pub(super) found_after: Option<u32>,
    pub(super) ejected: bool,
}

/// The agents, the operator's own last.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(super) size: Size,
    pub(super) agents: Vec<Agent>,
    pub(super) random: Random,
    /// Which shards the coalition lies about.
    coalition: u64,
    pub(super) measured: Measured,
}

impl Fleet {
    /// The fleet of a scenario.
    pub fn new(scenario: &Scenario, size: Size, seed: u64) -> Fleet {
        let mut random = Random::new(seed);
        let strangers = size.providers * size.agents_each;
        let mut agents = Vec::new();
        for number in 0..strangers + size.anchors {
            let id = AgentId(Digest::of(&number.to_le_bytes()).0[..16].try_into().expect("16 bytes"));
            // The first agent of each provider in turn, or all of the first providers.
            let (provider, place) = match scenario.alone {
                true => (number % size.providers, number),
                false => (number / size.agents_each, number),
            };
            let dishonest = place < strangers * scenario.dishonest_per_cent / 100;
            let anchor = number >= strangers;
            let broken = scenario.broken_one_in > 0 && number % scenario.broken_one_in == 7;
            agents.push(Agent {
                id,
                account: match anchor {
                    true => Account::operator(),
                    false => Account::of_provider(ProviderId::of_name(&format!("provider {provider}"))),
                },
                conduct: if dishonest && !anchor { scenario.conduct } else { Conduct::Honest },
                slips_ppm: match (anchor, broken) {
                    (true, _) => 0,
                    (false, true) => 1_000,
                    (false, false) => scenario.slips_ppm,
                },
                computed: 0,
                found_after: None,
                ejected: false,
            });
        }
        let coalition = random.draw();
        Fleet { size, agents, random, coalition, measured: Measured::default() }
    }

    /// How many are not the operator's.
    pub(super) fn strangers(&self) -> usize {
        self.agents.len() - self.size.anchors as usize
    }

    /// An agent computes a shard; what it says. `trusted` is what it knows of its standing.
    pub(super) fn compute(&mut self, agent: usize, shard: Shard, trusted: bool) -> Answer {
        self.measured.computed += 1;
        let own_lie = agent as Answer + 1;
        let agent = &mut self.agents[agent];
        agent.computed += 1;
        let mut happens = |ppm: u32| ppm > 0 && self.random.below(1_000_000) < u64::from(ppm);
        let lies = match agent.conduct {
            Conduct::Honest => false,
            Conduct::Lie(ppm) => happens(ppm),
            Conduct::Sleep(ppm) => trusted && happens(ppm),
            Conduct::ColludeAsleep(_) if !trusted => false,
            Conduct::Collude(ppm) | Conduct::ColludeAsleep(ppm) => {
                let place = u64::from(shard.0) << 32 | u64::from(shard.1);
                if Random::new(self.coalition ^ place).below(1_000_000) < u64::from(ppm) {
                    return THE_COALITION;
                }
                false
            }
        };
        if lies || happens(agent.slips_ppm) { own_lie } else { RIGHT }
    }

    /// Someone showed that this agent was wrong.
    pub(super) fn found(&mut self, agent: usize) {
        let agent = &mut self.agents[agent];
        agent.found_after.get_or_insert(agent.computed);
    }

    pub(super) fn deliver(&mut self, answer: Answer) {
        self.measured.delivered += 1;
        self.measured.corrupt += u64::from(answer != RIGHT);
    }

    /// A stranger of another provider than these agents'.
    pub(super) fn another(&mut self, than: &[usize]) -> usize {
        loop {
            let agent = self.random.below(self.strangers() as u64) as usize;
            let provider = self.agents[agent].account.provider;
            if than.iter().all(|other| self.agents[*other].account.provider != provider) {
                return agent;
            }
        }
    }

    /// What was measured.
    pub(super) fn finish(mut self) -> Measured {
        let strangers = self.strangers();
        for agent in &self.agents[..strangers] {
            if agent.conduct == Conduct::Honest {
                self.measured.honest += 1;
                self.measured.honest_ejected += u32::from(agent.ejected);
            } else {
                self.measured.liars += 1;
                self.measured.found_after.extend(agent.found_after);
            }
        }
        self.measured.found_after.sort_unstable();
        self.measured
    }
}
