//! The result document of a video job.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use tessera_protocol::canonical;
use tessera_protocol::product::{Output, OutputPart, ProductRef, is_plain_name};
use tessera_protocol::spec::VideoParams;
use tessera_protocol::video::{
    AudioCodec, Cadence, Container, EncodeTask, EncodedUnit, FinishedPart, Metric, Rate, Survey, Unit,
    VideoCodec,
};

use super::quality::Search;

/// Everything that was found on the way.
pub(super) struct Made<'a> {
    pub(super) params: &'a VideoParams,
    pub(super) survey: &'a Survey,
    pub(super) encode: &'a EncodeTask,
    pub(super) units: &'a [EncodedUnit],
    pub(super) search: Option<&'a Search>,
}

#[derive(Serialize)]
struct Document<'a> {
    workload: &'a str,
    encoder: &'a str,
    codec: VideoCodec,
    container: Container,
    width: u32,
    height: u32,
    bit_depth: u32,
    frames: u64,
    duration_us: u64,
    source: Source<'a>,
    segments: u64,
    segment_frames: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_rate: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crf: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate_kbps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    video_bytes: u64,
    audio: Vec<Audio<'a>>,
    subtitles: Vec<Subtitle<'a>>,
    checks: Checks,
    outputs: [Output; 1],
}

#[derive(Serialize)]
struct Source<'a> {
    format: &'a str,
    codec: &'a str,
    width: u32,
    height: u32,
    frames: u64,
    cadence: Cadence,
    counted_by_decoding: bool,
    left_out: &'a [String],
}

#[derive(Serialize)]
struct Quality {
    metric: Metric,
    target: f64,
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    tried: Vec<Try>,
}

#[derive(Serialize)]
struct Try {
    crf: u32,
    score: f64,
    bytes: u64,
}

#[derive(Serialize)]
struct Audio<'a> {
    codec: AudioCodec,
    channels: u32,
    sample_rate: u32,
    kbps: u32,
    language: &'a str,
    start_us: i64,
    bytes: u64,
}

#[derive(Serialize)]
struct Subtitle<'a> {
    codec: &'a str,
    language: &'a str,
}

/// What was compared with the source and the segments, frame by frame.
#[derive(Serialize)]
struct Checks {
    times: u64,
    pictures: u64,
}

/// The document, or nothing where the parts do not make one output.
pub(super) fn document(made: &Made<'_>, finished: &[ProductRef], parts: &[FinishedPart]) -> Option<Vec<u8>> {
    let Made { params, survey, encode, .. } = made;
    let recipe = &encode.recipe;
    let first = parts.first()?;
    let one = parts
        .iter()
        .all(|part| (part.bytes, part.blake3, part.frames) == (first.bytes, first.blake3, encode.frames));
    let pictures: u64 = parts.iter().map(|part| part.frames_compared).sum();
    if !one || pictures != encode.frames || first.audio_start_us.len() != encode.audio.len() {
        return None;
    }
    let (crf, bitrate_kbps) = match recipe.rate {
        Rate::Crf(crf) => (Some(crf), None),
        Rate::Kbps(kbps) => (None, Some(kbps)),
    };
    let document = Document {
        workload: "video",
        encoder: &params.encoder,
        codec: recipe.codec,
        container: encode.container,
        width: recipe.width,
        height: recipe.height,
        bit_depth: recipe.bit_depth,
        frames: encode.frames,
        duration_us: survey.video.duration_us,
        source: Source {
            format: &survey.format,
            codec: &survey.video.codec,
            width: survey.video.width,
            height: survey.video.height,
            frames: survey.video.frames,
            cadence: survey.video.cadence,
            counted_by_decoding: survey.video.decoded,
            left_out: &survey.left_out,
        },
        segments: encode.segments(),
        segment_frames: encode.segment_frames,
        frame_rate: recipe.frame_rate,
        crf,
        bitrate_kbps,
        quality: made.search.map(|search| quality(params, search)),
        video_bytes: bytes_of(made, |unit| matches!(unit, Unit::Segment { .. })),
        audio: audio(made, first),
        subtitles: subtitles(made),
        checks: Checks { times: first.frames, pictures },
        outputs: [output(made, finished, first)?],
    };
    canonical::to_vec(&document).ok()
}

fn quality(params: &VideoParams, search: &Search) -> Quality {
    let mut tried: Vec<Try> = search
        .tried
        .iter()
        .map(|one| Try { crf: one.crf, score: score(one.score), bytes: one.bytes })
        .collect();
    tried.sort_unstable_by_key(|one| one.crf);
    Quality {
        metric: search.metric(),
        target: params.quality.as_ref().map_or(0.0, |quality| quality.target),
        reached: search.reached(),
        score: search.measured().map(|tried| score(tried.score)),
        tried,
    }
}

fn score(millionths: u64) -> f64 {
    millionths as f64 / 1e6
}

fn bytes_of(made: &Made<'_>, which: impl Fn(&Unit) -> bool) -> u64 {
    let of_unit = |(unit, encoded): (usize, &EncodedUnit)| {
        made.encode.unit(unit as u64).filter(&which).map(|_| encoded.bytes)
    };
    made.units.iter().enumerate().filter_map(of_unit).sum()
}

fn audio<'a>(made: &Made<'a>, finished: &FinishedPart) -> Vec<Audio<'a>> {
    let (survey, encode) = (made.survey, made.encode);
    let tracks = encode.audio.iter().zip(&survey.audio).zip(&finished.audio_start_us).enumerate();
    tracks
        .map(|(position, ((track, stream), start_us))| Audio {
            codec: track.codec,
            channels: track.channels,
            sample_rate: track.sample_rate,
            kbps: track.kbps,
            language: &stream.language,
            start_us: *start_us,
            bytes: bytes_of(made, |unit| *unit == Unit::Audio { track: position, part: 0 }),
        })
        .collect()
}

fn subtitles<'a>(made: &Made<'a>) -> Vec<Subtitle<'a>> {
    let tracks = made.encode.subtitles.iter().zip(&made.survey.subtitles);
    tracks
        .map(|(track, stream)| Subtitle {
            codec: track.codec(made.encode.container, stream),
            language: &stream.language,
        })
        .collect()
}

/// The file, whose parts lie in the products of the finish stage.
fn output(made: &Made<'_>, finished: &[ProductRef], part: &FinishedPart) -> Option<Output> {
    let mut parts = Vec::new();
    for product in finished {
        let file = product.files.iter().find(|file| file.name == "output")?;
        if file.bytes > 0 {
            parts.push(OutputPart {
                product: product.blake3,
                product_bytes: product.bytes,
                offset: file.offset,
                bytes: file.bytes,
            });
        }
    }
    if parts.iter().map(|part| part.bytes).sum::<u64>() != part.bytes {
        return None;
    }
    let media_type = match made.encode.container {
        Container::Mp4 => "video/mp4",
        Container::Mkv => "video/x-matroska",
    };
    let (name, media_type) = (name(made), media_type.to_string());
    Some(Output { name, media_type, bytes: part.bytes, blake3: part.blake3, parts })
}

/// The input's name with the codec's, so that an output never takes the place of its source.
fn name(made: &Made<'_>) -> String {
    let codec = made.encode.recipe.codec.word();
    let ending = match made.encode.container {
        Container::Mp4 => "mp4",
        Container::Mkv => "mkv",
    };
    let file = made.params.input.rsplit('/').next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let name = format!("{stem}-{codec}.{ending}");
    if is_plain_name(&name) { name } else { format!("output-{codec}.{ending}") }
}
