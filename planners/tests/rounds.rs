//! Jobs of several rounds, driven to their end with the real kernel as a hub would.

use serde_json::{Value, json};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{run, run_pass};
use tessera_planners::audit::{AuditError, audit};
use tessera_planners::{Next, Part, Pass, Plan, PlanError, Round, next};
use tessera_protocol::canonical;
use tessera_protocol::exact::ExactSum;
use tessera_protocol::id::Digest;
use tessera_protocol::monte_carlo::{Refine, SUMS_PER_CONTRACT, Task};
use tessera_protocol::spec::{JobSpec, Manifest};
use tessera_protocol::tally::Tally;

/// SplitMix64, so that a failing case is a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}

fn contract(id: usize, kind: &str, strike: f64, quantity: f64, more: Value) -> Value {
    let mut contract = json!({
        "id": format!("c{id}"), "underlying": "ACME", "kind": kind, "spot": 100, "strike": strike,
        "rate": 0.03, "volatility": 0.25, "expiry": 1, "quantity": quantity
    });
    contract.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    contract
}

fn manifest(paths: u64, seed: u64, book: &[Value], more: Value) -> Manifest {
    let mut params = json!({ "model": "pi", "paths": paths });
    let fields = params.as_object_mut().unwrap();
    if !book.is_empty() {
        fields.insert("model".into(), json!("gbm"));
        fields.insert("book".into(), json!(book));
    }
    fields.extend(more.as_object().unwrap().clone());
    let job = json!({ "name": "n", "workload": "monte_carlo", "seed": seed, "params": params });
    JobSpec::from_value(&job).and_then(JobSpec::check).unwrap()
}

/// A round's shards in an order of no meaning, each on another instruction set.
fn compute(manifest: &Manifest, plan: &Plan) -> Tally {
    let (task, refine) = (Task::decode(plan.task()).unwrap(), Refine::of_pass(plan.pass()).unwrap());
    let all = Isa::available();
    let mut indices: Vec<_> = (plan.indices().start..plan.indices().end).collect();
    let mut random = Random(plan.shards());
    for at in (1..indices.len()).rev() {
        indices.swap(at, random.below(at as u64 + 1) as usize);
    }
    let mut reduced: Option<Tally> = None;
    for index in indices {
        let index = tessera_protocol::unit::ShardIndex(index);
        let shard = plan.shard(index).unwrap();
        let isa = all[index.0 as usize % all.len()];
        let bytes =
            run_pass(&task, refine.as_ref(), isa, shard.first, shard.count, &|| false).unwrap().encode();
        assert!(bytes.len() <= plan.partial_bytes_max(manifest));
        let Some(Part::Tally(tally)) = plan.read_partial(manifest, index, Digest::of(&bytes), &bytes) else {
            panic!("the partial of shard {index:?} is refused")
        };
        match &mut reduced {
            None => reduced = Some(tally.into()),
            Some(reduced) => reduced.merge(&tally).unwrap(),
        }
    }
    reduced.unwrap()
}

struct Finished {
    document: Vec<u8>,
    rounds: Vec<Round>,
    /// Of the sampling pass.
    sampled: Tally,
}

impl Finished {
    fn text(&self) -> String {
        String::from_utf8(self.document.clone()).unwrap()
    }

    fn value(&self) -> Value {
        serde_json::from_slice(&self.document).unwrap()
    }

    fn replays(&self) -> usize {
        self.rounds.iter().filter(|round| round.pass != Pass::Sample).count()
    }
}

/// Runs a job to its end; `kept` is the sampling tally of the job it extends.
fn drive(manifest: &Manifest, kept: Option<&Tally>) -> Finished {
    drive_with(manifest, kept, |round| round.clone())
}

