//! Where a hub is reached: a host and a port, as text.
//!
//! Owns the text `HOST:PORT`, so that what a hub says of itself and what an agent is told mean the same.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Longest host. *Units*: bytes. *Source*: RFC 1035, section 2.3.4, without the last dot.
const HOST_BYTES_MAX: usize = 253;

/// A host name or IP address, and a port. Prints as `HOST:PORT`, IPv6 addresses in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The host is empty or longer than a name may be, or an IPv6 address without brackets, or has characters no host
    /// has.
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

impl core::error::Error for ParseHubAddressError {}

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
            Some(address) if address.parse::<core::net::Ipv6Addr>().is_ok() => address,
            Some(_) => return Err(ParseHubAddressError::Host),
            None => host,
        };
        let bracketed = text.starts_with('[');
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !(bracketed || host.bytes().all(valid)) {
            return Err(ParseHubAddressError::Host);
        }
        Ok(HubAddress { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

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
        let long = format!("{}:1", "a".repeat(254));
        assert_eq!(long.parse::<HubAddress>(), Err(Host));
        assert!(long[1..].parse::<HubAddress>().is_ok());
    }
}
