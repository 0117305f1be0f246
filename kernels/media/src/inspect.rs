//! What ffprobe says of a file: its streams, and when each of their packets or frames is shown.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::MediaError;
use crate::child::Ended;
use crate::room::Room;

/// Most streams that are looked at.
const STREAMS_MAX: usize = 128;
/// Most that a description of streams may take. *Units*: bytes.
const DESCRIPTION_BYTES_MAX: usize = 4 << 20;

/// A file's streams.
#[derive(Debug, Deserialize)]
pub(crate) struct Description {
    #[serde(default)]
    pub(crate) streams: Vec<Stream>,
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Format {
    #[serde(default)]
    pub(crate) format_name: String,
    pub(crate) duration: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Stream {
    pub(crate) index: u32,
    #[serde(default)]
    pub(crate) codec_name: String,
    #[serde(default)]
    pub(crate) codec_type: String,
    #[serde(default)]
    pub(crate) width: u32,
    #[serde(default)]
    pub(crate) height: u32,
    #[serde(default)]
    pub(crate) channels: u32,
    pub(crate) sample_rate: Option<String>,
    pub(crate) avg_frame_rate: Option<String>,
    pub(crate) time_base: Option<String>,
    pub(crate) nb_frames: Option<String>,
    #[serde(default)]
    pub(crate) disposition: BTreeMap<String, i64>,
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) side_data_list: Vec<SideData>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SideData {
    pub(crate) rotation: Option<f64>,
}

impl Stream {
    pub(crate) fn is(&self, disposition: &str) -> bool {
        self.disposition.get(disposition).is_some_and(|set| *set != 0)
    }

    /// Seconds of a tick, as a fraction.
    pub(crate) fn tick(&self) -> Option<[u32; 2]> {
        fraction(self.time_base.as_deref()?).filter(|[above, below]| *above > 0 && *below > 0)
    }
}

/// `30000/1001` as two numbers.
pub(crate) fn fraction(text: &str) -> Option<[u32; 2]> {
    let (above, below) = text.split_once('/')?;
    Some([above.parse().ok()?, below.parse().ok()?])
}

/// The streams of a file, or what ffprobe says is wrong with it.
pub(crate) fn describe(room: &Room<'_>, file: &str) -> Result<Result<Description, Ended>, MediaError> {
    let mut text = String::new();
    let ended = room.ffprobe(&format!("-show_streams -show_format -of json {file}"), &mut |line| {
        if text.len() < DESCRIPTION_BYTES_MAX {
            text.push_str(line);
            text.push('\n');
        }
    })?;
    if !ended.success {
        return Ok(Err(ended));
    }
    let what = MediaError::Output { what: "streams" };
    let description: Description = serde_json::from_str(&text).map_err(|_| what)?;
    if description.streams.len() > STREAMS_MAX {
        return Err(MediaError::Output { what: "streams" });
    }
    Ok(Ok(description))
}

/// One packet or frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) stream: u32,
    /// *Units*: ticks of the stream.
    pub(crate) pts: Option<i64>,
    /// *Units*: ticks of the stream.
    pub(crate) duration: i64,
    pub(crate) key: bool,
    /// Read, but not shown.
    pub(crate) discarded: bool,
}

/// Tells `each` of all packets of a file, in the order in which they lie there.
pub(crate) fn packets(
    room: &Room<'_>,
    file: &str,
    each: &mut dyn FnMut(Packet),
) -> Result<Ended, MediaError> {
    let arguments = format!("-show_entries packet=stream_index,pts,duration,flags -of csv=nk=0:p=0 {file}");
    room.ffprobe(&arguments, &mut |line| {
        let mut packet = Packet::default();
        let mut named = false;
        for (key, value) in line.split(',').filter_map(|field| field.split_once('=')) {
            match key {
                "stream_index" => (packet.stream, named) = (value.parse().unwrap_or(u32::MAX), true),
                "pts" => packet.pts = value.parse().ok(),
                "duration" => packet.duration = value.parse().unwrap_or(0),
                "flags" => (packet.key, packet.discarded) = (value.contains('K'), value.contains('D')),
                _ => {}
            }
        }
        if named {
            each(packet);
        }
    })
}

/// Tells `each` of all frames of a stream, decoded, in the order in which they are shown.
pub(crate) fn frames(
    room: &Room<'_>,
    file: &str,
    stream: u32,
    each: &mut dyn FnMut(Packet),
) -> Result<Ended, MediaError> {
    let arguments = format!(
        "-threads 1 -select_streams {stream} -show_entries frame=best_effort_timestamp,key_frame \
         -of csv=nk=0:p=0 {file}"
    );
    room.ffprobe(&arguments, &mut |line| {
        let mut frame = Packet { stream, ..Packet::default() };
        let mut named = false;
        for (key, value) in line.split(',').filter_map(|field| field.split_once('=')) {
            match key {
                "best_effort_timestamp" => (frame.pts, named) = (value.parse().ok(), true),
                "key_frame" => frame.key = value == "1",
                _ => {}
            }
        }
        if named {
            each(frame);
        }
    })
}
