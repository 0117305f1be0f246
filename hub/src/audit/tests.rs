//! The log through a store and back, and every way to tamper with it.

use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

use tessera_storage::{Commit, CommitError, Engine, Memory};

use crate::journal::{Journal, Verdict};

fn check_lines(lines: &[String], key: Option<Digest>) -> Result<Checked, AuditError> {
    let (mut checked, mut ring) = (Checked::new(key), Ring(Tree::new()));
    for (number, line) in (1..).zip(lines) {
        checked.line(line.as_bytes(), number, &mut ring)?;
    }
    checked.end()
}

fn act(number: u64) -> Act {
    Act::TokenMade { token: Digest::of(&number.to_be_bytes()), provider: "acme".into() }
}

fn commit(store: &Memory, auditor: &mut Auditor, acts: &[Act]) {
    let mut batch = Batch::new();
    auditor.write(&mut batch, acts);
    assert_eq!(store.commit(batch).unwrap(), Commit::Done);
}

fn pages(identity: &Identity, store: &Memory) -> Vec<String> {
    let (mut lines, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = page(identity, &*store.snapshot().unwrap(), from).unwrap();
        lines.extend(page.lines);
        next = page.next;
    }
    lines
}

/// A log of some blocks, written by hubs that each died.
fn log(entries: u64) -> (Identity, Memory, Vec<String>) {
    let (identity, store) = (Identity::generate().unwrap(), Memory::default());
    for number in 0..entries {
        let mut auditor = Auditor::resume(identity.clone(), &*store.snapshot().unwrap()).unwrap();
        auditor.signed_ms = unix_ms();
        commit(&store, &mut auditor, &[act(number)]);
    }
    let lines = pages(&identity, &store);
    (identity, store, lines)
}

#[test]
fn a_log_is_checked_from_its_first_entry_to_the_signature_of_this_moment() {
    let (identity, _, lines) = log(2 * BLOCK_ENTRIES + 3);
    let key = Digest(identity.public_key().0);
    let checked = check_lines(&lines, Some(key)).unwrap();
    assert_eq!((checked.entries, checked.checkpoints, checked.hub_key), (515, 3, Some(key)));
    assert!(matches!(check_lines(&lines, Some(Digest([1; 32]))), Err(AuditError::OtherHub { .. })));
}

#[test]
fn every_entry_that_is_removed_changed_or_swapped_is_found() {
    let (_, _, lines) = log(5);
    assert!(check_lines(&lines, None).is_ok());
    for at in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(at);
        assert!(check_lines(&removed, None).is_err(), "line {at} removed");
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at].clone());
        let is_seal = at + 1 == lines.len();
        assert_eq!(check_lines(&doubled, None).is_ok(), is_seal, "line {at} doubled");
        for byte in 0..lines[at].len() {
            let mut changed = lines.clone();
            let mut bytes = changed[at].clone().into_bytes();
            bytes[byte] ^= 1;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            changed[at] = text;
            assert!(check_lines(&changed, None).is_err(), "byte {byte} of line {at} changed");
        }
    }
    for at in 1..lines.len() {
        let mut swapped = lines.clone();
        swapped.swap(at - 1, at);
        assert!(check_lines(&swapped, None).is_err(), "lines {at} and the one before swapped");
    }
}

#[test]
fn a_log_that_was_cut_off_or_written_anew_is_found() {
    let (identity, _, lines) = log(BLOCK_ENTRIES + 2);
    let cut = &lines[..lines.len() - 1];
    assert_eq!(check_lines(cut, None), Err(AuditError::NotSealed { sealed: 256, entries: 258 }));
    // Whoever has the entries and not the hub's key cannot seal others.
    let (other, _, forged) = log(3);
    assert!(matches!(
        check_lines(&forged, Some(Digest(identity.public_key().0))),
        Err(AuditError::OtherHub { found }) if found.0 == other.public_key().0
    ));
}

#[test]
fn a_batch_that_comes_to_nothing_leaves_no_gap_in_the_log() {
    let (identity, store) = (Identity::generate().unwrap(), Arc::new(Memory::default()));
    let auditor = Auditor::resume(identity.clone(), &*store.snapshot().unwrap()).unwrap();
    let (journal, thread) = Journal::start_audited(store.clone(), auditor).unwrap();
    let (say, heard) = channel();
    for number in 0..300u64 {
        let mut batch = Batch::new();
        // Every third asks for what is not there.
        if number % 3 == 0 {
            batch.expect_exists(b"token/nowhere".to_vec());
        }
        let (say, deed) = (say.clone(), Deed { batch, acts: vec![act(number)] });
        journal.commit(deed, move |verdict| say.send((number, verdict)).unwrap()).unwrap();
    }
    drop(say);
    journal.stop();
    thread.join().unwrap();
    for (number, verdict) in heard {
        let done = matches!(verdict, Verdict::Judged(Commit::Done));
        assert_eq!(done, number % 3 != 0, "{number}: {verdict:?}");
    }
    let checked = check_lines(&pages(&identity, &store), None).unwrap();
    assert_eq!(checked.entries, 200);
}

