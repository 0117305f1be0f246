//! A look at a product: whether its tables are those of a video segment as its job asked, or losses that there are.
//!
//! Reads the boxes of ISO base media (ISO/IEC 14496-12) that say what is in a segment, and no picture.

use alloc::format;
use alloc::string::String;

use tessera_planners::{Pass, Plan};
use tessera_protocol::catastrophe::{self, LOSS_BYTES, LOSSES, SurveyHead};
use tessera_protocol::product::ProductView;
use tessera_protocol::spec::StagedParams;
use tessera_protocol::unit::ShardIndex;
use tessera_protocol::video::{EncodeTask, EncodedUnit, Finding, Task, Unit, VideoCodec};

/// What a segment is called in its product.
const SEGMENT: &str = "segment.mp4";

/// What is odd about a product, in words.
pub(super) fn look(params: &StagedParams, plan: &Plan, index: ShardIndex, bytes: &[u8]) -> Option<String> {
    let product = ProductView::decode(bytes).ok()?;
    match (params, plan.stage()?) {
        (StagedParams::Catastrophe(_), "losses") => losses(plan, &product),
        (StagedParams::Video(_), "encode") => {
            let Task::Encode(task) = Task::decode(plan.task()).ok()? else { return None };
            segment(&task, plan.shard(index)?.first, &product)
        }
        _ => None,
    }
}

/// An event cannot destroy more than there is.
fn losses(plan: &Plan, product: &ProductView<'_>) -> Option<String> {
    let Pass::Stage(done) = &plan.round().pass else { return None };
    let Some(SurveyHead::Found(catastrophe::Survey { value, .. })) =
        SurveyHead::decode(&done.first()?.first()?.head)
    else {
        return None;
    };
    let rows = product.file(LOSSES)?.as_chunks::<LOSS_BYTES>().0.iter();
    rows.enumerate().find_map(|(row, loss)| {
        let [gross, ground_up, ..] = *loss.as_chunks::<8>().0 else { return None };
        let loss = f64::from_le_bytes(gross).max(f64::from_le_bytes(ground_up));
        let more = loss > value * (1.0 + 1e-9);
        more.then(|| format!("event {row} of the shard loses {loss}, and all there is to lose is {value}"))
    })
}

fn segment(task: &EncodeTask, unit: u64, product: &ProductView<'_>) -> Option<String> {
    let Unit::Segment { count, .. } = task.unit(unit)? else { return None };
    // What is wrong with a source is found again by whoever checks.
    let Some(Finding::Found(EncodedUnit { bytes, frames })) = Finding::decode(product.head) else {
        return Some("it encoded nothing".into());
    };
    let Some(file) = product.file(SEGMENT) else { return Some("it has no segment".into()) };
    if (bytes, frames) != (file.len() as u64, count) {
        let length = file.len();
        return Some(format!(
            "it says that it has {frames} frames in {bytes} bytes, and it is {count} frames in {length} bytes"
        ));
    }
    let Some(found) = Tables::read(file) else {
        return Some("its segment has no tables of one video track".into());
    };
    let asked = Tables {
        codec: match task.recipe.codec {
            VideoCodec::H264 => *b"avc1",
            VideoCodec::Av1 => *b"av01",
        },
        size: [task.recipe.width, task.recipe.height],
        ticks: task.recipe.timescale()[0],
        frames: count,
    };
    (found != asked)
        .then(|| format!("its segment holds {}, and asked for was {}", found.words(), asked.words()))
}

/// What the tables of a video track say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tables {
    codec: [u8; 4],
    /// *Units*: pixels.
    size: [u32; 2],
    /// A second.
    ticks: u32,
    frames: u64,
}

impl Tables {
    /// Of the one track of a file; nothing where they are not there.
    fn read(file: &[u8]) -> Option<Tables> {
        let media = inside(inside(inside(file, b"moov")?, b"trak")?, b"mdia")?;
        let header = inside(media, b"mdhd")?;
        // Version 1 has times of 64 bits before it.
        let ticks = number(header, if *header.first()? == 1 { 20 } else { 12 })?;
        let tables = inside(inside(media, b"minf")?, b"stbl")?;
        let entry = inside(tables, b"stsd")?.get(8..)?;
        let size = number(entry, 32)?;
        Some(Tables {
            codec: entry.get(4..8)?.try_into().ok()?,
            size: [size >> 16, size & 0xffff],
            ticks,
            frames: u64::from(number(inside(tables, b"stsz")?, 8)?),
        })
    }

    fn words(&self) -> String {
        let Tables { codec, size: [width, height], ticks, frames } = self;
        let codec = codec.escape_ascii();
        format!("{frames} frames of {codec} of {width} x {height} pixels at {ticks} ticks a second")
    }
}

