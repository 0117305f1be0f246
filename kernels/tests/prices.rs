//! Prices and deltas against closed forms, and against a simulation written independently.

#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

mod support;

use support::{Terms, UNUSUAL, USUAL, phi, task};
use tessera_kernels::elementary::inverse_normal;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::run;
use tessera_kernels::philox::Schedule;
use tessera_protocol::exact::sample_variance;
use tessera_protocol::monte_carlo::{Contract, HISTOGRAM_BINS, Monitoring, Payoff, SUMS_PER_CONTRACT, Task};
use tessera_protocol::tally::Tally;

const PATHS: u64 = 2_000_000;

fn tally(task: &Task, paths: u64) -> Tally {
    run(task, Isa::detect(), 0, paths, &|| false).unwrap()
}

/// Mean and standard error of sum `first` and the sum of squares behind it.
fn estimate(tally: &Tally, first: usize) -> [f64; 2] {
    let n = tally.samples;
    let variance = sample_variance(n, &tally.sums[first], &tally.sums[first + 1]);
    [tally.sums[first].to_f64() / n as f64, (variance / n as f64).sqrt()]
}

fn assert_near(what: &str, [mean, error]: [f64; 2], expected: f64) {
    let z = (mean - expected) / error;
    assert!(
        error > 0.0 && z.abs() < 4.0,
        "{what}: {mean} ± {error}, expected {expected}, {z:.2} standard errors away"
    );
}

fn check(what: &str, terms: &Terms, payoff: Payoff, [price, delta]: [f64; 2]) {
    let tally = tally(&task(7, &[terms.years], vec![terms.contract(payoff, 0)]), PATHS);
    assert_near(&format!("{what} price"), estimate(&tally, 0), price);
    assert_near(&format!("{what} delta"), estimate(&tally, 2), delta);
}

#[test]
fn the_textbook_call_costs_what_the_textbook_says() {
    let [price, _] = USUAL.european(1.0);
    assert!((price - 10.450_583_572_185_577).abs() < 1e-13, "the closed form itself gives {price}");
    check("call", &USUAL, Payoff::EuropeanCall, USUAL.european(1.0));
}

#[test]
fn europeans_and_digitals_agree_with_the_closed_form() {
    for terms in [&USUAL, &UNUSUAL] {
        check("call", terms, Payoff::EuropeanCall, terms.european(1.0));
        check("put", terms, Payoff::EuropeanPut, terms.european(-1.0));
        check(
            "digital call",
            terms,
            Payoff::DigitalCall { payout: 10.0 },
            terms.digital(1.0).map(|value| 10.0 * value),
        );
        check(
            "digital put",
            terms,
            Payoff::DigitalPut { payout: 3.0 },
            terms.digital(-1.0).map(|value| 3.0 * value),
        );
    }
}

#[test]
fn continuous_barriers_agree_with_the_reflection_principle() {
    for (terms, barrier) in [(&USUAL, 85.0), (&UNUSUAL, 70.0), (&USUAL, 99.0), (&USUAL, 20.0)] {
        for (sign, strike) in [(1.0, terms.strike), (-1.0, terms.strike), (1.0, 0.9 * barrier)] {
            let terms = Terms { strike, ..*terms };
            let price = terms.down_and_out(sign, barrier);
            let h = 1e-3;
            let delta = (terms.with_spot(terms.spot + h).down_and_out(sign, barrier)
                - terms.with_spot(terms.spot - h).down_and_out(sign, barrier))
                / (2.0 * h);
            let monitoring = Monitoring::Continuous;
            let payoff = if sign > 0.0 {
                Payoff::DownAndOutCall { barrier, monitoring }
            } else {
                Payoff::DownAndOutPut { barrier, monitoring }
            };
            check(
                &format!("barrier {barrier}, strike {strike}, sign {sign}"),
                &terms,
                payoff,
                [price, delta],
            );
        }
    }
}

#[test]
fn a_barrier_looked_at_once_has_a_closed_form_and_so_does_its_delta() {
    // Looked at only at expiry: a claim on the final price alone, whose delta differences give.
    let barrier = 95.0;
    let price = |spot: f64| {
        let terms = Terms { strike: barrier, ..USUAL.with_spot(spot) };
        let strike_gap = barrier - 90.0;
        terms.european(1.0)[0] + strike_gap * terms.digital(1.0)[0]
    };
    let terms = Terms { strike: 90.0, ..USUAL };
    let delta = (price(100.001) - price(99.999)) / 0.002;
    let payoff = Payoff::DownAndOutCall { barrier, monitoring: Monitoring::Discrete(vec![0]) };
    check("one look", &terms, payoff, [price(100.0), delta]);
}

