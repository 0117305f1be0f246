//! The survey: what is in a source, when each frame is shown, and what is wrong with it.
//!
//! Frames are counted from their packets, which takes no decoding; where packets do not say when frames are
//! shown, all frames are decoded. The encode stage compares what it decodes with what was counted here.

use tessera_protocol::product::{File, Product};
use tessera_protocol::video::{
    AUDIO_MAX, AudioStream, Cadence, FRAMES_MAX, Finding, SIDE_MAX, SIDE_MIN, SUBTITLES_MAX, SubtitleStream,
    Survey, SurveyTask, TICKS_PER_SECOND_MAX, Timeline, VideoStream,
};

use crate::MediaError;
use crate::inspect::{self, Description, Packet, Stream, fraction};
use crate::room::{Room, SOURCE, blames_machine};

/// What a survey may find wrong, or an attempt that failed.
enum Trouble {
    Source(String),
    Attempt(MediaError),
}

impl From<MediaError> for Trouble {
    fn from(error: MediaError) -> Trouble {
        Trouble::Attempt(error)
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Source(what.into()))
}

pub(crate) fn run(room: &Room<'_>, task: &SurveyTask) -> Result<Product, MediaError> {
    room.take_source(&task.source)?;
    let (finding, files) = match survey(room, task) {
        Ok((survey, timeline)) => {
            let file = File { name: "timeline".to_owned(), bytes: timeline.encode() };
            (Finding::Found(survey), vec![file])
        }
        Err(Trouble::Source(what)) => (Finding::Error(what), Vec::new()),
        Err(Trouble::Attempt(error)) => return Err(error),
    };
    Ok(Product { head: finding.encode(), files })
}

fn survey(room: &Room<'_>, task: &SurveyTask) -> Result<(Survey, Timeline), Trouble> {
    check_build(room, task)?;
    if task.source.bytes == 0 {
        return wrong("the file is empty");
    }
    let description = match inspect::describe(room, SOURCE)? {
        Ok(description) => description,
        Err(ended) if blames_machine(&ended.said) => {
            return Err(MediaError::Failed { said: ended.said }.into());
        }
        Err(ended) if ended.said.contains("not on whitelist") => {
            return wrong(
                "its format is none that is read: convert it to MP4, Matroska, MPEG-TS, AVI, MXF or Ogg",
            );
        }
        Err(ended) => {
            let said = ended.said.replace(&format!("{SOURCE}: "), "");
            return wrong(format!("it cannot be read as a video: {said}"));
        }
    };
    let video = choose_video(&description)?;
    let spans = spans(room, &description)?;
    check_header(&description, video, &spans)?;
    let (timeline, keyframes, decoded) = timeline(room, video, &spans)?;
    let survey = Survey {
        format: plain_name(description.format.as_ref().map_or("", |format| &format.format_name)),
        video: video_stream(video, &timeline, task, keyframes, decoded)?,
        audio: audio_streams(&description, &spans, &timeline)?,
        subtitles: subtitle_streams(&description)?,
        left_out: left_out(&description, video),
    };
    Ok((survey, timeline))
}

/// The build is named by the job, so that what it lacks is the same on every agent.
fn check_build(room: &Room<'_>, task: &SurveyTask) -> Result<(), Trouble> {
    let encoder = room.encoder();
    let lacks = |what: &str| {
        wrong(format!("the build of FFmpeg that the job names ({}) has no {what}", encoder.version()))
    };
    if !encoder.can_encode(task.codec) {
        return lacks(&format!("encoder for {:?}", task.codec));
    }
    if let Some(codec) = task.audio.filter(|codec| !encoder.can_encode_audio(*codec)) {
        return lacks(&format!("encoder for {codec:?}"));
    }
    if let Some(metric) = task.metric.filter(|metric| !encoder.can_measure(*metric)) {
        return lacks(&format!("filter that measures {metric:?}"));
    }
    Ok(())
}

fn choose_video(description: &Description) -> Result<&Stream, Trouble> {
    let of_kind =
        |kind: &'static str| description.streams.iter().filter(move |stream| stream.codec_type == kind);
    let Some(video) = of_kind("video").find(|stream| !stream.is("attached_pic")) else {
        let covers = of_kind("video").count();
        let audio: Vec<String> = of_kind("audio").map(|stream| plain_name(&stream.codec_name)).collect();
        return wrong(match (audio.is_empty(), covers) {
            (true, _) => "it holds no video stream".to_owned(),
            (false, 0) => format!("it holds audio only ({}), no video stream", audio.join(", ")),
            (false, _) => {
                format!("it holds audio ({}) and a cover picture, no video stream", audio.join(", "))
            }
        });
    };
    let side = |side: u32| (SIDE_MIN..=SIDE_MAX).contains(&side);
    if !side(video.width) || !side(video.height) {
        return wrong(format!(
            "its pictures are {} x {}: each side must be from {SIDE_MIN} to {SIDE_MAX} pixels",
            video.width, video.height
        ));
    }
    if video.tick().is_none() {
        return wrong("its video stream has no clock");
    }
    Ok(video)
}

