//! Files of jobs that come back after them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use tessera_client::api::{Hub, HubError};
use tessera_client::render::{MatrixOutput, StagedResult};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::product::is_plain_name;

use super::{Failure, print};

/// Copied at once. *Units*: bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Writes a job's matrix to a file, or to standard output for `-`.
pub(super) fn save(hub: &Hub, job: JobId, output: &MatrixOutput, path: &Path) -> Result<(), Failure> {
    save_stream(hub, job, (output.blake3, output.bytes), &mut hub.output(job)?, path)
}

/// Writes the files of a job that went through stages into a folder.
pub(super) fn save_all(hub: &Hub, job: JobId, result: &StagedResult, folder: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::Write { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    for output in &result.outputs {
        if !is_plain_name(&output.name) {
            let source =
                io::Error::new(io::ErrorKind::InvalidData, format!("the hub names it {:?}", output.name));
            return Err(failed(source));
        }
        let mut reader = hub.named_output(job, &output.name)?;
        save_stream(hub, job, (output.blake3, output.bytes), &mut reader, &folder.join(&output.name))?;
    }
    Ok(())
}

/// The digest is compared before the file has its name.
fn save_stream(
    hub: &Hub,
    job: JobId,
    (blake3, length): (Digest, u64),
    reader: &mut dyn Read,
    path: &Path,
) -> Result<(), Failure> {
    let failed = |source| Failure::Write { path: path.to_owned(), source };
    let to_stdout = path == Path::new("-");
    let folder = match path.parent() {
        Some(folder) if !to_stdout && !folder.as_os_str().is_empty() => folder.to_owned(),
        _ if to_stdout => std::env::temp_dir(),
        _ => ".".into(),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let dropped = |source| Failure::Hub(hub.dropped(source));
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0u64;
    loop {
        let read = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(dropped(error)),
        };
        bytes += read as u64;
        if bytes > length {
            break;
        }
        hasher.update(&piece[..read]);
        file.write_all(&piece[..read]).map_err(failed)?;
    }
    let found = Digest(*hasher.finalize().as_bytes());
    if found != blake3 || bytes != length {
        return Err(Failure::Hub(HubError::WrongDigest { job, expected: blake3, found }));
    }
    if to_stdout {
        return copy_to_stdout(file.path(), &mut piece);
    }
    file.as_file().sync_all().map_err(failed)?;
    make_readable(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error)).map(drop)
}

fn copy_to_stdout(from: &Path, piece: &mut [u8]) -> Result<(), Failure> {
    let failed = |source| Failure::Write { path: "standard output".into(), source };
    let mut file = File::open(from).map_err(failed)?;
    loop {
        match file.read(piece).map_err(failed)? {
            0 => return Ok(()),
            read => print(&piece[..read])?,
        }
    }
}

/// A temporary file is its owner's alone; a result is as readable as other files.
#[cfg(unix)]
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &File) -> io::Result<()> {
    Ok(())
}
