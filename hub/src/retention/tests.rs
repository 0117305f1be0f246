//! Finished jobs that go, over a store in memory.

use super::*;
use tessera_protocol::api::JobState;
use tessera_protocol::id::{Digest, ProviderId};
use tessera_storage::{Commit, Engine, KeyRange, Memory};

use crate::inputs::wanted::Role;

/// Made at the fifth millisecond; its record says that it ended at the sixth.
const MADE: u64 = 5;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn job() -> JobId {
    JobId::new(MADE, [1; 10])
}

fn policy(default: Option<Duration>) -> Policy {
    Policy { default, projects: BTreeMap::new() }
}

fn commit(engine: &Memory, batch: Batch) {
    assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
}

fn late() -> UnixMillis {
    UnixMillis(6 + DAY.as_millis() as u64)
}

/// A store with a finished job and all that lies beside it.
fn store(state: JobState) -> Memory {
    let (engine, job) = (Memory::default(), job());
    let mut batch = Batch::new();
    batch.put(Key::Job(job), records::test_job(job, state));
    for whole in [Key::Manifest(job), Key::Progress(job), Key::Result(job), Key::Bill(job)] {
        batch.put_chunked(&whole.encode(), &[1; 70_000]);
    }
    let idempotency = [&[1][..], &job.0, &[2; 32]].concat();
    batch.put(Key::Idempotency { project: "default", key: b"k" }, idempotency);
    let earning = Key::Earning { provider: ProviderId([1; 16]), ended_ms: 6, job };
    batch.put(earning, b"kept".to_vec());
    for blob in 0..3 {
        wanted::put_reference(&mut batch, job, Digest([blob; 32]), Role::Input);
    }
    commit(&engine, batch);
    for tile in 0..300 {
        let mut batch = Batch::new();
        batch.put_chunked(&Key::Tile { job, tile }.encode(), &[1; 100]);
        batch.put_chunked(&Key::PayPage { job, page: tile }.encode(), &[1; 100]);
        commit(&engine, batch);
    }
    engine
}

fn families(engine: &Memory) -> Vec<Family> {
    let left = |family: &Family| !engine.snapshot().unwrap().range(&family.range(), 1).unwrap().is_empty();
    Family::ALL.into_iter().filter(left).collect()
}

/// Prunes what is due, over at most so many commits; says how many there were.
fn prune_all(engine: &Memory, commits: usize) -> usize {
    let mut made = 0;
    let snapshot = || engine.snapshot().unwrap();
    let may = |made: &mut usize, batch: Batch| {
        let may = *made < commits;
        if may {
            commit(engine, batch);
            *made += 1;
        }
        may
    };
    let policy = policy(Some(DAY));
    for job in page(&*snapshot(), &policy, None, late()).unwrap().due {
        if let Some(deed) = prune(&*snapshot(), &policy, job, late()).unwrap() {
            assert!(matches!(&deed.acts[..], [Act::JobPruned { ended_ms: UnixMillis(6), .. }]));
            if !may(&mut made, deed.batch) {
                return made;
            }
        }
    }
    for job in unfinished(&*snapshot()).unwrap() {
        let (keys, next) = keys_batch(&*snapshot(), None).unwrap();
        assert_eq!(next, None);
        if !keys.is_empty() && !may(&mut made, keys) {
            return made;
        }
        while let Some(batch) = rest_batch(&*snapshot(), job, CHUNKS_MAX).unwrap() {
            if !may(&mut made, batch) {
                return made;
            }
        }
    }
    made
}

