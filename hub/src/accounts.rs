//! Bills, statements, settlements, receipts and the audit log as the HTTP API asks for them.
//!
//! Reads the store and signs; the arithmetic is the protocol's. Decides nothing about who is paid for what.

use std::collections::BTreeMap;

use tessera_hub_core::{Charges, Earnings};
use tessera_protocol::api::JobView;
use tessera_protocol::audit::{Act, AuditPage, signature_text};
use tessera_protocol::canonical;
use tessera_protocol::credits::{
    BillLine, Earned, JobBill, Microcredits, Posting, ProviderList, ProviderView, RATE, Settlement,
    SettlementRequest, Statement, StatementLine, Totals, class_percent, statement_lines,
};
use tessera_protocol::id::{Digest, JobId, ProviderId};
use tessera_protocol::receipt::{
    AgentShare, JobReceipt, Line, Lines, ProviderReceipt, ProviderShare, Receipt, SignedReceipt,
};
use tessera_protocol::unit::UnixMillis;
use tessera_storage::Snapshot;

use crate::audit::{self, Deed};
use crate::backend::{Hub, unix_ms};
use crate::ingress::backend::{LookupError, Outage, ReceiptError, SettleError, StatementError};
use crate::records::{self, RecordError};

type Names = BTreeMap<ProviderId, String>;

fn name_of(names: &Names, provider: ProviderId) -> String {
    names.get(&provider).cloned().unwrap_or_else(|| provider.to_string())
}

/// The bill of a job as a document.
pub fn bill(view: &JobView, charges: &Charges, names: &Names) -> JobBill {
    let paid: Vec<BillLine> = charges
        .paid
        .iter()
        .map(|((provider, agent), earned)| BillLine {
            provider: name_of(names, *provider),
            agent: *agent,
            earned: *earned,
            amount: earned.amount(),
        })
        .collect();
    JobBill {
        job: view.id,
        project: view.project.clone(),
        verify: charges.class,
        percent: class_percent(charges.class),
        planned: charges.planned,
        units: charges.units,
        held: charges.held,
        charged: charges.charged(),
        refunded: charges.refunded,
        escrow: charges.escrow,
        hub: charges.hub,
        closed: charges.closed,
        postings: postings(view, charges, &by_provider(&charges.paid), names),
        paid,
    }
}

fn by_provider(paid: &Earnings) -> BTreeMap<ProviderId, Earned> {
    let mut sums: BTreeMap<ProviderId, Earned> = BTreeMap::new();
    for ((provider, _), earned) in paid {
        sums.entry(*provider).or_default().add(earned);
    }
    sums
}

/// The same bill as movements between accounts; those of nothing are left out.
fn postings(
    view: &JobView,
    charges: &Charges,
    earned: &BTreeMap<ProviderId, Earned>,
    names: &Names,
) -> Vec<Posting> {
    let project = format!("project/{}", view.project);
    let (escrow, hub) = (format!("escrow/{}", view.id), "hub/fee".to_owned());
    let provider = |id: ProviderId| format!("provider/{}", name_of(names, id));
    let posting = |debit: &str, credit: &str, amount| Posting {
        debit: debit.to_owned(),
        credit: credit.to_owned(),
        amount,
    };
    let mut all = vec![posting(&project, &escrow, charges.held)];
    for (id, earned) in earned {
        all.push(posting(&escrow, &provider(*id), Microcredits(earned.units.0 * RATE)));
    }
    let share = charges.charged() - Microcredits(charges.units.0 * RATE);
    all.push(posting(&escrow, &hub, share));
    for (id, earned) in earned {
        all.push(posting(&hub, &provider(*id), Microcredits(earned.check_units.0 * RATE)));
    }
    all.push(posting(&escrow, &project, charges.refunded));
    all.retain(|posting| posting.amount != Microcredits(0));
    all
}

/// What a provider earned and what became of that.
pub fn statement(store: &dyn Snapshot, provider: &str, until: UnixMillis) -> Result<Statement, RecordError> {
    let id = ProviderId::of_name(provider);
    let (stream, removals) = (records::earnings_of(store, id)?, records::removals_of(store, id)?);
    let lines = statement_lines(&stream, &removals, records::settled_of(store, id)?, until);
    Ok(of_lines(provider, lines))
}

