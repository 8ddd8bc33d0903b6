//! Where a browser may be sent after a validation.

use std::fmt;

use url::Url;

use crate::error::Error;

/// The longest `next_link` that is kept, in bytes.
const MAX_NEXT_LINK: usize = 2000;

/// The URL that a client wants the person's browser to open after the validation (`next_link` of the `requestToken`
/// endpoints).
///
/// It may hold a client's secret, so `Debug` shows only its host.
#[derive(Clone, PartialEq, Eq)]
pub struct NextLink {
    text: String,
    url: Url,
}

/// Which `next_link`s are accepted: `[next_links] allowed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextLinkPolicy {
    hosts: Vec<String>,
    schemes: Vec<String>,
}

impl NextLinkPolicy {
    /// Reads the operator's list: hosts (`app.example.org`, `localhost:8080`) and schemes of apps (`io.example.app:`).
    /// An empty list admits every web page, which is then named and not gone to by itself.
    ///
    /// # Errors
    /// A sentence that names the entry that is neither.
    pub fn new<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut policy = Self::default();
        for entry in allowed {
            if let Some(scheme) = entry
                .strip_suffix("://")
                .or_else(|| entry.strip_suffix(':'))
            {
                if !is_app_scheme(scheme) {
                    return Err(format!(
                        "{entry:?} is not the scheme of an app; write for example \"io.example.app:\""
                    ));
                }
                policy.schemes.push(scheme.to_ascii_lowercase());
                continue;
            }
            if entry.contains('*') {
                return Err(format!(
                    "{entry:?} would stand for many hosts, which is not possible here; write each of them, for example \"app.example.org\""
                ));
            }
            match Url::parse(&format!("https://{entry}/")) {
                Ok(url)
                    if url.path() == "/"
                        && url.username().is_empty()
                        && !entry.contains(['/', '?', '#']) =>
                {
                    policy.hosts.push(host_and_port(&url));
                }
                _ => {
                    return Err(format!(
                        "{entry:?} is not a host; write for example \"app.example.org\""
                    ));
                }
            }
        }
        Ok(policy)
    }

    /// Whether the operator wrote a list: then a browser is sent there by itself.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        !self.hosts.is_empty() || !self.schemes.is_empty()
    }
}

impl NextLink {
    /// Takes a `next_link` as a client sent it.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for anything but an absolute `http` or `https` URL without credentials (or a listed
    /// app's scheme), for control characters and backslashes, over 2000 bytes, and for a host that is not on the
    /// operator's list once there is one.
    pub fn parse(text: &str, policy: &NextLinkPolicy) -> Result<Self, Error> {
        let refuse = |why| Err(Error::invalid(why));
        if text.len() > MAX_NEXT_LINK {
            return refuse("next_link is longer than 2000 bytes");
        }
        if text
            .chars()
            .any(|letter| letter.is_control() || letter.is_whitespace() || letter == '\\')
        {
            return refuse("next_link must not hold blanks, line breaks or backslashes");
        }
        if !text.is_ascii() {
            return refuse("next_link must be ASCII: percent-encode the rest");
        }
        let Ok(url) = Url::parse(text) else {
            return refuse("next_link must be an absolute URL");
        };
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return refuse("next_link must not hold a user name or password");
        }
        let is_web = matches!(url.scheme(), "http" | "https");
        if is_web && !authority_follows_slashes(text) {
            return refuse("next_link must be an absolute URL");
        }
        let admitted = if is_web {
            !policy.is_listed() || policy.hosts.contains(&host_and_port(&url))
        } else {
            policy.schemes.iter().any(|scheme| scheme == url.scheme())
        };
        if !admitted {
            return refuse(if is_web {
                "next_link leads to a host that is not allowed here"
            } else {
                "next_link must be an http or https URL"
            });
        }
        Ok(Self {
            text: text.to_owned(),
            url,
        })
    }

    /// The link as the client wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it leads, to be read by a person: the host, with its port if it is not the usual one; or an app's scheme.
    #[must_use]
    pub fn destination(&self) -> String {
        if self.url.has_host() {
            host_and_port(&self.url)
        } else {
            format!("{}:", self.url.scheme())
        }
    }

    /// The source expression that a page's `form-action` needs to be redirected here.
    pub(crate) fn form_action(&self) -> String {
        if matches!(self.url.scheme(), "http" | "https") {
            self.url.origin().ascii_serialization()
        } else {
            format!("{}:", self.url.scheme())
        }
    }

    /// The link with `sid` appended *as text*, after any `#`: clients keep their parameters there.
    #[must_use]
    pub fn with_sid(&self, sid: &str) -> String {
        let joint = if self.text.contains('?') { '&' } else { '?' };
        format!("{}{joint}sid={sid}", self.text)
    }
}

