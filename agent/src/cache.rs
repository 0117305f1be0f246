//! The cache: input files on disk, each under its digest, kept from one job and one start to the next.
//!
//! Owns the folder `inputs` of the data directory. A file appears there under its digest only once it was
//! found to be it. It is never in memory: runs of it are read where it lies, and compared with the checksums that were
//! taken when its digest was. Which files stay is the machine's to decide; at a start, those that were used last stay,
//! as far as there is room.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tessera_agent_core::InputFile;
use tessera_kernels::runs::{Runs, Unreadable};
use tessera_protocol::id::{Digest, parse_hex};

use crate::leaves::{LEAF_BYTES, Leaves, Taking};

const FOLDER: &str = "inputs";
/// What a file that is not whole is called after.
const PART: &str = ".part";
/// Runs that lie within so many leaves are read with them at once. *Units*: bytes.
const SHORT_BYTES: usize = 4 * LEAF_BYTES;
/// Read at once where all of a file is. *Units*: bytes.
const PIECE_BYTES: usize = 1 << 20;

/// A whole file.
#[derive(Debug)]
pub(crate) struct Cached {
    path: PathBuf,
    bytes: u64,
    leaves: Leaves,
    open: OnceLock<Option<File>>,
    used: OnceLock<()>,
}

/// A file that is coming.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: File,
    part: PathBuf,
    whole: PathBuf,
    bytes: u64,
    leaves: Taking,
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cached {
    fn new(path: PathBuf, bytes: u64, leaves: Leaves) -> Cached {
        Cached { path, bytes, leaves, open: OnceLock::new(), used: OnceLock::new() }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.note_use();
        &self.path
    }

    /// The file, opened for the first run and then for all.
    fn file(&self) -> Result<&File, Unreadable> {
        let open = || {
            self.note_use();
            File::open(&self.path)
                .inspect_err(|error| tracing::error!("cannot open {}: {error}", self.path.display()))
                .ok()
        };
        self.open.get_or_init(open).as_ref().ok_or(Unreadable)
    }

    /// Fills whole leaves from one on; the file's last may be shorter.
    fn read_leaves(&self, first: usize, into: &mut [u8]) -> Result<(), Unreadable> {
        let shown = self.path.display();
        read_at(self.file()?, into, (first * LEAF_BYTES) as u64).map_err(|error| {
            tracing::error!("cannot read {shown}: {error}");
            Unreadable
        })?;
        if self.leaves.hold(first, into) {
            return Ok(());
        }
        tracing::error!(
            "{shown} was damaged on disk: stop the agent, look after the disk, and start it again"
        );
        Err(Unreadable)
    }

    /// A part of one leaf.
    fn read_within(&self, offset: usize, into: &mut [u8]) -> Result<(), Unreadable> {
        let (first, begin) = (offset / LEAF_BYTES, offset / LEAF_BYTES * LEAF_BYTES);
        let mut leaves = [0; SHORT_BYTES];
        let end = (offset + into.len()).next_multiple_of(LEAF_BYTES).min(self.bytes as usize);
        let leaves = &mut leaves[..end - begin];
        self.read_leaves(first, leaves)?;
        into.copy_from_slice(&leaves[offset - begin..][..into.len()]);
        Ok(())
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

impl Runs for Cached {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Unreadable> {
        let begin = usize::try_from(offset).map_err(|_| Unreadable)?;
        let end = begin.checked_add(into.len()).filter(|end| *end as u64 <= self.bytes).ok_or(Unreadable)?;
        if end.next_multiple_of(LEAF_BYTES) - begin / LEAF_BYTES * LEAF_BYTES <= SHORT_BYTES {
            return self.read_within(begin, into);
        }
        // Whole leaves go where they are wanted; what is wanted of the first and last is copied there.
        let head = begin.next_multiple_of(LEAF_BYTES) - begin;
        let tail = if end as u64 == self.bytes { 0 } else { end % LEAF_BYTES };
        let (into, last) = into.split_at_mut(into.len() - tail);
        let (first, middle) = into.split_at_mut(head);
        if head > 0 {
            self.read_within(begin, first)?;
        }
        if tail > 0 {
            self.read_within(end - tail, last)?;
        }
        self.read_leaves((begin + head) / LEAF_BYTES, middle)
    }
}

/// Fills `into` from a place in a file, whoever else reads it.
#[cfg(unix)]
fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, offset)
}

/// As above.
#[cfg(windows)]
fn read_at(file: &File, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                offset += read as u64;
                into = &mut into[read..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A file that a former start left, with its name.
pub(crate) type Kept = (InputFile, Arc<Cached>);

impl Cache {
    /// Opens the folder of a data directory, and gives the files that are there whole and fit into so many bytes, the
    /// one that was used longest ago first. Others are removed.
    pub(crate) fn open(data: &Path, bytes_max: u64) -> io::Result<(Cache, Vec<Kept>)> {
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
                Some(one) => {
                    room -= one.0.bytes;
                    kept.push(one);
                }
                None => fs::remove_file(&path)?,
            }
        }
        kept.reverse();
        Ok((Cache { folder }, kept))
    }

    /// Begins a file.
    pub(crate) fn begin(&self, input: &InputFile) -> io::Result<Incoming> {
        let whole = self.path(input.blake3);
        let part = self.folder.join(format!("{}{PART}", input.blake3));
        let file = File::create(&part)?;
        Ok(Incoming { file, part, whole, bytes: input.bytes, leaves: Taking::default() })
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
        self.leaves.push(piece);
        self.file.write_all(piece)
    }

    /// The file is whole and right.
    pub(crate) fn finish(self) -> io::Result<Arc<Cached>> {
        self.file.sync_all()?;
        fs::rename(&self.part, &self.whole)?;
        Ok(Arc::new(Cached::new(self.whole, self.bytes, self.leaves.finish())))
    }
}

