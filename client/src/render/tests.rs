//! Pages as golden files under `tests/golden`. `TESSERA_BLESS=1` writes them anew; read the difference.

use super::*;
use std::path::Path;

use tessera_protocol::api::{AgentList, HubList, HubView, JobList, JobView, PlanQuote};
use tessera_protocol::id::HubId;

fn matches_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TESSERA_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs; run with TESSERA_BLESS=1 and read the difference");
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "{name} is too wide: {line}");
    }
}

fn view(state: &str) -> JobView {
    let rest = match state {
        "done" => {
            r#""ended_ms":1763000004321,"digest":"2e99758548972a8e8822ad47fa1017ff72f06f3ff6a016851f45c398732bc50c","failure":null,"waiting":null,"shards_done":64"#
        }
        "failed" => {
            r#""ended_ms":1763000004321,"digest":null,"failure":{"reason":"shard_failed","shard":3,"attempts":5,"cause":"out of memory"},"waiting":null,"shards_done":12"#
        }
        _ => {
            r#""ended_ms":null,"digest":null,"failure":null,"waiting":"no agent is connected","shards_done":0"#
        }
    };
    let text = format!(
        r#"{{"id":"job_019a7b8c9d0e0102030405060708090a","name":"example book","project":"default","state":"{state}",
        "manifest_digest":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","verify":"standard",
        "priority":"batch","created_ms":1763000000000,"paths":1000000,"extends":null,"cost":96000000,"shards":64,
        "attempts":68,"checks":3,"mismatches":0,"checks_skipped":1,"lanes":[40,24],{rest}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// A contract's document; the histogram falls off like that of a call.
fn contract(id: &str, kind: &str, quantity: f64, price: f64, error: f64, delta: f64) -> serde_json::Value {
    let bins: Vec<u64> = (0..64).map(|bin| 20_000 / (1 + bin * bin / 40)).collect();
    serde_json::json!({
        "id": id, "underlying": "ACME", "kind": kind, "quantity": quantity, "price": price, "standard_error": error,
        "ci95": [price - 1.96 * error, price + 1.96 * error], "delta": delta, "delta_standard_error": error / 17.0,
        "delta_method": "pathwise", "histogram": { "width": 1.5, "zero": 400_000, "bins": bins, "overflow": 12 }
    })
}

#[test]
fn a_book_is_a_table_of_contracts_and_a_page_of_risk() {
    let quantiles: Vec<_> = [
        (0.01, -30_120.4),
        (0.05, -19_800.0),
        (0.25, -7_411.0),
        (0.5, 812.0),
        (0.75, 8_000.1),
        (0.95, 17_204.0),
        (0.99, 22_000.5),
    ]
    .map(|(p, value)| serde_json::json!({ "p": p, "value": value }))
    .into();
    let document = serde_json::json!({
        "workload": "monte_carlo", "model": "gbm", "paths": 1_000_000,
        "contracts": [
            contract("ACME-C-100", "european_call", 100.0, 10.450583572185577, 0.0147, 0.63683),
            contract("ACME-A-95", "asian_put", -250.0, 2.31, 0.0046, -0.2104),
            contract("INDEX-DO-3900-continuous", "down_and_out_call", 2.5, 412.77, 0.52, 0.71),
            contract("FX-D-1.10", "digital_call", 10_000.0, 0.4871, 0.00048, -0.2231),
        ],
        "book": {
            "value": 12_204.45, "standard_error": 11.33, "ci95": [12_182.24, 12_226.66],
            "pnl": { "var95": 19_800.0, "es95": 26_006.7, "var99": 30_120.4, "es99": 35_511.9, "quantiles": quantiles }
        }
    });
    let text = result(&serde_json::to_vec(&document).unwrap(), Style::default()).unwrap();
    matches_golden("book.txt", &text);
}

#[test]
fn controls_greeks_and_deltas_of_baskets_have_tables_of_their_own() {
    let mut asian = contract("ACME-A-95", "asian_put", -250.0, 2.31, 0.0046, -0.2104);
    let estimate = |value: f64, error: f64| serde_json::json!({ "value": value, "standard_error": error, "method": "pathwise" });
    asian["control"] = serde_json::json!({ "method": "geometric_average", "beta": 1.02, "price": 2.3087,
        "standard_error": 0.00019, "ci95": [2.30833, 2.30907] });
    asian["greeks"] = serde_json::json!({ "gamma": estimate(0.0211, 0.00006), "vega": estimate(18.42, 0.031),
        "rho": estimate(-24.01, 0.05), "theta": estimate(-2.913, 0.006) });
    let mut basket = contract("SPREAD", "basket_call", 10.0, 7.702, 0.011, 0.0);
    for field in ["delta", "delta_standard_error", "delta_method", "underlying"] {
        basket.as_object_mut().unwrap().remove(field);
    }
    basket["deltas"] = serde_json::json!([
        { "underlying": "ACME", "delta": 0.5812, "delta_standard_error": 0.0004, "delta_method": "pathwise" },
        { "underlying": "BETA", "delta": -0.4017, "delta_standard_error": 0.0003, "delta_method": "pathwise" }]);
    basket["control"] = serde_json::json!({ "method": "discounted_basket", "beta": 0.61, "price": 7.7101,
        "standard_error": 0.0048, "ci95": [7.7007, 7.7195] });
    basket["greeks"] =
        serde_json::json!({ "gamma": null, "vega": null, "rho": estimate(11.2, 0.04), "theta": null });
    let document = serde_json::json!({
        "workload": "monte_carlo", "model": "gbm", "paths": 1_000_000, "antithetic": true,
        "contracts": [asian, basket],
        "book": { "value": -500.4, "standard_error": 1.2, "ci95": [-502.8, -498.0],
            "pnl": { "var95": 100.0, "es95": 120.0, "var99": 150.0, "es99": 180.0, "quantiles": [] } }
    });
    let text = result(&serde_json::to_vec(&document).unwrap(), Style::default()).unwrap();
    matches_golden("book_with_options.txt", &text);
    let heston = serde_json::to_string(&document).unwrap().replace("\"gbm\"", "\"heston\"");
    assert_eq!(result(heston.as_bytes(), Style::default()).unwrap(), text);
}

#[test]
fn a_book_of_one_path_has_no_errors_and_still_shows() {
    let mut only = contract("ACME-C-100", "european_call", 1.0, 10.45, 0.01, 0.6);
    for field in ["standard_error", "delta_standard_error"] {
        only[field] = serde_json::Value::Null;
    }
    only["ci95"] = serde_json::json!([null, null]);
    only["histogram"]["bins"] = serde_json::json!([]);
    only["histogram"]["overflow"] = serde_json::json!(0);
    let document = serde_json::json!({
        "workload": "monte_carlo", "model": "gbm", "paths": 1, "contracts": [only],
        "book": { "value": 10.45, "standard_error": null, "ci95": [null, null],
            "pnl": { "var95": 0.0, "es95": 0.0, "var99": null, "es99": 0.0, "quantiles": [{ "p": 0.5, "value": null }] } }
    });
    let text = result(&serde_json::to_vec(&document).unwrap(), Style::default()).unwrap();
    matches_golden("book_of_one_path.txt", &text);
}

#[test]
fn pi_is_two_lines() {
    let document = br#"{"ci95":[3.1411,3.1443],"inside":785675,"model":"pi","paths":1000000,"pi":3.1427,"standard_error":0.00164,"workload":"monte_carlo"}"#;
    matches_golden("pi.txt", &result(document, Style::default()).unwrap());
    assert!(result(document, Style { bold: true }).unwrap().starts_with("\u{1b}[1mπ\u{1b}[0m\n"));
    assert!(result(br#"{"model":"later"}"#, Style::default()).is_err());
}

#[test]
fn hubs_are_a_table_that_says_which_one_leads_and_which_is_silent() {
    let hub = |id: u8, leader, here, silent_ms| HubView {
        id: HubId([id; 16]),
        http: format!("hub{id}.lab:7840"),
        quic: format!("hub{id}.lab:7843"),
        leader,
        here,
        silent_ms,
    };
    let list = HubList { hubs: vec![hub(1, false, true, 0), hub(2, true, false, 4_400)] };
    matches_golden("hub_list.txt", &hubs(&list));
}

#[test]
fn jobs_and_agents_are_tables_and_one_job_is_a_page() {
    let list = JobList { jobs: vec![view("queued"), view("failed"), view("done")], hubs_silent: Vec::new() };
    matches_golden("job_list.txt", &jobs(&list, 1_763_000_060_000));
    matches_golden("job_done.txt", &job(&view("done"), Style::default()));
    matches_golden("job_failed.txt", &job(&view("failed"), Style::default()));
    matches_golden("job_waiting.txt", &job(&view("queued"), Style::default()));
    matches_golden("summary.txt", &summary(&view("done"), Some(2), Some(4_400)));
    let agent = r#"{"agents":[{"id":"agt_000102030405060708090a0b0c0d0e0f","name":"agent-1","state":"connected","lane":1,"version":"0.1.0","slots":2,"isa":"avx2","arch":"x86_64","memory_bytes":8589934592,"in_flight":3,"completed":1234,"mismatches":0,"provider":"acme.eu-1-west","anchor":false,"standing":"quarantine"},
        {"id":"agt_100102030405060708090a0b0c0d0e0f","name":"a name\u001b that is long","state":"away","lane":null,"version":"0.1.0","slots":16,"isa":"avx512","arch":"x86_64","memory_bytes":0,"in_flight":0,"completed":0,"mismatches":0}]}"#;
    let list: AgentList = serde_json::from_str(agent).unwrap();
    matches_golden("agent_list.txt", &agents(&list));
    let list = AgentList { hubs_silent: vec![HubId([7; 16])], ..list };
    let said = "hub_07070707070707070707070707070707 does not answer: agents that work there show as away\n";
    assert!(agents(&list).ends_with(said), "{}", agents(&list));
    let plan: PlanQuote = serde_json::from_str(
        r#"{"manifest_digest":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","plan_digest":"2e99758548972a8e8822ad47fa1017ff72f06f3ff6a016851f45c398732bc50c","paths":1000000,"shard_size":16384,"shards":62,"cost":96000000,"percent":110,"price":"105600000"}"#,
    ).unwrap();
    matches_golden("quote.txt", &quote(&plan, None));
    assert_eq!(quote(&plan, Some(96_000_000)), quote(&plan, None), "at the cap is not over it");
    let staged = quote(&PlanQuote { stage: Some("survey".to_owned()), shards: 1, ..plan.clone() }, None);
    assert!(staged.contains("survey, the first; it decides shards and cost of the rest"), "{staged}");
    let over = quote(&plan, Some(10));
    assert!(over.ends_with("over limits.cost_cap = 10: submit would refuse it\n"), "{over}");
}
