//! The same bits on every instruction set, for every cut of a range, and the same as when this was written.
//!
//! The committed hashes are what a result's digest rests on: a change here changes every job's digest.

mod support;

use support::{Random, UNUSUAL, USUAL, task};
use tessera_kernels::elementary::{exp, inverse_normal, log, normals_from_uniforms};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{Detail, KernelError, run, run_with};
use tessera_protocol::monte_carlo::{Contract, Driver, Model, Monitoring, Payoff, Task};
use tessera_protocol::tally::Tally;

fn hash(values: impl IntoIterator<Item = f64>) -> String {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        hasher.update(&value.to_bits().to_le_bytes());
    }
    hasher.finalize().to_hex()[..32].to_string()
}

fn hash_tally(tally: &Tally) -> String {
    blake3::hash(&tally.encode()).to_hex()[..32].to_string()
}

/// Two drivers, every payoff, a volatility that leaves the narrow range of exp.
fn whole_book(seed: u64) -> Task {
    let discrete = |dates: &[u32]| Monitoring::Discrete(dates.to_vec());
    let mut contracts = vec![
        USUAL.contract(Payoff::EuropeanCall, 3),
        USUAL.contract(Payoff::EuropeanPut, 1),
        UNUSUAL.contract(Payoff::AsianCall { fixings: vec![0, 1, 3] }, 3),
        USUAL.contract(Payoff::AsianPut { fixings: vec![2] }, 2),
        USUAL.contract(Payoff::DownAndOutCall { barrier: 90.0, monitoring: discrete(&[0, 1, 2, 3]) }, 3),
        UNUSUAL.contract(Payoff::DownAndOutPut { barrier: 60.0, monitoring: discrete(&[1, 2]) }, 3),
        USUAL.contract(Payoff::DownAndOutCall { barrier: 90.0, monitoring: Monitoring::Continuous }, 3),
        USUAL.contract(Payoff::DownAndOutPut { barrier: 70.0, monitoring: Monitoring::Continuous }, 2),
        UNUSUAL.contract(Payoff::DigitalCall { payout: 10.0 }, 0),
        USUAL.contract(Payoff::DigitalPut { payout: 2.5 }, 3),
        Contract { volatility: 90.0, ..USUAL.contract(Payoff::EuropeanPut, 3) },
    ];
    for (position, contract) in contracts.iter_mut().enumerate() {
        contract.driver = position as u32 % 2;
        contract.quantity = if position % 3 == 0 { -2.5 } else { 1.0 + position as f64 };
    }
    let mut whole = task(seed, &[0.25, 0.5, 1.0, 1.5], contracts);
    if let Model::Gbm(market) = &mut whole.model {
        market.drivers.push(Driver { times: vec![0.1, 0.7, 1.1, 2.0] });
    }
    whole
}

fn tally(task: &Task, isa: Isa, first: u64, paths: u64) -> Tally {
    run(task, isa, first, paths, &|| false).unwrap()
}

#[test]
fn log_and_exp_give_the_committed_bits() {
    let mut random = Random::new(31);
    let arguments: Vec<f64> = (0..500_000).map(|_| f64::from_bits(random.next())).collect();
    // A NaN's payload is not part of the promise.
    let plain = |value: f64| if value.is_nan() { f64::NAN } else { value };
    assert_eq!(hash(arguments.iter().map(|x| plain(log(*x)))), LOG);
    let exponents: Vec<f64> = (0..500_000).map(|_| (random.unit() - 0.5) * 1500.0).collect();
    assert_eq!(hash(exponents.iter().map(|x| exp(*x))), EXP);
}

#[test]
fn normals_have_the_committed_bits_on_every_instruction_set() {
    let mut random = Random::new(32);
    let bits: Vec<u64> = (0..1_000_003)
        .map(|point| if point % 5 == 0 { random.next() >> (point % 40) } else { random.next() })
        .collect();
    let uniforms: Vec<f64> =
        bits.iter().map(|bits| (2 * (bits >> 12) + 1) as f64 / (1u64 << 52) as f64 - 1.0).collect();
    for isa in Isa::available() {
        let mut normals = vec![0.0; uniforms.len()];
        normals_from_uniforms(isa, &uniforms, &mut normals);
        assert_eq!(hash(normals.iter().copied()), NORMALS, "on {isa}");
        assert!(
            bits.iter().zip(&normals).step_by(997).all(|(bits, normal)| inverse_normal(*bits) == *normal)
        );
    }
}

#[test]
fn a_whole_book_and_pi_have_the_committed_bytes_on_every_instruction_set() {
    let pi = Task { key: [1, 2], model: Model::Pi };
    for isa in Isa::available() {
        assert_eq!(hash_tally(&tally(&whole_book(1), isa, 0, 50_000)), BOOK, "on {isa}");
        assert_eq!(hash_tally(&tally(&pi, isa, 0, 1_000_000)), PI, "on {isa}");
    }
}

