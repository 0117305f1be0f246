//! The simulated store: commits in order, loses what was not committed when the hub crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tessera_hub_core::ledger::earnings;
use tessera_hub_core::ranges::Ranges;
use tessera_hub_core::record::{Unchecked, refuted_by};
use tessera_hub_core::standing::StandingRecord;
use tessera_hub_core::{Bill, NewJob, Outcome, Payment, Progress, Record};
use tessera_planners::Pass;
use tessera_protocol::api::JobView;
use tessera_protocol::id::{AgentId, Digest, JobId};
use tessera_protocol::matrix::Task;
use tessera_protocol::unit::ShardRange;

use super::books::Books;

/// What survives a crash.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) jobs: BTreeMap<JobId, Stored>,
    keys: BTreeMap<(String, String), JobId>,
    /// Who was proven wrong about which job.
    pub(super) refuted: BTreeSet<(JobId, AgentId)>,
    pub(super) standings: BTreeMap<AgentId, StandingRecord>,
    /// Who was paid for what.
    pub(super) books: Books,
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
    earned: BTreeMap<(Digest, u64), Vec<Payment>>,
    pub(super) end: Option<(JobView, Outcome)>,
    /// What of its result nobody checked.
    unchecked: Unchecked,
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
                let (progress, end, unchecked) = (None, None, Unchecked::default());
                self.jobs.insert(id, Stored { job, accepted, progress, tiles, earned, end, unchecked });
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
            Record::Disputed(_) | Record::Recalled { .. } => {}
            Record::StandingsChanged { agents, proofs, .. } => {
                for proof in &proofs {
                    assert!(proof.1.believed.is_some(), "nobody is proven wrong by nothing");
                    self.refuted.extend(refuted_by(proof).map(|(agent, _)| (proof.0, agent)));
                }
                self.standings.extend(agents.into_iter().map(|record| (record.agent, record)));
                self.trace();
            }
            Record::JobEnded { job, view, outcome, bill, unchecked } => {
                if let Some(stored) = self.jobs.get_mut(&job) {
                    assert!(stored.end.is_none(), "{job} ended twice");
                    bill.check();
                    assert_eq!(bill.held, bill.charged() + bill.refunded, "{job}: what the client paid");
                    assert!(bill.closed, "{job} ended with an open bill");
                    if let Outcome::Done { .. } = outcome {
                        assert_eq!(bill.shards(), view.shards, "{job}: shards that were paid");
                        assert_eq!(bill.units.0, i128::from(view.cost.0), "{job}: units that were paid");
                    }
                    stored.end = Some((*view, outcome));
                    stored.unchecked = unchecked;
                }
                self.trace();
            }
        }
        Commit::Done
    }

    /// Tells of jobs that ended what is known of their agents since, as the hub's tracer does. *Order*: by age, as
    /// taint is handed on to jobs that extend one.
    fn trace(&mut self) {
        let proven = |agent: &AgentId| self.standings.get(agent).is_some_and(|record| record.proven);
        let mut tainted = BTreeMap::new();
        for (id, stored) in &mut self.jobs {
            let Some((view, Outcome::Done { .. })) = &mut stored.end else { continue };
            let base = stored.job.base.as_ref().and_then(|base| tainted.get(&base.job)).copied();
            let (_, more) = stored.unchecked.taint(base.unwrap_or(0), proven);
            view.tainted += more;
            tainted.insert(*id, view.tainted);
        }
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
        let mut bill = Bill::resume(progress.bill.unpaid(), &self.job.plan);
        let of_plan = self.earned.iter().filter(|((plan, _), _)| *plan == progress.plan);
        of_plan.for_each(|(_, earned)| bill.add_earned(&earnings(earned)));
        progress.bill = bill.charges().clone();
        Some(progress)
    }

    pub(super) fn has_tile(&self, plan: Digest, tile: u64) -> bool {
        self.tiles.contains_key(&(plan, tile))
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
