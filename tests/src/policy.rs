//! What each policy of checking lets through, measured on a fleet of strangers.
//!
//! A model, not a hub: shards are numbers, an answer is right or wrong, nothing is ever lost or late. What
//! decides is the hub's own: [`Sampler`](tessera_hub_core::sampling::Sampler),
//! [`Registry`](tessera_hub_core::standing::Registry) and who may check whom. Three policies that others use
//! stand beside ours. A row is a function of its scenario, its size and a seed.

use core::fmt;

use tessera_protocol::spec::VerifyClass;

mod boinc;
mod flat;
mod fleet;
mod ours;

pub use fleet::{Conduct, Fleet, Scenario};
pub use ours::Weakness;

/// How large the model is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Providers, each of as many agents.
    pub providers: u32,
    /// Agents of each.
    pub agents_each: u32,
    /// Of the operator's own, which compute nothing but checks.
    pub anchors: u32,
    /// Shards an agent computes in its life, when it is not held back.
    pub lifetime: u32,
    /// Jobs open at once.
    pub jobs: u32,
    /// Shards of each.
    pub job_shards: u32,
}

impl Size {
    /// That of the table in the book.
    pub const BOOK: Size =
        Size { providers: 80, agents_each: 5, anchors: 4, lifetime: 5_000, jobs: 4, job_shards: 20_000 };
}

/// How results are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// So many per cent of the shards are computed twice, chosen before the answer is known.
    Flat(u32),
    /// BOINC's adaptive replication.
    Boinc,
    /// Ours, in a class of verification.
    Ours(VerifyClass),
    /// Ours, with something taken away.
    Weakened(VerifyClass, Weakness),
}

impl Policy {
    /// Those of the table.
    pub const TABLE: [Policy; 5] = [
        Policy::Flat(5),
        Policy::Flat(10),
        Policy::Boinc,
        Policy::Ours(VerifyClass::Standard),
        Policy::Ours(VerifyClass::Strict),
    ];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = |class: &VerifyClass| match class {
            VerifyClass::Standard => "standard",
            VerifyClass::Strict => "strict",
            VerifyClass::Exact => "exact",
        };
        match self {
            Policy::Flat(per_cent) => write!(f, "flat {per_cent} %"),
            Policy::Boinc => f.write_str("BOINC adaptive"),
            Policy::Ours(of) => write!(f, "ours, {}", class(of)),
            Policy::Weakened(of, weakness) => write!(f, "ours, {}, {weakness:?}", class(of)),
        }
    }
}

/// What came out of one run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Shards that were computed, by whomever and for whatever reason.
    pub computed: u64,
    /// Those among them that anchors computed.
    pub checked_by_anchors: u64,
    /// Shards whose result was given to the client.
    pub delivered: u64,
    /// Those among them that were wrong.
    pub corrupt: u64,
    /// Honest agents.
    pub honest: u32,
    /// Those among them that were sandboxed or removed at least once.
    pub honest_ejected: u32,
    /// Agents that lie.
    pub liars: u32,
    /// Of each liar that was found, how many shards it had computed by then. *Order*: ascending.
    pub found_after: Vec<u32>,
}

impl Measured {
    /// Work beyond one computation of each delivered shard. *Units*: parts per million.
    pub fn extra_ppm(&self) -> u64 {
        (self.computed - self.delivered) * 1_000_000 / self.delivered.max(1)
    }

    /// Wrong results among those delivered. *Units*: parts per thousand million.
    pub fn corrupt_ppb(&self) -> u64 {
        self.corrupt * 1_000_000_000 / self.delivered.max(1)
    }

    /// After how many of its shards a liar was found, in the median; nothing when fewer than half were.
    pub fn found_median(&self) -> Option<u32> {
        self.found_after.get((self.liars as usize).div_ceil(2).checked_sub(1)?).copied()
    }
}

/// Runs one policy in one scenario.
pub fn measure(policy: Policy, scenario: &Scenario, size: Size, seed: u64) -> Measured {
    let fleet = Fleet::new(scenario, size, seed);
    match policy {
        Policy::Flat(per_cent) => flat::run(fleet, per_cent),
        Policy::Boinc => boinc::run(fleet),
        Policy::Ours(class) => ours::run(fleet, class, None),
        Policy::Weakened(class, weakness) => ours::run(fleet, class, Some(weakness)),
    }
}

/// Every policy in every scenario; prints as the book shows it.
#[derive(Clone, Debug)]
pub struct Table {
    size: Size,
    rows: Vec<(&'static str, Policy, Measured)>,
}

/// Measures every policy in every scenario.
pub fn table(size: Size, seed: u64) -> Table {
    let mut rows = Vec::new();
    for scenario in &Scenario::ALL {
        for policy in Policy::TABLE {
            rows.push((scenario.name, policy, measure(policy, scenario, size, seed)));
        }
    }
    Table { size, rows }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { providers, agents_each, anchors, lifetime, jobs, job_shards } = self.size;
        writeln!(
            f,
            "{} agents of {providers} providers and {anchors} anchors; {lifetime} shards an agent; \
             {jobs} jobs of {job_shards} shards at once",
            providers * agents_each
        )?;
        writeln!(f)?;
        writeln!(f, "| fleet | policy | extra work | delivered corrupt | honest ejected | found after |")?;
        writeln!(f, "|---|---|---:|---:|---:|---:|")?;
        for (scenario, policy, measured) in &self.rows {
            let extra = measured.extra_ppm() as f64 / 1e4;
            write!(f, "| {scenario} | {policy} | {extra:.2} % | ")?;
            match measured.corrupt {
                0 => f.write_str("0")?,
                _ => write!(f, "{:.1e}", measured.corrupt_ppb() as f64 / 1e9)?,
            }
            match policy {
                Policy::Flat(_) | Policy::Boinc => f.write_str(" | – | ")?,
                _ => write!(f, " | {} of {} | ", measured.honest_ejected, measured.honest)?,
            }
            match measured.found_median() {
                _ if measured.liars == 0 => writeln!(f, "– |")?,
                Some(shards) => writeln!(f, "{shards} |")?,
                None => {
                    let (found, liars) = (measured.found_after.len(), measured.liars);
                    writeln!(f, "{found} of {liars} found |")?;
                }
            }
        }
        Ok(())
    }
}
