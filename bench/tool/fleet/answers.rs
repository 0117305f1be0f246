//! What simulated agents say: partials that the hub's checks take for right, computed beforehand.
//!
//! Owns the jobs' specifications too, since an answer must fit its job. No agent computes anything: a shard of the
//! circle says a count that follows from its index alone, so that the job's result shows whether each was counted
//! once; a shard of a book says what the real kernel found for the first shard of such a book.

use std::fmt;

use bytes::Bytes;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::Plan;
use tessera_protocol::id::Digest;
use tessera_protocol::monte_carlo::{Model, Task};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::tally::Tally;

/// Paths of a shard.
const SHARD_PATHS: u64 = 64;
/// What a shard of the circle says: about as many of [`SHARD_PATHS`] as fall inside.
const INSIDE: [u64; 8] = [46, 48, 49, 50, 51, 52, 53, 54];

/// A partial and its digest.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) partial: Bytes,
    pub(crate) digest: Digest,
}

impl Answer {
    fn of(tally: &Tally) -> Answer {
        let partial = tally.encode();
        Answer { digest: Digest::of(&partial), partial: partial.into() }
    }
}

/// The answers to the shards of one kind of job.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    answers: Vec<Answer>,
    /// Contracts of the book; none for the circle.
    contracts: u64,
}

/// Why there are no answers of a size.
#[derive(Debug)]
pub(crate) struct TooLarge {
    asked_bytes: usize,
    largest_bytes: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--result-bytes {}: the largest result has {} bytes", self.asked_bytes, self.largest_bytes)
    }
}

impl std::error::Error for TooLarge {}

/// Which answer a shard of the circle has.
fn choice(index: u64) -> usize {
    (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as usize
}

/// Whether a task is the circle's.
pub(super) fn is_circle(task: &[u8]) -> bool {
    Task::decode(task).is_ok_and(|task| task.model == Model::Pi)
}

impl Answers {
    /// Answers of about so many bytes; the smallest are those of the circle.
    pub(crate) fn of_size(bytes: usize) -> Result<Answers, TooLarge> {
        let tally = |inside| Tally { samples: SHARD_PATHS, counts: vec![inside], ..Tally::default() };
        let circle =
            Answers { answers: INSIDE.map(|inside| Answer::of(&tally(inside))).to_vec(), contracts: 0 };
        if bytes <= circle.bytes() {
            return Ok(circle);
        }
        let (one, ten) = (Answers::of_book(1), Answers::of_book(10));
        let each = (ten.bytes() - one.bytes()) / 9;
        let contracts = 1 + bytes.saturating_sub(one.bytes()) / each.max(1);
        let most = tessera_protocol::limits::CONTRACTS_MAX;
        match contracts <= most {
            true => Ok(Answers::of_book(contracts as u64)),
            false => Err(TooLarge { asked_bytes: bytes, largest_bytes: one.bytes() + each * (most - 1) }),
        }
    }

    fn of_book(contracts: u64) -> Answers {
        let spec = spec(contracts, "book", 1, 0);
        let manifest = spec.check().expect("the book is right");
        let plan = Plan::new(&manifest, 0).expect("the book can be planned");
        let task = Task::decode(plan.task()).expect("the plan's own task");
        let tally =
            monte_carlo::run(&task, Isa::detect(), 0, SHARD_PATHS, &|| false).expect("the book computes");
        Answers { answers: vec![Answer::of(&tally)], contracts }
    }

    /// What the shard's agent says.
    pub(crate) fn to(&self, index: u64) -> &Answer {
        if self.answers.len() == 1 { &self.answers[0] } else { &self.answers[choice(index)] }
    }

    /// Length of a partial. *Units*: bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.answers[0].partial.len()
    }

    /// A job of so many shards.
    pub(crate) fn job(&self, name: &str, shards: u64, seed: u64) -> JobSpec {
        spec(self.contracts, name, shards, seed)
    }

    /// What the job's result must say, if that tells whether each shard was counted once: how many are inside.
    pub(crate) fn inside(&self, shards: u64) -> Option<u64> {
        (self.contracts == 0).then(|| (0..shards).map(|index| INSIDE[choice(index)]).sum())
    }
}

fn spec(contracts: u64, name: &str, shards: u64, seed: u64) -> JobSpec {
    let paths = shards * SHARD_PATHS;
    let params = match contracts {
        0 => serde_json::json!({"model": "pi", "paths": paths, "shard_size": SHARD_PATHS}),
        _ => {
            let contract = |number: u64| {
                serde_json::json!({
                    "id": format!("c{number}"), "underlying": "u", "kind": "european_call", "spot": 100.0,
                    "strike": 90.0 + (number % 20) as f64, "rate": 0.03, "dividend": 0.01, "volatility": 0.2,
                    "expiry": 1.0, "quantity": 1.0,
                })
            };
            let book: Vec<_> = (0..contracts).map(contract).collect();
            serde_json::json!({"model": "gbm", "paths": paths, "shard_size": SHARD_PATHS, "book": book})
        }
    };
    let text = serde_json::json!({"name": name, "workload": "monte_carlo", "seed": seed, "params": params})
        .to_string();
    JobSpec::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("the job is right: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_about_the_size_asked_for_and_are_what_the_plan_reads() {
        for bytes in [0, 500, 3_000, 40_000] {
            let answers = Answers::of_size(bytes).unwrap();
            let found = answers.bytes();
            assert!(
                bytes < 1_000 || found as f64 / bytes as f64 > 0.7 && (found as f64) < 1.5 * bytes as f64,
                "{found} for {bytes}"
            );
            let manifest = answers.job("a", 100, 1).check().unwrap();
            let plan = Plan::new(&manifest, 0).unwrap();
            assert_eq!(plan.shards(), 100);
            assert!(found <= plan.partial_bytes_max(&manifest));
        }
        assert!(Answers::of_size(1 << 30).is_err());
    }

    #[test]
    fn all_answers_of_the_circle_are_used_about_as_often() {
        let mean = Answers::of_size(0).unwrap().inside(80_000).unwrap() as f64 / 80_000.0;
        let expected = INSIDE.iter().sum::<u64>() as f64 / 8.0;
        assert!((mean - expected).abs() < 0.05, "{mean}");
    }
}
