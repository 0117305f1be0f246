//! Frames alone: a lane's QUIC and driver with nothing behind them, and the same agents as end to end.
//!
//! What a shard costs here, no scheduler can win back. The lane reads each frame and answers with as many assignments
//! as it had results; it keeps no books.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_hub::quic::{Identity, LaneSockets, SessionEvent, SessionId, Sessions, SteeringPreference};
use tessera_hub::runtime::{LaneConfig, LaneHandler, Pinning, spawn_lanes};
use tessera_protocol::limits::{BATCH_ITEMS_MAX, HEARTBEAT_MS};
use tessera_protocol::wire::{AgentWork, Assignment, HubControl, HubWork, Message, Welcome};

use crate::bed::line;
use crate::fleet::{Answers, Fleet, Impairment, Member, Settings};
use crate::hub::{BenchError, HubArgs, wait_until};
use crate::machine::{Usage, pin};
use crate::report::{Better, Report};

const CONNECT_MAX: Duration = Duration::from_secs(120);
/// How often a lane looks whether all agents are there.
const LOOK: Duration = Duration::from_millis(5);
/// How long agents work before they are measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// The job that all assignments are of.
const JOB: [u8; 16] = [7; 16];

/// Flags of the scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct Transport {
    /// Simulated agents
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    agents: u32,
    /// Shards that each agent may hold
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// How long an agent takes for each shard that it holds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    think_ms: u64,
    /// About how long a result is, at most 16384
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=16_384))]
    result_bytes: u16,
    /// How long a round takes
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    network: Impairment,
    /// How often all is measured; medians count
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Cores of the lane, as in 0,2; the load takes the others [default: the first]
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    hub_cores: Vec<usize>,
}

/// A lane that gives an agent as much as it got from it.
struct Mirror {
    in_flight: u32,
    next: u64,
    results: Arc<AtomicU64>,
    frame: Vec<u8>,
    /// Who has been welcomed and got nothing yet: all begin together, so that nobody's handshake waits behind work.
    idle: Vec<SessionId>,
    all_there: Arc<AtomicBool>,
}

impl Mirror {
    fn assign(&mut self, session: SessionId, count: u64, io: &mut Sessions) {
        let items = (self.next..self.next + count).map(|index| Assignment {
            index,
            epoch: 1,
            first: index,
            count: 1,
        });
        self.next += count;
        let items: Vec<Assignment> = items.collect();
        let body = self.body(&HubWork::Assign { job: JOB, items });
        // A session that has ended or is full has no use for more.
        let _ = io.send_work(session, body);
    }

    fn body(&mut self, message: &impl Message) -> &[u8] {
        self.frame.clear();
        message.frame(&mut self.frame);
        &self.frame[4..]
    }
}

impl LaneHandler for Mirror {
    type Message = ();

    fn message(&mut self, _now: Instant, (): (), _io: &mut Sessions) {}

    fn session_event(&mut self, _now: Instant, event: SessionEvent, io: &mut Sessions) {
        match event {
            SessionEvent::Control { session, .. } if io.accept(session).is_ok() => {
                let welcome =
                    Welcome { agent: [0; 16], heartbeat_ms: HEARTBEAT_MS, credit: self.in_flight, lane: 0 };
                let _ = io.send_control(session, self.body(&HubControl::Welcome(welcome)));
                self.idle.push(session);
            }
            SessionEvent::Work { session, frame } => {
                if let Ok(AgentWork::Results { items, .. }) = AgentWork::read(&frame) {
                    self.results.fetch_add(items.len() as u64, Ordering::Relaxed);
                    self.assign(session, items.len() as u64, io);
                }
            }
            _ => {}
        }
    }

    fn turn_end(&mut self, now: Instant, io: &mut Sessions) -> Option<Instant> {
        if !self.all_there.load(Ordering::Relaxed) {
            return Some(now + LOOK);
        }
        for session in std::mem::take(&mut self.idle) {
            self.assign(session, self.in_flight.into(), io);
        }
        None
    }

    fn stopping(&mut self, _now: Instant, _io: &mut Sessions) -> bool {
        true
    }
}