/// [`drive`] with a say in what each round is.
fn drive_with(manifest: &Manifest, kept: Option<&Tally>, planted: impl Fn(&Round) -> Round) -> Finished {
    let altered = |plan: Plan| Plan::of_round(manifest, planted(plan.round())).unwrap();
    let mut plan = altered(Plan::new(manifest, kept.map_or(0, |tally| tally.samples)).unwrap());
    let mut tallies: Vec<Tally> = kept.into_iter().cloned().collect();
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        let tally = compute(manifest, &plan);
        let continues = rounds.last().map_or(kept.is_some(), |last| last.pass == plan.round().pass);
        match tallies.last_mut() {
            Some(last) if continues => last.merge(&tally).unwrap(),
            _ => tallies.push(tally),
        }
        rounds.push(plan.round().clone());
        match next(manifest, &plan, &tallies.iter().collect::<Vec<_>>()).unwrap() {
            Next::Finished(document) => {
                return Finished { document, rounds, sampled: tallies.swap_remove(0) };
            }
            Next::Round(following) => {
                assert_eq!(following.round().number, plan.round().number + 1);
                assert_eq!(following.round().shards_before, plan.indices().end);
                let from_nothing = Plan::of_round(manifest, following.round().clone());
                assert_eq!(from_nothing.as_ref(), Ok(&*following), "as it is planned after a restart");
                plan = altered(*following);
            }
        }
        assert!(rounds.len() < 100, "the job does not end");
    }
}

fn straddle() -> Vec<Value> {
    vec![
        contract(0, "european_call", 100.0, 2.0, json!({})),
        contract(1, "european_put", 95.0, -1.5, json!({ "underlying": "OTHER" })),
    ]
}

#[test]
fn a_job_that_stops_has_the_same_bytes_whatever_its_shards() {
    for (book, target) in [(vec![], 0.003), (straddle(), 0.06)] {
        let job = |size: Value| {
            let more = json!({ "stop": { "standard_error": target }, "shard_size": size });
            drive(&manifest(10_000_000, 7, &book, more), None)
        };
        let chosen = job(Value::Null);
        for size in [4_096, 9_999, 1_000_000] {
            assert_eq!(job(json!(size)).text(), chosen.text(), "shards of {size}");
        }
        let result = chosen.value();
        let paths = result["paths"].as_u64().unwrap();
        assert!(paths > 65_536 && paths < 10_000_000 && paths % 4_096 == 0, "{paths} paths");
        assert_eq!(result["stopped"]["reached"], json!(true));
        assert_eq!(result["stopped"]["looks"], json!(chosen.rounds.len()));
        assert!(chosen.rounds.len() <= 3, "{} looks", chosen.rounds.len());
        let about = if book.is_empty() { &result } else { &result["book"] };
        let error = about["standard_error"].as_f64().unwrap();
        assert!(error <= target && error > 0.8 * target, "{error} for {target}");
    }
}

#[test]
fn a_look_that_followed_the_shards_would_show() {
    let job = |size: u64| {
        let more = json!({ "stop": { "standard_error": 0.06 }, "shard_size": size });
        let manifest = manifest(10_000_000, 7, &straddle(), more);
        // Planted: a look waits for whole shards.
        drive_with(&manifest, None, |round| Round {
            end: round.first + (round.end - round.first).next_multiple_of(size),
            ..round.clone()
        })
    };
    assert_ne!(job(10_000).text(), job(30_000).text());
}

#[test]
fn a_target_that_is_not_reached_takes_all_paths_and_says_so() {
    let more = |target: f64| json!({ "stop": { "standard_error": target, "min_paths": 5_000 } });
    let missed = drive(&manifest(100_001, 1, &straddle(), more(1e-6)), None);
    let result = missed.value();
    assert_eq!((&result["paths"], &result["stopped"]["reached"]), (&json!(100_001), &json!(false)));
    let all = drive(&manifest(100_001, 1, &straddle(), json!({})), None);
    assert_eq!((result["book"].clone(), missed.sampled), (all.value()["book"].clone(), all.sampled));
    assert_eq!(missed.rounds[0].end, 8_192, "the first look is at a multiple of 4096");
}

