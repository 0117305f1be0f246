//! Blobs: where the bytes of input files and products lie, as objects of an object store.
//!
//! Owns the names of objects, and how they are put, got, removed and listed. Which of them count, and whether their
//! bytes are right, is the business of [`inputs`](crate::inputs). Calls wait for a disk or a network: make them on a
//! thread that may wait, never on a lane; the thread that serves clients awaits them instead.

use std::error::Error;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tessera_protocol::id::{Digest, parse_hex};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::unit::UnixMillis;
use tokio::runtime::Runtime;

#[cfg(feature = "s3")]
mod s3;

/// Threads that hash pieces and speak to object stores over a network.
const WORKING_THREADS: usize = 2;
/// Threads that wait for local files; each that waits stands for one piece in memory.
const WAITING_THREADS_MAX: usize = 32;

/// Where blobs lie, as `file:///path`, `s3://bucket/prefix` or `memory:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory of local files, made when missing.
    Directory(PathBuf),
    /// A bucket of a store that speaks as Amazon S3 does, and what the names of objects there begin with.
    S3 {
        /// The bucket.
        bucket: String,
        /// Before every name; may be empty.
        prefix: String,
    },
    /// Memory of the hub: gone with it, for tests.
    Memory,
}

/// Text that names no place for blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePlaceError(String);

impl fmt::Display for ParsePlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blobs = \"{}\": expected file:///an/absolute/path, s3://bucket/prefix or memory:", self.0)
    }
}

impl Error for ParsePlaceError {}

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Place, ParsePlaceError> {
        let refused = || ParsePlaceError(text.to_owned());
        if text == "memory:" {
            return Ok(Place::Memory);
        }
        if let Some(path) = text.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Place::Directory(path)) } else { Err(refused()) };
        }
        let (bucket, prefix) = match text.strip_prefix("s3://").ok_or_else(refused)? {
            rest if rest.contains('/') => rest.split_once('/').unwrap_or((rest, "")),
            rest => (rest, ""),
        };
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || prefix.starts_with('/') || Path::parse(prefix).is_err() {
            return Err(refused());
        }
        Ok(Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Directory(path) => write!(f, "file://{}", path.display()),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Place::Memory => f.write_str("memory:"),
        }
    }
}

/// Why there is no place for blobs.
#[derive(Debug)]
pub enum OpenError {
    /// The directory cannot be made or used.
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The object store's settings are of no use.
    Store {
        /// Which store.
        place: Place,
        /// Why.
        source: object_store::Error,
    },
    /// This hub cannot speak to such a store.
    NotBuilt {
        /// Which.
        place: Place,
    },
    /// No thread could be started.
    Thread(std::io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Directory { path, source } => write!(
                f,
                "cannot keep blobs in {}: {source}; make it a directory that the hub may write, or choose another with blobs = \"file:///path\"",
                path.display()
            ),
            OpenError::Store { place, source } => {
                write!(f, "cannot keep blobs in {place}: {source}; its settings come from AWS_* variables")
            }
            OpenError::NotBuilt { place } => {
                write!(f, "cannot keep blobs in {place}: this hub was built without the feature `s3`")
            }
            OpenError::Thread(error) => write!(f, "cannot start a thread for blobs: {error}"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::Directory { source, .. } => Some(&**source),
            OpenError::Store { source, .. } => Some(source),
            OpenError::Thread(error) => Some(error),
            OpenError::NotBuilt { .. } => None,
        }
    }
}

/// Why an object could not be put, got, removed or listed.
#[derive(Debug)]
pub enum BlobError {
    /// There is no room. Nothing was put; it may go better once there is.
    Full(object_store::Error),
    /// The object store does not do what was asked.
    Failing(object_store::Error),
    /// The bytes under a piece's name are not those that were put there.
    Damaged(Name),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::Full(error) => {
                write!(f, "no room for blobs: {error}; make room, uploads go on by themselves")
            }
            BlobError::Failing(error) => {
                write!(f, "the store of blobs failed: {error}; check the directory or bucket of `blobs`")
            }
            BlobError::Damaged(name) => write!(
                f,
                "the object {name} is damaged: restore it from a copy, or upload the file with this digest again"
            ),
        }
    }
}

