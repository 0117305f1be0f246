//! The build of FFmpeg on this machine: where it is, what it can do and which other builds give its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tessera_protocol::spec::video_kernel as kernel;
use tessera_protocol::video::{AudioCodec, Metric, VideoCodec};

use crate::confine::{Confinement, Limits};

/// Raised whenever a command line of this crate changes what comes out: agents of another recipe are of
/// another build.
const RECIPE: u32 = 1;

/// Libraries that decide a bit of what comes out: those that read, decode, filter and encode, and the
/// mathematics that rate control and audio call.
const DECISIVE: [&str; 16] = [
    "libavcodec",
    "libavfilter",
    "libavformat",
    "libavutil",
    "libswresample",
    "libswscale",
    "libpostproc",
    "libx264",
    "libSvtAv1Enc",
    "libopus",
    "libdav1d",
    "libaom",
    "libvpx",
    "libvmaf",
    "libm.",
    "libc.",
];

/// A build of FFmpeg that was found.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub(crate) ffmpeg: PathBuf,
    pub(crate) ffprobe: PathBuf,
    version: String,
    build: blake3::Hash,
    encoders: Vec<String>,
    filters: Vec<String>,
    /// The folders of its programs and of the libraries that they load.
    pub(crate) libraries: Vec<PathBuf>,
    pub(crate) confinement: Confinement,
    /// What a child may take.
    pub limits: Limits,
}

/// Why no build of FFmpeg can be used.
#[derive(Debug)]
pub enum FindError {
    /// There is no such program on the path.
    Missing(&'static str),
    /// It does not run.
    Broken(&'static str),
    /// The libraries that it loads cannot be listed, and so its build cannot be named.
    Libraries,
    /// A program or library cannot be read.
    Io(std::io::Error),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FindError::Missing(program) => {
                write!(f, "{program} is not on the path: install FFmpeg (Debian: apt-get install ffmpeg)")
            }
            FindError::Broken(program) => write!(f, "{program} does not run: install FFmpeg anew"),
            FindError::Libraries => {
                f.write_str("the libraries of ffmpeg cannot be listed with ldd, and so its build has no name")
            }
            FindError::Io(error) => write!(f, "a program or library of FFmpeg cannot be read: {error}"),
        }
    }
}

impl std::error::Error for FindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FindError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl Encoder {
    /// The build on the path. Reads its programs and libraries whole: about a tenth of a second.
    pub fn find() -> Result<Encoder, FindError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = |program: &'static str| {
            let candidates = std::env::split_paths(&path).map(|folder| folder.join(program));
            candidates.into_iter().find(|file| file.is_file()).ok_or(FindError::Missing(program))
        };
        Encoder::at(&on_path("ffmpeg")?, &on_path("ffprobe")?)
    }

    /// The build whose programs lie there.
    pub fn at(ffmpeg: &Path, ffprobe: &Path) -> Result<Encoder, FindError> {
        let [ffmpeg, ffprobe] = [ffmpeg, ffprobe].map(Path::canonicalize);
        let (ffmpeg, ffprobe) = (ffmpeg.map_err(FindError::Io)?, ffprobe.map_err(FindError::Io)?);
        let version = say(&ffmpeg, &["-version"]).ok_or(FindError::Broken("ffmpeg"))?;
        say(&ffprobe, &["-version"]).ok_or(FindError::Broken("ffprobe"))?;
        let mut libraries = libraries(&ffmpeg)?;
        libraries.extend(self::libraries(&ffprobe)?);
        let list = |what| say(&ffmpeg, &["-hide_banner", what]).ok_or(FindError::Broken("ffmpeg"));
        Ok(Encoder {
            version: version.lines().next().unwrap_or_default().to_owned(),
            build: build(&ffmpeg, &ffprobe, &libraries)?,
            encoders: second_words(&list("-encoders")?),
            filters: second_words(&list("-filters")?),
            libraries: folders(&ffmpeg, &ffprobe, &libraries),
            ffmpeg,
            ffprobe,
            confinement: Confinement::of_this_system(),
            limits: Limits::default(),
        })
    }

    /// Which build it is: 16 hex digits. Two machines whose builds have one name make the same bytes.
    pub fn build(&self) -> String {
        self.build.to_hex()[..16].to_owned()
    }

    /// Which build it is for jobs with Opus: 16 hex digits. libopus searches with the processor's approximate
    /// reciprocals, of which every maker has its own, so that the same build is several.
    pub fn opus_build(&self) -> String {
        let mut all =
            blake3::Hasher::new_derive_key("tessera 2026-11-21 build of the video encoder with Opus");
        all.update(self.build.as_bytes());
        all.update(approximations().as_bytes());
        all.finalize().to_hex()[..16].to_owned()
    }

    /// The kernels that an agent with this build offers.
    pub fn kernels(&self) -> Vec<String> {
        let opus = self.can_encode_audio(AudioCodec::Opus).then(|| kernel(&self.opus_build(), true));
        std::iter::once(kernel(&self.build(), false)).chain(opus).collect()
    }

    /// What FFmpeg says of itself, for people.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What its children are kept from.
    pub fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// Whether it has what encodes so.
    pub fn can_encode(&self, codec: VideoCodec) -> bool {
        self.has_encoder(match codec {
            VideoCodec::H264 => "libx264",
            VideoCodec::Av1 => "libsvtav1",
        })
    }

    /// Whether it has what encodes so.
    pub fn can_encode_audio(&self, codec: AudioCodec) -> bool {
        self.has_encoder(match codec {
            AudioCodec::Aac => "aac",
            AudioCodec::Opus => "libopus",
        })
    }

    /// Whether it has what measures so.
    pub fn can_measure(&self, metric: Metric) -> bool {
        let filter = match metric {
            Metric::Ssim => "ssim",
            Metric::Vmaf => "libvmaf",
        };
        self.filters.iter().any(|name| name == filter)
    }

    fn has_encoder(&self, name: &str) -> bool {
        self.encoders.iter().any(|encoder| encoder == name)
    }
}

