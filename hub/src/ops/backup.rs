//! `hub backup` and `hub restore`: one moment of a store in one file, and back.
//!
//! A backup of a stopped hub reads its store; one of a hub that runs asks it through its [control]
//! socket, which gives the same bytes. Owns the file's name: it has it only once it is whole, on the disk and read
//! back. May not overwrite anything but a backup.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tessera_storage::format::{self, FORMAT, FormatError};
use tessera_storage::{KeyRange, ReadError, Snapshot};

pub use super::archive::{ArchiveError, Summary};
use super::archive::{Head, Reader, Writer};
use super::control;
use super::copy::{FillError, Filling};
use super::pages::after;
use super::source::{self, Location, SourceError};
use super::target::{self, TargetError};
use crate::backend::unix_ms;

/// Only the owner may read it: the hub's key and its clients' money are in it.
const FILE_MODE: u32 = 0o600;
/// Behind the name of a file that is not whole yet.
const PARTIAL: &str = ".partial";
/// Entries read at once. *Source*: ours: at most 6.4 MB in memory.
const PAGE_ENTRIES: usize = 64;
/// Why there is no backup.
#[derive(Debug)]
pub enum BackupError {
    /// There is no store to back up.
    Source(SourceError),
    /// The hub that runs on it gives none.
    Running {
        /// Why it cannot be asked.
        source: io::Error,
        /// Whose store it is.
        in_use: SourceError,
    },
    /// The store has no format.
    Format(FormatError),
    /// The store cannot be read.
    Read(ReadError),
    /// The file cannot be written.
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something else under its name.
    Occupied {
        /// Which.
        path: PathBuf,
    },
    /// What was written does not read back.
    Archive {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// The hub is stopping.
    Stopping,
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Source(error) => write!(f, "{error}"),
            BackupError::Running { source, in_use } => write!(
                f,
                "the hub cannot be asked for a backup through its socket `control` ({source}): \
                 be the user it runs as, on its machine, or stop it. ({in_use})"
            ),
            BackupError::Format(error) => write!(f, "{error}"),
            BackupError::Read(error) => write!(f, "{error}"),
            BackupError::Write { path, source } => {
                write!(f, "cannot write {}: {source}; name a file where there is room", path.display())
            }
            BackupError::Occupied { path } => {
                write!(f, "{} is there and is no backup: name another file, or remove it", path.display())
            }
            BackupError::Archive { path, source: ArchiveError::Truncated { blocks } } => write!(
                f,
                "the hub ended the backup behind block {blocks}: its log says why; {} is not there",
                path.display()
            ),
            BackupError::Archive { path, source } => {
                write!(
                    f,
                    "{} does not read back as it was written ({source}): check the disk",
                    path.display()
                )
            }
            BackupError::Stopping => f.write_str("the hub is stopping"),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BackupError::Source(error) => Some(error),
            BackupError::Running { source, .. } | BackupError::Write { source, .. } => Some(source),
            BackupError::Format(error) => Some(error),
            BackupError::Read(error) => Some(error),
            BackupError::Archive { source, .. } => Some(source),
            BackupError::Occupied { .. } | BackupError::Stopping => None,
        }
    }
}

/// Backs a store up to a file. On a directory a hub may run.
pub fn backup(location: &Location, file: &Path) -> Result<Summary, BackupError> {
    match source::open(location) {
        Ok(store) => {
            let snapshot = store.snapshot().map_err(BackupError::Read)?;
            save(file, |to| stream(&*snapshot, to, &|| true))
        }
        Err(SourceError::InUse { data, pid }) => {
            let mut asked = match control::ask(&data) {
                Ok(asked) => asked,
                Err(source) => {
                    let in_use = SourceError::InUse { data, pid };
                    return Err(BackupError::Running { source, in_use });
                }
            };
            let path = || file.to_owned();
            save(file, |to| {
                let copied = io::copy(&mut asked, to);
                copied.map_err(|source| BackupError::Write { path: path(), source })?;
                Ok(())
            })
        }
        Err(error) => Err(BackupError::Source(error)),
    }
}

/// Writes a backup of a moment of a store, while `go_on` says so.
pub(super) fn stream(
    store: &dyn Snapshot,
    to: &mut dyn Write,
    go_on: &dyn Fn() -> bool,
) -> Result<(), BackupError> {
    let written = |source| BackupError::Write { path: PathBuf::from("the backup"), source };
    let head = Head { format: format::of(store).map_err(BackupError::Format)?, made_ms: unix_ms() };
    let mut writer = Writer::begin(to, head).map_err(written)?;
    let mut rest = KeyRange::prefix([]);
    loop {
        let page = store.range(&rest, PAGE_ENTRIES).map_err(BackupError::Read)?;
        let Some(last) = page.last() else { break };
        rest.start = after(&last.key);
        page.iter().try_for_each(|entry| writer.entry(entry)).map_err(written)?;
        if !go_on() {
            return Err(BackupError::Stopping);
        }
    }
    writer.end().map_err(written)?;
    Ok(())
}

