//! `tessera job replay`: a finished job computed again here, and compared byte for byte.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use serde::Serialize;
use tessera_client::api::Hub;
use tessera_client::compute::{
    ComputeError, Finished, Inputs, Look, Order, Path, SIDE_MIN, Setting, compute, look, look_at_stages,
};
use tessera_kernels::gemm::freivalds::Vectors;
use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::Matrix;
use tessera_kernels::matrix::npy;
use tessera_protocol::api::JobState;
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::product::Output;
use tessera_protocol::spec::{JobSpec, Manifest, Params};

use super::args::Replay;
use super::{Failure, Progress, attend, show};

/// Random vectors of a quick look: errors that cancel are missed with a probability of 2⁻³ at most, a single wrong
/// element never.
const ROUNDS: u32 = 3;
/// Most that is shown of what a check found. *Units*: characters.
const SHOWN_CHARS_MAX: usize = 300;
/// Read at once. *Units*: bytes.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct Replayed {
    job: JobId,
    /// Whether the bytes are the same.
    same: bool,
    /// Of the hub's result document.
    digest: Digest,
    /// Of the one that came out here.
    computed: Digest,
    path: &'static str,
    threads: usize,
    elapsed_ms: u64,
}

pub(super) fn replay(hub: &Hub, command: &Replay) -> Result<(), Failure> {
    let path = path_named(command.path.as_deref())?;
    let threads = match command.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let view = hub.job(command.id)?;
    if view.state != JobState::Done {
        return Err(Failure::JobNotDone(Box::new(view)));
    }
    let document = hub.result(&view)?;
    let spec = JobSpec::from_json(&hub.manifest(&view)?).map_err(Failure::Manifest)?;
    let manifest = Manifest::recovered(spec).map_err(Failure::Manifest)?;
    let interrupted: Arc<AtomicBool> = attend::interrupts()?;
    if command.quick && quick(hub, command, &manifest, &document, threads, &interrupted)? {
        return Ok(());
    }
    let begun = Instant::now();
    let progress = std::sync::Mutex::new(Progress::new());
    let on_progress = |done, shards| {
        if let Ok(mut progress) = progress.lock() {
            progress.counted(done, shards);
        }
    };
    let setting = Setting { path, agents: threads, order: Order::Ascending };
    let inputs = OfHub { hub, manifest: &manifest, job: command.id };
    let computed = compute(&manifest, &setting, &inputs, &mut |_| {}, &on_progress, &interrupted);
    if let Ok(mut progress) = progress.lock() {
        progress.finish();
    }
    let computed = computed?;
    let replayed = Replayed {
        job: command.id,
        same: computed == document,
        digest: Digest::of(&document),
        computed: Digest::of(&computed),
        path: path.name(),
        threads,
        elapsed_ms: begun.elapsed().as_millis() as u64,
    };
    show(command.json, &replayed, || words(&replayed))?;
    if replayed.same { Ok(()) } else { Err(Failure::ReplayDiffers(command.id)) }
}

#[derive(Serialize)]
struct Looked {
    job: JobId,
    consistent: bool,
    tiles: u64,
    rounds: u32,
    elapsed_ms: u64,
}

