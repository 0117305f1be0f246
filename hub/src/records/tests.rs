//! Records through a store and back.

use super::*;
use tessera_hub_core::fleet::Fleet;
use tessera_hub_core::home::{Home, Judge};
use tessera_hub_core::lane::Config;
use tessera_hub_core::triage::Oddity;
use tessera_hub_core::verifier::{Evidence, Verifier};
use tessera_hub_core::{Account, Effect, Event, Lane, Payment};
use tessera_planners::Pass;
use tessera_protocol::api::JobState;
use tessera_protocol::product::{FileRef, ProductRef};
use tessera_protocol::unit::{LaneIndex, Tick, UnixMillis};
use tessera_storage::{Commit, Engine, Memory};

fn new_job(text: &str, first: u64, key: Option<&str>) -> Arc<NewJob> {
    let manifest = JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap();
    let plan = Plan::new(&manifest, first).unwrap();
    let id = JobId::new(5, manifest.digest().0[..10].try_into().unwrap());
    let idempotency_key = key.map(str::to_owned);
    Arc::new(NewJob { id, manifest, plan, created: UnixMillis(5), base: None, idempotency_key })
}

pub(super) fn job(paths: u64, key: Option<&str>) -> Arc<NewJob> {
    let text = format!(
        r#"{{"name":"n","workload":"monte_carlo","params":{{"model":"pi","paths":{paths},"shard_size":100}}}}"#
    );
    new_job(&text, 0, key)
}

/// 3 × 3 tiles of 3 panels.
pub(super) fn product() -> Arc<NewJob> {
    let matrix = r#"{"random":"uniform","rows":40,"cols":40}"#;
    let text = format!(
        r#"{{"name":"p","workload":"gemm","params":{{"dtype":"f64","a":{matrix},"b":{matrix},"tile":[16,16],"k_panel":16}}}}"#
    );
    new_job(&text, 0, None)
}

pub(super) fn view_of(job: &Arc<NewJob>) -> JobView {
    let (verifier, fleet) = (Verifier::new([0; 32]), Fleet::new(1));
    let (lane, now, unix_origin) = (LaneIndex(0), Tick(0), UnixMillis(0));
    let judge = Judge { verifier: &verifier, fleet: &fleet, lane, now, unix_origin };
    Home::open(job.clone(), None, Tick(0), UnixMillis(0)).view(&judge)
}

/// What lies under `job/`, of a job in this state.
pub(super) fn stored_as(id: JobId, state: JobState) -> Vec<u8> {
    let ended_ms = (!state.is_open()).then_some(UnixMillis(6));
    stored_job(0, None, &JobView { id, state, ended_ms, ..view_of(&job(100, None)) })
}

fn bill_of(job: &NewJob) -> Charges {
    Bill::open(job.manifest.spec().verify, &job.plan).charges().clone()
}

fn closed(job: &NewJob) -> Box<Charges> {
    Box::new(Bill::open(job.manifest.spec().verify, &job.plan).close())
}

#[track_caller]
pub(super) fn write(engine: &Memory, batch: Batch) {
    assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
}

#[track_caller]
pub(super) fn commit(engine: &Memory, record: &Record) {
    write(engine, batch_of(record));
}

fn accept(engine: &Memory, job: &Arc<NewJob>) -> Box<JobView> {
    let view = Box::new(view_of(job));
    commit(engine, &Record::JobAccepted { job: job.clone(), view: view.clone() });
    view
}

fn write_tile(engine: &Memory, job: &NewJob, plan: Digest, tile: u64) {
    let bytes = vec![tile as u8; 8 * 16 * 16].into();
    commit(engine, &Record::TileReduced { job: job.id, plan, tile, bytes, earned: Vec::new() });
}

fn tiles_left(engine: &Memory, job: JobId) -> usize {
    engine.snapshot().unwrap().range(&tiles_of(job), usize::MAX).unwrap().len()
}

