//! What the parameters of a Monte Carlo job may be.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Findings;
use crate::limits;
use crate::spec::{ContractKind, ContractSpec, ExerciseSpec, ModelName, MonitoringSpec, MonteCarloParams};

/// Largest price, strike, barrier or payout: far above any market, small enough that sums of squares
/// stay finite. Its inverse is the smallest.
const PRICE_MAX: f64 = 1e12;
/// Largest absolute rate or dividend yield: 1000 % a year.
pub(super) const RATE_MAX: f64 = 10.0;
/// Largest volatility: 1000 %.
pub(super) const VOLATILITY_MAX: f64 = 10.0;
/// Longest expiry. *Units*: years.
pub(super) const EXPIRY_MAX: f64 = 100.0;
/// Largest absolute quantity.
const QUANTITY_MAX: f64 = 1e12;

impl Findings {
    pub(super) fn monte_carlo(&mut self, params: &MonteCarloParams) {
        self.integer("params.paths", params.paths, 1, limits::PATHS_MAX);
        if let Some(size) = params.shard_size {
            self.integer("params.shard_size", size, 1, limits::SHARD_PATHS_MAX);
            let least = params.paths.div_ceil(limits::SHARDS_MAX);
            if (1..least).contains(&size) {
                let allowed =
                    format!("must be at least {least}: a job has at most {} shards", limits::SHARDS_MAX);
                self.add("params.shard_size", &size.to_string(), &allowed);
            }
        }
        self.book(params);
        self.sampling(params);
        self.dynamics(params);
    }

    pub(super) fn price(&mut self, field: &str, value: f64) {
        if !(1.0 / PRICE_MAX..=PRICE_MAX).contains(&value) {
            self.add(
                field,
                &format!("{value}"),
                &format!("must be positive, from {:e} to {PRICE_MAX:e}", 1.0 / PRICE_MAX),
            );
        }
    }

    fn book(&mut self, params: &MonteCarloParams) {
        let book = &params.book;
        match params.model {
            ModelName::Pi if !book.is_empty() => {
                self.add(
                    "params.book",
                    &format!("{} contracts", book.len()),
                    "must be absent for the model `pi`, which prices nothing",
                );
            }
            ModelName::Gbm | ModelName::Heston if book.is_empty() || book.len() > limits::CONTRACTS_MAX => {
                let model = if params.model == ModelName::Gbm { "gbm" } else { "heston" };
                let allowed = format!("the model `{model}` needs 1 to {} contracts", limits::CONTRACTS_MAX);
                self.add("params.book", &format!("{} contracts", book.len()), &allowed);
            }
            ModelName::Pi | ModelName::Gbm | ModelName::Heston => self.contracts(params),
        }
    }

    fn contracts(&mut self, params: &MonteCarloParams) {
        let mut ids = BTreeSet::new();
        let mut underlyings: BTreeMap<&str, (usize, &ContractSpec)> = BTreeMap::new();
        let mut dates: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (position, contract) in params.book.iter().enumerate() {
            let at = |field: &str| format!("params.book[{position}].{field}");
            self.contract(contract, params.model, &at);
            if !ids.insert(contract.id.as_str()) {
                self.add(
                    &at("id"),
                    &format!("{:?}", contract.id),
                    "another contract of the book has this id; ids must be unique",
                );
            }
            if !contract.kind.is_basket() {
                let (first_at, first) =
                    *underlyings.entry(&contract.underlying).or_insert((position, contract));
                if first.spot != contract.spot {
                    let allowed = format!(
                        "must equal params.book[{first_at}].spot = {}, since both are on {:?}",
                        first.spot, contract.underlying
                    );
                    self.add(&at("spot"), &format!("{}", contract.spot), &allowed);
                }
            }
            let too_many = matches!(contract.exercise, Some(ExerciseSpec::Count(count)) if count as usize > limits::GRID_TIMES_MAX);
            let looks = if too_many { Vec::new() } else { contract.dates() };
            for underlying in contract.underlyings() {
                let seen = dates.entry(underlying).or_default();
                seen.extend(looks.iter().map(|date| date.to_bits()));
                if seen.len() > limits::GRID_TIMES_MAX {
                    let allowed = format!(
                        "the contracts on one underlying may look at most at {} different dates",
                        limits::GRID_TIMES_MAX
                    );
                    return self.add(&at("underlying"), &format!("{underlying:?}"), &allowed);
                }
            }
        }
    }