impl fmt::Debug for NextLink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NextLink({})", self.destination())
    }
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The text between `//` and the path.
fn authority(text: &str) -> &str {
    let rest = text.split_once("//").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Whether exactly two slashes follow the scheme: the URL standard would take any number, browsers and readers do not.
fn authority_follows_slashes(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(_, rest)| rest.starts_with("//") && !rest.starts_with("///"))
}

/// A scheme that an app may register; those that browsers and phones act upon themselves are none.
fn is_app_scheme(scheme: &str) -> bool {
    const ACTIVE: [&str; 24] = [
        "http",
        "https",
        "javascript",
        "data",
        "file",
        "blob",
        "about",
        "vbscript",
        "view-source",
        "ftp",
        "ws",
        "wss",
        "intent",
        "tel",
        "sms",
        "mailto",
        "market",
        "itms-apps",
        "chrome",
        "resource",
        "jar",
        "feed",
        "cid",
        "mid",
    ];
    let lower = scheme.to_ascii_lowercase();
    lower.starts_with(|first: char| first.is_ascii_lowercase())
        && lower
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !ACTIVE.contains(&lower.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> NextLinkPolicy {
        NextLinkPolicy::default()
    }

    #[test]
    fn any_web_page_passes_without_a_list() {
        for link in [
            "https://app.example.org/#/register?a=b",
            "http://localhost:8080/x",
            "https://xn--bcher-kva.example/",
        ] {
            assert!(NextLink::parse(link, &open()).is_ok(), "{link}");
        }
    }

    #[test]
    fn what_is_no_plain_web_page_is_refused() {
        let long = format!("https://a.org/{}", "x".repeat(2000));
        for link in [
            "",
            "/path",
            "//a.org",
            "a.org",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "ftp://a.org",
            "https://u@a.org/",
            "https://u:p@a.org/",
            "https://@a.org/",
            "https://a.org\\@b.org/",
            "https:\\\\a.org",
            "https:a.org",
            "https:///a.org",
            "https:////a.org",
            "https://a.org/\r\nSet-Cookie: x",
            "https://a.org/ x",
            "https://a.org/\u{2028}",
            "https://a.org/é",
            "https://bücher.example/",
            "https://",
            "io.example.app:/x",
            "blob:https://a.org/1",
            " https://a.org",
            "\thttps://a.org",
            &long,
        ] {
            assert!(NextLink::parse(link, &open()).is_err(), "{link:?}");
        }
    }

    #[test]
    fn a_list_admits_its_hosts_and_schemes_alone() {
        let policy =
            NextLinkPolicy::new(["app.example.org", "localhost:8080", "io.example.app:"]).unwrap();
        for link in [
            "https://app.example.org/x",
            "https://APP.example.org/",
            "http://localhost:8080/",
            "io.example.app:/done",
        ] {
            assert!(NextLink::parse(link, &policy).is_ok(), "{link}");
        }
        for link in [
            "https://evil.example.org/",
            "https://app.example.org.evil.org/",
            "https://app.example.org:444/",
            "other:/x",
        ] {
            assert!(NextLink::parse(link, &policy).is_err(), "{link}");
        }
    }

    #[test]
    fn a_list_of_nonsense_is_refused() {
        for entry in [
            "javascript:",
            "https:",
            "https://a.org",
            "a.org/x",
            "u@a.org",
            "",
            "a b",
            "intent:",
            "tel:",
            "sms:",
            "mailto:",
            "market://",
            "itms-apps:",
            "Chrome:",
            "resource:",
            "jar:",
            "feed:",
            "cid:",
            "mid:",
        ] {
            assert!(NextLinkPolicy::new([entry]).is_err(), "{entry:?}");
        }
    }

    #[test]
    fn an_entry_for_many_hosts_is_refused_with_what_to_write_instead() {
        for entry in ["*.example.org", "*", "app.*.org", "app-*.example.org:8080"] {
            let why = NextLinkPolicy::new([entry]).unwrap_err();
            assert!(why.contains("write each of them"), "{why}");
        }
    }

    #[test]
    fn the_sid_is_appended_as_text() {
        for (link, joined) in [
            ("https://a.org/", "https://a.org/?sid=S"),
            ("https://a.org/?x=1", "https://a.org/?x=1&sid=S"),
            (
                "https://a.org/#/register?a=b",
                "https://a.org/#/register?a=b&sid=S",
            ),
            ("https://a.org/#/done", "https://a.org/#/done?sid=S"),
        ] {
            assert_eq!(
                NextLink::parse(link, &open()).unwrap().with_sid("S"),
                joined
            );
        }
    }
}
