//! What a provider or a hub would notice of an agent, one sentence at a time.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use tessera_protocol::address::HubAddress;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::monte_carlo::{Model, Task};
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::{Assignment, Held, Partial, ShardFailure};

use super::*;
use crate::attempt::Attempt;

const ME: AgentId = AgentId([7; 16]);
const JOB: JobId = JobId([1; 16]);

fn agent(slots: u16) -> Machine {
    agent_with(slots, 0)
}

fn agent_with(slots: u16, memory_bytes: u64) -> Machine {
    let hello = Hello {
        token: Some([9; 32]),
        name: "a".to_string(),
        version: "1".to_string(),
        slots,
        isa: "plain".to_string(),
        arch: "any".to_string(),
        memory_bytes,
        kernels: Vec::new(),
        region: alloc::string::String::new(),
    };
    let hubs = Hubs::new(vec![hub(1)], Vec::new()).expect("a hub");
    let cache_bytes_max = operand_bytes_max(memory_bytes);
    Machine::new(Identity { agent: ME, hello, gpus: Vec::new(), cache_bytes_max, hubs }, Vec::new())
}

fn hub(port: u16) -> HubAddress {
    HubAddress { host: "hub".to_string(), port }
}

fn connect() -> Effect {
    Effect::Connect { hub: hub(1) }
}

/// Steps and checks; what came out.
pub(super) fn at(machine: &mut Machine, ms: u64, event: Event) -> Vec<Effect> {
    let effects = machine.step(Tick(ms), event).collect();
    machine.invariants();
    effects
}

pub(super) fn welcome(credit: u32) -> Event {
    Event::Welcomed(Welcome { agent: ME.0, heartbeat_ms: 10_000, credit, lane: 0 })
}

fn working(slots: u16, credit: u32) -> Machine {
    with_memory(slots, credit, 0)
}

/// Welcomed, with so much memory, and half as much of the disk.
pub(super) fn with_memory(slots: u16, credit: u32, memory_bytes: u64) -> Machine {
    let mut machine = agent_with(slots, memory_bytes);
    for event in [Event::Started, Event::HubReached, welcome(credit)] {
        at(&mut machine, 0, event);
    }
    machine
}

pub(super) fn task() -> Vec<u8> {
    Task { key: [1, 2], model: Model::Pi }.encode()
}

fn announce(task: Option<Vec<u8>>) -> Event {
    Event::JobAnnounced { job: JOB, kernel: "monte_carlo".to_string(), task }
}

fn assign(indices: core::ops::Range<u64>) -> Event {
    let items = indices.map(|index| Assignment { index, epoch: 1, first: index * 10, count: 10 }).collect();
    Event::ShardsAssigned { job: JOB, items }
}

fn done(slot: u16, bytes: usize) -> Event {
    let outcome = Outcome::Done { partial: vec![5; bytes], digest: Digest([6; 32]), kernel_us: 3 };
    Event::ShardEnded { slot: SlotIndex(slot), outcome }
}

