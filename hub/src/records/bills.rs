//! How bills, earnings and settlements lie in the store.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tessera_hub_core::ledger::{Pages, earnings as earnings_in};
use tessera_hub_core::record::Unchecked;
use tessera_hub_core::{Bill, Charges, Earnings, Payment};
use tessera_planners::Plan;
use tessera_protocol::api::JobView;
use tessera_protocol::credits::{
    Earned, Microcredits, OPERATOR, ProviderName, Removal, Settlement, Statement, Stream,
};
use tessera_protocol::id::{AgentId, Digest, JobId, ProviderId};
use tessera_protocol::receipt::{Line, SHARDS_MAX, Service};
use tessera_protocol::spec::VerifyClass;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::{Batch, Family, Key, Snapshot, of_provider, pay_pages_of, tile_pays_of};

use super::{RecordError, StoredProvider, VERSION, entries, json};

/// Under `bill/`. All that was ever moved for a job.
#[derive(Serialize, Deserialize)]
struct StoredBill {
    version: u8,
    class: VerifyClass,
    plan: Digest,
    planned: Microcredits,
    units: Microcredits,
    held: Microcredits,
    escrow: Microcredits,
    hub: Microcredits,
    refunded: Microcredits,
    paid: Vec<(ProviderId, AgentId, Earned)>,
    closed: bool,
    /// Absent in bills that are older than pages.
    #[serde(default)]
    pages: u64,
    /// Once the job is done: tainted shards of the job it extends that are counted in its own.
    #[serde(default)]
    inherited: u64,
    /// Once the job is done: shards that rest on the word of one agent alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alone: Vec<(AgentId, u64)>,
}

/// Under `tile-pay/`.
#[derive(Serialize, Deserialize)]
struct StoredPay {
    version: u8,
    paid: Vec<(ProviderId, AgentId, Earned)>,
}

/// Under `pay-page/`: which shards were paid, and roots over the digests of their partials, which nobody keeps here.
/// Two bytes a shard where an agent's shards lie apart, and less where they lie in a row.
#[derive(Serialize, Deserialize)]
struct StoredPage {
    version: u8,
    /// The plan that the bill named. Of pages that are numbered like tiles, only those of the last plan count.
    plan: Digest,
    /// Who was paid.
    who: Vec<(ProviderId, AgentId)>,
    lines: Vec<StoredLine>,
}

/// Position in `who`; what was done; units of each shard; root; shards, as how many are left out and how many follow,
/// in turn.
type StoredLine = (usize, Service, Microcredits, Digest, Vec<u64>);

/// Under `earning/`.
#[derive(Serialize, Deserialize)]
struct StoredEarning {
    version: u8,
    earned: Earned,
}

/// Under `settled/`.
#[derive(Serialize, Deserialize)]
struct StoredSettled {
    version: u8,
    amount: Microcredits,
}

fn rows(paid: &Earnings) -> Vec<(ProviderId, AgentId, Earned)> {
    paid.iter().map(|((provider, agent), earned)| (*provider, *agent, *earned)).collect()
}

fn earnings(rows: Vec<(ProviderId, AgentId, Earned)>) -> Earnings {
    rows.into_iter().map(|(provider, agent, earned)| ((provider, agent), earned)).collect()
}

// --- writing --------------------------------------------------------------------------------------

pub(super) fn put(batch: &mut Batch, job: JobId, bill: &Charges, unchecked: Option<&Unchecked>) {
    let Charges { class, plan, planned, units, held, escrow, hub, refunded, paid, closed, pages, fresh } =
        bill;
    let (plan, planned, units, held, escrow) = (*plan, *planned, *units, *held, *escrow);
    let (class, hub, refunded, closed, pages) = (*class, *hub, *refunded, *closed, *pages);
    let paid = rows(paid);
    let of =
        |of: &Unchecked| (of.inherited, of.alone.iter().map(|(agent, shards)| (*agent, *shards)).collect());
    let (inherited, alone) = unchecked.map(of).unwrap_or_default();
    let stored = StoredBill {
        version: VERSION,
        class,
        plan,
        planned,
        units,
        held,
        escrow,
        hub,
        refunded,
        paid,
        closed,
        pages,
        inherited,
        alone,
    };
    batch.put_chunked(&Key::Bill(job).encode(), &json(&stored));
    fresh.iter().for_each(|(page, payments)| put_page(batch, (job, plan), *page, payments));
}

