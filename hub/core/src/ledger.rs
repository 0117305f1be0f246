//! The bill of one job: what its client pays, and to whom it goes, to the microcredit.
//!
//! Double entry between project, escrow, providers and the hub. A home says what became final; nothing here knows
//! why. Amounts come from the plan, so no provider can inflate one. Sends and stores nothing.
//!
//! The bill is cumulative and small; what of it a provider can be shown shard by shard goes to pages, each written
//! once, in the record that pays for what is on it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use tessera_planners::Plan;
use tessera_protocol::credits::{Earned, Microcredits, price};
use tessera_protocol::id::{AgentId, Digest, ProviderId};
use tessera_protocol::receipt::Service;
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::{ComputeUnits, ShardIndex, ShardRange};

use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;

mod owed;

use owed::Owed;

/// Who was paid for what. *Order*: by provider and agent id.
pub type Earnings = BTreeMap<(ProviderId, AgentId), Earned>;

/// Payments of which no record is known to be durable, above which nothing new should be granted: what agents
/// answered while the store refuses writes.
pub const UNWRITTEN_MAX: usize = 1 << 18;

/// An answer that is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Who earns it.
    pub provider: ProviderId,
    /// Who gave it.
    pub agent: AgentId,
    /// Whether it is the shard's or a second one.
    pub service: Service,
    /// To which shard.
    pub index: ShardIndex,
    /// Of the partial that was believed.
    pub digest: Digest,
    /// What the plan says that it takes.
    pub cost: ComputeUnits,
}

impl Payment {
    fn to(&self) -> (ProviderId, AgentId) {
        (self.provider, self.agent)
    }

    fn earned(&self) -> Earned {
        let units = units(self.cost);
        match self.service {
            Service::Shard => Earned { shards: 1, units, ..Earned::default() },
            Service::Check => Earned { checks: 1, check_units: units, ..Earned::default() },
        }
    }
}

/// What all of these come to, by who earned it.
pub fn earnings(payments: &[Payment]) -> Earnings {
    let mut earnings = Earnings::new();
    for payment in payments {
        earnings.entry(payment.to()).or_default().add(&payment.earned());
    }
    earnings
}

/// Payments by the page that they go to.
pub type Pages = BTreeMap<u64, Vec<Payment>>;

/// A job's accounts at one moment, as they are written down: all that was ever moved, so that writing it again
/// pays nobody twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charges {
    /// What a unit costs the client.
    pub class: VerifyClass,
    /// The plan of the last round.
    pub plan: Digest,
    /// Units of the rounds planned so far.
    pub planned: Microcredits,
    /// Units of final shards.
    pub units: Microcredits,
    /// Moved from the project to the escrow.
    pub held: Microcredits,
    /// In the escrow.
    pub escrow: Microcredits,
    /// Moved to the hub, less what it paid for checks.
    pub hub: Microcredits,
    /// Moved back to the project.
    pub refunded: Microcredits,
    /// Moved to providers.
    pub paid: Earnings,
    /// Whether the job ended.
    pub closed: bool,
    /// Pages that were filled one after the other. Those of a matrix are numbered like its tiles and not counted.
    pub pages: u64,
    /// The pages that the record of these accounts writes: payments that no durable record has. Not kept with them.
    pub fresh: Pages,
}

impl Charges {
    /// The accounts of a job of which this much is planned and nothing paid, whatever is done: a former hub sent no
    /// bills, and what it saw done goes back to the project.
    pub fn planned(class: VerifyClass, plan: Digest, planned: ComputeUnits) -> Charges {
        let mut charges = Charges::open(class);
        (charges.plan, charges.planned) = (plan, units(planned));
        charges.held = price(charges.planned, class);
        charges.escrow = charges.held;
        charges
    }

    /// The same hold with nothing paid, for a job whose payments lie in records of their own.
    pub fn unpaid(&self) -> Charges {
        let (plan, planned, held) = (self.plan, self.planned, self.held);
        Charges { plan, planned, held, escrow: held, ..Charges::open(self.class) }
    }

