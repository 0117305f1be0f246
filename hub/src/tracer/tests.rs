//! Jobs in a store, whose agents are proven wrong after they ended.

use super::*;
use tessera_hub_core::record::Unchecked;
use tessera_hub_core::{Bill, Charges, Outcome, Payment};
use tessera_planners::Plan;
use tessera_protocol::id::Digest;
use tessera_protocol::receipt::Service;
use tessera_protocol::spec::{JobSpec, VerifyClass};
use tessera_protocol::unit::ShardIndex;
use tessera_storage::{Batch, Commit, Family, Key, Memory};

use crate::accounts::fixture;

const ACME: &str = "acme";
const LIAR: AgentId = AgentId([1; 16]);
const HONEST: AgentId = AgentId([2; 16]);

/// Two shards of each agent, all of the same provider.
fn bill() -> Charges {
    let text =
        r#"{"name":"n","workload":"monte_carlo","params":{"model":"pi","paths":400,"shard_size":100}}"#;
    let plan = Plan::new(&JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap(), 0).unwrap();
    let mut bill = Bill::open(VerifyClass::Standard, &plan);
    for (index, agent) in [LIAR, LIAR, HONEST, HONEST].into_iter().enumerate() {
        let shard = plan.shard(ShardIndex(index as u64)).unwrap();
        let (provider, service, digest) = (ProviderId::of_name(ACME), Service::Shard, Digest([0; 32]));
        bill.owe(Payment { provider, agent, service, index: shard.index, digest, cost: shard.cost });
    }
    bill.close()
}

/// A done job in which each agent is alone with a shard.
fn end(store: &Memory, number: u64, extends: Option<u64>, inherited: u64) -> JobId {
    end_with(store, number, (extends, inherited), &[LIAR, HONEST])
}

fn end_with(
    store: &Memory,
    number: u64,
    (extends, inherited): (Option<u64>, u64),
    alone: &[AgentId],
) -> JobId {
    let extends = extends.map(|number| fixture::view(number).id);
    let view = Box::new(JobView { extends, tainted: inherited, ..fixture::view(number) });
    let alone = alone.iter().map(|agent| (*agent, 1)).collect();
    let (job, bill, unchecked) = (view.id, Box::new(bill()), Unchecked { inherited, alone });
    let outcome = Outcome::Done { result: (*b"{}").into(), kept: tessera_hub_core::record::Kept::Products };
    let record = Record::JobEnded { job, view, outcome, bill, unchecked };
    assert_eq!(store.commit(records::batch_of(&record)).unwrap(), Commit::Done);
    job
}

fn proven(store: &Memory, agent: AgentId) {
    let mut batch = Batch::new();
    batch.put(Key::Trace(agent), ProviderId::of_name(ACME).0);
    assert_eq!(store.commit(batch).unwrap(), Commit::Done);
}

/// Lets a hub start on the store, and stop.
fn run(store: &Arc<Memory>, news: Vec<News>) -> Arc<Views> {
    let (journal, journal_thread) = Journal::start(store.clone()).unwrap();
    let views = Arc::new(Views::default());
    records::recover(&*store.snapshot().unwrap())
        .unwrap()
        .views
        .into_iter()
        .for_each(|view| views.publish_job(view));
    let (tell, thread) = start(store.clone(), journal.clone(), views.clone(), false).unwrap();
    news.into_iter().for_each(|news| tell.send(news).unwrap());
    drop(tell);
    thread.join().unwrap();
    journal.stop();
    journal_thread.join().unwrap();
    views
}

fn tainted(store: &Memory, job: JobId) -> u64 {
    records::read_view(&*store.snapshot().unwrap(), job).unwrap().unwrap().tainted
}