fn of_lines(provider: &str, lines: Vec<StatementLine>) -> Statement {
    let mut totals = Totals::default();
    lines.iter().for_each(|line| totals.add(&line.totals));
    Statement { provider: provider.to_owned(), lines, totals }
}

/// The next settlement, of what jobs earned that ended before `until`. Lines of which everything was paid or lost
/// before are left out.
pub fn next_settlement(store: &dyn Snapshot, until: UnixMillis) -> Result<Settlement, RecordError> {
    let mut names: Vec<String> = records::provider_names(store)?.into_values().collect();
    names.sort();
    let mut statements = Vec::new();
    for name in names {
        let mut lines = statement(store, &name, until)?.lines;
        lines.retain(|line| {
            line.totals.payable + line.totals.held != Microcredits(0) && line.ended_ms < until
        });
        let of = of_lines(&name, lines);
        if of.totals.payable != Microcredits(0) {
            statements.push(of);
        }
    }
    let total = statements.iter().map(|statement| statement.totals.payable).sum();
    let number = records::settlements(store)? + 1;
    Ok(Settlement { number, made_ms: UnixMillis(unix_ms()), until_ms: until, total, statements })
}

fn settlement_deed(settlement: &Settlement) -> Deed {
    let paid = |statement: &Statement| (statement.provider.clone(), statement.totals.payable);
    let providers = settlement.statements.iter().map(paid).collect();
    let act = Act::Settled { number: settlement.number, total: settlement.total, providers };
    Deed { batch: records::settlement_batch(settlement), acts: vec![act] }
}

fn job_receipt(view: &JobView, charges: &Charges, names: &Names) -> Receipt {
    let share = |(provider, earned): (ProviderId, Earned)| ProviderShare {
        provider: name_of(names, provider),
        earned,
        amount: earned.amount(),
    };
    let mut providers: Vec<ProviderShare> = by_provider(&charges.paid).into_iter().map(share).collect();
    providers.sort_by(|a, b| a.provider.cmp(&b.provider));
    Receipt::Job(JobReceipt {
        job: view.id,
        project: view.project.clone(),
        state: view.state,
        manifest: view.manifest_digest,
        plan: charges.plan,
        result: view.digest,
        verify: charges.class,
        checks: view.checks,
        mismatches: view.mismatches,
        tainted: view.tainted,
        created_ms: view.created_ms,
        ended_ms: view.ended_ms,
        shards: charges.shards(),
        units: charges.units,
        percent: class_percent(charges.class),
        held: charges.held,
        charged: charges.charged(),
        refunded: charges.refunded,
        providers,
    })
}

fn provider_receipt(view: &JobView, charges: &Charges, provider: &str, lines: &[Line]) -> Option<Receipt> {
    let id = ProviderId::of_name(provider);
    let agents: Vec<AgentShare> = charges
        .paid
        .iter()
        .filter(|((of, _), _)| *of == id)
        .map(|((_, agent), earned)| AgentShare { agent: *agent, earned: *earned, amount: earned.amount() })
        .collect();
    let amount = agents.iter().map(|share| share.amount).sum();
    (!agents.is_empty()).then(|| {
        Receipt::Provider(ProviderReceipt {
            job: view.id,
            manifest: view.manifest_digest,
            plan: charges.plan,
            provider: provider.to_owned(),
            ended_ms: view.ended_ms,
            agents,
            rate: RATE as u64,
            amount,
            lines: Lines::of(lines),
        })
    })
}

impl Hub {
    async fn charges(&self, job: JobId) -> Result<(std::sync::Arc<JobView>, Charges, Names), LookupError> {
        let view = self.view(job).await?;
        let read =
            self.read(move |store| Ok((records::read_bill(store, job)?, records::provider_names(store)?)));
        let (charges, names) = read.await.map_err(LookupError::Outage)?;
        let older = || Charges::planned(view.verify, Digest([0; 32]), view.cost);
        let charges = charges.unwrap_or_else(older);
        Ok((view, charges, names))
    }

    pub(crate) async fn job_bill(&self, job: JobId) -> Result<JobBill, LookupError> {
        let (view, charges, names) = self.charges(job).await?;
        Ok(bill(&view, &charges, &names))
    }

