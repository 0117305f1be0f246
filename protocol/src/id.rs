//! Names of things: jobs, agents, digests. Each prints one way and parses only that way back.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the id it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    what: &'static str,
    hex_digits: usize,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not {}: expected {} followed by {} lower-case hex digits",
            self.what, self.what, self.hex_digits
        )
    }
}

impl core::error::Error for ParseIdError {}

/// Writes bytes as lower-case hex.
pub fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for part in bytes.chunks(32) {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(part) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.write_str(core::str::from_utf8(&digits[..2 * part.len()]).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

/// Reads exactly `N` bytes of lower-case hex.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(parse_hex)
                    .map(Self)
                    .ok_or(ParseIdError { what: $what, hex_digits: 2 * $bytes })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// A job. The first six bytes are its creation time in big-endian Unix milliseconds, so ids sort
    /// by age; the rest is random.
    JobId, 16, "job_", "`job_`"
);
hex_id!(
    /// An agent: the first 16 bytes of the BLAKE3 digest of its Ed25519 public key.
    AgentId, 16, "agt_", "`agt_`"
);
hex_id!(
    /// A provider, who owns agents and earns credits: the first 16 bytes of the BLAKE3 digest of its name.
    ProviderId, 16, "prv_", "`prv_`"
);
hex_id!(
    /// One start of a hub: random.
    HubId, 16, "hub_", "`hub_`"
);
hex_id!(
    /// A BLAKE3 digest.
    Digest, 32, "", "a digest"
);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

impl AgentId {
    /// The id that belongs to a public key.
    pub fn of_key(public_key: &[u8; 32]) -> AgentId {
        let digest = Digest::of(public_key);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        AgentId(id)
    }
}

impl ProviderId {
    /// The id that belongs to a name.
    pub fn of_name(name: &str) -> ProviderId {
        let digest = Digest::of(name.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        ProviderId(id)
    }
}

impl JobId {
    /// The id made at `unix_ms` with `random` bytes.
    pub fn new(unix_ms: u64, random: [u8; 10]) -> JobId {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(&random);
        JobId(id)
    }

    /// When the job was made. *Units*: Unix milliseconds.
    pub fn created_ms(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_id_reads_back_as_it_was_written_and_not_otherwise() {
        let id = JobId::new(1_763_000_000_123, [7; 10]);
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        assert_eq!(id.created_ms(), 1_763_000_000_123);
        for wrong in ["", "job_", "job_12", "agt_00000000000000000000000000000000"] {
            assert!(wrong.parse::<JobId>().is_err(), "{wrong}");
        }
        assert!(id.to_string().to_uppercase().parse::<JobId>().is_err());
    }
}
