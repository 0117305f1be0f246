//! The data directory: the agent's identity and the key of its hub.
//!
//! Owns `identity.pk8` (Ed25519, PKCS#8, readable by its owner only), `hub.key` (hex text), `hubs` (an address a line,
//! as a hub told them) and `lock`.
//! Files appear whole or not at all: written beside, synced, renamed.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::signature::{Ed25519KeyPair, KeyPair};
use tessera_protocol::address::HubAddress;
use tessera_protocol::id::{AgentId, parse_hex};

use crate::tls::HubKey;

const IDENTITY_FILE: &str = "identity.pk8";
const PIN_FILE: &str = "hub.key";
const HUBS_FILE: &str = "hubs";
const LOCK_FILE: &str = "lock";
/// Largest file read here; an Ed25519 PKCS#8 document has 48 to 85 bytes, a key as text 65, an address at most 260 and
/// there are [`limits::HUBS_MAX`].
const FILE_BYTES_MAX: u64 = 8 << 10;

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum HomeError {
    /// A file or the directory could not be read or written.
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another agent runs with this directory.
    InUse {
        /// The directory.
        data: PathBuf,
    },
    /// Others than its owner may read the identity.
    IdentityExposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The identity file holds no Ed25519 key.
    IdentityMalformed {
        /// The file.
        path: PathBuf,
    },
    /// The hub's key file holds no key.
    PinMalformed {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random numbers for a new key.
    NoRandomness,
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HomeError::File { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())
            }
            HomeError::InUse { data } => write!(
                f,
                "another agent runs with {}: give each agent a --data directory of its own",
                data.display()
            ),
            HomeError::IdentityExposed { path, mode } => write!(
                f,
                "others may read the agent's identity {path} (mode {mode:04o}): if nobody has, run `chmod 600 {path}`; \
                 else remove it and enrol again with a new token",
                path = path.display()
            ),
            HomeError::IdentityMalformed { path } => write!(
                f,
                "{} is not an Ed25519 key in PKCS#8: restore it, or remove it and enrol again with a new token",
                path.display()
            ),
            HomeError::PinMalformed { path } => write!(
                f,
                "{} is not a hub's key (64 lower-case hex digits): remove it and start with --token",
                path.display()
            ),
            HomeError::NoRandomness => f.write_str("the system gave no random numbers for a new identity"),
        }
    }
}

impl std::error::Error for HomeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HomeError::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// An open data directory. Only one agent has it open at a time.
pub(crate) struct Home {
    data: PathBuf,
    pkcs8: Vec<u8>,
    public_key: [u8; 32],
    /// Released when closed, also by the death of the process.
    _lock: File,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("data", &self.data).field("agent", &self.agent()).finish_non_exhaustive()
    }
}