/// Shard indices that a step started, answered with a result, and answered with a failure.
pub(super) fn started(effects: &[Effect]) -> Vec<u64> {
    let start = |effect: &Effect| match effect {
        Effect::StartShard { work, .. } => Some(work.attempt.index.0),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

pub(super) fn results(effects: &[Effect]) -> Vec<Vec<u64>> {
    let frame = |effect: &Effect| match effect {
        Effect::SendWork(AgentWork::Results { items, .. }) => {
            Some(items.iter().map(|item| item.index).collect())
        }
        _ => None,
    };
    effects.iter().filter_map(frame).collect()
}

pub(super) fn violation(effects: &[Effect]) -> Option<Violation> {
    effects.iter().find_map(|effect| match effect {
        Effect::CloseSession { reason: Closing::Violated(violation) } => Some(*violation),
        _ => None,
    })
}

#[test]
fn the_first_session_says_hello_with_its_token_and_the_next_without() {
    let mut machine = agent(2);
    assert_eq!(at(&mut machine, 0, Event::Started), [connect()]);
    let hello = |effects: Vec<Effect>| match effects.into_iter().next() {
        Some(Effect::SendControl(AgentControl::Hello(hello))) => hello,
        other => panic!("no hello but {other:?}"),
    };
    let first = hello(at(&mut machine, 0, Event::HubReached));
    assert_eq!(first.token, Some([9; 32]));
    assert_eq!(first.kernels, ["monte_carlo", "gemm", "syrk", "climate_pca", "catastrophe"]);
    assert_eq!(at(&mut machine, 1, welcome(4)), [Effect::RememberHub]);
    at(&mut machine, 2, Event::SessionLost { random: Random(0) });
    at(&mut machine, 2, Event::TimePassed);
    assert_eq!(hello(at(&mut machine, 3, Event::HubReached)).token, None);
}

#[test]
fn no_more_shards_run_than_there_are_slots_and_the_next_starts_when_one_ends() {
    let mut machine = working(2, 4);
    at(&mut machine, 0, announce(Some(task())));
    assert_eq!(started(&at(&mut machine, 0, assign(0..4))), [0, 1]);
    let effects = at(&mut machine, 5, done(0, 100));
    assert_eq!((started(&effects), results(&effects)), (vec![2], vec![]), "the result waits for company");
    assert_eq!(machine.next_timer(), Some(Tick(6)));
    assert_eq!(results(&at(&mut machine, 6, Event::TimePassed)), [vec![0]]);
    at(&mut machine, 7, done(1, 100));
    assert_eq!(results(&at(&mut machine, 7, done(0, 100))), [vec![1, 2]], "a slot would idle");
}

#[test]
fn a_packet_full_of_results_leaves_at_once_and_large_partials_on_their_own_streams() {
    let mut machine = working(1, 9);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..9));
    assert_eq!(results(&at(&mut machine, 0, done(0, 600))), Vec::<Vec<u64>>::new());
    assert_eq!(results(&at(&mut machine, 0, done(0, 600))), [vec![0, 1]]);
    let effects = at(&mut machine, 0, done(0, limits::INLINE_BYTES_MAX + 1));
    let [Effect::StartShard { .. }, Effect::SendBulk { header, payload }, Effect::SendWork(frame)] =
        &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*header, BulkHeader::Partial { job: JOB.0, index: 2, epoch: 1 });
    assert_eq!(payload.len(), limits::INLINE_BYTES_MAX + 1);
    let AgentWork::Results { items, .. } = frame else { panic!("{frame:?}") };
    assert_eq!((items[0].index, &items[0].partial), (2, &Partial::Elsewhere(Box::new([6; 32]))));
}

#[test]
fn a_task_may_come_before_its_job_after_its_shards_or_with_the_job() {
    let arrived = || Event::TaskArrived { job: JOB, task: task() };
    for order in [
        vec![announce(Some(task())), assign(0..1)],
        vec![announce(None), assign(0..1), arrived()],
        vec![announce(None), arrived(), assign(0..1)],
        vec![arrived(), announce(None), assign(0..1)],
    ] {
        let mut machine = working(1, 2);
        let effects: Vec<Effect> = order.into_iter().flat_map(|event| at(&mut machine, 0, event)).collect();
        assert_eq!((started(&effects), violation(&effects)), (vec![0], None));
    }
}

#[test]
fn shards_of_a_job_without_its_task_do_not_hold_up_another_job() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(None));
    at(&mut machine, 0, assign(0..2));
    let other = JobId([2; 16]);
    let kernel = "monte_carlo".to_string();
    at(&mut machine, 0, Event::JobAnnounced { job: other, kernel, task: Some(task()) });
    let items = vec![Assignment { index: 9, epoch: 1, first: 0, count: 1 }];
    assert_eq!(started(&at(&mut machine, 0, Event::ShardsAssigned { job: other, items })), [9]);
}

