//! Encoding a segment: exactly so many frames, shown exactly when the source shows them.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;

use tessera_protocol::product::{File, Product};
use tessera_protocol::spec::H264_PRESETS;
use tessera_protocol::video::{
    Cut, EncodeTask, EncodedUnit, Finding, Rate, Recipe, Timeline, Unit, VideoCodec,
};

use crate::decode::{frame_hashes, open, trim};
use crate::inspect;
use crate::room::{Room, SOURCE, blames_machine, words};
use crate::{MediaError, audio, subtitle};

/// What a segment is called in its product, and its frames' hashes.
pub(crate) const SEGMENT: &str = "segment.mp4";
pub(crate) const HASHES: &str = "frames.md5";

/// What was made, or what is wrong with the source.
pub(crate) type Made = Result<Vec<File>, String>;

pub(crate) fn run(room: &Room<'_>, task: &EncodeTask, unit: u64) -> Result<Product, MediaError> {
    room.take_source(&task.source)?;
    let (made, frames) = match task.unit(unit).ok_or(MediaError::Units)? {
        Unit::Audio { track, part } => return audio::run(room, task, track, part),
        Unit::Subtitle { track } => (subtitle::make(room, task, track)?, 0),
        Unit::Segment { first, count, .. } => {
            let timeline = room.timeline(&task.survey)?;
            let made = match encode_frames(room, &task.recipe, &timeline, first, count)? {
                Ok(()) => Ok(finished(room, count)?),
                Err(what) => Err(what),
            };
            (made, count)
        }
    };
    Ok(product(made, frames))
}

fn product(made: Made, frames: u64) -> Product {
    match made {
        Ok(files) => {
            let bytes = files.first().map_or(0, |file| file.bytes.len() as u64);
            Product { head: Finding::Found(EncodedUnit { bytes, frames }).encode(), files }
        }
        Err(what) => Product { head: Finding::<EncodedUnit>::Error(what).encode(), files: Vec::new() },
    }
}

/// Encodes frames of the output into a segment in the directory, or says what is wrong with the source there.
pub(crate) fn encode_frames(
    room: &Room<'_>,
    recipe: &Recipe,
    timeline: &Timeline,
    first: u64,
    count: u64,
) -> Result<Result<(), String>, MediaError> {
    let cut = timeline.cut(recipe.frame_rate, first, count).ok_or(MediaError::Units)?;
    let [timescale, ticks] = recipe.timescale();
    let expected = timeline.output_pts(recipe.frame_rate, first, count, ticks);
    // Where a file has no index, or a wrong one, seeking may end too late: then everything is decoded.
    for from in [Some((cut.start, timeline.time_base)), None] {
        let mut arguments = open(SOURCE, from.filter(|_| first > 0));
        arguments.extend(words(&format!("-map 0:{} -an -sn -dn -filter_threads 1 -vf", recipe.stream)));
        arguments.push(filters(recipe, timeline, &cut, first, count).into());
        arguments.extend(encode(recipe, count));
        arguments.extend(words(&format!("-video_track_timescale {timescale} -f mp4 {SEGMENT}")));
        let ended = room.ffmpeg(&arguments, count)?;
        if blames_machine(&ended.said) {
            return Err(MediaError::Failed { said: ended.said });
        }
        let found = if ended.success { shown(room, SEGMENT)? } else { Vec::new() };
        if found.len() as u64 == count {
            return check_times(&found, &expected).map(Ok);
        }
        if first == 0 || from.is_none() {
            let last = first + count - 1;
            return Ok(Err(format!(
                "of frames {first} to {last}, {} could be decoded: the source is damaged there{}{}",
                found.len(),
                if ended.said.is_empty() { "" } else { ": " },
                ended.said
            )));
        }
    }
    Err(MediaError::Units)
}