/// Paths written down one at a time, with the platform's functions and plain sums.
struct Reference {
    times: Vec<f64>,
    schedule: Schedule,
}

impl Reference {
    fn new(task: &Task, times: &[f64]) -> Self {
        Reference { times: times.to_vec(), schedule: Schedule::new(task.key) }
    }

    /// Brownian motion of one path at every date.
    fn brownian(&self, path: u64) -> Vec<f64> {
        let (mut w, mut before) = (0.0, 0.0);
        let step = |(step, time): (usize, &f64)| {
            let bits = self.schedule.block(path / 2, step as u32, 0)[path as usize % 2];
            w += (time - before).sqrt() * inverse_normal(bits);
            before = *time;
            w
        };
        self.times.iter().enumerate().map(step).collect()
    }
}

/// Price of the underlying at one date.
fn price(contract: &Contract, time: f64, w: f64) -> f64 {
    let drift = contract.rate - contract.dividend - contract.volatility * contract.volatility / 2.0;
    contract.spot * (drift * time + contract.volatility * w).exp()
}

/// Payoff (not discounted) of one path by the contract's definition.
fn payoff(contract: &Contract, times: &[f64], w: &[f64]) -> f64 {
    let at = |date: &u32| price(contract, times[*date as usize], w[*date as usize]);
    let last = at(&contract.expiry);
    let call = |level: f64| (level - contract.strike).max(0.0);
    let put = |level: f64| (contract.strike - level).max(0.0);
    let average = |fixings: &[u32]| fixings.iter().map(at).sum::<f64>() / fixings.len() as f64;
    let alive = |monitoring: &Monitoring, barrier: f64| match monitoring {
        Monitoring::Discrete(dates) => dates.iter().all(|date| at(date) > barrier),
        Monitoring::Continuous => unreachable!("the closed form checks these"),
    };
    match &contract.payoff {
        Payoff::EuropeanCall => call(last),
        Payoff::EuropeanPut => put(last),
        Payoff::AsianCall { fixings } => call(average(fixings)),
        Payoff::AsianPut { fixings } => put(average(fixings)),
        Payoff::DownAndOutCall { barrier, monitoring } => {
            if alive(monitoring, *barrier) {
                call(last)
            } else {
                0.0
            }
        }
        Payoff::DownAndOutPut { barrier, monitoring } => {
            if alive(monitoring, *barrier) {
                put(last)
            } else {
                0.0
            }
        }
        Payoff::DigitalCall { payout } => {
            if last > contract.strike {
                *payout
            } else {
                0.0
            }
        }
        Payoff::DigitalPut { payout } => {
            if last < contract.strike {
                *payout
            } else {
                0.0
            }
        }
        _ => unreachable!("general books have tests of their own"),
    }
}

fn path_dependent_book() -> (Vec<f64>, Vec<Contract>) {
    let times = vec![0.1, 0.35, 0.5, 0.8, 1.0, 1.5];
    let discrete = |dates: &[u32]| Monitoring::Discrete(dates.to_vec());
    let contracts = vec![
        USUAL.contract(Payoff::AsianCall { fixings: vec![0, 2, 4] }, 4),
        UNUSUAL.contract(Payoff::AsianPut { fixings: vec![1, 2, 3, 5] }, 5),
        USUAL.contract(Payoff::DownAndOutCall { barrier: 92.0, monitoring: discrete(&[0, 1, 2, 3]) }, 4),
        USUAL.contract(Payoff::DownAndOutPut { barrier: 80.0, monitoring: discrete(&[1, 3, 5]) }, 5),
        UNUSUAL.contract(Payoff::DigitalPut { payout: 5.0 }, 2),
        USUAL.contract(Payoff::EuropeanCall, 3),
    ];
    (times, contracts)
}

