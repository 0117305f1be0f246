//! A quick look at an encoded video: its source and output in a folder, and the plan that they follow from.

use std::fs::File;
use std::path::PathBuf;

use serde::Deserialize;
use tessera_kernels::look::Look;
use tessera_kernels::staged::StageError;
use tessera_media::look::{self, Given, Stated};
use tessera_media::{Encoder, MediaError};
use tessera_protocol::id::Digest;
use tessera_protocol::product::ProductView;
use tessera_protocol::spec::{Manifest, Params, StagedParams};
use tessera_protocol::staged::Task;
use tessera_protocol::video::{Finding, Survey, Task as Stage};

use super::super::ComputeError;
use super::staged::{Desk, planned};

/// Of a source that no job was ever finished with.
const SOURCE: &str = "source";

#[derive(Deserialize)]
struct Document {
    frames: u64,
    duration_us: u64,
    source: Source,
    #[serde(default)]
    crf: Option<u32>,
}

#[derive(Deserialize)]
struct Source {
    frames: u64,
}

pub(super) fn look(desk: &Desk<'_>) -> Result<Look, ComputeError> {
    let (document, outputs): (Document, _) = match desk.document() {
        Ok(read) => read,
        Err(look) => return Ok(look),
    };
    let encoder = Encoder::find().map_err(|error| ComputeError::Unsupported { what: error.to_string() })?;
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = |blake3: Digest| folder.path().join(blake3.to_string());
    let manifest = without_search(desk.manifest, document.crf)?;
    let plan = desk.plan()?;
    let kernel = plan.kernel().clone();
    // The search for a quality is not repeated: the plan is that of its outcome.
    let plan = tessera_planners::Plan::new(&manifest, 0).map_err(ComputeError::Plan)?;
    for (blake3, _) in plan.inputs() {
        desk.files.input(blake3, &mut File::create(path(blake3)).map_err(failed)?)?;
    }
    let inputs =
        |blake3: &[u8; 32]| -> Option<PathBuf> { Some(path(Digest(*blake3))).filter(|path| path.exists()) };
    let Some(Task::Video(task)) = Task::decode(plan.kernel(), plan.task()) else {
        return Err(ComputeError::Task);
    };
    let surveyed =
        tessera_media::run(&task, 0, 1, &inputs, &encoder, folder.path(), &|_, _| {}, desk.cancelled);
    let surveyed =
        tessera_kernels::staged::encoded(&surveyed.map_err(stopped)?).map_err(ComputeError::Stage)?;
    std::fs::write(path(Digest::of(&surveyed)), &surveyed).map_err(failed)?;
    let task = match planned(&manifest, &plan, &surveyed)? {
        Ok(Task::Video(Stage::Encode(task))) => task,
        Ok(_) => return Err(ComputeError::Task),
        Err(what) => return refused(&encoder, &kernel, what),
    };
    let head = ProductView::decode(&surveyed).ok().and_then(|view| Finding::<Survey>::decode(view.head));
    let Some(Finding::Found(survey)) = head else { return Err(ComputeError::Task) };
    let [output] = &outputs[..] else { return Err(ComputeError::Task) };
    let file = folder.path().join("the-output");
    desk.files.output(output, &mut File::create(&file).map_err(failed)?)?;
    let stated = Stated {
        source_frames: document.source.frames,
        frames: document.frames,
        duration_us: document.duration_us,
    };
    let given = Given { task: &task, survey: &survey, stated: &stated, output: &file, kernel: &kernel };
    look::look(&given, &inputs, &encoder, folder.path(), &desk.chooser, desk.cancelled).map_err(stopped)
}

/// The same job with the quality that was found.
fn without_search(manifest: &Manifest, crf: Option<u32>) -> Result<Manifest, ComputeError> {
    let mut spec = manifest.spec().clone();
    if let Params::Staged(StagedParams::Video(params)) = &mut spec.params
        && params.quality.take().is_some()
    {
        params.crf = crf;
    }
    Manifest::recovered(spec).map_err(|_| ComputeError::Task)
}

/// A source that a survey refuses. No job of this build was ever finished with it; another may read it otherwise.
fn refused(encoder: &Encoder, kernel: &str, what: String) -> Result<Look, ComputeError> {
    if !encoder.kernels().iter().any(|offered| offered == kernel) {
        let what =
            format!("a look at {kernel}: the FFmpeg of this machine is another build and says that {what}");
        return Err(ComputeError::Unsupported { what });
    }
    let mut look = Look::default();
    look.check(SOURCE, false, "a result", what);
    Ok(look)
}

fn stopped(error: MediaError) -> ComputeError {
    match error {
        MediaError::Cancelled => ComputeError::Interrupted,
        error => ComputeError::Stage(StageError::Kernel(error.to_string())),
    }
}

fn failed(error: std::io::Error) -> ComputeError {
    ComputeError::Stage(StageError::Kernel(format!("cannot write to the temporary folder: {error}")))
}
