//! `GET /.well-known/matrix/server`: the name that a homeserver has delegated to (Server-Server API, "Server discovery").

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;
use url::Url;

use super::{Federation, fault};
use crate::{
    clock::Timestamp,
    error::Result,
    outbound::{Call, CallError, ChosenBy, Destination, Reply},
    server_name::ServerName,
};

/// How many redirects are followed.
const MOST_REDIRECTS: usize = 3;
/// How long an answer is good that does not say it.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(24);
/// How long it is good at least, and at most, whatever it says.
const SHORTEST_LIFETIME: Duration = Duration::from_mins(5);
const LONGEST_LIFETIME: Duration = Duration::from_hours(48);
/// How long nobody is asked again who gave no good answer.
const FAILURE_LIFETIME: Duration = Duration::from_mins(10);

impl Federation {
    /// The name that `host` delegates to; `None` if it does not, or gives no good answer.
    pub(super) async fn delegated(&self, host: &str) -> Result<Option<ServerName>> {
        let now = self.clock.now();
        let known = self.memory.delegations.get(&host.to_owned(), now);
        if let Some((known, _)) = known {
            return Ok(known);
        }
        // The other half of the time is for the look-ups that follow where nobody answers here.
        let limit = self.outbound.timeout() / 2;
        let found = match tokio::time::timeout(limit, self.fetch_well_known(host)).await {
            Ok(Ok(reply)) => read(&reply, now),
            Ok(Err(why @ CallError::Busy(_))) => return Err(fault(why)),
            Ok(Err(CallError::Failed(_) | CallError::TimedOut(_))) | Err(_) => None,
        };
        let (delegated, lifetime) = match found {
            Some((delegated, lifetime)) => (Some(delegated), lifetime),
            None => (None, FAILURE_LIFETIME),
        };
        let (key, value) = (host.to_owned(), delegated.clone());
        self.memory.delegations.put(key, value, now + lifetime, now);
        Ok(delegated)
    }

    /// Follows redirects to the first answer that is none. Each hop goes through the same guard.
    async fn fetch_well_known(&self, host: &str) -> std::result::Result<Reply, CallError> {
        let lost = || CallError::Failed(format!("the redirects of {host} lead nowhere"));
        let start = format!("https://{host}/.well-known/matrix/server");
        let mut url = Url::parse(&start).map_err(|_| lost())?;
        for _ in 0..=MOST_REDIRECTS {
            let reply = self
                .outbound
                .call(get(&url, self.chosen_by).ok_or_else(lost)?)
                .await?;
            if !redirects(reply.status) {
                return Ok(reply);
            }
            url = next_hop(&url, &reply.headers).ok_or_else(lost)?;
        }
        Err(lost())
    }
}

fn get(url: &Url, chosen_by: ChosenBy) -> Option<Call<'static>> {
    let port = url.port_or_known_default()?;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Some(Call {
        chosen_by,
        method: Method::GET,
        to: Destination::new(url.host()?.to_owned(), port),
        path,
        bearer: None,
        authorization: None,
        body: None,
    })
}

