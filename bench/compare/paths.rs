//! Normal numbers, and a European call's paths with their sums: ours on each instruction set, numpy, QuantLib.

use std::cell::RefCell;
use std::hint::black_box;

use tessera_bench::one_call;
use tessera_kernels::elementary::normals_from_uniforms;
use tessera_kernels::isa::Isa;
use tessera_kernels::monte_carlo::{Detail, run_with};
use tessera_kernels::philox::Schedule;
use tessera_protocol::monte_carlo::{Model, Task};

use crate::contest::{Contestant, Outcome, Report, hold, timed};
use crate::reference::Reference;

/// Numbers or paths of a turn.
const COUNT: u64 = 1 << 22;
/// Of a turn of plain x86-64, which calls a function for each fused multiply-add, and of QuantLib.
const COUNT_SLOW: u64 = 1 << 18;
/// Given uniforms that go round: enough that no branch predictor learns them.
const UNIFORMS: usize = 1 << 14;
/// Normals computed together, as many as the paths' kernel does.
const BLOCK: usize = 512;
/// numpy's default.
const NUMPY: &str = "numpy PCG64";
/// The call's price and its payoff's standard deviation, by Black and Scholes.
const PRICE: f64 = 10.450583572185565;
const DEVIATION: f64 = 14.72;

pub(crate) fn run(rounds: u32) -> Report {
    let mut notes = vec![
        "'with Philox' draws its uniforms by the kernel for pi, whose test for the circle is extra"
            .to_owned(),
    ];
    let reference = match Reference::start() {
        Ok(reference) => {
            notes.push(reference.versions.clone());
            Some(RefCell::new(reference))
        }
        Err(error) => {
            notes.push(error);
            None
        }
    };
    let reference = reference.as_ref();
    Report { outcomes: vec![normals(reference, rounds), paths(reference, rounds)], notes }
}

fn count(isa: Isa) -> u64 {
    if isa == Isa::PLAIN && cfg!(target_arch = "x86_64") { COUNT_SLOW } else { COUNT }
}

/// Someone of ours.
fn ours<'a>(name: String, count: u64, mut work: impl FnMut() + 'a) -> Contestant<'a> {
    Contestant {
        name,
        reference: NUMPY,
        amount: count as f64 * 1e-6,
        turn: Box::new(move || timed(&mut work)),
    }
}

/// Someone of the Python process, whose value must come close to what is expected.
fn theirs<'a>(
    reference: &'a RefCell<Reference>,
    name: String,
    count: u64,
    request: String,
    [expected, tolerance]: [f64; 2],
) -> Contestant<'a> {
    let turn = move || {
        let (seconds, value) = reference.borrow_mut().ask(&request);
        assert!((value - expected).abs() < tolerance, "{request}: {value}, not {expected}");
        seconds
    };
    Contestant { name, reference: NUMPY, amount: count as f64 * 1e-6, turn: Box::new(turn) }
}

fn numpy<'a>(reference: &'a RefCell<Reference>, what: &str, expected: [f64; 2]) -> Vec<Contestant<'a>> {
    let request = |generator| format!("{what} {generator} {COUNT}");
    ["PCG64", "Philox", "SFC64"]
        .map(|generator| theirs(reference, format!("numpy {generator}"), COUNT, request(generator), expected))
        .into()
}

fn normals(reference: Option<&RefCell<Reference>>, rounds: u32) -> Outcome {
    let schedule = Schedule::new([1, 2]);
    let uniform = |bits: u64| ((bits >> 12) as f64 + 0.5) * (2.0 / (1u64 << 52) as f64) - 1.0;
    let uniforms: Vec<f64> =
        (0..UNIFORMS as u64 / 2).flat_map(|block| schedule.block(block, 0, 0).map(uniform)).collect();
    let uniforms = &uniforms;
    let from_given = move |isa, count| {
        let mut normals = [0.0; BLOCK];
        for _ in 0..count / UNIFORMS as u64 {
            for uniforms in uniforms.chunks(BLOCK) {
                normals_from_uniforms(isa, black_box(uniforms), &mut normals);
                black_box(&mut normals);
            }
        }
    };
    let points = Task { key: [1, 2], model: Model::Pi };
    let points = &points;
    let mut contestants = Vec::new();
    for isa in Isa::available() {
        let count = count(isa);
        contestants
            .push(ours(format!("tessera {isa}, uniforms given"), count, move || from_given(isa, count)));
        contestants.push(ours(format!("tessera {isa}, with Philox"), count, move || {
            let tally = run_with(black_box(points), isa, 0, count / 2, Detail::Prices, &|| false);
            black_box(tally.expect("it can be computed"));
            from_given(isa, count);
        }));
    }
    if let Some(reference) = reference {
        // The mean square of a block of 2^14, whose standard deviation is 0.011.
        contestants.extend(numpy(reference, "normals", [1.0, 0.07]));
    }
    hold("normals".to_owned(), "million/s", rounds, contestants)
}

fn paths(reference: Option<&RefCell<Reference>>, rounds: u32) -> Outcome {
    let task = one_call();
    let task = &task;
    let expected = |count: u64| [PRICE, 6.0 * DEVIATION / (count as f64).sqrt()];
    let mut contestants = Vec::new();
    for isa in Isa::available() {
        for (detail, name) in [(Detail::Prices, "prices"), (Detail::Full, "full")] {
            let count = count(isa);
            contestants.push(ours(format!("tessera {isa}, {name}"), count, move || {
                let tally = run_with(black_box(task), isa, 0, count, detail, &|| false);
                let price = tally.expect("a price").sums[0].to_f64() / count as f64;
                let [expected, tolerance] = expected(count);
                assert!((price - expected).abs() < tolerance, "{isa}: {price}, not {expected}");
            }));
        }
    }
    if let Some(reference) = reference {
        contestants.extend(numpy(reference, "paths", expected(COUNT)));
        let request = format!("quantlib {COUNT_SLOW}");
        contestants.push(theirs(reference, "QuantLib".to_owned(), COUNT_SLOW, request, expected(COUNT_SLOW)));
    }
    hold("European paths".to_owned(), "million/s", rounds, contestants)
}
