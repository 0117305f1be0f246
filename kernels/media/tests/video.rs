//! Whole video jobs with FFmpeg itself: what a client gets, and what it is told of a bad file.

mod driver;
mod looks;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use tessera_media::MediaError;
use tessera_protocol::id::Digest;
use tessera_protocol::video::{Source, SurveyTask, Task, VideoCodec};

use driver::{Clips, Done, Order, delay, job, likeness, say, shown};

/// Samples of one frame at 25 frames a second.
const FRAME_SAMPLES: i64 = 48_000 / 25;

/// Moving pictures, noise of two kinds, and a line of text in each of two languages.
fn rich_clip(clips: &Clips) -> std::path::PathBuf {
    fs::write(clips.path("a.srt"), "1\n00:00:01,000 --> 00:00:02,000\nHello\n").unwrap();
    fs::write(clips.path("b.srt"), "1\n00:00:02,500 --> 00:00:03,000\nServus\n").unwrap();
    clips.make(
        "-f lavfi -i testsrc2=s=320x180:r=25:d=4 -f lavfi -i anoisesrc=d=4:seed=1:r=48000:a=0.3 \
         -f lavfi -i anoisesrc=d=4:seed=2:r=44100:a=0.3 -i a.srt -i b.srt -map 0 -map 1 -map 2 -map 3 -map 4 \
         -c:v libx264 -preset ultrafast -bf 2 -g 37 -c:a aac -ac:a:1 1 -c:s subrip -metadata:s:a:1 language=deu \
         -metadata:s:s:1 language=deu -disposition:s:1 forced rich.mkv",
    )
}

fn assert_frame_exact(done: &Done, source: &Path, tolerance_s: f64) {
    let (made, wanted) = (shown(&done.output), shown(source));
    assert_eq!(made.len(), wanted.len());
    for (frame, (made_s, wanted_s)) in made.iter().zip(&wanted).enumerate() {
        let apart = (made_s - made[0]) - (wanted_s - wanted[0]);
        assert!(apart.abs() <= tolerance_s, "frame {frame} is {apart} s late");
    }
    assert_eq!(done.document["checks"]["pictures"], json!(wanted.len()));
}

