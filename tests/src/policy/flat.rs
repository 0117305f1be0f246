//! A fixed part of the shards is computed twice, chosen beforehand. Nobody's standing changes.

use super::Measured;
use super::fleet::{Answer, Fleet, RIGHT};

/// Shards an agent computes before it counts as trusted in the eyes of one that sleeps until then.
const SLEEP: u32 = 200;

pub(super) fn run(mut fleet: Fleet, per_cent: u32) -> Measured {
    for shard in 0..fleet.size.lifetime {
        for agent in 0..fleet.strangers() {
            let shard = (agent as u32, shard);
            let first = compute(&mut fleet, agent, shard);
            let answer = match fleet.random.below(100) < u64::from(per_cent) {
                true => agree(&mut fleet, shard, vec![(agent, first)], compute).0,
                false => first,
            };
            fleet.deliver(answer);
        }
    }
    fleet.finish()
}

fn compute(fleet: &mut Fleet, agent: usize, shard: (u32, u32)) -> Answer {
    let awake = fleet.agents[agent].computed >= SLEEP;
    fleet.compute(agent, shard, awake)
}

/// Asks agents of further providers until two say the same, which is believed. Who said it, and who did not.
pub(super) fn agree(
    fleet: &mut Fleet,
    shard: (u32, u32),
    mut said: Vec<(usize, Answer)>,
    mut compute: impl FnMut(&mut Fleet, usize, (u32, u32)) -> Answer,
) -> (Answer, Vec<(usize, bool)>) {
    loop {
        let asked: Vec<usize> = said.iter().map(|(agent, _)| *agent).collect();
        let next = fleet.another(&asked);
        let answer = compute(fleet, next, shard);
        let agreed = said.iter().any(|(_, other)| *other == answer);
        said.push((next, answer));
        if agreed {
            let judged: Vec<(usize, bool)> =
                said.iter().map(|(agent, other)| (*agent, *other == answer)).collect();
            for (agent, right) in &judged {
                // A coalition that wins finds nobody.
                if !right && answer == RIGHT {
                    fleet.found(*agent);
                }
            }
            return (answer, judged);
        }
    }
}
