//! What must hold in every run, judged from outside the hub.

use std::collections::BTreeMap;

use tessera_hub_core::{NewJob, Outcome};
use tessera_planners::{Next, Plan};
use tessera_protocol::api::{JobFailure, JobState, JobView};
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::product::ProductView;
use tessera_protocol::spec::{Manifest, VerifyClass};
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::ShardIndex;
use tessera_protocol::{monte_carlo, staged};

use super::store::Store;
use super::{toy, workload};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A client heard of a job that is not on disk.
    SpokeBeforePersisting(JobId),
    /// A job was shown as ended, and its end is not on disk.
    ShownBeforeDurable(JobId),
    /// A matrix was to be read, or was shown as done, and not all its tiles are on disk.
    TilesMissing(JobId),
    /// A product that a record names is not on disk.
    ProductMissing(JobId),
    /// A finished job has not counted each of its shards once.
    Miscounted(JobId),
    /// A result is not the one a fault-free run gives.
    WrongResult(JobId),
    /// A job did not end although all faults had stopped.
    Unfinished(JobId),
    /// A retried submission made a second job.
    SubmittedTwice(JobId),
    /// A job that could be computed failed, or one that could not failed without the evidence.
    Failed(JobId, Option<JobFailure>),
    /// A job whose client was told that it is accepted is gone.
    Lost(JobId),
    /// A job that was shown as ended looked otherwise later.
    ChangedAfterEnd(JobId),
    /// A job was stopped that nobody asked to stop.
    StoppedUnasked(JobId),
    /// A job counted a shard that no agent answered.
    Conjured(JobId),
    /// A shard that kills took down that many agents.
    PoisonSpread(u64),
    /// The books of a job do not add up, or pay for what they should not.
    Books(JobId, &'static str),
    /// A job does not say that it is tainted: by the one it extends, or by a lie whose liar was proven wrong since.
    TaintForgotten(JobId),
    /// An agent got a shard of a job that must not run where it is.
    OutOfRegion(JobId, AgentId),
    /// The rest of an agent was over and it got no work.
    RestsTooLong(AgentId),
}

/// The fault-free result.
fn reference(job: &NewJob) -> Vec<u8> {
    match job.plan.matrix() {
        None if job.plan.stage().is_some() => staged(job),
        None => sampled(&job.manifest),
        Some(task) => {
            let file = product(task);
            tessera_planners::finish_matrix(&job.plan, Digest::of(&file), file.len() as u64)
                .expect("a plan of blocks has a result")
        }
    }
}

/// The document of all rounds, each tallied in one piece.
fn sampled(manifest: &Manifest) -> Vec<u8> {
    let mut plan = Plan::new(manifest, 0).expect("the job was planned before");
    let mut tallies: Vec<Tally> = Vec::new();
    loop {
        let task = monte_carlo::Task::decode(plan.task()).expect("planners write right tasks");
        let tally = toy::tally(&task, plan.pass(), plan.first(), plan.end() - plan.first());
        match tallies.last_mut().filter(|_| plan.first() > 0) {
            Some(sum) => sum.merge(&tally).expect("tallies of one pass are of one shape"),
            None => tallies.push(tally),
        }
        match tessera_planners::next(manifest, &plan, &tallies.iter().collect::<Vec<_>>()) {
            Ok(Next::Finished(document)) => return document,
            Ok(Next::Round(next)) => plan = *next,
            Err(error) => panic!("the toy tallies have the shapes of their passes: {error}"),
        }
    }
}

/// The document of all stages, each shard computed once and in order.
fn staged(job: &NewJob) -> Vec<u8> {
    let mut plan = job.plan.clone();
    let mut files = BTreeMap::new();
    loop {
        let task = staged::Task::decode(plan.kernel(), plan.task()).expect("planners write right tasks");
        let input = |(blake3, bytes): (Digest, u64)| {
            files.get(&blake3).cloned().unwrap_or_else(|| workload::file(bytes))
        };
        let inputs: Vec<Vec<u8>> = plan.inputs().into_iter().map(input).collect();
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        let mut products = Vec::new();
        for index in plan.indices().start..plan.indices().end {
            let shard = plan.shard(ShardIndex(index)).expect("the index is of the plan");
            let bytes = toy::product(&task, shard.first, shard.count, &inputs, None);
            let digest = Digest::of(&bytes);
            products.push(ProductView::decode(&bytes).expect("toys are products").reference(digest));
            files.insert(digest, bytes);
        }
        match tessera_planners::next_stage(&job.manifest, &plan, products) {
            Ok(Next::Finished(document)) => return document,
            Ok(Next::Round(next)) => plan = *next,
            Err(error) => panic!("the toy products have the heads of their stages: {error}"),
        }
    }
}

/// Every product that the records of a job name.
pub(super) fn products(store: &Store, job: JobId) -> Result<(), Violation> {
    let Some(stored) = store.jobs.get(&job) else { return Ok(()) };
    match stored.products().all(|product| store.products.contains_key(&product)) {
        true => Ok(()),
        false => Err(Violation::ProductMissing(job)),
    }
}

