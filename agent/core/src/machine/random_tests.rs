//! Any sequence of events, checked against what the hub may rely on.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::matrix::{self, Operand, Source};
use tessera_protocol::monte_carlo::{Model, Task};
use tessera_protocol::unit::{Epoch, ShardIndex};
use tessera_protocol::wire::{Assignment, ShardFailure};

use super::*;
use crate::attempt::Attempt;
use crate::effect::FetchSerial;

const SLOTS: u16 = 3;
const CREDIT: u32 = 7;
const ME: [u8; 16] = [7; 16];
/// Of which the machine gives half to matrices.
const MEMORY: u64 = 24 << 20;

/// What happens next. Jobs and slots are taken modulo what exists, so that most of it is legal.
#[derive(Clone, Debug)]
enum Move {
    Announce { job: u8, kernel_known: bool, matrix: bool, inline: bool, task_valid: bool },
    Task { job: u8, valid: bool },
    Assign { job: u8, count: u8 },
    AssignWrong { job: u8, count: u8 },
    Forget { job: u8 },
    Pass { job: u8 },
    Piece { which: u8 },
    Unavailable { which: u8 },
    Store { taken: bool },
    End { slot: u8, bytes: u16, fails: bool },
    Lose,
    Drain,
    Stop,
    Wait { ms: u16 },
}

fn moves() -> impl Strategy<Value = Move> {
    let job = 0u8..4;
    prop_oneof![
        4 => (job.clone(), prop::bool::weighted(0.9), any::<bool>(), any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(job, kernel_known, matrix, inline, task_valid)| Move::Announce { job, kernel_known, matrix, inline, task_valid }),
        3 => (job.clone(), prop::bool::weighted(0.9)).prop_map(|(job, valid)| Move::Task { job, valid }),
        8 => (job.clone(), 1u8..6).prop_map(|(job, count)| Move::Assign { job, count }),
        1 => (job.clone(), 1u8..12).prop_map(|(job, count)| Move::AssignWrong { job, count }),
        1 => job.clone().prop_map(|job| Move::Pass { job }),
        6 => any::<u8>().prop_map(|which| Move::Piece { which }),
        1 => prop::bool::weighted(0.3).prop_map(|some| if some { Move::Unavailable { which: 0 } } else { Move::Store { taken: true } }),
        6 => prop::bool::weighted(0.9).prop_map(|taken| Move::Store { taken }),
        2 => job.prop_map(|job| Move::Forget { job }),
        12 => (any::<u8>(), 0u16..20_000, prop::bool::weighted(0.1))
            .prop_map(|(slot, bytes, fails)| Move::End { slot, bytes, fails }),
        1 => Just(Move::Lose),
        1 => prop::bool::weighted(0.2).prop_map(|drain| if drain { Move::Drain } else { Move::Wait { ms: 0 } }),
        1 => prop::bool::weighted(0.05).prop_map(|stop| if stop { Move::Stop } else { Move::Wait { ms: 1 } }),
        4 => (0u16..3_000).prop_map(|ms| Move::Wait { ms }),
    ]
}

/// A hub and a shell that keep their own books.
struct Witness {
    machine: Machine,
    now: u64,
    next_index: u64,
    /// Jobs the hub has announced and not forgotten, in this session, and whether they are of matrices.
    announced: BTreeMap<JobId, bool>,
    /// Pieces asked for in this session and neither sent nor refused, and how long they are.
    asked: Vec<(JobId, u32, u64, u64)>,
    /// Pieces that the shell looks at.
    storing: Vec<FetchSerial>,
    /// Jobs for which the shell keeps something.
    kept: BTreeSet<JobId>,
    /// Assigned in this session and not answered.
    owed: BTreeSet<Attempt>,
    busy: BTreeMap<SlotIndex, Attempt>,
    in_session: bool,
    exited: bool,
}

fn job(number: u8) -> JobId {
    JobId([number + 1; 16])
}

/// The matrices of job `number`: a file of one piece; a file of two; that and another one; and tiles of which
/// one takes more memory than the machine has.
fn matrices(number: u8) -> matrix::Task {
    let file = |name: u8, rows: u64, cols: u64| {
        let source = Source::Input { blake3: [name; 32], bytes: rows * cols * 8 + 128 };
        Operand { source, rows, cols, transposed: false }
    };
    let random =
        |rows, cols| Operand { source: Source::Uniform { stream: 1 }, rows, cols, transposed: false };
    let (a, b) = match number {
        0 => (file(1, 8, 8), file(1, 8, 8)),
        1 => (file(2, 1024, 512), random(512, 8)),
        2 => (file(2, 1024, 512), file(3, 512, 1280)),
        _ => (file(3, 512, 1280), random(1280, 2048)),
    };
    let task = matrix::Task {
        key: [1, 2],
        double: true,
        alpha: 1.0,
        beta: 0.0,
        a,
        b,
        c: None,
        half: None,
        tile: [512, 512],
        k_panel: 1 << 20,
    };
    assert_eq!(task.check(), Ok(()));
    task
}

