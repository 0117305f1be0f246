//! The tasks of a video job's stages and what their shards say of their work.
//!
//! Owns their shape, their encoding, and how a stage is cut into units. A planner makes tasks from a checked
//! specification and earlier heads; agents read the same cut from them. Knows no command line and no file.
//!
//! The stages: *survey* looks into the source, *probe* measures some segments at some qualities, *encode*
//! makes segments, audio and subtitles, *finish* joins and checks them.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rkyv::{Archive, Deserialize, Serialize};

use crate::spec::QualitySpec;

mod head;
mod timeline;

pub use head::{
    AudioStream, Cadence, EncodedUnit, Finding, FinishedPart, Probed, SubtitleStream, Survey, VideoStream,
};
pub use timeline::{Cut, Timeline};

/// Most frames of a source: nine hours at 120 a second. Their time stamps fit one product.
pub const FRAMES_MAX: u64 = 4_000_000;
/// Most frames of a segment.
pub const SEGMENT_FRAMES_MAX: u32 = 10_000;
/// Smallest width or height that the encoders take. *Units*: pixels.
pub const SIDE_MIN: u32 = 64;
/// Largest width or height. *Units*: pixels.
pub const SIDE_MAX: u32 = 8_192;
/// Fastest preset of SVT-AV1.
pub const AV1_PRESET_MAX: u32 = 13;
/// Most audio streams that are carried.
pub const AUDIO_MAX: usize = 16;
/// Most subtitle streams that are carried.
pub const SUBTITLES_MAX: usize = 32;
/// How many bytes of a long file one unit returns, so that a product holds them.
pub const PART_BYTES: u64 = 48 << 20;
/// Most parts of one file: 48 GiB.
pub const PARTS_MAX: u32 = 1_024;
/// Frames of a sample on which quality is measured.
pub const SAMPLE_FRAMES_MAX: u32 = 120;
/// Finest clock of which joined segments keep every time stamp. *Units*: ticks a second. *Source*: the concat
/// demuxer of FFmpeg counts in microseconds.
pub const TICKS_PER_SECOND_MAX: u32 = 500_000;

/// How pictures are encoded.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// H.264 by x264.
    #[default]
    H264,
    /// AV1 by SVT-AV1.
    Av1,
}

impl VideoCodec {
    /// As FFmpeg, and the name of an output, have it.
    pub fn word(self) -> &'static str {
        match self {
            VideoCodec::H264 => "h264",
            VideoCodec::Av1 => "av1",
        }
    }
}

/// What the output is wrapped in.
#[derive(
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// ISO base media. Keeps every time stamp exactly.
    #[default]
    Mp4,
    /// Matroska. Rounds time stamps to its clock of a millisecond.
    Mkv,
}

/// How audio is encoded.
#[derive(
    Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, PartialEq, Eq,
)]
#[serde(rename_all = "snake_case")]
pub enum AudioCodec {
    /// AAC-LC.
    Aac,
    /// Opus.
    Opus,
}

/// How quality is measured.
#[derive(
    Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, PartialEq, Eq,
)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Structural similarity of all planes. *Source*: Wang et al. (2004).
    Ssim,
    /// Video multimethod assessment fusion; not in every build.
    Vmaf,
}

/// Bytes that a task reads, an input of the job or a product.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Of all of them.
    pub blake3: [u8; 32],
    /// How many.
    pub bytes: u64,
}

/// One stage of a video job.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One unit: looks into the source.
    Survey(SurveyTask),
    /// A unit for each sample at each quality.
    Probe(ProbeTask),
    /// A unit for each part of an audio stream, each subtitle stream and each segment, in that order.
    Encode(EncodeTask),
    /// A unit for each part of the output.
    Finish(FinishTask),
}

/// What to look for in a source.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SurveyTask {
    /// The file.
    pub source: Source,
    /// Frames a second of the output, where they are not the source's.
    pub frame_rate: Option<[u32; 2]>,
    /// What the build of the encoder must have.
    pub codec: VideoCodec,
    /// As `codec`.
    pub audio: Option<AudioCodec>,
    /// As `codec`.
    pub metric: Option<Metric>,
}