pub(super) fn range(start: u64, end: u64) -> Ranges {
    let mut done = Ranges::default();
    done.insert(ShardRange { start, end });
    done
}

pub(super) fn tally(samples: u64, hits: u64) -> Arc<Tally> {
    Arc::new(Tally { samples, counts: vec![hits], ..Tally::default() })
}

fn recovered(engine: &Memory) -> Recovered {
    recover(&*engine.snapshot().unwrap()).unwrap()
}

/// The progress of the only open job.
fn recovered_progress(engine: &Memory) -> Option<Progress> {
    let mut open = recovered(engine).open;
    assert_eq!(open.len(), 1);
    open.pop().unwrap().1
}

/// Progress of a job in its first round, of which nothing is paid.
fn progress_of(job: &NewJob, view: Box<JobView>, done: Ranges, tally: Option<Arc<Tally>>) -> Progress {
    Progress {
        done,
        tally,
        earlier: Vec::new(),
        view: *view,
        plan: job.plan.digest(),
        round: job.plan.round().clone(),
        products: BTreeMap::new(),
        bill: bill_of(job),
    }
}

#[test]
fn an_open_job_comes_back_with_what_of_it_was_done() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let progress = progress_of(&job, view, range(2, 4), Some(tally(200, 77)));
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress.clone()) });
    assert_eq!(recovered(&engine).open, vec![(job, Some(progress))]);
}

pub(super) fn products() -> BTreeMap<ShardIndex, ProductRef> {
    let files = vec![FileRef { name: "a".into(), offset: 40, bytes: 3, blake3: Digest([4; 32]) }];
    let product = ProductRef { blake3: Digest([5; 32]), bytes: 43, head: vec![0, 0xff], files };
    BTreeMap::from([(ShardIndex(8), product)])
}

#[test]
fn progress_of_a_later_pass_comes_back_with_the_tallies_of_those_before() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let round = Round { number: 2, shards_before: 7, first: 0, end: 1_000, pass: Pass::default() };
    let progress = Progress {
        done: range(0, 9),
        tally: Some(tally(300, 5)),
        earlier: vec![tally(1_000, 785), Arc::default()],
        view: *view,
        plan: Digest([3; 32]),
        round,
        products: products(),
        bill: bill_of(&job),
    };
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress.clone()) });
    let found = read_progress(&*engine.snapshot().unwrap(), job.id).unwrap();
    assert_eq!(found, Some(progress.clone()));
    let between = Progress { tally: None, ..progress };
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(between.clone()) });
    let found = read_progress(&*engine.snapshot().unwrap(), job.id).unwrap();
    assert_eq!(found, Some(between), "nothing of the running pass is in");
}

#[test]
fn progress_of_another_cut_means_nothing() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let progress = progress_of(&job, view, range(2, 4), Some(tally(200, 77)));
    let progress = Progress { plan: Digest([1; 32]), ..progress };
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress) });
    let home = Home::open(job, recovered_progress(&engine), Tick(0), UnixMillis(0));
    let (verifier, fleet) = (Verifier::new([0; 32]), Fleet::new(1));
    let (lane, now, unix_origin) = (LaneIndex(0), Tick(0), UnixMillis(0));
    let judge = Judge { verifier: &verifier, fleet: &fleet, lane, now, unix_origin };
    assert_eq!(home.view(&judge).shards_done, 0);
}

/// What the version before rounds wrote under `progress/` for [`job`] of 1,000 paths, two of whose ten shards
/// were done.
const FORMER_HEAD: &str = r#"{"version":1,"view":{"id":"job_0000000000050000000000000000000f","name":"n","project":"default","state":"running","manifest_digest":"MANIFEST","verify":"standard","priority":"batch","created_ms":5,"ended_ms":null,"paths":1000,"extends":null,"cost":1000,"shards":10,"shards_done":2,"attempts":2,"checks":0,"mismatches":0,"checks_skipped":0,"lanes":[2],"digest":null,"failure":null,"waiting":null},"plan":"PLAN","done":[[2,4]]}"#;
/// 200 samples, 77 hits.
const FORMER_TALLY: [u8; 6] = [0xc8, 0x01, 0, 1, 0, 77];

