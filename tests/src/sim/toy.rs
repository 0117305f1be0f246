//! Toy kernels: cheap, and made so that a wrong order, a wrong place or a second time shows.

use std::collections::BTreeMap;

use tessera_protocol::bins::{bin_of, key_of};
use tessera_protocol::catastrophe::{FinishHead, Summary, Survey, SurveyHead};
use tessera_protocol::exact::ExactSum;
use tessera_protocol::id::Digest;
use tessera_protocol::matrix::{Half, Task};
use tessera_protocol::monte_carlo::{self, HISTOGRAM_BINS, Model, Refine, SUMS_PER_BOOK, SUMS_PER_CONTRACT};
use tessera_protocol::product::{File, Product};
use tessera_protocol::tally::Tally;
use tessera_protocol::{catastrophe, staged};

/// The tally of a range of samples in a pass: additive over any cut of the range.
pub(super) fn tally(task: &monte_carlo::Task, pass: &[u8], first: u64, count: u64) -> Tally {
    let samples = first..first + count;
    let refine = Refine::of_pass(pass).expect("planners write right passes");
    match (&task.model, refine) {
        (Model::Pi, _) => {
            let inside = samples.filter(|sample| (mix(*sample) >> 40) & 1 == 1).count();
            Tally { samples: count, counts: vec![inside as u64], ..Tally::default() }
        }
        (Model::Gbm(market), None) => {
            let mut sums =
                vec![ExactSum::default(); market.contracts.len() * SUMS_PER_CONTRACT + SUMS_PER_BOOK];
            let mut counts = vec![0; market.contracts.len() * HISTOGRAM_BINS];
            let mut bins = BTreeMap::new();
            for sample in samples {
                let value = value_of(sample);
                for (position, sum) in sums.iter_mut().enumerate() {
                    let term = if position % 2 == 0 { value } else { value * value };
                    sum.add(term).expect("toy values are finite");
                }
                let histograms = counts.chunks_exact_mut(HISTOGRAM_BINS);
                histograms.for_each(|bins| bins[mix(sample) as usize % HISTOGRAM_BINS] += 1);
                *bins.entry(bin_of(value - market.anchor)).or_default() += 1;
            }
            Tally { samples: count, sums, counts, bins: bins.into_iter().collect() }
        }
        (Model::General(_), _) => unreachable!("no simulated job has a general book"),
        (Model::Gbm(_), Some(refine)) => {
            let mut sums = vec![ExactSum::default(); refine.sums as usize];
            let mut bins = BTreeMap::new();
            for value in samples.map(value_of) {
                let key = key_of(value);
                for (sum, _) in sums.iter_mut().zip(&refine.ranges).filter(|(_, range)| key < range.first) {
                    sum.add(value).expect("toy values are finite");
                }
                if let Some(at) = refine.ranges.iter().position(|range| range.contains(key)) {
                    *bins.entry(refine.bin(at, key)).or_default() += 1;
                }
            }
            Tally { samples: count, sums, bins: bins.into_iter().collect(), ..Tally::default() }
        }
    }
}

/// What the book is worth on a path: positive, and hardly ever the same twice.
fn value_of(sample: u64) -> f64 {
    40.0 + (mix(sample) >> 16) as f64 / (1u64 << 42) as f64
}

