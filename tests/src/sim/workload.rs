//! What the clients of a run ask for.

use tessera_hub_core::NewJob;
use tessera_protocol::id::Digest;
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::spec::{JobSpec, Manifest};

use super::random::Random;
use super::world::regions::{NORTH, Regions, SOUTH};

/// The number of the job with a shard that gives trouble.
pub(super) const TROUBLE: u64 = 90;

/// The jobs of one run: the same number is the same job, however often it is submitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    seed: u64,
    /// Of a thousand jobs, so many are products of matrices.
    matrices: u64,
    /// Whether some agent lies and every shard is checked for it.
    liar: bool,
    /// Whether there is nobody to check anything.
    lone: bool,
    /// Where jobs may ask to be.
    pub(super) regions: Regions,
}

impl Workload {
    pub(super) fn new(random: &mut Random, liar: bool, lone: bool) -> Workload {
        let matrices = [0, 300, 500, 1000][random.below(4) as usize];
        Workload { seed: random.draw(), matrices, liar, lone, regions: Regions::None }
    }

    pub(super) fn job(self, number: u64) -> Manifest {
        if number == TROUBLE {
            return trouble(self.seed);
        }
        let mut random = Random::new(self.seed ^ number);
        let verify = match ["standard", "strict", "exact"][random.below(3) as usize] {
            _ if self.liar => "exact",
            "exact" if self.lone => "strict",
            verify => verify,
        };
        let mut inputs = Vec::new();
        let (workload, params) = match random.chance(self.matrices) {
            false if random.chance(400) => ("catastrophe", storms(&mut random, &mut inputs)),
            false => ("monte_carlo", samples(&mut random)),
            true if random.chance(600) => ("gemm", gemm(&mut random, &mut inputs)),
            true => ("syrk", syrk(&mut random, &mut inputs)),
        };
        let inputs = inputs.join(",");
        let text = format!(
            r#"{{"name":"job {number}","workload":"{workload}","seed":{number},"verify":"{verify}",
                "params":{{{params}}},"inputs":[{inputs}],"limits":{{"retries":16}}{}}}"#,
            self.requirements(number)
        );
        let spec = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check);
        spec.unwrap_or_else(|error| panic!("the workload writes right specifications: {error}"))
    }
}

