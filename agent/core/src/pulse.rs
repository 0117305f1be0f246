//! When an agent says that it is alive: every so often, a fifth more or less, so that agents that a hub welcomed
//! together do not speak together for ever.

use tessera_protocol::id::AgentId;

use crate::event::Random;

/// Where the next beats come from: the agent's key, and what chance the shell brought.
#[derive(Clone, Debug)]
pub(crate) struct Pulse(u64);

impl Pulse {
    /// Of an agent whose shell brought no chance yet: its id is that of a random key.
    pub(crate) fn new(agent: AgentId) -> Pulse {
        let folded = agent.0.iter().fold(0u64, |folded, byte| folded.rotate_left(8) ^ u64::from(*byte));
        Pulse(folded)
    }

    /// Takes in more chance.
    pub(crate) fn stir(&mut self, random: Random) {
        self.0 ^= random.0;
    }

    /// The time to the next heartbeat, uniform within a fifth of `every_ms`. *Units*: milliseconds.
    pub(crate) fn next_ms(&mut self, every_ms: u64) -> u64 {
        let fifth = every_ms / 5;
        let spread = u128::from(2 * fifth + 1);
        every_ms - fifth + ((u128::from(self.draw()) * spread) >> 64) as u64
    }

    /// SplitMix64. *Source*: Steele, Lea, Flood, OOPSLA 2014.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn beats_are_spread_over_a_fifth_on_either_side_and_differ_between_agents() {
        let beats = |key: u8| -> Vec<u64> {
            let mut pulse = Pulse::new(AgentId([key; 16]));
            pulse.stir(Random(u64::from(key)));
            (0..1_000).map(|_| pulse.next_ms(10_000)).collect()
        };
        let one = beats(1);
        assert!(one.iter().all(|beat| (8_000..=12_000).contains(beat)));
        assert!(one.iter().any(|beat| *beat < 8_100) && one.iter().any(|beat| *beat > 11_900));
        let mean = one.iter().sum::<u64>() / 1_000;
        assert!((9_800..10_200).contains(&mean), "{mean}");
        assert_ne!(one, beats(2));
        assert_eq!(one, beats(1));
    }
}
