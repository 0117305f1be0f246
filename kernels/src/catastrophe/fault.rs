//! What is wrong with an input, where it is, and what to do, for the person who wrote the file.

use std::fmt;

/// The files of a job by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The storms.
    Tracks,
    /// The portfolio.
    Exposure,
    /// Damage by class.
    Curves,
    /// Where land is.
    Mask,
}

impl Role {
    fn words(self) -> &'static str {
        match self {
            Role::Tracks => "the file of tracks",
            Role::Exposure => "the exposure file",
            Role::Curves => "the file of damage curves",
            Role::Mask => "the land mask",
        }
    }
}

/// One mistake in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    role: Role,
    /// From one; zero where the whole file is meant.
    line: u64,
    what: String,
}

impl Fault {
    /// At a line, counted from one.
    pub(super) fn at(role: Role, line: u64, what: impl Into<String>) -> Fault {
        Fault { role, line, what: what.into() }
    }

    /// Of the file as a whole.
    pub(super) fn of(role: Role, what: impl Into<String>) -> Fault {
        Fault::at(role, 0, what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.role.words(), self.what),
            line => write!(f, "{}, line {line}: {}", self.role.words(), self.what),
        }
    }
}

impl std::error::Error for Fault {}

/// A file as text, without the mark that some programs put before it.
pub(super) fn text(role: Role, bytes: &[u8]) -> Result<&str, Fault> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64;
        Fault::at(role, line, "not UTF-8 text: save the file as UTF-8")
    })
}
