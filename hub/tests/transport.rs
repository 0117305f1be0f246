//! Lanes and their QUIC over real sockets on loopback, against tokio `quinn` agents.

mod agent;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use agent::{Agent, PATIENCE, client_config, read_frame, run, soon, write_frame};
use tessera_hub::quic::{
    CloseCode, CloseReason, Counters, Identity, LaneIndex, LaneSockets, Limits, PublicKey, SendError,
    SessionEvent, SessionId, Sessions, Steering, SteeringError, SteeringPreference,
};
use tessera_hub::runtime::{LaneConfig, LaneError, LaneHandler, Lanes, Mailboxes, Pinning, spawn_lanes};

/// What a lane of the test hub tells the test.
#[derive(Debug)]
enum Seen {
    Opened(LaneIndex, PublicKey),
    Closed(CloseReason),
}

/// What the test asks of a lane.
enum Ask {
    Counters(mpsc::Sender<(usize, Counters)>),
    ThreadTime(mpsc::Sender<Duration>),
    /// Queue work frames of this size for every agent until one is refused; answers how many were taken.
    FillWork(usize, mpsc::Sender<(usize, SendError)>),
    Panic,
}

/// Welcomes whoever speaks, and sends everything back the way it came.
struct Echo {
    lane: LaneIndex,
    seen: mpsc::Sender<Seen>,
    welcomed: Vec<SessionId>,
}

impl LaneHandler for Echo {
    type Message = Ask;

    fn message(&mut self, _now: Instant, ask: Ask, io: &mut Sessions) {
        // The test may have ended meanwhile.
        let _ = match ask {
            Ask::Counters(answer) => answer.send((io.sessions(), io.counters())).map_err(drop),
            Ask::ThreadTime(answer) => answer.send(thread_time()).map_err(drop),
            Ask::FillWork(bytes, answer) => {
                let frame = vec![1; bytes];
                let mut taken = 0;
                let refused = loop {
                    match io.send_work(self.welcomed[0], &frame) {
                        Ok(()) => taken += 1,
                        Err(error) => break error,
                    }
                };
                answer.send((taken, refused)).map_err(drop)
            }
            Ask::Panic => panic!("as the test wished"),
        };
    }

    fn session_event(&mut self, _now: Instant, event: SessionEvent, io: &mut Sessions) {
        match event {
            SessionEvent::Opened { key, .. } => drop(self.seen.send(Seen::Opened(self.lane, key))),
            SessionEvent::Control { session, frame } => {
                if !self.welcomed.contains(&session) {
                    assert_eq!(io.send_work(session, b"\x01too early"), Err(SendError::NotAccepted));
                    io.accept(session).expect("an open session");
                    io.send_work(session, b"\x01welcome").expect("an empty queue");
                    self.welcomed.push(session);
                }
                io.send_control(session, &frame).expect("room");
            }
            SessionEvent::Work { session, frame } => io.send_work(session, &frame).expect("room"),
            SessionEvent::Bulk { session, bytes } => io.send_bulk(session, bytes).expect("room"),
            SessionEvent::Closed { session, reason } => {
                self.welcomed.retain(|welcomed| *welcomed != session);
                drop(self.seen.send(Seen::Closed(reason)));
            }
        }
    }

    fn turn_end(&mut self, _now: Instant, _io: &mut Sessions) -> Option<Instant> {
        None
    }