fn redirects(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads; `None` if that is not plain HTTPS.
fn next_hop(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let next = from.join(location).ok()?;
    let is_plain =
        next.scheme() == "https" && next.username().is_empty() && next.password().is_none();
    is_plain.then_some(next)
}

/// The name in a good answer, and how long it is good.
fn read(reply: &Reply, now: Timestamp) -> Option<(ServerName, Duration)> {
    if reply.status != StatusCode::OK {
        return None;
    }
    let body: Value = serde_json::from_slice(&reply.body).ok()?;
    let name = body.as_object()?.get("m.server")?.as_str()?;
    Some((name.parse().ok()?, lifetime(&reply.headers, now)))
}

/// How long an answer is good (RFC 9111, sections 5.2.2 and 5.3), within our bounds.
fn lifetime(headers: &HeaderMap, now: Timestamp) -> Duration {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let control: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .map(text)
        .collect();
    let directives = || {
        control
            .iter()
            .flat_map(|line| line.split(','))
            .map(str::trim)
    };
    let max_age = directives().find_map(|directive| directive.strip_prefix("max-age="));
    let told = if directives().any(|directive| ["no-store", "no-cache"].contains(&directive)) {
        Duration::ZERO
    } else if let Some(seconds) = max_age {
        // What is no number, or too large a one for us, is bounded like everything else.
        let seconds = seconds.trim_matches('"');
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        let beyond = if is_number { u64::MAX } else { 0 };
        Duration::from_secs(seconds.parse().unwrap_or(beyond))
    } else if let Some(expires) = headers.get(header::EXPIRES) {
        // A date that is none has passed.
        let expires = expires.to_str().ok();
        let expires = expires.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        expires.map_or(Duration::ZERO, |date| {
            Timestamp(date.as_millisecond()).since(now)
        })
    } else {
        DEFAULT_LIFETIME
    };
    told.clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// 2026-11-22T10:00:00Z
    const NOW: Timestamp = Timestamp(1_795_341_600_000);

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_answer_is_good_as_long_as_it_says_within_bounds() {
        let minutes = Duration::from_mins;
        for (lines, expected) in [
            (&[][..], DEFAULT_LIFETIME),
            (&[("cache-control", "public, max-age=3600")], minutes(60)),
            (&[("cache-control", "Max-Age=\"3600\"")], minutes(60)),
            (&[("cache-control", "public")], DEFAULT_LIFETIME),
            (&[("cache-control", "max-age=1")], SHORTEST_LIFETIME),
            (&[("cache-control", "max-age=-1")], SHORTEST_LIFETIME),
            (&[("cache-control", "max-age=x")], SHORTEST_LIFETIME),
            (&[("cache-control", "no-store")], SHORTEST_LIFETIME),
            (
                &[("cache-control", "max-age=3600, no-cache")],
                SHORTEST_LIFETIME,
            ),
            (&[("cache-control", "max-age=99999999")], LONGEST_LIFETIME),
            (
                &[("cache-control", "max-age=99999999999999999999999")],
                LONGEST_LIFETIME,
            ),
            (
                &[
                    ("cache-control", "public"),
                    ("cache-control", "max-age=3600"),
                ],
                minutes(60),
            ),
            (
                &[
                    ("cache-control", "max-age=3600"),
                    ("expires", "Sun, 22 Nov 2026 12:00:00 GMT"),
                ],
                minutes(60),
            ),
            (
                &[("expires", "Sun, 22 Nov 2026 12:00:00 GMT")],
                minutes(120),
            ),
            (
                &[("expires", "Sun, 22 Nov 2026 09:00:00 GMT")],
                SHORTEST_LIFETIME,
            ),
            (
                &[("expires", "Sun, 22 Nov 2099 09:00:00 GMT")],
                LONGEST_LIFETIME,
            ),
            (&[("expires", "0")], SHORTEST_LIFETIME),
        ] {
            assert_eq!(lifetime(&headers(lines), NOW), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_redirect_leads_to_https_or_nowhere() {
        let from: Url = "https://a.example/.well-known/matrix/server"
            .parse()
            .unwrap();
        let next = |location: &str| next_hop(&from, &headers(&[("location", location)]));
        for (location, expected) in [
            ("https://b.example/x?y#z", "https://b.example/x?y#z"),
            ("/x", "https://a.example/x"),
            ("x", "https://a.example/.well-known/matrix/x"),
            ("//b.example:8448/x", "https://b.example:8448/x"),
            ("https://0x7f.1/", "https://127.0.0.1/"),
        ] {
            assert_eq!(next(location).unwrap().as_str(), expected);
        }
        for location in [
            "http://a.example/.well-known/matrix/server",
            "ftp://a.example/",
            "file:///etc/passwd",
            "javascript:x",
            "https://me@a.example/",
            "https://me:pass@a.example/",
            "https://",
            "https://a.example:99999/",
        ] {
            assert_eq!(next(location), None, "{location}");
        }
        assert_eq!(next_hop(&from, &HeaderMap::new()), None);
    }

    #[test]
    fn only_a_name_in_a_200_is_a_delegation() {
        let name = |status: u16, body: &str| {
            let reply = Reply {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: body.as_bytes().to_vec(),
            };
            read(&reply, NOW).map(|(name, _)| name.to_string())
        };
        for good in [
            "b.example",
            "b.example:443",
            "192.0.2.1",
            "[2001:db8::1]:8448",
        ] {
            let body = format!(r#"{{"m.server": "{good}", "x": 1}}"#);
            assert_eq!(name(200, &body).as_deref(), Some(good));
            assert_eq!(name(201, &body), None);
            assert_eq!(name(404, &body), None);
        }
        for bad in [
            "",
            "b.example",
            r#""b.example""#,
            "null",
            "[]",
            "{}",
            r#"{"m.server": 1}"#,
            r#"{"m.server": ""}"#,
            r#"{"m.server": "https://b.example"}"#,
            r#"{"m.server": "b.example/x"}"#,
            r#"{"m.server": "b.example:0"}"#,
            r#"{"m.server": "127.1"}"#,
            r#"{"m.server": "b.example" "#,
        ] {
            assert_eq!(name(200, bad), None, "{bad}");
        }
    }
}