/// Whether a quick look was worth it, and found nothing.
fn quick(
    hub: &Hub,
    command: &Replay,
    manifest: &Manifest,
    document: &[u8],
    threads: usize,
    interrupted: &AtomicBool,
) -> Result<bool, Failure> {
    let mut key = [0; 8];
    getrandom::fill(&mut key)?;
    let word = |at: usize| u32::from_le_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let key = [word(0), word(4)];
    let vectors = Vectors { key, rounds: ROUNDS };
    let begun = Instant::now();
    match manifest.spec().params {
        Params::Gemm(_) | Params::Syrk(_) => {}
        Params::Staged(_) => {
            let files = OfHub { hub, manifest, job: command.id };
            let stop = || interrupted.load(std::sync::atomic::Ordering::Relaxed);
            let look = look_at_stages(manifest, document, &files, Isa::detect(), key, &stop)?;
            return look.map_or(Ok(false), |look| tell(command, &look, begun));
        }
        Params::MonteCarlo(_) => {
            eprintln!("there is no quick look at paths: computing the job again");
            return Ok(false);
        }
    }
    let input = |blake3| fetch(hub, manifest, blake3);
    let stop = || interrupted.load(std::sync::atomic::Ordering::Relaxed);
    let mut file = hub.output(command.id)?;
    match look(manifest, Isa::detect(), &input, &mut file, vectors, threads, &stop)? {
        Look::NotWorthIt => {
            eprintln!("below {SIDE_MIN} a quick look is not cheaper: computing the job again");
            Ok(false)
        }
        Look::Consistent { tiles } => {
            let elapsed_ms = begun.elapsed().as_millis() as u64;
            let looked = Looked { job: command.id, consistent: true, tiles, rounds: ROUNDS, elapsed_ms };
            show(command.json, &looked, || {
                format!(
                    "{} is the product as far as rounding allows\n  {tiles} tiles multiplied by {ROUNDS} random vectors each, in {:.1} s; \
                     without --quick the bytes are compared\n",
                    looked.job,
                    elapsed_ms as f64 / 1000.0
                )
            })?;
            Ok(true)
        }
        Look::Wrong { row, col, residual, bound } => {
            Err(Failure::QuickLookFailed { job: command.id, row, col, residual, bound })
        }
        Look::NotTheFile => Err(Failure::Compute(ComputeError::Task)),
    }
}

#[derive(Serialize)]
struct LookedAt<'a> {
    job: JobId,
    consistent: bool,
    checks: Vec<Check<'a>>,
    left_out: Vec<LeftOut<'a>>,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct Check<'a> {
    name: &'a str,
    holds: bool,
    found: &'a str,
    expected: &'a str,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    name: &'a str,
    why: &'a str,
}

/// Shows what a look checked. Looked at is looked at: the job is not computed again.
fn tell(command: &Replay, look: &tessera_kernels::look::Look, begun: Instant) -> Result<bool, Failure> {
    let checks = look.checks.iter().map(|one| Check {
        name: one.name,
        holds: one.holds,
        found: &one.found,
        expected: &one.expected,
    });
    let left_out = look.left_out.iter().map(|one| LeftOut { name: one.name, why: &one.why });
    let looked = LookedAt {
        job: command.id,
        consistent: look.holds(),
        checks: checks.collect(),
        left_out: left_out.collect(),
        elapsed_ms: begun.elapsed().as_millis() as u64,
    };
    show(command.json, &looked, || list(&looked))?;
    let failed: Vec<&str> = look.checks.iter().filter(|check| !check.holds).map(|check| check.name).collect();
    if failed.is_empty() { Ok(true) } else { Err(Failure::LookFailed { job: command.id, checks: failed }) }
}

/// Words that may quote a stranger's file, for a terminal.
fn plain(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).filter(|c| !c.is_control()).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() { shown + "…" } else { shown }
}

/// For people: a line for each check, and what was expected where one does not hold.
fn list(looked: &LookedAt<'_>) -> String {
    let failed = looked.checks.iter().filter(|check| !check.holds).count();
    let verdict = match (failed, looked.checks.len()) {
        (0, _) => "holds in every check".to_owned(),
        (failed, all) => format!("FAILS {failed} of {all} checks"),
    };
    let mut text = format!("{} {verdict}\n", looked.job);
    for Check { name, holds, found, expected } in &looked.checks {
        let [found, expected] = [found, expected].map(|text| plain(text));
        match holds {
            true => text += &format!("  holds     {name}: {found}\n"),
            false => text += &format!("  FAILS     {name}: {found}\n            expected {expected}\n"),
        }
    }
    for LeftOut { name, why } in &looked.left_out {
        text += &format!("  left out  {name}: {why}\n");
    }
    let seconds = looked.elapsed_ms as f64 / 1000.0;
    text + &format!("  in {seconds:.1} s; without --quick the bytes are compared\n")
}

