//! The simulated store: commits in order, loses what was not committed when the hub crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tessera_hub_core::ranges::Ranges;
use tessera_hub_core::standing::StandingRecord;
use tessera_hub_core::{Bill, Earnings, NewJob, Outcome, Progress, Record};
use tessera_planners::Pass;
use tessera_protocol::api::JobView;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::ShardRange;

/// What survives a crash.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) jobs: BTreeMap<JobId, Stored>,
    keys: BTreeMap<(String, String), JobId>,
    /// Who was proven wrong about which job.
    pub(super) refuted: BTreeSet<(JobId, AgentId)>,
    pub(super) standings: BTreeMap<AgentId, StandingRecord>,
    /// Products by their digests.
    pub(super) products: BTreeMap<Digest, Arc<[u8]>>,
}

/// The records of one job.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) job: Arc<NewJob>,
    accepted: JobView,
    progress: Option<Progress>,
    /// By the plan they are of and their position in it.
    tiles: BTreeMap<(Digest, u64), Arc<[u8]>>,
    /// Who is paid for them.
    earned: BTreeMap<(Digest, u64), Earnings>,
    pub(super) end: Option<(JobView, Outcome)>,
}

/// What a commit came to.
#[derive(Debug)]
pub(super) enum Commit {
    Done,
    Conflict { existing: JobId, manifest: Digest },
}

impl Store {
    pub(super) fn commit(&mut self, record: Record) -> Commit {
        match record {
            Record::JobAccepted { job, view } => {
                let key = job.idempotency_key.clone().map(|key| (job.manifest.spec().project.clone(), key));
                if let Some(existing) = key.as_ref().and_then(|key| self.keys.get(key)) {
                    let manifest = self.jobs[existing].job.manifest.digest();
                    return Commit::Conflict { existing: *existing, manifest };
                }
                key.map(|key| self.keys.insert(key, job.id));
                let (id, accepted, tiles, earned) = (job.id, *view, BTreeMap::new(), BTreeMap::new());
                self.jobs.insert(id, Stored { job, accepted, progress: None, tiles, earned, end: None });
            }
            Record::JobProgressed { job, progress } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    stored.progress = Some(*progress);
                }
            }
            Record::TileReduced { job, plan, tile, bytes, earned } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    stored.earned.insert((plan, tile), earned);
                    let earlier = stored.tiles.insert((plan, tile), bytes.clone());
                    assert!(earlier.is_none_or(|earlier| earlier == bytes), "{job} changed tile {tile}");
                }
            }
            Record::Disputed(_) => {}
            Record::StandingsChanged { agents, proofs, .. } => {
                for (job, evidence) in proofs {
                    let believed = evidence.believed.expect("nobody is proven wrong by nothing");
                    let wrong = evidence.answers.iter().filter(|(.., digest)| *digest != believed);
                    self.refuted.extend(wrong.map(|(agent, ..)| (job, *agent)));
                }
                self.standings.extend(agents.into_iter().map(|record| (record.agent, record)));
            }
            Record::JobEnded { job, view, outcome, bill } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    assert!(stored.end.is_none(), "{job} ended twice");
                    bill.check();
                    assert!(bill.closed, "{job} ended with an open bill");
                    if let Outcome::Done { .. } = outcome {
                        assert_eq!(bill.shards(), view.shards, "{job}: shards that were paid");
                        assert_eq!(bill.units.0, i128::from(view.cost.0), "{job}: units that were paid");
                    }
                    stored.end = Some((*view, outcome));
                }
            }
        }
        Commit::Done
    }
}

impl Stored {
    /// What a hub that starts finds of an open job: of a matrix, what is done are the tiles that are here.
    pub(super) fn recovered(&self) -> Option<Progress> {
        let Some(task) = self.job.plan.matrix() else { return self.progress.clone() };
        let fresh = || Progress {
            done: Ranges::default(),
            tally: None,
            earlier: Vec::new(),
            view: self.accepted.clone(),
            plan: self.job.plan.digest(),
            round: self.job.plan.round().clone(),
            products: BTreeMap::new(),
            bill: Bill::open(self.job.manifest.spec().verify, &self.job.plan).charges().clone(),
        };
        let mut progress = self.progress.clone().unwrap_or_else(fresh);
        for (_, tile) in self.tiles.keys().filter(|(plan, _)| *plan == progress.plan) {
            let start = tile * task.panels();
            progress.done.insert(ShardRange { start, end: start + task.panels() });
        }
        let mut bill = Bill::resume(progress.bill.unpaid());
        let of_plan = self.earned.iter().filter(|((plan, _), _)| *plan == progress.plan);
        of_plan.for_each(|(_, earned)| bill.add_earned(earned));
        progress.bill = bill.charges().clone();
        Some(progress)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.end, Some((_, Outcome::Done { .. })))
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.end, Some((_, Outcome::Failed)))
    }

    /// The products that its records name.
    pub(super) fn products(&self) -> impl Iterator<Item = Digest> {
        let progress = self.progress.iter();
        progress.flat_map(|progress| {
            let earlier = match &progress.round.pass {
                Pass::Stage(stages) => stages.as_slice(),
                Pass::Sample | Pass::Refine(_) => &[],
            };
            let products = earlier.iter().flatten().chain(progress.products.values());
            products.map(|product| product.blake3).collect::<Vec<_>>()
        })
    }

    /// Whether it had more shards than its first round.
    pub(super) fn went_on(&self) -> bool {
        self.end.as_ref().is_some_and(|(view, _)| view.shards > self.job.plan.indices().end)
    }

    /// Whether every tile of a matrix job is here.
    pub(super) fn is_whole(&self, task: &Task) -> bool {
        let plan = self.job.plan.digest();
        (0..task.tile_count()).all(|tile| self.tiles.contains_key(&(plan, tile)))
    }

    /// The file of a whole result, as the hub's reader makes it; nothing when a tile is missing.
    pub(super) fn assembled(&self, task: &Task) -> Option<Vec<u8>> {
        let [rows, cols, _] = task.shape();
        let plan = self.job.plan.digest();
        let mut file = tessera_planners::npy_header(rows, cols, task.dtype());
        for row in 0..task.tiles()[0] {
            let tiles = task.tiles_of_row(row).0.map(|tile| self.tiles.get(&(plan, tile)));
            let tiles: Vec<_> = tiles.collect::<Option<_>>()?;
            file.extend(
                tessera_planners::npy_band(task, row, tiles).expect("tiles have the bytes of their place"),
            );
        }
        Some(file)
    }
}
