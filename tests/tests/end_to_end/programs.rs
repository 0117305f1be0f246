//! The real programs as children of a test: started on free ports, killed when the test ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything here may take before a test gives up; generous, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A program of the same build as this test.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in deps");
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run scripts/test, or cargo build first", path.display());
    path
}

/// The workspace's folder of examples.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").join("examples")
}

/// Waits until `what` answers something.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill_9(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill -9 {pid}");
}

/// Kills the first child whose name begins so.
pub(crate) fn kill_one(children: &[(String, u32)], victim: &str) {
    let (name, pid) = children.iter().find(|(name, _)| name.starts_with(victim)).expect(victim);
    println!("killing {name}, process {pid}");
    kill_9(*pid);
}

/// A hub on loopback.
pub(crate) struct Hub {
    child: Child,
    data: PathBuf,
    lanes: u16,
    pub(crate) http: String,
    pub(crate) quic: String,
    pub(crate) api_key: String,
    token: Option<String>,
}

impl Hub {
    pub(crate) fn start(data: &Path, lanes: u16) -> Hub {
        Hub::spawn(data, lanes, "127.0.0.1:0", "127.0.0.1:0", None)
    }

    fn spawn(data: &Path, lanes: u16, http: &str, quic: &str, api_key: Option<String>) -> Hub {
        let mut child = Command::new(program("hub"))
            .args(["serve", "--json", "--log", "warn", "--http", http, "--quic", quic])
            .arg("--data")
            .arg(data)
            .args(["--lanes", &lanes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the hub starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the hub said {line:?}"));
        let text = |field: &str| said[field].as_str().map(str::to_owned);
        Hub {
            child,
            data: data.to_owned(),
            lanes,
            http: text("http").expect("http"),
            quic: text("quic").expect("quic"),
            api_key: api_key.or_else(|| text("api_key")).expect("a first start gives a key"),
            token: text("agent_token"),
        }
    }

    /// Kills it in the middle of whatever it does, and starts it again where it was.
    pub(crate) fn crash_and_restart(&mut self) {
        kill_9(self.child.id());
        self.child.wait().expect("it was our child");
        *self = Hub::spawn(&self.data, self.lanes, &self.http, &self.quic, Some(self.api_key.clone()));
    }

    /// Stops it as an operator does; answers its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("it was our child").code()
    }

    /// `tessera` against this hub.
    pub(crate) fn tessera(&self, args: &[&str]) -> Output {
        self.client(args).output().expect("tessera runs")
    }

    /// `tessera` against this hub, not started yet.
    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("tessera"));
        command
            .args(args)
            .env("TESSERA_HUB", format!("http://{}", self.http))
            .env("TESSERA_API_KEY", &self.api_key)
            .stdin(Stdio::null());
        command
    }

    /// A number of the hub's metrics that has no labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.http).expect("the hub listens");
        let head = "GET /metrics HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("writable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    /// `tessera` with `--json`, which must succeed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.tessera(&[args, &["--json"]].concat());
        json_of(&output)
    }

    /// A token that enrols one agent.
    pub(crate) fn token(&mut self) -> String {
        match self.token.take() {
            Some(token) => token,
            None => self.json(&["agent", "token"])["token"].as_str().expect("a token").to_owned(),
        }
    }

    /// Starts an agent and waits until the hub shows it.
    pub(crate) fn agent(&mut self, data: &Path) -> Agent {
        let before = self.connected().len();
        let token = self.token();
        let agent = Agent::start(&self.quic, data, &token);
        until("the agent is connected", || (self.connected().len() > before).then_some(()));
        agent
    }

    /// Agents with a live session.
    pub(crate) fn connected(&self) -> Vec<Value> {
        let list = self.json(&["agent", "list"]);
        let agents = list["agents"].as_array().expect("agents").clone();
        agents.into_iter().filter(|agent| agent["state"] == "connected").collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent with one slot.
pub(crate) struct Agent(Child);

impl Agent {
    pub(crate) fn start(hub: &str, data: &Path, token: &str) -> Agent {
        Agent::start_as(hub, data, token, "agent", None)
    }

    /// One that goes by a name, perhaps with a variable in its environment.
    pub(crate) fn start_as(
        hub: &str,
        data: &Path,
        token: &str,
        name: &str,
        variable: Option<(&str, &str)>,
    ) -> Agent {
        let child = Command::new(program("agent"))
            .args(["--hub", hub, "--token", token, "--slots", "1", "--name", name, "--data"])
            .arg(data)
            .envs(variable)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts");
        Agent(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// With which code it ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().expect("a child of ours").and_then(|status| status.code())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn json_of(output: &Output) -> Value {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "exit {:?}\n{stdout}\n{stderr}", output.status.code());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout}"))
}

/// `tessera run … --json`, with a chance to do something to its children once a part of the job is done.
pub(crate) fn run(job: &Path, args: &[&str], halfway: Option<&dyn Fn(&[(String, u32)])>) -> Value {
    let mut run = Run::start(job, args);
    if let Some(act) = halfway {
        run.make_progress();
        act(&run.children);
    }
    run.finish()
}

/// A `tessera run` whose children were just started.
pub(crate) struct Run {
    child: Child,
    errors: BufReader<ChildStderr>,
    said: String,
    /// Names and process ids.
    pub(crate) children: Vec<(String, u32)>,
}

impl Run {
    pub(crate) fn start(job: &Path, args: &[&str]) -> Run {
        let mut child = Command::new(program("tessera"))
            .arg("run")
            .arg(job)
            .args(args)
            .arg("--json")
            // Files of a result are written where it is run.
            .current_dir(job.parent().expect("a job lies in a folder"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tessera starts");
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        let mut run = Run { child, errors, said: String::new(), children: Vec::new() };
        let list = run.next_line(|line| line.starts_with("process ids: "));
        let pair = |item: &str| -> Option<(String, u32)> {
            let (name, pid) = item.trim().rsplit_once(' ')?;
            Some((name.to_owned(), pid.parse().ok()?))
        };
        run.children = list["process ids: ".len()..].split(',').filter_map(pair).collect();
        run
    }

    fn make_progress(&mut self) {
        self.next_line(|line| line.contains(" shards") && !line.starts_with("0 of"));
    }

    /// Reads on to such a line.
    fn next_line(&mut self, is: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            let read = self.errors.read_line(&mut line).expect("readable");
            assert!(read > 0, "tessera ended early: {}", self.said);
            self.said += &line;
            if is(&line) {
                return line;
            }
        }
    }

    /// The document with which it ends.
    pub(crate) fn finish(self) -> Value {
        let Run { child, mut errors, said, .. } = self;
        // Somebody must read on, or a full pipe stops the program.
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = errors.read_to_string(&mut rest);
            rest
        });
        let output = child.wait_with_output().expect("it was our child");
        let rest = reader.join().expect("reading does not panic");
        assert!(output.status.success(), "exit {:?}\n{said}{rest}", output.status.code());
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }
}
