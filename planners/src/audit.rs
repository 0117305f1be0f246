//! The auditor: judges a plan from the manifest alone, by arithmetic of its own.
//!
//! Shares no code with the planner but the types; walks the shards and adds them up.

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

use tessera_protocol::monte_carlo::{Market, Model, Task};
use tessera_protocol::spec::{
    ContractKind, HestonSpec, Manifest, ModelName, MonitoringSpec, MonteCarloParams, StopSpec,
};
use tessera_protocol::unit::ShardIndex;

use crate::Plan;

/// Plans of more shards are walked at both ends and probed between.
const SHARDS_WALKED_MAX: u64 = 1 << 20;

/// What is wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditError {
    /// A shard does not begin where the one before it ended.
    Gap {
        /// The shard.
        shard: u64,
    },
    /// A shard holds no samples.
    Empty {
        /// The shard.
        shard: u64,
    },
    /// An index below the count has no shard, or one at or past it has.
    Count,
    /// The shards do not end where the job ends.
    End,
    /// Costs do not add up to what the manifest's work costs.
    Cost,
    /// The task is not one an agent would accept, or not this manifest's.
    Task,
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuditError::Gap { shard } => {
                write!(f, "shard {shard} does not begin where the one before it ended")
            }
            AuditError::Empty { shard } => write!(f, "shard {shard} is empty"),
            AuditError::Count => f.write_str("the number of shards is wrong"),
            AuditError::End => f.write_str("the shards do not end where the job ends"),
            AuditError::Cost => f.write_str("the shards' costs do not add up"),
            AuditError::Task => f.write_str("the task is not the manifest's"),
        }
    }
}

impl core::error::Error for AuditError {}

/// Checks cover, disjointness, cost and task of the plan for paths `first..` of a manifest.
pub fn audit(manifest: &Manifest, first: u64, plan: &Plan) -> Result<(), AuditError> {
    task(manifest, plan)?;
    let shards = plan.shards();
    if shards == 0 || plan.shard(ShardIndex(shards)).is_some() || plan.shard(ShardIndex(u64::MAX)).is_some() {
        return Err(AuditError::Count);
    }
    let weight = weight(manifest);
    let (mut expected_first, mut cost) = (first, 0u128);
    let step = (shards / SHARDS_WALKED_MAX).max(1);
    for index in 0..shards {
        let walked = step == 1 || index < SHARDS_WALKED_MAX / 2 || index > shards - SHARDS_WALKED_MAX / 2;
        if !walked {
            continue;
        }
        let shard = plan.shard(ShardIndex(index)).ok_or(AuditError::Count)?;
        if shard.count == 0 {
            return Err(AuditError::Empty { shard: index });
        }
        if step > 1 && index == shards - SHARDS_WALKED_MAX / 2 + 1 {
            // What was skipped are whole shards of one size.
            let skipped = u128::from(shard.first - expected_first);
            cost += skipped * weight;
            expected_first = shard.first;
        }
        if shard.first != expected_first {
            return Err(AuditError::Gap { shard: index });
        }
        if u128::from(shard.cost.0) != u128::from(shard.count) * weight {
            return Err(AuditError::Cost);
        }
        expected_first += shard.count;
        cost += u128::from(shard.cost.0);
    }
    let paths = end(manifest);
    match (
        expected_first == paths,
        cost == u128::from(plan.cost().0) && cost == u128::from(paths - first) * weight,
    ) {
        (false, _) => Err(AuditError::End),
        (true, false) => Err(AuditError::Cost),
        (true, true) => Ok(()),
    }
}

/// Where a job's first round ends: at all paths, or where it may first be found to have enough.
fn end(manifest: &Manifest) -> u64 {
    let params = manifest.spec().params.monte_carlo();
    let stop = params.and_then(|params| params.stop.as_ref());
    let whole = params.map_or(0, |params| params.paths);
    let blocks = |stop: &StopSpec| stop.min_paths.unwrap_or(65_536).div_ceil(4096);
    stop.map_or(whole, |stop| whole.min(blocks(stop) * 4096))
}

