//! General books: the same bytes on every instruction set, for every cut, and the same as when this was
//! written; opposite paths and correlated ones are what they say they are.

#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

mod support;

use support::{Random, UNUSUAL, USUAL, task};
use tessera_kernels::elementary::inverse_normal;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{KernelError, Prepared, run};
use tessera_kernels::philox::Schedule;
use tessera_protocol::exact::sample_variance;
use tessera_protocol::monte_carlo::{
    Component, Contract, Driver, General, Group, HISTOGRAM_BINS, Market, Model, Monitoring, Payoff, Scheme,
    SumsLayout, Task, Variance,
};
use tessera_protocol::tally::Tally;

const TIMES: [f64; 4] = [0.25, 0.5, 1.0, 1.5];

fn drivers(count: usize) -> Vec<Driver> {
    vec![Driver { times: TIMES.to_vec() }; count]
}

fn plain(key: [u32; 2], contracts: Vec<Contract>, drivers: Vec<Driver>) -> General {
    let groups =
        (0..drivers.len()).map(|driver| Group { members: vec![driver as u32], factor: vec![1.0] }).collect();
    assert_ne!(key, [0; 2]);
    General {
        market: Market { drivers, contracts, anchor: 0.0 },
        groups,
        variances: vec![],
        antithetic: false,
        greeks: false,
        controls: vec![],
        training_paths: 2_048,
    }
}

fn general(task: General) -> Task {
    let task = Task { key: [11, 12], model: Model::General(Box::new(task)) };
    let read = Task::decode(&task.encode());
    assert_eq!(read.as_ref(), Ok(&task), "a right task survives the wire");
    task
}

fn component(driver: u32, weight: f64) -> Component {
    Component {
        driver,
        expiry: 2,
        weight,
        spot: 100.0,
        dividend: 0.01,
        volatility: 0.2 + 0.1 * f64::from(driver),
    }
}

/// Every style on three correlated drivers and one alone, everything tallied.
fn correlated() -> Task {
    let discrete = |dates: &[u32]| Monitoring::Discrete(dates.to_vec());
    let parts = vec![component(0, 0.5), component(2, 0.75), component(3, -0.25)];
    let mut contracts = vec![
        USUAL.contract(Payoff::EuropeanCall, 3),
        UNUSUAL.contract(Payoff::AsianCall { fixings: vec![0, 1, 3] }, 3),
        USUAL.contract(Payoff::DownAndOutCall { barrier: 90.0, monitoring: discrete(&[0, 1, 2, 3]) }, 3),
        USUAL.contract(Payoff::DownAndOutPut { barrier: 70.0, monitoring: Monitoring::Continuous }, 2),
        UNUSUAL.contract(Payoff::DigitalCall { payout: 10.0 }, 0),
        USUAL.contract(Payoff::BasketCall { components: parts.clone() }, 2),
        USUAL.contract(Payoff::BasketPut { components: parts }, 2),
        USUAL.contract(Payoff::AmericanPut { exercise: vec![0, 1, 2, 3] }, 3),
        UNUSUAL.contract(Payoff::AmericanCall { exercise: vec![1, 2] }, 2),
        Contract { volatility: 90.0, ..USUAL.contract(Payoff::EuropeanPut, 3) },
    ];
    for (position, contract) in contracts.iter_mut().enumerate() {
        contract.driver = position as u32 % 4;
        contract.quantity = if position % 3 == 0 { -2.5 } else { 1.0 + position as f64 };
    }
    let mut task = plain([1, 1], contracts, drivers(4));
    task.groups = vec![
        Group {
            members: vec![0, 2, 3],
            factor: vec![1.0, 0.5, 0.75f64.sqrt(), -0.25, 0.5, 0.6875f64.sqrt()],
        },
        Group { members: vec![1], factor: vec![1.0] },
    ];
    task.antithetic = true;
    task.greeks = true;
    task.controls = (0..10).map(|position| 90.0 + f64::from(position)).collect();
    general(task)
}