/// What the packets of one stream say.
#[derive(Default)]
struct Span {
    /// Packets, those that are not shown included.
    packets: u64,
    /// When the first and the last begin and when the last ends. *Units*: ticks.
    first: Option<i64>,
    end: Option<i64>,
    /// Of the video stream: each packet that is shown, unless one does not say when.
    shown: Vec<Packet>,
    unsaid: bool,
}

/// The packets of the streams of a file, by the number of the stream.
fn spans(room: &Room<'_>, description: &Description) -> Result<Vec<Span>, Trouble> {
    let streams = description.streams.iter().map(|stream| stream.index as usize + 1).max().unwrap_or(0);
    let mut spans: Vec<Span> = Vec::new();
    spans.resize_with(streams.min(256), Span::default);
    let mut too_many = false;
    let kept = description.streams.iter().filter(|stream| stream.codec_type == "video");
    let kept: Vec<u32> = kept.map(|stream| stream.index).collect();
    let ended = inspect::packets(room, SOURCE, &mut |packet| {
        let Some(span) = spans.get_mut(packet.stream as usize) else { return };
        span.packets += 1;
        if packet.discarded {
            return;
        }
        match packet.pts {
            Some(pts) => {
                let end = pts.saturating_add(packet.duration.max(0));
                span.first = Some(span.first.map_or(pts, |first| first.min(pts)));
                span.end = Some(span.end.map_or(end, |latest| latest.max(end)));
            }
            None => span.unsaid = true,
        }
        if kept.contains(&packet.stream) {
            too_many |= span.shown.len() as u64 >= FRAMES_MAX;
            if !too_many {
                span.shown.push(packet);
            }
        }
    })?;
    if blames_machine(&ended.said) {
        return Err(MediaError::Failed { said: ended.said }.into());
    }
    if too_many {
        return wrong(format!("it holds more than {FRAMES_MAX} frames: cut it first"));
    }
    let short = ["partial file", "ended prematurely", "truncat", "Packet corrupt"];
    if !ended.success || short.iter().any(|words| ended.said.contains(words)) {
        return wrong(format!("it is damaged or cut short: {}", ended.said));
    }
    Ok(spans)
}

/// Whether what the header promises is there.
fn check_header(description: &Description, video: &Stream, spans: &[Span]) -> Result<(), Trouble> {
    let Some(span) = spans.get(video.index as usize).filter(|span| span.packets > 0) else {
        return wrong("its video stream holds no frames");
    };
    let promised = video.nb_frames.as_deref().and_then(|text| text.parse::<u64>().ok());
    if let Some(promised) = promised.filter(|promised| *promised != span.packets) {
        return wrong(format!(
            "its header promises {promised} frames, it holds {}: it is damaged or cut short",
            span.packets
        ));
    }
    let header = description.format.as_ref().and_then(|format| format.duration.as_deref());
    let header: Option<f64> = header.and_then(|text| text.parse().ok());
    let held = |stream: &Stream| {
        let (span, tick) = (spans.get(stream.index as usize)?, stream.tick()?);
        Some([micros(span.first?, tick), micros(span.end?, tick)])
    };
    let held: Vec<[i64; 2]> = description.streams.iter().filter_map(held).collect();
    let (first, last) =
        (held.iter().map(|[first, _]| *first).min(), held.iter().map(|[_, last]| *last).max());
    if let (Some(header), Some(first), Some(last)) = (header, first, last) {
        let (header_us, held_us) = ((header * 1e6) as i64, last.saturating_sub(first));
        // Edits, priming and the clock of each wrapping make a difference of a few frames.
        if header_us.abs_diff(held_us) > 1_000_000 + held_us.unsigned_abs() / 50 {
            let held = held_us as f64 / 1e6;
            return wrong(format!(
                "its header promises {header:.1} s, its streams hold {held:.1} s: it is damaged or cut short"
            ));
        }
    }
    Ok(())
}