    /// The shards of a provider's receipt, or none of a job that is older than pages of payments.
    async fn lines(
        &self,
        job: JobId,
        charges: &Charges,
        provider: Option<&str>,
    ) -> Result<Vec<Line>, LookupError> {
        let Some(provider) = provider.map(ProviderId::of_name) else { return Ok(Vec::new()) };
        let bill = charges.clone();
        let read = self.read(move |store| records::lines_of(store, job, &bill, provider));
        let lines = read.await.map_err(LookupError::Outage)?;
        let paid = charges.paid.iter().filter(|((of, _), _)| *of == provider);
        let answers: u64 = paid.map(|(_, earned)| earned.shards + earned.checks).sum();
        let counted: u64 = lines.iter().filter_map(Line::count).sum();
        if counted != answers {
            tracing::warn!(%job, counted, answers, "a receipt is without its shards: the job is older than they are");
            return Ok(Vec::new());
        }
        Ok(lines)
    }

    /// A receipt's bytes: for the client, or for the provider of this name.
    pub(crate) async fn sign_receipt(
        &self,
        job: JobId,
        provider: Option<String>,
    ) -> Result<Vec<u8>, ReceiptError> {
        let (view, charges, names) = self.charges(job).await.map_err(ReceiptError::Lookup)?;
        if view.state.is_open() || !charges.closed {
            return Err(ReceiptError::Open { job, state: view.state });
        }
        let lines = self.lines(job, &charges, provider.as_deref()).await.map_err(ReceiptError::Lookup)?;
        let receipt = match &provider {
            None => Some(job_receipt(&view, &charges, &names)),
            Some(provider) => provider_receipt(&view, &charges, provider, &lines),
        };
        let of = || provider.unwrap_or_default();
        let receipt = receipt.ok_or_else(|| ReceiptError::NoShare { job, provider: of() })?;
        let broken = |error: canonical::CanonicalError| {
            tracing::error!(%error, %job, "a receipt has no canonical form");
            ReceiptError::Lookup(LookupError::Outage(Outage::Unavailable))
        };
        let signature = signature_text(&self.identity.sign(&receipt.message().map_err(broken)?));
        let hub_key = Digest(self.hub_key);
        let signed = SignedReceipt { receipt, hub_key, signature, lines, shard: None };
        canonical::to_vec(&signed).map_err(broken)
    }

    pub(crate) async fn list_providers(&self) -> Result<ProviderList, Outage> {
        let agents = self.views.agents();
        let read = self.read(move |store| {
            let mut providers = Vec::new();
            for (id, name) in records::provider_names(store)? {
                let totals = statement(store, &name, UnixMillis(u64::MAX))?.totals;
                let of = agents.iter().filter(|agent| agent.provider == name);
                let standing = of.clone().filter_map(|agent| agent.standing).max();
                providers.push(ProviderView { id, agents: of.count() as u64, standing, totals, name });
            }
            providers.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(ProviderList { providers })
        });
        read.await
    }

    pub(crate) async fn provider_statement(&self, name: String) -> Result<Statement, StatementError> {
        let read = self.read(move |store| {
            let known = records::provider_names(store)?.contains_key(&ProviderId::of_name(&name));
            let found = known.then(|| statement(store, &name, UnixMillis(u64::MAX))).transpose()?;
            Ok(found.ok_or(StatementError::Unknown(name)))
        });
        read.await.map_err(StatementError::Outage)?
    }

    pub(crate) async fn make_settlement(
        &self,
        SettlementRequest { until_ms }: SettlementRequest,
    ) -> Result<Settlement, SettleError> {
        // One at a time, so that none is made from what another has paid; the store would refuse the second.
        let _alone = self.settling.lock().await;
        let now = UnixMillis(unix_ms());
        let until = until_ms.map_or(now, |until| until.min(now));
        let read = self.read(move |store| next_settlement(store, until)).await;
        let settlement = read.map_err(SettleError::Outage)?;
        if settlement.total == Microcredits(0) {
            return Err(SettleError::NothingDue);
        }
        self.store(settlement_deed(&settlement)).await.map_err(SettleError::Outage)?;
        Ok(settlement)
    }

    pub(crate) async fn find_settlement(&self, number: u64) -> Result<Settlement, SettleError> {
        let found = self.read(move |store| records::read_settlement(store, number)).await;
        found.map_err(SettleError::Outage)?.ok_or(SettleError::Unknown(number))
    }

    pub(crate) async fn audit_page(&self, from: u64) -> Result<AuditPage, Outage> {
        let identity = self.identity.clone();
        self.read(move |store| audit::page(&identity, store, from)).await
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
#[path = "accounts/tests.rs"]
mod tests;