/// Every style there is under stochastic variance, everything tallied.
fn heston(scheme: Scheme) -> Task {
    let discrete = |dates: &[u32]| Monitoring::Discrete(dates.to_vec());
    let parts = vec![component(0, 1.0), component(1, -0.5)];
    let mut contracts = vec![
        USUAL.contract(Payoff::EuropeanCall, 3),
        UNUSUAL.contract(Payoff::AsianPut { fixings: vec![0, 1, 3] }, 3),
        USUAL.contract(Payoff::DownAndOutCall { barrier: 90.0, monitoring: discrete(&[0, 1, 3]) }, 3),
        UNUSUAL.contract(Payoff::DigitalPut { payout: 10.0 }, 2),
        USUAL.contract(Payoff::BasketCall { components: parts }, 2),
    ];
    for (position, contract) in contracts.iter_mut().enumerate() {
        contract.driver = position as u32 % 2;
        contract.volatility = 0.0;
    }
    let mut task = plain([1, 1], contracts, drivers(2));
    let variance = |v0: f64, xi: f64| Variance {
        v0,
        kappa: 0.5,
        theta: 0.04,
        xi,
        rho: -0.9,
        scheme,
        steps: vec![3, 3, 6, 6],
    };
    // The first is far beyond Feller's condition: its variance often touches zero.
    task.variances = vec![variance(0.04, 1.0), variance(0.09, 0.3)];
    task.greeks = true;
    task.controls = vec![100.0; 5];
    general(task)
}

fn tally(task: &Task, isa: Isa, first: u64, paths: u64) -> Tally {
    run(task, isa, first, paths, &|| false).unwrap()
}

fn hash(tally: &Tally) -> String {
    blake3::hash(&tally.encode()).to_hex()[..32].to_string()
}

#[test]
fn general_books_have_the_committed_bytes_on_every_instruction_set() {
    for (name, task, committed) in [
        ("correlated", correlated(), CORRELATED),
        ("full truncation", heston(Scheme::FullTruncation), FULL_TRUNCATION),
        ("quadratic exponential", heston(Scheme::Qe), QUADRATIC_EXPONENTIAL),
    ] {
        for isa in Isa::available() {
            assert_eq!(hash(&tally(&task, isa, 0, 20_000)), committed, "{name} on {isa}");
        }
    }
}

#[test]
fn any_cut_of_a_general_book_merges_to_the_same_bytes_and_extends() {
    let mut random = Random::new(35);
    let all = Isa::available();
    for task in [correlated(), heston(Scheme::Qe)] {
        let prepared = Prepared::new(&task).unwrap();
        let whole = tally(&task, Isa::detect(), 778, 4_002);
        for _ in 0..6 {
            let (mut merged, mut next): (Option<Tally>, u64) = (None, 778);
            while next < 778 + 4_002 {
                let paths = (2 + 2 * (random.next() % 700)).min(778 + 4_002 - next);
                let isa = all[random.next() as usize % all.len()];
                let part = prepared.run(isa, next, paths, &|| false).unwrap();
                match &mut merged {
                    None => merged = Some(part),
                    Some(merged) => merged.merge(&part).unwrap(),
                }
                next += paths;
            }
            assert_eq!(merged.unwrap().encode(), whole.encode());
        }
    }
}

#[test]
fn a_range_that_cuts_a_pair_of_opposite_paths_is_refused() {
    let task = correlated();
    for (first, paths) in [(1, 2), (0, 3)] {
        assert_eq!(run(&task, Isa::detect(), first, paths, &|| false), Err(KernelError::Range));
    }
}

#[test]
fn learning_can_be_cancelled_and_begun_again() {
    let task = correlated();
    let prepared = Prepared::new(&task).unwrap();
    assert_eq!(prepared.run(Isa::detect(), 0, 100, &|| true), Err(KernelError::Cancelled));
    let after = prepared.run(Isa::detect(), 0, 100, &|| false).unwrap();
    assert_eq!(after, tally(&task, Isa::detect(), 0, 100));
}

