//! What every engine must do, as checks that run on any of them.
//!
//! Owns the suite: [`run`] for all engines, [`survives_reopening`] for those that keep what they are
//! given. Checks panic with a sentence on the first difference. It may not name an engine.

use crate::batch::{Batch, Expect, LimitError};
use crate::engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};
use crate::limits;
use std::sync::Barrier;
use std::thread;

/// A check and the sentence it proves.
type Check = (&'static str, fn(&dyn Engine));

/// Runs every check, each on a fresh engine that `open` makes.
///
/// *Panics*: if the engine does not conform.
pub fn run(open: &dyn Fn() -> Box<dyn Engine>) {
    let checks: [Check; 14] = [
        ("what is put is read back", put_is_read_back),
        ("ranges are ordered, half open and limited", ranges_are_ordered),
        ("a walk shows each entry once", a_walk_shows_each_entry_once),
        ("a snapshot does not move", a_snapshot_does_not_move),
        ("a batch happens wholly or not at all", a_batch_is_whole),
        ("conflicts name the key and what was found", conflicts_name_what_was_found),
        ("writes happen in the order they were added", writes_happen_in_order),
        ("adds add", adds_add),
        ("a range is deleted wholly and alone", a_range_is_deleted),
        ("a group is judged in order, each batch by itself", a_group_is_judged_in_order),
        ("limits hold exactly and name the key", limits_hold),
        ("inverted and reserved ranges are refused", strange_ranges_are_refused),
        ("chunked values are replaced and deleted wholly", chunked_values_are_whole),
        ("of many racing claims one wins", one_of_many_claims_wins),
    ];
    for (sentence, check) in checks {
        let engine = open();
        println!("{}: {sentence}", engine.name());
        check(&*engine);
    }
}

/// Checks that a store which is closed and opened again holds what it held.
///
/// *Panics*: if it does not. `open` opens the same store each time.
pub fn survives_reopening(open: &dyn Fn() -> Box<dyn Engine>) {
    let large = pattern(3 * limits::CHUNK_BYTES);
    let mut batch = Batch::new();
    batch.put("t/kept", "value").put("t/gone", "value").put_chunked(b"t/large", &large).add("t/count", 7);
    done(&*open(), batch);
    let mut batch = Batch::new();
    batch.expect_equals("t/kept", "value").delete("t/gone").add("t/count", 1);
    done(&*open(), batch);
    let engine = open();
    let snapshot = engine.snapshot().expect("a reopened store can be read");
    assert_eq!(get(&*snapshot, "t/kept").as_deref(), Some(&b"value"[..]));
    assert_eq!(get(&*snapshot, "t/gone"), None);
    assert_eq!(get(&*snapshot, "t/count"), Some(8u64.to_le_bytes().to_vec()));
    assert_eq!(snapshot.get_chunked(b"t/large").expect("a large value is read"), Some(large));
}

fn put_is_read_back(engine: &dyn Engine) {
    let mut batch = Batch::new();
    batch.put("t/a", "first").put("t/empty", "").put([b't', b'/', 0, 0xff], [0, 0xff]);
    done(engine, batch);
    done(engine, batch_of(|batch| batch.put("t/a", "second")));
    let snapshot = read(engine);
    assert_eq!(get(&*snapshot, "t/a").as_deref(), Some(&b"second"[..]));
    assert_eq!(get(&*snapshot, "t/empty").as_deref(), Some(&b""[..]), "empty is not absent");
    assert_eq!(snapshot.get(&[b't', b'/', 0, 0xff]).expect("a key of any bytes"), Some(vec![0, 0xff]));
    assert_eq!(get(&*snapshot, "t/b"), None);
    done(engine, batch_of(|batch| batch.delete("t/a").delete("t/never")));
    assert_eq!(get(&*read(engine), "t/a"), None);
    done(engine, Batch::new());
}

fn ranges_are_ordered(engine: &dyn Engine) {
    let mut batch = Batch::new();
    for key in ["t/c", "t/a", "t/aa", "t/b", "s/z", "u/a"] {
        batch.put(key, key.to_uppercase());
    }
    done(engine, batch);
    let snapshot = read(engine);
    let keys = |range: KeyRange, limit| -> Vec<String> {
        let entries = snapshot.range(&range, limit).expect("a range is read");
        let shout = |entry: &Entry| entry.value == entry.key.to_ascii_uppercase();
        assert!(entries.iter().all(shout), "a value lies under another key: {entries:?}");
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect()
    };
    assert_eq!(keys(KeyRange::prefix("t/"), 10), ["t/a", "t/aa", "t/b", "t/c"]);
    assert_eq!(keys(KeyRange::prefix("t/"), 2), ["t/a", "t/aa"]);
    assert_eq!(keys(KeyRange::new("t/aa", "t/c"), 10), ["t/aa", "t/b"], "the end does not belong");
    assert!(keys(KeyRange::new("t/a", "t/a"), 10).is_empty());
    assert!(keys(KeyRange::prefix("t/"), 0).is_empty());
    assert!(keys(KeyRange::prefix("t/x"), 10).is_empty());
}

fn a_walk_shows_each_entry_once(engine: &dyn Engine) {
    for count in [0, 1, limits::WALK_PAGE_ENTRIES, 2 * limits::WALK_PAGE_ENTRIES + 1] {
        let mut batch = Batch::new();
        batch.delete_range(KeyRange::prefix("t/"));
        for index in 0..count {
            batch.put(format!("t/{index:05}"), "");
        }
        done(engine, batch);
        let mut seen = Vec::new();
        let mut visit = |entry: Entry| seen.push(entry.key);
        read(engine).walk(&KeyRange::prefix("t/"), &mut visit).expect("a range is walked");
        let expected: Vec<_> = (0..count).map(|index| format!("t/{index:05}").into_bytes()).collect();
        assert_eq!(seen, expected);
    }
}

fn a_snapshot_does_not_move(engine: &dyn Engine) {
    done(engine, batch_of(|batch| batch.put("t/a", "old").put("t/b", "old")));
    let before = read(engine);
    done(engine, batch_of(|batch| batch.put("t/a", "new").delete("t/b").put("t/c", "new")));
    assert_eq!(get(&*before, "t/a").as_deref(), Some(&b"old"[..]));
    assert_eq!(before.range(&KeyRange::prefix("t/"), 9).expect("a range is read").len(), 2);
    let after = read(engine);
    assert_eq!(get(&*after, "t/a").as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&*after, "t/b"), None);
}

