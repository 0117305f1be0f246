//! A book of contracts along the paths of its drivers.
//!
//! Owns the block loop: simulate, visit, settle, tally. The value of the book on a path is the sum of
//! `quantity · x` in the order of the book, one fused multiply-add a contract, which fixes its rounding.

use std::ops::Range;

use tessera_protocol::monte_carlo::{HISTOGRAM_BINS, Refine, SUMS_PER_BOOK, SUMS_PER_CONTRACT};
use tessera_protocol::tally::Tally;

use super::contract::{Outcome, advance, fix, hold, scale, settle, watch};
use super::histogram::{PayoffHistogram, ValueHistogram};
use super::path::{Block, Blocks, Lanes, normals};
use super::program::{Action, Program, Style, Terms, Visit};
use super::refine::Refined;
use super::{Detail, KernelError, Poll};
use crate::isa::Isa;
use crate::philox::Schedule;
use crate::sums::Moments;

/// Vector passes that a date's normals, or a visit of a contract and its tallies, amount to, for [`Poll`].
const PASSES_PER_VISIT: usize = 4;

/// Tallies a book over the blocks; when it refines, only its value.
pub(super) fn run(
    program: &Program,
    key: [u32; 2],
    isa: Isa,
    blocks: Blocks,
    (detail, refine): (Detail, Option<&Refine>),
    poll: &mut Poll<'_>,
) -> Result<Tally, KernelError> {
    let schedule = Schedule::new(key);
    let mut scratch = Scratch::new(program);
    let mut results = Results::new(program, detail, refine);
    let samples = blocks.paths();
    for block in blocks {
        simulate(program, &schedule, isa, &block, &mut scratch, &mut results, poll)?;
        if detail == Detail::Full || refine.is_some() {
            results.tally_book(isa, program, &block.wanted, &mut scratch, poll)?;
        }
    }
    Ok(results.into_tally(samples))
}

/// Every array of the block loop, allocated once.
struct Scratch {
    uniforms: Lanes,
    normals: Lanes,
    w: Lanes,
    payoff: Lanes,
    delta: Lanes,
    value: Lanes,
    /// What contracts carry from date to date.
    states: Vec<Lanes>,
    /// Discounted payoffs, one block a contract.
    discounted: Vec<Lanes>,
}

impl Scratch {
    fn new(program: &Program) -> Box<Self> {
        Box::new(Scratch {
            uniforms: Lanes::ZERO,
            normals: Lanes::ZERO,
            w: Lanes::ZERO,
            payoff: Lanes::ZERO,
            delta: Lanes::ZERO,
            value: Lanes::ZERO,
            states: vec![Lanes::ZERO; program.states],
            discounted: vec![Lanes::ZERO; program.contracts.len()],
        })
    }
}

/// Runs every driver of one block to its last date.
fn simulate(
    program: &Program,
    schedule: &Schedule,
    isa: Isa,
    block: &Block,
    scratch: &mut Scratch,
    results: &mut Results,
    poll: &mut Poll<'_>,
) -> Result<(), KernelError> {
    let paths = block.paths();
    for (stream, steps) in program.drivers.iter().enumerate() {
        for (number, step) in steps.iter().enumerate() {
            let [uniforms, z, w] = [&mut scratch.uniforms, &mut scratch.normals, &mut scratch.w]
                .map(|lanes| &mut lanes.0[..paths]);
            normals(isa, schedule, block, [number as u32, stream as u32], uniforms, z);
            if number == 0 {
                scale(isa, step.root_dt, z, w);
            } else {
                advance(isa, step.root_dt, z, w);
            }
            poll.tick(paths * PASSES_PER_VISIT)?;
            for visit in &step.visits {
                poll.tick(paths * PASSES_PER_VISIT)?;
                let terms = &program.contracts[visit.contract];
                if visit.action == Action::Settle {
                    settle_visit(isa, visit, terms, &block.wanted, scratch, results)?;
                } else {
                    look(isa, visit, terms, paths, scratch);
                }
            }
        }
    }
    Ok(())
}