fn task(number: u8, matrix: bool, valid: bool) -> Vec<u8> {
    match (valid, matrix) {
        (false, _) => vec![1; 5],
        (true, false) => Task { key: [1, 2], model: Model::Pi }.encode(),
        (true, true) => matrices(number).encode(),
    }
}

impl Witness {
    fn new() -> Witness {
        let hello = Hello {
            token: None,
            name: "a".to_string(),
            version: "1".to_string(),
            slots: SLOTS,
            isa: "plain".to_string(),
            arch: "any".to_string(),
            memory_bytes: MEMORY,
            kernels: Vec::new(),
            region: alloc::string::String::new(),
        };
        let hub = "hub:1".parse().expect("an address");
        let hubs = Hubs::new(vec![hub], Vec::new()).expect("a hub");
        let mut witness = Witness {
            machine: Machine::new(
                Identity { agent: AgentId(ME), hello, gpus: Vec::new(), cache_bytes_max: MEMORY / 2, hubs },
                Vec::new(),
            ),
            now: 0,
            next_index: 0,
            announced: BTreeMap::new(),
            asked: Vec::new(),
            storing: Vec::new(),
            kept: BTreeSet::new(),
            owed: BTreeSet::new(),
            busy: BTreeMap::new(),
            in_session: false,
            exited: false,
        };
        witness.tell(Event::Started);
        witness
    }

