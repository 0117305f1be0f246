//! Inputs: files that the hub sends in pieces, and what kernels read of them.
//!
//! Owns the inputs and the one that is coming. A piece goes to the disk and is gone from memory: what a file holds is
//! looked at where a kernel reads it. Looks at bytes off the event loop: hashing and writing a piece takes milliseconds.
//! What is fetched and what is dropped is the machine's to decide.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tessera_agent_core::{Event, FetchSerial, InputFile};
use tessera_kernels::runs::{Files, Runs, some_of};
use tessera_protocol::id::Digest;

use crate::cache::{Cache, Cached, Incoming, Kept};

/// All that is kept, and what is being read.
pub(crate) struct Inputs {
    cache: Cache,
    kept: HashMap<InputFile, Arc<Cached>>,
    /// The fetch whose pieces are awaited; nothing while a piece of it is looked at.
    reading: Option<Reading>,
    /// The fetch whose pieces count.
    current: Option<FetchSerial>,
}

/// The files of one job as its kernels read them.
#[derive(Debug, Default)]
pub(crate) struct JobFiles(HashMap<InputFile, JobFile>);

#[derive(Debug)]
struct JobFile {
    cached: Arc<Cached>,
    /// All of it, for kernels that parse the whole: as long as the job needs it.
    whole: OnceLock<Option<Bytes>>,
}

impl JobFiles {
    /// Those of these names that are here.
    pub(crate) fn new(names: &[InputFile], input: impl Fn(&InputFile) -> Option<Arc<Cached>>) -> JobFiles {
        let one = |name: &InputFile| Some((*name, JobFile { cached: input(name)?, whole: OnceLock::new() }));
        JobFiles(names.iter().filter_map(one).collect())
    }

    /// A file to read runs of.
    pub(crate) fn get(&self, blake3: &[u8; 32], bytes: u64) -> Option<Arc<dyn Runs>> {
        let name = InputFile { blake3: Digest(*blake3), bytes };
        Some(self.0.get(&name)?.cached.clone())
    }

    /// Where a file lies.
    pub(crate) fn path(&self, blake3: &[u8; 32]) -> Option<PathBuf> {
        Some(self.find(blake3)?.cached.path().to_owned())
    }

    fn find(&self, blake3: &[u8; 32]) -> Option<&JobFile> {
        self.0.iter().find_map(|(name, file)| (name.blake3.0 == *blake3).then_some(file))
    }
}

impl Files for JobFiles {
    fn open(&self, blake3: &[u8; 32]) -> Option<Arc<dyn Runs>> {
        Some(self.find(blake3)?.cached.clone())
    }

    fn whole(&self, blake3: &[u8; 32]) -> Option<Bytes> {
        let file = self.find(blake3)?;
        let read = || some_of(&*file.cached, 0, u64::MAX).ok().map(Bytes::from);
        file.whole.get_or_init(read).clone()
    }
}

/// A file of which some came.
pub(crate) struct Reading {
    fetch: FetchSerial,
    input: InputFile,
    hasher: blake3::Hasher,
    file: io::Result<Incoming>,
    taken: u64,
}

/// What became of a piece.
pub(crate) enum Looked {
    More(Box<Reading>),
    Whole { fetch: FetchSerial, name: InputFile, input: Arc<Cached> },
    Useless { fetch: FetchSerial, name: InputFile, why: Useless },
}

/// Why a file is of no use.
#[derive(Debug)]
pub(crate) enum Useless {
    /// The bytes are not the file's.
    OtherDigest(Digest),
    /// It cannot be written to the data directory.
    Disk(io::Error),
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Useless::OtherDigest(found) => write!(f, "the hub sent a file with digest {found} instead"),
            Useless::Disk(error) => write!(f, "it cannot be written to the agent's data directory: {error}"),
        }
    }
}

impl Inputs {
    /// With what a former start left in the cache.
    pub(crate) fn new(cache: Cache, kept: Vec<Kept>) -> Inputs {
        Inputs { cache, kept: kept.into_iter().collect(), reading: None, current: None }
    }

    /// The reading to which a piece belongs; the first piece begins one.
    pub(crate) fn reading(&mut self, fetch: FetchSerial, input: InputFile, offset: u64) -> Option<Reading> {
        if offset == 0 {
            self.current = Some(fetch);
            self.reading = Some(self.begin(fetch, input));
        }
        self.reading.take()
    }

    fn begin(&self, fetch: FetchSerial, input: InputFile) -> Reading {
        Reading { fetch, input, hasher: blake3::Hasher::new(), file: self.cache.begin(&input), taken: 0 }
    }

    /// Takes what became of a piece, and says so in an event.
    pub(crate) fn looked(&mut self, looked: Looked) -> Event {
        match looked {
            Looked::More(reading) => {
                let fetch = reading.fetch;
                if self.current == Some(fetch) {
                    self.reading = Some(*reading);
                }
                Event::PieceStored { fetch }
            }
            Looked::Whole { fetch, name, input } => {
                if self.current == Some(fetch) {
                    self.current = None;
                    self.kept.insert(name, input);
                } else {
                    self.forget(&name);
                }
                Event::PieceStored { fetch }
            }
            Looked::Useless { fetch, name, why } => {
                if self.current == Some(fetch) {
                    tracing::error!("the input {} cannot be used: {why}", name.blake3);
                }
                self.forget(&name);
                Event::InputRejected { fetch }
            }
        }
    }

