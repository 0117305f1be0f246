//! Bills, providers, statements and receipts as text.

use tessera_protocol::credits::{JobBill, Microcredits, ProviderList, Statement};
use tessera_protocol::receipt::{ProviderReceipt, Receipt, Service, SignedReceipt};

use super::number::grouped;
use super::{facts, lines, shortened, table};

const NAME_CHARS: usize = 24;

/// An amount in credits, to the last microcredit.
pub fn credits(amount: Microcredits) -> String {
    let (sign, size) = (if amount.0 < 0 { "-" } else { "" }, amount.0.unsigned_abs());
    let whole = u64::try_from(size / 1_000_000).map_or_else(|_| (size / 1_000_000).to_string(), grouped);
    format!("{sign}{whole}.{:06}", size % 1_000_000)
}

/// A price per unit. *Units*: hundredths of a microcredit.
pub(super) fn rate(percent: u64) -> String {
    format!("{}.{:02} microcredits a compute unit", percent / 100, percent % 100)
}

/// What one job cost and who was paid.
pub fn bill(bill: &JobBill) -> String {
    let mut known = vec![
        ("job", bill.job.to_string()),
        ("project", shortened(&bill.project, 60)),
        ("rate", rate(bill.percent)),
        ("held", credits(bill.held)),
        ("charged", format!("{} for {} units", credits(bill.charged), bill.units)),
    ];
    match bill.closed {
        true => known.push(("refunded", credits(bill.refunded))),
        false => known.push(("escrow", format!("{} until it ends", credits(bill.escrow)))),
    }
    known.push(("hub", credits(bill.hub)));
    let rows = bill
        .postings
        .iter()
        .map(|posting| vec![account(&posting.debit), account(&posting.credit), credits(posting.amount)]);
    let moves = lines(&table(&["from", "to", "credits"], 2, rows.collect()));
    format!("{}\n{moves}", facts(&known))
}

/// An account's name; the escrow is that of the job that the page is about.
fn account(name: &str) -> String {
    shortened(if name.starts_with("escrow/") { "escrow" } else { name }, 40)
}

/// The providers of a hub.
pub fn providers(list: &ProviderList) -> String {
    let rows = list.providers.iter().map(|provider| {
        vec![
            shortened(&provider.name, NAME_CHARS),
            provider.standing.map_or("–", |standing| standing.word()).to_owned(),
            provider.agents.to_string(),
            credits(provider.totals.gross),
            credits(provider.totals.held),
            credits(provider.totals.settled),
            credits(provider.totals.payable),
        ]
    });
    let header = ["provider", "standing", "agents", "earned", "held", "settled", "due"];
    lines(&table(&header, 2, rows.collect()))
}

/// What a provider earned, job by job.
pub fn statement(statement: &Statement) -> String {
    let totals = &statement.totals;
    let known = facts(&[
        ("provider", shortened(&statement.provider, 64)),
        ("earned", credits(totals.gross)),
        ("forfeited", credits(totals.forfeited)),
        ("held", credits(totals.held)),
        ("settled", credits(totals.settled)),
        ("due", credits(totals.payable)),
    ]);
    if statement.lines.is_empty() {
        return known + "\nno job of it has ended yet\n";
    }
    let rows = statement.lines.iter().map(|line| {
        vec![
            line.job.to_string(),
            grouped(line.earned.shards),
            grouped(line.earned.checks),
            credits(line.totals.gross),
            credits(line.totals.held),
            credits(line.totals.payable),
        ]
    });
    let header = ["job", "shards", "checks", "earned", "held", "due"];
    format!("{known}\n{}", lines(&table(&header, 1, rows.collect())))
}

/// Where the shards of a provider's receipt stand; nothing where the hub signed none.
fn shards_of(of: &ProviderReceipt, signed: &SignedReceipt) -> Option<String> {
    let lines = of.lines?;
    let here = if signed.lines.is_empty() { "signed, and left out of this file" } else { "signed, all here" };
    Some(format!("each in one of {} lines, {here}", grouped(lines.count)))
}

/// What a receipt that was checked proves. `pinned` says whether the hub's key was known before; `matched`, how many
/// lines have the digests of a work log, and of how many the log does not know all.
pub fn receipt(signed: &SignedReceipt, pinned: bool, matched: Option<(u64, u64)>) -> String {
    let mut known = vec![("signed by", format!("hub {}", signed.hub_key))];
    match &signed.receipt {
        Receipt::Job(of) => {
            known.push(("proves", format!("{} is {}", of.job, of.state.word())));
            known.push(("manifest", of.manifest.to_string()));
            if let Some(result) = of.result {
                known.push(("result", result.to_string()));
            }
            let work = format!("{} shards, {} done twice and equal", grouped(of.shards), grouped(of.checks));
            known.push(("work", work));
            known.push(("paid", format!("{} of {} held", credits(of.charged), credits(of.held))));
            for share in &of.providers {
                let text = format!(
                    "{}: {} shards, {} checks",
                    shortened(&share.provider, 64),
                    grouped(share.earned.shards),
                    grouped(share.earned.checks)
                );
                known.push(("by", text));
            }
        }
        Receipt::Provider(of) => {
            let text = format!("{} worked on {}", shortened(&of.provider, 64), of.job);
            known.push(("proves", text));
            known.push(("manifest", of.manifest.to_string()));
            for share in &of.agents {
                let (shards, checks) = (grouped(share.earned.shards), grouped(share.earned.checks));
                known.push(("agent", format!("{}: {shards} shards, {checks} checks", share.agent)));
            }
            known.push(("earned", credits(of.amount)));
            if let Some(text) = shards_of(of, signed) {
                known.push(("shards", text));
            }
        }
    }
    if let Some(proof) = &signed.shard {
        let what = match proof.line.service {
            Service::Shard => "computed, in the result",
            Service::Check => "checked",
        };
        known.push(("shard", format!("{}, {what}, by {}", proof.index, proof.line.agent)));
        known.push(("digest", proof.digest.to_string()));
        known.push((
            "paid",
            format!("{} for {} units", credits(proof.line.units_each), proof.line.units_each),
        ));
    }
    if let Some((same, unknown)) = matched {
        let rest =
            if unknown == 0 { String::new() } else { format!("; {unknown} have shards it does not know") };
        known.push(("work log", format!("{} lines have its digests{rest}", grouped(same))));
    }
    let caution = match pinned {
        true => "",
        false => {
            "the key is the one in the file: --hub-key, as the hub prints it at its start, proves which hub\n"
        }
    };
    facts(&known) + caution
}