/// Draws and evaluations of one path, counted from the book as the client wrote it.
fn weight(manifest: &Manifest) -> u128 {
    let Some(params) = manifest.spec().params.monte_carlo() else { return 0 };
    if params.model == ModelName::Pi {
        return 1;
    }
    if params.is_general() {
        return general_weight(params);
    }
    let mut looks = BTreeSet::new();
    let mut evaluations = 0;
    for contract in &params.book {
        let dates: &[f64] = match (&contract.kind, &contract.monitoring) {
            (ContractKind::AsianCall | ContractKind::AsianPut, _) => &contract.fixings,
            (_, Some(MonitoringSpec::Dates(dates))) => dates,
            (_, Some(MonitoringSpec::Continuous) | None) => &[],
        };
        let asian = matches!(contract.kind, ContractKind::AsianCall | ContractKind::AsianPut);
        evaluations += dates.len() + usize::from(!asian);
        for date in dates.iter().chain([&contract.expiry]) {
            looks.insert((contract.underlying.as_str(), date.to_bits()));
        }
    }
    (looks.len() + evaluations) as u128
}

/// The same for a book with correlations, variances, baskets, early exercise, controls or Greeks.
fn general_weight(params: &MonteCarloParams) -> u128 {
    let extra = usize::from(params.greeks) + usize::from(params.control_variate);
    let mut evaluations = 0;
    // The dates of each underlying, as ordered bits: times are positive.
    let mut dates: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for contract in &params.book {
        let looks = match contract.kind {
            ContractKind::AsianCall | ContractKind::AsianPut => contract.fixings.len(),
            ContractKind::BasketCall | ContractKind::BasketPut => contract.basket.len(),
            ContractKind::AmericanCall | ContractKind::AmericanPut => contract.exercise_dates().len(),
            _ => match &contract.monitoring {
                Some(MonitoringSpec::Dates(dates)) => 1 + dates.len(),
                Some(MonitoringSpec::Continuous) | None => 1,
            },
        };
        evaluations += looks + extra;
        for name in contract.underlyings() {
            dates.entry(name).or_default().extend(contract.dates().iter().map(|date| date.to_bits()));
        }
    }
    let mut draws = 0;
    if params.model == ModelName::Heston {
        let per_year = f64::from(params.steps_per_year.unwrap_or(HestonSpec::STEPS_PER_YEAR));
        for dates in dates.values() {
            let mut before = 0.0;
            for date in dates.iter().map(|bits| f64::from_bits(*bits)) {
                let steps = libm::ceil((date - before) * per_year - 1e-6) as usize;
                draws += 4 * if steps == 0 { 1 } else { steps };
                before = date;
            }
        }
    } else {
        while let Some((first, _)) = dates.first_key_value() {
            // Everything that correlations reach from the first underlying left.
            let mut reached = BTreeSet::from([*first]);
            loop {
                let before = reached.len();
                for pair in params.correlations.iter().filter(|pair| pair.rho != 0.0) {
                    if reached.contains(pair.a.as_str()) || reached.contains(pair.b.as_str()) {
                        reached.extend([pair.a.as_str(), pair.b.as_str()]);
                    }
                }
                if reached.len() == before {
                    break;
                }
            }
            let mut union = BTreeSet::new();
            for name in &reached {
                union.extend(dates.remove(name).unwrap_or_default());
            }
            let members = reached.len();
            draws += union.len() * (members + members * (members - 1) / 16);
        }
    }
    (draws + evaluations) as u128
}

