//! What the shards of a video job tell its planner.
//!
//! Heads are canonical JSON of a [`Finding`]. What is found wrong in a source is a finding like any other: it
//! is the same on every agent and is compared like any answer.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::id::Digest;

/// What a shard found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding<T> {
    /// What was asked for.
    Found(T),
    /// What is wrong with the source, in words for the client.
    Error(String),
}

impl<T: Serialize> Finding<T> {
    /// Its wire form.
    pub fn encode(&self) -> Vec<u8> {
        // Every number of a head is below 2^53, and every key a string.
        canonical::to_vec(self).unwrap_or_default()
    }
}

impl<T: for<'a> Deserialize<'a>> Finding<T> {
    /// Reads bytes from outside.
    pub fn decode(bytes: &[u8]) -> Option<Finding<T>> {
        serde_json::from_slice(bytes).ok()
    }
}

/// What is in a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// What it is wrapped in, as FFmpeg calls it.
    pub format: String,
    /// Its first video stream that is no cover picture.
    pub video: VideoStream,
    /// Its audio streams.
    pub audio: Vec<AudioStream>,
    /// Its subtitle streams.
    pub subtitles: Vec<SubtitleStream>,
    /// Streams that are not carried, each with its kind.
    pub left_out: Vec<String>,
}

/// A video stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoStream {
    /// Its number in the source.
    pub stream: u32,
    /// As FFmpeg calls it.
    pub codec: String,
    /// As shown, after any rotation. *Units*: pixels.
    pub width: u32,
    /// As `width`.
    pub height: u32,
    /// Frames of the source.
    pub frames: u64,
    /// Frames of the output.
    pub output_frames: u64,
    /// Seconds of a tick, as a fraction.
    pub time_base: [u32; 2],
    /// When the first frame is shown. *Units*: ticks.
    pub origin: i64,
    /// From the first frame to the end of the last. *Units*: microseconds.
    pub duration_us: u64,
    /// How regularly frames come.
    pub cadence: Cadence,
    /// Frames from which decoding can start.
    pub keyframes: u64,
    /// Whether frames were counted by decoding them all, because their packets do not say when they are shown.
    pub decoded: bool,
}

/// How regularly frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Cadence {
    /// At equal distances, up to the rounding of the container's clock.
    Constant {
        /// Frames a second, as a fraction.
        frame_rate: [u32; 2],
    },
    /// Anyhow. Every frame keeps its time.
    Variable {
        /// *Units*: microseconds.
        shortest_us: u64,
        /// *Units*: microseconds.
        longest_us: u64,
    },
}

/// An audio stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioStream {
    /// Its number in the source.
    pub stream: u32,
    /// As FFmpeg calls it.
    pub codec: String,
    /// How many.
    pub channels: u32,
    /// *Units*: samples a second.
    pub sample_rate: u32,
    /// ISO 639-2, or `und`.
    pub language: String,
    /// Whether players choose it by themselves.
    pub default: bool,
    /// When it begins, counted from the first frame. *Units*: microseconds.
    pub start_us: i64,
    /// When it ends, counted from the first frame. *Units*: microseconds.
    pub end_us: i64,
}

/// A subtitle stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubtitleStream {
    /// Its number in the source.
    pub stream: u32,
    /// As FFmpeg calls it.
    pub codec: String,
    /// Whether it is text; else pictures.
    pub text: bool,
    /// ISO 639-2, or `und`.
    pub language: String,
    /// Whether players choose it by themselves.
    pub default: bool,
    /// Whether it is shown in any case.
    pub forced: bool,
}

/// The measure of one sample at one quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probed {
    /// Sum over its frames. *Units*: millionths.
    pub score_sum: u64,
    /// How many frames.
    pub frames: u32,
    /// Their length encoded.
    pub bytes: u64,
}

/// What a unit of the encode stage made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedUnit {
    /// Length of the whole file that it made, of which an audio unit returns a part.
    pub bytes: u64,
    /// Frames of a segment.
    pub frames: u64,
}

/// What a unit of the finish stage found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedPart {
    /// Length of the whole output.
    pub bytes: u64,
    /// Of the whole output.
    pub blake3: Digest,
    /// Frames whose time stamps are those of the source: all.
    pub frames: u64,
    /// Frames of this unit whose pictures are those of the segments.
    pub frames_compared: u64,
    /// When each audio stream begins, counted from the first frame. *Units*: microseconds.
    pub audio_start_us: Vec<i64>,
}
