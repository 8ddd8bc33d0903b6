//! Calls to hosts that strangers name: every address checked, the checked one dialled, no redirects, bounded in time
//! and size.

mod guard;
mod resolve;
pub(crate) mod roots;

use std::{error::Error as _, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use ipnet::IpNet;
use tokio::sync::{OnceCell, Semaphore};
use url::Host;

use crate::{id_server::IdServer, matrix_error::on_one_line, secret::AccessToken};

pub use resolve::Resolve;

/// The most calls that are under way at one time, so that servers that never answer do not eat up the connections.
const MOST_CALLS: usize = 576;
/// The most of them to servers that anybody may name: what strangers keep busy is not missed elsewhere.
const MOST_STRANGE_CALLS: usize = 64;
/// The longest that a connection may take to be made, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next call.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// How many connections to one host are kept.
const MOST_IDLE: usize = 32;
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;
/// The longest cause, in characters: parts of it may come from the server's certificate.
const LONGEST_CAUSE: usize = 300;

/// How calls are made: `[outbound]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks that may be dialled although they are private, loopback or otherwise not of the public internet.
    pub allow: Vec<IpNet>,
    /// Files with further certificates (PEM) to trust.
    pub ca_files: Vec<PathBuf>,
    /// Whether any certificate is taken. For tests only.
    pub danger_accept_invalid_certs: bool,
    /// The longest that one call takes, from the name to the last byte.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            ca_files: Vec::new(),
            danger_accept_invalid_certs: false,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Who has chosen a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChosenBy {
    /// The operator trusts it.
    Operator,
    /// Whoever has an account.
    Anybody,
}

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) chosen_by: ChosenBy,
    pub(crate) method: http::Method,
    pub(crate) server: &'a IdServer,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    pub(crate) bearer: Option<&'a AccessToken>,
    /// A whole `Authorization` header instead of a bearer token: `X-Matrix …`.
    pub(crate) authorization: Option<&'a str>,
    /// The JSON body.
    pub(crate) body: Option<Vec<u8>>,
}

impl fmt::Debug for Call<'_> {
    /// Shows no query, body or header: there are secrets in each.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Call({} {})", self.method, self.server)
    }
}

/// What came back, with any status.
pub(crate) struct Reply {
    pub(crate) status: http::StatusCode,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Reply({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why nothing came back. Causes are for the log: they hold no token and no query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It took too long.
    #[error("{0}")]
    TimedOut(String),
    /// Too many calls are under way.
    #[error("{0}")]
    Busy(String),
    /// Anything else: no such name, a forbidden address, no connection, a wrong certificate, too large an answer.
    #[error("{0}")]
    Failed(String),
}

/// Makes calls. Clones share their connections and the bound on their number.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    roots: Vec<reqwest::Certificate>,
    resolve: Resolve,
    permits: Semaphore,
    /// For servers that anybody may name.
    strange_permits: Semaphore,
    /// Made at the first call: most homeservers never make one, and the platform's certificates take memory.
    client: OnceCell<reqwest::Client>,
}

impl Default for Outbound {
    /// Nothing is allowed beyond the public internet.
    fn default() -> Self {
        Self::assemble(Settings::default(), Vec::new(), resolve::system())
    }
}

impl Outbound {
    /// Reads the certificates.
    ///
    /// # Errors
    /// A sentence that names the file that holds none.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let roots = roots::read(&settings.ca_files, "outbound.ca_files")?;
        Ok(Self::assemble(settings, roots, resolve::system()))
    }

    /// Finds addresses with `resolve` instead of the system's hosts and name servers. What it finds is checked like
    /// everything else.
    #[must_use]
    pub fn with_resolver(self, resolve: Resolve) -> Self {
        let Shared {
            settings, roots, ..
        } = &*self.shared;
        Self::assemble(settings.clone(), roots.clone(), resolve)
    }

