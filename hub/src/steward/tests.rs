//! Two hubs on one store, in real time: one serves, the other takes over.

use super::*;
use std::sync::atomic::AtomicU32;
use tessera_storage::Memory;

/// Longer than any lease.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Joins on a thread of its own, and says so.
fn stand_by(engine: &Arc<dyn Engine>) -> Receiver<(Arc<dyn Engine>, Seat)> {
    let (said, heard) = sync_channel(1);
    let engine = engine.clone();
    std::thread::spawn(move || drop(said.send(join(engine, &at(), || {}).unwrap())));
    heard
}

#[test]
fn the_first_serves_and_the_next_as_soon_as_it_left() {
    let engine = store();
    let (first, seat) = join(engine.clone(), &at(), || {}).unwrap();
    assert_eq!(first.commit(word("first")).unwrap(), Commit::Done);
    let second = stand_by(&engine);
    assert!(second.recv_timeout(Duration::from_millis(2_500)).is_err(), "one serves already");
    seat.leave();
    let (second, seat) = second.recv_timeout(PATIENCE).expect("it serves");
    assert!(matches!(first.commit(word("late")), Err(CommitError::Fenced)));
    assert_eq!(second.commit(word("second")).unwrap(), Commit::Done);
    seat.leave();
    let left = engine.snapshot().unwrap();
    assert_eq!(left.range(&Family::Entries.range(), 9).unwrap(), Vec::new());
    assert_eq!(left.range(&Family::Fences.range(), 9).unwrap(), Vec::new());
    assert_eq!(left.range(&Family::HubAts.range(), 9).unwrap(), Vec::new());
    assert_eq!(left.get(&Key::HubActive.encode()).unwrap(), None);
}

#[test]
fn a_hub_that_falls_silent_is_replaced_and_finds_itself_fenced_when_it_comes_back() {
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
    let (second, seat) = stand_by(&engine).recv_timeout(PATIENCE).expect("it takes over");
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