fn a_batch_is_whole(engine: &dyn Engine) {
    done(engine, batch_of(|batch| batch.put("t/held", "1")));
    let mut batch = Batch::new();
    batch.expect_exists("t/held").put("t/x", "1").add("t/n", 1).delete("t/held").expect_exists("t/missing");
    let conflict = engine.commit(batch).expect("a conflict is an outcome, not an error");
    assert!(matches!(conflict, Commit::Conflict { .. }), "{conflict:?}");
    let snapshot = read(engine);
    assert_eq!(get(&*snapshot, "t/x"), None);
    assert_eq!(get(&*snapshot, "t/n"), None);
    assert!(get(&*snapshot, "t/held").is_some());
}

fn conflicts_name_what_was_found(engine: &dyn Engine) {
    done(engine, batch_of(|batch| batch.expect_absent("t/a").put("t/a", "1")));
    done(engine, batch_of(|batch| batch.expect_equals("t/a", "1").expect_exists("t/a").expect_absent("t/b")));
    let cases = [
        ("t/a", Expect::Absent, Some("1")),
        ("t/a", Expect::Equals(b"2".to_vec()), Some("1")),
        ("t/a", Expect::Equals(b"11".to_vec()), Some("1")),
        ("t/b", Expect::Exists, None),
        ("t/b", Expect::Equals(b"".to_vec()), None),
    ];
    for (key, expect, found) in cases {
        let mut batch = Batch::new();
        batch.expect_exists("t/a").expect(key, expect.clone()).put("t/c", "1");
        let conflict = Commit::Conflict { key: key.into(), found: found.map(Into::into) };
        assert_eq!(engine.commit(batch).expect("judged"), conflict, "{key} {expect:?}");
    }
    // Conditions look at the store before the batch, wherever they stand in it.
    done(engine, batch_of(|batch| batch.put("t/d", "1").expect_absent("t/d")));
}

