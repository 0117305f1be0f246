//! The cache: input files on disk, each under its digest, kept from one job and one start to the next.
//!
//! Owns the folder `inputs` of the data directory. A file appears there under its digest only once it was
//! found to be it, and is compared again when it is read back. Which files stay is the machine's to decide; at a start,
//! those that were used last stay, as far as there is room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

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
    blake3: Digest,
    bytes: OnceLock<Option<Bytes>>,
    used: OnceLock<()>,
}

/// A file that is coming.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: File,
    part: PathBuf,
    whole: PathBuf,
    blake3: Digest,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cached {
    fn new(path: PathBuf, blake3: Digest) -> Cached {
        Cached { path, blake3, bytes: OnceLock::new(), used: OnceLock::new() }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.note_use();
        &self.path
    }

    /// Its bytes, read once for all shards that want them; nothing where it cannot be read, or holds other bytes now.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        self.note_use();
        let read = || {
            let shown = self.path.display();
            let bytes = fs::read(&self.path)
                .inspect_err(|error| tracing::error!("cannot read {shown}: {error}"))
                .ok()?;
            let found = Digest::of(&bytes);
            if found != self.blake3 {
                tracing::error!("{shown} was damaged on disk: its digest is {found}; remove it");
                return None;
            }
            Some(Bytes::from(bytes))
        };
        self.bytes.get_or_init(read).clone()
    }

    /// The next start keeps what was used last: the time of a file says when.
    fn note_use(&self) {
        self.used.get_or_init(|| {
            let touched = File::options()
                .append(true)
                .open(&self.path)
                .and_then(|file| file.set_modified(SystemTime::now()));
            if let Err(error) = touched {
                tracing::debug!("cannot note the use of {}: {error}", self.path.display());
            }
        });
    }
}

impl Cache {
    /// Opens the folder of a data directory, and gives the files that are there whole and fit into so many bytes, the
    /// one that was used longest ago first. Others are removed.
    pub(crate) fn open(data: &Path, bytes_max: u64) -> io::Result<(Cache, Vec<InputFile>)> {
        let folder = data.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            found.push((entry.metadata()?.modified()?, entry.metadata()?.len(), entry.path()));
        }
        found.sort_unstable();
        let (mut kept, mut room) = (Vec::new(), bytes_max);
        for (_, bytes, path) in found.into_iter().rev() {
            // What does not fit need not be read.
            match if bytes <= room { whole(&path) } else { None } {
                Some(input) => {
                    room -= input.bytes;
                    kept.push(input);
                }
                None => fs::remove_file(&path)?,
            }
        }
        kept.reverse();
        Ok((Cache { folder }, kept))
    }

    /// A file that is there.
    pub(crate) fn get(&self, input: &InputFile) -> Cached {
        Cached::new(self.path(input.blake3), input.blake3)
    }

    /// Begins a file.
    pub(crate) fn begin(&self, input: &InputFile) -> io::Result<Incoming> {
        let whole = self.path(input.blake3);
        let part = self.folder.join(format!("{}{PART}", input.blake3));
        Ok(Incoming { file: File::create(&part)?, part, whole, blake3: input.blake3 })
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
        Ok(Arc::new(Cached::new(self.whole, self.blake3)))
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
    use std::time::Duration;

    fn input(bytes: &[u8]) -> InputFile {
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64, form: Form::File }
    }

    #[test]
    fn a_file_is_there_after_a_restart_and_what_was_cut_off_or_damaged_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        assert!(kept.is_empty());
        for (bytes, whole) in [(&b"one"[..], true), (b"two", true), (b"three", false)] {
            let mut incoming = cache.begin(&input(bytes)).expect("a file");
            incoming.push(bytes).expect("room");
            if whole {
                assert_eq!(incoming.finish().expect("whole").bytes().as_deref(), Some(bytes));
            }
        }
        fs::write(cache.get(&input(b"two")).path(), b"owt").expect("damage");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        assert_eq!(kept, [input(b"one")]);
        assert_eq!(cache.get(&kept[0]).bytes().as_deref(), Some(&b"one"[..]));
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count(), 1);
        cache.remove(&kept[0]);
        assert_eq!(Cache::open(folder.path(), u64::MAX).expect("a cache").1, []);
    }

    #[test]
    fn a_start_keeps_what_was_used_last_as_far_as_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, _) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        let files = [[1; 100], [2; 100], [3; 100]].map(|bytes| bytes.to_vec());
        for bytes in &files {
            let mut incoming = cache.begin(&input(bytes)).expect("a file");
            incoming.push(bytes).expect("room");
            incoming.finish().expect("whole");
        }
        for (bytes, age_s) in files.iter().zip([300, 200, 100]) {
            let path = folder.path().join(FOLDER).join(Digest::of(bytes).to_string());
            let file = File::options().append(true).open(path).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("a time");
        }
        let kept = |bytes_max| Cache::open(folder.path(), bytes_max).expect("a cache").1;
        let [first, second, third] = files.each_ref().map(|bytes| input(bytes));
        assert_eq!(kept(300), [first, second, third], "the one used longest ago first");
        assert_eq!(cache.get(&first).bytes().as_deref(), Some(&files[0][..]));
        assert_eq!(kept(250), [third, first], "it was used a moment ago");
        assert_eq!(kept(0), []);
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count(), 0);
    }

    #[test]
    fn a_file_that_was_damaged_since_the_start_is_not_read_as_if_it_were_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, _) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        let mut incoming = cache.begin(&input(b"one")).expect("a file");
        incoming.push(b"one").expect("room");
        let cached = incoming.finish().expect("whole");
        fs::write(folder.path().join(FOLDER).join(input(b"one").blake3.to_string()), b"eno").expect("damage");
        assert_eq!(cached.bytes(), None);
    }
}