/// The product of some units of a stage: its file says which units of which task they are and of which inputs,
/// byte for byte.
pub(super) fn product(
    task: &staged::Task,
    first: u64,
    count: u64,
    inputs: &[&[u8]],
    lie: Option<u8>,
) -> Vec<u8> {
    let staged::Task::Catastrophe(task) = task else {
        unreachable!("no simulated job is of another workload")
    };
    let mut said = task.encode();
    for number in [first, count, u64::from(lie.unwrap_or_default())] {
        said.extend(number.to_le_bytes());
    }
    inputs.iter().for_each(|input| said.extend(Digest::of(input).0));
    let name = match task {
        catastrophe::Task::Survey(_) => "survey",
        catastrophe::Task::Losses { .. } => catastrophe::LOSSES,
        catastrophe::Task::Finish(_) => "event_losses.csv",
    };
    let digest = Digest::of(&said);
    let bytes = match task {
        catastrophe::Task::Losses { .. } => losses(digest, count),
        _ => digest.0.to_vec(),
    };
    let file = File { name: name.to_owned(), bytes };
    let head = match task {
        catastrophe::Task::Survey(_) => SurveyHead::Found(survey()).encode(),
        catastrophe::Task::Losses { .. } => Vec::new(),
        catastrophe::Task::Finish(_) => FinishHead::Found(summary()).encode(),
    };
    Product { head, files: vec![file] }.encode().expect("toys keep the limits")
}

/// Losses of events as a digest says, none of them larger than what there is to lose.
fn losses(digest: Digest, events: u64) -> Vec<u8> {
    let number = |at: usize| f64::from(u16::from_le_bytes([digest.0[at], digest.0[at + 1]])) / 8192.0;
    let mut rows = Vec::new();
    for event in 0..events {
        for at in [0, 2, 4] {
            rows.extend(number(at).to_le_bytes());
        }
        rows.extend((u64::from(digest.0[6]) + event).to_le_bytes());
    }
    rows
}

fn survey() -> Survey {
    Survey {
        storms: 5,
        storms_in_reach: 5,
        years: [1990, 1999],
        annual_rate: 0.5,
        points: 3,
        classes: 1,
        value: 10.0,
        bounds: [0.0; 4],
        event_cost: 100,
    }
}

fn summary() -> Summary {
    Summary {
        events: 1,
        events_with_loss: 1,
        average_annual_loss: 1.0,
        standard_deviation: 1.0,
        average_annual_ground_up: 1.0,
        years: 1,
        simulated_average: 1.0,
        simulated_standard_error: 1.0,
        largest: None,
        return_periods: Vec::new(),
    }
}

/// The partial of a block: one panel of every element of a tile, by rows.
pub(super) fn block(task: &Task, index: u64) -> Vec<u8> {
    let block = task.block(index).expect("only blocks of the task are assigned");
    let mut bytes = Vec::with_capacity((block.elements() * task.element_bytes()) as usize);
    for row in block.rows {
        for col in block.cols.clone() {
            let value = if is_computed(task, row, col) { panel_of(task, row, col, block.panel) } else { 0.0 };
            write(task, value, &mut bytes);
        }
    }
    bytes
}

/// Whether an element is in the half of the result that is asked for.
pub(super) fn is_computed(task: &Task, row: u64, col: u64) -> bool {
    match task.half {
        None => true,
        Some(Half::Lower) => col <= row,
        Some(Half::Upper) => col >= row,
    }
}

/// One panel of an element. Added in another order, the large ones swallow the small. None is larger than what one
/// term gives, and a product of a matrix with itself has squares on its diagonal, so that no toy looks odd.
pub(super) fn panel_of(task: &Task, row: u64, col: u64, panel: u64) -> f64 {
    let place = mix(mix(u64::from(task.key[0]) << 32 | row) ^ col);
    // Powers of two round nothing.
    let (large, unit) =
        if task.double { (1e16, 1.0 / (1u64 << 54) as f64) } else { (1e8, 1.0 / (1u64 << 27) as f64) };
    let (large, small) = (large * unit, (1.0 + ((place >> 8) % 1000) as f64) * unit);
    match (place + panel) % 4 {
        _ if task.half.is_some() && row == col => large,
        0 => large,
        1 => -large,
        2 => small,
        _ => 3.0 * small,
    }
}

/// Appends an element as it lies in a file.
pub(super) fn write(task: &Task, value: f64, bytes: &mut Vec<u8>) {
    match task.double {
        true => bytes.extend(value.to_le_bytes()),
        false => bytes.extend((value as f32).to_le_bytes()),
    }
}

fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
