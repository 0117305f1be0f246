//! The scratch directory of one unit, and FFmpeg's programs run in it.
//!
//! Children see plain names there, whatever the paths of this machine are: the source is a link called
//! `source`. The directory is removed when the unit ends.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tessera_protocol::product::ProductView;
use tessera_protocol::video::{Source, Timeline};

use crate::child::{Ended, Order};
use crate::{Encoder, MediaError, Setting};

/// Wrappings that sources may have; no playlist, device or script, which would open other files.
pub(crate) const FORMATS: &str =
    "mov,matroska,mpegts,mpeg,avi,flv,asf,ogg,nut,ivf,mxf,gxf,dv,wav,mp3,aac,flac";

/// How the source and what was made of it are called in the directory.
pub(crate) const SOURCE: &str = "file:source";

/// A unit's directory and what it may use.
pub(crate) struct Room<'a> {
    pub(crate) setting: &'a Setting<'a>,
    folder: TempDir,
    /// Where the source really is.
    source: OnceCell<PathBuf>,
}

impl<'a> Room<'a> {
    /// An empty directory in the unit's scratch.
    pub(crate) fn new(setting: &'a Setting<'a>) -> Result<Room<'a>, MediaError> {
        fs::create_dir_all(setting.scratch)?;
        let scratch = setting.scratch.canonicalize()?;
        let folder = tempfile::Builder::new().prefix("video-").tempdir_in(scratch)?;
        Ok(Room { setting, folder, source: OnceCell::new() })
    }

    pub(crate) fn encoder(&self) -> &'a Encoder {
        self.setting.encoder
    }

    /// Where a file of that name is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts an input of the job there as `source`.
    pub(crate) fn take_source(&self, source: &Source) -> Result<(), MediaError> {
        let path = self.input(source)?.canonicalize()?;
        let path = self.source.get_or_init(|| path);
        std::os::unix::fs::symlink(path, self.path("source"))?;
        Ok(())
    }

    /// Reads the time line of a survey's product.
    pub(crate) fn timeline(&self, survey: &Source) -> Result<Timeline, MediaError> {
        let wrong = || MediaError::Input { blake3: survey.blake3 };
        let bytes = fs::read(self.input(survey)?)?;
        let view = ProductView::decode(&bytes).map_err(|_| wrong())?;
        Timeline::decode(view.file("timeline").ok_or_else(wrong)?).map_err(|_| wrong())
    }

    /// Adds a file of a product to a file in the directory.
    pub(crate) fn take_file(&self, product: &Source, file: &str, name: &str) -> Result<(), MediaError> {
        let bytes = fs::read(self.input(product)?)?;
        let view = ProductView::decode(&bytes).map_err(|_| MediaError::Input { blake3: product.blake3 })?;
        let found = view.file(file).ok_or(MediaError::Input { blake3: product.blake3 })?;
        let mut open = File::options();
        std::io::Write::write_all(&mut open.create(true).append(true).open(self.path(name))?, found)?;
        Ok(())
    }

    /// Where an input lies, as long as it should be.
    pub(crate) fn input(&self, source: &Source) -> Result<PathBuf, MediaError> {
        let missing = MediaError::Input { blake3: source.blake3 };
        match (self.setting.inputs)(&source.blake3) {
            Some(path) if fs::metadata(&path)?.len() == source.bytes => Ok(path),
            _ => Err(missing),
        }
    }

    /// Runs `ffmpeg` in the directory, telling progress of the frames done out of so many.
    pub(crate) fn ffmpeg(&self, arguments: &[OsString], frames: u64) -> Result<Ended, MediaError> {
        let mut all = words("-hide_banner -nostdin -nostats -loglevel error -progress pipe:1 -y");
        all.extend_from_slice(arguments);
        let mut line = |line: &str| {
            if let Some(done) = line.strip_prefix("frame=").and_then(|text| text.trim().parse().ok()) {
                (self.setting.progress)(frames.min(done), frames);
            }
        };
        self.order(&self.encoder().ffmpeg).run(&all, &mut line, self.setting.cancelled)
    }

    /// Runs `ffmpeg` in the directory, reading the lines that it writes.
    pub(crate) fn ffmpeg_lines(
        &self,
        arguments: &[OsString],
        line: &mut dyn FnMut(&str),
    ) -> Result<Ended, MediaError> {
        let mut all = words("-hide_banner -nostdin -nostats -loglevel error -y");
        all.extend_from_slice(arguments);
        self.order(&self.encoder().ffmpeg).run(&all, line, self.setting.cancelled)
    }

    /// Runs `ffprobe` in the directory, reading the lines that it writes.
    pub(crate) fn ffprobe(&self, arguments: &str, line: &mut dyn FnMut(&str)) -> Result<Ended, MediaError> {
        let mut all = words("-hide_banner -loglevel error -protocol_whitelist file -format_whitelist");
        all.push(FORMATS.into());
        all.extend(words(arguments));
        self.order(&self.encoder().ffprobe).run(&all, line, self.setting.cancelled)
    }

    fn order<'b>(&'b self, program: &'b Path) -> Order<'b> {
        let encoder = self.encoder();
        Order {
            program,
            folder: self.folder.path(),
            reads: self.source.get().map(PathBuf::as_path),
            libraries: &encoder.libraries,
            confinement: encoder.confinement,
            limits: encoder.limits,
        }
    }
}

/// Arguments without spaces in them.
pub(crate) fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// What an ended child that did not succeed means where the source cannot be the reason.
pub(crate) fn must_succeed(ended: Ended) -> Result<(), MediaError> {
    if ended.success { Ok(()) } else { Err(MediaError::Failed { said: ended.said }) }
}

/// Whether a child's errors speak of this machine and not of the source.
pub(crate) fn blames_machine(said: &str) -> bool {
    ["No space left", "Cannot allocate memory", "Resource temporarily unavailable", "Too many open files"]
        .iter()
        .any(|words| said.contains(words))
}
