//! Calls to the homeserver: straight there, bounded in time and size.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderValue, Method, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Certificate, redirect::Policy};
use url::Url;

use super::{
    answer::{Answer, Asked},
    policy::Remembered,
};
use crate::{
    error::{Error, Result},
    homeserver::Origin,
    outbound::{innermost, roots},
    secret::AccessToken,
};

/// The longest that a connection may take to be made, TLS included, where the whole may take at least twice as long.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next call: less than homeservers, and proxies before them, wait.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// How many connections are kept: more than are used at once, for each that is closed is made anew.
const MOST_IDLE: usize = 128;
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1024 * 1024;
/// How much of a client's name for itself is passed on, in bytes.
pub(in crate::homeserver) const LONGEST_USER_AGENT: usize = 512;

/// One call.
#[derive(Clone)]
pub(in crate::homeserver) struct Call<'a> {
    pub(in crate::homeserver) asked: Asked,
    /// Path and query, percent-encoded.
    pub(in crate::homeserver) path: String,
    pub(in crate::homeserver) bearer: Option<&'a AccessToken>,
    /// The JSON body.
    pub(in crate::homeserver) body: Option<Vec<u8>>,
    /// Whose call it is, if it is not ours.
    pub(in crate::homeserver) origin: Option<&'a Origin>,
    /// A header of the homeserver's kind.
    pub(in crate::homeserver) header: Option<(&'static str, String)>,
}

impl<'a> Call<'a> {
    /// `GET` of what `label` names.
    pub(in crate::homeserver) fn get(label: &'static str, path: String) -> Self {
        Self::new(Asked::reading(Method::GET, label), path)
    }

    pub(in crate::homeserver) fn new(asked: Asked, path: String) -> Self {
        Self {
            asked,
            path,
            bearer: None,
            body: None,
            origin: None,
            header: None,
        }
    }

    pub(in crate::homeserver) fn bearer(self, token: &'a AccessToken) -> Self {
        Self {
            bearer: Some(token),
            ..self
        }
    }

    pub(in crate::homeserver) fn json(self, body: &serde_json::Value) -> Self {
        Self {
            body: Some(body.to_string().into_bytes()),
            ..self
        }
    }

    pub(in crate::homeserver) fn origin(self, origin: &'a Origin) -> Self {
        Self {
            origin: Some(origin),
            ..self
        }
    }
}

/// One segment of a path, whatever is in it.
pub(in crate::homeserver) fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Whether paths can be written behind a URL, and nothing secret is in it.
pub(in crate::homeserver) fn is_base(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Makes calls, over connections that it keeps.
pub(in crate::homeserver) struct Client {
    /// Without a slash at its end.
    base: String,
    http: reqwest::Client,
    pub(super) policy: Remembered,
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Client({})", self.base)
    }
}

impl Client {
    pub(in crate::homeserver) fn new(
        url: &Url,
        limit: Duration,
        ca_files: &[PathBuf],
    ) -> Result<Self, String> {
        if !is_base(url) {
            // Not shown: there may be a password in it.
            return Err("homeserver.url can not be used; write http://host:port or https://host:port, and nothing after it".to_owned());
        }
        let roots = roots::read(ca_files, "homeserver.ca_files")?;
        let unusable = |why: reqwest::Error| format!("TLS can not be used: {}", innermost(&why));
        let builder = reqwest::Client::builder()
            .user_agent("threepid")
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            // Well before the whole: what takes too long after this has a connection, and may have been sent.
            .connect_timeout(CONNECT_LIMIT.min(limit / 2))
            .timeout(limit)
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(MOST_IDLE);
        // In plain there is nobody to trust, and the platform's certificates take memory.
        let builder = if url.scheme() == "http" {
            builder.tls_certs_only([])
        } else {
            let roots = roots.iter().map(|root| Certificate::from_der(root));
            let roots: Result<Vec<_>, _> = roots.collect();
            builder.tls_certs_merge(roots.map_err(unusable)?)
        };
        let http = builder.build().map_err(unusable)?;
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            http,
            policy: Remembered::default(),
        })
    }

    /// The base of the homeserver's URLs.
    pub(in crate::homeserver) fn base(&self) -> &str {
        &self.base
    }

    /// Makes one call. Any status is an answer.
    ///
    /// # Errors
    /// [`Error::HomeserverFailed`] if nothing was done, [`Error::HomeserverTimeout`] if that is not known, or if it took
    /// too long.
    pub(in crate::homeserver) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let asked = call.asked.clone();
        let request = self.request(call)?;
        let mut response = self.http.execute(request).await.map_err(|why| {
            if why.is_connect() {
                let why = why.without_url();
                let cause = format!("the homeserver can not be reached: {}", innermost(&why));
                return Error::HomeserverFailed(cause);
            }
            failure(&asked, why)
        })?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|why| failure(&asked, why))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(asked.broken(&format!("more than {LARGEST_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after = response.headers().get(header::RETRY_AFTER);
        Ok(Answer {
            asked,
            status: response.status(),
            retry_after: retry_after
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body,
        })
    }

    fn request(&self, call: Call<'_>) -> Result<reqwest::Request> {
        let url = format!("{}{}", self.base, call.path);
        let mut builder = self
            .http
            .request(call.asked.method.clone(), url)
            .header(header::ACCEPT, "application/json");
        if let Some(body) = call.body {
            builder = builder
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        if let Some(token) = call.bearer {
            // A token that can not stand in a header is nobody's.
            let unknown = |_| Error::UnknownToken { soft_logout: false };
            let text = format!("Bearer {}", token.reveal());
            let mut value = HeaderValue::from_str(&text).map_err(unknown)?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        if let Some((name, value)) = call.header {
            builder = builder.header(name, value);
        }
        if let Some(origin) = call.origin {
            if let Some(address) = origin.address {
                builder = builder.header("X-Forwarded-For", address.to_string());
            }
            let user_agent = origin.user_agent.as_deref();
            let user_agent = user_agent.filter(|text| text.len() <= LONGEST_USER_AGENT);
            if let Some(value) = user_agent.and_then(|text| HeaderValue::from_str(text).ok()) {
                builder = builder.header(header::USER_AGENT, value);
            }
        }
        builder.build().map_err(|why| {
            let why = innermost(&why.without_url());
            Error::HomeserverFailed(format!("the homeserver can not be called: {why}"))
        })
    }
}

/// What became of a call that had a connection.
fn failure(asked: &Asked, why: reqwest::Error) -> Error {
    if why.is_timeout() {
        return asked.late();
    }
    asked.broken(&format!("nothing: {}", innermost(&why.without_url())))
}
