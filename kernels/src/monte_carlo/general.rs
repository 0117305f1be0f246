//! A book with correlations, stochastic variance, baskets, early exercise, opposite paths, controls, Greeks.
//!
//! Owns the block loop of general tasks: simulate the groups, visit, settle, tally. The value of the book on
//! a path is what it is in a plain book. With opposite paths a block holds pairs: its first half has the
//! numbers, its second half their opposites, and the mean of the two is what is tallied.
//!
//! Streams: the driver's position for its own normals, with [`VARIANCE_STREAM`] for its variance's, and
//! those of [`exercise`] for learning.

use std::ops::Range;

use tessera_protocol::monte_carlo::{GREEKS, Refine, Scheme};
use tessera_protocol::tally::Tally;

use super::contract::{advance, hold};
use super::histogram::{PayoffHistogram, ValueHistogram};
use super::path::{Block, Blocks, Lanes, normals};
use super::refine::Refined;
use super::{Detail, KernelError, Poll};
use crate::elementary::exp;
use crate::isa::Isa;
use crate::philox::Schedule;
use crate::sums::{Moments, Windowed};

mod contract;
mod exercise;
mod program;
mod variance;

use contract::{Chance, Observed, Outcome, combine};
pub(super) use exercise::Policy;
pub(super) use program::Program;
use program::{Action, Group, Style, Terms, Visit};
use variance::{Draws, Motion};

/// The streams of variances have this bit, and the driver's position below it.
const VARIANCE_STREAM: u32 = 1 << 30;
/// Vector passes that a visit and its tallies, or a date's normals, amount to, for [`Poll`].
const PASSES_PER_VISIT: usize = 8;

pub(super) use exercise::policies;

/// Tallies a general book over the blocks; when it refines, only its value.
pub(super) fn run(
    program: &Program,
    policies: &[Policy],
    key: [u32; 2],
    isa: Isa,
    [first_path, paths]: [u64; 2],
    (detail, refine): (Detail, Option<&Refine>),
    poll: &mut Poll<'_>,
) -> Result<Tally, KernelError> {
    let pairs = program.antithetic;
    if pairs && (first_path % 2 == 1 || paths % 2 == 1) {
        return Err(KernelError::Range);
    }
    let blocks =
        if pairs { Blocks::of_pairs(first_path / 2, paths / 2) } else { Blocks::new(first_path, paths) };
    let mut engine = Engine {
        program,
        policies,
        isa,
        schedule: Schedule::new(key),
        scratch: Scratch::new(program),
        results: Results::new(program, detail, refine),
    };
    for block in blocks {
        engine.block(&block, poll)?;
    }
    Ok(engine.results.into_tally(program, paths))
}

struct Engine<'a> {
    program: &'a Program,
    policies: &'a [Policy],
    isa: Isa,
    schedule: Schedule,
    scratch: Box<Scratch>,
    results: Results,
}

/// Every array of the block loop, allocated once.
struct Scratch {
    uniforms: Lanes,
    /// Independent normals of a group's members.
    normals: Vec<Lanes>,
    combined: Lanes,
    variance_normals: Lanes,
    next: Lanes,
    motions: Vec<Motion>,
    observed: Observed,
    outcome: Outcome,
    states: Vec<Lanes>,
    /// Discounted payoffs, one block a contract.
    discounted: Vec<Lanes>,
    value: Lanes,
    means: Lanes,
    other_means: Lanes,
}

impl Scratch {
    fn new(program: &Program) -> Box<Self> {
        Box::new(Scratch {
            uniforms: Lanes::ZERO,
            normals: vec![Lanes::ZERO; program.members_max],
            combined: Lanes::ZERO,
            variance_normals: Lanes::ZERO,
            next: Lanes::ZERO,
            motions: vec![Motion::STILL; program.members_max],
            observed: Observed::NOTHING,
            outcome: Outcome::NOTHING,
            states: vec![Lanes::ZERO; program.states],
            discounted: vec![Lanes::ZERO; program.contracts.len()],
            value: Lanes::ZERO,
            means: Lanes::ZERO,
            other_means: Lanes::ZERO,
        })
    }
}

/// Which positions of a block's arrays count.
#[derive(Clone, Debug)]
struct Wanted {
    /// Of samples: paths, or pairs.
    samples: Range<usize>,
    /// Distance from a path to its opposite; zero where paths have none.
    opposite: usize,
}

impl Wanted {
    /// Paths, the opposite ones apart.
    fn halves(&self) -> [Range<usize>; 2] {
        let second = match self.opposite {
            0 => 0..0,
            distance => self.samples.start + distance..self.samples.end + distance,
        };
        [self.samples.clone(), second]
    }
}