/// How pictures are made and encoded.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The number of the video stream in the source.
    pub stream: u32,
    /// By which encoder.
    pub codec: VideoCodec,
    /// Position in [`crate::spec::H264_PRESETS`], or the number of SVT-AV1.
    pub preset: u32,
    /// How many bits pictures take.
    pub rate: Rate,
    /// 8 or 10.
    pub bit_depth: u32,
    /// *Units*: pixels.
    pub width: u32,
    /// *Units*: pixels.
    pub height: u32,
    /// Frames a second, where they are not the source's.
    pub frame_rate: Option<[u32; 2]>,
    /// Frames from one key frame to the next.
    pub keyframe_interval: u32,
    /// Seconds of a tick of the frames' time stamps, as a fraction.
    pub time_base: [u32; 2],
}

/// How many bits pictures take.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// As many as this quality needs.
    Crf(u32),
    /// So many on average over a segment. *Units*: 1,000 bits a second.
    Kbps(u32),
}

/// Samples to measure at some qualities.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ProbeTask {
    /// The file.
    pub source: Source,
    /// The survey's product, with the [`Timeline`].
    pub survey: Source,
    /// Its rate is not used.
    pub recipe: Recipe,
    /// How they are measured.
    pub metric: Metric,
    /// First frame and number of frames of each.
    pub samples: Vec<[u64; 2]>,
    /// The qualities.
    pub crfs: Vec<u32>,
}

/// What to encode.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EncodeTask {
    /// The file.
    pub source: Source,
    /// The survey's product, with the [`Timeline`].
    pub survey: Source,
    /// Of the segments.
    pub recipe: Recipe,
    /// Frames of the output.
    pub frames: u64,
    /// Frames of a segment; the last may hold fewer.
    pub segment_frames: u32,
    /// What audio and subtitles are made for.
    pub container: Container,
    /// When the first frame is shown, in ticks of the source's video stream.
    pub origin: i64,
    /// Seconds of such a tick, as a fraction.
    pub origin_base: [u32; 2],
    /// Audio streams of the output.
    pub audio: Vec<AudioTrack>,
    /// Subtitle streams of the output.
    pub subtitles: Vec<SubtitleTrack>,
}

/// An audio stream of the output.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct AudioTrack {
    /// Its number in the source.
    pub stream: u32,
    /// How it is encoded.
    pub codec: AudioCodec,
    /// *Units*: 1,000 bits a second.
    pub kbps: u32,
    /// 1, 2, 6 or 8.
    pub channels: u32,
    /// *Units*: samples a second.
    pub sample_rate: u32,
    /// Units that each return [`PART_BYTES`] of it.
    pub parts: u32,
}

/// A subtitle stream of the output.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubtitleTrack {
    /// Its number in the source.
    pub stream: u32,
    /// Whether it is written as plain text (SubRip); else it is copied.
    pub to_text: bool,
}

impl SubtitleTrack {
    /// How it is written, as FFmpeg names it.
    pub fn codec<'a>(&self, container: Container, source: &'a SubtitleStream) -> &'a str {
        match container {
            Container::Mp4 => "mov_text",
            Container::Mkv if self.to_text => "subrip",
            Container::Mkv => &source.codec,
        }
    }
}

/// What to join.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FinishTask {
    /// What was encoded.
    pub encode: EncodeTask,
    /// The product of each of its units.
    pub products: Vec<Source>,
    /// What each audio stream is called, then each subtitle stream.
    pub labels: Vec<Label>,
    /// Units that each return [`PART_BYTES`] of the output.
    pub parts: u32,
}

/// What players are told of a stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// ISO 639-2, three letters; `und` where it is not known.
    pub language: String,
    /// Whether players choose it by themselves.
    pub default: bool,
    /// Whether it is shown in any case.
    pub forced: bool,
}

/// One unit of an [`EncodeTask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes `part · PART_BYTES ..` of an encoded audio stream.
    Audio {
        /// Its position among [`EncodeTask::audio`].
        track: usize,
        /// Which of its parts.
        part: u32,
    },
    /// A subtitle stream.
    Subtitle {
        /// Its position among [`EncodeTask::subtitles`].
        track: usize,
    },
    /// A segment.
    Segment {
        /// Its position.
        index: u64,
        /// First frame of the output.
        first: u64,
        /// Number of frames.
        count: u64,
    },
}

/// Why bytes are not a video task that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskError {
    /// Not an archive of this version.
    Malformed,
    /// A number outside its limits.
    Limit,
    /// Parts that do not fit each other.
    Shape,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskError::Malformed => "the task is not a valid archive of this version",
            TaskError::Limit => "a number of the task lies outside its limits",
            TaskError::Shape => "the parts of the task do not fit each other",
        })
    }
}