#[test]
fn what_cannot_be_computed_is_answered_with_the_reason() {
    let failures = |effects: Vec<Effect>| -> Vec<(u64, ShardFailure)> {
        let failed = |effect| match effect {
            Effect::SendWork(AgentWork::Failed { index, failure, .. }) => Some((index, failure)),
            _ => None,
        };
        effects.into_iter().filter_map(failed).collect()
    };
    let mut machine = working(1, 4);
    at(&mut machine, 0, Event::JobAnnounced { job: JOB, kernel: "oracle".to_string(), task: Some(task()) });
    let unknown = failures(at(&mut machine, 0, assign(0..2)));
    assert_eq!(unknown, [(0, ShardFailure::KernelUnknown), (1, ShardFailure::KernelUnknown)]);

    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(None));
    at(&mut machine, 0, assign(0..1));
    let invalid = failures(at(&mut machine, 0, Event::TaskArrived { job: JOB, task: vec![1, 2, 3] }));
    assert_eq!(invalid, [(0, ShardFailure::TaskInvalid)]);

    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..1));
    let outcome = Outcome::Failed(ShardFailure::KernelFailed);
    let failed = failures(at(&mut machine, 0, Event::ShardEnded { slot: SlotIndex(0), outcome }));
    assert_eq!(failed, [(0, ShardFailure::KernelFailed)]);
}

#[test]
fn a_forgotten_job_stops_at_once_and_is_never_heard_of_again() {
    let mut machine = working(2, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..4));
    at(&mut machine, 0, done(0, 100));
    let effects = at(&mut machine, 0, Event::JobForgotten { job: JOB });
    let cancel = |slot| Effect::CancelShard { slot: SlotIndex(slot) };
    assert_eq!(effects, [cancel(0), cancel(1), Effect::DropJob { job: JOB }]);
    assert_eq!(at(&mut machine, 1, done(0, 100)), [], "it ended before it heard");
    let outcome = Outcome::Stopped;
    assert_eq!(at(&mut machine, 1, Event::ShardEnded { slot: SlotIndex(1), outcome }), []);
    assert_eq!(violation(&at(&mut machine, 2, assign(0..1))), Some(Violation::JobUnknown { job: JOB }));
}

#[test]
fn a_task_of_a_job_forgotten_meanwhile_is_dropped_and_the_job_may_come_again() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(None));
    at(&mut machine, 0, Event::JobForgotten { job: JOB });
    at(&mut machine, 0, announce(None));
    let arrived = || Event::TaskArrived { job: JOB, task: task() };
    assert_eq!(violation(&at(&mut machine, 0, arrived())), None);
    assert_eq!(violation(&at(&mut machine, 0, arrived())), None);
    assert_eq!(started(&at(&mut machine, 0, assign(0..1))), [0]);
    assert_eq!(violation(&at(&mut machine, 0, arrived())), Some(Violation::TaskTwice { job: JOB }));
}

#[test]
fn every_breach_of_the_protocol_ends_the_session_and_names_itself() {
    let attempt = Attempt { job: JOB, index: ShardIndex(0), epoch: Epoch(1) };
    let range = |first, count| {
        let items = vec![Assignment { index: 0, epoch: 1, first, count }];
        Event::ShardsAssigned { job: JOB, items }
    };
    let cases = [
        (assign(0..5), Violation::CreditExceeded { credit: 4 }),
        (announce(Some(task())), Violation::JobTwice { job: JOB }),
        (Event::TaskArrived { job: JOB, task: task() }, Violation::TaskTwice { job: JOB }),
        (range(0, 0), Violation::RangeInvalid { attempt }),
        (range(u64::MAX, 1), Violation::RangeInvalid { attempt }),
        (range(0, limits::SHARD_PATHS_MAX + 1), Violation::RangeInvalid { attempt }),
        (welcome(4), Violation::OutOfTurn),
        (Event::ProtocolBroken(Violation::Stream), Violation::Stream),
    ];
    for (event, expected) in cases {
        let mut machine = working(2, 4);
        at(&mut machine, 0, announce(Some(task())));
        let effects = at(&mut machine, 0, event);
        assert_eq!(violation(&effects), Some(expected));
        assert!(!expected.to_string().is_empty());
        assert_eq!(at(&mut machine, 0, assign(0..1)), [], "nothing of a closed session counts");
    }
    let mut machine = working(2, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..1));
    assert_eq!(violation(&at(&mut machine, 0, assign(0..1))), Some(Violation::AttemptTwice { attempt }));
}

