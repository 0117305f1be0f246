//! Quick looks at whole video jobs: honest ones hold, and each lie is found by the check that is named for it.

use std::path::PathBuf;

use serde_json::{Value, json};
use tessera_kernels::look::{Chooser, Look};
use tessera_media::Encoder;
use tessera_media::look::{Given, Stated, look};
use tessera_protocol::spec::video_kernel;
use tessera_protocol::video::{EncodeTask, Finding, Survey};

use crate::driver::{Clips, Done, Order, job};
use crate::rich_clip;

/// Two seconds with sound and a B-frame now and then.
fn clip(clips: &Clips) -> PathBuf {
    clips.make(
        "-f lavfi -i testsrc2=s=192x108:r=25:d=2 -f lavfi -i sine=f=440:d=2 -c:v libx264 -preset ultrafast -bf 2 -g 20 \
         -c:a aac clip.mp4",
    )
}

fn stated(done: &Done) -> Stated {
    let number = |value: &Value| value.as_u64().unwrap();
    Stated {
        source_frames: number(&done.document["source"]["frames"]),
        frames: number(&done.document["frames"]),
        duration_us: number(&done.document["duration_us"]),
    }
}

/// What differs from an honest result.
struct Lie {
    output: PathBuf,
    stated: Stated,
    /// Whether the job was of the build that is here.
    same_build: bool,
    task: EncodeTask,
}

fn looked(done: &Done, lie: impl FnOnce(&mut Lie)) -> Look {
    let encoder = Encoder::find().expect("scripts/setup installs ffmpeg");
    let scratch = tempfile::tempdir().unwrap();
    let Some(Finding::Found(survey)) = Finding::<Survey>::decode(&done.products[0][0].head) else {
        panic!("the survey found its source")
    };
    let mut told =
        Lie { output: done.output.clone(), stated: stated(done), same_build: true, task: done.encode() };
    lie(&mut told);
    let build = if told.same_build { encoder.build() } else { "0123456789abcdef".to_owned() };
    let given = Given {
        task: &told.task,
        survey: &survey,
        stated: &told.stated,
        output: &told.output,
        kernel: &video_kernel(&build, false),
    };
    let inputs = |blake3: &[u8; 32]| done.input(blake3);
    let look =
        look(&given, &inputs, &encoder, scratch.path(), &Chooser::new([1, 2]), &|| false).expect("an answer");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "scratch is left empty");
    look
}

fn failing(done: &Done, lie: impl FnOnce(&mut Lie)) -> Vec<&'static str> {
    let checks = looked(done, lie).checks;
    checks.into_iter().filter(|check| !check.holds).map(|check| check.name).collect()
}

#[test]
fn honest_videos_hold_in_every_wrapping_codec_and_rate() {
    let clips = Clips::new();
    let (source, rich) = (clip(&clips), rich_clip(&clips));
    let uneven = clips.make(
        "-f lavfi -i testsrc2=s=192x108:r=25:d=2 -vf select='not(eq(mod(n\\,7)\\,3))' -fps_mode vfr -c:v libx264 \
         -preset ultrafast uneven.mkv",
    );
    for (source, params) in [
        (&source, json!({ "keyframe_interval": 20, "preset": "veryfast" })),
        (
            &source,
            json!({ "keyframe_interval": 20, "container": "mkv", "bit_depth": 10, "preset": "ultrafast" }),
        ),
        (
            &source,
            json!({ "codec": "av1", "preset": 12, "keyframe_interval": 25, "audio": { "codec": "none" } }),
        ),
        (&source, json!({ "frame_rate": "30000/1001", "width": 128, "preset": "ultrafast" })),
        (&uneven, json!({ "keyframe_interval": 20, "preset": "ultrafast" })),
        (&rich, json!({ "keyframe_interval": 30, "preset": "ultrafast" })),
        (&rich, json!({ "container": "mkv", "preset": "ultrafast", "audio": { "codec": "opus" } })),
    ] {
        let done = job(source, params.clone(), Order::Forward).unwrap();
        let look = looked(&done, |_| {});
        assert!(look.holds(), "{params}: {look:#?}");
        assert!(look.checks.iter().any(|check| check.name == "a segment encoded again"), "{look:#?}");
    }
}

