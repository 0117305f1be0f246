//! Encoding an audio stream: once and whole, for an encoder's first packets depend on nothing before them.
//!
//! Sample 0 is heard when the first frame is shown: what comes before is left out, what is missing is
//! silence, and so are gaps, so that sound and picture never drift apart.

use std::ffi::OsString;
use std::fs;

use tessera_protocol::product::{File, Product};
use tessera_protocol::video::{
    AudioCodec, AudioTrack, Container, EncodeTask, EncodedUnit, Finding, PART_BYTES,
};

use crate::MediaError;
use crate::room::{FORMATS, Room, SOURCE, blames_machine, words};

/// What an audio stream is called in its products, part by part.
pub(crate) const AUDIO: &str = "audio";
/// Samples that an AAC encoder puts before the first. *Source*: FFmpeg's own encoder, `avctx->initial_padding`.
const AAC_PRIMING: u32 = 1_024;

pub(crate) fn run(
    room: &Room<'_>,
    task: &EncodeTask,
    track: usize,
    part: u32,
) -> Result<Product, MediaError> {
    let track = task.audio.get(track).ok_or(MediaError::Units)?;
    let ended = room.ffmpeg(&arguments(task, track), 0)?;
    if !ended.success {
        if blames_machine(&ended.said) {
            return Err(MediaError::Failed { said: ended.said });
        }
        let what = format!("its audio stream {} cannot be encoded: {}", track.stream, ended.said);
        return Ok(Product { head: Finding::<EncodedUnit>::Error(what).encode(), files: Vec::new() });
    }
    let whole = fs::read(room.path(AUDIO))?;
    let head = Finding::Found(EncodedUnit { bytes: whole.len() as u64, frames: 0 }).encode();
    let bytes = part_of(&whole, part).to_vec();
    Ok(Product { head, files: vec![File { name: AUDIO.to_owned(), bytes }] })
}

/// The bytes of a long file that one unit returns; none past its end.
pub(crate) fn part_of(whole: &[u8], part: u32) -> &[u8] {
    let length = whole.len() as u64;
    let first = (u64::from(part) * PART_BYTES).min(length);
    let end = (first + PART_BYTES).min(length);
    &whole[first as usize..end as usize]
}

fn arguments(task: &EncodeTask, track: &AudioTrack) -> Vec<OsString> {
    // Sound is cheap, and its arithmetic is in floating point: the plain code, which all processors have.
    let mut all = words("-cpuflags 0 -copyts -protocol_whitelist file -format_whitelist");
    all.push(FORMATS.into());
    all.extend(words(&format!(
        "-threads 1 -i {SOURCE} -map 0:{} -vn -sn -dn -filter_threads 1 -af",
        track.stream
    )));
    all.push(filters(task, track).into());
    let codec = match track.codec {
        AudioCodec::Aac => "aac",
        AudioCodec::Opus => "libopus",
    };
    let wrapping = match task.container {
        Container::Mp4 => "mp4",
        Container::Mkv => "matroska",
    };
    all.extend(words(&format!(
        "-map_metadata -1 -map_chapters -1 -c:a {codec} -b:a {}k -flags:a +bitexact -fflags +bitexact -f {wrapping} {AUDIO}",
        track.kbps
    )));
    all
}

fn filters(task: &EncodeTask, track: &AudioTrack) -> String {
    let [above, below] = task.origin_base;
    // The first frame's time in whole samples of the output.
    let ticks = i128::from(task.origin) * i128::from(above) * i128::from(track.sample_rate);
    let origin = ticks.div_euclid(i128::from(below));
    let layout = match track.channels {
        1 => "mono",
        2 => "stereo",
        6 => "5.1",
        _ => "7.1",
    };
    let rate = track.sample_rate;
    let mut chain = format!(
        "aresample={rate}:async=1:first_pts={origin},asetpts=PTS-({origin}),\
         aformat=sample_rates={rate}:channel_layouts={layout}"
    );
    if task.container == Container::Mkv && track.codec == AudioCodec::Aac {
        // Matroska has no place for AAC's priming and shifts the stream by it; the same number of samples is
        // left out, so that all others are heard in time.
        chain.push_str(&format!(",atrim=start_sample={AAC_PRIMING},asetpts=PTS-STARTPTS"));
    }
    chain
}
