//! Inputs: files that the hub sends in pieces, as matrices in memory or as files in the cache.
//!
//! Owns the inputs and the one that is being read. Looks at bytes off the event loop: hashing and reading
//! a piece takes milliseconds. What is fetched and what is dropped is the machine's to decide.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use tessera_agent_core::{Event, FetchSerial, Form, InputFile};
use tessera_kernels::matrix::Matrix;
use tessera_kernels::matrix::npy::{NpyError, Reader};
use tessera_protocol::id::Digest;

use crate::cache::{Cache, Cached, Incoming};

/// All that is kept, and what is being read.
pub(crate) struct Inputs {
    cache: Cache,
    kept: HashMap<InputFile, Input>,
    /// The fetch whose pieces are awaited; nothing while a piece of it is looked at.
    reading: Option<Reading>,
    /// The fetch whose pieces count.
    current: Option<FetchSerial>,
}

/// An input as kernels read it.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Matrix(Arc<Matrix>),
    File(Arc<Cached>),
}

/// A file of which some came.
pub(crate) struct Reading {
    fetch: FetchSerial,
    input: InputFile,
    hasher: blake3::Hasher,
    sink: Sink,
    taken: u64,
    /// Told only when the digest is right: otherwise these are not the file's bytes.
    error: Option<Useless>,
}

enum Sink {
    Matrix(Reader),
    /// Nothing where it could not be begun.
    File(Option<Incoming>),
}

/// What became of a piece.
pub(crate) enum Looked {
    More(Box<Reading>),
    Whole { fetch: FetchSerial, name: InputFile, input: Input },
    Useless { fetch: FetchSerial, name: InputFile, why: Useless },
}

/// Why a file is of no use.
#[derive(Debug)]
pub(crate) enum Useless {
    /// The bytes are not the file's.
    OtherDigest(Digest),
    /// The file is not a matrix.
    NotMatrix(NpyError),
    /// It cannot be written to the data directory.
    Disk(io::Error),
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Useless::OtherDigest(found) => write!(f, "the hub sent a file with digest {found} instead"),
            Useless::NotMatrix(error) => error.fmt(f),
            Useless::Disk(error) => write!(f, "it cannot be written to the agent's data directory: {error}"),
        }
    }
}

impl Inputs {
    /// With what a former start left in the cache.
    pub(crate) fn new(cache: Cache, kept: &[InputFile]) -> Inputs {
        let kept = kept.iter().map(|input| (*input, Input::File(Arc::new(cache.get(input))))).collect();
        Inputs { cache, kept, reading: None, current: None }
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
        let (sink, error) = match input.form {
            Form::Matrix => (Sink::Matrix(Reader::keeping(input.bytes)), None),
            Form::File => match self.cache.begin(&input) {
                Ok(incoming) => (Sink::File(Some(incoming)), None),
                Err(error) => (Sink::File(None), Some(Useless::Disk(error))),
            },
        };
        Reading { fetch, input, hasher: blake3::Hasher::new(), sink, taken: 0, error }
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
        let wanted = self.kept.contains_key(input);
        if input.form == Form::File && !wanted {
            self.cache.remove(input);
        }
    }

    /// A file that is kept.
    pub(crate) fn get(&self, input: &InputFile) -> Option<Input> {
        self.kept.get(input).cloned()
    }
}

impl Reading {
    /// Takes a piece.
    pub(crate) fn look(mut self, piece: &[u8]) -> Looked {
        self.hasher.update(piece);
        self.taken += piece.len() as u64;
        if self.error.is_none() {
            self.error = match &mut self.sink {
                Sink::Matrix(reader) => reader.push(piece).err().map(Useless::NotMatrix),
                Sink::File(None) => None,
                Sink::File(Some(file)) => file.push(piece).err().map(Useless::Disk),
            };
        }
        if self.taken < self.input.bytes {
            return Looked::More(Box::new(self));
        }
        let Reading { fetch, input: name, hasher, sink, error, .. } = self;
        let found = Digest(*hasher.finalize().as_bytes());
        let input = match (error, sink) {
            _ if found != name.blake3 => Err(Useless::OtherDigest(found)),
            (Some(error), _) => Err(error),
            (None, Sink::Matrix(reader)) => {
                reader.matrix().map(Arc::new).map(Input::Matrix).map_err(Useless::NotMatrix)
            }
            (None, Sink::File(Some(file))) => file.finish().map(Input::File).map_err(Useless::Disk),
            (None, Sink::File(None)) => Err(Useless::Disk(io::ErrorKind::NotFound.into())),
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

    fn fixture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/npy");
        std::fs::read(folder.join(name)).expect("a file")
    }

    fn input(bytes: &[u8]) -> InputFile {
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64, form: Form::Matrix }
    }

    /// Nothing is kept, and the folder goes with the test.
    fn inputs() -> (Inputs, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let (cache, kept) = Cache::open(folder.path(), u64::MAX).expect("a cache");
        (Inputs::new(cache, &kept), folder)
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
    fn a_whole_file_is_kept_until_it_is_dropped() {
        let ((mut inputs, _folder), bytes) = (inputs(), fixture("fortran.npy"));
        let name = input(&bytes);
        assert_eq!(send(&mut inputs, 1, name, &bytes), Event::PieceStored { fetch: FetchSerial(1) });
        assert!(matches!(inputs.get(&name), Some(Input::Matrix(matrix)) if matrix.shape() == [2, 3]));
        inputs.drop_input(&name);
        assert!(inputs.kept.is_empty());
    }

    #[test]
    fn a_file_that_is_no_matrix_is_kept_on_disk_until_it_is_dropped() {
        let ((mut inputs, folder), bytes) = (inputs(), vec![7; 250]);
        let name = InputFile { form: Form::File, ..input(&bytes) };
        assert_eq!(send(&mut inputs, 1, name, &bytes), Event::PieceStored { fetch: FetchSerial(1) });
        let Some(Input::File(file)) = inputs.get(&name) else { panic!("it is kept") };
        assert_eq!(file.bytes().as_deref(), Some(&bytes[..]));
        inputs.drop_input(&name);
        assert_eq!(Cache::open(folder.path(), u64::MAX).expect("a cache").1, []);
        let other = InputFile { blake3: Digest([1; 32]), ..name };
        assert_eq!(send(&mut inputs, 2, other, &bytes), Event::InputRejected { fetch: FetchSerial(2) });
        assert_eq!(std::fs::read_dir(folder.path().join("inputs")).expect("a folder").count(), 0);
    }

    #[test]
    fn other_bytes_and_files_that_are_no_matrix_are_rejected() {
        let rejected = Event::InputRejected { fetch: FetchSerial(1) };
        let bytes = fixture("c.npy");
        let other = InputFile { blake3: Digest([1; 32]), ..input(&bytes) };
        assert_eq!(send(&mut inputs().0, 1, other, &bytes), rejected);
        for name in
            ["big_endian.npy", "nan.npy", "objects.npy", "vector.npy", "truncated.npy", "trailing.npy"]
        {
            let bytes = fixture(name);
            let (mut inputs, _folder) = inputs();
            assert_eq!(send(&mut inputs, 1, input(&bytes), &bytes), rejected, "{name}");
            assert!(inputs.kept.is_empty());
        }
    }

    #[test]
    fn what_is_dropped_while_a_piece_is_looked_at_does_not_come_back() {
        let ((mut inputs, _folder), bytes) = (inputs(), fixture("c.npy"));
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