#[test]
fn nothing_is_trusted_before_the_welcome() {
    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    at(&mut machine, 0, Event::HubReached);
    assert_eq!(violation(&at(&mut machine, 0, announce(Some(task())))), Some(Violation::OutOfTurn));

    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    at(&mut machine, 0, Event::HubReached);
    let other = Welcome { agent: [8; 16], heartbeat_ms: 1, credit: 1, lane: 0 };
    let named = AgentId([8; 16]);
    let effects = at(&mut machine, 0, Event::Welcomed(other));
    assert_eq!(violation(&effects), Some(Violation::WelcomeOfAnother { named }));
}

#[test]
fn a_hub_that_says_nothing_is_left_and_tried_again() {
    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    at(&mut machine, 0, Event::HubReached);
    let until = machine.next_timer().expect("a limit to waiting");
    let effects = at(&mut machine, until.0, Event::TimePassed);
    assert_eq!(effects, [Effect::CloseSession { reason: Closing::NoWelcome }]);
    let effects = at(&mut machine, until.0, Event::SessionLost { random: Random(u64::MAX) });
    assert_eq!(effects, [Effect::AnnounceRetry { delay_ms: 250 }]);
    assert_eq!(machine.next_timer(), Some(until.after_ms(250)));
    assert_eq!(at(&mut machine, until.0 + 250, Event::TimePassed), [connect()]);
}

#[test]
fn heartbeats_name_what_runs_waits_and_is_not_yet_sent() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..3));
    let heartbeat = |holding: &[u64]| {
        let holding = holding.iter().map(|index| Held { job: JOB.0, index: *index, epoch: 1 }).collect();
        Effect::SendControl(AgentControl::Heartbeat { holding })
    };
    let Some(Tick(beat @ 8_000..=12_000)) = machine.next_timer() else { panic!("a beat every ten seconds") };
    let effects = at(&mut machine, beat, done(0, 10));
    assert_eq!((started(&effects), effects.last()), (vec![1], Some(&heartbeat(&[0, 1, 2]))));
    at(&mut machine, beat + 1, Event::TimePassed);
    let Some(Tick(beat)) = machine.next_timer() else { panic!("and again") };
    assert_eq!(at(&mut machine, beat, Event::TimePassed), [heartbeat(&[1, 2])]);
}

#[test]
fn refusals_that_pass_are_waited_out_and_others_end_the_program() {
    for refusal in [Refusal::TokenMissing, Refusal::TokenUnknown, Refusal::TokenSpent, Refusal::HelloInvalid]
    {
        let mut machine = agent(1);
        at(&mut machine, 0, Event::Started);
        at(&mut machine, 0, Event::HubReached);
        let effects = at(&mut machine, 0, Event::Refused(refusal));
        assert_eq!(effects.last(), Some(&Effect::Exit { reason: Exit::Refused(refusal) }));
        assert_eq!(machine.next_timer(), None);
    }
    for refusal in [Refusal::AlreadyConnected, Refusal::StoreUnavailable, Refusal::Draining] {
        let mut machine = agent(1);
        at(&mut machine, 0, Event::Started);
        at(&mut machine, 0, Event::HubReached);
        let effects = at(&mut machine, 0, Event::Refused(refusal));
        assert_eq!(effects, [Effect::CloseSession { reason: Closing::Refused(refusal) }]);
        let effects = at(&mut machine, 0, Event::SessionLost { random: Random(0) });
        assert_eq!(effects, [Effect::AnnounceRetry { delay_ms: 0 }, connect()]);
    }
}

