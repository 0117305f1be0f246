//! What the parameters of the video workload may be.

use alloc::format;
use alloc::string::ToString;

use super::Findings;
use crate::spec::{AudioChoice, H264_PRESETS, Input, Metric, Preset, QualitySpec, VideoCodec, VideoParams};
use crate::video;

impl Findings {
    pub(super) fn video(&mut self, params: &VideoParams, inputs: &[Input]) {
        match inputs.iter().find(|input| input.name == params.input) {
            None => {
                let allowed = "must be the name of an entry of `inputs`";
                self.add("params.input", &format!("{:?}", params.input), allowed);
            }
            Some(input) if input.bytes == 0 => {
                self.add("params.input", &format!("{:?}", params.input), "the file is empty");
            }
            Some(_) => {}
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if params.encoder.len() != 16 || !params.encoder.chars().all(hex) {
            let allowed = "must be the 16 hex digits by which agents name their build of the encoder";
            self.add("params.encoder", &format!("{:?}", params.encoder), allowed);
        }
        self.preset(params);
        self.rate_control(params);
        if ![8, 10].contains(&params.bit_depth) {
            self.add("params.bit_depth", &params.bit_depth.to_string(), "must be 8 or 10");
        }
        self.side("params.width", params.width);
        self.side("params.height", params.height);
        self.frame_rate(params);
        self.segments(params);
        self.audio(params);
    }

    fn preset(&mut self, params: &VideoParams) {
        match (params.codec, &params.preset) {
            (_, None) => {}
            (VideoCodec::H264, Some(Preset::Name(name))) if H264_PRESETS.contains(&name.as_str()) => {}
            (VideoCodec::Av1, Some(Preset::Level(level))) if *level <= video::AV1_PRESET_MAX => {}
            (codec, Some(preset)) => {
                let value = match preset {
                    Preset::Level(level) => level.to_string(),
                    Preset::Name(name) => format!("{name:?}"),
                };
                let allowed = match codec {
                    VideoCodec::H264 => format!("must be one of {}", H264_PRESETS.join(", ")),
                    VideoCodec::Av1 => format!("must be from 0 to {}", video::AV1_PRESET_MAX),
                };
                self.add("params.preset", &value, &allowed);
            }
        }
    }

    fn rate_control(&mut self, params: &VideoParams) {
        let given = [params.crf.is_some(), params.bitrate_kbps.is_some(), params.quality.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            self.add("params", "", "must have at most one of `crf`, `bitrate_kbps` and `quality`");
        }
        let crf_max = u64::from(video::crf_max(params.codec));
        if let Some(crf) = params.crf {
            self.integer("params.crf", u64::from(crf), 1, crf_max);
        }
        if let Some(kbps) = params.bitrate_kbps {
            self.integer("params.bitrate_kbps", u64::from(kbps), 50, 200_000);
        }
        if let Some(quality) = &params.quality {
            self.quality(quality, params.codec);
        }
    }

    fn quality(&mut self, quality: &QualitySpec, codec: VideoCodec) {
        let most = match quality.metric {
            Metric::Ssim => 1.0,
            Metric::Vmaf => 100.0,
        };
        self.number("params.quality.target", quality.target, 0.0, most);
        self.integer("params.quality.samples", u64::from(quality.samples), 1, 16);
        let crf_max = u64::from(video::crf_max(codec));
        let [least, worst] = video::crf_range(quality, codec);
        self.integer("params.quality.crf_max", u64::from(worst), 1, crf_max);
        self.integer("params.quality.crf_min", u64::from(least), 1, u64::from(worst));
    }

    fn side(&mut self, field: &str, side: Option<u32>) {
        let Some(side) = side else { return };
        self.integer(field, u64::from(side), u64::from(video::SIDE_MIN), u64::from(video::SIDE_MAX));
        if !side.is_multiple_of(2) {
            self.add(field, &side.to_string(), "must be even: colour has half the pixels");
        }
    }

    fn frame_rate(&mut self, params: &VideoParams) {
        let Some(text) = &params.frame_rate else { return };
        let fits = params.rate().is_some_and(video::is_frame_rate);
        if !fits {
            let allowed = "must be from 1 to 240 frames a second, as \"25\" or \"30000/1001\"";
            self.add("params.frame_rate", &format!("{text:?}"), allowed);
        }
    }

    fn segments(&mut self, params: &VideoParams) {
        self.integer("params.keyframe_interval", u64::from(params.keyframe_interval), 2, 1_000);
        let frames = params.frames_of_segment();
        let most = u64::from(video::SEGMENT_FRAMES_MAX);
        self.integer("params.segment_frames", u64::from(frames), u64::from(params.keyframe_interval), most);
        if params.keyframe_interval > 0 && !frames.is_multiple_of(params.keyframe_interval) {
            let allowed = format!("must be a multiple of keyframe_interval, {}", params.keyframe_interval);
            self.add("params.segment_frames", &frames.to_string(), &allowed);
        }
    }

    fn audio(&mut self, params: &VideoParams) {
        let audio = &params.audio;
        if audio.codec == AudioChoice::None && (audio.bitrate_kbps.is_some() || audio.channels.is_some()) {
            self.add(
                "params.audio",
                "",
                "must have neither bitrate_kbps nor channels where there is no audio",
            );
        }
        if let Some(kbps) = audio.bitrate_kbps {
            self.integer("params.audio.bitrate_kbps", u64::from(kbps), 8, 512);
        }
        if let Some(channels) = audio.channels {
            self.integer("params.audio.channels", u64::from(channels), 1, 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use serde_json::{Value, json};

    use crate::spec::JobSpec;

    fn errors(change: impl FnOnce(&mut Value)) -> String {
        let mut job = json!({
            "name": "film", "workload": "video",
            "params": { "input": "film.mkv", "encoder": "0123456789abcdef" },
            "inputs": [{ "name": "film.mkv", "bytes": 10, "blake3": crate::id::Digest([7; 32]) }],
        });
        change(&mut job);
        match JobSpec::from_value(&job).and_then(JobSpec::check) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_job_that_names_its_file_and_its_build_is_right() {
        assert_eq!(errors(|_| {}), "");
        let all = errors(|job| {
            job["params"] = json!({
                "input": "film.mkv", "encoder": "0123456789abcdef", "codec": "av1", "container": "mkv", "preset": 8,
                "quality": { "metric": "vmaf", "target": 94.5 }, "bit_depth": 10, "width": 1280, "height": 720,
                "frame_rate": "30000/1001", "keyframe_interval": 120, "segment_frames": 240,
                "audio": { "codec": "opus", "bitrate_kbps": 96, "channels": 2 }, "subtitles": "none",
            });
        });
        assert_eq!(all, "");
    }

    #[test]
    fn jobs_with_opus_go_to_agents_of_a_kernel_of_its_own() {
        let kernel = |audio: Value| {
            let job = json!({
                "name": "film", "workload": "video",
                "params": { "input": "film.mkv", "encoder": "0123456789abcdef", "audio": audio },
            });
            JobSpec::from_value(&job).unwrap().kernel()
        };
        assert_eq!(kernel(json!({})), "video:0123456789abcdef");
        assert_eq!(kernel(json!({ "codec": "opus" })), "video_opus:0123456789abcdef");
    }

    #[test]
    fn a_wrong_field_is_named_with_what_is_allowed() {
        let cases: [(&str, &dyn Fn(&mut Value)); 13] = [
            ("params.input = \"other\": must be the name of an entry of `inputs`", &|job| {
                job["params"]["input"] = json!("other")
            }),
            ("params.input = \"film.mkv\": the file is empty", &|job| job["inputs"][0]["bytes"] = json!(0)),
            ("params.encoder = \"latest\": must be the 16 hex digits", &|job| {
                job["params"]["encoder"] = json!("latest")
            }),
            ("params.preset = \"placebo\": must be one of ultrafast", &|job| {
                job["params"]["preset"] = json!("placebo")
            }),
            ("params.preset = 5: must be one of ultrafast", &|job| job["params"]["preset"] = json!(5)),
            ("params: must have at most one of `crf`", &|job| {
                job["params"]["crf"] = json!(20);
                job["params"]["bitrate_kbps"] = json!(2_000);
            }),
            ("params.crf = 52: must be from 1 to 51", &|job| job["params"]["crf"] = json!(52)),
            ("params.quality.target = 95: must be greater than 0 and at most 1", &|job| {
                job["params"]["quality"] = json!({ "metric": "ssim", "target": 95 })
            }),
            ("params.width = 321: must be even", &|job| job["params"]["width"] = json!(321)),
            ("params.frame_rate = \"fast\": must be from 1 to 240 frames a second", &|job| {
                job["params"]["frame_rate"] = json!("fast")
            }),
            ("params.frame_rate = \"1/0\": must be from 1 to 240", &|job| {
                job["params"]["frame_rate"] = json!("1/0")
            }),
            ("params.segment_frames = 250: must be a multiple of keyframe_interval, 240", &|job| {
                job["params"]["segment_frames"] = json!(250)
            }),
            ("params.filter: unknown field `filter`", &|job| job["params"]["filter"] = json!("movie=/etc/x")),
        ];
        for (expected, change) in cases {
            let message = errors(change);
            assert!(message.starts_with(expected), "expected {expected:?}, got {message:?}");
        }
    }
}