    fn tell(&mut self, event: Event) {
        let effects: Vec<Effect> = self.machine.step(Tick(self.now), event).collect();
        self.machine.invariants();
        for effect in effects {
            self.carry_out(effect);
        }
        if let Some(timer) = self.machine.next_timer() {
            assert!(timer.0 > self.now, "a timer that is due was not served");
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        assert!(!self.exited, "{effect:?} after the exit");
        match effect {
            Effect::Connect { .. } => {
                self.tell(Event::HubReached);
                let welcome = Welcome { agent: ME, heartbeat_ms: 1_000, credit: CREDIT, lane: 0 };
                self.in_session = true;
                self.tell(Event::Welcomed(welcome));
            }
            Effect::SendWork(AgentWork::Results { job, items }) => {
                assert!(!items.is_empty());
                for item in items {
                    self.answered(JobId(job), item.index, item.epoch);
                }
            }
            Effect::SendWork(AgentWork::Failed { job, index, epoch, .. }) => {
                self.answered(JobId(job), index, epoch)
            }
            Effect::SendControl(AgentControl::Heartbeat { holding }) => {
                let held: BTreeSet<_> =
                    holding.into_iter().map(|held| (held.job, held.index, held.epoch)).collect();
                let owed = self.owed.iter().map(|owed| (owed.job.0, owed.index.0, owed.epoch.0)).collect();
                assert_eq!(held, owed, "a heartbeat names exactly what is owed");
            }
            Effect::StartShard { slot, work } => {
                assert!(self.owed.contains(&work.attempt), "only what is owed is computed");
                assert!(self.busy.insert(slot, work.attempt).is_none(), "one shard a slot");
                assert!(self.busy.len() <= usize::from(SLOTS));
                self.kept.insert(work.attempt.job);
            }
            Effect::CancelShard { slot } => assert!(self.busy.contains_key(&slot)),
            Effect::CloseSession { .. } => {
                self.in_session = false;
            }
            Effect::Exit { .. } => {
                self.exited = true;
            }
            Effect::SendWork(AgentWork::Fetch { job, input, offset }) => {
                assert!(self.announced.contains_key(&JobId(job)), "only a job that is known asks");
                let number = job[0] - 1;
                let (_, bytes) = matrices(number).inputs()[input as usize];
                self.asked.push((JobId(job), input, offset, bytes));
            }
            Effect::StorePiece { fetch, .. } => self.storing.push(fetch),
            Effect::DropJob { job } => assert!(self.kept.remove(&job), "nothing is kept for {job}"),
            Effect::DropInput { .. }
            | Effect::AnnounceUnusable { .. }
            | Effect::SendBulk { .. }
            | Effect::SendControl(_)
            | Effect::RememberHub
            | Effect::RememberHubs { .. }
            | Effect::AnnounceRetry { .. } => {}
        }
    }

    fn answered(&mut self, job: JobId, index: u64, epoch: u64) {
        assert!(self.announced.contains_key(&job), "nothing is said of a forgotten job");
        let attempt = Attempt { job, index: ShardIndex(index), epoch: Epoch(epoch) };
        assert!(self.owed.remove(&attempt), "{attempt:?} was answered twice or never asked for");
    }

    fn lose(&mut self) {
        self.in_session = false;
        self.announced.clear();
        self.asked.clear();
        self.owed.clear();
        self.tell(Event::SessionLost { random: Random(u64::MAX / 3) });
    }

    fn assign(&mut self, job: JobId, count: u8) {
        let items: Vec<Assignment> = (0..u64::from(count))
            .map(|item| Assignment { index: self.next_index + item, epoch: 1, first: 0, count: 1 })
            .collect();
        self.next_index += u64::from(count);
        let epoch = Epoch(1);
        self.owed.extend(items.iter().map(|item| Attempt { job, index: ShardIndex(item.index), epoch }));
        self.tell(Event::ShardsAssigned { job, items });
    }

    /// Lets everything that runs end.
    fn finish(&mut self) {
        for _ in 0..50 {
            if self.in_session && !self.exited {
                self.make(Move::Piece { which: 0 });
                self.make(Move::Store { taken: true });
                self.make(Move::End { slot: 0, bytes: 10, fails: false });
            }
            if self.in_session && !self.exited {
                self.make(Move::Wait { ms: 5 });
            }
        }
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Announce { .. } | Move::Assign { .. } | Move::AssignWrong { .. } if !self.in_session => {}
            Move::Announce { job: number, kernel_known, matrix, inline, task_valid }
                if !self.announced.contains_key(&job(number)) =>
            {
                self.announced.insert(job(number), matrix);
                let kernel = match (kernel_known, matrix) {
                    (false, _) => "oracle",
                    (true, false) => "monte_carlo",
                    (true, true) => "gemm",
                };
                let task = inline.then(|| task(number, matrix, task_valid));
                self.tell(Event::JobAnnounced { job: job(number), kernel: kernel.to_string(), task });
            }
            Move::Announce { .. } => {}
            Move::Task { job: number, valid } => {
                let matrix = self.announced.get(&job(number)).copied().unwrap_or(valid);
                self.tell(Event::TaskArrived { job: job(number), task: task(number, matrix, valid) })
            }
            Move::Assign { job: number, count } => {
                let room = CREDIT as usize - self.owed.len().min(CREDIT as usize);
                if self.announced.contains_key(&job(number)) && room > 0 {
                    self.assign(job(number), count.min(room as u8));
                }
            }
            Move::AssignWrong { job: number, count } => self.assign(job(number), count),
            Move::Forget { job: number } => {
                self.announced.remove(&job(number));
                self.owed.retain(|owed| owed.job != job(number));
                self.tell(Event::JobForgotten { job: job(number) });
            }
            Move::Pass { job: number } if self.announced.contains_key(&job(number)) => {
                self.tell(Event::PassSet { job: job(number), pass: vec![1; 9] });
            }
            Move::Piece { which } if !self.asked.is_empty() => {
                let (job, input, offset, bytes) = self.asked.remove(usize::from(which) % self.asked.len());
                let piece = vec![0; limits::INPUT_PIECE_BYTES.min(bytes - offset) as usize];
                self.tell(Event::PieceArrived { job, input, offset, piece });
                assert!(self.in_session || self.exited, "what was asked for is no breach");
            }
            Move::Unavailable { which } if !self.asked.is_empty() => {
                let (job, input, ..) = self.asked.remove(usize::from(which) % self.asked.len());
                self.tell(Event::InputUnavailable { job, input });
                assert!(self.in_session || self.exited, "what was asked for is no breach");
            }
            Move::Store { taken } if !self.storing.is_empty() => {
                let fetch = self.storing.remove(0);
                let event = if taken { Event::PieceStored { fetch } } else { Event::InputRejected { fetch } };
                self.tell(event);
            }
            Move::Pass { .. } | Move::Piece { .. } | Move::Unavailable { .. } | Move::Store { .. } => {}
            Move::End { slot, bytes, fails } => {
                let Some(slot) = self.busy.keys().nth(usize::from(slot) % self.busy.len().max(1)).copied()
                else {
                    return;
                };
                self.busy.remove(&slot);
                let outcome = if fails {
                    Outcome::Failed(ShardFailure::KernelFailed)
                } else {
                    Outcome::Done {
                        partial: vec![1; usize::from(bytes)],
                        digest: Digest([0; 32]),
                        kernel_us: 1,
                    }
                };
                self.tell(Event::ShardEnded { slot, outcome });
            }
            Move::Lose => self.lose(),
            Move::Drain => self.tell(Event::HubDrained),
            Move::Stop => self.tell(Event::StopRequested),
            Move::Wait { ms } => {
                self.now += u64::from(ms);
                self.tell(Event::TimePassed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_shard_is_answered_once_unless_forgotten_or_lost(
        moves in prop::collection::vec(moves(), 1..120)
    ) {
        let mut witness = Witness::new();
        for next in moves {
            witness.make(next);
            if witness.exited {
                return Ok(());
            }
            if !witness.in_session && witness.machine.next_timer().is_none_or(|timer| timer.0 <= witness.now) {
                witness.lose();
            }
        }
        witness.finish();
        if witness.exited {
            prop_assert!(witness.kept.is_empty(), "{:?} are kept after the end", witness.kept);
        }
        if witness.in_session && !witness.exited {
            // What is still owed waits for a task that has not come: it comes now.
            let waiting: BTreeSet<JobId> = witness.owed.iter().map(|owed| owed.job).collect();
            for job in waiting {
                let number = job.0[0] - 1;
                let task = task(number, witness.announced[&job], true);
                witness.tell(Event::TaskArrived { job, task });
            }
            prop_assert!(witness.in_session);
            witness.finish();
            prop_assert!(witness.owed.is_empty(), "{:?} were never answered", witness.owed);
            prop_assert!(witness.busy.is_empty());
        }
    }
}
