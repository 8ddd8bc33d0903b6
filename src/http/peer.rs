//! Who is at the other end of a connection, and behind it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap},
};
use ipnet::IpNet;

use crate::{loopback::is_loopback, source::Source};

/// The other end of a connection, as an extension of each of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address: the client, or a proxy.
    Tcp(SocketAddr),
    /// A connection through a Unix socket: a proxy on this machine.
    Unix,
}

impl Peer {
    /// The other end of a request's connection: what our own server, or `into_make_service_with_connect_info` of a host
    /// that mounts a router of ours, put into its extensions.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        let told = || {
            extensions
                .get::<ConnectInfo<SocketAddr>>()
                .map(|info| Self::Tcp(info.0))
        };
        extensions.get::<Self>().copied().or_else(told)
    }

    /// Whether it is this machine, over TCP.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        matches!(self, Self::Tcp(address) if is_loopback(address.ip()))
    }
}

/// The reverse proxies whose word on a client's address is taken: `server.trusted_proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

impl TrustedProxies {
    /// Reads the operator's list: networks (`10.0.0.0/8`), addresses (`127.0.0.1`), or `unix`.
    ///
    /// # Errors
    /// A sentence that names the entry that is none of these.
    pub fn new<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let mut trusted = Self::default();
        for entry in entries.iter().map(AsRef::as_ref) {
            if entry == "unix" {
                trusted.unix = true;
                continue;
            }
            let network =
                IpNet::from_str(entry).or_else(|_| IpAddr::from_str(entry).map(IpNet::from));
            trusted.networks.push(network.map_err(|_| {
                format!("{entry:?} is no network; write for example \"127.0.0.1\", \"10.0.0.0/8\" or \"unix\"")
            })?);
        }
        Ok(trusted)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Where a request came from: the client's address, as far as limits and mails need it.
    #[must_use]
    pub fn source(&self, peer: Option<Peer>, headers: &HeaderMap) -> Source {
        self.client(peer, headers)
            .map_or(Source::Unknown, Source::of)
    }

    /// The client's address: that of the connection, or what trusted proxies say, read from the right.
    #[must_use]
    pub fn client(&self, peer: Option<Peer>, headers: &HeaderMap) -> Option<IpAddr> {
        self.trace(peer, headers).0
    }

    /// Whether a request certainly comes from one of `networks`; a Unix socket leads to this machine. What was forwarded
    /// by a proxy that is not trusted, or by way of one whose word can not be read, may come from anywhere.
    pub(crate) fn is_from(
        &self,
        networks: &[IpNet],
        peer: Option<Peer>,
        headers: &HeaderMap,
    ) -> bool {
        let (client, is_certain) = self.trace(peer, headers);
        let this_machine = || (peer == Some(Peer::Unix)).then_some(Ipv4Addr::LOCALHOST.into());
        let client = client.map(|address| address.to_canonical());
        let is_inside = |client: IpAddr| networks.iter().any(|network| network.contains(&client));
        is_certain && client.or_else(this_machine).is_some_and(is_inside)
    }

    /// The client's address, and whether it is certain that nobody stands behind it.
    fn trace(&self, peer: Option<Peer>, headers: &HeaderMap) -> (Option<IpAddr>, bool) {
        let names = ["x-forwarded-for", "forwarded"];
        let is_forwarded = names.iter().any(|name| headers.contains_key(*name));
        let mut client = match peer {
            Some(Peer::Tcp(address)) if !self.trusts(address.ip().to_canonical()) => {
                return (Some(address.ip()), !is_forwarded);
            }
            Some(Peer::Tcp(address)) => Some(address.ip()),
            Some(Peer::Unix) if self.unix => None,
            Some(Peer::Unix) | None => return (None, !is_forwarded),
        };
        let hops = forwarded(headers);
        let is_certain = !is_forwarded || !hops.is_empty();
        for hop in hops.into_iter().rev() {
            let Some(address) = hop else {
                return (client, false);
            };
            client = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        (client, is_certain)
    }
}

/// The hops that proxies wrote down, first the farthest; `None` for one that is no address. All lines count as one.
///
/// None at all if there are both headers: a proxy keeps one of them up, and the other may be the client's own.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name: &str| {
        let lines = headers.get_all(name).into_iter();
        lines
            .map(|line| line.to_str().unwrap_or(""))
            .collect::<Vec<_>>()
    };
    let (plain, standard) = (lines("x-forwarded-for"), lines("forwarded"));
    if !plain.is_empty() && !standard.is_empty() {
        return Vec::new();
    }
    let plain = plain.into_iter().flat_map(|line| line.split(','));
    let standard = standard.into_iter().flat_map(forwarded_for);
    plain
        .map(address)
        .chain(standard.map(|hop| address(hop?)))
        .collect()
}