#[test]
fn progress_that_the_former_version_wrote_still_counts() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    accept(&engine, &job);
    let head = FORMER_HEAD
        .replace("PLAN", &job.plan.digest().to_string())
        .replace("MANIFEST", &job.manifest.digest().to_string());
    let bytes = [&(head.len() as u32).to_be_bytes()[..], head.as_bytes(), &FORMER_TALLY].concat();
    let mut batch = Batch::new();
    batch.put_chunked(&Key::Progress(job.id).encode(), &bytes);
    write(&engine, batch);
    let progress = recovered_progress(&engine).unwrap();
    assert_eq!((&progress.done, &progress.round), (&range(2, 4), job.plan.round()));
    assert_eq!((progress.tally, progress.earlier), (Some(tally(200, 77)), Vec::new()));
}

#[test]
fn progress_that_the_former_version_wrote_of_an_extension_still_counts() {
    let (engine, parent) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &parent);
    let outcome = Outcome::Done { result: (*b"{}").into(), kept: Kept::Tally(tally(1_000, 785)) };
    let view = Box::new(JobView { state: JobState::Done, ..*view });
    commit(
        &engine,
        &Record::JobEnded {
            job: parent.id,
            view,
            outcome,
            bill: closed(&parent),
            unchecked: Unchecked::default(),
        },
    );
    let text =
        r#"{"name":"n","workload":"monte_carlo","params":{"model":"pi","paths":3000,"shard_size":100}}"#;
    let base = Base { job: parent.id, tally: Arc::unwrap_or_clone(tally(1_000, 785)), tainted: 0 };
    let child = new_job(text, 1_000, None);
    let child = Arc::new(NewJob { base: Some(base), ..Arc::unwrap_or_clone(child) });
    accept(&engine, &child);
    let head = FORMER_HEAD
        .replace("PLAN", &child.plan.digest().to_string())
        .replace("MANIFEST", &child.manifest.digest().to_string())
        .replace("\"paths\":1000", "\"paths\":3000");
    let bytes = [&(head.len() as u32).to_be_bytes()[..], head.as_bytes(), &FORMER_TALLY].concat();
    let mut batch = Batch::new();
    batch.put_chunked(&Key::Progress(child.id).encode(), &bytes);
    write(&engine, batch);
    assert_eq!(recovered_progress(&engine).unwrap().round, *child.plan.round());
}

#[test]
fn an_ended_job_keeps_its_result_and_its_tally_and_is_open_no_more() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let tally = tally(1_000, 785);
    let view = Box::new(JobView { state: JobState::Done, ..*view });
    let outcome = Outcome::Done { result: (*b"{}").into(), kept: Kept::Tally(tally.clone()) };
    commit(
        &engine,
        &Record::JobEnded {
            job: job.id,
            view: view.clone(),
            outcome,
            bill: closed(&job),
            unchecked: Unchecked::default(),
        },
    );
    let snapshot = engine.snapshot().unwrap();
    let recovered = recover(&*snapshot).unwrap();
    assert!(recovered.open.is_empty());
    assert_eq!(recovered.views, vec![*view]);
    assert_eq!(read_result(&*snapshot, job.id).unwrap(), Some(b"{}".to_vec()));
    assert_eq!(read_progress(&*snapshot, job.id).unwrap().unwrap().tally, Some(tally));
}