    fn stopping(&mut self, _now: Instant, _io: &mut Sessions) -> bool {
        true
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a structure of the type the call fills.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Hub {
    lanes: Lanes<Ask>,
    address: SocketAddr,
    steering: Steering,
    key: PublicKey,
    seen: mpsc::Receiver<Seen>,
}

impl Hub {
    fn start(lanes: u16) -> Hub {
        Hub::with("127.0.0.1:0", lanes, SteeringPreference::Kernel, Limits::default())
    }

    fn with(address: &str, lanes: u16, steering: SteeringPreference, limits: Limits) -> Hub {
        Hub::of(&Identity::generate().expect("a key"), address, lanes, steering, limits)
    }

    fn of(
        identity: &Identity,
        address: &str,
        lanes: u16,
        steering: SteeringPreference,
        limits: Limits,
    ) -> Hub {
        let sockets =
            LaneSockets::open(address.parse().expect("an address"), lanes, steering).expect("a port");
        let (address, steering) = (sockets.address(), sockets.steering());
        let (tell, seen) = mpsc::channel();
        let config = LaneConfig { limits, pinning: Pinning::Never, ..LaneConfig::default() };
        let make = move |lane, _: Mailboxes<Ask>| Echo { lane, seen: tell.clone(), welcomed: Vec::new() };
        let lanes = spawn_lanes(config, sockets, identity, make).expect("lanes");
        Hub { lanes, address, steering, key: identity.public_key(), seen }
    }

    fn ask<T>(&self, lane: u16, ask: impl FnOnce(mpsc::Sender<T>) -> Ask) -> T {
        let (answer, answers) = mpsc::channel();
        assert!(self.lanes.mailboxes().try_push(LaneIndex(lane), ask(answer)).is_ok(), "room in the mailbox");
        answers.recv_timeout(PATIENCE).expect("an answer")
    }

    fn all_counters(&self) -> Vec<(usize, Counters)> {
        (0..self.lanes.mailboxes().lanes()).map(|lane| self.ask(lane, Ask::Counters)).collect()
    }

    fn next_close(&self) -> CloseReason {
        loop {
            if let Seen::Closed(reason) = self.seen.recv_timeout(PATIENCE).expect("a session ends") {
                return reason;
            }
        }
    }
}

#[test]
fn frames_on_both_streams_come_back_as_they_were_sent() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let hub = Hub::with(address, 1, SteeringPreference::Kernel, Limits::default());
        assert_eq!(hub.steering, Steering::OneLane);
        run(async {
            let (mut agent, mut work) = Agent::welcomed(hub.address, hub.key).await;
            for bytes in [1, 100, 5_000, 64 << 10] {
                let body = vec![7; bytes];
                assert_eq!(agent.say(&body).await, body, "control frame of {bytes} bytes");
            }
            let (mut to_hub, from_hub) = (work.0, &mut work.1);
            let bodies: Vec<Vec<u8>> = (1..200usize).map(|n| vec![n as u8; n * n]).collect();
            let sent = bodies.clone();
            let sending = tokio::spawn(async move {
                for body in &sent {
                    write_frame(&mut to_hub, body).await;
                }
                to_hub
            });
            for body in &bodies {
                assert!(read_frame(from_hub).await == *body, "work frame of {} bytes", body.len());
            }
            drop(sending.await.expect("sent"));
            match hub.seen.recv_timeout(PATIENCE).expect("news") {
                Seen::Opened(lane, key) => {
                    assert_eq!((lane, key), (LaneIndex(0), agent.identity.public_key()))
                }
                other => panic!("{other:?}"),
            }
        });
    }
}

#[test]
fn eight_megabytes_each_way_do_not_stall_small_frames() {
    let hub = Hub::start(1);
    run(async {
        let (agent, mut work) = Agent::welcomed(hub.address, hub.key).await;
        let payload: Vec<u8> = (0..8usize << 20).map(|i| ((i * 31) >> 7) as u8).collect();
        let (connection, sent) = (agent.connection.clone(), payload.clone());
        let bulk = tokio::spawn(async move {
            let mut stream = connection.open_uni().await.expect("a bulk stream");
            stream.set_priority(-1).expect("an open stream");
            stream.write_all(&sent).await.expect("written");
            stream.finish().expect("finished");
            let mut back =
                soon("the payload's return", connection.accept_uni()).await.expect("a bulk stream");
            soon("the payload", back.read_to_end(64 << 20)).await.expect("the whole payload")
        });
        let (mut waits, began) = (Vec::new(), Instant::now());
        while !bulk.is_finished() {
            let asked = Instant::now();
            write_frame(&mut work.0, b"\x01ping").await;
            assert_eq!(read_frame(&mut work.1).await, b"\x01ping");
            waits.push(asked.elapsed());
        }
        let took = began.elapsed();
        assert!(bulk.await.expect("a payload") == payload, "the payload came back changed");
        waits.sort();
        let median = waits[waits.len() / 2];
        println!(
            "16 MiB in {took:?}, {} frames meanwhile, median {median:?}, worst {:?}",
            waits.len(),
            waits[waits.len() - 1]
        );
        assert!(waits.len() >= 5, "only {} frames came back while the payload was on its way", waits.len());
        assert!(median < took / 5, "a small frame waits {median:?} of the payload's {took:?}");
    });
}

