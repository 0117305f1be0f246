//! Parameters of the video workload.

use alloc::string::String;
use serde::{Deserialize, Serialize};

pub use crate::video::{Container, Metric, VideoCodec};

/// What the video workload computes: one video encoded, its audio and subtitles carried along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoParams {
    /// The name of an entry of the job's inputs.
    pub input: String,
    /// Which build of the encoder: 16 hex digits, as agents offer it. Another build gives other bytes.
    pub encoder: String,
    /// How pictures are encoded.
    #[serde(default)]
    pub codec: VideoCodec,
    /// What the output is wrapped in.
    #[serde(default)]
    pub container: Container,
    /// How much work goes into a picture: a name for H.264, a number for AV1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Constant quality; lower is better. One of `crf`, `bitrate_kbps` and `quality`, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crf: Option<u32>,
    /// Average rate of each segment. *Units*: 1,000 bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate_kbps: Option<u32>,
    /// A quality that is measured on some segments first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<QualitySpec>,
    /// Bits of a sample: 8 or 10.
    #[serde(default = "eight")]
    pub bit_depth: u32,
    /// Width of the output; from `height` and the source when absent. *Units*: pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Height of the output; from `width` and the source when absent. *Units*: pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames a second, as `"25"` or `"30000/1001"`, by repeating and leaving out; the source's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<String>,
    /// Frames from one key frame to the next.
    #[serde(default = "keyframe_interval")]
    pub keyframe_interval: u32,
    /// Frames of a segment, a multiple of `keyframe_interval`. Part of what is computed: rate control starts
    /// anew with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_frames: Option<u32>,
    /// What becomes of the audio.
    #[serde(default)]
    pub audio: AudioSpec,
    /// What becomes of the subtitles.
    #[serde(default)]
    pub subtitles: SubtitleChoice,
}

impl VideoParams {
    /// The kernel that computes it, as agents of the build offer it.
    pub fn kernel(&self) -> String {
        video_kernel(&self.encoder, self.audio.codec == AudioChoice::Opus)
    }

    /// Frames of a segment.
    pub fn frames_of_segment(&self) -> u32 {
        self.segment_frames.unwrap_or(self.keyframe_interval)
    }

    /// Frames a second as a fraction; nothing where it is absent or not one.
    pub fn rate(&self) -> Option<[u32; 2]> {
        let text = self.frame_rate.as_deref()?;
        let (above, below) = text.split_once('/').unwrap_or((text, "1"));
        Some([above.parse().ok()?, below.parse().ok()?])
    }
}

/// How much work goes into a picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Preset {
    /// Of SVT-AV1: 0 is the slowest.
    Level(u32),
    /// Of x264.
    Name(String),
}

/// The kernel that agents of a build offer, for jobs with Opus or without: libopus gives other bytes on
/// processors of other makers, so that builds are named apart for it.
pub fn video_kernel(encoder: &str, opus: bool) -> String {
    let kernel = if opus { "video_opus" } else { "video" };
    alloc::format!("{kernel}:{encoder}")
}

/// The presets of x264, fastest first.
pub const H264_PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// A quality that is measured: the largest `crf` that still reaches it is used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualitySpec {
    /// How it is measured.
    pub metric: Metric,
    /// The mean over the frames of the samples. *Units*: 0 to 1 for SSIM, 0 to 100 for VMAF.
    pub target: f64,
    /// Segments that are encoded and measured.
    #[serde(default = "three")]
    pub samples: u32,
    /// The best quality that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crf_min: Option<u32>,
    /// The worst quality that is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crf_max: Option<u32>,
}

/// What becomes of the audio: every stream is encoded in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSpec {
    /// How it is encoded.
    #[serde(default)]
    pub codec: AudioChoice,
    /// Of each stream; 64 to a channel when absent. *Units*: 1,000 bits a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitrate_kbps: Option<u32>,
    /// Mixes down to 1 or 2 channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
}

/// How audio is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioChoice {
    /// AAC-LC.
    #[default]
    Aac,
    /// Opus.
    Opus,
    /// Left out.
    None,
}

/// What becomes of the subtitles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubtitleChoice {
    /// All streams are carried.
    #[default]
    All,
    /// Left out.
    None,
}

fn eight() -> u32 {
    8
}

fn three() -> u32 {
    3
}

fn keyframe_interval() -> u32 {
    240
}