#[test]
fn a_relative_target_is_a_fraction_of_the_value() {
    let more = json!({ "stop": { "standard_error": 0.002, "relative": true } });
    let result = drive(&manifest(100_000_000, 3, &[], more), None).value();
    let (pi, error) = (result["pi"].as_f64().unwrap(), result["standard_error"].as_f64().unwrap());
    assert!(error / pi <= 0.002);
    assert_eq!(result["stopped"]["relative"], json!(true));
}

#[test]
fn a_book_that_never_paid_is_no_reason_to_stop() {
    let book = [contract(0, "digital_call", 1000.0, 1.0, json!({ "payout": 1, "volatility": 0.1 }))];
    let more = json!({ "stop": { "standard_error": 0.1 } });
    let finished = drive(&manifest(300_000, 1, &book, more), None);
    assert_eq!(finished.value()["paths"], json!(300_000));
}

#[test]
fn a_stopped_job_extends_to_exactly_the_paths_asked_for() {
    for quantiles in ["binned", "exact"] {
        let stop = json!({ "stop": { "standard_error": 0.08 }, "quantiles": quantiles });
        let stopping = manifest(10_000_000, 5, &straddle(), stop);
        let stopped = drive(&stopping, None);
        let paths = stopped.sampled.samples;
        assert!(paths < 10_000_000);
        let extended = drive(&stopping.with_paths(paths + 12_345).unwrap(), Some(&stopped.sampled));
        let whole = manifest(paths + 12_345, 5, &straddle(), json!({ "quantiles": quantiles }));
        assert_eq!(extended.text(), drive(&whole, None).text());
        assert!(!extended.text().contains("stopped"));
        assert_eq!(extended.rounds[0].first, paths, "only new paths are sampled");
        assert_eq!(Plan::new(&stopping, paths), Err(PlanError::StopsByItself));
        let cost = |rounds: &[Round]| -> u64 {
            rounds.iter().map(|round| Plan::of_round(&whole, round.clone()).unwrap().cost().0).sum()
        };
        assert!(cost(&extended.rounds) <= Plan::new(&whole, paths).unwrap().cost_max(&whole).unwrap().0);
        assert!(cost(&stopped.rounds) <= Plan::new(&stopping, 0).unwrap().cost_max(&stopping).unwrap().0);
    }
}

#[test]
fn a_job_that_asks_for_neither_has_the_committed_bytes_and_one_round() {
    let book = [
        contract(0, "asian_put", 104.0, 3.0, json!({ "fixings": [0.25, 0.5, 1.0] })),
        contract(1, "down_and_out_call", 98.0, -2.0, json!({ "barrier": 85, "monitoring": [0.5, 1.0] })),
        contract(2, "digital_put", 90.0, 4.0, json!({ "payout": 2.5, "underlying": "OTHER" })),
    ];
    // Of the results before there were rounds.
    for (book, digest) in [
        (&[][..], "8656a63525279e65538331b5236eb051ebe4579503fc1b486fc08af4f06c8f5b"),
        (&book[..], "f81ebe5e91f50e1cb6b6cb923cbe04fb5c098d45a34f66c78d7251d2d53cc931"),
    ] {
        let finished = drive(&manifest(50_000, 5, book, json!({})), None);
        assert_eq!(Digest::of(&finished.document).to_string(), digest);
    }
    let plain = drive(&manifest(20_000, 5, &straddle(), json!({})), None);
    assert_eq!(plain.rounds.len(), 1);
    for word in ["\"stopped\"", "\"method\"", "\"book_value\""] {
        assert!(!plain.text().contains(word), "{word}");
    }
}