#[test]
fn another_build_leaves_out_what_only_the_same_one_can_tell() {
    let clips = Clips::new();
    let done = job(&clip(&clips), json!({ "preset": "ultrafast" }), Order::Forward).unwrap();
    let look = looked(&done, |lie| lie.same_build = false);
    assert!(look.holds(), "{look:#?}");
    let left_out: Vec<&str> = look.left_out.iter().map(|one| one.name).collect();
    assert_eq!(left_out, ["a segment encoded again"]);
    // Where it reads another source than the job did, nobody is accused.
    let look = looked(&done, |lie| (lie.same_build, lie.stated.source_frames) = (false, 7));
    assert!(look.holds(), "{look:#?}");
    let left_out: Vec<&str> = look.left_out.iter().map(|one| one.name).collect();
    assert_eq!(left_out, ["source", "time of every frame", "a segment encoded again"]);
}

#[test]
fn lies_about_a_video_are_found() {
    let clips = Clips::new();
    let params = json!({ "keyframe_interval": 20, "preset": "veryfast" });
    let done = job(&clip(&clips), params, Order::Forward).unwrap();
    let of_output = |arguments: &str| {
        std::fs::copy(&done.output, clips.path("made.mp4")).unwrap();
        clips.make(&format!("-i made.mp4 {arguments}"))
    };
    assert_eq!(failing(&done, |_| {}), [""; 0]);
    assert_eq!(failing(&done, |lie| lie.stated.source_frames = 49), ["source"]);
    assert_eq!(failing(&done, |lie| lie.stated.frames = 49), ["number of frames"]);
    assert_eq!(failing(&done, |lie| lie.task.recipe.width = 128)[0], "streams as asked");

    let missing = of_output("-c copy -frames:v 49 missing.mp4");
    let found = failing(&done, |lie| lie.output = missing.clone());
    for name in ["number of frames", "time of every frame", "every frame decodes"] {
        assert!(found.contains(&name), "{name}: {found:?}");
    }
    // One frame that is shown a little later.
    let late = of_output(
        "-c copy -bsf:v setts=pts='if(eq(N\\,31)\\,PTS+16\\,PTS)' -video_track_timescale 12800 late.mp4",
    );
    let found = failing(&done, |lie| lie.output = late.clone());
    assert_eq!(found, ["time of every frame"]);
    let deaf = of_output("-c copy -an deaf.mp4");
    assert_eq!(failing(&done, |lie| lie.output = deaf.clone()), ["streams as asked"]);
    let apart = clips.make("-i made.mp4 -itsoffset 0.2 -i made.mp4 -map 0:v -map 1:a -c copy apart.mp4");
    assert_eq!(failing(&done, |lie| lie.output = apart.clone()), ["sound begins with the picture"]);
    // The same film, encoded worse.
    let worse =
        of_output("-c:v libx264 -preset veryfast -crf 40 -video_track_timescale 12800 -c:a copy worse.mp4");
    assert_eq!(failing(&done, |lie| lie.output = worse.clone()), ["a segment encoded again"]);
    let cut = clips.path("cut.mp4");
    let bytes = std::fs::read(&done.output).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let found = failing(&done, |lie| lie.output = cut.clone());
    assert!(found.contains(&"every frame decodes"), "{found:?}");
    std::fs::write(&cut, b"no video").unwrap();
    assert_eq!(failing(&done, |lie| lie.output = cut.clone()), ["streams as asked", "every frame decodes"]);
}

#[test]
fn a_last_frame_that_is_shown_for_too_long_is_found() {
    let clips = Clips::new();
    let done =
        job(&clip(&clips), json!({ "preset": "ultrafast", "audio": { "codec": "none" } }), Order::Forward);
    let done = done.unwrap();
    std::fs::copy(&done.output, clips.path("made.mp4")).unwrap();
    let long = clips.make(
        "-i made.mp4 -c copy -bsf:v setts=duration='if(eq(N\\,49)\\,DURATION*20\\,DURATION)' -video_track_timescale 12800 \
         long.mp4",
    );
    assert_eq!(failing(&done, |lie| lie.output = long.clone()), ["duration"]);
}
