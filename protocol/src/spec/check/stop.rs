//! What may make a Monte Carlo job stop early or take more than one pass.

use alloc::format;
use alloc::string::ToString;

use super::Findings;
use crate::spec::{ModelName, MonteCarloParams, Quantiles};

/// Largest absolute standard error: a price times a quantity, each at its largest.
const STANDARD_ERROR_MAX: f64 = 1e24;

impl Findings {
    pub(super) fn stop(&mut self, params: &MonteCarloParams) {
        if let Some(stop) = &params.stop {
            let most = if stop.relative { 1.0 } else { STANDARD_ERROR_MAX };
            self.number("params.stop.standard_error", stop.standard_error, 0.0, most);
            if let Some(least) = stop.min_paths
                && !(1..=params.paths).contains(&least)
            {
                let allowed = format!("must be from 1 to params.paths = {}", params.paths);
                self.add("params.stop.min_paths", &least.to_string(), &allowed);
            }
        }
        if params.quantiles == Quantiles::Exact && params.model == ModelName::Pi {
            self.add("params.quantiles", "\"exact\"", "the model `pi` has no book, so no quantiles");
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::{format, vec::Vec};

    use crate::spec::{JobSpec, Params};

    fn job(model: &str, more: &str) -> Result<crate::spec::Manifest, String> {
        let text =
            format!(r#"{{"name":"n","workload":"monte_carlo","params":{{"paths":1000000,{model},{more}}}}}"#);
        JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check).map_err(|error| error.to_string())
    }

    const PI: &str = r#""model":"pi""#;
    const BOOK: &str = r#""model":"gbm","book":[{"id":"c","underlying":"u","kind":"european_call","spot":100,
        "strike":100,"rate":0.05,"volatility":0.2,"expiry":1}]"#;

    #[test]
    fn a_wrong_stop_or_quantile_is_named() {
        let cases: Vec<(&str, &str, &str)> = alloc::vec![
            (PI, r#""stop":{"standard_error":0}"#, "params.stop.standard_error = 0: must be greater than 0"),
            (PI, r#""stop":{"standard_error":1.5,"relative":true}"#, "params.stop.standard_error = 1.5"),
            (PI, r#""stop":{"standard_error":1,"min_paths":0}"#, "params.stop.min_paths = 0: must be from 1"),
            (PI, r#""stop":{"standard_error":1,"min_paths":1000001}"#, "params.stop.min_paths = 1000001"),
            (PI, r#""stop":{"error":1}"#, "params.stop.error: unknown field"),
            (PI, r#""quantiles":"exact""#, "params.quantiles = \"exact\": the model `pi` has no book"),
            (BOOK, r#""quantiles":"p2""#, "params.quantiles: unknown variant `p2`"),
        ];
        for (model, more, expected) in cases {
            let message = job(model, more).map(|_| ()).unwrap_err();
            assert!(message.starts_with(expected), "{more}: {message}");
        }
        assert!(job(BOOK, r#""stop":{"standard_error":1},"quantiles":"exact""#).is_ok());
    }

    #[test]
    fn what_is_left_out_and_what_is_spelled_out_are_one_computation() {
        let digest = |more: &str| job(BOOK, more).unwrap().digest();
        assert_eq!(digest(r#""quantiles":"binned""#), digest(r#""shard_size":null"#));
        let stop = digest(r#""stop":{"standard_error":0.5}"#);
        assert_eq!(stop, digest(r#""stop":{"standard_error":0.5,"relative":false,"min_paths":null}"#));
        assert_ne!(stop, digest(r#""quantiles":"binned""#));
        assert_ne!(digest(r#""quantiles":"exact""#), digest(r#""quantiles":"binned""#));
    }

    #[test]
    fn more_paths_are_exactly_so_many_whatever_stopped_the_job_before() {
        let stopped = job(BOOK, r#""stop":{"standard_error":0.5}"#).unwrap();
        let plain = job(BOOK, r#""quantiles":"binned""#).unwrap();
        let extended = stopped.with_paths(2_000_000).unwrap();
        assert_eq!(extended.digest(), plain.with_paths(2_000_000).unwrap().digest());
        assert!(matches!(&extended.spec().params, Params::MonteCarlo(params) if params.stop.is_none()));
    }
}