/// The values of `for=` in one line of `Forwarded` (RFC 7239), one for each element; `None` for an element without.
fn forwarded_for(line: &str) -> Vec<Option<&str>> {
    // A quotation mark that a client left open would swallow what a proxy appended.
    let Some(elements) = split_outside_quotes(line, ',') else {
        return vec![None];
    };
    let value = |element| {
        let pairs = split_outside_quotes(element, ';')?.into_iter();
        let mut values = pairs
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    };
    elements.into_iter().map(value).collect()
}

/// Splits where `separator` stands outside quotation marks, inside of which a backslash takes the next character's
/// meaning away (RFC 9110, 5.6.4); `None` if they do not close.
fn split_outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if letter == separator && !quoted => {
                parts.push(&text[begin..at]);
                begin = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    (!quoted).then_some(parts)
}

/// An address with or without port, brackets and quotes.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(text, |(inside, _)| inside);
    let parsed = bare
        .parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(trusted: &[&str], peer: &str, lines: &[(&'static str, &str)]) -> Source {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = if peer == "unix" {
            Peer::Unix
        } else {
            Peer::Tcp(SocketAddr::new(peer.parse().unwrap(), 4711))
        };
        TrustedProxies::new(trusted)
            .unwrap()
            .source(Some(peer), &headers)
    }

    fn of(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn a_stranger_s_word_on_his_address_is_not_taken() {
        let lines = [("x-forwarded-for", "198.51.100.1")];
        assert_eq!(source(&[], "203.0.113.9", &lines), of("203.0.113.9"));
        assert_eq!(
            source(&["10.0.0.0/8"], "203.0.113.9", &lines),
            of("203.0.113.9")
        );
        assert_eq!(source(&[], "unix", &lines), Source::Unknown);
    }

    #[test]
    fn proxies_are_believed_from_the_right() {
        let trusted = ["127.0.0.1", "10.0.0.0/8"];
        for (lines, expected) in [
            (vec![("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            (
                vec![("x-forwarded-for", "6.6.6.6, 198.51.100.1")],
                "198.51.100.1",
            ),
            (
                vec![("x-forwarded-for", "6.6.6.6, 198.51.100.1, 10.1.2.3")],
                "198.51.100.1",
            ),
            (
                vec![
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "198.51.100.1"),
                ],
                "198.51.100.1",
            ),
            (vec![("x-forwarded-for", "6.6.6.6, nonsense")], "127.0.0.1"),
            (vec![("x-forwarded-for", "10.9.9.9")], "10.9.9.9"),
            (
                vec![(
                    "forwarded",
                    "for=6.6.6.6, for=\"[2001:db8::7]:443\";proto=https",
                )],
                "2001:db8::7",
            ),
            (
                vec![("forwarded", "proto=https;For=198.51.100.1:1234")],
                "198.51.100.1",
            ),
            (vec![], "127.0.0.1"),
        ] {
            assert_eq!(
                source(&trusted, "127.0.0.1", &lines),
                of(expected),
                "{lines:?}"
            );
        }
        assert_eq!(
            source(&["unix"], "unix", &[("x-forwarded-for", "198.51.100.1")]),
            of("198.51.100.1")
        );
        assert_eq!(source(&["unix"], "unix", &[]), Source::Unknown);
    }

    #[test]
    fn quoted_text_is_never_taken_for_a_hop() {
        for (line, expected) in [
            (r#"host="a;for=6.6.6.6";for=1.2.3.4"#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="a, for=6.6.6.6""#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="a\", for=6.6.6.6""#, "1.2.3.4"),
            (r#"for=1.2.3.4;host="a\\";proto=http"#, "1.2.3.4"),
            (
                r#"for=6.6.6.6, host="a,b";for="[2001:db8::7]:443""#,
                "2001:db8::7",
            ),
            // Left open by a client, before what a proxy appends.
            (r#"for=6.6.6.6;host=", for=1.2.3.4"#, "127.0.0.1"),
            (r#"for=6.6.6.6;host=", for="[2001:db8::7]""#, "127.0.0.1"),
            ("for=6.6.6.6;for=1.2.3.4", "127.0.0.1"),
            ("for=1.2.3.4, proto=https", "127.0.0.1"),
        ] {
            let source = source(&["127.0.0.1"], "127.0.0.1", &[("forwarded", line)]);
            assert_eq!(source, of(expected), "{line}");
        }
    }

    #[test]
    fn of_both_headers_neither_is_believed() {
        for lines in [
            [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=1.2.3.4")],
            [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")],
            [("forwarded", ""), ("x-forwarded-for", "1.2.3.4")],
        ] {
            assert_eq!(
                source(&["127.0.0.1"], "127.0.0.1", &lines),
                of("127.0.0.1"),
                "{lines:?}"
            );
            assert_eq!(source(&["unix"], "unix", &lines), Source::Unknown);
        }
    }

    #[test]
    fn what_may_come_from_anywhere_is_from_no_network() {
        let networks = ["127.0.0.0/8", "::1/128", "10.0.0.0/8"].map(|text| text.parse().unwrap());
        let far = ("x-forwarded-for", "203.0.113.9");
        let near = ("x-forwarded-for", "10.0.0.7");
        for (trusted, peer, lines, is_from) in [
            (&[][..], "127.0.0.1", &[][..], true),
            (&[], "::ffff:127.0.0.1", &[], true),
            (&[], "::1", &[], true),
            (&[], "unix", &[], true),
            (&[], "10.9.9.9", &[], true),
            (&[], "203.0.113.9", &[], false),
            // Proxies that are not trusted: who stands behind them?
            (&[], "127.0.0.1", &[near], false),
            (&[], "unix", &[near], false),
            (&["127.0.0.1"], "127.0.0.1", &[], true),
            (&["127.0.0.1"], "127.0.0.1", &[near], true),
            (&["127.0.0.1"], "127.0.0.1", &[far], false),
            (&["unix"], "unix", &[near], true),
            (&["unix"], "unix", &[far], false),
            // A stranger's own header, next to that of the proxy.
            (
                &["127.0.0.1"],
                "127.0.0.1",
                &[far, ("forwarded", "for=10.0.0.7")],
                false,
            ),
            (
                &["unix"],
                "unix",
                &[far, ("forwarded", "for=10.0.0.7")],
                false,
            ),
            (
                &["unix"],
                "unix",
                &[("forwarded", "for=\"10.0.0.7, for=203.0.113.9")],
                false,
            ),
            (
                &["127.0.0.1"],
                "127.0.0.1",
                &[("x-forwarded-for", "unknown")],
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            let socket = |peer: &str| SocketAddr::new(peer.parse().unwrap(), 4711);
            let other_end = if peer == "unix" {
                Peer::Unix
            } else {
                Peer::Tcp(socket(peer))
            };
            let proxies = TrustedProxies::new(trusted).unwrap();
            let found = proxies.is_from(&networks, Some(other_end), &headers);
            assert_eq!(found, is_from, "{trusted:?} {peer} {lines:?}");
            assert!(!proxies.is_from(&networks, None, &headers));
        }
    }

    #[test]
    fn a_list_of_nonsense_is_refused() {
        assert!(
            TrustedProxies::new(&["localhost"])
                .unwrap_err()
                .contains("localhost")
        );
    }
}
