//! Everything that reads bytes from outside, one function a reader: none may panic, and what is
//! accepted must survive being written and read again.
//!
//! With a nightly toolchain and `cargo install cargo-fuzz`:
//! `cargo +nightly fuzz run wire --features libfuzzer -- -max_total_time=60`
//! (likewise `spec`, `book_csv` and `npy`). Without, `tests/mutations.rs` mutates seeds for a while.

use tessera_client::book_csv as csv;
use tessera_kernels::matrix::npy::Reader;
use tessera_planners::{Plan, audit};
use tessera_protocol::monte_carlo::Task;
use tessera_protocol::spec::JobSpec;
use tessera_protocol::tally::Tally;
use tessera_protocol::wire::{self, AgentControl, AgentWork, BulkHeader, HubControl, HubWork, Message};

/// Frames, bulk payloads, tasks and tallies. The first byte chooses.
pub fn wire(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 8 {
        0 => again::<AgentControl>(bytes),
        1 => again::<HubControl>(bytes),
        2 => {
            again::<AgentWork>(bytes);
            let in_place = AgentWork::read_in_place(bytes).map(|_| ());
            assert_eq!(
                in_place,
                AgentWork::read(bytes).map(|_| ()),
                "one reader takes what the other refuses"
            );
        }
        3 => again::<HubWork>(bytes),
        4 => again::<BulkHeader>(bytes),
        5 => drop(wire::read_bulk(bytes)),
        6 => {
            if let Ok(task) = Task::decode(bytes) {
                assert_eq!(Task::decode(&task.encode()), Ok(task));
            }
        }
        _ => {
            if let Ok(mut tally) = Tally::decode(bytes) {
                assert_eq!(tally.encode(), bytes, "one tally has one encoding");
                let other = tally.clone();
                let _ = tally.merge(&other);
            }
        }
    }
}

fn again<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::read(bytes) {
        let mut frame = Vec::new();
        message.frame(&mut frame);
        assert_eq!(M::read(&frame[4..]), Ok(message));
    }
}

/// Job specifications as JSON; what passes the checks must be plannable, and its plan honest.
pub fn spec(data: &[u8]) {
    let Ok(manifest) = JobSpec::from_json(data).and_then(JobSpec::check) else { return };
    let reread = JobSpec::from_json(&manifest.bytes()).and_then(JobSpec::check);
    assert_eq!(reread.map(|again| again.digest()), Ok(manifest.digest()), "a manifest names itself");
    if let Ok(plan) = Plan::new(&manifest, 0)
        && plan.shards() < 1 << 12
    {
        assert_eq!(audit::audit(&manifest, 0, &plan), Ok(()));
    }
}

/// Books as CSV.
pub fn book_csv(data: &[u8]) {
    let _ = csv::parse(data);
}

/// Matrices as `.npy` files. The first byte is the length of a piece. What a client takes after looking
/// through it is what an agent keeps of it, whatever the pieces.
pub fn npy(data: &[u8]) {
    let Some((piece, file)) = data.split_first() else { return };
    let mut agent = Reader::keeping(file.len() as u64);
    let pushed = file.chunks(usize::from(*piece).max(1)).try_for_each(|piece| agent.push(piece));
    let kept = pushed.and_then(|()| agent.matrix());
    let mut client = Reader::surveying(file.len() as u64);
    let found = client.push(file).and_then(|()| client.survey());
    match (kept, found) {
        (Ok(matrix), Ok(header)) => {
            assert_eq!((matrix.dtype(), matrix.shape()), (header.dtype, [header.rows, header.cols]));
        }
        (Err(of_agent), Err(of_client)) => assert_eq!(of_agent.to_string(), of_client.to_string()),
        (kept, found) => panic!("an agent says {kept:?}, a client {found:?}"),
    }
}
