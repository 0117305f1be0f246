//! Which hub a command talks to: arguments first, then the environment, then a file.
//!
//! Owns the configuration file's fields and place. Arguments and environment come from the caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where a hub listens when nobody says otherwise.
pub const DEFAULT_HUB: &str = "http://127.0.0.1:7840";
/// Most bytes of a configuration file or key file that are read.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the configuration file may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the hub, or of several on one store with commas between.
    pub hub: Option<String>,
    /// API key.
    pub api_key: Option<String>,
}

/// Why a configuration or key file is of no use.
#[derive(Debug)]
pub enum ConfigError {
    /// It cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not the TOML it should be.
    Toml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// The key file is empty.
    NoKey {
        /// Which.
        path: PathBuf,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            ConfigError::Toml { path, source } => {
                write!(
                    f,
                    "{}: {}\nhint: it may hold `hub` and `api_key`",
                    path.display(),
                    source.to_string().trim_end()
                )
            }
            ConfigError::NoKey { path } => write!(f, "{}: empty; it must hold an API key", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { source, .. } => Some(source),
            ConfigError::Toml { source, .. } => Some(source),
            ConfigError::NoKey { .. } => None,
        }
    }
}

/// Where the configuration file is, given `XDG_CONFIG_HOME` and `HOME`. *Source*: XDG base directories.
pub fn path(xdg_config_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    let base = match xdg_config_home {
        Some(folder) if folder.is_absolute() => folder.to_owned(),
        _ => home?.join(".config"),
    };
    Some(base.join("tessera").join("config.toml"))
}

/// Reads the configuration; a file that is not there holds nothing.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = match read(path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(source) => {
            return Err(ConfigError::Unreadable { path: path.to_owned(), source });
        }
    };
    toml::from_str(&text).map_err(|source| ConfigError::Toml { path: path.to_owned(), source })
}

/// The key in a file: its first line.
pub fn key_in(path: &Path) -> Result<String, ConfigError> {
    let text = read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    match text.lines().next().map(str::trim) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(ConfigError::NoKey { path: path.to_owned() }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(path)?, FILE_BYTES_MAX), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_looked_for_where_the_xdg_rules_say() {
        let at = |xdg: Option<&str>, home: Option<&str>| path(xdg.map(Path::new), home.map(Path::new));
        assert_eq!(at(Some("/x"), Some("/h")), Some(PathBuf::from("/x/tessera/config.toml")));
        assert_eq!(at(Some("relative"), Some("/h")), Some(PathBuf::from("/h/.config/tessera/config.toml")));
        assert_eq!(at(None, None), None);
    }

    #[test]
    fn a_missing_file_is_empty_and_a_wrong_one_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(load(&path).unwrap(), Config::default());
        std::fs::write(&path, "hub = \"http://h:1\"\napi_key = \"tsk_1\"\n").unwrap();
        assert_eq!(load(&path).unwrap().api_key.as_deref(), Some("tsk_1"));
        std::fs::write(&path, "key = 1\n").unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert!(message.contains("unknown field `key`, expected `hub` or `api_key`"), "{message}");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(key_in(&path), Err(ConfigError::NoKey { .. })));
        std::fs::write(&path, " tsk_2 \n").unwrap();
        assert_eq!(key_in(&path).unwrap(), "tsk_2");
    }
}