/// The hash of each frame of a file, as FFmpeg prints it.
fn hashes(file: &Path) -> Vec<String> {
    let file = file.to_str().unwrap();
    let said = say("ffmpeg", &["-v", "error", "-i", file, "-map", "0:v:0", "-f", "framemd5", "-"]);
    let lines = said.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(',').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn an_encoded_clip_has_one_digest_in_any_order_and_is_its_source_frame_by_frame() {
    let clips = Clips::new();
    let source = rich_clip(&clips);
    let params = json!({ "keyframe_interval": 30, "preset": "veryfast" });
    let done = job(&source, params.clone(), Order::Forward).unwrap();
    let again = job(&source, params, Order::Backward).unwrap();
    assert_eq!(done.digest, again.digest);
    assert_eq!(done.document, again.document);
    assert_eq!(done.document["frames"], json!(100));
    assert_eq!(done.document["segments"], json!(4));
    assert_frame_exact(&done, &source, 1e-6);

    // Its frames are the segments' frames and look like the source's.
    let of_segments: Vec<String> = (0..done.products[1].len())
        .filter(|shard| done.products[1][*shard].files.iter().any(|file| file.name == "frames.md5"))
        .flat_map(|shard| done.file(1, shard, "frames.md5"))
        .collect::<Vec<u8>>()
        .chunks(16)
        .map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(hashes(&done.output), of_segments);
    let alike = likeness(&done.output, &source, "null");
    assert_eq!(alike.len(), 100);
    assert!(alike.iter().all(|likeness| *likeness > 0.9), "{alike:?}");

    // Both audio streams are heard when they should be.
    for stream in 0..2 {
        let late = delay(&source, &done.output, stream);
        assert!(late.abs() < FRAME_SAMPLES / 10, "{late} samples");
    }
    let streams = say(
        "ffprobe",
        &[
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name:stream_tags=language:stream_disposition=forced",
            "-of",
            "compact=p=0",
            done.output.to_str().unwrap(),
        ],
    );
    let languages: Vec<bool> = streams.lines().map(|line| line.contains("language=deu")).collect();
    assert_eq!(languages, [false, false, true, false, true], "{streams}");
    assert!(streams.lines().last().unwrap().contains("disposition:forced=1"), "{streams}");
    let text = say(
        "ffmpeg",
        &["-v", "error", "-i", done.output.to_str().unwrap(), "-map", "0:s:1", "-f", "srt", "-"],
    );
    assert!(text.contains("00:00:02,500 --> 00:00:03,000\nServus"), "{text}");
}

#[test]
fn matroska_with_opus_or_aac_carries_the_same_streams_in_time() {
    let clips = Clips::new();
    let source = rich_clip(&clips);
    for codec in ["opus", "aac"] {
        let params = json!({ "keyframe_interval": 50, "preset": "ultrafast", "container": "mkv", "audio": { "codec": codec } });
        let done = job(&source, params, Order::Backward).unwrap();
        assert_frame_exact(&done, &source, 1e-6);
        for stream in 0..2 {
            let late = delay(&source, &done.output, stream);
            assert!(late.abs() < FRAME_SAMPLES / 10, "{codec} is {late} samples late");
        }
        assert_eq!(done.document["subtitles"][1], json!({ "codec": "subrip", "language": "deu" }));
    }
}

#[test]
fn av1_of_ten_bits_is_frame_exact_and_the_same_twice() {
    let clips = Clips::new();
    let source = clips.make("-f lavfi -i testsrc2=s=128x96:r=30000/1001:d=2 -c:v ffv1 -an film.mkv");
    let params = json!({ "codec": "av1", "preset": 12, "bit_depth": 10, "keyframe_interval": 20 });
    let done = job(&source, params.clone(), Order::Forward).unwrap();
    assert_eq!(done.digest, job(&source, params, Order::Backward).unwrap().digest);
    assert_frame_exact(&done, &source, 1e-6);
    assert!(done.document["source"]["cadence"]["constant"]["frame_rate"] == json!([30_000, 1_001]));
    assert!(likeness(&done.output, &source, "format=yuv420p10").iter().all(|likeness| *likeness > 0.8));
}

#[test]
fn a_transport_stream_that_begins_late_keeps_sound_and_picture_together() {
    let clips = Clips::new();
    // Sound begins 0.3 s before the picture; groups of pictures are open.
    let source = clips.make(
        "-itsoffset 0.3 -f lavfi -i testsrc2=s=192x108:r=25:d=4 -f lavfi -i anoisesrc=d=5:seed=4:r=48000:a=0.3 \
         -map 0 -map 1 -c:v libx264 -preset veryfast -bf 2 -g 25 -flags:v -cgop -x264-params open-gop=1 -c:a mp2 live.ts",
    );
    let done =
        job(&source, json!({ "keyframe_interval": 20, "preset": "veryfast" }), Order::Forward).unwrap();
    assert_frame_exact(&done, &source, 1e-4);
    assert!(likeness(&done.output, &source, "null").iter().all(|likeness| *likeness > 0.9));
    let late = delay(&source, &done.output, 0);
    assert!(late.abs() < FRAME_SAMPLES / 10, "{late} samples");
}

#[test]
fn a_variable_frame_rate_is_noticed_and_every_frame_keeps_its_time() {
    let clips = Clips::new();
    let source = clips.make(
        "-f lavfi -i testsrc2=s=192x108:r=50:d=4 -vf select=gt(mod(n\\,7)\\,2)+lt(n\\,20) -fps_mode passthrough \
         -c:v libx264 -preset ultrafast -g 30 phone.mp4",
    );
    let done =
        job(&source, json!({ "keyframe_interval": 25, "preset": "ultrafast" }), Order::Forward).unwrap();
    assert_frame_exact(&done, &source, 1e-6);
    let cadence = &done.document["source"]["cadence"]["variable"];
    assert_eq!(cadence, &json!({ "shortest_us": 20_000, "longest_us": 80_000 }));
    // At a constant rate it lasts as long.
    let params = json!({ "keyframe_interval": 30, "preset": "ultrafast", "frame_rate": "30", "height": 72 });
    let constant = job(&source, params, Order::Backward).unwrap();
    let times = shown(&constant.output);
    assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - 1.0 / 30.0).abs() < 1e-4));
    assert!((times.len() as f64 / 30.0 - 4.0).abs() < 0.05, "{} frames", times.len());
    let alike = likeness(&constant.output, &source, "fps=30,scale=128:72:flags=bicubic");
    assert!(alike.len() >= 115 && alike.iter().all(|likeness| *likeness > 0.85), "{alike:?}");
}