/// What this processor takes for reciprocals and inverse roots over two octaves: it has a table of them. Other
/// architectures say exactly what theirs are.
fn approximations() -> blake3::Hash {
    let mut all = blake3::Hasher::new();
    all.update(std::env::consts::ARCH.as_bytes());
    #[cfg(target_arch = "x86_64")]
    // From 1 up to 4, finer than any table.
    for bits in (1.0_f32.to_bits()..4.0_f32.to_bits()).step_by(1 << 10) {
        // SAFETY: every processor of the architecture has SSE.
        let found = unsafe { approximate(f32::from_bits(bits)) };
        found.iter().for_each(|number| _ = all.update(&number.to_bits().to_le_bytes()));
    }
    all.finalize()
}

/// The processor's reciprocal and inverse root of a number.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse")]
fn approximate(number: f32) -> [f32; 2] {
    use std::arch::x86_64::{_mm_cvtss_f32, _mm_rcp_ss, _mm_rsqrt_ss, _mm_set_ss};
    let number = _mm_set_ss(number);
    [_mm_cvtss_f32(_mm_rcp_ss(number)), _mm_cvtss_f32(_mm_rsqrt_ss(number))]
}

/// What a program says, if it runs.
fn say(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env_clear().stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The names in FFmpeg's tables: flags, name, description.
fn second_words(table: &str) -> Vec<String> {
    table.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// Names a build: architecture, recipe, and name and content of each program and library that decides.
fn build(
    ffmpeg: &Path,
    ffprobe: &Path,
    libraries: &BTreeMap<String, PathBuf>,
) -> Result<blake3::Hash, FindError> {
    let decides = |name: &String| DECISIVE.iter().any(|prefix| name.starts_with(prefix));
    let libraries = libraries.iter().filter(|(name, _)| decides(name));
    let files = [("ffmpeg", ffmpeg), ("ffprobe", ffprobe)];
    let files = files.into_iter().chain(libraries.map(|(name, path)| (name.as_str(), path.as_path())));
    let mut all = blake3::Hasher::new_derive_key("tessera 2026-11-21 build of the video encoder");
    all.update(&RECIPE.to_le_bytes());
    all.update(std::env::consts::ARCH.as_bytes());
    for (name, path) in files {
        let mut one = blake3::Hasher::new();
        let mut file = File::open(path).map_err(FindError::Io)?;
        std::io::copy(&mut file, &mut one).map_err(FindError::Io)?;
        all.update(&(name.len() as u64).to_le_bytes());
        all.update(name.as_bytes());
        all.update(one.finalize().as_bytes());
    }
    Ok(all.finalize())
}

/// Where programs and libraries lie.
fn folders(ffmpeg: &Path, ffprobe: &Path, libraries: &BTreeMap<String, PathBuf>) -> Vec<PathBuf> {
    let files = [ffmpeg, ffprobe].into_iter().chain(libraries.values().map(PathBuf::as_path));
    let folders: BTreeSet<PathBuf> = files.filter_map(Path::parent).map(Path::to_path_buf).collect();
    folders.into_iter().collect()
}

/// The libraries that a program loads, as the loader resolves them for a child of ours.
fn libraries(program: &Path) -> Result<BTreeMap<String, PathBuf>, FindError> {
    let program = program.to_string_lossy();
    let output = Command::new("ldd").arg(&*program).env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C").output();
    let output = output.map_err(|_| FindError::Libraries)?;
    let listed = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let alone = [&*listed, &*said].iter().any(|text| text.contains("not a dynamic executable"));
        return if alone { Ok(BTreeMap::new()) } else { Err(FindError::Libraries) };
    }
    // `libx264.so.164 => /lib/x86_64-linux-gnu/libx264.so.164 (0x00007f…)`
    let resolved = listed.lines().filter_map(|line| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.split(" (").next()?.trim();
        Some((name.to_owned(), PathBuf::from(path)))
    });
    Ok(resolved.collect())
}