impl Home {
    /// Opens the directory; makes it, and an identity in it, when there is none.
    pub(crate) fn open(data: &Path) -> Result<Home, HomeError> {
        make_directory(data).map_err(failed("make the directory", data))?;
        let lock = lock(data)?;
        let path = data.join(IDENTITY_FILE);
        let pkcs8 = match read(&path) {
            Ok((pkcs8, mode)) => {
                if let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) {
                    return Err(HomeError::IdentityExposed { path, mode });
                }
                pkcs8
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
                    .map_err(|_| HomeError::NoRandomness)?;
                write_whole(data, IDENTITY_FILE, document.as_ref()).map_err(failed("write", &path))?;
                document.as_ref().to_vec()
            }
            Err(source) => return Err(failed("read", &path)(source)),
        };
        let malformed = || HomeError::IdentityMalformed { path: path.clone() };
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| malformed())?;
        let public_key = pair.public_key().as_ref().try_into().map_err(|_| malformed())?;
        Ok(Home { data: data.to_owned(), pkcs8, public_key, _lock: lock })
    }

    /// The secret document: for TLS, never for a log.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub(crate) fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// The id of the identity.
    pub(crate) fn agent(&self) -> AgentId {
        AgentId::of_key(&self.public_key)
    }

    /// The key of the hub that took this agent, if one has.
    pub(crate) fn pinned(&self) -> Result<Option<HubKey>, HomeError> {
        let path = self.pin_file();
        match read(&path) {
            Ok((text, _)) => {
                match std::str::from_utf8(&text).ok().and_then(|text| parse_hex(text.trim_end())) {
                    Some(key) => Ok(Some(HubKey(key))),
                    None => Err(HomeError::PinMalformed { path }),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Keeps the hub's key for later starts.
    pub(crate) fn pin(&self, key: HubKey) -> Result<(), HomeError> {
        write_whole(&self.data, PIN_FILE, format!("{key}\n").as_bytes())
            .map_err(failed("write", &self.pin_file()))
    }

    /// Where a hub said that hubs are. What is no address is left out: the hub that was given tells again.
    pub(crate) fn hubs(&self) -> Result<Vec<HubAddress>, HomeError> {
        let path = self.data.join(HUBS_FILE);
        match read(&path) {
            Ok((text, _)) => {
                Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Keeps where hubs are for later starts.
    pub(crate) fn keep_hubs(&self, hubs: &[HubAddress]) -> Result<(), HomeError> {
        let text: String = hubs.iter().map(|hub| format!("{hub}\n")).collect();
        write_whole(&self.data, HUBS_FILE, text.as_bytes())
            .map_err(failed("write", &self.data.join(HUBS_FILE)))
    }

    /// Where the hub's key is kept.
    pub(crate) fn pin_file(&self) -> PathBuf {
        self.data.join(PIN_FILE)
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    move |source| HomeError::File { doing, path: path.to_owned(), source }
}

fn make_directory(data: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(data)
}

fn lock(data: &Path) -> Result<File, HomeError> {
    let path = data.join(LOCK_FILE);
    let file = private(OpenOptions::new().write(true).create(true).truncate(false))
        .open(&path)
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HomeError::InUse { data: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}

/// A file's bytes and, where the system has them, its permissions.
fn read(path: &Path) -> io::Result<(Vec<u8>, Option<u32>)> {
    let file = File::open(path)?;
    #[cfg(unix)]
    let mode = Some(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o7777);
    #[cfg(not(unix))]
    let mode = None;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

/// Writes a file that only its owner may read. It appears whole or not at all.
fn write_whole(data: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = data.join(format!("{name}.new"));
    // What a crash left behind; the lock keeps others out.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, data.join(name))?;
    // The name is durable once its directory is; other systems do not open directories.
    #[cfg(unix)]
    File::open(data)?.sync_all()?;
    Ok(())
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_identity_is_private_kept_and_refused_once_others_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("deep/agent");
        let first = Home::open(&data).expect("a new home");
        let agent = first.agent();
        let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join(IDENTITY_FILE))), (0o700, 0o600));
        assert!(!format!("{first:?}").contains("pkcs8"));
        drop(first);
        assert_eq!(Home::open(&data).expect("the same home").agent(), agent);

        fs::set_permissions(data.join(IDENTITY_FILE), fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = Home::open(&data).expect_err("exposed").to_string();
        assert!(error.contains("chmod 600") && error.contains("0640"), "{error}");
    }

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Home::open(folder.path()).expect("a new home");
        let error = Home::open(folder.path()).expect_err("in use");
        assert!(matches!(error, HomeError::InUse { .. }));
        drop(first);
        assert!(Home::open(folder.path()).is_ok());
    }

    #[test]
    fn where_hubs_are_is_kept_and_what_is_no_address_does_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::open(folder.path()).expect("a new home");
        assert_eq!(home.hubs().expect("readable"), []);
        let hubs: Vec<HubAddress> =
            ["a.example:1", "[::1]:2"].iter().map(|hub| hub.parse().expect("an address")).collect();
        home.keep_hubs(&hubs).expect("writable");
        assert_eq!(home.hubs().expect("readable"), hubs);
        fs::write(folder.path().join(HUBS_FILE), b"nonsense\n\xff\n[::1]:2\n").expect("writable");
        assert_eq!(home.hubs().expect("readable"), hubs[1..]);
    }

    #[test]
    fn the_hubs_key_is_kept_and_garbage_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::open(folder.path()).expect("a new home");
        assert_eq!(home.pinned().expect("readable"), None);
        home.pin(HubKey([0xab; 32])).expect("writable");
        assert_eq!(home.pinned().expect("readable"), Some(HubKey([0xab; 32])));
        fs::write(home.pin_file(), "abc").expect("writable");
        assert!(matches!(home.pinned(), Err(HomeError::PinMalformed { .. })));
        drop(home);
        fs::write(folder.path().join(IDENTITY_FILE), "not a key").expect("writable");
        assert!(matches!(Home::open(folder.path()), Err(HomeError::IdentityMalformed { .. })));
    }
}
