//! Joining: segments end to end without another encoding, with audio and subtitles, and the proof that the
//! result is the source frame by frame.
//!
//! Every unit of the stage joins the same bytes. Each returns its part of them and compares the pictures of
//! its share of the segments with those of the output; the times of all frames are compared by all.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};

use tessera_protocol::id::Digest;
use tessera_protocol::product::{self, Product};
use tessera_protocol::video::{
    Container, Cut, EncodeTask, Finding, FinishTask, FinishedPart, PART_BYTES, Timeline, Unit,
};

use crate::MediaError;
use crate::audio::AUDIO;
use crate::decode::{HASH_BYTES, frame_hashes};
use crate::inspect::{self, Packet};
use crate::room::{Room, must_succeed, words};
use crate::segment::{HASHES, SEGMENT};
use crate::subtitle::SUBTITLE;

/// The output's name in the directory and in products.
pub(crate) const OUTPUT: &str = "output";
/// The list of segments.
const LIST: &str = "segments.txt";

pub(crate) fn run(room: &Room<'_>, task: &FinishTask, unit: u64) -> Result<Product, MediaError> {
    let timeline = room.timeline(&task.encode.survey)?;
    take_pieces(room, task)?;
    fs::write(room.path(LIST), list(&task.encode, &timeline)?)?;
    must_succeed(room.ffmpeg(&join(task), task.encode.frames)?)?;
    let streams = streams(room)?;
    let expected = expected(&task.encode, &timeline);
    if let Err(what) = check_times(&streams.video, &expected, task.encode.container)? {
        return Ok(Product { head: Finding::<FinishedPart>::Error(what).encode(), files: Vec::new() });
    }
    check_audio(&task.encode, &streams, &timeline)?;
    let frames_compared = compare_pictures(room, task, unit, &streams)?;
    let (bytes, blake3, part) = part_of_output(room, unit)?;
    if bytes > u64::from(task.parts) * PART_BYTES {
        return Err(MediaError::Check { what: format!("an output of {bytes} bytes has too few parts") });
    }
    let found = FinishedPart {
        bytes,
        blake3,
        frames: streams.video.len() as u64,
        frames_compared,
        audio_start_us: streams.audio_start_us,
    };
    let file = product::File { name: OUTPUT.to_owned(), bytes: part };
    Ok(Product { head: Finding::Found(found).encode(), files: vec![file] })
}

fn audio_name(track: usize) -> String {
    format!("audio-{track}")
}

fn subtitle_name(track: usize) -> String {
    format!("subtitle-{track}")
}

fn segment_name(index: u64) -> String {
    format!("segment-{index}.mp4")
}

/// Puts what the encode stage made into the directory; parts of audio come in order.
fn take_pieces(room: &Room<'_>, task: &FinishTask) -> Result<(), MediaError> {
    for (unit, product) in task.products.iter().enumerate() {
        if (room.setting.cancelled)() {
            return Err(MediaError::Cancelled);
        }
        let (file, name) = match task.encode.unit(unit as u64).ok_or(MediaError::Units)? {
            Unit::Audio { track, .. } => (AUDIO, audio_name(track)),
            Unit::Subtitle { track } => (SUBTITLE, subtitle_name(track)),
            Unit::Segment { index, .. } => (SEGMENT, segment_name(index)),
        };
        room.take_file(product, file, &name)?;
    }
    Ok(())
}

/// The segments with when each begins, so that no rounding of one adds to the next.
fn list(task: &EncodeTask, timeline: &Timeline) -> Result<String, MediaError> {
    let [_, ticks] = task.recipe.timescale();
    let [timescale, _] = task.recipe.timescale();
    let begins = |index: u64| {
        let first = index * u64::from(task.segment_frames);
        let pts = timeline.output_pts(task.recipe.frame_rate, first, 1, ticks);
        let pts = pts.first().copied().ok_or(MediaError::Units)?;
        Ok::<_, MediaError>(rounded(pts, 1_000_000, timescale))
    };
    let mut text = "ffconcat version 1.0\n".to_owned();
    for index in 0..task.segments() {
        let _ = writeln!(text, "file {}", segment_name(index));
        if index + 1 < task.segments() {
            let us = begins(index + 1)? - begins(index)?;
            let _ = writeln!(text, "duration {}.{:06}", us / 1_000_000, us % 1_000_000);
        }
    }
    Ok(text)
}

