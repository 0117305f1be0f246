//! A quick look at an encoded video: whether it is its source frame by frame, as its job asked.
//!
//! Owns what is checked. It demuxes and decodes the output, which costs a small part of encoding it, and encodes one
//! segment again where the build of FFmpeg is the job's. The source's time line comes from a survey made again.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use tessera_kernels::look::{Chooser, Look};
use tessera_protocol::video::{AudioCodec, EncodeTask, EncodedUnit, Finding, Survey, Task, Timeline, Unit};

use crate::decode::{HASH_BYTES, frame_hashes};
use crate::finish::{OUTPUT, expected};
use crate::inspect::{self, Stream};
use crate::room::{Room, blames_machine, must_succeed};
use crate::segment::{self, HASHES};
use crate::{Encoder, MediaError, Setting};

/// Names of the checks.
const SOURCE: &str = "source";
const STREAMS: &str = "streams as asked";
const FRAMES: &str = "number of frames";
const TIMES: &str = "time of every frame";
const DURATION: &str = "duration";
const SOUND: &str = "sound begins with the picture";
const DECODES: &str = "every frame decodes";
const SEGMENT: &str = "a segment encoded again";

/// A finished job.
pub struct Given<'a> {
    /// What was to be encoded, planned from a survey made here.
    pub task: &'a EncodeTask,
    /// What that survey found.
    pub survey: &'a Survey,
    /// What the result says.
    pub stated: &'a Stated,
    /// The file that the job gave.
    pub output: &'a Path,
    /// The kernel that the job names, of one build.
    pub kernel: &'a str,
}

/// Numbers of a result document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Frames of the source.
    pub source_frames: u64,
    /// Frames of the output.
    pub frames: u64,
    /// From the first frame of the source to the end of the last. *Units*: microseconds.
    pub duration_us: u64,
}

/// Looks at an output. `inputs` says where the source and the survey's product lie, by digest.
///
/// *Errors*: of this attempt. What is wrong with the output is a check that does not hold.
pub fn look(
    given: &Given<'_>,
    inputs: &dyn Fn(&[u8; 32]) -> Option<PathBuf>,
    encoder: &Encoder,
    scratch: &Path,
    chooser: &Chooser,
    cancelled: &dyn Fn() -> bool,
) -> Result<Look, MediaError> {
    Task::Encode(given.task.clone()).check().map_err(MediaError::Task)?;
    let setting = Setting { encoder, inputs, scratch, progress: &|_, _| {}, cancelled };
    let room = Room::new(&setting)?;
    // Children see nothing outside of the directory; a link costs nothing where the file system has them.
    fs::hard_link(given.output, room.path(OUTPUT))
        .or_else(|_| fs::copy(given.output, room.path(OUTPUT)).map(drop))?;
    let same_build = encoder.kernels().iter().any(|kernel| kernel == given.kernel);
    let timeline = room.timeline(&given.task.survey)?;
    let watch = Watch { given, timeline: &timeline, same_build };
    let mut look = Look::default();
    let of_source = watch.source(&mut look);
    match of_output(demux(&room))? {
        Ok(output) => {
            watch.streams(&output, &mut look);
            if of_source {
                watch.times(&output, &mut look);
            } else {
                look.leave_out(
                    TIMES,
                    "this build of FFmpeg reads other times from the source than the job's",
                );
            }
            watch.sound(&output, &mut look);
        }
        Err(wrong) => look.check(STREAMS, false, wrong, "a file that ffprobe reads"),
    }
    let frames = given.task.frames;
    let hashes = match of_output(frame_hashes(&room, &format!("file:{OUTPUT}"), None))? {
        Ok(hashes) => hashes,
        Err(wrong) => {
            look.check(DECODES, false, wrong, format!("{frames} frames"));
            return Ok(look);
        }
    };
    let all = hashes.len() as u64 == frames;
    look.check(DECODES, all, format!("{} frames", hashes.len()), format!("{frames} frames"));
    if all {
        watch.segment(&setting, &hashes, chooser, &mut look)?;
    }
    Ok(look)
}

