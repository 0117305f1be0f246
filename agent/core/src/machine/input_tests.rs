//! What a provider or a hub would notice of jobs that read files.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::matrix::{self, Operand, Source};
use tessera_protocol::wire::Assignment;

use super::tests::{at, results, started, violation, with_memory};
use super::*;
use crate::effect::FetchSerial;
use crate::inputs::PIECE_MS_MAX;
use crate::task::{InputFile, Unusable};

const A: [u8; 32] = [0xa; 32];
const B: [u8; 32] = [0xb; 32];
/// Of a file: two pieces. *Units*: bytes.
const BYTES: u64 = 5 << 20;

fn job(number: u8) -> JobId {
    JobId([number; 16])
}

fn file(blake3: [u8; 32]) -> InputFile {
    InputFile { blake3: Digest(blake3), bytes: BYTES + 128 }
}

/// A product of two files of five MiB each.
fn announce(number: u8, a: [u8; 32], b: [u8; 32]) -> Event {
    let operand = |blake3, rows, cols| {
        let source = Source::Input { blake3, bytes: BYTES + 128 };
        Operand { source, rows, cols, transposed: false }
    };
    let task = matrix::Task {
        key: [0; 2],
        double: true,
        alpha: 1.0,
        beta: 0.0,
        a: operand(a, 1280, 512),
        b: operand(b, 512, 1280),
        c: None,
        half: None,
        tile: [512, 512],
        k_panel: 512,
    };
    assert_eq!(task.check(), Ok(()));
    Event::JobAnnounced { job: job(number), kernel: "gemm".to_string(), task: Some(task.encode()) }
}

fn assign(number: u8, index: u64) -> Event {
    let items = vec![Assignment { index, epoch: 1, first: index, count: 1 }];
    Event::ShardsAssigned { job: job(number), items }
}

fn piece(number: u8, input: u32, offset: u64) -> Event {
    let piece = vec![0; INPUT_PIECE_BYTES.min(BYTES + 128 - offset) as usize];
    Event::PieceArrived { job: job(number), input, offset, piece }
}

fn fetch(number: u8, input: u32, offset: u64) -> Effect {
    Effect::SendWork(AgentWork::Fetch { job: job(number).0, input, offset })
}

fn stored(serial: u64) -> Event {
    Event::PieceStored { fetch: FetchSerial(serial) }
}

/// Sends both pieces of a file; what the second one led to.
fn send(machine: &mut Machine, number: u8, input: u32, serial: u64) -> Vec<Effect> {
    at(machine, 0, piece(number, input, 0));
    assert_eq!(at(machine, 0, stored(serial)), [fetch(number, input, INPUT_PIECE_BYTES)]);
    at(machine, 0, piece(number, input, INPUT_PIECE_BYTES));
    at(machine, 0, stored(serial))
}

/// Which shards a step answered with a failure.
fn unusable(effects: &[Effect]) -> Vec<u64> {
    let failed = |effect: &Effect| match effect {
        Effect::SendWork(AgentWork::Failed { index, failure: ShardFailure::InputUnusable, .. }) => {
            Some(*index)
        }
        _ => None,
    };
    effects.iter().filter_map(failed).collect()
}