impl Engine<'_> {
    fn block(&mut self, block: &Block, poll: &mut Poll<'_>) -> Result<(), KernelError> {
        let opposite = if self.program.antithetic { block.paths() } else { 0 };
        let wanted = Wanted { samples: block.wanted.clone(), opposite };
        let paths = block.paths() + opposite;
        for group in &self.program.groups {
            self.begin(group, paths);
            for (number, date) in group.dates.iter().enumerate() {
                if group.variances.is_empty() {
                    self.brownian_step(group, number as u32, date.root_dt, block, paths, poll)?;
                } else {
                    self.variance_steps(group, number, block, paths, poll)?;
                }
                for visit in &date.visits {
                    poll.tick(paths * PASSES_PER_VISIT)?;
                    self.visit(visit, paths, &wanted)?;
                }
            }
        }
        self.book(paths, &wanted, poll)
    }

    fn begin(&mut self, group: &Group, paths: usize) {
        for (member, motion) in self.scratch.motions.iter_mut().enumerate().take(group.streams.len()) {
            motion.w.0[..paths].fill(0.0);
            if let Some(variance) = group.variances.get(member) {
                motion.v.0[..paths].fill(variance.v0);
                motion.g.0[..paths].fill(0.0);
                motion.s2.0[..paths].fill(0.0);
            }
        }
    }

    /// One step of every member, correlated by the group's factor.
    fn brownian_step(
        &mut self,
        group: &Group,
        step: u32,
        root_dt: f64,
        block: &Block,
        paths: usize,
        poll: &mut Poll<'_>,
    ) -> Result<(), KernelError> {
        let isa = self.isa;
        let scratch = &mut *self.scratch;
        let mut row = group.factor.iter();
        for (member, stream) in group.streams.iter().enumerate() {
            draw(
                isa,
                &self.schedule,
                block,
                [step, *stream],
                &mut scratch.uniforms,
                &mut scratch.normals[member],
                paths,
            );
            poll.tick(paths * (PASSES_PER_VISIT + member))?;
            let w = &mut scratch.motions[member].w.0[..paths];
            if member == 0 {
                row.next();
                advance(isa, root_dt, &scratch.normals[0].0[..paths], w);
                continue;
            }
            let combined = &mut scratch.combined.0[..paths];
            for (other, coefficient) in row.by_ref().take(member + 1).enumerate() {
                if other == 0 || *coefficient != 0.0 {
                    combine(isa, *coefficient, other == 0, &scratch.normals[other].0[..paths], combined);
                }
            }
            advance(isa, root_dt, combined, w);
        }
        Ok(())
    }

    /// The steps of every member's variance up to a date.
    fn variance_steps(
        &mut self,
        group: &Group,
        date: usize,
        block: &Block,
        paths: usize,
        poll: &mut Poll<'_>,
    ) -> Result<(), KernelError> {
        let isa = self.isa;
        let scratch = &mut *self.scratch;
        for (member, stream) in group.streams.iter().enumerate() {
            let steps = &group.dates[date].steps[member];
            let scheme: Scheme = group.variances[member].scheme;
            for number in steps.first..steps.first + steps.count {
                let [price, variance] = [&mut scratch.normals[0], &mut scratch.variance_normals];
                draw(isa, &self.schedule, block, [number, *stream], &mut scratch.uniforms, price, paths);
                let own = [number, VARIANCE_STREAM | *stream];
                draw(isa, &self.schedule, block, own, &mut scratch.uniforms, variance, paths);
                poll.tick(2 * paths * PASSES_PER_VISIT)?;
                let draws = Draws {
                    price: &price.0[..paths],
                    variance: &variance.0[..paths],
                    uniform: &scratch.uniforms.0[..paths],
                };
                let next = &mut scratch.next.0[..paths];
                variance::step(isa, scheme, steps, &draws, &mut scratch.motions[member], next);
            }
        }
        Ok(())
    }

    fn visit(&mut self, visit: &Visit, paths: usize, wanted: &Wanted) -> Result<(), KernelError> {
        let terms = &self.program.contracts[visit.contract];
        let isa = self.isa;
        let scratch = &mut *self.scratch;
        let motion = &scratch.motions[visit.member];
        contract::observe(isa, &visit.price, &motion.w.0[..paths], &mut scratch.observed);
        if needs_score(terms, self.program.greeks) {
            score(isa, visit, motion, paths, &mut scratch.observed);
        }
        let settles = match visit.action {
            Action::Look { first } => {
                look(isa, visit, terms, first, paths, scratch);
                false
            }
            Action::Part { nth, first, last } => {
                take_part(isa, terms, nth, first, paths, scratch);
                last
            }
            Action::Exercise { nth } => {
                take_chance(isa, terms, &self.policies[visit.contract], visit, nth, paths, scratch)
            }
            Action::Settle => true,
        };
        if !settles {
            return Ok(());
        }
        settle(isa, self.program, visit, terms, paths, scratch);
        scratch.discounted[visit.contract].0[..paths].copy_from_slice(&scratch.outcome.x.0[..paths]);
        self.results.tally_contract(isa, self.program, visit.contract, scratch, paths, wanted)
    }

    fn book(&mut self, paths: usize, wanted: &Wanted, poll: &mut Poll<'_>) -> Result<(), KernelError> {
        if self.results.detail != Detail::Full && self.results.refined.is_none() {
            return Ok(());
        }
        let (isa, scratch) = (self.isa, &mut *self.scratch);
        let value = &mut scratch.value.0[..paths];
        value.fill(0.0);
        for (terms, discounted) in self.program.contracts.iter().zip(&scratch.discounted) {
            hold(isa, terms.quantity, &discounted.0[..paths], value);
        }
        poll.tick(paths * (self.program.contracts.len() + PASSES_PER_VISIT))?;
        for half in wanted.halves() {
            let values = &scratch.value.0[half];
            match &mut self.results.refined {
                Some(refined) => refined.record(isa, values)?,
                None => self.results.values.record(isa, values, self.program.anchor),
            }
        }
        if self.results.refined.is_some() {
            return Ok(());
        }
        let samples = sampled(isa, &scratch.value, wanted, &mut scratch.means);
        self.results.value.add(isa, samples).map_err(|_| KernelError::BookNotFinite)
    }
}

