//! Who works is paid, once, and what the hub says of that is proven without it.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::book;
use super::programs::{Agent, Hub, until};

fn number(value: &Value) -> i128 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no amount"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Whether `tessera` succeeds.
fn succeeds(hub: &Hub, args: &[&str]) -> bool {
    let output = hub.tessera(args);
    println!(
        "{args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.status.success()
}

/// Changes one byte of a file in its middle, and back when the test of it is done.
fn with_a_changed_byte(path: &Path, test: impl FnOnce()) {
    let bytes = std::fs::read(path).expect("readable");
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    std::fs::write(path, changed).expect("writable");
    test();
    std::fs::write(path, bytes).expect("writable");
}

/// With nothing but its receipt and what its agent logged.
fn a_provider_proves_a_shard(hub: &Hub, id: &str, receipts: &Path, work_log: &Path, hub_key: &str) {
    assert!(succeeds(hub, &["provider", "receipts", "acme", "-o", text(receipts)]));
    let file = receipts.join(format!("{id}.receipt.json"));
    let verify = ["receipt", "verify", text(&file), "--hub-key", hub_key, "--work-log", text(work_log)];
    assert!(succeeds(hub, &verify), "the hub accepted what the agent logged");
    let receipt: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
    let lines = receipt["lines"].as_array().expect("lines");
    let ranges = lines.iter().flat_map(|line| line["shards"].as_array().expect("ranges"));
    let count: u64 = ranges.map(|of| of[1].as_u64().unwrap() - of[0].as_u64().unwrap()).sum();
    let agent = &receipt["receipt"]["agents"][0];
    assert_eq!(Some(count), agent["shards"].as_u64().zip(agent["checks"].as_u64()).map(|(a, b)| a + b));
    let shard = lines[0]["shards"][0][0].to_string();
    let proof = receipts.join("proof.json");
    let prove = [
        "receipt",
        "prove",
        text(&file),
        "--shard",
        &shard,
        "--work-log",
        text(work_log),
        "-o",
        text(&proof),
    ];
    assert!(succeeds(hub, &prove));
    let proven = ["receipt", "verify", text(&proof), "--hub-key", hub_key];
    assert!(succeeds(hub, &proven));
    with_a_changed_byte(&proof, || assert!(!succeeds(hub, &proven), "the proof was changed"));
    let logged = std::fs::read_to_string(work_log).expect("text");
    let other = logged.replace(&format!("{id} {shard} "), &format!("{id} 99999{shard} "));
    std::fs::write(work_log, other).expect("writable");
    assert!(!succeeds(hub, &prove), "its digest is not known");
}

#[test]
fn work_is_paid_once_although_the_hub_is_killed_and_what_it_signs_is_proven_without_it() {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut hub = Hub::start(&at("hub"), 2);
    let _own = hub.agent(&at("own"));
    let issued = hub.json(&["agent", "token", "--provider", "acme"]);
    let token = issued["token"].as_str().expect("a token").to_owned();
    let hub_key = token.strip_prefix("tsr1").expect("a token of this version")[..64].to_owned();
    let work_log = at("work.log");
    let logs = Some(("TESSERA_AGENT_WORK_LOG", text(&work_log)));
    let _acme = Agent::start_as(&hub.quic, &at("acme"), &token, "agent", logs);
    until("both are connected", || (hub.connected().len() == 2).then_some(()));
    let mut owners: Vec<String> = hub.connected().iter().map(|agent| agent["provider"].to_string()).collect();
    owners.sort();
    assert_eq!(owners, ["\"acme\"", "\"operator\""]);

    let job = book(&folder, 2_000_000, "standard");
    let id = hub.json(&["submit", text(&job)])["id"].as_str().expect("an id").to_owned();
    let view = |hub: &Hub| hub.json(&["job", "show", &id]);
    until("some shards are done", || (view(&hub)["shards_done"].as_u64() > Some(5)).then_some(()));
    hub.crash_and_restart();
    let view = until("the job is done", || Some(view(&hub)).filter(|view| view["state"] == "done"));

    let bill = hub.json(&["job", "bill", &id]);
    let paid = bill["paid"].as_array().expect("lines");
    let shards: u64 = paid.iter().filter_map(|line| line["shards"].as_u64()).sum();
    assert_eq!(Some(shards), view["shards"].as_u64(), "every shard is paid once");
    assert_eq!(number(&bill["units"]), i128::from(view["cost"].as_u64().expect("a cost")));
    let earned: i128 = paid.iter().map(|line| number(&line["amount"])).sum();
    assert_eq!(number(&bill["held"]), earned + number(&bill["hub"]) + number(&bill["refunded"]));
    assert_eq!((bill["closed"].as_bool(), number(&bill["escrow"])), (Some(true), 0));
    assert!(succeeds(&hub, &["job", "bill", &id]));

    let (csv, receipt, receipts, log) = (at("s.csv"), at("job.json"), at("receipts"), at("audit.log"));
    assert!(succeeds(&hub, &["provider", "settle", "--csv", text(&csv)]));
    assert!(!succeeds(&hub, &["provider", "settle", "--csv", text(&csv)]), "nothing is due a second time");
    let table = std::fs::read(&csv).expect("the table is there");
    let settled: i128 = tessera_client::settlement_csv::add_up(&table)
        .expect("it adds up")
        .iter()
        .map(|(_, paid)| paid.0)
        .sum();
    let providers = hub.json(&["provider", "list"]);
    let sum = |field: &str| -> i128 {
        providers["providers"].as_array().expect("a list").iter().map(|of| number(&of[field])).sum()
    };
    assert_eq!((sum("settled"), sum("gross")), (settled, earned));
    assert_eq!(sum("held"), earned - settled);

    assert!(succeeds(&hub, &["job", "receipt", &id, "-o", text(&receipt)]));
    assert!(succeeds(&hub, &["provider", "receipts", "operator", "-o", text(&receipts)]));
    assert!(succeeds(&hub, &["audit", "export", "-o", text(&log)]));
    let of_operator = receipts.join(format!("{id}.receipt.json"));
    for (what, file) in [("receipt", &receipt), ("receipt", &of_operator), ("audit", &log)] {
        let verify = [what, "verify", text(file), "--hub-key", &hub_key];
        assert!(succeeds(&hub, &verify));
        with_a_changed_byte(file, || assert!(!succeeds(&hub, &verify), "{what} was changed"));
        let other = "11".repeat(32);
        assert!(!succeeds(&hub, &[what, "verify", text(file), "--hub-key", &other]), "{what} of another hub");
    }
    a_provider_proves_a_shard(&hub, &id, &receipts, &work_log, &hub_key);
    let acts = std::fs::read_to_string(&log).expect("text");
    for kind in [
        "api_key_made",
        "token_made",
        "agent_enrolled",
        "job_accepted",
        "job_ended",
        "bill_closed",
        "settled",
    ] {
        assert!(acts.contains(&format!("\"kind\":\"{kind}\"")), "no {kind} in the log");
    }
}
