//! An agent on loopback against a small hub that speaks the wire by hand.

mod hub;
mod matrices;
mod program;

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use hub::{Hub, HubIdentity, Session};
use tempfile::TempDir;
use tessera_agent::{AgentError, Config, HubAddress};
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INLINE_BYTES_MAX;
use tessera_protocol::monte_carlo::{Contract, Driver, Market, Model, Payoff, Task};
use tessera_protocol::token::EnrolmentToken;
use tessera_protocol::wire::{
    self, AgentControl, AgentWork, Assignment, BulkHeader, HubControl, HubWork, Message, Partial,
    ShardFailure, ShardResult,
};
use tokio::sync::oneshot;

const JOB: [u8; 16] = [1; 16];
const SHARD_PATHS: u64 = 500;

/// An agent on a thread of its own.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<Result<(), AgentError>>,
}

impl Running {
    fn start(hub: SocketAddr, data: &Path, token: Option<EnrolmentToken>, slots: u16) -> Running {
        Running::start_with(hub, data, token, slots, [None, None])
    }

    /// With so much memory, and so much of the disk for files.
    fn start_with(
        hub: SocketAddr,
        data: &Path,
        token: Option<EnrolmentToken>,
        slots: u16,
        [memory_bytes, cache_bytes_max]: [Option<u64>; 2],
    ) -> Running {
        let config = Config {
            gpus: tessera_agent::GpuChoice::None,
            hubs: vec![HubAddress { host: hub.ip().to_string(), port: hub.port() }],
            token,
            data: data.to_owned(),
            cache_bytes_max,
            memory_bytes,
            slots,
            name: "test".to_owned(),
            region: "eu-north".parse().ok(),
            isa: Isa::detect(),
            work_log: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            tessera_agent::run(config, async move {
                let _ = stopped.await;
            })
        });
        Running { stop: Some(stop), thread }
    }

    /// How it ended by itself.
    async fn ended(self) -> Result<(), AgentError> {
        let _keep = self.stop;
        tokio::task::spawn_blocking(|| self.thread.join().expect("no panic")).await.expect("no panic")
    }

    /// Stops it while the hub's tasks go on.
    async fn stop(mut self) -> Result<(), AgentError> {
        drop(self.stop.take());
        self.ended().await
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// How an agent sends a partial.
fn sent(partial: Vec<u8>) -> Partial {
    match partial.len() > INLINE_BYTES_MAX {
        true => Partial::Elsewhere(Box::new(Digest::of(&partial).0)),
        false => Partial::Here(partial),
    }
}

/// A book of calls: each adds some hundred bytes to a partial.
fn book(contracts: usize) -> Task {
    let contract = |number: usize| Contract {
        id: format!("call {number}"),
        driver: 0,
        spot: 100.0,
        strike: 80.0 + number as f64,
        rate: 0.03,
        dividend: 0.01,
        volatility: 0.2,
        expiry: 0,
        quantity: 1.0,
        payoff: Payoff::EuropeanCall,
    };
    let contracts = (0..contracts).map(contract).collect();
    Task {
        key: [3, 4],
        model: Model::Gbm(Market { drivers: vec![Driver { times: vec![0.5] }], contracts, anchor: 0.0 }),
    }
}

fn pi() -> Task {
    Task { key: [1, 2], model: Model::Pi }
}

fn announce(task: Option<Vec<u8>>) -> HubWork {
    HubWork::Job { job: JOB, kernel: "monte_carlo".to_owned(), task }
}

fn assign(indices: std::ops::Range<u64>) -> HubWork {
    let item = |index| Assignment { index, epoch: 7, first: index * SHARD_PATHS, count: SHARD_PATHS };
    HubWork::Assign { job: JOB, items: indices.map(item).collect() }
}

/// What the kernel itself makes of a shard.
fn expected(task: &Task, index: u64) -> Vec<u8> {
    let tally = monte_carlo::run(task, Isa::PLAIN, index * SHARD_PATHS, SHARD_PATHS, &|| false);
    tally.expect("a tally").encode()
}

async fn results(session: &mut Session, count: usize) -> Vec<ShardResult> {
    let mut all = Vec::new();
    while all.len() < count {
        match session.answer().await {
            AgentWork::Results { job: JOB, items } => all.extend(items),
            other => panic!("{other:?}"),
        }
    }
    all.sort_by_key(|item| item.index);
    all
}

#[tokio::test]
async fn a_new_agent_enrols_computes_and_stops_when_asked() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 2);
    let mut session = hub.greeted().await;
    assert!(!data.path().join("hub.key").exists(), "nothing is kept before the welcome");
    assert_eq!(session.hello.token, Some([0x5e; 32]));
    assert_eq!(session.hello.slots, 2);
    assert_eq!(session.hello.region, "eu-north");
    let (always, encoders) = session.hello.kernels.split_at(5);
    assert_eq!(always, ["monte_carlo", "gemm", "syrk", "climate_pca", "catastrophe"]);
    assert!(encoders.iter().all(|kernel| kernel.starts_with("video")), "{encoders:?}");
    session.welcome(4).await;
    session.work(&announce(Some(pi().encode()))).await;
    for round in 0..5 {
        session.work(&assign(round * 4..round * 4 + 4)).await;
        for (index, item) in (round * 4..).zip(results(&mut session, 4).await) {
            assert_eq!((item.index, item.epoch), (index, 7));
            assert_eq!(item.partial, sent(expected(&pi(), index)));
        }
    }
    agent.stop().await.expect("a clean end");
    let mut said = Vec::new();
    while let Some(message) = session.said().await {
        said.push(message);
    }
    assert!(said.contains(&AgentControl::Leaving));
    assert_eq!(session.closed_by_agent().await.0, 0);
    let kept = std::fs::read_to_string(data.path().join("hub.key")).expect("the pinned key");
    assert_eq!(kept.trim(), &identity.token().to_string()[4..68]);
}

