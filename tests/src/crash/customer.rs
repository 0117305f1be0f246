//! One who submits small jobs without end, and looks after them, whatever becomes of the hub.
//!
//! Owns the list of what was promised: a job is on it once the hub has answered with its id.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tessera_client::api::{Hub, IdempotencyKey};
use tessera_protocol::id::JobId;

use super::Failure;
use super::jobs::Known;
use crate::sim::Random;

/// Jobs that may be open at a time.
const OPEN_MAX: usize = 24;
/// How long one who was not answered waits before he asks again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a hub that is no longer killed may take no jobs.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// A job that the hub has acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promised {
    pub(crate) id: JobId,
    /// Which of the known jobs.
    pub(crate) known: usize,
    /// The number in its key.
    pub(crate) number: u64,
}

/// What is seen of a customer from outside.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) closed: AtomicBool,
    pub(crate) promised: AtomicU64,
    pub(crate) done: AtomicU64,
}

/// The key of a customer's job.
pub(crate) fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::chosen(&format!("job-{number}"))
}

/// Submits until the desk closes; answers what was promised. Who gets no answer repeats the same words
/// under the same key, as the API asks.
pub(crate) fn serve(
    hub: &Hub,
    known: &[Known],
    desk: &Desk,
    mut random: Random,
) -> Result<Vec<Promised>, Failure> {
    let mut promised = Vec::new();
    let mut open: VecDeque<Promised> = VecDeque::new();
    let mut number = 0;
    while !desk.closed.load(Ordering::Relaxed) {
        if open.len() < OPEN_MAX {
            // One in eight is a product.
            let which = match random.below(8) {
                0 => known.len() - 1 - random.below(2) as usize,
                _ => random.below(known.len() as u64 - 2) as usize,
            };
            let id = submitted(hub, &known[which], number, desk)?;
            let job = Promised { id, known: which, number };
            promised.push(job);
            open.push_back(job);
            desk.promised.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
        let Some(job) = open.pop_front() else { continue };
        match hub.job(job.id) {
            Ok(view) if view.state.is_open() => open.push_back(job),
            Ok(_) => drop(desk.done.fetch_add(1, Ordering::Relaxed)),
            Err(error) if error.is_passing() => {
                open.push_back(job);
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(Failure::Lost { job: job.id, said: error.to_string() }),
        }
    }
    Ok(promised)
}

/// Submits until there is an answer: once the desk is closed the hub lives, so there will be one.
fn submitted(hub: &Hub, known: &Known, number: u64, desk: &Desk) -> Result<JobId, Failure> {
    let mut refused: Option<Instant> = None;
    loop {
        let error = match hub.submit(&known.spec, &key(number)) {
            Ok(view) => return Ok(view.id),
            Err(error) => error,
        };
        if !error.is_passing() {
            return Err(Failure::Said(format!("a job was refused: {error}")));
        }
        if desk.closed.load(Ordering::Relaxed)
            && refused.get_or_insert_with(Instant::now).elapsed() > REFUSED_MAX
        {
            return Err(Failure::Refusing { said: error.to_string() });
        }
        std::thread::sleep(PAUSE);
    }
}
