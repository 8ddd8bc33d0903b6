//! Where to listen: a TCP address or a Unix socket.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Serialize, Serializer};
use url::Url;

use crate::loopback::is_loopback;

/// A place to listen on: written `127.0.0.1:8090`, `[::1]:8090` or `unix:/run/threepid.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this machine can connect to it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => is_loopback(address.ip()),
            Self::Unix(_) => true,
        }
    }

    /// Whether the system chooses the port.
    #[must_use]
    pub fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    /// The URL that leads there from this machine; `None` for a Unix socket.
    #[must_use]
    pub fn local_url(&self) -> Option<Url> {
        let Self::Tcp(address) = self else {
            return None;
        };
        let mut address = *address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Url::parse(&format!("http://{address}/")).ok()
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.is_empty() || path.ends_with('/') => Err(format!(
                "{text:?} names no file; write for example \"unix:/run/threepid.sock\""
            )),
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!(
                    "{text:?} is not an address to listen on; write an IP address with a port, \
                     for example \"127.0.0.1:8090\", or \"unix:/run/threepid.sock\""
                )
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:8090", "[::]:80", "unix:/run/threepid.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for bad in ["", "8090", ":8090", "localhost:8090", "unix:", "unix:/run/"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_open_address_is_reached_over_loopback() {
        let url = |text: &str| text.parse::<ListenAddress>().unwrap().local_url();
        assert_eq!(url("0.0.0.0:1").unwrap().as_str(), "http://127.0.0.1:1/");
        assert_eq!(url("[::]:1").unwrap().as_str(), "http://[::1]:1/");
        assert_eq!(url("unix:/x"), None);
    }
}