    fn assemble(settings: Settings, roots: Vec<reqwest::Certificate>, resolve: Resolve) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                roots,
                resolve,
                permits: Semaphore::new(MOST_CALLS - MOST_STRANGE_CALLS),
                strange_permits: Semaphore::new(MOST_STRANGE_CALLS),
                client: OnceCell::new(),
            }),
        }
    }

    /// Makes one call.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let shared = &*self.shared;
        let permits = match call.chosen_by {
            ChosenBy::Operator => &shared.permits,
            ChosenBy::Anybody => &shared.strange_permits,
        };
        let Ok(_permit) = permits.try_acquire() else {
            let cause = "too many calls to other servers are under way already";
            return Err(CallError::Busy(cause.to_owned()));
        };
        // The client would dial an address without asking for it by name, that is, without the guard.
        if let Some(address) = literal(call.server) {
            guard::check(address, &shared.settings.allow)
                .map_err(|why| CallError::Failed(format!("{} is {why}", call.server)))?;
        }
        let (server, limit) = (call.server, shared.settings.timeout);
        tokio::time::timeout(limit, shared.exchange(call))
            .await
            .unwrap_or_else(|_| {
                let cause = format!("{server} did not answer within {} ms", limit.as_millis());
                Err(CallError::TimedOut(cause))
            })
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Outbound")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Shared {
    async fn exchange(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let server = call.server;
        let build = || async { self.build_client() };
        let client = self.client.get_or_try_init(build).await?;
        let request = request(client, call)?;
        let mut response = client
            .execute(request)
            .await
            .map_err(|why| failure(server, why))?;
        let too_large = || {
            let cause = format!("{server} answered more than {LARGEST_ANSWER} bytes");
            CallError::Failed(cause)
        };
        let largest = u64::try_from(LARGEST_ANSWER).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|told| told > largest) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|why| failure(server, why))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        Ok(Reply { status, body })
    }

    fn build_client(&self) -> Result<reqwest::Client, CallError> {
        let guarded = resolve::Guarded {
            resolve: Arc::clone(&self.resolve),
            allow: self.settings.allow.as_slice().into(),
        };
        reqwest::Client::builder()
            .user_agent("threepid")
            .https_only(true)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(guarded)
            .connect_timeout(CONNECT_LIMIT)
            .timeout(self.settings.timeout)
            .pool_idle_timeout(IDLE_LIMIT)
            .pool_max_idle_per_host(MOST_IDLE)
            .tls_certs_merge(self.roots.iter().cloned())
            .tls_danger_accept_invalid_certs(self.settings.danger_accept_invalid_certs)
            .build()
            .map_err(|why| CallError::Failed(format!("TLS can not be used: {}", innermost(&why))))
    }
}

fn request(client: &reqwest::Client, call: Call<'_>) -> Result<reqwest::Request, CallError> {
    let url = format!("https://{}{}", call.server, call.path);
    let mut builder = client
        .request(call.method, url)
        .header(header::ACCEPT, "application/json");
    if let Some(body) = call.body {
        builder = builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
    }
    let bearer = call
        .bearer
        .map(|token| format!("Bearer {}", token.reveal()));
    if let Some(text) = bearer.as_deref().or(call.authorization) {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            CallError::Failed("the Authorization header has letters that none may have".to_owned())
        })?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    builder.build().map_err(|why| failure(call.server, why))
}

/// The address, where the server is named by it.
fn literal(server: &IdServer) -> Option<IpAddr> {
    match server.host() {
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        Host::Domain(_) => None,
    }
}

fn failure(server: &IdServer, why: reqwest::Error) -> CallError {
    // The URL has the query, and that has secrets.
    let why = why.without_url();
    if let Some(sentence) = resolve::refusal(&why) {
        return CallError::Failed(on_one_line(&sentence, LONGEST_CAUSE));
    }
    if why.is_timeout() {
        return CallError::TimedOut(format!("{server} did not answer in time"));
    }
    let what = if why.is_connect() {
        "can not be reached"
    } else {
        "broke off"
    };
    CallError::Failed(format!("{server} {what}: {}", innermost(&why)))
}

/// What lies at the bottom of an error.
pub(crate) fn innermost(why: &reqwest::Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    on_one_line(&text, LONGEST_CAUSE)
}