/// The contents of the first box of a kind.
fn inside<'a>(mut bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    loop {
        let (length, header) = match number(bytes, 0)? {
            0 => (bytes.len() as u64, 8),
            1 => (u64::from(number(bytes, 8)?) << 32 | u64::from(number(bytes, 12)?), 16),
            length => (u64::from(length), 8),
        };
        let length = usize::try_from(length).ok().filter(|length| *length >= header)?;
        let contents = bytes.get(header..length)?;
        if bytes.get(4..8)? == kind {
            return Some(contents);
        }
        bytes = &bytes[length..];
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use tessera_protocol::product::{File, Product};
    use tessera_protocol::video::{Container, Rate, Recipe, Source};

    use super::*;

    fn made(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
        let length = (8 + contents.len() as u32).to_be_bytes();
        [&length[..], kind, contents].concat()
    }

    /// The boxes that FFmpeg writes around a segment, without its pictures.
    fn mp4(width: u16, frames: u32) -> Vec<u8> {
        let mut header = [0; 20];
        header[12..16].copy_from_slice(&12_800_u32.to_be_bytes());
        let mut entry = [0; 78];
        entry[24..26].copy_from_slice(&width.to_be_bytes());
        entry[26..28].copy_from_slice(&120_u16.to_be_bytes());
        let entries = [&[0, 0, 0, 0, 0, 0, 0, 1][..], &made(b"avc1", &entry)].concat();
        let sizes = [&[0; 8][..], &frames.to_be_bytes()].concat();
        let tables = [made(b"stsd", &entries), made(b"stsz", &sizes)].concat();
        let information = made(b"minf", &[made(b"vmhd", &[0; 4]), made(b"stbl", &tables)].concat());
        let media = [made(b"mdhd", &header), made(b"hdlr", &[0; 4]), information].concat();
        let track = made(b"trak", &[made(b"tkhd", &[0; 4]), made(b"mdia", &media)].concat());
        [made(b"ftyp", b"isom"), made(b"mdat", &[7; 100]), made(b"moov", &track)].concat()
    }

    fn task() -> EncodeTask {
        let source = Source { blake3: [0; 32], bytes: 1 };
        let recipe = Recipe {
            stream: 0,
            codec: VideoCodec::H264,
            preset: 5,
            rate: Rate::Crf(23),
            bit_depth: 8,
            width: 160,
            height: 120,
            frame_rate: None,
            keyframe_interval: 50,
            time_base: [1, 12_800],
        };
        EncodeTask {
            source,
            survey: source,
            recipe,
            frames: 120,
            segment_frames: 50,
            container: Container::Mp4,
            origin: 0,
            origin_base: [1, 12_800],
            audio: Vec::new(),
            subtitles: Vec::new(),
        }
    }

    fn looked(unit: u64, frames: u64, file: Option<Vec<u8>>) -> Option<String> {
        let bytes = file.as_ref().map_or(0, |file| file.len() as u64);
        let head = Finding::Found(EncodedUnit { bytes, frames }).encode();
        let files = file.into_iter().map(|bytes| File { name: SEGMENT.to_string(), bytes }).collect();
        let encoded = Product { head, files }.encode().unwrap();
        segment(&task(), unit, &ProductView::decode(&encoded).unwrap())
    }

    #[test]
    fn a_segment_that_its_tables_describe_as_asked_for_does_not_look_odd() {
        assert_eq!(looked(0, 50, Some(mp4(160, 50))), None);
        assert_eq!(looked(2, 20, Some(mp4(160, 20))), None, "the last has fewer frames");
    }

    #[test]
    fn a_segment_of_another_size_or_length_looks_odd() {
        let words = looked(0, 50, Some(mp4(162, 50))).unwrap();
        assert_eq!(
            words,
            "its segment holds 50 frames of avc1 of 162 x 120 pixels at 12800 ticks a second, and asked for was \
             50 frames of avc1 of 160 x 120 pixels at 12800 ticks a second"
        );
        assert!(
            looked(0, 50, Some(mp4(160, 49)))
                .is_some_and(|words| words.starts_with("its segment holds 49 frames"))
        );
        assert!(
            looked(0, 49, Some(mp4(160, 49)))
                .is_some_and(|words| words.contains("it says that it has 49 frames"))
        );
        assert_eq!(looked(0, 50, None), Some("it has no segment".into()));
    }

    #[test]
    fn a_file_cut_anywhere_is_odd_and_breaks_nothing() {
        let whole = mp4(160, 50);
        for length in 0..whole.len() {
            assert!(looked(0, 50, Some(whole[..length].to_vec())).is_some(), "{length} bytes");
        }
        let mut endless = whole.clone();
        endless[..4].copy_from_slice(&[0; 4]);
        assert_eq!(looked(0, 50, Some(endless)), Some("its segment has no tables of one video track".into()));
    }
}
