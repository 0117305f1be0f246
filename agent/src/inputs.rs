//! Inputs: files that the hub sends in pieces, as matrices in memory.
//!
//! Owns the matrices and the one that is being read. Looks at bytes off the event loop: hashing and reading
//! a piece takes milliseconds. What is fetched and what is dropped is the machine's to decide.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tessera_agent_core::{Event, FetchSerial, InputFile};
use tessera_kernels::matrix::Matrix;
use tessera_kernels::matrix::npy::{NpyError, Reader};
use tessera_protocol::id::Digest;

/// All that is kept, and what is being read.
#[derive(Default)]
pub(crate) struct Inputs {
    kept: HashMap<InputFile, Arc<Matrix>>,
    /// The fetch whose pieces are awaited; nothing while a piece of it is looked at.
    reading: Option<Reading>,
    /// The fetch whose pieces count.
    current: Option<FetchSerial>,
}

/// A file of which some came.
pub(crate) struct Reading {
    fetch: FetchSerial,
    input: InputFile,
    hasher: blake3::Hasher,
    reader: Reader,
    taken: u64,
    /// Told only when the digest is right: otherwise these are not the file's bytes.
    error: Option<NpyError>,
}

/// What became of a piece.
pub(crate) enum Looked {
    More(Box<Reading>),
    Whole { fetch: FetchSerial, input: InputFile, matrix: Arc<Matrix> },
    Useless { fetch: FetchSerial, input: InputFile, why: Useless },
}

/// Why a file is of no use.
#[derive(Debug)]
pub(crate) enum Useless {
    /// The bytes are not the file's.
    OtherDigest(Digest),
    /// The file is not a matrix.
    NotMatrix(NpyError),
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Useless::OtherDigest(found) => write!(f, "the hub sent a file with digest {found} instead"),
            Useless::NotMatrix(error) => error.fmt(f),
        }
    }
}

impl Inputs {
    /// The reading to which a piece belongs; the first piece begins one.
    pub(crate) fn reading(&mut self, fetch: FetchSerial, input: InputFile, offset: u64) -> Option<Reading> {
        if offset == 0 {
            self.current = Some(fetch);
            self.reading = Some(Reading {
                fetch,
                input,
                hasher: blake3::Hasher::new(),
                reader: Reader::keeping(input.bytes),
                taken: 0,
                error: None,
            });
        }
        self.reading.take()
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
            Looked::Whole { fetch, input, matrix } => {
                if self.current == Some(fetch) {
                    self.current = None;
                    self.kept.insert(input, matrix);
                }
                Event::PieceStored { fetch }
            }
            Looked::Useless { fetch, input, why } => {
                if self.current == Some(fetch) {
                    tracing::error!("the input {} cannot be used: {why}", input.blake3);
                }
                Event::InputRejected { fetch }
            }
        }
    }

    /// Drops a file, or what came of it. A file is fetched or kept, never both.
    pub(crate) fn drop_input(&mut self, input: &InputFile) {
        if self.kept.remove(input).is_none() {
            (self.reading, self.current) = (None, None);
        }
    }

    /// A file that is kept.
    pub(crate) fn get(&self, input: &InputFile) -> Option<Arc<Matrix>> {
        self.kept.get(input).cloned()
    }
}

impl Reading {
    /// Takes a piece.
    pub(crate) fn look(mut self, piece: &[u8]) -> Looked {
        self.hasher.update(piece);
        self.taken += piece.len() as u64;
        if self.error.is_none() {
            self.error = self.reader.push(piece).err();
        }
        if self.taken < self.input.bytes {
            return Looked::More(Box::new(self));
        }
        let Reading { fetch, input, hasher, reader, error, .. } = self;
        let found = Digest(*hasher.finalize().as_bytes());
        let matrix = match error {
            _ if found != input.blake3 => Err(Useless::OtherDigest(found)),
            Some(error) => Err(Useless::NotMatrix(error)),
            None => reader.matrix().map_err(Useless::NotMatrix),
        };
        match matrix {
            Ok(matrix) => Looked::Whole { fetch, input, matrix: Arc::new(matrix) },
            Err(why) => Looked::Useless { fetch, input, why },
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
        InputFile { blake3: Digest::of(bytes), bytes: bytes.len() as u64 }
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
        let (mut inputs, bytes) = (Inputs::default(), fixture("fortran.npy"));
        let name = input(&bytes);
        assert_eq!(send(&mut inputs, 1, name, &bytes), Event::PieceStored { fetch: FetchSerial(1) });
        assert_eq!(inputs.get(&name).map(|matrix| matrix.shape()), Some([2, 3]));
        inputs.drop_input(&name);
        assert!(inputs.kept.is_empty());
    }

    #[test]
    fn other_bytes_and_files_that_are_no_matrix_are_rejected() {
        let rejected = Event::InputRejected { fetch: FetchSerial(1) };
        let bytes = fixture("c.npy");
        let other = InputFile { blake3: Digest([1; 32]), ..input(&bytes) };
        assert_eq!(send(&mut Inputs::default(), 1, other, &bytes), rejected);
        for name in
            ["big_endian.npy", "nan.npy", "objects.npy", "vector.npy", "truncated.npy", "trailing.npy"]
        {
            let bytes = fixture(name);
            let mut inputs = Inputs::default();
            assert_eq!(send(&mut inputs, 1, input(&bytes), &bytes), rejected, "{name}");
            assert!(inputs.kept.is_empty());
        }
    }

    #[test]
    fn what_is_dropped_while_a_piece_is_looked_at_does_not_come_back() {
        let (mut inputs, bytes) = (Inputs::default(), fixture("c.npy"));
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
