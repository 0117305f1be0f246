//! Measuring a sample at a quality: encoded as a segment is, then compared with its source frame by frame.

use std::fs;

use serde::Deserialize;
use tessera_protocol::product::Product;
use tessera_protocol::video::{Cut, Finding, Metric, ProbeTask, Probed, Rate, Recipe, Timeline};

use crate::MediaError;
use crate::decode::open;
use crate::room::{Room, SOURCE, must_succeed, words};
use crate::segment::{self, SEGMENT, filters};

/// Where the filters write what they measure.
const LOG: &str = "quality.log";

pub(crate) fn run(room: &Room<'_>, task: &ProbeTask, unit: u64) -> Result<Product, MediaError> {
    let ([first, count], crf) = task.unit(unit).ok_or(MediaError::Units)?;
    room.take_source(&task.source)?;
    let timeline = room.timeline(&task.survey)?;
    let recipe = Recipe { rate: Rate::Crf(crf), ..task.recipe.clone() };
    let finding = match segment::encode_frames(room, &recipe, &timeline, first, count)? {
        Err(what) => Finding::Error(what),
        Ok(()) => {
            let bytes = fs::metadata(room.path(SEGMENT))?.len();
            let cut = timeline.cut(recipe.frame_rate, first, count).ok_or(MediaError::Units)?;
            let scores = measure(room, task.metric, &recipe, &timeline, &cut, [first, count])?;
            if scores.len() as u64 != count {
                return Err(MediaError::Output { what: "quality" });
            }
            let frames = scores.len() as u32;
            Finding::Found(Probed { score_sum: scores.iter().sum(), frames, bytes })
        }
    };
    Ok(Product { head: finding.encode(), files: Vec::new() })
}

/// The score of each frame. *Units*: millionths.
fn measure(
    room: &Room<'_>,
    metric: Metric,
    recipe: &Recipe,
    timeline: &Timeline,
    cut: &Cut,
    [first, count]: [u64; 2],
) -> Result<Vec<u64>, MediaError> {
    // Plain code: filters sum in floating point, and processors differ in how.
    let mut arguments = words("-cpuflags 0");
    arguments.extend(open(&format!("file:{SEGMENT}"), None));
    arguments.extend(open(SOURCE, Some((cut.start, timeline.time_base)).filter(|_| first > 0)));
    let compare = match metric {
        Metric::Ssim => format!("ssim=stats_file={LOG}"),
        Metric::Vmaf => format!("libvmaf=log_fmt=json:log_path={LOG}:n_threads=1"),
    };
    // Frames are compared by number: what they are shown at was checked when they were encoded.
    let numbered = format!("trim=end_frame={count},settb=1/1000,setpts=N");
    let source = filters(recipe, timeline, cut, first, count);
    arguments.extend(words("-filter_complex_threads 1 -lavfi"));
    arguments.push(
        format!(
            "[0:v:0]{numbered}[made];[1:{}]{source},{numbered}[source];[made][source]{compare}",
            recipe.stream
        )
        .into(),
    );
    arguments.extend(words("-an -sn -dn -fps_mode passthrough -f null -"));
    must_succeed(room.ffmpeg(&arguments, 0)?)?;
    let log = fs::read_to_string(room.path(LOG))?;
    let scores = match metric {
        Metric::Ssim => log.lines().map(ssim).collect(),
        Metric::Vmaf => vmaf(&log),
    };
    scores.ok_or(MediaError::Output { what: "quality" })
}

/// `n:1 Y:0.98 U:0.99 V:0.99 All:0.98 (17.9)`
fn ssim(line: &str) -> Option<u64> {
    let all = line.split_whitespace().find_map(|field| field.strip_prefix("All:"))?;
    millionths(all.parse().ok()?)
}

fn vmaf(log: &str) -> Option<Vec<u64>> {
    #[derive(Deserialize)]
    struct Log {
        frames: Vec<Frame>,
    }
    #[derive(Deserialize)]
    struct Frame {
        metrics: Metrics,
    }
    #[derive(Deserialize)]
    struct Metrics {
        vmaf: f64,
    }
    let log: Log = serde_json::from_str(log).ok()?;
    log.frames.iter().map(|frame| millionths(frame.metrics.vmaf)).collect()
}

fn millionths(score: f64) -> Option<u64> {
    (0.0..=100.0).contains(&score).then(|| (score * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_ffmpeg_writes_them() {
        let line = "n:1 Y:0.976417 U:0.983004 V:0.982311 All:0.978497 (16.675635)";
        assert_eq!(ssim(line), Some(978_497));
        assert_eq!(ssim("n:1 Y:nan"), None);
        let log =
            r#"{"version":"3.0","frames":[{"frameNum":0,"metrics":{"integer_adm2":0.9,"vmaf":93.1875}}]}"#;
        assert_eq!(vmaf(log), Some(vec![93_187_500]));
    }
}
