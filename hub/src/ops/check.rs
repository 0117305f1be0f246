//! `hub check`: whether a store is what a hub wrote, to the last digest, reference and microcredit.
//!
//! Owns the report. Each room looks at some families and says what is wrong; nothing is written, and memory does not
//! grow with the store. What a killed hub leaves and the next start removes is no finding.

mod files;
mod fleet;
mod hubs;
mod jobs;
mod log;
mod money;
mod values;

use std::fmt;

use serde::Serialize;
use tessera_storage::format::{self, FORMAT, FormatError};
use tessera_storage::{Family, Key, OpenError, ReadError, Snapshot};

use super::label;
use super::source::{self, Location, SourceError};
use crate::blobs::{self, Blobs};
use crate::records::RecordError;

/// Findings that a report holds; of more, only how many there are.
const FINDINGS_MAX: usize = 1_000;
/// Notes that a report holds.
const NOTES_MAX: usize = 100;

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub clean: bool,
    /// How many values each family has. *Order*: that of [`Family::ALL`].
    pub families: Vec<Count>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub unlisted: u64,
    /// What is unusual and not wrong.
    pub notes: Vec<String>,
    /// Where the bytes of files lie; nothing where there is no such place, and so none of them.
    #[serde(skip)]
    blobs: Option<Blobs>,
}

/// How many values there are of a family.
#[derive(Debug, Serialize)]
pub struct Count {
    /// Its prefix without the slash.
    pub family: String,
    /// Values; those of many chunks count once.
    pub values: u64,
}

/// Something that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Where.
    pub key: String,
    /// What.
    pub says: String,
    /// What to do.
    pub advice: Advice,
}

/// What an operator can do about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// What lies beside the store is not there.
    Blobs,
    /// Something was damaged.
    Restore,
    /// Something else wrote to the store.
    Foreign,
    /// Credits are not where they should be.
    Ledger,
    /// The audit log is not what was written.
    Log,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Advice::Blobs => {
                "copy the blobs that belong to this store to where it looks for them; a backup of the store holds none"
            }
            Advice::Restore => "restore a backup; keep this store for whoever finds out why",
            Advice::Foreign => "find out what else writes to this store; a hub does not read it",
            Advice::Ledger => {
                "settle nothing before it is understood: compare receipts and the audit log, or restore a backup"
            }
            Advice::Log => "compare an export of it that lies elsewhere; restore a backup that agrees with that",
        })
    }
}

/// Why a store cannot be checked.
#[derive(Debug)]
pub enum CheckError {
    /// There is none to check.
    Source(SourceError),
    /// Another version wrote it.
    Format(FormatError),
    /// An older version wrote it.
    Older {
        /// Its format.
        found: u32,
    },
    /// It cannot be read.
    Read(ReadError),
    /// There is no place for blobs where they should lie.
    Blobs(blobs::OpenError),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Source(error) => write!(f, "{error}"),
            CheckError::Format(error) => write!(f, "{error}"),
            CheckError::Older { found } => write!(
                f,
                "the store has format {found} and this build checks format {FORMAT}: start the hub once, which upgrades it, or check it with the older build"
            ),
            CheckError::Read(error) => write!(f, "{error}"),
            CheckError::Blobs(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for CheckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CheckError::Source(error) => Some(error),
            CheckError::Format(error) => Some(error),
            CheckError::Older { .. } => None,
            CheckError::Read(error) => Some(error),
            CheckError::Blobs(error) => Some(error),
        }
    }
}

impl Report {
    fn find(&mut self, key: impl Into<String>, says: impl Into<String>, advice: Advice) {
        if self.findings.len() == FINDINGS_MAX {
            self.unlisted += 1;
            return;
        }
        self.findings.push(Finding { key: key.into(), says: says.into(), advice });
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    /// A record, or nothing where what lies there is a finding. Only a store that cannot be read is an error.
    fn take<T>(
        &mut self,
        key: Key<'_>,
        outcome: Result<T, RecordError>,
        advice: Advice,
    ) -> Result<Option<T>, ReadError> {
        match outcome {
            Ok(found) => Ok(Some(found)),
            Err(RecordError::Read(error)) if !matches!(error, ReadError::TornValue { .. }) => Err(error),
            Err(error) => {
                self.find(label::of(key), error.to_string(), advice);
                Ok(None)
            }
        }
    }

    fn end(mut self) -> Report {
        self.clean = self.findings.is_empty();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Count { family, values } in self.families.iter().filter(|count| count.values > 0) {
            writeln!(f, "{family:<12} {values}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for Finding { key, says, advice } in &self.findings {
            writeln!(f, "finding: {key}: {says}\n  to do: {advice}")?;
        }
        match self.findings.len() as u64 + self.unlisted {
            0 => f.write_str("clean: every digest, reference and balance is right"),
            1 => f.write_str("1 finding"),
            more => write!(f, "{more} findings"),
        }
    }
}

/// Checks the store at a location, page by page and record by record.
///
/// *Errors*: see [`CheckError`]; damage is a finding and no error.
pub fn check_store(location: &Location, blobs: &blobs::Place) -> Result<Report, CheckError> {
    let damaged = |source: &dyn fmt::Display| {
        let mut report = Report::default();
        report.find("(the file)", source.to_string(), Advice::Restore);
        report.end()
    };
    let mut store = match source::open(location) {
        Ok(store) => store,
        Err(SourceError::Open(error @ OpenError::Corrupt { .. })) => return Ok(damaged(&error)),
        Err(error) => return Err(CheckError::Source(error)),
    };
    match store.verify_pages() {
        Ok(()) => {}
        Err(error @ ReadError::Corrupt(_)) => return Ok(damaged(&error)),
        Err(error) => return Err(CheckError::Read(error)),
    }
    let blobs = match blobs {
        // A directory that is not there is not made: nothing is written.
        blobs::Place::Directory(path) if !path.is_dir() => None,
        place => Some(Blobs::open(place).map_err(CheckError::Blobs)?),
    };
    check(&*store.snapshot().map_err(CheckError::Read)?, blobs)
}

/// Checks a store.
///
/// *Errors*: see [`CheckError`]; damage is a finding and no error.
pub fn check(store: &dyn Snapshot, blobs: Option<Blobs>) -> Result<Report, CheckError> {
    match format::of(store).map_err(CheckError::Format)? {
        FORMAT => {}
        found if found < FORMAT => return Err(CheckError::Older { found }),
        found => return Err(CheckError::Format(FormatError::Other { found })),
    }
    let mut report = Report { blobs, ..Report::default() };
    let rooms: [fn(&dyn Snapshot, &mut Report) -> Result<(), ReadError>; 7] =
        [values::check, jobs::check, money::check, fleet::check, hubs::check, log::check, files::check];
    for room in rooms {
        match room(store, &mut report) {
            Ok(()) => {}
            Err(error @ ReadError::Corrupt(_)) => {
                report.find("(the file)", error.to_string(), Advice::Restore);
                break;
            }
            Err(error) => return Err(CheckError::Read(error)),
        }
    }
    Ok(report.end())
}

/// What a family is called.
fn family_name(family: Family) -> String {
    String::from_utf8_lossy(family.prefix()).trim_end_matches('/').to_owned()
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