pub(super) fn put_tile(batch: &mut Batch, (job, plan): (JobId, Digest), tile: u64, earned: &[Payment]) {
    let stored = StoredPay { version: VERSION, paid: rows(&earnings_in(earned)) };
    batch.put_chunked(&Key::TilePay { job, tile }.encode(), &json(&stored));
    put_page(batch, (job, plan), tile, earned);
}

/// Hashes every shard of it: on the journal's thread, where batches are made.
fn put_page(batch: &mut Batch, (job, plan): (JobId, Digest), page: u64, payments: &[Payment]) {
    let mut groups: BTreeMap<_, Vec<(u64, Digest)>> = BTreeMap::new();
    for Payment { provider, agent, service, index, digest, cost } in payments {
        let alike = ((*provider, *agent), *service, cost.0);
        groups.entry(alike).or_default().push((index.0, *digest));
    }
    let (mut who, mut lines) = (Vec::new(), Vec::new());
    for ((of, service, cost), mut answers) in groups {
        if who.last() != Some(&of) {
            who.push(of);
        }
        answers.sort_unstable_by_key(|(index, _)| *index);
        for answers in answers.chunks(SHARDS_MAX) {
            let line = Line::of(of.1, service, Microcredits(i128::from(cost)), answers);
            lines.push((who.len() - 1, service, line.units_each, line.root, in_turn(&line.shards)));
        }
    }
    let stored = StoredPage { version: VERSION, plan, who, lines };
    batch.put_chunked(&Key::PayPage { job, page }.encode(), &json(&stored));
}

fn in_turn(ranges: &[(u64, u64)]) -> Vec<u64> {
    let mut at = 0;
    let turn = |(start, end): &(u64, u64)| {
        let both = [start - at, end - start];
        at = *end;
        both
    };
    ranges.iter().flat_map(turn).collect()
}

fn ranges_of(in_turn: &[u64]) -> Vec<(u64, u64)> {
    let mut at = 0_u64;
    let range = |both: &[u64]| {
        let start = at.saturating_add(both[0]);
        at = start.saturating_add(both[1]);
        (start, at)
    };
    in_turn.chunks_exact(2).map(range).collect()
}

/// Closes a job's bill, and tells each provider what it earned. In the transaction of the job's end, so that it
/// happens once.
pub(super) fn end(batch: &mut Batch, job: JobId, view: &JobView, (bill, unchecked): (&Charges, &Unchecked)) {
    put(batch, job, bill, Some(unchecked));
    batch.delete_range(tile_pays_of(job));
    let mut by_provider: BTreeMap<ProviderId, Earned> = BTreeMap::new();
    for ((provider, _), earned) in &bill.paid {
        by_provider.entry(*provider).or_default().add(earned);
    }
    let ended_ms = view.ended_ms.map_or(0, |ended| ended.0);
    for (provider, earned) in by_provider {
        let stored = StoredEarning { version: VERSION, earned };
        batch.put(Key::Earning { provider, ended_ms, job }, json(&stored));
    }
}

/// The batch that pays a settlement. It conflicts when another was made meanwhile.
pub fn settlement_batch(settlement: &Settlement) -> Batch {
    let mut batch = Batch::new();
    let key = Key::Settlement(settlement.number).encode();
    // Chunked values have no key of their own: the first chunk says that there is one.
    batch.expect_absent(tessera_storage::chunked::chunk_key(&key, 0));
    batch.put_chunked(&key, &json(settlement));
    for Statement { provider, totals, .. } in &settlement.statements {
        let provider = ProviderId::of_name(provider);
        let stored = StoredSettled { version: VERSION, amount: totals.payable };
        batch.put(Key::Settled { provider, settlement: settlement.number }, json(&stored));
    }
    batch
}

/// Adds to a batch that an agent was removed, which forfeits its provider's hold.
pub fn put_removal(batch: &mut Batch, provider: ProviderId, agent: AgentId, at: UnixMillis) {
    batch.put(Key::Removal { provider, at_ms: at.0 }, [&[VERSION][..], &agent.0].concat());
}

// --- reading --------------------------------------------------------------------------------------