/// When each frame is shown, from how many of them decoding can start, and whether all were decoded for it.
fn timeline(room: &Room<'_>, video: &Stream, spans: &[Span]) -> Result<(Timeline, u64, bool), Trouble> {
    let time_base = video.tick().unwrap_or([1, 1]);
    let span = &spans[video.index as usize];
    let from_packets = (!needs_decoding(video, span)).then(|| in_order(&span.shown, time_base)).flatten();
    if let Some((timeline, keyframes)) = from_packets {
        return Ok((timeline, keyframes, false));
    }
    let (mut frames, mut unsaid) = (Vec::new(), false);
    let ended = inspect::frames(room, SOURCE, video.index, &mut |frame| match frame.pts {
        Some(_) if (frames.len() as u64) < FRAMES_MAX => frames.push(frame),
        _ => unsaid = true,
    })?;
    if !ended.success {
        return wrong(format!("its frames cannot be decoded: {}", ended.said));
    }
    match in_order(&frames, time_base).filter(|_| !unsaid) {
        Some((timeline, keyframes)) => Ok((timeline, keyframes, true)),
        None => wrong(
            "its frames do not say when they are shown, or two say the same: convert it to Matroska first",
        ),
    }
}

/// Whether packets are not one to a frame, or do not say when it is shown.
fn needs_decoding(video: &Stream, span: &Span) -> bool {
    let hidden = ["vp8", "mpeg4", "msmpeg4v2", "msmpeg4v3"].contains(&video.codec_name.as_str());
    // What comes before the first key frame cannot be decoded.
    let whole = span.shown.first().is_some_and(|packet| packet.key);
    hidden || span.unsaid || !whole
}

/// Packets as a time line, if their time stamps can be one.
fn in_order(packets: &[Packet], time_base: [u32; 2]) -> Option<(Timeline, u64)> {
    let mut pts: Vec<i64> = packets.iter().map(|packet| packet.pts).collect::<Option<_>>()?;
    pts.sort_unstable();
    let last = *pts.last()?;
    let of_last = packets.iter().find(|packet| packet.pts == Some(last)).map_or(0, |packet| packet.duration);
    let before = pts.len().checked_sub(2).map_or(1, |position| last - pts[position]);
    // A duration that is not said, or nonsense, is that of the frame before.
    let duration = if of_last > 0 { of_last } else { before };
    let timeline = Timeline { time_base, pts, end: last.checked_add(duration.max(1))? };
    let keyframes = packets.iter().filter(|packet| packet.key).count() as u64;
    timeline.is_sound().then_some((timeline, keyframes))
}

fn video_stream(
    video: &Stream,
    timeline: &Timeline,
    task: &SurveyTask,
    keyframes: u64,
    decoded: bool,
) -> Result<VideoStream, Trouble> {
    let [above, below] = timeline.time_base;
    if task.frame_rate.is_none() && below / above > TICKS_PER_SECOND_MAX {
        return wrong(format!(
            "its clock ticks {below} times in {above} s, finer than segments can be joined at: give frame_rate"
        ));
    }
    let turned = video.side_data_list.iter().filter_map(|data| data.rotation).any(|degrees| {
        let quarter = degrees.rem_euclid(180.0);
        (45.0..135.0).contains(&quarter)
    });
    let (width, height) = match turned {
        true => (video.height, video.width),
        false => (video.width, video.height),
    };
    Ok(VideoStream {
        stream: video.index,
        codec: plain_name(&video.codec_name),
        width,
        height,
        frames: timeline.pts.len() as u64,
        output_frames: timeline.frames(task.frame_rate),
        time_base: timeline.time_base,
        origin: timeline.origin(),
        duration_us: micros(timeline.end - timeline.origin(), timeline.time_base).unsigned_abs(),
        cadence: cadence(timeline, video.avg_frame_rate.as_deref().and_then(fraction)),
        keyframes,
        decoded,
    })
}

fn micros(ticks: i64, [above, below]: [u32; 2]) -> i64 {
    let us = i128::from(ticks) * 1_000_000 * i128::from(above) / i128::from(below.max(1));
    i64::try_from(us).unwrap_or_default()
}

/// How regularly frames come: each within a tick of where a constant rate would put it, or not.
fn cadence(timeline: &Timeline, told: Option<[u32; 2]>) -> Cadence {
    let [above, below] = timeline.time_base.map(u64::from);
    let steps = || timeline.pts.iter().zip(&timeline.pts[1..]).map(|(a, b)| b - a);
    let step = steps().next().unwrap_or(timeline.end - timeline.origin());
    if steps().all(|other| other == step) {
        // Ticks a second over ticks a frame.
        let (above, below) = reduced(below, above * step.unsigned_abs());
        if let (Ok(above), Ok(below)) = (u32::try_from(above), u32::try_from(below)) {
            return Cadence::Constant { frame_rate: [above, below] };
        }
    }
    let regular = |[frames, seconds]: [u32; 2]| {
        frames > 0
            && timeline.pts.iter().enumerate().all(|(frame, pts)| {
                let due = frame as u128 * u128::from(seconds) * u128::from(below);
                let scale = u128::from(frames) * u128::from(above);
                let shown = (pts - timeline.origin()).unsigned_abs();
                (u128::from(shown) * scale).abs_diff(due) <= scale
            })
    };
    match told.filter(|told| regular(*told)) {
        Some(frame_rate) => Cadence::Constant { frame_rate },
        None => {
            let us = |ticks: i64| micros(ticks, timeline.time_base).unsigned_abs();
            let longest = steps().max().unwrap_or(step);
            Cadence::Variable { shortest_us: us(steps().min().unwrap_or(step)), longest_us: us(longest) }
        }
    }
}