/// The normals of one step of a stream, and their opposites where a block has them.
fn draw(
    isa: Isa,
    schedule: &Schedule,
    block: &Block,
    step_and_stream: [u32; 2],
    uniforms: &mut Lanes,
    z: &mut Lanes,
    paths: usize,
) {
    let n = block.paths();
    normals(isa, schedule, block, step_and_stream, &mut uniforms.0[..n], &mut z.0[..n]);
    if paths > n {
        for lanes in [uniforms, z] {
            let (drawn, opposite) = lanes.0.split_at_mut(n);
            contract::negated(isa, drawn, &mut opposite[..n]);
        }
    }
}

fn needs_score(terms: &Terms, greeks: bool) -> bool {
    greeks || matches!(terms.style, Style::Digital { .. } | Style::WatchedBarrier { .. })
}

/// The score of the price that was observed.
fn score(isa: Isa, visit: &Visit, motion: &Motion, paths: usize, observed: &mut Observed) {
    let (h, i) = (&mut observed.h.0[..paths], &mut observed.i.0[..paths]);
    if visit.score == 0.0 {
        contract::conditional_scores(isa, &motion.g.0[..paths], &motion.s2.0[..paths], h, i);
    } else {
        combine(isa, visit.score, true, &motion.w.0[..paths], h);
        i.fill(visit.inverse_variance);
    }
}