    fn open(class: VerifyClass) -> Charges {
        let zero = Microcredits(0);
        Charges {
            class,
            plan: Digest([0; 32]),
            planned: zero,
            units: zero,
            held: zero,
            escrow: zero,
            hub: zero,
            refunded: zero,
            paid: Earnings::new(),
            closed: false,
            pages: 0,
            fresh: Pages::new(),
        }
    }

    /// What the client pays for what is final.
    pub fn charged(&self) -> Microcredits {
        price(self.units, self.class)
    }

    /// Shards that were paid.
    pub fn shards(&self) -> u64 {
        self.paid.values().map(|earned| earned.shards).sum()
    }

    /// Adds work that is final: escrow to providers and hub, and hub to providers for checks.
    fn pay(&mut self, (provider, agent): (ProviderId, AgentId), earned: &Earned) {
        let before = self.charged();
        self.units += earned.units;
        let charge = self.charged() - before;
        self.escrow -= charge;
        self.hub += charge - earned.amount();
        self.paid.entry((provider, agent)).or_default().add(earned);
    }

    /// The same for many payments: once for those to one agent in a row, which comes to the same.
    fn pay_all(&mut self, payments: &[Payment]) {
        for to_one in payments.chunk_by(|one, next| one.to() == next.to()) {
            let mut sum = Earned::default();
            to_one.iter().for_each(|payment| sum.add(&payment.earned()));
            self.pay(to_one[0].to(), &sum);
        }
    }

    /// Takes payments onto the next page.
    fn fill(&mut self, payments: Vec<Payment>) {
        if !payments.is_empty() {
            self.fresh.insert(self.pages, payments);
            self.pages += 1;
        }
    }

    /// Where a microcredit is in no account or in two; nothing while the accounts balance.
    pub fn imbalance(&self) -> Option<Imbalance> {
        let paid: Microcredits = self.paid.values().map(Earned::amount).sum();
        let units: Microcredits = self.paid.values().map(|earned| earned.units).sum();
        if self.held != self.escrow + self.hub + self.refunded + paid {
            Some(Imbalance::NotConserved)
        } else if self.held != price(self.planned, self.class) {
            Some(Imbalance::HoldIsNotPrice)
        } else if self.units != units {
            Some(Imbalance::UnpaidUnits)
        } else if self.escrow < Microcredits(0) {
            Some(Imbalance::Overpaid)
        } else if self.closed && self.escrow != Microcredits(0) {
            Some(Imbalance::EscrowAfterEnd)
        } else {
            None
        }
    }

    /// Every microcredit is in exactly one account.
    ///
    /// *Panics*: when not, or when more shards were paid than were planned.
    pub fn check(&self) {
        if let Some(imbalance) = self.imbalance() {
            panic!("{imbalance}");
        }
    }
}

/// How a bill does not balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imbalance {
    /// The hold is not escrow, hub, refund and payments together.
    NotConserved,
    /// The hold is not the price of what is planned.
    HoldIsNotPrice,
    /// The units charged are not the units paid.
    UnpaidUnits,
    /// The escrow is below zero.
    Overpaid,
    /// The job ended and something is left in the escrow.
    EscrowAfterEnd,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Imbalance::NotConserved => "credits appear or vanish",
            Imbalance::HoldIsNotPrice => "the hold is not the price",
            Imbalance::UnpaidUnits => "units are charged that nobody was paid for",
            Imbalance::Overpaid => "more was paid than was held",
            Imbalance::EscrowAfterEnd => "a closed bill has an escrow",
        })
    }
}

/// A job's bill on its home lane: what is durable or about to be, and what is final in memory alone.
#[derive(Clone, Debug)]
pub struct Bill {
    charges: Charges,
    /// Work on shards that no record says is done.
    owed: Owed,
    /// Paid in a record that is not known to be durable; of a matrix, nothing.
    unwritten: Vec<Payment>,
    /// Shards of a tile, where results are tiles.
    panels: Option<u64>,
    pub(crate) planting: Planting,
}