#[test]
fn an_agent_that_leaves_finishes_what_it_holds() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..2));
    let effects = at(&mut machine, 10, Event::StopRequested);
    assert_eq!(effects, [Effect::SendControl(AgentControl::Leaving)]);
    assert_eq!(started(&at(&mut machine, 20, done(0, 10))), [1]);
    at(&mut machine, 21, Event::TimePassed);
    assert_eq!(results(&at(&mut machine, 30, done(0, 10))), [vec![1]]);
    let until = machine.next_timer().expect("a moment for the last frames");
    assert_eq!(until, Tick(30 + LINGER_MS));
    let effects = at(&mut machine, until.0, Event::TimePassed);
    let close = Effect::CloseSession { reason: Closing::Left };
    assert_eq!(effects, [Effect::DropJob { job: JOB }, close, Effect::Exit { reason: Exit::Stopped }]);
}

#[test]
fn an_agent_that_leaves_waits_ten_seconds_and_no_longer() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..2));
    at(&mut machine, 5, Event::StopRequested);
    at(&mut machine, 10_004, Event::TimePassed);
    let effects = at(&mut machine, 10_005, Event::TimePassed);
    assert_eq!(effects.first(), Some(&Effect::CancelShard { slot: SlotIndex(0) }));
    assert_eq!(effects.last(), Some(&Effect::Exit { reason: Exit::Stopped }));
}

#[test]
fn an_agent_that_waits_for_its_hub_stops_at_once() {
    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    at(&mut machine, 0, Event::ConnectFailed { random: Random(u64::MAX) });
    assert_eq!(at(&mut machine, 1, Event::StopRequested), [Effect::Exit { reason: Exit::Stopped }]);
    assert_eq!(at(&mut machine, 900, Event::TimePassed), []);
}

#[test]
fn when_the_hub_stops_the_agent_finishes_leaves_and_comes_back() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..1));
    at(&mut machine, 1, Event::HubDrained);
    at(&mut machine, 2, done(0, 10));
    let effects = at(&mut machine, 2 + LINGER_MS, Event::TimePassed);
    let close = Effect::CloseSession { reason: Closing::Drained };
    assert_eq!(effects, [Effect::DropJob { job: JOB }, close]);
    let effects = at(&mut machine, 400, Event::SessionLost { random: Random(1 << 63) });
    assert_eq!(effects, [Effect::AnnounceRetry { delay_ms: 125 }]);
}

#[test]
fn a_lost_session_frees_its_slots_for_the_next_one() {
    let mut machine = working(1, 4);
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..2));
    let effects = at(&mut machine, 1, Event::SessionLost { random: Random(0) });
    assert_eq!(effects[0], Effect::CancelShard { slot: SlotIndex(0) });
    at(&mut machine, 1, Event::HubReached);
    at(&mut machine, 1, welcome(4));
    at(&mut machine, 1, announce(Some(task())));
    assert_eq!(started(&at(&mut machine, 1, assign(5..6))), [0; 0], "the slot has not stopped yet");
    let stopped = Event::ShardEnded { slot: SlotIndex(0), outcome: Outcome::Stopped };
    assert_eq!(started(&at(&mut machine, 2, stopped)), [5]);
}

