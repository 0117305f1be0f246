//! What each field of a specification may be.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{ContractKind, ContractSpec, FieldError, JobSpec, ModelName, MonitoringSpec, SpecError};
use crate::limits;

/// Largest price, strike, barrier or payout: far above any market, small enough that sums of squares
/// stay finite. Its inverse is the smallest.
const PRICE_MAX: f64 = 1e12;
/// Largest absolute rate or dividend yield: 1000 % a year.
const RATE_MAX: f64 = 10.0;
/// Largest volatility: 1000 %.
const VOLATILITY_MAX: f64 = 10.0;
/// Longest expiry. *Units*: years.
const EXPIRY_MAX: f64 = 100.0;
/// Largest absolute quantity.
const QUANTITY_MAX: f64 = 1e12;

/// Characters of a wrong value that an error repeats.
const VALUE_CHARS_MAX: usize = 160;

/// Every field that is wrong, in the order of the document, at most [`SpecError::FIELDS_MAX`].
pub(super) fn fields(spec: &JobSpec) -> Vec<FieldError> {
    let mut found = Findings(Vec::new());
    found.name("name", &spec.name);
    found.project(&spec.project);
    found.integer("seed", spec.seed, 0, limits::SEED_MAX);
    found.integer("params.paths", spec.params.paths, 1, limits::PATHS_MAX);
    if let Some(size) = spec.params.shard_size {
        found.integer("params.shard_size", size, 1, limits::SHARD_PATHS_MAX);
        let least = spec.params.paths.div_ceil(limits::SHARDS_MAX);
        if (1..least).contains(&size) {
            let allowed =
                format!("must be at least {least}: a job has at most {} shards", limits::SHARDS_MAX);
            found.add("params.shard_size", &size.to_string(), &allowed);
        }
    }
    found.book(spec);
    if spec.inputs.len() > limits::INPUTS_MAX {
        found.add(
            "inputs",
            &format!("{} entries", spec.inputs.len()),
            &format!("at most {} entries", limits::INPUTS_MAX),
        );
    }
    for (position, input) in spec.inputs.iter().take(limits::INPUTS_MAX).enumerate() {
        found.name(&format!("inputs[{position}].name"), &input.name);
        found.integer(&format!("inputs[{position}].bytes"), input.bytes, 0, limits::SEED_MAX);
    }
    if let Some(cap) = spec.limits.cost_cap {
        found.integer("limits.cost_cap", cap, 1, limits::SEED_MAX);
    }
    if let Some(deadline) = spec.limits.deadline_s {
        found.integer("limits.deadline_s", deadline, 1, limits::DEADLINE_S_MAX);
    }
    found.integer("limits.retries", u64::from(spec.limits.retries), 0, u64::from(limits::RETRIES_MAX));
    found.0
}

struct Findings(Vec<FieldError>);

impl Findings {
    fn add(&mut self, field: &str, value: &str, allowed: &str) {
        if self.0.len() < SpecError::FIELDS_MAX {
            let shown: String = value.chars().take(VALUE_CHARS_MAX).collect();
            let value = if shown.len() < value.len() { shown + "…" } else { shown };
            self.0.push(FieldError { field: field.to_owned(), value, allowed: allowed.to_owned() });
        }
    }

