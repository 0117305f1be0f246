//! A matrix as a `.npy` file beside a job: its header, digest and whether it can be used.
//!
//! Owns looking through a file once, whatever its size, in constant memory. What a `.npy` file may hold is
//! the kernels' business: an agent reads the same file with the same code.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tessera_kernels::matrix::npy::{Header, NpyError, Reader};
use tessera_protocol::id::Digest;

/// Read at once. *Units*: bytes.
const PIECE_BYTES: usize = 1 << 20;

/// What looking through a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What it holds.
    pub header: Header,
    /// Of all its bytes.
    pub blake3: Digest,
    /// Its length.
    pub bytes: u64,
}

/// Why a file is not a matrix that a job can read.
#[derive(Debug)]
pub enum MatrixFileError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// A folder or a device.
    NotAFile,
    /// It is not a matrix.
    Npy(NpyError),
}

impl fmt::Display for MatrixFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MatrixFileError::Unreadable(source) => write!(f, "cannot read it: {source}"),
            MatrixFileError::NotAFile => f.write_str("not a file"),
            MatrixFileError::Npy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MatrixFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MatrixFileError::Unreadable(source) => Some(source),
            MatrixFileError::NotAFile => None,
            MatrixFileError::Npy(error) => Some(error),
        }
    }
}

/// Looks through a file.
pub fn survey(path: &Path) -> Result<Survey, MatrixFileError> {
    let mut file = File::open(path).map_err(MatrixFileError::Unreadable)?;
    let metadata = file.metadata().map_err(MatrixFileError::Unreadable)?;
    if !metadata.is_file() {
        return Err(MatrixFileError::NotAFile);
    }
    let mut reader = Reader::surveying(metadata.len());
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(MatrixFileError::Unreadable(error)),
        };
        hasher.update(&piece[..read]);
        reader.push(&piece[..read]).map_err(MatrixFileError::Npy)?;
        bytes += read as u64;
    }
    let header = reader.survey().map_err(MatrixFileError::Npy)?;
    Ok(Survey { header, blake3: Digest(*hasher.finalize().as_bytes()), bytes })
}