#[test]
fn a_matrix_job_comes_back_with_the_tiles_that_are_here() {
    let (engine, job) = (Memory::default(), product());
    let view = accept(&engine, &job);
    assert!(recovered_progress(&engine).unwrap().done.is_empty());
    for tile in [0, 1, 5] {
        write_tile(&engine, &job, job.plan.digest(), tile);
    }
    let progress = recovered_progress(&engine).unwrap();
    let mut done = range(0, 6);
    done.insert(ShardRange { start: 15, end: 18 });
    assert_eq!((&progress.done, progress.view.shards_done), (&done, 9), "three panels to a tile");
    assert_eq!((progress.plan, &progress.tally, progress.earlier), (job.plan.digest(), &None, Vec::new()));
    // Counters come from the progress record, and what is done from the tiles alone.
    let counted = JobView { attempts: 11, shards_done: 27, ..*view };
    let record = progress_of(&job, Box::new(counted), Ranges::default(), None);
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(record) });
    let progress = recovered_progress(&engine).unwrap();
    assert_eq!((&progress.done, progress.view.shards_done, progress.view.attempts), (&done, 9, 11));
    let recovered = recovered(&engine);
    assert_eq!(recovered.views[0], progress.view, "clients see what is really done");
}

#[test]
fn a_matrix_job_all_of_whose_tiles_are_here_only_needs_its_file_read() {
    let (engine, job) = (Memory::default(), product());
    accept(&engine, &job);
    (0..9).for_each(|tile| write_tile(&engine, &job, job.plan.digest(), tile));
    let config = Config { lane: LaneIndex(0), lanes: 1, sampling_key: [0; 32], unix_origin: UnixMillis(0) };
    let mut lane = Lane::new(config);
    let progress = recovered_progress(&engine).map(Box::new);
    let event = Event::JobRecovered { job: job.clone(), progress, panels: Vec::new() };
    let assembles = lane
        .step(Tick(0), event)
        .any(|effect| matches!(effect, Effect::Assemble { job: of, .. } if of == job.id));
    assert!(assembles);
}

#[test]
fn tiles_of_another_cut_are_computed_again() {
    let (engine, job) = (Memory::default(), product());
    accept(&engine, &job);
    write_tile(&engine, &job, Digest([9; 32]), 0);
    write_tile(&engine, &job, job.plan.digest(), 1);
    assert_eq!(recovered_progress(&engine).unwrap().done, range(3, 6));
    write_tile(&engine, &job, job.plan.digest(), 0);
    assert_eq!(recovered_progress(&engine).unwrap().done, range(0, 6), "the newer tile takes the place");
}

#[test]
fn the_tiles_of_a_job_stay_with_its_result_and_go_with_a_job_that_has_none() {
    let (engine, job) = (Memory::default(), product());
    let view = accept(&engine, &job);
    let other = JobId([0xee; 16]);
    let bytes = vec![1; 2_048].into();
    commit(
        &engine,
        &Record::TileReduced { job: other, plan: Digest([1; 32]), tile: 0, bytes, earned: Vec::new() },
    );
    (0..9).for_each(|tile| write_tile(&engine, &job, job.plan.digest(), tile));
    let task = job.plan.matrix().unwrap().clone();
    let outcome = Outcome::Done { result: (*b"{}").into(), kept: Kept::Tiles(task.clone()) };
    let done = Box::new(JobView { state: JobState::Done, ..*view });
    commit(
        &engine,
        &Record::JobEnded {
            job: job.id,
            view: done.clone(),
            outcome,
            bill: closed(&job),
            unchecked: Unchecked::default(),
        },
    );
    assert_eq!(tiles_left(&engine, job.id), 10, "nine tiles and how they are cut");
    assert_eq!(read_cut(&*engine.snapshot().unwrap(), job.id).unwrap().as_ref(), Some(&*task));
    assert_eq!(read_progress(&*engine.snapshot().unwrap(), job.id).unwrap(), None);
    for outcome in [Outcome::Cancelled, Outcome::Failed] {
        write_tile(&engine, &job, job.plan.digest(), 0);
        commit(
            &engine,
            &Record::JobEnded {
                job: job.id,
                view: done.clone(),
                outcome,
                bill: closed(&job),
                unchecked: Unchecked::default(),
            },
        );
        assert_eq!((tiles_left(&engine, job.id), tiles_left(&engine, other)), (0, 1));
    }
}