#[test]
fn a_job_starts_when_every_piece_of_every_input_has_come_one_after_another() {
    let mut machine = with_memory(2, 8, 64 << 20);
    assert_eq!(at(&mut machine, 0, announce(1, A, B)), [], "nothing is fetched for a job without shards");
    assert_eq!(at(&mut machine, 0, assign(1, 0)), [fetch(1, 0, 0)]);
    assert_eq!(at(&mut machine, 0, assign(1, 1)), []);
    let effects = at(&mut machine, 0, piece(1, 0, 0));
    let [Effect::StorePiece { fetch: FetchSerial(1), input, offset: 0, piece }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((*input, piece.len() as u64), (file(A), INPUT_PIECE_BYTES));
    assert_eq!(at(&mut machine, 0, stored(1)), [fetch(1, 0, INPUT_PIECE_BYTES)]);
    at(&mut machine, 0, super::input_tests::piece(1, 0, INPUT_PIECE_BYTES));
    assert_eq!(at(&mut machine, 0, stored(1)), [fetch(1, 1, 0)]);
    assert_eq!(started(&send(&mut machine, 1, 1, 2)), [0, 1]);
    assert_eq!(started(&at(&mut machine, 0, assign(1, 2))), [0; 0], "both slots are busy");
    // Another job that reads the same files starts at once.
    at(&mut machine, 0, announce(2, B, A));
    assert_eq!(at(&mut machine, 0, assign(2, 7)), []);
    let ended =
        Event::ShardEnded { slot: SlotIndex(0), outcome: Outcome::Failed(ShardFailure::KernelFailed) };
    assert_eq!(started(&at(&mut machine, 1, ended.clone())), [2]);
    assert_eq!(started(&at(&mut machine, 1, ended)), [7]);
}

#[test]
fn a_fetch_whose_job_is_forgotten_goes_on_for_another_or_ends_and_strays_are_no_breach() {
    let mut machine = with_memory(1, 8, 64 << 20);
    at(&mut machine, 0, announce(1, A, A));
    at(&mut machine, 0, announce(2, B, A));
    at(&mut machine, 0, assign(1, 0));
    at(&mut machine, 0, assign(2, 5));
    at(&mut machine, 0, piece(1, 0, 0));
    at(&mut machine, 0, stored(1));
    let effects = at(&mut machine, 0, Event::JobForgotten { job: job(1) });
    assert_eq!(effects, [fetch(2, 1, INPUT_PIECE_BYTES)], "what came is not asked for again");
    assert_eq!(at(&mut machine, 0, piece(1, 0, INPUT_PIECE_BYTES)), []);
    at(&mut machine, 0, piece(2, 1, INPUT_PIECE_BYTES));
    assert_eq!(at(&mut machine, 0, stored(1)), [fetch(2, 0, 0)]);
    let effects = at(&mut machine, 0, Event::JobForgotten { job: job(2) });
    assert_eq!(effects, [Effect::DropInput { input: file(B) }]);
    assert_eq!(at(&mut machine, 0, piece(2, 0, 0)), []);
    assert_eq!(at(&mut machine, 0, stored(2)), [], "nobody waits for it any more");
    let again = at(&mut machine, 0, piece(2, 0, 0));
    let unasked = Violation::PieceUnasked { job: job(2), input: 0, offset: 0 };
    assert_eq!(violation(&again), Some(unasked));
}

#[test]
fn a_job_that_finds_no_room_waits_for_idle_ones_and_one_that_never_could_is_refused() {
    // Room for one job's files.
    let mut machine = with_memory(1, 8, 24 << 20);
    at(&mut machine, 0, announce(1, A, A));
    at(&mut machine, 0, assign(1, 0));
    assert_eq!(started(&send(&mut machine, 1, 0, 1)), [0]);
    at(&mut machine, 0, announce(2, B, [0xc; 32]));
    assert_eq!(at(&mut machine, 0, assign(2, 5)), [], "the other one computes");
    let outcome = Outcome::Done { partial: vec![1], digest: Digest([0; 32]), kernel_us: 1 };
    let effects = at(&mut machine, 1, Event::ShardEnded { slot: SlotIndex(0), outcome });
    assert_eq!(results(&effects), [vec![0]]);
    let after = [Effect::DropJob { job: job(1) }, Effect::DropInput { input: file(A) }, fetch(2, 0, 0)];
    assert!(after.iter().all(|effect| effects.contains(effect)), "{effects:?}");

    let mut machine = with_memory(1, 8, 16 << 20);
    at(&mut machine, 0, announce(1, A, B));
    let effects = at(&mut machine, 0, assign(1, 0));
    let reason = Unusable::CacheTooSmall { bytes: 2 * (BYTES + 128), bytes_max: 8 << 20 };
    assert_eq!(effects[0], Effect::AnnounceUnusable { job: job(1), reason });
    assert_eq!(unusable(&effects), [0]);
    assert_eq!(unusable(&at(&mut machine, 0, assign(1, 1))), [1]);

    // A block of it takes eight MiB, however large the matrices are.
    let mut machine = with_memory(1, 8, (16 << 20) - 2);
    at(&mut machine, 0, announce(1, A, A));
    let effects = at(&mut machine, 0, assign(1, 0));
    let reason = Unusable::TooLarge { bytes: 8 << 20, bytes_max: (8 << 20) - 1 };
    assert_eq!(effects[0], Effect::AnnounceUnusable { job: job(1), reason });
}

#[test]
fn an_input_that_is_refused_late_or_no_matrix_fails_the_shards_that_need_it() {
    let begin = || {
        let mut machine = with_memory(1, 8, 64 << 20);
        for event in [announce(1, A, A), announce(2, B, A), assign(1, 0), assign(2, 5)] {
            at(&mut machine, 0, event);
        }
        machine
    };
    let mut machine = begin();
    let effects = at(&mut machine, 0, Event::InputUnavailable { job: job(1), input: 0 });
    assert_eq!(unusable(&effects), [0]);
    assert_eq!(effects.last(), Some(&fetch(2, 1, 0)), "another job may be luckier");
    let unasked = at(&mut machine, 0, Event::InputUnavailable { job: job(1), input: 0 });
    assert_eq!(violation(&unasked), Some(Violation::InputUnasked { job: job(1), input: 0 }));

    let mut machine = begin();
    at(&mut machine, 0, piece(1, 0, 0));
    let effects = at(&mut machine, 0, Event::InputRejected { fetch: FetchSerial(1) });
    assert_eq!(unusable(&effects), [0, 5]);
    assert!(effects.contains(&Effect::DropInput { input: file(A) }));

    let mut machine = begin();
    assert!(machine.next_timer().is_some_and(|beat| (8_000..=12_000).contains(&beat.0)));
    (1..=6).for_each(|beat| drop(at(&mut machine, beat * 10_000 - 1, Event::TimePassed)));
    let effects = at(&mut machine, PIECE_MS_MAX, Event::TimePassed);
    assert_eq!(unusable(&effects), [0]);
}

#[test]
fn pieces_of_another_length_are_a_breach_and_a_lost_session_keeps_whole_files_only() {
    let mut machine = with_memory(1, 8, 64 << 20);
    at(&mut machine, 0, announce(1, A, B));
    at(&mut machine, 0, assign(1, 0));
    for bytes in [0, INPUT_PIECE_BYTES - 1, INPUT_PIECE_BYTES + 1] {
        let mut machine = with_memory(1, 8, 64 << 20);
        at(&mut machine, 0, announce(1, A, B));
        at(&mut machine, 0, assign(1, 0));
        let event = Event::PieceArrived { job: job(1), input: 0, offset: 0, piece: vec![0; bytes as usize] };
        let expected = INPUT_PIECE_BYTES;
        let size = Violation::PieceSize { job: job(1), input: 0, bytes, expected };
        assert_eq!(violation(&at(&mut machine, 0, event)), Some(size));
    }
    assert_eq!(send(&mut machine, 1, 0, 1), [fetch(1, 1, 0)]);
    let effects = at(&mut machine, 1, Event::SessionLost { random: Random(0) });
    assert_eq!(effects[0], Effect::DropInput { input: file(B) });
    at(&mut machine, 1, Event::HubReached);
    at(&mut machine, 1, super::tests::welcome(8));
    at(&mut machine, 1, announce(1, A, B));
    assert_eq!(at(&mut machine, 1, assign(1, 0)), [fetch(1, 1, 0)], "the first input is still there");
}

#[test]
fn shards_carry_the_pass_that_was_set_before_they_were_assigned() {
    let mut machine = with_memory(2, 8, 0);
    let task = super::tests::task();
    let kernel = "monte_carlo".to_string();
    at(&mut machine, 0, Event::JobAnnounced { job: job(1), kernel, task: Some(task) });
    let passes = |effects: &[Effect]| -> Vec<Vec<u8>> {
        let pass = |effect: &Effect| match effect {
            Effect::StartShard { work, .. } => Some(work.pass.to_vec()),
            _ => None,
        };
        effects.iter().filter_map(pass).collect()
    };
    assert_eq!(passes(&at(&mut machine, 0, assign(1, 0))), [Vec::<u8>::new()]);
    at(&mut machine, 0, Event::PassSet { job: job(1), pass: vec![4, 2] });
    assert_eq!(passes(&at(&mut machine, 0, assign(1, 1))), [vec![4, 2]]);
    let unknown = at(&mut machine, 0, Event::PassSet { job: job(9), pass: vec![1] });
    assert_eq!(violation(&unknown), Some(Violation::JobUnknown { job: job(9) }));
}