/// Lets `fill` write a file, reads it back, and gives it its name.
fn save(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), BackupError>,
) -> Result<Summary, BackupError> {
    let wrong = |source| BackupError::Write { path: path.to_owned(), source };
    if path.exists() && !File::open(path).is_ok_and(begins_as_backup) {
        return Err(BackupError::Occupied { path: path.to_owned() });
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(PARTIAL);
    let partial = path.with_file_name(name);
    // Not what somebody else left open under this name.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
        Ok(()) | Err(_) => {}
    }
    let file =
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&partial).map_err(wrong)?;
    let saved = fill_and_publish(file, &partial, path, fill);
    if saved.is_err() {
        // It says what went wrong; a part of a backup is of no use.
        let _ = fs::remove_file(&partial);
    }
    saved
}

fn fill_and_publish(
    file: File,
    partial: &Path,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), BackupError>,
) -> Result<Summary, BackupError> {
    let wrong = |source| BackupError::Write { path: path.to_owned(), source };
    let mut buffered = BufWriter::new(file);
    fill(&mut buffered).map_err(|error| match error {
        BackupError::Write { source, .. } => wrong(source),
        error => error,
    })?;
    let file = buffered.into_inner().map_err(|error| wrong(error.into_error()))?;
    file.sync_all().map_err(wrong)?;
    let altered = |source| BackupError::Archive { path: path.to_owned(), source };
    let written = BufReader::new(File::open(partial).map_err(wrong)?);
    let summary = Reader::begin(written).and_then(Reader::verify).map_err(|error| match error {
        // Nothing came at all.
        ArchiveError::NotABackup => altered(ArchiveError::Truncated { blocks: 0 }),
        error => altered(error),
    })?;
    fs::rename(partial, path).map_err(wrong)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(wrong)?;
    Ok(summary)
}

fn begins_as_backup(file: File) -> bool {
    let mut bytes = Vec::new();
    let read = file.take(4_096).read_to_end(&mut bytes);
    read.is_ok() && !matches!(Reader::begin(&bytes[..]), Err(ArchiveError::NotABackup | ArchiveError::Io(_)))
}

/// Why a backup was not restored.
#[derive(Debug)]
pub enum RestoreError {
    /// The file is no whole backup.
    Archive {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// It is of a store of a newer format.
    Newer {
        /// Which.
        found: u32,
    },
    /// There is no place for a store.
    Target(TargetError),
    /// The store cannot be filled.
    Fill {
        /// Where.
        to: Location,
        /// Why.
        source: FillError,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Archive { path, source } => write!(f, "{}: {source}", path.display()),
            RestoreError::Newer { found } => write!(
                f,
                "the backup is of a store of format {found}, and this build knows up to {FORMAT}: use the build that made it, or a newer one"
            ),
            RestoreError::Target(error) => write!(f, "{error}"),
            RestoreError::Fill { to, source } => write!(f, "cannot fill {to}: {source}"),
        }
    }
}

impl std::error::Error for RestoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RestoreError::Archive { source, .. } => Some(source),
            RestoreError::Target(error) => Some(error),
            RestoreError::Fill { source, .. } => Some(source),
            RestoreError::Newer { .. } => None,
        }
    }
}

/// Makes a store of a backup where none is. The whole file is read first: one that was altered makes nothing.
pub fn restore(file: &Path, to: &Location) -> Result<Summary, RestoreError> {
    let altered = |source| RestoreError::Archive { path: file.to_owned(), source };
    let open = || {
        let file = File::open(file).map_err(ArchiveError::Io)?;
        Reader::begin(BufReader::new(file))
    };
    let reader = open().map_err(altered)?;
    let found = reader.head().format;
    if found > FORMAT {
        return Err(RestoreError::Newer { found });
    }
    let summary = reader.verify().map_err(altered)?;
    let store = target::open(to).map_err(RestoreError::Target)?;
    let fill = |source| RestoreError::Fill { to: to.clone(), source };
    let mut filling = Filling::begin(&*store).map_err(fill)?;
    let mut reader = open().map_err(altered)?;
    while let Some(entry) = reader.entry().map_err(altered)? {
        filling.put(entry).map_err(fill)?;
    }
    filling.end().map_err(fill)?;
    Ok(summary)
}

#[cfg(test)]
#[path = "backup/tests.rs"]
mod tests;
