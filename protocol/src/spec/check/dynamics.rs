//! What sampling, underlyings, correlations, variances, baskets and exercise dates may be.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Findings;
use super::monte_carlo::{EXPIRY_MAX, RATE_MAX, VOLATILITY_MAX};
use crate::correlation::{Correlations, NotPositiveDefinite};
use crate::limits;
use crate::monte_carlo::SumsLayout;
use crate::spec::{ContractSpec, ExerciseSpec, HestonSpec, ModelName, MonteCarloParams};

/// Largest weight of a basket in magnitude.
const WEIGHT_MAX: f64 = 1e6;
/// Largest variance, mean variance, speed and volatility of a variance: far above any market.
const HESTON_MAX: f64 = 100.0;
/// Smallest of these: below it a step's moments lose their digits.
const HESTON_MIN: f64 = 1e-6;
/// Largest correlation of a price with its variance: at one, a price given its variance has no density.
const HESTON_RHO_MAX: f64 = 0.999;
/// Most steps of a variance in a year: one to each hour.
const STEPS_PER_YEAR_MAX: u64 = 8_760;

impl Findings {
    pub(super) fn sampling(&mut self, params: &MonteCarloParams) {
        if params.model == ModelName::Pi {
            let given = [
                ("antithetic", params.antithetic),
                ("control_variate", params.control_variate),
                ("greeks", params.greeks),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                self.add(&format!("params.{field}"), "true", "must be absent for the model `pi`");
            }
            return;
        }
        if params.antithetic {
            let even = "must be even: with `antithetic` a sample is a pair of paths";
            if params.paths % 2 == 1 {
                self.add("params.paths", &params.paths.to_string(), even);
            }
            if let Some(size) = params.shard_size.filter(|size| size % 2 == 1) {
                self.add("params.shard_size", &size.to_string(), even);
            }
        }
        let sums = SumsLayout::of_params(params).total();
        if sums > limits::TALLY_SUMS_MAX {
            let allowed = format!(
                "{sums} sums with these options: a job keeps at most {}; ask for fewer contracts, greeks or controls",
                limits::TALLY_SUMS_MAX
            );
            self.add("params.book", &format!("{} contracts", params.book.len()), &allowed);
        }
    }

    pub(super) fn dynamics(&mut self, params: &MonteCarloParams) {
        self.underlyings(params);
        self.correlations(params);
        self.heston(params);
        self.training(params);
    }

    /// A volatility where the model needs one; none where it has its own variance.
    pub(super) fn volatility(&mut self, field: &str, value: f64, model: ModelName) {
        match model {
            ModelName::Heston if value == 0.0 => {}
            ModelName::Heston => self.add(
                field,
                &format!("{value}"),
                "must be absent: under `heston` the variance is the underlying's",
            ),
            ModelName::Pi | ModelName::Gbm => self.number(field, value, 0.0, VOLATILITY_MAX),
        }
    }

    fn underlyings(&mut self, params: &MonteCarloParams) {
        let mut spots: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for (position, contract) in params.book.iter().enumerate().filter(|(_, c)| !c.kind.is_basket()) {
            spots.entry(&contract.underlying).or_insert((position, contract.spot));
        }
        for (name, underlying) in &params.underlyings {
            let at = |field: &str| format!("params.underlyings.{name}.{field}");
            self.name(&format!("params.underlyings.{name}"), name);
            self.price(&at("spot"), underlying.spot);
            self.magnitude(&at("dividend"), underlying.dividend, RATE_MAX);
            self.volatility(&at("volatility"), underlying.volatility, params.model);
            if let Some((first, spot)) = spots.get(name.as_str()).filter(|(_, spot)| *spot != underlying.spot)
            {
                let allowed = format!("must equal params.book[{first}].spot = {spot}, the same underlying's");
                self.add(&at("spot"), &format!("{}", underlying.spot), &allowed);
            }
        }
        for (position, contract) in params.book.iter().enumerate() {
            for (nth, part) in contract.basket.iter().enumerate() {
                if !params.underlyings.contains_key(&part.underlying) {
                    self.add(
                        &format!("params.book[{position}].basket[{nth}].underlying"),
                        &format!("{:?}", part.underlying),
                        "not in params.underlyings, which gives the spot, volatility and dividend of what baskets hold",
                    );
                }
            }
        }
    }

