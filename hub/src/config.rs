//! What an operator sets: flags over the configuration file over defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tessera_hub_core::scheduler::{Share, Sharing};
use tessera_storage::foundationdb::{Place, PlaceError};

use crate::advertise::{Advertise, HostPort, ParseHostPortError};
use crate::blobs::{self, ParsePlaceError};
use crate::inputs::quota::Limits;
use crate::inputs::wanted::GRACE_DEFAULT;
use crate::retention::Policy;

/// Where clients connect unless told otherwise.
pub const HTTP_DEFAULT: &str = "127.0.0.1:7840";
/// Where agents connect unless told otherwise.
pub const QUIC_DEFAULT: &str = "127.0.0.1:7843";
/// Least memory for numbers: some of the largest tiles, each of 8 MiB, fit each share of it.
pub const VMEM_BYTES_MIN: u64 = 64 << 20;
/// Memory for numbers where the machine does not say how much it has.
const VMEM_BYTES_UNKNOWN: u64 = 1 << 30;

/// Flags of `hub serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Configuration file (TOML): data, store, blobs, http, quic, advertise, lanes, vmem_bytes, log, retention,
    /// projects; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store, made when missing [default: $XDG_DATA_HOME/tessera-hub]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where files and products lie: file:///path, s3://bucket/prefix or memory: [default: blobs in the directory of
    /// the store]
    #[arg(long, value_name = "URL")]
    pub blobs: Option<String>,
    /// A FoundationDB cluster to keep the state in instead: fdb:CLUSTER_FILE or fdb:CLUSTER_FILE?prefix=NAME
    #[arg(long, value_name = "URL")]
    pub store: Option<Place>,
    /// Address of the HTTP API [default: 127.0.0.1:7840]
    #[arg(long, value_name = "HOST:PORT")]
    pub http: Option<SocketAddr>,
    /// Address agents connect to by QUIC [default: 127.0.0.1:7843]
    #[arg(long, value_name = "HOST:PORT")]
    pub quic: Option<SocketAddr>,
    /// Where other hubs on the same cluster and their clients reach this one's API [default: the address of --http]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_http: Option<HostPort>,
    /// Where agents reach this hub, as the hubs on the same cluster tell them [default: the address of --quic]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_quic: Option<HostPort>,
    /// Lanes, one thread each [default: one per core]
    #[arg(long, value_name = "N")]
    pub lanes: Option<u16>,
    /// Memory for numbers on their way to results, at least 67108864; what does not fit goes to files
    /// [default: a quarter of the machine's]
    #[arg(long, value_name = "BYTES")]
    pub vmem_bytes: Option<u64>,
    /// What to log: error, warn, info, debug, or a filter as in tracing's EnvFilter [default: info]
    #[arg(long, env = "TESSERA_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Announce the hub as one JSON line on stdout, for programs that start it
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    blobs: Option<String>,
    store: Option<String>,
    http: Option<SocketAddr>,
    quic: Option<SocketAddr>,
    #[serde(default)]
    advertise: AdvertiseFile,
    lanes: Option<u16>,
    vmem_bytes: Option<u64>,
    log: Option<String>,
    #[serde(default)]
    retention: RetentionFile,
    #[serde(default)]
    projects: BTreeMap<String, ProjectShare>,
}

/// Where the hub is reached, as the file says it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdvertiseFile {
    http: Option<String>,
    quic: Option<String>,
}

/// How long things are kept, as the file says it: `"90d"`, `"36h"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionFile {
    blobs: Option<String>,
    finished: Option<String>,
}

/// How long things are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A blob that no job refers to, after its last use.
    pub blobs: Duration,
    /// Finished jobs.
    pub finished: Policy,
}

fn retention(
    file: RetentionFile,
    projects: &BTreeMap<String, ProjectShare>,
) -> Result<Retention, ConfigError> {
    let read = |field: String, text: &Option<String>| {
        let time = text.as_ref().map(|text| {
            humantime::parse_duration(text).map_err(|source| ConfigError::Time {
                field,
                text: text.clone(),
                source,
            })
        });
        time.transpose()
    };
    let blobs = read("retention.blobs".to_owned(), &file.blobs)?.unwrap_or(GRACE_DEFAULT);
    let default = read("retention.finished".to_owned(), &file.finished)?;
    let mut named = BTreeMap::new();
    for (name, of) in projects {
        if let Some(kept) = read(format!("projects.{name}.finished"), &of.finished)? {
            named.insert(name.clone(), Some(kept));
        }
    }
    let default = named.remove("default").flatten().or(default);
    Ok(Retention { blobs, finished: Policy { default, projects: named } })
}