/// The book's value on each path, in its order, ascending: from tallies of one path each.
fn sorted_values(manifest: &Manifest, contracts: usize) -> Vec<f64> {
    let plan = Plan::new(manifest, 0).unwrap();
    let task = Task::decode(plan.task()).unwrap();
    let value = |path| {
        let tally = run(&task, Isa::detect(), path, 1, &|| false).unwrap();
        tally.sums[contracts * SUMS_PER_CONTRACT].to_f64()
    };
    let mut values: Vec<f64> = (0..plan.end()).map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The whole profit-and-loss object of the result, from a sorted list.
fn profit_and_loss(values: &[f64]) -> String {
    let sum = |values: &[f64]| {
        let mut sum = ExactSum::new();
        values.iter().for_each(|value| sum.add(*value).unwrap());
        sum.to_f64()
    };
    let mean = sum(values) / values.len() as f64;
    let rank = |hundredths: usize| (values.len() * hundredths).div_ceil(100).max(1);
    let var = |hundredths| mean - values[rank(hundredths) - 1];
    let es = |hundredths| mean - sum(&values[..rank(hundredths)]) / rank(hundredths) as f64;
    let quantile = |p: usize| {
        let value = values[rank(p) - 1];
        json!({ "p": p as f64 / 100.0, "value": value - mean, "book_value": value })
    };
    let quantiles = [1, 5, 25, 50, 75, 95, 99].map(quantile);
    let pnl = json!({
        "method": "exact", "var95": var(5), "es95": es(5), "var99": var(1), "es99": es(1),
        "quantiles": quantiles
    });
    String::from_utf8(canonical::to_vec(&pnl).unwrap()).unwrap()
}

/// Returns how often the paths were made again.
fn check_against_a_sort(book: &[Value], paths: u64, seed: u64) -> usize {
    let exact = |size: u64| json!({ "quantiles": "exact", "shard_size": size });
    let whole = manifest(paths, seed, book, exact(1_000_000));
    let expected = profit_and_loss(&sorted_values(&whole, book.len()));
    let finished = drive(&whole, None);
    let case = format!("{paths} paths of seed {seed}: {}", json!(book));
    assert!(
        finished.text().contains(&format!("\"pnl\":{expected}")),
        "{case}\n{expected}\n{}",
        finished.text()
    );
    assert!((1..=3).contains(&finished.replays()), "{} replays: {case}", finished.replays());
    for size in [7, 640].into_iter().filter(|size| paths / size < 500) {
        let cut = drive(&manifest(paths, seed, book, exact(size)), None);
        assert_eq!(cut.text(), finished.text(), "{case} in shards of {size}");
    }
    finished.replays()
}

#[test]
fn exact_quantiles_are_those_of_the_sorted_values() {
    let digital =
        |strike: f64, quantity: f64| contract(9, "digital_call", strike, quantity, json!({ "payout": 10 }));
    let books = [
        // Two values, each on many paths.
        vec![digital(100.0, 1.0)],
        // One value on all of them.
        vec![digital(1e-9, -3.0)],
        // Zero on nearly all.
        vec![contract(0, "european_call", 160.0, 1.0, json!({}))],
        // Negative, and zero far from the anchor.
        vec![contract(0, "european_call", 80.0, -1.0, json!({}))],
        straddle(),
        vec![
            contract(0, "asian_put", 104.0, 3.0, json!({ "fixings": [0.25, 0.5, 1.0] })),
            contract(1, "down_and_out_call", 98.0, -2.0, json!({ "barrier": 85, "monitoring": [0.5, 1.0] })),
            contract(2, "digital_put", 90.0, 4.0, json!({ "payout": 2.5, "underlying": "OTHER" })),
        ],
    ];
    let mut most = Vec::new();
    for book in &books {
        most.push([1, 2, 3, 101, 2_500].map(|paths| check_against_a_sort(book, paths, 11)).into_iter().max());
    }
    // The fourth needs another pass: around zero, doubles lie dense in a bin that the anchor made wide.
    assert_eq!(most, [2, 2, 2, 3, 2, 2].map(Some));
}

#[test]
fn exact_quantiles_of_random_books_are_those_of_the_sorted_values() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let kinds = ["european_call", "european_put", "digital_call", "digital_put"];
        let book: Vec<Value> = (0..1 + random.below(4) as usize)
            .map(|id| {
                let kind = kinds[random.below(4) as usize];
                let strike = 60.0 + random.below(80) as f64;
                let quantity = (random.below(2_000) as f64 - 999.5) * 10f64.powi(random.below(9) as i32 - 4);
                let mut more = json!({ "underlying": format!("u{}", random.below(2)) });
                if kind.starts_with("digital") {
                    more["payout"] = json!(1 + random.below(50));
                }
                contract(id, kind, strike, quantity, more)
            })
            .collect();
        check_against_a_sort(&book, 1 + random.below(1_500), seed);
    }
}

