//! A clip through hub and agents, one of which dies: every frame in its place, the same bytes twice.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::programs::{kill_one, run};

const FRAMES_A_SECOND: u32 = 30;

/// What a program says, in the clip's folder.
fn say(folder: &Path, program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).current_dir(folder).output();
    let output = output.expect("scripts/setup installs FFmpeg");
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// When packets of a stream are shown, in order. *Units*: seconds.
fn shown(folder: &Path, file: &str, stream: &str) -> Vec<f64> {
    let entries =
        format!("-v error -select_streams {stream} -show_entries packet=pts_time -of csv=p=0 {file}");
    let said = say(folder, "ffprobe", &entries);
    let seconds = |line: &str| line.trim_end_matches(',').parse().ok();
    let mut shown: Vec<f64> = said.lines().filter_map(seconds).collect();
    shown.sort_by(f64::total_cmp);
    shown
}

/// A clip of sound and moving pictures, and a job that encodes it.
fn clip(folder: &Path, size: &str, seconds: u32, params: &str) -> PathBuf {
    say(
        folder,
        "ffmpeg",
        &format!(
            "-v error -f lavfi -i testsrc2=s={size}:r={FRAMES_A_SECOND}:d={seconds} -f lavfi -i sine=d={seconds}:r=48000 \
             -c:v libx264 -preset ultrafast -crf 18 -c:a aac clip.mp4"
        ),
    );
    let job = folder.join("clip.toml");
    let text = format!("name = \"clip\"\nworkload = \"video\"\n[params]\ninput = \"clip.mp4\"\n{params}");
    std::fs::write(&job, text).expect("the folder is ours");
    job
}

/// Four agents, one of which is killed, and then two: the same bytes, and every frame of the source.
fn assert_encodes(size: &str, seconds: u32, params: &str) {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let job = clip(folder, size, seconds, params);
    let files = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let kill = |children: &[(String, u32)]| kill_one(children, "agent");
    let made = run(&job, &["--agents", "4", "--output", &files("made")], Some(&kill));
    let again = run(&job, &["--agents", "2", "--output", &files("again")], None);
    assert_eq!(made["digest"], again["digest"]);
    let output = made["result"]["outputs"][0]["name"].as_str().expect("a file");
    assert_eq!(made["result"]["outputs"], again["result"]["outputs"]);
    let [made_file, again_file] = ["made", "again"].map(|run| format!("{run}/{output}"));
    let read = |file: &str| std::fs::read(folder.join(file)).expect("it was written");
    assert!(read(&made_file) == read(&again_file), "the files differ");

    let [source, frames] = ["clip.mp4", &made_file].map(|file| shown(folder, file, "v:0"));
    assert_eq!(frames.len(), (FRAMES_A_SECOND * seconds) as usize);
    let late = |(source_s, made_s): (&f64, &f64)| ((made_s - frames[0]) - (source_s - source[0])).abs();
    assert!(source.iter().zip(&frames).map(late).all(|late| late < 1e-5), "{frames:?}");
    // The last stage compared each picture of the whole with that of its segment.
    assert_eq!(made["result"]["checks"]["pictures"], json!(frames.len()));
    let [heard, heard_then] = ["clip.mp4", &made_file].map(|file| shown(folder, file, "a:0"));
    for end in [<[f64]>::first, <[f64]>::last] {
        let late = (end(&heard_then).expect("sound") - frames[0]) - (end(&heard).expect("sound") - source[0]);
        assert!(late.abs() < 1.0 / f64::from(FRAMES_A_SECOND), "the sound is {late} s late");
    }
}

#[test]
fn a_clip_encoded_by_four_agents_one_of_which_dies_is_its_source_frame_by_frame() {
    assert_encodes("320x180", 6, "keyframe_interval = 30\npreset = \"veryfast\"\n");
}

#[test]
#[ignore = "half an hour of a core"]
fn two_minutes_of_1080p_encoded_by_four_agents_one_of_which_dies_are_their_source_frame_by_frame() {
    assert_encodes("1920x1080", 120, "keyframe_interval = 250\ncrf = 28\npreset = \"veryfast\"\n");
}