/// A visit before expiry: a fixing or a look at a barrier.
fn look(isa: Isa, visit: &Visit, terms: &Terms, paths: usize, scratch: &mut Scratch) {
    let w = &scratch.w.0[..paths];
    let states = &mut scratch.states;
    match terms.style {
        Style::Asian { sum, .. } => {
            fix(isa, &visit.price, visit.action == Action::FixFirst, w, &mut states[sum].0[..paths]);
        }
        Style::WatchedBarrier { alive, first, log_barrier, .. } => {
            if visit.action == Action::WatchFirst {
                states[first].0[..paths].copy_from_slice(w);
                states[alive].0[..paths].fill(1.0);
            }
            watch(isa, &visit.price, log_barrier, w, &mut states[alive].0[..paths]);
        }
        Style::European | Style::Digital { .. } | Style::BridgedBarrier { .. } => {
            unreachable!("only averages and watched barriers look before expiry")
        }
    }
}

fn settle_visit(
    isa: Isa,
    visit: &Visit,
    terms: &Terms,
    wanted: &Range<usize>,
    scratch: &mut Scratch,
    results: &mut Results,
) -> Result<(), KernelError> {
    let states = |state: usize| &scratch.states[state].0[wanted.clone()];
    let (payoff, delta) = (&mut scratch.payoff.0[wanted.clone()], &mut scratch.delta.0[wanted.clone()]);
    let discounted = &mut scratch.discounted[visit.contract].0[wanted.clone()];
    let out = Outcome { payoff, delta, discounted };
    settle(isa, terms, &visit.price, &scratch.w.0[wanted.clone()], states, out);
    results.tally_contract(isa, visit.contract, terms, payoff, delta, discounted)
}

/// Everything that is being added up.
struct Results {
    detail: Detail,
    /// What the book's values are counted in, when nothing else is wanted.
    refined: Option<Refined>,
    contracts: Vec<ContractResults>,
    value: Moments,
    values: ValueHistogram,
}

struct ContractResults {
    price: Moments,
    delta: Moments,
    payoffs: PayoffHistogram,
}

impl Results {
    fn new(program: &Program, detail: Detail, refine: Option<&Refine>) -> Self {
        let contract = || ContractResults {
            price: Moments::default(),
            delta: Moments::default(),
            payoffs: PayoffHistogram::new(),
        };
        Results {
            detail,
            refined: refine.map(Refined::new),
            contracts: std::iter::repeat_with(contract).take(program.contracts.len()).collect(),
            value: Moments::default(),
            values: ValueHistogram::new(),
        }
    }

    fn tally_contract(
        &mut self,
        isa: Isa,
        contract: usize,
        terms: &Terms,
        payoff: &[f64],
        delta: &[f64],
        discounted: &[f64],
    ) -> Result<(), KernelError> {
        if self.refined.is_some() {
            return Ok(());
        }
        let not_finite = |_| KernelError::NotFinite { contract };
        let results = &mut self.contracts[contract];
        results.price.add(isa, discounted).map_err(not_finite)?;
        if self.detail == Detail::Full {
            results.delta.add(isa, delta).map_err(not_finite)?;
            results.payoffs.record(isa, payoff, terms.bins_per_unit);
        }
        Ok(())
    }

    fn tally_book(
        &mut self,
        isa: Isa,
        program: &Program,
        wanted: &Range<usize>,
        scratch: &mut Scratch,
        poll: &mut Poll<'_>,
    ) -> Result<(), KernelError> {
        let value = &mut scratch.value.0[wanted.clone()];
        value.fill(0.0);
        for (position, terms) in program.contracts.iter().enumerate() {
            hold(isa, terms.quantity, &scratch.discounted[position].0[wanted.clone()], value);
        }
        poll.tick(value.len() * (program.contracts.len() + PASSES_PER_VISIT))?;
        if let Some(refined) = &mut self.refined {
            return refined.record(isa, value);
        }
        self.value.add(isa, value).map_err(|_| KernelError::BookNotFinite)?;
        self.values.record(isa, value, program.anchor);
        Ok(())
    }

    fn into_tally(self, samples: u64) -> Tally {
        if let Some(refined) = self.refined {
            return refined.into_tally(samples);
        }
        let mut tally = Tally { samples, ..Tally::default() };
        tally.sums.reserve(SUMS_PER_CONTRACT * self.contracts.len() + SUMS_PER_BOOK);
        for contract in self.contracts {
            tally.sums.extend(contract.price.into_sums());
            tally.sums.extend(contract.delta.into_sums());
            if self.detail == Detail::Full {
                tally.counts.extend(contract.payoffs.into_counts());
            }
        }
        tally.sums.extend(self.value.into_sums());
        if self.detail == Detail::Full {
            debug_assert!(tally.counts.len().is_multiple_of(HISTOGRAM_BINS));
            tally.bins = self.values.into_bins();
        }
        tally
    }
}
