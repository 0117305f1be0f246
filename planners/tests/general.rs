//! Jobs with every option, from their specification to their result document, against closed forms, QuantLib
//! and bumped prices.

use serde_json::{Value, json};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_planners::{Next, Part, Plan, audit};
use tessera_protocol::id::Digest;
use tessera_protocol::monte_carlo::{Refine, Task};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::ShardIndex;

/// The result document of a job's parameters, made here in one call of the kernel.
fn result(params: Value) -> Value {
    let job = json!({ "name": "test", "workload": "monte_carlo", "seed": 5, "params": params });
    let spec = JobSpec::from_json(&serde_json::to_vec(&job).unwrap());
    let manifest = spec.and_then(JobSpec::check).unwrap_or_else(|error| panic!("{error}"));
    let plan = Plan::new(&manifest, 0).expect("the job can be planned");
    assert_eq!(audit::audit(&manifest, 0, &plan), Ok(()));
    let task = Task::decode(plan.task()).expect("planners write tasks");
    let tally = monte_carlo::run(&task, Isa::detect(), 0, plan.end(), &|| false).expect("the kernel runs");
    let index = ShardIndex(0);
    if plan.shards() == 1 {
        let bytes = tally.encode();
        let part = plan.read_partial(&manifest, index, Digest::of(&bytes), &bytes);
        assert!(part.is_some(), "the partial fits its job");
    }
    let Ok(Next::Finished(document)) = tessera_planners::next(&manifest, &plan, &[&tally]) else {
        panic!("every path is in")
    };
    serde_json::from_slice(&document).expect("results are JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn assert_near(what: &str, value: &Value, error: &Value, expected: f64, slack: f64) {
    let (value, error) = (number(value), number(error));
    let z = (value - expected) / (error + slack);
    println!("{what}: {value:.6} ± {error:.6}, expected {expected:.6}, z {z:+.2}");
    assert!(z.abs() < 4.0, "{what}: {value} ± {error}, expected {expected}");
}

fn phi(x: f64) -> f64 {
    0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

#[derive(Clone, Copy)]
struct Terms {
    spot: f64,
    strike: f64,
    rate: f64,
    dividend: f64,
    volatility: f64,
    years: f64,
}

const TERMS: Terms =
    Terms { spot: 100.0, strike: 105.0, rate: 0.04, dividend: 0.015, volatility: 0.25, years: 1.25 };

impl Terms {
    fn d2(&self, level: f64) -> f64 {
        let drift = self.rate - self.dividend - 0.5 * self.volatility * self.volatility;
        ((self.spot / level).ln() + drift * self.years) / (self.volatility * self.years.sqrt())
    }

    /// Discounted `E[S; S > level]` and `P[S > level]`.
    fn above(&self, level: f64) -> (f64, f64) {
        let d2 = self.d2(level);
        let d1 = d2 + self.volatility * self.years.sqrt();
        let asset = self.spot * (-self.dividend * self.years).exp() * phi(d1);
        (asset, (-self.rate * self.years).exp() * phi(d2))
    }

    fn call(&self) -> f64 {
        let (asset, cash) = self.above(self.strike);
        asset - self.strike * cash
    }

    fn put(&self) -> f64 {
        let forward = self.spot * (-self.dividend * self.years).exp();
        self.call() - forward + self.strike * (-self.rate * self.years).exp()
    }

    fn digital_call(&self) -> f64 {
        10.0 * self.above(self.strike).1
    }

    /// Watched at expiry only, barrier 110, above the strike.
    fn one_look(&self) -> f64 {
        let (asset, cash) = self.above(110.0);
        asset - self.strike * cash
    }

    /// Watched always, barrier 85, by reflection.
    fn down_and_out(&self) -> f64 {
        let exponent = 2.0 * (self.rate - self.dividend) / (self.volatility * self.volatility) - 1.0;
        let image = Terms { spot: 85.0 * 85.0 / self.spot, ..*self };
        self.call() - (85.0 / self.spot).powf(exponent) * image.call()
    }

    /// Delta, gamma, vega, rho, theta by central differences.
    fn greeks(&self, price: fn(&Terms) -> f64) -> [f64; 5] {
        let slope = |h: f64, at: &dyn Fn(f64) -> Terms| (price(&at(h)) - price(&at(-h))) / (2.0 * h);
        let spot = |h: f64| Terms { spot: self.spot + h, ..*self };
        let gamma = (price(&spot(0.05)) - 2.0 * price(self) + price(&spot(-0.05))) / 0.0025;
        [
            slope(1e-3, &spot),
            gamma,
            slope(1e-5, &|h| Terms { volatility: self.volatility + h, ..*self }),
            slope(1e-5, &|h| Terms { rate: self.rate + h, ..*self }),
            slope(1e-5, &|h| Terms { years: self.years - h, ..*self }),
        ]
    }

    fn contract(&self, id: &str, kind: &str) -> Value {
        json!({ "id": id, "underlying": "ACME", "kind": kind, "spot": self.spot, "strike": self.strike,
            "rate": self.rate, "dividend": self.dividend, "volatility": self.volatility, "expiry": self.years })
    }
}

fn with(mut contract: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        contract[name] = value.clone();
    }
    contract
}

fn closed_form_book() -> (Vec<Value>, Vec<fn(&Terms) -> f64>) {
    let of = |id: &str, kind: &str, fields: Value| with(TERMS.contract(id, kind), fields);
    let contracts = vec![
        of("call", "european_call", json!({})),
        of("put", "european_put", json!({})),
        of("digital", "digital_call", json!({ "payout": 10.0 })),
        of("one look", "down_and_out_call", json!({ "barrier": 99.0, "monitoring": [1.25] })),
        of("continuous", "down_and_out_call", json!({ "barrier": 85.0, "monitoring": "continuous" })),
    ];
    let prices: Vec<fn(&Terms) -> f64> =
        vec![Terms::call, Terms::put, Terms::digital_call, Terms::call, Terms::down_and_out];
    (contracts, prices)
}

#[test]
fn prices_and_all_greeks_of_contracts_with_closed_forms_lie_within_four_standard_errors() {
    let (contracts, prices) = closed_form_book();
    for antithetic in [false, true] {
        let found =
            result(json!({ "model": "gbm", "paths": 2_000_000, "greeks": true, "antithetic": antithetic,
            "control_variate": true, "book": contracts }));
        for (row, price) in found["contracts"].as_array().unwrap().iter().zip(&prices) {
            let id = row["id"].as_str().unwrap();
            assert_near(id, &row["price"], &row["standard_error"], price(&TERMS), 0.0);
            let control = &row["control"];
            assert_near("controlled", &control["price"], &control["standard_error"], price(&TERMS), 0.0);
            assert!(number(&control["standard_error"]) <= number(&row["standard_error"]));
            let expected = TERMS.greeks(*price);
            assert_near("delta", &row["delta"], &row["delta_standard_error"], expected[0], 0.0);
            for (greek, expected) in ["gamma", "vega", "rho", "theta"].iter().zip(&expected[1..]) {
                let found = &row["greeks"][greek];
                assert_near(greek, &found["value"], &found["standard_error"], *expected, 1e-6);
                assert!(found["method"].is_string());
            }
        }
    }
}

#[test]
fn a_barrier_above_the_strike_that_is_looked_at_once_has_the_greeks_of_its_two_parts() {
    let contract = with(
        TERMS.contract("one", "down_and_out_call"),
        json!({ "spot": 120.0, "barrier": 110.0, "monitoring": [1.25] }),
    );
    let terms = Terms { spot: 120.0, ..TERMS };
    let found = result(json!({ "model": "gbm", "paths": 1_000_000, "greeks": true, "book": [contract] }));
    let row = &found["contracts"][0];
    assert_near("price", &row["price"], &row["standard_error"], terms.one_look(), 0.0);
    for (greek, expected) in ["gamma", "vega", "rho", "theta"].iter().zip(&terms.greeks(Terms::one_look)[1..])
    {
        let found = &row["greeks"][greek];
        assert_near(greek, &found["value"], &found["standard_error"], *expected, 1e-6);
    }
}

#[test]
fn greeks_of_averages_and_watched_barriers_agree_with_prices_bumped_on_the_same_paths() {
    // One book of opposite quantities gives the difference and its standard error.
    let shift = |dates: &[f64], by: f64| dates.iter().map(|date| date + by).collect::<Vec<f64>>();
    let dates = [0.5, 0.9, 1.25];
    let build = |id: &str, asian: bool, terms: &Terms, later: f64, quantity: f64| {
        let terms = Terms { years: terms.years + later, ..*terms };
        let dates = json!(shift(&dates, later));
        let fields = if asian {
            json!({ "kind": "asian_call", "fixings": dates, "quantity": quantity })
        } else {
            json!({ "kind": "down_and_out_call", "barrier": 85.0, "monitoring": dates, "quantity": quantity })
        };
        with(terms.contract(id, "asian_call"), fields)
    };
    for asian in [true, false] {
        let (h_volatility, h_rate, h_time) = (0.01, 0.005, 0.02);
        let bumps: [(&str, f64, f64, &dyn Fn(f64) -> Terms); 3] = [
            ("vega", h_volatility, 0.0, &|h| Terms { volatility: TERMS.volatility + h, ..TERMS }),
            ("rho", h_rate, 0.0, &|h| Terms { rate: TERMS.rate + h, ..TERMS }),
            ("theta", h_time, -1.0, &|_| TERMS),
        ];
        for (greek, h, later, bumped) in bumps {
            let book = [
                build("up", asian, &bumped(h), later * h, 1.0 / (2.0 * h)),
                build("down", asian, &bumped(-h), -later * h, -1.0 / (2.0 * h)),
                build("still", asian, &TERMS, 0.0, 0.0),
            ];
            let found = result(json!({ "model": "gbm", "paths": 1_000_000, "greeks": true, "book": book }));
            let estimate = &found["contracts"][2]["greeks"][greek];
            let error = number(&found["book"]["standard_error"]);
            let what = format!("{greek}, asian: {asian}");
            let expected = number(&found["book"]["value"]);
            assert_near(&what, &estimate["value"], &estimate["standard_error"], expected, error);
        }
        let h = 1.0;
        let deltas = [h, -h].map(|by| {
            let terms = Terms { spot: TERMS.spot + by, ..TERMS };
            let book = [build("bumped", asian, &terms, 0.0, 1.0)];
            let found = result(json!({ "model": "gbm", "paths": 1_000_000, "greeks": true, "book": book }));
            let row = &found["contracts"][0];
            [number(&row["delta"]), number(&row["delta_standard_error"])]
        });
        let book = [build("still", asian, &TERMS, 0.0, 1.0)];
        let found = result(json!({ "model": "gbm", "paths": 1_000_000, "greeks": true, "book": book }));
        let gamma = &found["contracts"][0]["greeks"]["gamma"];
        let expected = (deltas[0][0] - deltas[1][0]) / (2.0 * h);
        let error = deltas[0][1].hypot(deltas[1][1]) / (2.0 * h);
        assert_near("gamma", &gamma["value"], &gamma["standard_error"], expected, error);
    }
}

#[test]
fn controls_and_opposite_paths_make_the_same_price_less_noisy() {
    let asian = with(TERMS.contract("a", "asian_call"), json!({ "fixings": [0.25, 0.5, 0.75, 1.0, 1.25] }));
    let run = |antithetic: bool| {
        let found = result(json!({ "model": "gbm", "paths": 400_000, "antithetic": antithetic,
            "control_variate": true, "book": [asian] }));
        assert_eq!(found.get("antithetic").is_some(), antithetic);
        found["contracts"][0].clone()
    };
    let (plain, opposite) = (run(false), run(true));
    assert_eq!(plain["control"]["method"], "geometric_average");
    let [plain_error, opposite_error] = [&plain, &opposite].map(|row| number(&row["standard_error"]));
    assert!(opposite_error < 0.9 * plain_error, "{opposite_error} against {plain_error}");
    let controlled = number(&plain["control"]["standard_error"]);
    assert!(controlled < 0.05 * plain_error, "{controlled} against {plain_error}");
    let better = number(&plain["control"]["price"]);
    assert_near("plain", &plain["price"], &plain["standard_error"], better, controlled);
    let other = number(&opposite["control"]["price"]);
    assert_near("opposite", &json!(other), &opposite["control"]["standard_error"], better, controlled);
}

#[test]
fn a_spread_costs_what_margrabe_says_and_so_do_its_deltas() {
    let [s1, s2, v1, v2, q1, q2, years]: [f64; 7] = [100.0, 95.0, 0.2, 0.3, 0.01, 0.03, 1.5];
    for rho in [-0.5, 0.0, 0.7] {
        let deviation: f64 = (v1 * v1 + v2 * v2 - 2.0 * rho * v1 * v2).sqrt() * years.sqrt();
        let (f1, f2) = (s1 * (-q1 * years).exp(), s2 * (-q2 * years).exp());
        let d1 = (f1 / f2).ln() / deviation + 0.5 * deviation;
        let d2 = d1 - deviation;
        let found = result(json!({ "model": "gbm", "paths": 1_000_000, "control_variate": true,
            "underlyings": { "A": { "spot": s1, "volatility": v1, "dividend": q1 },
                             "B": { "spot": s2, "volatility": v2, "dividend": q2 } },
            "correlations": [{ "a": "B", "b": "A", "rho": rho }],
            "book": [{ "id": "spread", "kind": "basket_call", "strike": 1e-9, "rate": 0.04, "expiry": years,
                "basket": [{ "underlying": "A", "weight": 1.0 }, { "underlying": "B", "weight": -1.0 }] }] }));
        let row = &found["contracts"][0];
        assert_near("spread", &row["price"], &row["standard_error"], f1 * phi(d1) - f2 * phi(d2), 0.0);
        let control = &row["control"];
        assert_near(
            "controlled",
            &control["price"],
            &control["standard_error"],
            f1 * phi(d1) - f2 * phi(d2),
            0.0,
        );
        for (delta, expected) in
            row["deltas"].as_array().unwrap().iter().zip([f1 / s1 * phi(d1), -f2 / s2 * phi(d2)])
        {
            assert_near("delta", &delta["delta"], &delta["delta_standard_error"], expected, 0.0);
        }
        assert!(row.get("delta").is_none() && row.get("underlying").is_none());
    }
}

/// Spot 100; rate, dividend, and v0, kappa, theta, xi, rho; then sign, strike, years and price, and the price of a
/// digital call at 100 for a year. From `kernels/reference/quantlib.py`, QuantLib 1.44.
type HestonCase = (f64, f64, [f64; 5], [(f64, f64, f64, f64); 3], f64);
const HESTON: [HestonCase; 2] = [
    (
        0.03,
        0.01,
        [0.04, 1.5, 0.05, 0.5, -0.7],
        [
            (1.0, 100.0, 1.0, 8.594220723742064),
            (-1.0, 90.0, 1.0, 3.5951739842444086),
            (1.0, 120.0, 2.0, 4.33961545144071),
        ],
        0.5827097408035442,
    ),
    (
        0.02,
        0.0,
        [0.04, 0.5, 0.04, 1.0, -0.9],
        [
            (1.0, 100.0, 1.0, 5.9424285859772),
            (-1.0, 90.0, 1.0, 2.56162246255115),
            (1.0, 120.0, 2.0, 0.22141095887102816),
        ],
        0.7833408976509008,
    ),
];

fn heston_job(case: &HestonCase, scheme: &str, steps: u32, paths: u64) -> Value {
    let (rate, dividend, [v0, kappa, theta, xi, rho], prices, _) = case;
    let mut book: Vec<Value> = prices
        .iter()
        .enumerate()
        .map(|(position, (sign, strike, years, _))| {
            let kind = if *sign > 0.0 { "european_call" } else { "european_put" };
            json!({ "id": format!("{position}"), "underlying": "X", "kind": kind, "spot": 100.0, "strike": strike,
                "rate": rate, "dividend": dividend, "expiry": years })
        })
        .collect();
    book.push(
        json!({ "id": "digital", "underlying": "X", "kind": "digital_call", "spot": 100.0, "strike": 100.0,
        "rate": rate, "dividend": dividend, "expiry": 1.0, "payout": 1.0 }),
    );
    json!({ "model": "heston", "paths": paths, "scheme": scheme, "steps_per_year": steps, "book": book, "greeks": true,
        "control_variate": true, "heston": { "X": { "v0": v0, "kappa": kappa, "theta": theta, "xi": xi, "rho": rho } } })
}

#[test]
fn heston_prices_agree_with_quantlib_under_both_schemes() {
    // The bias of a scheme at these steps is allowed for: Euler's is 0.1 where Feller's condition fails by far.
    for (scheme, steps, paths, biases) in
        [("qe", 16, 400_000, [0.01, 0.01]), ("full_truncation", 128, 150_000, [0.02, 0.16])]
    {
        for (case, bias) in HESTON.iter().zip(biases) {
            let found = result(heston_job(case, scheme, steps, paths));
            let rows = found["contracts"].as_array().unwrap();
            for ((_, strike, years, price), row) in case.3.iter().zip(rows) {
                let what = format!("{scheme}, strike {strike}, {years} years");
                assert_near(&what, &row["price"], &row["standard_error"], *price, bias / 4.0);
                let control = &row["control"];
                assert_near("controlled", &control["price"], &control["standard_error"], *price, bias / 4.0);
            }
            let digital = &rows[3];
            assert_near("digital", &digital["price"], &digital["standard_error"], case.4, bias / 40.0);
        }
    }
}

#[test]
fn heston_greeks_agree_with_bumps_and_those_that_have_no_meaning_are_left_out() {
    let case = &HESTON[0];
    let prices = |spot: f64, rate: f64| {
        let mut job = heston_job(&(rate, case.1, case.2, case.3, case.4), "qe", 8, 400_000);
        for contract in job["book"].as_array_mut().unwrap() {
            contract["spot"] = json!(spot);
        }
        result(job)["contracts"].as_array().unwrap().clone()
    };
    let (still, up, down) = (prices(100.0, case.0), prices(101.0, case.0), prices(99.0, case.0));
    let (richer, poorer) = (prices(100.0, case.0 + 0.002), prices(100.0, case.0 - 0.002));
    for position in 0..4 {
        let row = &still[position];
        let slope =
            |up: &Value, down: &Value, h: f64| (number(&up["price"]) - number(&down["price"])) / (2.0 * h);
        // Bumped on the same paths; a digital's difference is noisy.
        let noise = if position == 3 { 0.002 } else { 0.001 };
        let delta = slope(&up[position], &down[position], 1.0);
        assert_near("delta", &row["delta"], &row["delta_standard_error"], delta, noise);
        let greeks = &row["greeks"];
        let gamma = (number(&up[position]["delta"]) - number(&down[position]["delta"])) / 2.0;
        assert_near("gamma", &greeks["gamma"]["value"], &greeks["gamma"]["standard_error"], gamma, noise);
        let rho = slope(&richer[position], &poorer[position], 0.002);
        assert_near("rho", &greeks["rho"]["value"], &greeks["rho"]["standard_error"], rho, 100.0 * noise);
        assert!(greeks["vega"].is_null() && greeks["theta"].is_null());
    }
}

#[test]
fn american_prices_are_just_below_quantlib_and_their_deltas_near() {
    // `bermudan` of kernels/reference/quantlib.py, finite differences with 2,000 × 2,000 steps.
    let put = json!({ "id": "put", "underlying": "P", "kind": "american_put", "spot": 100.0, "strike": 100.0, "rate": 0.05,
        "volatility": 0.2, "expiry": 1.0, "exercise": 12 });
    let call = json!({ "id": "call", "underlying": "C", "kind": "american_call", "spot": 100.0, "strike": 100.0,
        "rate": 0.03, "dividend": 0.08, "volatility": 0.25, "expiry": 1.5, "exercise": 9 });
    let found = result(json!({ "model": "gbm", "paths": 1_000_000, "control_variate": true, "greeks": true,
        "training_paths": 65_536, "book": [put, call] }));
    for (row, (price, delta)) in
        found["contracts"].as_array().unwrap().iter().zip([(6.04281, -0.408574), (8.95354, 0.474952)])
    {
        let (found, error) = (number(&row["price"]), number(&row["standard_error"]));
        println!("{}: {found:.5} ± {error:.5} below {price}", row["id"]);
        assert!(found < price + 4.0 * error, "a rule that was learnt cannot beat the best one");
        assert!(found > price * 0.996 - 4.0 * error, "the rule loses more than 0.4 %");
        let control = &row["control"];
        assert_near("controlled", &control["price"], &control["standard_error"], price, 0.004 * price / 4.0);
        assert!(number(&control["standard_error"]) < 0.7 * error);
        assert_near("delta", &row["delta"], &row["delta_standard_error"], delta, 0.002);
        assert!(row["greeks"]["gamma"].is_null() && row["greeks"]["vega"]["value"].is_number());
    }
}

#[test]
fn one_chance_to_exercise_makes_a_european_contract() {
    let contract = with(TERMS.contract("one", "american_put"), json!({ "exercise": 1 }));
    let european = TERMS.contract("european", "european_put");
    let found = result(json!({ "model": "gbm", "paths": 100_000, "book": [contract, european] }));
    assert_eq!(found["contracts"][0]["price"], found["contracts"][1]["price"]);
}

#[test]
fn general_books_stop_early_and_rank_their_values_exactly() {
    let case = &HESTON[0];
    let mut heston = heston_job(case, "qe", 4, 200_000);
    let contract = with(TERMS.contract("put", "american_put"), json!({ "exercise": 4 }));
    let mut american = json!({ "model": "gbm", "paths": 200_000, "book": [contract] });
    for params in [&mut heston, &mut american] {
        params["antithetic"] = json!(true);
        params["stop"] = json!({ "standard_error": 0.02, "min_paths": 8192 });
        let binned = finished(params, 50_000);
        params["quantiles"] = json!("exact");
        let (exact, again) = (finished(params, 50_000), finished(params, 3_000));
        assert_eq!(exact, again, "whatever the shards");
        assert_eq!((&exact["paths"], &exact["contracts"]), (&binned["paths"], &binned["contracts"]));
        let paths = exact["paths"].as_u64().unwrap();
        assert!(paths % 2 == 0 && (8_192..=200_000).contains(&paths));
        assert_eq!(exact["stopped"]["reached"], json!(number(&exact["book"]["standard_error"]) <= 0.02));
        let [one, other] = [&exact, &binned].map(|found| number(&found["book"]["pnl"]["var99"]));
        assert!((one / other - 1.0).abs() < 1e-3, "{one} and {other}");
    }
}

/// The result of a job whose rounds are run shard by shard.
fn finished(params: &Value, shard_size: u64) -> Value {
    let mut params = params.clone();
    params["shard_size"] = json!(shard_size);
    let job = json!({ "name": "test", "workload": "monte_carlo", "seed": 5, "params": params });
    let spec = JobSpec::from_json(&serde_json::to_vec(&job).unwrap());
    let manifest = spec.and_then(JobSpec::check).unwrap_or_else(|error| panic!("{error}"));
    let mut plan = Plan::new(&manifest, 0).unwrap();
    let prepared = monte_carlo::Prepared::new(&Task::decode(plan.task()).unwrap()).unwrap();
    let mut tallies: Vec<Tally> = Vec::new();
    loop {
        if plan.round().number == 0 || !plan.pass().is_empty() {
            tallies.push(Tally::default());
        }
        let refine = Refine::of_pass(plan.pass()).unwrap();
        for index in plan.indices().start..plan.indices().end {
            let shard = plan.shard(ShardIndex(index)).unwrap();
            let isa = Isa::detect();
            let part = prepared.run_pass(refine.as_ref(), isa, shard.first, shard.count, &|| false).unwrap();
            let bytes = part.encode();
            let Some(Part::Tally(part)) =
                plan.read_partial(&manifest, ShardIndex(index), Digest::of(&bytes), &bytes)
            else {
                panic!("the partial fits its job")
            };
            let whole = tallies.last_mut().unwrap();
            if whole.samples == 0 { *whole = part.into() } else { whole.merge(&part).unwrap() }
        }
        match tessera_planners::next(&manifest, &plan, &tallies.iter().collect::<Vec<_>>()).unwrap() {
            Next::Finished(document) => return serde_json::from_slice(&document).unwrap(),
            Next::Round(next) => plan = *next,
        }
    }
}
