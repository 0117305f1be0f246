//! What an agent is told at its start.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tessera_kernels::isa::Isa;
use tessera_protocol::spec::Region;
use tessera_protocol::token::EnrolmentToken;

use crate::devices::GpuChoice;

/// Everything an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The hub's UDP address.
    pub hub: HubAddress,
    /// Needed until the hub has taken the agent once.
    pub token: Option<EnrolmentToken>,
    /// Where its identity and the hub's key are kept; one agent a directory.
    pub data: PathBuf,
    /// What input files may take of the disk under it; nothing for as much as half of the memory. *Units*: bytes.
    pub cache_bytes_max: Option<u64>,
    /// The memory of this machine that is the agent's; nothing for all of it. *Units*: bytes.
    pub memory_bytes: Option<u64>,
    /// How many shards its processors compute at once; each GPU computes one more.
    pub slots: u16,
    /// Which GPUs it uses.
    pub gpus: GpuChoice,
    /// A name for people.
    pub name: String,
    /// Where it is: jobs may ask for a region.
    pub region: Option<Region>,
    /// The instruction set its kernels use.
    pub isa: Isa,
    /// Where it adds a line for each shard it computed, to prove later what the hub accepted.
    pub work_log: Option<PathBuf>,
}

/// A host name or IP address, and a port. Prints as `HOST:PORT`, IPv6 addresses in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress {
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseHubAddressError {
    /// There is no colon before a port.
    NoPort,
    /// The port is not 1 to 65535.
    Port,
    /// The host is empty, or an IPv6 address without brackets, or has characters no host has.
    Host,
}

impl fmt::Display for ParseHubAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseHubAddressError::NoPort => {
                "expected HOST:PORT, as in hub.example.org:7843; the port is missing"
            }
            ParseHubAddressError::Port => "expected HOST:PORT with a port from 1 to 65535",
            ParseHubAddressError::Host => {
                "expected HOST:PORT with a host name, an IPv4 address or an IPv6 address in brackets"
            }
        })
    }
}

impl std::error::Error for ParseHubAddressError {}

impl fmt::Display for HubAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for HubAddress {
    type Err = ParseHubAddressError;
    fn from_str(text: &str) -> Result<HubAddress, ParseHubAddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseHubAddressError::NoPort)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ParseHubAddressError::Port)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(ParseHubAddressError::Host),
            None => host,
        };
        let bracketed = text.starts_with('[');
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if host.is_empty() || !(bracketed || host.bytes().all(valid)) {
            return Err(ParseHubAddressError::Host);
        }
        Ok(HubAddress { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_address_is_a_host_and_a_port_and_says_what_is_wrong_with_it() {
        for good in ["hub.example.org:7843", "127.0.0.1:1", "[::1]:65535", "localhost:7"] {
            assert_eq!(good.parse::<HubAddress>().map(|hub| hub.to_string()), Ok(good.to_owned()));
        }
        use ParseHubAddressError::{Host, NoPort, Port};
        let bad = [
            ("localhost", NoPort),
            ("localhost:", Port),
            ("localhost:0", Port),
            ("localhost:65536", Port),
            (":7700", Host),
            ("::1:7700", Host),
            ("[::g]:7700", Host),
            ("http://hub:7700", Host),
            ("a b:1", Host),
        ];
        for (text, error) in bad {
            assert_eq!(text.parse::<HubAddress>(), Err(error), "{text}");
        }
    }
}