impl core::error::Error for TaskError {}

/// Worst quality that an encoder takes.
pub fn crf_max(codec: VideoCodec) -> u32 {
    match codec {
        VideoCodec::H264 => 51,
        VideoCodec::Av1 => 63,
    }
}

/// Best and worst quality that are tried for a target.
pub fn crf_range(quality: &QualitySpec, codec: VideoCodec) -> [u32; 2] {
    let [best, worst] = match codec {
        VideoCodec::H264 => [12, 40],
        VideoCodec::Av1 => [15, 60],
    };
    [quality.crf_min.unwrap_or(best), quality.crf_max.unwrap_or(worst)]
}

/// Whether frames may come so fast: 1 to 240 a second.
pub fn is_frame_rate([above, below]: [u32; 2]) -> bool {
    (1..=1_001).contains(&below) && above <= 240 * below && above >= below
}

impl Recipe {
    /// Ticks a second of the video track, and of them in one tick of the frames' time stamps. The track's are
    /// at least 10,000, as players expect.
    pub fn timescale(&self) -> [u32; 2] {
        let [above, below] = self.time_base;
        let times = 10_000_u32.div_ceil(below.max(1));
        [below * times, above * times]
    }

    fn check(&self) -> Result<(), TaskError> {
        let preset = match self.codec {
            VideoCodec::H264 => (self.preset as usize) < crate::spec::H264_PRESETS.len(),
            VideoCodec::Av1 => self.preset <= AV1_PRESET_MAX,
        };
        let rate = match self.rate {
            Rate::Crf(crf) => (1..=crf_max(self.codec)).contains(&crf),
            Rate::Kbps(kbps) => (1..=1_000_000).contains(&kbps),
        };
        let side = |side: u32| (SIDE_MIN..=SIDE_MAX).contains(&side) && side.is_multiple_of(2);
        let clock = is_clock(self.time_base) && self.time_base[1] / self.time_base[0] <= TICKS_PER_SECOND_MAX;
        let fits = preset
            && rate
            && side(self.width)
            && side(self.height)
            && [8, 10].contains(&self.bit_depth)
            && self.frame_rate.is_none_or(is_frame_rate)
            && (2..=1_000).contains(&self.keyframe_interval)
            && clock;
        if fits { Ok(()) } else { Err(TaskError::Limit) }
    }
}

/// Whether a fraction can be the tick of a clock.
fn is_clock([above, below]: [u32; 2]) -> bool {
    (1..=1 << 20).contains(&above) && (1..=1 << 30).contains(&below) && above <= below
}

impl ProbeTask {
    /// How many units.
    pub fn units(&self) -> u64 {
        (self.samples.len() * self.crfs.len()) as u64
    }

    /// The sample and the quality of a unit.
    pub fn unit(&self, index: u64) -> Option<([u64; 2], u32)> {
        let index = usize::try_from(index).ok()?;
        let sample = self.samples.get(index.checked_div(self.crfs.len())?)?;
        Some((*sample, self.crfs[index % self.crfs.len()]))
    }

    fn check(&self) -> Result<(), TaskError> {
        self.recipe.check()?;
        let sizes = (1..=64).contains(&self.samples.len()) && (1..=64).contains(&self.crfs.len());
        let samples = self.samples.iter().all(|[first, count]| {
            *first <= FRAMES_MAX * 240 && (1..=u64::from(SAMPLE_FRAMES_MAX)).contains(count)
        });
        let crfs = self.crfs.iter().all(|crf| (1..=crf_max(self.recipe.codec)).contains(crf));
        if sizes && samples && crfs { Ok(()) } else { Err(TaskError::Limit) }
    }
}

impl EncodeTask {
    /// How many segments.
    pub fn segments(&self) -> u64 {
        self.frames.div_ceil(u64::from(self.segment_frames))
    }

    /// How many units.
    pub fn units(&self) -> u64 {
        self.before_segments() + self.segments()
    }

    fn audio_units(&self) -> u64 {
        self.audio.iter().map(|track| u64::from(track.parts)).sum()
    }

    fn before_segments(&self) -> u64 {
        self.audio_units() + self.subtitles.len() as u64
    }

