//! Benchmarks of the parts: `benches/` holds one file a question. Nothing depends on this crate.

use tessera_protocol::monte_carlo::{Contract, Driver, Market, Model, Payoff, Task};

/// A European call of one year, one step, as in `compare/reference.py`: the smallest task with a price.
pub fn one_call() -> Task {
    let contract = Contract {
        id: "call".into(),
        driver: 0,
        spot: 100.0,
        strike: 100.0,
        rate: 0.05,
        dividend: 0.0,
        volatility: 0.2,
        expiry: 0,
        quantity: 1.0,
        payoff: Payoff::EuropeanCall,
    };
    let market =
        Market { drivers: vec![Driver { times: vec![1.0] }], contracts: vec![contract], anchor: 0.0 };
    Task { key: [1, 2], model: Model::Gbm(market) }
}