    /// Drops a file, or what came of it. A file is fetched or kept, never both.
    pub(crate) fn drop_input(&mut self, input: &InputFile) {
        if self.kept.remove(input).is_none() {
            (self.reading, self.current) = (None, None);
        }
        self.forget(input);
    }

    /// Removes a file that nobody reads from the disk. A fetch of the same file that began since writes it
    /// again from its start.
    fn forget(&self, input: &InputFile) {
        if !self.kept.contains_key(input) {
            self.cache.remove(input);
        }
    }

    /// A file that is kept.
    pub(crate) fn get(&self, input: &InputFile) -> Option<Arc<Cached>> {
        self.kept.get(input).cloned()
    }
}

impl Reading {
    /// Takes a piece.
    pub(crate) fn look(mut self, piece: &[u8]) -> Looked {
        self.hasher.update(piece);
        self.taken += piece.len() as u64;
        // Told only when the digest is right: otherwise these are not the file's bytes.
        if let Ok(file) = &mut self.file
            && let Err(error) = file.push(piece)
        {
            self.file = Err(error);
        }
        if self.taken < self.input.bytes {
            return Looked::More(Box::new(self));
        }
        let Reading { fetch, input: name, hasher, file, .. } = self;
        let found = Digest(*hasher.finalize().as_bytes());
        let input = match found == name.blake3 {
            true => file.and_then(Incoming::finish).map_err(Useless::Disk),
            false => Err(Useless::OtherDigest(found)),
        };
        match input {
            Ok(input) => Looked::Whole { fetch, name, input },
            Err(why) => Looked::Useless { fetch, name, why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> InputFile {
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64 }
    }

    /// Nothing is kept, and the folder goes with the test.
    fn inputs() -> (Inputs, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        (Inputs::new(cache, kept), folder)
    }

    /// Sends a file in pieces of 100 bytes; the last event.
    fn send(inputs: &mut Inputs, serial: u64, input: InputFile, bytes: &[u8]) -> Event {
        let fetch = FetchSerial(serial);
        let mut last = None;
        for (position, piece) in bytes.chunks(100).enumerate() {
            let reading = inputs.reading(fetch, input, position as u64 * 100).expect("a reading");
            last = Some(inputs.looked(reading.look(piece)));
        }
        last.expect("a piece")
    }

    #[test]
    fn a_file_is_kept_on_disk_until_it_is_dropped_and_other_bytes_never_are() {
        let ((mut inputs, folder), bytes) = (inputs(), vec![7; 250]);
        let name = input(&bytes);
        assert_eq!(send(&mut inputs, 1, name, &bytes), Event::PieceStored { fetch: FetchSerial(1) });
        let file = inputs.get(&name).expect("it is kept");
        assert_eq!(some_of(&*file, 0, u64::MAX).as_ref(), Ok(&bytes));
        inputs.drop_input(&name);
        assert!(inputs.kept.is_empty());
        assert!(Cache::open(folder.path(), u64::MAX).expect("a cache").1.is_empty());
        let other = InputFile { blake3: Digest([1; 32]), ..name };
        assert_eq!(send(&mut inputs, 2, other, &bytes), Event::InputRejected { fetch: FetchSerial(2) });
        assert_eq!(std::fs::read_dir(folder.path().join("inputs")).expect("a folder").count(), 0);
    }

    #[test]
    fn kernels_of_one_job_share_what_they_parse_and_find_only_its_files() {
        let ((mut inputs, _folder), bytes) = (inputs(), vec![7; 250]);
        let name = input(&bytes);
        send(&mut inputs, 1, name, &bytes);
        let other = InputFile { blake3: Digest([1; 32]), bytes: 3 };
        let files = JobFiles::new(&[name, other], |name| inputs.get(name));
        let [first, second] = [(); 2].map(|()| files.whole(&name.blake3.0).expect("it is here"));
        assert_eq!((&first[..], first.as_ptr()), (&bytes[..], second.as_ptr()), "it is read once");
        assert_eq!(files.open(&name.blake3.0).map(|runs| runs.bytes()), Some(250));
        assert!(files.get(&name.blake3.0, 250).is_some() && files.get(&name.blake3.0, 249).is_none());
        assert!(files.open(&other.blake3.0).is_none() && files.path(&[9; 32]).is_none());
    }

    #[test]
    fn what_is_dropped_while_a_piece_is_looked_at_does_not_come_back() {
        let ((mut inputs, _folder), bytes) = (inputs(), vec![3; 176]);
        let name = input(&bytes);
        let reading = inputs.reading(FetchSerial(1), name, 0).expect("a reading");
        inputs.drop_input(&name);
        inputs.looked(reading.look(&bytes));
        assert!(inputs.kept.is_empty());
        let reading = inputs.reading(FetchSerial(2), name, 0).expect("a reading");
        inputs.looked(reading.look(&bytes[..100]));
        inputs.drop_input(&name);
        assert!(inputs.reading(FetchSerial(2), name, 100).is_none());
    }
}
