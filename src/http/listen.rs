//! Where to listen: a TCP address or a Unix socket.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use serde::{Serialize, Serializer};
use url::{Host, Url};

use crate::loopback::{is_loopback, is_loopback_url};

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

    /// Whether a URL surely leads here. No name but `localhost` is looked up; a port that the system chooses is not known.
    #[must_use]
    pub fn is_reached_by(&self, url: &Url) -> bool {
        let Self::Tcp(own) = self else {
            return false;
        };
        if own.port() == 0 || url.port_or_known_default() != Some(own.port()) {
            return false;
        }
        let ip = own.ip().to_canonical();
        let given = match url.host() {
            Some(Host::Ipv4(v4)) => IpAddr::from(v4),
            Some(Host::Ipv6(v6)) => IpAddr::from(v6).to_canonical(),
            _ => return is_loopback_url(url) && (ip.is_unspecified() || is_loopback(ip)),
        };
        // Calling the unspecified address leads to loopback; listening there takes loopback in, `[::]` that of IPv4 too.
        let given = match given {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            given => given,
        };
        let takes_family = ip.is_ipv6() || given.is_ipv4();
        given == ip || (ip.is_unspecified() && takes_family && is_loopback(given))
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
    fn a_url_is_known_to_lead_here() {
        for (address, url, expected) in [
            ("127.0.0.1:8090", "http://127.0.0.1:8090/x", true),
            ("127.0.0.1:8090", "http://localhost:8090", true),
            ("127.0.0.1:8090", "http://[::ffff:127.0.0.1]:8090", true),
            ("127.0.0.1:8090", "http://0.0.0.0:8090", true),
            ("127.0.0.1:8090", "http://127.0.0.2:8090", false),
            ("127.0.0.1:8090", "http://127.0.0.1:8008", false),
            ("127.0.0.1:80", "http://127.0.0.1", true),
            ("[::1]:8090", "http://localhost:8090", true),
            ("[::1]:8090", "http://127.0.0.1:8090", false),
            ("0.0.0.0:8090", "http://127.0.0.2:8090", true),
            ("0.0.0.0:8090", "http://localhost:8090", true),
            ("0.0.0.0:8090", "http://[::1]:8090", false),
            ("0.0.0.0:8090", "http://synapse:8090", false),
            ("[::]:8090", "http://127.0.0.1:8090", true),
            ("[::]:8090", "http://[::1]:8090", true),
            ("10.0.0.1:8090", "http://10.0.0.1:8090", true),
            ("10.0.0.1:8090", "http://localhost:8090", false),
            ("127.0.0.1:0", "http://127.0.0.1:0", false),
            ("unix:/run/x.sock", "http://localhost", false),
        ] {
            let (at, to) = (
                address.parse::<ListenAddress>().unwrap(),
                Url::parse(url).unwrap(),
            );
            assert_eq!(at.is_reached_by(&to), expected, "{address} {url}");
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