#[test]
fn a_general_book_without_options_has_the_plain_books_sums() {
    let contracts = vec![
        USUAL.contract(Payoff::EuropeanCall, 3),
        UNUSUAL.contract(Payoff::EuropeanPut, 1),
        USUAL.contract(Payoff::DigitalCall { payout: 3.0 }, 2),
        USUAL.contract(
            Payoff::DownAndOutCall { barrier: 90.0, monitoring: Monitoring::Discrete(vec![0, 2]) },
            3,
        ),
    ];
    let plain_task = task(9, &TIMES, contracts.clone());
    let mut same = general(plain([1, 1], contracts, drivers(1)));
    same.key = plain_task.key;
    let (one, other) = (tally(&plain_task, Isa::detect(), 3, 5_000), tally(&same, Isa::detect(), 3, 5_000));
    for (one, other) in one.sums.chunks(4).zip(other.sums.chunks(4)) {
        assert_eq!(one[..2], other[..2]);
    }
    assert_eq!((&one.counts, &one.bins), (&other.counts, &other.bins));
}

#[test]
fn opposite_paths_share_their_numbers_and_a_sample_is_their_mean() {
    const PAIRS: u64 = 1_001;
    let contract = USUAL.contract(Payoff::EuropeanCall, 2);
    let mut task = plain([1, 1], vec![contract], drivers(1));
    task.antithetic = true;
    let task = general(task);
    let found = tally(&task, Isa::detect(), 0, 2 * PAIRS);
    let schedule = Schedule::new(task.key);
    let price = |w: f64| 100.0 * (0.03 + 0.2 * w).exp();
    let discounted = |w: f64| (-0.05f64).exp() * (price(w) - 100.0).max(0.0);
    let means: Vec<f64> = (0..PAIRS)
        .map(|pair| {
            let normal = |step: u32| inverse_normal(schedule.block(pair / 2, step, 0)[pair as usize % 2]);
            let w = 0.5 * normal(0) + 0.5 * normal(1) + 0.5f64.sqrt() * normal(2);
            0.5 * (discounted(w) + discounted(-w))
        })
        .collect();
    let near =
        |sum: f64, expected: f64| assert!((sum / expected - 1.0).abs() < 1e-12, "{sum} for {expected}");
    near(found.sums[0].to_f64(), means.iter().sum());
    near(found.sums[1].to_f64(), means.iter().map(|mean| mean * mean).sum());
    assert_eq!(found.samples, 2 * PAIRS);
    assert_eq!(
        found.counts[..HISTOGRAM_BINS].iter().sum::<u64>(),
        2 * PAIRS,
        "payoffs are counted path by path"
    );
}

#[test]
fn drivers_have_the_correlations_that_the_factor_gives_them() {
    // A basket far in the money is linear, so its variance is that of its weighted sum.
    const PATHS: u64 = 400_000;
    let (a, b) = (0.2, 0.3);
    let variance_of = |rho: f64, weight: f64| {
        let part = |driver, weight, volatility| Component {
            driver,
            expiry: 3,
            weight,
            spot: 100.0,
            dividend: 0.0,
            volatility,
        };
        let components = vec![part(0, 1.0, a), part(1, weight, b)];
        let contract =
            Contract { rate: 0.0, strike: 1e-9, ..USUAL.contract(Payoff::BasketCall { components }, 3) };
        let mut contract = contract;
        contract.strike = 1e-9;
        let mut task = plain([1, 1], vec![contract], drivers(2));
        task.groups = vec![Group { members: vec![0, 1], factor: vec![1.0, rho, (1.0 - rho * rho).sqrt()] }];
        let tally = tally(&general(task), Isa::detect(), 0, PATHS);
        sample_variance(PATHS, &tally.sums[0], &tally.sums[1])
    };
    let years = 1.5;
    let own = |s: f64| ((s * s * years).exp() - 1.0) * 1e4;
    for rho in [-0.6, 0.0, 0.8] {
        let shared = ((rho * a * b * years).exp() - 1.0) * 1e4;
        let expected = own(a) + own(b) + 2.0 * shared;
        let found = variance_of(rho, 1.0);
        assert!((found / expected - 1.0).abs() < 0.01, "ρ = {rho}: {found} for {expected}");
    }
}