fn path_named(name: Option<&str>) -> Result<Path, Failure> {
    let available = Path::available();
    let Some(name) = name else {
        // The interpreter comes last and is for proof.
        let processor = available.into_iter().rfind(|path| matches!(path, Path::Processor(_)));
        return processor.ok_or(Failure::Compute(ComputeError::Task));
    };
    let found = available.iter().copied().find(|path| path.name() == name);
    found.ok_or_else(|| Failure::PathUnknown {
        name: name.to_owned(),
        available: available.iter().map(|path| path.name()).collect(),
    })
}

/// The files of a job, as its hub has them.
struct OfHub<'a> {
    hub: &'a Hub,
    manifest: &'a Manifest,
    job: JobId,
}

impl Finished for OfHub<'_> {
    fn input(&self, blake3: Digest, to: &mut dyn Write) -> Result<(), ComputeError> {
        let mut keep = |piece: &[u8]| to.write_all(piece).map_err(|error| error.to_string());
        read(self.hub, self.manifest, blake3, &mut keep)
    }

    fn output(&self, output: &Output, to: &mut dyn Write) -> Result<(), ComputeError> {
        let failed = |cause: String| ComputeError::Output { name: output.name.clone(), cause };
        let file =
            self.hub.named_output(self.job, &output.name).map_err(|error| failed(error.to_string()))?;
        let mut keep = |piece: &[u8]| to.write_all(piece).map_err(|error| error.to_string());
        let found = copy(&mut file.take(output.bytes + 1), &mut keep).map_err(failed)?;
        if found == output.blake3 {
            Ok(())
        } else {
            Err(failed(format!("the hub sent one with the digest {found}")))
        }
    }
}

impl Inputs for OfHub<'_> {
    fn matrix(&self, input: Digest) -> Result<Arc<Matrix>, ComputeError> {
        fetch(self.hub, self.manifest, input)
    }

    fn file(&self, input: Digest) -> Result<Bytes, ComputeError> {
        let mut bytes = Vec::new();
        read(self.hub, self.manifest, input, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes.into())
    }
}

/// An input file of the hub as a matrix.
fn fetch(hub: &Hub, manifest: &Manifest, blake3: Digest) -> Result<Arc<Matrix>, ComputeError> {
    let failed = |cause: String| ComputeError::Input { input: blake3, cause };
    let declared = manifest.spec().inputs.iter().find(|input| input.blake3 == blake3);
    let mut reader = npy::Reader::keeping(declared.map_or(0, |input| input.bytes));
    read(hub, manifest, blake3, &mut |piece| reader.push(piece).map_err(|error| error.to_string()))?;
    reader.matrix().map(Arc::new).map_err(|error| failed(error.to_string()))
}

/// Reads an input file of the hub and compares it with its digest.
fn read(
    hub: &Hub,
    manifest: &Manifest,
    blake3: Digest,
    take: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), ComputeError> {
    let failed = |cause: String| ComputeError::Input { input: blake3, cause };
    let declared = manifest.spec().inputs.iter().any(|input| input.blake3 == blake3);
    if !declared {
        return Err(ComputeError::Task);
    }
    let mut file = hub.input(blake3).map_err(|error| failed(error.to_string()))?;
    let found = copy(&mut file, take).map_err(failed)?;
    if found == blake3 { Ok(()) } else { Err(failed(format!("the hub sent a file with the digest {found}"))) }
}

/// Gives a file to `take` piece by piece; its digest.
fn copy(file: &mut dyn Read, take: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<Digest, String> {
    let (mut hasher, mut piece) = (blake3::Hasher::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest(*hasher.finalize().as_bytes())),
            Ok(read) => {
                hasher.update(&piece[..read]);
                take(&piece[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("the connection to the hub broke: {error}")),
        }
    }
}

fn words(replayed: &Replayed) -> String {
    let Replayed { job, same, digest, computed, path, threads, elapsed_ms } = replayed;
    let seconds = *elapsed_ms as f64 / 1000.0;
    let verdict = if *same { "has the same bytes here" } else { "HAS OTHER BYTES HERE" };
    let mut text = format!("{job} {verdict}\n  digest    {digest}\n");
    if !same {
        text += &format!("  but here  {computed}\n");
    }
    let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    text + &format!("  computed  on this machine, {path}, {threads}, in {seconds:.1} s\n")
}
