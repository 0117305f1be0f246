//! The cache: input files on disk, each under its digest, kept from one job and one start to the next.
//!
//! Owns the folder `inputs` of the data directory. A file appears there under its digest only once it was
//! found to be it. Which files stay is the machine's to decide.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tessera_agent_core::{Form, InputFile};
use tessera_protocol::id::{Digest, parse_hex};

const FOLDER: &str = "inputs";
/// What a file that is not whole is called after.
const PART: &str = ".part";

/// A whole file.
#[derive(Debug)]
pub(crate) struct Cached {
    path: PathBuf,
    bytes: OnceLock<Option<Bytes>>,
}

/// A file that is coming.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: File,
    part: PathBuf,
    whole: PathBuf,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cached {
    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes, read once for all shards that want them; nothing where it cannot be read.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        let read = || {
            fs::read(&self.path)
                .inspect_err(|error| tracing::error!("cannot read {}: {error}", self.path.display()))
                .ok()
                .map(Bytes::from)
        };
        self.bytes.get_or_init(read).clone()
    }
}

impl Cache {
    /// Opens the folder of a data directory, and gives the files that are there whole. Others are removed.
    pub(crate) fn open(data: &Path) -> io::Result<(Cache, Vec<InputFile>)> {
        let folder = data.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut kept = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match whole(&path) {
                Some(input) => kept.push(input),
                None => fs::remove_file(&path)?,
            }
        }
        kept.sort_unstable();
        Ok((Cache { folder }, kept))
    }

    /// A file that is there.
    pub(crate) fn get(&self, input: &InputFile) -> Cached {
        Cached { path: self.path(input.blake3), bytes: OnceLock::new() }
    }

    /// Begins a file.
    pub(crate) fn begin(&self, input: &InputFile) -> io::Result<Incoming> {
        let whole = self.path(input.blake3);
        let part = self.folder.join(format!("{}{PART}", input.blake3));
        Ok(Incoming { file: File::create(&part)?, part, whole })
    }

    /// Removes a file, or what came of it.
    pub(crate) fn remove(&self, input: &InputFile) {
        let part = self.folder.join(format!("{}{PART}", input.blake3));
        for path in [self.path(input.blake3), part] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    fn path(&self, blake3: Digest) -> PathBuf {
        self.folder.join(blake3.to_string())
    }
}

impl Incoming {
    /// Adds a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)
    }

    /// The file is whole and right.
    pub(crate) fn finish(self) -> io::Result<Arc<Cached>> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.whole)?;
        Ok(Arc::new(Cached { path: self.whole, bytes: OnceLock::new() }))
    }
}

/// The input that a file is, if its bytes are what its name says.
fn whole(path: &Path) -> Option<InputFile> {
    let name = path.file_name()?.to_str()?;
    let blake3 = Digest(parse_hex(name)?);
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut File::open(path).ok()?, &mut hasher).ok()?;
    let is_it = *hasher.finalize().as_bytes() == blake3.0;
    is_it.then_some(InputFile { blake3, bytes, form: Form::File })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> InputFile {
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64, form: Form::File }
    }

    #[test]
    fn a_file_is_there_after_a_restart_and_what_was_cut_off_or_damaged_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, kept) = Cache::open(folder.path()).expect("a cache");
        assert!(kept.is_empty());
        for (bytes, whole) in [(&b"one"[..], true), (b"two", true), (b"three", false)] {
            let mut incoming = cache.begin(&input(bytes)).expect("a file");
            incoming.push(bytes).expect("room");
            if whole {
                assert_eq!(incoming.finish().expect("whole").bytes().as_deref(), Some(bytes));
            }
        }
        fs::write(cache.get(&input(b"two")).path(), b"owt").expect("damage");
        let (cache, kept) = Cache::open(folder.path()).expect("a cache");
        assert_eq!(kept, [input(b"one")]);
        assert_eq!(cache.get(&kept[0]).bytes().as_deref(), Some(&b"one"[..]));
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count(), 1);
        cache.remove(&kept[0]);
        assert_eq!(Cache::open(folder.path()).expect("a cache").1, []);
    }
}