#[tokio::test]
async fn large_tasks_and_partials_travel_on_their_own_streams() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 2);
    let mut session = hub.welcomed(4).await;
    let task = book(200);
    session.work(&announce(None)).await;
    session.work(&assign(0..4)).await;
    session.bulk(&wire::bulk(&BulkHeader::Task { job: JOB }, &task.encode())).await;
    let mut partials = Vec::new();
    for _ in 0..4 {
        let (header, payload) = session.payload().await;
        let BulkHeader::Partial { job: JOB, index, epoch: 7 } = header else { panic!("{header:?}") };
        partials.push((index, payload));
    }
    partials.sort();
    for (item, (index, payload)) in results(&mut session, 4).await.into_iter().zip(partials) {
        assert!(payload.len() > INLINE_BYTES_MAX);
        assert_eq!((item.index, item.partial), (index, sent(payload.clone())));
        assert_eq!(payload, expected(&task, index));
    }
    agent.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_forgotten_job_frees_the_slot_it_was_computed_in() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(2).await;
    let endless = [9; 16];
    let kernel = "monte_carlo".to_owned();
    session.work(&HubWork::Job { job: endless, kernel, task: Some(book(200).encode()) }).await;
    let items =
        vec![Assignment { index: 0, epoch: 1, first: 0, count: tessera_protocol::limits::SHARD_PATHS_MAX }];
    session.work(&HubWork::Assign { job: endless, items }).await;
    let holding = loop {
        match session.said().await {
            Some(AgentControl::Heartbeat { holding }) if !holding.is_empty() => break holding,
            Some(_) => {}
            None => panic!("the agent left"),
        }
    };
    assert_eq!((holding[0].job, holding.len()), (endless, 1), "its lease is renewed while it runs");
    session.work(&HubWork::Forget { job: endless }).await;
    session.work(&announce(Some(pi().encode()))).await;
    session.work(&assign(5..6)).await;
    assert_eq!(results(&mut session, 1).await[0].index, 5, "nothing more of the forgotten job");
    agent.stop().await.expect("a clean end");
}

#[tokio::test]
async fn what_an_agent_cannot_compute_it_says() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(2).await;
    session.work(&announce(Some(vec![1, 2, 3]))).await;
    session.work(&assign(5..6)).await;
    let failure = ShardFailure::TaskInvalid;
    assert_eq!(session.answer().await, AgentWork::Failed { job: JOB, index: 5, epoch: 7, failure });
    agent.stop().await.expect("a clean end");
}

#[tokio::test]
async fn an_agent_comes_back_to_a_hub_that_restarted_and_to_one_after_its_own_restart() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let address = hub.address();
    let agent = Running::start(address, data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(2).await;
    session.said().await.expect("a heartbeat: the welcome has arrived");
    let first = session.agent;
    drop(session);
    hub.stop().await;
    let hub = Hub::start_at(address, &identity);
    let second = hub.welcomed(2).await;
    assert_eq!((second.agent, second.hello.token), (first, None), "the token is spent");
    agent.stop().await.expect("a clean end");

    let agent = Running::start(address, data.path(), None, 1);
    assert_eq!(hub.welcomed(2).await.agent, first, "the identity and the hub's key are kept");
    agent.stop().await.expect("a clean end");
}

/// A fresh agent, welcomed, with two shards of credit: its backoff is short.
async fn fresh(hub: &Hub, identity: &HubIdentity) -> (TempDir, Running, Session) {
    let data = folder();
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let session = hub.welcomed(2).await;
    (data, agent, session)
}

#[tokio::test]
async fn whatever_a_hub_sends_on_the_work_stream_the_agent_says_what_was_wrong_and_comes_back() {
    let identity = HubIdentity::new();
    let hub = Hub::start(&identity);
    let frame = |message: &HubWork| {
        let mut bytes = Vec::new();
        message.frame(&mut bytes);
        bytes
    };
    let cases = [
        (vec![0, 0, 0, 0], "a frame of 0 bytes"),
        (vec![255, 255, 255, 255], "a frame of 4294967295 bytes"),
        (vec![2, 0, 0, 0, 9, 9], "frame version 9"),
        (vec![40; 200_000], "a frame of"),
        (frame(&assign(0..1)), "did not announce"),
        ([frame(&announce(Some(pi().encode()))), frame(&assign(0..3))].concat(), "more than the 2 shards"),
    ];
    for (bytes, words) in cases {
        let (_data, agent, mut session) = fresh(&hub, &identity).await;
        // The agent may hang up before it has read it all.
        let _ = session.work_out().write_all(&bytes).await;
        let (code, reason) = session.closed_by_agent().await;
        assert_eq!(code, 2);
        assert!(reason.contains(words), "{reason}");
        hub.welcomed(2).await;
        agent.stop().await.expect("a clean end after all that");
    }
}

