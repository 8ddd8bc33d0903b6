//! The shapes that values of the configuration have: lists, spans of time, the public URL.

use std::{fmt, marker::PhantomData, net::IpAddr, str::FromStr, time::Duration};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IntoDeserializer, SeqAccess, Visitor},
};
use url::Url;

use crate::id_server::{IdServer, NoIdServer};

/// A list: an array in the file, or one text with commas, as it comes from the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of texts, as [\"one\", \"two\"]")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<List<T>, E> {
        let entries = text.split(',').map(str::trim);
        entries
            .filter(|entry| !entry.is_empty())
            .map(|entry| entry.parse().map_err(E::custom))
            .collect::<Result<_, _>>()
            .map(List)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element::<String>()? {
            list.push(entry.parse().map_err(A::Error::custom)?);
        }
        Ok(List(list))
    }
}

/// A span of time, longer than nothing: `30s`, `15m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// The longest span that makes sense anywhere; it also keeps sums of times far from overflowing.
const LONGEST: Duration = Duration::from_hours(366 * 24);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(|why: String| D::Error::custom(why))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write a time such as \"30s\", \"15m\", \"1h\" or \"30d\"";
        let refuse = |why: &str| format!("{text:?} {why}; {FORM}");
        // The library takes no days, since some have 23 hours; ours have 24.
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        let hours = days.map(|days: u32| jiff::SignedDuration::from_hours(i64::from(days) * 24));
        let span = hours.map_or_else(|| text.parse(), Ok);
        match span.map(Duration::try_from) {
            Err(_) => Err(refuse("is no time")),
            Ok(Err(_)) => Err(refuse("must not be negative")),
            Ok(Ok(span)) if span.is_zero() => Err(refuse("must be more than nothing")),
            Ok(Ok(span)) if span > LONGEST => Err(refuse("is longer than a year")),
            Ok(Ok(span)) => Ok(Self(span)),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX);
        write!(out, "{span:#}")
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One of a few words. The configuration library's own refusal would not list them; serde's does.
pub(super) fn choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(from)?.into_deserializer())
}

/// The same for a key that may be unset.
pub(super) fn optional_choice<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    choice(from).map(Some)
}

/// A network, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Network(pub(crate) IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
        network.map(Self).map_err(|_| {
            format!("{text:?} is no network; write for example \"192.168.1.0/24\" or \"10.0.0.7\"")
        })
    }
}

/// The name of an identity server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server(pub(crate) IdServer);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let server = text.parse().map(Self);
        server.map_err(|why: NoIdServer| format!("{text:?} names no server; {why}"))
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// The URL under which clients and people reach us: all links begin with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct PublicUrl(pub(crate) Url);

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write it as \"https://matrix.example.org\"";
        plain_url(text)
            .map(Self)
            .map_err(|why| format!("{why}; {FORM}"))
    }
}

/// An http or https URL without user name, password, `?` and `#`; its path loses its last slash.
///
/// # Errors
/// What it must not be; never the text itself, which may hold a password.
pub(super) fn plain_url(text: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text).map_err(|_| "it is not a whole URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it must begin with https:// (or http:// on your own machine)");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not hold a ? or #");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// The host of a server name: `example.org` of `example.org:8448`.
pub(crate) fn without_port(server_name: &str) -> &str {
    match server_name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => server_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_plain_and_loses_its_last_slash() {
        for (text, url) in [
            ("https://example.org", "https://example.org/"),
            ("https://example.org/", "https://example.org/"),
            ("https://example.org/3pid/", "https://example.org/3pid"),
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090/"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().0.as_str(), url);
        }
        for bad in [
            "",
            "example.org",
            "example.org:8090",
            "ftp://example.org",
            "https://a@example.org",
            "https://a:b@example.org",
            "https://example.org/?a",
            "https://example.org/#a",
        ] {
            let refusal = bad.parse::<PublicUrl>().unwrap_err();
            assert!(refusal.contains("https://matrix.example.org"), "{bad}");
        }
    }
}
