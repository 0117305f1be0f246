//! Planning the video workload: survey, probe where a quality is asked for, encode, finish.
//!
//! Owns how a source is cut into segments and streams, and when the search for a quality ends. Reads heads
//! only.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;
use tessera_protocol::id::Digest;
use tessera_protocol::limits;
use tessera_protocol::product::ProductRef;
use tessera_protocol::spec::{AudioChoice, H264_PRESETS, JobSpec, Preset, VideoParams};
use tessera_protocol::video::{
    self, AudioCodec, EncodeTask, EncodedUnit, Finding, FinishTask, FinishedPart, PART_BYTES, PARTS_MAX,
    ProbeTask, Probed, Rate, Recipe, Source, Survey, SurveyTask, Task, VideoCodec,
};

use crate::staged::{Stage, StageError, Step};

mod quality;
mod result;
mod tracks;

use quality::Search;

/// What looking into a file costs besides reading it: starting programs. *Units*: compute units.
const SURVEY_UNITS: u64 = 20_000_000;
/// Quality where none is asked for. *Source*: the defaults of x264 and of SVT-AV1.
const CRF: [u32; 2] = [23, 35];
/// Presets where none is asked for: x264's default, and the one of SVT-AV1 that takes about as long.
const PRESET: [u32; 2] = [5, 8];
/// About how long one core takes to encode a pixel, by x264's presets; a guide to the cost of a job.
/// *Units*: nanoseconds.
const H264_PIXEL_NS: [u64; 9] = [4, 6, 9, 14, 20, 27, 45, 100, 200];
/// As [`H264_PIXEL_NS`], by SVT-AV1's presets.
const AV1_PIXEL_NS: [u64; 14] = [3_000, 1_200, 500, 250, 150, 100, 60, 40, 25, 18, 12, 10, 8, 6];
/// Time of one core to decode a pixel and hash it. *Units*: nanoseconds.
const DECODE_PIXEL_NS: u64 = 6;
/// *Units*: nanoseconds of one core to a compute unit.
const UNIT_NS: u64 = 15;

pub(crate) fn step(
    spec: &JobSpec,
    params: &VideoParams,
    done: &[Vec<ProductRef>],
) -> Result<Step, StageError> {
    let source = source(spec, params)?;
    let Some(surveyed) = done.first() else { return Ok(Step::Stage(survey_stage(params, source))) };
    let survey: Survey = only(surveyed, 0, &params.input)?;
    let survey_ref = reference(surveyed.first().ok_or(StageError::Head { stage: 0 })?);
    let mut recipe = recipe(params, &survey)?;
    let mut next = 1;
    let mut search = params.quality.as_ref().map(|quality| Search::new(quality, params.codec));
    if let Some(search) = &mut search {
        let samples = quality::samples(params, survey.video.output_frames);
        while let Some(crfs) = search.crfs() {
            let Some(probed) = done.get(next) else {
                let recipe = recipe.clone();
                let metric = search.metric();
                let task = ProbeTask { source, survey: survey_ref, recipe, metric, samples, crfs };
                return Ok(Step::Stage(probe_stage(task)));
            };
            let probes: Vec<Probed> = all(probed, next, &params.input)?;
            search.absorb(&crfs, &probes).ok_or(StageError::Head { stage: next })?;
            next += 1;
        }
        recipe.rate = Rate::Crf(search.chosen());
    }
    let encode = encode_task(params, &survey, source, survey_ref, recipe)?;
    let Some(encoded) = done.get(next) else { return encode_stage(encode).map(Step::Stage) };
    let units: Vec<EncodedUnit> = all(encoded, next, &params.input)?;
    if units.len() as u64 != encode.units() {
        return Err(StageError::Head { stage: next });
    }
    let Some(finished) = done.get(next + 1) else {
        return finish_stage(params, &survey, encode, encoded, &units).map(Step::Stage);
    };
    let parts: Vec<FinishedPart> = all(finished, next + 1, &params.input)?;
    let made =
        result::Made { params, survey: &survey, encode: &encode, units: &units, search: search.as_ref() };
    result::document(&made, finished, &parts).map(Step::Finished).ok_or(StageError::Head { stage: next + 1 })
}