impl Bill {
    /// Opens the bill of a new job, and holds the price of its first round.
    pub fn open(class: VerifyClass, plan: &Plan) -> Bill {
        let mut bill = Bill::resume(Charges::open(class), plan);
        bill.round(plan);
        bill
    }

    /// Goes on from what was written down.
    pub fn resume(charges: Charges, plan: &Plan) -> Bill {
        charges.check();
        let panels = plan.matrix().map(|task| task.panels().max(1));
        let charges = Charges { fresh: Pages::new(), ..charges };
        let planting = Planting::default();
        Bill { charges, owed: Owed::new(panels.is_some()), unwritten: Vec::new(), panels, planting }
    }

    /// Holds the price of another round. Project to escrow.
    pub fn round(&mut self, plan: &Plan) {
        let charges = &mut self.charges;
        charges.plan = plan.digest();
        charges.planned += units(plan.cost());
        let more = price(charges.planned, charges.class) - charges.held;
        charges.held += more;
        charges.escrow += more;
        charges.check();
    }

    /// An answer is in the result, or was of use beside it. It counts once it is durable that its shard is done.
    pub fn owe(&mut self, payment: Payment) {
        assert!(!self.charges.closed, "{:?} is paid after the end", payment.index);
        self.owed.push(payment);
    }

    /// The accounts for a record that says that these shards are done, with the pages that it writes.
    pub fn when_done(&mut self, done: &Ranges) -> Charges {
        let all = self.planting.is(Planted::PayWhatIsNotDone);
        let unpaid = self.unwritten.len();
        self.owed.move_done(|index| all || done.contains(index), &mut self.unwritten);
        self.charges.pay_all(&self.unwritten[unpaid..]);
        // Once for all of them: it looks at every agent that was paid.
        self.charges.check();
        let mut charges = self.charges.clone();
        charges.fill(self.unwritten.clone());
        charges
    }

    /// The record of the accounts that [`Bill::when_done`] gave last is durable, or is not: then what it was to write
    /// goes to the same page again with what follows.
    pub fn written(&mut self, succeeded: bool) {
        if succeeded && !self.unwritten.is_empty() {
            self.charges.pages += 1;
        }
        if succeeded || self.planting.is(Planted::LoseUnwrittenPages) {
            self.unwritten.clear();
        }
    }

    /// Whether so much waits for the store that nothing should be added.
    pub fn is_full(&self) -> bool {
        self.unwritten.len() >= UNWRITTEN_MAX
    }

    /// What is owed for these shards, for a record of its own that says they are done.
    pub fn owed_in(&self, range: ShardRange) -> Vec<Payment> {
        if self.planting.is(Planted::ForgetThePayOfTiles) {
            return Vec::new();
        }
        self.owed.of(range)
    }

    /// The answers to these shards are lost, and count once they are given again.
    pub fn disown(&mut self, range: ShardRange) {
        self.owed.take_of(range);
    }

    /// The record of its own is durable that pays for these shards.
    pub fn tile_written(&mut self, range: ShardRange) {
        self.charges.pay_all(&self.owed.take_of(range));
    }

    /// Adds what records of their own said was earned, when a job is recovered.
    pub fn add_earned(&mut self, earnings: &Earnings) {
        earnings.iter().for_each(|(who, earned)| self.charges.pay(*who, earned));
    }

    /// The accounts of a job that ends now: everything final is paid, and the rest goes back to the project.
    pub fn close(&self) -> Charges {
        let mut charges = self.charges.clone();
        let owed: Vec<Payment> = self.owed.iter().copied().collect();
        charges.pay_all(&owed);
        match self.panels {
            None => charges.fill([&self.unwritten[..], &owed].concat()),
            // A tile's own record may be on its way: this one then writes the same page anew.
            Some(panels) => {
                for payment in owed {
                    charges.fresh.entry(payment.index.0 / panels).or_default().push(payment);
                }
            }
        }
        assert!(charges.escrow >= Microcredits(0), "more was paid than was held");
        let rest = core::mem::take(&mut charges.escrow);
        match self.planting.is(Planted::KeepTheChange) {
            true => charges.hub += rest,
            false => charges.refunded = rest,
        }
        charges.closed = true;
        charges.check();
        charges
    }

