//! A refining pass counts the values that a pass of everything tallies, wherever it is cut.

mod support;

use std::collections::BTreeMap;

use support::{Random, UNUSUAL, USUAL, task};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{KernelError, run, run_pass};
use tessera_protocol::bins::key_of;
use tessera_protocol::exact::ExactSum;
use tessera_protocol::monte_carlo::{
    Contract, KeyRange, Model, Monitoring, Payoff, Refine, SUMS_PER_CONTRACT, Task,
};
use tessera_protocol::tally::Tally;

const FIRST: u64 = 513;
const PATHS: u64 = 3_001;

fn book() -> Task {
    let watched = Payoff::DownAndOutCall { barrier: 90.0, monitoring: Monitoring::Discrete(vec![0, 1]) };
    let sold = |contract| Contract { quantity: -2.5, ..contract };
    let contracts = vec![
        USUAL.contract(Payoff::EuropeanCall, 2),
        sold(UNUSUAL.contract(Payoff::AsianPut { fixings: vec![0, 2] }, 2)),
        USUAL.contract(watched, 2),
        sold(USUAL.contract(Payoff::DigitalPut { payout: 4.0 }, 1)),
    ];
    task(41, &[0.25, 0.5, 1.0], contracts)
}

/// The book's value on each path, from tallies of one path each.
fn values(task: &Task) -> Vec<f64> {
    let Model::Gbm(market) = &task.model else { panic!("a book") };
    let value = |path| {
        let tally = run(task, Isa::detect(), path, 1, &|| false).unwrap();
        tally.sums[market.contracts.len() * SUMS_PER_CONTRACT].to_f64()
    };
    (FIRST..FIRST + PATHS).map(value).collect()
}

fn sum(values: impl Iterator<Item = f64>) -> ExactSum {
    let mut sum = ExactSum::new();
    values.for_each(|value| sum.add(value).unwrap());
    sum
}

#[test]
fn any_cut_on_any_instruction_set_counts_the_values_one_by_one() {
    let task = book();
    let values = values(&task);
    let mut sorted: Vec<u64> = values.iter().map(|value| key_of(*value)).collect();
    sorted.sort_unstable();
    let range = |first: usize, last: usize| KeyRange { first: sorted[first], last: sorted[last] };
    // A few values, a single one, and many.
    let ranges = vec![range(50, 300), range(1_000, 1_000), range(1_500, 2_500)];
    assert!(ranges.windows(2).all(|pair| pair[0].last < pair[1].first));
    for bits in [1, 7, 30] {
        let refine = Refine { ranges: ranges.clone(), bits, sums: 2 };
        let mut bins = BTreeMap::new();
        for key in values.iter().map(|value| key_of(*value)) {
            if let Some(position) = ranges.iter().position(|range| range.contains(key)) {
                *bins.entry(refine.bin(position, key)).or_default() += 1;
            }
        }
        let below =
            |range: &KeyRange| sum(values.iter().copied().filter(|value| key_of(*value) < range.first));
        let expected = Tally {
            samples: PATHS,
            sums: ranges[..2].iter().map(below).collect(),
            counts: vec![],
            bins: bins.into_iter().collect(),
        };
        assert!(expected.bins.iter().map(|(_, count)| count).sum::<u64>() >= 251 + 1 + 1_001);
        let mut random = Random::new(u64::from(bits));
        for isa in Isa::available() {
            let (mut merged, mut next) = (None::<Tally>, FIRST);
            while next < FIRST + PATHS {
                let paths = (1 + random.next() % 900).min(FIRST + PATHS - next);
                let part = run_pass(&task, Some(&refine), isa, next, paths, &|| false).unwrap();
                match &mut merged {
                    None => merged = Some(part),
                    Some(merged) => merged.merge(&part).unwrap(),
                }
                next += paths;
            }
            assert_eq!(merged.unwrap().encode(), expected.encode(), "{bits} bits on {isa}");
        }
    }
}

#[test]
fn a_pass_over_everything_is_the_tally_and_pi_has_nothing_to_refine() {
    let task = book();
    let plain = run(&task, Isa::detect(), 0, 1_000, &|| false);
    assert_eq!(run_pass(&task, None, Isa::detect(), 0, 1_000, &|| false), plain);
    let refine =
        Refine { ranges: vec![KeyRange { first: key_of(0.0), last: key_of(1.0) }], bits: 8, sums: 0 };
    let pi = Task { key: [1, 2], model: Model::Pi };
    let refused = run_pass(&pi, Some(&refine), Isa::detect(), 0, 10, &|| false);
    assert_eq!(refused, Err(KernelError::NothingToRefine));
}