fn source(spec: &JobSpec, params: &VideoParams) -> Result<Source, StageError> {
    let input = spec.inputs.iter().find(|input| input.name == params.input);
    let missing = || StageError::Input(format!("{}: is none of the job's inputs", params.input));
    let input = input.ok_or_else(missing)?;
    Ok(Source { blake3: input.blake3.0, bytes: input.bytes })
}

fn reference(product: &ProductRef) -> Source {
    Source { blake3: product.blake3.0, bytes: product.bytes }
}

/// What the shards of a stage found; the first that found something wrong with the source speaks for all.
fn all<T: for<'a> Deserialize<'a>>(
    products: &[ProductRef],
    stage: usize,
    input: &str,
) -> Result<Vec<T>, StageError> {
    let mut found = Vec::with_capacity(products.len());
    for product in products {
        match Finding::decode(&product.head) {
            Some(Finding::Found(of_shard)) => found.push(of_shard),
            Some(Finding::Error(what)) => return Err(StageError::Input(format!("{input}: {what}"))),
            None => return Err(StageError::Head { stage }),
        }
    }
    Ok(found)
}

fn only<T: for<'a> Deserialize<'a>>(
    products: &[ProductRef],
    stage: usize,
    input: &str,
) -> Result<T, StageError> {
    let mut found: Vec<T> = all(products, stage, input)?;
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(StageError::Head { stage }),
    }
}

/// A stage of a task, a unit to a shard.
fn stage(name: &'static str, task: &Task, unit_cost: u64) -> Stage {
    Stage {
        name,
        inputs: task.inputs().into_iter().map(|(blake3, bytes)| (Digest(blake3), bytes)).collect(),
        units: task.units(),
        shard_units: 1,
        unit_cost: unit_cost.max(1),
        task: task.encode(),
    }
}

fn survey_stage(params: &VideoParams, source: Source) -> Stage {
    let task = Task::Survey(SurveyTask {
        source,
        frame_rate: params.rate(),
        codec: params.codec,
        audio: audio_codec(params),
        metric: params.quality.as_ref().map(|quality| quality.metric),
    });
    stage("survey", &task, SURVEY_UNITS + source.bytes / UNIT_NS)
}

fn audio_codec(params: &VideoParams) -> Option<AudioCodec> {
    match params.audio.codec {
        AudioChoice::Aac => Some(AudioCodec::Aac),
        AudioChoice::Opus => Some(AudioCodec::Opus),
        AudioChoice::None => None,
    }
}

fn probe_stage(task: ProbeTask) -> Stage {
    let frames = task.samples.iter().map(|[_, frames]| *frames).max().unwrap_or(1);
    // Encoded, then decoded twice by plain code.
    let cost = frames * pixels(&task.recipe) * (pixel_ns(&task.recipe) + 6 * DECODE_PIXEL_NS) / UNIT_NS;
    stage("probe", &Task::Probe(task), cost)
}

fn encode_stage(task: EncodeTask) -> Result<Stage, StageError> {
    let shards = task.units();
    if shards > limits::STAGE_SHARDS_MAX {
        return Err(StageError::Size(format!(
            "it would be encoded in {shards} pieces, at most {} are allowed: give a larger segment_frames",
            limits::STAGE_SHARDS_MAX
        )));
    }
    let frames = task.frames.min(u64::from(task.segment_frames));
    let cost = frames * pixels(&task.recipe) * (pixel_ns(&task.recipe) + DECODE_PIXEL_NS) / UNIT_NS;
    Ok(stage("encode", &Task::Encode(task), cost))
}

fn finish_stage(
    params: &VideoParams,
    survey: &Survey,
    encode: EncodeTask,
    encoded: &[ProductRef],
    units: &[EncodedUnit],
) -> Result<Stage, StageError> {
    // Parts of an audio stream each name the whole of it; the parts themselves are what is counted.
    let bytes: u64 = encoded.iter().map(|product| product.bytes).sum();
    let too_long = units.iter().enumerate().any(|(unit, made)| match encode.unit(unit as u64) {
        Some(video::Unit::Audio { track, .. }) => {
            made.bytes > u64::from(encode.audio[track].parts) * PART_BYTES
        }
        _ => false,
    });
    if too_long {
        return Err(StageError::Size("an audio stream came out longer than its bit rate says".to_string()));
    }
    // Segments bring more than their share of an output's tables; what is added here is for other wrappings.
    let most = bytes + bytes / 50 + encode.frames * 16 + (1 << 20);
    let parts = u32::try_from(most.div_ceil(PART_BYTES)).ok().filter(|parts| *parts <= PARTS_MAX);
    let parts = parts.ok_or_else(|| StageError::Size(format!("its output would have {most} bytes")))?;
    let cost = encode.frames * pixels(&encode.recipe) * DECODE_PIXEL_NS / UNIT_NS / u64::from(parts);
    let labels = tracks::labels(params, survey);
    let products = encoded.iter().map(reference).collect();
    let task = Task::Finish(FinishTask { encode, products, labels, parts });
    Ok(stage("finish", &task, cost + bytes / UNIT_NS + SURVEY_UNITS))
}

