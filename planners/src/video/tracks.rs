//! The audio and subtitle streams of an output.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use tessera_protocol::spec::{SubtitleChoice, VideoParams};
use tessera_protocol::video::{
    AudioCodec, AudioStream, AudioTrack, Container, Label, PART_BYTES, PARTS_MAX, SubtitleStream,
    SubtitleTrack, Survey,
};

/// Where no rate is asked for. *Units*: 1,000 bits a second to a channel.
const KBPS_PER_CHANNEL: u32 = 64;
/// Rates that every AAC player takes. *Units*: samples a second.
const AAC_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Subtitles made of pictures that Matroska holds.
const PICTURES: [&str; 3] = ["hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"];

/// The audio streams of an output.
pub(super) fn audio(params: &VideoParams, survey: &Survey) -> Vec<AudioTrack> {
    let Some(codec) = super::audio_codec(params) else { return Vec::new() };
    survey.audio.iter().map(|stream| track(params, stream, codec)).collect()
}

fn track(params: &VideoParams, stream: &AudioStream, codec: AudioCodec) -> AudioTrack {
    // Layouts that both encoders and all players know; others become stereo.
    let channels = if [1, 2, 6, 8].contains(&stream.channels) { stream.channels } else { 2 };
    let channels = params.audio.channels.map_or(channels, |most| channels.min(most));
    let sample_rate = match codec {
        AudioCodec::Aac if AAC_RATES.contains(&stream.sample_rate) => stream.sample_rate,
        AudioCodec::Aac | AudioCodec::Opus => 48_000,
    };
    let kbps = params.audio.bitrate_kbps.unwrap_or(KBPS_PER_CHANNEL * channels);
    let seconds = stream.end_us.max(0).unsigned_abs() / 1_000_000 + 1;
    // A third more than the rate says, and room for tables.
    let bytes = seconds * u64::from(kbps) * 1_000 / 6 + (1 << 20);
    let parts = bytes.div_ceil(PART_BYTES).min(u64::from(PARTS_MAX)) as u32;
    AudioTrack { stream: stream.stream, codec, kbps, channels, sample_rate, parts }
}

/// The subtitle streams of an output, or which one it cannot hold.
pub(super) fn subtitles(params: &VideoParams, survey: &Survey) -> Result<Vec<SubtitleTrack>, String> {
    if params.subtitles == SubtitleChoice::None {
        return Ok(Vec::new());
    }
    survey.subtitles.iter().map(|stream| subtitle(params, stream)).collect()
}

fn subtitle(params: &VideoParams, stream: &SubtitleStream) -> Result<SubtitleTrack, String> {
    let codec = stream.codec.as_str();
    let to_text = match params.container {
        Container::Mp4 => stream.text.then_some(codec != "subrip"),
        Container::Mkv if PICTURES.contains(&codec) => Some(false),
        Container::Mkv => stream.text.then_some(!["subrip", "ass"].contains(&codec)),
    };
    to_text.map(|to_text| SubtitleTrack { stream: stream.stream, to_text }).ok_or_else(|| {
        let other = match params.container {
            Container::Mp4 if PICTURES.contains(&codec) => {
                "choose container = \"mkv\" or subtitles = \"none\""
            }
            Container::Mp4 | Container::Mkv => "choose subtitles = \"none\"",
        };
        format!(
            "{}: its subtitle stream {} ({codec}) cannot be carried: {other}",
            params.input, stream.stream
        )
    })
}

/// What players are told of the audio streams, then of the subtitle streams.
pub(super) fn labels(params: &VideoParams, survey: &Survey) -> Vec<Label> {
    let audio = survey.audio.iter().filter(|_| super::audio_codec(params).is_some()).map(|stream| Label {
        language: stream.language.clone(),
        default: stream.default,
        forced: false,
    });
    let carried = params.subtitles != SubtitleChoice::None;
    let subtitles = survey.subtitles.iter().filter(|_| carried).map(|stream| Label {
        language: stream.language.clone(),
        default: stream.default,
        forced: stream.forced,
    });
    audio.chain(subtitles).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    use tessera_protocol::spec::{AudioChoice, AudioSpec};

    fn params(container: Container) -> VideoParams {
        VideoParams {
            input: "film.mkv".to_string(),
            encoder: "0123456789abcdef".to_string(),
            codec: Default::default(),
            container,
            preset: None,
            crf: None,
            bitrate_kbps: None,
            quality: None,
            bit_depth: 8,
            width: None,
            height: None,
            frame_rate: None,
            keyframe_interval: 240,
            segment_frames: None,
            audio: AudioSpec::default(),
            subtitles: SubtitleChoice::All,
        }
    }

    fn stream(codec: &str, text: bool) -> SubtitleStream {
        let codec = codec.to_string();
        SubtitleStream { stream: 3, codec, text, language: "und".to_string(), default: false, forced: false }
    }

    #[test]
    fn subtitles_are_copied_where_the_output_holds_them_and_text_is_rewritten() {
        let to_text = |container, codec, text| {
            subtitle(&params(container), &stream(codec, text)).map(|track| track.to_text)
        };
        assert_eq!(to_text(Container::Mkv, "hdmv_pgs_subtitle", false), Ok(false));
        assert_eq!(to_text(Container::Mkv, "mov_text", true), Ok(true));
        assert_eq!(to_text(Container::Mp4, "ass", true), Ok(true));
        let refused = to_text(Container::Mp4, "hdmv_pgs_subtitle", false).unwrap_err();
        assert_eq!(
            refused,
            "film.mkv: its subtitle stream 3 (hdmv_pgs_subtitle) cannot be carried: \
             choose container = \"mkv\" or subtitles = \"none\""
        );
        assert!(
            to_text(Container::Mkv, "eia_608", false).unwrap_err().ends_with("choose subtitles = \"none\"")
        );
    }

    #[test]
    fn two_hours_of_sound_are_returned_in_parts_that_products_hold() {
        let mut source = AudioStream {
            stream: 1,
            codec: "flac".to_string(),
            channels: 6,
            sample_rate: 96_000,
            language: "und".to_string(),
            default: true,
            start_us: 0,
            end_us: 7_200_000_000,
        };
        let long = track(&params(Container::Mp4), &source, AudioCodec::Aac);
        assert_eq!((long.channels, long.sample_rate, long.kbps), (6, 48_000, 384));
        // 346 MB at that rate.
        assert!(u64::from(long.parts) * PART_BYTES > 400_000_000);
        source.end_us = 60_000_000;
        let mut mixed = params(Container::Mp4);
        mixed.audio = AudioSpec { codec: AudioChoice::Opus, bitrate_kbps: None, channels: Some(2) };
        let short = track(&mixed, &source, AudioCodec::Opus);
        assert_eq!((short.channels, short.kbps, short.parts), (2, 128, 1));
    }
}
