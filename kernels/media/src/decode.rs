//! Reading pictures: the part of a command line that opens a range of frames, and the hashes of frames.

use std::ffi::OsString;
use std::fmt::Write;

use tessera_protocol::video::Cut;

use crate::MediaError;
use crate::room::{FORMATS, Room, words};

/// Bytes of a frame's hash. *Source*: MD5, as FFmpeg's `framemd5` writes it; it guards against faults, not
/// against people.
pub(crate) const HASH_BYTES: usize = 16;

/// Opens a file so that decoding is the same on every machine and starts before a time stamp: one thread,
/// exact inverse transforms, and frames with errors left out, so that counting finds them.
pub(crate) fn open(file: &str, from: Option<(i64, [u32; 2])>) -> Vec<OsString> {
    let mut all = words("-copyts -protocol_whitelist file -format_whitelist");
    all.push(FORMATS.into());
    all.extend(words("-threads 1 -flags:v +bitexact -idct simple -err_detect explode"));
    if let Some((ticks, [above, below])) = from {
        let us = i128::from(ticks) * 1_000_000 * i128::from(above);
        // Not before the time stamp, so that a key frame there is found.
        let us = us.div_euclid(i128::from(below)) + 1;
        let sign = if us < 0 { "-" } else { "" };
        let us = us.unsigned_abs();
        all.extend(words("-seek_timestamp 1 -noaccurate_seek -ss"));
        all.push(format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000).into());
    }
    all.push("-i".into());
    all.push(file.into());
    all
}

/// The filter that lets through the frames of a cut.
pub(crate) fn trim(cut: &Cut) -> String {
    let mut filter = format!("trim=start_pts={}", cut.start);
    if let Some(end) = cut.end {
        let _ = write!(filter, ":end_pts={end}");
    }
    filter
}

/// The hash of each frame of a file in the directory, or of a cut of it, in the order in which they are shown.
pub(crate) fn frame_hashes(
    room: &Room<'_>,
    file: &str,
    cut: Option<(Cut, [u32; 2])>,
) -> Result<Vec<[u8; HASH_BYTES]>, MediaError> {
    let from = cut.filter(|(cut, _)| cut.start > 0).map(|(cut, base)| (cut.start, base));
    let mut arguments = open(file, from);
    arguments.extend(words("-map 0:v:0 -an -sn -dn -filter_threads 1"));
    if let Some((cut, _)) = &cut {
        arguments.extend(words("-vf"));
        arguments.push(trim(cut).into());
    }
    arguments.extend(words("-fps_mode passthrough -f framemd5 pipe:1"));
    let (mut hashes, mut sound) = (Vec::new(), true);
    let ended = room.ffmpeg_lines(&arguments, &mut |line| {
        if line.starts_with('#') || line.is_empty() {
            return;
        }
        match line.rsplit(',').next().and_then(|hash| hash_of(hash.trim())) {
            Some(hash) => hashes.push(hash),
            None => sound = false,
        }
    })?;
    if !ended.success {
        return Err(MediaError::Failed { said: ended.said });
    }
    if sound { Ok(hashes) } else { Err(MediaError::Output { what: "frame hashes" }) }
}

fn hash_of(text: &str) -> Option<[u8; HASH_BYTES]> {
    let mut hash = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES || !text.is_ascii() {
        return None;
    }
    for (position, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * position..2 * position + 2], 16).ok()?;
    }
    Some(hash)
}
