//! Runs a whole video job in one process: the planner's stages, shard by shard, as agents would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tessera_media::Encoder;
use tessera_planners::{Next, Plan, next_stage};
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Output, ProductRef, ProductView};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::ShardIndex;
use tessera_protocol::video::{EncodeTask, Task};

/// The order in which shards of a stage are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    Forward,
    Backward,
}

/// A finished job: its document and where its files are.
pub(crate) struct Done {
    pub(crate) document: Value,
    /// The product stages of the job in order, with each shard's head.
    pub(crate) products: Vec<Vec<ProductRef>>,
    pub(crate) output: PathBuf,
    pub(crate) digest: Digest,
    /// The plan of each stage.
    plans: Vec<Plan>,
    store: Store,
}

impl Done {
    /// A file of a shard's product.
    pub(crate) fn file(&self, stage: usize, shard: usize, name: &str) -> Vec<u8> {
        let bytes = std::fs::read(self.store.path(&self.products[stage][shard].blake3)).unwrap();
        ProductView::decode(&bytes).unwrap().file(name).unwrap().to_vec()
    }

    /// Where an input or a product lies.
    pub(crate) fn input(&self, blake3: &[u8; 32]) -> Option<PathBuf> {
        Some(self.store.path(&Digest(*blake3))).filter(|path| path.exists())
    }

    /// What its second stage encoded.
    pub(crate) fn encode(&self) -> EncodeTask {
        match Task::decode(self.plans[1].task()) {
            Ok(Task::Encode(task)) => task,
            other => panic!("{other:?}"),
        }
    }
}

/// Files by digest, as an agent keeps them.
struct Store {
    folder: TempDir,
}

impl Store {
    fn path(&self, blake3: &Digest) -> PathBuf {
        self.folder.path().join(blake3.to_string())
    }

    fn keep(&self, bytes: &[u8]) -> Digest {
        let blake3 = Digest::of(bytes);
        std::fs::write(self.path(&blake3), bytes).unwrap();
        blake3
    }
}

/// Runs a job over a source; what is wrong with it otherwise.
pub(crate) fn job(source: &Path, params: Value, order: Order) -> Result<Done, String> {
    let encoder = Encoder::find().expect("scripts/setup installs ffmpeg");
    let store = Store { folder: tempfile::tempdir().unwrap() };
    let scratch = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(source).unwrap();
    let blake3 = store.keep(&bytes);
    let name = source.file_name().unwrap().to_str().unwrap();
    let mut spec = json!({
        "name": "test", "workload": "video",
        "params": { "input": name, "encoder": encoder.build() },
        "inputs": [{ "name": name, "blake3": blake3.to_string(), "bytes": bytes.len() }],
    });
    for (key, value) in params.as_object().unwrap() {
        spec["params"][key] = value.clone();
    }
    let spec = JobSpec::from_value(&spec).map_err(|error| error.to_string())?;
    let manifest = spec.check().map_err(|error| error.to_string())?;
    let mut plan = Plan::new(&manifest, 0).map_err(|error| error.to_string())?;
    let (mut products, mut plans) = (Vec::new(), Vec::new());
    let document = loop {
        let made = stage(&plan, &store, &encoder, scratch.path(), order)?;
        products.push(made.clone());
        plans.push(plan.clone());
        match next_stage(&manifest, &plan, made).map_err(|error| error.to_string())? {
            Next::Finished(document) => break document,
            Next::Round(next) => plan = *next,
        }
    };
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "scratch is left empty");
    let document: Value = serde_json::from_slice(&document).unwrap();
    let outputs: Vec<Output> = serde_json::from_value(document["outputs"].clone()).unwrap();
    let whole: Vec<u8> = outputs[0]
        .parts
        .iter()
        .flat_map(|part| {
            let product = std::fs::read(store.path(&part.product)).unwrap();
            product[part.offset as usize..][..part.bytes as usize].to_vec()
        })
        .collect();
    let digest = Digest::of(&whole);
    assert_eq!((outputs[0].bytes, outputs[0].blake3), (whole.len() as u64, digest));
    let output = store.folder.path().join(&outputs[0].name);
    std::fs::write(&output, whole).unwrap();
    Ok(Done { document, products, output, digest, plans, store })
}