    fn contract(&mut self, contract: &ContractSpec, model: ModelName, at: &dyn Fn(&str) -> String) {
        self.name(&at("id"), &contract.id);
        if contract.kind.is_basket() {
            self.basket(contract, at);
        } else {
            self.name(&at("underlying"), &contract.underlying);
            self.price(&at("spot"), contract.spot);
            self.magnitude(&at("dividend"), contract.dividend, RATE_MAX);
            self.volatility(&at("volatility"), contract.volatility, model);
            if !contract.basket.is_empty() {
                self.add(&at("basket"), "a list", "only basket contracts hold several underlyings");
            }
        }
        self.price(&at("strike"), contract.strike);
        self.magnitude(&at("rate"), contract.rate, RATE_MAX);
        self.number(&at("expiry"), contract.expiry, 0.0, EXPIRY_MAX);
        self.magnitude(&at("quantity"), contract.quantity, QUANTITY_MAX);
        self.exercise(contract, model, at);
        let asian = matches!(contract.kind, ContractKind::AsianCall | ContractKind::AsianPut);
        let barrier = matches!(contract.kind, ContractKind::DownAndOutCall | ContractKind::DownAndOutPut);
        let digital = matches!(contract.kind, ContractKind::DigitalCall | ContractKind::DigitalPut);
        match (asian, contract.fixings.as_slice()) {
            (true, dates) => self.dates(&at("fixings"), dates, contract.expiry),
            (false, []) => {}
            (false, _) => self.add(&at("fixings"), "a list", "only Asian contracts have fixings"),
        }
        match (barrier, contract.barrier) {
            (true, Some(level)) => {
                self.price(&at("barrier"), level);
                if level >= contract.spot {
                    self.add(
                        &at("barrier"),
                        &format!("{level}"),
                        &format!("must be below the spot, {}: the contract is dead already", contract.spot),
                    );
                }
            }
            (true, None) => self.add(
                &at("barrier"),
                "",
                "missing: a down-and-out contract needs a barrier below the spot",
            ),
            (false, None) => {}
            (false, Some(level)) => {
                self.add(&at("barrier"), &format!("{level}"), "only down-and-out contracts have a barrier")
            }
        }
        match (barrier, &contract.monitoring) {
            (true, Some(MonitoringSpec::Dates(dates))) => {
                self.dates(&at("monitoring"), dates, contract.expiry)
            }
            (true, Some(MonitoringSpec::Continuous)) if model == ModelName::Heston => self.add(
                &at("monitoring"),
                "continuous",
                "under `heston` a barrier is looked at on dates: no bridge is known to be exact",
            ),
            (true, Some(MonitoringSpec::Continuous)) | (false, None) => {}
            (true, None) => self.add(
                &at("monitoring"),
                "",
                "missing: a down-and-out contract needs \"continuous\" or a list of dates in years",
            ),
            (false, Some(_)) => {
                self.add(&at("monitoring"), "given", "only down-and-out contracts are monitored")
            }
        }
        match (digital, contract.payout) {
            (true, Some(payout)) => self.price(&at("payout"), payout),
            (true, None) => self.add(&at("payout"), "", "missing: a digital contract needs what it pays"),
            (false, None) => {}
            (false, Some(payout)) => {
                self.add(&at("payout"), &format!("{payout}"), "only digital contracts have a payout")
            }
        }
    }

    pub(super) fn dates(&mut self, field: &str, dates: &[f64], expiry: f64) {
        if dates.is_empty() {
            return self.add(field, "[]", "must name at least one date in years");
        }
        for (position, date) in dates.iter().enumerate() {
            let before = if position == 0 { 0.0 } else { dates[position - 1] };
            if !(*date > before && *date <= expiry) {
                let allowed = format!("must be later than {before} and no later than the expiry, {expiry}");
                return self.add(&format!("{field}[{position}]"), &format!("{date}"), &allowed);
            }
        }
    }
}