#[test]
fn of_a_pruned_job_only_what_accounting_needs_is_left_wherever_the_hub_was_killed() {
    let whole = prune_all(&store(JobState::Done), usize::MAX);
    assert!(whole > 4, "{whole} batches: what is large goes in parts");
    for cut in 0..=whole {
        let engine = store(JobState::Done);
        assert_eq!(prune_all(&engine, cut), cut);
        let snapshot = engine.snapshot().unwrap();
        let is_known = records::read_view(&*snapshot, job()).unwrap().is_some();
        let at = pruned_at(&*snapshot, job()).unwrap();
        assert_eq!((is_known, at), if cut == 0 { (true, None) } else { (false, Some(late())) });
        prune_all(&engine, usize::MAX);
        let kept = [Family::Meta, Family::Pruned, Family::Bills, Family::Earnings];
        assert_eq!(families(&engine), kept, "cut after {cut}");
        assert_eq!(prune_all(&engine, usize::MAX), 0, "nothing is left to do");
    }
}

#[test]
fn only_finished_jobs_go_and_only_when_their_project_says() {
    let due = |state, policy: &Policy, now| {
        let engine = store(state);
        let snapshot = engine.snapshot().unwrap();
        let due = page(&*snapshot, policy, None, now).unwrap().due;
        assert_eq!(due.is_empty(), prune(&*snapshot, policy, job(), now).unwrap().is_none());
        !due.is_empty()
    };
    let (day, before) = (policy(Some(DAY)), UnixMillis(late().0 - 1));
    for state in [JobState::Done, JobState::Failed, JobState::Cancelled] {
        assert!(due(state, &day, late()), "{state:?}");
        assert!(!due(state, &day, before), "{state:?} is not old enough");
        assert!(!due(state, &policy(None), late()), "for ever is the default");
    }
    for state in [JobState::Queued, JobState::Running] {
        assert!(!due(state, &day, UnixMillis(u64::MAX)), "{state:?}");
    }
    let named =
        |kept| Policy { default: Some(DAY), projects: BTreeMap::from([("default".to_owned(), kept)]) };
    assert!(!due(JobState::Done, &named(Some(DAY * 2)), late()));
    assert!(due(JobState::Done, &named(Some(DAY / 2)), before));
    assert!(!due(JobState::Done, &named(None), late()));
}

#[test]
fn a_job_is_kept_while_another_goes_on_from_it_even_if_that_came_at_the_last_moment() {
    let engine = store(JobState::Done);
    let policy = policy(Some(DAY));
    let prunes = || prune(&*engine.snapshot().unwrap(), &policy, job(), late()).unwrap();
    let before = prunes().unwrap();
    let child = JobId::new(7, [2; 10]);
    let mut accepted = Batch::new();
    put_extension(&mut accepted, job(), child);
    commit(&engine, accepted.clone());
    assert!(matches!(engine.commit(before.batch).unwrap(), Commit::Conflict { .. }));
    assert!(prunes().is_none(), "what the open job needs at a restart");
    let mut ended = Batch::new();
    ended.delete(Key::Extension { parent: job(), child });
    commit(&engine, ended);
    commit(&engine, prunes().unwrap().batch);
    assert!(
        matches!(engine.commit(accepted).unwrap(), Commit::Conflict { .. }),
        "there is nothing to go on from"
    );
    let extensions = engine.snapshot().unwrap().range(&KeyRange::prefix(*b"extension/"), 9).unwrap();
    assert_eq!(extensions, []);
}

#[test]
fn many_jobs_are_looked_at_a_page_at_a_time_and_young_ones_not_at_all() {
    let engine = Memory::default();
    let id = |made: u64| JobId::new(made, [3; 10]);
    for made in 0..150 {
        let mut batch = Batch::new();
        batch.put(Key::Job(id(made)), records::test_job(id(made), JobState::Done));
        commit(&engine, batch);
    }
    // Younger than a day, and no record that could be read.
    let mut batch = Batch::new();
    batch.put(Key::Job(id(late().0)), b"not looked at".to_vec());
    commit(&engine, batch);
    let (mut from, mut due, mut pages) = (None, 0, 0);
    loop {
        let page =
            page(&*engine.snapshot().unwrap(), &policy(Some(DAY)), from, UnixMillis(late().0 + 200)).unwrap();
        (due, pages) = (due + page.due.len(), pages + 1);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((due, pages), (150, 3));
}