    fn integer(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            self.add(field, &value.to_string(), &format!("must be from {least} to {most}"));
        }
    }

    /// The number lies in `(above, most]`.
    fn number(&mut self, field: &str, value: f64, above: f64, most: f64) {
        if !(value > above && value <= most) {
            self.add(field, &format!("{value}"), &format!("must be greater than {above} and at most {most}"));
        }
    }

    fn magnitude(&mut self, field: &str, value: f64, most: f64) {
        if !(value.is_finite() && value.abs() <= most) {
            self.add(field, &format!("{value}"), &format!("must be from -{most} to {most}"));
        }
    }

    fn price(&mut self, field: &str, value: f64) {
        if !(1.0 / PRICE_MAX..=PRICE_MAX).contains(&value) {
            self.add(
                field,
                &format!("{value}"),
                &format!("must be positive, from {:e} to {PRICE_MAX:e}", 1.0 / PRICE_MAX),
            );
        }
    }

    fn name(&mut self, field: &str, value: &str) {
        if value.is_empty() || value.len() > limits::NAME_BYTES_MAX || value.chars().any(char::is_control) {
            self.add(
                field,
                &format!("{value:?}"),
                &format!("must be 1 to {} bytes without control characters", limits::NAME_BYTES_MAX),
            );
        }
    }

    fn project(&mut self, value: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if value.is_empty() || value.len() > limits::NAME_BYTES_MAX || !value.chars().all(fits) {
            self.add(
                "project",
                &format!("{value:?}"),
                "must be lower-case letters, digits, `-` and `_`, 1 to 128 of them",
            );
        }
    }

    fn book(&mut self, spec: &JobSpec) {
        let book = &spec.params.book;
        match spec.params.model {
            ModelName::Pi if !book.is_empty() => {
                self.add(
                    "params.book",
                    &format!("{} contracts", book.len()),
                    "must be absent for the model `pi`, which prices nothing",
                );
            }
            ModelName::Gbm if book.is_empty() || book.len() > limits::CONTRACTS_MAX => {
                let allowed = format!("the model `gbm` needs 1 to {} contracts", limits::CONTRACTS_MAX);
                self.add("params.book", &format!("{} contracts", book.len()), &allowed);
            }
            ModelName::Pi | ModelName::Gbm => self.contracts(book),
        }
    }

    fn contracts(&mut self, book: &[ContractSpec]) {
        let mut ids = BTreeSet::new();
        let mut underlyings: BTreeMap<&str, (usize, &ContractSpec)> = BTreeMap::new();
        let mut dates: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (position, contract) in book.iter().enumerate() {
            let at = |field: &str| format!("params.book[{position}].{field}");
            self.contract(contract, &at);
            if !ids.insert(contract.id.as_str()) {
                self.add(
                    &at("id"),
                    &format!("{:?}", contract.id),
                    "another contract of the book has this id; ids must be unique",
                );
            }
            let (first_at, first) = *underlyings.entry(&contract.underlying).or_insert((position, contract));
            if first.spot != contract.spot {
                let allowed = format!(
                    "must equal params.book[{first_at}].spot = {}, since both are on {:?}",
                    first.spot, contract.underlying
                );
                self.add(&at("spot"), &format!("{}", contract.spot), &allowed);
            }
            let seen = dates.entry(&contract.underlying).or_default();
            let monitored: &[f64] = match &contract.monitoring {
                Some(MonitoringSpec::Dates(dates)) => dates,
                Some(MonitoringSpec::Continuous) | None => &[],
            };
            seen.extend(
                contract.fixings.iter().chain(monitored).chain([&contract.expiry]).map(|date| date.to_bits()),
            );
            if seen.len() > limits::GRID_TIMES_MAX {
                let allowed = format!(
                    "the contracts on one underlying may look at most at {} different dates",
                    limits::GRID_TIMES_MAX
                );
                return self.add(&at("underlying"), &format!("{:?}", contract.underlying), &allowed);
            }
        }
    }

    fn contract(&mut self, contract: &ContractSpec, at: &dyn Fn(&str) -> String) {
        self.name(&at("id"), &contract.id);
        self.name(&at("underlying"), &contract.underlying);
        self.price(&at("spot"), contract.spot);
        self.price(&at("strike"), contract.strike);
        self.magnitude(&at("rate"), contract.rate, RATE_MAX);
        self.magnitude(&at("dividend"), contract.dividend, RATE_MAX);
        self.number(&at("volatility"), contract.volatility, 0.0, VOLATILITY_MAX);
        self.number(&at("expiry"), contract.expiry, 0.0, EXPIRY_MAX);
        self.magnitude(&at("quantity"), contract.quantity, QUANTITY_MAX);
        let (asian, barrier, digital) = match contract.kind {
            ContractKind::EuropeanCall | ContractKind::EuropeanPut => (false, false, false),
            ContractKind::AsianCall | ContractKind::AsianPut => (true, false, false),
            ContractKind::DownAndOutCall | ContractKind::DownAndOutPut => (false, true, false),
            ContractKind::DigitalCall | ContractKind::DigitalPut => (false, false, true),
        };
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

    fn dates(&mut self, field: &str, dates: &[f64], expiry: f64) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn book_job() -> serde_json::Value {
        json!({
            "name": "book", "workload": "monte_carlo", "seed": 7,
            "params": { "model": "gbm", "paths": 1000, "book": [
                { "id": "c1", "underlying": "ACME", "kind": "european_call", "spot": 100, "strike": 100,
                  "rate": 0.05, "volatility": 0.2, "expiry": 1 },
                { "id": "c2", "underlying": "ACME", "kind": "down_and_out_call", "spot": 100, "strike": 100,
                  "rate": 0.05, "volatility": 0.2, "expiry": 1, "barrier": 90, "monitoring": [0.5, 1.0] }
            ] }
        })
    }

    fn errors(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut job = book_job();
        change(&mut job);
        let bytes = serde_json::to_vec(&job).unwrap();
        match JobSpec::from_json(&bytes).and_then(JobSpec::check) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_right_job_passes_and_its_digest_does_not_depend_on_how_it_was_written() {
        let spec = JobSpec::from_json(&serde_json::to_vec(&book_job()).unwrap()).unwrap();
        let mut spelled_out = book_job();
        spelled_out["project"] = json!("default");
        spelled_out["verify"] = json!("standard");
        spelled_out["limits"] = json!({ "retries": 4 });
        spelled_out["params"]["book"][0]["quantity"] = json!(1.0);
        let other = JobSpec::from_json(&serde_json::to_vec(&spelled_out).unwrap()).unwrap();
        assert_eq!(spec.clone().check().unwrap().digest(), other.check().unwrap().digest());
        let mut changed = spec.clone();
        changed.seed += 1;
        assert_ne!(spec.check().unwrap().digest(), changed.check().unwrap().digest());
    }

    #[test]
    fn a_wrong_field_is_named_with_its_value_and_what_is_allowed() {
        let cases: [(&str, &dyn Fn(&mut serde_json::Value)); 12] = [
            ("params.book[0].volatility = -0.2: must be greater than 0 and at most 10", &|job| {
                job["params"]["book"][0]["volatility"] = json!(-0.2)
            }),
            ("params.paths = 0: must be from 1 to 1000000000000000", &|job| {
                job["params"]["paths"] = json!(0)
            }),
            (
                "params.book[1].barrier = 100: must be below the spot, 100: the contract is dead already",
                &|job| job["params"]["book"][1]["barrier"] = json!(100),
            ),
            (
                "params.book[1].id = \"c1\": another contract of the book has this id; ids must be unique",
                &|job| job["params"]["book"][1]["id"] = json!("c1"),
            ),
            (
                "params.book[1].spot = 101: must equal params.book[0].spot = 100, since both are on \"ACME\"",
                &|job| job["params"]["book"][1]["spot"] = json!(101),
            ),
            (
                "params.book[1].monitoring[1] = 1.5: must be later than 0.5 and no later than the expiry, 1",
                &|job| job["params"]["book"][1]["monitoring"] = json!([0.5, 1.5]),
            ),
            ("params.book = 0 contracts: the model `gbm` needs 1 to 5000 contracts", &|job| {
                job["params"]["book"] = json!([])
            }),
            (
                "project = \"No Spaces\": must be lower-case letters, digits, `-` and `_`, 1 to 128 of them",
                &|job| job["project"] = json!("No Spaces"),
            ),
            ("seed = 9007199254740992: must be from 0 to 9007199254740991", &|job| {
                job["seed"] = json!(1u64 << 53)
            }),
            ("params.paths: invalid value: integer `-5`, expected u64", &|job| {
                job["params"]["paths"] = json!(-5)
            }),
            ("params.book[0].kind: unknown variant `swap`", &|job| {
                job["params"]["book"][0]["kind"] = json!("swap")
            }),
            ("params.shards: unknown field `shards`", &|job| job["params"]["shards"] = json!(1)),
        ];
        for (expected, change) in cases {
            let message = errors(change);
            assert!(message.starts_with(expected), "expected {expected:?}, got {message:?}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn several_wrong_fields_are_all_named_up_to_a_bound() {
        let message = errors(|job| {
            job["seed"] = json!(u64::MAX);
            job["params"]["paths"] = json!(0);
        });
        assert_eq!(message.lines().count(), 2, "{message}");
        let message = errors(|job| {
            let row = job["params"]["book"][0].clone();
            job["params"]["book"] = serde_json::Value::Array(alloc::vec![row; 100]);
        });
        assert_eq!(message.lines().count(), SpecError::FIELDS_MAX, "{message}");
    }
}
