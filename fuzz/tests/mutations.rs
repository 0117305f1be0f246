//! The fuzz targets on mutated seeds, for machines without libFuzzer: a fixed number of cases from a
//! fixed seed, so that a failure repeats itself.

use tessera_protocol::wire::{AgentControl, AgentWork, HubWork, Message, Partial, ShardResult};

const CASES: u64 = 20_000;

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Flips, cuts, repeats and splices pieces of the seeds.
fn mutate(seeds: &[Vec<u8>], state: &mut u64) -> Vec<u8> {
    let mut bytes = seeds[next(state) as usize % seeds.len()].clone();
    for _ in 0..1 + next(state) % 4 {
        let at = next(state) as usize % (bytes.len() + 1);
        match next(state) % 5 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (next(state) % 8),
            1 if at < bytes.len() => bytes[at] = next(state) as u8,
            2 => bytes.truncate(at),
            3 => {
                let other = &seeds[next(state) as usize % seeds.len()];
                let from = next(state) as usize % (other.len() + 1);
                let piece: Vec<u8> = other[from..].iter().copied().take(next(state) as usize % 64).collect();
                bytes.splice(at..at, piece);
            }
            _ => bytes.insert(at, b"0-9,.e{}[]\"\xff\x80"[next(state) as usize % 13]),
        }
    }
    bytes
}

fn run(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let mut state = 1;
    seeds.iter().for_each(|seed| target(seed));
    for _ in 0..CASES {
        target(&mutate(seeds, &mut state));
    }
}

fn example(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
    std::fs::read(path).expect("the examples are there")
}

#[test]
fn frames_from_outside_never_panic() {
    let item = ShardResult { index: 1, epoch: 2, kernel_us: 4, partial: Partial::Here(vec![5; 40]) };
    let framed = |choice: u8, write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        [&[choice][..], &frame[4..]].concat()
    };
    let seeds = [
        framed(0, &|out| AgentControl::Heartbeat { holding: Vec::new() }.frame(out)),
        framed(2, &|out| AgentWork::Results { job: [1; 16], items: vec![item.clone()] }.frame(out)),
        framed(3, &|out| HubWork::Forget { job: [1; 16] }.frame(out)),
        [
            &[7][..],
            &tessera_protocol::tally::Tally { samples: 9, counts: vec![4], ..Default::default() }.encode(),
        ]
        .concat(),
    ];
    run(tessera_fuzz::wire, &seeds);
}

#[test]
fn specifications_from_outside_never_panic() {
    let contract = r#"{"id":"c","underlying":"u","kind":"asian_call","spot":100,"strike":100,"rate":0.05,
        "volatility":0.2,"expiry":1,"fixings":[0.5,1]}"#;
    let general = r#"{"name":"g","workload":"monte_carlo","params":{"model":"gbm","paths":8,"antithetic":true,"greeks":true,
        "control_variate":true,"training_paths":2048,"underlyings":{"A":{"spot":1,"volatility":0.2},"B":{"spot":2,
        "volatility":0.3,"dividend":0.01}},"correlations":[{"a":"A","b":"B","rho":0.5},{"a":"B","b":"C","rho":-0.5}],
        "book":[{"id":"b","kind":"basket_put","strike":1,"rate":0.05,"expiry":1,"basket":[{"underlying":"A",
        "weight":0.5},{"underlying":"B","weight":-1}]},{"id":"p","underlying":"C","kind":"american_put","spot":1,
        "strike":1,"rate":0.05,"volatility":0.2,"expiry":1,"exercise":9},{"id":"d","underlying":"C","kind":
        "american_call","spot":1,"strike":1,"rate":0.05,"volatility":0.2,"expiry":1,"exercise":[0.5]}]}}"#;
    let heston = r#"{"name":"h","workload":"monte_carlo","params":{"model":"heston","paths":9,"scheme":"qe",
        "steps_per_year":52,"heston":{"u":{"v0":0.04,"kappa":0.5,"theta":0.04,"xi":1,"rho":-0.9}},"book":[{"id":"c",
        "underlying":"u","kind":"digital_put","spot":1,"strike":1,"rate":0.05,"expiry":1,"payout":3}]}}"#;
    let seeds = [
        br#"{"name":"pi","workload":"monte_carlo","seed":1,"params":{"model":"pi","paths":1000}}"#.to_vec(),
        format!(r#"{{"name":"b","workload":"monte_carlo","params":{{"model":"gbm","paths":9,"book":[{contract}]}}}}"#)
            .into_bytes(),
        general.as_bytes().to_vec(),
        heston.as_bytes().to_vec(),
    ];
    run(tessera_fuzz::spec, &seeds);
}

#[test]
fn books_from_outside_never_panic() {
    run(tessera_fuzz::book_csv, &[example("book.csv")]);
}

#[test]
fn matrices_from_outside_never_panic_and_agents_take_what_clients_took() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/npy");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "npy"))
        .collect();
    files.sort();
    let seed = |path| [&[7][..], &std::fs::read(path).expect("a file")].concat();
    run(tessera_fuzz::npy, &files.into_iter().map(seed).collect::<Vec<_>>());
}