fn writes_happen_in_order(engine: &dyn Engine) {
    let mut batch = Batch::new();
    batch.put("t/a", "1").put("t/a", "2").delete("t/b").put("t/b", "1").put("t/c", "1").delete("t/c");
    batch
        .put("t/d", "1")
        .delete_range(KeyRange::new("t/d", "t/f"))
        .put("t/e", "1")
        .add("t/n", 1)
        .add("t/n", 2);
    done(engine, batch);
    let entries = read(engine).range(&KeyRange::prefix("t/"), 9).expect("a range is read");
    let entry = |key: &str, value: &[u8]| Entry { key: key.into(), value: value.into() };
    let three = 3u64.to_le_bytes();
    assert_eq!(entries, [entry("t/a", b"2"), entry("t/b", b"1"), entry("t/e", b"1"), entry("t/n", &three)]);
}

fn adds_add(engine: &dyn Engine) {
    let number = |key: &str| get(&*read(engine), key).map(|value| value.try_into().map(u64::from_le_bytes));
    done(engine, batch_of(|batch| batch.add("t/new", 5)));
    done(engine, batch_of(|batch| batch.add("t/new", 0x1_0000)));
    assert_eq!(number("t/new"), Some(Ok(0x1_0005)));
    done(engine, batch_of(|batch| batch.add("t/wraps", u64::MAX)));
    done(engine, batch_of(|batch| batch.add("t/wraps", 3)));
    assert_eq!(number("t/wraps"), Some(Ok(2)));
    done(engine, batch_of(|batch| batch.put("t/short", [1, 1]).put("t/long", [0xff; 12])));
    done(engine, batch_of(|batch| batch.add("t/short", 1).add("t/long", 1)));
    assert_eq!(number("t/short"), Some(Ok(0x0102)));
    assert_eq!(number("t/long"), Some(Ok(0)), "a longer value is cut to 8 bytes");
}

fn a_range_is_deleted(engine: &dyn Engine) {
    let mut batch = Batch::new();
    for key in ["t/a", "t/b", "t/b/1", "t/b/2", "t/c"] {
        batch.put(key, "1");
    }
    done(engine, batch);
    done(engine, batch_of(|batch| batch.delete_range(KeyRange::prefix("t/b/"))));
    done(engine, batch_of(|batch| batch.delete_range(KeyRange::new("t/a", "t/a"))));
    let left = read(engine).range(&KeyRange::prefix("t/"), 9).expect("a range is read");
    let keys: Vec<_> = left.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [b"t/a", b"t/b", b"t/c"]);
}

fn a_group_is_judged_in_order(engine: &dyn Engine) {
    let too_long = vec![0; limits::VALUE_BYTES_MAX + 1];
    let group = vec![
        batch_of(|batch| batch.expect_absent("t/a").put("t/a", "1")),
        batch_of(|batch| batch.expect_absent("t/a").put("t/a", "2").put("t/no", "1")),
        batch_of(|batch| batch.put("t/no", too_long)),
        batch_of(|batch| batch.expect_equals("t/a", "1").put("t/a", "3")),
        Batch::new(),
    ];
    let outcomes = engine.commit_all(group);
    let conflict = Commit::Conflict { key: b"t/a".to_vec(), found: Some(b"1".to_vec()) };
    assert!(matches!(outcomes[0], Ok(Commit::Done)), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Ok(found) if *found == conflict), "{outcomes:?}");
    assert!(matches!(outcomes[2], Err(CommitError::Limit(_))), "{outcomes:?}");
    assert!(matches!(outcomes[3], Ok(Commit::Done)), "{outcomes:?}");
    assert!(matches!(outcomes[4], Ok(Commit::Done)), "{outcomes:?}");
    assert_eq!(outcomes.len(), 5);
    assert_eq!(get(&*read(engine), "t/a").as_deref(), Some(&b"3"[..]));
    assert_eq!(get(&*read(engine), "t/no"), None);
    assert!(engine.commit_all(Vec::new()).is_empty());
}