#[test]
fn segments_at_another_rate_join_as_if_the_source_were_encoded_whole() {
    let clips = Clips::new();
    let source = clips.make("-f lavfi -i testsrc2=s=128x96:r=24000/1001:d=3 -c:v ffv1 film.mkv");
    let alike = |frame_rate: &str| {
        let params =
            json!({ "keyframe_interval": 16, "preset": "ultrafast", "crf": 10, "frame_rate": frame_rate });
        let done = job(&source, params, Order::Forward).unwrap();
        likeness(&done.output, &source, &format!("fps={frame_rate}"))
    };
    for frame_rate in ["60", "15"] {
        let alike = alike(frame_rate);
        assert!(alike.iter().all(|likeness| *likeness > 0.95), "{frame_rate}: {alike:?}");
    }
}

#[test]
fn the_largest_crf_that_reaches_a_quality_is_chosen_and_was_measured() {
    let clips = Clips::new();
    let source = clips.make("-f lavfi -i testsrc2=s=128x96:r=25:d=4 -c:v ffv1 film.mkv");
    let quality = json!({ "metric": "ssim", "target": 0.97, "samples": 2, "crf_min": 20, "crf_max": 34 });
    let params = json!({ "keyframe_interval": 25, "preset": "ultrafast", "quality": quality });
    let done = job(&source, params, Order::Forward).unwrap();
    let crf = done.document["crf"].as_u64().unwrap();
    let tried = done.document["quality"]["tried"].as_array().unwrap();
    let score = |wanted: u64| {
        tried.iter().find(|one| one["crf"] == json!(wanted)).unwrap()["score"].as_f64().unwrap()
    };
    assert_eq!(done.document["quality"]["reached"], json!(true));
    assert!(score(crf) >= 0.97 && score(crf + 1) < 0.97, "{tried:?}");
}

#[test]
fn a_long_output_comes_in_one_piece_from_several_parts() {
    let clips = Clips::new();
    // Noise does not compress.
    let source = clips.make(
        "-f lavfi -i color=gray:s=1280x720:r=10:d=4 -vf noise=alls=100:allf=t -c:v libx264 -preset ultrafast -crf 12 noise.mp4",
    );
    let params = json!({ "keyframe_interval": 5, "preset": "ultrafast", "crf": 1 });
    let done = job(&source, params, Order::Backward).unwrap();
    let parts = done.document["outputs"][0]["parts"].as_array().unwrap().len();
    assert!(parts > 1, "{parts} parts");
    assert_frame_exact(&done, &source, 1e-6);
}

fn refused(source: &Path, params: Value) -> String {
    match job(source, params, Order::Forward) {
        Ok(_) => panic!("{} was encoded", source.display()),
        Err(what) => what,
    }
}

#[test]
fn of_a_bad_file_the_client_is_told_what_is_wrong_with_it() {
    let clips = Clips::new();
    let quick = || json!({ "keyframe_interval": 25, "preset": "ultrafast" });
    let write = |name: &str, bytes: &[u8]| {
        fs::write(clips.path(name), bytes).unwrap();
        clips.path(name)
    };
    let right = clips.make(
        "-f lavfi -i testsrc2=s=192x108:r=25:d=4 -c:v libx264 -preset ultrafast -movflags +faststart right.mp4",
    );
    let right = fs::read(right).unwrap();

    let empty = refused(&write("empty.mp4", b""), quick());
    assert!(empty.contains("the file is empty"), "{empty}");

    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let noise = refused(&write("noise.mp4", &noise), quick());
    assert!(noise.starts_with("noise.mp4: it cannot be read as a video"), "{noise}");

    let cut = refused(&write("cut.mp4", &right[..right.len() * 2 / 3]), quick());
    assert!(cut.starts_with("cut.mp4: it is damaged or cut short"), "{cut}");

    let mut damaged = right.clone();
    let middle = damaged.len() * 2 / 3;
    (0..40).for_each(|i| damaged[middle + 11 * i] ^= 0xff);
    let damaged = refused(&write("damaged.mp4", &damaged), quick());
    assert!(damaged.contains("could be decoded: the source is damaged there"), "{damaged}");

    let sound = clips.make("-f lavfi -i sine=d=2 -c:a aac sound.m4a");
    let sound = refused(&sound, quick());
    assert_eq!(sound, "sound.m4a: it holds audio only (aac), no video stream");

    // The header's duration, an eight-byte float after its name and size, says an hour.
    let mut lying = fs::read(clips.make("-i right.mp4 -c copy lying.mkv")).unwrap();
    let at = lying.windows(3).position(|bytes| bytes == [0x44, 0x89, 0x88]).unwrap();
    lying[at + 3..at + 11].copy_from_slice(&3_600_000.0_f64.to_be_bytes());
    let lying = refused(&write("lying.mkv", &lying), quick());
    assert_eq!(
        lying,
        "lying.mkv: its header promises 3600.0 s, its streams hold 4.0 s: it is damaged or cut short"
    );

    let list = write("list.mp4", b"ffconcat version 1.0\nfile /etc/hostname\n");
    let list = refused(&list, quick());
    assert!(list.contains("its format is none that is read") || list.contains("cannot be read"), "{list}");

    let large = refused(&clips.make("-f lavfi -i testsrc2=s=64x32:r=25:d=1 small.mp4"), quick());
    assert!(large.contains("its pictures are 64 x 32: each side must be from 64 to 8192 pixels"), "{large}");
}

