//! BOINC's adaptive replication.
//!
//! *Source*: BOINC, `sched/sched_send.cpp` (`set_trust`) and `sched/sched_config.h`
//! (`CONS_VALID_UNREPLICATED` = 10), and the wiki page "Adaptive replication": with CV consecutive valid
//! results, a host below 10 has each job replicated, and one above it each with probability 1 / CV; a
//! replicated job that validates adds one, an invalid one sets it to zero. A quorum is two. Left out: the
//! daily quota, which slows a host that errs and removes none.

use super::Measured;
use super::flat::agree;
use super::fleet::{Answer, Fleet};

/// `CONS_VALID_UNREPLICATED`.
const UNREPLICATED: u32 = 10;

pub(super) fn run(mut fleet: Fleet) -> Measured {
    let mut valid = vec![0_u32; fleet.agents.len()];
    for shard in 0..fleet.size.lifetime {
        for agent in 0..fleet.strangers() {
            let shard = (agent as u32, shard);
            let replicated = valid[agent] < UNREPLICATED || fleet.random.below(u64::from(valid[agent])) == 0;
            let compute = |fleet: &mut Fleet, agent: usize, shard| -> Answer {
                fleet.compute(agent, shard, valid[agent] >= UNREPLICATED)
            };
            let first = compute(&mut fleet, agent, shard);
            if !replicated {
                fleet.deliver(first);
                continue;
            }
            let (answer, judged) = agree(&mut fleet, shard, vec![(agent, first)], compute);
            for (agent, right) in judged {
                valid[agent] = if right { valid[agent] + 1 } else { 0 };
            }
            fleet.deliver(answer);
        }
    }
    fleet.finish()
}
