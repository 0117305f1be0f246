//! The ledger: bills balance, what they paid was earned, what was earned and no more was settled.

use std::collections::BTreeMap;

use tessera_hub_core::Charges;
use tessera_protocol::api::JobView;
use tessera_protocol::credits::{Earned, Microcredits, OPERATOR, Settlement};
use tessera_protocol::id::{AgentId, JobId, ProviderId};
use tessera_protocol::receipt::Service;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Family, Key, ReadError, Snapshot, of_provider};

use super::{Advice, Report, jobs};
use crate::ops::{label, pages};
use crate::records;
use crate::retention::Stone;

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let (mut older, mut made) = (0_u64, 0);
    pages::each(store, Family::Jobs.range(), |entry| {
        let Ok((Key::Job(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        // What cannot be read was found with the jobs.
        let Ok(stored) = records::decode_job(id, &entry.value) else { return Ok(()) };
        let bill = records::read_bill(store, id);
        match report.take(Key::Bill(id), bill, Advice::Ledger)? {
            Some(Some(charges)) => bill_of(store, &stored.view, &charges, report, (&mut older, &mut made)),
            Some(None) => {
                older += 1;
                Ok(())
            }
            None => Ok(()),
        }
    })?;
    if older > 0 {
        report.note(format!("{older} jobs are older than bills, or than payments shard by shard"));
    }
    pruned(store, report, &mut made)?;
    earnings(store, report, made)?;
    settlements(store, report)?;
    settled(store, report)?;
    providers(store, report)
}

fn bill_of(
    store: &dyn Snapshot,
    view: &JobView,
    charges: &Charges,
    report: &mut Report,
    (older, made): (&mut u64, &mut u64),
) -> Result<(), ReadError> {
    let (id, key) = (view.id, Key::Bill(view.id));
    balance(key, charges, report);
    let mut find = |says: String| report.find(label::of(key), says, Advice::Ledger);
    match (view.state.is_open(), charges.closed) {
        (true, true) => find("it is closed, and its job is open".to_owned()),
        (false, false) => find("it is open, and its job ended".to_owned()),
        (true, false) | (false, true) => {}
    }
    let (mut lines, mut seen) = (BTreeMap::<_, Earned>::new(), false);
    let read = records::each_line(store, id, charges, &mut |provider, line| {
        seen = true;
        add(lines.entry((provider, line.agent)).or_default(), line.service, line.units_each, line.count());
    });
    if report.take(key, read, Advice::Ledger)?.is_some() && seen {
        compare(charges, &lines, key, report);
    }
    // The payments of an open matrix job lie with its tiles.
    *older += u64::from(!seen && !charges.paid.is_empty());
    if !view.state.is_open() {
        *made += earned(store, id, view.ended_ms.unwrap_or(UnixMillis(0)), charges, report)?;
    }
    Ok(())
}

fn balance(key: Key<'_>, charges: &Charges, report: &mut Report) {
    if let Some(imbalance) = charges.imbalance() {
        report.find(label::of(key), format!("it does not balance: {imbalance}"), Advice::Ledger);
    }
}

/// Bills of jobs that were pruned: what they paid stays, their payments shard by shard do not.
fn pruned(store: &dyn Snapshot, report: &mut Report, made: &mut u64) -> Result<(), ReadError> {
    pages::each(store, Family::Pruned.range(), |entry| {
        let Ok((key @ Key::Pruned(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let stone = report.take(key, Stone::decode(id, &entry.value), Advice::Restore)?;
        let bill = report.take(Key::Bill(id), records::read_bill(store, id), Advice::Ledger)?.flatten();
        let (Some(stone), Some(charges)) = (stone, bill) else { return Ok(()) };
        balance(Key::Bill(id), &charges, report);
        if !charges.closed {
            report.find(label::of(Key::Bill(id)), "it is open, and its job was pruned", Advice::Ledger);
        }
        if let Some(ended_ms) = stone.ended_ms {
            *made += earned(store, id, ended_ms, &charges, report)?;
        }
        Ok(())
    })
}

fn add(sum: &mut Earned, service: Service, units_each: Microcredits, count: Option<u64>) {
    // A line that counts nothing agrees with no bill.
    let count = count.unwrap_or(u64::MAX >> 1);
    let units = Microcredits(units_each.0.saturating_mul(i128::from(count)));
    let more = match service {
        Service::Shard => Earned { shards: count, units, ..Earned::default() },
        Service::Check => Earned { checks: count, check_units: units, ..Earned::default() },
    };
    sum.shards = sum.shards.saturating_add(more.shards);
    sum.checks = sum.checks.saturating_add(more.checks);
    sum.units.0 = sum.units.0.saturating_add(more.units.0);
    sum.check_units.0 = sum.check_units.0.saturating_add(more.check_units.0);
}

/// The bill and the payments shard by shard.
fn compare(
    charges: &Charges,
    lines: &BTreeMap<(ProviderId, AgentId), Earned>,
    key: Key<'_>,
    report: &mut Report,
) {
    if charges.closed || !charges.paid.is_empty() {
        for (who, earned) in &charges.paid {
            if lines.get(who) != Some(earned) {
                let says = format!("what it paid {} is not what its pages of payments add up to", who.1);
                report.find(label::of(key), says, Advice::Ledger);
            }
        }
        for who in lines.keys().filter(|who| !charges.paid.contains_key(who)) {
            let says = format!("its pages of payments pay {}, and it does not", who.1);
            report.find(label::of(key), says, Advice::Ledger);
        }
    }
}

/// A closed bill and the earnings that it made. *Returns* how many of those there are.
fn earned(
    store: &dyn Snapshot,
    job: JobId,
    ended_ms: UnixMillis,
    charges: &Charges,
    report: &mut Report,
) -> Result<u64, ReadError> {
    let mut made = 0;
    let mut sums: BTreeMap<ProviderId, Earned> = BTreeMap::new();
    for ((provider, _), earned) in &charges.paid {
        sums.entry(*provider).or_default().add(earned);
    }
    for (provider, sum) in sums {
        let key = Key::Earning { provider, ended_ms: ended_ms.0, job };
        let Some(value) = store.get(&key.encode())? else {
            report.find(label::of(key), "the bill of its job paid it, and it is not here", Advice::Ledger);
            continue;
        };
        made += 1;
        let found = report.take(key, records::decode_earning(job, &value), Advice::Ledger)?;
        if found.is_some_and(|found| found != sum) {
            report.find(label::of(key), "it is not what the bill of its job paid", Advice::Ledger);
        }
    }
    Ok(made)
}

/// Earnings without a bill that paid them. Their amounts are compared from the side of the bills, and so are all of them
/// where there are no more than bills made: a bill is long, and would be read once for each provider that it pays.
fn earnings(store: &dyn Snapshot, report: &mut Report, made: u64) -> Result<(), ReadError> {
    let mut found = 0;
    pages::each(store, Family::Earnings.range(), |_| {
        found += 1;
        Ok(())
    })?;
    if found == made {
        return Ok(());
    }
    pages::each(store, Family::Earnings.range(), |entry| {
        let Ok((key @ Key::Earning { provider, ended_ms, job }, _)) = Key::decode(&entry.key) else {
            return Ok(());
        };
        let view = report.take(key, records::read_view(store, job), Advice::Ledger)?.flatten();
        let ended = match view {
            Some(view) => !view.state.is_open() && view.ended_ms.unwrap_or(UnixMillis(0)).0 == ended_ms,
            None => {
                let is_then = |stone: Stone| stone.ended_ms.is_none_or(|ended| ended.0 == ended_ms);
                jobs::stone(store, job, report)?.is_some_and(is_then)
            }
        };
        let bill = report.take(key, records::read_bill(store, job), Advice::Ledger)?.flatten();
        let paid = bill.is_some_and(|bill| bill.paid.keys().any(|(of, _)| *of == provider));
        if !ended || !paid {
            report.find(label::of(key), "no job that ended then paid it", Advice::Ledger);
        }
        Ok(())
    })
}

fn settlements(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    let mut expected = 1;
    let mut rest = Family::Settlements.range();
    while let Some(entry) = store.range(&rest, 1)?.pop() {
        rest.start = pages::after(&entry.key);
        let Ok((key @ Key::Settlement(number), _)) = Key::decode(&entry.key) else { continue };
        rest.start = tessera_storage::chunked::range_of(&key.encode()).end;
        if number != expected {
            let says = format!("settlement {expected} should come before it, and is not here");
            report.find(label::of(key), says, Advice::Ledger);
        }
        expected = number.saturating_add(1);
        let read = records::read_settlement(store, number);
        if let Some(Some(settlement)) = report.take(key, read, Advice::Ledger)? {
            settlement_of(store, key, &settlement, report)?;
        }
    }
    Ok(())
}

fn settlement_of(
    store: &dyn Snapshot,
    key: Key<'_>,
    settlement: &Settlement,
    report: &mut Report,
) -> Result<(), ReadError> {
    let total: Microcredits = settlement.statements.iter().map(|of| of.totals.payable).sum();
    if total != settlement.total {
        report.find(label::of(key), "its statements do not add up to its total", Advice::Ledger);
    }
    for statement in &settlement.statements {
        let payable: Microcredits = statement.lines.iter().map(|line| line.totals.payable).sum();
        let balanced = statement.lines.iter().all(|line| line.totals.balances());
        if payable != statement.totals.payable || !balanced {
            let says = format!("the statement of {} does not add up", statement.provider);
            report.find(label::of(key), says, Advice::Ledger);
        }
        let provider = ProviderId::of_name(&statement.provider);
        let paid = Key::Settled { provider, settlement: settlement.number };
        let Some(value) = store.get(&paid.encode())? else {
            report.find(label::of(paid), "a settlement paid it, and it is not here", Advice::Ledger);
            continue;
        };
        let amount = report.take(paid, records::decode_settled(provider, &value), Advice::Ledger)?;
        if amount.is_some_and(|amount| amount != statement.totals.payable) {
            report.find(label::of(paid), "it is not what its settlement paid", Advice::Ledger);
        }
    }
    Ok(())
}

/// Payments without a settlement.
fn settled(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Settled.range(), |entry| {
        let Ok((key @ Key::Settled { provider, settlement }, _)) = Key::decode(&entry.key) else {
            return Ok(());
        };
        let read = records::read_settlement(store, settlement);
        let Some(made) = report.take(key, read, Advice::Ledger)? else { return Ok(()) };
        let is_of = |name: &str| ProviderId::of_name(name) == provider;
        if !made.is_some_and(|made| made.statements.iter().any(|of| is_of(&of.provider))) {
            report.find(label::of(key), "no settlement paid it", Advice::Ledger);
        }
        Ok(())
    })
}

/// Nobody was paid more than was earned. Goes from provider to provider, whether a record names it or not.
fn providers(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    for family in [Family::Earnings, Family::Settled] {
        let mut rest = family.range();
        while let Some(entry) = store.range(&rest, 1)?.pop() {
            let id = entry.key[family.prefix().len()..].first_chunk().copied().map(ProviderId);
            let Some(provider) = id else {
                rest.start = pages::after(&entry.key);
                continue;
            };
            rest.start = of_provider(family, provider).end;
            let known = provider == ProviderId::of_name(OPERATOR)
                || store.get(&Key::Provider(provider).encode())?.is_some();
            if !known {
                report.find(label::of_bytes(&entry.key), "its provider is not here", Advice::Ledger);
            }
            if family == Family::Settled {
                overpaid(store, provider, report)?;
            }
        }
    }
    Ok(())
}

fn overpaid(store: &dyn Snapshot, provider: ProviderId, report: &mut Report) -> Result<(), ReadError> {
    let (mut gross, mut paid) = (0_i128, 0_i128);
    pages::each(store, of_provider(Family::Earnings, provider), |entry| {
        if let Ok((Key::Earning { job, .. }, _)) = Key::decode(&entry.key)
            && let Ok(earned) = records::decode_earning(job, &entry.value)
        {
            gross = gross.saturating_add(earned.amount().0);
        }
        Ok(())
    })?;
    pages::each(store, of_provider(Family::Settled, provider), |entry| {
        if let Ok(amount) = records::decode_settled(provider, &entry.value) {
            paid = paid.saturating_add(amount.0);
        }
        Ok(())
    })?;
    if paid > gross {
        let says = format!("settlements paid it {paid} microcredits, and it earned {gross}");
        report.find(label::of(Key::Provider(provider)), says, Advice::Ledger);
    }
    Ok(())
}