fn task(manifest: &Manifest, plan: &Plan) -> Result<(), AuditError> {
    let task = Task::decode(plan.task()).map_err(|_| AuditError::Task)?;
    let params = manifest.spec().params.monte_carlo().ok_or(AuditError::Task)?;
    let book = &params.book;
    let same_contracts = |market: &Market| {
        market.contracts.len() == book.len()
            && market.contracts.iter().zip(book).all(|(planned, asked)| {
                let times = &market.drivers[planned.driver as usize].times;
                planned.id == asked.id
                    && planned.strike == asked.strike
                    && times[planned.expiry as usize] == asked.expiry
            })
    };
    let same = match &task.model {
        Model::Pi => params.model == ModelName::Pi,
        Model::Gbm(market) => !params.is_general() && same_contracts(market),
        Model::General(general) => {
            params.is_general()
                && general.antithetic == params.antithetic
                && general.greeks == params.greeks
                && general.controls.is_empty() != params.control_variate
                && general.variances.is_empty() == (params.model == ModelName::Gbm)
                && same_contracts(&general.market)
        }
    };
    if same { Ok(()) } else { Err(AuditError::Task) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use tessera_protocol::spec::JobSpec;

    fn manifest(paths: u64, shard_size: Option<u64>, contracts: usize) -> Manifest {
        let mut book = String::new();
        for at in 0..contracts {
            let comma = if at == 0 { "" } else { "," };
            let kind =
                if at % 2 == 0 { r#""european_call""# } else { r#""asian_call","fixings":[0.5,0.75]"# };
            book += &format!(
                r#"{comma}{{"id":"c{at}","underlying":"u{}","kind":{kind},"spot":100,"strike":{},"rate":0.05,"volatility":0.2,"expiry":1}}"#,
                at % 3,
                90 + at
            );
        }
        let size = shard_size.map(|size| format!(r#","shard_size":{size}"#)).unwrap_or_default();
        let model =
            if contracts == 0 { String::from(r#""pi""#) } else { format!(r#""gbm","book":[{book}]"#) };
        let text = format!(
            r#"{{"name":"n","workload":"monte_carlo","params":{{"paths":{paths}{size},"model":{model}}}}}"#
        );
        JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap()
    }

    #[test]
    fn every_plan_covers_its_paths_once_at_the_price_of_the_manifest() {
        for contracts in [0, 1, 7] {
            for paths in [1, 2, 4095, 4096, 1_000_003, 1 << 33] {
                for size in [None, Some(1), Some(1000), Some(1 << 30)] {
                    if size == Some(1) && paths > 1 << 20 {
                        continue;
                    }
                    for first in [0, 1, paths / 2] {
                        let manifest = manifest(paths, size, contracts);
                        match Plan::new(&manifest, first) {
                            Ok(plan) => assert_eq!(
                                audit(&manifest, first, &plan),
                                Ok(()),
                                "{contracts} {paths} {size:?} {first}"
                            ),
                            Err(_) => assert!(first >= paths),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_plan_for_other_paths_or_another_book_is_found_out() {
        let plan = Plan::new(&manifest(10_000, Some(1000), 2), 0).unwrap();
        assert_eq!(audit(&manifest(10_001, Some(1000), 2), 0, &plan), Err(AuditError::End));
        assert_eq!(audit(&manifest(10_000, Some(1000), 2), 500, &plan), Err(AuditError::Gap { shard: 0 }));
        assert_eq!(audit(&manifest(10_000, Some(1000), 3), 0, &plan), Err(AuditError::Task));
        assert_eq!(audit(&manifest(10_000, Some(1000), 0), 0, &plan), Err(AuditError::Task));
    }

    #[test]
    fn the_same_manifest_gives_the_same_plan_and_digest() {
        let (one, two) = (manifest(1_000_000, None, 5), manifest(1_000_000, None, 5));
        assert_eq!(Plan::new(&one, 0).unwrap().digest(), Plan::new(&two, 0).unwrap().digest());
        assert_ne!(Plan::new(&one, 0).unwrap().digest(), Plan::new(&one, 4096).unwrap().digest());
    }

    #[test]
    fn a_billion_shards_are_planned_without_listing_them() {
        let manifest = manifest(1_000_000_000, Some(1), 0);
        let plan = Plan::new(&manifest, 0).unwrap();
        assert_eq!(plan.shards(), 1_000_000_000);
        assert_eq!(plan.shard(ShardIndex(999_999_999)).unwrap().first, 999_999_999);
    }
}