/// What is wrong with the output, in words; other errors are of this attempt.
fn of_output<T>(found: Result<T, MediaError>) -> Result<Result<T, String>, MediaError> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(MediaError::Failed { said }) if !blames_machine(&said) => Ok(Err(said)),
        Err(error @ MediaError::Output { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What a demuxer says of the output.
struct Output {
    streams: Vec<Stream>,
    pixels: String,
    /// Of the first stream. *Units*: ticks.
    shown: Vec<i64>,
    tick: [u32; 2],
    /// *Units*: ticks.
    end: i64,
    /// When each stream begins, counted from the first frame, where that is known. *Units*: microseconds.
    begins_us: Vec<Option<i64>>,
}

fn demux(room: &Room<'_>) -> Result<Output, MediaError> {
    let file = format!("file:{OUTPUT}");
    let description =
        inspect::describe(room, &file)?.map_err(|ended| MediaError::Failed { said: ended.said })?;
    let mut shown = Vec::new();
    let (mut first, mut end) = (vec![None::<i64>; description.streams.len()], i64::MIN);
    must_succeed(inspect::packets(room, &file, &mut |packet| {
        let Some(first) = first.get_mut(packet.stream as usize).filter(|_| !packet.discarded) else { return };
        let Some(pts) = packet.pts else { return };
        *first = Some(first.map_or(pts, |first| first.min(pts)));
        if packet.stream == 0 {
            shown.push(pts);
            end = end.max(pts.saturating_add(packet.duration));
        }
    })?)?;
    shown.sort_unstable();
    let mut pixels = String::new();
    let asked = format!("-select_streams v:0 -show_entries stream=pix_fmt -of csv=p=0 {file}");
    must_succeed(room.ffprobe(&asked, &mut |line| pixels.push_str(line.trim_end_matches(',')))?)?;
    let streams = description.streams;
    let tick =
        streams.first().and_then(Stream::tick).ok_or(MediaError::Output { what: "the first stream" })?;
    let origin = shown.first().map_or(0, |pts| micros(*pts, tick));
    let begins =
        streams.iter().zip(first).map(|(stream, first)| Some(micros(first?, stream.tick()?) - origin));
    Ok(Output { begins_us: begins.collect(), streams, pixels, shown, tick, end })
}

fn micros(ticks: i64, [above, below]: [u32; 2]) -> i64 {
    let us = (i128::from(ticks) * 1_000_000 * i128::from(above)).div_euclid(i128::from(below.max(1)));
    i64::try_from(us).unwrap_or(i64::MAX / 4)
}

/// A job beside what was looked up.
struct Watch<'a> {
    given: &'a Given<'a>,
    timeline: &'a Timeline,
    same_build: bool,
}

impl Watch<'_> {
    /// Whether the source reads here as the job says it did. Another build may read one otherwise, and is no proof.
    fn source(&self, look: &mut Look) -> bool {
        let (stated, video) = (self.given.stated, &self.given.survey.video);
        let words = |frames: u64, us: u64| format!("{frames} frames in {us} µs");
        let found = words(stated.source_frames, stated.duration_us);
        let expected = words(video.frames, video.duration_us);
        let same = found == expected;
        if same || self.same_build {
            look.check(SOURCE, same, found, expected);
        } else {
            look.leave_out(SOURCE, format!("another build of FFmpeg read {found}, this one {expected}"));
        }
        same || self.same_build
    }

    /// Codecs, sizes and sound as the job asked.
    fn streams(&self, output: &Output, look: &mut Look) {
        let (task, recipe) = (self.given.task, &self.given.task.recipe);
        let picture = |codec: &dyn Display, width: u32, height: u32, bits: u32| {
            format!("{codec} {width} x {height} of {bits} bits")
        };
        let sound = |codec: &dyn Display, channels: u32, rate: &dyn Display| {
            format!("{codec} of {channels} channels at {rate} Hz")
        };
        let bits = if output.pixels.contains("10") { 10 } else { 8 };
        let found = output.streams.iter().map(|stream| match stream.codec_type.as_str() {
            "video" => picture(&stream.codec_name, stream.width, stream.height, bits),
            "audio" => {
                let rate = stream.sample_rate.as_deref().unwrap_or("unknown");
                sound(&stream.codec_name, stream.channels, &rate)
            }
            _ => stream.codec_name.clone(),
        });
        let mut expected = vec![picture(&recipe.codec.word(), recipe.width, recipe.height, recipe.bit_depth)];
        expected.extend(task.audio.iter().map(|track| {
            let codec = match track.codec {
                AudioCodec::Aac => "aac",
                AudioCodec::Opus => "opus",
            };
            sound(&codec, track.channels, &track.sample_rate)
        }));
        let subtitles = task.subtitles.iter().zip(&self.given.survey.subtitles);
        expected.extend(subtitles.map(|(track, stream)| track.codec(task.container, stream).to_owned()));
        let (found, expected) = (found.collect::<Vec<_>>().join(", "), expected.join(", "));
        look.check(STREAMS, found == expected, found, expected);
    }

    /// Every frame, each when the source shows it.
    fn times(&self, output: &Output, look: &mut Look) {
        let (task, stated) = (self.given.task, self.given.stated);
        let expected = expected(task, self.timeline);
        let (count, found) = (task.frames, output.shown.len() as u64);
        let holds = found == count && stated.frames == count;
        look.check(FRAMES, holds, format!("{found}, and {} in the document", stated.frames), count);
        let origin = output.shown.first().copied().unwrap_or_default();
        let late = output.shown.iter().zip(&expected).position(|(found, due)| found - origin != *due);
        // Where one is missing, those after it are at the times of others.
        let (found, due) = match late {
            None => (format!("{} frames in time", output.shown.len()), format!("{count} frames in time")),
            Some(frame) => {
                let [above, below] = output.tick;
                let ticks = output.shown[frame] - origin;
                (format!("frame {frame} at tick {ticks} of {above}/{below} s"), expected[frame].to_string())
            }
        };
        look.check(TIMES, late.is_none() && output.shown.len() == expected.len(), found, due);
        let shown_us = micros(output.end.saturating_sub(origin), output.tick);
        let [due_us, longest_us] = self.duration_us();
        // Wrappings know when the last frame begins; when it ends is for some a guess.
        let holds = shown_us.abs_diff(due_us) <= longest_us.unsigned_abs() + 2_000;
        let due = format!("{due_us} µs, to a frame of {longest_us} µs");
        look.check(DURATION, holds, format!("{shown_us} µs"), due);
    }

    /// How long the output is, and its longest frame. *Units*: microseconds.
    fn duration_us(&self) -> [i64; 2] {
        let timeline = self.timeline;
        match self.given.task.recipe.frame_rate {
            Some([above, below]) => {
                let frames = i64::try_from(self.given.task.frames).unwrap_or(i64::MAX);
                [micros(frames, [below, above]), micros(1, [below, above])]
            }
            None => {
                let ends = timeline.pts.iter().skip(1).chain([&timeline.end]);
                let longest = timeline.pts.iter().zip(ends).map(|(begin, end)| end - begin).max();
                let all = timeline.end - timeline.origin();
                [micros(all, timeline.time_base), micros(longest.unwrap_or_default(), timeline.time_base)]
            }
        }
    }

    /// Each audio stream begins less than a frame from the first picture.
    fn sound(&self, output: &Output, look: &mut Look) {
        let begins: Vec<Option<i64>> = output
            .streams
            .iter()
            .zip(&output.begins_us)
            .filter(|(stream, _)| stream.codec_type == "audio")
            .map(|(_, begins)| *begins)
            .collect();
        if self.given.task.audio.is_empty() && begins.is_empty() {
            return look.leave_out(SOUND, "the job has none");
        }
        let timeline = self.timeline;
        let all = micros(timeline.end - timeline.origin(), timeline.time_base).unsigned_abs();
        let frame_us = all / self.given.task.frames.max(1);
        let near = |begins: &Option<i64>| begins.is_some_and(|us| us.unsigned_abs() < frame_us.max(1));
        let found: Vec<String> = begins
            .iter()
            .map(|begins| begins.map_or_else(|| "never".to_owned(), |us| format!("{us} µs")))
            .collect();
        look.check(SOUND, begins.iter().all(near), found.join(", "), format!("less than {frame_us} µs away"));
    }

    /// One segment from the source, its pictures compared with the output's by their hashes.
    fn segment(
        &self,
        setting: &Setting<'_>,
        hashes: &[[u8; HASH_BYTES]],
        chooser: &Chooser,
        look: &mut Look,
    ) -> Result<(), MediaError> {
        let task = self.given.task;
        if !self.same_build {
            let here = setting.encoder.kernels().join(" or ");
            let why = format!("the job's build of FFmpeg is {}, here is {here}", self.given.kernel);
            look.leave_out(SEGMENT, why);
            return Ok(());
        }
        let index = chooser.some(0, 1, task.segments()).first().copied().unwrap_or_default();
        let unit = task.units() - task.segments() + index;
        let Some(Unit::Segment { first, count, .. }) = task.unit(unit) else { return Err(MediaError::Units) };
        let product = segment::run(&Room::new(setting)?, task, unit)?;
        let expected = format!("frames {first} to {} with these hashes", first + count - 1);
        if let Some(Finding::Error(what)) = Finding::<EncodedUnit>::decode(&product.head) {
            look.check(SEGMENT, false, "a result", what);
            return Ok(());
        }
        let made = product.files.iter().find(|file| file.name == HASHES);
        let made = made.map_or(&[][..], |file| file.bytes.as_chunks::<HASH_BYTES>().0);
        let differs = hashes.iter().skip(first as usize).zip(made).position(|(found, made)| found != made);
        match differs {
            None => look.check(SEGMENT, made.len() as u64 == count, &expected, &expected),
            Some(frame) => {
                let found = format!("another picture in frame {}", first + frame as u64);
                look.check(SEGMENT, false, found, expected);
            }
        }
        Ok(())
    }
}