#[test]
fn a_job_that_ended_before_its_liar_was_found_tells_its_client() {
    let store = Arc::new(Memory::default());
    let job = end(&store, 1, None, 0);
    proven(&store, LIAR);
    let views = run(&store, vec![News::Proven(vec![(LIAR, ProviderId::of_name(ACME))])]);
    assert_eq!((tainted(&store, job), views.job(job).unwrap().tainted), (1, 1));
    let unchecked = records::read_unchecked(&*store.snapshot().unwrap(), job).unwrap();
    assert_eq!(unchecked.alone, BTreeMap::from([(HONEST, 1)]), "nobody is counted twice");
    assert_eq!(
        records::read_bill(&*store.snapshot().unwrap(), job).unwrap().unwrap(),
        Charges { fresh: BTreeMap::new(), ..bill() }
    );
}

#[test]
fn what_a_hub_did_not_get_to_is_told_by_the_next_and_only_once() {
    let store = Arc::new(Memory::default());
    let job = end(&store, 1, None, 0);
    proven(&store, LIAR);
    for _ in 0..3 {
        run(&store, Vec::new());
        assert_eq!(tainted(&store, job), 1);
    }
}

#[test]
fn an_agent_is_done_with_once_it_was_looked_at_again() {
    let store = Arc::new(Memory::default());
    let (journal, journal_thread) = Journal::start(store.clone()).unwrap();
    let tracer =
        Tracer { store: store.clone(), journal: journal.clone(), views: Arc::default(), shared: false };
    proven(&store, LIAR);
    let mut again = BTreeMap::new();
    tracer.resume(&mut again).unwrap();
    // Another lane had not heard of it.
    let job = end(&store, 1, None, 0);
    tracer.look_again(&mut again);
    assert_eq!((tainted(&store, job), again.len()), (1, 0));
    let left = store.snapshot().unwrap().range(&Family::Traces.range(), 9).unwrap();
    assert_eq!(left, Vec::new());
    journal.stop();
    journal_thread.join().unwrap();
}

#[test]
fn taint_is_handed_on_to_jobs_that_extend_one_and_to_those_that_extend_them() {
    let store = Arc::new(Memory::default());
    let parent = end(&store, 1, None, 0);
    let child = end(&store, 2, Some(1), 0);
    let grandchild = end(&store, 3, Some(2), 0);
    proven(&store, LIAR);
    run(&store, Vec::new());
    assert_eq!([parent, child, grandchild].map(|job| tainted(&store, job)), [1, 2, 3]);
    // Begun on what was tainted already, and counted then.
    let late = end_with(&store, 4, (Some(1), 1), &[]);
    run(&store, vec![News::Extended(late)]);
    assert_eq!(tainted(&store, late), 1);
    // Begun before, and ended after.
    let later = end_with(&store, 5, (Some(1), 0), &[]);
    run(&store, vec![News::Extended(later)]);
    assert_eq!(tainted(&store, later), 1);
}

#[test]
fn what_was_taken_away_meanwhile_stays_away() {
    let store = Memory::default();
    let view = fixture::view(1);
    let batch = records::taint_batch(b"its record".to_vec(), &view, &bill(), &Unchecked::default());
    assert!(matches!(store.commit(batch).unwrap(), Commit::Conflict { .. }));
}

#[test]
fn the_audit_log_says_whose_word_a_result_rested_on() {
    let store = Arc::new(Memory::default());
    let identity = crate::quic::Identity::generate().unwrap();
    let auditor = crate::audit::Auditor::resume(identity.clone(), &*store.snapshot().unwrap()).unwrap();
    let (journal, journal_thread) = Journal::start_audited(store.clone(), auditor).unwrap();
    let tracer =
        Tracer { store: store.clone(), journal: journal.clone(), views: Arc::default(), shared: false };
    let job = end(&store, 1, None, 0);
    tracer.trace(&[(LIAR, ProviderId::of_name(ACME))]).unwrap();
    let page = crate::audit::page(&identity, &*store.snapshot().unwrap(), 0).unwrap();
    let said = serde_json::to_string(&page).unwrap();
    assert!(
        said.contains("recalled") && said.contains(&job.to_string()) && said.contains(&LIAR.to_string()),
        "{said}"
    );
    journal.stop();
    journal_thread.join().unwrap();
}
