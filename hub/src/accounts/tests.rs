//! Documents of credits, made from a store.

use super::*;
use tessera_hub_core::{Account, Bill};
use tessera_planners::Plan;
use tessera_protocol::api::JobState;
use tessera_protocol::credits::Microcredits;
use tessera_protocol::id::AgentId;
use tessera_protocol::spec::{JobSpec, Priority, VerifyClass};
use tessera_protocol::unit::{ComputeUnits, ShardIndex};
use tessera_storage::{Commit, Engine, Memory};

use crate::quic::Identity;

fn plan() -> Plan {
    let text =
        r#"{"name":"n","workload":"monte_carlo","params":{"model":"pi","paths":10000,"shard_size":100}}"#;
    Plan::new(&JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap(), 0).unwrap()
}

fn view(number: u64) -> JobView {
    JobView {
        id: JobId::new(number, [0; 10]),
        name: "n".into(),
        project: "quant".into(),
        state: JobState::Done,
        manifest_digest: Digest::of(b"manifest"),
        verify: VerifyClass::Strict,
        priority: Priority::Batch,
        created_ms: UnixMillis(number),
        ended_ms: Some(UnixMillis(number + 5)),
        paths: 10_000,
        extends: None,
        cost: ComputeUnits(0),
        shards: 100,
        shards_done: 100,
        attempts: 0,
        checks: 1,
        mismatches: 0,
        recalled: 0,
        tainted: 0,
        provisional: 0,
        checks_skipped: 0,
        lanes: vec![100],
        digest: Some(Digest::of(b"result")),
        failure: None,
        waiting: None,
    }
}

/// All shards but the last are final; acme did three of four and checked one.
fn charges() -> Charges {
    let plan = plan();
    let mut bill = Bill::open(VerifyClass::Strict, &plan);
    for index in 0..plan.shards() - 1 {
        let shard = plan.shard(ShardIndex(index)).unwrap();
        let (number, name) = if index % 4 == 0 { (1, "bolt") } else { (2, "acme") };
        let account = Account::of_provider(ProviderId::of_name(name));
        bill.shard_final(shard.index, AgentId([number; 16]), account, shard.cost);
        if index == 0 {
            let acme = Account::of_provider(ProviderId::of_name("acme"));
            bill.check_done(shard.index, AgentId([2; 16]), acme, shard.cost);
        }
    }
    bill.close()
}

fn names() -> Names {
    ["acme", "bolt", "operator"].map(|name| (ProviderId::of_name(name), name.to_owned())).into()
}

/// A store in which jobs 1 to `jobs` ended.
fn store(jobs: u64) -> Memory {
    let store = Memory::default();
    let mut batch = tessera_storage::Batch::new();
    for name in ["acme", "bolt"] {
        let name = name.parse().unwrap();
        let key = tessera_storage::Key::Provider(tessera_protocol::credits::ProviderName::id(&name));
        batch.put(key, records::provider_bytes(&name));
    }
    assert_eq!(store.commit(batch).unwrap(), Commit::Done);
    for number in 1..=jobs {
        let view = Box::new(JobView { state: JobState::Failed, ..view(number) });
        let (job, bill) = (view.id, Box::new(charges()));
        let record = tessera_hub_core::Record::JobEnded {
            job,
            view,
            outcome: tessera_hub_core::Outcome::Failed,
            bill,
        };
        assert_eq!(store.commit(records::batch_of(&record)).unwrap(), Commit::Done);
    }
    store
}

#[test]
fn the_postings_of_a_bill_leave_nothing_in_the_escrow_and_nothing_out_of_nothing() {
    let charges = charges();
    let bill = bill(&view(1), &charges, &names());
    let mut accounts: BTreeMap<&str, i128> = BTreeMap::new();
    for posting in &bill.postings {
        assert!(posting.amount > Microcredits(0), "{posting:?}");
        *accounts.entry(&posting.debit).or_default() -= posting.amount.0;
        *accounts.entry(&posting.credit).or_default() += posting.amount.0;
    }
    let escrow = format!("escrow/{}", bill.job);
    assert_eq!(accounts.values().sum::<i128>(), 0);
    assert_eq!(accounts[escrow.as_str()], 0);
    assert_eq!(accounts["project/quant"], -bill.charged.0);
    assert_eq!(accounts["hub/fee"], bill.hub.0);
    let of = |name: &str| -> i128 {
        bill.paid.iter().filter(|line| line.provider == name).map(|line| line.amount.0).sum()
    };
    assert_eq!((accounts["provider/acme"], accounts["provider/bolt"]), (of("acme"), of("bolt")));
}

