//! The auditor: who was paid for what, added up again from the records as they reach the disk.
//!
//! Shares no arithmetic with the hub's ledger: it knows the prices of the book, and counts shards one by one.

use std::collections::{BTreeMap, BTreeSet};

use tessera_hub_core::{Charges, Outcome, Payment, Record};
use tessera_protocol::api::JobView;
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::receipt::Service;
use tessera_protocol::spec::VerifyClass;

use super::checker::Violation;

/// The payments of every job, by the page they are on.
#[derive(Debug, Default)]
pub(super) struct Books {
    jobs: BTreeMap<JobId, Book>,
}

#[derive(Debug)]
struct Book {
    class: VerifyClass,
    /// Shards of a tile, where results are tiles.
    panels: Option<u64>,
    pages: BTreeMap<u64, Vec<Payment>>,
}

type Judged = Result<(), &'static str>;

fn holds(is_so: bool, otherwise: &'static str) -> Judged {
    if is_so { Ok(()) } else { Err(otherwise) }
}

impl Books {
    /// Judges a record that is being written.
    pub(super) fn judge(&mut self, record: &Record) -> Result<(), Violation> {
        let (id, judged) = match record {
            Record::JobAccepted { job, .. } => {
                let class = job.manifest.spec().verify;
                let panels = job.plan.matrix().map(|task| task.panels());
                self.jobs.entry(job.id).or_insert(Book { class, panels, pages: BTreeMap::new() });
                return Ok(());
            }
            Record::JobProgressed { job, progress } => {
                let done = progress.done.iter().flat_map(|range| range.start..range.end).collect();
                (*job, self.book(*job, |book| book.progressed(&done, &progress.view, &progress.bill)))
            }
            Record::TileReduced { job, tile, earned, .. } => {
                (*job, self.book(*job, |book| book.tile(*tile, earned)))
            }
            Record::JobEnded { job, view, outcome, bill, unchecked: _ } => {
                let is_done = matches!(outcome, Outcome::Done { .. });
                (*job, self.book(*job, |book| book.ended(is_done, view, bill)))
            }
            Record::Disputed(_) | Record::Recalled { .. } | Record::StandingsChanged { .. } => {
                return Ok(());
            }
        };
        judged.map_err(|how| Violation::Books(id, how))
    }

    fn book(&mut self, job: JobId, judge: impl FnOnce(&mut Book) -> Judged) -> Judged {
        self.jobs.get_mut(&job).map_or(Err("a job is paid for that was never accepted"), judge)
    }
}

impl Book {
    /// What the client pays: tenths of a microcredit up to whole ones.
    fn price(&self, units: i128) -> i128 {
        let tenths = match self.class {
            VerifyClass::Standard => 11,
            VerifyClass::Strict => 12,
            VerifyClass::Exact => 21,
        };
        (units * tenths + 9) / 10
    }

    fn turn(&mut self, bill: &Charges) {
        self.pages.extend(bill.fresh.iter().map(|(page, payments)| (*page, payments.clone())));
    }

    fn payments(&self) -> impl Iterator<Item = &Payment> {
        self.pages.values().flatten()
    }

    /// The shards that were paid as part of the result.
    fn shards(&self) -> Result<BTreeSet<u64>, &'static str> {
        let mut shards = BTreeSet::new();
        let mut once = self.payments().filter(|payment| payment.service == Service::Shard);
        match once.all(|payment| shards.insert(payment.index.0)) {
            true => Ok(shards),
            false => Err("a shard is paid twice"),
        }
    }

    fn tile(&mut self, tile: u64, earned: &[Payment]) -> Judged {
        let Some(panels) = self.panels else { return Err("a job without tiles is paid for one") };
        let of_result = earned.iter().filter(|payment| payment.service == Service::Shard);
        let paid: Vec<u64> = of_result.map(|payment| payment.index.0).collect();
        let shards: Vec<u64> = (tile * panels..(tile + 1) * panels).collect();
        holds(paid == shards, "the record of a tile does not pay for its shards, each once")?;
        self.pages.insert(tile, earned.to_vec());
        Ok(())
    }

    fn progressed(&mut self, done: &BTreeSet<u64>, view: &JobView, bill: &Charges) -> Judged {
        self.turn(bill);
        holds(!bill.closed && bill.refunded.0 == 0, "a bill is closed before its job ended")?;
        let of_record: u64 = bill.paid.values().map(|earned| earned.shards).sum();
        let shards = self.shards()?;
        if self.panels.is_some() {
            holds(bill.fresh.is_empty(), "a record pays for shards whose tile it does not write")?;
            holds(of_record <= shards.len() as u64, "more is paid than the tiles' records say")?;
        } else {
            holds(shards == *done, "a record pays for other shards than it says are done")?;
            self.adds_up(bill)?;
        }
        self.balances(view, bill)
    }

    fn ended(&mut self, is_done: bool, view: &JobView, bill: &Charges) -> Judged {
        self.turn(bill);
        let shards = self.shards()?;
        self.adds_up(bill)?;
        self.balances(view, bill)?;
        holds(bill.closed && bill.escrow.0 == 0, "a job ended and money is left in its escrow")?;
        let charged = self.price(bill.units.0);
        holds(bill.held.0 == charged + bill.refunded.0, "what the client did not pay did not come back")?;
        if is_done {
            holds(shards.len() as u64 == view.shards, "a finished job has shards that nobody was paid for")?;
            holds(bill.units.0 == i128::from(view.cost.0), "a finished job was charged for other units")?;
        }
        Ok(())
    }

    /// The bill says of each agent what the pages say of it.
    fn adds_up(&self, bill: &Charges) -> Judged {
        let mut sums: BTreeMap<AgentId, [i128; 4]> = BTreeMap::new();
        for payment in self.payments() {
            let at = if payment.service == Service::Shard { 0 } else { 2 };
            let sum = sums.entry(payment.agent).or_default();
            sum[at] += 1;
            sum[at + 1] += i128::from(payment.cost.0);
        }
        let billed = bill.paid.iter().map(|((_, agent), earned)| {
            let counts = [earned.shards, earned.checks].map(i128::from);
            (*agent, [counts[0], earned.units.0, counts[1], earned.check_units.0])
        });
        holds(sums == billed.collect(), "the bill pays an agent for other work than the pages do")
    }

    /// Every microcredit of the hold is in one place.
    fn balances(&self, view: &JobView, bill: &Charges) -> Judged {
        let units: i128 = bill.paid.values().map(|earned| earned.units.0).sum();
        let checks: i128 = bill.paid.values().map(|earned| earned.check_units.0).sum();
        let charged = self.price(units);
        holds(bill.units.0 == units, "units are charged that nobody was paid for")?;
        holds(bill.held.0 == self.price(i128::from(view.cost.0)), "the hold is not the price of the plan")?;
        holds(bill.hub.0 == charged - units - checks, "the hub's share is not what is left of the price")?;
        let placed = bill.escrow.0 + bill.refunded.0 + charged;
        holds(bill.held.0 == placed && bill.escrow.0 >= 0, "a microcredit is in two places or in none")
    }
}
