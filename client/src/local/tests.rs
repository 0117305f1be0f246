//! The supervisor over programs that are shell scripts: what it starts, restarts and leaves behind.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Instant;

/// A hub that notes its arguments, says that it is ready, and stays.
const HUB: &str = r#"#!/bin/sh
echo "$@" >> "$(dirname "$0")/hub.args"
echo '{"http":"127.0.0.1:7","quic":"127.0.0.1:8","api_key":"tsk_test","agent_token":"tsr1test","data":"d","lanes":1}'
exec sleep 1000
"#;
const AGENT: &str = "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/agent.args\"\nexec sleep 1000\n";

struct Stage {
    folder: tempfile::TempDir,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Stage {
    fn new(hub: &str, agent: &str) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in [("hub", hub), ("agent", agent)] {
            let path = folder.path().join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Stage { folder, notices: Arc::default() }
    }

    fn start(&self) -> Result<Local, LocalError> {
        let plan = LocalPlan {
            programs: Programs::in_folder(self.folder.path()).unwrap(),
            data: self.folder.path().join("data"),
            agents: 1,
            lanes: 3,
            slots: 2,
        };
        let notices = Arc::clone(&self.notices);
        Local::start(plan, Arc::default(), move |notice| notices.lock().unwrap().push(notice))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The process id with which a member was last started.
    fn pid(&self, of: Member) -> Option<u32> {
        self.notices.lock().unwrap().iter().rev().find_map(|notice| match notice {
            Notice::Started { member, pid, .. } if *member == of => Some(*pid),
            _ => None,
        })
    }

    fn gave_up(&self) -> Option<String> {
        self.notices.lock().unwrap().iter().find_map(|notice| match notice {
            Notice::GaveUp { .. } => Some(notice.to_string()),
            _ => None,
        })
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill_hard(pid: u32) {
    // SAFETY: a plain system call on a child that this test started.
    assert_eq!(unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) }, 0);
}

#[test]
fn whoever_is_killed_runs_again_with_the_same_ports_and_all_are_gone_afterwards() {
    let stage = Stage::new(HUB, AGENT);
    let local = stage.start().unwrap();
    assert_eq!(local.hub().url(), "http://127.0.0.1:7");
    let (hub, agent) = (stage.pid(Member::Hub).unwrap(), stage.pid(Member::Agent(1)).unwrap());
    until("the agent's script", || !stage.read("agent.args").is_empty());
    kill_hard(hub);
    kill_hard(agent);
    until("the hub's second start", || stage.pid(Member::Hub) != Some(hub));
    until("the agent's second start", || stage.pid(Member::Agent(1)) != Some(agent));
    until("the agent's second script", || stage.read("agent.args").lines().count() == 2);

    let data = stage.folder.path().join("data");
    let hub_args: Vec<String> = stage.read("hub.args").lines().map(str::to_owned).collect();
    let expected = |http: &str, quic: &str| {
        format!("serve --data {}/hub --lanes 3 --http {http} --quic {quic} --json", data.display())
    };
    assert_eq!(hub_args, [expected("127.0.0.1:0", "127.0.0.1:0"), expected("127.0.0.1:7", "127.0.0.1:8")]);
    let agent_args = format!(
        "--hub 127.0.0.1:8 --token tsr1test --name agent-1 --slots 2 --data {}/agent-1",
        data.display()
    );
    assert!(stage.read("agent.args").lines().all(|line| line == agent_args), "{}", stage.read("agent.args"));
    let said: Vec<String> = stage.notices.lock().unwrap().iter().map(Notice::to_string).collect();
    let died = format!("hub (pid {hub}) ended unexpectedly, signal: 9 (SIGKILL); starting it again");
    assert!(said.contains(&died), "{said:?}");
    let key = data.join("api-key");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), "tsk_test\n");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let (hub, agent) = (stage.pid(Member::Hub).unwrap(), stage.pid(Member::Agent(1)).unwrap());
    assert!(lives(hub) && lives(agent));
    drop(local);
    assert!(!lives(hub) && !lives(agent));
}

#[test]
fn a_hub_that_cannot_start_is_reported_with_its_last_words() {
    let stage = Stage::new("#!/bin/sh\necho 'first\nthe port is in use' >&2\nexit 7\n", AGENT);
    let message = stage.start().unwrap_err().to_string();
    assert_eq!(message, "the hub ended, exit status: 7\n  first\n  the port is in use");
    let stage = Stage::new("#!/bin/sh\necho hello\nexec sleep 1000\n", AGENT);
    let message = stage.start().unwrap_err().to_string();
    assert!(message.starts_with("the hub's first line is not what this version expects"), "{message}");
}

#[test]
fn an_agent_that_never_stays_is_given_up_after_its_restarts() {
    let stage = Stage::new(HUB, "#!/bin/sh\necho 'wrong token' >&2\nexit 2\n");
    let local = stage.start().unwrap();
    until("giving up", || stage.gave_up().is_some());
    let message = stage.gave_up().unwrap();
    assert!(
        message.starts_with("agent-1 stays away: agent-1 ended, exit status: 2\n  wrong token"),
        "{message}"
    );
    let died =
        stage.notices.lock().unwrap().iter().filter(|notice| matches!(notice, Notice::Died { .. })).count();
    assert_eq!(died as u32, RESTARTS_MAX);
    drop(local);
}

#[test]
fn a_hub_whose_key_is_lost_and_a_folder_without_programs_are_explained() {
    let stage = Stage::new(&HUB.replace("\"tsk_test\"", "null"), AGENT);
    let message = stage.start().unwrap_err().to_string();
    assert!(message.starts_with("this data directory has a hub already"), "{message}");
    std::fs::create_dir_all(stage.folder.path().join("data")).unwrap();
    std::fs::write(stage.folder.path().join("data/api-key"), "tsk_kept\n").unwrap();
    drop(stage.start().unwrap());
    let message = Programs::in_folder(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(message.starts_with("no program `hub` in /nonexistent\nhint: build it"), "{message}");
}