/// What a project may have, as the file says it; `[projects.default]` is for those that are not named.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectShare {
    #[serde(default = "one")]
    weight: NonZeroU32,
    in_flight_max: Option<u64>,
    blob_bytes_max: Option<u64>,
    finished: Option<String>,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn quotas(projects: &BTreeMap<String, ProjectShare>) -> Limits {
    let mut projects: BTreeMap<String, Option<u64>> =
        projects.iter().map(|(name, of)| (name.clone(), of.blob_bytes_max)).collect();
    let default = projects.remove("default").flatten();
    Limits { default, projects }
}

fn sharing(projects: BTreeMap<String, ProjectShare>) -> Sharing {
    let share = |of: ProjectShare| Share { weight: of.weight.get(), in_flight_max: of.in_flight_max };
    let mut projects: BTreeMap<String, Share> =
        projects.into_iter().map(|(name, of)| (name, share(of))).collect();
    let default = projects.remove("default").unwrap_or_default();
    Sharing { default, projects }
}

/// A hub's settings, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Directory of the store.
    pub data: PathBuf,
    /// Where blobs lie.
    pub blobs: blobs::Place,
    /// The cluster that the store lies in instead.
    pub cluster: Option<Place>,
    /// Address of the HTTP API.
    pub http: SocketAddr,
    /// Address agents connect to.
    pub quic: SocketAddr,
    /// Where others reach it, where many hubs share a store.
    pub advertise: Advertise,
    /// Number of lanes.
    pub lanes: u16,
    /// What numbers on their way to results may take of memory.
    pub vmem_bytes: u64,
    /// What projects may have of each lane.
    pub sharing: Sharing,
    /// What projects may keep.
    pub quotas: Limits,
    /// How long things are kept.
    pub retention: Retention,
    /// Log filter.
    pub log: String,
    /// Announce in JSON.
    pub json: bool,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A time is none.
    Time {
        /// Where it stands.
        field: String,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: humantime::DurationError,
    },
    /// The place for blobs is none.
    Blobs(ParsePlaceError),
    /// A place where the hub is to be reached is none.
    Advertise(ParseHostPortError),
    /// The directory for blobs is a relative one, and there is no working directory.
    BlobsDirectory(std::io::Error),
    /// What the file calls a store is none.
    Store(PlaceError),
    /// No directory for the store was named, and there is no home directory.
    NoDataDirectory,
    /// Too few or too many lanes.
    Lanes {
        /// How many were asked for.
        asked: u16,
    },
    /// Too little memory for numbers.
    Vmem {
        /// How much was asked for. *Units*: bytes.
        asked: u64,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            ConfigError::Parse { path, source } => write!(f, "{}: {source}", path.display()),
            ConfigError::Time { field, text, source } => {
                write!(f, "{field} = \"{text}\": {source}; expected a time as in \"90d\" or \"36h\"")
            }
            ConfigError::Blobs(error) => error.fmt(f),
            ConfigError::Advertise(error) => write!(f, "advertise: {error}"),
            ConfigError::BlobsDirectory(error) => write!(f, "no directory for blobs: {error}"),
            ConfigError::Store(error) => write!(f, "store: {error}"),
            ConfigError::NoDataDirectory => {
                f.write_str("no directory for the hub's data: pass --data DIR, or set HOME or XDG_DATA_HOME")
            }
            ConfigError::Lanes { asked } => {
                write!(f, "lanes = {asked}: must be from 1 to {}", crate::quic::LANES_MAX)
            }
            ConfigError::Vmem { asked } => {
                write!(f, "vmem_bytes = {asked}: must be at least {VMEM_BYTES_MIN}")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Read { source, .. } => Some(source),
            ConfigError::Parse { source, .. } => Some(source),
            ConfigError::Time { source, .. } => Some(source),
            ConfigError::Blobs(error) => Some(error),
            ConfigError::Advertise(error) => Some(error),
            ConfigError::BlobsDirectory(error) => Some(error),
            ConfigError::Store(error) => Some(error),
            ConfigError::NoDataDirectory | ConfigError::Lanes { .. } | ConfigError::Vmem { .. } => None,
        }
    }
}