fn decode<T: for<'a> Deserialize<'a>>(
    value: &[u8],
    what: &'static str,
    of: impl std::fmt::Display,
) -> Result<T, RecordError> {
    serde_json::from_slice(value).map_err(|_| RecordError::Malformed { what, of: of.to_string() })
}

/// The bill of a job; nothing of one that is older than bills.
pub fn read_bill(store: &dyn Snapshot, job: JobId) -> Result<Option<Charges>, RecordError> {
    let Some(bytes) = store.get_chunked(&Key::Bill(job).encode())? else { return Ok(None) };
    let stored: StoredBill = decode(&bytes, "bill", job)?;
    let StoredBill { class, plan, planned, units, held, escrow, hub, refunded, paid, closed, pages, .. } =
        stored;
    let (paid, fresh) = (earnings(paid), Pages::new());
    Ok(Some(Charges { class, plan, planned, units, held, escrow, hub, refunded, paid, closed, pages, fresh }))
}

/// What of the result of a done job nobody checked; nothing of a job that ended before that was written down.
pub fn read_unchecked(store: &dyn Snapshot, job: JobId) -> Result<Unchecked, RecordError> {
    let Some(bytes) = store.get_chunked(&Key::Bill(job).encode())? else { return Ok(Unchecked::default()) };
    let StoredBill { inherited, alone, .. } = decode(&bytes, "bill", job)?;
    Ok(Unchecked { inherited, alone: alone.into_iter().collect() })
}

/// The lines of what a provider was paid for in a job with this bill. *Order*: as they were written.
pub fn lines_of(
    store: &dyn Snapshot,
    job: JobId,
    bill: &Charges,
    provider: ProviderId,
) -> Result<Vec<Line>, RecordError> {
    let mut all = Vec::new();
    each_line(store, job, bill, &mut |of, line| {
        if of == provider {
            all.push(line);
        }
    })?;
    Ok(all)
}

/// Shows each line of what anybody was paid for in a job with this bill. *Order*: as they were written.
pub(crate) fn each_line(
    store: &dyn Snapshot,
    job: JobId,
    bill: &Charges,
    show: &mut dyn FnMut(ProviderId, Line),
) -> Result<(), RecordError> {
    let mut pages = BTreeSet::new();
    store.walk(&pay_pages_of(job), &mut |entry| {
        if let Ok((Key::PayPage { page, .. }, _)) = Key::decode(&entry.key) {
            pages.insert(page);
        }
    })?;
    for page in pages {
        let missing = || RecordError::Missing { what: "page of payments", of: job.to_string() };
        let bytes = store.get_chunked(&Key::PayPage { job, page }.encode())?.ok_or_else(missing)?;
        let StoredPage { plan, who, lines, .. } = decode(&bytes, "page of payments", job)?;
        // Another page is of a hub that cut the job otherwise.
        if page >= bill.pages && plan != bill.plan {
            continue;
        }
        for (at, service, units_each, root, shards) in lines {
            let nobody = || RecordError::Malformed { what: "page of payments", of: job.to_string() };
            let (of, agent) = *who.get(at).ok_or_else(nobody)?;
            show(of, Line { agent, service, shards: ranges_of(&shards), units_each, root });
        }
    }
    Ok(())
}

/// Tiles of an open matrix job that somebody is paid for: a tile is written with its pay. However many are still to
/// come, and however large each is, only pay is read. *Order*: ascending.
pub(super) fn paid_tiles(store: &dyn Snapshot, job: JobId) -> Result<Vec<u64>, RecordError> {
    let mut tiles = Vec::new();
    store.walk(&tile_pays_of(job), &mut |entry| match Key::decode(&entry.key) {
        Ok((Key::TilePay { tile, .. }, _)) if tiles.last() != Some(&tile) => tiles.push(tile),
        _ => {}
    })?;
    Ok(tiles)
}