#[test]
fn any_cut_of_a_range_merges_to_the_same_bytes() {
    const FIRST: u64 = 777;
    const PATHS: u64 = 6_001;
    let mut random = Random::new(33);
    for task in [whole_book(2), Task { key: [5, 6], model: Model::Pi }] {
        let whole = tally(&task, Isa::detect(), FIRST, PATHS);
        let all = Isa::available();
        for _ in 0..12 {
            let (mut merged, mut next): (Option<Tally>, u64) = (None, FIRST);
            while next < FIRST + PATHS {
                let paths = (1 + random.next() % if random.next().is_multiple_of(2) { 5 } else { 1500 })
                    .min(FIRST + PATHS - next);
                let isa = all[random.next() as usize % all.len()];
                let part = Tally::decode(&tally(&task, isa, next, paths).encode()).unwrap();
                match &mut merged {
                    None => merged = Some(part),
                    Some(merged) => merged.merge(&part).unwrap(),
                }
                next += paths;
            }
            let merged = merged.unwrap();
            assert_eq!(merged, whole);
            assert_eq!(merged.encode(), whole.encode());
        }
    }
}

#[test]
fn no_paths_give_an_empty_tally_that_merges() {
    let task = whole_book(3);
    let mut some = tally(&task, Isa::detect(), 5, 100);
    let before = some.encode();
    some.merge(&tally(&task, Isa::detect(), 105, 0)).unwrap();
    assert_eq!(some.encode(), before);
}

#[test]
fn the_lean_tally_has_the_full_ones_price_sums() {
    let task = whole_book(4);
    let full = tally(&task, Isa::detect(), 0, 3_000);
    let lean = run_with(&task, Isa::detect(), 0, 3_000, Detail::Prices, &|| false).unwrap();
    for (full, lean) in full.sums.chunks(4).zip(lean.sums.chunks(4)).take(11) {
        assert_eq!(full[..2], lean[..2]);
    }
}

#[test]
fn the_last_paths_there_are_can_be_computed_and_one_more_is_refused() {
    let task = whole_book(5);
    assert_eq!(tally(&task, Isa::detect(), u64::MAX - 1001, 1001).samples, 1001);
    assert_eq!(run(&task, Isa::detect(), u64::MAX, 1, &|| false), Err(KernelError::Range));
}

#[test]
fn cancelling_stops_within_a_few_blocks() {
    let asked = std::cell::Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    for task in [whole_book(6), Task { key: [7, 8], model: Model::Pi }] {
        asked.set(0);
        assert_eq!(run(&task, Isa::detect(), 0, 1 << 50, &cancelled), Err(KernelError::Cancelled));
        assert_eq!(asked.get(), 4);
    }
}

#[test]
fn a_contract_that_leaves_the_doubles_is_named() {
    let call = USUAL.contract(Payoff::EuropeanCall, 0);
    for wild in [
        Contract { rate: 800.0, dividend: 100.0, ..call.clone() },
        Contract { volatility: 1e200, ..call.clone() },
        Contract { rate: -1e308, dividend: 1e308, ..call.clone() },
        Contract { spot: 1e200, ..call },
    ] {
        let task = task(1, &[1.0], vec![USUAL.contract(Payoff::EuropeanPut, 0), wild]);
        assert_eq!(run(&task, Isa::detect(), 0, 10, &|| false), Err(KernelError::NotFinite { contract: 1 }));
    }
    let many = Contract { quantity: 1e300, ..USUAL.contract(Payoff::EuropeanCall, 0) };
    assert_eq!(
        run(&task(1, &[1.0], vec![many]), Isa::detect(), 0, 10, &|| false),
        Err(KernelError::BookNotFinite)
    );
}

#[test]
fn a_task_that_points_nowhere_is_refused() {
    for contract in [
        USUAL.contract(Payoff::EuropeanCall, 1),
        Contract { driver: 1, ..USUAL.contract(Payoff::EuropeanCall, 0) },
        USUAL.contract(Payoff::AsianCall { fixings: vec![7] }, 0),
        USUAL.contract(Payoff::AsianCall { fixings: vec![] }, 0),
    ] {
        let task = task(1, &[1.0], vec![contract]);
        assert_eq!(run(&task, Isa::detect(), 0, 10, &|| false), Err(KernelError::Dates { contract: 0 }));
    }
}

const LOG: &str = "f3be127ce620138d93ffdc8c314d651a";
const EXP: &str = "ae8bd9bc5466ee45025b5aeb28bba097";
const NORMALS: &str = "17c8ef7da5a337cdddd612cc84cc01c2";
const BOOK: &str = "83aa4f5f97ff84dfdd375cfe86a09fa3";
const PI: &str = "9208ad77baed31ee16d93e291bb07cd2";
