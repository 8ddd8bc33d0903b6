//! The name of an identity server, as clients write it in `id_server`: a host, perhaps with a port.

use std::{fmt, str::FromStr};

use url::Host;

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// The longest name that is read, in bytes: a domain name of 253 letters, and a port.
const LONGEST: usize = 260;

/// An identity server: plain HTTPS at this host and port, with no discovery of any kind (MSC2140).
///
/// Two spellings of one server are equal: the host is in lower case and in its ASCII form, port 443 goes without saying.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdServer {
    host: Host,
    port: u16,
}

impl IdServer {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Why a text names no identity server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write the host of an identity server, perhaps with a port: id.example.org or id.example.org:8448"
)]
pub struct NoIdServer;

impl FromStr for IdServer {
    type Err = NoIdServer;

    /// Takes `host` or `host:port`. A scheme, a user, a path, a query, a blank, a port that no identity server may
    /// have, and an IPv4 address in another form than four decimal numbers are refused.
    fn from_str(text: &str) -> Result<Self, NoIdServer> {
        let is_plain = |letter: char| letter.is_alphanumeric() || ".-:[]".contains(letter);
        if text.len() > LONGEST || !text.chars().all(is_plain) {
            return Err(NoIdServer);
        }
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = port.map_or(Some(HTTPS), read_port).ok_or(NoIdServer)?;
        let read = Host::parse(host).map_err(|_| NoIdServer)?;
        let is_canonical = match &read {
            Host::Domain(name) => name.split('.').all(|label| !label.is_empty()),
            Host::Ipv4(address) => address.to_string() == host,
            Host::Ipv6(_) => true,
        };
        if is_canonical {
            Ok(Self { host: read, port })
        } else {
            Err(NoIdServer)
        }
    }
}

fn read_port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| is_number)?;
    may_be_dialled(port).then_some(port)
}

/// Whether strangers may lead us to this port: it is that of HTTPS, or one that no service of the system has.
pub(crate) fn may_be_dialled(port: u16) -> bool {
    port == HTTPS || port >= 1024
}

impl fmt::Display for IdServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.host)?;
        if self.port == HTTPS {
            Ok(())
        } else {
            write!(out, ":{}", self.port)
        }
    }
}

/// What became of an `unbind` (Client-Server API, `id_server_unbind_result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// The association is gone.
    Success,
    /// The identity server does not do this.
    NoSupport,
}

impl Unbound {
    /// The specification's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NoSupport => "no-support",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_server_are_one() {
        for (written, name) in [
            ("id.example.org", "id.example.org"),
            ("ID.Example.ORG", "id.example.org"),
            ("id.example.org:443", "id.example.org"),
            ("id.example.org:8448", "id.example.org:8448"),
            ("straße.example", "xn--strae-oqa.example"),
            ("localhost:8443", "localhost:8443"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
            ("[2001:db8:0:0::1]:8448", "[2001:db8::1]:8448"),
        ] {
            assert_eq!(written.parse::<IdServer>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        let long = format!("{}.org", "a.".repeat(130));
        for written in [
            "",
            ".",
            ":",
            ":443",
            "https://id.example.org",
            "http://id.example.org",
            "//id.example.org",
            "id.example.org/",
            "id.example.org/_matrix",
            "id.example.org?x",
            "id.example.org#x",
            "me@id.example.org",
            "me:pass@id.example.org",
            "id.example.org@evil.example",
            "id.example.org\\@evil.example",
            "id.example.org ",
            " id.example.org",
            "id.example.org\r\n",
            "id.example.org\0",
            "id%2eexample.org",
            "id.example.org.",
            "id..example.org",
            "id.example.org:",
            "id.example.org:0",
            "id.example.org:22",
            "id.example.org:80",
            "id.example.org:+443",
            "id.example.org:65536",
            "id.example.org:8448:1",
            "2130706433",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "::1",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            &long,
        ] {
            assert_eq!(written.parse::<IdServer>(), Err(NoIdServer), "{written:?}");
        }
    }
}