    /// The unit at a position, or nothing past the last.
    pub fn unit(&self, index: u64) -> Option<Unit> {
        if let Some(left) = index.checked_sub(self.before_segments()) {
            let first = left.checked_mul(u64::from(self.segment_frames))?;
            let count = self.frames.checked_sub(first).filter(|count| *count > 0)?;
            return Some(Unit::Segment {
                index: left,
                first,
                count: count.min(u64::from(self.segment_frames)),
            });
        }
        if let Some(track) = index.checked_sub(self.audio_units()) {
            return Some(Unit::Subtitle { track: track as usize });
        }
        let mut left = index;
        for (track, audio) in self.audio.iter().enumerate() {
            if left < u64::from(audio.parts) {
                return Some(Unit::Audio { track, part: left as u32 });
            }
            left -= u64::from(audio.parts);
        }
        None
    }

    fn check(&self) -> Result<(), TaskError> {
        self.recipe.check()?;
        let audio = self.audio.iter().all(|track| {
            (1..=10_000).contains(&track.kbps)
                && [1, 2, 6, 8].contains(&track.channels)
                && (8_000..=48_000).contains(&track.sample_rate)
                && (1..=PARTS_MAX).contains(&track.parts)
        });
        let fits = audio
            && self.audio.len() <= AUDIO_MAX
            && self.subtitles.len() <= SUBTITLES_MAX
            && (1..=FRAMES_MAX * 240).contains(&self.frames)
            && (1..=SEGMENT_FRAMES_MAX).contains(&self.segment_frames)
            && is_clock(self.origin_base);
        if fits { Ok(()) } else { Err(TaskError::Limit) }
    }
}

impl FinishTask {
    /// The segments whose frames a unit compares with the output's: each is some unit's.
    pub fn segments_of(&self, unit: u64) -> core::ops::Range<u64> {
        let (segments, parts) = (self.encode.segments(), u64::from(self.parts));
        segments * unit / parts..segments * (unit + 1) / parts
    }

    fn check(&self) -> Result<(), TaskError> {
        self.encode.check()?;
        if !(1..=PARTS_MAX).contains(&self.parts) {
            return Err(TaskError::Limit);
        }
        let streams = self.encode.audio.len() + self.encode.subtitles.len();
        let language = |label: &Label| {
            label.language.len() == 3 && label.language.bytes().all(|byte| byte.is_ascii_lowercase())
        };
        let fits = self.products.len() as u64 == self.encode.units()
            && self.labels.len() == streams
            && self.labels.iter().all(language);
        if fits { Ok(()) } else { Err(TaskError::Shape) }
    }
}

impl Task {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        crate::wire::archive(self)
    }

    /// Reads bytes from outside; what comes back fits together and keeps every limit.
    pub fn decode(bytes: &[u8]) -> Result<Task, TaskError> {
        let task =
            rkyv::from_bytes::<Task, rkyv::rancor::Failure>(bytes).map_err(|_| TaskError::Malformed)?;
        task.check()?;
        Ok(task)
    }

    /// Whether it fits together and keeps every limit.
    pub fn check(&self) -> Result<(), TaskError> {
        match self {
            Task::Survey(task) if task.frame_rate.is_none_or(is_frame_rate) => Ok(()),
            Task::Survey(_) => Err(TaskError::Limit),
            Task::Probe(task) => task.check(),
            Task::Encode(task) => task.check(),
            Task::Finish(task) => task.check(),
        }
    }

    /// How many units it has.
    pub fn units(&self) -> u64 {
        match self {
            Task::Survey(_) => 1,
            Task::Probe(task) => task.units(),
            Task::Encode(task) => task.units(),
            Task::Finish(task) => u64::from(task.parts),
        }
    }

    /// The files that it reads, each once.
    pub fn inputs(&self) -> Vec<([u8; 32], u64)> {
        let all = match self {
            Task::Survey(task) => alloc::vec![task.source],
            Task::Probe(task) => alloc::vec![task.source, task.survey],
            Task::Encode(task) => alloc::vec![task.source, task.survey],
            Task::Finish(task) => {
                let mut all = alloc::vec![task.encode.survey];
                all.extend(&task.products);
                all
            }
        };
        let mut once: Vec<([u8; 32], u64)> = Vec::with_capacity(all.len());
        let mut seen = alloc::collections::BTreeSet::new();
        for Source { blake3, bytes } in all {
            if seen.insert(blake3) {
                once.push((blake3, bytes));
            }
        }
        once
    }
}

#[cfg(test)]
mod tests;