#[test]
fn every_contract_agrees_path_by_path_with_a_simulation_written_independently() {
    const PATHS: u64 = 20_001;
    const FIRST: u64 = 4_711;
    let (times, contracts) = path_dependent_book();
    let task = task(11, &times, contracts.clone());
    let reference = Reference::new(&task, &times);
    let tally = run(&task, Isa::detect(), FIRST, PATHS, &|| false).unwrap();
    let paths: Vec<Vec<f64>> = (FIRST..FIRST + PATHS).map(|path| reference.brownian(path)).collect();
    for (position, contract) in contracts.iter().enumerate() {
        let discount = (-contract.rate * times[contract.expiry as usize]).exp();
        let payoffs: Vec<f64> = paths.iter().map(|w| payoff(contract, &times, w)).collect();
        let expected: f64 = payoffs.iter().map(|payoff| discount * payoff).sum();
        let sum = tally.sums[SUMS_PER_CONTRACT * position].to_f64();
        assert!((sum / expected - 1.0).abs() < 1e-12, "contract {position}: {sum} against {expected}");
        let zeros = payoffs.iter().filter(|payoff| **payoff == 0.0).count() as u64;
        let counts = &tally.counts[HISTOGRAM_BINS * position..][..HISTOGRAM_BINS];
        assert_eq!((counts[0], counts.iter().sum::<u64>()), (zeros, PATHS), "contract {position}");
    }
    let value: f64 = contracts
        .iter()
        .enumerate()
        .map(|(position, _)| tally.sums[SUMS_PER_CONTRACT * position].to_f64())
        .sum();
    let book = tally.sums[SUMS_PER_CONTRACT * contracts.len()].to_f64();
    assert!((book / value - 1.0).abs() < 1e-12);
    assert_eq!(tally.bins.iter().map(|(_, count)| count).sum::<u64>(), PATHS);
}

#[test]
fn deltas_of_averages_and_watched_barriers_agree_with_bumped_prices() {
    // The bumped prices share the paths, so their difference has little noise of its own for averages;
    // a barrier jumps, so its difference is wider and noisier, and its error is counted in.
    const PATHS: u64 = 4_000_000;
    let (times, contracts) = path_dependent_book();
    let bump = 0.5;
    // On the same paths, so that one book of opposite quantities gives the difference and its error.
    for (position, contract) in contracts.iter().take(4).enumerate() {
        let bumped =
            |by: f64| Contract { spot: contract.spot + by, quantity: 1.0 / (2.0 * by), ..contract.clone() };
        let (up, down) = (bumped(bump), bumped(-bump));
        let still = Contract { quantity: 0.0, ..contract.clone() };
        let tally = tally(&task(23, &times, vec![up, down, still]), PATHS);
        let [difference, difference_error] = estimate(&tally, 3 * SUMS_PER_CONTRACT);
        let [delta, delta_error] = estimate(&tally, 2 * SUMS_PER_CONTRACT + 2);
        let error = difference_error.hypot(delta_error);
        let z = (delta - difference) / error;
        println!(
            "contract {position}: delta {delta:.5} ± {delta_error:.5}, bumped {difference:.5} ± {difference_error:.5}, z {z:.2}"
        );
        assert!(z.abs() < 4.0, "contract {position}: {delta} against {difference} ± {error}");
        assert!(error < 0.02, "too noisy to say anything");
    }
}

#[test]
fn z_scores_over_200_seeds_are_normal() {
    const SEEDS: u64 = 200;
    for (what, payoff, expected) in [
        ("call", Payoff::EuropeanCall, USUAL.european(1.0)[0]),
        ("digital", Payoff::DigitalPut { payout: 1.0 }, USUAL.digital(-1.0)[0]),
    ] {
        let mut scores: Vec<f64> = (0..SEEDS)
            .map(|seed| {
                let tally =
                    tally(&task(1000 + seed, &[1.0], vec![USUAL.contract(payoff.clone(), 0)]), 20_000);
                let [mean, error] = estimate(&tally, 0);
                (mean - expected) / error
            })
            .collect();
        scores.sort_unstable_by(f64::total_cmp);
        let n = SEEDS as f64;
        let farthest = scores
            .iter()
            .enumerate()
            .map(|(rank, z)| (phi(*z) - rank as f64 / n).abs().max((phi(*z) - (rank + 1) as f64 / n).abs()));
        let distance = farthest.fold(0.0, f64::max);
        // Kolmogorov's distribution at 0.1 %: 1.949 / sqrt(n).
        println!("{what}: Kolmogorov-Smirnov distance {distance:.4} of at most {:.4}", 1.949 / n.sqrt());
        assert!(distance < 1.949 / n.sqrt(), "{what}: distance {distance}");
        assert!(scores.iter().all(|z| z.abs() < 5.0));
    }
}

#[test]
fn pi_comes_out() {
    let task = Task { key: [3, 4], model: tessera_protocol::monte_carlo::Model::Pi };
    let tally = tally(&task, 4_000_000);
    let share = tally.counts[0] as f64 / tally.samples as f64;
    let error = (share * (1.0 - share) / tally.samples as f64).sqrt();
    assert_near("pi", [4.0 * share, 4.0 * error], std::f64::consts::PI);
    assert_eq!((tally.samples, tally.counts.len(), tally.sums.len()), (4_000_000, 1, 0));
}
