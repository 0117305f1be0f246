//! Documents of credits, made from a store.

use super::*;
use tessera_hub_core::{Bill, Payment};
use tessera_planners::Plan;
use tessera_protocol::api::JobState;
use tessera_protocol::credits::Microcredits;
use tessera_protocol::id::AgentId;
use tessera_protocol::receipt::{self, LineError, ProofError, Service, check};
use tessera_protocol::spec::{JobSpec, VerifyClass};
use tessera_protocol::unit::ShardIndex;
use tessera_storage::{Commit, Engine, Memory};

use super::fixture::view;
use crate::quic::Identity;

fn plan() -> Plan {
    let text =
        r#"{"name":"n","workload":"monte_carlo","params":{"model":"pi","paths":10000,"shard_size":100}}"#;
    Plan::new(&JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap(), 0).unwrap()
}

/// All shards but the last are final; acme did three of four and checked one.
fn charges() -> Charges {
    let plan = plan();
    let mut bill = Bill::open(VerifyClass::Strict, &plan);
    for index in 0..plan.shards() - 1 {
        let shard = plan.shard(ShardIndex(index)).unwrap();
        let (number, name) = if index % 4 == 0 { (1, "bolt") } else { (2, "acme") };
        let (provider, agent, service) = (ProviderId::of_name(name), AgentId([number; 16]), Service::Shard);
        let (digest, cost) = (digest_of(index), shard.cost);
        let payment = Payment { provider, agent, service, index: shard.index, digest, cost };
        bill.owe(payment);
        if index == 0 {
            let (provider, agent, service) = (ProviderId::of_name("acme"), AgentId([2; 16]), Service::Check);
            bill.owe(Payment { provider, agent, service, ..payment });
        }
    }
    bill.close()
}

/// Of the partial of a shard.
fn digest_of(index: u64) -> Digest {
    Digest::of(&index.to_le_bytes())
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
            unchecked: tessera_hub_core::record::Unchecked::default(),
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
    with_lines(receipt, Vec::new(), identity)
}

fn with_lines(receipt: Receipt, lines: Vec<Line>, identity: &Identity) -> Vec<u8> {
    let signature = signature_text(&identity.sign(&receipt.message().unwrap()));
    let hub_key = Digest(identity.public_key().0);
    canonical::to_vec(&SignedReceipt { receipt, hub_key, signature, lines, shard: None }).unwrap()
}

fn verifies(key: &Digest, message: &[u8], signature: &[u8]) -> bool {
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key.0);
    key.verify(message, signature).is_ok()
}

