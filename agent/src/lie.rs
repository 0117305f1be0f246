//! An agent that lies, so that tests can see what the hub does about it. Only with the feature `liar`, which no
//! release has, and only where the environment asks for it.

use tessera_agent_core::Outcome;
use tessera_protocol::id::Digest;
use tessera_protocol::tally::Tally;

/// How many shards go by for each that is answered wrongly.
const ASKED_BY: &str = "TESSERA_TEST_LIE_ONE_IN";

/// A wrong answer of the right shape, to one shard in so many; the same for each shard, whoever is asked.
pub(crate) fn told(index: u64, outcome: Outcome) -> Outcome {
    let one_in = std::env::var(ASKED_BY).ok().and_then(|text| text.parse::<u64>().ok());
    let lies = one_in.is_some_and(|one_in| one_in > 0 && index.is_multiple_of(one_in));
    match outcome {
        Outcome::Done { partial, kernel_us, .. } if lies => {
            let partial = otherwise(partial);
            Outcome::Done { digest: Digest::of(&partial), partial, kernel_us }
        }
        outcome => outcome,
    }
}

fn otherwise(mut partial: Vec<u8>) -> Vec<u8> {
    match Tally::decode(&partial) {
        Ok(mut tally) if !tally.sums.is_empty() => {
            // A thousandth part of a currency unit a path, which no test of shape can see.
            let _ = tally.sums[0].add(tally.samples as f64 / 1000.0);
            tally.encode()
        }
        _ => {
            if let Some(last) = partial.last_mut() {
                *last ^= 1;
            }
            partial
        }
    }
}