#[tokio::test]
async fn garbage_instead_of_a_welcome_a_payload_or_a_stream_ends_the_session() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.greeted().await;
    session.control_out.write_all(&[5, 0, 0, 0, 1, 2, 3, 4, 5]).await.expect("the agent reads");
    assert_eq!(session.closed_by_agent().await.0, 2);
    agent.stop().await.expect("a clean end");

    for bytes in
        [vec![7; 3], vec![7; 1000], wire::bulk(&BulkHeader::Partial { job: JOB, index: 0, epoch: 0 }, &[1])]
    {
        let (_data, agent, mut session) = fresh(&hub, &identity).await;
        session.bulk(&bytes).await;
        assert_eq!(session.closed_by_agent().await.0, 2);
        agent.stop().await.expect("a clean end");
    }
    let (_data, agent, mut session) = fresh(&hub, &identity).await;
    session.work_out().write_all(&[1]).await.expect("an open stream");
    session.work_out().finish().expect("an open stream");
    assert_eq!(session.closed_by_agent().await.0, 2, "the work stream ended");
    agent.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_hub_with_another_key_is_refused_and_both_keys_are_named() {
    let (data, pinned, impostor) = (folder(), HubIdentity::new(), HubIdentity::new());
    let hub = Hub::start(&impostor);
    let agent = Running::start(hub.address(), data.path(), Some(pinned.token()), 1);
    let error = tokio::select! {
        ended = agent.ended() => ended.expect_err("another key"),
        () = hub.refuse_handshakes() => panic!("the endpoint closed"),
    };
    assert!(matches!(error, AgentError::HubKeyDiffered { .. }));
    let text = error.to_string();
    for identity in [&pinned, &impostor] {
        assert!(text.contains(&identity.token().to_string()[4..68]), "{text}");
    }
}

#[tokio::test]
async fn an_agent_whose_hub_is_gone_works_for_another_that_it_was_told_of_and_still_knows_it_after_a_restart()
{
    let (data, identity, stranger) = (folder(), HubIdentity::new(), HubIdentity::new());
    let (first, second) = (Hub::start(&identity), Hub::start(&identity));
    let impostor = Hub::start(&stranger);
    let given = first.address();
    let agent = Running::start(given, data.path(), Some(identity.token()), 1);
    let mut session = first.welcomed(2).await;
    let addresses = [&first, &second, &impostor].map(|hub| hub.address().to_string()).to_vec();
    session.control(&HubControl::Hubs { addresses }).await;
    session.said().await.expect("a heartbeat: the list has arrived");
    drop(session);
    first.stop().await;

    let strangers = tokio::spawn(async move { impostor.refuse_handshakes().await });
    let mut session = second.welcomed(2).await;
    assert_eq!(session.hello.token, None, "the hubs share what they know of agents");
    session.work(&announce(Some(pi().encode()))).await;
    session.work(&assign(0..1)).await;
    assert_eq!(results(&mut session, 1).await[0].partial, sent(expected(&pi(), 0)));
    drop(session);
    agent.stop().await.expect("a clean end");

    // Nobody answers where the provider says that the hub is.
    let agent = Running::start(given, data.path(), None, 1);
    let mut session = second.welcomed(2).await;
    session.said().await.expect("a heartbeat");
    agent.stop().await.expect("a clean end");
    strangers.abort();
}

#[tokio::test]
async fn a_token_of_another_hub_than_the_pinned_one_is_refused_with_both_keys() {
    let (data, identity, other) = (folder(), HubIdentity::new(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(2).await;
    session.said().await.expect("a heartbeat: the welcome has arrived");
    agent.stop().await.expect("a clean end");
    let error = Running::start(hub.address(), data.path(), Some(other.token()), 1).ended().await;
    let text = error.expect_err("another hub").to_string();
    for identity in [&identity, &other] {
        assert!(text.contains(&identity.token().to_string()[4..68]), "{text}");
    }
    assert!(text.contains("hub.key"), "{text}");
}

#[tokio::test]
async fn a_hub_that_drains_is_left_once_nothing_is_held() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(2).await;
    session.work(&announce(Some(pi().encode()))).await;
    session.work(&assign(0..2)).await;
    session.control(&HubControl::Draining).await;
    assert_eq!(results(&mut session, 2).await.len(), 2);
    assert_eq!(session.closed_by_agent().await.0, 0);
    hub.welcomed(2).await;
    agent.stop().await.expect("a clean end");
}