#[test]
fn when_its_hub_is_gone_an_agent_goes_to_one_that_it_was_told_of_and_backs_off_when_all_are() {
    let mut machine = working(1, 4);
    let addresses = vec!["hub:1".to_string(), "hub:2".to_string(), "no address".to_string()];
    let effects = at(&mut machine, 1, Event::HubsTold { addresses: addresses.clone() });
    assert_eq!(effects, [Effect::RememberHubs { hubs: vec![hub(1), hub(2)] }]);
    assert_eq!(at(&mut machine, 2, Event::HubsTold { addresses }), []);
    let jitter = Random(u64::MAX);
    let lost = at(&mut machine, 3, Event::SessionLost { random: jitter });
    assert_eq!(lost, [Effect::AnnounceRetry { delay_ms: 250 }]);
    assert_eq!(at(&mut machine, 253, Event::TimePassed), [Effect::Connect { hub: hub(2) }]);
    let all_gone = at(&mut machine, 254, Event::ConnectFailed { random: Random(u64::MAX << 32) });
    assert_eq!(all_gone, [Effect::AnnounceRetry { delay_ms: 250 }], "the first round of failures");
    assert_eq!(at(&mut machine, 600, Event::TimePassed), [connect()]);
    at(&mut machine, 601, Event::ConnectFailed { random: jitter });
    assert_eq!(at(&mut machine, 900, Event::TimePassed), [Effect::Connect { hub: hub(2) }]);
    let again = at(&mut machine, 901, Event::ConnectFailed { random: jitter });
    assert_eq!(again, [Effect::AnnounceRetry { delay_ms: 500 }], "the second");
}

#[test]
fn a_stranger_at_the_address_of_a_hub_ends_the_program_only_where_no_other_hub_is_left() {
    let (found, random) = ([3; 32], Random(0));
    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    let effects = at(&mut machine, 1, Event::HubKeyDiffered { found, random });
    assert_eq!(effects, [Effect::Exit { reason: Exit::HubKeyDiffered { found } }]);

    let mut machine = working(1, 4);
    at(&mut machine, 1, Event::HubsTold { addresses: vec!["hub:2".to_string()] });
    at(&mut machine, 2, Event::HubDrained);
    let until = machine.next_timer().expect("a moment for the last frames");
    at(&mut machine, until.0, Event::TimePassed);
    let effects = at(&mut machine, until.0, Event::SessionLost { random });
    assert_eq!(effects.last(), Some(&Effect::Connect { hub: hub(2) }));
    let effects = at(&mut machine, until.0 + 1, Event::HubKeyDiffered { found, random });
    assert_eq!(effects.last(), Some(&connect()));
}

#[test]
fn a_list_of_hubs_is_not_taken_from_one_that_has_not_welcomed_the_agent() {
    let mut machine = agent(1);
    at(&mut machine, 0, Event::Started);
    at(&mut machine, 0, Event::HubReached);
    let effects = at(&mut machine, 0, Event::HubsTold { addresses: vec!["elsewhere:1".to_string()] });
    assert_eq!(violation(&effects), Some(Violation::OutOfTurn));
}

#[test]
fn an_agent_that_is_sent_to_another_hub_finishes_what_it_holds_takes_nothing_more_and_goes_there() {
    let mut machine = working(1, 4);
    let addresses = vec!["hub:1".to_string(), "hub:2".to_string(), "hub:3".to_string()];
    at(&mut machine, 0, Event::HubsTold { addresses });
    at(&mut machine, 0, announce(Some(task())));
    at(&mut machine, 0, assign(0..1));
    let effects = at(&mut machine, 1, Event::HubMoved { to: "hub:3".to_string() });
    assert_eq!(effects, [Effect::SendControl(AgentControl::Leaving)]);
    assert_eq!(results(&at(&mut machine, 2, done(0, 10))), [vec![0]]);
    let until = machine.next_timer().expect("a moment for the last frames");
    let effects = at(&mut machine, until.0, Event::TimePassed);
    assert!(effects.contains(&Effect::CloseSession { reason: Closing::Moved }), "{effects:?}");
    let effects = at(&mut machine, until.0, Event::SessionLost { random: Random(0) });
    assert_eq!(effects.last(), Some(&Effect::Connect { hub: hub(3) }));
}
