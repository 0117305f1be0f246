//! The real program as a child process.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_protocol::wire::{AgentControl, Assignment, HubControl, HubWork, Refusal};

use crate::hub::{Hub, HubIdentity, PATIENCE};
use crate::{JOB, announce, folder, pi, results, sent};

/// Some tenths of a second of one slot.
const LONG_SHARD_PATHS: u64 = 1 << 25;

fn program(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command.arg("--data").arg(data).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["TESSERA_AGENT_HUB", "TESSERA_AGENT_TOKEN", "TESSERA_AGENT_LOG"] {
        command.env_remove(name);
    }
    command
}

fn terminate(child: &Child) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status();
    assert!(sent.expect("a shell").success());
}

async fn ended(child: Child) -> Output {
    let wait = tokio::task::spawn_blocking(move || child.wait_with_output().expect("a child"));
    tokio::time::timeout(PATIENCE, wait).await.expect("it ends").expect("no panic")
}

#[tokio::test]
async fn the_program_says_where_it_works_works_and_finishes_when_terminated() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let token_file = data.path().join("token");
    std::fs::write(&token_file, format!("{}\n", identity.token())).expect("a token file");
    let home = data.path().join("home");
    let mut child = program(&home)
        .args(["--hub", &hub.address().to_string(), "--slots", "1", "--name", "unit"])
        .arg("--token-file")
        .arg(&token_file)
        .spawn()
        .expect("the program");
    let mut session = hub.welcomed(4).await;
    session.said().await.expect("a heartbeat: the welcome has arrived");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let facts =
        [session.agent.to_string(), hub.address().to_string(), "slots 1".into(), home.display().to_string()];
    assert!(facts.iter().all(|fact| line.contains(fact)), "{line}");
    assert_eq!((session.hello.name.as_str(), session.hello.slots), ("unit", 1));

    session.work(&announce(Some(pi().encode()))).await;
    // Long enough to be in flight when the signal comes.
    let item =
        |index| Assignment { index, epoch: 1, first: index * LONG_SHARD_PATHS, count: LONG_SHARD_PATHS };
    session.work(&HubWork::Assign { job: JOB, items: (0..4).map(item).collect() }).await;
    for _ in 0..10 {
        if matches!(session.said().await, Some(AgentControl::Heartbeat { holding }) if !holding.is_empty()) {
            break;
        }
    }
    terminate(&child);
    for (index, item) in (0..).zip(results(&mut session, 4).await) {
        let (task, first) = (pi(), index * LONG_SHARD_PATHS);
        let tally =
            monte_carlo::run(&task, Isa::detect(), first, LONG_SHARD_PATHS, &|| false).expect("a tally");
        assert_eq!(item.partial, sent(tally.encode()), "what was in flight is finished");
    }
    while let Some(said) = session.said().await {
        assert!(matches!(said, AgentControl::Leaving | AgentControl::Heartbeat { .. }));
    }
    let output = ended(child).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains(&format!("connected as {} on lane 3", session.agent)), "{log}");
    assert!(!log.contains("5e5e5e5e") && !line.contains("5e5e5e5e"), "the secret stays secret");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(home.join("identity.pk8")).expect("an identity").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_refusal_ends_the_program_with_its_text_and_a_code() {
    for refusal in [Refusal::TokenSpent, Refusal::TokenUnknown, Refusal::TokenMissing] {
        let (data, identity) = (folder(), HubIdentity::new());
        let hub = Hub::start(&identity);
        let child = program(data.path())
            .args(["--hub", &hub.address().to_string(), "--token", &identity.token().to_string()])
            .spawn()
            .expect("the program");
        let mut session = hub.greeted().await;
        session.control(&HubControl::Refused { reason: refusal }).await;
        let output = ended(child).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{error}");
        let line = error.lines().last().expect("a line");
        assert!(line.starts_with("error: ") && line.contains(&refusal.to_string()), "{error}");
    }
}

#[tokio::test]
async fn wrong_arguments_give_one_clear_message_and_a_code() {
    let data = folder();
    let token = HubIdentity::new().token().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--hub", "localhost"], 2, "HOST:PORT"),
        (&["--hub", "127.0.0.1:1"], 1, "enrol once with --token"),
        (&["--hub", "127.0.0.1:1", "--token", "tsr1abc"], 2, "128 lower-case hex digits"),
        (&["--hub", "127.0.0.1:1", "--token", &token, "--slots", "0"], 2, "1..=2048"),
        (&["--hub", "127.0.0.1:1", "--token", &token, "--isa", "abacus"], 2, "this machine has auto, plain"),
        (&["--hub", "no-such-host.invalid:1", "--token", &token], 1, "no address for no-such-host.invalid:1"),
    ];
    for (arguments, code, words) in cases {
        let output = ended(program(data.path()).args(arguments).spawn().expect("the program")).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[tokio::test]
async fn an_agent_whose_hub_is_away_says_so_once_keeps_trying_and_stops_at_once() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let mut child = program(data.path())
        .args(["--hub", &hub.address().to_string(), "--token", &identity.token().to_string()])
        .spawn()
        .expect("the program");
    drop(hub.welcomed(2).await);
    hub.stop().await;
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    while !seen.contains("trying again in") {
        assert_ne!(log.read_line(&mut seen).expect("a line"), 0, "{seen}");
    }
    let asked = Instant::now();
    terminate(&child);
    let output = ended(child).await;
    assert!(output.status.success());
    assert!(asked.elapsed() < Duration::from_secs(5));
    log.read_to_string(&mut seen).expect("the rest");
    let reason = |line: &str| line.split_once("; trying again").map(|(before, _)| before[30..].to_owned());
    let mut reasons: Vec<String> = seen.lines().filter_map(reason).collect();
    let told = reasons.len();
    reasons.dedup();
    assert_eq!(reasons.len(), told, "a reason is told once in a row: {seen}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_agent_uses_next_to_no_processor_time() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let child = program(data.path())
        .args([
            "--hub",
            &hub.address().to_string(),
            "--token",
            &identity.token().to_string(),
            "--slots",
            "64",
        ])
        .spawn()
        .expect("the program");
    let mut session = hub.welcomed(128).await;
    session.said().await.expect("a heartbeat: the welcome has arrived");
    let clock_ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("a live process");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum::<u64>()
    };
    let before = clock_ticks();
    tokio::time::sleep(Duration::from_secs(3)).await;
    // Hundredths of a second, fifteen heartbeats included.
    let used = clock_ticks() - before;
    assert!(used <= 3, "{used} of 300");
    terminate(&child);
    assert!(ended(child).await.status.success());
}
