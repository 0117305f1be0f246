//! Where other hubs, clients and agents reach this hub, where many serve from one store.
//!
//! Owns what an operator may say of it, and the addresses that follow. It may not touch the store.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::records::HubAt;

/// `HOST:PORT`, where the host is a name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

/// A text is no `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseHostPortError {
    text: String,
}

impl fmt::Display for ParseHostPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not where a hub can be reached: write HOST:PORT, as in hub2.lab:7840", self.text)
    }
}

impl std::error::Error for ParseHostPortError {}

impl FromStr for HostPort {
    type Err = ParseHostPortError;

    fn from_str(text: &str) -> Result<HostPort, ParseHostPortError> {
        let refused = || ParseHostPortError { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()),
            None => !host.is_empty() && host.bytes().all(is_of_name) && host != "0.0.0.0",
        };
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if is_host && is_port { Ok(HostPort(text.to_owned())) } else { Err(refused()) }
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator says of where a hub is reached; where nothing is said, the addresses that it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertise {
    /// By clients and other hubs.
    pub http: Option<HostPort>,
    /// By agents.
    pub quic: Option<HostPort>,
}

/// Nobody could reach a hub where it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    bound: SocketAddr,
    setting: &'static str,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unreachable { bound, setting } = self;
        write!(
            f,
            "hubs that share a store tell each other where they are, and {bound} is no such place: say how this one is \
             reached with --advertise-{setting} HOST:PORT, or {setting} = \"HOST:PORT\" under [advertise]"
        )
    }
}

impl std::error::Error for Unreachable {}

impl Advertise {
    /// Where a hub with these addresses is reached.
    pub fn reached_at(&self, http: SocketAddr, quic: SocketAddr) -> Result<HubAt, Unreachable> {
        let said = |said: &Option<HostPort>, bound: SocketAddr, setting| match said {
            Some(said) => Ok(said.to_string()),
            None if bound.ip().is_unspecified() => Err(Unreachable { bound, setting }),
            None => Ok(bound.to_string()),
        };
        Ok(HubAt { http: said(&self.http, http, "http")?, quic: said(&self.quic, quic, "quic")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_is_where_its_operator_says_or_where_it_is_bound() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (local, any) = (at("127.0.0.1:7840"), at("[::]:7843"));
        let found = Advertise::default().reached_at(local, local).unwrap();
        assert_eq!((found.http.as_str(), found.quic.as_str()), ("127.0.0.1:7840", "127.0.0.1:7840"));
        let error = Advertise::default().reached_at(local, any).unwrap_err().to_string();
        assert!(error.contains("[::]:7843") && error.contains("--advertise-quic HOST:PORT"), "{error}");
        let said = Advertise { http: None, quic: Some("hub2.lab:7843".parse().unwrap()) };
        assert_eq!(said.reached_at(local, any).unwrap().quic, "hub2.lab:7843");
    }

    #[test]
    fn what_nobody_can_connect_to_is_refused() {
        for text in
            ["hub", "hub:", ":1", "hub:0", "hub:70000", "a b:1", "0.0.0.0:1", "[::]:1", "::1:1", "[x]:1"]
        {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
        for text in ["hub:1", "10.0.0.2:7840", "[fd00::1]:7840", "hub-2.lab.example:65535"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }
}