#[test]
fn more_values_in_a_range_than_a_tally_has_bins_are_found_all_the_same() {
    const PATHS: u64 = 1_200_000;
    let book = [contract(0, "digital_call", 100.0, 1.0, json!({ "payout": 10 }))];
    let finished = drive(&manifest(PATHS, 4, &book, json!({ "quantiles": "exact" })), None);
    let bits = |round: &Round| match &round.pass {
        Pass::Sample | Pass::Stage(_) => 32,
        Pass::Refine(refine) => refine.bits,
    };
    assert!(finished.rounds.iter().any(|round| bits(round) < 29), "the tally bounds the bits");
    // Two values are all there are, and the result tells how often the lower one came.
    let zeros = finished.value()["contracts"][0]["histogram"]["zero"].as_u64().unwrap() as usize;
    let paid = finished.sampled.sums[SUMS_PER_CONTRACT].to_f64() / (PATHS as usize - zeros) as f64;
    let two = sorted_values(&manifest(50, 4, &book, json!({})), 1);
    let paid_once = *two.last().unwrap();
    assert!((paid / paid_once - 1.0).abs() < 1e-12);
    let mut values = vec![0.0; zeros];
    values.resize(PATHS as usize, paid_once);
    let expected = format!("\"pnl\":{}", profit_and_loss(&values));
    assert!(finished.text().contains(&expected), "{expected}\n{}", finished.text());
}

#[test]
fn the_auditor_knows_where_the_first_look_is() {
    for paths in [1, 5_000, 65_536, 10_000_000] {
        for stop in [json!({ "standard_error": 1 }), json!({ "standard_error": 1, "min_paths": 1 })] {
            let manifest = manifest(paths, 1, &[], json!({ "stop": stop, "shard_size": 1_000 }));
            let plan = Plan::new(&manifest, 0).unwrap();
            assert_eq!(audit(&manifest, 0, &plan), Ok(()), "{paths} {stop}");
            let late = Round { end: plan.end() + 1_000, ..plan.round().clone() };
            let late = Plan::of_round(&manifest, late).unwrap();
            assert_eq!(audit(&manifest, 0, &late), Err(AuditError::End));
        }
    }
}

#[test]
fn a_stop_and_exact_quantiles_go_together() {
    let more = json!({ "stop": { "standard_error": 0.1 }, "quantiles": "exact" });
    let finished = drive(&manifest(1_000_000, 2, &straddle(), more), None);
    let result = finished.value();
    let looks = finished.rounds.len() - finished.replays();
    assert_eq!(result["stopped"]["looks"], json!(looks));
    assert!(result["paths"].as_u64().unwrap() < 1_000_000 && finished.replays() <= 2);
    let binned = drive(&manifest(finished.sampled.samples, 2, &straddle(), json!({})), None).value();
    for name in ["var95", "es95", "var99", "es99"] {
        let pair = [&result, &binned].map(|result| result["book"]["pnl"][name].as_f64().unwrap());
        assert!((pair[0] / pair[1] - 1.0).abs() < 1e-3, "{name}: {pair:?}");
    }
}