/// The five state arrays of an average or a watched barrier.
fn five(states: &mut [Lanes], first: usize, paths: usize) -> [&mut [f64]; 5] {
    let mut all = states[first..first + 5].iter_mut().map(|lanes| &mut lanes.0[..paths]);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

fn five_read(states: &[Lanes], first: usize, paths: usize) -> [&[f64]; 5] {
    std::array::from_fn(|nth| &states[first + nth].0[..paths])
}

fn look(isa: Isa, visit: &Visit, terms: &Terms, first_look: bool, paths: usize, scratch: &mut Scratch) {
    let seen = &scratch.observed;
    match terms.style {
        Style::Asian { first, .. } => {
            let states = five(&mut scratch.states, first, paths);
            contract::fix(isa, seen, visit.time, terms.volatility, first_look, states);
        }
        Style::WatchedBarrier { first, log_barrier } => {
            let states = five(&mut scratch.states, first, paths);
            let w = &scratch.motions[visit.member].w.0[..paths];
            contract::watch(isa, seen, w, [log_barrier, visit.since], first_look, states);
        }
        _ => unreachable!("only averages and watched barriers look before expiry"),
    }
}

fn take_part(isa: Isa, terms: &Terms, nth: usize, first_part: bool, paths: usize, scratch: &mut Scratch) {
    let Style::Basket { first, parts } = &terms.style else { unreachable!("only baskets have parts") };
    let (sum, kept) = scratch.states[*first..].split_at_mut(1);
    let level = &scratch.observed.level.0[..paths];
    let (sum, kept) = (&mut sum[0].0[..paths], &mut kept[nth].0[..paths]);
    contract::part(isa, parts[nth].weight, first_part, level, sum, kept);
}

/// Whether this was the last chance.
fn take_chance(
    isa: Isa,
    terms: &Terms,
    policy: &Policy,
    visit: &Visit,
    nth: usize,
    paths: usize,
    scratch: &mut Scratch,
) -> bool {
    let Style::American { first, times } = &terms.style else {
        unreachable!("only American contracts are exercised")
    };
    let states = &mut scratch.states[*first..*first + program::AMERICAN_STATES];
    if nth == 0 {
        for (state, lanes) in states.iter_mut().enumerate() {
            lanes.0[..paths].fill(if state == 0 { 1.0 } else { 0.0 });
        }
    }
    let last = nth + 1 == times.len();
    let chance = Chance {
        rule: policy.0[nth],
        last,
        time: visit.time,
        discount: exp(-terms.rate * visit.time),
        discounted_carry: exp(-visit.price.drift - 0.5 * terms.volatility * terms.volatility * visit.time),
    };
    let mut all = states.iter_mut().map(|lanes| &mut lanes.0[..paths]);
    let states = std::array::from_fn(|_| all.next().unwrap_or_default());
    contract::exercise(isa, terms, &chance, &scratch.observed, states);
    last
}

/// Leaves a contract's outcome in the scratch.
fn settle(isa: Isa, program: &Program, visit: &Visit, terms: &Terms, paths: usize, scratch: &mut Scratch) {
    let Scratch { observed: seen, outcome: out, states, motions, combined, .. } = scratch;
    let level = |seen: &Observed, out: &mut Outcome| {
        if program.controls {
            let control = &mut out.control.0[..paths];
            contract::discounted(isa, terms.discount, terms.control, &seen.level.0[..paths], control);
        }
    };
    match &terms.style {
        Style::European => {
            contract::vanilla(isa, terms, &seen.level.0[..paths], out);
            if program.greeks {
                contract::vanilla_greeks(isa, terms, seen, paths, out);
            }
            level(seen, out);
        }
        Style::Digital { payout } => {
            contract::digital(isa, terms, *payout, seen, paths, out);
            if program.greeks {
                contract::score_greeks(isa, terms, seen, paths, out);
            }
            level(seen, out);
        }
        Style::Asian { first, one_over_fixings } => {
            let carried = five_read(states, *first, paths);
            let average = &mut combined.0[..paths];
            contract::asian(isa, terms, *one_over_fixings, carried, average, out);
            if program.controls && program.heston {
                let control = &mut out.control.0[..paths];
                contract::discounted(isa, terms.discount, terms.control, average, control);
            } else if program.controls {
                contract::geometric(isa, terms, *one_over_fixings, carried[1], out);
            }
        }
        Style::WatchedBarrier { first, .. } => {
            contract::vanilla(isa, terms, &seen.level.0[..paths], out);
            let carried = five_read(states, *first, paths);
            contract::watched(isa, terms, &motions[visit.member].w.0[..paths], visit.since, carried, out);
            level(seen, out);
        }
        Style::BridgedBarrier { distance, bridge } => {
            contract::bridged(isa, terms, [*distance, *bridge], seen, paths, out);
            level(seen, out);
        }
        Style::Basket { first, .. } => {
            let sum = &states[*first].0[..paths];
            contract::vanilla(isa, terms, sum, out);
            if program.greeks {
                contract::basket_rho(isa, terms, sum, out);
            }
            if program.controls {
                let control = &mut out.control.0[..paths];
                contract::discounted(isa, terms.discount, terms.control, sum, control);
            }
        }
        Style::American { first, .. } => {
            let [_, vega, rho, _] = &mut out.greeks;
            let outcomes = [&mut out.payoff, &mut out.x, &mut out.delta, &mut out.control, vega, rho];
            for (outcome, state) in outcomes.into_iter().zip(&states[*first + 1..]) {
                outcome.0[..paths].copy_from_slice(&state.0[..paths]);
            }
        }
    }
}

/// The wanted samples of an array: its paths, or the means of its pairs.
fn sampled<'a>(isa: Isa, lanes: &'a Lanes, wanted: &Wanted, means: &'a mut Lanes) -> &'a [f64] {
    if wanted.opposite == 0 {
        return &lanes.0[wanted.samples.clone()];
    }
    let [plus, minus] = wanted.halves();
    let means = &mut means.0[wanted.samples.clone()];
    contract::pair_means(isa, &lanes.0[plus], &lanes.0[minus], means);
    means
}

/// Which of gamma, vega, rho and theta a contract has an estimator for.
fn has_greeks(style: &Style, heston: bool) -> [bool; GREEKS] {
    match style {
        Style::European | Style::Asian { .. } | Style::Digital { .. } => [true, !heston, true, !heston],
        Style::WatchedBarrier { .. } => [true, !heston, !heston, !heston],
        Style::BridgedBarrier { .. } => [true; GREEKS],
        Style::Basket { .. } => [false, false, true, false],
        Style::American { .. } => [false, true, true, false],
    }
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
    deltas: Vec<Moments>,
    control: Moments,
    product: Windowed,
    greeks: [Moments; GREEKS],
    payoffs: PayoffHistogram,
}

impl Results {
    fn new(program: &Program, detail: Detail, refine: Option<&Refine>) -> Self {
        let contract = |position: usize| ContractResults {
            price: Moments::default(),
            deltas: vec![Moments::default(); program.layout.deltas(position)],
            control: Moments::default(),
            product: Windowed::default(),
            greeks: std::array::from_fn(|_| Moments::default()),
            payoffs: PayoffHistogram::new(),
        };
        Results {
            detail,
            refined: refine.map(Refined::new),
            contracts: (0..program.contracts.len()).map(contract).collect(),
            value: Moments::default(),
            values: ValueHistogram::new(),
        }
    }

    fn tally_contract(
        &mut self,
        isa: Isa,
        program: &Program,
        contract: usize,
        scratch: &mut Scratch,
        paths: usize,
        wanted: &Wanted,
    ) -> Result<(), KernelError> {
        if self.refined.is_some() {
            return Ok(());
        }
        let not_finite = |_| KernelError::NotFinite { contract };
        let results = &mut self.contracts[contract];
        let terms = &program.contracts[contract];
        let Scratch { outcome, means, other_means, states, next, .. } = scratch;
        let x = sampled(isa, &outcome.x, wanted, means);
        results.price.add(isa, x).map_err(not_finite)?;
        if self.detail != Detail::Full {
            return Ok(());
        }
        if program.controls {
            let control = sampled(isa, &outcome.control, wanted, other_means);
            results.control.add(isa, control).map_err(not_finite)?;
            let product = &mut next.0[..x.len()];
            contract::products(isa, x, control, product);
            results.product.add(isa, product).map_err(not_finite)?;
        }
        for half in wanted.halves() {
            results.payoffs.record(isa, &outcome.payoff.0[half], terms.bins_per_unit);
        }
        if let Style::Basket { first, parts } = &terms.style {
            for (nth, (part, moments)) in parts.iter().zip(&mut results.deltas).enumerate() {
                let factor = terms.sign * terms.discount * part.weight / part.spot;
                let (payoff, level) = (&outcome.payoff.0[..paths], &states[first + 1 + nth].0[..paths]);
                contract::part_delta(isa, factor, payoff, level, &mut outcome.delta.0[..paths]);
                moments.add(isa, sampled(isa, &outcome.delta, wanted, means)).map_err(not_finite)?;
            }
        } else {
            let delta = sampled(isa, &outcome.delta, wanted, means);
            results.deltas[0].add(isa, delta).map_err(not_finite)?;
        }
        if program.greeks {
            let has = has_greeks(&terms.style, program.heston);
            let all = results.greeks.iter_mut().zip(&outcome.greeks).zip(has);
            for ((moments, lanes), _) in all.filter(|(_, has)| *has) {
                moments.add(isa, sampled(isa, lanes, wanted, means)).map_err(not_finite)?;
            }
        }
        Ok(())
    }

    fn into_tally(self, program: &Program, samples: u64) -> Tally {
        if let Some(refined) = self.refined {
            return refined.into_tally(samples);
        }
        let mut tally = Tally { samples, ..Tally::default() };
        tally.sums.reserve(program.layout.total());
        for contract in self.contracts {
            tally.sums.extend(contract.price.into_sums());
            tally.sums.extend(contract.deltas.into_iter().flat_map(Moments::into_sums));
            if program.controls {
                tally.sums.extend(contract.control.into_sums());
                tally.sums.push(contract.product.into_sum());
            }
            if program.greeks {
                tally.sums.extend(contract.greeks.into_iter().flat_map(Moments::into_sums));
            }
            if self.detail == Detail::Full {
                tally.counts.extend(contract.payoffs.into_counts());
            }
        }
        tally.sums.extend(self.value.into_sums());
        debug_assert_eq!(tally.sums.len(), program.layout.total());
        if self.detail == Detail::Full {
            tally.bins = self.values.into_bins();
        }
        tally
    }
}
