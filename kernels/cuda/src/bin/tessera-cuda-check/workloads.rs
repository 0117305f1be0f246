//! Workloads that reach every branch of the kernels.
//!
//! Owns what is compared between processor, interpreter and device; tests use it too.

use tessera_protocol::monte_carlo::{Contract, Driver, Market, Model, Monitoring, Payoff, Task};

/// Points in the unit square.
pub(crate) const PI: Task = Task { key: [0x243f_6a88, 0x85a3_08d3], model: Model::Pi };

/// A usual contract.
pub(crate) fn contract(driver: u32, expiry: u32, payoff: Payoff) -> Contract {
    Contract {
        id: String::new(),
        driver,
        spot: 100.0,
        strike: 103.0,
        rate: 0.05,
        dividend: 0.01,
        volatility: 0.2,
        expiry,
        quantity: 1.0,
        payoff,
    }
}

/// A book on drivers with these dates.
pub(crate) fn book(drivers: &[&[f64]], contracts: Vec<Contract>) -> Task {
    let drivers = drivers.iter().map(|times| Driver { times: times.to_vec() }).collect();
    Task { key: [7, 0xffff_0001], model: Model::Gbm(Market { drivers, contracts, anchor: 3.25 }) }
}

/// Every payoff there is, on two drivers, with quantities of either sign and very different sizes.
pub(crate) fn every_payoff() -> Task {
    let looks = || Monitoring::Discrete(vec![0, 2]);
    let payoffs = vec![
        (0, Payoff::EuropeanCall),
        (1, Payoff::EuropeanPut),
        (0, Payoff::AsianCall { fixings: vec![0, 1, 3] }),
        (1, Payoff::AsianPut { fixings: vec![1, 2] }),
        (0, Payoff::DownAndOutCall { barrier: 85.0, monitoring: looks() }),
        (1, Payoff::DownAndOutPut { barrier: 80.0, monitoring: looks() }),
        (0, Payoff::DownAndOutCall { barrier: 90.0, monitoring: Monitoring::Continuous }),
        (1, Payoff::DownAndOutPut { barrier: 75.0, monitoring: Monitoring::Continuous }),
        (0, Payoff::DigitalCall { payout: 10.0 }),
        (1, Payoff::DigitalPut { payout: 0.1 }),
    ];
    let mut contracts = Vec::new();
    for (position, (driver, payoff)) in payoffs.into_iter().enumerate() {
        let expiry = if driver == 0 { 3 } else { 2 };
        let quantity = [1.0, -2.5, 1e-7, 3e5, 0.0][position % 5];
        contracts.push(Contract {
            quantity,
            volatility: 0.15 + 0.03 * position as f64,
            ..contract(driver, expiry, payoff)
        });
    }
    book(&[&[0.1, 0.35, 0.5, 1.25], &[0.25, 0.5, 2.0]], contracts)
}

/// A contract whose price spreads over `volatility` times the square root of its time, in exponents, around the spot.
fn spreading(volatility: f64, expiry: u32, payoff: Payoff) -> Contract {
    let usual = contract(0, expiry, payoff);
    Contract { volatility, dividend: usual.rate - 0.5 * volatility * volatility, ..usual }
}

/// Prices from zero to infinity, for every style: puts, which have a payoff all the way.
pub(crate) fn wild() -> Task {
    let continuous = Payoff::DownAndOutPut { barrier: 99.999, monitoring: Monitoring::Continuous };
    let discrete = Payoff::DownAndOutPut { barrier: 1e-290, monitoring: Monitoring::Discrete(vec![0, 1]) };
    let tiny = contract(0, 1, Payoff::EuropeanPut);
    let contracts = vec![
        spreading(130.0, 1, Payoff::EuropeanPut),
        spreading(130.0, 1, Payoff::AsianPut { fixings: vec![0, 1] }),
        spreading(130.0, 1, continuous),
        spreading(130.0, 1, discrete),
        spreading(130.0, 1, Payoff::DigitalPut { payout: 1.0 }),
        Contract { spot: 1e-290, strike: 1.1e-290, volatility: 0.9, ..tiny },
    ];
    book(&[&[1.0, 30.0]], contracts)
}

/// Payoffs, deltas and values of the book over hundreds of binary orders of magnitude, all of them summed.
pub(crate) fn spread() -> Task {
    let call = spreading(45.0, 0, Payoff::EuropeanCall);
    let put = spreading(45.0, 0, Payoff::EuropeanPut);
    let contracts = vec![
        Contract { strike: 1e-140, quantity: -1.0, ..call },
        Contract { strike: 1e140, quantity: 0.0, ..put },
    ];
    book(&[&[1.0]], contracts)
}

/// Some paths' prices leave the range of doubles.
pub(crate) fn overflowing() -> Task {
    let contracts = vec![contract(0, 0, Payoff::EuropeanPut), spreading(100.0, 0, Payoff::EuropeanCall)];
    book(&[&[60.0]], contracts)
}

/// Squares of the book's values leave the range of doubles, and nothing else does.
pub(crate) fn overflowing_book() -> Task {
    book(&[&[1.0]], vec![Contract { quantity: 1e200, ..contract(0, 0, Payoff::EuropeanPut) }])
}

/// A number that is not special but has a full significand.
pub(crate) fn noise(seed: usize) -> f64 {
    let bits = tessera_kernels::philox::Schedule::new([9, 9]).block(seed as u64, 0, 0)[0];
    tessera_kernels::elementary::inverse_normal(bits)
}