/// The time stamps of a file's video, ascending.
pub(crate) fn shown(room: &Room<'_>, name: &str) -> Result<Vec<i64>, MediaError> {
    let (mut pts, mut unsaid) = (Vec::new(), false);
    let ended = inspect::packets(room, &format!("file:{name}"), &mut |packet| match packet.pts {
        Some(shown) if packet.stream == 0 => pts.push(shown),
        Some(_) => {}
        None => unsaid = true,
    })?;
    crate::room::must_succeed(ended)?;
    if unsaid {
        return Err(MediaError::Output { what: "time stamps" });
    }
    pts.sort_unstable();
    Ok(pts)
}

/// Whether frames of a segment are shown when they should be, counted from its first.
fn check_times(found: &[i64], expected: &[i64]) -> Result<(), MediaError> {
    let differs = found
        .iter()
        .zip(expected)
        .position(|(found_pts, expected_pts)| found_pts - found[0] != expected_pts - expected[0]);
    match differs {
        None => Ok(()),
        Some(frame) => {
            Err(MediaError::Check { what: format!("frame {frame} of a segment is shown at another time") })
        }
    }
}

/// The segment and the hashes of its frames as they decode.
fn finished(room: &Room<'_>, count: u64) -> Result<Vec<File>, MediaError> {
    let hashes = frame_hashes(room, &format!("file:{SEGMENT}"), None)?;
    if hashes.len() as u64 != count {
        let what = format!("a segment of {count} frames decodes to {}", hashes.len());
        return Err(MediaError::Check { what });
    }
    let segment = File { name: SEGMENT.to_owned(), bytes: fs::read(room.path(SEGMENT))? };
    Ok(vec![segment, File { name: HASHES.to_owned(), bytes: hashes.concat() }])
}

/// From source frames to the frames that are encoded: cut, put on the output's clock, repeated or left out,
/// scaled. Every filter is one of ours.
pub(crate) fn filters(recipe: &Recipe, timeline: &Timeline, cut: &Cut, first: u64, count: u64) -> String {
    let mut chain = trim(cut);
    match recipe.frame_rate {
        None => {
            let _ = write!(chain, ",setpts=PTS-({})", cut.start);
        }
        Some([above, below]) => {
            // Time stamps are rounded once, from the first frame of the source on: all segments agree on them.
            let _ = write!(
                chain,
                ",setpts=PTS-({}),settb={below}/{above},setpts=PTS-{first},fps=fps={above}/{below}:start_time=0",
                timeline.origin()
            );
            if timeline.needs_padding([above, below], first, count) {
                chain.push_str(",tpad=stop_mode=clone:stop=-1");
            }
        }
    }
    let format = if recipe.bit_depth == 10 { "yuv420p10le" } else { "yuv420p" };
    let (width, height) = (recipe.width, recipe.height);
    let _ = write!(chain, ",scale={width}:{height}:flags=bicubic+accurate_rnd+bitexact,format={format}");
    chain
}

/// How so many frames are encoded, without sound, titles, dates or the names of programs.
pub(crate) fn encode(recipe: &Recipe, count: u64) -> Vec<OsString> {
    let [above, below] = recipe.time_base;
    let mut all = words(&format!(
        "-map_metadata -1 -map_chapters -1 -fps_mode passthrough -enc_time_base {above}:{below} -frames:v {count}"
    ));
    let keys = recipe.keyframe_interval;
    match recipe.codec {
        VideoCodec::H264 => {
            let preset = H264_PRESETS[recipe.preset as usize];
            // One thread and no choice by processor; whole groups of pictures; headers that do not depend on
            // what is in a segment.
            all.extend(words(&format!(
                "-c:v libx264 -preset {preset} -threads 1 -x264-params cpu-independent=1:keyint={keys}:\
                 min-keyint={keys}:scenecut=0:open-gop=0:stitchable=1"
            )));
        }
        VideoCodec::Av1 => {
            let preset = recipe.preset;
            all.extend(words(&format!(
                "-c:v libsvtav1 -preset {preset} -threads 1 -g {keys} -svtav1-params lp=1:scd=0"
            )));
        }
    }
    all.extend(words(&match recipe.rate {
        Rate::Crf(crf) => format!("-crf {crf}"),
        Rate::Kbps(kbps) => format!("-b:v {kbps}k"),
    }));
    all.extend(words("-flags:v +bitexact -fflags +bitexact"));
    all
}