#[test]
fn a_settlement_pays_each_microcredit_once_however_often_it_is_made() {
    let store = store(3);
    let until = UnixMillis(1_000);
    let (mut paid, mut rounds) = (Microcredits(0), 0);
    loop {
        let snapshot = store.snapshot().unwrap();
        let settlement = next_settlement(&*snapshot, until).unwrap();
        if settlement.total == Microcredits(0) {
            break;
        }
        rounds += 1;
        assert_eq!(settlement.number, rounds);
        for statement in &settlement.statements {
            assert!(statement.totals.balances() && statement.lines.iter().all(|line| line.totals.balances()));
        }
        paid += settlement.total;
        assert_eq!(store.commit(settlement_deed(&settlement).batch).unwrap(), Commit::Done);
    }
    assert_eq!(rounds, 1, "nothing is due after a settlement");
    let snapshot = store.snapshot().unwrap();
    let (mut gross, mut held, mut settled) = (Microcredits(0), Microcredits(0), Microcredits(0));
    for name in ["acme", "bolt"] {
        let totals = statement(&*snapshot, name, UnixMillis(u64::MAX)).unwrap().totals;
        assert!(totals.balances() && totals.held > Microcredits(0));
        (gross, held, settled) = (gross + totals.gross, held + totals.held, settled + totals.settled);
    }
    assert_eq!((settled, gross), (paid, paid + held));
}

#[test]
fn a_removal_forfeits_the_hold_and_nothing_of_the_others() {
    let store = store(2);
    let acme = ProviderId::of_name("acme");
    let before =
        |name: &str| statement(&*store.snapshot().unwrap(), name, UnixMillis(u64::MAX)).unwrap().totals;
    let (of_acme, of_bolt) = (before("acme"), before("bolt"));
    let mut batch = tessera_storage::Batch::new();
    records::put_removal(&mut batch, acme, AgentId([2; 16]), UnixMillis(500));
    assert_eq!(store.commit(batch).unwrap(), Commit::Done);
    let after = before("acme");
    assert_eq!(after.forfeited, of_acme.held);
    assert!(after.balances() && after.payable < of_acme.payable);
    assert_eq!(before("bolt"), of_bolt);
}

fn signed(receipt: Receipt, identity: &Identity) -> Vec<u8> {
    let signature = signature_text(&identity.sign(&receipt.message().unwrap()));
    let hub_key = Digest(identity.public_key().0);
    canonical::to_vec(&SignedReceipt { receipt, hub_key, signature }).unwrap()
}

fn verifies(key: &Digest, message: &[u8], signature: &[u8]) -> bool {
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key.0);
    key.verify(message, signature).is_ok()
}

#[test]
fn a_receipt_is_proven_by_the_hubs_key_alone_and_every_flipped_byte_is_refused() {
    use tessera_protocol::receipt::check;
    let identity = Identity::generate().unwrap();
    let key = Some(Digest(identity.public_key().0));
    let receipts = [
        job_receipt(&view(1), &charges(), &names()),
        provider_receipt(&view(1), &charges(), "acme").unwrap(),
    ];
    for receipt in receipts {
        let bytes = signed(receipt.clone(), &identity);
        assert_eq!(check(&bytes, key, verifies).unwrap().receipt, receipt);
        assert!(check(&bytes, Some(Digest([1; 32])), verifies).is_err());
        for at in 0..bytes.len() {
            for bit in [1, 0x20] {
                let mut changed = bytes.clone();
                changed[at] ^= bit;
                assert!(check(&changed, None, verifies).is_err(), "byte {at}");
            }
        }
        let longer = [&bytes[..], b"\n"].concat();
        assert!(check(&longer, None, verifies).is_err());
    }
}

#[test]
fn a_receipt_whose_sums_do_not_add_up_is_refused_although_it_is_signed() {
    use tessera_protocol::receipt::{ReceiptError, check};
    let identity = Identity::generate().unwrap();
    let Receipt::Job(mut receipt) = job_receipt(&view(1), &charges(), &names()) else { panic!() };
    receipt.charged += Microcredits(1);
    receipt.refunded -= Microcredits(1);
    let bytes = signed(Receipt::Job(receipt), &identity);
    assert_eq!(check(&bytes, None, verifies), Err(ReceiptError::DoesNotAdd));
}

#[test]
fn a_provider_that_did_nothing_has_no_receipt() {
    assert_eq!(provider_receipt(&view(1), &charges(), "nobody"), None);
}