#[test]
fn an_agent_may_have_one_bulk_stream_open_and_more_as_it_uses_them_and_the_lane_has_some_left() {
    for (lane_bulk_streams, opened) in [(128, &[1, 2, 4, 8, 15, 15][..]), (0, &[1, 1, 1]), (1, &[1, 2, 2])] {
        let limits = Limits { lane_bulk_streams, ..Limits::default() };
        let hub = Hub::with("127.0.0.1:0", 1, SteeringPreference::Kernel, limits);
        run(async {
            let (agent, _work) = Agent::welcomed(hub.address, hub.key).await;
            for &most in opened {
                let mut streams = Vec::new();
                let open = || tokio::time::timeout(Duration::from_millis(300), agent.connection.open_uni());
                while let Ok(stream) = open().await {
                    streams.push(stream.expect("a session"));
                }
                assert_eq!(streams.len(), most, "of {lane_bulk_streams}");
                for stream in &mut streams {
                    stream.write_all(b"payload").await.expect("written");
                    stream.finish().expect("finished");
                    soon("the payload's return", agent.connection.accept_uni()).await.expect("a bulk stream");
                }
            }
        });
    }
}

#[test]
fn the_credit_of_every_bulk_stream_that_ends_comes_back() {
    let hub = Hub::start(1);
    run(async {
        let (agent, _work) = Agent::welcomed(hub.address, hub.key).await;
        // More than an agent may have open at once, most of them given up half way.
        for payload in 0..100u8 {
            let mut stream = soon("credit", agent.connection.open_uni()).await.expect("a bulk stream");
            stream.write_all(&[payload; 3_000]).await.expect("written");
            if payload % 5 != 0 {
                stream.reset(7u32.into()).expect("an open stream");
                continue;
            }
            stream.finish().expect("finished");
            let back = soon("the payload's return", agent.connection.accept_uni()).await;
            let back = back.expect("a bulk stream").read_to_end(1 << 20).await.expect("the whole payload");
            assert_eq!(back, [payload; 3_000]);
        }
    });
}

#[test]
fn a_lane_that_is_kept_busy_does_not_stop_listening() {
    let hub = Hub::start(1);
    run(async {
        let until = Instant::now() + Duration::from_secs(3);
        let mut agents = Vec::new();
        for _ in 0..30 {
            let (agent, mut work) = Agent::welcomed(hub.address, hub.key).await;
            agents.push(tokio::spawn(async move {
                let mut rounds = 0;
                while Instant::now() < until {
                    for _ in 0..16 {
                        write_frame(&mut work.0, &[1; 128]).await;
                    }
                    for _ in 0..16 {
                        assert_eq!(read_frame(&mut work.1).await, [1; 128]);
                    }
                    rounds += 1;
                }
                drop(agent);
                rounds
            }));
        }
        let mut rounds = 0;
        for agent in agents {
            rounds += soon("an agent's last answer", agent).await.expect("the hub answered to the end");
        }
        println!("{} frames there and back in 3 s", rounds * 16);
    });
    assert_eq!(hub.ask(0, Ask::Counters).1.sessions_opened, 30, "the lane lives");
}

#[test]
fn forty_agents_are_spread_over_both_lanes() {
    let hub = Hub::start(2);
    run(async {
        let mut agents = Vec::new();
        for _ in 0..40 {
            agents.push(Agent::welcomed(hub.address, hub.key).await);
        }
        let on_lane: Vec<usize> = hub.all_counters().iter().map(|(sessions, _)| *sessions).collect();
        println!("agents on each lane: {on_lane:?}");
        assert_eq!(on_lane.iter().sum::<usize>(), 40);
        assert!(on_lane.iter().all(|&sessions| sessions >= 5), "{on_lane:?}");
    });
}

