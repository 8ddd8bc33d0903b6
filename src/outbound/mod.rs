//! Calls to hosts that strangers name: every address checked, the checked one dialled, no redirects, bounded in time
//! and size.

mod destination;
mod elsewhere;
mod guard;
mod pools;
mod request;
mod resolve;
pub(crate) mod roots;
pub(crate) mod tls;

use std::{fmt, mem, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::sync::OnceCell;
use url::Host;

use self::elsewhere::Elsewhere;
use crate::{matrix_error::on_one_line, secret::AccessToken};

pub(crate) use destination::Destination;
pub(crate) use request::innermost;
pub use resolve::{Resolve, ResolveServices, Service};

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

/// Who has chosen a server. What one kind keeps busy is not missed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChosenBy {
    /// The operator trusts it.
    Operator,
    /// Whoever has an account.
    Account,
    /// Anybody: nobody knows who asks.
    Stranger,
    /// Anybody who says that a server has signed a request.
    Signer,
    /// Whoever had an account; we ask by ourselves, and nobody waits for it.
    Background,
}

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) chosen_by: ChosenBy,
    pub(crate) method: http::Method,
    pub(crate) to: Destination,
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
        write!(out, "Call({} {})", self.method, self.to)
    }
}

/// What came back, with any status.
pub(crate) struct Reply {
    pub(crate) status: http::StatusCode,
    pub(crate) headers: http::HeaderMap,
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

/// Makes calls. Clones share their connections and the bounds on their number.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    roots: Vec<CertificateDer<'static>>,
    names: resolve::Names,
    pools: pools::Pools,
    /// Made at the first call: most homeservers never make one, and the platform's certificates take memory.
    tls: OnceCell<ClientConfig>,
    client: OnceCell<reqwest::Client>,
    elsewhere: Elsewhere<reqwest::Client>,
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
        self.with_names(|names| names.addresses = resolve)
    }

    /// Finds SRV records with `resolve` instead of the system's name servers. The hosts that it names are looked up and
    /// checked like all others.
    #[must_use]
    pub fn with_service_resolver(self, resolve: ResolveServices) -> Self {
        self.with_names(|names| names.services = resolve)
    }

    /// Dials this port of hosts that are found by their name wherever port 443 is meant: for tests, which can not listen
    /// there.
    #[must_use]
    pub fn with_https_port(self, port: u16) -> Self {
        self.with_names(|names| names.https_port = port)
    }

    fn with_names(self, change: impl FnOnce(&mut resolve::Names)) -> Self {
        let Shared {
            settings,
            roots,
            names,
            ..
        } = &*self.shared;
        let mut names = names.clone();
        change(&mut names);
        Self::assemble(settings.clone(), roots.clone(), names)
    }

    fn assemble(
        settings: Settings,
        roots: Vec<CertificateDer<'static>>,
        names: resolve::Names,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                roots,
                names,
                pools: pools::Pools::default(),
                tls: OnceCell::new(),
                client: OnceCell::new(),
                elsewhere: Elsewhere::default(),
            }),
        }
    }

    /// The longest that one call takes.
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.settings.timeout
    }

    /// The SRV records of a name, which somebody has chosen whom we do not trust. The hosts that they name are to be called through
    /// [`Destination::dialled_at`].
    pub(crate) async fn services(
        &self,
        chosen_by: ChosenBy,
        name: String,
    ) -> Result<Vec<Service>, CallError> {
        let shared = &*self.shared;
        let _permit = shared.pools.enter(chosen_by, name.clone())?;
        let failed = |why: &dyn fmt::Display| {
            let cause = format!("{name} can not be resolved: {why}");
            CallError::Failed(on_one_line(&cause, LONGEST_CAUSE))
        };
        let found = (shared.names.services)(name.clone());
        match tokio::time::timeout(shared.settings.timeout, found).await {
            Ok(found) => found.map_err(|why| failed(&why)),
            Err(_) => Err(failed(&"no name server answered in time")),
        }
    }

    /// Makes one call.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let shared = &*self.shared;
        let _permit = shared
            .pools
            .enter(call.chosen_by, call.to.host.to_string())?;
        // The client would dial an address without asking for it by name, that is, without the guard.
        if let Some(address) = literal(&call.to) {
            guard::check(address, &shared.settings.allow)
                .map_err(|why| CallError::Failed(format!("{} is {why}", call.to)))?;
        }
        if let Some(port) = call.to.forbidden_port() {
            let cause = format!("{} is at port {port}, which is not dialled", call.to);
            return Err(CallError::Failed(cause));
        }
        let limit = shared.settings.timeout;
        tokio::time::timeout(limit, shared.exchange(&call))
            .await
            .unwrap_or_else(|_| {
                let limit = limit.as_millis();
                let cause = format!("{} did not answer within {limit} ms", call.to);
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
    async fn exchange(&self, call: &Call<'_>) -> Result<Reply, CallError> {
        let server = &call.to;
        let mut response = self.send(call).await?;
        let too_large = || {
            let cause = format!("{server} answered more than {LARGEST_ANSWER} bytes");
            CallError::Failed(cause)
        };
        let largest = u64::try_from(LARGEST_ANSWER).unwrap_or(u64::MAX);
        if response.content_length().is_some_and(|told| told > largest) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|why| request::failure(server, why))?
        {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let status = response.status();
        let headers = mem::take(response.headers_mut());
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    async fn send(&self, call: &Call<'_>) -> Result<reqwest::Response, CallError> {
        let to = &call.to;
        let mut last = None;
        for (host, port) in &to.instead {
            let client = self.client_for(host).await?;
            let request = request::build(&client, call, *port)?;
            match client.execute(request).await {
                Ok(response) => return Ok(response),
                // Nothing was sent, so that another one may be tried.
                Err(why) if why.is_connect() => last = Some(request::failure(to, why)),
                Err(why) => return Err(request::failure(to, why)),
            }
        }
        if let Some(last) = last {
            return Err(last);
        }
        let build = || self.build_client(None);
        let client = self.client.get_or_try_init(build).await?;
        let request = request::build(client, call, to.port)?;
        client
            .execute(request)
            .await
            .map_err(|why| request::failure(to, why))
    }

    /// A client that dials `host` whatever URLs name.
    async fn client_for(&self, host: &str) -> Result<reqwest::Client, CallError> {
        if let Some(client) = self.elsewhere.get(host) {
            return Ok(client);
        }
        let client = self.build_client(Some(host.to_owned())).await?;
        self.elsewhere.put(host.to_owned(), client.clone());
        Ok(client)
    }

    /// A client that dials the hosts of URLs, or else the addresses of `instead`.
    async fn build_client(&self, instead: Option<String>) -> Result<reqwest::Client, CallError> {
        let guarded = resolve::Guarded {
            names: self.names.clone(),
            allow: self.settings.allow.as_slice().into(),
            instead,
        };
        let builder = reqwest::Client::builder()
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
            .pool_max_idle_per_host(MOST_IDLE);
        let builder = if self.settings.danger_accept_invalid_certs {
            builder.tls_danger_accept_invalid_certs(true)
        } else {
            builder.tls_backend_preconfigured(tls::for_client(self.tls().await?))
        };
        let unusable = |why| format!("TLS can not be used: {}", innermost(&why));
        builder
            .build()
            .map_err(|why| CallError::Failed(unusable(why)))
    }

    /// What all clients share: reading the platform's certificates takes a while, and each copy of them memory.
    async fn tls(&self) -> Result<&ClientConfig, CallError> {
        let read = || async {
            let roots = self.roots.clone();
            let read = tokio::task::spawn_blocking(|| tls::http_config(roots)).await;
            read.map_err(|why| format!("TLS can not be used: {why}"))?
        };
        let config = self.tls.get_or_try_init(read).await;
        config.map_err(CallError::Failed)
    }
}

/// The address, where the server is named by it.
fn literal(server: &Destination) -> Option<IpAddr> {
    match &server.host {
        Host::Ipv4(address) => Some(IpAddr::V4(*address)),
        Host::Ipv6(address) => Some(IpAddr::V6(*address)),
        Host::Domain(_) => None,
    }
}