fn limits_hold(engine: &dyn Engine) {
    let key = |bytes: usize| [b"t/".to_vec(), vec![b'k'; bytes - 2]].concat();
    let longest = key(limits::KEY_BYTES_MAX);
    let largest = pattern(limits::VALUE_BYTES_MAX);
    done(engine, batch_of(|batch| batch.put(longest.clone(), largest.clone())));
    assert_eq!(read(engine).get(&longest).expect("the longest key is read"), Some(largest));

    let refused = |batch: Batch| match engine.commit(batch) {
        Err(CommitError::Limit(limit)) => limit,
        other => panic!("a broken limit is named, not {other:?}"),
    };
    let too_long = key(limits::KEY_BYTES_MAX + 1);
    let too_large = vec![0; limits::VALUE_BYTES_MAX + 1];
    let value_too_long = LimitError::ValueTooLong { key: b"t/v".to_vec(), value_bytes: too_large.len() };
    let is_key =
        |limit| matches!(limit, LimitError::KeyTooLong { key_bytes, .. } if key_bytes == too_long.len());
    assert!(is_key(refused(batch_of(|batch| batch.put(too_long.clone(), "")))));
    assert!(is_key(refused(batch_of(|batch| batch.expect_absent(too_long.clone())))));
    assert!(is_key(refused(batch_of(|batch| batch.delete(too_long.clone())))));
    assert!(is_key(refused(batch_of(|batch| batch.add(too_long.clone(), 1)))));
    assert_eq!(refused(batch_of(|batch| batch.put("t/v", too_large.clone()))), value_too_long);
    assert_eq!(refused(batch_of(|batch| batch.expect_equals("t/v", too_large))), value_too_long);
    let reserved = refused(batch_of(|batch| batch.put([0xff], "")));
    assert_eq!(reserved, LimitError::ReservedKey { key: vec![0xff] });
    assert!(matches!(read(engine).get(&too_long), Err(ReadError::Limit(LimitError::KeyTooLong { .. }))));
    assert!(matches!(read(engine).get(&[0xff]), Err(ReadError::Limit(LimitError::ReservedKey { .. }))));

    let value = vec![0; limits::VALUE_BYTES_MAX];
    let mut heavy = Batch::new();
    while heavy.weight_bytes() <= limits::BATCH_BYTES_MAX {
        heavy.put(format!("t/heavy/{}", heavy.writes().len()), value.clone());
    }
    let weight_bytes = heavy.weight_bytes();
    assert_eq!(refused(heavy), LimitError::BatchTooHeavy { weight_bytes });
    assert!(read(engine).range(&KeyRange::prefix("t/heavy/"), 1).expect("a range is read").is_empty());
}

fn strange_ranges_are_refused(engine: &dyn Engine) {
    let inverted = KeyRange::new("t/b", "t/a");
    let reserved = KeyRange::new("t/a", [0xff, 1]);
    let snapshot = read(engine);
    for range in [inverted, reserved] {
        let error = snapshot.range(&range, 1).expect_err("a strange range is refused");
        assert!(matches!(error, ReadError::Limit(_)), "{error:?}");
        let error = engine.commit(batch_of(|batch| batch.delete_range(range))).expect_err("refused");
        assert!(matches!(error, CommitError::Limit(_)), "{error:?}");
    }
    done(engine, batch_of(|batch| batch.put("t/a", "1")));
    let all = read(engine).range(&KeyRange::prefix([]), usize::MAX).expect("every key may be read");
    assert!(all.iter().any(|entry| entry.key == b"t/a"));
}

