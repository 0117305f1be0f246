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