impl Error for BlobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BlobError::Full(error) | BlobError::Failing(error) => Some(error),
            BlobError::Damaged(_) => None,
        }
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> BlobError {
        match is_full(&error) {
            true => BlobError::Full(error),
            false => BlobError::Failing(error),
        }
    }
}

/// Whether somewhere below lies the word that the disk, the quota or the largest allowed file is full.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// What an object is called: `HH/DIGEST/NNNNNNNN`, where `HH` is how the digest of the whole begins and `NNNNNNNN`
/// the piece's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// BLAKE3 of the whole.
    pub blob: Digest,
    /// The piece's position.
    pub piece: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = self.blob.to_string();
        write!(f, "{}/{blob}/{:08}", &blob[..2], self.piece)
    }
}

impl Name {
    fn path(self) -> Path {
        Path::from(self.to_string())
    }

    /// Reads a name back; nothing where no hub gave it.
    fn read(path: &Path) -> Option<Name> {
        let parts: Vec<&str> = path.as_ref().split('/').collect();
        let [_, blob, piece] = parts[..] else { return None };
        let name = Name { blob: Digest(parse_hex(blob)?), piece: piece.parse().ok()? };
        (name.to_string() == path.as_ref()).then_some(name)
    }
}

/// The blobs, from any thread that may wait.
#[derive(Clone)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    threads: Arc<Threads>,
    /// Where they lie as files, and what the object store does not list may be left over.
    directory: Option<PathBuf>,
    damaged: Arc<AtomicU64>,
}

