//! The name of a homeserver, as user ids and federation have it.

use std::{fmt, str::FromStr};

use url::Host;

/// The longest name: a user id has at most 255 bytes, two of which are its own (Matrix appendices, "User Identifiers").
const LONGEST: usize = 253;

/// A homeserver's name: a host, perhaps with a port (Matrix appendices, "Server Name").
///
/// It is kept as it was written and compared exactly: names are case-sensitive, and `example.org:443` is another server
/// than `example.org`. Where it leads is found out by federation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName {
    text: String,
    host: Host<String>,
    port: Option<u16>,
}

impl ServerName {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, in lower case.
    pub(crate) fn host(&self) -> &Host<String> {
        &self.host
    }

    /// The port, if the name has one.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }
}

/// What was written is no homeserver's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write the name of a homeserver: a host, perhaps with a port, like \"example.org\"")]
pub struct NoServerName;

impl FromStr for ServerName {
    type Err = NoServerName;

    fn from_str(text: &str) -> Result<Self, NoServerName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if text.len() > LONGEST || !text.bytes().all(is_plain) {
            return Err(NoServerName);
        }
        let (host, port) = match text.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = port.map(|port| read_port(port).ok_or(NoServerName));
        let read = Host::parse(host).map_err(|_| NoServerName)?;
        let is_canonical = match &read {
            Host::Domain(name) => name.split('.').all(|label| !label.is_empty()),
            // "127.1" would be an address to whoever dials it, and a name to whoever looks for it.
            Host::Ipv4(address) => address.to_string() == host,
            Host::Ipv6(_) => true,
        };
        if !is_canonical {
            return Err(NoServerName);
        }
        Ok(Self {
            text: text.to_owned(),
            host: read,
            port: port.transpose()?,
        })
    }
}

fn read_port(text: &str) -> Option<u16> {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port > 0)
}

impl fmt::Display for ServerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ServerName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_they_are_written() {
        for (name, port) in [
            ("example.org", None),
            ("Example.ORG", None),
            ("example.org:8448", Some(8448)),
            ("localhost:443", Some(443)),
            ("192.0.2.1", None),
            ("192.0.2.1:8008", Some(8008)),
            ("[2001:db8::1]", None),
            ("[2001:db8::1]:8448", Some(8448)),
        ] {
            let read: ServerName = name.parse().unwrap();
            assert_eq!((read.as_str(), read.port()), (name, port));
        }
        let named = |name: &str| name.parse::<ServerName>().unwrap();
        assert_ne!(named("Example.org"), named("example.org"));
        assert_ne!(named("example.org:8448"), named("example.org"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}org", "a.".repeat(126));
        for name in [
            "",
            ".",
            ":",
            ":8448",
            "https://example.org",
            "example.org/",
            "example.org/x",
            "example.org?x",
            "example.org#x",
            "me@example.org",
            "example.org@evil.example",
            "example.org\\@evil.example",
            " example.org",
            "example.org\n",
            "example.org.",
            "example..org",
            "example.org:",
            "example.org:0",
            "example.org:+1",
            "example.org:65536",
            "example.org:008448",
            "example.org:1:2",
            "ex_ample.org",
            "straße.example",
            "2130706433",
            "0x7f.1",
            "127.1",
            "::1",
            "[::1",
            "[fe80::1%25eth0]",
            &long,
        ] {
            assert_eq!(name.parse::<ServerName>(), Err(NoServerName), "{name:?}");
        }
    }
}