/// The file of a result: its elements by rows, each the sum of its panels in ascending order.
fn product(task: &Task) -> Vec<u8> {
    let [rows, cols, terms] = task.shape();
    let panels = terms.div_ceil(task.k_panel);
    let element = |row, col| {
        let panels = (0..panels).map(|panel| toy::panel_of(task, row, col, panel));
        // The sum of two binary32 numbers in binary64 is exact, so this rounds it once.
        let add =
            |sum: f64, panel: f64| if task.double { sum + panel } else { f64::from((sum + panel) as f32) };
        panels.reduce(add).filter(|_| toy::is_computed(task, row, col)).unwrap_or_default()
    };
    let mut file = tessera_planners::npy_header(rows, cols, task.dtype());
    for row in 0..rows {
        (0..cols).for_each(|col| toy::write(task, element(row, col), &mut file));
    }
    file
}

/// A matrix is about to be read from the store.
pub(super) fn whole(store: &Store, job: JobId, task: &Task) -> Result<(), Violation> {
    match store.jobs.get(&job) {
        Some(stored) if stored.is_whole(task) => Ok(()),
        Some(_) | None => Err(Violation::TilesMissing(job)),
    }
}

pub(super) fn heard_of(store: &Store, job: JobId) -> Result<(), Violation> {
    if store.jobs.contains_key(&job) { Ok(()) } else { Err(Violation::SpokeBeforePersisting(job)) }
}

pub(super) fn shown(store: &Store, view: &JobView) -> Result<(), Violation> {
    let stored = store.jobs.get(&view.id).filter(|stored| stored.end.is_some());
    let Some(stored) = stored.filter(|_| !view.state.is_open()) else {
        return if view.state.is_open() { Ok(()) } else { Err(Violation::ShownBeforeDurable(view.id)) };
    };
    match stored.job.plan.matrix().filter(|_| view.state == JobState::Done) {
        Some(task) => whole(store, view.id, task),
        None => Ok(()),
    }
}

/// What was lied in a run.
pub(super) struct Lies<'a> {
    /// Those who lied about a job and may have been trusted by then.
    pub(super) liars: &'a dyn Fn(JobId) -> Vec<AgentId>,
    /// Whether every lie about a job is one that anyone sees who looks, of agents who do not agree in it, and their
    /// number is one that a hub looks after in any job.
    pub(super) plain: &'a dyn Fn(JobId) -> bool,
    /// Whether all who lied about a job, or about one that it extends, are on record as proven wrong, and none of
    /// them had a witness.
    pub(super) found_out: &'a dyn Fn(&Store, JobId) -> bool,
    /// Whether a hub died: that a check was skipped is written down after the tile that it spared.
    pub(super) hub_died: bool,
}

/// Whether a lie about a job, or about one that it extends, may be in its result.
fn deceived(store: &Store, id: JobId, lies: &Lies<'_>) -> bool {
    let Some(stored) = store.jobs.get(&id) else { return false };
    let found = |agent: &AgentId| store.refuted.contains(&(id, *agent));
    let sampled = stored.job.manifest.spec().verify != VerifyClass::Exact;
    let tainted = stored.end.as_ref().is_some_and(|(view, _)| view.tainted > 0);
    let base = stored.job.base.as_ref().is_some_and(|base| deceived(store, base.job, lies));
    let checked = stored.end.as_ref().is_some_and(|(view, _)| view.checks_skipped == 0);
    let told = !(lies.hub_died && stored.job.plan.matrix().is_some());
    let sampled = sampled && !(checked && told && (lies.plain)(id));
    base || sampled && (tainted || !(lies.liars)(id).iter().all(found))
}

/// At the end of a run, when the world had time to heal.
///
/// Where not all is checked, a lie may get through: by an agent that was never found out, or with a word to the
/// client that the result is tainted. Some jobs cannot but fail, and do it rightly.
pub(super) fn ended(
    store: &Store,
    lies: &Lies<'_>,
    failed_rightly: impl Fn(&JobView) -> bool,
) -> Result<(), Violation> {
    for (id, stored) in &store.jobs {
        let got_through = deceived(store, *id, lies);
        let inherited = stored.job.base.as_ref().map_or(0, |base| base.tainted);
        if stored.end.as_ref().is_some_and(|(view, _)| view.tainted < inherited) {
            return Err(Violation::TaintForgotten(*id));
        }
        match &stored.end {
            None => return Err(Violation::Unfinished(*id)),
            Some((view, Outcome::Done { result, .. })) => {
                let is_right = **result == reference(&stored.job);
                if !is_right && view.tainted == 0 && (lies.found_out)(store, *id) {
                    return Err(Violation::TaintForgotten(*id));
                }
                let is_right = got_through || is_right;
                if view.digest != Some(Digest::of(result)) || !is_right {
                    return Err(Violation::WrongResult(*id));
                }
                if view.shards_done != view.shards {
                    return Err(Violation::Miscounted(*id));
                }
            }
            Some((view, Outcome::Cancelled)) if view.state == JobState::Cancelled => {}
            Some((view, Outcome::Failed)) if got_through || failed_rightly(view) => {}
            Some((view, _)) => return Err(Violation::Failed(*id, view.failure.clone())),
        }
    }
    Ok(())
}