#[test]
fn what_looked_odd_about_an_answer_stands_beside_its_digest_in_the_audit_log() {
    let (liar, bob) = (AgentId([1; 16]), AgentId([2; 16]));
    let answer = |agent, byte| (agent, Account::operator(), Digest([byte; 32]));
    let evidence = Evidence {
        index: ShardIndex(7),
        answers: vec![answer(liar, 1), answer(bob, 9)],
        believed: Some(Digest([9; 32])),
        oddities: vec![(liar, Oddity::ElementTooLarge { row: 3, col: 0, value: 1e30, bound: 64.5 })],
    };
    let acts = deed_of(&Record::Disputed((JobId([5; 16]), evidence))).acts;
    let [Act::Disputed { shard: 7, evidence, .. }] = &acts[..] else { panic!("{acts:?}") };
    let odd = "element (3, 0) is 1000000000000000000000000000000, and its operands give at most 64.5";
    assert_eq!(evidence["answers"][0]["odd"], odd);
    assert_eq!(evidence["answers"][1].get("odd"), None);
}

#[test]
fn the_largest_tile_fits_one_transaction_of_the_store() {
    let side = tessera_protocol::limits::TILE_SIDE_MAX as usize;
    let bytes = vec![1; side * side * 8].into();
    let record = Record::TileReduced {
        job: JobId([1; 16]),
        plan: Digest([2; 32]),
        tile: u64::MAX,
        bytes,
        earned: Vec::new(),
    };
    batch_of(&record).check().unwrap();
}

#[test]
fn a_second_job_under_one_idempotency_key_conflicts_with_the_first() {
    let (engine, first, second) = (Memory::default(), job(1_000, Some("k")), job(2_000, Some("k")));
    accept(&engine, &first);
    let record = Record::JobAccepted { job: second.clone(), view: Box::new(view_of(&second)) };
    match engine.commit(batch_of(&record)).unwrap() {
        Commit::Done => panic!("two jobs under one key"),
        Commit::Conflict { found, .. } => {
            assert_eq!(read_idempotency(&found.unwrap()), Some((first.id, first.manifest.digest())));
        }
    }
}

/// Shards 0 to `shards` are final, by turns by two agents of two providers.
pub(super) fn work(job: &NewJob, shards: u64) -> Bill {
    let mut bill = Bill::open(job.manifest.spec().verify, &job.plan);
    for index in 0..shards {
        let shard = job.plan.shard(ShardIndex(index)).unwrap();
        let number = (index % 2) as u8;
        bill.owe(Payment {
            provider: tessera_protocol::id::ProviderId([number; 16]),
            agent: AgentId([number; 16]),
            service: tessera_protocol::receipt::Service::Shard,
            index: shard.index,
            digest: Digest::of(&index.to_le_bytes()),
            cost: shard.cost,
        });
    }
    bill
}

#[test]
fn what_was_paid_comes_back_with_the_progress_it_was_paid_for() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    assert_eq!(read_bill(&*engine.snapshot().unwrap(), job.id).unwrap(), Some(bill_of(&job)));
    let done = range(0, 3);
    let progress = Progress {
        tally: Some(tally(300, 77)),
        earlier: Vec::new(),
        view: *view,
        plan: job.plan.digest(),
        round: job.plan.round().clone(),
        products: BTreeMap::new(),
        bill: work(&job, 5).when_done(&done),
        done,
    };
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress.clone()) });
    let found = recovered_progress(&engine).unwrap();
    let bill = Charges { fresh: BTreeMap::new(), ..progress.bill.clone() };
    assert_eq!((found.bill.shards(), found), (3, Progress { bill, ..progress }));
}