    pub(super) fn basket(&mut self, contract: &ContractSpec, at: &dyn Fn(&str) -> String) {
        let elsewhere = "must be absent: a basket's underlyings are in `basket` and params.underlyings";
        if !contract.underlying.is_empty() {
            self.add(&at("underlying"), &format!("{:?}", contract.underlying), elsewhere);
        }
        for (field, value) in
            [("spot", contract.spot), ("volatility", contract.volatility), ("dividend", contract.dividend)]
        {
            if value != 0.0 {
                self.add(&at(field), &format!("{value}"), elsewhere);
            }
        }
        if contract.basket.is_empty() || contract.basket.len() > limits::CORRELATED_MAX {
            let allowed = format!("must hold 1 to {} underlyings", limits::CORRELATED_MAX);
            return self.add(&at("basket"), &format!("{} entries", contract.basket.len()), &allowed);
        }
        let mut seen = BTreeSet::new();
        for (nth, part) in contract.basket.iter().enumerate() {
            let field = |field: &str| at(&format!("basket[{nth}].{field}"));
            self.magnitude(&field("weight"), part.weight, WEIGHT_MAX);
            if part.weight == 0.0 {
                self.add(&field("weight"), "0", "must not be zero");
            }
            if !seen.insert(&part.underlying) {
                let name = format!("{:?}", part.underlying);
                self.add(&field("underlying"), &name, "is in the basket already: add its weights");
            }
        }
    }

    /// Each pair once, between underlyings that exist, and a matrix that is positive definite.
    fn correlations(&mut self, params: &MonteCarloParams) {
        if params.correlations.is_empty() {
            return;
        }
        if params.model != ModelName::Gbm {
            let count = format!("{} entries", params.correlations.len());
            return self.add("params.correlations", &count, "only the model `gbm` takes correlations");
        }
        let known: BTreeSet<&str> = params.book.iter().flat_map(ContractSpec::underlyings).collect();
        let mut pairs = BTreeSet::new();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        let before = self.0.len();
        for (nth, pair) in params.correlations.iter().enumerate() {
            let at = |field: &str| format!("params.correlations[{nth}].{field}");
            for (field, name) in [("a", pair.a.as_str()), ("b", pair.b.as_str())] {
                if !known.contains(name) {
                    self.add(
                        &at(field),
                        &format!("{name:?}"),
                        "no contract of the book is on this underlying",
                    );
                }
                named.insert(name);
            }
            if pair.a == pair.b {
                self.add(
                    &at("b"),
                    &format!("{:?}", pair.b),
                    "an underlying's correlation with itself is one",
                );
            }
            if !pairs.insert((pair.a.as_str().min(&pair.b), pair.a.as_str().max(&pair.b))) {
                self.add(&at("a"), &format!("{:?}", pair.a), "this pair has a correlation already");
            }
            if !(pair.rho > -1.0 && pair.rho < 1.0) {
                self.add(&at("rho"), &format!("{}", pair.rho), "must be between -1 and 1, neither reached");
            }
        }
        if named.len() > limits::CORRELATED_MAX {
            let allowed = format!("at most {} underlyings can be correlated", limits::CORRELATED_MAX);
            return self.add("params.correlations", &format!("{} underlyings", named.len()), &allowed);
        }
        if self.0.len() == before {
            // In the order of the book, in which the planner factors it too.
            let mut rows: Vec<&str> = Vec::new();
            for name in params.book.iter().flat_map(ContractSpec::underlyings) {
                if named.remove(name) {
                    rows.push(name);
                }
            }
            self.positive_definite(params, &rows);
        }
    }

    fn positive_definite(&mut self, params: &MonteCarloParams, rows: &[&str]) {
        let row_of = |name: &str| rows.iter().position(|row| *row == name).unwrap_or_default();
        let mut matrix = Correlations::none(rows.len());
        for pair in &params.correlations {
            matrix.set(row_of(&pair.a), row_of(&pair.b), pair.rho);
        }
        let Err(NotPositiveDefinite { row, pivot }) = matrix.factor() else { return };
        let involves = |name: &str| row_of(name) <= row;
        // The last pair that joins the row to those before it is the nearest thing to a culprit.
        let culprit = params
            .correlations
            .iter()
            .rposition(|pair| {
                involves(&pair.a) && involves(&pair.b) && (pair.a == rows[row] || pair.b == rows[row])
            })
            .unwrap_or_default();
        let pair = &params.correlations[culprit];
        let shown: Vec<String> = rows[..=row].iter().take(8).map(|name| format!("{name:?}")).collect();
        let more = if row >= 8 { ", …" } else { "" };
        let allowed = format!(
            "the matrix is not positive definite: {:?} and {:?} cannot have this correlation given the others; the \
             leading minor of {}{more} is not positive (pivot {pivot:.3e})",
            pair.a,
            pair.b,
            shown.join(", ")
        );
        self.add(&format!("params.correlations[{culprit}].rho"), &format!("{}", pair.rho), &allowed);
    }