/// A store that fails twice in five commits: once before it has written, once after.
#[derive(Default)]
struct Flaky {
    store: Memory,
    commits: AtomicU64,
}

impl Engine for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        self.store.snapshot()
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let count = batches.len();
        let failed = || (0..count).map(|_| Err(CommitError::Interrupted)).collect();
        match self.commits.fetch_add(1, Ordering::Relaxed) % 5 {
            1 => failed(),
            3 => {
                self.store.commit_all(batches);
                failed()
            }
            _ => self.store.commit_all(batches),
        }
    }
}

#[test]
fn after_a_commit_of_unknown_outcome_the_log_goes_on_where_it_is() {
    let (identity, flaky) = (Identity::generate().unwrap(), Arc::new(Flaky::default()));
    let auditor = Auditor::resume(identity.clone(), &*flaky.snapshot().unwrap()).unwrap();
    let (journal, thread) = Journal::start_audited(flaky.clone(), auditor).unwrap();
    let mut done = 0;
    for number in 0..40u64 {
        let mut batch = Batch::new();
        batch.put(format!("token/{number:032}"), [1]);
        let deed = Deed { batch, acts: vec![act(number), act(number)] };
        let (say, heard) = channel();
        journal.commit(deed, move |verdict| say.send(verdict).unwrap()).unwrap();
        done += u64::from(matches!(heard.recv().unwrap(), Verdict::Judged(Commit::Done)));
    }
    journal.stop();
    thread.join().unwrap();
    assert_eq!(done, 32, "what was written before the store failed is known to be");
    assert_eq!(check_lines(&pages(&identity, &flaky.store), None).unwrap().entries, 2 * done);
}

#[test]
fn a_log_that_grows_while_it_is_exported_is_whole_all_the_same() {
    let (identity, store) = (Identity::generate().unwrap(), Memory::default());
    let mut auditor = Auditor::resume(identity.clone(), &*store.snapshot().unwrap()).unwrap();
    let acts: Vec<Act> = (0..PAGE_ENTRIES).map(act).collect();
    // Whole pages, with and without a part of one behind them, and with nothing more to come.
    for more in [0, 1, 700, PAGE_ENTRIES] {
        commit(&store, &mut auditor, &acts);
        let (mut lines, mut next, mut between) = (Vec::new(), Some(0), vec![more, 1]);
        while let Some(from) = next {
            let page = page(&identity, &*store.snapshot().unwrap(), from).unwrap();
            lines.extend(page.lines);
            next = page.next;
            commit(&store, &mut auditor, &acts[..between.pop().unwrap_or(0) as usize]);
        }
        let checked = check_lines(&lines, Some(Digest(identity.public_key().0))).unwrap();
        assert!(checked.entries >= PAGE_ENTRIES && checked.entries <= auditor.head.entries, "{more} more");
    }
}

#[test]
fn what_hubs_report_beside_the_log_is_in_it_once_and_in_order_whichever_of_them_leads() {
    let (identity, store) = (Identity::generate().unwrap(), Arc::new(Memory::default()));
    let hubs = [1, 2].map(|number| HubId([number; 16]));
    let journals = hubs
        .map(|hub| Journal::start_audited(store.clone(), Reports::beside(identity.clone(), hub)).unwrap());
    let report = |hub: usize, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let deed = move || Deed { batch: Batch::new(), acts: vec![act(number)] };
            assert!(journals[hub].0.commit_and_wait(deed));
        }
    };
    let moved = |hub: usize| {
        let (batch, told) = reported(&*store.snapshot().unwrap(), 7).unwrap();
        !told.is_empty() && journals[hub].0.tell_and_wait(batch, told)
    };
    report(0, 0..5);
    report(1, 100..110);
    assert_eq!(page(&identity, &*store.snapshot().unwrap(), 0).unwrap().entries, 0, "nobody leads");
    assert!(journals[0].0.lead());
    // It writes at once what it does now, and does not wait for what lies there.
    report(0, 5..8);
    while moved(0) {}
    report(1, 110..120);
    // The first is gone, and what was reported last is moved by the other.
    assert!(journals[1].0.lead());
    while moved(1) {}
    report(1, 120..125);
    for (journal, thread) in journals {
        journal.stop();
        thread.join().unwrap();
    }
    let lines = pages(&identity, &store);
    assert_eq!(check_lines(&lines, None).unwrap().entries, 8 + 25);
    let place = |number: u64| {
        let token = Digest::of(&number.to_be_bytes()).to_string();
        let found: Vec<usize> = (0..lines.len()).filter(|line| lines[*line].contains(&token)).collect();
        assert_eq!(found.len(), 1, "act {number}");
        found[0]
    };
    assert!((100..125).map(place).is_sorted() && (0..5).map(place).is_sorted());
    assert!((0..8).all(|number| place(number) < lines.len()));
    assert_eq!(store.snapshot().unwrap().range(&Family::Acts.range(), 9).unwrap(), []);
}