fn pixels(recipe: &Recipe) -> u64 {
    u64::from(recipe.width) * u64::from(recipe.height)
}

fn pixel_ns(recipe: &Recipe) -> u64 {
    match recipe.codec {
        VideoCodec::H264 => H264_PIXEL_NS[(recipe.preset as usize).min(H264_PIXEL_NS.len() - 1)],
        VideoCodec::Av1 => AV1_PIXEL_NS[(recipe.preset as usize).min(AV1_PIXEL_NS.len() - 1)],
    }
}

fn recipe(params: &VideoParams, survey: &Survey) -> Result<Recipe, StageError> {
    let which = match params.codec {
        VideoCodec::H264 => 0,
        VideoCodec::Av1 => 1,
    };
    let preset = match &params.preset {
        None => PRESET[which],
        Some(Preset::Level(level)) => *level,
        Some(Preset::Name(name)) => {
            let position = H264_PRESETS.iter().position(|preset| preset == name);
            position.map_or(PRESET[which], |position| position as u32)
        }
    };
    let rate = match params.bitrate_kbps {
        Some(kbps) => Rate::Kbps(kbps),
        None => Rate::Crf(params.crf.unwrap_or(CRF[which])),
    };
    let frame_rate = params.rate();
    let [width, height] = size(params, survey)?;
    Ok(Recipe {
        stream: survey.video.stream,
        codec: params.codec,
        preset,
        rate,
        bit_depth: params.bit_depth,
        width,
        height,
        frame_rate,
        keyframe_interval: params.keyframe_interval,
        time_base: frame_rate.map_or(survey.video.time_base, |[above, below]| [below, above]),
    })
}

/// Width and height of the output, both even; what is not asked for follows from the shape of the source.
fn size(params: &VideoParams, survey: &Survey) -> Result<[u32; 2], StageError> {
    let source = [u64::from(survey.video.width), u64::from(survey.video.height)];
    // To the nearest even number.
    let other = |side: u32, [of, to]: [u64; 2]| (u64::from(side) * to + of) / (2 * of).max(1) * 2;
    let [width, height] = match (params.width, params.height) {
        (Some(width), Some(height)) => [u64::from(width), u64::from(height)],
        (Some(width), None) => [u64::from(width), other(width, source)],
        (None, Some(height)) => [other(height, [source[1], source[0]]), u64::from(height)],
        (None, None) => source.map(|side| side / 2 * 2),
    };
    let fits = |side: u64| {
        u32::try_from(side).ok().filter(|side| (video::SIDE_MIN..=video::SIDE_MAX).contains(side))
    };
    match (fits(width), fits(height)) {
        (Some(width), Some(height)) => Ok([width, height]),
        _ => Err(StageError::Input(format!(
            "{}: its pictures would be {width} x {height}: each side must be from {} to {} pixels",
            params.input,
            video::SIDE_MIN,
            video::SIDE_MAX
        ))),
    }
}

fn encode_task(
    params: &VideoParams,
    survey: &Survey,
    source: Source,
    survey_ref: Source,
    recipe: Recipe,
) -> Result<EncodeTask, StageError> {
    let task = EncodeTask {
        source,
        survey: survey_ref,
        recipe,
        frames: survey.video.output_frames,
        segment_frames: params.frames_of_segment(),
        container: params.container,
        origin: survey.video.origin,
        origin_base: survey.video.time_base,
        audio: tracks::audio(params, survey),
        subtitles: tracks::subtitles(params, survey).map_err(StageError::Input)?,
    };
    let whole = Task::Encode(task.clone()).check();
    let unfit =
        |error: video::TaskError| -> String { format!("{}: cannot be encoded: {error}", params.input) };
    whole.map_err(|error| StageError::Input(unfit(error)))?;
    Ok(task)
}
