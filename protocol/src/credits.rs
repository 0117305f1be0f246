//! Credits: what work costs, who may earn it, and the documents that say what was paid.
//!
//! Owns prices, names of providers and the arithmetic of a settlement. Everything is an integer. It may not know
//! how a job ran.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::api::Standing;
use crate::id::{AgentId, JobId, ProviderId};
use crate::spec::VerifyClass;
use crate::unit::UnixMillis;

mod money;
mod statement;

pub use money::{Microcredits, ParseMicrocreditsError, RATE, class_percent, price};
pub use statement::{Removal, Stream, statement_lines};

/// The provider whose agents are the operator's own: anchors, whose answers settle disputes.
pub const OPERATOR: &str = "operator";
/// Longest name of a provider. *Units*: bytes.
pub const PROVIDER_NAME_BYTES_MAX: usize = 64;

/// The name of a provider. *Shape*: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, the first of them a letter
/// or digit, and not `operator`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ProviderName(String);

impl ProviderName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The provider of this name.
    pub fn id(&self) -> ProviderId {
        ProviderId::of_name(&self.0)
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderNameError {
    /// It is the operator's.
    Reserved,
    /// It has other characters, or too many.
    Shape,
}

impl fmt::Display for ProviderNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProviderNameError::Reserved => f.write_str(
                "`operator` is the operator: leave the provider out to enrol one of the operator's own agents",
            ),
            ProviderNameError::Shape => write!(
                f,
                "a provider's name has 1 to {PROVIDER_NAME_BYTES_MAX} ASCII letters, digits, `-`, `_` and `.`, and begins with a letter or digit"
            ),
        }
    }
}

impl core::error::Error for ProviderNameError {}

impl FromStr for ProviderName {
    type Err = ProviderNameError;
    fn from_str(text: &str) -> Result<ProviderName, ProviderNameError> {
        let begins = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        match text {
            OPERATOR => Err(ProviderNameError::Reserved),
            text if begins && plain && text.len() <= PROVIDER_NAME_BYTES_MAX => {
                Ok(ProviderName(text.to_owned()))
            }
            _ => Err(ProviderNameError::Shape),
        }
    }
}

impl<'de> Deserialize<'de> for ProviderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ProviderName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What one job cost and who was paid, as double entry. `GET /v1/jobs/{id}/bill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBill {
    /// The job.
    pub job: JobId,
    /// Who pays.
    pub project: String,
    /// How much is done twice, and so what a unit costs.
    pub verify: VerifyClass,
    /// What a compute unit costs the client. *Units*: hundredths of a microcredit.
    pub percent: u64,
    /// Compute units that are planned so far.
    pub planned: Microcredits,
    /// Compute units of final shards.
    pub units: Microcredits,
    /// Price of what is planned: moved from the project to the escrow.
    pub held: Microcredits,
    /// Price of the final shards: what the client pays.
    pub charged: Microcredits,
    /// Went back to the project when the job ended.
    pub refunded: Microcredits,
    /// Still in the escrow: nothing of a job that ended.
    pub escrow: Microcredits,
    /// The hub's share after checks; below zero where checking newcomers cost more than the share.
    pub hub: Microcredits,
    /// Whether the job ended.
    pub closed: bool,
    /// What agents were paid. *Order*: by provider and agent id.
    pub paid: Vec<BillLine>,
    /// The same as movements between accounts.
    pub postings: Vec<Posting>,
}

/// What one agent was paid for a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BillLine {
    /// Who earns it, by name.
    pub provider: String,
    /// Who did it.
    pub agent: AgentId,
    /// What it did.
    #[serde(flatten)]
    pub earned: Earned,
    /// What that is worth.
    pub amount: Microcredits,
}

/// Work that is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earned {
    /// Shards whose partials are in the result.
    pub shards: u64,
    /// Compute units of those.
    pub units: Microcredits,
    /// Checks of others' shards.
    pub checks: u64,
    /// Compute units of those.
    pub check_units: Microcredits,
}

impl Earned {
    /// What it is worth, at [`RATE`] microcredits a unit.
    pub fn amount(&self) -> Microcredits {
        Microcredits((self.units.0 + self.check_units.0) * RATE)
    }

    /// Adds another's work.
    pub fn add(&mut self, other: &Earned) {
        self.shards += other.shards;
        self.units += other.units;
        self.checks += other.checks;
        self.check_units += other.check_units;
    }
}

/// A movement between two accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// The account it leaves.
    pub debit: String,
    /// The account it reaches.
    pub credit: String,
    /// How much, never below zero.
    pub amount: Microcredits,
}

/// Every provider of a hub, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderList {
    /// The providers.
    pub providers: Vec<ProviderView>,
}

/// A provider as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    /// Its id.
    pub id: ProviderId,
    /// Its name.
    pub name: String,
    /// Its agents, connected or away.
    pub agents: u64,
    /// The best standing among them.
    pub standing: Option<Standing>,
    /// What it earned and what became of that.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What a provider earned and what became of it. *Invariant*: `gross = forfeited + held + settled + payable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Everything earned in jobs that ended.
    pub gross: Microcredits,
    /// Lost when an agent was removed.
    pub forfeited: Microcredits,
    /// The last payments, which are not payable yet.
    pub held: Microcredits,
    /// Paid by earlier settlements.
    pub settled: Microcredits,
    /// Due now.
    pub payable: Microcredits,
}

impl Totals {
    /// Adds another's.
    pub fn add(&mut self, other: &Totals) {
        self.gross += other.gross;
        self.forfeited += other.forfeited;
        self.held += other.held;
        self.settled += other.settled;
        self.payable += other.payable;
    }

    /// Whether every microcredit earned is in exactly one place.
    pub fn balances(&self) -> bool {
        self.gross == self.forfeited + self.held + self.settled + self.payable
    }
}

/// What a provider earned, job by job. `GET /v1/providers/{name}/statement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Whose.
    pub provider: String,
    /// Jobs that ended, oldest first.
    pub lines: Vec<StatementLine>,
    /// The sums of the lines.
    pub totals: Totals,
}

/// What a provider earned in one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLine {
    /// The job.
    pub job: JobId,
    /// When it ended.
    pub ended_ms: UnixMillis,
    /// What was done.
    #[serde(flatten)]
    pub earned: Earned,
    /// Microcredits a unit.
    pub rate: u64,
    /// What it is worth and what became of that.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Body of `POST /v1/settlements`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlementRequest {
    /// Only jobs that ended before then; absent, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<UnixMillis>,
}

/// What is paid out once. Kept by the hub as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Counts settlements from one.
    pub number: u64,
    /// When it was made.
    pub made_ms: UnixMillis,
    /// Only jobs that ended before then.
    pub until_ms: UnixMillis,
    /// Microcredits paid out.
    pub total: Microcredits,
    /// Every provider that is paid, by name.
    pub statements: Vec<Statement>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_named_by_a_plain_word_that_is_not_the_operator() {
        assert_eq!("acme.eu-1".parse::<ProviderName>().unwrap().id(), ProviderId::of_name("acme.eu-1"));
        assert_eq!("operator".parse::<ProviderName>(), Err(ProviderNameError::Reserved));
        let long = "a".repeat(65);
        for wrong in ["", "-a", "a b", "a/b", "ä", long.as_str()] {
            assert_eq!(wrong.parse::<ProviderName>(), Err(ProviderNameError::Shape), "{wrong}");
        }
    }
}
