//! What the parameters of the climate workload may be.

use alloc::format;
use alloc::string::{String, ToString};

use super::Findings;
use crate::limits;
use crate::spec::{ClimateParams, Input, WeightsSpec};

impl Findings {
    pub(super) fn climate(&mut self, params: &ClimateParams, inputs: &[Input]) {
        if params.field.is_empty() {
            self.add("params.field", "", "must name at least one entry of `inputs`");
        }
        self.field_files("params.field", &params.field, inputs);
        self.field_files("params.project", &params.project, inputs);
        for (field, name) in [("params.variable", &params.variable), ("params.units", &params.units)] {
            if let Some(name) = name {
                self.name(field, name);
            }
        }
        self.integer("params.modes", params.modes, 1, limits::CLIMATE_MODES_MAX);
        if let WeightsSpec::Input(name) = &params.weights {
            self.field_file("params.weights.input", name, inputs);
        }
        self.once("params.scalings", &params.scalings);
        self.once("params.formats", &params.formats);
        if params.scalings.is_empty() {
            self.add("params.scalings", "[]", "must hold `unscaled`, `divided` or `multiplied`");
        }
        if params.formats.is_empty() {
            self.add("params.formats", "[]", "must hold `netcdf` or `npy`");
        }
        for (position, mode) in params.reconstruct.iter().enumerate() {
            let field = format!("params.reconstruct[{position}]");
            self.integer(&field, *mode, 1, params.modes.min(limits::CLIMATE_MODES_MAX));
        }
        self.once("params.reconstruct", &params.reconstruct);
        if let Some(units) = params.shard_size {
            self.integer("params.shard_size", units, 1, limits::SHARD_PATHS_MAX);
        }
    }

    fn field_files(&mut self, field: &str, names: &[String], inputs: &[Input]) {
        if names.len() > limits::INPUTS_MAX {
            let allowed = format!("at most {} files", limits::INPUTS_MAX);
            self.add(field, &format!("{} files", names.len()), &allowed);
            return;
        }
        for (position, name) in names.iter().enumerate() {
            self.field_file(&format!("{field}[{position}]"), name, inputs);
        }
    }

    fn field_file(&mut self, field: &str, name: &str, inputs: &[Input]) {
        if !inputs.iter().any(|input| input.name == name) {
            self.add(field, &format!("{name:?}"), "must be the name of an entry of `inputs`");
        }
    }

    fn once<T: PartialEq + core::fmt::Debug>(&mut self, field: &str, all: &[T]) {
        for (position, one) in all.iter().enumerate() {
            if all[..position].contains(one) {
                let value = format!("{one:?}").to_ascii_lowercase().to_string();
                self.add(&format!("{field}[{position}]"), &value, "must be there once");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::JobSpec;
    use alloc::string::{String, ToString};
    use serde_json::json;

    fn errors(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let digest = "ab".repeat(32);
        let mut job = json!({
            "name": "winters", "workload": "climate_pca",
            "params": { "field": ["z.nc"], "weights": "sqrt_cos_lat", "modes": 3 },
            "inputs": [{ "name": "z.nc", "blake3": digest, "bytes": 1000 }]
        });
        change(&mut job);
        match JobSpec::from_value(&job).and_then(JobSpec::check) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_right_job_passes_and_wrong_fields_are_named() {
        assert_eq!(errors(|_| ()), "");
        let cases: [(&str, serde_json::Value, &str); 9] = [
            ("field", json!([]), "params.field: must name at least one entry of `inputs`"),
            (
                "field",
                json!(["y.nc"]),
                "params.field[0] = \"y.nc\": must be the name of an entry of `inputs`",
            ),
            ("project", json!(["y.nc"]), "params.project[0] = \"y.nc\": must be the name of an entry"),
            ("modes", json!(0), "params.modes = 0: must be from 1 to 256"),
            ("reconstruct", json!([4]), "params.reconstruct[0] = 4: must be from 1 to 3"),
            ("reconstruct", json!([1, 1]), "params.reconstruct[1] = 1: must be there once"),
            ("weights", json!({ "input": "w.npy" }), "params.weights.input = \"w.npy\": must be the name of"),
            ("formats", json!([]), "params.formats = []: must hold `netcdf` or `npy`"),
            ("scalings", json!(["scaled"]), "params.scalings[0]: unknown variant `scaled`"),
        ];
        for (field, value, expected) in cases {
            let message = errors(|job| job["params"][field] = value);
            assert!(message.starts_with(expected), "expected {expected:?}, got {message:?}");
        }
    }
}