fn stage(
    plan: &Plan,
    store: &Store,
    encoder: &Encoder,
    scratch: &Path,
    order: Order,
) -> Result<Vec<ProductRef>, String> {
    let task = Task::decode(plan.task()).unwrap();
    let mut indices: Vec<u64> = (plan.indices().start..plan.indices().end).collect();
    if let Order::Backward = order {
        indices.reverse();
    }
    let mut made = BTreeMap::new();
    for index in indices {
        let shard = plan.shard(ShardIndex(index)).unwrap();
        let inputs = |blake3: &[u8; 32]| Some(store.path(&Digest(*blake3))).filter(|path| path.exists());
        let told = RefCell::new(Vec::new());
        let progress = |done, of| told.borrow_mut().push((done, of));
        let product = tessera_media::run(
            &task,
            shard.first,
            shard.count,
            &inputs,
            encoder,
            scratch,
            &progress,
            &|| false,
        );
        let bytes = product.map_err(|error| error.to_string())?.encode().unwrap();
        assert!(told.borrow().iter().all(|(done, of)| done <= of));
        let blake3 = store.keep(&bytes);
        made.insert(index, ProductView::decode(&bytes).unwrap().reference(blake3));
    }
    Ok(made.into_values().collect())
}

/// A folder with clips made by FFmpeg itself.
pub(crate) struct Clips {
    folder: TempDir,
}

impl Clips {
    pub(crate) fn new() -> Clips {
        Clips { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `ffmpeg` with arguments separated by spaces; the last is the file it makes.
    pub(crate) fn make(&self, arguments: &str) -> PathBuf {
        let name = arguments.split_whitespace().last().unwrap();
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-nostdin", "-v", "error", "-y"]).args(arguments.split_whitespace());
        let output = command.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        self.path(name)
    }
}

/// What a program says.
pub(crate) fn say<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// When the frames of a file's video are shown, in order. *Units*: seconds.
pub(crate) fn shown(file: &Path) -> Vec<f64> {
    let entries =
        ["-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let arguments: Vec<&OsStr> = entries.iter().map(OsStr::new).chain([file.as_os_str()]).collect();
    let said = say("ffprobe", &arguments);
    let mut shown: Vec<f64> =
        said.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect();
    shown.sort_by(f64::total_cmp);
    shown
}

/// The likeness of each frame of two files, by number, after a filter on the second.
pub(crate) fn likeness(made: &Path, source: &Path, filter: &str) -> Vec<f64> {
    let graph = format!(
        "[0:v:0]settb=1/1000,setpts=N[a];[1:v:0]{filter},settb=1/1000,setpts=N[b];[a][b]ssim=stats_file=-:shortest=1"
    );
    let (made, source) = (made.to_str().unwrap(), source.to_str().unwrap());
    let said = say(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            made,
            "-i",
            source,
            "-lavfi",
            &graph,
            "-fps_mode",
            "passthrough",
            "-f",
            "null",
            "-",
        ],
    );
    let all = |line: &str| {
        line.split_whitespace()
            .find_map(|field| field.strip_prefix("All:"))
            .and_then(|text| text.parse().ok())
    };
    said.lines().filter_map(all).collect()
}

/// An audio stream of a file as samples of one channel at 48 kHz.
fn samples(file: &Path, stream: usize) -> Vec<i16> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-map", &format!("0:a:{stream}"), "-ac", "1", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// How much later the second file's sound is heard than the first's, each counted from its first frame, by
/// their correlation. Both are noise. *Units*: samples.
pub(crate) fn delay(first: &Path, second: &Path, stream: usize) -> i64 {
    let [heard, heard_then] = [first, second].map(|file| samples(file, stream));
    let at = 100_000;
    let product = |lag: i64| -> i64 {
        let shifted = &heard_then[(at as i64 + lag) as usize..];
        heard[at..at + 2_000].iter().zip(shifted).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum()
    };
    let later = (-20_000..20_000).max_by_key(|lag| product(*lag)).unwrap();
    later + begins(second, stream) - begins(first, stream)
}

/// When the first sample of an audio stream is heard, counted from the first frame. *Units*: samples.
fn begins(file: &Path, stream: usize) -> i64 {
    let stream = format!("a:{stream}");
    let entries =
        ["-v", "error", "-read_intervals", "%+#8", "-show_entries", "frame=pts_time", "-of", "csv=p=0"];
    let mut arguments: Vec<&OsStr> = entries.iter().map(OsStr::new).collect();
    arguments.extend([OsStr::new("-select_streams"), OsStr::new(&stream), file.as_os_str()]);
    let said = say("ffprobe", &arguments);
    let first = said.lines().find_map(|line| line.trim_end_matches(',').parse::<f64>().ok()).unwrap();
    ((first - shown(file)[0]) * 48_000.0).round() as i64
}