/// The input that a file is, if its bytes are what its name says.
fn whole(path: &Path) -> Option<Kept> {
    let name = path.file_name()?.to_str()?;
    let blake3 = Digest(parse_hex(name)?);
    let (mut hasher, mut leaves, mut bytes) = (blake3::Hasher::new(), Taking::default(), 0);
    let (mut file, mut piece) = (File::open(path).ok()?, vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&piece[..read]);
                leaves.push(&piece[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    let is_it = *hasher.finalize().as_bytes() == blake3.0;
    let cached = || Arc::new(Cached::new(path.to_owned(), bytes, leaves.finish()));
    is_it.then(|| (InputFile { blake3, bytes }, cached()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn input(bytes: &[u8]) -> InputFile {
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64 }
    }

    fn store(cache: &Cache, bytes: &[u8]) -> Arc<Cached> {
        let mut incoming = cache.begin(&input(bytes)).expect("a file");
        bytes.chunks(1_000).for_each(|piece| incoming.push(piece).expect("room"));
        incoming.finish().expect("whole")
    }

    fn all(cached: &Cached) -> Result<Vec<u8>, Unreadable> {
        tessera_kernels::runs::some_of(cached, 0, u64::MAX)
    }

    fn names(kept: &[Kept]) -> Vec<InputFile> {
        kept.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn a_file_is_there_after_a_restart_and_what_was_cut_off_or_damaged_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        assert!(kept.is_empty());
        assert_eq!(all(&store(&cache, b"one")), Ok(b"one".to_vec()));
        let two = store(&cache, b"two");
        cache.begin(&input(b"three")).expect("a file").push(b"three").expect("room");
        fs::write(two.path(), b"owt").expect("damage");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        assert_eq!(names(&kept), [input(b"one")]);
        assert_eq!(all(&kept[0].1), Ok(b"one".to_vec()));
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count(), 1);
        cache.remove(&kept[0].0);
        assert_eq!(Cache::open(folder.path(), u64::MAX).expect("a cache").1.len(), 0);
    }

    #[test]
    fn a_start_keeps_what_was_used_last_as_far_as_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, _) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        let files = [[1; 100], [2; 100], [3; 100]].map(|bytes| bytes.to_vec());
        for (bytes, age_s) in files.iter().zip([300, 200, 100]) {
            store(&cache, bytes);
            let path = folder.path().join(FOLDER).join(Digest::of(bytes).to_string());
            let file = File::options().append(true).open(path).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).expect("a time");
        }
        let kept = |bytes_max| Cache::open(folder.path(), bytes_max).expect("a cache").1;
        let [first, second, third] = files.each_ref().map(|bytes| input(bytes));
        let found = kept(300);
        assert_eq!(names(&found), [first, second, third], "the one used longest ago first");
        assert_eq!(all(&found[0].1).as_ref(), Ok(&files[0]));
        assert_eq!(names(&kept(250)), [third, first], "it was used a moment ago");
        assert_eq!(names(&kept(0)), []);
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).expect("a folder").count(), 0);
    }

    #[test]
    fn any_run_of_a_file_is_its_bytes_and_one_that_was_damaged_is_not_read_as_if_it_were_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, _) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        let file: Vec<u8> = (0..10 * LEAF_BYTES + 77).map(|at| (at * at / 13) as u8).collect();
        let cached = store(&cache, &file);
        let run = |begin: usize, end: usize| {
            let mut run = vec![0; end - begin];
            cached.read(begin as u64, &mut run).map(|()| run)
        };
        let places = [
            0,
            1,
            LEAF_BYTES - 1,
            LEAF_BYTES,
            2 * LEAF_BYTES + 9,
            9 * LEAF_BYTES,
            file.len() - 1,
            file.len(),
        ];
        for begin in places {
            for end in places.into_iter().filter(|end| *end >= begin) {
                assert_eq!(run(begin, end).as_deref(), Ok(&file[begin..end]), "{begin}..{end}");
            }
        }
        assert_eq!(run(5, file.len() + 1), Err(Unreadable));
        let mut damaged = file.clone();
        damaged[3 * LEAF_BYTES + 5] ^= 4;
        fs::write(folder.path().join(FOLDER).join(input(&file).blake3.to_string()), damaged).expect("damage");
        assert_eq!(run(3 * LEAF_BYTES, 3 * LEAF_BYTES + 1), Err(Unreadable));
        assert_eq!(run(0, file.len()), Err(Unreadable));
        assert_eq!(
            run(4 * LEAF_BYTES, file.len()).as_deref(),
            Ok(&file[4 * LEAF_BYTES..]),
            "the rest is good"
        );
    }
}
