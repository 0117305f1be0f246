//! Where a store lies in a FoundationDB cluster, and how its keys lie there.
//!
//! Owns [`Place`], how it is written, and the layout: `name/` before every key of the store, and
//! `name/\xff` before what the engine keeps for itself, which no key of a store reaches since none
//! starts with `\xff`. No name holds a slash, so no store lies inside another.

use crate::engine::KeyRange;
use crate::limits;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The name of a store whose address says none.
pub const NAME_DEFAULT: &str = "tessera";

/// How an address starts.
const SCHEME: &str = "fdb:";
/// What stands before the name of a store.
const PREFIX_KEY: &str = "prefix=";

/// A store in a cluster: `fdb:CLUSTER_FILE`, or `fdb:CLUSTER_FILE?prefix=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    cluster_file: String,
    name: String,
}

impl Place {
    /// The store called `name` in the cluster of `cluster_file`.
    ///
    /// *Errors*: see [`PlaceError`].
    pub fn new(cluster_file: &str, name: &str) -> Result<Place, PlaceError> {
        if cluster_file.is_empty() || cluster_file.contains('\0') {
            return Err(PlaceError::NoClusterFile);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > limits::PREFIX_BYTES_MAX || !name.bytes().all(allowed) {
            return Err(PlaceError::Name { name: name.to_owned() });
        }
        Ok(Place { cluster_file: cluster_file.to_owned(), name: name.to_owned() })
    }

    /// The file that says where the cluster is.
    pub fn cluster_file(&self) -> &Path {
        Path::new(&self.cluster_file)
    }

    /// The store's name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where all that belongs to the store lies, what the engine keeps for itself too.
    pub fn everything(&self) -> KeyRange {
        KeyRange::prefix(format!("{}/", self.name))
    }

    #[cfg(any(test, feature = "foundationdb"))]
    pub(super) fn layout(&self) -> Layout {
        Layout { start: format!("{}/", self.name).into_bytes() }
    }

    #[cfg(feature = "foundationdb")]
    pub(super) fn cluster_file_text(&self) -> &str {
        &self.cluster_file
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Place, PlaceError> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| PlaceError::Scheme { text: text.to_owned() })?;
        match rest.split_once('?') {
            None => Place::new(rest, NAME_DEFAULT),
            Some((file, query)) => match query.strip_prefix(PREFIX_KEY) {
                Some(name) => Place::new(file, name),
                None => Err(PlaceError::Query { query: query.to_owned() }),
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.cluster_file)?;
        if self.name != NAME_DEFAULT {
            write!(f, "?{PREFIX_KEY}{}", self.name)?;
        }
        Ok(())
    }
}

/// Why a text names no store in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaceError {
    /// It does not start as an address of a cluster does.
    Scheme {
        /// The text.
        text: String,
    },
    /// It names no file.
    NoClusterFile,
    /// After the file comes something else than a name.
    Query {
        /// What comes.
        query: String,
    },
    /// The name cannot stand before keys.
    Name {
        /// The name.
        name: String,
    },
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Scheme { text } => write!(
                f,
                "`{text}` is no store: write fdb:/etc/foundationdb/fdb.cluster for a FoundationDB cluster, or \
                 nothing for a directory"
            ),
            PlaceError::NoClusterFile => f.write_str(
                "no cluster file: write fdb: and its path, as in fdb:/etc/foundationdb/fdb.cluster",
            ),
            PlaceError::Query { query } => write!(
                f,
                "`?{query}` after the cluster file: only ?prefix=NAME may stand there; it says which store of \
                 the cluster"
            ),
            PlaceError::Name { name } => write!(
                f,
                "the store cannot be called `{name}`: take 1 to {} letters, digits, dots, hyphens and underscores",
                limits::PREFIX_BYTES_MAX
            ),
        }
    }
}

impl std::error::Error for PlaceError {}