fn reduced(a: u64, b: u64) -> (u64, u64) {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1), b / x.max(1))
}

fn audio_streams(
    description: &Description,
    spans: &[Span],
    timeline: &Timeline,
) -> Result<Vec<AudioStream>, Trouble> {
    let origin = micros(timeline.origin(), timeline.time_base);
    let streams = description.streams.iter().filter(|stream| stream.codec_type == "audio");
    let carried = streams.filter_map(|stream| {
        let (span, tick) = (spans.get(stream.index as usize)?, stream.tick()?);
        Some(AudioStream {
            stream: stream.index,
            codec: plain_name(&stream.codec_name),
            channels: stream.channels,
            sample_rate: stream.sample_rate.as_deref()?.parse().ok()?,
            language: language(stream),
            default: stream.is("default"),
            start_us: micros(span.first?, tick) - origin,
            end_us: micros(span.end?, tick) - origin,
        })
    });
    let carried: Vec<AudioStream> = carried.collect();
    if carried.len() > AUDIO_MAX {
        return wrong(format!("it holds {} audio streams: at most {AUDIO_MAX} are carried", carried.len()));
    }
    if let Some(stream) = carried.iter().find(|stream| stream.channels == 0 || stream.sample_rate == 0) {
        return wrong(format!("its audio stream {} ({}) cannot be decoded", stream.stream, stream.codec));
    }
    Ok(carried)
}

fn subtitle_streams(description: &Description) -> Result<Vec<SubtitleStream>, Trouble> {
    let streams = description.streams.iter().filter(|stream| stream.codec_type == "subtitle");
    let carried = streams.map(|stream| SubtitleStream {
        stream: stream.index,
        codec: plain_name(&stream.codec_name),
        text: ["subrip", "ass", "ssa", "mov_text", "webvtt", "text"].contains(&stream.codec_name.as_str()),
        language: language(stream),
        default: stream.is("default"),
        forced: stream.is("forced"),
    });
    let carried: Vec<SubtitleStream> = carried.collect();
    if carried.len() > SUBTITLES_MAX {
        return wrong(format!(
            "it holds {} subtitle streams: at most {SUBTITLES_MAX} are carried",
            carried.len()
        ));
    }
    Ok(carried)
}

fn left_out(description: &Description, video: &Stream) -> Vec<String> {
    let carried = |stream: &&Stream| {
        stream.index == video.index || ["audio", "subtitle"].contains(&stream.codec_type.as_str())
    };
    let others = description.streams.iter().filter(|stream| !carried(stream));
    others.map(|stream| format!("{}: {}", stream.index, plain_name(&stream.codec_type))).collect()
}

/// Three letters, or `und`.
fn language(stream: &Stream) -> String {
    let told = stream.tags.get("language").map_or("", String::as_str);
    let fits = told.len() == 3 && told.bytes().all(|byte| byte.is_ascii_lowercase());
    if fits { told.to_owned() } else { "und".to_owned() }
}

/// A name of FFmpeg's, which has no characters but these.
fn plain_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-,".contains(*c)).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time_base: [u32; 2], pts: Vec<i64>) -> Timeline {
        let end = pts[pts.len() - 1] + 1;
        Timeline { time_base, pts, end }
    }

    #[test]
    fn equal_distances_are_a_constant_rate() {
        let film = line([1, 24_000], (0..50).map(|frame| frame * 1_001).collect());
        assert_eq!(cadence(&film, None), Cadence::Constant { frame_rate: [24_000, 1_001] });
    }

    #[test]
    fn a_constant_rate_rounded_to_milliseconds_is_one() {
        let film = line([1, 1_000], (0..500).map(|frame: i64| (frame * 1_001 + 12) / 24).collect());
        assert_eq!(cadence(&film, Some([24_000, 1_001])), Cadence::Constant { frame_rate: [24_000, 1_001] });
        assert!(matches!(cadence(&film, Some([25, 1])), Cadence::Variable { .. }));
    }

    #[test]
    fn a_frame_that_is_late_makes_the_rate_variable() {
        let late = line([1, 1_000], vec![0, 40, 80, 150, 160]);
        let found = cadence(&late, Some([25, 1]));
        assert_eq!(found, Cadence::Variable { shortest_us: 10_000, longest_us: 70_000 });
    }
}