impl Workload {
    /// What a job asks of its agents, as the end of its document; drawn with chance of its own.
    fn requirements(self, number: u64) -> String {
        let mut random = Random::new(self.seed ^ number ^ 0x706c_6163_6500);
        let names = match (self.regions, random.below(4)) {
            (Regions::None, _) | (_, 0) => return String::new(),
            (Regions::Both, 1) => format!(r#""{SOUTH}""#),
            (_, 2) => format!(r#""{SOUTH}","{NORTH}""#),
            _ => format!(r#""{NORTH}""#),
        };
        format!(r#","requirements":{{"regions":[{names}]}}"#)
    }
}

/// A job whose first shard gives trouble.
fn trouble(seed: u64) -> Manifest {
    let paths = 100 * (1 + seed % 60);
    let text = format!(
        r#"{{"name":"trouble","workload":"monte_carlo","seed":{TROUBLE},
            "params":{{"model":"pi","paths":{paths},"shard_size":100}}}}"#
    );
    let spec = JobSpec::from_json(text.as_bytes()).and_then(JobSpec::check);
    spec.unwrap_or_else(|error| panic!("the workload writes right specifications: {error}"))
}

/// Paths in one round, in a few until an error is small enough, or again for exact quantiles. So few shards
/// that the slowest agent alone is done in time.
fn samples(random: &mut Random) -> String {
    match random.below(4) {
        0 => {
            let (paths, shard_size) = (4_000 + random.below(20_000), 500 + random.below(2_000));
            let error = 0.01 + random.below(30) as f64 / 1000.0;
            format!(
                r#""model":"pi","paths":{paths},"shard_size":{shard_size},
                    "stop":{{"standard_error":{error},"min_paths":1}}"#
            )
        }
        1 => {
            let (paths, shard_size) = (1 + random.below(300), 10 + random.below(50));
            format!(
                r#""model":"gbm","paths":{paths},"shard_size":{shard_size},"quantiles":"exact",
                    "book":[{{"id":"c","underlying":"u","kind":"european_call","spot":100,"strike":100,
                    "rate":0.05,"volatility":0.2,"expiry":1}}]"#
            )
        }
        _ => {
            let paths = 1 + random.below(3_000);
            let shard_size = 10 + paths / 60 + random.below(200);
            format!(r#""model":"pi","paths":{paths},"shard_size":{shard_size}"#)
        }
    }
}

/// A survey, a few shards of events and a finish, all of which read files.
fn storms(random: &mut Random, inputs: &mut Vec<String>) -> String {
    for name in ["tracks", "exposure"] {
        let bytes = 1 + random.below(5_000);
        inputs
            .push(format!(r#"{{"name":"{name}","blake3":"{}","bytes":{bytes}}}"#, Digest::of(&file(bytes))));
    }
    let (samples, shard_size) = (1 + random.below(40), 5 + random.below(20));
    format!(
        r#""tracks":{{"input":"tracks"}},"exposure":"exposure","samples":{samples},"shard_size":{shard_size}"#
    )
}

/// A few tiles, edges that fill no tile, one to four panels.
fn gemm(random: &mut Random, inputs: &mut Vec<String>) -> String {
    let (m, n, k) = (1 + random.below(40), 1 + random.below(40), 1 + random.below(64));
    let (width, element) = element(random);
    let (a, b) = (matrix(random, width, m, k, inputs), matrix(random, width, k, n, inputs));
    format!(r#"{element},"a":{a},"b":{b},"tile":[16,{}]"#, 16 + random.below(8))
}

fn syrk(random: &mut Random, inputs: &mut Vec<String>) -> String {
    let (n, k) = (1 + random.below(56), 1 + random.below(64));
    let (width, element) = element(random);
    let triangle = if random.chance(500) { "lower" } else { "upper" };
    let a = matrix(random, width, n, k, inputs);
    format!(r#"{element},"a":{a},"tile":16,"triangle":"{triangle}""#)
}

/// The bytes of an element, and what says so.
fn element(random: &mut Random) -> (u64, String) {
    let (width, dtype) = if random.chance(500) { (8, "f64") } else { (4, "f32") };
    (width, format!(r#""dtype":"{dtype}","k_panel":16"#))
}

fn matrix(random: &mut Random, width: u64, rows: u64, cols: u64, inputs: &mut Vec<String>) -> String {
    if random.chance(700) {
        return format!(r#"{{"random":"uniform","rows":{rows},"cols":{cols}}}"#);
    }
    let (name, bytes) = (format!("{}.npy", inputs.len()), 128 + rows * cols * width);
    inputs.push(format!(r#"{{"name":"{name}","blake3":"{}","bytes":{bytes}}}"#, Digest::of(&file(bytes))));
    format!(r#"{{"input":"{name}","rows":{rows},"cols":{cols}}}"#)
}

/// What an input holds: files of one length are one file, whichever job reads it.
pub(super) fn file(bytes: u64) -> Vec<u8> {
    vec![0x5a; bytes as usize]
}

/// The piece of an input of a job that starts at an offset.
pub(super) fn piece(job: &NewJob, blake3: Digest, offset: u64) -> Vec<u8> {
    let declared = job.manifest.spec().inputs.iter().find(|input| input.blake3 == blake3);
    cut(file(declared.expect("only inputs of the job are asked for").bytes), offset)
}

/// The piece of a file that starts at an offset.
pub(super) fn cut(mut file: Vec<u8>, offset: u64) -> Vec<u8> {
    let mut piece = file.split_off(offset as usize);
    piece.truncate(INPUT_PIECE_BYTES as usize);
    piece
}