/// Turns keys of the store into keys of the cluster and back.
#[cfg(any(test, feature = "foundationdb"))]
#[derive(Clone, Debug)]
pub(super) struct Layout {
    start: Vec<u8>,
}

#[cfg(any(test, feature = "foundationdb"))]
impl Layout {
    /// Bytes that stand before each key. *Units*: bytes.
    pub(super) fn start_bytes(&self) -> usize {
        self.start.len()
    }

    /// The key of the cluster under which `key` lies.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.start, key].concat()
    }

    /// Where a range of the store lies in the cluster.
    pub(super) fn range(&self, range: &KeyRange) -> KeyRange {
        KeyRange::new(self.key(&range.start), self.key(&range.end))
    }

    /// The key of the store that lies under `key`. *Shape*: `key` is one that [`Layout::key`] made.
    pub(super) fn own(&self, key: &[u8]) -> Vec<u8> {
        let own = key.strip_prefix(&*self.start);
        own.expect("a read within the store gives keys of the store").to_vec()
    }

    /// Where a writer's marker lies.
    pub(super) fn marker(&self, writer: &[u8; 16]) -> Vec<u8> {
        [&*self.markers().start, writer].concat()
    }

    /// Where all writers' markers lie.
    pub(super) fn markers(&self) -> KeyRange {
        KeyRange::prefix([&*self.start, &[limits::RESERVED_FIRST_BYTE], b"m/"].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_file_and_name_and_is_written_as_it_was_read() {
        let place: Place = "fdb:/etc/foundationdb/fdb.cluster".parse().unwrap();
        assert_eq!(place.cluster_file(), Path::new("/etc/foundationdb/fdb.cluster"));
        assert_eq!(place.name(), "tessera");
        for text in ["fdb:/etc/foundationdb/fdb.cluster", "fdb:here.cluster?prefix=lab-2"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_address_is_named_with_what_to_write() {
        let cases = [
            ("/data", "`/data` is no store: write fdb:/etc"),
            ("fdb:", "no cluster file: write fdb:"),
            ("fdb:?prefix=a", "no cluster file"),
            ("fdb:/f?name=a", "only ?prefix=NAME"),
            ("fdb:/f?prefix=", "called ``: take 1 to 64"),
            ("fdb:/f?prefix=a/b", "called `a/b`"),
            ("fdb:/f?prefix=a&b", "called `a&b`"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Place::new("/f", &"n".repeat(65)).is_err());
        assert!(Place::new("/f\0", "n").is_err());
    }

    #[test]
    fn keys_lie_where_they_always_have() {
        let layout = Place::new("/f", "lab").unwrap().layout();
        assert_eq!(layout.key(b"job/1"), b"lab/job/1");
        assert_eq!(layout.start_bytes(), b"lab/".len());
        assert_eq!(layout.own(b"lab/job/1"), b"job/1");
        assert_eq!(layout.marker(&[7; 16]), [&b"lab/\xffm/"[..], &[7; 16]].concat());
    }

    #[test]
    fn no_key_of_a_store_meets_the_engines_own_nor_another_stores() {
        let (lab, lab2) = (Place::new("/f", "lab").unwrap(), Place::new("/f", "lab2").unwrap());
        let all = lab.layout().range(&KeyRange::prefix([]));
        let longest = vec![0xfe; limits::KEY_BYTES_MAX];
        assert!(all.contains(&lab.layout().key(&longest)));
        assert!(all.contains(&lab.layout().key(b"")));
        assert!(!all.contains(&lab.layout().marker(&[0; 16])));
        assert!(lab.layout().markers().contains(&lab.layout().marker(&[0xff; 16])));
        for own in [lab.layout().key(&longest), lab.layout().marker(&[0xff; 16])] {
            assert!(lab.everything().contains(&own));
            assert!(!lab2.everything().contains(&own));
            assert!(own.len() <= limits::CLUSTER_KEY_BYTES_MAX);
        }
    }
}
