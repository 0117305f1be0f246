//! Looks at honest work and at lies.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use tessera_protocol::bins::bin_of;
use tessera_protocol::exact::{ExactSum, PackedSums};
use tessera_protocol::monte_carlo::HISTOGRAM_BINS;
use tessera_protocol::spec::JobSpec;

use super::*;

const SHARD: u64 = 64;

/// Uniform numbers between zero and one. *Source*: SplitMix64.
struct Random(u64);

impl Random {
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn manifest(workload: &str, params: &str, inputs: &str) -> (Manifest, Plan) {
    let text =
        alloc::format!(r#"{{"name":"n","workload":"{workload}","params":{{{params}}},"inputs":[{inputs}]}}"#);
    let manifest = JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap();
    let plan = Plan::new(&manifest, 0).unwrap();
    (manifest, plan)
}

fn pi(shards: u64) -> (Manifest, Plan) {
    let paths = shards * SHARD;
    manifest("monte_carlo", &alloc::format!(r#""model":"pi","paths":{paths},"shard_size":{SHARD}"#), "")
}

fn book(shards: u64) -> (Manifest, Plan) {
    let paths = shards * SHARD;
    let params = alloc::format!(
        r#""model":"gbm","paths":{paths},"shard_size":{SHARD},"book":[{{"id":"c","underlying":"u",
            "kind":"european_call","spot":100,"strike":90,"rate":0.05,"volatility":0.2,"expiry":1,"quantity":2}}]"#
    );
    manifest("monte_carlo", &params, "")
}

/// What a kernel returns whose paths have these payoffs, of a book that holds two.
fn tally(payoffs: &[f64]) -> Tally {
    let mut sums = alloc::vec![ExactSum::new(); 6];
    let (mut bins, mut counts) = (BTreeMap::new(), alloc::vec![0; HISTOGRAM_BINS]);
    for payoff in payoffs {
        let value = 2.0 * payoff;
        for (pair, term) in [*payoff, payoff / 50.0, value].into_iter().enumerate() {
            sums[2 * pair].add(term).unwrap();
            sums[2 * pair + 1].add(term * term).unwrap();
        }
        // The planner's anchor: two calls that are ten in the money.
        *bins.entry(bin_of(value - 20.0)).or_default() += 1;
        counts[usize::from(*payoff > 0.0)] += 1;
    }
    Tally { samples: payoffs.len() as u64, sums, counts, bins: bins.into_iter().collect() }
}

fn looked(
    triage: &mut Triage,
    job: &(Manifest, Plan),
    tally: &Tally,
    pool: Option<&Tally>,
) -> Option<Oddity> {
    let Tally { samples, sums, counts, bins } = tally.clone();
    let mut bytes = Vec::new();
    sums.iter().for_each(|sum| sum.encode(&mut bytes));
    let sums = PackedSums::decode(&bytes, sums.len()).unwrap().0;
    let part = Part::Tally(Tally { samples, sums, counts: counts.into(), bins });
    triage.look(&job.0, &job.1, ShardIndex(0), &part, pool)
}

/// How many of so many honest shards look odd, each beside those before it.
fn odd_among_honest(shards: u64, mut payoff: impl FnMut() -> f64) -> u64 {
    let (job, mut triage) = (book(shards), Triage::default());
    let (mut pool, mut odd) = (tally(&[]), 0);
    for _ in 0..shards {
        let payoffs: Vec<f64> = (0..SHARD).map(|_| payoff()).collect();
        let mut shard = tally(&payoffs);
        assert!(job.1.read_partial(&job.0, ShardIndex(0), digest(), &shard.encode()).is_some());
        odd += u64::from(looked(&mut triage, &job, &shard, Some(&pool)).is_some());
        shard.bins.clear();
        pool.merge(&shard).unwrap();
    }
    odd
}

fn digest() -> tessera_protocol::id::Digest {
    tessera_protocol::id::Digest([0; 32])
}

/// Sixteen shards and more of payoffs between zero and twenty.
fn pool(random: &mut Random) -> Tally {
    let payoffs: Vec<f64> = (0..64 * SHARD).map(|_| 20.0 * random.draw()).collect();
    tally(&payoffs)
}

#[test]
fn honest_samples_with_heavy_tails_hardly_ever_look_odd() {
    let mut random = Random(1);
    let heavy = odd_among_honest(10_000, || 1.0 / random.draw().max(1e-300));
    assert!(heavy < 10, "{heavy} of 10000 whose mean is infinite");
    let mut random = Random(2);
    let rare = odd_among_honest(10_000, || if random.draw() < 1e-4 { 1e6 } else { 0.0 });
    assert!(rare < 10, "{rare} of 10000 where one sample in 10000 is all there is");
    let mut random = Random(3);
    let plain = odd_among_honest(2_000, || 20.0 * random.draw());
    assert_eq!(plain, 0);
}

#[test]
fn a_tally_of_samples_that_were_shifted_looks_odd_once_enough_is_final() {
    let (job, mut random) = (book(1_000), Random(4));
    let pool = pool(&mut random);
    // Every payoff is six too high, and the tally agrees with itself.
    let payoffs: Vec<f64> = (0..SHARD).map(|_| 6.0 + 20.0 * random.draw()).collect();
    let shifted = tally(&payoffs);
    let few = tally(&payoffs[..32]);
    assert_eq!(looked(&mut Triage::default(), &job, &shifted, None), None);
    assert_eq!(
        looked(&mut Triage::default(), &job, &shifted, Some(&few)),
        None,
        "too little to compare with"
    );
    let odd = looked(&mut Triage::default(), &job, &shifted, Some(&pool));
    let Some(Oddity::MeanApart { sum: 0, samples: 4096, tenths, .. }) = odd else { panic!("{odd:?}") };
    assert!((65..110).contains(&tenths), "six of a standard error of 0.72: {tenths}");
    let words = odd.unwrap().to_string();
    assert!(
        words.starts_with("sum 0 has a mean of 1") && words.ends_with("standard errors apart"),
        "{words}"
    );
}

#[test]
fn a_sum_that_was_changed_alone_contradicts_the_others_even_in_the_first_shard() {
    let (job, mut random) = (book(1_000), Random(5));
    let payoffs: Vec<f64> = (0..SHARD).map(|_| 20.0 * random.draw()).collect();
    let honest = tally(&payoffs);
    let look = |tally: &Tally| looked(&mut Triage::default(), &job, tally, None);
    assert_eq!(look(&honest), None);
    let with = |sums: &[usize], by: f64| {
        let mut lie = honest.clone();
        sums.iter().for_each(|sum| lie.sums[*sum].add(by).unwrap());
        look(&lie)
    };
    assert!(matches!(with(&[0], 0.001), Some(Oddity::BookUnlikeContracts { .. })));
    assert!(matches!(with(&[1], -1e6), Some(Oddity::SquaresTooSmall { sum: 0, samples: SHARD, .. })));
    let mut both = honest.clone();
    both.sums[0].add(10.0).unwrap();
    both.sums[4].add(20.0).unwrap();
    assert!(matches!(look(&both), Some(Oddity::BookUnlikeBins { .. })));
}

#[test]
fn a_count_is_compared_with_the_counts_that_are_final() {
    let job = pi(1_000);
    let of = |samples, inside| Tally { samples, counts: alloc::vec![inside], ..Tally::default() };
    let pool = of(1_024, 804);
    let look = |inside| looked(&mut Triage::default(), &job, &of(SHARD, inside), Some(&pool));
    for inside in 35..=64 {
        assert_eq!(look(inside), None, "{inside} of 64 happens");
    }
    for inside in 0..20 {
        assert!(look(inside).is_some(), "{inside} of 64 does not");
    }
}

/// One tile of a product of two matrices from the seed, or of one with itself.
fn product(task: &tessera_protocol::matrix::Task, of_itself: bool) -> Vec<f64> {
    let ([m, n, k], mut random) = (task.shape(), Random(6));
    let mut made = |count: u64| -> Vec<f64> { (0..count).map(|_| 2.0 * random.draw() - 1.0).collect() };
    let a = made(m * k);
    let b = if of_itself { a.clone() } else { made(n * k) };
    let dot = |row: u64, col: u64| -> f64 {
        (0..k).map(|term| a[(row * k + term) as usize] * b[(col * k + term) as usize]).sum()
    };
    let element = |at: u64| {
        let (row, col) = (at / n, at % n);
        if of_itself && col > row { 0.0 } else { dot(row, col) }
    };
    (0..m * n).map(element).collect()
}

fn block(elements: &[f64]) -> Part {
    Part::Block(elements.iter().flat_map(|element| element.to_le_bytes()).collect())
}

#[test]
fn elements_that_random_operands_cannot_give_look_odd() {
    let matrix = r#"{"random":"uniform","rows":16,"cols":400}"#;
    let gemm = alloc::format!(
        r#""dtype":"f64","a":{matrix},"b":{{"random":"uniform","rows":400,"cols":16}},"tile":[16,16]"#
    );
    let syrk = alloc::format!(r#""dtype":"f64","a":{matrix},"tile":16,"triangle":"lower""#);
    for (workload, params) in [("gemm", gemm), ("syrk", syrk)] {
        let (manifest, plan) = manifest(workload, &params, "");
        let honest = product(plan.matrix().unwrap(), workload == "syrk");
        let look = |part| Triage::default().look(&manifest, &plan, ShardIndex(0), &part, None);
        assert_eq!(look(block(&honest)), None, "{workload}");
        let mut large = honest.clone();
        // Off the diagonal, where an element is the sum of as many below zero as above.
        large[16] = 100.0;
        let odd = look(block(&large));
        assert!(matches!(odd, Some(Oddity::ElementTooLarge { row: 1, col: 0, .. })), "{workload} {odd:?}");
        assert!(matches!(look(block(&[0.0; 256])), Some(Oddity::AllZero { .. })), "{workload}");
    }
}

#[test]
fn a_gram_tile_whose_diagonal_is_too_small_for_the_rest_looks_odd_whatever_its_operand() {
    let input = r#"{"name":"a.npy","blake3":"0000000000000000000000000000000000000000000000000000000000000000","bytes":51328}"#;
    let params = r#""dtype":"f64","a":{"input":"a.npy","rows":16,"cols":400},"tile":16,"triangle":"lower""#;
    let (manifest, plan) = manifest("syrk", params, input);
    let honest = product(plan.matrix().unwrap(), true);
    let look = |part| Triage::default().look(&manifest, &plan, ShardIndex(0), &part, None);
    assert_eq!(look(block(&honest)), None);
    let mut lie = honest.clone();
    lie[5 * 16 + 3] = 1e3;
    assert_eq!(look(block(&lie)), Some(Oddity::NotAGram { row: 5, col: 3 }));
}

#[test]
fn a_block_of_zeros_looks_odd_where_the_others_are_not() {
    let zeros = "00".repeat(32);
    let input = |name: &str| alloc::format!(r#"{{"name":"{name}","blake3":"{zeros}","bytes":2176}}"#);
    let params = r#""dtype":"f64","a":{"input":"a","rows":16,"cols":16},"b":{"input":"a","rows":16,"cols":16},"tile":[16,16]"#;
    let (manifest, plan) = manifest("gemm", params, &input("a"));
    let (zero, other) = (block(&[0.0; 256]), block(&[1.0; 256]));
    let mut triage = Triage::default();
    let mut look = |released: &[&Part]| {
        released.iter().for_each(|part| triage.released(part));
        triage.look(&manifest, &plan, ShardIndex(0), &zero, None)
    };
    assert_eq!(look(&[&other; 15]), None, "fifteen others say too little");
    assert_eq!(look(&[&other]), Some(Oddity::AllZero { released: 16, zeros: 0 }));
    assert_eq!(look(&[&zero]), None, "where some are, one more is no surprise");
}