/// The bill of a matrix job that is open: its hold, and what its tiles say was earned.
pub(super) fn of_tiles(
    store: &dyn Snapshot,
    job: JobId,
    (view, plan): (&JobView, &Plan),
    done: &[u64],
) -> Result<Charges, RecordError> {
    let kept = read_bill(store, job)?;
    let kept = kept.unwrap_or_else(|| Charges::planned(view.verify, plan.digest(), plan.cost()));
    let mut bill = Bill::resume(kept.unpaid(), plan);
    for tile in done {
        if let Some(bytes) = store.get_chunked(&Key::TilePay { job, tile: *tile }.encode())? {
            let stored: StoredPay = decode(&bytes, "payment for a tile", job)?;
            bill.add_earned(&earnings(stored.paid));
        }
    }
    Ok(bill.charges().clone())
}

/// What a provider earned in jobs that ended, oldest first.
pub fn earnings_of(store: &dyn Snapshot, provider: ProviderId) -> Result<Stream, RecordError> {
    let mut stream = Stream::new();
    for entry in store.range(&of_provider(Family::Earnings, provider), usize::MAX)? {
        let Ok((Key::Earning { ended_ms, job, .. }, _)) = Key::decode(&entry.key) else { continue };
        stream.push((UnixMillis(ended_ms), job, decode_earning(job, &entry.value)?));
    }
    Ok(stream)
}

/// What a provider earned in a job.
pub(crate) fn decode_earning(job: JobId, value: &[u8]) -> Result<Earned, RecordError> {
    Ok(decode::<StoredEarning>(value, "earning", job)?.earned)
}

/// What a provider was paid by a settlement.
pub(crate) fn decode_settled(provider: ProviderId, value: &[u8]) -> Result<Microcredits, RecordError> {
    Ok(decode::<StoredSettled>(value, "settled amount", provider)?.amount)
}

/// What a provider is called.
pub(crate) fn decode_provider(id: ProviderId, value: &[u8]) -> Result<ProviderName, RecordError> {
    Ok(decode::<StoredProvider>(value, "record", id)?.name)
}

/// Which agent of a provider was removed.
pub(crate) fn decode_removal(provider: ProviderId, value: &[u8]) -> Result<AgentId, RecordError> {
    let malformed = || RecordError::Malformed { what: "removal", of: provider.to_string() };
    let agent = value.strip_prefix(&[VERSION]).ok_or_else(malformed)?;
    Ok(AgentId(agent.try_into().map_err(|_| malformed())?))
}

/// When agents of a provider were removed, first to last.
pub fn removals_of(store: &dyn Snapshot, provider: ProviderId) -> Result<Vec<Removal>, RecordError> {
    let entries = store.range(&of_provider(Family::Removals, provider), usize::MAX)?;
    let removal = |key: &[u8]| match Key::decode(key) {
        Ok((Key::Removal { at_ms, .. }, _)) => Some(Removal(UnixMillis(at_ms))),
        _ => None,
    };
    Ok(entries.iter().filter_map(|entry| removal(&entry.key)).collect())
}

/// What a provider was paid by all settlements.
pub fn settled_of(store: &dyn Snapshot, provider: ProviderId) -> Result<Microcredits, RecordError> {
    let mut settled = Microcredits(0);
    for entry in store.range(&of_provider(Family::Settled, provider), usize::MAX)? {
        settled += decode_settled(provider, &entry.value)?;
    }
    Ok(settled)
}

/// How many settlements were made.
pub fn settlements(store: &dyn Snapshot) -> Result<u64, RecordError> {
    let mut last = 0;
    store.walk(&Family::Settlements.range(), &mut |entry| {
        if let Ok((Key::Settlement(number), _)) = Key::decode(&entry.key) {
            last = number;
        }
    })?;
    Ok(last)
}

/// A settlement as it was made.
pub fn read_settlement(store: &dyn Snapshot, number: u64) -> Result<Option<Settlement>, RecordError> {
    match store.get_chunked(&Key::Settlement(number).encode())? {
        Some(bytes) => decode(&bytes, "settlement", number).map(Some),
        None => Ok(None),
    }
}

/// What providers are called. The operator is among them.
pub fn provider_names(store: &dyn Snapshot) -> Result<BTreeMap<ProviderId, String>, RecordError> {
    let mut names = BTreeMap::from([(ProviderId::of_name(OPERATOR), OPERATOR.to_owned())]);
    for entry in entries(store, Family::Providers)? {
        let Ok((Key::Provider(id), _)) = Key::decode(&entry.key) else { continue };
        names.insert(id, decode_provider(id, &entry.value)?.as_str().to_owned());
    }
    Ok(names)
}