    /// The accounts as last written down, or about to be.
    pub fn charges(&self) -> &Charges {
        &self.charges
    }

    /// Shards that are final, durable or not.
    pub fn shards(&self) -> u64 {
        let owed: u64 = self.owed.iter().map(|payment| payment.earned().shards).sum();
        self.charges.shards() + owed
    }

    /// Every microcredit is in exactly one account, and no shard is paid twice.
    ///
    /// *Panics*: when not.
    pub fn check(&self) {
        self.charges.check();
        self.owed.check();
    }
}

fn units(cost: ComputeUnits) -> Microcredits {
    Microcredits(i128::from(cost.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;
    use tessera_protocol::spec::JobSpec;

    const CLASSES: [VerifyClass; 3] = [VerifyClass::Standard, VerifyClass::Strict, VerifyClass::Exact];

    /// Ten shards of 100 paths.
    fn plan() -> Plan {
        let text = format!(
            r#"{{"name":"n","workload":"monte_carlo","params":{{"model":"pi","paths":{},"shard_size":100}}}}"#,
            999
        );
        let manifest = JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap();
        Plan::new(&manifest, 0).unwrap()
    }

    fn payment(plan: &Plan, index: u64, number: u8, service: Service) -> Payment {
        let (provider, agent) = (ProviderId([number; 16]), AgentId([number; 16]));
        let shard = plan.shard(ShardIndex(index)).unwrap();
        Payment {
            provider,
            agent,
            service,
            index: shard.index,
            digest: Digest([index as u8; 32]),
            cost: shard.cost,
        }
    }

    fn finish(bill: &mut Bill, plan: &Plan, index: u64, number: u8) {
        bill.owe(payment(plan, index, number, Service::Shard));
        bill.check();
    }

    #[test]
    fn the_client_pays_the_price_the_providers_get_the_units_and_nothing_is_left() {
        for class in CLASSES {
            let plan = plan();
            let mut bill = Bill::open(class, &plan);
            (0..plan.shards()).for_each(|index| finish(&mut bill, &plan, index, (index % 3) as u8));
            let charges = bill.close();
            let total = units(plan.cost());
            assert_eq!((charges.units, charges.charged()), (total, price(total, class)));
            assert_eq!((charges.held, charges.refunded), (price(total, class), Microcredits(0)));
            let paid: Microcredits = charges.paid.values().map(Earned::amount).sum();
            assert_eq!((paid, charges.hub), (total, price(total, class) - total));
            assert_eq!(charges.shards(), plan.shards());
        }
    }

    #[test]
    fn paying_one_by_one_or_all_at_once_moves_the_same_microcredits() {
        for class in CLASSES {
            // Costs of which a tenth is no whole microcredit.
            for seed in 0..100_u64 {
                let payment = |step: u64| {
                    let random = (seed * 1_000 + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                    let number = (random % 3) as u8;
                    let service = if random.is_multiple_of(5) { Service::Check } else { Service::Shard };
                    Payment {
                        provider: ProviderId([number / 2; 16]),
                        agent: AgentId([number; 16]),
                        service,
                        index: ShardIndex(step),
                        digest: Digest([0; 32]),
                        cost: ComputeUnits(1 + random % 97),
                    }
                };
                let payments: Vec<Payment> = (0..50).map(payment).collect();
                let (mut each, mut all) = (Charges::open(class), Charges::open(class));
                payments.iter().for_each(|payment| each.pay(payment.to(), &payment.earned()));
                all.pay_all(&payments);
                assert_eq!(each, all, "{class:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn what_was_not_computed_goes_back() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        finish(&mut bill, &plan, 3, 1);
        let charges = bill.close();
        let one = units(plan.shard(ShardIndex(3)).unwrap().cost);
        assert_eq!(charges.charged(), price(one, VerifyClass::Standard));
        assert_eq!(charges.refunded, charges.held - charges.charged());
    }

    #[test]
    fn a_check_is_paid_out_of_the_hubs_share_even_where_that_is_less() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        finish(&mut bill, &plan, 0, 1);
        let shard = plan.shard(ShardIndex(0)).unwrap();
        bill.owe(payment(&plan, 0, 2, Service::Check));
        let charges = bill.close();
        let cost = units(shard.cost);
        assert_eq!(charges.charged(), price(cost, VerifyClass::Standard), "the client pays no more for it");
        assert_eq!(charges.hub, price(cost, VerifyClass::Standard) - cost - cost);
        assert!(charges.hub < Microcredits(0));
    }

    #[test]
    fn only_what_a_record_says_is_done_is_paid_in_it() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        finish(&mut bill, &plan, 0, 1);
        finish(&mut bill, &plan, 5, 1);
        let first = bill.when_done(&Ranges::of(ShardRange { start: 0, end: 1 }));
        assert_eq!((first.shards(), bill.shards()), (1, 2));
        // The hub dies here: shard 5 is computed again, by another, and paid once.
        let mut again = Bill::resume(first, &plan);
        finish(&mut again, &plan, 5, 2);
        assert_eq!(again.close().shards(), 2);
    }

    fn shards_of(pages: &Pages) -> Vec<(u64, Vec<u64>)> {
        let shards = |payments: &Vec<Payment>| payments.iter().map(|payment| payment.index.0).collect();
        pages.iter().map(|(page, payments)| (*page, shards(payments))).collect()
    }

    #[test]
    fn what_a_refused_record_was_to_write_goes_to_the_same_page_again_and_a_durable_page_is_not_written_again()
     {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        let all = Ranges::of(plan.indices());
        finish(&mut bill, &plan, 0, 1);
        assert_eq!(shards_of(&bill.when_done(&all).fresh), [(0, vec![0])]);
        bill.written(false);
        finish(&mut bill, &plan, 1, 1);
        let second = bill.when_done(&all);
        assert_eq!((shards_of(&second.fresh), second.pages), (vec![(0, vec![0, 1])], 1));
        bill.written(true);
        assert!(bill.when_done(&all).fresh.is_empty());
        bill.written(true);
        finish(&mut bill, &plan, 2, 1);
        assert_eq!(shards_of(&bill.when_done(&all).fresh), [(1, vec![2])]);
        // The job ends while that is on its way.
        finish(&mut bill, &plan, 3, 1);
        let end = bill.close();
        assert_eq!((shards_of(&end.fresh), end.pages), (vec![(1, vec![2, 3])], 2));
    }

    #[test]
    fn what_is_earned_in_tiles_comes_back_from_their_records_alone() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Exact, &plan);
        let bare = bill.when_done(&Ranges::default());
        (0..4).for_each(|index| finish(&mut bill, &plan, index, index as u8));
        let tiles = [(0, 2), (2, 4)].map(|(start, end)| ShardRange { start, end });
        let mut again = Bill::resume(bare, &plan);
        for tile in tiles {
            again.add_earned(&earnings(&bill.owed_in(tile)));
            bill.tile_written(tile);
        }
        assert_eq!(again.close(), bill.close());
        assert!(bill.close().fresh.is_empty(), "it is on the tiles' pages");
    }

    #[test]
    fn another_round_holds_its_own_price_and_rounds_once() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        bill.round(&plan);
        let twice = Microcredits(2 * i128::from(plan.cost().0));
        assert_eq!(bill.close().held, price(twice, VerifyClass::Standard));
    }

    #[test]
    #[should_panic(expected = "more was paid than was held")]
    fn paying_more_shards_than_were_planned_is_found() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        (0..plan.shards()).for_each(|index| finish(&mut bill, &plan, index, 1));
        bill.when_done(&Ranges::of(plan.indices()));
        finish(&mut bill, &plan, 0, 1);
        bill.close();
    }

    #[test]
    #[should_panic(expected = "is paid 2 times")]
    fn paying_one_shard_twice_is_found() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Standard, &plan);
        finish(&mut bill, &plan, 0, 1);
        finish(&mut bill, &plan, 0, 2);
    }
}