fn agents_that_change_their_port_stay(preference: SteeringPreference, expected: Steering) -> u64 {
    let hub = Hub::with("127.0.0.1:0", 2, preference, Limits::default());
    assert_eq!(hub.steering, expected);
    run(async {
        let mut agents = Vec::new();
        for _ in 0..20 {
            agents.push(Agent::welcomed(hub.address, hub.key).await);
        }
        for round in 0..2u8 {
            for (agent, work) in &mut agents {
                agent.change_port();
                assert_eq!(agent.say(&[1, round]).await, [1, round]);
                write_frame(&mut work.0, &[1, round]).await;
                assert_eq!(read_frame(&mut work.1).await, [1, round]);
            }
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let counters = hub.all_counters();
            let sum = |field: fn(&Counters) -> u64| counters.iter().map(|(_, lane)| field(lane)).sum::<u64>();
            assert_eq!(
                counters.iter().map(|(sessions, _)| sessions).sum::<usize>(),
                20,
                "every session survived"
            );
            assert_eq!(sum(|lane| lane.sessions_opened), 20, "and none was replaced");
            let (surfaced, handed_over) =
                (sum(|lane| lane.datagrams_foreign), sum(|lane| lane.datagrams_injected));
            // Some may be between two lanes at this instant.
            if surfaced == handed_over {
                break surfaced;
            }
            assert!(Instant::now() < until, "{surfaced} datagrams surfaced, {handed_over} were handed over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

#[test]
fn agents_that_change_their_port_stay_on_their_lane_by_the_kernel() {
    let forwarded = agents_that_change_their_port_stay(SteeringPreference::Kernel, Steering::Kernel);
    assert_eq!(forwarded, 0, "the kernel steered every packet");
}

#[test]
fn agents_that_change_their_port_stay_on_their_lane_by_forwarding() {
    let forwarded = agents_that_change_their_port_stay(SteeringPreference::ForwardOnly, Steering::Forwarding);
    println!("forwarded: {forwarded}");
    assert!(forwarded > 0, "half of the new ports hash to the other lane");
}

#[test]
fn a_frame_beyond_the_limit_ends_the_session_with_words_that_say_so() {
    let limits = Limits { control_frame_bytes_max: 1_000, ..Limits::default() };
    let hub = Hub::with("127.0.0.1:0", 1, SteeringPreference::Kernel, limits);
    run(async {
        let mut agent = Agent::connect(hub.address, hub.key).await;
        agent.control.0.write_all(&1_001u32.to_le_bytes()).await.expect("written");
        assert_eq!(agent.closed().await, (3, "a frame of 1001 bytes; at most 1000 are allowed".to_owned()));
    });
    match hub.next_close() {
        CloseReason::Hub { code, .. } => assert_eq!(code, CloseCode::TOO_LARGE),
        other => panic!("{other}"),
    }
    assert_eq!(hub.ask(0, Ask::Counters).0, 0, "no session is left");
}

#[test]
fn streams_used_otherwise_than_agreed_end_the_session() {
    let limits = Limits { bulk_bytes_max: 10_000, session_in_bytes_max: 15_000, ..Limits::default() };
    let hub = Hub::with("127.0.0.1:0", 1, SteeringPreference::Kernel, limits);
    run(async {
        let early = Agent::connect(hub.address, hub.key).await;
        let mut stream = early.connection.open_uni().await.expect("a stream");
        stream.write_all(b"x").await.expect("written");
        assert_eq!(early.closed().await, (2, "a bulk stream before the hub's welcome".to_owned()));

        let (large, _work) = Agent::welcomed(hub.address, hub.key).await;
        let mut stream = large.connection.open_uni().await.expect("a stream");
        stream.write_all(&[1; 10_001]).await.expect("written");
        assert_eq!(large.closed().await, (3, "a bulk stream of more than 10000 bytes".to_owned()));

        let (much, _work) = Agent::welcomed(hub.address, hub.key).await;
        let mut short = much.connection.open_uni().await.expect("a stream");
        short.write_all(&[1]).await.expect("written");
        short.finish().expect("finished");
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = soon("more credit", much.connection.open_uni()).await.expect("a stream");
            stream.write_all(&[1; 9_000]).await.expect("written");
            streams.push(stream);
        }
        let words = "more than 15000 bytes of unfinished frames and bulk streams";
        assert_eq!(much.closed().await, (4, words.to_owned()));

        let (mut ended, _work) = Agent::welcomed(hub.address, hub.key).await;
        ended.control.0.finish().expect("finished");
        assert_eq!(ended.closed().await, (2, "the control stream ended before the session".to_owned()));
    });
}

#[test]
fn an_agent_without_a_key_or_with_another_protocol_is_never_a_session() {
    let hub = Hub::start(1);
    let identity = Identity::generate().expect("a key");
    let other_hub = Identity::generate().expect("a key").public_key();
    run(async {
        let cases = [
            ("no key", client_config(None, hub.key, b"tessera/2")),
            ("another protocol", client_config(Some(&identity), hub.key, b"tessera/999")),
            ("another hub expected", client_config(Some(&identity), other_hub, b"tessera/2")),
        ];
        for (what, config) in cases {
            let endpoint =
                quinn::Endpoint::client("127.0.0.1:0".parse().expect("loopback")).expect("a socket");
            let connecting = endpoint.connect_with(config, hub.address, "hub").expect("a valid address");
            // An agent may believe itself connected before the hub has judged its key.
            let ended = match soon("an answer", connecting).await {
                Ok(connection) => soon("the refusal", connection.closed()).await,
                Err(error) => error,
            };
            println!("{what}: {ended}");
            assert!(!matches!(ended, quinn::ConnectionError::TimedOut), "{what}: refused, not ignored");
        }
        let _agent = Agent::welcomed(hub.address, hub.key).await;
    });
    assert_eq!(hub.ask(0, Ask::Counters).1.sessions_opened, 1, "only the last was let in");
}

#[test]
fn an_idle_hub_with_agents_uses_next_to_no_processor_time_and_answers_at_once() {
    let hub = Hub::start(2);
    run(async {
        let mut agents = Vec::new();
        for _ in 0..10 {
            agents.push(Agent::welcomed(hub.address, hub.key).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let times = || [0, 1].map(|lane| hub.ask(lane, Ask::ThreadTime));
        let before = times();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = times();
        let spent = after[0] + after[1] - before[0] - before[1];
        println!("two idle lanes with ten agents spent {spent:?} in one second");
        assert!(spent < Duration::from_millis(100), "an idle hub spent {spent:?} in one second");
        let mut waits: Vec<Duration> = (0..50u16)
            .map(|round| {
                std::thread::sleep(Duration::from_millis(5));
                let asked = Instant::now();
                hub.ask(round % 2, Ask::Counters);
                asked.elapsed()
            })
            .collect();
        waits.sort();
        println!("a sleeping lane answered after {:?} (median), {:?} (worst)", waits[25], waits[49]);
        assert!(waits[25] < Duration::from_millis(20), "a sleeping lane answered after {:?}", waits[25]);
    });
}

#[test]
fn a_hub_that_stops_tells_its_agents() {
    let hub = Hub::start(2);
    run(async {
        let mut agents = Vec::new();
        for _ in 0..6 {
            agents.push(Agent::welcomed(hub.address, hub.key).await);
        }
        let began = Instant::now();
        hub.lanes.stopper().request_stop();
        for (agent, _work) in &agents {
            assert_eq!(agent.closed().await, (1, "the hub is stopping".to_owned()));
        }
        assert!(hub.lanes.join().is_ok());
        println!("stopped in {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(3));
    });
    let reasons: Vec<Seen> = hub.seen.try_iter().collect();
    let told = reasons.iter().filter(|seen| matches!(seen, Seen::Closed(CloseReason::Hub { .. }))).count();
    assert_eq!(told, 6, "the handler heard of every end");
}

#[test]
fn a_lane_that_panics_stops_the_others_and_is_reported() {
    let hub = Hub::start(2);
    assert!(hub.lanes.mailboxes().try_push(LaneIndex(1), Ask::Panic).is_ok());
    match hub.lanes.join() {
        Err(LaneError::Panicked { lane, message }) => {
            assert_eq!((lane, message.as_str()), (LaneIndex(1), "as the test wished"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn agents_learn_at_once_that_a_killed_hub_is_back_without_their_sessions() {
    let identity = Identity::generate().expect("a key");
    let start = |address: &str| Hub::of(&identity, address, 1, SteeringPreference::Kernel, Limits::default());
    let hub = start("127.0.0.1:0");
    run(async {
        let (mut agent, _work) = Agent::welcomed(hub.address, hub.key).await;
        let address = hub.address.to_string();
        // The lane dies and says nothing to anybody.
        drop(hub.lanes.mailboxes().try_push(LaneIndex(0), Ask::Panic));
        assert!(hub.lanes.join().is_err());
        assert_eq!(agent.connection.close_reason(), None);
        let _back = start(&address);
        let began = Instant::now();
        write_frame(&mut agent.control.0, b"\x01still there?").await;
        let ended = soon("the reset", agent.connection.closed()).await;
        println!("reset after {:?}: {ended}", began.elapsed());
        assert_eq!(ended, quinn::ConnectionError::Reset);
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn all_agents_of_a_killed_hub_are_told_in_one_turn() {
    let identity = Identity::generate().expect("a key");
    let socket = || std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (hub, agents) = (socket(), socket());
    hub.set_nonblocking(true).expect("a socket's flag");
    let address = hub.local_addr().expect("an address");
    let mut back = Sessions::new(LaneIndex(0), 1, hub, &identity, Limits::default()).expect("a lane");
    for agent in 0..100 {
        // Of a session of the lane that nobody remembers.
        let mut packet = [agent; 60];
        (packet[0], packet[1]) = (0x40, 0);
        agents.send_to(&packet, address).expect("loopback");
    }
    assert_eq!(back.receive(Instant::now()).datagrams, 100);
    agents.set_nonblocking(true).expect("a socket's flag");
    let told = std::iter::from_fn(|| agents.recv(&mut [0; 100]).ok()).count();
    assert_eq!(told, 100);
}

#[test]
fn under_load_clients_prove_their_address_first_and_still_get_in() {
    let limits = Limits { handshakes_retry_above: 0, ..Limits::default() };
    let hub = Hub::with("127.0.0.1:0", 2, SteeringPreference::Kernel, limits);
    run(async {
        for _ in 0..4 {
            let _agent = Agent::welcomed(hub.address, hub.key).await;
        }
    });
    let retried: u64 = hub.all_counters().iter().map(|(_, lane)| lane.handshakes_retried).sum();
    assert_eq!(retried, 4);
}

#[test]
fn a_full_hub_turns_further_agents_away() {
    let hub = Hub::with(
        "127.0.0.1:0",
        1,
        SteeringPreference::Kernel,
        Limits { sessions_max: 1, ..Limits::default() },
    );
    run(async {
        let _only = Agent::welcomed(hub.address, hub.key).await;
        let identity = Identity::generate().expect("a key");
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("loopback")).expect("a socket");
        let config = client_config(Some(&identity), hub.key, b"tessera/2");
        let connecting = endpoint.connect_with(config, hub.address, "hub").expect("a valid address");
        let refused = soon("the refusal", connecting).await.expect_err("there is no room");
        assert!(refused.to_string().contains("refused"), "{refused}");
    });
}

#[test]
fn an_agent_that_does_not_read_fills_its_queue_and_no_more() {
    let hub = Hub::start(1);
    run(async {
        let (_agent, mut work) = Agent::welcomed(hub.address, hub.key).await;
        let (mut frames, mut rounds) = (0, 0);
        loop {
            let (taken, refused) = hub.ask(0, |answer| Ask::FillWork(100_000, answer));
            assert_eq!(refused, SendError::Full);
            frames += taken;
            rounds += 1;
            // Let QUIC take what its windows allow.
            tokio::time::sleep(Duration::from_millis(30)).await;
            if taken == 0 || rounds > 100 {
                break;
            }
        }
        println!("{frames} frames of 100 kB were taken");
        assert!(rounds < 100 && frames <= 70, "{frames} frames in {rounds} rounds");
        for _ in 0..frames {
            assert_eq!(read_frame(&mut work.1).await.len(), 100_000, "and none of them was lost");
        }
        write_frame(&mut work.0, b"\x01on we go").await;
        assert_eq!(read_frame(&mut work.1).await, b"\x01on we go");
    });
}

#[test]
fn a_port_that_is_taken_is_said_to_be_taken_even_by_a_hub_that_shares_it() {
    let hub = Hub::start(2);
    for lanes in [1, 2] {
        match LaneSockets::open(hub.address, lanes, SteeringPreference::Kernel) {
            Err(error @ SteeringError::Bind { .. }) => {
                assert!(error.to_string().contains("is in use"), "{error}")
            }
            other => panic!("{other:?}"),
        }
    }
}
