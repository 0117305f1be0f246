//! A job that goes through stages, computed here.
//!
//! Owns the products between the stages. What a stage is, planners say; what a product holds, kernels.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tessera_kernels::isa::Isa;
use tessera_kernels::staged::{self, StageError};
use tessera_media::{Encoder, MediaError};
use tessera_planners::{Next, Plan, next_stage};
use tessera_protocol::catastrophe;
use tessera_protocol::id::Digest;
use tessera_protocol::product::{ProductRef, ProductView};
use tessera_protocol::spec::Manifest;
use tessera_protocol::staged::Task;
use tessera_protocol::video;

use super::{ComputeError, Inputs, Means, Run};

/// Inputs and products by their digests.
type Files = BTreeMap<Digest, Bytes>;

impl Run<'_> {
    /// Computes stage after stage.
    pub(super) fn stages(
        &self,
        manifest: &Manifest,
        mut plan: Plan,
        inputs: &dyn Inputs,
    ) -> Result<Vec<u8>, ComputeError> {
        let mut files = Files::new();
        loop {
            for (blake3, _) in plan.inputs() {
                if let Entry::Vacant(place) = files.entry(blake3) {
                    place.insert(inputs.file(blake3)?);
                }
            }
            let products = self.stage(&plan, &files)?;
            files.extend(products.iter().map(|(product, bytes)| (product.blake3, bytes.clone())));
            let products = products.into_iter().map(|(product, _)| product).collect();
            match next_stage(manifest, &plan, products).map_err(ComputeError::StageFailed)? {
                Next::Finished(document) => return Ok(document),
                Next::Round(following) => plan = *following,
            }
        }
    }

    /// The products of one stage, in the order of its shards.
    fn stage(&self, plan: &Plan, files: &Files) -> Result<Vec<(ProductRef, Bytes)>, ComputeError> {
        let task = Task::decode(plan.kernel(), plan.task()).ok_or(ComputeError::Task)?;
        let studio = match &task {
            Task::Video(_) => Some(Studio::open(plan.kernel(), files)?),
            Task::Climate(_) | Task::Catastrophe(_) => None,
        };
        let products = Mutex::new(BTreeMap::new());
        self.each_shard(plan, |means, index| {
            let shard = plan.shard(index).ok_or(ComputeError::Task)?;
            let bytes = self.product(&task, studio.as_ref(), means, (shard.first, shard.count), files)?;
            let product = ProductView::decode(&bytes).map_err(|_| ComputeError::Task)?;
            let reference = product.reference(Digest::of(&bytes));
            let mut products = products.lock().map_err(|_| ComputeError::Task)?;
            products.insert(index, (reference, Bytes::from(bytes)));
            Ok(())
        })?;
        let products = products.into_inner().map_err(|_| ComputeError::Task)?;
        Ok(products.into_values().collect())
    }

    /// The product of one shard, encoded.
    fn product(
        &self,
        task: &Task,
        studio: Option<&Studio>,
        means: &mut Means,
        units: (u64, u64),
        files: &Files,
    ) -> Result<Vec<u8>, ComputeError> {
        let cancelled = || self.stop.load(Ordering::Relaxed);
        let find = |blake3: &[u8; 32]| files.get(&Digest(*blake3)).cloned();
        let isa = match (task, means) {
            (Task::Catastrophe(task @ catastrophe::Task::Losses { .. }), Means::Ptx(emulator)) => {
                let product = tessera_cuda::catastrophe(emulator, task, units, &find, &cancelled)?;
                return staged::encoded(&product).map_err(ComputeError::Stage);
            }
            // Files are read before the losses, and tables made after them, on the processor alone.
            (Task::Catastrophe(_), Means::Ptx(_)) => Isa::detect(),
            (Task::Climate(_) | Task::Video(_), Means::Ptx(_)) => {
                return Err(ComputeError::Unsupported { what: "these stages".to_owned() });
            }
            (_, Means::Processor(isa)) => *isa,
        };
        match (task, studio) {
            (Task::Video(task), Some(studio)) => studio.run(task, units, &cancelled),
            _ => staged::run(task, units, &find, isa, &cancelled).map_err(ComputeError::Stage),
        }
    }
}

/// An encoder and the files it reads, where it can read them.
struct Studio {
    encoder: Encoder,
    folder: tempfile::TempDir,
}

impl Studio {
    fn open(kernel: &str, files: &Files) -> Result<Studio, ComputeError> {
        let encoder =
            Encoder::find().map_err(|error| ComputeError::Unsupported { what: error.to_string() })?;
        if !encoder.kernels().iter().any(|offered| offered == kernel) {
            let what = format!(
                "{kernel}: the encoder of this machine is another build, {}",
                encoder.kernels().join(", ")
            );
            return Err(ComputeError::Unsupported { what });
        }
        let folder = tempfile::tempdir().map_err(failed)?;
        for (blake3, bytes) in files {
            std::fs::write(folder.path().join(blake3.to_string()), bytes).map_err(failed)?;
        }
        Ok(Studio { encoder, folder })
    }

    fn run(
        &self,
        task: &video::Task,
        (first, count): (u64, u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, ComputeError> {
        let path = |blake3: &[u8; 32]| -> Option<PathBuf> {
            let path = self.folder.path().join(Digest(*blake3).to_string());
            path.exists().then_some(path)
        };
        let product = tessera_media::run(
            task,
            first,
            count,
            &path,
            &self.encoder,
            self.folder.path(),
            &|_, _| {},
            cancelled,
        );
        let product = product.map_err(|error| match error {
            MediaError::Cancelled => ComputeError::Interrupted,
            error => ComputeError::Stage(StageError::Kernel(error.to_string())),
        })?;
        staged::encoded(&product).map_err(ComputeError::Stage)
    }
}

fn failed(error: std::io::Error) -> ComputeError {
    ComputeError::Stage(StageError::Kernel(format!("cannot write to the temporary folder: {error}")))
}
