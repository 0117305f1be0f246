//! The bill of one job: what its client pays, and to whom it goes, to the microcredit.
//!
//! Double entry between project, escrow, providers and the hub. A home says what became final; nothing here knows
//! why. Amounts come from the plan, so no provider can inflate one. Sends and stores nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tessera_planners::Plan;
use tessera_protocol::credits::{Earned, Microcredits, price};
use tessera_protocol::id::{AgentId, Digest, ProviderId};
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::{ComputeUnits, ShardIndex, ShardRange};

use crate::Account;
use crate::planted::{Planted, Planting};
use crate::ranges::Ranges;

/// Who was paid for what. *Order*: by provider and agent id.
pub type Earnings = BTreeMap<(ProviderId, AgentId), Earned>;

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

    /// Every microcredit is in exactly one account.
    ///
    /// *Panics*: when not, or when more shards were paid than were planned.
    pub fn check(&self) {
        let paid: Microcredits = self.paid.values().map(Earned::amount).sum();
        let units: Microcredits = self.paid.values().map(|earned| earned.units).sum();
        assert_eq!(self.held, self.escrow + self.hub + self.refunded + paid, "credits appear or vanish");
        assert_eq!(self.held, price(self.planned, self.class), "the hold is not the price");
        assert_eq!(self.units, units, "units are charged that nobody was paid for");
        assert!(self.escrow >= Microcredits(0), "more was paid than was held");
        assert!(!self.closed || self.escrow == Microcredits(0), "a closed bill has an escrow");
    }
}

/// A job's bill on its home lane: what is durable or about to be, and what is final in memory alone.
#[derive(Clone, Debug)]
pub struct Bill {
    charges: Charges,
    /// Work on shards that no record says is done.
    owed: BTreeMap<ShardIndex, Vec<((ProviderId, AgentId), Earned)>>,
    pub(crate) planting: Planting,
}

impl Bill {
    /// Opens the bill of a new job, and holds the price of its first round.
    pub fn open(class: VerifyClass, plan: &Plan) -> Bill {
        let mut bill =
            Bill { charges: Charges::open(class), owed: BTreeMap::new(), planting: Planting::default() };
        bill.round(plan);
        bill
    }

    /// Goes on from what was written down.
    pub fn resume(charges: Charges) -> Bill {
        charges.check();
        Bill { charges, owed: BTreeMap::new(), planting: Planting::default() }
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

    /// An agent's partial of this shard is in the result. It counts once it is durable that the shard is done.
    pub fn shard_final(&mut self, index: ShardIndex, agent: AgentId, account: Account, cost: ComputeUnits) {
        let earned = Earned { shards: 1, units: units(cost), ..Earned::default() };
        self.owe(index, agent, account, earned);
    }

    /// An agent's second answer to this shard was of use. It counts once it is durable that the shard is done.
    pub fn check_done(&mut self, index: ShardIndex, agent: AgentId, account: Account, cost: ComputeUnits) {
        let earned = Earned { checks: 1, check_units: units(cost), ..Earned::default() };
        self.owe(index, agent, account, earned);
    }

    fn owe(&mut self, index: ShardIndex, agent: AgentId, account: Account, earned: Earned) {
        assert!(!self.charges.closed, "{index:?} is paid after the end");
        self.owed.entry(index).or_default().push(((account.provider, agent), earned));
    }

    /// The accounts for a record that says that these shards are done.
    pub fn when_done(&mut self, done: &Ranges) -> Charges {
        let is_done =
            |index: &ShardIndex| done.contains(*index) || self.planting.is(Planted::PayWhatIsNotDone);
        let indices: Vec<ShardIndex> = self.owed.keys().copied().filter(is_done).collect();
        for index in indices {
            for (who, earned) in self.owed.remove(&index).unwrap_or_default() {
                self.charges.pay(who, &earned);
            }
        }
        // Once for all of them: it looks at every agent that was paid.
        self.charges.check();
        self.charges.clone()
    }

    /// Who is owed for these shards, for a record of its own that says they are done.
    pub fn earned_in(&self, range: ShardRange) -> Earnings {
        let mut earnings = Earnings::new();
        if self.planting.is(Planted::ForgetThePayOfTiles) {
            return earnings;
        }
        let range = ShardIndex(range.start)..ShardIndex(range.end);
        for (who, earned) in self.owed.range(range).flat_map(|(_, owed)| owed) {
            earnings.entry(*who).or_default().add(earned);
        }
        earnings
    }

    /// Adds what records of their own said was earned, when a job is recovered.
    pub fn add_earned(&mut self, earnings: &Earnings) {
        earnings.iter().for_each(|(who, earned)| self.charges.pay(*who, earned));
    }

    /// The accounts of a job that ends now: everything final is paid, and the rest goes back to the project.
    pub fn close(&self) -> Charges {
        let mut charges = self.charges.clone();
        for (who, earned) in self.owed.values().flatten() {
            charges.pay(*who, earned);
        }
        assert!(charges.escrow >= Microcredits(0), "more was paid than was held");
        if !self.planting.is(Planted::KeepTheChange) {
            charges.refunded = core::mem::take(&mut charges.escrow);
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
        let owed: u64 = self.owed.values().flatten().map(|(_, earned)| earned.shards).sum();
        self.charges.shards() + owed
    }

    /// Every microcredit is in exactly one account, and no shard is paid twice.
    ///
    /// *Panics*: when not.
    pub fn check(&self) {
        self.charges.check();
        for (index, owed) in &self.owed {
            let shards: u64 = owed.iter().map(|(_, earned)| earned.shards).sum();
            assert!(shards <= 1, "{index:?} is paid {shards} times");
        }
    }
}

fn units(cost: ComputeUnits) -> Microcredits {
    Microcredits(i128::from(cost.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
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

    fn stranger(number: u8) -> (AgentId, Account) {
        (AgentId([number; 16]), Account::of_provider(ProviderId([number; 16])))
    }

    fn finish(bill: &mut Bill, plan: &Plan, index: u64, number: u8) {
        let shard = plan.shard(ShardIndex(index)).unwrap();
        let (agent, account) = stranger(number);
        bill.shard_final(shard.index, agent, account, shard.cost);
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
        let (agent, account) = stranger(2);
        bill.check_done(shard.index, agent, account, shard.cost);
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
        let mut again = Bill::resume(first);
        finish(&mut again, &plan, 5, 2);
        assert_eq!(again.close().shards(), 2);
    }

    #[test]
    fn what_is_earned_in_tiles_comes_back_from_their_records_alone() {
        let plan = plan();
        let mut bill = Bill::open(VerifyClass::Exact, &plan);
        let bare = bill.when_done(&Ranges::default());
        (0..4).for_each(|index| finish(&mut bill, &plan, index, index as u8));
        let tiles = [(0, 2), (2, 4)].map(|(start, end)| bill.earned_in(ShardRange { start, end }));
        let mut again = Bill::resume(bare);
        tiles.iter().for_each(|tile| again.add_earned(tile));
        assert_eq!(again.close(), bill.close());
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