impl Transport {
    pub(crate) fn measure(&self) -> Result<Report, BenchError> {
        let mut report = Report::new("transport");
        let answers =
            Answers::of_size(self.result_bytes.into()).map_err(|error| BenchError::Settings(error.into()))?;
        let (hub_cores, load_cores) = HubArgs::cores_of(&self.hub_cores, 1);
        for (name, value) in [("agents", self.agents), ("in_flight", self.in_flight)] {
            report.set(name, value);
        }
        report.set("think_ms", self.think_ms);
        report.set("result_bytes", answers.bytes());
        let identity = Identity::generate().map_err(BenchError::Identity)?;
        let address = "127.0.0.1:0".parse().expect("an address of loopback");
        let wrong = |error: Box<dyn std::error::Error + Send + Sync>| BenchError::Settings(error);
        let sockets =
            LaneSockets::open(address, 1, SteeringPreference::Kernel).map_err(|error| wrong(error.into()))?;
        let address = sockets.address();
        let results = Arc::new(AtomicU64::new(0));
        let all_there = Arc::new(AtomicBool::new(false));
        let (in_flight, counted, go) = (self.in_flight, results.clone(), all_there.clone());
        let make = move |_, _| Mirror {
            in_flight,
            next: 0,
            results: counted.clone(),
            frame: Vec::new(),
            idle: Vec::new(),
            all_there: go.clone(),
        };
        pin(&hub_cores);
        let config = LaneConfig { pinning: Pinning::Never, ..LaneConfig::default() };
        let lanes = spawn_lanes(config, sockets, &identity, make).map_err(|error| wrong(error.into()))?;
        pin(&load_cores);
        let member =
            |_| Ok(Member { identity: Identity::generate().map_err(BenchError::Identity)?, secret: None });
        let members = (0..self.agents).map(member).collect::<Result<Vec<_>, BenchError>>()?;
        let fleet = Fleet::start(Settings {
            lanes: 1,
            network: self.network,
            answers_per_frame: BATCH_ITEMS_MAX,
            hub: address,
            hub_key: identity.public_key(),
            members,
            in_flight: self.in_flight,
            think: Duration::from_millis(self.think_ms),
            answers,
            bulk: None,
            cores: load_cores,
        })?;
        fleet.connect(false);
        wait_until("not all agents were welcomed", CONNECT_MAX, || {
            Ok(fleet.welcomed() == u64::from(self.agents))
        })?;
        all_there.store(true, Ordering::Relaxed);
        std::thread::sleep(WARM_UP);
        for round in 1..=self.rounds {
            self.round(&fleet, &results, &format!("round {round} of {}", self.rounds), &mut report)?;
        }
        drop(fleet);
        lanes.request_stop();
        // How it ends is no part of what is measured.
        let _ = lanes.join();
        report.note(
            "Results as the lane counts them and answers as the agents do agreed within 1 %.".to_owned(),
        );
        Ok(report.close())
    }

    fn round(
        &self,
        fleet: &Fleet,
        results: &AtomicU64,
        what: &str,
        report: &mut Report,
    ) -> Result<(), BenchError> {
        fleet.take();
        let usage = || Usage::of(std::process::id());
        let (before, counted, began) = (usage(), results.load(Ordering::Relaxed), Instant::now());
        let bar = line(self.seconds, what);
        for second in 1..=self.seconds {
            std::thread::sleep(
                (began + Duration::from_secs(second)).saturating_duration_since(Instant::now()),
            );
            bar.set_position(second);
        }
        bar.finish_and_clear();
        let after = usage();
        let shards = (results.load(Ordering::Relaxed) - counted) as f64;
        let seconds = began.elapsed().as_secs_f64();
        let measures = fleet.take();
        if (shards - measures.answered as f64).abs() > 0.01 * shards + f64::from(self.agents * self.in_flight)
        {
            let said = measures.answered;
            return Err(BenchError::Wrong(format!("the lane counts {shards} results, the agents {said}")));
        }
        let lane = after.ns_since(&before).get("lane-0").copied().unwrap_or_default() as f64;
        report.rate(shards / seconds);
        report.cpu("lane per shard", lane / 1e3 / shards);
        report.cpu("load per shard", measures.computed_ns as f64 / 1e3 / shards);
        report.metric("lane busy", "% of a core", Better::Neither, lane / 1e7 / seconds);
        report.metric(
            "results per frame",
            "",
            Better::More,
            measures.answered as f64 / measures.frames.max(1) as f64,
        );
        let each = |bytes: u64| bytes as f64 / shards;
        report.metric("to the hub per shard", "B", Better::Less, each(measures.traffic.sent_bytes));
        report.metric("from the hub per shard", "B", Better::Less, each(measures.traffic.received_bytes));
        report.latency("refill of an agent", &measures.refill);
        Ok(())
    }
}
