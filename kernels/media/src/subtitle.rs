//! Carrying a subtitle stream: copied, or written as plain text where the output cannot hold it as it is.

use std::fs;

use tessera_protocol::product::File;
use tessera_protocol::video::EncodeTask;

use crate::MediaError;
use crate::room::{FORMATS, Room, SOURCE, blames_machine, words};
use crate::segment::Made;

/// What a subtitle stream is called in its product.
pub(crate) const SUBTITLE: &str = "subtitle";

pub(crate) fn make(room: &Room<'_>, task: &EncodeTask, track: usize) -> Result<Made, MediaError> {
    let track = task.subtitles.get(track).ok_or(MediaError::Units)?;
    let mut arguments = words("-copyts -protocol_whitelist file -format_whitelist");
    arguments.push(FORMATS.into());
    arguments.extend(words(&format!("-threads 1 -i {SOURCE} -map 0:{} -vn -an -dn", track.stream)));
    arguments.extend(words(if track.to_text { "-c:s subrip" } else { "-c:s copy" }));
    arguments.extend(words("-map_metadata -1 -map_chapters -1 -fflags +bitexact -output_ts_offset"));
    arguments.push(shift(task).into());
    arguments.extend(words(&format!("-f matroska {SUBTITLE}")));
    let ended = room.ffmpeg(&arguments, 0)?;
    if blames_machine(&ended.said) {
        return Err(MediaError::Failed { said: ended.said });
    }
    if !ended.success {
        return Ok(Err(format!("its subtitle stream {} cannot be carried: {}", track.stream, ended.said)));
    }
    Ok(Ok(vec![File { name: SUBTITLE.to_owned(), bytes: fs::read(room.path(SUBTITLE))? }]))
}

/// So that a line is shown with its frame: back by the first frame's time. *Units*: seconds.
fn shift(task: &EncodeTask) -> String {
    let [above, below] = task.origin_base;
    let us = -i128::from(task.origin) * 1_000_000 * i128::from(above) / i128::from(below);
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06}", us / 1_000_000, us % 1_000_000)
}