#[test]
fn a_receipt_is_proven_by_the_hubs_key_alone_and_every_flipped_byte_is_refused() {
    let identity = Identity::generate().unwrap();
    let key = Some(Digest(identity.public_key().0));
    let lines = lines("acme");
    let [job, acme] = [
        job_receipt(&view(1), &charges(), &names()),
        provider_receipt(&view(1), &charges(), "acme", &lines).unwrap(),
    ];
    let whole = [signed(job.clone(), &identity), with_lines(acme.clone(), lines, &identity)];
    let one = receipt::prove(&check(&whole[1], key, verifies).unwrap(), 5, |index| Some(digest_of(index)));
    let proof = canonical::to_vec(&one.unwrap()).unwrap();
    let bare = signed(acme.clone(), &identity);
    for (bytes, receipt) in whole.into_iter().zip([&job, &acme]).chain([(proof, &acme), (bare, &acme)]) {
        assert_eq!(check(&bytes, key, verifies).unwrap().receipt, *receipt);
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
    use tessera_protocol::receipt::ReceiptError;
    let identity = Identity::generate().unwrap();
    let Receipt::Job(mut receipt) = job_receipt(&view(1), &charges(), &names()) else { panic!() };
    receipt.charged += Microcredits(1);
    receipt.refunded -= Microcredits(1);
    let bytes = signed(Receipt::Job(receipt), &identity);
    assert_eq!(check(&bytes, None, verifies), Err(ReceiptError::DoesNotAdd));
}

#[test]
fn a_provider_that_did_nothing_has_no_receipt() {
    assert_eq!(provider_receipt(&view(1), &charges(), "nobody", &[]), None);
}

/// What the store says that a provider was paid for.
fn lines(provider: &str) -> Vec<Line> {
    let bill = charges();
    records::lines_of(&*store(1).snapshot().unwrap(), view(1).id, &bill, ProviderId::of_name(provider))
        .unwrap()
}

fn acme(lines: Vec<Line>, identity: &Identity) -> Vec<u8> {
    let receipt = provider_receipt(&view(1), &charges(), "acme", &lines).unwrap();
    with_lines(receipt, lines, identity)
}

#[test]
fn a_provider_proves_each_of_its_shards_and_no_other_and_with_no_other_digest() {
    let identity = Identity::generate().unwrap();
    let whole = check(&acme(lines("acme"), &identity), None, verifies).unwrap();
    let known = |index| Some(digest_of(index));
    assert_eq!(receipt::match_lines(&whole, known), Ok((3, 0)), "74 shards of one agent, and a check");
    for index in 0..100 {
        let one = receipt::prove(&whole, index, known);
        // Bolt computed every fourth, of which acme checked the first; the last was not computed.
        if index != 0 && index % 4 == 0 || index == 99 {
            assert_eq!(one, Err(ProofError::NotPaid { index }));
            continue;
        }
        let mut one = one.unwrap();
        let proves = |one: &SignedReceipt| check(&canonical::to_vec(one).unwrap(), None, verifies).is_ok();
        assert!(proves(&one), "shard {index}");
        let shard = one.shard.as_mut().unwrap();
        assert_eq!((shard.digest, shard.line.service == Service::Check), (digest_of(index), index == 0));
        shard.digest.0[7] ^= 1;
        assert!(!proves(&one), "shard {index} with another digest");
        let shard = one.shard.as_mut().unwrap();
        (shard.digest, shard.index) = (digest_of(index), index + 1);
        assert!(!proves(&one), "shard {index} as the next");
    }
}

#[test]
fn digests_that_the_hub_did_not_accept_or_that_are_missing_are_named() {
    let identity = Identity::generate().unwrap();
    let whole = check(&acme(lines("acme"), &identity), None, verifies).unwrap();
    let other = |index| Some(digest_of(if index == 7 { 8 } else { index }));
    assert_eq!(receipt::prove(&whole, 5, other), Err(ProofError::OtherDigests { index: 5 }));
    assert!(receipt::match_lines(&whole, other).is_err());
    let without = |index| (index != 7).then(|| digest_of(index));
    assert_eq!(receipt::prove(&whole, 5, without), Err(ProofError::DigestMissing { index: 7 }));
    assert_eq!(receipt::match_lines(&whole, without), Ok((2, 1)));
}

#[test]
fn lines_that_are_not_what_is_signed_or_counted_are_refused() {
    use tessera_protocol::receipt::ReceiptError;
    let identity = Identity::generate().unwrap();
    let refused = |bytes: &[u8]| check(bytes, None, verifies).map(|_| ()).unwrap_err();
    let (lines, bill) = (lines("acme"), charges());
    let honest = provider_receipt(&view(1), &bill, "acme", &lines).unwrap();
    for at in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(at);
        let bytes = with_lines(honest.clone(), fewer.clone(), &identity);
        assert_eq!(refused(&bytes), ReceiptError::Lines(LineError::OtherLines), "line {at} removed");
        assert_eq!(refused(&acme(fewer, &identity)), ReceiptError::Lines(LineError::DoNotAdd));
    }
    let mut twice = lines.clone();
    let (a, b) = (twice.iter().position(|line| line.service == Service::Shard).unwrap(), 1);
    assert_ne!(a, b, "two lines of shards");
    twice[b].shards[0] = twice[a].shards[0];
    assert!(matches!(refused(&acme(twice, &identity)), ReceiptError::Lines(LineError::DoNotAdd)));
    let job = job_receipt(&view(1), &bill, &names());
    assert_eq!(refused(&with_lines(job, lines, &identity)), ReceiptError::Lines(LineError::NoLines));
}
