//! What a job asks of the agents that compute it, besides its kernel and its memory.
//!
//! Owns the names of regions. It may not know how an agent is found.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// Where an agent is, by a name that its owner gave it. *Shape*: 1 to 32 lower-case ASCII letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Region(String);

impl Region {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseRegionError;

impl fmt::Display for ParseRegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a region's name is lower-case letters, digits and `-`, 1 to {} of them, as in eu-north",
            limits::REGION_BYTES_MAX
        )
    }
}

impl core::error::Error for ParseRegionError {}

impl FromStr for Region {
    type Err = ParseRegionError;
    fn from_str(text: &str) -> Result<Region, ParseRegionError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match (1..=limits::REGION_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits) {
            true => Ok(Region(text.to_owned())),
            false => Err(ParseRegionError),
        }
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Region, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What agents must be to get a job's shards, checks and retries included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// Whether they must have a GPU.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub gpu: bool,
    /// The least memory of their largest GPU; they must have one then. *Units*: bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
    /// What their GPU may be, by words of which the name that its driver gives has one, capitals or not: any when
    /// absent. The same GPU must have the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_models: Option<Vec<String>>,
    /// Where they may be; anywhere when absent. An agent that does not say where it is is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<Region>>,
}

impl Requirements {
    /// The least memory of a GPU that agents must have; nothing where they need none. *Units*: bytes.
    pub fn gpu_bytes(&self) -> Option<u64> {
        self.gpu_memory_bytes.or((self.gpu || self.gpu_models.is_some()).then_some(1))
    }

    /// What the GPU may be; empty for any.
    pub fn gpu_models(&self) -> &[String] {
        self.gpu_models.as_deref().unwrap_or_default()
    }

    /// Where they may be; empty for anywhere.
    pub fn regions(&self) -> &[Region] {
        self.regions.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gpu_models() {
            [] if self.gpu_bytes().is_some() => f.write_str("a GPU")?,
            [] => {}
            models => write!(f, "a GPU called {}", models.join(" or "))?,
        }
        if let Some(bytes) = self.gpu_memory_bytes {
            write!(f, " of at least {bytes} bytes")?;
        }
        let names: Vec<&str> = self.regions().iter().map(Region::as_str).collect();
        match (self.gpu_bytes(), names.as_slice()) {
            (_, []) => Ok(()),
            (Some(_), names) => write!(f, " in {}", names.join(" or ")),
            (None, names) => write!(f, "a place in {}", names.join(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_region_is_a_short_word_in_lower_case() {
        for good in ["eu", "eu-north-1", "7", &"a".repeat(32)] {
            assert_eq!(good.parse::<Region>().map(|region| region.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "EU", "eu north", "eu_north", "é", &"a".repeat(33)] {
            assert_eq!(bad.parse::<Region>(), Err(ParseRegionError), "{bad}");
        }
    }

    #[test]
    fn requirements_are_told_in_words() {
        let regions = || Some(Vec::from(["eu".parse().unwrap(), "us".parse().unwrap()]));
        let said = |gpu, gpu_memory_bytes, regions| {
            Requirements { gpu, gpu_memory_bytes, regions, gpu_models: None }.to_string()
        };
        let models = Some(Vec::from(["H100".to_owned(), "H200".to_owned()]));
        let of_models =
            Requirements { gpu_models: models, gpu_memory_bytes: Some(8), ..Requirements::default() };
        assert_eq!(of_models.to_string(), "a GPU called H100 or H200 of at least 8 bytes");
        assert_eq!(said(true, None, None), "a GPU");
        assert_eq!(said(false, Some(8), regions()), "a GPU of at least 8 bytes in eu or us");
        assert_eq!(said(false, None, regions()), "a place in eu or us");
    }
}
