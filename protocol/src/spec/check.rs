//! What each field of a specification may be.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{FieldError, JobSpec, Params, Requirements, SpecError, StagedParams};
use crate::limits;

mod catastrophe;
mod climate;
mod dynamics;
mod matrix;
mod monte_carlo;
mod stop;
mod video;

/// Characters of a wrong value that an error repeats.
const VALUE_CHARS_MAX: usize = 160;

/// Every field that is wrong, in the order of the document, at most [`SpecError::FIELDS_MAX`].
pub(super) fn fields(spec: &JobSpec) -> Vec<FieldError> {
    let mut found = Findings(Vec::new());
    found.name("name", &spec.name);
    found.project(&spec.project);
    found.integer("seed", spec.seed, 0, limits::SEED_MAX);
    if spec.workload != spec.params.workload() {
        found.add("workload", spec.workload.kernel(), "the parameters are of another workload");
    }
    match &spec.params {
        Params::MonteCarlo(params) => {
            found.monte_carlo(params);
            found.stop(params);
        }
        Params::Gemm(params) => found.gemm(params, &spec.inputs),
        Params::Syrk(params) => found.syrk(params, &spec.inputs),
        Params::Staged(StagedParams::Climate(params)) => found.climate(params, &spec.inputs),
        Params::Staged(StagedParams::Catastrophe(params)) => found.catastrophe(params, &spec.inputs),
        Params::Staged(StagedParams::Video(params)) => found.video(params, &spec.inputs),
    }
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
    if let Some(requirements) = &spec.requirements {
        found.requirements(requirements);
    }
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

    fn name(&mut self, field: &str, value: &str) {
        if value.is_empty() || value.len() > limits::NAME_BYTES_MAX || value.chars().any(char::is_control) {
            self.add(
                field,
                &format!("{value:?}"),
                &format!("must be 1 to {} bytes without control characters", limits::NAME_BYTES_MAX),
            );
        }
    }

    fn requirements(&mut self, requirements: &Requirements) {
        if let Some(bytes) = requirements.gpu_memory_bytes {
            self.integer("requirements.gpu_memory_bytes", bytes, 1, limits::SEED_MAX);
        }
        if let Some(models) = &requirements.gpu_models {
            let (found, most) = (models.len(), limits::GPU_MODELS_MAX);
            if !(1..=most).contains(&found) {
                let allowed = format!("1 to {most} names; leave it out for any GPU");
                self.add("requirements.gpu_models", &format!("{found} entries"), &allowed);
            }
            models.iter().for_each(|model| self.name("requirements.gpu_models", model));
        }
        if let Some(regions) = &requirements.regions
            && !(1..=limits::REGIONS_MAX).contains(&regions.len())
        {
            let (found, most) = (regions.len(), limits::REGIONS_MAX);
            let allowed = format!("1 to {most} names; leave it out for any region");
            self.add("requirements.regions", &format!("{found} entries"), &allowed);
        }
    }

    fn project(&mut self, value: &str) {
        if !super::is_project(value) {
            self.add(
                "project",
                &format!("{value:?}"),
                "must be lower-case letters, digits, `-` and `_`, 1 to 128 of them",
            );
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
        let cases: [(&str, &dyn Fn(&mut serde_json::Value)); 19] = [
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
            ("params.paths: invalid value: integer `-5`, expected a whole number from 0 on", &|job| {
                job["params"]["paths"] = json!(-5)
            }),
            ("params.book[0].kind: unknown variant `swap`", &|job| {
                job["params"]["book"][0]["kind"] = json!("swap")
            }),
            ("params.shards: unknown field `shards`", &|job| job["params"]["shards"] = json!(1)),
            ("requirements.cores: unknown field `cores`", &|job| job["requirements"] = json!({ "cores": 4 })),
            ("requirements.regions[1]: a region's name is lower-case letters", &|job| {
                job["requirements"] = json!({ "regions": ["eu", "EU"] })
            }),
            ("requirements.regions = 0 entries: 1 to 16 names", &|job| {
                job["requirements"] = json!({ "regions": [] })
            }),
            ("requirements.regions = 17 entries: 1 to 16 names", &|job| {
                job["requirements"] = json!({ "regions": (["eu"; 17]) })
            }),
            ("requirements.gpu_models = 0 entries: 1 to 16 names", &|job| {
                job["requirements"] = json!({ "gpu_models": [] })
            }),
            ("requirements.gpu_models = \"\": must be 1 to 128 bytes", &|job| {
                job["requirements"] = json!({ "gpu_models": [""] })
            }),
            ("requirements.gpu_memory_bytes = 0: must be from 1 to", &|job| {
                job["requirements"] = json!({ "gpu_memory_bytes": 0 })
            }),
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
