//! Runs a climate job as hub and agents do, in one thread: stage by stage, shard by shard.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};
use tessera_kernels::climate;
use tessera_kernels::isa::Isa;
use tessera_planners::{Next, Plan, next_stage};
use tessera_protocol::climate::Task;
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Output, ProductView};
use tessera_protocol::spec::JobSpec;
use tessera_protocol::unit::ShardIndex;

/// What a job needs, and how it is run.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) params: Value,
    pub(crate) inputs: Vec<(String, Vec<u8>)>,
    /// Shards are run last to first.
    pub(crate) backwards: bool,
    pub(crate) isa: Isa,
}

/// What a client gets.
pub(crate) struct Outcome {
    pub(crate) document: Value,
    pub(crate) digest: Digest,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) stages: Vec<String>,
    pub(crate) shards: u64,
}

impl Job {
    pub(crate) fn new(params: Value, inputs: &[(&str, Vec<u8>)]) -> Job {
        let inputs = inputs.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect();
        Job { params, inputs, backwards: false, isa: Isa::detect() }
    }

    /// The outcome, or the words that the job ends with.
    pub(crate) fn outcome(&self) -> Result<Outcome, String> {
        let mut store: HashMap<[u8; 32], Bytes> = HashMap::new();
        let mut put = |bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            store.insert(digest.0, bytes.into());
            digest
        };
        let inputs: Vec<Value> = self
            .inputs
            .iter()
            .map(|(name, bytes)| json!({ "name": name, "blake3": put(bytes.clone()), "bytes": bytes.len() }))
            .collect();
        let job = json!({
            "name": "test", "workload": "climate_pca", "params": self.params, "inputs": inputs
        });
        let spec = JobSpec::from_value(&job).and_then(JobSpec::check);
        let manifest = spec.unwrap_or_else(|error| panic!("{error}"));
        let mut plan = Plan::new(&manifest, 0).expect("the survey can be planned");
        let (mut stages, mut shards) = (Vec::new(), 0);
        loop {
            stages.push(plan.stage().expect("a stage").to_owned());
            shards += plan.shards();
            let products = self.stage(&plan, &mut store);
            match next_stage(&manifest, &plan, products).map_err(|error| error.to_string())? {
                Next::Round(next) => plan = *next,
                Next::Finished(document) => {
                    let digest = Digest::of(&document);
                    let document: Value = serde_json::from_slice(&document).unwrap();
                    let files = files(&document, &store);
                    return Ok(Outcome { document, digest, files, stages, shards });
                }
            }
        }
    }

    fn stage(
        &self,
        plan: &Plan,
        store: &mut HashMap<[u8; 32], Bytes>,
    ) -> Vec<tessera_protocol::product::ProductRef> {
        let task = Task::decode(plan.task()).expect("planners write tasks");
        let named: Vec<[u8; 32]> = plan.inputs().iter().map(|(digest, _)| digest.0).collect();
        let first = plan.indices().start;
        let mut products = Vec::new();
        let indices: Vec<u64> = match self.backwards {
            true => (0..plan.shards()).rev().collect(),
            false => (0..plan.shards()).collect(),
        };
        for index in indices {
            let shard = plan.shard(ShardIndex(first + index)).expect("a shard");
            // An agent has what the plan names and nothing else.
            let find = |digest: &[u8; 32]| store.get(digest).filter(|_| named.contains(digest)).cloned();
            let product = climate::run(&task, shard.first, shard.count, &find, self.isa, &|| false);
            let bytes = product.unwrap_or_else(|error| panic!("{error}")).encode().expect("a product");
            let digest = Digest::of(&bytes);
            products.push((index, ProductView::decode(&bytes).unwrap().reference(digest)));
            store.insert(digest.0, bytes.into());
        }
        products.sort_by_key(|(index, _)| *index);
        products.into_iter().map(|(_, product)| product).collect()
    }

    pub(crate) fn done(&self) -> Outcome {
        self.outcome().unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn refused(&self) -> String {
        self.outcome().err().expect("the job ends with an error")
    }
}

/// The outputs of a document, as a client puts them together, digests compared.
fn files(document: &Value, store: &HashMap<[u8; 32], Bytes>) -> BTreeMap<String, Vec<u8>> {
    let outputs: Vec<Output> = serde_json::from_value(document["outputs"].clone()).unwrap();
    let mut files = BTreeMap::new();
    for output in outputs {
        let mut bytes = Vec::new();
        for part in &output.parts {
            bytes.extend(&store[&part.product.0][part.offset as usize..][..part.bytes as usize]);
        }
        assert_eq!(
            (Digest::of(&bytes), bytes.len() as u64),
            (output.blake3, output.bytes),
            "{}",
            output.name
        );
        files.insert(output.name, bytes);
    }
    files
}

pub(crate) fn reference_bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/reference/climate").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn numbers(npy: &[u8]) -> (Vec<u64>, Vec<f64>) {
    let file = npyz::NpyFile::new(npy).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

pub(crate) fn npy(shape: &[u64], values: &[f64]) -> Vec<u8> {
    use npyz::WriterBuilder;
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes);
    let mut writer = options.begin_nd().unwrap();
    writer.extend(values).unwrap();
    writer.finish().unwrap();
    bytes
}

pub(crate) fn wide() -> Job {
    let params = json!({
        "field": ["wide.nc"], "project": ["new.npy"], "weights": "sqrt_cos_lat", "modes": 5,
        "reconstruct": [3, 1], "formats": ["netcdf", "npy"]
    });
    let inputs = [("wide.nc", reference_bytes("wide.nc")), ("new.npy", reference_bytes("wide_new.npy"))];
    Job::new(params, &inputs)
}

pub(crate) fn tall() -> Job {
    let params = json!({ "field": ["tall.npy"], "modes": 5, "formats": ["npy"] });
    Job::new(params, &[("tall.npy", reference_bytes("tall.npy"))])
}