/// The runtime on which the object store waits.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        // The last holder may be a task of another runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("objects", &self.objects).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Opens a place.
    pub fn open(place: &Place) -> Result<Blobs, OpenError> {
        match place {
            Place::Directory(path) => {
                let refused = |source| OpenError::Directory { path: path.clone(), source };
                std::fs::create_dir_all(path).map_err(|error| refused(error.into()))?;
                let files = LocalFileSystem::new_with_prefix(path).map_err(|error| refused(error.into()))?;
                // Without it a piece would be told to be durable that a power cut takes away.
                let files = files.with_fsync(true).with_automatic_cleanup(true);
                Ok(Blobs { directory: Some(path.clone()), ..Blobs::over(Arc::new(files))? })
            }
            #[cfg(feature = "s3")]
            Place::S3 { bucket, prefix } => {
                let refused = |source| OpenError::Store { place: place.clone(), source };
                Blobs::over(Arc::new(PrefixStore::new(s3::bucket(bucket).map_err(refused)?, prefix.as_str())))
            }
            #[cfg(not(feature = "s3"))]
            Place::S3 { .. } => Err(OpenError::NotBuilt { place: place.clone() }),
            Place::Memory => Blobs::over(Arc::new(PrefixStore::new(InMemory::new(), ""))),
        }
    }

    /// Blobs in any object store.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Result<Blobs, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKING_THREADS)
            .max_blocking_threads(WAITING_THREADS_MAX)
            .thread_name("tessera-blobs")
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let threads = Arc::new(Threads(Some(runtime)));
        Ok(Blobs { objects, threads, directory: None, damaged: Arc::default() })
    }

    fn runtime(&self) -> &Runtime {
        self.threads.0.as_ref().expect("it is there until the last holder is gone")
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime().handle().block_on(future)
    }

    /// Does it on threads of its own, whoever awaits it.
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, BlobError>> + Send + 'static,
    ) -> impl Future<Output = Result<T, BlobError>> + Send + 'static {
        let task = self.runtime().spawn(future);
        async move { task.await.unwrap_or_else(|error| Err(object_store::Error::from(error).into())) }
    }

    /// Puts a piece, whatever was there, and gives its BLAKE3; when it returns, the piece is durable.
    pub fn put(&self, name: Name, bytes: Bytes) -> Result<Digest, BlobError> {
        self.wait(put(self.objects.clone(), name, bytes))
    }

    /// The same, to be awaited.
    pub fn begin_put(
        &self,
        name: Name,
        bytes: Bytes,
    ) -> impl Future<Output = Result<Digest, BlobError>> + Send + 'static {
        self.spawn(put(self.objects.clone(), name, bytes))
    }

    /// A piece whose BLAKE3 is this; nothing where there is no object.
    ///
    /// *Errors*: [`BlobError::Damaged`] where other bytes are there.
    pub fn get(&self, name: Name, blake3: Digest) -> Result<Option<Bytes>, BlobError> {
        self.wait(get(self.objects.clone(), name, blake3, self.damaged.clone()))
    }

    /// The same, to be awaited.
    pub fn begin_get(
        &self,
        name: Name,
        blake3: Digest,
    ) -> impl Future<Output = Result<Option<Bytes>, BlobError>> + Send + 'static {
        self.spawn(get(self.objects.clone(), name, blake3, self.damaged.clone()))
    }

    /// Removes a piece, if it is there.
    pub fn remove(&self, name: Name) -> Result<(), BlobError> {
        match self.wait(self.objects.delete(&name.path())) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows every piece and when it was put, holding few in memory; stops when `visit` says so. *Order*: any.
    pub fn list(&self, mut visit: impl FnMut(Name, UnixMillis) -> bool) -> Result<(), BlobError> {
        self.wait(async {
            let mut all = self.objects.list(None);
            while let Some(found) = std::future::poll_fn(|cx| all.as_mut().poll_next(cx)).await {
                let found = found?;
                let put = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0);
                if let Some(name) = Name::read(&found.location)
                    && !visit(name, UnixMillis(put))
                {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Removes files that a hub which was killed had begun to write, and that no object store lists, once they are
    /// this old. Says how many.
    pub fn remove_begun(&self, age: Duration) -> std::io::Result<u64> {
        let Some(directory) = &self.directory else { return Ok(0) };
        let mut removed = 0;
        for first in entries(directory)? {
            for blob in entries(&first)? {
                for file in entries(&blob)? {
                    let is_begun = file.file_name().is_some_and(|name| name.to_string_lossy().contains('#'));
                    if is_begun && is_older(&file, age) {
                        std::fs::remove_file(&file)?;
                        removed += 1;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Pieces that were found damaged since the start.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

async fn put(objects: Arc<dyn ObjectStore>, name: Name, bytes: Bytes) -> Result<Digest, BlobError> {
    assert!(bytes.len() as u64 <= INPUT_PIECE_BYTES, "a piece is no larger than a piece");
    let blake3 = Digest::of(&bytes);
    objects.put(&name.path(), PutPayload::from_bytes(bytes)).await?;
    Ok(blake3)
}

async fn get(
    objects: Arc<dyn ObjectStore>,
    name: Name,
    blake3: Digest,
    damaged: Arc<AtomicU64>,
) -> Result<Option<Bytes>, BlobError> {
    let found = match objects.get(&name.path()).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Whatever was put in its place is not read into memory however large it is.
    if found.meta.size <= INPUT_PIECE_BYTES {
        let bytes = found.bytes().await?;
        if Digest::of(&bytes) == blake3 {
            return Ok(Some(bytes));
        }
    }
    damaged.fetch_add(1, Ordering::Relaxed);
    Err(BlobError::Damaged(name))
}

/// What lies in a directory; nothing where it is none, or is gone.
fn entries(directory: &FilePath) -> std::io::Result<Vec<PathBuf>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::read_dir(directory) {
        Ok(found) => found.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn is_older(file: &FilePath, age: Duration) -> bool {
    let changed = std::fs::metadata(file).and_then(|found| found.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|since| since >= age))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(piece: u64) -> Name {
        Name { blob: Digest([0xab; 32]), piece }
    }

    fn in_directory() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&Place::Directory(folder.path().join("blobs"))).unwrap();
        (folder, blobs)
    }

    fn listed(blobs: &Blobs) -> Vec<Name> {
        let mut found = Vec::new();
        blobs
            .list(|name, _| {
                found.push(name);
                true
            })
            .unwrap();
        found.sort();
        found
    }

    #[test]
    fn a_piece_is_got_as_it_was_put_and_is_gone_once_removed_in_memory_and_in_files() {
        let (folder, files) = in_directory();
        for blobs in [files, Blobs::open(&Place::Memory).unwrap()] {
            let bytes = Bytes::from_static(b"a piece");
            let digest = Digest::of(&bytes);
            assert_eq!(blobs.get(name(0), digest).unwrap(), None);
            blobs.put(name(0), Bytes::from_static(b"what another upload said")).unwrap();
            blobs.put(name(0), bytes.clone()).unwrap();
            blobs.put(name(7), bytes.clone()).unwrap();
            assert_eq!(blobs.get(name(0), digest).unwrap(), Some(bytes));
            assert_eq!(listed(&blobs), [name(0), name(7)]);
            blobs.remove(name(0)).unwrap();
            blobs.remove(name(0)).unwrap();
            assert_eq!((blobs.get(name(0), digest).unwrap(), listed(&blobs)), (None, vec![name(7)]));
        }
        let path = folder.path().join("blobs/ab").join("ab".repeat(32)).join("00000007");
        assert_eq!(std::fs::read(path).unwrap(), b"a piece", "a file is found where the book says");
    }

    #[test]
    fn a_piece_whose_bytes_were_changed_cut_or_replaced_is_no_piece() {
        let (folder, blobs) = in_directory();
        let digest = Digest::of(b"a piece");
        blobs.put(name(0), Bytes::from_static(b"a piece")).unwrap();
        let path = folder.path().join("blobs").join(name(0).to_string());
        let huge = vec![0; INPUT_PIECE_BYTES as usize + 1];
        for (count, bytes) in [&b"a niece"[..], b"a pie", b"", &huge].into_iter().enumerate() {
            std::fs::write(&path, bytes).unwrap();
            let error = blobs.get(name(0), digest).unwrap_err();
            assert!(matches!(error, BlobError::Damaged(damaged) if damaged == name(0)), "{error}");
            assert_eq!(blobs.damaged(), count as u64 + 1);
        }
    }

    #[test]
    fn what_a_killed_hub_had_begun_to_write_is_removed_once_it_is_old_and_pieces_are_not() {
        let (folder, blobs) = in_directory();
        blobs.put(name(0), Bytes::from_static(b"a piece")).unwrap();
        let begun = folder.path().join("blobs").join(format!("{}#1", name(1)));
        std::fs::write(&begun, b"half a pie").unwrap();
        assert_eq!(listed(&blobs), [name(0)]);
        assert_eq!(blobs.remove_begun(Duration::from_secs(60)).unwrap(), 0, "it may be being written");
        assert_eq!(blobs.remove_begun(Duration::ZERO).unwrap(), 1);
        assert!(!begun.exists());
        assert_eq!(listed(&blobs), [name(0)]);
    }

    #[test]
    fn a_place_is_read_as_it_is_written_and_others_are_refused() {
        let bucket = |prefix: &str| Place::S3 { bucket: "b".into(), prefix: prefix.into() };
        let good = [
            ("file:///var/blobs", Place::Directory("/var/blobs".into())),
            ("s3://b/", bucket("")),
            ("s3://b/tessera/one", bucket("tessera/one")),
            ("memory:", Place::Memory),
        ];
        for (text, place) in good {
            assert_eq!(text.parse::<Place>(), Ok(place.clone()));
            assert_eq!(place.to_string(), text);
        }
        assert_eq!("s3://b".parse::<Place>(), Ok(bucket("")));
        for bad in ["", "/var/blobs", "file://blobs", "s3://", "s3:///x", "s3://b//x", "http://b", "memory"] {
            assert!(bad.parse::<Place>().unwrap_err().to_string().contains("file:///"), "{bad}");
        }
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn a_hub_that_was_built_without_s3_says_so() {
        let error = Blobs::open(&"s3://b/x".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("s3://b/x") && error.contains("feature `s3`"), "{error}");
    }
}