/// `pts · scale / timescale` to the nearest whole number; time stamps of an output are not negative.
fn rounded(pts: i64, scale: i64, timescale: u32) -> i64 {
    let (product, timescale) = (i128::from(pts) * i128::from(scale), i128::from(timescale));
    ((product + timescale / 2) / timescale) as i64
}

fn join(task: &FinishTask) -> Vec<OsString> {
    let encode = &task.encode;
    let mut all = words("-protocol_whitelist file -f concat -safe 1 -i");
    all.push(LIST.into());
    let pieces =
        (0..encode.audio.len()).map(audio_name).chain((0..encode.subtitles.len()).map(subtitle_name));
    let pieces: Vec<String> = pieces.collect();
    for piece in &pieces {
        all.extend(words(&format!("-protocol_whitelist file -i file:{piece}")));
    }
    all.extend(words("-map 0:v:0"));
    (1..=pieces.len()).for_each(|input| all.extend(words(&format!("-map {input}:0"))));
    all.extend(words("-c copy -map_metadata -1 -map_chapters -1 -flags +bitexact -fflags +bitexact"));
    for (position, label) in task.labels.iter().enumerate() {
        let stream = match position.checked_sub(encode.audio.len()) {
            None => format!("a:{position}"),
            Some(subtitle) => format!("s:{subtitle}"),
        };
        let disposition = match (label.default, label.forced) {
            (true, true) => "default+forced",
            (true, false) => "default",
            (false, true) => "forced",
            (false, false) => "0",
        };
        all.extend(words(&format!(
            "-metadata:s:{stream} language={} -disposition:{stream} {disposition}",
            label.language
        )));
    }
    let [timescale, _] = encode.recipe.timescale();
    all.extend(words(&match encode.container {
        Container::Mp4 => {
            let text = if encode.subtitles.is_empty() { "" } else { "-c:s mov_text" };
            format!("{text} -video_track_timescale {timescale} -movflags +faststart -f mp4 {OUTPUT}")
        }
        Container::Mkv => format!("-f matroska {OUTPUT}"),
    }));
    all
}

/// What the output's packets say.
struct Streams {
    /// Seconds of a tick of the video stream, as a fraction.
    tick: [u32; 2],
    /// Of each frame, ascending. *Units*: ticks.
    video: Vec<i64>,
    /// When each audio stream begins and ends, counted from the first frame. *Units*: microseconds.
    audio_start_us: Vec<i64>,
    audio_end_us: Vec<i64>,
}

fn streams(room: &Room<'_>) -> Result<Streams, MediaError> {
    let file = format!("file:{OUTPUT}");
    let description =
        inspect::describe(room, &file)?.map_err(|ended| MediaError::Failed { said: ended.said })?;
    let count = description.streams.len();
    let mut packets: Vec<Vec<Packet>> = vec![Vec::new(); count];
    let ended = inspect::packets(room, &file, &mut |packet| {
        if let Some(of_stream) = packets.get_mut(packet.stream as usize).filter(|_| !packet.discarded) {
            of_stream.push(packet);
        }
    })?;
    must_succeed(ended)?;
    let unreadable = || MediaError::Output { what: "the output's streams" };
    let tick = |position: usize| description.streams.get(position).and_then(inspect::Stream::tick);
    let video_tick = tick(0).ok_or_else(unreadable)?;
    let mut video: Vec<i64> = packets.first().ok_or_else(unreadable)?.iter().filter_map(|p| p.pts).collect();
    video.sort_unstable();
    let micros = |ticks: i64, [above, below]: [u32; 2]| {
        (i128::from(ticks) * 1_000_000 * i128::from(above)).div_euclid(i128::from(below)) as i64
    };
    let first = micros(video.first().copied().ok_or_else(unreadable)?, video_tick);
    let mut found = Streams { tick: video_tick, video, audio_start_us: Vec::new(), audio_end_us: Vec::new() };
    for (position, stream) in description.streams.iter().enumerate() {
        if stream.codec_type != "audio" {
            continue;
        }
        let tick = tick(position).ok_or_else(unreadable)?;
        let begins = packets[position].iter().filter_map(|packet| packet.pts).min();
        let ends = packets[position].iter().filter_map(|packet| Some(packet.pts? + packet.duration)).max();
        let (Some(begins), Some(ends)) = (begins, ends) else { return Err(unreadable()) };
        found.audio_start_us.push(micros(begins, tick) - first);
        found.audio_end_us.push(micros(ends, tick) - first);
    }
    Ok(found)
}