#[test]
fn a_cancelled_unit_ends_soon_and_leaves_nothing_behind() {
    let clips = Clips::new();
    let source =
        clips.make("-f lavfi -i testsrc2=s=1280x720:r=25:d=20 -c:v libx264 -preset ultrafast long.mp4");
    let bytes = fs::read(&source).unwrap();
    let encoder = tessera_media::Encoder::find().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let blake3 = Digest::of(&bytes).0;
    let task = Task::Survey(SurveyTask {
        source: Source { blake3, bytes: bytes.len() as u64 },
        frame_rate: None,
        codec: VideoCodec::H264,
        audio: None,
        metric: None,
    });
    let run = |cancelled: &dyn Fn() -> bool| {
        let inputs = |_: &[u8; 32]| Some(source.clone());
        tessera_media::run(&task, 0, 1, &inputs, &encoder, scratch.path(), &|_, _| {}, cancelled)
    };
    assert!(run(&|| false).is_ok());
    assert!(matches!(run(&|| true), Err(MediaError::Cancelled)));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn builds_have_one_name_each_and_it_is_the_same_every_time() {
    let encoder = tessera_media::Encoder::find().unwrap();
    assert_eq!(encoder.build(), tessera_media::Encoder::find().unwrap().build());
    assert_eq!(encoder.kernels()[0], format!("video:{}", encoder.build()));
    // libopus depends on the processor's maker, too.
    assert_eq!(encoder.kernels()[1], format!("video_opus:{}", encoder.opus_build()));
    assert_ne!(encoder.build(), encoder.opus_build());
    assert!(encoder.version().starts_with("ffmpeg version"), "{}", encoder.version());
    // Another program is another build.
    let other = tessera_media::Encoder::at(Path::new("/bin/true"), Path::new("/bin/true")).unwrap();
    assert_ne!(encoder.build(), other.build());
    assert!(!other.can_encode(VideoCodec::H264) && other.kernels().len() == 1);
}

#[test]
fn a_metric_that_the_build_lacks_is_refused_with_the_reason() {
    let encoder = tessera_media::Encoder::find().unwrap();
    let clips = Clips::new();
    let source = clips.make("-f lavfi -i testsrc2=s=128x96:r=25:d=1 -c:v ffv1 film.mkv");
    let quality = json!({ "metric": "vmaf", "target": 95, "samples": 1 });
    let params = json!({ "keyframe_interval": 25, "preset": "ultrafast", "quality": quality });
    if encoder.can_measure(tessera_protocol::video::Metric::Vmaf) {
        let done = job(&source, params, Order::Forward).unwrap();
        assert!(done.document["quality"]["score"].as_f64().unwrap() > 50.0);
    } else {
        let what = refused(&source, params);
        assert!(what.contains("has no filter that measures Vmaf"), "{what}");
    }
}

#[test]
#[ignore = "ten minutes of a core"]
fn two_minutes_of_1080p_are_frame_exact_and_the_same_twice() {
    let clips = Clips::new();
    let source = clips.make(
        "-f lavfi -i testsrc2=s=1920x1080:r=30:d=120 -f lavfi -i anoisesrc=d=120:seed=1:r=48000:a=0.3 \
         -c:v libx264 -preset ultrafast -g 250 -c:a aac long.mp4",
    );
    let params = json!({ "preset": "veryfast" });
    let done = job(&source, params.clone(), Order::Forward).unwrap();
    assert_eq!(done.document["frames"], json!(3_600));
    assert_frame_exact(&done, &source, 1e-6);
    let late = delay(&source, &done.output, 0);
    assert!(late.abs() < 48_000 / 30, "{late} samples");
    let again = job(&source, params, Order::Backward).unwrap();
    assert_eq!(done.digest, again.digest);
    println!("{} {}", done.digest, done.document);
}