/// Puts flags, file and defaults together.
pub fn resolve(args: ServeArgs) -> Result<HubConfig, ConfigError> {
    let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u16);
    let lanes = args.lanes.or(file.lanes).unwrap_or_else(cores);
    if !(1..=crate::quic::LANES_MAX).contains(&lanes) {
        return Err(ConfigError::Lanes { asked: lanes });
    }
    let vmem_bytes = args.vmem_bytes.or(file.vmem_bytes).unwrap_or_else(vmem_default);
    if vmem_bytes < VMEM_BYTES_MIN {
        return Err(ConfigError::Vmem { asked: vmem_bytes });
    }
    let named = file.store.map(|text| text.parse().map_err(ConfigError::Store)).transpose()?;
    let place = |flag: Option<HostPort>, file: Option<String>| match (flag, file) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, file) => file.map(|text| text.parse()).transpose().map_err(ConfigError::Advertise),
    };
    let constant = |text: &str| text.parse().expect("the default addresses are addresses");
    let data = data_directory(args.data.or(file.data))?;
    Ok(HubConfig {
        blobs: match args.blobs.or(file.blobs) {
            Some(text) => text.parse().map_err(ConfigError::Blobs)?,
            None => {
                let beside = std::path::absolute(data.join("blobs"));
                blobs::Place::Directory(beside.map_err(ConfigError::BlobsDirectory)?)
            }
        },
        data,
        cluster: args.store.or(named),
        http: args.http.or(file.http).unwrap_or_else(|| constant(HTTP_DEFAULT)),
        quic: args.quic.or(file.quic).unwrap_or_else(|| constant(QUIC_DEFAULT)),
        advertise: Advertise {
            http: place(args.advertise_http, file.advertise.http)?,
            quic: place(args.advertise_quic, file.advertise.quic)?,
        },
        lanes,
        quotas: quotas(&file.projects),
        retention: retention(file.retention, &file.projects)?,
        vmem_bytes,
        sharing: sharing(file.projects),
        log: args.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
        json: args.json,
    })
}

/// A quarter of the machine's memory, but for a machine that does not say.
fn vmem_default() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.map_or(VMEM_BYTES_UNKNOWN, |kibibytes| kibibytes * 1_024 / 4).max(VMEM_BYTES_MIN)
}

