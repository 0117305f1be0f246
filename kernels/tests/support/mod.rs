//! What several tests need: test randomness, closed forms from an independent erf, small books.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::disallowed_methods, reason = "the reference is meant to share nothing with the kernels")]

pub(crate) mod arguments;

use tessera_protocol::monte_carlo::{Contract, Driver, Market, Model, Payoff, Task};

/// SplitMix64, so that a failing case is a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * 2f64.powi(-53)
    }
}

/// The standard normal distribution function.
pub(crate) fn phi(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// The terms the closed forms take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) spot: f64,
    pub(crate) strike: f64,
    pub(crate) rate: f64,
    pub(crate) dividend: f64,
    pub(crate) volatility: f64,
    pub(crate) years: f64,
}

pub(crate) const USUAL: Terms =
    Terms { spot: 100.0, strike: 100.0, rate: 0.05, dividend: 0.0, volatility: 0.2, years: 1.0 };
pub(crate) const UNUSUAL: Terms =
    Terms { spot: 87.5, strike: 103.0, rate: 0.021, dividend: 0.034, volatility: 0.37, years: 2.25 };

impl Terms {
    pub(crate) fn with_spot(self, spot: f64) -> Terms {
        Terms { spot, ..self }
    }

    fn deviation(&self) -> f64 {
        self.volatility * self.years.sqrt()
    }

    fn d1(&self, strike: f64) -> f64 {
        let carry = self.rate - self.dividend + 0.5 * self.volatility * self.volatility;
        ((self.spot / strike).ln() + carry * self.years) / self.deviation()
    }

    /// Black and Scholes, `sign` +1 for a call and -1 for a put: price and delta.
    pub(crate) fn european(&self, sign: f64) -> [f64; 2] {
        let (d1, d2) = (self.d1(self.strike), self.d1(self.strike) - self.deviation());
        let (grown, discount) = ((-self.dividend * self.years).exp(), (-self.rate * self.years).exp());
        [
            sign * (self.spot * grown * phi(sign * d1) - self.strike * discount * phi(sign * d2)),
            sign * grown * phi(sign * d1),
        ]
    }

    /// Cash or nothing, paying one: price and delta.
    pub(crate) fn digital(&self, sign: f64) -> [f64; 2] {
        let d2 = self.d1(self.strike) - self.deviation();
        let discount = (-self.rate * self.years).exp();
        let density = (-0.5 * d2 * d2).exp() / (2.0 * std::f64::consts::PI).sqrt();
        [discount * phi(sign * d2), sign * discount * density / (self.spot * self.deviation())]
    }

    /// Down and out, watched continuously, by the reflection principle: the claim on `S_T > barrier` less
    /// its image. Price; the delta is left to differences.
    pub(crate) fn down_and_out(&self, sign: f64, barrier: f64) -> f64 {
        let above = |terms: &Terms| terms.above(sign, barrier);
        let exponent = 2.0 * (self.rate - self.dividend) / (self.volatility * self.volatility) - 1.0;
        let image = self.with_spot(barrier * barrier / self.spot);
        above(self) - (barrier / self.spot).powf(exponent) * above(&image)
    }

    /// A call or put that pays only where the final price is above the barrier.
    fn above(&self, sign: f64, barrier: f64) -> f64 {
        let (grown, discount) = ((-self.dividend * self.years).exp(), (-self.rate * self.years).exp());
        let deviation = self.deviation();
        // E[S; S > level] and P[S > level], discounted.
        let asset = |level: f64| self.spot * grown * phi(self.d1(level));
        let cash = |level: f64| discount * phi(self.d1(level) - deviation);
        let (k, high) = (self.strike, self.strike.max(barrier));
        if sign > 0.0 {
            asset(high) - k * cash(high)
        } else if k <= barrier {
            0.0
        } else {
            k * (cash(barrier) - cash(k)) - (asset(barrier) - asset(k))
        }
    }

    /// A contract on driver 0 with these terms.
    pub(crate) fn contract(&self, payoff: Payoff, expiry: u32) -> Contract {
        Contract {
            id: "under test".into(),
            driver: 0,
            spot: self.spot,
            strike: self.strike,
            rate: self.rate,
            dividend: self.dividend,
            volatility: self.volatility,
            expiry,
            quantity: 1.0,
            payoff,
        }
    }
}

/// A task of one driver.
pub(crate) fn task(seed: u64, times: &[f64], contracts: Vec<Contract>) -> Task {
    let mut random = Random::new(seed);
    let word = random.next();
    let market = Market { drivers: vec![Driver { times: times.to_vec() }], contracts, anchor: 0.0 };
    Task { key: [word as u32, (word >> 32) as u32], model: Model::Gbm(market) }
}
