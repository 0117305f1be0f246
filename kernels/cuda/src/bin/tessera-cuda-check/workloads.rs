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

/// Prices over hundreds of orders of magnitude: every branch of the exponential and every depth of the sums.
pub(crate) fn wild() -> Task {
    let volatile = |volatility: f64, payoff: Payoff| Contract { volatility, ..contract(0, 1, payoff) };
    let tiny = Contract { spot: 1e-290, strike: 1.1e-290, ..volatile(9.0, Payoff::EuropeanPut) };
    let contracts = vec![
        volatile(6.0, Payoff::EuropeanCall),
        volatile(14.0, Payoff::EuropeanPut),
        volatile(5.0, Payoff::DownAndOutCall { barrier: 99.999, monitoring: Monitoring::Continuous }),
        volatile(24.0, Payoff::DigitalCall { payout: 1.0 }),
        volatile(11.0, Payoff::AsianPut { fixings: vec![0, 1] }),
        tiny,
    ];
    book(&[&[1.0, 30.0]], contracts)
}

/// Some paths' prices leave the range of doubles.
pub(crate) fn overflowing() -> Task {
    let wide = Contract { volatility: 40.0, spot: 1e60, ..contract(0, 0, Payoff::EuropeanCall) };
    book(&[&[60.0]], vec![contract(0, 0, Payoff::EuropeanPut), Contract { rate: 14.0, ..wide }])
}

/// A number that is not special but has a full significand.
pub(crate) fn noise(seed: usize) -> f64 {
    let bits = tessera_kernels::philox::Schedule::new([9, 9]).block(seed as u64, 0, 0)[0];
    tessera_kernels::elementary::inverse_normal(bits)
}