/// Every shard on the pages of a job, as often as it is there.
fn shards_on_pages(engine: &Memory, job: &NewJob) -> Vec<u64> {
    let store = engine.snapshot().unwrap();
    let bill = read_bill(&*store, job.id).unwrap().unwrap();
    let of =
        |number| lines_of(&*store, job.id, &bill, tessera_protocol::id::ProviderId([number; 16])).unwrap();
    let lines: Vec<_> = [0, 1].into_iter().flat_map(of).collect();
    let mut shards: Vec<u64> =
        lines.iter().flat_map(|line| line.shards.iter().flat_map(|(start, end)| *start..*end)).collect();
    shards.sort_unstable();
    shards
}

#[test]
fn each_shard_that_was_paid_is_on_one_page_whenever_the_hub_died() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let mut bill = work(&job, 6);
    let write = |bill: &mut Bill, done: Ranges| {
        let bill = bill.when_done(&done);
        let progress = Progress { bill, ..progress_of(&job, view.clone(), done, Some(tally(300, 77))) };
        commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress) });
    };
    write(&mut bill, range(0, 3));
    assert_eq!(shards_on_pages(&engine, &job), [0, 1, 2]);
    // It is on disk, and the hub was told that it is not: the page is written once more.
    bill.written(false);
    write(&mut bill, range(0, 5));
    bill.written(true);
    assert_eq!(shards_on_pages(&engine, &job), [0, 1, 2, 3, 4]);
    // The hub dies: shard 5 is computed again.
    let found = recovered_progress(&engine).unwrap();
    let mut again = Bill::resume(found.bill, &job.plan);
    for payment in work(&job, 10).owed_in(ShardRange { start: 5, end: 10 }) {
        again.owe(payment);
    }
    let end = again.close();
    let view = Box::new(JobView { state: JobState::Failed, ended_ms: Some(UnixMillis(9)), ..*view.clone() });
    let (job_id, outcome, bill) = (job.id, Outcome::Failed, Box::new(end));
    commit(&engine, &Record::JobEnded { job: job_id, view, outcome, bill, unchecked: Unchecked::default() });
    assert_eq!(shards_on_pages(&engine, &job), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_tile_on_its_way_when_its_job_is_stopped_is_on_one_page() {
    let (engine, job) = (Memory::default(), product());
    let view = accept(&engine, &job);
    let bill = work(&job, 7);
    let earned = bill.owed_in(ShardRange { start: 3, end: 6 });
    let bytes = vec![0; 8 * 16 * 16].into();
    commit(&engine, &Record::TileReduced { job: job.id, plan: job.plan.digest(), tile: 1, bytes, earned });
    let view = Box::new(JobView { state: JobState::Cancelled, ended_ms: Some(UnixMillis(9)), ..*view });
    let (job_id, outcome, bill) = (job.id, Outcome::Cancelled, Box::new(bill.close()));
    commit(&engine, &Record::JobEnded { job: job_id, view, outcome, bill, unchecked: Unchecked::default() });
    assert_eq!(shards_on_pages(&engine, &job), (0..7).collect::<Vec<_>>());
}

#[test]
fn what_a_tile_earned_comes_back_with_the_tile_and_not_without_it() {
    let (engine, job) = (Memory::default(), product());
    accept(&engine, &job);
    let bill = work(&job, 6);
    let earned = bill.owed_in(ShardRange { start: 3, end: 6 });
    let bytes = vec![0; 8 * 16 * 16].into();
    commit(&engine, &Record::TileReduced { job: job.id, plan: job.plan.digest(), tile: 1, bytes, earned });
    let found = recovered_progress(&engine).unwrap();
    assert_eq!((found.done.clone(), found.bill.shards()), (range(3, 6), 3));
    // A checkpoint after that says nothing of tiles: theirs are counted once.
    let bill = Bill::resume(found.bill.clone(), &job.plan);
    let progress = Progress { bill: bill.charges().clone(), done: Ranges::default(), ..found };
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress) });
    assert_eq!(recovered_progress(&engine).unwrap().bill.shards(), 3);
}

