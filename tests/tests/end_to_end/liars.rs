//! Strangers that lie, die and freeze: the bytes stay right, and no liar is paid.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::programs::{Agent, Hub, until};
use super::{book, reference};

const PROVIDERS: [&str; 4] = ["acme", "bolt", "cirrus", "dune"];
const AGENTS: usize = 20;
/// One each of three providers.
const LIARS: [usize; 3] = [5, 10, 15];

fn amount(value: &Value) -> i128 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no amount"))
}

/// Starts a provider's agent; a liar answers every shard wrongly.
fn start(hub: &Hub, folder: &Path, number: usize) -> Agent {
    let issued = hub.json(&["agent", "token", "--provider", PROVIDERS[number % PROVIDERS.len()]]);
    let token = issued["token"].as_str().expect("a token");
    let name = format!("{}-{number}", if LIARS.contains(&number) { "liar" } else { "honest" });
    let lies = LIARS.contains(&number).then_some(("TESSERA_TEST_LIE_ONE_IN", "1"));
    Agent::start_as(&hub.quic, &folder.join(&name), token, &name, lies)
}

fn agents(hub: &Hub) -> Vec<Value> {
    hub.json(&["agent", "list"])["agents"].as_array().expect("agents").clone()
}

fn signal(agent: &Agent, name: &str) {
    let status = Command::new("kill").args([name, &agent.pid().to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill {name}");
}

#[test]
fn three_liars_of_twenty_strangers_change_no_byte_and_are_not_paid() {
    let folder = TempDir::new().expect("a folder");
    let job = book(&folder, 600_000, "standard");
    let expected = reference(&job);
    let mut hub = Hub::start(&folder.path().join("hub"), 2);
    let _own = hub.agent(&folder.path().join("own"));
    let strangers: Vec<Agent> = (0..AGENTS).map(|number| start(&hub, folder.path(), number)).collect();
    until("all are connected", || (hub.connected().len() == AGENTS + 1).then_some(()));

    let submitted = hub.json(&["submit", job.to_str().expect("a plain path"), "--shard-size", "1500"]);
    let id = submitted["id"].as_str().expect("an id").to_owned();
    let view = |hub: &Hub| hub.json(&["job", "show", &id]);
    until("some shards are final", || (view(&hub)["shards_done"].as_u64() > Some(20)).then_some(()));
    signal(&strangers[1], "-9");
    signal(&strangers[2], "-9");
    signal(&strangers[3], "-STOP");
    let done = until("the job is done", || Some(view(&hub)).filter(|view| view["state"] != "running"));
    signal(&strangers[3], "-9");
    assert_eq!((done["state"].as_str(), done["digest"].as_str()), (Some("done"), Some(expected.as_str())));
    assert!(done["mismatches"].as_u64() >= Some(LIARS.len() as u64), "{done}");

    let is_liar = |agent: &&Value| agent["name"].as_str().is_some_and(|name| name.starts_with("liar"));
    let list = agents(&hub);
    let liars: Vec<&Value> = list.iter().filter(is_liar).collect();
    assert_eq!(liars.len(), LIARS.len());
    for liar in &liars {
        let standing = liar["standing"].as_str();
        assert!(matches!(standing, Some("sandboxed" | "removed")), "{liar}");
    }
    let ids: BTreeSet<&str> = liars.iter().filter_map(|liar| liar["id"].as_str()).collect();

    let bill = hub.json(&["job", "bill", &id]);
    let paid = bill["paid"].as_array().expect("lines");
    let to_liars = paid.iter().filter(|line| line["agent"].as_str().is_some_and(|agent| ids.contains(agent)));
    assert_eq!(to_liars.map(|line| amount(&line["amount"])).sum::<i128>(), 0, "{bill}");
    let earned: i128 = paid.iter().map(|line| amount(&line["amount"])).sum();
    assert_eq!(amount(&bill["held"]), earned + amount(&bill["hub"]) + amount(&bill["refunded"]));
    let shards: u64 = paid.iter().filter_map(|line| line["shards"].as_u64()).sum();
    assert_eq!(Some(shards), done["shards"].as_u64(), "every shard is paid once");

    hub.crash_and_restart();
    let list = agents(&hub);
    let remembered = list
        .iter()
        .filter(is_liar)
        .filter(|liar| matches!(liar["standing"].as_str(), Some("sandboxed" | "removed")));
    assert_eq!(remembered.count(), LIARS.len(), "standings survive a crash");
    let log = folder.path().join("audit.log");
    let exported = hub.tessera(&["audit", "export", "-o", log.to_str().expect("a plain path")]);
    assert!(exported.status.success());
    let acts = std::fs::read_to_string(&log).expect("text");
    for kind in ["disputed", "standing_changed"] {
        assert!(acts.contains(&format!("\"kind\":\"{kind}\"")), "no {kind} in the log");
    }
}

#[test]
fn an_agent_that_is_removed_is_told_so_and_ends_and_may_not_come_back() {
    let folder = TempDir::new().expect("a folder");
    let mut hub = Hub::start(&folder.path().join("hub"), 1);
    let _own = hub.agent(&folder.path().join("own"));
    let _honest = start(&hub, folder.path(), LIARS[0] + 1);
    let mut liar = start(&hub, folder.path(), LIARS[0]);
    until("all are connected", || (hub.connected().len() == 3).then_some(()));
    let job = book(&folder, 400_000, "exact");
    hub.json(&["submit", job.to_str().expect("a plain path"), "--shard-size", "2000"]);
    let code = until("the liar has ended", || liar.exit_code());
    assert_eq!(code, 3, "the hub refused it");
    let standing =
        agents(&hub).iter().find(|agent| agent["name"] == "liar-5").expect("it is listed")["standing"]
            .clone();
    assert_eq!(standing, "removed");
    // With the identity that it has: the token is spent.
    let mut back = start(&hub, folder.path(), LIARS[0]);
    assert_eq!(until("it is refused again", || back.exit_code()), 3);
}
