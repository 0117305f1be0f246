//! Hubs on one store, in real time: they serve side by side, and one goes on with what another leaves.

use super::*;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::channel;
use tessera_storage::Memory;

/// Longer than any lease.
const PATIENCE: Duration = Duration::from_secs(60);
const JOB: JobId = JobId([7; 16]);

fn store() -> Arc<dyn Engine> {
    Arc::new(Memory::default())
}

fn at() -> HubAt {
    HubAt { http: "127.0.0.1:1".into(), quic: "127.0.0.1:2".into() }
}

fn word(text: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put("job/word", text);
    batch
}

fn owner(engine: &Arc<dyn Engine>, job: JobId) -> Option<HubId> {
    records::owner_of_job(&*engine.snapshot().unwrap(), job).unwrap()
}

/// A hub that takes part, and what it hears.
fn begin(engine: &Arc<dyn Engine>) -> (Arc<dyn Engine>, Seat, Receiver<Duty>) {
    let (duties, heard) = channel();
    let (store, seat) = join(engine.clone(), &at(), duties, || {}).unwrap();
    (store, seat, heard)
}

fn own(engine: &dyn Engine, job: JobId, hub: HubId) {
    let mut batch = Batch::new();
    batch.put(Key::Owner(job), hub.0);
    assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
}

#[test]
fn hubs_serve_side_by_side_and_another_goes_on_with_the_jobs_and_the_lead_of_one_that_leaves() {
    let engine = store();
    let (first, seat, heard) = begin(&engine);
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(Duty::Lead));
    assert_eq!(first.commit(word("first")).unwrap(), Commit::Done);
    own(&*first, JOB, seat.hub());
    let (second, other, heard) = begin(&engine);
    assert_eq!(second.commit(word("second")).unwrap(), Commit::Done, "it serves at once");
    assert!(heard.recv_timeout(Duration::from_millis(2_500)).is_err(), "nothing of the first's is its");
    assert_eq!(records::hubs(&*engine.snapshot().unwrap()).unwrap().len(), 2);
    seat.leave();
    assert!(matches!(first.commit(word("late")), Err(CommitError::Fenced)));
    let mut duties = [heard.recv_timeout(PATIENCE).unwrap(), heard.recv_timeout(PATIENCE).unwrap()];
    duties.sort_by_key(|duty| *duty == Duty::Lead);
    assert_eq!(duties, [Duty::Open(vec![JOB]), Duty::Lead]);
    assert_eq!(owner(&engine, JOB), Some(other.hub()));
    // The job ends.
    let mut end = Batch::new();
    end.delete(Key::Owner(JOB));
    assert_eq!(second.commit(end).unwrap(), Commit::Done);
    let entries = || engine.snapshot().unwrap().range(&Family::Entries.range(), 9).unwrap().len();
    let since = Instant::now();
    while entries() > 1 {
        assert!(since.elapsed() < PATIENCE, "nobody forgets the hub that left");
        std::thread::sleep(Duration::from_millis(50));
    }
    other.leave();
    let left = engine.snapshot().unwrap();
    for family in [Family::Entries, Family::Fences, Family::HubAts, Family::Owners] {
        assert_eq!(left.range(&family.range(), 9).unwrap(), Vec::new(), "{family:?}");
    }
    assert_eq!(left.get(&Key::HubActive.encode()).unwrap(), None);
}

#[test]
fn a_hub_that_falls_silent_loses_its_jobs_and_finds_itself_fenced_when_it_comes_back() {
    let engine = store();
    // It serves, and no thread renews its lease: as one that is stopped in the middle of everything.
    let me = HubId([1; 16]);
    let mut entry = Batch::new();
    entry.put(Key::Entry(me), 7_u64.to_be_bytes()).put(Key::Fence(me), []).put(Key::HubActive, me.0);
    assert_eq!(engine.commit(entry).unwrap(), Commit::Done);
    let heard = Arc::new(AtomicU32::new(0));
    let count = heard.clone();
    let silent = Fenced::new(engine.clone(), Key::Fence(me), move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(silent.commit(word("before")).unwrap(), Commit::Done);
    own(&silent, JOB, me);
    let since = Instant::now();
    let (second, seat, duties) = begin(&engine);
    assert_eq!(duties.recv_timeout(PATIENCE), Ok(Duty::Open(vec![JOB])));
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(duties.recv_timeout(PATIENCE), Ok(Duty::Lead));
    assert_eq!(owner(&engine, JOB), Some(seat.hub()));
    assert!(matches!(silent.commit(word("after")), Err(CommitError::Fenced)));
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    let found = second.snapshot().unwrap().get(b"job/word").unwrap();
    assert_eq!(
        found.as_deref(),
        Some(&b"before"[..]),
        "all that was promised is there, and nothing that came late"
    );
    seat.leave();
}

#[test]
fn a_hub_that_leaves_with_open_jobs_and_nobody_beside_it_leaves_them_to_the_next() {
    let engine = store();
    let (first, seat, _heard) = begin(&engine);
    own(&*first, JOB, seat.hub());
    seat.leave();
    let since = Instant::now();
    let (_second, seat, heard) = begin(&engine);
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(Duty::Lead));
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(Duty::Open(vec![JOB])));
    assert!(since.elapsed() < Duration::from_secs(5), "nobody's lease has to lapse: {:?}", since.elapsed());
    seat.leave();
}
