//! The example book against closed forms that share no code with the kernels.

use serde_json::Value;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::{Next, Plan};
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::spec::{ContractKind, ContractSpec, JobSpec, Manifest, Params};

/// The normal distribution function. *Source*: `erfc` of the libm crate.
fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Price and delta of European and digital contracts. *Source*: Black and Scholes (1973), Merton (1973).
fn closed_form(c: &ContractSpec) -> Option<(f64, f64)> {
    let (s, k, r, q, v, t) = (c.spot, c.strike, c.rate, c.dividend, c.volatility, c.expiry);
    let d1 = ((s / k).ln() + (r - q + v * v / 2.0) * t) / (v * t.sqrt());
    let d2 = d1 - v * t.sqrt();
    let (forward, discount) = ((-q * t).exp(), (-r * t).exp());
    let density = (-d2 * d2 / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let payout = c.payout.unwrap_or_default();
    let slope = payout * discount * density / (s * v * t.sqrt());
    match c.kind {
        ContractKind::EuropeanCall => {
            Some((s * forward * cdf(d1) - k * discount * cdf(d2), forward * cdf(d1)))
        }
        ContractKind::EuropeanPut => {
            Some((k * discount * cdf(-d2) - s * forward * cdf(-d1), -forward * cdf(-d1)))
        }
        ContractKind::DigitalCall => Some((payout * discount * cdf(d2), slope)),
        ContractKind::DigitalPut => Some((payout * discount * cdf(-d2), -slope)),
        _ => None,
    }
}

/// The result document, made here in one call of the kernel.
fn compute(manifest: &Manifest) -> Value {
    let plan = Plan::new(manifest, 0).expect("the job can be planned");
    let task = Task::decode(plan.task()).expect("planners write tasks");
    let tally = monte_carlo::run(&task, Isa::detect(), 0, plan.end(), &|| false).expect("the kernel runs");
    let Ok(Next::Finished(document)) = tessera_planners::next(manifest, &plan, &[&tally]) else {
        panic!("every path is in")
    };
    serde_json::from_slice(&document).expect("results are JSON")
}

#[test]
fn european_and_digital_prices_and_deltas_of_the_example_book_lie_within_four_standard_errors() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/book.toml");
    let mut spec = tessera_client::spec_file::load(&path).expect("the example is right");
    let Params::MonteCarlo(params) = &mut spec.params else { panic!("a book") };
    params.paths = 500_000;
    let manifest = spec.check().expect("the example is right");
    let result = compute(&manifest);
    let mut compared = 0;
    for (contract, row) in
        manifest.spec().params.monte_carlo().unwrap().book.iter().zip(result["contracts"].as_array().unwrap())
    {
        let Some((price, delta)) = closed_form(contract) else { continue };
        let number = |field: &str| row[field].as_f64().unwrap();
        let z = (number("price") - price) / number("standard_error");
        let z_delta = (number("delta") - delta) / number("delta_standard_error");
        println!("{:12} z = {z:+.2}, of delta {z_delta:+.2}", contract.id);
        assert!(z.abs() < 4.0 && z_delta.abs() < 4.0, "{}: z {z}, of delta {z_delta}", contract.id);
        compared += 1;
    }
    assert!(compared >= 12, "the example has European and digital contracts");
}

#[test]
fn the_examples_of_baskets_and_stochastic_variance_come_out_and_show() {
    for (name, wanted) in [
        ("basket.toml", ["stopped underlying", "CARA"]),
        ("heston.toml", ["ACME-D110", "arithmetic average"]),
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let mut spec = tessera_client::spec_file::load(&path).expect("the example is right");
        let Params::MonteCarlo(params) = &mut spec.params else { panic!("a book") };
        params.paths = 20_000;
        let result = compute(&spec.check().expect("the example is right"));
        for row in result["contracts"].as_array().unwrap() {
            let number = |field: &Value| field.as_f64().unwrap();
            let (plain, error) = (number(&row["price"]), number(&row["standard_error"]));
            let controlled = number(&row["control"]["price"]);
            assert!((plain - controlled).abs() < 4.0 * error, "{}: {plain} and {controlled}", row["id"]);
        }
        let document = serde_json::to_vec(&result).unwrap();
        let page =
            tessera_client::render::result(&document, tessera_client::render::Style::default()).unwrap();
        for text in wanted {
            assert!(page.contains(text), "{page}");
        }
    }
}

#[test]
fn value_at_risk_resolves_the_spread_of_a_book_whose_level_is_far_above_it() {
    // A forward in disguise: worth a million, with a standard deviation of a hundred.
    let text = r#"{"name":"level","workload":"monte_carlo","params":{"model":"gbm","paths":200000,"book":[
        {"id":"c","underlying":"u","kind":"european_call","spot":1000000,"strike":1,"rate":0,"volatility":0.0001,
         "expiry":1}]}}"#;
    let manifest = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check).expect("right");
    let result = compute(&manifest);
    for (field, normal) in [("var95", 164.49), ("var99", 232.63), ("es95", 206.27), ("es99", 266.52)] {
        let found = result["book"]["pnl"][field].as_f64().unwrap();
        assert!((found / normal - 1.0).abs() < 0.02, "{field} = {found}, a normal loss has {normal}");
    }
}