#[test]
fn providers_earn_in_the_transaction_that_ends_the_job_and_once() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let bill = Box::new(work(&job, 10).close());
    let view = Box::new(JobView { state: JobState::Failed, ended_ms: Some(UnixMillis(9)), ..*view });
    let (outcome, unchecked) = (Outcome::Failed, Unchecked::default());
    let end = Record::JobEnded { job: job.id, view, outcome, bill: bill.clone(), unchecked };
    let provider = tessera_protocol::id::ProviderId([1; 16]);
    for _ in 0..2 {
        commit(&engine, &end);
        let store = engine.snapshot().unwrap();
        let stream = earnings_of(&*store, provider).unwrap();
        let [(ended, of, earned)] = stream.as_slice() else { panic!("{stream:?}") };
        assert_eq!((*ended, *of, earned.shards), (UnixMillis(9), job.id, 5));
        let fresh = std::collections::BTreeMap::new();
        assert_eq!(read_bill(&*store, job.id).unwrap(), Some(Charges { fresh, ..*bill.clone() }));
        let lines = lines_of(&*store, job.id, &bill, provider).unwrap();
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(
            line.shards,
            [1, 3, 5, 7, 9].map(|index| (index, index + 1)),
            "however often it is written"
        );
    }
}

#[test]
fn a_settlement_is_made_once() {
    let engine = Memory::default();
    let settlement = |number| {
        use tessera_protocol::credits::*;
        let totals = Totals { gross: Microcredits(5), payable: Microcredits(5), ..Totals::default() };
        let statement = Statement { provider: "acme".into(), lines: Vec::new(), totals };
        let (made_ms, until_ms, total) = (UnixMillis(1), UnixMillis(2), Microcredits(5));
        Settlement { number, made_ms, until_ms, total, statements: vec![statement] }
    };
    write(&engine, settlement_batch(&settlement(1)));
    assert!(matches!(engine.commit(settlement_batch(&settlement(1))).unwrap(), Commit::Conflict { .. }));
    write(&engine, settlement_batch(&settlement(2)));
    let store = engine.snapshot().unwrap();
    let acme = tessera_protocol::id::ProviderId::of_name("acme");
    assert_eq!(settled_of(&*store, acme).unwrap().0, 10);
    assert_eq!(settlements(&*store).unwrap(), 2);
    assert_eq!(read_settlement(&*store, 2).unwrap(), Some(settlement(2)));
}

#[test]
fn a_job_that_is_older_than_bills_goes_on_and_pays_for_what_follows() {
    let (engine, job) = (Memory::default(), job(1_000, None));
    let view = accept(&engine, &job);
    let progress = progress_of(&job, view, range(0, 3), Some(tally(300, 77)));
    commit(&engine, &Record::JobProgressed { job: job.id, progress: Box::new(progress) });
    let mut batch = Batch::new();
    batch.delete_chunked(&Key::Bill(job.id).encode());
    write(&engine, batch);
    assert_eq!(recovered_progress(&engine).unwrap().bill, bill_of(&job));
}

#[test]
fn what_is_recalled_or_tainted_when_an_agent_is_proven_wrong_is_in_the_audit_log_alone() {
    let (job, agent) = (JobId::new(1, [1; 10]), AgentId([2; 16]));
    let recalled = tessera_hub_core::record::Recalled { shards: 7, tainted: 2 };
    let deed = deed_of(&Record::Recalled { job, agent, recalled });
    assert_eq!(deed.acts, [Act::Recalled { job, agent, shards: 7, tainted: 2 }]);
    assert!(deed.batch.writes().is_empty());
}