fn chunked_values_are_whole(engine: &dyn Engine) {
    let edge = limits::CHUNK_BYTES;
    done(engine, batch_of(|batch| batch.put("t/v", "before").put("t/w", "after")));
    for length in [0, 1, edge - 1, edge, edge + 1, 5 * edge, 2 * edge, 0] {
        let value = pattern(length);
        done(engine, batch_of(|batch| batch.put_chunked(b"t/v", &value)));
        assert_eq!(read(engine).get_chunked(b"t/v").expect("a large value is read"), Some(value));
    }
    let value = pattern(3 * edge + 7);
    done(engine, batch_of(|batch| batch.put_chunked(b"t/v", &value)));
    let end = value.len() as u64;
    let of_edge = edge as u64;
    for part in [0..1, 0..end, 5..of_edge, of_edge - 1..of_edge + 1, of_edge..2 * of_edge, end - 7..end] {
        let found = read(engine).get_chunked_part(b"t/v", part.clone()).expect("a part is read");
        assert_eq!(found.as_deref(), Some(&value[part.start as usize..part.end as usize]), "{part:?}");
    }
    read(engine).get_chunked_part(b"t/v", end - 1..end + 1).expect_err("a part past the end is noticed");
    assert_eq!(read(engine).get_chunked_part(b"t/none", 0..1).expect("nothing is read"), None);
    done(engine, batch_of(|batch| batch.put_chunked(b"t/v", &pattern(3 * edge))));
    done(engine, batch_of(|batch| batch.delete(crate::chunked::chunk_key(b"t/v", 1))));
    read(engine).get_chunked_part(b"t/v", 0..3 * of_edge).expect_err("a missing chunk is noticed");
    read(engine).get_chunked_part(b"t/v", of_edge..3 * of_edge).expect_err("a missing chunk is noticed");
    let torn = read(engine).get_chunked(b"t/v").expect_err("a missing chunk is noticed");
    assert!(matches!(torn, ReadError::TornValue { stated_bytes, .. } if stated_bytes == 3 * edge as u64));
    done(engine, batch_of(|batch| batch.delete_chunked(b"t/v")));
    let left = read(engine).range(&KeyRange::prefix("t/"), 9).expect("a range is read");
    let keys: Vec<_> = left.into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [b"t/v", b"t/w"], "the neighbours stay, no chunk does");
    assert_eq!(read(engine).get_chunked(b"t/v").expect("read"), None);
}

fn one_of_many_claims_wins(engine: &dyn Engine) {
    const CLAIMANTS: u64 = 4;
    const ROUNDS: u64 = 8;
    let start = Barrier::new(CLAIMANTS as usize);
    let claim = |claimant: u64| {
        start.wait();
        let mut won = 0;
        for round in 0..ROUNDS {
            let mut batch = Batch::new();
            batch.expect_absent(format!("t/{round}")).put(format!("t/{round}"), claimant.to_le_bytes());
            batch.add("t/wins", 1);
            won += u64::from(engine.commit(batch).expect("a claim is judged") == Commit::Done);
        }
        won
    };
    let won: u64 = thread::scope(|scope| {
        let claimants: Vec<_> = (0..CLAIMANTS).map(|claimant| scope.spawn(move || claim(claimant))).collect();
        claimants.into_iter().map(|claimant| claimant.join().expect("a claimant ends")).sum()
    });
    assert_eq!(won, ROUNDS);
    assert_eq!(get(&*read(engine), "t/wins"), Some(ROUNDS.to_le_bytes().to_vec()));
}

fn batch_of(fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new();
    fill(&mut batch);
    batch
}

fn done(engine: &dyn Engine, batch: Batch) {
    assert_eq!(engine.commit(batch).expect("the batch is within the limits"), Commit::Done);
}

fn read(engine: &dyn Engine) -> Box<dyn Snapshot> {
    engine.snapshot().expect("the store can be read")
}

fn get(snapshot: &dyn Snapshot, key: &str) -> Option<Vec<u8>> {
    snapshot.get(key.as_bytes()).expect("a key within the limits is read")
}

/// Bytes that show where they stand, so that chunks in the wrong order are noticed.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