/// When each frame of the output should be shown. *Units*: ticks of its clock.
pub(crate) fn expected(task: &EncodeTask, timeline: &Timeline) -> Vec<i64> {
    let [timescale, ticks] = task.recipe.timescale();
    let mut pts = timeline.output_pts(task.recipe.frame_rate, 0, task.frames, ticks);
    if task.container == Container::Mkv {
        pts.iter_mut().for_each(|pts| *pts = rounded(*pts, 1_000, timescale));
    }
    pts
}

/// Whether every frame is shown when the source shows it; the finding is that the wrapping cannot say so.
fn check_times(
    found: &[i64],
    expected: &[i64],
    container: Container,
) -> Result<Result<(), String>, MediaError> {
    if container == Container::Mkv && expected.windows(2).any(|pair| pair[0] == pair[1]) {
        let what = "two of its frames are shown within one millisecond, which Matroska cannot tell apart: \
                    choose container = \"mp4\", or a frame_rate";
        return Ok(Err(what.to_owned()));
    }
    if found.len() != expected.len() {
        let what = format!("the output has {} frames instead of {}", found.len(), expected.len());
        return Err(MediaError::Check { what });
    }
    let origin = found.first().copied().unwrap_or_default();
    match found.iter().zip(expected).position(|(found, expected)| found - origin != *expected) {
        None => Ok(Ok(())),
        Some(frame) => {
            let what = format!(
                "frame {frame} of the output is shown at tick {} instead of {}",
                found[frame] - origin,
                expected[frame]
            );
            Err(MediaError::Check { what })
        }
    }
}

/// Whether sound begins with the picture, to less than a frame.
fn check_audio(task: &EncodeTask, streams: &Streams, timeline: &Timeline) -> Result<(), MediaError> {
    if streams.audio_start_us.len() != task.audio.len() {
        return Err(MediaError::Check { what: "the output has other audio streams".to_owned() });
    }
    let [above, below] = timeline.time_base.map(u64::from);
    let duration = u128::from((timeline.end - timeline.origin()).unsigned_abs()) * u128::from(above);
    let frame_us = duration * 1_000_000 / u128::from(below) / u128::from(task.frames);
    let late = streams.audio_start_us.iter().find(|start| u128::from(start.unsigned_abs()) >= frame_us);
    match late {
        None => Ok(()),
        Some(us) => {
            Err(MediaError::Check { what: format!("sound is {us} microseconds away from the picture") })
        }
    }
}

/// Decodes this unit's share of the output and compares each frame with its segment's. How many there were.
fn compare_pictures(
    room: &Room<'_>,
    task: &FinishTask,
    unit: u64,
    streams: &Streams,
) -> Result<u64, MediaError> {
    let encode = &task.encode;
    let segments = task.segments_of(unit);
    if segments.is_empty() {
        return Ok(0);
    }
    let before = encode.units() - encode.segments();
    for index in segments.clone() {
        room.take_file(&task.products[(before + index) as usize], HASHES, HASHES)?;
    }
    let of_segments = fs::read(room.path(HASHES))?;
    let first = (segments.start * u64::from(encode.segment_frames)) as usize;
    let end = (segments.end * u64::from(encode.segment_frames)).min(encode.frames) as usize;
    let cut = Cut {
        start: streams.video[first],
        end: streams.video.get(end).copied(),
        frames: (end - first) as u64,
    };
    let of_output = frame_hashes(room, &format!("file:{OUTPUT}"), Some((cut, streams.tick)))?;
    let (of_segments, _) = of_segments.as_chunks::<HASH_BYTES>();
    if of_segments.len() != end - first || of_output.len() != end - first {
        let what = format!("frames {first} to {} of the output decode to {}", end - 1, of_output.len());
        return Err(MediaError::Check { what });
    }
    match of_segments.iter().zip(&of_output).position(|(segment, output)| segment != output) {
        None => Ok(cut.frames),
        Some(frame) => {
            let what = format!("frame {} of the output has another picture than its segment", first + frame);
            Err(MediaError::Check { what })
        }
    }
}

/// The output's length and digest, and the bytes that a unit returns.
fn part_of_output(room: &Room<'_>, unit: u64) -> Result<(u64, Digest, Vec<u8>), MediaError> {
    let mut file = File::open(room.path(OUTPUT))?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher)?;
    let mut part = Vec::new();
    file.seek(SeekFrom::Start((unit * PART_BYTES).min(bytes)))?;
    file.take(PART_BYTES).read_to_end(&mut part)?;
    Ok((bytes, Digest(*hasher.finalize().as_bytes()), part))
}