#[test]
fn streams_and_steps_are_uncorrelated_and_normals_have_their_moments() {
    const PATHS: u64 = 200_000;
    let schedule = Schedule::new([11, 12]);
    let normal = |stream: u32, step: u32, path: u64| {
        inverse_normal(schedule.block(path / 2, step, stream)[path as usize % 2])
    };
    let columns: Vec<Vec<f64>> = [(0, 0), (0, 1), (1, 0), (1 << 30, 0), (1 << 31, 0), (1 << 31, 1)]
        .map(|(stream, step)| (0..PATHS).map(|path| normal(stream, step, path)).collect())
        .into();
    let n = PATHS as f64;
    for (position, column) in columns.iter().enumerate() {
        let moment = |power: i32| column.iter().map(|z| z.powi(power)).sum::<f64>() / n;
        // Standard deviations of the moments: of z 1, of z² √2, of z³ √15, of z⁴ √96.
        for (power, expected, deviation) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let deviation: f64 = deviation;
            let z = (moment(power) - expected) / (deviation.sqrt() / n.sqrt());
            assert!(z.abs() < 4.5, "moment {power} of column {position} is {z:.2} deviations off");
        }
        for other in &columns[..position] {
            let product: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            assert!((product / n.sqrt()).abs() < 4.5, "columns are correlated: {}", product / n);
        }
        let mut sorted = column.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let gaps =
            sorted.iter().enumerate().map(|(rank, z)| (support::phi(*z) - (rank as f64 + 0.5) / n).abs());
        // Kolmogorov's distribution at 0.1 %: 1.949 / √n.
        assert!(gaps.fold(0.0, f64::max) < 1.949 / n.sqrt(), "column {position} is not normal");
    }
}

#[test]
fn a_general_task_that_contradicts_itself_is_refused() {
    let right = || match correlated().model {
        Model::General(general) => *general,
        _ => unreachable!("it is general"),
    };
    let wrong: [(&str, &dyn Fn(&mut General)); 8] = [
        ("a driver in no group", &|task| task.groups.truncate(1)),
        ("a driver in two groups", &|task| task.groups[1].members = vec![0]),
        ("a factor too short", &|task| task.groups[0].factor.truncate(5)),
        ("members with other dates", &|task| task.market.drivers[2].times = vec![0.5, 1.0, 1.5, 2.0]),
        ("a control too few", &|task| task.controls.truncate(9)),
        ("no paths to learn from", &|task| task.training_paths = 0),
        ("too many paths to learn from", &|task| task.training_paths = u32::MAX - 1),
        ("a part twice", &|task| {
            let parts = vec![component(0, 1.0), component(0, 1.0)];
            task.market.contracts[5].payoff = Payoff::BasketCall { components: parts };
        }),
    ];
    for (what, change) in wrong {
        let mut task = right();
        change(&mut task);
        let task = Task { key: [1, 2], model: Model::General(Box::new(task)) };
        assert!(Task::decode(&task.encode()).is_err(), "{what}");
    }
    let layout = SumsLayout::of_task(&right());
    assert_eq!(layout.total(), 8 * 15 + 2 * 19 + 2);
}

const CORRELATED: &str = "7e2c06b3b6cb7688b8f94f958bb62b0d";
const FULL_TRUNCATION: &str = "4559f625920a1b28ce57621609e89df8";
const QUADRATIC_EXPONENTIAL: &str = "d74bdad171a704da45d3a31e53abde91";