    fn heston(&mut self, params: &MonteCarloParams) {
        let is_heston = params.model == ModelName::Heston;
        let given = [
            ("heston", !params.heston.is_empty()),
            ("scheme", params.scheme.is_some()),
            ("steps_per_year", params.steps_per_year.is_some()),
        ];
        if !is_heston {
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                self.add(&format!("params.{field}"), "given", "only the model `heston` has it");
            }
            return;
        }
        if let Some(steps) = params.steps_per_year {
            self.integer("params.steps_per_year", u64::from(steps), 1, STEPS_PER_YEAR_MAX);
        }
        let mut longest: BTreeMap<&str, f64> = BTreeMap::new();
        for contract in &params.book {
            for name in contract.underlyings() {
                let longest = longest.entry(name).or_insert(0.0);
                if contract.expiry > *longest && contract.expiry <= EXPIRY_MAX {
                    *longest = contract.expiry;
                }
            }
        }
        let per_year = f64::from(params.steps_per_year.unwrap_or(HestonSpec::STEPS_PER_YEAR));
        for (name, years) in &longest {
            if !params.heston.contains_key(*name) {
                self.add("params.heston", "", &format!("missing: {name:?} has no variance"));
            }
            // Each date rounds its steps up.
            let steps = per_year * years + limits::GRID_TIMES_MAX as f64;
            if steps > limits::VARIANCE_STEPS_MAX as f64 {
                let allowed = format!("{name:?} would take more than {} steps", limits::VARIANCE_STEPS_MAX);
                self.add("params.steps_per_year", &format!("{per_year}"), &allowed);
            }
        }
        for (name, heston) in &params.heston {
            let at = |field: &str| format!("params.heston.{name}.{field}");
            if !longest.contains_key(name.as_str()) {
                let unknown = "no contract of the book is on this underlying";
                self.add(&format!("params.heston.{name}"), &format!("{name:?}"), unknown);
            }
            for (field, value) in
                [("v0", heston.v0), ("kappa", heston.kappa), ("theta", heston.theta), ("xi", heston.xi)]
            {
                self.number(&at(field), value, HESTON_MIN, HESTON_MAX);
            }
            self.magnitude(&at("rho"), heston.rho, HESTON_RHO_MAX);
        }
    }

    pub(super) fn exercise(
        &mut self,
        contract: &ContractSpec,
        model: ModelName,
        at: &dyn Fn(&str) -> String,
    ) {
        match (&contract.exercise, contract.kind.is_american()) {
            (None, false) => {}
            (Some(_), false) => {
                self.add(&at("exercise"), "given", "only American contracts are exercised early")
            }
            (None, true) => self.add(
                &at("exercise"),
                "",
                "missing: an American contract needs a number of dates or a list of dates in years",
            ),
            (Some(_), true) if model == ModelName::Heston => {
                self.add(&at("kind"), "an American contract", "needs the model `gbm`")
            }
            (Some(ExerciseSpec::Count(count)), true) => {
                self.integer(&at("exercise"), u64::from(*count), 1, limits::GRID_TIMES_MAX as u64)
            }
            (Some(ExerciseSpec::Dates(dates)), true) => self.dates(&at("exercise"), dates, contract.expiry),
        }
    }

    /// What learning to exercise keeps and draws stays within bounds.
    fn training(&mut self, params: &MonteCarloParams) {
        let american = || params.book.iter().filter(|contract| contract.kind.is_american());
        if let Some(paths) = params.training_paths {
            if american().next().is_none() {
                let allowed = "must be absent: no contract of the book is American";
                return self.add("params.training_paths", &paths.to_string(), allowed);
            }
            let (least, most) = (limits::TRAINING_PATHS_MIN, limits::TRAINING_PATHS_MAX);
            self.integer("params.training_paths", u64::from(paths), u64::from(least), u64::from(most));
        }
        let paths = u64::from(params.training_paths.unwrap_or(MonteCarloParams::TRAINING_PATHS));
        let dates = |contract: &ContractSpec| match &contract.exercise {
            Some(ExerciseSpec::Dates(dates)) => dates.len() as u64 + 1,
            // A count beyond the limit is named where it stands.
            Some(ExerciseSpec::Count(count)) if *count as usize <= limits::GRID_TIMES_MAX => {
                u64::from(*count)
            }
            Some(ExerciseSpec::Count(_)) | None => 0,
        };
        let most = american().map(dates).max().unwrap_or(0);
        if paths.saturating_mul(most) > limits::TRAINING_PRICES_MAX {
            let allowed = format!(
                "with {most} exercise dates at most {} paths fit the memory for learning",
                limits::TRAINING_PRICES_MAX / most
            );
            return self.add("params.training_paths", &paths.to_string(), &allowed);
        }
        let all: u64 = american().map(|contract| paths * dates(contract)).sum();
        if all > limits::TRAINING_DRAWS_MAX {
            let allowed = format!(
                "the American contracts would learn from {all} prices: at most {} are drawn",
                limits::TRAINING_DRAWS_MAX
            );
            self.add("params.training_paths", &paths.to_string(), &allowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use serde_json::{Value, json};

    use crate::spec::JobSpec;

    fn underlying(id: &str, name: &str) -> Value {
        json!({ "id": id, "underlying": name, "kind": "european_call", "spot": 100, "strike": 100, "rate": 0.05,
            "volatility": 0.2, "expiry": 1 })
    }

    fn job() -> Value {
        let mut american = underlying("a", "C");
        american["kind"] = json!("american_put");
        american["exercise"] = json!(50);
        json!({ "name": "book", "workload": "monte_carlo", "params": { "model": "gbm", "paths": 1000,
            "antithetic": true, "control_variate": true, "greeks": true, "training_paths": 2048,
            "underlyings": { "A": { "spot": 100, "volatility": 0.2 }, "B": { "spot": 100, "volatility": 0.3 } },
            "correlations": [{ "a": "A", "b": "B", "rho": 0.6 }, { "a": "C", "b": "B", "rho": 0.5 }],
            "book": [underlying("x", "A"), american,
                { "id": "b", "kind": "basket_call", "strike": 100, "rate": 0.05, "expiry": 1,
                  "basket": [{ "underlying": "A", "weight": 0.5 }, { "underlying": "B", "weight": -0.5 }] }] } })
    }

    fn heston() -> Value {
        let mut contract = underlying("x", "A");
        contract.as_object_mut().unwrap().remove("volatility");
        json!({ "name": "book", "workload": "monte_carlo", "params": { "model": "heston", "paths": 1000,
            "book": [contract], "scheme": "full_truncation", "steps_per_year": 100,
            "heston": { "A": { "v0": 0.04, "kappa": 0.5, "theta": 0.04, "xi": 1.0, "rho": -0.9 } } } })
    }

    fn errors(mut job: Value, change: &dyn Fn(&mut Value)) -> String {
        change(&mut job["params"]);
        let bytes = serde_json::to_vec(&job).unwrap();
        match JobSpec::from_json(&bytes).and_then(JobSpec::check) {
            Ok(manifest) => {
                let again = JobSpec::from_json(&manifest.bytes()).and_then(JobSpec::check);
                assert_eq!(again.map(|again| again.digest()), Ok(manifest.digest()));
                String::new()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn right_jobs_pass_and_feller_s_condition_is_not_asked_for() {
        assert_eq!(errors(job(), &|_| ()), "");
        assert_eq!(errors(heston(), &|_| ()), "");
    }

    #[test]
    fn a_wrong_option_is_named_with_its_value_and_what_is_allowed() {
        let cases: Vec<(&str, &dyn Fn(&mut Value))> = alloc::vec![
            ("params.paths = 999: must be even", &|p| p["paths"] = json!(999)),
            ("params.shard_size = 3: must be even", &|p| p["shard_size"] = json!(3)),
            ("params.correlations[0].a = \"Z\": no contract of the book is on this", &|p| {
                p["correlations"][0]["a"] = json!("Z")
            }),
            ("params.correlations[1].a = \"B\": this pair has a correlation already", &|p| {
                p["correlations"][1] = json!({ "a": "B", "b": "A", "rho": 0.1 })
            }),
            ("params.correlations[0].rho = 1: must be between -1 and 1", &|p| {
                p["correlations"][0]["rho"] = json!(1)
            }),
            (
                "params.correlations[2].rho = -0.9: the matrix is not positive definite: \"A\" and \"B\" cannot have this \
                 correlation given the others; the leading minor of \"A\", \"C\", \"B\" is not positive",
                &|p| {
                    p["correlations"] = json!([{ "a": "B", "b": "C", "rho": 0.9 }, { "a": "A", "b": "C", "rho": 0.9 },
                        { "a": "A", "b": "B", "rho": -0.9 }]);
                }
            ),
            ("params.book[2].basket[1].underlying = \"Z\": not in params.underlyings", &|p| {
                p["book"][2]["basket"][1]["underlying"] = json!("Z");
                p["correlations"] = json!([]);
            }),
            ("params.book[2].basket[0].weight = 0: must not be zero", &|p| {
                p["book"][2]["basket"][0]["weight"] = json!(0)
            }),
            ("params.book[2].spot = 5: must be absent", &|p| p["book"][2]["spot"] = json!(5)),
            ("params.book[2].basket = 0 entries: must hold 1 to 128", &|p| {
                p["book"][2]["basket"] = json!([]);
                p["correlations"] = json!([]);
            }),
            ("params.underlyings.A.spot = 90: must equal params.book[0].spot = 100", &|p| {
                p["underlyings"]["A"]["spot"] = json!(90)
            }),
            ("params.underlyings.A.volatility = 0: must be greater than 0", &|p| {
                p["underlyings"]["A"] = json!({ "spot": 100 })
            }),
            ("params.book[1].exercise = 6000: must be from 1 to 5040", &|p| {
                p["book"][1]["exercise"] = json!(6000)
            }),
            ("params.book[1].exercise: missing", &|p| drop(
                p["book"][1].as_object_mut().unwrap().remove("exercise")
            )),
            ("params.training_paths = 7: must be from 1024 to 131072", &|p| p["training_paths"] = json!(7)),
            ("params.training_paths = 131072: with 50 exercise dates at most 83886", &|p| {
                p["training_paths"] = json!(131072)
            }),
            ("params.scheme = given: only the model `heston` has it", &|p| p["scheme"] = json!("qe")),
        ];
        for (expected, change) in cases {
            let message = errors(job(), change);
            assert!(message.starts_with(expected), "expected {expected:?}, got {message:?}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[test]
    fn a_wrong_variance_is_named() {
        let cases: Vec<(&str, &dyn Fn(&mut Value))> = alloc::vec![
            ("params.heston.A.v0 = 0: must be greater than", &|p| p["heston"]["A"]["v0"] = json!(0)),
            ("params.heston.A.rho = -1: must be from -0.999", &|p| p["heston"]["A"]["rho"] = json!(-1)),
            ("params.heston: missing: \"A\" has no variance", &|p| p["heston"] = json!({})),
            ("params.heston.B = \"B\": no contract", &|p| p["heston"]["B"] = p["heston"]["A"].clone()),
            ("params.steps_per_year = 0: must be from 1", &|p| p["steps_per_year"] = json!(0)),
            ("params.steps_per_year = 8760: \"A\" would take more than 50400", &|p| {
                p["steps_per_year"] = json!(8760);
                p["book"][0]["expiry"] = json!(10);
            }),
            ("params.book[0].volatility = 0.2: must be absent", &|p| p["book"][0]["volatility"] = json!(0.2)),
            ("params.book[0].monitoring = continuous: under `heston`", &|p| {
                p["book"][0]["kind"] = json!("down_and_out_call");
                p["book"][0]["barrier"] = json!(90);
                p["book"][0]["monitoring"] = json!("continuous");
            }),
            ("params.correlations = 1 entries: only the model `gbm`", &|p| {
                p["correlations"] = json!([{ "a": "A", "b": "A", "rho": 0 }])
            }),
            ("params.book[0].kind = an American contract: needs the model `gbm`", &|p| {
                p["book"][0]["kind"] = json!("american_put");
                p["book"][0]["exercise"] = json!([0.5]);
            }),
            ("params.heston.A.xi: missing field", &|p| {
                drop(p["heston"]["A"].as_object_mut().unwrap().remove("xi"))
            }),
        ];
        for (expected, change) in cases {
            let message = errors(heston(), change);
            let expected = if message.contains("missing field `xi`") { "params.heston.A" } else { expected };
            assert!(message.starts_with(expected), "expected {expected:?}, got {message:?}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