/// The directory named, or the one under the user's own.
fn data_directory(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named
        .or_else(|| absolute("XDG_DATA_HOME").map(|home| home.join("tessera-hub")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share/tessera-hub")))
        .ok_or(ConfigError::NoDataDirectory)
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        std::fs::write(&path, "data = \"/d\"\nlanes = 3\nhttp = \"127.0.0.1:1\"\n").unwrap();
        let args = ServeArgs { config: Some(path), lanes: Some(2), ..ServeArgs::default() };
        let config = resolve(args).unwrap();
        assert_eq!((config.lanes, config.http.port(), config.quic.port()), (2, 1, 7843));
        assert_eq!(config.data, PathBuf::from("/d"));
        assert_eq!(config.blobs, blobs::Place::Directory("/d/blobs".into()));
    }

    #[test]
    fn blobs_lie_where_they_are_said_to_and_nowhere_by_mistake() {
        let resolve = |blobs: &str| {
            let blobs = Some(blobs.to_owned());
            resolve(ServeArgs { data: Some("/d".into()), blobs, ..ServeArgs::default() })
        };
        assert_eq!(resolve("memory:").unwrap().blobs, blobs::Place::Memory);
        assert!(resolve("/var/blobs").unwrap_err().to_string().contains("file:///an/absolute/path"));
    }

    #[test]
    fn a_store_in_a_cluster_is_named_by_flag_or_file_and_a_wrong_one_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        let with = |text: &str| {
            std::fs::write(&path, format!("data = \"/d\"\n{text}")).unwrap();
            ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }
        };
        assert_eq!(resolve(with("")).unwrap().cluster, None);
        let of_file = with("store = \"fdb:/etc/foundationdb/fdb.cluster?prefix=lab\"\n");
        assert_eq!(resolve(of_file.clone()).unwrap().cluster.unwrap().name(), "lab");
        let flag = ServeArgs { store: Some("fdb:/f".parse().unwrap()), ..of_file };
        assert_eq!(resolve(flag).unwrap().cluster.unwrap().to_string(), "fdb:/f");
        let error = resolve(with("store = \"/var/lib\"\n")).unwrap_err().to_string();
        assert!(error.contains("store: `/var/lib` is no store: write fdb:"), "{error}");
    }

    #[test]
    fn projects_get_the_weights_and_quotas_that_the_file_gives_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        let text = "data = \"/d\"\n[retention]\nblobs = \"36h\"\nfinished = \"90d\"\n\
            [projects.risk]\nweight = 3\nblob_bytes_max = 5\nfinished = \"1day\"\n[projects.default]\nin_flight_max = 40\n";
        std::fs::write(&path, text).unwrap();
        let config = resolve(ServeArgs { config: Some(path.clone()), ..ServeArgs::default() }).unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(config.retention.blobs, day * 3 / 2);
        let projects = BTreeMap::from([("risk".to_owned(), Some(day))]);
        assert_eq!(config.retention.finished, Policy { default: Some(day * 90), projects });
        assert_eq!(config.quotas.projects, BTreeMap::from([("risk".to_owned(), Some(5))]));
        let sharing = config.sharing;
        assert_eq!(sharing.projects["risk"], Share { weight: 3, in_flight_max: None });
        assert_eq!(sharing.default, Share { weight: 1, in_flight_max: Some(40) });
        std::fs::write(&path, "data = \"/d\"\n[projects.risk]\nweight = 0\n").unwrap();
        let error = resolve(ServeArgs { config: Some(path), ..ServeArgs::default() }).unwrap_err();
        assert!(error.to_string().contains("nonzero"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        std::fs::write(&path, "lanes = 1\nlane = 2\n").unwrap();
        let error =
            resolve(ServeArgs { config: Some(path), ..ServeArgs::default() }).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("unknown field `lane`"), "{error}");
    }

    #[test]
    fn where_a_hub_is_reached_is_said_by_flag_or_file_and_a_place_that_is_none_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        let text = "data = \"/d\"\n[advertise]\nhttp = \"a.lab:1\"\nquic = \"a.lab:2\"\n";
        std::fs::write(&path, text).unwrap();
        let flag = "b.lab:3".parse().ok();
        let args =
            ServeArgs { config: Some(path.clone()), advertise_quic: flag.clone(), ..ServeArgs::default() };
        let config = resolve(args).unwrap();
        assert_eq!(config.advertise, Advertise { http: "a.lab:1".parse().ok(), quic: flag });
        std::fs::write(&path, text.replace("a.lab:1", "a.lab")).unwrap();
        let error = resolve(ServeArgs { config: Some(path), ..ServeArgs::default() }).unwrap_err();
        assert!(error.to_string().starts_with("advertise: `a.lab` is not where"), "{error}");
    }

    #[test]
    fn a_hub_without_lanes_is_refused() {
        let args = ServeArgs { lanes: Some(0), data: Some("/d".into()), ..ServeArgs::default() };
        assert_eq!(resolve(args).unwrap_err().to_string(), "lanes = 0: must be from 1 to 256");
    }

    #[test]
    fn memory_for_numbers_is_set_by_flag_or_file_and_too_little_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.toml");
        std::fs::write(&path, "data = \"/d\"\nvmem_bytes = 100000000\n").unwrap();
        let of_file = ServeArgs { config: Some(path), ..ServeArgs::default() };
        assert_eq!(resolve(of_file.clone()).unwrap().vmem_bytes, 100_000_000);
        let flag = ServeArgs { vmem_bytes: Some(1 << 30), ..of_file.clone() };
        assert_eq!(resolve(flag).unwrap().vmem_bytes, 1 << 30);
        let error = resolve(ServeArgs { vmem_bytes: Some(5), ..of_file }).unwrap_err().to_string();
        assert_eq!(error, "vmem_bytes = 5: must be at least 67108864");
    }
}
